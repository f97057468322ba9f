"""`dltool checkpoint`: what a checkpoint or model folder holds, and whether it is whole."""

from __future__ import annotations

import json as jsonlib
import struct
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import files, options
from dltool.console import Console, table
from dltool.errors import CheckFailed, CheckpointError, DltoolError

HEADER_LIMIT = 100 << 20
FolderArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", help="A run, checkpoint or model folder, or a .safetensors file."
    ),
]

app = typer.Typer(
    help="Look into checkpoints and verify them.",
    no_args_is_help=True,
    context_settings=options.HELP,
)


@app.callback()
def root() -> None:
    """Look into checkpoints and verify them."""


@app.command()
def info(
    path: FolderArgument,
    parameters: Annotated[bool, typer.Option("--parameters", help="List every tensor.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Show the files, the position in training and the tensors, without loading them."""
    console = Console("checkpoint info", json=json)
    described = [_describe(folder) for folder in _folders(path)]
    lines = []
    for item in described:
        lines.append(f"{item['path']}: {item['tensors']} tensors, {item['values']:,} values")
        lines += [f"  {key}: {value}" for key, value in item["state"].items()]
        if parameters:
            rows = [[t["name"], t["dtype"], t["shape"]] for t in item["parameters"]]
            lines.append(table(rows, ["tensor", "dtype", "shape"]))
    if not parameters:
        for item in described:
            item.pop("parameters")
    console.result({"checkpoints": described}, "\n".join(lines))


@app.command()
def verify(path: FolderArgument, json: options.JsonOption = False) -> None:
    """Check size and SHA-256 of every file; exit 6 when one does not hold."""
    console = Console("checkpoint verify", json=json)
    folders = _folders(path)
    console.loading()
    from dltool import checkpoint

    results, first = [], None
    for folder in folders:
        problem = ""
        try:
            checkpoint.verify(folder)
        except DltoolError as error:
            problem, first = error.message, first or error
        results.append({"path": str(folder), "ok": not problem, "problem": problem})
    lines = [
        f"{'ok  ' if r['ok'] else 'FAIL'} {r['path']} {r['problem']}".rstrip() for r in results
    ]
    if first is None:
        console.result({"checkpoints": results}, "\n".join(lines))
        return
    if not json:
        console.result({}, "\n".join(lines))
    raise CheckFailed("E601", first.message, cure=first.cure)


def _folders(path: Path) -> list[Path]:
    """Return the checkpoint and model folders that a path stands for."""
    if not path.exists():
        raise CheckpointError("E501", f"there is nothing at {path}", cure="check the path")
    if path.is_file() or (path / "MANIFEST.json").exists():
        return [path]
    inner = sorted((path / "checkpoints").glob("step-*")) if path.is_dir() else []
    found = [*inner, path / "checkpoints" / "best", path / "model"]
    found = [folder for folder in found if folder.is_dir()]
    # a folder that holds tensors but no manifest is a damaged checkpoint, not none
    if not found and list(path.glob("*.safetensors")):
        return [path]
    if not found:
        raise CheckpointError(
            "E511", f"{path} holds no checkpoint", cure="name a run, checkpoint or model folder"
        )
    return found


def _describe(path: Path) -> dict[str, Any]:
    weights = path if path.is_file() else path / "model.safetensors"
    tensors = read_header(weights)
    state: dict[str, Any] = {}
    for name in ("state.json", "model.json"):
        if path.is_dir() and (path / name).exists():
            state = _read(path / name)
    return {
        "path": str(path),
        "bytes": weights.stat().st_size,
        "tensors": len(tensors),
        "values": sum(tensor["values"] for tensor in tensors),
        "state": state.get("state", {k: state[k] for k in ("topic", "classes") if k in state}),
        "parameters": tensors,
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        value = jsonlib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "E512", f"{path} {files.describe_damage(path)}", cure="use an older checkpoint"
        ) from error
    return value if isinstance(value, dict) else {}


def read_header(path: Path) -> list[dict[str, Any]]:
    """Return name, dtype and shape of the tensors in a safetensors file, without torch.

    Raises:
        CheckpointError: it is no such file.
    """
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(HEADER_LIMIT, path.stat().st_size - 8):
                raise ValueError("the header is longer than the file")
            header = jsonlib.loads(stream.read(length))
        return [_tensor(name, item) for name, item in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise CheckpointError(
            "E512", f"{path} {files.describe_damage(path)}", cure="use an older checkpoint"
        ) from error


def _tensor(name: str, item: dict[str, Any]) -> dict[str, Any]:
    shape = [int(side) for side in item["shape"]]
    values = 1
    for side in shape:
        values *= side
    return {"name": name, "dtype": str(item["dtype"]), "shape": shape, "values": values}
