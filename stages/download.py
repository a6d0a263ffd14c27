"""Fetch the dataset's archive, for the sets that have one and unless a local file is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clipcifar import download, files, params
from clipcifar.datasets import IMAGEFOLDER, DatasetParams, registered
from clipcifar.errors import ConfigError
from stages import run


def main(settings: dict[str, Any], raw: Path) -> None:
    dataset = params.read(settings, "dataset", DatasetParams)
    archive = registered(dataset.name).archive
    if not Path(dataset.path).exists():
        raise ConfigError(
            f"{dataset.path} does not exist",
            where="params.yaml: dataset.path",
            fix="give the whole path; ~ and $HOME are not expanded",
        )
    if dataset.name == IMAGEFOLDER and dataset.path == params.NO_PATH:
        raise ConfigError(
            "imagefolder needs a folder",
            where="params.yaml: dataset.path",
            fix="set it to the folder that holds train/<class>/… and test/<class>/…",
        )
    raw.mkdir(parents=True, exist_ok=True)
    if archive is not None and dataset.path == params.NO_PATH:
        fetched = download.fetch(archive, downloads=files.cache_folder() / "downloads")
        files.copy_file(fetched, raw / archive.filename)
    files.write_json(
        raw / "source.json", {"dataset": dataset.name, "archive": archive.url if archive else None}
    )


if __name__ == "__main__":
    run(main)
