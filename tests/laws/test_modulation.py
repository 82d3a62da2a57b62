"""Law 7: coefficient 1 changes nothing; the boundary is as good as the parameters; names, scales and absence behave."""

import copy

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from balancekit.branches import Branches
from balancekit.modulation import (
    AGM,
    ARL,
    MLB,
    OGM,
    OPM,
    SMP,
    EpistemicModulation,
    base_rates,
    discrepancy_ratio,
    drop_features,
    drop_features_released,
    freeze,
    modulate,
    scale_gradients,
    scale_updates,
    slice_logits,
    true_class_score,
)

some = settings(max_examples=25, deadline=None)
NAMES = ("audio", "video", "text")
PRESETS = [OGM(0.8), OGM(0.8, continuous=True), MLB(), SMP(), OPM(), ARL()]
ids = [type(p).__name__ for p in PRESETS]


class Late(nn.Module):
    """Late fusion of two branches by a linear head."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.audio = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4))
        self.video = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, audio, video):
        return self.head(torch.cat([self.audio(audio), self.video(video)], 1))


def batch(seed: int = 1, size: int = 6):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 3, generator=g), torch.randn(size, 5, generator=g)
    return x, torch.randint(3, (size,), generator=g)


def gradients(model: nn.Module, coefficients, *, at_features: bool, reduction: str = "mean"):
    branches = Branches(model, {"audio": "audio", "video": "video"})
    x, y = batch()
    with branches.capture() as features:
        logits = model(*x)
    loss = nn.functional.cross_entropy(logits, y, reduction=reduction)
    if at_features and coefficients is not None:
        modulate(features, coefficients, loss)
    loss.backward()
    if not at_features:
        scale_gradients(branches, coefficients)
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_a_coefficient_of_one_changes_nothing_bit_for_bit() -> None:
    plain = gradients(Late(), None, at_features=True)
    for one in (1.0, torch.tensor(1.0), torch.ones(6)):
        scaled = gradients(Late(), {"audio": one, "video": one}, at_features=True)
        assert all(torch.equal(plain[name], scaled[name]) for name in plain)


@some
@given(st.floats(0, 3), st.floats(0, 3))
def test_the_boundary_scales_as_the_parameters_do(a: float, v: float) -> None:
    k = {"audio": torch.tensor(a), "video": torch.tensor(v)}
    here, there = gradients(Late(), k, at_features=True), gradients(Late(), k, at_features=False)
    for name in here:
        torch.testing.assert_close(here[name], there[name], rtol=1e-5, atol=1e-7)
    plain = gradients(Late(), None, at_features=True)
    assert torch.equal(here["head.weight"], plain["head.weight"])


def test_a_coefficient_a_sample_weighs_the_samples() -> None:
    weights = torch.tensor([0.0, 1.0, 0.5, 2.0, 0.0, 1.0])
    scaled = gradients(Late(), {"audio": weights}, at_features=True, reduction="sum")
    model = Late()
    x, y = batch()
    losses = nn.functional.cross_entropy(model(*x), y, reduction="none")
    expected = [torch.autograd.grad(each, list(model.audio.parameters()), retain_graph=True) for each in losses]
    for k, (name, _) in enumerate(model.audio.named_parameters()):
        total = sum(w * g[k] for w, g in zip(weights, expected, strict=True))
        torch.testing.assert_close(scaled[f"audio.{name}"], total, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", ["other pass", "pooled", "detached", "frozen"])
def test_a_feature_that_the_loss_does_not_pass_through_is_an_error(case: str) -> None:
    model = Late()
    if case == "frozen":
        model.video.requires_grad_(False)
    x, y = batch()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    with branches.capture() as features:
        logits = model(*x)
    features = dict(features)
    if case == "other pass":
        with branches.capture() as again:
            model(*x)
        features["video"] = again["video"]
    elif case == "pooled":
        features["video"] = features["video"] * 1
    elif case == "detached":
        features["video"] = features["video"].detach()
    loss = nn.functional.cross_entropy(logits, y)
    with pytest.raises(ValueError, match=r"features: expected .* found \['video'\]"):
        modulate(features, {"audio": 0.5, "video": 0.5}, loss)
    loss.backward()
    plain = gradients(Late(), None, at_features=True)
    assert torch.equal(model.audio[0].weight.grad, plain["audio.0.weight"])  # no half-done scaling


def test_leaves_and_views_are_boundaries_too() -> None:
    leaf = torch.ones(2, 3, requires_grad=True)
    loss = (leaf * 2).sum()
    modulate({"a": leaf}, {"a": 0.5}, loss)
    loss.backward()
    assert torch.equal(leaf.grad, torch.ones(2, 3))
    parts = (torch.ones(2, 4, requires_grad=True) * 1).split(2, dim=1)  # two outputs of one node
    loss = (parts[1] * 3).sum()
    with pytest.raises(ValueError, match="features"):
        modulate({"a": parts[0]}, {"a": 0.5}, loss)


def test_without_a_gradient_nothing_is_done() -> None:
    model = Late()
    x, y = batch()
    with torch.no_grad():
        modulate({"audio": model.audio(x[0])}, {"audio": 0.0}, nn.functional.cross_entropy(model(*x), y))


# --- the optimizer ---


def steps(optimizer_class, coefficient: float, actuator: str, **options):
    """The change of each branch after five steps."""
    model = Late().double()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    optimizer = optimizer_class(branches.param_groups(lr=1e-3, **options))
    before, after = copy.deepcopy(model.state_dict()), None
    x, y = batch()
    x = tuple(each.double() for each in x)
    for step in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(*x), y).backward()
        if actuator == "gradient":
            scale_gradients(branches, {"audio": coefficient})
        elif actuator == "update":
            scale_updates(optimizer, {"audio": torch.tensor(coefficient, dtype=torch.float64)})
        optimizer.step()
        if step == 0:
            after = copy.deepcopy(model.state_dict())
    assert all(group["lr"] == 1e-3 for group in optimizer.param_groups)
    return {name: after[name] - before[name] for name in before}


OPTIMIZERS = [
    (torch.optim.SGD, {}),
    (torch.optim.SGD, {"momentum": 0.9}),
    (torch.optim.Adam, {}),
    (torch.optim.AdamW, {"weight_decay": 0.1}),
    (torch.optim.RMSprop, {}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIMIZERS)
@pytest.mark.parametrize("k", [0.0, 0.2, 1.0, 2.0])
def test_an_update_is_scaled_by_exactly_the_coefficient(kind, options, k: float) -> None:
    plain, scaled = (steps(kind, c, "update", **options) for c in (1.0, k))
    for name in plain:
        factor = k if name.startswith("audio") else 1.0
        torch.testing.assert_close(scaled[name], factor * plain[name], rtol=1e-9, atol=1e-15)


def test_adam_cancels_a_scaled_gradient_and_not_a_scaled_update() -> None:
    plain, gradient, update = (
        steps(torch.optim.Adam, k, actuator)["audio.0.weight"].norm()
        for k, actuator in ((1.0, "update"), (0.2, "gradient"), (0.2, "update"))
    )
    assert gradient / plain == pytest.approx(1.00, abs=0.005)
    assert update / plain == pytest.approx(0.2, rel=0.01)
    plain, gradient = (steps(torch.optim.SGD, k, "gradient")["audio.0.weight"].norm() for k in (1.0, 0.2))
    assert gradient / plain == pytest.approx(0.2, rel=0.01)


def test_coefficients_wait_for_the_step_and_the_next_call_replaces_them() -> None:
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"name": "audio", "params": [w]}], lr=1.0)
    scale_updates(optimizer, {"audio": 0.0})
    scale_updates(optimizer, {"audio": 0.5})  # as after a step that a gradient scaler skipped
    w.grad = torch.ones(1)
    optimizer.step()
    assert w.item() == -0.5
    optimizer.step()
    assert w.item() == -1.5


def test_a_step_that_fails_leaves_no_scaled_rate() -> None:
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"name": "audio", "params": [w]}], lr=1.0)
    w.grad = torch.ones(1)
    seen = []

    def fail(*_) -> None:
        seen.append(optimizer.param_groups[0]["lr"])
        raise MemoryError

    scale_updates(optimizer, {"audio": 0.5})
    handle = optimizer.register_step_pre_hook(fail)  # after ours
    with pytest.raises(MemoryError):
        optimizer.step()
    handle.remove()
    assert seen == [0.5]
    assert base_rates(optimizer) == [1.0]
    for expected in (-0.25, -1.25):
        if expected == -0.25:
            scale_updates(optimizer, {"audio": 0.25})
        optimizer.step()
        assert w.item() == expected
        assert optimizer.param_groups[0]["lr"] == 1.0


def test_a_refused_coefficient_leaves_the_next_step_as_it_was() -> None:
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"name": "audio", "params": [w]}], lr=1.0)
    w.grad = torch.ones(1)
    scale_updates(optimizer, {"audio": torch.nan})
    with pytest.raises(RuntimeError, match=r"coefficients.'audio'.: expected a finite number, found nan"):
        optimizer.step()
    assert w.item() == 0
    scale_updates(optimizer, {"audio": 0.5})
    assert optimizer.param_groups[0]["lr"] == 1.0
    for expected in (-0.5, -1.5):
        optimizer.step()
        assert w.item() == expected


def test_in_a_closure_it_acts_on_the_step_that_runs() -> None:
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.Adam([{"name": "audio", "params": [w]}], lr=1.0)

    def closure():
        optimizer.zero_grad()
        loss = w.sum()
        loss.backward()
        scale_updates(optimizer, {"audio": 0.2})
        return loss

    for step in (1, 2):
        optimizer.step(closure)
        assert w.item() == pytest.approx(-0.2 * step, rel=1e-5)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_a_schedule_sees_the_plain_rate() -> None:
    w = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([{"name": "audio", "params": [w]}], lr=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for _ in range(3):
        w.grad = torch.ones(1)
        scale_updates(optimizer, {"audio": 0.1})
        optimizer.step()
        schedule.step()
    assert w.item() == pytest.approx(-0.1 * (1 + 0.5 + 0.25))


def test_a_learning_rate_that_is_a_tensor_stays_that_tensor_and_nothing_is_read(monkeypatch) -> None:
    w = torch.zeros(1, requires_grad=True)
    rate = torch.tensor(1.0)
    optimizer = torch.optim.SGD([{"name": "audio", "params": [w]}], lr=rate)
    w.grad = torch.ones(1)
    with monkeypatch.context() as patch:
        for read in ("tolist", "item", "__float__", "__bool__"):
            patch.setattr(torch.Tensor, read, lambda *_: pytest.fail("a value was read on the host"))
        scale_updates(optimizer, {"audio": torch.tensor(0.25)})
    optimizer.step()
    assert w.item() == -0.25
    assert optimizer.param_groups[0]["lr"] is rate


def test_a_branch_without_a_group_is_an_error() -> None:
    optimizer = torch.optim.SGD(Late().parameters(), lr=1.0)
    with pytest.raises(ValueError, match="coefficients: expected branches with a parameter group of that name"):
        scale_updates(optimizer, {"audio": 0.5})


# --- parameters ---


def test_the_noise_has_the_deviation_of_the_gradient_before_scaling() -> None:
    model = nn.ModuleDict({"audio": nn.Linear(300, 300, bias=False)})
    branches = Branches(model, {"audio": "audio"})
    g = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    model["audio"].weight.grad = g.clone()
    scale_gradients(branches, {"audio": 0.0}, noise=True, generator=torch.Generator().manual_seed(1))
    noise = model["audio"].weight.grad
    assert noise.std() / g.std() == pytest.approx(1.0, abs=0.01)
    assert abs(noise.mean().item()) < 0.02
    model["audio"].weight.grad = g.clone()
    scale_gradients(branches, {"audio": 0.0}, noise=True, generator=torch.Generator().manual_seed(1))
    assert torch.equal(model["audio"].weight.grad, noise)


def test_a_branch_that_has_no_gradient_is_an_error() -> None:
    model = Late()
    with pytest.raises(ValueError, match=r"branches: expected a gradient in each branch.* found \['audio'\]"):
        scale_gradients(Branches(model, {"audio": "audio"}), {"audio": 0.5})


def test_frozen_branches_stay_exactly_as_they_are_where_a_zero_gradient_does_not() -> None:
    for frozen in (True, False):
        model = Late()
        branches = Branches(model, {"audio": "audio", "video": "video"})
        optimizer = torch.optim.AdamW(branches.param_groups(lr=1e-2, weight_decay=0.1))
        x, y = batch()
        for step in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(*x), y).backward()
            held = copy.deepcopy(model.audio.state_dict())
            if step and frozen:
                freeze(branches, {"audio": torch.tensor(0.0), "video": torch.tensor(1.0)})
            elif step:
                scale_gradients(branches, {"audio": 0.0})
            optimizer.step()
        assert frozen == all(torch.equal(value, held[name]) for name, value in model.audio.state_dict().items())


# --- features ---


@some
@given(st.floats(0, 0.95), st.floats(0, 0.95), st.integers(0, 9))
def test_dropping_keeps_the_batch_and_never_a_sample_without_features(a: float, v: float, seed: int) -> None:
    features = {"audio": torch.ones(40, 2, 3), "video": torch.ones(40, 5)}
    dropped = drop_features(features, {"audio": a, "video": v}, generator=torch.Generator().manual_seed(seed))
    assert {m: z.shape for m, z in dropped.items()} == {m: z.shape for m, z in features.items()}
    scale = 1 / (1 - (6 * (a - a * v) + 5 * (v - a * v)) / 11)
    kept = [z.flatten(1).amax(1) for z in dropped.values()]
    assert all(((k == 0) | torch.isclose(k, torch.tensor(scale))).all() for k in kept)
    assert (torch.stack(kept).amax(0) > 0).all()


@pytest.mark.parametrize("q", [(0.5, 0.5), (1.0, 1.0), (0.9, 0.2)])
def test_the_concatenation_keeps_its_expected_size(q) -> None:
    features, g = {"audio": torch.ones(20000, 3), "video": torch.ones(20000, 1)}, torch.Generator().manual_seed(0)
    dropped = drop_features(features, {"audio": q[0], "video": q[1]}, generator=g)
    assert torch.cat([*dropped.values()], 1).sum(1).mean().item() == pytest.approx(4, rel=0.02)


@some
@example(1.0, 1.0, 0)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_the_released_form_removes_what_has_nothing_left(a: float, v: float, seed: int) -> None:
    features = {m: torch.ones(40, d, requires_grad=True) for m, d in (("audio", 3), ("video", 5))}
    q, labels = {"audio": a, "video": v}, torch.arange(40)
    ours = drop_features(features, q, generator=torch.Generator().manual_seed(seed))
    theirs, left = drop_features_released(features, labels, q, generator=torch.Generator().manual_seed(seed))
    removed = sorted({*labels.tolist()} - {*left.tolist()})
    assert {z.shape[0] for z in theirs.values()} == {len(left)}
    for m, z in theirs.items():
        assert torch.equal(z > 0, ours[m][left] > 0)  # the same draws
        assert (ours[m][removed] > 0).all()  # which keep all here
        assert ((z == 0) | torch.isclose(z, 8 / torch.tensor(8 - 3 * a - 5 * v))).all()
    sum(z.sum() for z in theirs.values()).backward()
    assert all(torch.isfinite(z.grad).all() and not z.grad[removed].any() for z in features.values())


def test_how_often_features_are_dropped() -> None:
    features, g = {"audio": torch.ones(4000, 1), "video": torch.ones(4000, 1)}, torch.Generator().manual_seed(0)
    dropped = drop_features(features, {"audio": 0.3}, generator=g)
    assert (dropped["audio"] == 0).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (dropped["video"] > 0).all()
    small = {m: z[:1] for m, z in features.items()}
    acted = [drop_features(small, {"audio": 1.0}, share=0.7, generator=g)["audio"].item() == 0 for _ in range(1000)]
    assert sum(acted) / 1000 == pytest.approx(0.7, abs=0.05)


# --- coefficients ---


def logits_of(seed: int, modalities: int = 3, size: int = 5):
    g = torch.Generator().manual_seed(seed)
    logits = {m: torch.randn(size, 4, generator=g, dtype=torch.float64) for m in NAMES[:modalities]}
    return logits, torch.randint(4, (size,), generator=g)


@pytest.mark.parametrize("preset", PRESETS, ids=ids)
@pytest.mark.parametrize("seed", range(3))
def test_relabelling_modalities_relabels_coefficients(preset, seed: int) -> None:
    logits, labels = logits_of(seed)
    k, turned = preset(logits, labels), preset(dict(reversed(logits.items())), labels)
    assert list(turned) == list(reversed(k))
    for m in k:
        torch.testing.assert_close(k[m], turned[m], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("preset", PRESETS[:5], ids=ids[:5])
def test_equal_modalities_and_one_that_is_alone_are_left_alone(preset) -> None:
    logits, labels = logits_of(0, 1)
    neutral = 0.0 if isinstance(preset, OPM) else 1.0
    assert preset(logits, labels)["audio"].item() == neutral
    same = preset({"audio": logits["audio"], "video": logits["audio"]}, labels)
    assert [k.item() for k in same.values()] == pytest.approx([neutral] * 2, abs=1e-9)


@pytest.mark.parametrize("preset", PRESETS[:5], ids=ids[:5])
def test_absent_samples_and_modalities_are_as_if_they_were_not_there(preset) -> None:
    logits, labels = logits_of(3)
    gone = {"text": torch.zeros(5, dtype=torch.bool)}
    k, without = preset(logits, labels, present=gone), preset({m: logits[m] for m in NAMES[:2]}, labels)
    for m in without:
        torch.testing.assert_close(k[m], without[m], rtol=1e-12, atol=0)
    assert k["text"].item() == (0.0 if isinstance(preset, OPM) else 1.0)
    arl, arl_without = (
        ARL()(o, labels, present=p) for o, p in ((logits, gone), ({m: logits[m] for m in NAMES[:2]}, {}))
    )
    assert arl["text"].item() == 1
    assert all(torch.allclose(arl[m], arl_without[m], rtol=1e-12) for m in NAMES[:2])
    some_there = torch.tensor([True, True, False, False, True])
    wild = {m: torch.where(some_there[:, None], o, 1e9 if m == "audio" else o) for m, o in logits.items()}
    part, plain = (
        preset(wild, labels, present={"audio": some_there}),
        preset(logits, labels, present={"audio": some_there}),
    )
    for m in part:
        assert torch.equal(part[m], plain[m])


@some
@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=5), st.integers(-8, 8))
def test_ratios_see_ratios_only(values, exponent: int) -> None:
    s = torch.tensor(values, dtype=torch.float64)
    for reference in ("others", "pairwise", "min"):
        ratio = discrepancy_ratio(s, reference=reference)
        assert torch.equal(discrepancy_ratio(s * 2.0**exponent, reference=reference), ratio)
        assert ratio[s.argmax()] >= ratio.max() * (1 - 1e-12)
    torch.testing.assert_close(discrepancy_ratio(s, reference=s.clone()), torch.ones_like(s))


def test_ratios_at_zero_are_the_limits() -> None:
    for reference in ("others", "pairwise", "min"):
        assert discrepancy_ratio(torch.tensor([0.0, 2.0]), reference=reference).tolist() == [0.0, float("inf")]
        assert discrepancy_ratio(torch.zeros(3), reference=reference).tolist() == [1.0, 1.0, 1.0]
    labels = torch.zeros(1, dtype=torch.long)
    sure = {"audio": torch.tensor([[0.0, -9e9]]), "video": torch.tensor([[-9e9, 0.0]])}
    assert [k.item() for k in OGM(0.8)(sure, labels).values()] == [0.0, 1.0]


def test_not_a_number_goes_through() -> None:
    logits, labels = logits_of(0, 2)
    logits["audio"][0, 0] = torch.nan
    assert true_class_score(logits, labels).isnan().any()
    assert MLB()(logits, labels)["video"].isnan()


def test_hooks_see_what_was_found_and_nothing_is_kept() -> None:
    seen, ogm = [], OGM(0.8)
    handle = ogm.register_step_hook(seen.append)
    logits, labels = logits_of(0, 2)
    k = ogm(logits, labels)
    handle.remove()
    ogm(logits, labels)
    assert len(seen) == 1
    assert seen[0].names == ("audio", "video")
    assert torch.equal(seen[0].coefficients, torch.stack(list(k.values())))
    assert torch.equal(seen[0].ratios, discrepancy_ratio(seen[0].scores, reference="pairwise"))
    assert not ogm.state_dict()


def test_extreme_inputs_have_finite_coefficients() -> None:
    labels = torch.tensor([1])
    apart = {"audio": torch.tensor([[0.0, 200.0]]), "video": torch.tensor([[200.0, 0.0]])}
    for preset in (OGM(0.0), MLB(0.0), MLB(), AGM(2), ARL()):
        assert all(k.isfinite() for k in preset(apart, labels).values())
    k = EpistemicModulation()({"audio": torch.tensor([200.0, 103.0]), "video": torch.tensor([150.0, 102.0])})
    torch.testing.assert_close(k["audio"], torch.tensor([-50.0, -1.0]).exp())
    assert k["video"].tolist() == [1.0, 1.0]


def test_a_leaf_is_scaled_in_the_coming_backward_alone() -> None:
    leaf = torch.ones(2, 3, requires_grad=True)
    modulate({"a": leaf}, {"a": 0.5}, (loss := leaf.sum()))
    loss.backward()
    leaf.sum().backward()
    assert torch.equal(leaf.grad, torch.full((2, 3), 1.5))


def test_features_under_autocast_are_sliced_outside_of_it() -> None:
    head = nn.Linear(4, 3)
    parts = slice_logits(head, {"audio": torch.ones(2, 3, dtype=torch.bfloat16), "video": torch.ones(2, 1)})
    torch.testing.assert_close(sum(parts.values()), head(torch.ones(2, 4)))
