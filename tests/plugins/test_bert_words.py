"""Tagged words in the `bert-finetune` topic: files, alignment, entities, the command line."""

import json
import random

import numpy as np
import pytest
import torch
from dltool_bert_finetune import answering, entities, kept, tagging, tagging_data, tasks, tokens
from dltool_bert_finetune.answering_data import Answer, Question, Questions
from dltool_bert_finetune.columns import Columns
from dltool_bert_finetune.tagging_data import as_iob2
from dltool_bert_finetune.targets import Targets
from dltool_bert_finetune.tokens import IGNORED

from dltool import cli
from dltool.console import Console
from dltool.errors import ConfigError, DataError

transformers = pytest.importorskip("transformers")
QUICK = ("--epochs", "2", "--threads", "1", "--lr", "2e-3", "--batch-size", "16")
CONSOLE = Console("test")


def sentences(count=120, seed=0):
    """Sentences of a grammar: people who go to places, some of two words."""
    stream = random.Random(seed)
    people = ["Ada", "Bert", "Clara", "Emil", "Frida", "Otto", "Rosa"]
    places = ["Berlin", "Paris", "Oslo", "Rome", "New York", "San Marino"]
    found = []
    for _ in range(count):
        row = [(stream.choice(people), "B-PER")]
        if stream.random() < 0.5:
            row.append((stream.choice(["Meyer", "Lovelace", "Schulz"]), "I-PER"))
        row += [(word, "O") for word in stream.choice(["went to", "lives in", "left"]).split()]
        for number, word in enumerate(stream.choice(places).split()):
            row.append((word, "I-LOC" if number else "B-LOC"))
        row += [("today", "O")] * stream.randint(0, 3) + [(".", "O")]
        found.append(row)
    return found


SOURCE = tagging_data.Sentences(
    [[word for word, _ in row] for row in sentences(30)],
    [[tag for _, tag in row] for row in sentences(30)],
    [str(number) for number in range(30)],
    [f"f, line {number}" for number in range(30)],
)
ASKED = Questions(
    [
        Question("Who went ?", text, (Answer(text.split()[0], 0),) * (number % 3 > 0), "d", "f")
        for number, text in enumerate(SOURCE.texts)
    ]
)


def conll(path, rows):
    path.write_text(
        "\n".join("".join(f"{a}\t{b}\n" for a, b in row) for row in rows), encoding="utf-8"
    )
    return path


def bpe_folder(folder, kind, **changes):
    """Save a tiny encoder of another family with a byte-level tokeniser, as RoBERTa has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=special,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner.train_from_iterator([" ".join(w for w, _ in row) for row in sentences()], trainer)
    learner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    tokeniser = transformers.PreTrainedTokenizerFast(
        tokenizer_object=learner,
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        **names,
        model_input_names=["input_ids", "attention_mask"],
    )
    torch.manual_seed(1)
    settings = transformers.AutoConfig.for_model(
        kind,
        vocab_size=len(tokeniser),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        cls_token_id=0,
        sep_token_id=2,
        **changes,
    )
    transformers.AutoModel.from_config(settings).save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return folder


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


# ---- tags and entities ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A O B-B", "B-A I-A O B-B"),
        ("I-A I-A O I-B B-B I-A", "B-A I-A O B-B B-B B-A"),
        ("B-A E-A S-A O B-B I-B E-B", "B-A I-A B-A O B-B I-B I-B"),
        ("B-A L-A U-A U-B O", "B-A I-A B-A B-B O"),
        ("B-A I-B", "B-A B-B"),
    ],
    ids=["IOB2", "IOB1", "BIOES", "BILOU", "another type"],
)
def test_every_scheme_says_the_same_in_iob2(tags, expected):
    assert as_iob2(tags.split()) == expected.split()


# precision, recall, F1 and macro F1 are those that seqeval 1.2.2 gives for these lines
TRUE = """B-PER I-PER O B-LOC
O I-ORG I-ORG B-ORG O
B-LOC B-LOC I-PER O
S-PER O B-ORG I-ORG E-ORG S-ORG
B-ORG I-LOC I-LOC O B-PER
O O O"""
SAID = """B-PER I-PER O O
O I-ORG I-ORG I-ORG O
B-LOC I-LOC I-PER O
S-PER O B-ORG I-ORG I-ORG S-ORG
B-ORG I-ORG I-LOC O I-PER
O B-PER O"""


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_measures_of_entities_are_those_of_seqeval():
    found = entities.measure(rows(TRUE), rows(SAID), grouped=True)
    assert found["precision"] == pytest.approx(6 / 11)
    assert found["recall"] == pytest.approx(6 / 13)
    assert found["f1"]["value"] == pytest.approx(0.5)
    assert found["macro_f1"] == pytest.approx(4 / 9)
    shares = {row["class"]: row["f1"] for row in found["classes"]}
    assert shares == {"LOC": 0, "ORG": pytest.approx(4 / 9), "PER": pytest.approx(8 / 9)}
    assert found["f1"]["low"] < 0.5 < found["f1"]["high"]


def test_the_interval_of_f1_is_that_of_drawing_sentences_again():
    stream = np.random.default_rng(0)
    there = stream.integers(0, 5, 300)
    found = stream.binomial(there, 0.7)
    named = found + stream.binomial(2, 0.2, 300)
    counts = np.stack([found, named, there], axis=1)
    low, high = entities._interval([tuple(row) for row in counts.tolist()])
    sums = np.stack([counts[stream.integers(0, 300, 300)].sum(0) for _ in range(2000)])
    values = 2 * sums[:, 0] / (sums[:, 1] + sums[:, 2])
    assert (low, high) == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.006)


def test_all_right_is_not_certain():
    found = entities.measure(rows(TRUE), rows(TRUE), grouped=True)["f1"]
    assert found["value"] == 1
    assert 0.7 < found["low"] < 0.9


def test_the_baseline_gives_each_word_its_commonest_tag():
    known = entities.lexicon([["a", "b"], ["a"], ["a"]], [["O", "B-X"], ["B-Y"], ["O"]])
    assert entities.from_lexicon(known, [["a", "b", "new"]]) == [["O", "B-X", "O"]]


# ---- files ----------------------------------------------------------------------------------


def read(path, **columns):
    return tagging_data.read(
        str(path), Columns(**{"text": "", **columns}), encoding="utf-8", console=CONSOLE
    )


def test_conll_columns_documents_and_comments(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text(
        "-DOCSTART- -X- O O\n\n# sent_id = 1\nEU NNP B-NP I-ORG\n# NN O O\nrejects VBZ B-VP O\n\n"
        "-DOCSTART- -X- O O\n\nPeter NNP B-NP I-PER\n\n\n",
        encoding="utf-8",
    )
    found = read(path)
    assert found.words == [["EU", "#", "rejects"], ["Peter"]]
    assert found.tags == [["B-ORG", "O", "O"], ["B-PER"]]
    assert len(set(found.documents)) == 2
    assert found.places[0].endswith("line 4")
    assert read(path, label="2").tags == [["NNP", "NN", "VBZ"], ["NNP"]]
    assert tagging_data.holds_tags(str(path), "utf-8")


def test_json_lines_with_words_and_tags(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [{"tokens": ["Ada", " ", "sang"], "ner_tags": ["U-PER", "O", "O"]}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert read(path).tags == [["B-PER", "O"]]  # the word without a character is left out
    assert tagging_data.holds_tags(str(path), "utf-8")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a O\nb\n", "1 columns"),
        ("a O\nb O O\n", "3 columns"),
        ("\n\n", "no sentence"),
        ("", "no sentence"),
    ],
    ids=["no tag", "more columns", "only empty lines", "empty"],
)
def test_a_damaged_conll_file_is_one_line(content, words, tmp_path):
    path = tmp_path / "a.conll"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read(path)


def test_a_file_of_another_kind_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\na,b\n", encoding="utf-8")
    with pytest.raises(DataError, match="promises no tagged words"):
        read(path)


def test_words_and_tags_must_pair_up(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"tokens": ["a", "b"], "tags": ["O"]}\n', encoding="utf-8")
    with pytest.raises(DataError, match="2 words and 1 tags"):
        read(path)
    with pytest.raises(ConfigError, match="numbers a column"):
        read(conll(tmp_path / "a.conll", sentences(2)), label="tag")


# ---- words and pieces -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokeniser():
    texts = [" ".join(word for word, _ in row) for row in sentences()]
    learnt = tokens.train_wordpiece(texts, 60)  # few pieces: words fall apart
    settings = transformers.BertConfig(vocab_size=len(learnt), max_position_embeddings=512)
    return tokens.wrap(learnt, settings, 16)


def test_pieces_belong_to_words_as_the_library_says(tokeniser):
    whole = tokens.wrap(
        tokeniser.library, transformers.BertConfig(vocab_size=len(tokeniser.library)), 512
    )
    for row in sentences(20):
        words = [word for word, _ in row]
        found = tagging.encode(whole, [" ".join(words)], [tagging.spans_of_words(words)], 8)
        theirs = whole.whole.encode(words, is_pretokenized=True)
        assert found.tokens.ids.tolist() == theirs.ids
        assert found.places.tolist() == [theirs.word_ids.index(n) for n in range(len(words))]


def test_each_word_of_a_long_text_is_read_once_and_away_from_the_edges(tokeniser):
    words = [word for row in sentences(12) for word, _ in row]
    assert tokeniser.max_length == 16
    found = tagging.encode(tokeniser, [" ".join(words)], [tagging.spans_of_words(words)], 6)
    assert len(found.tokens) > 10
    assert found.tokens.cut == 1
    assert (found.places >= 0).all()
    assert len(set(found.places.tolist())) == len(words)
    vocabulary = tokeniser.library.convert_ids_to_tokens(found.tokens.ids[found.places].tolist())
    for piece, word in zip(vocabulary, words, strict=True):
        assert word.lower().startswith(piece), (piece, word)
    own = (found.places % 16)[20:-20]  # windows are full but for the last
    assert own.min() >= 3
    assert own.max() <= 12


def test_labels_stand_at_first_pieces_and_nowhere_else(tokeniser):
    source = tagging_data.Sentences([["Lovelace", "sang"]], [["B-PER", "O"]], ["d"], ["f, line 1"])
    spans = [tagging.spans_of_words(words) for words in source.words]
    pieces = tagging.encode(tokeniser, source.texts, spans, 5)
    settled = tagging.settle(source)
    assert settled.classes == ("O", "B-PER", "I-PER")
    labels = tagging.labels(pieces, source, settled)
    assert (labels != IGNORED).sum() == 2
    assert labels[pieces.places].tolist() == [1, 0]
    other = tagging_data.Sentences([["a"]], [["B-ORG"]], ["d"], ["f, line 9"])
    with pytest.raises(DataError, match="line 9: the tag 'B-ORG'"):
        tagging.labels(tagging.encode(tokeniser, ["a"], [[tagging.Span(0, 1)]], 5), other, settled)


def test_a_word_that_leaves_no_piece_is_outside(tokeniser):
    words = ["Ada", "\u200b", "went"]
    pieces = tagging.encode(tokeniser, [" ".join(words)], [tagging.spans_of_words(words)], 5)
    assert pieces.places[1] == tagging.NOWHERE
    logits = torch.zeros(len(pieces.tokens.ids), 2)
    logits[:, 1] = 5
    assert tagging.tags_of(logits, pieces, [3], ("O", "B-X"))[0] == [["B-X", "O", "B-X"]]


@pytest.mark.parametrize("kind", ["words", "questions"])
def test_large_sets_are_encoded_once_and_mapped(kind, tokeniser, here, monkeypatch):
    found = tagging.settle(SOURCE) if kind == "words" else Targets("qa", unanswerable=True)
    source = SOURCE if kind == "words" else ASKED
    plain = tasks.encode(tokeniser, source, found, 0, CONSOLE)
    monkeypatch.setattr(kept, "FROM", 0)
    for _ in range(2):
        mapped = tasks.encode(tokeniser, source, found, 0, CONSOLE)
        assert isinstance(mapped.tokens.ids, np.memmap)
        assert torch.equal(mapped.values, plain.values)
        logits = torch.randn(len(plain.tokens.ids), len(found.classes) or 2)
        assert tasks.measure(logits, mapped, found) == tasks.measure(logits, plain, found)
        assert torch.equal(tasks.losses(logits, mapped), tasks.losses(logits, plain))
        monkeypatch.setattr(tagging, "encode", None)  # from now on it is not called
        monkeypatch.setattr(answering, "encode", None)
    path = next(here.rglob("tokens-ids.npy"))
    path.write_bytes(path.read_bytes()[:-4])  # damaged: it is made again
    monkeypatch.undo()
    monkeypatch.setenv("DLTOOL_HOME", str(here / "home"))
    monkeypatch.setattr(kept, "FROM", 0)
    assert torch.equal(tasks.encode(tokeniser, source, found, 0, CONSOLE).values, plain.values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "Ada's dog (in Paris), U.S. 3.5",
            ["Ada's", "dog", "(", "in", "Paris", ")", ",", "U.S", ".", "3.5"],
        ),
        ("我爱北京 and Köln!", ["我", "爱", "北", "京", "and", "Köln", "!"]),
        ("  ", []),
    ],
    ids=["signs", "no spaces", "empty"],
)
def test_words_of_a_text_as_it_is_written(text, words):
    assert [text[span.start : span.end] for span in tagging.spans_in(text)] == words


# ---- the command ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    return bpe_folder(tmp_path_factory.mktemp("hub") / "tiny", "roberta", type_vocab_size=1)


def test_a_conll_file_becomes_a_model_that_a_pipeline_serves(run, here, roberta):
    file = conll(here / "ner.conll", sentences(300))
    common = ("train", "--model", roberta, "--data", file, *QUICK, "--epochs", "4")
    shown = run(*common, "--out", "r", "--json")
    assert "to find: entities" in shown.err
    result = json.loads(shown.out)["data"]
    assert result["task"] == "token"
    assert result["test"]["f1"]["value"] > 0.9
    assert {"low", "high", "n", "baseline"} <= set(result["test"]["f1"])
    evaluated = json.loads(run("evaluate", "r", "--json").out)["data"]
    assert evaluated["f1"] == result["test"]["f1"]
    text = "Ada Lovelace went to New York today ."
    said = json.loads(run("predict", "r", text, "", "--json").out)["data"]["predictions"]
    found = [(row["label"], row["start"], row["end"]) for row in said[0]["entities"]]
    assert found == [("PER", 0, 12), ("LOC", 21, 29)]
    assert said[1]["problem"] == "the text is empty"
    assert json.loads(run("export", "r", "--out", "e", "--json").out)["data"]["checked_texts"]
    pipeline = transformers.pipeline("token-classification", model="e", device="cpu")
    theirs = {row["start"]: row["entity"] for row in pipeline(text)}
    assert theirs[0] == "B-PER"
    assert theirs[25 if 25 in theirs else 21].endswith("LOC")
    # stopped and resumed it ends with the same bytes; unfinished it is used as it is
    run(*common, "--out", "s", "--max-time", "0.001s")
    run("train", "--resume", "s", "--max-time", "10m")
    one, two = ((here / name / "model" / "model.safetensors").read_bytes() for name in "rs")
    assert one == two
    run("predict", "r", file)
    swapped = [[(word, tag.replace("PER", "LOC")) for word, tag in row] for row in sentences(40)]
    wrong = conll(here / "wrong.conll", swapped)
    shown = run("evaluate", "r", "--data", wrong, "--min-f1", "0.9", code=6)
    assert "E601" in shown.err
    assert "said ['Ada" in shown.out or "[PER]" in shown.out
    assert "tags words" in run("predict", "r", "x", "--top", "2", code=2).err
    assert "one answer a text" in run("explain", "r", text, code=2).err


def test_a_class_of_each_word_and_a_long_text(run, here, roberta):
    rows = [
        [(word, "CAP" if word[0].isupper() else "LOW") for word, _ in row] for row in sentences()
    ]
    lines = [{"words": [a for a, _ in row], "tags": [b for _, b in row]} for row in rows]
    (here / "pos.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    shown = run("train", "--model", roberta, "--data", "pos.jsonl", *QUICK, "--out", "r", "--json")
    assert "a class of each word" in shown.err
    # the additions stand in the encoder, and the head is trained as a whole
    low = ("--lora-rank", "2", "--out", "low")
    run("train", "--model", roberta, "--data", "pos.jsonl", *QUICK, *low)
    assert json.loads(run("predict", "low", "Ada went", "--json").out)["status"] == "ok"
    long = "Ada went to Rome today . " * 60
    said = json.loads(run("predict", "r", long, "--json").out)["data"]["predictions"][0]["entities"]
    assert len(said) == 6 * 60
    assert said[-6]["text"] == "Ada"
    assert "last" not in shown.err
    assert (
        "--stride 40 is more"
        in run("train", "--model", roberta, "--data", "pos.jsonl", "--stride", "40", code=2).err
    )


def test_other_tasks_and_heads_are_refused(run, here, roberta):
    file = conll(here / "a.conll", sentences(60))
    run("train", "--model", roberta, "--data", file, *QUICK, "--out", "r")
    (here / "t.csv").write_text(
        "text,label\n" + "".join(f"text {n} here,{'ab'[n % 2]}\n" for n in range(40)),
        encoding="utf-8",
    )
    shown = run("train", "--model", "r", "--data", "t.csv", code=5)
    assert "head for another task" in shown.err
    assert "--new-head" in shown.err
    for idle in (("--stride", "9"), ("--task", "regress", "--class-weights", "balanced")):
        numbers = ("--label", "label") if "regress" not in idle else ()
        shown = run("train", "--data", "t.csv", *numbers, *idle, code=2 if numbers else 5)
    one = [[("a", "O"), ("b", "O")]] * 20
    shown = run("train", "--data", conll(here / "o.conll", one), code=5)
    assert "all have the tag 'O'" in shown.err
