"""A stage imported once and then run again and again in forked processes, so that only its work takes time.

Usage: python -W ignore warm_stage.py <stage> <paths …>. Every line on standard input starts one run, whose
process id is printed; when it has ended, its exit status is printed (negative: the signal that killed it).
"""

from __future__ import annotations

import importlib
import os
import sys

import stages  # of the workspace, which is the current folder

main = importlib.import_module(f"stages.{sys.argv.pop(1)}").main
# What a stage imports once it knows that there is something to embed; with torch and open_clip 3 s of a core.
for later in ("backbone.device", "backbone.towers", "embeddings.extract", "embeddings.sources"):
    importlib.import_module(f"clipcifar.{later}")

for _ in sys.stdin:
    process = os.fork()
    if not process:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        stages._STARTED_BY = stages._parents()  # this process: else it would take itself for an orphan
        stages.run(main)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
