"""One state of a project's results, as the explorer's pages read it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from clipcifar.api import find
from clipcifar.api.bench import Active, Bench, read_active
from clipcifar.api.opened import Opened
from clipcifar.core import params
from clipcifar.core.errors import DataError
from clipcifar.datasets import twins
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.evaluation.names import METHODS
from clipcifar.explorer.answers import Answers
from clipcifar.explorer.embedding_map import plane
from clipcifar.project import freshness
from clipcifar.render.pictures import Pictures
from clipcifar.store.dataset import PreparedSplit, read_dataset
from clipcifar.store.embeddings import Split
from clipcifar.store.fields import class_names_of
from clipcifar.store.places import DATASET, IMAGES, RAW, predictions_of
from clipcifar.store.predictions import read_predictions

NEAREST = 12
TRIED = "tried"  # whose answers those of the prompt tried last are


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
        self, opened: Opened, embed: Callable[[list[str]], NDArray[np.float32]], *, number: int
    ) -> None:
        self._lock = RLock()
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
        self._pictures = {name: Pictures(self.prepared(name), folder, side=256) for name in ("train", "test")}
        methods = {predictions_of(name): METHODS[name] for name in METHODS}
        self.stale = [str(reason) for reason in freshness.stale_results(self._root, methods)]

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

    @cached_property
    def of_test(self) -> dict[str, Answers]:
        """What each method that has run says of the test images, by its name."""
        with self._lock:
            answers = {"zero_shot": self._of_active("test")}
            for name, title in METHODS.items():
                if (path := self._root / predictions_of(name)).is_file():
                    said = read_predictions(path)
                    if (
                        said.ids != self.images.test.ids
                        or class_names_of(said.attributes) != self.class_names
                    ):
                        line = f"{title} is of other images, and left out; run `dvc repro {name}`"
                        self.stale += [line] if line not in self.stale else []
                        continue
                    fitted = said.attributes.get("temperature")
                    own = Answers(title, said.scores, None if fitted is None else float(fitted))
                    if name == "zero_shot" and (own.predicted != answers[name].predicted).any():
                        continue  # of another active set: verdicts, and what is won and lost, are of this one
                    answers[name] = own
            return answers

    @cached_property
    def of_train(self) -> dict[str, Answers]:
        """What the active set says of the train images: no method's answers about those are kept."""
        return {"zero_shot": self._of_active("train")}

    def _of_active(self, split: str) -> Answers:
        scores = self.bench.active_scores(split)  # type: ignore[arg-type]
        return self.as_answers(f"zero-shot, {self.active_name}", scores)

    def as_answers(self, title: str, cosines: NDArray[np.float32]) -> Answers:
        """Answers from (N, C) cosines, at the model's own logit scale."""
        return Answers(title, np.float32(self.images.logit_scale) * cosines, None)

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """(N, 2) float32, the map of all images, those of train first."""
        with self._lock:
            return plane([self.images.train.embeddings, self.images.test.embeddings])

    @cached_property
    def _copies(self) -> dict[tuple[str, str], list[twins.Copy]]:
        groups = twins.find(self.dataset.train, self.dataset.test, val=np.zeros(0, np.int64)).groups
        return {(copy.split, copy.sample_id): group for group in groups for copy in group}

    @cached_property
    def row_of(self) -> dict[tuple[str, str], int]:
        """The row of each image that has copies, by split and id."""
        wanted: dict[str, set[str]] = {"train": set(), "test": set()}
        for split, sample_id in self._copies:
            wanted[split].add(sample_id)
        return {
            (split, sample_id): row
            for split, ids in wanted.items()
            if ids
            for row, sample_id in enumerate(self.split(split).ids)
            if sample_id in ids
        }

    def twins(self, split: str, row: int) -> list[tuple[str, int]]:
        """The exact copies of an image, by split and row."""
        own = (split, self.split(split).ids[row])
        group = self._copies.get(own, [])
        return [
            (copy.split, self.row_of[copy.split, copy.sample_id])
            for copy in group
            if (copy.split, copy.sample_id) != own
        ]

    def nearest(self, split: str, row: int) -> list[tuple[int, float]]:
        """The train images nearest to an image, without itself: rows and cosines, the nearest first."""
        query = np.asarray(self.split(split).embeddings[row])
        rows, cosines = find.nearest(self.images.train.embeddings, query, top=NEAREST + 1)  # type: ignore[arg-type]
        pairs = zip(rows.tolist(), cosines.tolist(), strict=True)
        return [pair for pair in pairs if split != "train" or pair[0] != row][:NEAREST]


def written(root: Path) -> list[tuple[str, int, int, int]]:
    """What the files that results are read from look like from outside: a change of them is a change here."""
    parts = (root / IMAGES).glob("*.h5")
    others = (root / name for name in (DATASET, "params.yaml", "dvc.lock", *map(predictions_of, METHODS)))
    sets = (root / "data/embeddings").glob("*/*.h5")
    seen = []
    for path in sorted({*parts, *others, *sets}):
        if path.is_file():
            status = path.stat()
            seen.append((path.as_posix(), status.st_ino, status.st_size, status.st_mtime_ns))
    return seen
