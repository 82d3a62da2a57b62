"""A type checker in strict mode finds errors in the lines that are marked with ``# error``, and in no other.

And no public name has a type that it does not know. Run as a script with the Python of an environment that holds
balancekit and basedpyright: ``python tests/typed/check.py``.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAMS = [HERE / "user.py", HERE / "wrong.py"]


def report(*arguments: str) -> dict[str, Any]:
    """What the checker says of this environment."""
    command = [sys.executable, "-m", "basedpyright", "--outputjson", *arguments]
    here = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    return json.loads(subprocess.run(command, env=here, capture_output=True, text=True, check=False).stdout)


def errors() -> dict[tuple[str, int], str]:
    """What it finds in the programs, by file and line."""
    found = report("--project", str(HERE))
    assert found["summary"]["filesAnalyzed"] == len(PROGRAMS), found["summary"]
    return {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1): each["message"]
        for each in found["generalDiagnostics"]
    }


def marked() -> set[tuple[str, int]]:
    """The lines that it must refuse, by file and number."""
    return {
        (path.name, number)
        for path in PROGRAMS
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "# error" in line
    }


def unknown() -> list[str]:
    """The public names whose type it does not know."""
    symbols = report("--verifytypes", "balancekit", "--ignoreexternal")["typeCompleteness"]["symbols"]
    assert len(symbols) > 200, len(symbols)
    public = [each for each in symbols if each["isExported"]]
    return [each["name"] for each in public if not each["isTypeKnown"] and not each["isTypeAmbiguous"]]


def main() -> None:
    """Compare, complain."""
    found, wanted, names = errors(), marked(), unknown()
    complaints = [f"{file}:{line}: {found[file, line]}" for file, line in sorted(found.keys() - wanted)]
    complaints += [f"{file}:{line}: expected an error, found none" for file, line in sorted(wanted - found.keys())]
    complaints += [f"{name}: expected a known type" for name in names]
    assert not complaints, "\n".join(["", *complaints])
    print(f"a user's program: no error; {len(wanted)} wrong uses refused")


if __name__ == "__main__":
    main()
