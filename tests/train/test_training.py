"""Training end to end on tones: data, codec, language model, resuming, and what goes wrong."""

import copy
import functools
import json
import operator
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import quaver
from quaver.core.errors import CheckpointError, ConfigError
from quaver.loading.parts import load_codec
from quaver.nn.transformer import Transformer, TransformerConfig
from quaver.precision import Role, find_recipe
from quaver.train.average import Average
from quaver.train.codec import CodecTask
from quaver.train.config import MEL_SCALES, Schedule, TrainConfig, read_config
from quaver.train.data import read_shards
from quaver.train.files import replace_folder
from quaver.train.lm import IGNORE, LanguageModelTask, TokenBank
from quaver.train.loop import Progress, run
from quaver.train.losses import MelLoss, mel_filters

CPU = torch.device("cpu")
CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = """
[data]
folder = "{folder}"
voices = ["low", "high"]
hours = 0.001
[codec]
hours = 0.001
batch = 2
crop_samples = 4096
discrete_from = 2
adversarial_from = 3
[codec.schedule]
steps = 4
learning_rate = 1e-3
warmup_steps = 1
decay_steps = 2
validate_every = 2
save_every = 2
[codec.model]
sampling_rate = 24000
encoder_dim = 4
encoder_rates = [2, 4, 8, 8]
decoder_dim = 32
decoder_rates = [8, 8, 4, 2]
codebook_size = 16
codebook_dim = 8
vq_strides = [4, 2, 1]
[lm]
batch_tokens = 1024
dropout_codes = 0.1
[lm.schedule]
steps = 4
learning_rate = 1e-3
warmup_steps = 1
decay_steps = 2
validate_every = 2
save_every = 2
[lm.model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
rms_norm_eps = 1e-5
rope_theta = 10000.0
max_position_embeddings = 512
"""


def write_tones(folder: Path) -> None:
    """Two shards in the layout that `quaver train data` writes."""
    folder.mkdir(parents=True)
    time = np.arange(12000) / 24000
    for shard in range(2):
        rows, sounds = [], []
        for index, (voice, pitch) in enumerate([("low", 110), ("high", 220)] * 4):
            sound = 9000 * np.sin(2 * np.pi * pitch * time[: 6000 + 1000 * index])
            sounds.append(sound.astype(np.int16))
            rows.append({"text": f"Tone {index}.", "voice": voice, "samples": len(sound)})
        (folder / f"shard-{shard:05d}.i16").write_bytes(np.concatenate(sounds).tobytes())
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"shard-{shard:05d}.jsonl").write_text(lines)


@pytest.fixture
def config(tmp_path) -> TrainConfig:
    write_tones(tmp_path / "data")
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG.format(folder=tmp_path / "data"))
    return read_config(path)


@pytest.fixture
def codec_folder(config, tmp_path) -> Path:
    run(CodecTask(config.codec, config.data, CPU), config.codec.schedule, tmp_path / "codec")
    return tmp_path / "codec" / "model"


def lm_task(config: TrainConfig, codec: Path) -> LanguageModelTask:
    return LanguageModelTask(config.lm, config.data, load_codec(codec, CPU), codec, CPU)


def test_what_is_trained_loads_and_speaks(config, codec_folder, tmp_path):
    assert run(lm_task(config, codec_folder), config.lm.schedule, tmp_path / "lm")
    voice = quaver.load(tmp_path / "lm" / "model", device="cpu")
    assert voice.info()["voices"] == ["low", "high"]
    assert len(voice.generate("Tone.", voice="high", seed=1).samples)


def test_a_killed_run_goes_on_where_it_was_saved(config, tmp_path):
    def kill_at_three(progress: Progress) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    out = tmp_path / "codec"
    with pytest.raises(KeyboardInterrupt):
        run(
            CodecTask(config.codec, config.data, CPU),
            config.codec.schedule,
            out,
            report=kill_at_three,
            report_every=1,
        )
    seen: list[int] = []
    task = CodecTask(config.codec, config.data, CPU)
    done = run(
        task, config.codec.schedule, out, report=lambda p: seen.append(p.step), report_every=1
    )
    assert done
    assert seen[0] == 3  # saved at 2
    assert load_codec(out / "model", CPU).config.codebook_size == 16


@pytest.mark.parametrize("average_steps", [0, 30])
def test_resuming_changes_nothing_of_a_language_model(
    config, codec_folder, tmp_path, average_steps
):
    config = replace(config, lm=replace(config.lm, average_steps=average_steps))
    schedule = config.lm.schedule
    run(lm_task(config, codec_folder), schedule, tmp_path / "whole")
    run(lm_task(config, codec_folder), replace(schedule, save_every=1), tmp_path / "cut", minutes=0)
    run(lm_task(config, codec_folder), schedule, tmp_path / "cut")
    whole, cut = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut")
    )
    assert whole == cut


def test_the_mean_of_weights_is_what_is_kept(monkeypatch):
    """Two looks count alike, later ones by the share of the steps that they stand for."""
    monkeypatch.setattr("quaver.train.average.EVERY", 1)
    model = nn.Linear(1, 1, bias=False)
    mean = Average(model, 4)
    expected = [1.0, 1.5, 2.0, 2.5, 2.5 + (5 - 2.5) / 4]
    for step, wanted in enumerate(expected):
        nn.init.constant_(model.weight, step + 1.0)
        mean.update(step)
        with mean.in_place():
            assert float(model.weight) == pytest.approx(wanted)
        assert float(model.weight) == step + 1.0
    none = Average(model, 0)
    none.update(0)
    with none.in_place():
        assert float(model.weight) == 5.0


def test_time_is_kept_and_the_model_is_written_all_the_same(config, tmp_path):
    task = CodecTask(config.codec, config.data, CPU)
    assert not run(task, config.codec.schedule, tmp_path / "codec", minutes=0)
    assert (tmp_path / "codec" / "model" / "model.safetensors").exists()


def test_a_damaged_save_is_told(config, tmp_path):
    out = tmp_path / "codec"
    out.mkdir()
    (out / "state.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="delete it to start anew"):
        run(CodecTask(config.codec, config.data, CPU), config.codec.schedule, out)


class Diverging:
    """A task whose losses, or weights, stop being numbers at a step."""

    def __init__(self, loss: float, weight: float, at: int) -> None:
        self._then = (loss, weight)
        self._at = at
        self._now = (1.0, 1.0)

    def step(self, step: int, rate: float) -> dict[str, torch.Tensor]:
        if step == self._at:
            self._now = self._then
        return {"loss": torch.tensor(self._now[0])}

    def validate(self) -> dict[str, float]:
        return {}

    def state(self) -> dict[str, object]:
        return {"weights": [torch.tensor([0.0, self._now[1]])], "name": "x"}

    def restore(self, state: dict[str, object]) -> None:
        pass

    def export(self, folder: Path) -> None:
        raise AssertionError("a run that diverged has no model")


@pytest.mark.parametrize(
    ("loss", "weight", "told"),
    [
        (float("nan"), 1.0, "loss is not finite at step 6 .loss nan"),
        (float("inf"), 1.0, "loss is not finite at step 6 .loss inf"),
        (1.0, float("nan"), "weights are not finite at step 6"),
    ],
)
def test_a_run_that_diverges_stops_and_keeps_its_last_good_save(tmp_path, loss, weight, told):
    schedule = Schedule(100, 1e-3, 1, 1, validate_every=50, save_every=2)
    with pytest.raises(ConfigError, match=f"{told}.*learning_rate"):
        run(Diverging(loss, weight, at=5), schedule, tmp_path)
    assert torch.load(tmp_path / "state.pt")["step"] == 4
    assert [each.name for each in tmp_path.iterdir()] == ["state.pt"]


def test_a_save_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*state\.pt .*failed writing"):
        run(Diverging(1.0, 1.0, at=-1), Schedule(1, 1e-3, 1, 1), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_shapes_that_do_not_fit_are_told(config):
    for changed, told in (
        ({"crop_samples": 5000}, "whole number of frames is needed, each of 2048"),
        ({"crop_samples": 2048 * 1000}, "give a smaller crop"),
    ):
        with pytest.raises(ConfigError, match=told):
            CodecTask(replace(config.codec, **changed), config.data, CPU)
    with pytest.raises(ConfigError, match="must be the same"):
        CodecTask(config.codec, replace(config.data, sample_rate=16_000), CPU)


def test_a_model_s_folder_is_replaced_and_one_that_a_kill_moved_away_comes_back(tmp_path):
    folder = tmp_path / "model"
    for text in ("first", "second"):
        with replace_folder(folder) as fresh:
            fresh.mkdir()
            (fresh / "a").write_text(text)
    assert (folder / "a").read_text() == "second"
    folder.rename(tmp_path / "model.old")  # where a kill between two renames leaves it
    with pytest.raises(KeyError), replace_folder(folder):
        raise KeyError
    assert (folder / "a").read_text() == "second"
    assert [each.name for each in tmp_path.iterdir()] == ["model"]


def test_missing_and_damaged_data_are_told(tmp_path):
    with pytest.raises(ConfigError, match="quaver train data"):
        read_shards(tmp_path, 1.0, 24000)
    write_tones(tmp_path / "data")
    sound = tmp_path / "data" / "shard-00001.i16"
    sound.write_bytes(sound.read_bytes()[:-2])
    with pytest.raises(ConfigError, match="delete both"):
        read_shards(tmp_path / "data", 1.0, 24000)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_our_own_configurations_can_be_read(path):
    config = read_config(path)
    assert config.codec.model == read_config(CONFIGS / "nano.toml").codec.model
    assert config.lm.model == read_config(CONFIGS / "nano.toml").lm.model


def test_an_epoch_has_every_sequence_once_and_repeats_by_seed():
    sequences = [np.full(5 + i, i, np.int32) for i in range(40)]
    bank = TokenBank(sequences, [2] * 40, CPU)

    def epoch(first: int, seed: int) -> list[list[int]]:
        batches = (bank.batch(first + step, 512, seed) for step in range(count))
        return [inputs[:, 0].tolist() for inputs, _ in batches]

    count = len(bank._grouped(512))
    assert count > 2
    assert sorted(functools.reduce(operator.iadd, epoch(0, 7), [])) == list(range(40))
    assert epoch(0, 7) == epoch(0, 7)
    assert epoch(0, 7) != epoch(count, 7)
    assert epoch(0, 7) != epoch(0, 8)


def test_batches_are_planned_once(monkeypatch):
    """Planning passes over all utterances, which with many takes longer than a step."""
    sorts = []
    monkeypatch.setattr(
        np, "argsort", lambda *a, sort=np.argsort, **k: sorts.append(a) or sort(*a, **k)
    )
    bank = TokenBank([np.full(5 + i, i, np.int32) for i in range(40)], [2] * 40, CPU)
    for step in range(50):
        bank.batch(step, 512, 0)
    assert len(sorts) == 1


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("g++") is None,
    reason="g++ is not installed, and torch.compile needs it: install your system's C++ compiler",
)
def test_a_compiled_layer_takes_batches_of_any_shape():
    shape = TransformerConfig(32, 64, 1, 6, 2, 16, 1e-5, 1e4, None, 512)
    torch.manual_seed(0)
    eager = Transformer(shape, Role.BACKBONE, find_recipe("fp32"))
    for parameter in eager.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    compiled = copy.deepcopy(eager)
    compiled.layers[0].compile(dynamic=True)
    for batch, length in ((3, 64), (2, 128), (5, 32)):
        x = torch.randn(batch, length, 32)
        for model in (eager, compiled):
            model.zero_grad()
            model(x).square().sum().backward()
        for theirs, ours in zip(eager.parameters(), compiled.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)


def test_only_speech_is_learnt():
    bank = TokenBank([np.arange(10, 20, dtype=np.int32)], [4], CPU)
    inputs, targets = bank.batch(0, 512, 0)
    assert inputs[0, :10].tolist() == list(range(10, 20))
    assert targets[0, :9].tolist() == [IGNORE] * 3 + list(range(14, 20))
    assert set(targets[0, 9:].tolist()) == {IGNORE}


def test_codes_count_in_the_loss_as_configured(config, codec_folder):
    """Only the first code of a frame counts: what the others are changes nothing."""
    only = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    config = replace(config, lm=replace(config.lm, code_weights=only, dropout_codes=0.0))
    task = lm_task(config, codec_folder)
    layout = task._layout
    inputs = torch.full((1, 14), layout.first_token)
    targets = layout.to_tokens(torch.zeros(2, 7).long()).view(1, 14)
    others = layout.to_tokens(torch.tensor([[0, 3, 1, 4, 1, 5, 9]] * 2)).view(1, 14)
    plain = torch.ones_like(task._weights)
    with torch.no_grad():
        first = [task._forward(inputs, t, task._weights) for t in (targets, others)]
        even = [task._forward(inputs, t, plain) for t in (targets, others)]
        alone = torch.where(torch.arange(14) % 7 == 0, targets, IGNORE)
        assert torch.equal(first[0], first[1])
        torch.testing.assert_close(first[0], task._forward(inputs, alone, plain))
    assert even[0] != even[1]
    with pytest.raises(ConfigError, match="has 3 numbers; give 7"):
        lm_task(replace(config, lm=replace(config.lm, code_weights=(1.0, 2.0, 3.0))), codec_folder)


def test_the_rate_rises_stays_and_falls():
    schedule = Schedule(steps=10, learning_rate=1.0, warmup_steps=2, decay_steps=4)
    assert [schedule.rate(step) for step in (0, 1, 5, 8, 9)] == [0.5, 1.0, 1.0, 0.5, 0.25]


def test_the_scales_of_the_loss_are_the_configuration(config, tmp_path):
    path = tmp_path / "scales.toml"
    path.write_text(
        CONFIG.format(folder=config.data.folder).replace(
            "batch = 2", "batch = 2\nmel_scales = [[64, 10], [512, 40]]"
        )
    )
    scales = read_config(path).codec.mel_scales
    assert scales == ((64, 10), (512, 40))
    silence, noise = torch.zeros(1, 2048), torch.randn(1, 2048)
    wide = MelLoss(24000, MEL_SCALES)(silence, noise)
    assert MelLoss(24000, scales)(silence, noise) not in (0, wide)
    assert MelLoss(24000, scales)(noise, noise) == 0


@pytest.mark.parametrize(("n_fft", "bands"), [(32, 5), (512, 80), (2048, 320)])
def test_mel_filters_see_the_whole_spectrum(n_fft, bands):
    filters = mel_filters(24000, n_fft, bands)
    assert filters.shape == (bands, n_fft // 2 + 1)
    assert bool((filters.sum(dim=0) > 0).all())
    assert filters[0, 0] == filters[-1, -1] == 1.0
