"""Zero-shot classification from cached embeddings.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
section 3.1; prompt ensembling in embedding space, section 3.1.4. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError, DataError
from clipcifar.store.embeddings import TextEmbeddings
from clipcifar.store.rows import Embeddings

EQUAL = 1e-5  # between unit rows: a cosine within 5e-11 of 1; other machines differ by about 1e-6
NAMED = 10  # of many pairs of classes, so many are named
_BLOCK_ROWS = 4096
Rows = Sequence[NDArray[np.float32]] | NDArray[np.float32]  # S rows of D
SentenceWeights = Sequence[float] | NDArray[np.float64] | None  # S above 0, None where all count alike


def class_weights(
    embeddings: NDArray[np.float32], class_index: NDArray[np.int64], *, class_names: list[str]
) -> NDArray[np.float32]:
    """The zero-shot classifier: the mean of each class's sentence embeddings, normalised again.

    Args:
        embeddings: (S, D) float32 unit rows, or rows times the weight that each has in the mean.
        class_index: (S,) int64, the class that each sentence speaks for.
        class_names: C names, for messages.

    Returns:
        (C, D) float32 unit rows.

    Raises:
        DataError: a class has no sentence, or its sentences cancel out.
    """
    sums = np.zeros((len(class_names), embeddings.shape[1]), dtype=np.float64)
    order = np.argsort(class_index, kind="stable")
    starts = np.searchsorted(class_index[order], range(1, len(class_names)))
    for label, rows in enumerate(np.split(order, starts)):  # row by row as `np.add.at`, a tenth of its time
        sums[label] = embeddings[rows].sum(axis=0, dtype=np.float64)
    norms = np.linalg.norm(sums, axis=1)
    for name, norm in zip(class_names, norms, strict=True):
        if not norm > 0:
            raise DataError(
                f"the class {name!r} has no sentence with a direction", fix="check the prompt set"
            )
    return np.asarray(sums / norms[:, None], dtype=np.float32)


def first_of_equal(rows: Rows, groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each row, the first of its group that is the same.

    Sentences that become the same tokens have one embedding, to the last bit where one machine made both.
    Rows within `EQUAL` count as the same, so that another machine's last bits do not tell them apart: that
    is far below what a single other word makes, even of a mean over hundreds of sentences.

    Equal rows have equal projections. So rows are sorted by one of them, and compared with those that follow
    as long as projections agree: of S sentences, no S by S matrix.

    Args:
        rows: (S, D) float32 unit rows, or a list of them.
        groups: (S,) int64.

    Returns:
        (S,) int64 positions; a row that none before it equals has its own.
    """
    first = list(range(len(rows)))

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for i, j in _equal_pairs(rows, groups) if len(rows) > 1 else ():
        i, j = sorted((root(i), root(j)))
        first[j] = i
    return np.array([root(i) for i in range(len(rows))], dtype=np.int64)


def _equal_pairs(rows: Rows, groups: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Pairs of equal rows of one group: enough of them to lead from each row to all that are the same."""
    directions = np.cos(np.outer(np.arange(len(rows[0])) ** 2, [1.0, 2.0, 3.0]))
    furthest = EQUAL * np.linalg.norm(directions, axis=0)  # apart, for projections of equal rows
    blocks = [slice(i, i + _BLOCK_ROWS) for i in range(0, len(rows), _BLOCK_ROWS)]
    along = np.concatenate([np.asarray(rows[block]) @ directions for block in blocks])
    order = np.lexsort((along[:, 0], groups))
    along, groups = along[order], groups[order]
    places = np.arange(len(rows))
    for step in range(1, len(rows)):
        places = places[places + step < len(rows)]
        after = places + step
        near = (groups[places] == groups[after]) & (along[after, 0] - along[places, 0] <= furthest[0])
        places, after = places[near], after[near]
        if not len(places):
            return
        alike = (np.abs(along[after] - along[places]) <= furthest).all(axis=1)
        same = np.zeros(len(places), dtype=bool)
        for k in np.flatnonzero(alike).tolist():
            i, j = order[places[k]], order[after[k]]
            same[k] = np.linalg.norm(np.subtract(rows[i], rows[j], dtype=np.float64)) <= EQUAL
            if same[k]:
                yield int(i), int(j)
        places = places[~same]  # what equals such a row further on, equals the one it was compared with


def said_once(
    embeddings: NDArray[np.float32], class_index: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sentences without those that are, to the model, what their class says already.

    A tokenizer may drop case, accents or punctuation, and then a sentence would count twice in the mean.

    Args:
        embeddings: (S, D) float32 unit rows.
        class_index: (S,) int64.
    """
    kept = first_of_equal(embeddings, class_index) == np.arange(len(embeddings))
    return embeddings[kept], class_index[kept]


def text_classifier(
    embeddings: NDArray[np.float32],
    class_index: NDArray[np.int64],
    *,
    class_names: list[str],
    where: str,
    sentence_weights: SentenceWeights = None,
) -> NDArray[np.float32]:
    """The zero-shot classifier of sentences, each class's counted once: `class_weights` of `said_once`.

    Args:
        where: the sentences are from, for messages.
        sentence_weights: (S,) above 0, how much each counts in its class's mean; those of sentences that are
            the same to the model add up. None where all count alike.

    Raises:
        DataError: as `class_weights`.
        ConfigError: two classes have the same row, so that the second would never be said.
    """
    if sentence_weights is None:
        counted = said_once(embeddings, class_index)
    else:
        relative = np.asarray(sentence_weights, dtype=np.float64) / np.max(sentence_weights)
        counted = embeddings * relative.astype(np.float32)[:, None], class_index
    weights = class_weights(*counted, class_names=class_names)
    same = first_of_equal(weights, np.zeros(len(weights), dtype=np.int64))
    pairs = [f"{class_names[i]!r} and {class_names[j]!r}" for j, i in enumerate(same) if i != j]
    if pairs:
        more = f"; and {count_of(len(pairs) - NAMED, 'more pair')}" if len(pairs) > NAMED else ""
        raise ConfigError(
            f"to this model two classes are the same: {'; '.join(pairs[:NAMED])}{more}",
            where=where,
            fix="what tells them apart is dropped by its tokenizer, or unknown to it: rename one of the two, "
            "or say something else of it by class_names or sentences",
        )
    return weights


def repeated_note(
    embeddings: NDArray[np.float32],
    class_index: NDArray[np.int64],
    sentence_weights: SentenceWeights = None,
) -> str:
    """What a person should know of sentences that count once, to follow a sentence; else nothing."""
    number = len(embeddings) - len(said_once(embeddings, class_index)[1])
    if not number:
        return ""
    counted = count_of(number, "sentence becomes", "sentences become")
    once = "each counts once" if sentence_weights is None else "their weights add up"
    return f"; {counted} the same tokens as another of the class, and {once}"


def classifier(texts: TextEmbeddings) -> NDArray[np.float32]:
    """The zero-shot classifier of a prompt set, (C, D) float32 unit rows; see `text_classifier`."""
    where = f"prompt set {texts.attributes.get('prompt_set', '')}".rstrip()
    return text_classifier(
        texts.embeddings,
        texts.class_index,
        class_names=texts.class_names,
        where=where,
        sentence_weights=texts.weights,
    )


def logits(images: Embeddings, weights: NDArray[np.float32], *, logit_scale: float) -> NDArray[np.float32]:
    """Cosine similarity times the learned logit scale.

    Args:
        images: (N, D) float32 unit rows.
        weights: (C, D) float32 unit rows.
        logit_scale: the factor, about 100 for a trained CLIP.

    Returns:
        (N, C) float32.
    """
    scores: NDArray[np.float32] = images @ weights.T
    return np.asarray(np.float32(logit_scale) * scores)
