"""Cases of gradient surgery, drawn from a seed: a model, what the Rebalancer is called with."""

import random
from typing import Any, NamedTuple

import torch
from torch import Tensor

from balancekit import Branches
from tests.graphs import BATCH, F64, INSIDE, WIDTH, Choices, Model

EXTRAS = ("gain", "gate", "alias", "twin", "expanded", "kept")
ACROSS = {"alias", "twin", "expanded", "kept"}


class Drawn(NamedTuple):
    """One case: a model, what the Rebalancer is called with, and how its result is used."""

    seed: int
    choices: Choices
    model: Model
    branches: Branches
    batches: list[tuple[list[Tensor], Tensor]]  # two: gradients accumulate
    present: list[str]  # names of the losses, in the order of the call
    uses_total: bool
    with_total: bool
    weight: float
    per: str
    rest: str
    confidence: dict[str, Tensor | float] | None
    speed: dict[str, Tensor | float] | None
    factor: float | None  # backward of factor · loss + other; of the loss itself if None

    def others(self) -> list[Tensor]:
        """Trained tensors of no branch."""
        owned = self.branches.owners()
        leaves = [*self.model.parameters(), *(each for x, _ in self.batches for each in x)]
        return [leaf for leaf in leaves if leaf.requires_grad and leaf not in owned]

    def features(self) -> set[str]:
        """What this case has, by name."""
        c = self.choices
        found = {f"M={c.modalities}", f"exchange={c.exchange}", f"trunk={c.trunk}", f"head={c.head}", f"mix={c.mix}"}
        found |= {f"adapter={c.adapter}", f"inner={c.inner}", f"compiled={c.compiled}", f"per={self.per}"}
        found |= {f"rest={self.rest}", f"batches={len(self.batches)}", *c.extras, *(f"loss={kind}" for kind in c.kinds)}
        found |= {f"loss scale={scale}" for scale in c.scales}
        found |= {f for f in ("joint", "send", "tied", "reused", "frozen", "unused", "checkpoint") if getattr(c, f)}
        found |= {f"cut={c.cut[1]}"} if c.cut else set()
        speeds = (
            [] if self.speed is None else [float(torch.as_tensor(self.speed[name]).mean()) for name in self.present]
        )
        more = {
            "late": self.is_late,
            "one loss reaches a tensor that its own does not": self.has_foreign,
            "across": c.across and bool(c.extras & ACROSS),
            "direct": c.direct and bool(c.extras),
            "bias-free": not c.bias,
            "input grad": c.input_grad,
            "absent": len(self.present) < c.modalities,
            "frozen branch": any(not any(p.requires_grad for p in ps) for ps in self.branches.values()),
            "no total": not self.with_total,
            "uses total": self.uses_total,
            "confidence": self.confidence is not None,
            "speed": self.speed is not None,
            "ties": speeds.count(max(speeds, default=0.0)) > 1,
            "factor": self.factor is not None,
        }
        return found | {name for name, has in more.items() if has}

    @property
    def is_late(self) -> bool:
        """Whether no loss has a gradient on another branch (a graph may claim that it has: mix, compiled)."""
        c = self.choices
        across = c.across and bool(c.extras & ACROSS)
        return c.exchange == "none" and "mixed" not in (c.mix, c.compiled) and not across

    @property
    def has_foreign(self) -> bool:
        """Whether a branch has a trained tensor that only losses of other modalities reach."""
        c = self.choices
        sends = c.send and c.exchange in ("bottom", "top") and c.compiled != "mixed"
        return (sends and (c.exchange == "top" or c.mix != "mixed")) or (
            c.across and bool(c.extras & {"alias", "twin"})
        )

    def __repr__(self) -> str:
        ours = (f"{f}={getattr(self, f)}" for f in self._fields if f not in ("choices", "model", "branches", "batches"))
        return f"Drawn({', '.join(ours)}, {len(self.batches)} batches, {self.choices})"


def draw(seed: int) -> Drawn:
    """The case of a seed."""
    r = random.Random(seed)

    def chance(p: float) -> bool:
        return r.random() < p

    def some(options: str, weights: tuple[int, ...] | None = None) -> str:
        return r.choices(options.split(), weights)[0]

    m = int(some("2 3 4 5 6", (4, 4, 3, 2, 2)))
    tied = chance(0.2)
    late = chance(0.35)  # for sure; by chance other models are as well
    exchange = some("none all bottom top apart ring", (6, 3, 3, 3, 4, 3)) if not late else "none"
    mix = some("none apart mixed", (7, 2, 2)) if not late else "none"
    special = chance(0.3)
    scales = tuple(float(some("1 1e-6 1e6 0", (5, 2, 2, 1))) if special else 1.0 for _ in range(m))
    choices = Choices(
        modalities=m,
        depth=3 if tied else r.choice((2, 3)),
        exchange="all" if exchange == "apart" and m == 2 else exchange,
        trunk=some("none shared frozen", (6, 3, 1) if not late else (8, 1, 1)),
        head=some("none inside outside shared", (1, 1, 1, 1) if not late else (3, 3, 1, 1)),
        joint=chance(0.6),
        adapter=some("none trained frozen", (4, 3, 3)) if exchange != "none" else "none",
        send=chance(0.5) and exchange != "none",
        tied=tied,
        reused=chance(0.2),
        frozen=chance(0.2),
        unused=chance(0.2),
        bias=chance(0.7),
        inner=some("none scale norm"),
        extras=frozenset(e for e in EXTRAS if chance(0.2)),
        across=chance(0.4) and not late,
        direct=chance(0.5),
        checkpoint=chance(0.2),
        mix=mix,
        cut=(r.randrange(m), some("none zero")) if mix != "none" and chance(0.6) else None,
        compiled=some("none apart mixed", (7, 2, 2)) if not late else "none",
        kinds=tuple(some("square entropy sum", (3, 2, 1)) for _ in range(m)),
        scales=scales,
        input_grad=chance(0.1),
    )
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=F64)

    with torch.random.fork_rng(devices=[]):
        model = Model(choices)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * normal(*parameter.shape))
        model.vectors.copy_(normal(m, WIDTH))
    for name, parameter in model.named_parameters():
        whole = (choices.trunk == "frozen" and "trunk" in name) or (choices.adapter == "frozen" and "adapter" in name)
        parameter.requires_grad_(not whole and not (choices.frozen and "layer0" in name and chance(0.4)))
    groups = model.groups()
    branches = Branches(model, {name: groups[name] for name in r.sample(model.names, m)})
    absent = set(r.sample(model.names, r.randrange(1, m))) if chance(0.2) else set()
    if absent and chance(0.5):
        for parameter in branches[min(absent)]:
            parameter.requires_grad_(False)
    present = [name for name in r.sample(model.names, m) if name not in absent]
    with_total = chance(0.85)

    def fact(values: str) -> dict[str, Tensor | float]:
        numbers: dict[str, Any] = {"unit": lambda: r.uniform(0.05, 1.0), "tie": lambda: float(r.randint(0, 1))}
        drawn = {name: numbers[values]() for name in model.names if name in present or chance(0.5)}
        if chance(0.3):  # a value per sample
            return {name: torch.full((BATCH,), value, dtype=F64) for name, value in drawn.items()}
        return drawn

    return Drawn(
        seed=seed,
        choices=choices,
        model=model,
        branches=branches,
        batches=[
            ([normal(BATCH, INSIDE).requires_grad_(choices.input_grad) for _ in range(m)], normal(BATCH, WIDTH))
            for _ in range(1 + chance(0.25))
        ],
        present=present,
        uses_total=seed % 3 == 0,
        with_total=with_total,
        weight=r.choice((1.0, r.uniform(0.1, 3.0))),
        per=some("tensor branch model", (4, 3, 2)),
        rest=some("sum total") if with_total else "sum",
        confidence=fact("unit") if chance(0.6) else None,
        speed=fact(some("unit tie")) if chance(0.5) else None,
        factor=r.uniform(0.2, 2.0) if chance(0.3) else None,
    )
