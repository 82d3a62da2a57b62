"""Law 6 for ConvAdapter, CDCAdapter and AMA: identity at the start, exact silence of what is missing; and law 8."""

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from balancekit.adapters import AMA, CDCAdapter, ConvAdapter, Parallel, Tap, convolve_tokens, missing
from balancekit.adapters._bottleneck import quick_gelu

F64 = torch.float64
NAMES = ("rgb", "depth", "ir")
DIM, GRID, PATCHES = 6, (2, 3), 6
law = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**16)
prefixes = st.integers(0, 2)
scales = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e3, 1e30])
bads = st.sampled_from([torch.nan, torch.inf, -torch.inf, 1e300])
presences = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=3, max_size=3)

MAKERS: dict[str, Callable[..., nn.Module]] = {
    "conv": lambda **options: ConvAdapter(DIM, width=3, grid=GRID, **options),
    "cdc": lambda **options: CDCAdapter(DIM, width=3, grid=GRID, **options),
    "ama": lambda **options: AMA(NAMES, DIM, width=3, grid=GRID, **options),
}
kinds = st.sampled_from(sorted(MAKERS))
every = pytest.mark.parametrize("kind", sorted(MAKERS))


def count(kind: str, prefix: int = 1) -> int:
    return prefix + PATCHES * (len(NAMES) if kind == "ama" else 1)


def draw(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def grown(kind: str, dtype: torch.dtype = F64, **options: object) -> nn.Module:
    """An adapter without dropout whose up-projection, a bias included, is not zero."""
    adapter = MAKERS[kind](dropout=0.0, dtype=dtype, **options)
    for parameter in (*adapter.up.parameters(), adapter.down.bias):
        nn.init.normal_(parameter)
    return adapter


def of_modality(tokens: Tensor, place: int, prefix: int = 1) -> Tensor:
    """The patches of one modality, as a view."""
    return tokens[:, prefix + place * PATCHES : prefix + (place + 1) * PATCHES]


def spoil(tokens: Tensor, present: Tensor, filler: float) -> Tensor:
    """Put `filler` where a modality is missing."""
    tokens = tokens.clone()
    for place, row in enumerate(present):
        of_modality(tokens, place)[~row] = filler
    return tokens


def weights_of(adapter: nn.Module, tokens: Tensor) -> Tensor:
    seen: list[Tensor] = []
    handle = adapter.gate.register_forward_hook(lambda module, args, output: seen.append(output))
    adapter(tokens)
    handle.remove()
    (weights,) = seen
    return weights


# --- law 6


@law
@given(seed=seeds, kind=kinds, prefix=prefixes, scale=scales)
def test_identity_at_initialisation(seed: int, kind: str, prefix: int, scale: float) -> None:
    torch.manual_seed(seed)
    base = nn.Linear(DIM, DIM, dtype=F64)
    x, keys = scale * draw(2, count(kind, prefix), DIM), list(base.state_dict())
    model = Parallel(base, MAKERS[kind](prefix=prefix))
    assert (model.side(x) == 0).all()
    assert torch.equal(model(x), base(x))
    assert [key for key in model.state_dict() if not key.startswith("side.")] == keys


@law
@given(seed=seeds, kind=kinds, scale=st.sampled_from([0.0, 1e-30, 1.0, 1e3]))
def test_a_frozen_base_gets_no_gradient_and_the_adapter_a_finite_one(seed: int, kind: str, scale: float) -> None:
    torch.manual_seed(seed)
    model = Parallel(nn.Linear(DIM, DIM, dtype=F64).requires_grad_(False), grown(kind))
    model(scale * draw(2, count(kind), DIM)).square().sum().backward()
    mine = set(model.side.parameters())
    assert all((parameter.grad is not None) == (parameter in mine) for parameter in model.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in mine)


@law
@given(seed=seeds, kind=kinds, scale=scales)
def test_samples_do_not_meet(seed: int, kind: str, scale: float) -> None:
    torch.manual_seed(seed)
    adapter, tokens = grown(kind), draw(3, count(kind), DIM)
    changed = tokens.clone()
    changed[1] = scale * draw(count(kind), DIM)
    assert torch.equal(adapter(changed)[[0, 2]], adapter(tokens)[[0, 2]])


@law
@given(seed=seeds, kind=st.sampled_from(["conv", "cdc"]), place=st.integers(0, PATCHES))
def test_a_patch_reaches_its_neighbours_only_and_a_prefix_token_itself(seed: int, kind: str, place: int) -> None:
    torch.manual_seed(seed)
    adapter, tokens = grown(kind), draw(1, 1 + PATCHES, DIM)
    changed = tokens.clone()
    changed[0, place] += 1.0
    noticed = (adapter(changed) != adapter(tokens)).any(-1)[0]
    y, x = divmod(place - 1, GRID[1])
    near = [abs(y - i) <= 1 and abs(x - j) <= 1 for i in range(GRID[0]) for j in range(GRID[1])]
    assert noticed.tolist() == ([True] + [False] * PATCHES if place == 0 else [False, *near])


@law
@given(seed=seeds, prefix=prefixes)
def test_without_central_difference_the_cdc_adapter_is_the_conv_adapter(seed: int, prefix: int) -> None:
    torch.manual_seed(seed)
    plain, cdc = grown("conv", prefix=prefix), grown("cdc", prefix=prefix, theta=0.0)
    cdc.load_state_dict(plain.state_dict())
    tokens = draw(2, count("conv", prefix), DIM)
    assert torch.equal(cdc(tokens), plain(tokens))


@law
@given(seed=seeds, scale=scales)
def test_the_weights_are_weights(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    adapter = grown("ama")
    weights = weights_of(adapter, scale * draw(4, count("ama"), DIM))
    assert weights.shape == (4, 3)
    assert ((weights >= 0) & (weights <= 1)).all()
    if scale <= 1:
        assert ((weights > 0) & (weights < 1)).all()
    assert (weights_of(MAKERS["ama"](dtype=F64), torch.zeros(1, count("ama"), DIM, dtype=F64)) == 0.5).all()


@law
@given(seed=seeds, order=st.permutations(range(3)), prefix=prefixes)
def test_relabelling_the_modalities_relabels_weights_and_deltas(seed: int, order: list[int], prefix: int) -> None:
    torch.manual_seed(seed)
    adapter, twin = grown("ama", prefix=prefix), grown("ama", prefix=prefix)
    state = dict(adapter.state_dict())
    channels = torch.cat([3 * place + torch.arange(3) for place in order])
    state["conv.weight"] = state["conv.weight"][:, channels]
    state["gate.linear.weight"] = state["gate.linear.weight"][order][:, channels]
    twin.load_state_dict(state)
    rows = torch.cat([torch.arange(prefix), *(prefix + PATCHES * place + torch.arange(PATCHES) for place in order)])
    tokens = draw(2, count("ama", prefix), DIM)
    torch.testing.assert_close(twin(tokens[:, rows]), adapter(tokens)[:, rows], rtol=1e-11, atol=1e-11)
    found, expected = weights_of(twin, tokens[:, rows]), weights_of(adapter, tokens)[:, order]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@law
@given(seed=seeds, prefix=prefixes)
def test_of_one_modality_the_weight_scales_what_the_conv_adapter_sees(seed: int, prefix: int) -> None:
    """m = 1: delta = up QuickGELU(w · conv h) on the patches, and ConvAdapter's on the prefix."""
    torch.manual_seed(seed)
    ama = AMA(("rgb",), DIM, width=3, grid=GRID, prefix=prefix, dropout=0.0, dtype=F64)
    conv = grown("conv", prefix=prefix)
    state = {**ama.state_dict(), **conv.state_dict()}
    ama.load_state_dict(state)
    tokens = draw(2, count("conv", prefix), DIM)
    h = quick_gelu(conv.down(tokens))
    w = torch.sigmoid(h[:, prefix:].mean(1) @ state["gate.linear.weight"].T)
    f = convolve_tokens(h, conv.kernel, GRID, prefix)
    delta = ama(tokens)
    torch.testing.assert_close(weights_of(ama, tokens), w, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(delta[:, :prefix], conv(tokens)[:, :prefix], rtol=1e-12, atol=1e-12)
    expected = conv.up(quick_gelu(w[:, None] * f[:, prefix:]))
    torch.testing.assert_close(delta[:, prefix:], expected, rtol=1e-12, atol=1e-12)


@law
@given(seed=seeds, who=presences, bad=bads)
def test_a_missing_modality_is_silent_and_changes_nothing_for_the_others(
    seed: int, who: list[tuple[bool, bool, bool]], bad: float
) -> None:
    torch.manual_seed(seed)
    adapter, tokens, present = grown("ama"), draw(3, count("ama"), DIM), torch.tensor(who).T
    before, weights = adapter(tokens), weights_of(adapter, tokens)
    spoiled = spoil(tokens, present, bad)
    with missing(adapter, present):
        delta, found, again = adapter(spoiled), weights_of(adapter, spoiled), adapter(tokens)
    whole = present.all(0)
    assert torch.equal(delta[whole], before[whole]) and torch.equal(found[whole], weights[whole])
    assert torch.equal(delta, again)  # what stands in the place of the missing does not matter
    assert ((found == 0) == ~present.T).all()
    for place, has in enumerate(present):
        rows = of_modality(delta, place)
        assert (rows[~has] == 0).all()
        assert (rows[has] != 0).any(-1).all()
    assert torch.equal(delta[:, :1], before[:, :1])
    assert torch.equal(adapter(tokens), before)  # and afterwards it is as it was


@law
@given(seed=seeds, who=presences, bad=bads)
def test_what_is_missing_leaks_into_no_gradient(seed: int, who: list[tuple[bool, bool, bool]], bad: float) -> None:
    torch.manual_seed(seed)
    adapter, tokens, present = grown("ama"), draw(3, count("ama"), DIM), torch.tensor(who).T
    gradients = []
    for filler in (0.0, bad):
        x = spoil(tokens, present, filler).requires_grad_()
        with missing(adapter, present):
            loss = adapter(x).square().sum()
        gradients.append(torch.autograd.grad(loss, (x, *adapter.parameters())))
    for clean, spoiled in zip(*gradients, strict=True):
        assert clean.isfinite().all() and torch.equal(spoiled, clean)
    for place, has in enumerate(present):
        rows = of_modality(gradients[1][0], place)
        assert (rows[~has] == 0).all() and (rows[has] != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_modality_that_is_there_hides_nothing(bad: float) -> None:
    torch.manual_seed(0)
    adapter, tokens = grown("ama"), draw(2, count("ama"), DIM)
    of_modality(tokens, 1)[0, 0] = bad
    with missing(adapter, torch.tensor([[False, True], [True, True], [True, True]])):
        delta = adapter(tokens)
    assert not of_modality(delta, 1)[0].isfinite().all() and not of_modality(delta, 2)[0].isfinite().all()
    assert (of_modality(delta, 0)[0] == 0).all()
    assert delta[1].isfinite().all()


# --- law 8


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtypes(kind: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    adapter, x = grown(kind, dtype), draw(2, count(kind), DIM).to(dtype)
    delta = adapter(x)
    assert delta.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close(delta.to(F64), adapter.to(F64)(x.to(F64)), rtol=tolerance, atol=tolerance)


@every
def test_autocast(kind: str) -> None:
    torch.manual_seed(0)
    adapter, x = grown(kind, torch.float32), draw(2, count(kind), DIM, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        delta = adapter(x)
    assert delta.dtype == torch.bfloat16
    torch.testing.assert_close(delta.float(), adapter(x), rtol=0.05, atol=0.05)


@every
def test_copies_and_pickles_are_separate_and_equal(kind: str) -> None:
    torch.manual_seed(0)
    adapter, x = grown(kind), draw(2, count(kind), DIM)
    expected = adapter(x)
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert torch.equal(twin(x), expected)
        nn.init.zeros_(twin.up.weight)
        assert not torch.equal(twin(x), expected)
        assert torch.equal(adapter(x), expected)


@every
def test_state_dict_reloads_with_weights_only(kind: str) -> None:
    torch.manual_seed(0)
    adapter, fresh, x = grown(kind), MAKERS[kind](dropout=0.0, dtype=F64), draw(2, count(kind), DIM)
    file = io.BytesIO()
    torch.save(adapter.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(x), adapter(x))


@every
def test_an_empty_batch_stays_empty(kind: str) -> None:
    adapter = grown(kind)
    assert adapter(draw(0, count(kind), DIM)).shape == (0, count(kind), DIM)
    if kind == "ama":
        tap = Tap(adapter.gate, lambda w: w)
        with missing(adapter, torch.ones(3, 0, dtype=torch.bool)):
            assert adapter(draw(0, count(kind), DIM)).shape == (0, count(kind), DIM)
        assert tap.value.shape == (0, 3)
