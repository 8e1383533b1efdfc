"""Our SNAC against its authors' package, with random weights, through the real loading code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from snac import SNAC
from torch import Tensor

from quaver.codecs.snac import Snac, SnacConfig
from quaver.core.errors import CheckpointError, InputError
from quaver.core.random import normal, seed_key, stream_key
from quaver.loading.parts import load_codec

RELEASED = {
    "sampling_rate": 24000,
    "encoder_dim": 48,
    "encoder_rates": [2, 4, 8, 8],
    "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2],
    "attn_window_size": None,
    "codebook_size": 4096,
    "codebook_dim": 8,
    "vq_strides": [4, 2, 1],
    "noise": True,
    "depthwise": True,
}
SMALL = RELEASED | {"encoder_dim": 4, "decoder_dim": 64, "codebook_size": 64}


def reference(config: dict, seed: int = 0) -> SNAC:
    """Random weights, and gains that differ from the norms they scale, as after training."""
    random = np.random.default_rng(seed)
    model = SNAC(**config).eval().requires_grad_(False)
    for name, weight in model.state_dict().items():
        shape = tuple(weight.shape)
        if name.endswith("original0"):
            values = random.uniform(0.4, 0.9, shape)  # loud, yet clear of the final tanh's ends
        elif name.endswith("alpha"):
            values = random.uniform(0.3, 2.0, shape)
        elif name.endswith("bias"):
            values = random.normal(0, 0.05, shape)
        elif name.endswith("codebook.weight"):
            values = random.normal(0, 1.0, shape)
        else:
            values = random.normal(0, 1.0, shape)
        weight.copy_(torch.from_numpy(values))
    return model


def stored_tensors(model: SNAC, names: str) -> dict[str, Tensor]:
    """The weights as torch 2 names them, as torch 1 did, or with the weight norm folded."""
    state = model.state_dict()
    if names == "old":
        tail = "parametrizations.weight.original"
        state = {k.replace(f"{tail}0", "weight_g"): v for k, v in state.items()}
        return {k.replace(f"{tail}1", "weight_v"): v for k, v in state.items()}
    if names == "folded":
        pairs = [k for k in state if k.endswith("original0")]
        for name in (k.removesuffix(".parametrizations.weight.original0") for k in pairs):
            for index in "01":
                del state[f"{name}.parametrizations.weight.original{index}"]
            state[f"{name}.weight"] = model.get_submodule(name).weight.detach()
    return dict(state)


def write(folder: Path, model: SNAC, config: dict, names: str = "new", pickled=True) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    tensors = stored_tensors(model, names)
    if pickled:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def pair(device, tmp_path_factory) -> tuple[SNAC, Snac]:
    theirs = reference(SMALL)
    folder = write(tmp_path_factory.mktemp("snac"), theirs, SMALL)
    return theirs.to(device), load_codec(folder, device)


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(int(seconds * 24000)) / 24000
    tone = np.sin(2 * np.pi * 220 * time * (1 + 0.2 * np.sin(5 * time)))
    return (0.4 * tone + 0.1 * random.standard_normal(len(time))).astype(np.float32)


def random_frames(count: int, size: int, seed: int = 0) -> Tensor:
    frames = torch.from_numpy(np.random.default_rng(seed).integers(0, size, (count, 7)))
    frames[0], frames[-1] = 0, size - 1
    return frames


def their_codes(model: SNAC, samples: np.ndarray, device: torch.device) -> list[Tensor]:
    return model.encode(torch.from_numpy(samples).to(device)[None, None])


@torch.inference_mode()
def their_samples(model: SNAC, codes: list[Tensor]) -> Tensor:
    return model.decode(codes)[:, 0]


def their_noise(monkeypatch: pytest.MonkeyPatch, seeds: Tensor | None) -> None:
    """Make their noise blocks draw ours, block by block, or zeros."""
    blocks = iter(range(4))

    def randn(shape, **options) -> Tensor:
        if seeds is None:
            return torch.zeros(shape, **options)
        position = torch.arange(shape[-1], device=seeds.device)[None, None]
        return normal(stream_key(seed_key(seeds[:, None, None]), next(blocks)), position)

    monkeypatch.setattr("snac.layers.torch.randn", randn)


def assert_same_sound(ours: Tensor, theirs: Tensor) -> None:
    peak = theirs.abs().max()
    assert peak > 0.05
    assert theirs.std() > 0.01
    assert (ours - theirs).abs().max() <= 1e-5 * peak


@pytest.mark.parametrize("names", ["new", "old", "folded"])
@pytest.mark.parametrize("pickled", [True, False], ids=["bin", "safetensors"])
def test_every_way_of_storing_loads_the_same(tmp_path, monkeypatch, device, names, pickled):
    theirs = reference(SMALL, seed=1)
    ours = load_codec(write(tmp_path, theirs, SMALL, names, pickled), device)
    theirs.to(device)
    their_noise(monkeypatch, None)
    codes = their_codes(theirs, sound(0.5), device)
    frames = ours.encode(sound(0.5))
    assert torch.equal(frames, ours.layout.from_codebooks([c[0] for c in codes]))
    assert_same_sound(ours.decode_batch(frames[None]), their_samples(theirs, codes))


@pytest.mark.parametrize("samples", [1, 2047, 2048, 2049, 30_000])
def test_codes_are_the_same_at_every_length(pair, device, samples):
    theirs, ours = pair
    wave = sound(2.0, seed=samples)[:samples]
    codes = their_codes(theirs, wave, device)
    frames = ours.encode(wave)
    assert len(frames) == -(-samples // 2048)
    assert torch.equal(frames, ours.layout.from_codebooks([c[0] for c in codes]))
    if samples > 10_000:
        assert len(frames.unique()) > 10


@pytest.mark.parametrize("count", [1, 2, 40])
def test_samples_are_the_same_without_noise(pair, device, monkeypatch, count):
    theirs, ours = pair
    their_noise(monkeypatch, None)
    frames = torch.stack([random_frames(count, 64, seed) for seed in range(3)]).to(device)
    expected = their_samples(theirs, ours.layout.to_codebooks(frames))
    assert expected.shape == (3, count * 2048)
    assert_same_sound(ours.decode_batch(frames), expected)


def test_samples_are_the_same_with_the_same_noise(pair, device, monkeypatch):
    theirs, ours = pair
    seeds = torch.tensor([0, 7, 2**40 + 7], device=device)
    frames = random_frames(12, 64).to(device).expand(3, -1, -1)
    their_noise(monkeypatch, seeds)
    noisy = their_samples(theirs, ours.layout.to_codebooks(frames))
    assert_same_sound(ours.decode_batch(frames, seeds), noisy)
    their_noise(monkeypatch, None)
    quiet = their_samples(theirs, ours.layout.to_codebooks(frames))
    assert (noisy - quiet).abs().max() > 0.01  # the noise is heard
    assert (noisy[0] - noisy[1]).abs().max() > 0.01  # and every seed has its own
    assert (noisy[1] - noisy[2]).abs().max() > 0.01


def test_the_released_shape(tmp_path, device, monkeypatch):
    theirs = reference(RELEASED)
    assert sum(p.numel() for p in theirs.parameters()) == 19_842_914
    assert len(theirs.state_dict()) == 269
    ours = load_codec(write(tmp_path, theirs, RELEASED), device)
    theirs.to(device)
    their_noise(monkeypatch, None)
    codes = their_codes(theirs, sound(1.0), device)
    frames = ours.encode(sound(1.0))
    assert frames.shape == (12, 7)
    assert torch.equal(frames, ours.layout.from_codebooks([c[0] for c in codes]))
    assert_same_sound(ours.decode_batch(frames[None]), their_samples(theirs, codes))


def test_a_codec_trained_without_noise_blocks(tmp_path, device):
    config = SMALL | {"noise": False}
    theirs = reference(config)
    ours = load_codec(write(tmp_path, theirs, config), device)
    theirs.to(device)
    frames = random_frames(3, 64).to(device)[None]
    expected = their_samples(theirs, ours.layout.to_codebooks(frames))
    assert_same_sound(ours.decode_batch(frames, torch.tensor([5], device=device)), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_window_size": 32}, "attn_window_size 32; only null"),
        ({"vq_strides": [8, 4, 2, 1]}, r"vq_strides \(8, 4, 2, 1\)"),
        ({"depthwise": False}, "depthwise false"),
        ({"decoder_rates": [7, 7, 3, 3]}, "odd rates"),
        ({"sample_rate": 24000}, r"unknown keys \['sample_rate'\]"),
    ],
)
def test_configurations_that_we_cannot_run_are_refused(change, message):
    with pytest.raises(CheckpointError, match=message):
        SnacConfig.from_dict(RELEASED | change)


def test_missing_keys_are_named():
    config = {k: v for k, v in RELEASED.items() if k not in ("decoder_dim", "noise")}
    with pytest.raises(CheckpointError, match=r"missing \['decoder_dim'\]"):
        SnacConfig.from_dict(config)


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_only_mono_sound_is_encoded(pair, shape):
    with pytest.raises(InputError, match="mono samples"):
        pair[1].encode(np.zeros(shape, np.float32))
