"""The adapters' benchmark compares equal work: the released form, written out, is ours under the gate "query"."""

import pytest
import torch
from adapters_parts import adapter, attention, released, step
from adapters_parts.measure import backward, difference, forward, measured
from instruments.report import Report
from torch import Tensor, nn

from balancekit.adapters import GatedCrossAttention, gated_attention
from balancekit.uncertainty import dropout_confidence
from tests.oracles import adapters as oracle

TINY = {"width": 16, "depth": 2, "heads": 2, "grid": 2}
CASES = (
    attention.Case(9, 8, 8, batch=2),
    attention.Case(7, 4, 1, batch=2),
    attention.Case(6, 12, 3, batch=2),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_released_attention_is_equation_4_and_ours(case: attention.Case) -> None:
    made = attention.problem(case)
    exact = attention.problem(case, dtype=torch.float64)
    expected = oracle.eq4(*(x.detach().double() for x in made.qkv), made.confidence.double(), "query")
    assert difference([made.call(released.attention).detach().double()], [expected]) < 1e-6
    assert attention.gap(made) < 1e-6
    assert attention.gap(exact) < 1e-12


def test_a_learned_key_gate_is_the_key_gate() -> None:
    made = attention.problem(CASES[2])
    forms = attention.FORMS
    found, expected = (attention.results(made, forms[gate]) for gate in ("key, learned", "key"))
    assert difference(found, expected) < 1e-6
    confidence = made.confidence.requires_grad_()
    assert forms["key"](*made.qkv, confidence).requires_grad


def test_what_is_measured_is_kept_and_the_peak_of_the_released_attention_is_as_foreseen() -> None:
    case, report = attention.Case(128, 8, 8, batch=2), Report("test")
    made = attention.problem(case)
    variants = {
        "forward": forward(made.qkv, lambda: made.call(released.attention)),
        "backward": backward(made.qkv, lambda: made.call(released.attention), made.upstream),
    }
    found = measured(report, "attention", str(case), variants, rounds=2)
    assert case.released_bytes() <= found.peak["backward"] < 1.1 * case.released_bytes()
    assert 2 / 3 * case.released_bytes() <= found.peak["forward"] < case.released_bytes()
    assert all(len(values) == 2 for values in found.seconds.values())
    assert len(report.rows) == 2 * (2 + 1)
    assert all(x.grad is None for x in made.qkv)


def test_the_released_adapter_is_ours_under_the_query_gate() -> None:
    given = adapter.inputs(12, grid=3, batch=2, dtype=torch.float64)
    made = adapter.adapters(12, grid=3, dtype=torch.float64)
    works = {name: adapter.Work(each, given) for name, each in made.items()}
    expected = adapter.results(works["released"])
    assert difference(adapter.results(works["query"]), expected) < 1e-12
    for gate in ("key", "output", "key+output"):  # other functions: their cost alone is compared
        assert difference(adapter.results(works[gate]), expected) > 1e-3


def test_every_gate_of_the_adapter_gets_the_confidence_that_it_reads() -> None:
    given = adapter.inputs(12, grid=3, batch=2)
    for made in adapter.adapters(12, grid=3).values():
        work = adapter.Work(made, given).eval()
        before = work()
        for trust in work.trust.values():
            trust.mul_(0.5)
        assert not torch.equal(before, work())


def test_the_released_confidence_scatters_around_ours() -> None:
    x = torch.randn(4, 20, 64, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        runs = torch.stack([released.dropout_confidence(x) for _ in range(40)])
    assert (runs.mean(0) - dropout_confidence(x)).abs().max() < 5 * runs.std(0).max() / 40**0.5


def constant(x: Tensor) -> Tensor:
    """A confidence without chance in it."""
    return torch.exp(-x.detach().abs()).mean(-1)


def test_a_vit_with_released_adapters_is_one_with_ours() -> None:
    ours = step.with_ours(TINY, confidence=constant).double().eval()
    other = step.with_released(TINY, confidence=constant).double().eval()
    for mine, theirs in zip(ours.blocks, other.blocks, strict=True):
        for made in mine.mlp.side.adapters.values():
            nn.init.normal_(made.up.weight)
        theirs.hub.load_state_dict(mine.mlp.side.state_dict())
    images = torch.randn(3 * 2, 3, 32, 32).double()
    found, expected = ours(images), other(images)
    assert difference([found.detach()], [expected.detach()]) < 1e-10
    found.sum().backward()
    expected.sum().backward()
    mine, theirs = ({n: p.grad for n, p in m.named_parameters() if p.grad is not None} for m in (ours, other))
    assert len(mine) == len(theirs) > 2 * 2 * 4
    translated = {name.replace(".mlp.side.", ".hub."): gradient for name, gradient in mine.items()}
    for name, gradient in theirs.items():
        assert difference([translated[name]], [gradient]) < 1e-10, name


def test_all_that_the_vits_train_is_what_they_say() -> None:
    made = step.models(TINY, compiled=False)
    trained = {k: [n for n, p in model.named_parameters() if p.requires_grad] for k, model in made.items()}
    assert trained[step.HEAD] == ["head.weight", "head.bias"]
    assert trained[step.FIRST] == ["start", "head.weight", "head.bias"]
    count = 2 * 4 * len(list(GatedCrossAttention(16, conv="cdc", grid=2).parameters()))
    assert all(len(trained[name]) == count + 2 for name in made if "floor" not in name)
    images = torch.randn(3, 3, 32, 32)
    outputs = {name: model.eval()(images) for name, model in made.items()}
    assert all(torch.equal(outputs[name], outputs[step.HEAD]) for name in made)


def test_the_key_gate_is_no_released_form() -> None:
    made = attention.problem(CASES[0])
    key = gated_attention(*made.qkv, made.confidence, "key").detach()
    assert difference([key], [made.call(released.attention).detach()]) > 1e-3
