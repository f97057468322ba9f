"""Sweeps: what is trained, what a later call goes on with, and what is compared."""

from __future__ import annotations

import json
import os
import signal
import stat
import statistics
import sys
import threading
import time

import pytest

from dltool import sweep_processes, sweep_scores, sweep_sources, sweeps, tree
from dltool.console import Console
from dltool.errors import ConfigError, Interrupted

PARAMETERS = tree.parameters(tree.command("mlp-xor", "train"))

# stands for `python -m dltool`: trains in no time, fails at --lr=0.5, and at --lr=9 waits for
# Ctrl-C, saves, and ends at the next call
STUB = """#!{python}
import json, pathlib, signal, sys, time
words = sys.argv[3:]
resumed = "--resume" in words
folder = pathlib.Path(words[words.index("--resume" if resumed else "--out") + 1])
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
calls = folder / "calls"
calls.write_text((calls.read_text() if calls.exists() else "") + json.dumps(words) + "\\n")
rate = next((float(word[5:]) for word in words if word.startswith("--lr=")), 0.0)
seed = int(words[words.index("--seed") + 1]) if "--seed" in words else 0
facts = {{"topic": "mlp-xor", "status": "running", "result": None}}
def write(**values):
    (folder / "run.json").write_text(json.dumps({{**facts, **values}}))
    (folder / "config.json").write_text("{{}}")
def stop(*_):
    (folder / "checkpoints" / "step-1").mkdir(exist_ok=True)
    write(status="interrupted")
    sys.exit(130)
signal.signal(signal.SIGINT, stop)
write()
if rate == 0.5:
    write(status="diverged")
    print(json.dumps({{"error": {{"message": "the loss became nan"}}}}))
    sys.exit(7)
if rate == 0.25:
    sys.exit(3)
if rate == 9 and not resumed:
    time.sleep(30)
result = {{"val_loss": rate + seed / 100, "accuracy": {{"value": 1 - rate}}}}
write(status="finished", result=result)
"""


@pytest.fixture(autouse=True)
def stub(tmp_path, monkeypatch):
    """Take the place of the Python that trains."""
    path = tmp_path / "python"
    path.write_text(STUB.format(python=sys.executable))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_processes.sys, "executable", str(path))
    return path


def asked(folder, *sets, seeds=(), fixed=()):
    axes = [sweeps.axis(text, PARAMETERS) for text in sets]
    made = sweeps.Sweep(
        ("mlp-xor", "train"),
        {each.name: each for each in PARAMETERS},
        {parameter.name: values for parameter, values in axes},
        tuple(fixed),
        tuple(seeds),
        folder,
    )
    sweeps.open_folder(made, "grid", [])
    return made


def run(made, jobs=2):
    source = sweep_sources.Grid(made)
    return sweep_processes.run_all(source, jobs, Console("test"), lambda outcome: outcome.told)


def calls(member):
    return [json.loads(line) for line in (member.folder / "calls").read_text().splitlines()]


def test_every_combination_gets_every_seed_and_the_fixed_options(tmp_path):
    made = asked(
        tmp_path / "s", "lr=0.1,0.2", "hidden=4|8,8", seeds=(0, 1), fixed=["--epochs", "3"]
    )
    outcomes = run(made)
    assert [each.code for each in outcomes] == [0] * 8
    names = {each.member.name for each in outcomes}
    assert len(names) == 8
    assert "learning_rate=0.1-hidden=4-seed=1" in names
    member = made.members(made.settings()[1])[1]
    assert calls(member)[0][:7] == [
        "mlp-xor", "train", "--epochs", "3", "--lr=0.1", "--hidden=8,8", "--seed",
    ]  # fmt: skip


def test_a_failed_run_stops_no_other_and_a_second_call_goes_on_with_what_is_missing(
    tmp_path, capsys
):
    made = asked(tmp_path / "s", "lr=0.1,0.25,0.5,0.2")
    first = {each.member.settings[0][1]: each for each in run(made)}
    assert [first[rate].code for rate in ("0.1", "0.2", "0.25", "0.5")] == [0, 0, 3, 7]
    assert first["0.5"].told == "the loss became nan"
    assert "logs" in first["0.25"].told
    again = {each.member.settings[0][1]: each for each in run(made)}
    assert [again[rate].was_there for rate in ("0.1", "0.2", "0.25", "0.5")] == [
        True, True, False, True,
    ]  # fmt: skip
    more = asked(tmp_path / "s", "lr=0.1,0.3")
    assert [each.was_there for each in run(more)] == [True, False]
    assert "[4/4]" in capsys.readouterr().err


def test_ctrl_c_lets_every_run_save_and_the_next_call_resumes_them(tmp_path):
    made = asked(tmp_path / "s", "lr=9,0.1", seeds=(0, 1))

    def interrupt():
        begun = made.members(made.settings()[0])
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if all((member.folder / "run.json").exists() for member in begun):
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        thread.start()
        with pytest.raises(Interrupted, match="0 of 4 runs are done"):
            run(made)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    stopped = made.members(made.settings()[0])
    assert [member.state() for member in stopped] == ["begun", "begun"]
    assert [each.code for each in run(made)] == [0] * 4
    assert calls(stopped[0])[1][:3] == ["mlp-xor", "train", "--resume"]


def test_a_run_that_is_damaged_begins_again(tmp_path):
    made = asked(tmp_path / "s", "lr=0.1")
    run(made)
    member = made.members(made.settings()[0])[0]
    (member.folder / "run.json").write_text("{")
    assert member.state() == "missing"
    assert [each.was_there for each in run(made)] == [False]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    asked(tmp_path / "s", "lr=0.1", fixed=["--epochs", "3"])
    with pytest.raises(ConfigError, match="other fixed"):
        asked(tmp_path / "s", "lr=0.1", fixed=["--epochs", "4"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text").write_text("x")
    with pytest.raises(ConfigError, match="is no sweep"):
        asked(tmp_path / "mine", "lr=0.1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr", "not understood"),
        ("lr=", "not understood"),
        ("lr=1,,2", "not understood"),
        ("rate=1", "no option 'rate'"),
        ("out=a,b", "cannot be swept"),
    ],
)
def test_a_set_that_means_nothing_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        sweeps.axis(text, PARAMETERS)


def test_settings_are_named_by_option_or_key_and_yes_or_no_becomes_a_flag():
    for name in ("lr", "--lr", "learning_rate", "learning-rate"):
        assert sweeps.named(name, PARAMETERS).name == "learning_rate"
    switch = sweeps.named("deterministic", PARAMETERS)
    assert sweeps.option(switch, "true") == ["--deterministic"]
    assert sweeps.option(switch, "no") == ["--no-deterministic"]
    with pytest.raises(ConfigError, match="yes or no"):
        sweeps.option(switch, "maybe")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr=1e-3", "not understood"),
        ("lr=2..1", "is no range"),
        ("lr=0..1:log", "is no range"),
        ("lr=a..b", "is no range"),
        ("epochs=1.5..3", "whole number"),
        ("hidden=1..3", "is no number"),
    ],
)
def test_a_range_that_is_none_is_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        sweep_sources.span(text, PARAMETERS)


def test_figures_are_found_and_means_are_those_of_statistics(tmp_path):
    made = asked(tmp_path / "s", "lr=0.1,0.2,0.5", seeds=(0, 1, 2))
    run(made)
    places = [[member.folder for member in made.members(one)] for one in made.settings()[:2]]
    metric = sweep_scores.find(places[0][0])
    assert (metric.name, metric.higher) == ("val_loss", False)
    best, second = (
        sweep_scores.row(one, folders, 0, metric)
        for one, folders in zip(made.settings(), places, strict=False)
    )
    assert second.mean == pytest.approx(statistics.mean([0.2, 0.21, 0.22]))
    assert second.deviation == pytest.approx(statistics.stdev([0.2, 0.21, 0.22]))
    other = sweep_scores.Metric("accuracy", True)
    assert sweep_scores.score(places[1][0], other) == 0.8
    none = sweep_scores.row(made.settings()[2], [], 3, metric)
    assert sweep_scores.ranked([none, second, best], metric) == [best, second, none]
    assert sweep_scores.ranked([best, second], other) == [second, best]
    assert "learning_rate 0.1 is better" in sweep_scores.verdict([best, second, none], metric)
    one = sweep_scores.row(made.settings()[0], places[0][:1], 0, metric)
    assert "one seed says little" in sweep_scores.verdict([one, second], metric)


def test_a_search_goes_on_where_it_was_and_learns_from_every_seed(tmp_path):
    optuna = pytest.importorskip("optuna")
    made = asked(tmp_path / "s", seeds=(0, 1))
    spans = [sweep_sources.span("lr=1e-3..1e-1:log", PARAMETERS)]
    metric = sweep_scores.Metric("val_loss", False)

    def search(trials):
        return sweep_sources.Search(
            made, spans, trials, lambda folder: sweep_scores.score(folder, metric), higher=False
        )

    def go(source):
        return sweep_processes.run_all(source, 2, Console("test"), lambda outcome: "")

    begun = search(3)
    begun.next()  # as a call that was stopped leaves it
    outcomes = go(search(3))
    assert len(outcomes) == 6
    study = search(3).study
    assert [trial.state for trial in study.trials] == [optuna.trial.TrialState.COMPLETE] * 3
    for trial in study.trials:
        assert trial.value == pytest.approx(trial.params["learning_rate"] + 0.005, rel=1e-3)
    assert len({trial.params["learning_rate"] for trial in study.trials}) == 3
    last = search(5)
    assert len(go(last)) == 4
    assert len(last.settings) == 5


def test_the_command_trains_compares_and_names_the_best(dltool, work, monkeypatch):
    monkeypatch.undo()
    options = ["--task", "circles", "--epochs", "2", "--set", "hidden=4,none", "--jobs", "2"]
    shown = dltool("sweep", "mlp-xor", *options, "--json").json()["data"]
    assert [len(row["runs"]) for row in shown["settings"]] == [1, 1]
    assert shown["settings"][0]["mean"] >= shown["settings"][1]["mean"]
    assert (shown["metric"], shown["higher_is_better"]) == ("val_accuracy", True)
    assert "--hidden=" in shown["best"]["command"]
    listed = dltool("runs", "list", "--json").json()["data"]["runs"]
    assert len(listed) == 2
    dltool("sweep", "mlp-xor", "--set", "lr=-1,2", code=2)
    assert "not for a sweep" in dltool("sweep", "mlp-xor", "--dry-run", code=2).err
    assert "no option" in dltool("sweep", "mlp-xor", "--set", "x=1", code=2).err
    assert "trains nothing" in dltool("sweep", "cnn", "predict", "--seeds", "2", code=2).err
