"""Judges from folders, with tiny random models in the layouts of the real ones."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from torch.nn import functional as F

from late import Late
from quaver.core.errors import InputError, UnsupportedError
from quaver.quality.metrics import find_metrics, packages
from quaver.quality.metrics.metric import NotMeasured, Score, Speech
from quaver.quality.metrics.utmos import STRIDES, Utmos
from quaver.quality.metrics.wavlm import WavlmSimilarity
from quaver.quality.metrics.wer import word_errors
from quaver.quality.metrics.whisper import WhisperWordErrorRate

transformers = Late("transformers")
RATE = 16_000


def glide(seconds=1.5, hertz=130.0):
    time = np.arange(int(RATE * seconds)) / RATE
    phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.2 * np.sin(4 * time))) / RATE
    return 0.05 * sum(np.sin(k * phase) / k for k in range(1, 20)).astype(np.float32)


def spoken(samples, text="Good morning.", rate=RATE):
    return Speech(np.asarray(samples, dtype=np.float32), rate, text)


# --- Whisper ---


def whisper_tokenizer():
    vocab = {letter: k for k, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = transformers.WhisperTokenizer(vocab=vocab, merges=[])
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>"]
    special += ["<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>"]
    special += ["<|notimestamps|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens([f"<|{k * 0.02:.2f}|>" for k in range(1501)])
    return tokenizer


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A folder as openai/whisper-tiny's, of random weights."""
    folder = tmp_path_factory.mktemp("whisper")
    tokenizer = whisper_tokenizer()
    ids = tokenizer.get_vocab()
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=len(tokenizer),
            num_mel_bins=80,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_target_positions=40,
            init_std=0.5,  # so that its words depend on what it hears
            pad_token_id=end,
            bos_token_id=end,
            eos_token_id=end,
            decoder_start_token_id=start,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        )
    )
    model.generation_config = transformers.GenerationConfig(
        is_multilingual=True,
        lang_to_id={f"<|{name}|>": ids[f"<|{name}|>"] for name in ("en", "de")},
        task_to_id={name: ids[f"<|{name}|>"] for name in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        max_initial_timestamp_index=50,
        max_length=30,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        # Letters are to be compared: ASCII's come first, and most other tokens are timestamps.
        suppress_tokens=[k for k in range(94, len(tokenizer)) if k != end],
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def copied(folder, target):
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_whisper_hears_what_transformers_own_pipeline_hears(whisper):
    judge = WhisperWordErrorRate(whisper)
    pipeline = transformers.pipeline("automatic-speech-recognition", model=str(whisper))
    heard = set()
    for sound in (glide(), glide(2.0, 220), 0.3 * glide(1.0, 90)[::-1].copy()):
        wanted = pipeline(
            sound.copy(),
            # its own default is five beams
            generate_kwargs={"language": "en", "task": "transcribe", "num_beams": 1},
        )["text"]
        assert judge.transcribe(sound, RATE) == wanted.strip() != ""
        heard.add(wanted)
    assert len(heard) > 1, "the tiny model says the same of everything"


def test_whisper_counts_words_as_the_other_recogniser_does(whisper, monkeypatch):
    judge = WhisperWordErrorRate(whisper)
    monkeypatch.setattr(judge, "transcribe", lambda samples, rate: " Mr. Brown has 42 cats!")
    text = "Mister Brown had forty two cats."
    assert judge.measure(spoken(glide(), text)) == Score(1 / 6, weight=6)
    assert judge.hear(spoken(glide(), text)) == (Score(1 / 6, 6), " Mr. Brown has 42 cats!")
    assert judge.errors(text, glide(), RATE) == word_errors(text, " Mr. Brown has 42 cats!")


def test_whisper_hears_nothing_in_silence_and_says_what_it_cannot_judge(whisper):
    judge = WhisperWordErrorRate(whisper)
    assert judge.transcribe(np.zeros(RATE), RATE) == ""
    assert judge.measure(spoken(np.zeros(RATE))) == Score(1.0, weight=2)
    assert "NaN" in judge.measure(spoken(np.full(RATE, np.nan))).reason
    assert "8000" in judge.measure(spoken(glide(), rate=4000)).reason
    assert "no words" in judge.measure(spoken(glide(), text="...")).reason


def test_whisper_hears_more_than_half_a_minute_and_other_rates(whisper):
    judge = WhisperWordErrorRate(whisper)
    assert isinstance(judge.measure(spoken(glide(31.0))), Score)
    assert isinstance(judge.measure(spoken(glide(), rate=24_000)), Score)


def test_a_whisper_of_english_alone_is_not_told_the_language(whisper, tmp_path):
    folder = copied(whisper, tmp_path / "english")
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text())
    for key in ("lang_to_id", "task_to_id"):
        del settings[key]
    path.write_text(json.dumps({**settings, "is_multilingual": False}))
    assert WhisperWordErrorRate(folder).transcribe(glide(), RATE)
    del settings["is_multilingual"]
    path.write_text(json.dumps(settings))
    with pytest.raises(InputError, match="it is old"):
        WhisperWordErrorRate(folder)


# --- WavLM ---


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory):
    """A folder as microsoft/wavlm-base-plus-sv's, of random weights."""
    folder = tmp_path_factory.mktemp("wavlm")
    torch.manual_seed(0)
    config = transformers.WavLMConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        tdnn_dim=(24, 24, 24, 24, 48),
        xvector_output_dim=24,
        use_weighted_layer_sum=True,
    )
    transformers.WavLMForXVector(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder


def test_the_cosine_is_transformers_own(wavlm):
    # nothing is trimmed of sound that begins and ends aloud
    ours, theirs = glide(1.5, 130), glide(2.0, 200)
    model = transformers.WavLMForXVector.from_pretrained(wavlm).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor.from_pretrained(wavlm)
    with torch.inference_mode():
        vectors = [
            model(**extractor(x, sampling_rate=RATE, return_tensors="pt")).embeddings
            for x in (ours, theirs)
        ]
    wanted = float(nn.CosineSimilarity()(*vectors))
    judge = WavlmSimilarity(wavlm)
    assert judge.measure(spoken(ours), spoken(theirs)).value == pytest.approx(wanted, abs=1e-5)
    assert judge.measure(spoken(ours), spoken(ours)).value == pytest.approx(1)
    assert wanted < 0.9999
    for fault in (np.zeros(RATE), np.full(RATE, np.inf), glide(0.2)):
        assert isinstance(judge.measure(spoken(fault), spoken(ours)), NotMeasured)
        assert isinstance(judge.measure(spoken(ours), spoken(fault)), NotMeasured)
    assert "no reference" in judge.measure(spoken(ours)).reason


# --- folders of transformers ---


def both(whisper, wavlm):
    return ((WhisperWordErrorRate, whisper), (WavlmSimilarity, wavlm))


def test_versions_name_the_judge_and_its_weights(whisper, wavlm, tmp_path):
    for judge, folder in both(whisper, wavlm):
        before = judge(folder).version
        twin = copied(folder, tmp_path / judge.name)
        assert judge(twin).version == before, "where the folder lies is no matter"
        state = load_file(twin / "model.safetensors")
        key = sorted(state)[0]
        save_file({**state, key: state[key] + 1}, twin / "model.safetensors", {"format": "pt"})
        assert judge(twin).version != before
        architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
        assert before.startswith(f"{architecture} ") and "transformers" in before


def test_a_wrong_folder_is_refused_in_one_line(whisper, wavlm, tmp_path):
    for judge, folder in both(whisper, wavlm):
        other = wavlm if folder is whisper else whisper
        made = copied(folder, tmp_path / judge.name)
        cases = [
            (tmp_path / "nowhere", "is none"),
            (folder / "config.json", "is none"),
            (tmp_path, "config.json"),
            (other, "config.json names"),
        ]
        for wrong, reason in cases:
            with pytest.raises(InputError, match=reason) as error:
                judge(wrong)
            assert "\n" not in str(error.value) and str(wrong) in str(error.value)
        for missing in ("model.safetensors", "processor_config.json", "preprocessor_config.json"):
            (made / missing).unlink(missing_ok=True)
            if missing != "processor_config.json":
                with pytest.raises(InputError, match=r"model\.safetensors|processor_config"):
                    judge(made)
        (made / "config.json").write_text("{")
        with pytest.raises(InputError, match="cannot be read"):
            judge(made)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json"])
def test_whisper_needs_what_tells_it_to_speak(whisper, tmp_path, name):
    folder = copied(whisper, tmp_path / "less")
    (folder / name).unlink()
    with pytest.raises(InputError, match=name):
        WhisperWordErrorRate(folder)


def test_weights_in_parts_must_all_be_there(wavlm, tmp_path):
    folder = copied(wavlm, tmp_path / "parts")
    (folder / "model.safetensors").unlink()
    model = transformers.WavLMForXVector.from_pretrained(wavlm)
    model.save_pretrained(folder, max_shard_size="50KB")
    parts = sorted(folder.glob("model-*.safetensors"))
    assert len(parts) > 1
    whole = WavlmSimilarity(wavlm).measure(spoken(glide()), spoken(glide(2, 200)))
    found = WavlmSimilarity(folder).measure(spoken(glide()), spoken(glide(2, 200)))
    assert found.value == pytest.approx(whole.value, abs=1e-6)
    parts[-1].unlink()
    with pytest.raises(InputError, match=parts[-1].name):
        WavlmSimilarity(folder)


def test_weights_that_lack_a_tensor_are_not_made_up(wavlm, tmp_path):
    folder = copied(wavlm, tmp_path / "less")
    state = load_file(folder / "model.safetensors")
    del state["projector.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack projector\.weight"):
        WavlmSimilarity(folder).measure(spoken(glide()), spoken(glide()))
    (folder / "model.safetensors").write_bytes(b"no tensors at all")
    with pytest.raises(InputError, match="cannot be loaded"):
        WavlmSimilarity(folder).measure(spoken(glide()), spoken(glide()))


class Trap:
    """What a pickle may do to those who open it."""

    def __reduce__(self):
        return (exec, ("import quaver; quaver.sprung = True",))


def test_no_pickle_is_run(wavlm, tmp_path):
    import quaver

    folder = copied(wavlm, tmp_path / "trap")
    (folder / "model.safetensors").unlink()
    (tmp_path / "utmos").mkdir()
    for file in (folder / "pytorch_model.bin", tmp_path / "utmos" / "utmos.pt"):
        torch.save({"projector.weight": Trap()}, file)
    with pytest.raises(InputError, match="cannot be loaded"):
        WavlmSimilarity(folder).measure(spoken(glide()), spoken(glide()))
    with pytest.raises(InputError, match="tensors alone"):
        Utmos(tmp_path / "utmos")
    assert not hasattr(quaver, "sprung")


def test_judges_are_found_by_their_folders(whisper, wavlm, utmos, monkeypatch):
    folders = {"whisper": whisper, "wavlm": wavlm, "utmos": utmos}
    found = find_metrics(folders)
    for name in ("whisper-wer", "wavlm-similarity", "utmos"):
        assert found[name].name == name
    assert "utmos" not in find_metrics()
    installed = packages.version

    def without(package):
        if package == "transformers":
            raise packages.PackageNotFoundError(package)
        return installed(package)

    monkeypatch.setattr(packages, "version", without)
    with pytest.raises(UnsupportedError, match="pip install transformers"):
        WavlmSimilarity(wavlm)
    for name in ("whisper-wer", "wavlm-similarity", "utmos"):
        assert "pip install transformers" in find_metrics(folders)[name].reason


# --- UTMOS ---


def utmos_state(width=128, narrow=8, layers=2, extra=4, recurrent=6, hidden=10):
    """Random tensors under the names of SpeechMOS' file; two heads of 64."""
    draw = torch.Generator().manual_seed(0)
    state = {"wav2vec2.mask_emb": torch.zeros(width)}

    def add(name, *shape, scale=0.2, around=0.0):
        state[name] = around + scale * torch.randn(shape, generator=draw)

    def norm(name, size):
        add(f"{name}.weight", size, around=1.0)
        add(f"{name}.bias", size)

    def linear(name, out, into):
        add(f"{name}.weight", out, into, scale=into**-0.5)
        add(f"{name}.bias", out)

    for k, kernel in enumerate((10, 3, 3, 3, 3, 2, 2)):
        into = 1 if k == 0 else narrow
        add(f"wav2vec2.feature_extractor.conv_layers.{k}.0.weight", narrow, into, kernel, scale=0.6)
    norm("wav2vec2.feature_extractor.conv_layers.0.2", narrow)
    norm("wav2vec2.layer_norm", narrow)
    linear("wav2vec2.post_extract_proj", width, narrow)
    add("wav2vec2.encoder.pos_conv.0.weight_v", width, width // 16, 8)
    add("wav2vec2.encoder.pos_conv.0.weight_g", 1, 1, 8, around=2.0)
    add("wav2vec2.encoder.pos_conv.0.bias", width)
    norm("wav2vec2.encoder.layer_norm", width)
    for k in range(layers):
        layer = f"wav2vec2.encoder.layers.{k}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.self_attn.{part}", width, width)
        linear(f"{layer}.fc1", 2 * width, width)
        linear(f"{layer}.fc2", width, 2 * width)
        norm(f"{layer}.self_attn_layer_norm", width)
        norm(f"{layer}.final_layer_norm", width)
    add("domain_emb", 1, extra)
    add("judge_emb", 1, extra)
    for way in ("", "_reverse"):
        add(f"blstm.weight_ih_l0{way}", 4 * recurrent, width + 2 * extra)
        add(f"blstm.weight_hh_l0{way}", 4 * recurrent, recurrent)
        add(f"blstm.bias_ih_l0{way}", 4 * recurrent)
        add(f"blstm.bias_hh_l0{way}", 4 * recurrent)
    linear("projection.0", hidden, 2 * recurrent)
    linear("projection.2", 1, hidden)
    return state


@pytest.fixture(scope="module")
def utmos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("utmos")
    torch.save(utmos_state(), folder / "utmos22_strong_step7459_v1.pt")
    return folder


def attention(x, state, layer, heads=2):
    def project(part):
        return F.linear(
            x, state[f"{layer}.{part}_proj.weight"], state[f"{layer}.{part}_proj.bias"]
        ).unflatten(-1, (heads, -1))

    weights = torch.einsum("nhd,mhd->hnm", project("q"), project("k")) / 8  # sqrt(64)
    mixed = torch.einsum("hnm,mhd->nhd", weights.softmax(-1), project("v")).flatten(1)
    return F.linear(mixed, state[f"{layer}.out_proj.weight"], state[f"{layer}.out_proj.bias"])


@torch.no_grad()
def utmos_by_hand(sound, state, layers=2, recurrent=6):
    """The opinion of `sound` [n], step by step from the names in the file."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    x = torch.from_numpy(sound)[None, None]
    for k, stride in enumerate(STRIDES):
        layer = f"wav2vec2.feature_extractor.conv_layers.{k}"
        x = F.conv1d(x, state[f"{layer}.0.weight"], stride=stride)
        if k == 0:
            weight, bias = state[f"{layer}.2.weight"], state[f"{layer}.2.bias"]
            x = F.group_norm(x, x.shape[1], weight, bias)
        x = F.gelu(x)
    x = linear(norm(x[0].T, "wav2vec2.layer_norm"), "wav2vec2.post_extract_proj")
    encoder = "wav2vec2.encoder"
    direction = state[f"{encoder}.pos_conv.0.weight_v"]
    length = direction.pow(2).sum((0, 1), keepdim=True).sqrt()
    kernel = state[f"{encoder}.pos_conv.0.weight_g"] * direction / length
    placed = F.conv1d(x.T[None], kernel, state[f"{encoder}.pos_conv.0.bias"], padding=4, groups=16)
    x = norm(x + F.gelu(placed[0, :, :-1].T), f"{encoder}.layer_norm")
    for k in range(layers):
        layer = f"{encoder}.layers.{k}"
        x = norm(x + attention(x, state, f"{layer}.self_attn"), f"{layer}.self_attn_layer_norm")
        wide = linear(F.gelu(linear(x, f"{layer}.fc1")), f"{layer}.fc2")
        x = norm(x + wide, f"{layer}.final_layer_norm")
    beside = torch.cat([state["domain_emb"], state["judge_emb"]], dim=1).expand(len(x), -1)
    blstm = nn.LSTM(x.shape[1] + beside.shape[1], recurrent, bidirectional=True)
    blstm.load_state_dict(
        {k.removeprefix("blstm."): v for k, v in state.items() if k.startswith("blstm.")}
    )
    x = F.relu(linear(blstm(torch.cat([x, beside], dim=1))[0], "projection.0"))
    return 3 + 2 * float(linear(x, "projection.2").mean())


def test_utmos_is_what_its_file_says_step_by_step(utmos):
    judge, heard = Utmos(utmos), set()
    for sound in (glide(1.5), glide(1.01, 220), np.float32(glide(0.8) ** 2 * 9)):
        score = judge.measure(spoken(sound)).value
        assert score == pytest.approx(utmos_by_hand(sound, utmos_state()), abs=1e-4)
        heard.add(round(score, 3))
    assert len(heard) > 1
    assert isinstance(judge.measure(spoken(glide(0.2))), NotMeasured)
    assert isinstance(judge.measure(spoken(np.full(RATE, np.nan))), NotMeasured)


def test_utmos_reads_safetensors_too(utmos, tmp_path):
    save_file(utmos_state(), tmp_path / "utmos.safetensors")
    first, second = Utmos(utmos), Utmos(tmp_path)
    wanted = first.measure(spoken(glide())).value
    assert second.measure(spoken(glide())).value == pytest.approx(wanted, abs=1e-5)
    assert first.version != second.version and "UTMOS22" in first.version


def test_a_wrong_file_is_no_utmos(tmp_path):
    def folder(state, name):
        (tmp_path / name).mkdir()
        torch.save(state, tmp_path / name / "model.pt")
        return tmp_path / name

    state = utmos_state()
    with pytest.raises(InputError, match="has 0 files"):
        Utmos(tmp_path)
    with pytest.raises(InputError, match="state of one network"):
        Utmos(folder({"model": state}, "nested"))
    with pytest.raises(InputError, match="it lacks 'domain_emb'"):
        Utmos(folder({k: v for k, v in state.items() if k != "domain_emb"}, "less"))
    judge = Utmos(folder({**state, "blstm.weight_ih_l1": torch.zeros(2)}, "more"))
    with pytest.raises(InputError, match="weight_ih_l1"):
        judge.measure(spoken(glide()))
    torch.save(state, tmp_path / "less" / "second.pt")
    with pytest.raises(InputError, match="has 2 files"):
        Utmos(tmp_path / "less")
