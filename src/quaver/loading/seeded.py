"""A checkpoint of a published shape with random weights, for measurements of what shape decides.

Everything that loading reads is there: shards as they are published, a codec of SNAC's released
shape, and a tokenizer that knows the words that benchmarks say: a prompt is about as long as that
of the released one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor

from quaver.bench.measure import SENTENCE
from quaver.bench.shapes import ORPHEUS_3B, SNAC_24KHZ
from quaver.checkpoints.write import write_checkpoint
from quaver.codecs.snac import Snac, SnacConfig
from quaver.families.orpheus.config import OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.weights import sources
from quaver.precision import find_recipe
from quaver.quality.panel import PLAIN_SENTENCES

SHARD_BYTES = 5 * 10**9
WORDS = 4096  # at most, and parts of them
SHAPES = {"orpheus-3b": ORPHEUS_3B}
MORE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "orpheus": {"codec": "codec"},
}


def write_seeded(folder: Path, shape: str = "orpheus-3b", layers: int | None = None) -> int:
    """Write one of `SHAPES` to `folder`, which must be new; returns the largest shard's bytes."""
    config = SHAPES[shape] | MORE
    if layers is not None:
        config |= {"num_hidden_layers": layers}
    torch.manual_seed(0)
    snac = Snac(SnacConfig.from_dict(SNAC_24KHZ))
    for weight in snac.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    extra = {
        "tokenizer.json": _tokenizer().to_str().encode(),
        "codec/config.json": json.dumps(SNAC_24KHZ).encode(),
        "codec/model.safetensors": save(snac.state_dict()),
    }
    write_checkpoint(
        folder, _weights(config), config=config, max_shard_bytes=SHARD_BYTES, extra_files=extra
    )
    return max(file.stat().st_size for file in folder.glob("*.safetensors"))


def _tokenizer() -> Tokenizer:
    """Words with the space before them, and bytes for what else comes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((SENTENCE, *PLAIN_SENTENCES), trainer)
    return tokenizer


def _weights(values: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Random weights under the published names, one at a time; the row of the token that ends
    speech is zeros, so that streams are as long as they are asked to be."""
    config = OrpheusConfig.from_dict(values, "large")
    end = config.speech.tokens.end_of_speech
    with torch.device("meta"):
        shapes = Orpheus(config, find_recipe("bf16")).state_dict()
    generator = torch.Generator().manual_seed(0)
    for source in sources(config):
        for name, shape in zip(
            source.names, source.shapes(shapes[source.target].shape), strict=True
        ):
            if len(shape) == 1:
                yield name, torch.ones(shape, dtype=torch.bfloat16)
                continue
            block = torch.randn(min(shape[0], 1024), shape[1], generator=generator) * 0.02
            repeated = block.bfloat16().repeat(-(-shape[0] // len(block)), 1)
            weight = repeated[: shape[0]].clone()
            if shape[0] == config.vocab_size:
                weight[end] = 0
            yield name, weight
