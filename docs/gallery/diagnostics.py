"""Three trainings watched: what was asked for and what came of it, and an alarm where that was nothing."""

import warnings

import torch
from matplotlib.figure import Figure
from torch.nn import functional as F

from balancekit import Branches
from balancekit.diagnostics import History, NullEffectWarning, watch
from balancekit.modulation import OGM, modulate, slice_logits
from balancekit.plotting import plot

from .style import BLUE, VERMILION, panels, plain, say
from .toy import Late, batches, data

CAPTION = (
    "What a coefficient asked for (dashed) and what came of it in the update of the sound's encoder (solid): OGM gets "
    "what it asks for under SGD, the greater part of it is divided out again under Adam, and of a factor that stays "
    'the same nothing is left there, for which the alarm is "cancelled" (simulated data).'
)
TRAININGS = {
    "OGM under SGD": (torch.optim.SGD, 0.1, None),
    "OGM under Adam": (torch.optim.Adam, 1e-3, None),
    "a fixed 0.2 under Adam": (torch.optim.Adam, 1e-3, 0.2),
}
LOOKS = {"efficacy/sound": BLUE, "coefficient/sound": VERMILION}


def draw() -> Figure:
    """A panel a training."""
    figure, axes = panels(3, sharey=True)
    for panel, (title, how) in zip(axes, TRAININGS.items(), strict=True):
        history = training(*how)
        for kind, colour in LOOKS.items():
            (line,) = (line for line in plot(history, kind, ax=panel).lines if line.get_label() == kind)
            line.set(color=colour, linewidth=2)
        panel.get_legend().remove()
        plain(panel, "step", "", title)
    axes[0].set_ylabel("times the update without")
    axes[0].set_ylim(0, 1.1)
    say(axes[1], 25, 0.84, "efficacy", color=BLUE)
    say(axes[1], 25, 0.34, "coefficient", color=VERMILION)
    return figure


def training(kind: type[torch.optim.Optimizer], rate: float, factor: float | None) -> History:
    """Of the sound's features the gradients are scaled, by the factor or by what OGM asks for."""
    torch.manual_seed(0)
    model, known, ogm = Late(), data(400, seed=0), OGM(alpha=0.8)
    branches = Branches(model, {m: f"encoders.{m}" for m in model.encoders})
    optimizer = kind(branches.param_groups(lr=rate))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NullEffectWarning)
        with watch(optimizer=optimizer, branches=branches, every=2) as history:
            for views, labels in batches(known, 100):
                z = model.encode(views)
                loss = F.cross_entropy(model.fuse(z), labels)
                k = ogm(slice_logits(model.head, z), labels)["sound"] if factor is None else factor
                modulate(z, {"sound": k}, loss)
                if history.due:
                    history.log({"coefficient/sound": k})
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return history
