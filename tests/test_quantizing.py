"""`quantize` from a folder to a folder: what it makes, who can read it, and what it refuses."""

from __future__ import annotations

import errno
import inspect
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import quaver
from command import ENVIRONMENT
from late import Late
from llama import CPU, TOKENS, llama
from needs import needs_posix
from quaver.checkpoints import write
from quaver.checkpoints.source import resolve
from quaver.cli.main import run
from quaver.core.errors import CheckpointError, InputError
from quaver.engine.cache import KVCache, PrefillView
from quaver.engine.keeping import keeping
from quaver.families.orpheus.text import TAGS
from quaver.families.orpheus.weights import normed
from quaver.loading.orpheus import load_orpheus, stored_recipe
from quaver.precision import Format, Role, find_recipe
from quaver.quality.panel import PLAIN_SENTENCES, TAGGED_SENTENCES
from quaver.quant.apply import LAYERS, dequantise
from quaver.quant.calibration import calibrate
from quaver.quant.gptq import gptq
from quaver.quant.int4 import Int4Linear
from quaver.quant.layer import QuantisedLinear
from quaver.quant.smooth import smoothing
from quaver.quant.texts import DEFAULT_SAMPLES, calibration_texts, without_tags
from quaver.quantizing import quantize
from quaver.quantizing.speech import MAX_CHARS, MAX_TEXTS, read_texts, speak

transformers = Late("transformers")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original")
    llama().save_pretrained(folder)
    return folder


def write_model(folder: Path, original: Path, weights: dict[str, torch.Tensor]) -> Path:
    """A folder with the configuration of `original` and these weights."""
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_bytes((original / "config.json").read_bytes())
    return folder


def make(original: Path, out: Path, recipe: str, **options) -> Path:
    """Without calibration, which needs a model that speaks."""
    quantize(str(original), out, recipe, device="cpu", **options)
    return out


@pytest.mark.parametrize(
    "recipe", ["fp8,kv=bf16", "fp8-block", "fp8-weight", "int8", "nf4", "fp8-e5m2"]
)
def test_what_is_written_is_what_loading_makes(recipe, original, tmp_path):
    made = load_orpheus(
        make(original, tmp_path / "out", recipe), "made", stored_recipe(tmp_path / "out"), CPU
    )
    loaded = load_orpheus(original, "original", find_recipe(recipe), CPU)
    assert str(stored_recipe(tmp_path / "out")) == recipe
    for (name, ours), theirs in zip(made.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(ours.float(), theirs.float()), name


@pytest.mark.parametrize(
    "recipe", ["fp8,kv=bf16", "fp8-block", "fp8-weight", "int8", "int8,*.down=fp8-weight"]
)
def test_transformers_reads_the_same_weights(recipe, original, tmp_path):
    out = make(original, tmp_path / "out", recipe)
    reference = transformers.LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    ours = load_orpheus(out, "made", find_recipe("fp32"), CPU)
    with torch.inference_mode():
        reference(TOKENS)  # the first pass unpacks its weights
        for module in reference.modules():
            if scheme := getattr(module, "quantization_scheme", None):
                scheme.input_activations = None  # weights alone: inputs are compared elsewhere
        wanted, found = reference(TOKENS).logits, ours(TOKENS)
        plain = llama()(TOKENS).logits
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert (wanted - plain).abs().max() > 1e-2, "the comparison can fail"


def test_the_manifest_says_what_was_done(original, tmp_path):
    report = quantize(str(original), tmp_path / "out", "int8,*.down=nf4", device="cpu")
    manifest = json.loads((tmp_path / "out" / "quaver.json").read_text())
    assert manifest["asked"] == "int8,*.down=nf4"
    recipe = find_recipe(manifest["recipe"])
    found = recipe.layer_format("backbone.layers.1.mlp.down", Role.BACKBONE)
    assert found is Format.NF4
    assert set(manifest["source"]["sha256"]) == {"model.safetensors"}
    assert [layer["sqnr_db"] for layer in manifest["layers"]] == sorted(
        layer["sqnr_db"] for layer in manifest["layers"]
    )
    by_name = {layer.name: layer for layer in report.layers}
    weight = llama().state_dict()["model.layers.1.mlp.down_proj.weight"].double()
    back = dequantise(LAYERS[Format.NF4].quantise(weight)).double()
    wanted = 10 * torch.log10(weight.square().sum() / (weight - back).square().sum())
    assert by_name["backbone.layers.1.mlp.down"].sqnr_db == pytest.approx(float(wanted), abs=1e-6)
    sizes = sum(tensor.nbytes for tensor in load_file(tmp_path / "out/model.safetensors").values())
    assert report.bytes_after == sizes < report.bytes_before / 2


def test_a_layer_that_rounding_would_spoil_stays_dense(original, tmp_path):
    weights = load_file(original / "model.safetensors")
    weights["model.layers.1.self_attn.k_proj.weight"][:, 0] = 1.0  # sixteen times the others
    folder = write_model(tmp_path / "spoiled", original, weights)
    report = quantize(str(folder), tmp_path / "out", "int8", device="cpu", least_sqnr=41.0)
    assert [layer.name for layer in report.kept] == ["backbone.layers.1.attention.qkv"]
    assert report.recipe == "int8,backbone.layers.1.attention.qkv=bf16"
    made = load_orpheus(tmp_path / "out", "made", stored_recipe(tmp_path / "out"), CPU)
    assert not isinstance(made.backbone.layers[1].attention.qkv, QuantisedLinear)
    reference = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        found = load_orpheus(tmp_path / "out", "made", find_recipe("fp32"), CPU)(TOKENS)
        torch.testing.assert_close(found, reference(TOKENS).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_too(tied, tmp_path):
    folder = tmp_path / "original"
    llama(tied=tied).save_pretrained(folder)
    report = quantize(str(folder), tmp_path / "out", "int8,head=int8", device="cpu")
    assert report.recipe == "int8,head=int8"
    assert json.loads((tmp_path / "out/config.json").read_text())["tie_word_embeddings"] is False
    made = load_orpheus(tmp_path / "out", "made", stored_recipe(tmp_path / "out"), CPU)
    assert made.head.format is Format.INT8
    reference = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "out", dtype=torch.float32
    ).eval()
    with torch.inference_mode():
        found = load_orpheus(tmp_path / "out", "made", find_recipe("fp32"), CPU)(TOKENS)
        torch.testing.assert_close(found, reference(TOKENS).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("recipe", ["int8", "nf4", "fp8-weight"])
@pytest.mark.parametrize("tied", [True, False])
def test_all_layers_means_the_head_and_the_table(tied, recipe, tmp_path):
    folder = tmp_path / "original"
    llama(tied=tied).save_pretrained(folder)
    report = quantize(str(folder), tmp_path / "out", recipe, device="cpu", all_layers=True)
    wanted = find_recipe(f"{recipe},embed={recipe},head={recipe}")
    assert find_recipe(report.recipe) == stored_recipe(tmp_path / "out") == wanted
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["tie_word_embeddings"] is tied
    assert config["quantization_config"]["quant_method"] == "quaver", "others read no such table"
    made = load_orpheus(tmp_path / "out", "made", wanted, CPU)
    loaded = load_orpheus(folder, "original", wanted, CPU)
    dense = load_orpheus(tmp_path / "out", "made", find_recipe("fp32"), CPU)
    with torch.inference_mode():
        found = made(TOKENS)
        assert torch.equal(found, loaded(TOKENS))
        assert (found - dense(TOKENS)).square().mean() < 1e-3 * found.square().mean()
        original = llama(tied=tied).state_dict()["model.embed_tokens.weight"]
        table = made.embed(torch.arange(len(original)))
    error = (table.float() - original).norm() / original.norm()
    assert 1e-3 < error < (0.15 if recipe == "nf4" else 0.04)
    if tied and recipe == "int8":
        assert made.embed.weight is made.head.weight, "one weight, in memory too"


def test_a_table_that_is_the_head_has_its_format(tmp_path):
    folder = tmp_path / "original"
    llama(tied=True).save_pretrained(folder)
    message = "keeps the table in int8 and the head in bf16, and this model has one for both"
    with pytest.raises(InputError, match=message):
        quantize(str(folder), tmp_path / "out", "int8,embed=int8", device="cpu")
    with pytest.raises(InputError, match=message):
        load_orpheus(folder, "original", find_recipe("int8,embed=int8"), CPU)


def test_a_head_that_stays_dense_stays_tied(tmp_path):
    folder = tmp_path / "original"
    llama(tied=True).save_pretrained(folder)
    for recipe in ("int8,head=int8", "int8,head=int8,embed=int8"):
        out = tmp_path / recipe
        report = quantize(str(folder), out, recipe, device="cpu", least_sqnr=200.0)
        assert len(report.kept) == len(report.layers) == 9
        assert "lm_head.weight" not in load_file(out / "model.safetensors")
        assert stored_recipe(out) == find_recipe("bf16")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("bf16", "recipe 'bf16' quantises no layer"),
        ("bf16,kv=int8", "quantises no layer"),
        ("int8,kv=int8", "in int8, which a checkpoint does not say; leave it out here"),
        ("fp16,head=int8", "has embed in fp16; what stays dense is written in bf16"),
        ("auto", "unknown recipe 'auto'; allowed are fp32.*int4, nf4$"),
        ("int9", "unknown recipe 'int9'"),
        ("int8,*.dwon=bf16", r"no layer is called \*\.dwon"),
        ("int4,*.down=bf16,head=nf4", "300 inputs do not divide"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(recipe, message, original, tmp_path):
    folder = tmp_path / "odd"
    llama(hidden_size=300).save_pretrained(folder)
    with pytest.raises(InputError, match=message):
        quantize(str(folder), tmp_path / "out", recipe, device="cpu")
    assert not (tmp_path / "out").exists()


def test_what_is_quantised_is_not_quantised_again(original, tmp_path):
    once = make(original, tmp_path / "once", "int8")
    with pytest.raises(
        InputError, match=r"once is quantised already .'compressed-tensors'.; give the"
    ):
        make(once, tmp_path / "twice", "nf4")
    with pytest.raises(CheckpointError, match="once exists already"):
        make(original, once, "int8")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused_by_name(bad, original, tmp_path):
    weights = load_file(original / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = bad
    folder = write_model(tmp_path / "bad", original, weights)
    with pytest.raises(
        CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight .* infinities or NaN"
    ):
        make(folder, tmp_path / "out", "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_truncated_file_is_refused(original, tmp_path):
    folder = tmp_path / "cut"
    folder.mkdir()
    data = (original / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    (folder / "config.json").write_bytes((original / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="cut short or damaged"):
        make(folder, tmp_path / "out", "int8")
    assert [path.name for path in tmp_path.iterdir()] == ["cut"]


def test_a_full_disk_leaves_nothing(original, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device; nothing was kept"):
        make(original, tmp_path / "out", "int8")
    assert not list(tmp_path.iterdir())


@needs_posix
def test_a_kill_leaves_nothing_or_all(original, tmp_path):
    """Before each change of the disk, until a run makes no more changes than those before."""
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(original), str(tmp_path)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    *killed, last = [int(line) for line in done.stdout.split()]
    assert last == 0, done.stderr
    assert len(killed) > 4, "a folder, a file of weights, two of JSON, a rename"
    made = [(tmp_path / str(number)) for number in range(len(killed) + 1)]
    whole = [folder for folder in made if folder.exists()]
    assert made[-1] in whole
    assert len(whole) < len(made)
    for folder in whole:
        load_orpheus(folder, "made", stored_recipe(folder), CPU)


# Calibration: the bundled voice is small enough to be watched here.


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A folder made by `int8-dynamic`, its report, and the model that it was made of."""
    out = tmp_path_factory.mktemp("watched") / "out"
    report = quantize("nano", out, "int8-dynamic,*.down=fp8-static", device="cpu", samples=2)
    return out, report


def test_it_watches_the_model_speak(watched):
    out, report = watched
    assert report.calibration["texts"] == 2
    # 2 texts of about 4 s have some 700 codes beside their 140 letters
    assert report.calibration["tokens"] > 300
    assert quaver.load(out, device="cpu").info()["recipe"] == report.recipe
    again = quantize("nano", out.parent / "again", "fp8-static", device="cpu", samples=2)
    assert again.calibration == report.calibration


def test_a_static_scale_is_the_largest_input_that_was_seen(watched):
    out, _ = watched
    weights = load_file(out / "model.safetensors")
    scales = [v for k, v in weights.items() if k.endswith("down_proj.input_scale")]
    assert len(scales) == json.loads((out / "config.json").read_text())["num_hidden_layers"]
    assert all(1e-4 < float(scale) < 1.0 for scale in scales)
    assert len({float(scale) for scale in scales}) > 1


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> Path:
    """The bundled voice with an fp8 cache, calibrated."""
    out = tmp_path_factory.mktemp("cached") / "out"
    assert quantize("nano", out, "fp8", device="cpu", samples=2).recipe == "fp8"
    return out


def test_an_fp8_cache_is_calibrated(cached):
    weights = load_file(cached / "model.safetensors")
    scales = {k: float(v) for k, v in weights.items() if k.endswith(("k_scale", "v_scale"))}
    layers = json.loads((cached / "config.json").read_text())["num_hidden_layers"]
    assert len(scales) == 2 * layers == len(set(scales.values()))
    model = load_orpheus(cached, "made", stored_recipe(cached), CPU)
    assert model.kv_scales.flatten().tolist() == pytest.approx(list(scales.values())[: 2 * layers])
    voice = quaver.load(cached, device="cpu")
    dense = quaver.load(cached, "fp8,kv=bf16", "cpu")
    assert voice.info()["cache_bytes"] * 2 == dense.info()["cache_bytes"]
    assert len(voice.generate("Hello there.", seed=1).samples)


def with_scales(cached: Path, folder: Path, factor: float) -> Path:
    """The same folder with all scales of its cache times `factor`."""
    weights = load_file(cached / "model.safetensors")
    for name in [n for n in weights if n.endswith(("k_scale", "v_scale"))]:
        weights[name] = weights[name] * factor
    return write_model(folder, cached, weights)


def from_cache(folder: Path) -> torch.Tensor:
    """Our logits of TOKENS in fp32, read through the cache as the folder keeps it."""
    recipe = stored_recipe(folder)
    model = load_orpheus(folder, "dense", find_recipe("fp32,kv=fp8"), CPU)
    spec = model.cache_spec
    kept = keeping(recipe.format(Role.KV), spec.layers, model.kv_scales)
    cache = KVCache(spec, 1, TOKENS.shape[1], kept, CPU)
    with torch.inference_mode():
        return model(TOKENS, PrefillView(cache, 0, 0, TOKENS.shape[1]))


def in_transformers(folder: Path, scaled: bool = True) -> torch.Tensor:
    """The same by transformers, whose keys and values compressed-tensors rounds by the folder's
    scheme and scales; or not at all."""
    weights = load_file(folder / "model.safetensors")

    class Rounded(transformers.DynamicCache):
        def update(self, key_states, value_states, layer_idx, *arguments, **options):
            if scaled:
                name = f"model.layers.{layer_idx}.self_attn"
                key_states = rounded(folder, key_states, weights[f"{name}.k_scale"])
                value_states = rounded(folder, value_states, weights[f"{name}.v_scale"])
            return super().update(key_states, value_states, layer_idx, *arguments, **options)

    model = transformers.LlamaForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=transformers.CompressedTensorsConfig(dequantize=True),
    ).eval()
    asked = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in asked else "past_key_values"
    with torch.inference_mode():
        return model(TOKENS, **{name: Rounded(config=model.config)}).logits


def rounded(folder: Path, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Keys or values as compressed-tensors rounds them."""
    from compressed_tensors.quantization import QuantizationConfig
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize

    stored = json.loads((folder / "config.json").read_text())["quantization_config"]
    scheme = QuantizationConfig.model_validate(stored).kv_cache_scheme
    return fake_quantize(x, scale.float(), torch.zeros(1), scheme)


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.double().norm())


def test_scales_of_a_cache_round_as_compressed_tensors_rounds(cached):
    weights = load_file(cached / "model.safetensors")
    model = load_orpheus(cached, "made", stored_recipe(cached), CPU)
    layers = model.cache_spec.layers
    kept = keeping(Format.FP8, layers, model.kv_scales)
    for layer in range(layers):
        for part, letter in enumerate("kv"):
            scale = weights[f"model.layers.{layer}.self_attn.{letter}_scale"]
            # up to twice what the scale holds, so that some are cut
            x = torch.linspace(-2, 2, 4001).view(1, -1, 1) * 448 * scale.float()
            elements, steps = kept.encode(x, layer, part)
            found = kept.decode(elements, steps, layer, part).float()
            wanted = rounded(cached, x, scale)
            # products with a reciprocal may round a tie to the other side: a step of E4M3 at most
            assert ((found - wanted).abs() <= 2**-3 * wanted.abs() + 1e-6 * scale).all()
            assert ((found - wanted).abs() <= 2**-8 * wanted.abs()).float().mean() > 0.99
            assert found.abs().max() == pytest.approx(448 * float(scale), rel=2**-8)


def test_scales_of_a_cache_change_what_is_said_as_in_transformers(cached, tmp_path):
    """Scales of a sixteenth cut most keys and values: whoever applies them says something else."""
    plain = in_transformers(cached, scaled=False)
    cut = with_scales(cached, tmp_path / "cut", 1 / 16)
    wanted = in_transformers(cut)
    assert distance(wanted, plain) > 0.5, "the comparison can fail"
    assert distance(from_cache(cut), wanted) < 0.05
    # as calibrated: the rest is steps of fp8 that round the other way
    assert distance(from_cache(cached), in_transformers(cached)) < 0.06
    assert distance(from_cache(cached), plain) < 0.15


def test_transformers_applies_the_scales_of_a_cache(cached, tmp_path):
    from compressed_tensors.quantization.lifecycle.initialize import is_cached_attention_module

    folder = with_scales(cached, tmp_path / "cut", 1 / 16)
    reference = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if not is_cached_attention_module(reference.model.layers[0].self_attn):
        versions = [f"{name} {version(name)}" for name in ("transformers", "compressed-tensors")]
        pytest.skip(
            f"{versions[1]} does not find the attention of {versions[0]}, and keeps caches dense: "
            "install other versions of the two"
        )
    for module in reference.modules():
        if isinstance(module, torch.nn.Linear) and hasattr(module, "quantization_scheme"):
            module.quantization_scheme.input_activations = None
    with torch.inference_mode():
        found = reference(TOKENS).logits
    assert distance(found, in_transformers(folder)) < 0.05
    assert distance(found, in_transformers(folder, scaled=False)) > 0.5


def test_some_scales_of_a_cache_are_not_enough(original, tmp_path):
    weights = load_file(original / "model.safetensors")
    weights["model.layers.0.self_attn.k_scale"] = torch.ones(1)
    folder = write_model(tmp_path / "some", original, weights)
    with pytest.raises(CheckpointError, match="has 1 scales of keys and values and 4 belong"):
        load_orpheus(folder, "some", find_recipe("fp32"), CPU)


@pytest.mark.parametrize("recipe", ["int4", "int8-dynamic", "fp8"])
def test_all_layers_can_be_calibrated(recipe, tmp_path):
    options = {"device": "cpu", "samples": 2, "all_layers": True}
    report = quantize("nano", tmp_path / "out", recipe, **options)
    assert stored_recipe(tmp_path / "out").format(Role.EMBED) is Format(recipe)
    assert "embed" in [layer.name for layer in report.layers]
    voice = quaver.load(tmp_path / "out", device="cpu")
    assert len(voice.generate("Hello there.", seed=1).samples)


def test_a_table_of_another_size_is_refused(tmp_path):
    folder = tmp_path / "original"
    llama(tied=True).save_pretrained(folder)
    out = tmp_path / "out"
    quantize(str(folder), out, "int8", device="cpu", all_layers=True)
    weights = load_file(out / "model.safetensors")
    name = "model.embed_tokens.weight"
    weights |= {f"{name}_{part}": weights[f"{name}_{part}"][:100] for part in ("packed", "scale")}
    weights[f"{name}_shape"] = torch.tensor([100, 256])
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"embed is \[100, 256\], expected \[274, 256\]"):
        load_orpheus(out, "out", stored_recipe(out), CPU)


def test_a_cache_without_scales_was_not_calibrated(original, tmp_path):
    out = make(original, tmp_path / "out", "fp8,kv=bf16")
    config = json.loads((out / "config.json").read_text())
    config["quantization_config"]["kv_cache_scheme"] = {
        **{"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True},
        "dynamic": False,
    }
    (out / "config.json").write_text(json.dumps(config))
    assert str(stored_recipe(out)) == "fp8,kv=bf16"


def test_smoothing_changes_nothing_but_what_is_rounded(watched):
    out, _ = watched
    smoothed = load_file(out / "model.safetensors")
    plain = load_file(resolve("nano").path / "model.safetensors")
    norm = "model.layers.0.input_layernorm.weight"
    divisors = plain[norm].float() / smoothed[norm].float()
    assert divisors.max() / divisors.min() > 2
    name = "model.layers.0.self_attn.q_proj.weight"
    back = smoothed[name].float() * smoothed[f"{name}_scale"].float() / divisors
    step = smoothed[f"{name}_scale"].float() / divisors
    assert ((back - plain[name].float()).abs() <= 0.51 * step + 2**-7 * back.abs()).all()


def test_smoothing_helps_where_one_channel_is_loud():
    torch.manual_seed(0)
    x, weight = torch.randn(200, 128), torch.randn(64, 128)
    x[:, 7] *= 60
    layer = LAYERS[Format.INT8_DYNAMIC]
    divisors = smoothing(x.abs().amax(0), weight)

    def error(inputs, matrix):
        back = dequantise(layer.quantise(matrix))
        return (layer.round_input(inputs, None) @ back.T - x @ weight.T).square().mean()

    assert error(x / divisors, weight * divisors) < 0.2 * error(x, weight)
    assert torch.isfinite(smoothing(torch.zeros(128), torch.zeros(64, 128))).all()


def test_gptq_makes_up_for_its_errors():
    torch.manual_seed(1)
    mixing = torch.randn(256, 256) / 16 + torch.eye(256)
    x, weight = torch.randn(2000, 256) @ mixing, torch.randn(96, 256)
    wanted = x @ weight.T

    def error(made):
        return (x @ dequantise(made).T - wanted).square().mean()

    assert error(gptq(weight, x.T @ x)) < 0.7 * error(Int4Linear.quantise(weight))
    # inputs that tell nothing apart leave rounding to nearest
    even = gptq(weight, torch.eye(256))
    assert torch.equal(even.elements, Int4Linear.quantise(weight).elements)
    x[:, 3] = 0
    assert error(gptq(weight, x.T @ x)) < torch.inf
    assert torch.isfinite(dequantise(gptq(weight, torch.zeros(256, 256)))).all()


class Watchable(torch.nn.Module):
    """A layer that reads embeddings and shows them to a store, as attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = torch.nn.Embedding(10, 8), torch.nn.Linear(8, 8)

    def forward(self, tokens, store):
        x = self.table(tokens)
        still = torch.ones(1, 1, x.shape[1], 8), torch.zeros(1, 1, x.shape[1], 8)
        y = store.attend(0, torch.stack((x, x, 2 * x), dim=1), 1, still)
        torch.testing.assert_close(y[:, 0, 0], 2 * x[:, 0])  # the first position sees itself
        return self.layer(x)


def test_statistics_are_those_of_the_inputs():
    torch.manual_seed(2)
    model = Watchable()
    sequences = [torch.tensor([1, 2, 3]), torch.tensor([4, 9])]
    found = calibrate(model, ["layer"], sequences, products_of=["layer"])
    x, seen = model.table(torch.cat(sequences)).detach(), found.inputs["layer"]
    assert seen.count == found.tokens == 5
    torch.testing.assert_close(seen.largest, x.abs().amax(0))
    torch.testing.assert_close(seen.products, x.T @ x)
    torch.testing.assert_close(found.kv_largest, x.abs().max() * torch.tensor([[1.0, 2.0]]))
    assert not model.layer._forward_pre_hooks, "the model is left as it was"


def test_what_is_spoken_for_calibration_is_read_as_any_text(tiny_checkpoint):
    device = torch.device("cpu")
    model = load_orpheus(tiny_checkpoint, "", find_recipe("fp32"), device)
    texts = ["**Five** \U0001f389 & 5.", f"{'A long sentence. ' * 10}\n\n{'And more. ' * 15}"]
    spoken = speak(model, tiny_checkpoint, texts, 0, device)
    assert spoken[0].text == "Five and five."
    assert len(spoken) == 3  # a long text is two segments
    with pytest.raises(InputError, match="text 2: the text has no letter or digit to speak"):
        speak(model, tiny_checkpoint, ["Hello.", "---"], 0, device)


def test_a_file_of_texts_is_read(tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("One text.\n\nAnd another.\n")
    options = {"device": "cpu", "calibration": texts}
    report = quantize("nano", tmp_path / "out", "fp8-static,*.qkv=bf16", **options)
    assert report.calibration["texts"] == 2
    texts.write_text("\n \n")
    with pytest.raises(InputError, match="has no text; give one text a line"):
        quantize("nano", tmp_path / "none", "fp8-static", **options)


def test_calibration_texts_are_many_varied_and_not_the_panel():
    texts = calibration_texts()
    assert len(texts) == len(set(texts)) >= 512
    assert not set(texts) & {*PLAIN_SENTENCES, *TAGGED_SENTENCES}
    assert not any(panel in text for text in texts for panel in PLAIN_SENTENCES)
    lengths = sorted(map(len, texts))
    assert lengths[0] < 10 and lengths[-1] > 150 and lengths[-1] <= MAX_CHARS
    for kind in ("?", "!", ";", ":", '"', "twenty", "Dr."):
        assert sum(kind in text for text in texts[:512]) >= (1 if kind == "Dr." else 10), kind
    for tag in TAGS:
        assert sum(f"<{tag}>" in text for text in texts[:512]) >= 3, tag
    assert not any("<" in text for text in texts[:DEFAULT_SAMPLES])


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<gasp> Oh!", "Oh!"),
        ("Well, <sigh> it is late.", "Well, it is late."),
        ("Done. <laugh>", "Done."),
        ("No tag: 3 < 4.", "No tag: 3 < 4."),
    ],
)
def test_tags_are_left_out(text, plain):
    assert without_tags(text) == plain


def test_the_bundled_model_reads_every_calibration_text():
    prompts = quaver.loading.open_model("nano", "int8", "cpu").prompts
    assert not prompts.reads_tags
    for text in calibration_texts():
        assert prompts.prompt(without_tags(text), prompts.voices[0]).tokens


@pytest.mark.parametrize(
    ("lines", "count", "used", "asked", "note"),
    [
        (None, None, 24, 24, "calibrated on 24 texts of Quaver's own"),
        (None, 512, 512, 512, "calibrated on 512 texts of Quaver's own"),
        (None, 1000, 640, 1000, "calibrated on 640 texts, not 1000: Quaver's own has no more"),
        (3, None, 3, 3, "calibrated on 3 texts of texts.txt"),
        (3, 2, 2, 2, "calibrated on 2 texts of texts.txt"),
        (3, 8, 3, 8, "calibrated on 3 texts, not 8: texts.txt has no more"),
    ],
)
def test_the_number_of_texts_is_told(tmp_path, lines, count, used, asked, note):
    file = None
    if lines is not None:
        file = tmp_path / "texts.txt"
        file.write_text(
            "\ufeff" + "\n\n".join(f"Text {i}." for i in range(lines)), encoding="utf-8"
        )
    found = read_texts(file, count)
    assert (len(found.texts), found.asked, found.note) == (used, asked, note)
    assert found.texts[0][0] != "\ufeff"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "as UTF-8 text"),
        (b" \n\t\n", "has no text"),
        (b"a\n" * (MAX_TEXTS + 1), "more than 1000 texts"),
        (b"a" * (MAX_CHARS + 1), "a text of 401 characters or more"),
        (b"a" * 10_000_000, "at most 400 are allowed"),
    ],
)
def test_a_file_of_texts_is_bounded(tmp_path, content, message):
    file = tmp_path / "texts.txt"
    file.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_texts(file, None)


@pytest.mark.parametrize(
    ("recipe", "arguments", "told"),
    [
        ("fp8-static", ["--samples", "1"], "calibrated on 1 texts of Quaver's own"),
        ("int8", ["--samples", "512"], "int8 is not calibrated"),
    ],
)
def test_the_verb_tells_what_it_calibrated_on(
    tiny_checkpoint, tmp_path, capsys, recipe, arguments, told
):
    command = ["quantize", str(tiny_checkpoint), str(tmp_path / "out"), "--recipe", recipe]
    assert run([*command, "--device", "cpu", "--json", *arguments]) == 0
    out, err = capsys.readouterr()
    assert told in err
    facts = json.loads(out)["calibration"]
    record = json.loads((tmp_path / "out" / "quaver.json").read_text())["calibration"]
    assert record == facts
    assert (facts or {}).get("texts") == (1 if recipe == "fp8-static" else None)


def test_norms_and_layers_are_paired():
    model = load_orpheus(resolve("nano").path, "nano", find_recipe("bf16"), CPU)
    pairs = normed(model.config)
    assert len(pairs) == 2 * model.config.transformer.num_hidden_layers
    for layer, norm in pairs.items():
        assert model.get_submodule(layer).weight.shape[1] == len(model.get_submodule(norm).weight)
