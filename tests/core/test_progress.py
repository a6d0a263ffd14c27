from __future__ import annotations

import subprocess
import sys


def test_a_stage_with_a_progress_bar_ends_without_a_word_of_pythons() -> None:
    """Where workers are not forked, Python keeps a list of what processes share, and reads it out at last."""
    script = (
        "import multiprocessing, os\n"
        "from clipcifar.core.progress import progress\n"
        "multiprocessing.set_start_method('spawn')\n"
        "with progress(total=1, unit='images', what='test') as bar: bar.update()\n"
        "os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
