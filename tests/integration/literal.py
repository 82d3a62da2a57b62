"""One step by the Rebalancer beside one by the literal loop of the oracle, on the same graph."""

import torch
from torch import Tensor, nn

from balancekit import Rebalancer
from balancekit.surgery import Surgery
from tests.oracles import regrad as oracle

Gradients = dict[Tensor, Tensor]


def by_hand(balancer: Rebalancer, total: Tensor | None, losses: dict[str, Tensor], **options: object) -> Gradients:
    """What one backward owes to every trainable parameter of the model; the graph stays. ReGrad, confidence 0.5."""
    branches = {name: [p for p in own if p.requires_grad] for name, own in balancer.branches.items()}
    owned = {p for own in branches.values() for p in own}
    return oracle.step(
        total,
        losses,
        branches,
        [p for p in balancer.branches.model.parameters() if p.requires_grad and p not in owned],
        confidence=dict.fromkeys(losses, 0.5),
        speed={name: -loss.item() for name, loss in losses.items()},
        **{"weight": balancer.weight, "per": balancer.per, "rest": balancer.rest, **options},
    )


def join(balancer: Rebalancer, total: Tensor | None, losses: dict[str, Tensor]) -> Tensor:
    """The loss of the Rebalancer, with the facts that :func:`by_hand` assumes."""
    return balancer(total, losses, confidence=dict.fromkeys(losses, 0.5))


def check(expected: Gradients, *, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    """Each tensor's ``.grad`` is what was expected; none counts as zero."""
    for tensor, gradient in expected.items():
        found = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
        torch.testing.assert_close(found, gradient, rtol=rtol, atol=atol)


def step(
    balancer: Rebalancer, total: Tensor | None, losses: dict[str, Tensor], *, rtol: float = 1e-10, atol: float = 1e-12
) -> Surgery:
    """One backward, compared; `.grad` is cleared before and left as it was found after. Returns what the hook saw."""
    expected = by_hand(balancer, total, losses)
    balancer.branches.model.zero_grad()
    seen: list[Surgery] = []
    handle = balancer.register_step_hook(seen.append)
    join(balancer, total, losses).backward()
    handle.remove()
    check(expected, rtol=rtol, atol=atol)
    (surgery,) = seen
    return surgery


def close(model: nn.Module, reference: nn.Module, *, atol: float = 3e-7) -> None:
    """The gradients of two float32 models, a missing one counting as zero."""
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        found = torch.zeros_like(a) if a.grad is None else a.grad
        expected = torch.zeros_like(b) if b.grad is None else b.grad
        torch.testing.assert_close(found, expected, rtol=atol, atol=atol)
