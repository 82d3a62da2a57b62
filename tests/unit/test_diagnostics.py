"""What a watch records, and that its alarm fires on the five published no-ops and is silent on their repaired forms."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from balancekit import Branches, PrototypeBank, Rebalancer, ReGrad, prototype_entropy
from balancekit.diagnostics import (
    NullEffectWarning,
    permutation_contributions,
    probe_accuracy,
    shapley_contributions,
    watch,
)
from balancekit.modulation import (
    ARL,
    MLB,
    OGM,
    Modulation,
    drop_features,
    listening,
    modulate,
    scale_gradients,
    scale_updates,
    slice_logits,
)


class Late(nn.Module):
    """Late fusion of two branches by a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.audio = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))
        self.video = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4))
        self.head = nn.Linear(8, 3)

    def forward(self, audio, video):
        return self.head(torch.cat([self.audio(audio), self.video(video)], 1))


def data(step: int, size: int = 16):
    g = torch.Generator().manual_seed(step)
    y = torch.randint(3, (size,), generator=g)
    audio = F.one_hot(y, 3).float() + 0.1 * torch.randn(size, 3, generator=g)
    return (audio, torch.randn(size, 5, generator=g)), y


def run(
    kind=torch.optim.SGD, modulator=None, *, steps: int = 14, lr: float = 1e-2, act=None, term=None, every: int = 1
):
    """Train, with `act` before backward, after backward and before the step; returns the history and the warnings."""
    model = Late()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    optimizer = kind(branches.param_groups(lr=lr))
    modulator = OGM(alpha=0.8) if modulator is None else modulator
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with watch(modulator, optimizer=optimizer, branches=branches, every=every) as history:
            for step in range(steps):
                x, y = data(step)
                with branches.capture() as features:
                    logits = model(*x)
                loss = F.cross_entropy(logits, y)
                if term is not None:
                    loss = loss + history.term("term", term(features, y))
                k = modulator(slice_logits(model.head, features), y)
                if act is not None and act.when == "before":
                    act(features, k, loss)
                optimizer.zero_grad()
                loss.backward()
                if act is not None and act.when == "after":
                    act(model, branches, optimizer, k)
                optimizer.step()
    return history, [w for w in caught if issubclass(w.category, NullEffectWarning)]


def before(function):
    function.when = "before"
    return function


def after(function):
    function.when = "after"
    return function


at_features = before(modulate)
on_gradients = after(lambda model, branches, optimizer, k: scale_gradients(branches, k))
on_updates = after(lambda model, branches, optimizer, k: scale_updates(optimizer, k))


def by_name(pattern: dict[str, str]):
    def scale(model, branches, optimizer, k) -> None:
        for name, p in model.named_parameters():
            for m, text in pattern.items():
                if text in name:
                    p.grad.mul_(k[m])

    return after(scale)


def causes(history) -> list[str]:
    return [alarm.cause for alarm in history.alarms]


# --- published no-ops ---


def test_an_agreement_term_that_is_detached() -> None:
    apart = lambda f, y: F.mse_loss(f["audio"].detach(), f["video"].detach())  # noqa: E731
    together = lambda f, y: F.mse_loss(f["audio"], f["video"].detach())  # noqa: E731
    history, caught = run(act=at_features, term=apart)
    assert causes(history) == ["no gradient"]
    assert len(caught) == 1
    assert "term: this loss term has no gradient" in str(caught[0].message)
    assert not run(act=at_features, term=together)[0].alarms


def test_a_coefficient_that_is_never_assigned() -> None:
    assert causes(run(modulator=ARL())[0]) == ["unapplied"]
    assert causes(run(modulator=ARL(released=True), act=at_features)[0]) == ["constant"]
    assert not run(modulator=ARL(), act=at_features)[0].alarms


def test_a_name_that_no_parameter_has() -> None:
    history, _ = run(act=by_name({"audio": "audio_encoder", "video": "video_encoder"}))
    assert causes(history) == ["unapplied"]
    assert "by a name that none has" in history.alarms[0].text
    assert not run(act=by_name({"audio": "audio", "video": "video"}))[0].alarms


def test_the_released_scaling_of_a_model_without_convolutions() -> None:
    released = after(lambda model, branches, optimizer, k: scale_gradients(branches, k, released=True))
    noisy = after(lambda model, branches, optimizer, k: scale_gradients(branches, k, noise=True, released=True))
    for act in (released, noisy):
        history, _ = run(act=act)
        assert causes(history) == ["unapplied"]
        assert history.last["efficacy/audio"] == 1


def test_an_entropy_without_gradient() -> None:
    bank = PrototypeBank(3, 4, decay=0.5)
    bank.update(torch.eye(3, 4), torch.arange(3))

    def entropy(f, y):
        return -prototype_entropy(f["audio"], bank.prototypes, seen=bank.seen)

    assert causes(run(act=at_features, term=torch.no_grad()(entropy))[0]) == ["no gradient"]
    assert not run(act=at_features, term=entropy)[0].alarms


@pytest.mark.parametrize("act", [at_features, on_gradients])
def test_scaling_gradients_under_adam(act) -> None:
    constant = Modulation(OGM(0.8).score, OGM(0.8).ratio, lambda ratio: torch.tensor([0.2, 1.0]))
    history, _ = run(torch.optim.Adam, constant, act=act)
    assert causes(history) == ["cancelled"]
    assert history.alarms[0].where == "audio"
    assert history.last["efficacy/audio"] == pytest.approx(1, abs=0.01)
    repaired, _ = run(torch.optim.Adam, constant, act=on_updates)
    assert not repaired.alarms
    assert repaired.last["efficacy/audio"] == pytest.approx(0.2, rel=0.01)
    assert not run(torch.optim.SGD, constant, act=act)[0].alarms


def test_a_coefficient_that_is_always_one() -> None:
    one = Modulation(OGM(0.8).score, OGM(0.8).ratio, torch.ones_like)
    history, caught = run(modulator=one, act=at_features)
    assert causes(history) == ["one"]
    assert [w.category for w in caught] == [NullEffectWarning]


# --- efficacy ---


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_efficacy_is_that_of_a_training_without_the_coefficient(kind) -> None:
    k = torch.tensor([0.3, 1.0])
    constant = Modulation(OGM(0.8).score, OGM(0.8).ratio, lambda ratio: k)
    scaled, _ = run(kind, constant, act=on_updates)
    assert scaled["efficacy/audio"][1] == pytest.approx([0.3] * 14, rel=1e-3)
    assert scaled["efficacy/video"][1] == pytest.approx([1.0] * 14, rel=1e-3)
    gradient, _ = run(kind, constant, act=on_gradients)
    expected = 0.3 if kind is torch.optim.SGD else 1.0
    assert gradient["efficacy/audio"][1] == pytest.approx([expected] * 14, rel=1e-2)


@pytest.mark.parametrize("per", ["tensor", "branch", "model"])
def test_the_passes_of_surgery_are_no_backward(per: str) -> None:
    model = Late()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    optimizer = torch.optim.SGD(branches.param_groups(lr=1e-2))
    balancer = Rebalancer(branches, ReGrad(), per=per)
    with watch(balancer, optimizer=optimizer, every=1) as history:
        for step in range(3):
            x, y = data(step)
            with branches.capture() as features:
                loss = F.cross_entropy(model(*x), y)
            alone = {name: z.square().mean() for name, z in features.items()}
            alone["audio"] = alone["audio"] + features["video"].mean()  # so that losses meet
            loss = balancer(loss, alone)
            modulate(features, {"audio": 0.5}, loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert history["efficacy/audio"][1] == pytest.approx([0.5] * 3, rel=1e-3)


def test_what_cannot_be_known_is_not_guessed() -> None:
    zero = Modulation(OGM(0.8).score, OGM(0.8).ratio, lambda ratio: torch.tensor([0.0, 1.0]))
    history, _ = run(modulator=zero, act=at_features)
    assert np.isnan(history["efficacy/audio"][1]).all()
    each = Modulation(OGM(0.8).score, OGM(0.8).ratio, lambda ratio: ratio.clamp(max=1), per_sample=True)
    history, _ = run(modulator=each, act=at_features)
    assert np.isnan(history["efficacy/audio"][1]).all()
    assert "coefficient/audio" in history


def test_noise_and_micro_batches_leave_efficacy_open() -> None:
    constant = Modulation(OGM(0.8).score, OGM(0.8).ratio, lambda ratio: torch.tensor([0.3, 1.0]))
    noisy = after(lambda model, branches, optimizer, k: scale_gradients(branches, k, noise=True))
    twice = after(lambda model, branches, optimizer, k: [scale_gradients(branches, k) for _ in range(2)])
    for act in (noisy, twice):
        history, _ = run(modulator=constant, act=act)
        assert np.isnan(history["efficacy/audio"][1]).all()
        assert not history.alarms


def test_a_past_before_the_watch_leaves_efficacy_of_scaled_gradients_open() -> None:
    model = Late()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    optimizer = torch.optim.Adam(branches.param_groups(lr=1e-2))

    def step(actuator, k: float) -> None:
        x, y = data(0)
        optimizer.zero_grad()
        F.cross_entropy(model(*x), y).backward()
        actuator(k)
        optimizer.step()

    step(lambda k: scale_gradients(branches, {"audio": k}), 0.2)
    for actuator, expected in (
        (lambda k: scale_updates(optimizer, {"audio": k}), 0.2),
        (lambda k: scale_gradients(branches, {"audio": k}), math.nan),
    ):
        with watch(optimizer=optimizer, branches=branches, every=1) as history:
            for _ in range(3):
                step(actuator, 0.2)
        assert history["efficacy/audio"][1] == pytest.approx([expected] * 3, rel=1e-3, nan_ok=True)


def test_cancelled_needs_no_modulator() -> None:
    model = Late()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    optimizer = torch.optim.Adam(branches.param_groups(lr=1e-2))
    with pytest.warns(NullEffectWarning, match="audio: its gradient is scaled by 0.2"):  # noqa: SIM117
        with watch(optimizer=optimizer, branches=branches, every=1) as history:
            for step in range(12):
                x, y = data(step)
                optimizer.zero_grad()
                F.cross_entropy(model(*x), y).backward()
                scale_gradients(branches, {"audio": 0.2})
                optimizer.step()
    assert causes(history) == ["cancelled"]


def test_one_schedule_a_closure_and_a_forgotten_state() -> None:
    model = Late()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    optimizer = torch.optim.Adam(branches.param_groups(lr=1e-2))
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    x, y = data(0)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(*x), y)
        loss.backward()
        return loss

    with watch(optimizer=optimizer, branches=branches, every=1) as history:
        for step in range(6):
            closure()
            if step == 3:
                optimizer.state.clear()
            scale_updates(optimizer, {"audio": 0.5})
            optimizer.step()
            schedule.step()
        assert history["efficacy/audio"][1] == pytest.approx([0.5] * 6, rel=1e-3)
        optimizer.step(closure)
    assert len(history["efficacy/audio"][1]) == 6  # nothing is claimed of the last step
    assert len(history["update ratio/audio"][1]) == 7


def test_numbers_are_what_they_were() -> None:
    with watch() as history:
        p = torch.zeros(())
        for _ in range(3):
            history.log({"p": p})
            p += 1
    assert history["p"][1].tolist() == [0, 1, 2]


def test_a_rebalancer_alone_is_a_clock() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    balancer = Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad())
    x = torch.randn(3, 2)
    with watch(balancer, every=2) as history:
        for _ in range(5):
            losses = {m: model[m](x).square().mean() for m in "ab"}
            balancer(sum(losses.values()), losses).backward()
    assert history["loss/a"][0].tolist() == [0, 2, 4]


def test_what_acts_in_another_way_can_say_so() -> None:
    for says in (True, False):
        model = Late()
        branches, ogm = Branches(model, {"audio": "audio", "video": "video"}), OGM(0.8)
        optimizer = torch.optim.SGD(branches.param_groups(lr=1e-2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NullEffectWarning)
            with watch(ogm, optimizer=optimizer, branches=branches, every=1) as history:
                for step in range(12):
                    x, y = data(step)
                    with branches.capture() as features:
                        loss = F.cross_entropy(model(*x), y)
                    k = ogm(slice_logits(model.head, features), y)
                    optimizer.zero_grad()
                    loss.backward()
                    if says:
                        history.applied("features", k)
                    optimizer.step()
        assert causes(history) == ([] if says else ["unapplied"])


def test_watching_changes_nothing() -> None:
    def weights(watched: bool):
        model = Late()
        branches = Branches(model, {"audio": "audio", "video": "video"})
        optimizer = torch.optim.AdamW(branches.param_groups(lr=1e-2))
        ogm = OGM(0.8)
        sources = [ogm] if watched else []
        with watch(*sources, optimizer=optimizer if watched else None, branches=branches, every=1):
            for step in range(5):
                x, y = data(step)
                with branches.capture() as features:
                    loss = F.cross_entropy(model(*x), y)
                modulate(features, ogm(slice_logits(model.head, features), y), loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        assert not optimizer._optimizer_step_pre_hooks
        assert not ogm._hooks
        assert all(not p._post_accumulate_grad_hooks for p in model.parameters())
        return model.state_dict()

    plain, watched = weights(False), weights(True)
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_watches_may_end_in_any_order() -> None:
    heard: dict[str, list[str]] = {"first": [], "second": []}
    first, second = (listening(lambda what, name=name: heard[name].append(what.on)) for name in heard)
    first.__enter__()
    second.__enter__()
    drop_features({"audio": torch.ones(2, 1)}, {})
    first.__exit__(None, None, None)
    drop_features({"audio": torch.ones(2, 1)}, {})
    second.__exit__(None, None, None)
    drop_features({"audio": torch.ones(2, 1)}, {})
    assert [*map(len, heard.values())] == [1, 2]


# --- numbers ---


def test_update_ratio_and_energy_are_what_they_say() -> None:
    history, _ = run(act=at_features, steps=3)
    model = Late()
    branches = Branches(model, {"audio": "audio", "video": "video"})
    ogm, energy = OGM(0.8), 0.0
    for step in range(3):
        x, y = data(step)
        with branches.capture() as features:
            loss = F.cross_entropy(model(*x), y)
        modulate(features, ogm(slice_logits(model.head, features), y), loss)
        model.zero_grad()
        loss.backward()
        flat = torch.cat([p.detach().flatten() for p in branches["audio"]])
        g = torch.cat([p.grad.flatten() for p in branches["audio"]])
        energy += (1e-2 * g.norm()).item() ** 2
        assert history["update ratio/audio"][1][step] == pytest.approx((1e-2 * g.norm() / flat.norm()).item(), rel=1e-4)
        assert history["gradient energy/audio"][1][step] == pytest.approx(energy, rel=1e-4)
        with torch.no_grad():
            for p in model.parameters():
                p -= 1e-2 * p.grad


def test_conflicts_of_a_rebalancer() -> None:
    trunk = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "trunk": trunk})
    branches = Branches(model, {"a": "a", "b": "b"})
    balancer = Rebalancer(branches, ReGrad())
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    with watch(balancer, every=1) as history:
        za, zb = model["a"](x), model["b"](x)
        losses = {"a": (za + zb).square().mean(), "b": (zb - za - 1).square().mean()}
        total = losses["a"] + losses["b"]
        exact = {
            m: [torch.autograd.grad(loss, list(branches[k]), retain_graph=True) for k in "ab"]
            for m, loss in losses.items()
        }
        balancer(total, losses).backward()
    flat = {m: torch.cat([g.flatten() for pair in rows for g in pair]) for m, rows in exact.items()}
    cosine = F.cosine_similarity(flat["a"], flat["b"], dim=0).item()
    assert history.last["cosine/a-b"] == pytest.approx(cosine, abs=1e-5)
    pairs = [
        (g * h).sum() < 0 for ga, gb in zip(exact["a"], exact["b"], strict=True) for g, h in zip(ga, gb, strict=True)
    ]
    assert history.last["conflict/a-b"] == pytest.approx(sum(map(float, pairs)) / len(pairs))
    assert history.last["loss/a"] == pytest.approx(losses["a"].item())


def test_the_rate_and_the_readers() -> None:
    history, _ = run(act=at_features, every=5, steps=12)
    steps, values = history["coefficient/audio"]
    assert steps.tolist() == [0, 5, 10]
    table = history.to_numpy()["coefficient/audio"]
    assert table.shape == (3, 2)
    assert history.last["coefficient/audio"] == values[-1] == table[-1, 1]
    assert all(isinstance(value, float) for value in history.last.values())
    history.log({"extra": 1.0})
    assert history.last["extra"] == 1.0
    with pytest.raises(KeyError):
        history["nothing"]
    with pytest.raises(ValueError, match="a number or a tensor with one value"):
        history.log({"extra": torch.zeros(2)})


def test_as_a_data_frame() -> None:
    import pandas as pd

    history, _ = run(act=at_features, every=5, steps=12)
    frame = history.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame.index.tolist() == [0, 5, 10]
    assert frame["ratio/video"].tolist() == history["ratio/video"][1].tolist()


def test_without_an_optimizer_the_calls_are_the_clock() -> None:
    mlb, labels = MLB(), torch.tensor([1, 0])
    logits = {"audio": torch.tensor([[0.0, 3.0], [1.0, 0.0]]), "video": torch.zeros(2, 2)}
    with watch(mlb, every=2) as history:
        for _ in range(5):
            mlb(logits, labels)
    assert history["score/audio"][0].tolist() == [0, 2, 4]


# --- single measures ---


def test_contributions_add_up_and_find_the_one_that_is_used() -> None:
    model = Late()
    features = {"audio": torch.randn(64, 4), "video": torch.randn(64, 4)}
    fuse = lambda z: model.head(torch.cat([z["audio"], 0 * z["video"]], 1))  # noqa: E731
    labels = fuse(features).argmax(-1)
    shares = shapley_contributions(fuse, features, labels)
    zeros = (fuse({m: 0 * z for m, z in features.items()}).argmax(-1) == labels).float().mean().item()
    assert sum(shares.values()).item() == pytest.approx(1 - zeros, abs=1e-6)
    assert shares["video"].item() == 0
    moved = permutation_contributions(fuse, features, generator=torch.Generator().manual_seed(0))
    assert moved["video"].item() == pytest.approx(0, abs=1e-7)
    assert 1e-3 < moved["audio"].item() <= math.log(2)


def test_a_probe_is_a_logistic_regression() -> None:
    from sklearn import linear_model

    g = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    x = torch.randn(300, 6, generator=g) + 1.5 * F.one_hot(y, 6)
    train, test = x[:200], x[200:]
    scaled = [(each - train.mean(0)) / train.std(0) for each in (train, test)]
    exact = linear_model.LogisticRegression(C=1 / (2 * 1e-3 * 200), max_iter=1000).fit(
        scaled[0].numpy(), y[:200].numpy()
    )
    ours = probe_accuracy(train, y[:200], test, y[200:])
    assert ours == pytest.approx(exact.score(scaled[1].numpy(), y[200:].numpy()), abs=0.011)


def test_each_kind_is_drawn_in_one_call() -> None:
    from balancekit.plotting import plot

    history, _ = run(modulator=ARL(), steps=12)
    for kind in ("score", "ratio", "coefficient", "update ratio", "gradient energy", "efficacy"):
        ax = plot(history, kind)
        assert [line.get_label() for line in ax.lines] == ["audio", "video", "_alarm"]
        assert ax.lines[0].get_xdata().tolist() == list(range(12))
    with pytest.raises(ValueError, match="kind: expected one of"):
        plot(history, "cosine")
