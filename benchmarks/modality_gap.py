"""One function, three kinds of labels: what a prototypical cross-entropy of classes, domains or modalities measures.

    python benchmarks/modality_gap.py [--seeds N] [--out DIR] [--picture FILE]

MMDG's network is trained on the generated faces of three sites in five ways. On development data that nobody trains on
three cross-entropies to prototypes are taken every ten steps, each as the share of the labels' entropy that distances
to prototypes explain, 1 − PCE / H:

    class       live or attack, in the feature of each modality, then the mean
    domain      live, or an attack of one of the sites (SSP's labels), likewise
    modality    which modality a feature is of, all features in one space

and the gap itself: the distance of two modalities' mean features in units of a feature's distance from its own mean.
Prototypes are the means of one half of the people, and the other half is measured. About six minutes on two cores.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from fas.backbones import backbone
from fas.data import Batch, FaceData
from fas.evaluation.metrics import auc
from fas.protocols import cells, gather
from fas.samples import DOMAINS, Samples
from fas.standin import COUNTS, cached_split
from fas.study import SENSORS
from fas.systems import Setup
from fas.systems.base import Looks, Output
from fas.systems.mmdg import MMDG, Parts
from fas.training import Options, fit, score
from instruments.report import Report
from matplotlib.figure import Figure
from torch import Tensor

from balancekit import PrototypeBank, prototypical_cross_entropy, single_side_labels

EVERY = 10  # steps
MEASURES = ("class", "domain", "modality", "gap")
TITLES = {
    "class": "class labels: explained",
    "domain": "domain labels: explained",
    "modality": "modality labels: explained",
    "gap": "distance of modalities / spread",
}


class Seen(NamedTuple):
    """Development data to look at."""

    inputs: dict[str, Tensor]
    live: Tensor
    domain: Tensor
    known: Tensor  # bool "b": the people whose means are the prototypes


class Measured(MMDG):
    """MMDG that looks at itself every few steps."""

    def __init__(self, setup: Setup, parts: Parts, seen: Seen) -> None:
        super().__init__(setup, parts)
        self.seen, self.step, self.found = seen, 0, {name: [] for name in MEASURES}

    def loss(self, output: Output, batch: Batch, progress: float) -> Tensor:
        if self.step % EVERY == 0:
            self.look()
        self.step += 1
        return super().loss(output, batch, progress)

    @torch.no_grad()
    def look(self) -> None:
        self.eval()
        seen, features = self.seen, self.network(self.seen.inputs).features
        self.train()
        sides = single_side_labels(seen.live, seen.domain)
        every, names = torch.cat([*features.values()]), torch.arange(len(features)).repeat_interleave(len(seen.live))
        known = seen.known.repeat(len(features))
        for name, labels in (("class", seen.live.long()), ("domain", sides)):
            shares = [explained(z, labels, seen.known) for z in features.values()]
            self.found[name].append(sum(shares) / len(shares))
        self.found["modality"].append(explained(every, names, known))
        self.found["gap"].append(gap([*features.values()]))


class Modalities(Measured):
    """The same cross-entropy in SSP's place, with the modality for a label."""

    def __init__(self, setup: Setup, parts: Parts, seen: Seen) -> None:
        super().__init__(setup, parts, seen)
        self.bank = PrototypeBank(len(setup.channels), self.network.trunk.width, decay=0.2)

    def prepare(self, train: Looks, dev: Looks, epoch: int) -> None:
        for batch in train():
            for m, z in enumerate(self.network(batch.inputs).features.values()):
                self.bank.accumulate(z, torch.full((len(z),), m))
        self.bank.commit()

    def unimodal(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        return {
            m: prototypical_cross_entropy(z, torch.full((len(z),), i), self.bank.prototypes, seen=self.bank.seen)
            for i, (m, z) in enumerate(output.features.items())
        }


def explained(z: Tensor, labels: Tensor, known: Tensor) -> float:
    """1 − PCE / H: the share of the labels' entropy that distances to prototypes explain; below 0, they mislead."""
    bank = PrototypeBank(int(labels.max()) + 1, z.shape[1], decay=0.0)
    bank.update(z[known], labels[known])
    loss = prototypical_cross_entropy(z[~known], labels[~known], bank.prototypes, seen=bank.seen)
    shares = labels[~known].bincount() / (~known).sum()
    return 1 - (loss / torch.special.entr(shares).sum()).item()


def gap(features: list[Tensor]) -> float:
    """Root mean squares: of the distance of two modalities' means, over that of a feature from its own mean."""
    means = torch.stack([z.mean(0) for z in features])
    between = torch.pdist(means).square().mean()
    within = torch.stack([(z - z.mean(0)).square().sum(1).mean() for z in features]).mean()
    return (between / within).sqrt().item()


SYSTEMS: dict[str, Callable[..., Measured]] = {
    "cross-entropy alone": partial(Measured, parts=Parts(ssp=False)),
    "+ SSP, added up": partial(Measured, parts=Parts(regrad="none")),
    "+ SSP, ReGrad": partial(Measured, parts=Parts()),
    "+ modality labels, added up": partial(Modalities, parts=Parts(regrad="none")),
    "+ modality labels, ReGrad": partial(Modalities, parts=Parts()),
}
STYLES = (("#000000", "-"), ("#56B4E9", "--"), ("#0072B2", "-"), ("#E69F00", "--"), ("#D55E00", "-"))


def faces(folder: Path, seed: int, domain: str, split: str) -> Samples:
    return cached_split(folder, domain, split, COUNTS[split], seed=seed)


def look_at(dev: Samples) -> Seen:
    batch = FaceData(dev)[range(0, len(dev.live), 2)]
    return Seen(batch.inputs, batch.live, batch.domain, dev.identity[::2] % 2 == 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--target", choices=DOMAINS, default="W", help="the site that is left out")
    parser.add_argument("--out", type=Path, default=Path("runs/modality_gap"))
    parser.add_argument("--picture", type=Path, help="where to draw; OUT/modality_gap.png")
    args = parser.parse_args()
    cell = next(cell for cell in cells("P1") if args.target in cell.targets)
    found: dict[str, list[dict[str, list[float]]]] = {name: [] for name in SYSTEMS}
    areas: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for seed in range(args.seeds):
        train, dev, test = gather(cell, partial(faces, args.out / "data", seed))
        setup, seen = Setup(backbone("small"), SENSORS, len(DOMAINS)), look_at(dev)
        for name, make in SYSTEMS.items():
            options = Options(seed=seed)
            fitted = fit(partial(make, setup, seen=seen), train, dev, options)
            fitted.system.look()
            found[name].append(fitted.system.found)
            areas[name].append(100 * auc(score(fitted.system, test, options)[0].numpy(), test.live.numpy()))
        print(f"seed {seed} done", flush=True)
    report = Report("modality_gap")
    rows = [
        [
            name,
            *(f"{mean([f[m][0] for f in runs]):.2f} → {mean([f[m][-1] for f in runs]):.2f}" for m in MEASURES),
            f"{mean(areas[name]):.1f}",
        ]
        for name, runs in found.items()
    ]
    title = f"explained share by labels, and the gap, at the first step → at the last; {args.target} held out, "
    report.table(f"{title}{args.seeds} seeds, means", ("", *MEASURES, f"AUC on {args.target}"), rows)
    for name, runs in found.items():
        for m in MEASURES:
            for run in runs:
                report.keep("modality_gap", name, "curve", m, run[m])
    report.write(args.out)
    print(draw(found, args.picture or args.out / "modality_gap.png"))


def draw(found: dict[str, list[dict[str, list[float]]]], path: Path) -> Path:
    """A panel a measure, a line a system: means over seeds, in the range of all of them."""
    figure = Figure(figsize=(13, 3.4), layout="constrained", dpi=130)
    for panel, m in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
        for (name, runs), (colour, dash) in zip(found.items(), STYLES, strict=True):
            curves = torch.tensor([run[m] for run in runs])
            steps = EVERY * torch.arange(curves.shape[1])
            panel.plot(steps, curves.mean(0), dash, color=colour, label=name)
            panel.fill_between(steps, curves.amin(0), curves.amax(0), color=colour, alpha=0.12, lw=0)
        panel.set_title(TITLES[m], fontsize=10)
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="0.92")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
