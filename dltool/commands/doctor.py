"""`dltool doctor`: check installation, device and folders; each finding comes with its cure."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer

from dltool import builds, machine
from dltool.builds import Build
from dltool.console import Console
from dltool.machine import Finding, Severity
from dltool.options import HELP, JsonOption

OLDEST_PYTHON = ">=3.11"
LITTLE_SPACE, NO_SPACE = 2 << 30, 100 << 20
LITTLE_SHARED_MEMORY = 256 << 20
PROBE_BYTES = 4096
CUDA_PROBE = 64  # side of the matrices that are multiplied on the GPU

app = typer.Typer(add_completion=False, context_settings=HELP)


@app.command()
def doctor(json: JsonOption = False) -> None:
    """Check this installation; exit with 6 when something is broken.

    Versions that match, device and driver, folders that can be written, disk and shared memory,
    threads, plugins. Nothing is changed and no file stays behind.
    """
    findings = examine()
    counts = Counter(found.severity for found in findings)
    data = {
        "healthy": not counts["fail"],
        "counts": {name: counts[name] for name in ("ok", "warn", "fail")},
        "findings": [asdict(found) for found in findings],
    }
    Console("doctor", json=json).result(data, report(findings))
    if counts["fail"]:
        raise typer.Exit(6)


def report(findings: Iterable[Finding]) -> str:
    """Return one line a finding, with effect and cure beneath those that are not well."""
    lines = []
    for found in findings:
        label = {"warn": "warn", "fail": "FAIL"}.get(found.severity, "ok")
        lines.append(f"{label:4}  {found.title}: {found.fact}")
        if found.effect:
            lines.append(f"      effect: {found.effect}")
        if found.cure:
            lines.append(f"      cure: {found.cure}")
    return "\n".join(lines)


def examine() -> list[Finding]:
    """Run every check; one that fails itself is reported and does not stop the others."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        check_python,
        check_torch,
        check_torchvision,
        check_dependencies,
        check_device,
        check_folders,
        check_shared_memory,
        check_threads,
        check_plugins,
    )
    return [found for check in checks for found in _guarded(check)]


def _guarded(check: Callable[[], list[Finding]]) -> list[Finding]:
    title = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        found = check()
    except Exception as error:  # a half-installed package can raise anything
        fact = f"this check stopped: {_words(error)}"
        found = [Finding("check-stopped", "warn", title, fact, cure="report it as a bug of dltool")]
    return [replace(item, severity="ok") if item.severity == "info" else item for item in found]


def _words(error: BaseException) -> str:
    first = str(error).strip().splitlines()[:1]
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


# Packages


def check_python() -> list[Finding]:
    """Compare the running Python with what dltool asks for."""
    version = platform.python_version()
    wanted = OLDEST_PYTHON
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        declared = importlib.metadata.metadata("dltool")
        if "Requires-Python" in declared:
            wanted = declared["Requires-Python"]
    if builds.satisfies(version, wanted) is False:
        fact, cure = f"{version}, dltool needs {wanted}", "install a newer Python and dltool in it"
        return [Finding("python", "fail", "Python", fact, "dltool may fail anywhere", cure)]
    return [Finding("python", "ok", "Python", f"{version} in {sys.prefix}")]


def check_torch() -> list[Finding]:
    """Import torch, and look for installations that lie over one another."""
    build = builds.installed_build("torch")
    if build is None:
        cure = "pip install torch torchvision"
        return [
            Finding("torch-missing", "fail", "torch", "not installed", "nothing can train", cure)
        ]
    found = [*mixed_installation("torch", build)]
    try:
        import torch
    except Exception as error:  # a broken shared library raises OSError, and others what they like
        fact = f"{build.version} cannot be imported: {_words(error)}"
        cure = builds.REINSTALL_TORCH
        return [*found, Finding("torch-import", "fail", "torch", fact, "nothing can train", cure)]
    target = {"cuda": f"CUDA {build.cuda}", "rocm": f"ROCm {build.hip}"}.get(build.backend, "CPU")
    fact = f"{torch.__version__}, built for {target}"
    return [*found, Finding("torch", "ok", "torch", fact)]


def mixed_installation(package: str, build: Build) -> list[Finding]:
    """Tell when one package is installed more than once, or its files are not of its version."""
    copies = {
        f"{copy.version} in {copy.locate_file('')}"
        for copy in importlib.metadata.distributions(name=package)
    }
    facts = []
    if len(copies) > 1:
        facts.append(f"installed {len(copies)} times: {'; '.join(sorted(copies))}")
    files, declared = builds.release(build.file_version), builds.release(build.version)
    if files and files != declared:
        facts.append(f"its metadata say {build.version}, its files {build.file_version}")
    cure = f"pip uninstall --yes {package}, again until none is left, then install it once"
    effect = "which one runs is a matter of chance; do not mix pip and conda"
    return [Finding(f"{package}-mixed", "warn", package, fact, effect, cure) for fact in facts]


def check_torchvision() -> list[Finding]:
    """Compare torchvision with torch: first by their files, then by calling an operator."""
    torch, vision = builds.installed_build("torch"), builds.installed_build("torchvision")
    if vision is None:
        cure = builds.torch_pair_command(torch) if torch else "pip install torch torchvision"
        effect = "image topics cannot run"
        return [
            Finding("torchvision-missing", "fail", "torchvision", "not installed", effect, cure)
        ]
    found = machine.torchvision_findings(torch, vision)
    if found or torch is None:
        return found
    trouble = torchvision_trouble()
    if trouble:
        fact = f"{vision.version} does not work with torch {torch.version}: {trouble}"
        cure = f"{builds.torch_pair_command(torch)}, or {builds.REINSTALL_TORCH}"
        effect = "image models fail on import or at their first operator"
        return [Finding("torchvision-mismatch", "fail", "torchvision", fact, effect, cure)]
    found = mixed_installation("torchvision", vision)
    fact = f"{vision.version}, works with torch {torch.version}"
    return [*found, Finding("torchvision", "ok", "torchvision", fact)]


def torchvision_trouble() -> str:
    """Import torchvision and call its compiled non-maximum suppression; empty when it works."""
    try:
        import torch
        import torchvision

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]])
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    except Exception as error:
        return _words(error)
    return "" if kept == [0, 2] else f"its operator nms answers {kept}, not [0, 2]"


def check_dependencies() -> list[Finding]:
    """Compare every base dependency with the range that dltool declares."""
    title = "dependencies"
    try:
        lines = importlib.metadata.requires("dltool") or []
    except importlib.metadata.PackageNotFoundError:
        fact, cure = "dltool itself is not installed as a package", "pip install dltool"
        return [Finding("not-installed", "warn", title, fact, "plugins are not found", cure)]
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return [Finding("dependencies", "ok", title, "not checked: packaging is not installed")]
    wanted = [Requirement(line) for line in lines]
    base = [item for item in wanted if not item.marker or item.marker.evaluate({"extra": ""})]
    found = [finding for item in base if (finding := _dependency(item)) is not None]
    good = machine.count_of(len(base) - len(found), "package")
    return [*found, Finding("dependencies", "ok", title, f"{good} within the declared ranges")]


def _dependency(wanted: Any) -> Finding | None:
    try:
        version = importlib.metadata.version(wanted.name)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version and wanted.specifier.contains(version, prereleases=True):
        return None
    fact = f"{version}, dltool needs {wanted.specifier}" if version else "not installed"
    cure = f'pip install "{wanted.name}{wanted.specifier}"'
    code = f"dependency-{wanted.name}"
    return Finding(code, "fail", wanted.name, fact, "commands that need it fail", cure)


# Devices


def check_device() -> list[Finding]:
    """Name the missing layers between torch and the GPUs, then compute on what torch finds."""
    torch = builds.installed_build("torch")
    with machine.nvml_session() as (_, driver):
        found = machine.device_findings(machine.hardware(), driver, torch)
    live = live_device()
    # a finding on NVIDIA's side explains already why torch stays on the CPU
    explained = any(item.code != "no-rocm" for item in found)
    if live.code == "cpu" and driver.count and not explained:
        fact = f"{machine.count_of(driver.count, 'GPU')} answer to the driver, none to torch"
        effect, cure = "torch runs on the CPU", "see dltool gpu info, and restart the machine"
        found.append(Finding("cuda-unavailable", "fail", "device", fact, effect, cure))
    return [*found, live]


def live_device() -> Finding:
    """Multiply two matrices on the device that `--device auto` takes."""
    title = "device"
    try:
        import torch
    except Exception:
        return Finding("no-torch", "warn", title, "not tried: torch cannot be imported")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            name = "cuda" if torch.cuda.is_available() else "cpu"
            name = "mps" if torch.backends.mps.is_available() else name
            ones = torch.ones(CUDA_PROBE, CUDA_PROBE, device=name)
            total = float((ones @ ones).sum())
        except Exception as error:
            fact = f"{name} does not compute: {_words(error)}"
            return Finding("device", "fail", title, fact, "training fails", "use --device cpu")
    if total != CUDA_PROBE**3:
        fact = f"{name} multiplies wrongly: {total} for {CUDA_PROBE**3}"
        return Finding("device", "fail", title, fact, "results are wrong", "see dltool gpu info")
    if name == "cpu":
        told = "; ".join(
            _words(item.message) for item in caught if isinstance(item.message, Warning)
        )
        fact = f"cpu, {machine.count_of(machine.usable_cores(), 'usable core')}"
        return Finding("cpu", "ok", title, f"{fact}; {told}" if told else fact)
    label = torch.cuda.get_device_name(0) if name == "cuda" else "Apple GPU"
    return Finding("device", "ok", title, f"{name}, {label}, computes")


# Folders


def places() -> list[tuple[str, Path, Severity, str]]:
    """Return the folders that dltool writes to: name, place, how bad it is if it cannot, cure."""
    from dltool.data.download import cache_folder

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    torch_home = Path(os.environ.get("TORCH_HOME") or cache / "torch").expanduser()
    return [
        (
            "data cache",
            cache_folder("probe").parent,
            "fail",
            "set DLTOOL_HOME to a folder of yours",
        ),
        ("torch cache", torch_home, "fail", "set TORCH_HOME to a folder of yours"),
        ("runs", Path.cwd() / "runs", "warn", "change to a folder of yours, or use --out"),
    ]


def check_folders() -> list[Finding]:
    """Try to write where caches and runs go, and look at the space there; leaves nothing behind."""
    found = []
    for title, place, severity, cure in places():
        code = f"{title.replace(' ', '-')}-writable"
        folder = existing_part(place)
        reason = write_trouble(folder)
        if reason:
            fact = f"{place} cannot be written: {reason}"
            found.append(Finding(code, severity, title, fact, "files cannot be saved", cure))
        else:
            found.append(_space(code, title, place, folder, cure))
    return found


def existing_part(place: Path) -> Path:
    """Return the nearest folder or file on the way to `place` that exists."""
    # Path.exists raises where a folder on the way may not be entered
    return next(part for part in (place, *place.parents) if os.path.exists(part) or not part.name)


def write_trouble(folder: Path) -> str:
    """Write a nameless file into a folder and let it vanish; return what went wrong, or nothing.

    Asking for permissions is not enough: root may do all, and read-only or full disks still refuse.
    """
    if not folder.is_dir():
        return f"{folder} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(PROBE_BYTES))
            stream.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _space(code: str, title: str, place: Path, folder: Path, cure: str) -> Finding:
    free = shutil.disk_usage(folder).free
    fact = f"{place} can be written, {free / 2**30:.1f} GiB free"
    if free >= LITTLE_SPACE:
        return Finding(code, "ok", title, fact)
    severity: Severity = "fail" if free < NO_SPACE else "warn"
    code = code.replace("-writable", "-space")
    return Finding(code, severity, title, fact, "a save may fail", f"free some space, or {cure}")


def check_shared_memory(folder: Path = Path("/dev/shm")) -> list[Finding]:
    """Look at the shared memory through which loader workers hand over batches (Linux)."""
    if sys.platform != "linux":
        return []
    title, cure = "shared memory", "docker run --shm-size=1g, or mount -o remount,size=1G /dev/shm"
    effect = "loader workers die with a bus error"
    if not folder.is_dir():
        return [Finding("shm", "warn", title, f"{folder} is missing", effect, cure)]
    usage = shutil.disk_usage(folder)
    fact = f"{folder} holds {usage.total >> 20} MiB, {usage.free >> 20} free"
    if usage.free >= LITTLE_SHARED_MEMORY:
        return [Finding("shm", "ok", title, fact)]
    return [Finding("shm", "warn", title, fact, effect, cure)]


# Threads and plugins


def check_threads() -> list[Finding]:
    """Compare the threads that torch will start with the cores that can run them."""
    setting, cores = os.environ.get("OMP_NUM_THREADS"), machine.usable_cores()
    threads = machine.allowed_cores()
    said = f"OMP_NUM_THREADS={setting}"
    if setting is None:
        said = f"OMP_NUM_THREADS is not set: torch takes {machine.count_of(threads, 'thread')}"
    elif setting.partition(",")[0].strip().isdigit():
        threads = int(setting.partition(",")[0])
    fact = f"{said}; {machine.count_of(cores, 'usable core')}"
    if threads > cores:
        cure, effect = f"export OMP_NUM_THREADS={cores}", "threads wait for one another"
        return [Finding("threads", "warn", "threads", fact, effect, cure)]
    return [Finding("threads", "ok", "threads", fact)]


def check_plugins() -> list[Finding]:
    """Import each installed plugin in a process of its own, and tell what is wrong with it."""
    from dltool import plugins
    from dltool.plugins import checks

    installed = plugins.discover()
    if not installed:
        return [Finding("plugins", "ok", "plugins", "none is installed")]
    return checks.examine(installed, remember=False)
