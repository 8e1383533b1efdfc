"""What a model's layers see while it speaks: gathered once, in one pass, for whoever needs it.

Sequences are prompts with the codes that the model itself answered: prompts alone, which is what
calibration on text amounts to, never show a layer what it works on nearly all of its life.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from quaver.core.protocols import Layers, Turning
from quaver.nn.attention import attend, turned


@dataclass(slots=True)
class Inputs:
    """Of the inputs [n, in] of one layer: how many, the largest of each channel, and if wanted the
    sum of their outer products [in, in]."""

    count: int = 0
    largest: Tensor | None = None
    products: Tensor | None = None

    def add(self, x: Tensor, with_products: bool) -> None:
        """Take x [..., in]."""
        flat = x.detach().flatten(0, -2).float()
        largest = flat.abs().amax(dim=0)
        self.count += len(flat)
        self.largest = largest if self.largest is None else torch.maximum(self.largest, largest)
        if with_products:
            products = flat.T @ flat
            self.products = products if self.products is None else self.products + products


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was seen, by layer. `kv_largest` [layers, 2] are of keys and values."""

    inputs: dict[str, Inputs] = field(default_factory=dict)
    tokens: int = 0
    kv_largest: Tensor | None = None


class WatchedStore:
    """A `KVStore` for one whole sequence that keeps nothing but how large keys and values get."""

    def __init__(self, length: int, device: torch.device, largest: dict[int, Tensor]) -> None:
        self.positions = torch.arange(length, device=device)[None]
        self._mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
        self._largest = largest

    def through(self, layers: Layers, x: Tensor) -> Tensor:
        return layers(x, self)

    def turning(self, rope: Turning) -> tuple[Tensor, Tensor]:
        return rope(self.positions)

    def attend(self, layer: int, qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = turned(qkv, kv_heads, rope)
        seen = torch.stack((k.abs().amax(), v.abs().amax())).float()
        before = self._largest.get(layer)
        self._largest[layer] = seen if before is None else torch.maximum(seen, before)
        return attend(q, k, v, self._mask[None, None])

    def advance(self) -> None:
        pass


@torch.inference_mode()
def calibrate(
    model: nn.Module,
    layers: Collection[str],
    sequences: Sequence[Tensor],
    *,
    products_of: Collection[str] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Calibration:
    """Run `model` over token sequences [t] and watch the inputs of the layers called `layers`.

    `products_of` names those whose outer products are wanted, in * in * 4 bytes each.
    """
    inputs = {name: Inputs() for name in layers}
    largest: dict[int, Tensor] = {}
    with _watched(model, inputs, products_of):
        for number, sequence in enumerate(sequences):
            model(sequence[None], WatchedStore(len(sequence), sequence.device, largest))
            progress(number + 1)
    kv = torch.stack([largest[layer] for layer in sorted(largest)]) if largest else None
    return Calibration(inputs, sum(len(s) for s in sequences), kv)


@contextmanager
def _watched(
    model: nn.Module, inputs: dict[str, Inputs], products_of: Collection[str]
) -> Iterator[None]:
    def watch(name: str) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            norm = options.get("norm")
            x = arguments[0] if norm is None else norm(arguments[0])
            inputs[name].add(x, name in products_of)

        return model.get_submodule(name).register_forward_pre_hook(hook, with_kwargs=True)

    handles = [watch(name) for name in inputs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
