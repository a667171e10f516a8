"""Response normalization on CIFAR-10: the same network without and with it (paper, section 3.3)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from alexnet.experiments.cifar import cifar10
from alexnet.experiments.cifar_networks import Trials, changes, curves
from alexnet.experiments.trials import write_with_figure
from alexnet.runtime.provenance import provenance

NETWORK = "cifar-11pct"


def reproduce(
    work: Path,
    results: Path,
    seeds: Sequence[int],
    command: str,
    data: Sequence[str] = (),
    quick: bool = False,
    full: bool = False,
) -> str:
    """Train cuda-convnet's conv-local-11pct without and with its normalization layers, with the same seeds.

    The trials with normalization are shared with the experiment `cifar-11pct` in the same work folder. Returns a
    summary of one line.
    """
    dataset = cifar10(work, data, quick)
    values, suffix = changes(NETWORK, full, quick), "-quick" * quick
    without = {**values, "normalization": "none"}
    trials = {
        "without": Trials(dataset, NETWORK, seeds, without, f"{NETWORK}-none{suffix}"),
        "with": Trials(dataset, NETWORK, seeds, values, f"{NETWORK}{suffix}"),
    }
    both = {name: some.measure(work) for name, some in trials.items()}
    pairs = zip(*(both[name]["test_error"]["values"] for name in ("with", "without")), strict=True)
    differences = [one - other for one, other in pairs]
    report = {
        "description": "test error on CIFAR-10 without and with response normalization, all else equal; weights of the "
        "last epoch",
        **trials["with"].about(data),
        **both,
        "difference": statistics.mean(differences),
        "difference_of_each_seed": differences,
        **provenance(command),
    }
    names = {"without": "without normalization", "with": "with normalization"}
    write_with_figure(results, report, curves({names[name]: found["trials"] for name, found in both.items()}))
    return (
        f"test error {both['without']['test_error']['mean']:.2%} without normalization, "
        f"{both['with']['test_error']['mean']:.2%} with it, over {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    )
