"""Run the benchmarks, all or the groups named, and write results.json and the table of README.md.

`make bench` runs everything. Rows of groups that were not run keep their place and their figures.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from common import PEERS, ROOT, WORK

HERE = ROOT / "benchmarks"
RESULTS, README = HERE / "results.json", HERE / "README.md"
BEGIN, END = "<!-- table: written by run.py -->", "<!-- end of table -->"
GROUPS = {
    "limits": ("rows.py", "limits"),
    "prompts": ("pipeline.py", "prompts"),
    "empty": ("pipeline.py", "empty"),
    "repro": ("pipeline.py", "repro"),
    "text": ("rows.py", "text"),
    "ranking": ("rows.py", "ranking"),
    "input": ("rows.py", "input"),
    "extraction": ("rows.py", "extraction"),
    "folder": ("rows.py", "folder"),
    "probes": ("rows.py", "probes"),
    "few_shot": ("few_shot.py",),
    "imports": ("pipeline.py", "imports"),
    "scaling": ("scaling.py",),
}


def prepare() -> None:
    """Install the peers beside, not into, the environment, and make the random weights."""
    WORK.mkdir(parents=True, exist_ok=True)
    if not PEERS.is_dir():
        partial = PEERS.with_suffix(".partial")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(partial), "-r", str(HERE / "peers.txt")], check=True)
        partial.rename(PEERS)
    subprocess.run(
        [sys.executable, "-c", "import workspace; workspace.weights()"],
        cwd=HERE,
        env=environment(),
        check=True,
    )


def environment() -> dict[str, str]:
    """Rows import the project from the checkout, nothing asks a hub, and Python keeps what it compiled."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    ours = {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1"}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **ours}


def measured(group: str) -> list[dict[str, Any]]:
    """The rows of one group."""
    script, *arguments = GROUPS[group]
    process = subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    rows = []
    for line in process.stdout:
        if line.startswith('{"name"'):
            rows.append({**json.loads(line), "group": group, "date": str(date.today())})
            print(as_row(rows[-1]), flush=True)
    if process.wait():
        sys.exit(f"{group} failed")
    return rows


def cell(value: object) -> str:
    """A figure, a mark, or nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def as_row(entry: dict[str, Any]) -> str:
    """One line of the markdown table."""
    ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.3g}×"
    cells = [entry["name"], cell(entry["ours"]), cell(entry["theirs"]), entry["unit"], ratio]
    cells += [entry["target"], cell(entry["reached"]), entry["note"]]
    return "| " + " | ".join(cells) + " |"


def table(rows: list[dict[str, Any]]) -> str:
    """All rows as markdown."""
    head = ["work", "ours", "theirs", "unit", "ratio", "target", "reached", "note"]
    lines = ["| " + " | ".join(head) + " |", "|---|---:|---:|---|---:|---|---|---|"]
    return "\n".join([*lines, *map(as_row, rows)])


def main() -> None:
    wanted = sys.argv[1:] or list(GROUPS)
    unknown = set(wanted) - set(GROUPS)
    if unknown:
        sys.exit(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    prepare()
    kept = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    for group in wanted:
        print(f"== {group}", file=sys.stderr, flush=True)
        rows = measured(group)
        kept = [entry for entry in kept if entry["group"] != group] + rows
        kept.sort(key=lambda entry: list(GROUPS).index(entry["group"]))
        RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    text = README.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    days = sorted({entry["date"] for entry in kept})
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    where = f"Measured on the CPU alone ({machine}), {' to '.join(dict.fromkeys((days[0], days[-1])))}."
    README.write_text(f"{before}{BEGIN}\n{where}\n\n{table(kept)}\n{END}{after}")


if __name__ == "__main__":
    main()
