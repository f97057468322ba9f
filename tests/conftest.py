"""Shared fixtures: the command line as a process, in a folder of its own."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("forking", Path(__file__).with_name("forking.py"))
forking = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(forking)


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


@pytest.fixture(scope="session")
def origin():
    """The process that `dltool` processes are forked off, made when first asked for."""
    made = []

    def ask(environment):
        if not made or made[0].process.poll() is not None:
            made[:] = [forking.Origin(environment)]
        return made[0]

    yield ask
    for each in made:
        each.close()


@pytest.fixture
def dltool(environment, work, origin, tmp_path):
    """Run `dltool ...` as a process and return what it did."""

    def run(*arguments, code=0, stdin=None, **variables):
        words, everything = [*map(str, arguments)], {**environment, **variables}
        if forking.is_fresh_needed(everything):
            done = subprocess.run(
                [sys.executable, "-m", "dltool", *words],
                capture_output=True,
                cwd=work,
                env=everything,
                input=stdin,
                timeout=240,
                check=False,
            )
            result = Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
        else:
            result = _forked(origin(environment), words, work, everything, stdin)
        assert "Traceback" not in result.err, result.err
        assert result.code == code, (result.code, result.out, result.err)
        return result

    return run


def _forked(origin, words, work, environment, stdin):
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
    ):
        given.write(stdin or b"")
        given.seek(0)
        code = origin.run(words, work, environment, (given, out, err), 240)
        out.seek(0)
        err.seek(0)
        return Finished(code, out.read().decode(), err.read().decode())


@pytest.fixture
def repository():
    """The root of the source tree."""
    return Path(__file__).parent.parent
