"""Shapley values: a fair share for each modality of what all of them reach together.

Shapley, "A Value for n-Person Games", 1953. With the value v(S) of every subset S of the M modalities:

    φ_m = Σ over S without m of |S|! (M − |S| − 1)! / M! · (v(S ∪ m) − v(S))

This is the mean of what m adds to those before it, over all M! orders. Sampled, it is that mean over K random orders.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import torch
from torch import Tensor

from balancekit._checks import expect, expect_count, expect_floating, expect_generator, expect_shape, is_real
from balancekit._precision import widen
from balancekit._typing import Float

LARGEST = 10

Step = tuple[str, frozenset[str], int]


def shapley_values(
    value: Callable[[frozenset[str]], Float[Tensor, "..."]],
    modalities: Sequence[str],
    *,
    empty: float | Float[Tensor, "..."] | None = 0.0,
    permutations: int | None = None,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, "..."]]:
    """Shapley value of each modality, from the value of every subset.

    They add up to v(all) − v(∅), sampled or not. A modality that never adds anything gets 0, two that can take each
    other's place get the same (sampled: in expectation), and names mean nothing. Differences are formed and summed in
    float32 or wider, and gradients flow to the values. AGM's code is not consistent about v(∅) (its issue #9).

    Args:
        value: value of a subset, such as its logits with the other modalities masked: floating point, of any shape, the
            same for all. Called once for each subset: 2^M − 1 times, or 2^M times with ``empty=None``.
        modalities: at most 10 names, or any number with `permutations`.
        empty: v(∅), a number, a scalar tensor or one of the shape of the values; None asks `value` for it.
        permutations: draw this many orders in place of all M!: exact in expectation, with at most K · M calls of
            `value`. None for the exact sum.
        generator: draws the orders; None for the global stream.

    Raises:
        TypeError: for a value that is no floating-point tensor.
        ValueError: for repeated names, for more than 10 of them without `permutations`, and for values whose shapes
            differ.

    Example:
        >>> accuracy = {frozenset({"audio"}): 0.5, frozenset({"video"}): 0.25, frozenset({"audio", "video"}): 1.0}
        >>> shapley_values(lambda subset: torch.tensor(accuracy[subset]), ["audio", "video"])
        {'audio': tensor(0.6250), 'video': tensor(0.3750)}
    """
    expect(callable(value), "value", "a callable", value, error=TypeError)
    expect_generator("generator", generator)
    names = _names(modalities)
    if not isinstance(empty, Tensor) and empty is not None:
        expect(is_real(empty), "empty", "a number, a floating-point tensor or None", empty, error=TypeError)
    if permutations is None:
        expected = f"at most {LARGEST} names, or `permutations` to sample the orders"
        expect(len(names) <= LARGEST, "modalities", expected, names)
        steps, whole = _all_steps(names), factorial(len(names))
    else:
        expect_count("permutations", permutations)
        steps, whole = list(_drawn_steps(names, permutations, generator)), permutations  # before `value` can draw
    everything = frozenset(names)
    top = _valued(value, everything)
    if isinstance(empty, Tensor):
        shape = tuple(top.shape)
        expect_floating("empty", empty, f"of shape () or {shape}")
        expect(tuple(empty.shape) in ((), shape), "empty", f"a floating-point tensor of shape () or {shape}", empty)
    known: dict[frozenset[str], Any] = {everything: top}
    if empty is not None:
        known[frozenset()] = widen(empty) if isinstance(empty, Tensor) else empty

    def of(subset: frozenset[str]) -> Any:
        if subset not in known:
            known[subset] = _valued(value, subset)
            expect_shape("value", known[subset], tuple(top.shape))
        return known[subset]

    sums: dict[str, Tensor] = {}
    for name, before, orders in steps:
        term = orders * (of(before | {name}) - of(before))
        sums[name] = sums[name] + term if name in sums else term
    return {name: sums[name] / whole for name in names}


def _names(modalities: Sequence[str]) -> list[str]:
    expected = "a list of names"
    several = isinstance(modalities, Sequence) and not isinstance(modalities, str)
    expect(several, "modalities", expected, modalities, error=TypeError)
    names = list(modalities)
    expect(all(isinstance(name, str) for name in names), "modalities", expected, names, error=TypeError)
    expect(len(names) > 0, "modalities", "at least one name", names)
    expect(len(set(names)) == len(names), "modalities", "names that differ", names)
    return names


def _valued(value: Callable[[frozenset[str]], Tensor], subset: frozenset[str]) -> Tensor:
    found = value(subset)
    expect_floating("value", found, "for every subset")
    return widen(found)


def _all_steps(names: list[str]) -> Iterator[Step]:
    """Each modality, each subset without it, and in how many of the M! orders exactly that subset comes before it.

    Whole numbers, divided once at the end: sums of whole values are exact, and so are their ties.
    """
    for size in range(len(names)):
        orders = factorial(size) * factorial(len(names) - size - 1)
        for subset in combinations(names, size):
            for name in names:
                if name not in subset:
                    yield name, frozenset(subset), orders


def _drawn_steps(names: list[str], permutations: int, generator: torch.Generator | None) -> Iterator[Step]:
    device = generator.device if generator is not None else None
    for _ in range(permutations):
        before: frozenset[str] = frozenset()
        for place in torch.randperm(len(names), generator=generator, device=device).tolist():
            yield names[place], before, 1
            before |= {names[place]}
