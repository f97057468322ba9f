"""`dltool doctor` finds the faults that the test plants, and leaves nothing behind."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections import namedtuple
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dltool import machine
from dltool.builds import Build
from dltool.commands import doctor
from dltool.machine import Driver, Finding, Hardware

Usage = namedtuple("Usage", "total used free")


def plant(folder: Path, name: str, version: str, *requires: str) -> None:
    """Install a package as pip would, as far as its metadata go."""
    information = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    (information / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for planted packages that comes before all others."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches and runs below a fresh folder that is still empty."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("DLTOOL_HOME", str(home / "ours" / "deep"))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.chdir(home)
    return home


def by_code(findings: list[Finding]) -> dict[str, Finding]:
    return {found.code: found for found in findings}


# Packages


def test_dependencies_outside_their_range_or_missing_are_failures(site: Path) -> None:
    pytest.importorskip("packaging")
    wanted = ["numpy>=1.26", "tqdm>=4.66,<5", "no-such-thing>=2", "typer>=0.20", "x>=1; extra=='y'"]
    plant(site, "dltool", "9.9", *wanted)
    plant(site, "numpy", "1.20.0")
    plant(site, "tqdm", "4.70")
    plant(site, "typer", "0.20.0rc1")
    found = by_code(doctor.check_dependencies())
    assert set(found) == {
        "dependency-numpy",
        "dependency-no-such-thing",
        "dependency-typer",
        "dependencies",
    }
    assert found["dependency-numpy"].severity == "fail"
    assert found["dependency-numpy"].fact == "1.20.0, dltool needs >=1.26"
    assert found["dependency-numpy"].cure == 'pip install "numpy>=1.26"'
    assert found["dependency-no-such-thing"].fact == "not installed"
    assert found["dependencies"].fact == "1 package within the declared ranges"


def test_dltool_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    (found,) = doctor.check_dependencies()
    assert (found.code, found.severity) == ("not-installed", "warn")


def test_a_python_that_is_too_old_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.10.2")
    (found,) = doctor.check_python()
    assert (found.code, found.severity) == ("python", "fail")
    monkeypatch.setattr("platform.python_version", lambda: "3.11.0")
    assert doctor.check_python()[0].severity == "ok"


def test_a_torchvision_whose_operators_fail_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(machine, "torchvision_findings", lambda torch, vision: [])
    monkeypatch.setattr(torchvision.ops, "nms", broken)
    monkeypatch.setattr("dltool.builds.installed_build", lambda name: Build("2.13.0", "2.13.0"))
    (found,) = doctor.check_torchvision()
    assert (found.code, found.severity) == ("torchvision-mismatch", "fail")
    assert found.fact.endswith("operator torchvision::nms does not exist")
    assert 'pip install "torch==2.13.0" "torchvision==0.28.*"' in found.cure


def test_an_operator_with_a_wrong_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torchvision

    assert doctor.torchvision_trouble() == ""
    monkeypatch.setattr(torchvision.ops, "nms", lambda *_: torch.tensor([0, 1, 2]))
    assert "answers [0, 1, 2]" in doctor.torchvision_trouble()


def test_a_missing_torchvision_comes_with_the_command_that_fits_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"torch": Build("2.11.0", "2.11.0")}
    monkeypatch.setattr("dltool.builds.installed_build", installed.get)
    (found,) = doctor.check_torchvision()
    assert found.cure == 'pip install "torch==2.11.0" "torchvision==0.26.*"'


def test_a_torch_that_cannot_be_imported_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = by_code(doctor.check_torch())
    assert found["torch-import"].severity == "fail"
    assert doctor.live_device().code == "no-torch"


def test_two_copies_of_one_package_are_told(site: Path) -> None:
    plant(site, "torch", "2.12.0")
    found = doctor.mixed_installation("torch", Build("2.12.0", "2.12.0"))
    assert [item.severity for item in found] == ["warn"]
    assert "installed 2 times" in found[0].fact
    assert f"2.12.0 in {site}" in found[0].fact


def test_files_of_another_version_than_the_metadata_are_told(site: Path) -> None:
    plant(site, "nothing-else", "2.12.0")
    (found,) = doctor.mixed_installation("nothing-else", Build("2.12.0", "2.14.1+cu130"))
    assert "say 2.12.0, its files 2.14.1+cu130" in found.fact
    assert doctor.mixed_installation("nothing-else", Build("2.12.0", "2.12.0+cu130")) == []


# Devices


def test_gpus_that_torch_does_not_see_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import contextlib

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    session = contextlib.nullcontext((None, Driver("580.65.06", "13.0", 2)))
    monkeypatch.setattr(machine, "nvml_session", lambda: session)
    monkeypatch.setattr(machine, "hardware", lambda: Hardware(2, 0, True, False, True))
    monkeypatch.setattr(
        "dltool.builds.installed_build", lambda name: Build("2.14.1", "2.14.1+cu130", "13.0")
    )
    monkeypatch.setattr(doctor, "live_device", lambda: Finding("cpu", "ok", "device", "cpu"))
    found = by_code(doctor.check_device())
    assert found["cuda-unavailable"].severity == "fail"
    assert "2 GPUs answer to the driver" in found["cuda-unavailable"].fact


def test_a_device_that_multiplies_wrongly_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert doctor.live_device().severity == "ok"
    monkeypatch.setattr(torch.Tensor, "__matmul__", torch.Tensor.__add__)
    found = doctor.live_device()
    assert found.severity == "fail"
    assert "8192.0 for 262144" in found.fact


# Folders


def test_writable_folders_are_well_and_stay_empty(own_folders: Path) -> None:
    found = doctor.check_folders()
    assert [item.code for item in found] == [
        "data-cache-writable",
        "torch-cache-writable",
        "runs-writable",
    ]
    assert list(own_folders.iterdir()) == []


def test_a_cache_below_a_file_is_a_failure_with_its_cure(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folders / "file").write_text("here", encoding="utf-8")
    monkeypatch.setenv("DLTOOL_HOME", str(own_folders / "file" / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(own_folders / "file"))
    found = by_code(doctor.check_folders())
    assert found["data-cache-writable"].severity == "fail"
    assert "DLTOOL_HOME" in found["data-cache-writable"].cure
    assert found["torch-cache-writable"].fact.endswith("is not a folder")
    assert sorted(path.name for path in own_folders.iterdir()) == ["file"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that refuses root too")
def test_a_folder_that_refuses_even_root_is_found() -> None:
    assert doctor.write_trouble(Path("/proc")) != ""


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_found(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        assert doctor.write_trouble(tmp_path) == "Permission denied"
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("free", "severity"), [(3 << 30, "ok"), (1 << 30, "warn"), (50 << 20, "fail")]
)
def test_a_disk_that_runs_full_is_told(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10 << 30, 0, free))
    assert {found.severity for found in doctor.check_folders()} == {severity}


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/shm is Linux's")
@pytest.mark.parametrize(("free", "severity"), [(64 << 20, "warn"), (300 << 20, "ok")])
def test_small_shared_memory_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, severity: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(free, 0, free))
    (found,) = doctor.check_shared_memory(tmp_path)
    assert found.severity == severity
    (missing,) = doctor.check_shared_memory(tmp_path / "none")
    assert missing.severity == "warn"


# Threads and plugins


@pytest.mark.parametrize(
    ("setting", "allowed", "usable", "severity"),
    [
        ("8", 8, 8, "ok"),
        ("16", 8, 8, "warn"),
        ("4,2", 8, 2, "warn"),
        ("1", 8, 8, "ok"),
        (None, 64, 4, "warn"),
        (None, 4, 4, "ok"),
    ],
)
def test_more_threads_than_cores_are_told(
    monkeypatch: pytest.MonkeyPatch, setting: str | None, allowed: int, usable: int, severity: str
) -> None:
    monkeypatch.setattr(machine, "allowed_cores", lambda: allowed)
    monkeypatch.setattr(machine, "usable_cores", lambda: usable)
    if setting is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", setting)
    (found,) = doctor.check_threads()
    assert found.severity == severity
    assert (f"OMP_NUM_THREADS={usable}" in found.cure) == (severity == "warn")


def test_a_broken_plugin_is_a_failure_beside_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from dltool.plugins import Plugin
    from dltool.plugins.probe import Report

    installed = [
        Plugin("good", "good:app", "dltool-good", "1.0"),
        Plugin("bad", "bad:app", "dltool-bad", "2.0", problem="its package 'bad' is not there"),
    ]
    monkeypatch.setattr("dltool.plugins.discover", lambda: installed)
    monkeypatch.setattr("dltool.plugins.checks.probe", lambda plugin, timeout: Report())
    good, bad = doctor.check_plugins()
    assert (good.severity, bad.severity) == ("ok", "fail")
    assert bad.fact == "dltool-bad 2.0: its package 'bad' is not there"
    assert "plugin uninstall dltool-bad" in bad.cure


# The command


def test_a_check_that_stops_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_torch() -> list[Finding]:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(doctor, "check_torch", check_torch)
    found = doctor.examine()
    stopped = [item for item in found if item.code == "check-stopped"]
    assert [(item.title, item.fact) for item in stopped] == [
        ("torch", "this check stopped: ZeroDivisionError: planted")
    ]
    assert "threads" in {item.code for item in found}
    assert {item.severity for item in found} <= {"ok", "warn", "fail"}


@pytest.mark.parametrize(("severity", "code"), [("ok", 0), ("warn", 0), ("fail", 6)])
def test_only_a_failure_ends_with_six(
    monkeypatch: pytest.MonkeyPatch, severity: machine.Severity, code: int
) -> None:
    found = [Finding("planted", severity, "planted", "a fact", "an effect", "a cure")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    text = CliRunner().invoke(doctor.app, [])
    assert text.exit_code == code
    assert text.stdout.splitlines()[1:] == ["      effect: an effect", "      cure: a cure"]
    answer = CliRunner().invoke(doctor.app, ["--json"])
    assert answer.exit_code == code
    (line,) = answer.stdout.splitlines()
    data = json.loads(line)["data"]
    assert data["healthy"] == (code == 0)
    assert data["counts"][severity] == 1
    assert data["findings"][0]["cure"] == "a cure"


def test_the_real_command_finds_the_planted_cache(
    own_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_folders / "file").touch()
    monkeypatch.setenv("DLTOOL_HOME", str(own_folders / "file" / "cache"))
    result = CliRunner().invoke(doctor.app, [])
    assert result.exit_code == 6
    assert "FAIL  data cache: " in result.stdout
    assert "cure: set DLTOOL_HOME to a folder of yours" in result.stdout
