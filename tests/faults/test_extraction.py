"""Faults of a long extraction, caused for real in the real stage: kills, full and read-only disks, memory."""

from __future__ import annotations

import os
import random
import resource
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from unittest import mock

import pytest
import safetensors.numpy

from tests.support import faults
from tests.support.faults import (
    IMAGES,
    MANIFEST,
    batches,
    forget_images,
    litter,
    notes,
    refused,
    run,
    shard_rows,
    start,
    succeeded,
)
from tests.support.nightly import first, repeated
from tests.support.waiting import wait_for
from tests.support.workspace import Workspace

pytestmark = pytest.mark.pipeline

KILLS = int(os.environ.get("CLIPCIFAR_TEST_KILLS", "50"))
# 1,097 images: 69 batches of 16 in 18 shards of 64, and one batch of the second pass.
SMALL = {"shard_rows": 64}


@pytest.fixture
def small(workspace: Workspace) -> Workspace:
    """A finished run with small batches, whose image embeddings are gone, as DVC leaves it before a stage."""
    workspace.edit(lambda settings: settings["embed"].update(batch_size=16))
    forget_images(workspace)
    return workspace


def images_of(workspace: Workspace) -> dict[str, bytes] | None:
    """Every file of the image embeddings by name, once there is a manifest, which is written last."""
    if not (workspace.folder / MANIFEST).exists():
        return None
    return {path.name: path.read_bytes() for path in (workspace.folder / IMAGES).iterdir()}


@repeated("wanted", by_day=3, nightly=KILLS)
def test_a_stage_killed_at_random_moments_ends_in_the_same_bytes_and_repeats_no_finished_shard(
    small: Workspace, tmp_path: Path, wanted: int
) -> None:
    log = tmp_path / "log"
    slow = {**SMALL, "log": str(log), "slow_s": 0.02, "slow_write_s": 0.003}
    succeeded(run(small, "embed_images", SMALL))
    undisturbed = images_of(small)
    forget_images(small)
    with faults.WarmStage(small, "embed_images", slow) as stage:
        stage.start()
        assert stage.status() == 0
        assert images_of(small) == undisturbed
        order = batches(log)
        assert [size for _, size in order] == [
            16
        ] * 70  # the last of the images, and the second pass, filled up
        assert len({digest for digest, _ in order}) == len(order)

        rng = random.Random(0)
        kills, completed, kept, amidst = 0, 0, 0, 0
        while kills < wanted:
            forget_images(small)  # as DVC does before it runs the stage again
            log.unlink(missing_ok=True)
            finished = {
                digest
                for rows in shard_rows(small)
                for digest, _ in order[rows.start // 16 : -(-rows.stop // 16)]
            }
            kept += len(finished)
            process = stage.start()
            shards = len(shard_rows(small)) + rng.randrange(4)
            while faults.is_running(process) and len(shard_rows(small)) < shards:
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 0.1))  # a shard takes that long
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            status = stage.status()
            encoded = [digest for digest, _ in batches(log)]
            assert not finished & set(encoded), "a finished shard was computed again"
            assert len(set(encoded)) == len(encoded)
            assert images_of(small) in (None, undisturbed)
            assert status in (0, -signal.SIGKILL)
            kills += status != 0
            amidst += status != 0 and len(shard_rows(small)) < 18
            completed += status == 0
            assert status or images_of(small) == undisturbed
    forget_images(small)
    succeeded(run(small, "embed_images", SMALL))
    assert images_of(small) == undisturbed
    assert kept, "no kill left a finished shard"
    assert amidst, "no kill fell into the work"
    assert litter(small.folder, faults.cache_of(small)) == []
    assert shard_rows(small) == []
    print(f"{kills} kills, {amidst} amidst the work, {completed} faster, {kept} batches not computed again")


def test_of_two_runs_at_once_one_works_and_the_other_names_it_before_it_loads_the_model(
    small: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    hold = tmp_path / "hold"
    hold.touch()
    held = {**SMALL, "log": str(log), "hold": str(hold)}
    with start(small, "embed_images", held) as first:
        wait_for(lambda: bool(batches(log)), what="the first batch")
        with start(small, "embed_images", held) as second:
            _, stderr = second.communicate()
        hold.unlink()
        done = subprocess.CompletedProcess(second.args, second.returncode, "", stderr)
        refused(done, 4, f"process {first.pid}", "another run is extracting the same embeddings")
        assert notes(log, process=second.pid) == []
        assert first.wait() == 0
    assert images_of(small) is not None
    assert litter(small.folder, faults.cache_of(small)) == []


def test_the_lock_of_a_killed_run_is_free_and_its_temporary_files_go(
    small: Workspace, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    with start(
        small, "embed_images", {**SMALL, "log": str(log), "slow_s": 0.02, "slow_write_s": 0.5}
    ) as first:
        wait_for(lambda: bool(litter(faults.cache_of(small))), what="a shard being written")
        first.kill()
    assert litter(faults.cache_of(small))
    assert list(faults.cache_of(small).glob("extraction/*.holder"))
    succeeded(run(small, "embed_images", SMALL))
    assert litter(small.folder, faults.cache_of(small)) == []
    assert list(faults.cache_of(small).glob("extraction/*.holder")) == []


def test_a_stage_killed_while_it_writes_its_output_leaves_nothing_that_stays(
    small: Workspace, tmp_path: Path
) -> None:
    folder = (small.folder / IMAGES).parent
    with start(small, "embed_images", {"slow_write_s": 1.0}) as first:
        wait_for(lambda: bool(litter(folder)), what="the output being written")
        first.kill()
    assert litter(folder)
    assert "tmp" not in small.command("git", "status", "--porcelain", "--untracked-files").stdout
    succeeded(run(small, "embed_images"))
    assert litter(small.folder) == []


@pytest.mark.parametrize(
    "staying", first(1, [False, True]), ids=["shell becomes the stage", "shell stays its parent"]
)
def test_a_child_orphaned_by_the_kill_of_dvc_is_named_and_its_finished_shards_are_kept(
    small: Workspace, tmp_path: Path, staying: bool
) -> None:
    log, hold, shell = tmp_path / "log", tmp_path / "hold", tmp_path / "shell"
    hold.touch()
    shell.write_text(f"#!/bin/sh\n{'' if staying else 'exec '}$2\n")  # DVC calls it with -c and the command
    shell.chmod(0o700)
    fault = {**SMALL, "log": str(log), "hold": str(hold), "hold_after": 11}
    small.environment.update(faults.environment(small, fault), SHELL=str(shell))
    command = ["dvc", "repro", "embed_images"]
    with subprocess.Popen(command, cwd=small.folder, env=small.environment, stdout=subprocess.DEVNULL) as dvc:
        wait_for(lambda: len(batches(log)) == 12, what="the first batches")
        dvc.kill()
    child = int(log.read_text().split()[0])
    again = small.command(*command, check=False)
    assert again.returncode != 0
    assert f"process {child}" in again.stderr
    assert "Traceback" not in again.stderr
    hold.unlink()
    wait_for(lambda: not faults.is_running(child), what="the orphan")
    assert len(batches(log)) == 70, "the orphan finishes its work"
    assert len(shard_rows(small)) == 18
    small.command(*command)  # DVC knows nothing of what the orphan finished, and starts the stage again
    assert len(batches(log)) == 70, "a finished shard was computed again"
    assert shard_rows(small) == []


@pytest.mark.parametrize("limit", first(1, [8_000, 0, 100_000]))
def test_a_file_that_may_not_grow_is_an_ordinary_error_without_litter(small: Workspace, limit: int) -> None:
    """RLIMIT_FSIZE: shards have 8 KB, the output 181. The last limit is met by the output alone."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    # The file that `make coverage` has every process write may not grow either.
    small.environment.pop("COVERAGE_PROCESS_CONFIG", None)
    (small.folder / IMAGES).mkdir()
    (small.folder / MANIFEST).write_bytes(b"old")
    done = run(small, "embed_images", SMALL, preexec_fn=limited)
    refused(done, 4, "File too large", "has space left")
    assert images_of(small) == {"manifest.h5": b"old"}
    assert litter(small.folder, faults.cache_of(small)) == []
    assert len(shard_rows(small)) == (18 if limit == 100_000 else 0)


needs_mount = pytest.mark.skipif(
    not faults.can_mount(Path("/mnt")), reason="no file system can be mounted here, not even in a namespace"
)


@needs_mount
@pytest.mark.parametrize("where", ["output", "scratch"])
def test_a_disk_that_is_too_small_is_said_before_the_model_is_loaded(
    small: Workspace, tmp_path: Path, where: str
) -> None:
    folder = (small.folder / IMAGES).parent if where == "output" else faults.cache_of(small)
    log = tmp_path / "log"
    command = faults.in_namespace(faults.tmpfs(folder, "64k"), faults.command_of("embed_images"))
    done = run(small, "embed_images", {**SMALL, "log": str(log)}, command=command)
    said = "data/embeddings" if where == "output" else str(folder / "extraction")
    # 1,097 rows of 32 float32 are 140 KB; the folders take some of the 64.
    refused(done, 4, f"needs 0.2 MB, has 0.0 MB at {said}", "free some space")
    assert notes(log) == []


@needs_mount
@pytest.mark.parametrize(
    ("where", "inodes"), first(2, [("output", 1), ("scratch", 8), ("scratch", 3), ("scratch", 5)])
)
def test_a_disk_without_a_free_inode_is_an_ordinary_error(small: Workspace, where: str, inodes: int) -> None:
    """Free space does not tell: each file fails for real, wherever the run then is."""
    folder = (small.folder / IMAGES).parent if where == "output" else faults.cache_of(small)
    command = faults.in_namespace(
        faults.tmpfs(folder, "4m", inodes=inodes),
        ["sh", "-c", WITH_LISTING, str(folder), *faults.command_of("embed_images")],
    )
    done = run(small, "embed_images", SMALL, command=command)
    said = "data/embeddings" if where == "output" else str(folder / "extraction")
    refused(done, 4, "No space left on device", said)
    assert ".tmp" not in done.stdout
    assert done.stdout.count(".shard") == max(0, inodes - 6)  # folders, lock, holder and kind of device


# What was mounted is gone with the namespace: list it before.
WITH_LISTING = '"$@"; code=$?; find "$0"; exit $code'


@pytest.mark.parametrize(
    ("stage", "folder"),
    first(
        3,
        [
            ("embed_images", "data/embeddings"),
            ("fetch_model", "data/weights"),
            ("download", "data/raw"),
            ("embed_images", "cache"),
            ("embed_texts", "data/embeddings/texts"),
            ("embed_pool", "data/embeddings"),
            ("fetch_model", "data"),
        ],
    ),
)
def test_a_read_only_folder_is_said_before_the_model_is_loaded(
    small: Workspace, tmp_path: Path, stage: str, folder: str
) -> None:
    log = tmp_path / "log"
    path = faults.cache_of(small) / "extraction" if folder == "cache" else small.folder / folder
    path.mkdir(exist_ok=True)
    before = {item: item.read_bytes() for item in path.rglob("*") if item.is_file()}
    path.chmod(0o500)
    try:
        done = run(small, stage, {"log": str(log)}, preexec_fn=faults.without_override)
    except subprocess.SubprocessError:
        pytest.skip("this root cannot give up its right to write anywhere")
    finally:
        path.chmod(0o700)
    refused(done, 4, "Permission denied", folder)
    assert notes(log) == []
    assert {item: item.read_bytes() for item in path.rglob("*") if item.is_file()} == before


@needs_mount
def test_a_read_only_mount_is_said_before_the_model_is_loaded(small: Workspace, tmp_path: Path) -> None:
    folder = shlex.quote(str((small.folder / IMAGES).parent))
    setup = f"mount --bind {folder} {folder}; mount -o remount,ro,bind {folder}"
    command = faults.in_namespace(setup, faults.command_of("embed_images"))
    done = run(small, "embed_images", {"log": str(tmp_path / "log")}, command=command)
    refused(done, 4, "Read-only file system", "data/embeddings")
    assert notes(tmp_path / "log") == []


def test_a_read_only_cache_folder_costs_the_text_side_its_memo_and_nothing_else(small: Workspace) -> None:
    texts = small.folder / "data/embeddings/texts/photo.h5"
    before = texts.read_bytes()
    texts.unlink()
    cache = faults.cache_of(small)
    cache.chmod(0o500)
    try:
        succeeded(run(small, "embed_texts", preexec_fn=faults.without_override))
    finally:
        cache.chmod(0o700)
    assert texts.read_bytes() == before


@pytest.mark.parametrize("error", first(1, ["cublas", "MemoryError"]))
def test_a_batch_too_large_for_memory_names_the_setting_and_lowering_it_helps(
    small: Workspace, error: str
) -> None:
    fault = {**SMALL, "error": error, "above": 8}
    refused(run(small, "embed_images", fault), 4, "out of memory", "params.yaml: embed.batch_size", "lower")
    assert images_of(small) is None
    small.edit(lambda settings: settings["embed"].update(batch_size=8))
    succeeded(run(small, "embed_images", fault))


def test_memory_that_runs_out_late_keeps_the_finished_shards_of_that_batch_size(
    small: Workspace, tmp_path: Path
) -> None:
    fault = {**SMALL, "error": "OutOfMemoryError", "after": 30}
    refused(run(small, "embed_images", fault), 4, "out of memory", "lower embed.batch_size")
    assert len(shard_rows(small)) == 7
    log = tmp_path / "log"
    succeeded(run(small, "embed_images", {**SMALL, "log": str(log)}))
    assert len(batches(log)) == 70 - 28
    small.edit(lambda settings: settings["embed"].update(batch_size=8))
    log.unlink()
    succeeded(run(small, "embed_images", {**SMALL, "log": str(log)}))
    assert len(batches(log)) == -(-1097 // 8) + 1, "other batches are other numbers: nothing is taken over"


def test_a_real_allocation_that_fails_in_the_image_tower_is_told_as_such(small: Workspace) -> None:
    """RLIMIT_AS: 1,097 images in one batch need more than the 60 MB that are left."""
    small.edit(lambda settings: settings["embed"].update(batch_size=2000))
    refused(run(small, "embed_images", {"room": 60_000_000}), 4, "out of memory")


@pytest.mark.parametrize("error", first(1, ["OutOfMemoryError", "MemoryError"]))
def test_memory_that_runs_out_in_the_text_tower_says_what_to_do_and_keeps_what_was_embedded(
    small: Workspace, tmp_path: Path, error: str
) -> None:
    texts = small.folder / "data/embeddings/texts/photo.h5"
    before, log = texts.read_bytes(), tmp_path / "log"
    faults.forget_sentences(small, outputs=True)
    texts.parent.mkdir(exist_ok=True)
    texts.write_bytes(b"of an earlier version")
    done = run(small, "embed_texts", {"text_error": error, "text_after": 1})
    refused(done, 4, "out of memory", "params.yaml: embed.device", "free some memory", "embed.device: cpu")
    assert texts.read_bytes() == b"of an earlier version"
    succeeded(run(small, "embed_texts", {"log": str(log)}))
    assert texts.read_bytes() == before
    remaining = len(notes(log))
    log.unlink()
    (small.folder / "data/embeddings/pool.h5").touch()
    faults.forget_sentences(small, outputs=True)
    succeeded(run(small, "embed_texts", {"log": str(log)}))
    assert len(notes(log)) == remaining + 1


@pytest.mark.parametrize("error", first(1, ["OutOfMemoryError", "MemoryError"]))
def test_memory_that_runs_out_while_the_model_is_loaded_is_not_taken_for_damaged_weights(
    small: Workspace, error: str
) -> None:
    fault = {"load_error": error}
    refused(run(small, "embed_images", fault), 4, "out of memory", "data/weights", "embed.device")


def spoil(workspace: Workspace, name: str, value: float, *, everywhere: bool, tower: str) -> None:
    """Set one weight, or all of one tensor, of the model that params.yaml names, and resolve it again.

    `fetch_model` refuses it, by the tower. The stages after it must not rely on that: a tower can fail on
    some of its inputs alone.
    """
    source = workspace.folder / "data/demo/clip/open_clip_model.safetensors"
    tensors = safetensors.numpy.load_file(source)
    if everywhere:
        tensors[name][:] = value
    else:
        tensors[name].flat[0] = value
    safetensors.numpy.save_file(tensors, source)
    ended = faults.run_here(workspace, "fetch_model")
    assert ended.code == 3
    assert f"the {tower} tower does not work" in ended.error
    with mock.patch("clipcifar.weights.proof.towers_work"):
        assert faults.run_here(workspace, "fetch_model").code == 0


@pytest.mark.parametrize(
    ("value", "everywhere"), first(1, [(float("nan"), False), (float("inf"), False), (0.0, True)]), ids=str
)
def test_weights_that_give_no_unit_vector_stop_the_images_at_the_first_batch_and_name_one(
    small: Workspace, tmp_path: Path, value: float, everywhere: bool
) -> None:
    spoil(small, "visual.proj", value, everywhere=everywhere, tower="image")
    log = tmp_path / "log"
    done = run(small, "embed_images", {**SMALL, "log": str(log)})
    refused(done, 3, "the embedding of image 'train/", "is not a unit vector", "check the model's weights")
    assert len(batches(log)) <= 2  # one is checked while the next one runs
    assert images_of(small) is None
    assert shard_rows(small) == []


@pytest.mark.parametrize(
    ("value", "everywhere"), first(1, [(float("nan"), False), (float("inf"), False), (0.0, True)]), ids=str
)
def test_weights_that_give_no_unit_vector_stop_the_sentences_and_name_one(
    small: Workspace, tmp_path: Path, value: float, everywhere: bool
) -> None:
    spoil(small, "text_projection", value, everywhere=everywhere, tower="text")
    log = tmp_path / "log"
    done = run(small, "embed_texts", {"log": str(log)})
    refused(done, 3, "the embedding of sentence '", "is not a unit vector")
    assert len(notes(log)) == 2  # the model, and one batch
