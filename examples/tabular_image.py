"""A table and an image through a model that others wrote: prototypes, ReGrad, and which predictions to trust.

    python examples/tabular_image.py

The images are scikit-learn's handwritten digits, which ship with it (1797 of 8 × 8 pixels). The table is generated:
seven noisy measurements of the label, and a spurious column that is the label itself nine times in ten. It is tested
with such a column and with one drawn at random, as when a habit of those who filled it in has changed.

The model stays as it is: `MultiBranch` takes its parts by name and returns their features. Compared: joint training;
plus a prototypical cross-entropy for each branch; the same losses with ReGrad, where they meet. Then the fifth of the
test is set aside that the model is least sure of, by the entropy of one pass, and of 20 passes with dropout. To bring
your own data, replace `load`, `Foreign` and `PARTS`.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from balancekit import MCDropout, MultiBranch, PrototypeBank, Rebalancer, ReGrad, Sum, predictive_entropy, watch
from balancekit import prototypical_cross_entropy as pce
from balancekit.uncertainty import risk_coverage

WIDTH = 32
METHODS = {"joint": Sum(), "+ prototypes": Sum(), "+ ReGrad": ReGrad()}
COLUMNS = ("as trained", "broken", "surest 80 %", "by dropout", "conflict")
PARTS = {"image": ["from_image", "cnn"], "table": ["from_table", "mlp"]}  # the first of a branch makes its feature


class Foreign(nn.Module):
    """A CNN and an MLP, a residual layer that mixes their features, and a head on both."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(128, WIDTH),
        )  # fmt: skip
        self.mlp = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, WIDTH))
        self.mix = nn.Sequential(nn.ReLU(), nn.Dropout(0.2), nn.Linear(2 * WIDTH, 2 * WIDTH))
        self.from_image, self.from_table = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(2 * WIDTH, 10))

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        both = torch.cat([self.cnn(image), self.mlp(table)], 1)
        image, table = (both + self.mix(both)).chunk(2, 1)
        return self.head(torch.cat([self.from_image(image), self.from_table(table)], 1))


def load(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images "n 1 8 8", tables "n 8" with the spurious column, the same without, labels."""
    digits = load_digits()
    y = torch.tensor(digits.target)
    centres = torch.randn(10, 7, generator=generator)
    noisy = centres[y] + 1.5 * torch.randn(len(y), 7, generator=generator)
    chance = torch.randint(10, (len(y),), generator=generator)
    habit = torch.where(torch.rand(len(y), generator=generator) < 0.9, y, chance)
    usual, broken = (torch.cat([noisy, column[:, None] / 3.0 - 1.5], 1) for column in (habit, chance))
    return torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, usual, broken, y


def train(method: str, image: Tensor, table: Tensor, y: Tensor, *, epochs: int) -> tuple[MultiBranch, float]:
    """The model, and in how many per cent of the tensors the gradients of image and table pointed apart."""
    model = MultiBranch(Foreign(), PARTS)
    banks = {m: PrototypeBank(10, WIDTH, decay=0.9) for m in PARTS}
    balancer = Rebalancer(model.branches, METHODS[method])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    with watch(balancer, optimizer=optimizer, every=5) as history:
        for rows in (rows for _ in range(epochs) for rows in torch.randperm(len(y)).split(100)):
            logits, features = model(image[rows], table[rows])
            loss = F.cross_entropy(logits, y[rows])
            if method != "joint":
                for m, f in features.items():
                    banks[m].update(f.detach(), y[rows])
                own = {m: pce(f, y[rows], banks[m].prototypes, seen=banks[m].seen) for m, f in features.items()}
                loss = balancer(loss, own)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval(), 100 * np.mean(history.get("conflict/image-table", (0, np.nan))[1])


@torch.no_grad()
def test(model: MultiBranch, image: Tensor, usual: Tensor, broken: Tensor, y: Tensor) -> list[float]:
    """Errors in per cent: with either column; with the broken one, of the surest 80 %, by one pass and by dropout."""
    usually, wrong = ((model(image, table).output.argmax(1) != y).float() for table in (usual, broken))
    once, often = model(image, broken).output[None], MCDropout(model.model, samples=20, chunk_size=20)(image, broken)
    risks = [risk_coverage(predictive_entropy(samples.softmax(-1)), wrong)[1] for samples in (once, often)]
    errors = (usually.mean(), wrong.mean(), *(risk[len(y) * 4 // 5 - 1] for risk in risks))
    return [100 * error.item() for error in errors]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="two or more")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    found = {method: np.zeros((args.seeds, len(COLUMNS))) for method in METHODS}
    for seed in range(args.seeds):
        generator = torch.Generator().manual_seed(seed)
        image, usual, broken, y = load(generator)
        a, b = torch.randperm(len(y), generator=generator).split(1200)
        for method in METHODS:
            torch.manual_seed(seed)
            model, conflict = train(method, image[a], usual[a], y[a], epochs=args.epochs)
            found[method][seed] = [*test(model, image[b], usual[b], broken[b], y[b]), conflict]
    found |= {f"{method} − joint": found[method] - found["joint"] for method in ("+ prototypes", "+ ReGrad")}
    print(f"{f'%, mean ± sd of {args.seeds}':<22}" + "".join(column.rjust(13) for column in COLUMNS))
    for name, each in found.items():
        cells = (f"{a:.1f} ± {b:.1f}" for a, b in zip(each.mean(0), each.std(0, ddof=1), strict=True))
        print(f"{name:<22}" + "".join(cell.replace("nan ± nan", "–").rjust(13) for cell in cells))


if __name__ == "__main__":
    main()
