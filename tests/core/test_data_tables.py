"""CSV tables: both engines read the same, and every fault has its line and column."""

import builtins
import csv
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dltool.data import table_rows, tables
from dltool.data.tables import Format
from dltool.errors import ConfigError, DataError, MissingExtra

ENGINES = ["pyarrow", "csv"]


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param


@pytest.fixture
def write(tmp_path):
    def made(content, name="t.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return made


def values(table):
    """Return every column as plain Python values, None where missing."""
    return {
        name: [
            None
            if column.missing[row]
            else float(column.numbers[row])
            if column.is_number
            else column.text(row)
            for row in range(table.num_rows)
        ]
        for name, column in table.columns.items()
    }


def test_types_are_inferred_and_missing_values_known(write, engine):
    path = write(
        "a,b,c,d,e\n"
        "1,2.5,red,NA,true\n"
        ' 2 ,,"blue, dark",,false\n'
        '"3",1e3,NA,NaN,true\n'
        "?,-4,None,null,\n"
    )
    assert values(tables.read(path, engine=engine)) == {
        "a": [1.0, 2.0, 3.0, None],
        "b": [2.5, None, 1000.0, -4.0],
        "c": ["red", "blue, dark", None, "None"],
        "d": [None, None, None, None],
        "e": ["true", "false", "true", None],
    }


def test_a_text_far_below_makes_a_column_text(write, engine):
    rows = 200_000  # beyond the first block of either engine
    body = "".join(f"{row % 7},{row}\n" if row % 3 else f"x{row % 7},{row}\n" for row in range(10))
    path = write("a,b\n" + "".join(f"{row},1\n" for row in range(rows)) + body)
    with pytest.raises(DataError, match=f"line {rows + 2}, column 1 .a.: 'x0' is no number"):
        tables.read(path, engine=engine)
    found = tables.read(path, texts=["a"], engine=engine).columns["a"]
    assert not found.is_number
    assert found.text(rows + 1) == "1"
    assert found.text(rows) == "x0"


@pytest.mark.parametrize(
    ("content", "form", "expected"),
    [
        ("a;b\n1,5;2\n", Format(decimal=","), {"a": [1.5], "b": [2.0]}),
        ("a\tb\n1\t2\n", Format(), {"a": [1.0], "b": [2.0]}),
        ("a|b\n1|2\n", Format(), {"a": [1.0], "b": [2.0]}),
        ("\ufeffa,b\r\n1,2\r\n", Format(), {"a": [1.0], "b": [2.0]}),
        ("a,b\n\n1,2\n\n", Format(), {"a": [1.0], "b": [2.0]}),
        ('"a,b",c\n1,"x\ny"\n', Format(), {"a,b": [1.0], "c": ["x\ny"]}),
        ("a,b\n1,é\n".encode("latin-1"), Format(encoding="latin-1"), {"a": [1.0], "b": ["é"]}),
        ("a,b\n1,é\n".encode("utf-16"), Format(encoding="utf-16"), {"a": [1.0], "b": ["é"]}),
        ("a\n1\n2", Format(), {"a": [1.0, 2.0]}),
    ],
)
def test_formats(write, engine, content, form, expected):
    assert values(tables.read(write(content), form=form, engine=engine)) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("a,b\n", "line 2: there is no row"),
        ("a,b\n1,2\n3\n", "line 3, column 2: the row ends before column 'b'"),
        ("a,b\n1,2\n3,4,5\n", "line 3, column 3: there is a cell '5' beyond"),
        ("a,a\n1,2\n", "line 1, column 2: the name 'a' occurs twice"),
        ("a,\n1,2\n", "line 1, column 2: the column has no name"),
        ("1,2\n3,4\n", "line 1: the first line holds numbers"),
        ("a,b\n1,2\n3,4\n5,six\n", "line 4, column 2 (b): 'six' is no number"),
        ("a,b\n1,2\n3,inf\n", "line 3, column 2 (b): 'inf' is no"),
        ("a,b\n1,2\n3,1e999\n4,5\n", "line 3, column 2 (b): '1e999' is no"),
        ('a;b\n1,5;"2"\n2,5;3\n', "add --decimal ,"),
        (b"a,b\n1,2\n3,caf\xe9\n", "line 3, character 6: byte 0xe9 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08rest", "a gzip archive"),
        (b"PK\x03\x04rest", "a zip archive or spreadsheet"),
        ("<!doctype html><p>404", "HTML page"),
        ('a,b\n1,"2\n' + "3,4\n" * 50_000, "line 2: a quote that is not closed"),
        ("a,b\n1," + "9" * (table_rows.LINE_LIMIT + 5) + "\n", "line 2, character 1048577"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 60 else "content",
)
def test_faults_are_named_with_their_place(write, engine, content, words):
    path = write(content)
    # cells with a decimal comma are texts: a fault only where numbers are due
    needs = ["b"] if "is no" in words else ["a"] if "--decimal" in words else []
    with pytest.raises(DataError) as caught:
        tables.read(path, numbers=needs, engine=engine)
    assert words in caught.value.one_line()
    assert caught.value.exit_code == 5


def test_a_missing_file_an_unknown_encoding_and_a_strange_format(tmp_path):
    with pytest.raises(DataError, match="no file"):
        tables.read(tmp_path / "x.csv")
    with pytest.raises(ConfigError, match="utf-9"):
        Format(encoding="utf-9")
    with pytest.raises(ConfigError):
        Format(delimiter=",", decimal=",")
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="engine"):
        tables.read(tmp_path / "t.csv", engine="sql")


def test_wrong_encoding_of_another_kind_is_told(write):
    path = write("a,b\n1,2\n")
    with pytest.raises(DataError, match="this is not utf-32"):
        tables.read(path, form=Format(encoding="utf-32"))


def test_only_what_is_wanted_is_read(write, engine):
    path = write("a,b,c\n1,x,3\n2,9,4\n7,8,9\n")
    found = tables.read(path, wanted=["c"], engine=engine)
    assert list(found.columns) == ["c"]
    assert found.header == ("a", "b", "c")
    assert found.num_rows == 3


def test_line_of_a_row_counts_quoted_line_breaks(write, engine):
    path = write('a,b\n1,"x\ny"\n\n2,z\n')
    found = tables.read(path, engine=engine)
    assert found.line_of("a", 1) == 5


def test_without_pyarrow_the_same_table_comes_from_the_csv_module(write, monkeypatch):
    path = write("a,b\n1,x\n2,y\n")
    expected = values(tables.read(path))
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    real = builtins.__import__

    def without(name, *rest, **more):
        assert not name.startswith("pyarrow")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert values(tables.read(path)) == expected
    with pytest.raises(MissingExtra, match="pyarrow"):
        tables.read(path, engine="pyarrow")


CELLS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(10**6), 10**6).map(str),
    st.sampled_from(["", "NA", "red", "a b", 'say "x"', "1,5", "two\nlines", " pad "]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12))
def test_the_engines_agree(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("same") / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("a", "b"), *rows])
    outcomes = []
    for engine in ENGINES:
        try:
            outcomes.append(values(tables.read(path, form=Format(delimiter=","), engine=engine)))
        except DataError as error:
            outcomes.append(error.message)
    assert outcomes[0] == outcomes[1]


def test_numbers_keep_every_bit(write, engine):
    numbers = np.random.default_rng(0).normal(size=500)
    path = write("a\n" + "\n".join(map(repr, numbers.tolist())) + "\n")
    assert (tables.read(path, engine=engine).columns["a"].numbers == numbers).all()


@pytest.mark.skipif(sys.platform != "linux", reason="memory limits work so on Linux")
def test_a_huge_line_needs_little_memory(tmp_path, engine):
    path = tmp_path / "huge.csv"
    with path.open("wb") as stream:
        stream.write(b"a,b\n1,2\n")
        stream.truncate(1 << 30)  # one line of a gibibyte, of zero bytes that take no disk
    probe = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from dltool.data import tables\n"
        "from dltool.errors import DataError\n"
        "import pyarrow.csv\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        f"    tables.read(Path({str(path)!r}), engine={engine!r})\n"
        "except DataError as error:\n"
        "    print(error.message)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    message, grown = done.stdout.splitlines()
    assert "line 3, character 1048577" in message
    assert int(grown) < 100_000  # KiB
