"""Two sites, live samples and attacks: what SSDG's losses make of the features of a small encoder."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from balancekit.diagnostics import probe_accuracy
from balancekit.domains import (
    asymmetric_triplet_loss,
    reversal_strength,
    reverse_gradient,
    single_side_adversarial_loss,
)
from balancekit.prototypes import single_side_labels

from .style import BLACK, BLUE, VERMILION, panels, plain, say

CAPTION = (
    "Two sites (full and hollow), live samples (circles) and attacks (triangles): SSDG's two losses beside "
    "cross-entropy bring the live samples of both sites together and keep the attacks of each site apart, while the "
    "reversal of the gradient grows in strength (one training on simulated data; a logistic regression tells the "
    "site)."
)
STEPS = 300


class Encoder(nn.Module):
    """Two numbers in, two out; the same at first."""

    def __init__(self) -> None:
        super().__init__()
        self.change = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
        nn.init.zeros_(self.change[-1].weight)
        nn.init.zeros_(self.change[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        """The features."""
        return x + self.change(x)


def samples(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two numbers a sample, its site, and whether it is live."""
    site, live = torch.arange(count) % 2, torch.arange(count) // 2 % 2 == 0
    places = torch.stack([3.0 * site - 1.5, 2.4 * live - 1.2], 1)
    return places + 0.45 * torch.randn(count, 2), site, live


def train(encoder: Encoder, x: Tensor, site: Tensor, live: Tensor) -> None:
    """Cross-entropy of live or not, and SSDG's two."""
    head, discriminator = nn.Linear(2, 2), nn.Linear(2, 2)
    slow = {"params": [*encoder.parameters(), *head.parameters()], "lr": 2e-3}
    fast = {"params": discriminator.parameters(), "lr": 0.05, "weight_decay": 0.1}
    optimizer = torch.optim.Adam([slow, fast])
    for step in range(STEPS):
        rows = torch.randint(0, len(x), (48,))
        z = encoder(x[rows])
        sites = discriminator(reverse_gradient(z, reversal_strength(step, STEPS)))
        loss = F.cross_entropy(head(z), live[rows].long())
        loss = loss + 0.5 * single_side_adversarial_loss(sites, site[rows], live[rows])
        loss = loss + asymmetric_triplet_loss(z, single_side_labels(live[rows], site[rows]), margin=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def draw() -> Figure:
    """The features before and after, and the schedule between them."""
    torch.manual_seed(0)
    x, site, live = samples(240)
    encoder = Encoder()
    train(encoder, x, site, live)
    figure, axes = panels(3)
    show(axes[0], "before", x, site, live)
    axes[0].set_ylim(bottom=-3)
    say(axes[0], 0, 1.3, "live", ha="center")
    say(axes[0], 0, -2.7, "attacks", ha="center")
    axes[1].plot([reversal_strength(step, STEPS) for step in range(STEPS)], color=BLACK, lw=2)
    plain(axes[1], "step", "strength of the reversal", "the adversary comes in")
    show(axes[2], "after", encoder(x).detach(), site, live)
    return figure


def show(panel: Axes, when: str, z: Tensor, site: Tensor, live: Tensor) -> None:
    """A marker for live and one for attacks, hollow and full by site."""
    for kind, marker, colour in ((True, "o", BLUE), (False, "^", VERMILION)):
        for s in (0, 1):
            chosen = (live == kind) & (site == s)
            panel.plot(*z[chosen].T, marker, color=colour, mfc="none" if s else colour, ms=4.5)
    told = [100 * probe_accuracy(z[each], site[each], z[each], site[each]) for each in (live, ~live)]
    plain(
        panel,
        "first feature",
        "second feature",
        f"{when}: site told of live\n{told[0]:.0f} %, of attacks {told[1]:.0f} %",
    )
