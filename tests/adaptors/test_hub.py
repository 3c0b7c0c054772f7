"""Adaptors on the hub, against a server on this machine that speaks as much of its language as they need."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from helpers.adaptors import POINT, SMALL

import clockwork
from clockwork.adaptors import ResNet, add_row, read_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROW = {
    **asdict(POINT),
    **{"images": 200, "prompts": "abc", "seed": 0, "device": "cpu", "versions": "torch 2", "adaptor": "resnet"},
    **{"metrics": {"fid_miniature": 21.5, "clip_score_miniature": 0.79}, "tflops_paper": 0.0015},
}


class Hub(BaseHTTPRequestHandler):
    """Creating a repository, uploading in a commit, listing and downloading."""

    files: dict[str, dict[str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.split("/api/models/")[-1].split("/preupload")[0].split("/commit")[0]
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            self.files.setdefault(name, {})
            self._answer({"url": f"http://{self.headers['Host']}/{name}", "id": name})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._answer(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]}
            )
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            where = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
            self._answer({"commitUrl": where, "commitOid": COMMIT})
        else:
            self._answer({}, 200)

    def do_GET(self) -> None:
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/.+", self.path.split("?")[0]):
            if found[1] not in self.files:
                self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
                return
            siblings = [{"rfilename": name} for name in self.files[found[1]]]
            self._answer({"id": found[1], "sha": COMMIT, "siblings": siblings})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/.+", self.path.split("?")[0]):
            files = self.files[found[1]].items()
            listed = [{"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for f, c in files]
            self._answer(listed)
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", self.path):
            self._send(self.files[found[1]][found[2]])
        else:
            self._answer({"error": "no such page"}, 404)

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, content: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = hashlib.sha1(content).hexdigest()
        own = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(content))}
        for name, value in {**own, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, dict[str, bytes]]]:
    """What lies on the hub; its address and cache are the ones that HF_ENDPOINT, HF_HOME and HF_TOKEN would set."""
    handler = type("Handler", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_none")
    yield handler.files
    server.shutdown()
    server.server_close()


def saved(folder: Path, **about: Any) -> ResNet:
    torch.manual_seed(0)
    adaptor = ResNet(SMALL, 16, 1)
    clockwork.save_adaptor(folder, adaptor, POINT, **about)
    return adaptor


def test_there_and_back(hub: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adaptor = saved(tmp_path / "mine", openclip={"name": "miniature", "tag": None})
    (tmp_path / "mine" / "notes.txt").write_text("not for others")
    clockwork.push_to_hub(tmp_path / "mine", "me/small-adaptor")
    assert set(hub["me/small-adaptor"]) == {"config.json", "adaptor.safetensors", "README.md"}
    again, point = clockwork.load_adaptor("me/small-adaptor")
    assert point == POINT
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), adaptor.parameters(), strict=True))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    clockwork.load_adaptor("me/small-adaptor")  # from the cache


def test_what_is_not_there(hub: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no adaptor me/nothing: there is no such folder"):
        clockwork.load_adaptor("me/nothing")
    saved(tmp_path / "mine")
    (tmp_path / "mine" / "README.md").unlink()
    with pytest.raises(FileNotFoundError, match=r"README\.md missing"):
        clockwork.push_to_hub(tmp_path / "mine", "me/x")


def test_the_card_is_read_by_the_hubs_own_reader(tmp_path: Path) -> None:
    saved(tmp_path, base_model="stable-diffusion-v1-5/stable-diffusion-v1-5", row=ROW)
    model_card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert model_card.data.library_name == "clockwork"
    assert model_card.data.base_model == "stable-diffusion-v1-5/stable-diffusion-v1-5"
    figures = {result.metric_type: result.metric_value for result in model_card.data.eval_results}
    assert figures == {"fid_miniature": 21.5, "clip_score_miniature": 0.79, "tflops_paper": 0.0015}
    assert "| steps | 8 |" in model_card.text and "200 images" in model_card.text
    header = (tmp_path / "README.md").read_text().split("---")[1]
    assert yaml.safe_load(header)["model-index"]


def test_a_row_joins_the_adaptor_that_it_measured(tmp_path: Path) -> None:
    saved(tmp_path, training={"loss": 0.1})
    assert "model-index" not in (tmp_path / "README.md").read_text()
    for row in (ROW, {**ROW, "images": 10}, {**ROW, "steps": 6, "images": 900}):
        add_row(tmp_path, row, {"fid_miniature": "FID, miniature"})
    config = read_config(tmp_path)
    assert config["row"] == ROW  # not of fewer images, not of another operating point
    assert config["training"] == {"loss": 0.1}
    assert "| FID, miniature | 21.5 |" in (tmp_path / "README.md").read_text()
