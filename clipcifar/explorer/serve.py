"""The explorer's process: a socket of this machine alone, an address with a token, an end by Ctrl-C."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import uvicorn

from clipcifar.core.errors import EnvironmentFault
from clipcifar.explorer.gate import Gate
from clipcifar.explorer.pages import application
from clipcifar.explorer.session import Session

HOST = "127.0.0.1"


def bound(port: int) -> socket.socket:
    """A socket of this machine alone.

    Args:
        port: 0 for any that is free.

    Raises:
        EnvironmentFault: somebody has it.
    """
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()  # who else asks for it from now on is told
    except OSError as error:
        listening.close()
        fix = "give another --port, or none"
        raise EnvironmentFault(f"port {port} cannot be had: {error}", where=HOST, fix=fix) from error
    return listening


class Server(uvicorn.Server):
    """What answers on a socket once it is run.

    Args:
        session: what is explored.
        listening: see `bound`.
        say: told the address, once Ctrl-C is heeded.
    """

    def __init__(self, session: Session, listening: socket.socket, say: Callable[[str], object]) -> None:
        token, port = secrets.token_urlsafe(24), listening.getsockname()[1]
        self._say, self._address = say, f"http://{HOST}:{port}/?token={token}"
        config = uvicorn.Config(
            Gate(application(session), port=port, token=token),
            http="h11",  # whatever else is installed
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._say(self._address)


def serve(session: Session, *, port: int, say: Callable[[str], object]) -> None:
    """Answer until Ctrl-C.

    Args:
        session: what is explored.
        port: 0 for any that is free.
        say: told the address.
    """
    with bound(port) as listening:
        Server(session, listening, say).run(sockets=[listening])
