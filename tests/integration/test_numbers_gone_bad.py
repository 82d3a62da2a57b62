"""A number that has gone bad stays bad until a gradient scaler sees it, moves nothing that is kept, and is named.

Each row of a table is a part of the library and the place where the bad number enters; each test is a law for all rows.
"""

import copy
import warnings
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import (
    Branches,
    CrossModalResidual,
    DeepEnsemble,
    FeatureDensity,
    GatedCrossAttention,
    MinNorm,
    MMPareto,
    PCGrad,
    PrototypeBank,
    Rebalancer,
    ReGrad,
    Rule,
    Sum,
    domains,
    losses,
    modulation,
    prototypes,
)  # fmt: skip
from balancekit.adapters import gated_attention
from balancekit.diagnostics import watch
from balancekit.modulation import AGM, ARL, CGGM, MLB, MSLR, OGM, OPM, SMP, EpistemicModulation, modulate, scale_updates
from balancekit.surgery import from_torchjd

BAD = pytest.mark.parametrize("bad", [torch.nan, torch.inf])
NAMES = ("audio", "video")


class Net(nn.Module):
    """An encoder a modality, whose features also see the other one's, and a head on both."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.encoders = nn.ModuleDict({m: nn.Linear(3, 4) for m in NAMES})
            self.head = nn.Linear(8, 3)
        self.branches = Branches(self, {m: f"encoders.{m}" for m in NAMES})

    def features(self, x: Tensor) -> dict[str, Tensor]:
        z = {m: self.encoders[m](x[i]) for i, m in enumerate(NAMES)}
        return {"audio": z["audio"] + 0.5 * z["video"], "video": z["video"] - 0.25 * z["audio"]}

    def logits(self, z: dict[str, Tensor]) -> dict[str, Tensor]:
        return modulation.slice_logits(self.head, z)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 5, 3, generator=generator), torch.tensor([0, 1, 2, 0, 1])


def with_one(tensor: Tensor, value: float) -> Tensor:
    """The tensor with its first number multiplied by `value`."""
    factor = torch.ones_like(tensor)
    factor.view(-1)[0] = value
    return tensor * factor


# ------------------------------------------------------------------------------------------ what a step is made of

Case = Callable[[Net, float], Tensor]  # the loss of a step, in which one number is multiplied by a value


def surgery(rule: Rule, place: str, *, late: bool = False, **options: object) -> Case:
    def loss(net: Net, value: float) -> Tensor:
        x, y = batch()
        z = {m: net.encoders[m](x[i]) for i, m in enumerate(NAMES)} if late else net.features(x)
        proxy = {"proxy": Branches(net, {m: f"encoders.{m}.weight" for m in NAMES})} if "proxy" in options else {}
        alone = {m: z[m].square().mean() * (1 + i) for i, m in enumerate(NAMES)}
        total, facts = F.cross_entropy(net.head(torch.cat([*z.values()], 1)), y), {}
        if place == "total":
            total = total * value
        elif place in NAMES:
            alone[place] = alone[place] * value
        else:
            kind, name = place.split()
            facts[kind] = {m: (value if m == name else 1.0) * (0.5 + i / 4) for i, m in enumerate(NAMES)}
        return Rebalancer(net.branches, rule, **{**options, **proxy})(total, alone, **facts)

    return loss


def of_features(function: Callable[[Net, dict[str, Tensor], Tensor], Tensor]) -> Case:
    """One number of one sample's feature."""

    def loss(net: Net, value: float) -> Tensor:
        x, y = batch()
        z = net.features(x)
        return function(net, {**z, "video": with_one(z["video"], value)}, y)

    return loss


def with_modulation(net: Net, value: float, *, per_sample: bool) -> Tensor:
    x, y = batch()
    z = net.features(x)
    total = F.cross_entropy(net.head(torch.cat([*z.values()], 1)), y)
    modulate(z, {"video": with_one(torch.full((5,), 0.5), value) if per_sample else 0.5 * value}, total)
    return total


def with_drops(net: Net, value: float) -> Tensor:
    x, y = batch()
    z = modulation.drop_features(net.features(x), {"video": torch.tensor(0.5 * value)})
    return F.cross_entropy(net.head(torch.cat([*z.values()], 1)), y)


def with_reversal(net: Net, value: float) -> Tensor:
    x, y = batch()
    z = domains.reverse_gradient(torch.cat([*net.features(x).values()], 1), torch.tensor(value))
    return F.cross_entropy(net.head(z), y)


def with_prototypes(net: Net, value: float, *, loss: Callable[..., Tensor]) -> Tensor:
    x, y = batch()
    centres = with_one(torch.arange(1.0, 13).reshape(3, 4), value)
    return loss(net.features(x)["audio"], *([y] if loss is prototypes.prototypical_cross_entropy else []), centres)


def with_adapter(net: Net, value: float, *, gate: str, place: str) -> Tensor:
    x, _ = batch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        adapter = GatedCrossAttention(4, gate=gate, width=4, heads=2, dropout=0.0)
        nn.init.normal_(adapter.up.weight)
    own, other = (z[None] for z in net.features(x).values())
    side = adapter.confidence_of[0]
    confidence = torch.full((1, 5), 0.5)
    if place == "confidence":
        confidence = with_one(confidence, value)
    elif place == "key":
        with torch.no_grad():
            adapter.key.weight.mul_(value)
    else:
        other = with_one(other, value)
    return adapter(own, other, **{"confidence" if side == "other" else "own_confidence": confidence}).square().mean()


def with_ensemble(net: Net, value: float) -> Tensor:
    x, y = batch()
    experts = [copy.deepcopy(net.head) for _ in range(3)]
    with torch.no_grad():
        experts[1].bias.mul_(value)
    z = torch.cat([*net.features(x).values()], 1)
    return F.nll_loss(DeepEnsemble(experts)(z).softmax(-1).mean(0).log(), y)


def weighed(net: Net, value: float, *, weights: Callable[[Tensor], Tensor]) -> Tensor:
    """Losses times weights that come from one score a modality."""
    x, y = batch()
    alone = torch.stack([F.cross_entropy(o, y) for o in net.logits(net.features(x)).values()])
    return (alone * weights(with_one(torch.tensor([0.4, 0.5]), value))).sum()


def pmr(net: Net, z: dict[str, Tensor], y: Tensor) -> Tensor:
    banks = {m: PrototypeBank(3, 4, decay=0.5) for m in NAMES}
    for i, bank in enumerate(banks.values()):
        bank.update(torch.arange(20.0).reshape(5, 4) / (1 + i), y)
    return losses.pmr_loss(z, y, banks, mu=0.1)


def ranked(net: Net, value: float, *, at: object) -> Tensor:
    each = {m: o.square().sum(-1) for m, o in net.logits(net.features(batch()[0])).items()}
    each |= {NAMES: each["audio"] + 0.5 * each["video"]}
    return losses.confidence_ranking_loss({**each, at: with_one(each[at], value)})


HALF = torch.tensor([True, False, True, True, False])
DOMAIN = torch.tensor([0, 1, 1, 0, 2])
RULES = {
    "ReGrad": ReGrad(), "ReGrad, margin": ReGrad(margin=0.1), "MMPareto": MMPareto(), "PCGrad": PCGrad(),
    "MinNorm": MinNorm(), "Sum": Sum(), "TorchJD": from_torchjd(lambda gram: gram.new_ones(len(gram))),
}  # fmt: skip
WAYS = {
    "general": {}, "per branch": {"per": "branch"}, "per model": {"per": "model"}, "low memory": {"low_memory": True},
    "held": {"per": "branch", "every": 3}, "proxy": {"per": "branch", "proxy": None}, "late": {"late": True},
    "independent": {"late": True, "independent": True}, "rest total": {"rest": "total"},
}  # fmt: skip
CASES: dict[str, Case] = {
    **{f"{rule}: loss of {place}": surgery(RULES[rule], place) for rule in RULES for place in ("total", *NAMES)},
    **{f"Rebalancer, {way}: loss of {m}": surgery(ReGrad(), m, **WAYS[way]) for way in WAYS for m in NAMES},
    **{f"Rebalancer, {way}: confidence of {m}": surgery(ReGrad(), f"confidence {m}", **WAYS[way])
       for way in WAYS for m in NAMES},
    "modulate: coefficient": partial(with_modulation, per_sample=False),
    "modulate: coefficient of a sample": partial(with_modulation, per_sample=True),
    "reverse_gradient: strength": with_reversal,
    "prototypical_cross_entropy: prototype": partial(with_prototypes, loss=prototypes.prototypical_cross_entropy),
    "GatedCrossAttention, query: confidence": partial(with_adapter, gate="query", place="confidence"),
    "GatedCrossAttention, key: confidence": partial(with_adapter, gate="key", place="confidence"),
    "GatedCrossAttention, output: confidence": partial(with_adapter, gate="output", place="confidence"),
    "GatedCrossAttention: token": partial(with_adapter, gate="output", place="token"),
    "GatedCrossAttention: weight of the keys": partial(with_adapter, gate="output", place="key"),
    "DeepEnsemble: an expert": with_ensemble,
    "cross-entropy: feature": of_features(lambda net, z, y: F.cross_entropy(sum(net.logits(z).values()), y)),
    "unimodal_loss: feature": of_features(lambda net, z, y: losses.unimodal_loss(net.logits(z), y)),
    "tcmax_loss: feature": of_features(lambda net, z, y: losses.tcmax_loss(net.logits(z), y)),
    "lfm_loss: feature": of_features(lambda net, z, y: losses.lfm_loss(net.logits(z), y, 0.5)),
    "cosine_logits: feature": of_features(lambda net, z, y: F.cross_entropy(
        sum(losses.cosine_logits(z, dict.fromkeys(NAMES, net.head.weight[:, :4])).values()), y)),
    "pmr_loss: feature": of_features(pmr),
    "confidence_ranking_loss: confidence of one": partial(ranked, at="audio"),
    "confidence_ranking_loss: confidence of both": partial(ranked, at=NAMES),
    "feature_distillation: feature": of_features(lambda net, z, y: losses.feature_distillation(
        z, {m: torch.ones(5, 4) for m in NAMES})),
    "unimodal_distillation: feature": of_features(lambda net, z, y: losses.unimodal_distillation(
        net.logits(z), {m: torch.ones(5, 3) for m in NAMES}, z, {m: torch.ones(5, 4) for m in NAMES})),
    "prototype_entropy: feature": of_features(lambda net, z, y: prototypes.prototype_entropy(
        z["video"], torch.arange(12.0).reshape(3, 4))),
    "asymmetric_triplet_loss: feature": of_features(lambda net, z, y: domains.asymmetric_triplet_loss(z["video"], y)),
    "single_side_adversarial_loss: feature": of_features(lambda net, z, y: domains.single_side_adversarial_loss(
        net.logits(z)["video"], DOMAIN, HALF)),
}  # fmt: skip
NOT_A_NUMBER: dict[str, Case] = {  # an infinity in these places has a meaning: the slowest, the limit of a ratio
    **{f"Rebalancer, {way}: speed of {m}": surgery(ReGrad(), f"speed {m}", **WAYS[way]) for way in WAYS for m in NAMES},
    "drop_features: probability": with_drops,
    "prototype_entropy: prototype": partial(with_prototypes, loss=prototypes.prototype_entropy),
    "pmr_weights: score": partial(weighed, weights=lambda s: modulation.pmr_weights(s)[0]),
    "pmr_weights, released: score": partial(weighed, weights=lambda s: modulation.pmr_weights(s, released=True)[0][1:]),
    "gblend_weights: a loss": partial(weighed, weights=lambda s: losses.gblend_weights(s, s / 2, s * 2, s)),
}


class Training:
    """A net, Adam with a past, and a gradient scaler."""

    def __init__(self) -> None:
        self.net = Net()
        self.optimizer = torch.optim.Adam(self.net.branches.param_groups(), lr=0.1)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)

    def step(self, loss: Tensor, before_step: Callable[[], object] = lambda: None) -> None:
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        before_step()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def state(self) -> list[Tensor]:
        moments = [x for state in self.optimizer.state_dict()["state"].values() for x in state.values()]
        return [x.detach().clone() for x in (*self.net.parameters(), *moments)]


def skips(case: Case, value: float, before_step: Callable[[Net], object] = lambda net: None) -> bool:
    """Whether the scaler leaves out the step, and changes nothing but its scale."""
    training = Training()
    training.step(surgery(Sum(), "total")(training.net, 1.0))
    before = training.state()
    training.step(case(training.net, value), lambda: before_step(training.net))
    still = all(map(torch.equal, before, training.state()))
    assert training.scaler.get_scale() == 2.0 ** (9 if still else 10)
    return still


@BAD
@pytest.mark.parametrize("name", CASES)
def test_the_scaler_skips_the_step(name: str, bad: float) -> None:
    assert skips(CASES[name], bad)
    assert not skips(CASES[name], 0.75)


@pytest.mark.parametrize("name", NOT_A_NUMBER)
def test_the_scaler_skips_the_step_where_there_is_no_number(name: str) -> None:
    assert skips(NOT_A_NUMBER[name], torch.nan)
    assert not skips(NOT_A_NUMBER[name], 0.75)


@BAD
@pytest.mark.parametrize("noise", [False, True])
def test_a_bad_coefficient_on_gradients_is_seen_before_unscaling(bad: float, noise: bool) -> None:
    def scale(k: float) -> Callable[[Net], None]:
        return lambda net: modulation.scale_gradients(net.branches, {"audio": k}, noise=noise)

    assert skips(surgery(Sum(), "total"), 1.0, scale(bad))
    assert not skips(surgery(Sum(), "total"), 1.0, scale(0.75))


@pytest.mark.parametrize("gate", [None, "query", "key"])
@pytest.mark.parametrize("what", ["q", "k", "v"])
@BAD
def test_attention_hides_no_bad_tokens(what: str, gate: str | None, bad: float) -> None:
    """A kernel of torch returns zeros for a row of scores that are all NaN."""
    tokens = {name: torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(i)) for i, name in enumerate("qkv")}
    tokens[what] = torch.full_like(tokens[what], bad)
    confidence = None if gate is None else torch.full((1, 4), 0.5)
    out = gated_attention(**tokens, confidence=confidence, gate=gate or "query")
    assert not out.isfinite().any()


# ------------------------------------------------------------------------------------------ coefficients


def of_logits(preset: modulation.Modulator, bad: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = {m: torch.randn(5, 3, generator=generator) for m in NAMES}
    return preset({**logits, "video": with_one(logits["video"], bad)}, batch()[1])


def with_past(preset: CGGM | MSLR) -> CGGM | MSLR:
    preset({"audio": 0.2, "video": 0.3})
    return preset


COEFFICIENTS: dict[str, Callable[[float], dict[str, Tensor]]] = {
    "OGM": lambda bad: of_logits(OGM(0.8), bad),
    "OGM, continuous": lambda bad: of_logits(OGM(0.8, continuous=True, reference="others"), bad),
    "OPM": lambda bad: of_logits(OPM(), bad),
    "AGM": lambda bad: of_logits(AGM(2), bad),
    "MLB": lambda bad: of_logits(MLB(), bad),
    "ARL": lambda bad: of_logits(ARL(), bad),
    "SMP": lambda bad: of_logits(SMP(), bad),
    "epistemic": lambda bad: EpistemicModulation()({m: torch.tensor([0.1 * bad]) for m in NAMES}),
    "CGGM": lambda bad: with_past(CGGM(NAMES))({"audio": 0.3, "video": 0.4 * bad}),
    "MSLR": lambda bad: with_past(MSLR(dict.fromkeys(NAMES, 1.0)))({"audio": 0.3, "video": 0.4 * bad}),
    "MILES": lambda bad: modulation.miles_coefficient(modulation.utilisation(0.8, {"audio": 0.3, "video": 0.4 * bad})),
    "PDMP": lambda bad: modulation.pdmp_coefficient({"audio": 0.3, "video": 0.4 * bad}, dominant=2.0, rest=0.5),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_no_preset_makes_a_plain_coefficient_of_what_is_no_number(name: str) -> None:
    """1, "nothing to be done", would be one as well."""
    assert not all(k.isfinite().all() for k in COEFFICIENTS[name](torch.nan).values())
    assert all(k.isfinite().all() for k in COEFFICIENTS[name](1.0).values())


# ------------------------------------------------------------------------------------------ what is kept


def bank(value: float, seed: int, part: PrototypeBank) -> None:
    part.update(with_one(batch(seed)[0][0], value), batch()[1])


def density(value: float, seed: int, part: FeatureDensity) -> None:
    part.accumulate(with_one(batch(seed)[0][0], value))
    part.commit()


def calibration(value: float, seed: int, part: FeatureDensity) -> None:
    if not part.moments.weight.any():
        density(1.0, 9, part)
    part.calibrate(with_one(batch(seed)[0][0], value))
    part.commit()


def residual(value: float, seed: int, part: CrossModalResidual) -> None:
    x = batch(seed)[0]
    part.accumulate({"audio": x[0], "video": with_one(x[1], value)})
    part.commit()


def agm(value: float, seed: int, part: AGM) -> None:
    x = batch(seed)[0]
    part({"audio": x[0], "video": with_one(x[1], value)}, batch()[1])


def accuracies(value: float, seed: int, part: CGGM | MSLR) -> None:
    part({"audio": 0.1 + 0.1 * seed, "video": (0.2 + 0.05 * seed) * value})


KEPT: dict[str, tuple[Callable[[], nn.Module], Callable[..., None]]] = {
    "PrototypeBank": (lambda: PrototypeBank(3, 3, decay=0.5), bank),
    "FeatureDensity": (lambda: FeatureDensity(3, decay=0.5), density),
    "FeatureDensity, full": (lambda: FeatureDensity(3, covariance="full"), density),
    "FeatureDensity, calibration": (lambda: FeatureDensity(3), calibration),
    "CrossModalResidual": (lambda: CrossModalResidual({"audio": 3, "video": 3}, decay=0.5), residual),
    "AGM": (lambda: AGM(2), agm),
    "CGGM": (lambda: CGGM(NAMES), accuracies),
    "MSLR": (lambda: MSLR(dict.fromkeys(NAMES, 1.0)), accuracies),
}


@BAD
@pytest.mark.parametrize("name", KEPT)
def test_a_bad_batch_moves_nothing_that_is_kept(name: str, bad: float) -> None:
    """Not then, and not in what comes after it: as if it had not been."""
    make, add = KEPT[name]
    part, twin = make(), make()
    for seed in (1, 2):
        add(1.0, seed, part)
        add(1.0, seed, twin)
    before = copy.deepcopy(twin.state_dict())
    add(bad, 3, part)
    assert all(torch.equal(x, before[key]) for key, x in part.state_dict().items())
    for each in (part, twin):
        add(1.0, 4, each)
    assert all(torch.equal(x, twin.state_dict()[key]) for key, x in part.state_dict().items())
    assert any(not torch.equal(x, before[key]) for key, x in part.state_dict().items())


# ------------------------------------------------------------------------------------------ whole trainings


def with_banks(training: Training) -> Callable[[Tensor, Tensor], None]:
    balancer = Rebalancer(training.net.branches, ReGrad(), weight=0.5)
    banks = {m: PrototypeBank(3, 4, decay=0.5) for m in NAMES}

    def step(x: Tensor, y: Tensor) -> None:
        z = training.net.features(x)
        for m in NAMES:
            banks[m].update(z[m].detach(), y)
        alone = {
            m: prototypes.prototypical_cross_entropy(z[m], y, banks[m].prototypes, seen=banks[m].seen) for m in NAMES
        }
        training.step(balancer(F.cross_entropy(sum(training.net.logits(z).values()), y), alone))

    return step


def with_coefficients(preset: modulation.Modulator, act: str, training: Training) -> Callable[[Tensor, Tensor], None]:
    def step(x: Tensor, y: Tensor) -> None:
        z = training.net.features(x)
        logits = training.net.logits(z)
        k = preset(logits, y)
        loss = F.cross_entropy(sum(logits.values()), y)
        actions = {
            "features": lambda: modulate(z, k, loss),
            "gradients": lambda: modulation.scale_gradients(training.net.branches, k),
            "updates": lambda: scale_updates(training.optimizer, k),
        }
        if act == "features":
            actions[act]()
        training.step(loss, actions[act] if act != "features" else lambda: None)

    return step


LOOPS: dict[str, Callable[[Training], Callable[[Tensor, Tensor], None]]] = {
    "Rebalancer, banks": with_banks,
    "OGM, modulate": lambda training: with_coefficients(OGM(0.8), "features", training),
    "AGM, modulate": lambda training: with_coefficients(AGM(2), "features", training),
    "MLB, scale_gradients": lambda training: with_coefficients(MLB(), "gradients", training),
    "MLB, scale_updates": lambda training: with_coefficients(MLB(), "updates", training),
}


@BAD
@pytest.mark.parametrize("at", [0, 2])
@pytest.mark.parametrize("name", LOOPS)
def test_a_training_goes_on_as_if_the_bad_batch_had_not_been(name: str, at: int, bad: float) -> None:
    """Bit for bit: the scale is a power of two."""
    spoiled, clean = Training(), Training()
    one, other = (LOOPS[name](training) for training in (spoiled, clean))
    for seed in range(4):
        x, y = batch(seed)
        if seed == at:
            one(with_one(x, bad), y)
        one(x, y)
        other(x, y)
    assert spoiled.scaler.get_scale() == 2.0**9
    assert all(map(torch.equal, spoiled.state(), clean.state()))


# ------------------------------------------------------------------------------------------ updates


def test_coefficients_wait_for_a_real_step_and_the_next_call_replaces_them() -> None:
    training = Training()
    start = training.net.encoders["audio"].weight.detach().clone()
    case = surgery(Sum(), "total")
    training.step(case(training.net, torch.inf), lambda: scale_updates(training.optimizer, {"audio": 0.0}))
    training.step(case(training.net, 1.0), lambda: scale_updates(training.optimizer, {"audio": 0.5}))
    moved = training.net.encoders["audio"].weight.detach() - start
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.05), rtol=1e-3, atol=0)


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_skipped_step_leaves_the_learning_rate_to_its_schedule(earlier: int) -> None:
    """What waits is in no learning rate: not in what a schedule multiplies, nor in what a checkpoint holds."""
    training = Training()
    schedule = torch.optim.lr_scheduler.ExponentialLR(training.optimizer, 0.5)
    case = surgery(Sum(), "total")
    for value in [1.0] * earlier + [torch.inf]:
        training.step(case(training.net, value), lambda: scale_updates(training.optimizer, {"audio": 0.25}))
    assert [group["lr"] for group in training.optimizer.state_dict()["param_groups"]] == [0.1] * 3
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")  # as of any skipped first step
        schedule.step()
    training.step(case(training.net, 1.0), lambda: scale_updates(training.optimizer, {"audio": 1.0}))
    assert [group["lr"] for group in training.optimizer.param_groups] == [0.05] * 3


@BAD
def test_no_step_is_made_with_a_bad_coefficient(bad: float) -> None:
    """The scaler does not see it: it is no gradient."""
    training = Training()
    before = training.state()
    case = surgery(Sum(), "total")
    with pytest.raises(RuntimeError, match=r"coefficients\['audio'\]: expected a finite number, found"):
        training.step(case(training.net, 1.0), lambda: scale_updates(training.optimizer, {"audio": bad}))
    assert all(map(torch.equal, before, training.state()))


# ------------------------------------------------------------------------------------------ what is seen


def test_a_skipped_step_does_not_end_the_watch() -> None:
    """The optimizer cancels a constant factor, and the alarm says so, whether or not a step was left out before."""
    causes = []
    for values in ([1.0] * 12, [torch.inf] + [1.0] * 12):
        training = Training()
        with (
            warnings.catch_warnings(),
            watch(optimizer=training.optimizer, branches=training.net.branches, every=1) as h,
        ):
            warnings.simplefilter("ignore")
            for value in values:
                x, y = batch()
                z = training.net.features(x)
                loss = F.cross_entropy(sum(training.net.logits(z).values()), y) * value
                modulate(z, {"audio": 0.2}, loss)
                training.step(loss)
        causes.append([(alarm.cause, alarm.where) for alarm in h.alarms])
    assert causes[0] == causes[1] == [("cancelled", "audio")]


def test_a_bad_step_is_in_the_history_as_it_was() -> None:
    training = Training()
    balancer = Rebalancer(training.net.branches, ReGrad())
    with watch(balancer, every=1) as history:
        for value in (1.0, torch.nan):
            x, y = batch()
            z = training.net.features(x)
            alone = {m: z[m].square().mean() for m in NAMES}
            alone["video"] = alone["video"] * value
            training.step(balancer(F.cross_entropy(sum(training.net.logits(z).values()), y), alone))
    for name in ("loss/video", "cosine/audio-video"):
        _, values = history[name]
        assert [bool(x == x) for x in values] == [True, False]


# ------------------------------------------------------------------------------------------ who is named

NAMED = {
    "Rebalancer": ("Function 'RebalanceBackward' returned nan values", surgery(ReGrad(), "confidence video")),
    "Rebalancer, late": (
        "Function 'RebalanceBackward' returned nan values", surgery(ReGrad(), "confidence video", late=True)),
    "reverse_gradient": ("Function 'ReverseGradientBackward' returned nan values", with_reversal),
    "modulate": ("modulate: coefficients.'video'.: ", partial(with_modulation, per_sample=False)),
    "modulate, a sample": ("modulate: coefficients.'video'.: ", partial(with_modulation, per_sample=True)),
    "a loss of the user's": ("Function 'MulBackward0' returned nan values", surgery(ReGrad(), "video")),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_anomaly_mode_names_who_made_the_nan(name: str) -> None:
    text, case = NAMED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the traceback of the forward
        with torch.autograd.detect_anomaly():
            loss = case(Net(), torch.nan)
            with pytest.raises(RuntimeError, match=text):
                loss.backward()
            case(Net(), 0.75).backward()
