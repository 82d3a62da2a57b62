"""Mean and variance of samples that come one by one, or in groups, without a second look at any.

Chan, Golub and LeVeque 1979 (STAN-CS-79-773), Eq. 2.1: two groups of n and n' samples, each with its mean and its sum
of squared deviations, are together

    delta   = mean' − mean
    mean    = mean + delta · n' / (n + n')
    squares = squares + squares' + delta² · n · n' / (n + n')

One sample is a group with squares' = 0: Welford's method. No large numbers are subtracted, as in Σ x² − (Σ x)² / n.
"""

from torch import Tensor

from balancekit._distributed import all_reduce_sum


class SampleMoments:
    """`count`, `mean` and `squares` of the samples so far, element by element; in place, so hand out copies."""

    def __init__(self, first: Tensor) -> None:
        self.count = 1
        self.mean = first.clone()
        self.squares = first - first  # 0, but NaN where the sample is not finite

    def add(self, mean: Tensor, count: int = 1, squares: Tensor | None = None) -> None:
        """Take in one sample, or a group."""
        total = self.count + count
        delta = mean - self.mean
        self.mean.add_(delta, alpha=count / total)
        self.squares.addcmul_(delta, delta, value=self.count * count / total)
        if squares is not None:
            self.squares.add_(squares)
        self.count = total

    def variance(self) -> Tensor:
        """Mean squared deviation of the samples as they are: one alone has none."""
        return self.squares / self.count

    def merge_ranks(self) -> None:
        """Take in the groups of all other ranks, in two collectives: the means, then the squares about their mean."""
        sums, counts = all_reduce_sum([self.mean * self.count, self.mean.new_tensor(self.count).long()])
        mean = sums / counts
        delta = self.mean - mean
        (self.squares,) = all_reduce_sum([self.squares.addcmul(delta, delta, value=self.count)])
        self.mean, self.count = mean, int(counts)
