"""What every command prints with --json: samples, and the schemas written down from them.

    python tests/outputs.py --write            run all samples, renew outputs.json of each package
    python tests/outputs.py --write CORE       only those that are quick

Keys that all samples of a command have are required; further ones may come at any time. A text, a
number or an object may also be null.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
# the topics' samples; each runs in one folder, in this order
CORE = [
    "topics",
    "data list",
    "data info digits",
    "data path digits",
    "data fetch digits",
    "data verify digits",
    "data prune",
    "explain E501",
    "explain",
    "plugin list",
    "plugin info cnn",
    "plugin disable gpu",
    "plugin enable gpu",
    "plugin freeze",
    "config init cnn",
    "config init linreg --out dltool.toml",
    "config check dltool.toml",
    "config show cnn",
    "schema",
    "schema cnn train",
    "tensor-ops list",
    "tensor-ops broadcast 3x1 4",
    "tensor-ops shape --in 8x8 --kernel 3",
    "gpu info",
]
TRAINED = [
    "linreg train --out one",
    "linreg evaluate one",
    "linreg info one",
    "mlp-xor train --task circles --epochs 3 --out three",
    "mlp-xor train --dry-run",
    "mlp-xor evaluate three",
    "mlp-xor info three",
    "mlp-xor predict three 0.1,0.2",
    "cnn train --model linear --epochs 1 --out five",
    "cnn info five",
    "cnn predict five {root}/examples/digits",
    "runs list --root .",
    "runs show three",
    "checkpoint info three",
    "checkpoint verify three",
    "checkpoint prune three --keep 2 --yes",
    "resume three",
    "data bundle --weights three --out bundle.tar",
    "data unbundle bundle.tar --out weights",
    "tensor-ops show broadcast",
]
# in the same folder, after those
MORE = [
    "linreg train --data diabetes --solver nn --epochs 20 --out two",
    "linreg plot one",
    "mlp-xor train --task sign --epochs 1 --hidden none --out four",
    "mlp-xor plot three",
    "cnn evaluate five",
    "runs best --root . --topic mlp-xor",
    "runs diff one two",
    "runs compare three four",
    "checkpoint diff three/model four/model",
    "sweep linreg --set ridge=0,1 --data diabetes",
    "tensor-ops run broadcast",
    "tensor-ops check broadcast",
    "doctor",
    "cnn models",
    "cnn summary lenet",
    "cnn data digits",
    "cnn export five",
    "cnn bench five",
    "linreg demo sweep",
    "linreg demo descent",
    "linreg demo schedules",
    "linreg demo batches",
    "linreg demo optimizers",
    "linreg demo polynomial",
    "linreg demo weight-decay",
    "linreg demo dropout",
    "linreg demo initialisation",
    "plugin check cnn",
    "plugin doctor cnn",
    "plugin new weather",
    "runs note three hello",
    "runs plot three",
    "runs report three --out report.html",
    "runs export three --out metrics.csv",
    "runs rm four --yes",
    "reproduce one",
    "gpu test",
    "gpu budget resnet18",
    "seq2seq attention-demo pooling",
    "seq2seq attention-demo masks",
    "seq2seq attention-demo additive",
    "seq2seq attention-demo dot",
    "seq2seq attention-demo multihead",
    "seq2seq attention-demo positions",
    "seq2seq attention-demo masked-loss",
]
LONG = [
    "seq2seq train --epochs 1 --samples 500 --width 16 --layers 1 --out six",
    "seq2seq evaluate six",
    "seq2seq info six",
    "seq2seq translate six 1+1",
    "seq2seq attention six 1+1",
    "seq2seq trace six 1+1",
    "word2vec train --epochs 2 --dim 16 --workers 1 --out seven",
    "word2vec similar seven the",
    "word2vec analogy seven the - of + and",
    "word2vec odd-one-out seven the of and",
    "word2vec vector seven the",
    "word2vec vocab seven",
    "word2vec info seven",
    "word2vec export seven vectors.txt",
    "word2vec quantize seven small",
    "word2vec import vectors.txt --out imported",
    "word2vec text-similar seven market government",
    "word2vec plot seven",
    "bert-finetune pretrain --epochs 1 --max-documents 40 --size tiny --out ten",
    "bert-finetune train --data reviews --max-train 64 --epochs 1 --out eight",
    "bert-finetune evaluate eight",
    "bert-finetune predict eight good",
    "bert-finetune info eight",
    "bert-finetune explain eight good",
    "bert-finetune encode eight good",
    "bert-finetune similarity eight good bad",
    "bert-finetune tokens eight good",
    "bert-finetune export eight",
    "detect train --data shapes --epochs 1 --out nine",
    "detect info",
    "detect nms",
    "detect anchors",
    "detect data shapes",
    "detect evaluate nine",
    "detect predict {root}/examples/digits --out found",
    "detect export nine --out nine.pt2",
]


def answer(line: str) -> dict:
    """Run one command here and return the object that it printed.

    Raises:
        AssertionError: it printed something else beside it.
    """
    from dltool import cli

    words = [word.format(root=ROOT) for word in line.split()]
    printed = io.StringIO()
    before = sys.argv
    sys.argv = ["dltool", *words, "--json"]
    try:
        with contextlib.redirect_stdout(printed):
            cli.run(sys.argv[1:])
    finally:
        sys.argv = before
    text = printed.getvalue()
    assert text.count("\n") == 1, text
    return json.loads(text)


def name_of(line: str) -> tuple[str, str]:
    """Return the topic and the verb of a command line."""
    from dltool import tree

    words = line.split()
    found, verb = tree.root(words[0]), []
    for word in words[1:]:
        inner = getattr(found, "commands", {}).get(word)
        if inner is None:
            break
        found = inner
        verb.append(word)
    return words[0], " ".join(verb)


def schema_of(samples: list[dict]) -> dict:
    """Return what is common to several results."""
    shared = set.intersection(*(set(sample) for sample in samples))
    names = [name for name in samples[0] if name in shared]
    properties = {name: merged([sample[name] for sample in samples]) for name in names}
    return {"type": "object", "required": names, "properties": properties}


def merged(values: list, depth: int = 0) -> dict:
    """Return the type that values have in common."""
    present = [value for value in values if value is not None]
    if not present:
        return {}
    kinds = {kind(value) for value in present}
    if kinds == {"integer", "number"}:
        kinds = {"number"}
    if len(kinds) > 1:
        return {}
    only = kinds.pop()
    if only == "array":
        items = [item for value in present for item in value]
        inner = merged(items, depth + 1) if items and depth == 0 else {}
        return {"type": "array", **({"items": inner} if inner else {})}
    if only == "object" and depth == 1 and len(present) > 1:
        return schema_of_rows(present)
    return {"type": only if only in ("array", "boolean") else [only, "null"]}


def schema_of_rows(rows: list[dict]) -> dict:
    """Return what the rows of a list have in common, two levels deep and no further."""
    shared = [name for name in rows[0] if all(name in row for row in rows)]
    properties = {name: merged([row[name] for row in rows], 2) for name in shared}
    return {"type": "object", "required": shared, "properties": properties}


def kind(value: object) -> str:
    """Return the JSON type of a value."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


def record(lines: list[str]) -> dict[tuple[str, str], list[dict]]:
    """Run samples in a folder of their own; return the results by command."""
    found: dict[tuple[str, str], list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(DLTOOL_HOME=f"{folder}/home", DLTOOL_OFFLINE="1")
        os.chdir(folder)
        for line in lines:
            told = answer(line)
            if told["status"] != "ok":
                print(f"FAILED {line}: {told['error']['message']}", file=sys.stderr)
                continue
            if "--dry-run" not in line:
                found.setdefault(name_of(line), []).append(told["data"])
        os.chdir(ROOT)
    return found


def write(groups: list[str]) -> None:
    """Write down the outputs of samples beside each package; others stay as they are."""
    from dltool import schemas

    lines = [line for name in groups for line in globals()[name]]
    by_place: dict[Path, dict[str, dict]] = {}
    for (topic, verb), samples in record(lines).items():
        by_place.setdefault(schemas.place(topic), {})[verb] = schema_of(samples)
    for place, verbs in by_place.items():
        before = json.loads(place.read_text(encoding="utf-8")) if place.exists() else {}
        place.parent.mkdir(exist_ok=True)
        text = json.dumps(dict(sorted({**before, **verbs}.items())), indent=1, ensure_ascii=False)
        place.write_text(text + "\n", encoding="utf-8")
        print(place.relative_to(ROOT), ", ".join(verbs))


if __name__ == "__main__":
    if sys.argv[1:2] != ["--write"]:
        sys.exit("python tests/outputs.py --write [CORE] [TRAINED MORE] [LONG]")
    write(sys.argv[2:] or ["CORE", "TRAINED", "MORE", "LONG"])
