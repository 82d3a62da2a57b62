"""Kill trainings with SIGKILL, let them go on, and compare every bit with a training that nobody killed.

    python tests/reliability/kills.py [--times 20] [--seed 0]

Half of the kills come at a random time. The others come in the writing of a checkpoint, of a random step: when a random
part of the file is written, when all of it is and has not yet taken its place, and when it has just taken it. Two
programs: ``loop``, the loop of examples/loops/resume.py around the parts of the library that have a state, and
``fas_surf``, the command of that example on few samples. The exit status is 1 if one bit differs.
"""

import io
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
import torch._dynamo  # the first optimizer would import it, which takes longer than the loop
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "examples"), str(ROOT / "examples/loops")]

import resume  # noqa: E402
from journeys import CLASSES, DIM, STEPS, WIDTHS, Loss, Streams, X  # noqa: E402 - found by the line above

from balancekit import (  # noqa: E402
    FeatureDensity,
    MCDropout,
    PrototypeBank,
    Rebalancer,
    ReGrad,
    predictive_entropy,
    prototypical_cross_entropy,
)
from balancekit.modulation import AGM, CGGM, MSLR, scale_updates, shapley_logits  # noqa: E402

TIMES = ("any time", "in the writing", "before it takes its place", "after it took its place")
"""When a kill comes."""


class Kept(nn.Module):
    """What is no module, in the state of one."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        super().__init__()
        self.parts = parts

    def get_extra_state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class Losses(list):
    """The history of a training."""

    def state_dict(self) -> dict[str, list[float]]:
        return {"losses": [*self]}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self[:] = state["losses"]


def everything(model: Streams) -> tuple[torch.optim.Optimizer, Loss]:
    """A journey with dropout and the parts that have a state: the next step depends on all that were before."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.2
    branches = model.branches()
    balancer = Rebalancer(branches, ReGrad(), weight=0.3, per="branch", every=3)
    optimizer = torch.optim.Adam(branches.param_groups(), lr=3e-3)
    doubt = MCDropout(nn.Sequential(nn.Dropout(0.5), nn.Linear(DIM, CLASSES)), samples=4)
    agm, cggm, mslr = AGM(len(WIDTHS)), CGGM([*WIDTHS]), MSLR(dict.fromkeys(WIDTHS, 1.0))
    banks = nn.ModuleDict({m: PrototypeBank(CLASSES, DIM, decay=0.9) for m in WIDTHS})
    densities = nn.ModuleDict({m: FeatureDensity(DIM, decay=0.9) for m in WIDTHS})
    history = Losses()
    model.state = nn.ModuleList([doubt, agm, cggm, mslr, banks, densities, Kept({"0": balancer, "1": history})])

    def loss(forward: Callable[[X], Tensor], x: X, y: Tensor) -> Tensor:
        with branches.capture() as features:
            total = F.cross_entropy(forward(x), y)
        shares = {m: z.flatten(1) for m, z in features.items()}
        alone = shapley_logits(lambda zs: model.head(torch.cat([*zs.values()], 1)), shares)
        known = {m: (logits.argmax(1) == y).float().mean() for m, logits in alone.items()}
        factors = [agm(alone, y), cggm(known), mslr(known)]
        scale_updates(optimizer, {m: (factors[0][m] * factors[1][m] * factors[2][m]).clamp(0.1, 2) for m in WIDTHS})
        losses, trust = {}, {}
        for m, z in features.items():
            banks[m].update(z, y)
            losses[m] = prototypical_cross_entropy(z, y, banks[m].prototypes, seen=banks[m].seen)
            densities[m].accumulate(z)
            if len(history) % 4 == 3:
                densities[m].commit()
            far = densities[m](z).nan_to_num(1.0).mean()
            trust[m] = (-far - predictive_entropy(doubt(z).softmax(-1)).mean()).exp().detach()
        history.append(total.item())
        return balancer(total, losses, confidence=trust)

    return optimizer, loss


def loop(path: Path) -> None:
    """The program of that name: train, with `path` as the checkpoint."""
    resume.go_on(Streams(coupled=True), everything, path)


class Program(NamedTuple):
    """What is to be killed."""

    name: str
    arguments: Callable[[Path], list[str]]  # of the folder where it leaves its files
    checkpoints: int  # how many it writes
    left: Callable[[Path], Any]  # what it has made of the folder in the end


def looped(folder: Path) -> Any:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


LOOP = Program("loop", lambda folder: [str(folder / "checkpoint.pt")], STEPS, looped)


def surfed(folder: Path) -> Any:
    """Checkpoint, scores, history and table."""
    (run,) = (folder / "out").glob("*/*/*")
    (scores,) = run.glob("*.npz")
    with np.load(scores) as arrays:
        found = {name: arrays[name].tolist() for name in arrays.files}
    texts = [(run / "history.json").read_text(), (run / "run.json").read_text()]
    table = (folder / "out/results.csv").read_text()
    stray = [path.name for path in run.glob(".*")]
    return torch.load(run / "checkpoint.pt", weights_only=True), found, texts, table, stray


def fas_surf(data: Path) -> Program:
    """MMDG on list files of a few generated samples, written below `data`: two epochs."""
    from fas.sets.layouts import write_layout
    from fas.standin import make_split

    lists = []
    for domain, split in [*((d, s) for d in "CPS" for s in ("train", "dev")), ("W", "test")]:
        samples = make_split(domain, split, 40, seed=6)
        if domain == "P":
            samples = samples._replace(kind=torch.where(samples.live, 0, 13))
        path = write_layout(samples, data, domain, split=f"{domain}-{split}")
        lists.append(f"{domain}:{split}={path}")
    fixed = ["--data", str(data), "--lists", *lists, "--cache", str(data / "cache"), "--device", "cpu", "--jobs", "1"]
    fixed += ["--systems", "MMDG", "--epochs", "2", "--checkpoint-every", "1", "--resume"]
    return Program("fas_surf", lambda folder: [*fixed, "--out", str(folder / "out")], 2 * (3 * 40 // 24), surfed)


def child(name: str, when: str, number: int, part: float, arguments: list[str]) -> None:
    """Run a program here, and end the process at the `number`-th checkpoint: `when` says how far it has come."""
    torch.set_num_threads(1)
    save, replace, counted = torch.save, os.replace, Counter()

    def reached(this: str) -> bool:
        counted[this] += 1
        return this == when and counted[this] == number

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def saving(state: Any, file: Any) -> None:
        if not reached("in the writing"):
            save(state, file)
            return
        save(state, whole := io.BytesIO())
        opened = file if hasattr(file, "write") else file.open("wb")
        opened.write(whole.getvalue()[: int(part * whole.tell())])
        opened.flush()
        die()

    def replacing(source: Any, target: Any) -> None:
        checkpoint = str(target).endswith(".pt")
        if checkpoint and reached("before it takes its place"):
            die()
        replace(source, target)
        if checkpoint and reached("after it took its place"):
            die()

    torch.save, os.replace = saving, replacing
    print("ready", flush=True)
    if name == "loop":
        loop(Path(arguments[0]))
        return
    sys.argv[1:] = arguments
    runpy.run_path(str(ROOT / "examples/fas_surf.py"), run_name="__main__")


def start(program: Program, folder: Path, when: str = "", number: int = 0, part: float = 0.0) -> subprocess.Popen:
    """Start it, and wait until its imports are done."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, __file__, "--child", program.name, when, str(number), str(part)]
    with (folder / "errors").open("a") as errors:
        process = subprocess.Popen(
            [*command, *program.arguments(folder)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", (folder / "errors").read_text()
    return process


def finish(process: subprocess.Popen, folder: Path) -> None:
    """Wait until it has done its work."""
    process.communicate()
    assert process.returncode == 0, (folder / "errors").read_text()


def kill(program: Program, folder: Path, when: str, draw: random.Random, lasts: float) -> None:
    """Start it, and kill it; `lasts`: how long one that is left alone runs, in seconds."""
    process = start(program, folder, when, draw.randint(1, program.checkpoints), draw.random())
    if when == TIMES[0]:
        time.sleep(draw.uniform(0, lasts))
        process.kill()
    process.communicate()
    if process.returncode == 0:  # it was faster
        shutil.rmtree(folder)
        kill(program, folder, when, draw, 0.8 * lasts)
    else:
        assert process.returncode == -signal.SIGKILL, (folder / "errors").read_text()


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bits(a) == bits(b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, Sequence) and not isinstance(a, str):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


def bits(x: Tensor) -> bytes:
    return x.detach().cpu().contiguous().numpy().tobytes()


def study(program: Program, folder: Path, times: int, draw: random.Random) -> tuple[list[str], bool]:
    """Kill it so many times, each time from the beginning; the row of the table, and whether all was equal."""
    began = time.perf_counter()
    process = start(program, folder / "whole")
    ready = time.perf_counter()
    finish(process, folder / "whole")
    lasts = time.perf_counter() - ready
    expected = program.left(folder / "whole")
    fell, equal = Counter(), 0
    for trial in range(times):
        when = TIMES[1 + trial // 2 % 3] if trial % 2 else TIMES[0]
        place = folder / str(trial)
        kill(program, place, when, draw, lasts)
        fell[when] += 1
        finish(start(program, place), place)
        equal += same(program.left(place), expected)
    where = ", ".join(f"{when} {fell[when]}" for when in TIMES if fell[when])
    row = [program.name, str(times), where, f"{equal} yes, {times - equal} no", f"{time.perf_counter() - began:.0f}"]
    return row, equal == times


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        name, when, number, part, *arguments = sys.argv[2:]
        child(name, when, int(number), float(part), arguments)
        return 0
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="kills of each program")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    draw = random.Random(args.seed)
    print("| program | kills | when they came | resumed bit-equal | seconds |\n|---|---|---|---|---|", flush=True)
    fine = True
    with TemporaryDirectory() as folder:
        for make in (lambda: LOOP, partial(fas_surf, Path(folder) / "data")):
            program = make()
            row, equal = study(program, Path(folder) / program.name, args.times, draw)
            print(f"| {' | '.join(row)} |", flush=True)
            fine &= equal
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
