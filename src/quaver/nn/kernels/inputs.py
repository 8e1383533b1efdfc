"""What becomes of inputs before a product of several rows: a norm and rounding, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quaver.nn.kernels.launch import on, starting_early, turn

E4M3 = torch.float8_e4m3fn
LARGEST = tl.constexpr(torch.finfo(E4M3).max)
# as in quant.fp8: no scale is below fp32's smallest normal number
LEAST = tl.constexpr(torch.finfo(E4M3).max * torch.finfo(torch.float32).tiny)


@triton.jit
def step_of(most) -> tl.tensor:
    """The scale with which `most` just fits E4M3."""
    return tl.div_rn(tl.maximum(most, LEAST), LARGEST)


@triton.jit
def rounded_by(x, step) -> tl.tensor:
    """x / step as E4M3."""
    x = tl.div_rn(x.to(tl.float32), step)
    x = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
    return x.to(tl.float8e4nv, fp_downcast_rounding="rtne")


@triton.jit
def _prepare(
    x_pointer,
    norm_pointer,
    out_pointer,
    step_pointer,
    inputs,
    eps,
    normed: tl.constexpr,
    rounded: tl.constexpr,
    block: tl.constexpr,
    early: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, block)
    inside = k < inputs
    weight = tl.full((block,), 1.0, tl.float32)
    if normed:
        weight = tl.load(norm_pointer + k, mask=inside, other=0.0)
    turn(early)
    x = tl.load(x_pointer + row * inputs + k, mask=inside, other=0.0)
    kind = x.dtype
    if normed:
        wide = x.to(tl.float32)
        rms = tl.rsqrt(tl.sum(wide * wide, 0) / inputs + eps)
        x = (wide * rms * weight).to(kind)
    if rounded:
        step = step_of(tl.max(tl.abs(x.to(tl.float32)), 0))
        tl.store(step_pointer + row, step)
        x = rounded_by(x, step)
    tl.store(out_pointer + row * inputs + k, x, mask=inside)


def prepare(
    x: Tensor,
    norm: Tensor | None = None,
    eps: float = 0.0,
    rounded: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """x [rows, in], contiguous -> what is multiplied, and the scale of each row, fp32 [rows, 1], if
    rows are rounded to E4M3. `norm` is the fp32 weight [in] of an RMS norm."""
    rows, inputs = x.shape
    out = torch.empty(rows, inputs, dtype=E4M3 if rounded else x.dtype, device=x.device)
    step = torch.empty(rows, 1, dtype=torch.float32, device=x.device) if rounded else None
    block = triton.next_power_of_2(inputs)
    with on(x.device):
        _prepare[(rows,)](
            x,
            norm,
            out,
            step,
            inputs,
            eps,
            normed=norm is not None,
            rounded=rounded,
            block=block,
            num_warps=max(4, min(16, block // 512)),
            **starting_early(x.device),
        )
    return out, step
