"""Demos: making tensors, dtypes, indexing, shapes and memory, reductions, joining, one-hot."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import torch
from torch.nn import functional as F

from dltool_tensor_ops import pictures
from dltool_tensor_ops.demo import Setup, Shown, difference, refusal


def create(setup: Setup) -> Shown:
    """Make tensors, look at their statistics, share memory with NumPy."""
    shown = Shown("Making tensors, and what they hold")
    x = torch.arange(15, dtype=torch.float32, device=setup.device)
    for name in ("mean", "median", "min", "max", "std"):
        shown.add(name, f"arange(15.).{name}()", getattr(x, name)())
    shown.add("var", "arange(15.).var()", x.var(), "divides by n - 1")
    shown.add("var_biased", "arange(15.).var(correction=0)", x.var(correction=0), "divides by n")

    array = np.arange(3.0)
    shared, copied = torch.from_numpy(array), torch.tensor(array)
    array[0] = 9
    shown.add("shared", "from_numpy(a) after a[0] = 9", shared, "one memory, two names")
    shown.add("copied", "tensor(a) after a[0] = 9", copied, "a copy")
    shown.add("full", "full((2, 2), 7.)", torch.full((2, 2), 7.0))
    empty = torch.empty(5, 3, device=setup.device)
    shown.add("empty", "empty(5, 3).shape", empty.shape, "holds what memory held: write first")

    sample = setup.normal(10_000)
    shown.add("sample_mean", "randn(10000).mean()", sample.mean(), "0 ± 0.01")
    shown.add("sample_std", "randn(10000).std()", sample.std(), "1 ± 0.007")
    shown.picture = partial(pictures.histogram, sample.cpu())
    return shown


def dtypes(setup: Setup) -> Shown:
    """Convert between dtypes; see promotion, truncation and a lost carry."""
    shown = Shown("Number types and what changes them")
    x = torch.tensor([1.9, -1.9])
    for name in ("float", "double", "int", "long"):
        shown.add(name, f"x.{name}().dtype", getattr(x, name)().dtype)
    shown.add("truncated", "tensor([1.9, -1.9]).int()", x.int(), "towards 0, no rounding")
    shown.add("rounded", "tensor([0.5, 1.5, 2.5]).round()", torch.tensor([0.5, 1.5, 2.5]).round())
    shown.add("integers", "tensor([1, 2]).dtype", torch.tensor([1, 2]).dtype)
    shown.add("from_numpy", "from_numpy(array([1.])).dtype", torch.from_numpy(np.ones(1)).dtype)
    shown.add("promoted", "(int32 + float32).dtype", (torch.ones(2).int() + x).dtype)
    shown.add("division", "(int64 / int64).dtype", (torch.ones(2).long() / 2).dtype)
    shown.add("scalar", "(float16 * 2.5).dtype", (x.half() * 2.5).dtype, "a number widens nothing")
    small = torch.tensor([250, 255], dtype=torch.uint8)
    shown.add("carry", "uint8 [250, 255] + 10", small + 10, "the carry is dropped, no warning")
    for kind in (torch.int8, torch.uint8):
        limits = torch.iinfo(kind)
        shown.add(str(kind).removeprefix("torch."), f"iinfo({kind})", [limits.min, limits.max])
    return shown


def index(setup: Setup) -> Shown:
    """Read and write parts of a tensor: slices, masks, index lists, gather."""
    shown = Shown("Indexing")
    x = torch.arange(12, device=setup.device).reshape(3, 4)
    shown.add("x", "x = arange(12).reshape(3, 4)", x)
    shown.add("element", "x[1, 2]", x[1, 2])
    shown.add("column", "x[:, -1]", x[:, -1], "one dimension fewer")
    shown.add("column_kept", "x[:, -1:].shape", x[:, -1:].shape, "dimension kept")
    shown.add("step", "x[::2, 1::2]", x[::2, 1::2])
    shown.add("mask", "x[x > 8]", x[x > 8], "always one-dimensional")
    shown.add("pairs", "x[[0, 1, 2], [1, 0, 3]]", x[[0, 1, 2], [1, 0, 3]], "(0,1) (1,0) (2,3)")

    y = torch.tensor([[3, 9, 1], [8, 2, 7]], device=setup.device)
    best = y.argmax(1, keepdim=True)
    shown.add("argmax", "y.argmax(1, keepdim=True)", best, "positions, not values")
    shown.add("gather", "y.gather(1, that)", y.gather(1, best), "the values at the positions")

    x[:2, :2] = -1
    part, chosen = x[2], x[[2]]
    x[2, 0] = 100
    shown.add("written", "x[:2, :2] = -1; x[2, 0] = 100", x)
    shown.add("slice_sees", "x[2] taken before", part[0], "a slice is a view")
    shown.add("list_sees", "x[[2]] taken before", chosen[0, 0], "an index list copies")
    return shown


def shape(setup: Setup) -> Shown:
    """Change shapes: what moves data, what only changes the strides, what refuses."""
    shown = Shown("view, reshape, permute, contiguous")
    x = torch.arange(24, device=setup.device).reshape(2, 3, 4)
    shown.add("stride", "x (2, 3, 4): stride", x.stride(), "steps in memory to the next index")
    for a, b in ((0, 1), (0, 2), (1, 2)):
        shown.add(f"transpose_{a}{b}", f"x.transpose({a}, {b}).shape", x.transpose(a, b).shape)
    t = x.transpose(0, 2)
    shown.add("transposed_stride", "t = x.transpose(0, 2): stride", t.stride(), "no data moved")
    shown.add("transposed_contiguous", "t.is_contiguous()", t.is_contiguous())
    shown.add("view_refused", "t.view(24)", refusal(lambda: t.view(24)))
    same = x.reshape(24).data_ptr() == x.data_ptr()
    shown.add("reshape_view", "x.reshape(24) shares memory", same)
    copies = t.reshape(24).data_ptr() != t.data_ptr()
    shown.add("reshape_copy", "t.reshape(24) copies", copies, "it must: t is not contiguous")
    shown.add("contiguous_stride", "t.contiguous().stride()", t.contiguous().stride())
    shown.add("reshaped", "x.reshape(4, 3, 2)[0]", x.reshape(4, 3, 2)[0], "regroups")
    shown.add("permuted", "x.permute(2, 1, 0)[0]", x.permute(2, 1, 0)[0], "turns: not the same")
    shown.add("mT", "x.mT.shape", x.mT.shape, ".T is for matrices only")
    shown.add("squeeze_kept", "x.squeeze(1).shape", x.squeeze(1).shape, "size 3: nothing happens")
    shown.add("unsqueeze", "x.unsqueeze(1).shape", x.unsqueeze(1).shape)
    shown.add("squeezed", "x.unsqueeze(1).squeeze(1).shape", x.unsqueeze(1).squeeze(1).shape)
    x.view(6, 4)[0, 0] = 100
    shown.add("written", "x[0, 0, 0] after a view's write", x[0, 0, 0], "one memory")
    return shown


def reductions(setup: Setup) -> Shown:
    """Reduce along axes; meet the mean of batch means and the even median."""
    shown = Shown("Reductions: the axis named is the axis that goes")
    x = torch.arange(6, dtype=torch.float32, device=setup.device).reshape(2, 3)
    shown.add("x", "x", x)
    shown.add("sum", "x.sum()", x.sum())
    shown.add("sum_0", "x.sum(0)", x.sum(0), "down the rows: one number a column")
    shown.add("sum_1", "x.sum(1)", x.sum(1), "along the columns: one number a row")
    shown.add("keepdim", "x.sum(1, keepdim=True).shape", x.sum(1, keepdim=True).shape)
    shown.add("cumsum", "x.cumsum(1)", x.cumsum(1))
    shown.add("argmax", "x.argmax()", x.argmax(), "position in the flattened tensor")
    shown.add("norm", "x.norm()", x.norm(), "root of 55")
    shown.add("softmax_rows", "x.softmax(1).sum(1)", x.softmax(1).sum(1), "rows add up to 1")
    even = torch.tensor([1.0, 2.0, 3.0, 4.0])
    shown.add("median", "tensor([1, 2, 3, 4]).median()", even.median(), "the lower of the middle")
    shown.add("median_numpy", "numpy.median of the same", float(np.median(even.numpy())))

    batches = [torch.zeros(3), torch.zeros(3), torch.tensor([7.0])]
    of_means = torch.stack([batch.mean() for batch in batches]).mean()
    shown.add("mean_of_means", "mean of three batch means", of_means, "wrong: sizes are 3, 3, 1")
    shown.add("mean", "mean of all seven numbers", torch.cat(batches).mean())
    return shown


def join(setup: Setup) -> Shown:
    """Join and cut tensors; stretch one without copying."""
    shown = Shown("cat, stack, split, chunk, expand, repeat")
    a = torch.tensor([[1, 2], [3, 4]], device=setup.device)
    b = torch.tensor([[5, 6], [7, 8]], device=setup.device)
    shown.add("cat_0", "cat((a, b), 0)", torch.cat((a, b), 0), "an axis gets longer")
    shown.add("cat_1", "cat((a, b), 1)", torch.cat((a, b), 1))
    shown.add("stack", "stack((a, b)).shape", torch.stack((a, b)).shape, "a new axis")
    shown.add("cat_refused", "cat((a, b[:1]), 1)", refusal(lambda: torch.cat((a, b[:1]), 1)))
    x = torch.arange(10, device=setup.device)
    shown.add("split", "arange(10).split(3): sizes", [len(part) for part in x.split(3)])
    shown.add("chunk", "arange(10).chunk(3): sizes", [len(part) for part in x.chunk(3)])
    halves = torch.zeros(2, 3, 3, 6, device=setup.device).chunk(2)
    shown.add("halves", "zeros(2, 3, 3, 6).chunk(2)", [half.shape for half in halves])
    column = torch.arange(1, 6, device=setup.device)[:, None]
    wide = column.expand(5, 3)
    shown.add("expand", "(5, 1).expand(5, 3)", wide)
    shown.add("expand_stride", "its stride", wide.stride(), "0: one number, read three times")
    shown.add("expand_refused", "that.expand(5, 6)", refusal(lambda: wide.expand(5, 6)))
    shown.add("repeat_stride", "(5, 1).repeat(1, 3).stride()", column.repeat(1, 3).stride(), "copy")
    return shown


def onehot(setup: Setup) -> Shown:
    """One-hot rows, and why an embedding is a product with them."""
    shown = Shown("One-hot coding and the embedding")
    classes = torch.arange(5, device=setup.device)
    shown.add("identity", "one_hot(arange(5))", F.one_hot(classes))
    ids = torch.tensor([4, 0, 4], device=setup.device)
    weight = setup.normal(5, 3)
    product = F.one_hot(ids, 5).float() @ weight
    looked_up = F.embedding(ids, weight)
    shown.add("shape", "embedding([4, 0, 4], W 5x3).shape", looked_up.shape)
    shown.add("difference", "one_hot @ W - embedding", difference(product, looked_up))
    message = refusal(lambda: F.one_hot(ids.cpu(), 4))
    shown.add("refused", "one_hot([4, 0, 4], 4 classes)", message)
    return shown


def python(setup: Setup) -> Shown:
    """The pieces of Python and NumPy that tensor code leans on."""
    shown = Shown("Python and NumPy beside tensors")
    add_one = partial(lambda a, b: a + b, 1)
    shown.add("partial", "partial(add, 1) of 2, 3, 5", [add_one(2), add_one(3), add_one(5)])
    nested = {"k1": [1, 2, 3]}
    shallow, deep = nested.copy(), copy.deepcopy(nested)
    nested["k1"].append(100)
    shown.add("shallow", "shallow copy after append(100)", shallow["k1"], "the list is shared")
    shown.add("deep", "deep copy after append(100)", deep["k1"])
    shown.add("linspace", "linspace(0, 10, 5)", np.linspace(0, 10, 5), "the end belongs to it")
    shown.add("arange", "arange(0, 10, 2)", np.arange(0, 10, 2), "the end does not")
    left, below = np.array([[1, 2], [3, 4]]), np.array([[5, 6]])
    joined = np.concatenate([left, below.T], axis=1)
    shown.add("concat", "concatenate([a, b.T], axis=1)", joined)
    names = sorted(["10.png", "9.png", "1.png"], key=lambda name: int(name.split(".")[0]))
    shown.add("numeric_sort", "files sorted by number", names)

    layer, calls = torch.nn.Identity(), []
    layer.register_forward_hook(lambda *_: calls.append(1))
    layer.forward(torch.zeros(1))
    shown.add("hooks_forward", "hooks run by layer.forward(x)", len(calls), "none: call layer(x)")
    layer(torch.zeros(1))
    shown.add("hooks_call", "hooks run by layer(x)", len(calls))
    return shown
