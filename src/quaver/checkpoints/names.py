"""Tensor names as data: which tensors of a file make which weight of a model.

A model's own weights are laid out for speed (fused QKV, folded weight norm), a checkpoint's for
its first author. The difference is a tuple of `Source`s that a family declares; loading walks it
one way and writing the other, so that neither has any model's name in its code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

LAYER = "{layer}"


@dataclass(frozen=True, slots=True)
class Source:
    """How one weight is made from tensors of a file.

    `copy` takes one tensor. `concat` joins several along dimension 0, of `sizes` rows each.
    `weight_norm` takes (g, v) and gives g * v / ||v||, the norm over all dimensions but 0
    (Salimans and Kingma 2016, as in torch.nn.utils.parametrizations.weight_norm).
    Raises ValueError for a declaration that cannot be right.
    """

    target: str
    names: tuple[str, ...]
    fold: Literal["copy", "concat", "weight_norm"] = "copy"
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        fits = {
            "copy": len(self.names) == 1 and not self.sizes,
            "concat": len(self.names) == len(self.sizes) > 0,
            "weight_norm": len(self.names) == 2 and not self.sizes,
        }
        if not fits[self.fold]:
            raise ValueError(f"{self.fold} of {self.names} with sizes {self.sizes} does not fit")

    def shapes(self, target: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The shape each of `names` must have for a weight of shape `target`.

        Raises ValueError if `sizes` do not add up to the target's dimension 0.
        """
        shape = tuple(target)
        if self.fold == "copy":
            return (shape,)
        if self.fold == "weight_norm":
            return (shape[:1] + (1,) * (len(shape) - 1), shape)
        if sum(self.sizes) != shape[0]:
            raise ValueError(f"{self.target} has {shape[0]} rows, its parts {self.sizes}")
        return tuple((size, *shape[1:]) for size in self.sizes)

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """The weight, from tensors of `shapes` in the order of `names`."""
        if self.fold == "copy":
            return parts[0]
        if self.fold == "concat":
            return torch.cat(tuple(parts))
        return _fold_weight_norm(*parts)

    def split(self, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
        """The inverse of `join`: (name, view of `weight`) pairs.

        Raises ValueError for `weight_norm`, which has no single inverse: declare a `copy`.
        """
        if self.fold == "weight_norm":
            raise ValueError(f"{self.target}: a folded weight norm is written under its own name")
        parts = torch.split(weight, list(self.sizes)) if self.fold == "concat" else (weight,)
        return zip(self.names, parts, strict=True)


def expand(rules: Iterable[Source], layers: int) -> tuple[Source, ...]:
    """Repeat each rule that has `{layer}` in its target for layer 0 to `layers` - 1."""
    return tuple(
        replace(
            rule,
            target=rule.target.replace(LAYER, str(layer)),
            names=tuple(name.replace(LAYER, str(layer)) for name in rule.names),
        )
        for rule in rules
        for layer in range(layers if LAYER in rule.target else 1)
    )


def weight_norm_source(target: str, available: frozenset[str]) -> Source:
    """The source of `x.weight` in a file that may keep it folded or as either of torch's pairs.

    torch up to 1.13 names the pair weight_g and weight_v, torch 2's parametrization original0 and
    original1. With none there, the plain name is asked for, so that loading reports it missing.
    """
    owner, _, leaf = target.rpartition(".")
    dot = f"{owner}." if owner else ""
    pairs = (
        (f"{dot}parametrizations.{leaf}.original0", f"{dot}parametrizations.{leaf}.original1"),
        (f"{target}_g", f"{target}_v"),
    )
    for pair in pairs:
        if target not in available and available.issuperset(pair):
            return Source(target, pair, "weight_norm")
    return Source(target, (target,))


def _fold_weight_norm(g: Tensor, v: Tensor) -> Tensor:
    """Shapes [n, 1, ...] and [n, ...]; at least float32, since squares of halves overflow."""
    dtype = torch.promote_types(v.dtype, torch.float32)
    direction = v.to(dtype)
    norm = torch.linalg.vector_norm(direction, dim=tuple(range(1, v.dim())), keepdim=True)
    return direction * (g.to(dtype) / norm)
