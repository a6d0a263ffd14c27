"""Prompts that name a corruption ("a blurry photo of a ..."), against the active set on its images.

Nothing is chosen here: the templates are written before any image is seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation.compare import Paired, paired as paired_once
from clipcifar.evaluation.signs import LEVEL, holm
from clipcifar.evaluation.verdict import balanced_said, tells_otherwise
from clipcifar.evaluation.words import with_interval
from clipcifar.prompts.sets import expand_set
from clipcifar.store.prompt_set import PromptSet
from clipcifar.studies.corruptions.images.generated import CORRUPTIONS
from clipcifar.studies.corruptions.images.kinds import KNOWN, PUBLISHED
from clipcifar.studies.corruptions.judge.repeated import paired_by_class
from clipcifar.studies.corruptions.params import offered


def expand(
    naming: Mapping[str, object], names: Iterable[str], *, class_names: list[str], dataset: str
) -> dict[str, PromptSet]:
    """The naming sets of those corruptions that have one, in the order of `names`.

    Args:
        naming: templates by corruption, as params.yaml has them.
        names: of the corruptions that were embedded.

    Raises:
        ConfigError: names the corruption and the index of the offending template.
    """
    for name in naming:
        if name not in KNOWN:
            raise ConfigError(
                f"unknown corruption {name!r}",
                where="params.yaml: corruptions.naming",
                fix=offered(name, CORRUPTIONS, PUBLISHED),
            )
    sets = {}
    for name in names:
        if name in naming:
            values = {"template_mode": "shared", "templates": naming[name]}
            try:
                expanded = expand_set(name, values, class_names=class_names, dataset=dataset)
            except ConfigError as error:
                key, own = f"prompts.sets.{name}.templates", f"corruptions.naming.{name}"
                error.what, error.where = error.what.replace(key, own), error.where.replace(key, own, 1)
                raise
            assert expanded is not None  # the set names no other dataset
            sets[name] = expanded
    return sets


def searched(values: Mapping[str, object], *, class_names: list[str], dataset: str) -> PromptSet:
    """The set that the search for prompts chose, from `data/ranking.json`, expanded."""
    expanded = expand_set("searched", values, class_names=class_names, dataset=dataset)
    if expanded is None:
        raise DataError("the ranking is of another dataset", fix="run `dvc repro rank_prompts`")
    return expanded


def origins(naming: Mapping[str, PromptSet], best: PromptSet | None) -> dict[str, str]:
    """Every sentence to embed, with where it is from; no best set where the search kept the active one."""
    sources = dict.fromkeys(best.sentences if best else (), "data/ranking.json")
    for name, prompts in naming.items():
        sources |= dict.fromkeys(prompts.sentences, f"params.yaml: corruptions.naming.{name}")
    return sources


@dataclass(frozen=True)
class Naming:
    """One naming set against the active set.

    Attributes:
        name: of the corruption.
        num_sentences: of the naming set.
        corrupted: naming set minus active set on the corruption's images, all severities.
        p_holm: its p value, corrected over the corruptions.
        clean: the same on the uncorrupted images, where the sentences say what is not so.
    """

    name: str
    num_sentences: int
    corrupted: Paired
    p_holm: float
    clean: Paired


@dataclass(frozen=True)
class Right:
    """Whether a classifier was right about N images, (N,) when clean and (S, N) when corrupted."""

    clean: NDArray[np.bool_]
    corrupted: NDArray[np.bool_]


def against_active(
    active: Mapping[str, Right],
    naming: Mapping[str, tuple[int, Right]],
    labels: NDArray[np.int64],
    *,
    class_names: list[str],
    copies: NDArray[np.int64] | None = None,
) -> list[Naming]:
    """Compare every naming set, given with its number of sentences, with the active set on the N images."""
    versus = {
        name: paired_by_class(
            active[name].corrupted, right.corrupted, labels, class_names=class_names, copies=copies
        )
        for name, (_, right) in naming.items()
    }
    corrected = holm([item.p_value for item in versus.values()])
    return [
        Naming(name, sentences, versus[name], p, paired_once(active[name].clean, right.clean, copies))
        for (name, (sentences, right)), p in zip(naming.items(), corrected, strict=True)
    ]


def spoken(name: str) -> str:
    """A corruption's name as a person reads it."""
    return name.replace("_", " ")


def verdicts(comparisons: Sequence[Naming], active: str) -> list[str]:
    """Under which corruptions the naming set is better than the active one, worse, or neither."""
    better = [item for item in comparisons if item.p_holm < LEVEL and item.corrupted.difference > 0]
    worse = [item for item in comparisons if item.p_holm < LEVEL and item.corrupted.difference < 0]
    neither = [item for item in comparisons if item.p_holm >= LEVEL]
    sentences = []
    for items, said in (
        (better, f"Prompts that name the corruption are better than {active} under"),
        (worse, f"Prompts that name the corruption are worse than {active} under"),
        (neither, f"No difference shown between prompts that name the corruption and {active} under"),
    ):
        if items:
            ordered = sorted(items, key=lambda item: -abs(item.corrupted.difference))
            told = "; ".join(
                f"{spoken(item.name)} {with_interval(item.corrupted)}{_otherwise(item.corrupted)}"
                for item in ordered
            )
            sentences.append(f"{said} {told} (points, 95 % interval; exact paired test by image, Holm).")
    return sentences


def _otherwise(paired: Paired) -> str:
    balanced = tells_otherwise(paired)
    return f", where balanced accuracy {balanced_said(balanced)}" if balanced else ""
