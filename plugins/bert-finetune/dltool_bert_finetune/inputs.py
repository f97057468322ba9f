"""The texts of a command line: words, files of lines, tables, standard input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from dltool.console import Console
from dltool.data import texts
from dltool.errors import ConfigError, DataError
from dltool_bert_finetune import answering_data, tagging, tagging_data
from dltool_bert_finetune import columns as files
from dltool_bert_finetune.answering_data import Question
from dltool_bert_finetune.columns import Columns
from dltool_bert_finetune.tagging import Span


@dataclass(frozen=True)
class Wanted:
    """What was given.

    Attributes:
        given: texts, names of files, or `-`.
        pair: the second text of a single first one.
        text, second: columns of tables; empty: inferred.
        context: the text that holds the answers to questions, or the name of its file.
    """

    given: tuple[str, ...]
    pair: str = ""
    text: str = ""
    second: str = ""
    encoding: str = "utf-8"
    context: str = ""


def read(wanted: Wanted, *, paired: bool) -> tuple[list[str], list[str]]:
    """Return the texts in order, and the second texts where the model takes pairs.

    Raises:
        DataError: E501, a file that is not there; E503, there is no text.
        ConfigError: E205, pairs for a model of single texts or the other way round.
    """
    if wanted.context:
        raise ConfigError("E205", "--context is for models that answer questions (--task qa)")
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


def read_words(wanted: Wanted, console: Console) -> tuple[list[str], list[list[Span]]]:
    """Return the texts for a model that tags words, and where the words of each stand.

    Words that a file gives as words stay as they are.

    Raises:
        DataError, ConfigError: as `read`.
    """
    found: list[str] = []
    spans: list[list[Span]] = []
    for item in wanted.given:
        if item != texts.STDIN and _is_file(item) and _gives_words(item, wanted.encoding):
            columns = Columns(wanted.text)
            sentences = tagging_data.read(
                item, columns, encoding=wanted.encoding, console=console, tagged=False
            )
            found += sentences.texts
            spans += [tagging.spans_of_words(words) for words in sentences.words]
            continue
        own = read(replace(wanted, given=(item,)), paired=False)[0]
        found += own
        spans += [tagging.spans_in(text) for text in own]
    return found, spans


def _gives_words(item: str, encoding: str) -> bool:
    if texts.kind(item) in texts.JSON_LINES:
        keys = texts.columns(item, encoding=encoding)
        return any(key in keys for key in tagging_data.WORD_KEYS)
    return tagging_data.holds_tags(item, encoding)


def read_questions(wanted: Wanted, console: Console) -> list[Question]:
    """Return the questions for a model that answers them from texts.

    Raises:
        DataError: E501, a file that is not there; E503, a text is empty.
        ConfigError: E205, a question without a context.
    """
    if wanted.pair:
        raise ConfigError("E205", "--pair is for models of pairs", cure="use --context TEXT|FILE")
    context = _whole(wanted.context, wanted.encoding) if wanted.context else ""
    if wanted.context and not context.strip():
        raise DataError("E503", "the context is empty", cure="give a text that holds the answer")
    found: list[Question] = []
    for item in wanted.given:
        is_table = texts.is_table(item) or texts.kind(item) in files.SQUAD
        if item != texts.STDIN and is_table and _is_file(item):
            columns = Columns(wanted.text, wanted.second)
            found += answering_data.read(
                item, columns, encoding=wanted.encoding, console=console, answered=False
            ).rows
            continue
        if not context:
            raise ConfigError(
                "E205",
                "this model finds the answer to a question in a text",
                cure="add --context TEXT|FILE, or give a table with questions and contexts",
            )
        for asked in _of(item, wanted, paired=False)[0]:
            if not asked.strip():
                raise DataError("E503", "a question is empty", cure="leave empty lines out")
            found.append(Question(asked, context, (), "", item, is_known=False))
    return found


def _whole(item: str, encoding: str) -> str:
    """Return a text, or that of a whole file."""
    is_file = item == texts.STDIN or _is_file(item)
    if not is_file:
        _refuse_lost_file(item)
    return "\n".join(texts.lines(item, encoding=encoding)) if is_file else item


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
    _refuse_lost_file(item)
    return [item], []


def _refuse_lost_file(item: str) -> None:
    """Refuse a text that is the name of a file, and no such file is there."""
    if texts.kind(item) in (*texts.SUFFIXES, *files.CONLL, *files.SQUAD) and len(item.split()) == 1:
        raise DataError("E501", f"there is no file {item!r}", cure="check the path")


def _is_file(item: str) -> bool:
    try:
        return Path(item).is_file()
    except (OSError, ValueError):  # a text that is too long for a name, or holds a null
        return False
