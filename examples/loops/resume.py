"""Save and go on: a kill costs the steps since the last checkpoint, and not one bit of the result.

    python examples/loops/resume.py [CHECKPOINT]   # kill it, and start it again

A checkpoint holds all that the next step depends on, with the random stream (a GPU has another). It is written beside
the old one, and moved to its place when it is on the disk: a kill leaves one of the two, whole.
"""

import os
from argparse import ArgumentParser
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from journeys import DEVICE, STEPS, Journey, Streams, batches, run


def train(model: Streams, journey: Journey) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        go_on(deepcopy(model), journey, path, until=STEPS // 2)  # as far as a kill lets it come
        go_on(model, journey, path)


def go_on(model: Streams, journey: Journey, path: Path, until: int = STEPS) -> None:
    optimizer, loss_of = journey(model)
    parts = {"model": model, "optimizer": optimizer}
    done = load(path, parts) if path.exists() else 0
    for step, (x, y) in enumerate(batches()[done:until], start=done + 1):
        loss = loss_of(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        save(path, parts, step)


def save(path: Path, parts: dict[str, Any], step: int) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    with path.with_suffix(".partial").open("wb") as file:
        torch.save(state | {"random": torch.get_rng_state(), "step": step}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def load(path: Path, parts: dict[str, Any]) -> int:
    try:
        state = torch.load(path, weights_only=True, map_location=DEVICE)
    except Exception as error:  # torch has many for it, and none names the file
        raise ValueError(f"{path}: expected a whole checkpoint; delete it to begin anew") from error
    for name, part in parts.items():
        part.load_state_dict(state[name])
    torch.set_rng_state(state["random"].cpu())
    return state["step"]


if __name__ == "__main__":
    parser = ArgumentParser(usage="resume.py [CHECKPOINT]")
    parser.add_argument("checkpoint", nargs="?", type=Path)
    path = parser.parse_args().checkpoint
    run(lambda *parts: go_on(*parts, path) if path else train(*parts))
