"""`clipcifar try` and `search`: prompts tried at once, and those that a search chose; both can keep them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipcifar.cli.command import (
    Command,
    in_project,
    positive,
    refuse_stale,
    refuse_without_train,
    stale_results,
)
from clipcifar.cli.formats import add_formats, as_csv, as_json, columns_of
from clipcifar.core.errors import ConfigError
from clipcifar.core.terminal import note
from clipcifar.prompts.templates import PLACEHOLDER
from clipcifar.store.places import RANKING

PARAMS = Path("params.yaml")
_TEMPLATES_SHOWN = 10


def _try_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "prompts",
        nargs="*",
        metavar="PROMPT",
        help="templates with {classname}, averaged; ; separates several, too",
    )
    parser.add_argument(
        "--on", choices=["train", "test"], default="train", help="which images (default train)"
    )
    parser.add_argument(
        "--reset",
        action="store_true",
        help="forget the trials so far, on these images, and begin their count anew; alone, do no more",
    )


@in_project()
def _try(arguments: Namespace) -> str:
    from clipcifar.api.bench import Bench, judge, read_active, separated
    from clipcifar.api.opened import Opened
    from clipcifar.api.trials import Trials
    from clipcifar.cli.console import Console, forgotten, interact

    opened = Opened(Path.cwd(), on_note=note)
    prompts, images, texts = read_active(opened)
    active, embedder = prompts.active, opened.sentences(opened.model(images))
    bench = Bench(images, texts, embedder.embed_rows)
    bench.check(arguments.on)
    counter = Trials(opened.root, on_note=note)
    templates = [text for prompt in arguments.prompts for text in separated(prompt) or [prompt]]
    for prompt in templates:
        _refuse_other(prompt, sets=prompts.sets, class_names=images.class_names)
    sentences = bench.from_templates(templates) if templates else None
    if arguments.reset:
        print(
            forgotten(counter.reset(bench.family(arguments.on)), on=arguments.on, active=active), flush=True
        )
    if sentences is not None:
        prompt = "; ".join(templates)
        judged = judge(bench, counter, sentences, prompt=prompt, on=arguments.on, active=active)
        return "\n".join(judged.lines)
    if arguments.reset:
        return ""
    print("loading the text tower …", file=sys.stderr)
    embedder.load()
    interact(Console(bench, counter, active=active, params_path=PARAMS, on=arguments.on))
    return ""


def _refuse_other(prompt: str, *, sets: Container[str], class_names: Sequence[str]) -> None:
    """Raise ConfigError, with what to do, for what belongs into another command or into a session."""
    if prompt in sets:
        raise ConfigError(
            f"{prompt!r} is a prompt set, and no prompt",
            fix="give a template of it; whole sets are compared by `clipcifar compare`",
        )
    class_name, colon, _ = prompt.partition(":")
    if colon and class_name.strip() in class_names and PLACEHOLDER not in prompt:
        raise ConfigError(
            f"a class's own sentences are tried in a session: {prompt!r}",
            fix="run `clipcifar try` without a prompt, and write them there",
        )


TRY = Command(
    _try,
    help="try a prompt at once",
    description="Score a prompt against the active set from cached embeddings; without one, ask.",
    arguments=_try_arguments,
)


def _search_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--top", type=positive, metavar="N", help="single templates shown (default 10; as JSON or CSV all)"
    )
    parser.add_argument("--write", metavar="NAME", help="keep the chosen prompts as a set in params.yaml")
    add_formats(
        parser, json_help="everything about the search as JSON", csv_help="the single templates, a row each"
    )


@in_project()
def _search(arguments: Namespace) -> str:
    from clipcifar.report import ranking

    refuse_without_train("a search ranks templates on")
    results = {RANKING: "the ranking"}
    if arguments.write is not None:
        refuse_stale(results)
    ranked = ranking.read(Path(RANKING))
    stale = [str(reason) for reason in stale_results(results)]
    written = [] if arguments.write is None else _keep(arguments.write, ranked)
    if arguments.json:
        data = ranking.as_data(ranked, top=arguments.top)
        return as_json({**data, "stale": bool(stale), "notes": [*stale, *written]})
    if arguments.csv:
        for said in (*stale, *written):
            note(said)
        rows = ranking.as_data(ranked, top=arguments.top)["candidates"]
        marks = {"by": ranked["by"], "stale": bool(stale)}
        return as_csv(columns_of([{**row, "sets": ";".join(row["sets"]), **marks} for row in rows]))
    lines = [line for reason in stale for line in (reason, "")]
    lines += ranking.summary(ranked, top=arguments.top or _TEMPLATES_SHOWN)
    return "\n".join([*lines, *([""] if written else []), *written])


def _keep(name: str, ranked: Mapping[str, Any]) -> list[str]:
    """Write the chosen prompts into params.yaml, and say what was done, and doubts of it."""
    from clipcifar.prompts.save import compact, save_set
    from clipcifar.report import ranking
    from clipcifar.store.classes import read_classes

    if ranking.is_kept(ranked):
        what = f"there is nothing better to write: val prefers no other prompts to {ranked['chosen']}"
        raise ConfigError(what, fix="go on with that set, or offer the search other prompts in one of yours")
    classes = read_classes(Path("data/classes.json"))
    said = save_set(PARAMS, name, compact(ranked["set"]), **classes)
    doubt = ranking.doubt(ranked)
    return [said, *([f"written, though {doubt}"] if doubt else [])]


SEARCH = Command(
    _search,
    help="the best prompts, chosen on train images",
    description="What the stage rank_prompts found among the templates of your sets and of a pool.",
    arguments=_search_arguments,
)
