"""Run `dltool` as a process that is forked off one which has loaded torch already.

Loading torch costs two seconds, and the tests run hundreds of commands. A forked process has its
own memory, streams, environment, working folder and exit code, as a fresh one has; what it shares
is that third-party modules are loaded. None of dltool's are. What depends on a fresh interpreter
(the time or the modules of its start, a variable that Python or a library reads as it starts) is
tested in one: see `is_fresh_needed`.
"""

import atexit
import gc
import json
import os
import runpy
import socket
import subprocess
import sys
import traceback
import warnings

PRELOADED = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "torch",
    "torchvision",
    "typer",
)
AT_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "KMP_", "LD_", "MPL", "NO_COLOR", "TERM")

# what tests/conftest.py sets for every command
AS_TESTED = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::ResourceWarning"}


def is_fresh_needed(wanted):
    """Tell whether a variable differs that is read when an interpreter or a library starts."""
    ours = {**os.environ, **AS_TESTED}
    differing = {name for name in {*wanted, *ours} if wanted.get(name) != ours.get(name)}
    return not hasattr(os, "fork") or any(name.startswith(AT_START) for name in differing)


class Origin:
    """The process that has loaded torch, and the way to have it fork."""

    def __init__(self, environment):
        self.near, far = socket.socketpair()
        with far:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(far.fileno())],
                pass_fds=[far.fileno()],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def run(self, arguments, cwd, environment, streams, timeout):
        """Run one command on open files (stdin, stdout, stderr); return its exit code."""
        order = json.dumps([list(arguments), str(cwd), environment]).encode()
        handles = [stream.fileno() for stream in streams]
        self.near.settimeout(timeout)
        socket.send_fds(self.near, [len(order).to_bytes(8, "big")], handles)
        self.near.sendall(order)
        try:
            return int(self.near.recv(16))
        except TimeoutError:
            self.close()
            raise

    def close(self):
        """End the process, and with it what it forked."""
        self.near.close()
        self.process.kill()
        self.process.wait()


def serve(way):
    """Fork for every order; return in the child, with its arguments."""
    while True:
        size, handles, _, _ = socket.recv_fds(way, 8, 3)
        if not size:
            os._exit(0)
        order = b""
        while len(order) < int.from_bytes(size, "big"):
            order += way.recv(1 << 16)
        child = os.fork()
        if child:
            for handle in handles:
                os.close(handle)
            _, status = os.waitpid(child, 0)
            way.sendall(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        way.close()
        arguments, cwd, environment = json.loads(order)
        for number, handle in enumerate(handles):
            os.dup2(handle, number)
            os.close(handle)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environment)
        return arguments


def main():
    """Load what all commands load, then be forked; the child runs the command and leaves."""
    for name in PRELOADED:
        __import__(name)
    warnings.simplefilter("error", ResourceWarning)
    sys.path[0] = ""
    # collecting or taking down what came from the parent would copy its memory, page by page
    gc.collect()
    gc.freeze()
    sys.argv = ["dltool", *serve(socket.socket(fileno=int(sys.argv[1])))]
    code = 0
    try:
        runpy.run_module("dltool", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
