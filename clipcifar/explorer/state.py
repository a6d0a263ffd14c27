"""What the explorer's pages show at a time: results, and the prompts tried on them."""

from __future__ import annotations

from dataclasses import dataclass

from clipcifar.api.bench import SplitName, Typed
from clipcifar.api.trials import Counted
from clipcifar.evaluation.compare import Comparison
from clipcifar.explorer.answers import TRIED, Answers
from clipcifar.explorer.results import Results

_NAMED = 3  # layers in a title


@dataclass(frozen=True)
class Tried:
    """One prompt of the session.

    Attributes:
        typed: what was typed.
        layers: it, and what it stands on: earlier lines, of other classes, and a prompt of all.
        on: the images that it was tried on.
        comparison: with the active set, its classes corrected over all trials.
        counted: the trial among all of its family, as it was then.
        lines: what is said of it, as `clipcifar try` says it.
    """

    typed: Typed
    layers: tuple[str, ...]
    on: SplitName
    comparison: Comparison
    counted: Counted
    lines: list[str]

    @property
    def title(self) -> str:
        """What is said of it in a line."""
        more = f", and {len(self.layers) - _NAMED} more" if len(self.layers) > _NAMED else ""
        return ", on top of ".join(self.layers[:_NAMED]) + more

    def layers_below(self, line: str) -> tuple[str, ...]:
        """What a line of one class stands on, on top of this: an earlier one of that class is replaced."""
        return tuple(layer for layer in self.layers if _class_of(layer) != _class_of(line))


def _class_of(line: str) -> str:
    return line.partition(":")[0].strip()


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
