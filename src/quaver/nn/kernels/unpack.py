"""What two weights of one byte stand for, one of them at a time."""

from __future__ import annotations

import triton
import triton.language as tl

# Four bytes at a time, the nibbles in their low or high halves: set into the high half, as whole
# numbers of 8 more than they are, and made signed by turning the highest bit over.
NIBBLES = tl.constexpr(
    (
        "{ .reg .b32 t; shl.b32 t, $1, 4; lop3.b32 $0, t, 0xF0F0F0F0, 0x80808080, 0x6A; }",
        "lop3.b32 $0, $1, 0xF0F0F0F0, 0x80808080, 0x6A;",
    )
)
SIXTEENTH = tl.constexpr(1 / 16)


@triton.jit
def unpacked(
    packed, levels_pointer, part: tl.constexpr, kind: tl.constexpr, dtype: tl.constexpr
) -> tl.tensor:
    """One of two that share a byte: 16 times a whole number, or what an index stands for."""
    if kind == 2:
        index = packed.to(tl.int32)
        index = (index >> 4 if part == 0 else index) & 15
        value = tl.load(levels_pointer + index).to(dtype)
    elif dtype == tl.int8:
        asm: tl.constexpr = NIBBLES[part]
        value = tl.inline_asm_elementwise(
            asm, "=r,r", [packed], dtype=tl.int8, is_pure=True, pack=4
        )
    else:
        value = ((((packed.to(tl.int32) >> (4 * part)) & 15) - 8) * 16).to(dtype)
    return value
