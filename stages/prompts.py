"""Check all prompt sets and expand them into sentences, before anything costly."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_sets, notes
from clipcifar.store.classes import read_classes
from stages import run


def main(settings: dict[str, Any], classes_path: Path, prompts_folder: Path) -> None:
    prompts = params.read(settings, "prompts", PromptsParams)
    classes = read_classes(classes_path)
    sets, skipped = expand_sets(prompts, **classes)
    for prompt_set in sets:
        content = {**asdict(prompt_set), "class_names": classes["class_names"]}
        files.write_json(prompts_folder / f"{prompt_set.name}.json", content)
    print(f"{len(sets)} prompt sets, {prompts.active} active")
    for note in [note for prompt_set in sets for note in notes(prompt_set, classes["class_names"])]:
        print(note)
    if skipped:
        names = [f"{name} (for {prompts.sets[name]['dataset']})" for name in skipped]
        print(f"skipped, not for {classes['dataset']}: {', '.join(names)}")


if __name__ == "__main__":
    run(main)
