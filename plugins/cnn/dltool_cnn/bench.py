"""How fast a classifier is here: latency and images a second by batch size."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dltool import device as devices
from dltool import memory, timing
from dltool.console import Console, table
from dltool.device import generator
from dltool.endings import out_of_memory
from dltool.errors import ConfigError
from dltool_cnn.model import count_parameters
from dltool_cnn.predict import load_classifier

SHORTEST = 0.005  # a measurement below this repeats its call, or the clock would be measured
PATIENCE = 15.0  # seconds, above which it is said how long it will take
HEADER = ("batch", "latency ms", "spread ms", "images/s")


def batch_sizes(text: str) -> tuple[int, ...]:
    """Return batch sizes given with commas between them.

    Raises:
        ConfigError: E202, they are no positive whole numbers.
    """
    try:
        sizes = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(
            "E202",
            "--batch-sizes needs positive whole numbers",
            received=text,
            cure="use --batch-sizes 1,8,64",
        )
    return sizes


def bench_run(
    folder: Path,
    sizes: Sequence[int],
    *,
    repeats: int,
    device: str,
    precision: str,
    threads: int,
    console: Console,
) -> None:
    """Time a model on made-up images that lie on its device, all batch sizes in turn.

    Counted is the way from bytes to probabilities on the device; reading files is not.

    Raises:
        OutOfMemory: E801, a batch does not fit.
    """
    choice = devices.choose(device)
    devices.check_precision(choice.device, precision)
    if threads:
        torch.set_num_threads(threads)
    loaded = load_classifier(folder, choice.device)
    form = loaded.form
    shape = (max(sizes), form.channels, form.height, form.width)
    noise = torch.randint(0, 256, shape, generator=generator(0, "cnn", "bench"))
    images = noise.to(torch.uint8).to(choice.device)
    answer = functools.partial(_answer, loaded.model, choice.device, precision)
    try:
        rows = measure(answer, images, sizes, repeats, choice.device, console)
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        raise out_of_memory(error) from error
    result = {
        "run": str(folder),
        "model": loaded.description["architecture"]["name"],
        "parameters": count_parameters(loaded.model),
        "image": list(shape[1:]),
        "device": str(choice.device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "batches": rows,
    }
    cells = [
        [
            row["batch_size"],
            f"{row['latency_ms']:.3f}",
            f"{row['spread_ms']:.3f}",
            f"{row['images_per_second']:,.0f}",
        ]
        for row in rows
    ]
    text = (
        f"{result['model']}, {result['parameters']:,} parameters, images "
        f"{'×'.join(map(str, shape[1:]))}, {choice.device}, {precision}, "
        f"{result['threads']} threads; median and spread (middle half) of {repeats} rounds"
    )
    console.result(result, f"{text}\n{table(cells, HEADER)}")


@torch.inference_mode()
def _answer(model: torch.nn.Module, device: torch.device, precision: str, images: Tensor) -> Tensor:
    with devices.autocast(device, precision):
        shares: Tensor = model(images).float().softmax(1)
    return shares


def measure(
    answer: Callable[[Tensor], Tensor],
    images: Tensor,
    sizes: Sequence[int],
    repeats: int,
    device: torch.device,
    console: Console,
) -> list[dict[str, Any]]:
    """Return latency and throughput by batch size; short calls are repeated within a measurement.

    Args:
        images: (largest size, C, H, W), on the device.
    """
    calls = {str(size): functools.partial(answer, images[:size]) for size in sizes}
    # the first calls choose algorithms and allocate: they are no measure of the rest
    quick = timing.compare(calls, repeats=2, warmup=1, device=device)
    times = {name: max(1, round(SHORTEST / quick[name].min)) for name in calls}
    left = (repeats + 1) * sum(times[name] * quick[name].median for name in calls)
    if left > PATIENCE:
        console.note(f"this will take about {left:.0f} s; --repeats and --batch-sizes make it less")
    repeated = {name: functools.partial(_repeat, call, times[name]) for name, call in calls.items()}
    found = timing.compare(repeated, repeats=repeats, device=device)
    return [_row(size, times[str(size)], found[str(size)]) for size in sizes]


def _repeat(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def _row(size: int, times: int, timed: timing.Timing) -> dict[str, Any]:
    one = timing.Timing(tuple(seconds / times for seconds in timed.seconds))
    return {
        "batch_size": size,
        "latency_ms": 1000 * one.median,
        "spread_ms": 1000 * one.iqr,
        "images_per_second": size / one.median,
        "calls_a_round": times,
        "seconds": one.as_dict(),
    }
