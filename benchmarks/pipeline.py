"""The rows that need a workspace: prompt edits as a user makes them, and what the stages import."""

from __future__ import annotations

import itertools
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from common import ROOT, WORK, ahead, call, row, timed
from workspace import command, made

from clipcifar.prompts.save import edit_params, overlay

STAGES = [path.stem for path in sorted((ROOT / "stages").glob("[a-z]*.py"))]
_numbers = itertools.count(1)


def edit(folder: Path, overrides: dict[str, Any]) -> None:
    """Lay overrides over the workspace's params.yaml."""
    edit_params(folder / "params.yaml", lambda params: overlay(params, overrides))


def prompts(templates: list[str]) -> dict[str, Any]:
    """Overrides that give the active set these templates."""
    return {"prompts": {"sets": {"photo": {"templates": templates}}}}


def new_templates(n: int) -> list[str]:
    """Templates that nobody has embedded before, of the usual length."""
    run = f"{int(time.time()) % 100_000} {next(_numbers)}"
    return [f"a photo {run} {i} of a {{classname}}." for i in range(n)]


def stage_commands(folder: Path, *stages: str) -> float:
    """Seconds of the stages' commands of dvc.yaml, each a fresh process, DVC left out."""
    described = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    return timed(lambda: [command(*described[stage]["cmd"].split(), folder=folder) for stage in stages])


def another_prompt_set() -> None:
    """New prompts to new zero-shot metrics, against clip-benchmark evaluating all images again."""
    folder = made()
    path = ("prompts", "embed_active", "zero_shot")
    new, known, peers = [], [], []
    for _ in range(3):
        edit(folder, prompts(new_templates(18)))
        new.append(stage_commands(folder, *path))
        known.append(stage_commands(folder, *path))
        peer = call("clip_benchmark_zero_shot", "512", peers=True)
        peers.append(peer["texts"] + 10_000 / peer["rate"])
    theirs = statistics.median(peers)
    for name, times, least in (
        ("another prompt set to new zero-shot metrics, new sentences", new, 50),
        ("another prompt set to new zero-shot metrics, known sentences", known, 200),
    ):
        ahead(
            name,
            statistics.median(times),
            theirs,
            unit="s",
            least=least,
            note="18 templates, 10,000 test images; fresh processes of prompts, embed_active, zero_shot; "
            "clip-benchmark ran 512 images, scaled linearly, without its start; random weights",
        )
    command("dvc", "repro", "--quiet", folder=folder)


def repro_with_empty_stages() -> None:
    """`dvc repro zero_shot` with known sentences against the same DAG with stages that only copy."""
    folder = made()
    real = (folder / "dvc.yaml").read_text()
    described = yaml.safe_load(real)["stages"]
    path = ("prompts", "embed_active", "zero_shot")
    sets = [new_templates(18), new_templates(18)]
    repro = ("dvc", "repro", "--quiet", "--no-run-cache", "zero_shot")
    for templates in sets:
        edit(folder, prompts(templates))
        command(*repro, folder=folder)
    empty = real
    for stage in path:
        kept = folder / "empty" / stage
        shutil.rmtree(kept, ignore_errors=True)
        for out in outputs(described[stage]):
            target = kept / out
            target.parent.mkdir(parents=True, exist_ok=True)
            source = folder / out
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
        head, tail = empty.split(f"  {stage}:\n", 1)
        body = tail[tail.index("    deps:") :]
        empty = f"{head}  {stage}:\n    cmd: cp -r empty/{stage}/. .\n{body}"
    ours, theirs = [], []
    try:
        for i in range(6):
            (folder / "dvc.yaml").write_text(empty)
            theirs.append(timed(lambda: command(*repro, folder=folder)))
            (folder / "dvc.yaml").write_text(real)
            edit(folder, prompts(sets[i % 2]))
            ours.append(timed(lambda: command(*repro, folder=folder)))
    finally:
        (folder / "dvc.yaml").write_text(real)
    mine, bare = statistics.median(ours[1:]), statistics.median(theirs[1:])
    row(
        "dvc repro zero_shot with known sentences",
        mine,
        bare,
        unit="s",
        ratio=mine / bare,
        target="≤ 1.3× the DAG with empty stages",
        reached=mine / bare <= 1.3,
        note="the other side: prompts, embed_active and zero_shot replaced by cp of their own outputs",
    )
    command("dvc", "repro", "--quiet", folder=folder)


def outputs(stage: dict[str, Any]) -> list[str]:
    """The paths that a stage of dvc.yaml writes."""
    entries = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def whole_repro() -> None:
    """`dvc repro` after a prompt edit, with and without the training of the projection heads."""
    folder = made()
    full = {"projection": {"max_epochs": 60, "seeds": [0, 1, 2]}}
    short = {"projection": {"max_epochs": 1, "seeds": [0]}}

    def repro(projection: dict[str, Any]) -> float:
        edit(folder, {**prompts(new_templates(1)), **projection})
        return timed(lambda: command("dvc", "repro", "--quiet", folder=folder))

    repro(short)
    rounds = [(repro(short), projection_training(folder)) for _ in range(3)]
    besides = statistics.median(whole - training for whole, training in rounds)
    epoch = statistics.median(training for _, training in rounds)
    with_training = repro(full)
    training = projection_training(folder)
    bare = timed(lambda: command("dvc", "repro", "--quiet", folder=folder))
    row(
        "whole dvc repro after a prompt edit, besides the projection heads' training",
        besides,
        None,
        unit="s",
        target="≤ 10 s",
        reached=besides <= 10,
        note="10 new sentences, 60,000 images, 602 templates ranked, the page; measured with one epoch "
        f"of one seed, whose training ({epoch:.1f} s) is taken off; with all epochs and seeds "
        f"{with_training:.0f} s, of which training {training:.0f} s; a repro with nothing to do {bare:.1f} s",
    )


def projection_training(folder: Path) -> float:
    """Seconds of training in the projection stage, run once more as params.yaml stands."""
    described = yaml.safe_load((folder / "dvc.yaml").read_text())["stages"]
    arguments = described["projection"]["cmd"].split()[3:]
    script = ROOT / "benchmarks" / "projection_training.py"
    return float(command("python", str(script), *arguments, folder=folder).split()[-1])


def imports() -> None:
    """Start-up of every stage: the interpreter with the stage's imports."""
    folder = made()
    for stage in STAGES:
        code = f"import os; import stages.{stage}; os._exit(0)"
        seconds = [timed(lambda code=code: command("python", "-c", code, folder=folder)) for _ in range(6)]
        zero_shot = stage == "zero_shot"
        middle = statistics.median(seconds[1:])
        row(
            f"start and imports of {stage}",
            middle,
            None,
            unit="s",
            target="≤ 0.3 s" if zero_shot else "",
            reached=middle <= 0.3 if zero_shot else None,
        )


GROUPS: dict[str, Callable[[], None]] = {
    "prompts": another_prompt_set,
    "empty": repro_with_empty_stages,
    "repro": whole_repro,
    "imports": imports,
}

if __name__ == "__main__":
    WORK.mkdir(parents=True, exist_ok=True)
    seconds = timed(GROUPS[sys.argv[1]])
    print(f"{sys.argv[1]}: {seconds:.0f} s", file=sys.stderr)
