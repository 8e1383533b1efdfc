"""Text to sound as a whole, over a tiny checkpoint: what a caller of `quaver.load` relies on."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from quaver.audio.encode import save
from quaver.core.errors import CheckpointError, ConfigError, InputError, UnsupportedError
from quaver.core.protocols import Part
from quaver.core.types import Audio, FinishReason
from quaver.loading import load, open_model
from quaver.precision import find_recipe
from quaver.synthesizer import MAX_CHARS, SpeechSynthesizer

FRAME = 2048
TEXT = "Hello."
LONG = " ".join(f"This is sentence number {i}, and it goes on for a while." for i in range(12))
BRIEF = {"temperature": 0.8, "top_p": 1.0}


@pytest.fixture(scope="module")
def voice(device, tiny_checkpoint) -> SpeechSynthesizer:
    return load(tiny_checkpoint, "fp32", str(device), slots=2, max_length=1500)


def chunks_of(voice: SpeechSynthesizer, text: str, **options) -> list[NDArray[np.float32]]:
    with voice.stream(text, **options) as stream:
        return [chunk.samples for chunk in stream]


def same(first: Audio, second: Audio) -> bool:
    """Up to rounding, which a GPU's libraries may do differently from call to call."""
    return len(first.samples) == len(second.samples) and close(first.samples, second.samples)


def close(first: NDArray[np.float32], second: NDArray[np.float32]) -> bool:
    return np.allclose(first, second, rtol=0, atol=1e-5)


def idle(voice: SpeechSynthesizer) -> bool:
    return (voice._engine.running, voice._engine.waiting) == (0, 0)


def work_done(voice: SpeechSynthesizer) -> int:
    """Choices that the engine has ever drawn in its first slot."""
    return int(voice._engine._sampler.state.made[0])


def test_what_is_loaded_is_told(voice, device, tiny_checkpoint):
    info = voice.info()
    assert (info["family"], info["sample_rate"], info["recipe"]) == ("orpheus", 24000, "fp32")
    assert info["voices"] == ["ada", "ben"]
    assert info["model"] == tiny_checkpoint.name
    assert info["device"] == str(device)
    weights = [*voice._engine._model.parameters(), *voice._codec.parameters()]
    held = sum(w.numel() for w in weights)
    # the codec's encoder is on the host until there is a reference
    assert info["bytes"] == 4 * sum(w.numel() for w in weights if w.device.type == device.type)
    text = info["parameters"] - held  # rows that are on the host, where the rest is on a GPU
    assert text > 0 if device.type == "cuda" else text == 0
    assert info["cache_bytes"] == 2 * 1500 * 2 * 2 * (2 * 16 * 4)


@pytest.mark.parametrize(
    ("recipe", "wanted"), [("fp32", False), ("bf16", True), ("bf16,codec=fp32", False)]
)
def test_a_recipe_says_how_a_codec_multiplies(tiny_checkpoint, recipe, wanted):
    assert open_model(tiny_checkpoint, recipe, "cpu").codec.tf32 is wanted


def test_generate_is_the_drained_stream(voice):
    chunks = chunks_of(voice, TEXT, seed=1)
    whole = voice.generate(TEXT, seed=1)
    assert len(chunks) > 3
    assert all(len(c) and c.dtype == np.float32 and np.abs(c).max() <= 1 for c in chunks)
    assert close(np.concatenate(chunks), whole.samples)
    assert whole.sample_rate == 24000
    assert np.abs(whole.samples).max() > 0.01


def test_one_segment_has_all_samples_of_all_frames(voice):
    audio = voice.generate(TEXT, seed=1)
    assert len(audio.samples) == audio.stats.frames * FRAME


def test_stats_add_up(voice):
    with voice.stream(TEXT, seed=4) as stream:
        first = next(stream)
        assert stream.stats.audio_seconds == first.seconds
        rest = list(stream)
    stats = stream.stats
    assert stats.seed == 4
    assert stats.segments == 1
    assert stats.prompt_tokens == len(f"ada: {TEXT}") + 6
    assert stats.audio_seconds == pytest.approx(first.seconds + sum(c.seconds for c in rest))
    assert 0 < stats.ttfa_seconds < stats.busy_seconds
    assert stats.rtf == pytest.approx(stats.busy_seconds / stats.audio_seconds)
    assert stats.as_dict()["rtf"] == stats.rtf


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH])
def test_the_reason_of_the_end_is_told_and_a_stop_is_a_token(voice, reason):
    found = (voice.generate("Yes.", seed=seed, temperature=2.0).stats for seed in range(30))
    stats = next(stats for stats in found if stats.finish_reasons == [reason])
    limit = int((3 + len("Yes.") / 5) * 24000 / FRAME)
    assert (stats.frames == limit) == (reason is FinishReason.LENGTH)
    assert stats.tokens == 7 * stats.frames + (reason is FinishReason.STOP)
    assert stats.audio_seconds == pytest.approx(stats.frames * FRAME / 24000)


def test_long_text_is_spoken_in_segments(voice):
    chunks = chunks_of(voice, LONG, seed=2, **BRIEF)
    audio = voice.generate(LONG, seed=2, **BRIEF)
    assert audio.stats.segments == len(audio.stats.finish_reasons) > 2
    assert close(np.concatenate(chunks), audio.samples)
    assert audio.stats.tokens >= 7 * audio.stats.frames
    assert len(audio.samples) == pytest.approx(audio.stats.frames * FRAME, rel=0.2)
    assert idle(voice)


def test_segments_have_seeds_of_their_own(voice):
    sentence = "This is a sentence that is long enough to stand alone in a segment of its own here."
    twice = f"{sentence}\n\n{sentence}"
    whole = voice.generate(twice, seed=1).samples
    start = voice.generate(sentence, seed=1).samples[: 20 * FRAME]
    assert close(whole[: 20 * FRAME], start)
    matches = np.lib.stride_tricks.sliding_window_view(whole[20 * FRAME :], 64)
    assert np.abs(matches - start[FRAME : FRAME + 64]).max(axis=1).min() > 1e-3


def test_a_seed_repeats_and_is_told_when_drawn(voice):
    drawn = voice.generate(TEXT)
    assert same(voice.generate(TEXT, seed=drawn.stats.seed), drawn)
    assert not same(voice.generate(TEXT, seed=1), voice.generate(TEXT, seed=2))
    assert voice.generate(TEXT).stats.seed != drawn.stats.seed


@pytest.mark.parametrize("seed", [0, 2**63 - 1])
def test_the_ends_of_the_seeds_work(voice, seed):
    assert len(voice.generate("Yes.", seed=seed).samples)


def test_the_last_seed_works_for_several_segments(voice):
    assert voice.generate("Yes.\n\nNo.", seed=2**63 - 1).stats.segments == 2


def test_streams_read_in_turns_are_as_each_alone(voice):
    streams = [voice.stream(TEXT, seed=seed) for seed in range(3)]  # one more than slots
    heard: list[list[NDArray[np.float32]]] = [[] for _ in streams]
    open_ = {*range(3)}
    while open_:
        for index in sorted(open_):
            chunk = next(streams[index], None)
            if chunk is None:
                open_.remove(index)
            else:
                heard[index].append(chunk.samples)
    for seed, chunks in enumerate(heard):
        expected = voice.generate(TEXT, seed=seed).samples
        assert close(np.concatenate(chunks), expected)


def first_chunk_frames(voice: SpeechSynthesizer, **options) -> tuple[int, int]:
    """Frames made when the first chunk came, and its samples."""
    with voice.stream(TEXT, seed=3, **options) as stream:
        chunk = next(stream)
        return voice._engine._streams[0].made, len(chunk.samples)


def test_low_latency_starts_a_frame_earlier_and_ends_the_same(voice):
    assert first_chunk_frames(voice)[0] == 3
    frames, samples = first_chunk_frames(voice, low_latency=True)
    assert frames == 2
    assert samples > FRAME * 0.9
    early = voice.generate(TEXT, seed=3, low_latency=True).samples
    final = voice.generate(TEXT, seed=3).samples
    assert len(early) == len(final)
    assert close(early[FRAME:], final[FRAME:])
    assert 0.9 < np.corrcoef(early[:FRAME], final[:FRAME])[0, 1] < 1  # an estimate


def test_low_latency_is_the_same_while_others_drive_the_engine(voice, monkeypatch):
    alone = chunks_of(voice, TEXT, seed=3, low_latency=True)
    step = voice._engine.step
    monkeypatch.setattr(voice._engine, "step", lambda hold: [step(hold) for _ in range(5)])
    beside = chunks_of(voice, TEXT, seed=3, low_latency=True)
    assert [len(c) for c in beside] == [len(c) for c in alone]
    assert close(np.concatenate(beside), np.concatenate(alone))


def test_codec_noise_is_seeded_and_can_be_left_out(voice):
    noisy = voice.generate(TEXT, seed=1)
    quiet = voice.generate(TEXT, seed=1, codec_noise=False)
    assert quiet.stats.frames == noisy.stats.frames
    assert not same(noisy, quiet)
    assert same(quiet, voice.generate(TEXT, seed=1, codec_noise=False))


def test_voices_differ_and_the_first_is_the_default(voice):
    default = voice.generate(TEXT, seed=1)
    assert same(default, voice.generate(TEXT, seed=1, voice="ada"))
    assert not same(default, voice.generate(TEXT, seed=1, voice="ben"))
    assert not same(default, voice.generate(TEXT, seed=1, voice="none"))


def test_closing_a_stream_frees_its_slot(voice):
    stream = voice.stream(LONG, seed=1)
    next(stream)
    assert voice._engine.running == 1
    stream.close()
    assert idle(voice)
    assert stream.stats.finish_reasons == [FinishReason.CANCELLED]
    assert next(stream, None) is None


def test_leaving_the_block_frees_the_slot_even_on_an_error(voice):
    with pytest.raises(ZeroDivisionError), voice.stream(TEXT, seed=1) as stream:
        next(stream)
        raise ZeroDivisionError
    assert idle(voice)


def test_a_stream_that_is_never_read_holds_nothing(voice):
    voice.stream(TEXT, seed=1)
    voice.stream(TEXT, seed=1).close()
    assert idle(voice)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"text": ""}, InputError, "text is empty"),
        ({"text": " \n\t"}, InputError, "text is empty"),
        ({"text": "\u200b \x00"}, InputError, "text is empty"),
        ({"text": "a" * (MAX_CHARS + 1)}, InputError, f"at most {MAX_CHARS}"),
        ({"voice": "bob"}, InputError, "voices are ada, ben"),
        ({"seed": -1}, InputError, "seed is -1"),
        ({"seed": 2**63}, InputError, "allowed is 0 to"),
        ({"temperature": -0.1}, InputError, "temperature is -0.1"),
        ({"temperature": float("nan")}, InputError, "temperature is nan"),
        ({"top_p": 0.0}, InputError, "top_p is 0.0"),
        ({"warmth": 1.0}, ConfigError, "unknown sampling parameters .'warmth'"),
        ({"text": "Hello \u4e2d", "strict": True}, InputError, r"U\+4E2D \(CJK UNIFIED"),
        ({"text": LONG + " \u4e2d", "strict": True}, InputError, r"U\+4E2D \(CJK UNIFIED"),
        ({"text": "\u4e2d"}, InputError, r"no letter or digit to speak: .*U\+4E2D \(CJK"),
        ({"text": "..."}, InputError, "no letter or digit to speak: '...'"),
        ({"normalize": "most"}, InputError, "normalize is 'most'; allowed are auto, full, light"),
        ({"reference": "some.wav"}, InputError, "needs both"),
        ({"reference_text": "Hello."}, InputError, "needs both"),
    ],
)
def test_bad_arguments_are_refused_before_any_work(voice, arguments, error, message):
    before = work_done(voice)
    with pytest.raises(error, match=message):
        voice.stream(**({"text": TEXT} | arguments))
    assert idle(voice)
    assert work_done(voice) == before


# Text as chat models write it, what is spoken of it, and how much is left out.
READ = [
    ("Plain words.", ["Plain words."], 0),
    ("**Bold** and `code` here.", ["Bold and code here."], 0),
    ("Great job! \U0001f389", ["Great job!"], 1),
    ("Hel\u200dlo\u200e the\u202cre\u061c you\ufe0f.", ["Hello there you."], 0),
    ("A well\u2011known fact.", ["A well-known fact."], 0),
    ("A well\u2010known fact.", ["A well-known fact."], 0),
    ("It\u02bcs \u00a35.", ["It's five pounds."], 0),
    ("It costs $5.99 today.", ["It costs five dollars and ninety-nine cents today."], 0),
    ("Take 50% off.", ["Take fifty percent off."], 0),
    ("\u2022 One thing", ["One thing."], 0),
    ("Caf\u00e9 \u0141\u00f3d\u017a", ["Cafe Lodz"], 0),
    ("Say \u4f60\u597d to her.", ["Say to her."], 2),
    ("One.\n\n\u4f60\u597d\n\nTwo.", ["One.", "Two."], 2),
    ("Hi \ud83d there", ["Hi there"], 1),
]


@pytest.fixture
def spoken(voice, monkeypatch) -> list[str]:
    """Every text that becomes a prompt, references' too."""
    texts: list[str] = []
    prompt = voice._family.prompt

    def noted(text, speaker, reference):
        texts.extend([text] if reference is None else [reference.text, text])
        return prompt(text, speaker, reference)

    monkeypatch.setattr(voice._family, "prompt", noted)
    return texts


@pytest.mark.parametrize(("text", "segments", "left_out"), READ)
def test_written_text_is_spoken_as_words(voice, spoken, text, segments, left_out):
    with voice.stream(text, seed=1) as stream:
        assert stream.stats.characters_left_out == left_out
        assert len(stream.stats.left_out) == left_out  # here each is another
    assert " ".join(spoken).split() == " ".join(segments).split()
    if left_out:
        with pytest.raises(InputError, match=r"cannot read U\+"):
            voice.stream(text, seed=1, strict=True)
    else:
        voice.stream(text, seed=1, strict=True).close()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("auto", "five dollars"), ("full", "five dollars"), ("light", "$5"), ("off", "$5")],
)
def test_modes(voice, spoken, mode, expected):
    assert voice.info()["normalize"] == "full"  # its alphabet is declared
    voice.stream("It costs $5 today.", seed=1, normalize=mode).close()
    assert spoken == [f"It costs {expected} today."]


def test_what_a_reference_says_is_read_in_the_same_way(voice, spoken, recording):
    options = {"reference": recording, "seed": 1}
    with voice.stream("Hi.", reference_text="**Five** \u2764 & 5.", **options) as stream:
        assert stream.stats.characters_left_out == 1
    assert spoken == ["Five and five.", "Hi."]
    for text, more in (("...", {}), ("Hi \u2764", {"strict": True})):
        with pytest.raises(InputError, match="what the reference says cannot be read: "):
            voice.stream("Hi.", reference_text=text, **options, **more)


@pytest.fixture
def recording(tmp_path) -> Path:
    pytest.importorskip("av", reason="PyAV, which reads recordings, is not installed")
    time = np.arange(24000) / 24000
    return save(tmp_path / "voice.wav", (0.3 * np.sin(1400 * time)).astype(np.float32), 24000)


def test_a_reference_takes_the_place_of_the_voice(voice, recording):
    options = {"reference": recording, "reference_text": "A tone.", "seed": 1}
    cloned = voice.generate(TEXT, **options)
    assert cloned.stats.prompt_tokens == 6 + 7 + 12 * 7 + 2 + 6 + len(TEXT)
    assert len(cloned.samples)
    assert same(cloned, voice.generate(TEXT, **options))
    assert same(cloned, voice.generate(TEXT, **options, voice="ben"))
    assert not same(cloned, voice.generate(TEXT, seed=1))


def test_a_reference_too_long_for_the_cache_is_refused_before_any_work(voice, tmp_path):
    pytest.importorskip("av", reason="PyAV, which reads recordings, is not installed")
    long = save(tmp_path / "long.wav", np.zeros(20 * 24000, np.float32), 24000)
    with pytest.raises(InputError, match="shorten the text or the reference"):
        voice.stream(TEXT, reference=long, reference_text="Silence.")


class Mute:
    """A codec that makes no sound, of the shape of a real one."""

    sample_rate, samples_per_frame, codes_per_frame = 24000, FRAME, 7

    def streams(self, slots: int, graphs: bool) -> "Mute":
        return self

    def prepare(self, first: int) -> None:
        pass

    def open(self, seed: int | None) -> "Mute":
        return self

    def close(self) -> None:
        pass

    def decode(self, parts: list[Part]) -> list[NDArray[np.float32]]:
        return [
            np.zeros(len(p.frames) * FRAME if p.frames is not None else 0, np.float32)
            for p in parts
        ]


def test_streams_start_when_they_are_asked_for(voice):
    """Not when each is first read: who reads one drives them all."""
    first, second = voice.stream(TEXT, seed=1), voice.stream(TEXT, seed=2)
    with first, second:
        next(first)
        assert voice._engine.running == 2
    assert idle(voice)


def test_a_stream_that_nobody_reads_is_free_when_it_is_dropped(voice):
    stream = voice.stream(TEXT, seed=1)
    assert not idle(voice)
    del stream
    assert idle(voice)


def test_speech_that_has_gone_silent_is_ended(voice):
    mute = SpeechSynthesizer(voice._family, voice._engine, Mute(), voice._sampling, {})
    audio = mute.generate("A text that could take a long time to be said." * 3, seed=1)
    assert audio.stats.finish_reasons == [FinishReason.SILENCE]
    assert 3.0 <= audio.stats.frames * FRAME / 24000 < 4.5
    assert audio.stats.ttfa_seconds is None
    assert idle(voice)


def test_a_checkpoint_may_set_its_own_sampling(tiny_checkpoint, tmp_path, device):
    folder = tmp_path / "greedy"
    folder.mkdir()
    for path in tiny_checkpoint.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "generation_config.json").write_text('{"temperature": 0.0, "eos_token_id": 2}')
    greedy = load(folder, "fp32", str(device), slots=1, max_length=900)
    assert greedy._sampling.temperature == 0.0
    assert greedy._sampling.top_p == load(tiny_checkpoint, "fp32", "cpu")._sampling.top_p
    frames = [greedy.generate("Hi.", seed=seed, codec_noise=False) for seed in (1, 2)]
    assert same(*frames)


def test_two_recipes_live_side_by_side(voice, tiny_checkpoint, device):
    other = load(tiny_checkpoint, find_recipe("bf16"), str(device), slots=1, max_length=900)
    before = voice.generate(TEXT, seed=1)
    assert other.info()["recipe"] == "bf16"
    assert other.info()["bytes"] < voice.info()["bytes"]
    assert len(other.generate(TEXT, seed=1).samples)
    assert same(voice.generate(TEXT, seed=1), before)


@pytest.mark.parametrize("name", ["tpu", "mps", "gpu"])
def test_unknown_devices_are_refused(tiny_checkpoint, name):
    with pytest.raises(UnsupportedError, match=f"'{name}'"):
        load(tiny_checkpoint, device=name)


def test_a_codec_of_another_size_is_refused(tiny_checkpoint, tmp_path):
    codec = tmp_path / "codec"
    codec.mkdir()
    config = (tiny_checkpoint / "codec" / "config.json").read_text()
    (codec / "config.json").write_text(config.replace('"codebook_size": 64', '"codebook_size": 32'))
    (codec / "model.safetensors").symlink_to(tiny_checkpoint / "codec" / "model.safetensors")
    with pytest.raises(CheckpointError):
        load(tiny_checkpoint, "fp32", "cpu", codec=codec)
