"""Where each weight of an Orpheus lies in a checkpoint with Hugging Face's Llama names, as data."""

from __future__ import annotations

from quaver.checkpoints.names import Source
from quaver.families.orpheus.config import OrpheusConfig

# Rope frequencies are computed, not stored.
_COMPUTED = ("*.rotary_emb.inv_freq",)
# Of a model whose head is not the embedding.
HEAD = Source("head.weight", ("lm_head.weight",))


def sources(config: OrpheusConfig) -> list[Source]:
    """Every parameter and the tensors it is made of."""
    shape = config.transformer
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    found = [
        Source("embed.weight", ("model.embed_tokens.weight",)),
        Source("backbone.norm.weight", ("model.norm.weight",)),
    ]
    if not config.tie_word_embeddings:
        found.append(HEAD)
    for index in range(shape.num_hidden_layers):
        ours, theirs = f"backbone.layers.{index}", f"model.layers.{index}"
        found += [
            Source(f"{ours}.attention_norm.weight", (f"{theirs}.input_layernorm.weight",)),
            Source(f"{ours}.mlp_norm.weight", (f"{theirs}.post_attention_layernorm.weight",)),
            Source(
                f"{ours}.attention.qkv.weight",
                tuple(f"{theirs}.self_attn.{name}_proj.weight" for name in "qkv"),
                "concat",
                (queries, keys, keys),
            ),
            Source(f"{ours}.attention.out.weight", (f"{theirs}.self_attn.o_proj.weight",)),
            Source(
                f"{ours}.mlp.gate_up.weight",
                (f"{theirs}.mlp.gate_proj.weight", f"{theirs}.mlp.up_proj.weight"),
                "concat",
                (shape.intermediate_size, shape.intermediate_size),
            ),
            Source(f"{ours}.mlp.down.weight", (f"{theirs}.mlp.down_proj.weight",)),
        ]
    return found


def ignored(config: OrpheusConfig) -> tuple[str, ...]:
    """Patterns of stored tensors that are not read. A tied head may be stored all the same; it is
    the embedding then, for transformers and vLLM too."""
    return (*_COMPUTED, "lm_head.weight") if config.tie_word_embeddings else _COMPUTED


def normed(config: OrpheusConfig) -> dict[str, str]:
    """Linear layers whose inputs come straight from a norm, which nothing else reads: its name."""
    layers = [f"backbone.layers.{i}" for i in range(config.transformer.num_hidden_layers)]
    attention = {f"{layer}.attention.qkv": f"{layer}.attention_norm" for layer in layers}
    return attention | {f"{layer}.mlp.gate_up": f"{layer}.mlp_norm" for layer in layers}


def kv_scales(config: OrpheusConfig) -> list[tuple[str, str]]:
    """Names of each layer's scales of keys and values, where an fp8 cache was calibrated."""
    layers = range(config.transformer.num_hidden_layers)
    return [
        (f"model.layers.{i}.self_attn.k_scale", f"model.layers.{i}.self_attn.v_scale")
        for i in layers
    ]
