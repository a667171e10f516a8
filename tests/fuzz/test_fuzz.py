"""Damaged files of every format through `prepare`, `predict` and the server: what fuzz.py states of them holds."""

import sys
from pathlib import Path

import pytest
from damaged_files import FORMATS, MUTATIONS, fuzzed_file, sound_files
from fuzz import fuzz

from alexnet.data.decoding import decode
from alexnet.data.unreadable import UnreadableImageError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")


@pytest.mark.parametrize("files", [50, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_damaged_files_are_named_and_their_neighbors_processed(files: int, tmp_path: Path) -> None:
    result = fuzz(files, 0, tmp_path)
    assert result["findings"] == []
    for stage in result["stages"].values():
        assert sum(stage["outcomes"].values()) == files
        assert stage["outcomes"]["processed"] >= result["sound files"] == files // 10


def test_sound_files_of_every_format_are_read_at_their_size() -> None:
    files = [file for file in sound_files(0) if file.format not in ("tga", "icns", "jpeg with exif")]
    assert {file.format for file in files} == FORMATS.keys() - {"tga", "icns", "jpeg with exif"}
    for file in files:
        assert decode(file.data).shape == (file.height, file.width, 3), file.format


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_mutation_damages_files_of_every_format() -> None:
    pool = sound_files(0)
    unread: set[str] = set()
    for number in range(2000):
        file = fuzzed_file(number, 0, pool, 10)
        try:
            decode(file.data, max_pixels=1_000_000)
        except UnreadableImageError:
            unread |= {file.format, file.mutation}
    assert unread >= FORMATS.keys() | (MUTATIONS.keys() - {"wrong extension"})
