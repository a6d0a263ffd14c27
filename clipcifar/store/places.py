"""Where the files that stages hand on lie, from the project's root: what dvc.yaml gives the stages."""

from __future__ import annotations

RAW, DATASET, SPLITS = "data/raw", "data/dataset.h5", "data/splits.h5"
MODEL, WEIGHTS = "data/model.json", "data/weights"
IMAGES, TEXTS = "data/embeddings/images", "data/embeddings/texts"
ACTIVE = "data/embeddings/active"  # the active set once more, by a stage that waits for no other set
POOL, RANKING = "data/embeddings/pool.h5", "data/ranking.json"
PREDICTIONS, HEADS = "data/predictions", "data/heads"


def metrics_of(name: str) -> tuple[str, str]:
    """The headline of a method, or of the prompt sets, and its details."""
    return f"metrics/{name}.json", f"metrics/details/{name}.json"


def predictions_of(name: str) -> str:
    """What a method says of the test images, or, by the name `prompt_sets`, what every set says."""
    return f"{PREDICTIONS}/{name}.h5"


def head_of(method: str) -> str:
    """What a method trained."""
    return f"{HEADS}/{method}.h5"
