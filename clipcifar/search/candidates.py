"""What a search for prompts chooses among: every single template of all sets and of the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import DataError
from clipcifar.methods.zero_shot import first_of_equal
from clipcifar.prompts.templates import PLACEHOLDER, normal_form, spoken
from clipcifar.store.prompt_set import OWN_SENTENCES, PromptSet


@dataclass(frozen=True)
class Candidate:
    """One template, or one whole set in which each class has its own sentences.

    Attributes:
        template: the text with its placeholder, or `OWN_SENTENCES`.
        sets: the names of the sets that hold it.
        sentences: for each class, in label order, what it says.
    """

    template: str
    sets: list[str]
    sentences: list[list[str]]

    @property
    def label(self) -> str:
        """What a person calls it."""
        return self.template if self.template != OWN_SENTENCES else f"all of {self.sets[0]}"

    def is_plain(self, class_names: Sequence[str]) -> bool:
        """Whether the template alone says it all: one sentence per class, with the class's own name."""
        names = (spoken(name) for name in class_names)
        return self.sentences == [[self.template.replace(PLACEHOLDER, name)] for name in names]


def keys_of(embedding_of: Mapping[str, NDArray[np.float32]]) -> dict[str, str]:
    """One key for all sentences that are the same to the model, as where its tokenizer drops case.

    Args:
        embedding_of: each sentence's (D,) float32 unit vector.
    """
    texts, rows = list(embedding_of), list(embedding_of.values())
    first = first_of_equal(rows, np.zeros(len(rows), dtype=np.int64))
    return {text: normal_form(texts[i]) for text, i in zip(texts, first.tolist(), strict=True)}


def collect(
    sets: Sequence[PromptSet], *, num_classes: int, keys: Mapping[str, str] | None = None
) -> list[Candidate]:
    """The candidates of all sets, each once however many sets hold it, in order of appearance.

    A template that says of some class nothing but what another of its set says already is left out.

    Args:
        keys: equal where sentences are the same to the model; by default where they are written alike.
    """
    key_of = partial(_key, keys or {})
    candidates: dict[tuple[tuple[str, ...], ...], Candidate] = {}
    for prompt_set in sets:
        sentences: list[list[list[str]]] = [[[] for _ in range(num_classes)] for _ in prompt_set.templates]
        for label, template, sentence in zip(
            prompt_set.class_index, prompt_set.template_index, prompt_set.sentences, strict=True
        ):
            sentences[template][label].append(sentence)
        for template_text, by_class in zip(prompt_set.templates, sentences, strict=True):
            by_class = [
                list({key_of(text): text for text in reversed(own)}.values())[::-1] for own in by_class
            ]
            key = tuple(tuple(map(key_of, own)) for own in by_class)
            if not all(key):
                continue
            held_by = candidates.setdefault(key, Candidate(template_text, [], by_class)).sets
            if prompt_set.name not in held_by:  # which may hold several that are the same to the model
                held_by.append(prompt_set.name)
    return list(candidates.values())


def _key(keys: Mapping[str, str], text: str) -> str:
    return keys.get(text) or normal_form(text)


def sums(
    candidates: Sequence[Candidate], embedding_of: Mapping[str, NDArray[np.float32]]
) -> NDArray[np.float32]:
    """The sum of each candidate's sentence embeddings by class, not normalised.

    Sums of candidates add up: normalised, they are the classifier of a set with all their sentences.

    Args:
        candidates: T candidates.
        embedding_of: each sentence's (D,) float32 unit vector.

    Returns:
        (T, C, D) float32.

    Raises:
        DataError: a sentence was not embedded, or a class's sentences cancel out.
    """
    summed = []
    for candidate in candidates:
        missing = [text for own in candidate.sentences for text in own if text not in embedding_of]
        if missing:
            raise DataError(f"the sentence {missing[0]!r} was not embedded", fix="run `dvc repro`")
        rows = [np.sum([embedding_of[text] for text in own], axis=0) for own in candidate.sentences]
        if not (np.linalg.norm(rows, axis=1) > 0).all():
            raise DataError(f"the sentences of {candidate.label!r} cancel out", fix="check the prompt set")
        summed.append(rows)
    return np.array(summed, dtype=np.float32)


def tell_apart(sums: NDArray[np.float32]) -> list[int]:
    """Those of (T, C, D) float32 sums in which no two classes are the same to the model."""
    num_candidates, num_classes, dim = sums.shape
    rows = sums.reshape(-1, dim) / np.linalg.norm(sums.reshape(-1, dim), axis=1, keepdims=True)
    first = first_of_equal(rows, np.repeat(np.arange(num_candidates), num_classes))
    is_first = (first == np.arange(len(rows))).reshape(num_candidates, num_classes)
    return np.flatnonzero(is_first.all(axis=1)).tolist()


class Offered(NamedTuple):
    """What there is to choose among.

    Attributes:
        candidates, sums, clashes: T candidates with their (T, C, D) float32 sums, and who clashes with whom.
        note: to follow a sentence, how many more tell no classes apart; else nothing.
    """

    candidates: list[Candidate]
    sums: NDArray[np.float32]
    clashes: dict[int, set[int]]
    note: str


def offer(
    sets: Sequence[PromptSet], embedding_of: Mapping[str, NDArray[np.float32]], *, num_classes: int
) -> Offered:
    """All that there is to choose among, for a model to which sentences may be the same.

    Args:
        embedding_of: each sentence's (D,) float32 unit vector.
    """
    keys = keys_of(embedding_of)
    every = collect(sets, num_classes=num_classes, keys=keys)
    of_every = sums(every, embedding_of)
    telling = tell_apart(of_every)
    candidates, left_out = [every[i] for i in telling], len(every) - len(telling)
    note = f"; {left_out:,} left out, which say the same of two classes to this model" if left_out else ""
    return Offered(candidates, of_every[telling], clashes(candidates, keys), note)


def clashes(candidates: Sequence[Candidate], keys: Mapping[str, str] | None = None) -> dict[int, set[int]]:
    """For each candidate that shares a sentence with others: those others.

    Summed together they would use that sentence twice, where a prompt set counts it once.

    Args:
        keys: as `collect` has them.
    """
    holders: dict[str, set[int]] = {}
    for i, candidate in enumerate(candidates):
        for own in candidate.sentences:
            for text in own:
                holders.setdefault(_key(keys or {}, text), set()).add(i)
    clashing: dict[int, set[int]] = {}
    for together in holders.values():
        for i in together if len(together) > 1 else ():
            clashing.setdefault(i, set()).update(together - {i})
    return clashing


def averageable(
    candidates: Sequence[Candidate], clashing: Mapping[int, set[int]], *, class_names: Sequence[str]
) -> list[int]:
    """The candidates that a plain average is made of: single templates, none clashing with one before.

    Where there is no single template, the first candidate stands for the average.
    """
    averaged: list[int] = []
    for i, candidate in enumerate(candidates):
        if candidate.is_plain(class_names) and not clashing.get(i, set()) & set(averaged):
            averaged.append(i)
    return averaged or [0]


def as_set(
    chosen: Sequence[Candidate],
    *,
    class_names: list[str],
    dataset: str,
    weights: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The chosen candidates as one prompt set in params.yaml's own form.

    Args:
        chosen: at least one candidate; no two of them clash.
        class_names: C names in label order.
        dataset: the dataset's registry name.
        weights: above 0, of each candidate, where all are single templates; None where they count alike.

    Returns:
        A shared set where templates alone say it all, else every class's own sentences.
    """
    if all(candidate.is_plain(class_names) for candidate in chosen):
        templates = [candidate.template for candidate in chosen]
        weighted = {} if weights is None else {"weights": list(weights)}
        return {"template_mode": "shared", "templates": templates, **weighted}
    sentences = {
        name: [text for candidate in chosen for text in candidate.sentences[label]]
        for label, name in enumerate(class_names)
    }
    return {"template_mode": "per_class", "dataset": dataset, "sentences": sentences}
