"""A running mean of weights. At a rate that still moves them about, the mean is where they settle:
on the bundled voice it is 0.17 nats a code below the weights that it is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

EVERY = 10  # steps between two looks at the weights


class Average:
    """Over about the last `steps` steps, older ones ever less; with 0, the weights themselves."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self._steps, self._looks = steps, 0
        self._weights = list(model.parameters()) if steps else []
        self._means = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step`; until there are enough, all count alike."""
        if self._weights and step % EVERY == 0:
            self._looks += 1
            share = max(1 / self._looks, min(1.0, EVERY / self._steps))
            torch._foreach_lerp_(self._means, [w.detach() for w in self._weights], share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the means as its weights."""
        with torch.no_grad():
            before = [weight.detach().clone() for weight in self._weights]
            self._put(self._means)
            try:
                yield
            finally:
                self._put(before)

    def state(self) -> dict[str, Any]:
        return {"looks": self._looks, "means": self._means}

    def restore(self, state: dict[str, Any]) -> None:
        self._looks = int(state["looks"])
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)

    def _put(self, values: list[Tensor]) -> None:
        for weight, value in zip(self._weights, values, strict=True):
            weight.copy_(value)
