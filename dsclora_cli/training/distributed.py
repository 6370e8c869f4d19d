"""Several processes that train one network: the environment of torchrun, and sums over the processes.

Gradients are averaged by hand over one flat buffer, not by DistributedDataParallel, which would put a wrapper between
the loop and adapters, compilation and accumulation. All processes know the same global batch and compute a share.
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
from dsclora_cli.host import worker_count
from dsclora_cli.inference.device import resolve_device


@dataclass(frozen=True)
class ProcessGroup:
    """The processes of a run, from the point of view of one process."""

    device: torch.device
    """Where this process computes."""
    rank: int = 0
    """Number of this process, counted from 0."""
    count: int = 1
    """Number of processes."""

    @property
    def is_first(self) -> bool:
        """Return whether this process is the process that scores and writes the run folder."""
        return self.rank == 0

    def shares(self, batch: int, parts: int) -> list[slice]:
        """Return the samples of a global batch that this process computes, cut into parts of equal size.

        Args:
            batch: Number of samples in the global batch.
            parts: Number of parts for one process.

        Raises:
            UsageError: The batch does not divide by processes times parts.
        """
        pieces = self.count * parts
        if batch % pieces:
            workers = f"{self.count} workers in {parts} parts" if self.count > 1 else f"{parts} parts"
            raise UsageError(f"a batch of {batch} does not divide among {workers}", f"use a multiple of {pieces}")
        size = batch // pieces
        first = self.rank * parts
        return [slice((first + part) * size, (first + part + 1) * size) for part in range(parts)]

    def mean(self, values: Sequence[float]) -> list[float]:
        """Return the mean of each value over the processes. Waits for all processes."""
        if self.count == 1:
            return list(values)
        # float64 where it costs nothing: on the CPU.
        dtype = torch.float64 if self.device.type == "cpu" else torch.float32
        shared = torch.tensor(values, dtype=dtype, device=self.device)
        self._sum(shared)
        return [float(value) for value in shared / self.count]

    def average_gradients(self, module: nn.Module) -> None:
        """Replace every gradient of a module by the mean over the processes. Waits for all processes."""
        if self.count == 1:
            return
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        # A parameter without a gradient counts as zero, so that the buffers of all processes have equal sizes.
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        # One flat buffer needs one message, where a message for each parameter would cost its latency.
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
            raise DscloraError(
                "another worker stopped", "see the message of that worker above; resume with --resume"
            ) from error


@contextmanager
def join_process_group(device_name: str) -> Iterator[ProcessGroup]:
    """Yield the group of processes that torchrun started, or a group of this process alone.

    Raises UsageError for a device that the machine does not have.
    """
    device = resolve_device(local_device(device_name))
    count = worker_count()
    if count == 1:
        yield ProcessGroup(device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield ProcessGroup(device, dist.get_rank(), count)
    finally:
        dist.destroy_process_group()


def local_device(name: str) -> str:
    """Return the device of this process: several processes on a machine take a GPU each.

    A name with an index ("cuda:1") stays unchanged.
    """
    several = worker_count() > 1
    use_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several and use_cuda else name
