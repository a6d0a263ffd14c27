"""Is B really better than A? What a person named, compared on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipcifar.api import sides
from clipcifar.evaluation.compare import Comparison, compare
from clipcifar.evaluation.names import LEARNING
from clipcifar.evaluation.seeds import SeedsCompared, compare_seeds, seeds_said
from clipcifar.evaluation.verdict import copies_said, verdict
from clipcifar.project import freshness


@dataclass(frozen=True)
class Compared(Comparison):
    """B against A on the same test images.

    Attributes:
        name_a, name_b: what the two are called.
        notes: what is to be known of the two, each a sentence.
        origin_a, origin_b: dataset, model, pretrained and weights_sha256 of either.
        seeds: what is known over seeds; None where neither side is trained from them.
    """

    name_a: str = ""
    name_b: str = ""
    notes: tuple[str, ...] = ()
    origin_a: Mapping[str, str] = field(default_factory=dict)
    origin_b: Mapping[str, str] = field(default_factory=dict)
    seeds: SeedsCompared | None = None

    @property
    def verdict(self) -> str:
        """For a person: who is better, by how much, how sure, in which classes, and over seeds."""
        return self.said(str)

    def said(self, shown: Callable[[str], str]) -> str:
        """The verdict, its names written as `shown` has them."""
        a, b = shown(self.name_a), shown(self.name_b)
        over_seeds = seeds_said(self.seeds, name_a=a, name_b=b)
        return f"{verdict(self, name_a=a, name_b=b)} {over_seeds}".rstrip()


def compare_sides(
    a: str, b: str, *, repository: Path, method: str, on_note: Callable[[str], object]
) -> Compared:
    """Compare what a person named; see `sides.kind_of`.

    Args:
        a, b: names of the two sides.
        repository: root of the project, absolute.
        method: whose predictions are meant by the workspace or a revision.
        on_note: told what nothing but code has changed since.

    Raises:
        ConfigError: nothing of that name is there, or it is stale.
        DataError: a file is missing or damaged, or the two are of different images or classes.
    """
    names = (a, b)
    given = {
        path: shown
        for name in names
        for path, shown in sides.files_of(name, repository=repository, method=method).items()
    }
    for learner in (shown for shown in given.values() if shown in LEARNING):
        freshness.refuse_without_train(repository, f"{learner} needs")
    for note in freshness.refuse_stale(repository, given):
        on_note(note)
    a_side, b_side = (sides.load(name, repository=repository, method=method) for name in names)
    pair = sides.align(a_side, b_side)
    notes = [said for name in names if (said := sides.note_of(name, repository=repository, method=method))]
    compared = compare(
        pair.predicted_a, pair.predicted_b, pair.labels, class_names=pair.class_names, copies=pair.copies
    )
    notes += filter(None, [copies_said(compared.overall)])
    return Compared(
        compared.overall,
        compared.per_class,
        compared.flows,
        name_a=a,
        name_b=b,
        notes=tuple(dict.fromkeys(notes)),
        origin_a=sides.origin_of(a_side),
        origin_b=sides.origin_of(b_side),
        seeds=compare_seeds(
            pair.seeds_a,
            pair.seeds_b,
            predicted_a=pair.predicted_a,
            predicted_b=pair.predicted_b,
            labels=pair.labels,
            copies=pair.copies,
        ),
    )
