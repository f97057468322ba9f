"""Damaged, swapped and strange files: always found, the right file named."""

import dataclasses
import json
import os
import random

import pytest
import torch
from torch import nn

from dltool import checkpoint, runs
from dltool.errors import CheckpointError, ConfigError

NAMES = ("MANIFEST.json", "model.safetensors", "optimizer.safetensors", "state.json")


@dataclasses.dataclass(frozen=True)
class Config:
    """The smallest config."""

    a: int = 1


def save(folder, step=1):
    torch.manual_seed(step)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16))
    parts = {"optimizer": {"state": {0: {"exp_avg": torch.randn(8, 16)}}, "lr": 0.1}}
    checkpoint.save(folder, model, parts, {"step": step, "loss": 0.5})


def is_named(folder, name):
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(folder)
    assert name in caught.value.message
    assert caught.value.exit_code == 5
    return True


@pytest.mark.parametrize("name", NAMES)
def test_every_flipped_bit_is_found(tmp_path, scale, tally, name):
    save(tmp_path / "c")
    path = tmp_path / "c" / name
    content = path.read_bytes()
    draws = random.Random(1)
    offsets = draws.sample(range(len(content)), min(scale(100, 1000), len(content)))
    for offset in [0, len(content) - 1, *offsets]:
        damaged = bytearray(content)
        damaged[offset] ^= 1 << draws.randrange(8)
        path.write_bytes(damaged)
        assert is_named(tmp_path / "c", name)
    path.write_bytes(content)
    checkpoint.load(tmp_path / "c")
    tally(f"bit flips in {name}", len(offsets) + 2, found=len(offsets) + 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_cut_is_found(tmp_path, scale, tally, name):
    save(tmp_path / "c")
    path = tmp_path / "c" / name
    content = path.read_bytes()
    lengths = range(0, len(content), max(1, len(content) // scale(110, 1000)))
    for length in lengths:
        path.write_bytes(content[:length])
        assert is_named(tmp_path / "c", name)
    path.write_bytes(content + b"\n")
    assert is_named(tmp_path / "c", name)
    tally(f"cuts of {name}", len(lengths) + 1, found=len(lengths) + 1)


@pytest.mark.parametrize("name", NAMES[1:])
def test_file_from_another_checkpoint_is_found(tmp_path, tally, name):
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 2)
    (tmp_path / "a" / name).replace(tmp_path / "b" / name)
    assert is_named(tmp_path / "b", name)
    assert is_named(tmp_path / "a", name)  # where it is missing now
    tally(f"{name} swapped between checkpoints", 2, found=2)


def test_manifest_from_another_checkpoint_is_found(tmp_path, tally):
    save(tmp_path / "a", 1)
    save(tmp_path / "b", 2)
    (tmp_path / "a" / "MANIFEST.json").replace(tmp_path / "b" / "MANIFEST.json")
    assert is_named(tmp_path / "b", "model.safetensors")
    tally("manifest swapped between checkpoints", 1, found=1)


CONTENTS = {
    "zero bytes": (b"", "is empty"),
    "git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-LFS"),
    "HTML page": (b"\n<!doctype html><html><body>404</body></html>", "an HTML page"),
}


@pytest.mark.parametrize("kind", CONTENTS)
@pytest.mark.parametrize("name", NAMES)
def test_what_stands_in_a_files_place_is_named(tmp_path, tally, name, kind):
    content, words = CONTENTS[kind]
    save(tmp_path / "c")
    (tmp_path / "c" / name).write_bytes(content)
    assert is_named(tmp_path / "c", name)
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(tmp_path / "c")
    tally(f"{kind} in the place of {name}", 1, named=1)


@pytest.mark.parametrize("name", NAMES[1:])
def test_file_of_zeros_as_a_power_cut_leaves_it_is_named(tmp_path, name):
    save(tmp_path / "c")
    path = tmp_path / "c" / name
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(CheckpointError, match="zero bytes"):
        checkpoint.load(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "has no MANIFEST"),
        ("not json", "MANIFEST"),
        ("[1, 2]", "MANIFEST"),
        ('{"format": 99, "files": {}}', "newer dltool"),
        ('{"format": 1e999, "files": {}}', "MANIFEST"),
        ('{"format": 1, "files": {"model.safetensors": 3}}', "MANIFEST"),
        ("[" * 200_000, "MANIFEST"),
    ],
)
def test_manifest_that_is_missing_newer_or_nonsense(tmp_path, tally, text, words):
    save(tmp_path / "c")
    path = tmp_path / "c" / "MANIFEST.json"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(tmp_path / "c")
    tally(f"manifest: {str(text)[:40]}", 1, named=1)


def test_signed_nonsense_is_refused(tmp_path):
    """A manifest whose own checksum holds may still be none of ours."""
    save(tmp_path / "c")
    good = json.loads((tmp_path / "c" / "MANIFEST.json").read_bytes())["files"]
    some = dict(list(good.items())[:1])
    for entries, words in (
        ({}, "lists no files"),
        ({"../x": {"bytes": 1, "sha256": ""}}, "missing"),
        ({"a\ud800": {"bytes": 1, "sha256": ""}}, "missing"),
        ({"model.safetensors": {"bytes": "1", "sha256": ""}}, "lists no files"),
        (some, "does not list state.json"),
    ):
        try:
            text = checkpoint.manifest_bytes(entries)
        except UnicodeEncodeError:
            text = checkpoint.signed(
                json.dumps({"format": 1, "files": entries, "self": checkpoint.NO_DIGEST}).encode()
            )
        (tmp_path / "c" / "MANIFEST.json").write_bytes(text)
        with pytest.raises(CheckpointError, match=words) as caught:
            checkpoint.load(tmp_path / "c")
        caught.value.one_line().encode()


def test_clock_that_goes_back_changes_nothing(tmp_path, monkeypatch, tally):
    for step, time in ((1, 2_000_000_000), (2, 1_500_000_000), (10, 1_000)):
        save(tmp_path / f"step-{step:08d}", step)
        for path in [*(tmp_path / f"step-{step:08d}").iterdir(), tmp_path / f"step-{step:08d}"]:
            os.utime(path, (time, time))
    assert checkpoint.newest(tmp_path)[0].state["step"] == 10
    old, _ = checkpoint.superfluous(tmp_path, 1)
    assert [path.name for path in old] == ["step-00000002", "step-00000001"]

    class Stopped(runs.datetime):
        @classmethod
        def now(cls, zone=None):
            return cls(1999, 12, 31, 23, 59, 59, tzinfo=zone)

    monkeypatch.setattr(runs, "datetime", Stopped)
    monkeypatch.chdir(tmp_path)
    made = []
    for _ in range(3):  # three runs in one second, before all others
        run = runs.create("t", "x", None, Config(), {"a": "default"}, "bitwise")
        made.append(run.folder.name)
        assert runs.locate("latest", "t").name == run.folder.name
    assert len(set(made)) == 3
    tally("clock that goes back", 2)


def test_two_runs_do_not_share_a_folder(tmp_path):
    runs.create("t", "x", tmp_path / "run", Config(), {"a": "default"}, "bitwise")
    with pytest.raises(ConfigError, match="exists already"):
        runs.create("t", "x", tmp_path / "run", Config(), {"a": "default"}, "bitwise")
    with (
        runs.locked(tmp_path / "run"),
        pytest.raises(ConfigError, match="another process"),
        runs.locked(tmp_path / "run"),
    ):
        pass
