"""Train the same network on several devices at once and say what that gains or costs."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from dltool.errors import DltoolError
from dltool_gpu import trial
from dltool_gpu.agreement import EARLY_TOLERANCE, largest_difference
from dltool_gpu.trial import Outcome, Plan

TIMEOUT = timedelta(seconds=120)


@dataclass(frozen=True)
class Together:
    """N devices that share each batch, beside one that takes it whole.

    Attributes:
        speed_up: the time of one device by that of all; below 1 all are slower.
        early_difference: of the losses from those of one device.
        step_ms: a step of one device, of all together, and of one device with its share alone;
            what the second exceeds the third by is the exchange of gradients and the waiting.
    """

    devices: int
    seconds: float
    speed_up: float
    early_difference: float
    step_ms: dict[str, float]
    explanation: str


def measure(devices: Sequence[torch.device], plan: Plan, single: Outcome) -> Together:
    """Train on all devices together, one process each, every batch divided among them.

    Raises:
        DltoolError: E100, a process failed.
    """
    losses, seconds = train(devices, plan)
    share = plan.batch_size // len(devices)
    steps = len(single.losses)
    step_ms = {
        "one": single.seconds / steps * 1e3,
        "all": seconds / steps * 1e3,
        "share": trial.step_seconds(devices[0], plan, share) * 1e3,
    }
    speed_up = single.seconds / seconds
    return Together(
        len(devices),
        seconds,
        speed_up,
        largest_difference(losses[: trial.REFERENCE_STEPS], single.losses[: trial.REFERENCE_STEPS]),
        step_ms,
        explained(len(devices), speed_up, step_ms, plan.batch_size),
    )


def explained(count: int, speed_up: float, step_ms: dict[str, float], batch_size: int) -> str:
    """Say in a sentence or two why N devices are so much faster or slower than one."""
    exchange = max(step_ms["all"] - step_ms["share"], 0.0)
    bytes_sent = 4 * sum(parameter.numel() for parameter in trial.network().parameters())
    text = (
        f"{count} devices are {speed_up:.2f}× as fast as one"
        if speed_up >= 1
        else f"{count} devices are {1 / speed_up:.2f}× slower than one"
    )
    text += (
        f": a step takes {step_ms['all']:.2f} ms instead of {step_ms['one']:.2f}; computing "
        f"1/{count} of the batch takes {step_ms['share']:.2f} ms, exchanging "
        f"{bytes_sent / 1e6:.1f} MB of gradients and waiting {exchange:.2f} ms"
    )
    if speed_up < 0.7 * count:
        text += (
            f". A step on {batch_size} images is too short to divide: launching work costs the "
            "same for a share, and the exchange comes on top. More images a step (--batch-size) "
            "make it worth while"
        )
    return text


def faults(together: Together) -> list[str]:
    """Name what is wrong with the common training; nothing when its losses are those of one."""
    if together.early_difference <= EARLY_TOLERANCE:
        return []
    return [
        f"{together.devices} devices together: the losses of the first steps differ "
        f"from those of one device by up to {together.early_difference:.1e}, rounding explains "
        f"{EARLY_TOLERANCE:.0e}"
    ]


def train(devices: Sequence[torch.device], plan: Plan) -> tuple[list[float], float]:
    """Start a process for each device; return the losses over whole batches, and the seconds.

    Raises:
        DltoolError: E100, a process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = (len(devices), [str(device) for device in devices], asdict(plan), folder)
        try:
            torch.multiprocessing.spawn(_rank, args=words, nprocs=len(devices))  # type: ignore[no-untyped-call, attr-defined, unused-ignore]
        except Exception as error:  # spawn's own types hold the failed rank's traceback
            last = str(error).strip().splitlines()[-1]
            raise DltoolError(
                "E100",
                f"training on {len(devices)} devices together failed: {last}",
                cure="try each alone: dltool gpu test --device cuda:0",
            ) from error
        answer = json.loads((Path(folder) / "answer.json").read_text(encoding="utf-8"))
    return answer["losses"], answer["seconds"]


def _rank(
    rank: int, world: int, names: Sequence[str], settings: dict[str, Any], folder: str
) -> None:
    device, plan = torch.device(names[rank]), Plan(**settings)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // world))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        init_method=(Path(folder) / "meeting").as_uri(),
        rank=rank,
        world_size=world,
        timeout=TIMEOUT,
    )
    try:
        share = plan.batch_size // world
        part = slice(rank * share, (rank + 1) * share)
        _, losses, seconds = trial.train(device, plan, sync=_mean_gradients, part=part)
        whole = torch.tensor([*losses, seconds], device=device, dtype=torch.float64)
        dist.all_reduce(whole)
        if rank == 0:
            *mean, taken = (whole / world).tolist()
            text = json.dumps({"losses": mean, "seconds": taken})
            (Path(folder) / "answer.json").write_text(text, encoding="utf-8")
    finally:
        dist.destroy_process_group()


def _mean_gradients(model: nn.Module) -> None:
    """Average the gradients of all devices, as one message: 3.3 MB are too small to divide."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    place = 0
    for gradient in gradients:
        gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
        place += gradient.numel()
