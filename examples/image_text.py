"""Image and text: two towers, a contrastive loss and a joint head, and whether there is anything to balance.

    python examples/image_text.py

The images are scikit-learn's handwritten digits, which ship with it (1797 of 8 × 8 pixels). The captions are generated:
half of them say the digit ("the seven"), half something vague ("some handwritten odd number"). Two small encoders are
trained so that image and caption lie close (the contrastive loss of CLIP, arXiv 2103.00020, Fig. 3), and a joint head
names the digit, for which the caption is the easy way. Compared: that alone; with a cross-entropy for each tower, on a
head of its own; the same losses with gradient surgery. Each direction of the contrastive loss reaches both towers, so
there gradients meet, and `watch` says how: where they agree, surgery has nothing to repair. To bring your own data,
replace `load` and the two towers.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from balancekit import Branches, Rebalancer, ReGrad, Sum, watch

METHODS = {"joint": Sum(), "+ unimodal": Sum(), "+ ReGrad": ReGrad()}
COLUMNS = ("head", "head, vague", "to caption", "to image", "conflict")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("", "the", "some", "handwritten", "digit", "number", "odd", "even", "low", "high", *DIGITS)
Views = dict[str, Tensor]


class Towers(nn.Module):
    """An encoder a modality, a head on both features, a head for each, and the scale of the contrastive loss."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        pixels, words = nn.Linear(64, 128), nn.EmbeddingBag(len(WORDS), 128, padding_idx=0)
        self.image = nn.Sequential(nn.Flatten(), pixels, nn.ReLU(), nn.Linear(128, width))
        self.text = nn.Sequential(words, nn.ReLU(), nn.Linear(128, width))
        self.head = nn.Linear(2 * width, 10)
        self.heads = nn.ModuleDict({m: nn.Linear(width, 10) for m in ("image", "text")})
        self.scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, x: Views) -> tuple[Tensor, Views]:
        z = {"image": self.image(x["image"]), "text": self.text(x["text"])}
        return self.head(torch.cat([*z.values()], 1)), z

    def nearness(self, image: Tensor, text: Tensor) -> Tensor:
        """The cosine of every image to every caption, times the scale."""
        return self.scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T


def tokens(captions: list[str]) -> Tensor:
    """Up to four words as numbers, "b 4"."""
    return torch.tensor([[WORDS.index(word) for word in (text.split() + [""] * 4)[:4]] for text in captions])


def load(seed: int) -> tuple[Views, Tensor]:
    """Images "b 8 8", captions "b 4" and labels."""
    digits, rng, captions = load_digits(), np.random.default_rng(seed), []
    for y in digits.target:
        hint = rng.choice(("digit", "odd number" if y % 2 else "even number", "low number" if y < 5 else "high number"))
        what = DIGITS[y] if rng.random() < 0.5 else hint
        captions.append(f"{rng.choice(('the', 'some handwritten'))} {what}")
    images = torch.tensor(digits.images, dtype=torch.float32) / 16
    return {"image": images, "text": tokens(captions)}, torch.tensor(digits.target)


def train(method: str, x: Views, y: Tensor, *, epochs: int) -> tuple[Towers, float]:
    """The model, and in how many per cent of the tensors the gradients of image and text pointed apart."""
    model = Towers()
    balancer = Rebalancer(Branches(model, {m: m for m in x}), METHODS[method])
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    with watch(balancer, optimizer=optimizer, every=5) as history:
        for rows in (rows for _ in range(epochs) for rows in torch.randperm(len(y)).split(100)):
            text, labels = x["text"][rows], y[rows]
            logits, z = model({"image": x["image"][rows], "text": text})
            near = model.nearness(z["image"], z["text"])
            same = (text[:, None] == text).all(-1).float()
            right = same / same.sum(1, keepdim=True)  # equal captions are equally right
            losses = {"image": F.cross_entropy(near, right), "text": F.cross_entropy(near.T, right)}
            if method != "joint":
                losses = {m: each + F.cross_entropy(model.heads[m](z[m]), labels) for m, each in losses.items()}
            loss = balancer(F.cross_entropy(logits, labels), losses)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model, 100 * history["conflict/image-text"][1].mean()


@torch.no_grad()
def test(model: Towers, x: Views, y: Tensor) -> list[float]:
    """In per cent: the joint head, on all and on vague captions; the nearest of ten captions, and 40 images to each."""
    logits, z = model(x)
    right, vague = logits.argmax(1) == y, (x["text"] < len(WORDS) - 10).all(1)
    near = model.nearness(z["image"], model.text(tokens([f"the {digit}" for digit in DIGITS])))
    found = y[near.topk(40, dim=0).indices] == torch.arange(10)
    return [100 * each.float().mean().item() for each in (right, right[vague], near.argmax(1) == y, found)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="two or more")
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    found = {method: np.zeros((args.seeds, len(COLUMNS))) for method in METHODS}
    for seed in range(args.seeds):
        x, y = load(seed)
        a, b = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed)).split(1200)
        for method in METHODS:
            torch.manual_seed(seed)
            model, conflict = train(method, {m: v[a] for m, v in x.items()}, y[a], epochs=args.epochs)
            found[method][seed] = [*test(model, {m: v[b] for m, v in x.items()}, y[b]), conflict]
    found |= {f"{method} − joint": found[method] - found["joint"] for method in ("+ unimodal", "+ ReGrad")}
    print(f"{f'%, mean ± sd of {args.seeds}':<22}" + "".join(column.rjust(13) for column in COLUMNS))
    for name, each in found.items():
        cells = (f"{a:.1f} ± {b:.1f}".rjust(13) for a, b in zip(each.mean(0), each.std(0, ddof=1), strict=True))
        print(f"{name:<22}" + "".join(cells))


if __name__ == "__main__":
    main()
