"""`dltool gpu burn`: planted faults are found, clean runs pass, sensors are judged."""

from __future__ import annotations

import json
import signal
import threading
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dltool_gpu import burn, burn_picture, cli, sensors, verdict
from dltool_gpu.burn import Record, Sample, Settings, Work
from dltool_gpu.sensors import Reading
from torch import Tensor
from typer.testing import CliRunner

from dltool.errors import CheckFailed, ConfigError, DeviceError, Interrupted

CPU = torch.device("cpu")
SHORT = Settings(0.15, "fp32", 1e-9, 96)


@pytest.fixture(autouse=True)
def small_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve buffers, and stretches of a few products."""
    monkeypatch.setattr(burn.targets, "free_memory", lambda device: 12 * 96 * 96 * 4 * 10**9)
    monkeypatch.setattr(burn, "CHUNK_SECONDS", 1e-3)


def burned(
    settings: Settings = SHORT, plant: burn.Plant | None = None
) -> tuple[Record, list[verdict.Fault]]:
    records = burn.blank([CPU], [settings])
    burn.burn([CPU], records, threading.Event(), plant=plant)
    return records[0], verdict.faults(records)


def flip(tensor: Tensor, place: tuple[int, ...], bit: int) -> None:
    """Turn one bit of one number round."""
    kind = burn.BITS[tensor.element_size()]
    bits = tensor.view(kind)
    bits[place] ^= torch.tensor(1, dtype=kind) << bit


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp64"])
def test_a_clean_burn_passes_and_compares_every_product(dtype: str) -> None:
    record, found = burned(replace(SHORT, dtype=dtype))
    assert found == []
    assert record.products == record.compared > 12
    assert record.spot < 1
    assert record.memory >= 12 * 96 * 96 * record.settings.size // 96 * 2
    assert all(sample.flops > 0 for sample in record.samples)


@pytest.mark.parametrize("bit", [0, 15, 22, 23, 30, 31])
@pytest.mark.parametrize("place", ["ring", "left", "right", "first"])
def test_one_flipped_bit_is_found_wherever_it_is(place: str, bit: int) -> None:
    def plant(number: int, work: Work) -> None:
        if number == 3:
            tensor = getattr(work, place)
            # a bit of a factor must be large enough to survive the rounding of the sums
            where = (min(work.written, len(work.ring)) - 1, 5, 7) if place == "ring" else (5, 7)
            flip(tensor, where, bit if place in ("ring", "first") else max(bit, 15))

    record, found = burned(plant=plant)
    assert "wrong-result" in [fault.code for fault in found]
    if place == "ring":
        assert record.wrong == 1
        assert "1 of 9216 numbers differ, the first at (5, 7)" in record.differences[0]
    else:
        assert record.wrong > 1


def test_a_product_that_is_always_wrong_is_found_by_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = torch.mm

    def wrong(left: Tensor, right: Tensor, *, out: Tensor | None = None) -> Tensor:
        result = whole(left, right)
        result[:, ::3] *= 1.001
        return result if out is None else out.copy_(result)

    monkeypatch.setattr(torch, "mm", wrong)
    record, found = burned()
    assert [fault.code for fault in found] == ["wrong-product"]
    assert record.wrong == 0
    assert record.spot > 1


def test_a_device_that_raises_fails_the_burn() -> None:
    def plant(number: int, work: Work) -> None:
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered\nmore")

    _, found = burned(plant=plant)
    assert [(fault.code, fault.message) for fault in found] == [
        ("device-error", "RuntimeError: CUDA error: uncorrectable ECC error encountered")
    ]


def test_a_device_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burn, "PATIENCE_SECONDS", 0.2)
    free = threading.Event()

    def hang(number: int, work: Work) -> None:
        free.wait(20)

    _, found = burned(plant=hang)
    free.set()
    assert "the device gave no answer" in found[0].message


# The verdict


def record_of(
    rates: list[float],
    reading: Callable[[int], Reading] = lambda number: Reading(),
    *,
    on_cpu: bool = False,
    seconds: float = 60.0,
    device: str = "cuda:0",
) -> Record:
    samples = [
        Sample((number + 1) * seconds / len(rates), rate, rate if on_cpu else None, reading(number))
        for number, rate in enumerate(rates)
    ]
    plan = Settings(seconds, "bf16", 0.9, 8192)
    return Record(device, "NVIDIA H200", plan, products=100, compared=100, samples=samples)


def codes(*records: Record) -> list[str]:
    return [fault.code for fault in verdict.faults(records)]


def test_a_rate_that_sags_is_told_from_noise() -> None:
    noisy = [700e12 * (1 + 0.03 * (-1) ** number) for number in range(40)]
    assert codes(record_of(noisy)) == []
    assert codes(record_of([700e12] * 30 + [600e12] * 10)) == ["rate-sags"]
    assert codes(record_of([700e12] * 30 + [600e12] * 10, seconds=10)) == []
    # slow once in the middle is no sag; a device warming up is none either
    assert codes(record_of([700e12] * 15 + [300e12] * 5 + [700e12] * 20)) == []
    assert codes(record_of([500e12] * 10 + [700e12] * 30)) == []


def test_other_programs_on_the_cpu_are_no_alarm() -> None:
    # half of the stretches were slowed down, the others show what the processor can do
    mixed = [50e9] * 20 + [50e9, 28e9] * 10
    assert codes(record_of(mixed, on_cpu=True)) == []
    assert codes(record_of([50e9] * 20 + [28e9] * 20, on_cpu=True)) == ["rate-sags"]


def test_throttling_and_memory_errors_fail_and_a_power_limit_does_not() -> None:
    hot = Reading(temperature=91.0, power=650.0, reasons=("hw_thermal_slowdown",))
    capped = Reading(power=700.0, reasons=("sw_power_cap",))
    half = record_of([7e14] * 40, lambda number: hot if number >= 20 else Reading())
    assert codes(half) == ["throttled"]
    (fault,) = verdict.faults([half])
    assert fault.message == "clocks were held down in 50% of the time: hw_thermal_slowdown"
    limited = record_of([7e14] * 40, lambda number: capped)
    assert codes(limited) == []
    assert "at its power limit in 100% of the time" in verdict.notes([limited])[0]
    broken = record_of([7e14] * 40, lambda number: Reading(uncorrected=2, corrected=number))
    broken.before = Reading(uncorrected=1, corrected=0)
    assert codes(broken) == ["ecc-uncorrected", "ecc-corrected"]
    assert codes(record_of([7e14] * 40, lambda number: Reading(uncorrected=2))) == []


def test_a_gpu_behind_its_peers_fails() -> None:
    slow, fast = record_of([5e14] * 9, device="cuda:1"), record_of([7e14] * 9)
    (fault,) = verdict.faults([fast, slow])
    assert (fault.device, fault.code) == ("cuda:1", "slower-than-peers")
    assert "71% of the rate of the best NVIDIA H200" in fault.message


def test_the_report_and_the_picture_show_what_was_seen(tmp_path: Path) -> None:
    def warm(number: int) -> Reading:
        return Reading(temperature=40.0 + number, power=600.0 + number, clock=1700)

    records = [record_of([7.7e14] * 12, warm), record_of([7.8e14] * 12, warm, device="cuda:1")]
    text = verdict.report(records, [])
    assert "770 TFLOP/s" in text
    assert "78%" in text  # of the vendor's 989
    assert "51 °C" in text
    assert text.endswith("passed")
    burn_picture.draw(records, tmp_path / "burn.png", passed=True)
    assert (tmp_path / "burn.png").read_bytes().startswith(b"\x89PNG")
    row = verdict.as_dict(records, [])["devices"][0]
    assert (row["most_temperature"], row["most_power"], row["flops"]) == (51.0, 611.0, 7.7e14)
    json.dumps(verdict.as_dict(records, []), allow_nan=False)


def test_sensors_are_those_of_the_device_that_torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    class NvmlError(Exception):
        pass

    handles = {"GPU-0": "zero", "GPU-1": "one"}
    nvml = types.SimpleNamespace(
        NVMLError=NvmlError,
        nvmlDeviceGetHandleByUUID=handles.__getitem__,
        nvmlDeviceGetTemperature=lambda handle, kind: {"zero": 40, "one": 70}[handle],
        nvmlDeviceGetPowerUsage=lambda handle: 345_600,
        nvmlDeviceGetClockInfo=lambda handle, kind: 1980,
        nvmlDeviceGetCurrentClocksEventReasons=lambda handle: 0x8,
        nvmlDeviceGetTotalEccErrors=lambda handle, kind, since: 10 + kind,
    )
    facts = types.SimpleNamespace(uuid="1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    handle = sensors.handle_of(nvml, torch.device("cuda", 0))
    assert handle == "one"
    assert sensors.read(nvml, handle) == Reading(70, 345.6, 1980, ("hw_slowdown",), 11, 10)
    assert sensors.handle_of(None, torch.device("cuda", 0)) is None


def test_the_processor_has_a_temperature_where_a_sensor_is(tmp_path: Path) -> None:
    assert sensors.read(None, None, tmp_path) == Reading()
    for number, (name, value) in enumerate((("nvme", "30000"), ("k10temp", "61250"))):
        folder = tmp_path / f"sys/class/hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n", encoding="utf-8")
        (folder / "temp1_input").write_text(f"{value}\n", encoding="utf-8")
    assert sensors.read(None, None, tmp_path).temperature == 61.25


# The command


def test_the_command_leaves_record_and_picture(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burn, "SIZE", {"cpu": 96})
    words = ["burn", "--seconds", "1", "--device", "cpu", "--out", "burned"]
    result = CliRunner().invoke(cli.app, [*words, "--json"])
    data = json.loads(result.stdout)["data"]
    assert (data["passed"], data["devices"][0]["wrong"]) == (True, 0)
    assert sorted(path.name for path in (here / "burned").iterdir()) == ["burn.json", "burn.png"]
    again = CliRunner().invoke(cli.app, words)
    assert isinstance(again.exception, ConfigError)
    assert again.exception.code == "E204"


def test_a_fault_ends_the_command_with_six(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(burn, "SIZE", {"cpu": 96})
    monkeypatch.setattr(burn, "spot_check", lambda *words, seed: 3.0)
    words = ["burn", "--seconds", "1", "--device", "cpu", "--out", "burned"]
    result = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, CheckFailed)
    assert "wrong-product" in result.exception.message
    assert result.stdout.endswith("FAILED\n")
    assert json.loads((here / "burned/burn.json").read_text(encoding="utf-8"))["passed"] is False


def test_ctrl_c_ends_a_burn_and_keeps_what_was_seen(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burn, "SIZE", {"cpu": 96})
    whole = burn.state

    def interrupt(records: list[Record]) -> str:
        if records[0].products:
            signal.raise_signal(signal.SIGINT)
        return whole(records)

    monkeypatch.setattr(burn, "state", interrupt)
    words = ["burn", "--seconds", "30", "--device", "cpu", "--out", "burned"]
    result = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, Interrupted)
    assert result.exception.exit_code == 130
    assert json.loads((here / "burned/burn.json").read_text(encoding="utf-8"))["passed"] is True


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--seconds", "7200"], ConfigError),
        (["--seconds", "inf", "--yes"], ConfigError),
        (["--device", "cpu", "--dtype", "tf32"], DeviceError),
        (["--device", "cpu", "--dtype", "fp16"], DeviceError),
        (["--device", "cuda:99"], DeviceError),
    ],
)
def test_wrong_input_of_burn_leaves_no_folder(
    here: Path, words: list[str], error: type[Exception]
) -> None:
    result = CliRunner().invoke(cli.app, ["burn", *words])
    assert isinstance(result.exception, error)
    assert list(here.iterdir()) == []


@pytest.mark.gpu
def test_a_gpu_finds_a_planted_fault_and_passes_without_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(burn.targets, "free_memory", lambda device: 1 << 30)
    device = torch.device("cuda")
    plan = Settings(3.0, burn.usual_dtype(device), 0.5, 4096)

    def plant(number: int, work: Work) -> None:
        if number == 2:
            flip(work.ring, (0, 1, 2), 3)

    for hook, expected in ((None, []), (plant, ["wrong-result"])):
        records: list[Any] = burn.blank([device], [plan])
        burn.burn([device], records, threading.Event(), plant=hook)
        assert codes(*records) == expected
