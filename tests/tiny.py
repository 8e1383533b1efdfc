"""A tiny Orpheus with a tiny SNAC: random weights, real shapes, spoken in milliseconds."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from quaver.checkpoints.write import named_tensors, write_checkpoint
from quaver.codecs.snac import Snac, SnacConfig
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.tokenizer import byte_tokenizer
from quaver.families.orpheus.weights import sources
from quaver.precision import find_recipe
from quaver.train.lm import initialise
from quaver.train.texts import ALPHABET

VOICES = ("ada", "ben")
CODEC = {
    "sampling_rate": 24000,
    "encoder_dim": 8,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 64,
    "decoder_rates": [8, 8, 4, 2],
    "codebook_size": 64,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
}
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}


def write_tiny_checkpoint(folder: Path, seed: int = 0) -> Path:
    """Write the checkpoint into `folder`, which must be absent or empty, and return it."""
    torch.manual_seed(seed)
    snac = _snac()
    tokenizer, tokens = byte_tokenizer(CODEC["codebook_size"], snac.codes_per_frame)
    speech = {
        **asdict(tokens),
        "voices": list(VOICES),
        "codec": "codec",
        "alphabet": "".join(sorted(ALPHABET)),
    }
    config = {**MODEL, "vocab_size": tokens.layout.end_token, "orpheus": speech}
    orpheus_config = OrpheusConfig.from_dict(config)
    model = Orpheus(orpheus_config, find_recipe("fp32"))
    initialise(model)
    write_checkpoint(
        folder,
        {k: v.contiguous() for k, v in named_tensors(model, sources(orpheus_config))},
        config=config,
        extra_files={
            "tokenizer.json": tokenizer.to_str().encode(),
            "codec/config.json": json.dumps(CODEC).encode(),
            "codec/model.safetensors": save(snac.state_dict()),
        },
    )
    return folder


def _snac() -> Snac:
    """A codec that makes sound of any codes, though of no meaning."""
    snac = Snac(SnacConfig.from_dict(CODEC))
    for name, weight in snac.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(weight)
        elif not name.endswith("alpha"):
            nn.init.normal_(weight, std=0.7 * weight[0].numel() ** -0.5)
    return snac
