"""A model whose text is on the host says what it would say whole."""

from itertools import product

import pytest
import torch

from quaver.core.protocols import Prompt
from quaver.core.types import SamplingParams
from quaver.engine.engine import Engine, Job
from quaver.engine.keeping import DenseKeeping
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.loading.hosting import keep_text_on_host
from quaver.precision import find_recipe
from quaver.quant.apply import quantise
from quaver.train.lm import initialise
from tiny import MODEL

TOKENS = {"begin_of_text": 20, "end_of_text": 21, "custom_token_base": 128, "codebook_size": 64}
CONFIG = MODEL | {"vocab_size": 128 + 10 + 7 * 64 + 22, "orpheus": TOKENS}  # rows after the codes


def speak(model: Orpheus, prompt: tuple[int, ...], device: torch.device) -> list[list[int]]:
    engine = Engine(
        model,
        slots=2,
        max_length=400,
        keeping=DenseKeeping(torch.float32),
        hidden_dtype=torch.bfloat16,
        device=device,
    )
    sampling = SamplingParams(temperature=1.0, top_p=1.0, repetition_penalty=1.0)
    stream = engine.submit(Job(Prompt(prompt), sampling, seed=3, max_frames=12))
    return [frame.tolist() for frame in stream]


@pytest.mark.parametrize(
    ("tied", "recipe"),
    [
        *product([True, False], ["bf16", "int8", "int8,head=int8,embed=int8"]),
        (False, "int8,embed=int8"),  # a table that is also the head has one format
    ],
)
def test_it_says_the_same(tied, recipe, device):
    chosen = find_recipe(recipe)
    model = Orpheus(OrpheusConfig.from_dict(CONFIG | {"tie_word_embeddings": tied}), chosen)
    torch.manual_seed(0)
    initialise(model)
    quantise(model, chosen, device.type)
    model.to(device).eval()
    prompt = (3, 20, 127, 128, 138, 500, 131)  # text, control tokens, codes
    wanted = speak(model, prompt, device)
    tokens = torch.tensor([[*prompt, *range(138, 138 + 14)]], device=device)
    forced = model.forced(tokens, 14)
    before = sum(weight.nbytes for weight in model.parameters())
    keep_text_on_host(model)
    after = sum(weight.nbytes for weight in model.parameters())
    assert wanted
    assert wanted and speak(model, prompt, device) == wanted
    for whole, hosted in zip(forced, model.forced(tokens, 14), strict=True):
        assert torch.equal(whole, hosted)
    width, bits = MODEL["hidden_size"], 8 if "embed=int8" in recipe else 16
    assert before - after >= 128 * width * bits // 8 * (1 if tied else 2) - 128 * width
    if tied:
        assert model.embed.weight is model.head.weight
