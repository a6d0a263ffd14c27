"""`clipcifar explore`: the project as a local web page."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from clipcifar.cli.command import Command, in_project


def port(text: str) -> int:
    """The type of an argument that is a port, 0 for any."""
    if not (text.isascii() and text.isdecimal()) or int(text) > 65535:
        raise ArgumentTypeError(f"expected a number from 0 to 65535, got {text!r}")
    return int(text)


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--port", type=port, default=0, metavar="N", help="port to listen on (default any)")


@in_project()
def _explore(arguments: Namespace) -> str:
    from clipcifar.explorer.serve import serve
    from clipcifar.explorer.session import Session

    session = Session(Path.cwd())
    session.state()  # what is missing or stale is said here, before a page is promised
    session.prepare()

    def say(address: str) -> None:
        print(f"{address}\nfor this machine and this address alone; Ctrl-C ends it", flush=True)

    serve(session, port=arguments.port, say=say)
    return ""


EXPLORE = Command(
    _explore,
    help="the project as a local web page: prompts, images, a map",
    description="Type a prompt and see what it does, open a confusion's images, walk on a map of embeddings.",
    arguments=_arguments,
)
