"""Behaviour of balancekit.uncertainty on real modules."""

import copy
import pickle
import pkgutil
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from balancekit import uncertainty
from balancekit.uncertainty import DeepEnsemble, MCDropout, linear_dropout_moments, variation_ratio
from balancekit.uncertainty._evidence import Evidence

FILES = ["", *(f".{module.name}" for module in pkgutil.iter_modules(uncertainty.__path__))]


# Where randomness sits


class Call(nn.Module):
    """A module made of submodules and a function of them."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x, *self.parts.values())


class DropPath(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (torch.rand(x.shape[0], 1, 1) < 0.7) / 0.7


class FusedAttention(nn.Module):
    """In timm's style: the rate is a float that is passed on in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x, dropout_p=self.drop.p if self.training else 0.0)


ROWS: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: nn.Dropout(0.3),
    "AlphaDropout": lambda: nn.AlphaDropout(0.3),
    "Dropout1d": lambda: nn.Dropout1d(0.3),
    "FeatureAlphaDropout": lambda: nn.FeatureAlphaDropout(0.3),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True),
    "TransformerEncoder": lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.3, batch_first=True), 2),
    "MultiheadAttention": lambda: Call(
        lambda _, x, attention: attention(x, x, x, need_weights=False)[0],
        attention=nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True),
    ),
    "fused attention": FusedAttention,
    "functional dropout": lambda: Call(lambda self, x: F.dropout(x, 0.3, self.training)),
    "LSTM": lambda: Call(lambda _, x, lstm: lstm(x)[0], lstm=nn.LSTM(8, 8, 2, dropout=0.3, batch_first=True)),
    "DropPath": DropPath,
}


ATTENTION = ("TransformerEncoderLayer", "TransformerEncoder", "MultiheadAttention", "fused attention")


@pytest.fixture(autouse=True)
def _own_stream() -> Any:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


@pytest.mark.parametrize("grad", ["no_grad", "inference_mode", "enable_grad"])
@pytest.mark.parametrize("chunk", [1, 5])
@pytest.mark.parametrize("row", ROWS)
def test_every_kind_of_dropout_is_on(row: str, chunk: int, grad: str) -> None:
    model, x = ROWS[row]().eval(), torch.randn(24, 5, 8)
    with getattr(torch, grad)():
        before = model(x)
        samples = MCDropout(model, 16, chunk_size=chunk)(x)
        assert torch.equal(model(x), before)
    assert samples.shape == (16, 24, 5, 8)
    spread = samples.std(0).mean()
    assert spread > 0.003
    assert len({tuple(sample.flatten().tolist()) for sample in samples}) == 16
    assert not any(module.training for module in model.modules())


MAPPED = {row: ROWS[row] for row in ("Dropout", "AlphaDropout", "Dropout1d", "FeatureAlphaDropout", "DropPath")} | {
    "functional dropout": ROWS["functional dropout"],
    **{f"{row} after dropout": lambda row=row: nn.Sequential(nn.Dropout(0.3), ROWS[row]()) for row in ATTENTION},
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # attention has no rule for vmap on a CPU
@pytest.mark.parametrize("grad", ["no_grad", "inference_mode", "enable_grad"])
@pytest.mark.parametrize("row", MAPPED)
def test_every_kind_of_dropout_that_vmap_maps_is_on(row: str, grad: str) -> None:
    model, x = MAPPED[row]().eval(), torch.randn(24, 5, 8)
    with getattr(torch, grad)():
        before = model(x)
        samples = MCDropout(model, 16, chunk_size=5, backend="vmap")(x)
        assert torch.equal(model(x), before)
    assert samples.shape == (16, 24, 5, 8)
    assert len({tuple(sample.flatten().tolist()) for sample in samples}) == 16
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("chunk", [5, 20])
@pytest.mark.parametrize("row", [*ATTENTION, "LSTM", "in place"])
def test_what_vmap_cannot_map_is_an_error(row: str, chunk: int) -> None:
    """The LSTM draws, but once for all samples of a pass; for the others the error is torch's own."""
    model = nn.Dropout(0.5, inplace=True) if row == "in place" else ROWS[row]()
    with pytest.raises(RuntimeError, match="bit-equal" if row == "LSTM" else "vmap: "):
        MCDropout(model.eval(), chunk_size=chunk, backend="vmap")(torch.randn(3, 5, 8))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("row", ["TransformerEncoderLayer", "MultiheadAttention"])
def test_spread_equals_that_of_train_mode(row: str) -> None:
    model, x = ROWS[row](), torch.randn(3, 5, 8)
    with torch.no_grad():
        reference = torch.stack([model.train()(x) for _ in range(400)]).std(0).mean()
        found = MCDropout(model.eval(), 400, chunk_size=50)(x).std(0).mean()
    assert abs(found / reference - 1) < 0.05


# Modes, buffers, exclusion


def test_normalisation_keeps_its_running_statistics_whatever_the_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    x = 5 + torch.randn(4, 3)
    outputs = []
    for mode in (True, False):
        model.train(mode)
        outputs.append(MCDropout(model)(x, generator=torch.Generator().manual_seed(0)))
        assert all(module.training is mode for module in model.modules())
    assert torch.equal(*outputs)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_mean, torch.zeros(6))  # type: ignore[arg-type]


def test_excluded_types_and_modules_stay_quiet_with_all_they_contain() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left = nn.Sequential(nn.Sequential(nn.Dropout(0.5)))
            self.right = nn.Sequential(nn.Sequential(nn.AlphaDropout(0.5)))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.left(x), self.right(x)

    model, x = Two(), torch.ones(8, 8)
    for exclude, quiet in [([model.left], 0), ([model.right], 1), ([nn.AlphaDropout], 1), ([nn.Dropout], 0)]:
        samples = MCDropout(model, exclude=exclude)(x)
        assert samples[quiet].std(0).max() == 0
        assert samples[1 - quiet].std(0).min() > 0
    assert all(module.training for module in model.modules())


def test_buffers_that_are_replaced_come_back() -> None:
    class Tally(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.seen = self.seen + len(x)
            return F.dropout(x, 0.5, self.training)

    model = Tally()
    buffer = model.seen
    for mode in (torch.enable_grad, torch.inference_mode):
        with mode():
            MCDropout(model)(torch.ones(3, 2))
        assert model.seen is buffer
        assert buffer == 0


def test_writes_to_buffers_are_undone_in_inference_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            MCDropout(model)(torch.ones(3, 4))
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_gradients_flow_through_batch_normalisation() -> None:
    """Its running statistics are part of the graph, so they must not be written to."""
    model = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))
    x = torch.randn(4, 3, requires_grad=True)
    MCDropout(model, 4)(x).square().mean().backward()
    assert x.grad is not None
    assert x.grad.norm() > 0
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("first", [nn.Dropout(0.5, inplace=True), nn.ReLU(inplace=True)])
def test_the_callers_input_is_not_written_to(first: nn.Module, chunk: int) -> None:
    x = torch.randn(3, 4)
    before, row = x.clone(), torch.randn(1, 4).expand(3, 4)
    model = nn.Sequential(first, nn.Dropout(0.5))
    MCDropout(model, 7, chunk_size=chunk)(x)  # 7 leaves a last pass of one sample
    MCDropout(model, 7, chunk_size=chunk)(row)
    assert torch.equal(x, before)
    DeepEnsemble([nn.Sequential(first, nn.Linear(4, 2)), nn.Linear(4, 2)])(x)
    assert torch.equal(x, before)


# Inputs and outputs


class Pair(NamedTuple):
    mean: Tensor
    extra: dict[str, Any]


class Multimodal(nn.Module):
    def forward(self, batch: dict[str, Any], *, mask: Tensor, scale: float = 1.0) -> Pair:
        rgb = F.dropout(batch["rgb"], 0.5, self.training) * mask[:, None] * scale * batch["gain"]
        name = batch.pop("name")
        return Pair(rgb, {"depth": [batch["depth"]], "name": name, "none": None, "tokens": 7})


@pytest.mark.parametrize("chunk", [1, 2, 6])
def test_any_inputs_and_outputs(chunk: int) -> None:
    rgb, depth, mask = torch.rand(3, 4) + 1, torch.rand(3, 2, 2), torch.tensor([1.0, 0.0, 1.0])
    batch = {"rgb": rgb, "depth": depth, "gain": torch.tensor(2.0), "name": "a"}
    out = MCDropout(Multimodal(), 6, chunk_size=chunk)(batch, mask=mask, scale=0.5)
    assert isinstance(out, Pair)
    assert out.mean.shape == (6, 3, 4)
    assert (out.mean[:, 1] == 0).all()
    kept = out.mean[:, [0, 2]] != 0
    assert torch.equal(out.mean[:, [0, 2]][kept], (2 * rgb[[0, 2]]).expand(6, 2, 4)[kept])
    assert torch.equal(out.extra["depth"][0], depth.expand(6, 3, 2, 2))
    assert out.extra["name"] == "a"
    assert out.extra["none"] is None
    assert out.extra["tokens"] == 7
    assert batch["name"] == "a"  # the model popped from its own dict


def test_chunks_of_one_need_no_batch() -> None:
    model = Call(lambda self, x: F.dropout(x, 0.5, self.training).sum())
    assert MCDropout(model, 5)(torch.ones(50)).shape == (5,)


def test_one_tensor_twice_stays_one_tensor() -> None:
    class Same(nn.Module):
        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            assert query is key
            return F.dropout(query, 0.5, self.training)

    x = torch.ones(3, 8)
    for chunk in (1, 2):
        assert MCDropout(Same(), 4, chunk_size=chunk)(x, key=x).shape == (4, 3, 8)


def test_what_cannot_be_stacked_is_an_error() -> None:
    count = iter(range(100))
    for value in (object(), None):
        model = Call(lambda self, x, v=value: [F.dropout(x, 0.5, self.training), v or next(count)])
        with pytest.raises(TypeError, match=r"model: expected outputs made of tensors, found"):
            MCDropout(model, 3)(torch.ones(3))
    model = Call(lambda self, x: [F.dropout(x, 0.5, self.training)] * (1 + next(count) % 2))
    with pytest.raises(TypeError, match=r"model: expected outputs of one structure, found"):
        MCDropout(model, 3)(torch.ones(3))


def test_vmap_needs_no_batch_and_runs_what_comes_before_dropout_once() -> None:
    """``item`` raises for a tensor that is mapped."""
    model = Call(lambda self, x: {"sum": F.dropout(x * x.sum().item(), 0.5, self.training).sum(), "x": x, "name": "a"})
    samples = MCDropout(model, 7, chunk_size=4, backend="vmap")(torch.ones(50))
    assert samples["sum"].shape == (7,)
    assert torch.equal(samples["x"], torch.ones(7, 50))
    assert samples["name"] == "a"
    assert samples["sum"].unique().numel() > 3


def test_a_write_in_one_pass_does_not_reach_the_next() -> None:
    """Copies are used again as long as nobody writes to them; here only the third pass does."""
    count = iter(range(100))
    model = Call(lambda self, x: F.dropout(x.zero_() if next(count) == 2 else x, 0.5, self.training).sum())
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        count = iter(range(100))
        with mode():
            samples = MCDropout(model, 6)(torch.ones(64))
        assert (samples > 0).tolist() == [True, True, False, True, True, True]


def test_a_buffer_that_is_handed_out_is_not_what_it_becomes_later() -> None:
    class Counter(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            self.count += 1
            return F.dropout(x, 0.5, self.training), self.count

    model = Counter()
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert MCDropout(model, 3)(torch.ones(20))[1].tolist() == [1, 1, 1]  # each pass finds what the first found
            assert [part[1].tolist() for part in MCDropout(model, 3).stream(torch.ones(20))] == [[1], [1], [1]]
        assert model.count == 0


# Encoder and head


class Encoder(nn.Module):
    """An encoder with dropout of its own, which has to be off, and a count of its passes."""

    def __init__(self, output: Callable[[Tensor], Any] = lambda x: x) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 8), nn.BatchNorm1d(8, eps=0.0), nn.Dropout(0.5))
        self.output, self.modes = output, []

    def forward(self, x: Tensor) -> Any:
        self.modes.append([module.training for module in self.modules()])
        return self.output(self.body(x))


@pytest.mark.parametrize(("chunk", "backend"), [(1, "loop"), (3, "loop"), (7, "vmap")])
@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict"])
def test_an_encoder_runs_once_and_changes_nothing(kind: str, chunk: int, backend: Any) -> None:
    outputs = {"tensor": lambda z: z, "tuple": lambda z: (z, z + 1), "dict": lambda z: {"x": z, "bias": z + 1}}

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2), nn.Dropout(0.2))

        def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
            return self.layers(x if bias is None else x * bias)

    encoder, head, x = Encoder(outputs[kind]).train(), Head(), torch.randn(4, 3).round()
    for parameter in [*encoder.parameters(), *head.parameters()]:  # sums are exact, whatever the size of a batch
        parameter.data.mul_(8).round_().div_(8)
    before = x.clone()
    calls = {"tensor": lambda z: head(z), "tuple": lambda z: head(*z), "dict": lambda z: head(**z)}
    whole = Call(lambda self, x, encoder, head: calls[kind](encoder(x)), encoder=encoder, head=head)
    options = {"chunk_size": chunk, "backend": backend}
    split = MCDropout(head, 7, encoder=encoder, **options)(x, generator=torch.Generator().manual_seed(3))
    assert encoder.modes == [[False] * 6]
    assert all(module.training for module in encoder.modules())
    assert torch.equal(x, before)
    if backend == "loop":  # vmap cannot map the in-place ReLU of the whole
        unsplit = MCDropout(whole, 7, exclude=[encoder], **options)(x, generator=torch.Generator().manual_seed(3))
        assert torch.equal(split, unsplit)
    split.square().sum().backward()
    assert all(parameter.grad is not None for parameter in [*encoder.parameters(), *head.parameters()])


def test_an_encoder_that_raises_gets_its_modes_back() -> None:
    def fail(_: Tensor) -> Any:
        raise OverflowError

    encoder, stream = Encoder(fail).train(), torch.get_rng_state()
    with pytest.raises(OverflowError):
        MCDropout(nn.Dropout(), encoder=encoder)(torch.ones(2, 3), generator=torch.Generator())
    assert all(module.training for module in encoder.modules())
    assert torch.equal(torch.get_rng_state(), stream)


def test_head_keys_stay_and_the_encoders_are_under_its_name() -> None:
    encoder, head = nn.Linear(3, 8), nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 2))
    estimator = MCDropout(head, encoder=encoder)
    assert set(estimator.state_dict()) == {"1.weight", "1.bias", "encoder.weight", "encoder.bias"}
    state = {key: value + 1 for key, value in estimator.state_dict().items()}
    estimator.load_state_dict(state)
    assert torch.equal(encoder.weight, state["encoder.weight"])


# Streaming


def test_an_iterator_that_is_left_leaves_nothing_switched_on() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))).eval()
    before, stream = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    parts = MCDropout(model, 6, chunk_size=2).stream(torch.ones(3, 4), generator=generator)
    first = next(parts)
    assert first.shape == (2, 3, 4)
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)
    generator.manual_seed(0)
    assert torch.equal(MCDropout(model, 6, chunk_size=2)(torch.ones(3, 4), generator=generator)[:2], first)


def test_a_stream_of_equal_passes_ends_with_an_error() -> None:
    parts = MCDropout(nn.Identity(), 4).stream(torch.ones(3))
    assert [next(parts).shape for _ in range(4)] == [(1, 3)] * 4
    with pytest.raises(RuntimeError, match="found 5 bit-equal passes"):
        next(parts)


def test_a_member_at_a_time() -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))

    x = torch.randn(4, 3)
    before = x.clone()
    for backend in ("loop", "vmap"):
        ensemble = DeepEnsemble.build(factory, 3, seed=0, backend=backend)  # type: ignore[arg-type]
        parts = list(ensemble.stream(x))
        assert [part.shape for part in parts] == [(1, 4, 2)] * 3
        torch.testing.assert_close(torch.cat(parts), ensemble(x))
    assert torch.equal(x, before)


# What counts as random


def test_one_random_output_among_fixed_ones_is_enough() -> None:
    model = Call(lambda self, x: {"fixed": x, "random": F.dropout(x, 0.5, self.training)})
    samples = MCDropout(model, 2)(torch.ones(64))
    assert samples["fixed"].std(0).max() == 0
    assert samples["random"].std(0).max() > 0


def test_two_passes_that_agree_by_chance_are_no_error() -> None:
    draws = iter([1.0, 1.0, 1.0, 0.5])
    samples = MCDropout(Call(lambda self, x: x * next(draws)), 4)(torch.ones(2))
    assert samples[:, 0].tolist() == [1.0, 1.0, 1.0, 0.5]


def test_an_empty_batch_is_handed_on() -> None:
    assert MCDropout(nn.Identity(), 4)(torch.ones(0, 4)).shape == (4, 0, 4)


@pytest.mark.parametrize("value", [torch.full((3,), float("nan")), torch.ones(3).long()])
def test_nothing_random_is_an_error_for_nan_and_integers_too(value: Tensor) -> None:
    with pytest.raises(RuntimeError, match="bit-equal"):
        MCDropout(nn.Identity(), 4)(value)


def test_buffers_that_the_model_makes_or_fills_are_gone_afterwards() -> None:
    class Recorder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("last", None)

        def forward(self, x: Tensor) -> Tensor:
            self.last = x.detach()
            self.register_buffer("fresh", x.detach())
            return F.dropout(x, 0.5, self.training)

    model = Recorder()
    MCDropout(model, 2)(torch.ones(8))
    assert model.last is None
    assert not hasattr(model, "fresh")


def test_rows_of_one_pass_are_not_taken_for_samples() -> None:
    """A fixed model whose rows differ within a pass, as rounding makes them, is still not random."""
    model = Call(lambda self, x: x + torch.arange(len(x))[:, None])
    with pytest.raises(RuntimeError, match="found 2 bit-equal passes"):
        MCDropout(model, 20, chunk_size=20)(torch.ones(3, 2))


@pytest.mark.parametrize(("chunk", "backend"), [(1, "loop"), (2, "loop"), (4, "loop"), (4, "vmap")])
def test_a_model_that_draws_from_a_generator_of_its_own_is_random(chunk: int, backend: Any) -> None:
    own = torch.Generator().manual_seed(0)
    model = Call(lambda self, x: x * torch.rand(x.shape, generator=own))
    stream = torch.get_rng_state()
    assert MCDropout(model, 4, chunk_size=chunk, backend=backend)(torch.ones(3, 2)).std(0).min() > 0
    assert torch.equal(torch.get_rng_state(), stream)


def test_the_look_for_randomness_leaves_the_global_stream_where_it_was() -> None:
    """Equal by chance: one more pass tells, and draws."""
    model, x = nn.Dropout(1e-6), torch.ones(1, 1)
    torch.manual_seed(0)
    for _ in range(2):
        model(x)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    MCDropout(model, 2)(x)
    assert torch.equal(torch.get_rng_state(), after)


# The wrapper


def test_state_dict_keys_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    assert list(MCDropout(model).state_dict()) == list(model.state_dict())
    MCDropout(model).load_state_dict({key: value + 1 for key, value in model.state_dict().items()})
    outer = nn.ModuleDict({"head": MCDropout(model)})
    assert list(outer.state_dict()) == [f"head.{key}" for key in model.state_dict()]


def test_a_compiled_model_makes_two_graphs_and_no_more() -> None:
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).eval()
    compiled = torch.compile(model, backend=backend)
    estimator, x = MCDropout(compiled, 5), torch.ones(2, 3)  # type: ignore[arg-type]
    with torch.no_grad():
        for _ in range(3):
            assert estimator(x).std(0).max() > 0
            assert torch.equal(compiled(x), model(x))
    assert len(graphs) == 2


# Ensembles


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


def test_one_member_is_that_member() -> None:
    member, x = mlp().eval(), torch.randn(4, 3)
    assert torch.equal(DeepEnsemble([member])(x), member(x)[None])


class Token(nn.Module):
    """What a copy with `reset_parameters` leaves equal: a bare parameter, and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), 1, 8), x], 1)
        return self.norm(self.attention(x, x, x)[0])


def test_built_members_differ_in_every_random_tensor() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ensemble = DeepEnsemble.build(Token, 3, seed=0)
    states = [member.state_dict() for member in ensemble.members]
    for name in ("token", "attention.in_proj_weight", "attention.out_proj.weight"):
        assert not any(torch.equal(states[i][name], states[j][name]) for i, j in [(0, 1), (0, 2), (1, 2)])


def test_neighbouring_seeds_share_no_member() -> None:
    weights = [m.weight for seed in range(3) for m in DeepEnsemble.build(lambda: nn.Linear(3, 2), 4, seed=seed).members]
    assert len({tuple(weight.flatten().tolist()) for weight in weights}) == 12


def test_a_tensor_that_members_share_in_value_is_named() -> None:
    pretrained = torch.randn(4, 4)

    def factory() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        with torch.no_grad():
            next(model.parameters()).copy_(pretrained)
        return model

    with pytest.warns(UserWarning, match=r"bit-equal 0\.weight;") as caught:
        DeepEnsemble.build(factory, 3, seed=0)
    assert caught[0].filename == __file__


def test_members_that_are_all_equal_are_an_error() -> None:
    def factory() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=r"factory: expected members that differ, found 'bit-equal weight, bias'"):
        DeepEnsemble.build(factory, 2, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(DeepEnsemble.build(factory, 1, seed=0).members) == 1


@pytest.mark.parametrize("training", [True, False])
def test_vmap_equals_the_loop_in_outputs_gradients_and_buffers(training: bool) -> None:
    x = torch.randn(6, 3)
    results = []
    for backend in ("loop", "vmap"):
        ensemble = DeepEnsemble.build(mlp, 3, seed=0, backend=backend).train(training)  # type: ignore[arg-type]
        output = ensemble(x)
        output.square().sum().backward()
        results.append([output, *ensemble.buffers(), *(p.grad for p in ensemble.parameters())])
    assert len(results[0]) == 1 + 3 * 3 + 3 * 6
    for loop, vmapped in zip(*results, strict=True):
        torch.testing.assert_close(vmapped, loop)


def test_vmap_sees_members_that_were_trained_later() -> None:
    ensemble, x = DeepEnsemble.build(mlp, 2, seed=0, backend="vmap").eval(), torch.randn(4, 3)
    before = ensemble(x)
    with torch.no_grad():
        next(ensemble.members[1].parameters()).add_(1)
    after = ensemble(x)
    assert torch.equal(after[0], before[0])
    assert not torch.equal(after[1], before[1])


def test_vmap_draws_a_mask_for_each_member_and_keeps_the_input() -> None:
    def factory() -> nn.Module:
        return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 4), nn.Dropout(0.5))

    ensemble, x = DeepEnsemble.build(factory, 3, seed=0, backend="vmap"), torch.randn(50, 3)
    before = x.clone()
    zeros = ensemble(x) == 0
    assert torch.equal(x, before)
    assert not torch.equal(zeros[0], zeros[1])


def test_members_may_return_any_pytree_under_vmap() -> None:
    def factory() -> nn.Module:
        return Call(lambda _, x, layer: {"y": layer(x), "x": x, "name": "a"}, layer=nn.Linear(3, 2))

    ensemble, x = DeepEnsemble.build(factory, 3, seed=0, backend="vmap"), torch.randn(4, 3)
    found, ensemble.backend = ensemble(x), "loop"
    expected = ensemble(x)
    torch.testing.assert_close(found["y"], expected["y"])
    assert torch.equal(found["x"], expected["x"])
    assert found["name"] == "a"


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_training_all_members_at_once_equals_training_each_alone(backend: Any) -> None:
    x, labels = torch.randn(16, 3), torch.randint(0, 2, (16,))

    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))

    together = DeepEnsemble.build(factory, 3, seed=0, backend=backend)
    optimizer = torch.optim.Adam(together.parameters(), 0.01)
    for _ in range(10):
        optimizer.zero_grad()
        torch.stack([F.cross_entropy(logits, labels) for logits in together(x)]).sum().backward()
        optimizer.step()
    for t, alone in enumerate(DeepEnsemble.build(factory, 3, seed=0).members):
        optimizer = torch.optim.Adam(alone.parameters(), 0.01)
        for _ in range(10):
            optimizer.zero_grad()
            F.cross_entropy(alone(x), labels).backward()
            optimizer.step()
        for found, expected in zip(together.members[t].state_dict().values(), alone.state_dict().values(), strict=True):
            tolerance = {"atol": 0.0, "rtol": 0.0} if backend == "loop" else {"atol": 1e-6, "rtol": 1e-5}
            torch.testing.assert_close(found, expected, **tolerance)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_member_is_added_saved_and_loaded(backend: Any) -> None:
    ensemble, x = DeepEnsemble.build(mlp, 2, seed=0, backend=backend).eval(), torch.randn(4, 3)
    before = ensemble(x)
    member = mlp().eval()
    ensemble.add(member)
    assert ensemble(x).shape == (3, 4, 2)
    torch.testing.assert_close(ensemble(x)[:2], before)
    torch.testing.assert_close(ensemble(x)[2], member(x))
    other = DeepEnsemble.build(mlp, 3, seed=1, backend=backend).eval()
    other.load_state_dict(ensemble.state_dict())
    assert torch.equal(other(x), ensemble(x))


@pytest.mark.compiles
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_an_ensemble_compiles_in_one_graph(backend: Any) -> None:
    torch._dynamo.reset()
    ensemble, x = DeepEnsemble.build(mlp, 3, seed=0, backend=backend).eval(), torch.randn(4, 3)
    expected = ensemble(x)
    ensemble.compile(fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(ensemble(x), expected)


@pytest.mark.compiles
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_compiled_pass_is_one_graph_and_repeatable(backend: Any) -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).eval()
    estimator, x = MCDropout(model, 6, chunk_size=6, backend=backend), torch.ones(2, 3)
    estimator.compile(fullgraph=True, backend="aot_eager")
    samples = [estimator(x, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
    assert torch.equal(*samples)
    assert samples[0].std(0).max() > 0
    assert copy.deepcopy(estimator)(x).shape == (6, 2, 4)


# Moments and votes


def test_last_layer_dropout_needs_no_sampling() -> None:
    """Probit over the exact moments agrees with many passes of Monte-Carlo dropout."""
    head, x = nn.Linear(64, 1), torch.randn(5, 64)
    with torch.no_grad():
        samples = MCDropout(nn.Sequential(nn.Dropout(0.3), head), 4000, chunk_size=500)(x)
        mean, variance = linear_dropout_moments(x, head.weight, head.bias, 0.3)
    probit = torch.sigmoid(mean / torch.sqrt(1 + torch.pi / 8 * variance))
    torch.testing.assert_close(probit, samples.sigmoid().mean(0), atol=0.01, rtol=0)


def test_variation_ratio_counts_votes_and_not_the_mean() -> None:
    """Votes 0, 0, 1, although the mean prefers class 1."""
    probs = torch.tensor([[0.51, 0.49], [0.51, 0.49], [0.0, 1.0]])[:, None]
    torch.testing.assert_close(variation_ratio(probs), torch.tensor([1 / 3]))


def test_samples_that_are_equal_by_chance_are_no_error() -> None:
    model = nn.Dropout(0.01)
    x = torch.ones(1, 1)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for _ in range(50):
            assert MCDropout(model, samples=2)(x).shape == (2, 1, 1)
    with pytest.raises(RuntimeError, match="bit-equal"):
        MCDropout(nn.Dropout(0.0), samples=2)(x)


@pytest.mark.compiles
def test_compiled_under_vmap_the_last_batch_may_be_smaller() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 2)).eval()
    estimator = MCDropout(model, 4, chunk_size=4, backend="vmap")
    estimator.compile(backend="aot_eager")
    for batch in (5, 3, 2):
        assert estimator(torch.ones(batch, 4)).shape == (4, batch, 2)


# What is kept, counted and handed on


def test_outputs_of_one_number_a_row_are_split_into_samples() -> None:
    model = Call(lambda self, x: F.dropout(x, 0.5, self.training).sum(-1))
    samples = MCDropout(model, 5, chunk_size=2)(torch.ones(3, 50))
    assert samples.shape == (5, 3)
    assert len(samples.unique()) > 3


@pytest.mark.parametrize(
    ("samples", "chunk", "backend", "number"),
    [(2, 1, "loop", 3), (6, 4, "loop", 2), (7, 3, "loop", 3), (6, 3, "vmap", 6), (7, 3, "vmap", 7), (2, 9, "vmap", 2)],
)
def test_equal_passes_are_counted(samples: int, chunk: int, backend: Any, number: int) -> None:
    """With the loop, one pass more than the plan has, and none of another size."""
    with pytest.raises(RuntimeError, match=f"found {number} bit-equal passes"):
        MCDropout(nn.Identity(), samples, chunk_size=chunk, backend=backend)(torch.tensor([1.0, torch.nan]))


@pytest.mark.parametrize(
    ("samples", "chunk", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (4, 9, [4]), (3, 1, [1, 1, 1]), (3, 2, [2, 1])]
)
def test_the_traced_function_is_called_for_each_pass(
    monkeypatch: pytest.MonkeyPatch, samples: int, chunk: int, sizes: list[int]
) -> None:
    found: list[int] = []

    def compiled(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def call(model: nn.Module, size: int, x: Tensor) -> Any:
            found.append(size)
            return function(model, size, x)

        return call

    estimator, x = MCDropout(nn.Dropout(0.5), samples, chunk_size=chunk), torch.ones(20, 3)
    expected = estimator(x, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(torch, "compile", compiled)
    estimator.compile()
    assert torch.equal(estimator(x, generator=torch.Generator().manual_seed(0)), expected)
    assert found == sizes
    for other in (copy.deepcopy(estimator), pickle.loads(pickle.dumps(estimator))):
        assert torch.equal(other(x, generator=torch.Generator().manual_seed(0)), expected)
    assert found == sizes


@pytest.mark.parametrize(
    ("backend", "given", "expected"),
    [
        ("loop", {"mode": "a"}, {"mode": "a"}),
        ("vmap", {"mode": "a"}, {"mode": "a", "dynamic": False}),
        ("vmap", {"dynamic": True}, {"dynamic": True}),
    ],
)
def test_each_shape_has_a_graph_of_its_own_under_vmap(
    monkeypatch: pytest.MonkeyPatch, backend: Any, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda *_, **options: found.append(options))
    monkeypatch.setattr(nn.Module, "compile", lambda *_, **options: found.append(options))
    MCDropout(nn.Dropout(), chunk_size=2, backend=backend).compile(**given)
    DeepEnsemble([nn.Linear(2, 2)], backend=backend).compile(**given)
    assert found == [expected, expected]


def test_tensors_of_one_number_are_no_evidence_of_equal_members() -> None:
    """A bias of one number is zero in all members as often as not."""
    ensemble = DeepEnsemble.build(lambda: nn.Linear(2, 1), 3, seed=0)
    assert len({member.weight[0, 0].item() for member in ensemble.members}) == 3


def test_defaults_of_the_estimators() -> None:
    model = nn.Dropout()
    estimator = MCDropout(model)
    assert (estimator.samples, estimator.chunk_size, estimator.exclude) == (20, 1, ())
    assert (estimator.encoder, estimator.backend, estimator.model) == (None, "loop", model)
    assert DeepEnsemble([model]).backend == "loop"
    assert DeepEnsemble.build(mlp, 1, seed=-3).backend == "loop"


def test_a_module_that_hands_its_mode_on_is_told_it() -> None:
    class Handing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.told: list[bool] = []
            self.register_module("nothing", None)

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, value)
            if name == "training" and "told" in self.__dict__:
                self.told.append(value)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, self.training)

    model = Handing().eval()
    model.told.clear()
    MCDropout(model, 3)(torch.ones(9))
    assert model.told == [True, False]
    MCDropout(nn.Sequential(model, nn.Dropout()), 3, exclude=[model])(torch.ones(9))
    assert not any(model.told[2:])
    assert not model.training


def test_a_member_without_batch_gets_the_inputs_by_name() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

        def forward(self, x: Tensor, *, scale: float, shift: Tensor) -> Tensor:
            return (x * self.weight).sum() * scale + shift

    x, shift = torch.tensor([1.0, 2.0, 4.0]), torch.tensor(3.0)
    for backend in ("loop", "vmap"):
        ensemble = DeepEnsemble.build(Scaled, 3, seed=1, backend=backend)  # type: ignore[arg-type]
        expected = torch.stack([0.5 * (x * member.weight).sum() + 3 for member in ensemble.members])
        torch.testing.assert_close(ensemble(x, scale=0.5, shift=shift), expected)
        parts = torch.cat(list(ensemble.stream(x, scale=0.5, shift=shift)))
        torch.testing.assert_close(parts, expected)


def test_a_tensor_that_only_some_members_have_is_looked_at() -> None:
    count = iter(range(9))

    def factory() -> nn.Module:
        model = nn.Linear(3, 2)
        if next(count) != 1:
            model.register_parameter("table", nn.Parameter(torch.arange(3.0)))
        return model

    with pytest.warns(UserWarning, match="bit-equal table;"):
        DeepEnsemble.build(factory, 3, seed=0)


def test_constant_and_empty_tensors_may_agree() -> None:
    def factory() -> nn.Module:
        model = nn.LayerNorm(4)
        model.register_parameter("empty", nn.Parameter(torch.empty(0, 3)))
        return model

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(DeepEnsemble.build(factory, 3, seed=0).members) == 3


def test_buffers_of_members_in_eval_mode_are_left_alone_under_vmap() -> None:
    """And in train mode each gets its own."""
    ensemble, x = DeepEnsemble.build(mlp, 2, seed=0, backend="vmap").eval(), torch.randn(6, 3)
    versions = [buffer._version for buffer in ensemble.buffers()]
    ensemble(x)
    assert [buffer._version for buffer in ensemble.buffers()] == versions
    ensemble.train()(x)
    for member in ensemble.members:
        hidden = member[0](x)
        torch.testing.assert_close(member[1].running_mean, 0.1 * hidden.mean(0))
        assert member[1].num_batches_tracked == 1


def test_passes_without_a_tensor_are_evidence_of_nothing() -> None:
    evidence = Evidence()
    evidence.see_mapped([()])
    evidence.expect_random()
    assert not evidence.random
