"""What the page says first: the plainest method that none is shown to beat, and how sure that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcifar.evaluation.names import METHODS
from clipcifar.report import verdicts
from clipcifar.report.facts import Facts
from clipcifar.report.headline import HOW, headline
from tests.support import finished_run

N = 300
NONE = "None of the other methods is shown to be better than zero-shot with photo."


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    folder = tmp_path_factory.mktemp("run")
    finished_run.write(folder, n=N)
    return finished_run.read(folder)


def with_right(facts: Facts, **right: int) -> Facts:
    """The run as it is where each method is right on its first images, `zero_shot` on so many unless told."""
    labels, predictions, metrics = facts.sets.labels, {}, {}
    for method in METHODS:
        n = right.get(method, right["zero_shot"])
        said = np.where(np.arange(N) < n, labels, (labels + 1) % 3)
        scores = np.eye(3, dtype=np.float32)[said]
        predictions[method] = replace(facts.predictions[method], scores=scores)
        interval = {"low": n / N - 0.05, "high": n / N + 0.05}
        metrics[method] = {**facts.metrics[method], "accuracy": n / N, "accuracy_ci95": interval}
    return replace(facts, predictions=predictions, metrics=metrics)


def test_where_nothing_is_shown_to_be_better_zero_shot_is_to_be_used(facts: Facts) -> None:
    said = headline(with_right(facts, zero_shot=200, gda=203))
    assert said.use == "Use zero-shot with photo: 66.7 % [61.7, 71.7] of test images right."
    none, ahead = said.sure
    assert none == NONE
    assert ahead.startswith("Ahead on these images, which may be chance: GDA, +1.0 points [")
    assert ahead.endswith(", p = 1.0000 after Holm's correction.")


def test_where_no_method_is_even_ahead_none_is_named(facts: Facts) -> None:
    assert headline(with_right(facts, zero_shot=200)).sure == [NONE]


def test_the_plainest_of_those_that_are_better_and_not_beaten_is_to_be_used(facts: Facts) -> None:
    said = headline(with_right(facts, zero_shot=200, gda=250, mlp_probe=253))
    assert said.use.startswith("Use GDA: 83.3 % ")
    better, equal, without = said.sure
    assert better.startswith("GDA is better than zero-shot: +16.7 points [")
    assert equal == "No difference is shown between it and MLP probe."
    assert (
        without
        == "Without images to learn from: zero-shot with photo: 66.7 % [61.7, 71.7] of test images right."
    )


def test_a_plain_method_that_is_beaten_is_not_to_be_used(facts: Facts) -> None:
    said = headline(with_right(facts, zero_shot=200, gda=250, linear_probe=247, mlp_probe=290))
    assert said.use.startswith("Use MLP probe: ")
    assert not any("No difference" in sentence for sentence in said.sure)


def test_the_headline_is_never_of_another_mind_than_the_verdicts(facts: Facts) -> None:
    """What stands below as better is not called chance above, whatever else is compared."""
    for n in range(200, 220):
        run = with_right(facts, zero_shot=200, linear_probe=n)
        shown = {item.name: item for item in run.method_differences}["linear_probe"].p_holm < 0.05
        assert headline(run).use.startswith("Use linear probe" if shown else "Use zero-shot with photo")
    assert shown


def test_prompts_that_test_shows_to_be_better_are_the_plainest(facts: Facts) -> None:
    run = with_right(facts, zero_shot=200, rank_prompts=230)
    said = headline(run)
    assert said.use.startswith("Use zero-shot with best prompts: 76.7 %")
    assert said.sure[0].startswith("zero-shot with best prompts is better than zero-shot: +10.0 points [")
    kept = replace(run, ranking={**facts.ranking, **finished_run.KEPT})
    assert headline(kept).use.startswith("Use zero-shot with photo")


def test_prompts_that_are_better_in_the_measure_of_the_search_alone_are_not_to_be_used(facts: Facts) -> None:
    ranking = {**facts.ranking, "by": "balanced_accuracy", "shown": {"val": True, "test": True}}
    run = replace(with_right(facts, zero_shot=200, rank_prompts=170), ranking=ranking)
    assert headline(run).use.startswith("Use zero-shot with photo: 66.7 %")


def test_the_best_prompts_are_corrected_with_the_other_methods(facts: Facts) -> None:
    """Seven images won and none lost have p = 0.0156 alone and six times that among six methods."""
    ranking = {**facts.ranking, "shown": {"val": True, "test": True}}
    run = replace(with_right(facts, zero_shot=200, rank_prompts=207), ranking=ranking)
    said = headline(run)
    assert said.use.startswith("Use zero-shot with photo")
    assert said.sure[1].startswith(
        "Ahead on these images, which may be chance: zero-shot with best prompts, +"
    )
    assert said.sure[1].endswith(", p = 0.0938 after Holm's correction.")
    below = verdicts.of_methods(run.method_differences, reference="zero_shot")
    assert below[0].startswith("No difference shown between zero-shot with best prompts and zero-shot: +2.3")
    assert below[0].endswith(", p = 0.0938 after Holm's correction.")
    assert "compared alone" in verdicts.of_ranking(ranking)


def with_set_right(facts: Facts, **right: int) -> Facts:
    """The run as it is where each prompt set is right on its first images, `photo` on 200 unless told."""
    labels = facts.sets.labels
    told = {name: right.get(name, 200) for name in facts.sets.scores}
    said = {name: np.where(np.arange(N) < n, labels, (labels + 1) % 3) for name, n in told.items()}
    scores = {name: np.eye(3, dtype=np.float32)[predicted] for name, predicted in said.items()}
    return replace(facts, sets=replace(facts.sets, scores=scores))


@pytest.mark.parametrize("gda", [200, 250])
def test_sets_that_are_shown_to_be_better_are_named_whatever_the_method(facts: Facts, gda: int) -> None:
    run = with_right(with_set_right(facts, scenes=260, wide=230), zero_shot=200, gda=gda)
    assert headline(run).sure[-1] == (
        "Other prompts are shown to be better than photo, Holm-corrected over the sets: scenes +20.0 points, "
        "wide +10.0 points. prompts.active in params.yaml takes such a set; "
        "choose it by its accuracy on train."
    )
    neither = with_right(with_set_right(facts, scenes=203, wide=140), zero_shot=200, gda=gda)
    assert not any("prompts.active" in sentence for sentence in headline(neither).sure)


def test_of_very_many_better_sets_some_are_named(facts: Facts) -> None:
    scores = with_set_right(facts, scenes=290).sets.scores
    many = {"photo": scores["photo"], **{f"set{i}": scores["scenes"] for i in range(9)}}
    run = replace(with_right(facts, zero_shot=200), sets=replace(facts.sets, scores=many))
    assert "set4 +30.0 points, set5 +30.0 points and 3 more. " in headline(run).sure[-1]


def test_of_a_head_trained_from_seeds_it_is_said_what_its_p_value_covers(facts: Facts) -> None:
    covers = "P values of MLP probe cover other test images, not retraining."
    assert covers in headline(with_right(facts, zero_shot=200, mlp_probe=250)).sure
    assert covers not in headline(with_right(facts, zero_shot=200, gda=250, mlp_probe=250)).sure


def test_it_is_said_that_the_choice_was_made_on_the_images_of_its_accuracy() -> None:
    assert "made on the same test images that its accuracy is given on: where they are few" in HOW


def test_the_page_begins_with_it(facts: Facts) -> None:
    from clipcifar.render.pictures import Pictures
    from clipcifar.report import page

    html = page.render(facts, Pictures(facts.dataset.test, Path()), split="s")
    said = headline(facts)
    assert html.split("<main>\n")[1].startswith('<section aria-labelledby="use"><h2 id="use">')
    assert f'<p class="use">{said.use}</p>' in html
