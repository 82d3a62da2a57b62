"""The standard deviation over T passes of dropout on the number 1: its law, and a few numbers that stand for it.

The number of passes that keep it is Binomial(T, 1-p). j and T-j of them give the same deviation, so it has T//2 + 1
values, and E exp(-s · spread) is a sum of that many exponentials:

    spread(j) = sqrt(j (T-j) / (T (T-1))) / (1-p)          j = 0 .. T//2

Spread 0, where all passes agree, costs no exponential and is all that is left for large s: it stays as it is. Gauss
quadrature (Golub & Welsch 1969) of the rest has n nodes, and is exact for polynomials of degree 2n-1:

    Σ_j P(j) exp(-s · spread(j))  ≈  P(0) + Σ_i weight_i exp(-s · node_i)

For T = 20, p = 0.3 two nodes are right to 1.4e-4 for every s ≥ 0. Of the whole law, three would be wrong by P(0) = 8e-4
for large s; at p = 0.1, where P(0) = 0.12, so would four.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from itertools import pairwise

Law = Sequence[tuple[float, float]]  # values in rising order, and their probabilities


def spread_law(p: float, samples: int, tolerance: float = 0.0) -> Law:
    """The law of the spread, from value 0 upwards; or a short one with the same expectations.

    Args:
        p: probability to drop.
        samples: number T of passes.
        tolerance: 0 for the exact law. Otherwise 0 and the fewest nodes with which E exp(-s · spread) is wrong by less
            than this for every s ≥ 0.
    """
    # for a compiler, fabs and index turn what may be symbols into numbers, with a guard
    return _constant_law(math.fabs(p), operator.index(samples), tolerance)


def _constant_law(p: float, samples: int, tolerance: float) -> Law:
    return _cached_law(p, samples, tolerance)


# What torch.compiler.assume_constant_result does, which would load the compiler: a trace calls the function, and holds
# its result as a constant.
_constant_law._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]


@functools.lru_cache(maxsize=256)
def _cached_law(p: float, samples: int, tolerance: float) -> Law:
    never, *rest = _exact_law(p, samples)
    if tolerance > 0:
        rest = [atom for atom in rest if atom[1] > 1e-15] or rest[:1]  # with p = 0 one stays, to hand on a NaN
        rules = (gauss(rest, n) for n in range(1, len(rest)))
        rest = next((nodes for nodes in rules if _gap(rest, nodes) < tolerance), rest)
    return (never, *rest)


def _exact_law(p: float, samples: int) -> list[tuple[float, float]]:
    law = []
    for j in range(samples // 2 + 1):
        value = math.sqrt(j * (samples - j) / (samples * (samples - 1))) / (1 - p)
        law.append((value, sum(_binomial(k, samples, 1 - p) for k in {j, samples - j})))
    return law


def _binomial(k: int, n: int, q: float) -> float:
    """Probability of k successes in n trials of probability q > 0."""
    if q == 1:
        return float(k == n)
    log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log_choose + k * math.log(q) + (n - k) * math.log1p(-q))


def gauss(law: Law, n: int) -> list[tuple[float, float]]:
    """Gauss quadrature: `n` nodes and weights for a law of more values.

    The orthogonal polynomials come from Stieltjes' procedure; with their norms h_k,

        p_(k+1)(x) = (x - a_k) p_k(x) - b_k p_(k-1)(x),    a_k = <x p_k, p_k> / h_k,    b_k = h_k / h_(k-1)

    The nodes are the roots of p_n, and the weight of a node is 1 / Σ_(k<n) p_k(node)² / h_k.
    """
    a: list[float] = []
    b: list[float] = []
    h: list[float] = []

    def polynomials(x: float) -> list[float]:
        p = [0.0, 1.0]
        for a_k, b_k in zip(a, b, strict=True):
            p.append((x - a_k) * p[-1] - b_k * p[-2])
        return p[1:]

    for k in range(n):
        square = [weight * polynomials(value)[k] ** 2 for value, weight in law]
        h.append(math.fsum(square))
        a.append(math.fsum(value * s for (value, _), s in zip(law, square, strict=True)) / h[k])
        b.append(h[k] / h[k - 1] if k else 0.0)
    nodes: list[float] = []
    for k in range(1, n + 1):  # the roots of p_k have those of p_(k-1) between them
        fences = pairwise([law[0][0], *nodes, law[-1][0]])
        nodes = [_root(lambda x, k=k: polynomials(x)[k], low, high) for low, high in fences]
    return [(x, 1 / math.fsum(p**2 / h_k for p, h_k in zip(polynomials(x), h, strict=False))) for x in nodes]


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where `function` changes its sign, by bisection to the last digit."""
    above = function(high) > 0
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (low, middle) if (function(middle) > 0) == above else (middle, high)
    return high


def _gap(law: Law, nodes: Law) -> float:
    """The largest error of Σ weight exp(-s · node) for s ≥ 0, found on steps of 2 %: its peak is far wider."""
    steps = math.ceil(math.log(500 * law[-1][0] / law[0][0]) / math.log(1.02))
    grid = (0.1 / law[-1][0] * 1.02**i for i in range(steps))
    return max(abs(_expectation(law, s) - _expectation(nodes, s)) for s in grid)


def _expectation(law: Law, s: float) -> float:
    return math.fsum(weight * math.exp(-s * value) for value, weight in law)
