"""`dltool checkpoint`: look into checkpoints, verify, compare, convert and prune them."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dltool import files, headers, options, runs, stored
from dltool.console import Console, table
from dltool.errors import CheckFailed, CheckpointError, ConfigError, DltoolError
from dltool.headers import Entry

SHOWN = 20
FolderArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PATH", help="A run, checkpoint or model folder, or a .safetensors file."
    ),
]
LikeOption = Annotated[
    Path | None,
    typer.Option(help="Run, model folder or .safetensors file that names and shapes must fit."),
]

app = typer.Typer(
    help="Look into checkpoints, verify, compare, convert and prune them.",
    no_args_is_help=True,
    context_settings=options.HELP,
)


@app.callback()
def root() -> None:
    """Look into checkpoints, verify, compare, convert and prune them."""


@app.command()
def info(
    path: FolderArgument,
    parameters: Annotated[bool, typer.Option("--parameters", help="List every tensor.")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="Read the tensors: range, mean, deviation, NaN.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Show files, sizes, the position in training and the tensors, without loading them."""
    console = Console("checkpoint info", json=json)
    described = [_describe(folder) for folder in stored.folders_of(path)]
    if stats:
        console.loading()
        for item in described:
            _add_statistics(item)
    lines = []
    for item in described:
        lines.append(
            f"{item['path']}: {item['tensors']} tensors, {item['values']:,} values, "
            f"{_size(item['bytes'])}"
        )
        lines += [f"  {name}: {_size(size)}" for name, size in item["files"].items()]
        lines += [f"  {key}: {value}" for key, value in item["state"].items()]
        if parameters or stats:
            lines.append(_parameter_table(item["parameters"]))
    if not parameters and not stats:
        for item in described:
            item.pop("parameters")
    console.result({"checkpoints": described}, "\n".join(lines))


@app.command()
def verify(path: FolderArgument, json: options.JsonOption = False) -> None:
    """Check size and SHA-256 of every file; exit 6 when one does not hold."""
    console = Console("checkpoint verify", json=json)
    folders = stored.folders_of(path)
    console.loading()
    from dltool import checkpoint

    results, first = [], None
    for folder in folders:
        problem = ""
        try:
            # a single file has no manifest: its header must at least fit its size
            checkpoint.verify(folder) if folder.is_dir() else headers.read(folder)
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


@app.command()
def diff(a: FolderArgument, b: FolderArgument, json: options.JsonOption = False) -> None:
    """Compare two checkpoints: tensors, shapes, values, state; exit 6 when they differ.

    A run stands for its newest step checkpoint.
    """
    console = Console("checkpoint diff", json=json)
    left, right = stored.one_of(a), stored.one_of(b)
    console.loading()
    from dltool import differences

    contents = [_content(path) for path in (left, right)]
    tensors = differences.diff_tensors(contents[0][0], contents[1][0])
    # a single file holds no state to compare with
    both = left.is_dir() and right.is_dir()
    values = differences.diff_values(contents[0][1], contents[1][1]) if both else []
    result = {"a": str(left), "b": str(right), "tensors": tensors, "values": values}
    if not tensors and not values:
        count = len(contents[0][0])
        console.result({**result, "equal": True}, f"equal: {count} tensors, bit for bit")
        return
    console.result({**result, "equal": False}, "\n".join(_difference_lines(tensors, values)))
    if json:
        raise typer.Exit(CheckFailed.exit_code)  # stdout has its one object already
    raise CheckFailed(
        "E601",
        f"{left} and {right} differ: {len(tensors)} tensors, {len(values)} other values",
        cure=f"look closer: dltool checkpoint info {left} --stats",
    )


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help=".pt, .pth, .th, .ckpt, .bin or .safetensors.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A .safetensors file, or a folder to make.")
    ],
    key: Annotated[
        str | None, typer.Option(help="Where the weights are, such as ema or model.state_dict.")
    ] = None,
    strip_prefix: Annotated[
        str | None, typer.Option(help="Take this off names [default: module., model. and such].")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(metavar="OLD=NEW", help="Replace OLD in names; ^OLD only at the beginning."),
    ] = None,
    like: LikeOption = None,
    report: Annotated[bool, typer.Option("--report", help="List every name, old and new.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Bring foreign weights to safetensors, running no code that the file brings."""
    console = Console("checkpoint convert", json=json)
    pairs = [_renaming(text) for text in rename or []]
    target = stored.shapes_of(like) if like else None
    console.loading()
    from dltool import convert as converting
    from dltool import tensors

    mapped = converting.load_foreign(
        source, key=key, strip_prefix=strip_prefix, rename=pairs, target=target
    )
    fit = converting.compare(mapped.tensors, target) if target is not None else None
    listed = [
        {"name": new, "from": old, "shape": list(mapped.tensors[new].shape)}
        for new, old in mapped.names.items()
    ]
    text = table([[i["from"], i["name"], i["shape"]] for i in listed], ["in the file", "name", ""])
    if fit is not None and not fit.is_exact:
        if report and not json:
            console.result({}, text)
        raise CheckpointError(
            "E513",
            f"{source} does not fit {like}: {fit.text()}; nothing was written",
            cure="see --report, and mend names with --strip-prefix, --rename or --key",
        )
    strange = tensors.non_finite(mapped.tensors)
    if strange:
        console.warn(f"{len(strange)} tensors hold NaN or infinity: {', '.join(strange[:3])}")
    written = converting.write(mapped, source, out)
    result = {
        "out": str(out),
        "tensors": len(listed),
        "key": mapped.key,
        "other_keys": mapped.other_keys,
        "stripped": mapped.stripped,
        "left_out": mapped.left_out,
        "fits": str(like) if like else None,
        "mapping": listed,
        **written,
    }
    console.result(result, _converted(result, text if report else ""))
    console.hint(f"dltool checkpoint info {out}")


@app.command()
def prune(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    keep: Annotated[int, typer.Option(min=1, help="Step checkpoints to keep.")],
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    json: options.JsonOption = False,
) -> None:
    """Remove a run's older step checkpoints; the newest that verify and the best stay."""
    console = Console("checkpoint prune", json=json)
    run_id = runs.read_json(run).get("id")
    console.loading()
    from dltool import checkpoint

    with runs.locked(run):
        old, notes = checkpoint.superfluous(run / "checkpoints", keep, run_id)
        for note in notes:
            console.warn(note)
        size = sum(_bytes_below(path) for path in old)
        names = [path.name for path in old]
        question = f"remove {len(old)} checkpoints ({_size(size)}): {', '.join(names[:5])}?"
        if old and not yes and not _agreed(question, json=json):
            console.result({"removed": [], "bytes": 0}, "nothing was removed")
            return
        for path in old:
            files.discard(path)
    console.result(
        {"removed": names, "bytes": size}, f"removed {len(old)} checkpoints, {_size(size)}"
    )


def _agreed(question: str, *, json: bool) -> bool:
    if json or not sys.stdin.isatty():
        raise ConfigError("E201", f"{question} Nobody is here to answer", cure="add --yes")
    return bool(typer.confirm(question, err=True))


def _content(path: Path) -> tuple[dict[str, Any], Any]:
    """Return every tensor below a file or verified folder, and the plain values beside them."""
    from dltool import checkpoint, tensors

    if path.is_file():
        headers.read(path)
        return tensors.read(path), {}
    manifest = checkpoint.verify(path)
    found: dict[str, Any] = {}
    for name in manifest["files"]:
        if name.endswith(".safetensors"):
            place = "" if name == "model.safetensors" else name.partition(".")[0] + "/"
            part = tensors.read(path / name)
            found |= {f"{place}{key}": value for key, value in part.items()}
    return found, stored.document(path)


def _difference_lines(tensors: list[dict[str, Any]], values: list[dict[str, Any]]) -> list[str]:
    lines = []
    for item in tensors[:SHOWN]:
        text = f"{item['tensor']}: {item['kind']}"
        if "a" in item:
            text += f" {item['a']} and {item['b']}"
        if "of" in item:
            text += (
                f", {item['different']:,} of {item['of']:,} differ, "
                f"by {_amount(item['max_absolute'])} at most "
                f"({_amount(item['max_relative'])} relative)"
            )
        lines.append(text)
    lines += [f"{item['value']}: {item['a']} and {item['b']}" for item in values[:SHOWN]]
    more = max(len(tensors) - SHOWN, 0) + max(len(values) - SHOWN, 0)
    return [*lines, f"and {more} more"] if more else lines


def _amount(value: float | None) -> str:
    return "NaN or infinity" if value is None else f"{value:.3g}"


def _renaming(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not equals or not old:
        raise ConfigError("E202", "--rename is not understood", received=text, expected="OLD=NEW")
    return old, new


def _converted(result: dict[str, Any], report: str) -> str:
    lines = [report] if report else []
    lines.append(f"{result['tensors']} tensors to {result['out']}")
    if result["key"]:
        lines.append(f"found under {result['key']!r}")
    if result["other_keys"]:
        lines.append(f"other weights in the file: {', '.join(result['other_keys'])} (--key)")
    if result["stripped"]:
        lines.append(f"stripped {', '.join(result['stripped'])}")
    if result["left_out"]:
        names = ", ".join(result["left_out"][:5])
        lines.append(f"left out, no tensors: {len(result['left_out'])} ({names})")
    if result["fits"]:
        lines.append(f"names and shapes fit {result['fits']}")
    return "\n".join(lines)


def _describe(path: Path) -> dict[str, Any]:
    weights = path if path.is_file() else path / "model.safetensors"
    entries = headers.read(weights)
    state = stored.document(path) if path.is_dir() else {}
    parts = {} if path.is_file() else {p.name: p.stat().st_size for p in sorted(path.iterdir())}
    return {
        "path": str(path),
        "bytes": sum(parts.values()) or weights.stat().st_size,
        "files": parts,
        "tensors": len(entries),
        "values": sum(entry.values for entry in entries),
        "state": state.get("state", {k: state[k] for k in ("topic", "classes") if k in state}),
        "parameters": [_parameter(entry) for entry in entries],
    }


def _parameter(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "dtype": entry.dtype,
        "shape": list(entry.shape),
        "values": entry.values,
        "bytes": entry.bytes,
    }


def _add_statistics(item: dict[str, Any]) -> None:
    """Read one tensor at a time, so that memory holds no more than the largest."""
    from safetensors import safe_open

    from dltool import differences

    path = Path(item["path"])
    weights = path if path.is_file() else path / "model.safetensors"
    with safe_open(weights, framework="pt") as opened:
        for parameter in item["parameters"]:
            parameter |= differences.statistics(opened.get_tensor(parameter["name"]))


def _parameter_table(parameters: list[dict[str, Any]]) -> str:
    names = ["name", "dtype", "shape", "bytes"]
    extra = [n for n in ("min", "max", "mean", "std", "non_finite") if n in (parameters or [{}])[0]]
    rows = [
        [p[n] for n in names] + [p[n] if n == "non_finite" else _number(p[n]) for n in extra]
        for p in parameters
    ]
    return table(rows, ["tensor", *names[1:], *extra])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _size(count: int) -> str:
    power = min(int(math.log(max(count, 1), 1000)), 4)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
