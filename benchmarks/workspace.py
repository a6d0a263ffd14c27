"""A DVC workspace as after a real run on CIFAR-10, with made content: 60,000 images, random ViT-B/32.

The stages that would need a download, or an hour of a CPU, are not run: their outputs are written
here in the same formats, and `dvc commit` records them. All other stages are run for real.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from common import CLASSES, ROOT, WORK, clip_like, photographs

from clipcifar.core import files
from clipcifar.embeddings import provenance
from clipcifar.prompts.save import edit_params, overlay
from clipcifar.store import splits
from clipcifar.store.dataset import PreparedSplit, write_dataset
from clipcifar.store.embeddings import Split
from clipcifar.store.images import write_images
from clipcifar.store.model import ModelDescription

TRAIN, TEST = 50_000, 10_000
OVERRIDES = {"model": {"pretrained": None, "path": "data/none"}}
ENVIRONMENT = {
    **os.environ,
    "DVC_NO_ANALYTICS": "1",
    "CLIPCIFAR_CACHE": str(WORK / "cache"),
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@localhost",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@localhost",
}


def command(*words: str, folder: Path) -> str:
    """Run a command in the workspace; its standard output."""
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
    return done.stdout


def copy_project(folder: Path) -> None:
    """The project's files in a new repository, its model set to random weights."""
    shutil.rmtree(folder, ignore_errors=True)
    listed = command("git", "ls-files", "--cached", "--others", "--exclude-standard", folder=ROOT)
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    edit_params(folder / "params.yaml", lambda params: overlay(params, OVERRIDES))
    command("git", "init", "--quiet", folder=folder)


def weights() -> Path:
    """A folder with data/weights and data/model.json of a random ViT-B/32, made once."""
    folder = WORK / "model"
    if not (folder / "data" / "model.json").is_file():
        copy_project(folder)
        command("python", "-m", "stages.fetch_model", "data/weights", "data/model.json", folder=folder)
    return folder


def write_cache(folder: Path, model: ModelDescription) -> None:
    """What download, prepare and embed_images leave behind."""
    data = folder / "data"
    (data / "raw").mkdir(parents=True)
    (data / "raw" / "made").write_text("no archive: the images of this benchmark are made\n")
    embeddings, labels = clip_like(TRAIN + TEST)
    ids = [f"train/{i:05d}" for i in range(TRAIN)] + [f"test/{i:05d}" for i in range(TEST)]
    pixels = photographs(TRAIN + TEST)

    def prepared(rows: slice) -> PreparedSplit:
        return PreparedSplit(pixels[rows], labels[rows], ids[rows])

    train, test = slice(0, TRAIN), slice(TRAIN, TRAIN + TEST)
    about: dict[str, Any] = {"class_names": CLASSES, "name": "cifar10", "max_per_class": 0}
    digest = write_dataset(data / "dataset.h5", prepared(train), prepared(test), **about)
    files.write_json(data / "classes.json", {"dataset": "cifar10", "class_names": CLASSES})
    rows = splits.stratified_split(labels[train], ids[train], class_names=CLASSES, val_fraction=0.1, seed=0)
    splits.write_splits(data / "splits.h5", ids[train], rows, attributes={"dataset_digest": digest})
    attributes = {
        **provenance.embedding_attributes(model, CLASSES, "cpu"),
        "dataset": "cifar10",
        "dataset_digest": digest,
        "max_per_class": 0,
        "precision": "fp32",
        "batch_size": 256,
    }
    write_images(
        data / "embeddings" / "images",
        train=Split(embeddings[train], labels[train], ids[train]),
        test=Split(embeddings[test], labels[test], ids[test]),
        attributes=attributes,
    )


def made() -> Path:
    """The workspace, every stage up to date; made anew when the project's sources have changed."""
    folder, stamp = WORK / "workspace", WORK / "workspace.sources"
    sources = sorted(
        [*ROOT.glob("clipcifar/**/*"), *ROOT.glob("stages/*.py"), ROOT / "params.yaml", ROOT / "dvc.yaml"]
    )
    names = (path.relative_to(ROOT).as_posix() for path in sources if path.is_file())
    digest = files.source_sha256(ROOT, *(name for name in names if not name.endswith(".pyc")))
    if stamp.is_file() and stamp.read_text() == digest:
        return folder
    stamp.unlink(missing_ok=True)
    copy_project(folder)
    for name in ("weights", "model.json"):
        source, target = weights() / "data" / name, folder / "data" / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    write_cache(folder, ModelDescription.read(folder / "data" / "model.json"))
    command("git", "add", "--all", folder=folder)
    command("git", "commit", "--quiet", "--message", "made", folder=folder)
    for stage in ("download", "prepare", "fetch_model", "embed_images"):
        command("dvc", "commit", "--quiet", "--force", stage, folder=folder)
    command("dvc", "repro", "--quiet", folder=folder)
    command("git", "add", "--all", folder=folder)
    command("git", "commit", "--quiet", "--message", "run", folder=folder)
    stamp.write_text(digest)
    return folder
