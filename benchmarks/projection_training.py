"""Run the projection stage in a workspace, and say how many seconds of it were training."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from clipcifar.core import params
from clipcifar.methods.trained import seeds
from stages import projection

seconds: list[float] = []
train = seeds.train


def timed_train(*arguments: Any, **options: Any) -> Any:
    """`training.train`, its seconds noted."""
    start = time.perf_counter()
    trained = train(*arguments, **options)
    seconds.append(time.perf_counter() - start)
    return trained


seeds.train = timed_train
projection.main(params.load(Path("params.yaml")), *map(Path, sys.argv[1:]))
print(sum(seconds))
