"""A request as OpenAI's clients send it, checked field by field."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from quaver.core.errors import InputError
from quaver.core.types import SamplingParams
from quaver.server.errors import ApiError, invalid
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

AudioFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]
T = TypeVar("T", bound=BaseModel)
Name = Annotated[str, Field(max_length=512)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class VoiceId(BaseModel):
    id: Name


class SpeechOptions(BaseModel):
    """All of a request but its text."""

    model_config = ConfigDict(extra="ignore")

    model: Name | None = None
    voice: Name | VoiceId | None = None
    instructions: Annotated[str, Field(max_length=MOST_INSTRUCTIONS)] | None = None
    response_format: AudioFormat = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0, allow_inf_nan=False)] = 1.0
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = None
    temperature: Number | None = None
    top_k: Annotated[int, Field(le=MOST_CHOICES)] | None = None
    top_p: Number | None = None
    min_p: Number | None = None
    repetition_penalty: Number | None = None
    repetition_window: Annotated[int, Field(le=MOST_CHOICES)] | None = None
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    recipe: Name | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    normalize: Literal["auto", "full", "light", "off"] = "auto"
    strict: bool = False

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
        if name is None:
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

    input: str
    stream_format: Literal["audio", "sse"] = "audio"
    stream: bool = True


def parse(schema: type[T], body: bytes | str) -> T:
    """ApiError that names the field for a body that is not JSON, or not as the schema has it."""
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


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
    if first["type"] == "json_invalid":
        return invalid(f"the body is not JSON: {first['msg']}", None, "invalid_json")
    place = [str(each) for each in first["loc"]]
    if not place:
        return invalid("the body must be a JSON object", None, "invalid_json")
    name = place[0]
    if first["type"] == "missing":
        return invalid(f"{'.'.join(place)} is missing", name, "missing_required_parameter")
    given = repr(first["input"])
    given = given if len(given) <= 80 else given[:77] + "..."
    if name == "voice":  # the message would be of one of its two kinds
        return invalid(f'voice is {given}; give a name, or {{"id": name}}', name)
    code = "string_above_max_length" if first["type"] == "string_too_long" else "invalid_value"
    return invalid(f"{name} is {given}: {first['msg']}", name, code)


class SessionConfig(SpeechOptions):
    """`session.config` of a WebSocket."""

    response_format: AudioFormat = "pcm"


class SessionMessage(BaseModel):
    """What a client sends over a WebSocket; the fields of `session.config` beside it."""

    type: Literal["session.config", "input.text", "input.done", "input.clear", "session.close"]
    text: str | None = None
