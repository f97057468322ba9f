"""Bundles: data sets and weights in one tar file, for a machine that is never online.

A bundle holds `bundle.json` first, then `data/NAME/…` and `weights/NAME/…`. `bundle.json` names
every file with its size and SHA-256; what it does not name, or names otherwise, is refused.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import __version__, environment, files
from dltool.console import Console
from dltool.data import archives, hashes, named
from dltool.data.cifar_files import BINARY_FOLDER, PICKLE_FOLDER
from dltool.data.download import cache_folder
from dltool.errors import ConfigError, DataError, DltoolError

FORMAT = 1
INDEX = "bundle.json"
KINDS = ("data", "weights")
PLAIN = "letters, digits, - _ . and no leading dot"


@dataclass(frozen=True)
class Member:
    """One data set or one folder of weights.

    Attributes:
        kind: `data` or `weights`.
        name: of the data set, or of the weights' folder or file.
        folder: where its files lie now.
        files: by their name below `folder`: the name below `data/NAME` in the bundle.
    """

    kind: str
    name: str
    folder: Path
    files: Mapping[str, str]


# ---- making one -----------------------------------------------------------------------------


def make(
    names: Sequence[str],
    weights: Sequence[Path],
    out: Path,
    *,
    data_root: Path | None = None,
    console: Console,
) -> dict[str, Any]:
    """Write named data sets and weights into the new tar file `out`; return its index.

    A data set that is not here is fetched first.

    Raises:
        ConfigError: E205, there is nothing to pack, or two weights have one name.
        DataError: E501, weights are not there; E504, a data set cannot be fetched.
        DltoolError: E101, `out` exists or cannot be written.
    """
    if out.exists():
        raise DltoolError("E101", f"{out} exists already", cure="name a new file with --out")
    members = [_of_data(name, data_root, console) for name in dict.fromkeys(names)]
    members += [_of_weights(path) for path in weights]
    members = [member for member in members if member.files]
    _refuse_doubles(members)
    size = sum((each.folder / name).stat().st_size for each in members for name in each.files)
    files.require_space(out.absolute().parent, size + (1 << 20), str(out))
    listed = []
    for member in members:
        found = hashes.hashed(member.folder, member.files)
        entries = {member.files[name]: entry for name, entry in found.items()}
        listed.append({"kind": member.kind, "name": member.name, "files": entries})
    index = {
        "format": FORMAT,
        "dltool": __version__,
        "created": environment.now(),
        "members": listed,
    }
    with files.explained(out):
        _write(members, index, out)
    return index


def _of_data(name: str, data_root: Path | None, console: Console) -> Member:
    data = named.known(name)
    if not data.files:
        console.note(f"{name} is inside a package that dltool needs: nothing to pack")
        return Member("data", name, Path(), {})
    place = named.where(name, data_root)
    if place is None and data_root is not None:
        raise DataError("E501", f"{data_root} does not hold {name}", cure="leave out --data-root")
    place = place or named.fetch_named(name, console)
    if name == "cifar10":
        # as the cache keeps it once it is unpacked
        inside = place.name if place.name in (BINARY_FOLDER, PICKLE_FOLDER) else BINARY_FOLDER
        found = [path.name for path in sorted(place.iterdir()) if path.is_file()]
        return Member(
            "data", name, place, {file: f"{named.UNPACKED}/{inside}/{file}" for file in found}
        )
    wanted = [path.name for path in named.idx_files(place)]
    return Member("data", name, place, {file: file for file in wanted})


def _of_weights(path: Path) -> Member:
    path = path.absolute()
    if path.is_file():
        return Member("weights", path.stem, path.parent, {path.name: path.name})
    if not path.is_dir():
        raise DataError("E501", f"there are no weights at {path}", cure="check the path")
    inner = path / "model" if (path / "run.json").exists() else path
    if not inner.is_dir():
        raise DataError(
            "E501", f"{path} is a run without a finished model", cure=f"dltool resume {path}"
        )
    found = hashes.below(inner)
    if not found:
        raise DataError("E501", f"the folder {inner} is empty", cure="check the path")
    return Member("weights", path.name, inner, {name: name for name in found})


def _refuse_doubles(members: Sequence[Member]) -> None:
    if not members:
        raise ConfigError(
            "E205", "there is nothing to pack", cure="name a data set, or weights with --weights"
        )
    seen: set[tuple[str, str]] = set()
    for member in members:
        if not _is_plain(member.name):
            raise ConfigError(
                "E202", "this name cannot be packed", received=member.name, expected=PLAIN
            )
        if (member.kind, member.name) in seen:
            raise ConfigError(
                "E205", f"two weights are called {member.name!r}", cure="rename one of the folders"
            )
        seen.add((member.kind, member.name))


def _write(members: Sequence[Member], index: Mapping[str, Any], out: Path) -> None:
    temporary = files.temporary_name(out)
    try:
        with temporary.open("wb") as stream:
            with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
                text = files.json_bytes(index)
                _add(tar, INDEX, io.BytesIO(text), len(text))
                for member in members:
                    for name, inside in member.files.items():
                        with (member.folder / name).open("rb") as source:
                            size = os.fstat(source.fileno()).st_size
                            place = f"{member.kind}/{member.name}/{inside}"
                            _add(tar, place, source, size)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    files.sync_folder(out.absolute().parent)


def _add(tar: tarfile.TarFile, name: str, source: Any, size: int) -> None:
    # no owner, no mode, no time: the same content gives the same bytes
    entry = tarfile.TarInfo(name)
    entry.size = size
    tar.addfile(entry, source)


# ---- unpacking one --------------------------------------------------------------------------


def unpack(bundle: Path, weights_folder: Path, console: Console) -> list[dict[str, Any]]:
    """Bring a bundle's data sets into the cache and its weights below `weights_folder`.

    Everything is unpacked aside and compared with the index first; then each data set and each
    folder of weights appears whole, or not at all. What is there already is left alone.

    Returns:
        For each member: kind, name, path, bytes and whether it was there already.

    Raises:
        DataError: E501 there is no such file; E502 it is no bundle or damaged; E505 it is unsafe.
        DltoolError: E101, it cannot be written.
    """
    cache = cache_folder("any").parent
    with files.explained(cache):
        cache.mkdir(parents=True, exist_ok=True)
    aside = files.temporary_name(cache / "bundle")
    try:
        archives.extract(bundle, aside)
        members = _checked(bundle, aside)
        targets = [_target(member, weights_folder) for member in members]
        for member, target in zip(members, targets, strict=True):
            _refuse_other(member, target)
        done = []
        for member, target in zip(members, targets, strict=True):
            _tell_unknown(member, console)
            done.append(_bring(member, aside / member["kind"] / member["name"], target, console))
        return done
    finally:
        files.remove(aside)


def _checked(bundle: Path, folder: Path) -> list[dict[str, Any]]:
    """Return the members of an unpacked bundle whose files are what its index says."""
    members = _index(bundle, folder)
    listed = {INDEX}
    for member in members:
        prefix = f"{member['kind']}/{member['name']}"
        found = hashes.problems(folder / prefix, member["files"])
        if found:
            raise _damaged(bundle, found[0].replace(f"{folder}{os.sep}", ""))
        listed.update(f"{prefix}/{name}" for name in member["files"])
    extra = sorted(set(hashes.below(folder)) - listed)
    if extra:
        raise _damaged(bundle, f"{extra[0]} is not in its {INDEX}")
    return members


def _index(bundle: Path, folder: Path) -> list[dict[str, Any]]:
    path = folder / INDEX
    if not path.is_file():
        raise DataError(
            "E502",
            f"{bundle} is an archive, but no bundle: it has no {INDEX}",
            cure="make one: dltool data bundle NAME --out FILE",
        )
    try:
        index = json.loads(files.read_limited(path, 64 << 20))
        newer = int(index["format"]) > FORMAT
        members = [dict(member) for member in index["members"]]
        whole = all(_is_member(member) for member in members)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(bundle, f"its {INDEX} cannot be read") from error
    if newer:
        raise DataError(
            "E502", f"{bundle} was made by a newer dltool", cure="pip install -U dltool"
        )
    if not whole or not members:
        raise _damaged(bundle, f"its {INDEX} lists no files, or not as it should")
    return members


def _is_member(member: Mapping[str, Any]) -> bool:
    return (
        member["kind"] in KINDS
        and _is_plain(member["name"])
        and bool(member["files"])
        and all(
            ".." not in archives.member_parts(name)
            and not name.startswith("/")
            and type(entry["bytes"]) is int
            and isinstance(entry["sha256"], str)
            for name, entry in member["files"].items()
        )
    )


def _is_plain(name: object) -> bool:
    if not isinstance(name, str) or not 0 < len(name) <= 200 or name.startswith("."):
        return False
    return all(letter.isalnum() or letter in "-_." for letter in name)


def _tell_unknown(member: Mapping[str, Any], console: Console) -> None:
    """Say for which files of a known data set only the bundle vouches, not their makers."""
    known = named.NAMED.get(member["name"]) if member["kind"] == "data" else None
    if known is None:
        return
    sources = {name: known.files.get(name) for name in member["files"]}
    other = [
        name
        for name, source in sources.items()
        if source is None or source.checksum != f"sha256:{member['files'][name]['sha256']}"
    ]
    if other:
        console.note(
            f"{member['name']}: {len(other)} files, as {other[0]}, are not in the form that their "
            "makers offer; only the bundle vouches for them"
        )


def _target(member: Mapping[str, Any], weights_folder: Path) -> Path:
    if member["kind"] == "data":
        return cache_folder(member["name"])
    return weights_folder / str(member["name"])


def _refuse_other(member: Mapping[str, Any], target: Path) -> None:
    """Refuse to write over weights that are others; data in the cache can be fetched again."""
    if member["kind"] == "weights" and target.exists() and hashes.problems(target, member["files"]):
        raise DltoolError(
            "E101",
            f"{target} exists already and holds something else",
            cure="choose another folder with --out",
        )


def _bring(
    member: Mapping[str, Any], source: Path, target: Path, console: Console
) -> dict[str, Any]:
    is_here = target.is_dir() and not hashes.problems(target, member["files"])
    if not is_here:
        _place(member, source, target)
    size = sum(entry["bytes"] for entry in member["files"].values())
    if member["kind"] == "data" and member["name"] not in named.NAMED:
        console.warn(f"this dltool knows no data set named {member['name']!r}; it lies at {target}")
    return {
        "kind": member["kind"],
        "name": member["name"],
        "path": str(target),
        "bytes": size,
        "was_here": is_here,
    }


def _place(member: Mapping[str, Any], source: Path, target: Path) -> None:
    if member["kind"] == "data":
        named.write_receipt(source)
    with files.explained(target), files.folder_written_atomically(target) as temporary:
        for name in hashes.below(source):
            place = temporary / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(source / name, place)  # weights may go to another disk


def _damaged(bundle: Path, reason: str) -> DataError:
    return DataError("E502", f"{bundle} is damaged: {reason}", cure="copy or make the bundle again")
