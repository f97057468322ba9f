"""What the tests of several topics share."""

import signal

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with the caches of a new user."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)
