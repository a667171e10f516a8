"""The summary of a run in a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alexnet.runs.config import Config

MAX_CLASSES = 5
"""Names of classes in the card."""


def notebook_card(
    title: str, config: Config, epochs: Sequence[Mapping[str, Any]], findings: Sequence[Mapping[str, Any]]
) -> str:
    """A small HTML table: network, classes, images, progress and findings of a run.

    Parameters
    ----------
    title : str
        Caption of the table.
    config : Config
        The configuration of the run.
    epochs, findings : sequence of mapping
        The records of `metrics.jsonl` with these events.
    """
    recipe, classes, counts = config.recipe, config.classes, config.dataset.get("counts", {})
    names = ", ".join(classes[:MAX_CLASSES]) + (", …" if len(classes) > MAX_CLASSES else "")
    rows = {
        "network": f"{recipe.variant}, recipe {recipe.name}, seed {recipe.seed}",
        "classes": f"{len(classes):,}: {names}",
        "images": ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "not recorded",
        "epochs": f"{len(epochs)} of {recipe.epochs}",
    }
    if epochs:
        last = epochs[-1]
        rows["error rate"] = f"{last['train_error']:.2%} (training)"
        if "validation_error" in last:
            rows["error rate"] += f", {last['validation_error']:.2%} (validation)"
    rows["findings"] = "; ".join(finding["message"] for finding in findings) or "none"
    body = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption><b>{escape(title)}</b></caption><tbody>{body}</tbody></table>"
