"""The page of the ensemble study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipcifar.core.counts import count_of
from clipcifar.core.files import Attribute
from clipcifar.evaluation.metrics import wilson_interval
from clipcifar.evaluation.names import METHODS, TRAINED
from clipcifar.evaluation.words import p_text, with_interval
from clipcifar.render import charts, study
from clipcifar.render.study import Chart, Section, Table
from clipcifar.render.svg import PAIRED
from clipcifar.studies.ensemble.findings import Judged, verdicts

_QUESTION = (
    "Do zero-shot and a trained method know more together than either alone? One coefficient mixes them, "
    "0 for zero-shot and 1 for the trained method. Val chooses it; test is asked about the one chosen."
)
_COMMANDS = [
    "clipcifar study ensemble",
    "dvc metrics diff --targets data/studies/ensemble/metrics.json",
    "dvc plots show data/studies/ensemble/mixing.csv -x coefficient -y val_accuracy --template methods",
]
Rows = list[dict[str, Any]]


def render(
    judged: list[Judged],
    *,
    n_val: int,
    n_test: int,
    attributes: Mapping[str, Attribute],
    active: str,
    notes: Sequence[str] = (),
) -> str:
    """The whole page as HTML.

    Args:
        n_val, n_test: images.
        attributes: of the embeddings.
        active: the prompt set that zero-shot uses.
        notes: said before what was found.
    """
    sections = [_results(judged, active, n_val, n_test), _curves(judged, n_val, n_test), _protocol()]
    return study.render(
        name="ensemble",
        title="Ensembles of zero-shot and trained methods",
        question=_QUESTION,
        verdicts=[*notes, *verdicts(judged)],
        sections=sections,
        attributes=attributes,
        commands=_COMMANDS,
    )


def _results(judged: list[Judged], active: str, n_val: int, n_test: int) -> Section:
    rows = [
        [
            mix.title,
            f"{mix.choice.coefficient:g}",
            f"{mix.metrics['accuracy']:.4f}",
            with_interval(mix.vs_zero_shot),
            p_text(mix.p_zero_shot),
            with_interval(mix.vs_trained),
            p_text(mix.p_trained),
            f"{mix.metrics['calibrated']['ece']:.3f}",
        ]
        for mix in judged
    ]
    header = ["mix", "chosen", "top-1", "vs zero-shot", "p", "vs trained", "p", "ECE"]
    return Section(
        "results",
        "Chosen mixes",
        paragraphs=[
            f"Zero-shot is the prompt set {active}. Val, {count_of(n_val, 'image')}, chooses and test, "
            f"{count_of(n_test, 'image')}, judges. "
            f"P values are exact McNemar tests, Holm-corrected over all {2 * len(judged)} "
            "comparisons; a mix that "
            "is one of its ends differs from it on no image."
        ],
        tables=[
            Table(
                "chosen mixes on test",
                header,
                rows,
                note="Differences in points with 95 % intervals (Bonett and Price); calibration error after "
                "a temperature that val chose for the mix.",
            )
        ],
    )


def _curves(judged: list[Judged], n_val: int, n_test: int) -> Section:
    drawn = []
    for method in TRAINED:
        title = METHODS[method]
        series = {mix.pair.how: mix.curve for mix in judged if mix.pair.method == method}
        for key, n, heading, caption in (
            ("val_accuracy", n_val, "on val", "What the coefficient is chosen by."),
            ("test_accuracy", n_test, "on test", "For showing only: nothing was chosen by it."),
        ):
            drawn.append(
                Chart(
                    f"{title}, {heading}",
                    charts.curves(
                        {how: _line(rows, key) for how, rows in series.items()},
                        name=f"ensemble-{method}-{key}",
                        description=f"Lines: accuracy {heading} by mixing coefficient, {title}",
                        x_label=f"coefficient: 0 zero-shot, 1 {title}",
                        y_label=f"accuracy {heading}",
                        sizes=PAIRED,
                    ),
                    f"{caption} An accuracy here has a 95 % interval of "
                    f"±{100 * _half_width(list(series.values()), key, n):.1f} points by itself; differences "
                    "along a curve are on the same images and surer.",
                )
            )
    return Section("curves", "The whole curve", charts=drawn)


def _line(rows: Rows, key: str) -> charts.Line:
    return charts.Line([row["coefficient"] for row in rows], [row[key] for row in rows])


def _half_width(curves: list[Rows], key: str, n: int) -> float:
    """Half the Wilson interval of the mean accuracy of the curves."""
    values = [row[key] for rows in curves for row in rows]
    low, high = wilson_interval(round(n * sum(values) / len(values)), n)
    return (high - low) / 2


def _protocol() -> Section:
    return Section(
        "protocol",
        "How it is done",
        paragraphs=[
            "Weights: the zero-shot classifier's unit rows times the logit scale, and the linear "
            "probe's weights, "
            "are interpolated as in WiSE-FT (Wortsman et al., CVPR 2022). Both are linear in the "
            "embedding, so "
            "this is the same as mixing their logits.",
            "Logits: mixed after each method's temperature. For the linear probe this is the weights' family "
            "passed through at another pace; the two can differ only in which steps of it are tried.",
            "Probabilities: averaged after those temperatures.",
            "The linear probe that is reported was fitted on train and val together and would "
            "look too good on "
            "val. So its coefficient and temperature are chosen with a fit of the same C on "
            "train alone, and the "
            "chosen coefficient is applied to the refit. C itself was chosen on val, and the other methods' "
            "epoch and seed too: that small advantage of the trained side stays, and tilts the "
            "choice towards 1.",
            "Among equally accurate coefficients the more likely one wins, then the one nearer to zero-shot.",
            "GDA is not here: it is such a mix itself, of zero-shot and a discriminant, by an alpha of val.",
        ],
    )
