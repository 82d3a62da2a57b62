"""What separate passes go through, what they fetch, and the options that change it."""

import io
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from balancekit import Branches, Rebalancer, ReGrad, Sum
from tests.models import Toy, batches, gradients


class Count(torch.autograd.Function):
    """The identity; counts how often its backward runs."""

    @staticmethod
    def forward(ctx: object, x: Tensor, counts: Counter, key: str) -> Tensor:
        ctx.counts, ctx.key = counts, key
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple:
        ctx.counts[ctx.key] += 1
        return gradient, None, None


class Tower(nn.Module):
    """Three branches "a b c" of four layers on a trunk; in the layers of `meet` the branches of `who` exchange."""

    def __init__(self, meet: tuple[int, ...] = (), who: str = "abc") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.meet, self.who = meet, who
        self.trunk = nn.Linear(4, 4)
        self.layers = nn.ModuleDict({n: nn.ModuleList(nn.Linear(4, 4) for _ in range(4)) for n in "abc"})
        self.heads = nn.ModuleDict({n: nn.Linear(4, 1) for n in "abc"})
        self.double()

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor], Counter]:
        counts: Counter = Counter()
        h = Count.apply(self.trunk(x).tanh(), counts, "trunk")
        states = dict.fromkeys("abc", h)
        for i in range(4):
            states = {n: Count.apply(self.layers[n][i](s).tanh(), counts, f"{n}{i}") for n, s in states.items()}
            if i in self.meet:
                mean = sum(states[n] for n in self.who) / len(self.who)
                states |= {n: states[n] + 0.5 * mean.sin() for n in self.who}
        losses = {n: self.heads[n](s).square().mean() for n, s in states.items()}
        return sum(states.values()).cos().mean(), losses, counts

    def branches(self) -> Branches:
        return Branches(self, {n: f"layers.{n}" for n in "abc"})


def runs(model: Tower, **options: object) -> tuple[str, Counter]:
    """How often the backward of each layer ran in one step."""
    balancer = Rebalancer(model.branches(), options.pop("rule", ReGrad()), **options)
    seen = []
    balancer.register_step_hook(lambda surgery: seen.append(surgery.path))
    total, losses, counts = model(torch.randn(3, 4, dtype=torch.float64))
    balancer(total, losses).backward()
    return seen[0], counts


def frozen_trunk(meet: tuple[int, ...] = (), who: str = "abc") -> Tower:
    model = Tower(meet, who)
    model.trunk.requires_grad_(False)
    return model


LAYERS = [f"{n}{i}" for n in "abc" for i in range(4)]


def test_late_fusion_is_one_traversal_though_the_heads_lie_outside() -> None:
    path, counts = runs(frozen_trunk())
    assert path == "collapse"
    assert counts == Counter(dict.fromkeys(LAYERS, 1))


def test_a_large_trunk_is_traversed_once() -> None:
    """It gets the plain sum from the user's backward; passes correct the branches above it, and end there."""
    model = Tower()
    model.trunk = nn.Linear(4, 200).double()  # larger than a branch
    for layers in model.layers.values():
        layers[0] = nn.Linear(200, 4).double().requires_grad_(False)
    path, counts = runs(model)
    assert path == "collapse"
    passed = {layer: 1 if layer[1] == "0" else 2 for layer in LAYERS}  # the first layers are frozen
    assert counts == Counter({"trunk": 1, **passed})


def test_passes_end_where_no_branch_lies_further() -> None:
    path, counts = runs(frozen_trunk(meet=(0, 1, 2, 3)), rest="total")
    assert path == "general"
    assert counts == Counter(dict.fromkeys(LAYERS, 4))
    path, counts = runs(Tower(meet=(0, 1, 2, 3)), rest="total")
    assert counts == Counter({"trunk": 1, **dict.fromkeys(LAYERS, 4)})


def test_exchange_at_the_bottom_leaves_the_layers_above_to_their_own_loss() -> None:
    path, counts = runs(frozen_trunk(meet=(0,)))
    assert path == "partial"
    above = {layer: 2 for layer in LAYERS if layer[1] != "0"}  # the own pass on its way down, and the user's backward
    assert counts == Counter({**above, "a0": 4, "b0": 4, "c0": 4})


def test_a_branch_apart_collapses_while_the_others_meet() -> None:
    path, counts = runs(frozen_trunk(meet=(3,), who="ab"))
    assert path == "partial"
    assert all(counts[f"c{i}"] == 1 and counts[f"a{i}"] == counts[f"b{i}"] == 3 for i in range(4))


def test_branch_by_branch_crosses_over_only_where_a_path_leads_to_the_branch() -> None:
    path, counts = runs(frozen_trunk(meet=(3,)), low_memory=True)
    assert path == "general"
    assert counts == Counter(dict.fromkeys(LAYERS, 4))  # no more than at once
    _, counts = runs(frozen_trunk(meet=(0, 1, 2, 3)), low_memory=True)
    # one pass a loss ends in the own branch's first layer; those for other branches go as far down as they are reached
    assert counts == Counter({f"{n}{i}": 10 if i else 4 for n in "abc" for i in range(4)})


def test_known_weights_take_one_joint_pass_for_each_branch() -> None:
    model = frozen_trunk(meet=(3,))
    balancer = Rebalancer(model.branches(), ReGrad(), per="branch", every=2)
    x = torch.randn(3, 4, dtype=torch.float64)
    for expected in (4, 2, 4, 2):  # three passes and the user's backward; one and the user's
        total, losses, counts = model(x)
        balancer(total, losses).backward()
        assert counts == Counter(dict.fromkeys(LAYERS, expected))


# ---------------------------------------------------------------------------------------------------------------- every


def train(model: Toy, balancer: Rebalancer, data: list) -> list[tuple[Tensor, list[Tensor]]]:
    """For each batch the weights of the step and the gradients."""
    out = []
    handle = balancer.register_step_hook(lambda surgery: out.append([surgery.weights]))
    for x, y in data:
        model.zero_grad()
        balancer(*model(x, y)).backward()
        out[-1].append(gradients(model))
    handle.remove()
    return out


def test_weights_are_renewed_at_every_kth_backward_and_held_between() -> None:
    model, data = Toy(3, coupled=True), list(batches(6, 3))
    exact = train(model, Rebalancer(model.branches(), ReGrad(), per="branch"), data)
    held = train(model, Rebalancer(model.branches(), ReGrad(), per="branch", every=3), data)
    assert not torch.equal(exact[0][0], exact[1][0])
    for k in range(6):
        assert torch.equal(held[k][0], exact[k - k % 3][0])
    for k in (0, 3):
        assert all(torch.equal(a, b) for a, b in zip(held[k][1], exact[k][1], strict=True))


def test_held_weights_give_the_weighted_sum_of_the_rows() -> None:
    model, data = Toy(3, coupled=True), list(batches(2, 3))
    _, (weights, found) = train(model, Rebalancer(model.branches(), ReGrad(), per="branch", every=2), data)
    total, losses = model(*data[1])
    branches = model.branches()
    for b, name in enumerate(branches):
        rows = [
            torch.autograd.grad(loss, branches[name], retain_graph=True, materialize_grads=True, allow_unused=True)
            for loss in (total, *losses.values())
        ]
        names = {id(p): gradient for p, gradient in zip(model.parameters(), found, strict=True)}
        for t, parameter in enumerate(branches[name]):
            expected = sum(w * row[t] for w, row in zip(weights[b], rows, strict=True))
            torch.testing.assert_close(names[id(parameter)], expected, rtol=1e-12, atol=1e-14)


def test_held_weights_survive_a_checkpoint() -> None:
    model, data = Toy(3, coupled=True), list(batches(4, 3))
    whole = train(model, Rebalancer(model.branches(), ReGrad(), per="branch", every=3), data)
    first = Rebalancer(model.branches(), ReGrad(), per="branch", every=3)
    train(model, first, data[:2])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Rebalancer(model.branches(), ReGrad(), per="branch", every=3)
    second.load_state_dict(torch.load(file, weights_only=True))
    for (_, mine), (_, theirs) in zip(train(model, second, data[2:]), whole[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_another_set_of_modalities_renews_the_weights() -> None:
    model = Toy(3, coupled=True)
    balancer = Rebalancer(model.branches(), ReGrad(), per="branch", every=100)
    seen = []
    balancer.register_step_hook(seen.append)
    for absent in (None, "m1", "m1"):
        ((x, y),) = batches(1, 3)
        total, losses = model(x, y)
        losses.pop(absent, None)
        balancer(total, losses).backward()
    assert seen[1].weights[0, 2] == 0 != seen[0].weights[0, 2]
    assert torch.equal(seen[1].weights, seen[2].weights)


def test_weights_that_are_not_finite_are_not_held() -> None:
    model = Toy(3, coupled=True)
    balancer = Rebalancer(model.branches(), ReGrad(), per="branch", every=100)
    (bad, good) = batches(2, 3)
    total, losses = model(bad[0] * torch.inf, bad[1])
    balancer(total, losses).backward()
    assert not all(gradient.isfinite().all() for gradient in gradients(model))
    model.zero_grad()
    balancer(*model(*good)).backward()
    assert all(gradient.isfinite().all() for gradient in gradients(model))


# ---------------------------------------------------------------------------------------------------------------- proxy


def test_a_proxy_is_all_that_is_measured() -> None:
    model = Toy(3, coupled=True)
    ((x, y),) = batches(1, 3)
    proxy = Branches(model, {n: f"encoders.{n}.2" for n in model.names})
    (weights, found), (_, exact) = (
        train(model, Rebalancer(model.branches(), ReGrad(), per="branch", proxy=p), [(x, y)])[0] for p in (proxy, None)
    )
    ((measured, _),) = train(model, Rebalancer(proxy, ReGrad(), per="branch"), [(x, y)])
    torch.testing.assert_close(weights, measured, rtol=1e-12, atol=1e-14)
    cosines = [cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in zip(found, exact, strict=True)]
    assert min(cosines) > 0.9


# ---------------------------------------------------------------------------------------------------------- independent


def test_asserted_independence_looks_at_no_graph() -> None:
    model = Toy(3, coupled=True)
    balancer = Rebalancer(model.branches(), ReGrad(), independent=True)
    seen = []
    balancer.register_step_hook(seen.append)
    ((x, y),) = batches(1, 3)
    total, losses = model(x, y)
    balancer(total, losses).backward()
    assert seen[0].path == "collapse"
    found = gradients(model)
    model.zero_grad()
    total, losses = model(x, y)
    own = seen[0].weights[:, 1:].diagonal()
    (total + sum(w * loss for w, loss in zip(own, losses.values(), strict=True))).backward()
    for a, b in zip(found, gradients(model), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# ---------------------------------------------------------------------------------------------------------- compilation


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("per", ["tensor", "branch"])
def test_the_compiled_kernel_equals_the_eager_one(per: str) -> None:
    model = Toy(2, coupled=True)
    found = []
    for compiles in (False, True):
        balancer = Rebalancer(model.branches(), ReGrad(), per=per)
        if compiles:
            balancer.compile()
        found += train(model, balancer, list(batches(1, 2)))
    for a, b in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_sum_on_any_tower_equals_an_ordinary_backward() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    for meet, who in (((), "abc"), ((0,), "abc"), ((3,), "ab"), ((0, 1, 2, 3), "abc")):
        model = Tower(meet, who)
        total, losses, _ = model(x)
        (total + sum(losses.values())).backward()
        expected = gradients(model)
        model.zero_grad()
        total, losses, _ = model(x)
        Rebalancer(model.branches(), Sum())(total, losses).backward()
        for a, b in zip(gradients(model), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
