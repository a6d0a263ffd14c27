"""What a project holds, for programs that know nothing of it: plain arrays, and rows of a table.

Every array is of numbers or of text, so that NumPy reads it without pickles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.opened import Opened
from clipcifar.api.project import Project
from clipcifar.api.sides import ORIGIN
from clipcifar.api.tables import Columns, answers_of
from clipcifar.core import params
from clipcifar.core.errors import DataError
from clipcifar.evaluation.names import HEADS, LEARNING
from clipcifar.methods import zero_shot
from clipcifar.prompts.params import PromptsParams
from clipcifar.store.embeddings import ImageEmbeddings, TextEmbeddings
from clipcifar.store.heads import read_for
from clipcifar.store.places import IMAGES, head_of
from clipcifar.store.predictions import Predictions


@dataclass(frozen=True)
class Export:
    """What is handed out.

    Attributes:
        rows: columns of a table by name, (N,) each, or (N, D) for embeddings; nothing where it is no table.
        more: what goes with them: the class names in label order, scores, and where it is from.
    """

    rows: Columns
    more: Columns

    @property
    def arrays(self) -> Columns:
        """All of it."""
        return {**self.rows, **self.more}


def embeddings(opened: Opened) -> Export:
    """Every image: id, label, label_index, split (train, val or test), embedding (N, D) float32 unit rows."""
    images = Project(opened).images()
    names = np.array(images.class_names)
    rows = {
        "id": np.array(images.ids),
        "label": names[images.labels],
        "label_index": images.labels,
        "split": images.split,
        "embedding": images.embeddings,
    }
    return Export(rows, _about(opened.images()))


def sentences(opened: Opened) -> Export:
    """Every sentence of the embedded prompt sets, its class and weight, and (S, D) embeddings.

    Raises:
        DataError: there is none.
    """
    project = Project(opened)
    texts = {name: project.prompt_set(name) for name in project.prompt_sets}
    if not texts:
        raise DataError("no prompt set is embedded here", fix="run `dvc repro embed_texts`")
    class_index = np.concatenate([of_set.class_index for of_set in texts.values()])
    rows = {
        "set": np.array([name for name, of_set in texts.items() for _ in of_set.sentences]),
        "class": np.array(opened.images().class_names)[class_index],
        "class_index": class_index,
        "sentence": np.array([sentence for of_set in texts.values() for sentence in of_set.sentences]),
        "weight": np.concatenate([_weights(of_set) for of_set in texts.values()]),
        "embedding": np.concatenate([of_set.embeddings for of_set in texts.values()]),
    }
    return Export(rows, _about(opened.images()))


def _weights(texts: TextEmbeddings) -> NDArray[np.float64]:
    """(S,) how much each sentence counts, 1 where all count alike."""
    return np.ones(len(texts.sentences)) if texts.weights is None else texts.weights


def predictions(opened: Opened) -> Export:
    """Every test image: id, label, label_index, and of each method predicted, probability and margin.

    Columns of a method begin with its name: `zero_shot_predicted`; what they say, `answers_of` does.

    Raises:
        DataError: the methods' answers are of different images.
    """
    scored, rows, scores = _scored(opened), Columns(), Columns()
    for method, of_method in scored.items():
        answers = answers_of(of_method)
        images = {name: answers.pop(name) for name in ("id", "label")} | {"label_index": of_method.labels}
        if any(not np.array_equal(column, rows.get(name, column)) for name, column in images.items()):
            raise DataError(f"{method} and {next(iter(scored))} are of other images", fix="run `dvc repro`")
        rows |= {**images, **{f"{method}_{name}": column for name, column in answers.items()}}
        scores |= {f"{method}_scores": of_method.scores, f"{method}_temperature": _temperature(of_method)}
    return Export(rows, {**scores, **_about(opened.images())})


def heads(opened: Opened) -> Export:
    """What turns embeddings into scores: zero-shot with the active set, and each head that was stored.

    Arrays are named <method>/<array>; docs/export.md shows what to do with them.
    """
    scored, images = _scored(opened), opened.images()
    arrays: Columns = {}
    for method, of_method in scored.items():
        if method == "zero_shot":
            active = params.read(opened.settings, "prompts", PromptsParams).active
            weights = zero_shot.classifier(Project(opened).prompt_set(active))
            of_head: Columns = {"weights": weights, "logit_scale": np.array(images.logit_scale)}
        elif method in HEADS:
            path = head_of(method)
            with opened.fresh({path: f"the head of {method}", IMAGES: IMAGES}):
                of_head = dict(read_for(opened.root / path, images, method=method)[0])
        else:
            continue  # zero-shot with other prompts, which `clipcifar search --write` keeps as a set
        of_head["temperature"] = _temperature(of_method)
        arrays |= {f"{method}/{name}": array for name, array in of_head.items()}
    return Export({}, {**arrays, **_about(images)})


def _scored(opened: Opened) -> dict[str, Predictions]:
    """What the methods that can have been run said of the test images."""
    project = Project(opened)
    first = project.scored("zero_shot")
    learned = [name for name in project.methods if name in LEARNING]
    if "temperature" not in first.attributes:  # no val: what lies here of others is of an earlier dataset
        learned = []
    return {"zero_shot": first, **{method: project.scored(method) for method in learned}}


def _temperature(predictions: Predictions) -> NDArray[np.float64]:
    """What scores are divided by for probabilities; 1 leaves them, where there was no val image to fit it."""
    return np.array(float(predictions.attributes.get("temperature", 1)))


def _about(images: ImageEmbeddings) -> Columns:
    """The class names in label order, and which data and backbone it is of."""
    origin = {name: np.array(str(images.attributes[name])) for name in ORIGIN}
    return {
        "class_names": np.array(images.class_names),
        **origin,
        "logit_scale": np.array(images.logit_scale),
    }
