"""What the ranks of a training tell one another, by torch.distributed: NCCL on CUDA, else gloo.

The gradients of a step are summed after its backward pass, one sum for an accumulation group, once
all ranks have agreed that there is a step. That gives up DistributedDataParallel's overlap of
sending and computing, and gains that a rank may fail, leave a step out or train a part of a model
that has no `forward` without the others waiting for it for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from dltool import memory, ranks
from dltool.errors import ConfigError, DltoolError
from dltool.metrics import Mean
from dltool.settings import Batches

BUCKET_BYTES = 25 << 20  # as DistributedDataParallel: large enough to fill the wire
LAST_WORDS = "dltool/last-words"
SECONDS_TO_HEAR = 2.0


class Part(NamedTuple):
    """A rank's part of a batch.

    Attributes:
        share: of the batch's gradient; the shares of all ranks add up to 1.
        total: samples of the whole batch; None: not counted, there is but one rank.
        copies: how many ranks have these very samples.
    """

    content: Any
    share: float = 1.0
    total: int | None = None
    copies: int = 1


class Gone(DltoolError):
    """Another rank has ended, and this one cannot go on without it."""

    def __init__(self) -> None:
        super().__init__(
            "E103",
            "another rank of this training has ended",
            cure="see what it said; go on with --resume",
        )


class Team:
    """The ranks of one training as one of them sees it; alone, nothing is told to anybody.

    Attributes:
        rank, count: which of how many.
        part: the part of a batch that this rank is at.
        meets: layers talk to the other ranks during the forward pass, so that a rank that fails
            there cannot tell them.
        is_lost: this rank has failed on its own, or another one has: nothing can be told any more.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self.part = Part(None)
        self.meets = self.is_lost = False

    @property
    def is_alone(self) -> bool:
        """Whether there is one rank only."""
        return self.count == 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and prints."""
        return self.rank == 0

    # ---- telling ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self.is_lost = True
            raise _heard() or Gone() from error

    def highest(self, values: Sequence[int]) -> list[int]:
        """Return the highest of all ranks' values, place by place."""
        if self.is_alone:
            return list(values)
        told = torch.tensor(values, dtype=torch.int64)
        with self._telling():
            dist.all_reduce(told, dist.ReduceOp.MAX)
        return [int(value) for value in told.tolist()]

    def summed(self, value: Tensor) -> Tensor:
        """Return the sum of all ranks' tensors, the same bits on each; the shape is the same."""
        if self.is_alone:
            return value
        total = value.detach().clone().contiguous()
        with self._telling():
            dist.all_reduce(total)
        return total

    def gathered(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, of one shape and type, by rank."""
        if self.is_alone:
            return [value]
        found = [torch.empty_like(value) for _ in range(self.count)]
        with self._telling():
            dist.all_gather(found, value.contiguous())
        return found

    def blobs(self, data: bytes) -> list[bytes]:
        """Return the bytes of all ranks, of any lengths."""
        if self.is_alone:
            return [data]
        sizes = [int(size) for size in self.gathered(torch.tensor([len(data)]))]
        padded = bytearray(data.ljust(max(max(sizes), 1)))
        found = self.gathered(torch.frombuffer(padded, dtype=torch.uint8))
        return [each.numpy().tobytes()[:size] for each, size in zip(found, sizes, strict=True)]

    def of_first(self, value: Any) -> Any:
        """Return a plain JSON value as the first rank has it; what the others give is not used."""
        if self.is_alone:
            return value
        return json.loads(self.blobs(json.dumps(value).encode() if self.is_first else b"")[0])

    # ---- a batch and its gradients ---------------------------------------------------------

    def parts(self, source: Batches, epoch: int, start: int) -> Iterator[Part]:
        """Yield this rank's part of every batch, one after the other in the batch's order.

        The ranks together have the very batches that one process would have. A batch with fewer
        samples than ranks goes to all of them whole.

        Raises:
            ConfigError: E205, a batch cannot be divided.
        """
        if self.is_alone:
            for batch in source.batches(epoch, start):
                self.part = Part(batch)
                yield self.part
            return
        for batch in source.batches(epoch, start):
            try:
                total = memory.batch_length(batch)
            except DltoolError as error:
                raise ConfigError(
                    "E205",
                    "these batches cannot be divided among ranks: their parts differ in length",
                    cure="leave --nproc and torchrun out",
                ) from error
            if total < self.count:
                self.part = Part(batch, 1 / self.count, total, self.count)
            else:
                first, last = (total * n // self.count for n in (self.rank, self.rank + 1))
                content = memory.cut(batch, slice(first, last))
                self.part = Part(content, (last - first) / total, total)
            yield self.part

    def divided(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield this rank's samples of each batch: together the ranks have every sample once.

        To measure with: sums over the ranks (`summed`) are then those of one process. A batch of
        which there is nothing for this rank is left out.
        """
        for batch in batches:
            if self.is_alone:
                yield batch
                continue
            total = memory.batch_length(batch)
            first, last = (total * n // self.count for n in (self.rank, self.rank + 1))
            if last > first:
                yield memory.cut(batch, slice(first, last))

    def weigh(self, weight: Tensor | float | None) -> None:
        """Let this rank's part count by a weight of its own, and not by its samples."""
        if self.is_alone or weight is None:
            return
        self.meets = True  # all ranks are asked during a step
        own = float(weight)
        whole = float(self.summed(torch.tensor(own, dtype=torch.float64)))
        self.part = self.part._replace(share=own / whole if whole else 0.0)

    def as_mean(self, loss: Tensor) -> Tensor:
        """Return the loss of a part such that the mean over samples is the loss of the batch."""
        content, share, total, copies = self.part
        if total is None or copies > 1:
            return loss
        return loss * (share * total / memory.batch_length(content))

    def own(self, count: int) -> int:
        """Return how many of a part's samples count for this rank: none that another one counts."""
        return count if self.part.copies == 1 or self.is_first else 0

    def add_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Replace gradients by their sums over the ranks; one that a rank lacks is 0 there."""
        for bucket in _buckets(parameters):
            flat = torch.cat([_gradient(each).reshape(-1) for each in bucket])
            with self._telling():
                dist.all_reduce(flat)
            start = 0
            for each in bucket:
                end = start + each.numel()
                found = flat[start:end].view(each.shape)
                # an optimizer wants a gradient laid out as its weight
                each.grad = found if each.is_contiguous() else torch.empty_like(each).copy_(found)
                start = end

    def total(self, mean: Mean) -> Mean:
        """Return the mean over the samples of all ranks."""
        if self.is_alone:
            return mean
        # over the CPU: the sum of a rank without a sample may lie elsewhere
        own = torch.tensor([mean.total.item(), float(mean.count)], dtype=torch.float64)
        total, count = self.summed(own).tolist()
        found = Mean()
        found.restore({"sum": total, "count": round(count)})
        return found

    @torch.no_grad()
    def take_over(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite the tensors with those of the first rank."""
        if not self.is_alone:
            with self._telling():
                for tensor in tensors.values():
                    dist.broadcast(tensor, 0)

    def refuse_different(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse to go on when the ranks' weights differ by a bit.

        Raises:
            DltoolError: E104, naming the first tensor that does.
        """
        if self.is_alone:
            return
        sums = torch.stack([_bits(tensor) for tensor in tensors.values()]).cpu()
        found = self.gathered(sums)
        for other in found[1:]:
            different = (other != found[0]).nonzero().flatten().tolist()
            if different:
                name = list(tensors)[different[0]]
                raise DltoolError("E104", f"the ranks' weights have come apart, first in {name}")


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield parameters of one type together, some megabytes at a time."""
    kinds = dict.fromkeys((each.device, each.dtype) for each in parameters)
    for kind in kinds:
        bucket: list[Tensor] = []
        size = 0
        for each in parameters:
            if (each.device, each.dtype) != kind:
                continue
            bucket.append(each)
            size += each.numel() * each.element_size()
            if size >= BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
        if bucket:
            yield bucket


def _bits(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor's bits, read as whole numbers: any one of them changes it."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    words = data.view({0: torch.int64, 4: torch.int32}.get(len(data) % 8, torch.uint8))
    return words.sum(dtype=torch.int64)


# ---- beginning and end -------------------------------------------------------------------------


def current() -> Team:
    """Return the team that this process has joined; otherwise it is alone."""
    if dist.is_available() and dist.is_initialized():
        return Team(dist.get_rank(), dist.get_world_size())
    return Team()


def join() -> Team:
    """Meet the other ranks, if there are any; wait until all are there."""
    world = ranks.world()
    if world.count > 1 and not dist.is_initialized():
        backend = "gloo"
        if torch.cuda.is_available() and dist.is_nccl_available():
            # plain numbers go by gloo: the accelerator need not stop for them
            backend = "cpu:gloo,cuda:nccl"
        dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return current()


def leave() -> None:
    """Part from the other ranks: what follows is one process's work."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def leave_last_words(error: BaseException) -> None:
    """Tell the others why this rank ends, where they look when they miss it."""
    if not isinstance(error, DltoolError):
        error = DltoolError("E100", f"{type(error).__name__}: {error}")
    message = f"rank {dist.get_rank()}: {error.message}"
    words = {"code": error.code, "message": message, "cure": error.cure}
    with contextlib.suppress(RuntimeError, OSError):
        _notes().set(LAST_WORDS, json.dumps({**words, "exit_code": error.exit_code}))


def _heard() -> DltoolError | None:
    """Return what ended another rank, if it could tell."""
    limit = time.monotonic() + SECONDS_TO_HEAR
    with contextlib.suppress(RuntimeError, OSError):
        notes = _notes()
        while time.monotonic() < limit:
            if notes.check([LAST_WORDS]):
                told = json.loads(notes.get(LAST_WORDS))
                error = DltoolError(told["code"], told["message"], cure=told["cure"])
                error.exit_code = told["exit_code"]
                return error
            time.sleep(0.05)
    return None


def _notes() -> Any:
    """Return the store at which the ranks have met."""
    # documented, though the module does not list it for type checkers
    return dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=timedelta(seconds=SECONDS_TO_HEAR),
    )
