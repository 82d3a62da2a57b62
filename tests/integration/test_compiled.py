"""Compiled models under a Rebalancer: what keeps the collapse, what takes the general path, what is named."""

import uuid
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from balancekit import MultiBranch, Rebalancer, ReGrad
from tests.integration import literal
from tests.models import Toy, batches

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute"),  # Dynamo hides it, which fails where warnings are errors
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # torch's, of its own internals
    pytest.mark.usefixtures("_fresh_dynamo"),
]
PATHS = pytest.mark.parametrize("coupled", [True, False], ids=["general", "collapse"])


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def toy(coupled: bool, **options: object) -> tuple[Toy, Rebalancer]:
    model = Toy(2, coupled=coupled)
    return model, Rebalancer(model.branches(), ReGrad(), **{"weight": 0.3, **options})


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    ((pair),) = batches(1, 2, seed=seed)
    return pair


@PATHS
@pytest.mark.parametrize("way", ["module.compile", "torch.compile"])
def test_branches_compiled_one_by_one_keep_the_collapse(coupled: bool, way: str) -> None:
    model, balancer = toy(coupled)
    for name, encoder in model.encoders.items():
        if way == "module.compile":
            encoder.compile(backend="aot_eager")
        else:
            model.encoders[name] = torch.compile(encoder, backend="aot_eager")
    for seed in range(2):
        surgery = literal.step(balancer, *model(*batch(seed)))
        assert (surgery.path == "collapse") is not coupled


@PATHS
def test_a_wholly_compiled_model_takes_separate_passes_and_stays_exact(coupled: bool) -> None:
    """One node reaches all its inputs; late fusion is then no longer seen, which costs time only."""
    model, balancer = toy(coupled)
    compiled = torch.compile(model, backend="aot_eager")
    for seed in range(2):
        assert literal.step(balancer, *compiled(*batch(seed))).path != "collapse"


def test_independent_unlocks_the_collapse_of_a_wholly_compiled_model() -> None:
    model, balancer = toy(False, independent=True)
    compiled = torch.compile(model, backend="aot_eager")
    for seed in range(2):
        assert literal.step(balancer, *compiled(*batch(seed))).path == "collapse"


@pytest.mark.parametrize("whole", [True, False])
def test_donated_buffers_are_an_error_with_a_remedy_that_works(whole: bool) -> None:
    """The flag alone is not enough: the compiler's cache on disk does not know it, and would hand out the old code."""
    model, balancer = toy(True)
    twin, reference = toy(True)
    literal.step(reference, *twin(*batch()))

    def run() -> None:
        """Ordinary backward first, then one with surgery; nothing comes from the cache on disk."""
        torch._dynamo.reset()
        with torch.compiler.config.patch(cache_key_tag=uuid.uuid4().hex):
            compiled = torch.compile(model) if whole else model
            if not whole:
                for encoder in model.encoders.values():
                    encoder.compile()
            total, losses = compiled(*batch())
            (total + sum(losses.values())).backward()
            model.zero_grad()
            literal.join(balancer, *compiled(*batch())).backward()

    with pytest.raises(RuntimeError, match=r"compiled.*torch\._functorch\.config\.donated_buffer = False") as caught:
        run()
    assert "donated buffers" in str(caught.value.__cause__)
    with torch._functorch.config.patch(donated_buffer=False):
        run()
    literal.close(model, twin, atol=1e-10)
    assert "import torch._functorch.config" in str(caught.value)  # the package does not import it by itself
    assert "cache" in str(caught.value)


def test_donated_buffers_do_not_matter_to_the_collapse() -> None:
    model, balancer = toy(False)
    twin, reference = toy(False)
    for encoder in model.encoders.values():
        encoder.compile()
    total, losses = model(*batch())
    (total + sum(losses.values())).backward()
    model.zero_grad()
    literal.join(balancer, *model(*batch())).backward()
    literal.step(reference, *twin(*batch()))
    literal.close(model, twin, atol=1e-10)


@PATHS
def test_a_step_compiles_with_a_break_and_not_as_one_graph(coupled: bool) -> None:
    model, balancer = toy(coupled)
    twin, reference = toy(coupled)

    def step(x: Tensor, y: Tensor) -> Tensor:
        return literal.join(balancer, *model(x, y))

    torch.compile(step, backend="eager")(*batch()).backward()
    literal.step(reference, *twin(*batch()))
    literal.close(model, twin, atol=1e-10)
    torch._dynamo.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(step, backend="eager", fullgraph=True)(*batch())


def compiled_autograd_step(balancer: Rebalancer, total: Tensor, losses: dict[str, Tensor]) -> None:
    loss = literal.join(balancer, total, losses)
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        loss.backward()


def test_compiled_autograd_runs_the_collapse() -> None:
    model, balancer = toy(False)
    total, losses = model(*batch())
    expected = literal.by_hand(balancer, total, losses)
    compiled_autograd_step(balancer, total, losses)
    literal.check(expected)


def test_compiled_autograd_is_named_where_there_are_passes() -> None:
    model, balancer = toy(True)
    with pytest.raises(RuntimeError, match="compiled autograd"):
        compiled_autograd_step(balancer, *model(*batch()))
    assert all(parameter.grad is None for parameter in model.parameters())


class Fused(nn.Module):
    """The joint prediction of a Toy."""

    def __init__(self, toy: Toy) -> None:
        super().__init__()
        self.toy = toy

    def forward(self, x: Tensor) -> Tensor:
        return self.toy.joint(torch.cat(list(self.toy.features(x).values()), -1))


@pytest.mark.parametrize("order", ["hooks, compile", "compile, hooks", "one by one", "fullgraph", "wrapper"])
def test_captured_features_of_compiled_models(order: str) -> None:
    """In each order of hooks and compilation that gives features, their losses give the plain model's gradients."""
    toys = [Toy(2, coupled=False) for _ in range(2)]
    x, y = batch()
    for index, toy in enumerate(toys):
        toy.heads.requires_grad_(False)
        net = Fused(toy)
        run: nn.Module = net
        groups = {name: f"toy.encoders.{name}" for name in toy.names}
        if index == 1 and order == "compile, hooks":
            run = torch.compile(net, backend="aot_eager")
        if index == 1 and order == "one by one":
            for encoder in toy.encoders.values():
                encoder.compile(backend="aot_eager")
        wrapped = MultiBranch(net, groups)
        if index == 1 and order in ("hooks, compile", "fullgraph"):
            run = torch.compile(net, backend="aot_eager", fullgraph=order == "fullgraph")
        balancer = Rebalancer(wrapped.branches, ReGrad(), weight=0.3)
        if index == 1 and order == "wrapper":
            output, features = torch.compile(wrapped, backend="aot_eager", fullgraph=True)(x)
        else:
            with wrapped.branches.capture() as features:
                output = run(x)
        losses = {name: (feature.sum(-1, keepdim=True) - y).square().mean() for name, feature in features.items()}
        surgery = literal.step(balancer, (output - y).square().mean(), losses)
        if index == 0 or order == "one by one":
            assert surgery.path == "collapse"
    literal.close(toys[1], toys[0], atol=1e-10)
