"""The sampler's kernel against its twin. Without a GPU it runs where TRITON_INTERPRET=1 is set."""

import pytest
import torch

from needs import INTERPRETED, NO_GPU, NO_TRITON
from quaver.core.protocols import Prompt
from quaver.core.types import SamplingParams
from quaver.engine.sampling import Sampler

if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip(NO_GPU, allow_module_level=True)
pytest.importorskip("quaver.engine.kernels.sampling", reason=NO_TRITON)
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
PLAIN = {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}
PARAMETERS = [
    SamplingParams(),
    SamplingParams(**PLAIN),
    SamplingParams(**PLAIN | {"temperature": 0.0}),
    SamplingParams(**PLAIN | {"top_k": 1}),
    SamplingParams(**PLAIN | {"top_k": 7}),
    SamplingParams(**PLAIN | {"top_k": 10**6}),
    SamplingParams(**PLAIN | {"top_p": 0.3}),
    SamplingParams(**PLAIN | {"min_p": 0.2}),
    SamplingParams(temperature=0.6, top_k=40, top_p=0.8, min_p=0.01, repetition_penalty=1.3),
    SamplingParams(temperature=0.9, repetition_penalty=2.0, repetition_window=5),
    SamplingParams(temperature=0.9, repetition_penalty=0.7, repetition_window=4096),
    SamplingParams(temperature=10.0, top_p=0.01),
]
SIZE = 100 if INTERPRETED else 4096
CHOICES = (SIZE + 1, SIZE, SIZE)


def samplers(parameters):
    prompt = Prompt((1, 2), tuple((i % 3, 7 * i % SIZE) for i in range(20)))
    made = [Sampler(len(parameters), CHOICES, DEVICE, kernel=kernel) for kernel in (False, True)]
    for sampler in made:
        for slot, each in enumerate(parameters):
            sampler.open(slot, each, 2**62 + slot, prompt)
    return made


def logits(step, rows, width):
    generator = torch.Generator().manual_seed(step)
    found = 4 * torch.randn(rows, width, generator=generator)
    found[:, 3] = found[:, 5]  # a tie
    return found.to(DEVICE)


@pytest.mark.parametrize("parameters", [PARAMETERS, PARAMETERS[:3]], ids=["windows", "none"])
def test_a_kernel_draws_what_its_twin_draws(parameters):
    twin, kernel = samplers(parameters)
    assert twin.has_windows == (len(parameters) > 3)
    for step in range(8 if INTERPRETED else 300):
        position = step % len(CHOICES)
        found = logits(step, len(parameters), CHOICES[position])
        assert torch.equal(kernel(position, found), twin(position, found)), step
    for name in ("made", "seen", "written", "ring"):
        assert torch.equal(getattr(kernel.state, name), getattr(twin.state, name)), name


def test_draws_have_the_softmaxs_shares():
    """Not only like the twin: like the distribution."""
    probability = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    count = 300 if INTERPRETED else 4000
    sampler = Sampler(count, (5,), DEVICE, kernel=True)
    for slot in range(count):
        sampler.open(slot, SamplingParams(**PLAIN), slot, Prompt((1,)))
    drawn = sampler(0, probability.log().expand(count, 5).contiguous().to(DEVICE))
    shares = torch.bincount(drawn.cpu(), minlength=5) / count
    assert (shares - probability).abs().max() < 3 * (0.25 / count) ** 0.5
    assert (sampler.state.seen.sum(1) == 1).all()


def test_streams_beside_do_not_matter():
    _, many = samplers(PARAMETERS)
    _, one = samplers(PARAMETERS[:1])
    found = logits(0, len(PARAMETERS), CHOICES[0])
    assert many(0, found)[0] == one(0, found[:1])[0]
    assert (many.state.made == 1).all()
