"""Section "estimators": Monte-Carlo dropout and ensembles in every form, beside torch-uncertainty's and baal's.

Times are ratios to torch-uncertainty's loop in the same round: above 1 is faster. Where it is not installed, the base
is a bare Python loop. All forms do the same work on equal models without gradients, except that ours copy the input,
look whether anything was random, and put modes and buffers back.
"""

import copy
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from instruments.meters import interleaved, peak_bytes, plain
from instruments.report import Report, ratio, spread
from torch import nn

from balancekit.uncertainty import DeepEnsemble, MCDropout

from . import peers
from .models import CASES, LARGEST, Case

SAMPLES, MEMBERS = 20, 5
OURS, BASE = "ours", "torch-uncertainty"
FORMS: dict[str, tuple[dict[str, Any], bool]] = {
    f"{OURS}": ({}, False),
    f"{OURS}, chunk 5": ({"chunk_size": 5}, False),
    f"{OURS}, chunk {SAMPLES}": ({"chunk_size": SAMPLES}, False),
    f"{OURS}, vmap": ({"chunk_size": SAMPLES, "backend": "vmap"}, False),
    f"{OURS}, compiled": ({}, True),
    f"{OURS}, compiled vmap": ({"chunk_size": SAMPLES, "backend": "vmap"}, True),
}

Call = Callable[[], Any]


def models(case: Case, number: int) -> list[nn.Module]:
    """Equal ones in every call."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return [case.build() for _ in range(number)]


def dropout_forms(case: Case, *, compiles: bool) -> tuple[dict[str, Call], dict[str, Call]]:
    """Eager forms, and those whose first call compiles."""
    (model,), x = models(case, 1), case.input()
    eager: dict[str, Call] = {}
    for name, found in (
        (BASE, peers.torch_uncertainty(copy.deepcopy(model), models(case, 2), x, SAMPLES)),
        ("baal", peers.baal(model, models(case, 2), x, SAMPLES)),
    ):
        eager |= {f"{name}, {form}": found[form] for form in ("loop", "repeat") if found}
    eager["bare loop"] = peers.plain(copy.deepcopy(model), x, SAMPLES)
    compiled: dict[str, Call] = {}
    for name, (options, compile_it) in FORMS.items():
        estimator = MCDropout(copy.deepcopy(model).eval(), SAMPLES, **options)
        if not compile_it:
            eager[name] = lambda estimator=estimator: estimator(x)
        elif compiles:
            estimator.compile(fullgraph=True, dynamic=False)
            compiled[name] = lambda estimator=estimator: estimator(x)
    return eager, compiled


def ensemble_forms(case: Case, *, compiles: bool) -> tuple[dict[str, Call], dict[str, Call]]:
    """The same for ensembles."""
    x = case.input()

    def members() -> list[nn.Module]:
        return [member.eval() for member in models(case, MEMBERS)]

    eager: dict[str, Call] = {}
    for name, form, peer in ((BASE, "loop", peers.torch_uncertainty), ("baal", "states", peers.baal)):
        found = peer(models(case, 1)[0], members(), x, SAMPLES)
        eager |= {f"{name}, {form}": found["ensemble"]} if found else {}
    bare = members()
    eager["bare loop"] = lambda: torch.cat([member(x) for member in bare])
    compiled: dict[str, Call] = {}
    for backend in ("loop", "vmap"):
        name = OURS if backend == "loop" else f"{OURS}, vmap"
        ensemble = DeepEnsemble(members(), backend=backend)
        eager[name] = lambda ensemble=ensemble: ensemble(x)
        if compiles:
            ensemble = DeepEnsemble(members(), backend=backend)
            ensemble.compile(fullgraph=True, dynamic=False)
            name = f"{OURS}, compiled" if backend == "loop" else f"{OURS}, compiled vmap"
            compiled[name] = lambda ensemble=ensemble: ensemble(x)
    return eager, compiled


def first_call(call: Call) -> float:
    """Seconds of it, compilation included, without the compiler's cache."""
    began = time.perf_counter()
    with torch._inductor.config.patch(force_disable_caches=True):
        call()
    return time.perf_counter() - began


def repeats(call: Call) -> int:
    """As many calls as take about 20 ms."""
    call()
    began = time.perf_counter()
    call()
    return max(1, round(0.02 / (time.perf_counter() - began)))


def table(report: Report, title: str, results: Mapping[str, Mapping[str, str]]) -> None:
    """One row a form, one column a model."""
    forms = list(dict.fromkeys(form for column in results.values() for form in column))
    rows = [(form, *(column.get(form, "-") for column in results.values())) for form in forms]
    report.table(title, ("", *results), rows)


def measure(
    report: Report, kind: str, case: Case, eager: dict[str, Call], compiled: dict[str, Call], rounds: int
) -> Any:
    """Times, peaks and first calls of one model's forms, as columns."""
    first = {name: first_call(call) for name, call in compiled.items()}
    calls = eager | compiled
    base = f"{BASE}, loop" if f"{BASE}, loop" in calls else "bare loop"
    repeat = repeats(calls[base])
    times = interleaved({n: plain(call, repeat) for n, call in calls.items()}, rounds, clock=time.thread_time)
    peaks = {name: peak_bytes(call) for name, call in calls.items()}
    for name, values in times.items():
        report.keep("estimators", f"{kind}, {case.name}", name, "seconds", values)
        report.keep("estimators", f"{kind}, {case.name}", name, "peak bytes", [peaks[name]])
    for name, seconds in first.items():
        report.keep("estimators", f"{kind}, {case.name}", name, "first call, seconds", [seconds])
    fastest = {name: sum(a / b for a, b in zip(times[base], times[name], strict=True)) for name in times}
    best = max((name for name in times if name.startswith(OURS)), key=fastest.__getitem__)
    column = {f"{base}, ms": spread([1000 * t for t in times[base]])}
    column |= {name: ratio(times[base], values) for name, values in times.items() if name != base}
    if base == "bare loop":
        column |= {BASE: "not installed"}
    if not any(name.startswith("baal") for name in times):
        column |= {"baal": "not installed"}
    return (
        column | {"fastest of ours": best},
        {name: f"{peak / 2**20:.2f}" for name, peak in peaks.items()},
        {name: f"{seconds:.1f}" for name, seconds in first.items()},
    )


def run(report: Report, *, quick: bool, rounds: int) -> None:
    """Dropout on five models, ensembles on six; with `quick` on two each, and nothing is compiled."""
    chosen = (CASES[0], CASES[3]) if quick else CASES
    kinds = {
        f"MC dropout, {SAMPLES} samples": (dropout_forms, chosen),
        f"Ensemble of {MEMBERS}": (ensemble_forms, chosen if quick else (*chosen, LARGEST)),
    }
    for kind, (forms, cases) in kinds.items():
        times, peaks, firsts = {}, {}, {}
        for case in cases:
            torch.compiler.reset()
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of vmap, where attention has no rule for it; of torch about itself
                eager, compiled = forms(case, compiles=not quick)
                measured = measure(report, kind, case, eager, compiled, rounds)
            times[case.name], peaks[case.name], firsts[case.name] = measured
        table(report, f"{kind}: times faster than {BASE}'s loop (above 1: faster).", times)
        table(report, f"{kind}: peak memory of one call, MiB.", peaks)
        if not quick:
            table(report, f"{kind}: first call of the compiled forms, s.", firsts)
