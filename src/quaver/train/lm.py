"""Training an Orpheus language model on text and codes.

Sequences are the prompts that inference makes, then codes, end of speech, end of turn; the loss is
on what follows the prompt. All tokens live on the device, and a step's batch is a pure function of
the step.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from quaver.checkpoints.write import named_tensors, write_checkpoint
from quaver.codecs.layout import CodeLayout
from quaver.codecs.snac import Snac
from quaver.core.errors import ConfigError
from quaver.core.types import SamplingParams
from quaver.families.orpheus.config import OrpheusConfig, SpeechTokens
from quaver.families.orpheus.model import Orpheus
from quaver.families.orpheus.prompt import OrpheusPrompts
from quaver.families.orpheus.tokenizer import byte_tokenizer
from quaver.families.orpheus.weights import sources
from quaver.precision import find_recipe
from quaver.train.average import Average
from quaver.train.codes import code_shard, codec_tag, frame_counts
from quaver.train.config import DataConfig, LanguageModelConfig
from quaver.train.data import read_shards
from quaver.train.files import replace_folder
from quaver.train.loop import Losses

IGNORE = -100
PAD_TO = 64  # batch lengths are multiples of it, so that few shapes occur
VALIDATION_BATCHES = 8
CODEC_FOLDER = "codec"


class TokenBank:
    """Sequences of all utterances, end to end on the device, and batches of like lengths."""

    def __init__(
        self, sequences: Sequence[NDArray[np.int32]], starts: Sequence[int], device: torch.device
    ) -> None:
        lengths = np.array([len(s) for s in sequences])
        self._lengths = lengths
        self._tokens = torch.from_numpy(np.concatenate(sequences)).to(device)
        self._first = torch.from_numpy(np.cumsum([0, *lengths[:-1]])).to(device)
        self._length = torch.from_numpy(lengths).to(device)
        self._speech = torch.tensor(starts, device=device)
        self._groups: dict[int, list[NDArray[np.int64]]] = {}

    @property
    def tokens(self) -> int:
        return len(self._tokens)

    def batch(self, step: int, batch_tokens: int, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets [n, t] of a step; targets outside of speech are IGNORE."""
        groups = self._grouped(batch_tokens)
        epoch, place = divmod(step, len(groups))
        order = np.random.default_rng((seed, epoch)).permutation(len(groups))
        return self._gather(groups[order[place]])

    def _grouped(self, batch_tokens: int) -> list[NDArray[np.int64]]:
        """Neighbours in length, as many as make a batch: the same in every epoch, and found once,
        since a pass over all utterances takes longer than a step."""
        if batch_tokens not in self._groups:
            order = np.argsort(self._lengths, kind="stable")
            groups: list[NDArray[np.int64]] = []
            group: list[int] = []
            for i in order:
                if group and (self._lengths[i] + PAD_TO) * (len(group) + 1) > batch_tokens:
                    groups.append(np.array(group))
                    group = []
                group.append(i)
            self._groups[batch_tokens] = [*groups, np.array(group)]
        return self._groups[batch_tokens]

    def _gather(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        device = self._tokens.device
        longest = -(-int(self._lengths[rows].max()) // PAD_TO) * PAD_TO
        index = torch.from_numpy(rows).to(device)
        column = torch.arange(longest, device=device)[None]
        inside = column < self._length[index, None]
        place = (self._first[index, None] + column).clamp(max=len(self._tokens) - 1)
        tokens = torch.where(inside, self._tokens[place].long(), 0)
        spoken = inside & (column >= self._speech[index, None])
        targets = torch.where(spoken, tokens, IGNORE)
        return tokens[:, :-1], targets[:, 1:]


class LanguageModelTask:
    """One language model in training; see `quaver.train.loop.Task`."""

    def __init__(
        self,
        config: LanguageModelConfig,
        data: DataConfig,
        snac: Snac,
        codec_folder: Path,
        device: torch.device,
    ) -> None:
        self._config, self._device, self._codec_folder = config, device, codec_folder
        self._tokenizer, tokens = byte_tokenizer(
            snac.config.codebook_size, snac.layout.codes_per_frame
        )
        self._model_config = _model_config(config.model, tokens, data.voices)
        self._orpheus_config = OrpheusConfig.from_dict(self._model_config)
        self._train, self._held_out = _load_banks(
            data,
            snac,
            codec_tag(codec_folder),
            OrpheusPrompts(self._orpheus_config.speech, self._tokenizer),
            tokens,
            device,
        )
        torch.manual_seed(config.seed)
        self._model = Orpheus(self._orpheus_config, find_recipe("fp32"))
        initialise(self._model)
        self._model.to(device)
        matrices = [p for p in self._model.parameters() if p.ndim > 1]
        vectors = [p for p in self._model.parameters() if p.ndim == 1]
        self._optimiser = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            betas=(0.9, 0.95),
            fused=device.type == "cuda",
        )
        self._average = Average(self._model, config.average_steps)
        self._layout = tokens.layout
        self._weights = _token_weights(config.code_weights, self._layout, self._orpheus_config)
        self._weights = self._weights.to(device)
        self._loss = _loss
        if config.compile and device.type == "cuda":
            for layer in self._model.backbone.layers:
                layer.compile(dynamic=True)
            self._loss = torch.compile(_loss, dynamic=True)

    def step(self, step: int, rate: float) -> dict[str, Tensor]:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        inputs, targets = self._train.batch(step, self._config.batch_tokens, self._config.seed)
        loss = self._forward(self._disturb(inputs, step), targets, self._weights)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimiser.step()
        self._average.update(step)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def validate(self) -> Losses:
        """Mean loss in nats a token over the held-out shard."""
        total = count = 0.0
        even = torch.ones_like(self._weights)
        with self._average.in_place():
            for step in range(VALIDATION_BATCHES):
                inputs, targets = self._held_out.batch(step, self._config.batch_tokens, 0)
                spoken = float((targets != IGNORE).sum())
                total += float(self._forward(inputs, targets, even)) * spoken
                count += spoken
        return {"loss": total / count}

    def state(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "average": self._average.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._average.restore(state["average"])

    def export(self, folder: Path) -> None:
        """A checkpoint in bfloat16 with Hugging Face's names, its tokenizer and its codec."""
        half = Orpheus(self._orpheus_config, find_recipe("bf16"))
        with self._average.in_place():
            half.load_state_dict(self._model.state_dict())
        half.cpu()
        names = sources(self._orpheus_config)
        tensors = {k: v.detach().bfloat16().contiguous() for k, v in named_tensors(half, names)}
        defaults = asdict(SamplingParams().override(self._config.generation))
        extra = {
            "tokenizer.json": self._tokenizer.to_str().encode(),
            "generation_config.json": json.dumps(defaults, indent=1).encode(),
        }
        for name in ("config.json", "model.safetensors"):
            extra[f"{CODEC_FOLDER}/{name}"] = (self._codec_folder / name).read_bytes()
        with replace_folder(folder) as fresh:
            write_checkpoint(fresh, tensors, config=self._model_config, extra_files=extra)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Continue from another run's weights, with a fresh optimiser."""
        self._model.load_state_dict(weights)

    def _forward(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, self._device.type == "cuda"):
            hidden = self._model.backbone.norm(self._model.hidden(inputs))
            return self._loss(hidden, self._model.head.weight, targets, weights)

    def _disturb(self, inputs: Tensor, step: int) -> Tensor:
        """Replace a share of the codes by random ones of the same position."""
        if self._config.dropout_codes == 0.0:
            return inputs
        generator = torch.Generator(self._device).manual_seed(self._config.seed * 1_000_003 + step)
        layout, size = self._layout, self._layout.codebook_size
        offset = inputs - layout.first_token
        coded = (offset >= 0) & (inputs < layout.end_token)
        hit = torch.rand(inputs.shape, generator=generator, device=self._device)
        other = torch.randint(size, inputs.shape, generator=generator, device=self._device)
        replaced = layout.first_token + offset // size * size + other
        return torch.where(coded & (hit < self._config.dropout_codes), replaced, inputs)


def initialise(model: Orpheus) -> None:
    """Normal weights, the residual branches' outputs scaled down with depth (Radford, 2019)."""
    depth = 2 * len(model.backbone.layers)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            branch = name.endswith(("attention.out.weight", "mlp.down.weight"))
            nn.init.normal_(parameter, std=0.02 / (depth**0.5 if branch else 1.0))


def _loss(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    logits = F.linear(hidden.flatten(0, 1), head).float()
    return F.cross_entropy(logits, targets.flatten(), weights, ignore_index=IGNORE)


def _token_weights(
    code_weights: Sequence[float], layout: CodeLayout, config: OrpheusConfig
) -> Tensor:
    """How much each token [vocab] counts in the loss; those that are no codes count 1.

    ConfigError unless there is one for each code of a frame, or none.
    """
    weights = torch.ones(config.vocab_size)
    each = layout.codes_per_frame
    if not code_weights:
        return weights
    if len(code_weights) != each or min(code_weights) < 0:
        raise ConfigError(
            f"lm.code_weights has {len(code_weights)} numbers; give {each}, none below zero, one "
            "for each code of a frame, or leave it out"
        )
    for position, weight in enumerate(code_weights):
        first = layout.first(position)
        weights[first : first + layout.codebook_size] = weight
    return weights


def _model_config(
    model: dict[str, Any], tokens: SpeechTokens, voices: Sequence[str]
) -> dict[str, Any]:
    """`config.json`: the file's shapes, Llama's constants, and the tokenizer's ids."""
    from quaver.train.texts import ALPHABET

    own = model.get("orpheus", {})
    if not isinstance(own, dict):
        raise ConfigError(f"lm.model.orpheus is {own!r}; a section is needed")
    speech = {
        **asdict(tokens),
        "voices": list(voices),
        "codec": CODEC_FOLDER,
        "alphabet": "".join(sorted(ALPHABET)),
        **own,
    }
    constants = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "vocab_size": -(-tokens.layout.end_token // 8) * 8,
        "bos_token_id": tokens.begin_of_text,
        "eos_token_id": tokens.end_of_speech,
        "torch_dtype": "bfloat16",
    }
    return {**constants, **model, "orpheus": speech}


def _load_banks(
    data: DataConfig,
    snac: Snac,
    tag: str,
    prompts: OrpheusPrompts,
    tokens: SpeechTokens,
    device: torch.device,
) -> tuple[TokenBank, TokenBank]:
    """Train and held-out sequences; codes what is not coded yet."""
    folder = Path(data.folder)
    split: list[tuple[list[NDArray[np.int32]], list[int]]] = [([], []), ([], [])]
    closing = np.array([tokens.end_of_speech, tokens.end_of_ai], np.int32)
    offsets = tokens.layout.to_tokens(torch.zeros(1, tokens.layout.codes_per_frame).long())
    for number, shard in enumerate(read_shards(folder, data.hours, data.sample_rate)):
        codes = code_shard(shard, folder, snac, tag).astype(np.int32)
        codes += offsets.numpy().astype(np.int32)
        ends = np.cumsum(frame_counts(shard, snac.samples_per_frame))
        sequences, starts = split[1 if number == 0 else 0]
        for utterance, frames in zip(shard.utterances, np.split(codes, ends[:-1]), strict=True):
            readable = prompts.readable(utterance.text).text
            prompt = prompts.prompt(readable, utterance.voice).tokens
            starts.append(len(prompt))
            sequences.append(np.concatenate([np.array(prompt, np.int32), frames.ravel(), closing]))
    train, held_out = (TokenBank(s, f, device) for s, f in split)
    return train, held_out
