import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import balancekit
from balancekit import fused

PROBS = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [1.0, 0.0]]])
X, LABELS, PROTOTYPES = (
    torch.randn(6, 4, generator=torch.Generator().manual_seed(0)),
    torch.arange(6) % 3,
    torch.eye(3, 4),
)
CALLS: dict[str, tuple[Any, ...]] = {
    "dropout_confidence": (X,),
    "dropout_std": (X,),
    "expected_entropy": (PROBS,),
    "linear_dropout_moments": (X, PROTOTYPES),
    "mutual_information": (PROBS,),
    "predictive_entropy": (PROBS,),
    "prototype_entropy": (X, PROTOTYPES),
    "prototype_logits": (X, PROTOTYPES),
    "prototypical_cross_entropy": (X, LABELS, PROTOTYPES),
}


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Functions that were not compiled before, with a backend that costs nothing unless another is named."""
    monkeypatch.setattr(fused, "_works", True)
    torch._dynamo.reset()

    def make(function: Callable[..., Any], backend: Any = "aot_eager") -> Callable[..., Any]:
        monkeypatch.setattr(fused, "_backend", backend)
        return fused._compiled(function)

    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # torch's compiler warns of its own
            warnings.simplefilter("ignore", category)
        yield make


def test_each_is_documented_as_the_plain_function() -> None:
    assert sorted(CALLS) == fused.__all__
    for name in fused.__all__:
        ours, plain = getattr(fused, name), getattr(balancekit, name)
        assert ours is not plain
        assert inspect.signature(ours) == inspect.signature(plain)
        assert (ours.__doc__, ours.__name__) == (plain.__doc__, plain.__name__)


def test_the_import_loads_no_compiler() -> None:
    code = "import sys, balancekit.fused; print(*({'torch._dynamo', 'torch._inductor'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.compiles
@pytest.mark.parametrize("name", CALLS)
def test_each_equals_the_plain_function(name: str, anew: Callable[..., Any]) -> None:
    plain = getattr(balancekit, name)
    torch.testing.assert_close(anew(plain)(*CALLS[name]), plain(*CALLS[name]))


@pytest.mark.compiles
def test_the_real_compiler_gives_the_same_confidence_and_draws_by_the_same_law(anew: Callable[..., Any]) -> None:
    """The draw itself is torch's affair: from 2.14 on its compiler has a stream of its own for `uniform_` too."""

    def both(x: Tensor) -> tuple[Tensor, ...]:
        return balancekit.dropout_confidence(x), balancekit.dropout_std(x, samples=20)

    x, n = torch.ones(200, 100), 20_000
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        (confidence, drawn), (expected, eager) = anew(both, "inductor")(x), both(x)
    torch.testing.assert_close(confidence, expected)
    values, at = torch.cat([drawn, eager]).flatten().unique(return_inverse=True)
    ours, theirs = (at.view(2, -1)[i].bincount(minlength=len(values)).cumsum(0) / n for i in range(2))
    assert (ours - theirs).abs().max() < 1.95 * (2 / n) ** 0.5  # Kolmogorov and Smirnov, one in a thousand


@pytest.mark.compiles
def test_options_may_vary(anew: Callable[..., Any]) -> None:
    confidence = anew(balancekit.dropout_confidence)
    for options in (
        {},
        {"p": 0.1},
        {"p": 0.2},  # from the second value on a compiler takes numbers for symbols
        {"p": 0.4, "samples": 5},
        {"samples": 7},
        {"rate": 1.0},
        {"p": 0, "rate": 2},
        {"p": 0.15, "method": "limit"},
    ):
        torch.testing.assert_close(confidence(X, **options), balancekit.dropout_confidence(X, **options))


@pytest.mark.compiles
def test_gradients_are_those_of_the_plain_function(anew: Callable[..., Any]) -> None:
    gradients = []
    for function in (anew(balancekit.dropout_confidence), balancekit.dropout_confidence):
        x = X.clone().requires_grad_()
        function(x, detach=False).sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.compiles
def test_inside_a_compiled_model_they_are_a_part_of_its_graph(anew: Callable[..., Any]) -> None:
    graphs = []

    def count(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model = torch.compile(lambda x: 2 * fused.dropout_confidence(x.sin()), fullgraph=True, backend=count)
    torch.testing.assert_close(model(X), 2 * balancekit.dropout_confidence(X.sin()))
    assert len(graphs) == 1


@pytest.mark.compiles
def test_a_generator_takes_the_plain_way(anew: Callable[..., Any]) -> None:
    def refuse(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        raise AssertionError

    std, drawn = anew(balancekit.dropout_std, refuse), torch.Generator().manual_seed(3)
    expected = balancekit.dropout_std(X, samples=5, generator=torch.Generator().manual_seed(3))
    assert torch.equal(std(X, samples=5, generator=drawn), expected)


@pytest.mark.compiles
def test_a_wrong_argument_says_so_itself(anew: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"p: expected a number in \[0.0, 1.0\), found 2") as caught:
        anew(balancekit.dropout_std)(X, 2)
    assert caught.value.__context__ is None


@pytest.mark.compiles
def test_what_no_graph_can_hold_is_an_error(anew: Callable[..., Any]) -> None:
    def broken(x: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return x

    with pytest.raises(torch._dynamo.exc.Unsupported):
        anew(broken)(X)


@pytest.mark.compiles
def test_without_a_compiler_there_is_one_warning(anew: Callable[..., Any]) -> None:
    tries = []

    def fail(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        tries.append(graph)
        raise OSError("no g++\nand a second line")

    std, confidence = anew(balancekit.dropout_std, fail), anew(balancekit.dropout_confidence, fail)
    with pytest.warns(RuntimeWarning, match=r"goes on without a compiler: no g\+\+$") as caught:
        assert torch.equal(std(X), balancekit.dropout_std(X))
    assert [record.filename for record in caught] == [__file__]
    assert torch.equal(std(X), balancekit.dropout_std(X))
    assert torch.equal(confidence(X), balancekit.dropout_confidence(X))
    assert len(tries) == 1


def test_more_forms_than_are_kept_go_on_uncompiled(anew: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "LIMIT", 2)
    confidence = anew(balancekit.dropout_confidence)
    for p in (0.1, 0.2):
        confidence(X, p)
    with pytest.warns(RuntimeWarning, match=r"fused\.dropout_confidence goes on uncompiled: 2 forms"):
        found = confidence(X, 0.3)
    assert torch.equal(found, balancekit.dropout_confidence(X, 0.3))
    torch.testing.assert_close(
        confidence(X, 0.1), balancekit.dropout_confidence(X, 0.1)
    )  # those that are stay compiled
