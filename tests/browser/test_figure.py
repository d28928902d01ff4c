"""The figure of the page and of its export: steps, labels, memory, reading it, and on paper."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memcurve.cli import run
from memcurve.gpus import gpu

from .conftest import MODELS, Visit, shoot
from .helpers import ONE, until

PIECES = """() => [...document.querySelectorAll("#figure polyline")].map(
  (line) => line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number)))"""
RINGS = """() => [...document.querySelectorAll("#figure circle.ring")].map(
  (ring) => [ring.querySelector("title").textContent, Number(ring.getAttribute("cx")), Number(ring.getAttribute("cy"))])"""
LABELS = """() => Object.fromEntries([...document.querySelectorAll("#figure svg text")].map((text) => {
  const { x, y, width, height } = text.getBBox();
  return [text.textContent, [x, y, x + width, y + height]];
}))"""


@pytest.mark.parametrize(("log", "zoom"), [("xy", 0), ("x", 7), ("y", 17), ("", 17), ("", 20)])
@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
def test_steps_are_upright(engine: str, log: str, zoom: int, server: str, visit: Visit) -> None:
    page = visit(f"{server}#m=Qwen/Qwen3-8B&e={engine}&c=1000&b=1&log={log}")
    page.focus("#figure")
    for _ in range(zoom):
        page.keyboard.press("+")
    # Its bytes go in steps alone, of cells of 256 and blocks of 16: what rises by some pixels does it upright
    (points,) = page.evaluate(PIECES)
    rises = [(b[0] - a[0], a[1] - b[1]) for a, b in pairwise(points) if a[1] - b[1] > 3]
    assert all(across <= 0.11 for across, _ in rises)
    seen = zoom != 17 or engine == "llamacpp"  # steps of more than 3 pixels
    assert len(rises) >= (3 if seen else 0)
    shoot(page, f"steps-{engine}-{log or 'plain'}-{zoom}")


def test_labels_stand_beside_their_own_crossings(exported: str, visit: Visit) -> None:
    page = visit(exported)
    labels = page.evaluate(LABELS)
    rings = {re.findall(r"[\d,]+", title)[0]: (x, y) for title, x, y in page.evaluate(RINGS)}
    assert {"433", "1,057", "5,169", "5,457"} <= set(labels)

    def gap(box: list[float], point: tuple[float, float]) -> float:
        return max(box[0] - point[0], point[0] - box[2], box[1] - point[1], point[1] - box[3], 0)

    for text, box in labels.items():
        own = rings[text]
        for other, point in rings.items():
            if max(abs(point[0] - own[0]), abs(point[1] - own[1])) > 6:
                assert gap(box, point) > gap(box, own), f"{text} is nearer to {other}"
    # Of the two that are close each is on the outer side
    assert labels["5,169"][2] < rings["5,169"][0]
    assert labels["5,457"][0] > rings["5,457"][0]


def test_one_token_is_one(server: str, visit: Visit) -> None:
    # From the first token on 1gdn's state of 16 × 128 × 128 × 4 B is more than 1mha's 16 × 128 × 2 × 2 B
    page = visit(server + "#m=1mha&m=1gdn&e=logical&c=1&b=1&log=xy")
    page.wait_for_selector("#crossings li")
    for place in ("#crossings", "#readout", "#answers"):
        assert not re.search(r"\b1 tokens", page.locator(place).inner_text())
    assert not re.search(r"\b1 tokens", page.locator("#figure").text_content())
    assert "At 1 token, 1 request" in page.locator("#readout").inner_text()


def test_reading_by_keys_is_announced(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.focus("#figure")
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('status').textContent === document.getElementById('figure').getAttribute('aria-valuetext')")  # fmt: skip
    said = page.locator("#status").inner_text()
    assert re.fullmatch(r"[\d,]+ tokens: Qwen/Qwen3-8B [\d.]+ GiB", said)
    # The pointer is not: it would talk all the time
    box = page.locator("#figure").bounding_box()
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.wait_for_timeout(600)
    assert page.locator("#status").inner_text() == said


# -- the export ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What plot writes, of four curves and three amounts of memory."""
    path = tmp_path_factory.mktemp("drawn") / "x.html"
    words = ["--engine", "vllm", "--dtype", "bf16", "--batch", "2", "--log", "xy"]
    assert run(["plot", *MODELS[:4], *words, "--gpu", "H100", "--gpu", "L4", "--memory", "60GiB", "-o", str(path)]) == 0
    return path


def test_the_export_is_one_small_file(drawn: Path, tmp_path: Path) -> None:
    from memcurve import catalog

    text = drawn.read_text()
    assert len(text) < 1_500_000
    assert not re.search(r"""(src|href)=["'](?!#)""", text)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")
    assert "default-src 'none'" in text
    large = tmp_path / "large.html"
    assert run(["plot", *catalog.names()[:50], "--engine", "transformers", "--dtype", "bf16", "-o", str(large)]) == 0
    assert large.stat().st_size < 1_500_000


def test_lines_at_memory(drawn: Path, visit: Visit) -> None:
    page = visit(drawn.as_uri())
    wanted = {"H100 80GB: 79.11 GiB", "L4: 22.03 GiB", "memory: 60.00 GiB"}
    assert gpu("H100").memory_bytes / 2**30 == pytest.approx(79.11, abs=0.005)
    boxes: dict[str, Any] = page.evaluate("""() => Object.fromEntries([...document.querySelectorAll("#figure text.memory")].map((text) => {
      const { x, y, width, height } = text.getBBox();
      return [text.textContent, [x, y + 3, x + width, y + height - 3]];
    }))""")  # fmt: skip
    assert set(boxes) == wanted
    lines = page.evaluate("[...document.querySelectorAll('#figure line.memory')].map(line => Number(line.getAttribute('y1')))")  # fmt: skip
    assert len(lines) == 3
    # No line runs through a label
    assert [y for y in lines for box in boxes.values() if box[1] < y < box[3]] == []
    page.get_by_label("H100 80GB: 79.11 GiB").uncheck()
    assert page.locator("#figure line.memory").count() == 2
    page.fill("#memory", "lots")
    page.keyboard.press("Tab")
    said = "lots: expected a size such as 60GiB, at most 1 PiB; no line is drawn"
    assert page.locator("#memory-error").inner_text() == said
    page.select_option("#gpu", label="RTX 4090 (23.52 GiB)")
    assert not page.is_visible("#memory-error")
    assert page.locator("#figure line.memory").count() == 3


def test_the_export_reads_aloud_and_its_table_stands_beneath(drawn: Path, visit: Visit) -> None:
    page = visit(drawn.as_uri())
    page.focus("#figure")
    page.keyboard.press("End")
    until(page, "document.getElementById('status').textContent.startsWith('131,072 tokens: Qwen')")
    assert page.locator("#table thead th").all_inner_texts() == ["tokens", *MODELS[:4]]
    assert page.locator("#table tbody th[scope=row]").last.inner_text() == "131,072"


def test_the_export_on_paper(tmp_path: Path, visit: Visit) -> None:
    from memcurve import catalog

    path = tmp_path / "x.html"
    assert run(["plot", *catalog.names()[:20], "--dtype", "bf16", "--log", "xy", "-o", str(path)]) == 0
    # As wide as A4 without its margins, at 96 px an inch
    page = visit(path.as_uri(), width=680, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_timeout(100)
    tables = page.locator("#table table")
    assert tables.count() == 4
    for place in range(4):
        box = tables.nth(place).bounding_box()
        assert box["x"] + box["width"] <= 681
    assert not page.is_visible("#memory")
    # A page breaks within what is longer than one, instead of leaving the first page empty
    assert page.evaluate("[...document.querySelectorAll('.panel')].map(one => getComputedStyle(one).breakInside)") == ["auto"] * 3  # fmt: skip
