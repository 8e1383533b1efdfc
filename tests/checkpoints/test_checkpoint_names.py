"""Folding and splitting are exact, and impossible declarations are refused."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from quaver.checkpoints.names import Source, expand, weight_norm_source


def test_expand_repeats_layer_rules_only():
    rules = (
        Source("embed", ("model.embed_tokens.weight",)),
        Source("layers.{layer}.qk", ("l.{layer}.q", "l.{layer}.k"), "concat", (4, 2)),
    )
    assert expand(rules, 2) == (
        rules[0],
        Source("layers.0.qk", ("l.0.q", "l.0.k"), "concat", (4, 2)),
        Source("layers.1.qk", ("l.1.q", "l.1.k"), "concat", (4, 2)),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        (("a", "b"),),
        ((),),
        (("a",), "copy", (3,)),
        (("a", "b"), "concat"),
        (("a", "b"), "concat", (3,)),
        ((), "concat"),
        (("g",), "weight_norm"),
    ],
)
def test_impossible_sources_are_refused(arguments):
    with pytest.raises(ValueError, match="does not fit"):
        Source("w", *arguments)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.float8_e4m3fn])
def test_split_inverts_join(dtype):
    source = Source("qkv", ("q", "k", "v"), "concat", (4, 2, 2))
    parts = [torch.randint(-9, 9, (n, 3)).to(dtype) for n in source.sizes]
    joined = source.join(parts)
    assert source.shapes(joined.shape) == tuple(tuple(p.shape) for p in parts)
    for (name, part), expected in zip(source.split(joined), parts, strict=True):
        assert name in source.names
        assert torch.equal(part.float(), expected.float())


def test_sizes_must_add_up():
    with pytest.raises(ValueError, match="has 7 rows"):
        Source("qkv", ("q", "k"), "concat", (4, 2)).shapes((7, 3))


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Conv1d(6, 4, 3),
        lambda: nn.Conv1d(4, 4, 7, groups=4),
        lambda: nn.ConvTranspose1d(6, 4, 8),
        lambda: nn.Linear(5, 7),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_weight_norm_is_torchs_own(build, old):
    norm = nn.utils.weight_norm if old else parametrizations.weight_norm
    model = nn.ModuleDict({"m": norm(build())})
    state = model.state_dict()
    source = weight_norm_source("m.weight", frozenset(state))
    g, v = (state[name] for name in source.names)
    g.mul_(torch.rand_like(g) + 0.5)
    assert source.fold == "weight_norm"
    assert source.shapes(v.shape) == (tuple(g.shape), tuple(v.shape))
    expected = torch._weight_norm(v, g, 0) if old else model["m"].weight
    torch.testing.assert_close(source.join((g, v)), expected, rtol=1e-6, atol=1e-7)


def test_weight_norm_in_half_precision_is_computed_in_float32():
    v = torch.full((1, 1000), 300.0, dtype=torch.float16)
    g = torch.ones(1, 1, dtype=torch.float16)
    folded = Source("w", ("g", "v"), "weight_norm").join([g, v])
    assert folded.dtype == torch.float32
    torch.testing.assert_close(folded.norm(), torch.tensor(1.0))


def test_weight_norm_source_prefers_the_folded_weight_and_asks_for_it_if_none_is_there():
    both = frozenset({"x.weight", "x.weight_g", "x.weight_v"})
    assert weight_norm_source("x.weight", both) == Source("x.weight", ("x.weight",))
    assert weight_norm_source("x.weight", frozenset()) == Source("x.weight", ("x.weight",))
    half = frozenset({"x.weight_g"})
    assert weight_norm_source("x.weight", half).names == ("x.weight",)
    with pytest.raises(ValueError, match="own name"):
        Source("w", ("g", "v"), "weight_norm").split(torch.zeros(2, 2))
