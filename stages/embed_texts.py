"""Every sentence of every prompt set through the frozen text tower, once per model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import files
from clipcifar.embeddings.prompt_sets import embed_sets
from clipcifar.store import prompt_set
from stages import run


def main(
    settings: dict[str, Any], prompts: Path, weights: Path, model_path: Path, texts_folder: Path
) -> None:
    expanded, too_large = prompt_set.files_in(prompts), prompt_set.left_out(prompts)
    print(embed_sets(expanded, texts_folder, settings=settings, weights=weights, model_path=model_path))
    if too_large:
        files.write_json(texts_folder / prompt_set.LEFT_OUT, too_large)  # for who scores the sets
        print(prompt_set.words_of_left_out(too_large))


if __name__ == "__main__":
    run(main)
