"""The sections of a study's page: tables from its results, pictures from one of its runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from numpy.typing import ArrayLike

from fas.evaluation.results import Result
from fas.samples import Samples

from . import pictures
from .html import Picture, Section
from .rates import attack_table, rates_table, reports, tpr_table
from .tables import ablation_table, interval_table, main_table, relative_drop

GLOSSARY = """Live is the positive class; a higher score is more live; a sample is accepted where its score reaches \
the threshold.

APCER: share of attacks that are accepted (pooled over all attacks, of one kind, or of the worst kind: max). BPCER: \
share of live faces that are rejected. ACER and HTER: the mean of APCER and BPCER. AUC: how often a live face scores \
higher than an attack, needs no threshold; 50 % is chance.

EER: the threshold at which APCER and BPCER are equal; taken from the development sets, unless it says oracle. Oracle: \
taken from the test set itself, which nobody can do in use. TPR at FPR: share of live faces accepted while no more \
than that share of attacks is.

95 % interval: from draws of persons and seeds with replacement. Where the interval of a difference holds 0, no \
difference is shown: that is not proof that there is none."""


class Exhibit(NamedTuple):
    """One run to be looked at: a cell and a seed, all systems on one test set. Tensors or arrays."""

    title: str
    test: Samples
    dev_thresholds: Mapping[str, float]  # by system, the development EER
    scores: Mapping[str, ArrayLike]  # by system, "b"
    uncertainty: Mapping[str, Mapping[str, ArrayLike]]  # by system and modality, "b n"
    curves: Mapping[str, Mapping[str, ArrayLike]]  # by system and modality, the loss of the branch by step
    conflicts: Mapping[str, ArrayLike]  # by system, the share of pairs in conflict by step


def results_sections(
    results: Sequence[Result], *, baseline: str, full: str, without: Sequence[str] = ()
) -> list[Section]:
    """Tables of each protocol: the papers' layout at each epoch, intervals, parts, rates. `without`: the ablation."""
    sections = []
    for protocol in dict.fromkeys(result.cell.protocol for result in results):
        part = [result for result in results if result.cell.protocol == protocol]
        systems = {result.system for result in part}
        epochs = [epoch for epoch in ("last", "best") if any(result.epoch == epoch for result in part)]
        tables = [main_table(part, epoch=epoch) for epoch in epochs]
        first = epochs[0]
        text = "Lower HTER and higher AUC are better."
        if {baseline, full} <= systems:
            tables.append(interval_table(part, baseline, epoch=first))
            text += "\n\n" + relative_drop(part, baseline, full, epoch=first)[1] + "."
        sections.append(Section(f"{protocol}: results", text, tables))
        lacking = [system for system in without if system in systems]
        if lacking and full in systems:
            table = ablation_table(part, full, lacking, epoch=first)
            sections.append(Section(f"{protocol}: what each part is worth", "", [table]))
        found = reports(part, epoch=first)
        sections.append(Section(f"{protocol}: rates", "", [rates_table(found), attack_table(found), tpr_table(found)]))
    return sections


def exhibit_section(exhibit: Exhibit, folder: Path | str, *, shown: str) -> Section:
    """Every picture of one run, drawn into `folder`; `shown` is the system whose scores and errors are looked at."""
    if shown not in exhibit.scores:
        raise ValueError(f"shown: expected one of {', '.join(exhibit.scores)}, found {shown!r}")
    folder, test = Path(folder), exhibit.test
    live, threshold = test.live.numpy(), exhibit.dev_thresholds[shown]
    systems = {name: (scores, live) for name, scores in exhibit.scores.items()}
    scores = exhibit.scores[shown]
    drawn = [
        Picture(
            pictures.draw_contact_sheet(test, folder / "attacks.png"),
            "What was held before the camera, a row a kind, in each modality. Which modality gives it away?",
        ),
        Picture(
            pictures.draw_roc(systems, folder / "roc.png"),
            "ROC: higher and further left is better. The leftmost steps rest on single attacks.",
        ),
        Picture(
            pictures.draw_det(systems, folder / "det.png"),
            "DET: the same errors on normal-deviate axes, lower left is better. On the grey line both rates are equal.",
        ),
        Picture(
            pictures.draw_scores_by_kind(scores, live, test.kind_names, threshold, folder / "scores.png"),
            f"Scores of {shown} by kind of attack, live outlined. What lies right of the development threshold is "
            "accepted; a threshold far from the valley between the two suggests that the domain shifted the scores.",
        ),
        Picture(
            pictures.draw_worst(test, scores, threshold, folder / "worst.png"),
            f"The worst errors of {shown}: accepted attacks with the highest scores, rejected live faces with the "
            "lowest. Look for what they have in common: a kind, a sensor that failed, a pose.",
        ),
    ]
    if exhibit.curves:
        drawn.append(
            Picture(
                pictures.draw_convergence(exhibit.curves, folder / "convergence.png"),
                "Training, branch by branch. A branch that falls much faster than the others is the one that "
                "balancing should hold back.",
            )
        )
    if exhibit.conflicts:
        drawn.append(
            Picture(
                pictures.draw_conflicts(exhibit.conflicts, folder / "conflicts.png"),
                "How many pairs of the branches' gradients pointed against each other, over training.",
            )
        )
    for number, (name, maps) in enumerate(exhibit.uncertainty.items()):
        rows = test.corrupted.flatten(1).sum(1).argsort(descending=True, stable=True)[:4].tolist()
        drawn.append(
            Picture(
                pictures.draw_uncertainty(test, maps, folder / f"uncertainty-{number}.png", rows=rows),
                f"Uncertainty of {name} on the four samples with most failed tokens (outlined), brighter is less "
                "certain. A working estimate is bright inside the outlines.",
            )
        )
    return Section(f"One run: {exhibit.title}", "These pictures show one run, and rank nothing.", (), drawn)


def glossary_section() -> Section:
    """The rates in a few words."""
    return Section("The rates", GLOSSARY)
