"""`dltool cnn compare`: what is trained, what is told, what is refused before the first run."""

import json
import math
import statistics

import pytest
from dltool_cnn import compare
from PIL import Image
from scipy import stats

from dltool import cli, files, sweep_processes


@pytest.fixture
def run(here, capsys):
    """Run `dltool cnn compare` in this process; return (stdout, stderr)."""

    def call(*words, code=0):
        capsys.readouterr()
        got = cli.run(["cnn", "compare", *map(str, words)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


def finished(folder, val, test, *, parameters=650, seconds=2.0):
    """Write what a finished run leaves, as far as a comparison reads it."""
    result = {
        "val_accuracy": val,
        "test_accuracy": {"value": test, "low": 0.0, "high": 1.0},
        "parameters": parameters,
        "training_seconds": seconds,
        "images_per_second": 100.0,
    }
    files.write_json_atomic(
        folder / "run.json", {"topic": "cnn", "status": "finished", "result": result}
    )


SPEC = ("--models", "linear,mlp", "--seeds", "3", "--out", "c", "--epochs", "1")
LINEAR, MLP = (0.90, 0.92, 0.91), (0.93, 0.94, 0.95)


@pytest.fixture
def compared(run, here, monkeypatch):
    """A comparison whose runs are there already; nothing is trained."""

    monkeypatch.setattr(sweep_processes, "_start", pytest.fail)
    for model, values in (("linear", LINEAR), ("mlp", MLP)):
        for seed, value in enumerate(values):
            finished(here / "ready" / f"model={model}-seed={seed}", value, value + 0.001 * seed)
    return run


def begun(here):
    """Give the prepared runs to a sweep's folder."""
    spec = {"words": ["cnn", "train"], "fixed": ["--epochs", "1"], "search": "grid"}
    files.write_json_atomic(here / "ready" / "sweep.json", spec)
    (here / "ready").rename(here / "c")


def test_table_holds_means_and_deviations_over_seeds(compared, here):
    begun(here)
    found = json.loads(compared(*SPEC, "--json").out)["data"]
    best, other = found["rows"]
    assert (best["set"], other["set"]) == ({"model": "mlp"}, {"model": "linear"})
    assert best["val_accuracy"]["mean"] == pytest.approx(0.94)
    assert best["val_accuracy"]["sd"] == pytest.approx(statistics.stdev(MLP))
    assert other["test_accuracy"]["values"] == pytest.approx([0.90, 0.921, 0.912])
    gaps = [a - b for a, b in zip(MLP, LINEAR, strict=True)]
    test = stats.ttest_rel(MLP, LINEAR).confidence_interval(0.95)
    assert other["behind_best"]["mean"] == pytest.approx(statistics.fmean(gaps))
    assert other["behind_best"]["low"] == pytest.approx(test.low)
    assert other["behind_best"]["high"] == pytest.approx(test.high)
    assert found["command"] == "dltool cnn train --epochs 1 --model=mlp"
    assert json.loads((here / "c" / "compare.json").read_text(encoding="utf-8")) == found
    with Image.open(here / "c" / "compare.png") as picture:
        assert picture.text["Title"] == "cnn: model"
    text = compared(*SPEC).out
    assert "0.9400 ± 0.0100" in text
    assert text.index("mlp") < text.index("linear")


def test_validation_chooses_and_not_the_test(compared, here):
    begun(here)
    for seed in range(3):
        finished(here / "c" / f"model=linear-seed={seed}", 0.5, 1.0)
    found = json.loads(compared(*SPEC, "--json").out)["data"]
    assert found["best"] == {"model": "mlp"}
    assert found["chosen_by"] == "val_accuracy"


def test_what_is_missing_is_trained_as_an_ordinary_run(run, here):
    for seed in (0, 1):
        finished(here / "ready" / f"model=mlp-seed={seed}", 0.9, 0.9)
    finished(here / "ready" / "model=linear-seed=0", 0.8, 0.8)
    begun(here)
    words = ("--models", "linear,mlp", "--seeds", "2", "--out", "c", "--epochs", "1", "--json")
    shown = run(*words)
    assert "model=linear-seed=1: validation" in shown.err
    assert shown.err.count("validation 0.") == 1  # the others were there
    for name in ("model/model.safetensors", "pictures/curves.png", "config.json"):
        assert (here / "c" / "model=linear-seed=1" / name).exists()
    rows = json.loads(shown.out)["data"]["rows"]
    assert [len(row["runs"]) for row in rows] == [2, 2]


def test_wrong_calls_are_refused_before_the_first_run(run, here):
    for words in (
        ("--models", "linear,mlpp"),
        ("--models", "linear"),
        (),
        ("--models", "linear,mlp", "--epochs", "0"),
        ("--models", "linear,mlp", "--epocks", "3"),
        ("--models", "linear,mlp", "--set", "dropout=2,3"),
        ("--models", "linear,mlp", "--set", "nothing=1,2"),
        ("--models", "linear,mlp", "--set", "model=lenet,mlp"),
        ("--set", "seed=1,2"),
        ("--models", "linear,mlp", "--seed", "3"),
        ("--models", "linear,mlp", "--seeds", "0"),
    ):
        run(*words, "--out", "c", code=2)
        assert not (here / "c").exists(), words
    (here / "c").mkdir()
    (here / "c" / "mine.txt").write_text("x")
    assert "is no sweep" in run(*SPEC, code=2).err


def test_failed_runs_stand_in_the_table(compared, here):
    begun(here)
    for seed in range(3):
        files.write_json_atomic(
            here / "c" / f"model=linear-seed={seed}" / "run.json",
            {"topic": "cnn", "status": "diverged"},
        )
    shown = compared(*SPEC, "--json")
    best, other = json.loads(shown.out)["data"]["rows"]
    assert (other["failed"], other["val_accuracy"]["mean"]) == (3, None)
    assert other["behind_best"]["mean"] is None
    assert shown.err.count("diverged in an earlier call") == 3
    assert "failed" in compared(*SPEC).out
    assert best["set"] == {"model": "mlp"}


def test_one_seed_says_that_it_tells_little():
    rows = [
        compare.Row((("model", name),), ("r",), (0,), {"val_accuracy": (value,)}, 0)
        for name, value in (("a", 0.9), ("b", 0.8))
    ]
    gap = compare.differences(*rows)
    assert gap["mean"] == pytest.approx(0.1)
    assert (gap["low"], gap["high"], gap["n"]) == (None, None, 1)
    empty = compare.Row((), (), (), {"val_accuracy": ()}, 1)
    assert empty.mean("val_accuracy") == -math.inf
