"""A run in a notebook: what it is and how far it is, in a small table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from alexnet.runs.recipe import Recipe


def card(
    title: str,
    recipe: Recipe,
    classes: Sequence[str],
    counts: Mapping[str, int],
    epochs: Sequence[Mapping[str, Any]],
    findings: Sequence[Mapping[str, Any]],
) -> str:
    """A short piece of HTML; `epochs` and `findings` are records of `metrics.jsonl`, `counts` images a split."""
    names = ", ".join(classes[:5]) + (", …" if len(classes) > 5 else "")
    rows = {
        "network": f"{recipe.variant}, recipe {recipe.name}, seed {recipe.seed}",
        "classes": f"{len(classes):,}: {names}",
        "images": ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "not recorded",
        "epochs": f"{len(epochs)} of {recipe.epochs}",
    }
    if epochs:
        last = epochs[-1]
        rows["error"] = f"{last['train_error']:.2%} in training"
        if "validation_error" in last:
            rows["error"] += f", {last['validation_error']:.2%} in validation"
    rows["health"] = "; ".join(finding["message"] for finding in findings) or "nothing wrong was noticed"
    body = "".join(
        f'<tr><th style="text-align:left">{name}</th><td style="text-align:left">{escape(value)}</td></tr>'
        for name, value in rows.items()
    )
    return f"<table><caption><b>{escape(title)}</b></caption><tbody>{body}</tbody></table>"
