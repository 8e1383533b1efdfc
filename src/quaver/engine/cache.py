"""Keys and values of all streams, allocated once, indexed by slot.

Views of the store are what attention sees: one slot during prefill, the first n slots during a
step. Shapes are fixed by numbers the host knows (n and a limit on lengths), so nothing syncs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quaver.core.protocols import CacheSpec


class KVCache:
    """`slots` streams of up to `max_length` positions. Lengths live on the device."""

    def __init__(
        self,
        spec: CacheSpec,
        slots: int,
        max_length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        shape = (spec.layers, 2, slots, spec.kv_heads, max_length, spec.head_dim)
        self.store = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = torch.zeros(slots, dtype=torch.int64, device=device)
        self.active = torch.zeros(slots, dtype=torch.int64, device=device)
        self.max_length = max_length

    @property
    def bytes(self) -> int:
        return self.store.nbytes

    def open(self, slot: int) -> None:
        self.active[slot] = 1

    def close(self, slot: int) -> None:
        """An inactive slot still takes part in steps; its length stays 0, so it writes over
        itself and nothing reads it."""
        self.lengths[slot] = 0
        self.active[slot] = 0


class PrefillView:
    """One slot reading a stretch of prompt of `count` tokens, after `start` that it has read."""

    def __init__(self, cache: KVCache, slot: int, start: int, count: int) -> None:
        self._cache, self._slot, self._start, self._stop = cache, slot, start, start + count
        device = cache.store.device
        self.positions = torch.arange(start, self._stop, device=device)[None]
        self._mask = torch.arange(self._stop, device=device) <= self.positions[0, :, None]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        store = self._cache.store[layer, :, self._slot, :, : self._stop]
        store[0, :, self._start :] = k[0]
        store[1, :, self._start :] = v[0]
        return store[0][None], store[1][None], self._mask[None, None]

    def advance(self) -> None:
        self._cache.lengths[self._slot] = self._stop


class DecodeView:
    """The first `count` slots, one position each, none at or beyond `limit`."""

    def __init__(self, cache: KVCache, count: int, limit: int) -> None:
        store = cache.store[:, :, :count, :, :limit]
        self._layers = [tuple(pair.unbind(0)) for pair in store.unbind(0)]
        self._lengths, self._active = cache.lengths[:count], cache.active[:count]
        device = store.device
        self._rows = torch.arange(count, device=device)[:, None]
        self._heads = torch.arange(store.shape[3], device=device)[None]
        self._columns = torch.arange(limit, device=device)
        self._look()

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values = self._layers[layer]
        place = (self._rows, self._heads, self.positions)
        keys.index_put_(place, k[:, :, 0].to(keys.dtype))
        values.index_put_(place, v[:, :, 0].to(values.dtype))
        return keys, values, self._mask

    def advance(self) -> None:
        self._lengths += self._active
        self._look()

    def _look(self) -> None:
        self.positions = self._lengths[:, None].clone()
        self._mask = (self._columns <= self.positions)[:, None, None]
