"""One expanded prompt set, as the `prompts` stage writes it and later stages read it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from clipcifar.core import class_files
from clipcifar.core.counts import count_of
from clipcifar.core.errors import DataError
from clipcifar.core.files import read_json

LEFT_OUT = "(left out).json"  # beside the sets, and beside their embeddings; none can have this name
OWN_SENTENCES = ""  # stands for the template of a set in which each class has its own sentences


@dataclass(frozen=True)
class PromptSet:
    """One expanded set: S sentences.

    Attributes:
        name: of the set.
        class_index: (S,) the class that each sentence speaks for.
        sentences: the S sentences, grouped by class.
        template_index: (S,) the template that each sentence was made from.
        templates: the T templates, alternatives expanded; where each class has its own sentences,
            there is one, `OWN_SENTENCES`.
        origins: (S,) the entry of the set that each sentence is from, as in "templates[0]"; of a file, with
            the file, as in "data/sentences/mine.json: cat[0]".
        num_repeated: sentences that a class says again, and that are not among the S.
        weights: (S,) above 0, how much each sentence counts in its class's mean; of one that its class says
            again, with what that would have counted. None where all count alike.
    """

    name: str
    class_index: list[int]
    sentences: list[str]
    template_index: list[int]
    templates: list[str]
    origins: list[str]
    num_repeated: int = 0
    weights: list[float] | None = None

    def only(self, sentences: Collection[str]) -> PromptSet:
        """The set without the templates of which any sentence is not among these."""
        missing = {
            template
            for template, text in zip(self.template_index, self.sentences, strict=True)
            if text not in sentences
        }
        kept = [i for i in range(len(self.templates)) if i not in missing]
        position = {old: new for new, old in enumerate(kept)}
        rows = [row for row, template in enumerate(self.template_index) if template not in missing]
        return PromptSet(
            self.name,
            class_index=[self.class_index[row] for row in rows],
            sentences=[self.sentences[row] for row in rows],
            template_index=[position[self.template_index[row]] for row in rows],
            templates=[self.templates[i] for i in kept],
            origins=[self.origins[row] for row in rows],
            weights=None if self.weights is None else [self.weights[row] for row in rows],
        )

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> PromptSet:
        """The set that the `prompts` stage wrote; DataError when it is not one."""
        try:
            required = {field.name: content[field.name] for field in fields(cls) if field.default is MISSING}
        except KeyError as error:
            raise DataError(f"not a prompt set: {error} is missing", fix="run `dvc repro`") from error
        optional = {key: content[key] for key in ("num_repeated", "weights") if key in content}
        return cls(**required, **optional)


def origin_in_project(set_name: str, origin: str) -> str:
    """Where a sentence of a set is from, for messages: the file and the entry."""
    if origin.startswith(f"{class_files.FOLDER.as_posix()}/"):
        return origin
    return f"params.yaml: prompts.sets.{set_name}.{origin}"


def files_in(folder: Path) -> list[Path]:
    """The files of the expanded sets that the `prompts` stage wrote into a folder."""
    return sorted(path for path in folder.glob("*.json") if path.name != LEFT_OUT)


def words_of_left_out(left_out: Mapping[str, int]) -> str:
    """Which sets were left out, and how to have them, in one line."""
    sets = ", ".join(f"{name} ({count_of(count, 'sentence')})" for name, count in left_out.items())
    return f"left out, more than prompts.max_sentences: {sets}; raise that, or make it prompts.active"


def left_out(folder: Path) -> dict[str, int]:
    """The sets that it left out because of their size, with their numbers of sentences.

    Args:
        folder: of the expanded sets, or of their embeddings.

    Raises:
        DataError: the file that says so says something else.
    """
    path = folder / LEFT_OUT
    sizes = read_json(path) if path.is_file() else {}
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        raise DataError(
            "not numbers of sentences by prompt set", where=str(path), fix="run `dvc repro prompts`"
        )
    return sizes
