"""How much of the matrix runs, and the counts that a full run leaves.

`make test` runs each line a few times; `make faults` (DLTOOL_FAULTS=full) as often as is promised,
and writes the counts to the file that DLTOOL_FAULTS_OUT names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHILDREN = Path(__file__).parent / "children"
FULL = os.environ.get("DLTOOL_FAULTS") == "full"
# tests may change the working folder
OUT = os.environ.get("DLTOOL_FAULTS_OUT") and os.path.abspath(os.environ["DLTOOL_FAULTS_OUT"])


@pytest.fixture(scope="session")
def scale():
    """Return the number of repetitions: a few in the quick part, all in the full one."""

    def choose(quick, full):
        return full if FULL else quick

    return choose


@pytest.fixture
def tally(request):
    """Note how often a fault was planted; a test that fails leaves no count."""
    noted = {}

    def note(name, count, **facts):
        noted[name] = {"line": name, "count": count, "test": request.node.nodeid, **facts}

    yield note
    if OUT and noted:
        with Path(OUT + ".lines").open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(line) + "\n" for line in noted.values())


@pytest.fixture
def child(environment):
    """Run one of the scripts in children/ and return what it prints as JSON."""

    def run(script, *arguments, timeout=1700 if FULL else 280):
        done = subprocess.run(
            [sys.executable, CHILDREN / script, *map(str, arguments)],
            capture_output=True,
            env=environment,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout.decode().splitlines()[-1])

    return run


@pytest.fixture
def commands(child, tmp_path):
    """Run jobs of commands.py; no output may be a traceback."""

    def run(jobs):
        path = tmp_path / "jobs.json"
        path.write_text(json.dumps(jobs), encoding="utf-8")
        results = child("commands.py", path)
        for result in results:
            assert "Traceback" not in result["text"], result["text"]
        return results

    return run


@pytest.fixture(scope="session")
def same_end():
    """Tell whether two runs ended with the same bits and the same figures."""
    from dltool import checkpoint, runs

    def compare(run, other):
        one, two = (checkpoint.load_model(each / "model")[0] for each in (run, other))
        figures = [
            [{k: v for k, v in record.items() if "second" not in k} for record in records]
            for records in (runs.read_records(run), runs.read_records(other))
        ]
        same = all(one[name].equal(two[name]) for name in one | two)
        return figures[0] == figures[1] and same

    return compare


def pytest_sessionstart(session):
    """Begin the counts anew; under xdist only the controller does."""
    if OUT and not hasattr(session.config, "workerinput"):
        Path(OUT).parent.mkdir(parents=True, exist_ok=True)
        Path(OUT + ".lines").write_text("", encoding="utf-8")


def pytest_sessionfinish(session, exitstatus):
    """Gather the counts of all workers into one file."""
    if not OUT or hasattr(session.config, "workerinput"):
        return
    lines = Path(OUT + ".lines").read_text(encoding="utf-8").splitlines()
    counts = sorted(map(json.loads, lines), key=lambda line: (line["line"], line["test"]))
    report = {"full": FULL, "passed": int(exitstatus) == 0, "faults": counts}
    Path(OUT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    Path(OUT + ".lines").unlink()
