"""The work of the script that memcurve grew from, for comparison: sampled series with numpy, drawn with pyplot.

Written anew after plot_memory_estimates_gated_deltanet.py of rasbt/LLMs-from-scratch: same samples, same figure.
"""

import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np


def attention(batch: int, context: int, width: int, layers: float, size: int, heads: int) -> float:
    return batch * context * heads * (width // heads) * 2 * size * layers


def delta(batch: int, width: int, layers: float, size: int, heads: int) -> float:
    return batch * heads * (width // heads) ** 2 * size * layers


def series(contexts: Any) -> tuple[Any, Any, Any]:
    full = np.array([attention(1, int(t), 2048, 48, 2, 16) for t in contexts], dtype=float)
    flat = np.full_like(full, delta(1, 2048, 48, 2, 16))
    mixed = np.array(
        [attention(1, int(t), 2048, 12.0, 2, 16) + delta(1, 2048, 36.0, 2, 16) for t in contexts], dtype=float
    )
    return full, flat, mixed


def main(target: str) -> None:
    contexts = np.arange(128, 131_073, 100, dtype=int)
    figure, axes = plt.subplots(figsize=(7, 4.5))
    for values, label in zip(series(contexts), ("full attention", "DeltaNet", "3 : 1"), strict=True):
        axes.plot(contexts, values / 1e9, label=label)
    axes.set_xlabel("Context length (number of tokens)")
    axes.set_ylabel("KV cache size (GB)")
    axes.grid(True, which="both", linestyle="--", linewidth=0.5, alpha=0.6)
    axes.legend()
    figure.tight_layout()
    plt.savefig(target, dpi=160)


if __name__ == "__main__":
    main(sys.argv[1])
