"""`clipcifar doctor` and `completion`: the project's health, and the shell's help."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from clipcifar.cli.command import Command, in_project
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError


@in_project(required=False)
def _doctor(arguments: Namespace) -> str:
    from clipcifar.doctor.checks import examine

    problems = []
    for name, said in examine(Path.cwd()):
        if isinstance(said, ClipcifarError):
            problems.append(said)
            indented = str(said).replace("\n", "\n       ")
            print(f"PROBLEM  {name}: {indented}", flush=True)
        else:
            print(f"ok       {name}: {said}", flush=True)
    if not problems:
        return "No problem found."
    print(f"{count_of(len(problems), 'problem')}.", flush=True)
    sys.exit(problems[0].exit_code)


DOCTOR = Command(
    _doctor,
    help="is everything there, and unharmed?",
    description="Check the environment, params.yaml, the disk, every file of a run against its digest, "
    "and DVC's cache. Nothing is changed. The exit code is 0, or that of the first problem.",
)


def _completion_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=["bash", "zsh", "tcsh"])


def _completion(arguments: Namespace) -> str:
    import shtab

    return str(shtab.complete(arguments.parser, arguments.shell))


COMPLETION = Command(
    _completion,
    help="what lets a shell complete commands",
    description="Print the shell's own script that completes commands, options and their values. In bash: "
    'eval "$(clipcifar completion bash)", in ~/.bashrc for all later shells.',
    arguments=_completion_arguments,
)
