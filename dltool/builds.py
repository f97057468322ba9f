"""How the installed packages were built, read from their files without importing them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

# pip cannot choose between builds of one version; uv looks at the driver and takes the right one
REINSTALL_TORCH = "uv pip install --reinstall --torch-backend=auto torch torchvision"


def read_text(path: Path) -> str:
    """Return a small file's text without the outer white space; empty when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Build:
    """One installed package, as its metadata and its `version.py` describe it.

    Attributes:
        version: the version of the distribution.
        file_version: the version in `version.py`, with its local part; empty when not found.
        cuda: the CUDA version it was built for; None when it was built without, or is not known.
        hip: the ROCm version it was built for, or None.
    """

    version: str
    file_version: str = ""
    cuda: str | None = None
    hip: str | None = None

    @property
    def backend(self) -> str:
        """`cuda`, `rocm`, `cpu`, or `unknown` without a `version.py`."""
        if self.cuda or self.hip:
            return "cuda" if self.cuda else "rocm"
        return "cpu" if self.file_version else "unknown"


def parse_version_file(text: str) -> dict[str, str]:
    """Return the names that a `version.py` sets to a text; names set to None are left out."""
    pattern = r"""^(\w+)[ \t]*(?::[^=\n]+)?=[ \t]*(['"])(.*?)\2[ \t]*(?:#.*)?$"""
    return {name: value for name, _, value in re.findall(pattern, text, re.MULTILINE)}


def installed_build(package: str) -> Build | None:
    """Return how an installed package was built, without importing it; None when not installed."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    fields = parse_version_file(read_text(_package_folder(package) / "version.py"))
    file_version = fields.get("__version__", "")
    tag = re.search(r"\+cu(\d+)(\d)$", file_version or version)
    cuda = fields.get("cuda") or (f"{tag[1]}.{tag[2]}" if tag else None)
    return Build(version.partition("+")[0], file_version, cuda, fields.get("hip"))


def _package_folder(package: str) -> Path:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else Path("no such folder")


def release(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: `2.14.1+cu130` gives (2, 14, 1)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def satisfies(version: str, specifier: str) -> bool | None:
    """Tell whether a version lies in a range such as `>=2.14,<3`; None for what is not understood.

    Compares release numbers only (PEP 440 without epochs, pre-releases and local parts).
    """
    answers = [_clause_holds(release(version), clause) for clause in specifier.split(",")]
    return None if None in answers else all(answers)


def _clause_holds(have: tuple[int, ...], clause: str) -> bool | None:
    match = re.fullmatch(r"\s*(==|!=|>=|<=|<|>|~=)\s*([\d.]+?)(\.\*)?\s*", clause)
    if match is None or not have:
        return None
    operator, want = match[1], release(match[2])
    if operator == "~=":
        return have >= want and have[: len(want) - 1] == want[:-1]
    width = len(want) if match[3] else max(len(want), len(have))
    left, right = (numbers[:width] + (0,) * (width - len(numbers)) for numbers in (have, want))
    return {
        "==": left == right,
        "!=": left != right,
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
    }[operator]


def requirement_of(package: str, dependency: str) -> str:
    """Return the version range in which an installed package wants a dependency; empty without."""
    for line in importlib.metadata.requires(package) or []:
        match = re.match(r"([\w.-]+)\s*\(?([^;)]*)\)?", line)
        if match and match[1].lower() == dependency:
            return match[2].strip()
    return ""


def torch_pair_command(torch: Build) -> str:
    """Return the pip command that brings the torchvision made for this torch.

    torchvision 0.(N + 15) has belonged to torch 2.N since 2.0.
    """
    numbers = release(torch.version)
    if len(numbers) < 2 or numbers[0] != 2:
        return "pip install --upgrade torch torchvision"
    return f'pip install "torch=={torch.version}" "torchvision==0.{numbers[1] + 15}.*"'


def torchvision_mismatch(torch: Build | None, vision: Build | None) -> tuple[str, str] | None:
    """Return why torchvision does not belong to this torch, and the command that mends it.

    None when their files say nothing against each other; only an import can prove that they work.
    """
    if torch is None or vision is None:
        return None
    wanted = requirement_of("torchvision", "torch")
    if wanted and satisfies(torch.version, wanted) is False:
        reason = f"torchvision {vision.version} needs torch {wanted}, torch is {torch.version}"
        return reason, torch_pair_command(torch)
    built = f"torchvision is built for CUDA {vision.cuda}, torch for "
    if torch.backend == "cpu" and vision.cuda:
        return f"{built}the CPU only", REINSTALL_TORCH
    if torch.cuda and vision.cuda and release(torch.cuda)[:1] != release(vision.cuda)[:1]:
        return f"{built}CUDA {torch.cuda}", REINSTALL_TORCH
    return None
