"""`clipcifar try` without a prompt: a line is a prompt, the answer comes at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from clipcifar.api.bench import Bench, SplitName, Typed, judge
from clipcifar.api.trials import Trials
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, ConfigError
from clipcifar.core.files import cache_folder

HELP = """\
a photo of a {classname}.        try a template; [a|b] are alternatives; ; separates several
horse: a horse in a field.       give one class its own sentences, on top of what was tried last
:on test | :on train             which images to score on (train, so that the test set is not used up)
:save NAME                       keep what was tried last as a prompt set in params.yaml
:reset                           forget how many were tried on these images; the correction starts anew
help or ?                        these lines
quit, exit or q                  the end, as is Ctrl-D"""
_WORDS = ("help", "?", "quit", "exit", "q")  # none is a prompt, which names the class


def forgotten(number: int, *, on: SplitName, active: str) -> str:
    """That a session was reset, aloud."""
    if not number:
        return f"no trial against {active} on the {on} images was on record"
    return (
        f"{count_of(number, 'trial')} against {active} on the {on} images forgotten: the correction starts "
        "anew and does not cover them"
    )


class Console:
    """The state of an interactive session: what was tried last, and on which images.

    Args:
        bench: what trials are made on.
        counter: of the trials, those of earlier sessions too.
        active: name of the prompt set that trials are compared with.
        params_path: where `:save` writes.
        on: the images that trials are scored on until another split is asked for.
    """

    def __init__(
        self,
        bench: Bench,
        counter: Trials,
        *,
        active: str,
        params_path: Path,
        on: SplitName = "train",
    ) -> None:
        self._bench, self._counter, self._active = bench, counter, active
        self._params_path = params_path
        self._on: SplitName = on
        self._typed: Typed | None = None

    def reply(self, line: str) -> str | None:
        """The answer to one line, or None to end the session."""
        try:
            if line.lower() in _WORDS:
                return self._command(line.lower())
            if line.startswith(":"):
                return self._command(*line[1:].split())
            return self._try(line)
        except ClipcifarError as error:
            return f"error: {error}"

    def _try(self, line: str) -> str:
        typed = self._bench.typed(
            line, self._typed.sentences if self._typed else self._bench.active_sentences
        )
        judged = judge(
            self._bench, self._counter, typed.sentences, prompt=line, on=self._on, active=self._active
        )
        self._typed = typed
        return "\n".join(judged.lines)

    def so_far(self) -> str:
        """How many trials count already on the images that are scored on; nothing where none does."""
        number = self._counter.so_far(self._bench.family(self._on))
        return f"{count_of(number, 'trial')} so far on the {self._on} images" if number else ""

    def _command(self, name: str = "", *arguments: str) -> str | None:
        match name, arguments:
            case (("quit" | "q" | "exit"), ()):
                return None
            case "on", ("train" | "test" as split,):
                self._on = split
                return "; ".join(filter(None, [f"scoring on the {split} images", self.so_far()]))
            case "save", (set_name,):
                return self._save(set_name)
            case "reset", ():
                number = self._counter.reset(self._bench.family(self._on))
                return forgotten(number, on=self._on, active=self._active)
            case (("help" | "h" | "?"), ()):
                return HELP
            case ("on", _):
                return "error: it takes one of :on train and :on test"
            case ("save", _):
                return "error: it takes one name of letters, digits, _ and -, as in :save mine"
            case _:
                return f"error: unknown command :{name}\n{HELP}"

    def _save(self, name: str) -> str:
        if self._typed is None:
            raise ConfigError("nothing was tried yet", fix="type a prompt first")
        return self._bench.keep(self._typed, name, self._params_path)


def interact(
    console: Console, *, read: Callable[[str], str] = input, write: Callable[[str], None] = print
) -> None:
    """Read and answer lines until the end of input, with history kept between sessions."""
    history = cache_folder() / "try-history"
    with contextlib.suppress(ImportError, OSError):  # no readline on some systems, no history at first
        import readline

        history.parent.mkdir(parents=True, exist_ok=True)
        readline.read_history_file(history)
    write(HELP)
    if begun := console.so_far():
        write(f"\n{begun}; they count together with those to come")
    while True:
        try:
            line = read("prompt> ").strip()
        except (EOFError, KeyboardInterrupt):
            break
        reply = console.reply(line) if line else ""
        if reply is None:
            break
        write(reply)
    with contextlib.suppress(ImportError, OSError):
        import readline

        readline.write_history_file(history)
