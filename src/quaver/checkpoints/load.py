"""Strict loading: a file fits its model entirely, or the error names every misfit at once.

A model that lacks one tensor, or has one too many, still speaks, only worse; so nothing is guessed
and nothing skipped that the caller did not name. Names, shapes and types are compared before any
data is read. Then tensors are read one by one: a model on the meta device costs its own memory
plus about one weight.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from quaver.checkpoints.names import Source
from quaver.checkpoints.reader import TensorReader
from quaver.core.errors import CheckpointError

CONVERTIBLE = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_SHOWN = 8  # names a message lists of each kind
_LONGEST = 200  # characters of each


def load_strict(
    module: nn.Module,
    reader: TensorReader,
    sources: Iterable[Source],
    *,
    ignore: Iterable[str] = (),
    device: torch.device | str = "cpu",
) -> None:
    """Give `module` all its parameters and persistent buffers, on `device`, in their own dtypes.

    Float tensors of `CONVERTIBLE` are cast to the dtype of the weight; any other must have it.
    `ignore` has fnmatch patterns of tensors in the file that may stay unread. Parameters come out
    with requires_grad False; weights tied in `module` stay tied, one source for all their names.
    Buffers that are not persistent are the module's own affair, on the meta device too. On an
    error the module is unchanged.

    Raises CheckpointError for tensors missing, unexpected, of wrong shape or dtype, or not finite;
    ValueError if `sources` do not make each weight of `module` exactly once.
    """
    weights = module.state_dict(keep_vars=True)
    plan = tuple(sources)
    aliases = _aliases(weights, plan)
    misfits = _compare(weights, reader, plan, tuple(ignore))
    misfits.raise_if_any(module, reader)
    state: dict[str, Tensor] = {}
    for source in plan:
        weight = weights[source.target]
        value = _read(reader, source, weight.dtype, torch.device(device))
        if not is_finite(value):
            misfits.not_finite.extend(source.names)
        if isinstance(weight, nn.Parameter):  # one object under all its names, so that ties hold
            value = nn.Parameter(value, requires_grad=False)
        state.update(dict.fromkeys(aliases[source.target], value))
    misfits.raise_if_any(module, reader)
    module.load_state_dict(state, strict=True, assign=True)
    module.requires_grad_(False)


@dataclass
class _Misfits:
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_shape: list[str] = field(default_factory=list)
    wrong_dtype: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)

    def raise_if_any(self, module: nn.Module, reader: TensorReader) -> None:
        kinds = (
            ("missing", self.missing),
            ("unexpected", self.unexpected),
            ("of wrong shape", self.wrong_shape),
            ("of wrong dtype", self.wrong_dtype),
            ("with infinities or NaN", self.not_finite),
        )
        found = "; ".join(f"{len(of)} {kind}: {_shorten(of)}" for kind, of in kinds if of)
        if found:
            raise CheckpointError(
                f"{reader.path} does not fit {type(module).__name__}; tensors {found}. "
                "Take the config.json and the weights of one model, or download them again"
            )


def _aliases(weights: Mapping[str, Tensor], plan: Sequence[Source]) -> dict[str, list[str]]:
    """All names of the weight behind each target. ValueError unless each weight has one source."""
    groups: dict[int, list[str]] = defaultdict(list)
    for name, weight in weights.items():
        groups[id(weight)].append(name)
    targets = Counter(source.target for source in plan)
    wrong = sorted(targets.keys() - weights.keys())
    wrong += [names[0] for names in groups.values() if sum(targets[n] for n in names) != 1]
    if wrong:
        raise ValueError(f"not made by exactly one source, or no weight: {_shorten(wrong)}")
    return {name: groups[id(weights[name])] for name in targets}


def _compare(
    weights: Mapping[str, Tensor],
    reader: TensorReader,
    plan: Sequence[Source],
    ignore: Sequence[str],
) -> _Misfits:
    misfits = _Misfits()
    available = reader.names()
    used: set[str] = set()
    for source in plan:
        weight = weights[source.target]
        for name, shape in zip(source.names, source.shapes(weight.shape), strict=True):
            used.add(name)
            if name not in available:
                misfits.missing.append(name)
                continue
            if (given := reader.shape(name)) != shape:
                misfits.wrong_shape.append(f"{name} is {list(given)}, expected {list(shape)}")
            if not _accepts(weight.dtype, (dtype := reader.dtype(name))):
                misfits.wrong_dtype.append(f"{name} is {_show(dtype)}, expected {_wanted(weight)}")
    misfits.unexpected = sorted(
        name for name in available - used if not any(fnmatchcase(name, p) for p in ignore)
    )
    return misfits


def _read(reader: TensorReader, source: Source, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The weight of `source`, never sharing memory with the file: that may be replaced."""
    parts = [reader.read(name) for name in source.names]
    if source.fold == "concat":
        return source.join([part.to(device, dtype) for part in parts])
    return source.join(parts).to(device, dtype, copy=True).contiguous()


def _accepts(wanted: torch.dtype, given: torch.dtype) -> bool:
    return given == wanted or (given in CONVERTIBLE and wanted in CONVERTIBLE)


def is_finite(value: Tensor) -> bool:
    """Whether a tensor has neither infinities nor NaN; one pass that allocates nothing."""
    if not value.is_floating_point() or not value.numel():
        return True
    if value.itemsize == 1:
        value = value.float()  # float8 has no minimum
    # both extremes of anything with a NaN are NaN
    return bool(torch.stack(value.aminmax()).isfinite().all())


def _wanted(weight: Tensor) -> str:
    kinds = CONVERTIBLE if weight.dtype in CONVERTIBLE else (weight.dtype,)
    return " or ".join(_show(kind) for kind in kinds)


def _show(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shorten(items: Sequence[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(item[:_LONGEST] for item in items[:_SHOWN]) + (
        f" and {rest} more" if rest > 0 else ""
    )
