"""Looking back: which runs are found and chosen, what is read of their logs, who is better."""

import csv
import importlib.util
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dltool import runs
from dltool.errors import CheckpointError, ConfigError, MissingExtra
from dltool.history import choose, curves, export, folders, groups, log, pictures, removal, values
from dltool.history import terminal as text_charts

SPEC = importlib.util.spec_from_file_location("past", Path(__file__).with_name("history_runs.py"))
past = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(past)
make, record, score = past.make, past.record, past.score


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_runs_of_every_depth_and_version_are_found_and_broken_ones_named(tmp_path):
    make(tmp_path / "runs/cnn/a")
    make(tmp_path / "runs/sweeps/one/b", created="2026-11-20T10:00:00+00:00")
    old = tmp_path / "runs/old"
    old.mkdir()
    (old / "run.json").write_text('{"topic": "weather", "status": "finished"}')
    (tmp_path / "runs/cnn/latest").symlink_to("a")
    foreign = tmp_path / "runs/foreign"
    foreign.mkdir()
    (foreign / "run.json").write_text('{"scripts": {}}')
    for name, content in (("cut", '{"topic": "cn'), ("newer", '{"format": 99, "topic": "cnn"}')):
        (tmp_path / "runs" / name).mkdir()
        (tmp_path / "runs" / name / "run.json").write_text(content)
    found, problems = folders.scan(tmp_path / "runs")
    assert [run.folder.name for run in found] == ["old", "b", "a"]
    assert sorted(problem.code for problem in problems) == ["E511", "E514"]
    assert (found[0].topic, found[0].state, found[0].data) == ("weather", "finished", "")
    assert found[0].scores == found[0].settings == found[0].record == {}


def test_a_run_whose_process_is_gone_is_no_longer_running(tmp_path):
    gone = make(tmp_path / "gone", status="running", process=2**22 + 12345)
    here = make(tmp_path / "here", status="running", process=os.getppid())
    assert folders.find(str(gone)).state == "stopped"
    assert folders.find(str(here)).state == "running"


def test_numbers_of_a_result_by_dotted_name():
    result = {
        "ap50": 0.8,
        "flag": True,
        "nothing": math.nan,
        "test_accuracy": score(0.9),
        "measured": {"n": 40, "rmse": {"value": 2.0, "low": 1.0, "high": 3.0}, "baseline_rmse": 4},
        "weights": [1, 2],
    }
    flat = values.flat(result)
    assert set(flat) == {"ap50", "test_accuracy", "measured.n", "measured.rmse"} | {
        "measured.baseline_rmse"
    }
    assert values.named(flat, "rmse") == values.Measured(2.0, 1.0, 3.0, 40, 4.0)
    assert flat["test_accuracy"].text() == (
        "0.9000 (95 % interval 0.8500 to 0.9500, n = 100, baseline 0.1000)"
    )


@pytest.mark.parametrize(
    ("name", "high"),
    [
        ("val_accuracy", True),
        ("test.ap50", True),
        ("val_loss", False),
        ("rmse", False),
        ("accuracy_error", False),
        ("training_seconds", False),
        ("images_per_second", True),
        ("parameters", None),
    ],
)
def test_direction_is_known_from_the_name(name, high):
    assert values.higher_is_better(name) is high


def test_a_name_that_says_nothing_needs_an_option():
    with pytest.raises(ConfigError, match="does not tell"):
        values.direction("parameters")
    assert values.direction("parameters", minimise=True) is False
    assert values.direction("val_loss", maximise=True) is True
    with pytest.raises(ConfigError, match="exclude"):
        values.direction("val_loss", minimise=True, maximise=True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("val_accuracy>=0.9", "bc"),
        ("val_accuracy > 0.95", "c"),
        ("val_accuracy!=0.95", "ac"),
        ("model=wide", "c"),
        ("learning_rate==1e-2", "abc"),
        ("status=finished", "abc"),
        ("test_accuracy<0.8", "abc"),
        ("lr=0.01", "abc"),
    ],
)
def test_conditions_on_metrics_settings_and_facts(tmp_path, text, names):
    for name, accuracy in (("a", 0.8), ("b", 0.95), ("c", 0.99)):
        settings = {"model": "wide"} if name == "c" else {}
        result = {"val_accuracy": accuracy, "test_accuracy": score(0.7)}
        make(tmp_path / name, result=result, settings=settings)
    found = choose.Choice(where=[text]).of(folders.scan(tmp_path)[0])
    assert "".join(run.folder.name for run in found) == names


def test_a_condition_that_names_nothing_or_is_none_is_refused(tmp_path):
    make(tmp_path / "a")
    found = folders.scan(tmp_path)[0]
    with pytest.raises(ConfigError, match="no run has 'val_acuracy'") as caught:
        choose.Choice(where=["val_acuracy>0"]).of(found)
    assert "val_accuracy" in caught.value.expected
    for text in ("val_accuracy", ">3", "a=", "model>wide"):
        with pytest.raises(ConfigError):
            choose.condition(text)


def test_choice_by_topic_data_time_state_and_grade(tmp_path):
    make(tmp_path / "a", created="2026-11-01T00:00:00+00:00", topic="detect")
    make(tmp_path / "b", settings={"data": "/data/mnist.csv"}, grade="statistical")
    make(tmp_path / "c", status="diverged", settings={"data": None, "task": "xor"})
    found = folders.scan(tmp_path)[0]

    def names(**wanted):
        return "".join(run.folder.name for run in choose.Choice(**wanted).of(found))

    assert names(topic="detect") == "a"
    assert names(data="mnist.csv") == names(data="mnist") == names(data="*.csv") == "b"
    assert names(data="xor") == names(state="diverged") == "c"
    assert names(grade="statistical") == "b"
    assert names(since="2026-11-10") == "bc"
    assert names(since="2026-11-21T10:00:00+00:00") == "bc"
    for wrong in ("yesterday", "7", "2026-13-01", "99999999999d"):
        with pytest.raises(ConfigError, match="--since"):
            names(since=wrong)


def test_sorting_puts_what_lacks_the_value_last(tmp_path):
    for name, accuracy in (("a", 0.9), ("b", None), ("c", 0.7)):
        result = {} if accuracy is None else {"test_accuracy": score(accuracy)}
        make(tmp_path / name, result=result)
    found = folders.scan(tmp_path)[0]
    order = choose.ordered(found, "test_accuracy")
    assert [run.folder.name for run in order] == ["c", "a", "b"]
    order = choose.ordered(found, "test_accuracy", reverse=True)
    assert [run.folder.name for run in order] == ["a", "c", "b"]


LINES = st.lists(
    st.dictionaries(
        st.sampled_from(["epoch", "a", "b"]),
        st.one_of(
            st.floats(),
            st.integers(-5, 5),
            st.none(),
            st.booleans(),
            st.sampled_from(['"a": 3', "{", "x}", "ä"]),
            st.dictionaries(st.sampled_from("ab"), st.integers(0, 3)),
        ),
    ),
    max_size=6,
)


@given(LINES, st.sampled_from(["", '{"epoch": 3, "a', "\n", "[1]\n", "x\n"]))
def test_fast_reading_of_a_log_equals_reading_line_by_line(tmp_path_factory, lines, tail):
    """The pattern may never see what the JSON does not say."""
    content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines) + tail
    names = ["epoch", "a"]
    fast = log.columns(content.encode(), names)
    slow = log._line_by_line(content.encode(), names)
    for name in names:
        kept = len(slow[name])  # after a damaged line the plain reader sees nothing
        np.testing.assert_array_equal(fast[name][:kept], slow[name])


def test_the_fast_way_is_taken_where_a_log_is_regular(tmp_path, monkeypatch):
    folder = make(tmp_path / "a")
    monkeypatch.setattr(log, "_line_by_line", None)
    x, y, axis = log.curves(folder, ["val_accuracy"])["val_accuracy"]
    assert (x.tolist(), y.tolist(), axis) == ([1, 2, 3], [0.6, 0.7, 0.8], "epoch")


def test_the_best_epoch_is_read_not_the_last(tmp_path):
    records = [record(1, 0.5), record(2, 0.9), record(3, 0.7, best=False)]
    run = folders.find(str(make(tmp_path / "a", records=records, result={})))
    assert run.value("val_accuracy") == 0.9
    assert run.value("train_loss") == 0.5
    with (tmp_path / "a/metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 4, "best": true, "val_acc')
    assert log.best_record(tmp_path / "a")["epoch"] == 2


def test_runs_that_differ_by_the_seed_are_one_group(tmp_path):
    made = [make(tmp_path / f"s{seed}", settings={"seed": seed}) for seed in (2, 0, 1)]
    wide = {"model": "wide", "width": 64}
    made.append(make(tmp_path / "w", settings=wide, origins={"model": "flag", "width": "recipe"}))
    again = make(tmp_path / "again", created="2026-11-22T10:00:00+00:00")
    found = groups.grouped(folders.chosen(map(str, [*made, again])))
    assert [group.label for group in found] == ["cnn model=small", "cnn model=wide"]
    assert found[0].seeds == [0, 1, 2]
    assert [run.folder.name for run in found[0].left_out] == ["s0"]
    assert any("left out" in doubt for doubt in groups.doubts(found))


def test_other_data_is_told(tmp_path):
    one, two = make(tmp_path / "a"), make(tmp_path / "b", fingerprint="beef", settings={"x": 1})
    found = groups.grouped(folders.chosen([str(one), str(two)]))
    assert groups.doubts(found) == [
        "the data changed between the runs: their fingerprints differ at one seed"
    ]


SEVERAL = st.lists(st.integers(0, 1000), min_size=2, max_size=6, unique=True)


@given(SEVERAL, SEVERAL)
def test_welch_interval_is_that_of_scipy(left, right):
    one, other = groups.spread(left), groups.spread(right)
    gap = groups.difference(one, other)
    expected = stats.ttest_ind(left, right, equal_var=False).confidence_interval(0.95)
    assert gap.low == pytest.approx(expected.low, rel=1e-9, abs=1e-9)
    assert gap.high == pytest.approx(expected.high, rel=1e-9, abs=1e-9)


def verdict_of(tmp_path, accuracies, name="val_accuracy", *, high=True):
    for model, found in accuracies.items():
        for seed, value in enumerate(found):
            folder = tmp_path / f"{model}{seed}"
            make(folder, settings={"model": model, "seed": seed}, result={name: value})
    return groups.verdict(groups.grouped(folders.scan(tmp_path)[0]), name, high=high)


@pytest.mark.parametrize(
    ("accuracies", "words"),
    [
        ({"a": [0.90, 0.91, 0.92], "b": [0.80, 0.81, 0.82]}, "cnn model=a is better: val_accuracy"),
        ({"a": [0.80, 0.90, 0.99], "b": [0.82, 0.86, 0.91]}, "not told apart: cnn model=a leads"),
        ({"a": [0.90], "b": [0.80]}, "one seed says little"),
        ({"a": [0.90], "b": [0.90]}, "are level"),
    ],
)
def test_the_verdict_says_whether_seeds_suffice(tmp_path, accuracies, words):
    assert words in verdict_of(tmp_path, accuracies)


def test_the_verdict_knows_that_a_low_loss_is_good(tmp_path):
    words = verdict_of(tmp_path, {"a": [0.9, 0.91], "b": [0.1, 0.11]}, "val_loss", high=False)
    assert words.startswith("cnn model=b is better")


def test_a_band_is_mean_and_deviation_where_runs_were_logged():
    x = np.array([1.0, 2.0, 3.0])
    same = groups.band("a", [(x, x, "epoch"), (x, x + 2, "epoch")])
    np.testing.assert_allclose(same.mean, x + 1)
    np.testing.assert_allclose(same.sd, np.std([0, 2], ddof=1))
    shorter = groups.band("a", [(x, x, "epoch"), (x[:2], x[:2], "epoch")])
    np.testing.assert_array_equal(shorter.x, x)
    assert np.isnan(shorter.sd[2])
    assert shorter.mean[2] == 3
    between = groups.band(
        "a", [(x, x, "step"), (np.array([1.0, 3.0]), np.array([1.0, 3.0]), "step")]
    )
    np.testing.assert_allclose(between.mean, x)
    assert groups.band("a", []) is None


@given(st.integers(1, 5000), st.integers(0, 4999))
def test_thinning_keeps_ends_and_every_peak(count, peak):
    curve = np.zeros(count)
    curve[peak % count] = 1.0
    kept = pictures.thinned(curve, 100)
    assert len(kept) <= 104
    assert {0, count - 1, peak % count} <= set(kept.tolist())
    assert (np.diff(kept) > 0).all()


def test_pictures_are_the_same_bytes_again_as_png_and_svg(tmp_path):
    found = folders.chosen([str(make(tmp_path / "a")), str(make(tmp_path / "b"))])
    panels = curves.of_runs(found, [])
    assert list(panels) == ["val_accuracy", "val_loss", "train_loss"]
    for name in ("a.png", "a.svg"):
        pictures.overlay(panels, tmp_path / name, "a $title")
        first = (tmp_path / name).read_bytes()
        pictures.overlay(panels, tmp_path / name, "a $title")
        assert (tmp_path / name).read_bytes() == first
    assert first.startswith(b"<?xml")
    with pytest.raises(ConfigError, match="PNG or SVG"):
        pictures.overlay(panels, tmp_path / "a.jpg", "")


def test_a_single_run_shows_training_beside_validation(tmp_path):
    panels = curves.of_runs(folders.chosen([str(make(tmp_path / "a"))]), [])
    assert {name: [each.label for each in bands] for name, bands in panels.items()} == {
        "accuracy": ["validation"],
        "loss": ["validation", "training"],
    }


def test_charts_in_the_terminal_with_and_without_dots(tmp_path, monkeypatch):
    found = folders.chosen([str(make(tmp_path / "a")), str(make(tmp_path / "b"))])
    panels = curves.of_runs(found, ["val_accuracy"])
    dots = text_charts.draw(panels, 60, color=False)
    assert "⠤" in dots or "⡠" in dots
    assert "\x1b" not in dots
    assert max(map(len, dots.splitlines())) <= 62
    plain = text_charts.draw(panels, 60, color=False, dots=False)
    assert plain.isascii()
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in text_charts.draw(panels, 60, color=True)
    constant = [record(1, 0.5)]
    one = curves.of_runs(folders.chosen([str(make(tmp_path / "c", records=constant))]), [])
    assert text_charts.draw(one, 60, color=False)


def test_export_reads_back_the_same_in_every_format(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    records = [record(1, 0.5), {**record(2, 0.1 + 0.2), "val_loss": None, "extra": [1]}]
    found = folders.chosen([str(make(tmp_path / "a", records=records))])
    for form in export.FORMATS:
        assert export.write(found, "metrics", tmp_path / f"t.{form}", form) == 2
    text = (tmp_path / "t.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines()))
    assert float(rows[1]["val_accuracy"]) == 0.1 + 0.2
    assert (rows[1]["val_loss"], rows[0]["extra"], rows[1]["extra"]) == ("", "", "[1]")
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines[1] == {"run": str(found[0].folder), "topic": "cnn", "seed": 0} | records[1]
    table = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert table[1]["val_accuracy"] == 0.1 + 0.2
    assert table[1]["val_loss"] is None
    assert export.write(found, "runs", tmp_path / "r.jsonl", "jsonl") == 1
    row = json.loads((tmp_path / "r.jsonl").read_text())
    assert (row["setting.model"], row["result.test_accuracy"]) == ("small", 0.75)


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    found = folders.chosen([str(make(tmp_path / "a"))])
    with pytest.raises(MissingExtra, match="pyarrow") as caught:
        export.write(found, "metrics", tmp_path / "t.parquet", "parquet")
    assert caught.value.exit_code == 3


def test_removal_takes_the_run_and_follows_no_link(tmp_path):
    outside = tmp_path / "precious"
    outside.mkdir()
    (outside / "data").write_text("x")
    first, second = make(tmp_path / "runs/cnn/a"), make(tmp_path / "runs/cnn/b")
    (second / "out").symlink_to(outside)
    runs.point_latest(second)
    removal.remove(folders.at(second))
    assert not second.exists()
    assert (outside / "data").read_text() == "x"
    assert (tmp_path / "runs/cnn/latest").resolve() == first
    removal.remove(folders.at(first))
    assert list((tmp_path / "runs/cnn").iterdir()) == []


def test_removal_refuses_what_is_no_run_or_in_use(tmp_path, monkeypatch):
    run = make(tmp_path / "runs")
    make(run / "cnn/inner")
    with pytest.raises(ConfigError, match="holds 1 other runs"):
        removal.refuse(folders.at(run))
    (tmp_path / "link").symlink_to(run / "cnn/inner")
    with pytest.raises(CheckpointError, match="is a link"):
        folders.at(tmp_path / "link")
    with pytest.raises(CheckpointError, match=r"has no run\.json"):
        folders.at(tmp_path)
    busy = make(tmp_path / "busy", status="running", process=os.getppid())
    with pytest.raises(ConfigError, match="is being trained"):
        removal.refuse(folders.at(busy))
    taken = make(tmp_path / "taken")
    with runs.locked(taken), pytest.raises(ConfigError, match="another process"):
        removal.remove(folders.at(taken))
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "run.json").write_text('{"topic": "cnn"}')
    with pytest.raises(CheckpointError, match="no folder that a train command made"):
        removal.refuse(folders.at(bare))
    monkeypatch.chdir(taken)
    with pytest.raises(ConfigError, match="working folder"):
        removal.refuse(folders.at(taken))
    assert busy.exists()
    assert taken.exists()
