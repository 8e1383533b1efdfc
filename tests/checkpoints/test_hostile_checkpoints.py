"""What strangers write into a model folder is read, or refused in one line that helps."""

import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from quaver.checkpoints.pattern_nodes import Budget
from quaver.checkpoints.pattern_reader import parse
from quaver.checkpoints.patterns import Pattern, is_steady
from quaver.checkpoints.reader import INDEX, PICKLE_INDEX, open_tensors
from quaver.checkpoints.schemes import Schemes, quantization_config
from quaver.checkpoints.source import resolve
from quaver.checkpoints.tokenizer import check
from quaver.checkpoints.trial import tried
from quaver.codecs.snac import SnacConfig
from quaver.core.errors import CheckpointError, InputError, QuaverError, printable
from quaver.core.voices import read_voices
from quaver.families.orpheus.config import OrpheusConfig, SpeechConfig, SpeechTokens
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.text import OrpheusText
from quaver.families.orpheus.tokenizer import byte_tokenizer
from quaver.loading import load
from quaver.loading.parts import read_sampling
from quaver.precision import Format
from tiny import CODEC, MODEL

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BACKTRACKING = (r"(a+)+b", r"(a|a)*b", r"(?:a|aa)+$", r"\s*\s*\s*x", "(a?){30}", "a?a?a?a?a?a?a?b")


def fuzzer():
    spec = importlib.util.spec_from_file_location("fuzz", BENCHMARKS / "fuzz_checkpoints.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FUZZ = fuzzer()


@pytest.mark.parametrize("kind", sorted(FUZZ.KINDS))
def test_changed_files_are_read_or_refused_in_one_line(kind, tmp_path):
    found = [FUZZ.outcome(kind, seed, tmp_path) for seed in range(150)]
    assert [each for each in found if each not in ("read", "refused")] == []
    assert {"read", "refused"} <= set(found)


def test_the_fuzzer_sees_what_escapes(tmp_path, monkeypatch):
    def broken(folder, rng):
        raise KeyError("rope_theta")

    monkeypatch.setitem(FUZZ.KINDS, "broken", broken)
    assert "KeyError" in FUZZ.outcome("broken", 0, tmp_path)


SPEECH = {"custom_token_base": 300, "begin_of_text": 1, "end_of_text": 2, "codebook_size": 4}
SHAPE = MODEL | {"vocab_size": 400, "orpheus": SPEECH}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 10**12}, "num_hidden_layers 1000000000000; .*from 1 to 512"),
        ({"num_hidden_layers": "8"}, "num_hidden_layers '8'; allowed: whole"),
        ({"num_hidden_layers": True}, "num_hidden_layers True"),
        ({"num_hidden_layers": 2.5}, r"num_hidden_layers 2\.5"),
        ({"hidden_size": 10**400}, "hidden_size a number of 401 digits"),
        ({"hidden_size": [64]}, r"hidden_size \[64\]"),
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        ({"num_key_value_heads": 3}, "num_key_value_heads 3; allowed: divisors of the 4 heads"),
        ({"head_dim": 15}, "head_dim 15; allowed: even"),
        ({"rope_theta": 0}, "rope_theta 0; allowed"),
        ({"rope_theta": -1.0}, "rope_theta"),
        ({"rope_theta": {"a": 1}}, "rope_theta an object of 1 keys"),
        ({"rope_scaling": "linear"}, "rope_scaling 'linear'; allowed: an object"),
        ({"rope_scaling": {"rope_type": ["llama3"]}}, "rope_scaling.rope_type"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "one set of numbers"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rms_norm_eps": -1}, "rms_norm_eps -1"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps '1e-5'"),
        ({"vocab_size": 10**10}, "vocab_size 10000000000"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings 'yes'; allowed: true or false"),
        ({"orpheus": []}, r"orpheus \[\]; allowed: an object"),
        ({"orpheus": SPEECH | {"voices": "elise"}}, "orpheus.voices 'elise'; allowed: a list"),
        ({"orpheus": SPEECH | {"voices": ["a", 1]}}, "orpheus.voices"),
        ({"orpheus": SPEECH | {"voices": ["a", "a"]}}, "each string once"),
        ({"orpheus": SPEECH | {"voices": ["\x1b[2J"]}}, "orpheus.voices"),
        ({"orpheus": SPEECH | {"custom_token_base": -1}}, "orpheus.custom_token_base -1"),
        ({"orpheus": SPEECH | {"begin_of_text": 400}}, "begin_of_text 400"),
        ({"orpheus": SPEECH | {"codec": "/etc"}}, "orpheus.codec '/etc'; allowed: the name"),
        ({"orpheus": SPEECH | {"codec": "../other"}}, "orpheus.codec"),
        ({"orpheus": SPEECH | {"codec": "C:\\x"}}, "orpheus.codec"),
        ({"orpheus": SPEECH | {"alphabet": 5}}, "orpheus.alphabet 5"),
        ({"orpheus": SPEECH | {"language": 5}}, "orpheus.language 5"),
        ({"orpheus": SPEECH | {"language": "German"}}, "orpheus.language 'German'; .*small"),
        ({"orpheus": SPEECH | {"language": "\x1b[2J"}}, "orpheus.language"),
        ({"orpheus": SPEECH | {"comfortable_chars": 0}}, "orpheus.comfortable_chars 0"),
    ],
)
def test_a_refusal_names_file_key_given_and_allowed(change, words):
    with pytest.raises(CheckpointError, match=words) as caught:
        OrpheusConfig.from_dict(SHAPE | change, file="x/config.json")
    assert "x/config.json" in str(caught.value) or "config.json" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"rope_scaling": None},
        {"rope_scaling": {}},
        {"rope_scaling": {"type": "default"}},
        {"rope_scaling": {"rope_type": "linear", "factor": 1.0}},
        {"rope_scaling": {"type": "dynamic", "factor": 1}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"rope_theta": None},
        {"attention_bias": None, "hidden_act": None, "head_dim": None},
        {"num_hidden_layers": 2.0},
        {"orpheus": SPEECH | {"voices": None, "alphabet": None, "codec": None}},
    ],
)
def test_what_changes_nothing_is_as_if_it_were_not_there(change):
    plain = OrpheusConfig.from_dict(SHAPE)
    assert OrpheusConfig.from_dict(SHAPE | change) == plain
    section = OrpheusConfig.from_dict(SHAPE | {"vocab_size": 157000, "orpheus": None})
    assert section.speech == SpeechConfig()


def test_the_language_of_a_fine_tune_is_the_one_its_text_is_read_in():
    found = OrpheusConfig.from_dict(SHAPE | {"orpheus": SPEECH | {"language": "de"}})
    assert OrpheusText(found.speech).language(None) == "de"


def test_a_missing_rope_theta_is_transformers_default_and_told():
    values = {key: value for key, value in SHAPE.items() if key != "rope_theta"}
    found = OrpheusConfig.from_dict(values)
    assert found.transformer.rope_theta == 10000.0
    assert "no rope_theta" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sampling_rate": "24000"}, "sampling_rate '24000'"),
        ({"sampling_rate": 10**9}, "sampling_rate 1000000000"),
        ({"encoder_rates": 2}, "encoder_rates 2; allowed: a list"),
        ({"encoder_rates": [2, 4, 8, 4]}, "decoder_rates"),
        ({"decoder_rates": [8] * 100}, "a list of 100 items"),
        ({"decoder_dim": 10}, "decoder_dim 10; allowed: numbers that can be halved"),
        ({"encoder_dim": 10**12}, "encoder_dim"),
        ({"codebook_size": 0}, "codebook_size 0"),
        ({"codebook_dim": None}, "missing"),
        ({"latent_dim": 7}, "latent_dim 7; allowed: null or 128"),
        ({"noise": "no"}, "noise 'no'"),
        ({"vq_strides": "421"}, "vq_strides '421'"),
    ],
)
def test_a_codec_s_values_have_types_and_ranges(change, words):
    with pytest.raises(CheckpointError, match=words):
        SnacConfig.from_dict(CODEC | change)


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"do_sample": False, "temperature": 0.6}, "temperature", 0.0),
        ({"do_sample": None}, "temperature", 0.6),
        ({"temperature": 1}, "temperature", 1.0),
        ({"top_k": None}, "top_k", 0),
        ({"top_k": 50.0}, "top_k", 50),
    ],
)
def test_generation_config_is_read_as_transformers_does(values, name, expected, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    assert getattr(read_sampling(tmp_path), name) == expected


@pytest.mark.parametrize(
    "values",
    [{"temperature": "0.6"}, {"top_k": 10**30}, {"top_p": 0}, {"do_sample": "no"}, {"min_p": []}],
)
def test_generation_config_of_other_types_is_refused(values, tmp_path):
    (tmp_path / "generation_config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=f"{next(iter(values))}.*allowed"):
        read_sampling(tmp_path)


def written(folder: Path, **changes) -> Path:
    """A tokenizer of bytes with some keys of its file changed."""
    values = json.loads(byte_tokenizer(4, 7)[0].to_str()) | changes
    (folder / "tokenizer.json").write_text(json.dumps(values))
    return folder / "tokenizer.json"


def prompts(path: Path, **config) -> OrpheusPrompts:
    tokens = byte_tokenizer(4, 7)[1]
    return OrpheusPrompts(SpeechConfig(tokens=tokens, **config), check(path).open(1000))


def split(pattern: str) -> dict:
    regex = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps = [regex | {"invert": False}, bytes_ | {"use_regex": False}]
    return {"type": "Sequence", "pretokenizers": steps}


def test_truncation_padding_and_dropout_of_a_file_lose_no_text(tmp_path):
    path = written(tmp_path)
    whole = prompts(path).prompt("A long text, " * 50)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=2000)
    tokenizer.model.dropout = 0.5
    tokenizer.save(str(path))
    assert prompts(path).prompt("A long text, " * 50) == whole
    assert len(whole.tokens) > 600


def added(content: str, special: bool, number: int = 296) -> dict:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, "special": special, **flags}


@pytest.mark.parametrize(
    ("content", "special", "is_text"),
    [
        ("<laugh>", False, True),
        ("<laugh>", True, True),
        ("<giggle>", False, True),
        ("elise", False, True),
        ("elise", True, True),
        ("<pad>", True, False),
        ("<|im_start|>", True, False),
    ],
)
def test_added_words_are_text_and_special_tokens_are_not(content, special, is_text, tmp_path):
    before = json.loads(byte_tokenizer(4, 7)[0].to_str())["added_tokens"]
    path = written(tmp_path, added_tokens=[*before, added(content, special)])
    family = prompts(path, voices=("elise",))
    if is_text:
        assert 296 in family.prompt(f"Well {content} then").tokens
    else:
        with pytest.raises(InputError, match="control token"):
            family.prompt(f"Well {content} then")


def test_code_tokens_stay_control_tokens_without_the_flag(tmp_path):
    values = json.loads(byte_tokenizer(4, 7)[0].to_str())
    for each in values["added_tokens"]:
        each["special"] = False
    path = written(tmp_path, added_tokens=values["added_tokens"])
    with pytest.raises(InputError, match="control token"):
        prompts(path).prompt("<custom_token_2>")


@pytest.mark.parametrize("pattern", BACKTRACKING)
def test_patterns_that_backtrack_are_refused_at_load(pattern, tmp_path):
    with pytest.raises(CheckpointError, match=r"pre_tokenizer.*pattern"):
        check(written(tmp_path, pre_tokenizer=split(pattern)))


@pytest.mark.parametrize("pattern", [LLAMA3, r"\p{N}{1,3}", r" ?\p{L}+|\s+(?!\S)|\s+"])
def test_patterns_of_published_tokenizers_are_read(pattern, tmp_path):
    path = written(tmp_path, pre_tokenizer=split(pattern))
    with tried(path):
        pass
    assert prompts(path).prompt("Well, hello there!").tokens


def replace(content: str) -> dict:
    return {"type": "Replace", "pattern": {"String": "a"}, "content": content}


@pytest.mark.parametrize(
    "normalizer",
    [
        {"type": "Sequence", "normalizers": [replace("aa")] * 30},
        replace("a" * 1000),
        {"type": "Prepend", "prepend": "a" * 500},
        {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 1000},
        {"type": "Precompiled", "precompiled_charsmap": ""},
    ],
)
def test_normalizers_that_grow_text_are_refused(normalizer, tmp_path):
    with pytest.raises(CheckpointError, match="normalizer"):
        check(written(tmp_path, normalizer=normalizer))


def test_ids_beyond_the_vocabulary_are_refused_where_text_can_reach_them(tmp_path):
    before = json.loads(byte_tokenizer(4, 7)[0].to_str())["added_tokens"]
    path = written(tmp_path, added_tokens=[*before, added("<pad>", True)])
    assert check(path).open(296)  # a special one, which text cannot become
    path = written(tmp_path, added_tokens=[*before, added("elise", False)])
    with pytest.raises(CheckpointError, match=r"'elise' the token 296, and vocab_size is 296"):
        check(path).open(296)


def test_a_trial_finds_what_the_form_does_not_show(tmp_path):
    path = written(tmp_path, pre_tokenizer=split(r"(a+)+b"))
    with pytest.raises(CheckpointError, match="cannot be used"), tried(path):
        pass


class PanicException(BaseException):
    """What a panic inside a Rust library looks like."""


@pytest.mark.parametrize("error", [PanicException("retry-limit-in-match over"), Exception("UNK")])
def test_a_request_that_a_tokenizer_fails_on_is_an_input_error(error):
    def encode(text, add_special_tokens):
        raise error

    tokenizer = SimpleNamespace(encode=encode, get_added_tokens_decoder=dict)
    family = OrpheusPrompts(SpeechConfig(tokens=SpeechTokens()), tokenizer)
    with pytest.raises(InputError, match="tokenizer"):
        family.prompt("Hello")


atoms = st.sampled_from(["a", "b", "c", ".", "[ab]", "[^a]", r"\w", r"\.", "^", "$", r"\b"])
shapes = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda p: f"(?:{p[0]}|{p[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?"])).map(
            lambda p: f"(?:{p[0]}){p[1]}"
        ),
        inner.map(lambda p: f"(?={p})"),
        inner.map(lambda p: f"(?!{p})"),
    ),
    max_leaves=6,
)


@given(pattern=shapes, text=st.text("abc._\n", max_size=6))
@settings(max_examples=400)
def test_patterns_match_what_python_s_do(pattern, text):
    assert Pattern(pattern).matches(text, Budget()) == bool(re.match(pattern, text))


@pytest.mark.parametrize("pattern", [*BACKTRACKING, ".*.*.*.*.*.*.*.*x", "((((a*)*)*)*)*b"])
def test_targets_that_backtrack_end_at_once(pattern):
    budget = Budget(200_000)
    assert not Pattern(pattern).matches("a" * 200 + "!", budget) or pattern.startswith("(a?)")


@pytest.mark.parametrize(
    "pattern", ["(a", "a**", r"(a)\1", "(?<=a)b", "x" * 2000, "[b-a]", "a{99999}"]
)
def test_targets_that_are_not_understood_are_refused(pattern):
    config = quantization_config({"layer": Format.INT8}, Format.BF16)
    config["ignore"] = [f"re:{pattern}"]
    with pytest.raises(CheckpointError, match=r"has the pattern|has a name"):
        Schemes(config).scheme("layer", frozenset())


def test_steady_patterns_are_told_from_others():
    assert is_steady(parse(LLAMA3))
    assert not any(is_steady(parse(pattern)) for pattern in BACKTRACKING)


@pytest.mark.parametrize("key", ["sparsity_config", "transform_config"])
@pytest.mark.parametrize("value", [None, {}, {"format": "dense"}])
def test_a_dense_sparsity_is_none(key, value):
    config = quantization_config({"layer": Format.INT8}, Format.BF16) | {key: value}
    if key == "sparsity_config" or not value:
        assert Schemes(config).scheme("layer", frozenset()) is not None


TENSORS = {"a": torch.ones(2), "b": torch.zeros(3)}


def test_the_whole_file_counts_beside_a_stale_index(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "gone-1.safetensors"}}))
    with open_tensors(tmp_path) as reader:
        assert reader.names() == TENSORS.keys()


def test_sharded_pickles_are_read_together(tmp_path):
    weight_map = {}
    for name, tensor in TENSORS.items():
        torch.save({name: tensor}, tmp_path / f"pytorch_model-{name}.bin")
        weight_map[name] = f"pytorch_model-{name}.bin"
    (tmp_path / PICKLE_INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with open_tensors(tmp_path) as reader:
        assert all(torch.equal(reader.read(name), tensor) for name, tensor in TENSORS.items())
    (tmp_path / PICKLE_INDEX).write_text(json.dumps({"weight_map": {"a": "../x.bin"}}))
    with pytest.raises(CheckpointError, match="names the shard"):
        open_tensors(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "x.safetensors", "pytorch_model.bin"])
def test_only_regular_files_are_opened(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(CheckpointError, match="is a named pipe, and must be a file"):
        open_tensors(tmp_path)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="named pipe"):
        load(tmp_path)


def test_a_folder_under_a_file_s_name_is_told(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="is a folder, and must be a file"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\x9b", "\u202e", "\ud800", "\x00"])
def test_messages_are_one_printable_line(text):
    assert str(QuaverError(f"the tensor {text}")).isprintable()
    assert printable("naïve 漢字 🎉 ऋतिका\u200d") == "naïve 漢字 🎉 ऋतिका\u200d"


def folder(tmp_path: Path, *files: str) -> Path:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("adapter_config.json", "adapter_model.safetensors"), "is an adapter .*merge_and_unload"),
        (("model-q4.gguf",), "GGUF is not read; take the original"),
        (("model.onnx",), "ONNX is not read"),
        (("onnx/model.onnx",), "ONNX is not read"),
        (("weights.npz",), "MLX"),
        (("checkpoint-50/config.json", "checkpoint-500/config.json"), "such as .*checkpoint-500"),
        (("global_step10/x", "latest"), "zero_to_fp32"),
        (("optimizer.pt", "scheduler.pt"), "state of a trainer"),
        (("consolidated.00.pth",), r"original weights of Llama \(\.pth\)"),
        (("model.safetensors",), "no config.json"),
        (("model.safetensors.incomplete",), "its download has not ended"),
        (("readme.md",), "has no config.json"),
    ],
)
def test_other_folders_are_recognised(files, words, tmp_path):
    with pytest.raises(CheckpointError, match=words):
        resolve(str(folder(tmp_path, *files)))


def test_the_hub_s_cache_and_single_files_are_recognised(tmp_path):
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="give org/name"):
        resolve(str(cache))
    for name, words in (("x.gguf", "GGUF is not read"), ("x.safetensors", "give the folder")):
        (tmp_path / name).write_text("")
        with pytest.raises(InputError, match=words):
            resolve(str(tmp_path / name))


def test_a_pointer_of_git_lfs_is_recognised(tmp_path):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_tensors(tmp_path)
    with pytest.raises(CheckpointError, match="git lfs pull"):
        load(tmp_path)


@pytest.fixture
def copy(tiny_checkpoint, tmp_path):
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def test_a_missing_codec_names_folder_and_checkpoint(copy):
    shutil.rmtree(copy / "codec")
    with pytest.raises(CheckpointError, match=r"copy lacks its codec: .*folder 'codec'.*--codec"):
        load(copy, "fp32", "cpu")


def test_an_adapter_beside_the_model_is_told(copy):
    save_file({"a": torch.ones(1)}, copy / "adapter_model.safetensors")
    assert any("adapter" in note for note in load(copy, "fp32", "cpu").info()["notes"])


def test_a_fine_tune_s_own_voices(copy):
    family = load(copy, "fp32", "cpu", voices="elise, tom")
    assert family.info()["voices"] == ["elise", "tom"]
    with pytest.raises(InputError, match=r"'ada'; .*elise, tom.*--voices"):
        family.stream("Hello.", voice="ada")
    assert load(copy, "fp32", "cpu", voices=["a"]).info()["voices"] == ["a"]


@pytest.mark.parametrize("given", ["", "a,,b", "a,a", "x" * 81, ["\x1b"]])
def test_names_of_voices_are_checked(given):
    with pytest.raises(InputError, match="the voices are"):
        read_voices(given)


def test_a_model_that_the_weights_do_not_fill_is_not_built(copy):
    """Sizes are compared before memory is taken: this one would have 10^12 numbers."""
    config = json.loads((copy / "config.json").read_text())
    config |= {"hidden_size": 2**17, "vocab_size": 2**22, "head_dim": 1024}
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="of wrong shape"):
        load(copy, "fp32", "cpu")


def test_tensors_with_names_that_move_the_cursor(copy):
    tensors = load_file(copy / "model.safetensors")
    save_file(tensors | {"\x1b[2Jevil": torch.ones(1)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"unexpected: \\x1b\[2Jevil"):
        load(copy, "fp32", "cpu")
