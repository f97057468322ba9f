"""Processor, memory, hidden GPUs and sizes of `dltool gpu info`, each on its own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from dltool_gpu import apple, devices, host, info, report

from dltool.errors import ConfigError

GIB = 1 << 30


def test_cores_are_counted_over_sockets_and_threads() -> None:
    block = "processor\t: {}\nmodel name\t: Xeon\nphysical id\t: {}\ncore id\t\t: {}\n"
    block += "flags\t\t: fpu sse4_2 avx2 avx512f avx512_bf16 amx_tile amx_bf16\nbugs\t\t:\n"
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1), (1, 0), (1, 1)]
    text = "\n".join(block.format(number, *place) for number, place in enumerate(places))
    simd = ["sse4_2", "avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"]
    assert host.parse_cpuinfo(text) == ("Xeon", 4, simd)


def test_an_arm_processor_names_its_features_but_not_itself() -> None:
    text = "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm sve\nCPU implementer\t: 0x41\n"
    assert host.parse_cpuinfo(text) == (None, None, ["asimd", "bf16", "i8mm", "sve"])
    assert host.parse_cpuinfo("") == (None, None, None)


def test_memory_heeds_the_tightest_control_group(tmp_path: Path) -> None:
    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    write("proc/meminfo", "MemTotal:  16777216 kB\nMemFree: 1 kB\nMemAvailable:  8388608 kB\n")
    assert host.memory(tmp_path) == host.Memory(16 * GIB, 8 * GIB, None)
    write("proc/self/cgroup", "0::/pod/box\n")
    write("sys/fs/cgroup/pod/box/memory.max", "max\n")
    write("sys/fs/cgroup/pod/memory.max", f"{4 * GIB}\n")
    write("sys/fs/cgroup/pod/memory.current", f"{3 * GIB}\n")
    write("sys/fs/cgroup/pod/memory.stat", f"anon 5\ninactive_file {GIB}\n")
    assert host.memory(tmp_path) == host.Memory(16 * GIB, 2 * GIB, 4 * GIB)


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux only")
def test_this_machine_agrees_with_other_sources() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = host.memory()
    assert found.total is not None
    assert abs(found.total - total) < 0.01 * total
    assert host.cpu().logical_cores == os.cpu_count()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8GiB", 8 * GIB), ("1.5 gib", 3 * GIB // 2), ("500MB", 500_000_000), ("12B", 12)],
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert report.parse_size(text, "--min-free") == expected


@pytest.mark.parametrize("text", ["8", "8G", "GiB", "-8GiB", "0GiB", "1e3GB", "8GiBs", "", "8 8GB"])
def test_sizes_without_a_clear_meaning_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        report.parse_size(text, "--min-free")
    assert caught.value.exit_code == 2
    assert caught.value.received == text


def test_an_apple_gpu_is_named_by_its_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dltool.machine.platform_has_mps", lambda: False)
    assert apple.apple_gpus() == []
    monkeypatch.setattr("dltool.machine.platform_has_mps", lambda: True)
    monkeypatch.setattr(apple, "sysctl", lambda *names: {names[0]: "Apple M2"})
    monkeypatch.setattr(apple, "IOREG", ("no-such-program",))
    (gpu,) = apple.apple_gpus()
    assert (gpu.vendor, gpu.name, gpu.usable) == ("apple", "Apple M2", True)


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        (None, {0, 1}),
        ("0", {0}),
        ("1,0", {0, 1}),
        ("GPU-b", {1}),
        ("GPU-", set()),  # fits both: CUDA takes neither
        ("0,7,1", {0}),  # the first unknown number ends the list
        ("-1", set()),
        ("", set()),
        ("MIG-5", {1}),
    ],
)
def test_hidden_gpus_follow_the_rule_of_cuda(setting: str | None, expected: set[int]) -> None:
    part = devices.MigDevice(0, "MIG-5", None, devices.Bytes())
    gpus = [
        devices.Gpu("nvidia", 0, uuid="GPU-aaaa"),
        devices.Gpu("nvidia", 1, uuid="GPU-bbbb", mig_devices=[part]),
    ]
    assert info.visible_gpus(gpus, setting) == expected


def test_the_real_library_has_every_function_and_number_that_is_used() -> None:
    import pynvml

    source = Path(devices.__file__).read_text(encoding="utf-8")
    names = set(re.findall(r'"(nvml\w+)"', source))
    names |= {f"nvmlDeviceGet{kind}RunningProcesses" for kind in ("Compute", "Graphics")}
    assert len(names) > 15
    assert [name for name in sorted(names) if not hasattr(pynvml, name)] == []
    assert pynvml.nvmlMemory_v2 == devices.MEMORY_V2
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM) == (devices.CLOCK_SM, devices.CLOCK_MEMORY)
    assert pynvml.NVML_COMPUTEMODE_PROHIBITED == devices.COMPUTE_PROHIBITED
    assert pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED == devices.UNCORRECTED
    reasons = {"hw_slowdown": "HwSlowdown", "sw_power_cap": "SwPowerCap", "gpu_idle": "GpuIdle"}
    for bit, name in devices.CLOCK_REASONS.items():
        if name in reasons:
            assert getattr(pynvml, f"nvmlClocksEventReason{reasons[name]}") == bit
