"""A token table in fewer bits: rows are unpacked when they are looked up.

Where the table is also the head, both are one weight here too.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from quaver.precision.weight import QuantisedWeight
from quaver.quant.layer import DTYPE, QuantisedLinear, kept


class QuantisedEmbedding(nn.Module):
    """Tokens [...] -> bf16 [..., width], of a table [count, width] kept in fewer bits."""

    def __init__(
        self, kind: type[QuantisedLinear], weight: nn.Parameter, scale: nn.Parameter
    ) -> None:
        super().__init__()
        self._kind, self.weight, self.scale = kind, weight, scale

    @classmethod
    def of(cls, kind: type[QuantisedLinear], weight: QuantisedWeight) -> Self:
        return cls(kind, kept(weight.elements), kept(weight.scale))

    @classmethod
    def sharing(cls, head: QuantisedLinear) -> Self:
        """The table of a head that is tied to it."""
        return cls(type(head), head.weight, head.scale)

    def host_copy(self) -> QuantisedEmbedding:
        return QuantisedEmbedding(self._kind, kept(self.weight.cpu()), kept(self.scale.cpu()))

    def forward(self, tokens: Tensor) -> Tensor:
        flat = tokens.flatten()
        elements = self.weight.view(torch.uint8)[flat].view(self.weight.dtype)  # float8 too
        rows = self._kind.dequantise(elements, self.scale[flat])
        return rows.to(DTYPE).view(*tokens.shape, -1)
