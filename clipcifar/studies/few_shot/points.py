"""What is known of a method at a number of images, and of all of them."""

from __future__ import annotations

from dataclasses import dataclass

from clipcifar.evaluation.crossed import Crossed, Spread
from clipcifar.evaluation.signs import LEVEL
from clipcifar.evaluation.verdict import APART


@dataclass(frozen=True)
class Point:
    """One method at one number of images per class.

    Attributes:
        shots: as a person reads it.
        n_train, n_val: images of one draw.
        accuracy: on test, over draws.
        versus: zero-shot, this method minus it.
        p_holm: corrected over all points.
        balanced_difference: the same in balanced accuracy, in [-1, 1].
        n_zero_shot: draws that chose zero-shot itself; None for a method that cannot.
    """

    shots: str
    method: str
    n_train: int
    n_val: int
    accuracy: Spread
    versus: Crossed
    p_holm: float
    balanced_difference: float
    n_zero_shot: int | None = None

    @property
    def outcome(self) -> str:
        """better, worse, or no difference shown."""
        if self.p_holm >= LEVEL:
            return "no difference shown"
        return "better" if self.versus.difference > 0 else "worse"

    @property
    def loses_balance(self) -> bool:
        """Whether balanced accuracy falls, and the accuracy is not shown to, nor falls likewise."""
        gap = min(0.0, self.versus.difference) - self.balanced_difference
        return self.outcome != "worse" and gap >= APART


@dataclass(frozen=True)
class Findings:
    """Every point, methods within numbers of images, and zero-shot on the same n test images.

    Attributes:
        weighted: zero-shot with weighted prompts, at no number of images.
    """

    points: list[Point]
    weighted: Point
    n_correct: int
    n: int
    num_classes: int

    @property
    def zero_shot(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.n_correct / self.n

    def of(self, method: str) -> list[Point]:
        """One method's points, by rising number of images."""
        return [point for point in self.points if point.method == method]
