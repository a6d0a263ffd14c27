"""Prompts that were tried are counted: of twenty that are no better, by chance often some look better.

All trials of a *family* (the same images, the same active set, the same split) are corrected together, by
Holm's method (Holm 1979, Scandinavian Journal of Statistics 6, pages 65-70), until a person resets it. So a
later trial can take back what was said of an earlier one. A shell runs every trial in a process of its own,
so the trials lie in a file of the project, which git ignores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.files import explained, read_json, sha256_of, write_atomically
from clipcifar.core.terminal import cut, one_line
from clipcifar.evaluation.compare import Comparison, Paired
from clipcifar.evaluation.signs import LEVEL, holm
from clipcifar.evaluation.words import p_said

RECORD = Path("data/trials.json")  # from the project's root; its lock lies beside it
SCHEMA = 1
WAIT_S = 30  # for another process, which holds the record for milliseconds
_PROMPT_COLUMNS = 60

Sentences = Mapping[str, Sequence[str]]  # by class


@dataclass(frozen=True)
class Tried:
    """One trial, B minus A where A is the active set.

    Attributes:
        key: tells the prompt from others; the same sentences are the same trial.
        prompt: as it was typed.
        difference: in accuracy.
        p_value: of this trial alone.
    """

    key: str
    prompt: str
    difference: float
    p_value: float


@dataclass(frozen=True)
class Withdrawn:
    """An earlier trial that was said to differ, and no longer is: its number, and its p value now."""

    number: int
    tried: Tried
    p_holm: float


@dataclass(frozen=True)
class Counted:
    """A trial among all of its family.

    Attributes:
        number: of the trial, from 1; a prompt that is tried again keeps its own.
        total: trials of the family.
        p_value, p_holm: alone, and corrected over all of them.
        withdrawn: earlier trials that this one made no longer shown to differ.
    """

    number: int
    total: int
    p_value: float
    p_holm: float
    withdrawn: tuple[Withdrawn, ...] = ()


def family_of(images_fingerprint: str, active: Sentences, split: str) -> str:
    """What trials are corrected together: the name of the active set does not matter, its sentences do."""
    return sha256_of([images_fingerprint, _canonical(active), split])


def tried(sentences: Sentences, paired: Paired, *, prompt: str) -> Tried:
    """A trial to be counted.

    Args:
        sentences: of every class; their order within a class does not matter, as it does not to their mean.
        paired: the prompt minus the active set.
        prompt: as it was typed.
    """
    return Tried(sha256_of(_canonical(sentences)), prompt, paired.difference, paired.p_value)


def _canonical(sentences: Sentences) -> dict[str, list[str]]:
    return {name: sorted(of_class) for name, of_class in sentences.items()}


def joined(trials: Sequence[Tried], new: Tried) -> tuple[list[Tried], Counted]:
    """The trials of a family with one more, unless that is among them, and what it amounts to there."""
    at = next((row for row, trial in enumerate(trials) if trial.key == new.key), len(trials))
    together = [*trials[:at], new, *trials[at + 1 :]]
    before = holm([trial.p_value for trial in trials])
    after = holm([trial.p_value for trial in together])
    withdrawn = [
        Withdrawn(row + 1, trial, after[row])
        for row, trial in enumerate(trials)
        if before[row] < LEVEL <= after[row]
    ]
    return together, Counted(at + 1, len(together), new.p_value, after[at], tuple(withdrawn))


def among(comparison: Comparison, total: int) -> Comparison:
    """A trial's comparison with its classes, Holm-corrected among themselves, corrected over all trials too.

    By Bonferroni, which asks for nothing of the classes of other trials: a session of trials that change
    nothing names a class in at most 5 % of cases, as it does a prompt.
    """
    classes = [replace(item, p_holm=min(1.0, total * item.p_holm)) for item in comparison.per_class]
    return replace(comparison, per_class=classes)


def said(counted: Counted) -> list[str]:
    """Which trial it was, and which earlier verdicts it takes back, a line each."""
    line = f"trial {counted.number} of this session"
    if counted.total > counted.number:  # asked again
        line += f", of {counted.total:,} so far"
    if p_said(counted.p_holm) != p_said(counted.p_value):
        line += f"; alone it would have {p_said(counted.p_value)}"
    lines = [f"{line}."]
    for item in counted.withdrawn:
        word = "better" if item.tried.difference > 0 else "worse"
        prompt = cut(one_line(item.tried.prompt), _PROMPT_COLUMNS)
        lines.append(
            f"no longer shown, with {counted.total:,} trials: that trial {item.number} ({prompt}) is {word}; "
            f"{p_said(item.p_holm)} after Holm's correction."
        )
    return lines


class Trials:
    """The trials of a project, by family, on record in a file that several processes may write at once.

    Args:
        root: the project's folder.
        on_note: told what is to be known of the record: that it was damaged, or could not be written.
    """

    def __init__(self, root: Path, *, on_note: Callable[[str], object]) -> None:
        self._path, self._on_note = root / RECORD, on_note
        self._unrecorded: dict[str, list[Tried]] = {}

    def count(self, family: str, new: Tried) -> Counted:
        """Put a trial on record and say what it amounts to among those of its family.

        Where the record cannot be used, as in a folder of somebody else's, the trials of this process are
        counted all the same, and that no other will know of them is told.
        """
        own = self._unrecorded.setdefault(family, [])
        try:
            with self._alone():
                families = self._read()
                families[family], counted = joined(_together(families.get(family, []), own), new)
                self._write(families)
            own.clear()
        except EnvironmentFault as error:
            self._on_note(f"this trial is not on record, so that later ones will not count it: {error.what}")
            _, counted = joined(_together(self._known(family), own), new)
            own[:] = _together(own, [new])
        return counted

    def so_far(self, family: str) -> int:
        """How many trials of a family there were."""
        return len(_together(self._known(family), self._unrecorded.get(family, [])))

    def reset(self, family: str) -> int:
        """Forget the trials of a family, and return how many.

        Raises:
            EnvironmentFault: the record cannot be written; none is forgotten then.
        """
        with self._alone():
            families = self._read()
            forgotten = _together(families.pop(family, []), self._unrecorded.get(family, []))
            if forgotten:
                self._write(families)
        self._unrecorded.pop(family, None)
        return len(forgotten)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = self._path.with_name(f"{self._path.name}.lock")
        with explained(self._path), filelock.FileLock(lock, timeout=WAIT_S):
            yield

    def _known(self, family: str) -> list[Tried]:
        """The trials on record, as far as it can be read; it is only ever replaced as a whole."""
        with suppress(EnvironmentFault):
            return self._read().get(family, [])
        return []

    def _read(self) -> dict[str, list[Tried]]:
        if not self._path.exists():
            return {}
        try:
            return _parsed(read_json(self._path))
        except DataError as error:
            self._on_note(
                f"the record of trials is damaged and begun anew: {error.what}. Trials before this one are "
                "forgotten, and the correction does not cover them"
            )
            return {}

    def _write(self, families: Mapping[str, Sequence[Tried]]) -> None:
        rows = {family: [asdict(trial) for trial in trials] for family, trials in families.items()}
        content = json.dumps({"schema": SCHEMA, "families": rows}, indent=1)
        write_atomically(self._path, content.encode())


def _together(trials: Sequence[Tried], more: Sequence[Tried]) -> list[Tried]:
    keys = {trial.key for trial in trials}
    return [*trials, *(trial for trial in more if trial.key not in keys)]


def _parsed(content: Any) -> dict[str, list[Tried]]:
    """The families of a record; DataError where it is none."""
    try:
        if content["schema"] != SCHEMA:
            raise DataError(f"{RECORD} has schema {content['schema']!r}, expected {SCHEMA}")
        families = {family: [Tried(**row) for row in rows] for family, rows in content["families"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{RECORD} is no record of trials") from error
    for trial in (trial for trials in families.values() for trial in trials):
        texts, numbers = (trial.key, trial.prompt), (trial.difference, trial.p_value)
        if not all(type(text) is str for text in texts) or not all(type(x) in (int, float) for x in numbers):
            raise DataError(f"{RECORD} holds a trial that is none")
        if not (-1 <= trial.difference <= 1 and 0 < trial.p_value <= 1):
            raise DataError(f"{RECORD} holds a trial with a p value or a difference that none can have")
    return families
