"""What explains a classifier: calibration, worst mistakes, filters, Grad-CAM."""

import math

import numpy as np
import pytest
import torch
from dltool_cnn import gradcam, pictures
from dltool_cnn.mistakes import Answers
from dltool_cnn.model import Classifier, Spec, build
from PIL import Image
from torch import nn

from dltool import cli
from dltool.errors import ConfigError


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A quickly trained run on the digits."""
    folder = tmp_path_factory.mktemp("cnn") / "run"
    words = ["cnn", "train", "--epochs", "2", "--batch-size", "128", "--out", str(folder)]
    assert cli.run(words) == 0
    return folder


def averaging(seed=0):
    """Return conv, ReLU, mean over the places, linear: the network that CAM was made for."""
    torch.manual_seed(seed)
    layers = (nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    return Classifier(nn.Sequential(*layers, *head), [0.4] * 3, [0.2] * 3).eval()


def noise(count=5, side=9, channels=3):
    stream = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, side, side), generator=stream).to(torch.uint8)


def test_grad_cam_of_an_averaging_network_is_its_class_activation_map():
    model, images = averaging(), noise()
    chosen = torch.tensor([0, 1, 2, 3, 0])
    layer = gradcam.target_layer(model, images)
    assert layer == "1"
    with torch.no_grad():
        scaled = (images.float() / 255 - 0.4) / 0.2
        features = model.network[:2](scaled)  # (B, K, h, w)
        weights = model.network[4].weight[chosen]  # (B, K)
        expected = (weights[:, :, None, None] * features).sum(1).relu()
    expected = expected / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(gradcam.maps(model, images, chosen, layer), expected)


def test_grad_cam_leaves_model_as_it_was():
    model, images = averaging(), noise()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradcam.maps(model, images, torch.zeros(5, dtype=torch.long), "1")
    with pytest.raises(RuntimeError):
        gradcam.maps(model, noise(channels=2), torch.zeros(5, dtype=torch.long), "1")
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet18", "layer4"), ("resnet20", "layer3"), ("lenet", "4")]
)
def test_last_map_of_features_is_found(name, layer):
    side = 64 if name == "resnet18" else 28
    spec = Spec(name, 3, side, side, 10)
    model = build(spec, [0.5] * 3, [0.2] * 3).eval()
    assert gradcam.target_layer(model, noise(1, side)) == layer


def test_grad_cam_refuses_networks_without_places(run_folder, capsys):
    for name in ("linear", "mlp"):
        model = build(Spec(name, 1, 8, 8, 10, hidden=(16,)), [0.5], [0.2]).eval()
        with pytest.raises(ConfigError, match="convolutions"):
            gradcam.target_layer(model, noise(1, 8, 1))
        assert not any(module._forward_hooks for module in model.modules())


def test_predict_explains_in_a_picture(run_folder, repository, capsys):
    words = ["cnn", "predict", str(run_folder), str(repository / "examples" / "digits" / "3")]
    capsys.readouterr()
    assert cli.run([*words, "--json"]) == 0
    plain = capsys.readouterr().out
    assert cli.run([*words, "--explain"]) == 0
    path = run_folder / "pictures" / "grad-cam.png"
    with Image.open(path) as picture:
        assert picture.text["Title"] == "Grad-CAM"
        assert np.asarray(picture.convert("RGB")).std(2).max() > 50  # colours over grey digits
    capsys.readouterr()
    assert cli.run([*words, "--json"]) == 0
    assert capsys.readouterr().out == plain


def test_answers_keep_the_worst_mistakes_of_all_batches():
    logits = torch.tensor([[0.0, 3.0], [2.0, 0.0], [0.0, 1.0], [9.0, 0.0]])
    labels = torch.tensor([0, 1, 1, 0])  # wrong, wrong, right, right
    images, answers = noise(4), Answers()
    for part in (slice(0, 1), slice(1, 4)):
        answers.add(images[part], logits[part], labels[part])
    assert [(each.index, each.said, each.true) for each in answers.worst] == [(0, 1, 0), (1, 0, 1)]
    assert answers.worst[0].probability == pytest.approx(1 / (1 + math.exp(-3)), abs=1e-6)
    assert answers.worst[0].true_probability == pytest.approx(1 / (1 + math.exp(3)), abs=1e-6)
    assert np.array_equal(answers.worst[1].pixels, images[1].permute(1, 2, 0).numpy())


def test_calibration_is_what_a_hand_computation_gives():
    # of fifteen bins 0.90 and 0.91 share the fourteenth, and one of the two is right
    confidence = torch.tensor([0.90, 0.91, 0.62, 0.57])
    logits = torch.stack([confidence.log(), (1 - confidence).log()], 1)
    answers = Answers()
    answers.add(noise(4), logits, torch.tensor([0, 1, 0, 0]))
    found = answers.calibration()
    expected = (2 * abs(0.5 - 0.905) + abs(1 - 0.62) + abs(1 - 0.57)) / 4
    assert found["error"] == pytest.approx(expected, abs=1e-6)
    assert [each["count"] for each in found["bins"]] == [0] * 8 + [1, 1, 0, 0, 0, 2, 0]
    assert found["bins"][13]["accuracy"] == 0.5


def test_training_and_evaluating_leave_pictures_with_captions(run_folder, capsys):
    names = {path.name for path in (run_folder / "pictures").iterdir()}
    trained = {"curves", "confusion-test", "calibration-test", "worst-test", "filters"}
    assert {f"{name}.png" for name in trained} <= names
    capsys.readouterr()
    assert cli.run(["cnn", "evaluate", str(run_folder), "--split", "val", "--pictures"]) == 0
    for name in ("calibration-val", "worst-val", "confusion-val", "curves", "filters"):
        with Image.open(run_folder / "pictures" / f"{name}.png") as picture:
            assert picture.text["Title"]
            assert picture.text["Description"].endswith(".")


def test_filters_are_drawn_by_their_sign_and_size(tmp_path):
    model = build(Spec("linear", 1, 4, 6, 2), [0.5], [0.2])
    with torch.no_grad():
        model.network[1].weight.zero_()
        model.network[1].weight[0, 0] = -2.0  # the first pixel speaks against the first class
        model.network[1].weight[0, 23] = 1.0
    weights = pictures.first_weights(model, (4, 6))
    assert weights.shape == (2, 4, 6, 1)
    shades = pictures._shades(weights[0])[..., 0]
    assert (shades[0, 0], shades[3, 5], shades[1, 1]) == (0, 191, 128)
    assert pictures.draw_filters(model, ("a", "b"), (4, 6), tmp_path / "f.png")
    deep = Classifier(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten()), [0.5], [0.2])
    assert not pictures.draw_filters(deep, ("a", "b"), (4, 6), tmp_path / "g.png")
