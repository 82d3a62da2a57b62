"""Batch normalisation over the batches of all processes, on any device: torch's own SyncBatchNorm needs a GPU."""

import torch
from torch import Tensor, nn
from torch import distributed as dist


class Total(torch.autograd.Function):
    """The sum over all processes; the gradient of each one's share is the sum of theirs."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return Total.forward(ctx, grad)


class BatchNorm(nn.BatchNorm2d):
    """As torch.nn.BatchNorm2d of the whole batch, whose shares on the processes are equally large."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images "b c h w"."""
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        processes, dims = dist.get_world_size(), (0, 2, 3)
        mean, square = Total.apply(torch.stack([x.mean(dims), x.square().mean(dims)])) / processes
        variance = square - mean.square()
        with torch.no_grad():
            count = processes * x.numel() // x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight / (variance + self.eps).sqrt()
        return x * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
