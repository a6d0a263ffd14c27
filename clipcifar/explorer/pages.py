"""The explorer's pages: what is asked for, and the HTML that answers it. All text is escaped here."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlencode

import numpy as np
from markupsafe import Markup
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from clipcifar.core.errors import ClipcifarError, ConfigError, EnvironmentFault
from clipcifar.evaluation.metrics import wilson_interval
from clipcifar.evaluation.words import p_text, with_interval
from clipcifar.explorer import embedding_map
from clipcifar.explorer.answers import ORDERS, OUTCOMES, PAGE, RESULTS, SPLITS, Answers, Wanted
from clipcifar.explorer.cards import card, flips, moved
from clipcifar.explorer.results import TRIED, Results
from clipcifar.explorer.session import Session
from clipcifar.render import frame
from clipcifar.report.confusion import cell

MATRIX = 20  # classes whose whole matrix is shown; of more, the largest confusions
PAIRS, GATHERED = 100, 120
COLOURS = {"class": "class", "right": "right and wrong", "sets": "active set and tried prompt"}
_STATIC = {
    "page.css": "clipcifar.render",
    "explorer.css": "clipcifar.explorer",
    "explorer.js": "clipcifar.explorer",
}
_KINDS = {"css": "text/css", "js": "text/javascript"}


def application(session: Session) -> Starlette:
    """Every page, and what pages ask for.

    Args:
        session: what they show.
    """
    pages = _Pages(session)
    routes = [
        Route("/", pages.prompts),
        Route("/try", pages.post(pages.try_line), methods=["POST"]),
        Route("/undo", pages.post(lambda form: session.undo()), methods=["POST"]),
        Route("/save", pages.post(lambda form: session.save(form.get("name", ""))), methods=["POST"]),
        Route("/images", pages.images),
        Route("/image/{split}/{row:int}", pages.image),
        Route("/picture/{split}/{row:int}", pages.picture),
        Route("/confusion", pages.confusion),
        Route("/map", pages.map),
        Route("/points", pages.points),
        Route("/colours", pages.colours),
        Route("/lasso", pages.lasso, methods=["POST"]),
        Route("/state", pages.state),
        *(Route(f"/{name}", _static(name)) for name in _STATIC),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
    ]
    return Starlette(routes=routes, exception_handlers={ClipcifarError: pages.error, 404: pages.nothing})


def _static(name: str) -> Callable[[Request], Response]:
    text = files(_STATIC[name]).joinpath(name).read_text(encoding="utf-8")
    return lambda request: Response(text, media_type=_KINDS[name.rpartition(".")[2]])


class _Pages:
    def __init__(self, session: Session) -> None:
        self._session = session

    def _page(self, template: str, status: int = 200, **fields: Any) -> Response:
        results = fields.get("results")
        text = frame.render(
            template,
            package="clipcifar.explorer",
            said=self._session.said,
            stale=results.stale if results else [],
            **fields,
        )
        return HTMLResponse(text, status_code=status)

    def error(self, request: Request, error: Exception) -> Response:
        """A failure as a page of its own, or, to a script, as a line."""
        status = (
            400 if isinstance(error, ConfigError) else 503 if isinstance(error, EnvironmentFault) else 409
        )
        return self._page("error.html", status, lines=str(error).splitlines())

    def nothing(self, request: Request, error: Exception) -> Response:
        """There is no such page."""
        return self._page("error.html", 404, lines=["There is no such page."])

    def post(self, do: Callable[[dict[str, str]], object]) -> Callable[[Request], Any]:
        """What a form asks for, and the prompts' page after it."""

        async def answer(request: Request) -> Response:
            body = (await request.body()).decode("utf-8", "replace")
            form = {name: values[-1] for name, values in parse_qs(body, keep_blank_values=True).items()}
            try:
                await run_in_threadpool(do, form)
            except ConfigError as error:  # about what was typed, which stays in its field
                return await run_in_threadpool(self._prompts, form, str(error))
            return RedirectResponse("/", status_code=303)

        return answer

    def try_line(self, form: dict[str, str]) -> None:
        """Try what a form holds."""
        on, line = form.get("on", "train"), form.get("line", "").strip()
        if on not in SPLITS or not line:
            raise ConfigError("the prompt is empty", fix="write one, such as: a photo of a {classname}.")
        self._session.try_line(line, on)  # type: ignore[arg-type]

    def prompts(self, request: Request) -> Response:
        """Prompts are typed, and judged."""
        return self._prompts({}, "")

    def _prompts(self, form: dict[str, str], refused: str) -> Response:
        results, history = self._session.results(), self._session.history
        last = history[-1] if history else None
        overall = last and last.comparison.overall
        return self._page(
            "prompts.html",
            400 if refused else 200,
            results=results,
            refused=refused.splitlines(),
            form=form,
            last=last,
            interval=overall and wilson_interval(round(overall.accuracy_b * overall.n), overall.n),
            moved=moved(last.comparison) if last else [],
            galleries=flips(results, self._session.answers(last.on), last.on) if last else [],
            history=history,
            with_interval=with_interval,
            p_text=p_text,
        )

    def images(self, request: Request) -> Response:
        """Images that pass a filter."""
        results, split = self._session.results(), request.query_params.get("split", SPLITS[0])
        answers = self._session.answers(split if split in SPLITS else SPLITS[0])
        wanted = Wanted.read(request.query_params, answers, len(results.class_names))
        rows = wanted.rows(results.split(wanted.split).labels, answers)
        pages = max(1, -(-len(rows) // PAGE))
        number = min(wanted.page, pages)
        shown = rows[(number - 1) * PAGE : number * PAGE].tolist()
        return self._page(
            "images.html",
            results=results,
            wanted=wanted,
            methods=_titles(answers),
            classes=list(enumerate(results.class_names)),
            number=len(rows),
            page=number,
            pages=pages,
            before=f"/images?{wanted.at(number - 1).query}" if number > 1 else "",
            after=f"/images?{wanted.at(number + 1).query}" if number < pages else "",
            choices={"results": RESULTS, "outcomes": OUTCOMES, "orders": ORDERS},
            cards=[card(results, wanted.split, row, answers[wanted.by]) for row in shown],
            small=results.pictures(wanted.split).small,
        )

    def _asked(self, request: Request) -> tuple[Results, str, int]:
        results = self._session.results()
        split, row = request.path_params["split"], request.path_params["row"]
        if split not in SPLITS or row >= len(results.split(split).ids):
            raise ConfigError("there is no such image", fix="choose one from a gallery")
        return results, split, row

    def image(self, request: Request) -> Response:
        """One image: what is said of it, what is near it, and its copies."""
        results, split, row = self._asked(request)
        answers, label = self._session.answers(split), results.split(split).labels[row]
        return self._page(
            "image.html",
            results=results,
            split=split,
            row=row,
            sample_id=results.split(split).ids[row],
            label=results.class_names[label],
            said=[
                (
                    of.title,
                    results.class_names[of.predicted[row]],
                    of.probability(row),
                    of.predicted[row] == label,
                )
                for of in answers.values()
            ],
            near=[
                card(results, "train", near, said=f"cosine {cosine:.3f}")
                for near, cosine in results.nearest(split, row)
            ],
            twins=[card(results, of, twin) for of, twin in results.twins(split, row)],
            small=results.pictures(split).small,
        )

    def picture(self, request: Request) -> Response:
        """One image as PNG, larger ones made smaller."""
        results, split, row = self._asked(request)
        pixels = results.pictures(split).pixels(row)
        if pixels is None:
            return Response(status_code=404)
        image, stream = Image.fromarray(pixels), io.BytesIO()
        image.thumbnail((256, 256))
        image.save(stream, format="PNG")
        return Response(stream.getvalue(), media_type="image/png")

    def confusion(self, request: Request) -> Response:
        """Which classes are called which; every cell opens its images."""
        results, answers = self._session.results(), self._session.answers("test")
        by = request.query_params.get("by", next(iter(answers)))
        wanted = Wanted.read({"by": by}, answers, len(results.class_names))
        names, labels = results.class_names, results.split("test").labels
        pairs = labels * len(names) + answers[by].predicted
        matrix = np.bincount(pairs, minlength=len(names) ** 2).reshape(len(names), len(names))
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

        def link(actual: int, called: int) -> str:
            return "/images?" + urlencode(
                {"by": wanted.by, "label": actual, "called": called, "order": "sure"}
            )

        off = np.where(np.eye(len(names), dtype=bool), 0, matrix)
        largest = np.argsort(-off, axis=None, kind="stable")[:PAIRS].tolist()
        rows = [
            [
                (
                    cell(float(shares[a, b]), len(names))[0],
                    _linked(link(a, b), int(matrix[a, b]), names[a], names[b]),
                )
                for b in range(len(names))
            ]
            for a in range(len(names) if len(names) <= MATRIX else 0)
        ]
        return self._page(
            "confusion.html",
            results=results,
            methods=_titles(answers),
            title=answers[by].title,
            by=by,
            rows=rows,
            pairs=[
                (names[a], names[b], int(matrix[a, b]), f"{100 * shares[a, b]:.1f} %", link(a, b))
                for a, b in (divmod(pair, len(names)) for pair in largest)
                if off[a, b]
            ],
        )

    def map(self, request: Request) -> Response:
        """All images as points."""
        results = self._session.results()
        n = [len(results.split(name).ids) for name in ("train", "test")]
        return self._page(
            "map.html",
            results=results,
            n=n,
            colours=COLOURS,
            classes=list(enumerate(results.class_names)),
            has_trial=bool(self._session.history),
        )

    def points(self, request: Request) -> Response:
        """x of all points, y of all, both float32, then their classes, uint16; little-endian."""
        results = self._session.results()
        labels = np.concatenate([results.images.train.labels, results.images.test.labels])
        body = results.points.T.astype("<f4").tobytes() + labels.astype("<u2").tobytes()
        return Response(body, media_type="application/octet-stream")

    def colours(self, request: Request) -> Response:
        """A uint8 for each point: 1 where the active set is right, 2 where the tried prompt is, 4 if tried."""
        results, marks = self._session.results(), []
        for split in ("train", "test"):
            labels = results.split(split).labels
            right = (results.bench.active_scores(split).argmax(axis=1) == labels).astype(np.uint8)
            tried: Answers | None = self._session.answers(split).get(TRIED)
            marks.append(
                right if tried is None else right + 4 + 2 * (tried.predicted == labels).astype(np.uint8)
            )
        return Response(np.concatenate(marks).tobytes(), media_type="application/octet-stream")

    async def lasso(self, request: Request) -> Response:
        """The images inside a polygon, as a part of a page."""
        body = await request.body()
        return await run_in_threadpool(self._lasso, body)

    def _lasso(self, body: bytes) -> Response:
        results = self._session.results()
        try:
            corners = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ConfigError("the lasso cannot be read") from error
        rows, n = embedding_map.inside(results.points, corners), len(results.images.train.ids)
        at = [("train", row) if row < n else ("test", row - n) for row in rows.tolist()]
        counts = np.bincount(
            np.concatenate([results.images.train.labels, results.images.test.labels])[rows],
            minlength=len(results.class_names),
        )
        order = np.argsort(-counts, kind="stable")[:10].tolist()
        return self._page(
            "gathered.html",
            number=len(at),
            classes=[(results.class_names[label], int(counts[label])) for label in order if counts[label]],
            cards=[card(results, split, row) for split, row in at[:GATHERED]],
            small=results.pictures("test").small,
        )

    def state(self, request: Request) -> Response:
        """What a page looks for now and then."""
        return JSONResponse({"doing": self._session.doing, "changed": self._session.changed})


def _titles(answers: Mapping[str, Answers]) -> list[tuple[str, str]]:
    return [(name, of.title) for name, of in answers.items()]


def _linked(address: str, number: int, actual: str, called: str) -> Markup:
    if not number:
        return Markup("")
    said = f"{number:,} of {actual} called {called}"
    return Markup('<a href="{}" title="{}" aria-label="{}">{}</a>').format(address, said, said, f"{number:,}")
