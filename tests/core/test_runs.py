"""Run folders: names, pointers, origins, locks, logs."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from dltool import files, resuming, runs
from dltool.commands import reproduce, resume
from dltool.console import Console
from dltool.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Config:
    epochs: int = 3
    rate: float = 0.1
    name: str = "a"
    flag: bool = False


ORIGINS = dict.fromkeys(("epochs", "rate", "name", "flag"), "default")


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(out=None, name="x"):
    return runs.create("t", name, out, Config(), ORIGINS, "bitwise")


def test_flags_come_before_file_before_recipe_before_default():
    config, origins = runs.settle(
        Config,
        flags={"name": "flag"},
        file={"name": "file", "rate": 0.2},
        file_name="c.toml",
        recipe={"name": "recipe", "rate": 0.3, "epochs": 9},
    )
    assert config == Config(epochs=9, rate=0.2, name="flag")
    assert origins == {
        "name": "flag",
        "rate": "file c.toml",
        "epochs": "recipe",
        "flag": "default",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 1", "'epochs'"),
        ("epochs = 1.5", "int"),
        ("epochs = true", "int"),
        ('rate = "x"', "float"),
        ("epochs = ", "cannot read"),
        ("\x00", "cannot read"),
    ],
)
def test_bad_config_files_are_named(tmp_path, text, words):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        runs.read_config_file(path, Config)
    assert words in caught.value.one_line()


def test_config_file_takes_dashes_whole_floats_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.toml"
    path.write_bytes(b"\xef\xbb\xbfrate = 2\n")
    assert runs.read_config_file(path, Config) == {"rate": 2.0}


def test_two_runs_at_once_get_two_folders_and_latest_is_the_second():
    first, second = make(), make()
    assert first.folder != second.folder
    assert runs.locate("latest", "t") == second.folder.resolve()
    assert runs.locate(second.folder.name, "t") == second.folder


def test_latest_as_a_text_file_where_links_cannot_be(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    run = make()
    assert (runs.ROOT / "t" / "latest").is_file()
    assert runs.locate("latest", "t") == run.folder


def test_a_folder_of_the_users_choice_gets_no_neighbour(tmp_path):
    make(out=tmp_path / "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_existing_folder_with_content_is_refused(tmp_path):
    make(out=tmp_path / "mine")
    with pytest.raises(ConfigError, match="exists already") as caught:
        make(out=tmp_path / "mine")
    assert "--resume" in caught.value.cure


def test_config_comes_back_with_origins():
    run = make()
    assert runs.read_config(run.folder, Config) == (Config(), ORIGINS)
    folder = str(run.folder)
    with pytest.raises(ConfigError, match="epochs: 3 in the run, 4 given"):
        resuming.resumed(folder, "t", Config, {"epochs": 4, "name": "a"}, allow_changed=False)
    same = resuming.resumed(folder, "t", Config, {"epochs": 3}, allow_changed=False)
    assert same == (run.folder, Config(), ORIGINS)


def test_log_survives_a_half_written_last_line():
    run = make()
    for step in (1, 2, 3):
        run.log({"step": step, "loss": 0.5})
    with (run.folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    assert [record["step"] for record in run.records()] == [1, 2, 3]
    run.truncate_log(2)
    assert [record["step"] for record in run.records()] == [1, 2]


def test_another_process_cannot_use_the_folder():
    run = make()
    code = (
        "import sys; from pathlib import Path; from dltool import runs\n"
        "with runs.locked(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"in\n"
    with pytest.raises(ConfigError, match="another process"), runs.locked(run.folder):
        pass
    holder.kill()
    holder.communicate()
    with runs.locked(run.folder):  # the lock of a killed process is free
        pass


def test_listing_passes_over_damaged_folders_and_links(tmp_path):
    run = make()
    make(out=tmp_path / "runs" / "own")
    (tmp_path / "runs" / "t" / "broken").mkdir()
    (tmp_path / "runs" / "t" / "broken" / "run.json").write_text("{")
    found = runs.listed(tmp_path / "runs")
    assert len(found) == 2
    assert str(run.folder.resolve()) in {str((tmp_path / f["folder"]).resolve()) for f in found}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}'])
def test_damaged_run_json_is_named(text):
    run = make()
    (run.folder / "run.json").write_text(text)
    with pytest.raises(CheckpointError):
        runs.read_json(run.folder)


def test_wrong_topic_is_refused():
    with pytest.raises(CheckpointError, match="a run of t, not of other"):
        runs.open_run(make().folder, "other")


def test_environment_names_versions_and_stays_json():
    described = json.loads(json.dumps(runs.environment()))
    assert described["packages"]["torch"]


def test_atomic_write_leaves_old_content_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json_atomic(path, {"old": 1})

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(Exception, match="Input/output"):
        files.write_json_atomic(path, {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [item.name for item in tmp_path.iterdir()] == ["a.json"]


def test_sweep_takes_only_what_dead_processes_left(tmp_path):
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    dead = tmp_path / f".x{files.TEMPORARY}{done.stdout.strip()}-ab"
    alive = tmp_path / f".x{files.TEMPORARY}{os.getppid()}-ab"
    other = tmp_path / ".x.tmp-notanumber"
    for path in (dead, alive, other):
        path.mkdir()
    assert files.sweep_temporaries(tmp_path) == [dead]
    assert alive.exists()
    assert other.exists()


def test_the_command_that_made_a_run_goes_on_with_it_and_repeats_it(tmp_path, monkeypatch):
    run = runs.create("t", "x", tmp_path / "r", Config(), ORIGINS, "bitwise", "pretrain")
    assert run.resume_command.startswith("dltool t pretrain --resume ")
    with pytest.raises(ConfigError, match="of t pretrain, not of t train") as caught:
        resuming.resumed(str(run.folder), "t", Config, {}, allow_changed=False)
    assert caught.value.cure.startswith("dltool t pretrain --resume ")
    again = resuming.resumed(str(run.folder), "t", Config, {}, allow_changed=False, verb="pretrain")
    assert again[1] == Config()
    calls = []

    def called(words, **others):
        calls.append([str(word) for word in words])
        return SimpleNamespace(code=0, events=[], errors="")

    monkeypatch.setattr(reproduce.processes, "run", called)
    monkeypatch.setattr(reproduce.processes, "refuse_failure", lambda *ended: None)
    reproduce._train_again(run.folder, run.facts(), tmp_path / "second", Console("test"))
    assert calls[0][:3] == ["t", "pretrain", "--config"]
    monkeypatch.setattr("dltool.cli.run", lambda words: calls.append(words) or 0)
    done = CliRunner().invoke(resume.app, [str(run.folder)])
    assert done.exit_code == 0
    assert calls[1][:3] == ["t", "pretrain", "--resume"]
