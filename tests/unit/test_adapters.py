"""Adapters: behaviour in models that others wrote."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from balancekit import adapters
from balancekit.adapters import (
    CentralDifferenceConv2d,
    CrossModal,
    GatedCrossAttention,
    Parallel,
    Tap,
    gated_attention,
    hub,
)
from balancekit.adapters._bottleneck import UpProjection, quick_gelu
from balancekit.adapters._gate import _loud
from tests.compiling import fullgraph

NAMES = ("rgb", "depth", "ir")


def confidence(attention: tuple[Tensor, ...]) -> Tensor:
    return torch.exp(-attention[0].abs()).mean(-1)


def encoder() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def wire(model: nn.TransformerEncoder, *, in_place: bool = False) -> list[CrossModal]:
    """An adapter beside each layer of the encoder, gated by what its attention says."""
    crosses = []
    for place, layer in enumerate(model.layers):
        tap = Tap(layer.self_attn, confidence)
        if in_place:
            layer.self_attn = tap
        cross = CrossModal(NAMES, hub("rgb", NAMES), partial(GatedCrossAttention, 16), confidence=tap)
        model.layers[place] = Parallel(layer, cross)
        crosses.append(cross)
    return crosses


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_an_encoder_of_torch_is_unchanged_and_keeps_its_keys(in_place: bool, training: bool) -> None:
    torch.manual_seed(0)
    model = encoder().train(training)
    x = torch.randn(6, 10, 16)
    before, state = model(x), model.state_dict()
    wire(model, in_place=in_place)
    assert torch.equal(model(x), before)
    wired = model.state_dict()
    assert {key for key in wired if ".side." not in key} == set(state)
    assert all(torch.equal(wired[key], value) for key, value in state.items())
    with torch.no_grad():  # torch's fused inference path would skip the tapped attention; the hook keeps it off
        torch.testing.assert_close(model(x), before)
    model.load_state_dict(state, strict=False)


def test_only_the_adapters_of_a_frozen_encoder_learn() -> None:
    torch.manual_seed(0)
    model = encoder().requires_grad_(False)
    crosses = wire(model)
    x, target = torch.randn(6, 10, 16), torch.randn(6, 10, 16)
    trained = [parameter for cross in crosses for parameter in cross.parameters()]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {p for p in model.parameters() if p.grad is not None} == set(trained)


def test_the_receiver_owns_the_adapter() -> None:
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(GatedCrossAttention, 16))
    assert cross.into("rgb") == [cross.adapters["depth_to_rgb"], cross.adapters["ir_to_rgb"]]
    assert cross.into("depth") == [cross.adapters["rgb_to_depth"]]
    owned = [adapter for name in NAMES for adapter in cross.into(name)]
    assert set(owned) == set(cross.adapters.values())
    assert CrossModal(NAMES, [("rgb", "depth")], partial(GatedCrossAttention, 16)).into("ir") == []


def test_gradients_of_a_receiver_reach_only_its_own_adapters() -> None:
    torch.manual_seed(0)
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(GatedCrossAttention, 16))
    cross(torch.randn(6, 4, 16)).unflatten(0, (3, 2))[NAMES.index("depth")].sum().backward()
    reached = {p for p in cross.parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached
    assert reached <= {p for adapter in cross.into("depth") for p in adapter.parameters()}


class Says(nn.Module):
    """An adapter whose delta is the confidence that it was handed."""

    def __init__(self, confidence_of: tuple[str, ...] | None = None) -> None:
        super().__init__()
        if confidence_of is not None:
            self.confidence_of = confidence_of

    def forward(
        self, own: Tensor, other: Tensor, confidence: Tensor | None, own_confidence: Tensor | None = None
    ) -> Tensor:
        total = sum(10**i * u for i, u in enumerate((confidence, own_confidence)) if u is not None)
        assert isinstance(total, Tensor)
        return total[..., None].expand_as(own)


@pytest.mark.parametrize(("whose", "rgb"), [(None, 2.0), (("other",), 2.0), (("own",), 10.0), (("own", "other"), 12.0)])
def test_the_confidence_handed_over_is_the_one_the_gate_means(whose: tuple[str, ...] | None, rgb: float) -> None:
    cross = CrossModal(NAMES, [("depth", "rgb")], partial(Says, whose))
    trust = torch.tensor([1.0, 2.0, 3.0])[:, None].expand(3, 4)
    assert (cross(torch.zeros(3, 4, 2), trust)[0] == rgb).all()


@pytest.mark.parametrize(
    ("gate", "asked_by_other", "asked_by_own"),
    [
        ("query", {"other"}, {"own"}),
        ("key", {"own"}, {"other"}),
        ("output", {"other"}, {"other"}),
        ("key+output", {"own", "other"}, {"other"}),
    ],
)
def test_whose_confidence_a_gate_reads(gate: str, asked_by_other: set[str], asked_by_own: set[str]) -> None:
    assert set(GatedCrossAttention(8, gate=gate).confidence_of) == asked_by_other
    assert set(GatedCrossAttention(8, gate=gate, queries="own").confidence_of) == asked_by_own


def test_an_explicit_confidence_outranks_the_tap() -> None:
    source = nn.Identity()
    tap = Tap(source, lambda x: x[..., 0])
    cross = CrossModal(NAMES, [("depth", "rgb")], Says, confidence=tap)
    tokens = torch.zeros(3, 4, 2)
    source(torch.full((3, 4, 2), 0.25))
    assert (cross(tokens)[0] == 0.25).all()
    assert (cross(tokens, torch.full((3, 4), 0.5))[0] == 0.5).all()


def test_the_tap_is_no_part_of_the_wiring() -> None:
    attention = nn.MultiheadAttention(16, 2)
    cross = CrossModal(NAMES, (), partial(GatedCrossAttention, 16), confidence=Tap(attention, confidence))
    assert not list(cross.parameters())


def test_the_tap_holds_the_last_run_and_no_graph() -> None:
    layer = nn.Linear(3, 3)
    tap = Tap(layer, lambda y: y)
    for scale in (1.0, 2.0):
        x = torch.full((2, 3), scale)
        y = layer(x)
        assert torch.equal(tap.value, y)
        assert not tap.value.requires_grad and tap.value.grad_fn is None


def test_the_tap_in_place_runs_once_and_reads_like_its_module() -> None:
    calls: list[int] = []
    layer = nn.Linear(3, 4)

    def count(y: Tensor) -> Tensor:
        calls.append(1)
        return y

    tap = Tap(layer, count)
    tap(torch.zeros(2, 3))
    assert len(calls) == 1
    assert tap.out_features == 4 and tap.weight is layer.weight
    assert list(tap.state_dict()) == ["weight", "bias"]
    with pytest.raises(AttributeError, match="absent"):
        _ = tap.absent


def test_a_failing_function_leaves_the_old_value() -> None:
    layer = nn.Linear(3, 3)
    answers = [torch.ones(()), None]
    tap = Tap(layer, lambda _: answers.pop(0))
    layer(torch.zeros(1, 3))
    with pytest.raises(TypeError, match="fn"):
        layer(torch.zeros(1, 3))
    assert tap.value == 1


def test_parallel_adds_scales_and_passes_arguments_on() -> None:
    class Base(nn.Module):
        def forward(self, x: Tensor, y: Tensor, *, times: float) -> Tensor:
            return (x + y) * times

    module = Parallel(Base(), nn.Identity(), scale=0.5)
    assert torch.equal(module(torch.ones(2), torch.ones(2), times=3.0), torch.full((2,), 6.5))


@pytest.mark.parametrize("training", [False, True])
def test_the_side_takes_mode_device_and_dtype_of_the_base(training: bool) -> None:
    base = nn.Linear(3, 3, dtype=torch.bfloat16, device="meta").train(training)
    module = Parallel(base, nn.Linear(3, 3).train(not training))
    assert module.side.training == training
    assert module.side.weight.dtype == torch.bfloat16
    assert module.side.weight.device.type == "meta"
    bare = Parallel(nn.Identity(), nn.Linear(3, 3, dtype=torch.float64))
    assert bare.side.weight.dtype == torch.float64


def test_parallel_and_tap_nest() -> None:
    layer = nn.Linear(3, 3)
    keys = list(layer.state_dict())
    tap = Tap(layer, lambda y: y.mean())
    outer = Tap(Parallel(tap, nn.Linear(3, 3)), lambda y: y.sum())
    out = outer(torch.ones(2, 3))
    assert torch.equal(outer.value, out.sum()) and torch.equal(tap.value, layer(torch.ones(2, 3)).mean())
    assert set(keys) <= set(outer.state_dict())
    assert outer.in_features == 3
    twin = Parallel(nn.Linear(3, 3), nn.Linear(3, 3))
    twin.load_state_dict(outer.state_dict())
    assert torch.equal(twin.base.weight, layer.weight)


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    adapter = GatedCrossAttention(16, dropout=0.5)
    nn.init.normal_(adapter.up.weight)
    own, other = torch.randn(2, 9, 16), torch.randn(2, 9, 16)
    assert not torch.equal(adapter(own, other), adapter(own, other))
    adapter.eval()
    assert torch.equal(adapter(own, other), adapter(own, other))


def test_initialisation() -> None:
    torch.manual_seed(0)
    adapter = GatedCrossAttention(64, other_dim=32)
    for down in (adapter.down_own, adapter.down_other):
        bound = (6 / (down.in_features + down.out_features)) ** 0.5
        assert (down.bias == 0).all()
        assert 0.9 * bound < down.weight.abs().max() <= bound
    assert (adapter.up.weight == 0).all() and (adapter.up.bias == 0).all()
    assert (adapter.query.bias, adapter.key.bias, adapter.value.bias) == (None, None, None)


def test_the_factory_arguments_reach_every_parameter() -> None:
    adapter = GatedCrossAttention(8, conv="cdc", grid=2, device="meta", dtype=torch.float64)
    assert {(p.device.type, p.dtype) for p in adapter.parameters()} == {("meta", torch.float64)}


def test_theta_zero_is_plain_bit_for_bit() -> None:
    conv = CentralDifferenceConv2d(2, 3, theta=0.0, padding=1, stride=2, padding_mode="reflect")
    image = torch.randn(1, 2, 6, 6)
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    assert conv.kernel is conv.weight
    torch.testing.assert_close(conv(image), F.conv2d(padded, conv.weight, conv.bias, stride=2))
    assert "theta=0.0" in repr(conv)


def test_central_differences_reach_the_weight() -> None:
    conv = CentralDifferenceConv2d(1, 1, theta=1.0, bias=False)
    conv(torch.ones(1, 1, 3, 3)).sum().backward()
    assert conv.weight.grad is not None and conv.weight.grad.isfinite().all()


def test_a_hub_links_the_centre_both_ways_and_nobody_else() -> None:
    edges = hub("b", ("a", "b", "c"))
    assert set(edges) == {("b", "a"), ("a", "b"), ("b", "c"), ("c", "b")}
    assert hub("a", ["a"]) == ()


def test_the_door_is_complete() -> None:
    assert sorted(adapters.__all__) == adapters.__all__
    assert all(hasattr(adapters, name) for name in adapters.__all__)


def test_all_keys_at_zero_does_not_lean_on_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels differ on rows that are masked throughout; this one makes NaN of them."""

    def plain(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor, scale: float) -> Tensor:
        return torch.softmax(q @ k.mT * scale + attn_mask, -1) @ v

    monkeypatch.setattr(F, "scaled_dot_product_attention", plain)
    q, k, v = (torch.randn(2, 1, 3, 4).requires_grad_() for _ in range(3))
    out = gated_attention(q, k, v, torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.5]]), "key")
    assert (out[0] == 0).all() and out[1].isfinite().all()
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(out.sum(), (q, k, v)))


@pytest.mark.parametrize("gate", ["query", "key", "key+output"])
def test_an_adapter_compiles_to_one_graph(gate: str) -> None:
    torch.manual_seed(0)
    adapter = GatedCrossAttention(6, width=4, heads=4, gate=gate, conv="cdc", grid=2, dropout=0.0)
    nn.init.normal_(adapter.up.weight)
    own, other = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    u = torch.tensor([[0.0, 0.5, 1.0, 0.0, 0.2], [0.0] * 5])
    read = adapter.confidence_of
    trust = {"confidence": u if "other" in read else None, "own_confidence": u if "own" in read else None}
    torch.testing.assert_close(fullgraph(adapter)(own, other, **trust), adapter(own, other, **trust))


class Tiny(nn.Module):
    """A block without attention, which compiles quickly."""

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_wired_block_compiles_to_one_graph_and_never_reads_an_old_tap(in_place: bool) -> None:
    torch.manual_seed(0)
    block = Tiny()
    tap = Tap(block.attn, lambda y: torch.sigmoid(y).mean(-1))
    if in_place:
        block.attn = tap
    make = partial(GatedCrossAttention, 6, width=2, heads=1, dropout=0.0)
    cross = CrossModal(NAMES, [("rgb", "depth"), ("ir", "depth")], make, confidence=tap)
    block.mlp = Parallel(block.mlp, cross)
    for adapter in cross.into("depth"):
        nn.init.normal_(adapter.up.weight)
    compiled = fullgraph(block)
    for _ in range(2):
        x = torch.randn(6, 5, 6)
        found, seen = compiled(x), tap.value
        torch.testing.assert_close(found, block(x))
        torch.testing.assert_close(seen, tap.value)


# --- what a wrong argument is told, word for word

TOKENS, SCORES = torch.zeros(2, 5, 8), torch.zeros(2, 1, 3, 4)
PLAIN = GatedCrossAttention(8)
WIRED = CrossModal(NAMES, hub("rgb", NAMES), partial(GatedCrossAttention, 8))
BATCH = torch.zeros(6, 5, 8)
KERNEL = torch.zeros(3, 8, 3, 3)
COUNT, NATURAL, SHARE = "an integer of at least 1", "an integer of at least 0", "a number in [0.0, 1.0]"
FLOATING = "a floating-point tensor"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: GatedCrossAttention(0), f"dim: expected {COUNT}, found 0"),
        (lambda: GatedCrossAttention(8, other_dim=0), f"other_dim: expected {COUNT}, found 0"),
        (lambda: GatedCrossAttention(8, width=0), f"width: expected {COUNT}, found 0"),
        (lambda: GatedCrossAttention(8, heads=0), f"heads: expected {COUNT}, found 0"),
        (lambda: GatedCrossAttention(8, queries="x"), "queries: expected one of 'other', 'own', found 'x'"),
        (
            lambda: GatedCrossAttention(8, gate="x"),
            "gate: expected one of 'query', 'key', 'output', 'key+output', found 'x'",
        ),
        (lambda: GatedCrossAttention(8, conv="x"), "conv: expected one of None, 'plain', 'cdc', found 'x'"),
        (lambda: GatedCrossAttention(8, theta=-0.1), f"theta: expected {SHARE}, found -0.1"),
        (lambda: GatedCrossAttention(8, theta=1.1), f"theta: expected {SHARE}, found 1.1"),
        (lambda: GatedCrossAttention(8, prefix=-1), f"prefix: expected {NATURAL}, found -1"),
        (lambda: GatedCrossAttention(8, dropout=-0.1), f"dropout: expected {SHARE}, found -0.1"),
        (lambda: GatedCrossAttention(8, dropout=1.1), f"dropout: expected {SHARE}, found 1.1"),
        (lambda: GatedCrossAttention(8, scale=torch.nan), "scale: expected a number in [-inf, inf], found nan"),
        (lambda: GatedCrossAttention(8, conv="cdc", grid=0), f"grid: expected {COUNT}, found 0"),
        (lambda: PLAIN([1], TOKENS), f"own: expected {FLOATING} 'b n d', found [1]"),
        (lambda: PLAIN(TOKENS[0], TOKENS), f"own: expected {FLOATING} 'b n d', found a float32"),
        (lambda: PLAIN(TOKENS, TOKENS[0]), f"other: expected {FLOATING} 'b k e', found a float32"),
        (lambda: PLAIN(TOKENS, TOKENS[:1]), "other: expected a tensor of shape (2, 5, 8), found a float32"),
        (lambda: PLAIN(TOKENS, TOKENS.to("meta")), "other: expected a tensor on cpu, found one on meta"),
        (lambda: PLAIN(TOKENS, TOKENS, TOKENS), f"confidence: expected {FLOATING} 'b n', found a float32"),
        (lambda: PLAIN(TOKENS, TOKENS, TOKENS[:, :2, 0]), "confidence: expected a tensor of shape (2, 5), found"),
        (
            lambda: PLAIN(TOKENS, TOKENS, TOKENS[..., 0].to("meta")),
            "confidence: expected a tensor on cpu, found one on meta",
        ),
        (lambda: gated_attention(SCORES, SCORES, SCORES, gate="x"), "gate: expected one of 'query', 'key', found 'x'"),
        (lambda: gated_attention([1], SCORES, SCORES), f"q: expected {FLOATING} 'b h n d', found [1]"),
        (lambda: gated_attention(SCORES, SCORES[0], SCORES), f"k: expected {FLOATING} 'b h n d', found a float32"),
        (lambda: gated_attention(SCORES, SCORES, SCORES[0]), f"v: expected {FLOATING} 'b h n d', found a float32"),
        (lambda: gated_attention(SCORES, SCORES[:1], SCORES), "k: expected a tensor of shape (2, 1, 3, 4), found"),
        (lambda: gated_attention(SCORES, SCORES, SCORES[:1]), "v: expected a tensor of shape (2, 1, 3, 4), found"),
        (lambda: gated_attention(SCORES, SCORES.to("meta"), SCORES), "k: expected a tensor on cpu, found one on meta"),
        (
            lambda: gated_attention(SCORES, SCORES, SCORES, SCORES),
            f"confidence: expected {FLOATING} 'b n', found a float32",
        ),
        (
            lambda: gated_attention(SCORES, SCORES, SCORES, SCORES[:, 0, :2, 0]),
            "confidence: expected a tensor of shape (2, 3), found",
        ),
        (
            lambda: gated_attention(SCORES, SCORES, SCORES, SCORES[:, 0, :, 0].to("meta")),
            "confidence: expected a tensor on cpu, found one on meta",
        ),
        (lambda: WIRED(BATCH[0]), f"tokens: expected {FLOATING} '(m b) n d', found a float32"),
        (lambda: WIRED({"ir": BATCH[0]}), f"tokens['ir']: expected {FLOATING} 'b n d', found a float32"),
        (
            lambda: WIRED({"rgb": BATCH, "ir": BATCH.to("meta")}),
            "tokens['ir']: expected a tensor on cpu, found one on meta",
        ),
        (lambda: WIRED(BATCH, BATCH), f"confidence: expected {FLOATING} '(m b) n', found a float32"),
        (lambda: WIRED(BATCH, BATCH[:2, :, 0]), "confidence: expected a tensor of shape (6, 5), found"),
        (lambda: WIRED(BATCH, BATCH[..., 0].to("meta")), "confidence: expected a tensor on cpu, found one on meta"),
        (
            lambda: WIRED({"rgb": BATCH}, {"rgb": BATCH}),
            f"confidence['rgb']: expected {FLOATING} 'b n', found a float32",
        ),
        (
            lambda: WIRED({"rgb": BATCH}, {"rgb": BATCH[:2, :, 0]}),
            "confidence['rgb']: expected a tensor of shape (6, 5), found",
        ),
        (
            lambda: WIRED({"rgb": BATCH}, {"rgb": BATCH[..., 0].to("meta")}),
            "confidence['rgb']: expected a tensor on cpu, found one on meta",
        ),
        (
            lambda: WIRED(BATCH, present=torch.ones(3, 1, dtype=torch.bool)),
            "present: expected a tensor of shape (3, 2), found",
        ),
        (
            lambda: WIRED(BATCH, present=torch.ones(3, 2, dtype=torch.bool, device="meta")),
            "present: expected a tensor on cpu, found one on meta",
        ),
        (lambda: WIRED.into("x"), "modality: expected one of 'rgb', 'depth', 'ir', found 'x'"),
        (lambda: hub("x", NAMES), "center: expected one of 'rgb', 'depth', 'ir', found 'x'"),
        (lambda: Parallel(nn.Identity(), PLAIN, scale=torch.nan), "scale: expected a number in [-inf, inf], found nan"),
        (lambda: CentralDifferenceConv2d(1, 1, (3, 0)), f"kernel_size: expected {COUNT}, found 0"),
        (lambda: CentralDifferenceConv2d(1, 1, theta=1.1), f"theta: expected {SHARE}, found 1.1"),
        (lambda: CentralDifferenceConv2d(1, 1, theta=-0.1), f"theta: expected {SHARE}, found -0.1"),
        (
            lambda: adapters.central_difference(KERNEL[0], 0),
            f"weight: expected {FLOATING} 'o i kh kw', found a float32",
        ),
        (lambda: adapters.central_difference(KERNEL, 1.1), f"theta: expected {SHARE}, found 1.1"),
        (lambda: adapters.central_difference(KERNEL, -0.1), f"theta: expected {SHARE}, found -0.1"),
        (lambda: adapters.convolve_tokens(TOKENS, KERNEL, (2, 0)), f"grid: expected {COUNT}, found 0"),
        (lambda: adapters.convolve_tokens(TOKENS, KERNEL, 2, -1), f"prefix: expected {NATURAL}, found -1"),
        (
            lambda: adapters.convolve_tokens(TOKENS[0], KERNEL, 2),
            f"tokens: expected {FLOATING} 'b n i', found a float32",
        ),
        (
            lambda: adapters.convolve_tokens(TOKENS, KERNEL[0], 2),
            f"kernel: expected {FLOATING} 'o i kh kw', found a float32",
        ),
        (
            lambda: adapters.convolve_tokens(TOKENS, KERNEL[:, :1], 2),
            "kernel: expected a tensor of shape (3, 8, 3, 3), found",
        ),
        (
            lambda: adapters.convolve_tokens(TOKENS, KERNEL.to("meta"), 2),
            "kernel: expected a tensor on cpu, found one on meta",
        ),
        (
            lambda: adapters.convolve_tokens(TOKENS, KERNEL, 3),
            "tokens: expected 1 prefix + 3·3 grid = 10 tokens, found",
        ),
    ],
)
def test_a_wrong_argument_is_told_what_is_expected(call: Callable[[], object], told: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    "options",
    [
        {"theta": 0.0, "prefix": 0, "dropout": 0.0, "width": 1, "heads": 1, "other_dim": 1},
        {"theta": 1.0, "prefix": 2, "dropout": 1.0, "width": 4, "heads": 4, "scale": 0},
    ],
)
def test_the_bounds_are_allowed(options: dict[str, float]) -> None:
    adapter = GatedCrossAttention(1, conv="cdc", grid=1, **options)
    assert (adapter.conv.theta, adapter.prefix, adapter.dropout.p) == tuple(
        options[name] for name in ("theta", "prefix", "dropout")
    )


def test_the_defaults_are_those_of_the_released_code() -> None:
    adapter = GatedCrossAttention(8, conv="cdc", grid=2)
    assert (adapter.dim, adapter.other_dim, adapter.heads, adapter.prefix) == (8, 8, 8, 1)
    assert (adapter.queries, adapter.gate, adapter.scale, adapter.grid) == ("other", "query", 1.0, (2, 2))
    assert adapter.dropout.p == 0.2 and adapter.conv.theta == 0.5 and adapter.conv.bias is None
    assert (adapter.down_own.out_features, adapter.norm.normalized_shape) == (8, (8,))
    assert isinstance(adapter.query_norm, nn.Identity) and isinstance(adapter.key_norm, nn.Identity)
    assert GatedCrossAttention(8).conv is None and GatedCrossAttention(8).grid is None
    assert GatedCrossAttention(8, conv="plain", grid=2).conv.theta == 0.0
    conv = CentralDifferenceConv2d(2, 3)
    assert (conv.kernel_size, conv.padding, conv.theta) == ((3, 3), "same", 0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_learned_scale_and_both_norms_have_the_dtype(dtype: torch.dtype) -> None:
    adapter = GatedCrossAttention(8, qk_norm=True, scale="learned", dtype=dtype, device="cpu")
    assert {parameter.dtype for parameter in adapter.parameters()} == {dtype}
    assert adapter.scale.shape == ()


@pytest.mark.parametrize("gate", ["output", "key+output"])
def test_without_tokens_to_trust_the_delta_is_zero(gate: str) -> None:
    adapter = GatedCrossAttention(8, queries="own", gate=gate)
    nn.init.ones_(adapter.up.bias)
    delta = adapter(torch.ones(2, 3, 8), torch.ones(2, 0, 8), torch.ones(2, 0))
    assert torch.equal(delta, torch.zeros(2, 3, 8))


def test_where_the_own_tokens_ask_the_mean_confidence_multiplies_the_delta() -> None:
    adapter = GatedCrossAttention(8, queries="own", gate="output", scale=3, dtype=torch.float64).eval()
    nn.init.ones_(adapter.up.bias)
    trust = torch.tensor([[1.0, 0.5, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    delta = adapter(torch.ones(2, 3, 8).double(), torch.ones(2, 4, 8).double(), trust)
    torch.testing.assert_close(delta, 3 * trust.mean(1)[:, None, None].expand(2, 3, 8))


F32_LARGE, F64_LARGE = 3e38, 1e308


def test_a_row_with_nan_or_overflow_is_nan_and_no_other() -> None:
    q, k, out = torch.ones(2, 2, 3, 4).double(), torch.ones(2, 2, 5, 4).double(), torch.zeros(2, 2, 3, 4).double()
    assert torch.equal(_loud(out, q, k), out)
    q[0, 1, 2, 3] = F64_LARGE  # times the width: overflow
    k[1, 0, 4, 2] = torch.nan
    expected = torch.zeros(2, 2, 3, dtype=torch.bool)
    expected[0, 1, 2] = True
    expected[1, 0] = True
    assert torch.equal(_loud(out, q, k).isnan(), expected[..., None].expand(out.shape))
    closed = torch.zeros(2, 5, dtype=torch.bool)
    closed[1, 4] = True
    expected[1, 0] = False
    assert torch.equal(_loud(out, q, k, closed).isnan(), expected[..., None].expand(out.shape))


def test_the_largest_possible_score_grows_with_the_width() -> None:
    out = torch.zeros(1, 1, 1, 1)
    for width, overflow in ((1, False), (2, True)):
        q, k = torch.full((1, 1, 1, width), F32_LARGE), -torch.ones(1, 1, 1, width)
        assert _loud(out, q, k).isnan().item() == overflow
    half = _loud(out.bfloat16(), torch.ones(1, 1, 1, 2).bfloat16(), torch.ones(1, 1, 1, 2).bfloat16())
    assert half.dtype == torch.bfloat16
    assert torch.equal(_loud(out, torch.ones(1, 1, 1, 2), torch.ones(1, 1, 0, 2)), out)


def test_quick_gelu_by_hand() -> None:
    x = [-3.0, -0.5, 0.0, 0.25, 2.0]
    expected = [value / (1 + math.exp(-1.702 * value)) for value in x]
    torch.testing.assert_close(quick_gelu(torch.tensor(x).double()), torch.tensor(expected).double())


def test_a_gate_multiplies_the_rows_of_an_up_projection() -> None:
    up = UpProjection(2, 3)
    assert (up.weight == 0).all() and (up.bias == 0).all()
    with torch.no_grad():
        up.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        up.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    x, gate = torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([0.5, 2.0]).double()
    assert up(x).tolist() == [[4.0, 7.0, 10.0], [3.0, 6.0, 9.0]]
    assert up(x, gate).tolist() == [[2.0, 3.5, 5.0], [6.0, 12.0, 18.0]]


def test_a_value_of_the_tap_that_does_not_fit_names_the_tap() -> None:
    source = nn.Identity()
    cross = CrossModal(NAMES, (), partial(GatedCrossAttention, 8), confidence=Tap(source, lambda y: y))
    source(torch.ones(1))
    with pytest.raises(ValueError, match=r"^confidence, the value of the Tap: expected a floating-point tensor"):
        cross(BATCH)
    taps = CrossModal(NAMES, (), partial(GatedCrossAttention, 8), confidence={"ir": Tap(source, lambda y: y)})
    source(torch.ones(1))
    with pytest.raises(ValueError, match=r"^confidence, the value of the Tap\['ir'\]: expected a floating-point"):
        taps(BATCH)


def test_a_side_takes_the_dtype_of_the_first_floating_parameter() -> None:
    base = nn.Module()
    base.quantised = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
    base.scale, base.last = nn.Parameter(torch.ones(2).double()), nn.Parameter(torch.ones(2).half())
    assert Parallel(base, nn.Linear(2, 2)).side.weight.dtype == torch.float64


def test_parallel_has_scale_one_and_prints_it() -> None:
    assert Parallel(nn.Identity(), nn.Identity()).extra_repr() == "scale=1.0"
    assert Parallel(nn.Identity(), nn.Identity(), scale=-0.5).extra_repr() == "scale=-0.5"


def test_a_wrapper_that_holds_nothing_yet_lacks_its_child() -> None:
    for wrapper, child in ((Parallel, "base"), (Tap, "module")):
        bare = wrapper.__new__(wrapper)
        nn.Module.__init__(bare)
        with pytest.raises(AttributeError, match=child):
            getattr(bare, child)


def test_a_tap_has_no_value_before_its_module_runs() -> None:
    with pytest.raises(RuntimeError, match=r"^Tap\.value: expected a tapped module that has run"):
        _ = Tap(nn.Linear(3, 3), torch.mean).value
