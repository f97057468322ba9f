"""Questions and answers in the `bert-finetune` topic: files, windows, spans, the command line."""

import itertools
import json
import random

import numpy as np
import pytest
import torch
from dltool_bert_finetune import answering, answering_data, by_document, columns, squad, tokens
from dltool_bert_finetune.answering_data import Answer, Question, Questions
from dltool_bert_finetune.columns import Columns
from dltool_bert_finetune.targets import Targets
from torchmetrics.functional.text import squad as reference

from dltool import cli
from dltool.console import Console
from dltool.errors import DataError

transformers = pytest.importorskip("transformers")
QUICK = ("--epochs", "2", "--threads", "1", "--lr", "2e-3", "--batch-size", "16")
CONSOLE = Console("test")


def questions(count=60, seed=0, unanswerable=False):
    """Questions about sentences of a grammar, several of one article."""
    stream = random.Random(seed)
    people = ["Ada", "Bert", "Clara", "Emil", "Frida", "Otto"]
    places = ["Berlin", "Paris", "New York", "Rome", "Oslo"]
    found = []
    for number in range(count):
        place, year = stream.choice(places), str(stream.randint(1800, 1999))
        context = f"{stream.choice(people)} went to {place} , where it rained in {year} all day ."
        asked = [("Where did they go ?", place), ("When did it rain ?", year)]
        for question, answer in asked[: 2 - unanswerable]:
            answers = (Answer(answer, context.index(answer)),)
            found.append(Question(question, context, answers, f"article {number // 4}", "f"))
        if unanswerable:
            found.append(Question("Who sang ?", context, (), f"article {number // 4}", "f"))
    return found


def squad_file(path, rows, version="1.1"):
    articles = []
    for title, group in itertools.groupby(rows, key=lambda row: row.document):
        paragraphs = []
        for context, inner in itertools.groupby(group, key=lambda row: row.context):
            qas = [
                {
                    "id": f"{title}-{number}",
                    "question": row.question,
                    "is_impossible": not row.answers,
                    "answers": [{"text": a.text, "answer_start": a.start} for a in row.answers],
                }
                for number, row in enumerate(inner)
            ]
            paragraphs.append({"context": context, "qas": qas})
        articles.append({"title": title, "paragraphs": paragraphs})
    path.write_text(json.dumps({"version": version, "data": articles}), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tokeniser():
    texts = [f"{row.question} {row.context}" for row in questions()]
    learnt = tokens.train_wordpiece(texts, 120)
    settings = transformers.BertConfig(vocab_size=len(learnt), max_position_embeddings=512)
    return tokens.wrap(learnt, settings, 32)


@pytest.fixture(scope="module")
def hub_folder(tokeniser, tmp_path_factory):
    """A tiny DeBERTa in the layout of the Hub: relative positions, and a head of its own form."""
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    torch.manual_seed(2)
    settings = transformers.DebertaV2Config(
        vocab_size=len(tokeniser.library),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        relative_attention=True,
        position_buckets=16,
        pos_att_type=["p2c", "c2p"],
        type_vocab_size=0,
        pad_token_id=0,
    )
    transformers.AutoModel.from_config(settings).save_pretrained(folder)
    tokeniser.library.save_pretrained(folder)
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


# ---- measures -------------------------------------------------------------------------------


def test_scores_are_those_of_the_script():
    stream = random.Random(1)
    words = ["the", "Cat", "a", "dog,", "dog", "U.S.", "1,000", "sat", "An", "(old)"]
    said, true = [], []
    for _ in range(200):
        true.append([" ".join(stream.choices(words, k=stream.randint(1, 4))) for _ in range(2)])
        said.append(" ".join(stream.choices(words, k=stream.randint(1, 4))))
    known = [n for n in range(200) if all(map(squad.normalised, [said[n], *true[n]]))]
    rows = [Question("q", "c", tuple(Answer(t, 0) for t in true[n]), "d", "f") for n in known]
    found = squad.measure([said[n] for n in known], rows)
    theirs = reference(
        [{"prediction_text": said[n], "id": str(n)} for n in known],
        [{"answers": {"text": true[n], "answer_start": [0, 0]}, "id": str(n)} for n in known],
    )
    assert 100 * found["exact_match"]["value"] == pytest.approx(float(theirs["exact_match"]))
    assert 100 * found["f1"]["value"] == pytest.approx(float(theirs["f1"]), rel=1e-5)
    assert 0 < found["exact_match"]["value"] < found["f1"]["value"] < 1


def test_questions_without_an_answer_ask_for_nothing():
    assert squad.best_of(squad.overlap, "", []) == 1
    assert squad.best_of(squad.overlap, "something", []) == 0
    assert squad.best_of(squad.exact, "", ["yes"]) == 0
    assert squad.best_of(squad.exact, "", ["the"]) == 1  # nothing is left of it
    rows = questions(10, unanswerable=True)
    found = squad.measure([""] * 20, rows)
    assert found["f1"]["value"] == found["exact_match"]["baseline"] == 0.5
    assert found["unanswerable"]["f1"] == 1
    assert found["answerable"]["f1"] == 0


# ---- windows and spans ----------------------------------------------------------------------


def test_every_answer_is_in_a_window_and_comes_back_as_it_was(tokeniser):
    rows = questions(40)
    joined = " ".join(row.context for row in rows[:16])
    long = [
        Question(
            row.question,
            joined,
            (Answer(row.answers[0].text, joined.rindex(row.answers[0].text)),),
            "d",
            "f",
        )
        for row in rows
        if row.answers[0].text in joined
    ]
    source = Questions([*rows, *long, *questions(3, unanswerable=True)])
    windows = answering.encode(tokeniser, source.rows, 10)
    assert windows.tokens.lengths.max() <= 32
    labels = answering.labels(windows, source)
    begun = np.concatenate([[0], windows.tokens.ends])
    held = set()
    for number, (first, last) in enumerate(labels.tolist()):
        owner = int(windows.question[number])
        if (first, last) == (0, 0):
            continue
        offsets = windows.offsets[begun[number] : begun[number + 1]]
        row = source.rows[owner]
        assert row.context[offsets[first, 0] : offsets[last, 1]] == row.answers[0].text
        assert offsets[first, 0] == row.answers[0].start
        held.add(owner)
    assert held == {number for number, row in enumerate(source.rows) if row.answers}


def test_the_best_span_is_that_of_trying_all(tokeniser):
    rows = questions(6)
    rows = [*rows, Question("Who ?", " ".join(row.context for row in rows), (), "d", "f")]
    windows = answering.encode(tokeniser, rows, 8)
    stream = torch.Generator().manual_seed(3)
    logits = torch.randn(len(windows.tokens.ids), 2, generator=stream)
    targets = Targets("qa", unanswerable=True, longest=4)
    found = answering.answers(logits, windows, rows, targets, top=10_000)
    begun = np.concatenate([[0], windows.tokens.ends])
    for number, (row, ranked) in enumerate(zip(rows, found, strict=True)):
        scores, nothing = [], []
        for window in np.nonzero(windows.question == number)[0]:
            part = slice(begun[window], begun[window + 1])
            values, offsets = logits[part].double().numpy(), windows.offsets[part]
            nothing.append(values[0].sum())
            text = [i for i in range(len(values)) if offsets[i, 0] >= 0]
            for i, j in itertools.product(text, text):
                if 0 <= j - i < 4:
                    scores.append((values[i, 0] + values[j, 1], offsets[i, 0], offsets[j, 1]))
        whole = sum(np.exp(score) for score, _, _ in scores) + np.exp(min(nothing))
        best = max([*scores, (min(nothing), -1, -1)])
        assert (ranked[0].start, ranked[0].end) == tuple(best[1:])
        assert ranked[0].probability == pytest.approx(np.exp(best[0]) / whole)
        assert ranked[0].text == (row.context[best[1] : best[2]] if best[1] >= 0 else "")
        if len(nothing) == 1:  # no span stands in two windows
            assert sum(each.probability for each in ranked) == pytest.approx(1)


def test_without_unanswerable_questions_there_is_always_an_answer(tokeniser):
    rows = questions(3)
    windows = answering.encode(tokeniser, rows, 8)
    logits = torch.zeros(len(windows.tokens.ids), 2)
    logits[np.concatenate([[0], windows.tokens.ends[:-1]])] = 50.0
    found = answering.answers(logits, windows, rows, Targets("qa"))
    assert all(each[0].text for each in found)


def test_long_questions_leave_room_for_the_context(tokeniser):
    row = Question("when " * 200, "It rained in 1900 .", (Answer("1900", 13),), "d", "f")
    windows = answering.encode(tokeniser, [row], 8)
    assert windows.cut == 1
    assert answering.labels(windows, Questions([row])).any()


# ---- files ----------------------------------------------------------------------------------


def read(path, **changes):
    return answering_data.read(
        str(path), Columns(""), encoding="utf-8", console=CONSOLE, **changes
    ).rows


def test_each_form_of_file_gives_the_same_questions(tmp_path):
    rows = questions(4)
    wanted = [(row.question, row.context, row.answers) for row in rows]
    flat = tmp_path / "a.jsonl"
    nested = tmp_path / "b.jsonl"
    table = tmp_path / "c.csv"
    items = [
        {
            "question": r.question,
            "context": r.context,
            "answer": r.answers[0].text,
            "start": r.answers[0].start,
        }
        for r in rows
    ]
    flat.write_text("\n".join(map(json.dumps, items)), encoding="utf-8")
    inner = [
        {
            **{k: i[k] for k in ("question", "context")},
            "answers": {"text": [i["answer"]], "answer_start": [i["start"]]},
        }
        for i in items
    ]
    nested.write_text("\n".join(map(json.dumps, inner)), encoding="utf-8")
    lines = [f'"{i["question"]}","{i["context"]}",{i["answer"]}' for i in items]  # looked up
    table.write_text("\n".join(["question,context,answer", *lines]), encoding="utf-8")
    for path in (flat, nested, table, squad_file(tmp_path / "d.json", rows)):
        assert answering_data.holds_questions(str(path), "utf-8")
        assert [(row.question, row.context, row.answers) for row in read(path)] == wanted


def test_answers_that_do_not_stand_where_they_should_are_counted(tmp_path):
    rows = questions(4)
    moved = Question(
        rows[0].question, rows[0].context, (Answer(rows[0].answers[0].text, 1),), "x", "f"
    )
    absent = Question(rows[1].question, rows[1].context, (Answer("Atlantis", 3),), "x", "f")
    path = squad_file(tmp_path / "a.json", [*rows, moved, absent])
    with pytest.raises(
        DataError, match=r"2 answers do not .* 1 stand elsewhere .* 1 nowhere"
    ) as got:
        read(path)
    assert got.value.code == "E506"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"data": [{"paragraphs": [{"qas": []}]}]}', "not the form of SQuAD"),
        ("a.json", "[]", "not the form of SQuAD"),
        ("a.json", '{"data": []}', "has no question"),
        ("a.jsonl", '{"question": "q", "context": "c", "answer": "c", "start": "x"}', "no answer"),
        ("a.csv", "question,answer\nq,a\n", "--second"),
    ],
    ids=["cut", "no context", "a list", "empty", "no number", "no column"],
)
def test_a_damaged_file_of_questions_is_one_line(name, content, words, tmp_path):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read(tmp_path / name)


def test_yes_and_no_are_classes_and_no_spans(tmp_path):
    rows = "".join(f"is it {n} ?,a text about {n},{n % 2 == 0}\n" for n in range(40))
    path = tmp_path / "a.csv"
    path.write_text("question,passage,answer\n" + rows, encoding="utf-8")
    assert not answering_data.holds_questions(str(path), "utf-8")
    expected = Columns("question", "passage", "answer")
    assert columns.infer(str(path), Columns(""), encoding="utf-8") == expected
    lost = "".join(f"is it {n} ?,a text about {n},word{n}\n" for n in range(40))
    path.write_text("question,passage,answer\n" + lost, encoding="utf-8")
    assert answering_data.holds_questions(str(path), "utf-8")
    with pytest.raises(DataError, match="40 nowhere"):
        read(path)


def test_articles_stay_in_one_split():
    pool = Questions(questions(60))
    parts = by_document._split_questions(pool, (0.7, 0.1, 0.2), 0)
    seen = [{row.document for row in part.rows} for part in parts]
    assert sum(map(len, parts)) == len(pool)
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    assert len(parts[0]) / len(pool) == pytest.approx(0.7, abs=0.1)
    one = Questions(
        [Question(row.question, row.context, row.answers, "one", "f") for row in pool.rows]
    )
    contexts = [
        {row.context for row in part.rows}
        for part in by_document._split_questions(one, (0.8, 0.2), 0)
    ]
    assert not contexts[0] & contexts[1]
    # a text that stands in two articles ties them together
    assert by_document._linked(["a", "b", "c", "d"], ["x", "y", "y", "x"]) == list("abba")


# ---- the command ----------------------------------------------------------------------------


def test_a_squad_file_becomes_a_model_that_answers(run, here, hub_folder):
    file = squad_file(here / "train.json", questions(60, unanswerable=True), "v2.0")
    common = ("train", "--model", hub_folder, "--data", file, *QUICK, "--max-length", "64")
    shown = run(*common, "--epochs", "6", "--out", "r", "--json")
    assert "none is in two splits" in shown.err
    result = json.loads(shown.out)["data"]
    assert result["task"] == "qa"
    assert {"exact_match", "f1", "answerable", "unanswerable"} <= set(result["test"])
    assert result["test"]["f1"]["value"] > result["test"]["f1"]["baseline"]
    evaluated = json.loads(run("evaluate", "r", "--json").out)["data"]
    assert evaluated["f1"] == result["test"]["f1"]
    context = questions(1, seed=9)[0].context
    (here / "context.txt").write_text(context, encoding="utf-8")
    for given in (context, "context.txt"):
        said = run(
            "predict", "r", "Where did they go ?", "--context", given, "--top", "3", "--json"
        )
        row = json.loads(said.out)["data"]["predictions"][0]
        assert len(row["top"]) == 3
        for each in row["top"]:
            if each["answer"]:
                assert context[each["start"] : each["end"]] == each["answer"]
    assert len(json.loads(run("predict", "r", file, "--json").out)["data"]["predictions"]) == 120
    run("export", "r", "--out", "e")
    network = transformers.AutoModelForQuestionAnswering.from_pretrained("e")
    assert network.config.architectures == ["DebertaV2ForQuestionAnswering"]
    run(*common, "--out", "s", "--max-time", "0.001s")
    run("train", "--resume", "s", "--max-time", "10m")
    run(*common, "--out", "t")
    one, two = ((here / name / "model" / "model.safetensors").read_bytes() for name in "st")
    assert one == two
    assert "no file" in run("predict", "r", "Who ?", "--context", "lost.txt", code=5).err
    for wrong in (("x",), ("x", "--pair", "y")):
        assert "--context" in run("predict", "r", *wrong, code=2).err
    assert "means nothing" in run("evaluate", "r", "--min-accuracy", "0.1", code=2).err


def test_what_a_training_of_answers_cannot_do_is_refused(run, here, hub_folder):
    rows = questions(30)
    file = squad_file(here / "a.json", rows)
    common = ("train", "--model", hub_folder, "--data", file)
    for idle in (("--class-weights", "balanced"), ("--monitor", "macro-f1")):
        assert "means nothing" in run(*common, *idle, code=2).err
    leaking = squad_file(here / "test.json", rows[:8])
    assert "G-D04" in run(*common, "--test-data", leaking, code=6).err
    assert "16" in run(*common, "--max-length", "8", code=2).err
