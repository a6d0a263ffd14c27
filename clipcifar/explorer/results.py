"""One state of a project's results, as the explorer's pages read it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import find
from clipcifar.api.bench import Active, Bench, read_active
from clipcifar.api.opened import Opened
from clipcifar.core import params
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.datasets import twins
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.evaluation.names import METHODS
from clipcifar.explorer.answers import Answers
from clipcifar.explorer.embedding_map import plane
from clipcifar.explorer.once import once
from clipcifar.project import freshness
from clipcifar.render.pictures import Pictures
from clipcifar.store.dataset import PreparedSplit, read_dataset
from clipcifar.store.embeddings import Split
from clipcifar.store.fields import class_names_of
from clipcifar.store.names import positions
from clipcifar.store.places import DATASET, IMAGES, RAW, predictions_of
from clipcifar.store.predictions import Predictions, read_predictions

NEAREST = 12
SIDE = 256  # pixels of a picture; larger ones are made smaller
PARAMS = "params.yaml"
Seen = dict[str, tuple[int, int, int]]
_SETTLING_S, _LOOKS = 0.3, 5


def _fitted(said: Predictions) -> float | None:
    return float(said.attributes["temperature"]) if "temperature" in said.attributes else None


class Results:
    """Everything that pages show of a project, read when it is first asked for.

    Args:
        opened: the project.
        embed: S sentences to (S, D) float32 unit rows.
        number: tells these results from those of another time, for a page that is open meanwhile.

    Raises:
        ClipcifarError: images or the active set are missing, damaged or stale.
    """

    def __init__(
        self, opened: Opened, embed: Callable[[list[str]], NDArray[np.float32]], number: int
    ) -> None:
        self.number = number
        self._root = opened.root
        self.active: Active = read_active(opened)
        self.images, self.class_names = self.active.images, self.active.images.class_names
        self.bench = Bench(self.images, self.active.texts, embed)
        self.dataset = read_dataset(self._root / DATASET)
        if self.dataset.digest != self.images.dataset_digest:
            raise DataError(
                "the embeddings are of another dataset",
                where=str(self._root / DATASET),
                fix="run `dvc repro`",
            )
        section = params.read(opened.settings, "dataset", DatasetParams)
        folder = self._root / photograph_folder(section, Path(RAW))
        self._pictures = {
            name: Pictures(self.prepared(name), folder, side=SIDE) for name in ("train", "test")
        }
        self._left_out: list[str] = []
        self.look_for_stale()

    def look_for_stale(self) -> None:
        """Compare methods' results with params.yaml and the files as they are now."""
        methods = {predictions_of(name): METHODS[name] for name in METHODS}
        self._stale = [str(reason) for reason in freshness.stale_results(self._root, methods)]

    @property
    def stale(self) -> list[str]:
        """What is not to be relied on, a line each, and what to run."""
        return self._stale + self._left_out

    def is_tried_alike(self, other: Results) -> bool:
        """Whether prompts have the same answers, and the same verdicts, with other results as with these."""
        labels = [(self.split(name).labels, other.split(name).labels) for name in ("train", "test")]
        return (
            all(np.array_equal(own, others) for own, others in labels)
            and self.bench.family("train") == other.bench.family("train")
            and np.array_equal(self.bench.active_weights, other.bench.active_weights)
            and self.images.logit_scale == other.images.logit_scale
        )

    @property
    def active_name(self) -> str:
        """The prompt set that all trials are compared with."""
        return self.active.prompts.active

    def split(self, name: str) -> Split:
        """The embedded images of "train" or "test"."""
        split: Split = getattr(self.images, name)
        return split

    def prepared(self, name: str) -> PreparedSplit:
        """The images of "train" or "test" themselves."""
        split: PreparedSplit = getattr(self.dataset, name)
        return split

    def pictures(self, split: str) -> Pictures:
        """What draws the images of a split."""
        return self._pictures[split]

    def picture(self, split: str, row: int) -> str:
        """The address of an image; another dataset has others."""
        return f"/picture/{split}/{row}?of={self.dataset.digest[:16]}"

    @once
    def _stored(self) -> dict[str, Predictions]:
        """What methods have said of the test images, by their names; those of other images are left out."""
        stored = {}
        for name, title in METHODS.items():
            if (path := self._root / predictions_of(name)).is_file():
                said = read_predictions(path)
                if said.ids == self.images.test.ids and class_names_of(said.attributes) == self.class_names:
                    stored[name] = said
                else:
                    self._left_out.append(f"{title} is of other images, and left out; run `dvc repro {name}`")
        return stored

    @once
    def of_test(self) -> dict[str, Answers]:
        """What the active set and every other method that has run say of the test images, by name."""
        methods = {name: said for name, said in self._stored.items() if name != "zero_shot"}
        return {
            "zero_shot": self._of_active("test"),
            **{name: Answers(METHODS[name], said.scores, _fitted(said)) for name, said in methods.items()},
        }

    @once
    def of_train(self) -> dict[str, Answers]:
        """What the active set says of the train images: no method's answers about those are kept."""
        return {"zero_shot": self._of_active("train")}

    def _of_active(self, split: str) -> Answers:
        scores = self.bench.active_scores(split)  # type: ignore[arg-type]
        return self.as_answers(f"zero-shot, {self.active_name}", scores)

    def as_answers(self, title: str, cosines: NDArray[np.float32]) -> Answers:
        """Answers from (N, C) cosines, with the temperature that val has chosen for zero-shot, if any has."""
        fitted = _fitted(self._stored["zero_shot"]) if "zero_shot" in self._stored else None
        return Answers(title, cosines, (1 if fitted is None else fitted) / self.images.logit_scale)

    @once
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64 of all images, as `points` has them."""
        return np.concatenate([self.images.train.labels, self.images.test.labels])

    @once
    def points(self) -> NDArray[np.float32]:
        """(N, 2) float32, the map of all images, those of train first."""
        return plane([self.images.train.embeddings, self.images.test.embeddings])

    @once
    def _copies(self) -> dict[tuple[str, str], list[twins.Copy]]:
        groups = twins.find(self.dataset.train, self.dataset.test, val=np.zeros(0, np.int64)).groups
        return {(copy.split, copy.sample_id): group for group in groups for copy in group}

    def twins(self, split: str, row: int) -> list[tuple[str, int]]:
        """The exact copies of an image, by split and row."""
        own = (split, self.split(split).ids[row])
        group = self._copies.get(own, [])
        others = [copy for copy in group if (copy.split, copy.sample_id) != own]
        return [
            (copy.split, int(positions([copy.sample_id], self.split(copy.split).ids)[0])) for copy in others
        ]

    def nearest(self, split: str, row: int) -> list[tuple[int, float]]:
        """The train images nearest to an image, without itself: rows and cosines, the nearest first."""
        query = np.asarray(self.split(split).embeddings[row])
        rows, cosines = find.nearest(self.images.train.embeddings, query, top=NEAREST + 1)  # type: ignore[arg-type]
        pairs = zip(rows.tolist(), cosines.tolist(), strict=True)
        return [pair for pair in pairs if split != "train" or pair[0] != row][:NEAREST]


def settled(read: Callable[[], Results], root: Path, *, refused: Seen) -> tuple[Results, Seen]:
    """Results, and what is `written` of them: read again where one is wrong while a run writes.

    DVC writes dvc.lock in pieces. A part of it says that nothing was ever run, or of some methods so.

    Args:
        refused: files that could not be read before, for which nobody waits a second time.

    Raises:
        ClipcifarError: of `read`, and nothing changes any more.
    """
    for looks_left in reversed(range(_LOOKS)):
        seen = written(root)
        try:
            results = read()
            if not results.stale or not looks_left or _stays(root, seen, refused):
                break
        except ClipcifarError:
            if not looks_left or _stays(root, seen, refused):
                raise
    return results, seen


def _stays(root: Path, seen: Seen, refused: Seen) -> bool:
    if seen != refused:
        sleep(_SETTLING_S)
    return written(root) == seen


def written(root: Path) -> Seen:
    """What the files that results are read from look like from outside: a change of them is a change here."""
    parts = (root / IMAGES).glob("*.h5")
    others = (root / name for name in (DATASET, PARAMS, "dvc.lock", *map(predictions_of, METHODS)))
    sets = (root / "data/embeddings").glob("*/*.h5")
    seen = {}
    for path in {*parts, *others, *sets}:
        with suppress(OSError):  # not there, or no longer
            status = path.stat()
            seen[path.relative_to(root).as_posix()] = status.st_ino, status.st_size, status.st_mtime_ns
    return seen
