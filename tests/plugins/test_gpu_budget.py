"""`dltool gpu budget`: the predicted bytes against closed forms, real runs and torch's tracker."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from dltool_gpu import budget, budget_report, cli, models, recompute
from dltool_gpu.budget import Plan
from dltool_gpu.models import Input, Source
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from dltool.errors import CheckpointError, ConfigError, DataError

MLP_PARAMETERS = 814_090


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 10))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


def convnet() -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *(Block(8) for _ in range(6)), *head)


MLP = Source("mlp", mlp, (Input((784,)),))
CONV = Source("convnet", convnet, (Input((3, 16, 16)),))


@pytest.mark.parametrize(("optimizer", "kept"), [("sgd", 0), ("momentum", 1), ("adamw", 2)])
def test_the_bytes_of_an_mlp_are_those_of_the_closed_form(optimizer: str, kept: int) -> None:
    batch = 64
    found = budget.predict(MLP, Plan(batch, optimizer=optimizer))
    assert found.parameters == MLP_PARAMETERS
    assert found.weights == found.gradients == 4 * MLP_PARAMETERS
    # AdamW also counts the steps of each of the four parameters
    assert found.optimizer - kept * 4 * MLP_PARAMETERS in range(64)
    assert found.inputs == batch * 784 * 4
    # the ReLU's result, the log-probabilities, the classes; and scalars of the loss
    assert found.activations - batch * (1024 * 4 + 10 * 4 + 8) in range(64)
    fixed = found.weights + found.optimizer + found.inputs
    assert fixed + found.activations <= found.peak
    assert found.peak <= fixed + found.activations + 2 * found.gradients + batch * 1024 * 4


def really_saved(source: Source, batch: int) -> int:
    """Bytes that autograd saves in a real run, without weights and inputs."""
    assert source.build is not None
    model, inputs = source.build().train(), source.inputs[0].batch(batch)
    known = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), inputs]}
    known |= {tensor.untyped_storage().data_ptr() for tensor in model.buffers()}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = budget.loss_of(model(inputs))
    assert loss.isfinite()
    return sum(saved.values())


@pytest.mark.parametrize("source", [MLP, CONV], ids=["mlp", "convnet"])
def test_activations_are_what_autograd_really_saves(source: Source) -> None:
    found = budget.predict(source, Plan(8)).activations
    saved = really_saved(source, 8)
    assert saved <= found <= saved + 256


def test_the_peak_is_that_of_torchs_own_tracker() -> None:
    tracker = pytest.importorskip("torch.distributed._tools.mem_tracker").MemTracker()
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model, images = convnet(), torch.randn(16, 3, 16, 16)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        tracker.track_external(model, optimizer, images)
        with tracker:
            for _ in range(2):
                budget.loss_of(model(images)).backward()
                optimizer.step()
                optimizer.zero_grad()
                tracker.reset_mod_stats()
            peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    found = budget.predict(CONV, Plan(16))
    assert found.peak == pytest.approx(peak, rel=0.02)


def test_the_peak_grows_in_a_line_and_the_largest_batch_fits() -> None:
    peaks = [budget.predict(CONV, Plan(size)).peak for size in (16, 32, 64)]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.01)
    slope = (peaks[1] - peaks[0]) / 16
    fixed = peaks[0] - 16 * slope

    def peak_of(size: int) -> int:
        return budget.predict(CONV, Plan(size)).peak

    largest = budget.largest_batch(peaks[1], fixed, slope, peak_of)
    assert largest == 32
    assert budget.largest_batch(int(fixed) - 1, fixed, slope, peak_of) == 0


def test_what_saves_memory_saves_it_and_leaves_the_gradients_alone() -> None:
    whole, parts = (budget.predict(CONV, Plan(32, checkpointing=is_on)) for is_on in (False, True))
    assert parts.activations < 0.5 * whole.activations
    assert parts.peak < whole.peak
    short = budget.predict(CONV, Plan(32, "bf16"))
    assert 0.4 * whole.activations < short.activations < 0.8 * whole.activations
    assert budget.predict_use(CONV, Plan(32)) < 0.5 * whole.peak
    torch.manual_seed(0)
    one, other = convnet(), convnet()
    other.load_state_dict(one.state_dict())
    assert recompute.checkpoint_blocks(other) == 6
    images = torch.randn(4, 3, 16, 16)
    for model in (one, other):
        budget.loss_of(model(images)).backward()
    for left, right in zip(one.parameters(), other.parameters(), strict=True):
        assert left.grad is not None
        assert right.grad is not None
        assert torch.equal(left.grad, right.grad)


def test_a_row_of_plain_layers_is_recomputed_in_pieces() -> None:
    row = nn.Sequential(*(nn.Sequential(nn.Linear(32, 32), nn.Tanh())[i % 2] for i in range(16)))
    torch.manual_seed(1)
    values = torch.randn(2, 32)
    expected = row(values)
    assert recompute.checkpoint_blocks(row) == 1
    assert torch.equal(row(values), expected)


def test_several_inputs_outputs_and_tokens() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(50, 8), nn.Linear(8, 50)

        def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Any]:
            hidden = self.embed(tokens) * scale[:, None]
            return {"logits": self.out(hidden), "hidden": hidden.mean((1, 2)), "none": None}

    pair = Source("pair", Pair, (Input((7,), is_integer=True), Input((8,))))
    found = budget.predict(pair, Plan(4))
    assert found.inputs == 4 * 7 * 8 + 4 * 8 * 4
    assert found.parameters == 50 * 8 + 8 * 50 + 50


# Finding the model


def test_a_model_of_torchvision_is_predicted_without_its_memory() -> None:
    found = budget.predict(budget.blueprint(models.find("resnet18", [])), Plan(2))
    assert found.parameters == 11_689_512
    assert found.inputs == 2 * 3 * 224 * 224 * 4
    assert models.find("inception_v3", []).inputs == (Input((3, 299, 299)),)
    assert models.find("r3d_18", []).inputs == (Input((3, 16, 112, 112)),)


def test_models_that_look_at_values_while_they_are_built_are_built_rightly() -> None:
    # the widths of a RegNet are computed with tensors; a vision transformer draws until all fit
    for name, parameters in (("regnet_y_400mf", 4_344_144), ("vit_b_32", 88_224_232)):
        structure = budget.blueprint(models.find(name, []))
        assert structure.build is not None
        built = structure.build()
        assert sum(parameter.numel() for parameter in built.parameters()) == parameters
        assert all(tensor.is_meta for tensor in built.parameters())


def test_shared_weights_count_once_and_loose_tensors_are_no_obstacle() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
            self.out.weight = self.embed.weight
            self.loose = torch.arange(8.0)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.out(self.embed(tokens) + self.loose)

    found = budget.predict(
        budget.blueprint(Source("tied", Tied, (Input((7,), is_integer=True),))), Plan(4)
    )
    assert found.parameters == 400
    assert found.weights == found.gradients == 1600


@pytest.mark.parametrize("name", ["vgg11", "alexnet"])
def test_pieces_never_begin_with_a_layer_that_works_in_place(name: str) -> None:
    source = budget.blueprint(models.find(name, ["3x64x64"]))
    whole, parts = (budget.predict(source, Plan(8, "fp32", "sgd", on)) for on in (False, True))
    assert parts.activations < whole.activations


STRANGE = """
from torch import nn

def small():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 4))

def broken():
    raise OSError("no disk")

def text():
    return "a net"

class Choosy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else -x
"""


@pytest.fixture
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stranger's module in the working folder."""
    (here / "strange_nets.py").write_text(STRANGE, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield here
    sys.modules.pop("strange_nets", None)


def asked(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["budget", *words, "--device", "cpu"])


def test_a_function_of_the_users_own_module(module: Path) -> None:
    words = ["strange_nets:small", "--input", "3x2x2", "--batch", "8", "--device-memory", "1GiB"]
    data = json.loads(asked(*words, "--json").stdout)["data"]
    assert data["predicted"]["parameters"] == 12 * 4 + 4
    assert data["largest_batch"] > 8
    assert data["measured"] is None
    text = asked(*words).stdout
    assert "52 numbers" in text
    assert "largest batch by card: 8 GiB: " in text


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["resnet5"], "E206", "did you mean resnet50?"),
        (["quite unknown"], "E206", "there is no model"),
        (["maskrcnn_resnet50_fpn"], "E206", "its training step depends on boxes"),
        (["resnet18", "--input", "3x"], "E202", "--input is no shape"),
        (["resnet18", "--input", "7:int"], "E202", "cannot be trained on an input of 7"),
        (["resnet18", "--precision", "fp8"], "E206", "--precision"),
        (["resnet18", "--device-memory", "500MiB"], "E202", "leaves nothing"),
        (["strange_nets:small"], "E201", "add --input"),
        (["strange_nets:gone", "--input", "3"], "E206", "has no gone"),
        (["no_such_module:net", "--input", "3"], "E206", "cannot be imported"),
        (["strange_nets:broken", "--input", "3"], "E202", "OSError: no disk"),
        (["strange_nets:text", "--input", "3"], "E202", "returned str"),
        (["strange_nets:Choosy", "--input", "3"], "E202", "without looking at values"),
    ],
)
def test_wrong_input_is_named_with_its_cure(
    module: Path, words: list[str], code: str, told: str
) -> None:
    error = asked(*words).exception
    assert isinstance(error, ConfigError)
    assert error.code == code
    assert told in error.one_line()


def test_stored_weights_give_what_is_known_of_them(here: Path) -> None:
    save_file(
        {"a": torch.zeros(10, 10), "b": torch.zeros(50, dtype=torch.bfloat16)}, "w.safetensors"
    )
    data = json.loads(asked("w.safetensors", "--json").stdout)["data"]
    assert data["formats"] == {"BF16": 50, "F32": 100}
    assert data["predicted"]["weights"] == data["predicted"]["gradients"] == 600
    assert data["predicted"]["optimizer"] == 1200
    assert data["predicted"]["activations"] is None
    assert data["use"] == round(1.2 * 500)
    assert "activations are not known" in asked("w.safetensors").stdout
    for words in (["--input", "3"], ["--batch", "8"], ["--device-memory", "8GiB"]):
        assert isinstance(asked("w.safetensors", *words).exception, ConfigError)
    (here / "model.bin").write_bytes(b"PK")
    assert isinstance(asked("model.bin").exception, DataError)
    (here / "w.safetensors").write_bytes(b"cut")
    assert isinstance(asked("w.safetensors").exception, CheckpointError)
    (here / "empty").mkdir()
    assert isinstance(asked("empty").exception, CheckpointError)


def test_a_gpu_too_small_and_one_that_was_measured_are_told() -> None:
    answer = json.loads(asked("resnet18", "--batch", "2", "--input", "3x32x32", "--json").stdout)
    data = answer["data"]
    assert "keeps no count" in budget_report.report(data)
    data["measured"] = {"fits": False, "peak": None}
    assert "does not fit into this GPU" in budget_report.report(data)
    data["measured"] = {"fits": True, "peak": data["predicted"]["peak"] * 2}
    assert "(predicted 50% of it)" in budget_report.report(data)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_prediction_is_near_the_peak_of_a_gpu(precision: str) -> None:
    source, plan = models.find("resnet50", []), Plan(32, precision)
    measured = budget.measure(source, plan, torch.device("cuda"))
    predicted = budget.predict(budget.blueprint(source), plan)
    assert predicted.peak == pytest.approx(measured["peak"], rel=0.25)
