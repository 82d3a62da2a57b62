"""What three gates do to an adapter as a quarter of the tokens loses its confidence."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from balancekit import GatedCrossAttention

from .style import BLACK, BLUE, VERMILION, panels, plain, say

CAPTION = (
    "A quarter of the tokens that a gate reads loses its confidence, the other modality's for query and output, the "
    "own ones for key: all three gates take away what these tokens say, and only output takes the size of the delta "
    "with it (an adapter with random weights)."
)
GATES = {"query": (BLUE, "-"), "key": (BLACK, ":"), "output": (VERMILION, "--")}
SAMPLES, TOKENS, DIM = 16, 16, 32
DOUBTFUL = torch.arange(TOKENS) < TOKENS // 4


def curve(gate: str, confidences: Tensor) -> tuple[Tensor, Tensor]:
    """Size of the delta, and how far it moves if the doubtful tokens are replaced, by the confidence in these.

    The rows are those that the doubtful tokens act on: their own where they ask, all others' where they answer. Both
    are in per cent of the delta's size at confidence 1.
    """
    torch.manual_seed(1)
    adapter = GatedCrossAttention(DIM, gate=gate).eval()
    nn.init.normal_(adapter.up.weight)  # 0 at the start of a training, as is the delta
    own, other, strangers = torch.randn(3, SAMPLES, TOKENS, DIM)
    answers = gate == "key"
    rows = ~DOUBTFUL if answers else DOUBTFUL
    replaced = torch.where(DOUBTFUL[:, None], strangers, own if answers else other)

    def delta(own: Tensor, other: Tensor, confidence: Tensor) -> Tensor:
        each = torch.where(DOUBTFUL, confidence, 1.0).expand(SAMPLES, TOKENS)
        return adapter(own, other, **{"own_confidence" if answers else "confidence": each})[:, rows]

    with torch.no_grad():
        before = [delta(own, other, c) for c in confidences]
        after = [delta(replaced, other, c) if answers else delta(own, replaced, c) for c in confidences]
    sizes = torch.stack([each.norm() for each in before])
    moves = torch.stack([(a - b).norm() for a, b in zip(after, before, strict=True)])
    return 100 * sizes / sizes[0], 100 * moves / sizes[0]


def draw() -> Figure:
    """Size at the left, say at the right."""
    confidences = torch.linspace(1, 0, 21)
    figure, axes = panels(2)
    for gate, (colour, dash) in GATES.items():
        for panel, values in zip(axes, curve(gate, confidences), strict=True):
            panel.plot(confidences, values, color=colour, linestyle=dash, lw=2.5)
    words = "confidence in a quarter of the tokens"
    plain(axes[0], words, "size of the delta, %", "how much the adapter adds")
    plain(axes[1], words, "move of the delta, %,\nif these tokens are others", "how much these tokens say")
    for panel, top in zip(axes, (115, 7.5), strict=True):
        panel.set(xlim=(1, 0), ylim=(0, top))
    say(axes[0], 0.5, 103, "query, key", ha="center")
    say(axes[0], 0.45, 55, "output")
    say(axes[1], 0.55, 5, "key")
    say(axes[1], 0.67, 2.1, "query,\noutput", ha="right")
    return figure
