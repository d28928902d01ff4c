"""Chromium, the page from a server, from files and exported, and what must hold of every visit."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = (
    os.environ.get("CHROMIUM")
    or shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync"
).split()  # fmt: skip
# A folder for screenshots, if any are wanted.
SHOTS = os.environ.get("MEMCURVE_SCREENSHOTS")
MODELS = [
    "Qwen/Qwen3-Next-80B-A3B-Thinking",
    "Qwen/Qwen3-8B",
    "meta-llama/Meta-Llama-3.1-70B",
    "openai/gpt-oss-20b",
    "LiquidAI/LFM2-1.2B",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Of a module, not of the session: Playwright keeps an event loop running, which other tests can't have."""
    if CHROMIUM is None:
        pytest.skip("chromium is not here")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """memcurve serve, on a free port of this machine."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with subprocess.Popen(
        [sys.executable, "-m", "memcurve", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        yield next(word for word in line.split() if word.startswith("http://"))
        process.terminate()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page as files, of some models, behind a server of files."""
    from memcurve import catalog
    from memcurve.site import write_site

    folder, names = tmp_path_factory.mktemp("site"), catalog.names
    catalog.names = lambda: MODELS
    try:
        write_site(folder)
    finally:
        catalog.names = names
    served = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}/"
    served.shutdown()
    thread.join()
    served.server_close()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page that plot writes, of four curves."""
    from memcurve import load
    from memcurve.export import make_subjects, to_html

    curves = [load(name).curve("vllm", "bf16") for name in MODELS[:4]]
    path = tmp_path_factory.mktemp("export") / "curves.html"
    path.write_text(to_html(make_subjects(curves), [128, 131072], 2, "four <curves>", "xy"))
    return path.as_uri()


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """Opens a page; at the end no request has left this machine, and nothing was said on the console but what a test expects."""
    contexts: list[Any] = []
    said: list[str] = []
    asked: list[str] = []
    expected: list[str] = []

    def go(
        address: str, *, width: int = 1400, height: int = 900, scheme: str = "light", errors: str = "", **options: Any
    ) -> Any:
        if errors:
            expected.append(errors)
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.wait_for_selector("#figure polyline")
        page.wait_for_selector("body:not([aria-busy])")
        return page

    yield go
    for context in contexts:
        context.close()
    assert [text for text in said if not any(word in text for word in expected)] == []
    hosts = {urlparse(url).hostname for url in asked if urlparse(url).scheme not in ("file", "data", "blob")}
    assert hosts <= {"127.0.0.1"}


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of axe-core, of AXE or from npm."""
    given = os.environ.get("AXE")
    if given:
        return Path(given).read_text()
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "axe-core@4"], capture_output=True, timeout=120, check=False
    )  # fmt: skip
    if done.returncode:
        pytest.skip("npm could not fetch axe-core")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


def shoot(page: Any, name: str) -> None:
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(SHOTS) / f"{name}.png"), full_page=True)
