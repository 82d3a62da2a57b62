"""Section "summaries": the measures of 20 maps of probabilities, streamed and stacked: time and peak memory.

Each map comes from a model, here a clone of one that exists. Streaming lets it go after its update; stacking has to
keep all of them, and its measures make temporaries of the size of the stack.
"""

import time
from collections.abc import Iterator

import torch
from instruments.meters import interleaved, peak_bytes, plain
from instruments.report import Report, ratio, spread
from torch import Tensor

from balancekit.uncertainty import (
    ProbabilityStatistics,
    ProbabilitySummary,
    expected_entropy,
    mutual_information,
    predictive_entropy,
    variation_ratio,
)

SAMPLES = 20


def maps(shape: tuple[int, ...]) -> list[Tensor]:
    """Four different ones, to be used in turn."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).softmax(-1) for _ in range(4)]


def outputs(made: list[Tensor]) -> Iterator[Tensor]:
    for t in range(SAMPLES):
        yield made[t % len(made)].clone()


def streamed(made: list[Tensor]) -> ProbabilityStatistics:
    summary = ProbabilitySummary()
    for probs in outputs(made):
        summary.update(probs[None])
    return summary.compute()


def stacked(made: list[Tensor]) -> ProbabilityStatistics:
    probs = torch.stack(list(outputs(made)))
    total, expected, votes = predictive_entropy(probs), expected_entropy(probs), variation_ratio(probs)
    std = probs.std(0, correction=0)
    return ProbabilityStatistics(probs.mean(0), std, total, expected, mutual_information(probs), votes, SAMPLES)


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """A table of both, for maps of segmentation and for a batch of classifications."""
    rows = []
    for shape in [(2, 32, 32, 10)] if quick else [(8, 128, 128, 10), (64, 10)]:
        made = maps(shape)
        variants = {"stacked": lambda made=made: stacked(made), "streamed": lambda made=made: streamed(made)}
        times = interleaved({name: plain(f) for name, f in variants.items()}, rounds, warm=1, clock=time.thread_time)
        peaks = {name: peak_bytes(f) for name, f in variants.items()}
        differences = zip(stacked(made)[:-1], streamed(made)[:-1], strict=True)
        largest = max(float((a - b).abs().max()) for a, b in differences)
        for name, values in times.items():
            report.keep("summaries", str(shape), name, "seconds", values)
            report.keep("summaries", str(shape), name, "peak bytes", [peaks[name]])
        rows.append(
            (
                str(shape),
                ratio(times["stacked"], times["streamed"]),
                spread([1000 * t for t in times["streamed"]]),
                f"{peaks['stacked'] / 2**20:.2f}",
                f"{peaks['streamed'] / 2**20:.2f}",
                f"{largest:.0e}",
            )
        )
    title = f"All measures of {SAMPLES} maps of probabilities: streamed against stacked."
    header = ("shape of a map", "times faster", "streamed, ms", "stacked, MiB", "streamed, MiB", "largest difference")
    report.table(title, header, rows)
