"""`clipcifar try` and `search`: prompts tried at once, and those that a search chose; both can keep them."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from clipcifar.cli.command import Command, in_project, refuse_stale, refuse_without_train, stale_results

PARAMS = Path("params.yaml")


def _try_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="templates with {classname}, averaged")
    parser.add_argument(
        "--on", choices=["train", "test"], default="train", help="which images (default train)"
    )


@in_project()
def _try(arguments: Namespace) -> str:
    from clipcifar.api.sides import IMAGES, texts_of
    from clipcifar.backbone.params import EmbedParams
    from clipcifar.cli.console import Console, answer, interact
    from clipcifar.cli.trial import Bench
    from clipcifar.core import params
    from clipcifar.embeddings.sentences import SentenceEmbedder
    from clipcifar.prompts.params import PromptsParams
    from clipcifar.store import inputs
    from clipcifar.store.model import ModelDescription, check_described

    settings = params.load(PARAMS)
    active = params.read(settings, "prompts", PromptsParams).active
    texts_path = texts_of(active, Path())
    refuse_stale({IMAGES: IMAGES, texts_path: f"the active set {active}"})
    images = inputs.requested_images(Path(IMAGES), settings)
    model = ModelDescription.read(Path("data/model.json"))
    check_described(images.attributes, model)
    texts = inputs.matching_texts(Path(texts_path), images)
    device = params.read(settings, "embed", EmbedParams).device
    embedder = SentenceEmbedder(model, Path("data/weights"), device, repository=Path())
    bench = Bench(images, texts, embedder.embed_rows)
    bench.check(arguments.on)
    if arguments.prompts:
        trial = bench.run(bench.from_templates(arguments.prompts), on=arguments.on)
        return answer(trial, on=arguments.on, active=active)
    print("loading the text tower …", file=sys.stderr)
    embedder.load()
    dataset = str(images.attributes["dataset"])
    console = Console(bench, active=active, params_path=PARAMS, dataset=dataset, on=arguments.on)
    interact(console)
    return ""


TRY = Command(
    _try,
    help="try a prompt at once",
    description="Score a prompt against the active set from cached embeddings; without one, ask.",
    arguments=_try_arguments,
)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _search_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--top", type=_positive, default=10, metavar="N", help="single templates shown (default 10)"
    )
    parser.add_argument("--write", metavar="NAME", help="keep the chosen prompts as a set in params.yaml")


@in_project()
def _search(arguments: Namespace) -> str:
    from clipcifar.prompts.save import compact, save_set
    from clipcifar.report import ranking
    from clipcifar.store.classes import read_classes

    refuse_without_train("a search ranks templates on")
    results = {"data/ranking.json": "the ranking"}
    if arguments.write is not None:
        refuse_stale(results)
    ranked = ranking.read(Path("data/ranking.json"))
    stale = [line for reason in stale_results(results) for line in (str(reason), "")]
    lines = [*stale, *ranking.summary(ranked, top=arguments.top)]
    if arguments.write is not None:
        classes = read_classes(Path("data/classes.json"))
        lines += ["", save_set(PARAMS, arguments.write, compact(ranked["set"]), **classes)]
        if doubt := ranking.doubt(ranked):
            lines += [f"written, though {doubt}"]
    return "\n".join(lines)


SEARCH = Command(
    _search,
    help="the best prompts, chosen on train images",
    description="What the stage rank_prompts found among the templates of your sets and of a pool.",
    arguments=_search_arguments,
)
