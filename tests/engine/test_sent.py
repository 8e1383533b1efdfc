"""What is on its way to the host may be overwritten where it came from."""

import torch

from quaver.nn.sent import fetched, sent


def test_what_was_fetched_is_what_there_was(device):
    x = torch.zeros(1 << 20, device=device)
    copies = []
    for _ in range(100):
        x += 1
        copies.append(fetched(x))
    for number, copy in enumerate(copies, 1):
        assert copy.wait().device.type == "cpu"
        assert copy.over
        assert (copy.host == number).all()


def test_what_was_sent_is_there(device):
    x = torch.arange(1000)
    there = sent(x, device)
    assert there.device.type == device.type
    assert torch.equal(there.cpu(), x)
