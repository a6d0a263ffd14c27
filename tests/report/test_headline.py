"""What the page says first: the plainest method that none is shown to beat, and how sure that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clipcifar.evaluation.names import METHODS
from clipcifar.report.facts import Facts
from clipcifar.report.headline import headline
from tests.support import finished_run

N = 300


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
    assert none == "No other method is shown to be better."
    assert ahead.startswith("Ahead on these images, which may be chance: GDA, +1.0 points [")
    assert ahead.endswith(", p = 1.0000 after Holm's correction.")


def test_where_no_method_is_even_ahead_none_is_named(facts: Facts) -> None:
    assert headline(with_right(facts, zero_shot=200)).sure == ["No other method is shown to be better."]


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
        shown = {item.name: item for item in run.trained_differences}["linear_probe"].p_holm < 0.05
        assert headline(run).use.startswith("Use linear probe" if shown else "Use zero-shot with photo")
    assert shown


def test_prompts_that_test_shows_to_be_better_are_the_plainest(facts: Facts) -> None:
    ranking = {**facts.ranking, "shown": {"val": True, "test": True}}
    run = replace(with_right(facts, zero_shot=200, rank_prompts=230), ranking=ranking)
    assert headline(run).use.startswith("Use zero-shot with best prompts: 76.7 %")
    assert headline(replace(run, ranking={**ranking, **finished_run.KEPT})).use.startswith(
        "Use zero-shot with ph"
    )


def test_the_page_begins_with_it(facts: Facts) -> None:
    from clipcifar.render.pictures import Pictures
    from clipcifar.report import page

    html = page.render(facts, Pictures(facts.dataset.test, Path()), split="s")
    said = headline(facts)
    assert html.split("<main>\n")[1].startswith('<section aria-labelledby="use"><h2 id="use">')
    assert f'<p class="use">{said.use}</p>' in html
