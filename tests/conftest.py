"""Shared fixtures: the command line as a process, in a folder of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Finished:
    """A finished process."""

    code: int
    out: str
    err: str

    def json(self):
        """Return the one JSON object on stdout."""
        return json.loads(self.out)


@pytest.fixture
def environment(tmp_path):
    """Environment of a user with empty caches and no network."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DLTOOL_")}
    return {
        **kept,
        "DLTOOL_HOME": str(tmp_path / "home"),
        "DLTOOL_OFFLINE": "1",
        "TORCH_HOME": str(tmp_path / "torch"),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "error::ResourceWarning",
    }


@pytest.fixture
def work(tmp_path):
    """The folder that commands run in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@pytest.fixture
def dltool(environment, work):
    """Run `dltool ...` as a process and return what it did."""

    def run(*arguments, code=0, stdin=None, **variables):
        done = subprocess.run(
            [sys.executable, "-m", "dltool", *map(str, arguments)],
            capture_output=True,
            cwd=work,
            env={**environment, **variables},
            input=stdin,
            timeout=240,
            check=False,
        )
        result = Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.err, result.err
        assert result.code == code, (result.code, result.out, result.err)
        return result

    return run


@pytest.fixture
def repository():
    """The root of the source tree."""
    return Path(__file__).parent.parent
