"""Is a result of what lies here, and of params.yaml as it is?

Files cannot say: predictions know of no split, metrics know nothing. dvc.lock says what each stage ran on and
made. So a result is fresh where its file is the one that was recorded, where its stage ran with the values of
params.yaml, and where each of the stage's inputs is what the stage before has made last, which must be fresh
itself. Everything else is stale. DVC says the same in `dvc status`; asking it takes ten times as long.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

from clipcifar.project import lockfile
from clipcifar.project.dvc_project import FOLDER
from clipcifar.project.lockfile import Asked, File, Run

CODE = ("clipcifar/", "stages/", "studies/")
SETS = "prompts.sets"  # the files of a set carry its name, and depend on no other set
SENTENCES = "data/sentences"  # files that some sets name, see `core/class_files.py`
STUDY = "clipcifar study"
NAMED = 3  # of many changes, so many are named


@dataclass(frozen=True)
class Stale:
    """Why a result is not of what lies here.

    Attributes:
        name: of the result, as a person calls it.
        target: the stage that makes it, as `dvc repro` calls it; empty where none does.
        changed: keys of params.yaml and paths that are not what they were when it was made; nothing where no
            run is recorded.
        frozen: stages that have to run, and that `dvc repro` passes over.
        brought_by: where nothing has changed and yet the file is not the one that was recorded, the command
            that brings that one back, and its target; without a maker, what mends an unreadable dvc.lock.
    """

    name: str
    target: str
    changed: Sequence[str]
    frozen: Sequence[str] = ()
    brought_by: tuple[str, str] | None = None

    @property
    def is_other_file(self) -> bool:
        """Whether the file is not the one that was recorded, though nothing has changed."""
        return self.brought_by is not None

    @property
    def what(self) -> str:
        """In one line."""
        if self.is_other_file and not self.target:
            return f"{self.name} is of no known run: dvc.lock cannot be read"
        if self.is_other_file:
            return f"{self.name} is not what the recorded run of {self.target} made"
        if not self.changed:
            return f"{self.name} is of no run that dvc.lock records"
        return f"{self.name} is stale, changed since it was made: {some(self.changed)}"

    @property
    def command(self) -> tuple[str, str]:
        """What mends it, and its target; nothing stands for all targets."""
        folder, _, stage = self.target.rpartition(":")
        made_by = (STUDY, shlex.quote(PurePosixPath(folder).parent.name)) if folder else ("dvc repro", stage)
        return self.brought_by or made_by

    @property
    def is_of_other_code(self) -> bool:
        """Whether nothing but code has changed: a number is likely, not certain, to be the same."""
        return bool(self.changed) and all(name.startswith(CODE) for name in self.changed)

    def __str__(self) -> str:
        return f"{self.what}; run `{mending([self])}`"


def some(changed: Sequence[str]) -> str:
    """The first of many changes; before code, what a person changed, for which alone an answer is refused."""
    changed = sorted(changed, key=lambda name: name.startswith(CODE))
    more = f" and {len(changed) - NAMED:,} more" if len(changed) > NAMED else ""
    return ", ".join(changed[:NAMED]) + more


def mending(stale: Iterable[Stale]) -> str:
    """One command line that brings all of them up to date."""
    reasons = list(stale)
    targets: dict[str, dict[str, None]] = {}  # by command; dicts, for their order
    for reason in reasons:
        command, target = reason.command
        targets.setdefault(command, {})[target] = None
    frozen = dict.fromkeys(stage for reason in reasons for stage in reason.frozen)
    lines = [" ".join(["dvc unfreeze", *frozen])] if frozen else []
    for command, those in targets.items():
        if command == STUDY:  # which takes one at a time
            lines += [f"{command} {study}" for study in those]
        else:
            lines.append(command if "" in those else " ".join([command, *those]))
    return " && ".join(lines)


class State:
    """One state of the project, the workspace's or a revision's.

    Args:
        settings: of params.yaml.
        asked: what dvc.yaml asks of each stage.
        runs: what dvc.lock records of each.
        source_changed: whether a file or folder that no stage makes is not what was recorded.
        listing: the digests of a folder's files by path in it, from the folder's path and digest; empty where
            nobody knows.
    """

    def __init__(
        self,
        settings: Any,
        asked: Mapping[str, Asked],
        runs: Mapping[str, Run],
        *,
        source_changed: Callable[[str, File], bool],
        listing: Callable[[str, str], Mapping[str, str]],
    ) -> None:
        self._settings, self.asked, self.runs = settings, asked, runs
        self._source_changed, self._listing = cache(source_changed), cache(listing)
        # A stage that was renamed or removed stays in dvc.lock, and makes nothing any more.
        self._makers = {
            path: name for name in sorted(runs, key=asked.__contains__) for path in runs[name].outs
        }
        self._known: dict[tuple[str, str], list[str]] = {}

    def stale(self, path: str, name: str = "") -> Stale | None:
        """Why an output, or a file of one, is not of this state; None where it is. The file is not read.

        Args:
            path: relative to the project.
            name: how a person calls the result, else by its path.
        """
        made = self.made(path)
        if made is None:
            makers = (target for target, asked in self.asked.items() if {*_upward(path)} & {*asked.outs})
            return Stale(name or path, next(makers, ""), [])
        target, member = self._makers[made], PurePosixPath(path).stem if path != made else ""
        changed = self.changed(target, member)
        return Stale(name or path, target, changed, self.frozen(target)) if changed else None

    def made(self, path: str) -> str | None:
        """The recorded output that a path is, or lies in."""
        return next((part for part in _upward(path) if part in self._makers), None)

    def maker(self, path: str) -> str:
        """The stage that makes an output or a file of one, as `dvc repro` calls it; empty if unknown."""
        return self._makers.get(self.made(path) or "", "")

    def recorded(self, path: str) -> str:
        """The digest of an output, or of a file of one, as its stage has made it last; empty if unknown."""
        made = self.made(path)
        if made is None:
            return ""
        digest = self.runs[self._makers[made]].outs[made].digest
        return digest if path == made else self._listing(made, digest).get(path.removeprefix(f"{made}/"), "")

    def changed(self, target: str, member: str = "") -> list[str]:
        """What has changed since a stage ran, for one of its results or for all of them.

        Args:
            target: of `dvc repro`.
            member: the stem of one file in the folder that the stage makes.
        """
        if (target, member) not in self._known:
            self._known[target, member] = []  # where DVC's files go in a circle
            self._known[target, member] = list(dict.fromkeys(self._changed(target, member)))
        return self._known[target, member]

    def frozen(self, target: str) -> list[str]:
        """Of a stage and those behind it, the ones that have to run and that `dvc repro` passes over."""
        needed = {target: None}
        while True:
            deps = {path for name in needed if name in self.asked for path in self.asked[name].deps}
            makers = dict.fromkeys(maker for path in sorted(deps) if (maker := self.maker(path)))
            if makers.keys() <= needed.keys():
                break
            needed |= makers
        return [
            name
            for name in needed
            if name in self.asked and self.asked[name].is_frozen and self.changed(name)
        ]

    def _changed(self, target: str, member: str) -> Iterable[str]:
        run = self.runs[target]
        asked = self.asked.get(target) or Asked(dict.fromkeys(run.deps, ""), list(run.params), [])
        if asked.cmd not in (None, run.cmd):
            yield f"the command of {target}"
        for key in asked.params:
            now = lockfile.value_of(self._settings, key)
            # A stage that asks for the whole file is recorded by sections alone.
            before = run.params.get(key, lockfile.value_of(run.params, key))
            yield from (name for name in lockfile.differing(key, before, now) if _concerns(name, member))
        for path, key in asked.deps.items():
            if path not in run.deps:
                yield key or path
                continue
            made = self.made(path)
            if made is None:
                if path == SENTENCES and member and not self._names_a_file(member):
                    continue
                if self._source_changed(path, run.deps[path]):
                    yield path
                continue
            part = member if path == made else PurePosixPath(path).stem
            if self._was_made_anew(path, run.deps[path].digest, part):
                yield path
            if self._makers[made] != target:
                yield from self.changed(self._makers[made], part)

    def _names_a_file(self, prompt_set: str) -> bool:
        """Whether a prompt set has sentences or names from a file; what is no set of this state may have."""
        values = lockfile.value_of(self._settings, f"{SETS}.{prompt_set}")
        return not isinstance(values, Mapping) or any(str(key).endswith("_file") for key in values)

    def _was_made_anew(self, path: str, before: str, member: str) -> bool:
        now = self.recorded(path)
        if now == before or not now:
            return False
        if not (member and now.endswith(FOLDER) and before.endswith(FOLDER)):
            return True
        of_member = [
            {
                digest
                for name, digest in self._listing(path, folder).items()
                if PurePosixPath(name).stem == member
            }
            for folder in (before, now)
        ]
        return of_member[0] != of_member[1] or not of_member[0]


def _concerns(key: str, member: str) -> bool:
    """Whether a key of params.yaml bears upon one file of a folder: that of another set does not."""
    if not member or not key.startswith("prompts."):
        return True
    return key == SETS or f"{key}.".startswith(f"{SETS}.{member}.")


def _upward(path: str) -> list[str]:
    return [path, *(str(parent) for parent in PurePosixPath(path).parents)]
