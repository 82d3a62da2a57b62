"""A user's program with every name of balancekit's top level, to be read by a type checker in strict mode, and run.

``python tests/typed/check.py`` has it read. An ``assert_type`` says what an editor shows where a type was inferred; an
annotated variable stands where torch's own ``nn.Module.__call__`` says nothing.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, assert_type

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import balancekit as bk
from balancekit import diagnostics, modulation, surgery
from balancekit.adapters import Trainable

NAMES: tuple[str, ...] = ("rgb", "depth")


class Sensors(nn.Module):
    """Two encoders, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.rgb = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3))
        self.depth = nn.Linear(4, 8)
        self.head = nn.Linear(16, 3)

    def forward(self, rgb: Tensor, depth: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.rgb(rgb), self.depth(depth)], 1))
        return logits


class Slowest:
    """A rule of one's own: each modality weighs as its loss, over the largest one."""

    uses_total = False

    def __call__(self, gram: Tensor, step: bk.Step) -> Tensor:
        largest = step.losses.amax()
        assert_type(step.present, Tensor)
        share = torch.where(largest > 0, step.losses / largest, 1) * step.present
        return torch.cat([torch.ones_like(share[:1]), share]).expand(len(gram), -1)


def batch() -> tuple[dict[str, Tensor], Tensor]:
    return {"rgb": torch.randn(12, 6), "depth": torch.randn(12, 4)}, torch.arange(12) % 3


def train() -> None:
    """Prototypes and every rule of surgery, watched."""
    model = Sensors()
    branches = bk.Branches(model, {"rgb": model.rgb, "depth": ["depth"]}, pool=None)
    assert_type(branches["rgb"], tuple[nn.Parameter, ...])
    rules: list[bk.Rule] = [bk.ReGrad(margin=0.1), bk.MMPareto(), bk.PCGrad(), bk.MinNorm(), bk.Sum(), Slowest()]
    rules.append(bk.from_torchjd(lambda gram: torch.ones_like(gram[0])))
    banks = {m: bk.PrototypeBank(3, 8, decay=0.9) for m in branches}
    optimizer = torch.optim.SGD(branches.param_groups(lr=0.1))
    for rule in rules:
        balancer = bk.Rebalancer(branches, rule, weight=0.3, per="branch")
        with bk.watch(balancer, optimizer=optimizer, every=1) as history:
            assert_type(history, diagnostics.Watched)
            handle = balancer.register_step_hook(look)
            inputs, labels = batch()
            with branches.capture() as features:
                logits = model(**inputs)
            assert_type(features, Mapping[str, Tensor])
            for m, f in features.items():
                banks[m].update(f.detach(), labels)
            losses = {m: weighed(f, labels, banks[m]) for m, f in features.items()}
            speed = dict.fromkeys(NAMES, 1.0)
            confidence = {m: bk.dropout_confidence(f, method="limit") for m, f in features.items()}
            loss = balancer(F.cross_entropy(logits, labels), losses, confidence=confidence, speed=speed)
            assert_type(loss, Tensor)
            descend(loss, optimizer)
            handle.remove()
        assert_type(history.last, dict[str, float])


def slow() -> None:
    """Modulation by a score, a ratio of one's own and a coefficient."""

    def over_mean(scores: Tensor, *, present: Tensor) -> Tensor:
        return torch.where(present, scores / scores.mean(), 1)

    model = Sensors()
    branches = bk.Branches(model, {"rgb": "rgb", "depth": "depth"})
    optimizer = torch.optim.Adam(branches.param_groups(lr=1e-3))
    steep = partial(modulation.ogm_coefficient, alpha=0.5)
    modulators = bk.OGM(alpha=0.8), modulation.Modulation(modulation.true_class_score, over_mean, steep)
    for modulator in modulators:
        inputs, labels = batch()
        with branches.capture() as features:
            loss = F.cross_entropy(model(**inputs), labels)
        logits = modulation.slice_logits(model.head, features)
        coefficients: dict[str, Tensor] = modulator(logits, labels)
        bk.modulate(features, coefficients, loss)
        modulation.scale_updates(optimizer, coefficients)
        descend(loss, optimizer)


def descend(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """A step, in three lines that torch leaves without types."""
    optimizer.zero_grad()
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    optimizer.step()  # pyright: ignore[reportUnknownMemberType]


def look(done: surgery.Surgery) -> None:
    assert_type(done.weights, Tensor)
    assert_type(done.step, bk.Step)


def weighed(features: Tensor, labels: Tensor, bank: bk.PrototypeBank) -> Tensor:
    """PMR's two terms of one branch."""
    assert_type(bank.prototypes, Tensor)
    scores = bk.prototype_logits(features, bank.prototypes, seen=bank.seen).softmax(-1)
    pce, per = bk.pmr_weights(scores.mean(0))
    first = bk.prototypical_cross_entropy(features, labels, bank.prototypes, seen=bank.seen)
    return (1 + pce[0]) * first - 0.01 * per[0] * bk.prototype_entropy(features, bank.prototypes, seen=bank.seen)


def domains() -> Tensor:
    """Features alike across three sites."""
    features, site = torch.randn(9, 8, requires_grad=True), torch.arange(9) % 3
    live = torch.arange(9) < 4
    strength = bk.reversal_strength(10, 100)
    assert_type(strength, float)
    discriminator = nn.Linear(8, 3)
    told: Tensor = discriminator(bk.reverse_gradient(features, strength))
    apart = bk.asymmetric_triplet_loss(features, bk.single_side_labels(live, site), margin=0.1)
    return bk.single_side_adversarial_loss(told, site, live) + apart


def doubt() -> None:
    """Uncertainty from samples and from distances."""
    model, (inputs, _) = Sensors(), batch()
    drawn = bk.MCDropout(model, samples=4, exclude=[nn.BatchNorm1d])
    ensemble = bk.DeepEnsemble.build(Sensors, 2, seed=0)
    assert_type(ensemble, bk.DeepEnsemble)
    measures: list[Callable[[Tensor], Tensor]] = [bk.predictive_entropy, bk.expected_entropy, bk.variation_ratio]
    for estimator in (drawn, ensemble):
        samples: Tensor = estimator(**inputs)
        doubts = [measure(samples.softmax(-1)) for measure in (*measures, bk.mutual_information)]
        assert_type(doubts, list[Tensor])
    density, residual = bk.FeatureDensity(6, covariance="full"), bk.CrossModalResidual({"rgb": 6, "depth": 4})
    density.accumulate(inputs["rgb"])
    residual.accumulate(inputs)
    density.commit()
    residual.commit()
    assert_type(residual.confidence(inputs), dict[str, Tensor])
    far: Tensor = density(inputs["rgb"])
    assert_type(bk.exponential_confidence(far, rate=2.0), Tensor)
    assert_type(bk.dropout_std(inputs["rgb"], samples=20), Tensor)
    assert_type(bk.linear_dropout_moments(inputs["rgb"], torch.ones(2, 6)), tuple[Tensor, Tensor])


def adapt() -> None:
    """Adapters in a block that somebody else wrote, and what trains then."""
    block = nn.ModuleDict({"attn": nn.Linear(16, 16), "mlp": nn.Linear(16, 16), "conv": nn.Identity()})
    block["conv"] = bk.CentralDifferenceConv2d(3, 3, theta=0.7)
    tap = bk.Tap(block["attn"], bk.dropout_confidence)
    edges = bk.hub("rgb", NAMES)
    assert_type(edges, tuple[tuple[str, str], ...])
    cross = bk.CrossModal(NAMES, edges, partial(bk.GatedCrossAttention, 16, gate="output"), confidence=tap)
    assert_type(cross.into("depth"), list[nn.Module])
    block["mlp"] = bk.Parallel(block["mlp"], cross)
    weigh = bk.AMA(NAMES, 16, grid=(2, 2), prefix=0)
    table = bk.train_only(nn.ModuleList([block, weigh]), cross, *weigh.parameters())
    assert_type(table, Trainable)
    tokens = torch.randn(2 * 5, 4, 16)  # "(m b) n d"
    with bk.missing(block, torch.ones(2, 5, dtype=torch.bool)):
        block["attn"](tokens)
        delta: Tensor = block["mlp"](tokens)
    assert delta.shape == tokens.shape
    assert_type(tap.value, Tensor)


def wrap() -> None:
    """Features beside the output, for a runtime that only sees what a forward returns."""
    inputs, _ = batch()
    wrapped = bk.MultiBranch(Sensors(), {"rgb": "rgb", "depth": "depth"}, pool={"rgb": first})
    output: tuple[Any, dict[str, Tensor]] = wrapped(**inputs)
    assert list(output[1]) == list(NAMES)


def first(output: Any) -> Tensor:
    return torch.as_tensor(output)


def main() -> None:
    """Run it all."""
    train()
    slow()
    domains()
    doubt()
    adapt()
    wrap()


if __name__ == "__main__":
    main()
