"""Models put together from the parts of two: one recipe here, another there.

Both must be of one shape and on one device. Nothing is loaded twice: a mixture shares the modules
of both. `comparing` asks with it which part does harm, a service goes back with it part by part.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from quaver.loading import Loaded
from quaver.precision import Role

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Part:
    """A role, or one of the backbone's layers."""

    role: Role
    layer: int | None = None

    @property
    def name(self) -> str:
        return self.role.value if self.layer is None else f"layer {self.layer}"


class Fallback:
    """A model that can go back to its reference part by part, while it serves.

    New speech is asked of `current.synthesizer`; what has begun ends where it began.
    """

    def __init__(self, reference: Loaded, candidate: Loaded) -> None:
        self._reference = reference
        self.current = candidate

    def revert(self, role: str) -> None:
        """From now on `role` is as in the reference. ValueError for an unknown one."""
        self.current = mixed(self.current, self._reference, Part(Role(role)))


def mixed(base: Loaded, donor: Loaded, part: Part) -> Loaded:
    """`base` with `part` from `donor`; neither changes."""
    if part.role is Role.KV:
        return replace(base, keeping=donor.keeping)
    if part.role is Role.CODEC:
        return replace(base, codec=donor.codec)
    if part.role is Role.EMBED:
        model = _twin(base.model)
        model.take_table(donor.model)
        return replace(base, model=model)
    path = part.role.value if part.layer is None else f"backbone.layers.{part.layer}"
    theirs = donor.model.get_submodule(path)
    if part.role is Role.BACKBONE:
        theirs = _Adapted(theirs, donor.recipe.format(Role.BACKBONE).dtype)
    return replace(base, model=_with(base.model, path, theirs))


class _Adapted(nn.Module):
    """A part of a model that computes in `dtype`, between parts that may not."""

    def __init__(self, part: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self._part, self._dtype = part, dtype

    def forward(self, x: Tensor, *more: object) -> Tensor:
        y: Tensor = self._part(x.to(self._dtype), *more)
        return y.to(x.dtype)

    @property
    def norm(self) -> nn.Module:
        """The last norm of a whole backbone, which is applied before the head."""
        return self._part.get_submodule("norm")


def _with(module: M, path: str, part: nn.Module) -> M:
    """`module` with another part at `path`; what is on the way there is copied, nothing else."""
    twin = _twin(module)
    name, _, rest = path.partition(".")
    twin._modules[name] = _with(module.get_submodule(name), rest, part) if rest else part
    return twin


def _twin(module: M) -> M:
    """The same modules and tensors, in another parent that can take others."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
