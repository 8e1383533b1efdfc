"""Steps without Python are the same steps: bit for bit, for whoever joins and leaves."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from quaver.core.protocols import Prompt
from quaver.core.types import SamplingParams
from quaver.engine.engine import Engine, Job
from quaver.engine.keeping import keeping
from quaver.loading import load, open_model
from quaver.loading.orpheus import load_orpheus
from quaver.nn.traced import PAYS_AFTER, Traced
from quaver.precision import Format, find_recipe

NEVER = 10**9


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_orpheus(tiny_checkpoint, "", find_recipe("fp32"), torch.device("cpu"))


def make_engine(model, kv: Format, slots: int) -> Engine:
    return Engine(
        model,
        slots=slots,
        max_length=1100,
        keeping=keeping(kv, model.cache_spec.layers, None),
        hidden_dtype=torch.float32,
        device=torch.device("cpu"),
        graphs=True,
    )


def make_job(seed: int) -> Job:
    """Of any length, with a penalty that forgets or not, some beyond the first limit."""
    sampling = SamplingParams(temperature=0.9, repetition_window=seed % 2 * 20)
    prompt = Prompt(tuple(1 + (seed + i) % 40 for i in range(3 + 168 * (seed % 4))))
    return Job(prompt, sampling, seed, 4 + 5 * (seed % 3))


def spoken(engine: Engine) -> list[Tensor]:
    """Frames of streams that join and leave, one in the middle, and all that the engine keeps."""
    streams = [engine.submit(make_job(seed)) for seed in range(7)]
    for _ in range(3):
        engine.step()
    streams[1].cancel()
    frames = [frame for stream in streams for frame in stream]
    return [*frames, engine._steps._hidden, *engine._cache.store, engine._cache.lengths]


@pytest.mark.parametrize("kv", [Format.FP32, Format.INT8, Format.FP8])
def test_every_bit_is_that_of_the_step_itself(model, kv, monkeypatch):
    found = []
    for after in (NEVER, 0, 2):
        monkeypatch.setattr("quaver.nn.traced.PAYS_AFTER", after)
        with torch.inference_mode():
            engine = make_engine(model, kv, slots=3)
            found.append(spoken(engine))
        traceable = kv is not Format.FP8
        traces = engine._steps._traced._traces if traceable else {}
        assert bool(traces) == (traceable and after != NEVER)
        if traces and after == 0:
            assert {limit for _, limit in traces} == {512, 1024}
    for each in found[1:]:
        assert all(map(torch.equal, found[0], each)) and len(found[0]) == len(each)


def test_all_steps_are_traced_beforehand(model):
    engine = make_engine(model, Format.FP32, slots=2)
    engine.record()
    traces = engine._steps._traced._traces
    assert {*traces} == {(n, limit) for n in (1, 2) for limit in (512, 1024, 1100)}
    streams = [engine.submit(Job(Prompt((1, 2)), SamplingParams(), n, 5)) for n in range(3)]
    assert all(len([*stream]) == 5 for stream in streams)
    assert len(traces) == 6 and not engine._steps._traced._runs.keys() - traces.keys()


def test_layers_are_traced_once_that_pays():
    ran = []
    weight = torch.arange(3.0)

    def run(x: Tensor) -> Tensor:
        def layers() -> Tensor:
            ran.append(1)
            return x * weight + 1

        return traced.run(len(x), layers, [x])

    traced = Traced([weight])
    for number in range(PAYS_AFTER + 5):
        assert run(torch.full((3,), float(number))).tolist() == [1.0, number + 1, 2 * number + 1]
    assert len(ran) == PAYS_AFTER + 2  # the last time twice
    weight += 1
    assert run(torch.ones(3)).tolist() == [2, 3, 4]
    with traced.at_once():
        run(torch.ones(1))
    assert {*traced._traces} == {1, 3}


def test_traces_are_bounded(monkeypatch):
    monkeypatch.setattr("quaver.nn.traced.MOST_TRACES", 2)
    traced = Traced([])
    with traced.at_once():
        for size in (1, 2, 3, 1, 3):
            x = torch.ones(size)
            assert traced.run(size, lambda x=x: x + 1, [x]).tolist() == [2.0] * size
    assert {*traced._traces} == {1, 2}


def test_what_is_traced_goes_with_its_engine(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr("quaver.nn.traced.PAYS_AFTER", 1)
    voice = load(tiny_checkpoint, "fp32", "cpu", slots=1)
    voice.generate("Hello.", seed=1, max_seconds=0.5)
    engine = voice._voices._engine
    assert engine._steps._traced._traces
    kept = [weakref.ref(x) for x in (*engine._cache.store, *engine._model.parameters())]
    del voice, engine
    gc.collect()
    assert not [each for each in kept if each() is not None]


def test_who_wants_none_gets_none(tiny_checkpoint):
    opened = open_model(tiny_checkpoint, "fp32", "cpu", slots=1)
    assert opened.engine(1, 200)._steps._traced is not None
    assert replace(opened, graphs=False).engine(1, 200)._steps._traced is None
