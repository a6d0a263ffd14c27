"""A web server on the loopback that misbehaves as told, and counts what it is asked for."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """`files` by path; `faults` are served one per request before the file is: a status, "cut" or "stall".

    A stalled request is never answered.
    `redirects` are from a path to a URL. Where it gives `ranges`, `asked` are those that were asked for.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: list[int | str] = []
        self.headers: dict[str, str] = {}
        self.redirects: dict[str, str] = {}
        self.requests: list[str] = []
        self.ranges = False
        self.asked: list[range] = []
        self.authorizations: set[str] = set()
        self.url = ""


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            server.requests.append(f"{self.command} {self.path}")
            server.authorizations.add(self.headers.get("Authorization", ""))
            if self.path in server.redirects:
                self.send_response(302)
                self.send_header("Location", server.redirects[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            fault = server.faults.pop(0) if server.faults else None
            content = server.files.get(self.path)
            if isinstance(fault, int) or content is None:
                self.send_response(fault if isinstance(fault, int) else 404)
                if content is None:
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "stall":
                self.rfile.read(1)  # nothing comes: it ends when the client has hung up
                return
            etag = hashlib.sha256(content).hexdigest()
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            if wanted and server.ranges:
                part = range(int(wanted[1]), min(int(wanted[2]) + 1, len(content)))
                server.asked.append(part)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{len(content)}")
                content = content[part.start : part.stop]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{etag}"')
            for key, value in server.headers.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                with suppress(ConnectionError):  # a client that has given up
                    self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
