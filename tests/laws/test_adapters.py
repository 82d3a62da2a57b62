"""Law 6: an adapter starts as the identity, gates silence exactly, unlisted edges exchange nothing.

And law 8; compilation is in tests/unit, since instrumented signatures do not compile.
"""

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from balancekit.adapters import CrossModal, GatedCrossAttention, Parallel, Tap, gated_attention, hub

F64 = torch.float64
NAMES = ("rgb", "depth", "ir")
GATES = ("query", "key", "output", "key+output")
law = settings(max_examples=30, deadline=None)
seeds = st.integers(0, 2**16)
gates = st.sampled_from(GATES)
convs = st.sampled_from([None, "plain", "cdc"])
scales = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 1e3, 1e30])


def draw(*shape: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(*shape, dtype=dtype)


def grown(
    gate: str = "query",
    conv: str | None = None,
    dtype: torch.dtype = F64,
    dropout: float = 0.0,
    queries: str = "other",
) -> nn.Module:
    """An adapter on 1 + 2·2 tokens of width 6 with a non-zero up-projection: with a zero one every gate passes."""
    adapter = GatedCrossAttention(
        6, width=4, heads=4, queries=queries, gate=gate, conv=conv, grid=2, dropout=dropout, dtype=dtype
    )
    nn.init.normal_(adapter.up.weight)
    nn.init.normal_(adapter.up.bias)
    return adapter


def trust(adapter: nn.Module, own: Tensor, other: Tensor) -> dict[str, Tensor | None]:
    """The confidences that the adapter's gate reads."""
    read = adapter.confidence_of
    return {"confidence": other if "other" in read else None, "own_confidence": own if "own" in read else None}


def confidence_of_samples(attention: Tensor | tuple[Tensor, ...]) -> Tensor:
    return torch.exp(-attention[0].abs()).mean(-1)


class Block(nn.Module):
    """A transformer block as others write it."""

    def __init__(self, dim: int = 6, dtype: torch.dtype = F64) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, dtype=dtype), nn.LayerNorm(dim, dtype=dtype)
        self.attn = nn.MultiheadAttention(dim, 2, batch_first=True, dtype=dtype)
        self.mlp = nn.Sequential(nn.Linear(dim, 8, dtype=dtype), nn.GELU(), nn.Linear(8, dim, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn(y, y, y)[0]
        return x + self.mlp(self.norm2(x))


def wired(make: partial, dtype: torch.dtype = F64) -> tuple[Block, Tap]:
    block = Block(dtype=dtype)
    tap = Tap(block.attn, confidence_of_samples)
    block.mlp = Parallel(block.mlp, CrossModal(NAMES, hub("rgb", NAMES), make, confidence=tap))
    return block, tap


# --- law 6


@law
@given(seed=seeds, gate=gates, conv=convs, scale=scales)
def test_identity_at_initialisation(seed: int, gate: str, conv: str | None, scale: float) -> None:
    torch.manual_seed(seed)
    block = Block()
    x = scale * draw(6, 5, 6)
    before, keys = block(x), list(block.state_dict())
    make = partial(GatedCrossAttention, 6, width=4, heads=2, gate=gate, conv=conv, grid=2)
    tap = Tap(block.attn, confidence_of_samples)
    block.mlp = Parallel(block.mlp, CrossModal(NAMES, hub("rgb", NAMES), make, confidence=tap))
    assert torch.equal(block(x), before)
    assert [key for key in block.state_dict() if ".side." not in key] == keys


@law
@given(seed=seeds, rows=st.integers(1, 5), keys=st.integers(1, 5), scale=st.sampled_from([0.0, 1e-30, 1.0, 1e30]))
def test_query_gate_at_zero_is_the_mean_of_the_values(seed: int, rows: int, keys: int, scale: float) -> None:
    torch.manual_seed(seed)
    q, k, v = scale * draw(2, 3, rows, 2), draw(2, 3, keys, 2), draw(2, 3, keys, 2)
    confidence = torch.rand(2, rows, dtype=F64)
    confidence[:, 0] = 0.0
    out = gated_attention(q, k, v, confidence)
    torch.testing.assert_close(out[:, :, 0], v.mean(2), rtol=1e-12, atol=1e-12)


@law
@given(seed=seeds, scale=scales)
def test_query_gate_at_zero_does_not_hear_the_other(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    adapter, own = grown("query"), draw(2, 5, 6)
    confidence = torch.ones(2, 5, dtype=F64)
    confidence[:, :3] = 0.0
    one, two = adapter(own, draw(2, 5, 6), confidence), adapter(own, scale * draw(2, 5, 6), confidence)
    assert torch.equal(one[:, :3], two[:, :3])
    assert not torch.equal(one[:, 3:], two[:, 3:])


@law
@given(seed=seeds, conv=convs, scale=scales)
def test_output_gate_at_zero_is_exactly_zero(seed: int, conv: str | None, scale: float) -> None:
    torch.manual_seed(seed)
    adapter = grown("output", conv)
    confidence = torch.ones(2, 5, dtype=F64)
    confidence[0] = confidence[1, 2] = 0.0
    delta = adapter(draw(2, 5, 6), scale * draw(2, 5, 6), confidence)
    silent = confidence == 0
    assert (delta[silent] == 0).all()
    assert (delta[~silent] != 0).any(-1).all()


@law
@given(seed=seeds, silent=st.sets(st.integers(0, 4), max_size=4), low=st.sampled_from([1e-300, 1e-30, 1e-3, 1.0]))
def test_key_gate_at_zero_is_as_if_the_token_were_absent(seed: int, silent: set[int], low: float) -> None:
    torch.manual_seed(seed)
    q, k, v = draw(2, 3, 4, 2), draw(2, 3, 5, 2), draw(2, 3, 5, 2)
    heard = [j for j in range(5) if j not in silent]
    confidence = low + (1 - low) * torch.rand(2, 5, dtype=F64)
    confidence[:, list(silent)] = 0.0
    out = gated_attention(q, k, v, confidence, "key")
    without = gated_attention(q, k[:, :, heard], v[:, :, heard], confidence[:, heard], "key")
    torch.testing.assert_close(out, without, rtol=1e-12, atol=1e-12)
    k[:, :, list(silent)], v[:, :, list(silent)] = 7.0, -1e30
    assert torch.equal(gated_attention(q, k, v, confidence, "key"), out)


@law
@given(seed=seeds, factor=st.sampled_from([1e-12, 1e-3, 0.5]))
def test_key_gate_cancels_a_common_factor(seed: int, factor: float) -> None:
    torch.manual_seed(seed)
    q, k, v, confidence = draw(2, 3, 4, 2), draw(2, 3, 5, 2), draw(2, 3, 5, 2), torch.rand(2, 5, dtype=F64)
    expected = gated_attention(q, k, v, confidence, "key")
    torch.testing.assert_close(gated_attention(q, k, v, factor * confidence, "key"), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 8])
def test_key_gate_with_all_keys_at_zero_is_zero_with_finite_gradients(dtype: torch.dtype, width: int) -> None:
    q, k, v = (draw(2, 3, 4, width, dtype=dtype).requires_grad_() for _ in range(3))
    confidence = torch.tensor([[0.0] * 4, [0.5, 0.0, 1.0, 0.25]]).requires_grad_()
    out = gated_attention(q, k, v, confidence, "key")
    assert (out[0] == 0).all()
    assert (out[1] != 0).all()
    for gradient in torch.autograd.grad(out.sum(), (q, k, v, confidence)):
        assert gradient.isfinite().all()


@law
@given(seed=seeds, gate=gates)
def test_confidence_one_is_no_gate(seed: int, gate: str) -> None:
    torch.manual_seed(seed)
    adapter, own, other = grown(gate), draw(2, 5, 6), draw(2, 5, 6)
    one = torch.ones(2, 5)
    torch.testing.assert_close(
        adapter(own, other, **trust(adapter, one, one)), adapter(own, other), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_confidence_is_not_hidden(gate: str, bad: float) -> None:
    torch.manual_seed(0)
    confidence = torch.ones(2, 5)
    confidence[0, 1] = bad
    adapter = grown(gate)
    delta = adapter(draw(2, 5, 6), draw(2, 5, 6), **trust(adapter, confidence, confidence))
    assert not delta[0, 1].isfinite().all()
    assert delta[1].isfinite().all()


@law
@given(seed=seeds, gate=gates, conv=convs)
def test_a_frozen_base_gets_no_gradient(seed: int, gate: str, conv: str | None) -> None:
    torch.manual_seed(seed)
    block = Block().requires_grad_(False)
    tap = Tap(block.attn, confidence_of_samples)
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(grown, gate, conv), confidence=tap)
    block.mlp = Parallel(block.mlp, cross)
    block(draw(6, 5, 6)).square().sum().backward()
    mine = set(cross.parameters())
    assert all((parameter.grad is not None) == (parameter in mine) for parameter in block.parameters())
    assert all(parameter.grad.isfinite().all() for parameter in mine)


edge_sets = st.sets(st.sampled_from([(s, t) for s in NAMES for t in NAMES if s != t]), max_size=6)


@law
@given(seed=seeds, edges=edge_sets, gate=gates, source=st.sampled_from(NAMES))
def test_unlisted_edges_exchange_nothing(seed: int, edges: set[tuple[str, str]], gate: str, source: str) -> None:
    torch.manual_seed(seed)
    cross = CrossModal(NAMES, sorted(edges), partial(grown, gate))
    tokens = draw(3, 2, 5, 6)
    changed = tokens.clone()
    changed[NAMES.index(source)] = draw(2, 5, 6)
    before, after = (cross(x.flatten(0, 1)).unflatten(0, (3, 2)) for x in (tokens, changed))
    for place, target in enumerate(NAMES):
        heard = (source, target) in edges or (target == source and any(t == target for _, t in edges))
        assert torch.equal(before[place], after[place]) != heard
        if not any(t == target for _, t in edges):
            assert (before[place] == 0).all()


@law
@given(seed=seeds, queries=st.sampled_from(["other", "own"]), scale=scales)
def test_key_and_output_gate_passes_over_bad_tokens_and_silences_a_bad_modality(
    seed: int, queries: str, scale: float
) -> None:
    torch.manual_seed(seed)
    adapter = grown("key+output", queries=queries)
    own, other, sure = draw(2, 5, 6), draw(2, 5, 6), torch.ones(2, 5, dtype=F64)
    doubt = sure.clone()
    doubt[0], doubt[1, 3] = 0.0, 0.0
    one = adapter(own, other, **trust(adapter, sure, doubt))
    assert (one[0] == 0).all()
    assert (one[1, :3] != 0).any(-1).all()
    other[doubt == 0] = scale * draw(6, 6)
    assert torch.equal(adapter(own, other, **trust(adapter, sure, doubt)), one)


@pytest.mark.parametrize("gate", GATES)
def test_numbers_of_tokens_may_differ_where_the_own_tokens_ask(gate: str) -> None:
    torch.manual_seed(0)
    adapter = GatedCrossAttention(6, other_dim=3, width=4, heads=4, gate=gate, queries="own", conv="cdc", grid=2).eval()
    nn.init.normal_(adapter.up.weight)
    own, other = torch.randn(2, 5, 6), torch.randn(2, 9, 3)
    delta = adapter(own, other, **trust(adapter, torch.rand(2, 5), torch.rand(2, 9)))
    assert delta.shape == own.shape and (delta != 0).any()


@law
@given(seed=seeds, gate=gates, conv=convs, lost=st.sampled_from(NAMES), filler=st.sampled_from([0.0, 1e30]))
def test_a_lost_modality_of_one_sample_changes_nothing_for_the_others(
    seed: int, gate: str, conv: str | None, lost: str, filler: float
) -> None:
    torch.manual_seed(seed)
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(grown, gate, conv))
    tokens, confidence = draw(3, 4, 5, 6), torch.rand(3, 4, 5, dtype=F64)
    before = cross(tokens.flatten(0, 1), confidence.flatten(0, 1)).unflatten(0, (3, 4))
    tokens[NAMES.index(lost), 1], confidence[NAMES.index(lost), 1] = filler, 0.0
    after = cross(tokens.flatten(0, 1), confidence.flatten(0, 1)).unflatten(0, (3, 4))
    others = [0, 2, 3]
    torch.testing.assert_close(after[:, others], before[:, others], rtol=1e-12, atol=1e-12)


# --- law 8


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", GATES)
def test_dtypes(dtype: torch.dtype, gate: str) -> None:
    torch.manual_seed(0)
    block, tap = wired(partial(grown, gate, "cdc"), dtype)
    x = draw(6, 5, 6)
    out = block(x.to(dtype))
    assert out.dtype == tap.value.dtype == dtype
    reference = block.to(F64)(x)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.5}[dtype]
    torch.testing.assert_close(out.to(F64), reference, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("gate", GATES)
def test_a_float32_confidence_gates_half_precision_tokens(gate: str) -> None:
    torch.manual_seed(0)
    adapter = grown(gate, "plain", torch.bfloat16)
    tokens = draw(2, 5, 6, dtype=torch.bfloat16)
    confidence = torch.rand(2, 5)
    assert adapter(tokens, tokens, **trust(adapter, confidence, confidence)).dtype == torch.bfloat16


@pytest.mark.parametrize("gate", GATES)
def test_autocast(gate: str) -> None:
    torch.manual_seed(0)
    block, _ = wired(partial(grown, gate, "cdc"), torch.float32)
    x = draw(6, 5, 6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    torch.testing.assert_close(out.float(), block(x), rtol=0.5, atol=0.5)


@pytest.mark.parametrize("in_place", [False, True])
def test_copies_and_pickles_are_separate_and_equal(in_place: bool) -> None:
    torch.manual_seed(0)
    block, tap = wired(partial(grown, "query", "cdc"))
    if in_place:
        block.attn = tap
    x = draw(6, 5, 6)
    expected, seen = block(x), tap.value
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        twin_tap = twin.mlp.side._confidence[0]
        with pytest.raises(RuntimeError):
            _ = twin_tap.value
        assert torch.equal(twin(x), expected)
        assert torch.equal(twin_tap.value, seen)
        twin(2 * x)
        assert tap.value is seen
        assert not torch.equal(twin_tap.value, seen)


@pytest.mark.parametrize("in_place", [False, True])
def test_state_dict_reloads_with_weights_only(in_place: bool) -> None:
    torch.manual_seed(0)
    (block, tap), (fresh, fresh_tap) = wired(partial(grown, "key", "cdc")), wired(partial(grown, "key", "cdc"))
    plain = Block()
    if in_place:
        block.attn, fresh.attn = tap, fresh_tap
    file = io.BytesIO()
    torch.save(block.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = draw(6, 5, 6)
    assert torch.equal(fresh(x), block(x))
    fresh.load_state_dict(plain.state_dict(), strict=False)  # a checkpoint of the untouched model still fits
    for key, value in plain.state_dict().items():
        assert torch.equal(fresh.state_dict()[key], value)


@pytest.mark.parametrize("gate", GATES)
def test_an_empty_batch_stays_empty(gate: str) -> None:
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(grown, gate, "cdc"))
    assert cross(draw(0, 5, 6), torch.ones(0, 5)).shape == (0, 5, 6)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 3e38])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("queries", ["other", "own"])
def test_a_token_at_confidence_zero_cannot_leak(gate: str, queries: str, bad: float) -> None:
    """A broken sensor sends NaN or inf; at confidence 0 the delta is what it is with zeros in their place."""
    torch.manual_seed(0)
    adapter = GatedCrossAttention(16, gate=gate, queries=queries).eval()
    torch.nn.init.normal_(adapter.up.weight)
    clean, doubt = torch.randn(2, 9, 16), torch.ones(2, 9)
    doubt[0, 3] = 0.0
    broken = clean.clone()
    broken[0, 3] = bad
    fellow, sure = torch.randn(2, 9, 16), torch.ones(2, 9)
    if "other" in adapter.confidence_of:
        delta = adapter(fellow, broken, **trust(adapter, sure, doubt))
        torch.testing.assert_close(delta, adapter(fellow, clean, **trust(adapter, sure, doubt)))
        assert delta.isfinite().all()
        if "output" in gate and queries == "other":
            assert (delta[0, 3] == 0).all()
    if "own" in adapter.confidence_of:
        delta = adapter(broken, fellow, **trust(adapter, doubt, sure))
        keep = torch.ones(2, 9, dtype=torch.bool)
        keep[0, 3] = False  # the token itself keeps its residual, and with it what it holds
        expected = adapter(clean, fellow, **trust(adapter, doubt, sure))
        torch.testing.assert_close(delta[keep], expected[keep])


def test_a_full_confidence_of_many_tokens_is_no_gate_in_half_precision() -> None:
    adapter = grown("output", queries="own").to(torch.bfloat16)
    own, other = draw(1, 257, 6, dtype=torch.bfloat16), draw(1, 257, 6, dtype=torch.bfloat16)
    assert torch.equal(adapter(own, other, torch.ones(1, 257, dtype=torch.bfloat16)), adapter(own, other))
