"""`make bench-gpu` at toy size on a CPU: a card that is there for minutes must not meet a typo."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.import_closure import ROOT
from tests.support.waiting import PATIENCE_S

SCRIPT = ROOT / "benchmarks" / "gpu.py"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    specification = importlib.util.spec_from_file_location("benchmarks_gpu", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def call(*words: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, what was printed as JSON lines, and what was said on standard error."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    return done.returncode, lines, done.stderr


def test_every_part_runs_on_a_cpu(gpu: ModuleType, tmp_path: Path) -> None:
    # In one process, since each would import torch again.
    code, lines, said = call("--toy", "--work", str(tmp_path), "--alone", *gpu.PARTS)
    assert code == 0, said
    assert lines[0]["machine"]["device"] in ("cpu", "cuda")
    rows = {line["name"]: line for line in lines[1:]}
    for words in ("arrays, fp32", "open_clip loop", "MLP probe", "projection heads", "device at work"):
        assert any(words in name and row["ours"] > 0 for name, row in rows.items()), words
    for words in ("sentences", "JPEGs 32 pixels", "JPEGs 50 pixels", "tower alone, fp32", "tower compiled"):
        assert any(words in name and row["ours"] > 0 for name, row in rows.items()), words
    held = (
        "same run twice",
        "tests that need a card",
        "against the CPU in fp32",
        "killed",
        "batches of 17,592",
    )
    for words in held:
        assert [row["reached"] for name, row in rows.items() if words in name].count(False) == 0, words
        assert any(words in name for name in rows), words
    assert "out of memory: params.yaml: embed.batch_size" in {row["note"] for row in rows.values()}


def test_a_part_that_fails_or_takes_too_long_costs_no_other_and_keeps_its_rows(
    gpu: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "work", "ours": 2.0, "theirs": None, "ratio": None, "target": "", "reached": None}
    line = json.dumps({**row, "unit": "s", "note": ""})
    rows: list[dict[str, Any]] = []
    ends = {}
    scripts = {"failing": "raise OSError('broken')", "slow": "import time; time.sleep(60)", "good": ""}
    for part, code in scripts.items():
        command = [sys.executable, "-u", "-c", f"print({line!r}); {code}", part]
        ends[part] = gpu.run(command, rows, seconds=3 if part == "slow" else 60, log=tmp_path / "log")
    assert [ends[part]["outcome"] for part in scripts] == ["failed, 1", "stopped, it took too long", "done"]
    assert "OSError: broken" in ends["failing"]["said"]
    assert [entry["part"] for entry in rows] == list(scripts)
    gpu.write(tmp_path, [{"machine": {"card": "made"}}, *rows], ends)
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written == {"machine": {"card": "made"}, "parts": ends, "rows": rows}
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("card made\n")
    assert text.count("| work | 2 |") == 3
    assert "- slow: stopped, it took too long" in text


def test_parts_that_the_time_does_not_suffice_for_are_left_out_and_the_exit_code_tells(
    gpu: ModuleType, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, _ = call("--toy", "--out", str(out), "--work", str(tmp_path / "work"), "--seconds", "0")
    assert code == 1
    parts = json.loads((out / "gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.PARTS)
    assert {part["outcome"] for part in parts.values()} == {"left out, 0 s were left"}


def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a card here")
    code, lines, said = call("--work", str(tmp_path), "--alone", "machine")
    assert (code, lines) == (1, [])
    assert said == "there is no cuda device here; --toy runs every part at toy size on a CPU\n"


def test_wheels_that_are_the_machines_own_are_not_installed(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr(gpu.subprocess, "run", lambda words, check: told.append(words))
    with pytest.raises(SystemExit, match="there are no wheels in"):
        gpu.install(tmp_path, tmp_path / "site")
    for name in ("torch-2.11.0-x.whl", "nvidia_cublas-13-x.whl", "ftfy-6-x.whl"):
        (tmp_path / name).touch()
    gpu.install(tmp_path, tmp_path / "site")
    assert told[0][-2:] == [str(tmp_path / "site"), str(tmp_path / "ftfy-6-x.whl")]
    assert {"--no-index", "--no-deps"} <= set(told[0])
    wanted = (SCRIPT.parent / "gpu.txt").read_text().split()
    assert not [name for name in wanted if f"{name}-".startswith(gpu.NEVER)]
