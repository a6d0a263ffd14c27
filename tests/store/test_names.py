"""Names as an array of bytes against a list of text, which is what they replace."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, strategies as st

from clipcifar.core.errors import DataError
from clipcifar.core.files import canonical_json, sha256_of
from clipcifar.store import names as module, splits
from clipcifar.store.dataset import PreparedSplit, digest_of
from clipcifar.store.fields import check_ids, copies_of
from clipcifar.store.names import Gathered, Names, json_of, json_sha256, positions, repeated

# A zero byte at the end is what no fixed-length string can keep, and no name of a file has.
TEXT = st.text(alphabet='ab/.é猫🐈"\\\n', max_size=6)
LISTS = st.lists(TEXT, max_size=30)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a handful of names is several blocks."""
    monkeypatch.setattr(module, "BLOCK", 4)


@given(LISTS, LISTS)
def test_names_are_what_a_list_of_them_is(texts: list[str], others: list[str]) -> None:
    names = Names.of(texts)
    assert len(names) == len(texts)
    assert list(names) == names.tolist() == texts
    assert [names[row] for row in range(len(names))] == texts
    assert names == texts
    assert texts == names
    assert names == Names.of(texts)
    assert (names == others) == (texts == others) == (names == Names.of(others))
    assert names + others == texts + others
    assert names + Names.of(others) == texts + others
    assert names[1:5] == texts[1:5]
    assert names[::-1] == texts[::-1]
    assert (texts[0] if texts else "x") in [*names, "x"]
    assert all(text in names for text in texts)
    assert "no such name" not in names
    assert pickle.loads(pickle.dumps(names)) == texts
    assert np.array(names).tolist() == texts


@given(st.lists(TEXT, min_size=1, max_size=30), st.data())
def test_rows_give_the_names_of_those_rows(texts: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=9))
    taken = Names.of(texts)[np.array(rows, dtype=np.int64)]
    assert taken == [texts[row] for row in rows]
    mask = np.zeros(len(texts), dtype=bool)
    mask[rows] = True
    assert Names.of(texts)[mask] == [texts[row] for row in sorted(set(rows))]
    # What is written is as wide as the longest of them, whatever lay beside them before.
    assert taken.narrow.dtype == Names.of([texts[row] for row in rows]).array.dtype


@given(LISTS)
def test_what_comes_one_by_one_ends_as_one_array(texts: list[str]) -> None:
    gathered = Gathered()
    for number, text in enumerate(texts):
        assert len(gathered) == number
        gathered.append(text.encode())
    array = gathered.array()
    assert array.tolist() == [text.encode() for text in texts]
    assert array.dtype.itemsize == max([1, *(len(text.encode()) for text in texts)])


def test_bytes_that_are_no_text_are_refused_wherever_they_stand() -> None:
    whole = ["a", "b", "é", "c", "d", "猫"]
    assert Names.read(Names.of(whole).array) == whole
    for row in range(len(whole)):
        array = Names.of(whole).array.copy()
        array[row] = b"\xc3"  # the first half of an é: with the next name's first byte it must not be one
        with pytest.raises(DataError, match="a string is not UTF-8"):
            Names.read(array)
    with pytest.raises(DataError, match="expected strings, found int64"):
        Names.read(np.arange(3))


@given(LISTS)
def test_json_in_blocks_is_the_json_of_the_whole(texts: list[str]) -> None:
    assert b"".join(json_of(Names.of(texts))) == canonical_json(texts).encode()
    assert json_sha256(Names.of(texts)) == json_sha256(texts) == sha256_of(texts)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    assert b"".join(json_of(lengths)) == canonical_json(lengths.tolist()).encode()


def _in_groups(items: list[bytes]) -> list[list[int]]:
    groups: dict[bytes, list[int]] = {}
    for row, item in enumerate(items):
        groups.setdefault(item, []).append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


@pytest.mark.parametrize("hashes", [hash, lambda item: len(str(item)) % 2, lambda item: 0])
@given(first=LISTS, second=LISTS)
def test_what_is_there_more_than_once_is_found_whatever_the_hashes(
    hashes: object, first: list[str], second: list[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:  # a hash may only save time: with a bad one all is compared
        patch.setattr(module, "hash", hashes, raising=False)
        arrays = [Names.of(part).array for part in (first, second)]
        expected = _in_groups([text.encode() for text in first + second])
        assert [rows.tolist() for rows in repeated(*arrays)] == expected


@given(LISTS)
def test_ids_that_occur_twice_are_refused(texts: list[str]) -> None:
    for ids in (texts, sorted(texts), sorted(set(texts))):
        if len(set(ids)) == len(ids):
            check_ids(ids)
        else:
            with pytest.raises(DataError, match="a sample id occurs twice"):
                check_ids(ids)


@given(LISTS)
def test_copies_are_counted_from_the_first(texts: list[str]) -> None:
    first: dict[str, int] = {}
    expected = [first.setdefault(text, row) for row, text in enumerate(texts)]
    copies = copies_of(Names.of(texts).array)
    assert (list(range(len(texts))) if copies is None else copies.tolist()) == expected
    assert (copies is None) == (len(first) == len(texts))
    lengths = np.array([len(text) for text in texts])
    if (of_numbers := copies_of(lengths)) is not None:
        assert (lengths[of_numbers] == lengths).all()


@given(LISTS, LISTS)
def test_positions_are_those_of_a_dictionary(wanted: list[str], texts: list[str]) -> None:
    once = list(dict.fromkeys(texts))
    row_of = {text: row for row, text in enumerate(once)}
    for names in (once, Names.of(once)):
        assert positions(wanted, names).tolist() == [row_of.get(text, -1) for text in wanted]
    assert positions(once, once).tolist() == list(range(len(once)))


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(0, 9))
def test_the_seeded_order_is_that_of_the_digests(classes: list[int], seed: int) -> None:
    labels, ids = np.array(classes, dtype=np.int64), [f"é/{i}" for i in range(len(classes))]
    expected = []
    for label in sorted(set(classes)):
        of_class = [row for row, other in enumerate(classes) if other == label]
        of_class.sort(key=lambda row: hashlib.sha256(f"subset\0{seed}\0{ids[row]}".encode()).digest())
        expected += of_class[:3]
    assert splits.seeded_subset(labels, ids, max_per_class=3, seed=seed).tolist() == sorted(expected)


def test_digests_and_choices_are_those_of_before_there_were_names() -> None:
    """Written down from lists of text, in November 2026; files in people's caches carry them."""
    n = 130
    ids = [f"train/cät {i % 3}/{i:03d}.jpg" for i in range(n)]
    hexes = [hashlib.sha256(str(i % 100).encode()).hexdigest() for i in range(n)]
    content, labels = np.array(hexes, dtype="S64"), np.arange(n) % 3
    train, test = (
        PreparedSplit(content, labels, ids),
        PreparedSplit(content[:7], labels[:7], [f"test/{i}" for i in range(7)]),
    )
    expected = "9756a4d64c2b9fe3e2434dd2925adc7038b49fe2f1ea839faddbfda963bc069d"
    assert digest_of(train, test, ["a", "b", "c"]) == expected
    pixels = np.arange(n * 12, dtype=np.uint64).astype(np.uint8).reshape(n, 2, 2, 3)
    digest = digest_of(
        PreparedSplit(pixels, labels, ids), PreparedSplit(pixels[:0], labels[:0], []), [*"abc"]
    )
    assert digest == "292064f37b495f8c2ce71085326aac7f79b91b03202d583c9c81fb2899c06ef4"
    rows = splits.stratified_split(labels, ids, class_names=[*"abc"], val_fraction=0.2, seed=3)
    sha256 = hashlib.sha256(rows.val.tobytes()).hexdigest()
    assert sha256 == "db8dafc74baa2fcace8fed3b97b7997d92500f308c3a936cc87f8c118c0799da"
    subset = splits.seeded_subset(labels, ids, max_per_class=7, seed=1)
    sha256 = hashlib.sha256(subset.tobytes()).hexdigest()
    assert sha256 == "32510ee1be47f90cec052b313b9793c760f43dd8648d632501b149d56cd19948"
