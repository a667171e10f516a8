"""A prepared dataset at an address (`s3://`, `gs://`, `http://`, …): fetched once to this host, then read from disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from alexnet.runtime.errors import AlexNetError
from alexnet.runtime.files import sha256_of, write_atomic
from alexnet.runtime.progress import progress

AT_ONCE = 8  # files fetched at a time


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address, such as s3://bucket/data, and not a folder of this host."""
    return "://" in str(path)


def fetch(address: str, index_name: str) -> Path:
    """Fetch a dataset to a folder of this host.

    Every file is compared with its recorded checksum. Files that are there already are not fetched again; of several
    processes one fetches while the others wait. The folders are in `ALEXNET_CACHE` (default: `~/.cache/alexnet`).

    Parameters
    ----------
    address
        The address of the dataset.
    index_name
        The file name of its index.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    AlexNetError
        When the address cannot be read, or a file differs from its checksum.
    """
    try:
        from fsspec.core import url_to_fs

        files, root = url_to_fs(address)
    except ImportError as error:
        raise AlexNetError(f"{address} needs the extra `remote`: pip install 'alexnet[remote]' ({error})") from error
    except ValueError as error:
        raise AlexNetError(f"{address} cannot be read: {error}") from error
    with _in_one_line(address):
        index = files.cat_file(f"{root}/{index_name}")
    values = json.loads(index)
    wanted = {values["mean_image"]: values["mean_image_sha256"]}
    for split in values["splits"].values():
        wanted |= {shard["file"]: shard["sha256"] for shard in split["shards"]}
        wanted |= {split["rows"]: split["rows_sha256"]} if "rows" in split else {}
    folder = _cache() / hashlib.sha256(address.encode() + index).hexdigest()[:20]
    folder.mkdir(parents=True, exist_ok=True)
    from filelock import FileLock  # only here: every verb imports this module

    with FileLock(folder / ".lock"), _in_one_line(address):
        missing = [name for name in wanted if not (folder / name).is_file()]
        if missing:
            _fetch_all(files, root, folder, {name: wanted[name] for name in missing})
        write_atomic(folder / index_name, index)
    return folder


def _fetch_all(files: Any, root: str, folder: Path, wanted: dict[str, str]) -> None:
    with progress(len(wanted), "fetching") as bar, ThreadPoolExecutor(AT_ONCE, "fetcher") as threads:
        fetching = [threads.submit(_fetch_one, files, f"{root}/{name}", folder / name, wanted[name]) for name in wanted]
        try:
            for done in as_completed(fetching):
                done.result()
                bar.advance()
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_one(files: Any, source: str, file: Path, sha256: str) -> None:
    def copy(out: IO[bytes]) -> None:
        # The file system writes the file itself: it knows how to read in parts at the same time, and what to retry.
        files.get_file(source, out.name)
        if sha256_of(Path(out.name)) != sha256:
            raise AlexNetError(f"{source} differs from its recorded checksum: upload it again")

    write_atomic(file, copy)


@contextmanager
def _in_one_line(address: str) -> Iterator[None]:
    """Turn the errors of remote file systems into `AlexNetError`."""
    try:
        yield
    except AlexNetError:
        raise
    except FileNotFoundError as error:
        raise AlexNetError(f"{address} is not a prepared dataset: {error} is missing") from error
    except Exception as error:  # each file system has errors of its own
        raise AlexNetError(f"{address} cannot be read: {type(error).__name__}: {error}") from error


def _cache() -> Path:
    named = os.environ.get("ALEXNET_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "alexnet"
