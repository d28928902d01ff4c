"""What a visitor gives the page and gets wrong: fields, links and files. It says so, and what it uses instead."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memcurve import catalog, load
from memcurve.engines import NAMES

from .conftest import Visit, shoot
from .helpers import CONFIG, DROP, FITS, NEXT, ONE, focused, settled, total, until, words

# -- fields -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "typed", "said"),
    [
        ("batch", "5000", "5000: expected 1 to 4,096 requests; 3 is still used"),
        ("batch", "x", "x: expected 1 to 4,096 requests; 3 is still used"),
        ("batch", "", "nothing: expected 1 to 4,096 requests; 3 is still used"),
        ("context", "9M", "9M: expected 1 to 8,388,608 tokens, such as 32768, 128k or 1M; 8,192 is still used"),
        ("context", "0", "0: expected 1 to 8,388,608 tokens, such as 32768, 128k or 1M; 8,192 is still used"),
        ("gpus", "65", "65: expected a whole number from 1 to 64; 2 is still used"),
        ("gpus", "2.4", "2.4: expected a whole number from 1 to 64; 2 is still used"),
    ],
)
def test_a_wrong_number_is_told_in_words(field: str, typed: str, said: str, server: str, visit: Visit) -> None:
    page = visit(server + FITS)
    before = page.locator(".card").inner_text()
    page.fill(f"#{field}", typed)
    page.keyboard.press("Tab")
    place = page.locator(f"#{field}-error")
    assert place.inner_text() == said
    assert place.get_attribute("role") == "alert"
    assert page.get_attribute(f"#{field}", "aria-invalid") == "true"
    assert page.get_attribute(f"#{field}", "aria-describedby") == f"{field}-error"
    assert page.locator(".card").inner_text() == before
    # Right again: the words go
    page.fill(f"#{field}", "1")
    page.keyboard.press("Tab")
    assert not place.is_visible()
    assert page.get_attribute(f"#{field}", "aria-invalid") == "false"


def test_a_field_left_wrong_shows_what_is_used(server: str, visit: Visit) -> None:
    page = visit(server + FITS)
    page.fill("#batch", "5000")
    page.keyboard.press("Tab")
    shoot(page, "wrong-number")
    page.focus("#context-slider")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#batch") == "3"
    assert not page.is_visible("#batch-error")


def test_memory_of_a_gpu_is_told_in_words_and_shown_exactly(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.select_option("#gpu", "bytes")
    settled(page)
    page.fill("#memory", "lots")
    page.keyboard.press("Tab")
    said = "lots: expected a size such as 79.6GiB, at most 1 PiB; 80.00 GiB is still used"
    assert page.locator("#memory-error").inner_text() == said
    page.fill("#memory", "25769803777")
    page.keyboard.press("Tab")
    settled(page)
    page.reload()
    page.wait_for_selector(".card .stack")
    # 24 GiB and a byte, which 24.00 GiB is not
    assert page.input_value("#memory") == "25,769,803,777 B"
    assert "--gpu-memory 25769803777" in words(page)[1]


# -- links --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "said", "fields"),
    [
        ("b=5000", "b=5000: expected 1 to 4,096 requests; 1 is used", {"#batch": "1"}),
        ("c=8M1", "c=8M1: expected 1 to 8,388,608 tokens, such as 32768, 128k or 1M; 32,768 is used", {"#context": "32,768"}),
        ("e=nope", "e=nope: expected one of logical, transformers, vllm, sglang, llamacpp, mlx, all; vllm is used", {"#engine": "vllm"}),
        ("d=wat", "d=wat: expected one of float32, bfloat16, float16, float8_e4m3fn, int8; the config's own is used", {"#dtype": ""}),
        ("g=H9000", "g=H9000: not among the GPUs listed here; none is used", {"#gpu": ""}),
        ("g=H100+80GB&n=4&tp=3", "tp=3: expected a divisor of n=4: 1, 2, 4; as many as fit are used", {"#tp": "0"}),
        ("g=H100+80GB&n=65", "n=65: expected a whole number from 1 to 64; 1 is used", {"#gpus": "1"}),
        ("tp=2", "tp=2: no GPU beside it; not used", {}),
        ("g=H100+80GB&e=llamacpp&n=2&tp=2", "tp=2: not of engine llamacpp; not used", {}),
        ("g=H100+80GB&mem=1024", "mem=1024: beside g=H100 80GB; the GPU's own is used", {"#gpu": "H100 80GB"}),
        ("m=Qwen/Qwen3-8B", "m: a model is given more than once; it is shown once", {}),
        ("b=2&b=4", "b: given 2 times; the first is used", {"#batch": "2"}),
        ("log=zz", "log=zz: expected x, y, xy or nothing; xy is used", {}),
        ("x=1", "x: no word of a link; not used", {}),
    ],
)  # fmt: skip
def test_what_of_a_link_is_not_understood_is_told(
    link: str, said: str, fields: dict[str, str], server: str, visit: Visit
) -> None:
    page = visit(f"{server}#m=Qwen/Qwen3-8B&{link}")
    assert page.locator("#problem").inner_text() == f"Not all of the link was understood. {said}."
    assert page.is_visible("#problem")
    assert {key: page.input_value(key) for key in fields} == fields
    assert page.locator(".card").count() == 1
    assert total(page) > 0
    # The page's own next link is right, and nothing is left to say
    page.focus("#context-slider")
    page.keyboard.press("ArrowRight")
    until(page, "link => !location.hash.endsWith(link)", link)
    assert not page.is_visible("#problem")
    again = visit(page.url)
    assert not again.is_visible("#problem")


def test_a_link_of_many_faults_names_each(server: str, visit: Visit) -> None:
    page = visit(server + "#m=Qwen/Qwen3-8B&m=Qwen/Qwen3-8B&e=nope&d=wat&b=5000&g=H100+80GB&n=4&tp=3&c=4096")
    text = page.locator("#problem").inner_text()
    assert [word in text for word in ("m: ", "e=nope", "d=wat", "b=5000", "tp=3")] == [True] * 5
    assert page.input_value("#context") == "4,096"
    shoot(page, "wrong-link")


def test_short_names_of_dtypes_are_taken(server: str, visit: Visit) -> None:
    page = visit(server + "#m=Qwen/Qwen3-8B&d=fp32&b=1")
    assert page.input_value("#dtype") == "float32"
    assert not page.is_visible("#problem")


def test_the_sites_links_are_read_alike(site: str, visit: Visit) -> None:
    page = visit(site + "#m=Qwen/Qwen3-8B&b=5000&mem=80GiB")
    text = page.locator("#problem").inner_text()
    assert "b=5000" in text
    assert "mem=80GiB: this page has the listed GPUs alone; none is used" in text


# -- files --------------------------------------------------------------------------------------------------------------


def test_files_of_one_name_stand_side_by_side(server: str, visit: Visit) -> None:
    page = visit(server + "#m=Qwen/Qwen3-8B&e=logical&c=1024&b=1")
    page.evaluate(DROP, ["config.json", json.dumps(CONFIG)])
    until(page, "document.querySelectorAll('.total').length === 2")
    page.evaluate(DROP, ["config.json", json.dumps({**CONFIG, "num_hidden_layers": 8})])
    until(page, "document.querySelectorAll('.total').length === 3")
    # 4 and 8 layers × 1,024 tokens × 2 heads × 64 × 2 (key and value) × 2 B
    assert (total(page, 1), total(page, 2)) == (4 * 1024 * 512, 8 * 1024 * 512)
    assert page.locator("#chosen li span").all_inner_texts() == ["Qwen/Qwen3-8B", "config.json", "config.json (2)"]
    assert page.locator(".card h3").all_inner_texts() == ["Qwen/Qwen3-8B", "config.json", "config.json (2)"]
    assert "Several files here are called config.json" in page.locator("#commands").inner_text()
    # The same file again is the same
    page.evaluate(DROP, ["config.json", json.dumps(CONFIG)])
    page.wait_for_timeout(300)
    assert page.locator("#chosen li").count() == 3
    shoot(page, "files-of-one-name")


@pytest.mark.parametrize("name", ["-O x.json", "--help.json", "a@b.json", "it's.json", "config.txt"])
def test_a_file_of_any_name_gives_a_command_that_runs(
    name: str, server: str, visit: Visit, tmp_path: Any, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    import shlex

    from memcurve.cli import run

    (tmp_path / name).write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    page = visit(server + "#m=Qwen/Qwen3-8B&e=vllm&c=1000&b=3")
    page.set_input_files("#file", str(tmp_path / name))
    until(page, "document.querySelectorAll('.total').length === 2")
    page.get_by_role("button", name="Remove Qwen/Qwen3-8B").click()
    until(page, "document.querySelectorAll('.total').length === 1")
    (estimate,) = words(page)
    assert run([*shlex.split(estimate)[1:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == total(page)
    (drawn,) = words(page, 1)
    assert run(shlex.split(drawn)[1:]) == 0
    assert (tmp_path / "curves.html").stat().st_size > 1000


def test_a_config_with_infinity_is_taken(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    text = json.dumps({**CONFIG, "time_step_limit": [0.0, float("inf")], "about": 'an "Infinity" and NaN'})
    assert "Infinity]" in text
    page.evaluate(DROP, ["config.json", text])
    until(page, "document.querySelectorAll('.total').length === 2")
    assert total(page, 1) == 4 * 8192 * 512 * 3
    page.evaluate(DROP, ["broken.json", '{"a": Infinit}'])
    until(page, "document.getElementById('file-error').textContent.includes('not JSON')")


# -- the static page's dtypes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", NAMES)
def test_a_dtype_that_changes_nothing_may_be_named_on_the_site(engine: str, site: str, visit: Visit) -> None:
    page = visit(f"{site}#m=Qwen/Qwen3-8B&e={engine}&g=H100+80GB&c=5000&b=2")
    before = total(page)
    text = page.locator(".card .facts").inner_text()
    assert load("Qwen/Qwen3-8B").dtype == "bfloat16"
    page.select_option("#dtype", "bfloat16")
    settled(page)
    assert total(page) == before
    assert page.locator(".card .facts").inner_text() == text
    assert page.locator(".card .why").count() == 0


def test_all_engines_with_a_dtype_on_the_site(site: str, visit: Visit) -> None:
    page = visit(f"{site}#m=LiquidAI/LFM2-1.2B&e=all&d=bf16&c=4096&b=1")
    model = load("LiquidAI/LFM2-1.2B")
    assert [total(page, place) for place in range(len(NAMES))] == [
        model.curve(one, "bf16").bytes(4096) for one in NAMES
    ]


# -- keys ---------------------------------------------------------------------------------------------------------------


def test_tab_leaves_the_search_for_the_next_control(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.focus("#search")
    assert page.is_visible("#found")
    page.keyboard.press("Tab")
    assert focused(page) == "Remove Qwen/Qwen3-8B"
    assert not page.is_visible("#found")
    page.keyboard.press("Shift+Tab")
    assert focused(page) == "search"


def test_what_the_search_finds_is_said(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.focus("#search")
    page.keyboard.type(NEXT)
    until(page, "document.getElementById('status').textContent === '1 model found'")
    page.keyboard.type("no such")
    until(page, "document.getElementById('status').textContent === '0 models found'")


def test_published_configs_are_found_before_presets(server: str, visit: Visit) -> None:
    page = visit(server + ONE)
    page.focus("#search")
    page.keyboard.type("qwen3")
    names = [text.split("\n")[0] for text in page.locator("#found li").all_inner_texts()]
    presets = [catalog.fidelity(name) == "preset" for name in names]
    assert presets == sorted(presets)
    assert names[0].startswith("Qwen/Qwen3")


def test_a_pattern_on_a_gpu_says_that_it_has_no_weights(server: str, visit: Visit) -> None:
    # Without an error on the console
    page = visit(server + "#m=3gdn:1mha&e=vllm&g=H100+80GB&n=2&c=4096&b=1")
    assert "a pattern has no weights" in page.locator(".card .why").inner_text()
    assert page.locator(".total").inner_text().endswith("of state on each GPU")


def test_every_models_command_is_there(server: str, visit: Visit) -> None:
    page = visit(server + "#m=Qwen/Qwen3-8B&e=all&c=5000&b=1")
    page.get_by_text("3 more", exact=True).click()
    text = page.locator("#commands").inner_text()
    for engine in NAMES:
        assert f"memcurve estimate Qwen/Qwen3-8B --engine {engine} --context 5000" in " ".join(text.split())
    shown = page.locator("#commands pre").last.evaluate("block => block.textContent")
    scope: dict[str, Any] = {"found": []}
    exec(
        shown.replace("curve.bytes(", "found += [curve.bytes(").replace("batch=1)", "batch=1)]"), scope
    )  # its own lines
    assert scope["found"] == [total(page, place) for place in range(len(NAMES))]
