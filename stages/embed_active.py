"""The sentences of the active prompt set alone, so that zero-shot waits for no other set's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.embeddings.prompt_sets import embed_sets
from clipcifar.prompts.params import PromptsParams
from stages import run


def main(
    settings: dict[str, Any], prompts: Path, weights: Path, model_path: Path, active_folder: Path
) -> None:
    active = params.read(settings, "prompts", PromptsParams).active
    expanded = [prompts / f"{active}.json"]
    print(embed_sets(expanded, active_folder, settings=settings, weights=weights, model_path=model_path))


if __name__ == "__main__":
    run(main)
