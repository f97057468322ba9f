"""`dltool gpu info` against a made-up NVML, made-up `/proc` and `/sys`, and a fresh interpreter."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dltool_gpu import apple, cli, devices, info, report
from typer.testing import CliRunner

from dltool.builds import Build
from dltool.errors import CheckFailed, ConfigError

GIB = 1 << 30
CUDA13 = Build("2.14.1", "2.14.1+cu130", "13.0")
NOT_SUPPORTED, NOT_FOUND = 3, 6


class NVMLError(Exception):
    """As pynvml's: an error with the number of its cause."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


def bytes_of(total: int, used: int) -> types.SimpleNamespace:
    return types.SimpleNamespace(total=total, used=used, free=total - used)


# what two GPUs answer, by NVML function; what is not here is not supported
FULL: dict[str, Any] = {
    "Name": "NVIDIA A100-SXM4-40GB",
    "UUID": "GPU-aaaa",
    "PciInfo": types.SimpleNamespace(busId=b"00000000:07:00.0"),
    "MemoryInfo": bytes_of(40 * GIB, 2 * GIB),
    "Temperature": 34,
    "PowerUsage": 52_500,
    "EnforcedPowerLimit": 400_000,
    "UtilizationRates": types.SimpleNamespace(gpu=97, memory=40),
    "ClockInfo": {1: 1410, 2: 1215},
    "MaxClockInfo": {1: 1410, 2: 1215},
    "CurrentClocksEventReasons": 0x4 | 0x40,
    "EccMode": [1, 1],
    "TotalEccErrors": {0: 7, 1: 3},
    "MigMode": [0, 0],
    "CudaComputeCapability": (8, 0),
    "ComputeMode": 0,
    "ComputeRunningProcesses": [types.SimpleNamespace(pid=4242, usedGpuMemory=GIB)],
    "GraphicsRunningProcesses": [types.SimpleNamespace(pid=17, usedGpuMemory=None)],
}
SPARSE: dict[str, Any] = {
    "Name": b"Quadro Old",
    "UUID": "GPU-bbbb",
    "MemoryInfo": bytes_of(8 * GIB, 0),
    "CudaComputeCapability": (7, 5),
}


class FakeNvml(types.ModuleType):
    """Answers from a table; raises NVMLError for all that the table lacks."""

    NVMLError = NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = 12

    def __init__(self, *gpus: dict[str, Any], cuda: int = 13000, driver: str = "580.65.06") -> None:
        super().__init__("pynvml")
        self.gpus, self.cuda, self.driver = gpus, cuda, driver

    def nvmlInit(self) -> None: ...

    def nvmlShutdown(self) -> None: ...

    def nvmlSystemGetDriverVersion(self) -> str:
        return self.driver

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return self.cuda

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:
        if self.gpus[index].get("lost"):
            raise NVMLError(15)
        return self.gpus[index]

    def nvmlSystemGetProcessName(self, pid: int) -> str:
        if pid != 4242:
            raise NVMLError(NOT_FOUND)
        return "/usr/bin/python3"

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: dict[str, Any], index: int) -> Any:
        if gpu["slices"][index] is None:
            raise NVMLError(NOT_FOUND)
        return gpu["slices"][index]

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDeviceGet"):
            raise AttributeError(name)

        def answer(gpu: dict[str, Any], *arguments: int) -> Any:
            value = gpu.get(name.removeprefix("nvmlDeviceGet"))
            if value is None:
                raise NVMLError(NOT_SUPPORTED)
            return value[arguments[0]] if isinstance(value, dict) else value

        return answer


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A root folder in which no device shows itself."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    return tmp_path


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same installed torch everywhere, nothing hidden, no Apple chip."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr(info, "installed_build", {"torch": CUDA13}.get)
    monkeypatch.setattr("dltool.machine.platform_has_mps", lambda: False)


def use(monkeypatch: pytest.MonkeyPatch, *gpus: dict[str, Any], **facts: Any) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*gpus, **facts))


def without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise NVMLError(12)

    fake = FakeNvml()
    fake.__dict__["nvmlInit"] = fail
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def codes(found: info.MachineInfo) -> set[str]:
    return {finding.code for finding in found.findings}


# NVIDIA


def test_every_figure_of_a_gpu_is_what_nvml_said(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    use(monkeypatch, FULL, SPARSE)
    found = info.collect(empty).as_dict()
    assert found["driver"] == {"version": "580.65.06", "cuda": "13.0"}
    assert found["gpus"][0] == {
        "vendor": "nvidia",
        "index": 0,
        "name": "NVIDIA A100-SXM4-40GB",
        "uuid": "GPU-aaaa",
        "bus_id": "00000000:07:00.0",
        "compute_capability": "8.0",
        "memory": {"total": 40 * GIB, "used": 2 * GIB, "free": 38 * GIB},
        "temperature": 34,
        "power": 52.5,
        "power_limit": 400.0,
        "utilization": 97,
        "memory_utilization": 40,
        "clocks": {"sm": 1410, "memory": 1215, "sm_max": 1410, "memory_max": 1215},
        "throttle_reasons": ["sw_power_cap", "hw_thermal_slowdown"],
        "ecc": True,
        "ecc_errors": {"uncorrected": 3, "corrected": 7},
        "mig": False,
        "mig_devices": [],
        "cores": None,
        "processes": [
            {"pid": 17, "kind": "graphics", "name": None, "command": None, "memory": None},
            {
                "pid": 4242,
                "kind": "compute",
                "name": "/usr/bin/python3",
                "command": None,
                "memory": GIB,
            },
        ],
        "visible": True,
        "usable": True,
        "obstacle": "",
    }


def test_what_a_gpu_does_not_support_is_none(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    use(monkeypatch, SPARSE)
    gpu = info.collect(empty).gpus[0]
    assert gpu.name == "Quadro Old"
    assert gpu.memory.free == 8 * GIB
    unknown = (gpu.temperature, gpu.power, gpu.power_limit, gpu.utilization, gpu.bus_id)
    assert unknown == (None,) * 5
    assert (gpu.throttle_reasons, gpu.ecc, gpu.mig, gpu.processes) == (None,) * 4
    assert set(gpu.clocks.values()) == {None}
    assert gpu.usable


def test_a_gpu_that_fell_off_the_bus_is_listed_as_unusable(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    use(monkeypatch, FULL, {"lost": True})
    found = info.collect(empty)
    assert [gpu.usable for gpu in found.gpus] == [True, False]
    assert found.gpus[1].obstacle == "the driver cannot reach it"


def test_slices_of_a_gpu_count_with_their_own_memory(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    small = {"UUID": "MIG-1", "Name": "A100 MIG 1g.5gb", "MemoryInfo": bytes_of(5 * GIB, GIB)}
    large = {"UUID": "MIG-2", "MemoryInfo": bytes_of(20 * GIB, GIB)}
    sliced = FULL | {"MigMode": [1, 1], "MaxMigDeviceCount": 3, "slices": [small, None, large]}
    use(monkeypatch, sliced)
    found = info.collect(empty)
    assert [(part.index, part.uuid) for part in found.gpus[0].mig_devices] == [
        (0, "MIG-1"),
        (2, "MIG-2"),
    ]
    assert found.gpus[0].free == 19 * GIB
    assert found.usable(19 * GIB)
    assert not found.usable(20 * GIB)
    assert "MIG 0: A100 MIG 1g.5gb, 5.0 GiB, 4.0 GiB free" in report.report(found)


def test_a_gpu_in_mig_mode_without_slices_is_not_usable(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    use(monkeypatch, FULL | {"MigMode": [1, 1]})
    assert info.collect(empty).gpus[0].obstacle == "it is in MIG mode and has no instance"


def test_trouble_of_single_gpus_becomes_findings(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    use(monkeypatch, FULL, SPARSE | {"CudaComputeCapability": (6, 1)})
    found = info.collect(empty)
    assert codes(found) == {"gpu-throttled", "gpu-ecc", "gpu-too-old", "gpu-order"}
    assert [gpu.usable for gpu in found.gpus] == [True, False]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert "gpu-order" not in codes(info.collect(empty))


@pytest.mark.parametrize(
    ("torch", "cuda", "code", "usable"),
    [
        (CUDA13, 13000, None, True),
        (CUDA13, 12040, "driver-too-old", False),
        (Build("2.9.0", "2.9.0+cu128", "12.8"), 12040, None, True),
        (Build("2.14.1", "2.14.1+cpu"), 13000, "torch-without-cuda", False),
        (Build("2.14.1"), 13000, None, True),
        (None, 13000, None, True),
    ],
)
def test_a_gpu_is_usable_only_when_the_installed_torch_can_use_it(
    monkeypatch: pytest.MonkeyPatch,
    empty: Path,
    torch: Build | None,
    cuda: int,
    code: str | None,
    usable: bool,
) -> None:
    monkeypatch.setattr(info, "installed_build", {"torch": torch}.get)
    use(monkeypatch, SPARSE, cuda=cuda)
    found = info.collect(empty)
    assert found.gpus[0].usable is usable
    assert codes(found) == ({code} if code else set())


# Other vendors and no GPU


def test_no_gpu_and_no_library_is_a_normal_answer(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    without_nvml(monkeypatch)
    found = info.collect(empty)
    assert found.gpus == []
    assert [(item.code, item.severity) for item in found.findings] == [("no-gpu", "info")]
    assert "GPU" in report.report(found)


def test_an_amd_gpu_is_read_from_the_files_of_its_driver(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    without_nvml(monkeypatch)
    card = empty / "sys/class/drm/card1/device"
    (card / "hwmon/hwmon3").mkdir(parents=True)
    (empty / "sys/class/drm/card1-DP-1").mkdir()
    for name, text in {
        "vendor": "0x1002",
        "device": "0x74a1",
        "uevent": "DRIVER=amdgpu\nPCI_SLOT_NAME=0000:c1:00.0",
        "mem_info_vram_total": str(192 * GIB),
        "mem_info_vram_used": str(2 * GIB),
        "gpu_busy_percent": "12",
        "hwmon/hwmon3/temp1_input": "41500",
        "hwmon/hwmon3/power1_average": "135000000",
        "hwmon/hwmon3/power1_cap": "750000000",
        "pp_dpm_sclk": "0: 132Mhz \n1: 1200Mhz *\n2: 2100Mhz ",
        "pp_dpm_mclk": "0: 900Mhz *\n1: 1300Mhz",
    }.items():
        (card / name).write_text(f"{text}\n", encoding="utf-8")
    (gpu,) = (found := info.collect(empty)).gpus
    assert (gpu.vendor, gpu.name, gpu.bus_id) == ("amd", "AMD GPU 0x74a1", "0000:c1:00.0")
    assert gpu.memory == devices.Bytes(192 * GIB, 2 * GIB, 190 * GIB)
    assert (gpu.temperature, gpu.power, gpu.power_limit) == (41.5, 135.0, 750.0)
    assert gpu.utilization == 12
    assert gpu.clocks == {"sm": 1200, "sm_max": 2100, "memory": 900, "memory_max": 1300}
    assert gpu.processes is None
    kfd = empty / "sys/class/kfd/kfd"
    files = {
        kfd / "topology/nodes/0/gpu_id": "0",
        kfd / "topology/nodes/1/gpu_id": "51234",
        kfd / "topology/nodes/1/properties": f"simd_count 304\nlocation_id {0xC1 << 8}\ndomain 0",
        kfd / "proc/77/vram_51234": str(GIB),
        kfd / "proc/78/vram_51234": "0",
        empty / "proc/77/comm": "python3",
        empty / "proc/77/cmdline": "python3\0train.py\0",
        empty / "proc/2/comm": "kthreadd",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert info.collect(empty).gpus[0].processes == [
        devices.Process(77, "compute", "python3", "python3 train.py", GIB)
    ]
    assert "/dev/kfd" in gpu.obstacle
    assert "no-gpu" not in codes(found)
    (empty / "dev").mkdir()
    (empty / "dev/kfd").touch()
    assert info.collect(empty).gpus[0].obstacle == "torch 2.14.1 is no build for ROCm"
    rocm = Build("2.9.0", "2.9.0+rocm6.4", None, "6.4")
    monkeypatch.setattr(info, "installed_build", {"torch": rocm}.get)
    assert info.collect(empty).gpus[0].usable


def test_an_apple_gpu_is_read_from_what_ioreg_prints() -> None:
    registry = """
  | {
  |   "model" = "Apple M1 Pro"
  |   "PerformanceStatistics" = {"In use system memory (driver)"=0,"Alloc system memory"=9,
  "Device Utilization %"=37,"In use system memory"=815398912}
  |   "gpu-core-count" = 16
  | }"""
    facts = {"machdep.cpu.brand_string": "Apple M1 Pro", "hw.memsize": str(16 * GIB)}
    gpu = apple.described(facts, registry)
    assert (gpu.name, gpu.cores, gpu.utilization) == ("Apple M1 Pro", 16, 37)
    assert gpu.memory == devices.Bytes(16 * GIB, 815398912, None)
    bare = apple.described({}, "")
    assert (bare.name, bare.cores, bare.memory.total) == (None, None, None)


# What nvidia-smi says

# as recorded on two A100 with driver 550.54.15
SMI = """\
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA Version: 12.4     |
|   0  NVIDIA A100-SXM4-40GB          Off |   00000000:2F:00.0 Off |                    0 |
| N/A   38C    P0             36W /  400W |   31186MiB /  40960MiB |      0%      Default |
|                                         |                        |             Disabled |
|   1  NVIDIA A100-SXM4-40GB          Off |   00000000:86:00.0 Off |                    0 |
| N/A   38C    P0             38W /  400W |     425MiB /  40960MiB |      0%      Default |
|                                         |                        |             Disabled |
|    0   N/A  N/A   1128336      C   .../miniconda3/envs/pytorch/bin/python        510MiB |
|    0   N/A  N/A   1159477      C   python                                      30662MiB |
|    1   N/A  N/A   1159477      C   python                                        416MiB |
"""
SMI_GPU = re.compile(
    r"^\|\s+(\d+)  (\S.*?)\s+(?:On|Off) \|\s+(\S+) \w+ \|\s+(\d+) \|\n"
    r"\| N/A\s+(\d+)C\s+\S+\s+(\d+)W /\s+(\d+)W \|\s+(\d+)MiB /\s+(\d+)MiB \|\s+(\d+)%\s+(\S+) \|\n"
    r"\|\s+\|\s+\|\s+(\S+) \|$",
    re.MULTILINE,
)
SMI_PROCESS = re.compile(r"^\|\s+(\d)\s+N/A\s+N/A\s+(\d+)\s+C\s+\S+\s+(\d+)MiB \|$", re.MULTILINE)
MIB = 1 << 20


def answers(bus: str, used: int, milliwatts: int, held: dict[int, int]) -> dict[str, Any]:
    """What NVML answers for one of the two GPUs; nvidia-smi rounds and cuts off."""
    return FULL | {
        "PciInfo": types.SimpleNamespace(busId=bus),
        "MemoryInfo": bytes_of(40960 * MIB, used * MIB + 12345),
        "Temperature": 38,
        "PowerUsage": milliwatts,
        "UtilizationRates": types.SimpleNamespace(gpu=0, memory=0),
        "TotalEccErrors": {0: 0, 1: 0},
        "ComputeRunningProcesses": [
            types.SimpleNamespace(pid=pid, usedGpuMemory=size * MIB) for pid, size in held.items()
        ],
        "GraphicsRunningProcesses": [],
    }


def test_the_same_answers_as_nvidia_smi(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    one = answers("00000000:2F:00.0", 31186, 36_214, {1128336: 510, 1159477: 30662})
    two = answers("00000000:86:00.0", 425, 38_476, {1159477: 416})
    use(monkeypatch, one, two, cuda=12040, driver="550.54.15")
    found = info.collect(empty)
    head = re.search(r"Driver Version: (\S+)\s+CUDA Version: (\S+)", SMI)
    assert head is not None
    assert (found.driver.version, found.driver.cuda) == head.groups()
    rows = SMI_GPU.findall(SMI)
    assert len(rows) == len(found.gpus) == 2
    for gpu, row in zip(found.gpus, rows, strict=True):
        assert gpu.memory.used is not None
        assert gpu.memory.total is not None
        assert gpu.power is not None
        ours = (gpu.index, gpu.name, gpu.bus_id, gpu.ecc_errors["uncorrected"], gpu.temperature)
        ours += (int(gpu.power), int(gpu.power_limit or 0), gpu.memory.used // MIB)
        ours += (gpu.memory.total // MIB, gpu.utilization, "Default")
        ours += ("Enabled" if gpu.mig else "Disabled",)
        assert tuple(map(str, ours)) == row
    ours = [
        (str(gpu.index), str(process.pid), str((process.memory or 0) // MIB))
        for gpu in found.gpus
        for process in gpu.processes or []
    ]
    assert ours == SMI_PROCESS.findall(SMI)


@pytest.mark.gpu
def test_the_same_answers_as_nvidia_smi_on_this_machine() -> None:
    names = (
        "name",
        "uuid",
        "pci.bus_id",
        "memory.total",
        "power.limit",
        "compute_cap",
        "mig.mode.current",
    )
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={','.join(names)}", "--format=csv,noheader,nounits"],
        capture_output=True,
        text=True,
        check=True,
    )
    for gpu, line in zip(info.collect().gpus, done.stdout.splitlines(), strict=True):
        name, uuid, bus, total, limit, capability, mig = line.split(", ")
        assert (gpu.name, gpu.uuid, gpu.bus_id) == (name, uuid, bus)
        assert (gpu.memory.total or 0) // MIB == int(total)
        assert gpu.power_limit == pytest.approx(float(limit), abs=0.01)
        assert gpu.compute_capability == capability
        assert mig == {True: "Enabled", False: "Disabled", None: "[N/A]"}[gpu.mig]


def test_commands_are_told_only_where_numbers_are_the_hosts(empty: Path) -> None:
    (empty / "proc/17").mkdir()
    (empty / "proc/17/cmdline").write_bytes(b"python3\0-m\0my module\0")
    assert devices.command_of(17, empty) is None
    (empty / "proc/2").mkdir()
    (empty / "proc/2/comm").write_text("kthreadd\n", encoding="utf-8")
    assert devices.command_of(17, empty) == "python3 -m 'my module'"
    assert devices.command_of(18, empty) is None


# The command


def test_watch_prints_one_object_a_line_and_ends_at_count(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, FULL, SPARSE)
    words = ["info", "--watch", "--count", "3", "--interval", "0.1"]
    result = CliRunner().invoke(cli.app, [*words, "--json"])
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [len(line["data"]["gpus"]) for line in lines] == [2, 2, 2]
    text = CliRunner().invoke(cli.app, words).stdout
    assert text.count("GPU 0  NVIDIA A100-SXM4-40GB: 34 °C, 52 of 400 W, 97 % busy") == 3
    assert "2.0 GiB of 40.0 GiB" in text
    assert "\x1b" not in text


def test_ctrl_c_is_the_usual_end_of_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(seconds: float) -> Iterator[info.MachineInfo]:
        yield found
        raise KeyboardInterrupt

    use(monkeypatch, SPARSE)
    found = info.collect()
    monkeypatch.setattr(info, "watch", twice)
    result = CliRunner().invoke(cli.app, ["info", "--watch", "--json"])
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize("words", [["--watch", "--require", "1"], ["--count", "2"]])
def test_options_that_do_not_go_together_are_refused(words: list[str]) -> None:
    result = CliRunner().invoke(cli.app, ["info", *words])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.code == "E205"


@pytest.mark.parametrize(
    ("arguments", "enough"),
    [
        ([], True),
        (["--require", "2"], True),
        (["--require", "3"], False),
        (["--min-free", "38GiB"], True),
        (["--min-free", "39GiB"], False),
        (["--require", "2", "--min-free", "8GiB"], True),
        (["--require", "2", "--min-free", "9GiB"], False),
    ],
)
def test_requirements_end_with_six_when_they_are_not_met(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], enough: bool
) -> None:
    use(monkeypatch, FULL, SPARSE)
    result = CliRunner().invoke(cli.app, ["info", *arguments])
    assert "NVIDIA A100-SXM4-40GB" in result.stdout
    if enough:
        assert result.exit_code == 0
        return
    assert isinstance(result.exception, CheckFailed)
    assert (result.exception.code, result.exception.exit_code) == ("E601", 6)


def test_a_failed_requirement_says_what_each_gpu_lacks(
    monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    use(monkeypatch, FULL, SPARSE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    failure = report.check_requirement(info.collect(empty), 1, 10 * GIB)
    assert failure is not None
    assert failure.message == (
        "1 usable GPU with 10.0 GiB free required, 0 found "
        "(GPU 0: CUDA_VISIBLE_DEVICES hides it; GPU 1: 8.0 GiB free)"
    )


def test_json_is_one_object_and_a_failed_requirement_prints_no_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use(monkeypatch, FULL)
    result = CliRunner().invoke(cli.app, ["info", "--json"])
    (line,) = result.stdout.splitlines()
    answer = json.loads(line)
    assert (answer["command"], answer["status"]) == ("gpu info", "ok")
    assert set(answer["data"]) >= {"host", "cpu", "memory", "driver", "torch", "gpus", "findings"}
    assert set(answer["data"]["findings"][0]) == {"code", "severity", "message", "effect", "cure"}
    assert CliRunner().invoke(cli.app, ["info", "--json", "--require", "2"]).stdout == ""


FRESH = """
import sys
from dltool_gpu.cli import app
app(["info", "--json"], standalone_mode=False)
heavy = {"torch", "torchvision", "numpy", "matplotlib", "PIL"} & set(sys.modules)
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_a_fresh_interpreter_imports_no_torch_and_writes_no_file(tmp_path: Path) -> None:
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR", "TEMP", "XDG_CACHE_HOME")}
    environment = {**os.environ, **places, "PYTHONDONTWRITEBYTECODE": "1"}
    paths = [str(Path(place).resolve()) for place in sys.path if place]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    done = subprocess.run(
        [sys.executable, "-c", FRESH],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["status"] == "ok"
    assert list(tmp_path.iterdir()) == []
