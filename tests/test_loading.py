"""What a program settles for its process once a model is loaded."""

import pytest
import torch

from quaver.loading.parts import kept_threads, use_fitting_threads


@pytest.mark.parametrize(
    ("parameters", "device", "threads"),
    [(10**6, "cpu", 1), (10**9, "cpu", 2), (10**6, "cuda:0", 1), (10**9, "cuda:0", 1)],
)
def test_threads_are_for_large_models_on_a_cpu(parameters, device, threads):
    with kept_threads():
        torch.set_num_threads(2)
        use_fitting_threads(parameters, device)
        assert torch.get_num_threads() == threads


def test_threads_are_put_back_whatever_happens():
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="spoilt"), kept_threads():
        torch.set_num_threads(before + 1)
        raise ValueError("spoilt")
    assert torch.get_num_threads() == before
