"""Who the samples of a test set are, and draws of persons with replacement."""

import hashlib

import numpy as np

from .metrics import Array, Scored


def persons(test: Scored) -> Array:
    """Who each sample is, "b", numbers from 0 without a gap; each unknown person is a person of its own."""
    count = len(np.asarray(test.live))
    given = np.full(count, -1) if test.identities is None else np.asarray(test.identities)
    if given.shape != (count,):
        raise ValueError(f"identities: expected one a score, shape {(count,)}, found {given.shape}")
    own = given.max(initial=0) + 1 + np.arange(count)
    return np.unique(np.where(given < 0, own, given), return_inverse=True)[1]


def draws(test: Scored, count: int, *, seed: int) -> Array:
    """`count` draws of as many persons as the test set has: the weight of each sample's person, "count persons"."""
    who, live = persons(test), np.asarray(test.live, dtype=bool)
    people = int(who.max()) + 1
    shows = np.stack([np.bincount(who, y, people) for y in (live, ~live)], axis=1)  # samples of each person
    generator = np.random.default_rng([seed, *fingerprint(test)])
    weights, missing = np.zeros((count, people)), np.arange(count)
    while len(missing):
        drawn = generator.integers(people, size=(len(missing), people)) + people * np.arange(len(missing))[:, None]
        weights[missing] = np.bincount(drawn.ravel(), minlength=people * len(missing)).reshape(-1, people)
        missing = missing[(weights[missing] @ shows == 0).any(1)]
    return weights


def fingerprint(test: Scored) -> tuple[int, ...]:
    """A number for the test set, whatever its scores are."""
    fields = (persons(test), np.asarray(test.live, dtype=bool), np.asarray(test.kinds).astype(str))
    digest = hashlib.blake2b(digest_size=16)
    for field in fields:
        digest.update(field.tobytes())
    return tuple(np.frombuffer(digest.digest(), dtype=np.uint32).tolist())
