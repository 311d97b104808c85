"""What computes on a GPU, by the option `attention`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from torch import Tensor

from engines.backends.torch_lm.attention import Shape
from engines.backends.torch_lm.cache import LayerShape
from engines.backends.torch_lm.cuda.cache import Attending, LayerAttention
from engines.backends.torch_lm.cuda.kernels.sizes import LARGEST_DIM
from engines.backends.torch_lm.cuda.machine import Machine
from engines.backends.torch_lm.kernels.interface import Kernels
from roundhouse.kit.errors import InvalidArgument

_LEAST_CAPABILITY = (8, 0)  # Ampere: the first whose tensor cores take bfloat16


def uses_triton(attention: str, shapes: Mapping[int, LayerShape], capability: tuple[int, int]) -> bool:
    """Tells whether Triton attends, or plain torch. Raises InvalidArgument if what is asked for cannot be had.

    capability: of the GPU, in NVIDIA's numbers.
    """
    if attention == "torch":
        return False
    if attention not in {"auto", "triton"}:
        raise InvalidArgument(f'attention "{attention}" is not for CUDA: use auto, triton or torch')
    obstacle = _obstacle(shapes, capability)
    if obstacle is not None and attention == "triton":
        raise InvalidArgument(f'attention "triton" cannot be had, because {obstacle}: use auto or torch')
    return obstacle is None


def triton_attending(machine: Machine, context: int) -> Attending:
    """Returns what makes attention by our kernels. context: the most tokens of a sequence."""
    from engines.backends.torch_lm.cuda.attend import TritonAttention

    def attending(keys: Tensor, values: Tensor, shape: Shape, heads: int) -> LayerAttention:
        multiprocessors = machine.multiprocessors
        return TritonAttention(keys, values, shape, heads, context=context, multiprocessors=multiprocessors)

    return attending


def triton_kernels() -> Kernels:
    """Returns norms and gates by our kernels."""
    from engines.backends.torch_lm.cuda.elementwise import TritonKernels

    return TritonKernels()


def _obstacle(shapes: Mapping[int, LayerShape], capability: tuple[int, int]) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    if capability < _LEAST_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and 8.0 is needed"
    widest = max(max(shape.key_dim, shape.value_dim) for shape in shapes.values())
    if widest > LARGEST_DIM:
        return f"its kernels are made for heads of {LARGEST_DIM} numbers, and the model has {widest}"
    return None
