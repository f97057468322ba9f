"""The `bert-finetune` topic through its command line, on tiny encoders made here."""

import csv
import gzip
import json
import shutil
import sys
import time

import pytest
import torch
from dltool_bert_finetune import sample, tokens
from safetensors.torch import load_file, save_file

from dltool import cli

transformers = pytest.importorskip("transformers")

TEXTS, LABELS = sample.reviews(240)
QUICK = ("--epochs", "1", "--threads", "1", "--batch-size", "32", "--lr", "1e-3")


@pytest.fixture
def run(here, capsys):
    """Run a command line in this process; return (stdout, stderr) after checking the exit code."""

    def call(*arguments, code=0):
        capsys.readouterr()
        got = cli.run(["bert-finetune", *map(str, arguments)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


@pytest.fixture
def train(run):
    """Train and return the result as data."""

    def call(*arguments):
        return json.loads(run("train", *QUICK, *arguments, "--json").out)["data"]

    return call


def encoder(folder, kind="bert", **changes):
    """Save a tiny encoder with its tokeniser as other programs do, without a head."""
    tokeniser = tokens.train_wordpiece(TEXTS, 400)
    sizes = {
        "vocab_size": len(tokeniser),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "cls_token_id": 2,
        "sep_token_id": 3,
    }
    if kind == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
        sizes = {key: value for key, value in sizes.items() if "hidden_s" not in key}
        for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
            sizes.pop(name)
    torch.manual_seed(3)
    settings = transformers.AutoConfig.for_model(kind, **{**sizes, **changes})
    transformers.AutoModel.from_config(settings).save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory):
    """A tiny BERT in the layout of the Hub."""
    return encoder(tmp_path_factory.mktemp("hub") / "tiny-bert")


def table(path, rows, header=("text", "label"), mark=","):
    """Write rows as CSV or TSV."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        if mark == "\t":
            stream.writelines("\t".join(map(str, row)) + "\n" for row in [header, *rows])
        else:
            csv.writer(stream).writerows([header, *rows])
    return path


@pytest.fixture
def reviews(here):
    """A CSV file of labelled texts."""
    return table(here / "reviews.csv", zip(TEXTS, LABELS, strict=True))


def message(shown):
    """The one line of an error."""
    return shown.err.strip().splitlines()[-1]


# ---- four commands from a CSV file to a pipeline ---------------------------------------------


def test_a_csv_file_becomes_a_model_that_a_pipeline_serves(train, run, reviews, hub_folder):
    result = train("--model", hub_folder, "--data", reviews, "--out", "r")
    assert result["test"]["accuracy"]["n"] == 48
    assert result["test"]["accuracy"]["baseline"] == 0.5
    evaluated = json.loads(run("evaluate", "r", "--json").out)["data"]
    assert evaluated["accuracy"] == result["test"]["accuracy"]
    assert len(evaluated["hardest"]) == 5
    said = json.loads(run("predict", "r", *TEXTS[:3], "--top", "2", "--json").out)["data"]
    exported = json.loads(run("export", "r", "--out", "e", "--json").out)["data"]
    assert exported["largest_difference"] < 1e-5
    for folder in ("e", "r/model"):
        pipeline = transformers.pipeline("text-classification", model=folder, device="cpu")
        for row, answer in zip(said["predictions"], pipeline(TEXTS[:3]), strict=True):
            assert answer["label"] == row["label"]
            assert answer["score"] == pytest.approx(row["probability"], abs=1e-5)


def test_default_command_learns_made_up_sentences_and_says_what_they_are(run, here):
    shown = run("train", "--threads", "1", "--max-train", "1000", "--epochs", "1", "--out", "r")
    assert "made by a grammar" in shown.err
    assert "no real text" in shown.err
    for name in ("curves.png", "confusion-test.png", "metrics.jsonl", "start/tokenizer.json"):
        assert (here / "r" / name).stat().st_size
    lines = run("predict", "r", "the soup was bad", "", "the soup was good").out.splitlines()
    assert lines[1] == "–  (the text is empty)"
    assert lines[0].endswith("the soup was bad")
    shown = run("info", "r")
    assert "layer 2" in shown.out
    assert "scratch" in shown.out
    run("train", "--resume", "r")


@pytest.mark.parametrize("kind", ["distilbert", "electra", "modernbert", "deberta-v2"])
def test_other_encoders_work_too(kind, train, run, here, reviews):
    folder = encoder(here / "m", kind)
    result = train("--model", folder, "--data", reviews, "--max-train", "64", "--out", "r")
    assert result["test"]["accuracy"]["n"] == 48
    assert json.loads(run("export", "r", "--out", "e", "--json").out)["status"] == "ok"


def test_pairs_are_told_apart_by_their_segments(train, run, here, hub_folder):
    rows = [
        (a, b, "same" if x == y else "other")
        for (a, x), (b, y) in zip(
            zip(TEXTS[:100], LABELS[:100], strict=True),
            zip(TEXTS[100:200], LABELS[100:200], strict=True),
            strict=True,
        )
    ]
    file = table(here / "pairs.tsv", rows, ("sentence1", "sentence2", "label"), "\t")
    result = train("--model", hub_folder, "--data", file, "--out", "r")
    facts = json.loads((here / "r" / "data.json").read_text(encoding="utf-8"))
    assert facts["paired"]
    said = run("predict", "r", rows[0][0], "--pair", rows[0][1], "--json")
    from_file = run("predict", "r", file, "--json")
    rows_said = json.loads(from_file.out)["data"]["predictions"]
    assert len(rows_said) == 100
    one = json.loads(said.out)["data"]["predictions"][0]
    assert one["probability"] == pytest.approx(rows_said[0]["probability"], abs=1e-5)
    assert "pairs" in message(run("predict", "r", "a text", code=2))
    assert result["test"]["accuracy"]["n"] == 20
    run("export", "r", "--out", "e")


def test_numbers_come_back_in_their_own_units(train, run, here, hub_folder):
    rows = [(text, 100 + 3.5 * len(text)) for text in TEXTS[:120]]
    file = here / "lengths.jsonl.gz"
    lines = "".join(json.dumps({"text": a, "score": b}) + "\n" for a, b in rows)
    file.write_bytes(gzip.compress(lines.encode()))
    result = train("--model", hub_folder, "--data", file, "--out", "r", "--epochs", "4")
    assert result["task"] == "regress"
    assert result["test"]["mae"]["baseline"] > 1
    value = json.loads(run("predict", "r", TEXTS[0], "--json").out)["data"]["predictions"][0]
    assert 150 < value["value"] < 400
    pipeline = transformers.pipeline("text-classification", model="r/model", device="cpu")
    theirs = pipeline(TEXTS[0], function_to_apply="none")[0]["score"]
    assert theirs == pytest.approx(value["value"], rel=1e-5)


def test_several_labels_of_one_text(train, run, here, hub_folder):
    rows = [
        (text, "|".join([label, "long"] if len(text) > 40 else [label]))
        for text, label in zip(TEXTS, LABELS, strict=True)
    ]
    result = train("--model", hub_folder, "--data", table(here / "m.csv", rows), "--out", "r")
    assert result["task"] == "multilabel"
    assert [row["class"] for row in result["test"]["classes"]] == ["long", "negative", "positive"]
    said = json.loads(run("predict", "r", TEXTS[0], "--json").out)["data"]["predictions"][0]
    assert set(said["labels"]) <= {"long", "negative", "positive"}


def test_low_rank_additions_are_merged_and_the_base_stays(train, run, here, reviews, hub_folder):
    train("--model", hub_folder, "--data", reviews, "--lora-rank", "2", "--out", "r")
    began = load_file(hub_folder / "model.safetensors")
    best = load_file(here / "r" / "checkpoints" / "best" / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    kept = next(value for key, value in best.items() if key.endswith(name))
    assert torch.equal(kept, began[name])
    finished = json.loads(run("evaluate", "r", "--json").out)["data"]
    # an unfinished run is used through its additions, a finished one through the merged weights
    shutil.move(here / "r" / "model", here / "moved")
    unfinished = json.loads(run("evaluate", "r", "--json").out)["data"]
    assert unfinished["loss"] == pytest.approx(finished["loss"], abs=1e-5)


def test_a_frozen_encoder_does_not_move(train, here, reviews, hub_folder):
    train("--model", hub_folder, "--data", reviews, "--freeze", "encoder", "--out", "r")
    began = load_file(hub_folder / "model.safetensors")
    ended = load_file(here / "r" / "model" / "model.safetensors")
    same = {name: torch.equal(began[name], ended["bert." + name]) for name in began}
    assert all(is_same for name, is_same in same.items() if "pooler" not in name)
    assert not same["pooler.dense.weight"]


def test_layers_are_freed_one_by_one(train, here, reviews, hub_folder):
    arguments = ("--model", hub_folder, "--data", reviews, "--gradual", "--out", "r")
    train(*arguments, "--epochs", "2")
    began = load_file(hub_folder / "model.safetensors")
    ended = load_file(here / "r" / "model" / "model.safetensors")
    moved = {
        name.split(".")[2]
        for name in began
        if "layer." in name and not torch.equal(began[name], ended["bert." + name])
    }
    assert moved <= {"1"}


# ---- what a user gets wrong -----------------------------------------------------------------


def rows_of(count=40):
    return list(zip(TEXTS[:count], LABELS[:count], strict=True))


BAD_DATA = {
    "no label column": (lambda: [(a, b, b) for a, b in rows_of()], ("text", "x", "z"), "--label"),
    "one class": (
        lambda: [(a, "yes") for a, _ in rows_of()],
        ("text", "label"),
        "all of the class",
    ),
    "no text": (lambda: [(" ", b) for _, b in rows_of()], ("text", "label"), "both a text"),
    "free text as label": (lambda: [(a, a) for a, _ in rows_of()], ("text", "label"), "no classes"),
    "too few": (lambda: [*rows_of(), ("rare", "odd")], ("text", "label"), "odd has 1 item"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_line_with_a_cure(case, run, here):
    rows, header, words = BAD_DATA[case]
    file = table(here / "bad.csv", rows(), header)
    shown = message(run("train", *QUICK, "--data", file, code=5))
    assert words in shown
    assert "Cure:" in shown


def test_labels_that_training_never_saw_name_file_and_line(run, here, reviews, hub_folder):
    test = table(here / "test.csv", [("a new text", "positive"), ("another one", "mixed")])
    shown = run("train", "--data", reviews, "--test-data", test, "--model", hub_folder, code=5)
    assert "test.csv, line 3: the label 'mixed'" in message(shown)


def test_a_test_file_that_repeats_training_texts_is_refused(run, here, reviews, hub_folder):
    leaking = [(text.upper() + "!", label) for text, label in rows_of()]
    test = table(here / "test.csv", leaking)
    arguments = ("--data", reviews, "--test-data", test, "--model", hub_folder)
    assert "G-D04" in message(run("train", *QUICK, *arguments, code=6))
    run("train", *QUICK, *arguments, "--guards", "off", "--out", "r")


def test_texts_that_are_too_long_are_cut_and_counted(train, run, here, hub_folder):
    rows = [
        (text + " bad" * (500 if number % 10 == 0 else 0), label)
        for number, (text, label) in enumerate(rows_of(100))
    ]
    result = train("--model", hub_folder, "--data", table(here / "l.csv", rows), "--out", "r")
    assert sum(result["cut"].values()) == 10
    shown = run("predict", "r", "word " * 200_000, TEXTS[0])
    assert "was cut" in shown.err
    assert len(shown.out.splitlines()) == 2


def test_a_head_for_other_classes_is_replaced_only_when_asked(
    train, run, here, reviews, hub_folder
):
    train("--model", hub_folder, "--data", reviews, "--out", "r")
    three = [(text, "abc"[number % 3]) for number, text in enumerate(TEXTS)]
    file = table(here / "three.csv", three)
    shown = message(run("train", "--model", "r", "--data", file, code=5))
    assert "2 (negative, positive)" in shown or "2 classes (negative, positive)" in shown
    assert "--new-head" in shown
    train("--model", "r", "--data", file, "--new-head", "--out", "r3")
    train("--model", "r", "--data", reviews, "--out", "again")


def test_a_head_that_was_never_trained_is_not_used(run, here, hub_folder):
    shown = message(run("predict", hub_folder, "a text", code=5))
    assert "random" in shown
    assert "train --model" in shown


def damaged(folder, hub_folder, kind):
    shutil.copytree(hub_folder, folder)
    weights = folder / "model.safetensors"
    if kind == "pickle only":
        torch.save(load_file(weights), folder / "pytorch_model.bin")
        weights.unlink()
    elif kind == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif kind == "pointer":
        weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif kind == "other vocabulary":
        tokens.train_wordpiece(TEXTS, 100).save_pretrained(folder)
    elif kind == "no config":
        (folder / "config.json").unlink()
    elif kind == "no tokeniser":
        (folder / "tokenizer.json").unlink()
    elif kind == "half the weights":
        kept = {k: v for k, v in load_file(weights).items() if "layer.1" not in k}
        save_file(kept, weights, metadata={"format": "pt"})
    else:
        code = f"open({str(folder.parent / 'ran')!r}, 'w')"
        (folder / "own.py").write_text(code, encoding="utf-8")
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        settings["model_type"] = "no-such-model"
        settings["auto_map"] = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
        (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


DAMAGE = {
    "pickle only": "dltool checkpoint convert",
    "cut": "model.safetensors",
    "pointer": "model.safetensors",
    "other vocabulary": "do not belong together",
    "no config": "config.json",
    "no tokeniser": "tokeniser",
    "half the weights": "missing",
    "code of its own": "cannot be used",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_model_folder_that_is_not_whole_is_named(kind, run, here, reviews, hub_folder):
    folder = damaged(here / "m", hub_folder, kind)
    shown = run("train", *QUICK, "--model", folder, "--data", reviews, "--out", "r", code=5)
    assert DAMAGE[kind] in message(shown)
    assert not (here / "r").exists()
    assert not (here / "ran").exists()


def test_no_folder_and_no_hub_is_one_line(run, here):
    for name in ("./nothing", "bert-base-uncased"):
        shown = message(run("train", "--model", name, code=5))
        assert "--model FOLDER" in shown or "check the path" in shown


def test_a_hub_that_does_not_answer_is_told_within_seconds(dltool):
    arguments = ("bert-finetune", "train", "--model", "bert-base-uncased")
    # nothing listens on this port
    variables = {"DLTOOL_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    started = time.monotonic()
    done = dltool(*arguments, code=5, **variables)
    assert time.monotonic() - started < 60  # a hang, not a speed test
    assert done.err.splitlines()[-1].startswith("error E504")
    assert "--model FOLDER" in done.err
    assert not any("Error" in line or "File" in line for line in done.err.splitlines()[:-1])
    offline = dltool(*arguments, code=5, **{**variables, "HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE forbids" in offline.err


def test_a_missing_library_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    shown = message(run("train", code=3))
    assert "pip install 'dltool[bert]'" in shown


def test_settings_that_contradict_each_other(run):
    for arguments in (
        ("--gradual",),
        ("--text", "a"),
        ("--model", "x", "--lora-rank", "2", "--freeze", "1"),
        ("--max-tokens", "10"),
    ):
        assert "error E205" in message(run("train", *arguments, code=2))
    assert "did you mean" in message(run("train", "--task", "clasify", code=2))


def test_an_onnx_graph_answers_as_the_model_does(train, run, here, reviews, hub_folder):
    train("--model", hub_folder, "--data", reviews, "--out", "r")
    found = json.loads(run("export", "r", "--format", "onnx", "--out", "o", "--json").out)["data"]
    assert "model.onnx" in found["files"]
    assert found["largest_difference"] < 1e-5
    assert "E204" in message(run("export", "r", "--out", "o", code=2))


# ---- vectors --------------------------------------------------------------------------------


def test_vectors_are_the_mean_of_the_tokens_whatever_stands_beside(run, here, hub_folder):
    texts = [TEXTS[0], "the soup was good but the bread was not very bad last night", "tea"]
    run("encode", hub_folder, *texts, "--out", "v.jsonl")
    rows = [json.loads(line) for line in (here / "v.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows] == texts
    network = transformers.AutoModel.from_pretrained(hub_folder).eval()
    tokeniser = transformers.AutoTokenizer.from_pretrained(hub_folder)
    for row in rows:
        with torch.no_grad():
            hidden = network(**tokeniser(row["text"], return_tensors="pt")).last_hidden_state
        assert torch.tensor(row["vector"]) == pytest.approx(hidden[0].mean(0).numpy(), abs=1e-5)


def test_similarity_orders_texts_by_their_cosine(run, hub_folder):
    shown = run(
        "similarity", hub_folder, "the tea was good", "a scene", "the tea was good", "--json"
    )
    rows = json.loads(shown.out)["data"]["others"]
    assert rows[0] == {"text": "the tea was good", "cosine": pytest.approx(1.0, abs=1e-5)}
    assert "two texts" in message(run("similarity", hub_folder, "one", code=2))
    assert "empty" in message(run("encode", hub_folder, " ", code=5))


def test_tokens_show_pieces_and_segments(run, hub_folder):
    shown = run("tokens", hub_folder, "The soup", "was good", "--json")
    found = json.loads(shown.out)["data"]
    assert found["tokens"] == ["[CLS]", "the", "soup", "[SEP]", "was", "good", "[SEP]"]
    assert found["segments"] == [0, 0, 0, 0, 1, 1, 1]


# ---- which words ----------------------------------------------------------------------------


def test_the_weight_of_a_word_is_what_the_answer_loses_without_it(train, run, here, reviews):
    train("--data", reviews, "--size", "tiny", "--out", "r", "--epochs", "2")
    text = "The soup was <good> & the bread fine"
    shown = run("explain", "r", text, "--label", "positive", "--out", "w.html", "--json")
    found = json.loads(shown.out)["data"]
    words = [row["word"] for row in found["words"]]
    assert words == ["The", "soup", "was", "<", "good", ">", "&", "the", "bread", "fine"]
    network = transformers.AutoModelForSequenceClassification.from_pretrained("r/model").eval()
    tokeniser = transformers.AutoTokenizer.from_pretrained("r/model")
    with torch.no_grad():
        whole, without = (
            network(**tokeniser(each, return_tensors="pt")).logits.log_softmax(1)[0, 1]
            for each in (text, text.replace("good", "[MASK]"))
        )
    assert found["words"][4]["weight"] == pytest.approx(float(whole - without), abs=1e-5)
    page = (here / "w.html").read_text(encoding="utf-8")
    assert "&lt;" in page
    assert ">good</span>" in page
    assert "no class" in message(run("explain", "r", text, "--label", "x", code=2))
    assert "empty" in message(run("explain", "r", " ", code=5))
