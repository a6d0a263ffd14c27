"""Predictions as a table, as CSV and as JSON; the first two are written batch by batch, as they come."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from clipcifar.cli.formats import as_csv, as_json
from clipcifar.core.terminal import cut, left, one_line, width

if TYPE_CHECKING:
    from tqdm import tqdm

Count = Callable[[int], object]
_CLASS_COLUMNS = 32  # at most, of a class's name
_PATH_COLUMNS = 24  # at least, of a path that is cut for a narrow terminal


class Answer(NamedTuple):
    """What an image shows: the most likely classes with their probabilities, the first first."""

    path: Path
    top: list[tuple[str, float]]


def shown_progress(total: int) -> tqdm[Any]:
    """A progress bar over images on standard error."""
    from clipcifar.core.progress import progress

    return progress(total=total, unit="images", what="predicting")


def print_beside(bar: tqdm[Any], text: str) -> None:
    """Print results at once; where both go to the same terminal, the bar makes way for them."""
    is_shared = sys.stdout.isatty() and sys.stderr.isatty()
    if is_shared:
        bar.clear()
    print(text, flush=True)
    if is_shared:
        bar.refresh()


def as_lines(
    batches: Iterator[list[Answer]], *, paths: Sequence[Path], class_names: Sequence[str], top: int
) -> Iterator[str]:
    """A table for a person; the widths of its columns are known before the first answer.

    Args:
        batches: of answers.
        paths: of all images.
        class_names: of all classes.
        top: how many classes an answer has.
    """
    of_class = min(max(width(one_line(name)) for name in class_names), _CLASS_COLUMNS)
    of_path = max([len("image"), *(width(one_line(str(path))) for path in paths)])
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - top * (of_class + len("  0.000  "))
        of_path = min(of_path, max(room, _PATH_COLUMNS))
    numbers = "  ".join(left(f"{place}.", of_class + len(" 0.000")) for place in range(1, top + 1))
    header = f"{left('image', of_path)}  {numbers}".rstrip()
    for number, batch in enumerate(batches):
        lines = [header] if number == 0 else []
        for path, classes in batch:
            cells = [
                f"{left(cut(one_line(name), of_class), of_class)} {share:.3f}" for name, share in classes
            ]
            lines.append("  ".join([left(_end(one_line(str(path)), of_path), of_path), *cells]))
        if lines:
            yield "\n".join(lines)


def _end(path: str, columns: int) -> str:
    """The end of a path, which tells it from others, in so many columns."""
    kept = path
    while width(kept) > columns:
        kept = "…" + kept[2 if kept[0] == "…" else 1 :]
    return kept


def as_rows(batches: Iterator[list[Answer]], *, top: int) -> Iterator[str]:
    """CSV: the header, then the rows of each batch."""
    places = range(1, top + 1)
    names = ["path", *(f"{name}_{place}" for place in places for name in ("class", "probability"))]
    header = as_csv({name: [] for name in names})
    yield header
    for batch in batches:
        rows = [[_shown(path), *(cell for pair in classes for cell in pair)] for path, classes in batch]
        if rows:
            yield as_csv(dict(zip(names, zip(*rows, strict=True), strict=True))).removeprefix(header + "\n")


def _shown(path: Path) -> str:
    """The path; one that a spreadsheet would take for a formula begins with "./", which is the same file."""
    from clipcifar.evaluation.plots import cell

    text = str(path)
    return text if cell(text)[:1] == text[:1] else f"./{text}"


def as_document(
    batches: Iterator[list[Answer]],
    *,
    by: Mapping[str, object],
    failed: Sequence[tuple[Path, str]],
    left_out: Mapping[str, int],
) -> Iterator[str]:
    """One JSON document.

    Args:
        batches: of answers.
        by: what answered.
        failed: paths that could not be read with the reason, which is complete when the batches are.
        left_out: how many files of which kind were not asked about.
    """
    images = [
        {"path": str(path), "top": [{"class": name, "probability": share} for name, share in classes]}
        for batch in batches
        for path, classes in batch
    ]
    unread = [{"path": str(path), "reason": reason} for path, reason in failed]
    yield as_json({**by, "images": images, "failed": unread, "left_out": dict(left_out)})
