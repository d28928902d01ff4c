"""The server around the web API: its limits, what browsers may do with it, any request, and the command."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from starlette.testclient import TestClient
from test_gguf import QWEN, encoded
from web_client import ask, client

from memcurve import BadConfig, cli, schema
from memcurve.base import MissingExtraError
from memcurve.cli import serve
from memcurve.engines import NAMES
from memcurve.shapes import SHAPES, answer_schema
from memcurve.web import answers, forms, security
from memcurve.web.app import make_app
from memcurve.web.models import EXAMPLES
from memcurve.web.security import HEADERS, Guard
from memcurve.web.server import CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

    from starlette.types import ASGIApp, Message

QWEN3 = "Qwen/Qwen3-8B"
SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.fixture(scope="module")
def web() -> TestClient:
    return client(make_app())


# -- limits -----------------------------------------------------------------------------------------------------------------


def test_bodies_are_bounded(web: TestClient) -> None:
    def post(content: bytes, **headers: str) -> tuple[int, str]:
        sent = {"content-type": "application/json", **headers}
        response = web.post("/api/v1/estimate", content=content, headers=sent)
        return response.status_code, response.json()["error"]

    assert post(b'{"model":"' + b"x" * 2**20 + b'"}') == (413, "TooLarge")
    assert post(b'{"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}") == (400, "BadConfig")
    assert post(b'{"config":{"a":' + b"[" * 40 + b"]" * 40 + b"}}") == (400, "BadConfig")
    assert post(b"{") == (400, "BadConfig")
    assert post(b'{"contexts":[NaN]}') == (400, "BadConfig")
    assert post(b'{"contexts":[' + b"9" * 5000 + b"]}") == (400, "BadConfig")
    assert post(b"\xff\xfe") == (400, "BadConfig")
    assert post(b"{}", **{"content-type": "text/plain"}) == (415, "BadRequest")
    assert post(b"{}", **{"content-type": "application/x-www-form-urlencoded"}) == (415, "BadRequest")
    assert post(b"{}", **{"content-encoding": "gzip"}) == (415, "BadRequest")
    assert post(b"[]") == (422, "BadConfig")
    assert post(b"null") == (422, "BadConfig")
    deep: dict[str, Any] = {"model_type": "qwen3"}
    for _ in range(32):
        deep = {"a": deep}
    assert "nested too deeply" in ask(web, "estimate", {"config": {"model_type": "qwen3", "b": deep}}, 422)["detail"]


def test_a_body_without_a_length_is_bounded(web: TestClient) -> None:
    pieces = (b" " * 2**16 for _ in range(17))
    response = web.post("/api/v1/estimate", content=pieces, headers={"content-type": "application/json"})
    assert "content-length" not in response.request.headers
    assert response.status_code == 413


def test_no_answer_takes_long_or_is_large(web: TestClient) -> None:
    """Curves of many layers, staircases that cross again and again, and many contexts of many terms."""
    start = time.perf_counter()
    assert (
        "expected at most 1,024"
        in ask(web, "fit", {"model": "48mha", "sizes": {"n_layers": 1025}, "gpu": "H100"}, 422)["detail"]
    )
    layers = {str(index): {"head_dim": index + 1} for index in range(1000)}
    config = {
        "model_type": "llama",
        "num_hidden_layers": 1000,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "torch_dtype": "bfloat16",
    }
    many = ask(web, "estimate", {"config": config | {"per_layer_config": layers}, "contexts": list(range(512))}, 422)
    assert many["detail"] == "contexts: 512 of 1,000 terms each; expected at most 16"
    stages = {"model": QWEN3, "engine": "vllm", "options": {"pipeline_parallel_size": 2**40}}
    found = ask(web, "curve", stages, 422)
    assert found["detail"] == "pipeline_parallel_size: 1099511627776; expected at most 1,024"
    pages = [{"model": "48mha", "engine": "sglang", "options": {"page_size": 10007 + 2 * index}} for index in range(8)]
    for subjects, most in ((pages, None), (pages[:2], 2**60)):
        found = ask(web, "cross", {"subjects": subjects, "max_ctx": most}, 422)
        assert found["error"] == "TooLarge"
    pages = [{"model": "48mha", "engine": "sglang", "options": {"page_size": size}} for size in (97, 101)]
    found = ask(web, "cross", {"subjects": pages, "max_ctx": 2**20}, 422)
    assert re.fullmatch(r"crossings: [\d,]+; expected at most 10,000: a smaller max_ctx has fewer", found["detail"])
    assert time.perf_counter() - start < 20


def test_requests_at_once_are_bounded() -> None:
    guard = make_app()
    assert isinstance(guard, Guard)
    guard.running = security.MAX_AT_ONCE
    response = client(guard).post("/api/v1/estimate", json={"model": QWEN3})
    assert (response.status_code, response.json()["error"], response.headers["retry-after"]) == (503, "Busy", "1")
    guard.running = 0
    assert client(guard).post("/api/v1/estimate", json={"model": QWEN3}).status_code == 200
    client(guard).post("/api/v1/estimate", json={"model": "no/such"})
    client(guard).post("/api/v1/estimate", content=b"{", headers={"content-type": "application/json"})
    assert guard.running == 0


def test_few_answers_are_reckoned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0

    def slow(_: object) -> dict[str, object]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        running -= 1
        return {}

    monkeypatch.setitem(answers.ANSWERED, "estimate", slow)
    with client(make_app()) as web, ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda _: web.post("/api/v1/estimate", json={"model": QWEN3}).status_code, range(12)))
    assert statuses == [200] * 12
    assert most == 2


def test_headers_are_bounded(web: TestClient) -> None:
    response = web.get("/", headers={"x-long": "a" * 16384})
    assert (response.status_code, response.json()["error"]) == (431, "TooLarge")


def test_a_slow_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "BODY_SECONDS", 0.05)
    sent: list[Message] = []

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/estimate", "headers": headers}
    start = time.perf_counter()
    run(make_app()(scope, never, send))
    assert sent[0]["status"] == 408
    assert time.perf_counter() - start < 2


# -- security -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1:1", "[::1]:8765", "LOCALHOST", "box.example.org:80"]
)
def test_hosts_that_are_this_server(host: str) -> None:
    app = make_app(["box.example.org"])
    assert client(app).get("/api/v1/engines", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.nip.io", "localhost:80@evil.example",
     "127.0.0.2", "0.0.0.0", "[::2]", "localhost:", "localhost:x", "box.example.org"],
)  # fmt: skip
def test_other_hosts_are_turned_down(host: str, web: TestClient) -> None:
    for path in ("/", "/api/v1/models", "/api/v1/openapi.json"):
        response = web.get(path, headers={"host": host})
        assert response.status_code == 403, host
        assert response.json()["error"] == "Forbidden"
    assert web.post("/api/v1/estimate", json={"model": QWEN3}, headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://localhost:8765", 200), ("https://localhost:8765", 200), ("http://localhost:9999", 403), ("http://evil.example", 403),
     ("null", 403), ("", 403), ("http://127.0.0.1:8765", 403), ("file://", 403), ("http://localhost:8765.evil.example", 403)],
)  # fmt: skip
def test_the_origin_of_a_post_is_the_page(origin: str, status: int, web: TestClient) -> None:
    response = web.post("/api/v1/estimate", json={"model": QWEN3}, headers={"origin": origin})
    assert response.status_code == status
    assert not any(name.startswith("access-control") for name in response.headers)


def test_nothing_is_allowed_across_origins(web: TestClient) -> None:
    asked = {"origin": "http://localhost:8765", "access-control-request-method": "POST"}
    response = web.options("/api/v1/estimate", headers=asked)
    assert response.status_code == 405
    assert not any(name.startswith("access-control") for name in response.headers)


def test_every_answer_has_the_headers(web: TestClient) -> None:
    answered = [
        web.get("/"),
        web.get("/no-such-file"),
        web.get("/api/v1/models"),
        web.get("/api/v1/openapi.json"),
        web.post("/api/v1/estimate", json={"model": QWEN3}),
        web.post("/api/v1/estimate", json={}),
        web.post("/api/v1/estimate", content=b"{"),
        web.get("/", headers={"host": "evil.example"}),
        web.delete("/api/v1/models"),
        web.get("/api/v1/estimate"),
    ]
    assert [one.status_code for one in answered] == [200, 404, 200, 200, 200, 422, 415, 403, 405, 405]
    for one in answered:
        for name, value in HEADERS.items():
            assert one.headers.get_list(name) == [value]
        assert "set-cookie" not in one.headers
        assert "server" not in one.headers
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert HEADERS["x-content-type-options"] == "nosniff"
    assert HEADERS["referrer-policy"] == "no-referrer"


def test_only_the_pages_own_files_are_served(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    static = tmp_path / "static"
    (static / "in").mkdir(parents=True)
    (static / "index.html").write_text("<!doctype html>")
    (static / "app.js").write_text("1")
    (static / "in" / "a.css").write_text("a{}")
    (static / "note.py").write_text("secret")
    (static / "link.txt").symlink_to(secret)
    (static / "folder").symlink_to(tmp_path)
    app = make_app(static=str(static))
    web = client(app)
    assert web.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert web.get("/app.js").headers["content-type"] == "text/javascript; charset=utf-8"
    assert web.get("/in/a.css").text == "a{}"
    for path in (
        "/../secret.txt", "/..%2fsecret.txt", "/%2e%2e/secret.txt", "/in/../../secret.txt", "/in/../app.js", "//etc/passwd",
        "/link.txt", "/folder/secret.txt", "/note.py", "/in", "/in/", "/app.js/", "/app.js\0", "/in\\a.css", "/./app.js",
        "/index.html/..", str(secret), "/.", "/..", "/INDEX.HTML", "//app.js", "",
    ):  # fmt: skip
        status, body = got(app, path)
        assert status == 404, path
        assert json.loads(body)["error"] == "NotFound"


def run(call: Awaitable[None]) -> None:
    async def main() -> None:
        await call

    asyncio.run(main())


def got(app: ASGIApp, path: str) -> tuple[int, bytes]:
    """The answer to a path as it stands, which a client would tidy up first."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "server": ("localhost", 80),
    }  # fmt: skip
    run(app(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def test_an_error_of_the_server_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("/home/somebody/secret")

    monkeypatch.setitem(answers.ANSWERED, "estimate", fails)
    response = client(make_app()).post("/api/v1/estimate", json={"model": QWEN3})
    assert response.status_code == 500
    assert response.json()["detail"] == "unexpected RuntimeError; please report it"


# -- any request ----------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    "model config gguf name sizes dtype options engine encoder_context contexts batch memory context subjects max_ctx gpu "
    "gpu_memory gpus tp pp weights_bytes reserve speculative prefix_caching rooms".split()
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_request_is_an_error_of_the_server(data: st.DataObject) -> None:
    web = client(make_app())
    path = data.draw(st.sampled_from(sorted(EXAMPLES)))
    body = dict(data.draw(st.sampled_from(list(EXAMPLES[path].values()))))
    body |= data.draw(st.dictionaries(FIELDS, VALUES, max_size=2))
    if isinstance(body.get("config"), dict) and data.draw(st.booleans()):
        keys = [
            *body["config"],
            "layer_types",
            "quantization_config",
            "architectures",
            "per_layer_config",
            "sliding_window",
        ]
        changes = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=3))
        body["config"] = {**body["config"], **changes}
    if data.draw(st.booleans()) and "engine" in body and body["engine"] in NAMES:
        names = sorted(forms.names(body["engine"], path == "fit"))
        body["options"] = data.draw(
            st.dictionaries(st.sampled_from(names), st.integers(-2, 2**40) | VALUES, max_size=3)
        )
    response = web.post(f"/api/v1/{path}", json=body)
    assert response.status_code < 500, (path, body, response.text)
    kind = SHAPES["Problem"] if response.status_code >= 400 else answer_schema(path)
    Draft202012Validator(kind).validate(response.json())
    if response.status_code >= 400:
        assert "nput should" not in response.json()["detail"]


def soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("soak", SOAK)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_soak(count: Any) -> None:
    """The full one: python benchmarks/soak.py"""
    found = soak().soak(600, seed=random.Random().randrange(10**9))
    assert not found["wrong"], found["wrong"][:3]
    assert not [status for status in found["statuses"] if status >= 500], found["statuses"]
    assert found["compared"] > 20
    assert found["memory"][-1] - found["memory"][0] < 16 * 1024
    count(f"web: {sum(found['statuses'].values())} requests, {found['compared']} answers compared with Python")


# -- statuses ---------------------------------------------------------------------------------------------------------------


JSON = {"content-type": "application/json"}
POSTS = ("estimate", "curve", "cross", "fit", "compare", "gguf")


def happened(path: str, monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """What goes wrong at a path, by the status of the answer."""
    guard = make_app()
    assert isinstance(guard, Guard)
    web, url, method = client(guard), f"/api/v1/{path}", "POST" if path in POSTS else "GET"
    kind = {"content-type": "application/octet-stream"} if path == "gguf" else JSON
    body: dict[str, Any] = next(iter(EXAMPLES.get(path, {"": {}}).values()))
    unknown = {**body, "subjects": [{"model": "no/such"}] * 2} if "subjects" in body else {**body, "model": "no/such"}
    sent = [
        web.request(method, url, content=b"{}", headers=[*kind.items(), ("origin", "a"), ("origin", "b")]),
        web.request(method, url, content=b"{}", headers={**kind, "host": "evil.example"}),
        web.request(method, url, content=b"{}", headers={**kind, "x": "a" * 16384}),
        web.request("PUT" if method == "POST" else "POST", url, content=b"{}", headers=kind),
        *([web.get(url), web.head(url), web.options(url), web.delete(url)] if method == "POST" else [web.patch(url)]),
    ]
    if method == "POST":
        huge = {**kind, "content-length": str(2**40)}
        sent += [web.post(url, content=b"", headers=huge), web.post(url, content=b"", headers={"content-type": "x/y"})]
        guard.running = security.MAX_AT_ONCE
        sent.append(web.post(url, content=b"{}", headers=kind))
        guard.running = 0
        with monkeypatch.context() as short:
            short.setattr(security, "BODY_SECONDS", 0.05)
            sent.append(late(guard, url, kind["content-type"]))
    if path == "gguf":
        header = QWEN | {"general.architecture": "no-such"}
        sent += [web.post(url, content=data, headers=kind) for data in (b"GGUF", encoded(header, tensors=()))]
    elif method == "POST":
        # llama.cpp has at most 256 sequences, and neither do two ranks share 3 heads nor three 32
        refused: dict[str, Any] = {"model": QWEN3, "engine": "llamacpp", "batch": 257}
        bare = {
            "model": "3gdn:1mha",
            "sizes": {"n_heads": 3, "emb_dim": 48},
            "engine": "vllm",
            "options": {"tensor_parallel_size": 2},
        }
        refused = {
            "cross": {"subjects": [bare, bare]},
            "curve": {**refused, "context": 10},
            "compare": {"subjects": [{k: bare[k] for k in ("model", "sizes", "options")}], "engine": "vllm"},
            "fit": {"model": QWEN3, "gpu": "H100", "tp": 3},
        }.get(path, refused)
        sent += [web.post(url, json=one) for one in ({"nonsense": 1}, unknown, refused)]
        sent.append(web.post(url, content=b"{", headers=kind))
    return {one.status_code: one for one in sent}


def late(app: ASGIApp, path: str, kind: str) -> Any:
    """The answer to a body that does not come."""
    from starlette.responses import Response

    sent: list[Message] = []

    async def never() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind.encode())]
    run(app({"type": "http", "method": "POST", "path": path, "headers": headers}, never, send))
    return Response(
        sent[1]["body"], sent[0]["status"], {name.decode(): word.decode() for name, word in sent[0]["headers"]}
    )


@pytest.mark.parametrize("path", [*POSTS, "models", "gpus", "engines"])
def test_the_document_has_the_statuses_that_happen(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    document = client(make_app()).get("/api/v1/openapi.json").json()
    (operation,) = document["paths"][f"/api/v1/{path}"].values()
    found = happened(path, monkeypatch)
    written = {int(status) for status in operation["responses"]} - {200}
    # More connections than are served: test_more_connections_than_are_served
    assert written - ({503} if path not in POSTS else set()) == set(found) - {200}
    kinds = document["components"]
    for status, response in found.items():
        (name,) = {operation["responses"][str(status)]["$ref"].rpartition("/")[2]}
        documented = kinds["responses"][name]
        assert response.headers["content-type"] == "application/problem+json"
        assert list(documented["content"]) == ["application/problem+json"]
        for header in documented.get("headers", {}):
            assert header in response.headers
        body = response.json() if hasattr(response, "json") else json.loads(response.body)
        Draft202012Validator(SHAPES["Problem"]).validate(body)
        assert body["status"] == status


def test_the_document_is_whole() -> None:
    """Every reference leads somewhere, operations read well, and answers and examples hold to their schemas."""
    document = client(make_app()).get("/api/v1/openapi.json").json()
    text = json.dumps(document)
    assert "HTTPValidationError" not in text
    for place in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        here = document
        for word in place.split("/"):
            here = here[word]
    names = [one["operationId"] for entry in document["paths"].values() for one in entry.values()]
    assert names == [
        "estimate", "curve", "cross", "fit", "compare", "shorten_gguf", "list_models", "list_gpus", "list_engines",
    ]  # fmt: skip
    for entry in document["paths"].values():
        for one in entry.values():
            content = one["responses"]["200"]["content"]["application/json"]
            validator = Draft202012Validator({**content["schema"], "components": document["components"]})
            assert content["examples"]
            for example in content["examples"].values():
                validator.validate(example["value"])


def test_another_method_is_told_those_that_there_are(web: TestClient) -> None:
    for method, path, status, allow in (
        ("GET", "/api/v1/estimate", 405, "POST"),
        ("HEAD", "/api/v1/fit", 405, "POST"),
        ("PUT", "/api/v1/gguf", 405, "POST"),
        ("POST", "/api/v1/models", 405, "GET, HEAD"),
        ("DELETE", "/api/v1/openapi.json", 405, "GET, HEAD"),
        ("POST", "/", 405, "GET, HEAD"),
        ("FOO", "/", 405, "GET, HEAD"),
        ("POST", "/nowhere", 404, None),
        ("POST", "/api/v1/nowhere", 404, None),
        ("GET", "/api/v1/", 404, None),
        ("HEAD", "/", 200, None),
        ("HEAD", "/api/v1/models", 200, None),
        ("HEAD", "/nowhere", 404, None),
    ):
        response = web.request(method, path)
        assert (response.status_code, response.headers.get("allow")) == (status, allow), (method, path)
        assert method != "HEAD" or not response.content
    assert web.get("/api/v1/estimate").json()["detail"] == "GET '/api/v1/estimate': expected POST"
    full, head = web.get("/"), web.head("/")
    assert head.headers["content-length"] == full.headers["content-length"] == str(len(full.content))


# -- what is no HTTP, and too many ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with soak().Server() as server:
        yield server.port


def said(port: int, data: bytes) -> tuple[int, dict[str, str], dict[str, Any]]:
    """What the server answers to bytes, before it ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        found = b"".join(iter(partial(connection.recv, 65536), b""))
    head, _, body = found.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), json.loads(body)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x00\xf4\x01\x00 a browser that speaks TLS\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nno colon\r\n\r\n", 400),
        (b"POST /api/v1/fit HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST /api/v1/fit HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 20000, 431),
        (b"x" * 20000, 431),
    ],
)  # fmt: skip
def test_what_is_no_http_is_a_problem_too(port: int, data: bytes, status: int) -> None:
    found, headers, body = said(port, data)
    assert (found, body["status"]) == (status, status)
    assert headers["content-type"] == "application/problem+json"
    for name, value in HEADERS.items():
        assert headers[name] == value.lower()
    Draft202012Validator(SHAPES["Problem"]).validate(body)


def test_a_body_that_breaks_off_is_a_problem(port: int) -> None:
    """A chunk without a length, after the request itself was taken."""
    head = b"POST /api/v1/fit HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    found, _, body = said(port, head + b"zz\r\n")
    assert (found, body["error"]) == (400, "BadRequest")


def test_a_body_that_is_not_read_ends_the_connection(port: int) -> None:
    data = b"PUT /api/v1/models HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
    found, headers, _ = said(port, data)
    assert (found, headers["allow"], headers["connection"]) == (405, "get, head", "close")


def test_more_connections_than_are_served(port: int) -> None:
    idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(CONNECTIONS)]
    try:
        time.sleep(0.3)
        found, headers, body = said(
            port, b"GET /api/v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
        assert (found, body["error"], headers["retry-after"]) == (503, "Busy", "1")
    finally:
        for one in idle:
            one.close()


# -- the command -----------------------------------------------------------------------------------------------------------------


def test_serve_answers_soon_and_stops() -> None:
    start = time.perf_counter()
    words = [sys.executable, "-m", "memcurve", "serve", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"memcurve \S+ at (http://127\.0\.0\.1:\d+/) \(Ctrl-C stops it\)\n", line)
        assert found, line
        with urllib.request.urlopen(found[1] + "api/v1/engines", timeout=20) as response:
            assert response.status == 200
            assert response.headers.get("server") is None
        # A second or two on a machine that is not busy
        assert time.perf_counter() - start < 10
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
        assert (process.returncode, out, errors) == (0, "stopped\n", "")


def test_serve_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadConfig, match=r"host: '0\.0\.0\.0'; others can reach it: expected --allow-host NAME"):
        cli.run(["serve", "--host", "0.0.0.0"])
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(BadConfig, match="expected a free one, such as --port 0"),
    ):
        cli.run(["serve", "--port", str(taken.getsockname()[1])])
    with pytest.raises(BadConfig, match="port: 70000; expected 0 to 65535"):
        cli.run(["serve", "--port", "70000"])
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'memcurve[web]'")):
        cli.run(["serve"])


def test_hosts_follow_from_the_address() -> None:
    assert serve.allowed("127.0.0.1", []) == ["127.0.0.1"]
    assert serve.allowed("::1", []) == ["[::1]"]
    assert serve.allowed("0.0.0.0", ["box"]) == ["box"]
    assert serve.allowed("192.168.1.5", ["box"]) == ["box", "192.168.1.5"]
    assert security.host_name("[::1]:80") == "[::1]"


def test_models_of_the_catalogue_have_kinds() -> None:
    rows: Any = schema.models_data("Qwen3-Next")["models"]
    assert [(row["type"], row["kinds"], row["dtype"]) for row in rows] == [
        ("qwen3_next", ["gated delta", "full attention"], "bfloat16")
    ]
