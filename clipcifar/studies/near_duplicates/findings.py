"""What `near_duplicates` finds in a run, as numbers and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import files
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.evaluation import compare, metrics, plots
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.evaluation.names import METHODS
from clipcifar.evaluation.words import with_interval
from clipcifar.render.pictures import Pictures
from clipcifar.store.dataset import Prepared
from clipcifar.store.fields import copies_of
from clipcifar.studies.near_duplicates import within as of_one_split
from clipcifar.studies.near_duplicates.nearest import Without, without
from clipcifar.studies.near_duplicates.pictures import MOST_CORRELATED, SAME_PICTURE, correlations
from clipcifar.studies.near_duplicates.within import Within

THRESHOLDS = np.append(np.round(np.arange(0.80, 1.0, 0.01), 2), [0.995, 0.999])  # of the curve
LOOK_ALIKES = 0.1  # train images that a test image may find above the threshold by chance


@dataclass(frozen=True)
class Findings:
    """A finished search.

    Attributes:
        threshold: the cosine from which a pair counts.
        twins, cosines: (M,) int64 and float32, of every test image the most similar train image.
        order: (P,) int64 test rows of the pairs that count, the closest first.
        correlation: of the pictures of the first of them.
        same_label: (M,) bool, whether image and twin are labelled alike.
        background: (B,) float32 cosines of random pairs of one class.
        partners: train images of a class, the mean.
        methods: accuracy with and without the images that have a twin.
        gains, gains_rest: every other method against zero-shot on all test images, and on the rest.
        within: the twins within train, and within test.
        doubt: a sentence on twins that may have been missed; empty where all were compared.
    """

    threshold: float
    twins: NDArray[np.int64]
    cosines: NDArray[np.float32]
    order: NDArray[np.int64]
    correlation: list[float]
    same_label: NDArray[np.bool_]
    background: NDArray[np.float32]
    partners: float
    methods: dict[str, Without]
    gains: list[NamedDifference]
    gains_rest: list[NamedDifference]
    within: Sequence[Within]
    doubt: str = ""

    @property
    def by_chance(self) -> float:
        """Train images of its class that a test image would have above the threshold, were pairs random."""
        return float((self.background >= self.threshold).mean()) * self.partners


def measure(
    twins: NDArray[np.int64],
    cosines: NDArray[np.float32],
    background: NDArray[np.float32],
    predicted: Mapping[str, NDArray[np.int64]],
    dataset: Prepared,
    within: Sequence[Within],
    *,
    folder: Path,
    threshold: float,
    doubt: str = "",
) -> Findings:
    """Judge the nearest pairs, and every method with and without them.

    Args:
        twins, cosines: (M,) of every test image the most similar train image.
        background: (B,) cosines of random pairs of one class.
        predicted: by method, zero_shot among them, (M,) int64.
        dataset: the prepared images.
        within: the twins within either split.
        folder: where its files are, if it is of files.
        threshold: the cosine from which a pair counts.
        doubt: as `Findings` has it.

    Raises:
        ConfigError: every test image would count, so that none is left to score.
    """
    labels, left_out = dataset.test.labels, cosines >= threshold
    copies = copies_of(dataset.test.contents)
    if left_out.all():
        raise ConfigError(
            f"every test image has a train image at a cosine of {threshold:g} or more: nothing is left",
            where="params.yaml: near_duplicates.threshold",
            fix=f"raise it; the median of the nearest is {float(np.median(cosines)):.4f}",
        )
    rows = np.flatnonzero(left_out)
    order = rows[np.argsort(-cosines[rows], kind="stable")]
    pairs = [(int(row), int(twins[row])) for row in order[:MOST_CORRELATED]]
    others = {name: said for name, said in predicted.items() if name != "zero_shot"}
    zero_shot, rest = predicted["zero_shot"], ~left_out
    return Findings(
        threshold=threshold,
        twins=twins,
        cosines=cosines,
        order=order,
        correlation=correlations(Pictures(dataset.test, folder), Pictures(dataset.train, folder), pairs),
        same_label=labels == dataset.train.labels[twins],
        background=background,
        partners=len(dataset.train.labels) / len(np.unique(dataset.train.labels)),
        methods={name: without(said == labels, left_out) for name, said in predicted.items()},
        gains=compare.against(zero_shot, others, labels, class_names=dataset.class_names, copies=copies),
        gains_rest=compare.against(
            zero_shot[rest],
            {name: said[rest] for name, said in others.items()},
            labels[rest],
            class_names=dataset.class_names,
            copies=None if copies is None else copies[rest],
        ),
        within=within,
        doubt=doubt,
    )


def curve_rows(findings: Findings) -> list[dict[str, Any]]:
    """By threshold, the share of test images with a twin, and of random pairs of one class."""
    return [
        {
            "threshold": float(threshold),
            "share": float((findings.cosines >= threshold).mean()),
            "random_pairs": float((findings.background >= threshold).mean()),
        }
        for threshold in THRESHOLDS
    ]


def pair_rows(findings: Findings, dataset: Prepared) -> list[dict[str, Any]]:
    """Every pair that counts, the closest first; without a correlation where pictures were not compared."""
    names, test, train = dataset.class_names, dataset.test, dataset.train
    correlation: list[float | str] = [*findings.correlation]
    correlation += [""] * (len(findings.order) - len(correlation))
    return [
        {
            "test": test.ids[row],
            "train": train.ids[findings.twins[row]],
            "cosine": float(findings.cosines[row]),
            "picture_correlation": same,
            "test_label": names[test.labels[row]],
            "train_label": names[train.labels[findings.twins[row]]],
        }
        for row, same in zip(findings.order.tolist(), correlation, strict=True)
    ]


def as_metrics(findings: Findings) -> dict[str, Any]:
    """Counts and shares, and every method without the images that have a twin."""
    n, pairs = len(findings.cosines), len(findings.order)
    shares = {}
    if pairs:
        shares = {
            "same_label": float(findings.same_label[findings.order].mean()),
            "same_picture": float(np.mean(np.array(findings.correlation) >= SAME_PICTURE)),
        }
    gains = {item.name: item.paired for item in findings.gains_rest}
    return {
        "n": n,
        "n_duplicates": pairs,
        "duplicates": pairs / n,
        **shares,
        "random_pairs": float((findings.background >= findings.threshold).mean()),
        "cosine": {
            "nearest_median": float(np.median(findings.cosines)),
            "random_pairs_median": float(np.median(findings.background)),
        },
        **{split.name: of_one_split.as_metrics(split) for split in findings.within},
        "without": {
            name: {
                "accuracy": item.rest,
                "n": item.n,
                "n_correct": item.n_correct,
                "vs_all": {"difference": item.difference, "low": item.low, "high": item.high},
                **({"vs_zero_shot": compare.as_metrics(gains[name])} if name in gains else {}),
            }
            for name, item in findings.methods.items()
        },
    }


def verdicts(findings: Findings) -> list[str]:
    """What was found, a sentence each."""
    n, pairs = len(findings.cosines), len(findings.order)
    sentences = [
        f"{count_of(pairs, 'test image has', 'test images have')} a train image at a cosine of "
        f"{findings.threshold:g} or more, {100 * pairs / n:.2f} % of {n:,}."
    ]
    sentences += [findings.doubt] if findings.doubt else []
    chance = (
        f"Random pairs of one class have a median cosine of {np.median(findings.background):.3f}, "
        f"and a test image would find {findings.by_chance:.2g} of its class's {findings.partners:,.0f} train "
        "images above the threshold by that alone"
    )
    if findings.by_chance >= LOOK_ALIKES:
        chance += ": with this model the threshold does not tell twins from look-alikes; raise it"
    sentences.append(chance + ".")
    sentences += map(of_one_split.sentence, findings.within)
    if pairs:
        same = sum(value >= SAME_PICTURE for value in findings.correlation)
        other = int((~findings.same_label[findings.order]).sum())
        sentences.append(
            f"The same picture, to a comparison that knows no model: {same:,} of "
            f"{count_of(len(findings.correlation), 'closest pair')}, whose small grey copies, mirrored or "
            f"not, correlate at {SAME_PICTURE:g} or more."
        )
        sentences.append(f"In {other:,} of {count_of(pairs, 'pair')} image and twin have different labels.")
    if not pairs or findings.by_chance >= LOOK_ALIKES:
        return sentences  # what is left out then is nothing, or says nothing of twins
    widest = max(findings.methods, key=lambda name: abs(findings.methods[name].difference))
    item = findings.methods[widest]
    sentences.append(
        f"Without those images no method's accuracy moves by more than {100 * abs(item.difference):.2f} "
        f"points: {METHODS[widest]} {with_interval(item, 2)}."
    )
    return sentences


def write(folder: Path, findings: Findings, dataset: Prepared) -> None:
    """Write metrics.json, curve.csv and, where there are any pairs, pairs.csv and within.csv."""
    files.write_json(folder / "metrics.json", metrics.rounded(as_metrics(findings)))
    plots.write_csv(folder / "curve.csv", curve_rows(findings))
    if pairs := pair_rows(findings, dataset):
        plots.write_csv(folder / "pairs.csv", pairs)
    if pairs := of_one_split.rows(findings.within, dataset):
        plots.write_csv(folder / "within.csv", pairs)
