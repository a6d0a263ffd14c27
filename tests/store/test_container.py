from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.store import container
from tests.support.waiting import PATIENCE_S

DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "|u1", "<i8", "<i4", ">i2", "|b1", "|S3", "|S1"])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
NAMES = st.sampled_from(["a", "b", "train/x", "train/y", "test/x", "é", "with space"])
# A fixed-length string ends where its padding starts, so no attribute ends in NUL.
TEXTS = st.text(max_size=20).filter(lambda text: not text.endswith("\0"))
SCALARS = (
    TEXTS
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["model", "dataset", "n", "é", "x"]), SCALARS, max_size=4)

SMALL_ARRAYS: dict[str, NDArray[Any]] = {
    "train/embeddings": np.arange(24, dtype=np.float32).reshape(6, 4),
    "train/ids": np.array([b"a", b"bb", b"c", b"d", b"e", b"f"]),
    "labels": np.arange(6, dtype=np.int64),
}
SMALL_ATTRIBUTES: dict[str, files.Attribute] = {"model": "ViT-B-32", "scale": 100.0, "n": 6, "unit": True}


def write_small(path: Path) -> Path:
    container.write(path, kind="thing", arrays=SMALL_ARRAYS, attributes=SMALL_ATTRIBUTES)
    return path


def refused(path: Path, *, match: str, kind: str = "thing") -> DataError:
    with pytest.raises(DataError, match=match) as caught:
        container.read(path, kind=kind)
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert caught.value.fix
    return caught.value


@given(arrays=st.dictionaries(NAMES, ARRAYS, max_size=4), attributes=ATTRIBUTES)
@settings(max_examples=60)
def test_whatever_is_written_comes_back_bit_for_bit(
    arrays: dict[str, NDArray[Any]], attributes: dict[str, files.Attribute], tmp_path: Path
) -> None:
    path = tmp_path / "x.h5"
    container.write(path, kind="thing", arrays=arrays, attributes=attributes)
    back = container.read(path, kind="thing")
    assert sorted(back.arrays) == sorted(arrays)
    for name, array in arrays.items():
        assert back.arrays[name].dtype == array.dtype
        assert back.arrays[name].shape == array.shape
        assert back.arrays[name].tobytes() == array.tobytes()
    own = {key: back.attributes[key] for key in attributes}
    assert files.canonical_json(own) == files.canonical_json(attributes)
    assert set(back.attributes) - set(attributes) == {"kind", "schema", "fingerprint", "content_digest"}


def test_rows_beyond_one_chunk_and_arrays_that_are_not_contiguous_come_back(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).standard_normal((2 * container.CHUNK_ROWS + 5, 6))
    arrays = {"rows": wide, "columns": wide[:, ::2], "flipped": wide[::-1]}
    container.write(tmp_path / "x.h5", kind="thing", arrays=arrays, attributes={})
    back = container.read(tmp_path / "x.h5", kind="thing").arrays
    for name, array in arrays.items():
        np.testing.assert_array_equal(back[name], array)


def test_equal_input_gives_equal_bytes_whatever_its_order_and_time(tmp_path: Path) -> None:
    first = write_small(tmp_path / "a.h5")
    os.utime(first, (0, 0))
    container.write(
        tmp_path / "sub" / "other name.h5",
        kind="thing",
        arrays=dict(reversed(SMALL_ARRAYS.items())),
        attributes=dict(reversed(SMALL_ATTRIBUTES.items())),
    )
    assert first.read_bytes() == (tmp_path / "sub" / "other name.h5").read_bytes()


def test_another_process_another_day_writes_the_same_bytes(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        import numpy as np
        real = time.time
        time.time = lambda: real() + 1e6
        from clipcifar.store import container
        arrays = {
            "labels": np.arange(6, dtype=np.int64),
            "train/ids": np.array([b"a", b"bb", b"c", b"d", b"e", b"f"]),
            "train/embeddings": np.arange(24, dtype=np.float32).reshape(6, 4),
        }
        attributes = {"unit": True, "n": 6, "scale": 100.0, "model": "ViT-B-32"}
        container.write(Path(sys.argv[1]), kind="thing", arrays=arrays, attributes=attributes)
        """
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    command = [sys.executable, "-c", script, str(tmp_path / "b.h5")]
    subprocess.run(command, check=True, env=environment, timeout=PATIENCE_S)
    assert write_small(tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_no_object_of_the_file_carries_a_time_stamp(tmp_path: Path) -> None:
    with h5py.File(write_small(tmp_path / "x.h5")) as file:
        objects = [file, file["train"], file["train/ids"], file["train/embeddings"], file["labels"]]
        assert [h5py.h5g.get_objinfo(item.id).mtime for item in objects] == [0] * 5
    with h5py.File(tmp_path / "y.h5", "w") as file:  # what it would look like
        assert h5py.h5g.get_objinfo(file.create_dataset("x", data=[1], track_times=True).id).mtime > 0


def test_the_fingerprint_is_that_of_the_attributes_alone(tmp_path: Path) -> None:
    described = {**SMALL_ATTRIBUTES, "kind": "thing", "schema": container.SCHEMA}
    attributes = container.read(write_small(tmp_path / "x.h5"), kind="thing").attributes
    assert attributes["fingerprint"] == container.fingerprint_of(described)
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    assert attributes["fingerprint"] == hashlib.sha256(text.encode()).hexdigest()
    assert container.fingerprint_of({**described, "fingerprint": "x", "content_digest": "y"}) == (
        container.fingerprint_of(described)
    )


@given(left=ATTRIBUTES, right=ATTRIBUTES)
@settings(max_examples=60)
def test_fingerprints_differ_exactly_when_the_attributes_do(
    left: dict[str, files.Attribute], right: dict[str, files.Attribute]
) -> None:
    equal = files.canonical_json(left) == files.canonical_json(right)
    assert (container.fingerprint_of(left) == container.fingerprint_of(right)) == equal


@given(st.lists(TEXTS, max_size=6))
@settings(max_examples=60)
def test_strings_come_back_whatever_their_letters(strings: list[str]) -> None:
    encoded = container.encode_strings(strings)
    assert encoded.dtype.kind == "S"
    assert container.decode_strings(encoded) == strings


@pytest.mark.parametrize("array", [np.arange(3), np.array([[b"a"]]), np.array(b"a"), np.array([b"\xff"])])
def test_an_array_that_holds_no_strings_is_refused(array: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="string"):
        container.decode_strings(array)


def test_another_kind_another_schema_and_a_missing_file_are_told_apart(tmp_path: Path) -> None:
    path = write_small(tmp_path / "x.h5")
    refused(path, kind="other", match="expected other, schema 1; found thing, schema 1")
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 2
    refused(path, match="found thing, schema 2")
    refused(tmp_path / "none.h5", match="there is no thing file")


@pytest.mark.parametrize("content", [b"", b"x", b"<html>404</html>", b"\x89HDF\r\n\x1a\n", bytes(5000)])
def test_a_file_that_is_not_hdf5_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    refused(tmp_path / "x.h5", match="not a readable HDF5 file")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, match="not a readable HDF5 file")


# Each edit leaves a well-formed HDF5 file that says something else than what was written.
EDITS: dict[str, tuple[Callable[[h5py.File], Any], str]] = {
    "a number": (lambda f: f["labels"].__setitem__(0, 5), "content does not match"),
    "a string": (lambda f: f["train/ids"].__setitem__(0, b"z"), "content does not match"),
    "a name": (lambda f: f.move("labels", "lables"), "content does not match"),
    "another array": (lambda f: f.create_dataset("more", data=[1]), "content does not match"),
    "an array less": (lambda f: f.__delitem__("labels"), "content does not match"),
    "a shape": (
        lambda f: (f.__delitem__("labels"), f.create_dataset("labels", data=np.arange(6).reshape(2, 3))),
        "content does not match",
    ),
    "a dtype": (
        lambda f: (f.__delitem__("labels"), f.create_dataset("labels", data=np.arange(6, dtype="<u8"))),
        "content does not match",
    ),
    "an attribute": (lambda f: f.attrs.__setitem__("model", np.bytes_("ViT-L-14")), "fingerprint does not"),
    "another attribute": (lambda f: f.attrs.__setitem__("more", 1), "fingerprint does not"),
    "an attribute less": (lambda f: f.attrs.__delitem__("scale"), "fingerprint does not"),
    "no fingerprint": (lambda f: f.attrs.__delitem__("fingerprint"), "fingerprint does not"),
    "no digest": (lambda f: f.attrs.__delitem__("content_digest"), "content does not"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_file_is_noticed(edit: str, tmp_path: Path) -> None:
    path = write_small(tmp_path / "x.h5")
    change, message = EDITS[edit]
    with h5py.File(path, "r+") as file:
        change(file)
    refused(path, match=message)


def test_a_fingerprint_made_to_fit_other_attributes_is_still_caught_by_the_digest(tmp_path: Path) -> None:
    path = write_small(tmp_path / "x.h5")
    attributes = dict(container.read(path, kind="thing").attributes) | {"model": "ViT-L-14"}
    with h5py.File(path, "r+") as file:
        file.attrs["model"] = np.bytes_("ViT-L-14")
        file.attrs["fingerprint"] = np.bytes_(container.fingerprint_of(attributes))
    refused(path, match="content does not match")


MUTATION_SCRIPT = textwrap.dedent(
    """
    import random, sys
    from pathlib import Path
    from clipcifar.store import container
    from clipcifar.core.errors import DataError

    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    whole = source.read_bytes()
    wanted = container.read(source, kind="thing")

    def same(found):
        return dict(found.attributes) == dict(wanted.attributes) and {
            name: (array.dtype.str, array.shape, array.tobytes()) for name, array in found.arrays.items()
        } == {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in wanted.arrays.items()}

    def judge(label, content):
        print(label, flush=True)  # the last line names the mutant that crashed the process
        target.write_bytes(content)
        try:
            found = container.read(target, kind="thing")
        except DataError as error:
            assert error.where == str(target), error
            return "refused"
        assert same(found), "wrong data was accepted"
        return "same"

    rng = random.Random(0)
    counts = {"refused": 0, "same": 0}
    for _ in range(500):
        bit = rng.randrange(8 * len(whole))
        mutant = bytearray(whole)
        mutant[bit // 8] ^= 1 << bit % 8
        counts[judge(f"bit {bit}", bytes(mutant))] += 1
    print("flips", counts["refused"], counts["same"])
    for length in sorted({*range(0, 200), *range(0, len(whole), 97), *range(len(whole) - 100, len(whole))}):
        assert judge(f"length {length}", whole[:length]) == "refused", length
    print("done")
    """
)


def test_no_bit_flip_and_no_truncation_gives_wrong_data_or_a_crash(tmp_path: Path) -> None:
    source = write_small(tmp_path / "x.h5")
    command = [sys.executable, "-c", MUTATION_SCRIPT, str(source), str(tmp_path / "mutant.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    last = done.stdout.splitlines()[-1:]
    assert (done.returncode, last) == (0, ["done"]), (last, done.stderr)
    flips = next(line for line in done.stdout.splitlines() if line.startswith("flips"))
    num_refused, num_same = map(int, flips.split()[1:])
    # Unused bytes make up most of so small a file; the rest must have been hit, too.
    assert num_refused >= 50
    assert num_same >= 1


def test_every_flipped_bit_of_the_data_is_noticed(tmp_path: Path) -> None:
    path = write_small(tmp_path / "x.h5")
    whole = path.read_bytes()
    data = SMALL_ARRAYS["train/embeddings"].tobytes()
    start = whole.index(data)
    for bit in range(0, 8 * len(data), 7):
        mutant = bytearray(whole)
        mutant[start + bit // 8] ^= 1 << bit % 8
        path.write_bytes(mutant)
        refused(path, match="content does not match")


def _external_storage(file: h5py.File, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(800))
    file.create_dataset("x", shape=(100,), dtype="f8", external=[(str(tmp_path / "secret"), 0, 800)])


def _external_link(file: h5py.File, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros(3)
    file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")


def _soft_link(file: h5py.File, tmp_path: Path) -> None:
    file["y"] = np.zeros(3)
    file["x"] = h5py.SoftLink("/y")


def _dangling_link(file: h5py.File, tmp_path: Path) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def _virtual(file: h5py.File, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros(3)
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape=(3,))
    file.create_virtual_dataset("x", layout)


def _many_names_for_one_array(file: h5py.File, tmp_path: Path) -> None:
    file["x"] = np.zeros(100_000)
    for i in range(500):
        file[f"x{i}"] = file["x"]


def _circle(file: h5py.File, tmp_path: Path) -> None:
    file.create_group("x")
    file["x/x"] = file["x"]


def _name_that_is_no_text(file: h5py.File, tmp_path: Path) -> None:
    file[b"\xff"] = np.zeros(3)


def _attribute_whose_name_is_no_text(file: h5py.File, tmp_path: Path) -> None:
    h5py.h5a.create(file.id, b"\xff", h5py.h5t.NATIVE_INT64, h5py.h5s.create(h5py.h5s.SCALAR))


HOSTILE: dict[str, tuple[Callable[[h5py.File, Path], Any], str]] = {
    "external storage": (_external_storage, "'x' is not a plain array"),
    "external link": (_external_link, "'x' is a link"),
    "soft link": (_soft_link, "'x' is a link"),
    "dangling link": (_dangling_link, "'x' is a link"),
    "virtual": (_virtual, "'x' is not a plain array"),
    "vlen strings": (lambda f, _: f.create_dataset("x", data=["a", "b"]), "'x' is not a plain array"),
    "vlen numbers": (
        lambda f, _: f.create_dataset("x", (3,), dtype=h5py.vlen_dtype(np.int32)),
        "'x' is not a plain array",
    ),
    "references": (lambda f, _: f.create_dataset("x", (3,), dtype=h5py.ref_dtype), "'x' is not a plain"),
    "compound": (lambda f, _: f.create_dataset("x", (3,), dtype=[("a", "f4")]), "'x' is not a plain array"),
    "gzip": (lambda f, _: f.create_dataset("x", data=np.zeros(1000), compression="gzip"), "not a plain"),
    "lzf": (lambda f, _: f.create_dataset("x", data=np.zeros(1000), compression="lzf"), "not a plain"),
    "shuffle": (lambda f, _: f.create_dataset("x", data=np.zeros(1000), shuffle=True), "not a plain"),
    "10^12 rows": (lambda f, _: f.create_dataset("x", (10**12, 512), "f4"), "claims more data"),
    "10^12 rows in chunks": (
        lambda f, _: f.create_dataset("x", (10**12, 512), "f4", chunks=(1024, 512)),
        "claims more data",
    ),
    "a size beyond 64 bits": (
        lambda f, _: f.create_dataset("x", (2**32, 2**32, 4), "f4", chunks=(1, 64, 4)),
        "'x'|too big|too large",
    ),
    "unwritten rows": (lambda f, _: f.create_dataset("x", (100,), "f4", chunks=(10,)), "claims more data"),
    "many names for one array": (_many_names_for_one_array, "claims more data"),
    "deep groups": (lambda f, _: f.create_dataset("a/b/c", data=[1]), "'a/b' is neither"),
    "circle": (_circle, "'x/x' is neither"),
    "a named type": (lambda f, _: f.__setitem__("x", np.dtype("f4")), "'x' is neither"),
    "an array as attribute": (lambda f, _: f.attrs.__setitem__("a", [1, 2]), "attribute 'a'"),
    "a vlen string as attribute": (lambda f, _: f.attrs.__setitem__("a", "text"), "attribute 'a'"),
    "no value as attribute": (lambda f, _: f.attrs.__setitem__("a", h5py.Empty("f4")), "attribute 'a'"),
    "NaN as attribute": (lambda f, _: f.attrs.__setitem__("a", float("nan")), "not a readable"),
    "a long double as attribute": (lambda f, _: f.attrs.__setitem__("a", np.longdouble(1)), "not a readable"),
    "a name that is no text": (_name_that_is_no_text, "not a readable"),
    "an attribute's name that is no text": (_attribute_whose_name_is_no_text, "not a readable"),
    "bytes as attribute": (lambda f, _: f.attrs.__setitem__("a", np.bytes_(b"\xff")), "not a readable"),
}


@pytest.mark.parametrize("trick", HOSTILE)
def test_a_file_built_to_mislead_is_refused_before_anything_is_allocated(trick: str, tmp_path: Path) -> None:
    build, message = HOSTILE[trick]
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        build(file, tmp_path)
    tracemalloc.start()
    refused(path, match=message)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6


def test_an_attribute_beyond_what_hdf5_holds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too long"):
        container.write(tmp_path / "x.h5", kind="t", arrays={}, attributes={"names": "x" * 60_001})
    container.write(tmp_path / "y.h5", kind="t", arrays={}, attributes={"names": "x" * 60_000})
    assert len(str(container.read(tmp_path / "y.h5", kind="t").attributes["names"])) == 60_000


def test_memory_that_runs_out_is_not_taken_for_a_damaged_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    container.write(path, kind="k", arrays={"x": np.zeros(3)}, attributes={})

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(container, "_checked_datasets", fail)
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        container.read(path, kind="k")
    assert (caught.value.exit_code, caught.value.where) == (4, str(path))
    assert "delete" not in caught.value.fix


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda file: file.arrays["b"], "not a letter: 'b'"),
        (lambda file: int(file.attributes["model"]), "not a letter: invalid literal"),
        (lambda file: np.zeros(3).reshape(2, 2), "not a letter: cannot reshape"),
        (lambda file: container.require(file.attributes, texts=["n"], numbers=[]), "not a letter: the attri"),
    ],
)
def test_what_a_file_lacks_is_told_with_its_name(
    wrong: Callable[[container.Container], object], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.h5"
    container.write(path, kind="letter", arrays={"a": np.zeros(2)}, attributes={"model": "m"})
    with (
        pytest.raises(DataError, match=said) as caught,
        container.reading(path, kind="letter", what="a letter") as file,
    ):
        wrong(file)
    assert (caught.value.where, caught.value.fix) == (str(path), "run `dvc repro`")


def test_what_is_no_fault_of_the_content_is_told_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with (
        pytest.raises(DataError, match=r"^there is no letter file"),
        container.reading(path, kind="letter", what="a letter"),
    ):
        pass
    container.write(path, kind="letter", arrays={}, attributes={})
    with pytest.raises(EnvironmentFault), container.reading(path, kind="letter", what="a letter"):
        raise EnvironmentFault("out of memory")


LARGE = {
    "rows": np.arange(30_000, dtype=np.float32).reshape(3_000, 10),
    "train/ids": container.encode_strings([f"{i:05d}" for i in range(2_500)]),
    "none": np.zeros((0, 3)),
}


def _written(path: Path, arrays: dict[str, np.ndarray], *, in_memory: bool) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "_IN_MEMORY", 1 << 30 if in_memory else 0)
        container.write(path, kind="made", arrays=arrays, attributes={"text": "é" * 3_000, "n": 1.5})
    return path.read_bytes()


def test_a_file_written_through_has_the_bytes_of_one_built_in_memory(tmp_path: Path) -> None:
    through = _written(tmp_path / "a.h5", LARGE, in_memory=False)
    assert through == _written(tmp_path / "b.h5", LARGE, in_memory=True)
    for name, array in container.read(tmp_path / "a.h5", kind="made").arrays.items():
        np.testing.assert_array_equal(array, LARGE[name])


def _full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("fail", "error"),
    [(_full, EnvironmentFault), (lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt)],
)
def test_whatever_fails_while_a_large_file_is_written_leaves_the_old_one(
    fail: Callable[[], None],
    error: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """At every call of HDF5: it would crash with the process, or lose the news, had it been told."""
    path = tmp_path / "made.h5"
    old = _written(path, {"rows": LARGE["rows"][:9]}, in_memory=True)
    calls, failing = [0], [-1]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    class Stream:
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> Any:
            calls[0] += 1
            if calls[0] == failing[0]:
                fail()
            return getattr(self._stream, name)

    @contextmanager
    def placing(path: Path, num_bytes: int) -> Iterator[Stream]:
        with real(path, num_bytes) as stream:
            yield Stream(stream)

    real = container.placing
    monkeypatch.setattr(container, "placing", placing)
    _written(tmp_path / "whole.h5", LARGE, in_memory=False)
    whole, handler = calls[0], signal.getsignal(signal.SIGINT)
    assert whole > 5
    for call in range(1, whole + 1):
        calls[0], failing[0] = 0, call
        with pytest.raises(error):
            _written(path, LARGE, in_memory=False)
        assert path.read_bytes() == old
        assert sorted(tmp_path.iterdir()) == [path, tmp_path / "whole.h5"]
        assert signal.getsignal(signal.SIGINT) is handler
    open_files = h5py.h5f.get_obj_count(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)
    assert open_files == 0  # one that HDF5 could not close ends the process with a crash


def test_a_large_file_may_be_written_in_a_thread(tmp_path: Path) -> None:
    """As a service does: there no handler of signals can be set."""
    made: list[bytes] = []
    thread = threading.Thread(target=lambda: made.append(_written(tmp_path / "a.h5", LARGE, in_memory=False)))
    thread.start()
    thread.join()
    assert made == [_written(tmp_path / "b.h5", LARGE, in_memory=True)]


@pytest.mark.nightly
def test_very_many_chunks_are_written_and_read(tmp_path: Path) -> None:
    """HDF5 reads again what it has written of its index, where that is larger than what it holds."""
    arrays = {name: np.arange(60_000_000, dtype=np.uint8) for name in ("first", "second")}
    container.write(tmp_path / "many.h5", kind="k", arrays=arrays, attributes={})
    back = container.read(tmp_path / "many.h5", kind="k")
    assert all((back.arrays[name] == array).all() for name, array in arrays.items())
