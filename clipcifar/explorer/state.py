"""What the explorer's pages show at a time: results, and the prompts tried on them."""

from __future__ import annotations

from dataclasses import dataclass

from clipcifar.api.bench import SplitName, Typed
from clipcifar.api.trials import Counted
from clipcifar.evaluation.compare import Comparison
from clipcifar.explorer.answers import TRIED, Answers
from clipcifar.explorer.results import Results


@dataclass(frozen=True)
class Tried:
    """One prompt of the session.

    Attributes:
        typed: what was typed.
        title: the same, and what it stands on where it is one class's own.
        on: the images that it was tried on.
        comparison: with the active set, its classes corrected over all trials.
        counted: the trial among all of its family, as it was then.
        lines: what is said of it, as `clipcifar try` says it.
    """

    typed: Typed
    title: str
    on: SplitName
    comparison: Comparison
    counted: Counted
    lines: list[str]


@dataclass(frozen=True)
class State:
    """What a page shows: results, and what was tried on them. It is replaced as a whole, never changed.

    Attributes:
        results: as they were read last.
        history: the prompts of the session, the last of them last.
        tried: what the last one says of the images that it was tried on.
        step: tells the history from another, for a page that is open meanwhile.
    """

    results: Results
    history: tuple[Tried, ...] = ()
    tried: Answers | None = None
    step: int = 0

    @property
    def last(self) -> Tried | None:
        """The prompt tried last."""
        return self.history[-1] if self.history else None

    def answers(self, split: str) -> dict[str, Answers]:
        """What classifiers say of a split: the methods, and the prompt tried last if that was tried on it."""
        answers = self.results.of_test if split == "test" else self.results.of_train
        is_of_split = self.last is not None and self.last.on == split
        return {**answers, TRIED: self.tried} if self.tried is not None and is_of_split else answers
