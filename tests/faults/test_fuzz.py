"""Whatever stands in params.yaml or in an HDF5 file: read, or refused in our words. Some hundred inputs here,
ten minutes of each by `make fuzz`."""

from __future__ import annotations

import copy
import itertools
import shutil
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings, strategies as st
from hypothesis.extra import numpy as arrays

from clipcifar.core import params
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.doctor.checks import _SECTIONS
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_sets
from clipcifar.store import container
from clipcifar.store.embeddings import IMAGES_KIND
from clipcifar.store.images import MANIFEST
from tests.faults.test_content import READERS, _write
from tests.support.import_closure import ROOT

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COMMITTED = (ROOT / "params.yaml").read_text()


def hunt(
    strategy: st.SearchStrategy[Any], judge: Callable[[Any], str], *, minutes: float, inputs: int = 200
) -> Counter[str]:
    """Judge so many inputs, and others until the time is over; how often each judgement was made."""
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + 60 * minutes
    for number in itertools.count():

        @seed(number)
        @settings(max_examples=inputs, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def attempt(value: Any) -> None:
            counts[judge(value)] += 1

        attempt()
        if time.monotonic() >= deadline:
            break
    print(f"{counts.total():,} inputs: {dict(counts)}", flush=True)
    return counts


def refusal(read: Callable[[], object]) -> ClipcifarError | None:
    """The error of ours that a call ends with; another one is a fault of ours."""
    try:
        read()
    except ClipcifarError as error:
        return error
    return None


@pytest.fixture
def minutes(pytestconfig: pytest.Config) -> float:
    return float(pytestconfig.getoption("--fuzz-minutes"))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        ["{classname}", "[a|b", "a {classname.x}", "../x", "cifar10", "auto", "\x00", "=1+1", "1e-3"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def edited_params(draw: st.DrawFn) -> str:
    """The committed params.yaml with some values replaced, keys added or removed, or its text mutilated."""
    given_settings = copy.deepcopy(yaml.safe_load(COMMITTED))
    for _ in range(draw(st.integers(0, 3))):
        place, key = given_settings, draw(st.sampled_from(sorted(given_settings)))
        while isinstance(place[key], dict) and place[key] and draw(st.booleans()):
            place, key = place[key], draw(st.sampled_from(sorted(place[key])))
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                place[key] = draw(VALUES)
            case "remove":
                del place[key]
            case "add":
                place[draw(st.text(max_size=8))] = draw(VALUES)
        if not given_settings:
            break
    text = yaml.safe_dump(given_settings, allow_unicode=draw(st.booleans()), sort_keys=False)
    if draw(st.booleans()):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.integers(0, 30)))
        text = text[:start] + draw(st.text(max_size=20)) + text[stop:]
    return text


def test_whatever_stands_in_params_yaml_is_read_or_refused_in_our_words(
    tmp_path: Path, minutes: float
) -> None:
    path = tmp_path / "params.yaml"

    def judge(text: str) -> str:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        if error := refusal(lambda: params.load(path)):
            assert isinstance(error, ConfigError)
            assert str(path) in error.where
            return "not readable"
        read = params.load(path)
        errors = [refusal(partial(params.read, read, name, model)) for name, model in _SECTIONS.items()]
        if not any(errors):
            asked = params.read(read, "prompts", PromptsParams)
            errors.append(refusal(lambda: expand_sets(asked, dataset="cifar10", class_names=CLASSES)))
        for error in filter(None, errors):
            assert isinstance(error, ConfigError)
            assert error.what
            assert "params.yaml" in error.where
        return "refused" if any(errors) else "taken"

    counts = hunt(edited_params(), judge, minutes=minutes, inputs=400)  # few edits leave a file sound
    assert min(counts[name] for name in ("taken", "refused", "not readable")) > 10


MUTANT = st.tuples(
    st.sampled_from(["flip", "overwrite", "insert", "delete", "cut"]),
    st.integers(0, 2**31),
    st.binary(min_size=1, max_size=16),
)


def _mutated(content: bytes, mutant: tuple[str, int, bytes]) -> bytes:
    how, place, other = mutant
    at = place % len(content)
    return {
        "flip": content[:at] + bytes([content[at] ^ 1 << place % 8]) + content[at + 1 :],
        "overwrite": content[:at] + other + content[at + len(other) :],
        "insert": content[:at] + other + content[at:],
        "delete": content[:at] + content[at + len(other) :],
        "cut": content[:at],
    }[how]


def _content(file: container.Container) -> object:
    return dict(file.attributes), {
        name: (array.dtype.str, array.shape, array.tobytes()) for name, array in file.arrays.items()
    }


def test_a_mutilated_file_is_refused_or_holds_what_it_held(tmp_path: Path, minutes: float) -> None:
    _write(tmp_path)
    whole = {name: (tmp_path / name).read_bytes() for name in READERS}
    held = {name: _content(container.read(tmp_path / name, kind=READERS[name][0])) for name in READERS}

    def judge(value: tuple[str, list[tuple[str, int, bytes]]]) -> str:
        name, mutants = value
        content, path = whole[name], tmp_path / "mutant.h5"
        for mutant in mutants:
            content = _mutated(content, mutant) if content else content
        path.write_bytes(content)
        if error := refusal(lambda: container.read(path, kind=READERS[name][0])):
            assert isinstance(error, DataError)
            assert error.where == str(path)
            return "refused"
        found = _content(container.read(path, kind=READERS[name][0]))
        assert found == held[name], "wrong data was accepted"
        return "the same"

    strategy = st.tuples(st.sampled_from(sorted(READERS)), st.lists(MUTANT, min_size=1, max_size=3))
    counts = hunt(strategy, judge, minutes=minutes)
    assert min(counts["refused"], counts["the same"]) > 10


ARRAYS = arrays.arrays(
    dtype=st.sampled_from(["f4", "f8", "f2", "i8", "i4", "u1", "?", "S3", "c8"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


def test_a_file_of_right_digests_and_any_content_is_read_or_refused(tmp_path: Path, minutes: float) -> None:
    """As other software, or somebody with bad intentions, could write it."""
    _write(tmp_path)
    files = {name: container.read(tmp_path / name, kind=kind) for name, (kind, _) in READERS.items()}

    def judge(value: tuple[str, dict[str, Any], dict[str, Any], int]) -> str:
        name, new_arrays, new_attributes, dropped = value
        (kind, read), file, path = READERS[name], files[name], tmp_path / "mutant" / name
        if "images" in name:
            shutil.copytree(tmp_path / "images", path.parent, dirs_exist_ok=True)
        own = {key: one for key, one in file.attributes.items() if key not in container._DIGESTS}
        changed = {
            **file.arrays,
            **{sorted(file.arrays)[i % len(file.arrays)]: one for i, one in new_arrays.items()},
        }
        if dropped < len(changed):
            del changed[sorted(changed)[dropped]]
        attributes = {**own, **{sorted(own)[i % len(own)]: one for i, one in new_attributes.items()}}
        try:
            digest = container.write(path, kind=kind, arrays=changed, attributes=attributes)
        except (ClipcifarError, TypeError, ValueError, UnicodeEncodeError):
            return "cannot be written"
        if "part-" in name:  # whose digest its manifest names
            whole = files["images/manifest.h5"]
            about = {key: one for key, one in whole.attributes.items() if key not in container._DIGESTS}
            named = {**whole.arrays, "parts/digests": container.encode_strings([digest])}
            container.write(path.parent / MANIFEST, kind=IMAGES_KIND, arrays=named, attributes=about)
        if error := refusal(lambda: read(path)):
            assert isinstance(error, DataError)
            assert error.where == str(path)
            return "refused"
        return "taken"

    places = st.integers(0, 20)
    attribute = (
        st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=20)
    )
    strategy = st.tuples(
        st.sampled_from(sorted(READERS)),
        st.dictionaries(places, ARRAYS, max_size=2),
        st.dictionaries(places, attribute, max_size=2),
        st.integers(0, 30),
    )
    counts = hunt(strategy, judge, minutes=minutes)
    assert min(counts["refused"], counts["taken"]) > 5
