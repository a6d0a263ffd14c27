"""Walk through the pipeline on the embedded data: run it, change a prompt, run it again, compare.

The pipeline does not know that it is the demo: this script copies the project into a repository of
its own, lays the overrides of data/demo/params.yaml over params.yaml, and types the commands that a
user would type. Run it with `make demo`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from clipcifar.prompts.save import edit_params, overlay

PROJECT = Path(__file__).resolve().parents[2]
OVERRIDES = Path("data/demo/params.yaml")
OLD, NEW = "a photo of a {classname}.", "a scan of the handwritten digit {classname}."


def say(text: str) -> None:
    """Print a heading that stands out among the output of commands."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def type_command(*command: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Show a command as a user would type it, and run it."""
    print(f"$ {' '.join(command)}", flush=True)
    subprocess.run(command, cwd=folder, env=environment, check=True)


def quietly(*command: str, folder: Path) -> str:
    """Run a command for its output."""
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def project_files() -> list[str]:
    """The files under version control, or, where the project is no checkout, all but what was built."""
    try:
        return quietly(
            "git", "ls-files", "--cached", "--others", "--exclude-standard", folder=PROJECT
        ).splitlines()
    except (OSError, subprocess.CalledProcessError):
        skipped = {".git", ".venv", "build", "__pycache__"}
        files = (path.relative_to(PROJECT) for path in PROJECT.rglob("*") if path.is_file())
        return [path.as_posix() for path in files if not skipped & set(path.parts)]


def make_workspace(workspace: Path) -> bool:
    """A fresh copy of the project in a repository of its own; True if an earlier walk's cache was kept."""
    kept = workspace.with_name(workspace.name + "-dvc-cache")
    if (workspace / ".dvc" / "cache").is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(workspace / ".dvc" / "cache", kept)
    shutil.rmtree(workspace, ignore_errors=True)
    for file in project_files():
        if (PROJECT / file).is_file():  # a deleted file may still be listed
            (workspace / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / file, workspace / file)
    again = kept.is_dir()
    if again:
        shutil.move(kept, workspace / ".dvc" / "cache")
    quietly("git", "init", "--quiet", folder=workspace)
    for key, value in (("user.name", "demo"), ("user.email", "demo@localhost")):
        quietly("git", "config", key, value, folder=workspace)
    overrides = YAML(typ="safe").load(workspace / OVERRIDES)
    edit_params(workspace / "params.yaml", lambda params: overlay(params, overrides))
    commit(workspace, "clipcifar on digits")
    return again


def commit(workspace: Path, message: str) -> None:
    """Commit everything, if there is anything."""
    quietly("git", "add", "--all", folder=workspace)
    quietly("git", "commit", "--quiet", "--allow-empty", "--message", message, folder=workspace)


def change_prompt(params: Any) -> None:
    """Reword the active prompt set's only template."""
    params["prompts"]["sets"]["photo"]["templates"] = [NEW]


def main() -> None:
    """Walk through it in the folder named on the command line."""
    workspace = Path(sys.argv[1]).resolve()
    cache = workspace.with_name(workspace.name + "-cache")
    environment = {**os.environ, "CLIPCIFAR_CACHE": str(cache)}
    started = time.monotonic()
    again = make_workspace(workspace)
    say(f"The whole pipeline, on scikit-learn's digits and a stand-in model, in {workspace}")
    if again:
        print("(DVC's cache of the last walk was kept: what ran then is restored now, not run again.)")
    type_command("dvc", "repro", folder=workspace, environment=environment)
    commit(workspace, f"prompt: {OLD}")
    print("\nAre these the numbers that the stand-in is known for?")
    type_command("clipcifar", "verify", folder=workspace, environment=environment)

    say(f'A change of prompt in params.yaml: "{OLD}" becomes "{NEW}"')
    edit_params(workspace / "params.yaml", change_prompt)
    print("What is stale now, and why:")
    type_command("dvc", "status", "dvc.yaml", folder=workspace, environment=environment)
    print('\nRun again. A stage that "didn\'t change" has inputs with the same digests as before:')
    type_command("dvc", "repro", folder=workspace, environment=environment)

    say("What the change of prompt did")
    type_command("dvc", "metrics", "diff", folder=workspace, environment=environment)

    say(f"All methods, after {time.monotonic() - started:.0f} s")
    type_command("clipcifar", "show", folder=workspace, environment=environment)
    print(
        "\nThe stand-in proves the machinery; its accuracies say nothing about CLIP.\n"
        f"Look at it in a browser: {workspace}/report/index.html\n"
        "To go on from here:\n"
        f"  . .venv/bin/activate && cd {workspace}\n"
        f"  export CLIPCIFAR_CACHE={cache}   # so that no sentence is embedded twice\n"
        "  clipcifar try 'a blurry photo of a {classname}.'\n"
        "  clipcifar explore   # the same and more, as a local page\n"
        "or edit params.yaml, then `dvc repro` and `dvc metrics diff`; README.md has the rest."
    )


if __name__ == "__main__":
    main()
