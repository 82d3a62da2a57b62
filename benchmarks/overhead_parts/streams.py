"""Token models with one encoder a modality: apart, or joined by adapters in some blocks, or above a shared trunk."""

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from balancekit import Branches, GatedCrossAttention, dropout_confidence, hub


class Attention(nn.Module):
    """Self-attention of tokens "b n d"."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        return self.out(rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)"))


class Block(nn.Module):
    """A pre-norm transformer block, x + MLP(LN(x)) after x + attention(LN(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Blocks, and a norm for the class token."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)


class Streams(nn.Module):
    """One encoder a modality; adapters write along `edges` in the blocks named by `exchange`; one head on all.

    Args:
        names: the modalities.
        width: of a token.
        depth: blocks of each encoder.
        heads: of attention.
        exchange: the blocks in which modalities meet; none: late fusion.
        edges: pairs (source, target); by default the first modality is the hub.
        trunk: shared blocks below the encoders, which no branch owns.
        classes: outputs of the head.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        width: int,
        depth: int,
        heads: int,
        exchange: Iterable[int] = (),
        edges: Iterable[tuple[str, str]] | None = None,
        trunk: int = 0,
        classes: int = 4,
    ) -> None:
        super().__init__()
        self.names, self.width = tuple(names), width
        self.trunk = nn.Sequential(*(Block(width, heads) for _ in range(trunk)))
        self.encoders = nn.ModuleDict({name: Encoder(width, depth, heads) for name in names})
        self.edges = tuple(hub(names[0], names) if edges is None else edges)
        self.adapters = nn.ModuleDict({str(i): self._adapters() for i in exchange})
        self.head = nn.Linear(len(self.names) * width, classes)

    def _adapters(self) -> nn.ModuleDict:
        made = nn.ModuleDict({f"{a}_to_{b}": GatedCrossAttention(self.width, dropout=0.0) for a, b in self.edges})
        for adapter in made.values():
            nn.init.normal_(adapter.up.weight, std=0.02)  # as after some training: at zero nothing is exchanged yet
        return made

    def branches(self) -> Branches:
        """Each modality with its encoder and the adapters that write into it."""
        incoming = {
            name: [adapters[f"{a}_to_{b}"] for adapters in self.adapters.values() for a, b in self.edges if b == name]
            for name in self.names
        }
        return Branches(self, {name: [self.encoders[name], *incoming[name]] for name in self.names})

    def proxy(self, last: int = 1) -> Branches:
        """The last block of each encoder alone, or the last few."""
        return Branches(self, {name: list(self.encoders[name].blocks)[-last:] for name in self.names})

    def features(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Class tokens {modality: "b d"} of tokens {modality: "b n d"}."""
        tokens = dict(x)
        if len(self.trunk):
            shared = self.trunk(torch.cat(list(tokens.values())))
            tokens = dict(zip(self.names, shared.chunk(len(self.names)), strict=True))
        for i in range(len(self.encoders[self.names[0]].blocks)):
            blocks = {name: self.encoders[name].blocks[i] for name in self.names}
            attended = {n: block.attention(block.norm1(tokens[n])) for n, block in blocks.items()}
            tokens = {n: tokens[n] + attended[n] for n in self.names}
            normed = {n: block.norm2(tokens[n]) for n, block in blocks.items()}
            tokens = {n: tokens[n] + block.mlp(normed[n]) for n, block in blocks.items()}
            if str(i) in self.adapters:
                for a, b in self.edges:
                    trust = dropout_confidence(attended[a].detach())
                    delta = self.adapters[str(i)][f"{a}_to_{b}"](normed[b], normed[a], trust)
                    tokens[b] = tokens[b] + delta
        return {name: self.encoders[name].norm(tokens[name][:, 0]) for name in self.names}
