"""What an account leaves in a shared cache folder, and what another one makes of it.

Run as `python -m tests.support.account USER GROUP UMASK STEP FOLDER URL`, by root: everything is imported
before the account is taken on, which may not be let into the folders that Python lies in.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil  # imported where a process is asked about
import requests.exceptions  # pooch imports it when it downloads

from clipcifar.core import files, first_use
from clipcifar.core.errors import ClipcifarError
from clipcifar.datasets import download
from clipcifar.datasets.archives import Archive
from clipcifar.embeddings.memo import Memo
from clipcifar.embeddings.shards import ShardFolder
from clipcifar.store import container

ARCHIVE = b"the archive"
ROWS = np.eye(2, 3, dtype=np.float32)
CAT, DOG = "a photo of a cat.", "a photo of a dog."
assert requests.exceptions
assert psutil


class Shared:
    """Everything of ours in one cache folder."""

    def __init__(self, folder: Path, url: str) -> None:
        self.memo = Memo(folder / "sentences.sqlite", "a model")
        self.shards = ShardFolder(folder / "extraction", "f" * 64)
        self.kept = folder / "embeddings" / "0a.h5"
        self.file = folder / "weights"
        self.downloads = folder / "downloads"
        self.archive = Archive("a.zip", url, hashlib.md5(ARCHIVE).hexdigest(), "made here", "md5")

    def leave(self) -> None:
        """An interrupted extraction, embeddings, a sentence, a download and a file of first use."""
        self.memo.put({CAT: ROWS[0]})
        with self.shards.locked():
            self.shards.write(0, 2, ROWS)
        container.write(self.kept, kind="rows", arrays={"rows": ROWS}, attributes={})
        files.write_atomically(self.file, b"weights")
        first_use.check("weights", self.file)
        download.fetch(self.archive, downloads=self.downloads)

    def read(self) -> None:
        """All of it as it was left; the archive without asking its server."""
        assert self.memo.get([CAT])[CAT].tobytes() == ROWS[0].tobytes()
        shard = self.shards.read(0, 2)
        assert shard is not None
        assert shard.tobytes() == ROWS.tobytes()
        assert container.read(self.kept, kind="rows").arrays["rows"].tobytes() == ROWS.tobytes()
        first_use.check("weights", self.file)
        assert (self.downloads / self.archive.filename).read_bytes() == ARCHIVE

    def go_on(self) -> None:
        """What the next run does with it: adds to it, writes over it, and takes shards away."""
        self.memo.put({DOG: ROWS[1]})
        assert sorted(self.memo.get([CAT, DOG])) == [CAT, DOG]
        with self.shards.locked():
            self.shards.write(0, 2, ROWS)
            self.shards.write(2, 4, ROWS)
            self.shards.remove()
        assert self.shards.read(0, 2) is None
        container.write(self.kept, kind="rows", arrays={"rows": ROWS}, attributes={})
        first_use.check("another", self.file)
        assert sorted(first_use.known_files()) == ["another", self.archive.url, "weights"]
        download.fetch(self.archive, downloads=self.downloads)

    def try_each(self) -> None:
        """Print why each place cannot be written; what only saves time says nothing."""
        self.memo.put({DOG: ROWS[1]})
        assert list(self.memo.get([CAT, DOG])) == [CAT]
        for attempt in (
            self.hold,
            lambda: self.shards.write(2, 4, ROWS),
            lambda: files.write_atomically(self.kept, b""),
            lambda: download.fetch(self.archive, downloads=self.downloads),
        ):
            _print_why(attempt)

    def look(self) -> None:
        """Print why the record of first use cannot be read, nor places be written outside of the cache."""
        _print_why(first_use.known_files)
        os.environ["CLIPCIFAR_CACHE"] = "/elsewhere"
        os.chdir(self.kept.parent.parent)
        for path in (self.file, Path("embeddings", "x"), Path("/x")):
            _print_why(partial(files.write_atomically, path, b""))

    def hold(self) -> None:
        """Hold the extraction until the input ends."""
        with self.shards.locked():
            print("held", flush=True)
            sys.stdin.read()

    def wait_for_it(self) -> None:
        """Print who holds it."""
        _print_why(self.hold)

    def die_holding(self) -> None:
        """End without a word while holding it and writing a file."""
        with self.shards.locked():
            self.kept.with_name(f".{self.kept.name}.{files.host()}.{os.getpid()}.0a.tmp").touch()
            os._exit(0)


def _print_why(attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except ClipcifarError as error:
        print(error.exit_code, *str(error).splitlines(), sep=" | ")
    else:
        raise AssertionError("it was done")


if __name__ == "__main__":
    user, group = int(sys.argv[1]), int(sys.argv[2])
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    os.umask(int(sys.argv[3], 8))
    shared = Shared(Path(sys.argv[5]), sys.argv[6])
    getattr(shared, sys.argv[4])()
