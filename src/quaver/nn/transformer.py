"""The pre-norm decoder stack of Llama, shared by every family that has one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from quaver.nn.attention import Attention
from quaver.nn.mlp import GatedMLP
from quaver.nn.norm import RMSNorm
from quaver.nn.rope import Llama3Scaling, RotaryEmbedding
from quaver.precision import Recipe, Role

if TYPE_CHECKING:
    from quaver.core.protocols import KVStore


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Shapes of a stack. Names as in Hugging Face's `config.json`."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    max_position_embeddings: int


class Layer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: TransformerConfig, role: Role, recipe: Recipe) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.attention_norm = RMSNorm(width, eps)
        self.attention = Attention(width, heads, kv_heads, config.head_dim, role, recipe)
        self.mlp_norm = RMSNorm(width, eps)
        self.mlp = GatedMLP(width, config.intermediate_size, role, recipe)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], layer: int, store: KVStore | None
    ) -> Tensor:
        x = self.attention(x, self.attention_norm, rope, layer, store)
        return self.mlp(x, self.mlp_norm)


class Transformer(nn.Module):
    """Layers over embedded inputs; knows neither tokens nor heads. A last norm is before a head."""

    def __init__(self, config: TransformerConfig, role: Role, recipe: Recipe) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(
            Layer(config, role, recipe) for _ in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rope = RotaryEmbedding(
            config.head_dim, config.rope_theta, config.rope_scaling, config.max_position_embeddings
        )

    def forward(self, x: Tensor, store: KVStore | None = None) -> Tensor:
        """x [n, t, width] -> hidden states [n, t, width] before the last norm."""
        if store is None:
            rope = self.rope(torch.arange(x.shape[1], device=x.device)[None])
        else:
            rope = store.turning(self.rope)
        for index, layer in enumerate(self.layers):
            x = layer(x, rope, index, store)
        return x
