"""Brings published config.json files into src/memcurve/catalog/ in compact form.

    python verify/catalog.py FOLDER      # ORG__NAME.json files and a sources.tsv (file, repo, path, commit, fidelity)

Keys that say nothing about the shape of the model, its weights or its state are dropped; the rest stays as published.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from memcurve.model import describe

TARGET = Path(__file__).parents[1] / "src" / "memcurve" / "catalog"
# Presets of models whose own config.json is here as a byte copy.
SUPERSEDED = """
    maxtext__deepseek3_671b maxtext__gemma4_26b maxtext__gpt_oss_120b maxtext__gpt_oss_20b maxtext__llama31_405b
    maxtext__qwen3_0_6b maxtext__qwen3_5_35b_a3b maxtext__qwen3_8b maxtext__qwen3_coder_480b_a35b maxtext__qwen3_vl_2b
    maxtext__qwen3_vl_30b_a3b maxtext__qwen3_vl_4b mlc__Mixtral-8x7B-v0.1 mlc__llama3_1_70b mlc__qwen3_0.6b
"""
DROPPED = re.compile(
    r"""vision_|visual|audio_|speech|image|video|id2label|label2id|_token|token_id|transformers_version|auto_map
    |initializer|dropout|_pdrop|^use_cache|task_specific|beam|penalty|temperature|top_[kp]$|bad_words|prefix$|suppress|pruned
    |problem_type|return_dict|output_|do_sample|early_stopping|diversity|is_decoder|finetuning|torchscript|bfloat16$|^fp\d|ignore
    |chunk_size_feed|min_length|max_length|num_return|no_repeat|typical|remove_invalid|tokenizer|placeholder|(?<!routed_)scaling_factor|coef""",
    re.VERBOSE,
)
# What weights beside the decoder's, and weights that are stored in fewer bits, are reckoned with.
KEPT = ("quantization_config", "vision_config", "audio_config", "vision_feature_layer")


def compact(config: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for key, value in config.items():
        if key in KEPT:
            found[key] = value
            continue
        if DROPPED.search(key):
            continue
        if key == "block_configs":
            value = [
                {"attention": {k: v for k, v in block["attention"].items() if v not in (None, False)}}
                for block in value
            ]
        found[key] = compact(value) if isinstance(value, dict) else value
    return found


def main() -> int:
    folder = Path(sys.argv[1])
    rows = {}
    for line in (folder / "sources.tsv").read_text().splitlines():
        name, *rest = line.split("\t")
        if name != "file" and len(rest) == 4:
            rows[name] = rest
    TARGET.mkdir(parents=True, exist_ok=True)
    index = TARGET / "sources.tsv"
    known = dict(line.split("\t", 1) for line in index.read_text().splitlines()[1:]) if index.exists() else {}
    for name, rest in sorted(rows.items()):
        if name.removesuffix(".json") in SUPERSEDED.split():
            continue
        data = json.loads((folder / name).read_text())
        small = compact(data)
        if describe(small, name) != describe(data, name):
            raise SystemExit(f"{name}: a dropped key bears on state; see DROPPED")
        (TARGET / name).write_text(json.dumps(small, separators=(",", ":")) + "\n")
        known[name] = "\t".join(rest)
    lines = [
        "file\trepo\tpath\tcommit\tfidelity",
        *(f"{name}\t{rest}" for name, rest in sorted(known.items(), key=lambda item: item[0].lower())),
    ]
    index.write_text("\n".join(lines) + "\n")
    print(f"{len(rows)} configs brought in, {len(known)} in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
