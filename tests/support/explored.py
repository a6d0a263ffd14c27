"""Projects to explore, made by a few stages in this process, and the explorer serving them on a free port."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest

from clipcifar.explorer import serve
from clipcifar.explorer.session import Session
from clipcifar.store.dataset import read_dataset, write_dataset
from clipcifar.store.embeddings import read_texts, write_texts
from clipcifar.store.fields import class_names_attribute
from clipcifar.store.images import read_images
from clipcifar.store.places import IMAGES
from tests.support import made, stage_runs
from tests.support.command_line import make_project, record, run
from tests.support.faults import command_of
from tests.support.once import made_once
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT, digits_params

STAGES = [
    *("download", "prepare", "prompts", "fetch_model", "embed_images", "embed_active", "embed_texts"),
    *("zero_shot", "gda"),
]
RECORDED = [
    *("data/raw", "data/dataset.h5", "data/splits.h5", "data/classes.json", "data/prompts"),
    *("data/weights", "data/model.json", "data/embeddings/images", "data/embeddings/active"),
    *("data/embeddings/texts", "data/predictions/zero_shot.h5", "data/predictions/gda.h5"),
]
ACTIVE = Path("data/embeddings/texts/photo.h5")
CACHE = "cache"  # beside the project: the sentences that were embedded


def write(folder: Path) -> None:
    """The embedded digits, 700 of train and 397 of test, and two methods, in `folder`/w."""
    project = make_project(folder / "w")
    stage_runs.write_params(project, digits_params())
    for name in ("data/demo/clip", "data/sentences"):
        shutil.copytree(ROOT / name, project / name)
    shutil.copyfile(ROOT / "data/none", project / "data/none")
    with mock.patch.dict(os.environ, CLIPCIFAR_CACHE=str(folder / CACHE)):
        for stage in STAGES:
            main = importlib.import_module(f"stages.{stage}").main
            ended = stage_runs.run(main, *command_of(stage)[3:], folder=project)
            assert ended.code == 0, (stage, ended)
    record(project, *RECORDED)


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `write` writes, once for all: only read."""
    return made_once(tmp_path_factory, "explored", write)


def copied(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """A project of one's own in `folder`."""
    return Path(shutil.copytree(shared(tmp_path_factory) / "w", folder))


def tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], project: Path, *asked: str
) -> list[str]:
    """What `clipcifar try` prints, line by line."""
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.chdir(project)
        assert run(patch, "try", *asked) == 0
    return capsys.readouterr().out.splitlines()


def rename(project: Path, class_names: list[str]) -> None:
    """Let the same images be of other classes, in turn, and the active set be of noise; no method has run."""
    num_classes, rng = len(class_names), np.random.default_rng(0)
    prepared = read_dataset(project / "data/dataset.h5")
    splits = [
        replace(of, labels=np.arange(len(of.ids)) % num_classes) for of in (prepared.train, prepared.test)
    ]
    digest = write_dataset(
        project / "data/dataset.h5", *splits, class_names=class_names, name=prepared.name, max_per_class=0
    )
    named = {"class_names": class_names_attribute(class_names), "dataset_digest": digest}
    labels = {f"{name}/labels": of.labels for name, of in zip(("train", "test"), splits, strict=True)}
    made.edit_images(project / IMAGES, labels, **named)
    images, texts = read_images(project / IMAGES), read_texts(project / ACTIVE)
    write_texts(
        project / ACTIVE,
        embeddings=made.unit(rng.normal(size=(num_classes, images.train.embeddings.shape[1]))),
        class_index=np.arange(num_classes),
        sentences=[f"a photo of a {number}." for number in range(num_classes)],
        attributes={**made.written(texts.attributes), **named},
    )
    shutil.rmtree(project / "data/predictions")
    record(project, *RECORDED[:-2])


def forget_train(project: Path) -> None:
    """Let the dataset have no image but those of test."""
    prepared, images = read_dataset(project / "data/dataset.h5"), read_images(project / IMAGES)
    digest = write_dataset(
        project / "data/dataset.h5",
        prepared.train.take(np.zeros(0, np.int64)),
        prepared.test,
        class_names=prepared.class_names,
        name=prepared.name,
        max_per_class=0,
    )
    none: dict[str, Any] = {"train/embeddings": images.train.embeddings[:0], "train/ids": []}
    none["train/labels"] = images.train.labels[:0]
    made.edit_images(project / IMAGES, none, dataset_digest=digest)
    record(project, *RECORDED)


@contextmanager
def serving(session: Session) -> Iterator[str]:
    """The explorer on a free port, in a thread; its address, with the token."""
    addresses: Queue[str] = Queue()
    with serve.bound(0) as listening:
        server = serve.Server(session, listening, addresses.put)
        thread = Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield addresses.get(timeout=PATIENCE_S)
        finally:
            server.should_exit = True
            thread.join()


class Asking:
    """One who opened the address, and asks on without a browser.

    Args:
        address: with the token.
    """

    def __init__(self, address: str) -> None:
        self.host = urlsplit(address).netloc
        self.token = parse_qs(urlsplit(address).query)["token"][0]
        self.cookie = f"clipcifar-{self.host.partition(':')[2]}={self.token}"

    def raw(self, content: bytes) -> bytes:
        """Whatever is answered to these bytes, until it hangs up."""
        name, _, port = self.host.partition(":")
        with socket.create_connection((name, int(port)), timeout=PATIENCE_S) as talking:
            talking.sendall(content)
            return b"".join(iter(lambda: talking.recv(65536), b""))

    def ask(
        self, method: str, path: str, body: Any = None, *, encode_chunked: bool = False, **changed: str | None
    ) -> Answered:
        """An answer; headers are those of a page of the explorer, without those that are changed to None."""
        known = {"Host": self.host, "Cookie": self.cookie, "Origin": f"http://{self.host}"}
        named = {name.replace("_", "-"): value for name, value in changed.items()}
        connection = HTTPConnection(self.host, timeout=PATIENCE_S)
        with closing(connection):
            headers = {name: value for name, value in {**known, **named}.items() if value is not None}
            connection.request(method, path, body, headers, encode_chunked=encode_chunked)
            answer = connection.getresponse()
            return Answered(answer.status, answer.headers, answer.read())

    def page(self, path: str) -> str:
        """The text of a page that is there."""
        answered = self.ask("GET", path)
        assert answered.status == 200, answered.text
        return answered.text

    def post(self, path: str, **fields: str) -> Answered:
        """What a form is answered."""
        return self.ask("POST", path, urlencode(fields))


class Answered(NamedTuple):
    """One answer."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()
