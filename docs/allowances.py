"""How well the allowances of `memcurve fit` cover recorded start-ups: docs/will-it-fit.md shows what it prints.

python docs/allowances.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from startups import compute_ratios, over  # noqa: E402 - the tests' own reader

# What is compared of each engine.
WHAT = {
    "vllm": "activations, and what lies outside PyTorch",
    "sglang": "what is gone before the weights load",
    "llamacpp": "the compute buffer",
}


def main() -> None:
    print(f"{'engine':<10}{'start-ups':>10}{'covered':>9}{'least over':>13}{'middle':>11}{'most over':>12}  of what")
    for engine, what in WHAT.items():
        errors = over(engine)
        covered = sum(error >= 0 for error in errors)
        figures = "".join(f"{error:>+8.2f} GiB" for error in (errors[0], errors[len(errors) // 2], errors[-1]))
        print(f"{engine:<10}{len(errors):>10}{covered:>9} {figures}  {what}")
    ratios = compute_ratios()
    least: dict[str, float] = {}
    for ratio, model in ratios:
        least.setdefault(model, ratio)
    short = {model: ratio for model, ratio in least.items() if ratio < 1}
    print(
        f"llama.cpp's own reservations of compute buffers: {len(ratios) - sum(ratio < 1 for ratio, _ in ratios)} of {len(ratios)} "
        f"covered, {ratios[len(ratios) // 2][0]:.2f} times as much in the middle, {ratios[-1][0]:.2f} at the most"
    )
    print(f"of {len(least)} models too little for {len(short)}, at the least:")
    for model, ratio in short.items():
        print(f"  {model:<32}{ratio:>6.2f}")


if __name__ == "__main__":
    main()
