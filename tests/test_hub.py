"""Hub ids that are not in the catalogue, against a small server on loopback that speaks as much of the hub as is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIG = json.dumps({"model_type": "llama", "num_hidden_layers": 2, "torch_dtype": "float16"}).encode()
COMMIT = "0" * 40


class Hub(BaseHTTPRequestHandler):
    """some/model has a config.json; some/empty has none; some/gated wants terms accepted; anything else is not there."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        name = "/".join(self.path.split("/")[1:3])
        code, error, body = 404, "RepoNotFound", b""
        if name == "some/model":
            code, error, body = 200, "", CONFIG
        elif name == "some/empty":
            error = "EntryNotFound"
        elif name == "some/gated":
            code, error = 403, "GatedRepo"
        self.send_response(code)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", '"1234"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def estimate(name: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "memcurve", "estimate", name, "--context", "10", "--json"],
        capture_output=True,
        text=True,
        env={**own, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment},
        check=False,
    )


def test_a_config_is_fetched_once_and_then_from_the_cache(endpoint: str, tmp_path: Path) -> None:
    done = estimate("some/model", tmp_path, HF_ENDPOINT=endpoint)
    assert done.returncode == 0, done.stderr
    # 2 layers × 10 tokens × 4096 × (key + value) × 2 B
    assert json.loads(done.stdout)["bytes"] == 2 * 10 * 4096 * 2 * 2
    assert json.loads(done.stdout)["model"] == "some/model"
    again = estimate("some/model", tmp_path, HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("some/empty", 1, "some/empty holds no config.json"),
        ("some/gated", 1, "some/gated is gated: accept its terms on the hub and log in"),
        ("other/model", 1, "other/model is not on the hub, or needs a token"),
        ("Qwen/Qwen3-Nxt-80B-A3B-Thinking", 1, "nearest in the catalogue: Qwen/Qwen3-Next-80B-A3B-Thinking"),
        ("some/..bad", 3, "some/..bad is no hub id"),
    ],
)
def test_what_the_hub_does_not_give(endpoint: str, tmp_path: Path, name: str, code: int, message: str) -> None:
    done = estimate(name, tmp_path, HF_ENDPOINT=endpoint)
    assert done.returncode == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_network_is_one_line(tmp_path: Path) -> None:
    done = estimate("some/model", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "the hub can't be reached; give a config.json" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_huggingface_hub(tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('none')")
    done = estimate("some/model", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "to fetch it: pip install 'memcurve[hub]'" in done.stderr
