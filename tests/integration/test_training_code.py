"""What training code does around a Rebalancer: layers with state, hooks, checkpoints, other parameters, two losses."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from balancekit import Branches, PrototypeBank, Rebalancer, ReGrad, Sum, prototypical_cross_entropy
from tests.integration import literal
from tests.models import Toy, batches, gradients

PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])


def toy(coupled: bool = True, modalities: int = 2, **options: object) -> tuple[Toy, Rebalancer]:
    model = Toy(modalities, coupled=coupled)
    return model, Rebalancer(model.branches(), ReGrad(), **{"weight": 0.3, **options})


def batch(modalities: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    ((pair),) = batches(1, modalities, seed=seed)
    return pair


# ------------------------------------------------------------------------------------ layers with state or noise


class Noisy(nn.Module):
    """Two encoders with BatchNorm and dropout; counts its forwards."""

    def __init__(self, coupled: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.coupled, self.runs = coupled, 0
        self.a, self.b = (
            nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 4)) for _ in range(2)
        )
        self.head = nn.Linear(8, 1)
        self.double()

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.runs += 1
        a, b = self.a(x[0]), self.b(x[1])
        return (a + a * b.tanh(), b - a.tanh()) if self.coupled else (a, b)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        a, b = self.features(x)
        losses = {name: (f.mean(-1, keepdim=True) - y).square().mean() for name, f in (("a", a), ("b", b))}
        return (self.head(torch.cat([a, b], -1)) - y).square().mean(), losses

    def balancer(self) -> Rebalancer:
        return Rebalancer(Branches(self, {"a": "a", "b": "b"}), ReGrad(), weight=0.3)


@PATHS
def test_batchnorm_and_dropout(coupled: bool) -> None:
    """One graph, one draw, and statistics of one forward, however many passes go back."""
    model = Noisy(coupled)
    balancer = model.balancer()
    for seed in range(2):
        assert literal.step(balancer, *model(*batch(seed=seed))).path == ("general" if coupled else "collapse")
    assert model.runs == int(model.a[1].num_batches_tracked) == 2


@PATHS
def test_a_checkpoint_with_dropout_runs_once_more_a_pass(coupled: bool) -> None:
    reference, model = Noisy(coupled), Noisy(coupled)
    torch.manual_seed(1)
    literal.step(reference.balancer(), *reference(*batch()))
    torch.manual_seed(1)
    losses = checkpoint(model, *batch(), use_reentrant=False)
    literal.join(model.balancer(), *losses).backward()
    literal.close(model, reference, atol=1e-12)
    passes = 3 if coupled else 1  # the total's, and one a modality
    assert 2 <= model.runs <= 1 + passes


@pytest.mark.parametrize("place", ["first", "after a stem", "after its branch"])
def test_a_reentrant_checkpoint_on_the_way_of_a_loss_is_refused(place: str) -> None:
    model = nn.ModuleDict({name: nn.Linear(3, 3) for name in ("stem", "a", "b")})
    balancer = Rebalancer(Branches(model, {"a": "a", "b": "b"}), ReGrad())
    x = torch.ones(2, 3)
    if place == "first":
        a = checkpoint(model["a"], x.requires_grad_(), use_reentrant=True)
    elif place == "after a stem":
        a = checkpoint(model["a"], model["stem"](x), use_reentrant=True)
    else:
        a = checkpoint(torch.tanh, model["a"](x), use_reentrant=True)
    b = model["b"](a)
    with pytest.raises(RuntimeError, match=r"losses.*reentrant checkpoint.*use_reentrant=False"):
        balancer(b.sum(), {"a": a.square().mean(), "b": (a + b).square().mean()})


def test_a_reentrant_checkpoint_on_the_way_of_the_total_alone() -> None:
    """No separate pass goes there."""
    found = []
    for reentrant in (True, False):
        model, balancer = toy()
        x, y = batch()
        features = torch.cat(list(model.features(x).values()), -1)
        total = (checkpoint(model.joint, features, use_reentrant=reentrant) - y).square().mean()
        literal.join(balancer, total, model(x, y)[1]).backward()
        found.append(gradients(model))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------ several losses and calls


@PATHS
def test_the_same_rebalancer_twice_in_one_backward(coupled: bool) -> None:
    model, balancer = toy(coupled)
    calls = [model(*batch(seed=seed)) for seed in range(2)]
    first, second = (literal.by_hand(balancer, *call) for call in calls)
    seen = []
    balancer.register_step_hook(seen.append)
    (literal.join(balancer, *calls[0]) + 2 * literal.join(balancer, *calls[1])).backward()
    literal.check({tensor: gradient + 2 * second[tensor] for tensor, gradient in first.items()})
    assert len(seen) == 2


@PATHS
def test_two_calls_whose_backwards_come_in_either_order(coupled: bool) -> None:
    for order in ((0, 1), (1, 0)):
        model, balancer = toy(coupled)
        calls = [model(*batch(seed=seed)) for seed in range(2)]
        first, second = (literal.by_hand(balancer, *call) for call in calls)
        joined = [literal.join(balancer, *call) for call in calls]
        for index in order:
            joined[index].backward()
        literal.check({tensor: gradient + second[tensor] for tensor, gradient in first.items()})


class TotalToo(Sum):
    uses_total = True


@PATHS
@pytest.mark.parametrize("outer", ["ReGrad", "Sum", "TotalToo"])
@pytest.mark.parametrize("shared", [True, False])
def test_two_chained(coupled: bool, outer: str, shared: bool) -> None:
    """The loss of one is the total of the other, with other unimodal losses on the same features or on others."""
    model, inner = toy(coupled)
    rule = {"ReGrad": ReGrad(), "Sum": Sum(), "TotalToo": TotalToo()}[outer]
    second = Rebalancer(inner.branches, rule, weight=0.7)
    total, losses = model(*batch())
    more = {name: loss.sqrt() for name, loss in losses.items()} if shared else model(*batch(seed=1))[1]
    expected = literal.by_hand(inner, total, losses)
    if outer == "ReGrad":
        added = literal.by_hand(second, None, more)
    else:
        weighted = 0.7 * sum(more.values())
        parameters = list(expected)
        found = torch.autograd.grad(weighted, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        added = dict(zip(parameters, found, strict=True))
    literal.join(second, literal.join(inner, total, losses), more).backward()
    literal.check({tensor: gradient + added[tensor] for tensor, gradient in expected.items()})


@PATHS
def test_another_backward_before_it_frees_what_they_share(coupled: bool) -> None:
    """The standard error, as between any two losses; and the standard remedy."""
    model, balancer = toy(coupled)
    total, losses = model(*batch())
    loss = literal.join(balancer, total, losses)
    other = losses["m0"].sqrt()
    other.backward(retain_graph=True)
    model.zero_grad()
    expected = literal.by_hand(balancer, total, losses)
    other.backward()
    model.zero_grad()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()
    total, losses = model(*batch())
    loss = literal.join(balancer, total, losses)
    losses["m0"].sqrt().backward(retain_graph=True)
    model.zero_grad()
    loss.backward()
    literal.check(expected)


@PATHS
def test_what_diagnostics_read_is_there_after_the_backward(coupled: bool) -> None:
    model, balancer = toy(coupled)
    seen = []
    balancer.register_step_hook(seen.append)
    loss = literal.join(balancer, *model(*batch()))
    assert seen == []
    loss.backward()
    assert len(seen) == 1
    assert all(not tensor.requires_grad for tensor in (*seen[0].step, seen[0].gram, seen[0].weights))


@PATHS
def test_a_bank_may_be_updated_between_call_and_backward(coupled: bool) -> None:
    model, balancer = toy(coupled)
    banks = {name: PrototypeBank(2, 4, decay=0.5).double() for name in model.names}
    x, y = batch()
    labels = torch.tensor([0, 1, 0, 1, 1])

    def losses_of(features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: prototypical_cross_entropy(features[name], labels, bank.prototypes, seen=bank.seen)
            for name, bank in banks.items()
        }

    for round in range(2):
        features = model.features(x + round)
        for name, bank in banks.items():
            if round == 0:
                bank.update(features[name], labels)
        total, losses = (model.joint(torch.cat(list(features.values()), -1)) - y).square().mean(), losses_of(features)
        model.zero_grad()
        expected = literal.by_hand(balancer, total, losses)
        loss = literal.join(balancer, total, losses)
        for name, bank in banks.items():
            bank.update(features[name].detach(), labels)
        loss.backward()
        literal.check(expected)


# ------------------------------------------------------------------------------------ hooks


@PATHS
def test_tensor_hooks_fire_once_a_pass_and_accumulation_hooks_once(coupled: bool) -> None:
    model, balancer = toy(coupled)
    parameter = model.encoders["m0"][0].weight  # with two coupled modalities every pass comes here
    calls: list[str] = []
    parameter.register_hook(lambda gradient: calls.append("tensor"))
    parameter.register_post_accumulate_grad_hook(lambda tensor: calls.append("accumulated"))
    total, losses = model(*batch())
    literal.join(balancer, total, losses).backward()
    assert calls.count("tensor") == (1 + len(losses) if coupled else 1)
    assert calls.count("accumulated") == 1
    assert calls[-1] == "accumulated"


@PATHS
def test_an_optimizer_in_the_backward(coupled: bool) -> None:
    """A step in an accumulation hook changes a tensor only when no pass needs it any more."""
    model, balancer = toy(coupled)
    reference, other = toy(coupled)
    for parameter in model.parameters():
        single = torch.optim.SGD([parameter], lr=0.1)

        def update(tensor: Tensor, optimizer: torch.optim.Optimizer = single) -> None:
            optimizer.step()
            optimizer.zero_grad()

        parameter.register_post_accumulate_grad_hook(update)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1)
    for seed in range(3):
        literal.join(balancer, *model(*batch(seed=seed))).backward()
        literal.step(other, *reference(*batch(seed=seed)))
        optimizer.step()
    for a, b in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@PATHS
def test_module_hooks(coupled: bool) -> None:
    """Full backward hooks are nodes of the graph; they fire at least once and change nothing."""
    model, balancer = toy(coupled)
    fired = []
    for encoder in model.encoders.values():
        encoder.register_full_backward_hook(lambda *_: fired.append(None))
    x, y = batch()
    literal.step(balancer, *model(x.requires_grad_(), y))
    assert fired


# ------------------------------------------------------------------------------------ parameters that change later


@PATHS
def test_parameters_that_change_after_the_rebalancer_was_made(coupled: bool) -> None:
    model, balancer = toy(coupled)
    literal.step(balancer, *model(*batch()))
    donor = Toy(2, coupled=coupled, seed=5).state_dict()
    model.load_state_dict(donor, assign=True)
    literal.step(balancer, *model(*batch()))
    assert model.encoders["m0"][0].weight.grad is not None
    weight_norm(model.encoders["m0"][0])
    literal.step(balancer, *model(*batch()))
    parts = model.encoders["m0"][0].parametrizations.weight
    assert parts.original0.grad is not None
    assert parts.original1.grad is not None
    model.encoders["m1"][0].weight.requires_grad_(False)
    literal.step(balancer, *model(*batch()))
    assert model.encoders["m1"][0].weight.grad is None
    model.encoders["m1"][0].weight.requires_grad_(True)
    model.encoders["m1"].append(nn.Linear(4, 4, dtype=torch.float64))
    literal.step(balancer, *model(*batch()))
    assert model.encoders["m1"][0].weight.grad is not None
    assert model.encoders["m1"][3].weight.grad is not None


@PATHS
def test_tied_later_is_an_error_that_names_tensor_and_branches(coupled: bool) -> None:
    model, balancer = toy(coupled)
    model.encoders["m1"][0].weight = model.encoders["m0"][0].weight
    with pytest.raises(ValueError, match=r"'encoders\.m0\.0\.weight' in both 'm0' and 'm1'"):
        balancer(*model(*batch()))


@pytest.mark.parametrize("rule", [ReGrad(), TotalToo()], ids=["ReGrad", "TotalToo"])
@pytest.mark.parametrize("per", ["tensor", "branch", "model"])
def test_swapped_keys_and_a_frozen_branch_are_errors(rule: object, per: str) -> None:
    model = Toy(2, coupled=False)
    balancer = Rebalancer(model.branches(), rule, per=per)
    total, losses = model(*batch())
    with pytest.raises(ValueError, match=r"losses\['m0'\].*found only tensors of \['m1'\].*swapped"):
        balancer(total, {"m0": losses["m1"], "m1": losses["m0"]})
    model.encoders["m1"].requires_grad_(False)
    total, losses = model(*batch())
    with pytest.raises(ValueError, match=r"losses\['m1'\].*found none of any branch.*frozen"):
        balancer(total, losses)
    balancer(total, {"m0": losses["m0"]}).backward()  # leave it out, and the rest goes on
    assert model.encoders["m0"][0].weight.grad is not None


# ------------------------------------------------------------------------------------ the walk


def test_a_function_that_only_seems_to_reach_costs_a_pass_and_stays_exact() -> None:
    class Fenced(torch.autograd.Function):
        """Takes a tensor along and gives it no gradient."""

        @staticmethod
        def forward(ctx: object, feature: Tensor, other: Tensor) -> Tensor:
            return feature.clone()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
            return gradient, None

    model, balancer = toy(coupled=False)
    x, y = batch()
    total, losses = model(x, y)
    stranger = model.encoders["m1"][0].weight
    losses["m0"] = (Fenced.apply(model.features(x)["m0"], stranger).sum(-1, keepdim=True) - y).square().mean()
    assert literal.step(balancer, total, losses).path != "collapse"


def test_a_branch_hidden_in_a_function_that_writes_grad_is_named() -> None:
    """No walk sees such tensors, and no autograd.grad: reversible nets, hand-written recomputation."""

    class Reversible(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor, module: nn.Module) -> Tensor:
            ctx.module = module
            ctx.save_for_backward(x)
            with torch.no_grad():
                return module(x)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                torch.autograd.backward(ctx.module(x), gradient)
            return x.grad, None

    model, balancer = toy()
    x, y = batch()
    hidden = Reversible.apply(x[0].requires_grad_(), model.encoders["m0"])
    with pytest.raises(ValueError, match=r"losses\['m0'\].*found none of any branch"):
        balancer(hidden.sum(), {"m0": (hidden.sum(-1, keepdim=True) - y).square().mean()})


def test_a_graph_of_many_paths_and_a_graph_of_great_depth() -> None:
    """2^60 paths, and 20,000 nodes in a row: each node is looked at once, and nothing recurses."""
    model, balancer = toy()
    total, losses = model(*batch())
    for _ in range(60):
        total, losses["m0"] = (total + total) / 2, (losses["m0"] + losses["m0"]) / 2
    for _ in range(20_000):
        losses["m1"] = losses["m1"].view(())
    literal.step(balancer, total, losses)
