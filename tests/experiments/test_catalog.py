"""The values in docs/reproduction.md are those of the files under docs/results/."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from alexnet.experiments.catalog import dataset_name, experiments, named_sources, rows
from alexnet.runtime.errors import UsageError

DOCS = Path(__file__).parents[2] / "docs"


def cells() -> list[list[str]]:
    lines = (DOCS / "reproduction.md").read_text(encoding="utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


@pytest.mark.parametrize("row", list(rows(DOCS / "results")), ids=lambda row: f"{row.experiment}: {row.claim.text}")
def test_every_claim_is_in_the_overview_as_measured(row) -> None:
    assert list(row.cells()) in [cell[:5] for cell in cells()]


@pytest.mark.parametrize("name", [name for name, experiment in experiments().items() if experiment.claims])
def test_every_experiment_is_documented_with_its_command_and_figure(name: str) -> None:
    text = (DOCS / "reproduction.md").read_text(encoding="utf-8")
    assert f"alexnet reproduce {name}" in text
    if (DOCS / "results" / f"{name}.png").exists():
        assert f"(results/{name}.png)" in text


def test_two_sources_of_one_name_are_refused() -> None:
    assert named_sources(["a/first.zip", "b/Second_set"]) == {"first": "a/first.zip", "second-set": "b/Second_set"}
    with pytest.raises(UsageError, match="two of --data have the same name"):
        named_sources(["a/cells.zip", "b/cells"])


@pytest.mark.parametrize("name", ["결함 사진.zip", "Été_2024", "日本語"])
def test_a_set_whose_name_is_not_english_has_a_name_of_its_own(name: str) -> None:
    assert dataset_name([name])
    assert named_sources([name, "other.zip"])["other"] == "other.zip"
    assert dataset_name([name]) == dataset_name([unicodedata.normalize("NFD", name)])


@pytest.mark.parametrize(
    ("name", "reason"),
    [("cells/Solar.zip", "the solar cells"), ("solar_300.tar", "the solar cells"), ("+++", "neither letters nor")],
)
def test_a_name_that_would_take_the_place_of_another_set_is_refused(name: str, reason: str) -> None:
    for named in (named_sources, dataset_name):
        with pytest.raises(UsageError, match=reason):
            named([name])
