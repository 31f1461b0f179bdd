"""What makes a run the same for any number of processes: the order of the items, and a loss of the global batch."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from .config import Recipe


def item_order(count: int, config: Recipe, first_step: int, processes: int, rank: int) -> Iterator[list[int]]:
    """The item numbers of every batch that process `rank` computes from step `first_step` on, without end.

    An epoch is a permutation that depends on the seed and the epoch alone. A step takes the next ``batch_size`` of
    it, cut into ``accumulate`` parts one after the other, each of them into one share for every process: so the same
    images make the same step for any number of processes. An epoch's last incomplete batch is left out.
    """
    steps = count // config.batch_size
    step, epoch, order = first_step, -1, np.empty(0, np.int64)
    while True:
        if epoch != step // steps:
            epoch = step // steps
            order = np.random.default_rng([config.seed, epoch]).permutation(count)
        batch = order[step % steps * config.batch_size :][: config.batch_size]
        yield from batch.reshape(config.accumulate, processes, -1)[:, rank].tolist()
        step += 1


class Gather(torch.autograd.Function):
    """The batches of all processes, one after the other. DistributedDataParallel takes the mean of the processes'
    gradients, where a loss of the global batch needs their sum: hence the factor."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()
