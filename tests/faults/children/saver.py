"""Save checkpoints in a forked process and kill it, over and over; print what was found.

saver.py random FOLDER COUNT SEED     kill -9 after a random time
saver.py boundaries FOLDER SAVES      kill -9 before the 1st, 2nd, ... system call of saving
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from dltool import checkpoint, files

KEEP = 2


def save_once(root, step, state):
    """Do what training does: the best, the step, then older ones go."""
    checkpoint.save(root / "best", state, {}, {"step": step})
    checkpoint.save(
        root / f"step-{step:08d}", state, {"optimizer": {"m": state["a"]}}, {"step": step}
    )
    for old in checkpoint.steps(root)[KEEP:]:
        files.discard(old)
    checkpoint.point_last(root, root / f"step-{step:08d}")


def run_child(root, first, state, report, saves, kill_at):
    """Save until killed; tell each finished step to the parent."""
    if kill_at:
        count = 0

        def hook(*_):
            nonlocal count
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        real = os.fsync

        def fsync(descriptor):
            hook()
            real(descriptor)

        os.fsync = fsync
        sys.addaudithook(hook)
    for step in range(first, first + saves):
        save_once(root, step, state)
        os.write(report, step.to_bytes(4, "little"))
    os._exit(0)


def fork_and_kill(root, first, state, *, delay=None, saves=10**9, kill_at=0):
    """Return (last finished step, whether the child was killed)."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(here)
        try:
            run_child(root, first, state, there, saves, kill_at)
        finally:
            os._exit(9)
    os.close(there)
    if delay is not None:
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    told = b""
    while data := os.read(here, 4096):
        told += data
    os.close(here)
    finished = int.from_bytes(told[-4:], "little") if told else first - 1
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return finished, killed


def examine(root, finished, found):
    """Look at what a killed process left, as it is and after the next start."""
    hidden = [path for path in root.iterdir() if path.name.startswith(".")]
    found["left_by_kills"] += len(hidden)
    for path in checkpoint.steps(root):
        try:
            checkpoint.verify(path)
        except Exception as error:
            found["unreadable"].append(f"{path.name}: {error}")
    files.sweep_temporaries(root)
    found["orphans"] += [path.name for path in root.iterdir() if path.name.startswith(".")]
    if finished < 1:
        return
    newest, notes = checkpoint.newest(root)
    if notes or newest.state["step"] < finished:
        found["lost"].append([finished, newest.state["step"], notes])
    best = checkpoint.load(root / "best")
    if best.state["step"] < finished:
        found["lost"].append(["best", finished, best.state["step"]])


def main():
    """Run one mode and print one JSON object."""
    torch.set_num_threads(1)
    mode, root = sys.argv[1], Path(sys.argv[2])
    root.mkdir()
    state = {"a": torch.arange(60_000.0), "b": torch.ones(300, 1000)}
    found = {
        "kills": 0,
        "saves": 0,
        "left_by_kills": 0,
        "unreadable": [],
        "orphans": [],
        "lost": [],
    }
    if mode == "random":
        count, draws = int(sys.argv[3]), random.Random(int(sys.argv[4]))
        started = time.perf_counter()
        save_once(root, 1, state)
        once, finished = time.perf_counter() - started, 1
        while found["kills"] < count:
            before = finished
            finished, _ = fork_and_kill(root, finished + 1, state, delay=draws.uniform(0, 3 * once))
            found["kills"] += 1
            found["saves"] += finished - before
            examine(root, finished, found)
            finished = max(finished, checkpoint.newest(root)[0].state["step"])
    else:
        saves, killed, finished = int(sys.argv[3]), True, 0
        while killed:
            last, killed = fork_and_kill(
                root, finished + 1, state, saves=saves, kill_at=found["kills"] + 1
            )
            found["kills"] += killed
            finished = max(last, finished)
            examine(root, finished, found)
            if finished:
                finished = max(finished, checkpoint.newest(root)[0].state["step"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
