"""Names of folders and files: which encoding they are in, and which of them are names of splits."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from alexnet.runtime.errors import UsageError

SPLITS = ("train", "val", "test")

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training", "trn", "trainval", "학습", "학습용", "훈련", "훈련용"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "검증", "검증용"), "val"),
    **dict.fromkeys(
        ("test", "testing", "tst", "eval", "evaluation", "시험", "시험용", "테스트", "평가", "평가용"), "test"
    ),
}
"""The terms that name a split → the split."""

_CONTENT = (
    *("image", "images", "img", "imgs", "photo", "photos", "photograph", "photographs", "picture", "pictures", "pics"),
    *("set", "data", "dataset", "datasets", "folder", "dir", "split", "splits", "file", "files", "jpg", "jpeg", "png"),
    *("jpegimages", "part", "batch", "chunk", "shard", "vol", "volume", "raw", "all", "samples", "sample", "source"),
    *("input", "inputs", "cropped", "resized", "original", "originals", "processed", "cls", "classification"),
    *("원천데이터", "원천", "이미지", "사진", "데이터"),
)
_AUXILIARY = (
    *("mask", "masks", "annotation", "annotations", "annot", "label", "labels", "gt", "groundtruth", "truth"),
    *("ground", "bbox", "bboxes", "boxes", "segmentation", "segmentationclass", "segmentationobject", "thumb"),
    *("thumbs", "thumbnail", "thumbnails", "heatmap", "heatmaps", "라벨링데이터", "라벨"),
)
_UNLABELED = (
    *("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled", "unsup", "submission"),
    *(
        "inference",
        "docs",
        "doc",
        "assets",
        "figures",
        "figs",
        "papers",
        "misc",
        "meta",
        "metadata",
        "results",
        "plots",
    ),
)
_TOKEN = r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+"


class SplitName(NamedTuple):
    """A name that means a split, and what else is in it: nothing in train_images, "seg" in seg_train."""

    split: str
    rest: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether all else in the name is neutral."""
        return not self.rest


def split_of(name: str) -> SplitName | None:
    """Which split a folder or file name means, as in train, train_images, seg_test, training_set, test1; else None."""
    tokens = name_tokens(name)
    splits = [SPLIT_NAMES[token] for token in tokens if token in SPLIT_NAMES]
    if len(set(splits)) != 1 or set(tokens) & set(_AUXILIARY):
        return None
    rest = tuple(token for token in tokens if token not in SPLIT_NAMES and token not in _CONTENT)
    return SplitName(splits[0], rest)


def class_and_split(name: str) -> tuple[str, str] | None:
    """Class and split of a folder whose name begins or ends with a split: cat_train, DogTest, train-cat; else None."""
    tokens = list(re.finditer(_TOKEN, composed(name)))
    found = [one for one in tokens if one[0].lower() in SPLIT_NAMES]
    if len(found) != 1 or found[0] not in (tokens[0], tokens[-1]) or len(tokens) < 2:
        return None
    text, (start, end) = composed(name), found[0].span()
    label = (text[end:] if found[0] is tokens[0] else text[:start]).strip(" ._-()[]")
    return (label, SPLIT_NAMES[found[0][0].lower()]) if label and not is_neutral(label) else None


def is_neutral(name: str) -> bool:
    """Whether a folder name says what the files are and not which class they are: images, part_2, masks."""
    tokens = name_tokens(name)
    return bool(tokens) and all(token in _CONTENT or token in _AUXILIARY or token in _UNLABELED for token in tokens)


def is_unlabeled(name: str) -> bool:
    """Whether a folder is called as one of images without a class, such as seg_pred or unlabeled."""
    return bool(set(name_tokens(name)) & {*_UNLABELED, *_AUXILIARY})


def called_split(name: str | None, where: str) -> str | None:
    """The split that a cell of a table or an argument names; None when it is empty.

    Raises
    ------
    UsageError
        Naming `where`, for any other name.
    """
    if not name:
        return None
    plain = str(name).strip().lower()
    if plain not in SPLIT_NAMES:
        raise UsageError(f"{where}: there is no split {name!r}, only train, val and test")
    return SPLIT_NAMES[plain]


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC), so that names from macOS and Windows are one."""
    return unicodedata.normalize("NFC", name)


def comparable(name: str) -> str:
    """A name for comparison: composed, without regard to case and number of spaces."""
    return " ".join(composed(name).casefold().split())


def check_encoding(encoding: str) -> str:
    """The encoding, or a `UsageError` when Python has none of this name."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise UsageError(
            f"--encoding {encoding!r} does not exist; common ones are utf-8, cp949, cp1252, shift_jis, gbk and utf-16"
        ) from None
    return encoding


def decode_names(raw: Sequence[bytes | str], encoding: str | None, where: str) -> tuple[list[str], list[str]]:
    """Decode names of files: as UTF-8, else by `encoding`, else by what they can be read as without doubt.

    Parameters
    ----------
    raw
        Names; those of type str are decoded already.
    encoding
        The encoding to use for names that are not UTF-8; None guesses one for all of them together.
    where
        The archive or folder, for messages.

    Returns
    -------
    names, notes
        The names, and what was assumed.

    Raises
    ------
    UsageError
        When folder names are not UTF-8 and nothing says what they are, with what they are in common encodings.
    """
    foreign = [name for name in raw if isinstance(name, bytes) and not is_utf8(name)]
    if not foreign:
        return [name if isinstance(name, str) else name.decode("utf-8") for name in raw], []
    notes = []
    if encoding is None:
        sample = next((name for name in foreign if b"/" in name or b"\\" in name), foreign[0])
        encoding = guess_encoding(b"/".join(foreign[:1000]))
        folders = {part for name in foreign for part in re.split(rb"[/\\]", name)[:-1]}
        if encoding is None and all(map(is_utf8, folders)):
            encoding = "cp437"
        if encoding is None:
            raise UsageError(f"{where}: names are not UTF-8; {readings(sample)}; choose one with --encoding")
        example = composed(sample.decode(encoding, "replace"))
        notes.append(
            f"{len(foreign):,} names are not UTF-8 and are read as {encoding.upper()}, such as {example!r}; "
            f"if that is wrong, name the encoding with --encoding"
        )
    names = []
    for name in raw:
        if isinstance(name, str):
            names.append(name)
        else:
            names.append(name.decode("utf-8") if is_utf8(name) else name.decode(encoding, "replace"))
    return names, notes


def is_utf8(text: bytes) -> bool:
    """Whether bytes are valid UTF-8."""
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def guess_encoding(text: bytes) -> str | None:
    """The encoding of bytes that are not UTF-8, where there is hardly a doubt: CP949 of Hangul; else None.

    All non-ASCII characters must be among the 2,350 syllables of KS X 1001.
    """
    try:
        decoded = text.decode("cp949")
    except UnicodeDecodeError:
        return None
    foreign = [character for character in decoded if ord(character) > 127]
    if foreign and all("가" <= character <= "힣" and _is_ksx1001(character) for character in foreign):
        return "cp949"
    return None


def _is_ksx1001(character: str) -> bool:
    return all(byte >= 0xA1 for byte in character.encode("cp949"))


def readings(sample: bytes) -> str:
    """Bytes that are not UTF-8, read in the encodings that are common in file names and tables."""
    found = []
    for encoding in ("cp949", "gbk", "shift_jis", "cp1252", "cp437"):
        try:
            found.append(f"{encoding}: {composed(sample.decode(encoding))!r}")
        except UnicodeDecodeError:
            continue
    return f"{sample!r} may be " + ", ".join(found)


def name_tokens(name: str) -> list[str]:
    """Lower-case tokens of a name, split at anything but letters, and before capitals as in TrainImages."""
    parts = re.findall(_TOKEN, composed(name))
    tokens: list[str] = []
    for part in parts:
        token = part.lower()
        compound = re.fullmatch(
            r"(train|training|val|valid|validation|test|testing)(set|data|dataset|images?|imgs?|photos?|files|folder)",
            token,
        )
        tokens += compound.groups() if compound else (token,)
    return tokens


def first_names(names: Iterable[str], count: int = 5) -> str:
    """Join names for a message, the first `count` of them quoted, and how many more there are."""
    listed = list(names)
    shown = ", ".join(repr(name) for name in listed[:count])
    return shown if len(listed) <= count else f"{shown} and {len(listed) - count:,} more"
