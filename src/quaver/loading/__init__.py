"""The composition root: the only room that knows every other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from quaver.checkpoints.recognise import unused
from quaver.checkpoints.source import CODEC_FILES, is_hub_id, resolve
from quaver.codecs.snac import Snac
from quaver.core.errors import CheckpointError, UnsupportedError
from quaver.core.protocols import TextFamily
from quaver.core.system import free_memory
from quaver.core.types import SamplingParams
from quaver.core.voices import read_voices
from quaver.engine.engine import Engine
from quaver.engine.fitting import CachePlan, cache_bytes, fit_cache
from quaver.engine.keeping import Keeping, keeping
from quaver.engine.threads import StepThreads
from quaver.families.orpheus.config import DEFAULT_CODEC, OrpheusConfig
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.text import OrpheusText
from quaver.loading.hosting import drop_text_rows
from quaver.loading.orpheus import MAX_LENGTH, load_orpheus, read_config, stored_recipe
from quaver.loading.parts import (
    SMALL_MODEL,
    find_device,
    load_codec,
    read_sampling,
)
from quaver.loading.texts import tried_tokenizer
from quaver.nn.linear import Product
from quaver.precision import Format, Recipe, Role, find_recipe
from quaver.precision.auto import AUTO, RESERVE, STREAM_RESERVE, choose
from quaver.precision.devices import CUDA_BF16, DeviceKind, State, default_recipe, recipe_support
from quaver.quant.apply import quantise
from quaver.synthesizer import SpeechSynthesizer


@dataclass(frozen=True)
class Loaded:
    """A model and all that it speaks with. `facts` are for whoever asks what is loaded."""

    folder: Path
    recipe: Recipe
    model: Orpheus
    codec: Snac
    prompts: OrpheusPrompts
    sampling: SamplingParams
    keeping: Keeping
    plan: CachePlan
    device: torch.device
    facts: dict[str, Any]
    threads: StepThreads
    graphs: bool = True

    @cached_property
    def synthesizer(self) -> SpeechSynthesizer:
        """The whole, with an engine and a cache of its own, made when first asked for."""
        engine = self.engine(self.plan.slots, self.plan.max_length)
        if self._records:
            self.codec.fuse()
        facts = {**self.facts, "cache_bytes": engine.cache_bytes}
        return SpeechSynthesizer(
            self.prompts,
            engine,
            self.codec,
            self.sampling,
            facts,
            self._records,
            self.codec_threads,
        )

    def engine(self, slots: int, max_length: int) -> Engine:
        """An engine for so many streams of so many positions, with a cache of its own."""
        if self._records:
            for module in self.model.modules():
                if isinstance(module, Product):
                    module.fuse()
        return Engine(
            self.model,
            slots=slots,
            max_length=max_length,
            keeping=self.keeping,
            hidden_dtype=self.recipe.format(Role.BACKBONE).dtype,
            device=self.device,
            ahead=self._records,
            graphs=self._records or self._traces,
            threads=self.threads,
        )

    @property
    def codec_threads(self) -> int | None:
        """CPU threads of the codec, None for all that torch may use. Not measured: the last bits of
        its convolutions depend on the number. Those of a small model are too short to share."""
        small = self.facts["parameters"] < SMALL_MODEL
        return 1 if small or self.device.type != "cpu" else None

    @property
    def _records(self) -> bool:
        return self.graphs and _has_kernels(self.device)

    @property
    def _traces(self) -> bool:
        """A large model's products take so long that nothing else counts."""
        return (
            self.graphs and self.device.type == "cpu" and self.model.parameter_count < SMALL_MODEL
        )


def load(
    model: str | Path = "nano",
    recipe: str | Recipe | None = None,
    device: str | None = None,
    *,
    codec: str | Path | None = None,
    voices: str | Sequence[str] | None = None,
    slots: int = 4,
    max_length: int | None = None,
    graphs: bool = True,
) -> SpeechSynthesizer:
    """Load a model, ready to speak.

    model: `nano` (bundled), a checkpoint folder, or a hub id, with `@revision` if wanted.
    recipe: written as in docs/precision.md, or a `Recipe`; `auto` takes the fastest that the device
        has room for; None takes `precision.devices.default_recipe`.
    device: `cpu`, `cuda` or `cuda:N`; None takes a GPU where there is one.
    codec: folder or hub id of the codec; None takes the one that the checkpoint names.
    voices: the voices that a fine-tune was trained with, as a list or as "elise,tom"; None takes
        those that the checkpoint names.
    slots: streams that can run at once. max_length: positions kept for each (prompt and speech).
    graphs: on a GPU from compute capability 8.0 on, record steps as CUDA graphs, launch them ahead
        of what they made, and take one kernel for a product and all around it. The first utterance
        takes longer. On a CPU, trace the steps of a small model, once it has spoken for a while.
    """
    opened = open_model(
        model, recipe, device, codec=codec, voices=voices, slots=slots, max_length=max_length
    )
    return replace(opened, graphs=graphs).synthesizer


def open_text(model: str | Path = "nano", voices: str | Sequence[str] | None = None) -> TextFamily:
    """What a model reads, from its configuration alone; arguments as for `load`."""
    folder = resolve(str(model))
    config = read_config(folder.path, folder.name)
    named = read_voices(voices)
    return OrpheusText((config if named is None else config.with_voices(named)).speech)


def open_model(
    model: str | Path = "nano",
    recipe: str | Recipe | None = None,
    device: str | None = None,
    *,
    codec: str | Path | None = None,
    voices: str | Sequence[str] | None = None,
    slots: int = 4,
    max_length: int | None = None,
) -> Loaded:
    """Load a model and its parts; arguments as for `load`."""
    place, named = find_device(device), read_voices(voices)
    folder = resolve(str(model))
    chosen, reason = _recipe(recipe, place, folder.path)
    support = recipe_support(chosen, _kind(place))
    if support.state is State.NO:
        raise UnsupportedError(f"recipe '{chosen}' cannot run on {place}: {support.reason}")
    positions = max_length or MAX_LENGTH
    on_gpu = place.type == "cuda"
    with tried_tokenizer(folder.path) as checked:
        orpheus = load_orpheus(folder.path, folder.name, chosen, place, positions, on_gpu)
    tokenizer = checked.open(orpheus.config.vocab_size)
    if named is not None:
        orpheus.config = orpheus.config.with_voices(named)
    speech = orpheus.config.speech
    codec_folder = _codec_folder(folder.path, speech.codec) if codec is None else _named(codec)
    snac = load_codec(codec_folder, place)
    snac.tf32 = chosen.format(Role.CODEC) is Format.TF32
    if snac.config.codebook_size != speech.tokens.codebook_size:
        raise CheckpointError(
            f"the codec has {snac.config.codebook_size} codes a book and the model speaks "
            f"{speech.tokens.codebook_size}; name the codec that the model was trained with"
        )
    if on_gpu:
        snac.encoder.cpu()  # until there is a reference
        torch.cuda.empty_cache()  # quantising took far more than its results do
    spec, kv = orpheus.cache_spec, chosen.format(Role.KV)
    # for what a step computes with
    free = _free(place) - RESERVE[place.type] / 2 - STREAM_RESERVE[place.type] * slots
    plan = fit_cache(spec, slots, orpheus.max_positions, kv, free)
    weights = [*orpheus.parameters(), *snac.parameters()]
    facts = {
        "model": folder.name,
        "revision": folder.revision,
        "recipe": str(chosen),
        "recipe_reason": reason,
        "notes": [*plan.notes, *orpheus.config.notes, *unused(folder.path)],
        "formats": chosen.as_dict() | {Role.KV.value: plan.kv.value},
        "device": str(place),
        "parameters": orpheus.parameter_count + sum(w.numel() for w in snac.parameters()),
        "bytes": sum(w.nbytes for w in weights if w.device.type == place.type),
        "step_bytes": orpheus.step_bytes,
        "step_weights": orpheus.step_weights,
        "position_bytes": cache_bytes(spec, 1, 1, plan.kv),
    }
    return Loaded(
        folder=folder.path,
        recipe=chosen,
        model=orpheus,
        codec=snac,
        prompts=OrpheusPrompts(speech, tokenizer),
        sampling=read_sampling(folder.path),
        keeping=keeping(plan.kv, spec.layers, orpheus.kv_scales),
        plan=plan,
        device=place,
        facts=facts,
        threads=StepThreads(place),
    )


def _has_kernels(device: torch.device) -> bool:
    """Whether Triton's kernels run on `device`."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= CUDA_BF16


def _recipe(
    recipe: str | Recipe | None, device: torch.device, folder: Path
) -> tuple[Recipe, str | None]:
    """The recipe, and why if we chose it."""
    if isinstance(recipe, Recipe):
        return recipe, None
    if recipe is not None and recipe != AUTO:
        return find_recipe(recipe), None
    if stored := stored_recipe(folder):
        return stored, "as the checkpoint has it" if recipe else None
    if recipe is None:
        return default_recipe(_kind(device)), None
    config = read_config(folder).shortened(1)
    choice = choose(_kind(device), lambda each: _weight_bytes(config, each, device), _free(device))
    return choice.recipe, choice.reason


def _free(device: torch.device) -> float:
    """Bytes of memory that nothing uses, or that torch has put by."""
    if device.type != "cuda":
        return free_memory()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _kind(device: torch.device) -> DeviceKind:
    if device.type == "cuda":
        return DeviceKind.cuda(torch.cuda.get_device_capability(device))
    return DeviceKind.this_cpu()


def _weight_bytes(config: OrpheusConfig, recipe: Recipe, device: torch.device) -> float:
    """The most that a model's weights take on `device`, from shapes alone.

    On a CPU all of them are there before any is quantised. On a GPU, what is not quantised is
    there before its text rows leave.
    """
    with torch.device("meta"):
        model = Orpheus(config, recipe)
    dense = sum(weight.nbytes for weight in model.parameters())
    quantise(model, recipe, device.type)
    if device.type == "cpu" or not recipe.quantises:
        return dense
    drop_text_rows(model)
    return sum(weight.nbytes for weight in model.parameters())


def _codec_folder(model: Path, codec: str) -> Path:
    """The folder of the codec that a checkpoint names: one inside it, or one of the hub."""
    inside = model / codec
    if inside.is_dir():
        return inside
    if is_hub_id(codec):
        return resolve(codec, CODEC_FILES).path
    raise CheckpointError(
        f"{model} lacks its codec: its config.json names the folder '{codec}', which is not in it; "
        f"download the whole folder, or give the codec with --codec, such as {DEFAULT_CODEC}"
    )


def _named(codec: str | Path) -> Path:
    """The folder of a codec that a user names."""
    return resolve(str(codec), CODEC_FILES).path
