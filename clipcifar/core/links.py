"""Links into caches, in which DVC and the hub file what they keep under a digest of it."""

from __future__ import annotations

import re
from pathlib import Path

_FILED = re.compile(r"/([0-9a-f]{2}/[0-9a-f]{30}|blobs/([0-9a-f]{40}|[0-9a-f]{64}))\Z")


def is_filed(target: Path) -> bool:
    """Whether a file is named as in a cache of DVC's, in any version and of any project, or of the hub's.

    A link to such a file is followed wherever that lies: nobody can name it in a link who does not know what
    it holds, so that the link gives nothing away.

    Args:
        target: a whole path without links.
    """
    return _FILED.search(target.as_posix()) is not None
