"""Figures: what is drawn where, read from Matplotlib's own objects."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text

import memcurve
from memcurve import Refused, catalog, load
from memcurve.crossed import find_crossings, in_runs, span
from memcurve.export import corners, make_subjects, page_data, to_html
from memcurve.figures import plot_seed
from memcurve.fits import most_batch
from memcurve.heat import map_csv, map_json, scale
from memcurve.model import describe
from memcurve.seed import LABELS, subjects
from memcurve.terms import compile_expr


def xs(line: Line2D) -> list[float]:
    found: list[float] = np.asarray(line.get_xdata()).tolist()
    return found


def test_lines_run_through_exact_breakpoints() -> None:
    curve = load("openai/gpt-oss-20b").curve("transformers", "bf16")
    figure = memcurve.plot([curve], max_ctx=8192)
    assert isinstance(figure, Figure)
    line = figure.axes[0].lines[0]
    assert xs(line) == [128, 8192]  # the window's edge, 127, lies below
    figure = memcurve.plot(curve, min_ctx=0, max_ctx=8192)
    line = figure.axes[0].lines[0]
    assert xs(line) == [0, 127, 8192]
    assert np.asarray(line.get_ydata()).tolist() == [curve.bytes(t) / 2**20 for t in (0, 127, 8192)]
    assert figure.axes[0].get_ylabel() == "Sequence state (MiB)"
    assert figure.axes[0].get_title() == "engine transformers · bf16 · batch 1"


def test_a_crossing_is_marked_with_its_context() -> None:
    # T × 16 × 128 × 2 × 2 B against 16 × 128 × 128 × 4 B: level at 128, more from 129 on
    full = memcurve.pattern("1mha", n_layers=1).curve(dtype="bf16")
    delta = memcurve.pattern("1gdn", n_layers=1, conv_kernel=0).curve(dtype="bf16")
    assert memcurve.crossings(full, delta) == [129]
    axes = memcurve.plot([full, delta], min_ctx=1, max_ctx=1000).axes[0]
    assert [text.get_text() for text in axes.texts] == ["129"]
    assert xs(axes.lines[2]) == [129]


def test_fifty_subjects_can_be_told_apart() -> None:
    curves = [load(name).curve(dtype="bf16") for name in catalog.names()[:50]]
    figure = memcurve.plot(curves, log="xy")
    lines = [line for line in figure.axes[0].lines if line.get_label() in {curve.name for curve in curves}]
    looks = {
        (to_hex(line.get_color()), str(line.get_linestyle()), str(getattr(line, "_unscaled_dash_pattern", "")))
        for line in lines
    }
    assert len(lines) == len(looks) == 50
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == 50


def test_names_say_what_differs() -> None:
    model = load("Qwen/Qwen3-8B")
    names = [s.name for s in make_subjects([model.curve(), model.curve("transformers"), model.curve("transformers")])]
    assert names == ["Qwen/Qwen3-8B · logical", "Qwen/Qwen3-8B · transformers", "Qwen/Qwen3-8B · transformers (2)"]
    names = [s.name for s in make_subjects([model.curve(), model.curve(dtype="fp8")])]
    assert names == ["Qwen/Qwen3-8B · bf16", "Qwen/Qwen3-8B · fp8"]


def test_a_staircase_is_drawn_with_its_steps() -> None:
    (subject,) = make_subjects([load("deepseek-ai/DeepSeek-V4-Flash").curve(dtype="bf16")])
    assert {127, 128, 255, 256} <= set(corners(subject, 0, 1000, 1))


def test_the_seeds_figure(tmp_path: Path) -> None:
    contexts = list(range(128, 131_073, 100))
    figure = plot_seed(subjects(2048, 16, 48, "bf16"), contexts, 1)
    axes = figure.axes[0]
    assert figure.get_size_inches().tolist() == [7.0, 4.5]
    assert axes.get_xlabel() == "Context length (number of tokens)"
    assert axes.get_ylabel() == "KV cache size (GB)"
    assert [line.get_label() for line in axes.lines] == list(LABELS)
    # 48 × 131,028 × 16 × 128 × 2 × 2 B in GB of 10⁹ at the last sample
    assert xs(axes.lines[0])[-1] == 131_028
    assert np.asarray(axes.lines[0].get_ydata())[-1] == pytest.approx(48 * 131_028 * 8192 / 1e9)


def test_figures_are_the_same_bytes_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memcurve.cli import run

    monkeypatch.setattr("memcurve.figures.hurry", lambda: None)  # the collector stays on in this process
    for name in ("a.svg", "b.svg", "a.pdf", "b.pdf"):
        run(["plot", "3gdn:1mha", "1mha", "-o", str(tmp_path / name)])
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()


def test_engines_of_one_model_overlaid(tmp_path: Path) -> None:
    from memcurve.cli import run

    words = [
        "plot",
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        "--engine",
        "all",
        "--max_ctx",
        "2k",
        "-o",
        str(tmp_path / "a.svg"),
    ]
    assert run(words) == 0
    text = (tmp_path / "a.svg").read_text()
    for engine in ("logical", "transformers", "vllm", "sglang", "llamacpp"):
        assert text.count(f"· {engine} ·") == 1


# -- steps ------------------------------------------------------------------------------------------------------------


def drawn(figure: Figure, index: int = 0) -> list[tuple[float, float]]:
    line = figure.axes[0].lines[index]
    return list(zip(xs(line), np.asarray(line.get_ydata()).tolist(), strict=True))


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
def test_steps_are_upright_and_where_they_are(log: str) -> None:
    curve = load("openai/gpt-oss-20b").curve("llamacpp", "bf16")
    points = drawn(memcurve.plot([curve], min_ctx=1, max_ctx=3000, log=log))
    rises = [(a, b) for a, b in pairwise(points) if b[1] > a[1]]
    # A cell is one of 256 for the whole context: 12 pages, so 11 steps, at 257, 513, …
    assert [b[0] for _, b in rises] == list(range(257, 3000, 256))
    assert all(a[0] == b[0] for a, b in rises)
    for x, y in points:
        below = curve.bytes(int(x)) / 2**20, curve.bytes(int(x) - 1 if x > 1 else 1) / 2**20
        assert y in (pytest.approx(below[0]), pytest.approx(below[1]))


@pytest.mark.parametrize("engine", ["logical", "transformers", "vllm", "sglang", "llamacpp"])
@pytest.mark.parametrize("log", [False, True])
def test_between_corners_a_curve_is_straight_or_too_fine_to_show(engine: str, log: bool) -> None:
    for name in ("openai/gpt-oss-20b", "deepseek-ai/DeepSeek-V4-Flash", "google/gemma-3-27b-it"):
        (subject,) = make_subjects([load(name).curve(engine, "bf16")])
        low, high, most = 1, 20_000, 2000
        found = corners(subject, low, high, 1, log, most)
        assert (found[0], found[-1]) == (low, high)
        assert len(found) <= 2 * most
        # Half of them at least are as wide as any that is left
        width = (np.log(high / low) if log else high - low) / (most / 4)
        values = subject.curve.bytes(np.arange(high + 1))
        for a, b in pairwise(found):
            if (np.log(b / a) if log else b - a) > width:
                line = values[a] + (values[b] - values[a]) * (np.arange(a, b + 1) - a) / (b - a)
                assert np.abs(values[a : b + 1] - line).max() < 1


def test_contexts_that_an_engine_refuses_are_not_drawn() -> None:
    curve = load("openai/gpt-oss-20b").curve("llamacpp", "bf16")
    # n_ctx of 0 would be the trained context, and eight sequences need eight tokens
    assert drawn(memcurve.plot([curve], min_ctx=0, max_ctx=300, batch=8))[0][0] == 8


def test_memory_is_drawn_as_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memcurve.cli import run

    curve = load("Qwen/Qwen3-8B").curve()
    # 36 layers × 131,072 tokens × 8 heads × 128 × 2 (key and value) × 2 B are 18 GiB: the axis is in GiB
    axes = memcurve.plot(curve, memory={"small": 2**30, "large": 24 * 2**30}).axes[0]
    lines = {str(line.get_label()): np.asarray(line.get_ydata()).tolist() for line in axes.lines[1:]}
    assert lines == {"small: 1.00 GiB": [1, 1], "large: 24.00 GiB": [24, 24]}
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["Qwen/Qwen3-8B", *lines]
    assert axes.get_ylim()[1] > 24
    assert [str(line.get_label()) for line in memcurve.plot(curve, memory=2**30).axes[0].lines[1:]] == [
        "memory: 1.00 GiB"
    ]
    with pytest.raises(memcurve.BadConfig, match="memory: -1; expected"):
        memcurve.plot(curve, memory=-1)
    monkeypatch.setattr("memcurve.figures.hurry", lambda: None)
    target = tmp_path / "a.svg"
    assert run(["plot", "Qwen/Qwen3-8B", "--gpu", "H100", "--gpu", "L4", "--memory", "60GiB", "-o", str(target)]) == 0
    text = target.read_text()
    assert [word in text for word in ("H100 80GB: 79.11 GiB", "L4: 22.03 GiB", "memory: 60.00 GiB")] == [True] * 3


def test_a_subject_may_have_an_at_in_its_name() -> None:
    from memcurve.cli.plot import parted

    for text, name, tail in (
        ("a/b", "a/b", ""),
        ("a/b@engine=vllm,dtype=bf16", "a/b", "engine=vllm,dtype=bf16"),
        ("./a@b.json@engine=vllm", "./a@b.json", "engine=vllm"),
        ("./a@b.json", "./a@b.json", ""),
        ("a/b@label=x@y", "a/b", "label=x@y"),
        ("a/b@main", "a/b@main", ""),
    ):
        assert parted(text) == (name, tail)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_stand_apart_and_name_their_points() -> None:
    # Constant curves of d, d + 1, … sequences' worth against one line: crossings as close as they come
    full = memcurve.pattern("1mha", n_layers=1).curve(dtype="bf16")
    flat = [
        memcurve.pattern("1gdn", n_layers=n, conv_kernel=0).curve(dtype="bf16").replace(name=f"{n}") for n in (8, 9)
    ]
    figure = memcurve.plot([full.replace(name="full"), *flat], min_ctx=1, max_ctx=100_000)
    axes = figure.axes[0]
    # T × 8,192 B against n × 1,048,576 B: level at 128 n
    assert sorted(text.get_text() for text in axes.texts) == ["1,025", "1,153"]
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the point
    assert not boxes[0].overlaps(boxes[1])
    for text in axes.texts:
        assert isinstance(text, Annotation)
        context, value = text.xy
        assert text.get_text() == f"{context:,.0f}"
        assert value * 2**20 == full.bytes(int(context)) or value * 2**20 == (context - 1) // 128 * 1_048_576


def test_labels_stand_on_the_outer_sides_of_crossings_that_are_close() -> None:
    # T × 8,192 B against n × 1,048,576 B, in a corner of the figure: from 128 n + 1 tokens on
    full = memcurve.pattern("1mha", n_layers=1).curve(dtype="bf16").replace(name="full")
    flat = [memcurve.pattern("1gdn", n_layers=n, conv_kernel=0).curve(dtype="bf16").replace(name=f"{n}") for n in (8, 9, 10, 12)]  # fmt: skip
    figure = memcurve.plot([full, *flat], min_ctx=1, max_ctx=20_000)
    figure.draw_without_rendering()
    places = {text.get_text(): (text, figure.axes[0].transData.transform(text.xy)) for text in figure.axes[0].texts if isinstance(text, Annotation)}  # fmt: skip
    assert set(places) == {"1,025", "1,153", "1,281", "1,537"}
    middles = {name: Text.get_window_extent(text).x0 + Text.get_window_extent(text).width / 2 - x for name, (text, (x, _)) in places.items()}  # fmt: skip
    # Left of the first or straight at it, right of the last, and straight above or below those between
    assert middles["1,025"] < 3
    assert middles["1,537"] > -3
    assert max(abs(middles["1,153"]), abs(middles["1,281"])) < 3


@pytest.mark.parametrize("name", ["a\x1b[31m\x07b\u202e", "half \ud800", "$\\frac{$", "_hidden", "<b>&amp;"])
def test_any_name_is_text_in_any_figure(name: str, tmp_path: Path) -> None:
    from xml.dom.minidom import parse

    from memcurve.bars import draw
    from memcurve.heat import heatmap

    model = describe(catalog.find("Qwen/Qwen3-8B") or {}, name)
    curves = [model.curve(), memcurve.pattern("1gdn").curve(dtype="bf16").replace(name=name)]
    fitted = memcurve.fit(model, gpu="L4", context=8192)
    figures = {"lines": memcurve.plot(curves), "heat": heatmap(curves[0]), "bars": draw(fitted)}
    shown = name.replace("\x1b", "�").replace("\x07", "�").replace("\u202e", "�").replace("\ud800", "�")
    for kind, figure in figures.items():
        figure.savefig(tmp_path / f"{kind}.svg")
        parse(str(tmp_path / f"{kind}.svg"))
        where = [one.get_text() for one in figure.findobj(Text)]
        assert any(shown in text.replace(r"\$", "$") for text in where), kind
    page = to_html(make_subjects(curves), [1, 64], 1, "t").encode()
    assert b"\x1b" not in page


def test_many_crossings_get_numbers_and_a_table() -> None:
    full = memcurve.pattern("1mha", n_layers=1).curve(dtype="bf16").replace(name="full")
    flat = [memcurve.pattern("1gdn", n_layers=n, conv_kernel=0).curve(dtype="bf16").replace(name=f"flat {n}") for n in range(1, 31)]  # fmt: skip
    figure = memcurve.plot([full, *flat[:20]], min_ctx=1, max_ctx=4000)
    (table,) = (text.get_text() for text in figure.texts)
    assert table.splitlines()[0].split() == "1 129: flat 1 below full".split()
    assert len(table.splitlines()) == 20
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert {"1", "20"} <= labels
    figure = memcurve.plot([full, *flat], min_ctx=1, max_ctx=4000)
    assert [text.get_text() for text in figure.texts] == ["30 places where curves cross; memcurve cross lists them"]
    assert not figure.axes[0].texts


def test_stairs_that_swap_step_by_step_are_one_run() -> None:
    model = load("google/gemma-3-27b-it")
    both = make_subjects([model.curve("llamacpp", "bf16"), model.curve("vllm", "bf16")])
    crossings = find_crossings(both, 1, 0, 3000)
    assert [one.context for one in crossings] == memcurve.crossings(both[0].curve, both[1].curve, until=3000)
    for one in crossings:
        assert one.cheaper.curve.bytes(one.context) < one.dearer.curve.bytes(one.context)
    (run,) = in_runs(crossings, 1)
    assert len(run) == len(crossings) > 5
    assert span(run) == f"{run[0].context:,} to {run[-1].context:,} ({len(run)}×)"


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_all_it_needs_to_compute_every_byte() -> None:
    model = load("deepseek-ai/DeepSeek-V4-Flash")
    for subject in make_subjects([model.curve(engine, "bf16") for engine in ("transformers", "vllm", "llamacpp")]):
        data = json.loads(json.dumps(page_data(subject, 3)))
        terms = [(int(weight), compile_expr(numbers(slots))) for weight, slots in data["terms"]]
        for context in (data["first"], 127, 128, 129, 5000, 131_072):
            if context >= data["first"]:
                assert sum(weight * slots(context, 3, 0) for weight, slots in terms) == subject.curve.bytes(context, 3)
    page = to_html(make_subjects([model.curve("vllm", "bf16"), model.curve("llamacpp", "bf16")]), [1, 4096], 1, "a & b")
    assert "<title>a &amp; b</title>" in page
    assert "<li>" in page
    assert "{{" not in page


def numbers(data: Any) -> Any:
    if isinstance(data, list):
        return (data[0], numbers(data[1]), numbers(data[2]))
    return int(data) if data.isdigit() else data


# -- the map ----------------------------------------------------------------------------------------------------------


def test_a_map_is_exact_at_each_cell() -> None:
    curve = load("openai/gpt-oss-20b").curve("llamacpp", "bf16")
    contexts, batches = scale(128, 4096), scale(1, 512)
    assert contexts == [128, 256, 512, 1024, 2048, 4096]
    data = json.loads(map_json(curve, contexts, batches, 10**9))
    rows = list(csv.reader(map_csv(curve, contexts, batches).splitlines()))
    assert rows[0] == ["batch", *map(str, contexts)]
    for batch, row, cells in zip(batches, data["bytes"], rows[1:], strict=True):
        # More sequences than tokens, or than 256, are refused
        expected = [curve.bytes(t, batch) if batch <= min(t, 256) else None for t in contexts]
        assert row == expected
        assert cells == [str(batch), *("" if size is None else str(size) for size in expected)]
    assert data["bounds"] == {"batch": {"name": "n_seq_max", "most": 256}, "context": {"name": "trained context", "most": 131072}}  # fmt: skip
    for context, most in zip(contexts, data["max_batch"], strict=True):
        fits = [n for n in range(1, min(context, 256) + 1) if curve.bytes(context, n) <= 10**9]
        assert most == max(fits)


def test_the_edge_of_a_map_is_the_pools() -> None:
    model = load("Qwen/Qwen3-Next-80B-A3B-Thinking")
    sglang, vllm = model.curve("sglang"), model.curve("vllm", max_num_seqs=100)
    for context in (128, 32_768, 200_000):
        assert most_batch(sglang, 20 * 2**30, context) == sglang.pool(20 * 2**30).binding(context)
    assert most_batch(sglang, 20 * 2**30, 128)[1] == "state slots"
    # 20 GiB // 14,155,776 B = 1,517 blocks, one of them empty; a request's bytes say its blocks
    for context, why in ((128, "max_num_seqs"), (32_768, "tokens")):
        blocks = vllm.bytes(context) // 14_155_776
        assert most_batch(vllm, 20 * 2**30, context) == (min(1516 // blocks, 100), why)
    assert most_batch(vllm, 20 * 2**30, 262_145) == (0, "max_model_len")
    with pytest.raises(Refused, match="To serve at least one request"):
        memcurve.heatmap(vllm, memory=2**30)


def test_a_map_draws_edge_bounds_and_sizes() -> None:
    curve = load("Qwen/Qwen3-Next-80B-A3B-Thinking").curve("vllm")
    axes = memcurve.heatmap(curve, memory=20 * 2**30, max_ctx=2**19, max_batch=2048).axes[0]
    assert {text.get_text() for text in axes.texts} >= {"max_model_len 262,144", "max_num_seqs 1,024"}
    (line,) = (
        line for line in axes.lines if line.get_label() == "the edge of what fits 20 GiB, and of what the engine takes"
    )
    contexts = scale(128, 2**19, 24)
    for index in (0, 100, 200):
        number, _ = most_batch(curve, 20 * 2**30, contexts[index])
        assert number is not None
        # The edge runs between the last that fits and the next
        assert number < np.asarray(line.get_ydata())[index] < number + 1
    axes = memcurve.heatmap(load("Qwen/Qwen3-8B").curve()).axes[0]
    assert {"1 GiB", "64 GiB"} <= {text.get_text() for text in axes.texts}


def test_the_map_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from memcurve.cli import run

    monkeypatch.setattr("memcurve.figures.hurry", lambda: None)
    for ending in ("png", "svg", "json", "csv"):
        target = tmp_path / f"map.{ending}"
        assert (
            run(["plot", "Qwen/Qwen3-8B", "--heatmap", "--memory", "60GiB", "--max_ctx", "8k", "-o", str(target)]) == 0
        )
        assert target.stat().st_size > 500
    for words, message in (
        (["mha", "gqa", "--heatmap"], "subjects: 2; expected one"),
        (["mha", "--heatmap", "-o", "a.html"], "expected a name that ends in one of .pdf, .svg, .png, .csv"),
        (["mha", "--heatmap", "--batch", "2"], "batch: a map has its own"),
        (["mha", "--heatmap", "--gpu", "H100"], "gpu: 'H100'; expected --memory"),
        (["mha", "--memory", "60GiB", "-o", "a.csv"], "csv has no lines at memory; expected pdf, svg, png or html"),
        (["mha", "--gpu", "H9000"], "H9000"),
        (["mha", "--heatmap", "--engine", "all"], "expected one engine"),
    ):
        with pytest.raises(memcurve.BadConfig, match=message):
            run(["plot", *words])
