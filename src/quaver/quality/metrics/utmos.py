"""Predicted naturalness by UTMOS, the number that most papers on synthesis give.

It is the strong learner of Saeki et al., "UTMOS: UTokyo-SaruLab system for VoiceMOS challenge 2022"
(2022) without its phoneme encoder, in the layout of tarepan/SpeechMOS: the state of one network in
one file, `utmos22_strong_step7459_v1.pt` there. wav2vec 2.0 hears the sound; two constant vectors
(of the data domain and of the listener) go beside each of its frames; a recurrent layer and a small
perceptron score each frame, and their mean is the opinion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from quaver.core.errors import InputError
from quaver.quality.metrics.folders import digest
from quaver.quality.metrics.hearing import voice_at_16_khz
from quaver.quality.metrics.metric import Kind, NotMeasured, Score, Speech
from quaver.quality.metrics.packages import installed

STRIDES = (5, 2, 2, 2, 2, 2, 2)  # of wav2vec 2.0's convolutions; no tensor tells them
HEAD_WIDTH = 64  # of its attention
# fairseq's names of wav2vec 2.0's tensors, and transformers'.
_RENAMED = (
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"(conv_layers\.\d+)\.0\.", r"\1.conv."),
    (r"(conv_layers\.\d+)\.2\.", r"\1.layer_norm."),
    (r"pos_conv\.0\.weight_g$", "pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"pos_conv\.0\.weight_v$", "pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"pos_conv\.0\.bias$", "pos_conv_embed.conv.bias"),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)


class Utmos:
    """Predicted mean opinion of about 1 to 5, of sound at 16 kHz.

    The silence around speech is left out and polyphase filters resample, so that values may differ
    a little from those of SpeechMOS. The network loads with the first measurement.
    """

    name = "utmos"
    unit = "points of predicted MOS"
    higher_is_better = True
    kind = Kind.SPEECH
    valid_for = "English speech up to 8 kHz; systems of 2022 and before taught it"

    def __init__(self, folder: Path) -> None:
        self._file = _only_file(folder)
        _sizes(_state(self._file), self._file)
        package = installed("transformers", "utmos")
        self.version = f"UTMOS22 strong learner {digest([self._file])}, {package}"
        self._network: StrongLearner | None = None

    def measure(self, candidate: Speech, reference: Speech | None = None) -> Score | NotMeasured:
        sound = voice_at_16_khz(candidate)
        if isinstance(sound, NotMeasured):
            return sound
        if self._network is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            self._network = load_network(self._file).to(device)
        with torch.inference_mode():
            heard = torch.from_numpy(sound)[None].to(self._network.domain.device)
            return Score(float(self._network(heard)))


class StrongLearner(nn.Module):
    """Sound [batch, samples] at 16 kHz to opinions [batch]. `sizes` are wav2vec 2.0's settings."""

    def __init__(self, sizes: Mapping[str, Any], extra: int, recurrent: int, hidden: int) -> None:
        """`extra`: width of each constant vector; `recurrent`: of one direction."""
        super().__init__()
        from transformers import Wav2Vec2Config, Wav2Vec2Model

        config = Wav2Vec2Config(**sizes, mask_time_prob=0.0, mask_feature_prob=0.0)
        self.hearing = Wav2Vec2Model(config)
        width = config.hidden_size + 2 * extra
        self.domain, self.listener = (nn.Parameter(torch.empty(1, extra)) for _ in range(2))
        self.recurrent = nn.LSTM(width, recurrent, batch_first=True, bidirectional=True)
        self.scoring = nn.Sequential(
            nn.Linear(2 * recurrent, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, sound: Tensor) -> Tensor:
        frames = self.hearing(sound).last_hidden_state
        constant = torch.cat([self.domain, self.listener], dim=1)
        beside = constant[:, None].expand(*frames.shape[:2], -1)
        scored = self.scoring(self.recurrent(torch.cat([frames, beside], dim=2))[0])
        # it was taught opinions from -1 to 1
        return 3 + 2 * scored.mean((1, 2))


def load_network(file: Path) -> StrongLearner:
    """The network of a file in SpeechMOS' layout. Raises InputError for any other file."""
    state = _state(file)
    network = StrongLearner(**_sizes(state, file))
    try:
        network.load_state_dict({_name(key): value.float() for key, value in state.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no UTMOS strong learner: {reason[:200]}") from error
    return network.eval()


def _name(key: str) -> str:
    """Our name of the tensor `key`."""
    part, _, rest = key.partition(".")
    if part != "wav2vec2":
        whole = {"domain_emb": "domain", "judge_emb": "listener"}
        own = {"blstm": "recurrent", "projection": "scoring"}
        return whole.get(key, f"{own.get(part, part)}.{rest}")
    for pattern, name in _RENAMED:
        rest = re.sub(pattern, name, rest)
    return f"hearing.{rest}"


def _sizes(state: Mapping[str, Tensor], file: Path) -> dict[str, Any]:
    """What `StrongLearner` takes, from the shapes of its tensors."""
    try:
        width = state["wav2vec2.post_extract_proj.weight"].shape[0]
        position = state["wav2vec2.encoder.pos_conv.0.weight_v"].shape
        convolutions = [
            state[f"wav2vec2.feature_extractor.conv_layers.{k}.0.weight"].shape
            for k in range(len(STRIDES))
        ]
        layers = {key.split(".")[3] for key in state if key.startswith("wav2vec2.encoder.layers.")}
        return {
            "sizes": {
                "hidden_size": width,
                "num_attention_heads": width // HEAD_WIDTH,
                "num_hidden_layers": len(layers),
                "intermediate_size": state["wav2vec2.encoder.layers.0.fc1.weight"].shape[0],
                "conv_dim": [shape[0] for shape in convolutions],
                "conv_kernel": [shape[2] for shape in convolutions],
                "conv_stride": STRIDES,
                "num_conv_pos_embeddings": position[2],
                "num_conv_pos_embedding_groups": width // position[1],
            },
            "extra": state["domain_emb"].shape[1],
            "recurrent": state["blstm.weight_hh_l0"].shape[1],
            "hidden": state["projection.0.weight"].shape[0],
        }
    except KeyError as error:
        raise InputError(f"{file} is no UTMOS strong learner: it lacks {error}") from error


def _state(file: Path) -> dict[str, Tensor]:
    """The tensors of `file`; they are read when they are used."""
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, ValueError, UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"utmos cannot read {file} as tensors alone: {reason}") from error
    if not isinstance(state, dict) or not all(isinstance(x, Tensor) for x in state.values()):
        raise InputError(f"{file} is no UTMOS strong learner: it is not a state of one network")
    # trained with, but never heard with: it stands for masked frames
    state.pop("wav2vec2.mask_emb", None)
    return state


def _only_file(folder: Path) -> Path:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.pt")]
    if len(files) != 1:
        raise InputError(
            f"utmos needs a folder with utmos22_strong_step7459_v1.pt of SpeechMOS alone; {folder} "
            f"has {len(files)} files of weights"
        )
    return files[0]
