"""Cores, drivers and missing layers, on machines that the test makes up as folders."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from dltool import machine
from dltool.builds import Build
from dltool.machine import Driver, Hardware

CUDA13 = Build("2.14.1", "2.14.1+cu130", "13.0")
CPU_ONLY = Build("2.14.1", "2.14.1+cpu")
MODERN = Driver("580.65.06", "13.0", 1)


def write(root: Path, path: str, text: str = "") -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


def pci(root: Path, slot: str, vendor: str, kind: str) -> None:
    write(root, f"sys/bus/pci/devices/{slot}/vendor", f"{vendor}\n")
    write(root, f"sys/bus/pci/devices/{slot}/class", f"{kind}\n")


# Cores


def test_the_tightest_quota_of_all_parent_groups_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/pod/container\n")
    write(tmp_path, "sys/fs/cgroup/pod/container/cpu.max", "max 100000\n")
    write(tmp_path, "sys/fs/cgroup/pod/cpu.max", "150000 100000\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "800000 100000\n")
    assert machine.cpu_quota(tmp_path) == 1.5
    assert machine.usable_cores(tmp_path) == min(2, machine.allowed_cores())


def test_quotas_of_the_older_kind_of_control_group_are_read(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert machine.cpu_quota(tmp_path) == 0.5
    assert machine.usable_cores(tmp_path) == 1


@pytest.mark.parametrize("quota", ["-1", "max", ""])
def test_no_quota_leaves_every_allowed_core(tmp_path: Path, quota: str) -> None:
    write(tmp_path, "proc/self/cgroup", "2:cpu:/\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", quota)
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert machine.cpu_quota(tmp_path) is None
    assert machine.usable_cores(tmp_path) == machine.allowed_cores() >= 1


# Hardware


def test_gpus_are_counted_by_vendor_and_class(tmp_path: Path) -> None:
    write(tmp_path, "proc/driver/nvidia/version", "NVRM version: 580")
    pci(tmp_path, "0000:01:00.0", "0x10de", "0x030200")
    pci(tmp_path, "0000:02:00.0", "0x10de", "0x030000")
    pci(tmp_path, "0000:02:00.1", "0x10de", "0x040300")  # the sound part of a card
    pci(tmp_path, "0000:03:00.0", "0x1002", "0x120000")  # an accelerator without display
    pci(tmp_path, "0000:04:00.0", "0x8086", "0x030000")
    write(tmp_path, "dev/nvidiactl")
    write(tmp_path, "dev/nvidia0")
    expected = Hardware(nvidia=2, amd=1, driver_loaded=True)
    assert machine.hardware(tmp_path) == expected  # nvidia-uvm is still missing
    write(tmp_path, "dev/nvidia-uvm")
    assert machine.hardware(tmp_path).device_files


def test_a_system_without_proc_says_nothing(tmp_path: Path) -> None:
    assert machine.hardware(tmp_path) == Hardware(nvidia=None, amd=None)


@pytest.mark.parametrize(
    ("seen", "driver", "torch", "codes"),
    [
        (Hardware(0, 0), Driver(trouble="no-library"), CUDA13, {"no-gpu": "info"}),
        (Hardware(), Driver(trouble="no-library"), None, {"no-gpu": "info"}),
        (Hardware(0, 0), Driver(trouble="no-package"), CUDA13, {"no-gpu": "info"}),
        (Hardware(1, 0), Driver(trouble="no-package"), CUDA13, {"no-nvml": "warn"}),
        (Hardware(1, 0), Driver(trouble="no-library"), CUDA13, {"no-driver": "warn"}),
        (
            Hardware(1, 0, nouveau=True),
            Driver(trouble="no-library"),
            CUDA13,
            {"no-driver": "warn", "nouveau": "warn"},
        ),
        (
            Hardware(1, 0, driver_loaded=True),
            Driver(trouble="no-library"),
            CUDA13,
            {"no-device-files": "warn"},
        ),
        (
            Hardware(1, 0, driver_loaded=True, device_files=True),
            Driver(trouble="no-library"),
            CUDA13,
            {"no-library": "warn"},
        ),
        (
            Hardware(1, 0, driver_loaded=True),
            Driver(trouble="failed", detail="RM has detected an NVML/RM version mismatch."),
            CUDA13,
            {"driver-failed": "warn"},
        ),
        (Hardware(1, 0, True, False, True), MODERN, CUDA13, {}),
        (Hardware(1, 0, True, False, True), MODERN, None, {}),
        (Hardware(1, 0, True, False, True), MODERN, CPU_ONLY, {"torch-without-cuda": "warn"}),
        (
            Hardware(1, 0, True, False, True),
            Driver("535.104.05", "12.2", 1),
            CUDA13,
            {"driver-too-old": "fail"},
        ),
        (
            Hardware(1, 0, True, False, True),
            Driver("525.60.13", "12.0", 1),
            Build("2.9.0", "2.9.0+cu128", "12.8"),  # minor versions are compatible
            {},
        ),
        (
            Hardware(0, 1),
            Driver(trouble="no-library"),
            CUDA13,
            {"no-gpu": "info", "no-rocm": "info"},
        ),
    ],
)
def test_each_missing_layer_is_named(
    seen: Hardware,
    driver: Driver,
    torch: Build | None,
    codes: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = machine.device_findings(seen, driver, torch)
    assert {item.code: item.severity for item in found} == codes
    assert all(item.cure for item in found if item.severity != "info")


def test_the_cure_of_an_old_driver_names_the_oldest_that_will_do() -> None:
    (found,) = machine.device_findings(Hardware(), Driver("535.1", "12.2", 1), CUDA13)
    assert "580.65.06" in found.cure
    assert "runs CUDA 12.2, torch needs CUDA 13.0" in found.fact


def test_a_driver_that_was_updated_under_way_asks_for_a_restart() -> None:
    driver = Driver(trouble="failed", detail="RM has detected an NVML/RM version mismatch.")
    (found,) = machine.device_findings(Hardware(1, 0, driver_loaded=True), driver, CUDA13)
    assert found.cure.startswith("restart the machine")


@pytest.mark.parametrize("setting", ["", "-1"])
def test_hidden_gpus_are_told(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", setting)
    (found,) = machine.device_findings(Hardware(), MODERN, CUDA13)
    assert found.code == "gpus-hidden"


# NVML


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"error {value}")
        self.value = value


def fake_nvml(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    module = types.ModuleType("pynvml")
    module.__dict__.update(functions, NVMLError=NVMLError, NVML_ERROR_LIBRARY_NOT_FOUND=12)
    monkeypatch.setitem(sys.modules, "pynvml", module)


def raising(value: int) -> Any:
    def fail(*_: object) -> None:
        raise NVMLError(value)

    return fail


@pytest.mark.parametrize(("value", "trouble"), [(12, "no-library"), (9, "failed"), (18, "failed")])
def test_a_library_that_does_not_start_is_told(
    monkeypatch: pytest.MonkeyPatch, value: int, trouble: str
) -> None:
    fake_nvml(monkeypatch, nvmlInit=raising(value))
    with machine.nvml_session() as (nvml, driver):
        assert nvml is None
        assert (driver.trouble, driver.count) == (trouble, 0)


def test_without_the_package_the_driver_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with machine.nvml_session() as (nvml, driver):
        assert nvml is None
        assert driver.trouble == "no-package"


def test_a_session_reads_the_driver_and_is_closed_even_after_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    fake_nvml(
        monkeypatch,
        nvmlInit=lambda: calls.append("start"),
        nvmlShutdown=lambda: calls.append("stop"),
        nvmlSystemGetDriverVersion=lambda: "550.54.15",
        nvmlSystemGetCudaDriverVersion_v2=lambda: 12040,
        nvmlDeviceGetCount=lambda: 2,
    )
    seen = {}

    def look_and_stumble() -> None:
        with machine.nvml_session() as (_, seen["driver"]):
            raise KeyError

    with pytest.raises(KeyError):
        look_and_stumble()
    assert seen["driver"] == Driver("550.54.15", "12.4", 2)
    assert calls == ["start", "stop"]


def test_a_question_without_an_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch, unsupported=raising(3), answer=lambda number: number + 1)
    module = sys.modules["pynvml"]
    assert machine.ask(module, "unsupported") is None
    assert machine.ask(module, "newer_than_this_library") is None
    assert machine.ask(module, "answer", 41) == 42
