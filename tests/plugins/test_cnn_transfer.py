"""Transfer learning and the settings of a training: what is kept, what is trained, what resumes."""

import copy
import json
import math

import pytest
import torch
from dltool_cnn import find_lr, lora, transfer
from dltool_cnn.config import TrainConfig
from dltool_cnn.model import Classifier, Spec, build, count_parameters
from dltool_cnn.models import zoo
from dltool_cnn.summary import build_empty
from dltool_cnn.tta import mirrored_too
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer, shufflenet_v2_x0_5

from dltool import cli, optim, rng, runs
from dltool.console import Console
from dltool.data.resident import Resident
from dltool.errors import ConfigError

SMALL = "tv:shufflenet_v2_x0_5"


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


@pytest.fixture
def pictures(here):
    """Three classes of flat colours with some noise, 8 of each."""
    draws = torch.Generator().manual_seed(0)
    for label, name in enumerate(("red", "green", "blue")):
        (here / "pictures" / name).mkdir(parents=True)
        for number in range(8):
            pixels = torch.randint(0, 90, (32, 32, 3), dtype=torch.uint8, generator=draws)
            pixels[..., label] += 160
            Image.fromarray(pixels.numpy()).save(here / "pictures" / name / f"{number}.png")
    return "pictures"


@pytest.fixture(scope="module")
def published():
    """Stand in for the published weights of a small network: seeded ones for 1,000 classes."""
    torch.manual_seed(1)
    network = shufflenet_v2_x0_5(weights=None)
    for _ in range(40):  # norms of published weights have measured statistics
        network(torch.randn(16, 3, 32, 32))
    return network.state_dict()


def tensors(folder):
    return load_file(folder / "model" / "model.safetensors")


def config(**values):
    return TrainConfig(model="tv:vit_b_16", pretrained=True, **values)


def test_lora_on_vit_b_16_trains_the_count_of_the_source():
    settings = config(lora_rank=16)
    model = build_empty(Spec("tv:vit_b_16", 3, 224, 224, 101))
    backbone = sum(p.numel() for p in model.parameters())
    transfer.freeze(model, settings)
    _, head = zoo.head(model.network)
    in_head = sum(p.numel() for p in head.parameters())
    assert count_parameters(model) == 667_493
    total = sum(p.numel() for p in model.parameters())
    assert total == backbone + 12 * 2 * 16 * (768 + 768)
    # the library of the source keeps the head that it replaced, and counts it too
    assert total + in_head == 86_543_818


def vit():
    torch.manual_seed(0)
    network = VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=3)
    nn.init.normal_(network.heads.head.weight)  # torchvision's begins with zeros
    return network


def swin():
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 8, [2], [2], [2, 2], num_classes=3)


@pytest.mark.parametrize("make", [vit, swin])
def test_low_rank_changes_begin_at_zero_and_merge_into_the_weights(make):
    plain, changed = make().eval(), make().eval()
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    assert lora.add(changed, ("query", "value", "output"), 2, 4.0) == 6
    with torch.no_grad():
        torch.testing.assert_close(changed(images), plain(images))
        for name, parameter in changed.named_parameters():
            if ".up." in name:
                parameter.normal_(generator=torch.Generator().manual_seed(2))
        beside = changed(images)
        assert not torch.allclose(beside, plain(images), atol=1e-3)
        lora.merge(changed)
        torch.testing.assert_close(changed(images), beside)
    assert changed.state_dict().keys() == plain.state_dict().keys()
    if make is vit:
        old = plain.encoder.layers[0].self_attention.in_proj_weight
        new = changed.encoder.layers[0].self_attention.in_proj_weight
        rows = (new - old).abs().sum(1).view(3, 16)
        assert (rows[0] > 0).all()
        assert (rows[1] == 0).all()
        assert (rows[2] > 0).all()
        difference = (new - old)[:16]
        assert torch.linalg.matrix_rank(difference) == 2


def test_lora_refuses_networks_without_attention_and_ranks_too_high():
    with pytest.raises(ConfigError, match="attention") as caught:
        lora.add(shufflenet_v2_x0_5(), ("query",), 2, 4.0)
    assert caught.value.code == "E205"
    with pytest.raises(ConfigError, match="width"):
        lora.add(vit(), ("query",), 16, 4.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"freeze": "backbone"}, "random weights"),
        ({"lora_rank": 4}, "random weights"),
        ({"pretrained": True}, "published"),
        ({"model": "tv:resnet18", "pretrained": True, "weights": "a.pth"}, "both"),
        ({"weights": "a", "freeze": "head"}, "--freeze"),
        ({"weights": "a", "freeze": "2", "lora_rank": 1}, "--lora-rank"),
        ({"weights": "a", "lora_targets": "query,values"}, "--lora-targets"),
        ({"optimizer": "lion"}, "--optimizer"),
        ({"hidden": ","}, "--hidden"),
    ],
)
def test_settings_that_contradict_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**settings)


def test_freezing_the_first_blocks_and_rates_of_the_groups():
    settings = TrainConfig(weights="x", freeze="3", head_lr=0.5, backbone_lr=0.01, weight_decay=0.1)
    model = build(Spec("resnet18", 3, 32, 32, 4), [0.5] * 3, [0.2] * 3)
    transfer.freeze(model, settings)
    frozen = {name for name, p in model.network.named_parameters() if not p.requires_grad}
    assert {name.split(".")[0] for name in frozen} == {"conv1", "bn1", "layer1"}
    assert not any(name.startswith("layer1.1") for name in frozen)
    found = transfer.groups(model, settings)
    assert [(g["part"], g["lr"], g["weight_decay"]) for g in found] == [
        ("head", 0.5, 0.1),
        ("head", 0.5, 0.0),
        ("backbone", 0.01, 0.1),
        ("backbone", 0.01, 0.0),
    ]
    held = [id(p) for group in found for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    with pytest.raises(ConfigError, match="more blocks"):
        transfer.freeze(model, TrainConfig(weights="x", freeze="99"))


def test_fine_tuning_a_head_keeps_every_other_bit_and_the_normalisation(
    run, here, pictures, published
):
    torch.save(published, here / "w.pth")
    shown = run(
        *("cnn", "train", "--data", pictures, "--model", SMALL, "--weights", "w.pth"),
        *("--image-size", "32", "--freeze", "backbone", "--epochs", "2", "--out", "a"),
        *("--batch-size", "8", "--json"),
    )
    assert "head fc replaced: 1000 classes before, 3 now" in shown.err
    assert "frozen" in shown.err
    result = json.loads(shown.out)["data"]
    assert result["trained_parameters"] == 1024 * 3 + 3
    trained = tensors(here / "a")
    for name, value in published.items():
        if not name.startswith("fc."):
            assert torch.equal(trained[f"network.{name}"], value), name
    assert trained["mean"].flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert trained["std"].flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    description = json.loads((here / "a" / "model" / "model.json").read_text())
    assert description["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    # from there, another run begins with the same head
    again = run(
        *("cnn", "train", "--data", pictures, "--model", SMALL, "--weights", "a"),
        *("--image-size", "32", "--epochs", "1", "--out", "b", "--freeze", "2"),
    )
    assert "head fc kept" in again.err


def test_published_weights_offline_name_the_file_and_are_found_in_the_cache(
    run, here, pictures, published, monkeypatch
):
    monkeypatch.setenv("TORCH_HOME", str(here / "torch"))
    words = ["cnn", "train", "--data", pictures, "--model", SMALL, "--pretrained", "--epochs", "1"]
    url = zoo.weights_entry(SMALL).url
    shown = run(*words, code=5)
    assert "E504" in shown.err
    assert url in shown.err
    assert not (here / "runs").exists()
    target = here / "torch" / "hub" / "checkpoints" / url.rsplit("/", 1)[-1]
    target.parent.mkdir(parents=True)
    torch.save(published, target)
    run(*words, "--image-size", "32", "--out", "a", "--lr", "1e-9", "--head-lr", "0.01")
    moved = tensors(here / "a")["network.conv1.0.weight"] - published["conv1.0.weight"]
    assert moved.abs().max() < 1e-6
    torch.save({"conv1.weight": torch.zeros(3)}, here / "other.pth")
    wrong = run(*words[:6], "--weights", "other.pth", "--image-size", "32", code=5)
    assert "E513" in wrong.err


def test_frozen_norms_keep_their_statistics_and_others_do_not():
    model = build(Spec("resnet18", 3, 32, 32, 4), [0.5] * 3, [0.2] * 3)
    transfer.freeze(model, TrainConfig(weights="x", freeze="4"))
    model.train()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    before = copy.deepcopy(model.network.state_dict())
    model(images)
    after = model.network.state_dict()
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed
    assert not any(name.startswith(("bn1", "layer1")) for name in changed)
    assert any(name.startswith("layer4") for name in changed)


def small_vit(spec):
    """Build a transformer small enough for a test, behind the name of a large one."""
    return VisionTransformer(spec.seen[0], 8, 2, 2, 16, 32, num_classes=spec.num_classes)


def test_low_rank_training_leaves_a_merged_model_and_an_unfinished_run_that_works(
    run, here, pictures, monkeypatch
):
    monkeypatch.setattr(zoo, "build", small_vit)
    torch.manual_seed(3)
    start = VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=3).state_dict()
    start["heads.head.weight"].normal_()
    torch.save(start, here / "vit.pth")
    words = ["cnn", "train", "--data", pictures, "--model", "tv:vit_b_16", "--weights", "vit.pth"]
    words += ["--image-size", "32", "--lora-rank", "2", "--epochs", "2", "--batch-size", "8"]
    words += ["--lr", "0.01"]
    run(*words, "--out", "whole")
    trained = tensors(here / "whole")
    assert {name.removeprefix("network.") for name in trained} - {"mean", "std"} == start.keys()
    key = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight"
    moved = (trained[f"network.{key}"] - start[key]).view(3, 16, 16).abs().sum((1, 2))
    assert moved[0] > 0
    assert moved[1] == 0
    assert moved[2] > 0
    assert torch.equal(trained["network.conv_proj.weight"], start["conv_proj.weight"])
    run(*words, "--out", "part", "--max-time", "0.001s")
    run("cnn", "train", "--resume", "part", "--max-time", "0.3s")
    run("cnn", "train", "--resume", "part", "--max-time", "1h")
    again = tensors(here / "part")
    assert all(torch.equal(trained[name], again[name]) for name in trained)


MIXED = ("--augment", "alternating-flip,crop,rotate,color,erase,mixup,cutmix")


@pytest.mark.parametrize(
    "words",
    [
        ("--optimizer", "muon", *MIXED),
        pytest.param(
            ("--optimizer", "sgd", "--schedule", "step", "--augment", "mixup", "--balance"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--schedule", "plateau", "--augment", "cutmix", "--ema", "0.9"),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["muon-mixed", "sgd-mixup-balance", "plateau-cutmix-ema"],
)
def test_a_stopped_run_ends_with_the_same_bits(run, here, words):
    common = ("cnn", "train", "--epochs", "3", "--batch-size", "300", "--seed", "4", *words)
    run(*common, "--out", "whole")
    run(*common, "--out", "part", "--max-time", "0.001s")
    assert runs.read_json(here / "part")["status"] != "finished"
    run("cnn", "train", "--resume", "part", "--max-time", "0.05s")
    run("cnn", "train", "--resume", "part", "--max-time", "1h")
    whole, part = tensors(here / "whole"), tensors(here / "part")
    assert all(torch.equal(whole[name], part[name]) for name in whole)


def test_a_range_test_leaves_no_trace_and_gives_the_rate(run, here):
    torch.manual_seed(0)
    model = build(Spec("simple-cnn", 1, 8, 8, 3), [0.5], [0.2])
    images = torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8)
    data = Resident(images, torch.arange(64) % 3, 16, 0, True, ("flip",))
    optimizer = optim.build("adamw", optim.parameter_groups(model, 0.1), 0.01)

    def loss(inputs, labels):
        return nn.functional.cross_entropy(model(inputs), labels)

    loss(images[:8], torch.arange(8) % 3).backward()
    optimizer.step()  # moments to be kept
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    streams = rng.capture(torch.device("cpu"))
    found = find_lr.range_test(model, optimizer, loss, data)
    assert found.rates == sorted(found.rates)
    assert 1e-5 < found.suggested < 1
    for old, new in zip(before, (model.state_dict(), optimizer.state_dict()), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)
    assert torch.equal(streams["torch"], rng.capture(torch.device("cpu"))["torch"])
    run("cnn", "train", "--epochs", "1", "--find-lr", "--out", "a")
    chosen = json.loads((here / "a" / "config.json").read_text())["learning_rate"]
    assert chosen["origin"] == "range test"
    assert (here / "a" / "pictures" / "lr-range.png").stat().st_size > 1000
    run("cnn", "train", "--epochs", "1", "--lr", chosen["value"], "--out", "b")
    a, b = tensors(here / "a"), tensors(here / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_both_sides_of_an_image_are_averaged(run, here):
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), [0.5], [0.2])
    images = torch.randint(0, 256, (5, 1, 3, 4), dtype=torch.uint8)
    got = mirrored_too(model, "flip")(images)
    expected = (model(images).softmax(1) + model(images.flip(3)).softmax(1)) / 2
    torch.testing.assert_close(got.softmax(1), expected)
    torch.testing.assert_close(got.logsumexp(1), torch.zeros(5), atol=1e-6, rtol=0)
    assert mirrored_too(model, "none") is model
    run("cnn", "train", "--epochs", "1", "--out", "a")
    plain = json.loads(run("cnn", "evaluate", "a", "--json").out)["data"]
    both = json.loads(run("cnn", "evaluate", "a", "--tta", "flip", "--json").out)["data"]
    assert both["loss"] != plain["loss"]
    assert math.isfinite(both["loss"])
    assert "none" in run("cnn", "evaluate", "a", "--tta", "flop", code=2).err


def test_compiling_where_it_does_not_work_is_one_line(run, here, monkeypatch):
    def broken(model):
        def fail(images):
            raise RuntimeError("no compiler\nfound here")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    shown = run("cnn", "train", "--epochs", "1", "--compile", "--out", "a", code=3)
    assert "E303" in shown.err
    assert "no compiler" in shown.err
    assert "--compile" in shown.err


def test_the_table_of_groups_is_told(capsys):
    model = build(Spec("simple-cnn", 1, 8, 8, 3), [0.5], [0.2])
    settings = TrainConfig(head_lr=0.5)
    rows = transfer.tell(model, transfer.groups(model, settings), Console("cnn train"))
    assert sum(row["parameters"] for row in rows) == count_parameters(model)
    assert "0.5" in capsys.readouterr().err
