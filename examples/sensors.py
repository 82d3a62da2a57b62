"""Accelerometer and gyroscope of a watch, on people never seen: which sensor fails, and whom to believe then.

    pip install --no-deps seglearn==1.2.5     # carries the data; nothing of it is imported
    python examples/sensors.py

Seven shoulder exercises of ten people (D. Burns, arXiv 1802.01489). Five people train an encoder a sensor, a joint head
and a head a sensor; two calibrate; three test, as they are, and with one sensor stuck at its first value or noisy. The
uncertainty of a sensor is how far simple statistics of its signal are from those of training (`FeatureDensity`), read
as a confidence by what the calibrating people show. Where that is below 0.05 for one of the two, the head of the other
decides alone. To see that a sensor fails is one thing, to gain by silencing it another: the table has both. To bring
your own data, replace `load`, `encoder` and `statistics`.
"""

import argparse
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import FeatureDensity
from balancekit.losses import unimodal_loss

DIGEST = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
LENGTH, WIDTH = 100, 32  # of a window, two seconds; of a feature
OTHER = {"accelerometer": "gyroscope", "gyroscope": "accelerometer"}
FAILURES = {"stuck": lambda x: x[..., :1].expand_as(x), "noisy": lambda x: x + torch.randn(x.shape)}
COLUMNS = ("doubted", "joint head", "decision", "difference")
Views = dict[str, Tensor]


class Late(nn.Module):
    """An encoder a sensor, a head on both features, and a head for each."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({m: encoder() for m in OTHER})
        self.head = nn.Linear(2 * WIDTH, classes)
        self.heads = nn.ModuleDict({m: nn.Linear(WIDTH, classes) for m in OTHER})

    def forward(self, x: Views) -> tuple[Tensor, Views]:
        """Logits of both sensors, and of each alone."""
        z = {m: self.encoders[m](v) for m, v in x.items()}
        return self.head(torch.cat([*z.values()], 1)), {m: self.heads[m](v) for m, v in z.items()}


def encoder() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 16, 7, stride=2), nn.ReLU(), nn.Conv1d(16, 32, 5, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, WIDTH), nn.ReLU(),
    )  # fmt: skip


def statistics(x: Tensor) -> Tensor:
    """Level, spread and roughness of each axis, "b 9": how a signal looks, whatever it means."""
    return torch.cat([x.mean(-1), (x.std(-1) + 0.01).log(), (x.diff().std(-1) + 0.01).log()], 1)


def load() -> tuple[Tensor, Tensor, Tensor]:
    """Windows "n 6 time", exercises, people. The file is checked before it is read: a pickle can run code."""
    spec = find_spec("seglearn")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("seglearn is not installed; its data are read: pip install --no-deps seglearn==1.2.5")
    file = Path(spec.submodule_search_locations[0]) / "data" / "watch_dataset.npy"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != DIGEST:
        raise SystemExit(f"{file.name}: expected the file of seglearn 1.2.5, sha256 {DIGEST}, found {digest}")
    data = np.load(file, allow_pickle=True).item()
    windows = [np.lib.stride_tricks.sliding_window_view(x, LENGTH, 0)[::LENGTH] for x in data["X"]]
    exercise, person = (np.repeat(data[key], [len(w) for w in windows]) for key in ("y", "subject"))
    x = torch.tensor(np.concatenate(windows), dtype=torch.float32)
    return x, torch.tensor(exercise).long(), torch.tensor(person).long()


def train(x: Views, y: Tensor, *, epochs: int) -> Late:
    model = Late(int(y.max()) + 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for rows in (rows for _ in range(epochs) for rows in torch.randperm(len(y)).split(64)):
        both, alone = model({m: v[rows] for m, v in x.items()})
        loss = F.cross_entropy(both, y[rows]) + unimodal_loss(alone, y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def density(training: Tensor, calibrating: Tensor) -> FeatureDensity:
    """How a sensor looks that works."""
    found = FeatureDensity(9)
    found.accumulate(statistics(training))
    found.commit()
    found.calibrate(statistics(calibrating))
    found.commit()
    return found


@torch.no_grad()
def test(model: Late, densities: dict[str, FeatureDensity], x: Views, y: Tensor, failing: str | None) -> list[float]:
    """In per cent: windows in which the failing sensor, or else any, is doubted; accuracy of both ways; difference."""
    both, alone = model(x)
    doubted = {m: d.confidence(statistics(x[m])) < 0.05 for m, d in densities.items()}
    decision = both.clone()
    for m, other in OTHER.items():
        only = doubted[m] & ~doubted[other]
        decision[only] = alone[other][only]
    shown = doubted[failing] if failing else doubted["accelerometer"] | doubted["gyroscope"]
    joint, decided = both.argmax(1) == y, decision.argmax(1) == y
    return [100 * each.float().mean().item() for each in (shown, joint, decided, decided.float() - joint.float())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="two or more")
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    x, y, person = load()
    cases = {"as they are": (None, None)} | {f"{m} {how}": (m, how) for m in OTHER for how in FAILURES}
    found = {name: np.zeros((args.seeds, len(COLUMNS))) for name in cases}
    for seed in range(args.seeds):
        torch.manual_seed(seed)
        t, c, e = (torch.isin(person, some) for some in person.unique()[torch.randperm(10)].split([5, 2, 3]))
        z = (x - x[t].mean((0, 2), keepdim=True)) / x[t].std((0, 2), keepdim=True)
        views = dict(zip(OTHER, z.split(3, 1), strict=True))
        model = train({m: v[t] for m, v in views.items()}, y[t], epochs=args.epochs)
        densities = {m: density(v[t], v[c]) for m, v in views.items()}
        for name, (failing, how) in cases.items():
            tested = {m: FAILURES[how](v[e]) if m == failing else v[e] for m, v in views.items()}
            found[name][seed] = test(model, densities, tested, y[e], failing)
    print(f"{f'%, mean ± sd of {args.seeds}':<22}" + "".join(column.rjust(13) for column in COLUMNS))
    for name, each in found.items():
        cells = (f"{a:.1f} ± {b:.1f}".rjust(13) for a, b in zip(each.mean(0), each.std(0, ddof=1), strict=True))
        print(f"{name:<22}" + "".join(cells))


if __name__ == "__main__":
    main()
