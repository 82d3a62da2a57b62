"""Count, mean and scatter of a stream of vectors, merged without cancellation, over chunks, time and ranks.

Chan, Golub and LeVeque 1979 (STAN-CS-79-773): two parts a and b of the data, each with a count n, a mean and a scatter
Σ (x − mean)², or Σ (x − mean)(x − mean)ᵀ, make one with

    mean    = mean_a + (mean_b − mean_a) · n_b / n
    scatter = scatter_a + scatter_b + (mean_b − mean_a)² · n_a · n_b / n          n = n_a + n_b

No sum of squares is formed, so a mean that is large against the deviations costs no digits. There is one mean a class,
and one scatter for all, each sample about the mean of its class (Lee et al. 2018, arXiv 1807.03888, Eq. 1).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from balancekit._distributed import all_reduce_sum, world_size
from balancekit._statistics import Statistics
from balancekit._typing import Float, Int


class Moments(NamedTuple):
    """What a set of vectors comes to."""

    number: Tensor  # "c", a count or a weight
    mean: Tensor  # "c d", 0 where nothing was counted
    scatter: Tensor  # "d" of each channel, or "d d"


def moments(x: Float[Tensor, "n d"], labels: Int[Tensor, "n"] | None, like: Moments) -> Moments:
    """Moments of one batch, in two passes, in the form of `like`; None stands for one class."""
    rough = x.sum(0) / max(len(x), 1)
    x = x - rough  # a common offset must not use up the digits of what follows
    if labels is None:
        count = torch.full_like(like.number, len(x), dtype=torch.int64)
        mean = x.sum(0, keepdim=True) / max(len(x), 1)
        x.sub_(mean)
    else:
        labels = labels.long()
        count = torch.zeros_like(like.number, dtype=torch.int64).index_add(0, labels, torch.ones_like(labels))
        mean = torch.zeros_like(like.mean).index_add(0, labels, x) / count.clamp(min=1)[:, None]
        x.sub_(mean[labels])
    scatter = x.square().sum(0) if like.scatter.ndim == 1 else x.mT @ x
    return Moments(count, torch.where(count[:, None] > 0, mean + rough, 0), scatter)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets together; a class that `b` lacks keeps its mean, bit for bit."""
    count = a.number + b.number
    share = b.number.to(a.mean) / count.to(a.mean).clamp(min=torch.finfo(a.mean.dtype).tiny)
    step = b.mean - a.mean
    between = _scatter(step, a.number.to(a.mean) * share, a.scatter)
    return Moments(count, a.mean + step * share[:, None], a.scatter + b.scatter + between)


def over_ranks(local: Moments) -> Moments:
    """Moments of what all ranks hold, in two collectives: the means, then the scatter about them."""
    if world_size() == 1:
        return local
    sums, count = all_reduce_sum([local.mean.double() * local.number[:, None], local.number])
    mean = (sums / count.clamp(min=1)[:, None]).to(local.mean)
    around = local.scatter + _scatter(local.mean - mean, local.number.to(mean), local.scatter)
    return Moments(count, mean, all_reduce_sum([around])[0])


def _scatter(x: Tensor, weight: Tensor, like: Tensor) -> Tensor:
    weighted = x * weight[:, None]
    return (weighted * x).sum(0) if like.ndim == 1 else weighted.mT @ x


def precise(x: Tensor) -> torch.autocast:
    """A context without autocast on the device of `x`."""
    return torch.autocast(device_type=x.device.type, enabled=False)


class RunningMoments(Statistics):
    """Moments of all that was committed, and of what waits for the next commit.

    Attributes:
        seen: bool buffer "c", whether a class was ever committed.
        weight: buffer "c", number of samples, or what `decay` left of it.
        mean: buffer "c d".
        scatter: buffer "d" or "d d".
        count, new_mean, new_scatter: buffers of what was accumulated since the last commit on this rank.
    """

    seen: Tensor
    weight: Tensor
    mean: Tensor
    scatter: Tensor
    count: Tensor
    new_mean: Tensor
    new_scatter: Tensor

    def __init__(self, classes: int, dim: int, *, full: bool, decay: float) -> None:
        super().__init__()
        self.decay = decay
        wide = torch.promote_types(torch.get_default_dtype(), torch.float32)
        scatter = (dim, dim) if full else (dim,)
        self.register_buffer("seen", torch.zeros(classes, dtype=torch.bool))
        self.register_buffer("weight", torch.zeros(classes, dtype=wide))
        self.register_buffer("count", torch.zeros(classes, dtype=torch.int64))
        for prefix in ("", "new_"):
            self.register_buffer(f"{prefix}mean", torch.zeros(classes, dim, dtype=wide))
            self.register_buffer(f"{prefix}scatter", torch.zeros(scatter, dtype=wide))

    def accumulate(self, x: Float[Tensor, "n d"], labels: Int[Tensor, "n"] | None = None) -> None:
        """Add a batch, unless a number in it is not finite: decided on the device."""
        pending = Moments(self.count, self.new_mean, self.new_scatter)
        merged = merge(pending, moments(x.to(self.mean.dtype), labels, pending))
        finite = merged.mean.isfinite().all() & merged.scatter.isfinite().all()
        self.count, self.new_mean, self.new_scatter = (
            torch.where(finite, new, old) for new, old in zip(merged, pending, strict=True)
        )

    def commit(self) -> Tensor:
        """Merge what all ranks accumulated and start over; returns whether there was anything, a bool on the device."""
        new = over_ranks(Moments(self.count, self.new_mean, self.new_scatter))
        sound = new.mean.isfinite().all() & new.scatter.isfinite().all()  # finite on each rank is not yet so together
        new = Moments(*(torch.where(sound, each, 0) for each in new))
        moved = new.number.any()
        kept = 1 - (1 - self.decay) * moved.to(self.weight.dtype)
        merged = merge(Moments(self.weight * kept, self.mean, self.scatter * kept), new)
        self.weight, self.mean, self.scatter = merged
        self.seen = self.seen | (new.number > 0)
        self.count, self.new_mean, self.new_scatter = (torch.zeros_like(each) for each in new)
        return moved
