"""Records what llama.cpp's own converter writes for the configs of the catalogue: the truth for views/convert.py.

    python verify/converter.py llama.cpp    # the tree of commit 0c1e57098 (in the sdist of llama-cpp-python 0.3.36: vendor/llama.cpp)

Needs torch 2.13 and transformers 5.23, which the converter reads configs with. Writes tests/truth/llamacpp_converter.jsonl:
per config `name`, and the `keys` that decide what caches hold. No weights are read: what the converter learns only from
them is left out (`unread`), and what it needs and the config lacks, and says nothing about caches, is filled in.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CATALOG, TRUTH = ROOT / "src" / "memcurve" / "catalog", ROOT / "tests" / "truth" / "llamacpp_converter.jsonl"
KEYS = re.compile(
    r"block_count|context_length|embedding_length|nextn_predict_layers|attention\.(head_count|key_length|value_length|"
    r"kv_lora_rank|sliding_window|shared_kv_layers|recurrent_layers|compress_ratios|indexer\.)|full_attention_interval|"
    r"ssm\.|kda\.head_dim|wkv\.head_size|shortconv\.|hyper_connection\.count|ple\.(layers|ngram_size|conv_kernel)|"
    r"leading_dense_block_count|nemotron_h\w*\.feed_forward_length|rope\.dimension_count$|num_loops|token_shift_count"
)
# Read by the converter, and of no meaning for caches.
FILLED = {"rotary_pct": 0.25, "partial_rotary_factor": 0.5, "rotary_dim": 64, "vocab_size": 1000, "rope_theta": 1e4,
          "decoder_start_token_id": 0, "routed_scaling_factor": 1.0, "layer_norm_epsilon": 1e-5, "moe_intermediate_size": [64], "swiglu_limit": 1.0, "norm_topk_prob": True}  # fmt: skip

# The class that the published config.json names, where the catalogue left that out.
REMOTE = {"rwkv6": "Rwkv6ForCausalLM", "rwkv7": "RWKV7ForCausalLM", "plamo2": "Plamo2ForCausalLM",
          "hunyuan": "HunYuanMoEV1ForCausalLM", "minimax_m1": "MiniMaxM1ForCausalLM"}  # fmt: skip


class Converter:
    """The converter's classes, given configs without weights."""

    def __init__(self, tree: Path) -> None:
        sys.path[:0] = [str(tree), str(tree / "gguf-py")]
        import conversion
        import gguf
        from conversion import base

        conversion.load_all_models()
        self.base, self.gguf = base, gguf
        base.ModelBase.index_tensors = lambda self, remote_hf_model_id=None: {}
        self.filled: dict[str, Any] = {}
        read = base.ModelBase.load_hparams

        def load_hparams(folder: Path, is_mistral_format: bool) -> dict[str, Any]:
            data: dict[str, Any] = read(folder, is_mistral_format)
            for section in (
                data,
                *(data[key] for key in ("text_config", "llm_config") if isinstance(data.get(key), dict)),
            ):
                for key, value in self.filled.items():
                    section.setdefault(key, value)
                    if key.startswith(("rope", "partial")):
                        section["rope_parameters"] = {key: value} | (section.get("rope_parameters") or {})
            return data

        base.ModelBase.load_hparams = staticmethod(load_hparams)

    def written(self, config: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "config.json").write_text(json.dumps({**self.filled, **config}))
            hparams = self.base.ModelBase.load_hparams(folder, False)
            architecture = self.base.get_model_architecture(hparams, self.base.ModelType.TEXT)
            found = self.base.ModelBase.from_model_architecture(architecture)
            model = found(folder, self.gguf.LlamaFileType.MOSTLY_F16, folder / "out.gguf")
            model.set_gguf_parameters()
            writer = getattr(model, "impl", model).gguf_writer
            return {key: value.value for group in writer.kv_data for key, value in group.items()}

    def record(self, config: dict[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
        """The keys, or None for what the converter does not know; and what only the weights would say."""
        self.filled, unread = {}, []
        for _ in range(10):
            try:
                return self.written(config), unread
            except NotImplementedError:
                return None, unread
            except KeyError as error:
                key = next((key for key in FILLED if key in str(error)), None)
                if key is None or key in self.filled:
                    raise
                self.filled[key] = FILLED[key]
            except AssertionError:
                if unread:
                    raise
                # The number of draft layers, where it does not stand in the config (qwen.py, _QwenMtpMixin).
                unread.append("nextn_predict_layers")
                self.filled["mtp_num_hidden_layers"] = 1
        raise RuntimeError("no end of missing keys")


def main() -> None:
    logging.disable(logging.CRITICAL)
    sys.path.insert(0, str(ROOT / "src"))
    from memcurve import catalog
    from memcurve.config import class_defaults

    converter = Converter(Path(sys.argv[1]))
    lines, lacking, failed = [], [], []
    for name in catalog.names():
        config = catalog.find(name)
        assert config is not None
        kind = str(config.get("model_type"))
        names = [REMOTE[kind]] if kind in REMOTE else (class_defaults(kind) or {}).get("arch")
        if not config.get("architectures") and names:
            config = {**config, "architectures": names[:1]}
        with contextlib.redirect_stderr(None):
            try:
                found, unread = converter.record(config)
            except (LookupError, ValueError, AssertionError, TypeError) as error:
                failed.append(f"{name}: {type(error).__name__}: {error}")
                continue
        if found is None:
            lacking.append(name)
            continue
        keys = {key: value for key, value in found.items() if key == "general.architecture" or KEYS.search(key)}
        lines.append({"name": name, "keys": keys, **({"unread": unread} if unread else {})})
    TRUTH.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    print(f"{len(lines)} configs recorded, {len(lacking)} that the converter lacks, {len(failed)} that it fails on:")
    print(*failed, sep="\n")


if __name__ == "__main__":
    main()
