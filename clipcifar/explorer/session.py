"""The explorer's state: results as they were read last, and the prompts tried since, which can be undone."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import RLock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.bench import SplitName, Typed, answer
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


@dataclass(frozen=True)
class State:
    """What a page shows: results, and what was tried on them. It is replaced as a whole, never changed.

    Attributes:
        results: as they were read last.
        history: the prompts of the session, the last of them last.
        scores: (N, C) float32 cosines of the last one.
    """

    results: Results
    history: tuple[Tried, ...] = ()
    scores: NDArray[np.float32] | None = None

    @property
    def last(self) -> Tried | None:
        """The prompt tried last."""
        return self.history[-1] if self.history else None

    def answers(self, split: str) -> dict[str, Answers]:
        """What classifiers say of a split: the methods, and the prompt tried last if that was tried on it."""
        answers = self.results.of_test if split == "test" else self.results.of_train
        if self.last is None or self.scores is None or self.last.on != split:
            return answers
        title = f"tried: {self.last.typed.line}"
        return {**answers, TRIED: self.results.as_answers(title, self.scores)}


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
        self._state: State | None = None
        self._seen: list[Any] = []
        self.said, self.number = "", 0

    def state(self) -> State:
        """The results as they are now; read anew where a file of theirs has changed, and the session then.

        Raises:
            ClipcifarError: they are missing, damaged or stale, as in the middle of a run.
        """
        with self._reading:
            now = written(self.opened.root)
            if self._state is None or now != self._seen:
                self._state = None
                self._state = State(Results(self.opened, self._embed, number=self.number + 1))
                self.number += 1
                if self._seen:
                    self.said = "Results changed and were read again; the prompts of this session began anew."
                self._seen = now
            return self._state

    @property
    def changed(self) -> bool:
        """Whether results are no longer those that were read, or could not be read."""
        return self._state is None or written(self.opened.root) != self._seen

    def _replace(self, before: State, after: State) -> None:
        """Go on to another state, unless results have changed meanwhile."""
        with self._reading:
            if self.state() is before:
                self._state = after

    def prepare(self) -> Thread:
        """Load the text tower and draw the map beside the pages; who asks for either says what failed."""

        def load() -> None:
            with self._tower:
                self.doing = "loading the text tower"
                with suppress(ClipcifarError):
                    self.opened.sentences(self.opened.model()).load().forget_images()
                self.doing = ""
            with suppress(ClipcifarError):
                _ = self.state().results.points

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

    def try_line(self, line: str, on: SplitName) -> None:
        """Try what was typed, on top of what was tried last, and count it.

        Raises:
            ClipcifarError: nothing was tried; the reason.
        """
        with self._trying:
            self.said = ""
            state = self.state()
            bench = state.results.bench
            base = state.last.typed.sentences if state.last else bench.active_sentences
            typed = bench.typed(line, base)
            trial = bench.run(typed.sentences, on=on)
            new = tried(typed.sentences, trial.comparison.overall, prompt=line)
            counted = self._counter.count(bench.family(on), new)
            lines = answer(trial, counted, on=on, active=state.results.active_name)
            comparison = among(trial.comparison, counted.total)
            latest = Tried(typed, on, comparison, counted, lines)
            self._replace(state, State(state.results, (*state.history, latest), trial.scores))
        give_back_freed_memory()

    def undo(self) -> None:
        """Go back to the prompt before; what was tried stays counted.

        Raises:
            ConfigError: nothing was tried.
        """
        with self._trying:
            state = self.state()
            *before, gone = state.history or (None,)
            if gone is None:
                raise ConfigError("there is nothing to undo", fix="type a prompt first")
            scores, bench = None, state.results.bench
            if before:
                scores = bench.run(before[-1].typed.sentences, on=before[-1].on).scores
            self._replace(state, State(state.results, tuple(before), scores))
            self.said = f"Undone: {gone.typed.line}. It was looked at, so it still counts among the trials."

    def save(self, name: str) -> None:
        """Keep the prompt tried last as a set in params.yaml.

        Raises:
            ConfigError: nothing was tried, or the name cannot be had.
        """
        with self._trying, self._reading:
            state = self.state()
            if state.last is None:
                raise ConfigError("nothing was tried yet", fix="type a prompt first")
            bench, path = state.results.bench, self.opened.root / "params.yaml"
            values = state.last.typed.as_set(bench.dataset)
            self.said = save_set(path, name, values, class_names=bench.class_names, dataset=bench.dataset)
            self._seen = written(self.opened.root)  # which is no change of results
