"""Lines and cells of the user's texts: packed files, encodings, faults with their place."""

import bz2
import gzip
import io
import lzma
import sys

import pytest

from dltool.data import texts
from dltool.errors import ConfigError, DataError

WORDS = "première ligne\n\nthird\r\nlast"
LINES = ["première ligne", "", "third", "last"]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress)],
)
@pytest.mark.parametrize("is_named_so", [True, False])
def test_lines_of_packed_files_are_told_by_their_bytes(tmp_path, suffix, pack, is_named_so):
    path = tmp_path / ("a.txt" + suffix * is_named_so)
    path.write_bytes(pack("\ufeff".encode() + WORDS.encode()))
    assert list(texts.lines(path)) == LINES


def test_standard_input_is_read_and_unpacked(monkeypatch):
    for data in (WORDS.encode(), gzip.compress(WORDS.encode())):
        stream = io.TextIOWrapper(io.BufferedReader(io.BytesIO(data)))
        monkeypatch.setattr(sys, "stdin", stream)
        assert list(texts.lines("-")) == LINES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"good\nb\xe9d\n", "line 2, character 2: byte 0xe9 is not UTF-8"),
        (b"a\nb\0c\n", "line 2: byte 0x00"),
        ("a\n".encode("utf-16"), "line 1: UTF-16"),
        (b"<!doctype html><p>404", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS pointer"),
        (gzip.compress(b"a line\n" * 9999)[:-30], "the archive is cut off or damaged"),
        (lzma.compress(b"a line\n" * 9999)[:-30], "the archive is cut off or damaged"),
        (b"a\n" + b"x" * (texts.LINE_LIMIT + 1), "line 2: the line goes on beyond 16 MiB"),
    ],
    ids=["encoding", "binary", "utf-16", "html", "lfs", "cut gzip", "cut xz", "long line"],
)
def test_what_is_no_text_is_named_with_its_line(tmp_path, content, words):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(texts.lines(path))
    assert words in caught.value.one_line()


def test_another_encoding_is_read_when_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("déjà\nvu".encode("latin-1"))
    assert list(texts.lines(path, encoding="latin-1")) == ["déjà", "vu"]
    with pytest.raises(ConfigError, match="utf-9"):
        list(texts.lines(path, encoding="utf-9"))


def test_a_folder_gives_its_text_files_in_order_without_the_hidden(tmp_path):
    for name in ("b.txt", "a.jsonl.gz", "c.png", ".secret.txt", "deep/z.TXT", ".git/x.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    found = texts.files([str(tmp_path), "-"])
    assert found == [str(tmp_path / n) for n in ("a.jsonl.gz", "b.txt", "deep/z.TXT")] + ["-"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no text files"):
        texts.files([str(tmp_path / "empty")])
    with pytest.raises(DataError, match="there is no file"):
        texts.files([str(tmp_path / "none.txt")])


@pytest.mark.parametrize(
    ("name", "content", "wanted", "cells"),
    [
        (
            "t.csv",
            'text,label\n"a, ""b""\nc",1\n\nd,2\n',
            ["label", "text"],
            [("1", 'a, "b"\nc'), ("2", "d")],
        ),
        ("t.csv", "text;label\na, b;1\n", ["text"], [("a, b",)]),
        ("t.tsv", 'a\tb\nsay "hi\tyes\n', ["a", "b"], [('say "hi', "yes")]),
        (
            "t.txt",
            "Go.\tVa !\tCC\nHi.\tSalut.\tCC\n",
            ["1", "2"],
            [("Go.", "Va !"), ("Hi.", "Salut.")],
        ),
        (
            "t.jsonl",
            '{"a": "x", "n": 3}\n\n{"n": null, "a": "é"}\n',
            ["a", "n"],
            [("x", "3"), ("é", "")],
        ),
    ],
    ids=["quotes", "semicolons", "tabs", "no header", "json"],
)
def test_rows_give_the_wanted_columns(tmp_path, name, content, wanted, cells):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert [row.cells for row in texts.rows(path, wanted)] == cells


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "t.csv",
            "text,label\na,1\n",
            "the column 'txt' is not there (expected one of text, label)",
        ),
        ("t.csv", "txt,txt\na,1\n", "'txt' occurs twice"),
        ("t.csv", "a,txt\n1,2\n3\n", "line 3: the row has 1 columns, column 2 was asked for"),
        ("t.jsonl", '{"txt": 1}\n{"text": 2}\n', "line 2: the key 'txt' is not there"),
        ("t.jsonl", '{"txt": 1}\n{"txt"\n', "line 2: this is not JSON"),
        ("t.jsonl", "[1]\n", "line 1: a list in place of an object"),
        ("t.jsonl", "[" * 100_000, "line 1: this is not JSON"),
    ],
    ids=["unknown column", "twice", "short row", "no key", "bad json", "list", "deep"],
)
def test_faults_of_rows_are_named_with_their_place(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(texts.rows(path, ["txt"]))
    assert words in caught.value.one_line()


def test_columns_and_kinds(tmp_path):
    path = tmp_path / "T.CSV.gz"
    path.write_bytes(gzip.compress(b"text,label\na,b\n"))
    assert texts.columns(path) == ["text", "label"]
    assert texts.kind(path) == ".csv"
    assert texts.is_table(path)
    assert not texts.is_table("book.txt.xz")
    (tmp_path / "e.tsv").write_text("")
    with pytest.raises(DataError, match="is empty"):
        texts.columns(tmp_path / "e.tsv")


def test_a_quote_that_never_closes_ends_at_the_limit(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"' + ("x" * 999 + "\n") * 17_000)
    with pytest.raises(DataError, match=r"line 2: a quote that is not closed"):
        list(texts.rows(path, ["a"]))
