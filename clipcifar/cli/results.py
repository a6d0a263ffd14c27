"""`clipcifar show`, `compare`, `models` and `verify`: what was measured, and what can be said of it."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipcifar.cli.command import (
    Command,
    add_folder,
    in_project,
    refuse_stale,
    stale_results,
)
from clipcifar.cli.formats import add_formats, as_csv, as_json, columns_of, flat
from clipcifar.core import files
from clipcifar.core.errors import ConfigError, DataError, made_by
from clipcifar.core.terminal import note
from clipcifar.evaluation import headline
from clipcifar.evaluation.names import METHODS, TRAINED
from clipcifar.render import table
from clipcifar.store.places import metrics_of
from clipcifar.store.prompt_set import words_of_left_out

if TYPE_CHECKING:
    from clipcifar.project.state import Stale

_NO_VAL = (
    "The dataset has no val images: zero-shot's confidences are at the model's own logit scale, and the "
    "methods that learn from train images or choose by val have no numbers."
)


def _show_arguments(parser: ArgumentParser) -> None:
    add_folder(
        parser, "--metrics", explanation="folder of the metrics files (default: metrics of the project)"
    )
    parser.add_argument("--per-class", action="store_true", help="also the accuracy within each class")
    add_formats(
        parser,
        json_help="all numbers as JSON, those of the classes among them",
        csv_help="a row per method, with all numbers; with --per-class one per method and class",
    )


def _show(arguments: Namespace) -> str:
    if arguments.metrics is not None:  # which need not be a project's
        return _shown(arguments.metrics, arguments, stale=None)
    with in_project():
        methods = _measurable(Path("metrics"))
        stale = stale_results({path: name for name in methods for path in metrics_of(name)})
        return _shown(Path("metrics"), arguments, stale=stale)


def _measurable(folder: Path) -> list[str]:
    """The methods that can have numbers; without val images, any others here are of another dataset."""
    return ["zero_shot"] if headline.has_no_val(headline.read(folder, "zero_shot")) else [*METHODS]


def _shown(folder: Path, arguments: Namespace, *, stale: Sequence[Stale] | None) -> str:
    """The numbers in a folder, in the form that is asked for.

    Args:
        stale: those that are not of what lies here; None where that is not known.
    """
    metrics = {method: headline.read(folder, method) for method in _measurable(folder)}
    is_stale = {method: None if stale is None else any(r.name == method for r in stale) for method in metrics}
    left_out = headline.left_out(folder)
    try:
        tables = _tables(metrics, is_stale, per_class=arguments.per_class)  # what it can tell is whole
        notes = [_NO_VAL] if headline.has_no_val(metrics["zero_shot"]) else []
        notes += [words_of_left_out(left_out)] if left_out else []
        about = {
            method: {"method": method, "name": METHODS[method], "stale": is_stale[method]}
            for method in metrics
        }
        if arguments.json:
            methods = {method: {**about[method], **numbers} for method, numbers in metrics.items()}
            notes += map(str, stale or [])
            return as_json({"methods": methods, "left_out": left_out, "notes": notes})
        if arguments.csv:
            rows = (_per_class_rows if arguments.per_class else _method_rows)(metrics, about)
            document = as_csv(columns_of(rows))
            for said in (*notes, *map(str, stale or [])):
                note(said)
            return document
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"not metrics of this project: {error}", where=str(folder), fix="run `dvc repro`"
        ) from error
    spaced = [line for said in notes for line in ("", said)]
    return "\n".join([*tables, *spaced, *([""] if stale else []), *map(str, stale or [])])


def _tables(metrics: Mapping[str, Any], is_stale: Mapping[str, bool | None], *, per_class: bool) -> list[str]:
    names = {method: METHODS[method] + (" (stale)" if is_stale[method] else "") for method in metrics}
    lines = table.methods_table(metrics, names=names)
    if per_class:
        lines += ["", *table.per_class_table(metrics, shown=str, names=names)]
    return lines


def _method_rows(metrics: Mapping[str, Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per method; nested numbers under the names that `dvc metrics diff` gives them."""
    return [
        {**about[method], **flat({key: value for key, value in numbers.items() if key != "per_class"})}
        for method, numbers in metrics.items()
    ]


def _per_class_rows(metrics: Mapping[str, Any], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {**about[method], "class": name, "accuracy": accuracy}
        for method, numbers in metrics.items()
        for name, accuracy in numbers["per_class"].items()
    ]


SHOW = Command(_show, help="the table of all methods", arguments=_show_arguments)


def _compare_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("a", nargs="?", default="HEAD", metavar="A", help="(default HEAD)")
    parser.add_argument("b", nargs="?", default="workspace", metavar="B", help="(default workspace)")
    parser.add_argument(
        "--method",
        choices=list(METHODS),
        help="whose predictions of a revision or the workspace (default zero_shot)",
    )
    output = add_formats(
        parser, json_help="everything as JSON", csv_help="a row for all images and one for each class"
    )
    output.add_argument("--md", action="store_true", help="markdown, names escaped")


@in_project()
def _compare(arguments: Namespace) -> str:
    from clipcifar.api.comparing import compare_sides
    from clipcifar.api.sides import kind_of
    from clipcifar.cli import comparison

    a, b, method = arguments.a, arguments.b, arguments.method
    if method and not {kind_of(name, Path.cwd())[0] for name in (a, b)} & {"rev", "workspace"}:
        raise ConfigError(
            f"--method says whose predictions of a revision or the workspace, and {a} and {b} are neither",
            fix="leave it out",
        )
    of_other_code: list[str] = []
    compared = compare_sides(
        a, b, repository=Path.cwd(), method=method or "zero_shot", on_note=of_other_code.append
    )
    notes = [*of_other_code, *(compared.notes if arguments.csv else ())]
    for said in notes:
        note(said)
    is_stale = bool(of_other_code or compared.notes)
    if arguments.json:
        return as_json({**comparison.as_data(compared), "stale": is_stale})
    if arguments.csv:
        return as_csv(columns_of([{**row, "stale": is_stale} for row in comparison.as_rows(compared)]))
    return comparison.as_table(compared, shown=table.escape if arguments.md else str)


COMPARE = Command(
    _compare,
    help="is B really better than A?",
    description="Paired statistics on the same test images. A and B are each a git revision, a DVC "
    "experiment, a prompt set, a method, or `workspace`; set:, method: or rev: before it says which.",
    arguments=_compare_arguments,
)


@in_project()
def _models(arguments: Namespace) -> str:
    from clipcifar.studies.models.table import as_text

    folder = Path("data/studies/models")
    stale = stale_results({folder.as_posix(): "the study `models`"})
    with made_by("models"):
        metrics, timing = (files.read_json(folder / name) for name in ("metrics.json", "timing.json"))
        try:
            return "\n\n".join([*map(str, stale), as_text(metrics, timing)])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"not results of the study: {error}", where=str(folder), fix="run `dvc repro`"
            ) from error


MODELS = Command(_models, help="the backbones side by side, from the study `models`")


@in_project()
def _verify(arguments: Namespace) -> str:
    from clipcifar.core import params
    from clipcifar.datasets.params import DatasetParams
    from clipcifar.store.model import ModelParams
    from clipcifar.store.places import PREDICTIONS, TEXTS, predictions_of
    from clipcifar.verify import measured, references, text, verification

    refuse_stale(
        {
            path: name
            for name in (*TRAINED, "prompt_sets")
            for path in (predictions_of(name), *metrics_of(name))
        }
        | {TEXTS: TEXTS}
    )
    settings = params.load(Path("params.yaml"))
    dataset = params.read(settings, "dataset", DatasetParams)
    model = params.read(settings, "model", ModelParams)
    # Asked before the files are read, which a dataset of test images alone has not all of.
    published = references.of(dataset.name, model.name, model.pretrained or "", dataset.max_per_class or 0)
    run = measured.read(Path(PREDICTIONS), Path("metrics"), Path(TEXTS))
    outcome = verification.verify(run, published)
    print("\n".join(text.lines(outcome, num_classes=len(run.class_names))), flush=True)
    if not all(check.passed for check in outcome.checks):
        sys.exit(DataError.exit_code)
    if outcome.skipped:
        sys.exit(ConfigError.exit_code)
    return ""


VERIFY = Command(
    _verify,
    help="are these the published numbers?",
    description="Every published accuracy of this dataset and model beside ours, total and per class, "
    "with its binomial tolerance. The exit code is 0 if all agree, 3 if one does not, and 2 if one has "
    "nothing to stand beside: another dataset, model or prompt set, or a subset of the images.",
)
