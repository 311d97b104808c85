"""The kernels compile for the GPUs that there are, spill no register, and leave shared memory for a second program.

What is compiled is what a launch would compile, arguments and all. No GPU is needed for it: Triton brings a compiler.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engines.backends.torch_lm.kernels.interface import HeadNorm
from tests.unit.engines.torch_lm.cuda.scenes import IS_INTERPRETED, Layer, empty_scene

pytestmark = pytest.mark.slow

if IS_INTERPRETED:
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)
triton: Any = pytest.importorskip("triton", reason="Triton is not installed here")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from engines.backends.torch_lm.cuda.kernels import decode, gate, norm, prefill, rotate, write  # noqa: E402

KERNELS: list[Any] = [
    write._write_kernel,
    decode._decode_kernel,
    decode._combine_kernel,
    prefill._prefill_kernel,
    rotate._rotate_kernel,
    norm._norm_kernel,
    gate._gate_kernel,
]
SHARED_BYTES = {80: 163 << 10, 90: 227 << 10}  # of a multiprocessor, for one program at most
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32"}
SPILLED_BYTES = {80: 128, 90: 16}  # of the 1,020 that a thread has in registers
OPTIONS = {"num_warps", "num_stages", "enable_fp_fusion"}


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel, and what it was called with."""

    kernel: Any
    arguments: dict[str, Any]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Launch]:
    """Gathers what is launched, in place of launching it."""
    found: list[Launch] = []
    for kernel in KERNELS:

        def run(*given: Any, kernel: Any = kernel, **named: Any) -> None:
            found.append(Launch(kernel, dict(zip(kernel.arg_names, given, strict=False)) | named))

        monkeypatch.setattr(kernel, "run", run)
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    return found


def compiled(launch: Launch, architecture: int) -> Any:
    """Returns what the compiler makes of a launch."""
    names, given = launch.kernel.arg_names, launch.arguments
    signature: dict[str, str] = {}
    aligned = {}
    for index, name in enumerate(names):
        value = given[name]
        if name.isupper():
            signature[name] = "constexpr"
        elif isinstance(value, Tensor):
            signature[name] = POINTERS[value.dtype]
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
        if isinstance(value, Tensor) or (signature[name] == "i32" and value % 16 == 0):
            aligned[(index,)] = [["tt.divisibility", 16]]
    constants = {name: given[name] for name in names if name.isupper()}
    source = ASTSource(launch.kernel, signature, constexprs=constants, attrs=aligned)
    options = {name: given[name] for name in OPTIONS & given.keys()}
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def spilled_bytes(program: Any, folder: Path) -> int:
    """Returns how many bytes of each thread did not fit into registers, by the machine code."""
    path = folder / "program.cubin"
    path.write_bytes(program.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    listing = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    stack = re.search(r"STACK:(\d+)", listing)
    assert stack is not None, listing
    return int(stack[1])


LAYERS = {
    f"{dtype}, dim {dim}".removeprefix("torch."): Layer(32, 8, dim, dim, dtype=dtype)
    for dtype in (torch.bfloat16, torch.float32)
    for dim in ((64, 80, 128, 256) if dtype == torch.bfloat16 else (128, 256))
} | {
    "float16, a head for each key": Layer(8, 8, 128, 128, dtype=torch.float16),
    "bfloat16, a group of eight, everything": Layer(64, 8, 128, 128, 4096, 50.0, has_sinks=True, dtype=torch.bfloat16),
}


CASES = {(name, 90) for name in LAYERS} | {(name, 80) for name in LAYERS if "128" in name or "group" in name}


@pytest.mark.parametrize(("name", "architecture"), sorted(CASES))
def test_every_kernel_fits_the_gpu(name: str, architecture: int, launches: list[Launch], tmp_path: Path) -> None:
    layer = LAYERS[name]
    step = empty_scene(layer)
    write.write_kv(step.new_keys, step.new_values, step.keys, step.values, step.tables.slots)
    for parts in (1, 32):
        decode.decode(step.shape, step.query, step.keys, step.values, step.tables, parts, step.query)
    prefill.prefill(step.shape, step.query, step.keys, step.values, step.tables, step.query)
    weight = torch.empty(layer.key_dim)
    turns = torch.empty(8, layer.key_dim // 2)
    qkv = torch.empty(8, (layer.heads + 2 * layer.kv_heads) * layer.key_dim, dtype=layer.dtype)
    head_norm = HeadNorm(weight, weight, 1e-6)
    rotate.rotate_and_write(qkv, step.keys, step.values, step.tables.slots, layer.heads, turns, turns, head_norm)
    x = torch.empty(8, 8192, dtype=layer.dtype)
    norm.norm(x, torch.empty(8192), None, 1e-6, residual=x)
    gate.gated(x, "silu")
    assert {launch.kernel for launch in launches} == set(KERNELS)
    for launch in launches:
        program = compiled(launch, architecture)
        kernel = launch.kernel.__name__
        assert program.metadata.shared <= SHARED_BYTES[architecture] // 2, kernel
        assert spilled_bytes(program, tmp_path) <= SPILLED_BYTES[architecture], kernel
