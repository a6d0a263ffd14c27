"""The page of the corruption study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipcifar.core.counts import count_of
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.words import p_text, points, with_interval
from clipcifar.render import charts, study
from clipcifar.render.cells import Cell, shade
from clipcifar.render.pictures import Card, Pictures
from clipcifar.render.study import Chart, Gallery, Matrix, Section, Table
from clipcifar.store.dataset import PreparedSplit
from clipcifar.store.embeddings import ImageEmbeddings
from clipcifar.studies.corruptions.images.generated import BORDER, LARGE, SMALL, described
from clipcifar.studies.corruptions.images.kinds import WHOSE, kind, short
from clipcifar.studies.corruptions.judge.findings import verdicts
from clipcifar.studies.corruptions.judge.naming import Naming, spoken
from clipcifar.studies.corruptions.judge.outcome import REFERENCE, Findings
from clipcifar.studies.corruptions.judge.robustness import CLEAN, percent, share_text
from clipcifar.studies.corruptions.store import GENERATED

COMMANDS = [
    "clipcifar study corruptions",
    "dvc metrics diff --targets data/studies/corruptions/metrics.json",
    "dvc plots show data/studies/corruptions/zero_shot.csv -x accuracy -y corruption"
    " --template bar_horizontal_sorted",
]
_SMALL = 64  # pixels up to which an example is enlarged without smoothing


def render(findings: Findings, images: ImageEmbeddings, *, active: str) -> str:
    """The page as HTML.

    Args:
        findings: of every classifier.
        images: the uncorrupted embeddings, for the provenance.
        active: the active prompt set.
    """
    return study.render(
        name="corruptions",
        title="Robustness to corruption",
        question=_question(findings),
        verdicts=verdicts(findings, active),
        sections=[
            _methods(findings),
            _severities(findings),
            _naming(findings.naming, active),
            _kinds(findings),
            _examples(findings, images.test.ids[findings.rows[0]]),
        ],
        attributes={**findings.attributes, "max_per_class": images.attributes["max_per_class"]},
        commands=COMMANDS,
    )


def _question(findings: Findings) -> str:
    at = "severity" if len(findings.severities) == 1 else "severities"
    kinds = (
        f"{count_of(len(findings.names), 'corruption')} at {at} {', '.join(map(str, findings.severities))}"
    )
    images = f"{count_of(len(findings.rows), 'test image')} under {kinds}"
    if findings.source == GENERATED:
        source = (
            "The images are generated, by operations and severities as published where that is said below: "
            "they are not CIFAR-10-C, and no number here can be set beside one published for it."
        )
    else:
        source = f"The images are those of {findings.source}."
    return f"What is left of each method, trained or written for clean images, on {images}? {source}"


def _shaded(values: Sequence[float]) -> list[Cell]:
    return [Cell(shade(value), f"{100 * value:.0f}") for value in values]


def _methods(findings: Findings) -> Section:
    kept = findings.robustness
    versus = {item.name: item for item in findings.versus}
    means = [short(key, len(rows)) for key, rows in findings.over.items()]
    header = ["method", "clean, %", *(f"{mean}, %" for mean in means), "relative drop, %"]
    header += ["points over zero-shot", "p"]
    rows = []
    for method, item in kept.items():
        against = versus.get(method)
        rows.append(
            [
                METHODS[method],
                percent(item.clean.value),
                *(share_text(over.mean) for over in item.over.values()),
                share_text(item.over[findings.first].drop),
                points(against.paired.difference) if against else "",
                p_text(against.p_holm) if against else "",
            ]
        )
    heat = [
        _shaded(
            [
                item.clean.value,
                *item.accuracy.mean(axis=1),
                *(over.mean.value for over in item.over.values()),
            ]
        )
        for item in kept.values()
    ]
    names = [CLEAN, *map(spoken, findings.names), *means]
    return Section(
        "methods",
        "Methods",
        tables=[
            Table(
                "What each method keeps",
                header,
                rows,
                note="A mean is over corruptions of the mean over severities; relative drop, points and p "
                f"are of that over {findings.said(findings.first)}. Intervals resample images, "
                "since the same images recur in every corruption; p: exact paired randomisation test by "
                "image, Holm-corrected. Published tables have errors, 100 minus these.",
            )
        ],
        matrices=[
            Matrix(
                "Accuracy by method and corruption",
                names,
                [METHODS[method] for method in kept],
                [list(column) for column in zip(*heat, strict=True)],
                "Per cent right, the mean over severities; the more shade, the better.",
            )
        ],
    )


def _severities(findings: Findings) -> Section:
    reference = findings.robustness[REFERENCE]
    series = {}
    for method, kept in findings.robustness.items():
        shares = [kept.clean, *kept.over[findings.first].by_severity]
        parts = ([getattr(share, part) for share in shares] for part in ("value", "low", "high"))
        series[METHODS[method]] = charts.Line([0, *findings.severities], *parts)
    heat = [_shaded([reference.clean.value, *row]) for row in reference.accuracy]
    return Section(
        "severities",
        "Severities",
        matrices=[
            Matrix(
                "Zero-shot by corruption and severity",
                [spoken(name) for name in findings.names],
                [CLEAN, *map(str, findings.severities)],
                heat,
                "Per cent right; the more shade, the better.",
            )
        ],
        charts=[
            Chart(
                f"The mean over {findings.said(findings.first)}",
                charts.curves(
                    series,
                    name="severities",
                    description="Lines: mean accuracy over corruptions by severity, for every method",
                    x_label="severity (0: clean)",
                    y_label="accuracy",
                    x_ticks={step: str(step) for step in (0, *findings.severities)},
                ),
                "95 % intervals, resampled by image.",
            )
        ],
    )


def _naming(comparisons: Sequence[Naming], active: str) -> Section:
    """Table and chart of every naming set against the active one."""
    title = "Prompts that name the corruption"
    if not comparisons:
        return Section("naming", title, ["None of the corruptions is named by a prompt."])
    rows = []
    for item in comparisons:
        rows.append(
            [
                spoken(item.name),
                str(item.num_sentences),
                f"{100 * item.corrupted.accuracy_a:.1f}",
                f"{100 * item.corrupted.accuracy_b:.1f}",
                with_interval(item.corrupted),
                p_text(item.p_holm),
                points(item.clean.difference),
            ]
        )
    table = Table(
        "Naming sets against the active one",
        ["corruption", "sentences", f"{active}, %", "naming, %", "points", "p", "points on clean images"],
        rows,
        note="All severities together, paired by image; p Holm-corrected over the corruptions. On clean "
        "images the same sentences say what is not so: a gain there too is no sign that the model "
        "understood the corruption.",
    )
    chart = charts.differences(
        {spoken(item.name): item.corrupted for item in comparisons},
        name="naming",
        description=f"Points that naming the corruption gains over {active}, with 95 % intervals",
        x_label=f"points over {charts.shortened(active, 20)}",
    )
    question = (
        f"Does it help to say what was done to the image? Each naming set against {active}, "
        "on the images of the corruption that it names."
    )
    charted = [Chart("", chart, "95 % intervals, resampled by image.")]
    return Section("naming", title, [question], tables=[table], charts=charted)


def _kinds(findings: Findings) -> Section:
    """Which corruption is whose, and how its severity is set."""
    if findings.source != GENERATED:
        rows = [[spoken(name), WHOSE[kind(name)]] for name in findings.names]
        table = Table("Which mean a corruption is in", ["corruption", "published"], rows, text_columns=2)
        note = f"Operations and severities are those of {findings.source}; extras are in no published mean."
        return Section("kinds", "What was done to the images", [note], tables=[table])
    said = (
        f"An image with a short side under {BORDER} px gets the severities published for {SMALL} px "
        f"(CIFAR-10-C); any other is made {LARGE} px there and gets those of ImageNet-C. Lengths are in "
        "pixels. Severities of saturate, spatter and elastic transform are five settings rather than a scale."
    )
    table = Table(
        "Whose operation, and what sets its severity",
        ["corruption", "published", "set by", f"{SMALL} px, 1 … 5", f"{LARGE} px, 1 … 5"],
        [[spoken(name), *described(name)] for name in findings.names],
        text_columns=5,
    )
    return Section("kinds", "What was done to the images", [said], tables=[table])


def _examples(findings: Findings, sample_id: str) -> Section:
    shown = sorted({len(findings.severities) // 2, len(findings.severities) - 1})
    cards = []
    for name, examples in findings.examples.items():
        n = len(examples)
        pictures = Pictures(PreparedSplit(examples, np.zeros(n, dtype=np.int64), [name] * n), Path())
        for step in shown:
            severity = f"severity {findings.severities[step]}"
            alt = f"a test image under {spoken(name)}, {severity}"
            cards.append(Card(pictures.data_uri(step), alt, spoken(name), [severity], sample_id))
    small = max(next(iter(findings.examples.values())).shape[1:3]) <= _SMALL
    return Section(
        "examples",
        "What the corruptions look like",
        galleries=[Gallery("One test image under each", cards, small=small)],
    )
