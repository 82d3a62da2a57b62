"""Probabilistic query: a token as a Gaussian whose variance is learned, and read as doubt.

The head of the variational information bottleneck (Alemi et al. 2017, arXiv 1612.00410, Sec. 3 and 4), for each token
x, as the query of a gated adapter in the manner of MMDG++:

    mean = x + W_μ x + b_μ           log_variance = W_σ x + b_σ           σ = exp(log_variance / 2)
    q    = mean + σ · ε              ε ~ N(0, 1)
    confidence = exp(−mean_d σ_d)
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from balancekit._checks import expect, expect_count, expect_device, expect_floating, expect_shape
from balancekit._precision import widen
from balancekit._typing import Float
from balancekit.uncertainty._confidence import exponential_confidence

INITIAL_LOG_VARIANCE = -4.0


class GaussianTokens(NamedTuple):
    """Independent normal distributions, one for each channel of each token.

    Attributes:
        mean: "b n d".
        log_variance: "b n d", log σ², which is neither σ nor log σ.
    """

    mean: Tensor
    log_variance: Tensor

    @property
    def std(self) -> Tensor:
        """The standard deviation σ "b n d", in float32 or wider."""
        return torch.exp(widen(self.log_variance) / 2)

    @property
    def confidence(self) -> Tensor:
        """The confidence exp(-mean σ) "b n" in (0, 1], in float32 or wider."""
        return exponential_confidence(self.std.mean(-1))

    def draw(self, *, generator: torch.Generator | None = None) -> Tensor:
        """One sample "b n d" in the dtype of the mean; gradients reach mean and variance (reparameterisation).

        Args:
            generator: of the draw, on the device of the mean; without it the global stream advances.
        """
        std = self.std
        noise = torch.randn(std.shape, generator=generator, dtype=std.dtype, device=std.device)
        return (self.mean + std * noise).to(self.mean.dtype)


class ProbabilisticQuery(nn.Module):
    """Mean and log-variance of each token, for a query that is sure of itself or not.

    In training, hand on ``query.draw()`` and add :func:`standard_normal_divergence` to the loss with a small weight
    (1e-3 in the paper's best model of MNIST): nothing else keeps σ from falling to 0, where every token is sure. At
    test time hand on ``query.mean``. What σ then says is how much noise the *task* tolerates at a token.

    At the start the mean is the token itself, bit for bit, so that an adapter that gets it as its query is unchanged,
    and σ is exp(-2) = 0.14 everywhere: 2 % of the variance of normalised tokens, and a confidence of 0.87.

    Two d x d maps: behind a projection to the width of the adapter they are small.

    Args:
        dim: width d of a token.
        device: of the parameters.
        dtype: of the parameters.

    Example:
        >>> head, tokens = ProbabilisticQuery(8), torch.randn(2, 5, 8)
        >>> query = head(tokens)
        >>> torch.equal(query.mean, tokens), query.confidence.shape, query.draw().shape
        (True, torch.Size([2, 5]), torch.Size([2, 5, 8]))
        >>> divergence = standard_normal_divergence(query.mean, log_variance=query.log_variance).mean()
    """

    def __init__(
        self, dim: int, *, device: torch.device | str | int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        expect_count("dim", dim)
        super().__init__()
        self.shift = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.log_variance = nn.Linear(dim, dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The mean becomes the token, the log-variance a constant."""
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.constant_(self.log_variance.bias, INITIAL_LOG_VARIANCE)

    def forward(self, tokens: Float[Tensor, "*b d"]) -> GaussianTokens:
        """The distribution of each token "b n d"."""
        dim = self.shift.in_features
        expect_floating("tokens", tokens, f"of shape (b, n, {dim})")
        expect(tokens.ndim >= 1, "tokens", f"a tensor of shape (b, n, {dim})", tokens)
        expect_shape("tokens", tokens, (*tokens.shape[:-1], dim))
        return GaussianTokens(tokens + self.shift(tokens), self.log_variance(tokens))


def standard_normal_divergence(
    mean: Float[Tensor, "*b d"], *, log_variance: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b"]:
    """Kullback-Leibler divergence KL(N(mean, σ²) ‖ N(0, 1)), summed over channels, in nats: the rate of the bottleneck.

        ½ Σ_d (mean² + σ² − 1 − log σ²)

    Its gradient holds σ up: -½ for each unit of log-variance as σ → 0, and 0 at σ = 1.

    Args:
        mean: "b n d".
        log_variance: log σ² "b n d", by keyword, because a σ in its place gives a plausible number.

    Returns:
        The divergence "b n", at least 0, in float32 or wider.

    Example:
        >>> standard_normal_divergence(torch.tensor([[0.0, 2.0]]), log_variance=torch.zeros(1, 2))
        tensor([2.])
    """
    expect_floating("mean", mean, '"b n d"')
    expect(mean.ndim >= 1, "mean", 'a tensor "b n d"', mean)
    expect_floating("log_variance", log_variance, '"b n d"')
    expect_shape("log_variance", log_variance, tuple(mean.shape))
    expect_device("log_variance", log_variance, mean)
    mean, log_variance = widen(mean), widen(log_variance)
    return (mean.square() + torch.expm1(log_variance) - log_variance).sum(-1) / 2
