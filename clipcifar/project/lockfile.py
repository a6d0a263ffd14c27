"""What DVC recorded of the last run: its outputs, and the values of params.yaml, which may have moved on."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from clipcifar.core import params

_ABSENT = object()
_UNREADABLE = (OSError, ValueError, YAMLError, KeyError, TypeError, AttributeError)


def recorded_outputs(repository: Path) -> dict[str, str]:
    """The digest of every output of the last runs, of the pipeline and of its studies, by its path.

    Paths are relative to the repository, from where all stages run; the digest of a folder ends in ".dir".
    """
    digests: dict[str, str] = {}
    for lock in [repository / "dvc.lock", *sorted(repository.glob("studies/*/dvc.lock"))]:
        with suppress(*_UNREADABLE):
            for stage in stages_in(lock).values():
                digests |= {str(out["path"]): str(out["md5"]) for out in stage.get("outs", ())}
    return digests


def stages_in(path: Path) -> dict[str, Any]:
    """What a dvc.lock records, or a dvc.yaml defines, by stage; nothing where the file cannot be read."""
    try:
        return dict(YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"])
    except _UNREADABLE:  # DVC itself says what is wrong with its file
        return {}


def changed_keys(repository: Path) -> list[str]:
    """The keys of params.yaml whose values are not those that the stages last ran with.

    Args:
        repository: the folder of params.yaml and dvc.lock.

    Returns:
        Dotted keys, as deep as the difference is; none where DVC has recorded nothing.

    Raises:
        ConfigError: params.yaml is not valid.
    """
    settings = params.load(repository / "params.yaml")
    try:
        stages = stages_in(repository / "dvc.lock")
        recorded = [stage.get("params", {}).get("params.yaml", {}) for stage in stages.values()]
        pairs = [(key, value) for section in recorded for key, value in section.items()]
    except _UNREADABLE:
        return []  # DVC itself says what is wrong with its file
    changed = [key for name, value in pairs for key in _differing(name, value, _value(settings, name))]
    return list(dict.fromkeys(changed))


def _value(settings: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        settings = settings.get(key, _ABSENT) if isinstance(settings, dict) else _ABSENT
    return settings


def _differing(name: str, recorded: Any, current: Any) -> list[str]:
    if isinstance(recorded, dict) and isinstance(current, dict):
        keys = [*recorded, *(key for key in current if key not in recorded)]
        return [
            dotted
            for key in keys
            for dotted in _differing(f"{name}.{key}", recorded.get(key, _ABSENT), current.get(key, _ABSENT))
        ]
    return [] if recorded == current else [name]
