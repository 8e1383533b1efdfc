"""The guard of a benchmark: whether an engine's choices are those of plain PyTorch."""

import pytest
import torch

from quaver.comparing.greedy import MOST_NATS, greedy, standing
from quaver.engine.sampling import Sampler
from quaver.loading import open_model

TEXT = "The old man walked slowly along the river."


@pytest.fixture(scope="module")
def opened():
    return open_model("nano", "fp32", "cpu", slots=1)


def test_choices_stand_by_how_much_less_probable_they_are():
    logits = [torch.tensor([[1.0, 4.0, 3.5], [0.0, 2.0, 1.0]]), torch.tensor([[5.0, 0.0, 0.0]] * 2)]
    found = standing(logits, torch.tensor([[2, 0], [1, 0]]))
    assert (found.choices, found.same, found.worst_nats) == (4, 0.75, 0.5)
    assert found.right
    assert not standing(logits, torch.tensor([[1, 1], [1, 0]])).right


def test_an_engine_chooses_as_plain_pytorch_does(opened):
    found = greedy(opened, TEXT, frames=4)
    assert found is not None and found.choices == 4 * 7
    assert found.same > 0.9 and found.worst_nats < 0.01


def test_an_engine_that_errs_is_seen(opened, monkeypatch):
    choose = Sampler.__call__

    def erring(self, position, logits):
        choice = choose(self, position, logits)
        return (choice + 1) % logits.shape[1] if position == 3 else choice

    monkeypatch.setattr(Sampler, "__call__", erring)
    found = greedy(opened, TEXT, frames=4)
    assert found is not None and found.worst_nats > MOST_NATS and not found.right
    assert found.same <= 6 / 7


def test_a_model_with_nothing_to_say_is_no_error(opened, monkeypatch):
    monkeypatch.setattr(
        Sampler, "__call__", lambda _, __, logits: logits[:, 0].long() * 0 + logits.shape[1] - 1
    )
    assert greedy(opened, TEXT, frames=4) is None
