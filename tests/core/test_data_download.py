"""Downloads from a server on this machine that can misbehave in every way a real one does."""

import hashlib
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dltool.console import Console
from dltool.data import download, named
from dltool.data.download import Source, cache_folder, fetch, name_content
from dltool.errors import ConfigError, DataError, DltoolError

CONTENT = bytes(range(256)) * 1000
LENGTH = len(CONTENT)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Handler(BaseHTTPRequestHandler):
    """Serve CONTENT; the path chooses how it goes wrong."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        getattr(self, f"serve_{self.path.strip('/').partition('?')[0]}")()

    def send(self, status, body, headers=(), length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def serve_good(self):
        wanted = self.headers.get("Range")
        if not wanted:
            return self.send(200, CONTENT)
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            return self.send(416, b"")
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return self.send(206, CONTENT[start:], [("Content-Range", place)])

    def serve_no_ranges(self):
        self.send(200, CONTENT)

    def serve_other_bytes(self):
        self.send(200, bytes(len(CONTENT)))

    def serve_page(self):
        self.send(200, b"<!DOCTYPE html><html>please log in</html>")

    def serve_gone(self):
        self.send(404, b"no")

    def serve_redirect_away(self):
        self.send(302, b"", [("Location", "http://192.0.2.1/file")])

    def serve_redirect_home(self):
        self.send(302, b"", [("Location", "/good")])

    def serve_breaks_off(self):
        """Give half of what is left, then close; a range is honoured."""
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        half = CONTENT[start : start + max((len(CONTENT) - start) // 2, 60_000)]
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        status, headers = (206, [("Content-Range", place)]) if wanted else (200, [])
        self.send(status, half, headers, length=len(CONTENT) - start)

    def serve_endless(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CONTENT * 3)

    def serve_trickle(self):
        """Send a little now and then, for ever as it seems."""
        self.send_response(200)
        self.send_header("Content-Length", str(LENGTH))
        self.end_headers()
        for _ in range(200):
            try:
                self.wfile.write(b"x")
            except OSError:
                return
            if self.server.release.wait(0.02):
                return

    def serve_silent(self):
        self.server.release.wait(5)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("DLTOOL_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.requests, made.release = [], threading.Event()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.release.set()
    made.shutdown()
    made.server_close()
    thread.join()


def source(server, *pages, size=LENGTH, checksum=SHA256):
    base = f"http://127.0.0.1:{server.server_port}"
    return Source(tuple(f"{base}/{page}" for page in pages), size, checksum)


def left_over(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


@pytest.mark.parametrize("checksum", [SHA256, MD5])
@pytest.mark.parametrize("size", [len(CONTENT), None])
def test_a_download_is_whole_and_announced(server, tmp_path, capsys, checksum, size):
    wanted = source(server, "good", checksum=checksum, size=size)
    target = tmp_path / "new" / "file.bin"
    assert fetch(wanted, target, Console("test")) == target
    assert target.read_bytes() == CONTENT
    assert left_over(target.parent) == ["file.bin"]
    shown = capsys.readouterr()
    assert shown.out == ""
    for fact in (wanted.urls[0], checksum, str(target), "256,000" if size else "not known"):
        assert fact in shown.err


def test_what_is_there_is_not_asked_for_again(server, tmp_path, capsys):
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT)
    fetch(source(server, "good"), target)
    assert server.requests == []
    assert capsys.readouterr().err == ""


def test_a_damaged_file_is_replaced(server, tmp_path, capsys):
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT[:-1])
    fetch(source(server, "good"), target)
    assert target.read_bytes() == CONTENT
    assert "255,999 bytes, expected 256,000" in capsys.readouterr().err


def test_a_part_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:100_000])
    target = fetch(source(server, "good"), tmp_path / "file.bin")
    assert target.read_bytes() == CONTENT
    assert server.requests == [("/good", "bytes=100000-")]
    assert left_over(tmp_path) == ["file.bin"]


def test_a_whole_part_needs_no_network(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(source(server, "good"), tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("length", [10, len(CONTENT), len(CONTENT) + 10])
def test_a_part_of_something_else_is_started_over(server, tmp_path, length):
    (tmp_path / "file.bin.part").write_bytes(b"x" * length)
    assert fetch(source(server, "good"), tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.requests[-1] == ("/good", None)


def test_a_server_without_ranges_sends_everything(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:100])
    assert fetch(source(server, "no_ranges"), tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_broken_connection_is_continued(server, tmp_path):
    assert fetch(source(server, "breaks_off"), tmp_path / "file.bin").read_bytes() == CONTENT
    ranges = [wanted for _, wanted in server.requests]
    assert ranges[:2] == [None, "bytes=128000-"]
    assert len(ranges) > 2


def test_mirrors_are_tried_in_order(server, tmp_path):
    wanted = source(server, "gone", "page", "other_bytes", "redirect_home")
    assert fetch(wanted, tmp_path / "file.bin").read_bytes() == CONTENT
    pages = [page for page, _ in server.requests]
    assert pages == ["/gone", "/page", "/other_bytes", "/redirect_home", "/good"]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("gone", "answered 404"),
        ("page", "an HTML page"),
        ("redirect_away", "not https"),
        ("endless", "more bytes than the file has"),
    ],
)
def test_what_a_mirror_did_wrong_is_named(server, tmp_path, page, reason):
    with pytest.raises(DataError, match=reason) as caught:
        fetch(source(server, page), tmp_path / "file.bin")
    assert caught.value.code == "E504"
    assert f"/{page}" in caught.value.message
    assert str(tmp_path) in caught.value.cure
    assert "\n" not in caught.value.one_line()
    assert not (tmp_path / "file.bin").exists()


def test_a_page_of_unknown_size_is_named(server, tmp_path):
    with pytest.raises(DataError, match="an HTML page"):
        fetch(source(server, "page", size=None), tmp_path / "file.bin")
    assert left_over(tmp_path) == []


def test_a_page_does_not_cost_the_part(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError):
        fetch(source(server, "page"), tmp_path / "file.bin")
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:1000]


def test_another_content_of_the_right_size_is_refused(server, tmp_path):
    wrong = source(server, "good", checksum="sha256:" + "0" * 64)
    with pytest.raises(DataError, match="does not have the checksum") as caught:
        fetch(wrong, tmp_path / "file.bin")
    assert caught.value.code == "E504"
    assert left_over(tmp_path) == []


def test_silence_ends_in_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(DataError, match="no answer within"):
        fetch(source(server, "silent"), tmp_path / "file.bin")


def test_a_trickle_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    with pytest.raises(DataError, match=r"broke off|only \d+ bytes came"):
        fetch(source(server, "trickle"), tmp_path / "file.bin")
    assert len(server.requests) == 2


def test_a_full_disk_keeps_the_part(server, tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DltoolError, match="cannot write") as caught:
            fetch(source(server, "good"), tmp_path / "file.bin")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "E101"
    assert left_over(tmp_path) == ["file.bin.part"]
    assert fetch(source(server, "good"), tmp_path / "file.bin").read_bytes() == CONTENT
    assert server.requests[-1] == ("/good", "bytes=100000-")


PROCESS = """
import sys
from pathlib import Path
from dltool.data.download import Source, fetch
fetch(Source((sys.argv[1],), int(sys.argv[2]), sys.argv[3]), Path(sys.argv[4]))
"""


def test_processes_wait_for_one_another(server, tmp_path):
    words = [f"http://127.0.0.1:{server.server_port}/good", str(LENGTH), SHA256]
    command = [sys.executable, "-c", PROCESS, *words, str(tmp_path / "file.bin")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_every_named_set_has_sizes_and_sha256():
    for data in named.NAMED.values():
        for wanted in data.files.values():
            assert wanted.size
            assert len(wanted.checksum.removeprefix("sha256:")) == 64


def test_offline_is_an_option_too(dltool):
    done = dltool("data", "fetch", "mnist", "--offline", code=5, DLTOOL_OFFLINE="0")
    assert "DLTOOL_OFFLINE" in done.err


def test_nobody_listens(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="refused") as caught:
        fetch(source(server, "good"), tmp_path / "file.bin")
    assert caught.value.code == "E504"


def test_offline_names_file_and_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    with pytest.raises(DataError, match="DLTOOL_OFFLINE") as caught:
        fetch(source(server, "good"), tmp_path / "new" / "file.bin")
    assert caught.value.code == "E504"
    assert f"put file.bin into {tmp_path / 'new'}" in caught.value.cure
    assert server.requests == []
    assert not (tmp_path / "new").exists()


def test_a_full_disk_is_told_before_it_is_full(server, tmp_path):
    with pytest.raises(DltoolError, match="no space") as caught:
        fetch(source(server, "good", size=1 << 60), tmp_path / "file.bin")
    assert caught.value.code == "E101"
    assert server.requests == []


def test_two_downloads_at_once_ask_once(server, tmp_path):
    wanted, target = source(server, "good"), tmp_path / "file.bin"
    threads = [threading.Thread(target=fetch, args=(wanted, target)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "a"]
)
def test_only_https_is_a_source(url):
    with pytest.raises(ConfigError, match="refused"):
        Source((url,), 1, SHA256)


@pytest.mark.parametrize("checksum", ["", "crc32:00", "sha256:"])
def test_a_source_needs_a_checksum(checksum):
    with pytest.raises(ConfigError, match="checksum"):
        Source(("https://example.org/a",), 1, checksum)


def test_the_cache_lies_where_the_user_says(tmp_path, monkeypatch):
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    assert cache_folder("mnist") == tmp_path / "home" / "data" / "mnist"
    assert not (tmp_path / "home").exists()
    monkeypatch.delenv("DLTOOL_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder("mnist").parts[-3:] == ("dltool", "data", "mnist") or Path.home()


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"", "empty"),
        (bytes(100), "zero bytes"),
        (b"\xef\xbb\xbf\n <!DocType HTML>", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-LFS pointer"),
        (b"<?xml version='1.0'?><Error>", "XML"),
        (b"hello, world\n", "text"),
        (b"PK\x03\x04abc", "zip"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
    ],
)
def test_content_is_named(head, name):
    assert name in name_content(head)


def test_unknown_content_gets_no_name():
    assert name_content(b"\x00\x01\x02\xfe") == ""
