"""Agreement of two models' choices, against torch's own divergence."""

import pytest
import torch
from torch.nn import functional as F

from quaver.loading.orpheus import load_orpheus
from quaver.precision import find_recipe
from quaver.quality.metrics.agreement import Agreement, agreement


def test_the_divergence_is_torchs():
    torch.manual_seed(0)
    wanted, found = torch.randn(50, 20).double(), torch.randn(50, 20).double()
    measured = agreement(wanted, found)
    kl = F.kl_div(found.log_softmax(-1), wanted.log_softmax(-1), log_target=True, reduction="sum")
    assert measured.kl_nats == pytest.approx(float(kl) / 50, rel=1e-5)
    same = (wanted.argmax(-1) == found.argmax(-1)).double().mean()
    assert measured.top1 == pytest.approx(float(same))
    assert 0 < measured.top1 < 0.3


def test_the_same_agrees_entirely_and_sums_add_up():
    logits = torch.randn(7, 5)
    assert agreement(logits, logits) == Agreement(7, 0.0, 7)
    assert agreement(logits, logits + 3).kl_nats == pytest.approx(0, abs=1e-12)
    parts = agreement(logits[:3], logits.flip(-1)[:3]) + agreement(logits[3:], logits.flip(-1)[3:])
    whole = agreement(logits, logits.flip(-1))
    assert parts.count == whole.count and parts.same == whole.same
    assert parts.kl_nats == pytest.approx(whole.kl_nats)


def test_what_is_ruled_out_counts_nothing():
    wanted = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert agreement(wanted, torch.tensor([[0.0, 0.0, -torch.inf]])).kl_nats == pytest.approx(0)
    assert agreement(wanted, torch.zeros(1, 3)).kl_nats == pytest.approx(
        float(torch.tensor(1.5).log())
    )
    with pytest.raises(ValueError, match="differ"):
        agreement(wanted, torch.zeros(2, 3))


def test_forced_logits_are_those_of_the_steps(tiny_checkpoint):
    """What a model would say after what was said, position by position, as one pass has it."""
    model = load_orpheus(tiny_checkpoint, "tiny", find_recipe("fp32"), torch.device("cpu"))
    layout, frames = model.layout, torch.randint(0, 64, (5, 7))
    prompt = torch.arange(3, 12)
    tokens = torch.cat([prompt, layout.to_tokens(frames).flatten()])[None]
    with torch.inference_mode():
        forced, whole = model.forced(tokens, 35), model(tokens)[0]
    for position, logits in enumerate(forced):
        first = layout.first(position)
        at = torch.arange(len(prompt) - 1 + position, tokens.shape[1] - 1, 7)
        wanted = whole[at, first : first + layout.codebook_size]
        torch.testing.assert_close(logits[:, : layout.codebook_size], wanted)
        assert logits.shape == (5, model.choices[position])
