"""Nodes that the autograd graph cannot be seen through, and gradients that nobody may write to."""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Mix(torch.autograd.Function):
    """All branches in one node. It claims to reach every input; `ahead` is what output i truly has of input i + 1.

    Input `cut` gets no gradient at all: None, or a zero.
    """

    @staticmethod
    def forward(ctx: Any, ahead: float, cut: int | None, answer: str, *features: Tensor) -> tuple[Tensor, ...]:
        ctx.rest = ahead, cut, answer
        shifted = features[1:] + features[:1]
        return tuple(1.5 * own + ahead * other for own, other in zip(features, shifted, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ahead, cut, answer = ctx.rest
        shifted = gradients[-1:] + gradients[:-1]
        out: list[Tensor | None] = [1.5 * own + ahead * other for own, other in zip(gradients, shifted, strict=True)]
        if cut is not None:
            out[cut] = None if answer == "none" else torch.zeros_like(gradients[cut])
        return None, None, None, *out


class Twin(torch.autograd.Function):
    """a + b, which returns one tensor as the gradient of both."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], gradients[0]


class Kept(NamedTuple):
    """A gradient that a Keep node has handed out and may hand out again."""

    seed: Tensor
    vector: Tensor
    gradient: Tensor


class Keep(torch.autograd.Function):
    """<vector, parameter>, whose gradient is its saved vector itself, or a result that it keeps and returns again."""

    @staticmethod
    def forward(ctx: Any, kept: list[Kept], vector: Tensor, parameter: Tensor) -> Tensor:
        ctx.save_for_backward(vector)
        ctx.kept, ctx.copy = kept, vector.clone()
        return (vector * parameter).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (seed,), (vector,) = gradients, ctx.saved_tensors
        for old in ctx.kept:
            if torch.equal(old.vector, ctx.copy) and torch.equal(old.seed, seed):
                return None, None, old.gradient
        gradient = vector if seed == 1 else seed * vector
        ctx.kept.append(Kept(seed.clone(), ctx.copy, gradient))
        return None, None, gradient


@cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    def pair(a: Tensor, b: Tensor, ahead: Tensor) -> tuple[Tensor, Tensor]:
        return torch.tanh(1.1 * a + ahead * b), b + torch.sin(b) + ahead * a * b

    return torch.compile(pair, backend="aot_eager", dynamic=True)


def compiled_pair(a: Tensor, b: Tensor, ahead: float) -> tuple[Tensor, Tensor]:
    """Two branches through one compiled region; where `ahead` is 0 they only seem to meet.

    Its graph serves several passes if ``torch._functorch.config.donated_buffer`` is False.
    """
    with warnings.catch_warnings():  # torch's compiler stack warns of torch's own deprecations
        warnings.simplefilter("ignore")
        return _compiled()(a, b, torch.tensor(ahead, dtype=a.dtype))


def warm_up() -> None:
    """Compile now, for inputs with and without gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for wanted in ((True, True), (True, False), (False, True)):
            a, b = (torch.ones(3, 4, dtype=torch.float64, requires_grad=each) for each in wanted)
            torch.stack(compiled_pair(a, b, 0.5)).sum().backward()
