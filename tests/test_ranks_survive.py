"""`--nproc` as a process: its streams, its exit codes, and ranks that are killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

WORK = Path(__file__).parent / "core" / "rank_work.py"
QUICK = ("--task", "table", "--epochs", "6", "--device", "cpu", "--snapshots", "0")


def started(work, *words):
    command = [sys.executable, "-P", "-m", "dltool", "mlp-xor", "train", *words, "--nproc", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    return subprocess.Popen(
        command,
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def children_of(process):
    """Return the ranks' process ids, the first one first."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return sorted(int(number) for number in path.read_text().split())


def test_two_ranks_leave_one_run_and_print_one_object(work):
    process = started(work, *QUICK, "--out", "two", "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    answer = json.loads(out)
    assert answer["status"] == "ok"
    assert err.count("run folder two") == err.count("epoch   6 ") == 1
    facts = json.loads((work / "two" / "run.json").read_text())
    assert (facts["status"], facts["ranks"], facts["grade"]) == ("finished", 2, "bitwise")
    assert (work / "two" / "model" / "model.safetensors").exists()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for the ranks in /proc")
def test_killed_rank_ends_the_command_and_is_named(work):
    process = started(work, *QUICK, "--epochs", "100000", "--out", "cut", "--events")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "epoch":
            break
    ranks = children_of(process)
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "rank 1 was killed by SIGKILL" in err
    assert "error E103" in err
    assert "--resume cut" in err
    assert not any(Path(f"/proc/{number}").exists() for number in ranks)


def test_what_one_process_must_do_is_refused_before_anything_starts(dltool):
    ended = dltool("linreg", "train", "--solver", "closed-form", "--nproc", "2", code=2)
    assert "cannot be shared among several ranks" in ended.err


@pytest.mark.slow
def test_two_ranks_train_the_digits_as_one_process_does(tmp_path):
    command = [sys.executable, str(WORK), str(tmp_path), "digits"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=280)
    found = json.loads((tmp_path / "found.json").read_text())
    one, several = found["1"][0], found["2"]
    assert [rank["code"] for rank in (one, *several)] == [0, 0, 0]
    assert len(one["losses"]) == 50
    for rank in several:
        pairs = zip(one["losses"], rank["losses"], strict=True)
        assert max(abs(a - b) / a for a, b in pairs) < 1e-5
    accuracies = [each["result"]["test_accuracy"]["value"] for each in (one, several[0])]
    assert accuracies[0] == accuracies[1]


@pytest.mark.slow
def test_ranks_killed_at_random_moments_lose_no_more_than_since_the_last_checkpoint(tmp_path):
    command = [sys.executable, str(WORK), str(tmp_path), "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=280)
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found["killed"]) == 20
    for each in found["killed"]:
        assert each["seconds"] < 10
        assert each["lost"] <= found["interval"]
        assert each["weights"] == found["unbroken"]["weights"]
