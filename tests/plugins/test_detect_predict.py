"""`dltool detect` on pictures, with a detector that finds patches of colour."""

import io
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from dltool_detect import chosen as chosen_module
from dltool_detect import pictures as decoding
from dltool_detect.chosen import Chosen
from dltool_detect.detections import Detections, nothing
from dltool_detect.draw import boxes_on, color
from dltool_detect.group import looks_like_input
from dltool_detect.outputs import plan
from dltool_detect.sources import Source, gather
from PIL import Image
from torch import nn

from dltool import cli
from dltool.errors import ConfigError

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
BOX = (10, 20, 40, 50)


class Patches(nn.Module):
    """Find the box around the pixels of each pure colour; red is surest."""

    classes = tuple(COLORS)

    def __init__(self):
        super().__init__()
        self.batches = []

    def detect(self, images, *, min_score=0.05, max_boxes=100):
        self.batches.append([tuple(image.shape) for image in images])
        return [self.on(image, min_score, max_boxes) for image in images]

    def on(self, image, min_score, max_boxes):
        rows = []
        for label, tone in enumerate(COLORS.values()):
            near = (image.int() - torch.tensor(tone).view(3, 1, 1)).abs().amax(0) < 60
            score = 0.9 - 0.25 * label
            if near.any() and score >= min_score:
                y, x = near.nonzero(as_tuple=True)
                box = [int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1]
                rows.append((box, score, label))
        if not rows:
            return nothing()
        boxes, scores, labels = zip(*rows[:max_boxes], strict=True)
        return Detections(torch.tensor(boxes).float(), torch.tensor(scores), torch.tensor(labels))


@pytest.fixture
def model(monkeypatch):
    """The detector that every command gets."""
    detector = Patches()
    found = Chosen(detector, "run", "patches")
    monkeypatch.setattr(chosen_module, "_found", lambda *_: found)
    return detector


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command line in this process, in a folder of its own, as a machine without network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLTOOL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DLTOOL_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    before = signal.getsignal(signal.SIGTERM)

    def call(*words, code=0):
        capsys.readouterr()
        got = cli.run(["detect", *map(str, words)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    yield call
    signal.signal(signal.SIGTERM, before)


def data_of(shown):
    return json.loads(shown.out)["data"]


def opened(path):
    """Return a written picture's format and its pixels (H, W, 3)."""
    with Image.open(path) as image:
        return image.format, np.asarray(image.convert("RGB"))


def picture(path, *patches, size=(80, 60), mode="RGB", **options):
    """Write a grey picture with patches (colour, box)."""
    image = Image.new("RGB", size, (90, 90, 90))
    for name, box in patches:
        image.paste(COLORS[name], box)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.convert(mode).save(path, **options)
    return path


def test_one_picture_from_word_to_box(run, model, tmp_path):
    picture(tmp_path / "one.png", ("red", BOX), ("green", (50, 5, 70, 15)))
    shown = run("one.png")
    assert shown.out == "one.png: 1 red (0.90), 1 green (0.65) -> one.boxes.png\n"
    _, drawn = opened(tmp_path / "one.boxes.png")
    assert drawn.shape == (60, 80, 3)
    assert tuple(drawn[49, 25]) == color(0)  # the lower edge of the red box
    assert tuple(drawn[35, 25]) == COLORS["red"]  # and nothing inside of it
    found = data_of(run("one.png", "--json"))
    assert found["results"][0] == {
        "image_id": 1,
        "category_id": 1,
        "category": "red",
        "bbox": [10, 20, 30, 30],
        "score": pytest.approx(0.9),
    }
    (image,) = found["images"]
    assert (image["file_name"], image["width"], image["height"]) == ("one.png", 80, 60)
    assert image["annotated"] == "one.boxes.png"
    assert [row["name"] for row in found["categories"]] == list(COLORS)
    assert found["model"]["is_fallback"] is False


def test_results_are_read_by_pycocotools_own_loader(run, model, tmp_path, capsys):
    from pycocotools.coco import COCO

    picture(tmp_path / "one.png", ("red", BOX))
    found = data_of(run("one.png", "--json", "--no-save"))
    truth = COCO()
    truth.dataset = {key: found[key] for key in ("images", "categories")} | {"annotations": []}
    truth.createIndex()
    assert truth.loadRes(found["results"]).anns[1]["area"] == 900
    assert not (tmp_path / "one.boxes.png").exists()


def test_score_classes_and_number_of_boxes(run, model, tmp_path):
    patches = [("red", BOX), ("green", (50, 5, 70, 15)), ("blue", (60, 30, 70, 50))]
    picture(tmp_path / "one.png", *patches)

    def names(*words):
        found = data_of(run("one.png", "--no-save", "--json", *words))["results"]
        return [row["category"] for row in found]

    assert names() == ["red", "green", "blue"]
    assert names("--min-score", "0.5") == ["red", "green"]
    assert names("--max-boxes", "1") == ["red"]
    assert names("--classes", "Blue, green") == ["green", "blue"]
    assert names("--classes", "blue", "--max-boxes", "1") == ["blue"]
    assert "did you mean green" in run("one.png", "--classes", "gren", code=2).err
    assert run("one.png", "--no-save", "--min-score", "0.95").out == "one.png: nothing\n"


def test_folders_patterns_and_a_second_run(run, model, tmp_path):
    for name in ("a.png", "b.png", "deep/c.png", ".hidden/d.png"):
        picture(tmp_path / "in" / name, ("red", BOX))
    (tmp_path / "in" / "notes.txt").write_text("no picture", encoding="utf-8")
    first = data_of(run("in", "--json", "--crop"))
    names = [row["file_name"] for row in first["images"]]
    assert names == ["in/a.png", "in/b.png", "in/deep/c.png"]
    again = data_of(run("in", "--json"))
    assert [row["file_name"] for row in again["images"]] == names
    assert [row["file_name"] for row in data_of(run("in/*.png", "--json"))["images"]] == names[:2]
    assert len(data_of(run("in/**/*.png", "in/a.png", "--json"))["images"]) == 3


def test_out_is_a_folder_or_a_file(run, model, tmp_path):
    for name in ("in/a.png", "in/deep/a.png", "other/a.png", "other/a.bmp"):
        picture(tmp_path / name, ("red", BOX))
    run("in", "other", "--out", "made")
    made = sorted(path.relative_to(tmp_path / "made") for path in (tmp_path / "made").rglob("*.*"))
    assert [str(path) for path in made] == [
        "a-2.boxes.png",
        "a-3.boxes.png",
        "a.boxes.png",
        "deep/a.boxes.png",
    ]
    assert sorted(path.name for path in (tmp_path / "in").iterdir()) == ["a.png", "deep"]
    run("in/a.png", "--out", "here.jpg")
    assert opened(tmp_path / "here.jpg")[0] == "JPEG"
    assert "is one file" in run("in", "--out", "here.jpg", code=2).err


def test_crops_hold_what_the_boxes_hold(run, model, tmp_path):
    picture(tmp_path / "one.png", ("red", BOX), ("blue", (50, 5, 70, 15)))
    (image,) = data_of(run("one.png", "--crop", "--no-save", "--json"))["images"]
    assert image["crops"] == ["one.crops/red/001.jpg", "one.crops/blue/002.jpg"]
    _, crop = opened(tmp_path / "one.crops" / "red" / "001.jpg")
    assert crop.shape == (30, 30, 3)
    assert crop[..., 0].min() > 230
    assert crop[..., 1:].max() < 30


def test_turned_and_cmyk_pictures(run, model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "turned.jpg", ("red", BOX), exif=exif, quality=95)
    picture(tmp_path / "cmyk.jpg", ("red", BOX), mode="CMYK", quality=95)
    found = data_of(run("turned.jpg", "cmyk.jpg", "--json"))
    assert [(row["width"], row["height"]) for row in found["images"]] == [(60, 80), (80, 60)]
    turned, cmyk = (np.array(row["bbox"]) for row in found["results"])
    assert np.abs(turned - [60 - 50, 10, 30, 30]).max() <= 2
    assert np.abs(cmyk - [10, 20, 30, 30]).max() <= 2
    assert opened(tmp_path / "turned.boxes.jpg")[1].shape == (80, 60, 3)


def test_the_bad_are_told_and_the_rest_is_done(run, model, tmp_path, monkeypatch):
    good = picture(tmp_path / "good.jpg", ("red", BOX))
    whole = good.read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.jpg").write_bytes(b"<!doctype html>")
    picture(tmp_path / "large.png", size=(2000, 2000))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    bad = ["gone.jpg", "cut.jpg", "page.jpg", "large.png"]
    shown = run("good.jpg", *bad, "--json")
    found = data_of(shown)
    assert sorted(row["file"] for row in found["failed"]) == sorted(bad)
    assert [row["file_name"] for row in found["images"]] == ["good.jpg"]
    assert "too many pixels" in shown.err
    shown = run(*bad, "--json", code=5)
    assert json.loads(shown.out)["error"]["exit_code"] == 5
    assert "none of" in run("*.nothing", "gone/", code=5).err


def test_twenty_thousand_pixels_square_are_refused_unread(run, model, tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    shown = run("huge.png", code=5)
    assert "too many pixels" in shown.err
    assert model.batches == []


def test_stdin_is_a_picture_or_a_list(run, model, tmp_path, monkeypatch):
    path = picture(tmp_path / "one.png", ("red", BOX))

    def given(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    given(path.read_bytes())
    assert run("-").out == "-: 1 red (0.90)\n"
    given(path.read_bytes())
    run("-", "--out", "made")
    assert (tmp_path / "made" / "stdin.boxes.jpg").exists()
    given(b"one.png\ngone.png\n")
    found = data_of(run("-", "--json"))
    assert [row["file_name"] for row in found["images"]] == ["one.png"]
    assert found["failed"][0]["file"] == "gone.png"
    given(b"")
    assert "stdin is empty" in run("-", code=5).err
    given(b"no picture at all")
    run("-", code=5)


def test_pictures_of_one_shape_share_a_batch_and_order_is_kept(run, model, tmp_path):
    sizes = [(80, 60)] * 5 + [(60, 80)] + [(80, 60)] * 2
    for number, size in enumerate(sizes):
        picture(tmp_path / "in" / f"{number}.png", ("red", (1, 1, 5 + number, 9)), size=size)
    found = data_of(run("in", "--batch-size", "3", "--json"))
    assert [len(batch) for batch in model.batches] == [3, 2, 1, 2]
    assert [row["bbox"][2] for row in found["results"]] == [4 + k for k in range(8)]


def test_a_thousand_waiting_pictures_are_not_decoded_at_once(tmp_path, monkeypatch):
    path = picture(tmp_path / "one.png", ("red", BOX))
    reads = []
    plain = Source.read

    def counted(source):
        reads.append(source.name)
        return plain(source)

    monkeypatch.setattr(Source, "read", counted)
    sources = [Source(str(k), path, path) for k in range(1000)]
    stream = decoding.batches(sources, 4)
    next(stream)
    stream.close()
    assert len(reads) < 40


# words


def test_a_slip_of_the_keyboard_is_no_picture(run, model, tmp_path):
    shown = run("tran", code=2)
    assert "neither a file nor a command" in shown.err
    assert "did you mean dltool detect train" in shown.err
    assert "dltool detect --help" in run("zzzz", "--json", code=2).err
    picture(tmp_path / "tran.png", ("red", BOX)).rename(tmp_path / "tran")
    assert run("tran", "--no-save").out == "tran: 1 red (0.90)\n"


def test_options_may_come_first_and_predict_may_be_said(run, model, tmp_path):
    picture(tmp_path / "one.png", ("red", BOX))
    said = run("predict", "one.png", "--no-save").out
    assert run("--no-save", "one.png").out == run("--no-save", "--", "one.png").out == said
    assert "--min-score" in run("one.png", "--help").out
    run("--no-such-option", code=2)


@pytest.mark.parametrize("word", ["a.jpg", "a/b", "*.png", ".", "x?"])
def test_words_that_can_only_be_files(word):
    assert looks_like_input(word)


def test_same_input_twice_is_looked_at_once(tmp_path):
    path = picture(tmp_path / "one.png")
    sources, failed = gather([str(path), str(path), str(tmp_path)])
    assert (len(sources), failed) == (1, [])


def test_no_two_inputs_get_the_same_file(tmp_path):
    sources = [Source("x", tmp_path / name, tmp_path / name) for name in ("a.bmp", "a.png")]
    places = plan(sources, None, pictures=True, crops=True)
    assert len({place.picture for place in places} | {place.crops for place in places}) == 4
    with pytest.raises(ConfigError):
        plan(sources, tmp_path / "one.png", pictures=True, crops=False)


def test_video_without_opencv_says_what_to_install(run, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "clip.mp4").write_bytes(b"\0" * 100)
    shown = run("clip.mp4", code=3)
    assert "pip install 'dltool[detect]'" in shown.err


def test_video_frame_by_frame(run, model, tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 60)
    )
    for number in range(6):
        frame = np.full((60, 80, 3), 90, np.uint8)
        frame[20:50, 10 + number : 40 + number] = (0, 0, 255)  # OpenCV's red
        writer.write(frame)
    writer.release()
    found = data_of(run("clip.avi", "--every", "2", "--json"))
    assert [row["frame"] for row in found["images"]] == [0, 2, 4]
    assert {row["category"] for row in found["results"]} == {"red"}
    assert cv2.VideoCapture(str(tmp_path / "clip.boxes.mp4")).isOpened()
    assert "3 frames: red in 3" in run("clip.avi", "--every", "2").out


# which detector


def test_unknown_models_and_weights_say_what_there_is(run, tmp_path):
    picture(tmp_path / "one.png")
    assert "did you mean ssdlite" in run("one.png", "--model", "ssdlit", code=5).err
    shown = run("one.png", "--model", "ssdlite", code=5)
    assert "--weights FILE" in shown.err
    assert "there is no file" in run("one.png", "--weights", "gone.pth", code=5).err
    (tmp_path / "page.pth").write_bytes(b"<!doctype html><html>")
    run("one.png", "--model", "ssdlite", "--weights", "page.pth", code=5)
    run("one.png", "--model", "shipped", "--weights", "page.pth", code=2)
    run("one.png", "--device", "cuda:99", code=3)


# drawing


def test_drawing_leaves_the_picture_as_it_is_and_stays_inside():
    pixels = np.full((40, 60, 3), 128, np.uint8)
    boxes = torch.tensor([[-5.0, -5, 500, 500], [59, 39, 60, 40], [10, 10, 10, 10]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]))
    drawn = np.asarray(boxes_on(pixels, found, ("größe", "苹果", "x" * 200)))
    assert drawn.shape == pixels.shape
    assert (pixels == 128).all()
    assert tuple(drawn[39, 30]) == color(0)
    assert len({color(label) for label in range(90)}) == 90


# start-up

QUICK = """
import sys
from dltool_detect import vision
vision.load()
assert not any(name.startswith("torch._dynamo") for name in sys.modules)
import torch, torchvision
from torchvision.ops import roi_align
from torchvision.ops.roi_align import RoIAlign
from torchvision.ops import roi_align as function
boxes = [torch.tensor([[0.0, 0, 4, 4]])]
assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).tolist() == [[[[1, 1], [1, 1]]]]
asked = sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu")
from torch._dynamo.utils import is_compile_supported
assert asked == is_compile_supported("cpu")
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)).item() == 2
"""


def test_torchvision_comes_without_the_compiler_and_finds_it_later():
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
