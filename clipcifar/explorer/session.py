"""The explorer's state: results as they were read last, and the prompts tried since, which can be undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import RLock, Thread
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from clipcifar.api.bench import SplitName, Typed, judge
from clipcifar.api.opened import Opened
from clipcifar.api.trials import Trials, among
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.core.processes import give_back_freed_memory
from clipcifar.core.terminal import note
from clipcifar.embeddings.sentences import SentenceEmbedder
from clipcifar.explorer.results import PARAMS, Results, Seen, settled, written
from clipcifar.explorer.state import State, Tried

_NEWS_S = 30


class Session:
    """What one process explores; several pages, and threads, share it.

    Args:
        root: the project's folder.
    """

    def __init__(self, root: Path) -> None:
        self.opened = Opened(root, on_note=note)
        self._root = self.opened.root
        self.doing = ""
        self._reading, self._trying, self._tower = RLock(), RLock(), RLock()
        self._counter = Trials(root, on_note=note)
        self._state: State | None = None
        self._read: State | None = None  # with the results that could be read last
        self._seen: Seen = {}
        self._refused: Seen = {}  # files that could not be read
        self.said, self._said_at, self.number, self.step = "", 0.0, 0, 0
        self._began_anew = False  # since a prompt was tried
        self.is_of_results = False  # what is said, not of a step of a person

    def state(self) -> State:
        """The results as they are now; read anew where a file of theirs has changed, and the session then.

        Raises:
            ClipcifarError: they are missing, damaged or stale, as in the middle of a run.
        """
        with self._reading:
            before = self._read
            if self._state is None or written(self._root) != self._seen:
                self._state, number = None, self.number + 1
                try:
                    results, seen = settled(
                        lambda: Results(self.opened, self._embed, number), self._root, refused=self._refused
                    )
                except ClipcifarError:
                    self._refused = written(self._root)
                    raise
                self.number = number
                if before is not None and results.is_tried_alike(before.results):
                    self._state = replace(before, results=results)
                else:
                    self._began_anew |= before is not None and bool(before.history)
                    self._state = self._stepped(State(results))
                if before is not None:
                    anew = " The prompts of this session began anew." if self._began_anew else ""
                    self._say(f"Results changed and were read again.{anew}", is_of_results=True)
                self._seen, self._read = seen, self._state
            return self._state

    def _stepped(self, state: State) -> State:
        self.step += 1
        return replace(state, step=self.step)

    def _say(self, text: str, *, is_of_results: bool = False) -> None:
        self.said, self._said_at, self.is_of_results = text, monotonic(), is_of_results

    @property
    def news(self) -> str:
        """What has just happened, until open pages have looked."""
        return self.said if monotonic() - self._said_at < _NEWS_S else ""

    @property
    def changed(self) -> bool:
        """Whether results are no longer those that were read, or could not be read."""
        return self._state is None or written(self._root) != self._seen

    def _replace(self, before: State, after: State) -> bool:
        """Go on to another state, unless the history is another by now; whether it is the state now."""
        with self._reading:
            now = self.state()
            if now.step != before.step:
                return False
            self._state = self._read = self._stepped(replace(after, results=now.results))
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
            if not self.is_of_results:
                self._say("")
            state = self.state()
            bench, limit = state.results.bench, state.results.active.prompts.max_sentences
            base = state.last.typed.sentences if state.last else bench.active_sentences
            typed = bench.typed(line, base)
            if (number := sum(map(len, typed.sentences.values()))) > limit:
                raise ConfigError(f"that is {number:,} sentences, more than prompts.max_sentences, {limit:,}")
            below = state.last.layers_below(line) if state.last and typed.templates is None else ()
            if self._replace(state, self._with(state, state.history, typed, (line, *below), on)):
                self._began_anew = False
        give_back_freed_memory()

    def _with(
        self, state: State, before: tuple[Tried, ...], typed: Typed, layers: tuple[str, ...], on: SplitName
    ) -> State:
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
        latest = Tried(typed, layers, on, among(trial.comparison, counted.total), counted, lines)
        answers = results.as_answers(f"tried: {latest.title}", trial.scores)
        return State(results, (*before, latest), answers)

    def _last(self, state: State, step: str) -> Tried:
        """The prompt tried last, for a form that shows the history of a step."""
        if state.last is None:
            raise ConfigError(
                "nothing was tried: there is nothing to undo or to save", fix="type a prompt first"
            )
        if step not in ("", str(state.step)):
            raise ConfigError("another page has tried or undone a prompt since", fix="look at the last one")
        return state.last

    def undo(self, step: str = "") -> None:
        """Go back to the prompt before, whose verdict is given anew; what was tried stays counted.

        Args:
            step: `State.step` of what a person looks at; empty for whatever is last.

        Raises:
            ConfigError: nothing was tried, or something else since.
        """
        with self._trying:
            state = self.state()
            undone = self._last(state, step).title
            after = State(state.results)
            if len(state.history) > 1:
                *before, last = state.history[:-1]
                after = self._with(state, tuple(before), last.typed, last.layers, last.on)
            if self._replace(state, after):
                self._say(f"Undone: {undone}. It was looked at, so it still counts among the trials.")

    def save(self, name: str, step: str = "") -> None:
        """Keep the prompt tried last as a set in params.yaml.

        Args:
            name: of the set.
            step: as `undo` has it.

        Raises:
            ConfigError: nothing was tried, or something else since, or the name cannot be had.
        """
        with self._trying, self._reading:
            state = self.state()
            last = self._last(state, step)
            self._say(state.results.bench.keep(last.typed, name, self._root / PARAMS))
            self._seen[PARAMS] = written(self._root)[PARAMS]  # which is no change of results
            state.results.look_for_stale()
