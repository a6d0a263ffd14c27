"""The explorer's pages: what is asked for, and the HTML that answers it. All text is escaped here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault
from clipcifar.evaluation.metrics import wilson_interval
from clipcifar.evaluation.words import p_text, with_interval
from clipcifar.explorer.answers import SPLITS
from clipcifar.explorer.browsing import Browsing
from clipcifar.explorer.cards import flips, moved
from clipcifar.explorer.map_pages import MapPages
from clipcifar.explorer.session import Session
from clipcifar.render import frame

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
    pages = Pages(session)
    browsing, mapped = Browsing(session, pages.page), MapPages(session, pages.page)
    routes = [
        Route("/", pages.prompts),
        Route("/try", pages.post(pages.try_line), methods=["POST"]),
        Route("/undo", pages.post(lambda form: session.undo(form.get("step", ""))), methods=["POST"]),
        Route("/save", pages.post(pages.save), methods=["POST"]),
        Route("/state", pages.state),
        Route("/images", browsing.images),
        Route("/image/{split}/{row}", browsing.image),
        Route("/picture/{split}/{row}", browsing.picture),
        Route("/confusion", browsing.confusion),
        Route("/map", mapped.map),
        Route("/points", mapped.points),
        Route("/colours", mapped.colours),
        Route("/lasso", mapped.lasso, methods=["POST"]),
        *(Route(f"/{name}", _static(name)) for name in _STATIC),
        Route("/favicon.ico", lambda request: Response(status_code=204)),
    ]
    return Starlette(routes=routes, exception_handlers={ClipcifarError: pages.error, 404: pages.nothing})


def _static(name: str) -> Callable[[Request], Response]:
    text = files(_STATIC[name]).joinpath(name).read_text(encoding="utf-8")
    return lambda request: Response(text, media_type=_KINDS[name.rpartition(".")[2]])


class Pages:
    """Prompts, and what every page shares.

    Args:
        session: what is explored.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def page(self, template: str, status: int = 200, **fields: Any) -> Response:
        """A page of the explorer; `fields` are its template's."""
        results, refused = fields.get("results"), fields.get("refused")
        text = frame.render(
            template,
            package="clipcifar.explorer",
            said=self._session.news if results and (self._session.is_of_results or not refused) else "",
            number_read=results.number if results else self._session.number,
            stale=results.stale if results else [],
            **fields,
        )
        return HTMLResponse(text, status_code=status)

    def error(self, request: Request, error: Exception) -> Response:
        """A failure as a page of its own, or, to a script, as a line."""
        status = (
            400 if isinstance(error, ConfigError) else 503 if isinstance(error, EnvironmentFault) else 409
        )
        return self.page("error.html", status, lines=str(error).splitlines(), unread=self._session.changed)

    def nothing(self, request: Request, error: Exception) -> Response:
        """There is no such page."""
        return self.page("error.html", 404, lines=["There is no such page."], unread=False)

    def post(self, do: Callable[[dict[str, str]], object]) -> Callable[[Request], Any]:
        """What a form asks for, and the prompts' page after it."""

        async def answer(request: Request) -> Response:
            body = (await request.body()).decode("utf-8", "replace")
            form = {name: values[-1] for name, values in parse_qs(body, keep_blank_values=True).items()}
            try:
                await run_in_threadpool(do, form)
            except (ConfigError, DataError) as error:  # about what was typed, which stays in its field
                return await run_in_threadpool(self._prompts, form, str(error))
            return RedirectResponse("/", status_code=303)

        return answer

    def try_line(self, form: dict[str, str]) -> None:
        """Try what a form holds."""
        on, line = form.get("on", "train"), form.get("line", "").strip()
        if on not in SPLITS or not line:
            raise ConfigError("the prompt is empty", fix="write one, such as: a photo of a {classname}.")
        if line.startswith(":"):
            raise ConfigError("that is a command of `clipcifar try`", fix="here buttons undo and save")
        self._session.try_line(line, on)  # type: ignore[arg-type]

    def save(self, form: dict[str, str]) -> None:
        """Keep what was tried last under the name that a form holds."""
        self._session.save(form.get("name", ""), form.get("step", ""))

    def prompts(self, request: Request) -> Response:
        """Prompts are typed, and judged."""
        return self._prompts({}, "")

    def _prompts(self, form: dict[str, str], refused: str) -> Response:
        state = self._session.state()
        results, last = state.results, state.last
        overall = last and last.comparison.overall
        return self.page(
            "prompts.html",
            400 if refused else 200,
            results=results,
            refused=refused.splitlines(),
            form=form,
            step=state.step,
            last=last,
            interval=overall and wilson_interval(round(overall.accuracy_b * overall.n), overall.n),
            moved=moved(last.comparison) if last else [],
            galleries=flips(results, state.answers(last.on), last.on) if last else [],
            history=state.history,
            with_interval=with_interval,
            p_text=p_text,
        )

    def state(self, request: Request) -> Response:
        """What a page looks for now and then."""
        return JSONResponse(
            {
                "doing": self._session.doing,
                "changed": self._session.changed,
                "number": self._session.number,
                "step": self._session.step,
            }
        )
