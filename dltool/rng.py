"""Capture and restore every global random stream, bit for bit."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np
import torch

from dltool.seeds import derive_seed


def capture(device: torch.device) -> dict[str, Any]:
    """Return the states of Python's, NumPy's and torch's global streams as tensors and numbers."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [
            str(kind),
            torch.from_numpy(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put the streams back to where `capture` found them."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])


def branch(number: int) -> None:
    """Give another rank than the first streams of its own, which follow from the first one's."""
    state = torch.get_rng_state().numpy().tobytes()
    seed = derive_seed(int.from_bytes(hashlib.blake2b(state, digest_size=7).digest()), number)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
