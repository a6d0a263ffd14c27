"""Check all prompt sets and expand them into sentences, before anything costly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_sets, notes
from clipcifar.store.classes import read_classes
from clipcifar.store.prompt_set import LEFT_OUT
from stages import run


def main(settings: dict[str, Any], classes_path: Path, prompts_folder: Path) -> None:
    prompts = params.read(settings, "prompts", PromptsParams)
    classes = read_classes(classes_path)
    expanded = expand_sets(prompts, **classes)
    for prompt_set in expanded.sets:
        content = {**prompt_set.as_json(), "class_names": classes["class_names"]}
        files.write_json(prompts_folder / f"{prompt_set.name}.json", content)
    if expanded.left_out:
        files.write_json(prompts_folder / LEFT_OUT, expanded.left_out)
    of_sets = [note for prompt_set in expanded.sets for note in notes(prompt_set, classes["class_names"])]
    print("\n".join([*expanded.told(prompts.active), *of_sets]))
    if expanded.skipped:
        names = [f"{name} (for {prompts.sets[name]['dataset']})" for name in expanded.skipped]
        print(f"skipped, not for {classes['dataset']}: {', '.join(names)}")


if __name__ == "__main__":
    run(main)
