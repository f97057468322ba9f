"""`dltool tensor-ops`: known values, planted faults, shapes against torch, memory, the commands."""

import json
import math
import random
import re
import sys

import pytest
import torch
from dltool_tensor_ops import basics, catalog, cost, formats, gradcheck, gradients, layers, shapes
from dltool_tensor_ops.demo import Setup, difference, plain, readable
from dltool_tensor_ops.golden import AtLeast, AtMost, Containing, Near, compare, holds
from dltool_tensor_ops.known import KNOWN
from dltool_tensor_ops.memory import peak_bytes
from torch.nn import functional as F

from dltool.errors import CheckFailed, ConfigError

CPU = torch.device("cpu")
NAMES = [demo.name for demo in catalog.DEMOS]

# (demo, key, value, tolerance): the figures of the source documents, apart from the demos' own list
GOLDEN = [
    ("create", "mean", 7, 0),
    ("create", "median", 7, 0),
    ("create", "std", 4.4721, 5e-5),
    ("create", "var", 20, 1e-5),
    ("create", "min", 0, 0),
    ("create", "max", 14, 0),
    ("shape", "transpose_01", [3, 2, 4], 0),
    ("shape", "transpose_02", [4, 3, 2], 0),
    ("shape", "transpose_12", [2, 4, 3], 0),
    ("shape", "squeeze_kept", [2, 3, 4], 0),
    ("join", "split", [3, 3, 3, 1], 0),
    ("join", "chunk", [4, 4, 2], 0),
    ("join", "stack", [2, 2, 2], 0),
    ("join", "halves", [[1, 3, 3, 6], [1, 3, 3, 6]], 0),
    ("broadcast", "six", [10, 2, 1, 9, 9, 9], 0),
    ("broadcast", "column_row", [3, 3], 0),
    ("products", "dot", 5, 0),
    ("products", "bmm", [3, 3, 3], 0),
    ("onehot", "identity", torch.eye(5).int().tolist(), 0),
    ("vector", "dot", 14, 0),
    ("vector", "dot_grad", [0, 2, 4, 6], 0),
    ("vector", "twice_dot", 28, 0),
    ("vector", "twice_dot_grad", [0, 4, 8, 12], 0),
    ("vector", "sum_grad", [1, 1, 1, 1], 0),
    ("vector", "cubes", 3, 0),
    ("vector", "cubes_grad", [3, 3, 3], 0),
    ("scalar", "first", 4, 0),
    ("scalar", "second", 8, 0),
    ("scalar", "unzeroed", [1, 3, 5, 7], 0),
    ("scalar", "twice", [1, 5, 9, 13], 0),
    ("higher-order", "order_1", 12, 0),
    ("higher-order", "order_2", 12, 0),
    ("higher-order", "order_3", 6, 0),
    ("scalar-sgd", "w", 1.9999996423721313, 1e-9),
    ("scalar-sgd", "forward", 7.999998569488525, 1e-9),
    ("scalar-sgd", "w_above", 2.0000007152557373, 1e-9),
    ("scalar-sgd", "first_loss", 7.315943717956543, 1e-6),
    ("scalar-sgd", "first_w", 1.260688, 1e-6),
    ("scalar-sgd", "rate_limit", 0.204, 5e-4),
    ("losses", "right", [0.6657, 0.5735, 0.2507, 0.5536], 5e-5),
    ("losses", "right_mean", 0.5109, 5e-5),
    ("losses", "wrong", [1.2679, 1.2398, 1.2089, 1.4284], 6e-5),
    ("losses", "wrong_mean", 1.2863, 5e-5),
    ("losses", "nll", 1.2040, 5e-5),
    ("python", "partial", [3, 4, 6], 0),
    ("python", "shallow", [1, 2, 3, 100], 0),
    ("python", "deep", [1, 2, 3], 0),
    ("python", "linspace", [0, 2.5, 5, 7.5, 10], 0),
    ("python", "arange", [0, 2, 4, 6, 8], 0),
    ("python", "concat", [[1, 2, 5], [3, 4, 6]], 0),
    ("masks", "kept", [[1, 0, 0], [4, 5, 0]], 0),
    ("masks", "filled", [[1, 2, 3, -1, -1], [4, 5, 6, 7, 8], [9, 10, -1, -1, -1]], 0),
    ("masked-softmax", "two", [0.5] * 2 + [0] * 8, 1e-6),
    ("masked-softmax", "six", [0.1667] * 6 + [0] * 4, 5e-5),
    ("positions", "slow", [0.0199987, 0.0299955], 5e-8),
    ("positions", "norm", [4, 4], 1e-5),
    ("norms", "layer_small", [[-1, 1], [-1, 1]], 1e-4),
    ("norms", "batch_small", [[-1, -1], [1, 1]], 1e-4),
    ("norms", "row", [-1.4142, -0.7071, 0, 0.7071, 1.4142], 5e-5),
    ("norms", "whole", [-1.5667, 1.5667], 5e-5),
    ("conv-sizes", "k3p1", [8, 8], 0),
    ("conv-sizes", "k53p21", [8, 8], 0),
    ("conv-sizes", "k3p1s2", [4, 4], 0),
    ("conv-sizes", "k35p01s34", [2, 2], 0),
    ("conv-sizes", "layers", 55, 0),
    ("conv-sizes", "strided", [[211, 262], [251, 169]], 0),
    ("conv-sizes", "pooled", [[4, 8], [9, 8]], 0),
    ("conv-sizes", "dense", 3 * 10**9, 0),
    ("formats", "fp32", 0.3333333432674408, 0),
    ("formats", "fp16", 0.333251953125, 0),
    ("formats", "bf16", 0.333984375, 0),
    ("formats", "fp64", 0.333333333333333314829616, 0),
    ("dtypes", "int8", [-128, 127], 0),
    ("dtypes", "uint8", [0, 255], 0),
    ("downcast", "bytes", [120, 60], 0),
    ("downcast", "parameters", 30, 0),
]


@pytest.fixture(scope="module")
def results():
    """Every demo, run once."""
    return {demo.name: demo.load()(Setup.of(demo.name, CPU, 0)) for demo in catalog.DEMOS}


# Known values


@pytest.mark.parametrize(
    ("demo", "key", "value", "tolerance"), GOLDEN, ids=[f"{row[0]}.{row[1]}" for row in GOLDEN]
)
def test_demo_gives_the_figure_of_the_source(results, demo, key, value, tolerance):
    received = torch.tensor(results[demo].values[key], dtype=torch.float64)
    expected = torch.tensor(value, dtype=torch.float64)
    assert received.shape == expected.shape
    assert (received - expected).abs().max() <= tolerance


def test_texts_of_the_source(results):
    dtypes = results["dtypes"].values
    kinds = [dtypes[name] for name in ("float", "double", "int", "long")]
    assert kinds == ["float32", "float64", "int32", "int64"]
    refused = results["broadcast"].values["refused"]
    assert "size of tensor a (2) must match the size of tensor b (3)" in refused
    assert refused.endswith("dimension 1")


@pytest.mark.parametrize("demo", catalog.DEMOS, ids=lambda demo: demo.name)
def test_every_known_value_of_a_demo_holds_and_can_fail(results, demo):
    shown = results[demo.name]
    assert len(demo.golden) >= 2
    assert [one for one in compare(demo.golden, shown.values) if not one.holds] == []
    for key, expected in demo.golden.items():
        spoilt = {**shown.values, key: spoil(expected, shown.values[key])}
        assert [one.key for one in compare(demo.golden, spoilt) if not one.holds] == [key]
        missing = {name: value for name, value in shown.values.items() if name != key}
        assert [one.received for one in compare(demo.golden, missing) if not one.holds]
    assert shown.title
    assert shown.lines
    json.dumps(shown.values, allow_nan=False)


def spoil(expected, value):
    """Return a value that differs from a good one just enough to be wrong."""
    if isinstance(value, list):
        return [spoil(None, value[0]), *value[1:]]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return "another text"
    if isinstance(expected, Near):
        return value + 2.1 * expected.tolerance + 1e-9
    if isinstance(expected, AtLeast):
        return expected.limit / 2
    if isinstance(expected, AtMost):
        return 2 * expected.limit + 1e-9
    return value + (1 if isinstance(value, int) else 1e-2 * max(1.0, abs(value)))


def test_catalog_and_known_values_name_the_same_demos():
    assert list(KNOWN) == NAMES
    assert len(set(NAMES)) == len(NAMES) == 39
    assert len({demo.reference for demo in catalog.DEMOS}) == 39


@pytest.mark.parametrize(
    ("expected", "good", "bad"),
    [
        (7.0, 7.0000001, 7.00001),
        (1e6, 1e6 + 0.5, 1e6 + 2),
        (7.0, 7, "7.0"),
        (7.0, 7.0, math.nan),
        (True, True, 1),
        (1, 1, True),
        (1, 1, 1.0),
        ([1, 2], [1, 2], [1, 2, 3]),
        ([[1.0], [2.0]], [[1.0], [2.0]], [[1.0], [2.1]]),
        (Near([1.0, 2.0], 0.1), [1.05, 2.05], [1.05, 2.2]),
        (AtMost(3), 3, 3.001),
        (AtMost(3), -1, math.nan),
        (AtLeast(3), 3, 2.999),
        (AtLeast(0), 4, True),
        (AtMost(3), 1, True),
        (Containing("size"), "a size of", "another"),
    ],
)
def test_comparison_knows_right_from_wrong(expected, good, bad):
    assert holds(expected, good)
    assert not holds(expected, bad)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("module", ["basics", "products", "gradcheck", "layers", "formats"])
def test_known_values_hold_for_other_seeds(module, seed):
    for demo in catalog.DEMOS:
        if demo.reference.startswith(f"{module}:"):
            shown = demo.load()(Setup.of(demo.name, CPU, seed))
            assert all(one.holds for one in compare(demo.golden, shown.values)), demo.name


# Planted faults


def faults():
    def attention(q, k, v, size):
        return F.scaled_dot_product_attention(q, k, v[:, :size].repeat(1, 8, 1))

    def uncausal(size, device):
        return torch.ones(size, size, dtype=torch.bool, device=device)

    def soft(scores, mask):
        return scores.masked_fill(~mask, 1e-6).softmax(-1)

    def no_recompute(function, *arguments, use_reentrant, preserve_rng_state):
        return function(*arguments)

    def unbiased(x, axes):
        return (x - x.mean(axes, keepdim=True)) / x.std(axes, keepdim=True)

    def raises(*_):
        raise RuntimeError("planted")

    return [
        (layers, "causal_mask", uncausal, "masks.causal"),
        (layers, "padding_mask", lambda lengths, size: torch.ones(2, size).bool(), "masks.kept"),
        (layers, "masked_softmax", soft, "masked-softmax.two"),
        (layers, "sinusoids", lambda steps, dim: torch.zeros(steps, dim), "positions.slow"),
        (layers, "_standardised", unbiased, "norms.batch"),
        (layers, "CE_TARGET", (0, 0, 1, 0), "losses.right"),
        (gradcheck, "_slope", lambda after: after * (1 + after), "gradcheck-sigmoid.input"),
        (gradcheck, "numeric", lambda function, x, eps=1: x * 0, "gradcheck-conv.kernel_numeric"),
        (gradients, "_doubled", lambda a: a * 2, "control-flow.positive"),
        (gradients, "_largest_rate", lambda: 0.25, "scalar-sgd.rate_limit"),
        (gradients, "_forward", lambda x, direction, depth: x.sum(), "modes.difference"),
        (formats.Format, "decoded", lambda self, value: value, "formats.decoded"),
        (formats, "_count", lambda dtype, steps: 3000.0, "downcast.count_bf16"),
        (cost, "_chunked_attention", attention, "attention-chunks.difference"),
        (cost, "recompute", no_recompute, "checkpoint.memory_ratio"),
        (basics, "create", raises, "create.it runs"),
    ]


FAULT_IDS = [found for *_, found in faults()]


@pytest.mark.parametrize(("place", "name", "fault", "found"), faults(), ids=FAULT_IDS)
def test_check_finds_a_planted_fault(monkeypatch, capsys, place, name, fault, found):
    from dltool import cli

    demo = found.split(".")[0]
    assert cli.run(["tensor-ops", "check", demo, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith(f"ok    {demo}")
    monkeypatch.setattr(place, name, fault)
    assert cli.run(["tensor-ops", "check", demo, "--device", "cpu"]) == 6
    shown = capsys.readouterr()
    assert shown.out.startswith(f"FAIL  {demo}")
    assert "E601" in shown.err
    assert found in shown.err


def test_a_failed_check_is_one_json_object(monkeypatch, capsys):
    from dltool import cli

    monkeypatch.setattr(gradients, "_largest_rate", lambda: 0.25)
    assert cli.run(["tensor-ops", "check", "scalar-sgd", "scalar", "--json"]) == 6
    (line,) = capsys.readouterr().out.splitlines()
    error = json.loads(line)["error"]
    assert "1 of 2 demos failed: scalar-sgd" in error["message"]
    assert error["received"] == "0.25"


# Broadcasting and layer sizes, against torch


def test_broadcast_agrees_with_torch_on_random_shapes():
    draw = random.Random(0)
    failed = 0
    for _ in range(1500):
        tried = [
            tuple(draw.choice((0, 1, 1, 2, 3)) for _ in range(draw.randint(0, 4)))
            for _ in range(draw.choice((2, 2, 3)))
        ]
        found = shapes.broadcast(tried)
        try:
            expected = tuple(torch.broadcast_shapes(*tried))
        except RuntimeError:
            expected = None
        assert found.result == expected, tried
        if expected is None and len(tried) == 2:
            failed += 1
            first, second = (torch.empty(shape) for shape in tried)
            with pytest.raises(RuntimeError, match=f"dimension {found.axis}$"):
                first + second
    assert failed > 100


def test_broadcast_draws_the_alignment_or_the_failing_axis():
    assert shapes.broadcast([(3, 1, 5), (4, 5)]).lines() == [
        "(3, 1, 5)  3  1  5",
        "(4, 5)        4  5",
        "result     3  4  5",
        "result (3, 4, 5)",
    ]
    lines = shapes.broadcast([(2, 2), (3,)]).lines()
    assert lines[2] == "fails at     ^"
    assert lines[2].index("^") == lines[1].rindex("3")
    assert "axis 1" in lines[3]
    assert "2 of (2, 2) against 3 of (3,)" in lines[3]


def test_column_with_row_is_warned_of():
    assert "8x8 pairs" in shapes.broadcast([(8, 1), (8,)]).warning
    assert not shapes.broadcast([(8, 1), (1, 8)]).warning
    assert not shapes.broadcast([(8, 1), (3,)]).warning
    assert not shapes.broadcast([(8, 8), (8,)]).warning
    assert not shapes.broadcast([(1, 1), (1,)]).warning


def layer(size, kernel, stride=(1,), padding=(0,), dilation=(1,), same=False, pool=False, layers=1):
    return shapes.Layer(size, kernel, stride, padding, dilation, same, pool, layers)


def test_sizes_agree_with_torch_on_random_layers():
    draw = random.Random(1)
    refused = 0
    for _ in range(600):
        dims = draw.choice((1, 2, 3))
        size, kernel, stride, padding, dilation = (
            tuple(draw.randint(low, high) for _ in range(dims))
            for low, high in ((1, 12), (1, 5), (1, 4), (0, 3), (1, 3))
        )
        convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
        image, weight = torch.zeros(1, 1, *size), torch.zeros(1, 1, *kernel)
        settings = {"stride": stride, "padding": padding, "dilation": dilation}
        try:
            expected = tuple(convolve(image, weight, **settings).shape[2:])
        except RuntimeError:
            refused += 1
            with pytest.raises(ConfigError):
                layer(size, kernel, **settings).run()
            continue
        (rows,) = layer(size, kernel, **settings).run()
        assert tuple(row.out for row in rows) == expected
    assert refused > 20


def test_pooling_agrees_with_torch_and_steps_by_its_kernel():
    for size, kernel, padding in ((28, 2, 0), (28, 3, 1), (7, 3, 0), (10, 4, 2)):
        expected = F.max_pool2d(torch.zeros(1, 1, size, size), kernel, padding=padding).shape[-1]
        made = layer((size, size), (kernel,), (kernel,), (padding,), pool=True)
        assert made.run()[0][0].out == expected
    with pytest.raises(ConfigError):
        layer((8,), (2,), (2,), (2,), pool=True)


def test_same_padding_keeps_size_by_stride():
    for size in range(1, 13):
        for kernel in range(1, 6):
            for stride in range(1, 4):
                (row,) = layer((size,), (kernel,), (stride,), same=True).run()[0]
                assert row.out == math.ceil(size / stride)
                assert row.padding[1] - row.padding[0] in (0, 1)
    image, weight = torch.rand(1, 1, 9), torch.rand(1, 1, 5)
    (row,) = layer((9,), (5,), same=True).run()[0]
    expected = F.conv1d(image, weight, padding="same")
    torch.testing.assert_close(F.conv1d(F.pad(image, row.padding), weight), expected)


def test_numbers_that_no_window_sees_are_counted():
    for size, kernel, stride, padding in ((8, 3, 3, 0), (8, 3, 2, 1), (9, 2, 4, 0), (7, 2, 3, 1)):
        (row,) = layer((size,), (kernel,), (stride,), (padding,)).run()[0]
        image = torch.ones(1, 1, size, requires_grad=True)
        weight = torch.ones(1, 1, kernel)
        output = F.conv1d(image, weight, stride=stride, padding=padding)
        (gradient,) = torch.autograd.grad(output.sum(), image)
        tail = gradient[0, 0].flip(0).cumsum(0) == 0
        assert row.unseen == int(tail.sum()), (size, kernel, stride, padding)


# The parts that demos are made of


def test_peak_memory_counts_what_is_alive_at_once():
    mib, kept = 2**20, torch.zeros(512, 512)

    def two_of_three():
        a = torch.zeros(512, 512)
        b = a + 1
        del a
        return b + 1

    assert peak_bytes(two_of_three, CPU) == 2 * mib
    assert peak_bytes(lambda: torch.zeros(512, 512), CPU) == mib
    assert peak_bytes(lambda: kept.T.contiguous().T, CPU) == mib
    assert peak_bytes(lambda: kept.view(-1), CPU) == 0
    assert peak_bytes(lambda: kept.add_(1), CPU) == 0


def test_peak_memory_sees_what_backward_keeps():
    x = torch.zeros(512, 512, requires_grad=True)

    def chain(depth):
        y = x
        for _ in range(depth):
            y = y.sin()
        return torch.autograd.grad(y.sum(), x)

    growth = peak_bytes(lambda: chain(9), CPU) - peak_bytes(lambda: chain(4), CPU)
    assert growth == 5 * 2**20


@pytest.mark.parametrize("size", [1, 3, 7, 64])
@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (5, 9), (1, 4)])
def test_chunked_attention_equals_torchs(size, queries, keys):
    stream = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 8, generator=stream) * 5 for n in (queries, keys, keys))
    expected = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(cost._chunked_attention(q, k, v, size), expected)


def test_numeric_gradient_of_a_known_function():
    x = torch.tensor([[0.3, -1.2], [2.0, 0.7]], dtype=torch.float64)
    before = x.clone()
    torch.testing.assert_close(gradcheck.numeric(lambda: x.sin().sum(), x), x.cos())
    assert torch.equal(x, before)


def test_bits_are_those_of_the_standard():
    import struct

    for value in (1 / 3, -2.5, 1.0, 1e-3):
        (single,) = struct.unpack(">I", struct.pack(">f", value))
        (half,) = struct.unpack(">H", struct.pack(">e", value))
        (double,) = struct.unpack(">Q", struct.pack(">d", value))
        for place, number, width in ((0, double, 64), (1, single, 32), (3, half, 16)):
            assert "".join(formats.FORMATS[place].bits(value)) == f"{number:0{width}b}"
        assert "".join(formats.FORMATS[2].bits(0.5)) == f"{0x3F00:016b}"


def test_numbers_of_a_demo_depend_on_its_name_and_seed_alone():
    first = Setup.of("masks", CPU, 0).normal(4)
    Setup.of("norms", CPU, 0).normal(100)
    torch.rand(3)
    assert torch.equal(first, Setup.of("masks", CPU, 0).normal(4))
    assert not torch.equal(first, Setup.of("masks", CPU, 1).normal(4))
    assert not torch.equal(first, Setup.of("norms", CPU, 0).normal(4))


def test_difference_does_not_broadcast():
    assert difference(torch.ones(3), torch.tensor([1.0, 1.0, 3.0])) == 2
    with pytest.raises(ValueError, match="compare"):
        difference(torch.ones(3, 1), torch.ones(3))


def test_values_become_plain_and_readable():
    assert plain(torch.tensor([1.0, torch.inf, torch.nan])) == [1.0, "inf", "nan"]
    assert plain((torch.Size([2, 3]), torch.float16)) == [[2, 3], "float16"]
    assert readable([[1, 2], [3, 4]]) == "[[1, 2], [3, 4]]"
    assert readable(torch.arange(60).reshape(3, 20).tolist()).count("\n") == 2


# The commands


def test_run_all_completes_with_pictures_and_nothing_else_on_stderr(dltool, work):
    shown = dltool("tensor-ops", "run", "--all", "--plot", "pictures", "--json", "--seed", 3)
    answer = shown.json()
    assert answer["command"] == "tensor-ops run"
    demos = answer["data"]["demos"]
    assert [demo["name"] for demo in demos] == NAMES
    for line in shown.err.splitlines():
        assert re.match(r"demos: \d+/39|wrote \d+ pictures to pictures$", line), line
    drawn = [demo["picture"] for demo in demos if demo["picture"]]
    assert sorted(drawn) == sorted(f"pictures/{path.name}" for path in work.glob("pictures/*"))
    assert len(drawn) == 12
    for path in work.glob("pictures/*"):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG")
        assert 3_000 < len(content) < 150_000


def test_one_demo_says_the_same_alone_and_writes_nothing(dltool, work):
    shown = dltool("tensor-ops", "run", "einsum", "masks", "--device", "cpu")
    assert not shown.err
    assert not list(work.iterdir())
    parts = [
        catalog.choose([name])[0].load()(Setup.of(name, CPU, 0)) for name in ("einsum", "masks")
    ]
    for part in parts:
        assert "\n".join(part.lines) in shown.out
        assert part.title in shown.out


def test_a_demo_without_a_picture_says_so(dltool, work):
    shown = dltool("tensor-ops", "run", "scalar", "--plot", "p")
    assert "nothing to draw" in shown.err
    assert not list(work.iterdir())


def test_list_names_every_demo(dltool):
    data = dltool("tensor-ops", "list", "--json").json()["data"]["demos"]
    assert [demo["name"] for demo in data] == NAMES
    lines = dltool("tensor-ops", "list").out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == NAMES


def test_check_reports_every_value(dltool):
    data = dltool("tensor-ops", "check", "scalar", "join", "--json").json()["data"]
    assert data["failed"] == []
    assert [one["key"] for one in data["demos"]["scalar"]] == list(KNOWN["scalar"])
    assert all(one["holds"] for one in data["demos"]["join"])


def test_show_prints_the_code_with_what_it_calls(dltool):
    shown = dltool("tensor-ops", "show", "masks").out
    for part in ("def masks(", "def causal_mask(", "def padding_mask("):
        assert part in shown
    assert "def losses(" not in shown
    assert "\x1b" not in shown
    compile(shown, "shown", "exec")
    losses = dltool("tensor-ops", "show", "losses", "--json").json()["data"]
    assert "CE_TARGET = (2, 0, 1, 0)" in losses["source"]
    assert "<module" not in losses["source"]
    assert losses["module"] == "dltool_tensor_ops.layers"
    coloured = dltool("tensor-ops", "show", "masks", FORCE_COLOR="1").out
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == shown.split()


def test_show_is_plain_without_pygments(monkeypatch):
    from dltool_tensor_ops.run import _highlighted

    assert "\x1b[" in _highlighted("def f(): ...\n")
    monkeypatch.setitem(sys.modules, "pygments", None)
    assert _highlighted("def f(): ...\n") == "def f(): ..."


def test_broadcast_and_shape_answer_in_json(dltool):
    good = dltool("tensor-ops", "broadcast", "(3, 1)", "1x4", "--json").json()["data"]
    assert (good["compatible"], good["result"]) == (True, [3, 4])
    bad = dltool("tensor-ops", "broadcast", "2x2", "3", "--json").json()["data"]
    assert (bad["compatible"], bad["result"], bad["axis"]) == (False, None, 1)
    words = ["--in", "8x8", "--kernel", "3x5", "--padding", "0x1", "--stride", "3x4"]
    data = dltool("tensor-ops", "shape", *words, "--json").json()["data"]
    assert (data["out"], data["unseen"]) == ([2, 2], [2, 0])
    lines = dltool("tensor-ops", "shape", "--in", "224", "--kernel", "5", "--layers", "55").out
    assert lines.splitlines()[-1] == "224 -> 4"
    pooled = dltool("tensor-ops", "shape", "--in", "28x28", "--kernel", "2", "--pool").out
    assert pooled.splitlines()[-1] == "28x28 -> 14x14"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "braodcast"], "did you mean broadcast"),
        (["show", "mask"], "did you mean masks"),
        (["check", "masks", "nothing-like-it"], "nothing-like-it"),
        (["run"], "--all"),
        (["run", "--all", "masks"], "contradict"),
        (["run", "masks", "--device", "tpu"], "auto, cpu"),
        (["broadcast", "3x1"], "two shapes"),
        (["broadcast", "3x1", "3xx1"], "3xx1"),
        (["broadcast", "3x1", "3.5"], "3.5"),
        (["broadcast", "3x1", "(3"], "(3"),
        (["broadcast", "3x1", ""], "3x1x5"),
        (["broadcast", "3x1", "-1x2"], "-1"),
        (["shape", "--in", "8x8"], "--kernel"),
        (["shape", "--in", "8x0", "--kernel", "3"], "--in"),
        (["shape", "--in", "1x2x3x4", "--kernel", "3"], "--in"),
        (["shape", "--in", "8x8", "--kernel", "9"], "8 or less"),
        (["shape", "--in", "8x8", "--kernel", "3x3x3"], "--kernel"),
        (["shape", "--in", "8x8", "--kernel", "3", "--stride", "0"], "--stride"),
        (["shape", "--in", "8x8", "--kernel", "3", "--same", "--padding", "1"], "contradict"),
        (["shape", "--in", "224", "--kernel", "5", "--layers", "57"], "layer 56"),
        (["shape", "--in", "8x8", "--kernel", "3", "--pool", "--padding", "2"], "--padding"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_exit_code_two(capsys, arguments, words):
    from dltool import cli

    assert cli.run(["tensor-ops", *arguments]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    (line,) = shown.err.splitlines()
    assert line.startswith("error E2")
    assert words in line
    assert "Cure:" in line


def test_check_failed_is_raised_to_programs(monkeypatch):
    from dltool_tensor_ops.run import check_demos

    from dltool.console import Console

    monkeypatch.setattr(gradients, "_largest_rate", lambda: 0.25)
    with pytest.raises(CheckFailed) as failure:
        check_demos(catalog.choose(["scalar-sgd"]), device="cpu", seed=0, console=Console("x"))
    assert failure.value.exit_code == 6
