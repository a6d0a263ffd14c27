"""The fingerprint's ingredients: whatever changes a number must change one of them, and nothing else may."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from clipcifar.core import files
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.files import Attribute
from clipcifar.embeddings import provenance
from clipcifar.store.container import fingerprint_of
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE, ModelDescription, check_weights, config_sha256
from tests.support.made import EMBED

NAMES = ["cat", "dog"]


def _described(folder: Path) -> ModelDescription:
    return ModelDescription(
        model="tiny",
        pretrained="",
        source=str(folder),
        revision="",
        weights_sha256=files.file_sha256(folder / WEIGHTS_FILE),
        config_sha256=config_sha256(folder),
        preprocess={"size": [32, 32]},
        context_length=32,
        logit_scale=14.25,
        libraries=[],
    )


def _attributes(folder: Path, names: list[str] = NAMES, kind: str = "cpu") -> dict[str, Attribute]:
    return provenance.embedding_attributes(_described(folder), names, kind)


@pytest.fixture
def folder(tiny_clip: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_clip, tmp_path / "clip")


def test_the_same_model_has_the_same_fingerprint_wherever_it_lies(tiny_clip: Path, folder: Path) -> None:
    assert fingerprint_of(_attributes(tiny_clip)) == fingerprint_of(_attributes(folder))


def test_the_attributes_say_model_libraries_code_classes_and_device(folder: Path) -> None:
    found = _attributes(folder)
    for name in ("torch", "torchvision", "open_clip_torch", "numpy", "pillow"):
        assert found[f"version_{name}"] == version(name)
    assert found["class_names"] == '["cat","dog"]'
    assert (found["device"], found["normalised"], found["logit_scale"]) == ("cpu", True, 14.25)
    assert set(_described(folder).attributes()) < set(found)
    assert str(folder) not in str(found)


@pytest.mark.parametrize(("kind", "precision"), [("cpu", "bf16"), ("cuda", "fp32")])
def test_sentences_have_the_precision_of_the_images_on_a_cpu_alone(
    kind: str, precision: str, folder: Path
) -> None:
    embed = replace(EMBED, precision="bf16")
    said = provenance.text_attributes(_described(folder), NAMES, kind, embed)
    assert said == {**_attributes(folder, kind=kind), "precision": precision}


def test_classes_their_order_and_the_device_change_the_fingerprint(folder: Path) -> None:
    fingerprints = {
        fingerprint_of(_attributes(folder)),
        fingerprint_of(_attributes(folder, NAMES[::-1])),
        fingerprint_of(_attributes(folder, [*NAMES, "eel"])),
        fingerprint_of(_attributes(folder, kind="cuda")),
    }
    assert len(fingerprints) == 4


def test_the_code_that_encodes_changes_the_fingerprint_wherever_it_lies_and_no_other_code_does(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint_of(_attributes(folder))
    package = tmp_path / "clipcifar"
    shutil.copytree(provenance._PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    single = ("datasets/decode.py", "embeddings/loading.py", "embeddings/sources.py", "embeddings/extract.py")
    encodes = {*package.glob("backbone/*.py"), *(package / name for name in single)}
    assert len(encodes) > 6
    for path in sorted(package.rglob("*.py")):
        text = path.read_text()
        path.write_text(text + "\n# changed\n")
        assert (fingerprint_of(_attributes(folder)) != before) == (path in encodes), path
        path.write_text(text)
    assert fingerprint_of(_attributes(folder)) == before


def test_a_model_that_takes_part_of_another_library_is_of_its_version(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = replace(_described(folder), libraries=["timm"])

    def fingerprint() -> str:
        return fingerprint_of(provenance.embedding_attributes(described, NAMES, "cpu"))

    own, versions = fingerprint_of(_attributes(folder)), {"timm": version("timm")}
    assert provenance.embedding_attributes(described, NAMES, "cpu")["version_timm"] == versions["timm"]
    before = fingerprint()
    monkeypatch.setattr(provenance, "version", lambda name: versions.get(name) or version(name))
    assert fingerprint() == before != own
    versions["timm"] = "0.0.1"
    assert fingerprint() != before
    assert fingerprint_of(_attributes(folder)) == own  # open_clip's own towers know nothing of it


def test_a_library_that_is_not_there_is_named(folder: Path) -> None:
    described = replace(_described(folder), libraries=["clipcifar-has-no-such-library"])
    with pytest.raises(EnvironmentFault, match="needs clipcifar-has-no-such-library") as caught:
        provenance.embedding_attributes(described, NAMES, "cpu")
    assert caught.value.fix == "pip install clipcifar-has-no-such-library"


def test_another_version_of_a_library_changes_the_fingerprint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint_of(_attributes(folder))
    monkeypatch.setattr(provenance, "version", lambda name: "0.0" if name == "pillow" else version(name))
    assert fingerprint_of(_attributes(folder)) != before


def test_the_config_digest_covers_names_contents_and_subfolders_but_not_the_weights(folder: Path) -> None:
    seen = [config_sha256(folder)]
    (folder / WEIGHTS_FILE).write_bytes(b"other")
    assert config_sha256(folder) == seen[0]

    (folder / "merges.txt").write_text("a b")
    seen.append(config_sha256(folder))
    (folder / "merges.txt").write_text("a c")
    seen.append(config_sha256(folder))
    (folder / "merges.txt").rename(folder / "vocab.txt")
    seen.append(config_sha256(folder))
    (folder / "deep").mkdir()
    (folder / "vocab.txt").rename(folder / "deep" / "vocab.txt")
    seen.append(config_sha256(folder))
    (folder / CONFIG_FILE).unlink()
    seen.append(config_sha256(folder))
    assert len(set(seen)) == len(seen)


def test_the_described_model_passes_the_check(folder: Path) -> None:
    check_weights(_described(folder), folder)


def test_one_flipped_bit_in_the_weights_is_refused(folder: Path) -> None:
    described = _described(folder)
    content = bytearray((folder / WEIGHTS_FILE).read_bytes())
    content[-1] ^= 1
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(DataError, match="the weights have sha256") as caught:
        check_weights(described, folder)
    assert described.weights_sha256 in str(caught.value)
    assert caught.value.exit_code == 3


def test_another_config_is_refused(folder: Path) -> None:
    described = _described(folder)
    (folder / CONFIG_FILE).write_text((folder / CONFIG_FILE).read_text().replace("0.3", "0.4"))
    with pytest.raises(DataError, match="the config"):
        check_weights(described, folder)


def test_missing_weights_are_named(folder: Path) -> None:
    described = _described(folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(DataError, match="missing") as caught:
        check_weights(described, folder)
    assert str(folder / WEIGHTS_FILE) in str(caught.value)
