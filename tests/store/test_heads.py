from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.store import heads
from clipcifar.store.images import read_images
from tests.support import synthetic

ARRAYS = st.dictionaries(
    st.sampled_from(["weights", "bias", "scale", "layers/0", "layers/1"]),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)),
    max_size=4,
)


@given(arrays=ARRAYS)
@settings(max_examples=25)
def test_a_head_comes_back_bit_for_bit_with_what_it_was_trained_on(
    arrays: dict[str, NDArray[Any]], tmp_path: Path
) -> None:
    path = tmp_path / "head.h5"
    heads.write(path, "linear_probe", arrays, {"model": "ViT-B-32", "C": 0.1})
    found, attributes = heads.read(path)
    assert sorted(found) == sorted(arrays)
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
    assert (attributes["method"], attributes["model"], attributes["C"]) == ("linear_probe", "ViT-B-32", 0.1)


def test_equal_heads_are_equal_files_and_another_method_is_another_file(tmp_path: Path) -> None:
    arrays = {"weights": np.eye(3, dtype=np.float32)}
    for name, method in (("a", "linear_probe"), ("b", "linear_probe"), ("c", "mlp_probe")):
        heads.write(tmp_path / name, method, arrays, {"model": "m"})
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "head.h5"
    weights = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    heads.write(path, "linear_probe", {"weights": weights}, {})
    content = path.read_bytes()
    assert content.count(weights.tobytes()) == 1
    changed = weights.copy()
    changed[1, 1] += 1
    path.write_bytes(content.replace(weights.tobytes(), changed.tobytes()))
    with pytest.raises(DataError, match="does not match its digest") as caught:
        heads.read(path)
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))


def test_a_head_is_not_read_as_embeddings_and_nothing_else_as_a_head(tmp_path: Path) -> None:
    path = tmp_path / "head.h5"
    heads.write(path, "linear_probe", {"weights": np.eye(3)}, {})
    with pytest.raises(DataError, match="expected image embeddings, schema 1; found head"):
        read_images(path)
    with pytest.raises(DataError, match="there is no head file"):
        heads.read(tmp_path / "none.h5")


def test_a_head_is_for_the_embeddings_and_of_the_method_it_was_trained_by(tmp_path: Path) -> None:
    images, path = synthetic.image_embeddings(), tmp_path / "head.h5"
    fingerprint = images.attributes["fingerprint"]
    heads.write(path, "linear_probe", {}, {"c": 0.1, "images_fingerprint": fingerprint})
    assert heads.read_for(path, images, method="linear_probe")[1]["c"] == 0.1
    with pytest.raises(DataError, match="not a head of mlp_probe, but of 'linear_probe'") as caught:
        heads.read_for(path, images, method="mlp_probe")
    assert (caught.value.exit_code, caught.value.where) == (3, str(path))
    for other in ({"images_fingerprint": "ab" * 32}, {}):
        heads.write(path, "linear_probe", {}, {"c": 0.1, **other})
        with pytest.raises(DataError, match="trained on other embeddings") as caught:
            heads.read_for(path, images, method="linear_probe")
        assert (caught.value.exit_code, caught.value.where) == (3, str(path))
