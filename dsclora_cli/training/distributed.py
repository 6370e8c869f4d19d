"""Several processes that train one network: torchrun's environment, and what the processes tell each other.

Gradients are averaged by hand over one flat buffer, not by DistributedDataParallel, which would put a wrapper between
the loop and adapters, compilation and accumulation. Every process draws the same global batch and works on its share.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dsclora_cli.errors import DscloraError, UsageError


@dataclass(frozen=True)
class ProcessGroup:
    """This process among `count`; alone by default. The one of rank 0 writes."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def shares(self, batch: int, parts: int) -> list[slice]:
        """This worker's share of the samples of a batch, in `parts`. Raises UsageError where they do not divide."""
        pieces = self.count * parts
        if batch % pieces:
            workers = f"{self.count} workers in {parts} parts" if self.count > 1 else f"{parts} parts"
            raise UsageError(f"a batch of {batch} does not divide among {workers}", f"use a multiple of {pieces}")
        size = batch // pieces
        first = self.rank * parts
        return [slice((first + part) * size, (first + part + 1) * size) for part in range(parts)]

    def mean(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The mean of each value over the workers."""
        if self.count == 1:
            return list(values)
        shared = torch.tensor(values, dtype=torch.float64 if device.type == "cpu" else torch.float32, device=device)
        self._sum(shared)
        return [float(value) for value in shared / self.count]

    def average_gradients(self, trained: nn.Module) -> None:
        """Make every worker's gradients the mean over the workers; a missing one counts as zero."""
        if self.count == 1:
            return
        parameters = [parameter for parameter in trained.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._sum(flat)
        start = 0
        for parameter in parameters:
            share = flat[start : start + parameter.numel()] / self.count
            parameter.grad = share.view_as(parameter)
            start += parameter.numel()

    def _sum(self, tensor: Tensor) -> None:
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise DscloraError("another worker stopped", "see its message above; --resume goes on") from error


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The workers that torchrun started, or this process alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ProcessGroup()
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """The device of this worker: with several on a machine and no index given, each takes its own GPU."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several and use_cuda else name
