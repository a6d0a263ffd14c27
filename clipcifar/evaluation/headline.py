"""The two files of a result's numbers: what `dvc metrics diff` shows, and the rest.

`metrics/<name>.json` holds the headline, few enough numbers for a diff to be read whatever the number of
classes; `metrics/details/<name>.json` holds all others in the same nested form, so that
`dvc metrics diff --targets` compares them as well.

To DVC the details are a plot: no other kind of output stays in git, comes back by the run-cache and is no
metric. A plot without rows is an empty panel, so the file has the rows of one, which metrics leave out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipcifar.core.errors import DataError
from clipcifar.core.files import read_json, write_json

HEADLINE = ("accuracy", "accuracy_ci95", "balanced_accuracy", "ece", "nll", "n", "n_correct")
LEARNED_FROM = "learned_from"  # in the headline, too, of a method that learned from a draw of the images
N_VAL = "n_val"  # 0 stands where `calibrated` would be made up
PROMPT_SETS = "prompt_sets"  # keyed by set, and of each the accuracy on test alone
LEFT_OUT = "left out"  # of the prompt sets' details: those that are too large, by name their sentences
_DRAWN = "dvc plots"  # its rows; with a blank, so that no prompt set has this name


def learned_from(n: int, of: int) -> dict[str, Any]:
    """What stands beside a method's number where it learned from a draw of the images."""
    return {LEARNED_FROM: {"n": n, "of": of}} if n < of else {}


def of_images(metrics: Mapping[str, Any]) -> str:
    """`learned_from` in words, to follow a number or a name; empty where a method learned from all."""
    drawn = metrics.get(LEARNED_FROM)
    return f", learned from {drawn['n']:,} of {drawn['of']:,} images" if drawn else ""


def write(
    metrics_path: Path,
    details_path: Path,
    *,
    headline: Mapping[str, Any],
    details: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write both files.

    Args:
        headline, details: nested floats and counts, rounded; together they are all that was measured.
        rows: what the panel of the details draws, with the same keys each.
    """
    write_json(details_path, {**details, _DRAWN: rows})
    write_json(metrics_path, headline)


def read(folder: Path, name: str) -> dict[str, Any]:
    """All numbers of a method, or of `PROMPT_SETS`, the headline first, without the panel's rows.

    Args:
        folder: of the metrics, with the details in a folder of its own.
        name: of both files.

    Raises:
        DataError: one is missing, is not JSON or holds something else, or they are of an earlier version.
    """
    path, details_path = folder / f"{name}.json", folder / "details" / f"{name}.json"
    headline = _read_mapping(path)
    for entry in headline.values() if name == PROMPT_SETS else [headline]:
        if not isinstance(entry, dict) or not set(entry) <= {*HEADLINE, LEARNED_FROM}:
            raise DataError(
                "not as this version writes metrics: earlier ones kept all numbers in this one file",
                where=str(path),
                fix="run `dvc repro`",
            )
    details = _read_mapping(details_path)
    for key in (_DRAWN, LEFT_OUT):
        details.pop(key, None)
    if name != PROMPT_SETS:
        return {**headline, **details}
    if set(headline) != {key for key, entry in details.items() if isinstance(entry, dict)}:
        raise DataError(
            f"not of the same prompt sets as {path}", where=str(details_path), fix="run `dvc repro`"
        )
    return {prompt_set: {**entry, **details[prompt_set]} for prompt_set, entry in headline.items()}


def has_no_val(numbers: Mapping[str, Any]) -> bool:
    """Whether a method's numbers, as `read` gives them, are of a dataset without val images."""
    return numbers.get(N_VAL) == 0


def left_out(folder: Path) -> dict[str, int]:
    """The prompt sets that are too large to be embedded unasked, by name how many sentences they have.

    Args:
        folder: of the metrics; nothing where the prompt sets were not scored yet.
    """
    path = folder / "details" / f"{PROMPT_SETS}.json"
    return dict(_read_mapping(path).get(LEFT_OUT, {})) if path.is_file() else {}


def _read_mapping(path: Path) -> dict[str, Any]:
    numbers = read_json(path)
    if not isinstance(numbers, dict):
        raise DataError("not metrics of this project", where=str(path), fix="run `dvc repro`")
    return numbers
