"""MMPareto: let a branch follow the total and its own loss as far as both gain, and keep the step long.

Wei & Hu, "MMPareto: Boosting Multimodal Learning with Innocent Unimodal Assistance", ICML 2024 (arXiv 2405.17730). For
an encoder with the gradients a of the total and b of its unimodal loss:

    <a, b> > 0:    k = (½, ½)
    otherwise:     k_0 = (|b|² - <a, b>) / |a - b|²,  k_1 = 1 - k_0        (the shortest combination)

    g ← 2 k_0 a + 2 k_1 b,        g ← γ max(1, |a + b| / |g|) g

There are two granularities: k is chosen for the whole encoder, the length is restored tensor by tensor. Here the first
is the branch, the second the granule. Where several unimodal losses reach a branch, b is the sum of their gradients; in
late fusion that is the branch's own loss alone, which is the paper's case.

With A = |a|², B = |b|², D = <a, b> from the Gram matrices, and those of a branch added up over its granules in a common
unit, the weights of the rows are

    γ max(2, |a + b| / |k_0 a + k_1 b|) (k_0, k_1, …, k_1)
"""

import torch
from torch import Tensor

from balancekit._checks import expect_number
from balancekit._typing import Float, Int
from balancekit.surgery._rule import Step


def mmpareto_weights(
    gram: Float[Tensor, "g r r"], owner: Int[Tensor, "g"], units: Float[Tensor, "g"], gamma: float = 1.5
) -> Float[Tensor, "g r"]:
    """Weights of the rows: row 0 is a, the sum of the others b.

    A branch that only one of a and b reaches has no conflict: k = (½, ½). A granule that only one of them reaches, in a
    branch that both reach, follows the equations. Where the combination is zero, no factor makes it longer, and it
    stays zero.

    Args:
        gram: inner products of the gradients on each granule, in units of its own. The row of an absent modality is 0.
        owner: the branch of each granule.
        units: the inner products of granule g are ``units[g]² · gram[g]``.
        gamma: γ.
    """
    total, each, pairs = gram[:, 0, 0], gram[:, 0, 1:], gram[:, 1:, 1:].flatten(1)
    sums = torch.stack([total, each.sum(-1), pairs.sum(-1)], -1)  # "g 3": A, D, B
    noise = torch.stack([total, each.abs().sum(-1), pairs.abs().sum(-1)], -1)

    of_branch = owner.unsqueeze(-1) == torch.arange(gram.shape[-1] - 1, device=gram.device)
    unit = torch.where(of_branch, units.unsqueeze(-1), 0).amax(0)[owner]
    square = (units / torch.where(unit > 0, unit, 1)).square().unsqueeze(-1)
    add_up = of_branch.unsqueeze(-1)  # no matrix product: it may be TF32, and 0 · inf would cross branches
    over_branch = _settled(
        torch.where(add_up, (square * sums).unsqueeze(1), 0).sum(0),
        torch.where(add_up, (square * noise).unsqueeze(1), 0).sum(0),
    )[owner]
    a, dot, b = over_branch.unbind(-1)
    conflict = (dot <= 0) & (a > 0) & (b > 0)
    apart = torch.where(conflict, a + b - 2 * dot, 1)
    k0 = torch.where(conflict, (b - dot) / apart, 0.5)  # inside (0, 1) by itself, as dot ≤ 0
    k1 = torch.where(conflict, (a - dot) / apart, 0.5)

    longest = torch.maximum(k0 * sums[:, 0].sqrt(), k1 * noise[:, 2].sqrt())
    p, q = (torch.where(longest > 0, k / longest, 0) for k in (k0, k1))  # so that no square underflows
    before, after = _length(sums, noise, torch.ones_like(p), torch.ones_like(q)), _length(sums, noise, p, q)
    factor = torch.where(after > 0, before / torch.where(after > 0, after, 1), 0)
    on_a, on_b = (gamma * torch.maximum(2 * k, factor * each) for k, each in ((k0, p), (k1, q)))
    return torch.cat([on_a.unsqueeze(-1), on_b.unsqueeze(-1).expand(-1, gram.shape[-1] - 1)], -1)


def _length(sums: Tensor, noise: Tensor, p: Tensor, q: Tensor) -> Float[Tensor, "g"]:
    """|p a + q b| of each granule."""
    coefficients = torch.stack([p * p, 2 * p * q, q * q], -1)
    return _settled((coefficients * sums).sum(-1), (coefficients * noise).sum(-1)).clamp(min=0).sqrt()


def _settled(total: Tensor, noise: Tensor) -> Tensor:
    """A sum, or 0 where it is below its own rounding error: terms that cancel must not leave a sign."""
    return torch.where(total.abs() <= 16 * torch.finfo(total.dtype).eps * noise, 0, total)


class MMPareto:
    """The rule of MMPareto: where the total and a branch's own loss conflict, a direction that serves both.

    Properties to know: where they conflict the shorter of the two gradients has the larger part, and the result is made
    as long as the plain sum, so a vanishing loss may take over its branch; and the result jumps where their cosine
    crosses 0. `gamma` then lengthens every gradient of the branches by half, which is a larger learning rate for SGD
    and nothing for Adam. Parameters outside the branches, such as heads, are not touched, as in the paper.

    The paper adds the unimodal losses with weight 1. With ``per="tensor"`` the two granularities are the paper's.

    Args:
        gamma: the last factor, 1.5 in the paper's released code.

    Example:
        The gradients (2, 0) of the total and (-1, 1) of the loss conflict. The shortest combination, k = (0.4, 0.6),
        points to (1, 3); γ = 1.5 times the length of the sum (1, 1) makes it 2.12 long.

        >>> from balancekit.surgery import Step
        >>> step = Step(*torch.zeros(3, 1), torch.ones(1, dtype=torch.bool), torch.tensor([0]), torch.ones(1))
        >>> g = torch.tensor([[2.0, 0.0], [-1.0, 1.0]])
        >>> MMPareto()((g @ g.T)[None], step) @ g
        tensor([[0.6708, 2.0125]])

    Method:
        Name: MMPareto
        Paper: Wei and Hu, ICML 2024
        Equation: weights of Pareto directions
        Hook: backward
        Cost: up to M more passes where losses meet
        Modalities: any
        Test: tests/oracles/test_rules.py
    """

    uses_total = True

    def __init__(self, *, gamma: float = 1.5) -> None:
        expect_number("gamma", gamma, low=0.0, high=float("inf"), low_open=True, high_open=True)
        self.gamma = gamma

    def __call__(self, gram: Float[Tensor, "g r r"], step: Step) -> Float[Tensor, "g r"]:
        """Return the weights; that of an absent modality is 0."""
        weights = mmpareto_weights(gram, step.owner, step.units.to(gram.dtype), self.gamma)
        return torch.cat([weights[:, :1], weights[:, 1:] * step.present], dim=-1)

    def __repr__(self) -> str:
        return f"MMPareto(gamma={self.gamma})"
