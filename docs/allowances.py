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
    covered = sum(ratio >= 1 for ratio in ratios)
    print(
        f"llama.cpp's own reservations of compute buffers: {covered} of {len(ratios)} covered, allowed "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f} times as much, {ratios[len(ratios) // 2]:.2f} in the middle"
    )


if __name__ == "__main__":
    main()
