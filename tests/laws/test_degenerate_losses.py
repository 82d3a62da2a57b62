"""Laws 3 and 8 at the edge: losses, prototypes, domains, sampling and contributions on odd inputs."""

import copy
import io
import pickle
from collections.abc import Callable
from itertools import chain, combinations
from typing import NamedTuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from balancekit.diagnostics import permutation_contributions, shapley_contributions
from balancekit.domains import (
    asymmetric_triplet_loss,
    normalise_features,
    reverse_gradient,
    single_side_adversarial_loss,
)
from balancekit.losses import (
    confidence_ranking_loss,
    cosine_logits,
    decouple,
    feature_distillation,
    gblend_weights,
    lfm_loss,
    pmr_loss,
    tcmax_loss,
    unimodal_distillation,
    unimodal_loss,
)
from balancekit.prototypes import (
    PrototypeBank,
    prototype_entropy,
    prototype_logits,
    prototypical_cross_entropy,
    single_side_labels,
)
from balancekit.sampling import (
    remix_assign,
    remix_batches,
    smv_copies,
    smv_plan,
    smv_values,
    smv_weights,
)
from tests.degenerate import (
    BROKEN,
    LAYOUTS,
    batches,
    broken,
    counts,
    dtypes,
    filled,
    finite,
    laid,
    layouts,
    seeds,
)

BATCH, CLASSES = 5, 3  # features are as wide as there are classes
law = settings(max_examples=8, deadline=None)
halves = st.sampled_from((torch.float16, torch.bfloat16))
narrow = st.sampled_from((torch.float16, torch.bfloat16, torch.float32))
rows = st.integers(0, BATCH - 1)
columns = st.integers(0, CLASSES - 1)
orders = st.permutations(range(BATCH))
PROTOTYPES = filled("plain", CLASSES, CLASSES, seed=3)

Modalities = dict[str, Tensor]


def labels_of(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device) % CLASSES


def draw(kind: str, seed: int, m: int, dtype: torch.dtype = torch.float32, size: int = BATCH) -> Modalities:
    return {f"m{i}": filled(kind, size, CLASSES, seed=seed + i, dtype=dtype) for i in range(m)}


def bank(like: Tensor) -> PrototypeBank:
    found = PrototypeBank(CLASSES, CLASSES, decay=0.5)
    found.update(PROTOTYPES, torch.arange(CLASSES))
    return found.to(like.device)


def teachers(x: Modalities, y: Tensor) -> Modalities:
    """What a class looks like, in numbers that every dtype has."""
    return {m: PROTOTYPES.bfloat16().to(z)[y] for m, z in x.items()}


def ranked(x: Modalities, y: Tensor, *, per_sample: bool = True) -> Tensor:
    """A modality has its first column for confidence, and with each later one its second."""
    sets: dict[str | tuple[str, ...], Tensor] = {m: z[:, 0] for m, z in x.items()}
    sets |= {(m, n): x[m][:, 1] for m, n in combinations(sorted(x), 2)}
    return confidence_ranking_loss(sets, per_sample=per_sample)


def on(first: Callable[..., Tensor]) -> Callable[[Modalities, Tensor], Tensor]:
    """A loss of one tensor, summed over the modalities."""
    return lambda x, y: torch.stack([first(z, y) for z in x.values()]).sum()


def widen(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class Loss(NamedTuple):
    """A loss of features "b d" by modality and labels "b"."""

    call: Callable[[Modalities, Tensor], Tensor]
    empty: str | None  # the argument that an empty batch is the fault of; None: it is 0 there
    least: int = 1  # number of modalities
    logits: bool = False  # its input may be -inf: a class that is out of the question
    squares: bool = False  # may overflow where the square of an input does

    def __call__(self, x: Modalities, y: Tensor | None = None) -> Tensor:
        return self.call(x, labels_of(next(iter(x.values()))) if y is None else y)


LOSSES = {
    "unimodal": Loss(unimodal_loss, "logits", logits=True),
    "tcmax": Loss(tcmax_loss, "logits", logits=True),
    "tcmax, released": Loss(lambda x, y: tcmax_loss(x, y, released=True), "logits", logits=True),
    "lfm": Loss(lambda x, y: lfm_loss(x, y, 0.3), "logits", logits=True),
    "umt": Loss(lambda x, y: feature_distillation(x, teachers(x, y)), "features", squares=True),
    "g2d": Loss(lambda x, y: unimodal_distillation(x, teachers(x, y), x, teachers(x, y)), "logits", squares=True),
    "mmcosine": Loss(
        on(lambda z, y: cosine_logits({"z": z}, {"z": PROTOTYPES.to(z.device)})["z"].square().sum()), None
    ),
    "cml": Loss(ranked, "confidences", least=2),
    "cml, batch": Loss(lambda x, y: ranked(x, y, per_sample=False), "confidences", least=2),
    "pmr": Loss(lambda x, y: pmr_loss(x, y, {m: bank(z) for m, z in x.items()}, mu=0.1), None, squares=True),
    "pce": Loss(on(lambda z, y: prototypical_cross_entropy(z, y, PROTOTYPES.to(z.device))), None, squares=True),
    "per": Loss(on(lambda z, y: prototype_entropy(z, PROTOTYPES.to(z.device))), None, squares=True),
    "ssdg, adversarial": Loss(on(lambda z, y: single_side_adversarial_loss(z, y, y != 1)), None, logits=True),
    "ssdg, triplet": Loss(on(asymmetric_triplet_loss), None, squares=True),
    "ssdg, squared": Loss(on(lambda z, y: asymmetric_triplet_loss(z, y, squared=True)), None, squares=True),
    "normalised": Loss(on(lambda z, y: normalise_features(widen(z)).sum(-1).square().sum()), None),
}
every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def near(found: Tensor, expected: Tensor, x: Modalities, times: float = 1e-5) -> None:
    """To rounding of the largest number that went in."""
    largest = max(float(z.abs().max()) for z in x.values())
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=times, atol=times * max(1.0, largest))


# What holds for every loss


@every
@law
@given(seed=seeds, kind=finite, dtype=dtypes)
def test_how_the_features_lie_in_memory_changes_nothing_and_they_stay_as_they_are(
    loss: Loss, seed: int, kind: str, dtype: torch.dtype
) -> None:
    for layout in LAYOUTS:
        x = {m: laid(z, layout) for m, z in draw(kind, seed, loss.least, dtype).items()}
        before = {m: z.clone(memory_format=torch.contiguous_format) for m, z in x.items()}
        torch.testing.assert_close(loss(x), loss(before), rtol=1e-6, atol=1e-6, equal_nan=True)
        assert all(torch.equal(z, before[m]) for m, z in x.items())


@every
@law
@given(seed=seeds, kind=finite, m=counts, order=orders, data=st.data())
def test_neither_the_order_of_the_samples_nor_of_the_modalities_matters(
    loss: Loss, seed: int, kind: str, m: int, order: list[int], data: st.DataObject
) -> None:
    assume(m >= loss.least)
    x = draw(kind, seed, m)
    names, index = data.draw(st.permutations(list(x))), torch.tensor(order)
    expected = loss(x)
    found = loss({name: x[name][index] for name in names}, labels_of(index)[index])
    assert found.isfinite() == expected.isfinite()
    if expected.isfinite():
        near(found, expected, x, times=1e-5 * m)


@every
@law
@given(m=st.integers(2, 8), dtype=dtypes)
def test_an_empty_batch_costs_nothing_or_is_an_error_that_names_it(loss: Loss, m: int, dtype: torch.dtype) -> None:
    x = {name: z.requires_grad_() for name, z in draw("plain", 0, m, dtype, size=0).items()}
    if loss.empty is not None:
        with pytest.raises(ValueError, match=rf"^{loss.empty}.*: expected at least one sample"):
            loss(x)
        return
    value = loss(x)
    assert value == 0
    assert all(g.shape == (0, CLASSES) for g in torch.autograd.grad(value, list(x.values())))


@every
@law
@given(seed=seeds, kind=broken, m=counts, who=st.integers(0, 7), row=rows, column=st.integers(0, 1))
def test_a_broken_number_anywhere_makes_the_loss_not_finite(
    loss: Loss, seed: int, kind: str, m: int, who: int, row: int, column: int
) -> None:
    """Logits alone may be -inf: that is a class with probability 0. Of the last modality no pair has a confidence."""
    assume(m >= loss.least and not (loss.logits and kind == "-inf"))
    x = draw("plain", seed, m)
    x[f"m{who % max(m - 1, 1)}"][row, column] = float(kind)
    assert not loss(x).isfinite()


@every
@law
@given(seed=seeds, kind=finite, dtype=narrow, m=st.integers(2, 4))
def test_at_the_edge_of_the_range_a_loss_is_right_or_not_finite(
    loss: Loss, seed: int, kind: str, dtype: torch.dtype, m: int
) -> None:
    """Against the same numbers in float64. Only where a square of 1e30 would overflow may a loss be infinite."""
    x = draw(kind, seed, m, dtype)
    found = loss(x)
    assert found.dtype == torch.float32
    if found.isfinite():
        near(found, loss({name: z.double() for name, z in x.items()}), x, times=1e-4)
    else:
        assert loss.squares and kind == "huge"


@every
@law
@given(seed=seeds, dtype=halves, m=st.integers(2, 4))
def test_half_precision_equals_float32_on_the_same_numbers(loss: Loss, seed: int, dtype: torch.dtype, m: int) -> None:
    x = draw("plain", seed, m, dtype)
    torch.testing.assert_close(loss(x), loss({name: z.float() for name, z in x.items()}), rtol=1e-6, atol=1e-6)


@every
@law
@given(seed=seeds, kind=finite.filter(lambda kind: kind != "huge"), dtype=dtypes, m=st.integers(2, 4))
def test_gradients_are_finite(loss: Loss, seed: int, kind: str, dtype: torch.dtype, m: int) -> None:
    x = {name: z.requires_grad_() for name, z in draw(kind, seed, m, dtype).items()}
    gradients = torch.autograd.grad(loss(x), list(x.values()), allow_unused=True)
    assert all(g.isfinite().all() for g in gradients if g is not None)


@every
def test_nothing_is_read_from_the_device(loss: Loss) -> None:
    """A tensor on "meta" has no values: reading one raises."""
    x = {m: z.to("meta") for m, z in draw("plain", 0, 3).items()}
    assert loss(x).shape == ()


# Row by row


ROWS: dict[str, Callable[[Tensor], Tensor]] = {
    "prototype_logits": lambda x: prototype_logits(x, PROTOTYPES),
    "pce": lambda x: prototypical_cross_entropy(x, torch.zeros(len(x)).long(), PROTOTYPES, reduction="none"),
    "per": lambda x: prototype_entropy(x, PROTOTYPES, reduction="none"),
    "bank": lambda x: bank(x)(x),
    "normalise_features": normalise_features,
    "normalise_features, released": lambda x: normalise_features(x, released=True),
    "reverse_gradient": reverse_gradient,
    "cosine_logits": lambda x: cosine_logits({"z": x}, {"z": PROTOTYPES})["z"],
    "decouple": lambda x: decouple({"z": x})["z"],
}
each_row = pytest.mark.parametrize("function", ROWS.values(), ids=ROWS)


@each_row
@law
@given(seed=seeds, kind=finite, selection=st.lists(rows, max_size=BATCH), layout=layouts)
def test_a_selection_of_the_rows_gives_that_selection_of_the_result(
    function: Callable[[Tensor], Tensor], seed: int, kind: str, selection: list[int], layout: str
) -> None:
    x, index = filled(kind, BATCH, CLASSES, seed=seed, layout=layout), torch.tensor(selection, dtype=torch.int64)
    torch.testing.assert_close(function(x[index]), function(x)[index], equal_nan=True)


@each_row
@law
@given(seed=seeds, kind=broken, row=rows, column=columns)
def test_a_broken_number_spoils_its_row_and_no_other(
    function: Callable[[Tensor], Tensor], seed: int, kind: str, row: int, column: int
) -> None:
    x = filled("plain", BATCH, CLASSES, seed=seed)
    clean = function(x)
    x[row, column] = float(kind)
    found, rest = function(x), [i for i in range(BATCH) if i != row]
    assert torch.equal(found[rest], clean[rest])
    assert not found[row].isfinite().all()


@law
@given(seed=seeds, kind=broken, column=columns, released=st.booleans())
def test_a_row_that_has_no_length_has_no_direction_either(seed: int, kind: str, column: int, released: bool) -> None:
    """Whatever stands beside the NaN or the infinity is not divided by 1 instead."""
    x = filled("plain", 1, CLASSES, seed=seed)
    x[0, column] = float(kind)
    found = normalise_features(x, released=released)
    assert not found[0, column].isfinite()
    beside = found[0, [i for i in range(CLASSES) if i != column]]
    assert (beside.isnan() | (beside == 0)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_length_beyond_the_largest_number_still_has_a_direction(dtype: torch.dtype) -> None:
    x = torch.full((1, 4), torch.finfo(dtype).max, dtype=dtype)
    torch.testing.assert_close(normalise_features(x), torch.full_like(x, 0.5))
    torch.testing.assert_close(normalise_features(x, released=True), x.sqrt() / 2)


# Sizes of nothing


def test_a_width_of_nothing_works_or_is_an_error_that_names_it() -> None:
    none, labels = torch.zeros(2, 0), torch.tensor([0, 1])
    assert torch.equal(prototype_logits(none, torch.zeros(CLASSES, 0)), torch.zeros(2, CLASSES))
    loss = prototypical_cross_entropy(none, labels, torch.zeros(CLASSES, 0))
    torch.testing.assert_close(loss, torch.tensor(3.0).log())
    assert asymmetric_triplet_loss(none, labels) == 0
    assert decouple({"z": none})["z"].shape == (2, 0)
    calls: dict[str, Callable[[], object]] = {
        r"features\['z'\]: expected at least one column": lambda: cosine_logits({"z": none}, {"z": none}),
        r"features\['z'\]: expected at least one sample": lambda: feature_distillation({"z": none}, {"z": none}),
        "x: expected a floating-point tensor of shape .*, d at least 1": lambda: normalise_features(none),
        "dim: expected an integer of at least 1": lambda: PrototypeBank(CLASSES, 0, decay=0.5),
        "features: expected a tensor of shape": lambda: bank(none).update(none, labels),
        "prototypes: expected at least one class": lambda: prototype_entropy(none, torch.zeros(0, 0)),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=f"^{message}"):
            call()


@pytest.mark.parametrize("labels", [torch.tensor([0, CLASSES]), torch.tensor([0, -1]), torch.tensor([0]), None])
def test_labels_of_pmr_that_fit_no_bank_are_an_error_that_names_them(labels: Tensor | None) -> None:
    x = draw("plain", 0, 2, size=2)
    with pytest.raises((TypeError, ValueError), match=r"^labels: expected"):
        pmr_loss(x, labels, {m: bank(z) for m, z in x.items()})  # type: ignore[arg-type]


# The bank


@law
@given(seed=seeds, kind=finite, dtype=dtypes, layout=layouts, size=batches)
def test_a_bank_holds_the_mean_of_any_finite_batch_however_it_lies(
    seed: int, kind: str, dtype: torch.dtype, layout: str, size: int
) -> None:
    """Or, where a sum overflows float32, what it held before."""
    found = PrototypeBank(CLASSES, CLASSES, decay=0.5)
    x = filled(kind, size, CLASSES, seed=seed, dtype=dtype, layout=layout)
    before, y = x.clone(memory_format=torch.contiguous_format), labels_of(x)
    found.update(x, y)
    assert torch.equal(x, before)
    for c in range(CLASSES):
        assert found.seen[c] == bool((y == c).any())
        expected = x[y == c].double().mean(0) if found.seen[c] else torch.zeros(CLASSES, dtype=torch.float64)
        largest = float(x.double().abs().max()) if size else 0.0
        torch.testing.assert_close(found.prototypes[c].double(), expected, rtol=1e-6, atol=1e-6 * largest)


@law
@given(seed=seeds, kind=broken, dtype=dtypes, layout=layouts)
def test_a_bank_that_has_only_seen_broken_batches_has_seen_nothing(
    seed: int, kind: str, dtype: torch.dtype, layout: str
) -> None:
    found = PrototypeBank(CLASSES, CLASSES, decay=0.5)
    x = filled(kind, 1, CLASSES, seed=seed, dtype=dtype, layout=layout)
    found.update(x, labels_of(x))
    fresh = PrototypeBank(CLASSES, CLASSES, decay=0.5)
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in found.state_dict().items())
    assert not found.seen.any() and found(torch.zeros(1, CLASSES)).isneginf().all()


def test_a_copy_of_a_bank_that_has_seen_nothing_learns_like_the_original() -> None:
    banks, file = [PrototypeBank(CLASSES, CLASSES, decay=0.5) for _ in range(2)], io.BytesIO()
    torch.save(banks[0].state_dict(), file)
    file.seek(0)
    banks[1].load_state_dict(torch.load(file, weights_only=True))
    banks += [copy.deepcopy(banks[0]), pickle.loads(pickle.dumps(banks[0]))]
    for each in banks:
        each.update(PROTOTYPES, torch.arange(CLASSES))
        assert torch.equal(each.prototypes, PROTOTYPES) and each.seen.all()


def test_a_bank_reads_nothing_from_the_device() -> None:
    found = bank(PROTOTYPES).to("meta")
    found.update(PROTOTYPES.to("meta"), torch.arange(CLASSES).to("meta"))
    assert found(PROTOTYPES.to("meta")).shape == (CLASSES, CLASSES)


# Weights of G-Blending


@law
@given(
    seed=seeds,
    scale=st.sampled_from((0.0, 2.0**-100, 1.0, 2.0**100)),
    m=counts,
    online=st.booleans(),
    layout=layouts,
    data=st.data(),
)
def test_gblend_weights_of_losses_of_any_size(
    seed: int, scale: float, m: int, online: bool, layout: str, data: st.DataObject
) -> None:
    """Against float64, from losses whose differences are exact in both."""
    generator = torch.Generator().manual_seed(seed)
    losses = laid(scale * torch.randint(9, (4, m), generator=generator).float(), layout)
    weights, order = gblend_weights(*losses, online=online), data.draw(st.permutations(range(m)))
    torch.testing.assert_close(weights.sum(), torch.ones(()))
    torch.testing.assert_close(gblend_weights(*losses[:, order], online=online), weights[order])
    torch.testing.assert_close(weights.double(), gblend_weights(*losses.double(), online=online), rtol=1e-4, atol=1e-6)


@law
@given(seed=seeds, kind=broken, m=counts, which=st.integers(0, 3), who=st.integers(0, 7), online=st.booleans())
def test_a_loss_that_is_not_finite_leaves_no_weight_of_gblend(
    seed: int, kind: str, m: int, which: int, who: int, online: bool
) -> None:
    losses = filled("plain", 4, m, seed=seed).abs()
    losses[which, who % m] = float(kind)
    assert gblend_weights(*losses, online=online).isnan().all()


# Sampling


@law
@given(seed=seeds, kind=finite, m=counts, dtype=dtypes, layout=layouts, size=batches)
def test_a_sample_is_hardest_for_the_modality_that_float64_says(
    seed: int, kind: str, m: int, dtype: torch.dtype, layout: str, size: int
) -> None:
    x = {name: laid(z, layout) for name, z in draw(kind, seed, m, dtype, size).items()}
    found = remix_assign(x)
    entropies = torch.stack([torch.special.entr(z.double().softmax(-1)).sum(-1) for z in x.values()])
    assert found.shape == (size,)
    chosen = entropies.gather(0, found[None])[0]
    assert (chosen >= entropies.amax(0) - 1e-5).all()


@law
@given(seed=seeds, m=st.integers(2, 8), kind=st.sampled_from(("nan", "inf")), row=rows, column=columns, data=st.data())
def test_a_modality_whose_logits_are_broken_is_hardest_for_that_sample_alone(
    seed: int, m: int, kind: str, row: int, column: int, data: st.DataObject
) -> None:
    x, who = draw("plain", seed, m), data.draw(st.integers(0, m - 1))
    clean = remix_assign(x)
    x[f"m{who}"][row, column] = float(kind)
    clean[row] = who
    assert torch.equal(remix_assign(x), clean)


@law
@given(seed=seeds, kind=finite, m=counts, size=batches, layout=layouts, dtype=narrow)
def test_values_weights_copies_and_plans_of_any_batch(
    seed: int, kind: str, m: int, size: int, layout: str, dtype: torch.dtype
) -> None:
    values = filled(kind, size, m, seed=seed, dtype=dtype, layout=layout)
    copies = smv_copies(values)
    assert torch.equal(copies, smv_copies(values.contiguous())) and copies.shape == (size, m)
    index, keep = smv_plan(laid(copies, layout))
    assert len(index) == len(keep) == size + int(laid(copies, layout).sum())
    if size:
        weights, exact = smv_weights(values), smv_weights(values.double())
        assert ((weights >= 0) & (weights <= 1)).all()
        torch.testing.assert_close(weights.double(), exact, rtol=1e-5, atol=1e-6 * max(1.0, float(values.abs().max())))
    else:
        with pytest.raises(ValueError, match=r"^values: expected at least one sample"):
            smv_weights(values)


@law
@given(seed=seeds, m=st.integers(1, 5), size=batches)
def test_values_and_batches_of_any_size(seed: int, m: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    subsets = [subset for k in range(1, m + 1) for subset in combinations([f"m{i}" for i in range(m)], k)]
    predictions = {subset: torch.randint(2, (size,), generator=generator) for subset in subsets}
    values = smv_values(predictions, torch.ones(size, dtype=torch.int64))
    assert values.shape == (size, m)
    torch.testing.assert_close(values.sum(1), m * predictions[subsets[-1]].float())
    assignment = torch.randint(m, (size,), generator=generator)
    assert sorted(chain(*remix_batches(assignment, 2, generator=generator))) == list(range(size))
    labels = single_side_labels(assignment == 0, assignment)
    assert torch.equal(labels, torch.where(assignment == 0, 0, assignment + 1))


# Contributions


def fuse(z: Modalities) -> Tensor:
    """Logits of two classes; what is not finite makes NaN of both, as in a network."""
    total = torch.stack(list(z.values())).sum((0, 2))
    return torch.stack([total, -total], -1) + 0 * total[:, None]


@law
@given(seed=seeds, kind=finite, m=st.integers(1, 5), dtype=dtypes, layout=layouts, data=st.data())
def test_contributions_of_any_features_follow_the_names(
    seed: int, kind: str, m: int, dtype: torch.dtype, layout: str, data: st.DataObject
) -> None:
    assume(not (dtype == torch.float16 and kind == "huge"))  # their sum overflows in the head
    x = {name: laid(z, layout) for name, z in draw(kind, seed, m, dtype).items()}
    labels, names = labels_of(x["m0"]) % 2, data.draw(st.permutations(list(x)))
    for call in (
        lambda z: shapley_contributions(fuse, z, labels),
        lambda z: permutation_contributions(fuse, z, generator=torch.Generator().manual_seed(0)),
    ):
        found, other = call(x), call({name: x[name] for name in names})
        assert all(value.isfinite() for value in found.values())
        for name, value in found.items():
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=1e-2 if kind == "huge" else 1e-5)


@law
@given(seed=seeds, kind=st.sampled_from(BROKEN), row=rows)
def test_a_prediction_that_is_not_a_number_is_not_scored(seed: int, kind: str, row: int) -> None:
    """An argmax would take NaN for the first class."""
    x = draw("plain", seed, 2)
    x["m1"][row, 0] = float(kind)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    found = shapley_contributions(fuse, x, labels)
    assert not any(value.isfinite() for value in found.values())
    found = permutation_contributions(fuse, x, generator=torch.Generator().manual_seed(0))
    assert not any(value.isfinite() for value in found.values())


@pytest.mark.parametrize("m", [1, 3])
def test_contributions_in_an_empty_batch_are_an_error_that_names_it(m: int) -> None:
    x = draw("plain", 0, m, size=0)
    with pytest.raises(ValueError, match=r"^features\['m0'\]: expected .* at least one"):
        shapley_contributions(fuse, x, torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^features\['m0'\]: expected .* at least one"):
        permutation_contributions(fuse, x)


def test_contributions_of_labels_that_fit_no_batch_are_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match=r"^labels: expected"):
        shapley_contributions(fuse, draw("plain", 0, 2), torch.zeros(1, dtype=torch.int64))


# Gradients that are turned or cut


@law
@given(seed=seeds, kind=st.sampled_from(("plain", "zero", "tiny", "nan", "inf")), dtype=dtypes, layout=layouts)
def test_what_is_turned_or_cut_passes_on_bit_for_bit(seed: int, kind: str, dtype: torch.dtype, layout: str) -> None:
    x = filled(kind, BATCH, CLASSES, seed=seed, dtype=dtype, layout=layout).requires_grad_()
    turned, cut = reverse_gradient(x, 0.5), decouple({"z": x})["z"]
    assert turned.dtype == cut.dtype == dtype
    for passed in (turned, cut):
        torch.testing.assert_close(passed, x, rtol=0, atol=0, equal_nan=True)
    assert not cut.requires_grad
    (gradient,) = torch.autograd.grad(F.relu(turned).sum(), x)
    assert gradient.isfinite().all()
