"""Writes src/memcurve/defaults.json: what Transformers' config classes assume for keys that a config.json leaves out.

    python verify/defaults.py            # needs the pinned transformers; rewrites the file
    python verify/defaults.py --check    # exit 1 if the file is not what would be written

One line per model type that keeps sequence state (and per type of their nested configs):

    defaults  class defaults of the keys that can bear on state; left out where the class computes the value or has no such key
    alias     the class's attribute_map: other name -> own name
    text      where the decoder's config is nested: key, its model type, values the class passes when the section is missing (init),
              auto: the section's own model_type decides; keep: init also fills in what a given section lacks
    class     the config class
    arch      the classes that generate with this type
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedConfig
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from memcurve.verify.transformers import GROUPS, PINNED

TARGET = Path(__file__).parents[1] / "src" / "memcurve" / "defaults.json"
# The nested config with the decoder, by the names that get_text_config(decoder=True) and the omni classes use.
TEXT_KEYS = (
    "decoder",
    "generator",
    "text_config",
    "thinker_config",
    "language_config",
    "llm_config",
    "decoder_config",
    "vlm_config",
)
# Nested configs that are read beside or instead of the decoder's.
PARTS = {"bark": ("semantic_config", "coarse_acoustics_config"), "blt": ("encoder_config",)}
STATE = re.compile(
    r"""layers?$ | layer_types$ | layers_block | block_type | n_layer | num_blocks | _layer_ids$ | _layer_idxs$ | full_attn_idxs
    | heads? | d_kv$ | d_model$ | n_embd$ | embed_dim$ | embedding_dim$ | embedding_size$ | hidden_size | hidden_dim$ | ^dim$ | n_positions
    | kv | lora_rank | window | chunk | pattern | interval | period | offset | conv | state | expand | groups$ | mamba | ssm | linear_
    | lru | kernel | intermediate_size$ | index | compress | multi_query | new_decoder | shared | cla | dim_factor | rank$
    | is_decoder$ | is_encoder_decoder$ | cross_attention | max_source | ngram | ple_ | attention_types | attn_layers
    | hc_count$ | k_eq_v$ | ^mem_len$ | attn_layers$ | num_hashes$ | prompt_length$ | dim_head$ | ^emb_dim$ | group_size$ | _cycles$ | ^local_attention$ | every_n_layers$ | cca_ | block_types$ | num_mem | ^dtype$ | no_rope | block_length | max_position""",
    re.VERBOSE,
)
NOISE = re.compile(
    r"""token_id | dropout | initializer | eps$ | _act$ | router | aux | ^(?!qk_|swa_qk).*rope_(?!lay) | vocab | loss | image | vision | audio(?!_channels) | pretraining
    | experts | mlp | moe | output_ | return_ | chunk_size_feed_forward | bias | norm | scale | scaling | summary | time_step | _token$ | beams
    | (left|right|t2u|original)_max_position | problem | topk | gate_rank | decay | _plan$ | mask""",
    re.VERBOSE,
)


def entry(cls: Any) -> dict[str, Any]:
    fields = cls.default_config_fields()
    defaults = {
        key: value
        for key, value in fields.items()
        if key not in cls.sub_configs_defaults
        and value is not None
        and STATE.search(key)
        and not NOISE.search(key)
        and (
            isinstance(value, (int, float, str))
            or (isinstance(value, (list, tuple, dict)) and len(json.dumps(value, default=str)) < 500)
        )
    }
    if not defaults.get("is_encoder_decoder"):
        defaults.pop("is_encoder_decoder", None)
    found: dict[str, Any] = {"class": cls.__name__, "defaults": json.loads(json.dumps(defaults, default=str))}
    alias = {a: b for a, b in cls.attribute_map.items() if STATE.search(a) and not NOISE.search(a)}
    if alias:
        found["alias"] = alias
    for key in TEXT_KEYS:
        if key in cls.sub_configs_defaults:
            spec = cls.sub_configs_defaults[key]
            init = relevant(spec.init_kwargs)
            found["text"] = {"key": key, "type": spec.model_type} | ({"init": init} if init else {})
            if not issubclass(spec.config_class, PreTrainedConfig):
                found["text"]["auto"] = True
            if init and keeps_init(cls, key, spec.model_type, init):
                found["text"]["keep"] = True
            break
    return found


def relevant(values: dict[str, Any]) -> dict[str, Any]:
    """What bears on state, in nested decoder configs too."""
    return {
        key: relevant(value) if key in TEXT_KEYS else value
        for key, value in values.items()
        if key in TEXT_KEYS or key == "model_type" or (STATE.search(key) and not NOISE.search(key))
    }


def keeps_init(cls: Any, key: str, model_type: str, init: dict[str, Any]) -> bool:
    """Whether the class's values for a missing section also fill in a section that is there but lacks keys."""
    try:
        nested = getattr(cls(**{key: {"model_type": model_type}}), key)
    except Exception as error:  # noqa: BLE001 - validators raise what they like
        # Its own check finds the missing keys missing: they are not filled in.
        print(f"{cls.__name__}: {str(error).splitlines()[-1].strip()}", file=sys.stderr)
        return False
    return all(getattr(nested, name) == value for name, value in init.items())


def table() -> dict[str, dict[str, Any]]:
    arch: dict[str, set[str]] = {}
    for group in GROUPS:
        for model_type, names in getattr(modeling_auto, f"MODEL_FOR_{group}_MAPPING_NAMES").items():
            arch.setdefault(model_type, set()).update([names] if isinstance(names, str) else names)
    found: dict[str, dict[str, Any]] = {}
    for model_type, keys in PARTS.items():
        for key in keys:
            spec = CONFIG_MAPPING[model_type].sub_configs_defaults[key]
            cls = getattr(spec, "config_class", spec)
            found[cls.model_type] = entry(cls)
    waiting = sorted(arch)
    while waiting:
        model_type = waiting.pop()
        if model_type in found or model_type not in CONFIG_MAPPING:
            continue
        found[model_type] = entry(CONFIG_MAPPING[model_type])
        if model_type in arch:
            found[model_type]["arch"] = sorted(arch[model_type])
        if "text" in found[model_type]:
            waiting.append(found[model_type]["text"]["type"])
    return found


def text() -> str:
    lines = [
        f"{json.dumps(key)}:{json.dumps(value, separators=(',', ':'), sort_keys=True)}"
        for key, value in sorted(table().items())
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerate the class defaults from the pinned Transformers.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    arguments = parser.parse_args()
    if transformers.__version__ != PINNED:
        print(f"transformers {transformers.__version__}; expected {PINNED}", file=sys.stderr)
        return 1
    new = text()
    if arguments.check:
        same = TARGET.read_text() == new
        print("defaults.json is as generated" if same else "defaults.json differs: run python verify/defaults.py")
        return 0 if same else 1
    TARGET.write_text(new)
    print(f"{TARGET.name}: {new.count(chr(10)) - 2} model types, {len(new):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
