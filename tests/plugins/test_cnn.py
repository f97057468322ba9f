"""The `cnn` topic through its command line, on real digits and on pictures made here."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from dltool_cnn.model import Spec, build, count_parameters
from PIL import Image
from safetensors.torch import load_file

from dltool import cli, runs


@pytest.fixture
def run(here, capsys):
    """Run a command line in this process; return (stdout, stderr) after checking the exit code."""

    def call(*arguments, code=0):
        capsys.readouterr()
        got = cli.run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert got == code, shown
        assert "Traceback" not in shown.err
        return shown

    return call


def data_of(shown):
    return json.loads(shown.out)["data"]


def picture(label, number, size=(12, 12), mode="RGB"):
    """Return an image whose class shows: stripes across, stripes down, or a plain disc."""
    stream = np.random.default_rng([label, number])
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    pattern = [rows // 2 % 2, columns // 2 % 2, (rows + columns) // 3 % 2][label] * 160
    pixels = (pattern + stream.integers(0, 90, pattern.shape)).astype(np.uint8)
    return Image.fromarray(np.stack([pixels] * 3, -1)).convert(mode)


def make_folder(root, count=12, classes=("across", "down", "slanted"), first=0, **options):
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(first, first + count):
            picture(label, number, **options).save(root / name / f"{number:03}.png")
    return root


def tensors(folder):
    return load_file(folder / "model" / "model.safetensors")


def same_model(left, right):
    a, b = tensors(left), tensors(right)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


QUICK = ("--epochs", "2", "--batch-size", "128")


def test_default_command_reaches_its_accuracy_without_network(dltool, work):
    started = time.monotonic()
    result = dltool("cnn", "train", "--json").json()["data"]
    assert result["test_accuracy"]["value"] >= 0.98
    assert result["test_accuracy"]["n"] >= 350
    assert result["test_accuracy"]["low"] < result["test_accuracy"]["value"]
    assert time.monotonic() - started < 120  # a hang, not a speed test
    folder = work / result["run"]
    for name in (
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "pictures/curves.png",
        "run.json",
    ):
        assert (folder / name).stat().st_size > 0
    for name in ("last", "best"):
        assert (folder / "checkpoints" / name / "model.safetensors").exists()
    assert {path.name for path in (folder / "model").iterdir()} == {
        "model.safetensors",
        "model.json",
        "MANIFEST.json",
    }
    assert (work / "runs" / "cnn" / "latest").exists()


def test_same_seed_same_bits_and_other_seed_other_bits(run, here):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("cnn", "train", *QUICK, "--seed", seed, "--out", name)
    assert same_model(here / "a", here / "b")
    assert not same_model(here / "a", here / "c")


@pytest.mark.parametrize("guards", ["off", "strict"])
def test_guards_change_no_bit(run, here, guards):
    run("cnn", "train", *QUICK, "--out", "with", "--model", "mlp", "--dropout", "0.2")
    run(
        *("cnn", "train", *QUICK, "--out", "other", "--model", "mlp", "--dropout", "0.2"),
        *("--guards", guards),
    )
    assert same_model(here / "with", here / "other")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_process_resumes_to_the_same_bits(environment, work, dltool, number):
    options = ["--epochs", "30", "--seed", "5"]
    dltool("cnn", "train", *options, "--out", "whole")
    process = subprocess.Popen(
        [sys.executable, "-m", "dltool", "cnn", "train", *options, "--out", "part", "--events"],
        cwd=work,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if json.loads(line)["event"] == "epoch":
            process.send_signal(number)
            break
    _, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "Cure: dltool cnn train --resume part" in err
    assert runs.read_json(work / "part")["status"] == "interrupted"
    before = len(runs.read_records(work / "part"))
    assert before < 30
    dltool(
        "cnn", "predict", "part", work / "whole" / "pictures" / "curves.png"
    )  # usable while unfinished
    dltool("cnn", "train", "--resume", "part")
    assert same_model(work / "whole", work / "part")
    whole, part = runs.read_records(work / "whole"), runs.read_records(work / "part")
    keys = ("epoch", "step", "train_loss", "val_loss", "val_accuracy", "lr", "best")
    assert [[r[k] for k in keys] for r in whole] == [[r[k] for k in keys] for r in part]


def test_resume_of_a_finished_run_trains_nothing(run, here):
    run("cnn", "train", *QUICK, "--out", "a")
    before = (here / "a" / "model" / "model.safetensors").stat().st_mtime_ns
    shown = run("cnn", "train", "--resume", "a")
    assert "finished already" in shown.err
    assert "test accuracy" in shown.out
    assert (here / "a" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_resume_refuses_changed_settings_and_changed_data(run, here):
    make_folder(here / "pictures")
    run("cnn", "train", "--data", "pictures", *QUICK, "--out", "a")
    facts = runs.read_json(here / "a")
    runs.Run(here / "a", "cnn").update(status="interrupted", result=None)
    shown = run("cnn", "train", "--resume", "a", "--lr", "0.5", code=2)
    assert "learning_rate: 0.01 in the run, 0.5 given" in shown.err
    picture(0, 99).save(here / "pictures" / "across" / "000.png")
    shown = run("cnn", "train", "--resume", "a", code=5)
    assert "has changed" in shown.err
    assert facts["status"] == "finished"


def test_existing_run_folder_is_refused_with_the_resume_command(run, here):
    run("cnn", "train", *QUICK, "--out", "a")
    shown = run("cnn", "train", *QUICK, "--out", "a", code=2)
    assert "--resume a" in shown.err
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("do not touch")
    run("cnn", "train", *QUICK, "--out", "mine", code=2)
    assert (here / "mine" / "thesis.txt").read_text() == "do not touch"
    (here / "empty").mkdir()
    run("cnn", "train", *QUICK, "--out", "empty")


def test_image_folder_zip_evaluate_predict_and_info(run, here):
    make_folder(here / "pictures", count=40)
    with zipfile.ZipFile(here / "pictures.zip", "w") as archive:
        for path in sorted((here / "pictures").rglob("*.png")):
            archive.write(path, path.relative_to(here))
    for name, data in (("a", "pictures"), ("b", "pictures.zip")):
        result = data_of(
            run("cnn", "train", "--data", data, "--epochs", "8", "--out", name, "--json")
        )
        assert result["test_accuracy"]["value"] > 0.9
    assert same_model(here / "a", here / "b")
    evaluated = data_of(run("cnn", "evaluate", "a", "--json"))
    assert evaluated["accuracy"]["n"] == 24
    assert evaluated["accuracy"]["value"] == result["test_accuracy"]["value"]
    assert evaluated["accuracy"]["baseline"] == pytest.approx(1 / 3)
    assert [row["class"] for row in evaluated["classes"]] == ["across", "down", "slanted"]
    assert (here / "a" / "pictures" / "confusion-test.png").stat().st_size > 1000
    run("cnn", "evaluate", "a", "--min-accuracy", "1.0", "--data", "pictures", code=0)
    shutil.copytree(here / "a" / "model", here / "alone")  # the model folder is enough
    shutil.rmtree(here / "a")
    shown = data_of(
        run("cnn", "predict", "alone", "pictures", "--top", "2", "--grid", "g.png", "--json")
    )
    rows = shown["predictions"]
    assert len(rows) == 120
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert sum(row["label"] == row["true"] for row in rows) > 110
    assert all(len(row["top"]) == 2 for row in rows)
    assert all(0 <= row["probability"] <= 1.000001 for row in rows)
    with Image.open(here / "g.png") as grid:
        assert grid.size[0] > 200
    info = data_of(run("cnn", "info", "alone", "--json"))
    assert info["classes"] == ["across", "down", "slanted"]
    assert info["preprocessing"]["mode"] == "L" or info["preprocessing"]["mode"] == "RGB"


def test_prediction_is_softmax_of_the_stored_network_on_the_decoded_pixels(run, here):
    make_folder(here / "pictures", size=(16, 16))
    run("cnn", "train", "--data", "pictures", *QUICK, "--out", "a", "--model", "linear")
    row = data_of(run("cnn", "predict", "a", "pictures/across/001.png", "--top", "3", "--json"))[
        "predictions"
    ][0]
    weights = tensors(here / "a")
    grey = weights["mean"].numel() == 1
    with Image.open(here / "pictures/across/001.png") as opened:
        image = opened.convert("L" if grey else "RGB")
    x = np.asarray(image, dtype=np.float64).reshape(16, 16, -1).transpose(2, 0, 1) / 255
    x = (x - weights["mean"].numpy()[0]) / weights["std"].numpy()[0]
    logits = weights["network.1.weight"].double().numpy() @ x.reshape(-1)
    logits += weights["network.1.bias"].double().numpy()
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    got = {item["label"]: item["probability"] for item in row["top"]}
    for name, value in zip(("across", "down", "slanted"), expected, strict=True):
        assert got[name] == pytest.approx(value, abs=2e-5)


def test_stdin_takes_an_image_or_a_list_of_paths(dltool, work):
    make_folder(work / "pictures")
    dltool("cnn", "train", "--data", "pictures", *QUICK, "--out", "a")
    path = work / "pictures" / "down" / "003.png"
    by_path = dltool("cnn", "predict", "a", path, "--json").json()["data"]["predictions"]
    by_bytes = dltool("cnn", "predict", "a", "-", "--json", stdin=path.read_bytes())
    by_list = dltool("cnn", "predict", "a", "-", "--json", stdin=f"{path}\n".encode())
    for shown in (by_bytes, by_list):
        row = shown.json()["data"]["predictions"][0]
        assert row["probability"] == by_path[0]["probability"]
    dltool("cnn", "predict", "a", "-", stdin=b"", code=5)


def test_dirty_folder_is_reported_and_trained_on(run, here):
    root = make_folder(here / "pictures", count=20)
    for number, mode in enumerate(("L", "RGBA", "CMYK", "P", "1", "I;16")):
        suffix = "tif" if mode == "CMYK" else "png"
        image = picture(1, 100 + number, size=(30 + number, 17))
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        else:
            image = image.convert(mode)
        image.save(root / "down" / f"mode{number}.{suffix}")
    turned = picture(1, 200, size=(24, 12))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "down" / "turned.jpg", exif=exif)
    (root / "across" / "text.jpg").write_text("I am no picture")
    (root / "across" / "empty.png").write_bytes(b"")
    whole = (root / "across" / "000.png").read_bytes()
    (root / "across" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "across" / "notes.txt").write_text("left out")
    shown = run("cnn", "train", "--data", "pictures", *QUICK, "--image-size", "16", "--out", "a")
    for name in ("text.jpg", "empty.png", "cut.png"):
        assert name in shown.err
    assert "3 broken images" in shown.err
    facts = json.loads((here / "a" / "data.json").read_text())
    assert sum(facts["counts"].values()) == 67
    assert facts["broken"] == 3
    streamed = run(
        *("cnn", "train", "--data", "pictures", *QUICK, "--image-size", "16", "--out", "b"),
        *("--loader", "stream", "--workers", "0"),
    )
    assert "text.jpg" in streamed.err


def test_resident_and_streamed_training_agree(run, here):
    make_folder(here / "pictures", count=20, size=(12, 12))
    for name, loader in (("a", "resident"), ("b", "stream")):
        run(
            *("cnn", "train", "--data", "pictures", "--epochs", "2", "--batch-size", "16"),
            *("--out", name, "--loader", loader, "--workers", "0", "--augment", "flip,crop"),
        )
    a, b = tensors(here / "a"), tensors(here / "b")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


def test_predict_goes_on_past_broken_files_and_fails_when_none_is_left(run, here):
    make_folder(here / "pictures")
    run("cnn", "train", "--data", "pictures", *QUICK, "--out", "a")
    (here / "bad.png").write_text("no")
    shown = run("cnn", "predict", "a", "bad.png", "pictures/down/001.png", "--json")
    answer = json.loads(shown.out)
    assert len(answer["data"]["predictions"]) == 1
    assert "bad.png" in answer["warnings"][0]
    run("cnn", "predict", "a", "bad.png", code=5)
    run("cnn", "predict", "a", "gone.png", code=5)
    (here / "nothing").mkdir()
    run("cnn", "predict", "a", "nothing", code=5)


@pytest.mark.parametrize(
    ("build_data", "code", "words"),
    [
        (lambda p: p.mkdir(), 5, "no images"),
        (lambda p: p.write_text("hello"), 5, "neither a folder nor a zip"),
        (lambda p: make_folder(p, classes=("only",)), 5, "one class only"),
        (lambda p: make_folder(p, count=1), 5, "1"),
        (lambda p: (p.mkdir(), picture(0, 0).save(p / "a.png")), 5, "class"),
    ],
    ids=["empty", "text", "one-class", "one-image-each", "no-class-folders"],
)
def test_hopeless_data_is_one_line_and_leaves_no_run(run, here, build_data, code, words):
    build_data(here / "pictures")
    shown = run("cnn", "train", "--data", "pictures", code=code)
    line = shown.err.strip().splitlines()[-1]
    assert line.startswith("error E5")
    assert words in line
    assert not (here / "runs").exists()


def test_batch_larger_than_the_data_is_told_and_works(run, here):
    shown = run("cnn", "train", "--epochs", "1", "--batch-size", "100000")
    assert "larger than the 1257 training images" in shown.err


@pytest.mark.parametrize("count", [9, 17])
def test_a_lone_last_image_does_not_break_batch_norm(run, here, count):
    make_folder(here / "pictures", count=20)
    shown = run(
        *("cnn", "train", "--data", "pictures", "--epochs", "1", "--batch-size", "41"),
        *("--model", "resnet18"),
    )
    assert "test accuracy" in shown.out


def test_splits_follow_the_folders(run, here):
    for split, count, first in (("train", 20, 0), ("test", 5, 50)):
        make_folder(here / "pictures" / split, count=count, first=first)
    run("cnn", "train", "--data", "pictures", *QUICK, "--out", "a")
    counts = json.loads((here / "a" / "data.json").read_text())["counts"]
    assert counts == {"train": 54, "val": 6, "test": 15}
    shutil.move(here / "pictures" / "test", here / "pictures" / "val")
    shown = run("cnn", "train", "--data", "pictures", *QUICK, "--out", "b")
    assert "val/ is the final test" in shown.err


def test_leak_between_splits_stops_the_run(run, here):
    for split in ("train", "test"):
        make_folder(here / "pictures" / split, count=20)
    shown = run("cnn", "train", "--data", "pictures", *QUICK, code=6)
    assert "G-D04" in shown.err
    assert "--guards off" in shown.err


def test_evaluate_other_data_by_class_name(run, here):
    make_folder(here / "pictures", count=30)
    run("cnn", "train", "--data", "pictures", "--epochs", "8", "--out", "a")
    make_folder(here / "more", count=7, classes=("across", "down"))
    evaluated = data_of(run("cnn", "evaluate", "a", "--data", "more", "--json"))
    assert evaluated["accuracy"]["n"] == 14
    assert sum(evaluated["confusion"][2]) == 0
    make_folder(here / "strange", classes=("across", "zebra"))
    assert "zebra" in run("cnn", "evaluate", "a", "--data", "strange", code=5).err
    run("cnn", "evaluate", "a", "--data", "digits", code=5)
    run("cnn", "evaluate", "a", "--min-accuracy", "1.01", code=2)


def test_config_file_fills_what_flags_leave_and_origins_are_kept(run, here):
    (here / "c.toml").write_text('epochs = 1\nmodel = "linear"\nlearning-rate = 0.1\n')
    run("cnn", "train", "--config", "c.toml", "--model", "mlp", "--out", "a")
    config = json.loads((here / "a" / "config.json").read_text())
    assert config["model"] == {"value": "mlp", "origin": "flag"}
    assert config["epochs"] == {"value": 1, "origin": "file c.toml"}
    assert config["learning_rate"]["value"] == 0.1
    assert config["batch_size"]["origin"] == "recipe"
    assert config["clip"]["origin"] == "default"
    (here / "c.toml").write_text("epoch = 1")
    assert "'epochs'" in run("cnn", "train", "--config", "c.toml", code=2).err
    (here / "c.toml").write_text('epochs = "many"')
    assert "wrong type" in run("cnn", "train", "--config", "c.toml", code=2).err
    run("cnn", "train", "--config", "gone.toml", code=2)


def test_events_are_json_lines(dltool):
    shown = dltool("cnn", "train", *QUICK, "--events")
    events = [json.loads(line) for line in shown.out.splitlines()]
    assert [event["event"] for event in events if event["event"] != "step"] == [
        "start",
        "epoch",
        "epoch",
        "result",
    ]


def test_disk_full_while_saving_trains_on_and_ends_non_zero(run, here, monkeypatch):
    real = runs.files.write_synced

    def full(path, data):
        if "step-" in str(path):
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr("dltool.files.write_synced", full)
    shown = run("cnn", "train", *QUICK, "--out", "a", code=1)
    assert "no space left" in shown.err
    assert len(runs.read_records(here / "a")) == 2
    assert tensors(here / "a")  # the model itself could be written


def test_diverging_run_exits_7(run, here):
    shown = run("cnn", "train", "--lr", "100", "--model", "mlp", "--epochs", "3", "--out", "a",
                "--schedule", "constant", "--weight-decay", "9", "--guards", "off",
                code=7)  # fmt: skip
    assert "E701" in shown.err or "E702" in shown.err


@pytest.mark.parametrize(
    ("spec", "parameters"),
    [
        (Spec("linear", 1, 28, 28, 10), 7_850),
        (Spec("mlp", 1, 28, 28, 10, (512, 256, 128, 64)), 575_050),
        (Spec("mlp", 1, 28, 28, 10, (256, 128, 64)), 242_762),
        (Spec("lenet", 1, 28, 28, 10), 61_706),
        (Spec("resnet20", 3, 32, 32, 10), 269_722),
        (Spec("resnet18", 3, 224, 224, 1000), 11_689_512),
    ],
    ids=lambda value: value.name if isinstance(value, Spec) else None,
)
def test_parameter_counts_are_the_published_ones(spec, parameters):
    channels = spec.channels
    assert count_parameters(build(spec, [0.5] * channels, [0.2] * channels)) == parameters


@pytest.mark.parametrize(
    "name",
    [
        *("linear", "mlp", "lenet", "simple-cnn", "resnet20"),
        pytest.param("resnet18", marks=pytest.mark.slow),
    ],
)
def test_every_model_overfits_one_batch(name):
    torch.manual_seed(0)
    spec = Spec(name, 1, 16, 16, 3, (32,))
    model = build(spec, [0.5], [0.25])
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.arange(24) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(250):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.03


def test_lenet_on_tiny_images_names_the_cure(run):
    assert "--image-size 28" in run("cnn", "train", "--model", "lenet", code=2).err


def test_lenet_takes_enlarged_digits(run, here):
    run("cnn", "train", "--model", "lenet", "--image-size", "28", "--epochs", "1", "--out", "a")
    assert tensors(here / "a")["network.7.weight"].shape == (120, 400)


def test_model_of_another_topic_or_damaged_is_refused(run, here):
    run("cnn", "train", *QUICK, "--out", "a")
    path = here / "a" / "model" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert "model.safetensors" in run("cnn", "info", "a", code=5).err
    assert "FAIL" in run("checkpoint", "verify", "a", code=6).out
    os.remove(path)
    run("cnn", "predict", "a", "x.png", code=5)
