"""Soaks the web API: questions and broken requests from several threads over loopback, answers compared with Python.

python benchmarks/soak.py [requests]: memory of the server before and after, statuses, and how many answers were compared.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import memcurve
from memcurve import MemcurveError, catalog, schema
from memcurve.compare import row, to_data
from memcurve.engines import NAMES
from memcurve.model import catalogued

THREADS, WARM = 6, 300
PATHS = ("estimate", "curve", "cross", "fit", "compare", "gguf", "models", "engines", "nowhere")
JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    1e300,
    "",
    "x" * 300,
    "../../etc/passwd",
    [],
    {},
    [[]],
    "\u0000",
    "http://127.0.0.1/",
)


class Server:
    """`memcurve serve` in a process of its own."""

    def __init__(self) -> None:
        words = [sys.executable, "-m", "memcurve", "serve", "--port", "0"]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line.partition("127.0.0.1:")[2].partition("/")[0])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=10)

    def memory(self) -> int:
        """KiB that are resident."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def question(rng: random.Random) -> tuple[str, dict[str, Any]]:
    """A request that can be answered, or refused with a reason."""
    subject: dict[str, Any] = {"model": rng.choice(catalog.names()), "engine": rng.choice(NAMES), "dtype": "bf16"}
    batch = rng.choice((1, 2, 7, 64))
    match rng.randrange(11):
        case 0:
            other = {"model": rng.choice(catalog.names()), "engine": "logical", "dtype": "bf16"}
            return "cross", {"subjects": [subject, other], "batch": batch, "max_ctx": 2**20}
        case 1 | 2:
            return "fit", {**subject, "gpu": "H100 80GB", "gpus": rng.choice((1, 4, 8)), "batch": batch}
        case 3 | 4:
            return "curve", {**subject, "batch": batch, "memory": rng.choice((None, 2**34, 2**36))}
        case 5:
            gpu = rng.choice(({}, {"gpu": "H200", "gpus": 2}))
            models = [{"model": rng.choice(catalog.names()), "dtype": "bf16"} for _ in range(2)]
            return "compare", {"subjects": models, "engine": subject["engine"], **gpu}
    return "estimate", {**subject, "batch": batch, "contexts": rng.sample(range(1, 2**20), rng.choice((1, 3, 20)))}


def broken(rng: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """A request with something wrong in it: of the wrong kind, cut, too deep, too large, not JSON, from elsewhere."""
    path, body = question(rng)
    headers = {"Content-Type": "application/json"}
    where = body["subjects"][0] if "subjects" in body and rng.random() < 0.7 else body
    for _ in range(rng.randint(1, 3)):
        where[rng.choice([*where, "config", "gguf", "options", "sizes", "no_such"])] = rng.choice(JUNK)
    data = json.dumps(body).encode()
    match rng.randrange(8):
        case 0:
            data = data[: rng.randrange(len(data))]
        case 1:
            data = b'{"config":' + b"[" * rng.choice((40, 5000)) + b"]" * 40
        case 2:
            data = bytes(rng.randrange(256) for _ in range(200))
        case 3:
            headers |= {"Host": "evil.example"} if rng.random() < 0.5 else {"Origin": "http://evil.example"}
        case 4:
            header = b"GGUF" + bytes(rng.randrange(4) for _ in range(rng.randrange(400)))
            data = json.dumps({"gguf": base64.b64encode(header).decode(), "engine": "llamacpp"}).encode()
        case 5:
            path, headers = "gguf", {"Content-Type": "application/octet-stream"}
        case 6:
            data = data + b" " * (2**20 if rng.random() < 0.05 else 10)
    return rng.choice(("POST", "POST", "POST", "GET")), rng.choice((path, path, path, *PATHS)), data, headers


def expected(path: str, body: dict[str, Any]) -> object:
    """The same question put to Python: an answer, or the words of the error."""
    try:
        if path == "estimate":
            model = catalogued(body["model"])
            curve, encoder = model.curve(body["engine"], body["dtype"]), schema.encoder_of(model, None)
            return schema.estimate_data(model, curve, body["contexts"], body["batch"], encoder)
        if path == "fit":
            model = catalogued(body["model"])
            sizes = {name: body[name] for name in ("engine", "dtype", "gpu", "gpus", "batch")}
            return memcurve.fit(model, **sizes).to_dict()
        if path == "compare":
            device = {"gpu": body.get("gpu"), **({"gpus": body["gpus"]} if "gpus" in body else {})}
            rows = [
                row(catalogued(one["model"]), engine=body["engine"], dtype="bf16", **device) for one in body["subjects"]
            ]
            return to_data(rows)
    except MemcurveError as error:
        return " ".join(str(error).split())
    return None


def soak(requests: int, seed: int = 1) -> dict[str, Any]:
    """Statuses, answers compared, those that differ, and KiB of the server after a warm-up, halfway and at the end."""
    statuses: Counter[int] = Counter()
    wrong: list[str] = []
    compared = [0] * THREADS
    with Server() as server:

        def work(thread: int, count: int) -> None:
            rng = random.Random(f"{seed} {thread} {count}")
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            for number in range(count):
                if rng.random() < 0.4:
                    method, path, data, headers = broken(rng)
                    asked = None
                else:
                    path, asked = question(rng)
                    method, data, headers = "POST", json.dumps(asked).encode(), {"Content-Type": "application/json"}
                try:
                    connection.request(method, f"/api/v1/{path}", data, headers)
                    response = connection.getresponse()
                    text = response.read()
                except (ConnectionError, http.client.HTTPException):
                    # A body that is too large is answered before it is read; the connection ends.
                    connection.close()
                    statuses[0] += 1
                    continue
                statuses[response.status] += 1
                found = json.loads(text)
                if response.status >= 400 and set(found) != {"type", "title", "status", "detail", "error"}:
                    wrong.append(f"{path}: {text[:200]!r}")
                if asked is not None and number % 5 == 0 and (wanted := expected(path, asked)) is not None:
                    compared[thread] += 1
                    own = found["detail"] if response.status >= 400 else found
                    if own != (wanted[:1000] if isinstance(wanted, str) else json.loads(json.dumps(wanted))):
                        wrong.append(f"{path} {asked}: {text[:200]!r}")
            connection.close()

        def run(count: int) -> int:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(work, range(THREADS), [count // THREADS] * THREADS))
            return server.memory()

        memory = [run(min(WARM, requests)), run(requests // 2), run(requests - requests // 2)]
    return {"statuses": dict(sorted(statuses.items())), "compared": sum(compared), "wrong": wrong, "memory": memory}


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    start = time.perf_counter()
    found = soak(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    after, middle, end = found["memory"]
    print(f"statuses {found['statuses']} in {time.perf_counter() - start:.0f} s (0: the connection ended early)")
    print(f"{found['compared']} answers compared with Python, {len(found['wrong'])} wrong")
    print(
        f"server's memory: {after / 1024:.1f} MiB after a warm-up, {middle / 1024:.1f} halfway, {end / 1024:.1f} at the end"
    )
    for line in found["wrong"][:10]:
        print(line)
    sys.exit(bool(found["wrong"]) or any(status >= 500 and status != 503 for status in found["statuses"]))
