"""Section "attention": the gated attention alone, against the released form, which makes every map "b h n n".

Time is the released form's over ours in the same round. Peak memory is exact, of the step alone: its inputs existed
before, its gradients did not. "Difference" is the largest of the output and the gradients, relative to the largest
element of each. Where the released form would need more than 6 GiB it is left out, and ours runs alone.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from instruments.report import Report, ratio, spread
from torch import Tensor, nn

from balancekit.adapters import gated_attention

from . import released
from .measure import Measured, backward, difference, forward, measured

Form = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

RELEASED = "released"
GATES = ("query", "key", "key, learned")


def learned_key(q: Tensor, k: Tensor, v: Tensor, confidence: Tensor) -> Tensor:
    """The key gate under a confidence that gets a gradient, as one that is learned does."""
    return gated_attention(q, k, v, confidence.detach().requires_grad_(), "key")


FORMS: dict[str, Form] = {
    RELEASED: released.attention,
    "query": partial(gated_attention, gate="query"),
    "key": partial(gated_attention, gate="key"),
    "key, learned": learned_key,
}
WIDTHS = ((8, 8), (8, 1), (64, 8), (768, 12))  # all heads together, heads
LIMIT = 6 << 30


class Case(NamedTuple):
    """Shapes: `width` channels of all heads together."""

    tokens: int
    width: int
    heads: int
    batch: int = 16

    def __str__(self) -> str:
        return f"N = {self.tokens}, width {self.width}, heads {self.heads}, batch {self.batch}"

    def released_bytes(self) -> int:
        """Three maps at once: that is the released form's backward."""
        return 3 * 4 * self.batch * self.heads * self.tokens**2


class Problem(NamedTuple):
    """Queries, keys and values, a confidence, and what comes down from the loss."""

    qkv: nn.ParameterList
    confidence: Tensor
    upstream: Tensor

    def call(self, form: Form) -> Tensor:
        return form(*self.qkv, self.confidence)


def problem(case: Case, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Problem:
    generator = torch.Generator().manual_seed(0)
    shape = case.batch, case.heads, case.tokens, case.width // case.heads
    *qkv, upstream = torch.randn(4, *shape, generator=generator).to(device, dtype)
    confidence = torch.rand(case.batch, case.tokens, generator=generator).to(device, dtype)
    return Problem(nn.ParameterList(x.clone() for x in qkv), confidence, upstream)


def results(made: Problem, form: Form) -> list[Tensor]:
    """The output and the three gradients."""
    out = made.call(form)
    return [out.detach(), *torch.autograd.grad(out, list(made.qkv), made.upstream)]


def gap(made: Problem) -> float:
    """How far ours, gated like the released form, is from it: output and gradients."""
    return difference(results(made, FORMS["query"]), results(made, FORMS[RELEASED]))


def cases(quick: bool) -> Iterator[Case]:
    for tokens in (64, 197) if quick else (64, 197, 576, 1024, 4096):
        for width, heads in WIDTHS:
            yield Case(tokens, width, heads, batch=16 if tokens < 4096 else 1)
    if not quick:
        yield Case(4096, 8, 8)


def row(case: Case, found: Measured, gates: Sequence[str], apart: str) -> tuple[str, ...]:
    """Times, ratios and peaks; a dash for what was not measured."""
    seconds, names = found.seconds, (RELEASED, *gates)
    base = seconds.get(RELEASED)
    return (
        str(case),
        *(spread([1000 * t for t in seconds[name]]) if name in seconds else "–" for name in names[:2]),
        *(ratio(base, seconds[gate]) if base else "–" for gate in gates),
        *(found.mib(name) if name in seconds else "–" for name in names),
        apart,
    )


def eager(report: Report, made: list[Case], rounds: int) -> None:
    """A table without gradients and one with them."""
    for title, trains in (("forward", False), ("forward + backward", True)):
        rows = []
        gates = GATES if trains else GATES[:2]
        for case in made:
            it, fits = problem(case), case.released_bytes() <= LIMIT
            variants = {}
            for name in (RELEASED, *gates) if fits else ("query",):
                call = partial(it.call, FORMS[name])
                variants[name] = backward(it.qkv, call, it.upstream) if trains else forward(it.qkv, call)
            found = measured(report, "attention", f"{case}, {title}", variants, rounds)
            rows.append(row(case, found, gates, f"{gap(it):.0e}" if fits else "–"))
        times = "released, ms", "query, ms", *(f"{gate}, times faster" for gate in gates)
        peaks = (f"{name}, MiB" for name in (RELEASED, *gates))
        report.table(f"Gated attention, {title}.", ("", *times, *peaks, "difference"), rows)


def compiled(report: Report, made: list[Case], rounds: int) -> None:
    """The same, by torch.compile."""
    rows = []
    base, *others = names = [RELEASED, "query", f"{RELEASED}, compiled", "query, compiled"]
    for case in made:
        for title, trains in (("forward", False), ("forward + backward", True)):
            torch.compiler.reset()
            it = problem(case)
            plain = [FORMS[RELEASED], FORMS["query"]]
            forms = [*plain, *(torch.compile(form, fullgraph=True, dynamic=False) for form in plain)]
            variants = {}
            for name, form in zip(names, forms, strict=True):
                call = partial(it.call, form)
                variants[name] = backward(it.qkv, call, it.upstream) if trains else forward(it.qkv, call)
            found = measured(report, "attention, compiled", f"{case}, {title}", variants, rounds)
            speeds = (ratio(found.seconds[base], found.seconds[name]) for name in others)
            rows.append((f"{case}, {title}", *speeds, *map(found.mib, names)))
    header = "", *(f"{name}, times faster" for name in others), *(f"{name}, MiB" for name in names)
    report.table("Gated attention, eager and compiled, over the released form in eager mode.", header, rows)


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Eager in every shape, compiled in three; with `quick` up to 197 tokens, and nothing is compiled."""
    eager(report, list(cases(quick)), rounds)
    if not quick:
        compiled(report, [Case(197, 8, 8), Case(197, 64, 8), Case(1024, 8, 8)], rounds)
