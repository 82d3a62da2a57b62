"""Where samples come from: the stand-in, drawn anew for each seed, or list files; either way one loader reads them."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from .samples import Samples
from .sets.layouts import write_standin
from .sets.lists import overlap
from .sets.opened import open_list
from .standin import COUNTS, VERSION


class Standin(NamedTuple):
    """Generated faces below `folder`, one tree in the layouts of the real sets for each seed."""

    folder: Path
    workers: int = 2

    def __str__(self) -> str:
        """For a report."""
        sizes = ", ".join(f"{split} {count}" for split, count in COUNTS.items())
        return f"generated faces, {sizes} a domain, half of the test live; drawn anew for each seed, in {self.folder}"

    def identity(self) -> str:
        """What decides the samples."""
        return f"stand-in {VERSION}, {COUNTS}"

    def prepare(self, seeds: Iterable[int], pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Write what is not there yet; yields lines to print."""
        for seed in seeds:
            write_standin(self.folder / f"seed-{seed}", seed=seed, workers=self.workers)
        yield str(self)

    def get(self, seed: int, domain: str, split: str) -> Samples:
        """One split of one domain."""
        path = write_standin(self.folder / f"seed-{seed}", seed=seed)[domain, split]
        return open_list(path, path.parent, domain, cache=self.folder / "packed").samples


class Lists(NamedTuple):
    """The user's list files, {(domain, split): path}, with paths below `root`; the same for all seeds."""

    root: Path
    lists: dict[tuple[str, str], Path]
    cache: Path
    size: int = 64
    workers: int = 0

    def __str__(self) -> str:
        """For a report."""
        named = ", ".join(f"{domain} {split} {path}" for (domain, split), path in self.lists.items())
        return f"{named}; images below {self.root}, {self.size} pixels"

    def identity(self) -> str:
        """What decides the samples: the lists, line by line, and the size."""
        lines = {f"{domain}:{split}": sha256(path.read_bytes()).hexdigest()[:16]
                 for (domain, split), path in sorted(self.lists.items())}  # fmt: skip
        return f"{lines}, {self.size} pixels"

    def prepare(self, seeds: Iterable[int], pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Read all, so that what is wrong is known before anything is trained."""
        absent = [f"{domain}:{split}" for domain, split in pairs if (domain, split) not in self.lists]
        if absent:
            raise SystemExit(f"--lists: expected also {' '.join(f'{name}=FILE' for name in absent)}")
        for (domain, _), path in self.lists.items():
            yield open_list(path, self.root, domain, size=self.size, workers=self.workers, cache=self.cache).report
        for domain in dict.fromkeys(d for d, _ in self.lists):
            shared = overlap({split: path for (d, split), path in self.lists.items() if d == domain}, domain)
            if shared:
                yield shared

    def get(self, seed: int, domain: str, split: str) -> Samples:
        """One split of one domain."""
        path = self.lists[domain, split]
        opened = open_list(path, self.root, domain, size=self.size, workers=self.workers, cache=self.cache)
        return opened.samples
