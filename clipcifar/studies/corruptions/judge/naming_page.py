"""Prompts that name a corruption, on the page of the corruption study."""

from __future__ import annotations

from collections.abc import Sequence

from clipcifar.evaluation.compare import LEVEL
from clipcifar.evaluation.words import p_text, points, with_interval
from clipcifar.render import charts
from clipcifar.render.study import Chart, Section, Table
from clipcifar.studies.corruptions.judge.naming import Naming

_TITLE = "Prompts that name the corruption"


def spoken(name: str) -> str:
    """A corruption's name as a person reads it."""
    return name.replace("_", " ")


def verdicts(found: Sequence[Naming], active: str) -> list[str]:
    """Under which corruptions the naming set is better than the active one, worse, or neither."""
    better = [item for item in found if item.p_holm < LEVEL and item.corrupted.difference > 0]
    worse = [item for item in found if item.p_holm < LEVEL and item.corrupted.difference < 0]
    neither = [item for item in found if item.p_holm >= LEVEL]
    sentences = []
    for items, said in (
        (better, f"Prompts that name the corruption are better than {active} under"),
        (worse, f"Prompts that name the corruption are worse than {active} under"),
        (neither, f"No difference shown between prompts that name the corruption and {active} under"),
    ):
        if items:
            ordered = sorted(items, key=lambda item: -abs(item.corrupted.difference))
            told = "; ".join(f"{spoken(item.name)} {with_interval(item.corrupted)}" for item in ordered)
            sentences.append(f"{said} {told} (points, 95 % interval; exact paired test by image, Holm).")
    return sentences


def section(found: Sequence[Naming], active: str) -> Section:
    """Table and chart of every naming set against the active one."""
    if not found:
        return Section("naming", _TITLE, ["None of the corruptions is named by a prompt."])
    rows = []
    for item in found:
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
        {spoken(item.name): item.corrupted for item in found},
        name="naming",
        description=f"Points that naming the corruption gains over {active}, with 95 % intervals",
        x_label=f"points over {charts.shortened(active, 20)}",
    )
    question = (
        f"Does it help to say what was done to the image? Each naming set against {active}, "
        "on the images of the corruption that it names."
    )
    charted = [Chart("", chart, "95 % intervals, resampled by image.")]
    return Section("naming", _TITLE, [question], tables=[table], charts=charted)
