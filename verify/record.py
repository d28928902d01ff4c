"""Records what Transformers allocates for every type that generates, in many variants: the truth that the tests replay.

    python verify/record.py                  # every type; needs the pinned transformers, torch and memcurve
    python verify/record.py llama jamba     # only these; other types' lines stay

Writes tests/truth/transformers_types.jsonl (tests/README.md says how it reads). A variant changes keys that decide the state, in the
decoder's section. memcurve.verify.transformers builds and runs the models; no number of memcurve's goes into the file.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import multiprocessing
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from catalog import compact

from memcurve.shrink import base_keys, merge, text_section
from memcurve.verify.transformers import (
    CONFIG_MAPPING,
    INSTALLED,
    PINNED,
    distinct_bytes,
    generative_types,
    model_of,
    quiet,
    run_model,
)

TARGET = Path(__file__).parents[1] / "tests" / "truth" / "transformers_types.jsonl"
# What says nothing about state, beside what the catalogue drops.
NOISE = (
    "architectures",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "rope_parameters",
    "rope_theta",
    "layerdrop",
)
NOISE += (
    "attention_bias",
    "mlp_bias",
    "tie_word_embeddings",
    "vocab_size",
    "max_position_embeddings",
    "gradient_checkpointing",
)
NOISE_ENDS = ("_eps", "_epsilon", "_dropout", "_act", "_dropout_prob")
GENERAL: tuple[tuple[str, dict[str, Any]], ...] = (
    ("kv-1", {"num_key_value_heads": 1}),
    ("kv-2", {"num_key_value_heads": 2}),
    ("kv-4", {"num_key_value_heads": 4}),
    ("head-dim-omitted", {"head_dim": None}),
    ("head-dim-40", {"head_dim": 40}),
    ("heads-8", {"num_attention_heads": 8}),
    ("window-null", {"sliding_window": "=None"}),
    ("window-10", {"sliding_window": 10}),
    ("window-24", {"sliding_window": 24}),
    ("window-1", {"sliding_window": 1}),
    ("use-window", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    ("use-window-2", {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 2}),
    ("use-window-only", {"use_sliding_window": True, "sliding_window": 24}),
    ("use-window-false", {"use_sliding_window": False, "sliding_window": 24, "max_window_layers": 1}),
    ("window-pattern-2", {"sliding_window_pattern": 2}),
    ("chunk-null", {"attention_chunk_size": "=None"}),
    ("chunk-10", {"attention_chunk_size": 10}),
    ("no-rope-interval-2", {"no_rope_layer_interval": 2}),
    ("no-rope-layers", {"no_rope_layers": [1, 0, 1, 1, 0], "num_hidden_layers": 5}),
    ("period-3-offset-1", {"attn_layer_period": 3, "attn_layer_offset": 1}),
    ("period-2-offset-0", {"attn_layer_period": 2, "attn_layer_offset": 0}),
    ("global-every-2", {"global_attn_every_n_layers": 2}),
    ("group-size-2", {"layer_group_size": 2}),
    ("attn-indices-0-2", {"attn_layer_indices": [0, 2]}),
    ("full-idxs-1", {"full_attn_idxs": [1]}),
    ("shared-2", {"num_kv_shared_layers": 2, "num_hidden_layers": 7}),
    ("shared-0", {"num_kv_shared_layers": 0}),
    ("swa-kv-1", {"swa_num_key_value_heads": 1}),
    ("swa-head-dim-16", {"swa_head_dim": 16}),
    ("v-head-dim-10", {"v_head_dim": 10}),
    ("kv-lora-36", {"kv_lora_rank": 36}),
    ("qk-rope-4", {"qk_rope_head_dim": 4}),
    ("q-lora-null", {"q_lora_rank": "=None"}),
    ("index-head-dim-32", {"index_head_dim": 32}),
    ("kernel-3", {"linear_conv_kernel_dim": 3}),
    ("kernel-3", {"conv_kernel": 3}),
    ("kernel-3", {"mamba_d_conv": 3}),
    ("kernel-3", {"conv_L_cache": 3}),
    ("kernel-3", {"conv1d_width": 3}),
    ("kernel-3", {"conv_kernel_size": 3}),
    ("kernel-3", {"short_conv_kernel_size": 3}),
    ("state-7", {"state_size": 7}),
    ("state-7", {"mamba_d_state": 7}),
    ("state-7", {"ssm_state_size": 7}),
    ("groups-1", {"n_groups": 1}),
    ("groups-1", {"mamba_n_groups": 1}),
    ("groups-1", {"mamba_ngroups": 1}),
    ("expand-3", {"expand": 3, "num_heads": 12}),
    ("expand-3", {"mamba_expand": 3, "mamba_n_heads": 12}),
    ("expand-3", {"mamba_expand": 3, "n_mamba_heads": 6}),
    ("expand-3", {"mamba_expand": 3, "mamba_dt_rank": 4}),
    ("linear-heads", {"linear_num_key_heads": 2, "linear_num_value_heads": 4}),
    ("linear-heads", {"linear_num_heads": 2, "linear_head_dim": 12}),
    ("linear-dims", {"linear_key_head_dim": 8, "linear_value_head_dim": 20}),
    ("multi-query-false", {"multi_query": False}),
    ("new-architecture", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    ("lru-width-omitted", {"lru_width": None}),
    ("blocks-2", {"block_types": ["attention", "recurrent"]}),
)
# Keys that no class field stands for but published configs state, and pattern keys of one class.
HUB: dict[str, dict[str, dict[str, Any]]] = {
    "bailing_hybrid": {"linear-sizes": {"linear_num_heads": 2, "linear_head_dim": 12, "linear_conv_kernel_dim": 3}},
    "cohere2": {"hub-pattern-2": {"sliding_window_pattern": 2}},
    "cohere2_moe": {"prefix-dense": {"first_k_dense_replace": 2, "prefix_dense_sliding_window_pattern": 2}},
    "deepseek_v4": {
        "hub-rates": {"compress_rate_csa": 2, "compress_rate_hca": 8},
        "hub-ratios": {"compress_ratios": [0, 4, 128, 4], "num_hidden_layers": 4},
    },
    "diffusion_gemma_text": {"hub-global": {"global_head_dim": 40, "num_global_key_value_heads": 1}},
    "dots3_note_text": {
        "hub-no-window": {"use_sliding_window": False},
        "hub-no-dsa": {"use_dsa": False},
        "hub-no-dsa-types": {
            "use_dsa": False,
            "layer_types": ["indexed_attention", "sliding_attention", "full_attention"],
            "num_hidden_layers": 3,
        },
        "hub-dsa-types": {
            "use_dsa": True,
            "layer_types": ["indexed_attention", "sliding_attention", "full_attention"],
            "num_hidden_layers": 3,
        },
        "hub-swa-sizes": {"swa_head_dim": 40, "swa_qk_nope_head_dim": 24, "swa_kv_lora_rank": 20},
        "hub-swa-rope": {"swa_qk_rope_head_dim": 8, "swa_head_dim": 40},
        "hub-window-size": {"sliding_window_size": 10},
    },
    "dbrx": {"no-kv": {"attn_config": {"clip_qkv": 8}}},
    "exaone4": {"pattern-3": {"sliding_window_pattern": 3}, "no-window": {"sliding_window": "=None"}},
    "gemma3_text": {
        "hub-pattern-3": {"sliding_window_pattern": 3},
        "both-ways": {"use_bidirectional_attention": True, "sliding_window": 25},
    },
    "gemma4_text": {
        "both-ways": {"use_bidirectional_attention": "all", "sliding_window": 25},
        "hub-global": {"global_head_dim": 40, "num_global_key_value_heads": 1},
        "hub-k-eq-v": {"global_head_dim": 40, "num_global_key_value_heads": 1, "attention_k_eq_v": True},
    },
    "gemma4_unified_text": {
        "hub-global": {"global_head_dim": 40, "num_global_key_value_heads": 1},
        "shared-2": {"num_kv_shared_layers": 2, "num_hidden_layers": 14},
    },
    "glm_moe_dsa": {
        "hub-index-pattern": {"index_topk_pattern": "FSSFS", "num_hidden_layers": 5},
        "hub-index-freq": {"index_topk_freq": 2, "index_skip_topk_offset": 1, "num_hidden_layers": 5},
    },
    "glm5_next_text": {
        "types": {
            "layer_types": ["full_attention", "linear_attention", "indexed_attention", "full_attention"],
            "num_hidden_layers": 4,
        },
        "indexers": {
            "layer_types": ["full_attention", "full_attention", "linear_attention", "full_attention"],
            "num_hidden_layers": 4,
            "indexer_types": ["full", "shared", "full", "shared"],
        },
        "hub-index-freq": {"index_topk_freq": 2, "index_skip_topk_offset": 1},
        "hub-linear": {"linear_attn_config": {"head_dim": 12, "num_heads": 2, "short_conv_kernel_size": 3}},
    },
    "kimi_linear": {
        "hub-linear": {
            "linear_attn_config": {
                "head_dim": 12,
                "num_heads": 2,
                "short_conv_kernel_size": 3,
                "full_attn_layers": [2, 5],
                "kda_layers": [1, 3, 4],
            },
            "num_hidden_layers": 5,
        }
    },
    "lfm2": {"hub-ff-dim": {"block_ff_dim": 48, "full_attn_idxs": [0, 2]}},
    "mllama_text_model": {"cross": {"cross_attention_layers": [1]}},
    "falcon_mamba": {"intermediate": {"intermediate_size": 96}},
    "mamba": {"intermediate": {"intermediate_size": 96}},
    "mimo_v2_flash": {
        "hub-window-size": {"sliding_window_size": 10},
        "hub-swa-sizes": {"swa_head_dim": 24, "swa_v_head_dim": 12},
        "hub-v": {"v_head_dim": 12},
    },
    "minimax_m3_vl_text": {
        "hub-sparse": {
            "num_hidden_layers": 4,
            "sparse_attention_config": {
                "sparse_attention_freq": [0, 1, 1, 0],
                "sparse_num_index_heads": 2,
                "sparse_index_dim": 24,
                "sparse_block_size": 4,
                "sparse_topk_blocks": 2,
                "sparse_local_block": 1,
            },
        }
    },
    "mistral": {"hub-layer-types": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}},
    "ministral3": {"hub-layer-types": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}},
    "mistral_large4_text": {
        "kv-sources": {"kv_source_layers": [0, 0, 2, 2, 2], "num_hidden_layers": 5},
        "hub-index-freq": {"index_topk_freq": 2, "index_skip_topk_offset": 1, "num_hidden_layers": 5},
    },
    "modernbert-decoder": {"hub-every-2": {"global_attn_every_n_layers": 2}, "window-odd": {"local_attention": 17}},
    "nemotron_h": {
        "hub-pattern": {"hybrid_override_pattern": "M*-ME*", "num_hidden_layers": 6},
        "hub-mamba": {"mamba_n_groups": 1, "mamba_d_conv": 3, "mamba_expand": 2},
    },
    "qwen3_5_moe_text": {"hub-interval-2": {"full_attention_interval": 2}},
    "qwen3_5_text": {"hub-interval-2": {"full_attention_interval": 2}},
    "qwen3_next": {"hub-interval-2": {"full_attention_interval": 2}},
    "qwen4_exp_text": {
        "types": {"layer_types": ["full_attention", "linear_attention", "indexed_attention"], "num_hidden_layers": 3},
        "hub-interval-2": {"full_attention_interval": 2},
        "ple": {"ple_layer_ids": [1], "ple_embed_dim": 32},
    },
    "olmo_hybrid": {"value-heads": {"linear_num_key_heads": 2, "linear_num_value_heads": 8}},
    "smollm3": {
        "hub-window": {
            "use_sliding_window": True,
            "sliding_window": 24,
            "no_rope_layers": [1, 0, 1],
            "num_hidden_layers": 3,
        },
        "hub-no-use": {
            "use_sliding_window": False,
            "sliding_window": 24,
            "no_rope_layers": [1, 0, 1],
            "num_hidden_layers": 3,
        },
    },
    "t5gemma2_decoder": {"hub-pattern-2": {"sliding_window_pattern": 2}},
    "xlnet": {"no-memory": {"mem_len": 0}},
    "xlstm": {
        "sizes": {"qk_dim_factor": 0.75, "v_dim_factor": 1.25},
    },
    "zaya": {
        "times": {"cca_time0": 3, "cca_time1": 4},
        "sliding": {
            "layer_types": ["hybrid", "hybrid_sliding", "hybrid"],
            "sliding_window": 10,
            "num_hidden_layers": 3,
        },
        "kv-1-odd": {"num_key_value_heads": 1, "head_dim": 18},
    },
    "step3p5": {
        "prediction-layers": {
            "layer_types": [
                "full_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            "num_hidden_layers": 3,
            "num_nextn_predict_layers": 2,
            "sliding_window": 10,
        },
        "hub-other": {
            "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 2, "head_dim": 24},
        },
    },
    "zamba2": {"blocks": {"layers_block_type": ["mamba", "hybrid", "hybrid", "mamba"], "num_mem_blocks": 2}},
}


def variants(model_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, keyword arguments): the base config, then what changes the decoder's state, in the decoder's section."""
    whole = CONFIG_MAPPING[model_type]
    base = base_keys(model_type)
    yield "base", base
    for name, changes in changes_of(*text_section(whole, base)):
        keys = copy.deepcopy(base)
        merge(text_section(whole, keys)[1], changes)
        if keys != base:
            yield name, keys


def changes_of(cls: Any, text: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    fields = {field.name for field in dataclasses.fields(cls)}
    own = {alias: name for alias, name in cls.attribute_map.items() if name in fields}
    latent = "qk_rope_head_dim" in fields
    for name, changes in GENERAL:
        changes = {key if key in fields else own.get(key, key): value for key, value in changes.items()}
        if set(changes) <= fields and not (latent and name.startswith(("kv-1", "kv-2", "head-dim", "heads"))):
            yield name, changes
    for name, changes in HUB.get(cls.model_type, {}).items():
        yield name, changes
    if "head_dim" not in fields and not latent:
        yield "head-dim-extra", {"head_dim": 24}
    default = cls.default_config_fields().get("num_key_value_heads")
    if "num_key_value_heads" in text and not latent:
        yield "kv-omitted", {"num_key_value_heads": None, "num_attention_heads": default or 4}
    layers = "num_hidden_layers" if "num_hidden_layers" in fields else own.get("num_hidden_layers", "")
    if layers in text:
        yield "more-layers", {layers: text[layers] + 3}
    renamed = {own[alias]: alias for alias in own if own[alias] in text}
    if renamed:
        yield "aliases", dict.fromkeys(renamed) | {alias: text[name] for name, alias in renamed.items()}
    yield from orders(cls, text, fields)


def orders(cls: Any, text: dict[str, Any], fields: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """layer_types given outright: the class's own backwards, or every second one another kind."""
    key = next((key for key in ("layer_types", "layers_block_type") if key in fields), None)
    if key is None:
        return
    try:
        kinds = list(
            cls(**{name: value for name, value in copy.deepcopy(text).items() if name != "model_type"}).layer_types
        )
    except Exception:  # noqa: BLE001 - the base variant tells
        return
    if len(set(kinds)) > 1:
        yield "types-reversed", {key: kinds[::-1]}
        for kind in sorted(set(kinds)):
            yield f"types-{kind}", {key: [kind] * len(kinds)}
    elif "sliding_window" in fields:
        mixed = [("sliding_attention", kinds[0])[i % 2] for i in range(len(kinds))]
        yield "types-mixed", {key: mixed, "sliding_window": 24}
        yield "types-mixed-window", {key: mixed, "sliding_window": 24, "use_sliding_window": True}


def small(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what never bears on state."""
    kept = {key: value for key, value in compact(config).items() if key not in NOISE and not key.endswith(NOISE_ENDS)}
    return {key: small(value) if isinstance(value, dict) else value for key, value in kept.items()}


def record(model_type: str, variant: str, keys: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """One line: the config as saved, the keyword arguments it was made from, and [batch, tokens, encoder length, bytes] per case."""
    model = model_of(model_type, keys, dtype)
    saved = json.loads(model.config.to_json_string()) | {"model_type": model.config.model_type}
    with torch.no_grad():
        cases = [
            [case.batch, case.context, case.encoder_context, distinct_bytes(case.held)] for case in run_model(model)
        ]
    if not any(case[3] for case in cases):
        raise ValueError("keeps no state")
    line = {
        "model_type": model_type,
        "variant": variant,
        "dtype": str(dtype).removeprefix("torch."),
        "config": small(saved),
        "cases": cases,
    }
    return line | ({"hub": small(keys)} if small(keys) != line["config"] else {})


def record_type(model_type: str) -> list[dict[str, Any]]:
    """Lines of one type; of a variant that its class refuses, a line with the reason."""
    quiet()
    lines: list[dict[str, Any]] = []
    for variant, keys in variants(model_type):
        for dtype in (torch.bfloat16, torch.float32):
            try:
                lines.append(record(model_type, variant, keys, dtype))
                break
            except Exception as error:  # noqa: BLE001 - whatever a class raises is the finding
                reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        else:
            lines.append({"model_type": model_type, "variant": variant, "reason": reason})
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description="Record what Transformers allocates, type by type.")
    parser.add_argument("types", nargs="*", help="model types (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once (default: 2)")
    arguments = parser.parse_args()
    if INSTALLED != PINNED:
        print(f"transformers {INSTALLED}; expected {PINNED}", file=sys.stderr)
        return 1
    types = arguments.types or generative_types()
    lines = [json.loads(text) for text in TARGET.read_text().splitlines()] if TARGET.exists() else []
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=8) as pool:
        for model_type, found in zip(types, pool.imap(record_type, types), strict=True):
            good = [line for line in found if "cases" in line]
            lines = [line for line in lines if line["model_type"] != model_type] + good
            print(f"{model_type}: {len(good)} variants recorded", flush=True)
            for line in found:
                if "reason" in line:
                    print(f"  {line['variant']}: {line['reason']}", flush=True)
    lines.sort(key=lambda line: (line["model_type"], line["variant"], line["dtype"]))
    TARGET.write_text("".join(json.dumps(line, separators=(",", ":"), sort_keys=True) + "\n" for line in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
