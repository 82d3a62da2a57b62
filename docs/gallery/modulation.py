"""What the methods ask for, and what comes of it under two optimizers."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch.nn import functional as F

from balancekit import Branches
from balancekit.diagnostics import watch
from balancekit.modulation import AGM, MLB, OGM, SMP, modulate, scale_updates

from .style import BLACK, BLUE, GREEN, VERMILION, panels, plain, say
from .toy import Late, batches, data

CAPTION = (
    "Left: what five methods multiply the gradient with, over the ratio that says how far a modality is ahead (AGM's "
    "is against its own past); right: a factor of 0.2 on gradients makes 0.2 of an encoder's update under SGD and "
    "leaves it as it is under Adam, where the factor has to be put on the updates (simulated data, mean over 40 "
    "steps)."
)
METHODS = {
    "OGM": (OGM(alpha=0.8), VERMILION, "-"),
    "OGM, continuous": (OGM(alpha=0.8, continuous=True), VERMILION, "--"),
    "MLB": (MLB(), BLUE, "-."),
    "AGM": (AGM(2), GREEN, ":"),
    "SMP": (SMP(), BLACK, (0, (6, 2))),
}
FACTOR, STEPS = 0.2, 40


def draw() -> Figure:
    """Coefficients at the left, updates at the right."""
    torch.manual_seed(0)
    figure, (left, right) = panels(2)
    coefficients(left)
    updates(right)
    return figure


def coefficients(panel: Axes) -> None:
    """A line a method; of two modalities the other one's ratio is the inverse."""
    ratio = torch.logspace(-2, 2, 201, base=2)
    for name, (method, colour, dash) in METHODS.items():
        k = [method.coefficient(torch.stack([each, 1 / each]))[0] for each in ratio]
        panel.plot(ratio, k, color=colour, linestyle=dash, lw=2, label=name)
    panel.axvline(1, color="0.7", lw=1)
    panel.legend(loc="upper right", fontsize=9.5, frameon=False, handlelength=2.4, borderaxespad=0)
    plain(panel, "ratio: behind < 1 < ahead", "coefficient, times the gradient")
    panel.set_ylim(top=2.7)
    panel.set_xscale("log", base=2)
    panel.set_xticks([0.25, 0.5, 1, 2, 4], ["¼", "½", "1", "2", "4"])


def updates(panel: Axes) -> None:
    """A pair of bars for each thing that a factor can be put on."""
    for left, actuator in ((0.0, "gradients"), (2.6, "updates")):
        for x, kind in ((left, torch.optim.SGD), (left + 1, torch.optim.Adam)):
            ratio = efficacy(actuator, kind).mean()
            panel.bar(x, ratio, color="white", ec=BLUE, hatch="//" if kind is torch.optim.Adam else "", lw=2)
            say(panel, x, ratio + 0.03, f"{ratio:.2f}", ha="center")
    panel.axhline(1, color="0.4", lw=1, linestyle=":")
    plain(panel, "what is multiplied, and the optimizer", "update with the factor / without")
    panel.set_xticks([0, 1, 2.6, 3.6], ["SGD", "Adam"] * 2)
    panel.set_xticks([0.5, 3.1], [f"\ngradients × {FACTOR}", f"\nupdates × {FACTOR}"], minor=True)
    panel.tick_params(which="minor", length=0, pad=7)
    panel.set_ylim(0, 1.2)


def efficacy(actuator: str, kind: type[torch.optim.Optimizer]) -> np.ndarray:
    """What the factor makes of each step's update of the sound's encoder, as ``watch`` measures it."""
    model, known = Late(), data(400, seed=0)
    branches = Branches(model, {m: f"encoders.{m}" for m in model.encoders})
    optimizer = kind(branches.param_groups(lr=1e-3))
    with watch(optimizer=optimizer, branches=branches, every=1, patience=STEPS + 1) as history:
        for views, labels in batches(known, STEPS):
            z = model.encode(views)
            loss = F.cross_entropy(model.fuse(z), labels)
            if actuator == "gradients":
                modulate(z, {"sound": FACTOR}, loss)
            else:
                scale_updates(optimizer, {"sound": FACTOR})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return history["efficacy/sound"][1]
