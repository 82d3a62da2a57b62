"""A process that never saw the training: new backbones, new adapters, and the adapters' state from a file.

``python -m tests.foreign.fresh FOLDER THREADS`` reads FOLDER/<name>.safetensors for each backbone and
writes the logits before and after loading into FOLDER/loaded.safetensors.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from balancekit.adapters import CrossModal, load_adapter_state
from tests.foreign.backbones import BACKBONES, NAMES, Recogniser, wire


def recogniser(name: str, seed: int) -> tuple[Recogniser, list[CrossModal]]:
    """The backbone that everybody has, with adapters and a head that start from `seed`."""
    backbone = BACKBONES[name]
    torch.manual_seed(0)
    model = backbone.build()
    crosses = wire(backbone, model, seed)
    return Recogniser(backbone, model), crosses


def batch(name: str, samples: int = 2) -> Tensor:
    """Images, or tokens, of all modalities as one batch "(m b) ..."."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(len(NAMES) * samples, *BACKBONES[name].input, generator=generator)


def main(folder: Path) -> None:
    logits: dict[str, Tensor] = {}
    for name in BACKBONES:
        model, crosses = recogniser(name, seed=7)
        model.eval()
        with torch.no_grad():
            logits[f"{name}, before"] = model(batch(name))
            load_adapter_state(model, load_file(folder / f"{slug(name)}.safetensors"), *crosses, model.head)
            logits[f"{name}, after"] = model(batch(name))
    save_file(logits, folder / "loaded.safetensors")


def slug(name: str) -> str:
    """A file name."""
    return name.replace("/", "-")


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    main(Path(sys.argv[1]))
