"""`clipcifar predict`: what photographs show, said by any prompt set, any method, or labels of one's own."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipcifar.cli import answers
from clipcifar.cli.answers import Answer
from clipcifar.cli.command import Command, complete_files, in_project, positive
from clipcifar.cli.formats import add_formats
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.terminal import note, one_line
from clipcifar.evaluation.names import METHODS

if TYPE_CHECKING:
    from clipcifar.api.classifier import Classifier
    from clipcifar.api.pictures import PictureEmbedder
    from clipcifar.datasets.loose_images import LooseImages

STDIN = "-"
_OWN_LABELS = "no temperature can be fitted for labels of your own"
_GONE = "there is no such file"
_NO_VAL = "the dataset has no val images to fit a temperature on"


def _arguments(parser: ArgumentParser) -> None:
    paths = parser.add_argument(
        "paths",
        nargs="+",
        metavar="FILE",
        help="images, folders of images, or - for a list of paths on standard input, one a line",
    )
    complete_files(paths)
    parser.add_argument(
        "-0", "--null", action="store_true", help="paths on standard input end in a zero byte"
    )
    by = parser.add_mutually_exclusive_group()
    by.add_argument("--method", choices=list(METHODS), default="zero_shot", help="(default zero_shot)")
    by.add_argument("--set", metavar="NAME", help="zero-shot with this prompt set (default the active one)")
    by.add_argument(
        "--text",
        metavar="LABELS",
        help='zero-shot with labels of your own: "a cat on a sofa; a dog outdoors"',
    )
    parser.add_argument("--top", type=positive, default=3, metavar="K", help="classes shown (default 3)")
    add_formats(
        parser,
        json_help="everything as one JSON document",
        csv_help="a row per image, written as answers come",
    )


def _predict(arguments: Namespace) -> str:
    """Paths are those of where the user is; the project is asked for its results alone."""
    from clipcifar.datasets.plain_files import shortened
    from clipcifar.store.dataset import counted

    labels = _labels(arguments)
    listed = _listed(arguments)
    with in_project():
        classifier, embedder = _loaded(arguments, labels, has_images=bool(listed.images))
    if classifier.temperature is None:
        reason = _NO_VAL if labels is None else _OWN_LABELS
        note(f"{reason}: confidences are at the model's own logit scale")
    if listed.left_out:
        note(f"left out: {counted(listed.left_out)}")
    top = min(arguments.top, len(classifier.class_names))
    failed = list(listed.unread)
    with (
        answers.shown_progress(len(listed.images)) as bar,
        closing(_answers(listed.images, classifier, embedder, top, failed, bar.update)) as batches,
    ):
        for text in _rendered(arguments, batches, classifier, listed, failed, top):
            answers.print_beside(bar, text)
    if failed:
        lines = [f"{one_line(str(path))}: {one_line(reason)}" for path, reason in failed]
        total = len(listed.images) + len(listed.unread)
        raise DataError(
            f"{len(failed):,} of {total:,} could not be read:\n    " + "\n    ".join(shortened(lines)),
            fix=_what_to_do(failed, total),
        )
    return ""


def _what_to_do(failed: Sequence[tuple[Path, str]], total: int) -> str:
    from clipcifar.datasets.plain_files import MAX_REPORTED

    advice = ["see what these are"]
    if len(failed) > MAX_REPORTED:
        advice.append("--json names all of them")
    if any(reason == _GONE and not path.is_absolute() for path, reason in failed):
        advice.append(f"a path that is not absolute begins in the current folder, {one_line(os.getcwd())}")
    if len(failed) < total:
        advice.append("all others are answered")
    return "; ".join(advice)


def _labels(arguments: Namespace) -> list[str] | None:
    """What is asked is checked before anything is read, and long before a tower is loaded."""
    if arguments.null and STDIN not in arguments.paths:
        raise ConfigError(
            "no paths are read from standard input", where="--null", fix="give - in place of a file"
        )
    if arguments.text is None:
        return None
    labels = [label.strip() for label in arguments.text.split(";") if label.strip()]
    if len(set(labels)) < max(2, len(labels)):
        fault = "a label is given twice" if len(labels) > 1 else "one label alone is always the answer"
        raise ConfigError(fault, where="--text", fix='give two or more: "a cat on a sofa; a dog outdoors"')
    return labels


def _listed(arguments: Namespace) -> LooseImages:
    """All images that are named, in the order of their names.

    Raises:
        DataError: something is named, and no image is there.
    """
    from clipcifar.datasets.loose_images import LooseImages, loose_images
    from clipcifar.store.dataset import counted

    listed = LooseImages()
    names: list[str] = []
    for given in arguments.paths:
        names += _on_stdin(arguments.null) if given == STDIN else [given]
    for name in names:
        if os.path.isdir(name):
            below = loose_images(Path(name))
            listed.images += below.images
            listed.unread += below.unread
            listed.left_out += below.left_out
        elif os.path.lexists(name):
            listed.images.append(Path(name))
        else:
            listed.unread.append((Path(name), _GONE))
    if not names:  # of a pipeline that found nothing this time
        note("no paths on standard input")
    elif not listed.images and not listed.unread:
        rest = f"; left out: {counted(listed.left_out)}" if listed.left_out else ""
        where = ", ".join(
            "standard input" if given == STDIN else one_line(given) for given in arguments.paths
        )
        raise DataError(f"no images there{rest}", where=where, fix="name images, or a folder that holds some")
    return listed


def _on_stdin(null: bool) -> Iterator[str]:
    content = sys.stdin.buffer.read() if sys.stdin is not None else b""
    for line in content.split(b"\0" if null else b"\n"):
        name = line if null else line.removesuffix(b"\r")
        if name:
            yield os.fsdecode(name)


def _loaded(
    arguments: Namespace, labels: Sequence[str] | None, *, has_images: bool
) -> tuple[Classifier, PictureEmbedder]:
    """What answers, checked to be fresh; and what embeds, whose tower is loaded if there are images."""
    from clipcifar.api.opened import Opened
    from clipcifar.api.pictures import PictureEmbedder
    from clipcifar.api.project import Project

    opened = Opened(Path.cwd(), on_note=cache(note))  # said once, however often it is asked
    project = Project(opened)
    if labels is not None:
        classifier = project.zero_shot(labels=labels)
    elif arguments.set is not None:
        classifier = project.zero_shot(arguments.set)
    else:
        try:
            classifier = project.classifier(arguments.method)
        except DataError as error:
            if error.where and not os.path.exists(error.where):
                error.fix += '; labels of your own need none of it: --text "a cat on a sofa; a dog outdoors"'
            raise
    if has_images:
        project.load()
    return classifier, PictureEmbedder.of(opened)


def _answers(
    paths: Sequence[Path],
    classifier: Classifier,
    embedder: PictureEmbedder,
    top: int,
    failed: list[tuple[Path, str]],
    on_image: answers.Count,
) -> Generator[list[Answer], None, None]:
    """Batch by batch the `top` most likely classes of each image; what cannot be read goes to `failed`."""
    import numpy as np

    from clipcifar.api.classifier import probabilities

    if not paths:
        return
    with closing(embedder.batches(paths, on_image=on_image)) as batches:
        for batch in batches:
            failed += [(paths[row], error.what) for row, error in batch.failed]
            scores = classifier.scores(batch.embeddings)
            shares = probabilities(scores, classifier.temperature)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :top]  # of equals the first, as everywhere
            yield [
                Answer(
                    paths[row],
                    [(classifier.class_names[label], float(of_image[label])) for label in labels.tolist()],
                )
                for row, labels, of_image in zip(batch.rows, best, shares, strict=True)
            ]


def _rendered(
    arguments: Namespace,
    batches: Iterator[list[Answer]],
    classifier: Classifier,
    listed: LooseImages,
    failed: Sequence[tuple[Path, str]],
    top: int,
) -> Iterator[str]:
    if arguments.csv:
        return answers.as_rows(batches, top=top)
    if not arguments.json:
        return answers.as_lines(batches, paths=listed.images, class_names=classifier.class_names, top=top)
    by = {
        "method": arguments.method,
        "prompt_set": classifier.name if arguments.method == "zero_shot" and not arguments.text else None,
        "class_names": classifier.class_names,
        "temperature": classifier.temperature,
    }
    return answers.as_document(batches, by=by, failed=failed, left_out=listed.left_out)


PREDICT = Command(
    _predict,
    help="what photographs show",
    description="Classify image files by a prompt set, a method or labels of your own. Folders are searched "
    "for images. Files that cannot be read are named at the end, and the exit code is 3 then.",
    arguments=_arguments,
)
