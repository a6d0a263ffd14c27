"""Fetch the dataset's archive, for the sets that have one and unless a local file is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar import download, files, params, plain_files
from clipcifar.datasets import IMAGEFOLDER, DatasetParams, registered
from clipcifar.errors import ConfigError
from stages import run


def main(settings: dict[str, Any], raw: Path) -> None:
    dataset = params.read(settings, "dataset", DatasetParams)
    archive = registered(dataset.name).archive
    _check_path(dataset)
    raw.mkdir(parents=True, exist_ok=True)
    if archive is not None and dataset.path == params.NO_PATH:
        fetched = download.fetch(archive, downloads=files.cache_folder() / "downloads")
        files.copy_file(fetched, raw / archive.filename)
    files.write_json(
        raw / "source.json", {"dataset": dataset.name, "archive": archive.url if archive else None}
    )


def _check_path(dataset: DatasetParams) -> None:
    """Refuse what later stages, or DVC before them, could not read."""
    path, where = Path(dataset.path), "params.yaml: dataset.path"
    if not path.exists():
        raise ConfigError(
            f"{path} does not exist", where=where, fix="give the whole path; ~ and $HOME are not expanded"
        )
    if dataset.name == IMAGEFOLDER:
        if not path.is_dir():
            raise ConfigError(
                "imagefolder needs a folder",
                where=where,
                fix="set it to the folder that holds train/<class>/… and test/<class>/…",
            )
        plain_files.check_hashable(path)
    elif not path.is_file():
        raise ConfigError(
            f"{path} is not a file", where=where, fix=f"set it to the archive, or to {params.NO_PATH}"
        )


if __name__ == "__main__":
    run(main)
