"""A finished project, opened from Python by a process that is somewhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import clipcifar
from clipcifar.store.dataset import Prepared, read_dataset
from tests.support.workspace import Workspace


@pytest.fixture(scope="module")
def project(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[clipcifar.Project]:
    """The shared finished workspace: only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLIPCIFAR_CACHE", finished.environment["CLIPCIFAR_CACHE"])
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        yield clipcifar.open(finished.folder)


@pytest.fixture(scope="module")
def dataset(project: clipcifar.Project) -> Prepared:
    return read_dataset(project.root / Path("data/dataset.h5"))
