"""Faults of a long extraction, caused for real in the real stage: kills, full and read-only disks, memory."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests import faults
from tests.faults import IMAGES, batches, litter, notes, refused, run, shard_rows, start, succeeded, wait_for
from tests.workspace import Workspace

pytestmark = pytest.mark.pipeline

# The published bar is 50, which takes two minutes: CLIPCIFAR_TEST_KILLS=50.
KILLS = int(os.environ.get("CLIPCIFAR_TEST_KILLS", "20"))
# 1,097 images: 69 batches of 16 in 18 shards of 64.
SMALL = {"shard_rows": 64}


@pytest.fixture
def small(workspace: Workspace) -> Workspace:
    """A finished run with small batches, whose image embeddings are gone, as DVC leaves it before a stage."""
    workspace.edit(lambda settings: settings["embed"].update(batch_size=16))
    (workspace.folder / IMAGES).unlink()
    return workspace


def images_of(workspace: Workspace) -> bytes | None:
    path = workspace.folder / IMAGES
    return path.read_bytes() if path.exists() else None


def test_a_stage_killed_at_random_moments_ends_in_the_same_bytes_and_repeats_no_finished_shard(
    small: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    slow = {**SMALL, "log": str(log), "slow_s": 0.008, "slow_write_s": 0.004}
    began = time.monotonic()
    with start(small, "embed_images", slow) as process:
        wait_for(lambda: bool(notes(log)), what="the model")
        loaded = time.monotonic()
        process.communicate()
    duration = time.monotonic() - loaded
    print(f"{loaded - began:.1f} s to load, {duration:.1f} s of work")
    undisturbed, order = images_of(small), batches(log)
    assert undisturbed is not None
    assert [size for _, size in order] == [16] * 68 + [9]
    assert len({digest for digest, _ in order}) == len(order)

    (small.folder / IMAGES).unlink()
    rng = random.Random(0)
    kills, completed, kept = 0, 0, 0
    while kills < KILLS:
        log.unlink()
        finished = {digest for rows in shard_rows(small) for digest, _ in order[rows.start // 16 : -(-rows.stop // 16)]}
        kept += len(finished)
        process = start(small, "embed_images", slow)
        wait_for(lambda: bool(notes(log)) or process.poll() is not None, what="the model")
        time.sleep(rng.uniform(0, 0.6 * duration))
        process.kill()
        process.communicate()
        encoded = [digest for digest, _ in batches(log)]
        assert not finished & set(encoded), "a finished shard was computed again"
        assert len(set(encoded)) == len(encoded)
        found = images_of(small)
        assert found in (None, undisturbed)
        if process.returncode == 0:
            assert found == undisturbed
            completed += 1
        else:
            assert process.returncode == -9
            kills += 1
        (small.folder / IMAGES).unlink(missing_ok=True)  # as DVC does before it runs the stage again
    succeeded(run(small, "embed_images", SMALL))
    assert images_of(small) == undisturbed
    assert kept, "no kill left a finished shard"
    assert litter(small.folder, faults.cache_of(small)) == []
    assert shard_rows(small) == []
    print(f"{kills} kills, {completed} runs that were faster, {kept} batches not computed again")
