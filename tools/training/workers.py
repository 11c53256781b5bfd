# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one network, each on its share of the images.

For several GPUs, or for the cores of a CPU, where it is about as fast as threads. Started by
`torchrun`; without it there is one process, and nothing here communicates.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def join(device: str) -> None:
    """Meet the other processes, if `torchrun` started several."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            torch.cuda.set_device(rank())


def count() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace all gradients by their means over the processes."""
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= count()
    parts = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def from_first(value: float) -> float:
    """The number that the first process has."""
    if count() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    number = torch.tensor(value, dtype=torch.float64, device=device)
    dist.broadcast(number, 0)
    return float(number)


def copy_from_first(tensor: Tensor) -> None:
    """Overwrite a tensor with the first process's."""
    if count() > 1:
        dist.broadcast(tensor, 0)


def my_share(rows: Tensor) -> Tensor:
    """An equal number of rows for each process, the last ones being repeated if need be."""
    size = -(-len(rows) // count())
    index = torch.arange(rank() * size, (rank() + 1) * size, device=rows.device)
    return rows[index.clamp(max=len(rows) - 1)]


def joined(share: Tensor, total: int) -> Tensor:
    """The rows [total, ...] that were shared out by `my_share`, from all processes."""
    if count() == 1:
        return share
    shares = [torch.empty_like(share) for _ in range(count())]
    dist.all_gather(shares, share.contiguous())
    return torch.cat(shares)[:total]
