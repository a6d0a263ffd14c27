"""docs/scale.md: its table is what benchmarks/at_scale.py computes."""

from __future__ import annotations

import subprocess
import sys

from tests.support.import_closure import ROOT


def test_the_table_is_the_computed_one() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "at_scale.py")]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert printed.count("\n") > 10
    assert f"\n\n{printed}\n" in (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
