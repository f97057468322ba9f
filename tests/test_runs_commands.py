"""`dltool runs` as a stranger calls it: exit codes, streams, files, and what it refuses."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import jsonschema
import pytest

from dltool import schemas

SPEC = importlib.util.spec_from_file_location(
    "past", Path(__file__).parent / "core/history_runs.py"
)
past = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(past)


@pytest.fixture
def made(work):
    """Three seeds of two models, and a run of a third-party topic."""
    for model, base in (("small", 0.8), ("wide", 0.9)):
        for seed in range(3):
            value = base + seed / 100
            past.make(
                work / f"runs/cnn/{model}-{seed}",
                settings={"model": model, "seed": seed},
                origins={"model": "flag"},
                records=[past.record(epoch, value - 0.1 / epoch) for epoch in (1, 2, 3)],
                result={"val_accuracy": value, "test_accuracy": past.score(value - 0.02)},
            )
    result = {"anomalies": 3, "test_auc": past.score(0.7)}
    past.make(work / "runs/anomaly/x", topic="anomaly", result=result, settings={"data": "pump"})
    return work


def test_a_run_of_an_older_version_is_listed_as_the_schema_says(made, dltool, work):
    old = work / "runs/old"
    old.mkdir()
    (old / "run.json").write_text('{"topic": "weather", "status": "running", "process": 0}')
    told = dltool("runs", "list", "--json").json()
    jsonschema.validate(told, schemas.output("runs", "list"))
    assert (told["data"]["runs"][0]["folder"], len(told["data"]["runs"])) == ("runs/old", 8)
    assert told["data"]["runs"][0]["status"] == "stopped"
    told = dltool("runs", "show", "runs/old", "--json").json()
    jsonschema.validate(told, schemas.output("runs", "show"))
    assert "weather" in dltool("runs", "show", "runs/old").out


def test_list_filters_sorts_and_shows_columns(made, dltool):
    words = ["--where", "val_accuracy>=0.81", "--sort", "val_accuracy", "--reverse"]
    listed = dltool("runs", "list", *words, "--columns", "folder,seed,val_accuracy")
    assert [line.split() for line in listed.out.splitlines()][:2] == [
        ["folder", "seed", "val_accuracy"],
        ["runs/cnn/wide-2", "2", "0.9200"],
    ]
    assert len(listed.out.splitlines()) == 6
    assert "fits" in dltool("runs", "list", "--topic", "weather").out
    dltool("runs", "list", "--where", "val_acuracy>1", code=2)
    dltool("runs", "list", "--since", "soon", code=2)


def test_best_goes_by_validation_and_warns_of_the_test(made, dltool):
    best = dltool("runs", "best", "--topic", "cnn", "--json").json()
    assert best["data"]["best"]["folder"] == "runs/cnn/wide-2"
    assert (best["data"]["metric"], best["data"]["higher_is_better"]) == ("val_accuracy", True)
    assert best["warnings"] == []
    by_loss = dltool("runs", "best", "--metric", "val_loss", "--topic", "cnn", "--json").json()
    assert by_loss["data"]["higher_is_better"] is False
    assert "looks better than it is" in dltool("runs", "best", "--metric", "test_accuracy").err
    dltool("runs", "best", "--metric", "anomalies", code=2)
    dltool("runs", "best", "--metric", "model", "--maximise", code=2)
    lowest = dltool("runs", "best", "--metric", "anomalies", "--minimise", "--json").json()
    assert lowest["data"]["best"]["topic"] == "anomaly"
    assert dltool("runs", "best", "--root", "nothing", code=5).err.startswith("error E501")


def test_compare_tells_the_better_model_and_draws(made, dltool, work):
    done = dltool("runs", "compare", "runs/cnn", "--json").json()["data"]
    assert [row["group"] for row in done["groups"]] == ["cnn model=wide", "cnn model=small"]
    assert done["groups"][0]["mean"] == pytest.approx(0.91)
    assert done["groups"][0]["sd"] == pytest.approx(0.01)
    assert done["groups"][1]["seeds"] == [0, 1, 2]
    assert done["verdict"].startswith("cnn model=wide is better: val_accuracy 0.9100 ± 0.0100")
    assert (work / done["picture"]).read_bytes().startswith(b"\x89PNG")
    text = dltool("runs", "compare", "runs/cnn", "--out", "c.svg")
    assert "behind the best" in text.out
    assert (work / "c.svg").read_text().startswith("<?xml")
    mixed = dltool("runs", "compare", "runs", "--metric", "test_auc")
    assert "several topics" in mixed.err
    dltool("runs", "compare", "runs/cnn", "--out", "c.jpg", code=2)
    dltool("runs", "compare", "runs/cnn/none", code=5)


def test_diff_shows_settings_with_origins_environment_and_data(made, dltool, work):
    past.make(
        work / "other",
        settings={"model": "small", "seed": 0, "clip": 1.0},
        environment={"python": "3.12.1", "cores": 2},
        fingerprint="beef",
        origins={"clip": "file c.toml"},
    )
    found = dltool("runs", "diff", "runs/cnn/small-0", "other", "--json").json()["data"]
    assert found["settings"] == [
        {"setting": "clip", "a": None, "a_origin": None, "b": 1.0, "b_origin": "file c.toml"}
    ]
    assert found["environment"] == [{"name": "python", "before": "3.11.9", "now": "3.12.1"}]
    assert found["data"] == [{"value": "fingerprint", "a": "f00d", "b": "beef"}]
    assert {each["name"] for each in found["result"]} == {"test_accuracy"}
    same = dltool("runs", "diff", "other", "other").out
    assert "settings: the same" in same


def test_notes_are_kept_shown_and_found(made, dltool, work):
    run = "runs/cnn/wide-1"
    assert "has no note" in dltool("runs", "note", run).err
    dltool("runs", "note", run, "broken augmentation ü")
    dltool("runs", "note", run, "--append", "-", stdin=b"second line\n")
    assert dltool("runs", "note", run).out == "broken augmentation ü\nsecond line\n"
    listed = dltool("runs", "list", "--columns", "folder,note", "--where", "seed=1").out
    assert "broken augmentation ü second line" in listed
    assert "broken augmentation" in dltool("runs", "show", run).out
    dltool("runs", "note", run, "")
    assert not (work / run / "note.txt").exists()
    dltool("runs", "note", run, "x" * 70000, code=2)
    dltool("runs", "note", run, "--append", code=2)


def test_removal_asks_and_takes_only_what_was_named(made, dltool, work):
    refused = dltool("runs", "rm", "runs/cnn/wide-0", code=2)
    assert "add --yes" in refused.err
    assert (work / "runs/cnn/wide-0").exists()
    # all are looked at before the first goes
    dltool("runs", "rm", "runs/cnn/wide-0", "runs/cnn", "--yes", code=5)
    assert (work / "runs/cnn/wide-0").exists()
    done = dltool("runs", "rm", "runs/cnn/wide-0", "runs/cnn/wide-0/", "--yes", "--json").json()
    assert done["data"]["removed"] == ["runs/cnn/wide-0"]
    assert sorted(path.name for path in (work / "runs/cnn").iterdir())[-1] == "wide-2"
    dltool("runs", "rm", "runs/cnn/latest", "--yes", code=5)


def test_export_by_the_name_of_the_file(made, dltool, work):
    done = dltool("runs", "export", "runs/cnn", "--out", "m.csv", "--json").json()["data"]
    assert (done["format"], done["rows"]) == ("csv", 18)
    dltool("runs", "export", "runs", "--out", "r.txt", "--format", "jsonl", "--table", "runs")
    assert len((work / "r.txt").read_text().splitlines()) == 7
    dltool("runs", "export", "runs", "--out", "r.txt", code=2)
    dltool("runs", "export", "runs", "--out", "r.csv", "--table", "epochs", code=2)


def test_plot_draws_files_and_in_the_terminal(made, dltool, work):
    one = "runs/cnn/wide-1"
    drawn = dltool("runs", "plot", one, "--metric", "val_accuracy", "--terminal", COLUMNS="70")
    assert "⠤" in drawn.out or "⠔" in drawn.out
    assert "\x1b" not in drawn.out
    assert not (work / "runs/plot.png").exists()
    assert dltool("runs", "plot", one, "--json").json()["data"]["picture"] == "runs/plot.png"
    dltool("runs", "plot", one, "--terminal", "--out", "x.png", code=2)
    dltool("runs", "plot", one, "--metric", "loss", code=2)
    dltool("runs", "plot", one, "--metric", "test_accuracy", code=5)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_removal_on_a_terminal_takes_no_for_an_answer(made, environment):
    import pty
    import subprocess

    master, slave = pty.openpty()
    words = [sys.executable, "-m", "dltool", "runs", "rm", "runs/cnn/wide-0"]
    with subprocess.Popen(
        words, cwd=made, env=environment, stdin=slave, stdout=subprocess.PIPE, stderr=slave
    ) as process:
        os.close(slave)
        os.write(master, b"n\n")
        out = process.stdout.read().decode()
    asked = os.read(master, 4096).decode()
    os.close(master)
    assert (process.returncode, out.strip()) == (0, "nothing was removed"), asked
    assert (made / "runs/cnn/wide-0").exists()


def test_damaged_runs_are_warned_of_and_the_others_listed(made, dltool, work):
    (work / "runs/cnn/wide-0/run.json").write_text("{")
    done = dltool("runs", "list", "--json").json()
    assert len(done["data"]["runs"]) == 6
    assert "wide-0" in done["warnings"][0]
    (work / "runs/cnn/wide-1/config.json").write_text("[]")
    found = dltool("runs", "list", "--json").json()
    assert len(found["data"]["runs"]) == 6
    assert json.dumps(found["warnings"]).count("config.json") == 1


def test_a_training_writes_for_tensorboard_from_the_same_lines(dltool, work):
    words = ["mlp-xor", "train", "--task", "table", "--epochs", "3", "--out", "run"]
    assert "--track" in dltool(*words, "--track", "wandb", code=2).err
    assert not (work / "run").exists()
    dltool(*words, "--track", "tensorboard")
    config = json.loads((work / "run/config.json").read_text())
    assert config["track"] == {"value": "tensorboard", "origin": "flag"}
    assert len(list((work / "run/tensorboard").glob("events.*"))) == 1


@pytest.mark.slow
def test_the_session_of_the_readme_names_the_better_model(repository, work, environment):
    import subprocess

    text = (repository / "README.md").read_text(encoding="utf-8")
    section = text.split("## Which model is better?")[1]
    session = section.split("```console\n")[1].split("```")[0]
    bin_folder = str(Path(sys.executable).parent)
    variables = {**environment, "PATH": f"{bin_folder}:{environment['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", session], cwd=work, env=variables, capture_output=True, check=True
    )
    assert "cnn model=simple-cnn is better: val_accuracy" in done.stdout.decode()
    assert (work / "report.html").stat().st_size <= 2_000_000
