"""ConvAdapter, CDCAdapter, AMA: behaviour in models that others wrote."""

import copy
import doctest
import pickle
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from balancekit.adapters import AMA, CDCAdapter, ConvAdapter, Parallel, Tap, _ama, _cdc_adapter, _conv_adapter, missing
from tests.compiling import fullgraph

NAMES = ("rgb", "depth")


class Block(nn.Module):
    """A transformer block whose attention returns one tensor, as in timm."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn, self.mlp = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@pytest.mark.parametrize("module", [_conv_adapter, _cdc_adapter, _ama], ids=lambda module: module.__name__)
def test_doctests(module: ModuleType) -> None:
    torch.manual_seed(0)
    result = doctest.testmod(module)
    assert result.attempted > 0 and result.failed == 0


def test_a_block_with_ama_beside_attention_and_mlp_is_unchanged_and_learns() -> None:
    torch.manual_seed(0)
    block = Block().requires_grad_(False)
    x, target = torch.randn(4, 1 + 2 * 4, 6), torch.randn(4, 1 + 2 * 4, 6)
    before = block(x)
    block.attn = Parallel(block.attn, AMA(NAMES, 6, grid=2))
    block.mlp = Parallel(block.mlp, AMA(NAMES, 6, grid=2))
    assert torch.equal(block(x), before)
    trained = [*block.attn.side.parameters(), *block.mlp.side.parameters()]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (block(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {p for p in block.parameters() if p.grad is not None} == set(trained)


def test_missing_reaches_an_ama_inside_a_block() -> None:
    torch.manual_seed(0)
    block = Block()
    block.attn = Parallel(block.attn, AMA(NAMES, 6, grid=2, dropout=0.0))
    nn.init.normal_(block.attn.side.up.weight)
    plain = Block()
    plain.load_state_dict(block.state_dict(), strict=False)
    x = torch.randn(2, 9, 6)
    with missing(block, torch.tensor([[True, True], [True, False]])):  # sample 1 has no depth
        out = block(x)
    assert torch.equal(out[1, 5:], plain(x)[1, 5:])
    assert torch.equal(out[0], block(x)[0]) and not torch.equal(out[0], plain(x)[0])


def test_the_weights_are_read_by_a_tap_and_by_a_hook_and_kept_by_nobody() -> None:
    ama = AMA(NAMES, 6, grid=2)
    before = set(vars(ama)) | set(ama.state_dict())
    tap, heard = Tap(ama.gate, lambda w: w), []
    ama.gate.register_forward_hook(lambda module, args, weights: heard.append(weights))
    for _ in range(2):
        ama(torch.randn(3, 9, 6))
        assert torch.equal(tap.value, heard[-1]) and tap.value.shape == (3, 2)
    assert not torch.equal(heard[0], heard[1])
    assert heard[0].requires_grad and not tap.value.requires_grad
    assert set(vars(ama)) | set(ama.state_dict()) == before


def test_the_weights_are_trained_through_the_delta() -> None:
    torch.manual_seed(0)
    ama = AMA(NAMES, 6, grid=2, dropout=0.0)
    nn.init.normal_(ama.up.weight)
    ama(torch.randn(3, 9, 6)).square().sum().backward()
    assert ama.gate.linear.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "adapter",
    [ConvAdapter(6, grid=2, dropout=0.5), CDCAdapter(6, grid=2, dropout=0.5), AMA(("rgb",), 6, grid=2, dropout=0.5)],
    ids=lambda adapter: type(adapter).__name__,
)
def test_dropout_acts_in_training_only(adapter: nn.Module) -> None:
    torch.manual_seed(0)
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(2, 5, 6)
    assert not torch.equal(adapter.train()(x), adapter(x))
    assert torch.equal(adapter.eval()(x), adapter(x))


def test_the_factory_arguments_reach_every_parameter() -> None:
    to = {"device": "meta", "dtype": torch.float64}
    for adapter in (ConvAdapter(8, grid=2, **to), CDCAdapter(8, grid=2, **to), AMA(NAMES, 8, grid=2, **to)):
        assert {(p.device.type, p.dtype) for p in adapter.parameters()} == {("meta", torch.float64)}


def test_the_grid_is_a_side_or_height_and_width() -> None:
    assert ConvAdapter(6, grid=3).grid == (3, 3)
    assert AMA(NAMES, 6, grid=(2, 3)).grid == (2, 3)
    assert "theta=0.7" in repr(CDCAdapter(6, grid=3)) and "(2, 3)" in repr(AMA(NAMES, 6, grid=(2, 3)))


def test_an_error_of_the_call_leaves_the_block_usable() -> None:
    ama = AMA(NAMES, 6, grid=2)
    x = torch.randn(2, 9, 6)
    with pytest.raises(ValueError, match="present"), missing(ama, torch.ones(2, 3, dtype=torch.bool)):
        ama(x)
    assert ama(x).shape == x.shape


@pytest.mark.compiles
def test_a_cdc_adapter_compiles_to_one_graph() -> None:
    torch.manual_seed(0)
    adapter = CDCAdapter(6, width=2, grid=2, dropout=0.0)
    nn.init.normal_(adapter.up.weight)
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(fullgraph(adapter)(x), adapter(x))


@pytest.mark.compiles
def test_an_ama_compiles_to_one_graph_that_heeds_what_is_missing() -> None:
    torch.manual_seed(0)
    ama = AMA(NAMES, 6, width=2, grid=2, dropout=0.0)
    nn.init.normal_(ama.up.weight)
    x, compiled = torch.randn(2, 9, 6), fullgraph(ama)
    for present in ([[True, True], [False, True]], [[False, True], [True, True]]):
        with missing(ama, torch.tensor(present)):
            torch.testing.assert_close(compiled(x), ama(x))


COUNT, NATURAL, SHARE = "an integer of at least 1", "an integer of at least 0", "a number in [0.0, 1.0]"
SINGLE, SEVERAL = ConvAdapter(6, grid=2), AMA(NAMES, 6, grid=2)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: ConvAdapter(0, grid=2), f"dim: expected {COUNT}, found 0"),
        (lambda: ConvAdapter(6, width=0, grid=2), f"width: expected {COUNT}, found 0"),
        (lambda: ConvAdapter(6, grid=2, prefix=-1), f"prefix: expected {NATURAL}, found -1"),
        (lambda: ConvAdapter(6, grid=2, dropout=1.1), f"dropout: expected {SHARE}, found 1.1"),
        (lambda: ConvAdapter(6, grid=2, dropout=-0.1), f"dropout: expected {SHARE}, found -0.1"),
        (lambda: CDCAdapter(6, theta=1.1, grid=2), f"theta: expected {SHARE}, found 1.1"),
        (lambda: CDCAdapter(6, theta=-0.1, grid=2), f"theta: expected {SHARE}, found -0.1"),
        (lambda: AMA(NAMES, 0, grid=2), f"dim: expected {COUNT}, found 0"),
        (lambda: AMA(NAMES, 6, width=0, grid=2), f"width: expected {COUNT}, found 0"),
        (lambda: AMA(NAMES, 6, grid=2, prefix=-1), f"prefix: expected {NATURAL}, found -1"),
        (lambda: AMA(NAMES, 6, grid=2, dropout=1.1), f"dropout: expected {SHARE}, found 1.1"),
        (lambda: AMA(NAMES, 6, grid=2, dropout=-0.1), f"dropout: expected {SHARE}, found -0.1"),
        (lambda: SINGLE(torch.ones(5, 6)), "tokens: expected a floating-point tensor 'b n d', found a float32"),
        (lambda: SINGLE(torch.ones(2, 4, 6)), "tokens: expected 1 prefix + 2·2 grid = 5 tokens, found"),
        (lambda: SEVERAL(torch.ones(9, 6)), "tokens: expected a floating-point tensor 'b n d', found a float32"),
    ],
)
def test_a_wrong_argument_is_told_what_is_expected(call: Callable[[], object], told: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(("device", "place"), [("cpu", "shape (2, 3)"), ("meta", "on cpu")])
def test_who_is_present_must_fit_the_tokens(device: str, place: str) -> None:
    present = torch.ones(2, 2 if device == "cpu" else 3, dtype=torch.bool, device=device)
    with missing(SEVERAL, present), pytest.raises(ValueError, match=r"^present: expected a tensor") as caught:
        SEVERAL(torch.ones(3, 9, 6))
    assert place in str(caught.value)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_the_bounds_are_allowed(dropout: float) -> None:
    options = {"width": 1, "grid": 1, "prefix": 0, "dropout": dropout}
    made = [ConvAdapter(1, **options), CDCAdapter(1, theta=dropout, **options), AMA(("a",), 1, **options)]
    for adapter in made:
        assert (adapter.dim, adapter.prefix, adapter.dropout.p) == (1, 0, dropout)
        assert adapter(torch.ones(2, 1, 1)).shape == (2, 1, 1)
    assert made[1].theta == dropout


def test_the_defaults_are_those_of_the_released_code() -> None:
    for adapter in (ConvAdapter(6, grid=2), CDCAdapter(6, grid=2), AMA(NAMES, 6, grid=2)):
        assert (adapter.down.out_features, adapter.prefix, adapter.dropout.p) == (8, 1, 0.1)
        assert (adapter.conv.kernel_size, adapter.conv.padding, adapter.conv.bias) == ((3, 3), "same", None)


def test_what_an_adapter_prints() -> None:
    assert ConvAdapter(6, grid=(2, 3), prefix=2).extra_repr() == "grid=(2, 3), prefix=2"
    assert CDCAdapter(6, theta=0.5, grid=(2, 3)).extra_repr() == "grid=(2, 3), prefix=1, theta=0.5"
    assert AMA(NAMES, 6, grid=(2, 3), prefix=0).extra_repr() == "('rgb', 'depth'), grid=(2, 3), prefix=0"


def test_a_copy_made_within_missing_lacks_nobody() -> None:
    ama = AMA(NAMES, 6, grid=2)
    with missing(ama, torch.ones(2, 1, dtype=torch.bool)):
        twins = [copy.deepcopy(ama), pickle.loads(pickle.dumps(ama))]
    for twin in twins:
        assert twin._present is None
        assert "_present" in vars(twin) and set(vars(twin)) == set(vars(ama))
