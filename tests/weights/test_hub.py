"""The Hugging Face hub, simulated by a local server with the part of its API that huggingface_hub uses."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save
from test_torchvision import TorchvisionLayout

from alexnet.cli.main import main
from alexnet.weights.exporting import upload

pytest.importorskip("huggingface_hub", reason="the extra `hf` is not installed")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """One repository, me/net, whose files are in memory."""

    protocol_version = "HTTP/1.1"
    files: ClassVar[dict[str, bytes]] = {}

    @property
    def address(self) -> str:
        return f"http://{self.headers['Host']}"

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/me/net/revision/") or self.path == "/api/models/me/net":
            siblings = [{"rfilename": name} for name in self.files]
            self.answer({"id": "me/net", "modelId": "me/net", "sha": COMMIT, "siblings": siblings, "private": False})
        elif self.path.startswith("/api/models/me/net/tree/"):
            files = [
                {"type": "file", "path": name, "size": len(content), "oid": str(i)}
                for i, (name, content) in enumerate(self.files.items())
            ]
            self.answer(files)
        elif self.path.startswith("/me/net/resolve/") and self.path.rpartition("/")[2] in self.files:
            self.send(200, self.files[self.path.rpartition("/")[2]])
        else:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            self.answer({"url": f"{self.address}/me/net", "name": "me/net"})
        elif "/preupload/" in self.path:
            named = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": named})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(
                {"commitUrl": f"{self.address}/me/net/commit/{COMMIT}", "commitOid": COMMIT, "pullRequestUrl": None}
            )
        else:
            self.send(200, b"{}")

    def answer(self, value: object) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("ETag", f'"{hash(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make huggingface_hub use the local server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    monkeypatch.setenv("NO_PROXY", "*")
    Hub.files = {}
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_a_repository_is_imported_by_its_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = TorchvisionLayout(3).state_dict()
    state = {name: torch.zeros(array.shape) for name, array in shapes.items()}
    Hub.files = {"model.safetensors": save(state), "run.py": b"open('ran', 'w')"}
    (tmp_path / "names.txt").write_text("a\nb\nc\n", encoding="utf-8")
    arguments = ["import", "hf:me/net", "--classes", str(tmp_path / "names.txt"), "--out", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text(encoding="utf-8"))["classes"] == ["a", "b", "c"]


@pytest.mark.usefixtures("hub")
def test_a_missing_repository_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "hf:me/other", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "alexnet: hf:me/other can't be downloaded: " in error.splitlines()[-1]
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("hub")
def test_a_folder_is_uploaded(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a card", encoding="utf-8")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    upload(tmp_path, "me/net")
    assert Hub.files == {"README.md": b"a card", "config.json": b"{}"}
