"""Make the golden checkpoint and what it must say: `python tests/golden/make.py [FOLDER]`.

What is expected comes from transformers and snac in float64, and from plain integers where no
library has a say (random numbers, token ids), so it shares no code with Quaver. Nothing is written
if a choice is so close that rounding could turn it.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from snac import SNAC
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TopPLogitsWarper,
)

TEXT, VOICE = "Hello.", "ada"
BOOK = 16
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
BEGIN, END_OF_TEXT, BASE = 256, 257, 258  # after a token for each byte
FIRST_CODE, STOP = BASE + 10, BASE + 2
VOCABULARY = FIRST_CODE + 7 * BOOK + 1  # and a spare row
FRAMES = int((3 + len(TEXT) / 5) * 24000 / 2048)
SEED, TEMPERATURE, TOP_P, PENALTY = 7, 0.9, 0.95, 1.2
MARGIN = 1e-3
SAMPLES = 400  # of each waveform, evenly spread

MODEL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 18,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "rope_theta": 500.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
}
SECTION = {
    "begin_of_text": BEGIN,
    "end_of_text": END_OF_TEXT,
    "custom_token_base": BASE,
    "codebook_size": BOOK,
    "voices": [VOICE],
    "codec": "codec",
}
CODEC = {
    "sampling_rate": 24000,
    "encoder_dim": 1,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 16,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": BOOK,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}


def write(folder: Path) -> None:
    """The checkpoint and `expected.*` in `folder`."""
    random = np.random.default_rng(7)  # one speech ends by a stop, the other at the limit
    llama, snac = random_llama(random), random_snac(random)
    codec = folder / "checkpoint" / "codec"
    codec.mkdir(parents=True, exist_ok=True)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"} | MODEL
    write_json(folder / "checkpoint" / "config.json", config | {"orpheus": SECTION})
    write_json(codec / "config.json", CODEC)
    tokenizer().save(str(folder / "checkpoint" / "tokenizer.json"), pretty=False)
    tensors = {k: v.bfloat16() for k, v in llama.named_parameters()}
    save_file(tensors, folder / "checkpoint" / "model.safetensors", {"format": "pt"})
    tensors = {k: v.half().contiguous() for k, v in snac.state_dict().items()}
    save_file(tensors, codec / "model.safetensors", {"format": "pt"})

    greedy = speak(llama, temperature=0.0)
    sampled = speak(llama, temperature=TEMPERATURE)
    waves = {
        "greedy_quiet": decode(snac, greedy, noise_seed=None),
        "sampled_noisy": decode(snac, sampled, noise_seed=SEED),
    }
    expected = {
        "text": TEXT,
        "voice": VOICE,
        "prompt": prompt(),
        "seed": SEED,
        "sampling": {
            "temperature": TEMPERATURE,
            "top_p": TOP_P,
            "repetition_penalty": PENALTY,
        },
        "greedy": greedy,
        "sampled": sampled,
        "rms": {name: float(np.sqrt(np.mean(wave**2))) for name, wave in waves.items()},
        "samples": {name: len(wave) for name, wave in waves.items()},
    }
    write_json(folder / "expected.json", expected)
    picked = {name: wave[places(len(wave))].astype(np.float16) for name, wave in waves.items()}
    np.savez(folder / "expected.npz", **picked)


def places(length: int) -> np.ndarray:
    """Indices of the samples that are kept."""
    return np.linspace(0, length - 1, SAMPLES).astype(np.int64)


def write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values) + "\n")


def tokenizer() -> Tokenizer:
    control = ["<|begin_of_text|>", "<|eot_id|>", *(f"<custom_token_{i}>" for i in range(10))]
    codes = [f"<custom_token_{10 + i}>" for i in range(7 * BOOK)]
    vocabulary = {token: i for i, token in enumerate([*LETTERS, *control, *codes])}
    found = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens(control)
    return found


def prompt() -> list[int]:
    text = [LETTERS.index(c.replace(" ", "Ġ")) for c in f"{VOICE}: {TEXT}"]
    return [BASE + 3, BEGIN, *text, END_OF_TEXT, BASE + 4, BASE + 5, BASE + 1]


def random_llama(random: np.random.Generator) -> LlamaForCausalLM:
    """Float64 weights that bfloat16 holds exactly."""
    model = LlamaForCausalLM(LlamaConfig(**MODEL, attn_implementation="eager")).double().eval()
    for weight in model.parameters():
        shape = tuple(weight.shape)
        values = random.normal(1.0, 0.2, shape)
        if len(shape) == 2:
            values = random.normal(0.0, 2 * shape[1] ** -0.5, shape)
        weight.data = torch.from_numpy(values).bfloat16().double()
    model.tie_weights()
    return model


def random_snac(random: np.random.Generator) -> SNAC:
    """Float64 weights that float16 holds exactly."""
    model = SNAC(**CODEC).double().eval().requires_grad_(False)
    for name, weight in model.state_dict().items():
        shape = tuple(weight.shape)
        values = random.normal(0.0, 1.0, shape)
        if name.endswith(("original0", "alpha")):
            values = random.uniform(0.4, 0.9, shape)  # loud, yet clear of the final tanh's ends
        elif name.endswith("bias"):
            values = random.normal(0.0, 0.05, shape)
        weight.copy_(torch.from_numpy(values).half())
    return model


@torch.inference_mode()
def speak(model: LlamaForCausalLM, temperature: float) -> list[list[int]]:
    """Frames up to the stop or the limit; each choice among what is legal at its position."""
    penalise, cut = RepetitionPenaltyLogitsProcessor(PENALTY), TopPLogitsWarper(TOP_P)
    fed, past = torch.tensor([prompt()]), None
    seen: list[list[int]] = [[] for _ in range(7)]
    frames: list[list[int]] = []
    for count in range(FRAMES * 7):
        position = count % 7
        out = model(fed, past_key_values=past, use_cache=True)
        past, first = out.past_key_values, FIRST_CODE + position * BOOK
        legal = [*range(first, first + BOOK), *([STOP] if position == 0 else [])]
        scores = penalise(torch.tensor([seen[position]]).long(), out.logits[:, -1, legal])
        if temperature:
            scores = cut(torch.tensor([[]]), scores / temperature)
            scores = scores + torch.tensor(list(gumbel(count, len(legal))))
        choice = clear_winner(scores[0])
        if choice == BOOK:
            return frames
        seen[position].append(choice)
        frames = frames if position else [*frames, []]
        frames[-1].append(choice)
        fed = torch.tensor([[legal[choice]]])
    return frames


def clear_winner(scores: Tensor) -> int:
    best = scores.topk(2)
    if best.values[0] - best.values[1] < MARGIN:
        raise SystemExit(f"a choice is won by less than {MARGIN}; take other weights")
    return int(best.indices[0])


@torch.inference_mode()
def decode(model: SNAC, frames: list[list[int]], noise_seed: int | None) -> np.ndarray:
    """Samples in float64, with the noise blocks' noise replaced by ours or by zeros."""
    codes = torch.tensor(frames)
    books = [codes[:, [0]], codes[:, [1, 4]], codes[:, [2, 3, 5, 6]]]
    blocks = iter(range(4))

    def randn(shape: tuple[int, int, int], **options: object) -> Tensor:
        if noise_seed is None:
            return torch.zeros(shape, **options)
        values = list(normal(stream_key(noise_seed, next(blocks)), shape[-1]))
        return torch.tensor(values, **options).view(shape)

    original, torch.randn = torch.randn, randn
    try:
        return model.decode([book.reshape(1, -1) for book in books])[0, 0].numpy()
    finally:
        torch.randn = original


# Random numbers by address, in Python's own integers.


def mix(x: int) -> int:
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return x ^ (x >> 16)


def stream_key(seed: int, stream: int) -> int:
    low, high = seed & 0xFFFFFFFF, seed >> 32
    return mix(mix(low ^ mix(high ^ 0x9E3779B9)) ^ stream)


def uniform(key: int, position: int) -> float:
    bits = mix((key + position * 0x9E3779B9) & 0xFFFFFFFF)
    return ((bits >> 9) + 0.5) / 2**23


def gumbel(count: int, choices: int) -> Iterator[float]:
    key = stream_key(SEED, count)
    return (-math.log(-math.log(uniform(key, i))) for i in range(choices))


def normal(key: int, count: int) -> Iterator[float]:
    for i in range(count):
        radius = math.sqrt(-2 * math.log(uniform(key, 2 * i)))
        yield radius * math.cos(2 * math.pi * uniform(key, 2 * i + 1))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
