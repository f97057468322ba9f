"""The example sessions run as they stand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(sys.platform == "win32", reason="the sessions are shell scripts")
@pytest.mark.parametrize(
    "name",
    [
        "cnn.sh",
        "gpu.sh",
        # what these show, the READMEs of their topics show too, and those are always run
        *(
            pytest.param(f"{topic}.sh", marks=pytest.mark.slow)
            for topic in ("bert-finetune", "detect", "seq2seq", "word2vec")
        ),
    ],
)
def test_session_runs(name, repository, work, environment):
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", repository / "examples" / name],
        cwd=work,
        env={**environment, "PATH": f"{scripts}{os.pathsep}{environment['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if name == "cnn.sh":
        assert (work / "predictions.png").exists()
        assert "too few" in done.stdout
