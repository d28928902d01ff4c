"""Hub ids that are not in the catalogue, against a small server on loopback that speaks as much of the hub as is needed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

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


def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def endpoint() -> Iterator[str]:
    yield from serving(Hub)


def memcurve(words: list[str], cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "memcurve", *words],
        capture_output=True,
        text=True,
        env={**own, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", **environment},
        check=False,
    )


def estimate(name: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return memcurve(["estimate", name, "--context", "10", "--json"], cache, **environment)


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


# Weights, by range requests


def safetensors_file(tensors: dict[str, int]) -> bytes:
    """A file of floats: how many each tensor holds."""
    header, at = {}, 0
    for name, count in tensors.items():
        header[name] = {"dtype": "F32", "shape": [count], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def gguf_file(name: str) -> bytes:
    """A file of one tensor of 8 floats."""
    key = b"general.architecture"
    out = (
        b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, 5) + b"llama"
    )
    out += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<IQIQ", 1, 8, 0, 0)
    return out + bytes(-len(out) % 32) + bytes(32)


INDEX = {"weight_map": {"model.embed_tokens.weight": "one.safetensors", "lm_head.weight": "two.safetensors"}}
REPOSITORIES = {
    "some/single": {"model.safetensors": safetensors_file({"lm_head.weight": 100_000, "b": 1}), "README.md": b"words"},
    "some/sharded": {
        "model.safetensors.index.json": json.dumps(INDEX).encode(),
        "one.safetensors": safetensors_file({"model.embed_tokens.weight": 10, "unmapped": 7}),
        "two.safetensors": safetensors_file({"lm_head.weight": 30}),
    },
    "some/long": {"model.safetensors": safetensors_file({f"layers.{i}.mlp.up_proj.weight": 1 for i in range(5000)})},
    "some/ggufs": {"m-Q4_K_M.gguf": gguf_file("output.weight"), "m-Q8_0.gguf": gguf_file("output.weight"), "mmproj-m.gguf": b""},
    "some/wordless": {"README.md": b"words", "pytorch_model.bin": b"pickled"},
    # eight bytes, a header of 61 and a float, but for its last byte
    "some/damaged": {"model.safetensors": safetensors_file({"a": 1})[:-1]},
    "some/lying": {"model.safetensors.index.json": b'{"weight_map":{"a":"../../some/single/model.safetensors"}}'},
}  # fmt: skip


class Ranges(BaseHTTPRequestHandler):
    """Repositories with what they list, and their files by ranges. sent: bytes given out of each file."""

    protocol_version = "HTTP/1.1"
    sent: ClassVar[dict[str, int]] = {}
    ranges = True

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            files = REPOSITORIES.get("/".join(words[2:4]))
            listed = [{"rfilename": name, "size": len(data)} for name, data in (files or {}).items()]
            body = json.dumps({"id": "/".join(words[2:4]), "sha": COMMIT, "siblings": listed}).encode()
            self.give(200 if files else 404, body, {} if files else {"X-Error-Code": "RepoNotFound"})
            return
        data = REPOSITORIES["/".join(words[:2])]["/".join(words[4:])]
        assert words[2:4] == ["resolve", COMMIT]
        begin, end = (int(word) for word in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[begin : end + 1] if self.ranges else data
        self.sent[words[-1]] = self.sent.get(words[-1], 0) + len(part)
        self.give(206 if self.ranges else 200, part, {"Content-Range": f"bytes {begin}-{end}/{len(data)}"})

    def give(self, code: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def weights_endpoint() -> Iterator[str]:
    Ranges.sent.clear()
    yield from serving(Ranges)


def weights(name: str, cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return memcurve(["weights", name, "--json"], cache, **environment)


@pytest.mark.parametrize(
    ("name", "size", "parts"),
    [
        ("some/single", 400_004, {"head": 400_000, "other": 4}),
        ("some/sharded", 160, {"embedding": 40, "head": 120}),
        ("some/long", 20_000, {"mlp": 20_000}),
        ("some/ggufs:Q8_0", 32, {"head": 32}),
        ("some/ggufs:m-Q4_K_M.gguf", 32, {"head": 32}),
    ],
)
def test_weights_of_the_hub(weights_endpoint: str, tmp_path: Path, name: str, size: int, parts: dict[str, int]) -> None:
    done = weights(name, tmp_path, HF_ENDPOINT=weights_endpoint)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["bytes"], found["by_part"], found["source"]) == (size, parts, name)
    if name == "some/single":  # 400 kB, and its first 128 KiB asked for once
        assert Ranges.sent == {"model.safetensors": 2**17}


def test_a_server_without_ranges(weights_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranges, "ranges", False)
    done = weights("some/long", tmp_path, HF_ENDPOINT=weights_endpoint)
    assert json.loads(done.stdout)["bytes"] == 20_000, done.stderr


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        (
            "some/ggufs",
            2,
            "2 files without an index: 'm-Q4_K_M.gguf, m-Q8_0.gguf'; expected one of them, as some/ggufs:FILE",
        ),
        ("some/ggufs:Q5_K", 2, "'Q5_K' is none of its files; expected one of m-Q4_K_M.gguf, m-Q8_0.gguf"),
        ("some/wordless", 2, "some/wordless: no weights in it"),
        ("some/damaged", 2, "some/damaged/model.safetensors: 72 bytes; expected 73, where the data end"),
        ("some/lying", 2, "expected the name of a file in the index's folder"),
        ("other/model", 1, "other/model is not on the hub, or needs a token"),
        ("some/..bad", 3, "some/..bad is no hub id"),
    ],
)
def test_weights_that_the_hub_does_not_give(
    weights_endpoint: str, tmp_path: Path, name: str, code: int, message: str
) -> None:
    done = weights(name, tmp_path, HF_ENDPOINT=weights_endpoint)
    assert message in done.stderr
    assert done.returncode == code
    assert done.stderr.count("\n") == 1


def test_weights_from_the_cache_when_the_hub_is_away(tmp_path: Path) -> None:
    done = weights("some/single", tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "the hub can't be reached" in done.stderr
    repository = tmp_path / "hub" / "models--some--single"
    for folder in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    (repository / "blobs" / "1234").write_bytes(REPOSITORIES["some/single"]["model.safetensors"])
    (repository / "snapshots" / COMMIT / "model.safetensors").symlink_to("../../blobs/1234")
    done = weights("some/single", tmp_path, HF_HUB_OFFLINE="1")
    assert json.loads(done.stdout)["bytes"] == 400_004, done.stderr
