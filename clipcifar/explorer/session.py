"""The explorer's state: results as they were read last, and the prompts tried since, which can be undone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, Thread
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.bench import SplitName, Trial, Typed, answer
from clipcifar.api.opened import Opened
from clipcifar.api.trials import Counted, Trials, among, tried
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.core.processes import give_back_freed_memory
from clipcifar.core.terminal import note
from clipcifar.evaluation.compare import Comparison
from clipcifar.explorer.answers import Answers
from clipcifar.explorer.results import TRIED, Results, written
from clipcifar.prompts.save import save_set


@dataclass(frozen=True)
class Tried:
    """One prompt of the session.

    Attributes:
        typed: what was typed.
        on: the images that it was tried on.
        comparison: with the active set, its classes corrected over all trials.
        counted: the trial among all of its family, as it was then.
        lines: what is said of it, as `clipcifar try` says it.
    """

    typed: Typed
    on: SplitName
    comparison: Comparison
    counted: Counted
    lines: list[str]


class _Last(NamedTuple):
    results: Results
    typed: Typed
    on: SplitName
    trial: Trial


class Session:
    """What one process explores; several pages, and threads, share it.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self.opened = Opened(root, on_note=note)
        self.doing = ""
        self._reading, self._trying, self._tower = RLock(), RLock(), RLock()
        self._counter = Trials(root, on_note=note)
        self._results: Results | None = None
        self._seen: list[Any] = []
        self._last: _Last | None = None
        self.history: list[Tried] = []
        self.said = ""

    def results(self) -> Results:
        """The results as they are now; read anew where a file of theirs has changed, and the session then.

        Raises:
            ClipcifarError: they are missing, damaged or stale, as in the middle of a run.
        """
        with self._reading:
            now = written(self.opened.root)
            if self._results is None or now != self._seen:
                again, self._results = bool(self._seen), None
                read = Results(self.opened, self._embed)
                self._results, self._seen = read, now
                if again:
                    self.said = "Results changed and were read again; the prompts of this session began anew."
                    self.history, self._last = [], None
            return self._results

    @property
    def changed(self) -> bool:
        """Whether results are no longer those that were read."""
        return written(self.opened.root) != self._seen

    def prepare(self) -> Thread:
        """Load the text tower and draw the map beside the pages; who asks for either says what failed."""

        def load() -> None:
            with self._tower:
                self.doing = "loading the text tower"
                with suppress(ClipcifarError):
                    self.opened.sentences(self.opened.model()).load().forget_images()
                self.doing = ""
            with suppress(ClipcifarError):
                _ = self.results().points

        thread = Thread(target=load, daemon=True)
        thread.start()
        return thread

    def _embed(self, sentences: list[str]) -> NDArray[np.float32]:
        embedder = self.opened.sentences(self.opened.model())
        if embedder.knows(sentences):
            return embedder.embed_rows(sentences)
        self.doing = f"waiting for the text tower, then embedding {count_of(len(sentences), 'sentence')}"
        with self._tower:
            try:
                self.doing = f"embedding {count_of(len(sentences), 'sentence')}"
                return embedder.embed_rows(sentences)
            finally:
                self.doing = ""

    def answers(self, results: Results, split: str) -> dict[str, Answers]:
        """What classifiers say of a split: the methods, and the prompt tried last if that was tried on it."""
        answers, last = results.of_test if split == "test" else results.of_train, self._last
        if last is not None and last.results is results and last.on == split:
            tried_last = results.as_answers(f"tried: {last.typed.line}", last.trial.scores)
            answers = {**answers, TRIED: tried_last}
        return answers

    def try_line(self, line: str, on: SplitName) -> None:
        """Try what was typed, on top of what was tried last, and count it.

        Raises:
            ClipcifarError: nothing was tried; the reason.
        """
        with self._trying:
            results = self.results()
            bench = results.bench
            base = self.history[-1].typed.sentences if self.history else bench.active_sentences
            typed = bench.typed(line, base)
            trial = bench.run(typed.sentences, on=on)
            new = tried(typed.sentences, trial.comparison.overall, prompt=line)
            counted = self._counter.count(bench.family(on), new)
            lines = answer(trial, counted, on=on, active=results.active_name)
            comparison = among(trial.comparison, counted.total)
            if self.results() is results:
                self.history.append(Tried(typed, on, comparison, counted, lines))
                self._last, self.said = _Last(results, typed, on, trial), ""
        give_back_freed_memory()

    def undo(self) -> None:
        """Go back to the prompt before; what was tried stays counted.

        Raises:
            ConfigError: nothing was tried.
        """
        with self._trying:
            results = self.results()
            if not self.history:
                raise ConfigError("there is nothing to undo", fix="type a prompt first")
            gone = self.history.pop()
            self._last = None
            if self.history:
                before = self.history[-1]
                trial = results.bench.run(before.typed.sentences, on=before.on)
                self._last = _Last(results, before.typed, before.on, trial)
            self.said = f"Undone: {gone.typed.line}. It was looked at, so it still counts among the trials."

    def save(self, name: str) -> None:
        """Keep the prompt tried last as a set in params.yaml.

        Raises:
            ConfigError: nothing was tried, or the name cannot be had.
        """
        with self._trying:
            bench = self.results().bench
            if not self.history:
                raise ConfigError("nothing was tried yet", fix="type a prompt first")
            values = self.history[-1].typed.as_set(bench.dataset)
            path, names = self.opened.root / "params.yaml", bench.class_names
            self.said = save_set(path, name, values, class_names=names, dataset=bench.dataset)
            self._seen = written(self.opened.root)  # which is no change of results
