"""Run dltool command lines in forked processes, each with a fault planted; print what they did.

    commands.py FILE      FILE holds a JSON list of {"words", "cwd", "fault"}

Forking after the imports makes a process cost a tenth of a start; each has its own signal handlers
and its own death. A fault is {"place", "count", "signals", "limit"}: at the count-th visit of the
place the process sends itself the signals; `limit` bounds the size of files.
"""

import importlib
import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path

import dltool_cnn.predict
import dltool_cnn.train
import torch

from dltool import cli, training
from dltool import tensors as tensor_files

for preloaded in ("matplotlib.pyplot", "sklearn.datasets", "torchvision.models"):
    importlib.import_module(preloaded)

PLACES = {
    "step": (training.Session, "step"),
    "evaluation": (dltool_cnn.train, "evaluate"),
    "save": (tensor_files, "write"),
    "warm-up": (dltool_cnn.train, "_preflight"),
    "loading": (dltool_cnn.train.image_data, "load"),
}
VISITS = mmap.mmap(-1, 8)  # shared with the forked processes


def send(numbers):
    """Send signals to this process; different ones arrive together, as a handler may raise."""
    together = set(numbers) if len(set(numbers)) > 1 else set()
    signal.pthread_sigmask(signal.SIG_BLOCK, together)
    for number in numbers:
        os.kill(os.getpid(), number)
        time.sleep(0)  # a handler runs between two instructions
    signal.pthread_sigmask(signal.SIG_UNBLOCK, together)


def plant(fault):
    """Wrap the function at a place so that its count-th call sends signals first."""
    if "limit" in fault:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["limit"], fault["limit"]))
    if "place" not in fault:
        return
    owner, name = PLACES[fault["place"]]
    real, calls = getattr(owner, name), 0

    def visited(*arguments, **options):
        nonlocal calls
        calls += 1
        VISITS[:] = calls.to_bytes(8, "little")
        if calls == fault["count"]:
            send(fault.get("signals", []))
            if "wait_for" in fault:
                Path(fault["wait_for"] + ".here").touch()
                while not Path(fault["wait_for"]).exists():
                    time.sleep(0.02)
        return real(*arguments, **options)

    setattr(owner, name, visited)


def run(job, number):
    """Fork, run one command line, return its exit code and what it printed."""
    VISITS[:] = bytes(8)
    log = Path(job["cwd"], f".log-{number}")
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.chdir(job["cwd"])
            descriptor = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            signal.alarm(120)  # a process that hangs must not hold the others
            plant(job.get("fault", {}))
            code = cli.run(job["words"])
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
    text = log.read_text(encoding="utf-8", errors="replace")
    log.unlink()
    return {"code": code, "text": text, "visits": int.from_bytes(VISITS, "little")}


def main():
    """Run the jobs in order."""
    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(json.dumps([run(job, number) for number, job in enumerate(jobs)]))


if __name__ == "__main__":
    main()
