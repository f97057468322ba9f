"""Sentences with a tag on each word: CoNLL files and JSON Lines, in one form of tags.

A CoNLL file has a word and its tag on each line and an empty line between sentences; more columns
may stand between them. Tags come as IOB1, IOB2 (BIO) or BIOES (BILOU); all say the same and are
read into IOB2, which is what `transformers` groups into entities. Tags without such a prefix (parts
of speech) stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dltool.console import Console
from dltool.data import texts
from dltool.errors import ConfigError, DataError
from dltool_bert_finetune.columns import CONLL, Columns, choose

MAYBE_CONLL = (".txt", ".text", ".tsv", ".tab")
WORD_KEYS = ("tokens", "words")
TAG_KEYS = ("tags", "ner_tags", "labels", "ner", "pos_tags")
OUTSIDE = "O"
PREFIXED = re.compile(r"[BIESLU]-\S")
COMMENT = re.compile(r"#\s*\w+\s*=|# ?(newdoc|newpar|id)\b")
LOOKED_AT = 200
# the one who begins, the one who ends: what BIOES and BILOU tell beyond IOB2
BEGINS, ENDS = "BSU", "ESLU"


@dataclass(frozen=True)
class Sentences:
    """Words with their tags.

    Attributes:
        words: of each sentence.
        tags: one a word, in IOB2 or plain; empty where they were not asked for.
        documents: what a sentence belongs to; sentences of one document stay in one split.
        places: file and line of each sentence's beginning.
    """

    words: list[list[str]]
    tags: list[list[str]]
    documents: list[str]
    places: list[str]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def texts(self) -> list[str]:
        """The words of each sentence with a space between them."""
        return [" ".join(words) for words in self.words]

    def take(self, index: Sequence[int]) -> Sentences:
        """Return the sentences of these numbers, in this order."""
        parts = (self.words, self.tags, self.documents, self.places)
        return Sentences(*([part[i] for i in index] if part else [] for part in parts))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Raw:
    words: list[str]
    tags: list[str]
    document: str
    line: int


def holds_tags(source: str, encoding: str) -> bool:
    """Tell whether a file holds words with tags, by its name and its first lines."""
    kind = texts.kind(source)
    if kind in CONLL:
        return True
    if kind in texts.JSON_LINES:
        keys = texts.columns(source, encoding=encoding)
        return any(key in keys for key in WORD_KEYS) and any(key in keys for key in TAG_KEYS)
    if kind not in MAYBE_CONLL:
        return False
    rows = []
    for number, line in enumerate(texts.lines(source, encoding=encoding)):
        if number == LOOKED_AT:
            break
        if line.strip() and not COMMENT.match(line):
            rows.append(_cells(line))
    tags = [row[-1] for row in rows]
    known = [tag == OUTSIDE or bool(PREFIXED.match(tag)) for tag in tags]
    return len(rows) > 1 and all(len(row) > 1 for row in rows) and all(known)


def read(
    source: str, columns: Columns, *, encoding: str, console: Console, tagged: bool = True
) -> Sentences:
    """Read the sentences of a file.

    Args:
        columns: `text` and `label` name the keys of JSON Lines, or number the columns of CoNLL.
        tagged: whether tags must be there.

    Raises:
        DataError: E503, no sentence; E502 and E506, with the line, a row of another width or tags
            that do not pair up with the words.
    """
    kind = texts.kind(source)
    if kind not in (*CONLL, *MAYBE_CONLL, *texts.JSON_LINES):
        raise DataError(
            "E502",
            f"{source}: this name promises no tagged words",
            expected=f"{', '.join(CONLL)}, .txt, .tsv or .jsonl, plain or .gz, .xz, .bz2",
            cure="rename the file after what is in it",
        )
    is_json = kind in texts.JSON_LINES
    if is_json:
        columns = _keys(source, columns, encoding, tagged)
        what = f"words from {columns.text!r}" + f", tags from {columns.label!r}" * tagged
    else:
        what = f"words in column {columns.text or 1}"
        what += f", tags in column {columns.label or 'last'}" * tagged
    console.note(f"{source}: {what}")
    find = _from_json if is_json else _from_conll
    raw = list(find(source, columns, encoding, tagged))
    kept = [_without_blanks(each) for each in raw]
    blanks = sum(len(a.words) - len(b.words) for a, b in zip(raw, kept, strict=True))
    if blanks:
        console.warn(f"{source}: {blanks:,} words without a character are left out")
    kept = [each for each in kept if each.words]
    if not kept:
        raise DataError("E503", f"{source} has no sentence", cure="give a file with words and tags")
    tags = [each.tags for each in kept] if tagged else []
    has_entities = any(PREFIXED.match(tag) for row in tags for tag in row)
    return Sentences(
        [each.words for each in kept],
        [as_iob2(row) for row in tags] if has_entities else tags,
        [each.document for each in kept],
        [f"{source}, line {each.line}" for each in kept],
    )


def _without_blanks(raw: _Raw) -> _Raw:
    full = [bool(word.strip()) for word in raw.words]
    if all(full):
        return raw
    words = [word for word, is_full in zip(raw.words, full, strict=True) if is_full]
    tags = [tag for tag, is_full in zip(raw.tags, full, strict=False) if is_full]
    return _Raw(words, tags, raw.document, raw.line)


def as_iob2(tags: Sequence[str]) -> list[str]:
    """Return tags of any of the schemes as IOB2.

    An entity begins at B, S or U, after E, L, S or U, after O, and where the type changes; so does
    the evaluation script of CoNLL-2000 read them.
    """
    found: list[str] = []
    before, kind_before = OUTSIDE, ""
    for tag in tags:
        prefix, _, kind = tag.partition("-")
        if not PREFIXED.match(tag):
            found.append(OUTSIDE)
            before, kind_before = OUTSIDE, ""
            continue
        begins = prefix in BEGINS or before in ENDS or before == OUTSIDE or kind != kind_before
        found.append(f"{'B' if begins else 'I'}-{kind}")
        before, kind_before = prefix, kind
    return found


def _cells(line: str) -> list[str]:
    return line.rstrip().split("\t") if "\t" in line.strip() else line.split()


def _from_conll(source: str, columns: Columns, encoding: str, tagged: bool) -> Iterator[_Raw]:
    word_at, tag_at = _number("--text", columns.text, 1), _number("--label", columns.label, 0) - 1
    words: list[str] = []
    tags: list[str] = []
    width = begun = document = 0
    number = 0
    is_marked = False
    for number, line in enumerate(texts.lines(source, encoding=encoding), 1):
        if line.startswith("-DOCSTART-"):
            document, is_marked = number, True
        if not line.strip() or line.startswith("-DOCSTART-"):
            if words:
                yield _Raw(words, tags, f"{source}:{document if is_marked else begun}", begun)
            words, tags = [], []
            continue
        if COMMENT.match(line):
            continue
        cells = _cells(line)
        width = width or len(cells)
        needed = max(word_at, tag_at + 1, 2 if tagged else 1)
        if len(cells) != width or len(cells) < needed:
            raise DataError(
                "E502",
                f"{source}, line {number}: {len(cells)} columns in place of {max(width, needed)}",
                expected="a word and its tag on each line, an empty line between sentences",
                cure="mend the line; --text and --label number the columns of word and tag",
            )
        begun = begun if words else number
        words.append(cells[word_at - 1])
        tags.append(cells[tag_at])
    if words:
        yield _Raw(words, tags, f"{source}:{document if is_marked else begun}", begun)


def _number(option: str, value: str, default: int) -> int:
    if not value:
        return default
    if not value.isdecimal() or int(value) < 1:
        raise ConfigError(
            "E202",
            f"{option} numbers a column of a CoNLL file, from 1",
            received=value,
            cure="leave it out: the first column is the word, the last one the tag",
        )
    return int(value)


def _keys(source: str, columns: Columns, encoding: str, tagged: bool) -> Columns:
    """Return the keys of words and tags in a file of JSON Lines."""
    keys = texts.columns(source, encoding=encoding)
    words = choose(source, "--text", columns.text, WORD_KEYS, keys)
    tags = choose(source, "--label", columns.label, TAG_KEYS, keys) if tagged else ""
    return Columns(words, "", tags)


def _from_json(source: str, columns: Columns, encoding: str, tagged: bool) -> Iterator[_Raw]:
    keys = texts.columns(source, encoding=encoding)
    wanted = [columns.text, *([columns.label] if tagged else [])]
    by_document = next((key for key in ("document", "doc_id", "title") if key in keys), "")
    wanted += [by_document] if by_document else []
    for row in texts.rows(source, wanted, encoding=encoding):
        place = f"{source}, line {row.line}"
        words = _strings(row.cells[0], place, wanted[0])
        tags = _strings(row.cells[1], place, wanted[1]) if tagged else []
        if tagged and len(words) != len(tags):
            raise DataError(
                "E506",
                f"{place}: {len(words)} words and {len(tags)} tags",
                expected="one tag a word",
                cure="mend the line",
            )
        document = row.cells[-1] if by_document else place
        yield _Raw(words, tags, f"{Path(source).name}:{document}", row.line)


def _strings(cell: str, place: str, key: str) -> list[str]:
    try:
        items = json.loads(cell)
    except ValueError:
        items = None
    if not isinstance(items, list) or not all(isinstance(item, str | int) for item in items):
        raise DataError(
            "E506",
            f"{place}: {key} is no list of words",
            received=cell[:60],
            expected='{"tokens": ["Ada", "sang"], "tags": ["B-PER", "O"]}',
            cure="mend the line",
        )
    return [str(item) for item in items]
