"""Take units out of a model's feed-forward blocks, so that its file gets smaller.

    python scripts/narrow.py MODEL OUT --units 896

The model speaks, and each block is watched: units that move its output least go, and the matrix
behind them is fitted anew, by least squares, to what the block gave with all of them. Blocks are
done from the first to the last, each on the outputs of those that are narrow already.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from quaver.loading import Loaded, open_model
from quaver.nn.mlp import GatedMLP
from quaver.quant.texts import DEFAULT_SAMPLES, calibration_texts
from quaver.quantizing.speech import Spoken, speak

DAMPING = 1e-4  # of the mean square of a unit, against units that never move


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--units", type=int, required=True, help="of each block, that stay")
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    loaded = open_model(wanted.model, "fp32", "cpu", slots=1)
    texts = calibration_texts()[:DEFAULT_SAMPLES]
    said = speak(loaded.model, loaded.folder, texts, wanted.seed, loaded.device)
    narrowed: dict[str, Tensor] = {}
    for number, layer in enumerate(loaded.model.backbone.layers):
        stay, down, error = narrow(loaded, layer.mlp, said, wanted.units)
        prefix = f"model.layers.{number}.mlp"
        gate, up = layer.mlp.gate_up.weight.detach().chunk(2)
        narrowed |= {
            f"{prefix}.gate_proj.weight": gate[stay],
            f"{prefix}.up_proj.weight": up[stay],
            f"{prefix}.down_proj.weight": down,
        }
        layer.mlp.gate_up.weight = nn.Parameter(torch.cat((gate[stay], up[stay])))
        layer.mlp.down.weight = nn.Parameter(down)
        print(f"layer {number}: {error:.4f} of the block's output is lost", flush=True)
    write(wanted.model, wanted.out, narrowed, wanted.units)


def narrow(
    loaded: Loaded, block: GatedMLP, said: list[Spoken], units: int
) -> tuple[Tensor, Tensor, float]:
    """Units that stay [units], the matrix behind them [width, units], and the share of the
    block's power that is lost."""
    down = block.down.weight.detach().double()
    with products(block.down) as seen, torch.inference_mode():
        for spoken in said:
            loaded.model.hidden(spoken.tokens[None])
    inputs = sum(seen[1:], seen[0])
    stay = (inputs.diagonal() * down.square().sum(0)).topk(units).indices.sort().values
    inside = inputs[stay][:, stay]
    inside += torch.eye(units, dtype=inside.dtype) * DAMPING * inside.diagonal().mean()
    fitted = torch.linalg.solve(inside, inputs[stay] @ down.T).T
    gap = -down
    gap[:, stay] += fitted
    lost = torch.einsum("oi,ij,oj->", gap, inputs, gap) / torch.einsum(
        "oi,ij,oj->", down, inputs, down
    )
    return stay, fitted.float(), float(lost)


@contextmanager
def products(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Sums of x x^T over the inputs x that `layer` sees within the block."""
    seen: list[Tensor] = []

    def watch(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        flat = inputs[0].flatten(0, -2).double()
        seen[:] = [sum(seen, flat.T @ flat)]

    hook = layer.register_forward_pre_hook(watch)
    try:
        yield seen
    finally:
        hook.remove()


def write(model: Path, out: Path, narrowed: dict[str, Tensor], units: int) -> None:
    """A copy of `model` with these tensors instead."""
    shutil.copytree(model, out)
    tensors = load_file(out / "model.safetensors")
    new = {name: tensor.bfloat16().contiguous() for name, tensor in narrowed.items()}
    save_file(tensors | new, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "config.json").read_text())
    config["intermediate_size"] = units
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
