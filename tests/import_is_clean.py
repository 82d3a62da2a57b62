"""A fresh process imports balancekit: nothing foreign is loaded, and nothing global is changed.

Run as a script: ``python tests/import_is_clean.py``.
"""

import logging
import os
import random
import sys

import numpy as np
import torch


def world() -> tuple:
    """The global state that an import must leave alone."""
    return (
        dict(os.environ),
        sorted(logging.root.manager.loggerDict),
        logging.root.level,
        list(logging.root.handlers),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )


def main() -> None:
    """Import, compare, complain."""
    before, modules = world(), set(sys.modules)
    import balancekit  # noqa: F401

    assert world() == before, "importing balancekit changed global state"
    new = {name.split(".")[0] for name in set(sys.modules) - modules}
    heavy = {"matplotlib", "pandas", "scipy", "sklearn", "lightning", "transformers", "beartype", "torch._inductor"}
    assert not new & heavy, f"importing balancekit loaded {sorted(new & heavy)}"
    assert not {"torch._dynamo", "torch._inductor"} & (set(sys.modules) - modules), (
        "importing balancekit loaded a compiler"
    )
    print("import balancekit: clean")


if __name__ == "__main__":
    main()
