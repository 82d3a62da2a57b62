"""What the sections share: steps long enough to be timed, and all numbers of a case kept."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from instruments.meters import Variant, interleaved, on_cuda, peak_of, seconds
from instruments.report import Report
from torch import Tensor, nn

BLOCK = 0.02  # seconds that short steps are timed together for


class Measured(NamedTuple):
    """Seconds of every round, and peak bytes, by variant."""

    seconds: dict[str, list[float]]
    peak: dict[str, int]

    def mib(self, name: str) -> str:
        """The peak in MiB."""
        return f"{self.peak[name] / 2**20:,.1f}"


def forward(model: nn.Module, call: Callable[[], Any]) -> Variant:
    """A call without gradients."""
    return Variant(model, torch.no_grad()(call))


def backward(model: nn.Module, call: Callable[[], Tensor], upstream: Tensor) -> Variant:
    """A call, and the gradients of everything that it depends on and that is learned."""
    return Variant(model, lambda: call().backward(upstream))


def measured(report: Report, section: str, case: str, variants: Mapping[str, Variant], rounds: int) -> Measured:
    """Time of each variant, short ones repeated within a round, and its peak memory."""
    steady: dict[str, Variant] = {}
    clock = time.thread_time
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler warns of torch's own deprecations
        for name, variant in variants.items():
            clock = time.perf_counter if on_cuda(variant.model) else time.thread_time
            seconds(variant, clock)  # compiles, allocates
            once = seconds(variant, clock)
            steady[name] = variant._replace(repeat=min(50, max(1, round(BLOCK / once))))
        times = interleaved(steady, rounds, warm=0, clock=clock)
        peaks = {name: peak_of(variant) for name, variant in steady.items()}
    for name, values in times.items():
        report.keep(section, case, name, "seconds", values)
        report.keep(section, case, name, "peak bytes", [peaks[name]])
    return Measured(times, peaks)


def difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, each tensor's relative to the largest of its expected elements."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
