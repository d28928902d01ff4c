"""Speeds as ratios within one run, for machines that are shared and noisy.

    python benchmarks/bench.py [runs]

Whole processes are timed in turn, A B A B …; the median of the pairs' ratios is printed.
"""

from __future__ import annotations

import compileall
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from statistics import median

import numpy as np
from baseline_plot import attention

import memcurve
from memcurve import load

HERE = Path(__file__).parent
QWEN = "Qwen/Qwen3-Next-80B-A3B-Thinking"


def seconds(command: list[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - start


def processes(title: str, ours: list[str], theirs: list[str], runs: int, limit: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds(ours, folder), seconds(theirs, folder)
        pairs = [(seconds(ours, folder), seconds(theirs, folder)) for _ in range(runs)]
    ratio = median(a / b for a, b in pairs)
    a, b = (1e3 * median(side) for side in zip(*pairs, strict=True))
    print(f"{title:<58} {ratio:6.2f} ×  (at most {limit}; {a:.1f} ms against {b:.1f} ms)")


def main() -> None:
    compileall.compile_dir(
        Path(memcurve.__file__).parent, quiet=1
    )  # as pip does; some environments forbid it on import
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 21
    program = str(Path(sys.executable).parent / "memcurve")
    estimate = [program, "estimate", QWEN, "--context", "131072", "--json"]
    processes(
        "cold estimate of a catalogue model / python -c pass", estimate, [sys.executable, "-c", "pass"], runs, 3.0
    )
    baseline = [sys.executable, str(HERE / "baseline_plot.py"), "baseline.pdf"]
    processes("memcurve plot / the script it grew from", [program, "plot"], baseline, max(3, runs // 3), 0.8)

    curve = load(QWEN).curve()
    ours = min(timeit.repeat(lambda: curve.bytes(131_072), number=20_000, repeat=5)) / 20_000
    theirs = min(timeit.repeat("sum(range(100))", number=20_000, repeat=5)) / 20_000
    print(
        f"{'warm curve.bytes of Qwen3-Next / sum(range(100))':<58} {ours / theirs:6.2f} ×  (at most 5; {1e9 * ours:.0f} ns)"
    )

    contexts = np.arange(128, 1_310_730)
    ours = min(timeit.repeat(lambda: curve.bytes(contexts), number=3, repeat=5)) / 3 / len(contexts) / len(curve.terms)
    few = [int(t) for t in contexts[::1000]]
    theirs = (
        min(timeit.repeat(lambda: [attention(1, t, 2048, 48, 2, 16) for t in few], number=20, repeat=5)) / 20 / len(few)
    )
    print(
        f"{'array points per second and term / the script’s':<58} {theirs / ours:6.0f} ×  (at least 100; {1 / ours:.1e} points/s)"
    )

    model = load(QWEN)
    served = model.curve("vllm")
    build = min(timeit.repeat(lambda: model.curve("vllm"), number=100, repeat=5)) / 100
    once = min(timeit.repeat(lambda: served.bytes(131_072), number=20_000, repeat=5)) / 20_000
    array = min(timeit.repeat(lambda: served.bytes(contexts), number=3, repeat=5)) / 3 / len(contexts)
    print(f"{'a vLLM curve built':<58} {1e6 * build:6.0f} µs (at most 1000)")
    print(f"{'a vLLM curve evaluated':<58} {1e6 * once:6.2f} µs (at most 20)")
    print(f"{'a vLLM curve over an array':<58} {1 / array:6.1e} points/s (at least 1e7)")

    config = {"model_type": "llama"}
    print(
        f"{'load of a config, warm':<58} {1e6 * min(timeit.repeat(lambda: load(config), number=200, repeat=5)) / 200:6.0f} µs"
    )


if __name__ == "__main__":
    main()
