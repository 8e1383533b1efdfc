"""Rows of the table for what was chosen. The kernel runs where TRITON_INTERPRET=1 is set too."""

import pytest
import torch
from torch import nn

from needs import INTERPRETED, NO_GPU, NO_TRITON
from quaver.loading import open_model


@pytest.mark.parametrize("recipe", ["fp32", "int8,head=int8,embed=int8"])
@pytest.mark.parametrize("position", [0, 3])
def test_what_was_said_is_read_from_the_table(tiny_checkpoint, recipe, position):
    """A quantised table has no kernel, wherever the head has one."""
    model = open_model(tiny_checkpoint, recipe, "cpu").model
    model.head.fused = type(model.embed) is not nn.Embedding
    size, first = model.layout.codebook_size, model.layout.first(position) - model.first_row
    choice = torch.tensor([0, size - 1, 3] + [size] * (position == 0))
    tokens = first + choice
    tokens[3:] = model.config.speech.tokens.end_of_speech - model.first_row
    assert torch.equal(model._said(choice, position), model.embed(tokens)[:, None])


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "width"), [(torch.bfloat16, 3072), (torch.float32, 33)])
def test_the_kernel_reads_the_same_rows(dtype, width):
    if not INTERPRETED and not torch.cuda.is_available():
        pytest.skip(NO_GPU)
    kernel = pytest.importorskip("quaver.nn.kernels.lookup", reason=NO_TRITON)
    table = torch.randn(100, width, device="cpu" if INTERPRETED else "cuda").to(dtype)
    choice = torch.tensor([0, 39, 40, 7, 40], device=table.device)
    found = kernel.lookup(table, choice, 20, 39, 5)
    assert torch.equal(found, table[[20, 59, 5, 27, 5]])
