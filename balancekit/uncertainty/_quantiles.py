"""From a distance to a confidence, by the quantiles of the distances on clean data.

With n calibration distances, of which S(d) are at least d,

    confidence(d) = (1 + S(d)) / (1 + n)

is the conformal p-value of outlier detection (Vovk et al. 2005; Bates et al. 2023, arXiv 2104.08279): on data
like those of the calibration it is uniform in (0, 1], whatever the law or the unit of the distances. S is read from a
histogram of fixed bins, linearly inside a bin: continuous and monotone, with no sorting and no sample kept, and in
integers, which ranks add exactly.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from balancekit._distributed import all_reduce_sum
from balancekit._typing import Float

LOW, OCTAVES, PER_OCTAVE = 2.0**-6, 16, 256  # bins of 0.27 % from 1/64 to 1024, and one more on each side
HIGH, BINS = LOW * 2.0**OCTAVES, OCTAVES * PER_OCTAVE + 2


def position(distance: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Where a distance lies among the bins, in [0, BINS]: continuous and rising, also in the two open bins."""
    middle = 1 + PER_OCTAVE * (distance.clamp(LOW, HIGH) / LOW).log2()
    beyond = torch.where(distance > HIGH, BINS - HIGH / distance, middle)
    return torch.where(distance < LOW, distance / LOW, beyond)


class Calibration(nn.Module):
    """Histograms of clean distances, one for each of several kinds of distance.

    Attributes:
        counts: int64 buffer "m k", what was committed, of all ranks.
        new_counts: int64 buffer "m k", what was added since, on this rank.
    """

    counts: Tensor
    new_counts: Tensor

    def __init__(self, kinds: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(kinds, BINS, dtype=torch.int64))
        self.register_buffer("new_counts", torch.zeros(kinds, BINS, dtype=torch.int64))

    def add(self, distance: Float[Tensor, "m *b"]) -> None:
        """Count distances, unless one of them is not finite: decided on the device."""
        distance = distance.reshape(len(distance), -1)
        index = position(distance).long().clamp(0, BINS - 1)
        counts = self.new_counts.scatter_add(1, index, torch.ones_like(index))
        self.new_counts = torch.where(distance.isfinite().all(), counts, self.new_counts)

    def commit(self, moved: Tensor) -> None:
        """Add what all ranks counted; where the ruler `moved`, forget it all instead."""
        counts = self.counts + all_reduce_sum([self.new_counts])[0]
        self.counts = torch.where(moved, 0, counts)
        self.new_counts = torch.zeros_like(counts)

    def confidence(self, distance: Float[Tensor, "m *b"]) -> Float[Tensor, "m *b"]:
        """Confidence in (0, 1]; 1 where nothing was calibrated."""
        where = position(distance.detach().reshape(len(distance), -1))
        index = where.floor().long().clamp(0, BINS - 1)
        from_here = self.counts.flip(1).cumsum(1).flip(1)
        survival = F.pad(from_here, (0, 1)).to(where.dtype)  # S at each edge of the bins, "m k+1"
        above = torch.lerp(survival.gather(1, index), survival.gather(1, index + 1), where - index)
        return ((1 + above) / (1 + survival[:, :1])).reshape(distance.shape)
