"""Image files, and the one walk through folders and archives that finds them.

`alexnet prepare`, `predict`, `search` and `serve` share what is defined here:

- An *image file* is a regular file whose name has the ending of an image format (`IMAGE_ENDINGS`). A file without a
  known ending is one when its first bytes are those of an image format.
- Hidden files, what file managers leave behind, and what this program wrote itself (prepared datasets, run folders)
  are not part of a source.
- Symbolic links are followed, and a link to a folder above itself is not. Named pipes, sockets and devices are never
  opened.

`image_files(path)` is the public function; `Walk` is the form that lists everything, image or not.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from alexnet.data.sources.items import Ignored, Item, read_item
from alexnet.data.sources.names import decode_names
from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import write_atomic

_DECODED = (
    *("jpg", "jpeg", "jpe", "jfif", "jif", "mpo", "png", "apng", "gif", "webp", "avif", "avifs", "tif", "tiff"),
    *("bmp", "dib", "jp2", "j2k", "jpc", "jpf", "jpx", "j2c", "ppm", "pgm", "pbm", "pnm", "pfm", "pam"),
    *("ico", "icns", "dds", "qoi", "sgi", "rgb", "rgba", "bw", "pcx", "psd", "npy"),
)
_NOT_DECODED = (
    *("heic", "heif", "hif", "jxl", "jxr", "wdp", "dcm", "dicom", "exr", "hdr", "tga", "dng", "cr2", "cr3", "nef"),
    *("arw", "orf", "rw2", "raf", "srw", "pef"),
)
IMAGE_ENDINGS = frozenset(f".{ending}" for ending in (*_DECODED, *_NOT_DECODED))
"""Endings of image formats, lower case. Of some the decoder reads no image; it then says which format it is."""

_OTHER_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("txt", "csv", "tsv", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "md", "rst", "html", "htm"),
        *("pdf", "doc", "docx", "xls", "xlsx", "ods", "ppt", "pptx", "rtf", "log", "ini", "cfg", "conf", "lnk", "url"),
        *("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar", "zst", "parquet", "arrow", "feather", "tfrecord"),
        *("pkl", "pickle", "npz", "mat", "h5", "hdf5", "pt", "pth", "onnx", "safetensors", "ckpt", "db", "sqlite"),
        *("py", "ipynb", "sh", "bat", "exe", "js", "css", "svg", "ai", "eps", "ps", "mp4", "avi", "mov", "mkv", "wav"),
        *("mp3", "aae", "xmp", "thm", "bak", "tmp", "part", "crdownload", "swp", "cache", "sha256", "md5", "cls"),
    )
)
_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\x93NUMPY", b"qoif", b"8BPS"),
    *(b"P5\n", b"P6\n", b"P5 ", b"P6 ", b"\0\0\0\x0cjP  ", b"\xff\x0a", b"\0\0\0\x0cJXL "),
)
_SIGNATURE_BYTES = 16

_JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "lost+found"),
    *("system volume information", "__pycache__"),
}
_COMPRESSED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
    b"\x28\xb5\x2f\xfd": lambda path: pa.input_stream(str(path), compression="zstd"),
}
_TAR_ENDINGS = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
_LINK_ROUNDS = 8  # links to links that are followed in an archive


class Entry(NamedTuple):
    """A file in a folder or an archive.

    Attributes
    ----------
    parts
        Its path below the folder or within the archive.
    file, offset, length, packing
        Where its bytes are, as in `Item`.
    image
        Whether it is an image file.
    """

    parts: tuple[str, ...]
    file: str
    offset: int = 0
    length: int = -1
    packing: str = "plain"
    image: bool = True

    @property
    def name(self) -> str:
        """The path with slashes."""
        return "/".join(self.parts)


@dataclass
class Tally:
    """Counts what is ignored, by reason."""

    _counts: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, reason: str, name: str, files: int = 1) -> None:
        """Count `files` more files that are ignored for `reason`."""
        before, first = self._counts.get(reason, (0, name))
        self._counts[reason] = (before + files, first)

    def list(self) -> list[Ignored]:
        """All reasons, in the order in which they were met."""
        return [Ignored(reason, files, first) for reason, (files, first) in self._counts.items()]


def is_image_name(name: str) -> bool | None:
    """Whether a file of this name is an image file; None when its ending is unknown and its content decides."""
    dot = name.rfind(".")
    ending = name[dot:].lower() if dot > 0 else ""
    if ending in IMAGE_ENDINGS:
        return True
    return False if ending in _OTHER_ENDINGS else None


def is_image_start(start: bytes) -> bool:
    """Whether the first bytes of a file are those of an image format."""
    if start.startswith(_SIGNATURES):
        return True
    if start.startswith(b"BM"):  # two letters are not enough: the reserved fields must be zero
        return start[6:10] == b"\0\0\0\0"
    return (start[:4] == b"RIFF" and start[8:12] == b"WEBP") or start[4:8] == b"ftyp"


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or left behind by a file manager."""
    return name.startswith((".", "~$")) or name.lower() in _JUNK


class _Level(NamedTuple):
    """A folder of a walk that is in progress, and the names in it that are still to come."""

    folder: str
    parts: tuple[str, ...]
    above: frozenset[tuple[int, int]]
    names: Iterator[tuple[str, int | None]]


class Walk:
    """All files of a folder or an archive, sorted by path; iterate as often as needed.

    A folder is listed anew each time and takes no memory of its own; the list of an archive is kept.

    Parameters
    ----------
    path
        A folder, a zip, or a tar file, compressed or not.
    leave
        Paths of folders to leave alone, such as the one that is written to.
    spool
        A folder for the uncompressed copy of a compressed tar file.
    encoding
        Encoding of names that are not UTF-8; None guesses.

    Attributes
    ----------
    tally
        What the last iteration ignored, except for files that are no images.
    empty
        Folders without any visible file, met by the last iteration.
    encoding_notes
        What was assumed of the encoding of names.
    open_archives
        Whether the archives in a folder are read as folders of their names without endings.

    Raises
    ------
    AlexNetError
        While iterating, when a folder cannot be read or an archive is damaged or encrypted.
    """

    def __init__(
        self,
        path: Path,
        *,
        leave: Collection[str | os.PathLike[str]] = (),
        spool: Path | None = None,
        encoding: str | None = None,
    ) -> None:
        self.path, self.spool, self.encoding = path, spool, encoding
        self.tally = Tally()
        self.empty: list[tuple[str, ...]] = []
        self.encoding_notes: list[str] = []
        self.open_archives = False
        self._archives: dict[str, Walk] = {}
        self._leave = [os.fspath(folder) for folder in leave]
        self._listed: list[Entry] | None = None

    def __iter__(self) -> Iterator[Entry]:
        if self.path.is_dir():
            self.tally, self.empty = Tally(), []
            self._left = {_identity(folder) for folder in self._leave if os.path.isdir(folder)}
            return self._files()
        if self._listed is None:
            self._listed = self._archive()
        return iter(self._listed)

    def _files(self) -> Iterator[Entry]:
        """The files below a folder, depth first in the order of their names."""
        levels = [self._level(str(self.path), (), frozenset())]
        while levels:
            level = levels[-1]
            found = next(level.names, None)
            if found is None:
                levels.pop()
                continue
            name, mode = found
            path = f"{level.folder}{os.sep}{name}"
            if mode is None:
                if _leads_to(path, level.above):
                    self.tally.add("a link to a folder above it", "/".join((*level.parts, name)))
                    continue
                mode = _linked_mode(path)
            if mode == stat.S_IFREG or stat.S_ISREG(mode):
                if self.open_archives and archive_kind(Path(path)) is not None:
                    inner = self._inner(path)
                    folder = (*level.parts, _without_ending(name))
                    yield from (entry._replace(parts=(*folder, *entry.parts)) for entry in inner)
                    self.empty += [(*folder, *parts) for parts in inner.empty]
                    continue
                image = is_image_name(name)
                if image is None:
                    image = is_image_start(_start_of_file(path))
                yield Entry((*level.parts, name), path, image=image)
            elif stat.S_ISDIR(mode):
                levels.append(self._level(path, (*level.parts, name), level.above))
            else:
                self.tally.add(f"a {_special(mode)}, not a file", "/".join((*level.parts, name)))

    def _inner(self, path: str) -> Walk:
        """The walk of an archive in the folder; its list is kept."""
        if path not in self._archives:
            spool = None if self.spool is None else self.spool / f"archive-{len(self._archives)}"
            if spool is not None:
                spool.mkdir(exist_ok=True)
            self._archives[path] = Walk(Path(path), spool=spool, encoding=self.encoding)
        return self._archives[path]

    def _level(self, folder: str, parts: tuple[str, ...], above: frozenset[tuple[int, int]]) -> _Level:
        identity = _identity(folder)
        names = _visible_names(folder)
        kind = _own_output({name for name, _ in names}, folder) if parts else None
        if parts and identity in self._left:
            kind = kind or "the folder that is written to"
        if kind:
            self.tally.add(kind, "/".join(parts) + "/")
            names = []
        elif not names:
            self.empty.append(parts)
        return _Level(folder.rstrip(os.sep), parts, above | {identity}, iter(names))

    def _archive(self) -> list[Entry]:
        kind = archive_kind(self.path)
        if kind == "zip":
            return self._zip()
        if kind == "tar":
            return self._tar()
        raise AlexNetError(f"{self.path} is neither a folder nor a zip or tar file")

    def _zip(self) -> list[Entry]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                members = archive.infolist()
        except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
            raise AlexNetError(f"{self.path} is a damaged zip file: {error}") from error
        names, notes = decode_names([_zip_name(member) for member in members], self.encoding, str(self.path))
        self.encoding_notes = notes
        found: dict[tuple[str, ...], Entry] = {}
        links: dict[tuple[str, ...], tuple[str, ...]] = {}
        folders: set[tuple[str, ...]] = set()
        for member, name in zip(members, names, strict=True):
            parts = _parts(name.replace("\\", "/"))
            if not parts or any(map(is_junk, parts)):
                continue
            if member.is_dir() or name.endswith("\\"):
                folders.add(parts)
                continue
            if member.flag_bits & 1:
                raise AlexNetError(f"{self.path} is encrypted: unpack it and give the folder")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise AlexNetError(
                    f"{self.path}: {name} is compressed by a method other than deflate: unpack it and give the folder"
                )
            entry = Entry(parts, str(self.path), member.header_offset, member.compress_size, "zip")
            if stat.S_ISLNK(member.external_attr >> 16):
                target = _start(entry, 4096).decode("utf-8", "replace")
                links[parts] = _joined(parts[:-1], target)
                continue
            if parts in found:
                self.tally.add("an earlier file of the same name in the archive", "/".join(parts))
            found[parts] = entry._replace(image=_is_image(parts[-1], partial(_start, entry)))
        self._follow(links, found)
        self._find_empty(folders, found)
        return sorted(found.values())

    def _tar(self) -> list[Entry]:
        plain = self._uncompressed()
        found: dict[tuple[str, ...], Entry] = {}
        links: dict[tuple[str, ...], tuple[str, ...]] = {}
        folders: set[tuple[str, ...]] = set()
        try:
            size = plain.stat().st_size
            for parts, member, offset in _tar_members(plain, (), 0, size):
                if not parts or any(map(is_junk, parts)):
                    continue
                if member.isdir():
                    folders.add(parts)
                elif member.issym() or member.islnk():
                    links[parts] = _joined(parts[:-1] if member.issym() else (), member.linkname)
                elif member.isfile():
                    entry = Entry(parts, str(plain), offset, member.size)
                    found[parts] = entry._replace(image=_is_image(parts[-1], partial(_start, entry)))
                else:
                    self.tally.add("a device or named pipe, not a file", "/".join(parts))
        except tarfile.TarError as error:
            raise AlexNetError(f"{self.path} is a damaged tar file: {error}") from error
        self._follow(links, found)
        self._find_empty(folders, found)
        return self._decoded(sorted(found.values()))

    def _decoded(self, entries: list[Entry]) -> list[Entry]:
        """The entries with the names that are not UTF-8 decoded."""
        raw = [os.fsencode("/".join(entry.parts)) for entry in entries]
        names, self.encoding_notes = decode_names(raw, self.encoding, str(self.path))
        return [entry._replace(parts=_parts(name)) for entry, name in zip(entries, names, strict=True)]

    def _uncompressed(self) -> Path:
        with self.path.open("rb") as file:
            start = file.read(8)
        opener = next((opener for magic, opener in _COMPRESSED.items() if start.startswith(magic)), None)
        if opener is None:
            return self.path
        if self.spool is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="alexnet-")
            self.spool = Path(self._temporary.name)
        plain = self.spool / f"{self.path.name}.unpacked"
        if not plain.exists() or plain.stat().st_mtime < _changed(self.path):
            try:
                with opener(self.path) as packed:
                    write_atomic(plain, lambda file: shutil.copyfileobj(packed, file, 1 << 20))
            except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException) as error:
                raise AlexNetError(f"{self.path} is damaged: {error}") from error
            except OSError as error:
                # bz2 and Arrow's decompressors raise it without a number for damaged data, the disk with one.
                if error.errno is not None:
                    raise
                raise AlexNetError(f"{self.path} is damaged: {error}") from error
        return plain

    def _follow(self, links: dict[tuple[str, ...], tuple[str, ...]], found: dict[tuple[str, ...], Entry]) -> None:
        """Add what symbolic and hard links of an archive lead to."""
        for _ in range(_LINK_ROUNDS):
            below: dict[tuple[str, ...], list[Entry]] = {}
            targets = set(links.values())
            for entry in found.values():
                for depth in range(1, len(entry.parts)):
                    if entry.parts[:depth] in targets:
                        below.setdefault(entry.parts[:depth], []).append(entry)
            done = []
            for link, target in links.items():
                if target in found:
                    found[link] = found[target]._replace(parts=link, image=found[target].image)
                    done.append(link)
                elif target in below and link[: len(target)] != target:
                    for entry in below[target]:
                        parts = link + entry.parts[len(target) :]
                        found[parts] = entry._replace(parts=parts)
                    done.append(link)
            for link in done:
                del links[link]
            if not done or not links:
                break
        for link in links:
            self.tally.add("a link that leads to no file of the archive", "/".join(link))

    def _find_empty(self, folders: set[tuple[str, ...]], found: dict[tuple[str, ...], Entry]) -> None:
        filled = {parts[:depth] for parts in found for depth in range(len(parts))}
        self.empty = sorted(folders - filled)


class ImageFiles:
    """The image files of a path, in the order of their names; iterate as often as needed.

    Attributes
    ----------
    ignored
        What the last iteration ignored: files that are no images by ending, special files, folders of our own.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._walk = path, Walk(path)
        self._tally = Tally()

    def __iter__(self) -> Iterator[Item]:
        self._tally = Tally()
        if not self._path.is_dir() and archive_kind(self._path) is None:
            yield Item(str(self._path), "", None, str(self._path))
            return
        for entry in self._walk:
            if entry.image:
                yield Item(os.path.join(self._path, *entry.parts), "", None, *entry[1:5])
            else:
                self._tally.add(other_reason(entry.parts[-1]), os.path.join(self._path, *entry.parts))

    @property
    def ignored(self) -> list[Ignored]:
        return [*self._tally.list(), *self._walk.tally.list()]


def image_files(path: str | os.PathLike[str]) -> ImageFiles:
    """Find the image files of a path: of a folder at any depth, of a zip or tar file, or the file itself.

    Parameters
    ----------
    path
        A folder, an archive (zip, or tar, compressed or not), or any other file, which is then taken as an image.

    Returns
    -------
    ImageFiles
        An iterable of `Item`; `alexnet.data.sources.items.read_item` returns the bytes of one, from any thread. Its
        `ignored` says what was not taken, after an iteration.

    Raises
    ------
    AlexNetError
        While iterating, when a folder cannot be read or an archive is damaged.
    """
    return ImageFiles(Path(path))


def other_reason(name: str) -> str:
    """Why a file that is no image is ignored."""
    ending = os.path.splitext(name)[1].lower()
    return f"not an image file ({ending})" if ending else "not an image file (no ending)"


def archive_kind(path: Path) -> str | None:
    """Tell whether a file is an archive: "zip", "tar" (compressed or not), or None. Judged by content and name."""
    name = path.name.lower()
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            start = file.read(264)
    except OSError:
        return None
    if name.endswith(".zip") or start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip" if name.endswith(".zip") or zipfile.is_zipfile(path) else None
    if name.endswith(_TAR_ENDINGS) or start[257:262] == b"ustar":
        return "tar"
    return None


def plain_tar_entries(path: Path) -> list[Entry]:
    """List an uncompressed tar file; a tar file within it counts as a folder, as in ImageNet's training images.

    Raises
    ------
    AlexNetError
        When it is damaged.
    """
    return list(Walk(path))


def read_entry(entry: Entry) -> bytes:
    """The bytes of a file of a walk."""
    return read_item(Item(entry.name, "", None, *entry[1:5]))


def _visible_names(folder: str) -> list[tuple[str, int | None]]:
    """Names in a folder, sorted, each with its file type; None for a link, whose target must be asked."""
    names: list[tuple[str, int | None]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                if is_junk(name):
                    continue
                if entry.is_symlink():
                    names.append((name, None))
                elif entry.is_dir(follow_symlinks=False):
                    names.append((name, stat.S_IFDIR))
                elif entry.is_file(follow_symlinks=False):
                    names.append((name, stat.S_IFREG))
                else:
                    names.append((name, entry.stat(follow_symlinks=False).st_mode))
    except OSError as error:
        raise AlexNetError(f"{error.filename} cannot be read: {error.strerror}") from error
    names.sort(key=itemgetter(0))
    return names


def _identity(folder: str) -> tuple[int, int]:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise AlexNetError(f"{error.filename} cannot be read: {error.strerror}") from error
    return status.st_dev, status.st_ino


def _changed(path: Path) -> float:
    status = path.stat()
    return max(status.st_mtime, status.st_ctime)


def _leads_to(link: str, folders: Collection[tuple[int, int]]) -> bool:
    try:
        status = os.stat(link)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in folders


def _linked_mode(link: str) -> int:
    """The file type of what a link leads to; a broken link is an image that cannot be read, not one less."""
    try:
        return os.stat(link).st_mode
    except OSError:
        return stat.S_IFREG


def is_prepared_dataset(names: set[str]) -> bool:
    """Whether these are the names in a prepared dataset."""
    return "dataset.json" in names and ("mean.npy" in names or any(name.endswith(".arrow") for name in names))


def is_run_folder(names: set[str]) -> bool:
    """Whether these are the names in a run folder."""
    return "config.json" in names and not names.isdisjoint(("model.safetensors", "metrics.jsonl", "checkpoint.pt"))


def _own_output(names: set[str], folder: str) -> str | None:
    """Which output of this program a folder is, by the names in it."""
    if is_prepared_dataset(names):
        return "a prepared dataset"
    if "prepare.json" in names and os.path.isdir(os.path.join(folder, ".prepare")):
        return "a dataset whose preparation is not finished"
    if is_run_folder(names):
        return "a run folder"
    return None


def _without_ending(name: str) -> str:
    """The name of an archive without its endings: train for train.tar.gz."""
    stem = name.lower()
    ending = max((end for end in (*_TAR_ENDINGS, ".zip") if stem.endswith(end)), key=len, default="")
    return name[: len(name) - len(ending)] or name


def _special(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _is_image(name: str, start: Callable[[], bytes]) -> bool:
    known = is_image_name(name)
    return is_image_start(start()) if known is None else known


def _start_of_file(path: str) -> bytes:
    with suppress(OSError), open(path, "rb", buffering=0) as file:
        return file.read(_SIGNATURE_BYTES)
    return b""


def _start(entry: Entry, count: int = _SIGNATURE_BYTES) -> bytes:
    """The first bytes of a file in an archive."""
    with open(entry.file, "rb") as file:
        file.seek(entry.offset)
        if entry.packing != "zip":
            return file.read(min(count, entry.length))
        header = file.read(30)
        if len(header) < 30:
            return b""
        method, name_length, extra_length = struct.unpack("<8xH16xHH", header)
        file.seek(entry.offset + 30 + name_length + extra_length)
        packed = file.read(min(entry.length, 64 + 2 * count))
    if method == zipfile.ZIP_STORED:
        return packed[:count]
    with suppress(zlib.error):
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, count)
    return b""


def _zip_name(member: zipfile.ZipInfo) -> bytes | str:
    """The name of a zip's member: text where the zip says that it is UTF-8, else bytes."""
    name = member.orig_filename
    extra = member.extra
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        if tag == 0x7075 and length > 5:  # Info-ZIP's Unicode path
            with suppress(UnicodeDecodeError):
                return extra[9 : 4 + length].decode("utf-8")
        extra = extra[4 + length :]
    return name if member.flag_bits & 0x800 else name.encode("cp437")


def _tar_members(
    path: Path, folder: tuple[str, ...], start: int, end: int
) -> Iterator[tuple[tuple[str, ...], tarfile.TarInfo, int]]:
    """Path, header and offset of the content of every member; a tar file within the tar file is a folder."""
    with path.open("rb") as file:
        file.seek(start)
        archive: Any = tarfile.TarFile(fileobj=file)
        while (member := archive.next()) is not None and member.offset < end:
            archive.members.clear()  # it would keep every header
            parts = (*folder, *_parts(member.name))
            member_end = member.offset_data + member.size
            if member.isfile() and member_end > end:
                raise tarfile.ReadError(f"it ends within {member.name}")
            if member.isfile() and parts[-1].lower().endswith(".tar") and not any(map(is_junk, parts)):
                yield from _tar_members(path, (*parts[:-1], parts[-1][:-4]), member.offset_data, member_end)
            else:
                yield parts, member, member.offset_data


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part for part in name.split("/") if part not in ("", ".", ".."))


def _joined(folder: Sequence[str], target: str) -> tuple[str, ...]:
    """The path in an archive that a link in `folder` leads to."""
    path = [] if target.startswith("/") else list(folder)
    for part in target.split("/"):
        if part == ".." and path:
            path.pop()
        elif part not in ("", ".", ".."):
            path.append(part)
    return tuple(path)
