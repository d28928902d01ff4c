"""Fifteen published models by memcurve, and by the formulas that calculators use: docs/comparison.md shows what it prints.

    python docs/comparison.py            # the table
    python docs/comparison.py --record   # asks hf-mem again (pip install hf-mem==0.5.6), and writes others.jsonl

All at 131,072 tokens in bf16. The exact bytes are those of tests/fifteen.py, each derived there by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from fifteen import FIFTEEN, T  # noqa: E402 - the tests' own models

from memcurve import Model, catalog, load  # noqa: E402
from memcurve.config import Config  # noqa: E402
from memcurve.layers import ChunkedAttention, FullAttention, LatentAttention, SlidingAttention, parts  # noqa: E402

OTHERS = Path(__file__).with_name("others.jsonl")
E = 2  # bytes of bf16


def every_head(model: Model) -> int | None:
    """2 × layers × hidden: every head of attention has a key and a value."""
    config = sized(model)
    return config and 2 * len(model.layers) * config.hidden * E * T


def hidden_over_heads(model: Model) -> int | None:
    """2 × layers × key-value heads × (hidden / heads): llm-analysis 0.2.2, LLMAnalysis.get_memory_kv_cache_per_layer."""
    config = sized(model)
    return config and 2 * len(model.layers) * config.kv_heads * (config.hidden // config.heads) * E * T


def all_attention(model: Model) -> int | None:
    """Layers × what the model's own attention keeps of a token: no window, no states, nothing shared."""
    widths = []
    for layer in model.layers:
        for part in parts(layer):
            match part:
                case FullAttention() | SlidingAttention() | ChunkedAttention():
                    widths.append(part.kv_heads * (part.head_dim + part.v_head_dim))
                case LatentAttention():
                    widths.append(part.kv_lora_rank + part.rope_head_dim)
    return len(model.layers) * max(widths) * E * T if widths else None


def sized(model: Model) -> Config | None:
    """The config, where it says heads of attention."""
    config = model.config
    return config if isinstance(config, Config) and config.get("num_attention_heads") else None


def times(found: int | None, exact: int) -> str:
    return "none" if found is None else f"{found / exact:,.2f}"


def table(asked: dict[str, Any]) -> None:
    titles = ("exact bytes", "2·L·hidden", "hidden/heads", "hf-mem", "all attention")
    print(f"{'':<20}{titles[0]:>16}" + "".join(f"{title:>15}" for title in titles[1:]))
    for name, source in models().items():
        model = load(source)
        exact = model.curve("logical", "bf16").bytes(T)
        found = (every_head(model), hidden_over_heads(model), asked[name], all_attention(model))
        print(f"{name:<20}{exact:>16,}" + "".join(f"{times(one, exact):>15}" for one in found))
    print(
        f"at {T:,} tokens in bf16; the other columns are times the exact bytes; none: no heads in the config, or no answer"
    )


def models() -> dict[str, Any]:
    """Each of the fifteen once, by name: a catalogue name, or a config."""
    found: dict[str, Any] = {}
    for name, source, _ in FIFTEEN:
        found.setdefault(name, source)
    return found


def record() -> None:
    """hf-mem's own function on the same configs, as its command calls it with --kv-cache-dtype bfloat16."""
    from importlib.metadata import version

    from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size

    lines = []
    for name, source in models().items():
        config = source if isinstance(source, dict) else catalog.find(source) or {}
        try:
            found: Any = compute_safetensors_kv_cache_size(config.get("text_config", config), "BF16", T)
            why = None
        except KeyError as error:
            found, why = None, f"KeyError: {error}"
        lines.append(
            json.dumps({"tool": "hf-mem", "version": version("hf-mem"), "model": name, "bytes": found, "why": why})
        )
    OTHERS.write_text("\n".join(lines) + "\n")


def main() -> None:
    if "--record" in sys.argv:
        record()
    table({line["model"]: line["bytes"] for line in map(json.loads, OTHERS.read_text().splitlines())})


if __name__ == "__main__":
    main()
