"""Things made one by one by worker processes, ahead of who asks for them in batches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Protocol, TypeVar

from torch.utils.data import DataLoader

from clipcifar.core.errors import EnvironmentFault
from clipcifar.datasets import decode

LESS = "lower embed.workers, 0 needs the least memory"
Item = TypeVar("Item")
ItemMade = TypeVar("ItemMade", covariant=True)
Batch = TypeVar("Batch")


class Items(Protocol[ItemMade]):
    """N things by row."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> ItemMade: ...


def loaded(
    items: Items[Item],
    rows: Sequence[range],
    together: Callable[[list[Item]], Batch],
    *,
    workers: int,
    fix: str = LESS,
) -> Generator[Batch, None, None]:
    """For each range of rows what `together` makes of its items.

    Close it, above all before an error is raised beside it: the workers end with its iterator. Left to the
    garbage collector, their queues may go first, and ending takes five seconds a worker.

    Args:
        workers: number of processes; 0 works in this one.
        fix: what to do where one of them fails.

    Raises:
        EnvironmentFault: a process was killed, or could not be had.
    """
    loader: DataLoader[Item] = DataLoader(
        items,  # type: ignore[arg-type]
        batch_sampler=list(rows),  # type: ignore[arg-type]
        num_workers=min(workers, len(rows)),  # a batch is the work of one
        collate_fn=together,
        worker_init_fn=_with_own_locks,
    )
    with _failure_explained(fix):
        batches: Iterator[Batch] = iter(loader)
    try:
        while True:
            with _failure_explained(fix):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch
    finally:
        del batches


def _with_own_locks(_: int) -> None:
    """Free in a worker what another thread held when it was forked, as one that decodes an image itself."""
    decode._opening, decode._large = Lock(), Lock()


@contextmanager
def _failure_explained(fix: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, OSError) as error:  # a killed worker, no shared memory, no handles left
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise EnvironmentFault(
            f"a decoding worker failed: {reason[-1]}", where="params.yaml: embed.workers", fix=fix
        ) from error.with_traceback(None)  # its frames hold the iterator
