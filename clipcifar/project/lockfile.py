"""What dvc.yaml asks for and dvc.lock records, read without DVC: of the pipeline and of its studies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from clipcifar.core.files import fault_behind

_UNREADABLE = (OSError, ValueError, YAMLError, KeyError, TypeError, AttributeError)
_SETTING = re.compile(r"\$\{([^}]*)\}")
ABSENT = object()
Read = Callable[[str], bytes]


@dataclass(frozen=True)
class File:
    """A file or folder as dvc.lock records it: its md5, that of a folder ends in ".dir", and its bytes."""

    digest: str
    size: int = 0


@dataclass(frozen=True)
class Run:
    """The last run of a stage: by path what it ran on and made, by dotted key its params; and its cmd."""

    deps: Mapping[str, File]
    outs: Mapping[str, File]
    params: Mapping[str, Any]
    cmd: Any = None


@dataclass(frozen=True)
class Asked:
    """What dvc.yaml asks of a stage.

    Attributes:
        deps: by path, the key of params.yaml that is put into it, or nothing.
        params: dotted keys.
        outs: paths, metrics and plots among them.
        cmd: what it runs; None where that depends on settings.
        is_frozen: whether `dvc repro` passes it over, by `dvc freeze`.
    """

    deps: Mapping[str, str]
    params: list[str]
    outs: list[str]
    cmd: Any = None
    is_frozen: bool = False


def recorded_outputs(repository: Path) -> dict[str, str]:
    """The digest of every output of the last runs, of the pipeline and of its studies, by its path.

    Paths are relative to the repository, from where all stages run; the digest of a folder ends in ".dir".
    """
    runs = recorded_runs(reader(repository), files_of(repository, "dvc.lock"))
    return {path: out.digest for run in runs.values() for path, out in run.outs.items()}


def reader(repository: Path) -> Read:
    """Reads a file of the workspace."""
    return lambda path: (repository / path).read_bytes()


def files_of(repository: Path, name: str) -> list[str]:
    """The file of that name in the root and in every study, relative to the root."""
    studies = sorted(path.relative_to(repository).as_posix() for path in repository.glob(f"studies/*/{name}"))
    return [name, *studies]


def recorded_runs(read: Read, locks: list[str]) -> dict[str, Run]:
    """The last run of every stage, by what `dvc repro` calls it; nothing of a lock that cannot be read."""
    return {
        target_of(lock, name): run
        for lock in locks
        for name, stage in _stages(read, lock).items()
        if (run := _run(stage)) is not None
    }


def asked_stages(read: Read, definitions: list[str], settings: Any) -> dict[str, Asked]:
    """What every stage is asked to do, by what `dvc repro` calls it.

    Args:
        read: gives a file's bytes.
        definitions: dvc.yaml and those of studies.
        settings: of params.yaml, whose values stand in paths.
    """
    asked = {}
    for file in definitions:
        for name, stage in _stages(read, file).items():
            with suppress(*_UNREADABLE):
                deps = dict(_deps(stage["deps"], settings))
                outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ())]
                cmd = stage.get("cmd")
                asked[target_of(file, name)] = Asked(
                    deps,
                    list(_keys(stage.get("params", ()), settings)),
                    [next(iter(out)) if isinstance(out, dict) else str(out) for out in outs],
                    None if _SETTING.search(str(cmd)) else cmd,
                    bool(stage.get("frozen")),
                )
    return asked


def _deps(deps: Any, settings: Any) -> Iterator[tuple[str, str]]:
    for dep in deps:
        keys = _SETTING.findall(dep)
        if all(value_of(settings, key) is not ABSENT for key in keys):  # else they are of other files
            yield _SETTING.sub(lambda key: str(value_of(settings, key[1])), dep), "".join(keys)


def _keys(params: Any, settings: Any) -> Iterator[str]:
    """The dotted keys of params.yaml that a stage asks for, in all the forms that DVC knows."""
    for entry in params:
        if isinstance(entry, dict):  # by file; of one that nothing is named of, everything
            if "params.yaml" in entry:
                yield from entry["params.yaml"] or settings
        else:
            yield str(entry)


def target_of(file: str, name: str) -> str:
    """What `dvc repro` calls a stage of a dvc.yaml, or of the dvc.lock beside it."""
    folder, _, _ = file.rpartition("/")
    return f"{folder}/dvc.yaml:{name}" if folder else name


def stages_in(path: Path) -> dict[str, Any]:
    """What a dvc.lock records, or a dvc.yaml defines, by stage; nothing where it is missing, or damaged.

    Raises:
        EnvironmentFault: it is there and cannot be read: that nothing was ever run would be wrong.
    """
    return _stages(lambda name: path.read_bytes(), str(path))


def settings_in(text: bytes) -> Any:
    """The values of a params.yaml as DVC reads them; nothing where they cannot be read."""
    try:
        return YAML(typ="safe").load(text.decode())
    except _UNREADABLE:
        return {}


def value_of(settings: Any, dotted: str) -> Any:
    """The value of a dotted key, or ABSENT."""
    for key in dotted.split("."):
        settings = settings.get(key, ABSENT) if isinstance(settings, dict) else ABSENT
    return settings


def differing(name: str, recorded: Any, current: Any) -> list[str]:
    """The dotted keys, as deep as the difference is, of what two values of a key do not agree on."""
    if isinstance(recorded, dict) and isinstance(current, dict):
        keys = [*recorded, *(key for key in current if key not in recorded)]
        return [
            dotted
            for key in keys
            for dotted in differing(f"{name}.{key}", recorded.get(key, ABSENT), current.get(key, ABSENT))
        ]
    return [] if recorded == current else [name]


def _stages(read: Read, path: str) -> dict[str, Any]:
    try:
        return dict(YAML(typ="safe").load(read(path).decode())["stages"])
    except _UNREADABLE as error:  # DVC itself says what is wrong with its file
        if fault := fault_behind(error, path):
            raise fault from error
        return {}


def _run(stage: Any) -> Run | None:
    try:
        deps, outs = (
            {
                str(entry["path"]): File(str(entry["md5"]), int(entry.get("size", 0)))
                for entry in stage.get(kind, ())
                if "md5" in entry
            }
            for kind in ("deps", "outs")
        )
        params = dict(stage.get("params", {}).get("params.yaml", {}))
        return Run(deps, outs, params, stage.get("cmd"))
    except _UNREADABLE:
        return None
