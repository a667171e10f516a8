"""The thread that owns the network: batching, waiting, failures, background steps."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from random_runs import make_run

from alexnet import Classifier
from alexnet.baselines.baseline import fit_baseline
from alexnet.data.dataset import PreparedDataset
from alexnet.evaluation.ensemble import make_ensemble
from alexnet.prediction.ensemble import load_classifier
from alexnet.runs.run import Run
from alexnet.serve.api import api
from alexnet.serve.explorer import Explorer
from alexnet.serve.limits import Limits
from alexnet.serve.server import serve
from alexnet.serve.service import Service
from alexnet.serve.worker import Worker


@dataclass(frozen=True)
class Means:
    """The mean of each image; a batch with an image of mean 13 fails."""

    max_batch: int = 64

    def __call__(self, classifier: Classifier, images: np.ndarray) -> np.ndarray:
        means = images.mean((1, 2, 3))
        if 13 in means:
            raise ValueError("thirteen")
        return means


@pytest.fixture
def batches() -> list[int]:
    return []


@pytest.fixture
def after_slow_batch(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a batch that took minutes."""
    monkeypatch.setattr("alexnet.serve.worker.MAX_WAIT", 60.0)
    worker._last_seconds = 600.0


@pytest.fixture
def worker(classifier: Classifier, batches: list[int]) -> Iterator[Worker]:
    made = Worker(classifier, lambda _task, count, _seconds: batches.append(count))
    yield made
    made.close()


def submit(worker: Worker, task: Any, *values: int) -> list[Future[Any]]:
    answers = [Future[Any]() for _ in values]
    for value, answer in zip(values, answers, strict=True):
        worker.submit(task, np.full((4, 4, 3), value, dtype=np.uint8), answer)
    return answers


def blocked(until: threading.Event) -> Generator[None, None, None]:
    until.wait(10)
    yield


def test_equal_tasks_that_wait_are_batched(worker: Worker, batches: list[int]) -> None:
    free = threading.Event()
    worker.submit_background(blocked(free))
    time.sleep(0.05)
    alike, others = submit(worker, Means(), *range(10)), submit(worker, Means(max_batch=3), *range(20, 27))
    free.set()
    assert [answer.result(10) for answer in alike + others] == [*range(10), *range(20, 27)]
    assert batches == [10, 3, 3, 1]


@pytest.mark.usefixtures("after_slow_batch")
def test_a_lone_image_starts_without_delay(worker: Worker) -> None:
    start = time.perf_counter()
    assert submit(worker, Means(), 5)[0].result(10) == 5
    assert time.perf_counter() - start < 5


@pytest.mark.usefixtures("after_slow_batch")
def test_the_next_batch_waits_for_clients_that_were_just_answered(worker: Worker, batches: list[int]) -> None:
    worker._last_in_progress = 3
    (first,) = submit(worker, Means(), 1)
    worker.expect(1)
    time.sleep(0.2)
    assert not first.done()
    worker.expect(1)
    second, third = submit(worker, Means(), 2, 3)
    worker.expect(-2)
    assert [answer.result(10) for answer in (first, second, third)] == [1, 2, 3]
    assert batches == [3]


@pytest.mark.usefixtures("after_slow_batch")
def test_the_next_batch_waits_for_images_being_decoded(worker: Worker, batches: list[int]) -> None:
    worker.expect(2)
    (first,) = submit(worker, Means(), 1)
    worker.expect(-1)
    time.sleep(0.2)
    assert not first.done()
    (second,) = submit(worker, Means(), 2)
    worker.expect(-1)
    assert (first.result(10), second.result(10)) == (1, 2)
    assert batches == [2]


def test_a_failure_affects_one_image_only(worker: Worker) -> None:
    free = threading.Event()
    worker.submit_background(blocked(free))
    time.sleep(0.05)
    answers = submit(worker, Means(), 1, 13, 2)
    free.set()
    assert (answers[0].result(10), answers[2].result(10)) == (1, 2)
    with pytest.raises(ValueError, match="thirteen"):
        answers[1].result(10)
    assert submit(worker, Means(), 3)[0].result(10) == 3


def test_images_are_computed_between_background_steps(worker: Worker) -> None:
    order: list[str] = []

    def steps(name: str) -> Generator[None, None, str]:
        for _ in range(3):
            order.append(name)
            if name == "urgent" and len(order) == 1:
                answer.extend(submit(worker, Means(), 7))
                answer[0].add_done_callback(lambda _: order.append("image"))
            yield
        return name

    answer: list[Future[Any]] = []
    free = threading.Event()
    worker.submit_background(blocked(free))
    time.sleep(0.05)
    futures = [
        worker.submit_background(steps("one")),
        worker.submit_background(steps("two")),
        worker.submit_background(steps("urgent"), urgent=True),
    ]
    free.set()
    assert [future.result(10) for future in futures] == ["one", "two", "urgent"]
    assert order[:4] == ["urgent", "image", "urgent", "urgent"]
    assert sorted(order[4:6]) == ["one", "two"]


def test_close_cancels_what_waits(classifier: Classifier) -> None:
    worker, free = Worker(classifier), threading.Event()
    worker.submit_background(blocked(free))
    time.sleep(0.05)
    slow = worker.submit_background(blocked(threading.Event()))
    (answer,) = submit(worker, Means(), 1)
    threading.Timer(0.2, free.set).start()
    worker.close()
    for future in (answer, slow, *submit(worker, Means(), 2)):
        with pytest.raises(CancelledError):
            future.result(1)
    assert not worker.alive


def run_with(run: Run, classifier: Classifier, limits: Limits, exchange: Any) -> None:
    """Run the coroutine `exchange(client, service)` against an application with these limits."""

    async def main() -> None:
        service = Service(classifier, limits)
        app = api(service, Explorer(run, service, None, "no data"))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            try:
                await exchange(client, service)
            finally:
                await asyncio.to_thread(service.close)

    asyncio.run(main())


def files(*images: bytes) -> list[tuple[str, bytes]]:
    return [("file", image) for image in images]


def test_full_queue_timeout_and_recovery(served_run: Any, classifier: Classifier, images: list[bytes]) -> None:
    async def exchange(client: httpx.AsyncClient, service: Service) -> None:
        full = await client.post("/v1/predict", files=files(*images[:4]))
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        free = threading.Event()
        service.worker.submit_background(blocked(free))
        await asyncio.sleep(0.1)
        late = await client.post("/v1/predict", files=files(images[0]))
        assert (late.status_code, late.headers["retry-after"]) == (503, "1")
        free.set()
        assert (await client.post("/v1/predict", files=files(*images[:3]))).status_code == 200
        large = await client.post("/v1/predict", content=b"x" * 60_001)
        assert large.status_code == 413
        crowded = await asyncio.gather(*(client.post("/v1/predict", content=b"x" * 60_000) for _ in range(2)))
        assert sorted(answer.status_code for answer in crowded) == [415, 429]
        assert (await client.post("/v1/predict", files=files(images[0]))).status_code == 200

    limits = Limits(bytes=60_000, queue=3, seconds=2.0, queued_bytes=100_000)
    run_with(Run.open(served_run), classifier, limits, exchange)


def test_a_body_that_does_not_arrive(served_run: Any, classifier: Classifier) -> None:
    # ASGITransport reads the whole body first, so the application is called directly.
    async def main() -> None:
        service = Service(classifier, Limits(seconds=0.3))
        app = api(service, Explorer(Run.open(served_run), service, None))
        sent: list[Any] = []
        never = asyncio.Event()

        async def receive() -> Any:
            await never.wait()

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/predict", "headers": [], "query_string": b""}
        await app(scope | {"http_version": "1.1", "scheme": "http", "server": ("server", 80)}, receive, send)
        assert sent[0]["status"] == 408
        await asyncio.to_thread(service.close)

    asyncio.run(main())


def test_indexing_the_training_images_ends_with_the_service(
    served_run: Path, striped_data: Path, classifier: Classifier, tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(served_run, tmp_path / "run", ignore=shutil.ignore_patterns("search")))
    service = Service(classifier, Limits())
    explorer = Explorer(run, service, PreparedDataset.open(striped_data))
    free = threading.Event()
    service.worker.submit_background(blocked(free))
    explorer.start()
    threading.Timer(0.5, free.set).start()
    service.close()
    explorer.close()
    assert "index" not in {thread.name for thread in threading.enumerate()}
    assert not list(run.path.glob("search/*/*.npy"))


def served(folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, float], dict[str, Any]]:
    """The answers of the server of a folder: the probabilities of an image, and the description of the network."""
    answers = []

    async def ask(app: Any) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
            answers.append((await client.post("/v1/predict", files=files(content))).json()["predictions"][0])
            answers.append((await client.get("/v1/network")).json())

    monkeypatch.setattr("alexnet.serve.server.run_app", lambda app, *_: asyncio.run(ask(app)))
    serve(folder, port=0, device="cpu")
    entry, about = answers
    return {found["label"]: found["probability"] for found in entry["top"]}, about


def mean_of(members: list[Path], content: bytes) -> dict[str, float]:
    each = [dict(load_classifier(member, device="cpu").predict(content)[0].top) for member in members]
    return {label: sum(one[label] for one in each) / len(each) for label in each[0]}


def test_a_cross_validation_is_served_as_the_mean_of_its_networks(
    striped_data: Path, images: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cv = tmp_path / "cv"
    runs = [make_run(cv / f"fold-{n}", striped_data, seed=n, variant="convolutions") for n in (1, 2)]
    (cv / "crossval.json").write_text(json.dumps({"folds": {"1": {}, "2": {}}}), encoding="utf-8")
    probabilities, about = served(cv, images[0], monkeypatch)
    assert probabilities == pytest.approx(mean_of(runs, images[0]), abs=1e-5)
    assert (about["run"], about["members"], about["shown_network"]) == ("cv", 2, "fold-1")
    assert about["cross_validation"]
    assert about["data"] is None
    assert "name a dataset with --data" in about["data_unavailable"]


def test_an_ensemble_is_served_as_the_mean_of_its_members_with_the_data_of_its_network(
    striped_data: Path, images: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", striped_data, seed=1, variant="convolutions")
    base = fit_baseline(striped_data, tmp_path / "base", features="hog").path
    make_ensemble([base, run], tmp_path / "both")
    probabilities, about = served(tmp_path / "both", images[0], monkeypatch)
    assert probabilities == pytest.approx(mean_of([run, base], images[0]), abs=1e-5)
    assert (about["run"], about["members"], about["shown_network"]) == ("both", 2, "run")
    assert not about["cross_validation"]
    assert about["data"] is not None


def test_without_data_the_routes_that_need_it_return_404(
    served_run: Any, classifier: Classifier, images: list[bytes]
) -> None:
    async def exchange(client: httpx.AsyncClient, service: Service) -> None:
        assert (await client.get("/v1/network")).json()["data_unavailable"] == "no data"
        for answer in (
            await client.get("/v1/mistakes"),
            await client.post("/v1/neighbors", files=files(images[0])),
            await client.get("/v1/data/train/0"),
        ):
            assert answer.status_code == 404
        assert (await client.get("/v1/units/conv1/0")).json()["images"] == []
        assert (await client.get("/v1/samples")).json() == {"images": []}
        assert (await client.post("/v1/explain", files=files(images[0]))).status_code == 200

    run_with(Run.open(served_run), classifier, Limits(), exchange)
