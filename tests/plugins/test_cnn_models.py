"""The networks of `cnn`: counts and shapes of the books, and every model of torchvision."""

import json

import pytest
import torch
from dltool_cnn.config import MODELS, RECIPES, TrainConfig
from dltool_cnn.model import BUILDERS, Spec, build
from dltool_cnn.models import zoo
from dltool_cnn.recipes import recipe
from dltool_cnn.summary import build_empty, summarise
from torch.utils.flop_counter import FlopCounterMode

from dltool import cli
from dltool.errors import ConfigError

GREY = [0.5]


def summary_of(name, channels=1, side=28, classes=10, **options):
    spec = Spec(name, channels, side, side, classes, **{"hidden": (32,), **options})
    return summarise(build_empty(spec), spec)


@pytest.mark.parametrize(
    ("name", "side", "parameters"),
    [
        ("linear", 28, 7_850),
        ("resmlp", 28, 26_570),
        ("lenet", 28, 61_706),
        ("lenet-bn", 28, 44_878),
        ("cnn-5x5", 28, 8_490),
        ("cnn16", 28, 206_922),
        ("cnn2", 28, 421_642),
        ("cnn2-bn", 28, 421_834),
        ("cnn5", 28, 1_772_490),
        ("inception-small", 28, 97_298),
        ("resnet-small", 28, 41_514),
        ("resnet18-d2l", 96, 11_178_378),
        ("alexnet", 224, 46_764_746),
        ("vgg11", 224, 128_806_154),
        ("nin", 224, 1_992_166),
    ],
)
def test_parameter_counts_are_those_of_the_books(name, side, parameters):
    found = summary_of(name, side=side)
    assert found.parameters == parameters
    assert sum(layer.parameters for layer in found.layers) == parameters


def test_our_resnet18_differs_from_the_book_s_by_its_biases_and_shortcut_norms():
    biases = 64 + 2 * 2 * (64 + 128 + 256 + 512) + (128 + 256 + 512)
    norms = 2 * (128 + 256 + 512)
    assert summary_of("resnet18", side=96).parameters + biases - norms == 11_178_378


def shapes(name, side):
    return [layer.output for layer in summary_of(name, side=side).layers]


def test_lenet_has_the_shapes_and_multiply_adds_of_its_lesson():
    found = summary_of("lenet")
    outputs = [layer.output for layer in found.layers if layer.kind != "Sigmoid"]
    assert outputs == [
        *((6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5)),
        *((400,), (120,), (84,), (10,)),
    ]
    assert found.multiply_adds == 416_520


def test_alexnet_s_multiply_adds():
    assert summary_of("alexnet", side=224).multiply_adds == 938_146_176


def test_nin_has_the_shapes_of_its_lesson():
    kinds = ("MaxPool2d", "Dropout", "AdaptiveAvgPool2d", "Flatten")
    found = summary_of("nin", side=224)
    outputs = [layer.output for layer in found.layers if layer.kind in kinds]
    assert outputs == [(96, 26, 26), (256, 12, 12), (384, 5, 5), (384, 5, 5), (10, 1, 1), (10,)]
    assert (96, 54, 54) in shapes("nin", 224)
    assert (256, 26, 26) in shapes("nin", 224)
    assert (384, 12, 12) in shapes("nin", 224)


def test_googlenet_s_blocks_join_to_the_widths_of_the_paper():
    spec = Spec("googlenet", 1, 96, 96, 10)
    network = build(spec, GREY, GREY).network.eval()
    widths = []
    for module in network:
        if type(module).__name__ == "Inception":
            module.register_forward_hook(lambda _, __, out: widths.append(out.shape[1]))
    network(torch.zeros(1, 1, 96, 96))
    assert widths == [256, 480, 512, 512, 512, 528, 832, 832, 1024]


def test_resnet18_halves_96_pixels_four_times():
    spec = Spec("resnet18", 1, 96, 96, 10)
    network = build(spec, GREY, GREY).network.eval()
    sides = []
    for stage in (network.maxpool, network.layer1, network.layer2, network.layer3, network.layer4):
        stage.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    network(torch.zeros(1, 1, 96, 96))
    assert sides == [24, 24, 12, 6, 3]


@pytest.mark.parametrize(
    "name",
    [
        "cnn5",
        "preact",
        "googlenet",
        "tv:swin_t",
        pytest.param("tv:maxvit_t", marks=pytest.mark.slow),
    ],
)
def test_multiply_adds_are_half_of_torch_s_count_and_add_up(name):
    side = 224 if name.startswith("tv:") else 64
    spec = Spec(name, 3, side, side, 7)
    found = summarise(build_empty(spec), spec)
    model = build_empty(spec).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, side, side, device="meta"))
    assert found.multiply_adds == counter.get_total_flops() // 2
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds
    assert sum(layer.parameters for layer in found.layers) == found.parameters


@pytest.mark.parametrize("name", ["resnet34", "vit_b_16", "alexnet", "vgg11", "squeezenet1_1"])
def test_torchvision_s_models_have_the_published_counts(name):
    entry = zoo.weights_entry(f"tv:{name}")
    found = summary_of(f"tv:{name}", 3, zoo.usual_side(f"tv:{name}"), 1000)
    assert found.parameters == entry.meta["num_params"]
    assert found.multiply_adds / 1e9 == pytest.approx(entry.meta["_ops"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.names())
def test_every_model_of_torchvision_can_be_built_for_other_classes(name):
    full = f"tv:{name}"
    side = zoo.usual_side(full)
    found = summary_of(full, 1, side, 7)
    assert found.layers[-1].output[0] == 7 or found.layers[-3].output[0] == 7
    assert zoo.head(build_empty(Spec(full, 3, side, side, 7)).network)[0]


DEEP = ("resnet18", "resnet34", "resnet18-d2l", "plain18", "googlenet", "nin")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in DEEP else ())
        for name in sorted(set(BUILDERS) - {"vgg11", "alexnet"})
    ],
)
def test_every_network_learns_from_grey_and_colour(name):
    side = 96 if name in ("nin", "googlenet") else 28
    assert name in MODELS
    for channels in (1, 3):
        torch.manual_seed(0)
        model = build(
            Spec(name, channels, side, side, 3, (16,)), [0.5] * channels, [0.2] * channels
        )
        images = torch.randint(0, 256, (4, channels, side, side), dtype=torch.uint8)
        loss = torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0]))
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_small_images_are_refused_with_a_cure():
    for name in ("alexnet", "vgg11", "nin", "lenet-bn", "tv:alexnet"):
        with pytest.raises(ConfigError, match="image") as caught:
            build_empty(Spec(name, 3, 10, 10, 3))
        assert "--image-size" in caught.value.cure
    with pytest.raises(ConfigError, match="no classification model") as caught:
        build_empty(Spec("tv:resnet19", 3, 64, 64, 3))
    assert "tv:resnet1" in caught.value.cure


def test_the_network_enlarges_what_is_too_small_for_it():
    small = build(Spec("lenet", 1, 8, 8, 10, side=28), GREY, GREY).eval()
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    from torchvision.transforms.v2 import functional as tv

    large = tv.resize(images.float(), [28, 28], antialias=False)
    torch.testing.assert_close(small(images), small.network((large / 255 - 0.5) / 0.5))


def answer(capsys, *words):
    assert cli.run(list(words)) == 0
    return json.loads(capsys.readouterr().out)["data"]


def test_summary_and_models_commands(capsys):
    shown = answer(capsys, "cnn", "summary", "lenet", "--json")
    assert shown["multiply_adds"] == 416_520
    assert shown["flops"] == 2 * 416_520
    assert shown["weights_bytes"] == 4 * 61_706
    assert shown["layers"][0] == {
        "name": "0",
        "kind": "Conv2d",
        "output": [6, 28, 28],
        "parameters": 156,
        "multiply_adds": 117_600,
    }
    quarter = answer(
        capsys, "cnn", "summary", "vgg11", "--input", "1x224x224", "--width", "16", "--json"
    )
    assert quarter["layers"][0]["output"] == [16, 224, 224]
    found = answer(capsys, "cnn", "models", "resnet", "--json")
    assert "resnet20" in [row["name"] for row in found["models"]]
    assert "tv:resnet50" in [row["name"] for row in found["torchvision"]]
    everything = answer(capsys, "cnn", "models", "--json")
    assert [row["name"] for row in everything["models"]] == list(MODELS) == list(BUILDERS)
    for words, said in (
        (("summary", "lenet", "--input", "2x28x28"), "--input"),
        (("summary", "lenett"), "lenet"),
        (("summary", "tv:resnet19"), "tv:resnet1"),
    ):
        assert cli.run(["cnn", *words]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("data", ["digits", "mnist", "fashion-mnist", "cifar10", "a/folder"])
def test_every_recipe_is_a_config_and_fits_its_images(kind, data):
    chosen = {"data": data, "recipe": kind}
    settings = TrainConfig(**{**recipe(chosen), **chosen})
    side = {"digits": 8, "cifar10": 32, "a/folder": 64}.get(data, 28)
    channels = 1 if data in ("digits", "mnist", "fashion-mnist") else 3
    spec = Spec(settings.model, channels, side, side, 10, base_width=settings.width)
    found = summarise(build_empty(spec), spec)
    assert found.parameters < 1_300_000
    if (kind, data) == ("best", "fashion-mnist"):
        assert found.parameters < 1_000_000


def test_a_recipe_yields_to_what_is_chosen():
    usual = recipe({})
    assert recipe({"recipe": "usual"}) == usual
    assert recipe({"recipe": "fast"})["model"] == "preact"
    other = recipe({"recipe": "best", "data": "fashion-mnist", "model": "resnet20"})
    assert "width" not in other
    assert recipe({"recipe": "fast", "optimizer": "sgd"})["learning_rate"] == 0.1
    assert recipe({"optimizer": "muon"})["learning_rate"] == 0.02
    trained = recipe({"model": "tv:resnet18", "pretrained": True, "recipe": "best"})
    assert "optimizer" not in trained
    assert trained["head_lr"] > trained["learning_rate"]
