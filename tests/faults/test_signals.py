"""Signals, locks and full disks met by `dltool cnn train` and `dltool data fetch` as processes."""

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dltool import runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")

TRAIN = ["cnn", "train", "--width", "4", "--epochs", "2", "--save-every", "0", "--device", "cpu"]
ONE, TWO = [signal.SIGTERM], [signal.SIGINT, signal.SIGINT]
# where the first signal raises at once, only another one can arrive with it
BOTH = [signal.SIGINT, signal.SIGTERM]
# 20 training batches an epoch: a step in the second, its evaluation, a save that is not the first
PLACES = [("warm-up", 1), ("loading", 1), ("step", 30), ("evaluation", 2), ("save", 25)]


def train(cwd, out, **fault):
    return {"words": [*TRAIN, "--out", out], "cwd": str(cwd), "fault": fault}


def resume(cwd, run):
    return {"words": ["cnn", "train", "--resume", run], "cwd": str(cwd)}


def debris(run):
    return [path.name for path in run.rglob(".*") if path.name != ".lock"]


def test_signals_in_every_phase_of_training(commands, same_end, work, tally):
    jobs, planted = [train(work, "whole")], []
    for place, count in PLACES:
        for signals in (ONE, BOTH if place == "evaluation" else TWO):
            name = f"{place}-{len(signals)}"
            planted.append((name, place, signals))
            jobs.append(train(work, name, place=place, count=count, signals=signals))
            if place not in ("warm-up", "loading"):
                jobs.append(resume(work, name))
    whole, *results = commands(jobs)
    assert whole["code"] == 0, whole["text"]
    results = iter(results)
    for name, place, signals in planted:
        stopped = next(results)
        assert stopped["code"] == 128 + signals[-1], (name, stopped)
        if place in ("warm-up", "loading"):
            continue  # there is nothing to save yet
        assert runs.read_json(work / name)["status"] == "finished"
        resumed = next(results)
        assert resumed["code"] == 0, (name, resumed["text"])
        assert same_end(work / "whole", work / name), name
        assert debris(work / name) == []
        if len(signals) == 1:
            assert f"--resume {name}" in stopped["text"]
        else:
            assert "left at once" in stopped["text"]
    tally("SIGTERM and double SIGINT in train, evaluation, save, warm-up, loading", len(planted))


def test_resume_at_random_steps_of_cnn_is_exact(commands, same_end, work, scale, tally):
    draws, count = random.Random(4), scale(3, 20)
    jobs = [train(work, "whole")]
    steps = [draws.randrange(2, 41) for _ in range(count)]
    for number, step in enumerate(steps):
        # every second one dies without a word, the others save
        signals = ONE if number % 2 else [signal.SIGKILL]
        jobs.append(train(work, f"r{number}", place="step", count=step, signals=signals))
        jobs.append(resume(work, f"r{number}"))
    results = commands(jobs)
    assert [result["code"] for result in results[1::2]] == [
        143 if number % 2 else -9 for number in range(count)
    ]
    for number, result in enumerate(results[2::2]):
        assert result["code"] == 0, result["text"]
        assert same_end(work / "whole", work / f"r{number}"), steps[number]
        assert debris(work / f"r{number}") == []
    tally("cnn: resume at random steps, bit for bit", count, different=0)


def test_second_process_on_a_run_folder_is_refused(commands, dltool, work, child, tmp_path, tally):
    go = tmp_path / "go"
    job = train(work, "run", place="step", count=5, wait_for=str(go))
    results = []
    thread = threading.Thread(target=lambda: results.append(commands([job])))
    thread.start()
    try:
        wait_for(Path(f"{go}.here"))
        refused = dltool("cnn", "train", "--resume", "run", code=2)
        assert "another process" in refused.err
        dltool(*TRAIN, "--out", "run", code=2)
        dltool("checkpoint", "prune", "run", "--keep", "1", "--yes", code=2)
    finally:
        go.touch()
        thread.join()
    assert results[0][0]["code"] == 0
    tally("second process on one run folder", 3, refused=3)


def test_disk_that_is_full_for_checkpoints_ends_non_zero(commands, work, tally):
    small = train(work, "run", limit=8_000)
    (result,) = commands([small])
    assert result["code"] == 1
    assert "training goes on without a new checkpoint" in result["text"]
    assert debris(work / "run") == []
    tally("cnn train with no room for checkpoints", 1, crashes=0)


class Slow(BaseHTTPRequestHandler):
    """Send half, then wait until the test lets go; ranges are honoured."""

    content = bytes(range(256)) * 400

    def log_message(self, *_):
        pass

    def do_GET(self):
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        if start:
            place = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            self.send_header("Content-Range", place)
        self.end_headers()
        half = len(self.content) // 2
        self.wfile.write(self.content[start : max(half, start)])
        self.wfile.flush()
        self.server.go.wait(30)
        try:
            self.wfile.write(self.content[max(half, start) :])
        except OSError:
            self.close_connection = True


FETCH = """
import sys
from dltool import cli
from dltool.data import named
from dltool.data.download import Source
source = Source((sys.argv[1],), int(sys.argv[2]), sys.argv[3])
named.NAMED = {"x": named.NamedData("x", "", ("a",), (1, 1), 1, "", {"file.bin": source})}
named.where = lambda name, root=None: (
    folder if (folder := named.cache_folder(name)).joinpath("file.bin").exists() else None
)
sys.exit(cli.run(["data", "fetch", "x"]))
"""


@pytest.mark.parametrize("numbers", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT], [9]])
def test_stopped_download_goes_on_where_it_was(tmp_path, environment, tally, numbers):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.starts, server.go, server.daemon_threads = [], threading.Event(), True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    digest = "sha256:" + hashlib.sha256(Slow.content).hexdigest()
    url = f"http://127.0.0.1:{server.server_port}/"
    command = [sys.executable, "-c", FETCH, url, str(len(Slow.content)), digest]
    variables = {**environment, "DLTOOL_OFFLINE": "0", "no_proxy": "127.0.0.1"}
    options = {"env": variables, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    part = tmp_path / "home" / "data" / "x" / "file.bin.part"
    try:
        with subprocess.Popen(command, **options) as process:
            wait_for(part, size=len(Slow.content) // 2)
            for number in numbers:
                process.send_signal(number)
            out, err = process.communicate(timeout=30)
        expected = -9 if numbers == [9] else 128 + numbers[0]
        assert process.returncode == expected, err
        assert out == b""
        assert b"Traceback" not in err
        kept = part.stat().st_size
        server.go.set()
        again = subprocess.run(command, **options, timeout=60, check=False)
        assert again.returncode == 0, again.stderr
        assert part.with_name("file.bin").read_bytes() == Slow.content
        assert server.starts == [0, kept]
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
        thread.join()
    tally(f"download stopped by {numbers}", 1, bytes_asked_twice=0)


def wait_for(path, size=0, seconds=60):
    """Wait until a file is there and has its size."""
    end = time.monotonic() + seconds
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.02)
