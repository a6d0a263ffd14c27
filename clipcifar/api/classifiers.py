"""The classifiers of a project: what its methods made, and zero-shot by its prompt sets or anything typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import classifier, sides
from clipcifar.api.classifier import Classifier
from clipcifar.api.given import texts
from clipcifar.api.opened import Opened, check_name
from clipcifar.api.pictures import PictureEmbedder
from clipcifar.core import params
from clipcifar.core.errors import ConfigError
from clipcifar.evaluation.names import METHODS
from clipcifar.methods.zero_shot import SentenceWeights
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.typed import expand_typed
from clipcifar.report import ranking
from clipcifar.store import inputs
from clipcifar.store.embeddings import ImageEmbeddings, TextEmbeddings
from clipcifar.store.places import IMAGES, MODEL, RANKING, SPLITS, head_of, predictions_of
from clipcifar.store.predictions import Predictions, read_predictions


def check_method(opened: Opened, method: object) -> None:
    """Raise ConfigError where a method is asked for by another name; of a prompt set, with what to ask."""
    if isinstance(method, str) and method in set(sides.embedded_sets(opened.root)) - set(METHODS):
        raise ConfigError(
            f"{method!r} is a prompt set, and no method",
            fix=f"project.zero_shot({method!r}) is its classifier; else use one of: {', '.join(METHODS)}",
        )
    check_name(method, METHODS, what="method")


def scored(opened: Opened, method: str) -> Predictions:
    """What a method says of the test images; see `Project.scored`."""
    check_method(opened, method)
    path = predictions_of(method)
    with opened.fresh({path: method}, learner=method):
        return read_predictions(opened.root / path)


def prompt_set(opened: Opened, name: str) -> tuple[TextEmbeddings, ImageEmbeddings]:
    """An embedded prompt set, see `Project.prompt_set`, and the images in whose space it is."""
    embedded = sides.embedded_sets(opened.root)
    if isinstance(name, str) and name not in embedded:
        with opened.explained():
            sides.check_embedded(name, opened.root)
    check_name(name, embedded, what="embedded prompt set")
    path = sides.texts_of(name, opened.root)
    with opened.fresh({path: f"the set {name}", IMAGES: IMAGES}):
        images = opened.images()
        return inputs.matching_texts(opened.root / path, images), images


def embed_sentences(opened: Opened, sentences: list[str]) -> NDArray[np.float32]:
    """Embed S sentences, (S, D) float32 unit rows."""
    with opened.fresh({MODEL: MODEL}):
        return opened.embed_sentences(opened.model(), sentences)


def of_method(opened: Opened, method: str) -> Classifier:
    """What a method made; see `Project.classifier`."""
    check_method(opened, method)
    if method == "zero_shot":
        return of_prompt_set(opened, None)
    temperature = float(scored(opened, method).attributes["temperature"])
    if method == "rank_prompts":
        with opened.fresh({RANKING: "the ranking"}):
            ranked = ranking.read(opened.root / RANKING)
        if ranked["set"] is None:  # the active one is kept
            return replace(of_prompt_set(opened, ranked["active"]), name=method)
        return _of_typed(opened, ranked["set"], name=method)
    from clipcifar.methods.classifiers import head  # scipy, which images and sentences do without

    path = head_of(method)
    with opened.fresh({path: f"the head of {method}", IMAGES: IMAGES}):
        images = opened.images()
        embed = PictureEmbedder.of(opened, images)
        logits = head(opened.root / path, images, method=method)
    dim = images.test.embeddings.shape[1]
    return Classifier(method, images.class_names, temperature, dim, logits, embed)


def of_prompt_set(opened: Opened, name: str | None) -> Classifier:
    """Zero-shot by an embedded set; None for the active one."""
    if name is None:
        name = params.read(opened.settings, "prompts", PromptsParams).active
    of_set, images = prompt_set(opened, name)
    return _zero_shot(opened, name, images, of_set.embeddings, of_set.class_index, of_set.weights)


def of_templates(opened: Opened, templates: object) -> Classifier:
    """Zero-shot by templates, a list of texts with `{classname}`, for the classes of the dataset."""
    values = {"template_mode": "shared", "templates": texts(templates, what="template")}
    return _of_typed(opened, values, name="templates")


def of_labels(opened: Opened, labels: object) -> Classifier:
    """Zero-shot by labels, a list of texts, that are the classes themselves; the dataset is not asked."""
    names = texts(labels, what="label")
    with opened.fresh({MODEL: MODEL}):
        embed = PictureEmbedder.of(opened)
        rows = opened.embed_sentences(embed.model, names)
    return classifier.of_labels(names, rows, logit_scale=embed.model.logit_scale, embed=embed)


def _of_typed(opened: Opened, values: Mapping[str, Any], *, name: str) -> Classifier:
    with opened.fresh({IMAGES: IMAGES, MODEL: MODEL}):
        images = opened.images()
        dataset = str(images.attributes["dataset"])
        prompts = expand_typed(values, class_names=images.class_names, dataset=dataset)
        rows = opened.embed_sentences(opened.model(images), prompts.sentences)
    return _zero_shot(opened, name, images, rows, np.array(prompts.class_index), prompts.weights)


def _zero_shot(
    opened: Opened,
    name: str,
    images: ImageEmbeddings,
    embeddings: NDArray[np.float32],
    class_index: NDArray[np.int64],
    weights: SentenceWeights,
) -> Classifier:
    """The classifier of sentences in the space of `images`, which were asked about and are not read again."""
    with opened.fresh({SPLITS: SPLITS}):
        embed, val = PictureEmbedder.of(opened, images), opened.val(images)
        return classifier.zero_shot(
            name, embeddings, class_index, images=images, val=val, embed=embed, sentence_weights=weights
        )
