"""A small Llama of transformers with Orpheus's section: what quantised checkpoints are made of."""

from __future__ import annotations

import torch

from late import Late

transformers = Late("transformers")

TEXT, BOOK, CONTROL = 40, 32, 10
VOCABULARY = TEXT + CONTROL + 7 * BOOK
SECTION = {
    "begin_of_text": 0,
    "end_of_text": 1,
    "custom_token_base": TEXT,
    "codebook_size": BOOK,
}
CPU = torch.device("cpu")
TOKENS = torch.arange(3, 60)[None]


def llama(hidden_size: int = 256, tied: bool = False) -> transformers.LlamaForCausalLM:
    """fp32, with weights that bf16 can hold, so that what stays dense is the same everywhere."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden_size,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        orpheus=SECTION,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        values = torch.randn_like(parameter) * parameter.shape[-1] ** -0.5
        parameter.data = (values if parameter.dim() == 2 else 1 + values).bfloat16().float()
    model.tie_weights()
    return model
