"""Twins among very many images: what the index proposes, what is exact about it, and what it admits."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clipcifar.store import parts
from clipcifar.store.rows import Embeddings, Rows
from clipcifar.studies.near_duplicates import indexed
from clipcifar.studies.near_duplicates.indexed import Exact, Index, search_in
from tests.support import made, synthetic

DIM = 32


def clustered(n: int, *, seed: int) -> NDArray[np.float32]:
    """Rows around forty centres: the nearest row of each is one of its own centre's."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((40, DIM))
    return synthetic.unit(centres[rng.integers(40, size=n)] + rng.standard_normal((n, DIM)))


@pytest.mark.parametrize("on_disk", [False, True], ids=["memory", "parts"])
def test_planted_twins_are_all_there_and_every_cosine_is_exact(
    on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, queries = clustered(4000, seed=1), clustered(700, seed=2)
    rng = np.random.default_rng(3)
    planted = rng.permutation(4000)[:100]
    queries[:100] = synthetic.unit(keys[planted] + 0.02 * rng.standard_normal((100, DIM)))
    whole = queries @ keys.T
    sides: tuple[Embeddings, Embeddings] = (keys, queries)
    if on_disk:
        monkeypatch.setattr(parts, "PART_ROWS", 300)
        images = made.write_rows(tmp_path, keys, queries)
        sides = images.train.embeddings, images.test.embeddings
        assert all(isinstance(rows, Rows) for rows in sides)
    monkeypatch.setattr(indexed, "_JUDGED", 50)
    counted: list[int] = []
    index = Index(sides[0])
    rows, cosines = index.nearest(sides[1], on_rows=counted.append)
    assert sum(counted) == 700
    assert rows[:100].tolist() == planted.tolist()
    assert cosines == pytest.approx(whole[np.arange(700), rows], abs=1e-6)  # of the row it names


def test_no_row_is_its_own_twin_and_the_first_of_equals_counts() -> None:
    rows = clustered(3000, seed=4)
    rows[[900, 2500]] = rows[20]
    others, cosines = Index(rows).nearest_other(on_rows=lambda count: None)
    assert (others != np.arange(3000)).all()
    assert others[[20, 900, 2500]].tolist() == [900, 20, 20]
    assert cosines[[20, 900, 2500]] == pytest.approx([1, 1, 1], abs=1e-6)


def test_what_it_misses_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, queries = clustered(4000, seed=1), clustered(300, seed=2)
    best = (queries @ keys.T).max(axis=1)
    said = []
    for candidates, probes in ((32, 16), (1, 1)):
        monkeypatch.setattr(indexed, "CANDIDATES", candidates)
        monkeypatch.setattr(indexed, "_PROBES", probes)
        monkeypatch.setattr(indexed, "_MEASURED", 300)
        index = Index(keys)
        rows, cosines = index.nearest(queries, on_rows=lambda count: None)
        assert cosines == pytest.approx((queries * keys[rows]).sum(axis=1), abs=1e-6)  # exact all the same
        hits = int((cosines >= best - 1e-6).sum())
        assert f"of 300 images compared with all it had the nearest of {hits}." in index.doubt
        said.append(hits)
    assert said[0] > 200 > said[1]


def test_what_it_misses_among_the_rows_themselves_is_measured_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of test images that are many beside few train images: those are all compared, and have no doubt."""
    rows = clustered(3000, seed=4)
    rows[2500] = rows[20]
    monkeypatch.setattr(indexed, "CANDIDATES", 1)
    monkeypatch.setattr(indexed, "_PROBES", 1)
    monkeypatch.setattr(indexed, "_MEASURED", 3000)
    index = Index(rows)
    _, cosines = index.nearest_other(on_rows=lambda count: None)
    whole = rows @ rows.T
    np.fill_diagonal(whole, -np.inf)
    hits = int((cosines >= whole.max(axis=1) - 1e-6).sum())
    assert 0 < hits < 2000
    assert f"of 3,000 images compared with all it had the nearest of {hits:,}." in index.doubt


def test_all_are_compared_where_that_is_quick_or_nothing_else_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = clustered(3000, seed=5)
    assert isinstance(search_in(rows, num_queries=100), Exact)
    monkeypatch.setattr(indexed, "MANY", 3000 * 1500 + 3000 * 99)
    assert isinstance(search_in(rows, num_queries=99), Exact)
    assert isinstance(search_in(rows, num_queries=100), Index)
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "faiss", None)  # its import fails
    assert isinstance(search_in(rows, num_queries=100), Exact)
    assert indexed.INSTALL in capsys.readouterr().out
