"""The page of suspects: decisions by keyboard in both languages, what is stored, and who may write."""

import csv
import http.client
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from servers import printing_address

from alexnet.data.corrections import Correction, read_corrections
from alexnet.data.dataset import PreparedDataset
from alexnet.data.subset import write_subset
from alexnet.inspection.label_decisions import LabelDecisions
from alexnet.runtime.errors import AlexNetError

PHONE, DESKTOP = {"width": 360, "height": 780}, {"width": 1400, "height": 900}


@dataclass(frozen=True)
class Review:
    """A server of the page: its address, token, the folder and the process."""

    url: str
    address: str
    token: str
    cv: Path
    process: subprocess.Popen[str]

    def rows(self) -> list[list[str]]:
        """The decisions in the file: path, given, decision, label."""
        with (self.cv / "labels.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.reader(file))[1:]


@pytest.fixture
def cv(striped_data: Path, tmp_path: Path) -> Path:
    """A cross-validation without its networks: what the ranking reads."""
    dataset = PreparedDataset.open(striped_data)
    split = dataset.split("train")
    folder = tmp_path / "cv"
    rows = np.arange(len(split))
    write_subset(folder / "data" / "fold-1", dataset, {"train": ("train", rows)})
    rng = np.random.default_rng(0)
    lines = ["path,label,repeat,fold," + ",".join(f"probability_{name}" for name in dataset.classes)]
    for i in rows:
        first = rng.uniform()
        lines.append(f"{split.paths(i)},{dataset.classes[split.labels[i]]},1,{1 + i % 2},{first:.4f},{1 - first:.4f}")
    (folder / "out-of-fold.csv").write_text("\n".join(lines) + "\n", "utf-8")
    near = np.stack([np.roll(rows, -shift) for shift in range(1, 11)], axis=1)
    np.savez(folder / "neighbors.npz", rows=near, distances=np.ones(near.shape, dtype=np.float32))
    return folder


@contextmanager
def serving(cv: Path, *options: str) -> Iterator[Review]:
    with printing_address("labels", str(cv), "--serve", *options) as (url, process):
        address, _, token = url.partition("/?token=")
        yield Review(url, address, token, cv, process)


def test_only_the_page_itself_can_write(cv: Path) -> None:
    with serving(cv) as review:
        own = {"Authorization": f"Bearer {review.token}"}
        body = {"position": httpx.get(review.address + "/v1/review", headers=own).json()["suspects"][0]["position"]}
        body |= {"decision": "drop", "label": ""}

        def post(path: str = "/v1/decisions", **headers: str) -> int:
            return httpx.post(review.address + path, json=body, headers=headers).status_code

        with httpx.Client() as browser:  # has the cookie, like a tab of the page
            assert browser.get(review.url).status_code == 303
            assert browser.get(review.address + "/v1/review").status_code == 200
            assert browser.get(review.address + "/v1/decisions").status_code == 405
            # Another site makes the browser post: the cookie is sent, the header cannot be.
            assert browser.post(review.address + "/v1/decisions", json=body).status_code == 401
        assert httpx.get(review.address + "/v1/review").status_code == 401
        assert httpx.get(review.address + "/?token=wrong").status_code == 401
        for path in ("/v1/decisions", "/v1/undo"):
            assert post(path) == 401
            assert post(path, Authorization="Bearer wrong") == 401
            assert post(path, **own, Origin="https://evil.example") == 403
            assert post(path, **own, Origin="null") == 403
            assert post(path, **own, **{"Sec-Fetch-Site": "cross-site"}) == 403
            assert post(path, **own, Host="evil.example") == 403
            assert httpx.get(review.address + path, headers=own).status_code == 405
            form = httpx.post(review.address + path, data={"position": "0"}, headers=own)
            assert form.status_code == 415
        assert httpx.get(review.address + "/", headers={**own, "Host": "evil.example"}).status_code == 403
        # The redirect after the token stays on the server.
        connection = http.client.HTTPConnection(urlsplit(review.address).netloc)
        connection.request("GET", f"//evil.example/?token={review.token}")
        assert connection.getresponse().getheader("Location") == "/evil.example/"
        connection.close()
        assert not (cv / "labels.csv").exists()
        assert post(**own, Origin=review.address) == 200
        assert [row[2] for row in review.rows()] == ["drop"]
        wrong = [{"position": 10**6}, {"position": body["position"], "decision": "burn"}, {"position": "0"}]
        wrong += [{"position": body["position"], "decision": "change", "label": "no such class"}]
        for one in wrong:
            assert httpx.post(review.address + "/v1/decisions", json=one, headers=own).status_code == 422
        big = httpx.post(review.address + "/v1/decisions", json={"position": "0" * 20_000}, headers=own)
        assert big.status_code == 413
        assert len(review.rows()) == 1


@pytest.mark.long
def test_nothing_is_lost_when_the_server_is_killed_and_two_cannot_write(cv: Path) -> None:
    with serving(cv) as review:
        own = {"Authorization": f"Bearer {review.token}"}
        suspects = httpx.get(review.address + "/v1/review", headers=own).json()["suspects"]
        for suspect in suspects[:3]:
            body = {"position": suspect["position"], "decision": "change", "label": "standing"}
            assert httpx.post(review.address + "/v1/decisions", json=body, headers=own).status_code == 200
        second = subprocess.run(
            [sys.executable, "-m", "alexnet", "labels", str(cv), "--serve", "--port", "0"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 1
        assert "another process writes" in second.stderr
        review.process.kill()
        before = review.rows()
        assert [row[0] for row in before] == [suspect["path"] for suspect in suspects[:3]]
    with serving(cv) as review:
        own = {"Authorization": f"Bearer {review.token}"}
        known = httpx.get(review.address + "/v1/review", headers=own).json()["decisions"]
        assert set(known) == {str(suspect["position"]) for suspect in suspects[:3]}
        undone = httpx.post(review.address + "/v1/undo", json={}, headers=own).json()
        assert undone["path"] == suspects[2]["path"]
        assert review.rows() == before[:2]


def test_undo_restores_an_earlier_decision(tmp_path: Path) -> None:
    decisions = LabelDecisions(tmp_path / "labels.csv")
    decisions.decide(Correction("a.png", "cat", "keep", "cat"))
    decisions.decide(Correction("b.png", "cat", "change", "dog"))
    decisions.decide(Correction("a.png", "cat", "drop", ""))
    assert {one.path: one.decision for one in read_corrections(tmp_path / "labels.csv")} == {
        "a.png": "drop",
        "b.png": "change",
    }
    assert decisions.undo() == "a.png"
    assert decisions.made["a.png"].decision == "keep"
    assert [decisions.undo(), decisions.undo(), decisions.undo()] == ["b.png", "a.png", None]
    assert read_corrections(tmp_path / "labels.csv") == []
    decisions.close()


def test_a_file_that_cannot_be_written_keeps_the_decision_unmade(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    decisions = LabelDecisions(folder / "labels.csv")
    (folder / "labels.csv").mkdir()  # a rename cannot replace it
    with pytest.raises(AlexNetError, match="cannot be written"):
        decisions.decide(Correction("a.png", "cat", "drop", ""))
    assert decisions.made == {}
    assert decisions.undo() is None
    decisions.close()


@pytest.mark.parametrize(
    ("language", "viewport", "kept", "title"),
    [
        ("en-GB", DESKTOP, "keep ", "Suspected label errors"),
        ("ko-KR", PHONE, " 유지", "잘못된 것으로 의심되는 레이블"),
        pytest.param("en-GB", PHONE, "keep ", "Suspected label errors", marks=pytest.mark.long),
        pytest.param("ko-KR", DESKTOP, " 유지", "잘못된 것으로 의심되는 레이블", marks=pytest.mark.long),
    ],
)
def test_suspects_are_decided_by_keyboard_alone(  # noqa: PLR0915 (one session)
    language: str, viewport: dict[str, int], kept: str, title: str, cv: Path, open_tab: Callable[..., Any]
) -> None:
    with serving(cv, "--top", "6") as review:
        tab = open_tab(review.url, locale=language, viewport=viewport)
        page = tab.page
        page.wait_for_selector("#classes li")
        own = {"Authorization": f"Bearer {review.token}"}
        suspects = httpx.get(review.address + "/v1/review", headers=own).json()["suspects"]
        assert "token" not in page.url
        assert page.inner_text("h1") == title
        tables = page.evaluate("import('/page/messages.js').then(({ MESSAGES }) => MESSAGES)")
        assert tables["en"].keys() == tables["ko"].keys()
        assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]

        def press(key: str, path: str) -> None:
            """Press a key; then the image of `path` is shown."""
            page.keyboard.press(key)
            page.wait_for_selector(f"#path:text-is({path!r})")

        paths = [suspect["path"] for suspect in suspects]
        page.wait_for_selector(f"#path:text-is({paths[0]!r})")
        press("k", paths[1])
        press("s", paths[2])
        press("d", paths[3])
        press("2", paths[4])
        page.keyboard.press("/")
        page.keyboard.type("lyi")
        page.keyboard.press("Backspace")
        page.keyboard.press("Backspace")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#path:text-is({paths[5]!r})")
        wanted = [paths[0], paths[1], paths[2], paths[3], paths[4]]
        assert [row[0] for row in review.rows()] == wanted
        assert [row[3] for row in review.rows()] == [
            suspects[0]["label"],
            suspects[1]["suggested"],
            "",
            "standing",
            "lying",
        ]
        press("u", paths[4])
        assert len(review.rows()) == 4
        press("ArrowLeft", paths[3])
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        press("ArrowLeft", paths[0])
        assert page.inner_text("#decision").strip() in (kept + suspects[0]["label"], suspects[0]["label"] + kept)
        assert page.evaluate("document.images.length") == 7
        page.wait_for_load_state("networkidle")
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0 && image.alt)")
        # A key pressed three times at once is three decisions about three images, with their own suggestions.
        press("ArrowLeft", paths[5])
        press("ArrowLeft", paths[4])
        page.keyboard.press("s")
        page.keyboard.press("s")
        page.wait_for_selector("#notice:not([hidden])")
        assert len(review.rows()) == 6
        assert [row[3] for row in review.rows()[4:]] == [suspects[4]["suggested"], suspects[5]["suggested"]]
        review.process.kill()
        review.process.wait()
        page.keyboard.press("d")
        page.wait_for_timeout(300)
        assert len(review.rows()) == 6
        refused = [line for line in tab.complaints if "ERR_" not in line]
        assert refused == []
        assert all(address.startswith((review.address, "data:")) for address in tab.asked)
        page.context.close()


def test_a_server_with_a_token_answers_nobody_else(served_run: Path, striped_data: Path) -> None:
    command = [sys.executable, "-m", "alexnet", "serve", str(served_run), "--data", str(striped_data)]
    token = "a-token-of-twenty-letters"
    process = subprocess.Popen(
        [*command, "--port", "0", "--token", token], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        address, _, printed = process.stdout.readline().strip().partition("/?token=")
        assert printed == token
        for path in ("/", "/v1/network", "/metrics", "/docs", "/page/app.js"):
            assert httpx.get(address + path).status_code == 401
            assert httpx.get(address + path, headers={"Authorization": f"Bearer {token}"}).status_code == 200
        assert httpx.post(address + "/v1/predict").status_code == 401
        assert httpx.get(address + "/healthz").status_code == 200
        with httpx.Client() as browser:
            redirect = browser.get(f"{address}/?token={token}")
            assert redirect.status_code == 303
            assert redirect.headers["location"] == "/"
            assert "HttpOnly" in redirect.headers["set-cookie"]
            assert browser.get(address + "/v1/network").status_code == 200
            foreign = browser.post(address + "/v1/predict", headers={"Origin": "https://evil.example"})
            assert foreign.status_code == 403
    finally:
        process.kill()
        process.communicate()


def test_a_token_that_can_be_guessed_is_refused(served_run: Path, command: Callable[..., Any]) -> None:
    done = command("serve", served_run, "--token", "secret")
    assert done.returncode == 2
    assert "16 characters" in done.stderr
