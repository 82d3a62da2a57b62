"""Normalisation, the one convention for a missing modality, augmentation, and balance."""

from collections import Counter

import pytest
import torch
from fas.data import MISSING, BalancedBatches, FaceData, augment, hide, normalise, three_channels
from fas.samples import MODALITIES, concatenate
from fas.standin import make_split


@pytest.fixture(scope="module")
def samples():
    return concatenate([make_split(domain, "train", 30, seed=1) for domain in "CWP"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalisation():
    assert normalise(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-127.5 / 128, 127.5 / 128]


def test_a_missing_modality_is_the_same_tensor_in_training_and_in_testing(samples):
    rows = range(12)
    training = hide(FaceData(samples, generator=seeded())[rows].inputs, ["depth", "infrared"])
    testing = hide(FaceData(samples)[rows].inputs, ["depth", "infrared"])
    for name in ("depth", "infrared"):
        assert torch.equal(training[name], testing[name])
        black = FaceData(samples._replace(**{name: torch.zeros_like(getattr(samples, name))}))
        assert torch.equal(testing[name], black[rows].inputs[name])  # what a black frame becomes
        assert (testing[name] == MISSING).all() and MISSING == -127.5 / 128
    assert torch.equal(testing["rgb"], FaceData(samples)[rows].inputs["rgb"])


def test_hide_spares_the_other_rows_and_its_input(samples):
    inputs = FaceData(samples)[range(6)].inputs
    before = inputs["depth"].clone()
    gone = torch.tensor([True, False] * 3)
    out = hide(inputs, ["depth"], gone)
    assert (out["depth"][gone] == MISSING).all() and torch.equal(out["depth"][~gone], before[~gone])
    assert torch.equal(inputs["depth"], before)
    with pytest.raises(ValueError, match="names: expected some of rgb, depth, infrared, found thermal"):
        hide(inputs, ["thermal"])


def test_batches_hold_what_was_asked_for_in_that_order(samples):
    batch = FaceData(samples)[[7, 2, 40]]
    assert batch.rows.tolist() == [7, 2, 40]
    for name in MODALITIES:
        assert torch.equal(batch.inputs[name], normalise(getattr(samples, name)[[7, 2, 40]]))
    assert torch.equal(batch.live, samples.live[[7, 2, 40]]) and torch.equal(batch.domain, samples.domain[[7, 2, 40]])
    parts = list(FaceData(samples).batches(32))
    assert torch.equal(torch.cat([part.rows for part in parts]), torch.arange(90))
    with pytest.raises(ValueError, match="rows: expected a list of integers"):
        FaceData(samples)[3]


def test_augmentation_is_seeded_and_mirrors_all_modalities_of_a_sample_alike(samples):
    images = {name: getattr(samples, name) for name in MODALITIES}
    once, again = augment(images, seeded(5), jitter=0), augment(images, seeded(5), jitter=0)
    mirrored = []
    for name, image in images.items():
        assert torch.equal(once[name], again[name])
        same = (once[name] == image).flatten(1).all(1)
        assert ((once[name] == image.flip(-1)).flatten(1).all(1) | same).all()
        mirrored.append(~same)
    assert torch.equal(mirrored[0], mirrored[2]) and 20 < mirrored[0].sum() < 70


def test_jitter_keeps_grey_grey_colours_in_order_and_holes_empty(samples):
    grey = samples.infrared.expand(-1, 3, -1, -1)
    out = augment({"rgb": grey, "depth": samples.depth}, seeded(1))
    assert torch.equal(out["rgb"][:, 0], out["rgb"][:, 1]) and torch.equal(out["rgb"][:, 0], out["rgb"][:, 2])
    assert ((out["depth"] == 0).flatten(1).sum(1) >= (samples.depth == 0).flatten(1).sum(1)).all()
    assert all(image.min() >= 0 and image.max() <= 255 for image in out.values())
    assert not torch.equal(out["rgb"], grey.float())
    assert torch.equal(three_channels(samples.depth)[:, 2], samples.depth[:, 0])


@pytest.mark.parametrize("size", [6, 12, 16])
def test_every_domain_and_label_is_equally_frequent(samples, size):
    sampler = BalancedBatches(samples.domain, samples.live, size=size, generator=seeded())
    epoch = list(sampler)
    assert len(epoch) == len(sampler) == 90 // size
    cells = samples.domain * 2 + samples.live
    for rows in epoch:
        tally = Counter(cells[rows].tolist())
        assert len(rows) == size and len(tally) == 6
        assert max(tally.values()) - min(tally.values()) <= (size % 6 != 0)


def test_a_cell_is_used_up_before_it_repeats_and_the_generator_is_all_that_is_random(samples):
    epoch = list(BalancedBatches(samples.domain, samples.live, size=6, generator=seeded(2)))
    assert epoch == list(BalancedBatches(samples.domain, samples.live, size=6, generator=seeded(2)))
    assert epoch != list(BalancedBatches(samples.domain, samples.live, size=6, generator=seeded(3)))
    rows = [row for batch in epoch for row in batch]
    for domain in samples.domain.unique():
        for live in (True, False):
            cell = set(((samples.domain == domain) & (samples.live == live)).nonzero()[:, 0].tolist())
            drawn = [row for row in rows if row in cell]
            for start in range(0, len(drawn) - len(cell) + 1, len(cell)):
                assert set(drawn[start : start + len(cell)]) == cell


def test_a_loader_can_use_them(samples):
    sampler = BalancedBatches(samples.domain, samples.live, size=12, generator=seeded())
    loader = torch.utils.data.DataLoader(FaceData(samples), sampler=sampler, batch_size=None)
    batches = list(loader)
    assert len(batches) == 7 and batches[0].inputs["rgb"].shape == (12, 3, 64, 64)


def test_wrong_calls(samples):
    with pytest.raises(ValueError, match="live: expected both classes in every domain, found no live of domain P"):
        keep = ~((samples.domain == 3) & samples.live)
        BalancedBatches(samples.domain[keep], samples.live[keep], size=8, generator=seeded())
    with pytest.raises(ValueError, match="size: expected at least 6, one sample a cell, found 4"):
        BalancedBatches(samples.domain, samples.live, size=4, generator=seeded())
