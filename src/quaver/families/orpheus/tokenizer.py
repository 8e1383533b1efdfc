"""A tokenizer for small models: one token a byte of UTF-8, then Orpheus's control and code tokens.

Spelling is what a small model must learn to pronounce, so it sees letters, not word pieces.
"""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from quaver.families.orpheus.config import SpeechTokens

CONTROL_TOKENS = 10  # `<custom_token_0>` to `<custom_token_9>`, before the codes


def byte_tokenizer(codebook_size: int, codes_per_frame: int) -> tuple[Tokenizer, SpeechTokens]:
    """The tokenizer and the ids that a config's section `orpheus` must name."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    control = ["<|begin_of_text|>", "<|eot_id|>"]
    control += [f"<custom_token_{i}>" for i in range(CONTROL_TOKENS)]
    codes = [f"<custom_token_{CONTROL_TOKENS + i}>" for i in range(codebook_size * codes_per_frame)]
    vocabulary = {token: i for i, token in enumerate([*letters, *control, *codes])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    first = len(letters)
    return tokenizer, SpeechTokens(first, first + 1, first + 2, codebook_size)
