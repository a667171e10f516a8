"""One term per concept: the retired words of docs/reference/glossary.md do not return, in any language or file.

`python tests/test_vocabulary.py [PATH ...]` prints every finding as file:line: word -> term, without pytest.

Identifiers are split at underscores and capitals before they are searched, so that `read_pictures` and `PictureBatch`
are found as "picture". Python files are searched by token: rules for prose see comments and strings, rules for code see
names too. Other files are searched line by line.
"""

from __future__ import annotations

import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

AREAS = {
    "source": ("src/**/*.py",),
    "tests": ("tests/**/*.py",),
    "pages": ("src/**/*.js", "src/**/*.html", "src/**/*.css", "src/**/*.jinja", "src/**/*.j2"),
    "documentation": ("docs/**/*.md", "docs/*.svg", "docs/conf.py", "src/**/*.md", "*.md", "examples/*"),
    "configuration": ("Makefile", "pyproject.toml", "constraints.txt", ".ci/*"),
    "results": ("docs/results/*.json",),
}


class Rule(NamedTuple):
    """A retired word, as a regular expression for lower-case text, and the term that replaces it."""

    pattern: str
    term: str
    scope: str = "all"
    """`all`: names, comments, strings, text. `prose`: all but names. `results`: also the JSON files of results."""


RULES = (
    # Images and augmentation.
    Rule(r"\bpictures?\b", "image", "results"),
    Rule(r"\bpatch(es)?\b", "crop", "results"),
    Rule(r"\bmirror(s|ed|ing)?\b", "horizontal flip", "results"),
    Rule(r"\b(the|all|its|of|these|some|other|across|neighboring|two|three|\d+) maps\b", "feature maps", "prose"),
    Rule(r"\b(a|one|each|every|its|this|that|per) map\b", "feature map", "prose"),
    Rule(r"\bcolou?r (shift|noise)\b", "PCA color augmentation"),
    Rule(r"\bpixel unit\b", "pixel scaling"),
    # Machines.
    Rule(r"\bprocessors?\b", "CPU"),
    Rule(r"\bgraphics? cards?\b", "GPU"),
    Rule(r"(?<!model )\b(one|each|per|two|several|many|eight) cards?\b", "GPU", "prose"),
    # Metrics and decisions.
    Rule(r"\bright when said\b|\bright (class|label|answer)(es|s)?\b", "precision, true class"),
    Rule(r"\bwrong answers?\b|\banswer(s|ed)? wrong(ly)?\b|\bwrongly answered\b", "error, misclassified"),
    Rule(r"\bwho is taken\b|\btaken for\b|\bfor whom\b", "confusion matrix, predicted as"),
    Rule(r"\bhow (sure|often the network is right)\b|\bsurest\b", "confidence"),
    Rule(r"\balarms?\b", "false positive"),
    # Experiments.
    Rule(r"\barms?\b", "trial", "results"),
    Rule(r"\b(un)?luck(y|ily)?\b", "chance, within noise"),
    Rule(r"\bcoins?\b", "dropout mask"),
    # Training.
    Rule(r"\b(take|takes|taken|taking|took) (it |them |what )?over\b", "loaded, pretrained"),
    Rule(r"\blearned before\b|\balready known\b|\bwhat is known\b", "pretrained, linear probe"),
    Rule(
        r"(?<!learning[ -])\brates? (is |are )?(falls?|fell|divided|drops?|rises?|by hand)\b", "learning rate", "prose"
    ),
    Rule(r"\b(drops?|fall) of the rate\b", "learning-rate drop", "prose"),
    Rule(r"\bpass(es)? over the (training |prepared )?(images|pictures|data|dataset)\b", "epoch"),
    Rule(r"\bnot finite\b|\bfinite again\b|\bbeing finite\b", "NaN or Inf", "prose"),
    Rule(r"(?<!rolled )\bback to (the )?(last good )?step\b", "rolled back to step"),
    Rule(r"\bto the last (bit|digit|number)\b|\bbit for bit\b", "bitwise identical"),
    Rule(r"\b(?-i:Alone)\b", "SingleProcess"),
    Rule(r"\bshares of each batch\b", "data parallel"),
    # Files, messages and the command line.
    Rule(r"\bwords?\b", "message, text, command-line arguments"),
    Rule(r"\bonly whole\b|\bwrite whole\b|\bwritten whole\b", "atomic write"),
    Rule(r"\bcan('t| ?not) be had\b|\btakes? a free one\b", "cannot bind; a free port is chosen"),
    Rule(r"\bas asked\b|\bis told\b|\bit is told\b", "as requested"),
    Rule(r"\bso many\b", "how many, up to N", "prose"),
    Rule(r"\bwhom\b", "(rephrase)"),
    Rule(r"^[rbf]*(\"{1,3}|'|# ?)(what|who|whose) ", "a sentence with its subject first", "prose"),
    Rule(r"\bstands?\b|\bstood\b", "is, remains", "prose"),
    Rule(
        r"\bthe way\b|\bwhole way\b|\bway of\b|\bon (its|their) way\b|\bunder way\b", "flow, path, in progress", "prose"
    ),
    Rule(r"\bno more than a seed\b|\ba seed's\b", "within noise", "prose"),
    Rule(
        r"\b(images?|steps?|bytes|[kmgt]b|folder|file|row|line|process(es)?|units?|numbers?|one) an? "
        r"(second|class|epoch|step|device|image|core|parameter|host|layer|seed|tower)\b",
        "per (images per second, one folder per class)",
        "prose",
    ),
    # American spelling.
    Rule(r"\bcolour\w*\b", "color", "results"),
    Rule(r"\b(grey|greys|greyscale)\b", "gray"),
    Rule(r"\b(centre|centres|centred)\b", "center", "results"),
    Rule(r"\bneighbour\w*\b", "neighbor"),
    Rule(r"\bbehaviou\w*\b", "behavior"),
    Rule(r"\bfavou\w*\b", "favor"),
    Rule(r"\blicences?\b", "license"),
    Rule(r"\bcatalogues?\b", "catalog"),
    Rule(r"\bartefacts?\b", "artifact"),
    Rule(r"\b(label|model|travel|cancel|signal)led\b|\b(label|model|travel|cancel|signal)ling\b", "labeled, modeled"),
    Rule(r"\b(learnt|whilst|programme|programmes)\b", "learned, while, program"),
    Rule(
        r"\b(un|re|de)?(normal|initial|optim|organ|recogn|serial|synchron|quant|summar|minim|maxim|orthogonal|special|"
        r"general|random|standard|penal|parallel|visual|real|vector|token|author|custom|digit|categor|memor|factor)"
        r"is(e|es|ed|er|ers|ing|ation|ations)\b",
        "-ize",
    ),
    Rule(r"\banalys(e|es|ed|ing)\b", "analyze"),
    # Names of packages, verbs and values that no longer exist.
    Rule(r"\balexnet show\b|\balexnet\[show\]|\balexnet\.show\b", "report"),
    Rule(
        r"--(crop|side|early-side|symmetries|draw-every|without|taken-lr|depth-lr|frozen|bias-lr|bias-decay|muon-lr|"
        r"fan-in-lr|full-batch|layer-decay|average|drops|pixel-unit|checkpoint-seconds|peer-seconds)(?![\w-])",
        "the new option (see CHANGELOG)",
        "prose",
    ),
    Rule(
        r"\b(early side|draw every|taken lr|depth lr|fan in lr|full batch|layer decay|bias decay|checkpoint seconds|"
        r"peer seconds|color unit)\b|\b(bias|muon) lr\b(?! scale)",
        "the new value of the recipe (see CHANGELOG)",
        "results",
    ),
    Rule(r"\bsymmetries\b(?! of)", "flip", "results"),
    # Korean.
    Rule(
        r"(?<!오)분류(?=[가는은이를을의와과로에도만]|마다|별|\s*\d|\()(?!\s*(모델|작업|문제|성능|결과))"
        r"(?<!이미지 분류)",
        "클래스 (category)",
    ),
    Rule(r"찍는 수준|찍기|찍을 때", "무작위 추측"),
    Rule(r"(?<!특징 )(?<!메모리 )(?<!컬러)맵", "특징 맵"),
    Rule(r"(열|아홉|한) 조각", "크롭, 뷰"),
    Rule(r"시드의 운|운을 넘|운으로", "오차 범위"),
    Rule(r"값어치", "효과"),
    Rule(r"프로세서", "CPU"),
    Rule(r"그래픽 ?카드", "GPU"),
    Rule(r"거울", "좌우 반전"),
    Rule(r"맞힌|맞춘 비율|틀린 답", "정확도, 오분류"),
    Rule(r"무엇을 무엇으로|누구를 누구로", "혼동 행렬"),
    Rule(r"마지막 (비트|숫자)까지|비트까지 같", "비트 단위로 같음"),
    Rule(r"라벨", "레이블"),
)

ALLOWED = (
    # (files, the retired word as found, the line as a regular expression, reason)
    ("tests/test_vocabulary.py", r".*", r".*", "this list"),
    ("CHANGELOG.md", r".*", r"^\s*\||is `--checkpoint-interval`|verb `alexnet show`", "names the old names"),
    (
        "*",
        r"patch(es)?",
        r"\bMonkeyPatch\b|\bmock\.patch|\bmatplotlib\.patches|[\"']PATCH[\"']|\.patch\.|\.patches\b|\.add_patch\(",
        "names of other libraries",
    ),
    (
        "*",
        r"processors?",
        r"Xeon\(R\) Processor|xeon-r-processor|platform\.processor",
        "names of CPU models, the platform module",
    ),
    (
        "*",
        r"words?",
        r"\bwords\.txt\b|[\"']words[\"']",
        "the file and the field of ImageNet's devkit and Tiny ImageNet",
    ),
    ("*", r"words?", r"\bWordNet\b", "the lexical database"),
    ("*", r"pictures?", r"</?picture>", "the HTML element"),
    ("src/alexnet/data/sources/*", r"pictures?|라벨", r"\*?\(?\"\w+\", ", "names of columns and folders of others"),
    ("docs/how-to/*", r"# What ", r"# What counts as a dataset", "a title"),
    ("src/alexnet/data/sources/ilsvrc.py", r"Word", r"WordNet", "the name of a dictionary"),
    ("*", r"alarm", r"\bsignal\.alarm\(", "the function of the signal module"),
    ("*.css", r"word", r"word-break", "the CSS property"),
    ("*", r"cancelled", r"\.cancelled\(|CancelledError", "names of asyncio and concurrent.futures"),
    ("src/alexnet/kernels/*", r"words?", r".*", "machine words of 16 and 32 bits"),
    ("docs/results/*.json", r".*", r"\"(command|published)\": ", "commands as they were run"),
)

PYTHON_TEXT = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}


class Finding(NamedTuple):
    """A retired word: where, the word, and the term that replaces it."""

    file: Path
    line: int
    word: str
    term: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.word} -> {self.term}"


def split_identifiers(text: str) -> str:
    """`readPictures_of` as "read Pictures of"; the number of lines stays the same."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text.replace("_", " "))


def fragments(file: Path) -> Iterator[tuple[int, str, bool]]:
    """The line, the text and whether it is prose, of each part of a file that is searched."""
    text = file.read_text(encoding="utf-8")
    if file.suffix != ".py":
        yield from ((number, line, True) for number, line in enumerate(text.splitlines(), 1))
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in PYTHON_TEXT:
            yield from ((token.start[0] + ahead, line, True) for ahead, line in enumerate(token.string.split("\n")))
        elif token.type == tokenize.NAME:
            yield token.start[0], token.string, False


COMPILED = [(rule, re.compile(rule.pattern, re.IGNORECASE | re.MULTILINE)) for rule in RULES]


def rules_for(file: Path, text: str) -> list[tuple[Rule, re.Pattern[str]]]:
    """The rules that match anywhere in a file; the files of results have rules of their own."""
    if file.suffix == ".json":
        return [(rule, pattern) for rule, pattern in COMPILED if rule.scope == "results" and pattern.search(text)]
    # Rules for the start of a comment or string, and for options, are tried on every fragment.
    always = ("^", "--")
    return [(rule, pattern) for rule, pattern in COMPILED if rule.pattern.startswith(always) or pattern.search(text)]


def is_allowed(file: Path, line: str, word: str) -> bool:
    """Whether the list of exceptions has this word in this line of this file."""
    name = file.relative_to(ROOT).as_posix()
    return any(
        fnmatch(name, files) and re.fullmatch(words, word, re.I) and re.search(lines, line)
        for files, words, lines, _ in ALLOWED
    )


def findings(files: Iterable[Path]) -> Iterator[Finding]:
    """Every retired word of these files, in order."""
    for file in files:
        whole = file.read_text(encoding="utf-8")
        lines = whole.splitlines()
        rules = rules_for(file, split_identifiers(whole))
        for number, text, is_prose in fragments(file):
            plain = split_identifiers(text)
            for rule, pattern in rules:
                if rule.scope == "prose" and not is_prose:
                    continue
                # Options and dotted names are searched as they are written, words with identifiers split.
                for match in pattern.finditer(plain) if "--" not in rule.pattern else pattern.finditer(text):
                    if not is_allowed(file, lines[number - 1] if lines else "", match[0]):
                        yield Finding(file, number, match[0], rule.term)


def files_of(patterns: Iterable[str]) -> list[Path]:
    """The files of an area, without what is built."""
    found = {file for pattern in patterns for file in ROOT.glob(pattern) if file.is_file()}
    return sorted(file for file in found if not {"_build", ".venv", "__pycache__"} & set(file.parts))


@pytest.mark.parametrize("area", AREAS)
def test_no_retired_word_returns(area: str) -> None:
    found = list(findings(files_of(AREAS[area])))
    assert not found, f"{len(found)} retired words:\n" + "\n".join(map(str, found))


@pytest.mark.parametrize("area", AREAS)
def test_every_area_has_files(area: str) -> None:
    assert files_of(AREAS[area])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("def read_pictures(): ...", "pictures"),
        ("class PictureBatch: ...", "Picture"),
        ("x = 1  # the centre of it", "centre"),
        ('"""Beyond luck."""', "luck"),
        ("taken_lr = 0.1", "taken lr"),
        ('help = "see --checkpoint-seconds"', "--checkpoint-seconds"),
        ("# 분류마다 폴더 하나", "분류"),
    ],
)
def test_retired_words_are_found_in_names_comments_and_strings(
    tmp_path: Path, text: str, word: str, monkeypatch
) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "example.py"
    file.write_text(text + "\n", encoding="utf-8")
    assert [found.word for found in findings([file])] == [word]


@pytest.mark.parametrize(
    "text",
    [
        "def test(monkeypatch): ...",
        "map(str, values)",
        "# memory maps",
        "dispatch()",
        "keywords, passwords",
        "x: MonkeyPatch",
        "# 분류기, 이미지 분류",
    ],
)
def test_other_words_are_ignored(tmp_path: Path, text: str, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    file = tmp_path / "example.py"
    file.write_text(text + "\n", encoding="utf-8")
    assert not list(findings([file]))


def main(arguments: list[str]) -> int:
    """Print the findings of the given files and folders, or of all areas."""
    if arguments:
        roots = [Path(name).resolve() for name in arguments]
        searched = {file for patterns in AREAS.values() for file in files_of(patterns)}
        files = sorted(file for file in searched if any(file == root or root in file.parents for root in roots))
    else:
        files = [file for patterns in AREAS.values() for file in files_of(patterns)]
    count = 0
    for finding in findings(files):
        print(finding)
        count += 1
    print(f"{count} retired words in {len(files)} files", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
