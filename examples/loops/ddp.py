"""DistributedDataParallel: each process has its part of the batch.

    torchrun --nproc-per-node 2 examples/loops/ddp.py      # nccl where there are GPUs, else gloo

The banks, the scores of modulation and the surgery, as `regrad` in journeys.py has ``sync=True``, are those of the
whole batch. Leave ``static_graph`` alone: surgery with separate passes refuses it.
"""

import torch.distributed as dist
from journeys import DEVICE, Journey, Streams, batches, part, run
from torch.nn.parallel import DistributedDataParallel


def train(model: Streams, journey: Journey) -> None:
    optimizer, loss_of = journey(model)
    wrapped = DistributedDataParallel(model, device_ids=[DEVICE] if DEVICE.type == "cuda" else None)
    for x, y in batches():
        loss = loss_of(wrapped, *part(dist.get_rank(), dist.get_world_size(), x, y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    dist.init_process_group()
    run(train)
    dist.destroy_process_group()
