"""Heads read back give the scores that the stages left, on the synthetic embeddings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.methods import classifiers
from clipcifar.store import container, heads
from clipcifar.store.images import read_images
from clipcifar.store.predictions import read_predictions
from tests.search.test_outcome import write_search as write_embeddings
from tests.stages.test_methods import run

METHODS = ("prompt_weighting", "gda", "linear_probe", "mlp_probe", "projection")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_embeddings(folder)
    (folder / "heads").mkdir()
    for method in METHODS:
        out = run(method, folder)
        (out / "head.h5").rename(folder / "heads" / f"{method}.h5")
        (out / "p.h5").rename(folder / f"{method}.p.h5")
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    for method in METHODS:
        (tmp_path / f"{method}.h5").write_bytes((made / "heads" / f"{method}.h5").read_bytes())
    return tmp_path


def test_every_head_scores_the_test_images_as_its_stage_did(made: Path) -> None:
    images = read_images(made / "images")
    found = classifiers.heads_in(made / "heads", images)
    assert tuple(found) == METHODS
    for method, classifier in found.items():
        stored = read_predictions(made / f"{method}.p.h5").scores
        np.testing.assert_allclose(classifier(images.test.embeddings), stored, atol=1e-5)
        part = classifier(images.test.embeddings[5:9])  # nor does a row depend on its neighbours
        np.testing.assert_allclose(part, stored[5:9], atol=1e-5)
    assert len({found[method](images.test.embeddings).tobytes() for method in METHODS}) == len(METHODS)


def _rewritten(path: Path, change: Callable[[dict[str, Any]], object], **attributes: Any) -> None:
    arrays, old = heads.read(path)
    own = {key: old[key] for key in old if key not in container._DIGESTS}
    changed = dict(arrays)
    change(changed)
    container.write(path, kind="head", arrays=changed, attributes={**own, **attributes})


@pytest.mark.parametrize("method", METHODS)
def test_a_head_of_other_embeddings_is_refused(method: str, made: Path, copied: Path) -> None:
    _rewritten(copied / f"{method}.h5", lambda _: None, images_fingerprint="ab" * 32)
    with pytest.raises(DataError, match="other embeddings") as caught:
        classifiers.heads_in(copied, read_images(made / "images"))
    assert caught.value.where == str(copied / f"{method}.h5")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_a_sound_file_that_holds_no_such_head_is_refused(
    method: str, fault: str, made: Path, copied: Path
) -> None:
    def damage(arrays: dict[str, Any]) -> None:
        name = sorted(arrays)[0]
        arrays.pop(name) if fault == "missing" else arrays.update({name: arrays[name][..., None]})

    _rewritten(copied / f"{method}.h5", damage)
    with pytest.raises(DataError, match=f"not a head of {method}") as caught:
        classifiers.heads_in(copied, read_images(made / "images"))
    assert caught.value.exit_code == 3


def test_a_missing_head_is_named(made: Path, copied: Path) -> None:
    (copied / "mlp_probe.h5").unlink()
    with pytest.raises(DataError) as caught:
        classifiers.heads_in(copied, read_images(made / "images"))
    assert caught.value.where.endswith("mlp_probe.h5")
