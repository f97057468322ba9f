"""word2vec: every part against something independent: gensim, scipy, brute force, closed forms."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
import lzma
import math
from collections import Counter

import numpy as np
import pytest
from dltool_word2vec import (
    corpus,
    evaluate,
    loss,
    phrases,
    preflight,
    quantize,
    query,
    sif,
    subwords,
    tokens,
    vectors,
)
from dltool_word2vec.config import TrainConfig, recipe
from dltool_word2vec.train import train

from dltool.console import Console
from dltool.errors import ConfigError, DataError, DltoolError, Stopped

CONSOLE = Console("test")
LEE = {"epochs": 6, "dim": 32, "min_count": 3, "workers": 1}


def run_training(folder, *, resume=None, **settings):
    """Train in this process; return the run folder."""
    config = TrainConfig(**{**LEE, **settings})
    origins = dict.fromkeys(TrainConfig.__dataclass_fields__, "flag")
    train(config, origins, console=CONSOLE, out=None if resume else folder, resume=resume)
    return folder


@pytest.fixture(scope="module")
def lee(tmp_path_factory):
    """A finished run on gensim's news articles."""
    return run_training(tmp_path_factory.mktemp("runs") / "lee")


@pytest.fixture(scope="module")
def keyed(lee):
    """The same vectors as gensim's own object."""
    from gensim.models import KeyedVectors

    known = vectors.load(lee)
    made = KeyedVectors(known.dim)
    made.add_vectors(known.words, known.matrix())
    return made


def texts_folder(folder, *lines, name="a.txt"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def prepared(folder, **settings):
    return corpus.prepare(TrainConfig(**settings), folder / "corpus", CONSOLE)


# ---- words -----------------------------------------------------------------------------------

SAMPLES = [
    "The quick brown fox, 42 times; it's _private_ a I",
    "Füße ÜBER naïve İstanbul straße ΑΒΓ ελληνικά",
    "abc123def x1 _under_score_ " + "long" * 5 + " ok",
    "中文 mixed text，标点 emoji 🎉 and\ttabs",
    "",
]


@pytest.mark.parametrize("number", range(len(SAMPLES)))
def test_simple_words_are_those_of_gensim(number):
    from gensim.utils import simple_preprocess

    assert tokens.simple(SAMPLES[number]) == simple_preprocess(SAMPLES[number])


def test_the_other_tokenisers():
    assert tokens.words("Don't stop at 3pm, naïve Ψ") == [
        "don't",
        "stop",
        "at",
        "3pm",
        "naïve",
        "ψ",
    ]
    assert tokens.chinese("我爱Python语言。2026年") == [*"我爱", "python", *"语言", "2026", "年"]
    assert tokens.characters("ab c\n") == ["a", "b", "c"]
    assert tokens.tokenizer("whitespace")("A, b") == ["A,", "b"]


def test_a_segmenter_is_imported_and_its_words_hold_no_blanks():
    split = tokens.tokenizer("segmenter", "shlex:split")
    assert split("'new york' city") == ["new", "york", "city"]
    with pytest.raises(ConfigError, match="no segmenter"):
        tokens.tokenizer("segmenter", "shlex:nothing")
    with pytest.raises(DltoolError, match="cannot be imported"):
        tokens.tokenizer("segmenter", "no_such_module:cut")
    with pytest.raises(DataError, match="returned a str"):
        tokens.tokenizer("segmenter", "shlex:quote")("text")


def test_phrases_join_a_planted_pair_and_no_frequent_words(tmp_path):
    lines = [
        " ".join(["the new york the", *(f"w{12 * i + j}" for j in range(12))]) for i in range(60)
    ]
    data = str(texts_folder(tmp_path / "d", *lines))
    found = prepared(tmp_path, data=(data,), tokenizer="words", phrases=1, min_count=1)
    # (60 - 5) * types / (60 * 60), types: the, new, york and w0 to w719
    assert found.phrases[0] == {"new york": pytest.approx(55 * 723 / 3600)}
    assert found.counts["new_york"] == 60
    assert "york" not in found.counts
    assert tokens.joiner(found.phrases)(["new", "york", "new"]) == ["new_york", "new"]


def test_joined_pairs_do_not_overlap_and_passes_build_up():
    passes = [{"a b": 1.0, "b c": 1.0}, {"a_b c": 1.0}]
    assert tokens.joiner(passes[:1])(list("abcbc")) == ["a_b", "c", "b_c"]
    assert tokens.joiner(passes)(list("abc")) == ["a_b_c"]


# ---- the corpus ------------------------------------------------------------------------------


def test_the_same_words_from_every_kind_of_file(tmp_path, monkeypatch):
    lines = [f"alpha beta word{n % 7} gamma" for n in range(40)]
    text = "\n".join(lines).encode()
    made = {
        "plain.txt": text,
        "a.txt.gz": gzip.compress(text),
        "a.txt.xz": lzma.compress(text),
        "a.txt.bz2": bz2.compress(text),
        "t.csv": b"id,body\n" + b"\n".join(b"%d,%s" % (n, x.encode()) for n, x in enumerate(lines)),
        "t.jsonl": b"\n".join(json.dumps({"body": x}).encode() for x in lines),
    }
    prints = set()
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
        column = "body" if name.startswith("t.") else ""
        found = corpus.prepare(
            TrainConfig(data=(str(tmp_path / name),), column=column, min_count=1),
            tmp_path / f"corpus-{name}",
            CONSOLE,
        )
        prints.add((found.fingerprint, found.words, found.texts, tuple(sorted(found.counts))))
    assert len(prints) == 1


def test_parts_hold_every_word_once_and_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "PART_WORDS", 500)
    monkeypatch.setattr(corpus, "WORDS_PER_TYPE", 0)
    monkeypatch.setattr(corpus, "GATHER", 100)
    rng = np.random.default_rng(1)
    lines = [" ".join(f"w{n}" for n in rng.zipf(1.5, 30) % 200) for _ in range(200)]
    data = str(texts_folder(tmp_path / "d", *lines))
    found = prepared(tmp_path, data=(data,), tokenizer="whitespace", min_count=3)
    assert len(found.parts) > 5
    assert [" ".join(line) for line in phrases.lines_of(found)] == lines
    expected = Counter(" ".join(lines).split())
    assert found.counts == {word: n for word, n in expected.items() if n >= 3}
    assert (found.words, found.types) == (6000, len(expected))
    again = corpus.prepare(TrainConfig(data=("gone",)), tmp_path / "corpus", CONSOLE)
    assert again == found


def test_rare_words_are_forgotten_when_memory_would_not_hold_them(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "MOST_TYPES", 100)
    monkeypatch.setattr(corpus, "GATHER", 50)
    lines = [f"common once{n}" for n in range(400)]
    data = str(texts_folder(tmp_path / "d", *lines))
    found = prepared(tmp_path, data=(data,), tokenizer="words", min_count=5)
    assert found.counts == {"common": 400}
    with pytest.raises(DltoolError, match="more than 100 different words"):
        corpus.vocabulary(found, 1)


def test_long_lines_are_cut_and_long_documents_end(tmp_path):
    data = str(texts_folder(tmp_path / "d", " ".join(["word"] * 2500)))
    found = prepared(tmp_path, data=(data,), min_count=1)
    assert (found.lines, found.words, found.cut) == (3, 2500, 1)


def test_the_vocabulary_does_not_hang_on_the_order_of_the_text(tmp_path):
    made = []
    for name, line in (("x", "bb aa cc aa"), ("y", "aa cc bb aa")):
        data = str(texts_folder(tmp_path / name, line))
        found = corpus.prepare(
            TrainConfig(data=(data,), min_count=1), tmp_path / f"c{name}", CONSOLE
        )
        made.append(list(corpus.vocabulary(found, 1)))
    assert made == [["aa", "bb", "cc"]] * 2
    merged = corpus.vocabulary(found, 1, {"zz": 7, "cc": 3})
    assert list(merged.items()) == [("zz", 7), ("cc", 4), ("aa", 2), ("bb", 1)]


# ---- the loss --------------------------------------------------------------------------------


def test_the_loss_is_the_formula():
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng(0)
    hidden, output = rng.normal(size=(5, 4)), rng.normal(size=(9, 4))
    sample = loss.Sample(
        rng.integers(9, size=5), np.zeros((5, 2), int), rng.integers(9, size=(5, 3)), np.arange(5)
    )
    found = loss.negative_sampling(hidden, output, sample)
    rows = torch.from_numpy(np.column_stack([sample.targets, sample.noise]))
    logits = torch.einsum("pd,pkd->pk", torch.from_numpy(hidden), torch.from_numpy(output)[rows])
    labels = torch.tensor([[1.0, 0, 0, 0]] * 5, dtype=torch.float64)
    each = F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(dim=1)
    assert found.value == pytest.approx(float(each.mean()))
    assert found.reach == pytest.approx(1.96 * float(each.std(correction=0)) / math.sqrt(5))


def test_the_tree_gives_every_context_a_distribution_over_the_words(tmp_path):
    from gensim.models import Word2Vec

    counts = {f"w{n}": 40 - n for n in range(17)}
    model = Word2Vec(vector_size=6, hs=1, negative=0, min_count=1, sorted_vocab=0)
    model.build_vocab_from_freq(counts)
    rng = np.random.default_rng(3)
    nodes, vector = rng.normal(size=(17, 6)), rng.normal(size=6)
    points, codes = model.wv.expandos["point"], model.wv.expandos["code"]
    total = 0.0
    for word in range(17):
        sample = loss.Sample(np.array([word]), np.zeros((1, 2)), np.zeros((1, 1)), np.zeros(1))
        found = loss.hierarchical(vector[None], nodes, sample, points, codes)
        total += math.exp(-found.value)
    assert total == pytest.approx(1.0)


def test_the_mean_of_a_window_leaves_out_what_is_not_there():
    rows = np.arange(8.0).reshape(4, 2)
    sample = loss.Sample(
        np.array([0, 1]),
        np.array([[1, 3, -1, -1], [2, -1, -1, -1]]),
        np.zeros((2, 1)),
        np.array([0, 1]),
    )
    found = loss.hidden(sample, lambda places: rows[places], mean=True)
    assert found.tolist() == [[4.0, 5.0], [4.0, 5.0]]
    one = loss.hidden(sample, lambda places: rows[places], mean=False)
    assert one.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    documents = np.array([[0.0, 0.0], [9.0, 9.0]])
    with_documents = loss.hidden(sample, lambda p: rows[p], mean=True, documents=documents)
    assert with_documents[1].tolist() == [6.5, 7.0]


def test_training_lowers_the_loss_far_below_chance(lee):
    record = json.loads((lee / "run.json").read_text())["result"]
    assert record["loss_of_chance"] == pytest.approx(6 * math.log(2))
    assert record["loss"]["value"] + 5 * record["loss"]["reach"] < record["loss_of_chance"]
    lines = [json.loads(line) for line in (lee / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"] - lines[0]["train_loss_reach"]


# ---- training --------------------------------------------------------------------------------


def test_one_part_is_trained_exactly_as_gensim_called_by_hand(tmp_path):
    from gensim.models import Word2Vec

    from dltool.seeds import derive_seed

    run = run_training(tmp_path / "run", epochs=1, seed=5)
    again = prepared(tmp_path, min_count=3)
    counts = corpus.vocabulary(again, 3)
    seed = derive_seed(5, "weights") % 2**31
    by_hand = Word2Vec(
        vector_size=32, sg=1, min_count=1, workers=1, seed=seed, sample=1e-3, sorted_vocab=0
    )
    by_hand.build_vocab_from_freq(counts)
    by_hand.random = np.random.RandomState(derive_seed(5, "part", 0, 0) % 2**32)
    by_hand.train(
        corpus_file=str(again.folder / again.parts[0].name),
        total_words=again.words,
        total_examples=again.lines,
        epochs=1,
        start_alpha=0.025,
        end_alpha=1e-4,
    )
    known = vectors.load(run)
    assert known.words == by_hand.wv.index_to_key
    assert np.array_equal(known.matrix(), by_hand.wv.vectors)


@pytest.mark.parametrize(
    "settings",
    [
        {"engine": "torch", "save_every": "3steps"},
        {"algorithm": "fasttext", "arch": "cbow", "bucket": 2000, "save_every": "1steps"},
        {"algorithm": "doc2vec", "arch": "cbow"},
        {"hs": True, "negative": 0},
    ],
    ids=["torch", "fasttext-cbow", "doc2vec-dm", "hs"],
)
def test_a_run_that_was_stopped_ends_with_the_same_bytes(tmp_path, settings, capsys):
    settings = {"epochs": 3, "dim": 12, **settings}
    straight = run_training(tmp_path / "straight", **settings)
    config = {**settings, "max_time": "0.001s"}
    with pytest.raises(Stopped):
        run_training(tmp_path / "stopped", **config)
    assert "--resume" in capsys.readouterr().err
    stopped = run_training(tmp_path / "stopped", resume=tmp_path / "stopped", **settings)
    one, two = (folder / "model" / "model.safetensors" for folder in (straight, stopped))
    assert one.read_bytes() == two.read_bytes()
    assert not (stopped / "corpus").exists()


def test_further_training_begins_with_the_old_vectors_and_adds_words(lee, tmp_path):
    lines = ["blockchain israel fire sydney australia palestinian"] * 30
    data = str(texts_folder(tmp_path / "d", *lines))
    before = vectors.load(lee)
    run = run_training(
        tmp_path / "more", data=(data,), start_from=str(lee), epochs=1, learning_rate=1e-9
    )
    after = vectors.load(run)
    assert after.words[: len(before.words)] == before.words
    assert after.words[len(before.words) :] == ["blockchain"]
    assert after.counts[after.row("fire")] == before.counts[before.row("fire")] + 30
    assert np.allclose(after.matrix()[:-1], before.matrix(), atol=1e-6)
    assert np.allclose(after.arrays["output"][:-1], before.arrays["output"], atol=1e-6)
    with pytest.raises(ConfigError, match="have dim 32"):
        run_training(tmp_path / "other", data=(data,), start_from=str(lee), dim=7)


def test_threads_change_a_result_and_are_kept_when_a_run_goes_on(lee):
    from dataclasses import replace

    from dltool_word2vec.cli import _keep_threads

    from dltool.runs import read_config

    config, _ = read_config(lee, TrainConfig)
    with pytest.raises(ConfigError, match="workers: 1 in the run, 2 given"):
        _keep_threads(lee, replace(config, workers=2), {}, allow_changed=False)
    origins = {}
    _keep_threads(lee, replace(config, workers=2), origins, allow_changed=True)
    assert origins == {"workers": "changed"}
    _keep_threads(lee, config, origins, allow_changed=False)


def test_settings_that_contradict_each_other_are_refused():
    for settings in (
        {"hs": True},
        {"negative": 0},
        {"engine": "torch", "arch": "cbow"},
        {"segmenter": "jieba:lcut"},
        {"start_from": "x", "algorithm": "doc2vec"},
        {"min_n": 5, "max_n": 3},
        {"sample": math.nan},
        {"learning_rate": 0.0},
    ):
        with pytest.raises(ConfigError):
            TrainConfig(**settings)
    assert recipe(("lee",))["min_count"] < TrainConfig.min_count
    assert recipe(("other",)) == {}


# ---- letter groups ---------------------------------------------------------------------------

SPELLED = ["fire", "a", "naïve", "中文", "<x>", "straße", "", "ab"]


@pytest.mark.parametrize("sizes", [(3, 6), (1, 2), (2, 4)], ids=["3-6", "1-2", "2-4"])
def test_letter_groups_are_those_of_gensim(sizes):
    from gensim.models.fasttext import ft_ngram_hashes

    for word in SPELLED:
        expected = list(ft_ngram_hashes(word, *sizes, 5000))
        assert subwords.rows(word, *sizes, 5000) == expected, word


def test_unknown_words_of_fasttext_are_the_mean_of_their_groups(tmp_path):
    run = run_training(tmp_path / "ft", algorithm="fasttext", epochs=1, dim=8, bucket=500)
    known = vectors.load(run)
    places = subwords.rows("firefightress", 3, 6, 500)
    expected = known.arrays["ngrams"][places].mean(axis=0)
    assert known.find("firefightress") is None
    assert np.allclose(known.vector("firefightress"), expected)
    # and known ones that of their own row and their groups
    row = known.row("fire")
    groups = known.arrays["ngrams"][subwords.rows("fire", 3, 6, 500)]
    own = np.vstack([known.arrays["word_rows"][row], groups]).mean(axis=0)
    assert np.allclose(known.vector("fire"), own, atol=1e-6)


# ---- questions -------------------------------------------------------------------------------


def test_neighbours_are_those_of_gensim(lee, keyed):
    known = vectors.load(lee)
    for word in ("fire", "israel", "the"):
        ours = known.nearest(known.vector(word), 10, [known.row(word)])
        theirs = keyed.most_similar(word, topn=10)
        assert [each for each, _ in ours] == [each for each, _ in theirs]
        assert np.allclose([s for _, s in ours], [s for _, s in theirs], atol=1e-5)
    limited = known.nearest(known.vector("fire"), 5, [known.row("fire")], limit=100)
    assert [w for w, _ in limited] == [
        w for w, _ in keyed.most_similar("fire", topn=5, restrict_vocab=100)
    ]


def test_analogies_are_those_of_gensim(lee, keyed, capsys):
    query.analogy(
        lee, ["israeli", "-", "israel", "+", "afghanistan"], top=4, limit=0, console=CONSOLE
    )
    answers = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    theirs = keyed.most_similar(positive=["israeli", "afghanistan"], negative=["israel"], topn=4)
    assert answers == [word for word, _ in theirs]


@pytest.mark.parametrize(
    ("terms", "read"),
    [
        (["king", "-", "man", "+", "woman"], [(1, "king"), (-1, "man"), (1, "woman")]),
        (["king - man + woman"], [(1, "king"), (-1, "man"), (1, "woman")]),
        (["king", "-man +woman"], [(1, "king"), (-1, "man"), (1, "woman")]),
        (["- bad + well-being"], [(-1, "bad"), (1, "well-being")]),
    ],
    ids=["apart", "together", "signed", "negative-first"],
)
def test_terms_are_read(terms, read):
    assert query.read_terms(terms) == read


@pytest.mark.parametrize("text", ["king man", "king -", "+ + king", "king - + man", ""])
def test_terms_that_make_no_sum_are_refused(text):
    with pytest.raises(ConfigError, match="not understood"):
        query.read_terms([text])


def test_an_unknown_word_names_the_nearest_spellings(lee):
    with pytest.raises(DataError) as caught:
        vectors.load(lee).vector("palestinain")
    assert "palestinian" in caught.value.cure
    assert vectors.load(lee).row("FIRE") == vectors.load(lee).row("fire")


def test_the_best_of_equal_scores_are_the_first():
    scores = np.array([1.0, 3, 3, 3, 2, -np.inf])
    assert vectors.best(scores, 2) == [1, 2]
    assert vectors.best(scores, 9) == [1, 2, 3, 4, 0]
    assert vectors.best(scores, 0) == []


def test_texts_are_the_weighted_mean_without_what_is_common():
    assert np.allclose(sif.weights([1, 3]), [1e-3 / (1e-3 + 0.25), 1e-3 / (1e-3 + 0.75)])
    rng = np.random.default_rng(4)
    direction = np.array([0.6, 0.8, 0.0])
    rows = np.outer(rng.uniform(5, 9, 50), direction) + 0.01 * rng.normal(size=(50, 3))
    found = sif.first_direction(rows)
    assert np.allclose(found, direction, atol=0.01)
    assert np.allclose(sif.without(rows, found) @ found, 0, atol=1e-5)


# ---- scores ----------------------------------------------------------------------------------


def test_spearman_is_that_of_scipy_with_ties():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    for _ in range(5):
        one, two = rng.integers(0, 6, (2, 40)).astype(float)
        assert evaluate.spearman(one, two) == pytest.approx(spearmanr(one, two).statistic)
    assert evaluate.spearman(np.ones(5), np.arange(5.0)) is None
    low, high = evaluate.interval(0.6, 353)
    assert low == pytest.approx(0.524, abs=0.004)
    assert high == pytest.approx(0.666, abs=0.004)


def test_scores_are_those_of_gensim(lee, keyed):
    known = vectors.load(lee)
    path = corpus.shipped("wordsim353.tsv")
    ours = evaluate.correlate(known, "wordsim353", evaluate.read_pairs(path))
    _, theirs, unknown = keyed.evaluate_word_pairs(str(path))
    assert ours.value == pytest.approx(theirs.statistic, abs=1e-4)
    assert ours.pairs == 353
    assert 1 - ours.known / ours.pairs == pytest.approx(unknown / 100)
    path = corpus.shipped("questions-words.txt")
    sections = evaluate.solve(known, evaluate.read_analogies(path), 30_000)
    right = sum(each.right for each in sections)
    total = sum(each.known for each in sections)
    _, details = keyed.evaluate_word_analogies(str(path), restrict_vocab=30_000)
    everything = details[-1]
    assert total == len(everything["correct"]) + len(everything["incorrect"])
    assert right == len(everything["correct"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tiger\tcat\n", "line 1"),
        ("tiger\tcat\t7\nlove\tsex\tmany\n", "line 2"),
        ("# nothing\n", "no pairs"),
        ("a b nan\nc d 2\ne f nan\n", "line 3"),
    ],
    ids=["short", "no-number", "empty", "nan"],
)
def test_pairs_that_are_none_are_named(tmp_path, text, words):
    (tmp_path / "p.tsv").write_text(text + ("x\ty\n" if words == "line 1" else ""))
    with pytest.raises(DataError) as caught:
        evaluate.read_pairs(tmp_path / "p.tsv")
    assert words in caught.value.message or words == "line 1"


# ---- smaller vectors -------------------------------------------------------------------------


def test_a_code_is_at_most_half_a_scale_away():
    rng = np.random.default_rng(6)
    matrix = rng.normal(size=(50, 9)).astype(np.float32) * rng.uniform(0.01, 100, (50, 1))
    matrix = matrix.astype(np.float32)
    matrix[7] = 0
    codes, scales = quantize.to_int8(matrix)
    off = np.abs(codes * scales[:, None] - matrix)
    assert (off <= scales[:, None] * 0.5001).all()
    assert np.abs(codes).max() == 127
    assert not codes[7].any()


@pytest.mark.parametrize("method", ["int8", "fp16"])
def test_quantized_vectors_answer_alike(lee, tmp_path, method, capsys):
    console = Console("test", json=True)
    quantize.quantize_run(lee, tmp_path / "small", method=method, top=0, console=console)
    data = json.loads(capsys.readouterr().out)["data"]
    assert data["kept_neighbors"] > 0.9
    small, known = vectors.load(tmp_path / "small", verify=True), vectors.load(lee)
    assert np.allclose(
        small.scores(small.vector("fire")), known.scores(known.vector("fire")), atol=0.02
    )
    with pytest.raises(ConfigError, match="already"):
        quantize.quantize_run(
            tmp_path / "small", tmp_path / "b", method=method, top=0, console=CONSOLE
        )


# ---- guards ----------------------------------------------------------------------------------


def planted(tmp_path, lines, **settings):
    data = str(texts_folder(tmp_path / "d", *lines))
    config = TrainConfig(data=(data,), min_count=1, **settings)
    found = corpus.prepare(config, tmp_path / "corpus", CONSOLE)
    counts = corpus.vocabulary(found, 1)
    return {each.code: each for each in preflight.look(config, found, counts)}


def test_markup_is_named(tmp_path):
    assert "'br'" in planted(tmp_path, ["good film br br bad film"] * 9)["G-W03"].message


def test_repeated_lines_are_named(tmp_path):
    lines = ["all rights reserved by the publisher of this"] * 60
    lines += [f"line {n} is a line of its own number w{n}" for n in range(60)]
    assert "G-W04" in planted(tmp_path, lines, tokenizer="words")


def test_chinese_cut_at_blanks_is_stopped(tmp_path):
    found = planted(tmp_path, ["今天天气很好我们去公园散步吧"] * 9)
    assert found["G-W05"].severity == "fail"
    assert "G-W05" not in planted(
        tmp_path / "x", ["今天 天气 很 好 我们 去 公园"], tokenizer="chinese"
    )


def test_a_sound_text_is_told_nothing(tmp_path):
    rng = np.random.default_rng(0)
    lines = [" ".join(f"word{n}" for n in row) for row in rng.zipf(1.6, (6000, 10)) % 3000]
    assert not planted(tmp_path, lines, tokenizer="words")


# ---- the torch model -------------------------------------------------------------------------


def made_blocks(ids, counts, **settings):
    import torch
    from dltool_word2vec.skipgram import Blocks

    from dltool.device import generator

    defaults = {"window": 3, "sample": 0.0, "block": 64, "noise": 5}
    return Blocks(
        torch.tensor(ids, dtype=torch.int32),
        torch.tensor(counts),
        generator=lambda epoch, place: generator(0, epoch, place),
        **{**defaults, **settings},
    )


def test_pairs_are_near_words_of_one_line_and_none_twice():
    rng = np.random.default_rng(5)
    ids = list(range(200))
    for place in (0, 31, 32, 33, 90, 91, 150):
        ids[place] = -1
    blocks = made_blocks(ids, [1] * 200, block=200)
    seen = Counter()
    for epoch in range(60):
        (batch,) = blocks.batches(epoch)
        groups, words, contexts = np.nonzero(batch.mask.numpy())
        pairs = zip(
            batch.words.numpy()[groups, words], batch.context.numpy()[groups, contexts], strict=True
        )
        seen.update(map(tuple, np.array(list(pairs)).tolist()))
        assert len(set(zip(groups, words, contexts, strict=True))) == len(groups)
    lines = np.cumsum(np.array(ids) == -1)
    possible = {
        (a, b)
        for a, b in itertools.permutations(range(200), 2)
        if ids[a] >= 0
        and ids[b] >= 0
        and lines[a] == lines[b]
        # a break is no word: it does not count in the distance, but no line reaches over it
        and abs(a - b) <= 3
    }
    assert set(seen) == possible
    near = np.mean([n for (a, b), n in seen.items() if abs(a - b) == 1])
    far = np.mean([n for (a, b), n in seen.items() if abs(a - b) == 3])
    assert near == 60
    assert far == pytest.approx(20, abs=2.5)  # a reach of 3 is one of three
    assert rng is not None


def test_frequent_words_are_thinned_out_as_word2vec_c_does():
    counts = [10_000, 100]
    blocks = made_blocks([0] * 5000 + [1] * 50, counts, sample=1e-3, block=8192)
    share = 10_000 / 10_100
    expected = math.sqrt(1e-3 / share) + 1e-3 / share
    assert float(blocks.keep[0]) == pytest.approx(expected)
    assert float(blocks.keep[1]) == pytest.approx(min(1, math.sqrt(0.101) + 0.101), rel=1e-3)


def test_noise_is_drawn_by_frequency_to_three_quarters():
    counts = [16, 81, 1]
    blocks = made_blocks([0, 1, 2] * 300, counts, block=1024, noise=400)
    drawn = np.concatenate([b.noise.numpy().ravel() for e in range(3) for b in blocks.batches(e)])
    expected = np.array([8, 27, 1]) / 36
    assert np.allclose(np.bincount(drawn, minlength=3) / len(drawn), expected, atol=0.02)


def test_batches_depend_on_epoch_and_place_alone():
    import torch

    blocks = made_blocks(list(range(100)) * 3, [3] * 100)
    whole, later = list(blocks.batches(2)), list(blocks.batches(2, start=3))
    assert len(whole) == len(blocks) == 5
    for one, two in zip(whole[3:], later, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(next(blocks.batches(1)).noise, whole[0].noise)


def test_the_grouped_products_are_the_sum_over_pairs():
    import torch
    import torch.nn.functional as F
    from dltool_word2vec.skipgram import SkipGram

    torch.manual_seed(0)
    model = SkipGram(50, 7)
    torch.nn.init.normal_(model.output.weight)
    (batch,) = made_blocks(list(range(50)), [1] * 50).batches(0)
    found, pairs = (each.detach() for each in model(batch, 4))
    expected, number = 0.0, 0
    v, u = model.input.weight, model.output.weight
    v, u = v.detach(), u.detach()
    for g, i, j in batch.mask.nonzero().tolist():
        word, context = v[batch.words[g, i]], u[batch.context[g, j]]
        expected += float(F.softplus(-word @ context))
        expected += 4 / 5 * float(F.softplus(u[batch.noise[g]] @ word).sum())
        number += 1
    assert int(pairs) == number
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_rows_move_by_the_sum_of_their_gradients_and_frequent_ones_by_less():
    import torch
    from dltool_word2vec.skipgram import RowSGD

    torch.manual_seed(1)
    matrix = torch.nn.Embedding(6, 3, sparse=True)
    before = matrix.weight.detach().clone()
    optimizer = RowSGD(matrix.parameters(), lr=0.1)
    rows = torch.tensor([0, 0, 3, *([5] * 40)])
    weights = torch.randn(len(rows), 3)
    # a mean over 50 pairs, told in two pieces; each occurrence is in 8 terms
    ((matrix(rows) * weights).sum() / 50).backward()
    for piece, pairs in ((rows[:20], 20.0), (rows[20:], 30.0)):
        terms = [(matrix.weight, piece, torch.full((len(piece),), 8.0))]
        optimizer.weigh(torch.tensor(pairs), terms)
    optimizer.step()
    expected = before.clone()
    expected[0] -= 0.1 * weights[:2].sum(dim=0)
    expected[3] -= 0.1 * weights[2]
    expected[5] -= 0.1 * 128 / (40 * 8) * weights[3:].sum(dim=0)
    assert torch.allclose(matrix.weight, expected, atol=1e-6)
    optimizer.zero_grad()
    assert optimizer.pairs == 0.0
    assert not optimizer.terms[matrix.weight].any()


def test_terms_are_counted_word_by_word():
    import torch
    from dltool_word2vec.skipgram import SkipGram

    model = SkipGram(50, 4)
    (batch,) = made_blocks(list(range(50)), [1] * 50).batches(0)
    found = {"input": torch.zeros(50), "output": torch.zeros(50)}
    for matrix, rows, weights in model.terms(batch, 5):
        name = "input" if matrix is model.input.weight else "output"
        found[name].index_add_(0, rows.reshape(-1), weights.reshape(-1))
    expected = {"input": torch.zeros(50), "output": torch.zeros(50)}
    for g, i, j in batch.mask.nonzero().tolist():
        expected["input"][batch.words[g, i]] += 1 + 5
        expected["output"][batch.context[g, j]] += 1
        for row in batch.noise[g].tolist():
            expected["output"][row] += 5 / len(batch.noise[g])
    assert all(torch.allclose(found[name], expected[name], atol=1e-4) for name in found)


@pytest.mark.slow
def test_torch_does_not_diverge_with_wide_windows_and_much_noise(tmp_path):
    settings = {"engine": "torch", "window": 10, "negative": 20, "epochs": 20, "block": 16384}
    run = run_training(tmp_path / "run", **settings)
    record = json.loads((run / "run.json").read_text())["result"]
    assert record["loss"]["value"] < 0.7 * record["loss_of_chance"]


def test_half_a_surrogate_pair_in_json_does_no_harm(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"t": "alpha \\ud800x beta"}\n' * 3)
    data = str(tmp_path / "t.jsonl")
    found = prepared(tmp_path, data=(data,), column="t", tokenizer="whitespace", min_count=1)
    assert found.counts == {"alpha": 3, "?x": 3, "beta": 3}
