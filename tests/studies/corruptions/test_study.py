"""The corrupted embeddings' file, every classifier on it, and the two stages on made-up embeddings."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipcifar.core.errors import DataError
from clipcifar.evaluation import compare
from clipcifar.evaluation.balance import Balanced, Mover
from clipcifar.methods import zero_shot
from clipcifar.store import container
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.store.fields import class_names_attribute, rows_of
from clipcifar.studies.corruptions.images.kinds import EXTRAS, PUBLISHED
from clipcifar.studies.corruptions.judge import findings, naming, page, repeated
from clipcifar.studies.corruptions.judge.findings import text_classifier
from clipcifar.studies.corruptions.judge.outcome import Findings
from clipcifar.studies.corruptions.judge.robustness import Answers
from clipcifar.studies.corruptions.store import Corrupted, read_corrupted, write_corrupted
from tests.support.synthetic import CLASSES, image_embeddings, prototypes, unit

SEVERITIES = (1, 4)
STRENGTH = {"fog": 1.0, "darkness": 4.0}  # of the noise added to embeddings, times the severity
ABOUT = {"corruption_source": "generated", "corruption_severities": "[1,4]", "corruption_ids": "ab"}


AGAIN = "run `clipcifar study corruptions`"  # plain `dvc repro` runs no study


def images() -> ImageEmbeddings:
    found = image_embeddings(n_test=120)
    return replace(found, attributes={**found.attributes, "version_scipy": "1"})


def corrupted(name: str, given: ImageEmbeddings, rows: np.ndarray, **attributes: Any) -> Corrupted:
    rng = np.random.default_rng(len(name))
    noise = rng.standard_normal((len(SEVERITIES), len(rows), 24)) / np.sqrt(24)
    scaled = noise * STRENGTH[name] * np.array(SEVERITIES)[:, None, None]
    embeddings = np.stack([unit(given.test.embeddings[rows] + part) for part in scaled])
    return Corrupted(
        name,
        embeddings,
        list(SEVERITIES),
        [given.test.ids[row] for row in rows],
        np.full((2, 8, 8, 3), 99, np.uint8),
        {**given.attributes, **ABOUT, "corruption": name, **attributes},
    )


def classifiers(given: ImageEmbeddings) -> dict[str, Any]:
    """Zero-shot by the true prototypes, a worse one, and one that says the first class of everything."""
    shifted = unit(prototypes() + np.random.default_rng(3).standard_normal((3, 24)) / 4)
    return {
        "zero_shot": text_classifier(prototypes(), given),
        "linear_probe": text_classifier(shifted, given),
        "mlp_probe": lambda rows: np.eye(3, dtype=np.float32)[np.zeros(len(rows), np.int64)],
    }


ROWS = np.arange(5, 105)


@pytest.fixture(scope="module")
def outcome() -> Findings:
    given = images()
    naming_sets = {"darkness": (6, classifiers(given)["linear_probe"])}
    files = [corrupted(name, given, ROWS) for name in ("fog", "darkness")]
    return findings.measure(iter(files), given, classifiers(given), naming_sets)


def test_every_answer_is_that_of_the_classifier_on_those_rows(outcome: Findings) -> None:
    given = images()
    assert (outcome.names, outcome.severities, outcome.source) == (["fog", "darkness"], [1, 4], "generated")
    for method, classifier in classifiers(given).items():
        for k, name in enumerate(outcome.names):
            file = corrupted(name, given, ROWS)
            for s in range(2):
                for i, row in enumerate(ROWS):
                    said = int(classifier(file.embeddings[s, i : i + 1]).argmax())
                    assert outcome.predicted[method][k, s, i] == said
                    right = said == given.test.labels[row]
                    assert outcome.answers[method].corrupted[k, s, i] == right
        clean = classifier(given.test.embeddings[ROWS]).argmax(axis=1) == given.test.labels[ROWS]
        np.testing.assert_array_equal(outcome.answers[method].clean, clean)


def test_stronger_corruption_costs_more_and_a_constant_answer_loses_nothing(outcome: Findings) -> None:
    found = outcome.robustness
    (fog, fog_4), (dark, dark_4) = found["zero_shot"].accuracy
    assert found["zero_shot"].clean.value > fog > fog_4 > dark_4
    assert fog > dark
    assert (
        abs(found["mlp_probe"].over["benchmark"].drop.value) < 1e-9
    )  # the negative control: a third, whatever is shown
    assert found["mlp_probe"].over["benchmark"].mean.value == pytest.approx(1 / 3, abs=0.03)


def test_a_naming_set_is_compared_on_its_own_corruption(outcome: Findings) -> None:
    (item,) = outcome.naming
    zero, other = outcome.answers["zero_shot"], outcome.answers["linear_probe"]
    assert (item.name, item.num_sentences) == ("darkness", 6)
    assert replace(item.corrupted, balanced=None) == repeated.paired(zero.corrupted[1], other.corrupted[1])
    same = [right.corrupted[1].mean(axis=0) for right in (zero, other)]
    by_class = [[own[outcome.labels == label].mean() for label in range(3)] for own in same]
    assert item.corrupted.balanced is not None
    assert item.corrupted.balanced.difference == pytest.approx(np.mean(by_class[1]) - np.mean(by_class[0]))
    assert item.clean == compare.paired(zero.clean, other.clean)


def test_metrics_recompute_from_the_stored_answers(outcome: Findings, tmp_path: Path) -> None:
    findings.write(tmp_path, outcome, images())
    found = json.loads((tmp_path / "metrics.json").read_text())
    stored = container.read(tmp_path / "predictions.h5", kind="corruption predictions").arrays
    assert found["n"] == len(stored["labels"]) == 100
    assert container.decode_strings(stored["ids"])[0] == "test/00005"
    for method in ("zero_shot", "linear_probe", "mlp_probe"):
        by_name = {name: stored[f"{method}/{name}"] == stored["labels"] for name in ("fog", "darkness")}
        for name, right in by_name.items():
            assert found[method]["corruption"][name] == pytest.approx(right.mean(), abs=1e-5)
        clean = found[method]["clean"]
        for over, name in (("benchmark", "fog"), ("own", "darkness")):
            mean = by_name[name].mean()
            assert found[method][over]["mean"] == pytest.approx(mean, abs=1e-5)
            assert found[method][over]["relative_drop"] == pytest.approx(1 - mean / clean, abs=3e-5)
    assert "vs_zero_shot" not in found["zero_shot"]
    assert found["n_corruptions"] == {"benchmark": 1, "own": 1}
    means = [found[method]["benchmark"]["mean"] for method in ("linear_probe", "zero_shot")]
    difference = means[0] - means[1]
    assert found["linear_probe"]["vs_zero_shot"]["difference"] == pytest.approx(difference, abs=2e-5)
    rows = list(csv.DictReader((tmp_path / "accuracy.csv").read_text().splitlines()))
    assert len(rows) == 3 * (1 + 2 * 2)
    bars = list(csv.DictReader((tmp_path / "zero_shot.csv").read_text().splitlines()))
    assert {row["corruption"]: float(row["accuracy"]) for row in bars} == found["zero_shot"]["corruption"]


def test_equal_runs_give_equal_bytes(outcome: Findings, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        findings.write(tmp_path / folder, outcome, images())
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    html = [page.render(outcome, images(), active="photo") for _ in range(2)]
    assert html[0] == html[1]


def _cells(html: str, title: str) -> list[list[str]]:
    """What a heat map of the page says: its rows, the name first."""
    table = re.search(f'aria-label="{title}"><table.*?</table>', html, re.DOTALL)
    assert table is not None
    rows = re.findall(r"<tr>(<th scope=\"row\".*?)</tr>", table[0], re.DOTALL)
    return [re.findall(r">([^<>]*)</t[hd]>", row) for row in rows]


def test_the_heat_maps_hold_the_numbers(outcome: Findings) -> None:
    html = page.render(outcome, images(), active="photo")
    by_corruption = _cells(html, "Accuracy by method and corruption")
    assert [row[0] for row in by_corruption] == [
        *("clean", "fog", "darkness"),
        *("mean of 1 of 15", "mean of 1 of 2 own"),
    ]
    for column, found in enumerate(outcome.robustness.values(), start=1):
        means = [found.over[key].mean.value for key in ("benchmark", "own")]
        shares = [found.clean.value, *found.accuracy.mean(axis=1), *means]
        assert [row[column] for row in by_corruption] == [f"{100 * share:.0f}" for share in shares]
    by_severity = _cells(html, "Zero-shot by corruption and severity")
    reference = outcome.robustness["zero_shot"]
    for row, name, accuracy in zip(by_severity, ("fog", "darkness"), reference.accuracy, strict=True):
        assert row == [name, *(f"{100 * share:.0f}" for share in (reference.clean.value, *accuracy))]
    assert f'<td class="shade-{round(20 * reference.accuracy[0, 0])}">' in html


def test_of_heads_with_seeds_one_line_says_what_their_p_values_cover(outcome: Findings) -> None:
    covers = "P values of MLP probe cover other test images, not retraining."
    assert findings.verdicts(outcome, "photo").count(covers) == 1
    without = {name: item for name, item in outcome.answers.items() if name != "mlp_probe"}
    said = " ".join(findings.verdicts(replace(outcome, answers=without), "photo"))
    assert "linear probe" in said
    assert "retraining" not in said


def test_the_page_denies_that_generated_images_are_cifar_10_c(outcome: Findings) -> None:
    html = page.render(outcome, images(), active="photo")
    assert html.count("CIFAR-10-C") == 2
    assert "they are not CIFAR-10-C" in html
    assert "gets the severities published for 32 px (CIFAR-10-C)" in html
    published = replace(outcome, source="CIFAR-10-C")
    assert "The images are those of CIFAR-10-C." in page.render(published, images(), active="photo")
    assert "scipy 1" in html
    assert html.count("<img") == 2  # of two severities the stronger one


def test_of_one_corruption_no_extremes_are_told_nor_severities_of_one(outcome: Findings) -> None:
    answers = {
        name: replace(item, corrupted=item.corrupted[:1, :1]) for name, item in outcome.answers.items()
    }
    single = replace(outcome, names=["fog"], severities=[3], answers=answers)
    both = replace(outcome, names=["fog", "snow"])
    assert ", most under snow (to " in findings.verdicts(both, "photo")[0]
    assert findings.verdicts(single, "photo")[0].endswith("] % of its accuracy.")
    assert "under 1 corruption at severity 3?" in page._question(single)
    assert "under 2 corruptions at severities " in page._question(outcome)


def published(n: int, names: tuple[str, ...], severities: list[int]) -> Findings:
    """Published images on which zero-shot is wrong about the extras, and a probe about the rest."""
    rng, kinds_of = np.random.default_rng(0), np.array([name in EXTRAS for name in names])
    shape = len(names), len(severities), n
    right = {"zero_shot": ~kinds_of, "linear_probe": kinds_of}
    answers = {
        method: Answers(np.ones(n, bool), (kept[:, None, None] & (rng.random(shape) < 0.8)))
        for method, kept in right.items()
    }
    given = images()
    return Findings(
        source="CIFAR-10-C",
        names=list(names),
        severities=severities,
        rows=np.arange(n),
        labels=np.arange(n) % 3,
        class_names=CLASSES,
        copies=None,
        predicted={},
        answers=answers,
        examples={name: np.zeros((len(severities), 8, 8, 3), np.uint8) for name in names},
        naming=[],
        attributes={**given.attributes, **ABOUT},
    )


def test_the_published_protocol_gives_the_mean_over_15_and_the_one_with_extras_each_by_name() -> None:
    whole = published(10_000, PUBLISHED, [1, 2, 3, 4, 5])
    mean = whole.answers["zero_shot"].corrupted[:15].mean()  # by hand: the first 15 rows
    assert whole.robustness["zero_shot"].over["benchmark"].mean.value == pytest.approx(mean)
    assert whole.robustness["zero_shot"].over["with_extras"].mean.value == pytest.approx(mean * 15 / 19)
    metrics = findings.as_metrics(whole)
    assert metrics["n_corruptions"] == {"benchmark": 15, "with_extras": 19}
    assert metrics["linear_probe"]["vs_zero_shot"]["difference"] == pytest.approx(-mean)  # of the 15 alone
    told = findings.verdicts(whole, "photo")
    assert told[0].startswith(
        f"In the mean over the benchmark's 15 corruptions, zero-shot is right on {100 * mean:.1f} ["
    )
    assert told[1].startswith(
        "In the mean over the benchmark's 15 corruptions and its 4 extras, it is right on "
    )
    assert told[2] == (
        "Means published for CIFAR-10-C are over the same 15 corruptions, 5 severities and 10,000 images; "
        f"as an error it is {100 * (1 - mean):.1f} %."
    )
    html = page.render(whole, images(), active="photo")
    assert "mean of 15, %" in html
    assert "mean of 19, %" in html
    assert html.count("as an extra") == 4


@pytest.mark.parametrize(
    ("n", "names", "severities", "said"),
    [
        (9_999, PUBLISHED, [1, 2, 3, 4, 5], "15, 5 and 9,999"),
        (10_000, PUBLISHED[1:], [1, 2, 3, 4, 5], "14, 5 and 10,000"),
        (10_000, PUBLISHED, [1, 2, 3, 4], "15, 4 and 10,000"),
        (50, ("saturate",), [5], "0, 1 and 50"),
    ],
)
def test_a_part_of_the_published_images_is_not_called_the_protocol(
    n: int, names: tuple[str, ...], severities: list[int], said: str
) -> None:
    told = findings._protocol(published(n, names, severities))
    assert f"here are {said}: do not compare the two." in told
    assert "as an error" not in told


def test_of_generated_images_no_published_mean_is_spoken_of(outcome: Findings) -> None:
    told = findings.verdicts(outcome, "photo")
    assert told[0].startswith("In the mean over 1 of the benchmark's 15 corruptions, zero-shot is right on ")
    assert told[1].startswith("In the mean over 1 corruption of our own, it is right on ")
    assert "CIFAR-10-C" not in " ".join(told)


def test_naming_verdicts_are_sorted_by_what_was_shown(outcome: Findings) -> None:
    (item,) = outcome.naming
    gain = replace(item.corrupted, difference=0.05, low=0.02, high=0.08, balanced=None)
    loss = replace(item.corrupted, difference=-0.2, low=-0.3, high=-0.1, balanced=None)
    items = [
        replace(item, name="fog", corrupted=gain, p_holm=0.01),
        replace(item, name="zoom_blur", corrupted=replace(gain, difference=0.06), p_holm=0.049),
        replace(item, name="snow", corrupted=loss, p_holm=0.001),
        replace(item, name="frost", corrupted=gain, p_holm=0.05),
    ]
    better, worse, neither = naming.verdicts(items, "photo")
    assert "are better than photo under zoom blur +6.0 [+2.0, +8.0]; fog +5.0 [+2.0, +8.0] (" in better
    assert "worse than photo under snow -20.0 [-30.0, -10.0] (" in worse
    assert neither.startswith(
        "No difference shown between prompts that name the corruption and photo under frost +5.0"
    )
    hidden = Balanced(0.7, 0.6, -0.1, -0.2, 0.0, Mover("cat", 5, 0.6, 0.0))
    (told,) = naming.verdicts([replace(items[0], corrupted=replace(gain, balanced=hidden))], "photo")
    assert (
        "fog +5.0 [+2.0, +8.0], where balanced accuracy falls from 0.700 to 0.600, -10.0 points "
        "[-20.0, +0.0] (cat 0.60 → 0.00, 5 images)"
    ) in told
    assert naming.verdicts([], "photo") == []


def test_names_that_would_be_markup_are_text(outcome: Findings) -> None:
    hostile = page.render(outcome, images(), active="<script>x")
    assert "<script" not in hostile
    assert "&lt;script&gt;x" in hostile
    without = page.render(replace(outcome, naming=[]), images(), active="photo")
    assert "None of the corruptions is named" in without


def test_corruptions_of_two_runs_are_not_mixed_and_none_is_an_error() -> None:
    given = images()
    mixed = [corrupted("fog", given, ROWS), corrupted("darkness", given, ROWS, corruption_ids="cd")]
    with pytest.raises(DataError, match="darkness is not of the same run"):
        findings.measure(mixed, given, classifiers(given), {})
    with pytest.raises(DataError, match="no corruption") as caught:
        findings.measure([], given, classifiers(given), {})
    assert caught.value.fix == AGAIN


# The file


def written(path: Path, given: ImageEmbeddings, **changes: Any) -> None:
    item = corrupted("fog", given, ROWS)
    attributes = {key: item.attributes[key] for key in item.attributes if key != "fingerprint"}
    values = {
        "severities": SEVERITIES,
        "ids": item.ids,
        "examples": item.examples,
        "attributes": {**attributes, **changes.pop("attributes", {})},
        **changes,
    }
    embeddings = values.pop("embeddings", item.embeddings.reshape(-1, 24))
    write_corrupted(path, embeddings, **values)


def test_the_file_comes_back_as_it_was(tmp_path: Path) -> None:
    given = images()
    written(tmp_path / "fog.h5", given)
    found, expected = read_corrupted(tmp_path / "fog.h5", given), corrupted("fog", given, ROWS)
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)
    assert (found.severities, found.ids, found.name) == ([1, 4], expected.ids, "fog")
    assert found.source == "generated"
    assert rows_of(found.ids, given.test.ids, what="the test images").tolist() == ROWS.tolist()


FAULTS: dict[str, dict[str, Any]] = {
    "a severity less": {"severities": (1,)},
    "an id twice": {"ids": [image_embeddings(n_test=120).test.ids[5]] * len(ROWS)},
    "an id of train": {"ids": [f"train/{i:05d}" for i in range(len(ROWS))]},
    "rows that are not unit": {"embeddings": np.ones((200, 24), np.float32)},
    "examples of other shape": {"examples": np.zeros((1, 8, 8, 3), np.uint8)},
    "examples that are no pixels": {"examples": np.zeros((2, 8, 8), np.float32)},
    "another model": {"attributes": {"weights_sha256": "00"}},
    "another dataset": {"attributes": {"dataset_digest": "00"}},
    "other classes": {"attributes": {"class_names": class_names_attribute(CLASSES[::-1])}},
    "no name": {"attributes": {"corruption": 3}},
    "no source": {"attributes": {"corruption_source": 1.5}},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sound_file_that_does_not_fit_is_refused(fault: str, tmp_path: Path) -> None:
    given = images()
    written(tmp_path / "fog.h5", given, **FAULTS[fault])
    with pytest.raises(DataError) as caught:
        findings.measure([read_corrupted(tmp_path / "fog.h5", given)], given, classifiers(given), {})
    assert caught.value.exit_code == 3
    assert AGAIN in caught.value.fix


@pytest.mark.parametrize("harm", ["lost", "cut"])
def test_of_a_lost_file_the_study_is_named_and_of_a_cut_one_the_doctor(harm: str, tmp_path: Path) -> None:
    path = tmp_path / "fog.h5"
    if harm == "cut":
        path.write_bytes(b"cut")
    with pytest.raises(DataError) as caught:
        read_corrupted(path, images())
    # Of a damaged one the doctor says which file it is that must go, here or in the cache.
    assert (AGAIN if harm == "lost" else "`clipcifar doctor`") in caught.value.fix


def test_no_image_is_chosen_by_its_label(outcome: Findings) -> None:
    """Other test labels change what is right, and nothing of what is said."""
    given = images()
    permuted = np.random.default_rng(0).permutation(given.test.labels)
    other = replace(given, test=replace(given.test, labels=permuted))
    files = [corrupted(name, other, ROWS) for name in ("fog", "darkness")]
    found = findings.measure(files, other, classifiers(other), {})
    for method, said in outcome.predicted.items():
        np.testing.assert_array_equal(found.predicted[method], said)
    assert found.robustness["zero_shot"].clean.value < 0.6 < outcome.robustness["zero_shot"].clean.value


def test_sentences_of_a_set_are_averaged_by_class() -> None:
    from clipcifar.studies.corruptions.judge import naming as naming_prompts

    given = images()
    templates = {"fog": ["a {classname} in fog.", "foggy {classname}."]}
    (expanded,) = naming_prompts.expand(templates, ["fog"], class_names=CLASSES, dataset="digits").values()
    rows = unit(np.random.default_rng(0).standard_normal((6, 24)))
    embeddings = dict(zip(expanded.sentences, rows, strict=True))
    classifier: Callable[..., Any] = findings.prompt_classifier(expanded, embeddings, given)
    weights = unit(rows.reshape(3, 2, 24).sum(axis=1))
    expected = zero_shot.logits(given.test.embeddings, weights, logit_scale=20.0)
    np.testing.assert_allclose(classifier(given.test.embeddings), expected, atol=1e-4)
