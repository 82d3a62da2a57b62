"""Four estimators of doubt on the same network and data, mapped over the plane of the inputs."""

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from balancekit import DeepEnsemble, FeatureDensity, MCDropout, dropout_confidence, mutual_information

from .style import panels

CAPTION = (
    "Doubt about a point, given two classes (circles, triangles), as the share of clean points that are doubted less: "
    "MC dropout and a deep ensemble doubt the border of the classes and hardly any other place, however far from the "
    "data, the density of the features doubts whatever is not like the data, and dropout confidence doubts large "
    "features."
)
SIDE = 64  # points along each side of a map


def moons(samples: int) -> tuple[Tensor, Tensor]:
    """Two half circles that reach into each other."""
    labels = torch.arange(samples) % 2
    angle = torch.pi * torch.rand(samples)
    side = 1.0 - 2.0 * labels
    points = torch.stack([side * angle.cos() + labels, side * angle.sin() + 0.5 * labels], 1)
    return points - torch.tensor([0.5, 0.25]) + 0.1 * torch.randn(samples, 2), labels


def network() -> nn.Sequential:
    """Two hidden layers with dropout; all but the last layer make the features."""
    hidden = [nn.Linear(2, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*hidden, nn.Linear(32, 2))


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The whole set in every step."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    model.eval()


def doubts(x: Tensor, y: Tensor, grid: Tensor) -> dict[str, Tensor]:
    """By name: the doubt about each point of the grid."""
    ensemble = DeepEnsemble.build(network, 5, seed=0)
    for member in ensemble.members:
        train(member, x, y)
    model = ensemble.members[0]
    features = model[:-1]
    density = FeatureDensity(32, covariance="full", classes=2)
    with torch.no_grad():
        density.accumulate(features(x), y)
        density.commit()
        return {
            "MC dropout": mutual_information(MCDropout(model, samples=60)(grid).softmax(-1)),
            "deep ensemble": mutual_information(ensemble(grid).softmax(-1)),
            "density": density(features(grid)),
            "dropout confidence": 1 - dropout_confidence(features(grid)),
        }


def draw() -> Figure:
    """A map an estimator."""
    torch.manual_seed(0)
    x, y = moons(200)
    clean, _ = moons(400)
    side = torch.linspace(-3, 3, SIDE)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).flatten(0, 1)
    figure, axes = panels(4, height=3.0, sharex=True, sharey=True)
    for panel, (name, doubt) in zip(axes, doubts(x, y, torch.cat([clean, grid])).items(), strict=True):
        of_clean, of_grid = doubt.split([len(clean), len(grid)])
        share = (of_clean < of_grid[:, None]).float().mean(1).view(SIDE, SIDE)
        filled = panel.contourf(side, side, 100 * share, levels=range(0, 101, 10), cmap="cividis")
        for c, marker in enumerate("o^"):
            panel.plot(*x[y == c][::3].T, marker, color="white", mec="black", ms=3, mew=0.5)
        panel.set_title(name, fontsize=10)
        panel.set(aspect="equal", xlabel="first input")
    axes[0].set_ylabel("second input")
    bar = {"location": "bottom", "shrink": 0.6, "aspect": 30, "ticks": [0, 50, 100]}
    figure.colorbar(filled, ax=axes, label="doubt: share of clean points that are doubted less, %", **bar)
    return figure
