"""`quaver say`: speak text into a file or a pipe, while it is made."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from quaver.cli.output import AudioTarget, print_json, warn
from quaver.core.errors import InputError
from quaver.core.textfile import argument_text, decode_text
from quaver.core.types import MAX_CHARS, FinishReason, SamplingParams
from quaver.core.voices import read_voices
from quaver.text.reading import AUTO, LeftOut, check_mode, check_speakable, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quaver.core.protocols import TextFamily
    from quaver.core.types import StreamStats

DASHED_TEXT = re.compile(r"--?[^A-Za-z-]")
SAMPLE = "Hello there. This is a voice in eight bits."
ABOUT = ("model", "revision", "recipe", "recipe_reason", "notes", "device", "sample_rate")
MAX_BYTES = 4 * 2**20  # read no more, whatever a file holds: days of speech

Text = Annotated[str | None, typer.Argument(help="What to say; - reads standard input.")]
File = Annotated[
    Path | None,
    typer.Option(help="Say what this file holds, in UTF-8.", exists=True, dir_okay=False),
]
Model = Annotated[
    str, typer.Option(help="A bundled name, a folder, or a hub id: org/name, org/name@revision.")
]
Recipe = Annotated[
    str | None,
    typer.Option(help="Precision, such as bf16, int8, auto; `quaver doctor` lists what runs here."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: a GPU if any.")]
Codec = Annotated[str | None, typer.Option(help="Folder or hub id of another codec.")]
Voices = Annotated[
    str | None,
    typer.Option(help="The voices that a fine-tune was trained with: elise,tom."),
]
Voice = Annotated[
    str | None, typer.Option(help="A voice of the model, or none; default: its first.")
]
Seed = Annotated[
    int | None, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same speech.")
]
Out = Annotated[
    str | None,
    typer.Option(
        help="File to write: .wav, .mp3, .opus, .flac, .aac, .pcm, .ulaw or .alaw; - is standard "
        "output. Default: quaver.wav in this folder."
    ),
]
Format = Annotated[
    str | None, typer.Option(help="Format, where --out has no ending to tell it; WAV for -.")
]
Rate = Annotated[
    int | None,
    typer.Option(
        help="Hz to write, 8000 to 48000. Default: the model's; 24000 for pcm, 8000 for G.711."
    ),
]
Temperature = Annotated[float | None, typer.Option(help="0 takes the most probable code.")]
TopK = Annotated[int | None, typer.Option(help="Choose among so many codes; 0 is off.")]
TopP = Annotated[float | None, typer.Option(help="Choose among this much probability; 1 is off.")]
MinP = Annotated[float | None, typer.Option(help="Least share of the best code's; 0 is off.")]
Penalty = Annotated[float | None, typer.Option(help="Against codes said before; 1 is off.")]
Window = Annotated[int | None, typer.Option(help="Last tokens that are penalised; 0 is all.")]
Reference = Annotated[
    Path | None,
    typer.Option(help="Recording of a voice to clone.", exists=True, dir_okay=False),
]
ReferenceText = Annotated[str | None, typer.Option(help="What the recording says.")]
LowLatency = Annotated[bool, typer.Option(help="Start one frame earlier, a little less exact.")]
CodecNoise = Annotated[
    bool, typer.Option(" /--no-codec-noise", help="Leave out the codec's noise blocks.")
]
Normalize = Annotated[
    str,
    typer.Option(
        metavar="MODE",
        help="Read numbers, prices, dates and Markdown as words: full, light (Markdown, emoji and "
        "invisible characters only), off; auto is full for a model that declares its alphabet.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse characters that the model cannot read.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Report as JSON on stdout; on stderr with --out -.")
]


class SayCommand(TyperCommand):
    """Takes a text such as "-5 degrees" as what it is: no option has a digit or a space there."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        left = list(args)  # the parser takes from it what it has understood
        try:
            return super().parse_args(ctx, left)
        except typer.TyperException as error:
            option = getattr(error, "option_name", None)
            place = len(args) - len(left) - 1
            if option is None or not args[place].startswith(option):
                raise
            if DASHED_TEXT.match(args[place]):
                others = [*args[:place], *args[place + 1 :]]
                end = [] if "--" in others else ["--"]
                return super().parse_args(ctx, [*others, *end, args[place]])
            if isinstance(error.message, str) and error.message.startswith("No such option"):
                error.message += "; if that is the text, put -- before it"
            raise


def say(
    text: Text = None,
    file: File = None,
    model: Model = "nano",
    recipe: Recipe = None,
    device: Device = None,
    codec: Codec = None,
    voice: Voice = None,
    voices: Voices = None,
    seed: Seed = None,
    out: Out = None,
    format: Format = None,
    rate: Rate = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    repetition_window: Window = None,
    reference: Reference = None,
    reference_text: ReferenceText = None,
    low_latency: LowLatency = False,
    codec_noise: CodecNoise = True,
    normalize: Normalize = AUTO,
    strict: Strict = False,
    json: Json = False,
) -> None:
    """Speak text into a file or a pipe. Sampling left out is the checkpoint's own."""
    sampling = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "repetition_window": repetition_window,
    }
    SamplingParams().override(sampling)  # mistakes are told before the model is loaded
    cloning = _reference(reference, reference_text)
    reading = {"normalize": check_mode(normalize), "strict": strict}
    words, target = _words(text, file), AudioTarget.choose(out, format, rate)
    check_speakable(words, normalize)
    place = {
        "model": model,
        "recipe": recipe,
        "device": device,
        "codec": codec,
        "voices": None if voices is None else read_voices(voices),
    }
    rest = {"seed": seed, "low_latency": low_latency, "codec_noise": codec_noise}
    told = sys.stderr if target.is_stdout else sys.stdout
    if json:
        told.write("")  # InputError if it is closed, before anything is spoken
    report = _speak(words, target, place, voice, sampling | cloning | reading | rest)
    if json:
        print_json(report, told)


def _words(text: str | None, file: Path | None) -> str:
    if text is not None and file is not None:
        raise InputError("both a text and --file are given; give one of them")
    if file is not None:
        words = _read(file)
    elif text == "-":
        words = _decode(_read_stdin(), "standard input")
    elif text is not None:
        words = argument_text(text, "TEXT")
    else:
        warn(f"no text was given, so this says: {SAMPLE}")
        warn('next, try: quaver say "Good morning." --out morning.mp3  (see quaver say --help)')
        words = SAMPLE
    if not words.strip():
        raise InputError("the text is empty; give at least one word")
    if len(words) > MAX_CHARS:
        raise InputError(
            f"the text has {len(words):,} characters; at most {MAX_CHARS:,} are spoken: split it"
        )
    return words


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise InputError("standard input is closed; pipe a text into it, or give TEXT or --file")
    try:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read standard input ({error.strerror}); give --file") from error


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return _decode(opened.read(MAX_BYTES + 1), str(file))
    except OSError as error:
        raise InputError(f"cannot read {file} ({error.strerror}); give another file") from error


def _decode(data: bytes, where: str) -> str:
    if len(data) > MAX_BYTES:
        raise InputError(f"{where} holds more than {MAX_BYTES:,} bytes; split it")
    return decode_text(data, where)


def _reference(audio: Path | None, text: str | None) -> dict[str, Any]:
    if (audio is None) != (text is None):
        raise InputError("cloning needs both --reference and --reference-text")
    spoken = None if text is None else argument_text(text, "--reference-text")
    if audio is not None:
        from quaver.audio.decode import MAX_REFERENCE_SECONDS, read

        read(audio, 8000, MAX_REFERENCE_SECONDS)  # mistakes are told before the model is loaded
    return {"reference": audio, "reference_text": spoken}


def _speak(
    words: str,
    target: AudioTarget,
    place: dict[str, Any],
    voice: str | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Load, speak, tell how it went; returns the report."""
    from rich.console import Console

    started = time.monotonic()
    with Console(stderr=True).status("") as line:  # shows nothing unless stderr is a terminal
        line.update(f"loading {place['model']}")
        from quaver.loading import load, open_text
        from quaver.loading.parts import find_device, use_little_stack

        _check_readable(open_text(place["model"], place["voices"]), words, voice, options)
        use_little_stack(find_device(place["device"]))
        synthesizer = load(**place)
        load_seconds = time.monotonic() - started
        info = synthesizer.info()
        if options["reference"] is None:
            voice = voice or next(iter(info["voices"]), None)
        stream = synthesizer.stream(words, voice=voice, **options)
        stats = stream.stats
        with target.writer(info["sample_rate"]) as writer, stream:
            made: dict[str, Any] = {"sample_rate": writer.rate}
            for chunk in stream:
                writer.write(chunk.samples)
                line.update(f"{stats.audio_seconds:.1f} s of speech, RTF {stats.rtf:.2f}")
    about = {key: info[key] for key in ABOUT}
    _tell(target, stats, voice, about)
    made |= {"out": target.name, "format": target.format, "load_seconds": load_seconds}
    return about | {"voice": voice} | stats.as_dict() | made


def _check_readable(
    family: TextFamily, words: str, voice: str | None, options: Mapping[str, Any]
) -> None:
    """Raise InputError for text that `family` cannot read, before its weights are loaded."""
    said = options["reference_text"]
    for text, speaker in ((words, voice), *([] if said is None else [(said, None)])):
        read_text(text, family, speaker, options["normalize"], options["strict"])


def _tell(
    target: AudioTarget, stats: StreamStats, voice: str | None, about: dict[str, Any]
) -> None:
    if stats.characters_left_out:
        told = LeftOut(stats.characters_left_out, stats.left_out).sentence
        warn(f"warning: {told}")
    for note in about["notes"]:
        warn(f"warning: {note}")
    if not target.is_stdout:
        if about["recipe_reason"]:
            sys.stderr.write(f"recipe {about['recipe']}: {about['recipe_reason']}\n")
        speed = "" if stats.rtf is None else f", RTF {stats.rtf:.2f}"
        sys.stderr.write(
            f"{target.name}: {stats.audio_seconds:.1f} s of speech in {stats.busy_seconds:.1f} s"
            f"{speed}; voice {voice}, seed {stats.seed}\n"
        )
    expected = (FinishReason.STOP, FinishReason.CANCELLED)
    odd = Counter(reason for reason in stats.finish_reasons if reason not in expected)
    if odd:
        kinds = ", ".join(f"{count} by {reason}" for reason, count in odd.items())
        warn(
            f"warning: of {stats.segments} segments, some ended other than by the model's own "
            f"stop ({kinds}); listen to them, and try another --seed"
        )
