"""Keep a device at full load, and look at every result.

The same two random matrices are multiplied again and again into a ring of buffers that fills the
memory. Each product must equal the first bit by bit when its buffer's turn comes again, a lap
later, so a fault of arithmetic and one of memory are both seen. The first product itself, which
all others are compared with, is compared with float64 on the CPU.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dltool import machine
from dltool.device import generator
from dltool.errors import DeviceError
from dltool.memory import is_out_of_memory
from dltool.timing import synchronize
from dltool_gpu import kernels, sensors, targets
from dltool_gpu.ceilings import DTYPES
from dltool_gpu.sensors import Reading

SIZE = {"cpu": 1024, "mps": 4096, "cuda": 8192}
MEMORY = {"cpu": 0.1, "mps": 0.5, "cuda": 0.9}
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
CHUNK_SECONDS = 0.5
KEPT_FAULTS = 20
SPOT_ROWS, SPOT_COLUMNS = 16, 256
PATIENCE_SECONDS = 60.0  # for a device to end after its time
# unit roundoff of a stored result, and of the inputs where the hardware rounds them
OUTPUT_ROUNDING = {"fp64": 2**-53, "fp32": 2**-24, "tf32": 2**-24, "bf16": 2**-8, "fp16": 2**-11}
INPUT_ROUNDING = {"tf32": 2**-11}


@dataclass(frozen=True)
class Settings:
    """How to burn.

    Attributes:
        memory: share of the free memory that the results fill.
        size: edge of the square matrices.
    """

    seconds: float
    dtype: str
    memory: float
    size: int


@dataclass
class Work:
    """The tensors of one device: left @ right is `first`, and again each buffer of the ring."""

    left: Tensor
    right: Tensor
    first: Tensor
    ring: Tensor
    written: int = 0  # buffers that hold a product
    place: int = 0  # the buffer that is written next


@dataclass(frozen=True)
class Sample:
    """One stretch of products: when it ended, its rate, and the sensors after it.

    Attributes:
        flops: FLOP/s by the clock on the wall.
        flops_busy: FLOP/s by the processor time of this program; only the CPU has one.
    """

    seconds: float
    flops: float
    flops_busy: float | None
    reading: Reading


@dataclass
class Record:
    """What was seen of one device.

    Attributes:
        products, compared: made, and compared bit by bit.
        wrong: products that differed; the first of them are described in `differences`.
        spot: how far the product was from float64, by what rounding explains; above 1 is wrong.
        error: the words of an exception that ended it.
    """

    device: str
    name: str
    settings: Settings
    memory: int = 0
    products: int = 0
    compared: int = 0
    wrong: int = 0
    differences: list[str] = field(default_factory=list)
    spot: float = 0.0
    before: Reading = field(default_factory=Reading)
    samples: list[Sample] = field(default_factory=list)
    error: str = ""


Plant = Callable[[int, Work], None]


def check_dtype(device: torch.device, dtype: str) -> None:
    """Refuse a number format that the device has not, or has not at speed.

    Raises:
        DeviceError: E302.
    """
    missing = {
        "cpu": {"tf32": "is NVIDIA's", "fp16": "has no fast products there"},
        "mps": {"tf32": "is NVIDIA's", "fp64": "does not exist there"},
    }.get(device.type, {})
    if device.type == "cuda" and dtype == "tf32" and "tf32" not in kernels.formats(device):
        missing = {"tf32": "comes with compute capability 8.0"}
    if dtype in missing:
        raise DeviceError(
            "E302", f"{dtype} on {device.type}: it {missing[dtype]}", cure="use --dtype fp32"
        )


def usual_dtype(device: torch.device) -> str:
    """Return the format that heats a device most: that of its matrix units."""
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@contextmanager
def exact_sums(dtype: str) -> Iterator[None]:
    """Let products of short formats be summed up in float32, and float32 be float32."""
    flags = torch.backends.cuda.matmul
    names = (
        "allow_bf16_reduced_precision_reduction",
        "allow_fp16_reduced_precision_reduction",
    )
    before = [getattr(flags, name) for name in names]
    for name in names:
        setattr(flags, name, False)
    try:
        with targets.tf32(dtype == "tf32"):
            yield
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(flags, name, value)


def blank(devices: Sequence[torch.device], settings: Sequence[Settings]) -> list[Record]:
    """Return a record for each device, still empty."""
    return [
        Record(str(device), targets.title_of(device), plan)
        for device, plan in zip(devices, settings, strict=True)
    ]


def burn(
    devices: Sequence[torch.device],
    records: Sequence[Record],
    stop: threading.Event,
    tick: Callable[[float], None] = lambda seconds: None,
    *,
    plant: Plant | None = None,
) -> None:
    """Burn all devices at once, a thread each, until their time is over or `stop` is set.

    Args:
        records: one a device; they are filled.
        tick: hears now and then of the seconds gone by; what it raises ends the burn.
        plant: changes tensors after each stretch, so that a test sees faults being found.
    """
    started = time.monotonic()
    with machine.nvml_session() as (nvml, _), exact_sums(records[0].settings.dtype):
        threads = [
            threading.Thread(target=_guarded, args=(device, record, stop, nvml, plant), daemon=True)
            for device, record in zip(devices, records, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            _wait(threads, records, started, tick)
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
        for thread, record in zip(threads, records, strict=True):
            if thread.is_alive():
                record.error = f"the device gave no answer for {PATIENCE_SECONDS:.0f} s"


def _wait(
    threads: Sequence[threading.Thread],
    records: Sequence[Record],
    started: float,
    tick: Callable[[float], None],
) -> None:
    heard = [(-1, started)] * len(threads)
    while alive := [thread.is_alive() for thread in threads]:
        now = time.monotonic()
        tick(now - started)
        done = [record.products + record.compared for record in records]
        heard = [
            last if last[0] == count else (count, now)
            for last, count in zip(heard, done, strict=True)
        ]
        silent = [now - since > PATIENCE_SECONDS for _, since in heard]
        # a thread that hangs in the driver cannot be ended, only left behind
        if all(hangs or not lives for hangs, lives in zip(silent, alive, strict=True)):
            return
        time.sleep(0.1)


def _guarded(
    device: torch.device, record: Record, stop: threading.Event, nvml: Any, plant: Plant | None
) -> None:
    try:
        burn_device(device, record, stop, nvml, plant)
    except Exception as error:  # whatever the driver raises is what this test is for
        record.error = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"


def burn_device(
    device: torch.device,
    record: Record,
    stop: threading.Event,
    nvml: Any = None,
    plant: Plant | None = None,
) -> None:
    """Burn one device and write down what is seen."""
    plan = record.settings
    handle = sensors.handle_of(nvml, device)
    record.before = sensors.read(nvml, handle)
    work = prepare(device, plan)
    record.memory = sum(t.nbytes for t in (work.left, work.right, work.first, work.ring))
    record.spot = spot_check(work.left, work.right, work.first, plan.dtype, seed=0)
    chunk = _stretch(device, work, plan)
    record.products += 2
    started = time.monotonic()
    while not stop.is_set() and time.monotonic() - started < plan.seconds:
        places = [(work.place + step) % len(work.ring) for step in range(chunk)]
        # what has been held for a lap is looked at before it is overwritten
        _compare(work, [place for place in places if place < work.written], record)
        taken, busy = _multiply(device, work, places)
        record.products += chunk
        operations = 2.0 * plan.size**3 * chunk
        record.samples.append(
            Sample(
                time.monotonic() - started,
                operations / taken,
                operations / busy if device.type == "cpu" and busy else None,
                sensors.read(nvml, handle),
            )
        )
        if plant is not None:
            plant(len(record.samples), work)
    _compare(work, range(work.written), record)
    last = work.ring[work.place - 1]
    record.spot = max(record.spot, spot_check(work.left, work.right, last, plan.dtype, seed=1))


def prepare(device: torch.device, plan: Settings) -> Work:
    """Draw the matrices, multiply them a first time and take the memory for the ring."""
    dtype, size = DTYPES[plan.dtype], plan.size
    left, right = (
        torch.randn(size, size, generator=generator(0, "burn", name, device=device), device=device)
        for name in ("left", "right")
    )
    left, right = left.to(dtype), right.to(dtype)
    first = torch.mm(left, right)
    each = first.nbytes
    count = max(2, int(targets.free_memory(device) * plan.memory) // each)
    while True:
        try:
            return Work(
                left, right, first, torch.empty(count, size, size, dtype=dtype, device=device)
            )
        except RuntimeError as error:
            if not is_out_of_memory(error) or count <= 2:
                raise
            count = max(2, int(count * 0.95))


def _stretch(device: torch.device, work: Work, plan: Settings) -> int:
    """Return how many products make a stretch of about half a second."""
    _multiply(device, work, [0])  # warms up
    taken, _ = _multiply(device, work, [1])
    aim = min(CHUNK_SECONDS, plan.seconds / 16)
    return max(1, min(len(work.ring), round(aim / max(taken, 1e-6))))


def _multiply(device: torch.device, work: Work, places: Sequence[int]) -> tuple[float, float]:
    """Multiply into the named buffers; return seconds on the wall and of the processor."""
    synchronize(device)
    wall, busy = time.perf_counter(), time.process_time()
    for place in places:
        torch.mm(work.left, work.right, out=work.ring[place])
    synchronize(device)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    work.place = (places[-1] + 1) % len(work.ring)
    work.written = max(work.written, max(places) + 1)
    return wall, busy


def _compare(work: Work, places: Sequence[int], record: Record) -> None:
    """Compare buffers with the first product bit by bit; NaN equals the same NaN only."""
    bits = BITS[work.first.element_size()]
    expected = work.first.view(bits)
    for place in places:
        found = work.ring[place].view(bits)
        record.compared += 1
        if torch.equal(found, expected):
            continue
        record.wrong += 1
        if len(record.differences) < KEPT_FAULTS:
            wrong = (found != expected).nonzero()
            row, column = wrong[0].tolist()
            values = work.ring[place, row, column].item(), work.first[row, column].item()
            record.differences.append(
                f"buffer {place}: {len(wrong)} of {found.numel()} numbers differ, the first at "
                f"({row}, {column}) is {values[0]:.9g} instead of {values[1]:.9g}"
            )


def spot_check(left: Tensor, right: Tensor, product: Tensor, dtype: str, seed: int) -> float:
    """Compare some rows and columns of a product with float64 on the CPU.

    Returns:
        The largest error by the most that rounding explains: u |c| for the stored result, and
        (n 2⁻²³ + input rounding) Σ |a b| for the sum (Higham 2002, section 3.5; matrix units cut
        off instead of rounding). Above 1 the product is wrong.
    """
    size = len(left)
    stream = generator(seed, "spot")
    rows = torch.randperm(size, generator=stream)[:SPOT_ROWS]
    columns = torch.randperm(size, generator=stream)[:SPOT_COLUMNS]
    a = left[rows.to(left.device)].cpu().double()
    b = right[:, columns.to(right.device)].cpu().double()
    found = product[rows.to(product.device)][:, columns.to(product.device)].cpu().double()
    unit = 2**-52 if dtype == "fp64" else 2**-23
    exact, magnitude = a @ b, a.abs() @ b.abs()
    allowed = OUTPUT_ROUNDING[dtype] * exact.abs()
    allowed += (size * unit + 2 * INPUT_ROUNDING.get(dtype, 0.0)) * magnitude
    worst = float(((found - exact).abs() / allowed).max())
    return worst if math.isfinite(worst) else math.inf


def state(records: Sequence[Record]) -> str:
    """Return a few words for a progress bar: the hottest device, the sum of the rates, faults."""
    last = [record.samples[-1] for record in records if record.samples]
    if not last:
        return ""
    words = [f"{sum(sample.flops for sample in last) / 1e12:.3g} TFLOP/s"]
    heat = [sample.reading.temperature for sample in last if sample.reading.temperature is not None]
    words += [f"{max(heat):.0f} °C"] if heat else []
    power = [sample.reading.power for sample in last if sample.reading.power is not None]
    words += [f"{sum(power):.0f} W"] if power else []
    wrong = sum(record.wrong for record in records)
    return ", ".join([*words, *([f"{wrong} WRONG"] if wrong else [])])
