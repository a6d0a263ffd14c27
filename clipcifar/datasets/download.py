"""One archive from the network, with bounded retries, checked before it gets its name."""

from __future__ import annotations

import logging
from pathlib import Path

import pooch
import requests

from clipcifar.core import first_use
from clipcifar.core.errors import DataError, EnvironmentFault
from clipcifar.core.files import explained, file_digest, require_writable
from clipcifar.datasets.archives import Archive

RETRIES = 3
TIMEOUT_S = 30.0  # to connect, and between two pieces of the answer
SOURCE_FILE = "source.json"  # says in data/raw what was fetched


def fetch(archive: Archive, *, downloads: Path, retries: int = RETRIES, timeout_s: float = TIMEOUT_S) -> Path:
    """Return the archive in `downloads`, downloading it unless a file with its digest is there.

    MD5 tells a damaged file, not a forged one: an archive with no better digest is trusted on first use.

    Raises:
        DataError: such an archive is not the one of its first use.
        EnvironmentFault: it could not be fetched, or what came has another digest; the message
            says how to place it by hand.
    """
    require_writable(downloads)
    pooch.get_logger().setLevel(logging.WARNING)
    registry = pooch.create(
        path=downloads,
        base_url="",
        registry={archive.filename: f"{archive.algorithm}:{archive.digest}"},
        urls={archive.filename: archive.url},
        retry_if_failed=retries,
    )
    download = pooch.HTTPDownloader(progressbar=True, timeout=timeout_s)

    def downloader(url: str, name: str, registry: pooch.Pooch) -> None:
        Path(name).unlink()  # made by tempfile, so private; made anew, umask and the folder's ACL decide
        download(url, name, registry)

    try:
        path = Path(registry.fetch(archive.filename, downloader=downloader))
    except (requests.RequestException, ValueError, OSError) as error:
        raise EnvironmentFault(
            f"could not download {archive.url}: {_reason(error, archive)}",
            where=str(downloads / archive.filename),
            fix="without a network, get the archive elsewhere and put it at the path above, or set "
            "dataset.path to where it is; `make demo` needs no download",
        ) from error
    if archive.algorithm == "md5":
        first_use.check(archive.url, path)
    return path


def _reason(error: Exception, archive: Archive) -> str:
    if isinstance(error, ValueError) and not isinstance(error, requests.RequestException):
        return f"its {archive.algorithm} is not {archive.digest} ({archive.digest_source})"
    return str(error)


def check(path: Path, archive: Archive) -> None:
    """Raise DataError unless the file at `path` has the archive's digest."""
    with explained(path):
        digest = file_digest(path, archive.algorithm)
    if digest != archive.digest:
        raise DataError(
            f"{path.name} has {archive.algorithm} {digest}, expected {archive.digest} "
            f"({archive.digest_source})",
            where=str(path),
            fix="download it again",
        )
