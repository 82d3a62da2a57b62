"""Any number of modalities, parameters and tensors: a chain of linear layers a modality, mixed after every layer."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import Branches


class Chains(nn.Module):
    """`modalities` chains of `depth` square layers; each state hears the mean of all states after every layer."""

    def __init__(self, modalities: int, *, width: int, depth: int, classes: int = 4) -> None:
        super().__init__()
        self.width = width
        self.names = tuple(f"m{i}" for i in range(modalities))
        layers = {n: nn.ModuleList(nn.Linear(width, width) for _ in range(depth)) for n in self.names}
        self.chains = nn.ModuleDict(layers)
        self.head = nn.Linear(modalities * width, classes)

    def branches(self) -> Branches:
        return Branches(self, {name: self.chains[name] for name in self.names})

    def proxy(self) -> Branches:
        return Branches(self, {name: self.chains[name][-1] for name in self.names})

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """States {modality: "b d"} of tokens {modality: "b 1 d"}."""
        state = {name: tokens[:, 0] for name, tokens in x.items()}
        for layers in zip(*(self.chains[name] for name in self.names), strict=True):
            mean = sum(state.values()) / len(state)
            mixed = {n: s + 0.1 * mean for n, s in state.items()}
            state = {n: s + 0.1 * F.gelu(layer(s)) for (n, s), layer in zip(mixed.items(), layers, strict=True)}
        return state
