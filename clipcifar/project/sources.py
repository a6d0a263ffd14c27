"""Has a file or folder that no stage makes changed since a stage ran: code, photographs, weights?

What is small is hashed. DVC, which remembers what it has hashed, is asked of what is large, and of a folder
whose files are not what was recorded: it may count fewer of them. Sizes and times do not tell: a photograph
that is moved to another class changes no size, and dvc.lock is newer as soon as any stage has run.
"""

from __future__ import annotations

import os
from pathlib import Path

from clipcifar.core.errors import ClipcifarError, EnvironmentFault
from clipcifar.project import dvc_project
from clipcifar.project.counted import files_in
from clipcifar.project.lockfile import File

SMALL = 32_000_000  # bytes, hashed in less than 0.1 s


def changed(repository: Path, path: str, recorded: File) -> bool:
    """Whether a source is not what dvc.lock records of it; one that is absent on this machine is not told.

    Args:
        repository: the folder of dvc.lock.
        path: of the source, absolute or relative to it.
        recorded: what a stage ran on.
    """
    source = repository / path
    try:
        is_file = source.is_file()
        sizes = [os.stat(file).st_size for file in ([source] if is_file else files_in(source, repository))]
        if not sizes:
            return False
        if sum(sizes) <= SMALL:
            same = dvc_project.digest_of(source, repository) == recorded.digest
            if same or is_file:
                return not same
    except (OSError, EnvironmentFault):
        return False  # what cannot be read, the stage will tell
    try:
        return dvc_project.differs_from(repository, path, recorded.digest)
    except ClipcifarError:  # of no DVC that can be asked, the doctor tells
        return True
