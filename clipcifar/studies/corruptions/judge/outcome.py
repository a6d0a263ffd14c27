"""What was found about classifiers on corrupted images, before it becomes numbers or words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.files import Attribute
from clipcifar.evaluation.compare import NamedDifference
from clipcifar.studies.corruptions.images.generated import SEVERITIES
from clipcifar.studies.corruptions.images.kinds import BENCHMARK, means_over, said
from clipcifar.studies.corruptions.images.published import TEST_IMAGES
from clipcifar.studies.corruptions.judge import robustness
from clipcifar.studies.corruptions.judge.naming import Naming
from clipcifar.studies.corruptions.judge.robustness import Answers, Robustness
from clipcifar.studies.corruptions.store import GENERATED

REFERENCE = "zero_shot"


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        source: what the images are called: generated, or by the name of what was published.
        names: the K corruptions.
        severities: the S severities.
        rows, labels: (N,) the test rows that were looked at, and their true classes.
        class_names: C names in label order.
        copies: (N,), equal where two of the images are copies; None where none is one.
        predicted: by classifier, (K, S, N) predicted classes.
        answers: by classifier, whether it was right.
        examples: by corruption, (S, H, W, 3) uint8, one image at every severity.
        naming: the prompts that name a corruption, where there are any.
        attributes: of the corrupted embeddings.
    """

    source: str
    names: list[str]
    severities: list[int]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: list[str]
    copies: NDArray[np.int64] | None
    predicted: dict[str, NDArray[np.int64]]
    answers: dict[str, Answers]
    examples: dict[str, NDArray[np.uint8]]
    naming: list[Naming]
    attributes: Mapping[str, Attribute]

    @property
    def over(self) -> dict[str, list[int]]:
        """By key of `kinds.MEANS`, which of the K corruptions that mean is over."""
        return {
            key: [self.names.index(name) for name in names] for key, names in means_over(self.names).items()
        }

    @property
    def first(self) -> str:
        """The mean that methods are compared by."""
        return next(iter(self.over))

    def said(self, key: str) -> str:
        """What a mean is over, in words."""
        return said(key, len(self.over[key]))

    @property
    def is_published_protocol(self) -> bool:
        """Whether the mean over the benchmark is of all that a published one is of."""
        whole = len(BENCHMARK), SEVERITIES, TEST_IMAGES
        looked_at = len(self.over.get("benchmark", [])), len(self.severities), len(self.rows)
        return self.source != GENERATED and looked_at == whole

    @cached_property
    def robustness(self) -> dict[str, Robustness]:
        """By classifier, what it keeps."""
        return {method: robustness.robustness(answers, self.over) for method, answers in self.answers.items()}

    @cached_property
    def versus(self) -> list[NamedDifference]:
        """Every other classifier minus the reference."""
        compared = {name: answers.under(self.over[self.first]) for name, answers in self.answers.items()}
        reference = compared.pop(REFERENCE)
        about: dict[str, Any] = {"class_names": self.class_names, "copies": self.copies}
        return robustness.against(reference, compared, self.labels, **about)
