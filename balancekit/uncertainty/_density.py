"""Feature density: how far a feature or a token lies from those of clean data.

Lee et al. 2018 (arXiv 1807.03888), Eq. 1 and 2, with the covariance S shared by all classes, and per channel:

    uncertainty = sqrt( min_c (x − mean_c)ᵀ S⁻¹ (x − mean_c) / d )

With the position of a token as its class this is PaDiM (Defard et al. 2020, arXiv 2011.08785), but for one covariance
in place of one a position.
"""

from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import (
    expect,
    expect_choice,
    expect_count,
    expect_device,
    expect_floating,
    expect_number,
    in_range,
)
from balancekit._statistics import Statistics
from balancekit._typing import Float, Int
from balancekit.uncertainty._moments import RunningMoments, precise
from balancekit.uncertainty._quantiles import Calibration
from balancekit.uncertainty._whitening import SHRINKAGE, correlations, deviations, principal_gains, shrunk, whitener


class FeatureDensity(Statistics):
    """Distance of features to the training distribution, per channel, in standard deviations.

    The uncertainty is the root mean square of the standardised deviation, Mahalanobis distance / sqrt(d): about 1 on
    data like those of the fit, and without a unit.

    Two passes over clean data, each with as many batches as there are, and a ``commit`` after each:

    1. :meth:`accumulate` the features and :meth:`commit`: means and covariance.
    2. :meth:`calibrate` with features, better with held-out ones, and :meth:`commit`: what :meth:`confidence` needs.

    In a process group ``commit`` merges the statistics of all ranks, and every rank has to call it.

    - Before the first commit, and for the label of a class never seen, the uncertainty is NaN.
    - A non-finite batch is skipped as a whole, without a look at the device from the host; others still count.
    - A commit that moves the statistics forgets the calibration: it was made with another ruler.
    - Statistics are exact up to rounding for any split into batches, also where the mean is large against the
      deviations. They are detached, and stay float32 or wider when the model around them is cast to less.
    - ``DistributedDataParallel`` copies rank 0's buffers to all ranks before each forward: keep the module outside, or
      accumulate nothing across a forward.

    Args:
        dim: width d of a feature.
        covariance: "diag" for the variance of each channel; "full" for the covariance matrix, which wants many times
            more samples than channels; "low-rank" for its `rank` leading directions and an isotropic rest
            (probabilistic PCA, Tipping and Bishop 1999) of the standardised channels.
        rank: number of directions of "low-rank", less than `dim`.
        classes: number of classes c, each with a mean of its own; None for one mean and no labels.
        shrinkage: in [0, 1], how far correlations between channels are drawn to 0; at 1 "full" is "diag". At 0 "full"
            does not change under invertible linear maps of the features, and is NaN where they are dependent.
        decay: weight in [0, 1] of the earlier totals at each commit. With 1 all data count alike; with less, old
            data are forgotten, for features that drift in training.

    A channel that is constant gets a thousandth of the root mean square deviation of all channels.

    Example:
        >>> density = FeatureDensity(2)
        >>> density.accumulate(torch.tensor([[0.0, 10.0], [0.0, 30.0], [2.0, 10.0], [2.0, 30.0]]))
        >>> density.commit()
        >>> clean = torch.tensor([[1.0, 20.0], [2.0, 30.0], [4.0, 50.0]])
        >>> density(clean)
        tensor([0., 1., 3.])
        >>> density.calibrate(clean)
        >>> density.commit()
        >>> density.confidence(torch.tensor([[1.0, 20.0], [9.0, 20.0]]))
        tensor([1.0000, 0.2500])
    """

    origin: Tensor
    scale: Tensor
    centres: Tensor | None
    root: Tensor | None
    basis: Tensor | None
    gain: Tensor | None

    def __init__(
        self,
        dim: int,
        *,
        covariance: Literal["diag", "full", "low-rank"] = "diag",
        rank: int | None = None,
        classes: int | None = None,
        shrinkage: float = SHRINKAGE,
        decay: float = 1.0,
    ) -> None:
        expect_count("dim", dim)
        expect_choice("covariance", covariance, ("diag", "full", "low-rank"))
        if covariance == "low-rank":
            expect_count("rank", rank)
            expect(rank is not None and rank < dim, "rank", f"less than dim = {dim}", rank)
        else:
            expect(rank is None, "rank", 'None unless covariance is "low-rank"', rank)
        if classes is not None:
            expect_count("classes", classes)
        expect_number("shrinkage", shrinkage, low=0.0, high=1.0)
        expect_number("decay", decay, low=0.0, high=1.0)
        super().__init__()
        self.dim, self.covariance, self.rank, self.classes, self.shrinkage = dim, covariance, rank, classes, shrinkage
        self.moments = RunningMoments(classes or 1, dim, full=covariance != "diag", decay=decay)
        self.calibration = Calibration(1)
        for name in ("origin", "scale", "root", "basis", "gain", "centres"):
            self.register_buffer(name, None)
        self._fit()

    def accumulate(self, features: Float[Tensor, "*b d"], labels: Int[Tensor, "*#b"] | None = None) -> None:
        """Add a batch to what the next :meth:`commit` will use; skip it as a whole if a feature is not finite."""
        labels = self._check(features, labels, required=True)
        with torch.inference_mode(False), torch.no_grad(), precise(features):
            rows = None if labels is None else labels.expand(features.shape[:-1]).reshape(-1)
            self.moments.accumulate(features.reshape(-1, self.dim), rows)

    def calibrate(self, features: Float[Tensor, "*b d"], labels: Int[Tensor, "*#b"] | None = None) -> None:
        """Add the distances of clean features to the calibration that the next :meth:`commit` will use.

        Pass labels here if :meth:`confidence` is called with them. A batch with a distance that is not finite is
        skipped as a whole: a non-finite feature, a class never seen, nothing committed yet.
        """
        with torch.inference_mode(False), torch.no_grad():
            self.calibration.add(self(features, labels)[None])

    def commit(self) -> None:
        """Move the statistics by what was accumulated, or else the calibration, on all ranks, and start over."""
        with torch.inference_mode(False), torch.no_grad(), precise(self.origin):
            self.calibration.commit(self.moments.commit())
            self._fit()

    def forward(self, features: Float[Tensor, "*b d"], labels: Int[Tensor, "*#b"] | None = None) -> Float[Tensor, "*b"]:
        """Uncertainty of each feature: distance to the class of its label, or to the nearest class.

        Args:
            features: in any floating dtype; computed in float32 or wider, and differentiable.
            labels: of any shape that broadcasts to that of the features, such as ``torch.arange(n)`` for tokens.
        """
        labels = self._check(features, labels, required=False)
        with precise(features):
            dtype = torch.promote_types(features.dtype, self.origin.dtype)
            z = self._whiten(features.to(dtype))
            if self.centres is None:
                distance = torch.linalg.vector_norm(z, dim=-1)
            elif labels is not None:
                distance = torch.linalg.vector_norm(z - self.centres.to(dtype)[labels], dim=-1)
            else:
                distance = _nearest(z, self.centres.to(dtype), self.moments.seen)
            return distance / self.dim**0.5

    def confidence(
        self, features: Float[Tensor, "*b d"], labels: Int[Tensor, "*#b"] | None = None
    ) -> Float[Tensor, "*b"]:
        """Confidence in (0, 1]: the part of the calibration that lies as far out as this or farther. Detached.

        Uniform on data like those of the calibration, and 1 everywhere before there is one.
        """
        with torch.no_grad():
            return self.calibration.confidence(self(features, labels)[None])[0]

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed module."""
        rank = "" if self.rank is None else f", rank={self.rank}"
        classes = "" if self.classes is None else f", classes={self.classes}"
        end = f"shrinkage={self.shrinkage}, decay={self.moments.decay}"
        return f"dim={self.dim}, covariance={self.covariance!r}{rank}{classes}, {end}"

    def _whiten(self, x: Tensor) -> Tensor:
        x = x - self.origin.to(x.dtype)
        if self.root is not None:
            return x @ self.root.to(x.dtype)
        x.mul_(self.scale.to(x.dtype))  # in place: the call is bound by memory
        if self.basis is None or self.gain is None:
            return x
        basis = self.basis.to(x.dtype)
        return x + (x @ basis * self.gain.to(x.dtype)) @ basis.mT

    def _fit(self) -> None:
        """The map that whitens, from the moments; NaN before there are any."""
        weight, mean, total = self.moments.weight, self.moments.mean, self.moments.weight.sum()
        covariance = self.moments.scatter / total.clamp(min=torch.finfo(total.dtype).tiny)
        std = deviations(covariance if self.covariance == "diag" else covariance.diagonal())
        self.origin = (weight[:, None] * mean).sum(0) / total.clamp(min=torch.finfo(total.dtype).tiny)
        self.scale = torch.where(total > 0, 1 / std, torch.nan)
        if self.covariance != "diag":
            correlation = shrunk(correlations(covariance, std), self.shrinkage)
            if self.rank is None:
                self.root = self.scale[:, None] * whitener(correlation).mT
            else:
                self.basis, self.gain, rest = principal_gains(correlation, self.rank)
                self.scale = self.scale * rest
        if self.classes is not None:
            self.centres = torch.where(self.moments.seen[:, None], self._whiten(mean), torch.nan)

    def _check(self, features: Tensor, labels: Tensor | None, *, required: bool) -> Tensor | None:
        expect_floating("features", features, f"of shape (..., {self.dim})")
        expect(features.shape[-1:] == (self.dim,), "features", f"a tensor of shape (..., {self.dim})", features)
        expect_device("features", features, self.origin)
        if self.classes is None:
            expect(labels is None, "labels", "None where there are no classes", labels)
        if labels is None:
            expect(self.classes is None or not required, "labels", "the class of each feature", labels, error=TypeError)
            return None
        assert self.classes is not None
        shape = tuple(features.shape[:-1])
        expected = f"an integer tensor that broadcasts to the shape {shape}"
        expect(isinstance(labels, Tensor), "labels", expected, labels, error=TypeError)
        sizes = zip(reversed(labels.shape), reversed(shape), strict=False)
        expect(labels.ndim <= len(shape) and all(a in (1, b) for a, b in sizes), "labels", expected, labels)
        in_range("labels", labels, self.classes)
        expect_device("labels", labels, features)
        return labels.long()


def _nearest(z: Tensor, centres: Tensor, seen: Tensor) -> Tensor:
    known = torch.where(seen[:, None], centres, 0)
    flat = z.reshape(-1, z.shape[-1])
    distance = torch.cdist(flat, known, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = torch.where(seen | ~seen.any(), distance, torch.inf).amin(-1)
    return nearest.reshape(z.shape[:-1])
