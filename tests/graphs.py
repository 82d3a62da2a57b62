"""Models with several branches, made of choices: everything that the autograd graph of one may hold, at small size."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.opaque import Keep, Kept, Mix, Twin, compiled_pair

F64 = torch.float64
INSIDE, WIDTH, CLASSES, BATCH = 3, 4, 3, 5


class Choices(NamedTuple):
    """What is drawn; every field by itself, but for what excludes another."""

    modalities: int  # 2 … 6
    depth: int  # layers of a branch, 2 or 3
    exchange: str  # none, all, bottom, top: at which layers; apart: all layers, but one branch does not; ring: one way
    trunk: str  # below the branches: none, shared, frozen
    head: str  # of a unimodal loss: none, inside the branch, outside, shared
    joint: bool  # whether the total has a head of its own
    adapter: str  # none, trained, frozen: each branch's own layer for what it is told
    send: bool  # each branch's own layer for what it tells, reached by the losses of those who hear it
    tied: bool  # the last two layers of a branch share a weight
    reused: bool  # the second layer runs twice
    frozen: bool  # tensors of the first layers
    unused: bool  # modules that never run
    bias: bool
    inner: str  # between linear map and tanh: none, scale, norm
    extras: frozenset[str]  # parameters by themselves: gain, gate, alias, twin, expanded, kept
    across: bool  # alias, twin, expanded, kept: the next branch's parameter too
    direct: bool  # extras are targets one by one
    checkpoint: bool  # one layer of all branches
    mix: str  # a Function with all branches: none, apart (each only seems to reach the others), mixed
    cut: tuple[int, str] | None  # the input that it gives None or zero
    compiled: str  # a compiled region with two branches: none, apart, mixed
    kinds: tuple[str, ...]  # of each unimodal loss: square, entropy, sum
    scales: tuple[float, ...]  # of each unimodal loss: 1, 1e-6, 1e6, or 0: its row is zero
    input_grad: bool  # the inputs require grad: tensors of no branch


class Forward(NamedTuple):
    """One forward pass."""

    total: Tensor
    losses: dict[str, Tensor]
    other: Tensor  # another loss on the same graph, for the same backward
    kept: list[Kept]


class Scale(nn.Module):
    """Elementwise weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Model(nn.Module):
    """The model of some choices."""

    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.choices = c = choices
        self.names = [f"m{i}" for i in range(c.modalities)]
        self.trunk = nn.Linear(INSIDE, INSIDE) if c.trunk != "none" else None
        self.encoders = nn.ModuleDict({name: self._encoder() for name in self.names})
        self.extras = nn.ModuleDict({name: self._extras() for name in self.names if c.extras})
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, CLASSES) for name in self.names if c.head == "outside"})
        self.head = nn.Linear(WIDTH, CLASSES) if c.head == "shared" else None
        self.joint = nn.Linear(WIDTH * c.modalities, CLASSES) if c.joint else None
        self.unused = nn.Linear(2, 2) if c.unused else None
        self.register_buffer("vectors", torch.zeros(c.modalities, WIDTH))
        self.to(F64)

    def _encoder(self) -> nn.ModuleDict:
        c = self.choices
        inner = {"none": nn.Identity, "scale": Scale, "norm": lambda: nn.LayerNorm(WIDTH)}[c.inner]
        parts: dict[str, nn.Module] = {}
        for i in range(c.depth):
            linear = nn.Linear(INSIDE if i == 0 else WIDTH, WIDTH, bias=c.bias)
            parts[f"layer{i}"] = nn.Sequential(linear, inner(), nn.Tanh())
        if c.tied:
            parts[f"layer{c.depth - 1}"][0].weight = parts[f"layer{c.depth - 2}"][0].weight
        if c.adapter != "none":
            parts["adapter"] = nn.Linear(WIDTH, WIDTH)
        if c.send:
            parts["send"] = nn.Linear(WIDTH, WIDTH, bias=c.bias)
        if c.head == "inside":
            parts["head"] = nn.Linear(WIDTH, CLASSES)
        if c.unused:
            parts["unused"] = nn.Linear(2, 2)
        return nn.ModuleDict(parts)

    def _extras(self) -> nn.ParameterDict:
        shapes = {"gain": [()], "gate": [(WIDTH,)], "alias": [(WIDTH,)] * 2, "twin": [(BATCH, WIDTH)] * 2}
        shapes |= {"expanded": [(WIDTH,)], "kept": [(WIDTH,)]}
        wanted = [(f"{kind}{i}", s) for kind in sorted(self.choices.extras) for i, s in enumerate(shapes[kind])]
        return nn.ParameterDict({key: nn.Parameter(torch.zeros(shape)) for key, shape in wanted})

    def groups(self) -> dict[str, Any]:
        """The targets of each branch."""
        groups: dict[str, Any] = {name: [f"encoders.{name}"] for name in self.names}
        for name, extras in self.extras.items():
            by_one = [p if i % 2 else f"extras.{name}.{key}" for i, (key, p) in enumerate(extras.items())]
            groups[name] += by_one if self.choices.direct else [extras]
        return groups

    def forward(self, x: list[Tensor], y: Tensor) -> Forward:
        """Inputs "b i" of every modality, targets "b d"."""
        c, kept = self.choices, []
        h = x if self.trunk is None else [torch.tanh(self.trunk(each)) for each in x]
        for i in range(c.depth):
            h = checkpoint(self._layer, i, h, use_reentrant=False) if c.checkpoint and i == 1 else self._layer(i, h)
            if i == 0 and c.mix != "none":
                cut, answer = c.cut or (None, "")
                h = list(Mix.apply(0.4 * (c.mix == "mixed"), cut, answer, *h))
            if i == c.depth - 1 and c.compiled != "none":
                h[:2] = compiled_pair(h[0], h[1], 0.3 * (c.compiled == "mixed"))
        h = [self._top(m, each) for m, each in enumerate(h)]
        losses = {name: c.scales[m] * self._loss(m, h[m], y, kept) for m, name in enumerate(self.names)}
        joined = sum(h) if self.joint is None else self.joint(torch.cat(h, -1))
        total = F.mse_loss(joined, y[:, : joined.shape[-1]]) + sum(self._own(m, kept) for m in range(c.modalities))
        return Forward(total, losses, sum(each.square().mean() + each.sum() for each in h), kept)

    def _layer(self, i: int, h: list[Tensor]) -> list[Tensor]:
        """Layer i of every branch, then what they tell one another."""
        c = self.choices
        layers = [self.encoders[name][f"layer{i}"] for name in self.names]
        h = [layer(each) for layer, each in zip(layers, h, strict=True)]
        if c.reused and i == 1:
            h = [layer(each) for layer, each in zip(layers, h, strict=True)]
        if not {"none": False, "bottom": i == 0, "top": i == c.depth - 1}.get(c.exchange, True):
            return h
        told = [self.encoders[name]["send"](each) if c.send else each for name, each in zip(self.names, h, strict=True)]
        out = []
        for m, name in enumerate(self.names):
            met = [(m + 1) % c.modalities] if c.exchange == "ring" else [k for k in range(c.modalities) if k != m]
            if c.exchange == "apart":
                met = [] if m == 0 else [k for k in met if k != 0]
            heard = sum(told[k] for k in met)
            if met and c.adapter != "none":
                heard = self.encoders[name]["adapter"](heard)
            out.append(h[m] + 0.7 * torch.tanh(h[m] * heard) if met else h[m])
        return out

    def _next(self, m: int) -> str:
        return self.names[(m + 1) % len(self.names)] if self.choices.across else self.names[m]

    def _top(self, m: int, feature: Tensor) -> Tensor:
        c = self.choices
        own, following = (self.extras[name] if c.extras else {} for name in (self.names[m], self._next(m)))
        if "alias" in c.extras:
            feature = feature + (own["alias0"] + following["alias1"])
        if "twin" in c.extras:
            feature = feature + Twin.apply(own["twin0"], following["twin1"])
        if "gate" in c.extras:
            feature = feature * own["gate0"]
        return feature * own["gain0"] if "gain" in c.extras else feature

    def _loss(self, m: int, feature: Tensor, y: Tensor, kept: list[Kept]) -> Tensor:
        c, name = self.choices, self.names[m]
        heads = {"inside": self.encoders[name], "outside": {"head": self.heads[name] if self.heads else None}}
        head = heads.get(c.head, {"head": self.head})
        score = feature if c.head == "none" else head["head"](feature)
        loss = {
            "square": lambda: F.mse_loss(score, y[:, : score.shape[-1]]),
            "entropy": lambda: F.cross_entropy(score, y[:, : score.shape[-1]].argmax(-1)),
            "sum": lambda: torch.tanh(score).sum(),
        }[c.kinds[m]]()
        neighbours = {m, (m + 1) % c.modalities} if c.across else {m}
        return loss + sum((1 + m) * self._own(k, kept) for k in sorted(neighbours))

    def _own(self, m: int, kept: list[Kept]) -> Tensor | float:
        """Terms whose gradients are expanded, or kept by their node."""
        extras, out = self.choices.extras, 0.0
        if "expanded" in extras:
            out = out + 0.3 * self.extras[self.names[m]]["expanded0"].sum()
        if "kept" in extras:
            out = out + Keep.apply(kept, self.vectors[m], self.extras[self.names[m]]["kept0"])
        return out
