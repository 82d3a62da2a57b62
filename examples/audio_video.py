"""Audio and video, where some samples lack one of the two: joint training, OGM, and unimodal losses.

    python examples/audio_video.py

The data are generated, and made so that there is something to balance. Of six classes the sound tells four apart, at
once: by audio alone one is right two times in three at best. The video shows all six, as the direction in which a blob
moves, which takes longer to learn. A fifth of the samples have no video, a fifth no audio, in training and in testing.

What is missing is in no sum: an encoder sees the samples that have its modality, the feature of the others is zero, and
scores and unimodal losses are means over those present. Compared, with Adam: joint cross-entropy; the same with smaller
updates for the encoder that is ahead; joint cross-entropy and one for each modality, on a linear head of its own. To
bring your own data, replace `draw` and `encoder`.
"""

import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import OGM, Branches
from balancekit.modulation import scale_updates, slice_logits

CLASSES, WIDTH = 6, 32
SOUNDS = torch.tensor([0, 1, 2, 3, 0, 1])  # of each class
METHODS = ("joint", "+ OGM", "+ unimodal")
COLUMNS = ("all", "both", "audio only", "video only")
Views = dict[str, Tensor]


class Late(nn.Module):
    """An encoder a modality, a head on both features, and a head for each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({"audio": encoder(1, rows=4), "video": encoder(6, rows=1)})
        self.head = nn.Linear(2 * WIDTH, CLASSES)
        self.heads = nn.ModuleDict({m: nn.Linear(WIDTH, CLASSES) for m in self.encoders})

    def forward(self, x: Views, present: Views) -> tuple[Tensor, Views]:
        """Logits "b c", and features "b d" that are zero for the samples without the modality."""
        features = {m: torch.zeros(len(v), WIDTH, device=v.device) for m, v in x.items()}
        for m, here in present.items():
            features[m][here] = self.encoders[m](x[m][here])
        return self.head(torch.cat([*features.values()], 1)), features


def encoder(channels: int, rows: int) -> nn.Module:
    """Of pictures "b c h w". A spectrogram keeps rows, its pitch; the channels of a video are its frames."""
    return nn.Sequential(
        nn.Conv2d(channels, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(24, 24, 3), nn.ReLU(),
        nn.AdaptiveMaxPool2d((rows, 1)), nn.Flatten(), nn.Linear(24 * rows, WIDTH), nn.ReLU(),
    )  # fmt: skip


def draw(size: int, generator: torch.Generator) -> tuple[Views, Views, Tensor]:
    """Spectrograms "b 1 pitch time" and frames "b time h w", NaN where missing; which are present; labels."""
    y = torch.randint(CLASSES, (size,), generator=generator)
    pitch = torch.arange(12)[:, None] - 3 * SOUNDS[y, None, None, None]
    since = torch.arange(16) - torch.randint(9, (size, 1, 1, 1), generator=generator)
    audio = 2.0 * ((pitch >= 0) & (pitch < 2) & (since >= 0) & (since < 7))
    angle, time = 2 * math.pi * y / CLASSES, torch.arange(-2.5, 3)[:, None, None]
    heading = torch.stack([angle.sin(), angle.cos()])[..., None, None, None]
    centre = 3.5 + 2 * torch.rand(2, size, 1, 1, 1, generator=generator) + heading * time
    pixels = torch.stack(torch.meshgrid(torch.arange(10), torch.arange(10), indexing="ij"))[:, None, None]
    video = 1.2 * torch.exp(-(pixels - centre).square().sum(0) / 2)
    lot = torch.rand(size, generator=generator)
    present = {"audio": lot > 0.2, "video": lot < 0.8}
    x = {m: v + torch.randn(v.shape, generator=generator) for m, v in (("audio", audio), ("video", video))}
    return {m: v.masked_fill(~present[m][:, None, None, None], math.nan) for m, v in x.items()}, present, y


def train(method: str, x: Views, present: Views, y: Tensor, *, epochs: int) -> Late:
    model, ogm = Late(), OGM(alpha=0.8)
    optimizer = torch.optim.Adam(Branches(model, {m: f"encoders.{m}" for m in x}).param_groups(lr=3e-3))
    for rows in (rows for _ in range(epochs) for rows in torch.randperm(len(y)).split(50)):
        here, labels = {m: p[rows] for m, p in present.items()}, y[rows]
        logits, features = model({m: v[rows] for m, v in x.items()}, here)
        loss = F.cross_entropy(logits, labels)
        if method == "+ unimodal":
            own = (F.cross_entropy(model.heads[m](features[m][p]), labels[p]) for m, p in here.items() if p.any())
            loss = loss + sum(own)
        optimizer.zero_grad()
        loss.backward()
        if method == "+ OGM":  # on updates: Adam would divide a factor on the gradient out again
            scale_updates(optimizer, ogm(slice_logits(model.head, features), labels, present=here))
        optimizer.step()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="two or more")
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    found = {method: np.zeros((args.seeds, len(COLUMNS))) for method in METHODS}
    for seed in range(args.seeds):
        generator = torch.Generator().manual_seed(seed)
        training, (x, present, y) = draw(1200, generator), draw(2000, generator)
        audio, video = present.values()
        for method in METHODS:
            torch.manual_seed(seed)
            model = train(method, *training, epochs=args.epochs)
            with torch.no_grad():
                right = 100.0 * (model(x, present)[0].argmax(1) == y)
            found[method][seed] = [right[who].mean() for who in (audio | video, audio & video, ~video, ~audio)]
    found |= {f"{method} − joint": found[method] - found["joint"] for method in METHODS[1:]}
    print(f"{f'%, mean ± sd of {args.seeds}':<22}" + "".join(column.rjust(13) for column in COLUMNS))
    for name, each in found.items():
        cells = (f"{a:.1f} ± {b:.1f}".rjust(13) for a, b in zip(each.mean(0), each.std(0, ddof=1), strict=True))
        print(f"{name:<22}" + "".join(cells))


if __name__ == "__main__":
    main()
