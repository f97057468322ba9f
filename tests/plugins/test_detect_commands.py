"""evaluate, data, convert, export, bench and info of `dltool detect`, as a user calls them."""

import json
import signal

import numpy as np
import onnxruntime
import pytest
import torch
from dltool_detect import data, dense, shapes
from dltool_detect.bench import made_up
from dltool_detect.info import weights_file
from dltool_detect.models.build import build, describe, load_run
from dltool_detect.models.zoo import ENTRIES, Zoo
from PIL import Image
from torch import nn
from torchvision.models import detection as tv
from torchvision.ops import batched_nms

from dltool import checkpoint, cli, device

SIDE = 96


@torch.no_grad()
def settle(network, images, rounds=3):
    """Let batch normalisation see pictures, without which no feature of random weights varies."""
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a mean of all rounds
    for _ in range(rounds):
        network(images)
    network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder: ssd-tiny for the made-up shapes, as its weights were drawn."""
    made = tmp_path_factory.mktemp("detect") / "model"
    model = build(
        "ssd-tiny", shapes.CLASSES, image_size=SIDE, generator=device.generator(0, "test")
    )
    part = shapes.sets()["train"]
    images = torch.stack([part.read(index) for index in range(16)])
    settle(model.core.network, model.core.prepared(images))
    for head in model.core.network.heads:  # scores high enough to be worth comparing
        nn.init.normal_(head.scores[1].weight, std=0.05)
        nn.init.zeros_(head.scores[1].bias)
    checkpoint.save_model(made, model, describe(model))
    return made


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


# evaluate


def test_evaluate_a_model_and_draw_what_it_does(run, folder, tmp_path):
    words = ("evaluate", folder, "--data", "shapes", "--out", "report")
    found = data_of(run(*words, "--json"))
    assert found["metrics"]["images"] == shapes.COUNTS["test"]
    assert found["split"] == "test"
    assert [row["class"] for row in found["metrics"]["per_class"]] == list(shapes.CLASSES)
    matrix = np.array(found["confusion"]["matrix"])
    assert found["confusion"]["classes"][-1] == "background"
    boxes = {row["class"]: row["boxes"] for row in found["metrics"]["per_class"]}
    for name, row in zip(found["confusion"]["classes"], matrix, strict=True):
        assert name == "background" or row.sum() == boxes[name]
    for name in ("precision-recall-test.png", "confusion-test.png", "worst-test.png"):
        with Image.open(tmp_path / "report" / name) as picture:
            assert min(picture.size) > 100
    shown = run(*words, "--min-ap50", "0.999", code=6)
    assert "is below 0.999" in shown.err
    assert "AP50" in shown.out


def test_detections_evaluate_as_the_model_that_made_them(run, folder, tmp_path):
    run("convert", "shapes", "--to", "coco", "--out", "set")
    direct = data_of(run("evaluate", folder, "--data", "set", "--split", "val", "--json"))
    made = run("set/val", "--model", folder, "--min-score", "0.01", "--no-save", "--json").out
    (tmp_path / "found.json").write_text(made, encoding="utf-8")
    truth = "set/annotations/instances_val.json"
    written = data_of(run("evaluate", "found.json", "--data", truth, "--split", "val", "--json"))
    for name in ("ap", "ap50", "ap75", "ar100"):
        assert written["metrics"][name] == pytest.approx(direct["metrics"][name], abs=1e-4), name


def test_evaluate_says_what_it_lacks(run, folder, tmp_path):
    assert "add --data" in run("evaluate", folder, code=2).err
    assert "train, val, test" in run(
        "evaluate", folder, "--data", "shapes", "--split", "tset", code=2
    ).err.replace("test, val, train", "train, val, test")
    run("evaluate", folder, "--data", "gone.zip", code=5)
    run("evaluate", "gone.json", "--data", "shapes", code=5)
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    run("evaluate", "bad.json", "--data", "shapes", code=5)


def test_pictures_that_break_are_left_out_of_an_evaluation(run, folder, tmp_path):
    run("convert", "shapes", "--to", "voc", "--out", "set")
    broken = tmp_path / "set" / "JPEGImages" / "0003-3.png"
    content = bytearray(broken.read_bytes())
    content[60:100] = bytes(40)
    broken.write_bytes(content)
    shown = run("evaluate", folder, "--data", "set", "--json")
    assert data_of(shown)["metrics"]["images"] == shapes.COUNTS["test"] - 1
    assert "0003-3.png" in shown.err


# data and convert


def test_data_counts_what_is_there(run, tmp_path):
    found = data_of(run("data", "shapes", "--json", "--page", "page.png"))
    sets = shapes.sets()
    assert {name: row["images"] for name, row in found["splits"].items()} == shapes.COUNTS
    assert {name: row["boxes"] for name, row in found["splits"].items()} == {
        name: part.num_boxes for name, part in sets.items()
    }
    sides = torch.cat(
        [item.boxes[:, 2] - item.boxes[:, 0] for part in sets.values() for item in part.items]
    )
    assert found["boxes"]["width"]["50%"] == pytest.approx(float(sides.quantile(0.5)), abs=1e-3)
    assert found["boxes"]["small"] + found["boxes"]["medium"] == len(sides)
    with Image.open(tmp_path / "page.png") as page:
        assert min(page.size) > 300
    run("data", "shapes", "--no-draw")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.png"]


def test_data_names_pictures_that_are_in_two_splits(run, tmp_path):
    run("convert", "shapes", "--to", "coco", "--out", "set")
    train, test = tmp_path / "set" / "train" / "0000.png", tmp_path / "set" / "test" / "0000-3.png"
    test.write_bytes(train.read_bytes())
    shown = run("data", "set", "--no-draw", "--json")
    assert data_of(shown)["in_several_splits"] == [["train/0000.png", "test/0000-3.png"]]
    assert "several splits" in shown.err


def same(one, other):
    """Tell whether two data sets have the same boxes under the same names."""
    assert one.classes == other.classes
    assert one.pools.keys() == other.pools.keys()
    for role, part in one.pools.items():
        names = {item.name.rpartition("/")[2]: item for item in other.pools[role].items}
        for item in part.items:
            twin = names[item.name.rpartition("/")[2]]
            torch.testing.assert_close(item.boxes, twin.boxes, atol=1e-4, rtol=0)
            assert torch.equal(item.labels, twin.labels)
            assert (item.width, item.height) == (twin.width, twin.height)
    return True


def test_round_the_formats_and_back(run, tmp_path):
    chain = ["shapes", "one", "two", "three", "four"]
    for source, target, kind in zip(chain, chain[1:], ["voc", "coco", "yolo", "voc"], strict=False):
        run("convert", source, "--to", kind, "--out", target)
    first = data.read("one")
    assert first.pools.keys() == {"train", "val", "test"}
    for other in chain[2:]:
        assert same(first, data.read(other))
    assert not data.read("four").problems.counts
    assert "exists already" in run("convert", "one", "--to", "yolo", "--out", "two", code=2).err
    run("convert", "one", "--to", "xml", "--out", "new", code=2)
    run("convert", "gone", "--to", "voc", "--out", "new", code=5)
    assert not (tmp_path / "new").exists()


def test_turned_pictures_are_written_upright(run, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (80, 60), "white")
    image.paste("red", (0, 0, 40, 30))
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / "a.jpg", exif=exif)
    label = "<annotation><size><width>80</width><height>60</height></size><object><name>x</name>"
    box = "<bndbox><xmin>0</xmin><ymin>0</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>"
    (tmp_path / "in" / "a.xml").write_text(f"{label}{box}</annotation>", encoding="utf-8")
    found = data_of(run("convert", "in", "--to", "coco", "--out", "out", "--json"))
    assert found["turned_upright"] == 1
    with Image.open(tmp_path / "out" / "images" / "a.jpg") as upright:
        assert upright.size == (60, 80)
        assert upright.getpixel((45, 20))[1] < 60
    item = data.read("out").pools["all"].items[0]
    assert item.boxes.tolist() == [[30, 0, 60, 40]]


# export


def test_exported_programs_say_what_the_detector_says(run, folder, tmp_path):
    found = data_of(run("export", folder, "--out", "out/model.onnx", "--json"))
    assert found["largest_difference"] < 1e-4
    facts = json.loads((tmp_path / "out" / "model.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in facts["classes"]] == list(shapes.CLASSES)
    session = onnxruntime.InferenceSession(
        str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    image = shapes.sets()["test"].read(0)
    boxes, scores = map(torch.from_numpy, session.run(None, {"images": image[None].numpy()}))
    place, label = (scores >= 0.3).nonzero(as_tuple=True)
    kept = batched_nms(boxes[place], scores[place, label], label, dense.OWN_OVERLAP)[:20]
    (mine,) = load_run(folder).detect([image], min_score=0.3, max_boxes=20)
    torch.testing.assert_close(scores[place, label][kept], mine.scores, atol=1e-4, rtol=0)
    torch.testing.assert_close(boxes[place][kept], mine.boxes, atol=1e-2, rtol=0)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model.json",
        "model.onnx",
    ]
    assert data_of(run("export", folder, "--out", "m.pt2", "--json"))["largest_difference"] < 1e-4
    assert "onnx" in run("export", folder, "--out", "m.tflite", code=2).err
    run("export", folder, "--out", "m.pt2", "--image-size", "32", code=2)


@pytest.mark.parametrize("builder", [tv.ssdlite320_mobilenet_v3_large], ids=["ssdlite"])
def test_dense_part_of_torchvisions_detectors_is_the_detector(builder):
    """Cutting and suppressing what the dense part gives is what torchvision itself gives."""
    torch.manual_seed(0)
    model = builder(weights=None, weights_backbone=None, num_classes=4).eval()
    # smooth pictures: noise looks alike in many places, and boxes of one score have no order
    smooth = torch.stack([data.read_picture(made_up(k), "made up") for k in range(3)])
    small = nn.functional.interpolate(smooth / 255, size=(320, 320))
    settle(model.backbone, small)
    settle(model.head, list(model.backbone(small).values()))
    images = smooth[:1, :, :200, :260]
    part = dense.DenseZoo(model, [1, 2, 3]).eval()
    with torch.no_grad():
        boxes, scores = part(images)
        mine = dense.finished(boxes, scores, overlap=part.overlap, min_score=0.01, max_boxes=10)
        (theirs,) = Zoo(model).detect([images[0]], min_score=0.01, max_boxes=10)
    torch.testing.assert_close(mine.scores, theirs.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(mine.boxes, theirs.boxes, atol=1e-2, rtol=0)
    assert torch.equal(mine.labels, theirs.labels)


# bench and info


def test_bench_tells_the_stages_apart(run, folder, tmp_path):
    words = ("bench", "--model", folder, "--batch-size", "2", "--repeats", "2", "--json")
    found = data_of(run(*words))
    stages = [row["stage"] for row in found["stages"]]
    assert stages == ["decode", "detect, one by one", "detect, batch of 2", "draw and encode"]
    assert all(row["per_second"] > 0 for row in found["stages"])
    Image.new("RGB", (50, 40)).save(tmp_path / "a.png")
    assert data_of(run(*words, "a.png"))["picture"] == [50, 40]
    run(*words, "gone.png", code=5)


def test_info_says_what_a_model_is(run, folder):
    found = data_of(run("info", folder, "--json"))
    assert found["classes"] == list(shapes.CLASSES)
    assert found["architecture"]["image_size"] == SIDE
    assert found["values"] > 1_000_000
    assert "circle, square, triangle" in run("info", folder).out
    run("info", "nowhere", code=5)


def test_info_finds_the_weights_that_torchvision_would_use(run, tmp_path):
    for name, entry in ENTRIES.items():
        assert weights_file(name) is None
        file = tmp_path / "torch" / "hub" / "checkpoints" / entry.weights.url.rpartition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        assert weights_file(name) == file
