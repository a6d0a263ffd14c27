"""The page of the corruption study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.verdict import statement
from clipcifar.evaluation.words import p_text, points
from clipcifar.render import charts, study
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Chart, Gallery, Matrix, Section, Table
from clipcifar.store.dataset import PreparedSplit
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.studies.corruptions.judge import naming_page
from clipcifar.studies.corruptions.judge.robustness import CLEAN, Share
from clipcifar.studies.corruptions.judge.study import REFERENCE, Outcome
from clipcifar.studies.corruptions.store import GENERATED

COMMANDS = [
    "clipcifar study corruptions",
    "dvc metrics diff --targets data/studies/corruptions/metrics.json",
    "dvc plots show data/studies/corruptions/zero_shot.csv -x accuracy -y corruption"
    " --template bar_horizontal_sorted",
]
_SMALL = 64  # pixels up to which an example is enlarged without smoothing


def render(outcome: Outcome, images: ImageEmbeddings, *, active: str) -> str:
    """The page as HTML.

    Args:
        outcome: what was found.
        images: the uncorrupted embeddings, for the provenance.
        active: the active prompt set.
    """
    return study.render(
        title="Robustness to corruption",
        question=_question(outcome),
        verdicts=[*_method_verdicts(outcome), *naming_page.verdicts(outcome.naming, active)],
        sections=[
            _methods(outcome),
            _severities(outcome),
            naming_page.section(outcome.naming, active),
            _examples(outcome),
        ],
        attributes={**outcome.attributes, "max_per_class": images.attributes["max_per_class"]},
        commands=COMMANDS,
    )


def _question(outcome: Outcome) -> str:
    kinds = f"{len(outcome.names)} corruptions at severities {', '.join(map(str, outcome.severities))}"
    images = f"{len(outcome.rows):,} test images under {kinds}"
    if outcome.source == GENERATED:
        source = (
            "The images are generated with Pillow, NumPy and SciPy, at strengths of our own: "
            "they are not CIFAR-10-C, and no number here can be set beside one published for it."
        )
    else:
        source = f"The images are those of {outcome.source}."
    return f"What is left of each method, trained or written for clean images, on {images}? {source}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _with_interval(share: Share) -> str:
    return f"{_percent(share.value)} [{_percent(share.low)}, {_percent(share.high)}]"


def _method_verdicts(outcome: Outcome) -> list[str]:
    found = outcome.robustness[REFERENCE]
    means = found.accuracy.mean(axis=1)
    worst, best = int(means.argmin()), int(means.argmax())
    sentences = [
        f"Zero-shot is right on {_with_interval(found.mean)} % of the corrupted images and on "
        f"{_percent(found.clean.value)} % of the clean ones: it loses {_with_interval(found.drop)} % of its "
        f"accuracy, most under {naming_page.spoken(outcome.names[worst])} (to {_percent(means[worst])} %) "
        f"and least under {naming_page.spoken(outcome.names[best])} (to {_percent(means[best])} %).",
    ]
    for item in outcome.versus:
        said = statement(item.paired, item.p_holm, name_a=METHODS[REFERENCE], name_b=METHODS[item.name])
        sentences.append(f"In mean corruption accuracy {said}.")
    return sentences


def _shaded(values: Sequence[float]) -> list[tuple[str, str]]:
    return [(f"{value:.3f}", f"{100 * value:.0f}") for value in values]


def _methods(outcome: Outcome) -> Section:
    found = outcome.robustness
    versus = {item.name: item for item in outcome.versus}
    rows = []
    for method, item in found.items():
        against = versus.get(method)
        rows.append(
            [
                METHODS[method],
                _percent(item.clean.value),
                _with_interval(item.mean),
                _with_interval(item.drop),
                points(against.paired.difference) if against else "",
                p_text(against.p_holm) if against else "",
            ]
        )
    heat = [
        _shaded([item.clean.value, *item.accuracy.mean(axis=1), item.mean.value]) for item in found.values()
    ]
    names = [CLEAN, *map(naming_page.spoken, outcome.names), "mean"]
    return Section(
        "methods",
        "Methods",
        tables=[
            Table(
                "What each method keeps",
                [
                    "method",
                    "clean, %",
                    "mean under corruption, %",
                    "relative drop, %",
                    "points over zero-shot",
                    "p",
                ],
                rows,
                note="The mean is over corruptions of the mean over severities. Intervals resample images, "
                "since the same images recur in every corruption; p: exact paired randomisation test by "
                "image, Holm-corrected.",
            )
        ],
        matrices=[
            Matrix(
                "Accuracy by method and corruption",
                names,
                [METHODS[method] for method in found],
                [list(column) for column in zip(*heat, strict=True)],
                "Per cent right, the mean over severities; the more shade, the better.",
            )
        ],
    )


def _severities(outcome: Outcome) -> Section:
    reference = outcome.robustness[REFERENCE]
    series = {}
    for method, found in outcome.robustness.items():
        shares = [found.clean, *found.by_severity]
        parts = tuple([getattr(share, part) for share in shares] for part in ("value", "low", "high"))
        series[METHODS[method]] = ([0, *outcome.severities], *parts)
    heat = [_shaded([reference.clean.value, *row]) for row in reference.accuracy]
    return Section(
        "severities",
        "Severities",
        matrices=[
            Matrix(
                "Zero-shot by corruption and severity",
                [naming_page.spoken(name) for name in outcome.names],
                [CLEAN, *map(str, outcome.severities)],
                heat,
                "Per cent right; the more shade, the better.",
            )
        ],
        charts=[
            Chart(
                "The mean over corruptions",
                charts.curves(
                    series,  # type: ignore[arg-type]  # four lists each
                    name="severities",
                    description="Lines: mean accuracy over corruptions by severity, for every method",
                    x_label="severity (0: clean)",
                    y_label="accuracy",
                    x_ticks={step: str(step) for step in (0, *outcome.severities)},
                ),
                "95 % intervals, resampled by image.",
            )
        ],
    )


def _examples(outcome: Outcome) -> Section:
    shown = sorted({len(outcome.severities) // 2, len(outcome.severities) - 1})
    cards = []
    for name, examples in outcome.examples.items():
        n = len(examples)
        pictures = Pictures(PreparedSplit(examples, np.zeros(n, dtype=np.int64), [name] * n), Path())
        for step in shown:
            severity = f"severity {outcome.severities[step]}"
            alt = f"a test image under {naming_page.spoken(name)}, {severity}"
            cards.append(Card(pictures.data_uri(step), alt, naming_page.spoken(name), [severity]))
    small = max(next(iter(outcome.examples.values())).shape[1:3]) <= _SMALL
    return Section(
        "examples",
        "What the corruptions look like",
        galleries=[Gallery("One test image under each", cards, small=small)],
    )
