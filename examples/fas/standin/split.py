"""Generated faces in four domains, for who has no licensed data: colour, depth and infrared, live and attacked.

A sample is a function of (seed, domain, split, index) alone. Identities of different splits and domains differ, and
each appears live and attacked as often as its split's ratio says, so that an identity tells nothing.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from fas.samples import DOMAINS, KINDS, SPLITS, Samples, concatenate, load

from .arrays import Array
from .corruption import corrupt, inside
from .draws import Draws
from .faces import TRAITS, Pose, face
from .profiles import PROFILES, Profile
from .scene import scene
from .sensors import colour, depth, infrared

VERSION = 5  # of the generator: part of every cached file's name
COUNTS = {"train": 500, "dev": 200, "test": 800}  # samples a domain, unless others are asked for
IDENTITIES = {"train": 48, "dev": 20, "test": 48}
_CHUNK = 16
_SAMPLE, _IDENTITY = 0, 1  # the two families of random streams


def make_split(domain: str, split: str, count: int, *, seed: int) -> Samples:
    """The first `count` samples of a split.

    Training and development have the attack-to-live ratio of the domain's real counterpart; the test split is half
    live, so that its error rates have the same resolution everywhere, and holds attacks that training does not.
    """
    _check(domain, split, count, seed)
    live, identity = roll_call(domain, split, count)
    table = np.stack([_stream(seed, domain, split, k, _IDENTITY).standard_normal(TRAITS, np.float32) for k in
                      range(IDENTITIES[split])])  # fmt: skip
    chunks = [
        _render(domain, split, np.arange(start, min(start + _CHUNK, count)), live, identity, table, seed)
        for start in range(0, count, _CHUNK)
    ]
    return concatenate(chunks)


def cached_split(folder: Path | str, domain: str, split: str, count: int, *, seed: int) -> Samples:
    """:func:`make_split`, kept in `folder` under a name that tells seed and version apart."""
    _check(domain, split, count, seed)
    recipe = repr((VERSION, seed, domain, split, count, IDENTITIES, PROFILES[domain]))
    path = Path(folder) / f"{domain}-{split}-{count}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.npz"
    if not path.exists():
        make_split(domain, split, count, seed=seed).save(path)
    return load(path)


def _check(domain: str, split: str, count: int, seed: int) -> None:
    if domain not in DOMAINS:
        raise ValueError(f"domain: expected one of {', '.join(DOMAINS)}, found {domain!r}")
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, found {split!r}")
    if count < 1:
        raise ValueError(f"count: expected a positive number of samples, found {count}")
    if seed < 0:
        raise ValueError(f"seed: expected an integer of at least 0, found {seed}")


def _entropy(seed: int, domain: str, split: str, number: int, family: int) -> list[int]:
    return [seed, DOMAINS.index(domain), SPLITS.index(split), number, family]


def _stream(*key: object) -> np.random.Generator:
    return np.random.default_rng(_entropy(*key))  # type: ignore[arg-type]


def roll_call(domain: str, split: str, count: int) -> tuple[Array, Array]:
    """Who comes, live or not: the live share is spread evenly, and each class goes through the identities in turn."""
    share = 0.5 if split == "test" else 1 / (1 + PROFILES[domain].attacks_per_live)
    seen = np.floor(np.arange(count + 1) * share + 1e-9).astype(int)  # live samples before each index
    live = seen[1:] > seen[:-1]
    turn = np.where(live, seen[:-1], np.arange(count) - seen[:-1])
    people = IDENTITIES[split]
    return live, turn % people


def _render(domain: str, split: str, index: Array, live: Array, who: Array, table: Array, seed: int) -> Samples:
    site = PROFILES[domain]
    live, who = live[index], who[index]
    d = Draws([_entropy(seed, domain, split, int(i), _SAMPLE) for i in index])
    kind = np.where(live, 0, _attack(d, site, split))
    pose = Pose(
        d.normal(0, 0.05), d.normal(0, 0.05), site.face_scale * np.exp(d.normal(0, 0.06)),
        d.normal(0, 0.06), np.clip(d.normal(0, 0.2), -0.4, 0.4), np.clip(d.normal(0, 0.14), -0.3, 0.3),
    )  # fmt: skip
    s = scene(d, face(table[who], pose), kind, site, pose.scale)
    visible = inside(site) & (s.subject if site.masked else True)
    visible = np.broadcast_to(visible, s.subject.shape)[:, None]
    rgb = colour(d, s, site, visible)
    ir, back = infrared(d, s, site, visible)
    images = (rgb, depth(d, s, site, back)[:, None], ir[:, None])
    *images, failure = corrupt(d, *(np.where(visible, x, np.uint8(0)) for x in images), site)
    offset = 1000 * (DOMAINS.index(domain) * len(SPLITS) + SPLITS.index(split))
    return Samples(
        *(torch.from_numpy(x) for x in images),
        live=torch.from_numpy(live),
        kind=torch.from_numpy(kind),
        domain=torch.full((len(index),), DOMAINS.index(domain)),
        identity=torch.from_numpy(offset + who),
        failure=torch.from_numpy(failure),
    )


def _attack(d: Draws, site: Profile, split: str) -> Array:
    """The code of an attack a sample, by the domain's weights."""
    weights = site.attacks | (site.unseen if split == "test" else {})
    codes = np.array([KINDS.index(name) for name in weights])
    edges = np.cumsum(list(weights.values())) / sum(weights.values())
    return codes[np.minimum(np.searchsorted(edges, d.uniform()[:, 0, 0], side="right"), len(codes) - 1)]
