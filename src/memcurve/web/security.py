"""What every request goes through before the app sees it, and every answer after: hosts, origins, sizes, numbers, headers."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from ..base import show
from ..config import MAX_DEPTH

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY, MAX_HEADER = 2**20, 2**25  # of JSON; of a GGUF file's first bytes
MAX_LEVELS = MAX_DEPTH + 4  # a config of MAX_DEPTH levels in a request
MAX_AT_ONCE, RAW_COUNTS = 16, 4  # requests; a GGUF header counts as so many
BODY_SECONDS, HEADER_BYTES = 15, 16384
JSON_TYPE, BYTES_TYPE = "application/json", "application/octet-stream"
RAW = "/api/v1/gguf"  # takes bytes, all others JSON
PROBLEM_TYPE = "application/problem+json"
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}


class Denied(Exception):
    """A request that goes no further: its status, kind and why."""

    def __init__(self, status: int, error: str, detail: str) -> None:
        self.status, self.error, self.detail = status, error, detail


def problem(status: int, error: str, detail: str) -> dict[str, Any]:
    """Problem details by RFC 9457."""
    line = " ".join("".join(char if char.isprintable() else " " for char in detail).split())
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": line[:1000], "error": error}


class Guard:
    """The app behind its checks. hosts: names by which a browser may reach it, without ports; taking: paths that take a body."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], taking: Collection[str]) -> None:
        self.app, self.hosts = app, frozenset(host.lower() for host in (*LOOPBACK, *hosts))
        self.taking = frozenset(taking)
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        send, counts = sealed(send, scope["method"]), 0
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        try:
            headers = self.admitted(scope)
            if scope["method"] == "POST" and scope["path"] in self.taking:
                if self.running >= MAX_AT_ONCE:
                    raise Denied(503, "Busy", f"{MAX_AT_ONCE} requests at once; expected fewer: try again in a second")
                counts = RAW_COUNTS if scope["path"] == RAW else 1
                self.running += counts
                body = await read_body(scope["path"], headers, receive)
                receive = replayed(body, receive)
            await self.app(scope, receive, send)
        except Denied as denied:
            await answer(denied, send)
        finally:
            self.running -= counts

    def admitted(self, scope: Scope) -> dict[str, str]:
        """The request's headers. Denied where its host or its origin is not the server's own, as after DNS rebinding."""
        pairs = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(pairs)
        if sum(len(name) + len(value) for name, value in pairs) > HEADER_BYTES:
            raise Denied(431, "TooLarge", f"headers: more than {HEADER_BYTES:,} bytes; expected fewer")
        for name in ("host", "origin", "content-type", "content-length"):
            if sum(key == name for key, _ in pairs) > 1:
                raise Denied(400, "BadRequest", f"{name}: given twice; expected it once")
        host = headers.get("host", "").lower()
        if host_name(host) not in self.hosts:
            raise Denied(
                403, "Forbidden",
                f"host: {show(host)}; expected one of {', '.join(sorted(self.hosts))} (memcurve serve --allow-host NAME)",
            )  # fmt: skip
        origin = headers.get("origin")
        if (
            scope["method"] not in ("GET", "HEAD")
            and origin is not None
            and origin.lower() not in (f"http://{host}", f"https://{host}")
        ):
            raise Denied(403, "Forbidden", f"origin: {show(origin)}; expected the page of this server")
        return headers


def sealed(send: Send, method: str) -> Send:
    """A send that puts the headers of every answer on it. One to HEAD has no body; where a body was not read, the connection ends."""

    async def on(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [pair for pair in message.get("headers", ()) if pair[0].decode().lower() not in HEADERS]
            close = [(b"connection", b"close")] * (method not in ("GET", "HEAD") and message["status"] in (404, 405))
            message["headers"] = [*own, *close, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        elif method == "HEAD":
            message = {**message, "body": b""}
        await send(message)

    return on


def host_name(host: str) -> str:
    """A Host header without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isascii() and port.isdigit() else host


async def read_body(path: str, headers: dict[str, str], receive: Receive) -> bytes:
    """The whole body, of the right kind, within its size, depth and time."""
    wanted, most = (BYTES_TYPE, MAX_HEADER) if path == RAW else (JSON_TYPE, MAX_BODY)
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != wanted:
        raise Denied(415, "BadRequest", f"content-type: {show(kind)}; expected {wanted}")
    if "content-encoding" in headers:
        raise Denied(415, "BadRequest", f"content-encoding: {show(headers['content-encoding'])}; expected none")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 12 or int(length) > most):
        raise Denied(413, "TooLarge", f"body: {length[:20]} bytes; expected at most {most:,}")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Denied(400, "BadRequest", "body: the connection ended; expected the rest")
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > most:
                    raise Denied(413, "TooLarge", f"body: more than {most:,} bytes; expected at most so many")
    except TimeoutError:
        raise Denied(408, "BadRequest", f"body: not there after {BODY_SECONDS} s; expected it at once") from None
    if wanted == JSON_TYPE:
        check_json(bytes(body))
    return bytes(body)


def check_json(body: bytes) -> None:
    """Denied for what is no JSON by RFC 8259 in UTF-8, and for one nested too deeply."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number")

    try:
        data = json.loads(body.decode(), parse_constant=refuse)
    except RecursionError:
        raise Denied(400, "BadConfig", f"body: nested too deeply; expected at most {MAX_LEVELS} levels") from None
    except ValueError as error:
        raise Denied(400, "BadConfig", f"body: not JSON ({str(error)[:80]})") from None
    level, deep = [data], 0
    while level:
        deep += 1
        if deep > MAX_LEVELS:
            raise Denied(400, "BadConfig", f"body: nested too deeply; expected at most {MAX_LEVELS} levels")
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list)))
        level = [one for many in inner for one in many]


def replayed(body: bytes, receive: Receive) -> Receive:
    """A receive that hands out a body which was read before."""
    waiting = [body]

    async def again() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return again


async def answer(denied: Denied, send: Send) -> None:
    body = json.dumps(problem(denied.status, denied.error, denied.detail)).encode()
    headers = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode())]
    if denied.status == 503:
        headers.append((b"retry-after", b"1"))
    if denied.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": denied.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
