"""The weights of templates go from one stage to the next, for the templates and images they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.search import kept_weights, ranking
from clipcifar.store import heads
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.images import read_images
from clipcifar.store.predictions import inherited
from tests.support.made import write_embeddings

CLASSIFIER = {"coefficients": np.ones((3, 8), dtype=np.float32), "intercepts": np.zeros(3, dtype=np.float32)}


@pytest.fixture
def images(tmp_path: Path) -> ImageEmbeddings:
    write_embeddings(tmp_path)
    return read_images(tmp_path / "images")


def test_the_search_takes_the_weights_that_the_head_keeps(tmp_path: Path, images: ImageEmbeddings) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "head.h5"
    train, num_classes = images.train, int(images.train.labels.max()) + 1
    rows = np.arange(len(train.labels))
    sums = rng.standard_normal((5, num_classes, train.embeddings.shape[1])).astype(np.float32)
    weights = ranking.weighted_by(train.part(rows)[0], sums, logit_scale=images.logit_scale)
    kept_weights.write(path, CLASSIFIER, weights, sums, inherited(images.attributes))
    kept = kept_weights.read(path, images, sums)
    np.testing.assert_array_equal(kept, weights)
    halves = train.part(rows[::2]), train.part(rows[1::2])
    given = ranking.select(
        *halves,
        sums,
        reference=ranking.normalised(sums[0]),
        logit_scale=images.logit_scale,
        template_weights=kept[::-1],
    )
    assert given.template_weights == weights[::-1].tolist()


def test_the_head_is_that_of_its_method_as_before(tmp_path: Path, images: ImageEmbeddings) -> None:
    path = tmp_path / "head.h5"
    sums = np.ones((2, 3, 8), dtype=np.float32)
    kept_weights.write(path, CLASSIFIER, np.ones(2), sums, inherited(images.attributes))
    arrays, _ = heads.read_for(path, images, method="prompt_weighting")
    np.testing.assert_array_equal(arrays["coefficients"], CLASSIFIER["coefficients"])


@pytest.mark.parametrize("changed", ["values", "number", "no weights"])
def test_weights_of_other_templates_are_refused(
    tmp_path: Path, images: ImageEmbeddings, changed: str
) -> None:
    path = tmp_path / "head.h5"
    sums = np.ones((2, 3, 8), dtype=np.float32)
    kept_weights.write(path, CLASSIFIER, np.ones(2), sums, inherited(images.attributes))
    if changed == "no weights":  # as an older version wrote it
        heads.write(path, "prompt_weighting", CLASSIFIER, inherited(images.attributes))
    asked = {"values": 2 * sums, "number": sums[:1]}.get(changed, sums)
    with pytest.raises(DataError, match="of other templates") as refused:
        kept_weights.read(path, images, asked)
    assert refused.value.fix == "run `dvc repro prompt_weighting`"
