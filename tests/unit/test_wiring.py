"""Topologies, batches and dicts, shared adapters, and modalities that are not there."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from balancekit.adapters import CrossModal, GatedCrossAttention, Parallel, Tap, complete, hub, missing, ring

NAMES = ("rgb", "depth", "ir")
Edge = tuple[str, str]


def grown(dim: int = 6, **options: object) -> GatedCrossAttention:
    adapter = GatedCrossAttention(dim, width=4, heads=4, **options).eval()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    return adapter


def by_modality(batch: Tensor) -> Tensor:
    return batch.unflatten(0, (3, -1))


def test_topologies() -> None:
    assert ring(("a", "b", "c")) == (("a", "b"), ("b", "c"), ("c", "a"))
    assert ring(("a", "b")) == complete(("a", "b")) == (("a", "b"), ("b", "a"))
    assert set(complete(NAMES)) == {(s, t) for s in NAMES for t in NAMES if s != t}
    assert len(complete(NAMES)) == 6
    assert ring(("a",)) == complete(("a",)) == ()


@pytest.mark.parametrize("edges", [hub("rgb", NAMES), ring(NAMES), complete(NAMES), (("ir", "depth"),), ()])
def test_a_batch_and_a_dict_are_the_same(edges: tuple[Edge, ...]) -> None:
    torch.manual_seed(0)
    cross = CrossModal(NAMES, edges, grown)
    x, u = torch.randn(3, 2, 5, 6), torch.rand(3, 2, 5)
    found = cross(dict(zip(NAMES, x, strict=True)), dict(zip(NAMES, u, strict=True)))
    assert list(found) == list(NAMES)
    assert torch.equal(torch.stack(list(found.values())), by_modality(cross(x.flatten(0, 1), u.flatten(0, 1))))


def test_separate_backbones_have_widths_and_tokens_of_their_own() -> None:
    torch.manual_seed(0)
    dims, counts = {"image": 6, "text": 4, "sound": 3}, {"image": 5, "text": 7, "sound": 2}
    edges = complete(tuple(dims))
    adapters = {(s, t): grown(dims[t], other_dim=dims[s], queries="own", gate="key+output") for s, t in edges}
    cross = CrossModal(tuple(dims), edges, adapters)
    x = {name: torch.randn(2, counts[name], dim) for name, dim in dims.items()}
    u = {"image": torch.rand(2, 5), "sound": torch.zeros(2, 2)}  # text has no confidence: it is not gated
    delta = cross(x, u)
    assert {name: tuple(value.shape) for name, value in delta.items()} == {
        name: (2, counts[name], dim) for name, dim in dims.items()
    }
    assert torch.equal(delta["image"], adapters["text", "image"](x["image"], x["text"]))  # sound is silent
    expected = adapters["image", "text"](x["text"], x["image"], u["image"])
    torch.testing.assert_close(delta["text"], expected)


def test_a_modality_that_a_dict_lacks_takes_no_part() -> None:
    torch.manual_seed(0)
    cross = CrossModal(NAMES, complete(NAMES), grown)
    x = {name: torch.randn(2, 5, 6) for name in NAMES}
    del x["depth"]
    delta = cross(x)
    assert list(delta) == ["rgb", "ir"]
    assert torch.equal(delta["rgb"], cross.adapters["ir_to_rgb"](x["rgb"], x["ir"]))


def test_one_adapter_may_serve_all_edges() -> None:
    torch.manual_seed(0)
    shared = grown()
    cross = CrossModal(NAMES, hub("rgb", NAMES), shared)
    assert list(cross.adapters) == ["shared"]
    assert set(cross.parameters()) == set(shared.parameters())
    assert cross.into("rgb") == cross.into("ir") == [shared]
    x = torch.randn(3, 2, 5, 6)
    delta = by_modality(cross(x.flatten(0, 1)))
    torch.testing.assert_close(delta[0], shared(x[0], x[1]) + shared(x[0], x[2]))
    torch.testing.assert_close(delta[2], shared(x[2], x[0]))


def test_some_edges_may_share() -> None:
    to_rgb, from_rgb = grown(), grown()
    edges = hub("rgb", NAMES)
    cross = CrossModal(NAMES, edges, {edge: to_rgb if edge[1] == "rgb" else from_rgb for edge in edges})
    assert dict(cross.adapters.items()) == {"rgb_to_depth": from_rgb, "depth_to_rgb": to_rgb}
    assert cross.into("rgb") == [to_rgb] and cross.into("depth") == cross.into("ir") == [from_rgb]
    keys = list(cross.state_dict())
    assert len(keys) == len(set(keys)) == 2 * len(to_rgb.state_dict())


def test_each_modality_may_have_a_tap_of_its_own() -> None:
    sources = {name: nn.Identity() for name in NAMES}
    taps = {name: Tap(module, lambda x: x[..., 0]) for name, module in sources.items()}
    adapter = grown(gate="output")
    cross = CrossModal(NAMES, [("depth", "rgb")], {("depth", "rgb"): adapter}, confidence=taps)
    x = {name: sources[name](torch.rand(2, 5, 6)) for name in NAMES}
    assert torch.equal(cross(x)["rgb"], adapter(x["rgb"], x["depth"], x["depth"][..., 0]))
    batch = torch.cat(list(x.values()))
    assert torch.equal(by_modality(cross(batch))[0], cross(x)["rgb"])


# --- missing modalities

GATES = ("query", "key", "output", "key+output")


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("queries", ["other", "own"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bad", [0.0, 1e30, torch.nan, torch.inf])
def test_a_missing_modality_takes_no_part(gate: str, queries: str, dtype: torch.dtype, bad: float) -> None:
    torch.manual_seed(0)
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(grown, queries=queries, gate=gate, conv="cdc", grid=2))
    cross.to(dtype)
    x, u = torch.randn(3, 4, 5, 6).to(dtype), torch.rand(3, 4, 5)
    without = by_modality(cross(x.flatten(0, 1), u.flatten(0, 1)))  # a batch where nobody lacks anything
    present = torch.ones(3, 4, dtype=torch.bool)
    present[1, 2] = present[0, 3] = False  # sample 2 has no depth, sample 3 no rgb
    x[~present], u[~present] = bad, bad
    x.requires_grad_()
    with missing(cross, present):
        delta = by_modality(cross(x.flatten(0, 1), u.flatten(0, 1)))
    assert torch.equal(delta[~present], torch.zeros(2, 5, 6, dtype=dtype))
    assert (delta[:, 3] == 0).all()  # all talk goes through rgb
    assert (delta[0, 2] != 0).any() and (delta[2, 2] != 0).any()

    assert torch.equal(delta[:, :2], without[:, :2])  # the others: bit for bit
    assert torch.equal(delta[2, 2], without[2, 2])  # ir hears rgb alone, so it does not miss depth either
    rgb_and_ir = {"rgb": x[0, :3].detach(), "ir": x[2, :3].detach()}
    without_depth = cross(rgb_and_ir, {"rgb": u[0, :3], "ir": u[2, :3]})
    torch.testing.assert_close(delta[0, 2], without_depth["rgb"][2])

    gradients = torch.autograd.grad(delta.square().sum(), [x, *cross.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0][~present] == 0).all()


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_the_others_are_what_they_are_in_a_smaller_batch(samples: int) -> None:
    """MMDG's adapter at the width of a ViT-B; to rounding, since torch picks its kernels by the size of the batch."""
    torch.manual_seed(0)
    cross = CrossModal(NAMES, hub("rgb", NAMES), partial(GatedCrossAttention, 768, conv="cdc", grid=3)).eval()
    for adapter in cross.adapters.values():
        nn.init.normal_(adapter.up.weight)
    x = torch.randn(3, samples + 5, 10, 768)
    present = torch.ones(3, samples + 5, dtype=torch.bool)
    present[1, samples:] = False
    delta = by_modality(cross(x.flatten(0, 1), present=present))
    alone = by_modality(cross(x[:, :samples].flatten(0, 1)))
    torch.testing.assert_close(delta[:, :samples], alone, rtol=1e-5, atol=1e-5)


def test_missing_ends_with_its_block_and_nests() -> None:
    torch.manual_seed(0)
    cross = CrossModal(("a", "b"), ring(("a", "b")), grown)
    x, all_here = torch.randn(4, 5, 6), torch.ones(2, 2, dtype=torch.bool)
    before = cross(x)
    with missing(cross, ~all_here):
        with missing(cross, all_here):
            assert torch.equal(cross(x), before)
        assert (cross(x) == 0).all()
        assert torch.equal(cross(x, present=all_here), before)
    assert torch.equal(cross(x), before)
    with pytest.raises(ZeroDivisionError), missing(cross, ~all_here):
        _ = 1 / 0
    assert torch.equal(cross(x), before)


def test_missing_reaches_every_adapter_of_a_model_and_no_other_sample() -> None:
    torch.manual_seed(0)
    blocks = [nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True) for _ in range(2)]
    model = nn.Sequential(*blocks)
    for block in blocks:
        cross = CrossModal(NAMES, complete(NAMES), grown)
        block.linear2 = Parallel(block.linear2, cross, input_of=block.linear1)
    model.eval()
    x = torch.randn(3, 4, 5, 6)
    present = torch.ones(3, 4, dtype=torch.bool)
    present[2, 0] = False
    before = by_modality(model(x.flatten(0, 1)))
    x[2, 0] = 100.0
    with missing(model, present):
        after = by_modality(model(x.flatten(0, 1)))
    assert torch.equal(after[:, 1:], before[:, 1:])
    assert not torch.equal(after[:2, 0], before[:2, 0])
    x[2, 0] = -100.0
    with missing(model, present):
        assert torch.equal(by_modality(model(x.flatten(0, 1)))[:2], after[:2])


@pytest.mark.compiles
def test_who_is_missing_may_change_between_calls_of_a_compiled_model() -> None:
    torch.manual_seed(0)
    cross = CrossModal(("a", "b"), ring(("a", "b")), partial(grown, gate="output"))
    compiled = torch.compile(cross, fullgraph=True, backend="eager")
    x, here = torch.randn(4, 5, 6), torch.ones(2, 2, dtype=torch.bool)
    for lost in range(2):
        present = here.clone()
        present[0, lost] = False
        with missing(cross, present):
            torch.testing.assert_close(compiled(x), cross(x))
    torch.testing.assert_close(compiled(x), cross(x))


def test_who_is_missing_is_read_by_name_where_a_dict_lacks_a_modality() -> None:
    torch.manual_seed(0)
    cross = CrossModal(NAMES, complete(NAMES), grown)
    x = {"ir": torch.randn(2, 5, 6), "rgb": torch.randn(2, 5, 6)}
    present = torch.tensor([[True, True], [False, False], [True, False]])
    delta = cross(x, present=present)
    assert list(delta) == ["rgb", "ir"]
    assert torch.equal(delta["ir"][0], cross({"rgb": x["rgb"], "ir": x["ir"]})["ir"][0])
    assert (delta["rgb"][1] == 0).all() and (delta["ir"][1] == 0).all()


def test_a_confidence_as_a_batch_needs_equally_many_tokens() -> None:
    cross = CrossModal(NAMES, (), grown)
    x = {name: torch.zeros(2, 5 + (name == "ir"), 6) for name in NAMES}
    with pytest.raises(ValueError, match=r"^confidence: expected a mapping"):
        cross(x, torch.ones(6, 5))
    x["ir"] = x["ir"][:, :5]
    assert list(cross(x, torch.ones(6, 5))) == list(NAMES)


def test_edges_may_come_one_by_one_and_names_must_tell_them_apart() -> None:
    cross = CrossModal(NAMES, (edge for edge in ring(NAMES)), grown)
    assert cross.edges == ring(NAMES)
    names = ("a", "b", "a_to_b", "b_to_a")
    with pytest.raises(ValueError, match="tells apart"):
        CrossModal(names, [("a", "b_to_a"), ("a_to_b", "a")], grown)


@pytest.mark.parametrize("names", [{"a", "b"}, iter("ab"), "ab", ("a", 1)])
def test_names_are_a_sequence_of_strings(names: object) -> None:
    with pytest.raises(TypeError, match=r"^modalities: expected a sequence of names"):
        ring(names)  # type: ignore[arg-type]


def test_an_empty_name_is_none_and_a_list_of_names_will_do() -> None:
    with pytest.raises(ValueError, match=r"^modalities: expected different, non-empty names"):
        ring(("a", ""))
    assert ring(["a", "b"]) == (("a", "b"), ("b", "a"))
