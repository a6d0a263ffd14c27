"""What a card has to show, in one command: `python3 benchmarks/gpu.py`, or `make bench-gpu`.

Each part runs in a process of its own, and its rows are kept as they come: one that fails or takes too long
loses no other's, and one that the time does not suffice for is left out. `gpu.json` and `gpu.md` are written
after every part. The exit code is 1 where a part did not end well, whatever the targets say.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LIMIT_S, LEAST_S = 120, 15  # of one part: the most, and less than which none begins
# Functions of gpu_checks.py and gpu_speed.py; what matters most comes first.
PARTS = ("machine", "arrays", "tests", "loop", "heads", "parity", "profile", "resume", "memory", "text")
PARTS += ("jpegs", "tower", "compiled")
NEVER = ("torch-", "torchvision-", "triton-", "nvidia_", "numpy-")  # which are the machine's own


def install(wheels: Path, folder: Path) -> None:
    """Put wheels into a folder beside the machine's Python, not into it."""
    files = [str(path) for path in sorted(wheels.glob("*.whl")) if not path.name.startswith(NEVER)]
    if not files:
        sys.exit(f"there are no wheels in {wheels}; `make gpu-wheels` collects them")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    pip += ["--no-deps", "--no-compile", "--upgrade", "--target", str(folder)]
    subprocess.run([*pip, *files], check=True)


def run(command: list[str], rows: list[dict[str, Any]], *, seconds: float, log: Path) -> dict[str, Any]:
    """Run one part and add its rows as they come; how it ended, and what it said if that was not well."""
    start, stopped = time.monotonic(), threading.Event()

    def stop() -> None:
        stopped.set()
        os.killpg(process.pid, signal.SIGKILL)

    with (
        open(log, "w") as stderr,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        ) as process,
    ):
        alarm = threading.Timer(seconds, stop)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith('{"'):
                print(line, end="", flush=True)
                rows.append({**json.loads(line), "part": command[-1]})
    alarm.cancel()
    ended: dict[str, Any] = {"outcome": "done", "seconds": round(time.monotonic() - start, 1)}
    if process.returncode:
        ended["outcome"] = (
            "stopped, it took too long" if stopped.is_set() else f"failed, {process.returncode}"
        )
        ended["said"] = log.read_text(errors="replace")[-4000:]
        print(f"{command[-1]}: {ended['outcome']}\n{ended['said'][-1500:]}", file=sys.stderr, flush=True)
    return ended


def write(folder: Path, rows: list[dict[str, Any]], parts: dict[str, dict[str, Any]]) -> None:
    """Write gpu.json and gpu.md."""
    from run import table

    machine = next((entry["machine"] for entry in rows if "machine" in entry), {})
    measured = [entry for entry in rows if "machine" not in entry]
    everything = {"machine": machine, "parts": parts, "rows": measured}
    (folder / "gpu.json").write_text(json.dumps(everything, indent=1, ensure_ascii=False) + "\n")
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    ended = "\n".join(f"- {name}: {part['outcome']}, {part['seconds']:.0f} s" for name, part in parts.items())
    (folder / "gpu.md").write_text(f"{about}\n\n{table(measured)}\n\n{ended}\n")


def alone(parts: list[str], *, toy: bool, folder: Path) -> None:
    """Parts in this process, perhaps with an argument after a colon."""
    import gpu_checks
    import gpu_speed
    import gpu_work

    if not (toy or gpu_work.gpu.ON_CARD):
        sys.exit("there is no cuda device here; --toy runs every part at toy size on a CPU")
    work = gpu_work.Work(folder, gpu_work.TOY if toy else gpu_work.Sizes())
    functions = {**vars(gpu_checks), **vars(gpu_speed)}
    for part in parts:
        name, *arguments = part.split(":")
        functions[name](work, *arguments)


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("parts", nargs="*", help=f"of {' '.join(PARTS)}; all without any")
    reader.add_argument(
        "--out", type=Path, default=ROOT / "build" / "gpu", help="folder of gpu.json and gpu.md"
    )
    reader.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="folder of all else")
    reader.add_argument("--wheels", type=Path, help="folder of wheels that this Python lacks")
    reader.add_argument("--seconds", type=float, default=460, help="for everything")
    reader.add_argument("--toy", action="store_true", help="everything small, and on a CPU if need be")
    reader.add_argument("--alone", action="store_true", help="all in this process")
    asked, begun = reader.parse_args(), time.monotonic()
    if asked.alone:
        alone(asked.parts, toy=asked.toy, folder=asked.work)
        return 0
    site = asked.work / "site"
    for folder in (asked.out, site):
        folder.mkdir(parents=True, exist_ok=True)
    if asked.wheels:
        install(asked.wheels, site)
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (site, ROOT)))
    os.environ |= {"HF_HUB_OFFLINE": "1", "DVC_NO_ANALYTICS": "1", "PYTHONUNBUFFERED": "1"}
    rows: list[dict[str, Any]] = []
    ended: dict[str, dict[str, Any]] = {}
    for name in asked.parts or PARTS:
        left = asked.seconds - (time.monotonic() - begun)
        command = [sys.executable, str(HERE / "gpu.py"), "--work", str(asked.work)]
        command += [*(["--toy"] if asked.toy else []), "--alone", name]
        if left < LEAST_S:
            ended[name] = {
                "outcome": f"left out, {max(left, 0):.0f} s were left",
                "seconds": 0,
            }
        else:
            log = asked.work / f"{name}.log"
            ended[name] = run(command, rows, seconds=min(left, LIMIT_S), log=log)
        write(asked.out, rows, ended)
    print((asked.out / "gpu.md").read_text())
    return int(any(part["outcome"] != "done" for part in ended.values()))


if __name__ == "__main__":
    sys.exit(main())
