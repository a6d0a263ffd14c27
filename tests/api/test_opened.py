"""What an opened project keeps of the files that it has read."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from clipcifar.api.opened import Opened
from clipcifar.core.errors import DataError
from clipcifar.store.places import IMAGES
from tests.support.harmed import flip
from tests.support.made import edit_images, write_embeddings
from tests.support.stage_runs import write_params


def test_images_are_read_once_and_again_when_one_of_their_files_has_changed(tmp_path: Path) -> None:
    write_params(tmp_path, {"model": {"name": "tiny", "pretrained": None, "path": "data/none"}})
    folder = tmp_path / IMAGES
    write_embeddings(folder.parent)
    opened = Opened(tmp_path, on_note=pytest.fail)
    first = opened.images()
    assert opened.images() is first

    labels, manifest = (first.test.labels + 1) % 3, (folder / "manifest.h5").read_bytes()
    edit_images(folder, {"test/labels": labels})
    np.testing.assert_array_equal(opened.images().test.labels, labels)
    (folder / "manifest.h5").write_bytes(manifest)
    np.testing.assert_array_equal(opened.images().test.labels, first.test.labels)

    flip(folder / "part-00000.h5")
    with pytest.raises(DataError, match=r"part-00000\.h5"):
        opened.images()
    (folder / "part-00000.h5").unlink()
    with pytest.raises(DataError, match="part 1 of 1 is missing"):
        opened.images()
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="there is no image embeddings file"):
        opened.images()
