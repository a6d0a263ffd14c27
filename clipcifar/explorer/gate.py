"""Who may ask: the person who started the explorer, from a page of it, and nobody else.

A server on 127.0.0.1 is reached by every program of the machine and, through a browser, by every page of the
web: a name that is made to resolve here (Host), a form elsewhere that posts here (Origin, Sec-Fetch-Site).
docs/security.md says what is trusted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from hmac import compare_digest
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY = 500_000  # bytes: a lasso of all the corners that it may have
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a form's own Origin would be null
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_ENTERED = (
    b'<!doctype html><html lang="en"><title>clipcifar explore</title>'
    b'<meta http-equiv="refresh" content="0;url=/">'
)


class Gate:
    """The explorer behind its checks; a plain ASGI application, before any route.

    Args:
        app: what answers those who pass.
        port: the one that is listened on.
        token: what the address given to the person holds.
    """

    def __init__(self, app: App, *, port: int, token: str) -> None:
        self._app, self._token = app, token.encode()
        shown = "" if port == 80 else f":{port}"  # a browser leaves out the one that is usual
        self._hosts = {f"{name}{shown}" for name in ("127.0.0.1", "localhost")}
        self._cookie = f"clipcifar-{port}"  # cookies ignore ports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it; all else than HTTP is left unanswered."""
        if scope["type"] != "http":
            return
        headers: dict[str, str] = {}
        for name, value in (
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ):
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]

        async def guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", []))
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = given + [pair for pair in own if pair[0] not in dict(given)]
            await send(message)

        if refusal := self._refusal(scope, headers, asked):
            await _respond(guarded, refusal[0], refusal[1].encode(), "text/plain; charset=utf-8")
        elif asked:
            cookie = f"{self._cookie}={self._token.decode()}; HttpOnly; SameSite=Strict; Path=/"
            # No redirect: to a page that another one led here, a browser would not send the cookie.
            await _respond(guarded, HTTPStatus.OK, _ENTERED, "text/html; charset=utf-8", cookie=cookie)
        else:
            await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: dict[str, str], asked: str) -> tuple[HTTPStatus, str] | None:
        """Why a request is refused, if it is."""
        host = headers.get("host", "")
        if host not in self._hosts:
            return HTTPStatus.MISDIRECTED_REQUEST, "this is another host\n"
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return HTTPStatus.FORBIDDEN, "another page asks\n"
        if not asked and headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return HTTPStatus.FORBIDDEN, "another page asks\n"
        if not compare_digest((asked or self._kept(headers)).encode(), self._token):
            return HTTPStatus.UNAUTHORIZED, "open the address that `clipcifar explore` has printed\n"
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or int(length) > MAX_BODY:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "that is more than the explorer reads\n"
        return None

    def _kept(self, headers: dict[str, str]) -> str:
        """Our cookie's value, whatever other servers of this machine have set: theirs come, too."""
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        kept = [value for name, _, value in pairs if name == self._cookie]
        return kept[0] if len(kept) == 1 else ""


async def _respond(send: Send, status: HTTPStatus, body: bytes, kind: str, *, cookie: str = "") -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    if cookie:
        headers.append((b"set-cookie", cookie.encode()))
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
