"""What fine-tuning starts from: a small task with pixels, a miniature CLIP and the probe trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipcifar.core.files import file_sha256
from clipcifar.store import container, splits
from clipcifar.store.dataset import PreparedSplit, write_dataset
from stages import embed_images, fetch_model, mlp_probe

NAMES = ["ant", "bee", "cow"]
SIDE, N_TRAIN, N_TEST = 16, 72, 45
OUTPUTS = ("scores.h5", "tower.safetensors", "head.h5", "training.csv", "layers.csv")
FINETUNE: dict[str, Any] = {
    "unfrozen_blocks": None,
    "epochs": 3,
    "patience": 3,
    "learning_rate": 0.002,
    "layer_decay": 0.8,
    "warmup_epochs": 0.5,
    "weight_decay": 0.05,
    "dropout": 0.1,
    "batch_size": 12,
    "accumulate": 2,
    "crop": "resized",
    "smallest_crop": 0.5,
    "flip": "horizontal",
    "checkpoint_activations": False,
    "seed": 0,
    "precision": "fp32",
    "device": "cpu",
}
_PROBE = {
    "hidden": 8,
    "dropout": 0.1,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "batch_size": 64,
    "max_epochs": 3,
    "patience": 3,
    "seeds": [0],
    "device": "cpu",
}


def settings(clip: Path, **finetune: Any) -> dict[str, Any]:
    """All sections that the stages below read."""
    name = {"name": f"local-dir:{clip}", "pretrained": None, "path": str(clip)}
    return {
        "model": {**name, "seed": 0, "allow_pickle": False},
        "embed": {"device": "cpu", "precision": "fp32", "batch_size": 32, "workers": 0, "storage": "float32"},
        "dataset": {
            "name": "digits",
            "path": "data/none",
            "max_per_class": None,
            "seed": 0,
            "on_bad_image": "error",
        },
        "mlp_probe": _PROBE,
        "finetune": {**FINETUNE, **finetune},
    }


def pixels(n: int, *, seed: int, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(n, side, side, 3) stripes under noise, and what tells them: the class is the stripes' direction."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n, dtype=np.int64) % len(NAMES))
    rows, columns = np.mgrid[:side, :side]
    waves = [np.sin(angle) for angle in (rows * 1.2, columns * 1.2, (rows + columns) * 0.9)]
    images = np.stack([waves[label] for label in labels])[..., None] * 50 + 128
    images = images + rng.normal(0, 60, (n, side, side, 3))
    return images.clip(0, 255).astype(np.uint8), labels


def as_photographs(split: PreparedSplit, folder: Path) -> PreparedSplit:
    """The same images as files below `folder`, under their ids."""
    digests = []
    for sample_id, image in zip(split.ids, split.content, strict=True):
        path = folder / sample_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, format="png")
        digests.append(file_sha256(path))
    return PreparedSplit(container.encode_strings(digests), split.labels, split.ids)


def write(
    folder: Path, clip: Path, *, kind: Literal["pixels", "photographs"] = "pixels", side: int = SIDE
) -> None:
    """Everything up to the MLP probe, in `folder` under the names of data/; photographs are in raw/."""
    parts = {}
    for seed, (name, n) in enumerate((("train", N_TRAIN), ("test", N_TEST))):
        split = PreparedSplit(*pixels(n, seed=seed, side=side), [f"{name}/{i:03d}" for i in range(n)])
        parts[name] = split if kind == "pixels" else as_photographs(split, folder / "raw")
    train = parts["train"]
    digest = write_dataset(
        folder / "dataset.h5", train, parts["test"], class_names=NAMES, name="stripes", max_per_class=0
    )
    rows = splits.stratified_split(train.labels, train.ids, class_names=NAMES, val_fraction=0.25, seed=0)
    splits.write_splits(folder / "splits.h5", train.ids, rows, attributes={"dataset_digest": digest})
    given = settings(clip)
    fetch_model.main(given, folder / "weights", folder / "model.json")
    names = ("raw", "dataset.h5", "weights", "model.json", "images")
    embed_images.main(given, *(folder / name for name in names))
    mlp_probe.main(
        given,
        folder / "images",
        folder / "splits.h5",
        folder / "head.h5",
        folder / "mlp_probe.h5",
        folder / "mlp_probe.json",
        folder / "details" / "mlp_probe.json",
        folder / "plots",
    )


def arguments(folder: Path, out: Path) -> list[Path]:
    """The paths of the stage `finetune`."""
    names = ("raw", "dataset.h5", "weights", "model.json", "images", "splits.h5", "head.h5")
    return [*(folder / name for name in names), out]


def outputs(out: Path) -> dict[str, bytes]:
    """What the stage `finetune` left, by name."""
    return {name: (out / name).read_bytes() for name in OUTPUTS}
