"""A request as OpenAI's clients send it, checked field by field."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from quaver.audio.encode import HIGHEST_RATE, LOWEST_RATE, check_rate
from quaver.core.errors import InputError
from quaver.core.types import SamplingParams
from quaver.server.errors import ApiError, invalid
from quaver.server.jsontext import JsonError, read_object, without_surrogates
from quaver.server.wire import Order

SAMPLING = (
    *("temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "repetition_window"),
)
MOST_INSTRUCTIONS = 4096  # characters
MOST_CHOICES = 2**31 - 1
SEEDS = 2**63
DRAWN_BITS = 31
NO_VOICE = "none"
# In this order they stand for a model's voices.
BUILT_IN = (
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "onyx", "nova", "sage", "shimmer"),
    *("verse", "marin", "cedar"),
)
DEFAULT_MODELS = ("tts-1", "tts-1-hd", "gpt-4o-mini-tts")
# The same, as OpenAI dates them: tts-1-1106, gpt-4o-mini-tts-2025-12-15.
DATED = re.compile(rf"({'|'.join(DEFAULT_MODELS)})(-\d{{4}}(-\d\d-\d\d)?)?", re.ASCII)

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm", "g711_ulaw", "g711_alaw"]
T = TypeVar("T", bound=BaseModel)


def _no_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


def _no_surrogate(value: str) -> str:
    if without_surrogates(value) != value:
        raise ValueError("half of a character (a lone surrogate) is in it")
    return value


def _mended(value: Any) -> Any:
    return without_surrogates(value) if isinstance(value, str) else value


NUMBER = BeforeValidator(_no_boolean)  # strings such as "1.0" are numbers too
TEXT = BeforeValidator(_mended)
Number = Annotated[float, Field(allow_inf_nan=False), NUMBER]
Name = Annotated[str, Field(max_length=512), AfterValidator(_no_surrogate)]


class VoiceId(BaseModel):
    id: Name


class SpeechOptions(BaseModel):
    """All of a request but its text."""

    model_config = ConfigDict(extra="ignore")

    model: Name | None = None
    voice: Name | VoiceId | None = None
    instructions: Annotated[str, Field(max_length=MOST_INSTRUCTIONS), TEXT] | None = None
    response_format: AudioFormat = "mp3"
    sample_rate: Annotated[int, Field(ge=LOWEST_RATE, le=HIGHEST_RATE), NUMBER] | None = None
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False), NUMBER] = 1.0
    seed: Annotated[int, Field(ge=0, lt=SEEDS), NUMBER] | None = None
    temperature: Number | None = None
    top_k: Annotated[int, Field(le=MOST_CHOICES), NUMBER] | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    repetition_window: Annotated[int, Field(le=MOST_CHOICES), NUMBER] | None = None
    max_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False), NUMBER] | None = None
    recipe: Name | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    normalize: Literal["auto", "full", "light", "off"] = "auto"
    strict: bool = False

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: Any) -> Any:
        """Take null and "" as a field that is left out, which many clients mean by them."""
        if not isinstance(values, dict):
            return values
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {
            name: value
            for name, value in values.items()
            if name in needed or not (value is None or value == "")
        }

    def check_rate(self) -> None:
        """Raise ApiError for a sample rate that the format cannot have."""
        try:
            check_rate(self.response_format, self.sample_rate)
        except InputError as error:
            raise invalid(str(error), "sample_rate") from None

    def sampling(self) -> dict[str, float]:
        """What replaces the checkpoint's own. ApiError for what is out of range."""
        given = {name: getattr(self, name) for name in SAMPLING}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            try:
                SamplingParams().override({name: value})
            except InputError as error:
                raise invalid(str(error), name) from None
        return given

    @property
    def batch(self) -> bool:
        return self.priority == "batch"

    def voice_of(self, voices: Sequence[str]) -> str | None:
        """The model's voice that is meant; None speaks without one. ApiError if there is none."""
        name = self.voice.id if isinstance(self.voice, VoiceId) else self.voice
        if not name:
            return next(iter(voices), None)
        if name in voices:
            return name
        if name == NO_VOICE or (name in BUILT_IN and not voices):
            return None
        if name in BUILT_IN:
            return voices[BUILT_IN.index(name) % len(voices)]
        known = ", ".join([*voices, NO_VOICE])
        raise invalid(
            f"voice is {name[:64]!r}; allowed are {known}, and OpenAI's names for them", "voice"
        )

    def order(self, name: str, text: str, voices: Sequence[str]) -> Order:
        """What the engine is asked to say; a seed is drawn where none is given."""
        voice = self.voice_of(voices)
        self.check_rate()
        return Order(
            name=name,
            text=text,
            voice=NO_VOICE if voice is None else voice,
            seed=secrets.randbits(DRAWN_BITS) if self.seed is None else self.seed,
            max_seconds=self.max_seconds,
            sampling=self.sampling(),
            batch=self.batch,
            normalize=self.normalize,
            strict=self.strict,
        )


class SpeechRequest(SpeechOptions):
    """The body of `POST /v1/audio/speech`."""

    input: Annotated[str, Field(min_length=1), TEXT]
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = True


def parse(schema: type[T], body: bytes | str) -> T:
    """ApiError that names the field for a body that is not JSON, or not as the schema has it."""
    try:
        return schema.model_validate(read_object(body))
    except JsonError as error:
        raise invalid(str(error), None, "invalid_json") from None
    except ValidationError as error:
        raise _refusal(error) from None


def is_default_model(name: str | None) -> bool:
    """Whether no model of this server is meant: none is named, or one of OpenAI's, dated or not."""
    return not name or DATED.fullmatch(name) is not None


def check_text(text: str, most: int) -> None:
    if not text.strip():
        raise invalid("input is empty; give at least one word", "input")
    check_length(len(text), most)


def check_length(chars: int, most: int) -> None:
    if chars > most:
        message = f"the text has {chars} characters; at most {most} are allowed"
        raise invalid(message, "input", "string_above_max_length")


def _refusal(error: ValidationError) -> ApiError:
    """The first thing that is wrong, in words."""
    first: Any = error.errors(include_url=False, include_context=False)[0]
    place = [str(each) for each in first["loc"]]
    name = place[0]
    if first["type"] == "missing":
        return invalid(f"{'.'.join(place)} is missing", name, "missing_required_parameter")
    given = repr(first["input"])
    given = given if len(given) <= 80 else given[:77] + "..."
    if name == "voice":  # the message would be of one of its two kinds
        return invalid(f'voice is {given}; give a name, or {{"id": name}}', name)
    code = "string_above_max_length" if first["type"] == "string_too_long" else "invalid_value"
    if first["type"] == "string_too_short":
        return invalid("input is empty; give at least one word", name)
    reason = first["msg"].removeprefix("Value error, ")
    return invalid(f"{name} is {given}: {reason}", name, code)


class SessionConfig(SpeechOptions):
    """`session.config` of a WebSocket."""

    response_format: AudioFormat = "pcm"


def _string(value: Any) -> Any:
    if value is not None and not isinstance(value, str):
        raise ValueError("a string is needed")
    return value


class SessionMessage(BaseModel):
    """What a client sends over a WebSocket; the fields of `session.config` beside it."""

    type: Literal["session.config", "input.text", "input.done", "input.clear", "session.close"]
    text: Annotated[Any, AfterValidator(_string)] = None  # may end in half a character
