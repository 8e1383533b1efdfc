"""Grouped-query attention (Ainslie et al., 2023) over a key-value store that the caller owns.

The store is an argument: attention neither allocates nor remembers, so training (no store),
prefill and decode share this code, and one process can run many stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from quaver.nn.linear import linear
from quaver.nn.norm import RMSNorm
from quaver.nn.rope import rotate
from quaver.precision import Recipe, Role

if TYPE_CHECKING:
    from quaver.core.protocols import KVStore


class Attention(nn.Module):
    """Self-attention of one layer; the query, key and value projections are one matrix."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_dim: int, role: Role, recipe: Recipe
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.qkv = linear(width, (heads + 2 * kv_heads) * head_dim, role, recipe)
        self.out = linear(heads * head_dim, width, role, recipe)

    def forward(
        self,
        x: Tensor,
        norm: RMSNorm,
        rope: tuple[Tensor, Tensor],
        layer: int,
        store: KVStore | None,
    ) -> Tensor:
        """x [n, t, width] -> x + attention(norm(x)). Without a store: causal over t positions."""
        n, t, _ = x.shape
        qkv = self.qkv(x, norm=norm).view(n, t, -1, self.head_dim).transpose(1, 2)
        if store is None:
            # whole copies: compiled backwards bake the strides of views into dynamic shapes
            q, k, v = turned(qkv, self.kv_heads, rope)
            q, k = q.contiguous(), k.contiguous()
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            y = store.attend(layer, qkv, self.kv_heads, rope)
        return self.out(y.transpose(1, 2).reshape(n, t, -1), residual=x)


def turned(
    qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """[n, heads + 2 kv_heads, t, d] -> queries and keys turned by their positions, and values."""
    heads = qkv.shape[1] - 2 * kv_heads
    qk, v = qkv.split((heads + kv_heads, kv_heads), dim=1)
    q, k = rotate(qk, rope).split((heads, kv_heads), dim=1)
    return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [n, heads, t, d] over k, v [n, kv_heads, length, d] -> [n, heads, t, d].

    `mask` [n or 1, 1, t, length] is true where an input may look.
    """
    n, heads, t, d = q.shape
    dtype, q = q.dtype, q.to(k.dtype)
    if t > 1:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    else:  # the heads of a group stand in for positions: keys are read once, not once a head
        grouped = q.reshape(n, k.shape[1], heads // k.shape[1], d)
        y = F.scaled_dot_product_attention(grouped, k, v, attn_mask=mask)
        y = y.reshape(n, heads, 1, d)
    return y.to(dtype)
