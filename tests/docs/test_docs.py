"""The documentation is true: its code runs, its commands parse, its links resolve, its numbers cite their results.

A code block that cannot run here is preceded by a comment with the reason: `<!-- skip: next "needs ImageNet" -->`.
A table of numbers that were not measured by this project is preceded by `<!-- not measured: published values -->`.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator
from copy import copy
from functools import cache
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from random_runs import make_run
from stripes import striped_image
from sybil import Document, Example
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

import alexnet
from alexnet.cli.main import build_parser
from alexnet.data import augmentation
from alexnet.data.sources import registry
from alexnet.evaluation import metrics
from alexnet.experiments import catalog
from alexnet.experiments.catalog import experiments
from alexnet.network import variants
from alexnet.weights import formats

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "alexnet"
PAGES = [
    *(ROOT / name for name in ("README.md", "README.ko.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
# The old names in the changelog are no options any more.
PAGES_OF_TODAY = [page for page in PAGES if page.name != "CHANGELOG.md"]

PROSE_LANGUAGES = ("text", "")
"""Fences that hold no code: trees, diagrams, output."""
OTHER_PROGRAMS = (".", "curl", "find", "git", "docker")
"""Commands that are not ours, and are not checked."""
OTHER_OPTIONS = ("--rdzv-id", "--rdzv-conf", "--rdzv-backend", "--rdzv-endpoint", "--nnodes")
"""Options in prose that belong to torchrun."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def each_page(pages: list[Path] = PAGES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=name_of)


@cache
def tokens_of(page: Path) -> list[Token]:
    text = re.sub(r"(?m)^:::.*$|^\(\w[\w-]*\)=$", "", page.read_text(encoding="utf-8"))
    return MarkdownIt("commonmark").enable("table").parse(text)


def inline_of(page: Path, kind: str) -> Iterator[Token]:
    """The inline tokens of a kind: code_inline, link_open, image."""
    for token in tokens_of(page):
        yield from (child for child in token.children or [] if child.type == kind)


# Code blocks.


@pytest.fixture
def example_folder(tmp_path: Path, striped_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the images, the dataset and the run that the examples name."""
    rng = np.random.default_rng(0)
    for folder in ("images/cat", "images/dog", "new"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(12):
            striped_image(rng, folder.endswith("dog"), 72).save(tmp_path / folder / f"{number:03}.png")
    for name in ("one.jpg", "two.png", "query.jpg"):
        striped_image(rng, True, 72).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quick_train(train: Callable[..., Any]) -> Callable[..., Any]:
    """`alexnet.train` with the values of the example checked, and then one epoch of a small network."""

    def run(data: str, out: str, recipe: str = "auto", **changes: Any) -> Any:
        alexnet.recipes()["small" if recipe == "auto" else recipe].override(changes)
        return train(data, out, recipe="small", epochs=1, variant="convolutions", init="he")

    return run


REGISTRIES = (
    (augmentation, "_registered"),
    (catalog, "_EXPERIMENTS"),
    (formats, "_FORMATS"),
    (metrics, "_registry"),
    (registry, "_formats"),
    (variants, "_registry"),
)

ENGLISH = [page for page in PAGES if not page.name.endswith(".ko.md")]


@each_page([page for page in PAGES if page not in ENGLISH])
def test_python_in_korean_pages_is_that_of_the_english_page(page: Path) -> None:
    english = page.with_name(page.name.replace(".ko.md", ".md"))
    blocks = [
        [t.content for t in tokens_of(file) if t.type == "fence" and t.info == "python"] for file in (page, english)
    ]
    assert blocks[0] == [block for block in blocks[1] if block in blocks[0]]


@each_page()
def test_code_blocks_run(page: Path, example_folder: Path, striped_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    if page in ENGLISH and "```python" in text and "alexnet.prepare(" not in text:
        (example_folder / "data").symlink_to(striped_data)
        make_run(example_folder / "run", striped_data, seed=0)
    monkeypatch.setattr(alexnet, "train", quick_train(alexnet.train))
    for module, name in REGISTRIES:  # the registrations of a page end with it
        monkeypatch.setattr(module, name, copy(getattr(module, name)))
    parsers = [CodeBlockParser("sh", check_shell), SkipParser()]
    parsers += [PythonCodeBlockParser()] * (page in ENGLISH)
    for example in Document.parse(str(page), *parsers).examples():
        with contextlib.suppress(SkipTest), contextlib.redirect_stdout(io.StringIO()):
            example.evaluate()


@each_page()
def test_every_code_block_is_of_a_language_that_is_checked(page: Path) -> None:
    fences = [token for token in tokens_of(page) if token.type == "fence"]
    unknown = [
        f.info for f in fences if f.info not in ("python", "sh", *PROSE_LANGUAGES) and not f.info.startswith("{")
    ]
    assert not unknown


@each_page()
def test_a_skipped_block_has_a_reason(page: Path) -> None:
    for comment in re.findall(r"<!--+\s*skip.*?-->", page.read_text(encoding="utf-8"), re.DOTALL):
        assert re.fullmatch(r'<!-- skip: next "\w[^"]+" -->', comment), comment


def check_shell(example: Example) -> str | None:
    """The reason why a command of a shell block is wrong, or None."""
    script = example.parsed.replace("\\\n", " ")
    reasons = [
        reason for line in script.splitlines() for command in commands_of(line) if (reason := reason_against(command))
    ]
    return "\n".join(reasons) or None


def commands_of(line: str) -> Iterator[list[str]]:
    """The commands of a line of a shell, as arguments, without redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    arguments = iter(lexer)
    for argument in arguments:
        if argument in ("&&", "||", "|", ";"):
            yield command
            command = []
        elif argument in (">", ">>", "2>"):
            next(arguments)
        else:
            command.append(argument)
    if command:
        yield command


def reason_against(command: list[str]) -> str | None:
    """The reason why a command is wrong, or None."""
    program, *arguments = command
    if program == "torchrun":
        assert "alexnet" in arguments, command
        program, arguments = "alexnet", arguments[arguments.index("alexnet") + 1 :]
    if program == "alexnet":
        return reason_against_arguments(arguments)
    if program == "make":
        return (
            None
            if f"\n{arguments[0]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
            else f"no target {arguments[0]}"
        )
    if program == "pip":
        return reason_against_extras(" ".join(arguments))
    if program == "python":
        return None if (ROOT / arguments[0]).is_file() else f"no file {arguments[0]}"
    return None if program in OTHER_PROGRAMS else f"unknown program {program!r}"


def reason_against_arguments(arguments: list[str]) -> str | None:
    """The reason why arguments of `alexnet` are wrong: the parser's, or a name that does not exist."""
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message), contextlib.redirect_stdout(io.StringIO()):
            options = build_parser().parse_args(arguments)
    except SystemExit as end:
        return f"alexnet {shlex.join(arguments)}: {message.getvalue()}" if end.code else None
    known = {"recipe": {"auto", *alexnet.recipes()}, "variant": alexnet.list_variants(), "experiment": experiments()}
    for option, names in known.items():
        value = getattr(options, option, None)
        if value is not None and value not in names:
            return f"no {option} {value!r}"
    return None


def reason_against_extras(text: str) -> str | None:
    """The reason why `alexnet[EXTRA]` is wrong, or None."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [name for group in re.findall(r"alexnet\[([\w,]+)\]", text) for name in group.split(",")]
    unknown = [name for name in named if name not in extras]
    return f"no extra {unknown}" if unknown else None


# Commands, options and names in the text.


@cache
def options_of_verbs() -> dict[str, set[str]]:
    parser = build_parser()
    (verbs,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    options = {verb: set(sub._option_string_actions) for verb, sub in verbs.items()}
    return {**options, "": set(parser._option_string_actions).union(*options.values())}


@each_page(PAGES_OF_TODAY)
def test_commands_and_options_in_the_text_exist(page: Path) -> None:
    for token in inline_of(page, "code_inline"):
        code = token.content
        assert reason_against_extras(code) is None, code
        verb = match[1] if (match := re.match(r"alexnet ([a-z]+)\b", code)) else ""
        if code.startswith("alexnet ") and not code.startswith("alexnet --"):
            assert verb in options_of_verbs(), code
        if code.startswith(("alexnet ", "--")):
            for option in re.findall(r"(?<!\S)--[a-z][\w-]*", code):
                assert option in options_of_verbs()[verb] or option in OTHER_OPTIONS, code


@each_page(PAGES_OF_TODAY)
def test_modules_and_symbols_in_the_text_exist(page: Path) -> None:
    for token in inline_of(page, "code_inline"):
        if match := re.fullmatch(r"((?:[\w-]+/)+(?:[\w-]+\.py)?|[\w-]+\.py)(?::([\w.]+))?", token.content):
            file, symbol = match.groups()
            places = [root / file for root in (SOURCE, ROOT) if (root / file).exists()]
            if not places and not file.endswith(".py"):
                continue  # a folder of the user's
            assert places, token.content
            assert symbol is None or symbol in symbols_of(places[0]), token.content
        elif re.fullmatch(r"alexnet(\.[A-Za-z_]\w*)+(\(\))?", token.content):
            assert exists(token.content.removesuffix("()")), token.content


@cache
def symbols_of(file: Path) -> set[str]:
    """The names defined in a module, with those inside classes as Class.name."""

    def names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{node.name}.")
            if isinstance(node, ast.Assign):
                yield from (prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id

    return set(names(ast.parse(file.read_text(encoding="utf-8")).body, ""))


def exists(dotted: str) -> bool:
    """Whether `alexnet.a.b` is a module, a name in one, or an attribute that `alexnet` offers."""
    first, *parts = dotted.split(".")[1:]
    if first in alexnet.__all__:
        value = getattr(alexnet, first)
        return all(hasattr(value, part) for part in parts)
    path = SOURCE
    for number, part in enumerate((first, *parts)):
        if not (path / part).is_dir():
            module = path / f"{part}.py"
            rest = ".".join((first, *parts)[number + 1 :])
            if module.is_file():
                return not rest or rest in symbols_of(module)
            return ".".join((first, *parts)[number:]) in symbols_of(path / "__init__.py")
        path /= part
    return True


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in SOURCE.glob("*/__init__.py")))
def test_the_architecture_names_every_package(folder: str) -> None:
    assert f"| `{folder}` |" in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(alexnet.__all__))
def test_the_api_reference_has_every_public_name(name: str) -> None:
    assert re.search(rf"\balexnet\.{name}\b", (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", [*alexnet.recipes(), *alexnet.list_variants()])
def test_the_reference_has_every_recipe_and_variant(name: str) -> None:
    pages = [(ROOT / "docs" / "reference" / page).read_text(encoding="utf-8") for page in ("recipes.md", "variants.md")]
    assert any(f"`{name}`" in page for page in pages)


# Links.


def slugs_of(page: Path) -> set[str]:
    """The anchors of a page: its headings as GitHub names them, explicit targets, and those of included pages."""
    tokens = tokens_of(page)
    included = [token.info.removeprefix("{include}").strip() for token in tokens if token.info.startswith("{include}")]
    headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\]\([^)]*\)", "", heading)).strip().lower() for heading in headings)
    targets = re.findall(r"(?m)^\(([\w-]+)\)=$", page.read_text(encoding="utf-8"))
    anchors = {heading.replace(" ", "-") for heading in plain} | set(targets)
    return anchors.union(*(slugs_of((page.parent / file).resolve()) for file in included))


@each_page()
def test_links_and_images_resolve(page: Path) -> None:
    links = [str(token.attrs["href"]) for token in inline_of(page, "link_open")]
    images = [str(token.attrs["src"]) for token in inline_of(page, "image")]
    for target in links + images:
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert ROOT in file.parents, target
        assert not anchor or anchor in slugs_of(file), target


@each_page()
def test_images_have_a_description(page: Path) -> None:
    assert all(len(token.content) > 2 for token in inline_of(page, "image"))


# Numbers.

MEASURED = re.compile(r"\d+\.\d|\d\s?(%|×|배|ms\b|MB\b|GB\b|points\b|images/s)|±")


def sections_of(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    yield from re.split(r"(?m)^(?=#{1,4} )", re.sub(r"(?ms)^```.*?^```", "", text))


@each_page(PAGES_OF_TODAY)
def test_tables_of_numbers_cite_their_results(page: Path) -> None:
    for section in sections_of(page):
        for table in re.findall(r"((?:<!-- not measured: \w[^>]+-->\n+)?(?:^\|.*\n)+)", section, re.MULTILINE):
            if MEASURED.search(table) and not table.startswith("<!--"):
                assert re.search(r"\]\([\w./-]*results/[\w-]+\.json\)", section), table.splitlines()[0]


def _row(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (row,) = (row for row in rows if all(row[key] == value for key, value in wanted.items()))
    return row


def _transfer(results: Callable[[str], Any], dataset: str, images: int | str, method: str) -> str:
    row = _row(results("transfer")["table"], set=dataset, images=images, method=method)
    return f"{row['mean']:.1%} ± {100 * row['standard_deviation']:.1f}"


BENCH = "bench-intel-r-xeon-r-processor-2-cores"
SEARCH = "search-intel-r-xeon-r-processor-2-cores"


def _combined(results: Callable[[str], Any]) -> str:
    accuracy = results("combined")["table"]["solar-300"]["average"]["accuracy"]
    return f"{accuracy['mean']:.1%} ± {100 * accuracy['standard_deviation']:.1f}"


def _inference(results: Callable[[str], Any], engine: str) -> str:
    """Seconds of a batch of 64."""
    rows = results("bench-amd-epyc-2-cores")["inference-paper"]["comparisons"]
    row = _row(rows, description="inference, paper, batch 64, float32")
    return f"{row['milliseconds'][engine] / 1000:.2f}"


README_NUMBERS: dict[str, Callable[[Callable[[str], Any]], str]] = {
    "88.1% ± 0.5": lambda r: _combined(r),
    "85.30% ± 0.23": lambda r: f"{r('solar')['mean']:.2%} ± {100 * r('solar')['standard_deviation']:.2f}",
    "82.44%": lambda r: f"{r('solar')['published_percent']['SVM on hand-crafted features (Deitsch et al. 2019)']}%",
    "56.9% ± 1.2": lambda r: _transfer(r, "tiny-imagenet-20", 1000, "starter"),
    "44.3% ± 1.5": lambda r: _transfer(r, "tiny-imagenet-20", 1000, "scratch"),
    "95.5% ± 0.7": lambda r: _transfer(r, "uc-merced", "all", "starter"),
    "94.3% ± 0.6": lambda r: _transfer(r, "uc-merced", "all", "scratch"),
    "7.1": lambda r: f"{r('figure-1')['ratio']:.1f}",
    "97": lambda r: f"{r(BENCH)['train-step']['images_per_second']:.0f}",
    "15": lambda r: f"{r(BENCH)['train-step']['textbook_images_per_second']:.0f}",
    "3,224": lambda r: f"{r(BENCH)['loader']['images_per_second']:,.0f}",
    "353": lambda r: f"{r(BENCH)['loader']['common_images_per_second']:,.0f}",
    "0.40": lambda r: _inference(r, "ours"),
    "0.59": lambda r: _inference(r, "openvino"),
    "1.00": lambda r: _inference(r, "onnxruntime"),
    "13 ms": lambda r: f"{r(SEARCH)['index']['milliseconds']['median']:.0f} ms",
    "recall@10 100%": lambda r: f"recall@10 {r(SEARCH)['index']['recall at 10']:.0%}",
    "5.2": lambda r: f"{r(SEARCH)['exact']['milliseconds']['median'] / 1000:.1f}",
}
"""A number of the table in the README, and how it follows from the files of results."""


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
@pytest.mark.parametrize("number", README_NUMBERS)
def test_the_numbers_of_the_readme_are_those_of_the_results(readme: str, number: str) -> None:
    def results(name: str) -> Any:
        return json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))

    assert README_NUMBERS[number](results) == number
    rows = [line for line in (ROOT / readme).read_text(encoding="utf-8").splitlines() if "docs/results/" in line]
    assert any(re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.,]\d)", row) for row in rows)


@pytest.mark.parametrize("readme", ["README.md", "README.ko.md"])
def test_the_readme_is_one_screen_with_at_most_eight_results(readme: str) -> None:
    lines = (ROOT / readme).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    assert 1 <= sum("(docs/results/" in line for line in lines) <= 8


def test_the_readmes_have_the_same_structure() -> None:
    """The same headings, code, images and rows of tables, in the same order."""

    def shape(page: Path) -> list[str]:
        return [
            token.type + token.tag + token.info
            for token in tokens_of(page)
            if token.type in ("heading_open", "fence", "tr_open")
        ]

    assert shape(ROOT / "README.md") == shape(ROOT / "README.ko.md")


# The project.


def test_the_version_exists_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    assert re.search(
        rf"(?m)^## (Unreleased|{re.escape(alexnet.__version__)}\b)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    )


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"(?m)^\.PHONY: (.*)$", makefile)
    for target in phony.split():
        assert re.search(rf"(?m)^{target}:[^#\n]*## \S", makefile), target


def test_the_examples_of_job_files_parse() -> None:
    script = (ROOT / "examples" / "slurm.sh").read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"-m alexnet (train .*)", script)
    assert reason_against_arguments(shlex.split(os.path.expandvars(command))) is None
