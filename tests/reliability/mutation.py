"""Mutation testing: change one thing in one function, and see whether a test fails.

    python tests/reliability/mutation.py [--each 150] [--seed 0]      # goes on where it was stopped
    python tests/reliability/mutation.py --report                     # what has been found so far

mutmut makes the mutants of the rooms in ``[tool.mutmut]`` of pyproject.toml and runs, for each, those of the tests
named there that reach the changed function. `--each` mutants of a room are drawn at random. A mutant that changes only
what an error says is never drawn: the table of wrong calls asks for the words. The exit status is 1 if a survivor has
no reason in ``survivors.json``.
"""

import ast
import json
import math
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Iterator
from difflib import ndiff
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).parents[2]
MUTANTS = ROOT / "mutants"
REASONS = Path(__file__).with_name("survivors.json")
KILLED, NOT_RUN = 1, None  # exit codes in mutmut's files; 0 survived, 33 no test reaches it, others ran out of time

Functions = dict[str, ast.FunctionDef]


class Silent(ast.NodeTransformer):
    """Take away what an error or a warning says, and leave when it is raised and of what type it is."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name.lstrip("_") == "expect":
            node.args = node.args[:1]
        elif name.lstrip("_").startswith("expect_"):
            node.args = [arg for arg in node.args if not is_text(arg)]
        elif name == "warn" or name.endswith("Error"):
            node.args = []
        return node


def is_text(node: ast.expr) -> bool:
    """A string, or the None that mutmut puts in its place."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str | None))


def code(function: ast.FunctionDef, *, words: bool) -> str:
    """The body, without the name, which differs between mutants; without `words`, also without what errors say."""
    tree = ast.parse(ast.unparse(function)).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.name = "f"
    return ast.unparse(tree if words else Silent().visit(tree))


def functions(path: Path) -> Functions:
    """All functions and methods of a file that mutmut wrote, with all their mutants."""
    return {f.name: f for f in ast.walk(ast.parse(path.read_text())) if isinstance(f, ast.FunctionDef)}


def original(name: str, those: Functions) -> ast.FunctionDef:
    return those[name.rpartition("__mutmut_")[0] + "__mutmut_orig"]


def verdicts(room: str) -> Iterator[tuple[Path, dict[str, int | None]]]:
    """The files of a room, and the exit code of each of their mutants."""
    for meta in sorted((MUTANTS / "balancekit" / room).glob("*.meta")):
        found = json.loads(meta.read_text())["exit_code_by_key"]
        if found:
            yield meta.with_suffix(""), found


def candidates(room: str) -> tuple[list[str], int]:
    """The mutants that change what the code does, and how many only change what an error says."""
    names, words = [], 0
    for path, found in verdicts(room):
        those = functions(path)
        silent: dict[str, str] = {}
        for mutant in found:
            name = mutant.rpartition(".")[2]
            before = original(name, those)
            if before.name not in silent:
                silent[before.name] = code(before, words=False)
            if code(those[name], words=False) == silent[before.name]:
                words += 1
            else:
                names.append(mutant)
    return names, words


def changed(mutant: str, path: Path) -> str:
    """One line that says where and what: the lines before and after."""
    those, name = functions(path), mutant.rpartition(".")[2]
    sides = (code(f, words=True).splitlines() for f in (original(name, those), those[name]))
    lines = [line for line in ndiff(*sides) if line[:2] in ("- ", "+ ")]
    where = name.rpartition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")
    told = " → ".join(" ".join(line[2:].strip() for line in lines if line[0] == side) for side in "-+")
    return f"{path.relative_to(MUTANTS)}: {where}: {told}"


def interval(part: int, whole: int) -> tuple[float, float]:
    """Wilson's interval of 95 % for a proportion, in per cent."""
    z, share = 1.96, part / whole
    middle = (share + z**2 / (2 * whole)) / (1 + z**2 / whole)
    half = z / (1 + z**2 / whole) * math.sqrt(share * (1 - share) / whole + z**2 / (4 * whole**2))
    return 100 * (middle - half), 100 * (middle + half)


def mutmut(*names: str) -> int:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CI": "true"}  # a fixed seed for hypothesis
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(os.cpu_count() or 1), *names]
    return subprocess.run(command, cwd=ROOT, env=env, check=False).returncode


def rooms() -> list[str]:
    return sorted(path.name for path in (MUTANTS / "balancekit").iterdir() if any(v for v in verdicts(path.name)))


def draw(each: int, seed: int) -> list[str]:
    """The first of each room in an order that a new mutant does not change."""
    names: list[str] = []
    for room in rooms():
        of_room, _ = candidates(room)
        names += sorted(of_room, key=lambda name: sha256(f"{seed} {name}".encode()).digest())[:each]
    return names


def report() -> int:
    given: dict[str, list[str]] = json.loads(REASONS.read_text())
    reasons = {change: reason for reason, changes in given.items() for change in changes}
    survivors: dict[str, list[str]] = defaultdict(list)
    print("| room | mutants | of the words of an error | run | killed | per cent (95 % interval) |")
    print("|---|---:|---:|---:|---:|---:|")
    totals = [0, 0, 0, 0]
    for room in rooms():
        names, words = candidates(room)
        wanted, run, killed = set(names), 0, 0
        for path, found in verdicts(room):
            for mutant, exit_code in found.items():
                if mutant not in wanted or exit_code is NOT_RUN:
                    continue
                run += 1
                if exit_code == KILLED:
                    killed += 1
                else:
                    line = changed(mutant, path)
                    survivors[reasons.get(line, "")].append(line)
        row = [len(names) + words, words, run, killed]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        show(room, row)
    show("all", totals)
    for reason, changes in sorted(survivors.items()):
        print(f"\n{reason or 'NO REASON GIVEN'}")
        print("\n".join(f"- {each}" for each in changes))
    return 1 if "" in survivors else 0


def show(room: str, row: list[int]) -> None:
    *_, run, killed = row
    share = "{:.1f} ({:.1f} to {:.1f})".format(100 * killed / run, *interval(killed, run)) if run else "–"
    print(f"| {room} | {' | '.join(f'{n:,}' for n in row)} | {share} |")


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=150, help="mutants drawn of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="run nothing, print what has been found")
    args = parser.parse_args()
    if not args.report:
        if not (MUTANTS / "mutmut-stats.json").exists():
            mutmut("nothing")  # makes the mutants and finds which test reaches what, then finds nothing of that name
        if failed := mutmut(*draw(args.each, args.seed)):
            return failed
    return report()


if __name__ == "__main__":
    sys.exit(main())
