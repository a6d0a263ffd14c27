"""Photographs decoded once to be sure that they can be, and hashed: by a process a core, in order.

A bounded number of files is under way, and of a file that is done its digest alone is left. What is wrong
with one is handed on as a value: raised in a process it would arrive as the text of a traceback.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from PIL import Image

from clipcifar.core.errors import ClipcifarError, DataError, EnvironmentFault
from clipcifar.core.files import fault_behind
from clipcifar.core.processes import cores
from clipcifar.core.progress import progress
from clipcifar.core.terminal import one_line
from clipcifar.datasets import decode as decoding
from clipcifar.datasets.decode import check
from clipcifar.datasets.plain_files import is_utf8

MAX_BYTES = 1_000_000_000  # of a file; 250 million pixels of 16-bit gray take less uncompressed
TASK_FILES = 32  # of small files some milliseconds, which a task's own cost is not seen beside
_AHEAD = 4  # tasks a process, under way or done before it is their turn
Checked: TypeAlias = str | ClipcifarError  # hex sha256 of a file, or what is wrong with it
Task = TypeVar("Task")
Result = TypeVar("Result")
_stopping: Any = None  # in a process: set when nobody waits for it any more


def check_files(
    root: Path, paths: Iterator[str], *, total: int, max_megapixels: int, workers: int | None = None
) -> Generator[Checked, None, None]:
    """Decode and hash image files, and say of each in their order what it holds or what is wrong with it.

    Args:
        root: the folder that the paths are relative to.
        total: how many paths there are.
        max_megapixels: a larger image cannot be used.
        workers: processes; None for one a core. One task's files, or one process, are checked in this one.

    Raises:
        EnvironmentFault: a process died.
    """
    checking = partial(check_file, root, max_megapixels)
    workers = min(workers or cores(), -(-total // TASK_FILES))
    with ExitStack() as stack:
        checked: Iterator[Checked]
        if workers > 1:
            tasks = iter(lambda: list(islice(paths, TASK_FILES)), [])
            of_tasks = in_order(
                partial(_check_all, checking),
                tasks,
                workers=workers,
                ahead=workers * _AHEAD,
                names_of=list,
                unit="image",
                where=str(root),
                stack=stack,
            )
            checked = chain.from_iterable(of_tasks)
        else:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            checked = map(checking, paths)
        bar = stack.enter_context(progress(total=total, unit="images", what="checking images"))
        for result in checked:
            yield result
            bar.update()


def check_file(root: Path, max_megapixels: int, path: str) -> Checked:
    """The hex sha256 of one file that is an image, or what is wrong with it."""
    try:
        if not is_utf8(path):
            raise DataError("its name is not UTF-8")
        if (size := os.stat(root / path).st_size) > MAX_BYTES:
            raise DataError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        content = (root / path).read_bytes()
        check(content, path, max_megapixels=max_megapixels)
        return hashlib.sha256(content).hexdigest()
    except OSError as problem:
        return fault_behind(problem, one_line(path)) or DataError(f"cannot be read: {problem.strerror}")
    except (DataError, EnvironmentFault) as problem:
        return problem


def in_order(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    ahead: int,
    names_of: Callable[[Task], list[str]],
    unit: Literal["image", "shard"],
    where: str,
    stack: ExitStack,
) -> Iterator[Result]:
    """What processes make of each task, in order.

    They are started here and now: a fork must not meet the bar's thread. They end with the stack, where the
    work asks `stopped`.

    Args:
        work: done in a process.
        ahead: tasks at most that are under way, or done before it is their turn.
        names_of: what a task reads, in units.
        where: the folder, for the message.

    Raises:
        EnvironmentFault: a process died.
    """
    pool, waiting = _processes(workers, stack), iter(tasks)
    under_way = deque((task, pool.submit(work, task)) for task in islice(waiting, ahead))
    processes = multiprocessing.active_children()

    def results() -> Iterator[Result]:
        while under_way:
            try:
                yield under_way[0][1].result()
                under_way.extend((task, pool.submit(work, task)) for task in islice(waiting, 1))
            except BrokenProcessPool as error:
                pool.shutdown()  # only then do all of them say how they ended
                names = [name for task, _ in under_way for name in names_of(task)]
                raise _died(processes, names, unit, where) from error
            under_way.popleft()

    return results()


def _processes(workers: int, stack: ExitStack) -> ProcessPoolExecutor:
    stopping, large = multiprocessing.Event(), multiprocessing.Lock()
    pool = ProcessPoolExecutor(workers, initializer=_begin, initargs=(stopping, large))
    stack.callback(pool.shutdown, cancel_futures=True)
    stack.callback(stopping.set)
    return pool


def _died(processes: list[Any], names: list[str], unit: str, where: str) -> EnvironmentFault:
    """What to say when a process is gone: how it ended, and what it may have been at.

    The pool ends those that are left, by SIGTERM.
    """
    codes = {process.exitcode for process in processes} - {None, 0, -signal.SIGTERM}
    how = [f"signal {-code}" if code < 0 else f"exit code {code}" for code in sorted(codes)]
    first, last = one_line(names[0]), one_line(names[-1])
    at = first if len(names) == 1 else f"one of {len(names):,} {unit}s from {first} to {last}"
    return EnvironmentFault(
        f"a process that checks {unit}s ended before its time ({', '.join(how) or 'it does not say how'}), "
        f"at {at}",
        where=where,
        fix="free some memory, for want of which systems end processes, and run again; if it ends there "
        f"again, take the largest of these {unit}s away",
    )


def _begin(stopping: Any, large: Any) -> None:
    """In a process: end as it would without Python when interrupted, and when whom it works for is gone."""
    global _stopping
    _stopping = stopping
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of what a shell runs in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    decoding._large = large  # very large images one at a time among all processes, as memory has it
    decoding._opening = threading.Lock()  # which another thread may have held at the fork
    warnings.simplefilter("ignore")
    # Pillow keeps the memory of 16 megapixels for the next image; asking for it anew is half of the time.
    Image.core.set_blocks_max(4)  # type: ignore[attr-defined]
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def stopped() -> bool:
    """In a process: whether nobody waits for it any more."""
    return _stopping is not None and _stopping.is_set()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _check_all(checking: Callable[[str], Checked], task: list[str]) -> list[Checked]:
    return [checking(path) for path in task if not stopped()]
