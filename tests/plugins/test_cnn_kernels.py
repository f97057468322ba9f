"""`dltool cnn conv`, `learn-kernel` and `edges`: known values, another library, wrong input."""

import json

import numpy as np
import pytest
import torch
from dltool_cnn import kernels
from PIL import Image
from scipy import ndimage, signal

from dltool import cli


@pytest.fixture
def run(here, capsys):
    """Run `dltool cnn` in this process; return (stdout, stderr)."""

    def call(*words, code=0):
        capsys.readouterr()
        got = cli.run(["cnn", *map(str, words)])
        shown = capsys.readouterr()
        assert got == code, shown
        return shown

    return call


def data_of(shown):
    return json.loads(shown.out)["data"]


FIVE = "1 2 3 4 5; 6 7 8 9 10; 11 12 13 14 15; 16 17 18 19 20; 21 22 23 24 25"


def test_convolutions_give_the_known_values(run):
    assert data_of(run("conv", "--json"))["output"] == [[19, 25], [37, 43]]
    edge = "; ".join(["1 1 0 0 0 0 1 1"] * 6)
    found = data_of(run("conv", "--matrix", edge, "--kernel", "-1 1", "--json"))
    assert found["output"] == [[0, -1, 0, 0, 0, 1, 0]] * 6
    turned = "; ".join(["1 1 1 1 1 1", "1 1 1 1 1 1", *["0 0 0 0 0 0"] * 4, *["1 1 1 1 1 1"] * 2])
    found = data_of(run("conv", "--matrix", turned, "--kernel", "-1 1", "--json"))
    assert found["shape"] == [8, 5]
    assert not np.any(found["output"])
    text = run("conv", "--matrix", FIVE, "--kernel", "1 0; 0 1", "--stride", "2").out
    assert text.split("\n")[:2] == [" 8  12", "28  32"]


@pytest.mark.parametrize(("padding", "stride"), [(0, 1), (1, 1), (2, 3)])
def test_loops_and_unfold_agree_with_scipy(padding, stride):
    stream = np.random.default_rng(3)
    image, kernel = stream.normal(size=(7, 9)), stream.normal(size=(3, 2))
    expected = signal.correlate2d(np.pad(image, padding), kernel, "valid")[::stride, ::stride]
    padded = torch.nn.functional.pad(torch.tensor(image), (padding,) * 4)
    for way in (kernels.by_loops, kernels.by_unfold):
        np.testing.assert_allclose(way(padded, torch.tensor(kernel), stride), expected)


def test_a_kernel_is_learnt_from_edges(run):
    found = data_of(run("learn-kernel", "--iters", "40", "--json"))
    assert found["kernel"] == pytest.approx([-1, 1], abs=0.01)
    assert len(found["losses"]) == 40
    assert all(
        later < sooner for sooner, later in zip(found["losses"], found["losses"][1:], strict=False)
    )
    ten = data_of(run("learn-kernel", "--json"))
    assert ten["losses"] == found["losses"][:10]
    assert "lower --lr" in run("learn-kernel", "--lr", "9", "--iters", "99", code=2).err


def test_edges_are_those_of_scipy(run, here):
    stream = np.random.default_rng(0)
    pixels = stream.integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(pixels).save(here / "a.png")
    values = pixels / 255
    expected = np.hypot(
        ndimage.sobel(values, 0, mode="nearest"), ndimage.sobel(values, 1, mode="nearest")
    )
    found = kernels.filtered(torch.tensor(values, dtype=torch.float32), "sobel")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    shown = data_of(run("edges", "a.png", "--json"))
    assert shown["range"][1] == pytest.approx(expected.max(), abs=1e-5)
    assert (here / "a.sobel.png").exists()
    for name in kernels.KERNELS:
        run("edges", "a.png", "--kernel", name, "--out", "b.png")
        assert kernels.filtered(found, name).shape == found.shape


def test_wrong_input_is_refused(run, here):
    for words in (
        ("--matrix", "1 2; 3"),
        ("--matrix", ""),
        ("--matrix", "a b"),
        ("--kernel", "nan"),
        ("--matrix", "1 2", "--kernel", "1; 2"),
        ("--stride", "0"),
    ):
        run("conv", *words, code=2)
    run("edges", "nowhere.png", code=5)
    (here / "x.png").write_text("no picture")
    run("edges", "x.png", code=5)
    run("edges", "x.png", "--kernel", "magic", code=2)
    run("edges", "x.png", "--out", "y.jpg", code=2)
