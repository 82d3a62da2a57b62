"""Whole training steps with this library's engine."""

from typing import Any

from balancekit import Rebalancer, ReGrad

from .problem import Problem
from .procedures import Run


def rebalanced(problem: Problem, **options: Any) -> Run:
    """A step with ReGrad and the given options of :class:`Rebalancer`."""
    return with_balancer(problem, Rebalancer(problem.branches, ReGrad(), **options))


def with_balancer(problem: Problem, balancer: Rebalancer) -> Run:
    """A step with a balancer that is at hand."""

    def step() -> None:
        total, losses = problem.losses()
        balancer(total, losses, confidence=problem.confidence).backward()

    return step
