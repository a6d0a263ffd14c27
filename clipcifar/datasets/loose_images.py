"""The images below any folder, whatever its layout; what is one, `folder_layout` judges.

Nothing vanishes: what is not an image is counted, and what should be one and is not read is told with the
reason, while the others go on. No file is opened.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from clipcifar.core.terminal import one_line
from clipcifar.datasets.folder_entries import HIDDEN, is_hidden, is_image, kind_of, leading_out
from clipcifar.datasets.plain_files import unreadable

_FOLDER_LINK = "a symbolic link to a folder, which is not followed"


@dataclass
class LooseImages:
    """What lies below a folder.

    Attributes:
        images: paths that begin with the folder as it was given, those of a folder sorted by name.
        unread: such paths with what keeps them from being read.
        left_out: how many other files there are, by kind.
    """

    images: list[Path] = field(default_factory=list)
    unread: list[tuple[Path, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def loose_images(root: Path) -> LooseImages:
    """List the images below a folder, which itself may be a link."""
    listed, inside = LooseImages(), os.path.realpath(root)
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as scanned:
                entries = sorted(scanned, key=lambda entry: entry.name)
        except OSError as error:
            listed.unread.append((folder, f"cannot be listed: {error.strerror}"))
            continue
        below = [_place(entry, listed, inside) for entry in entries]
        folders += [path for path in reversed(below) if path is not None]
    return listed


def _place(entry: os.DirEntry[str], listed: LooseImages, inside: str) -> Path | None:
    """Put a file where it belongs; a folder is given back."""
    path = Path(entry.path)
    if is_hidden(entry.name):
        listed.left_out[HIDDEN] += 1
    elif entry.is_dir(follow_symlinks=False):
        return path
    elif (problem := _unread(entry, inside)) and (is_image(entry.name) or problem == _FOLDER_LINK):
        listed.unread.append((path, problem))
    elif is_image(entry.name):
        listed.images.append(path)
    else:
        listed.left_out[kind_of(entry.name)] += 1
    return None


def _unread(entry: os.DirEntry[str], inside: str) -> str:
    """Why an entry that is no folder is not read; nothing where it is."""
    try:
        problem = unreadable(entry)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if problem or not entry.is_symlink():
        return problem
    if entry.is_dir():
        return _FOLDER_LINK
    target = leading_out(entry.path, inside)
    return f"a symbolic link that leads out, to {one_line(str(target))}" if target else ""
