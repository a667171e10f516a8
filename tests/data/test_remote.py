"""Prepared data from an address: a real S3 server (moto's) on loopback, fsspec's local and in-memory file systems."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexnet.data.dataset import PreparedDataset
from alexnet.runtime.errors import AlexNetError

pytest.importorskip("s3fs", reason="needs the extra `remote`")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def bucket(striped_data):
    """The address of a bucket on loopback that holds the prepared dataset."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    crop = pytest.MonkeyPatch()
    crop.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    crop.setenv("AWS_ACCESS_KEY_ID", "testing")
    crop.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    crop.setenv("AWS_DEFAULT_REGION", "us-east-1")
    import s3fs

    files = s3fs.S3FileSystem()
    files.mkdir("images")
    files.put(str(striped_data), "images/striped", recursive=True)
    yield "s3://images/striped"
    server.stop()
    crop.undo()


def test_a_dataset_in_a_bucket_is_the_dataset_on_disk(bucket, striped_data, cache):
    ours, theirs = PreparedDataset.open(bucket), PreparedDataset.open(striped_data)
    assert ours.address == bucket
    assert ours.checksums() == theirs.checksums()
    ours.verify()
    everything = np.arange(len(theirs.split("train")))
    np.testing.assert_array_equal(ours.split("train").gather(everything), theirs.split("train").gather(everything))


def test_it_is_fetched_once_and_what_is_missing_again(bucket, cache):
    folder = PreparedDataset.open(bucket).path
    stamps = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.arrow")}
    (folder / "mean.npy").unlink()
    assert PreparedDataset.open(bucket).path == folder
    assert {file.name: file.stat().st_mtime_ns for file in folder.glob("*.arrow")} == stamps
    assert (folder / "mean.npy").exists()


def test_a_training_reads_it_and_says_the_address_to_go_on_with(bucket, cache, tmp_path):
    arguments = ["train", bucket, "--out", str(tmp_path / "run"), "--recipe", "paper", "--variant", "narrow"]
    arguments += ["--crop-size", "64", "--epochs", "1", "--batch-size", "24", "--precision", "float32"]
    worker = Path(__file__).parents[1] / "parallel" / "layout_worker.py"  # knows small networks
    done = subprocess.run([sys.executable, str(worker), *arguments], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["dataset"]["path"] == bucket


def test_what_is_not_there_or_not_what_was_written_is_said_in_a_line(bucket, striped_data, cache, tmp_path):
    with pytest.raises(AlexNetError, match="s3://images/none is not a prepared dataset"):
        PreparedDataset.open("s3://images/none")
    with pytest.raises(AlexNetError, match="cannot be read"):
        PreparedDataset.open("nosuch://images")
    damaged = tmp_path / "damaged"
    shutil.copytree(striped_data, damaged)
    shard = next(damaged.glob("train*.arrow"))
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(AlexNetError, match=f"{shard.name} differs from its recorded checksum"):
        PreparedDataset.open(f"file://{damaged}")
    assert all(file.read_bytes() != content for file in cache.rglob("*.arrow"))
