"""Dataset and predictions beside embeddings, and what is refused because it is of other images."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from clipcifar.core.errors import DataError
from clipcifar.evaluation.names import METHODS
from clipcifar.store.dataset import read_dataset, write_dataset
from clipcifar.store.images import read_images
from clipcifar.studies import same_images
from tests.stages.test_methods import rewrite
from tests.support import study_pages
from tests.support.made import NAMES


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    study_pages.write_run(folder, class_names=NAMES)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def read(folder: Path) -> object:
    images = read_images(folder / "images")
    return same_images.read(images, folder / "dataset.h5", folder / "predictions")


def test_what_belongs_together_is_read(made: Path) -> None:
    images = read_images(made / "images")
    dataset, said = same_images.read(images, made / "dataset.h5", made / "predictions")
    assert (dataset.train.ids, dataset.test.ids) == (images.train.ids, images.test.ids)
    assert list(said) == list(METHODS)
    assert all(one.ids == images.test.ids for one in said.values())


def test_a_dataset_of_the_same_ids_and_other_pixels_is_refused(copied: Path) -> None:
    dataset = read_dataset(copied / "dataset.h5")
    dataset.test.content[0] += 1
    write_dataset(
        copied / "dataset.h5", dataset.train, dataset.test, class_names=NAMES, name="made", max_per_class=0
    )
    with pytest.raises(DataError, match="not of the prepared dataset: dataset_digest is") as caught:
        read(copied)
    assert (caught.value.exit_code, caught.value.where) == (3, str(copied / "dataset.h5"))


@pytest.mark.parametrize("method", METHODS)
def test_predictions_from_other_embeddings_are_refused(method: str, copied: Path) -> None:
    path = copied / "predictions" / f"{method}.h5"
    rewrite(path, "predictions", images_fingerprint="ab" * 32)
    with pytest.raises(DataError, match="other images than the embeddings") as caught:
        read(copied)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
