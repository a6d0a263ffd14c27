"""The two sides of a comparison: what a person names, as predictions on the test images."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.core import params
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.params import nearest, suggestion
from clipcifar.evaluation.names import METHODS, SEEDED
from clipcifar.methods import zero_shot
from clipcifar.project import freshness, revisions
from clipcifar.prompts.params import PromptsParams
from clipcifar.store.embeddings import check_same_space, read_texts
from clipcifar.store.fields import class_names_of
from clipcifar.store.images import read_images
from clipcifar.store.names import positions
from clipcifar.store.places import ACTIVE, IMAGES, TEXTS, predictions_of
from clipcifar.store.predictions import Predictions, inherited, read_predictions
from clipcifar.store.prompt_set import left_out, words_of_left_out

Kind = Literal["workspace", "method", "set", "rev"]
WORKSPACE = "workspace"
ORIGIN = ("dataset", "model", "pretrained", "weights_sha256")  # what a result is of, wherever it is read


@dataclass(frozen=True)
class Aligned:
    """Two sets of predicted classes on the same images in the same order.

    Attributes:
        predicted_a, predicted_b: (N,) int64.
        labels: (N,) int64.
        class_names: C names in label order.
        copies: (N,), equal where two images are exact copies; None where none is one.
        seeds_a, seeds_b: (R, N) int64, what each seed says whose answers are kept; None of a side that is
            not trained from seeds.
    """

    predicted_a: NDArray[np.int64]
    predicted_b: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: list[str]
    copies: NDArray[np.int64] | None = None
    seeds_a: NDArray[np.int64] | None = None
    seeds_b: NDArray[np.int64] | None = None


def kind_of(name: str, repository: Path) -> tuple[Kind, str]:
    """What a person means by a name, and the name without its prefix.

    In this order: "workspace", a method of the workspace, a prompt set embedded in the workspace, a
    git revision or DVC experiment. `method:`, `set:` and `rev:` before the name say which is meant.

    Raises:
        ConfigError: there is no name, or what the prefix says is not there.
    """
    prefix, _, rest = name.rpartition(":")
    if prefix not in ("", "method", "set", "rev"):
        prefix, rest = "", name
    if not rest:
        raise ConfigError(
            "a side of the comparison has no name", fix="name a prompt set, a method or a commit"
        )
    if prefix == "rev":
        return "rev", rest
    if prefix == "method" and rest not in METHODS:
        raise ConfigError(f"unknown method {rest!r}", fix=suggestion(rest, METHODS))
    sets = embedded_sets(repository)
    if prefix == "set" and rest not in sets:
        check_embedded(rest, repository)
        raise ConfigError(f"there is no embedded prompt set {rest!r}", fix=suggestion(rest, sets))
    if not prefix and rest == WORKSPACE:
        return "workspace", rest
    if prefix == "method" or (not prefix and rest in METHODS):
        return "method", rest
    return ("set", rest) if rest in sets else ("rev", rest)


def check_embedded(name: str, repository: Path) -> None:
    """Raise DataError where a name is that of a set in params.yaml whose embeddings are not here."""
    path = repository / texts_of(name, repository)
    with suppress(ConfigError):  # of params.yaml; nothing is said of it where a name is what is wrong
        settings = params.load(repository / "params.yaml")
        prompt_sets = params.read(settings, "prompts", PromptsParams).sets
        if name in prompt_sets and not path.is_file():
            of_set, of_project = prompt_sets[name], settings.get("dataset")
            if isinstance(of_set, dict) and isinstance(of_project, dict):
                is_for, is_here = of_set.get("dataset"), of_project.get("name")
                if is_for not in (None, is_here):
                    here = embedded_sets(repository)
                    raise DataError(
                        f"the prompt set {name!r} is for {is_for}, and the dataset is {is_here}",
                        fix=f"use one of: {', '.join(here)}" if here else "run `dvc repro embed_texts`",
                    )
            raise DataError(
                f"the prompt set {name!r} is not embedded here",
                where=str(path),
                fix=_how_to_embed(name, repository),
            )


def _how_to_embed(name: str, repository: Path) -> str:
    too_large = left_out(repository / TEXTS)
    return words_of_left_out({name: too_large[name]}) if name in too_large else "run `dvc repro embed_texts`"


def embedded_sets(repository: Path) -> list[str]:
    """Names of the prompt sets whose embeddings are here."""
    return sorted({path.stem for folder in (TEXTS, ACTIVE) for path in (repository / folder).glob("*.h5")})


def texts_of(name: str, repository: Path) -> str:
    """The file of an embedded set; of the active one's two, whose stages run apart, one that is fresh.

    Where none is, one that `dvc pull` or `dvc checkout` brings: that is less than to run a stage.
    """
    paths = [f"{folder}/{name}.h5" for folder in (TEXTS, ACTIVE)]
    made = [path for path in paths if (repository / path).is_file()]
    if len(made) < len(paths):
        return made[0] if made else paths[0]
    stale = freshness.stale_results(repository, {path: path for path in paths})
    return min(paths, key=lambda path: [not reason.is_other_file for reason in stale if reason.name == path])


def load(name: str, *, repository: Path, method: str) -> Predictions:
    """Predictions of what a person named; see `kind_of`.

    Args:
        name: of the side.
        repository: root of the project.
        method: whose predictions are meant by the workspace or a revision.

    Raises:
        ConfigError: nothing of that name is there.
        DataError: a file is damaged.
    """
    kind, rest = kind_of(name, repository)
    if kind == "workspace":
        return read_predictions(repository / predictions_of(method))
    if kind == "method":
        return read_predictions(repository / predictions_of(rest))
    if kind == "set":
        return _of_prompt_set(repository / IMAGES, repository / texts_of(rest, repository))
    try:
        return revisions.predictions_at(repository, rest, predictions_of(method))
    except ConfigError as error:
        check_embedded(rest, repository)
        scored = [name for name in METHODS if (repository / predictions_of(name)).is_file()]
        known = [*embedded_sets(repository), *scored]
        near = nearest(rest, [*known, WORKSPACE])
        meant = f"did you mean {near}? Else " if near else ""
        error.fix = (
            f"{meant}{error.fix}; without a commit, compare two of the prompt sets and methods here: "
            f"{', '.join(known)}"
            if known
            else f"nothing was run here yet: run `dvc repro`; then {error.fix}"
        )
        raise


def files_of(name: str, *, repository: Path, method: str) -> dict[str, str]:
    """The files that a side of the workspace is read from, by path what a person calls them."""
    kind, rest = kind_of(name, repository)
    if kind == "rev":
        return {}
    if kind == "set":
        return {IMAGES: IMAGES, texts_of(rest, repository): rest}
    shown = rest if kind == "method" else method
    return {predictions_of(shown): shown}


def note_of(name: str, *, repository: Path, method: str) -> str | None:
    """What is to be known of a revision whose results are not of its own params.yaml; of others nothing."""
    kind, rest = kind_of(name, repository)
    if kind != "rev":
        return None
    stale = revisions.stale_at(repository, rest, predictions_of(method))
    return f"{stale.what} (no run of it before the commit, or one that failed)" if stale else None


def _of_prompt_set(images_path: Path, texts_path: Path) -> Predictions:
    images, texts = read_images(images_path), read_texts(texts_path)
    check_same_space(images, texts)
    weights = zero_shot.classifier(texts)
    scores = zero_shot.logits(images.test.embeddings, weights, logit_scale=images.logit_scale)
    return Predictions(
        scores, images.test.labels, images.test.ids, inherited(images.attributes), images.test.copies
    )


def origin_of(predictions: Predictions) -> dict[str, str]:
    """Which images they are of, and which backbone's embeddings."""
    return {name: str(predictions.attributes[name]) for name in ORIGIN}


def _of_seeds(side: Predictions) -> NDArray[np.int64] | None:
    """As `Aligned` has them; a file of before they were kept has the answers of the seed it reports."""
    if side.by_seed is None and side.attributes.get("method") in SEEDED:
        return side.predicted[None]
    return side.by_seed


def align(a: Predictions, b: Predictions) -> Aligned:
    """Join two sides by sample id.

    Raises:
        DataError: they are of other images, labels or classes.
    """
    rows = positions(a.ids, b.ids)
    is_same = len(a.ids) == len(b.ids) and (rows >= 0).all()
    if not is_same or a.attributes["class_names"] != b.attributes["class_names"]:
        raise DataError(
            f"the two sides are of different images ({len(a.ids)} and {len(b.ids)}) or classes",
            fix="compare runs of the same dataset and subset",
        )
    if (b.labels[rows] != a.labels).any():
        raise DataError("the two sides give the same image different labels", fix="run `dvc repro` for both")
    seeds_b = _of_seeds(b)
    return Aligned(
        a.predicted,
        b.predicted[rows],
        a.labels,
        class_names_of(a.attributes),
        a.copies if a.copies is not None or b.copies is None else b.copies[rows],
        _of_seeds(a),
        None if seeds_b is None else seeds_b[:, rows],
    )
