"""Choose the device and the precision, and derive every random stream from the run's seed."""

from __future__ import annotations

import os
import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from dltool import ranks
from dltool.console import Console
from dltool.errors import ConfigError, DeviceError
from dltool.seeds import derive_seed as derive_seed

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Choice:
    """A device and the reason why it was chosen."""

    device: torch.device
    reason: str


def choose(name: str) -> Choice:
    """Return the device for `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    Of several ranks on a machine each has a CUDA device of its own, by its number there.

    Raises:
        DeviceError: the device asked for is not there; there is no silent fall-back to the CPU.
        ConfigError: the name is none of these.
    """
    kind, _, index = name.partition(":")
    if name == "auto":
        return _automatic()
    if name == "cpu":
        return Choice(torch.device("cpu"), "asked for")
    if kind == "cuda" and (index.isdigit() or name == "cuda"):
        return _cuda(name, int(index or 0)) if ranks.world().count == 1 else _cuda_of_rank(name)
    if name == "mps":
        ranks.refuse_several("an Apple GPU")
        if not torch.backends.mps.is_available():
            raise DeviceError(
                "E301", "no Apple GPU is available to torch", cure="use --device cpu or auto"
            )
        return Choice(torch.device("mps"), "asked for")
    raise ConfigError(
        "E202",
        "--device is not understood",
        received=name,
        expected="auto, cpu, cuda, cuda:N or mps",
        cure="use --device auto",
    )


def _automatic() -> Choice:
    if torch.cuda.is_available() and ranks.world().count > 1:
        return _cuda_of_rank("cuda")
    if torch.cuda.is_available():
        return Choice(torch.device("cuda", 0), f"found {torch.cuda.get_device_name(0)}")
    if torch.backends.mps.is_available():
        ranks.refuse_several("an Apple GPU")
        return Choice(torch.device("mps"), "found an Apple GPU")
    return Choice(torch.device("cpu"), no_cuda_reason())


def _cuda(name: str, index: int) -> Choice:
    if not torch.cuda.is_available():
        raise DeviceError(
            "E301",
            f"--device {name} is not there: {no_cuda_reason()}",
            cure="use --device cpu, or see dltool doctor",
        )
    count = torch.cuda.device_count()
    if index >= count:
        last = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0"
        raise DeviceError(
            "E301",
            f"--device {name} is not there",
            expected=last,
            cure="see dltool gpu info",
        )
    return Choice(torch.device("cuda", index), "asked for")


def _cuda_of_rank(name: str) -> Choice:
    """Return the device of this rank, which becomes the current one for torch and NCCL."""
    world = ranks.world()
    if name != "cuda":
        raise ConfigError(
            "E205",
            f"--device {name} names one device for {world.count} ranks",
            cure="use --device cuda: each rank takes the device of its number",
        )
    count = torch.cuda.device_count()
    if count < world.local_count:
        found = f"{count} CUDA device{'' if count == 1 else 's'}" if count else no_cuda_reason()
        raise DeviceError(
            "E301",
            f"{world.local_count} ranks on this machine need a CUDA device each",
            received=found,
            cure=f"use --nproc {max(count, 1)}, or --device cpu",
        )
    device = torch.device("cuda", world.local_rank)
    torch.cuda.set_device(device)
    return Choice(device, f"rank {world.rank} of {world.count}")


def no_cuda_reason() -> str:
    """Say in a few words why torch has no CUDA device here."""
    if torch.version.cuda is None:
        return "this build of torch has no CUDA support"
    if os.environ.get("CUDA_VISIBLE_DEVICES", None) in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every GPU"
    return "torch finds no NVIDIA GPU or driver"


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which the forward pass runs at the named precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def without_autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context that suspends `autocast`, for the backward pass and the update."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def check_precision(device: torch.device, precision: str) -> None:
    """Refuse a precision that the device cannot train in.

    Raises:
        ConfigError: the name is unknown.
        DeviceError: fp16 outside CUDA, or bf16 on a GPU without it.
    """
    if precision not in PRECISIONS:
        raise ConfigError(
            "E202",
            "--precision is not understood",
            received=precision,
            expected="fp32, bf16 or fp16",
            cure="use --precision fp32",
        )
    if precision == "fp16" and device.type != "cuda":
        raise DeviceError(
            "E302", f"fp16 training does not work on {device.type}", cure="use --precision bf16"
        )
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise DeviceError("E302", "this GPU has no bf16", cure="use --precision fp16 or fp32")


def generator(seed: int, *parts: object, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh random generator for one purpose of the run."""
    stream = torch.Generator(device=device)
    stream.manual_seed(derive_seed(seed, *parts))
    return stream


def seed_everything(seed: int) -> None:
    """Seed the global streams of Python, NumPy and torch, which dropout and libraries draw from."""
    import numpy as np

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def prepare(
    name: str,
    console: Console,
    *,
    precision: str = "fp32",
    seed: int = 0,
    threads: int = 0,
    deterministic: bool = False,
) -> torch.device:
    """Choose the device for a run, say which and why, and set seeds, threads and kernels.

    Raises:
        DeviceError: the device or the precision on it is not there.
        ConfigError: a name is not understood.
    """
    choice = choose(name)
    check_precision(choice.device, precision)
    console.note(f"device {choice.device} ({choice.reason}), precision {precision}")
    if threads:
        torch.set_num_threads(threads)
    if deterministic:
        make_deterministic(choice.device)
    seed_everything(seed)
    return choice.device


def make_deterministic(device: torch.device) -> None:
    """Ask torch for bitwise repeatable kernels; an operator that has none raises."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False


def guarantee(device: torch.device, *, deterministic: bool) -> str:
    """Return the run's grade: does the same command give the same bits again?

    `bitwise` on the CPU and on CUDA in deterministic mode, with the same versions and threads;
    `statistical` elsewhere.
    """
    if device.type == "cpu" or (device.type == "cuda" and deterministic):
        return "bitwise"
    return "statistical"
