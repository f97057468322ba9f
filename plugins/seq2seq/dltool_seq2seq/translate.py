"""Use a trained model on texts: from the command line, a file, or a stream."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dltool import checkpoint, runs, trained
from dltool import device as devices
from dltool.console import Console
from dltool.data import texts as text_files
from dltool.errors import CheckpointError, ConfigError, DataError
from dltool_seq2seq import measure, tasks
from dltool_seq2seq.config import TASKS, TrainConfig
from dltool_seq2seq.decode import Found, Search
from dltool_seq2seq.model import Model, build, count_parameters
from dltool_seq2seq.spec import Spec
from dltool_seq2seq.vocab import Vocabulary

DESCRIPTION = checkpoint.DESCRIPTION
SORTED_TOGETHER = 8  # batches of a file
PIECE = 1 << 16  # bytes that are taken from a pipe at once


@dataclass(frozen=True)
class Translator:
    """A trained model with what it needs to be used right."""

    model: Model
    source: Vocabulary
    target: Vocabulary
    task: str
    reverse_source: bool
    reverse_target: bool
    description: dict[str, Any]

    def answers(
        self, sources: Sequence[str], search: Search, batch_size: int
    ) -> list[tuple[str, Found]]:
        """Return the target for each source, which `problem` has passed."""
        return measure.answers(
            self.model,
            [tasks.tidied(self.task, source) for source in sources],
            self.source,
            self.target,
            search,
            reverse_source=self.reverse_source,
            reverse_target=self.reverse_target,
            batch_size=batch_size,
        )

    def problem(self, source: str) -> str:
        """Say why a source cannot be translated; an empty text where it can."""
        tidy = tasks.tidied(self.task, source)
        numbers = self.source.encode(tidy)
        unknown = self.source.unknown(tidy)
        if not numbers:
            return "there is nothing in it"
        if len(numbers) >= self.model.spec.max_length:
            return (
                f"it has {len(numbers)} tokens, and the model takes "
                f"{self.model.spec.max_length - 1} at most"
            )
        if len(unknown) == len(numbers) or (unknown and self.task in TASKS):
            return f"the model does not know {_listed(unknown)}"
        return ""


def _listed(tokens: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(tokens))
    more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    return ", ".join(map(repr, distinct[:5])) + more


def describe_model(
    spec: Spec, config: TrainConfig, source: Vocabulary, target: Vocabulary
) -> dict[str, Any]:
    """Return what `model.json` tells: how to build the model and how to feed it."""
    return {
        "topic": "seq2seq",
        "architecture": spec.as_dict(),
        "task": config.task if config.is_generated else "file",
        "reverse_source": config.reverse_source,
        "reverse_target": config.reverse_target,
        "vocabulary": {"source": source.as_dict(), "target": target.as_dict()},
    }


def vocabularies_of(folder: Path) -> tuple[Vocabulary, Vocabulary]:
    """Return the vocabularies of a run that goes on."""
    return _vocabularies(runs.read_json(folder, DESCRIPTION), folder)


def _vocabularies(description: dict[str, Any], folder: Path) -> tuple[Vocabulary, Vocabulary]:
    try:
        sides = description["vocabulary"]
        source, target = sides["source"], sides["target"]
        return Vocabulary.from_dict(source), Vocabulary.from_dict(target)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            "E513", f"{folder / DESCRIPTION} holds no vocabularies", cure="restore the file"
        ) from error


def load(folder: Path, device: torch.device) -> Translator:
    """Load a model folder, or a run folder's model; an unfinished run gives its best so far.

    Raises:
        CheckpointError: there is none, it is damaged, or it is another topic's.
    """
    tensors, description = trained.load(folder, "seq2seq")
    source, target = _vocabularies(description, folder)
    with trained.described(folder, "seq2seq model"):
        spec = Spec.from_dict(description["architecture"])
        if (spec.source_vocabulary, spec.target_vocabulary) != (len(source), len(target)):
            raise CheckpointError(
                "E513",
                f"the vocabularies of {folder} do not fit its model",
                received=f"{len(source)} and {len(target)} tokens",
                expected=f"{spec.source_vocabulary} and {spec.target_vocabulary}",
                cure="restore model.json",
            )
        model = build(spec)
        backwards = bool(description["reverse_source"]), bool(description["reverse_target"])
        task = str(description["task"])
    checkpoint.load_weights(model, tensors, folder)
    return Translator(model.to(device).eval(), source, target, task, *backwards, description)


def translate(
    folder: Path,
    text: str,
    search: Search,
    *,
    batch_size: int,
    device: str,
    encoding: str,
    console: Console,
) -> None:
    """Translate a text, the lines of a file, or standard input as it comes.

    Raises:
        DataError: E506, a text given on the command line cannot be translated.
    """
    translator = load(folder, devices.choose(device).device)
    rows: list[dict[str, Any]] = []
    for lines in _groups(text, encoding, batch_size):
        for row in _translated(translator, lines, search, batch_size, len(rows), text, console):
            rows.append(row)
            if not console.json:
                print(row["translation"] or "", flush=True)
    if console.json:
        console.result({"run": str(folder), "translations": rows})


def _translated(
    translator: Translator,
    lines: Sequence[str],
    search: Search,
    batch_size: int,
    before: int,
    given: str,
    console: Console,
) -> list[dict[str, Any]]:
    """Return a row for each line; one that cannot be translated has None."""
    problems = [translator.problem(line) for line in lines]
    rows: list[dict[str, Any]] = []
    good = [line for line, problem in zip(lines, problems, strict=True) if not problem]
    found = iter(translator.answers(good, search, batch_size)) if good else iter(())
    for number, (line, problem) in enumerate(zip(lines, problems, strict=True), before + 1):
        if problem:
            if line == given:
                raise DataError(
                    "E506",
                    f"{line!r} cannot be translated: {problem}",
                    cure="give a text of the kind that the model was trained on",
                )
            console.warn(f"line {number} is left empty: {problem}")
            rows.append({"source": line, "translation": None, "problem": problem})
            continue
        answer, details = next(found)
        unknown = translator.source.unknown(tasks.tidied(translator.task, line))
        if unknown:
            console.warn(f"line {number}: unknown and read as <unk>: {_listed(unknown)}")
        rows.append(
            {
                "source": line,
                "translation": answer,
                "log_probability": details.log_probability,
                "tokens": len(details.tokens),
                "is_cut": details.is_cut,
                "unknown": unknown,
            }
        )
    return rows


def _groups(text: str, encoding: str, size: int) -> Iterator[list[str]]:
    """Yield lines in groups: a text, a stretch of a file, or up to `size` that stdin holds now."""
    if text == text_files.STDIN:
        yield from _arriving(size, encoding)
        return
    if not _is_file(text):
        yield [text]
        return
    lines = text_files.lines(text, encoding=encoding)
    # several batches at once: sorted by length they hold less padding
    while group := list(itertools.islice(lines, SORTED_TOGETHER * size)):
        yield group


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def _arriving(size: int, encoding: str) -> Iterator[list[str]]:
    """Yield lines of standard input as soon as there are any, together those that wait.

    Raises:
        DataError: E502, a line is not text of this encoding.
    """
    if sys.stdin is None:  # closed by the caller, as a service may do
        raise DataError("E502", "standard input is closed", cure="give a text or a file")
    if sys.stdin.isatty():
        for line in sys.stdin:
            yield [line.rstrip("\r\n")]
        return
    number = 0
    for raw in _arriving_bytes():
        lines = [_decoded(line, number + i, encoding) for i, line in enumerate(raw, 1)]
        number += len(lines)
        for begin in range(0, len(lines), size):
            yield lines[begin : begin + size]


def _arriving_bytes() -> Iterator[list[bytes]]:
    """Yield the whole lines of each piece that the pipe hands over; the last one may lack its end.

    A buffered reader would wait until its buffer is full, or for a line that may never come.
    """
    rest = b""
    while piece := os.read(sys.stdin.fileno(), PIECE):
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield lines
    if rest:
        yield [rest]


def _decoded(raw: bytes, number: int, encoding: str) -> str:
    try:
        return raw.decode(encoding).rstrip("\r").removeprefix("\ufeff" if number == 1 else "")
    except UnicodeDecodeError as error:
        raise DataError(
            "E502",
            f"standard input, line {number}: byte 0x{raw[error.start]:02x} is not "
            f"{encoding.upper()}",
            cure="give UTF-8, or name the encoding: --encoding latin-1",
        ) from error
    except LookupError as error:
        raise ConfigError(
            "E206", f"no text encoding is named {encoding!r}", cure="use utf-8 or latin-1"
        ) from error


def describe(folder: Path, console: Console) -> None:
    """Print what a run or model folder is."""
    translator = load(folder, torch.device("cpu"))
    facts = runs.read_json(folder) if (folder / "run.json").exists() else {}
    spec, parameters = translator.model.spec, count_parameters(translator.model)
    results = translator.description.get("results")
    data = {
        "folder": str(folder),
        "parameters": parameters,
        "architecture": spec.as_dict(),
        "task": translator.task,
        "level": translator.source.level,
        "vocabulary": {"source": len(translator.source), "target": len(translator.target)},
        "reverse_source": translator.reverse_source,
        "reverse_target": translator.reverse_target,
        "results": results,
        "run": facts or None,
    }
    lines = [
        f"model          {spec.name}, {parameters:,} parameters",
        f"task           {translator.task}: {TASKS.get(translator.task, 'pairs of texts')}",
        f"vocabulary     {len(translator.source):,} and {len(translator.target):,} "
        f"{translator.source.level} tokens, reserved ones included",
        f"longest        {spec.max_length - 1} tokens",
    ]
    if translator.reverse_target:
        lines.append("order          targets are written last token first, and shown as usual")
    if facts:
        lines.append(
            f"run            {facts['status']}, {facts['created']}, grade {facts['grade']}"
        )
    if results:
        lines.append(f"exact match    {results['exact_match']['text']}")
    console.result(data, "\n".join(lines))
