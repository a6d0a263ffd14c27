"""The explorer's map: its page, its points, their colours, and what a lasso holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from clipcifar.core.errors import ConfigError
from clipcifar.explorer import embedding_map
from clipcifar.explorer.answers import SPLITS, TRIED, number_of
from clipcifar.explorer.cards import card
from clipcifar.explorer.session import Session

GATHERED = 120  # images shown of those inside a lasso
COLOURS = {"class": "class", "right": "active set right or wrong", "sets": "active set and tried prompt"}


class MapPages:
    """The map and what it asks for.

    Args:
        session: what is explored.
        page: fills a template.
    """

    def __init__(self, session: Session, page: Callable[..., Response]) -> None:
        self._session, self._page = session, page

    def map(self, request: Request) -> Response:
        """All images as points."""
        results = self._session.state().results
        n = [len(results.split(name).ids) for name in ("train", "test")]
        return self._page(
            "map.html",
            results=results,
            n=n,
            colours=COLOURS,
            classes=list(enumerate(results.class_names)),
        )

    def points(self, request: Request) -> Response:
        """x of all points, y of all, both float32, then their classes, uint16; little-endian."""
        results = self._session.state().results
        body = results.points.T.astype("<f4").tobytes() + results.labels.astype("<u2").tobytes()
        return Response(body, media_type="application/octet-stream")

    def colours(self, request: Request) -> Response:
        """A uint8 for each point: 1 where the active set is right, 2 where the tried prompt is, 4 tried."""
        state, marks = self._session.state(), []
        for split in ("train", "test"):
            labels, answers = state.results.split(split).labels, state.answers(split)
            right = (answers["zero_shot"].predicted == labels).astype(np.uint8)
            tried = answers.get(TRIED)
            marks.append(
                right if tried is None else right + 4 + 2 * (tried.predicted == labels).astype(np.uint8)
            )
        return Response(np.concatenate(marks).tobytes(), media_type="application/octet-stream")

    async def lasso(self, request: Request) -> Response:
        """The images inside a polygon, as a part of a page."""
        body = await request.body()
        return await run_in_threadpool(self._lasso, body, request.query_params)

    def _lasso(self, body: bytes, only: Mapping[str, str]) -> Response:
        results = self._session.state().results
        labels = results.labels
        try:
            corners = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ConfigError("the lasso cannot be read") from error
        rows, n = embedding_map.inside(results.points, corners), len(results.images.train.ids)
        if (split := only.get("only")) in SPLITS:
            rows = rows[(rows < n) == (split == "train")]
        if (label := number_of(only.get("label", ""), len(results.class_names))) is not None:
            rows = rows[labels[rows] == label]
        at = [("train", row) if row < n else ("test", row - n) for row in rows.tolist()]
        counts = np.bincount(labels[rows], minlength=len(results.class_names))
        order = np.argsort(-counts, kind="stable")[:10].tolist()
        return self._page(
            "gathered.html",
            number=len(at),
            classes=[(results.class_names[label], int(counts[label])) for label in order if counts[label]],
            cards=[card(results, split, row) for split, row in at[:GATHERED]],
            small=results.pictures("test").small,
        )
