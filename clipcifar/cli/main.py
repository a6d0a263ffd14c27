"""`clipcifar …`: thin, like the stages."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

from clipcifar.core import files
from clipcifar.core.errors import (
    OUT_OF_MEMORY,
    ClipcifarError,
    ConfigError,
    DataError,
    exit_with_message,
    made_by,
    print_anything,
)
from clipcifar.evaluation.names import METHODS
from clipcifar.render import table
from clipcifar.store.classes import read_classes


def main() -> None:
    """Entry point of the console script."""
    print_anything()
    arguments = _parser().parse_args()
    gc.set_threshold(50_000)  # as in the stages: imports make many objects, hardly any of them cycles
    try:
        text = arguments.run(arguments)
        if text:
            print(text, flush=True)
    except ClipcifarError as error:
        exit_with_message(error)
    except MemoryError:
        exit_with_message(OUT_OF_MEMORY)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `head` and the like have seen enough; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="clipcifar", description="Look at the results, and try and keep prompts."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('clipcifar')}")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="the table of all methods")
    show.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder of the metrics files")
    show.add_argument("--per-class", action="store_true", help="also the accuracy within each class")
    show.set_defaults(run=_show)
    compare = commands.add_parser(
        "compare",
        help="is B really better than A?",
        description="Paired statistics on the same test images. A and B are each a git revision, a DVC "
        "experiment, a prompt set, a method, or `workspace`; set:, method: or rev: before it says which.",
    )
    compare.add_argument("a", nargs="?", default="HEAD", metavar="A")
    compare.add_argument("b", nargs="?", default="workspace", metavar="B")
    compare.add_argument(
        "--method", choices=list(METHODS), default="zero_shot", help="whose predictions of a revision"
    )
    output = compare.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="everything as JSON")
    output.add_argument("--md", action="store_true", help="markdown, names escaped")
    compare.set_defaults(run=_compare)
    trial = commands.add_parser(
        "try",
        help="try a prompt at once",
        description="Score a prompt against the active set from cached embeddings; without one, ask.",
    )
    trial.add_argument("prompts", nargs="*", metavar="PROMPT", help="templates with {classname}, averaged")
    trial.add_argument(
        "--on", choices=["train", "test"], default="train", help="which images (default train)"
    )
    trial.set_defaults(run=_try)
    search = commands.add_parser(
        "search",
        help="the best prompts, chosen on train images",
        description="What the stage rank_prompts found among the templates of your sets and of a pool.",
    )
    search.add_argument(
        "--top", type=_positive, default=10, metavar="N", help="single templates shown (default 10)"
    )
    search.add_argument("--write", metavar="NAME", help="keep the chosen prompts as a set in params.yaml")
    search.set_defaults(run=_search)
    models = commands.add_parser("models", help="the backbones side by side, from the study `models`")
    models.set_defaults(run=_models)
    doctor = commands.add_parser(
        "doctor",
        help="is everything there, and unharmed?",
        description="Check the environment, params.yaml, the disk, every file of a run against its digest, "
        "and DVC's cache. Nothing is changed. The exit code is 0, or that of the first problem.",
    )
    doctor.set_defaults(run=_doctor)
    verify = commands.add_parser(
        "verify",
        help="are these the published numbers?",
        description="Every published accuracy of this dataset and model beside ours, total and per class, "
        "with its binomial tolerance. The exit code is 0 if all agree, 3 if one does not, and 2 if one has "
        "nothing to stand beside: another dataset, model or prompt set, or a subset of the images.",
    )
    verify.set_defaults(run=_verify)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _warn_of_changes() -> None:
    """Say that params.yaml has changed since the results were made, if it has."""
    from clipcifar.project.lockfile import changed_keys

    changed = changed_keys(Path.cwd())
    if changed:
        named = ", ".join(changed[:5]) + (" and more" if len(changed) > 5 else "")
        print(f"note: changed since the last `dvc repro`, and not in these numbers: {named}", file=sys.stderr)


def _show(arguments: argparse.Namespace) -> str:
    found = {method: files.read_json(arguments.metrics / f"{method}.json") for method in METHODS}
    try:
        lines = table.methods_table(found)
        if arguments.per_class:
            lines += ["", *table.per_class_table(found, shown=str)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"not metrics of this project: {error}", where=str(arguments.metrics), fix="run `dvc repro`"
        ) from error
    return "\n".join(lines)


def _compare(arguments: argparse.Namespace) -> str:
    from clipcifar.cli import comparison, sides
    from clipcifar.evaluation import compare

    a, b = (
        sides.load(name, repository=Path.cwd(), method=arguments.method)
        for name in (arguments.a, arguments.b)
    )
    if any(sides.kind_of(name, Path.cwd())[0] != "rev" for name in (arguments.a, arguments.b)):
        _warn_of_changes()
    pair = sides.align(a, b)
    found = compare.compare(pair.predicted_a, pair.predicted_b, pair.labels, class_names=pair.class_names)
    if arguments.json:
        data = comparison.as_data(found, name_a=arguments.a, name_b=arguments.b)
        return json.dumps(data, indent=2, ensure_ascii=False)
    shown = table.escape if arguments.md else str
    return comparison.as_table(found, name_a=arguments.a, name_b=arguments.b, shown=shown)


def _search(arguments: argparse.Namespace) -> str:
    from clipcifar.prompts.save import save_set
    from clipcifar.report import ranking

    found = ranking.read(Path("data/ranking.json"))
    _warn_of_changes()
    lines = ranking.summary(found, top=arguments.top)
    if arguments.write is not None:
        classes = read_classes(Path("data/classes.json"))
        saved = save_set(Path("params.yaml"), arguments.write, found["set"], **classes)
        lines += ["", saved]
    return "\n".join(lines)


def _models(arguments: argparse.Namespace) -> str:
    from clipcifar.studies.models import table as model_table

    folder = Path("data/studies/models")
    with made_by("models"):
        found, timing = (files.read_json(folder / name) for name in ("metrics.json", "timing.json"))
        try:
            return model_table.as_text(found, timing)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"not results of the study: {error}", where=str(folder), fix="run `dvc repro`"
            ) from error


def _doctor(arguments: argparse.Namespace) -> str:
    from clipcifar.doctor import checks as doctor

    problems = []
    for name, found in doctor.examine(Path.cwd()):
        if isinstance(found, ClipcifarError):
            problems.append(found)
            indented = str(found).replace("\n", "\n       ")
            print(f"PROBLEM  {name}: {indented}", flush=True)
        else:
            print(f"ok       {name}: {found}", flush=True)
    if not problems:
        return "No problem found."
    print("1 problem." if len(problems) == 1 else f"{len(problems)} problems.", flush=True)
    sys.exit(problems[0].exit_code)


def _verify(arguments: argparse.Namespace) -> str:
    from clipcifar.cli import sides
    from clipcifar.verify import measured, references, text as shown, verification

    run = measured.read(Path(sides.PREDICTIONS), Path("metrics"), Path(sides.TEXTS))
    _warn_of_changes()
    found = verification.verify(run, references.of(run.dataset, run.model, run.pretrained, run.max_per_class))
    print("\n".join(shown.lines(found, num_classes=len(run.class_names))), flush=True)
    if not all(check.passed for check in found.checks):
        sys.exit(DataError.exit_code)
    if found.skipped:
        sys.exit(ConfigError.exit_code)
    return ""


def _try(arguments: argparse.Namespace) -> str:
    from clipcifar.backbone.params import EmbedParams
    from clipcifar.cli import console, sides
    from clipcifar.cli.trial import Bench
    from clipcifar.core import params
    from clipcifar.embeddings.sentences import SentenceEmbedder
    from clipcifar.prompts.params import PromptsParams
    from clipcifar.store import inputs
    from clipcifar.store.model import ModelDescription, check_described

    params_path = Path("params.yaml")
    settings = params.load(params_path)
    active = params.read(settings, "prompts", PromptsParams).active
    images = inputs.requested_images(Path(sides.IMAGES), settings)
    model = ModelDescription.read(Path("data/model.json"))
    check_described(images.attributes, model)
    texts = inputs.matching_texts(Path(sides.TEXTS, f"{active}.h5"), images)
    device = params.read(settings, "embed", EmbedParams).device
    embedder = SentenceEmbedder(model, Path("data/weights"), device)
    bench = Bench(images, texts, embedder.embed_rows)
    _warn_of_changes()
    if arguments.prompts:
        trial = bench.run(bench.from_templates(arguments.prompts), on=arguments.on)
        return console.answer(trial, on=arguments.on, active=active)
    print("loading the text tower …", file=sys.stderr)
    embedder.load()
    dataset = str(images.attributes["dataset"])
    session = console.Console(bench, active=active, params_path=params_path, dataset=dataset)
    session.reply(f":on {arguments.on}")
    console.interact(session)
    return ""
