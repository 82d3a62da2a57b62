"""The cost benchmark compares equal work, and its meter of memory is right."""

from collections.abc import Callable

import pytest
import torch
from instruments.meters import Variant, interleaved, peak_bytes, peak_of
from instruments.report import ratio
from instruments.stopwatch import Stopwatch
from overhead_parts import procedures
from overhead_parts.chain import Chains
from overhead_parts.frozen import Frozen
from overhead_parts.problem import Problem, problem
from overhead_parts.streams import Streams
from torch import Tensor

from balancekit import Rebalancer, ReGrad
from tests.models import Toy

NAMES = ("rgb", "depth", "ir")


def streams(**options: object) -> Problem:
    torch.manual_seed(0)
    model = Streams(NAMES, width=8, depth=2, heads=2, **options).double()
    return problem(model, batch=4, tokens=5)


def frozen() -> Problem:
    torch.manual_seed(0)
    return problem(Frozen(NAMES, width=8, depth=2, heads=2, grid=2).double(), batch=4, tokens=5)


def chains() -> Problem:
    torch.manual_seed(0)
    return problem(Chains(2, width=6, depth=3).double(), batch=4, tokens=1)


def toy() -> Problem:
    """Tensors of no branch that unimodal losses reach."""
    model = Toy(3, coupled=True)
    x, y = torch.randn(3, 5, 3, dtype=torch.float64), torch.randn(5, 1, dtype=torch.float64)
    confidence = {name: 1 - 0.1 * i for i, name in enumerate(model.names)}
    return Problem(model, model.branches(), lambda: model(x, y), confidence)


PROBLEMS = {
    "late": streams,
    "coupled": lambda: streams(exchange=(0, 1)),
    "partly": lambda: streams(exchange=(1,), edges=(("rgb", "depth"),)),
    "trunk": lambda: streams(trunk=1),
    "frozen": frozen,
    "chains": chains,
    "toy": toy,
}


def gradients(made: Problem, step: Callable[[], object]) -> list[Tensor]:
    made.model.zero_grad()
    step()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in made.trained()]


def by_the_library(made: Problem) -> None:
    total, losses = made.losses()
    Rebalancer(made.branches, ReGrad(), per="tensor")(total, losses, confidence=made.confidence).backward()


@pytest.mark.parametrize("build", [procedures.released, procedures.matrix], ids=["released", "matrix"])
@pytest.mark.parametrize("case", PROBLEMS)
def test_other_procedures_give_the_gradients_of_the_library(case: str, build: Callable) -> None:
    torch.manual_seed(1)
    made = PROBLEMS[case]()
    expected = gradients(made, lambda: by_the_library(made))
    found = gradients(made, build(made))
    assert any(g.any() for g in expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_coupled_model_is_no_matter_of_loss_weights() -> None:
    made = PROBLEMS["coupled"]()
    surgery = gradients(made, lambda: by_the_library(made))
    plain = gradients(made, procedures.plain(made))
    assert not all(torch.allclose(a, b) for a, b in zip(surgery, plain, strict=True))


@pytest.mark.parametrize("case", PROBLEMS)
def test_the_floor_runs_every_pass_and_leaves_the_totals_gradient(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = PROBLEMS[case]()
    expected = gradients(made, lambda: made.losses()[0].backward())
    seen: list[float] = []
    grad = torch.autograd.grad

    def watched(loss: Tensor, *args: object, **kwargs: object) -> object:
        seen.append(loss.item())
        return grad(loss, *args, **kwargs)

    monkeypatch.setattr(torch.autograd, "grad", watched)
    found = gradients(made, procedures.bare_passes(made))
    assert seen == [loss.item() for loss in made.losses()[1].values()]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_plain_is_the_backward_of_the_sum() -> None:
    made = PROBLEMS["coupled"]()
    rows = [gradients(made, loss.backward) for loss in [made.losses()[0]]]
    rows += [gradients(made, made.losses()[1][name].backward) for name in NAMES]
    for found, *parts in zip(gradients(made, procedures.plain(made)), *rows, strict=True):
        torch.testing.assert_close(found, sum(parts))


def test_peak_memory_of_a_known_pattern() -> None:
    kept = torch.empty(1 << 20)  # what existed before does not count

    def step() -> None:
        a = torch.empty(1 << 18)  # 1 MiB in float32
        b = torch.empty(1 << 19)  # 2 MiB: 3 in all
        del a
        c = torch.empty(1 << 17)  # 0.5 MiB: 2.5
        del b
        d = torch.empty(1 << 18)  # 1.5
        del c, d

    assert peak_bytes(step) == 3 << 20
    assert peak_bytes(lambda: torch.empty(1 << 18).add_(1).sum()) - (1 << 20) in range(1 << 12)
    assert kept.numel() == 1 << 20


def test_peak_memory_counts_gradients_but_not_parameters() -> None:
    linear = torch.nn.Linear(512, 512, bias=False)
    x = torch.ones(1, 512)
    peak = peak_of(Variant(linear, lambda: linear(x).sum().backward()))
    assert 0 <= peak - 512 * 512 * 4 < 32 * 512 * 4
    assert linear.weight.grad is None


def test_rounds_are_interleaved_in_rotating_order() -> None:
    model, order = torch.nn.Linear(1, 1), []
    variants = {name: Variant(model, lambda name=name: order.append(name)) for name in "abc"}
    variants["c"] = variants["c"]._replace(repeat=2)
    times = interleaved(variants, 3, warm=0)
    assert "".join(order) == "abcc" + "bcca" + "ccab"
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3, "c": 3}


def test_ratios_are_taken_round_by_round() -> None:
    assert ratio([2.0, 6.0, 4.0], [1.0, 2.0, 4.0]) == "2.00 (1.50 to 2.50)"


def test_a_stopwatch_restores_what_it_watched() -> None:
    class Place:
        def work(self) -> int:
            return 7

    original, watch = Place.work, Stopwatch()
    with watch.watching("work", "work", Place):
        assert Place().work() == 7
        assert Place.work is not original
    assert Place.work is original
    assert set(watch.seconds) == {"work"}
