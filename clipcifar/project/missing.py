"""What the last run made and is not here: brought from DVC's cache or a remote before it is made again.

Readers that miss a file say "run `dvc repro`". On a second machine that may compute for an hour what
`dvc pull` brings in seconds, so the command line and the doctor ask here before they say it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from clipcifar.core.errors import ClipcifarError
from clipcifar.project import dvc_project
from clipcifar.project.dvc_project import FOLDER
from clipcifar.project.lockfile import recorded_outputs, stages_in
from clipcifar.project.remote import holds, remote_of
from clipcifar.project.studies import all_studies

NAMED = 5  # more targets than that are named only where all would be too many


def explain(error: ClipcifarError, repository: Path) -> None:
    """Where an error is about a file that need not be made again, let it say first what brings it.

    Args:
        error: whose `where` may be a path, absolute or from the project's root.
        repository: the project's root, absolute.
    """
    with suppress(OSError, ValueError):  # `where` may be any text
        path = (repository / error.where).relative_to(repository)
        if not error.where or (repository / path).exists():
            return
        if (said := advice(repository, path)) and said not in error.fix:  # it may be said already
            error.fix = f"{said}; if that does not bring it, {error.fix}"


def advice(repository: Path, path: Path | None = None) -> str:
    """What brings a missing file of the last run, and whatever else is missing like it.

    Args:
        repository: the project's root.
        path: of the file or folder, from the root; without one, the first output that is missing.

    Returns:
        Words with a command, none where nothing is missing or the file has to be made.
    """
    recorded = _recorded(repository)
    gone = [at for at in recorded if not (repository / at).exists()]
    path = next(iter(gone), Path()) if path is None else path
    output = next((at for at in (path, *path.parents) if at in recorded), None)
    if output is None:
        return ""
    try:
        cache = dvc_project.cache_of(repository)
        if output not in gone and not _is_member(path.relative_to(output), recorded[output], cache):
            return ""  # nothing that the last run has made
        missing = {at: recorded[at] for at in dict.fromkeys([output, *gone])}
        kept = [at for at, digest in missing.items() if holds(cache, digest)]
        if output in kept and len(kept) < len(missing):  # what lies here waits for no network
            missing = {at: missing[at] for at in (kept if len(kept) <= NAMED else [output])}
        command, rest = restoring(missing, kept=kept, repository=repository)
    except ClipcifarError:  # what is wrong with DVC's files, the doctor says
        return ""
    if output not in rest:
        return f"run `{command}`"
    remote = remote_of(repository)
    if remote is not None and remote.is_gone:
        return f"mount {remote.called} or tell DVC where it is now, and run `dvc pull{remote.option}`"
    return ""


def bringing(repository: Path, output: Path) -> str:
    """The command that brings one output back as it was recorded; empty where its stage has to do it.

    Without a target `dvc checkout` deletes what else its cache lacks, as it does after a `git pull`.

    Args:
        repository: the project's root.
        output: from the root; of git's own files, such as metrics, DVC keeps none.
    """
    digest = _recorded(repository).get(output)
    with suppress(ClipcifarError):  # what is wrong with DVC's files, the doctor says
        if digest and holds(dvc_project.cache_of(repository), digest):
            return "dvc checkout"
        if digest and (remote := remote_of(repository)) and remote.may_hold(digest):
            return f"dvc pull{remote.option}"
    return ""


def restoring(
    outputs: Mapping[Path, str], *, kept: Collection[Path], repository: Path
) -> tuple[str, list[Path]]:
    """What brings outputs back as they were recorded.

    Args:
        outputs: paths from the project's root, with the digests that they had.
        kept: those of them that DVC's cache has.
        repository: the project's root.

    Returns:
        A command, empty where it would bring nothing; and the outputs that have to be made again.
    """
    remote = remote_of(repository) if any(path not in kept for path in outputs) else None
    pulled = [
        path
        for path, digest in outputs.items()
        if path not in kept and remote is not None and remote.may_hold(digest)
    ]
    brought = [path for path in outputs if path in kept or path in pulled]
    rest = [path for path in outputs if path not in brought]
    if not brought:
        return "", rest
    command = f"dvc pull{remote.option}" if remote is not None and pulled else "dvc checkout"
    if rest or len(brought) <= NAMED:
        command += "".join(f" {shlex.quote(path.as_posix())}" for path in brought)
    return command, rest


def _recorded(repository: Path) -> dict[Path, str]:
    """The outputs of the last runs that DVC keeps, with their digests; none of a study that is hidden."""
    hidden = [study.folder for study in all_studies(repository) if study.is_hidden]
    kept: set[str] = set()
    for file in (repository / "dvc.yaml", *repository.glob("studies/*/dvc.yaml")):
        with suppress(AttributeError, TypeError):  # what is wrong with it, DVC says
            for stage in stages_in(file).values() if file.parent not in hidden else ():
                kept |= {out for out in stage.get("outs", ()) if isinstance(out, str)}  # git keeps the others
    return {Path(path): digest for path, digest in recorded_outputs(repository).items() if path in kept}


def _is_member(name: Path, digest: str, cache: Path) -> bool:
    """Whether a file is of a folder's, as its listing in DVC's cache has it."""
    path = dvc_project.object_path(cache, digest)
    return digest.endswith(FOLDER) and name.as_posix() in dvc_project.listing(path)
