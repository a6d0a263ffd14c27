"""What fine-tuning starts from: data, tower and head, checked to belong together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from clipcifar.core.files import sha256_of, source_sha256
from clipcifar.embeddings import provenance
from clipcifar.methods.trained.mlp_probe import MLPProbe
from clipcifar.store import heads
from clipcifar.store.dataset import Prepared, read_dataset
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.images import read_images
from clipcifar.store.inputs import check_embedded, train_val_of
from clipcifar.store.model import ModelDescription, check_described, check_weights
from clipcifar.store.splits import TrainVal
from clipcifar.studies.finetune.params import FinetuneParams

_PACKAGE = Path(__file__).parents[3]
_SOURCES = (
    "backbone/preprocess.py",
    "methods/trained/dropout.py",
    "methods/trained/mlp_probe.py",
    "methods/trained/training.py",
    "studies/finetune/train",
)


@dataclass(frozen=True)
class Inputs:
    """Data of one run.

    Attributes:
        dataset: pixels, or the digests of image files.
        images: the embeddings of the same images by the tower as it begins.
        rows: train and val among the official train rows.
    """

    dataset: Prepared
    images: ImageEmbeddings
    rows: TrainVal


def read(dataset_path: Path, weights: Path, model_path: Path, images_path: Path, splits_path: Path) -> Inputs:
    """Read and verify; DataError where the embeddings are not of this dataset and these weights."""
    dataset, images = read_dataset(dataset_path), read_images(images_path)
    description = ModelDescription.read(model_path)
    check_described(images.attributes, description)
    check_weights(description, weights)
    check_embedded(dataset, images, where=images_path)
    return Inputs(dataset, images, train_val_of(images, splits_path, learner="finetune"))


def read_head(path: Path, images: ImageEmbeddings, *, dropout: float) -> tuple[MLPProbe, str]:
    """The trained head of the frozen probe, and its file's digest.

    Raises:
        DataError: it was trained on other embeddings.
    """
    arrays, attributes = heads.read_for(path, images, method="mlp_probe")
    dim, hidden = images.train.embeddings.shape[1], int(attributes["hidden"])
    classes = len(images.class_names)
    head = MLPProbe.rebuilt(arrays, dim=dim, num_classes=classes, hidden=hidden, dropout=dropout)
    return head, str(attributes["content_digest"])


def fingerprint(
    images: ImageEmbeddings, rows: TrainVal, head_digest: str, *, params: FinetuneParams, device: str
) -> str:
    """Digest of all that determines the trained tower: data, start, parameters, device kind and code."""
    return sha256_of(
        {
            "images": images.attributes["fingerprint"],
            "train": rows.train.tolist(),
            "val": rows.val.tolist(),
            "head": head_digest,
            "params": asdict(params),
            "device": device,
            "versions": provenance.versions(),
            "source": source_sha256(_PACKAGE, *_SOURCES),
        }
    )
