"""Names of the file types that are not decoded, recognized by their first bytes."""

from __future__ import annotations

import struct

_DOWNLOAD = "the download has failed; fetch the image again"
_CONVERT = "convert it to PNG or TIFF"
DECODER = "install its decoder with `pip install 'alexnet[formats]'`, or convert it to JPEG or PNG"

_STARTS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs.github.com/spec",
        "a Git LFS pointer, not an image: fetch the image with `git lfs pull`",
    ),
    (b"%PDF", "a PDF document, not an image"),
    (b"%!PS", "a PostScript document, not an image"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript document, not an image"),
    (b"\xff\x0a", f"a JPEG XL image: {DECODER}"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL image: {DECODER}"),
    (b"II\xbc\x01", "a JPEG XR image, which is not supported: convert it to JPEG or PNG"),
    (b"FUJIFILMCCD-RAW", "a RAW camera file (Fujifilm RAF): develop it to JPEG or TIFF first"),
    (b"FOVb", "a RAW camera file (Sigma X3F): develop it to JPEG or TIFF first"),
    (b"IIRO", "a RAW camera file (Olympus ORF): develop it to JPEG or TIFF first"),
    (b"IIRS", "a RAW camera file (Olympus ORF): develop it to JPEG or TIFF first"),
    (b"MMOR", "a RAW camera file (Olympus ORF): develop it to JPEG or TIFF first"),
    (b"IIU\0", "a RAW camera file (Panasonic RW2): develop it to JPEG or TIFF first"),
    (b"\0MRM", "a RAW camera file (Minolta MRW): develop it to JPEG or TIFF first"),
    (b"v/1\x01", f"an OpenEXR image, which is not supported: {_CONVERT}"),
    (b"#?RADIANCE", f"a Radiance HDR image, which is not supported: {_CONVERT}"),
    (b"#?RGBE", f"a Radiance HDR image, which is not supported: {_CONVERT}"),
    (b"SIMPLE  =", f"a FITS file, which is not supported: {_CONVERT}"),
    (b"\x89HDF", f"an HDF5 file, which is not supported: {_CONVERT}"),
    (b"gimp xcf", "a GIMP project, not an image: export it as PNG"),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM), not an image: extract its frames first"),
    (b"FLV\x01", "a video (Flash), not an image: extract its frames first"),
    (b"\0\0\x01\xba", "a video (MPEG), not an image: extract its frames first"),
    (b"\0\0\x01\xb3", "a video (MPEG), not an image: extract its frames first"),
    (b"0&\xb2u\x8ef\xcf\x11", "a video (Windows Media), not an image: extract its frames first"),
    (b"ID3", "a sound file (MP3), not an image"),
    (b"OggS", "an Ogg file (sound or video), not an image"),
    (b"\0\x05\x16\x07", 'an AppleDouble file of macOS ("._" files), not an image: delete it'),
    (b"PK\x03\x04", "a zip file or an Office document, not an image"),
    (b"Rar!", "a RAR archive, not an image"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, not an image"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file, not an image"),
    (b"BZh", "a bzip2 file, not an image"),
    (b"\xfd7zXZ", "an xz file, not an image"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document or Thumbs.db, not an image"),
    (b"SQLite format 3", "an SQLite database, not an image"),
    (b"ARROW1", "an Arrow file, not an image"),
    (b"PAR1", "a parquet file, not an image"),
    (b"MZ", "a Windows program, not an image"),
    (b"\x7fELF", "a program, not an image"),
    (b"\x80\x02", "a Python pickle, not an image"),
    (b"\x80\x03", "a Python pickle, not an image"),
    (b"\x80\x04", "a Python pickle, not an image"),
    (b"\x80\x05", "a Python pickle, not an image"),
)
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), f"a HEIC image: {DECODER}"),
    **dict.fromkeys((b"mif1", b"msf1", b"mif2"), f"a HEIF image: {DECODER}"),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF image, which this Pillow cannot decode: install a newer Pillow"),
    b"crx ": "a RAW camera file (Canon CR3): develop it to JPEG or TIFF first",
}


def describe_file_type(data: bytes) -> str | None:
    """Say what the bytes of a file are that no decoder recognizes.

    Parameters
    ----------
    data : bytes
        Content of the file, or its first 4096 bytes.

    Returns
    -------
    str or None
        Such as "a DICOM file, not an image: …", with the remedy where there is one; None for an unknown type.
    """
    for start, description in _STARTS:
        if data.startswith(start):
            return description
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a video (MP4 or QuickTime), not an image: extract its frames first")
    if data[128:132] == b"DICM":
        return f"a DICOM file, not an image that is read here: {_CONVERT}"
    if data[344:348] in (b"n+1\0", b"ni1\0"):
        return f"a NIfTI file, which is not supported: {_CONVERT}"
    if data[:4] == b"RIFF":
        kind = {b"AVI ": "a video (AVI), not an image: extract its frames first"}
        return kind.get(data[8:12], "a RIFF file such as a sound, not an image")
    return _describe_text(data[:4096])


def _describe_text(start: bytes) -> str | None:
    for mark, encoding in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if start.startswith(mark):
            start = start.decode(encoding, "replace").encode()
    lower = start.lower().lstrip(b"\xef\xbb\xbf \t\r\n")
    if b"<svg" in lower and lower.startswith(b"<"):
        return "an SVG drawing, not an image of pixels: export it as PNG"
    if lower.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in lower:
        return f"an HTML page, not an image: {_DOWNLOAD}"
    if lower.startswith(b"<?xml") or (lower.startswith(b"<") and b">" in lower):
        return f"an XML document, not an image: {_DOWNLOAD}"
    if not _is_text(start):
        return None
    return f"a JSON document, not an image: {_DOWNLOAD}" if lower.startswith((b"{", b"[")) else "text, not an image"


def _is_text(start: bytes) -> bool:
    try:
        start[: 4092 if len(start) == 4096 else None].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(start.strip()) and not any(byte < 32 and byte not in b"\t\r\n\f\x1b" for byte in start)


def describe_raw_tiff(data: bytes) -> str | None:
    """Say that a TIFF file is a RAW camera file, of which a TIFF decoder would read the preview; None for any other."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    if data[8:10] == b"CR":
        return "a RAW camera file (Canon CR2): develop it to JPEG or TIFF first"
    tags = _first_directory(data)
    if 50706 in tags:  # DNGVersion; a DNG may hold a developed image, which a camera's does not
        return "a RAW camera file (DNG): develop it to JPEG or TIFF first"
    if tags.get(254, 0) & 1 and 330 in tags and 271 in tags:  # a preview, further images, the maker of a camera
        return "a RAW camera file (such as NEF or ARW): develop it to JPEG or TIFF first"
    return None


def _first_directory(data: bytes) -> dict[int, int]:
    """Tag → the four bytes of its value as a number, of a TIFF file's first directory."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (position,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, position)
        entries = (struct.unpack_from(f"{order}HHII", data, position + 2 + 12 * i) for i in range(min(count, 512)))
        return {tag: value for tag, _, _, value in entries}
    except struct.error:
        return {}
