"""Torch's compiler is not imported beside the towers, and all is as ever for whoever compiles afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.import_closure import ROOT

PROGRAM = """
import sys, torch
from clipcifar.backbone.uncompiled import uncompiled

before = torch.compiler.disable
with uncompiled():
    import clipcifar.backbone.towers
    @torch.compiler.disable(recursive=False)
    def left_alone(x):
        return x + 1
assert not {name for name in sys.modules if name.startswith(("torch._dynamo", "sympy", "triton"))}
assert torch.compiler.disable is before
assert left_alone(1) == 2
assert "torch._dynamo" not in sys.modules

from torchvision.ops import roi_align
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
import torch._dynamo.utils
assert asked == torch._dynamo.utils.is_compile_supported("cpu")
assert type(torch._dynamo.utils).__name__ == "module"
compiled = torch.compile(lambda x: left_alone(2 * x), backend="eager")
assert compiled(torch.ones(2)).tolist() == [3.0, 3.0]
with uncompiled():
    assert torch.compiler.disable is before
"""
ASKING = """
import sys, torch
from clipcifar.backbone.uncompiled import uncompiled

with uncompiled():
    standing_in = sys.modules["torch._dynamo.utils"]
    assert not hasattr(standing_in, "__file__")  # nobody who looks through all modules loads it
    assert "torch._dynamo" not in sys.modules
    counters = standing_in.counters
import torch._dynamo.utils
assert sys.modules["torch._dynamo.utils"] is torch._dynamo.utils is not standing_in
assert counters is torch._dynamo.utils.counters
"""


def test_the_towers_need_no_compiler_and_leave_it_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_asked_for_anything_else_the_compiler_itself_answers() -> None:
    """A torchvision that imports more of it gets it, and is only slower."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASKING], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


STARTS = {
    "the model": "import stages.fetch_model",
    "images, here": "with compute._engine(None, None, EMBED, 'cpu'): pass",
    "images, for a cluster": "with suppress(AttributeError): compute._source(None, None, None, 0)",
}
AFTER = """
assert "torch" in sys.modules
assert not {name for name in sys.modules if name.startswith(("torch._dynamo", "sympy", "triton"))}
"""
BEFORE = """
import sys
from contextlib import suppress
from clipcifar.backbone.params import EmbedParams
from clipcifar.embeddings import compute
EMBED = EmbedParams("cpu", "fp32", batch_size=16, workers=0, storage="float32")
"""


@pytest.mark.parametrize("what", STARTS)
def test_neither_the_stage_of_the_model_nor_that_of_the_images_waits_for_it(what: str) -> None:
    program = f"{BEFORE}{STARTS[what]}{AFTER}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
