"""What a search for prompts found: counted, written by its stage, and told to a person."""

from __future__ import annotations

import csv
import json
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.core import files, params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.evaluation import compare, headline, signs
from clipcifar.evaluation.balance import sign_flip_bound
from clipcifar.evaluation.verdict import verdict
from clipcifar.methods import zero_shot
from clipcifar.prompts import pool as prompt_pool
from clipcifar.prompts.save import compact, save_set
from clipcifar.prompts.sets import expand_set
from clipcifar.report.ranking import chosen_templates, doubt, gains_text, on_val_text, summary
from clipcifar.search import candidates, counting, outcome as search, ranking
from clipcifar.search.candidates import Candidate
from clipcifar.store import container, splits
from clipcifar.store.embeddings import SHARED_FIELDS, Split, read_texts, write_texts
from clipcifar.store.images import read_images, write_images
from clipcifar.store.model import WEIGHTS_FILE, ModelDescription, config_sha256
from clipcifar.store.predictions import read_predictions
from clipcifar.store.prompt_set import OWN_SENTENCES, PromptSet
from stages import embed_pool, prompt_weighting, rank_prompts, zero_shot as zero_shot_stage
from tests.support.made import DIM, EMBED, NAMES, edit_images, prototypes, write_embeddings
from tests.support.synthetic import unit
from tests.support.workspace import ROOT

# --- from_counts ---------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60), st.integers(0, 30))
def test_counted_images_compare_as_the_images_do(only_a: int, only_b: int, both: int, neither: int) -> None:
    n = only_a + only_b + both + neither
    if not n:
        return
    kinds = np.random.default_rng(0).permutation(np.repeat(range(4), [only_a, only_b, both, neither]))
    a, b = (kinds == 0) | (kinds == 2), (kinds == 1) | (kinds == 2)
    found = compare.from_counts(n, n_correct_a=only_a + both, only_a=only_a, only_b=only_b)
    assert found == compare.paired(a, b)
    assert found.accuracy_a == pytest.approx(a.mean())
    assert found.accuracy_b == pytest.approx(b.mean())


def test_a_comparison_of_counts_by_hand() -> None:
    found = compare.from_counts(200, n_correct_a=120, only_a=0, only_b=6)
    assert (found.n, found.only_a, found.only_b) == (200, 0, 6)
    assert (found.accuracy_a, found.accuracy_b) == (0.6, 0.63)
    assert found.difference == 0.03
    assert found.p_value == pytest.approx(2 / 64)
    assert 0 < found.low < 0.03 < found.high < 0.06


def test_nothing_discordant_is_no_difference_and_no_certainty() -> None:
    found = compare.from_counts(50, n_correct_a=20, only_a=0, only_b=0)
    assert (found.difference, found.p_value) == (0, 1)
    # Bonett and Price by hand: shares 1/52 each, 1.96 * sqrt((2 / 52) / 52) = 0.0533
    assert (found.low, found.high) == pytest.approx((-0.0533, 0.0533), abs=1e-4)
    assert found.accuracy_a == found.accuracy_b == 0.4


# --- rows, names and gains -----------------------------------------------------------------------


def selected(**values: Any) -> ranking.Selection:
    """Three candidates on 100 images of which the reference gets 50 right; the second is the best."""
    whole = ranking.Selection(
        by="accuracy",
        singles=counting.Tally(
            np.array([100]), np.array([[50, 62, 40]]), np.array([[1, 0, 15]]), np.array([[1, 12, 5]])
        ),
        order=np.array([1, 0, 2]),
        ensemble=[1, 2],
        averaged=[0, 2],
        template_weights=[1.5, 0.5],
        train_accuracy=[0.62, 0.7],
        val_accuracy={"active": 0.4, "average": 0.5, "weighted": 0.55, "ensemble": 0.6},
        kind="ensemble",
        weights=np.eye(3, dtype=np.float32),
    )
    return replace(whole, **values)


OFFERED = [
    Candidate("a {classname}.", ["photo", "more"], [["a x."]]),
    Candidate(OWN_SENTENCES, ["scenes"], [["x!"]]),
    Candidate("the {classname}.", ["more"], [["the x."]]),
]


def test_candidates_are_listed_best_first_with_p_values_corrected_over_all_of_them() -> None:
    rows = search.candidate_rows(OFFERED, selected())
    assert [(row["template"], row["sets"]) for row in rows] == [
        ("all of scenes", ["scenes"]),
        ("a {classname}.", ["photo", "more"]),
        ("the {classname}.", ["more"]),
    ]
    assert [row["accuracy"] for row in rows] == [0.62, 0.5, 0.4]
    assert [row["difference"] for row in rows] == pytest.approx([0.12, 0, -0.1])
    alone = [signs.mcnemar_exact(0, 12), 1.0, signs.mcnemar_exact(15, 5)]
    assert [row["p_holm"] for row in rows] == pytest.approx([3 * alone[0], 1.0, 2 * alone[2]])


def test_the_bars_are_the_best_candidates_in_points_with_their_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "SHOWN", 2)
    rows = search.plot_rows(OFFERED, selected())
    assert [(row["template"], row["set"]) for row in rows] == [
        ("all of scenes", "scenes"),
        ("a {classname}.", "photo"),
    ]
    assert [row["accuracy"] for row in rows] == [0.62, 0.5]
    assert [row["points"] for row in rows] == pytest.approx([12, 0])
    expected = compare.paired(np.arange(100) < 50, np.arange(100) < 62)
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((100 * expected.low, 100 * expected.high))
    assert 0 < rows[0]["low"] < 12 < rows[0]["high"]


def test_the_gain_of_one_of_several_candidates_is_a_share_of_the_images() -> None:
    assert selected().singles.gains("accuracy").tolist() == pytest.approx([0, 0.12, -0.1])


def test_optimism_is_what_train_promised_and_test_did_not_keep() -> None:
    assert search.Gains(train=0.05, val=0.04, test=0.02).optimism == pytest.approx(0.03)
    assert search.Gains(train=0.01, val=0.0, test=0.02).optimism == pytest.approx(-0.01)


def test_the_chosen_classifier_has_a_name_and_members() -> None:
    assert search.name_of(selected()) == "the ensemble of 2 templates"
    assert selected().members == [1, 2]
    assert search.name_of(selected(ensemble=[1])) == "the best single template"
    assert search.name_of(selected(kind="average")) == "the plain average of 2 templates"
    assert selected(kind="average").members == [0, 2]
    assert search.name_of(selected(kind="weighted")) == "the weighted average of 2 templates"
    assert selected(kind="weighted").members == [0, 2]


def test_by_balanced_accuracy_rows_and_bars_are_of_it() -> None:
    """Two classes of 90 and 10: the first gets 45 and 5 right, the second 58 and 4, as by hand."""
    singles = counting.Tally(
        images=np.array([90, 10]),
        hits=np.array([[45, 58, 40], [5, 4, 0]]),
        only_reference=np.array([[1, 0, 10], [0, 1, 5]]),
        only_candidate=np.array([[1, 13, 5], [0, 0, 0]]),
    )
    chosen = selected(by="balanced_accuracy", singles=singles, order=np.array([1, 0, 2]))
    rows = search.candidate_rows(OFFERED, chosen)
    assert [row["accuracy"] for row in rows] == pytest.approx([(58 / 90 + 0.4) / 2, 0.5, 20 / 90])
    assert [row["difference"] for row in rows] == pytest.approx([(13 / 90 - 0.1) / 2, 0, (-5 / 90 - 0.5) / 2])
    alone = sign_flip_bound(singles.class_sums)
    assert [row["p_holm"] for row in rows] == pytest.approx(
        [signs.holm(alone.tolist())[i] for i in (1, 0, 2)]
    )
    bars = search.plot_rows(OFFERED, chosen)
    assert [bar["points"] for bar in bars] == pytest.approx([100 * row["difference"] for row in rows])
    assert all(bar["low"] < bar["points"] < bar["high"] for bar in bars)
    plain = search.plot_rows(OFFERED, replace(chosen, by="accuracy"))
    assert plain[0]["points"] == pytest.approx(12)


# --- the stage -----------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "model": {"name": "tiny", "pretrained": None, "path": "data/none", "seed": 0, "allow_pickle": False},
    "prompts": {"active": "photo", "max_sentences": 50_000, "sets": {}},
    "search": {"by": "accuracy"},
}
KINDS = ("ensemble", "average", "weighted")  # what the search chooses among the files of `write_search`


def pool() -> PromptSet:
    return prompt_pool.expand(NAMES, dataset="made")


def write_search(folder: Path, *, kind: str = "ensemble", permute_test_labels: bool = False) -> None:
    """All that the stage reads: the files of `made`, prompts/photo.json, prompts/other.json and pool.h5.

    Args:
        kind: what val is to prefer. An average suffers from templates most of which mean the next class; it
            need not where they hardly differ from class to class, which shows without a label.
    """
    write_embeddings(folder, permute_test_labels=permute_test_labels)
    for name in ("photo", "other"):
        values = {"template_mode": "shared", "templates": [f"{name} {{classname}}"]}
        found = expand_set(name, values, class_names=NAMES, dataset="made")
        assert found is not None
        assert found.sentences == read_texts(folder / "texts" / f"{name}.h5").sentences
        files.write_json(folder / "prompts" / f"{name}.json", {**asdict(found), "class_names": NAMES})
    attributes = read_images(folder / "images").attributes
    found = pool()
    rng = np.random.default_rng(12)
    centres, labels = prototypes(), np.array(found.class_index, dtype=np.int64)
    most = (np.array(found.template_index) >= 20)[:, None] & (kind != "average")
    rows = np.where(most, centres[labels] + 1.2 * centres[(labels + 1) % 3], centres[labels])
    rows = unit(rows + 2 * rng.standard_normal(rows.shape) / np.sqrt(DIM))
    if kind == "weighted":
        rows = np.where(most, unit(centres.sum(axis=0) + 0.2 * centres[(labels + 1) % 3]), rows)
        rows = unit(rows + 0.01 * rng.standard_normal(rows.shape))  # no two are the same to a model
    write_texts(
        folder / "pool.h5",
        embeddings=rows,
        class_index=labels,
        sentences=found.sentences,
        attributes={key: attributes[key] for key in SHARED_FIELDS if key in attributes},
    )


def run(folder: Path, values: dict[str, Any] = SETTINGS) -> Path:
    """Run the stage on the files in `folder`; what it writes is under the folder returned."""
    inputs = [folder / name for name in ("images", "prompts", "texts", "pool.h5", "splits.h5")]
    outputs = ("ranking.json", "p.h5", "m.json", "details/m.json", "plots")
    with suppress(DataError):  # the search refuses for itself what the stage before has refused
        weigh(folder)
    rank_prompts.main(values, *inputs, folder / "head.h5", *(folder / "out" / name for name in outputs))
    return folder / "out"


def weigh(folder: Path) -> None:
    """What the search needs besides: head.h5, with the weights of all templates."""
    inputs = ("images", "prompts", "texts", "pool.h5", "splits.h5")
    outputs = ("p.h5", "m.json", "details/m.json", "plots")
    prompt_weighting.main(
        SETTINGS,
        *(folder / name for name in (*inputs, "head.h5")),
        *(folder / "weighted" / name for name in outputs),
    )


def read(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / name).read_text())
    return found


def numbers(folder: Path) -> dict[str, Any]:
    """Both files of the metrics."""
    return headline.read(folder / "out", "m")


def kind_of(folder: Path) -> str:
    """What val preferred; of equals what is there, then what took less from train."""
    accuracies = read(folder, "ranking.json")["val_accuracy"]
    kinds = ("active", "average", "weighted", "ensemble")
    return next(kind for kind in kinds if accuracies[kind] == max(accuracies.values()))


@pytest.fixture(scope="module", params=KINDS)
def finished(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    write_search(folder, kind=request.param)
    run(folder)
    assert kind_of(folder) == request.param
    return folder


class Naive:
    """The search's files by hand: embeddings looked up by sentence, classifiers of the sets as written."""

    def __init__(self, folder: Path) -> None:
        self.dataset = str(read_images(folder / "images").attributes["dataset"])
        self.images = read_images(folder / "images")
        rows = splits.read_splits(folder / "splits.h5", self.images.train.ids, dataset_digest="1")
        self.parts = {
            "train": self.images.train.part(rows.train),
            "val": self.images.train.part(rows.val),
            "test": (self.images.test.embeddings, self.images.test.labels),
        }
        self.embedding_of: dict[str, NDArray[np.float32]] = {}
        for path in (*sorted((folder / "texts").glob("*.h5")), folder / "pool.h5"):
            texts = read_texts(path)
            self.embedding_of.update(zip(texts.sentences, texts.embeddings, strict=True))
        self.reference = self.weights({"template_mode": "shared", "templates": ["photo {classname}"]})

    def weights(self, values: dict[str, Any]) -> NDArray[np.float32]:
        """The zero-shot classifier of a set in params.yaml's form."""
        found = expand_set("again", values, class_names=NAMES, dataset=self.dataset)
        assert found is not None
        rows = np.stack([self.embedding_of[text] for text in found.sentences])
        if found.weights is not None:
            rows = rows * np.array(found.weights, dtype=np.float32)[:, None]
        return zero_shot.class_weights(rows, np.array(found.class_index), class_names=NAMES)

    def predicted(self, part: str, weights: NDArray[np.float32]) -> NDArray[np.int64]:
        return np.asarray((self.parts[part][0] @ weights.T).argmax(axis=1))

    def right(self, part: str, weights: NDArray[np.float32]) -> NDArray[np.bool_]:
        return self.predicted(part, weights) == self.parts[part][1]

    def gain(self, part: str, weights: NDArray[np.float32]) -> float:
        return float(self.right(part, weights).mean() - self.right(part, self.reference).mean())


def test_the_metrics_are_those_of_every_method_and_more(finished: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / name for name in ("p.h5", "m.json", "details/m.json", "plots")]
    zero_shot_stage.main(SETTINGS, finished / "images", finished / "texts", finished / "splits.h5", *outputs)
    common, found = headline.read(tmp_path, "m"), numbers(finished)
    assert set(found) - set(common) == {"selected", "gain", "vs_active"}
    assert set(common) <= set(found)
    assert set(found["per_class"]) == set(NAMES)
    written = read_predictions(finished / "out" / "p.h5")
    assert written.attributes["method"] == "rank_prompts"
    assert found["accuracy"] == round(float((written.scores.argmax(axis=1) == written.labels).mean()), 5)


def test_the_set_as_written_is_the_classifier_that_was_measured(finished: Path) -> None:
    naive, data, found = Naive(finished), read(finished, "ranking.json"), numbers(finished)
    weights = naive.weights(data["set"])
    assert round(float(naive.right("test", weights).mean()), 5) == found["accuracy"]
    scores = read_predictions(finished / "out" / "p.h5").scores
    np.testing.assert_allclose(scores, 20 * naive.parts["test"][0] @ weights.T, atol=1e-4)
    assert found["selected"] == {"n_templates": len(data["set"]["templates"]), "n_candidates": 302}


def test_gains_are_differences_from_the_active_set_on_each_split(finished: Path) -> None:
    naive, data, found = Naive(finished), read(finished, "ranking.json"), numbers(finished)
    weights, gain = naive.weights(data["set"]), data["gain"]
    assert gain["optimism"] == gain["train"] - gain["test"]
    for part in ("train", "val", "test"):
        assert gain[part] == pytest.approx(naive.gain(part, weights))
        assert found["gain"][part] == round(gain[part], 5)
    assert found["gain"]["optimism"] == pytest.approx(
        found["gain"]["train"] - found["gain"]["test"], abs=1.1e-5
    )
    assert len({gain[part] for part in ("train", "val", "test")}) > 1
    assert data["n"] == {"train": 180, "test": 90}


def test_the_comparison_with_the_active_set_is_that_of_the_test_predictions(finished: Path) -> None:
    naive, data = Naive(finished), read(finished, "ranking.json")
    chosen = read_predictions(finished / "out" / "p.h5").scores.argmax(axis=1)
    active = naive.predicted("test", naive.reference)
    found = compare.compare(active, chosen, naive.parts["test"][1], class_names=NAMES)
    assert numbers(finished)["vs_active"] == {
        name: pytest.approx(getattr(found.overall, name), abs=6e-6)
        for name in ("difference", "low", "high", "p_value")
    }
    assert data["verdict"] == verdict(found, name_a="photo", name_b=data["chosen"])


def test_copies_among_the_val_images_are_no_evidence_of_their_own(tmp_path: Path) -> None:
    """All val images are one that the active set gets wrong: told so, val shows nothing; untold, it does."""
    write_search(tmp_path, kind="average")
    images, naive = read_images(tmp_path / "images"), Naive(tmp_path)
    val = splits.read_splits(tmp_path / "splits.h5", images.train.ids, dataset_digest="1").val
    everything = {"template_mode": "shared", "templates": pool().templates}
    right = naive.right("val", naive.weights(everything)) & ~naive.right("val", naive.reference)
    rows = np.arange(len(images.train.ids))
    rows[val] = val[right.argmax()]
    copies = np.arange(len(rows))
    copies[val] = val.min()
    embeddings, labels = images.train.part(rows)
    attributes = {key: value for key, value in images.attributes.items() if key not in container._DIGESTS}
    shown = []
    for told in (copies, None):
        train = Split(embeddings, labels, images.train.ids, told)
        write_images(tmp_path / "images", train=train, test=images.test, attributes=attributes)
        run(tmp_path)
        data = read(tmp_path, "ranking.json")
        assert data["gain"]["val"] == 1
        shown.append(data["shown"]["val"])
    assert shown == [False, True]


def test_every_candidate_is_counted_on_train_and_compared_with_the_active_set(finished: Path) -> None:
    naive, rows = Naive(finished), read(finished, "ranking.json")["candidates"]
    assert {row["template"] for row in rows} == {
        "photo {classname}",
        "other {classname}",
        *pool().templates,
    }
    known, p_values = naive.right("train", naive.reference), []
    for row in rows:
        values = {"template_mode": "shared", "templates": [row["template"]]}
        own = naive.right("train", naive.weights(values))
        assert row["accuracy"] == pytest.approx(own.mean())
        assert row["difference"] == pytest.approx(own.mean() - known.mean())
        p_values.append(signs.mcnemar_exact(int((known & ~own).sum()), int((own & ~known).sum())))
    assert [row["p_holm"] for row in rows] == pytest.approx(signs.holm(p_values))
    assert rows == sorted(rows, key=lambda row: -row["accuracy"])
    assert {row["template"]: row["sets"] for row in rows}["other {classname}"] == ["other"]
    assert sum(row["sets"] == [prompt_pool.NAME] for row in rows) == 300


def test_the_ensemble_is_written_member_by_member_with_what_each_added_on_train(finished: Path) -> None:
    naive, data = Naive(finished), read(finished, "ranking.json")
    members = [row["template"] for row in data["ensemble"]]
    assert set(members) <= {row["template"] for row in data["candidates"][: ranking.SHORTLIST]}
    assert len(members) > 1
    for i, row in enumerate(data["ensemble"]):
        weights = naive.weights({"template_mode": "shared", "templates": members[: i + 1]})
        assert row["train_accuracy"] == pytest.approx(naive.right("train", weights).mean())
    everything = naive.weights(
        {"template_mode": "shared", "templates": [row["template"] for row in data["candidates"]]}
    )
    accuracies = data["val_accuracy"]
    assert accuracies["average"] == pytest.approx(naive.right("val", everything).mean())
    assert accuracies["active"] == pytest.approx(naive.right("val", naive.reference).mean())
    assert accuracies["ensemble"] == pytest.approx(naive.right("val", weights).mean())
    if kind_of(finished) == "ensemble":
        assert data["chosen"] == f"the ensemble of {len(members)} templates"
        assert data["set"]["templates"] == members
    else:
        how = {"average": "plain", "weighted": "weighted"}[data["kind"]]
        assert data["chosen"] == f"the {how} average of 302 templates"
        assert sorted(data["set"]["templates"]) == sorted(row["template"] for row in data["candidates"])
        assert ("weights" in data["set"]) == (how == "weighted")


def test_the_weights_are_those_of_the_train_images_without_their_labels(tmp_path: Path) -> None:
    write_search(tmp_path, kind="weighted")
    run(tmp_path)
    naive, data = Naive(tmp_path), read(tmp_path, "ranking.json")
    templates, train = data["set"]["templates"], naive.parts["train"][0].astype(np.float64)
    logits = np.array(
        [20 * train @ naive.weights({"template_mode": "shared", "templates": [text]}).T for text in templates]
    )
    shares = np.exp((logits - logits.mean(axis=1, keepdims=True)).max(axis=2).mean(axis=1))
    expected = 302 * shares / shares.sum()
    np.testing.assert_allclose(data["set"]["weights"], expected, atol=2e-4)
    known = [text in pool().templates[20:] for text in templates]
    assert max(np.array(data["set"]["weights"])[known]) < min(
        np.array(data["set"]["weights"])[~np.array(known)]
    )
    other = tmp_path / "other"
    write_search(other, kind="weighted")
    rows = splits.read_splits(other / "splits.h5", naive.images.train.ids, dataset_digest="1").train
    labels = naive.images.train.labels.copy()
    labels[rows] = labels[rows][::-1]  # of train alone: val chooses
    edit_images(other / "images", {"train/labels": labels})
    run(other)
    again = read(other, "ranking.json")
    assert (again["kind"], again["set"]) == ("weighted", data["set"])
    assert again["candidates"] != data["candidates"]


def test_what_is_written_into_params_yaml_is_the_classifier_that_was_tested(
    finished: Path, tmp_path: Path
) -> None:
    """By way of everything that a set goes through: folded, dumped, loaded, expanded, embedded, read."""
    params_path = tmp_path / "params.yaml"
    params_path.write_text((ROOT / "params.yaml").read_text())
    chosen, naive = read(finished, "ranking.json")["set"], Naive(finished)
    save_set(params_path, "best", compact(chosen), class_names=NAMES, dataset="made")
    saved = params.load(params_path)["prompts"]["sets"]["best"]
    found = expand_set("best", saved, class_names=NAMES, dataset="made")
    assert found is not None
    again = PromptSet.from_json(json.loads(json.dumps(found.as_json())))
    assert again == found
    write_texts(
        tmp_path / "best.h5",
        embeddings=np.stack([naive.embedding_of[text] for text in found.sentences]),
        class_index=np.array(found.class_index, dtype=np.int64),
        sentences=found.sentences,
        attributes={key: value for key, value in naive.images.attributes.items() if key in SHARED_FIELDS},
        weights=None if found.weights is None else np.array(found.weights),
    )
    weights = zero_shot.classifier(read_texts(tmp_path / "best.h5"))
    tested = read_predictions(finished / "out" / "p.h5").scores
    np.testing.assert_allclose(
        zero_shot.logits(naive.parts["test"][0], weights, logit_scale=20.0), tested, atol=2e-5
    )
    lines = len(params_path.read_text().splitlines()) - len((ROOT / "params.yaml").read_text().splitlines())
    assert lines < 60  # hundreds of weights are a line


def keeping(folder: Path) -> Path:
    """Files of which val prefers nothing to the active set: it is the truth, and most of the pool astray."""
    write_search(folder)
    texts = read_texts(folder / "texts" / "photo.h5")
    own = {key: value for key, value in texts.attributes.items() if key not in container._DIGESTS}
    write_texts(
        folder / "texts" / "photo.h5",
        embeddings=prototypes(),
        class_index=texts.class_index,
        sentences=texts.sentences,
        attributes=own,
    )
    return folder


@pytest.mark.parametrize("by", ["accuracy", "balanced_accuracy"])
def test_the_active_set_is_kept_where_val_prefers_no_other(
    by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(keeping(tmp_path), {**SETTINGS, "search": {"by": by}})
    data, found = read(tmp_path, "ranking.json"), numbers(tmp_path)
    assert capsys.readouterr().out.splitlines()[-1] == data["verdict"]
    assert data["verdict"] == "The search keeps the active set photo: val prefers no other prompts."
    assert (kind_of(tmp_path), data["kind"]) == ("active", "active")
    assert (data["chosen"], data["set"]) == ("the active set photo", None)
    assert data["shown"] == {"val": False, "test": False}
    assert set(data["gain"].values()) == {0.0}
    assert found["vs_active"] == {"difference": 0, "low": 0, "high": 0, "p_value": 1}
    assert found["selected"] == {"n_templates": 0, "n_candidates": 302}
    outputs = [tmp_path / "zero_shot" / name for name in ("p.h5", "m.json", "details/m.json", "plots")]
    zero_shot_stage.main(SETTINGS, tmp_path / "images", tmp_path / "texts", tmp_path / "splits.h5", *outputs)
    kept, plain = (read_predictions(path / "p.h5") for path in (tmp_path / "out", tmp_path / "zero_shot"))
    assert kept.scores.tobytes() == plain.scores.tobytes()
    assert kept.attributes["temperature"] == plain.attributes["temperature"]
    assert summary(data, top=1)[-4:] == [
        data["verdict"],
        "",
        on_val_text(data),
        "Test was asked about no other prompts.",
    ]
    assert doubt(data) == ""


def test_the_active_set_is_not_kept_where_val_prefers_another(tmp_path: Path) -> None:
    """Or the test above would hold of a search that keeps it always."""
    write_search(tmp_path)
    run(tmp_path)
    assert read(tmp_path, "ranking.json")["kind"] == "ensemble"


def test_test_labels_choose_nothing(finished: Path, tmp_path: Path) -> None:
    write_search(tmp_path, kind=kind_of(finished), permute_test_labels=True)
    run(tmp_path)
    plain, permuted = read(finished, "ranking.json"), read(tmp_path, "ranking.json")
    for key in ("set", "ensemble", "candidates", "chosen", "val_accuracy", "active"):
        assert plain[key] == permuted[key]
    before, after = numbers(finished), numbers(tmp_path)
    assert before["selected"] == after["selected"]
    assert before["calibrated"]["temperature"] == after["calibrated"]["temperature"]
    for part in ("train", "val"):
        assert before["gain"][part] == after["gain"][part]
    bars = "out/plots/ranking.csv"
    assert (finished / bars).read_bytes() == (tmp_path / bars).read_bytes()
    scores = [read_predictions(f / "out" / "p.h5").scores.tobytes() for f in (finished, tmp_path)]
    assert scores[0] == scores[1]
    assert after["accuracy"] < 0.55 < before["accuracy"]  # the labels were other ones


def test_other_test_images_choose_nothing_and_other_train_labels_do(finished: Path, tmp_path: Path) -> None:
    plain = read(finished, "ranking.json")
    images = read_images(finished / "images")
    for name, key, values in (
        ("test", "test/embeddings", -images.test.embeddings),
        ("train", "train/labels", (images.train.labels + 1) % 3),
    ):
        write_search(tmp_path / name, kind=kind_of(finished))
        edit_images(tmp_path / name / "images", {key: values})
        run(tmp_path / name)
    test, train = read(tmp_path / "test", "ranking.json"), read(tmp_path / "train", "ranking.json")
    for key in ("set", "ensemble", "candidates", "val_accuracy"):
        assert plain[key] == test[key]
    assert test["gain"]["test"] != plain["gain"]["test"]
    assert plain["candidates"] != train["candidates"]
    assert plain["ensemble"] != train["ensemble"]


def write_scenes(folder: Path, *, noise: float) -> None:
    """One more set, in which each class has sentences of its own; a dataset that such a set may name."""
    edit_images(folder / "images", {}, dataset="imagefolder")
    sentences = {"cat": ["a cat asleep", "a cat awake"], "dog": ["a dog digs"], "eel": ["an [eel|eel!]"]}
    values = {"template_mode": "per_class", "dataset": "imagefolder", "sentences": sentences}
    found = expand_set("scenes", values, class_names=NAMES, dataset="imagefolder")
    assert found is not None
    files.write_json(folder / "prompts" / "scenes.json", {**asdict(found), "class_names": NAMES})
    attributes = read_texts(folder / "pool.h5").attributes
    off = noise * np.random.default_rng(3).standard_normal((len(found.sentences), DIM)) / np.sqrt(DIM)
    write_texts(
        folder / "texts" / "scenes.h5",
        embeddings=unit(prototypes()[found.class_index] + off),
        class_index=np.array(found.class_index, dtype=np.int64),
        sentences=found.sentences,
        attributes={key: value for key, value in attributes.items() if key not in container._DIGESTS},
    )


@pytest.mark.parametrize("kind", ["ensemble", "average"])
def test_a_set_with_sentences_of_its_own_may_join_the_ensemble_and_is_no_part_of_the_average(
    kind: str, tmp_path: Path
) -> None:
    write_search(tmp_path, kind=kind)
    write_scenes(tmp_path, noise=0.2 if kind == "ensemble" else 8.0)
    run(tmp_path)
    assert kind_of(tmp_path) == kind
    naive, data, found = Naive(tmp_path), read(tmp_path, "ranking.json"), numbers(tmp_path)
    assert found["selected"]["n_candidates"] == 303
    right = naive.right("test", naive.weights(data["set"]))
    assert found["accuracy"] == round(float(right.mean()), 5)
    plain = [row["template"] for row in data["candidates"] if row["template"] != "all of scenes"]
    assert len(plain) == 302
    average = naive.weights({"template_mode": "shared", "templates": plain})
    assert data["val_accuracy"]["average"] == pytest.approx(naive.right("val", average).mean())
    if kind == "average":
        assert sorted(data["set"]["templates"]) == sorted(plain)
        assert data["chosen"] == "the plain average of 302 templates"
    else:
        assert data["ensemble"][0]["template"] == data["candidates"][0]["template"] == "all of scenes"
        assert (data["set"]["template_mode"], data["set"]["dataset"]) == ("per_class", "imagefolder")
        others = [row["template"] for row in data["ensemble"][1:]]
        assert data["set"]["sentences"]["eel"] == [
            "an eel",
            "an eel!",
            *(template.replace("{classname}", "eel") for template in others),
        ]


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        write_search(tmp_path / name)
        out = run(tmp_path / name)
        paths = sorted(path for path in out.rglob("*") if path.is_file())
        written.append({path.relative_to(out): path.read_bytes() for path in paths})
    assert written[0] == written[1]
    assert {str(path) for path in written[0]} >= {"ranking.json", "p.h5", "m.json", "plots/ranking.csv"}


def test_the_bar_plot_has_the_best_thirty_in_descending_order(finished: Path) -> None:
    with open(finished / "out" / "plots" / "ranking.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    ranked = read(finished, "ranking.json")["candidates"]
    assert len(rows) == 30 < len(ranked)
    assert [row["template"] for row in rows] == [row["template"] for row in ranked[:30]]
    accuracies = [float(row["accuracy"]) for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    for row, candidate in zip(rows, ranked, strict=False):
        assert row["set"] == candidate["sets"][0]
        assert float(row["accuracy"]) == pytest.approx(candidate["accuracy"], abs=6e-6)
        assert float(row["points"]) == pytest.approx(100 * candidate["difference"], abs=6e-6)
        assert float(row["low"]) <= float(row["points"]) <= float(row["high"])


def refused(folder: Path, values: dict[str, Any] = SETTINGS) -> DataError:
    with pytest.raises(DataError) as caught:
        run(folder, values)
    assert not (folder / "out").exists()
    return caught.value


def rewrite(path: Path, **changed: Any) -> None:
    """The same sentence embeddings with other attributes."""
    texts = read_texts(path)
    own = {key: value for key, value in texts.attributes.items() if key not in container._DIGESTS}
    write_texts(
        path,
        embeddings=texts.embeddings,
        class_index=texts.class_index,
        sentences=texts.sentences,
        attributes={**own, **changed},
    )


@pytest.mark.parametrize("field", ["name", "pretrained"])
def test_embeddings_of_another_model_than_params_yaml_asks_for_are_refused(
    field: str, tmp_path: Path
) -> None:
    write_search(tmp_path)
    assert "another" in refused(tmp_path, {**SETTINGS, "model": {**SETTINGS["model"], field: "another"}}).what
    run(tmp_path)  # and nothing else was wrong


@pytest.mark.parametrize("name", ["pool.h5", "texts/photo.h5", "texts/other.h5"])
@pytest.mark.parametrize(
    ("field", "value"),
    [("weights_sha256", "1"), ("class_names", '["dog","cat","eel"]'), ("logit_scale", 21.0)],
)
def test_sentences_of_another_model_are_refused_whichever_file_has_them(
    name: str, field: str, value: str | float, tmp_path: Path
) -> None:
    write_search(tmp_path)
    rewrite(tmp_path / name, **{field: value})
    assert f"{field} is" in refused(tmp_path).what


def test_a_template_of_the_pool_that_did_not_fit_the_model_is_not_offered(tmp_path: Path) -> None:
    write_search(tmp_path)
    path = tmp_path / "pool.h5"
    texts = read_texts(path)
    write_texts(
        path,
        embeddings=texts.embeddings[:-1],
        class_index=texts.class_index[:-1],
        sentences=texts.sentences[:-1],
        attributes={key: v for key, v in texts.attributes.items() if key not in container._DIGESTS},
    )
    run(tmp_path)
    rows = read(tmp_path, "ranking.json")["candidates"]
    assert len(rows) == 301
    assert pool().templates[-1] not in [row["template"] for row in rows]


def test_a_split_of_another_dataset_is_refused(tmp_path: Path) -> None:
    write_search(tmp_path)
    train = read_images(tmp_path / "images").train
    rows = splits.read_splits(tmp_path / "splits.h5", train.ids, dataset_digest="1")
    splits.write_splits(tmp_path / "splits.h5", train.ids, rows, attributes={"dataset_digest": "2"})
    assert "another dataset" in refused(tmp_path).what


def test_an_active_set_without_embeddings_is_named(tmp_path: Path) -> None:
    write_search(tmp_path)
    assert "absent" in str(
        refused(tmp_path, {**SETTINGS, "prompts": {"active": "absent", "max_sentences": 50_000, "sets": {}}})
    )


def test_another_active_set_is_another_reference_and_ranks_the_same(finished: Path, tmp_path: Path) -> None:
    write_search(tmp_path, kind=kind_of(finished))
    run(tmp_path, {**SETTINGS, "prompts": {"active": "other", "max_sentences": 50_000, "sets": {}}})
    photo, other = read(finished, "ranking.json"), read(tmp_path, "ranking.json")
    assert (photo["active"], other["active"]) == ("photo", "other")
    assert photo["set"] == other["set"]
    assert [row["accuracy"] for row in photo["candidates"]] == [
        row["accuracy"] for row in other["candidates"]
    ]
    by_name = {row["template"]: row["difference"] for row in other["candidates"]}
    assert by_name["other {classname}"] == 0
    assert by_name["photo {classname}"] != 0


# --- the pool's stage ----------------------------------------------------------------------------


def test_the_pool_as_its_stage_embeds_it_has_every_sentence_of_every_candidate(
    tiny_clip: Path, tmp_path: Path
) -> None:
    weights = files.file_sha256(tiny_clip / WEIGHTS_FILE)
    config = config_sha256(tiny_clip)
    description = ModelDescription("m", "", "x", "", weights, config, {}, 32, 10.0, [])
    description.write(tmp_path / "model.json")
    names = ["sea_lion", "eel"]
    files.write_json(tmp_path / "classes.json", {"class_names": names, "dataset": "imagefolder"})
    embed = {"device": "cpu", "precision": "fp32", "batch_size": 8, "workers": None, "storage": "float32"}
    path = tmp_path / "pool.h5"
    embed_pool.main({"embed": embed}, tmp_path / "classes.json", tiny_clip, tmp_path / "model.json", path)

    texts = read_texts(path)
    expected = prompt_pool.expand(names, dataset="imagefolder")
    assert texts.sentences == expected.sentences
    assert texts.class_index.tolist() == expected.class_index
    assert texts.class_names == names
    assert texts.attributes["weights_sha256"] == weights
    assert texts.attributes["logit_scale"] == 10.0
    picked = np.random.default_rng(0).permutation(len(texts.sentences))[:20]
    alone = SentenceEmbedder(description, tiny_clip, EMBED).embed_rows([texts.sentences[i] for i in picked])
    np.testing.assert_allclose(texts.embeddings[picked], alone, atol=1e-6)

    offered = candidates.collect([expected], num_classes=2)
    embedding_of = dict(zip(texts.sentences, texts.embeddings, strict=True))
    assert candidates.sums(offered, embedding_of).shape == (300, 2, 32)


# --- the summary ---------------------------------------------------------------------------------


def told(**values: Any) -> dict[str, Any]:
    """A small `data/ranking.json`."""
    return {
        "active": "photo",
        "chosen": "the ensemble of 2 templates",
        "verdict": "it is better, by a lot.",
        "n": {"train": 45_000, "test": 10_000},
        "kind": "ensemble",
        "by": "accuracy",
        "shown": {"val": True, "test": True},
        "val_accuracy": {"active": 0.905, "average": 0.9, "weighted": 0.903, "ensemble": 0.91},
        "gain": {"train": 0.0123, "val": 0.01, "test": -0.0045, "optimism": 0.0168},
        "set": {"template_mode": "shared", "templates": ["one {classname}.", "two {classname}."]},
        "candidates": [
            {
                "template": f"number {i} {{classname}}",
                "sets": ["photo", "wide"] if i == 0 else ["pool"],
                "accuracy": 0.9 - i / 100,
                "difference": 0.02 - i / 100,
                "p_holm": [0.00001, 0.0321, 1.0, 1.0][i],
            }
            for i in range(4)
        ],
        **values,
    }


def test_the_summary_shows_the_best_templates_and_no_more_than_asked_for() -> None:
    lines = summary(told(), top=2)
    rows = [line for line in lines if line.startswith("| number")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells == [
        ["number 0 {classname}", "photo, wide", "0.9000", "+2.00", "< 0.0001"],
        ["number 1 {classname}", "pool", "0.8900", "+1.00", "0.0321"],
    ]
    assert lines[0] == "4 single templates on 45,000 train images:"
    assert any("points over photo" in line for line in lines)
    assert any("Holm" in line and "against photo" in line for line in lines)
    assert len([line for line in summary(told(), top=99) if line.startswith("| number")]) == 4


def test_the_summary_ends_with_what_was_chosen_the_verdict_and_the_gains() -> None:
    lines = summary(told(), top=1)
    at = lines.index("Chosen: the ensemble of 2 templates")
    assert lines[at + 1 : at + 4] == ["  one {classname}.", "  two {classname}.", ""]
    assert lines[-3] == (
        "On val: the greedy ensemble 0.9100, the plain average 0.9000, the weighted average 0.9030, "
        "photo 0.9050."
    )
    assert lines[-2] == "On test, asked once: it is better, by a lot."
    assert lines[-1] == gains_text(told())
    assert gains_text(told()) == (
        "Gain over photo: +1.23 points on the 45,000 train images that chose it, "
        "-0.45 on the 10,000 test images; optimism +1.68."
    )


def test_the_summary_says_by_what_the_search_went() -> None:
    lines = summary(told(by="balanced_accuracy"), top=1)
    assert any("| train, balanced |" in line for line in lines)
    at_most = "p: at most, by Hoeffding's bound on flipped signs, against photo, "
    assert at_most + "Holm-corrected over all of them." in lines
    assert any(line.startswith("Balanced accuracy on val: the greedy ensemble 0.9100") for line in lines)
    assert lines[-1].startswith("Gain in balanced accuracy over photo: +1.23 points")


def test_no_luck_is_spoken_of_where_nothing_was_chosen_on_train() -> None:
    assert gains_text(told(kind="average")) == (
        "Gain over photo: +1.23 points on the 45,000 train images, to whose labels a plain average is not "
        "fitted, -0.45 on the 10,000 test images."
    )


def test_a_weighted_average_is_told_the_heaviest_first_and_knows_no_labels() -> None:
    values = {
        "template_mode": "shared",
        "templates": ["one {classname}.", "two {classname}."],
        "weights": [0.25, 1.75],
    }
    weighted = told(kind="weighted", set=values)
    assert chosen_templates(weighted) == ["1.75 × two {classname}.", "0.25 × one {classname}."]
    assert "train images, to whose labels a weighted average is not fitted, -0.45" in gains_text(weighted)


def test_two_bars_of_one_text_can_be_told_apart() -> None:
    same = [Candidate("a {classname}.", [name], [["a cat."], ["a dog."]]) for name in ("mine", "yours")]
    other = Candidate("one {classname}.", ["mine"], [["one cat."], ["one dog."]])
    shown = [row["template"] for row in search.plot_rows([*same, other], selected())]
    assert sorted(shown) == ["a {classname}. (mine)", "a {classname}. (yours)", "one {classname}."]


@pytest.mark.parametrize(("num_members", "more"), [(12, None), (13, 1), (302, 290)])
def test_a_long_list_of_members_is_cut_and_says_by_how_many(num_members: int, more: int | None) -> None:
    templates = [f"<{i}> {{classname}}" for i in range(num_members)]
    lines = summary(told(set={"template_mode": "shared", "templates": templates}), top=1)
    assert [line for line in lines if line.startswith("  <")] == [f"  {text}" for text in templates[:12]]
    assert [line for line in lines if "more" in line] == ([f"  … and {more} more"] if more else [])


def uneven(folder: Path) -> None:
    """Leave 5, 30 and 12 test images of the three classes."""
    images = read_images(folder / "images")
    labels = images.test.labels
    kept = np.sort(np.concatenate([np.flatnonzero(labels == c)[:n] for c, n in enumerate((5, 30, 12))]))
    test = Split(images.test.embeddings[kept], labels[kept], [images.test.ids[row] for row in kept])
    kept_fields = {*SHARED_FIELDS, "dataset", "dataset_digest", "max_per_class"}
    attributes = {key: value for key, value in images.attributes.items() if key in kept_fields}
    write_images(folder / "images", train=images.train, test=test, attributes=attributes)


def test_the_stage_asks_test_in_the_measure_that_params_yaml_names(tmp_path: Path) -> None:
    write_search(tmp_path)
    uneven(tmp_path)
    gains = {}
    for by in ("accuracy", "balanced_accuracy"):
        run(tmp_path, {**SETTINGS, "search": {"by": by}})
        data, naive = read(tmp_path, "ranking.json"), Naive(tmp_path)
        embeddings, labels = naive.parts["test"]
        active, chosen = (
            (embeddings @ weights.T).argmax(axis=1) == labels
            for weights in (naive.reference, naive.weights(data["set"]))
        )
        plain = float(chosen.mean() - active.mean())
        fair = float(np.mean([chosen[labels == c].mean() - active[labels == c].mean() for c in range(3)]))
        gains[by] = {"accuracy": plain, "balanced_accuracy": fair}[by]
        assert data["by"] == by
        assert data["gain"]["test"] == pytest.approx(gains[by])
        assert numbers(tmp_path)["vs_active"]["difference"] == pytest.approx(gains[by], abs=1e-5)
        assert (" in balanced accuracy: " in data["verdict"]) == (by == "balanced_accuracy")
        shown = numbers(tmp_path)["vs_active"]
        assert data["shown"]["test"] == (shown["p_value"] < signs.LEVEL and shown["difference"] > 0)
    assert gains["accuracy"] != pytest.approx(gains["balanced_accuracy"], abs=0.001)
    with pytest.raises(ConfigError, match=r"search\.by is 'macro'"):
        run(tmp_path, {**SETTINGS, "search": {"by": "macro"}})


def test_a_set_with_sentences_of_its_own_is_shown_class_by_class() -> None:
    values = {
        "template_mode": "per_class",
        "dataset": "cifar10",
        "sentences": {"cat": ["a cat.", "a cat on a mat."], "sea_lion": ["a sea lion."]},
    }
    shown = ["cat: a cat. / a cat on a mat.", "sea_lion: a sea lion."]
    assert chosen_templates(told(set=values)) == shown
    lines = summary(told(set=values), top=1)
    at = lines.index("Chosen: the ensemble of 2 templates")
    assert lines[at + 1 : at + 4] == [*(f"  {text}" for text in shown), ""]


def test_templates_that_say_the_same_of_two_classes_to_the_model_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the pool, whose wording is nobody's; where a whole set does so, the stage ends with both names."""
    write_search(tmp_path)
    texts = read_texts(tmp_path / "pool.h5")
    rows, index = texts.embeddings.copy(), np.array(pool().template_index)
    for template in range(5):  # as when a tokenizer lowers Turkey to turkey
        cat, dog, _ = np.flatnonzero(index == template)
        rows[dog] = rows[cat]
    attributes = {key: texts.attributes[key] for key in SHARED_FIELDS if key in texts.attributes}
    write = partial(
        write_texts, class_index=texts.class_index, sentences=texts.sentences, attributes=attributes
    )
    write(tmp_path / "pool.h5", embeddings=rows)
    run(tmp_path)
    said = capsys.readouterr().out
    assert " train images; 5 left out, which say the same of two classes to this model\n" in said
    ranked = {row["template"] for row in read(tmp_path, "ranking.json")["candidates"]}
    assert ranked == {"photo {classname}", "other {classname}", *pool().templates[5:]}
    active = read_texts(tmp_path / "texts" / "photo.h5")
    write_texts(
        tmp_path / "texts" / "photo.h5",
        embeddings=active.embeddings[[0, 0, 2]],
        class_index=active.class_index,
        sentences=active.sentences,
        attributes={**attributes, "prompt_set": "photo"},
    )
    with pytest.raises(ConfigError, match="two classes are the same: 'cat' and 'dog'"):
        run(tmp_path)
