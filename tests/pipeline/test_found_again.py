"""A real DVC: what was embedded once is found again; on a second machine, see test_two_machines.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.workspace import Workspace, outputs

pytestmark = pytest.mark.pipeline
EMBEDDING = {"embed_images", "embed_active", "embed_texts", "embed_pool"}


def append(workspace: Workspace, module: str) -> None:
    path = workspace.folder / module
    path.write_text(path.read_text() + "\n# a comment\n")


def test_a_comment_below_everything_encodes_no_image_and_changes_no_byte(
    finished: Workspace, tmp_path: Path
) -> None:
    workspace = finished.copy(tmp_path / "w")
    before = outputs(workspace)
    append(workspace, "clipcifar/core/errors.py")
    said = workspace.repro().stdout
    assert set(workspace.executed()) >= EMBEDDING | {"projection"}
    assert "1,097 images were embedded before" in said
    assert outputs(workspace) == before
    append(workspace, "clipcifar/backbone/preprocess.py")
    said = workspace.repro("embed_images").stdout
    assert "1,097 images embedded on cpu" in said
    after = outputs(workspace)
    changed = {path for path in after if after[path] != before[path]}
    assert changed == {"data/embeddings/images/manifest.h5"}  # it says which code made it


def test_fewer_images_load_no_model_and_more_of_them_embed_the_added_ones(
    finished: Workspace, tmp_path: Path
) -> None:
    workspace = finished.copy(tmp_path / "w")
    images = workspace.folder / "data/embeddings/images"

    def embedded(max_per_class: int) -> str:
        workspace.edit(lambda settings: settings["dataset"].update(max_per_class=max_per_class))
        return workspace.repro("embed_images").stdout

    assert "400 images were embedded before" in embedded(20)
    assert "20 of 420 images embedded on cpu; the others were embedded before" in embedded(21)
    reused = {path.name: path.read_bytes() for path in images.iterdir()}
    workspace.command("dvc", "repro", "--force", "--single-item", "embed_images")
    assert {path.name: path.read_bytes() for path in images.iterdir()} == reused
    (workspace.folder / "dvc.lock").unlink()  # nobody knows of earlier ones
    workspace.command("dvc", "repro", "--no-run-cache", "embed_images")
    assert {path.name: path.read_bytes() for path in images.iterdir()} == reused
