"""Run a function on several gloo ranks with a time limit."""

import socket
import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import multiprocessing


def _main(rank: int, size: int, port: int, function: Callable[..., None], args: tuple) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    try:
        function(rank, size, *args)
    finally:
        dist.destroy_process_group()


def run(function: Callable[..., None], *args: object, size: int = 2) -> None:
    """Call ``function(rank, size, *args)`` in `size` processes; an error in one is raised here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.spawn(_main, (size, port, function, args), nprocs=size, join=False)
    finished = context.join(timeout=120)
    while not finished and any(process.is_alive() for process in context.processes):
        finished = context.join(timeout=120)
