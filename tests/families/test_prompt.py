"""Prompts by ids, voices by checkpoint, and configurations that are refused.

The ids are the released Orpheus-3B's, written out, so that a change of the code cannot hide.
"""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from quaver.codecs.layout import CodeLayout
from quaver.core.errors import CheckpointError, InputError
from quaver.core.protocols import Prompt, Readable, Reference
from quaver.families.orpheus.config import OrpheusConfig, SpeechConfig, SpeechTokens
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.voices import default_voices

WORDS = {word: i for i, word in enumerate(["[UNK]", "tara", ":", "Hello", "there", "!", "bye"])}
CONTROL = {
    "<|begin_of_text|>": 128000,
    "<|eot_id|>": 128009,
    **{f"<custom_token_{i}>": 128256 + i for i in range(7)},
}
TARA, COLON, HELLO, THERE, BYE = 1, 2, 3, 4, 6
ENGLISH = ("tara", "leah", "jess", "leo", "dan", "mia", "zac", "zoe")
RELEASED = {
    "hidden_act": "silu",
    "hidden_size": 96,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 156940,
    "max_position_embeddings": 131072,
}


def llama_tokenizer() -> Tokenizer:
    """Words and the released control ids; puts a BOS of its own before everything, as Llama's."""
    tokenizer = Tokenizer(models.WordLevel({**WORDS, **CONTROL}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(CONTROL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 128000)]
    )
    return tokenizer


def prompts(**config) -> OrpheusPrompts:
    return OrpheusPrompts(SpeechConfig(**config), llama_tokenizer())


def letter_prompts(alphabet: str | None) -> OrpheusPrompts:
    """Letters as tokens: what a prompt reads can be read back."""
    letters = {chr(i): i for i in range(32, 0x250)}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return OrpheusPrompts(SpeechConfig(alphabet=alphabet), tokenizer)


def test_a_prompt_has_one_bos_after_start_of_human_and_ends_with_start_of_speech():
    assert llama_tokenizer().encode("Hello").ids[0] == 128000
    assert prompts().prompt("Hello there", "tara") == Prompt(
        (128259, 128000, TARA, COLON, HELLO, THERE, 128009, 128260, 128261, 128257)
    )


def test_without_a_voice_there_is_no_prefix():
    assert prompts().prompt("Hello") == Prompt(
        (128259, 128000, HELLO, 128009, 128260, 128261, 128257)
    )


def test_a_cloning_prompt_is_a_whole_turn_of_the_reference_before_the_text():
    frames = torch.tensor([[0, 1, 2, 3, 4, 5, 4095], [7, 0, 0, 0, 0, 0, 6]])
    codes = [128266, 132363, 136460, 140557, 144654, 148751, 156937]
    codes += [128273, 132362, 136458, 140554, 144650, 148746, 152848]
    prompt = prompts().prompt("bye", "tara", Reference(frames, "Hello there"))
    assert prompt.tokens == (
        *(128259, 128000, HELLO, THERE, 128009, 128260, 128261, 128257),
        *(*codes, 128258, 128262),
        *(128259, 128000, BYE, 128009, 128260, 128261, 128257),
    )
    assert prompt.spoken == (
        *((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 4095)),
        *((0, 7), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 6)),
        (0, 4096),  # the stop after them, which is position 0's last choice
    )


def test_the_ids_of_the_released_tokens():
    tokens = SpeechTokens()
    assert tokens.start_of_speech == 128257
    assert tokens.end_of_speech == 128258
    assert tokens.start_of_human == 128259
    assert tokens.end_of_human == 128260
    assert tokens.start_of_ai == 128261
    assert tokens.end_of_ai == 128262
    assert tokens.layout == CodeLayout(128266, 4096, (0, 1, 2, 2, 1, 2, 2))


@pytest.mark.parametrize("control", ["<custom_token_2>", "<|eot_id|>", "<|begin_of_text|>"])
def test_control_tokens_in_the_text_are_refused(control):
    with pytest.raises(InputError, match="control token") as error:
        prompts().prompt(f"Hello {control} there", "tara")
    assert control in str(error.value)


def test_control_tokens_in_a_references_text_are_refused():
    with pytest.raises(InputError, match="control token"):
        prompts().prompt("bye", None, Reference(torch.zeros(1, 7, dtype=torch.int64), "<|eot_id|>"))


def test_an_unknown_voice_lists_the_voices():
    with pytest.raises(InputError, match=r"unknown voice 'bob'.*tara, leah"):
        prompts().prompt("Hello", "bob")
    with pytest.raises(InputError, match="takes no voice"):
        prompts(voices=()).prompt("Hello", "tara")


def test_an_alphabet_turns_characters_into_their_plain_forms():
    family = letter_prompts("abcdefghijklmnopqrstuvwxyz '\"-.,:N")
    readable = family.readable("naïve “café” — it’s…\u00a0Ñ")
    assert readable == Readable('naive "cafe" - it\'s... N')
    read = family.prompt(readable.text).tokens[2:-4]
    assert "".join(map(chr, read)) == readable.text


@pytest.mark.parametrize(
    ("alphabet", "text", "read", "left_out"),
    [
        ("abc d", "a ß b % c ß", "a b c", "ß%ß"),
        ("abc .", "a \U0001f389. b\U0001f389c \U0001f389", "a. b c", "\U0001f389" * 3),
        ("abcs", "\u4f60a\u4f60b", "ab", "\u4f60\u4f60"),  # within a word no space
        ("abc", "a\u0301\u0302b\u200dc\ufe0f\u200e", "abc", ""),  # marks are not counted
        ("abs", "Aß", "ass", ""),  # the other case, and its letters
        ("AB ", "ab", "AB", ""),
        ("12 ", "½ x² ℃", "2", "½x℃"),  # nothing of what would be read wrong
        ("abäc", "a\u0308bc", "äbc", ""),  # composed, as the alphabet has it
        ("abc ", "\ud55c\uae00 b", "b", "\ud55c\uae00"),  # as given, not as parts
        ("laugh", "<laugh>", "", ["<laugh>"]),  # a tag is not read as a word
        ("a<laugh>", "a<laugh>", "a<laugh>", ""),
        (None, "naïve \U0001f389 <laugh>", "naïve \U0001f389 <laugh>", ""),
    ],
)
def test_what_an_alphabet_lacks_is_left_out_and_told(alphabet, text, read, left_out):
    assert letter_prompts(alphabet).readable(text) == Readable(read, tuple(left_out))


@pytest.mark.parametrize(
    ("voices", "voice", "language"),
    [
        (ENGLISH, "tara", "en"),
        (("pierre", "amelie", "marie"), "marie", "fr"),
        (("pierre", "amelie", "marie"), None, "fr"),
        (("javi", "sergio", "maria", "pietro", "giulia", "carlo"), "maria", "es"),
        (("javi", "sergio", "maria", "pietro", "giulia", "carlo"), "carlo", "it"),
        (("장", "max"), "max", "en"),  # a fine-tune's own names tell nothing
        ((), None, "en"),
    ],
)
def test_a_voice_speaks_a_language(voices, voice, language):
    assert prompts(voices=voices).language(voice) == language
    assert prompts(voices=voices, language="da").language(voice) == "da"


def test_without_an_alphabet_text_goes_through_as_it_is():
    assert "".join(map(chr, letter_prompts(None).prompt("naïve").tokens[2:-4])) == "naïve"


def test_longer_text_may_have_more_frames():
    family = prompts()
    assert 30 < family.max_frames("a") < family.max_frames("a" * 100) < 300
    assert family.max_frames("长乐") > family.max_frames("ab")


@pytest.mark.parametrize(
    ("name", "voices"),
    [
        ("canopylabs/orpheus-3b-0.1-ft", ENGLISH),
        ("unsloth/orpheus-3b-0.1-ft", ENGLISH),
        ("canopylabs/3b-fr-ft-research_release", ("pierre", "amelie", "marie")),
        ("canopylabs/3b-de-ft-research_release", ("jana", "thomas", "max")),
        ("canopylabs/3b-ko-ft-research_release", ("유나", "준서")),
        ("canopylabs/3b-hi-ft-research_release", ("ऋतिका",)),
        ("canopylabs/3b-zh-ft-research_release", ("长乐", "白芷")),
        (
            "canopylabs/3b-es_it-ft-research_release",
            ("javi", "sergio", "maria", "pietro", "giulia", "carlo"),
        ),
        ("canopylabs/orpheus-3b-0.1-pretrained", ()),
        ("canopylabs/3b-fr-pretrain-research_release", ()),
        ("", ENGLISH),
    ],
)
def test_voices_come_with_the_checkpoints_name(name, voices):
    assert default_voices(name) == voices
    assert OrpheusConfig.from_dict(RELEASED, name).speech.voices == voices


def test_a_checkpoint_may_name_its_own_voices():
    config = RELEASED | {"orpheus": {"voices": ["ada", "ben"]}}
    assert OrpheusConfig.from_dict(config, "3b-fr-ft").speech.voices == ("ada", "ben")


def test_a_copy_without_a_telling_name_is_known_by_the_path_in_its_config():
    config = RELEASED | {"_name_or_path": "canopylabs/3b-fr-ft-research_release"}
    assert OrpheusConfig.from_dict(config).speech.voices[0] == "pierre"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"orpheus": {"voice": "tara", "codek": "x"}}, r"unknown keys \['codek', 'voice'\]"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, "rope_type is 'linear'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}, "lacks the key 'low_freq"),
        ({"vocab_size": 128256}, "vocab_size is 128256, but the code tokens end at 156938"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ],
)
def test_configurations_of_other_models_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        OrpheusConfig.from_dict(RELEASED | change)


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "rms_norm_eps"])
def test_a_missing_key_is_named(key):
    config = {k: v for k, v in RELEASED.items() if k != key}
    with pytest.raises(CheckpointError, match=f"lacks the key '{key}'"):
        OrpheusConfig.from_dict(config)


def test_a_checkpoint_without_our_section_has_the_released_values():
    speech = OrpheusConfig.from_dict(RELEASED).speech
    assert speech == SpeechConfig(voices=ENGLISH)
    assert speech.codec == "hubertsiuzdak/snac_24khz"
