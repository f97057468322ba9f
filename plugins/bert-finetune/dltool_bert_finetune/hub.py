"""Find a pretrained model: a folder in the layout of the Hub, a run of ours, or a name on the Hub.

Everything after this file works on folders and opens no connection.
"""

from __future__ import annotations

import json
import os
import re
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import files, headers
from dltool.console import Console
from dltool.data.download import is_offline
from dltool.errors import CheckpointError, ConfigError, DataError, DltoolError, Interrupted
from dltool_bert_finetune import library

WAIT_SECONDS = 2.0
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model")
UNWANTED = ("onnx/*", "openvino/*", "*/*.safetensors")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "pytorch_model.pt")
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """Where a model comes from: its folder, how the user called it, and the commit on the Hub."""

    folder: Path
    name: str
    revision: str = ""


def find(name: str, revision: str, console: Console) -> Source:
    """Return the folder of a model that a user names.

    Raises:
        CheckpointError: the folder is no model, or holds pickled weights only.
        DataError: E501, neither a folder nor a model on the Hub; E504, the Hub cannot be reached.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        inner = path / "model" if (path / "run.json").exists() else path
        if revision:
            raise ConfigError("E205", "--revision belongs to a name on the Hub, not to a folder")
        check_folder(inner, name)
        return Source(inner, name)
    if path.exists() or not _is_name(name):
        problem = "is a file, not a folder" if path.exists() else "is not there"
        raise DataError(
            "E501",
            f"the model folder {name!r} {problem}",
            expected="a folder with config.json, model.safetensors and tokenizer.json",
            cure="check the path",
        )
    return _from_hub(name, revision, console)


def expect(name: str, revision: str) -> None:
    """See, before anything large is loaded, whether a model that is no folder can be had at all.

    Raises:
        DataError: E501, the Hub does not know it; E504, the Hub cannot be reached.
    """
    if Path(name).expanduser().exists() or not _is_name(name):
        return
    hub = library.load("huggingface_hub")
    if _cached(hub, name, _wanted(revision)) is None:
        _knock(hub, name, revision)


def _is_name(name: str) -> bool:
    return not name.startswith((".", "~", "/")) and NAME.fullmatch(name) is not None


def check_folder(folder: Path, name: str) -> dict[str, Any]:
    """Look at the files of a model folder before a library does; return its config.

    Raises:
        CheckpointError: E511, something is missing; E512, a file is damaged; E513, only pickled
            weights.
    """
    config = folder / "config.json"
    if not config.is_file():
        unfinished = (folder.parent / "run.json").exists() and not folder.is_dir()
        problem = "is a run that is not finished" if unfinished else "holds no config.json"
        raise CheckpointError(
            "E511",
            f"{name} {problem}",
            expected="a model folder in the layout of the Hub: config.json, model.safetensors, "
            "tokenizer.json",
            cure="name such a folder with --model",
        )
    try:
        settings = json.loads(files.read_limited(config))
    except (OSError, ValueError, RecursionError) as error:
        raise headers.damaged(config, files.describe_damage(config)) from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise CheckpointError("E513", f"{config} names no model_type", cure="restore the file")
    _check_weights(folder, name)
    return settings


def _check_weights(folder: Path, name: str) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = [file for file in PICKLES if (folder / file).exists()]
        if pickled:
            raise CheckpointError(
                "E513",
                f"{name} holds its weights as a pickle only ({pickled[0]}), which could run any "
                "code when it is opened",
                expected="model.safetensors",
                cure=f"dltool checkpoint convert {folder / pickled[0]} "
                f"{folder / 'model.safetensors'}",
            )
        raise CheckpointError(
            "E511", f"{name} holds no weights", expected="model.safetensors", cure="check the path"
        )
    for path in weights:
        headers.read(path)
    if not any((folder / file).exists() for file in ("tokenizer.json", "vocab.txt", "spm.model")):
        known = ("tokenizer.model", "vocab.json", "sentencepiece.bpe.model")
        if not any((folder / file).exists() for file in known):
            raise CheckpointError(
                "E511", f"{name} holds no tokeniser", expected="tokenizer.json", cure="add the file"
            )


def _wanted(revision: str) -> dict[str, Any]:
    return {
        "revision": revision or None,
        "allow_patterns": list(WANTED),
        "ignore_patterns": list(UNWANTED),
    }


def _cached(hub: Any, name: str, wanted: dict[str, Any]) -> Path | None:
    """Return the folder of a model in the Hub's cache, or nothing where it may be fetched.

    Raises:
        DltoolError: it is not there, or not whole, and nothing may be fetched.
    """
    try:
        with library.quiet():
            folder = Path(hub.snapshot_download(name, local_files_only=True, **wanted))
        check_folder(folder, name)
        return folder
    except DltoolError as error:
        if _forbidden():
            raise error
    except Exception:  # the libraries' own errors say that the cache does not hold it
        if _forbidden():
            raise DataError(
                "E504",
                f"the model {name!r} is not in the cache of the Hub, and "
                f"{_forbidden()} forbids to fetch it",
                cure="name a folder that holds it: --model FOLDER",
            ) from None
    return None


def _from_hub(name: str, revision: str, console: Console) -> Source:
    hub = library.load("huggingface_hub")
    wanted = _wanted(revision)
    cached = _cached(hub, name, wanted)
    if cached is not None:
        return Source(cached, name, cached.name)
    _knock(hub, name, revision)
    console.note(f"fetching {name} from {hub.constants.ENDPOINT}")
    try:
        folder = Path(hub.snapshot_download(name, **wanted))
    except (KeyboardInterrupt, Interrupted):
        raise
    except Exception as error:
        raise _unreachable(name, hub, str(error).splitlines()[0][:200]) from None
    check_folder(folder, name)
    return Source(folder, name, folder.name)


def _forbidden() -> str:
    """Return what forbids to open a connection."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return "HF_HUB_OFFLINE"
    return "DLTOOL_OFFLINE" if is_offline() else ""


def _knock(hub: Any, name: str, revision: str) -> None:
    """Ask the Hub whether it has the model, and wait for no longer than a few seconds.

    A resolver that hangs cannot be told to stop: the question is asked in a thread of its own.
    """
    address = f"{hub.constants.ENDPOINT}/api/models/{name}"
    if revision:
        address += f"/revision/{revision}"
    answer: list[int | str] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(address, timeout=WAIT_SECONDS) as reply:
                answer.append(int(reply.status))
        except urllib.error.HTTPError as error:
            answer.append(error.code)
        except (OSError, ValueError) as error:
            answer.append(str(getattr(error, "reason", error)) or type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(WAIT_SECONDS + 0.5)
    reply = answer[0] if answer else f"no answer in {WAIT_SECONDS:g} s"
    if isinstance(reply, str):
        raise _unreachable(name, hub, reply)
    if reply in (401, 403, 404):
        what = "does not know" if reply == 404 else "does not show everyone"
        version = f" at revision {revision!r}" if revision else ""
        raise DataError(
            "E501",
            f"the Hub {what} the model {name!r}{version}, and no folder has this name",
            cure="check the name, or give a model folder: --model FOLDER",
        )


def _unreachable(name: str, hub: Any, reason: str) -> DataError:
    return DataError(
        "E504",
        f"the model {name!r} is no folder here, and the Hub at {hub.constants.ENDPOINT} cannot be "
        f"reached ({reason})",
        cure="name a folder that holds the model: --model FOLDER",
    )
