"""`clipcifar show`: the methods table in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clipcifar import files
from clipcifar.errors import ClipcifarError
from clipcifar.report import table


def main() -> None:
    """Entry point of the console script."""
    parser = argparse.ArgumentParser(prog="clipcifar", description="Look at the results of the pipeline.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="the table of all methods")
    show.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder of the metrics files")
    show.add_argument("--per-class", action="store_true", help="also the accuracy within each class")
    arguments = parser.parse_args()
    try:
        print(_show(arguments.metrics, arguments.per_class))
    except ClipcifarError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)


def _show(metrics: Path, per_class: bool) -> str:
    found = {method: files.read_json(metrics / f"{method}.json") for method in table.METHODS}
    lines = table.methods_table(found)
    if per_class:
        lines += ["", *table.per_class_table(found)]
    return "\n".join(lines)
