"""The inverted file and the binary codes on clustered vectors, compared with exact search."""

from pathlib import Path

import numpy as np
import pytest

from alexnet.search import binary_codes, exact, inverted_file

faiss = pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, np.ndarray]:
    """6,000 stored vectors and 50 queries of 512 dimensions that lie near 12 dimensions, in 40 clusters."""
    rng = np.random.default_rng(0)
    centers, embedding = rng.normal(0, 1, (40, 12)), rng.normal(0, 0.3, (12, 512))

    def draw(count: int) -> np.ndarray:
        points = centers[rng.integers(40, size=count)] + 0.5 * rng.normal(size=(count, 12))
        return np.maximum(points @ embedding + 0.02 * rng.normal(size=(count, 512)), 0).astype(np.float32)

    return draw(6000), draw(50)


def recall(found: np.ndarray, near: np.ndarray) -> float:
    return float(np.mean([np.isin(mine, theirs).mean() for mine, theirs in zip(near, found, strict=True)]))


def test_the_inverted_file_finds_nearly_all_neighbors_at_exact_distances(
    clustered: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    stored, queries = clustered
    inverted_file.build(tmp_path / "index.faiss", stored, faiss)
    distances, rows = inverted_file.InvertedFile(tmp_path / "index.faiss", stored, faiss).nearest(queries, 10)
    assert recall(rows, exact.nearest(queries, stored, 10)[1]) > 0.95
    differences = stored[rows].astype(np.float64) - queries[:, None]
    np.testing.assert_allclose(distances, np.sqrt((differences**2).sum(-1)), rtol=1e-5)
    assert (np.diff(distances, axis=1) >= 0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]


def test_learned_codes_have_a_higher_recall_than_random_projections(
    clustered: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    stored, queries = clustered
    near = exact.nearest(queries, stored, 10)[1]
    binary_codes.build(tmp_path / "codes.safetensors", stored)
    bits, rows = binary_codes.BinaryCodes(tmp_path / "codes.safetensors", faiss).nearest(queries, 100)
    assert (np.diff(bits, axis=1) >= 0).all()

    # The Hamming distances, counted without faiss.
    read = binary_codes.BinaryCodes(tmp_path / "codes.safetensors", faiss)
    asked = binary_codes.encode(queries, read.weight, read.bias)
    differing = np.unpackbits(asked[:, None] ^ read.codes[None], axis=2).sum(axis=2)
    np.testing.assert_array_equal(np.take_along_axis(differing, rows, axis=1), bits)

    # The baseline: signs of as many random projections of the centered vectors.
    sums = np.random.default_rng(1).normal(size=(512, binary_codes.BITS)).astype(np.float32)
    random = [np.packbits((part - stored.mean(0)) @ sums > 0, axis=1) for part in (queries, stored)]
    index = faiss.IndexBinaryFlat(binary_codes.BITS)
    index.add(random[1])
    assert recall(rows[:, :10], near) > recall(index.search(random[0], 10)[1], near) + 0.02
    assert recall(rows, near) > 0.9


def test_codes_depend_on_the_seed_alone(
    clustered: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_codes, "STEPS", 20)
    stored = clustered[0][:500]
    (one, bias), (again, bias_again), (other, _) = (
        binary_codes.learn(stored, 1),
        binary_codes.learn(stored, 1),
        binary_codes.learn(stored, 2),
    )
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(bias, bias_again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_images_can_be_searched(
    count: int, clustered: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary_codes, "STEPS", 5)
    stored = clustered[0][:count]
    inverted_file.build(tmp_path / "index.faiss", stored, faiss)
    binary_codes.build(tmp_path / "codes.safetensors", stored)
    for method in (
        inverted_file.InvertedFile(tmp_path / "index.faiss", stored, faiss),
        binary_codes.BinaryCodes(tmp_path / "codes.safetensors", faiss),
    ):
        distances, rows = method.nearest(stored, 3)
        assert rows.shape == (count, min(3, count))
        np.testing.assert_array_equal(distances[:, 0], 0)
        assert len(np.unique(rows[0])) == min(3, count)
