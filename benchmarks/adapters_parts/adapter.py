"""Section "adapter": the whole adapter with its convolution, under every gate, against the released form.

Both sides have equal parameters, with a random up-projection. Times and peaks are of training mode, dropout included,
but for the forward pass alone; differences are of evaluation mode, of the output and of all gradients. Only the gate
"query" is the released form's; the other gates are other functions, of which the cost alone is compared.
"""

from typing import NamedTuple

import torch
from instruments.report import Report, ratio, spread
from torch import Tensor, nn

from balancekit.adapters import GatedCrossAttention

from . import released
from .measure import Measured, backward, difference, forward, measured

GATES = ("query", "key", "output", "key+output")
RELEASED = "released"


class Inputs(NamedTuple):
    """Tokens of two modalities, which have gradients as inside a backbone, and how far each is trusted."""

    own: nn.Parameter
    other: nn.Parameter
    confidence: Tensor
    own_confidence: Tensor
    upstream: Tensor


class Work(nn.Module):
    """An adapter at work on its inputs."""

    def __init__(self, adapter: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.adapter = adapter
        self.own, self.other = inputs.own, inputs.other
        read = getattr(adapter, "confidence_of", ("other",))
        self.trust = {"confidence": inputs.confidence} if "other" in read else {}
        self.trust |= {"own_confidence": inputs.own_confidence} if "own" in read else {}

    def forward(self) -> Tensor:
        return self.adapter(self.own, self.other, **self.trust)


def inputs(dim: int, *, grid: int, batch: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Inputs:
    generator = torch.Generator().manual_seed(0)
    own, other, upstream = torch.randn(3, batch, 1 + grid**2, dim, generator=generator).to(device, dtype)
    trust = torch.rand(2, batch, 1 + grid**2, generator=generator).to(device, dtype)
    return Inputs(nn.Parameter(own.clone()), nn.Parameter(other.clone()), *trust, upstream)


def adapters(dim: int, *, grid: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> dict[str, nn.Module]:
    """The released one, and ours under each gate: all with the same parameters."""
    torch.manual_seed(0)
    made: dict[str, nn.Module] = {RELEASED: released.Adapter(dim, grid=grid)}
    made |= {gate: GatedCrossAttention(dim, gate=gate, conv="cdc", grid=grid) for gate in GATES}
    nn.init.normal_(made[RELEASED].up.weight)
    for adapter in made.values():
        adapter.load_state_dict(made[RELEASED].state_dict())
        adapter.to(device, dtype)
    return made


def results(work: Work) -> list[Tensor]:
    """In evaluation mode, the output and the gradients of parameters and inputs, by name."""
    work.eval()
    out = work()
    named = dict(work.named_parameters())
    upstream = torch.linspace(-1, 1, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)
    gradients = torch.autograd.grad(out, [named[name] for name in sorted(named)], upstream)
    return [out.detach(), *gradients]


def gaps(found: list[Tensor], expected: list[Tensor]) -> tuple[str, str]:
    """The largest relative differences of the output, and of the gradients."""
    return f"{difference(found[:1], expected[:1]):.0e}", f"{difference(found[1:], expected[1:]):.0e}"


def rows(found: Measured, apart: dict[str, tuple[str, str]]) -> list[tuple[str, ...]]:
    """One a variant, with the differences of those that compute the same."""
    base = found.seconds[RELEASED]
    return [
        (name, spread([1000 * t for t in values]), ratio(base, values), found.mib(name), *apart.get(name, "––"))
        for name, values in found.seconds.items()
    ]


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """MMDG's sizes: 197 tokens of width 768, batch 16; with `quick` width 192 and batch 4, and nothing is compiled."""
    dim, batch = (192, 4) if quick else (768, 16)
    given = inputs(dim, grid=14, batch=batch)
    works = {name: Work(adapter, given) for name, adapter in adapters(dim, grid=14).items()}
    expected = results(works[RELEASED])
    apart = {"query": gaps(results(works["query"]), expected)}
    header = "", "ms", "times faster", "peak, MiB", "output differs by", "gradients by"
    for title, trains in (("forward", False), ("forward + backward", True)):
        torch.compiler.reset()
        calls = {name: (work, work) for name, work in works.items()}
        if not quick:
            for name in (RELEASED, "query"):
                calls[f"{name}, compiled"] = works[name], torch.compile(works[name], fullgraph=True, dynamic=False)
        variants = {
            name: backward(work.train(), call, given.upstream) if trains else forward(work.eval(), call)
            for name, (work, call) in calls.items()
        }
        case = f"width {dim}, 197 tokens, batch {batch}, {title}"
        found = measured(report, "adapter", case, variants, rounds)
        report.table(f"Whole adapter, {case}.", header, rows(found, apart))
