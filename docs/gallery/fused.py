"""How often the hot functions go over memory, written plainly and compiled."""

import warnings
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.utils._python_dispatch import TorchDispatchMode

import balancekit

from .style import BLUE, VERMILION, panels, plain

CAPTION = (
    "How often three hot functions go over memory on a CPU: operation by operation as they are written, and in the "
    "kernels that torch.compile makes of them, which is what balancekit.fused runs."
)
TOKENS, PROBS = (8, 197, 64), (20, 256, 10)


class Operations(TorchDispatchMode):
    """Counts those that read and write; a view does neither."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def calls() -> dict[str, tuple[Any, ...]]:
    """The functions, each with arguments."""
    g = torch.Generator().manual_seed(0)
    features, prototypes = torch.randn(512, 64, generator=g), torch.randn(10, 64, generator=g)
    labels = torch.randint(10, (512,), generator=g)
    return {
        "dropout_confidence": (torch.randn(TOKENS, generator=g),),
        "mutual_information": (torch.rand(PROBS, generator=g).softmax(-1),),
        "prototypical_cross_entropy": (features, labels, prototypes),
    }


def counted(name: str, arguments: tuple[Any, ...]) -> tuple[int, int]:
    """Operations as written, kernels as compiled."""
    from torch._inductor import config, metrics

    function = getattr(balancekit, name)
    with Operations() as written:
        function(*arguments)
    metrics.reset()
    with config.patch(force_disable_caches=True):  # what comes from a cache is not counted
        torch.compile(function, fullgraph=True)(*arguments)
    return written.count, metrics.generated_kernel_count


def draw() -> Figure:
    """Two bars a function."""
    with warnings.catch_warnings():  # torch's compiler warns of torch's own deprecations
        warnings.simplefilter("ignore")
        torch.compiler.reset()
        found = {name: counted(name, arguments) for name, arguments in calls().items()}
    figure, (panel,) = panels()
    looks = {"as written": (-0.2, VERMILION, "//"), "compiled": (0.2, BLUE, "")}
    for (label, (offset, colour, hatch)), counts in zip(looks.items(), zip(*found.values(), strict=True), strict=True):
        at = [place + offset for place in range(len(found))]
        bars = panel.barh(at, counts, 0.36, fc="white", ec=colour, hatch=hatch, lw=2)
        panel.bar_label(bars, [f"{count}  {label}" for count in counts], padding=4, fontsize=9.5)
    panel.set_yticks(range(len(found)), found)
    panel.invert_yaxis()
    plain(panel, "operations or kernels that go over memory", "function")
    panel.set_xlim(0, 1.35 * max(written for written, _ in found.values()))
    return figure
