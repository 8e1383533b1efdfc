"""What others' code makes of the same weights, in the same process."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from quaver.core.errors import InputError
from quaver.core.types import SamplingParams

BASELINES = ("transformers",)  # and packages that have it
TRANSFORMERS = "transformers static cache"
WARM_TOKENS = 24


def check_baseline(name: str) -> None:
    """InputError for one that cannot be run, before minutes are spent on what it is beside."""
    if name not in BASELINES:
        raise InputError(f"--baseline is {name!r}; allowed is {', '.join(BASELINES)}")
    if find_spec(name) is None:
        raise InputError(f"--baseline {name} needs {name}; pip install {name}")


def transformers_speed(folder: Path, device: str, prompt: int, new: int) -> dict[str, Any]:
    """Tokens a second of transformers' `generate` in bf16 on a checkpoint of dense weights: one
    stream, a static cache, which it compiles for on a GPU, and Orpheus's sampling."""
    import torch
    from transformers import LlamaForCausalLM

    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model = model.to(device).eval()
    tokens = torch.arange(1, prompt + 1, device=device)[None]
    sampling = SamplingParams()
    options = {
        "attention_mask": torch.ones_like(tokens),
        "cache_implementation": "static",
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "repetition_penalty": sampling.repetition_penalty,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    torch.manual_seed(0)
    model.generate(tokens, max_new_tokens=WARM_TOKENS, **options)
    # the cache's size is part of what is compiled: once at full length too
    model.generate(tokens, max_new_tokens=new, **options)
    started = time.perf_counter()
    made = model.generate(tokens, max_new_tokens=new, **options)
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return {"name": TRANSFORMERS, "tokens_per_s": (made.shape[1] - prompt) / seconds}
