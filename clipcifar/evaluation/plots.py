"""What `dvc plots` draws: CSV files, and the rows in the details of the metrics.

It is what would crowd a metrics diff: counts and intervals of classes, bins of the reliability diagram,
the ranking.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import write_atomically
from clipcifar.evaluation import calibration

# What begins a formula, in some languages in full width (owasp.org, "CSV Injection"), and what another
# spreadsheet may take for the end of the cell before it.
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=\s*[=+\-@＝＋－＠])")


def cell(text: str) -> str:
    """Text as a CSV cell that a spreadsheet shows instead of running, whatever it divides cells at."""
    text = _FORMULA.sub(r"\1'", text)
    return "'" + text if text.startswith(("\t", "\r", "\n")) else text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with a header line; text cells are made harmless, floats rounded to five digits."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _harmless(value) for key, value in row.items()})
    write_atomically(path, stream.getvalue().encode())


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return cell(value)
    return round(value, 5) if isinstance(value, float) else value


def write_confusion(
    path: Path, *, labels: NDArray[np.int64], predicted: NDArray[np.int64], class_names: list[str]
) -> None:
    """One row per image, the form that DVC's confusion templates count themselves.

    A name is made harmless once, and not for every image that bears it.
    """
    names = [cell(name) for name in class_names]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["actual", "predicted"])
    pairs = zip(labels.tolist(), predicted.tolist(), strict=True)
    writer.writerows([names[label], names[guess]] for label, guess in pairs)
    write_atomically(path, stream.getvalue().encode())


def reliability_rows(
    scores: NDArray[np.float32], labels: NDArray[np.int64], *, temperature: float | None
) -> list[dict[str, Any]]:
    """The bins of the reliability diagram, as the method has it and after its temperature, if it has one.

    Args:
        scores: (N, C) float32 logits.
        labels: (N,) int64.
        temperature: that val chose, if there is a val image.
    """
    rows = []
    diagrams = {"raw": scores}
    if temperature is not None:
        diagrams["after temperature"] = scores / np.float32(temperature)
    for kind, logits in diagrams.items():
        for confidence_bin in calibration.reliability(logits, labels):
            rows.append({"calibration": kind, **asdict(confidence_bin)})
    return rows
