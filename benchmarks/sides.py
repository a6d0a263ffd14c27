"""The two sides of each comparison that needs a process of its own: `python sides.py SIDE ...`.

Each prints one line of JSON with its own figures. What is the peers' is written as their users
write it: default settings, a DataLoader, open_clip's transform, `encode_text` on 77 tokens.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import CLASSES, WORK, clip_like, peak_mb, photographs

WEIGHTS = WORK / "model" / "data" / "weights"
PAIRS = WORK / "pairs"


def open_clip_model() -> tuple[Any, Any, Any]:
    """(model, transform, tokenizer) as open_clip's README loads them, from our folder of random weights."""
    import open_clip

    logging.disable(logging.CRITICAL)
    name = f"local-dir:{WEIGHTS}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    return model.eval(), transform, open_clip.get_tokenizer(name)


def backbone(precision: Any = "fp32") -> Any:
    """Our side of the same weights."""
    import torch

    from clipcifar.backbone.towers import Backbone

    logging.disable(logging.CRITICAL)
    return Backbone.load(WEIGHTS, torch.device("cpu"), precision)


def sentences(n: int) -> list[str]:
    """The n first sentences of the pool: 300 templates for each of ten classes."""
    from clipcifar.prompts import pool

    return list(dict.fromkeys(pool.expand(CLASSES, dataset="cifar10").sentences))[:n]


def embedded(tower: Any, texts: list[str]) -> Any:
    """(S, D) float32 rows of S sentences, in their order."""
    places, rows = zip(*tower.encode_sentences(texts), strict=True)
    text_embeddings = np.empty((len(texts), rows[0].shape[1]), np.float32)
    text_embeddings[np.concatenate(places)] = np.concatenate(rows)
    return text_embeddings


def text_ours(n: str, precision: str = "fp32") -> dict[str, float]:
    """Seconds for n sentences through our text tower; their embeddings are kept for the comparison."""
    tower, texts = backbone(precision), sentences(int(n))
    list(tower.encode_sentences(texts[:16]))
    start = time.perf_counter()
    text_embeddings = embedded(tower, texts)
    seconds = time.perf_counter() - start
    np.save(PAIRS / f"text_ours_{precision}.npy", text_embeddings)
    return {"seconds": seconds, "rate": len(texts) / seconds}


def text_theirs(n: str) -> dict[str, float]:
    """The same by open_clip's `encode_text`, batches of 64, each sentence padded to 77 tokens."""
    import torch

    model, _, tokenizer = open_clip_model()
    texts = sentences(int(n))
    with torch.inference_mode():
        model.encode_text(tokenizer(texts[:16]))
        start = time.perf_counter()
        parts = [
            torch.nn.functional.normalize(model.encode_text(tokenizer(texts[i : i + 64])), dim=-1)
            for i in range(0, len(texts), 64)
        ]
        seconds = time.perf_counter() - start
    np.save(PAIRS / "text_theirs.npy", torch.cat(parts).numpy())
    return {"seconds": seconds, "rate": len(texts) / seconds}


def made_dataset(n: int, transform: Any) -> Any:
    """A torch dataset of n PIL images of 32 x 32 with open_clip's transform, as torchvision's CIFAR10 is."""
    from PIL import Image
    from torch.utils.data import Dataset

    pixels = photographs(n)
    labels = clip_like(n)[1]

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return n

        def __getitem__(self, i: int) -> tuple[Any, int]:
            return transform(Image.fromarray(pixels[i])), int(labels[i])

    return Images()


def loop_theirs(n: str, folder: str = "") -> dict[str, float]:
    """A plain open_clip loop over n images: DataLoader with two workers, PIL transform, encode_image."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder

    model, transform, _ = open_clip_model()
    if folder:
        dataset: Any = Subset(ImageFolder(folder, transform=transform), range(int(n)))
    else:
        dataset = made_dataset(int(n), transform)
    loader = DataLoader(dataset, batch_size=64, num_workers=2)
    batches = []
    with torch.inference_mode():
        model.encode_image(torch.zeros(64, 3, 224, 224))
        start = time.perf_counter()
        for images, _ in loader:
            batches.append(torch.nn.functional.normalize(model.encode_image(images), dim=-1))
        seconds = time.perf_counter() - start
    np.save(PAIRS / f"images_theirs{'_folder' if folder else ''}.npy", torch.cat(batches).numpy())
    return {"seconds": seconds, "rate": int(n) / seconds}


def loop_ours(n: str, folder: str = "", precision: str = "fp32") -> dict[str, float]:
    """Our extraction of n images, shards and checks included; then our tower alone on prepared input."""
    import shutil

    import torch

    from clipcifar.backbone import kernels
    from clipcifar.core import files
    from clipcifar.embeddings.extract import extract
    from clipcifar.embeddings.shards import ShardFolder
    from clipcifar.embeddings.sources import ArraySource, FolderSource

    tower, count = backbone(precision), int(n)
    source: Any
    if folder:
        paths = sorted(Path(folder).glob("*/*.jpg"))[:count]
        ids = [path.relative_to(folder).as_posix() for path in paths]
        digests = [files.file_sha256(path) for path in paths]
        source = FolderSource(Path(folder), ids, digests, preprocess=tower.preprocess, workers=2)
    else:
        ids = [str(i) for i in range(count)]
        source = ArraySource(photographs(count))
    shards = ShardFolder(PAIRS / "shards", "0" * 64)
    shutil.rmtree(PAIRS / "shards", ignore_errors=True)
    tower.encode_images(torch.zeros((64, 3, 32, 32), dtype=torch.uint8))
    start = time.perf_counter()
    with shards.locked():
        parts = extract(source, tower.encode_images, ids=ids, batch_size=256, multiple=8, shards=shards)
        embeddings = np.concatenate(list(parts))
        shards.remove()
    seconds = time.perf_counter() - start
    np.save(PAIRS / f"images_ours{'_folder' if folder else ''}_{precision}.npy", embeddings)
    prepared, alone_count = torch.randn(256, 3, 224, 224).to(tower._dtype), 256
    with torch.inference_mode(), kernels.fast_on_cpu(torch.device("cpu")):
        tower._model.encode_image(prepared)
        start = time.perf_counter()
        for _ in range(0, alone_count, 256):
            tower._model.encode_image(prepared)
        alone = time.perf_counter() - start
    return {
        "seconds": seconds,
        "rate": count / seconds,
        "tower_rate": alone_count / alone,
        "peak_mb": peak_mb(),
    }


def preprocess_theirs(n: str) -> dict[str, float]:
    """open_clip's transform on n PIL images, one by one, on one thread."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    from open_clip import image_transform

    transform = image_transform(224, is_train=False)
    images = [Image.fromarray(pixels) for pixels in photographs(int(n))]
    for image in images[:32]:
        transform(image)
    start = time.perf_counter()
    for image in images:
        transform(image)
    seconds = time.perf_counter() - start
    np.save(PAIRS / "input_theirs.npy", torch.stack([transform(image) for image in images[:64]]).numpy())
    return {"seconds": seconds, "ms": seconds / int(n) * 1e3}


def preprocess_ours(n: str) -> dict[str, float]:
    """Ours, batches of 64, on one thread."""
    import torch

    torch.set_num_threads(1)
    from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

    from clipcifar.backbone import device
    from clipcifar.backbone.preprocess import Preprocess, model_input

    device.keep_freed_memory(torch.device("cpu"))
    config = Preprocess((224, 224), OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, "bicubic", "shortest", (0, 0, 0))
    batches = torch.from_numpy(photographs(int(n))).permute(0, 3, 1, 2).split(64)
    model_input(batches[0], config)
    start = time.perf_counter()
    for batch in batches:
        model_input(batch, config)
    seconds = time.perf_counter() - start
    np.save(PAIRS / "input_ours.npy", model_input(batches[0], config).numpy())
    return {"seconds": seconds, "ms": seconds / int(n) * 1e3}


def clip_benchmark_zero_shot(n: str) -> dict[str, float]:
    """clip-benchmark's zero-shot evaluation of n images with 18 templates, its own classifier and loop."""
    import torch
    from clip_benchmark.metrics import zeroshot_classification
    from torch.utils.data import DataLoader

    model, transform, tokenizer = open_clip_model()
    loader = DataLoader(made_dataset(int(n), transform), batch_size=64, num_workers=2)
    templates = [f"a photo number {i} of a {{c}}." for i in range(18)]
    start = time.perf_counter()
    classifier = zeroshot_classification.zero_shot_classifier(
        model, tokenizer, CLASSES, templates, "cpu", amp=False
    )
    texts = time.perf_counter() - start
    start = time.perf_counter()
    zeroshot_classification.run_classification(model, classifier, loader, "cpu", amp=False)
    images = time.perf_counter() - start
    assert torch.isfinite(classifier).all()
    return {"texts": texts, "images": images, "rate": int(n) / images}


def logistic_theirs(out: str, tolerance: str = "1e-4") -> dict[str, Any]:
    """scikit-learn as a user calls it: a new LogisticRegression for every C, the best on val kept."""
    from sklearn.linear_model import LogisticRegression

    rows, labels, grid = probe_work()
    start = time.perf_counter()
    best = (0.0, -1.0)
    for c in grid:
        model = LogisticRegression(C=c, max_iter=20_000, tol=float(tolerance))
        model.fit(rows[:45_000], labels[:45_000])
        right = model.predict(rows[45_000:]) == labels[45_000:]
        if right.mean() > best[1]:
            best = (c, float(right.mean()))
            np.save(PAIRS / out, right)
    return {"seconds": time.perf_counter() - start, "c": best[0], "accuracy": best[1], "peak_mb": peak_mb()}


def logistic_ours(out: str) -> dict[str, Any]:
    """Our validation curve and choice on the same rows."""
    from clipcifar.methods import linear_probe

    rows, labels, grid = probe_work()
    start = time.perf_counter()
    points = linear_probe.validation_curve(
        rows[:45_000],
        labels[:45_000],
        rows[45_000:],
        labels[45_000:],
        params=linear_probe.LinearProbeParams(c_grid=grid, max_iter=2000),
        class_names=CLASSES,
    )
    chosen = linear_probe.choose(points)
    seconds = time.perf_counter() - start
    again, _ = linear_probe.fit(
        rows[:45_000], labels[:45_000], c=chosen.c, max_iter=2000, class_names=CLASSES
    )
    np.save(PAIRS / out, again.scores(rows[45_000:]).argmax(axis=1) == labels[45_000:])
    return {"seconds": seconds, "c": chosen.c, "accuracy": chosen.val_accuracy, "peak_mb": peak_mb()}


def probe_work() -> tuple[Any, Any, tuple[float, ...]]:
    """45,000 train and 5,000 val rows of 512 numbers, and eight values of C."""
    return (*clip_like(50_000), (0.316, 1.0, 3.16, 10.0, 31.6, 100.0, 316.0, 1000.0))


def mlp_theirs() -> dict[str, float]:
    """A DataLoader loop to the early stop: 512 hidden units, AdamW, the best epoch on val kept."""
    import copy

    import torch
    from torch.utils.data import DataLoader, TensorDataset

    rows, labels, _ = probe_work()
    features, targets = torch.from_numpy(rows), torch.from_numpy(labels)
    features = (features - features[:45_000].mean(0)) / features[:45_000].std(0)
    train = TensorDataset(features[:45_000], targets[:45_000])
    val = TensorDataset(features[45_000:], targets[45_000:])
    torch.manual_seed(0)
    head = torch.nn.Sequential(
        torch.nn.Linear(512, 512), torch.nn.GELU(), torch.nn.Dropout(0.2), torch.nn.Linear(512, 10)
    )
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=1e-4)
    best, since, epochs, state = 0.0, 0, 0, None
    start = time.perf_counter()
    while since < 8 and epochs < 60:
        head.train()
        for x, y in DataLoader(train, batch_size=512, shuffle=True):
            loss = torch.nn.functional.cross_entropy(head(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        head.eval()
        with torch.no_grad():
            hits = sum(int((head(x).argmax(1) == y).sum()) for x, y in DataLoader(val, batch_size=512))
        epochs, since = epochs + 1, since + 1
        if hits / 5000 > best:
            best, since, state = hits / 5000, 0, copy.deepcopy(head.state_dict())
    assert state is not None
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "epochs": epochs, "epoch": seconds / epochs, "accuracy": best}


def mlp_ours() -> dict[str, float]:
    """Our training of one seed to its early stop."""
    import torch

    from clipcifar.methods.trained.mlp_probe import MLPProbe
    from clipcifar.methods.trained.training import Labelled, TrainingParams, train

    rows, labels, _ = probe_work()
    cpu = torch.device("cpu")
    train_data, val_data = (
        Labelled.on(cpu, rows[part], labels[part]) for part in (slice(0, 45_000), slice(45_000, None))
    )
    params = TrainingParams(512, 0.2, 1e-3, 1e-4, 512, 60, 8, (0,), "cpu")

    def build() -> MLPProbe:
        return MLPProbe(train_data.embeddings, num_classes=10, hidden=512, dropout=0.2)

    start = time.perf_counter()
    run = train(build, train_data, val_data, params=params, seed=0)
    seconds, epochs = time.perf_counter() - start, len(run.curve) - 1
    return {
        "seconds": seconds,
        "epochs": epochs,
        "epoch": seconds / epochs,
        "accuracy": run.best.val_accuracy,
    }


SIDES: dict[str, Callable[..., dict[str, Any]]] = {
    side.__name__: side
    for side in (
        text_ours,
        text_theirs,
        loop_ours,
        loop_theirs,
        preprocess_ours,
        preprocess_theirs,
        clip_benchmark_zero_shot,
        logistic_ours,
        logistic_theirs,
        mlp_ours,
        mlp_theirs,
    )
}

if __name__ == "__main__":
    PAIRS.mkdir(parents=True, exist_ok=True)
    print(json.dumps(SIDES[sys.argv[1]](*sys.argv[2:])), flush=True)
    os._exit(0)
