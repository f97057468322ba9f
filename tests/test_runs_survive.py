"""Runs as processes: stopped, killed, resumed, repeated; with a topic of a third party too."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

TOPIC = '''
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from dltool import options, resuming, runs
from dltool.console import Console

app = typer.Typer()


@dataclass(frozen=True)
class Config:
    epochs: int = 4
    width: int = 8
    pause: float = 0.0
    evaluating: float = 0.0
    leaky: bool = False
    save_every: str = "60s"
    keep: int = 2
    max_time: str = ""


@app.callback()
def root() -> None:
    """A stranger's topic."""


@app.command()
def train(
    ctx: typer.Context,
    epochs: int = 4,
    width: int = 8,
    pause: float = 0.0,
    evaluating: float = 0.0,
    leaky: bool = False,
    save_every: options.SaveEveryOption = "60s",
    keep: options.KeepOption = 2,
    max_time: options.MaxTimeOption = "",
    out: options.OutOption = None,
    resume: options.ResumeOption = None,
    allow_changed: options.AllowChangedOption = False,
    config: options.ConfigOption = None,
    json: options.JsonOption = False,
    events: options.EventsOption = False,
) -> None:
    """Train."""
    console = Console("tiny train", json=json, events=events)
    flags, folder = options.given(ctx, Config), None
    if resume is not None:
        folder, settings, origins = resuming.resumed(
            resume, "tiny", Config, flags, allow_changed=allow_changed
        )
    else:
        file = runs.read_config_file(config, Config) if config else {}
        settings, origins = runs.settle(Config, flags=flags, file=file)
    with resuming.opened(
        "tiny", "tiny", settings, origins, "bitwise", out=out, resume=folder, console=console
    ) as run:
        work(settings, run, console, folder is not None)


def work(settings, run, console, is_resumed):
    import torch
    from torch import nn

    from dltool import training
    from dltool.device import generator, seed_everything

    class Source:
        def __len__(self):
            return 10

        def batches(self, epoch, start=0):
            for index in range(start, 10):
                yield torch.randn(4, 3, generator=generator(0, epoch, index))

    seed_everything(0)
    wide = settings.width
    model = nn.Sequential(nn.Linear(3, wide), nn.Dropout(0.5), nn.Linear(wide, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    leak = torch.Generator().manual_seed(1)  # begins anew in every process, and is nowhere saved
    options = training.Settings(
        device=torch.device("cpu"), monitor="val_loss", save_every=settings.save_every,
        keep=settings.keep, max_time=settings.max_time,
    )
    with training.session(
        run, model, optimizer, options, console=console, resume=is_resumed
    ) as session:
        for epoch in session.epochs(settings.epochs):
            for x in session.batches(Source()):
                console.event("batch", at=[epoch, session.batch], step=session.global_step)
                time.sleep(settings.pause)
                if settings.leaky:
                    x = x + torch.randn(1, generator=leak)
                with session.attempt():
                    session.step(model(x).square().mean(), count=4)
            console.event("evaluating", epoch=epoch)
            time.sleep(settings.evaluating)
            session.report({"val_loss": 1.0 / (epoch + 1)})
    run.update(status="finished", result={"loss": session.best.value})
    console.result({"run": str(run.folder), "loss": session.best.value}, "done")
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of packages with a third party's topic `tiny`."""
    site = tmp_path_factory.mktemp("site")
    facts = site / "tiny-1.0.dist-info"
    facts.mkdir(parents=True)
    (site / "tiny_topic.py").write_text(TOPIC, encoding="utf-8")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[dltool.plugins]\ntiny = tiny_topic:app\n")
    return site


def with_site(environment, site):
    paths = [str(site), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


@pytest.fixture
def environment(environment, site):
    """The user's environment with `tiny` installed."""
    return with_site(environment, site)


@pytest.fixture(scope="module")
def straight(site):
    """A run of `tiny` that nothing interrupted."""
    folder = site / "straight"
    command = [sys.executable, "-m", "dltool", "tiny", "train", "--out", str(folder)]
    environment = {**with_site(dict(os.environ), site), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return folder


@pytest.fixture
def start(environment, work):
    """Start `dltool ...` and return the process; the test waits for an event and sends signals."""
    running = []

    def begin(*words, before=("-m", "dltool"), **settings):
        process = subprocess.Popen(
            [sys.executable, *before, *map(str, words), "--events"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=work,
            env=environment,
            **settings,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(process, event, **values):
    """Read events until one of this kind has these values."""
    for line in process.stdout:
        found = json.loads(line)
        if found["event"] == event and all(found.get(k) == v for k, v in values.items()):
            return found
    raise AssertionError(process.stderr.read())


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def same_end(one, two):
    """Compare two finished runs: newest weights and metrics."""
    folders = [sorted((run / "checkpoints").glob("step-*"))[-1] for run in (one, two)]
    entries = [read(folder / "MANIFEST.json")["files"] for folder in folders]
    for name in ("model.safetensors", "optimizer.safetensors", "rng.safetensors"):
        assert entries[0][name]["sha256"] == entries[1][name]["sha256"], name
    lines = [
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (one, two)
    ]
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("number", "event", "values"),
    [
        (signal.SIGTERM, "batch", {"step": 0}),
        (signal.SIGINT, "batch", {"step": 17}),
        (signal.SIGTERM, "evaluating", {"epoch": 1}),
    ],
    ids=["first-step", "training", "evaluation"],
)
def test_a_signal_saves_tells_how_to_go_on_and_the_end_is_the_same(
    dltool, start, work, straight, number, event, values
):
    pauses = ("--pause", 0.05, "--evaluating", 0.5)
    process = start("tiny", "train", "--out", "run", *pauses)
    until(process, event, **values)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "dltool tiny train --resume run" in said
    assert read(work / "run" / "run.json")["status"] == "interrupted"
    shown = dltool("resume", "run", "--json").json()
    assert shown["data"]["loss"] == 0.25
    same_end(straight, work / "run")


def test_a_signal_before_training_begins_leaves_nothing_half_done(dltool, start, work):
    process = start("tiny", "train", "--out", "run")
    time.sleep(0.3)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode in (143, -signal.SIGTERM)  # the latter before Python is up
    assert not list(work.glob("run/checkpoints/.*"))


def test_second_signal_leaves_at_once_with_the_last_good_checkpoint(dltool, start, work):
    process = start(
        "tiny",
        "train",
        "--out",
        "run",
        "--evaluating",
        30,
        "--pause",
        0.01,
        "--save-every",
        "4steps",
    )
    until(process, "evaluating", epoch=0)
    # the first is held up by nothing here, so it must come while a step is under way
    process.send_signal(signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate(timeout=20)
    assert process.returncode in (130, 143)
    assert "last good checkpoint is kept" in said
    dltool("checkpoint", "verify", "run")
    dltool("tiny", "train", "--resume", "run", "--evaluating", 0, "--allow-changed")


SLOW_DISK = """
import os, sys, time
real = os.fsync
def slow(descriptor):
    print('{"event": "fsync"}', flush=True)
    time.sleep(0.3)
    real(descriptor)
os.fsync = slow
from dltool import cli
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [([signal.SIGTERM], 8), ([signal.SIGINT, signal.SIGINT], 4)],
    ids=["once", "twice"],
)
def test_signals_while_saving(dltool, start, work, straight, numbers, kept):
    words = ("tiny", "train", "--out", "run", "--save-every", "4steps", "--pause", 0.02)
    process = start(*words, before=["-c", SLOW_DISK])
    until(process, "batch", step=7)
    until(process, "fsync")
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    process.communicate(timeout=30)
    assert process.returncode == 128 + numbers[-1]
    whole = [path.name for path in sorted((work / "run" / "checkpoints").glob("step-*"))]
    assert whole[-1] == f"step-{kept:08d}"
    dltool("checkpoint", "verify", "run")
    dltool("resume", "run")
    assert not list(work.glob("run/checkpoints/.*"))
    same_end(straight, work / "run")


def test_killed_run_leaves_no_orphans_after_the_next_start(dltool, start, work, straight):
    process = start("tiny", "train", "--out", "run", "--save-every", "1steps", "--pause", 0.02)
    until(process, "batch", step=12)
    process.kill()
    process.communicate(timeout=20)
    dead = work / "run" / "checkpoints" / f".step-00000099.tmp-{process.pid}-0badcafe"
    dead.mkdir()
    (dead / "model.safetensors").write_bytes(b"half")
    (work / "run" / f".run.json.tmp-{process.pid}-0badcafe").write_bytes(b"{")
    shown = dltool("runs", "list", "--root", ".").out
    assert "stopped" in shown
    dltool("resume", work / "run")
    assert not list(work.glob("run/.*.tmp-*"))
    assert not list(work.glob("run/checkpoints/.*"))
    same_end(straight, work / "run")


def test_second_process_on_a_run_folder_is_refused_and_writes_nothing(dltool, start, work):
    process = start("tiny", "train", "--out", "run", "--pause", 0.5)
    until(process, "batch", step=1)
    before = {p: p.read_bytes() for p in (work / "run").rglob("*") if p.is_file()}
    shown = dltool("tiny", "train", "--resume", "run", code=2)
    assert "E208" in shown.err
    assert before == {p: p.read_bytes() for p in (work / "run").rglob("*") if p.is_file()}
    assert "E204" in dltool("tiny", "train", "--out", "run", code=2).err


def test_two_new_runs_of_one_folder_begin_only_once(start, work):
    both = [start("tiny", "train", "--out", "run", "--pause", 0.2) for _ in range(2)]
    codes = []
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not codes:
        codes = [process.returncode for process in both if process.poll() is not None]
        time.sleep(0.05)
    assert codes == [2]
    assert read(work / "run" / "run.json")["status"] == "running"


@pytest.mark.parametrize("whole_group", [False, True], ids=["process", "group"])
def test_no_worker_survives_and_the_stop_is_exact(start, dltool, work, whole_group):
    from PIL import Image

    for name, grey in (("dark", 40), ("light", 200)):
        (work / "images" / name).mkdir(parents=True)
        for number in range(60):
            picture = Image.new("L", (8, 8), grey + number % 20)
            picture.putpixel((number % 8, number // 8 % 8), 128)
            picture.save(work / "images" / name / f"{number}.png")
    words = ["cnn", "train", "--data", "images", "--loader", "stream", "--workers", 2]
    words += ["--epochs", 60, "--batch-size", 4, "--model", "linear", "--guards", "off"]
    process = start(*words, "--out", "run", start_new_session=True)
    until(process, "epoch", epoch=1)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM) if whole_group else process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143, said
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        os.killpg(process.pid, 0)
    dltool("checkpoint", "verify", "run")
    assert read(work / "run" / "run.json")["status"] == "interrupted"


def test_max_time_stops_with_exit_0_and_resume_says_when_all_is_done(dltool, work):
    shown = dltool("tiny", "train", "--out", "run", "--max-time", "0.001s", "--json").json()
    assert shown["data"]["status"] == "stopped"
    assert shown["data"]["resume"] == "dltool tiny train --resume run"
    told = dltool("resume", "run")
    assert "stopped after --max-time 0.001s at step 2" in told.out
    assert "next: dltool tiny train --resume" in told.err
    dltool("resume", "run", "--max-time", "10m", "--keep", 5)
    told = dltool("resume", "run")
    assert "finished already" in told.err
    assert dltool("resume", "run", "--json").json()["data"]["status"] == "finished"


@pytest.mark.parametrize("name", ["--max-time", "--save-every"])
def test_times_are_parsed_strictly(dltool, name):
    assert "E202" in dltool("cnn", "train", name, "soon", code=2).err


def test_resume_finds_runs_from_anywhere_and_names_what_is_missing(dltool, work, tmp_path):
    dltool("tiny", "train", "--max-time", "0.001s")
    assert dltool("resume", "tiny/latest", "--json").json()["data"]["step"] == 2
    assert dltool("resume", "latest", "--max-time", "1h", "--json").json()["data"]["loss"] == 0.25
    assert "E501" in dltool("resume", "nowhere", code=5).err
    (work / "empty").mkdir()
    assert "E511" in dltool("resume", "empty", code=5).err


def test_changed_options_are_refused_with_a_diff_unless_allowed(dltool, work):
    dltool("tiny", "train", "--out", "run", "--max-time", "0.001s")
    shown = dltool("tiny", "train", "--resume", "run", "--epochs", 2, "--pause", 0.01, code=2)
    assert "epochs: 4 in the run, 2 given" in shown.err
    assert "--allow-changed" in shown.err
    assert read(work / "run" / "run.json")["grade"] == "bitwise"
    dltool("tiny", "train", "--resume", "run", "--epochs", 2, "--allow-changed", "--max-time", "1h")
    config = read(work / "run" / "config.json")
    assert config["epochs"] == {"value": 2, "origin": "changed at step 1 from 4"}
    assert config["max_time"] == {"value": "0.001s", "origin": "flag"}
    assert read(work / "run" / "run.json")["grade"] == "statistical"
    assert len((work / "run" / "metrics.jsonl").read_text().splitlines()) == 2


def test_verify_resume_says_yes_and_finds_a_stream_that_is_not_saved(dltool):
    words = ("verify", "resume", "tiny", "--json", "--", "--pause", "0.03")
    shown = dltool(*words).json()["data"]
    assert shown["equal"] is True
    assert 0 < shown["stopped_at"] < shown["steps"] == 40
    told = dltool(*words, "--leaky", code=6).json()
    assert told["error"]["code"] == "E601"
    assert "differs from the straight run in model 0.bias" in told["error"]["message"]


def test_verify_resume_of_cnn(dltool):
    shown = dltool("verify", "resume", "cnn", "--", "--epochs", "10", "--ema", "0.9")
    assert "every bit equal" in shown.out


def test_verify_resume_names_a_topic_that_is_not_there(dltool):
    assert "E404" in dltool("verify", "resume", "nothing", code=4).err


def test_reproduce_gives_the_same_values_or_names_the_first_that_differs(dltool, work):
    dltool("tiny", "train", "--out", "run")
    shown = dltool("reproduce", "run", "--out", "second", "--json").json()["data"]
    assert shown["same"] is True
    assert shown["epochs_compared"] == 4
    assert (work / "second" / "metrics.jsonl").exists()
    path = work / "run" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    third = {**json.loads(lines[2]), "train_loss": 0.5}
    path.write_text("\n".join([*lines[:2], json.dumps(third), *lines[3:]]) + "\n")
    surroundings = read(work / "run" / "environment.json")
    surroundings["packages"]["torch"] = "1.0"
    (work / "run" / "environment.json").write_text(json.dumps(surroundings))
    told = dltool("reproduce", "run", code=6)
    assert "epoch 3, step 30: train_loss 0.5" in told.err
    assert "torch 1.0 ->" in told.err
    assert "torch" in told.out


def test_reproduce_of_an_unfinished_run_compares_what_it_logged(dltool, start, work):
    process = start("tiny", "train", "--out", "run", "--pause", 0.02)
    until(process, "epoch", epoch=2)
    process.terminate()
    process.communicate(timeout=30)
    shown = dltool("reproduce", "run", "--json").json()
    assert shown["data"]["epochs_compared"] == 2
    assert any("interrupted" in text for text in shown["warnings"])
