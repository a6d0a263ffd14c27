"""Whose a file is, for the accounts that share a cache folder; docs/teams.md says how."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def owner_of(path: Path) -> str:
    """The account that a file belongs to, by number where it has no name here; posix only."""
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def whom_to_ask(path: Path, *, cache: Path) -> str:
    """What to do about a folder or file that another account keeps to itself; empty where it is not that.

    Args:
        path: what this account may not use.
        cache: the cache folder, which alone is ever to be opened to a group.
    """
    if os.name != "posix":
        return ""
    folder = next((place for place in path.parents if os.access(place, os.F_OK)), path)
    kept = next((place for place in (folder, path) if _is_kept(place)), None)
    if kept is None:
        return ""
    owner = owner_of(kept)
    if not kept.is_relative_to(cache):
        return f"{kept} belongs to {owner}, who may let you use it"
    while kept != cache and _is_kept(kept.parent) and owner_of(kept.parent) == owner:
        kept = kept.parent  # all that this account keeps to itself, at once
    return (
        f"{owner} can share it: chmod -R g+rwX {shlex.quote(str(kept))} (docs/teams.md); "
        "or let CLIPCIFAR_CACHE name a folder of your own"
    )


def _is_kept(place: Path) -> bool:
    is_there = os.access(place, os.F_OK)
    return is_there and not os.access(place, os.R_OK | os.W_OK) and place.stat().st_uid != os.geteuid()
