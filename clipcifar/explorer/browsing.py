"""The explorer's pages of images: galleries by filter, one image, confusions that open theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from clipcifar.core.errors import ConfigError
from clipcifar.evaluation.names import METHODS
from clipcifar.explorer.answers import ORDERS, OUTCOMES, PAGE, RESULTS, SPLITS, Answers, Wanted, number_of
from clipcifar.explorer.cards import card
from clipcifar.explorer.results import Results
from clipcifar.explorer.session import Session
from clipcifar.explorer.state import State
from clipcifar.render.cells import Cell, shade
from clipcifar.report.confusion import NAMED as MATRIX, counted, largest_pairs, of_class

PAIRS, ALONE = 20, 100  # confusions listed beside a matrix, and without
_GONE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96"><text x="48" y="50" font-size="12" '
    'text-anchor="middle" fill="gray" font-family="sans-serif">picture gone</text></svg>'
)


class Browsing:
    """Pages of images.

    Args:
        session: what is explored.
        page: fills a template.
    """

    def __init__(self, session: Session, page: Callable[..., Response]) -> None:
        self._session, self._page = session, page

    def images(self, request: Request) -> Response:
        """Images that pass a filter."""
        results, answers, wanted = self._wanted(request.query_params)
        rows = wanted.rows(results.split(wanted.split).labels, answers)
        pages = max(1, -(-len(rows) // PAGE))
        number = min(wanted.page, pages)
        shown = rows[(number - 1) * PAGE : number * PAGE].tolist()
        return self._page(
            "images.html",
            results=results,
            wanted=wanted,
            instead=_instead(request.query_params, wanted, answers),
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

    def _wanted(self, query: Mapping[str, str]) -> tuple[Results, dict[str, Answers], Wanted]:
        state, split = self._session.state(), query.get("split", SPLITS[0])
        answers = state.answers(split if split in SPLITS else SPLITS[0])
        return state.results, answers, Wanted.read(query, answers, len(state.results.class_names))

    def _asked(self, request: Request) -> tuple[State, str, int]:
        state, split = self._session.state(), request.path_params["split"]
        size = len(state.results.split(split).ids) if split in SPLITS else 0
        if (row := number_of(request.path_params["row"], size)) is None:
            raise ConfigError("there is no such image", fix="choose one from a gallery")
        return state, split, row

    def image(self, request: Request) -> Response:
        """One image: what is said of it, what is near it, and its copies."""
        state, split, row = self._asked(request)
        results, answers = state.results, state.answers(split)
        label = results.split(split).labels[row]
        return self._page(
            "image.html",
            results=results,
            split=split,
            row=row,
            sample_id=results.split(split).ids[row],
            label=results.class_names[label],
            table=[
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
            source=results.picture(split, row),
        )

    def picture(self, request: Request) -> Response:
        """One image as PNG, larger ones made smaller."""
        state, split, row = self._asked(request)
        image = state.results.pictures(split).png(row)
        if image is None:
            return Response(_GONE, media_type="image/svg+xml", status_code=404)
        kept = {"cache-control": "private, max-age=3600"}  # the address names the dataset
        return Response(image, media_type="image/png", headers=kept)

    def confusion(self, request: Request) -> Response:
        """Which classes are called which; every cell opens its images."""
        asked = {name: request.query_params[name] for name in ("split", "by") if name in request.query_params}
        results, answers, wanted = self._wanted(asked)
        by, names = wanted.by, results.class_names
        matrix = counted(results.split(wanted.split).labels, answers[by].predicted, len(names))
        shares = of_class(matrix)

        def link(actual: int, called: int) -> str:
            return "/images?" + replace(wanted, label=actual, called=called, order="sure").query

        def linked(actual: int, called: int) -> Cell:
            cell = _linked(link(actual, called), int(matrix[actual, called]), names[actual], names[called])
            return Cell(shade(float(shares[actual, called])), cell)

        every = range(len(names))
        is_small = len(names) <= MATRIX
        return self._page(
            "confusion.html",
            results=results,
            wanted=wanted,
            instead=_instead(asked, wanted, answers),
            methods=_titles(answers),
            title=answers[by].title,
            rows=[[linked(actual, called) for called in every] for actual in every] if is_small else [],
            pairs=[
                (names[a], names[b], int(matrix[a, b]), f"{100 * shares[a, b]:.1f} %", link(a, b))
                for a, b in largest_pairs(matrix, PAIRS if is_small else ALONE)
            ],
        )


def _instead(query: Mapping[str, str], wanted: Wanted, answers: Mapping[str, Answers]) -> str:
    """Who is asked in the place of those that say nothing of these images, if anybody is."""
    absent = [query[name] for name in ("by", "against") if query.get(name) and query[name] not in answers]
    if not absent:
        return ""
    titles = " and ".join(METHODS.get(name, "the prompt tried last") for name in dict.fromkeys(absent))
    asked = next(iter(answers.values())).title
    return f"Of {wanted.split} images there are no answers of {titles}: {asked} is asked."


def _titles(answers: Mapping[str, Answers]) -> list[tuple[str, str]]:
    return [(name, of.title) for name, of in answers.items()]


def _linked(address: str, number: int, actual: str, called: str) -> Markup:
    if not number:
        return Markup("")
    said = f"{number:,} of {actual} called {called}"
    return Markup('<a href="%s" title="%s" aria-label="%s">%s</a>') % (address, said, said, f"{number:,}")
