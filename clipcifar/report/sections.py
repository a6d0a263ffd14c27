"""The sections of the page that are tables and charts: what the template fills in."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from clipcifar.evaluation import calibration
from clipcifar.evaluation.headline import of_images
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.words import p_text, points
from clipcifar.render import charts
from clipcifar.render.charts import shortened
from clipcifar.render.table import interval_text, seeds_text, top5_column
from clipcifar.report.facts import Facts
from clipcifar.report.ranking import (
    chosen_templates,
    doubt,
    gains_text,
    is_kept,
    on_val_text,
    template_cells,
    tested_how,
    train_header,
)
from clipcifar.store.prompt_set import words_of_left_out

TEMPLATES_SHOWN = 12


def methods(facts: Facts) -> dict[str, Any]:
    """The table of all methods and the chart of their intervals."""
    rows = []
    top5_head, top5_cells = top5_column(facts.metrics)
    for (method, metrics), top5 in zip(facts.metrics.items(), top5_cells, strict=True):
        rows.append(
            [
                METHODS[method] + of_images(metrics),
                f"{metrics['accuracy']:.4f}",
                interval_text(metrics),
                *top5,
                seeds_text(metrics) or "–",
                f"{metrics['balanced_accuracy']:.4f}",
                f"{metrics['ece']:.3f} → {metrics['calibrated']['ece']:.3f}",
                f"{metrics['nll']:.3f} → {metrics['calibrated']['nll']:.3f}",
            ]
        )
    chart = charts.accuracies(
        {METHODS[method]: metrics for method, metrics in facts.metrics.items()},
        name="methods",
        description="Top-1 accuracy of every method with its 95 % interval",
        x_label="top-1 accuracy on test",
    )
    header = ["method", "top-1", "95 % interval", *top5_head, "mean ± sd (seeds)", "balanced", "ECE", "NLL"]
    return {"header": header, "rows": rows, "chart": chart}


def sets(facts: Facts) -> dict[str, Any]:
    """The prompt sets, the best on train first, each against the active one."""
    differences = {item.name: item for item in facts.set_differences}
    ranked = sorted(facts.set_metrics.items(), key=lambda item: -item[1]["train"]["accuracy"])
    rows = []
    for name, metrics in ranked:
        against = differences.get(name)
        rows.append(
            [
                f"{name} (active)" if name == facts.active else name,
                str(metrics["n_sentences"]),
                f"{metrics['train']['accuracy']:.4f}",
                f"{metrics['accuracy']:.4f}",
                interval_text(metrics["test"]),
                f"{metrics['test']['balanced_accuracy']:.4f}",
                points(against.paired.difference, 2) if against else "–",
                p_text(against.p_holm) if against else "–",
            ]
        )
    shown = [differences[name] for name, _ in ranked if name in differences]
    chart = shown and charts.differences(
        {item.name: item.paired for item in shown},
        name="sets",
        description=f"Points of every prompt set over {facts.active} on test",
        x_label=f"points over {shortened(facts.active, 20)}, on test",
    )
    header = ["prompt set", "sentences", "train", "test", "95 % interval", "balanced", "points", "p"]
    left_out = words_of_left_out(facts.left_out) if facts.left_out else ""
    return {"header": header, "rows": rows, "chart": chart, "left_out": left_out}


def ranking(facts: Facts) -> dict[str, Any]:
    """The best single templates, and what was made of them."""
    outcome = facts.ranking
    said = f"Chosen on train and val: {outcome['chosen']}. On test, asked once: {outcome['verdict']}"
    return {
        "summary": outcome["verdict"] if is_kept(outcome) else said,
        "is_kept": is_kept(outcome),
        "on_val": on_val_text(outcome),
        "gains": gains_text(outcome),
        "doubt": doubt(outcome),
        "header": ["template", "sets", train_header(outcome), "points", "p"],
        "test": tested_how(outcome),
        "rows": template_cells(outcome, TEMPLATES_SHOWN),
        "num_candidates": f"{len(outcome['candidates']):,}",
        "members": chosen_templates(outcome),
        "chart": charts.ranking_bars(outcome["best"][:TEMPLATES_SHOWN], active=facts.active, name="ranking"),
    }


def classes(facts: Facts) -> dict[str, Any]:
    """Accuracy within each class, by method."""
    shown, names, labels = facts.shown_classes(), facts.dataset.class_names, facts.sets.labels
    images = np.bincount(labels, minlength=len(names))
    right = {
        METHODS[method]: np.bincount(labels[predictions.predicted == labels], minlength=len(names))
        for method, predictions in facts.predictions.items()
    }
    present = np.flatnonzero(images).tolist()
    rows = [
        [names[label], f"{images[label]:,}", *(f"{n[label] / images[label]:.3f}" for n in right.values())]
        for label in present
    ]
    accuracies = {method: (n[shown] / images[shown]).tolist() for method, n in right.items()}
    least = f"the {len(shown)} classes on which zero-shot is least accurate"
    note = (
        ""
        if len(shown) == len(present)
        else f"The table has all {len(present):,} classes, the chart {least}."
    )
    return {
        "note": note,
        "header": ["class", "images", *accuracies],
        "rows": rows,
        "chart": charts.class_bars([names[label] for label in shown], accuracies, name="classes"),
    }


def reliabilities(facts: Facts) -> list[tuple[str, Markup, str]]:
    """By method: what a person calls it, its reliability diagram, and a caption."""
    diagrams = []
    for method, predictions in facts.predictions.items():
        scores, temperature = predictions.scores, float(predictions.attributes["temperature"])
        raw, cooled = (
            calibration.reliability(logits, predictions.labels)
            for logits in (scores, scores / np.float32(temperature))
        )
        metrics, title = facts.metrics[method], METHODS[method]
        caption = (
            f"temperature {temperature:.2f}; ECE {metrics['ece']:.3f} → {metrics['calibrated']['ece']:.3f}, "
            f"NLL {metrics['nll']:.3f} → {metrics['calibrated']['nll']:.3f}"
        )
        chart = charts.reliability(raw, cooled, name=f"reliability-{method}", method=title)
        diagrams.append((title, chart, caption))
    return diagrams
