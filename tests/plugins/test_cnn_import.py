"""Foreign weights become a model folder that predict and evaluate take."""

import numpy as np
import pytest
import torch
from dltool_cnn.model import Spec, build
from PIL import Image

from dltool import checkpoint

SPEC = Spec("resnet20", 3, 8, 8, 2)
FLAGS = ("--mean", "0.5,0.4,0.3", "--std", "0.2,0.2,0.25", "--image-size", "8")


@pytest.fixture
def foreign(work):
    """Write weights as the public CIFAR ones are: legacy pickle, `module.` before every name."""
    torch.manual_seed(5)
    model = build(SPEC, (0.5, 0.4, 0.3), (0.2, 0.2, 0.25)).eval()
    with torch.no_grad():
        model.network.bn1.running_mean.uniform_()
    state = {
        f"module.{name}": value
        for name, value in model.network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    content = {"state_dict": state, "best_prec1": 91.78}
    torch.save(content, work / "weights.th", _use_new_zipfile_serialization=False)
    return model


def test_imported_weights_predict_as_they_did(dltool, work, foreign):
    done = dltool(
        *("cnn", "import", "weights.th", "--classes", "cat,dog", *FLAGS, "--out", "m", "--json")
    ).json()["data"]
    assert done["stripped"] == ["module."]
    assert done["key"] == "state_dict"
    tensors, description = checkpoint.load_model(work / "m")
    assert description["classes"] == ["cat", "dog"]
    assert torch.equal(tensors["network.conv1.weight"], foreign.network.conv1.weight)
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (work / "data" / "test" / name).mkdir(parents=True)
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(work / "data" / "test" / name / "a.png")
    found = dltool("cnn", "predict", "m", "data/test/cat/a.png", "--json").json()["data"]
    image = torch.from_numpy(np.array(Image.open(work / "data" / "test" / "cat" / "a.png")))
    with torch.no_grad():
        expected = foreign(image.permute(2, 0, 1)[None]).softmax(1)[0]
    best = int(expected.argmax())
    assert found["predictions"][0]["label"] == ("cat", "dog")[best]
    assert found["predictions"][0]["probability"] == pytest.approx(float(expected[best]), abs=1e-5)
    done = dltool("cnn", "evaluate", "m", "--data", "data", "--json").json()["data"]
    assert done["accuracy"]["n"] == 2


def test_weights_that_do_not_fit_are_refused_with_the_differences(dltool, work, foreign):
    base = ("cnn", "import", "weights.th", "--out", "m")
    done = dltool(*base, "--classes", "cat,dog,cow", *FLAGS, code=5)
    assert "linear.weight (2, 64) for (3, 64)" in done.err
    done = dltool(*base, "--classes", "cat,dog", *FLAGS, "--model", "resnet18", code=5)
    assert "missing" in done.err
    assert not (work / "m").exists()
    for wrong in (
        ("--classes", "cat", *FLAGS),
        ("--classes", "cat,cat", *FLAGS),
        ("--classes", "cat,dog", *FLAGS, "--std", "1,2"),
        ("--classes", "cat,dog", *FLAGS, "--mean", "0.5"),
        ("--classes", "cat,dog", *FLAGS, "--std", "1,0,1"),
    ):
        dltool(*base, *wrong, code=2)


@pytest.mark.slow
def test_the_public_resnet20_classifies_cifar(dltool, work):
    import os
    from pathlib import Path

    data = Path(os.environ["DLTOOL_SHARED_DATA"])
    classes = "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck"
    flags = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225", "--image-size", "32")
    weights = data / "weights" / "resnet20-cifar10.th"
    dltool("cnn", "import", weights, "--classes", classes, *flags, "--out", "m")
    # the images are lossy JPEG, on which an independent script measures 0.8103 as well
    done = dltool("cnn", "evaluate", "m", "--data", data / "cifar10-jpeg.zip", "--json")
    assert done.json()["data"]["accuracy"]["value"] == pytest.approx(0.8103, abs=0.001)
