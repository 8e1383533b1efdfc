"""Keys and values of all streams, allocated once, indexed by slot.

Views of the store are what attention sees: one slot during prefill, the first n slots during a
step. Shapes are fixed by numbers the host knows (n and a limit on lengths), so nothing syncs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain

import torch
from torch import Tensor

from quaver.core.protocols import CacheSpec, Layers, Turning
from quaver.engine.keeping import KEYS, VALUES, Keeping, KeptLayer
from quaver.nn.attention import attend, turned
from quaver.nn.traced import Traced
from quaver.precision.devices import CUDA_BF16, CUDA_FP8

ROW_STEP = 128  # bytes' worth of positions: rows of values begin where loads are fast


class KVCache:
    """`slots` streams of up to `max_length` positions. Lengths live on the device."""

    def __init__(
        self,
        spec: CacheSpec,
        slots: int,
        max_length: int,
        keeping: Keeping,
        device: torch.device,
    ) -> None:
        self.keeping = keeping
        self.has_kernels = has_kernels(keeping.kind, spec.head_dim, device)
        lead = (spec.layers, slots, spec.kv_heads)
        keys = torch.zeros(*lead, max_length, spec.head_dim, dtype=keeping.storage, device=device)
        if self.has_kernels:
            # Tensor cores take eight-bit numbers only with what is summed over side by side: with
            # values, that is positions.
            length = -(-max_length // ROW_STEP) * ROW_STEP
            rows = torch.zeros(*lead, spec.head_dim, length, dtype=keeping.storage, device=device)
            values = rows[..., :max_length].transpose(-1, -2)
        else:
            values = torch.zeros_like(keys)
        # of keys and of values, each [layers, slots, kv_heads, max_length, d]
        self.store = (keys, values)
        self.steps = (
            torch.zeros(spec.layers, 2, *lead[1:], max_length, dtype=torch.bfloat16, device=device)
            if keeping.has_steps
            else None
        )
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)
        self.active = torch.zeros(slots, dtype=torch.int64, device=device)
        self.max_length = max_length

    @property
    def bytes(self) -> int:
        whole = sum(part.untyped_storage().nbytes() for part in self.store)
        return whole + (0 if self.steps is None else self.steps.nbytes)

    def layer(self, index: int) -> KeptLayer:
        keys, values = (part[index].view(self.keeping.kind) for part in self.store)
        key_steps, value_steps = (None, None) if self.steps is None else self.steps[index]
        key_scale, value_scale = self.keeping.scales(index)
        return KeptLayer(keys, values, key_steps, value_steps, key_scale, value_scale, self.lengths)

    def open(self, slot: int) -> None:
        if self.has_kernels and self.keeping.kind.is_floating_point:
            # They read up to 15 values more than there are, and nothing times what is not a number
            # is not nothing: whoever was here before may have left that.
            self.store[VALUES][:, slot].zero_()
        self.active[slot].fill_(1)  # `= 1` would copy from the host, and wait for the device

    def move(self, source: int, target: int, used: int) -> None:
        """Let a free slot go on with what another has, `used` positions at most; that is free
        then."""
        self.open(target)
        for part in self.store:
            part[:, target, :, :used] = part[:, source, :, :used]
        if self.steps is not None:
            self.steps[:, :, target, :, :used] = self.steps[:, :, source, :, :used]
        self.lengths[target] = self.lengths[source]
        self.close(source)

    def close(self, slot: int) -> None:
        """An inactive slot still takes part in steps; its length stays 0, so it writes over
        itself and nothing reads it."""
        self.lengths[slot].zero_()
        self.active[slot].zero_()


class View(ABC):
    """Some slots during one pass: a `KVStore`."""

    positions: Tensor  # [n, t]

    def turning(self, rope: Turning) -> tuple[Tensor, Tensor]:
        return rope(self.positions)

    def through(self, layers: Layers, x: Tensor) -> Tensor:
        return layers(x, self)

    def attend(self, layer: int, qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor]) -> Tensor:
        q, k, v = turned(qkv, kv_heads, rope)
        return attend(q, *self.update(layer, k, v))

    @abstractmethod
    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep k, v [n, kv_heads, t, d]; return all keys and values [n, kv_heads, length, d] and
        a boolean mask [n or 1, 1, t, length] of what each input may see."""

    @abstractmethod
    def advance(self) -> None:
        """Move on by the inputs of this pass."""


class KernelView(View):
    """One that kernels attend for, where there are any for the cache."""

    _cache: KVCache

    def turning(self, rope: Turning) -> tuple[Tensor, Tensor]:
        # kernels find an input's own row
        return (rope.cos, rope.sin) if self._cache.has_kernels else super().turning(rope)

    def attend(self, layer: int, qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor]) -> Tensor:
        if self._cache.has_kernels:
            return self.launch(layer, qkv, rope)
        return super().attend(layer, qkv, kv_heads, rope)

    @abstractmethod
    def launch(self, layer: int, qkv: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """What `attend` does, by kernels."""


class PrefillView(View):
    """One slot reading a stretch of prompt of `count` tokens, after `start` that it has read."""

    def __init__(self, cache: KVCache, slot: int, start: int, count: int) -> None:
        self._cache, self._slot, self._start, self._stop = cache, slot, start, start + count
        device = cache.lengths.device
        self.positions = torch.arange(start, self._stop, device=device)[None]
        self._mask = torch.arange(self._stop, device=device) <= self.positions[0, :, None]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys = self._exchange(layer, KEYS, k[0])
        return keys[None], self._exchange(layer, VALUES, v[0])[None], self._mask[None, None]

    def advance(self) -> None:
        self._cache.lengths[self._slot].fill_(self._stop)

    def _exchange(self, layer: int, part: int, x: Tensor) -> Tensor:
        """Write x [kv_heads, count, d]; return all that the slot has, [kv_heads, stop, d]."""
        cache = self._cache
        elements, steps = cache.keeping.encode(x, layer, part)
        kept = cache.store[part][layer, self._slot, :, : self._stop]
        kept[:, self._start :] = elements
        kept_steps = None
        if cache.steps is not None and steps is not None:
            kept_steps = cache.steps[layer, part, self._slot, :, : self._stop]
            kept_steps[:, self._start :] = steps
        return cache.keeping.decode(kept, kept_steps, layer, part)


class PackView(KernelView):
    """Whole prompts of several slots, one after another in one row of inputs.

    What each input belongs to is told by tensors [t], so that a GPU can record the pass.
    """

    def __init__(self, cache: KVCache, slots: Tensor, positions: Tensor) -> None:
        self._cache, self._slots, self.positions = cache, slots, positions[None]
        mine = slots[:, None] == slots[None]
        self._mask = mine & (positions[None] <= positions[:, None])
        self._heads = torch.arange(cache.store[KEYS].shape[2], device=slots.device)[None]

    def launch(self, layer: int, qkv: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        # only builds of torch for GPUs bring Triton
        from quaver.engine.kernels import prompts

        return prompts.read(qkv, rope, self._cache.layer(layer), self._slots, self.positions[0])

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys = self._exchange(layer, KEYS, k[0])
        return keys[None], self._exchange(layer, VALUES, v[0])[None], self._mask[None, None]

    def advance(self) -> None:
        """Nothing: prompts are whole, and who packed them knows their lengths."""

    def _exchange(self, layer: int, part: int, x: Tensor) -> Tensor:
        """Write x [kv_heads, t, d]; return what was kept of it."""
        cache = self._cache
        place = (self._slots[:, None], self._heads, self.positions[0][:, None])
        elements, steps = cache.keeping.encode(x, layer, part)
        cache.store[part][layer].index_put_(place, elements.transpose(0, 1))
        if cache.steps is not None and steps is not None:
            cache.steps[layer, part].index_put_(place, steps.transpose(0, 1))
        return cache.keeping.decode(elements, steps, layer, part)


class DecodeView(KernelView):
    """The first `count` slots, one position each, none at or beyond `limit`."""

    def __init__(
        self, cache: KVCache, count: int, limit: int, traced: Traced | None = None
    ) -> None:
        self._cache, self._limit, self._traced = cache, limit, traced
        self._keeping = cache.keeping
        parts = [part[:, :count, :, :limit].unbind(0) for part in cache.store]
        self._layers = [*zip(*parts, strict=True)]
        self._steps = None
        if cache.steps is not None:
            steps = cache.steps[:, :, :count, :, :limit]
            self._steps = [pair.unbind(0) for pair in steps.unbind(0)]
        self._lengths, self._active = cache.lengths[:count], cache.active[:count]
        device = cache.lengths.device
        self._rows = torch.arange(count, device=device)[:, None]
        self._heads = torch.arange(cache.store[KEYS].shape[2], device=device)[None]
        self._columns = torch.arange(limit, device=device)
        self._moved = 0  # positions since `lengths` were right
        self._look()

    def through(self, layers: Layers, x: Tensor) -> Tensor:
        if self._traced is None:
            return layers(x, self)
        kept = [*chain.from_iterable([*self._layers, *(self._steps or ())])]
        given = (x, self.positions, self._mask, *kept)
        return self._traced.run((len(x), self._limit), lambda: layers(x, self), given)

    def launch(self, layer: int, qkv: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        # only builds of torch for GPUs bring Triton
        from quaver.engine.kernels import attention

        return attention.attend(qkv, rope, self._cache.layer(layer), self._limit, self._moved)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys = self._exchange(layer, KEYS, k[:, :, 0])
        return keys, self._exchange(layer, VALUES, v[:, :, 0]), self._mask

    def advance(self) -> None:
        self._moved += 1
        if not self._cache.has_kernels:  # which are told
            self.settle()
            self._look()

    def settle(self) -> None:
        """Let the cache know how long its streams are."""
        self._lengths.add_(self._active, alpha=self._moved)
        self._moved = 0

    def _exchange(self, layer: int, part: int, x: Tensor) -> Tensor:
        """Write x [count, kv_heads, d]; return all that there is, [count, kv_heads, limit, d]."""
        place = (self._rows, self._heads, self.positions)
        elements, steps = self._keeping.encode(x, layer, part)
        kept = self._layers[layer][part]
        kept.index_put_(place, elements)
        kept_steps = None
        if self._steps is not None and steps is not None:
            kept_steps = self._steps[layer][part]
            kept_steps.index_put_(place, steps)
        return self._keeping.decode(kept, kept_steps, layer, part)

    def _look(self) -> None:
        self.positions = self._lengths[:, None]
        if self._cache.has_kernels:  # which look at lengths themselves
            return
        self.positions = self.positions.clone()
        self._mask = (self._columns <= self.positions)[:, None, None]


def has_kernels(kind: torch.dtype, head_dim: int, device: torch.device) -> bool:
    """Whether `kernels/` reads elements of this kind on `device`."""
    if device.type != "cuda" or kind.itemsize > torch.bfloat16.itemsize:
        return False
    least = 32 if kind.itemsize == 1 else 16  # of a product on tensor cores
    if head_dim < least or head_dim & (head_dim - 1):  # and Triton's ranges
        return False
    oldest = CUDA_FP8 if kind.itemsize == 1 and kind.is_floating_point else CUDA_BF16
    return torch.cuda.get_device_capability(device) >= oldest
