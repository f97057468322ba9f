"""Full, broken and forbidden disks: the old checkpoint stays, no debris, the error says why."""

import errno
import io
import os
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from torch import nn

from dltool import checkpoint, files
from dltool.errors import CheckpointError, DltoolError


def model(value):
    made = nn.Sequential(nn.Linear(40, 300), nn.Linear(300, 5))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def save(folder, value):
    checkpoint.save(folder, model(value), {"optimizer": {"m": torch.ones(5000)}}, {"n": value})


def failure(folder):
    """Save; return what went wrong, or an empty text."""
    try:
        save(folder, 2.0)
    except DltoolError as error:
        return f"{error.code} {error.message}"
    return ""


def total_bytes(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


def holds(folder, value):
    """Tell whether a folder holds this checkpoint, and nothing hidden lies beside it."""
    hidden = [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]
    return checkpoint.load(folder).state == {"n": value} and not hidden


class Disk(io.FileIO):
    """A file on a disk with `room` bytes left; full, it fails as `error` says."""

    room = 0
    error = errno.ENOSPC
    piece = 1 << 30
    flip_at = None

    def write(self, data):
        cls = type(self)
        view = memoryview(data)[: cls.piece]
        if cls.room < len(view):
            view = view[: cls.room]
            if not view:
                raise OSError(cls.error, os.strerror(cls.error))
        if cls.flip_at is not None and cls.flip_at < len(view):
            broken = bytearray(view)
            broken[cls.flip_at] ^= 1
            view = memoryview(broken)
        written = super().write(view)
        cls.room -= written
        return written


@pytest.fixture
def disk(monkeypatch):
    """Put every file that dltool writes onto a disk with limits of its own."""

    class Limited(Disk):
        pass

    monkeypatch.setattr(files, "open_new", lambda path: Limited(path, "w"))
    Limited.room = 1 << 30
    return Limited


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_disk_fails_after_any_number_of_bytes(tmp_path, disk, scale, tally, code):
    folder = tmp_path / "c"
    save(folder, 1.0)
    disk.error = code
    total = total_bytes(folder)
    count = scale(60, 500)
    word = "cannot write" if code == errno.EIO else "no space left"
    for number in range(count):
        disk.room = total * number // count
        with pytest.raises(DltoolError, match=word) as caught:
            save(folder, 2.0)
        assert caught.value.code == "E101"
        assert holds(folder, 1.0), f"after {total * number // count} bytes"
    disk.room = 1 << 30
    save(folder, 2.0)
    assert holds(folder, 2.0)
    tally(f"{errno.errorcode[code]} at places of a save", count, old_checkpoint_lost=0)


def test_system_that_takes_little_at_a_time_gets_everything(tmp_path, disk):
    disk.piece = 777
    save(tmp_path / "c", 1.0)
    assert holds(tmp_path / "c", 1.0)


@pytest.mark.parametrize("offset", [0, 8, 500, 1500])
def test_disk_that_lies_is_caught_while_saving(tmp_path, disk, offset):
    save(tmp_path / "c", 1.0)
    disk.flip_at = offset
    with pytest.raises(DltoolError, match="other bytes than were written"):
        save(tmp_path / "c", 2.0)
    assert holds(tmp_path / "c", 1.0)


@pytest.mark.parametrize("call", ["fsync", "replace", "mkdir"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES, errno.EMFILE])
def test_any_call_that_fails_leaves_the_old_checkpoint(tmp_path, monkeypatch, tally, call, code):
    folder, planted, real = tmp_path / "c", 0, getattr(os, call)
    save(folder, 1.0)
    for fail_at in range(1, 20):
        calls = 0

        def failing(*arguments, _at=fail_at, **options):
            nonlocal calls
            calls += 1
            if calls == _at:
                raise OSError(code, os.strerror(code))
            return real(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            if call == "replace":  # as where the system cannot swap two names in one step
                patch.setattr(files, "swap", lambda one, other: False)
            planted += "E101" in failure(folder)
        if calls < fail_at:
            break
        # after the exchange of names the new one may stand already; it is whole in any case
        assert holds(folder, 1.0) or holds(folder, 2.0)
        if checkpoint.load(folder).state != {"n": 1.0}:
            save(folder, 1.0)
    assert calls < 20
    assert planted
    tally(f"{errno.errorcode[code]} in {call} while saving", planted, old_checkpoint_lost=0)


def test_too_many_open_files(tmp_path, tally):
    resource = pytest.importorskip("resource")
    save(tmp_path / "c", 1.0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken, planted = [], 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(6):  # with no, one, two ... descriptors left
            planted += "open files" in failure(tmp_path / "c")
            os.close(taken.pop())
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert planted > 0
    assert holds(tmp_path / "c", 1.0) or holds(tmp_path / "c", 2.0)
    tally("EMFILE while saving", planted, old_checkpoint_lost=0)


SAVE_AS_NOBODY = """
import os, sys
import torch
from pathlib import Path
from dltool import checkpoint
from dltool.errors import DltoolError
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    checkpoint.save(Path(sys.argv[1]), {"a": torch.ones(3)}, {}, {})
except DltoolError as error:
    print(error.one_line())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs users")
def test_read_only_folder(tmp_path, tally):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path.name.startswith("pytest"):
            path.chmod(0o755)
    folder.chmod(0o555)
    command = [sys.executable, "-c", SAVE_AS_NOBODY, folder / "step-00000001"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    folder.chmod(0o755)
    assert "Permission denied" in done.stdout
    assert "--out" in done.stdout
    assert list(folder.iterdir()) == []
    tally("read-only folder", 1)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB; only a superuser can make one."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    try:
        made = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except OSError:
        pytest.skip("there is no mount command")
    if made.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=20)


def test_small_disk_runs_full(small_disk, tally):
    failures = [failure(small_disk / f"step-{step:08d}") for step in range(1, 31)]
    saved = failures.count("")
    assert 0 < saved < 30
    assert all("no space left" in text for text in failures[saved:])
    newest, notes = checkpoint.newest(small_disk)
    assert (newest.path.name, notes) == (f"step-{saved:08d}", [])
    assert len(list(small_disk.iterdir())) == saved
    tally("ENOSPC on a small tmpfs", 30 - saved, unreadable=0)


def test_everything_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    """Follow the calls: each file flushed, then the folder, then the name, then the parent."""
    calls, opened = [], {}
    real = {name: getattr(os, name) for name in ("fsync", "replace", "open")}

    def fsync(descriptor):
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}").rpartition("/")[2]))
        real["fsync"](descriptor)

    def replace(one, other, **options):
        calls.append(("replace", os.path.basename(other)))
        real["replace"](one, other, **options)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save(tmp_path / "run" / "step-1", 1.0)
    assert not opened
    place = calls.index(("replace", "step-1"))
    before = [name for call, name in calls[:place] if call == "fsync"]
    names = {"model.safetensors", "optimizer.safetensors", "state.json", "MANIFEST.json"}
    assert names <= set(before)
    assert before[-2] == "MANIFEST.json"
    assert before[-1].startswith(".step-1.tmp-")
    assert calls[place + 1] == ("fsync", "run")
    assert ("fsync", tmp_path.name) in calls  # the new parent folder's own entry


def test_unreadable_file_is_named(tmp_path, monkeypatch):
    save(tmp_path / "c", 1.0)

    def broken(path):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(files, "sha256", broken)
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Input/output"):
        checkpoint.verify(tmp_path / "c")


def test_folder_moved_aside_comes_back_where_names_cannot_be_swapped(tmp_path, monkeypatch):
    """Kill the way for other systems at each of its steps."""
    monkeypatch.setattr(files, "swap", lambda one, other: False)
    monkeypatch.setattr(files, "process_lives", lambda pid: False)

    class Killed(BaseException):
        pass

    for kill_at in range(1, 4):
        save(tmp_path / "best", 1.0)
        count = 0

        def replace(one, other, _real=os.replace, _at=kill_at):
            nonlocal count
            count += 1
            if count == _at:
                raise Killed
            _real(one, other)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            patch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
            with suppress(Killed):
                save(tmp_path / "best", 2.0)
        files.sweep_temporaries(tmp_path)
        assert holds(tmp_path / "best", 1.0 if kill_at < 3 else 2.0)


def test_sweep_leaves_the_living_alone(tmp_path):
    other = tmp_path / f".c{files.TEMPORARY}{os.getppid()}-00"
    own = tmp_path / "deep" / f".c{files.TEMPORARY}{os.getpid()}-00"
    strange = tmp_path / f".c{files.TEMPORARY}notes"
    for path in (other, own, strange):
        path.mkdir(parents=True)
    assert files.sweep_temporaries(tmp_path) == [own]
    assert other.exists()
    assert strange.exists()
