"""A quantised weight as it lies in memory: what `checkpoints` reads and writes and `quant` runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quaver.precision.roles import Format

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 128  # rows and inputs of a block of fp8-block; DeepSeek-V3 (2024), section 3.3.2


@dataclass(frozen=True, slots=True)
class QuantisedWeight:
    """A weight [out, in] in a quantised format.

    `elements` are int8 or float8 [out, in], or uint8 [out, in / 2] with two to a byte: the first in
    the low half for int4 (plus 8), in the high half for nf4. Each row has `scale` [out, groups] for
    equal stretches of its inputs. `input_scale`, fp32 [], is a static format's scale of inputs.
    """

    format: Format
    elements: Tensor
    scale: Tensor
    input_scale: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        rows, columns = self.elements.shape
        return rows, columns * (2 if self.format in (Format.INT4, Format.NF4) else 1)


def stack(parts: Sequence[QuantisedWeight]) -> QuantisedWeight:
    """One weight of the rows of several, which must be of one format and group size.

    They read the same input, so a static scale becomes the largest of theirs.
    """
    import torch

    first, *rest = parts
    if not rest:
        return first
    scales = [part.input_scale for part in parts if part.input_scale is not None]
    return QuantisedWeight(
        first.format,
        torch.cat([part.elements for part in parts]),
        torch.cat([part.scale for part in parts]),
        torch.stack(scales).amax() if scales else None,
    )
