"""The generated faces: determinism, identities, labels, the marks of corruption, the shortcuts that were mended."""

import numpy as np
import pytest
import torch
from fas.samples import DOMAINS, FAILURES, KINDS, SPLITS, Samples, concatenate, load
from fas.standin import IDENTITIES, cached_split, make_split
from fas.standin import split as standin
from fas.standin.profiles import PROFILES


def assert_same(a: Samples, b: Samples):
    for name, x, y in zip(Samples._fields, a, b, strict=True):
        assert x.dtype == y.dtype and torch.equal(x, y), name


@pytest.fixture(scope="module")
def few() -> dict[str, Samples]:
    return {domain: make_split(domain, "test", 40, seed=3) for domain in DOMAINS}


@pytest.mark.parametrize("domain", DOMAINS)
def test_shapes_types_and_labels(few, domain):
    s = few[domain]
    assert s.rgb.shape == (40, 3, 64, 64) and s.depth.shape == s.infrared.shape == (40, 1, 64, 64)
    assert s.rgb.dtype == s.depth.dtype == s.infrared.dtype == torch.uint8
    assert s.corrupted.shape == (40, 3, 8, 8) and s.failure.dtype == torch.uint8
    assert torch.equal(s.live, s.kind == 0)
    assert (s.domain == DOMAINS.index(domain)).all()
    assert 0.4 < s.rgb.float().mean() / 127 < 1.6 or domain == "S"  # neither black nor blown out


def test_no_failure_reaches_into_the_black_border(few):
    width = PROFILES["C"].border
    for image in (few["C"].rgb, few["C"].depth, few["C"].infrared):
        inner = image[..., width:-width, width:-width]
        assert inner.any() and image.sum() == inner.sum()


def test_the_same_seed_gives_the_same_samples_and_another_seed_does_not(few):
    assert_same(make_split("W", "test", 40, seed=3), few["W"])
    assert not torch.equal(make_split("W", "test", 40, seed=4).rgb, few["W"].rgb)


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_a_sample_does_not_depend_on_its_batch(few, monkeypatch, chunk):
    monkeypatch.setattr(standin, "_CHUNK", chunk)
    for domain in DOMAINS:
        assert_same(make_split(domain, "test", 40, seed=3), few[domain])


def test_a_longer_split_begins_with_the_shorter_one(few):
    assert_same(make_split("C", "test", 56, seed=3).select(range(40)), few["C"])


def test_identities_of_splits_and_domains_are_disjoint_and_each_is_seen_live_and_attacked():
    everyone: set[int] = set()
    for domain in DOMAINS:
        for split in SPLITS:
            live, who = standin.roll_call(domain, split, 1000)
            offset = make_split(domain, split, 1, seed=0).identity.item() - who[0]
            people = {int(offset + w) for w in who}
            assert len(people) == IDENTITIES[split] and not people & everyone
            assert set(who[live]) == set(who[~live]) == set(range(IDENTITIES[split]))
            everyone |= people


def test_identity_says_nothing_about_liveness():
    """Live rates of identities, learnt on 1500 samples, rank the next 1500 at chance, at the natural ratios."""
    for domain in DOMAINS:
        live, who = standin.roll_call(domain, "train", 3000)
        rate = np.array([live[:1500][who[:1500] == k].mean() for k in range(IDENTITIES["train"])])
        score, y = rate[who[1500:]], live[1500:]
        pairs = score[y][:, None] - score[~y][None]
        assert abs(((pairs > 0) + 0.5 * (pairs == 0)).mean() - 0.5) < 0.06


@pytest.mark.parametrize("domain", DOMAINS)
def test_ratios_and_attacks_follow_the_profile(domain):
    site = PROFILES[domain]
    live, _ = standin.roll_call(domain, "train", 1000)
    assert abs((~live).sum() / live.sum() - site.attacks_per_live) < 0.1
    assert standin.roll_call(domain, "test", 800)[0].sum() == 400
    train = set(make_split(domain, "train", 500, seed=0).kind_names) - {"live"}
    assert train == set(site.attacks)
    unseen = set(make_split(domain, "test", 120, seed=0).kind_names) - train - {"live"}
    assert unseen <= set(site.unseen) and bool(unseen) == bool(site.unseen)


def test_corruption_is_marked_where_it_changed_an_image_and_does_not_know_the_label():
    s = concatenate([make_split(domain, "test", 100, seed=5) for domain in DOMAINS])
    share = s.corrupted.float().mean((0, 2, 3))
    assert (share > 0.005).all() and (share < 0.1).all()
    depth_tokens = s.depth.view(-1, 8, 8, 8, 8).float().amax((2, 4))
    failures = (("frame mismatch",), ("frame mismatch", "misalignment", "hole", "sun"), ("frame mismatch", "sun"))
    for m, kinds in enumerate(failures):
        assert {FAILURES[code] for code in s.failure[:, m].unique().tolist()} == {"none", *kinds}
    blind = (s.failure[:, 1] == FAILURES.index("hole")) | (s.failure[:, 1] == FAILURES.index("sun"))
    assert (depth_tokens[blind] == 0).float().mean() > 0.5  # the rest reach into the token only in part
    corrupted = s.corrupted.flatten(1).any(1).float()
    assert abs(corrupted[s.live].mean() - corrupted[~s.live].mean()) < 0.12


def test_masks_and_borders(few):
    assert (few["S"].rgb[:, :, :2, :2] == 0).all()  # no background
    border = few["C"].rgb.clone()
    border[:, :, 5:-5, 5:-5] = 0
    assert (border == 0).float().mean() > 0.99  # a corrupted region may move the border


def test_outlines_do_not_tell_cut_outs_from_faces():
    s = make_split("S", "test", 160, seed=1)
    area = (s.rgb > 0).any(1).float().mean((1, 2))
    assert abs(area[s.live].mean() - area[~s.live].mean()) < 0.25 * area[s.live].std()


def test_the_cache_returns_what_was_made_and_tells_seeds_apart(tmp_path):
    made = make_split("P", "dev", 9, seed=2)
    assert_same(cached_split(tmp_path, "P", "dev", 9, seed=2), made)
    (file,) = tmp_path.iterdir()
    assert_same(load(file), made)
    assert_same(cached_split(tmp_path, "P", "dev", 9, seed=2), made)
    cached_split(tmp_path, "P", "dev", 9, seed=3)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("X", "train", 3, 0), "domain"), (("S", "val", 3, 0), "split"), (("S", "train", 0, 0), "count")],
)
def test_wrong_calls_name_the_argument(arguments, word):
    *positional, seed = arguments
    with pytest.raises(ValueError, match=f"{word}: expected .* found"):
        make_split(*positional, seed=seed)


def test_kinds_start_with_live():
    assert KINDS[0] == "live" and len(set(KINDS)) == len(KINDS)


def test_two_processes_that_save_the_same_samples_do_not_spoil_each_other(few, tmp_path, monkeypatch):
    path, other = tmp_path / "a.npz", make_split("S", "test", 2, seed=0)
    savez = np.savez

    def interrupted(*args, **arrays):
        savez(*args, **arrays)
        monkeypatch.setattr(np, "savez", savez)
        monkeypatch.setattr("os.getpid", lambda: -1)
        other.save(path)

    monkeypatch.setattr(np, "savez", interrupted)
    few["S"].save(path)
    assert_same(load(path), few["S"])
    assert list(tmp_path.iterdir()) == [path]
