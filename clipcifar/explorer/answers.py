"""What classifiers say of the images of a split, and which images a person asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.classifier import probabilities
from clipcifar.core.errors import ConfigError
from clipcifar.core.params import suggestion
from clipcifar.evaluation.names import METHODS

SPLITS = ("test", "train")
RESULTS = {"": "right or wrong", "right": "right", "wrong": "wrong"}
OUTCOMES = {"": "any outcome", "won": "won", "lost": "lost", "changed": "another answer"}
ORDERS = {
    "dataset": "as in the dataset",
    "unsure": "smallest margin first",
    "sure": "largest margin first",
    "disagreement": "most disagreement first",
}
PAGE = 60  # images
TRIED = "tried"  # whose answers those of the prompt tried last are
_ROWS = 4096


@dataclass(frozen=True)
class Answers:
    """One classifier's answers about N images.

    Attributes:
        title: what a person calls it.
        scores: (N, C) float32 logits, or cosines.
        temperature: what they are divided by for probabilities; None leaves them as they are.
    """

    title: str
    scores: NDArray[np.float32]
    temperature: float | None

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(N,) int64; of equal scores, the first class."""
        return np.asarray(self.scores.argmax(axis=1))

    @cached_property
    def margin(self) -> NDArray[np.float64]:
        """(N,) float64 in [0, 1], how much likelier the answer is than the next class."""
        margins = np.ones(len(self.scores))
        for start in range(0, len(self.scores) if self.scores.shape[1] > 1 else 0, _ROWS):
            shares = probabilities(self.scores[start : start + _ROWS], self.temperature)
            second, first = np.partition(shares, -2, axis=1)[:, -2:].T
            margins[start : start + _ROWS] = first - second
        return margins

    def probability(self, row: int) -> float:
        """Of what is said of one image, in [0, 1]."""
        return float(probabilities(self.scores[row : row + 1], self.temperature).max())


def disagreement(answers: Mapping[str, Answers]) -> NDArray[np.int64]:
    """(N,) int64, how many of the classifiers do not say what most of them say."""
    said = np.stack([of.predicted for of in answers.values()])
    agreeing = np.max([(said == own).sum(axis=0) for own in said], axis=0)
    return np.asarray(len(said) - agreeing)


def number_of(text: str, limit: int) -> int | None:
    """A whole number below a limit, as an address holds it; None for whatever else."""
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    return int(text) if is_number and int(text) < limit else None


@dataclass(frozen=True)
class Wanted:
    """Which images, in which order; a filter that is empty or None lets all pass.

    Attributes:
        split: "test" or "train".
        label: the true class.
        by: whose answers the other filters are about.
        called: the class that it says.
        result: "right" or "wrong".
        against: another classifier, for `outcome`.
        outcome: "won" (right, where the other is wrong), "lost", or "changed" (another answer).
        order: a key of `ORDERS`.
        page: from 1, of `PAGE` images each.
    """

    split: str = "test"
    label: int | None = None
    by: str = "zero_shot"
    called: int | None = None
    result: str = ""
    against: str = ""
    outcome: str = ""
    order: str = "dataset"
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str], answers: Mapping[str, Answers], num_classes: int) -> Wanted:
        """From the fields of a form.

        Raises:
            ConfigError: a field has a value that none has.
        """

        def choice(name: str, known: Mapping[str, object], default: str) -> str:
            value = query.get(name, default)
            if value not in known:
                kind = "method" if name in ("by", "against") else name
                raise ConfigError(f"there is no {kind} {value!r}", fix=suggestion(value, list(known)))
            return value

        def number(name: str, limit: int) -> int | None:
            value = query.get(name, "")
            if value and number_of(value, limit) is None:
                raise ConfigError(f"{name} is no number below {limit:,}", fix="choose it from the list")
            return number_of(value, limit)

        known = {**METHODS, TRIED: "", **answers}  # of which another split may have others
        by, outcome = choice("by", known, next(iter(answers))), choice("outcome", OUTCOMES, "")
        against = choice("against", {"": "", **known}, "")
        return cls(
            split=choice("split", dict.fromkeys(SPLITS), SPLITS[0]),
            label=number("label", num_classes),
            by=by if by in answers else next(iter(answers)),
            called=number("called", num_classes),
            result=choice("result", RESULTS, ""),
            against=against if against in answers else "zero_shot" if outcome else "",
            outcome=outcome,
            order=choice("order", ORDERS, "dataset"),
            page=max(number("page", 10**8) or 1, 1),
        )

    @property
    def query(self) -> str:
        """As the fields of an address; those left at their default are left out."""
        default, fields = Wanted(), vars(self)
        return urlencode({k: v for k, v in fields.items() if v is not None and v != getattr(default, k)})

    def at(self, page: int) -> Wanted:
        """The same, another page of it."""
        return replace(self, page=page)

    def rows(self, labels: NDArray[np.int64], answers: Mapping[str, Answers]) -> NDArray[np.int64]:
        """All rows that pass, in order.

        Args:
            labels: (N,) int64, the true classes.
            answers: of the same images.
        """
        own = answers[self.by]
        passing = np.ones(len(labels), dtype=bool)
        if self.label is not None:
            passing &= labels == self.label
        if self.called is not None:
            passing &= own.predicted == self.called
        if self.result:
            passing &= (own.predicted == labels) == (self.result == "right")
        if self.against and self.outcome:
            other = answers[self.against].predicted
            if self.outcome == "changed":
                passing &= own.predicted != other
            else:
                winner, loser = (own.predicted, other) if self.outcome == "won" else (other, own.predicted)
                passing &= (winner == labels) & (loser != labels)
        rows = np.flatnonzero(passing)
        if self.order == "dataset":
            return rows
        if self.order == "disagreement":
            return rows[np.argsort(-disagreement(answers)[rows], kind="stable")]
        sign = 1 if self.order == "unsure" else -1
        return rows[np.argsort(sign * own.margin[rows], kind="stable")]
