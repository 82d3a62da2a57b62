"""Who owns which parameters of a network, and where its features are captured."""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from balancekit import Branches

from .style import BLUE, GREEN, GREY, VERMILION, panels, say

CAPTION = (
    "A network with three encoders as Branches sees it: whose the parameters of each module are (hatch and colour) "
    "and how many, where the features of a batch of 8 are captured (circles), and the rest that belongs to no "
    "modality."
)
CHANNELS = {"rgb": 3, "depth": 1, "infrared": 1}
LOOKS = {"rgb": (VERMILION, "//"), "depth": (BLUE, "\\\\"), "infrared": (GREEN, ".."), "rest": (GREY, "")}


class Network(nn.Module):
    """Three convolutional encoders, a transformer in which they meet, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Conv2d(channels, 32, 4, stride=4), nn.GELU(), nn.Flatten(), nn.Linear(2048, 64))
                for m, channels in CHANNELS.items()
            }
        )
        self.norms = nn.ModuleDict({m: nn.LayerNorm(64) for m in CHANNELS})
        self.fusion = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
        self.head = nn.Linear(64, 2)

    def forward(self, images: dict[str, Tensor]) -> Tensor:
        """Logits."""
        tokens = [self.norms[m](self.encoders[m](images[m])) for m in CHANNELS]
        return self.head(self.fusion(torch.stack(tokens, 1)).mean(1))


def draw() -> Figure:
    """A row a modality; what is shared stands across all rows."""
    torch.manual_seed(0)
    model = Network()
    branches = Branches(model, {m: [f"encoders.{m}", f"norms.{m}"] for m in CHANNELS})
    with branches.capture() as features:
        model({m: torch.randn(8, channels, 32, 32) for m, channels in CHANNELS.items()})

    figure, (panel,) = panels(height=3.2)
    panel.set(xlim=(0, 7), ylim=(0, 3.4))
    panel.set_axis_off()
    sizes = {group["name"]: sum(p.numel() for p in group["params"]) for group in branches.param_groups()}
    for y, m in zip((2.65, 1.55, 0.45), CHANNELS, strict=True):
        say(panel, 0, y, f"{m}\n{sizes[m]:,}", va="center")
        arrow(panel, 2.2, 3.2, y)
        arrow(panel, 4.45, 4.75, y)
        box(panel, branches, f"encoders.{m}", 0.8, y, 1.4)
        box(panel, branches, f"norms.{m}", 3.2, y, 1.25)
        panel.plot(2.65, y, "o", color="white", mec="black", mew=2, ms=9)
        say(panel, 2.65, y + 0.3, f"features\n{tuple(features[m].shape)}", ha="center")
    box(panel, branches, "fusion", 4.75, 1.55, 0.9, 3.0)
    arrow(panel, 5.65, 5.95, 1.55)
    box(panel, branches, "head", 5.95, 1.55, 0.6, 0.8)
    say(panel, 6.25, 2.65, f"the rest\n{sizes['rest']:,}", ha="center", va="center")
    return figure


def arrow(panel: Axes, start: float, end: float, y: float) -> None:
    """Where the tensors go."""
    look = {"arrowstyle": "-|>", "color": "black", "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", (end, y), (start, y), arrowprops=look)


def box(panel: Axes, branches: Branches, name: str, x: float, y: float, width: float, height: float = 0.8) -> None:
    """A module with its number of parameters, in the look of its owner."""
    parameters = [*branches.model.get_submodule(name).parameters()]
    (owner,) = {branches.owners().get(p, "rest") for p in parameters}
    colour, hatch = LOOKS[owner]
    panel.add_patch(Rectangle((x, y - height / 2), width, height, fc="white", ec=colour, hatch=hatch, lw=2))
    words = f"{name}\n{sum(p.numel() for p in parameters):,}"
    look = {"fc": "white", "ec": "none", "pad": 1.5}
    panel.text(x + width / 2, y, words, ha="center", va="center", fontsize=9.5, bbox=look)
