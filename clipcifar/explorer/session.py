"""The explorer's state: results as they were read last, and the prompts tried since, which can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock, Thread

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.bench import SplitName, Typed, judge
from clipcifar.api.opened import Opened
from clipcifar.api.trials import Counted, Trials, among
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.core.processes import give_back_freed_memory
from clipcifar.core.terminal import note
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.evaluation.compare import Comparison
from clipcifar.explorer.answers import TRIED, Answers
from clipcifar.explorer.results import PARAMS, Results, written


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
        tried: what the last one says of the images that it was tried on.
    """

    results: Results
    history: tuple[Tried, ...] = ()
    tried: Answers | None = None

    @property
    def last(self) -> Tried | None:
        """The prompt tried last."""
        return self.history[-1] if self.history else None

    def answers(self, split: str) -> dict[str, Answers]:
        """What classifiers say of a split: the methods, and the prompt tried last if that was tried on it."""
        answers = self.results.of_test if split == "test" else self.results.of_train
        is_of_split = self.last is not None and self.last.on == split
        return {**answers, TRIED: self.tried} if self.tried is not None and is_of_split else answers


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
        self._read: State | None = None  # with the results that could be read last
        self._seen: dict[str, tuple[int, int, int]] = {}
        self.said, self.number = "", 0

    def state(self) -> State:
        """The results as they are now; read anew where a file of theirs has changed, and the session then.

        Raises:
            ClipcifarError: they are missing, damaged or stale, as in the middle of a run.
        """
        with self._reading:
            now, before = written(self.opened.root), self._read
            if self._state is None or now != self._seen:
                self._state = None
                results = Results(self.opened, self._embed, number=self.number + 1)
                self.number += 1
                self._state = State(results)
                if before is not None:
                    self.said = "Results changed and were read again."
                    if results.is_tried_alike(before.results):
                        self._state = replace(before, results=results)
                    elif before.history:
                        self.said += " The prompts of this session began anew."
                self._seen, self._read = now, self._state
            return self._state

    @property
    def changed(self) -> bool:
        """Whether results are no longer those that were read, or could not be read."""
        return self._state is None or written(self.opened.root) != self._seen

    def _replace(self, before: State, after: State) -> bool:
        """Go on to another state, unless results have changed meanwhile; whether it is the state now."""
        with self._reading:
            if self.state() is not before:
                return False
            self._state = self._read = after
            return True

    def prepare(self) -> Thread:
        """Load the text tower and draw the map beside the pages; who asks for either says what failed.

        The tower embeds a sentence of the active set, which makes the first one that is typed a third faster.
        """

        def load() -> None:
            with suppress(ClipcifarError):
                embedder = self.opened.sentences(self.opened.model())
                with self._loaded(embedder):
                    known = next(iter(self.state().results.bench.active_sentences.values()))
                    list(embedder.load().encode_sentences(known[:1]))
            with suppress(ClipcifarError):
                _ = self.state().results.points

        thread = Thread(target=load, daemon=True)
        thread.start()
        return thread

    @contextmanager
    def _loaded(self, embedder: SentenceEmbedder) -> Iterator[None]:
        """The text tower, without the image tower, for one thread at a time."""
        self.doing = "loading the text tower"
        with self._tower:
            try:
                embedder.load().forget_images()
                yield
            finally:
                self.doing = ""

    def _embed(self, sentences: list[str]) -> NDArray[np.float32]:
        embedder = self.opened.sentences(self.opened.model())
        if not embedder.knows(sentences):
            with self._loaded(embedder):
                self.doing = f"embedding {count_of(len(sentences), 'sentence')}"
                return embedder.embed_rows(sentences)
        return embedder.embed_rows(sentences)

    def try_line(self, line: str, on: SplitName) -> None:
        """Try what was typed, on top of what was tried last, and count it.

        Raises:
            ClipcifarError: nothing was tried; the reason.
        """
        with self._trying:
            self.said = ""
            state = self.state()
            bench, limit = state.results.bench, state.results.active.prompts.max_sentences
            base = state.last.typed.sentences if state.last else bench.active_sentences
            typed = bench.typed(line, base)
            if (number := sum(map(len, typed.sentences.values()))) > limit:
                raise ConfigError(f"that is {number:,} sentences, more than prompts.max_sentences, {limit:,}")
            self._replace(state, self._with(state, state.history, typed, on))
        give_back_freed_memory()

    def _with(self, state: State, before: tuple[Tried, ...], typed: Typed, on: SplitName) -> State:
        """The state with one more prompt after those before, counted among all trials as they are now."""
        results = state.results
        trial, counted, lines = judge(
            results.bench,
            self._counter,
            typed.sentences,
            prompt=typed.line,
            on=on,
            active=results.active_name,
        )
        latest = Tried(typed, on, among(trial.comparison, counted.total), counted, lines)
        answers = results.as_answers(f"tried: {typed.line}", trial.scores)
        return State(results, (*before, latest), answers)

    def undo(self) -> None:
        """Go back to the prompt before, whose verdict is given anew; what was tried stays counted.

        Raises:
            ConfigError: nothing was tried.
        """
        with self._trying:
            state = self.state()
            if state.last is None:
                raise ConfigError("there is nothing to undo", fix="type a prompt first")
            after = State(state.results)
            if len(state.history) > 1:
                *before, last = state.history[:-1]
                after = self._with(state, tuple(before), last.typed, last.on)
            if self._replace(state, after):
                undone = state.last.typed.line
                self.said = f"Undone: {undone}. It was looked at, so it still counts among the trials."

    def save(self, name: str) -> None:
        """Keep the prompt tried last as a set in params.yaml.

        Raises:
            ConfigError: nothing was tried, or the name cannot be had.
        """
        with self._trying, self._reading:
            state = self.state()
            if state.last is None:
                raise ConfigError("nothing was tried yet", fix="type a prompt first")
            self.said = state.results.bench.keep(state.last.typed, name, self.opened.root / PARAMS)
            self._seen[PARAMS] = written(self.opened.root)[PARAMS]  # which is no change of results
