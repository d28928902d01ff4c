"""What config classes compute in ways that no tree over single questions tells, written down by hand."""

from __future__ import annotations

from typing import Any

from memcurve.shrink import config_class

from .trees import SAME, names, when

FULL, LINEAR, SHARED = ("=", "full_attention"), ("=", "linear_attention"), ("=", "shared")


CSA, HCA = ("=", "compressed_sparse_attention"), ("=", "heavily_compressed_attention")


def is_word(name: str, word: str) -> Any:
    return ("==", ("[]", name, "i"), f"'{word}")


def of_hidden(heads: str) -> Any:
    """Three quarters of the hidden size over so many heads."""
    return ("int", ("/", ("*", 0.75, "hidden_size"), heads))


def known_trees(cls: Any, path: str = "") -> dict[str, Any]:
    """What is written down for a type and the types of its sections."""
    found = {path + name: prefixed(tree, path) for name, tree in WRITTEN.get(cls.model_type, {}).items()}
    for name, spec in cls.sub_configs_defaults.items():
        found |= known_trees(config_class(spec), f"{path}{name}.")
    return found


def prefixed(tree: Any, path: str) -> Any:
    """A tree with the section's name before its keys."""
    if isinstance(tree, tuple):
        return tree if tree[0] == "=" else (tree[0], *(prefixed(one, path) for one in tree[1:]))
    return path + tree if isinstance(tree, str) and tree != SAME and tree in names(tree) else tree


# What the config class computes in ways that no tree over single questions tells: __post_init__ of the type's configuration module.
WRITTEN: dict[str, dict[str, Any]] = {
    "kimi_linear": {
        "layer_types": when(
            ("null", "layer_types"),
            ("each", "num_hidden_layers", when(
                ("has", "linear_attn_config.full_attn_layers"),
                when(("in", ("+", "i", 1), "linear_attn_config.full_attn_layers"), FULL,
                     when(("in", ("+", "i", 1), "linear_attn_config.kda_layers"), LINEAR, ("=", None))),
                when(("==", ("%", "i", 4), 0), when(("==", "i", 0), LINEAR, FULL), LINEAR),
            )),
            SAME,
        ),
    },
    "glm_moe_dsa": {
        "indexer_types": when(
            ("null", "indexer_types"),
            when(
                ("truth", "index_topk_pattern"),
                ("each", ("len", "index_topk_pattern"), when(
                    is_word("index_topk_pattern", "S"), SHARED, when(is_word("index_topk_pattern", "shared"), SHARED, ("=", "full"))
                )),
                ("each", "num_hidden_layers", when(
                    ("==", ("%", ("max", ("+", ("-", "i", "index_skip_topk_offset"), 1), 0), ("max", "index_topk_freq", 1)), 0),
                    ("=", "full"), SHARED,
                )),
            ),
            SAME,
        ),
    },
    "deepseek_v4": {
        "layer_types": when(
            ("null", "layer_types"),
            when(
                ("truth", "compress_ratios"),
                ("each", ("min", ("len", "compress_ratios"), "num_hidden_layers"), when(
                    ("==", ("[]", "compress_ratios", "i"), 0), ("=", "sliding_attention"),
                    when(("==", ("[]", "compress_ratios", "i"), 4), CSA, HCA),
                )),
                ("each", "num_hidden_layers", when(("<", "i", 2), HCA, when(("==", ("%", "i", 2), 0), HCA, CSA))),
            ),
            SAME,
        ),
    },
    "llama4_text": {
        "moe_layers": when(
            ("null", "moe_layers"),
            ("each", ("//", "num_hidden_layers", "interleave_moe_layer_step"),
             ("-", ("*", ("+", "i", 1), "interleave_moe_layer_step"), 1)),
            SAME,
        ),
    },
    "inkling_text": {
        "layer_types": when(
            ("null", "layer_types"),
            ("each", "num_hidden_layers", when(
                ("null", "local_layer_ids"),
                when(("==", ("%", ("+", "i", 1), 6), 0), ("=", "hybrid"), ("=", "hybrid_sliding")),
                when(("in", "i", "local_layer_ids"), ("=", "hybrid_sliding"), ("=", "hybrid")),
            )),
            SAME,
        ),
    },
    "zamba2": {
        "layers_block_type": when(
            ("null", "layers_block_type"),
            ("=", ["linear_attention", *(["linear_attention"] * 5 + ["hybrid"]) * 7, *["linear_attention"] * 4, "hybrid",
                   *["linear_attention"] * 3, "hybrid", *["linear_attention"] * 2]),
            SAME,
        ),
    },
    "zamba": {
        "layers_block_type": when(
            ("null", "layers_block_type"),
            ("each", ("max", "num_hidden_layers", 3), when(
                ("<", "i", 3),
                when(("==", "i", 2), ("=", "hybrid"), LINEAR),
                when(("==", ("%", ("-", "i", 3), "attn_layer_period"), "attn_layer_offset"), ("=", "hybrid"), LINEAR),
            )),
            SAME,
        ),
    },
    "olmo_hybrid": {
        "layer_types": when(
            ("null", "layer_types"),
            ("each", "num_hidden_layers", when(
                ("==", ("%", "i", 4), 3),
                FULL,
                when(("<", "num_hidden_layers", 4), when(("==", "i", ("-", "num_hidden_layers", 1)), FULL, LINEAR), LINEAR),
            )),
            SAME,
        ),
        "linear_key_head_dim": when(
            ("null", "linear_key_head_dim"),
            when(("null", "linear_num_key_heads"), of_hidden("num_attention_heads"), of_hidden("linear_num_key_heads")),
            SAME,
        ),
        "linear_value_head_dim": when(
            ("null", "linear_value_head_dim"),
            when(
                ("null", "linear_key_head_dim"),
                when(
                    ("null", "linear_num_key_heads"),
                    ("*", 2, of_hidden("num_attention_heads")), ("*", 2, of_hidden("linear_num_key_heads")),
                ),
                ("*", 2, "linear_key_head_dim"),
            ),
            SAME,
        ),
    },
    "nemotron_h": {
        "layers_block_type": when(
            ("null", "layers_block_type"),
            when(
                ("has", "hybrid_override_pattern"),
                ("each", ("len", "hybrid_override_pattern"), when(
                    is_word("hybrid_override_pattern", "M"), LINEAR,
                    when(is_word("hybrid_override_pattern", "*"), FULL,
                         when(is_word("hybrid_override_pattern", "E"), ("=", "moe"), ("=", "mlp"))),
                )),
                ("=", ["linear_attention", "moe", "full_attention", "mlp"]),
            ),
            SAME,
        ),
    },
}  # fmt: skip
