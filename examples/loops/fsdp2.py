"""FSDP2: each process holds its part of every parameter.

    torchrun --nproc-per-node 2 examples/loops/fsdp2.py

Separate passes cannot run there, so surgery needs ``independent=True``: late fusion, where each loss reaches its own
branch alone. Without it the Rebalancer refuses, and says so.
"""

from functools import partial

import torch.distributed as dist
from journeys import Journey, Streams, batches, part, regrad, run
from torch.distributed.fsdp import fully_shard


def train(model: Streams, journey: Journey) -> None:
    for encoder in model.encoders.values():
        fully_shard(encoder)
    fully_shard(model)
    optimizer, loss_of = journey(model)  # after the parameters are where they stay
    for x, y in batches():
        loss = loss_of(model, *part(dist.get_rank(), dist.get_world_size(), x, y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    dist.init_process_group()
    run(train, partial(regrad, independent=True))
    dist.destroy_process_group()
