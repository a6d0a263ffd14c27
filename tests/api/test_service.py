"""The small server of docs/python.md, started and asked as it stands there."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from PIL import Image

import clipcifar
from clipcifar.store.dataset import Prepared
from tests.support.import_closure import ROOT
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.pipeline


class Service:
    """A running server and what it has said to its terminal."""

    def __init__(self, port: int, pid: int, log: Path) -> None:
        self.port, self.pid, self._log = port, pid, log

    def post(self, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, dict[str, object]]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.putrequest("POST", "/")
        for name, value in ({"Content-Length": str(len(body))} if headers is None else headers).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        said = answer.read().decode()
        connection.close()
        assert said.count("\n") == 1, "an answer is one line"
        return answer.status, json.loads(said)

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture(scope="module")
def service(project: clipcifar.Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), flags=re.M | re.S)
    (code,) = (block for block in blocks if "http.server" in block)
    (folder / "server.py").write_text(code)
    command = [sys.executable, str(folder / "server.py"), str(project.root), "0"]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            yield Service(int(process.stdout.readline()), process.pid, folder / "log")
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def files(dataset: Prepared) -> list[bytes]:
    written = []
    for pixels in dataset.test.content[:8]:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG")
        written.append(stream.getvalue())
    return written


def test_it_answers_as_the_stage_did(
    service: Service, project: clipcifar.Project, files: list[bytes]
) -> None:
    """Eight clients at once, each with another image."""
    with ThreadPoolExecutor(len(files)) as clients:
        answers = list(clients.map(service.post, files))
    stored = project.classifier("linear_probe").predict_proba(project.images("test").embeddings[: len(files)])
    for (status, said), row in zip(answers, stored, strict=True):
        assert status == 200
        likeliest = sorted(zip(row.tolist(), project.class_names, strict=True), reverse=True)[:3]
        assert list(said) == [name for _, name in likeliest]
        assert list(said.values()) == pytest.approx([p for p, _ in likeliest], abs=2e-4)


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"no image", None, 400, "not an image of a known format"),
        (b"", None, 400, "not an image of a known format"),
        (b"", {}, 413, "with its length"),
        (b"", {"Content-Length": "999999999"}, 413, "less than 100 MB"),
        (b"", {"Content-Length": "-1"}, 413, "with its length"),
        (b"", {"Content-Length": "²"}, 413, "with its length"),
        (b"", {"Content-Length": "1" * 5000}, 413, "with its length"),
    ],
)
def test_what_it_cannot_take_is_told_in_one_line(
    service: Service, files: list[bytes], body: bytes, headers: dict[str, str] | None, status: int, words: str
) -> None:
    answered, said = service.post(body, headers)
    assert (answered, list(said)) == (status, ["error"])
    assert words in str(said["error"])
    assert "Traceback" not in service.log
    assert service.post(files[0])[0] == 200  # and it goes on


def test_a_client_that_goes_away_is_no_fault(service: Service, files: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as client:
        client.sendall(b"POST / HTTP/1.0\r\nContent-Length: 1000\r\n\r\nhalf an image")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(12) == b"HTTP/1.0 400"
    assert service.post(files[0])[0] == 200


def test_clients_that_come_at_once_wait_to_be_let_in(service: Service, files: list[bytes]) -> None:
    """Stopped, it lets nobody in: all of them are connected by what waits in its queue."""
    with ExitStack() as connected:
        os.kill(service.pid, signal.SIGSTOP)
        try:
            for _ in range(40):
                connected.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=2))
        finally:
            os.kill(service.pid, signal.SIGCONT)
    assert service.post(files[0])[0] == 200
