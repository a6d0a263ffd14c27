"""Published numbers: as printed, the tolerance and its false alarms, and a run that is no reproduction."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from clipcifar.core import files, params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation.names import TRAINED
from clipcifar.prompts.sets import expand_set
from clipcifar.store import container
from clipcifar.verify import measured, mismatch, references, text as shown, verification
from clipcifar.verify.measured import Run, Tally
from clipcifar.verify.references import REFERENCES, Reference
from clipcifar.verify.verification import Verification, passing_counts, printed_range, verify
from tests.support import command_line
from tests.support.workspace import ROOT, SETS as SETS_OF_DIGITS, Workspace

LAION = ("ViT-B-32", "laion2b_s34b_b79k")
KEY = ("cifar10", *LAION)
CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SETS = {"photo": references.PHOTO, "scenes": references.SCENES, "eighteen": references.CIFAR18}


def _sentences(values: dict[str, Any]) -> measured.Sentences:
    found = expand_set("x", values, class_names=CIFAR, dataset="cifar10")
    assert found is not None
    return measured.said_by(found.class_index, found.sentences)


def _tally(accuracies: list[float], n: int = 1000) -> Tally:
    return Tally(np.full(10, n), np.array([round(n * accuracy) for accuracy in accuracies]))


def _as_published(method: str, prompts: dict[str, Any] | None = None) -> list[float]:
    for reference in REFERENCES[KEY]:
        if reference.method == method and reference.per_class and reference.prompts == (prompts or {}):
            return [float(figure) for figure in reference.per_class.values()]
    raise AssertionError(method)


@pytest.fixture
def run() -> Run:
    """A run that measured exactly what was published."""
    return Run(
        dataset="cifar10",
        model=LAION[0],
        pretrained=LAION[1],
        max_per_class=0,
        class_names=CIFAR,
        methods={
            "linear_probe": _tally(_as_published("linear_probe")),
            "mlp_probe": _tally(_as_published("mlp_probe")),
            "projection": _tally(_as_published("projection", references.PHOTO)),
        },
        sets={
            "photo": _tally(_as_published("zero_shot", references.PHOTO)),
            "scenes": _tally(_as_published("zero_shot", references.SCENES)),
            "eighteen": _tally([0.9355] * 10),
        },
        sentences={name: _sentences(values) for name, values in SETS.items()},
        projected="photo",
    )


def _failed(found: Verification) -> list[tuple[str, str]]:
    return [(check.what, check.class_name) for check in found.checks if not check.passed]


def test_every_figure_is_a_proportion_and_belongs_to_a_class_of_its_dataset() -> None:
    for (dataset, _, _), table in REFERENCES.items():
        for reference in table:
            for figure in (*reference.accuracy, *reference.per_class.values()):
                assert 0 < float(figure) < 1
            assert list(reference.accuracy) == sorted(reference.accuracy)
            assert list(reference.per_class) in ([], CIFAR if dataset == "cifar10" else [])


def test_the_published_classes_average_to_their_total_but_for_one_that_is_known() -> None:
    gaps = {}
    for reference in REFERENCES[KEY]:
        if reference.per_class:
            low, high = printed_range(reference.accuracy)
            mean = np.mean([float(figure) for figure in reference.per_class.values()])
            gaps[reference.method, str(reference.prompts)] = max(low - mean, mean - high, 0)
    assert [key for key, gap in gaps.items() if gap > 1e-9] == [("zero_shot", str(references.PHOTO))]
    assert max(gaps.values()) < 0.0004


def test_the_committed_sets_say_what_was_published() -> None:
    committed = params.load(ROOT / "params.yaml")["prompts"]["sets"]
    for name, published in (
        ("photo", references.PHOTO),
        ("scenes", references.SCENES),
        ("cifar18", references.CIFAR18),
    ):
        assert _sentences(committed[name]) == _sentences(published)
    assert len(_sentences(references.CIFAR18)) == 180


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (["0.936"], (0.9355, 0.9365)),
        ([".9530"], (0.95295, 0.95305)),
        (["0.9560", "0.9691"], (0.95595, 0.96915)),
        (["1.0"], (0.95, 1.0)),
    ],
)
def test_a_figure_stands_for_what_it_was_rounded_from(
    figures: list[str], expected: tuple[float, float]
) -> None:
    assert printed_range(figures) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("low", "high", "n", "level"),
    [(0.936, 0.936, 10_000, 0.005), (0.851, 0.851, 1000, 2e-4), (0.9, 0.95, 397, 0.05)],
)
def test_what_passes_is_what_a_binomial_does_not_make_rare(
    low: float, high: float, n: int, level: float
) -> None:
    """Against SciPy's own tails, count by count."""
    first, last = passing_counts(low, high, n, level=level)
    for k in (first - 1, first, last, last + 1):
        rare = stats.binom.cdf(k, n, low) <= level / 2 or stats.binom.sf(k - 1, n, high) <= level / 2
        assert rare == (k in (first - 1, last + 1))


def test_a_hand_case() -> None:
    """B(12, 1/2): P(<= 1) = 13/4096 = 0.003, P(<= 2) = 79/4096 = 0.019, and the other side alike."""
    assert passing_counts(0.5, 0.5, 12, level=0.03) == (2, 10)
    assert passing_counts(0.5, 0.5, 12, level=0.05) == (3, 9)


def test_no_error_among_n_images_does_not_demand_that_there_is_none() -> None:
    first, last = passing_counts(1.0, 1.0, 1000, level=0.01)
    assert last == 1000
    assert 985 <= first <= 995
    assert passing_counts(0.0, 0.0, 1000, level=0.01) == (0, 1000 - first)


def test_the_published_numbers_themselves_pass(run: Run) -> None:
    found = verify(run, REFERENCES[KEY])
    assert _failed(found) == []
    assert found.skipped == []
    assert [(item.what, item.published) for item in found.beyond] == [
        ("linear probe, 10 images a class", ("0.9337",))
    ]
    assert len(found.checks) == 8 + 50
    assert all(abs(check.difference) < 0.001 for check in found.checks)


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_true_reproduction_fails_in_at_most_one_of_twenty_runs(run: Run, share: float | None) -> None:
    """Ours drawn anew from the published accuracies; or the same images, with discordant ones on either side.

    `share` is that of p (1 - p) n images on which exactly one of the two is right.
    """
    rng = np.random.default_rng(0)
    references_ = [item for item in REFERENCES[KEY] if item.per_class]

    def again(base: Tally) -> Tally:
        p = base.n_correct / base.n
        if share is None:
            return Tally(base.n, rng.binomial(base.n, p))
        discordant = rng.poisson(share * base.n * p * (1 - p))
        flipped = 2 * rng.binomial(discordant, 0.5) - discordant
        return Tally(base.n, np.clip(base.n_correct + flipped, 0, base.n))

    runs = 300
    alarms = 0
    for _ in range(runs):
        drawn = replace(
            run,
            sets={name: again(item) for name, item in run.sets.items()},
            methods={name: again(item) for name, item in run.methods.items()},
        )
        alarms += bool(_failed(verify(drawn, references_)))
    assert stats.binomtest(alarms, runs, 0.05, alternative="greater").pvalue > 0.01, alarms
    if share is not None:
        assert alarms <= runs * 0.01


def test_without_the_correction_a_true_reproduction_would_often_fail(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: every comparison at 5 % for itself."""
    monkeypatch.setattr(verification, "TOTALS_LEVEL", 0.05 * 5)
    monkeypatch.setattr(verification, "CLASSES_LEVEL", 0.05 * 50)
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(100):
        drawn = {
            name: Tally(item.n, rng.binomial(item.n, item.n_correct / item.n))
            for name, item in run.methods.items()
        }
        alarms += bool(
            _failed(verify(replace(run, methods=drawn), [item for item in REFERENCES[KEY] if item.per_class]))
        )
    assert alarms > 40


def _fallen(run: Run, points: float, *, images: bool, text: bool) -> Run:
    def lower(item: Tally) -> Tally:
        return Tally(item.n, np.maximum(item.n_correct - round(10 * points), 0))

    return replace(
        run,
        sets={name: lower(item) if text else item for name, item in run.sets.items()},
        methods={name: lower(item) if images else item for name, item in run.methods.items()},
    )


@pytest.mark.parametrize(
    ("points", "images", "text", "first"),
    [
        (5.0, True, True, mismatch.ACTIVATION),
        (1.5, True, True, mismatch.PREPROCESSING),
        (2.0, False, True, mismatch.PROMPTS),
        (2.0, True, False, mismatch.UNNORMALISED),
        (85.0, True, True, mismatch.ACTIVATION),
        (85.0, False, True, mismatch.CLASS_ORDER),
        (-2.0, True, True, mismatch.LEAK),
    ],
)
def test_the_cause_that_fits_what_fell_comes_first(
    run: Run, points: float, images: bool, text: bool, first: str
) -> None:
    found = verify(_fallen(run, points, images=images, text=text), REFERENCES[KEY])
    fits, others = mismatch.causes(found.checks, num_classes=10)
    assert fits[0] == first
    assert len({*fits, *others}) == len([*fits, *others]) == 6
    said = shown.lines(found, num_classes=10)
    assert f"  -> {first}" in said


def test_nothing_fits_where_nothing_failed(run: Run) -> None:
    found = verify(run, REFERENCES[KEY])
    assert mismatch.causes(found.checks, num_classes=10)[0] == []
    assert "mismatch" not in "\n".join(shown.lines(found, num_classes=10))


def test_where_only_zero_shot_is_published_a_fall_has_three_causes(run: Run) -> None:
    """No probe tells the towers apart."""
    table = [item for item in REFERENCES[KEY] if item.method == "zero_shot"]
    found = verify(_fallen(run, 2.0, images=True, text=True), table)
    fits, others = mismatch.causes(found.checks, num_classes=10)
    assert fits == [mismatch.PROMPTS, mismatch.ACTIVATION, mismatch.PREPROCESSING]
    assert others == [mismatch.CLASS_ORDER, mismatch.UNNORMALISED, mismatch.LEAK]


def test_a_run_with_nothing_to_compare_has_no_empty_table(run: Run) -> None:
    table = [item for item in REFERENCES[KEY] if item.prompts]
    found = verify(replace(run, sentences={"photo": frozenset()}), table)
    said = shown.lines(found, num_classes=10)
    assert not any(line.startswith("|") for line in said)
    assert sum(line.startswith("not compared: ") for line in said) == len(table)
    assert said[-1].startswith("0 numbers compared, 0 failed.")


@pytest.mark.parametrize("fallen", [False, True])
def test_one_blank_line_stands_between_two_parts(run: Run, fallen: bool) -> None:
    found = verify(_fallen(run, -2.0, images=True, text=True) if fallen else run, REFERENCES[KEY])
    bare = replace(found, skipped=[], beyond=[])
    for one in (found, bare, replace(bare, checks=[])):
        said = shown.lines(one, num_classes=10)
        assert "" not in (said[0], said[-1])
        assert all(pair != ("", "") for pair in itertools.pairwise(said))


def test_two_classes_that_trade_places_fail_though_the_total_stays(run: Run) -> None:
    said = run.sets["photo"].n_correct.copy()
    said[[3, 7]] = said[[7, 3]]
    sets = {**run.sets, "photo": Tally(run.sets["photo"].n, said)}
    found = verify(replace(run, sets=sets), REFERENCES[KEY])
    assert _failed(found) == [("zero-shot, photo", "cat"), ("zero-shot, photo", "horse")]
    assert mismatch.causes(found.checks, num_classes=10)[0] == [mismatch.PROMPTS]


def test_a_small_difference_of_zero_shot_passes_with_a_note(run: Run) -> None:
    found = verify(_fallen(run, 0.4, images=False, text=True), REFERENCES[KEY])
    assert _failed(found) == []
    said = "\n".join(shown.lines(found, num_classes=10))
    assert "note: zero-shot, eighteen passes, but the same weights" in said
    assert "note" not in "\n".join(shown.lines(verify(run, REFERENCES[KEY]), num_classes=10))


def test_a_set_is_known_by_its_sentences_and_not_by_its_name(run: Run) -> None:
    renamed = {"mine" if name == "photo" else name: item for name, item in run.sentences.items()}
    sets = {"mine" if name == "photo" else name: item for name, item in run.sets.items()}
    found = verify(replace(run, sentences=renamed, sets=sets, projected="mine"), REFERENCES[KEY])
    assert found.skipped == []
    other = {**run.sentences, "photo": _sentences({**references.PHOTO, "templates": ["a {classname}."]})}
    found = verify(replace(run, sentences=other), REFERENCES[KEY])
    assert [item.what for item in found.skipped] == ["zero-shot", "projection heads"]
    assert "a photo of a airplane." in found.skipped[0].why
    assert "the set photo is active" in found.skipped[1].why


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "ViT-L-14"}, "no number is published here for cifar10 with ViT-L-14 laion2b_s34b_b79k"),
        ({"dataset": "imagefolder"}, "imagefolder with ViT-B-32"),
        ({"pretrained": "openai"}, "ViT-B-32 openai"),
        ({"max_per_class": 100}, "at most 100 images per class"),
    ],
)
def test_a_run_that_nothing_is_published_for_is_told_so(
    run: Run, change: dict[str, Any], message: str
) -> None:
    other = replace(run, **change)
    with pytest.raises(ConfigError, match=message):
        references.of(other.dataset, other.model, other.pretrained, other.max_per_class)


@pytest.mark.pipeline
def test_a_run_passes_its_own_table_and_fails_with_another_model_or_prompt(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table that is committed for the digits is checked by the demo, in test_demo."""
    folder = workspace.folder
    written = {name: files.read_json(folder / f"metrics/{name}.json") for name in TRAINED}
    table = [Reference(name, (str(found["accuracy"]),), "here") for name, found in written.items()]
    of_sets = files.read_json(folder / "metrics/prompt_sets.json")
    for name, found in of_sets.items():
        table.append(Reference("zero_shot", (str(found["accuracy"]),), "here", SETS_OF_DIGITS[name]))
    key = ("digits", "local-dir:data/demo/clip", "")
    monkeypatch.setattr(references, "REFERENCES", {key: table})
    monkeypatch.chdir(folder)

    def verified() -> tuple[object, str]:
        return command_line.run(monkeypatch, "verify"), capsys.readouterr().out

    code, said = verified()
    assert code == 0
    assert "5 numbers compared, 0 failed" in said
    workspace.edit(
        lambda settings: settings["prompts"]["sets"]["digits"].update(
            templates=["a {classname}, handwritten"]
        )
    )
    workspace.repro("prompt_sets")
    code, said = verified()
    assert code == 2
    assert 'no prompt set says the same 10 sentences, such as "a scan of the handwritten digit zero."' in said
    # other behaviour under the same name: preprocessing that the weights were not trained with
    config = folder / "data/demo/clip/open_clip_config.json"
    wrong = files.read_json(config)
    wrong["preprocess_cfg"].update(mean=[0.9] * 3, std=[0.1] * 3)
    files.write_json(config, wrong)
    workspace.repro("prompt_sets", "mlp_probe", "linear_probe", "projection")
    code, said = verified()
    assert code == 3
    fits = [line for line in said.splitlines() if line.startswith("  -> ")]
    assert ["activation" in line or "preprocessing" in line for line in fits] == [True, True]


@pytest.mark.pipeline
def test_a_run_whose_files_are_of_two_runs_or_gone_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace.folder
    paths = (folder / "data/predictions", folder / "metrics", folder / "data/embeddings/texts")
    assert measured.read(*paths).projected == "photo"
    metrics = files.read_json(folder / "metrics/linear_probe.json")
    files.write_json(folder / "metrics/linear_probe.json", {**metrics, "n_correct": metrics["n_correct"] + 1})
    with pytest.raises(DataError, match="does not say of linear_probe what the predictions do"):
        measured.read(*paths)
    (folder / "metrics/linear_probe.json").write_text("[]")
    with pytest.raises(DataError, match="not metrics of this project"):
        measured.read(*paths)
    for harmed in ({}, {"n": metrics["n"]}):
        (folder / "metrics/linear_probe.json").write_text(json.dumps(harmed))
        with pytest.raises(DataError, match="does not say of linear_probe what the predictions do"):
            measured.read(*paths)
    files.write_json(folder / "metrics/linear_probe.json", metrics)
    for name, attribute, expected in (
        ("prompt_sets", "images_fingerprint", "it was computed from other embeddings"),
        ("projection", "texts_fingerprint", "its prompt set is not among the embedded ones"),
    ):
        path = folder / f"data/predictions/{name}.h5"
        whole = path.read_bytes()
        kind = "predictions" if name == "projection" else "prompt set predictions"
        file = container.read(path, kind=kind)
        own = {key: value for key, value in file.attributes.items() if key not in container._DIGESTS}
        for other in ({**own, attribute: "0"}, {key: own[key] for key in own if key != attribute}):
            container.write(path, kind=kind, arrays=file.arrays, attributes=other)
            said = expected if attribute in other or name == "projection" else "expected text"
            with pytest.raises(DataError, match=said):
                measured.read(*paths)
        path.write_bytes(whole)
    assert measured.read(*paths).projected == "photo"
    (folder / "data/embeddings/texts/digits.h5").unlink()
    with pytest.raises(DataError, match="its prompt sets are not those"):
        measured.read(*paths)
    (folder / "data/predictions/mlp_probe.h5").unlink()
    monkeypatch.chdir(folder)
    assert command_line.run(monkeypatch, "verify") == 3


def test_a_subset_is_not_measured_by_numbers_of_all_images() -> None:
    with pytest.raises(ConfigError, match="at most 100 images per class") as caught:
        references.of(*KEY, 100)
    assert caught.value.where == "params.yaml: dataset.max_per_class"
    assert references.of(*KEY, 0) == REFERENCES[KEY]
    assert (
        references.of("cifar10", "ViT-B/32", "LAION2B-S34B-B79K", 0)
        is REFERENCES["cifar10", "ViT-B-32", "laion2b_s34b_b79k"]
    )


def test_the_counts_are_those_of_the_predictions() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0])
    found = measured.tally(predicted, labels, num_classes=3)
    assert (found.n.tolist(), found.n_correct.tolist()) == ([2, 3, 0], [1, 2, 0])
    assert found.total == (5, 3)


def test_blanks_and_order_do_not_make_another_set(tmp_path: Path) -> None:
    assert measured.said_by([0, 1], ["a  cat", "a dog"]) == measured.said_by([1, 0], ["a dog ", "a cat"])
    assert measured.said_by([0, 1], ["a cat", "a dog"]) != measured.said_by([1, 0], ["a cat", "a dog"])
