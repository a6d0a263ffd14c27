"""`clipcifar …`: a table of commands, and how one of them ends."""

from __future__ import annotations

import gc
import os
import sys
from argparse import ArgumentParser
from importlib.metadata import version

from clipcifar.cli import explore, export, find, predict, prompts, results, study, upkeep
from clipcifar.cli.command import PROJECT, add_folder
from clipcifar.core.errors import OUT_OF_MEMORY, ClipcifarError, exit_with_message, print_anything
from clipcifar.core.files import fault

COMMANDS = {
    "show": results.SHOW,
    "compare": results.COMPARE,
    "try": prompts.TRY,
    "search": prompts.SEARCH,
    "explore": explore.EXPLORE,
    "predict": predict.PREDICT,
    "find": find.FIND,
    "export": export.EXPORT,
    "models": results.MODELS,
    "study": study.STUDY,
    "verify": results.VERIFY,
    "doctor": upkeep.DOCTOR,
    "completion": upkeep.COMPLETION,
}


def main() -> None:
    """Entry point of the console script."""
    print_anything()
    arguments, unknown = _parser().parse_known_args()
    if unknown:  # argparse itself would show the usage of no command
        arguments.of_command.error(f"unrecognized arguments: {' '.join(unknown)}")
    gc.set_threshold(50_000)  # as in the stages: imports make many objects, hardly any of them cycles
    PROJECT.set(arguments.project)
    try:
        text = COMMANDS[arguments.command].run(arguments)
        if text:
            print(text, flush=True)
    except ClipcifarError as error:
        exit_with_message(error)
    except MemoryError:
        exit_with_message(OUT_OF_MEMORY)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `head` and the like have seen enough; what is left goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        exit_with_message(fault(error, error.filename or "a file"))


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="clipcifar",
        description="Look at the results, and try and keep prompts, from any folder of the project.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('clipcifar')}")
    parser.set_defaults(parser=parser)  # `completion` describes it to a shell
    add_folder(parser, "--project", explanation="as if started in this folder; paths stay relative to yours")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        of_command = commands.add_parser(name, help=command.help, description=command.description)
        of_command.set_defaults(of_command=of_command)
        command.arguments(of_command)
    return parser
