"""The `seq2seq` topic through its command line, and its data."""

import gzip
import json
import lzma
import math
import re
import signal
import subprocess
import sys

import pytest
import torch
from dltool_seq2seq import data as pairs_of
from dltool_seq2seq import measure, tasks, vocab
from dltool_seq2seq.config import TASKS, TrainConfig, recipe
from dltool_seq2seq.vocab import BOS, EOS, PAD, RESERVED, UNK
from safetensors.torch import load_file

from dltool import cli
from dltool.console import Console
from dltool.errors import CheckpointError, ConfigError, DataError, MissingExtra

CPU = torch.device("cpu")
TINY = ("--width", "16", "--layers", "1", "--heads", "2", "--threads", "1", "--epochs", "2")
SUMS = ("--samples", "200", "--max-value", "99", "--batch-size", "64", "--max-length", "12")


@pytest.fixture
def run(here, capsys):
    """Run a command line in this process; return (stdout, stderr) after checking the exit code."""

    def call(*arguments, code=0):
        capsys.readouterr()
        got = cli.run(["seq2seq", *map(str, arguments)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


@pytest.fixture
def train(run):
    """Train and return the result as data."""

    def call(*arguments):
        return json.loads(run("train", *arguments, "--json").out)["data"]

    return call


def asked(run, *arguments):
    return json.loads(run(*arguments, "--json").out)["data"]


SENTENCES = [
    ("the cat sleeps", "le chat dort"),
    ("the dog sleeps", "le chien dort"),
    ("the cat eats", "le chat mange"),
    ("the dog eats", "le chien mange"),
    ("a cat sleeps", "un chat dort"),
    ("a dog sleeps", "un chien dort"),
    ("a cat eats", "un chat mange"),
    ("a dog eats", "un chien mange"),
]


def table(path, rows=SENTENCES, mark="\t", header=()):
    lines = [mark.join(row) for row in [*([header] if header else []), *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# ---- generated tasks --------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"hello"}))
def test_splits_of_a_task_share_no_source_and_no_target(task):
    config = TrainConfig(task=task, samples=3000, max_value=99)
    splits = tasks.generate(config)
    assert splits == tasks.generate(config)
    assert splits != tasks.generate(TrainConfig(task=task, samples=3000, max_value=99, seed=1))
    for place in (0, 1):
        sides = {split: {pair[place] for pair in pairs} for split, pairs in splits.items()}
        assert not sides["train"] & sides["val"]
        assert not sides["train"] & sides["test"]
        assert not sides["val"] & sides["test"]
    for pairs in splits.values():
        sources = [source for source, _ in pairs]
        assert len(set(sources)) == len(sources) > 20


def test_sums_are_right_and_so_are_dates_and_reversals():
    for source, target in tasks.drawn(TrainConfig(), "train", 300):
        first, sign, second = re.fullmatch(r"(\d{1,3})([+-])(\d{1,3})", source).groups()
        wanted = int(first) + int(second) if sign == "+" else int(first) - int(second)
        assert target == str(wanted) == tasks.answer(source)
    for source, target in tasks.drawn(TrainConfig(task="reverse"), "train", 50):
        assert source == target[::-1]
    for source, target in tasks.drawn(TrainConfig(task="date"), "train", 300):
        year, month, day = target.split("-")
        assert year in source or source.endswith("-" + year[2:])
        assert str(int(day)) in source
        assert (
            tasks.MONTHS[int(month) - 1][:3].lower() in source.lower() or str(int(month)) in source
        )
    for source, target in tasks.drawn(TrainConfig(task="spelling"), "train", 50):
        assert len(source.split()) == len(target.split()) == 3


def test_longer_sums_are_longer_and_only_for_arithmetic():
    found = tasks.longer(TrainConfig(), 9999, 50)
    for source, target in found:
        assert max(map(int, re.findall(r"\d+", source))) > 999
        assert tasks.answer(source) == target
    with pytest.raises(ConfigError, match="longer operands"):
        tasks.longer(TrainConfig(), 999, 5)
    with pytest.raises(ConfigError, match="longer operands"):
        tasks.longer(TrainConfig(task="date"), 9999, 5)


def test_a_task_that_is_too_small_says_so(run):
    error = run("train", "--max-value", "1", "--operators", "+", "--val-fraction", "0", code=5).err
    assert "too small" in error


# ---- vocabularies -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_reserved_tokens_come_first_and_no_text_reaches_them(level):
    made = vocab.build(["<pad> <eos> ab ab"], level, lower=False, vocab_size=0, min_freq=1)
    assert made.tokens[:4] == RESERVED
    assert {PAD, BOS, EOS}.isdisjoint(made.encode("<pad> <unk> <bos> <eos>"))


@pytest.mark.parametrize("level", ["char", "word", "subword"])
def test_texts_come_back_as_they_went(level):
    text = (
        "Où est l'arbre (vert), là-bas ?" if level != "word" else "Où est l'arbre (vert), là-bas?"
    )
    made = vocab.build([text] * 3, level, lower=False, vocab_size=0, min_freq=1)
    again = vocab.Vocabulary.from_dict(json.loads(json.dumps(made.as_dict())))
    assert again.encode(text) == made.encode(text)
    assert again.decode([BOS, *made.encode(text), EOS, 5, PAD]) == text
    assert len(again) == len(made) == len(set(made.tokens))


def test_unknown_and_rare_tokens():
    made = vocab.build(["a a b", "a c c"], "word", lower=False, vocab_size=0, min_freq=2)
    assert made.tokens[4:] == ("a", "c")
    assert made.encode("a b c") == [4, UNK, 5]
    assert made.unknown("a b c") == ["b"]
    least = vocab.build(["a a b", "a c c"], "word", lower=False, vocab_size=5, min_freq=1)
    assert least.tokens[4:] == ("a",)
    bytes_of_all = vocab.build(["abc"], "subword", lower=False, vocab_size=300, min_freq=1)
    assert bytes_of_all.decode(bytes_of_all.encode("Ω 漢字 ☃")) == "Ω 漢字 ☃"


def test_composed_and_decomposed_letters_are_one():
    made = vocab.build(["é"], "char", lower=False, vocab_size=0, min_freq=1)
    assert made.encode("é") == made.encode("e\u0301") == [4]


def test_a_vocabulary_without_reserved_tokens_is_refused():
    good = vocab.build(["ab"], "char", lower=False, vocab_size=0, min_freq=1).as_dict()
    for tokens in (good["tokens"][1:], ["a", "b"], [*good["tokens"], "a"]):
        with pytest.raises(CheckpointError, match="reserved"):
            vocab.Vocabulary.from_dict({**good, "tokens": tokens})


def test_subwords_need_their_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtra, match="tokenizers"):
        vocab.build(["ab"], "subword", lower=False, vocab_size=0, min_freq=1)


# ---- batches ----------------------------------------------------------------------------------


def loaded(path, **settings):
    config = TrainConfig(task=str(path), **{"level": "word", "batch_size": 3, **settings})
    return pairs_of.load(config, CPU, Console("test"))


def test_decoder_inputs_are_targets_moved_by_one(here):
    data = loaded(table(here / "pairs.tsv"), bucket=2)
    for batch in data.train.batches(0):
        assert (batch.decoder_input[:, 0] == BOS).all()
        assert torch.equal(batch.decoder_input[:, 1:], batch.target[:, :-1])
        assert ((batch.target == EOS).sum(1) == 1).all()
        assert torch.equal((batch.source != PAD).sum(1), batch.lengths)
        assert (batch.source.gather(1, batch.lengths[:, None] - 1) == EOS).all()


@pytest.mark.parametrize("bucket", [0, 2, 50])
def test_batches_hold_every_pair_once_and_depend_on_seed_and_epoch_alone(here, bucket):
    rows = [("a " * (i % 7 + 1), "b " * (i % 5 + 1)) for i in range(40)]
    rows = [(f"{source}w{i}", f"{target}w{i}") for i, (source, target) in enumerate(rows)]
    path = table(here / "pairs.tsv", rows)
    first, again = loaded(path, bucket=bucket).train, loaded(path, bucket=bucket).train
    orders = [torch.cat(first.order(epoch)) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(first.texts)))
    assert not torch.equal(*orders)
    late = list(again.batches(1, 4))
    for batch, other in zip(list(first.batches(1))[4:], late, strict=True):
        assert all(torch.equal(part, same) for part, same in zip(batch, other, strict=True))


def test_buckets_hold_less_padding(here):
    rows = [(" ".join("a" * (i * 7 % 29 + 1)), f"w{i}") for i in range(300)]
    path = table(here / "pairs.tsv", rows)

    def padding(bucket):
        batches = loaded(path, bucket=bucket, batch_size=10, max_length=60).train.batches(0)
        return sum(int((batch.source == PAD).sum()) for batch in batches)

    assert padding(50) < padding(0) / 5


def test_no_source_is_in_two_splits_of_a_file(here):
    rows = [(f"s{i % 30}", f"t{i}") for i in range(120)]
    data = loaded(table(here / "pairs.tsv", rows), val_fraction=0.2, test_fraction=0.2)
    sides = [{source for source, _ in part.texts} for part in (data.train, data.val, data.test)]
    assert [len(side) for side in sides] == [18, 6, 6]
    assert len(set.union(*sides)) == 30
    assert "several targets" in data.findings[-1].message


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".tsv.gz", ".csv.xz", ".jsonl"])
def test_tables_of_every_kind_give_the_same_pairs(here, suffix):
    path = here / f"pairs{suffix}"
    if "json" in suffix:
        lines = [json.dumps({"en": a, "fr": b}) for a, b in SENTENCES]
    else:
        mark = "," if "csv" in suffix else "\t"
        lines = [mark.join(row) for row in [("en", "fr"), *SENTENCES]]
    content = ("\n".join(lines) + "\n").encode()
    packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(content))
    config = TrainConfig(task=str(path), source_column="fr", target_column="en")
    found, empty = pairs_of.read_pairs(config, str(path))
    assert found == [(b, a) for a, b in SENTENCES]
    assert empty == 0


def parallel(here, sources, targets, name="pairs"):
    one, other = here / f"{name}.en.gz", here / f"{name}.fr"
    one.write_bytes(gzip.compress("".join(f"{line}\n" for line in sources).encode()))
    other.write_text("".join(f"{line}\n" for line in targets), encoding="utf-8")
    return f"{one},{other}"


def test_parallel_files_and_empty_lines(here, capsys):
    both = parallel(here, ["a", "", "c", "d"], ["A", "B", " ", "D"])
    found, empty = pairs_of.read_pairs(TrainConfig(task=both), both)
    assert (found, empty) == ([("a", "A"), ("d", "D")], 2)
    assert pairs_of.read_pairs(TrainConfig(task=both, limit=1), both)[0] == [("a", "A")]
    loaded(both, val_fraction=0.0, test_fraction=0.0)
    assert "2 pairs with an empty side are left out" in capsys.readouterr().err


@pytest.mark.parametrize(("sources", "targets"), [("ab", "ABC"), ("abc", "AB")])
def test_parallel_files_of_different_length_are_refused(here, sources, targets):
    both = parallel(here, sources, targets)
    with pytest.raises(DataError, match=r"ends after 2 lines .* do not pair up"):
        pairs_of.read_pairs(TrainConfig(task=both), both)


def test_pairs_that_are_too_long_are_counted(here, capsys):
    rows = [*SENTENCES, ("x " * 30, "y")]
    data = loaded(table(here / "p.tsv", rows), max_length=10, val_fraction=0.0, test_fraction=0.0)
    assert data.facts["counts"]["train"] == 8
    assert "1 of 9 train pairs are longer than --max-length 10" in capsys.readouterr().err


# ---- measures ---------------------------------------------------------------------------------


def test_bleu_is_sacrebleus_and_short_answers_do_not_break_it():
    sacrebleu = pytest.importorskip("sacrebleu")
    given = ["the cat sleeps on the mat", "a", "", "go !"]
    wanted = ["the cat sleeps on a mat", "a", "b", "go on !"]
    found = measure.translation_scores(given, given, wanted)
    assert found["bleu"]["value"] == pytest.approx(sacrebleu.corpus_bleu(given, [wanted]).score)
    assert found["chrf"]["value"] == pytest.approx(sacrebleu.corpus_chrf(given, [wanted]).score)
    assert found["bleu"]["low"] <= found["bleu"]["value"] <= found["bleu"]["high"]
    assert "nrefs:1" in found["bleu"]["signature"]
    assert json.dumps(found)


def test_exact_match_counts_and_its_baseline():
    score = measure.exact(["a", "b", "c", "c"], ["a", "b", "b", "b"])
    assert (score.value, score.n, score.baseline) == (0.5, 4, 0.75)


def test_by_length_holds_every_pair_once():
    reader = vocab.Vocabulary("char", False, RESERVED)
    sources = ["x" * (i % 37 + 1) for i in range(500)]
    rows = measure.by_length(sources, sources, ["x"] * 500, reader)
    assert sum(row["n"] for row in rows) == 500
    assert len(rows) <= 8
    assert rows[0]["from"] == 1
    assert rows[-1]["to"] == 37
    few = measure.by_length(["a", "bb", "a"], ["1", "2", "3"], ["1", "2", "4"], reader)
    assert [(row["from"], row["value"]) for row in few] == [(1, 0.5), (2, 1.0)]


# ---- the command line -------------------------------------------------------------------------


def test_hello_is_learnt_and_used(run, train):
    result = train("--task", "hello", "--out", "h", "--threads", "1")
    assert result["exact_match"]["value"] == 1.0
    assert result["measured_on"] == "pairs that were trained on"
    assert run("translate", "h", "hello").out == "ohlol\n"
    assert run("translate", "h", "hello", "--decoder", "beam").out == "ohlol\n"
    assert asked(run, "info", "h")["task"] == "hello"
    shown = asked(run, "attention", "h", "hello", "--out", "look.png")
    weights = torch.tensor(shown["weights"])
    assert weights.shape == (2, 4, 6, 6)
    assert weights.sum(-1) == pytest.approx(torch.ones(2, 4, 6), abs=1e-5)
    traced = asked(run, "trace", "h", "--out", "masks.png")
    last = traced["layers"][-1]
    assert (last["kind"], last["output"]) == ("Transformer", [[1, 6, 7]])
    assert traced["causal_mask"][0] == [1, 0, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    """A tiny run of arithmetic, good for nothing but its form."""
    folder = tmp_path_factory.mktemp("sums") / "run"
    words = ["train", *TINY, *SUMS, "--out", str(folder), "--json"]
    assert cli.run(["seq2seq", *words]) == 0
    return folder


def test_evaluate_repeats_the_test_of_the_training(run, sums):
    trained = json.loads((sums / "run.json").read_text())["result"]
    found = asked(run, "evaluate", sums)
    assert found["exact_match"] == trained["exact_match"]
    assert found["loss"] == pytest.approx(trained["test_loss"])
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert sum(row["n"] for row in found["by_length"]) == found["exact_match"]["n"]
    assert {row["operator"] for row in found["by_operator"]} == {"+", "-"}
    longer = asked(run, "evaluate", sums, "--max-value", "999")
    assert longer["exact_match"]["n"] == 1000
    assert "above 99" in longer["data"]
    assert "E601" in run("evaluate", sums, "--min-exact", "0.999", code=6).err
    assert "E205" in run("evaluate", sums, "--min-bleu", "1", code=2).err


def test_translate_takes_a_text_a_file_and_a_stream(run, sums, here, monkeypatch):
    one = run("translate", sums, " 12 + 34 ").out
    assert one == run("translate", sums, "12+34").out
    (here / "lines.txt").write_text("12+34\n\n5-77\n1e3\n", encoding="utf-8")
    shown = run("translate", sums, "lines.txt")
    lines = shown.out.split("\n")
    assert len(lines) == 5
    assert lines[0] + "\n" == one
    assert lines[1] == lines[3] == ""
    assert "line 2 is left empty: there is nothing in it" in shown.err
    assert "line 4 is left empty: the model does not know 'e'" in shown.err
    rows = asked(run, "translate", sums, "lines.txt", "--batch-size", "1")["translations"]
    assert [row["translation"] for row in rows] == [lines[0], None, lines[2], None]
    piped = subprocess.run(
        [sys.executable, "-m", "dltool", "seq2seq", "translate", str(sums), "-"],
        input="12+34\n5-77\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert piped.stdout == f"{lines[0]}\n{lines[2]}\n"


def test_a_stream_is_answered_while_it_is_open(sums):
    with subprocess.Popen(
        [sys.executable, "-m", "dltool", "seq2seq", "translate", str(sums), "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in ("1+1\n", "20-3\n"):
            process.stdin.write(line)
            process.stdin.flush()
            assert process.stdout.readline().endswith("\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("translate", "RUN", "12x+3"), 5, "does not know 'x'"),
        (("translate", "RUN", ""), 5, "nothing in it"),
        (("translate", "RUN", "1" * 80 + "+2"), 5, "82 tokens, and the model takes 11 at most"),
        (("translate", "RUN", "1+2", "--decoder", "bream"), 2, "did you mean beam"),
        (("translate", "RUN", "1+2", "--top-p", "0"), 2, "--top-p is out of range"),
        (("translate", "nowhere", "1+2"), 5, "no run at 'nowhere'"),
        (("attention", "RUN", "1+2", "--out", "a.jpg"), 2, "PNG"),
        (("evaluate", "RUN", "--split", "tset"), 2, "did you mean test"),
        (("evaluate", "RUN", "--data", "nothing.tsv"), 5, "there is no file 'nothing.tsv'"),
        (("trace", "RUN", "x"), 5, "does not know"),
        (("compare", "nowhere"), 5, "no run at"),
        (("train", "--task", "arithmetik"), 5, "there is no file 'arithmetik'"),
        (("train", "--task", "a,b,c"), 2, "one comma"),
        (("train", "--model", "lstn"), 2, "did you mean lstm"),
        (("train", "--width", "30"), 2, "cannot be divided among 4 heads"),
        (("train", "--width", "20", "--positions", "rotary"), 2, "pairs of features"),
        (("train", "--operators", "*"), 2, "--operators"),
        (("train", "--level", "word"), 2, "letter by letter"),
        (("train", "--max-length", "2", "--samples", "50"), 5, "no pair is left to train on"),
        (("train", "--vocab-size", "3"), 2, "--vocab-size"),
        (("train", "--lr", "nan"), 2, "--lr is out of range"),
        (("train", "--warmup", "2"), 2, "--warmup is out of range"),
        (("attention-demo", "masks", "--lengths", "1,9"), 2, "0 to 4"),
        (("attention-demo", "positions", "--columns", "9-6"), 2, "--columns"),
        (("attention-demo", "multihead", "--heads", "7"), 2, "cannot be divided"),
    ],
)
def test_wrong_input_is_told(run, sums, words, code, told):
    words = [str(sums) if word == "RUN" else word for word in words]
    shown = run(*words, code=code)
    assert told in shown.err
    assert shown.out == ""
    error = json.loads(run(*words, "--json", code=code).out)["error"]
    assert error["cure"]


def test_files_that_are_wrong_are_told(run, here):
    (here / "latin.tsv").write_bytes("là\tvert\n".encode("latin-1"))
    assert "--encoding latin-1" in run("train", "--task", "latin.tsv", code=5).err
    (here / "empty.tsv").write_bytes(b"")
    assert "E503" in run("train", "--task", "empty.tsv", code=5).err
    table(here / "one.tsv", [("alone",)])
    assert "column 2 was asked for" in run("train", "--task", "one.tsv", code=5).err
    table(here / "named.tsv", header=("en", "fr"))
    shown = run("train", "--task", "named.tsv", "--source-column", "eng", code=5)
    assert "did you mean 'en'" in shown.err
    both = parallel(here, "abc", "AB")
    assert "do not pair up" in run("train", "--task", both, code=5).err
    assert not (here / "runs").exists()


def test_a_model_whose_vocabulary_lost_its_reserved_tokens_is_refused(run, sums, here):
    import shutil

    shutil.copytree(sums, here / "copy")
    shutil.rmtree(here / "copy" / "model")
    description = json.loads((here / "copy" / "model.json").read_text())
    description["vocabulary"]["source"]["tokens"] = list("0123456789+-")
    (here / "copy" / "model.json").write_text(json.dumps(description))
    assert "reserved tokens" in run("translate", "copy", "1+1", code=5).err


@pytest.mark.parametrize("level", ["word", "subword", "char"])
def test_own_pairs_are_learnt_and_scored(run, train, here, level):
    pytest.importorskip("sacrebleu")
    path = table(here / "pairs.tsv", SENTENCES * 3)
    words = ("--task", path, "--level", level, "--val-fraction", 0, "--test-fraction", 0)
    small = ("--width", 32, "--layers", 1, "--min-freq", 1, "--epochs", 40, "--batch-size", 8)
    rate = ("--lr", 0.01, "--vocab-size", 300 if level == "subword" else 0, "--threads", 1)
    result = train(*words, *small, *rate, "--guards", "off", "--out", "own")
    assert result["exact_match"]["value"] > 0.9
    assert result["bleu"]["value"] > 80
    assert run("translate", "own", "The cat sleeps").out in ("le chat dort\n",) or level != "word"
    (here / "one.tsv").write_text("a dog eats\tun chien mange\n", encoding="utf-8")
    found = asked(run, "evaluate", "own", "--data", "one.tsv", "--decoder", "beam")
    assert found["exact_match"]["value"] == 1.0
    assert found["bleu"]["n"] == 1
    if level == "subword":
        stored = json.loads((here / "own" / "model" / "model.json").read_text())
        assert stored["vocabulary"]["source"]["subwords"]["model"]["type"] == "BPE"


def test_unknown_words_are_told_and_all_unknown_is_refused(run, train, here):
    path = table(here / "pairs.tsv", SENTENCES * 3)
    words = ("--task", path, "--level", "word", "--val-fraction", "0", "--test-fraction", "0")
    train(*words, *TINY, "--out", "own")
    shown = run("translate", "own", "the walrus sleeps")
    assert "unknown and read as <unk>: 'walrus'" in shown.err
    assert "does not know 'walrus', 'sings'" in run("translate", "own", "walrus sings", code=5).err


@pytest.mark.parametrize(
    "model",
    [
        ("--model", "gru", "--attention", "none", "--no-bidirectional"),
        ("--model", "lstm", "--attention", "additive", "--scheduled-sampling", "0.5"),
        ("--model", "rnn", "--attention", "multiplicative", "--ema", "0.9"),
        ("--norm", "post", "--positions", "rotary", "--tied", "--dropout", "0.1"),
        ("--positions", "learned", "--schedule", "inverse-sqrt", "--accumulate", "2"),
    ],
)
def test_every_model_trains_and_resumes_bit_for_bit(run, train, here, model):
    words = (*TINY, *SUMS, *model, "--save-every", "2steps")
    whole = train(*words, "--out", "whole")
    run("train", *words, "--out", "parts", "--max-time", "0.01s")
    assert json.loads((here / "parts" / "run.json").read_text())["status"] != "finished"
    run("train", "--resume", "parts", "--max-time", "0.05s")
    again = json.loads(run("train", "--resume", "parts", "--max-time", "1h", "--json").out)["data"]
    assert again["exact_match"] == whole["exact_match"]
    one, other = (
        load_file(here / name / "model" / "model.safetensors") for name in ("whole", "parts")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_compare_puts_runs_into_one_table(run, train, sums):
    train(*TINY, *SUMS, "--model", "gru", "--out", "other")
    found = asked(run, "compare", sums, "other")["runs"]
    assert {row["model"] for row in found} == {"transformer", "gru"}
    text = run("compare", sums, "other").out
    assert len(text.splitlines()) == 3
    assert "no finished run below" in run("compare", code=5).err
    train(*TINY, *SUMS)
    assert len(run("compare").out.splitlines()) == 2


def test_a_finished_run_is_not_trained_again(run, sums):
    shown = run("train", "--resume", sums)
    assert "finished already" in shown.err
    assert "E207" in run("train", "--resume", sums, "--width", "32", code=2).err
    assert "E204" in run("train", *TINY, *SUMS, "--out", sums, code=2).err


@pytest.mark.parametrize(
    "words",
    [
        ("pooling", "--epochs", "20"),
        ("masks",),
        ("masks", "--lengths", "0,4"),
        ("additive",),
        ("dot",),
        ("multihead", "--heads", "5"),
        ("positions",),
        ("masked-loss",),
    ],
)
def test_demonstrations_hold_their_golden_values(run, words):
    drawn = () if words[0] in ("multihead", "masked-loss") else ("--out", "picture.png")
    found = asked(run, "attention-demo", *words, *drawn)
    assert found["checks"]
    assert all(value <= 1e-5 for value in found["checks"].values())
    known = {
        "additive": ("outputs", [[[2, 3, 4, 5]], [[10, 11, 12, 13]]]),
        "masked-loss": ("by_place", [math.log(10), math.log(10) / 2, 0.0]),
        "positions": ("slowest", [0.0, 0.000177828, 0.000355656, 0.000533484]),
    }
    if words[0] in known:
        name, value = known[words[0]]
        assert torch.tensor(found[name]) == pytest.approx(torch.tensor(value), abs=2e-6)
    if words[0] == "pooling":
        errors = list(found["errors"].values())
        assert errors == sorted(errors, reverse=True)


def test_a_demonstration_that_is_off_is_refused(run, monkeypatch):
    monkeypatch.setattr(
        "dltool_seq2seq.demo.masked_softmax", lambda scores, mask: scores.softmax(-1)
    )
    assert "E601" in run("attention-demo", "additive", code=6).err


def test_options_without_effect_are_told(run):
    shown = run("train", *TINY, *SUMS, "--attention", "additive", "--source-column", "2")
    assert (
        "without effect on arithmetic with transformer: --source-column, --attention" in shown.err
    )


def test_recipes_name_settings_that_exist():
    for task in [*TASKS, "file.tsv"]:
        for model in ("transformer", "gru"):
            for level in (None, "char", "word", "subword"):
                TrainConfig(**{**recipe(task, model, level), "task": task, "model": model})


# ---- what the issue promises -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", ["transformer", "lstm"])
def test_sums_are_learnt(run, train, model):
    result = train("--model", model, "--out", "sums")
    assert result["exact_match"]["value"] >= 0.99
    assert result["training_seconds"] < 600
    assert run("translate", "sums", "123+456").out == "579\n"
