"""The page in Chromium: its numbers, its link, by mouse, by keys and by a screen reader's tree."""

from __future__ import annotations

import json
import re
import shlex
import time
from typing import Any

import pytest

from memcurve import fit, load, pattern
from memcurve.cli import run

from .conftest import SHOTS, Visit, shoot
from .helpers import CONFIG, DROP, FITS, NEXT, ONE, focused, settled, total, until, words

# -- numbers ------------------------------------------------------------------------------------------------------------


def test_the_first_picture_comes_at_once(server: str, visit: Visit, count: Any) -> None:
    visit(server)
    page = visit(server)
    ready = page.evaluate("performance.getEntriesByName('memcurve-render')[0].startTime")
    count(f"page: first picture after {ready:.0f} ms")
    assert ready < 3000  # 1 s on an idle machine


def test_the_page_shows_what_the_library_says(server: str, visit: Visit) -> None:
    page = visit(server + FITS)
    found = fit("Qwen/Qwen3-8B", gpu="H100 80GB", gpus=2, tp=2, context=8192, batch=3)
    assert total(page) == found.per_gpu.state_bytes
    text = page.locator(".card").inner_text()
    for size in (found.per_gpu.weights_bytes, found.per_gpu.reserve_bytes, found.per_gpu.free_bytes):
        assert f"{size:,} B" in text
    assert f"{found.max_requests:,}, bound by {found.bound_by}" in text
    assert f"{found.max_context:,} tokens" in text
    assert "Fits: 3 requests of 8,192 tokens" in text
    page.click(".stage summary")
    text = page.locator(".stage .notes").inner_text()
    assert [f"{one.name}: {one.bytes:,} B" in text for one in found.per_gpu.allowances] == [True] * len(
        found.per_gpu.allowances
    )
    # And at another place, without another question
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.fill("#context", "32k")
    page.press("#context", "Enter")
    page.fill("#batch", "400")
    page.press("#batch", "Enter")
    until(page, "document.querySelector('.verdict').textContent.includes('400')")
    found = fit("Qwen/Qwen3-8B", gpu="H100 80GB", gpus=2, tp=2, context=32768, batch=400)
    assert total(page) == found.per_gpu.state_bytes
    text = page.locator(".card").inner_text()
    assert f"{-found.per_gpu.free_bytes:,} B" in text
    assert "Does not fit" in text
    assert f"{found.max_requests:,}, bound by {found.bound_by}" in text
    assert asked == []


def test_every_engine_at_once(server: str, visit: Visit) -> None:
    page = visit(server + "#m=Qwen/Qwen3-8B&e=all&c=5000&b=1")
    expected = [load("Qwen/Qwen3-8B").curve(engine).bytes(5000) for engine in ("logical", "transformers", "vllm", "sglang", "llamacpp")]  # fmt: skip
    assert [total(page, place) for place in range(5)] == expected
    shoot(page, "engines")


@pytest.mark.parametrize("source", ["server", "site"])
def test_a_state_without_a_gpu_is_told_by_its_parts(source: str, request: pytest.FixtureRequest, visit: Visit) -> None:
    page = visit(request.getfixturevalue(source) + f"#m={NEXT}&m=Qwen/Qwen3-8B&e=vllm&c=5000&b=1")
    card = page.locator(".card").first
    sizes = [int(text.replace(",", "")) for text in re.findall(r"([\d,]+) B\b", card.locator(".parts").inner_text())]
    curve = load(NEXT).curve("vllm")
    # The sentence of --explain: tokens and states fill so much, and so much is padding
    found = re.search(r"states fill ([\d,]+) B, ([\d,]+) B", curve.explain(5000))
    assert found
    kv, states, padding = sizes
    # 12 layers × 5,000 tokens × (key, value) of 2 heads × 256 × 2 B
    assert kv == 12 * 5000 * 2 * 2 * 256 * 2
    assert [f"{kv + states:,}", f"{padding:,}"] == [found[1], found[2]]
    assert kv + states + padding == curve.bytes(5000)
    # What has one part is its total alone; blocks of 16 tokens hold 8 more than 5,000
    other = page.locator(".card").nth(1).locator(".parts").inner_text()
    assert f"{8 * 147_456:,} B" in other
    page.fill("#context", "5008")
    page.press("#context", "Enter")
    until(page, "document.querySelectorAll('.card')[1].querySelector('.parts').closest('.scroll').hidden")


def test_forced_colours_keep_a_bars_parts_apart(server: str, visit: Visit) -> None:
    page = visit(server + FITS, forced_colors="active")
    colours = page.evaluate("[...document.querySelectorAll('.stack i.weights, .stack i.kv, .key.weights, .key.kv')].map(one => getComputedStyle(one).backgroundColor)")  # fmt: skip
    assert len(set(colours)) == 2
    shoot(page, "forced-colours")


def test_the_commands_give_the_same(server: str, visit: Visit, capsys: pytest.CaptureFixture[str]) -> None:
    page = visit(server + FITS)
    estimate, fits = words(page)
    assert run([*shlex.split(estimate)[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == total(page)
    assert run([*shlex.split(fits)[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["per_gpu"]["state_bytes"] == total(page)
    python = page.locator("#commands pre").last.evaluate("block => block.textContent")
    scope: dict[str, Any] = {}
    exec(python.replace("curve.bytes", "found = curve.bytes"), scope)  # the page's own lines
    assert scope["found"] == total(page)
    # llama.cpp's context is one for all
    page = visit(server + "#m=Qwen/Qwen3-8B&e=llamacpp&c=1000&b=4")
    (estimate,) = words(page)
    assert run([*shlex.split(estimate)[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == total(page)


def test_a_pattern_and_crossings(server: str, visit: Visit) -> None:
    page = visit(server + "#m=3gdn:1mha&m=48mha&e=logical&c=4096&b=1&log=xy")
    assert total(page) == pattern("3gdn:1mha").curve(dtype="bf16").bytes(4096)
    page.wait_for_selector("#crossings li, #crossings .hint")
    page.wait_for_selector("#figure .ring")
    import memcurve

    one, other = (pattern(text).curve(dtype="bf16") for text in ("3gdn:1mha", "48mha"))
    (crossing,) = memcurve.crossings(one, other)
    assert f"from {crossing:,} tokens on 3gdn:1mha" in page.locator("#crossings").inner_text()


def test_a_slider_answers_at_once(server: str, visit: Visit, count: Any) -> None:
    page = visit(server + f"#m={NEXT}&m=Qwen/Qwen3-8B&m=meta-llama/Meta-Llama-3.1-70B&m=openai/gpt-oss-20b&e=vllm&g=H100+80GB&n=4&c=8192&b=3", errors="404")  # fmt: skip
    page.evaluate("performance.clearMeasures()")
    for slider in ("#batch-slider", "#context-slider"):
        page.focus(slider)
        for _ in range(12):
            page.keyboard.press("ArrowRight")
            page.wait_for_timeout(40)
    took = page.evaluate(
        "['memcurve-change', 'memcurve-render'].map(name => performance.getEntriesByName(name).map(one => one.duration))"
    )
    assert len(took[0]) == 24
    middle, most = ([sorted(one)[place] for one in took] for place in (12, 21))
    count(
        f"page: a slider's answer with four models after {sum(middle):.0f} ms in the middle, {sum(most):.0f} ms in nine of ten"
    )
    assert sum(most) < 50


# -- the link -----------------------------------------------------------------------------------------------------------


def test_the_link_restores_everything(server: str, visit: Visit) -> None:
    page = visit(server + FITS)
    fields = {"#engine": "vllm", "#gpu": "H100 80GB", "#gpus": "2", "#tp": "2", "#context": "8,192", "#batch": "3"}
    assert {key: page.input_value(key) for key in fields} == fields
    assert page.is_checked("#logx")
    assert page.is_checked("#logy")
    before = total(page)
    page.focus("#context-slider")
    page.keyboard.press("ArrowRight")
    until(page, "location.hash.includes('c=10240')")
    assert total(page) != before
    again = visit(page.url)
    assert total(again) == total(page)


def test_the_back_button_goes_back_a_choice(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    first = total(page)
    page.select_option("#engine", "sglang")
    settled(page)
    page.select_option("#dtype", "float32")
    settled(page)
    assert "d=float32" in page.url
    page.go_back()
    settled(page)
    assert page.input_value("#dtype") == ""
    assert page.input_value("#engine") == "sglang"
    page.go_back()
    settled(page)
    assert page.input_value("#engine") == "vllm"
    assert total(page) == first
    page.go_forward()
    settled(page)
    assert page.input_value("#engine") == "sglang"


def test_a_broken_link_says_so(server: str, visit: Visit) -> None:
    page = visit(server + "#m=Qwen/Qwen3-8B&e=vllm&g=H9000&n=x&c=-1&b=1e9&log=zz")
    assert "H9000" in page.locator("#problem").inner_text()
    assert page.input_value("#context") == "32,768"
    page = visit(server + "#m=Qwen/Qwen3-8B&m=no/such&e=vllm&c=100&b=1", errors="404")
    assert "no/such" in page.locator(".card").nth(1).locator(".error").inner_text()


def test_nothing_chosen_is_no_error(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.click("#chosen button")
    settled(page)
    assert page.locator(".card").count() == 0
    assert "Choose a model" in page.locator("#commands").inner_text()
    page.fill("#search", "3gdn:1mha")
    page.press("#search", "Enter")
    until(page, "document.querySelectorAll('.card').length === 1")


# -- files --------------------------------------------------------------------------------------------------------------


def test_a_config_is_dropped(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.evaluate(DROP, ["mine.json", json.dumps(CONFIG)])
    until(page, "document.querySelectorAll('.total').length === 2")
    # 4 layers × 8,192 tokens × 2 heads × 64 × 2 (key and value) × 2 B × 3 sequences
    assert total(page, 1) == 4 * 8192 * 2 * 64 * 2 * 2 * 3
    # A file is no part of a link
    page.reload()
    page.wait_for_selector(".card .error")
    assert "drop it here again" in page.locator(".card .error").inner_text()


def test_names_are_text(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    name = "<img src=x onerror=alert(1)>"
    page.evaluate(DROP, [f"{name}.json", json.dumps({**CONFIG, "_name_or_path": name})])
    until(page, "document.querySelectorAll('.total').length === 2")
    assert page.locator("img").count() == 0
    assert name in page.locator("#chosen").inner_text()


def test_what_is_no_config_says_so(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    for name, text, said in (
        ("a.json", "{", "not JSON"),
        ("b.json", "[]", "not an object"),
        ("c.bin", "x" * (1 << 21), "at most 1 MiB"),
    ):
        page.evaluate(DROP, [name, text])
        until(page, "word => document.getElementById('file-error').textContent.includes(word)", said)
    assert page.locator(".card").count() == 1


def test_a_gguf_header_is_chosen(server: str, visit: Visit, tmp_path: Any) -> None:
    import struct

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    metadata = {
        "block_count": 4,
        "context_length": 4096,
        "embedding_length": 512,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
    }
    pairs = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    pairs += [text(f"llama.{key}") + struct.pack("<II", 4, value) for key, value in metadata.items()]
    pairs.append(
        text("tokenizer.padding") + struct.pack("<I", 8) + text("x" * (3 << 19))
    )  # a header of more than 1 MiB
    pairs.append(text("tokenizer.end") + struct.pack("<II", 4, 1))
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs)) + b"".join(pairs)
    path = tmp_path / "small.gguf"
    path.write_bytes(header + b"\0" * (8 << 20))
    page = visit(server + "#m=Qwen/Qwen3-8B&e=llamacpp&c=1024&b=1", errors="422")
    sent: list[int] = []
    page.on(
        "request",
        lambda request: sent.append(len(request.post_data_buffer or b"")) if request.url.endswith("gguf") else None,
    )
    page.set_input_files("#file", str(path))
    until(page, "document.querySelectorAll('.total').length === 2")
    # 4 layers × 1,024 cells × 2 heads × 64 × 2 (key and value) × 2 B
    assert total(page, 1) == 4 * 1024 * 2 * 64 * 2 * 2
    assert sent == [1 << 20, 4 << 20]


# -- keys ---------------------------------------------------------------------------------------------------------------


def test_by_keys_alone(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.wait_for_timeout(300)
    assert page.locator(".skip").bounding_box()["y"] >= 0
    for _ in range(2):
        page.keyboard.press("Tab")
    assert focused(page) == "search"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.type("qwen3-next")
    page.wait_for_selector("#found li[aria-selected=true]")
    assert page.get_attribute("#search", "aria-expanded") == "true"
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.card').length === 2")
    assert NEXT in page.locator("#chosen").inner_text()
    reached = []
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.append(focused(page))
    controls = [
        "file",
        "engine",
        "dtype",
        "gpu",
        "context",
        "context-slider",
        "batch",
        "batch-slider",
        "logx",
        "logy",
        "figure",
        "readout",
    ]
    assert [name for name in reached if name in controls][: len(controls)] == controls
    page.focus("#context-slider")
    before = total(page)
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('context').value === '10,240'")
    page.wait_for_timeout(50)
    assert total(page) > before
    assert page.get_attribute("#context-slider", "aria-valuetext") == "10,240 tokens"
    until(page, "document.getElementById('status').textContent.startsWith('At 10,240 tokens, batch 3.')")
    page.focus("#figure")
    page.keyboard.press("ArrowRight")
    assert "tokens: Qwen/Qwen3-8B" in page.get_attribute("#figure", "aria-valuetext")
    assert "(pointed at)" in page.locator("#readout caption").inner_text()
    page.keyboard.press("+")
    assert page.is_visible("#whole")
    page.keyboard.press("0")
    assert not page.is_visible("#whole")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('context').value === '1'")
    page.get_by_role("button", name="Remove Qwen/Qwen3-8B").focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('.card').length === 1")
    assert focused(page) == f"Remove {NEXT}"


def test_the_figure_by_mouse(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    box = page.locator("#figure").bounding_box()
    x, y = box["x"] + 400, box["y"] + 100
    page.mouse.move(x, y)
    caption = page.locator("#readout caption").inner_text()
    at = int(re.findall(r"At ([\d,]+)", caption)[0].replace(",", ""))
    shown = int(page.locator("#readout td span").nth(1).inner_text().split()[0].replace(",", ""))
    assert shown == load("Qwen/Qwen3-8B").curve("vllm").bytes(at, 3)
    page.mouse.wheel(0, -200)
    page.wait_for_selector("#whole:not([hidden])")
    page.click("#whole")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y, steps=4)
    page.mouse.up()
    assert page.is_visible("#whole")
    page.mouse.dblclick(x, y)
    assert not page.is_visible("#whole")
    page.mouse.click(x, y)
    until(page, "document.getElementById('context').value !== '8,192'")


def test_copy_and_theme(server: str, visit: Visit) -> None:
    page = visit(server + ONE, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#commands button").first.click()
    until(page, "document.querySelector('#commands button').textContent === 'Copied'")
    assert page.evaluate("navigator.clipboard.readText()").startswith(
        "memcurve estimate Qwen/Qwen3-8B --engine vllm --context 8192 --batch 3"
    )
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.reload()
    page.wait_for_selector("#figure polyline")
    assert page.get_attribute("#theme", "aria-pressed") == "true"


# -- files alone --------------------------------------------------------------------------------------------------------


def test_a_config_without_a_dtype_needs_one(site: str, server: str, visit: Visit) -> None:
    assert load("LiquidAI/LFM2-1.2B").dtype is None
    for address in (site, server):
        page = visit(address + "#m=Qwen/Qwen3-8B&m=LiquidAI/LFM2-1.2B&e=logical&c=4096&b=1", errors="422")
        assert "dtype: missing" in page.locator(".card .error").inner_text()
        page.select_option("#dtype", "bfloat16")
        settled(page)
        assert total(page, 1) == load("LiquidAI/LFM2-1.2B").curve(dtype="bf16").bytes(4096)
        assert words(page, 1) == [
            "memcurve estimate LiquidAI/LFM2-1.2B --engine logical --dtype bfloat16 --context 4096"
        ]


def test_the_site_answers_without_python(site: str, visit: Visit) -> None:
    page = visit(site + FITS)
    found = fit("Qwen/Qwen3-8B", gpu="H100 80GB", gpus=2, tp=2, context=8192, batch=3)
    assert total(page) == found.per_gpu.state_bytes
    text = page.locator(".card").inner_text()
    assert f"{found.per_gpu.free_bytes:,} B" in text
    assert f"{found.max_requests:,}, bound by {found.bound_by}" in text
    assert f"{found.max_context:,} tokens" in text
    page.select_option("#dtype", "float32")
    settled(page)
    assert "run memcurve itself" in page.locator(".card .error").inner_text()
    assert (
        "memcurve fit Qwen/Qwen3-8B --engine vllm --dtype float32 --gpu 'H100 80GB' --gpus 2 --tp 2" in words(page)[1]
    )
    page.select_option("#dtype", "")
    page.fill("#gpus", "3")
    page.press("#gpus", "Tab")
    settled(page)
    assert "run memcurve itself" in page.locator(".card").inner_text()
    page.evaluate(DROP, ["config.json", json.dumps(CONFIG)])
    page.wait_for_selector("#file-error:not([hidden])")
    assert "memcurve fit ./config.json" in page.locator("#file-error").inner_text()


# -- the exported page --------------------------------------------------------------------------------------------------


def test_the_exported_page(exported: str, visit: Visit) -> None:
    page = visit(exported)
    assert page.title() == "four <curves>"
    assert page.locator("#figure polyline").count() == 4
    page.locator("#readout input").first.uncheck()
    assert page.locator("#figure polyline").count() == 3
    page.select_option("#gpu", label="RTX 4090 (23.52 GiB)")
    assert "RTX 4090: 23.52 GiB" in page.locator("#figure").text_content()
    page.fill("#memory", "2GiB")
    page.press("#memory", "Tab")
    assert "memory: 2.00 GiB" in page.locator("#figure").text_content()
    page.uncheck("#logx")
    page.focus("#figure")
    page.keyboard.press("End")
    rows = page.locator("#readout tbody tr")
    expected = load(NEXT).curve("vllm", "bf16").bytes(131072, 2)
    assert f"{expected:,} B" in rows.first.inner_text()
    assert f"{expected:,}" in page.locator("#table").inner_text()
    said = page.locator("#crossings").inner_text()
    assert "from 433 tokens on Qwen/Qwen3-Next-80B-A3B-Thinking takes less than meta-llama/Meta-Llama-3.1-70B" in said
    assert "from 5,457 tokens on, after 3 crossings from 5,169 on, Qwen/Qwen3-Next-80B-A3B-Thinking takes less" in said
    page.emulate_media(media="print")
    assert not page.is_visible("#theme")
    assert page.is_visible("#table")


# -- for everyone -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("what", ["server", "site", "exported"])
def test_axe_finds_nothing_serious(
    what: str, scheme: str, width: int, visit: Visit, axe: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(what)
    link = (
        "" if what == "exported" else "#m=Qwen/Qwen3-8B&m=openai/gpt-oss-20b&e=vllm&g=RTX+4090&n=1&c=8192&b=30&log=xy"
    )
    page = visit(address + link, width=width, scheme=scheme, errors="404")
    page.evaluate(axe)
    if what != "exported":
        page.click("#numbers summary")
        page.focus("#search")
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        (one["id"], node["html"][:200])
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
    assert serious == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.skipif(not SHOTS, reason="MEMCURVE_SCREENSHOTS names no folder")
@pytest.mark.parametrize("width", [360, 900, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots(width: int, scheme: str, server: str, site: str, exported: str, visit: Visit) -> None:
    for name, address in (("served", server), ("files", site), ("exported", exported)):
        page = visit(address, width=width, scheme=scheme, errors="404")
        page.wait_for_timeout(600)
        shoot(page, f"{name}-{width}-{scheme}")
        if name == "served":
            page.goto(server + "#m=Qwen/Qwen3-8B&e=vllm&g=RTX+4090&n=1&c=40000&b=30&log=xy")
            page.wait_for_timeout(600)
            shoot(page, f"lacking-{width}-{scheme}")


def test_time_is_not_wasted(server: str, visit: Visit) -> None:
    begin = time.perf_counter()
    page = visit(server + ONE)
    for name in ("sglang", "vllm", "sglang"):
        page.select_option("#engine", name)
        settled(page)
    assert time.perf_counter() - begin < 20
