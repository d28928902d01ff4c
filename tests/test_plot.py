"""Figures: what is drawn where, read from Matplotlib's own objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import memcurve
from memcurve import catalog, load
from memcurve.export import corners, make_subjects
from memcurve.figures import plot_seed
from memcurve.seed import LABELS, subjects


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
