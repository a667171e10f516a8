"""Many concurrent clients with valid and damaged files, and requests generated from the OpenAPI document."""

import random
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi import checks
from servers import Server

from alexnet import Classifier

CLIENTS, REQUESTS = 16, 15
EXAMPLES = 8


def resident(server: Server) -> float:
    """Resident memory of the server's process, in MB."""
    found = re.search(r"^process_resident_memory_bytes (\S+)$", server.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1]) / 1e6


def test_valid_and_damaged_files_from_many_clients(server: Server, classifier: Classifier, images: list[bytes]) -> None:
    expected = [prediction.top for prediction in classifier.predict(images)]
    bad = {b"no image": 415, b"": 422, images[0][:1500]: 422, images[1][:-3000]: 422}
    wrong: list[Any] = []

    def client(seed: int) -> None:
        draw = random.Random(seed)
        with httpx.Client(timeout=120) as connection:
            for _ in range(REQUESTS):
                sent = [draw.choice([*range(len(images)), *bad]) for _ in range(draw.choice([1, 1, 1, 3]))]
                files = [("file", (str(n), images[one] if isinstance(one, int) else one)) for n, one in enumerate(sent)]
                answer = connection.post(server.address + "/v1/predict", files=files)
                if not any(isinstance(one, int) for one in sent):
                    if answer.status_code != bad[sent[0]]:
                        wrong.append((sent, answer.text))
                    continue
                entries = answer.json()["predictions"]
                for one, entry in zip(sent, entries, strict=True):
                    if not isinstance(one, int):
                        ok = entry["error"]["status"] == bad[one]
                    else:
                        answered = {top["label"]: top["probability"] for top in entry["top"]}
                        ok = all(abs(answered[label] - share) < 1e-5 for label, share in expected[one])
                    if not ok:
                        wrong.append((one, entry))

    def load(first: int) -> None:
        with ThreadPoolExecutor(CLIENTS) as clients:
            list(clients.map(client, range(first, first + CLIENTS)))

    load(0)
    before = resident(server)
    load(CLIENTS)
    assert wrong == []
    assert server.process.poll() is None
    assert resident(server) - before < 60
    assert server.get("/healthz").status_code == 200


def test_requests_generated_from_the_openapi_document(server: Server) -> None:
    document = schemathesis.openapi.from_url(server.address + "/openapi.json")
    # Random bytes are rejected because they are not an image.
    excluded = [checks.positive_data_acceptance, checks.negative_data_rejection]
    tested = set()
    for found in document.get_all_operations():
        operation = found.ok()
        tested.add(operation.path)

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate(timeout=60, excluded_checks=excluded)

        check()
    assert {
        "/v1/predict",
        "/v1/features",
        "/v1/neighbors",
        "/v1/explain",
        "/v1/feature-maps",
        "/healthz",
        "/metrics",
    } <= tested
    assert server.process.poll() is None
    assert server.get("/healthz").status_code == 200
