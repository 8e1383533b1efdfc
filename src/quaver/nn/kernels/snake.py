"""The snake of `nn.conv`, x + sin(a x)^2 / a, in a dozen instructions."""

from __future__ import annotations

import triton
import triton.language as tl

# Added and taken away, it rounds fp32 numbers of up to 2^22 to whole ones.
WHOLE = tl.constexpr(1.5 * 2**23)


@triton.jit
def sine_squared(x) -> tl.tensor:
    """sin(pi x)^2 within 2.1e-7 of float32's x: the wave is the same in each whole turn, and a
    polynomial of the squared rest, by Chebyshev interpolation (2.1e-8 before it is rounded).

    Beyond 2^22, where neighbours are half a turn apart, it is any number of 0..1.
    """
    rest = x - ((x + WHOLE) - WHOLE)
    square = tl.minimum(rest * rest, 0.25)
    y = -3.3552308082580566 * square + 13.049189567565918
    y = y * square - 30.101245880126953
    y = y * square + 42.7271728515625
    y = y * square - 32.469669342041016
    y = y * square + 9.869604110717773
    return y * square


@triton.jit
def snake(x, turns, inverse) -> tl.tensor:
    """turns: a / pi; inverse: 1 / a."""
    return x + sine_squared(x * turns) * inverse
