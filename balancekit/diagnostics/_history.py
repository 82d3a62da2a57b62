"""What was seen: named series of numbers, kept on their device until somebody reads them."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from balancekit._checks import expect, is_real

_FLUSH = 512  # numbers of one series that may wait on a device


class NullEffectWarning(UserWarning):
    """Something that is meant to balance the modalities does nothing."""


class Alarm(NamedTuple):
    """Something does nothing."""

    step: int
    cause: str  # "one", "constant", "unapplied", "no gradient" or "cancelled"
    where: str  # a modality, or the name of a loss term
    text: str


class History(Mapping[str, tuple[np.ndarray, np.ndarray]]):
    """Series by name, such as ``"coefficient/audio"``: the steps at which it was seen, and its values.

    Numbers stay on their device until they are asked for, or 512 of a series are waiting.

    Attributes:
        step: optimizer steps so far, or calls of what is watched if there is no optimizer.
        alarms: what was found to do nothing.
    """

    def __init__(self) -> None:
        self.step = 0
        self.alarms: list[Alarm] = []
        self._waiting: dict[str, list[tuple[int, Tensor]]] = {}
        self._read: dict[str, list[tuple[int, float]]] = {}

    def log(self, values: Mapping[str, Tensor | float]) -> None:
        """Add a number to each of these series, at the present step; scalar tensors stay where they are."""
        expect(isinstance(values, Mapping), "values", "a mapping from names to numbers", values, error=TypeError)
        for name, value in values.items():
            expect(isinstance(name, str), "values", "names that are strings", name, error=TypeError)
            fits = value.numel() == 1 and not value.is_complex() if isinstance(value, Tensor) else is_real(value)
            expect(fits, f"values[{name!r}]", "a number or a tensor with one value", value)
        for name, value in values.items():
            self._read.setdefault(name, [])
            if isinstance(value, Tensor):
                waiting = self._waiting.setdefault(name, [])
                waiting.append((self.step, value.detach().reshape(()).clone()))
                if len(waiting) >= _FLUSH:
                    self._fetch(name)
            else:
                self._fetch(name)
                self._read[name].append((self.step, float(value)))

    def _fetch(self, name: str) -> None:
        waiting = self._waiting.pop(name, [])
        if waiting:
            numbers = torch.cat([value.reshape(1) for _, value in waiting]).tolist()
            self._read[name] += [(step, number) for (step, _), number in zip(waiting, numbers, strict=True)]

    def __getitem__(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in self._read:
            raise KeyError(name)
        self._fetch(name)
        rows = self._read[name]
        return np.array([step for step, _ in rows]), np.array([value for _, value in rows])

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)

    @property
    def last(self) -> dict[str, float]:
        """The latest value of each series: a plain dict, as any logger takes it."""
        for name in self:
            self._fetch(name)
        return {name: rows[-1][1] for name, rows in self._read.items()}

    def to_numpy(self) -> dict[str, np.ndarray]:
        """Each series as an array "n 2" of steps and values."""
        return {name: np.stack(self[name], 1) for name in self}

    def to_pandas(self) -> Any:
        """A DataFrame with a row a step and a column a series, the last value of each step; it needs pandas."""
        import pandas as pd  # pyright: ignore[reportMissingImports] - only who asks for it needs it

        columns = {name: pd.Series(dict(zip(*self[name], strict=True))) for name in self}
        return pd.DataFrame(columns).rename_axis("step")

    def alarm(self, cause: str, where: str, text: str) -> None:
        """Keep an alarm and warn, once for each cause and place."""
        if not any((known.cause, known.where) == (cause, where) for known in self.alarms):
            self.alarms.append(Alarm(self.step, cause, where, text))
            warnings.warn(f"{where}: {text}", NullEffectWarning, stacklevel=3)
