"""What separate passes go through, what they fetch, and the options that change it."""

import io
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from balancekit import Branches, MinNorm, MMPareto, PCGrad, Rebalancer, ReGrad, Rule, Step, Sum, from_torchjd
from balancekit.surgery import _engine, _facts, _gram, _regrad
from balancekit.surgery._held import Held
from balancekit.surgery._plan import divide
from balancekit.surgery._survey import Survey
from balancekit.surgery._weigh import Weighed
from tests.models import Toy, batches, gradients
from tests.oracles import regrad as oracle


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


@pytest.mark.parametrize(("trunk", "seed"), [(3, "none"), (4, "none"), (5, "one")])
def test_the_rest_rides_on_the_users_backward_where_that_saves_more_than_the_branches_cost(
    trunk: int, seed: str
) -> None:
    """Three losses reach a rest, once instead of three times, and eight numbers of branches, once more for it."""
    rest, *shared = torch.zeros(trunk), torch.zeros(4), torch.zeros(2), torch.zeros(2)
    rows = frozenset((1, 2, 3))
    division = divide(
        {leaf: m for m, leaf in enumerate(shared)},
        dict.fromkeys((rest, *shared), rows),
        dict.fromkeys(rows, trunk),
        3,
        per="tensor",
        rest="sum",
        uses_total=False,
        traversed=False,
        sync=False,
        by_branch=False,
    )
    assert division.seeds == (seed,) * 4


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


# ---------------------------------------------------------------------------------------------------------------- ranks


def together(patch: pytest.MonkeyPatch, *calls: Callable[[], object]) -> list:
    """What each call returns, where every call is a rank: a thread whose sums are those over all of them."""
    barrier, place, sent = threading.Barrier(len(calls)), threading.local(), {}

    def all_reduce_sum(tensors: list[Tensor]) -> list[Tensor]:
        sent[place.rank] = list(tensors)
        barrier.wait(timeout=5)
        sums = [sum(each) for each in zip(*sent.values(), strict=True)]
        barrier.wait(timeout=5)
        return sums

    def run(rank: int) -> object:
        place.rank = rank
        try:
            return calls[rank]()
        except BaseException:
            barrier.abort()
            raise

    for module in (_facts, _engine):
        patch.setattr(module, "all_reduce_sum", all_reduce_sum)
        patch.setattr(module, "world_size", lambda: len(calls))
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, rank) for rank in range(len(calls))]
    for future in sorted(futures, key=lambda f: isinstance(f.exception(), threading.BrokenBarrierError)):
        future.result()  # what went wrong, before what only waited for it
    return [future.result() for future in futures]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_facts_across_ranks_are_means_over_those_that_have_them(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Modality "a" has a loss on both ranks, "b" on the first, "c" on none."""
    p, q, unused, here, outer = (nn.Parameter(torch.ones(n)) for n in (2, 3, 4, 5, 6))
    frozen = nn.Parameter(torch.ones(7), requires_grad=False)
    owners = {p: 0, q: 1, frozen: 1, unused: 2, here: 0}
    both, none = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    owner, units = torch.arange(3), torch.ones(3, dtype=dtype)

    def step(losses: list, confidence: list, speed: list, present: Tensor) -> Step:
        return Step(*(torch.tensor(x, dtype=dtype) for x in (losses, confidence, speed)), present, owner, units)

    steps = [
        step([1.0, 0.5, 0.0], [0.25, 0.5, 1.0], [-1.0, -0.5, -torch.inf], both),
        step([4.0, 0.0, 0.0], [0.75, 1.0, 1.0], [-2.0, -torch.inf, -torch.inf], none),
    ]
    surveys = [
        Survey(
            {p: frozenset({0, 1}), q: frozenset({2}), frozen: frozenset({2}), outer: frozenset({0})},
            {1: "an obstacle"},
            {0: 6.0, 2: 3.0},
            {p: 1.0, q: 1.0, outer: 1.0},
            {outer: None},
        ),
        Survey({p: frozenset({1}), here: frozenset({1})}, {}, {0: 2.0}, {p: 1.0, here: 1.0}, {}),
    ]
    found = together(
        monkeypatch,
        *(lambda k=k: _facts.across_ranks(["a", "b", "c"], steps[k], surveys[k], owners) for k in range(2)),
    )
    everywhere = {p: frozenset({0, 1}), q: frozenset({2}), here: frozenset({1})}
    for k, (averaged, ranks, survey, somewhere) in enumerate(found):
        assert averaged.losses.tolist() == [2.5, 0.5, 0.0]
        assert averaged.confidence.tolist() == [0.5, 0.5, 1.0]
        assert averaged.speed.tolist() == [-1.5, -0.5, -torch.inf]
        assert averaged.present.tolist() == [True, True, False]
        assert averaged.owner is owner
        assert averaged.units is units
        assert all(x.dtype == dtype for x in (averaged.losses, averaged.confidence, averaged.speed, ranks))
        assert ranks.tolist() == [2.0, 1.0, 0.0]
        assert somewhere == {0, 1}
        assert survey.outside == {0: 4.0, 1: 0.0, 2: 1.5, 3: 0.0}
        assert survey.obstacles is surveys[k].obstacles
        assert survey.awaited is surveys[k].awaited
        mine = {outer: frozenset({0}), **everywhere} if k == 0 else everywhere
        assert survey.reached_by == mine
    assert found[0][2].shares == {p: 1.0, q: 0.5, outer: 1.0}
    assert found[1][2].shares == {p: 1.0, here: 0.5}


def test_a_branch_that_ran_on_the_other_rank_alone_gets_its_gradient_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> nn.ModuleDict:
        torch.manual_seed(0)
        return nn.ModuleDict({name: nn.Linear(2, 1) for name in "ba"}).double()  # the one that is missing comes first

    def losses_of(pair: nn.ModuleDict, rank: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = torch.arange(6, dtype=torch.float64).view(3, 2) - 2 * rank
        a = pair["a"](x)
        if rank == 1:
            return a.square().mean(), {"a": a.exp().mean()}
        b = pair["b"](x)
        return (a + b).square().mean(), {"a": (a * b).mean(), "b": (a - b).square().mean()}

    def step(pair: nn.ModuleDict, rank: int) -> None:
        balancer = Rebalancer(Branches(pair, {"b": "b", "a": "a"}), Sum(), weight=0.3, sync=True)
        balancer(*losses_of(pair, rank)).backward()

    ran, ran_not, pair = model(), model(), model()  # not in the threads, which share the random stream
    together(monkeypatch, lambda: step(ran, 0), lambda: step(ran_not, 1))
    assert all(parameter.grad is None for parameter in ran_not["b"].parameters())
    (total, each), (total_1, each_1) = losses_of(pair, 0), losses_of(pair, 1)
    whole = (total + total_1) / 2 + 0.3 * ((each["a"] + each_1["a"]) / 2 + each["b"])
    whole.backward()
    for name in "ab":
        for here, there, expected in zip(*(each[name].parameters() for each in (ran, ran_not, pair)), strict=True):
            mean = (here.grad + (0 if there.grad is None else there.grad)) / 2
            torch.testing.assert_close(mean, expected.grad, rtol=1e-12, atol=1e-12)


def test_one_rank_alone_keeps_its_facts() -> None:
    p = nn.Parameter(torch.ones(2))
    step = Step(*torch.tensor([[3.0], [0.5], [-3.0]]), torch.tensor([True]), torch.tensor([0]), torch.ones(1))
    before = Survey({p: frozenset({0, 1})}, {}, {0: 6.0, 1: 5.0}, {p: 1.0}, {})
    averaged, ranks, survey, somewhere = _facts.across_ranks(["a"], step, before, {p: 0})
    assert all(torch.equal(one, other) for one, other in zip(averaged, step, strict=True))
    assert ranks.tolist() == [1.0]
    assert survey == before
    assert somewhere == {0}


@pytest.mark.parametrize("other", [["b", "a"], ["a", "c"]], ids=["order", "names"])
def test_ranks_with_other_branches_are_refused(monkeypatch: pytest.MonkeyPatch, other: list[str]) -> None:
    p = nn.Parameter(torch.ones(2))
    step = Step(*torch.ones(3, 2), torch.tensor([True, True]), torch.arange(2), torch.ones(2))
    survey = Survey({p: frozenset({1})}, {}, {}, {p: 1.0}, {})
    calls = [lambda names=names: _facts.across_ranks(names, step, survey, {p: 0}) for names in (["a", "b"], other)]
    with pytest.raises(ValueError, match="branches: expected the same names in the same order on all ranks"):
        together(monkeypatch, *calls)


class TotalToo(Sum):
    """Like Sum, but by the path of rules that weigh the total's row."""

    uses_total = True


def part_of(coupled: bool, rank: int, missing_on: int | None, rule: Rule, **options: object) -> tuple[list, str, Step]:
    """The gradients on one of two ranks, which has half of the batch; m1 is missing on one of them."""
    model = Toy(3, coupled=coupled)
    model.heads.requires_grad_(False)  # what is outside of the branches is averaged over all ranks by others
    balancer = Rebalancer(model.branches(), rule, weight=0.3, sync=True, **options)
    seen = []
    balancer.register_step_hook(seen.append)
    ((x, y),) = batches(1, 3, size=8)
    rows = slice(4 * rank, 4 * rank + 4)
    total, losses = model(x[:, rows], y[rows])
    if rank == missing_on:
        del losses["m1"]
    balancer(total, losses, confidence=dict.fromkeys(losses, 0.5)).backward()
    return gradients(model), seen[0].path, seen[0].step


def whole(model: Toy, missing_on: int | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of the large batch; that of m1 over the samples which have it."""
    ((x, y),) = batches(1, 3, size=8)
    total, losses = model(x, y)
    if missing_on is not None:
        has = slice(4, 8) if missing_on == 0 else slice(0, 4)
        losses["m1"] = model(x[:, has], y[has])[1]["m1"]
    return total, losses


@pytest.mark.parametrize("missing_on", [None, 0, 1])
@pytest.mark.parametrize("options", [{}, {"per": "branch"}, {"per": "model"}, {"low_memory": True}, {"rest": "total"}])
@pytest.mark.parametrize("coupled", [True, False])
def test_two_ranks_equal_one_process_with_the_large_batch(
    monkeypatch: pytest.MonkeyPatch, coupled: bool, options: dict, missing_on: int | None
) -> None:
    parts = together(monkeypatch, *(lambda k=k: part_of(coupled, k, missing_on, ReGrad(), **options) for k in range(2)))
    model = Toy(3, coupled=coupled)
    model.heads.requires_grad_(False)
    total, losses = whole(model, missing_on)
    expected = oracle.step(
        total,
        losses,
        {name: list(parameters) for name, parameters in model.branches().items()},
        list(model.joint.parameters()),
        confidence=dict.fromkeys(losses, 0.5),
        speed={name: -loss.item() for name, loss in losses.items()},
        weight=0.3,
        per=options.get("per", "tensor"),
        rest=options.get("rest", "sum"),
    )
    for i, parameter in enumerate(model.parameters()):
        mean = (parts[0][0][i] + parts[1][0][i]) / 2
        reference = expected.get(parameter, torch.zeros_like(parameter))
        torch.testing.assert_close(mean, reference, rtol=1e-10, atol=1e-12)
    for _, path, step in parts:
        assert path == ("general" if coupled or options.get("per") == "model" else "collapse")
        torch.testing.assert_close(step.losses, torch.stack(list(losses.values())).detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("missing_on", [None, 0, 1])
@pytest.mark.parametrize("rule", [Sum(), TotalToo()], ids=["Sum", "TotalToo"])
@pytest.mark.parametrize("coupled", [True, False])
def test_sum_on_two_ranks_is_the_gradient_of_the_large_batch(
    monkeypatch: pytest.MonkeyPatch, coupled: bool, rule: Rule, missing_on: int | None
) -> None:
    parts = together(monkeypatch, *(lambda k=k: part_of(coupled, k, missing_on, rule) for k in range(2)))
    model = Toy(3, coupled=coupled)
    total, losses = whole(model, missing_on)
    model.heads.requires_grad_(False)
    (total + 0.3 * sum(losses.values())).backward()
    model.heads.zero_grad()
    for mine, other, reference in zip(parts[0][0], parts[1][0], gradients(model), strict=True):
        torch.testing.assert_close((mine + other) / 2, reference, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"per": "branch"}, {"per": "model"}, {"rest": "total"}])
@pytest.mark.parametrize("rule", [ReGrad(), TotalToo()], ids=["ReGrad", "TotalToo"])
@pytest.mark.parametrize("coupled", [True, False])
def test_to_synchronise_one_process_changes_nothing(coupled: bool, rule: Rule, options: dict) -> None:
    model, found = Toy(3, coupled=coupled), []
    for sync in (False, True):
        found += train(model, Rebalancer(model.branches(), rule, weight=0.3, sync=sync, **options), list(batches(1, 3)))
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)


# --------------------------------------------------------------------------------------------------------- one's facts


def test_the_facts_of_a_step_are_means_in_the_widest_dtype_and_neutral_where_absent() -> None:
    losses = {"a": torch.tensor(2.0), "c": torch.tensor(0.1, dtype=torch.float64, requires_grad=True)}
    confidence = {"a": 0.1, "b": 0.7, "c": torch.tensor([0.25, 0.75], requires_grad=True)}
    speed = {"a": torch.tensor(5.0), "c": -0.3}
    step = _facts.local_step(["a", "b", "c"], torch.tensor(1.0), losses, confidence, speed)
    assert step.losses.tolist() == [2.0, 0.0, 0.1]
    assert step.confidence.tolist() == [0.1, 1.0, 0.5]
    assert step.speed.tolist() == [5.0, -torch.inf, -0.3]
    assert step.present.tolist() == [True, False, True]
    assert step.owner.tolist() == [0, 1, 2]
    assert step.units.tolist() == [1.0, 1.0, 1.0]
    assert all(x.dtype == torch.float64 and not x.requires_grad for x in (*step[:3], step.units))
    assert (step.present.dtype, step.owner.dtype) == (torch.bool, torch.int64)


def test_without_confidence_and_speed_they_are_one_and_minus_the_loss() -> None:
    step = _facts.local_step(["a", "b", "c"], torch.tensor(1.0), {"b": torch.tensor(2.0)}, None, None)
    assert step.confidence.tolist() == [1.0, 1.0, 1.0]
    assert step.speed.tolist() == [-torch.inf, -2.0, -torch.inf]


@pytest.mark.parametrize(
    ("value", "loss", "wide"),
    [
        (torch.bfloat16, torch.float16, torch.float32),
        (torch.float32, torch.bfloat16, torch.float32),
        (torch.float64, torch.float32, torch.float64),
        (torch.float32, torch.float64, torch.float64),
    ],
)
def test_facts_are_in_float32_or_wider(value: torch.dtype, loss: torch.dtype, wide: torch.dtype) -> None:
    losses = {"a": torch.ones((), dtype=loss), "b": torch.ones((), dtype=torch.float16)}
    step = _facts.local_step(["a", "b"], torch.ones((), dtype=value), losses, {"a": 0.5, "b": 0.5}, None)
    assert {x.dtype for x in (*step[:3], step.units)} == {wide}


def test_facts_are_on_the_device_of_the_total() -> None:
    value = torch.ones((), device="meta")
    step = _facts.local_step(["a", "b"], value, {"a": torch.ones(())}, {"a": 0.5}, {"a": torch.ones(3)})
    assert {field.device.type for field in step} == {"meta"}


# ---------------------------------------------------------------------------------------------------------------- Gram


def products(columns: list[list[list[complex] | None]]) -> list:
    """The inner products of the rows of each column, by hand; of complex rows the real part."""
    zero = [0.0] * max(len(row) for column in columns for row in column if row is not None)
    filled = [[row if row is not None else zero for row in column] for column in columns]
    return [
        [[sum((complex(a) * complex(b).conjugate()).real for a, b in zip(x, y, strict=False)) for y in c] for x in c]
        for c in filled
    ]


COLUMNS = [
    [[1.0, -4.0, 2.0], None, [0.5, 3.0, 1.0]],
    [[0.0, 8.0], [-2.0, 1.0], [16.0, 0.25]],
    [None, [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]],
    [None, None, [1.0, -32.0, 5.0, 7.0]],
]
LARGEST = [4.0, 16.0, 0.0, 32.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_inner_products_pair_by_pair(dtype: torch.dtype) -> None:
    columns = [[None if row is None else torch.tensor(row, dtype=dtype) for row in column] for column in COLUMNS]
    before = [[None if row is None else row.clone() for row in column] for column in columns]
    gram, scale = _gram._dotted(columns)
    assert gram.dtype == scale.dtype == torch.promote_types(dtype, torch.float32)
    assert scale.tolist() == LARGEST
    for t, expected in enumerate(products(COLUMNS)):
        assert gram[t].tolist() == [[entry / (LARGEST[t] or 1) ** 2 for entry in line] for line in expected]
    for column, old in zip(columns, before, strict=True):
        assert all(a is None or torch.equal(a, b) for a, b in zip(column, old, strict=True))


@pytest.mark.parametrize("made", ["_dotted", "_stacked"])
def test_inner_products_of_complex_and_of_sparse_rows(made: str) -> None:
    rows = [[[1 + 2j, -4j, 0j], [0.5 - 1j, 2 + 1j, 1j]]]
    columns = [[torch.tensor(row, dtype=torch.complex128) for row in rows[0]]]
    gram, scale = getattr(_gram, made)(columns)
    assert scale.tolist() == [4.0]
    assert (gram * 16).tolist() == products(rows)
    rows = [[[0.0, 3.0, 0.0], [2.0, 1.0, 0.0]]]
    columns = [[torch.tensor(rows[0][0], dtype=torch.float64).to_sparse(), torch.tensor(rows[0][1]).double()]]
    gram, scale = getattr(_gram, made)(columns)
    torch.testing.assert_close(gram * 9, torch.tensor(products(rows), dtype=torch.float64), rtol=1e-15, atol=0)
    assert scale.tolist() == [3.0]


@pytest.mark.parametrize("value", [1e-30, 1e30])
def test_no_square_of_tiny_or_huge_rows_is_lost(value: float) -> None:
    rows = [torch.tensor([value, 0.0]), torch.tensor([-value, value])]
    for made in (_gram._dotted, _gram._stacked):
        gram, scale = made([rows])
        assert scale.tolist() == [rows[0][0].item()]
        torch.testing.assert_close(gram, torch.tensor([[[1.0, -1.0], [-1.0, 2.0]]]))


def test_large_tensors_are_measured_as_small_ones() -> None:
    """Granule 0 holds a large and a small tensor, each with a unit of its own, granule 1 a large one, 2 nothing."""
    size, generator = _gram.SMALL + 1, torch.Generator().manual_seed(0)

    def row(n: int, unit: float) -> Tensor:
        return unit * torch.randn(n, generator=generator, dtype=torch.float64)

    columns = [
        [None, row(size, 4.0), row(size, 1.0), None],
        [None, row(3, 100.0), None, row(3, 1.0)],
        [None, None, row(size + 5, 0.01), row(size + 5, 0.03)],
    ]
    gram, units = _gram.gram_matrices(columns, [0, 0, 1], 3, torch.zeros((), dtype=torch.float64))
    assert units.tolist() == [
        max(row.abs().max().item() for column in columns[:2] for row in column if row is not None),
        max(row.abs().max().item() for row in columns[2] if row is not None),
        0.0,
    ]
    expected = torch.zeros(3, 4, 4, dtype=torch.float64)
    for column, granule in zip(columns, (0, 0, 1), strict=True):
        for i, a in enumerate(column):
            for j, b in enumerate(column):
                if a is not None and b is not None:
                    expected[granule, i, j] += torch.dot(a, b)
    torch.testing.assert_close(gram * units.square()[:, None, None], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("extra", [0, 1])
def test_from_a_number_of_entries_on_a_tensor_is_read_where_it_lies(
    monkeypatch: pytest.MonkeyPatch, extra: int
) -> None:
    used = []
    for name in ("_dotted", "_stacked"):
        original = getattr(_gram, name)
        monkeypatch.setattr(
            _gram, name, lambda columns, o=original, n=name: (used.append((n, len(columns))), o(columns))[1]
        )
    columns = [[torch.ones(_gram.SMALL + extra)], [torch.ones(_gram.SMALL + extra)]]
    _gram.gram_matrices(columns, [0, 1], 2, torch.zeros(()))
    assert used == [("_dotted" if extra else "_stacked", 2)]


def test_small_tensors_are_stacked_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows of four entries: three tensors fill a block of 24."""
    monkeypatch.setattr(_gram, "_BLOCK", 24)
    sizes, original = [], _gram._stacked
    monkeypatch.setattr(_gram, "_stacked", lambda columns: (sizes.append(len(columns)), original(columns))[1])
    columns = [[torch.full((4,), 1.0 + t), torch.full((4,), -1.0)] for t in range(7)]
    gram, units = _gram.gram_matrices(columns, list(range(7)), 7, torch.zeros(()))
    assert sizes == [3, 3, 1]
    torch.testing.assert_close(gram[:, 0, 1] * units.square(), torch.tensor([-4.0 * (1 + t) for t in range(7)]))


# -------------------------------------------------------------------------------------------------------- held weights


def weighed(*weights: list[float], owner: tuple[int, ...] = (0, 2)) -> Weighed:
    made = torch.tensor(weights)
    return Weighed(owner, torch.eye(made.shape[1]).expand(len(made), -1, -1), torch.ones(len(made)), made)


def test_held_weights_fit_the_same_modalities_and_measured_branches_for_every_backwards() -> None:
    held = Held(3)
    assert (held.every, held.weighed, held.present, held.age) == (3, None, (), 0)
    assert held.valid((), set()) is None
    held.renew(weighed([1.0, 2.0], [3.0, 4.0]), (0, 2))
    assert held.age == 1
    assert held.valid((0, 2), {0, 2}) is held.valid((0, 2), {2}) is held.weighed is not None
    assert held.valid((0, 1, 2), {0}) is None
    assert held.valid((0, 2), {0, 1}) is None
    held.age = 2
    assert held.valid((0, 2), {0}) is held.weighed
    held.age = 3
    assert held.valid((0, 2), {0}) is None


def test_a_row_of_held_weights_that_is_not_finite_becomes_ones() -> None:
    held, measured = Held(2), weighed([1.0, 2.0], [torch.nan, 4.0], [5.0, torch.inf], owner=(0, 1, 2))
    held.renew(measured, (0, 1, 2))
    assert held.weighed.weights.tolist() == [[1.0, 2.0], [1.0, 1.0], [1.0, 1.0]]
    assert held.weighed.owner == (0, 1, 2)
    assert held.weighed.gram is measured.gram
    assert held.weighed.units is measured.units
    assert held.present == (0, 1, 2)


def test_the_state_of_held_weights_is_of_plain_values() -> None:
    held = Held(4)
    assert held.state() == {"weighed": None, "present": (), "age": 0}
    held.renew(weighed([1.0, 2.0]), (1,))
    state = held.state()
    assert list(state) == ["weighed", "present", "age"]
    assert list(state["weighed"]) == ["owner", "gram", "units", "weights"]
    assert (state["present"], state["age"]) == ((1,), 1)
    other = Held(4)
    other.load(state)
    assert other.weighed is not None
    assert all(a is b for a, b in zip(other.weighed, held.weighed, strict=True))
    assert (other.every, other.present, other.age) == (4, (1,), 1)


def test_a_fresh_state_loads() -> None:
    balancer = Rebalancer(Toy(2, coupled=True).branches(), ReGrad(), per="branch", every=2)
    fresh = balancer.state_dict()
    train(balancer.branches.model, balancer, list(batches(1, 2)))
    assert balancer.state_dict()["age"] == 1
    balancer.load_state_dict(fresh)
    assert balancer.state_dict() == fresh == {"weighed": None, "present": (), "age": 0}


# -------------------------------------------------------------------------------------------------- what is still right


@pytest.mark.parametrize("confidence", [0, 1, 0.0, 1.0, torch.nan, torch.inf, torch.tensor(2.0), torch.ones(4)])
def test_confidence_at_its_bounds_or_read_by_nobody_is_taken(confidence: Tensor | float) -> None:
    model = Toy(2, coupled=True)
    total, losses = model(*next(batches(1, 2)))
    loss = Rebalancer(model.branches(), ReGrad())(total, losses, confidence=dict.fromkeys(losses, confidence))
    assert torch.equal(loss, total)


@pytest.mark.parametrize("speed", [-5.0, 7, torch.tensor(-3.0)])
def test_speed_has_no_bounds(speed: Tensor | float) -> None:
    model, seen = Toy(2, coupled=True), []
    balancer = Rebalancer(model.branches(), ReGrad())
    balancer.register_step_hook(seen.append)
    total, losses = model(*next(batches(1, 2)))
    balancer(total, losses, speed=dict.fromkeys(losses, speed)).backward()
    assert seen[0].step.speed.tolist() == [float(speed)] * 2


def test_a_weight_of_zero_leaves_the_totals_gradient() -> None:
    model, found = Toy(2, coupled=True), []
    for weight in (0, 0.0, None):
        model.zero_grad()
        total, losses = model(*next(batches(1, 2)))
        loss = total if weight is None else Rebalancer(model.branches(), Sum(), weight=weight)(total, losses)
        loss.backward()
        found.append(gradients(model))
    for none, zero, expected in zip(*found, strict=True):
        torch.testing.assert_close(none, expected, rtol=1e-13, atol=1e-15)
        assert torch.equal(none, zero)


# ----------------------------------------------------------------------------------------------------- what is printed


@pytest.mark.parametrize(
    ("rule", "printed"),
    [
        (Sum(), "Sum()"),
        (ReGrad(), "ReGrad(margin=0.0)"),
        (ReGrad(margin=0.25), "ReGrad(margin=0.25)"),
        (MMPareto(), "MMPareto(gamma=1.5)"),
        (MMPareto(gamma=2), "MMPareto(gamma=2)"),
        (PCGrad(), "PCGrad()"),
        (MinNorm(), "MinNorm()"),
        (from_torchjd(torch.trace), f"from_torchjd({torch.trace})"),
    ],
    ids=lambda value: "" if isinstance(value, str) else type(value).__name__,
)
def test_rules_print_their_options(rule: Rule, printed: str) -> None:
    assert repr(rule) == printed


def test_a_rebalancer_prints_its_options() -> None:
    branches = Toy(2, coupled=True).branches()
    assert repr(Rebalancer(branches, Sum())) == "Rebalancer(Sum(), weight=1.0, per='tensor', rest='sum', sync=False)"
    other = Rebalancer(branches, Sum(), weight=0.5, per="branch", rest="total", sync=True)
    assert repr(other) == "Rebalancer(Sum(), weight=0.5, per='branch', rest='total', sync=True)"


def test_the_kernel_is_traced_whole_with_the_given_options(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, model = [], Toy(2, coupled=True)
    monkeypatch.setattr(torch, "compile", lambda function, **options: (asked.append(options), function)[1])
    balancer = Rebalancer(model.branches(), ReGrad())
    balancer.compile(mode="reduce-overhead")
    assert asked == [{"fullgraph": True, "mode": "reduce-overhead"}]
    (_, found), (_, exact) = (
        train(model, each, list(batches(1, 2)))[0] for each in (balancer, Rebalancer(model.branches(), ReGrad()))
    )
    assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))


def test_sum_weighs_the_total_alone_where_there_is_nothing_else() -> None:
    none = torch.zeros(0)
    step = Step(none, none, none, none.bool(), torch.zeros(2, dtype=torch.int64), torch.ones(2))
    assert Sum()(torch.ones(2, 1, 1), step).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_a_cosine_of_the_margin_itself_is_a_conflict(margin: float) -> None:
    """On the plane, with the fast gradient (4, 0) and a slow one of length 5."""
    for cosine in (margin, margin + 0.1):
        dot, fast, slow = (torch.tensor(x, dtype=torch.float64) for x in (20 * cosine, 16, 25))
        assert _regrad._aligned(dot, fast, slow, margin).item() is (cosine > margin)
