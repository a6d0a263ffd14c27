"""Prompts that are typed or passed, and do not stand in params.yaml."""

from __future__ import annotations

from collections.abc import Mapping

from clipcifar.core.errors import ConfigError
from clipcifar.prompts.sets import expand_set
from clipcifar.store.prompt_set import PromptSet


def expand_typed(values: Mapping[str, object], *, class_names: list[str], dataset: str) -> PromptSet:
    """Expand a prompt set without a name, as `expand_set` does those of params.yaml.

    Args:
        values: as in params.yaml; it names no other dataset.
        class_names: C names in label order.
        dataset: the dataset's registry name.

    Raises:
        ConfigError: what is wrong with it, said of "the prompt".
    """
    try:
        expanded = expand_set("trial", values, class_names=class_names, dataset=dataset)
    except ConfigError as error:
        error.where = "the prompt"
        for name in ("prompts.sets.trial.", " set trial"):
            error.what = error.what.replace(name, "")
        raise
    assert expanded is not None  # the set names no other dataset
    return expanded
