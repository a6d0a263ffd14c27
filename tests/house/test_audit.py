"""`make audit`: a finding fails, silence does not, and is never taken for a clean answer."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.workspace import ROOT

SCRIPT = ROOT / ".ci" / "audit.py"
CLEAN = {"name": "a", "version": "1.0", "vulns": []}
WEAK = {"name": "b", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def _verdict(*packages: dict[str, Any]) -> tuple[int | None, str]:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: tuple[int | None, str] = module.verdict({"dependencies": list(packages)} if packages else {})
    return found


@pytest.mark.parametrize(
    ("packages", "code", "part"),
    [
        ([CLEAN], 0, "in 1 of 1 pinned"),
        ([CLEAN, UNKNOWN], 0, "in 1 of 2 pinned packages, but not c"),
        ([CLEAN, WEAK, UNKNOWN], 1, "b 2.0: PYSEC-1, mended in 2.1"),
        ([UNKNOWN, UNKNOWN], None, "none of the packages"),
        ([], None, "no report"),
    ],
)
def test_a_report_is_taken_for_what_it_says(
    packages: list[dict[str, Any]], code: int | None, part: str
) -> None:
    found, said = _verdict(*packages)
    assert found == code
    assert part in said


@pytest.mark.parametrize(
    ("answers", "code", "parts"),
    [
        ({"pypi": [UNKNOWN], "osv": None}, 0, ["NOTHING WAS AUDITED", "pypi: knows none", "osv: no route"]),
        ({"pypi": None, "osv": [CLEAN]}, 0, ["no known vulnerability in 1 of 1", "(osv)"]),
        ({"pypi": [WEAK], "osv": [CLEAN]}, 1, ["PYSEC-1", "(pypi)"]),
    ],
)
def test_services_are_asked_in_turn_and_silence_is_said_aloud(
    tmp_path: Path, answers: dict[str, Any], code: int, parts: list[str]
) -> None:
    stub = tmp_path / "pip-audit"
    stub.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"answers = json.loads({json.dumps(json.dumps(answers))})\n"
        "packages = answers[sys.argv[sys.argv.index('--vulnerability-service') + 1]]\n"
        "if packages is None:\n    sys.exit('a trace\\nno route')\n"
        "print(json.dumps({'dependencies': packages}))\n"
        "sys.exit(any(package.get('vulns') for package in packages))\n"
    )
    stub.chmod(0o755)
    done = subprocess.run(
        [sys.executable, SCRIPT],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert all(part in done.stdout for part in parts), done.stdout
