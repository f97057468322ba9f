"""What the files of installed packages tell, read from packages that the test plants."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dltool import builds, machine
from dltool.builds import Build

TORCH_CUDA = """from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.14.1+cu130'
debug = False
cuda: Optional[str] = '13.0'
git_version = '5c48869'
hip: Optional[str] = None
"""
TORCH_CPU = "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"
TORCH_ROCM = '__version__ = "2.9.0+rocm6.4"\ncuda: Optional[str] = None\nhip = "6.4.43484"  # x\n'
VISION_CUDA = """__version__ = '0.28.0+cu130'
git_version = 'f122815'
from torchvision.extension import _check_cuda_version
if _check_cuda_version() > 0:
    cuda = _check_cuda_version()
"""


def plant(folder: Path, name: str, version: str, text: str | None, *requires: str) -> None:
    """Install a package as pip would, as far as metadata and `version.py` go."""
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {line}" for line in requires]
    (information / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text("raise ImportError('planted')\n", encoding="utf-8")
    if text is not None:
        (folder / name / "version.py").write_text(text, encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for planted packages that comes before all others."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for name in ("torch", "torchvision"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TORCH_CUDA, {"__version__": "2.14.1+cu130", "cuda": "13.0", "git_version": "5c48869"}),
        (TORCH_CPU, {"__version__": "2.13.0+cpu"}),
        (TORCH_ROCM, {"__version__": "2.9.0+rocm6.4", "hip": "6.4.43484"}),
        (VISION_CUDA, {"__version__": "0.28.0+cu130", "git_version": "f122815"}),
        ("", {}),
        ("<html>not found</html>", {}),
    ],
)
def test_version_files_are_read_as_text(text: str, expected: dict[str, str]) -> None:
    assert builds.parse_version_file(text) == expected


@pytest.mark.parametrize(
    ("version", "text", "expected", "backend"),
    [
        ("2.14.1", TORCH_CUDA, Build("2.14.1", "2.14.1+cu130", "13.0"), "cuda"),
        ("2.13.0+cpu", TORCH_CPU, Build("2.13.0", "2.13.0+cpu"), "cpu"),
        ("2.9.0", TORCH_ROCM, Build("2.9.0", "2.9.0+rocm6.4", None, "6.4.43484"), "rocm"),
        ("2.9.0", None, Build("2.9.0"), "unknown"),
    ],
)
def test_a_build_is_read_without_importing_the_package(
    site: Path, version: str, text: str | None, expected: Build, backend: str
) -> None:
    plant(site, "torch", version, text)
    assert builds.installed_build("torch") == expected
    assert expected.backend == backend
    assert "torch" not in sys.modules


def test_cuda_of_torchvision_comes_from_its_version(site: Path) -> None:
    plant(site, "torchvision", "0.28.0", VISION_CUDA)
    found = builds.installed_build("torchvision")
    assert found is not None
    assert found.cuda == "13.0"


def test_a_package_that_is_not_installed_is_none() -> None:
    assert builds.installed_build("no-such-package-at-all") is None


def test_ranges_agree_with_packaging() -> None:
    specifiers = pytest.importorskip("packaging.specifiers")
    ranges = ["==2.14.1", "==2.14.*", ">=2.14", ">=2.14.0,<3", "~=2.14", "~=2.14.1", "!=2.14.1"]
    ranges += ["<2.14", "<=2.14", ">2.14.0", "==2.14", ">=2.14,!=2.15.*"]
    versions = ["2.13.9", "2.14", "2.14.0", "2.14.1", "2.14.10", "2.15.0", "3.0"]
    for text in ranges:
        expected = [specifiers.SpecifierSet(text).contains(version) for version in versions]
        assert [builds.satisfies(version, text) for version in versions] == expected, text


def test_a_range_that_is_not_understood_is_no_answer() -> None:
    assert builds.satisfies("2.14", "===weird") is None
    assert builds.satisfies("unknown", ">=1") is None


@pytest.mark.parametrize(
    ("torch", "torch_text", "vision_text", "requirement", "reason", "cure"),
    [
        (
            "2.13.0",
            "__version__ = '2.13.0'\n",
            "__version__ = '0.27.0'\n",
            "torch==2.12.0",
            "torchvision 0.28.0 needs torch ==2.12.0, torch is 2.13.0",
            'pip install "torch==2.13.0" "torchvision==0.28.*"',
        ),
        (
            "2.13.0+cpu",
            TORCH_CPU,
            VISION_CUDA,
            "torch==2.13.0",
            "built for CUDA 13.0, torch for the CPU only",
            "--torch-backend=auto",
        ),
        (
            "2.14.1",
            TORCH_CUDA,
            VISION_CUDA.replace("cu130", "cu126"),
            "torch>=2.14.0",
            "built for CUDA 12.6, torch for CUDA 13.0",
            "--torch-backend=auto",
        ),
    ],
)
def test_a_torchvision_of_another_torch_is_a_failure_with_its_command(
    site: Path,
    torch: str,
    torch_text: str,
    vision_text: str,
    requirement: str,
    reason: str,
    cure: str,
) -> None:
    plant(site, "torch", torch, torch_text)
    plant(site, "torchvision", "0.28.0", vision_text, "numpy", requirement, "torch-extra==1")
    pair = builds.installed_build("torch"), builds.installed_build("torchvision")
    (found,) = machine.torchvision_findings(*pair)
    assert (found.code, found.severity) == ("torchvision-mismatch", "fail")
    assert reason in found.fact
    assert cure in found.cure


def test_a_pair_that_fits_is_no_finding(site: Path) -> None:
    plant(site, "torch", "2.14.1", TORCH_CUDA)
    plant(site, "torchvision", "0.29.2", VISION_CUDA.replace("cu130", "cu132"), "torch (>=2.14.0)")
    pair = builds.installed_build("torch"), builds.installed_build("torchvision")
    assert machine.torchvision_findings(*pair) == []
    assert machine.torchvision_findings(None, pair[1]) == []
