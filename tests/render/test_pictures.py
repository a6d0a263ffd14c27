"""Pictures inside a page: pixels and nothing else of the file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipcifar.render.pictures import SIDE, Pictures
from clipcifar.store.dataset import PreparedSplit


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_what_a_photograph_says_of_place_and_camera_is_not_in_the_page(format: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0110] = "a camera of mine"
    exif.get_ifd(0x8825)[1] = "N"  # the block of the place
    exif.get_ifd(0x8825)[2] = (47.0, 23.0, 1.0)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8))
    photo.save(tmp_path / "a", format, exif=exif)
    assert b"a camera of mine" in (tmp_path / "a").read_bytes()
    split = PreparedSplit(np.array([b"0" * 64]), np.zeros(1, dtype=np.int64), ["a"])
    content = base64.b64decode(Pictures(split, tmp_path).data_uri(0).partition(",")[2])
    assert b"a camera of mine" not in content
    with Image.open(io.BytesIO(content)) as shown:
        assert (shown.format, shown.size) == ("PNG", (SIDE, 2 * SIDE // 3))
        assert not shown.getexif()
        assert shown.info == {}
