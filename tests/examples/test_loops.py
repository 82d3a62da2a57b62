"""Every loop of examples/loops trains what the plain loop does."""

import subprocess
import sys
from pathlib import Path

import pytest

LOOPS = Path(__file__).parents[2] / "examples/loops"
SEVERAL = ("ddp", "fsdp2")
SHARED = ("journeys.py", "table.py")


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    """Loop, journey, cell."""
    done = subprocess.run([sys.executable, LOOPS / "table.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    (_, *loops), _, *body = rows
    assert "independent=True" in done.stdout.splitlines()[-1]  # the remedy of what is refused
    return {loop: {row[0]: row[1 + i] for row in body} for i, loop in enumerate(loops)}


def test_every_loop_has_its_column(table: dict[str, dict[str, str]]) -> None:
    files = {path.stem for path in LOOPS.glob("*.py") if path.name not in SHARED}
    assert files - {"plain"} == set(table)
    assert all(len(cells) == 6 for cells in table.values())


def test_one_process_is_the_plain_loop_bit_for_bit(table: dict[str, dict[str, str]]) -> None:
    alone = {loop: cells for loop, cells in table.items() if loop not in SEVERAL}
    assert alone == {loop: dict.fromkeys(cells, "0") for loop, cells in alone.items()}


def test_two_processes_are_one_with_the_whole_batch(table: dict[str, dict[str, str]]) -> None:
    refused = {"ReGrad, late fusion", "ReGrad, adapters between branches"}
    for loop in SEVERAL:
        for journey, cell in table[loop].items():
            if loop == "fsdp2" and journey in refused:
                assert cell == "refused [1]"
            else:
                assert float(cell) <= 1e-6, (loop, journey)


@pytest.mark.parametrize("path", sorted(LOOPS.glob("*.py")), ids=lambda path: path.stem)
def test_a_loop_is_short(path: Path) -> None:
    assert path.name in SHARED or len(path.read_text().splitlines()) < 80


@pytest.mark.parametrize("name", ["plain.py", "accumulation.py"])
def test_a_loop_runs_by_itself(name: str) -> None:
    done = subprocess.run([sys.executable, LOOPS / name], capture_output=True, text=True, check=True)
    assert float(done.stdout.removesuffix("% right\n")) > 45  # of three classes
