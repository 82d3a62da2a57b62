"""Small models with several branches, for the tests: late fusion or coupled, any number of modalities."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from balancekit import Branches


class Toy(nn.Module):
    """One encoder a modality, auxiliary heads, one joint head; coupled features also see the next modality."""

    def __init__(self, modalities: int, *, coupled: bool, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.coupled = coupled
        self.names = [f"m{i}" for i in range(modalities)]
        self.encoders = nn.ModuleDict(
            {n: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)) for n in self.names}
        )
        self.heads = nn.ModuleDict({n: nn.Linear(4, 1) for n in self.names})
        self.joint = nn.Linear(4 * modalities, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
        self.to(dtype)

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """Features of x "m b 3"."""
        features = {name: self.encoders[name](x[i]) for i, name in enumerate(self.names)}
        if not self.coupled:
            return features
        following = dict(zip(self.names, self.names[1:] + self.names[:1], strict=True))
        return {n: f + 0.5 * torch.tanh(f * features[following[n]]) for n, f in features.items()}

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and one loss a modality: on its auxiliary head if coupled, else on the bare feature."""
        features = self.features(x)
        total = (self.joint(torch.cat(list(features.values()), -1)) - y).square().mean()
        scores = {n: self.heads[n](f) if self.coupled else f.sum(-1, keepdim=True) for n, f in features.items()}
        return total, {name: (score - y).square().mean() for name, score in scores.items()}

    def branches(self) -> Branches:
        return Branches(self, {name: f"encoders.{name}" for name in self.names})

    def rest(self) -> list[nn.Parameter]:
        owned = self.branches().owners()
        return [parameter for parameter in self.parameters() if parameter not in owned]


def batches(
    count: int, modalities: int, *, seed: int = 0, size: int = 5, dtype: torch.dtype = torch.float64
) -> Iterator:
    """Batches (x "m b 3", y "b 1")."""
    generator = torch.Generator().manual_seed(1000 + seed)
    for _ in range(count):
        x = torch.randn(modalities, size, 3, generator=generator).to(dtype)
        yield x, torch.randn(size, 1, generator=generator).to(dtype)


def gradients(model: nn.Module) -> list[Tensor]:
    """The gradient of every parameter, zeros where there is none."""
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]
