"""A weight with two to a byte as what it stands for, for products of many rows."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.launch import on
from quaver.nn.weight import Kept, Packing

BLOCK = 1024  # bytes of a program


@triton.jit
def _expand(
    weight_pointer,
    scale_pointer,
    levels_pointer,
    out_pointer,
    length,
    group,
    groups,
    indices: tl.constexpr,
    block: tl.constexpr,
):
    """`block` bytes of one row."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * block + tl.arange(0, block)
    packed = tl.load(weight_pointer + row * length + k, mask=k < length, other=0).to(tl.int32)
    if indices:
        even = tl.load(levels_pointer + (packed >> 4))
        odd = tl.load(levels_pointer + (packed & 15))
    else:
        even = ((packed & 15) - 8).to(tl.float32)
        odd = ((packed >> 4) - 8).to(tl.float32)
    place = scale_pointer + row * groups + 2 * k // group
    scale = tl.load(place, mask=k < length, other=0.0).to(tl.float32)
    both = tl.reshape(tl.join(even * scale, odd * scale), (2 * block,))
    k = 2 * tl.program_id(1) * block + tl.arange(0, 2 * block)
    out = out_pointer + row * 2 * length + k
    tl.store(out, both.to(out_pointer.dtype.element_ty), mask=k < 2 * length)


def expand(weight: Kept, dtype: torch.dtype) -> Tensor:
    """A packed weight -> [out, in]."""
    outputs, length = weight.elements.shape
    assert weight.scale is not None, "packed weights have scales"
    groups = weight.scale.shape[1]
    out = torch.empty(outputs, 2 * length, dtype=dtype, device=weight.elements.device)
    with on(out.device):
        _expand[(outputs, triton.cdiv(length, BLOCK))](
            weight.elements,
            weight.scale,
            weight.levels,
            out,
            length,
            2 * length // groups,
            groups,
            indices=weight.packing is Packing.NF4,
            block=BLOCK,
        )
    return out
