"""The values that every demo must give.

Without a wrapper a value is exact, except for floats: they may differ by 1e-6, relative above 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dltool_tensor_ops.golden import AtLeast, AtMost, Containing, Near

TINY = AtMost(1e-5)  # float32 in another order
EXACT = AtMost(1e-9)  # float64, by hand against autograd
FINITE = AtMost(1e-6)  # float64, against differences with a step of 1e-5


def _checked(*names: str) -> dict[str, AtMost]:
    """Return the known values of gradients by hand: equal to both other ways."""
    ways = (("autograd", EXACT), ("numeric", FINITE))
    return {f"{name}_{way}": limit for name in names for way, limit in ways}


# fmt: off
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "create": {
        "mean": 7.0, "median": 7.0, "min": 0.0, "max": 14.0, "std": Near(4.4721, 5e-5),
        "var": 20.0, "var_biased": Near(18.6667, 5e-5), "shared": [9.0, 1.0, 2.0],
        "copied": [0.0, 1.0, 2.0], "sample_mean": Near(0.0, 0.06),
        "sample_std": Near(1.0, 0.05),
    },
    "dtypes": {
        "float": "float32", "double": "float64", "int": "int32", "long": "int64",
        "truncated": [1, -1], "rounded": [0.0, 2.0, 2.0], "integers": "int64",
        "from_numpy": "float64", "promoted": "float32", "division": "float32",
        "scalar": "float16", "carry": [4, 9], "int8": [-128, 127], "uint8": [0, 255],
    },
    "index": {
        "element": 6, "column": [3, 7, 11], "column_kept": [3, 1], "mask": [9, 10, 11],
        "step": [[1, 3], [9, 11]], "pairs": [1, 4, 11], "argmax": [[1], [0]],
        "gather": [[9], [8]], "slice_sees": 100, "list_sees": 8,
        "written": [[-1, -1, 2, 3], [-1, -1, 6, 7], [100, 9, 10, 11]],
    },
    "shape": {
        "stride": [12, 4, 1], "transpose_01": [3, 2, 4], "transpose_02": [4, 3, 2],
        "transpose_12": [2, 4, 3], "transposed_stride": [1, 4, 12],
        "transposed_contiguous": False, "view_refused": Containing("view size is not"),
        "reshape_view": True, "reshape_copy": True, "contiguous_stride": [6, 2, 1],
        "reshaped": [[0, 1], [2, 3], [4, 5]], "permuted": [[0, 12], [4, 16], [8, 20]],
        "squeeze_kept": [2, 3, 4], "unsqueeze": [2, 1, 3, 4], "squeezed": [2, 3, 4],
        "written": 100, "mT": [2, 4, 3],
    },
    "reductions": {
        "sum": 15.0, "sum_0": [3.0, 5.0, 7.0], "sum_1": [3.0, 12.0], "keepdim": [2, 1],
        "cumsum": [[0.0, 1.0, 3.0], [3.0, 7.0, 12.0]], "argmax": 5, "norm": 7.416198487,
        "softmax_rows": [1.0, 1.0], "median": 2.0, "median_numpy": 2.5,
        "mean_of_means": Near(2.33333, 1e-5), "mean": 1.0,
    },
    "join": {
        "cat_0": [[1, 2], [3, 4], [5, 6], [7, 8]], "cat_1": [[1, 2, 5, 6], [3, 4, 7, 8]],
        "stack": [2, 2, 2], "cat_refused": Containing("ize"), "split": [3, 3, 3, 1],
        "chunk": [4, 4, 2], "halves": [[1, 3, 3, 6], [1, 3, 3, 6]],
        "expand": [[1, 1, 1], [2, 2, 2], [3, 3, 3], [4, 4, 4], [5, 5, 5]],
        "expand_stride": [1, 0], "expand_refused": Containing("expanded size"),
        "repeat_stride": [3, 1],
    },
    "onehot": {
        "identity": [[int(i == j) for j in range(5)] for i in range(5)], "shape": [3, 3],
        "difference": TINY, "refused": Containing("num_classes"),
    },
    "python": {
        "partial": [3, 4, 6], "shallow": [1, 2, 3, 100], "deep": [1, 2, 3],
        "linspace": [0.0, 2.5, 5.0, 7.5, 10.0], "arange": [0, 2, 4, 6, 8],
        "concat": [[1, 2, 5], [3, 4, 6]], "numeric_sort": ["1.png", "9.png", "10.png"],
        "hooks_forward": 0, "hooks_call": 1,
    },
    "broadcast": {
        "column_row": [3, 3], "six": [10, 2, 1, 9, 9, 9],
        "refused": Containing("at non-singleton dimension 1"), "trap_shape": [4, 4],
        "trap_loss": 2.5, "loss": 0.0,
    },
    "products": {
        "hadamard": [[0.0, 1.0, 4.0], [9.0, 16.0, 25.0]], "dot": 5.0,
        "outer": [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [0.0, 2.0, 4.0]],
        "mv": [6.0, 22.0, 38.0], "bmm": [3, 3, 3], "matmul": [2, 5, 3, 6],
        "mm": [[90.0, 100.0, 110.0], [240.0, 275.0, 310.0], [390.0, 450.0, 510.0]],
        "mm_refused": Containing("must be a matrix"),
        "inner_refused": Containing("cannot be multiplied"),
    },
    "einsum": {
        "matrix_product": TINY, "transpose": TINY, "row_sums": TINY, "trace": TINY,
        "diagonal": TINY, "outer_product": TINY, "bilinear_form": TINY,
        "attention_scores": TINY, "scores_shape": [2, 3, 6, 7],
    },
    "linear": {
        "weight_shape": [4, 3], "shape": [2, 5, 4], "transpose": TINY, "per_token": TINY,
        "stacked": TINY, "activation": AtLeast(0.01),
    },
    "scalar": {
        "before": True, "first": 4.0, "second": 8.0, "unzeroed": [1.0, 3.0, 5.0, 7.0],
        "twice": [1.0, 5.0, 9.0, 13.0],
    },
    "vector": {
        "dot": 14.0, "dot_grad": [0.0, 2.0, 4.0, 6.0], "twice_dot": 28.0,
        "twice_dot_grad": [0.0, 4.0, 8.0, 12.0], "sum_grad": [1.0, 1.0, 1.0, 1.0],
        "squares_grad": [0.0, 2.0, 4.0, 6.0], "cubes": 3.0, "cubes_grad": [3.0, 3.0, 3.0],
        "refused": Containing("scalar outputs"), "weighted": [0.0, 2.0, 4.0, 6.0],
    },
    "jacobian": {
        "square": [[2.0 * i * (i == j) for j in range(4)] for i in range(4)],
        "mixed": [[3.0, 2.0, 0.0, 0.0], [0.0, 0.0, 8.0, 1.0]],
        "vjp": [3.0, 2.0, -8.0, -1.0], "vjp_difference": TINY,
        "hessian": [[6.0 * (i + 2) * (i == j) for j in range(4)] for i in range(4)],
    },
    "higher-order": {
        "order_1": 12.0, "order_2": 12.0, "order_3": 6.0,
        "refused": Containing("does not require grad"),
    },
    "detach": {
        "detached": [0.0, 1.0, 4.0, 9.0], "attached": [0.0, 3.0, 12.0, 27.0],
        "shares": True, "no_grad": False, "in_place": Containing("in-place"),
        "numpy": Containing("requires grad"),
    },
    "control-flow": {
        "positive": 2048.0, "positive_ratio": 2048.0, "negative": 204800.0,
        "negative_ratio": 204800.0,
    },
    "graph": {
        "leaves": [True, False, False], "operation": "SumBackward0", "not_kept": True,
        "leaf": [8.0, 8.0, 8.0], "again": [16.0, 16.0, 16.0],
        "third": Containing("second time"), "kept": [4.0, 4.0, 4.0],
    },
    "modes": {
        "difference": AtMost(1e-3), "reverse_growth": AtLeast(4), "forward_growth": AtMost(1.5),
    },
    "scalar-sgd": {
        "first_w": Near(1.260688, 1e-6), "first_loss": Near(7.315943717956543, 1e-6),
        "w": Near(1.9999996423721313, 1e-9), "forward": Near(7.999998569488525, 1e-9),
        "w_above": Near(2.0000007152557373, 1e-9), "rate_limit": Near(0.204, 5e-4),
        "diverged": AtLeast(10), "unzeroed": AtLeast(0.01),
    },
    "gradcheck-linear": {**_checked("input", "weight", "bias"), "remainder": EXACT},
    "gradcheck-sigmoid": {**_checked("input", "weight"), "order": Near(100.0, 20.0)},
    "gradcheck-lsq": {
        **_checked("w"), "best_float32": AtLeast(1e-4), "best_float64": Near(1e-5, 1e-5),
    },
    "gradcheck-conv": {"corner": EXACT, **_checked("kernel", "image")},
    "gradcheck-cross-entropy": {
        **_checked("logits"), "mean_of_samples": EXACT, "row_sums": EXACT,
        "naive_finite": False, "stable": EXACT,
    },
    "gradcheck-kink": {
        "relu": 0.0, "relu_sides": [0.0, 1.0], "relu_central": 0.5, "abs": 0.0,
        "abs_sides": [-1.0, 1.0], "abs_central": 0.0, "amax": [0.5, 0.5], "max_total": 1.0,
    },
    "losses": {
        "right": Near([0.6657, 0.5735, 0.2507, 0.5536], 5e-5), "right_mean": Near(0.5109, 5e-5),
        "wrong": Near([1.2679, 1.2398, 1.2089, 1.4284], 5e-5), "wrong_mean": Near(1.2863, 6e-5),
        "by_hand": Near([0.6657, 0.5735, 0.2507, 0.5536], 5e-5), "nll": Near(1.2040, 5e-5),
        "twice": AtLeast(0.7), "reduction": 4.0, "bce": Near([0.693147, 1000.0], 1e-5),
        "kl": 0.0, "l1": [0.0, 0.5, 2.0], "l2": [0.0, 0.25, 4.0], "huber": [0.0, 0.125, 1.5],
        "mse": Near(1.52 / 12, 1e-6), "margin": Near(0.7 / 12, 1e-6),
    },
    "masks": {
        "kept": [[1, 0, 0], [4, 5, 0]], "untouched": [[1, 2, 3], [4, 5, 6]],
        "filled": [[1, 2, 3, -1, -1], [4, 5, 6, 7, 8], [9, 10, -1, -1, -1]],
        "causal": [[1, 0, 0], [1, 1, 0], [1, 1, 1]], "combined_shape": [2, 5, 5],
        "combined": [12, 15], "leak": 0.0, "leak_open": AtLeast(1e-3),
    },
    "masked-softmax": {
        "two": Near([0.5] * 2 + [0.0] * 8, 1e-6), "six": Near([0.1667] * 6 + [0.0] * 4, 5e-5),
        "rows": [1.0, 1.0], "hidden": 0.0, "too_small": AtLeast(0.1),
        "empty_plain": "nan", "empty": 0.0, "half": Containing("overflow"),
    },
    "norms": {
        "layer_small": Near([[-1.0, 1.0], [-1.0, 1.0]], 1e-4),
        "batch_small": Near([[-1.0, -1.0], [1.0, 1.0]], 1e-4),
        "row": Near([-1.4142, -0.7071, 0.0, 0.7071, 1.4142], 5e-5),
        "whole": Near([-1.5667, 1.5667], 5e-5), "batch": TINY, "layer": TINY,
        "instance": TINY, "group": TINY, "rms": TINY, "momentum": Near(0.1, 1e-5),
        "eval": AtLeast(0.1),
    },
    "positions": {
        "shape": [60, 32], "slow": Near([0.0199987, 0.0299955], 5e-8),
        "norm": Near([4.0, 4.0], 1e-5), "shift": TINY, "offset": AtMost(1e-4),
        "wrong": [60, 60, 32],
    },
    "conv-sizes": {
        "k3p1": [8, 8], "k53p21": [8, 8], "k3p1s2": [4, 4], "k35p01s34": [2, 2], "layers": 55,
        "strided": [[211.0, 262.0], [251.0, 169.0]], "pooled": [[4.0, 8.0], [9.0, 8.0]],
        "dense": 3_000_000_000,
    },
    "formats": {
        "fp64": Near(0.333333333333333314829616, 0.0), "fp32": Near(0.3333333432674408, 0.0),
        "fp16": Near(0.333251953125, 0.0), "bf16": Near(0.333984375, 0.0),
        "fp32_bits": "0 01111101 01010101010101010101011", "bf16_bits": "0 01111101 0101011",
        "fp16_bits": "0 01101 0101010101", "fp8_e4m3_bits": "0 0101 011",
        "fp8_e5m2_bits": "0 01101 01", "fp16_max": 65504.0,
        "fp16_tiny": Near(6.1035e-5, 1e-8), "fp8_e4m3_max": 448.0, "fp8_e5m2_max": 57344.0,
        "bf16_eps": 0.0078125, "decoded": 0.0,
    },
    "downcast": {
        "bf16_error": AtMost(2**-8), "fp16_error": AtMost(2**-11), "dot_error": AtMost(0.01),
        "count_bf16": 256.0, "count_fp16": 2048.0, "sum": 3008.0, "overflow": "inf",
        "bf16_large": 70144.0, "underflow": 0.0, "scaled": Near(1e-8, 1e-11),
        "parameters": 30, "bytes": [120, 60], "in_place": True,
    },
    "speed": {"dtypes": ["float32", "float32"], "difference": TINY},
    "amp": {
        "gradient_error": AtMost(0.3), "gradient_dtype": "float32",
        "memory_ratio": AtMost(0.85),
    },
    "checkpoint": {"difference": TINY, "memory_ratio": AtMost(0.7)},
    "attention-chunks": {"difference": TINY, "library": TINY, "memory_ratio": AtMost(0.25)},
}
# fmt: on
