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
    assert said.use == "Use zero-shot with photo: right on 66.7 % [61.7, 71.7] of the test images."
    assert said.sure[0] == "No method that learns from train images is shown to be better."
    assert said.sure[1].startswith("Most accurate here, which may be chance, is GDA: +1.0 points [")
    assert said.sure[1].endswith(", p = 1.0000.")
    assert len(said.sure) == 2


def test_the_plainest_of_those_that_none_beats_is_to_be_used_though_another_is_ahead(facts: Facts) -> None:
    said = headline(with_right(facts, zero_shot=200, gda=250, mlp_probe=253))
    assert said.use.startswith("Use GDA: right on 83.3 % ")
    better, ahead, without = said.sure
    assert better.startswith("GDA is better than zero-shot with photo: +16.7 points [")
    assert "p < 0.0001 after Holm's correction." in better
    assert ahead.startswith("Most accurate here, which may be chance, is MLP probe: +1.0 points")
    assert without == "Without train images to learn from: zero-shot with photo, 66.7 % [61.7, 71.7]."


def test_a_plain_method_that_is_beaten_is_not_to_be_used(facts: Facts) -> None:
    said = headline(with_right(facts, zero_shot=200, gda=250, mlp_probe=290))
    assert said.use.startswith("Use MLP probe: ")
    assert not any("may be chance" in sentence for sentence in said.sure)


def test_all_pairs_are_corrected_together_since_the_leader_was_picked_by_its_lead(facts: Facts) -> None:
    """A lead whose own p is 0.03 is none among the 21 pairs, nor among the six with the leader."""
    said = headline(with_right(facts, zero_shot=200, projection=206))
    assert said.use.startswith("Use zero-shot with photo")
    assert "Holm-corrected over the 21" in said.how


def test_the_page_begins_with_it(facts: Facts) -> None:
    from clipcifar.render.pictures import Pictures
    from clipcifar.report import page

    html = page.render(facts, Pictures(facts.dataset.test, Path()), split="s")
    said = headline(facts)
    assert html.split("<main>\n")[1].startswith('<section aria-labelledby="use"><h2 id="use">')
    assert f'<p class="use">{said.use}</p>' in html
