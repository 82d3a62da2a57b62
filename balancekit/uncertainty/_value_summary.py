"""Mean and variance of a regression's samples from running totals: no sample is kept.

The samples are an equal mixture of s components with means m_s and variances v_s. By the law of total variance
(Lakshminarayanan et al. 2017, arXiv 1612.01474, Sec. 2.4),

    total = mean_s v_s  +  mean_s (m_s − mean)²
            aleatoric      epistemic
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from balancekit._checks import expect, expect_device, expect_floating, expect_shape
from balancekit._distributed import all_reduce_sum, expect_agreement, world_size
from balancekit._precision import widen
from balancekit._typing import Float
from balancekit.uncertainty._sample_moments import SampleMoments


class ValueStatistics(NamedTuple):
    """What a :class:`ValueSummary` computes, all of the shape of one sample; variances in squared units.

    Attributes:
        mean: over the samples.
        epistemic: variance of the samples, with divisor s: one sample has 0.
        aleatoric: mean of the variances that were given with the samples, 0 if none were.
        total: their sum, the variance of the mixture.
        std: square root of `total`, in the unit of the values.
        samples: number of samples s.
    """

    mean: Tensor
    epistemic: Tensor
    aleatoric: Tensor
    total: Tensor
    std: Tensor
    samples: int


class ValueSummary:
    """Streams samples of values, each with a variance if the model predicts one, into mean and variances.

    Deviations are taken from the first sample before anything is summed, so that a mean that is large against them
    costs no digits. Chunks, order, merges, NaN and dtypes are as for :class:`ProbabilitySummary`.

    Example:
        >>> summary = ValueSummary()
        >>> summary.update(torch.tensor([[1.0, 5.0], [3.0, 5.0]]), variance=torch.tensor([[0.5, 0.2], [1.5, 0.2]]))
        >>> statistics = summary.compute()
        >>> statistics.mean, statistics.epistemic, statistics.aleatoric, statistics.total
        (tensor([2., 5.]), tensor([1., 0.]), tensor([1.0000, 0.2000]), tensor([2.0000, 0.2000]))
    """

    def __init__(self) -> None:
        self._moments: SampleMoments | None = None  # of the samples minus the origin
        self._origin = torch.empty(0)
        self._variances: Tensor | None = None

    def update(self, values: Float[Tensor, "s *b"], variance: Float[Tensor, "s *b"] | None = None) -> None:
        """Take in samples of the same inputs as before; one alone is ``values[None]``.

        Args:
            values: any number of samples.
            variance: of the distribution around each value, not a standard deviation, nor a log-variance; with every
                update or with none.
        """
        expect_floating("values", values, '"s ..."')
        expect(values.ndim >= 1 and values.shape[0] > 0, "values", 'a tensor "s ..." with at least one sample', values)
        if variance is not None:
            expect_floating("variance", variance, '"s ..."')
            expect_shape("variance", variance, tuple(values.shape))
            expect_device("variance", variance, values)
        if self._moments is not None:
            expect_shape("values", values, (values.shape[0], *self._origin.shape))
            expect_device("values", values, self._origin)
            given = self._variances is not None
            expect((variance is not None) is given, "variance", _before(given=given), variance)
        with torch.inference_mode(False), torch.no_grad():  # what comes from inference mode makes ordinary totals
            for s, sample in enumerate(values):
                self._add(widen(sample), None if variance is None else widen(variance[s]))

    def _add(self, value: Tensor, variance: Tensor | None) -> None:
        if self._moments is None:
            self._origin = value.clone()
            self._moments = SampleMoments(value - self._origin)
            self._variances = None if variance is None else variance.clone()
            return
        self._moments.add(value - self._origin)
        if variance is not None:
            assert self._variances is not None
            self._variances.add_(variance)

    def merge(self, other: "ValueSummary") -> None:
        """Take in all samples of `other`, which stays as it is."""
        expect(isinstance(other, ValueSummary), "other", "a ValueSummary", other, error=TypeError)
        if other._moments is None:
            return
        if self._moments is None:
            with torch.inference_mode(False):
                vars(self).update(copy.deepcopy(vars(other)))
            return
        expect_shape("other", other._origin, tuple(self._origin.shape))
        expect_device("other", other._origin, self._origin)
        given = self._variances is not None
        expect((other._variances is not None) is given, "other", _before(given=given), other._variances)
        with torch.inference_mode(False), torch.no_grad():
            mean = other._moments.mean + (other._origin - self._origin)
            self._moments.add(mean, other._moments.count, other._moments.squares)
            if self._variances is not None and other._variances is not None:
                self._variances.add_(other._variances)

    def compute(self, *, sync: bool = False) -> ValueStatistics:
        """The statistics of all samples so far; more may follow.

        Args:
            sync: with the samples of all ranks; see :meth:`ProbabilitySummary.compute`. All ranks must have given
                variances, or none.
        """
        if sync:
            form = self._moments and (tuple(self._origin.shape), self._origin.dtype, self._variances is not None)
            expect_agreement("shape, dtype and whether there are variances", form, self._origin.device)
        expect(self._moments is not None, "summary", "at least one update", "none", error=RuntimeError)
        assert self._moments is not None
        if sync and world_size() > 1:
            return self._of_all_ranks().compute()
        with torch.no_grad():
            epistemic, samples = self._moments.variance(), self._moments.count
            variances = self._variances
            aleatoric = torch.zeros_like(epistemic) if variances is None else variances / samples
            total = aleatoric + epistemic
            mean = self._origin + self._moments.mean
            return ValueStatistics(mean, epistemic, aleatoric, total, total.sqrt(), samples)

    def _of_all_ranks(self) -> "ValueSummary":
        everything = copy.deepcopy(self)
        assert everything._moments is not None
        (origins,) = all_reduce_sum([self._origin])
        everything._origin = origins / world_size()
        everything._moments.mean += self._origin - everything._origin
        everything._moments.merge_ranks()
        if self._variances is not None:
            (everything._variances,) = all_reduce_sum([self._variances])
        return everything


def _before(*, given: bool) -> str:
    return "a variance, as there was one before" if given else "None, as there was no variance before"
