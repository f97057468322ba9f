"""export, bench and data of `dltool cnn`, as a user calls them."""

import builtins
import json
import shutil
import zipfile

import numpy as np
import onnxruntime
import pytest
import torch
from dltool_cnn import bench, export, survey
from dltool_cnn.predict import load_classifier
from PIL import Image
from safetensors import safe_open

from dltool import cli, exports
from dltool.console import Console
from dltool.data.named import load_named
from dltool.errors import CheckFailed


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A quickly trained run on the digits."""
    folder = tmp_path_factory.mktemp("cnn") / "run"
    words = ["cnn", "train", "--epochs", "1", "--batch-size", "128", "--out", str(folder)]
    assert cli.run(words) == 0
    return folder


@pytest.fixture
def run(here, capsys):
    """Run `dltool cnn` in this process; return (stdout, stderr) after checking the exit code."""

    def call(*words, code=0):
        capsys.readouterr()
        got = cli.run(["cnn", *map(str, words)])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


def data_of(shown):
    return json.loads(shown.out)["data"]


# export


def digits():
    """Return the pictures as the user of an exported file has them."""
    return load_named("digits").train_images[:7]


def test_onnx_file_stands_alone_and_answers_as_predict_does(run, run_folder, here):
    found = data_of(run("export", run_folder, "--out", "out/m.onnx", "--json"))
    assert found["largest_difference"] < 1e-5
    assert found["checked_on"] == {"images": 64, "source": "digits, test"}
    assert [path.name for path in (here / "out").iterdir()] == ["m.onnx"]
    session = onnxruntime.InferenceSession(
        str(here / "out" / "m.onnx"), providers=["CPUExecutionProvider"]
    )
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list("0123456789")
    assert json.loads(facts["inside"])["mean"] == pytest.approx([0.306], abs=0.01)
    assert json.loads(facts["input"])["mode"] == "L"
    loaded = load_classifier(run_folder, torch.device("cpu"))
    for count in (1, 3, 7):  # the size of the batch is free
        images = digits()[:count]
        logits, shares = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            expected = loaded.model(images)
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4)
        np.testing.assert_allclose(shares, expected.softmax(1).numpy(), atol=1e-5)


def test_pt2_and_safetensors_hold_the_same_weights_and_facts(run, run_folder, here):
    assert data_of(run("export", run_folder, "--out", "m.pt2", "--json"))["format"] == "pt2"
    extra = {exports.DESCRIPTION: ""}
    program = torch.export.load(here / "m.pt2", extra_files=extra)
    assert json.loads(extra[exports.DESCRIPTION])["classes"] == list("0123456789")
    loaded = load_classifier(run_folder, torch.device("cpu"))
    with torch.no_grad():
        expected = loaded.model(digits())
        logits, _ = program.module()(digits())
    torch.testing.assert_close(logits, expected)
    run("export", run_folder, "--format", "safetensors", "--out", "m.safetensors")
    with safe_open(here / "m.safetensors", "pt") as stored:
        assert json.loads(stored.metadata()["classes"]) == list("0123456789")
        own = loaded.model.state_dict()
        assert {name: tuple(stored.get_tensor(name).shape) for name in stored.keys()} == {  # noqa: SIM118
            name: tuple(value.shape) for name, value in own.items()
        }


def test_an_export_that_answers_otherwise_is_not_kept(run, run_folder, here, monkeypatch):
    def spoilt(*arguments):
        call = export._program(*arguments)
        return lambda images: [part + 0.01 for part in call(images)]

    monkeypatch.setattr(export, "_writer", lambda format: spoilt)
    shown = run("export", run_folder, "--out", "m.pt2", code=6)
    assert "1.00e-02" in shown.err
    assert not list(here.glob("*.pt2"))
    assert not list(here.glob(".*.pt2"))
    run("export", run_folder, "--out", "m.pt2", "--tolerance", "0.011")


def test_nan_and_other_shapes_are_no_agreement():
    one = torch.tensor([1.0, 2.0])
    assert exports.largest_difference([one], [one + 0.5]) == 0.5
    assert exports.largest_difference([one], [torch.tensor([1.0, torch.nan])]) == float("inf")
    assert exports.largest_difference([one], [one[:1]]) == float("inf")
    assert exports.largest_difference([one], []) == float("inf")
    with pytest.raises(CheckFailed):
        exports.refuse_difference(float("nan"), 1.0, "the model", "none")


def test_export_says_what_it_cannot_do(run, run_folder, here, monkeypatch):
    assert "tflite" in run("export", run_folder, "--format", "tflite", code=2).err
    assert "suffix" in run("export", run_folder, "--out", "m.bin", code=2).err
    assert (
        "contradict" in run("export", run_folder, "--format", "onnx", "--out", "m.pt2", code=2).err
    )
    run("export", "nowhere", code=5)
    shutil.copytree(run_folder / "model", here / "alone")
    shown = run("export", "alone", "--format", "safetensors", "--json")
    assert "made-up images" in shown.err
    assert data_of(shown)["checked_on"]["source"] == "made up"
    assert data_of(run("export", "alone", "--format", "pt2", "--data", "digits", "--json"))[
        "checked_on"
    ] == {"images": 64, "source": "digits, test"}
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "onnxscript":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "dltool[onnx]" in run("export", run_folder, code=3).err


# bench


def test_bench_measures_every_batch_size(run, run_folder):
    found = data_of(
        run(
            "bench",
            run_folder,
            "--batch-sizes",
            "4,1",
            "--repeats",
            "3",
            "--threads",
            "1",
            "--json",
        )
    )
    assert [row["batch_size"] for row in found["batches"]] == [4, 1]
    for row in found["batches"]:
        assert row["images_per_second"] == pytest.approx(
            1000 * row["batch_size"] / row["latency_ms"]
        )
        assert len(row["seconds"]["seconds"]) == 3
        assert row["spread_ms"] >= 0
    assert "images/s" in run("bench", run_folder, "--batch-sizes", "2", "--repeats", "2").out
    for wrong in ("0", "a", "", "1,-2"):
        run("bench", run_folder, "--batch-sizes", wrong, code=2)
    run("bench", run_folder, "--precision", "fp16", "--device", "cpu", code=3)


def test_bench_counts_the_calls_of_a_round():
    calls = []

    def answer(images):
        calls.append(len(images))
        return images

    rows = bench.measure(
        answer, torch.zeros(8, 1), [2, 8], 3, torch.device("cpu"), Console("bench")
    )
    for row in rows:
        made = calls.count(row["batch_size"])
        assert made == 3 + (3 + 1) * row["calls_a_round"]  # one to warm up, two quick, 3 + 1 rounds


# data


def save(path, value, size=(6, 5), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng(value)
    Image.fromarray(stream.integers(0, 256, size, np.uint8)).convert(mode).save(path)


@pytest.fixture
def folder(here):
    """Pictures with a copy in train, one across splits, one in two classes, and two broken."""
    for number in range(6):
        save(here / "set" / "train" / "cat" / f"{number}.png", number)
        save(here / "set" / "train" / "dog" / f"{number}.png", 100 + number)
    save(here / "set" / "train" / "cat" / "again.bmp", 0)  # other bytes, the same pixels
    save(here / "set" / "train" / "dog" / "stray.png", 1)  # a cat among the dogs
    save(here / "set" / "test" / "cat" / "a.png", 2)
    save(here / "set" / "test" / "dog" / "b.png", 200, size=(7, 7))
    (here / "set" / "train" / "cat" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    (here / "set" / "test" / "dog" / "page.jpg").write_text("<html>not found</html>")
    (here / "set" / "notes.txt").write_text("x")
    return here / "set"


def test_data_finds_what_was_planted(run, folder, here):
    shown = run("data", folder, "--json")
    found = data_of(shown)
    assert found["images"] == 16
    assert found["splits"]["train"]["by_class"] == {"cat": 7, "dog": 7}
    assert found["splits"]["test"]["images"] == 2
    assert found["splits"]["train"]["broken"] == found["splits"]["test"]["broken"] == 1
    assert {row["file"] for row in found["broken"]} == {"train/cat/torn.png", "test/dog/page.jpg"}
    assert "HTML" in next(row["reason"] for row in found["broken"] if "page" in row["file"])
    copies = found["duplicates"]
    assert (copies["groups"], copies["conflicting"]) == (3, 1)
    assert copies["within"] == {"train": 2, "test": 0}
    assert copies["across"] == {"train-test": 1}
    groups = [{each["file"] for each in group} for group in copies["listed"]]
    assert groups[0] == {"train/cat/1.png", "train/dog/stray.png"}  # what misleads most is first
    assert {"train/cat/2.png", "test/cat/a.png"} in groups
    assert {"train/cat/0.png", "train/cat/again.bmp"} in groups
    assert found["sizes"]["different"] == 2
    assert (found["sizes"]["height"], found["sizes"]["width"]) == ([6, 7], [5, 7])
    assert found["ignored"] == ["notes.txt"]
    assert len(json.loads(shown.out)["warnings"]) == 3
    text = run("data", folder, "--no-draw").out
    assert "train/dog/stray.png (dog)" in text
    assert "train-test 1" in text


def test_data_of_a_zip_is_that_of_its_folder(run, folder, here):
    with zipfile.ZipFile("set.zip", "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    one, other = (data_of(run("data", name, "--no-draw", "--json")) for name in ("set", "set.zip"))
    assert {k: v for k, v in one.items() if k not in ("data", "source")} == {
        k: v for k, v in other.items() if k not in ("data", "source")
    }
    assert not (here / "runs").exists()


def test_data_draws_how_training_sees_the_images(run, here):
    shown = data_of(run("data", "digits", "--augment", "crop", "--grid", "g.png", "--json"))
    assert shown["augmented"]["names"] == ["crop"]
    assert 0 < shown["augmented"]["unchanged"] < 0.25  # 1 of 9 shifts is none
    with Image.open(here / "g.png") as picture:
        assert picture.text["Title"] == "Augmented samples: crop"
    plain = data_of(run("data", "digits", "--grid", "h.png", "--count", "2", "--json"))
    assert plain["augmented"]["unchanged"] is None
    assert plain["splits"]["all"]["images"] == 1797


def test_data_refuses_what_it_cannot_read(run, here):
    assert "did you mean digits" in run("data", "digit", code=5).err
    run("data", "digits", "--augment", "turn", code=2)
    run("data", "digits", "--grid", "g.jpg", code=2)
    for name in ("a", "b"):
        (here / "torn" / name).mkdir(parents=True)
        (here / "torn" / name / "x.png").write_bytes(b"no picture")
    assert "none of the 2 images" in run("data", "torn", code=5).err
    (here / "none").mkdir()
    run("data", "none", code=5)


def test_copies_are_told_by_every_pixel():
    pixels = np.zeros((2, 3, 1), np.uint8)
    same = survey._seen("train", "a", 0, pixels)
    assert survey._seen("test", "b", 0, pixels.copy()).digest == same.digest
    other = pixels.copy()
    other[1, 2] = 1
    turned = pixels.reshape(3, 2, 1)
    assert same.digest not in {
        survey._seen("test", "c", 0, values).digest for values in (other, turned)
    }
