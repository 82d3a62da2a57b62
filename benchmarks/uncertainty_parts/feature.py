"""Section "feature": dropout on a fixed feature. The released loop of T passes against the forms that need none.

On one thread, in CPU time of that thread. Speed and peak memory are those of the loop in eager mode over those of the
form; a map is one tensor of the shape of the tokens. Errors are against the exact expectation over the dropout, which
the loop and the draws scatter around. The setting of the allocator decides how much temporaries cost: it is printed.
"""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from instruments.meters import interleaved, peak_bytes, plain
from instruments.report import Report, ratio, spread
from torch import Tensor
from torch.nn import functional as F

from balancekit import dropout_confidence, dropout_std, fused

P, T, RATE = 0.3, 20, 2.25
Form = Callable[[Tensor], Tensor]


def released_std(x: Tensor) -> Tensor:
    return torch.stack([F.dropout(x, P, training=True) for _ in range(T)]).std(0)


def released_confidence(x: Tensor) -> Tensor:
    return torch.exp(-RATE * released_std(x)).mean(-1)


STD: dict[str, tuple[Form, Form | None]] = {
    "released loop": (released_std, None),
    "one draw": (partial(dropout_std, samples=T), partial(fused.dropout_std, samples=T)),
    "limit": (dropout_std, fused.dropout_std),
}
CONFIDENCE: dict[str, tuple[Form, Form | None]] = {
    "released loop": (released_confidence, torch.compile(released_confidence)),
    **{
        name: (partial(dropout_confidence, method=method), partial(fused.dropout_confidence, method=method))
        for name, method in (("one draw", "sampled"), ("expected", "expected"), ("limit", "limit"))
    },
}


def law() -> list[tuple[float, float]]:
    """Standard deviation over T passes of dropout on 1 where k of them keep it, and the probability of that."""
    counts = range(T + 1)
    outcomes = [torch.arange(T, dtype=torch.float64).lt(k) / (1 - P) for k in counts]
    chance = [math.comb(T, k) * (1 - P) ** k * P ** (T - k) for k in counts]
    return [(float(kept.std()), probability) for kept, probability in zip(outcomes, chance, strict=True)]


def expected_std(x: Tensor) -> Tensor:
    return x.double().abs() * sum(probability * std for std, probability in law())


def expected_confidence(x: Tensor) -> Tensor:
    size = x.double().abs()
    return torch.stack([probability * torch.exp(-RATE * std * size).mean(-1) for std, probability in law()]).sum(0)


def allocator() -> str:
    kept = os.environ.get("MALLOC_TRIM_THRESHOLD_")
    return "told to keep freed memory" if kept else "at its defaults: large temporaries are fresh pages every time"


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def measured(
    report: Report, what: str, forms: dict[str, tuple[Form, Form | None]], x: Tensor, exact: Tensor, rounds: int
) -> None:
    named: dict[str, Form] = {}
    for name, (eager, compiled) in forms.items():
        named[name] = eager
        if compiled is not None:
            named[f"{name}, compiled"] = compiled
    first = {}
    for name, form in named.items():
        began = time.perf_counter()
        form(x)
        first[name] = time.perf_counter() - began
    slow = "released loop", "released loop, compiled"
    variants = {name: plain(partial(form, x), 1 if name in slow else 10) for name, form in named.items()}
    times = interleaved(variants, rounds, warm=1, clock=time.thread_time)
    rows = []
    for name, form in named.items():
        peak, error = peak_bytes(partial(form, x)) / x.nbytes, form(x).double() - exact
        report.keep("feature", what, name, "seconds", times[name])
        report.keep("feature", what, name, "peak, maps", [peak])
        report.keep("feature", what, name, "largest error", [float(error.abs().max())])
        milliseconds = spread([1000 * t for t in times[name]])
        speed = ratio(times["released loop"], times[name])
        start = f"{first[name]:.0f}" if name.endswith("compiled") else ""
        rows.append(
            (name, milliseconds, speed, f"{peak:.2f}", f"{error.abs().max():.1e}", f"{error.mean():+.1e}", start)
        )
    header = ("", "ms", "speed", "peak, maps", "largest error", "mean error", "first call, s")
    shape = " x ".join(map(str, x.shape))
    report.table(f"{what}, tokens {shape}, T = {T}, p = {P}; allocator {allocator()}.", header, rows)


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """The standard deviation of every element, and the confidence of every token."""
    x = torch.randn(*((4, 50, 192) if quick else (16, 197, 768)), generator=torch.Generator().manual_seed(0))
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler warns of torch's own deprecations
        measured(report, "standard deviation a channel", STD, x, expected_std(x), rounds)
        measured(report, "confidence a token", CONFIDENCE, x, expected_confidence(x), rounds)
