"""A run in a notebook: what it is and how far it is, in a small table."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alexnet.run import Run


def card(run: Run) -> str:
    """The run as a short piece of HTML; reads `metrics.jsonl`, neither weights nor pictures."""
    recipe, config = run.config.recipe, run.config
    epochs, findings = run.metrics("epoch"), run.metrics("finding")
    counts = config.dataset.get("counts", {})
    names = ", ".join(config.classes[:5]) + (", …" if len(config.classes) > 5 else "")
    rows = {
        "network": f"{recipe.variant}, recipe {recipe.name}, seed {recipe.seed}",
        "classes": f"{len(config.classes):,}: {names}",
        "pictures": ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "not recorded",
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
    return f"<table><caption><b>{escape(str(run.path))}</b></caption><tbody>{body}</tbody></table>"
