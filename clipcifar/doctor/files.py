"""What `clipcifar doctor` reads of a run: every file against its digest, and that all belong together."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipcifar.core import files, params
from clipcifar.core.counts import count_of
from clipcifar.core.errors import ClipcifarError, DataError
from clipcifar.core.progress import progress
from clipcifar.datasets import download, registry
from clipcifar.datasets.params import DatasetParams, photograph_folder
from clipcifar.datasets.shard_lists import listed
from clipcifar.datasets.tar_stream import shard_sha256
from clipcifar.embeddings import memo, sentences
from clipcifar.evaluation.names import METHODS
from clipcifar.project import freshness, missing
from clipcifar.project.dvc_cache import kept_objects
from clipcifar.store import (
    heads,
    places,
    splits,
)
from clipcifar.store.dataset import Prepared, digest_of, read_dataset
from clipcifar.store.embeddings import check_same_space, read_texts
from clipcifar.store.images import MANIFEST, read_images
from clipcifar.store.members import Shard
from clipcifar.store.model import (
    ModelDescription,
    ModelParams,
    check_described,
    check_requested,
    check_weights,
)
from clipcifar.store.predictions import read_predictions, read_set_predictions

Found = Iterator[str | ClipcifarError]
RESULTS = ("data", "metrics", "plots", "report")
NAMED = 5  # of many bad things, so many are named
RAW, DATASET = Path(places.RAW), Path(places.DATASET)
WEIGHTS, MODEL = Path(places.WEIGHTS), Path(places.MODEL)
IMAGES = Path(places.IMAGES)
SPLITS, HEADS, PREDICTIONS = Path(places.SPLITS), Path(places.HEADS), Path(places.PREDICTIONS)


def dataset(repository: Path, settings: Mapping[str, Any]) -> Found:
    """The archive, the prepared dataset, and of a folder every photograph."""
    asked = params.read(settings, "dataset", DatasetParams)
    entry = registry.registered(asked.name)
    for known in entry.archives:
        archive = repository / registry.located(known, asked, RAW)
        if archive.exists():
            download.check(archive, known)
            yield f"{archive.name} has its known {known.algorithm}"
    if not (repository / DATASET).is_file():
        yield _not_made(repository, DATASET)
        return
    prepared = read_dataset(repository / DATASET)
    if digest_of(prepared.train, prepared.test, prepared.class_names) != prepared.digest:
        raise DataError("the content is not what its digest says", where=str(DATASET), fix=_again(DATASET))
    if prepared.test.members is not None:
        yield from _shards(repository / photograph_folder(asked, RAW), prepared.test.members.shards)
    elif not prepared.train.in_memory:
        yield from _photographs(repository / photograph_folder(asked, RAW), prepared)
    test = count_of(len(prepared.test.ids), "test image")
    yield f"{prepared.name}, {len(prepared.train.ids):,} train and {test}"


def _photographs(root: Path, prepared: Prepared) -> Found:
    listed = prepared.train + prepared.test
    wrong = []
    with progress(total=len(listed.ids), unit="images", what="checking images") as bar:
        for name, digest in zip(listed.ids, listed.digests, strict=True):
            path = root / name
            if not path.is_file() or files.file_sha256(path) != digest:
                wrong.append(name)
            bar.update()
    if wrong:
        yield DataError(
            f"{count_of(len(wrong), 'image is', 'images are')} missing or changed: {_some(wrong)}",
            where=str(root),
            fix="put them back, or run `dvc repro`, which lists the folder again",
        )


def _shards(root: Path, shards: Sequence[Shard]) -> Found:
    good, given = 0, _digests_of_lists(root)
    with progress(total=len(shards), unit="shards", what="checking shards") as bar:
        for shard in shards:
            try:
                if (digest := shard_sha256(shard.place, root)) == shard.digest:
                    good += 1
                else:
                    yield DataError(
                        f"the shard has sha256 {digest}, and had {shard.digest} when prepare read it",
                        where=shard.place,
                        fix="put it back, or write its line in the list anew with `sha256sum`, then run "
                        "`dvc repro`"
                        if given.get(shard.place, digest) != digest
                        else "put it back, or run `dvc repro -f prepare`, which reads the shards again",
                    )
            except ClipcifarError as error:
                yield error
            bar.update()
    if good == len(shards):
        yield count_of(good, "shard")


def _digests_of_lists(root: Path) -> dict[str, str]:
    """The sha256 that lists give of shards, by place; none where the lists cannot be read any more."""
    try:
        return {shard.place: shard.digest for shard in listed(root)[0] if shard.digest}
    except ClipcifarError:
        return {}


def weights(repository: Path, settings: Mapping[str, Any]) -> Found:
    """The weights and the config against what was resolved."""
    if not (repository / MODEL).is_file():
        yield _not_made(repository, MODEL)
        return
    described = ModelDescription.read(repository / MODEL)
    check_weights(described, repository / WEIGHTS)
    yield described.label


def embeddings(repository: Path, settings: Mapping[str, Any]) -> Found:
    """Every embeddings file, and that all belong together; stale ones need not."""
    if not (repository / IMAGES / MANIFEST).exists():  # or its link leads nowhere, which `outputs` says
        yield _not_made(repository, IMAGES)
        return
    images = read_images(repository / IMAGES)
    images.verify()
    check_requested(images.attributes, params.read(settings, "model", ModelParams))
    if (repository / MODEL).is_file():
        check_described(images.attributes, ModelDescription.read(repository / MODEL))
    count, is_stale = 0, _staleness(repository)
    for path in sentences.text_files(repository):
        try:
            texts = read_texts(path)
            if not is_stale(IMAGES) and not is_stale(path.relative_to(repository)):
                check_same_space(images, texts)
            count += len(texts.sentences)
        except ClipcifarError as error:
            error.where = error.where or str(path)
            yield error
    n = len(images.train.ids) + len(images.test.ids)
    yield f"{count_of(n, 'image')}, {count_of(count, 'sentence')}"
    outputs = (output for output in (IMAGES, *sentences.OUTPUTS) if (repository / output).exists())
    yield "; ".join(_place(repository, output) for output in outputs)


def _staleness(repository: Path) -> Callable[[Path], bool]:
    """Whether a file is of what lay here before: it need not fit the files that were made since."""
    state = freshness.here(repository)

    def is_stale(path: Path) -> bool:
        reason = state.stale(path.as_posix())
        return reason is not None and bool(reason.changed) and not reason.is_of_other_code

    return is_stale


def _place(repository: Path, output: Path) -> str:
    """How big an output is, and whether DVC keeps it, where a stage would find it again."""
    here = repository / output
    content = [path for path in (here.rglob("*.h5") if here.is_dir() else [here]) if path.is_file()]
    kept = kept_objects(repository, output)
    too = "in DVC's cache too" if content and len(kept) >= len(content) else "not in DVC's cache"
    return f"{output} {megabytes(content)}, {too}"


def megabytes(paths: Iterable[Path]) -> str:
    """The size of some files; one that is gone counts nothing."""
    return f"{sum(path.stat().st_size for path in paths if path.exists()) / 1e6:,.1f} MB"


def predictions(repository: Path, settings: Mapping[str, Any]) -> Found:
    """Splits, heads and predictions."""
    readers: dict[Path, Callable[[Path], object]] = {
        PREDICTIONS / "prompt_sets.h5": read_set_predictions,
        **{PREDICTIONS / f"{method}.h5": read_predictions for method in METHODS},
        **{path.relative_to(repository): heads.read for path in (repository / HEADS).glob("*.h5")},
    }
    made = [path for path in readers if (repository / path).is_file()]
    for path in made:
        try:
            readers[path](repository / path)
        except ClipcifarError as error:
            yield error
    if (repository / SPLITS).is_file() and (repository / IMAGES / MANIFEST).exists():
        images = read_images(repository / IMAGES)
        if not _staleness(repository)(IMAGES):
            splits.read_splits(repository / SPLITS, images.train.ids, dataset_digest=images.dataset_digest)
        made.append(SPLITS)
    yield (
        f"{count_of(len(made), 'file')} of splits, heads and predictions"
        if made
        else _not_made(repository, PREDICTIONS / "zero_shot.h5")
    )


def remembered(repository: Path, settings: Mapping[str, Any]) -> Found:
    """The memo of sentences, row by row."""
    path = files.cache_folder() / sentences.MEMO_FILE
    if not path.is_file():
        yield "empty"
        return
    good, damaged = memo.count(path)
    if damaged:
        yield DataError(
            f"{damaged:,} of {count_of(good + damaged, 'sentence')} damaged, to be embedded again",
            where=str(path),
            fix=f"rm {shlex.quote(str(path))}",
        )
    yield f"{count_of(good, 'sentence')} in {path}"


def _not_made(repository: Path, path: Path) -> str:
    if said := missing.advice(repository, path):
        return f"{path} is not here: {said}"
    return f"{path} is not made yet; `dvc repro` makes it"


def _again(path: Path) -> str:
    return f"rm {path} && dvc repro"


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:NAMED]) + (" and more" if len(names) > NAMED else "")
