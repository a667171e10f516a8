"""Section 3.3 of the paper on CIFAR-10: the same network without response normalisation and with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet.files import write_whole
from alexnet.provenance import provenance, write_result
from alexnet.recipe import recipes
from alexnet.reproduce.arms import spread
from alexnet.reproduce.cifar import cifar10, source_words
from alexnet.reproduce.cifar_networks import VIEWS, Arm, changes, curves
from alexnet.show.style import png

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
    """Train cuda-convnet's conv-local-11pct without its normalisation layers and with them, with the same seeds.

    The arms with them are those of the experiment `cifar-11pct` in the same work folder. Returns both errors in a line.
    """
    dataset = cifar10(work, data, quick)
    values = changes(NETWORK, full, quick)
    suffix = "-quick" if quick else ""
    arms = {
        "without": [
            Arm(NETWORK, seed, {**values, "normalization": "none"}).measure(dataset, work / f"{NETWORK}-none{suffix}")
            for seed in seeds
        ],
        "with": [Arm(NETWORK, seed, values).measure(dataset, work / f"{NETWORK}{suffix}") for seed in seeds],
    }
    both: dict[str, dict[str, Any]] = {
        name: {
            "test_error": spread([arm["test_error"] for arm in group]),
            "test_error_one_view": spread([arm["test_error_one_view"] for arm in group]),
            "arms": group,
        }
        for name, group in arms.items()
    }
    pairs = zip(arms["with"], arms["without"], strict=True)
    differences = [one["test_error"] - other["test_error"] for one, other in pairs]
    report = {
        "what": f"error on the {len(dataset.split('test')):,} test pictures of CIFAR-10 without response normalisation "
        "and with it, everything else alike; weights of the last epoch",
        "network": NETWORK,
        "views": VIEWS[NETWORK],
        **both,
        "difference": spread(differences)["mean"],
        "difference_of_each_seed": differences,
        "pictures": source_words(data),
        "recipe": recipes()[NETWORK].override(values).to_dict(),
        "epochs_published": recipes()[NETWORK].epochs,
        "seeds": list(seeds),
        **provenance(command),
    }
    write_result(results, report)
    names = {"without": "without normalisation", "with": "with"}
    write_whole(results.with_suffix(".png"), png(curves({names[name]: group for name, group in arms.items()})))
    return (
        f"test error {both['without']['test_error']['mean']:.2%} without normalisation, "
        f"{both['with']['test_error']['mean']:.2%} with it, over {len(seeds)} seed{'s' * (len(seeds) > 1)}"
    )
