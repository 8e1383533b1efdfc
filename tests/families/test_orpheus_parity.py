"""Orpheus says what transformers' Llama says: same logits, same greedy tokens, same tensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from late import Late
from quaver.bench.shapes import ORPHEUS_3B
from quaver.checkpoints.names import Source
from quaver.core.protocols import Prompt
from quaver.core.types import FinishReason, SamplingParams
from quaver.engine.cache import DecodeView, KVCache, PrefillView
from quaver.engine.engine import Engine, Job
from quaver.engine.keeping import DenseKeeping
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.weights import sources
from quaver.loading.orpheus import load_orpheus
from quaver.precision import Format, Recipe, Role, find_recipe

transformers = Late("transformers")
processors = Late("transformers.generation.logits_process")

TEXT_TOKENS, BOOK, CONTROL = 40, 32, 10
VOCABULARY = TEXT_TOKENS + CONTROL + 7 * BOOK + 1  # one spare row, as in the released model
STOP = TEXT_TOKENS + 2
SECTION = {
    "begin_of_text": 0,
    "end_of_text": 1,
    "custom_token_base": TEXT_TOKENS,
    "codebook_size": BOOK,
}
PLAIN = {"rope_type": "default", "rope_theta": 500.0}
# 64 positions instead of 8192, so that all three of the scaling's cases occur: frequencies that
# stay, that are stretched and that are blended
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FP32 = find_recipe("fp32")


@dataclass(frozen=True)
class Pair:
    """Their model and ours, loaded from the folder that theirs was saved to."""

    theirs: transformers.LlamaForCausalLM
    ours: Orpheus
    folder: Path

    @property
    def device(self) -> torch.device:
        return self.ours.embed.weight.device


def reference(rope: dict, tied: bool, seed: int = 0) -> transformers.LlamaForCausalLM:
    """A Llama whose logits are far apart, so that rounding cannot hide a mistake."""
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        rms_norm_eps=1e-5,
        rope_parameters=rope,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        attn_implementation="eager",
        orpheus=SECTION,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    random = np.random.default_rng(seed)
    for parameter in model.parameters():
        shape = tuple(parameter.shape)
        values = random.normal(1.0, 0.2, shape)  # of a norm
        if len(shape) == 2:
            values = random.normal(0.0, shape[1] ** -0.5, shape)
        parameter.data = torch.from_numpy(values).float()
    model.tie_weights()
    return model


@pytest.fixture(scope="module")
def pair(request, device, tmp_path_factory) -> Pair:
    rope, tied = request.param
    theirs = reference(rope, tied)
    folder = tmp_path_factory.mktemp("llama")
    theirs.save_pretrained(folder)
    return Pair(theirs.to(device), load_orpheus(folder, "tiny", FP32, device), folder)


every_pair = pytest.mark.parametrize(
    "pair",
    [
        pytest.param((PLAIN, True), id="plain-tied"),
        pytest.param((PLAIN, False), id="plain-untied"),
        pytest.param((SCALED, True), id="llama3-tied"),
        pytest.param((SCALED, False), id="llama3-untied"),
    ],
    indirect=True,
)
one_pair = pytest.mark.parametrize(
    "pair", [pytest.param((SCALED, True), id="llama3-tied")], indirect=True
)


def random_tokens(*shape: int, device: torch.device, seed: int = 0) -> Tensor:
    tokens = np.random.default_rng(seed).integers(0, VOCABULARY, shape)
    return torch.from_numpy(tokens).to(device)


def open_cache(model: Orpheus, slots: int, length: int, dtype=torch.float32) -> KVCache:
    cache = KVCache(model.cache_spec, slots, length, DenseKeeping(dtype), model.embed.weight.device)
    for slot in range(slots):
        cache.open(slot)
    return cache


def legal_tokens(position: int) -> list[int]:
    start = TEXT_TOKENS + CONTROL + position * BOOK
    return [*range(start, start + BOOK), *([STOP] if position == 0 else [])]


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> None:
    assert theirs.std() > 0.3  # logits of a size at which the tolerance means something
    assert (ours.float() - theirs.float()).abs().max() < tolerance


@every_pair
@torch.inference_mode()
def test_one_pass_gives_the_same_logits(pair):
    tokens = random_tokens(2, 300, device=pair.device)
    assert_close(pair.ours(tokens), pair.theirs(tokens).logits)


@every_pair
@torch.inference_mode()
def test_the_scaling_bites_at_the_tested_lengths(pair):
    tokens = random_tokens(1, 300, device=pair.device)
    rope = pair.theirs.config.rope_parameters
    other = reference(PLAIN if rope["rope_type"] == "llama3" else SCALED, tied=True)
    shared = {k: v for k, v in pair.theirs.state_dict().items() if k != "lm_head.weight"}
    other.load_state_dict(shared | {"lm_head.weight": shared["model.embed_tokens.weight"]})
    difference = pair.theirs.model(tokens)[0] - other.to(pair.device).model(tokens)[0]
    assert difference.abs().max() > 0.1


@every_pair
@torch.inference_mode()
def test_prefill_in_parts_and_steps_give_the_same_logits(pair):
    tokens = random_tokens(1, 300, device=pair.device)
    cache, slot, hidden = open_cache(pair.ours, 3, 320), 1, []
    for start, count in ((0, 100), (100, 1), (101, 39)):
        store = PrefillView(cache, slot, start, count)
        hidden.append(pair.ours.hidden(tokens[:, start : start + count], store)[0])
        store.advance()
    cache.active[torch.arange(3) != slot] = 0
    view = DecodeView(cache, 2, 320)
    for at in range(140, 300):
        both = torch.stack((torch.zeros_like(tokens[0, at]), tokens[0, at]))[:, None]
        hidden.append(pair.ours.hidden(both, view)[slot])
        view.advance()
    norm = pair.ours.backbone.norm
    assert_close(pair.ours.head(torch.cat(hidden), norm=norm), pair.theirs(tokens).logits[0])


@every_pair
@torch.inference_mode()
def test_streams_of_different_lengths_step_together(pair):
    lengths, steps = (5, 40, 97), 60
    tokens = random_tokens(3, max(lengths) + steps, device=pair.device)
    cache = open_cache(pair.ours, 3, 160)
    for slot, length in enumerate(lengths):
        embedded = pair.ours.embedded(tokens[slot : slot + 1, :length])
        pair.ours.prefill(embedded, PrefillView(cache, slot, 0, length))
    view, ours = DecodeView(cache, 3, 160), []
    rows = torch.arange(3, device=pair.device)
    for _ in range(steps):
        now = tokens[rows, cache.lengths]
        hidden = pair.ours.hidden(now[:, None], view)[:, 0]
        ours.append(pair.ours.head(hidden, norm=pair.ours.backbone.norm))
        view.advance()
    theirs = pair.theirs(tokens).logits
    for slot, length in enumerate(lengths):
        assert_close(torch.stack(ours)[:, slot], theirs[slot, length : length + steps])


@one_pair
@torch.inference_mode()
def test_logits_of_a_position_are_the_legal_rows(pair):
    tokens = random_tokens(2, 20, device=pair.device)
    hidden, every = pair.ours.hidden(tokens)[:, -1], pair.theirs(tokens).logits[:, -1]
    for position in range(7):
        legal = legal_tokens(position)
        assert pair.ours.choices[position] == len(legal)
        assert_close(pair.ours.logits(hidden, position), every[:, legal])


@torch.inference_mode()
def greedy(
    model: transformers.LlamaForCausalLM, prompt: list[int], steps: int, penalty: float
) -> list[int]:
    """transformers' greedy search, kept to the tokens that are legal in a frame."""
    processor = processors.RepetitionPenaltyLogitsProcessor(penalty) if penalty != 1.0 else None
    tokens = torch.tensor([prompt], device=model.device)
    fed, past, made = tokens, None, []
    while len(made) < steps and STOP not in made:
        out = model(fed, past_key_values=past, use_cache=True)
        past, logits = out.past_key_values, out.logits[:, -1]
        if processor is not None:
            logits = processor(tokens, logits)
        legal = legal_tokens(len(made) % 7)
        made.append(legal[int(logits[0, legal].argmax())])
        fed = torch.tensor([[made[-1]]], device=model.device)
        tokens = torch.cat((tokens, fed), dim=1)
    return made


def make_engine(model: Orpheus, slots: int = 1, recipe: Recipe = FP32) -> Engine:
    return Engine(
        model,
        slots=slots,
        max_length=448,
        keeping=DenseKeeping(recipe.format(Role.KV).dtype),
        hidden_dtype=recipe.format(Role.BACKBONE).dtype,
        device=model.embed.weight.device,
    )


def greedy_job(prompt: Prompt, frames: int, penalty: float) -> Job:
    sampling = SamplingParams(temperature=0.0, top_p=1.0, repetition_penalty=penalty)
    return Job(prompt, sampling, seed=0, max_frames=frames)


@every_pair
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_frames_are_those_of_transformers(pair, penalty):
    prompts = [random_tokens(n, device="cpu", seed=n) % TEXT_TOKENS for n in (3, 40, 11)]
    engine = make_engine(pair.ours, slots=2)  # one prompt waits for the others
    jobs = [greedy_job(Prompt(tuple(p.tolist())), 29, penalty) for p in prompts]
    streams = [engine.submit(job) for job in jobs]
    whole = 0
    for prompt, stream in zip(prompts, streams, strict=True):
        expected = greedy(pair.theirs, prompt.tolist(), 29 * 7, penalty)
        frames = list(stream)
        said = pair.ours.layout.to_tokens(torch.stack(frames)).flatten().tolist()
        if stream.finish_reason is FinishReason.STOP:
            said.append(STOP)
        assert said == expected[: len(said)]
        assert len(said) == len(expected) or stream.finish_reason is FinishReason.REPETITION
        whole += len(said) == 29 * 7
    assert whole  # at least one went all the way


@one_pair
def test_greedy_stops_where_transformers_does(pair):
    seeds = range(40)
    ends = []
    engine = make_engine(pair.ours, slots=8)
    prompts = [(random_tokens(9, device="cpu", seed=s) % TEXT_TOKENS).tolist() for s in seeds]
    streams = [engine.submit(greedy_job(Prompt(tuple(p)), 6, 1.0)) for p in prompts]
    for prompt, stream in zip(prompts, streams, strict=True):
        expected = greedy(pair.theirs, prompt, 6 * 7, 1.0)
        assert len(list(stream)) == len(expected) // 7
        stopped = expected[-1] == STOP
        assert stream.finish_reason is (FinishReason.STOP if stopped else FinishReason.LENGTH)
        ends.append(stopped)
    assert {True, False} == set(ends)


@one_pair
def test_codes_in_the_prompt_count_for_the_penalty_as_in_transformers(pair):
    codes = random_tokens(6 * 7, device="cpu").view(6, 7) % BOOK
    spoken = [(p, c) for frame in codes.tolist() for p, c in enumerate(frame)] + [(0, BOOK)]
    tokens = (5, 6, *pair.ours.layout.to_tokens(codes).flatten().tolist(), STOP, 7)
    expected = greedy(pair.theirs, list(tokens), 8 * 7, 1.5)
    assert expected != greedy(pair.theirs, list(tokens), 8 * 7, 1.0)
    frames = make_engine(pair.ours).submit(greedy_job(Prompt(tokens, tuple(spoken)), 8, 1.5))
    said = pair.ours.layout.to_tokens(torch.stack(list(frames))).flatten().tolist()
    assert said == expected[: len(said)]
    assert len(said) == len(expected) // 7 * 7


@one_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shard_size", ["1GB", "40KB"])
@torch.inference_mode()
def test_saved_checkpoints_load(pair, tmp_path, dtype, shard_size):
    stored = transformers.LlamaForCausalLM.from_pretrained(pair.folder, dtype=dtype)
    stored.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard_size == "40KB")
    tokens = random_tokens(1, 50, device=pair.device)
    expected = stored.float().to(pair.device)(tokens).logits
    assert_close(load_orpheus(tmp_path, "tiny", FP32, pair.device)(tokens), expected)


@one_pair
@torch.inference_mode()
def test_bf16_is_as_near_as_transformers_own(pair):
    tokens = random_tokens(2, 100, device=pair.device)
    exact = pair.theirs(tokens).logits
    theirs = transformers.LlamaForCausalLM.from_pretrained(pair.folder, dtype=torch.bfloat16).to(
        pair.device
    )
    ours = load_orpheus(pair.folder, "tiny", find_recipe("bf16"), pair.device)
    assert ours.embed.weight.dtype == torch.bfloat16
    error = (ours(tokens) - exact).square().mean().sqrt()
    their_error = (theirs(tokens).logits.float() - exact).square().mean().sqrt()
    assert 0 < error < 1.2 * their_error


@one_pair
@torch.inference_mode()
def test_a_tied_head_that_is_stored_again_is_left_out(pair, tmp_path):
    config = (pair.folder / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    tensors = load_file(pair.folder / "model.safetensors")
    tensors["lm_head.weight"] = torch.zeros_like(tensors["model.embed_tokens.weight"])
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save_file(tensors, tmp_path / "model.safetensors")
    model = load_orpheus(tmp_path, "tiny", FP32, pair.device)
    tokens = random_tokens(1, 10, device=pair.device)
    assert torch.equal(model(tokens), pair.ours(tokens))


@pytest.mark.parametrize("role", [Role.KV, Role.HEAD, Role.BACKBONE, Role.EMBED])
@pytest.mark.parametrize("others", [Format.FP32, Format.BF16])
@pytest.mark.parametrize("pair", [(SCALED, False), (SCALED, True)], indirect=True)
def test_every_role_may_have_a_precision_of_its_own(pair, role, others):
    own = Format.BF16 if others is Format.FP32 else Format.FP32
    recipe = Recipe("mixed", others, ((role, own),))
    model = load_orpheus(pair.folder, "tiny", recipe, pair.device)
    stream = make_engine(model, recipe=recipe).submit(greedy_job(Prompt((3, 4, 5)), 3, 1.0))
    exact = make_engine(pair.ours).submit(greedy_job(Prompt((3, 4, 5)), 3, 1.0))
    assert next(iter(stream)).shape == next(iter(exact)).shape
    tokens = random_tokens(1, 50, device=pair.device)
    with torch.inference_mode():
        assert_close(model(tokens), pair.ours(tokens), tolerance=0.2)


def layout_3b(tied: bool) -> tuple[Orpheus, list[Source]]:
    config = OrpheusConfig.from_dict(ORPHEUS_3B | {"tie_word_embeddings": tied})
    with torch.device("meta"):
        return Orpheus(config, find_recipe("bf16")), sources(config)


@pytest.mark.parametrize(("tied", "count"), [(True, 3_300_867_072), (False, 3_782_986_752)])
def test_the_released_size_has_the_tensors_of_llama(tied, count):
    model, plan = layout_3b(tied)
    assert sum(p.numel() for p in model.parameters()) == count
    weights = model.state_dict()
    ours = {
        name: shape
        for source in plan
        for name, shape in zip(
            source.names, source.shapes(weights[source.target].shape), strict=True
        )
    }
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**ORPHEUS_3B | {"tie_word_embeddings": tied})
        )
    expected = {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    assert ours == expected
    assert ours["model.layers.27.self_attn.k_proj.weight"] == (1024, 3072)
    assert ours["model.embed_tokens.weight"] == (156940, 3072)
    assert ("lm_head.weight" in ours) == (not tied)


def test_the_released_size_keeps_114688_bytes_a_token():
    model, _ = layout_3b(tied=True)
    cache = KVCache(model.cache_spec, 1, 1, DenseKeeping(torch.bfloat16), torch.device("meta"))
    assert cache.bytes == 114_688
    assert model.choices == (4097,) + (4096,) * 6
    assert (model.layout.first(0), model.layout.end_token) == (128266, 156938)


def test_rotary_tables_are_real_though_weights_are_on_the_meta_device():
    model, _ = layout_3b(tied=True)
    assert model.backbone.rope.cos.device.type == "cpu"
    assert model.backbone.rope.cos.shape == (131072, 128)


def test_the_config_of_older_transformers_says_the_same(tmp_path):
    reference(SCALED, tied=True).config.save_pretrained(tmp_path)
    new = json.loads((tmp_path / "config.json").read_text())
    old = {k: v for k, v in new.items() if k != "rope_parameters"}
    old["rope_theta"] = SCALED["rope_theta"]
    old["rope_scaling"] = {k: v for k, v in SCALED.items() if k != "rope_theta"}
    assert OrpheusConfig.from_dict(old) == OrpheusConfig.from_dict(new)
