"""Reading dvc.yaml and dvc.lock; what is said of the two is tested in test_state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from clipcifar.core import params
from clipcifar.project import lockfile
from clipcifar.project.lockfile import ABSENT, File, differing
from tests.support.import_closure import ROOT

LOCK = b"""
schema: '2.0'
stages:
  a:
    cmd: x
    deps: [{path: in, hash: md5, md5: 1a.dir, size: 5, nfiles: 2}, {path: url, etag: 7}]
    params: {params.yaml: {split.seed: 0, lr: 1e-3, word: no}}
    outs: [{path: out, md5: 2b, size: 3}]
  bare: {cmd: x}
"""


def test_a_run_is_what_it_ran_on_and_made() -> None:
    runs = lockfile.recorded_runs(lambda path: LOCK, ["dvc.lock", "studies/s/dvc.lock"])
    assert list(runs) == ["a", "bare", "studies/s/dvc.yaml:a", "studies/s/dvc.yaml:bare"]
    assert runs["a"].deps == {"in": File("1a.dir", 5)}  # what DVC tells by something else is left out
    assert runs["a"].outs == {"out": File("2b", 3)}
    assert runs["a"].params == {"split.seed": 0, "lr": 0.001, "word": "no"}  # as DVC reads YAML
    assert runs["bare"] == lockfile.Run({}, {}, {}, "x")


@pytest.mark.parametrize("text", [b"", b"[]", b"stages: 3", b"stages: {a: 3}", b"{", b"\x00", b"\xff", None])
def test_a_file_that_cannot_be_read_holds_nothing(tmp_path: Path, text: bytes | None) -> None:
    def read(path: str) -> bytes:
        if text is None:
            raise FileNotFoundError(path)
        return text

    assert lockfile.recorded_runs(read, ["dvc.lock"]) == {}
    assert lockfile.asked_stages(read, ["dvc.yaml"], {}) == {}


def test_what_is_asked_has_the_values_of_params_yaml_in_its_paths() -> None:
    settings = params.load(ROOT / "params.yaml")
    settings["prompts"]["active"] = "wide"
    asked = lockfile.asked_stages(lockfile.reader(ROOT), lockfile.files_of(ROOT, "dvc.yaml"), settings)
    assert asked["embed_active"].deps["data/prompts/wide.json"] == "prompts.active"
    assert asked["zero_shot"].deps["data/embeddings/active/wide.h5"] == "prompts.active"
    assert asked["zero_shot"].deps["data/splits.h5"] == ""
    assert asked["zero_shot"].params == ["model.name", "model.pretrained"]
    assert {"data/predictions/zero_shot.h5", "metrics/zero_shot.json"} <= set(asked["zero_shot"].outs)
    assert "data/studies/models" in asked["studies/models/dvc.yaml:models"].outs


DEFINED = b"""
stages:
  a:
    cmd: >-
      python -m x
      y
    deps: [in, "${split.file}", "${theirs}/in"]
    params: [split]
    outs: [out, {other: {cache: false}}]
  held: {cmd: x, deps: [in], params: [split], outs: [held], frozen: true}
"""


def test_a_frozen_stage_is_known_and_values_of_other_files_are_left_to_dvc() -> None:
    asked = lockfile.asked_stages(lambda path: DEFINED, ["dvc.yaml"], {"split": {"file": "s.h5"}})
    deps = {"in": "", "s.h5": "split.file"}
    assert asked["a"] == lockfile.Asked(deps, ["split"], ["out", "other"], "python -m x y")
    assert (asked["a"].is_frozen, asked["held"].is_frozen) == (False, True)


@pytest.mark.parametrize(
    ("written", "keys"),
    [
        (b"[a.b, c]", ["a.b", "c"]),
        (b"[params.yaml: [a.b], c]", ["a.b", "c"]),
        (b"[c, params.yaml: ]", ["c", "a", "d"]),  # the whole file
        (b"[other.yaml: [e]]", []),  # of another file nothing is known
    ],
)
def test_the_keys_that_a_stage_asks_for_in_every_form_that_dvc_reads(written: bytes, keys: list[str]) -> None:
    text = b"stages: {s: {cmd: x, deps: [], params: " + written + b"}}"
    asked = lockfile.asked_stages(lambda path: text, ["dvc.yaml"], {"a": 1, "d": 2})
    assert asked["s"].params == keys


@pytest.mark.parametrize(
    ("before", "now", "keys"),
    [
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1.0}, []),
        ({"a": 1}, {"a": 2}, ["k.a"]),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": None}}, ["k.a.c"]),
        ({"a": {"b": 1}}, {"a": None}, ["k.a"]),
        ({"a": [1]}, {"a": [2]}, ["k.a"]),
        (0, ABSENT, ["k"]),
        (ABSENT, 0, ["k"]),
    ],
)
def test_a_difference_is_named_as_deep_as_it_lies(before: Any, now: Any, keys: list[str]) -> None:
    assert differing("k", before, now) == keys
