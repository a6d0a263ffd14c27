"""Many faults of one input in one report, so that a person mends all of them between two runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest

from clipcifar.core.errors import ConfigError

LISTED = 20  # of many faults, so many are named
_QUOTED = re.compile(r"'.*'|\".*\"|[0-9]+", re.DOTALL)


class Faults:
    """Gathers what is wrong with one input, so that a person reads all of it at once, not one fault a run."""

    def __init__(self) -> None:
        self._errors: dict[tuple[str, str], ConfigError] = {}

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep the ConfigError that is raised inside, and go on."""
        try:
            yield
        except ConfigError as error:
            self.add(error)

    def add(self, error: ConfigError) -> None:
        """Keep an error; one that says the same of the same place is kept once."""
        self._errors.setdefault((error.where, error.what), error)

    def __bool__(self) -> bool:
        return bool(self._errors)

    def raise_all(self, within: str) -> None:
        """Raise what was gathered, if anything: a single fault as it is, several as one report.

        Args:
            within: what they are faults of, for the report's first line.

        Raises:
            ConfigError: lists at most `LISTED` of them, every kind among these, and counts all.
        """
        errors = list(self._errors.values())
        if not errors:
            return
        if len(errors) == 1:
            raise errors[0]
        kinds: dict[str, list[int]] = {}
        for i, error in enumerate(errors):
            kinds.setdefault(_kind(error), []).append(i)
        in_turn = [i for i in chain.from_iterable(zip_longest(*kinds.values())) if i is not None]
        places = dict.fromkeys(error.where for error in errors)
        if len(places) > 1:  # then the files
            places = dict.fromkeys(place.partition(": ")[0] for place in places)
        sources = list(places)
        shared = f"{sources[0]}: " if len(sources) == 1 else ""
        lines = [_in_a_line(errors[i], shared) for i in sorted(in_turn[:LISTED])]
        if len(errors) > LISTED:
            lines.append(f"and {len(errors) - LISTED:,} more")
        raise ConfigError(
            f"{len(errors):,} faults in {within}:\n    " + "\n    ".join(lines),
            where=", ".join(sources),
            fix="mend all of them; each line ends with how",
        )


def _kind(error: ConfigError) -> str:
    """What errors of one kind have in common: they differ in what they quote and count."""
    return _QUOTED.sub("", error.what)


def _in_a_line(error: ConfigError, shared: str) -> str:
    """An error in one line, without the beginning of its place that others share."""
    where = f"{error.where}: ".removeprefix(shared)
    what, fix = (
        text if len(text) <= length else f"{text[: length // 2]} … {text[-length // 2 :]}"
        for text, length in ((error.what, 160), (error.fix, 100))
    )
    return where + (f"{what}; {fix}" if fix else what)
