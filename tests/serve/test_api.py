import io
import re
import signal
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from servers import Server, serving

from alexnet import Classifier
from alexnet.data.dataset import PreparedDataset
from alexnet.data.decoding import square_image
from alexnet.evaluation.views import VIEWS


def top_of(entry: dict) -> list[tuple[str, float]]:
    return [(one["label"], one["probability"]) for one in entry["top"]]


def expected(classifier: Classifier, *images: bytes) -> list[list[tuple[str, float]]]:
    return [prediction.top for prediction in classifier.predict(images)]


def same(one: list[tuple[str, float]], other: list[tuple[str, float]]) -> bool:
    same_labels = [label for label, _ in one] == [label for label, _ in other]
    return same_labels and all(abs(p - q) < 1e-5 for (_, p), (_, q) in zip(one, other, strict=True))


def test_answers_are_in_order_and_equal_those_of_predict(
    server: Server, classifier: Classifier, images: list[bytes]
) -> None:
    answer = server.post("/v1/predict", *images)
    entries = answer.json()["predictions"]
    assert answer.status_code == 200
    assert [entry["source"] for entry in entries] == [str(number) for number in range(len(images))]
    for entry, top in zip(entries, expected(classifier, *images), strict=True):
        assert same(top_of(entry), top)
        assert (entry["label"], entry["probability"]) == top_of(entry)[0]


@pytest.mark.parametrize("kind", ["image/png", "application/octet-stream", "image/png; charset=binary"])
def test_an_image_as_the_body(server: Server, classifier: Classifier, images: list[bytes], kind: str) -> None:
    answer = httpx.post(server.address + "/v1/predict", content=images[0], headers={"content-type": kind})
    (entry,) = answer.json()["predictions"]
    assert same(top_of(entry), expected(classifier, images[0])[0])


def test_parameters(server: Server, classifier: Classifier, images: list[bytes]) -> None:
    for views in VIEWS:
        (entry,) = server.post("/v1/predict", images[0], top=1, views=views).json()["predictions"]
        (wanted,) = classifier.predict(images[0], top=1, views=views)
        assert same(top_of(entry), wanted.top)
    for invalid in ({"top": 0}, {"top": "many"}, {"views": 3}, {"views": ""}):
        answer = server.post("/v1/predict", images[0], **invalid)
        assert answer.status_code == 422
        assert isinstance(answer.json()["detail"], str)


def large_png() -> bytes:
    file = io.BytesIO()
    Image.new("1", (8000, 7000)).save(file, "PNG")
    return file.getvalue()


def array_header(*shape: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


BAD = {
    "text": (b"this is not an image", 415, "not an image"),
    "pdf": (b"%PDF-1.4 " + b"x" * 100, 415, "a PDF document"),
    "empty": (b"", 422, "empty file"),
    "many pixels": (large_png(), 413, "56,000,000 pixels, more than the limit of 50,000,000"),
    "array": (
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999), }" + b" " * 51,
        422,
        "",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_has_a_status(server: Server, images: list[bytes], name: str) -> None:
    content, status, reason = BAD[name]
    answer = server.post("/v1/predict", content)
    assert (answer.status_code, reason in answer.json()["detail"]) == (status, True)
    assert server.post("/v1/predict", images[0]).status_code == 200


def test_a_truncated_image(server: Server, images: list[bytes]) -> None:
    answer = server.post("/v1/predict", images[0][:2000])
    assert (answer.status_code, answer.json()) == (422, {"detail": "truncated"})


def test_of_several_files_only_the_damaged_ones_have_an_error(
    server: Server, classifier: Classifier, images: list[bytes]
) -> None:
    answer = server.post("/v1/predict", images[0], b"no image", images[1][:3000], images[2])
    one, two, three, four = answer.json()["predictions"]
    assert answer.status_code == 200
    assert two == {"source": "1", "error": {"status": 415, "reason": "text, not an image"}}
    assert three == {"source": "2", "error": {"status": 422, "reason": "truncated"}}
    for entry, top in zip((one, four), expected(classifier, images[0], images[2]), strict=True):
        assert same(top_of(entry), top)


def test_when_no_file_can_be_read_the_request_fails(server: Server) -> None:
    answer = server.post("/v1/predict", b"first text", b"second text")
    assert answer.status_code == 415
    assert "no image can be read" in answer.json()["detail"]


def test_rejected_bodies(server: Server, images: list[bytes]) -> None:
    def status(**request: object) -> int:
        return httpx.post(server.address + "/v1/predict", **request).status_code  # type: ignore[arg-type]

    assert status(content=b"x" * 20_000_001, headers={"content-type": "image/jpeg"}) == 413
    assert status(files=[("file", ("large", b"x" * 20_000_001))]) == 413
    assert status(content=b"{}", headers={"content-type": "application/json"}) == 415
    assert status(files={"image": images[0]}) == 422
    assert status(content=b"--x--", headers={"content-type": "multipart/form-data; boundary=y"}) == 422
    assert status(content=b"", headers={"content-type": "multipart/form-data"}) == 422
    assert status(files=[("file", (str(n), b"x")) for n in range(65)]) == 422


def test_features_are_those_of_the_network(server: Server, classifier: Classifier, images: list[bytes]) -> None:
    raw = torch.from_numpy(square_image(images[3], classifier.config.size))[None]
    inputs = classifier.preprocess.center(raw)
    for layer in ("fc7", "conv5"):
        answer = server.post("/v1/features", images[3], layer=layer).json()
        (entry,) = answer["features"]
        with torch.inference_mode():
            wanted = classifier.network.features(inputs, layer)[0].numpy()
        assert (answer["layer"], entry["shape"]) == (layer, list(wanted.shape))
        np.testing.assert_allclose(np.array(entry["values"]).reshape(wanted.shape), wanted, rtol=1e-3, atol=1e-4)
    answer = server.post("/v1/features", images[3], layer="conv9")
    assert answer.status_code == 422
    assert "conv9" in answer.json()["detail"]


def test_a_training_image_is_its_own_nearest_image(server: Server) -> None:
    train = PreparedDataset.open(server.data).split("train")
    file = io.BytesIO()
    Image.fromarray(train[7][0]).save(file, "PNG")
    deadline = time.monotonic() + 60
    while (answer := server.post("/v1/neighbors", file.getvalue(), k=3)).status_code == 503:
        assert answer.headers["retry-after"]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    nearest = answer.json()["neighbors"][0]["nearest"]
    assert (nearest[0]["position"], nearest[0]["distance"]) == (7, 0)
    assert nearest[0]["name"] == Path(train.paths(7)).name
    assert [found["distance"] for found in nearest] == sorted(found["distance"] for found in nearest)
    shown = Image.open(io.BytesIO(server.get(nearest[0]["url"]).content))
    assert np.abs(np.asarray(shown).astype(int) - train[7][0]).mean() < 12  # JPEG of noise


def image_in(url: str) -> Image.Image:
    import base64

    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_explanations_and_feature_maps_are_images(server: Server, classifier: Classifier, images: list[bytes]) -> None:
    (entry,) = server.post("/v1/explain", images[0]).json()["explanations"]
    assert entry["label"] == expected(classifier, images[0])[0][0][0]
    assert {image_in(entry[name]).size for name in ("input", "gradient", "grad_cam")} == {(64, 64)}
    other = next(label for label in classifier.labels if label != entry["label"])
    (of_other,) = server.post("/v1/explain", images[0], label=other).json()["explanations"]
    assert of_other["label"] == other
    assert of_other["gradient"] != entry["gradient"]
    assert server.post("/v1/explain", images[0], label="cat").status_code == 422

    (shown,) = server.post("/v1/feature-maps", images[0], layer="conv2").json()["feature_maps"]
    maps, height, width = shown["shape"]
    (values,) = server.post("/v1/features", images[0], layer="conv2").json()["features"]
    activations = np.array(values["values"]).reshape(values["shape"])
    np.testing.assert_allclose(shown["peaks"], activations.max((1, 2)), rtol=2e-3)
    image = image_in(shown["image"])
    assert image.size == (shown["columns"] * width, -(-maps // shown["columns"]) * height)
    # The brightest pixel of a tile is the maximum of the map.
    tile = np.asarray(image.convert("RGB")).sum(2)[:height, width : 2 * width]
    assert tile.ravel()[activations[1].argmax()] == tile.max()
    (units,) = server.post("/v1/feature-maps", images[0], layer="fc7").json()["feature_maps"]
    assert (units["shape"], len(units["peaks"])) == ([4096], 4096)


def test_network_units_and_stored_images(server: Server) -> None:
    network = server.get("/v1/network").json()
    assert [layer["name"] for layer in network["layers"]][:2] == ["conv1", "conv2"]
    shares = {layer["name"]: layer["parameter_share"] for layer in network["layers"]}
    assert shares["conv1"] == pytest.approx(34_944 / network["parameters"], rel=0.01)
    assert sum(layer["multiply_add_share"] for layer in network["layers"]) == pytest.approx(1)
    assert network["labels"] == ["lying", "standing"]
    assert network["data"]["splits"] == {"train": 24, "val": 24}
    deadline = time.monotonic() + 60
    while server.get("/v1/network").json()["data"]["scanned"] != [24, 24]:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    unit = server.get("/v1/units/conv3/300").json()
    assert (unit["tower"], len(unit["images"])) == (2, 9)
    assert Image.open(io.BytesIO(server.get("/v1/units/conv1/3/optimized").content)).size == (64, 64)
    assert Image.open(io.BytesIO(server.get("/v1/kernels").content)).size == (16 * 11, 6 * 11)
    for path in ("/v1/units/conv3/384", "/v1/units/conv7/0", "/v1/units/pool1/0/optimized", "/v1/data/train/24"):
        assert server.get(path).status_code == 404
    assert server.get("/v1/units/conv3/-1").status_code == 422


def test_mistakes_are_misclassified_and_the_most_confident_come_first(server: Server, classifier: Classifier) -> None:
    deadline = time.monotonic() + 60
    while (found := server.get("/v1/mistakes", count=100).json())["evaluated"] < 24:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    val = PreparedDataset.open(server.data).split("val")
    shares = classifier.probabilities(val.gather(np.arange(24)))
    wrong = np.flatnonzero(shares.argmax(1) != val.labels)
    order = wrong[np.argsort(-shares[wrong].max(1), kind="stable")]
    assert [mistake["position"] for mistake in found["mistakes"]] == order.tolist()
    assert found["errors"] == len(wrong)


def test_health_metrics_and_documentation(server: Server, images: list[bytes]) -> None:
    def count(name: str) -> float:
        return float(re.search(rf"^{re.escape(name)} (\S+)$", server.get("/metrics").text, re.MULTILINE)[1])  # type: ignore[index]

    assert server.get("/healthz").json() == {"status": "ok"}
    server.post("/v1/predict", images[0])
    before = count('alexnet_requests_total{path="/v1/predict",status="200"}')
    server.post("/v1/predict", images[0])
    assert count('alexnet_requests_total{path="/v1/predict",status="200"}') == before + 1
    assert count("alexnet_queued_images") == 0
    docs = server.get("/docs").text
    assert "/v1/predict" in docs
    assert not re.search(r"""(src|href)=["'](https?:)?//""", docs)
    assert server.get("/openapi.json").json()["openapi"].startswith("3.")


def test_file_names_never_reach_the_disk(server: Server, images: list[bytes]) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "C:\\x\\..\\y", "a\nb", "사진.png"):
        answer = httpx.post(server.address + "/v1/predict", files={"file": (name, images[0])})
        assert answer.status_code == 200
    for path in ("/page/..%2f..%2fapi.py", "/page/%2e%2e/api.py", "/page//etc/passwd", "/page/api.py", "/../cli.py"):
        assert server.get(path).status_code == 404
    assert server.get("/v1/data/..%2ftrain/0").status_code == 404


def test_pages_of_other_origins_are_blocked(server: Server) -> None:
    answer = httpx.get(server.address + "/", headers={"origin": "http://elsewhere"})
    assert "access-control-allow-origin" not in answer.headers
    assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_ctrl_c_stops_the_server_cleanly_while_it_scans(served_run: Path, striped_data: Path) -> None:
    with serving(served_run, striped_data) as running:
        running.process.send_signal(signal.SIGINT)
        out, errors = running.process.communicate(timeout=30)
        assert (running.process.returncode, out) == (0, "")
        # Nothing else: with Triton installed, its module would report leaks if objects stayed frozen at exit.
        lines = [line for line in errors.splitlines() if not line.startswith("fc7 of ")]
        assert lines == ["press Ctrl-C to stop", "stopped"]


@pytest.mark.long
def test_damaged_arrays_neither_fail_the_server_nor_its_connections(served_run: Path, images: list[bytes]) -> None:
    rng = np.random.default_rng(3)
    file = io.BytesIO()
    np.save(file, rng.integers(0, 256, (72, 72, 3), dtype=np.uint8))
    damaged = []
    for _ in range(150):
        content = bytearray(file.getvalue())
        for position in rng.integers(6, 128, 3):
            content[position] = rng.integers(0, 256)
        damaged.append(bytes(content))
    with serving(served_run, served_run) as running:
        with httpx.Client(limits=httpx.Limits(max_connections=1), timeout=60) as client:
            for content in damaged:
                assert client.post(running.address + "/v1/predict", content=content).status_code in (200, 413, 415, 422)
            assert client.post(running.address + "/v1/predict", content=images[0]).status_code == 200
        running.process.send_signal(signal.SIGINT)
        _, errors = running.process.communicate(timeout=30)
        assert "Traceback" not in errors


def test_a_port_that_is_in_use(command, served_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("serve", served_run, "--port", port)
    assert ended.returncode == 1
    assert re.fullmatch(
        rf"alexnet: cannot bind to 127.0.0.1:{port} \(.*\); a free port is chosen with --port 0\n", ended.stderr
    )


def test_errors_at_start(command, served_run: Path, tmp_path: Path) -> None:
    assert "not a run folder" in command("serve", tmp_path, "--port", 0).stderr
    ended = command("serve", served_run, "--port", 0, "--data", tmp_path / "gone")
    assert (ended.returncode, "gone" in ended.stderr) == (1, True)
    assert command("serve", served_run, "--port", 70000).returncode == 2
