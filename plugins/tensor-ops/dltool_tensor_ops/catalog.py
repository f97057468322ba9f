"""All demos by name; nothing here needs torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dltool.errors import ConfigError, closest
from dltool_tensor_ops.known import KNOWN

if TYPE_CHECKING:
    from dltool_tensor_ops.demo import Setup, Shown


@dataclass(frozen=True)
class Demo:
    """One demo: its name, `module:function`, and what it shows."""

    name: str
    reference: str
    summary: str

    @property
    def golden(self) -> Mapping[str, Any]:
        """The values that it must give."""
        return KNOWN[self.name]

    def load(self) -> Callable[[Setup], Shown]:
        """Import the function; this imports torch."""
        module, _, function = self.reference.partition(":")
        loaded: Callable[[Setup], Shown] = getattr(
            importlib.import_module(f"{__package__}.{module}"), function
        )
        return loaded


TENSORS = (
    Demo("create", "basics:create", "make tensors, their statistics, memory shared with NumPy"),
    Demo("dtypes", "basics:dtypes", "conversion, promotion, truncation, the lost carry"),
    Demo("index", "basics:index", "slices, masks, index lists, gather; view or copy"),
    Demo("shape", "basics:shape", "view, reshape, permute, squeeze, strides, contiguous"),
    Demo(
        "reductions", "basics:reductions", "sums and means along axes, and the mean of batch means"
    ),
    Demo("join", "basics:join", "cat, stack, split, chunk, expand, repeat"),
    Demo("onehot", "basics:onehot", "one-hot rows and the embedding as a product"),
    Demo("python", "basics:python", "partial, copies, NumPy ranges, sorting, module calls"),
    Demo("broadcast", "products:broadcast", "alignment at the right, and the loss of N x N pairs"),
    Demo("products", "products:products", "element by element, dot, mv, mm, bmm, matmul"),
    Demo("einsum", "products:einsum", "products by the names of their axes"),
    Demo("linear", "products:linear", "how a linear layer multiplies; why it needs an activation"),
)
GRADIENTS = (
    Demo("scalar", "gradients:scalar", "the gradient of one number; gradients add up"),
    Demo("vector", "gradients:vector", "the gradient of a number by a vector"),
    Demo("jacobian", "gradients:jacobian", "a vector by a vector, Hessian, backward as a product"),
    Demo("higher-order", "gradients:higher_order", "derivatives of derivatives"),
    Demo("detach", "gradients:detach", "take a value out of the graph"),
    Demo("control-flow", "gradients:control_flow", "gradients through loops and branches"),
    Demo("graph", "gradients:graph", "leaves, kept gradients, a graph used twice"),
    Demo("modes", "gradients:modes", "reverse and forward mode: memory and time"),
    Demo(
        "scalar-sgd", "gradients:scalar_sgd", "gradient descent on one weight; where float32 stops"
    ),
    Demo("gradcheck-linear", "gradcheck:linear_chain", "a linear chain: three rules by hand"),
    Demo(
        "gradcheck-sigmoid",
        "gradcheck:sigmoid_chain",
        "the chain with sigmoids: right to first order",
    ),
    Demo(
        "gradcheck-lsq",
        "gradcheck:least_squares",
        "least squares by hand; the best step of a difference",
    ),
    Demo(
        "gradcheck-conv",
        "gradcheck:convolution",
        "a convolution by hand: 25 kernel entries, 49 pixels",
    ),
    Demo(
        "gradcheck-cross-entropy",
        "gradcheck:cross_entropy",
        "cross-entropy by hand: softmax - one-hot",
    ),
    Demo("gradcheck-kink", "gradcheck:kink", "ReLU, abs and ties: no gradient, one is chosen"),
)
MODELS = (
    Demo("losses", "layers:losses", "cross-entropy and its relatives by hand"),
    Demo("masks", "layers:masks", "padding, causal and combined masks"),
    Demo(
        "masked-softmax",
        "layers:softmax_masked",
        "hidden positions weigh nothing; empty rows decided",
    ),
    Demo("norms", "layers:norms", "batch, layer, instance, group and RMS norm compared"),
    Demo("positions", "layers:positions", "sinusoidal positions; a shift is a rotation"),
    Demo("conv-sizes", "layers:conv_sizes", "output sizes of convolution and pooling"),
)
COSTS = (
    Demo("formats", "formats:formats", "the bits of fp64, fp32, bf16, fp16 and fp8"),
    Demo("downcast", "formats:downcast", "what half the bytes cost"),
    Demo("speed", "cost:speed", "NumPy and torch, compared fairly"),
    Demo("amp", "cost:amp", "mixed precision: memory, time, error"),
    Demo("checkpoint", "cost:checkpoint", "activation checkpointing: memory for time"),
    Demo(
        "attention-chunks", "cost:attention_chunks", "attention in chunks equals attention at once"
    ),
)

DEMOS = (*TENSORS, *GRADIENTS, *MODELS, *COSTS)


def choose(names: list[str]) -> list[Demo]:
    """Return the demos of these names, all of them for no name.

    Raises:
        ConfigError: there is none of that name; the nearest is suggested.
    """
    known = {demo.name: demo for demo in DEMOS}
    for name in names:
        if name not in known:
            raise _unknown(name, list(known))
    return [known[name] for name in dict.fromkeys(names)] if names else list(DEMOS)


def _unknown(name: str, known: list[str]) -> ConfigError:
    near = closest(name, known)
    hint = f"; did you mean {near}?" if near else ""
    return ConfigError("E206", f"no demo is named {name!r}{hint}", cure="dltool tensor-ops list")
