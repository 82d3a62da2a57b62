"""Laws 6 and 8 at the edge: every adapter on tokens and confidences that hold, lie or number oddly."""

import copy
import io
import pickle
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from balancekit.adapters import (
    AMA,
    CDCAdapter,
    CentralDifferenceConv2d,
    ConvAdapter,
    CrossModal,
    GatedCrossAttention,
    Parallel,
    Tap,
    complete,
    convolve_tokens,
    gated_attention,
    hub,
    missing,
    ring,
)
from balancekit.uncertainty import dropout_confidence
from tests.degenerate import LAYOUTS, batches, broken, counts, dtypes, filled, finite, laid, layouts, seeds

BATCH, TOKENS, DIM = 4, 5, 6  # 1 + 2·2 tokens
GATES = ("query", "key", "output", "key+output")
law = settings(max_examples=6, deadline=None)
rows = st.integers(0, BATCH - 1)
gates = st.sampled_from(GATES)
moderate = st.sampled_from(("plain", "zero", "rank one", "opposed", "tiny"))


class Part(NamedTuple):
    """A module, and how it is called with tokens "b n d", of several modalities side by side."""

    make: Callable[..., nn.Module]
    tokens: int
    call: Callable[[nn.Module, Tensor], Tensor] = lambda module, x: module(x)
    attends: bool = False  # it multiplies tokens, whose product may overflow, and normalises

    def grown(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """Without dropout, and with an up-projection that is not zero."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            module = self.make()
            for each in module.modules():
                if isinstance(getattr(each, "up", None), nn.Linear):
                    nn.init.normal_(each.up.weight)
                    nn.init.normal_(each.up.bias)
        return module.to(dtype).eval()

    def draw(self, kind: str, seed: int, dtype: torch.dtype = torch.float32, size: int = BATCH) -> Tensor:
        return filled(kind, size, self.tokens, DIM, seed=seed, dtype=dtype)


def of_two(adapter: nn.Module, x: Tensor) -> Tensor:
    """The first tokens hear the rest, with confidences between 0.1 and 1 that lie expanded."""
    own, other = x[:, :TOKENS], x[:, TOKENS:]
    return adapter(own, other, **trust(adapter, own, other))


def trust(adapter: nn.Module, own: Tensor, other: Tensor) -> dict[str, Tensor]:
    sides = {"confidence": ("other", other), "own_confidence": ("own", own)}
    return {
        name: torch.linspace(0.1, 1, tokens.shape[1]).expand(tokens.shape[:2])
        for name, (side, tokens) in sides.items()
        if side in adapter.confidence_of
    }


def of_many(cross: nn.Module, x: Tensor) -> Tensor:
    """All modalities' tokens side by side, in and out, from a dict."""
    delta = cross(dict(zip(cross.modalities, x.chunk(len(cross.modalities), 1), strict=True)))
    return torch.cat(list(delta.values()), 1)


def attention(**options: object) -> Callable[[], nn.Module]:
    return lambda: GatedCrossAttention(DIM, width=4, heads=4, grid=2, **options)


NAMES = ("rgb", "depth", "ir")
PARTS = {
    **{f"query {queries} asks": Part(attention(queries=queries), 10, of_two, True) for queries in ("other", "own")},
    **{gate: Part(attention(gate=gate), 10, of_two, True) for gate in GATES[1:]},
    "normed": Part(attention(gate="key", qk_norm=True, scale="learned"), 10, of_two, True),
    "plain conv": Part(attention(gate="output", conv="plain", scale=0.5), 10, of_two, True),
    "cdc conv": Part(attention(gate="query", conv="cdc", queries="own"), 10, of_two, True),
    "cross modal": Part(lambda: CrossModal(NAMES, complete(NAMES), attention(gate="key")), 15, of_many, True),
    "conv": Part(lambda: ConvAdapter(DIM, width=3, grid=2), TOKENS),
    "cdc": Part(lambda: CDCAdapter(DIM, width=3, grid=2), TOKENS),
    "ama": Part(lambda: AMA(NAMES, DIM, width=3, grid=2), 13),
    "parallel": Part(lambda: Parallel(nn.Linear(DIM, DIM), ConvAdapter(DIM, width=3, grid=2)), TOKENS),
}
every = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def close(found: Tensor, expected: Tensor, times: float = 64) -> None:
    """To rounding of the largest number, in the dtype of `found`."""
    expected = expected.to(found.dtype)
    scale = float(expected.detach().abs().max()) if expected.numel() else 0.0
    eps = times * torch.finfo(found.dtype).eps
    torch.testing.assert_close(found, expected, rtol=eps, atol=eps * max(scale, 1e-30))


# What holds for every adapter


@every
@law
@given(seed=seeds, kind=moderate, dtype=dtypes)
def test_how_the_tokens_lie_in_memory_changes_nothing_and_they_stay_as_they_are(
    part: Part, seed: int, kind: str, dtype: torch.dtype
) -> None:
    adapter = part.grown(dtype)
    for layout in LAYOUTS:
        x = laid(part.draw(kind, seed, dtype), layout)
        before = x.clone(memory_format=torch.contiguous_format)
        close(part.call(adapter, x), part.call(adapter, before))
        assert torch.equal(x, before)


@every
@law
@given(seed=seeds, kind=moderate, selection=st.lists(rows, max_size=BATCH))
def test_a_selection_of_the_batch_gives_that_selection_of_the_deltas(
    part: Part, seed: int, kind: str, selection: list[int]
) -> None:
    adapter, x, index = part.grown(), part.draw(kind, seed), torch.tensor(selection, dtype=torch.int64)
    close(part.call(adapter, x[index]), part.call(adapter, x)[index])


@every
@law
@given(seed=seeds, kind=broken, row=rows, place=st.integers(0, TOKENS - 1))
def test_a_broken_number_reaches_its_sample_and_no_other(
    part: Part, seed: int, kind: str, row: int, place: int
) -> None:
    adapter, x = part.grown(), part.draw("plain", seed)
    clean = part.call(adapter, x)
    x[row, place, 2] = float(kind)
    delta, others = part.call(adapter, x), [i for i in range(BATCH) if i != row]
    assert torch.equal(delta[others], clean[others])
    assert not delta[row, place].isfinite().all()


@every
@law
@given(seed=seeds, kind=moderate, dtype=dtypes)
def test_every_dtype_says_what_float64_says(part: Part, seed: int, kind: str, dtype: torch.dtype) -> None:
    adapter, x = part.grown(dtype), part.draw(kind, seed, dtype)
    delta = part.call(adapter, x)
    assert delta.dtype == dtype
    close(delta, part.call(copy.deepcopy(adapter).double(), x.double()), times=256)


@every
@law
@given(seed=seeds, kind=finite, dtype=dtypes, size=batches)
def test_a_new_adapter_adds_nothing(part: Part, seed: int, kind: str, dtype: torch.dtype, size: int) -> None:
    """Scores are products of two tokens: of 1e30 they are no float32 numbers, and what is lost is NaN, not silent."""
    adapter, x = part.make().to(dtype).eval(), part.draw(kind, seed, dtype, size)
    delta = part.call(adapter, x) if not isinstance(adapter, Parallel) else adapter(x) - adapter.base(x)
    overflows = part.attends and kind == "huge" and dtype in (torch.bfloat16, torch.float32)
    assert ((delta == 0) | (delta.isnan() & overflows)).all()


@every
@law
@given(seed=seeds, kind=moderate, size=batches)
def test_gradients_are_finite(part: Part, seed: int, kind: str, size: int) -> None:
    adapter, x = part.grown(), part.draw(kind, seed, size=size).requires_grad_()
    part.call(adapter, x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in adapter.parameters() if parameter.grad is not None)


@every
def test_nothing_is_read_from_the_device(part: Part) -> None:
    """A tensor on "meta" has no values: reading one raises."""
    adapter = part.grown()
    expected = part.call(adapter, part.draw("plain", 0)).shape

    def call(module: nn.Module, x: Tensor) -> Tensor:
        with torch.device("meta"):
            return part.call(module, x)

    assert call(adapter.to("meta"), part.draw("plain", 0).to("meta")).shape == expected


# The gates


@pytest.mark.parametrize("gate", ["query", "key"])
@law
@given(seed=seeds, keys=st.integers(1, 5), row=rows, key=st.integers(0, 4), dtype=dtypes)
def test_a_nan_in_one_key_reaches_every_row_of_its_sample(
    gate: str, seed: int, keys: int, row: int, key: int, dtype: torch.dtype
) -> None:
    """Also where it is the only one: a softmax of NaN alone is NaN, and no mask."""
    q, k, v = (filled("plain", BATCH, 2, keys, 3, seed=seed + i, dtype=dtype) for i in range(3))
    confidence = torch.rand(BATCH, keys, generator=torch.Generator().manual_seed(seed)) + 0.1
    clean = gated_attention(q, k, v, confidence, gate)  # type: ignore[arg-type]
    k[row, :, key % keys] = float("nan")
    out, others = gated_attention(q, k, v, confidence, gate), [i for i in range(BATCH) if i != row]  # type: ignore[arg-type]
    assert torch.equal(out[others], clean[others])
    assert out[row].isnan().all()


@pytest.mark.parametrize("gate", ["query", "key"])
@law
@given(seed=seeds, kind=finite, keys=st.integers(1, 5), dtype=dtypes, layout=layouts)
def test_attention_is_right_or_not_finite(
    gate: str, seed: int, kind: str, keys: int, dtype: torch.dtype, layout: str
) -> None:
    """Against the equation in float64; scores that overflow are no reason for a row of zeros."""
    q, k, v = (filled(kind, BATCH, 2, keys, 3, seed=seed + i, dtype=dtype, layout=layout) for i in range(3))
    confidence = torch.rand(BATCH, keys, generator=torch.Generator().manual_seed(seed)) + 0.1
    out = gated_attention(q, k, v, confidence, gate)  # type: ignore[arg-type]
    exact_q, exact_k, exact_v = q.double(), k.double(), v.double()
    if gate == "query":
        exact_q = (q * confidence[:, None, :, None].to(dtype)).double()
    scores = exact_q @ exact_k.mT / 3**0.5
    if gate == "key":
        scores = scores + confidence.log().to(dtype).double()[:, None, None, :]
    exact = scores.softmax(-1) @ exact_v
    keep = out.isfinite()
    assert keep.all() or kind == "huge"
    close(out[keep], exact[keep], times=256)


@pytest.mark.parametrize("gate", ["query", "key"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("keys", [1, 3, 16])
def test_scores_that_overflow_are_not_silent(gate: str, dtype: torch.dtype, sign: int, keys: int) -> None:
    """Equal keys have equal weights, whatever their score; where the score is lost, so is the row, and not 0."""
    q = torch.full((1, 2, keys, 4), 1e30, dtype=dtype)
    out = gated_attention(q, sign * q, torch.ones_like(q), torch.ones(1, keys), gate)  # type: ignore[arg-type]
    assert (out.isnan() | (out == 1)).all()


@law
@given(seed=seeds, dtype=dtypes, learned=st.booleans())
def test_a_key_at_confidence_zero_has_no_weight(seed: int, dtype: torch.dtype, learned: bool) -> None:
    """Also where the confidence wants a gradient: its bias, -inf for this key, is then a channel of the keys."""
    q, k, v = (filled("plain", BATCH, 2, TOKENS, 3, seed=seed + i, dtype=dtype) for i in range(3))
    confidence, heard = torch.ones(BATCH, TOKENS), [0, 2, 3, 4]
    confidence[:, 1] = 0.0
    out = gated_attention(q, k, v, confidence.requires_grad_(learned), "key")
    close(out, gated_attention(q, k[:, :, heard], v[:, :, heard]))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("trusted", [True, False])
@law
@given(seed=seeds, kind=moderate, size=batches, dtype=dtypes)
def test_a_modality_without_tokens_is_one_that_says_nothing(
    gate: str, trusted: bool, seed: int, kind: str, size: int, dtype: torch.dtype
) -> None:
    """Where the own tokens ask: no tokens are as good as tokens at confidence 0, and none ask for nothing."""
    part = Part(attention(gate=gate, queries="own"), 2 * TOKENS, of_two)
    adapter = part.grown(dtype)
    tokens, none = filled(kind, size, TOKENS, DIM, seed=seed, dtype=dtype), torch.empty(size, 0, DIM, dtype=dtype)
    delta = adapter(tokens, none, **(trust(adapter, tokens, none) if trusted else {}))
    assert delta.shape == tokens.shape and delta.isfinite().all()
    if trusted and "output" in gate:
        assert (delta == 0).all()
    assert adapter(none, tokens, **(trust(adapter, none, tokens) if trusted else {})).shape == none.shape


def test_a_width_of_nothing_is_an_error_that_names_it() -> None:
    for make in (GatedCrossAttention, lambda d: ConvAdapter(d, grid=2), lambda d: AMA(NAMES, d, grid=2)):
        with pytest.raises(ValueError, match="dim: expected an integer of at least 1, found 0"):
            make(0)
    with pytest.raises(ValueError, match="other_dim: expected an integer of at least 1, found 0"):
        GatedCrossAttention(DIM, other_dim=0)
    with pytest.raises(ValueError, match="other: expected a tensor of shape"):
        attention()()(torch.zeros(2, TOKENS, DIM), torch.zeros(2, TOKENS, 0))


@pytest.mark.parametrize("gate", GATES)
@law
@given(seed=seeds, own=dtypes, kind=st.sampled_from(("one", "zero", "tiny")), of=dtypes, layout=layouts)
def test_confidences_of_any_dtype_and_layout(
    gate: str, seed: int, own: torch.dtype, kind: str, of: torch.dtype, layout: str
) -> None:
    """1 everywhere is no gate; 0 and 1e-30, which is 0 in float16, leave the delta finite."""
    adapter = Part(attention(gate=gate), 10).grown(own)
    tokens = filled("plain", 2, BATCH, TOKENS, DIM, seed=seed, dtype=own)
    value = {"one": 1.0, "zero": 0.0, "tiny": 1e-30}[kind]
    u = laid(torch.full((BATCH, TOKENS), value, dtype=of), layout)
    read = {"confidence": "other", "own_confidence": "own"}
    delta = adapter(*tokens, **{name: u for name, side in read.items() if side in adapter.confidence_of})
    assert delta.dtype == own and delta.isfinite().all()
    if kind == "one":
        close(delta, adapter(*tokens))
    if value * torch.ones((), dtype=of) == 0 and "output" in gate:
        assert (delta == 0).all()


# Any number of modalities


@law
@given(
    seed=seeds,
    m=counts,
    gate=gates,
    topology=st.sampled_from((complete, ring, lambda names: hub(names[0], names))),
    data=st.data(),
)
def test_relabelling_modalities_relabels_deltas(
    seed: int, m: int, gate: str, topology: Callable, data: st.DataObject
) -> None:
    """M = 1 has no edge, and a delta of zeros."""
    names = tuple(f"m{i}" for i in range(m))
    cross = Part(lambda: CrossModal(names, topology(names), attention(gate=gate)), 0).grown(torch.float64)
    order = data.draw(st.permutations(range(m)))
    along = {edge: cross.adapters["_to_".join(edge)] for edge in cross.edges}
    other = CrossModal([names[i] for i in order], sorted(cross.edges), along).eval()
    x = filled("plain", m, 2, TOKENS, DIM, seed=seed, dtype=torch.float64)
    u = filled("plain", m, 2, TOKENS, seed=seed, dtype=torch.float64).sigmoid()
    expected = cross(x.flatten(0, 1), u.flatten(0, 1)).unflatten(0, (m, 2))
    found = other(x[order].flatten(0, 1), u[order].flatten(0, 1))
    close(found.unflatten(0, (m, 2)), expected[order])
    assert (expected == 0).all() == (m == 1)


@law
@given(seed=seeds, m=counts, gate=gates, dtype=dtypes, bad=broken, who=st.integers(0, 2**16))
def test_whoever_is_missing_is_silent_in_any_dtype(
    seed: int, m: int, gate: str, dtype: torch.dtype, bad: str, who: int
) -> None:
    """Whatever stands in their place; also where a sample has nothing at all, and where all samples lack one."""
    names = tuple(f"m{i}" for i in range(m))
    cross = Part(lambda: CrossModal(names, complete(names), attention(gate=gate)()), 0).grown(dtype)
    x = filled("plain", m, 2, TOKENS, DIM, seed=seed, dtype=dtype)
    present = torch.tensor([who >> i & 1 for i in range(2 * m)], dtype=torch.bool).view(2, m).T  # lies transposed
    spoiled = x.masked_fill(~present[..., None, None], float(bad))
    with missing(cross, present):
        clean, delta = (cross(each.flatten(0, 1)).unflatten(0, (m, 2)) for each in (x, spoiled))
    assert torch.equal(delta, clean) and delta.isfinite().all()
    assert (delta[~present] == 0).all()
    alone = present & (present.sum(0) == 1)
    assert (delta[alone] == 0).all() and (delta[present & ~alone] != 0).flatten(1).any(1).all()


# Convolutions of images


@law
@given(seed=seeds, kind=finite, size=batches, layout=layouts, dtype=dtypes, theta=st.sampled_from((0.0, 0.5, 1.0)))
def test_central_differences_of_any_image(
    seed: int, kind: str, size: int, layout: str, dtype: torch.dtype, theta: float
) -> None:
    conv = CentralDifferenceConv2d(2, 3, theta=theta, bias=False).to(dtype)
    x = filled(kind, size, 2, 3, 4, seed=seed, dtype=dtype, layout=layout)
    exact = copy.deepcopy(conv).double()
    out = conv(x)
    assert out.shape == (size, 3, 3, 4) and out.dtype == dtype
    close(out, exact(x.double()), times=16)
    tokens = x.flatten(2).mT  # the same image as patches
    close(convolve_tokens(tokens, conv.kernel, (3, 4), 0).mT.unflatten(2, (3, 4)), out, times=16)


# Tap and Parallel


@law
@given(seed=seeds, kind=finite, size=batches, dtype=dtypes, layout=layouts)
def test_a_tap_keeps_what_the_function_makes_of_any_output(
    seed: int, kind: str, size: int, dtype: torch.dtype, layout: str
) -> None:
    base = nn.Linear(DIM, DIM).to(dtype)
    tap = Tap(base, dropout_confidence)
    out = base(filled(kind, size, TOKENS, DIM, seed=seed, dtype=dtype, layout=layout))
    assert torch.equal(tap.value, dropout_confidence(out)) and not tap.value.requires_grad
    assert ((tap.value > 0) & (tap.value <= 1)).all()


@law
@given(seed=seeds, kind=broken, row=rows, scale=st.sampled_from((0.0, -1.0, 1e30)))
def test_what_a_side_breaks_is_not_hidden_by_any_scale(seed: int, kind: str, row: int, scale: float) -> None:
    model = Parallel(nn.Linear(DIM, DIM), nn.Identity(), scale=scale)
    x = filled("plain", BATCH, TOKENS, DIM, seed=seed)
    clean = model(x)
    x[row, 1, 2] = float(kind)
    out, others = model(x), [i for i in range(BATCH) if i != row]
    assert torch.equal(out[others], clean[others])
    assert not out[row, 1, 2].isfinite()


# Copies


SAVED = {
    "attention": PARTS["normed"],
    "shared": Part(lambda: CrossModal(NAMES, complete(NAMES), attention()()), 15, of_many),
    "cdc": Part(lambda: CentralDifferenceConv2d(TOKENS, 3, bias=False), TOKENS, lambda conv, x: conv(x[:, :, None])),
}


@pytest.mark.parametrize("part", SAVED.values(), ids=SAVED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_copies_and_reloads_are_separate_and_equal(part: Part, dtype: torch.dtype) -> None:
    adapter, fresh, file = part.grown(dtype), part.make().to(dtype).eval(), io.BytesIO()
    torch.save(adapter.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = part.draw("plain", 0, dtype)
    expected = part.call(adapter, x)
    for twin in (copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter)), fresh):
        assert torch.equal(part.call(twin, x), expected)
        assert len(list(twin.parameters())) == len(list(adapter.parameters()))
        with torch.no_grad():
            next(iter(twin.parameters())).add_(1)
        assert torch.equal(part.call(adapter, x), expected)
