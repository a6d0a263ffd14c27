"""The section of the page on superclasses, for a dataset that has them."""

from __future__ import annotations

from typing import Any

from clipcifar.evaluation.hierarchy import hierarchy_of
from clipcifar.evaluation.names import METHODS
from clipcifar.render import charts
from clipcifar.render.table import interval_text
from clipcifar.report.confusion import NAMED, cells, counted, largest, of_class
from clipcifar.report.facts import Facts


def section(facts: Facts) -> dict[str, Any] | None:
    """Accuracy by superclass, and how many errors stay within it; None for a dataset without.

    Returns:
        summary, the table of methods (header, rows), that of superclasses (classes_header,
        classes_rows), and the confusion matrix of zero-shot (names, matrix, caption).
    """
    hierarchy = hierarchy_of(facts.dataset.name, facts.dataset.class_names)
    if hierarchy is None:
        return None
    labels = hierarchy.superclass[facts.sets.labels]
    said = {
        method: hierarchy.superclass[predictions.predicted]
        for method, predictions in facts.predictions.items()
    }
    rows = []
    for method, metrics in facts.metrics.items():
        coarse = metrics["coarse"]
        rows.append(
            [
                METHODS[method],
                f"{metrics['accuracy']:.4f}",
                f"{coarse['accuracy']:.4f}",
                interval_text(coarse),
                f"{coarse['n_within']:,} of {coarse['n_errors']:,}",
                f"{100 * coarse['within_share']:.1f} %" if coarse["n_errors"] else "–",
            ]
        )
    present = [i for i in range(len(hierarchy.names)) if (labels == i).any()]
    by_superclass = [
        [hierarchy.names[i], *(f"{(called[labels == i] == i).mean():.3f}" for called in said.values())]
        for i in present
    ]
    num = len(hierarchy.names)
    shares = of_class(counted(labels, said["zero_shot"], num))
    assert num <= NAMED
    return {
        "summary": f"{num} superclasses. If errors fell on any class alike, "
        f"{100 * hierarchy.chance_within:.1f} % of them would stay within the superclass.",
        "header": ["method", "class right", "superclass right", "95 % interval", "errors within", "share"],
        "rows": rows,
        "classes_header": ["superclass", *(METHODS[method] for method in said)],
        "classes_rows": by_superclass,
        "names": [charts.shortened(name, 14) for name in hierarchy.names],
        "matrix": cells(shares, list(hierarchy.names)),
        "caption": largest(shares, hierarchy.names),
    }
