"""Cross-modal disagreement: how badly a modality's token is predicted from the others' tokens.

All modalities' channels are standardised and joined. With the correlations C of clean data, in blocks m (one modality)
and o (all others), the ridge regression of z_m on z_o and the covariance of its residual are closed forms:

    B = C_mo (C_oo + ridge · I)⁻¹                                 Hoerl and Kennard 1970, Eq. 2.1
    r = z_m − B z_o
    R = C_mm − B C_om − C_mo Bᵀ + B C_oo Bᵀ
    uncertainty_m = sqrt( rᵀ R⁻¹ r / d_m )
"""

import itertools
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from balancekit._checks import expect, expect_choice, expect_count, expect_device, expect_floating, expect_number
from balancekit._statistics import Statistics
from balancekit._typing import Float
from balancekit.uncertainty._moments import RunningMoments, precise
from balancekit.uncertainty._quantiles import Calibration
from balancekit.uncertainty._whitening import SHRINKAGE, cholesky, correlations, deviations, identity, shrunk, whitener


class CrossModalResidual(Statistics):
    """Distance of each modality's token to what the other modalities predict, per channel, in standard deviations.

    Each part may look like clean data and the whole be wrong: a frame of another person, a shifted crop, a mirror
    image. The density of one modality cannot see that; a prediction across modalities can. It cannot say whose fault it
    is: with two modalities both residuals grow, with more the modality at fault has most of it.

    The uncertainty is the root mean square of the standardised residual: about 1 on data like those of the fit, and
    without a unit. Fit and calibration are those of :class:`FeatureDensity`: `accumulate` and `commit`, then
    `calibrate` and `commit`, and the same rules hold for ranks, non-finite batches, precision and
    ``DistributedDataParallel``. It is NaN before the first commit.

    Args:
        dims: width d of each modality's tokens, by name.
        context: widths, by name, of what else helps to predict and is not predicted itself, such as the place of a
            token (one of n) or the tokens around it. All three modalities' neighbours see a seam within one of them.
        ridge: added to the variances, all 1, of the channels that predict. It limits what is made of channels that
            are nearly dependent; the price is a little bias.
        covariance: of the residual: "diag" for the variance of each channel, "full" for the matrix.
        decay: weight in [0, 1] of the earlier totals at each commit, as for :class:`FeatureDensity`.

    Example:
        >>> residual = CrossModalResidual({"rgb": 1, "depth": 1}, ridge=0.0)
        >>> rgb = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
        >>> residual.accumulate({"rgb": rgb, "depth": 2 * rgb + torch.tensor([[-1.0], [1.0], [-1.0], [1.0]])})
        >>> residual.commit()
        >>> residual({"rgb": torch.tensor([1.0]), "depth": torch.tensor([-3.0])})["depth"].round()
        tensor(5.)
    """

    mean: Tensor
    root: Tensor

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        context: Mapping[str, int] | None = None,
        ridge: float = 1e-2,
        covariance: Literal["diag", "full"] = "diag",
        decay: float = 1.0,
    ) -> None:
        expect(isinstance(dims, Mapping), "dims", "a mapping from names to widths", dims, error=TypeError)
        context = {} if context is None else context
        expect(isinstance(context, Mapping), "context", "a mapping from names to widths", context, error=TypeError)
        for argument, widths in (("dims", dims), ("context", context)):
            for name, dim in widths.items():
                expect(isinstance(name, str), argument, "names that are strings", name, error=TypeError)
                expect_count(f"{argument}[{name!r}]", dim)
        expect(not dims.keys() & context.keys(), "context", f"names other than {', '.join(dims)}", dict(context))
        enough = len(dims) >= 1 and len(dims) + len(context) >= 2
        expect(enough, "dims", "two modalities or more, or one and a context", dict(dims))
        expect_number("ridge", ridge, low=0.0, high=float("inf"), high_open=True)
        expect_choice("covariance", covariance, ("diag", "full"))
        expect_number("decay", decay, low=0.0, high=1.0)
        super().__init__()
        self.dims, self.context, self.ridge, self.covariance = dict(dims), dict(context), ridge, covariance
        self._widths = self.dims | self.context
        self.moments = RunningMoments(1, sum(self._widths.values()), full=True, decay=decay)
        self.calibration = Calibration(len(dims))
        self.register_buffer("mean", None)
        self.register_buffer("root", None)
        self._fit()

    def accumulate(self, tokens: Mapping[str, Float[Tensor, "..."]]) -> None:
        """Add tokens "... d" of all modalities to what the next :meth:`commit` will use, unless one is not finite."""
        joined = self._join(tokens)
        with torch.inference_mode(False), torch.no_grad(), precise(joined):
            self.moments.accumulate(joined.flatten(0, -2) if joined.ndim > 1 else joined[None])

    def calibrate(self, tokens: Mapping[str, Float[Tensor, "..."]]) -> None:
        """Add the residuals of clean tokens to the calibration, unless one of them is not finite."""
        with torch.inference_mode(False), torch.no_grad():
            self.calibration.add(torch.stack(list(self(tokens).values())))

    def commit(self) -> None:
        """Move the statistics by what was accumulated, or else the calibration, on all ranks, and start over."""
        with torch.inference_mode(False), torch.no_grad(), precise(self.mean):
            self.calibration.commit(self.moments.commit())
            self._fit()

    def forward(self, tokens: Mapping[str, Float[Tensor, "..."]]) -> dict[str, Float[Tensor, "..."]]:
        """Uncertainty "..." of each modality's tokens "... d", which all have the same leading shape.

        Tokens may be of any floating dtype; computed in float32 or wider, and differentiable.
        """
        joined = self._join(tokens)
        with precise(joined):
            residuals = ((joined - self.mean.to(joined)) @ self.root.to(joined)).split(list(self.dims.values()), -1)
            return {
                name: torch.linalg.vector_norm(residual, dim=-1) / dim**0.5
                for (name, dim), residual in zip(self.dims.items(), residuals, strict=True)
            }

    def confidence(self, tokens: Mapping[str, Float[Tensor, "..."]]) -> dict[str, Float[Tensor, "..."]]:
        """Confidence in (0, 1] of each token: the part of the calibration with a residual as large or larger. Detached.

        Uniform on data like those of the calibration, and 1 everywhere before there is one.
        """
        with torch.no_grad():
            confidence = self.calibration.confidence(torch.stack(list(self(tokens).values())))
            return dict(zip(self.dims, confidence, strict=True))

    def extra_repr(self) -> str:
        """What stands between the parentheses of the printed module."""
        context = f", context={self.context}" if self.context else ""
        return f"{self.dims}{context}, ridge={self.ridge}, covariance={self.covariance!r}, decay={self.moments.decay}"

    def _fit(self) -> None:
        """The joint map from all tokens to all whitened residuals; NaN before there are moments."""
        weight = self.moments.weight.sum()
        covariance = self.moments.scatter / weight.clamp(min=torch.finfo(weight.dtype).tiny)
        parts = covariance.diagonal().split(list(self._widths.values()))
        std = torch.cat([deviations(variance) for variance in parts])  # each modality has its own unit
        correlation = correlations(covariance, std)
        stops = list(itertools.accumulate(self.dims.values()))
        starts = [0, *stops[:-1]]
        maps = [self._residual(correlation, start, stop) for start, stop in zip(starts, stops, strict=True)]
        root = (torch.cat(maps) / std).mT.contiguous()
        self.mean = self.moments.mean[0]
        self.root = torch.where(weight > 0, root, torch.nan)

    def _residual(self, c: Tensor, start: int, stop: int) -> Tensor:
        """The map "d_m D" from all standardised channels to the whitened residual of those from `start` to `stop`."""
        channels = torch.arange(len(c), device=c.device)
        own, others = channels[start:stop], torch.cat([channels[:start], channels[stop:]])
        c_oo, c_om = c[others][:, others], c[others][:, own]
        b = torch.cholesky_solve(c_om, cholesky(c_oo + self.ridge * identity(c_oo))).mT
        to_residual = identity(c)[own].index_copy(1, others, -b)
        r = to_residual @ c @ to_residual.mT
        std = deviations(r.diagonal())
        to_residual = to_residual / std[:, None]
        if self.covariance == "diag":
            return to_residual
        return whitener(shrunk(correlations(r, std), SHRINKAGE)) @ to_residual

    def _join(self, tokens: Mapping[str, Tensor]) -> Tensor:
        names = ", ".join(self._widths)
        expect(isinstance(tokens, Mapping), "tokens", f"a mapping with {names}", tokens, error=TypeError)
        expect(tokens.keys() == self._widths.keys(), "tokens", f"tokens of exactly {names}", list(tokens))
        shape = None
        for name, dim in self._widths.items():
            argument, each = f"tokens[{name!r}]", tokens[name]
            expect_floating(argument, each, f"of shape (..., {dim})")
            shape = tuple(each.shape[:-1]) if shape is None else shape
            expect(each.shape == (*shape, dim), argument, f"a tensor of shape {(*shape, dim)}", each)
            expect_device(argument, each, self.mean)
        dtype = self.mean.dtype
        for each in tokens.values():
            dtype = torch.promote_types(dtype, each.dtype)
        return torch.cat([tokens[name].to(dtype) for name in self._widths], -1)
