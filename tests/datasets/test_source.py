"""What a source is collected into, and that none of it is an object for each image."""

from __future__ import annotations

import os
import random
import tracemalloc
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import DataError
from clipcifar.datasets.folder_entries import Candidate, Candidates
from clipcifar.datasets.folder_layout import list_layout
from clipcifar.datasets.source import SPLITS, LeftOut, LeftOuts, Sample, Source, Unusable, collect
from clipcifar.store import names


def _samples(n: int) -> Iterator[Sample]:
    for i in range(n):
        yield Sample("train", f"class {i % 10}", f"train/class {i % 10}/{i:08d}.jpg", f"{i:064x}")


def _peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        kept = work()
        assert kept is not None
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _bytes_an_item(work: Callable[[int], object], few: int, many: int) -> float:
    return (_peak(lambda: work(many)) - _peak(lambda: work(few))) / (many - few)


def test_an_image_takes_its_digest_its_id_and_its_label_and_little_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(names, "BLOCK", 512)
    class_names = [f"class {i}" for i in range(10)]

    def collected(n: int) -> object:
        return collect(Source("made", class_names, _samples(n)), on_bad_image="error")

    needed = 64 + 8 + len("train/class 0/00000000.jpg")
    assert _bytes_an_item(collected, 4_000, 20_000) < 2 * needed
    assert _bytes_an_item(lambda n: list(_samples(n)), 4_000, 20_000) > 2 * needed  # the negative control


def test_what_is_left_out_or_cannot_be_used_takes_no_memory_by_its_number() -> None:
    def collected(n: int) -> object:
        odd = (
            Unusable("train", "class 1", f"{i}.jpg", DataError("damaged"))
            if i % 2
            else LeftOut(".txt", f"{i}")
            for i in range(n)
        )
        items = (item for part in (_samples(20), odd) for item in part)
        source = Source("made", [f"class {i}" for i in range(10)], items)
        found_out = collect(source, on_bad_image="skip")
        assert found_out.left_out == {".txt": n // 2, "not readable as an image": n // 2}
        assert len(found_out.unreadable) == 20
        return found_out

    assert abs(_bytes_an_item(collected, 500, 10_000)) < 5


def test_a_listed_folder_holds_no_object_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "BLOCK", 64)

    def listed(n: int) -> object:
        folder = tmp_path / f"{n}"
        for i in range(n):
            (folder / f"class {i % 2}").mkdir(parents=True, exist_ok=True)
            for kind in ("jpg", "txt"):
                (folder / f"class {i % 2}" / f"{i:05d}.{kind}").touch()
        return list_layout(folder)

    few, many = 200, 2_000
    made = [listed(n) for n in (few, many)]  # so that only listing is measured
    assert all(made)
    layout = list_layout(tmp_path / f"{many}")
    assert len(layout.candidates) == many
    assert layout.left_out.kinds == {".txt": many}
    assert _bytes_an_item(lambda n: list_layout(tmp_path / f"{n}"), few, many) < 250


def test_of_each_kind_the_same_few_are_named_in_whatever_order_they_come() -> None:
    items = [LeftOut(kind, f"{i:02d}{kind}") for i in range(9) for kind in (".txt", ".heic")]
    expected = [
        "left out, .heic: 00.heic, 01.heic, 02.heic and 6 more",
        "left out, .txt: 00.txt, 01.txt, 02.txt and 6 more",
    ]
    for seed in range(5):
        random.Random(seed).shuffle(items)
        left_out = LeftOuts()
        for item in items:
            left_out.add(item)
        assert left_out.lines == expected
        assert left_out.kinds == {".txt": 9, ".heic": 9}


_NAME = st.text(alphabet="ab-. é猫\udcff\udc80", min_size=1, max_size=3)
_PATHS = st.lists(st.tuples(_NAME, _NAME).map("/".join), unique=True, max_size=20)


@given(_PATHS, st.data())
def test_candidates_are_sorted_split_by_split_and_then_by_the_bytes_of_their_paths(
    paths: list[str], data: st.DataObject
) -> None:
    splits = [data.draw(st.integers(0, 3)) for _ in paths]
    classes = [data.draw(st.integers(0, 1)) for _ in paths]
    rows = [row for row in range(len(paths)) if data.draw(st.booleans())]
    stored = names.Gathered()
    for path in paths:
        stored.append(os.fsencode(path))
    candidates = Candidates(
        stored.array(),
        array("q", rows),
        array("b", [splits[row] for row in rows]),
        array("i", [classes[row] for row in rows]),
        ["cat", "dog"],
    )
    rows.sort(key=lambda row: (splits[row], os.fsencode(paths[row])))
    expected = [Candidate(SPLITS[splits[row]], ["cat", "dog"][classes[row]], paths[row]) for row in rows]
    assert list(candidates) == expected
    assert len(candidates) == len(rows)
    assert list(candidates.paths) == [candidate.path for candidate in expected]
    assert candidates.splits == {candidate.split for candidate in expected}


def test_pixels_stay_pixels() -> None:
    images = np.arange(2 * 12, dtype=np.uint8).reshape(2, 2, 2, 3)
    items = [Sample("test", "b", "x", images[0]), Sample("test", "a", "y", images[1])]
    (part,) = collect(Source("made", ["a", "b"], items), on_bad_image="error").splits.values()
    np.testing.assert_array_equal(part.content, images)
    assert (part.labels.tolist(), part.ids) == ([1, 0], ["x", "y"])
