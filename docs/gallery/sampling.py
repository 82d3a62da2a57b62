"""SMV on a few samples: what each modality is worth in each of them, and how often it is shown alone."""

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor
from torch.nn import functional as F

from balancekit.sampling import smv_copies, smv_plan, smv_values

from .style import BLUE, VERMILION, panels, plain
from .toy import SIZES, Late, batches, data

CAPTION = (
    "SMV early in a joint training, on 14 of 400 simulated samples: above, what each modality is worth in each sample, "
    "1 where it does its part; below, the epoch that is planned from that, in which every sample comes with both "
    "modalities once, and again with a modality alone, the more often the less that one is worth."
)
ROWS, STEPS = slice(64, 78), 40
LOOKS = {
    (True, True): {"label": "both", "ec": "black"},
    (True, False): {"label": "sound alone", "ec": VERMILION, "hatch": "//"},
    (False, True): {"label": "picture alone", "ec": BLUE, "hatch": ".."},
}


def predictions() -> tuple[dict[tuple[str, ...], Tensor], Tensor]:
    """Of a joint training, for each set of modalities, the others set to zero; and the classes."""
    torch.manual_seed(0)
    model, known = Late(), data(400, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for views, labels in batches(known, STEPS):
        optimizer.zero_grad()
        F.cross_entropy(model.fuse(model.encode(views)), labels).backward()
        optimizer.step()
    with torch.no_grad():
        z = {m: each[ROWS] for m, each in model.encode(known.views).items()}
        found = {
            names: model.fuse({m: each * (m in names) for m, each in z.items()}).argmax(1)
            for names in (("sound",), ("picture",), ("sound", "picture"))
        }
    return found, known.labels[ROWS]


def draw() -> Figure:
    """Values above, the epoch below, a column a sample."""
    values = smv_values(*predictions())
    index, keep = smv_plan(smv_copies(values))
    figure, (above, below) = panels(1, 2, height=3.6, sharex=True, height_ratios=(2, 4))
    above.pcolormesh(values.T, cmap="Greys_r", vmin=-2.5, vmax=1.5, edgecolors="white", lw=2)
    for sample, row in enumerate(values.tolist()):
        for m, value in enumerate(row):
            above.text(sample + 0.5, m + 0.5, f"{value:g}", ha="center", va="center", fontsize=9.5)
    plain(above, "", "value of")
    above.set_yticks([0.5, 1.5], SIZES)
    tops = [0] * len(values)
    for sample, kept in zip(index.tolist(), keep.tolist(), strict=True):
        below.add_patch(Rectangle((sample + 0.1, tops[sample]), 0.8, 1, fc="white", lw=1.5, **LOOKS[tuple(kept)]))
        tops[sample] += 1
    plain(below, "sample", "times in the epoch")
    below.set_xticks([x + 0.5 for x in range(len(values))], range(1, len(values) + 1))
    below.set_ylim(0, 6)
    handles = [Patch(fc="white", lw=1.5, **look) for look in LOOKS.values()]
    below.legend(handles=handles, loc="upper center", ncols=3, frameon=False, fontsize=9.5)
    return figure
