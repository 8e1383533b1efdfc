"""Rotary position embedding (Su et al., 2021), half-split pairs as in Hugging Face's Llama.

The Llama 3 scaling stretches slow frequencies by `factor`, leaves fast ones, and blends between
(Llama 3.1 model card; the same arithmetic as transformers' `rope_type: llama3`). Leaving it out
gives speech that skips words, so it has a parity test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from quaver.core.errors import CheckpointError
from quaver.core.section import Section

DEFAULT_THETA = 10000.0  # of transformers' Llama, where a configuration has none
MAX_THETA = 1e12
MAX_FACTOR = 1e4


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Parameters of the frequency-dependent stretch."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def apply(self, frequencies: Tensor) -> Tensor:
        """Angular frequencies [d/2] in radians a token -> the same, scaled."""
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        blend = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        blend = blend.clamp(0.0, 1.0)
        return frequencies * (blend + (1.0 - blend) / self.factor)


@dataclass(frozen=True, slots=True)
class Rope:
    """What a configuration says of rotary positions; `notes` say what was guessed."""

    theta: float
    scaling: Llama3Scaling | None = None
    notes: tuple[str, ...] = ()


def read_rope(config: Section) -> Rope:
    """Read `rope_theta` and `rope_scaling` or `rope_parameters` of a Llama's `config.json`.

    transformers 5 moved theta and scaling into `rope_parameters`. A scaling that changes nothing
    (null, `default`, any other by a factor of 1) is none. Raises CheckpointError.
    """
    key = "rope_parameters" if config.has("rope_parameters") else "rope_scaling"
    rope = config.section(key)
    for owner in (config, rope):
        if owner.number("partial_rotary_factor", 0.0, 1.0, 1.0) != 1.0:
            given = owner.values["partial_rotary_factor"]
            raise owner.error("partial_rotary_factor", given, "1: all of a head is turned")
    if nested := [name for name, value in rope.values.items() if isinstance(value, dict)]:
        raise config.error(key, rope.values, f"one set of numbers for all layers, no {nested[0]!r}")
    theta = rope.number("rope_theta", 1.0, MAX_THETA, None)
    if theta is None:
        theta = config.number("rope_theta", 1.0, MAX_THETA, None)
    notes: tuple[str, ...] = ()
    if theta is None:
        theta = DEFAULT_THETA
        notes = (
            f"{config.file} has no rope_theta; {theta:g} is taken, as transformers does. If the "
            "speech is garbled, copy rope_theta from the model that this one was trained from",
        )
    return Rope(theta, _scaling(rope), notes)


def _scaling(rope: Section) -> Llama3Scaling | None:
    kind = rope.text("rope_type", 40, None) or rope.text("type", 40, "default")
    if kind == "default":
        return None
    if kind == "llama3":
        return _llama3(rope)
    plain = not rope.has("attention_factor") and not rope.has("mscale")
    if kind in ("linear", "dynamic", "yarn") and plain:
        if rope.number("factor", 1.0, MAX_FACTOR) == 1.0:
            return None
        kind = f"{kind}' with factor '{rope.values['factor']:g}"
    raise CheckpointError(
        f"{rope.file}, section {rope.path}: rope_type is '{kind}'; allowed are 'default' and "
        "'llama3', and others with a factor of 1"
    )


def _llama3(rope: Section) -> Llama3Scaling:
    scaling = Llama3Scaling(
        factor=rope.number("factor", 1.0, MAX_FACTOR),
        low_freq_factor=rope.number("low_freq_factor", 0.0, MAX_FACTOR, above=True),
        high_freq_factor=rope.number("high_freq_factor", 0.0, MAX_FACTOR, above=True),
        original_max_position_embeddings=rope.whole("original_max_position_embeddings", 1, 2**27),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        allowed = f"numbers above low_freq_factor, {scaling.low_freq_factor:g}"
        raise rope.error("high_freq_factor", scaling.high_freq_factor, allowed)
    return scaling


class RotaryEmbedding(nn.Module):
    """Cosines and sines by position, made once for `max_positions` in fp32."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self, head_dim: int, theta: float, scaling: Llama3Scaling | None, max_positions: int
    ) -> None:
        super().__init__()
        exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
        frequencies = 1.0 / theta**exponent
        if scaling is not None:
            frequencies = scaling.apply(frequencies)
        positions = torch.arange(max_positions, dtype=torch.float32, device="cpu")
        angles = torch.outer(positions, frequencies)
        # for both halves of a head; the first half's sine is negated, see `rotate`
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos", torch.cat((cos, cos), dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=-1), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [n, t] -> cos and sin, each [n, 1, t, head_dim]."""
        return self.cos[positions][:, None], self.sin[positions][:, None]


def rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Turn x [n, heads, t, head_dim] by its positions, in fp32; returns the dtype of x."""
    cos, sin = rope
    wide = x.float()
    other = wide.roll(x.shape[-1] // 2, dims=-1)  # each number's partner in the other half
    return torch.addcmul(wide * cos, other, sin).to(x.dtype)
