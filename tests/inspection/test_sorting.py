"""Sorting of images into class folders: every file in exactly one place, after any kill and any undo."""

import csv
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from by_content import CLASSES, ByContent
from random_runs import make_run
from stripes import striped_image

from alexnet.experiments import sorting_kills
from alexnet.inspection.journal import JOURNAL, open_journal
from alexnet.inspection.sort_session import SUMMARY, class_folders
from alexnet.inspection.sorting import sort_images, undo_sort
from alexnet.prediction.classifier import Classifier
from alexnet.runtime.errors import AlexNetError, UsageError

SUBFOLDERS = ("", "a", "b/c")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve files in three folders with four names, and a text file."""
    root = tmp_path / "images"
    for number in range(12):
        path = root / SUBFOLDERS[number % 3] / f"{number // 3}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{'ls'[number % 2]}{number % 10} image {number}".encode())
    (root / "notes.txt").write_text("not an image", encoding="utf-8")
    return root


def contents(*roots: Path) -> Counter[bytes]:
    """Content → number of image files below the roots, hidden ones included; empty reservations are no images."""
    files = [file for root in roots for file in root.rglob("*") if file.is_file() and not file.is_symlink()]
    return Counter(
        content
        for file in files
        if (file.suffix == ".png" or file.name.startswith(".sort-")) and (content := file.read_bytes())
    )


def tree(root: Path) -> dict[str, bytes]:
    """Relative path → content of every file below a folder."""
    return {str(file.relative_to(root)): file.read_bytes() for file in sorted(root.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("mode", ["copy", "move", "link"])
def test_every_image_goes_to_the_folder_of_its_class_and_comes_back(folder: Path, tmp_path: Path, mode: str) -> None:
    before, out = tree(folder), tmp_path / "out"
    result = sort_images(ByContent(), folder, out, mode=mode)
    assert result.counts == {str(out / "lying"): 6, str(out / "standing"): 6}
    for name in ("lying", "standing"):
        assert {file.read_bytes()[:1] for file in (out / name).iterdir()} == {name[:1].encode()}
    assert len(tree(folder)) == (1 if mode == "move" else 13)
    assert all(file.is_symlink() == (mode == "link") for file in out.glob("*/*"))
    assert undo_sort(out) == (12, [])
    assert tree(folder) == before
    assert not out.exists()


def test_a_name_that_exists_gets_a_numbered_suffix(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "lying").mkdir(parents=True)
    (out / "lying" / "0.png").write_bytes(b"somebody else's")
    result = sort_images(ByContent(), folder, out, mode="move")
    assert (out / "lying" / "0.png").read_bytes() == b"somebody else's"
    assert (out / "lying" / "0-2.png").read_bytes() == b"l0 image 0"
    assert {Path(p.target).name for p in result.renamed} >= {"0-2.png"}
    assert all("-" in Path(p.target).stem for p in result.renamed)
    assert sum(contents(folder, out).values()) == 13


def test_an_undo_does_not_overwrite_a_new_file_of_the_same_name(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sort_images(ByContent(), folder, out, mode="move")
    (folder / "0.png").write_bytes(b"new")
    undone, messages = undo_sort(out)
    assert undone == 12
    assert messages == [f"{folder / '0.png'} exists; the file is now {folder / '0-2.png'}"]
    assert (folder / "0.png").read_bytes() == b"new"
    assert (folder / "0-2.png").read_bytes() == b"l0 image 0"


def test_an_undo_keeps_a_copy_that_was_changed_or_is_the_last_one(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sort_images(ByContent(), folder, out)
    (out / "lying" / "0.png").write_bytes(b"edited")
    lost = next(p for p in (out / "standing").iterdir() if p.read_bytes() == b"s3 image 3")
    (folder / "1.png").unlink()
    undone, messages = undo_sort(out)
    assert undone == 10
    assert sorted(message.split(" is kept: ")[1].split(" ")[0] for message in messages) == ["it", "its"]
    assert (out / "lying" / "0.png").read_bytes() == b"edited"
    assert lost.exists()
    with (out / SUMMARY).open() as file:
        assert {row["target"] for row in csv.DictReader(file)} == {str(out / "lying" / "0.png"), str(lost)}


def test_an_undo_of_one_folder_leaves_the_files_of_another(folder: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    shutil.copytree(folder, other)
    sort_images(ByContent(), folder, out)
    sort_images(ByContent(), other, out)
    assert undo_sort(out, other) == (12, [])
    assert sum(contents(out).values()) == 12
    assert undo_sort(out) == (12, [])


def test_unreadable_images_stay_and_are_named(folder: Path, tmp_path: Path) -> None:
    damaged = folder / "a" / "damaged.png"
    damaged.write_bytes(b"?")
    out = tmp_path / "out"
    result = sort_images(ByContent(), folder, out, mode="move")
    assert result.unsorted == [(str(damaged), "damaged")]
    assert damaged.exists()
    with (out / SUMMARY).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    assert list(rows[-1].values()) == [str(damaged), "", "", "", "", "none", "damaged"]
    assert {(row["class"], Path(row["target"]).parent.name) for row in rows[:-1]} == {
        ("lying", "lying"),
        ("standing", "standing"),
    }


def test_improbable_classes_go_to_the_folder_of_unsure_images(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sort_images(ByContent(), folder, out, unsure_below=0.5)
    assert {file.read_bytes()[1:2] for file in (out / "unsure").iterdir()} == {b"0", b"1", b"2", b"3", b"4"}
    assert {file.read_bytes()[1:2] for name in CLASSES for file in (out / name).iterdir()} == set(
        map(bytes, zip(b"56789"))
    )
    sort_images(ByContent(), folder, tmp_path / "two", unsure=tmp_path / "check", unsure_below=0.5)
    assert len(list((tmp_path / "check").iterdir())) == len(list((out / "unsure").iterdir()))
    undo_sort(tmp_path / "two")
    assert not (tmp_path / "check").exists()


def test_invalid_settings_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--unsure-below"):
        sort_images(ByContent(), folder, tmp_path / "out", unsure=tmp_path)
    with pytest.raises(UsageError, match=r"unsure_below is 1\.5"):
        sort_images(ByContent(), folder, tmp_path / "out", unsure_below=1.5)
    with pytest.raises(UsageError, match="unknown mode"):
        sort_images(ByContent(), folder, tmp_path / "out", mode="rename")
    with pytest.raises(AlexNetError, match="not a folder"):
        sort_images(ByContent(), folder / "notes.txt", tmp_path / "out")
    with pytest.raises(AlexNetError, match="nothing to undo"):
        undo_sort(folder)


def test_a_dry_run_writes_nothing_and_names_the_targets_of_the_real_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    planned = sort_images(ByContent(), folder, out, mode="move", dry_run=True)
    assert not out.exists()
    assert len(tree(folder)) == 13
    done = sort_images(ByContent(), folder, out, mode="move")
    assert [(p.source, p.target) for p in planned.placements] == [(p.source, p.target) for p in done.placements]


def test_a_second_call_sorts_only_new_images(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sort_images(ByContent(), folder, out)
    (folder / "new.png").write_bytes(b"l9 new")
    (folder / "0.png").write_bytes(b"l9 another image of the same name")
    again = sort_images(ByContent(), folder, out)
    assert sorted(Path(p.source).name for p in again.placements) == ["0.png", "new.png"]
    assert again.already == 11


def test_other_settings_for_the_same_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    sort_images(ByContent(), folder, out)
    with pytest.raises(AlexNetError, match="another unsure, unsure_below: undo that"):
        sort_images(ByContent(), folder, out, unsure_below=0.5)
    undo_sort(out)
    sort_images(ByContent(), folder, out, unsure_below=0.5)


def test_the_output_folder_can_be_in_the_folder_or_the_folder_itself(folder: Path) -> None:
    for out in (folder / "sorted", folder):
        assert len(sort_images(ByContent(), folder, out, mode="move").placements) == 12
        assert sort_images(ByContent(), folder, out, mode="move").placements == []
        assert undo_sort(out) == (12, [])


def test_a_folder_of_class_folders_is_not_sorted_into_itself(folder: Path) -> None:
    """Its images are in the folders that are written to, which are not searched: nothing would be sorted."""
    sort_images(ByContent(), folder, folder, mode="move")
    (folder / "sort.jsonl").unlink()
    before = sorted(folder.rglob("*"))
    with pytest.raises(AlexNetError, match=r"is sorted into itself.*choose another folder with --to"):
        sort_images(ByContent(), folder, folder, mode="move")
    assert sorted(folder.rglob("*")) == before
    (folder / "new.png").write_bytes(b"l9 new")
    assert len(sort_images(ByContent(), folder, folder, mode="move").placements) == 1


def test_what_a_link_leads_to_is_not_moved(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"l9 x")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "linked.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    result = sort_images(ByContent(), folder, tmp_path / "out", mode="move")
    assert sorted(path for path, _ in result.unsorted) == [
        str(folder / "linked.png"),
        str(folder / "linked" / "x.png"),
    ]
    assert (tmp_path / "elsewhere" / "x.png").exists()


def test_names_that_are_not_unicode_come_back(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    name = os.fsdecode(b"\xb0\xa1 \xea\xb0\x80.png")
    (folder / name).write_bytes(b"l9")
    sort_images(ByContent(), folder, out, mode="move")
    assert [file.name for file in (out / "lying").iterdir()] == [name]
    assert undo_sort(out) == (1, [])
    assert [file.name for file in folder.iterdir()] == [name]


def test_class_names_become_folder_names() -> None:
    assert class_folders(["a/b", "a:b", "..", "Cat", "cat", "", "개"]) == [
        "a_b",
        "a_b-2",
        "_",
        "Cat",
        "cat-2",
        "_-2",
        "개",
    ]


def test_two_sorts_into_one_folder_at_once_are_refused(folder: Path, tmp_path: Path) -> None:
    with open_journal(tmp_path / "out"), pytest.raises(AlexNetError, match="another `alexnet sort` writes to"):
        sort_images(ByContent(), folder, tmp_path / "out")


def test_a_damaged_journal_is_named_with_the_line(folder: Path, tmp_path: Path) -> None:
    sort_images(ByContent(), folder, tmp_path / "out")
    file = tmp_path / "out" / JOURNAL
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([*lines[:3], "{}\n", *lines[3:]]), encoding="utf-8")
    with pytest.raises(AlexNetError, match=f"{JOURNAL}, line 4"):
        undo_sort(tmp_path / "out")


def test_a_move_to_another_file_system_copies_and_removes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_two_file_systems(monkeypatch, tmp_path / "out")
    before = tree(folder)
    sort_images(ByContent(), folder, tmp_path / "out", mode="move")
    assert sum(contents(tmp_path / "out").values()) == 12
    assert len(tree(folder)) == 1
    assert undo_sort(tmp_path / "out") == (12, [])
    assert tree(folder) == before


def pretend_two_file_systems(monkeypatch: pytest.MonkeyPatch, other: Path) -> None:
    replace = os.replace

    def refuse(source: str, target: str) -> None:
        if str(source).startswith(str(other)) != str(target).startswith(str(other)):
            raise OSError(18, "Invalid cross-device link")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)


# Kills.

CALLS = ("open", "write", "fsync", "replace", "symlink", "unlink", "truncate", "rmdir", "mkdir")


def dies_at(call: int, before: bool, work: Callable[[], object]) -> bool:
    """Run `work` in a forked process that dies at its n-th change of the file system. False if it ended before."""
    child = os.fork()
    if child == 0:
        left = [call]

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                here = left[0] == 0
                if here and before:
                    os._exit(9)
                try:
                    return function(*arguments, **options)
                finally:
                    if here:
                        os._exit(9)

            return run

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize(
    ("mode", "other_file_system"),
    [
        pytest.param("copy", False, marks=pytest.mark.long),
        pytest.param("link", False, marks=pytest.mark.long),
        pytest.param("move", False, marks=pytest.mark.long),
        ("move", True),  # a copy, then the removal of the original
    ],
)
def test_a_kill_at_any_call_leaves_every_file_in_one_place(
    tmp_path: Path, mode: str, other_file_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies at its first change of the file system, at its second, ...; the same call continues."""
    folder, out = tmp_path / "images", tmp_path / "out"
    if other_file_system:
        pretend_two_file_systems(monkeypatch, out)
    folder.mkdir()
    (folder / "0.png").write_bytes(b"l9")
    before = tree(folder)

    def sort() -> object:
        return sort_images(ByContent(), folder, out, mode=mode)

    call, died = 0, True
    while died:
        call += 1
        died = dies_at(call, bool(call % 2), sort)
        assert contents(folder, out)[b"l9"] == 1 or mode == "copy" or other_file_system
        assert set(contents(folder, out)) == {b"l9"}
        sort()
        assert contents(folder, out) == Counter({b"l9": 2 if mode == "copy" else 1})
        assert [file.name for file in (out / "lying").iterdir()] == ["0.png"]
        assert not list(out.rglob("*.tmp"))
        undone = dies_at(call, bool(call % 2), lambda: undo_sort(out))
        assert set(contents(folder, out)) == {b"l9"}
        if (out / JOURNAL).exists():
            assert undone
            undo_sort(out)
        assert tree(folder) == before
        assert not contents(out)
        shutil.rmtree(out, ignore_errors=True)
    assert call > 10


def test_a_process_killed_at_random_moments_loses_nothing(tmp_path: Path) -> None:
    folder, out = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    expected = Counter()
    for number in range(150):
        content = f"{'ls'[number % 2]}9 {number}".encode()
        (folder / f"{number:03}.png").write_bytes(content)
        expected[content] += 1
    rng = random.Random(0)
    killed = 0
    for _ in range(6):
        child = os.fork()
        if child == 0:
            sort_images(ByContent(), folder, out, mode="move")
            os._exit(0)
        time.sleep(rng.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert contents(folder, out) == expected
    sort_images(ByContent(), folder, out, mode="move")
    assert killed > 0
    assert contents(out) == expected
    assert undo_sort(out) == (150, [])
    assert contents(folder) == expected


# The command.


@pytest.fixture(scope="module")
def real(striped_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with random weights and a folder of 40 images, one of them damaged."""
    root = tmp_path_factory.mktemp("sorted")
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for number in range(39):
        striped_image(rng, number % 2 == 0, 72).save(root / "images" / f"{number:02}.png")
    (root / "images" / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    return make_run(root / "run", striped_data, seed=0, variant="convolutions"), root / "images"


def test_the_command_sorts_and_undoes(real: tuple[Path, Path], tmp_path: Path, command: Callable[..., Any]) -> None:
    run, images = real
    out = tmp_path / "out"
    dry = command("sort", run, images, "--to", out, "--dry-run")
    assert dry.returncode == 1
    assert not out.exists()
    done = command("sort", run, images, "--to", out)
    assert done.returncode == 1
    assert f"{images / 'damaged.png'}: " in done.stderr
    expected = {p.source: p.label for p in Classifier.load(run).predict(sorted(images.glob("??.png")))}
    found = {row["source"]: row["class"] for row in csv.DictReader(dry.stdout.splitlines())}
    with (out / SUMMARY).open() as file:
        rows = {row["source"]: row for row in csv.DictReader(file)}
    assert found == expected == {source: row["class"] for source, row in rows.items() if row["target"]}
    assert all(Path(row["target"]).read_bytes() == Path(s).read_bytes() for s, row in rows.items() if row["target"])
    assert sum(int(line.split()[0]) for line in done.stdout.splitlines()) == 39
    undone = command("sort", "--undo", "--to", out)
    assert (undone.returncode, undone.stdout) == (0, "undone: 39 files\n")
    assert not out.exists()
    assert command("sort", run, "--to", out).returncode == 2


@pytest.mark.parametrize("kills", [1, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_the_command_killed_at_random_moments_loses_nothing(
    real: tuple[Path, Path], tmp_path: Path, kills: int
) -> None:
    found = sorting_kills.measure(real[0], tmp_path / "kills", kills, undo_kills=-(-kills // 5), seed=kills)
    images = kills * sorting_kills.IMAGES_PER_KILL
    assert found["kills"] > 0
    assert (found["lost"], found["doubled"], found["left_in_output"]) == (0, 0, 0)
    assert found["images"] == found["in_class_folders"] == found["rows_in_log"] == found["restored"] == images
