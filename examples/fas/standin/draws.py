"""Random numbers of which every sample owns a stream, so that a sample does not depend on its batch."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .arrays import Array, interpolation
from .faces import SIZE

_UNIFORMS, _NORMALS, _FIELDS, _GRAINS = 128, 40, 8, 7
_COARSE = 8


_UP = interpolation(_COARSE, SIZE)


class Draws:
    """The numbers of one sample a row; each call takes the next column, in the order of the calls."""

    def __init__(self, seeds: Sequence[Sequence[int]]):
        b = len(seeds)
        self._uniforms = np.empty((b, _UNIFORMS), np.float32)
        self._normals = np.empty((b, _NORMALS), np.float32)
        self._fields = np.empty((b, _FIELDS, _COARSE, _COARSE), np.float32)
        self._grains = np.empty((b, _GRAINS, SIZE, SIZE), np.float32)
        for row, seed in enumerate(seeds):
            stream = np.random.default_rng(list(seed))
            stream.random(out=self._uniforms[row], dtype=np.float32)
            for normals in (self._normals, self._fields, self._grains):
                stream.standard_normal(out=normals[row], dtype=np.float32)
        self._next: Counter[str] = Counter()

    def _column(self, name: str) -> int:
        self._next[name] += 1
        return self._next[name] - 1

    def uniform(self, low: float = 0, high: float = 1) -> Array:
        """Uniform in [`low`, `high`), "b 1 1"."""
        return low + (high - low) * self._uniforms[:, self._column("uniform"), None, None]

    def chance(self, probability: float | Array) -> Array:
        """Booleans, "b 1 1"."""
        return self.uniform() < probability

    def normal(self, mean: float = 0, deviation: float = 1) -> Array:
        """Normal, "b 1 1"."""
        return mean + deviation * self._normals[:, self._column("normal"), None, None]

    def field(self) -> Array:
        """A smooth field over the image of deviation about 0.7, "b h w"."""
        return _UP @ self._fields[:, self._column("field")] @ _UP.T

    def grain(self) -> Array:
        """White noise of deviation 1, "b h w"."""
        return self._grains[:, self._column("grain")]

    def grains(self, count: int) -> Array:
        """`count` channels of white noise, "b count h w"."""
        first = self._next["grain"]
        self._next["grain"] += count
        return self._grains[:, first : first + count]
