"""Which images change hands: what two classifiers call them, class by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FLOWS_SHOWN = 10


@dataclass(frozen=True)
class Flow:
    """How many images of a class A and B call differently: `label` said as `from_a`, now `to_b`."""

    label: str
    from_a: str
    to_b: str
    n: int


def flows(
    predicted_a: NDArray[np.int64],
    predicted_b: NDArray[np.int64],
    labels: NDArray[np.int64],
    class_names: list[str],
) -> list[Flow]:
    """The largest flows first, `FLOWS_SHOWN` at most."""
    changed, num_classes = predicted_a != predicted_b, len(class_names)
    codes = (labels[changed] * num_classes + predicted_a[changed]) * num_classes + predicted_b[changed]
    kinds, counts = np.unique(codes, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:FLOWS_SHOWN]
    return [
        Flow(
            label=class_names[kinds[row] // num_classes**2],
            from_a=class_names[kinds[row] // num_classes % num_classes],
            to_b=class_names[kinds[row] % num_classes],
            n=int(counts[row]),
        )
        for row in largest
    ]
