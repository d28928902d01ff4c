"""Which model classes hold the embedding, the head or the last norm on every pipeline stage, by the engine's own class of a type.

Elsewhere the embedding is on the first stage (and on the last, where the head is tied to it), head and norm on the last.
Read in vllm/model_executor/models/*.py of vLLM 0.33.0 and sglang/srt/models/*.py of SGLang 0.5.23: where
VocabParallelEmbedding and ParallelLMHead are made without asking get_pp_group() or pp_group for the rank.
"""

from __future__ import annotations

from ..config import Config
from ..gguf import Metadata

_VLLM_BOTH = (
    "bloom chatglm dbrx falcon falcon_mamba gemma gemma3_text gemma4_text gemma4_unified_text gpt-sw3 gpt2 gpt_oss gptj "
    "granitemoe granitemoehybrid granitemoeshared hrm_text hy_v3 internlm2 iquestcoder jamba mamba mamba2 minicpm minicpm3 "
    "mixtral molmo2_text muse_glimmer_text nemotron_h olmo_hybrid olmoe opt orion phimoe plamo3 qwen2_moe qwen3_moe "
    "qwen3_next qwen3_omni_moe_text qwen3_vl_moe_text stablelm zamba2"
)
_VLLM_EMBEDDING = (
    "cohere cohere2 cohere2_moe cohere_compass_text gemma2 gemma3n_text lfm2 lfm2_moe qwen3_5_moe_text qwen3_5_text"
)
_NORM_LAST = frozenset("hrm_text lfm2 lfm2_moe qwen3_5_moe_text qwen3_5_text qwen3_next".split())
_SGLANG_HEAD = (
    "apertus arcee exaone4 exaone_moe glm4_moe glm4_moe_lite gpt_oss granitemoehybrid llama mistral mixtral nemotron-nas "
    "persimmon phi3 phi3small qwen2_moe"
)
ON_EVERY_STAGE = {
    "vllm": {
        "embedding": frozenset((_VLLM_BOTH + " " + _VLLM_EMBEDDING).split()),
        "head": frozenset(_VLLM_BOTH.split()),
        "norm": frozenset((_VLLM_BOTH + " " + _VLLM_EMBEDDING).split()) - _NORM_LAST,
    },
    "sglang": {"embedding": frozenset({"minimax_m2"}), "head": frozenset(_SGLANG_HEAD.split())},
}

# Classes that leave the rows of quantised blocks unchecked (mimo_v2.py, QKVParallelLinear with skip_block_quant_check).
UNCHECKED_BLOCKS = {("sglang", "mimo_v2_flash")}


def on_every_stage(engine: str, model_type: str) -> tuple[str, ...]:
    """Parts of a model ("embedding", "head", "norm") that the engine holds on every stage."""
    return tuple(part for part, types in ON_EVERY_STAGE.get(engine, {}).items() if model_type in types)


def own_drafts(config: object) -> int:
    """Layers of multi-token prediction that come with the model (vllm/config/speculative.py, n_predict); 0 if its config names none."""
    if isinstance(config, Metadata):
        return config.count("nextn_predict_layers", 0)
    if not isinstance(config, Config):
        return 0
    for key in ("num_nextn_predict_layers", "mtp_num_hidden_layers"):
        if config.get(key) is not None:
            return config.count(key, least=0)
    return 0
