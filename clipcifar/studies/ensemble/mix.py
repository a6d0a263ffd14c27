"""Zero-shot and a trained method together: one coefficient between them, chosen on val.

- "weights": the weights of two linear classifiers are interpolated, as WiSE-FT does with all weights of a
  network (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models", CVPR,
  https://arxiv.org/abs/2109.01903). The zero-shot classifier's weights are its unit rows times the logit
  scale. Logits are linear in the weights here, so this is the same as mixing the two methods' logits.
- "logits": logits are mixed after each method's temperature. It is the same family as "weights", passed
  through at another pace: equal confidence rather than equal scale.
- "probabilities": the probabilities after those temperatures are averaged, a family of its own.

The val logits of a trained method must come from a fit that has not learnt val.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from clipcifar.evaluation.calibration import fit_temperature, log_softmax
from clipcifar.evaluation.metrics import accuracy
from clipcifar.evaluation.selection import Standing, most_accurate, standing
from clipcifar.methods.linear import Linear

How = Literal["weights", "logits", "probabilities"]


@dataclass(frozen=True)
class Side:
    """One of the two: (N, C) float32 logits on val and on test, and the temperature that val gave it."""

    val: NDArray[np.float32]
    test: NDArray[np.float32]
    temperature: float


@dataclass(frozen=True)
class Pair:
    """Zero-shot, at coefficient 0, and a trained method, at 1."""

    method: str
    how: How
    zero_shot: Side
    trained: Side

    def val(self, coefficient: float) -> NDArray[np.float32]:
        """(N, C) logits of the mix on val."""
        return self._mixed(self.zero_shot.val, self.trained.val, coefficient)

    def test(self, coefficient: float) -> NDArray[np.float32]:
        """(N, C) logits of the mix on test."""
        return self._mixed(self.zero_shot.test, self.trained.test, coefficient)

    def _mixed(
        self, zero_shot: NDArray[np.float32], trained: NDArray[np.float32], coefficient: float
    ) -> NDArray[np.float32]:
        if self.how == "weights":
            return mixed_logits(zero_shot, trained, coefficient)
        cooled = zero_shot / np.float32(self.zero_shot.temperature)
        of_trained = trained / np.float32(self.trained.temperature)
        if self.how == "logits":
            return mixed_logits(cooled, of_trained, coefficient)
        return mixed_probabilities(cooled, of_trained, coefficient)


@dataclass(frozen=True)
class Choice:
    """What val says of a pair.

    Attributes:
        coefficient: chosen, in [0, 1].
        temperature: that the chosen mix's logits should be divided by.
        curve: every coefficient that was tried, with its standing.
    """

    coefficient: float
    temperature: float
    curve: list[tuple[float, Standing]]


def mixed_logits(a: NDArray[np.float32], b: NDArray[np.float32], coefficient: float) -> NDArray[np.float32]:
    """(1 - coefficient) a + coefficient b, float32."""
    return np.asarray(np.float32(1 - coefficient) * a + np.float32(coefficient) * b)


def mixed_probabilities(
    a: NDArray[np.float32], b: NDArray[np.float32], coefficient: float
) -> NDArray[np.float32]:
    """The log of (1 - coefficient) softmax(a) + coefficient softmax(b), row-wise, float32."""
    if coefficient in (0, 1):
        return log_softmax(b if coefficient else a).astype(np.float32)
    of_a, of_b = np.log1p(-coefficient) + log_softmax(a), np.log(coefficient) + log_softmax(b)
    return np.asarray(np.logaddexp(of_a, of_b), dtype=np.float32)


def interpolated(
    class_weights: NDArray[np.float32], probe: Linear, *, logit_scale: float, coefficient: float
) -> Linear:
    """The linear classifier between zero-shot and a linear probe.

    Args:
        class_weights: (C, D) float32 unit rows.
    """
    return Linear(
        mixed_logits(np.float32(logit_scale) * class_weights, probe.coefficients, coefficient),
        np.float32(coefficient) * probe.intercepts,
    )


def pairs(zero_shot: Side, trained: dict[str, Side], *, linear: set[str]) -> list[Pair]:
    """Every way to mix zero-shot with each trained method; weights where the method is `linear`."""
    ways: tuple[How, ...] = ("weights", "logits", "probabilities")
    return [
        Pair(method, how, zero_shot, side)
        for method, side in trained.items()
        for how in ways
        if how != "weights" or method in linear
    ]


def choose(pair: Pair, labels: NDArray[np.int64], *, steps: int) -> Choice:
    """The coefficient that is most accurate on val, by likelihood among equals, then nearest to zero-shot.

    Args:
        labels: (N,) of val.
        steps: from 0 to 1.
    """
    coefficients = [step / steps for step in range(steps + 1)]
    curve = [(coefficient, standing(pair.val(coefficient), labels)) for coefficient in coefficients]
    chosen = coefficients[most_accurate([of_val for _, of_val in curve])]
    return Choice(chosen, fit_temperature(pair.val(chosen), labels), curve)


def of_weights(pairs: list[Pair], choices: list[Choice]) -> Choice:
    """The choice for the weights of the linear probe."""
    return next(choice for pair, choice in zip(pairs, choices, strict=True) if pair.how == "weights")


def curve_rows(pair: Pair, choice: Choice, labels: NDArray[np.int64], *, title: str) -> list[dict[str, Any]]:
    """The curve as CSV rows; accuracies on test, whose (N,) labels these are, are for showing only."""
    return [
        {
            "method": title,
            "coefficient": coefficient,
            "val_accuracy": of_val.accuracy,
            "val_nll": of_val.nll,
            "test_accuracy": accuracy(pair.test(coefficient), labels),
            "chosen": coefficient == choice.coefficient,
        }
        for coefficient, of_val in choice.curve
    ]
