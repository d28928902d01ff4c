"""Figures of published start-up logs that these versions give, and those that they do not: docs/reading-your-engines-log.md shows them.

python docs/logged.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

# The tests' own tables: each figure in them is computed and compared there, and none of a log is passed over.
from test_published_llamacpp import EARLIER, FORK, LOGS, NOT_OURS  # noqa: E402
from test_truth_sglang import LOGGED  # noqa: E402
from test_truth_vllm import FIGURES, UNANSWERED  # noqa: E402

ENGINES: dict[str, tuple[set[str], dict[str, str]]] = {
    "vLLM": (set(FIGURES), dict(UNANSWERED)),
    "SGLang": (set(LOGGED), {}),
    "llama.cpp": (set(LOGS), EARLIER),
    "ik_llama.cpp": (set(FORK), NOT_OURS),
}


def main() -> None:
    given, others = (sum(len(pair[index]) for pair in ENGINES.values()) for index in (0, 1))
    print(f"{given} of {given + others} figures of published logs are given")
    for name, (mine, missing) in ENGINES.items():
        print(f"{name:<14}{len(mine):>3} of {len(mine) + len(missing)}")
        for key, why in missing.items():
            print(f"  not {key}: {why}")


if __name__ == "__main__":
    main()
