"""The texts of a command line: words, files of lines, tables, standard input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dltool.data import texts
from dltool.errors import ConfigError, DataError
from dltool_bert_finetune import columns as files
from dltool_bert_finetune.columns import Columns


@dataclass(frozen=True)
class Wanted:
    """What was given.

    Attributes:
        given: texts, names of files, or `-`.
        pair: the second text of a single first one.
        text, second: columns of tables; empty: inferred.
    """

    given: tuple[str, ...]
    pair: str = ""
    text: str = ""
    second: str = ""
    encoding: str = "utf-8"


def read(wanted: Wanted, *, paired: bool) -> tuple[list[str], list[str]]:
    """Return the texts in order, and the second texts where the model takes pairs.

    Raises:
        DataError: E501, a file that is not there; E503, there is no text.
        ConfigError: E205, pairs for a model of single texts or the other way round.
    """
    if wanted.pair:
        if not paired:
            raise ConfigError("E205", "--pair is for models of pairs; this one reads single texts")
        if len(wanted.given) != 1:
            raise ConfigError("E205", "--pair goes with one TEXT", received=len(wanted.given))
        return list(wanted.given), [wanted.pair]
    firsts: list[str] = []
    seconds: list[str] = []
    for item in wanted.given:
        first, second = _of(item, wanted, paired=paired)
        firsts += first
        seconds += second
    if not firsts:
        raise DataError("E503", "there is no text", cure="give a text, a file or - for stdin")
    return firsts, seconds


def _of(item: str, wanted: Wanted, *, paired: bool) -> tuple[list[str], list[str]]:
    is_file = item == texts.STDIN or _is_file(item)
    if is_file and item != texts.STDIN and texts.is_table(item):
        given = Columns(wanted.text, wanted.second)
        chosen = files.infer(item, given, encoding=wanted.encoding, with_label=False, paired=paired)
        if not paired:
            chosen = Columns(chosen.text)
        read_rows = files.read(item, chosen, encoding=wanted.encoding)
        return read_rows.texts, read_rows.seconds
    if paired:
        raise ConfigError(
            "E205",
            "this model reads pairs of texts",
            cure="give one TEXT and --pair TEXT, or a table with two columns of texts",
        )
    if is_file:
        return list(texts.lines(item, encoding=wanted.encoding)), []
    if texts.kind(item) in texts.SUFFIXES and len(item.split()) == 1:
        raise DataError("E501", f"there is no file {item!r}", cure="check the path")
    return [item], []


def _is_file(item: str) -> bool:
    try:
        return Path(item).is_file()
    except (OSError, ValueError):  # a text that is too long for a name, or holds a null
        return False
