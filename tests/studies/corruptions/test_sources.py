"""Sources of corrupted images, and the suite that is made of them."""

from __future__ import annotations

import hashlib
import multiprocessing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipcifar.backbone.preprocess import fit
from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.store.dataset import PreparedSplit
from clipcifar.studies.corruptions.images import levels, suite as corruption_suite
from clipcifar.studies.corruptions.images.generated import CORRUPTIONS, corrupt
from clipcifar.studies.corruptions.images.sources import GeneratedSource, Originals, PublishedSource, examples
from clipcifar.studies.corruptions.images.suite import Entry, chosen_images, open_suite
from clipcifar.studies.corruptions.params import CorruptionParams
from tests.support.published import IMAGES, LABELS, pixels, write_folder
from tests.support.small_input import PREPROCESS

ASKED = CorruptionParams(
    names=("gaussian_noise", "contrast"),
    severities=(2, 5),
    path="data/none",
    max_per_class=None,
    published_per_class=None,
    seed=3,
    naming={},
)
IDS = [f"test/{i:05d}" for i in range(IMAGES)]


def arrays() -> PreparedSplit:
    content = np.random.default_rng(0).integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return PreparedSplit(content, LABELS, IDS)


def suite(
    test: PreparedSplit, asked: CorruptionParams = ASKED, *, dataset: str = "cifar10", root: Path = Path("x")
) -> dict[str, Entry]:
    options = {"root": root, "preprocess": PREPROCESS, "workers": 0, "num_published": IMAGES}
    return open_suite(test, asked, dataset=dataset, **options)  # type: ignore[arg-type]


def pixels_of(source: GeneratedSource | PublishedSource, rows: list[range]) -> np.ndarray:
    return torch.cat(list(source.batches(rows))).permute(0, 2, 3, 1).numpy()


def test_rows_go_through_severities_and_within_each_through_the_images() -> None:
    test = arrays()
    found = suite(test)
    assert list(found) == ["gaussian_noise", "contrast"]
    for name, entry in found.items():
        assert len(entry.source) == 2 * IMAGES
        got = pixels_of(entry.source, [range(0, 5), range(5, 24)])  # type: ignore[arg-type]
        for step, severity in enumerate((2, 5)):
            for i, sample_id in enumerate(IDS):
                expected = corrupt(test.content[i], name, severity, seed=3, sample_id=sample_id)
                np.testing.assert_array_equal(got[step * IMAGES + i], expected)


def test_batches_workers_and_order_change_no_pixel() -> None:
    originals = Originals(arrays(), Path(), PREPROCESS)
    options = {"name": "gaussian_noise", "severities": (1, 4), "seed": 0}
    alone = pixels_of(GeneratedSource(originals, workers=0, **options), [range(24)])  # type: ignore[arg-type]
    rows = [range(i, i + 6) for i in (18, 6, 0, 12)]
    shared = pixels_of(GeneratedSource(originals, workers=2, **options), rows)  # type: ignore[arg-type]
    np.testing.assert_array_equal(shared, np.concatenate([alone[row.start : row.stop] for row in rows]))
    assert multiprocessing.active_children() == []


@pytest.fixture
def photographs(tmp_path: Path) -> PreparedSplit:
    digests = []
    for i in range(4):
        picture = np.random.default_rng(i).integers(0, 256, (20 + i, 30 - 2 * i, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        digests.append(hashlib.sha256((tmp_path / f"{i}.png").read_bytes()).hexdigest())
    return PreparedSplit(np.array(digests, dtype="S64"), np.arange(4) % 2, [f"{i}.png" for i in range(4)])


def test_photographs_are_corrupted_at_their_own_size_and_then_fitted(
    photographs: PreparedSplit, tmp_path: Path
) -> None:
    source = suite(photographs, dataset="imagefolder", root=tmp_path)["gaussian_noise"].source
    got = torch.cat(list(source.batches([range(3), range(3, 8)])))
    assert got.shape == (8, 3, 8, 8)
    for row in range(8):
        severity, i = (2, 5)[row // 4], row % 4
        pixels = np.asarray(Image.open(tmp_path / f"{i}.png"))
        noisy = corrupt(pixels, "gaussian_noise", severity, seed=3, sample_id=f"{i}.png")
        assert noisy.shape == pixels.shape
        expected = fit(torch.from_numpy(noisy.copy()).permute(2, 0, 1)[None], PREPROCESS)[0]
        assert torch.equal(got[row], expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_changed_is_refused_by_path(
    photographs: PreparedSplit, tmp_path: Path, workers: int
) -> None:
    originals = Originals(photographs, tmp_path, PREPROCESS)
    Image.new("RGB", (9, 9)).save(tmp_path / "2.png")
    source = GeneratedSource(originals, name="contrast", severities=(1,), seed=0, workers=workers)
    with pytest.raises(DataError, match="changed since it was listed") as caught:
        list(source.batches([range(4)]))
    assert caught.value.where == str(tmp_path / "2.png")


def test_published_images_are_those_of_the_chosen_ids_and_severities(tmp_path: Path) -> None:
    test = arrays().take(np.array([7, 0, 11]))
    asked = replace(ASKED, names=("fog",), severities=(1, 3), path=str(write_folder(tmp_path / "c")))
    entry = suite(test, asked)["fog"]
    got = pixels_of(entry.source, [range(0, 2), range(2, 6)])  # type: ignore[arg-type]
    np.testing.assert_array_equal(got, pixels("fog")[[7, 0, 11, 2 * IMAGES + 7, 2 * IMAGES, 2 * IMAGES + 11]])
    np.testing.assert_array_equal(entry.source.pixels(3), got[3])
    assert entry.attributes["corruption_source"] == "CIFAR-10-C"


def test_generated_images_are_never_called_cifar_10_c_and_carry_what_made_them() -> None:
    attributes = suite(arrays())["contrast"].attributes
    assert attributes["corruption_source"] == "generated"
    assert not any("CIFAR" in str(value) for value in attributes.values())
    assert attributes["corruption"] == "contrast"
    assert "version_scipy" in attributes
    assert len(str(attributes["corruption_digest"])) == 64


@pytest.mark.parametrize(
    ("asked", "other_ids"),
    [(replace(ASKED, seed=4), False), (replace(ASKED, severities=(2, 4)), False), (ASKED, True)],
)
def test_what_determines_the_images_is_in_their_attributes(asked: CorruptionParams, other_ids: bool) -> None:
    test = arrays()
    other = test.take(np.arange(IMAGES - 1)) if other_ids else test
    assert suite(test)["contrast"].attributes != suite(other, asked)["contrast"].attributes


def test_published_arrays_are_for_cifar10_alone(tmp_path: Path) -> None:
    asked = replace(ASKED, path=str(write_folder(tmp_path / "c")), names=None)
    for dataset in ("digits", "cifar100", "imagefolder"):
        with pytest.raises(ConfigError, match=f"the dataset is {dataset}") as caught:
            suite(arrays(), asked, dataset=dataset)
        assert caught.value.exit_code == 2
        assert "data/none" in caught.value.fix
    assert sorted(suite(arrays(), asked)) == ["fog", "gaussian_noise"]


def test_all_corruptions_come_without_names_and_an_unknown_one_gets_a_suggestion() -> None:
    assert list(suite(arrays(), replace(ASKED, names=None))) == list(CORRUPTIONS)
    for name, near in (("frost", ""), ("darknes", "did you mean darkness? ")):
        with pytest.raises(ConfigError, match=f"'{name}' cannot be generated") as caught:
            suite(arrays(), replace(ASKED, names=(name,)))
        assert caught.value.fix == f"{near}what can be generated: {', '.join(CORRUPTIONS)}"


def test_the_choice_of_images_is_per_class_and_seeded() -> None:
    test = arrays()
    assert chosen_images(test, ASKED) is test
    few = [chosen_images(test, replace(ASKED, max_per_class=2, seed=seed)) for seed in (0, 0, 1)]
    assert np.bincount(few[0].labels).tolist() == [2, 2, 2]
    assert few[0].ids == few[1].ids != few[2].ids


def test_the_published_arrays_are_taken_whole_whatever_is_generated(tmp_path: Path) -> None:
    """A published mean is over every image; `max_per_class` is there for what costs time to generate."""
    asked = replace(ASKED, max_per_class=1, path=str(write_folder(tmp_path / "c")), names=("fog",))
    assert len(suite(chosen_images(arrays(), asked), asked)["fog"].source) == 2 * IMAGES
    fewer = chosen_images(arrays(), replace(asked, published_per_class=2))
    assert np.bincount(fewer.labels).tolist() == [2, 2, 2]
    assert len(chosen_images(arrays(), replace(asked, path="data/none")).ids) == 3


def test_examples_are_the_first_image_at_every_severity_made_smaller() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 50, 200, 3), dtype=np.uint8)
    originals = Originals(PreparedSplit(picture, np.zeros(2, np.int64), ["a", "b"]), Path(), PREPROCESS)
    source = GeneratedSource(originals, name="darkness", severities=(1, 3, 5), seed=0, workers=0)
    found = examples(source, 3)
    assert found.shape == (3, 24, 96, 3)
    levels = [shown.mean() for shown in found]
    expected = [picture[0].mean() * factor for factor in (0.7, 0.35, 0.12)]
    assert levels == pytest.approx(expected, abs=0.6)  # Pillow cuts levels off


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"severities": [1, 1]}, "not ascending"),
        ({"severities": [3, 1]}, "not ascending"),
        ({"severities": [0, 1]}, "1 to 5"),
        ({"severities": [6]}, "1 to 5"),
        ({"severities": []}, "at least one"),
        ({"names": ["fog", "fog"]}, "named twice"),
        ({"names": []}, "at least one"),
        ({"max_per_class": 0}, "1 to"),
        ({"published_per_class": 0}, "1 to"),
        ({"naming": []}, "a mapping"),
        ({"path": None}, "text"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], reason: str) -> None:
    values = {
        "names": None,
        "severities": [1, 5],
        "path": "data/none",
        "max_per_class": None,
        "published_per_class": None,
        "seed": 0,
        "naming": {},
    }
    assert params.read({"corruptions": values}, "corruptions", CorruptionParams).published is None
    with pytest.raises(ConfigError, match=reason):
        params.read({"corruptions": {**values, **changes}}, "corruptions", CorruptionParams)


def test_the_code_whose_digest_is_recorded_is_the_code_that_corrupts() -> None:
    code = {(corruption_suite._HERE / name).resolve() for name in corruption_suite._CODE}
    applied = {made.apply for made in CORRUPTIONS.values()} | {corrupt, GeneratedSource.pixels, levels.levels}
    assert code == {Path(function.__code__.co_filename).resolve() for function in applied}
