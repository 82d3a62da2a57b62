"""Section "compiled": the kernel of the engine, Gram matrices to gradients, in one graph: kernels, bytes, and time."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from instruments.report import Report, spread
from torch import Tensor
from torch._inductor import metrics
from torch._inductor.graph import GraphLowering

from balancekit import ReGrad, Step
from balancekit.surgery._weigh import surgery

Kernel = Callable[..., Any]


def columns(tensors: int, size: int) -> list[list[Tensor | None]]:
    """Three rows for each square tensor, and none of the total."""
    generator = torch.Generator().manual_seed(0)
    return [[None, *torch.randn(3, size, size, generator=generator).unbind()] for _ in range(tensors)]


def call(kernel: Kernel, rows: list[list[Tensor | None]]) -> Any:
    """One call on copies of the lists, since the kernel empties them."""
    m, like = 3, torch.ones(3)
    step = Step(like, like, torch.arange(3.0), like > 0, torch.arange(m), like)
    owner = tuple(t % m for t in range(len(rows)))
    nothing, beyond = torch.zeros(1 + m), torch.zeros(2, 1 + m)
    copies = [list(column) for column in rows]
    return kernel(ReGrad(), step, owner, tuple(range(len(rows))), copies, nothing, beyond, False)


@contextmanager
def counting_bytes() -> Iterator[list[int]]:
    """What the generated kernels of each graph read and write, by inductor's own count."""
    moved: list[int] = []
    generate = GraphLowering.codegen

    def counted(self: GraphLowering) -> Any:
        code = generate(self)
        moved.append(self.count_bytes()[0])
        return code

    with patch.object(GraphLowering, "codegen", counted):
        yield moved


def seconds(kernel: Kernel, rows: list[list[Tensor | None]]) -> float:
    began = time.perf_counter()
    call(kernel, rows)
    return time.perf_counter() - began


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """A few small tensors and a few large ones."""
    table = []
    for tensors, size in ((3, 64),) if quick else ((6, 64), (6, 512)):
        rows = columns(tensors, size)
        torch.compiler.reset()
        metrics.reset()
        compiled = torch.compile(surgery, fullgraph=True, dynamic=False)
        caches = torch._inductor.config.patch(force_disable_caches=True)
        with caches, counting_bytes() as moved, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler warns of torch's own deprecations
            spent = seconds(compiled, rows)
        kernels = metrics.generated_kernel_count
        eager, fast = [], []
        for _ in range(20):
            eager.append(1000 * seconds(surgery, rows))
            fast.append(1000 * seconds(compiled, rows))
        title = f"{tensors} tensors of {size} x {size}"
        report.keep("compiled", title, "eager", "ms", eager)
        report.keep("compiled", title, "compiled", "ms", fast)
        least = 4 * 4 * tensors * size**2  # three rows read, one gradient written
        table.append((title, spread(eager), spread(fast), str(kernels), f"{sum(moved) / least:.1f}", f"{spent:.0f}"))
    header = ("", "eager, ms", "compiled, ms", "kernels", "bytes / least", "to compile, s")
    report.table("The kernel, Gram matrices to gradients, in one graph; least: rows read once.", header, table)
