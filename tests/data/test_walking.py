"""Image files, and the walk through folders and archives that finds them."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import pytest
from file_trees import gray_png as png

from alexnet.data.decoding import decode
from alexnet.data.sources.items import Item, read_item
from alexnet.data.sources.walking import Walk, image_files, is_image_start
from alexnet.data.unreadable import UnreadableImageError
from alexnet.runtime.errors import AlexNetError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "b").mkdir(parents=True)
    for value, name in enumerate(("a.jpg", "b/2.PNG", "b/noending", "notes.txt", "a.json", "b/photo.heic")):
        (root / name).write_bytes(png(value) if not name.endswith(("txt", "json")) else b"text")
    return root


def values(path: Path) -> list[int]:
    return [int(decode(read_item(item))[0, 0, 0]) for item in image_files(path)]


def test_image_files_of_a_folder_are_those_with_an_image_ending_or_an_image_s_content(tree: Path) -> None:
    found = image_files(tree)
    assert [os.path.relpath(item.name, tree) for item in found] == ["a.jpg", "b/2.PNG", "b/noending", "b/photo.heic"]
    assert {(left.reason, left.files, os.path.relpath(left.first, tree)) for left in found.ignored} == {
        ("not an image file (.json)", 1, "a.json"),
        ("not an image file (.txt)", 1, "notes.txt"),
    }


@pytest.mark.parametrize("kind", ["zip", "deflated", "tar", "gz", "bz2", "xz", "zst"])
def test_an_archive_has_the_same_image_files(tree: Path, kind: str, tmp_path: Path) -> None:
    path = tmp_path / {"zip": "p.zip", "deflated": "p.zip", "tar": "p.tar"}.get(kind, f"p.tar.{kind}")
    if kind in ("zip", "deflated"):
        method = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", method) as archive:
            for file in sorted(tree.rglob("*"), reverse=True):
                archive.write(file, file.relative_to(tree))
    elif kind == "zst":
        import pyarrow as pa

        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as archive:
            archive.add(tree, ".")
        with pa.output_stream(str(path), compression="zstd") as file:
            file.write(plain.getvalue())
    else:
        with tarfile.open(path, "w" if kind == "tar" else f"w:{kind}") as archive:  # type: ignore[call-overload]
            archive.add(tree, ".")
    assert values(path) == values(tree)
    assert [item.name for item in image_files(path)] == [
        f"{path}/{name}" for name in ("a.jpg", "b/2.PNG", "b/noending", "b/photo.heic")
    ]


def test_any_other_file_is_itself_the_image(tree: Path) -> None:
    assert [item.name for item in image_files(tree / "notes.txt")] == [str(tree / "notes.txt")]


def test_links_are_followed_and_loops_end(tree: Path) -> None:
    (tree / "b" / "loop").symlink_to(tree)
    (tree / "b" / "self").symlink_to(".")
    (tree / "c").symlink_to("b")
    (tree / "d.jpg").symlink_to("a.jpg")
    found = image_files(tree)
    names = [os.path.relpath(item.name, tree) for item in found]
    assert names == [
        *("a.jpg", "b/2.PNG", "b/noending", "b/photo.heic"),
        *("c/2.PNG", "c/noending", "c/photo.heic"),
        "d.jpg",
    ]
    assert [left.files for left in found.ignored if left.reason == "a link to a folder above it"] == [4]


def test_links_in_a_tar_are_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "c").symlink_to("b")
    (tree / "d.jpg").symlink_to("a.jpg")
    os.link(tree / "a.jpg", tree / "e.jpg")
    with tarfile.open(tmp_path / "p.tar", "w") as archive:
        archive.add(tree, "photos")
    assert values(tmp_path / "p.tar") == values(tree)


def test_links_in_a_zip_are_followed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        link = zipfile.ZipInfo("cats/link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "../dogs/a.png")
        archive.writestr("dogs/a.png", png(7))
    assert values(tmp_path / "p.zip") == [7, 7]


def test_special_files_are_not_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tree / "b" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(tree)
        listener.bind("socket.jpg")
        found = image_files(tree)
        assert len(list(found)) == 4
    reasons = {left.reason: left.first for left in found.ignored}
    assert reasons["a named pipe, not a file"] == "b/pipe.jpg"
    assert reasons["a socket, not a file"] == "socket.jpg"
    with pytest.raises(UnreadableImageError, match="a named pipe, socket or device, not a file"):
        read_item(Item("pipe", "", None, str(tree / "b" / "pipe.jpg")))


def test_output_of_this_program_is_ignored(tree: Path, striped_data: Path) -> None:
    (tree / "data").symlink_to(striped_data)
    (tree / "run").mkdir()
    for name in ("config.json", "metrics.jsonl", "figure.png"):
        (tree / "run" / name).write_bytes(png(0))
    (tree / "output").mkdir()
    (tree / "output" / "half.png").write_bytes(png(0))
    walk = Walk(tree, leave=[tree / "output"])
    assert {entry.parts[0] for entry in walk} == {"a.jpg", "a.json", "b", "notes.txt"}
    assert {(left.reason, left.first) for left in walk.tally.list()} == {
        ("a prepared dataset", "data/"),
        ("a run folder", "run/"),
        ("the folder that is written to", "output/"),
    }


def test_a_broken_link_is_an_image_that_cannot_be_read(tree: Path) -> None:
    (tree / "gone.jpg").symlink_to("nowhere.jpg")
    (item,) = [item for item in image_files(tree) if "gone" in item.name]
    with pytest.raises(UnreadableImageError, match="a link to a file that does not exist"):
        read_item(item)


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    walk = iter(Walk(tmp_path))
    (tmp_path / "closed").rmdir()
    assert list(walk) == []
    walk = iter(Walk(tmp_path))
    tmp_path.rmdir()
    with pytest.raises(AlexNetError, match="cannot be read: No such file"):
        list(walk)
    with pytest.raises(AlexNetError, match="neither a folder nor a zip or tar file"):
        list(Walk(tmp_path / "nothing"))


def test_text_is_not_an_image() -> None:
    assert not any(map(is_image_start, (b"", b"this is text", b"BMW 320i, a car", b"PK\x03\x04", b"%PDF-1.7")))
