"""The page about runs: whole in itself, safe with hostile words, small, and drawn by a browser."""

import base64
import importlib.util
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dltool.history import folders, gallery, report

SPEC = importlib.util.spec_from_file_location("past", Path(__file__).with_name("history_runs.py"))
past = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(past)
HOSTILE = "</title><script>alert(1)</script>\"'><img src=http://evil.example/x onerror=x>"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


class Page(HTMLParser):
    """Count elements, remember where they lead, and refuse what is opened and not closed."""

    VOID = frozenset({"meta", "img", "br", "line", "polyline", "polygon", "circle"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.words, self.open = [], [], [], []
        self.attributes = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        self.addresses += [value for name, value in attrs if name in ("src", "href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def picture(path, side=200, **words):
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    told = PngImagePlugin.PngInfo()
    for name, text in words.items():
        told.add_itxt(name, text)
    Image.fromarray(noise).save(path, pnginfo=told)


def write(tmp_path, *runs):
    out = tmp_path / "report.html"
    found = folders.chosen(map(str, runs))
    return report.write(found, out), out.read_text(encoding="utf-8")


def test_a_page_holds_everything_and_leads_nowhere(tmp_path):
    finding = {"code": "G-P06", "severity": "warn", "message": "odd loss", "cure": "look"}
    run = past.make(
        tmp_path / "run",
        origins={"model": "flag"},
        command=["dltool", "cnn", "train", "--data", "my pictures"],
        environment={"working_folder": "/home/me", "packages": {"torch": "2.14.1"}},
        result={"test_accuracy": past.score(0.75), "findings": [finding]},
    )
    other = {**finding, "code": "G-D01", "measured": 7.25, "limit": 3, "place": "layer4"}
    (run / "guards.json").write_text(json.dumps([finding, other]))
    (run / "note.txt").write_text("a note")
    picture(run / "pictures/boxes.png", Title="Boxes", Description="What it found.")
    picture(run / "confusion-test.png")
    picture(run / "curves.png")
    written, text = write(tmp_path, run)
    page = Page(text)
    words = " ".join(" ".join(page.words).split())
    for told in (
        *("0.7500", "0.7000 to 0.8000", "100", "0.1000", "a note", "G-P06", "odd loss", "G-D01"),
        *("7.2500", "limit 3", "layer4"),
        *("flag", "f00d", "2.14.1", "Boxes", "What it found.", "confusion test"),
        "cd /home/me dltool cnn train --data 'my pictures' dltool reproduce",
    ):
        assert told in words
    assert words.count("odd loss") == 2  # one finding told twice is one
    assert page.tags.count("svg") == 2
    assert written.pictures == page.tags.count("img") == 2
    assert "script" not in page.tags
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert "http" not in re.sub(r"data:[^\"]*", "", text).replace("http-equiv", "")
    embedded = base64.b64decode(page.addresses[0].partition(",")[2])
    assert embedded == (run / "pictures/boxes.png").read_bytes()


def test_hostile_words_stay_words(tmp_path):
    run = past.make(
        tmp_path / "run",
        topic=HOSTILE,
        name=HOSTILE,
        status=HOSTILE,
        settings={HOSTILE: HOSTILE, "data": HOSTILE},
        environment={HOSTILE: {"x": HOSTILE}},
        command=[HOSTILE],
        records=[{**past.record(1, 0.5), HOSTILE: 1.0}, {**past.record(2, 0.6), HOSTILE: 2.0}],
        result={HOSTILE: 0.3, "findings": [{"code": HOSTILE, "message": HOSTILE}]},
    )
    (run / "note.txt").write_text(HOSTILE)
    picture(run / "pictures/x.png", Title=HOSTILE, Description=HOSTILE)
    other = past.make(tmp_path / "other", settings={"model": HOSTILE})
    _, text = write(tmp_path, run, other)
    page = Page(text)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1
    assert not [name for name in page.attributes if name.startswith("on")]
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert HOSTILE in "".join(page.words)


def test_several_runs_are_compared_on_top(tmp_path):
    made = [
        past.make(
            tmp_path / f"{model}{seed}",
            settings={"model": model, "seed": seed},
            result={"val_accuracy": base + seed / 100},
        )
        for model, base in (("a", 0.7), ("b", 0.9))
        for seed in range(3)
    ]
    _, text = write(tmp_path, *made)
    words = " ".join(Page(text).words)
    assert "cnn model=b is better: val_accuracy 0.9100 ± 0.0100 (3 seeds)" in words
    assert words.index("Compared by") < words.index("To repeat it")
    assert text.count('id="run-') == 6


def test_a_report_of_a_hundred_epochs_with_large_pictures_stays_small(tmp_path):
    records = [past.record(epoch, 1 - 1 / (epoch + 1)) for epoch in range(1, 101)]
    run = past.make(tmp_path / "run", records=records)
    for number in range(4):
        picture(run / f"pictures/{number}.png", side=900)
    (run / "pictures/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    (tmp_path / "secret.png").write_bytes((run / "pictures/0.png").read_bytes())
    (run / "pictures/link.png").symlink_to(tmp_path / "secret.png")
    written, text = write(tmp_path, run)
    assert written.size == len(text.encode()) <= 2_000_000
    assert written.pictures == 4
    assert [problem.split()[0].rpartition("/")[2] for problem in written.problems] == ["broken.png"]
    source = re.search(r"data:image/webp;base64,([^\"]+)", text)[1]
    assert Image.open(io.BytesIO(base64.b64decode(source))).size[0] >= 640


def test_a_run_that_has_nothing_yet_and_one_of_an_older_version(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "run.json").write_text('{"topic": "weather", "status": "finished", "result": null}')
    (old / "guards.json").write_text("{")
    new = past.make(tmp_path / "new", status="running", result=None, records=[])
    (new / "data.json").write_text("{")
    _, text = write(tmp_path, old, new)
    words = " ".join(Page(text).words)
    assert words.count("This run has no result yet.") == 2
    assert "not readable" in words


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    picture(tmp_path / "run/x.png")
    monkeypatch.setattr(gallery, "MOST_PIXELS", 100)
    shown, problems = gallery.pictures([tmp_path / "run/x.png"], 10**6)
    assert (shown, len(problems)) == ([], 1)
    assert "pixels" in problems[0]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed here")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_draws_it_on_a_phone(tmp_path, theme):
    """The page is as wide as the phone, its text stands off from the ground, curves are seen."""
    run = past.make(tmp_path / "run")
    picture(run / "pictures/boxes.png", side=1000)
    write(tmp_path, run)
    shot = tmp_path / "shot.png"
    words = [
        *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,1800"),
        *(f"--blink-settings=preferredColorScheme={int(theme == 'light')}",),
        *(f"--screenshot={shot}", (tmp_path / "report.html").as_uri()),
    ]
    subprocess.run(words, capture_output=True, timeout=120, check=True)
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    ground = pixels[5, 5].mean()
    assert ground < 60 if theme == "dark" else ground > 220
    ends = pixels[:, -3:].reshape(-1, 3)  # nothing sticks out at the right
    assert np.abs(ends - pixels[5, 5]).max() < 40
    curve = np.array([0x5C, 0xB5, 0xEE] if theme == "dark" else [0x00, 0x72, 0xB2])
    assert (np.abs(pixels - curve).max(-1) < 12).sum() > 300
