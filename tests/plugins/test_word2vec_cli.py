"""word2vec as a command: wrong input, other programs' files, damage, pictures."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from dltool_word2vec import exporting, importing, plot, store, text_query, vectors

from dltool.console import Console
from dltool.errors import ConfigError, DataError, DltoolError

CONSOLE = Console("test")


def made(folder, count=60, dim=6, **about):
    """Write a model folder of random vectors."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(count, dim)).astype(np.float32)
    words = [f"word{n}" for n in range(count)]
    counts = list(range(count, 0, -1))
    vectors.save(folder, words, counts, {"vectors": matrix}, {"tokenizer": "words", **about})
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return made(tmp_path_factory.mktemp("models") / "m")


def imported(file, folder, **settings):
    defaults = {"form": "auto", "encoding": "utf-8", "top": 0, "allow_pickle": None}
    importing.import_file(file, folder, console=CONSOLE, **{**defaults, **settings})
    return vectors.load(folder, verify=True)


# ---- as a user does --------------------------------------------------------------------------


def test_a_folder_of_texts_becomes_vectors_a_score_and_a_picture(dltool, work):
    folder = work / "texts"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in ("one.txt", "two.txt"):
        rows = rng.integers(9, size=(60, 4))
        lines = [" ".join(f"tiger{n} cat book" for n in row) for row in rows]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    words = ["train", "texts", "--epochs", "2", "--dim", "8", "--min-count", "2", "--workers", "1"]
    done = dltool("word2vec", *words, "--tokenizer", "words", "--out", "run", "--events")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in events] == ["start", *["step", "epoch"] * 2, "result"]
    assert "G-W01" in done.err
    near = dltool("word2vec", "similar", "run", "cat", "--top", "3", "--json").json()["data"]
    assert len(near["neighbors"]["cat"]) == 3
    score = dltool("word2vec", "evaluate", "run", "--analogies", "none", "--json").json()["data"]
    assert score["similarity"][0]["set"] == "wordsim353"
    assert score["similarity"][0]["n"] < 5
    dltool("word2vec", "plot", "run", "--out", "words.html")
    assert b"tiger1" in (work / "words.html").read_bytes()


@pytest.mark.parametrize(
    ("content", "words", "code", "said"),
    [
        (b"", [], 5, "no text"),
        (b"... !!! 1 2 3\n", [], 5, "no text|no words"),
        (b"a rare word\n", ["--min-count", "2"], 5, "no word occurs 2 times"),
        (b"\x00\x01\x02 binary\n", [], 5, "binary file"),
        ("grüße\n".encode("latin-1"), [], 5, "--encoding latin-1"),
        (b"<!doctype html><html>", [], 5, "HTML page"),
        (b"\x1f\x8b\x08\x00cut", [], 5, "cut off or damaged"),
        (b"text\n", ["--dim", "0"], 2, "--dim"),
        (b"text\n", ["--tokenizer", "simpel"], 2, "simple"),
        (b"text\n", ["--hs"], 2, "--negative"),
        (b"text\n", ["--device", "cuda"], 2, "--engine torch|not there"),
        (b"text\n", ["--start-from", "nowhere"], 5, "there is no run"),
    ],
    ids=[
        *("empty", "no-words", "min-count", "binary", "latin-1", "html", "cut-gzip"),
        *("dim", "tokenizer", "hs", "device", "start-from"),
    ],
)
def test_wrong_input_is_told_in_one_line(dltool, work, content, words, code, said):
    (work / "text.txt").write_bytes(content)
    if "--device" in words:
        code = 3  # a machine without GPU; with one it is a contradiction, exit 2
    done = dltool("word2vec", "train", "text.txt", "--workers", "1", *words, code=code)
    assert re.search(said, done.err), done.err
    assert "Cure:" in done.err.splitlines()[-1]


def test_a_table_needs_its_column_and_stdin_works(dltool, work):
    (work / "t.csv").write_text("id,body\n1,x\n", encoding="utf-8")
    assert "--column" in dltool("word2vec", "train", "t.csv", code=2).err
    text = b"alpha beta gamma delta\n" * 30
    words = ["--epochs", "1", "--dim", "4", "--workers", "1", "--out", "run", "--json"]
    done = dltool("word2vec", "train", "-", *words, stdin=text)
    assert done.json()["data"]["words"] == 4


def test_a_search_loads_neither_torch_nor_gensim(model):
    code = (
        "import sys; from dltool.__main__ import main\n"
        f"sys.argv = ['dltool', 'word2vec', 'similar', {str(model)!r}, 'word3']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'gensim', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# ---- other programs' files -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["word2vec", "word2vec-binary"])
def test_gensim_reads_what_we_write_and_we_read_it_back(model, tmp_path, form):
    from gensim.models import KeyedVectors

    file = tmp_path / "v"
    exporting.export_run(model, file, form=form, top=0, console=CONSOLE)
    keyed = KeyedVectors.load_word2vec_format(str(file), binary=form.endswith("binary"))
    known = vectors.load(model)
    assert keyed.index_to_key == known.words
    assert np.array_equal(keyed.vectors, known.matrix())
    again = imported(file, tmp_path / "again")
    assert np.array_equal(again.matrix(), known.matrix())
    keyed.save_word2vec_format(str(tmp_path / "g"), binary=form.endswith("binary"))
    assert imported(tmp_path / "g", tmp_path / "g2").words == known.words


@pytest.mark.parametrize("form", ["glove", "numpy", "safetensors"])
def test_other_forms_come_back_bit_for_bit(model, tmp_path, form):
    file = tmp_path / "v.npz" if form == "numpy" else tmp_path / "v"
    exporting.export_run(model, file, form=form, top=40, console=CONSOLE)
    source = file / "model.safetensors" if form == "safetensors" else file
    again = imported(source, tmp_path / "again")
    known = vectors.load(model)
    assert again.words == known.words[:40]
    assert np.array_equal(again.matrix(), known.matrix()[:40])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # gensim leaves the file open
def test_fasttext_files_are_read_as_gensim_reads_them(tmp_path):
    from gensim.models.fasttext import load_facebook_model
    from gensim.test.utils import datapath

    file = datapath("crime-and-punishment.bin")
    theirs = load_facebook_model(file)
    ours = imported(Path(file), tmp_path / "m")
    assert ours.words == theirs.wv.index_to_key
    # the end of a line has no letter groups in fastText; gensim gives it some
    rows = [row for row, word in enumerate(ours.words) if word != "</s>"]
    assert len(rows) > 200
    assert np.allclose(ours.matrix()[rows], theirs.wv.vectors[rows], atol=1e-6)
    assert np.allclose(ours.vector("кофе"), theirs.wv.get_vector("кофе"), atol=1e-6)
    file = tmp_path / "b.bin"
    exporting.export_run(tmp_path / "m", file, form="fasttext", top=0, console=CONSOLE)
    back = load_facebook_model(str(file))
    assert np.allclose(back.wv.vectors, theirs.wv.vectors, atol=1e-6)


GOOD = "3 2\na 1 2\nb 3 4\nc 5 6\n"
TEXTS = {
    "ragged-short": (GOOD.replace("b 3 4", "b 3"), "line 3: a row of 1 numbers among rows of 2"),
    "ragged-long": (GOOD.replace("b 3 4", "b 3 4 5"), "line 3: a row of 3 numbers"),
    "no-number": (GOOD.replace("3 4", "3 x"), "line 3: a cell is no number"),
    "nan": (GOOD.replace("3 4", "3 nan"), "the vector of 'b' holds NaN"),
    "too-many-promised": (GOOD.replace("3 2", "9 2", 1), "promises 9 words, the file holds 3"),
    "too-few-promised": (GOOD.replace("3 2", "2 2", 1), "promises 2 words, the file holds 3"),
    "other-dimension": (
        GOOD.replace("3 2", "3 3", 1),
        "line 2: a row of 2 numbers among rows of 3",
    ),
    "no-dimension": (GOOD.replace("3 2", "3 0", 1), "vectors of 0 numbers"),
    "header-alone": ("3 2\n", "holds no vectors"),
    "empty": ("", "holds no vectors"),
    "prose": ("it was the best of times\nit was the worst\n", "no number"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_files_that_contradict_themselves_are_refused(tmp_path, kind):
    text, said = TEXTS[kind]
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "v.txt", tmp_path / "m", form="word2vec" if text[:1] == "3" else "auto")
    assert said in caught.value.message
    assert not (tmp_path / "m").exists()


def binary(count, dim, rows):
    head = f"{count} {dim}\n".encode()
    return head + b"".join(word + b" " + struct.pack(f"<{dim}f", *row) for word, row in rows)


ROWS = [(b"a", (1, 2)), (b"b", (3, 4)), (b"c", (5, 6))]
BINARIES = {
    "cut": (binary(3, 2, ROWS)[:-3], "ends in word 3"),
    "false-count": (binary(9, 2, ROWS), "no end of a word|ends in word"),
    "count-too-low": (binary(2, 2, ROWS), "goes on after"),
    "huge": (b"999999999999 99999\na " + bytes(40), "ends in word 1"),
    "no-header": (b"\xff\xfe" * 40, "does not begin with two whole numbers|no end"),
    "not-utf-8": (binary(1, 2, [(b"\xe9t\xe9", (1, 2))]), "is not UTF-8"),
    "infinite": (binary(1, 2, [(b"a", (1, float("inf")))]), "NaN or infinity"),
}


@pytest.mark.parametrize("kind", BINARIES)
def test_binary_files_that_contradict_themselves_are_refused(tmp_path, kind):
    data, said = BINARIES[kind]
    (tmp_path / "v.bin").write_bytes(data)
    with pytest.raises(DataError) as caught:
        imported(tmp_path / "v.bin", tmp_path / "m", form="word2vec-binary")
    assert re.search(said, caught.value.message), caught.value.message


def test_a_cut_fasttext_file_is_refused_wherever_it_is_cut(tmp_path):
    from gensim.test.utils import datapath

    data = Path(datapath("crime-and-punishment.bin")).read_bytes()
    for end in (4, 9, 50, 70, 3000, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.bin").write_bytes(data[:end])
        with pytest.raises(DataError):
            imported(tmp_path / "cut.bin", tmp_path / "m", form="fasttext")


def test_a_pickle_of_gensims_is_loaded_only_when_named_twice(tmp_path):
    from gensim.models import KeyedVectors

    keyed = KeyedVectors(3)
    keyed.add_vectors(["a", "b"], np.eye(2, 3, dtype=np.float32))
    file = tmp_path / "kv.model"
    keyed.save(str(file))
    with pytest.raises(ConfigError, match="pickle") as caught:
        imported(file, tmp_path / "m")
    assert "--allow-pickle" in caught.value.cure
    with pytest.raises(ConfigError, match="pickle"):
        imported(file, tmp_path / "m", allow_pickle=tmp_path / "other")
    assert imported(file, tmp_path / "m", allow_pickle=file).words == ["a", "b"]


def test_a_packed_array_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "v.npz", words=np.array([{"a": 1}], object), vectors=np.eye(1))
    with pytest.raises(DataError, match="cannot be read"):
        imported(tmp_path / "v.npz", tmp_path / "m")


def test_words_that_come_twice_are_kept_once_and_said(tmp_path, capsys):
    (tmp_path / "v.txt").write_text("3 2\na 1 2\na 3 4\nc 5 6\n")
    assert imported(tmp_path / "v.txt", tmp_path / "m").words == ["a", "c"]
    assert "came twice" in capsys.readouterr().err


# ---- own files -------------------------------------------------------------------------------


def test_damage_is_named(tmp_path):
    folder = made(tmp_path / "m")
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    file.write_bytes(data[:-4])
    with pytest.raises(DltoolError, match="cut off"):
        vectors.load(folder)
    data[-9] ^= 1
    file.write_bytes(data)
    vectors.load(folder)  # the size is right
    with pytest.raises(DltoolError, match="content has changed"):
        vectors.load(folder, verify=True)
    (folder / "vocabulary.json").unlink()
    with pytest.raises(DltoolError, match="is missing"):
        vectors.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"words": "abc"},
        {"words": [1, 2, 3]},
        {"words": []},
        {"counts": [1]},
        {"counts": ["many", "few", "none"]},
        {"topic": "cnn"},
        {"format": 99},
    ],
    ids=["text", "numbers", "none", "short", "no-numbers", "other-topic", "newer"],
)
def test_a_folder_that_contradicts_itself_is_refused(tmp_path, change):
    matrix = {"vectors": np.eye(3, dtype=np.float32), "norms": np.ones(3, np.float32)}
    about = {"topic": "word2vec", "format": 1, **change}
    words = {"words": ["a", "b", "c"], "counts": [3, 2, 1], **change}
    documents = {"model.json": about, "vocabulary.json": words}
    store.write_folder(tmp_path / "m", matrix, documents)
    with pytest.raises(DltoolError) as caught:
        vectors.load(tmp_path / "m")
    assert caught.value.exit_code == 5


def test_a_model_folder_cannot_name_code_to_run(tmp_path):
    folder = made(tmp_path / "m", tokenizer="segmenter", segmenter="os:system")
    with pytest.raises(ConfigError, match="segmenter"):
        vectors.load(folder).tokenizer()


def test_safetensors_itself_reads_our_files(model):
    from safetensors.numpy import load_file

    theirs = load_file(model / "model.safetensors")
    ours = store.open_arrays(model / "model.safetensors")
    assert theirs.keys() == ours.keys() == {"vectors", "norms"}
    assert all(np.array_equal(theirs[name], ours[name]) for name in ours)


def test_neighbours_of_many_words_are_those_of_each(model, tmp_path, capsys):
    (tmp_path / "w.txt").write_text("word5\nword40\nunknown\n")
    text_query.neighbors(model, str(tmp_path / "w.txt"), top=4, out=None, limit=0, console=CONSOLE)
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    known = vectors.load(model)
    for line in lines:
        near = known.nearest(known.vector(line["word"]), 4, [known.row(line["word"])])
        assert [each["word"] for each in line["neighbors"]] == [word for word, _ in near]
    assert [line["word"] for line in lines] == ["word5", "word40"]
    assert "unknown" in captured.err


# ---- pictures --------------------------------------------------------------------------------


def test_the_plane_is_that_of_most_variance():
    from sklearn.decomposition import PCA

    rows = np.random.default_rng(3).normal(size=(40, 7)) * np.arange(1, 8)
    points, share = plot.principal_plane(rows)
    theirs = PCA(2).fit(rows)
    assert np.allclose(np.abs(points), np.abs(theirs.transform(rows)))
    assert share == pytest.approx(theirs.explained_variance_ratio_.sum())


def test_the_page_needs_nothing_from_elsewhere_and_words_are_no_code(tmp_path):
    words = ["</script><script>alert(1)</script>", "__POINTS__", "a\u2028b", "中文"]
    plot.write_page(tmp_path / "p.html", words, np.eye(4, 2), {"中文"}, "a < b & c")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert page.count("<script") == page.count("</script>") == 1
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", page)
    assert "a &lt; b &amp; c" in page
    points = json.loads(re.search(r"const points = (\[.*?\]);  //", page)[1])
    assert [point[0] for point in points] == words
    assert [point[3] for point in points] == [0, 0, 0, 1]


def test_named_words_bring_their_neighbours(model):
    known = vectors.load(model)
    words, marked = plot.choose(known, ["word3", "word9"], 100, 0)
    assert words[:2] == ["word3", "word9"]
    assert marked == {"word3", "word9"}
    assert set(words[2:]) <= set(known.words)
    assert len(words) > 8
