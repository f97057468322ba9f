"""`--track`: another program's own reader finds what was logged, also after a resume."""

import json

import pytest

from dltool import runs, tracking
from dltool.console import Console
from dltool.errors import Interrupted, MissingExtra

SETTINGS = {"learning_rate": 0.01, "data": "digits", "seed": 0}


def record(step, loss):
    return {"epoch": step // 10, "step": step, "train_loss": None, "val_loss": loss, "best": True}


def log_and_stop(run, settings, records, error):
    with tracking.followed(run, settings, Console("t")):
        for each in records:
            run.log(each)
        raise error


def events(folder):
    """Return what TensorBoard itself reads: name to (step, value) pairs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {
        name: [(each.step, pytest.approx(each.value)) for each in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_tensorboard_shows_a_resumed_run_as_one_line(tmp_path):
    run = runs.Run(tmp_path, "cnn")
    (tmp_path / "run.json").write_text("{}")
    settings = {**SETTINGS, "track": "tensorboard"}
    first = [record(step, 1 / step) for step in (10, 20, 30)]
    with pytest.raises(Interrupted):
        log_and_stop(run, settings, first, Interrupted(2, "stopped"))
    again = runs.Run(tmp_path, "cnn")
    with tracking.followed(again, settings, Console("t")):
        again.truncate_log(20)
        again.log(record(30, 0.5))
        again.finish({"test_accuracy": {"value": 0.75, "n": 4}, "run": "x"})
    found = events(tmp_path / "tensorboard")
    assert found["val_loss"] == [(10, 0.1), (20, 0.05), (30, 0.5)]
    assert found["result/test_accuracy"] == [(30, 0.75)]
    assert "train_loss" not in found
    assert "best" not in found


def test_mlflow_keeps_one_run_in_a_store_of_files(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow.tracking")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "runs/cnn/a"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    settings = {**SETTINGS, "track": "mlflow"}
    run = runs.Run(folder, "cnn")
    with pytest.raises(ZeroDivisionError):
        log_and_stop(run, settings, [record(10, 0.5), record(20, 0.4)], ZeroDivisionError())
    known = json.loads((folder / "track.json").read_text())
    client = mlflow.MlflowClient(tracking_uri=known["uri"])
    assert client.get_run(known["run_id"]).info.status == "FAILED"
    monkeypatch.chdir(folder)  # a resumed run finds its store from anywhere
    again = runs.Run(folder, "cnn")
    with tracking.followed(again, settings, Console("t")):
        again.truncate_log(10)
        again.log(record(20, 0.4))
        again.log(record(30, 0.3))
        again.finish({"test_accuracy": {"value": 0.75}})
    kept = client.get_run(known["run_id"])
    assert kept.info.status == "FINISHED"
    assert kept.data.params["learning_rate"] == "0.01"
    assert kept.data.metrics["result/test_accuracy"] == 0.75
    history = client.get_metric_history(known["run_id"], "val_loss")
    assert [(each.step, each.value) for each in history] == [(10, 0.5), (20, 0.4), (30, 0.3)]
    assert len(client.search_runs([kept.info.experiment_id])) == 1
    assert (tmp_path / "mlruns").is_dir()


def test_a_board_that_fails_is_told_once_and_stops_nothing(tmp_path, capsys):
    class Broken:
        def write(self, numbers, step):
            raise OSError("disk gone")

        forget = close = write

    console = Console("t")
    run = runs.Run(tmp_path, "cnn")
    run.track = tracking.Track("tensorboard", Broken(), console)
    for step in (10, 20):
        run.log(record(step, 0.1))
    run.track.close("FINISHED")
    assert len(console.warnings) == 1
    assert "disk gone" in console.warnings[0]
    assert [each["step"] for each in run.records()] == [10, 20]


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow"])
def test_a_missing_package_is_told_before_anything_begins(kind, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        tracking.require(kind)
    assert caught.value.cure == f"pip install 'dltool[{kind}]'"
    assert caught.value.exit_code == 3
    tracking.require("")
