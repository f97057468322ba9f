"""The cache of data sets: what it holds, whether it is whole, what can go, and bundles of it."""

import gzip
import hashlib
import io
import json
import tarfile

import pytest

from dltool.console import Console
from dltool.data import bundles, cache, named
from dltool.data.download import Source
from dltool.errors import CheckFailed, ConfigError, DataError, DltoolError

CONTENTS = {f"{name}.gz": gzip.compress(name.encode() * 99) for name in named.IDX_FILES}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, no network, and a mnist whose four files are small."""
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    sources = {
        name: Source(("https://example.org",), len(data), digest(data))
        for name, data in CONTENTS.items()
    }
    mnist = named.NamedData("mnist", "small", tuple("01"), (28, 28), 1, "none", sources)
    monkeypatch.setitem(named.NAMED, "mnist", mnist)
    return tmp_path / "home" / "data"


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put(folder, contents=CONTENTS):
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return folder


def packed(tmp_path, **options):
    out = tmp_path / "bundle.tar"
    bundles.make(["mnist"], [], out, console=Console("test"), **options)
    return out


def members(path):
    with tarfile.open(path) as tar:
        return tar.getnames()


def test_digits_are_compared_with_what_the_installer_wrote_down(monkeypatch, tmp_path):
    assert cache.verify("digits").state == "whole"
    place = put(tmp_path / "sklearn", {"digits.csv.gz": b"other"})
    monkeypatch.setattr(named, "_digits_folder", lambda: place)
    assert cache.verify("digits").state == "damaged"


def test_a_flipped_bit_a_cut_and_a_missing_file_are_found(home):
    assert cache.verify("mnist").state == "absent"
    folder = put(home / "mnist")
    assert cache.verify("mnist").state == "whole"
    first, second, *_ = sorted(CONTENTS)
    flipped = bytearray(CONTENTS[first])
    flipped[20] ^= 1
    (folder / first).write_bytes(flipped)
    (folder / second).write_bytes(CONTENTS[second][:30])
    problems = cache.verify("mnist").problems
    assert "content has changed" in problems[0]
    assert f"cut off: 30 of {len(CONTENTS[second])}" in problems[1]
    (folder / second).unlink()
    assert cache.verify("mnist").state == "damaged"


def test_what_is_packed_otherwise_outside_the_cache_is_not_called_damaged(tmp_path):
    other = {name: gzip.compress(gzip.decompress(data), 1) for name, data in CONTENTS.items()}
    folder = put(tmp_path / "MNIST" / "raw", other)
    assert cache.verify("mnist", tmp_path).state == "unknown"
    name = sorted(other)[0]
    (folder / name).write_bytes(other[name][:-3])
    assert cache.verify("mnist", tmp_path).state == "damaged"


def test_leftovers_are_broken_downloads_and_dead_processes_files_only(home):
    from filelock import FileLock

    folder = put(home / "mnist")
    for name in ("a.gz.part", "b.gz.part", f".c{cache.files.TEMPORARY}999999999-ab"):
        (folder / name).write_bytes(b"123")
    with FileLock(folder / "b.gz.lock"):
        found = [entry.path.name for entry in cache.leftovers()]
    assert sorted(found) == [f".c{cache.files.TEMPORARY}999999999-ab", "a.gz.part"]
    assert [entry.name for entry in cache.entries()] == ["mnist"]
    with pytest.raises(ConfigError, match="mnits"):
        cache.chosen(["mnits"])


def test_a_bundle_brings_data_and_weights_to_another_machine(home, tmp_path, monkeypatch):
    put(home / "mnist")
    weights = put(tmp_path / "net", {"model.safetensors": b"w" * 1000})
    (weights / "sub").mkdir()
    (weights / "sub" / "vocab.txt").write_text("a\n")
    out = tmp_path / "bundle.tar"
    bundles.make(["mnist", "digits"], [weights], out, console=Console("test"))
    again = tmp_path / "again.tar"
    bundles.make(["mnist"], [weights], again, console=Console("test"))
    names = members(out)
    assert names == members(again)
    assert "weights/net/sub/vocab.txt" in names
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "other"))
    for was_here in (False, True):
        found = bundles.unpack(out, tmp_path / "weights", Console("test"))
        assert [each["was_here"] for each in found] == [was_here, was_here]
    assert cache.verify("mnist").state == "whole"
    assert (tmp_path / "weights" / "net" / "model.safetensors").read_bytes() == b"w" * 1000
    assert not [path for path in cache.root().iterdir() if path.name.startswith(".")]
    (tmp_path / "weights" / "net" / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(DltoolError, match="holds something else"):
        bundles.unpack(out, tmp_path / "weights", Console("test"))


def rewritten(bundle, out, change):
    """Write a bundle again after `change(name, data)`, which returns other data or None."""
    with tarfile.open(bundle) as old, tarfile.open(out, "w") as new:
        for member in old:
            data = change(member.name, old.extractfile(member).read())
            if data is not None:
                entry = tarfile.TarInfo(member.name)
                entry.size = len(data)
                new.addfile(entry, io.BytesIO(data))
    return out


def edited(**changes):
    return lambda name, data: (
        json.dumps({**json.loads(data), **changes}).encode() if name == bundles.INDEX else data
    )


EVIL = [{"kind": "data", "name": "../evil", "files": {"a": {"bytes": 1, "sha256": "0"}}}]
DAMAGES = {
    "changed": (lambda name, data: data[:-1] + b"x", "damaged"),
    "missing": (lambda name, data: None if "t10k-labels" in name else data, "is missing"),
    "no index": (lambda name, data: None if name == bundles.INDEX else data, "no bundle"),
    "newer": (edited(format=99), "newer dltool"),
    "lists nothing": (edited(members=[]), "lists no files"),
    "leaves its folder": (edited(members=EVIL), "not as it should"),
    "is no text": (edited(members=3), "cannot be read"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_bundle_that_is_not_what_it_says_changes_nothing(kind, home, tmp_path, monkeypatch):
    put(home / "mnist")
    change, message = DAMAGES[kind]
    bad = rewritten(packed(tmp_path), tmp_path / "bad.tar", change)
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "other"))
    with pytest.raises(DataError, match=message):
        bundles.unpack(bad, tmp_path / "weights", Console("test"))
    assert list(cache.root().iterdir()) == []


def test_a_bundle_with_a_file_that_its_index_does_not_name_is_refused(home, tmp_path):
    put(home / "mnist")
    out = packed(tmp_path)
    with tarfile.open(out, "a") as tar:
        tar.addfile(tarfile.TarInfo("data/mnist/extra"))
    with pytest.raises(DataError, match="is not in its"):
        bundles.unpack(out, tmp_path / "weights", Console("test"))


def test_a_bundle_needs_something_and_a_new_name(home, tmp_path):
    with pytest.raises(ConfigError, match="nothing to pack"):
        bundles.make(["digits"], [], tmp_path / "out.tar", console=Console("test"))
    with pytest.raises(DataError, match="no weights"):
        bundles.make([], [tmp_path / "gone"], tmp_path / "out.tar", console=Console("test"))
    (tmp_path / "out.tar").write_bytes(b"")
    with pytest.raises(DltoolError, match="exists already"):
        bundles.make(["digits"], [], tmp_path / "out.tar", console=Console("test"))


def test_the_commands_tell_exit_codes_and_ask(home, dltool, environment, work):
    dltool("data", "verify", "mnist", code=6)
    folder = put(work.parent / "home" / "data" / "mnist", {"x.gz.part": b"12345"})
    assert dltool("data", "prune", code=2).err.count("Nobody is here to answer") == 1
    assert dltool("data", "prune", "--yes", "--json").json()["data"]["bytes"] == 5
    assert folder.is_dir()
    dltool("data", "prune", "mnist", "--yes")
    assert not folder.exists()
    dltool("data", "bundle", "mnist", "--out", "b.tar", code=5)
    dltool("data", "unbundle", "nowhere.tar", code=5)
    assert dltool("data", "info", "mnist", "--json").json()["data"]["classes"][9] == "9"


def test_verify_says_no_with_every_finding(home, monkeypatch):
    from dltool.commands.data import verify

    folder = put(home / "mnist")
    for name in CONTENTS:
        (folder / name).write_bytes(b"")
    with pytest.raises(CheckFailed, match="and 3 more"):
        verify(["mnist"], None, False)
