"""Questions about texts that hold the answers: SQuAD's JSON, JSON Lines and tables.

SQuAD: Rajpurkar et al., 2016, https://arxiv.org/abs/1606.05250, and with questions that have no
answer 2018, https://arxiv.org/abs/1806.03822.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dltool.console import Console
from dltool.data import texts
from dltool.errors import DataError
from dltool_bert_finetune.columns import SQUAD, Columns, choose

QUESTION_KEYS = ("question", "query")
CONTEXT_KEYS = ("context", "passage", "paragraph", "document_text")
ANSWER_KEYS = ("answers", "answer", "answer_text")
START_KEYS = ("answer_start", "start", "start_char")
TITLE_KEYS = ("title", "document", "doc_id")
SQUAD_LIMIT = 1 << 30
LOOKED_AT = 100


@dataclass(frozen=True)
class Answer:
    """Characters `start` to `start + len(text)` of a context."""

    text: str
    start: int


@dataclass(frozen=True)
class Question:
    """One question with the text that it is about.

    Attributes:
        answers: all that count as right, the first one is learnt; none: it has no answer there.
        document: what the context belongs to; the questions of one document stay in one split.
        place: where it stands, for messages.
        is_known: whether answers were given, so that none means that there is none.
    """

    question: str
    context: str
    answers: tuple[Answer, ...]
    document: str
    place: str
    is_known: bool = True


@dataclass(frozen=True)
class Questions:
    """The questions of a split."""

    rows: list[Question]

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: Sequence[int]) -> Questions:
        """Return the questions of these numbers, in this order."""
        return Questions([self.rows[i] for i in index])


def holds_questions(source: str, encoding: str) -> bool:
    """Tell whether a file holds questions about texts, by its name and its first row."""
    kind = texts.kind(source)
    if kind in SQUAD:
        return True
    if not texts.is_table(source):
        return False
    keys = [key.strip() for key in texts.columns(source, encoding=encoding)]
    columns = [_known(known, keys) for known in (CONTEXT_KEYS, ANSWER_KEYS, QUESTION_KEYS)]
    if not all(columns):
        return False
    found = list(itertools.islice(texts.rows(source, columns[:2], encoding=encoding), LOOKED_AT))
    answers = [row.cells[1] for row in found]
    # yes and no to a question about a text are classes of pairs
    spans = sum(
        answer in row.cells[0] or answer[0] in "[{"
        for row, answer in zip(found, answers, strict=True)
    )
    return 2 * spans >= len(found) or len(set(answers)) > len(found) // 4


def read(
    source: str, columns: Columns, *, encoding: str, console: Console, answered: bool = True
) -> Questions:
    """Read the questions of a file and see that every answer stands where it is said to.

    Args:
        columns: `text`, `second` and `label` name question, context and answer.
        answered: whether answers must be there.

    Raises:
        DataError: E502, no JSON of this form; E503, no question; E506, answers that do not stand in
            their contexts, with their number.
    """
    found = _squad(source) if texts.kind(source) in SQUAD else None
    if found is None:
        columns = _columns(source, columns, encoding, answered)
        console.note(f"{source}: {_named(columns)}")
        found = list(_table(source, columns, encoding, answered))
    full = [row for row in found if row.question.strip() and row.context.strip()]
    if len(full) < len(found):
        console.warn(
            f"{source}: {len(found) - len(full):,} rows without question or context are left out"
        )
    if not full:
        raise DataError("E503", f"{source} has no question", cure="give a file with questions")
    return Questions(_aligned(full, source, console) if answered else full)


def _aligned(rows: list[Question], source: str, console: Console) -> list[Question]:
    """Look answers without a place up; refuse those that are not where they should be."""
    searched = several = moved = absent = 0
    first = ""
    kept = []
    for row in rows:
        answers = []
        for answer in row.answers:
            if answer.start < 0:
                searched += 1
                several += row.context.count(answer.text) > 1
                answer = replace(answer, start=row.context.find(answer.text))
            there = row.context[answer.start : answer.start + len(answer.text)]
            if answer.start < 0 or there != answer.text:
                is_elsewhere = answer.text in row.context
                moved, absent = moved + is_elsewhere, absent + (not is_elsewhere)
                first = first or f"{row.place}: {answer.text[:40]!r}"
            answers.append(answer)
        kept.append(replace(row, answers=tuple(answers)))
    if moved or absent:
        raise DataError(
            "E506",
            f"{source}: {moved + absent:,} answers do not stand where they should: {moved:,} stand "
            f"elsewhere in their context, {absent:,} nowhere (the first: {first})",
            expected="context[start : start + len(answer)] == answer, counted in characters",
            cure="correct the rows; without a column of starts the answers are looked up, and for "
            "answers that are classes there is --task pair",
        )
    if searched:
        console.note(
            f"{source}: {searched:,} answers were looked up in their contexts"
            + (
                f"; {several:,} stand there more than once, and the first place counts"
                * (several > 0)
            )
        )
    return kept


def _squad(source: str) -> list[Question]:
    """Return the questions of a file in SQuAD's form, version 1 or 2."""
    with texts.opened(source) as stream:
        raw = stream.read(SQUAD_LIMIT + 1)
    if len(raw) > SQUAD_LIMIT:
        raise DataError("E502", f"{source} is larger than {SQUAD_LIMIT >> 30} GiB")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError("E502", f"{source} is not JSON ({str(error)[:100]})") from error
    try:
        return list(_articles(document["data"], Path(source).name))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "E502",
            f"{source} has not the form of SQuAD ({type(error).__name__}: {error})",
            expected='{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", '
            '"answers": [{"text", "answer_start"}]}]}]}]}',
            cure="a .jsonl file has one object a line: question, context, answer and start",
        ) from error


def _articles(articles: Sequence[dict[str, Any]], name: str) -> Iterator[Question]:
    for number, article in enumerate(articles):
        title = str(article.get("title") or number)
        for paragraph in article["paragraphs"]:
            context = _string(paragraph["context"])
            for item in paragraph["qas"]:
                given = [] if item.get("is_impossible") else item.get("answers", [])
                answers = tuple(
                    Answer(_string(each["text"]), int(each["answer_start"])) for each in given
                )
                place = f"{name}, question {item.get('id', item['question'])}"
                yield Question(_string(item["question"]), context, answers, title, place)


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{str(value)[:40]!r} is no text")
    return value


def _columns(source: str, columns: Columns, encoding: str, answered: bool) -> Columns:
    """Return the columns of question, context and answer."""
    keys = [key.strip() for key in texts.columns(source, encoding=encoding)]
    question = choose(source, "--text", columns.text, QUESTION_KEYS, keys)
    context = choose(source, "--second", columns.second, CONTEXT_KEYS, keys)
    answer = choose(source, "--label", columns.label, ANSWER_KEYS, keys) if answered else ""
    return Columns(question, context, answer)


def _named(columns: Columns) -> str:
    parts = {"question": columns.text, "context": columns.second, "answer": columns.label}
    return ", ".join(f"{what} from {name!r}" for what, name in parts.items() if name)


def _table(source: str, columns: Columns, encoding: str, answered: bool) -> Iterator[Question]:
    keys = [key.strip() for key in texts.columns(source, encoding=encoding)]
    wanted = [columns.text, columns.second, *([columns.label] if answered else [])]
    start, title = _known(START_KEYS, keys) if answered else "", _known(TITLE_KEYS, keys)
    wanted += [name for name in (start, title) if name]
    for row in texts.rows(source, wanted, encoding=encoding):
        cells = dict(zip(wanted, row.cells, strict=True))
        question, context = row.cells[:2]
        place = f"{source}, line {row.line}"
        answers: tuple[Answer, ...] = ()
        if answered:
            answers = _answers(row.cells[2], cells.get(start, ""), place)
        document = cells.get(title) or context
        yield Question(question, context, answers, document, place, answered)


def _known(names: Sequence[str], keys: Sequence[str]) -> str:
    lower = [key.lower() for key in keys]
    return next((keys[lower.index(name)] for name in names if name in lower), "")


def _answers(cell: str, start: str, place: str) -> tuple[Answer, ...]:
    """Return the answers of a cell: a text, or SQuAD's `{"text": […], "answer_start": […]}`."""
    if not cell.strip():
        return ()
    try:
        value: Any = json.loads(cell) if cell[0] in "[{" else cell
    except ValueError:
        value = cell  # an answer that begins with a bracket
    try:
        if isinstance(value, dict):
            pairs = list(zip(value["text"], value["answer_start"], strict=True))
        elif isinstance(value, list):
            pairs = [(each["text"], each["answer_start"]) for each in value]
        else:
            pairs = [(cell, start.strip() or -1)]
        found = [Answer(_string(text), int(number)) for text, number in pairs]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "E506",
            f"{place}: this is no answer ({error})",
            received=f"{cell[:60]!r}, start {start[:20]!r}",
            expected='a text and the number of its first character, or {"text": ["…"], '
            '"answer_start": [0]}',
            cure="mend the row",
        ) from error
    return tuple(found)
