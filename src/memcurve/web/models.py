"""What requests hold: checked by name and kind before anything is computed. Counts are integers: 131072, not "128k"."""

from __future__ import annotations

from struct import pack
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MOST = 2**62
MAX_CONTEXTS, MAX_SUBJECTS, MAX_OPTIONS = 512, 8, 64

Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Batch = Annotated[int, Field(strict=True, ge=0, le=2**31)]
Word = Annotated[str, Field(strict=True, max_length=200)]
Flag = Annotated[bool, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
# In this order: true is no 1, and 1 no 1.0.
Option = Flag | Annotated[int, Field(strict=True, ge=-MOST, le=MOST)] | Real | Word | None

QWEN: dict[str, Any] = {
    "model_type": "qwen3", "num_hidden_layers": 36, "hidden_size": 4096, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "intermediate_size": 12288,
    "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
}  # fmt: skip

# A GGUF header: magic, version 3, no tensors, six keys; a text is type 8, a number of 32 bits type 4.
TINY = b"GGUF" + pack("<IQQ", 3, 0, 6) + b"".join(
    pack("<Q", len(key)) + key.encode() + (pack("<IQ", 8, len(value)) + value.encode() if isinstance(value, str) else pack("<II", 4, value))
    for key, value in {
        "general.architecture": "llama", "llama.block_count": 32, "llama.context_length": 8192, "llama.embedding_length": 4096,
        "llama.attention.head_count": 32, "llama.attention.head_count_kv": 8,
    }.items()
)  # fmt: skip


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Sizes(Strict):
    """Sizes of a pattern; GET /api/v1/engines names their defaults."""

    emb_dim: Positive | None = None
    n_heads: Positive | None = None
    n_layers: Positive | None = None
    n_kv_heads: Positive | None = None
    window: Positive | None = None
    kv_lora_rank: Positive | None = None
    rope_head_dim: Count | None = None
    state_size: Positive | None = None
    conv_kernel: Count | None = None


class Subject(Strict):
    """What is asked about: exactly one of model, config and gguf. No path is read and no address fetched."""

    model: Word | None = Field(
        None, description="A name of the catalogue (GET /api/v1/models), or a pattern such as 3gdn:1mha."
    )
    config: dict[str, Any] | Annotated[str, Field(strict=True)] | None = Field(
        None, description="A config.json, as an object or as its text: files may hold Infinity, which JSON does not."
    )
    gguf: str | None = Field(
        None,
        description="The first bytes of a GGUF file, up to the end of its list of tensors, in base64. POST /api/v1/gguf "
        "makes a short one.",
    )
    name: Word | None = Field(None, description="What to call a config or a GGUF file.")
    sizes: Sizes | None = Field(None, description="Sizes of a pattern.")
    dtype: Word | None = Field(
        None, description="Of the model, such as bf16; without it the config's own, bf16 of a pattern."
    )
    options: dict[Word, Option] = Field(
        default_factory=dict, max_length=MAX_OPTIONS, description="The engine's own options (GET /api/v1/engines)."
    )


class Curve(Subject):
    engine: Word = Field("logical", description="logical, transformers, vllm, sglang, llamacpp or mlx.")
    encoder_context: Count | None = Field(
        None, description="Positions that cross-attention keeps; without it the model's own, else 0."
    )


class EstimateRequest(Curve):
    engine: Word = Field(
        "logical", description="logical, transformers, vllm, sglang, llamacpp or mlx; or all, for one row of each."
    )
    contexts: list[Count] = Field(
        [4096, 32768, 131072], min_length=1, max_length=MAX_CONTEXTS, description="Tokens of each sequence."
    )
    batch: Batch = Field(1, description="Sequences.")
    memory: Count | None = Field(None, description="Bytes of an engine's pool: what it makes of them (vllm, sglang).")


class CurveRequest(Curve):
    batch: Batch = Field(1, description="Sequences, for the curve's shape and its explanation.")
    context: Count | None = Field(None, description="Explains in numbers at so many tokens, instead of formulas.")
    memory: Count | None = Field(None, description="Bytes of an engine's pool: what requests share out in them.")


class CrossSubject(Curve):
    label: Word | None = Field(None, description="Its name in the answer.")


class CrossRequest(Strict):
    subjects: list[CrossSubject] = Field(
        min_length=2, max_length=MAX_SUBJECTS, description="Curves, of which all pairs are compared."
    )
    batch: Batch = Field(1, description="Sequences.")
    max_ctx: Count | None = Field(None, description="The largest context looked at; without it all that there are.")


class CompareRequest(Strict):
    subjects: list[Subject] = Field(
        min_length=1, max_length=MAX_SUBJECTS, description="Models, with dtypes and options of their own."
    )
    engine: Word | None = Field(None, description="Of all of them; without it vllm with a GPU, else logical.")
    gpu: Word | None = Field(None, description="A name of GET /api/v1/gpus: adds what fits it.")
    gpu_memory: Positive | None = Field(None, description="Bytes of one GPU instead.")
    gpus: Positive | None = Field(None, le=1024, description="How many; without it 1.")


class FitRequest(Subject):
    engine: Word = Field("vllm", description="vllm, sglang, llamacpp, mlx, transformers or logical.")
    gpu: Word | None = Field(None, description="A name of GET /api/v1/gpus.")
    gpu_memory: Positive | None = Field(None, description="Bytes of one GPU instead.")
    gpus: Positive | None = Field(None, le=1024, description="How many; without it tp × pp, or 1.")
    tp: Positive | None = Field(None, le=1024, description="GPUs that share every layer.")
    pp: Positive | None = Field(
        None, le=1024, description="Pipeline stages; of llamacpp GPUs that share the layers out."
    )
    context: Positive | None = Field(
        None, description="Tokens of each request; without it 8192, or the model's longest."
    )
    batch: Annotated[int, Field(strict=True, ge=1, le=2**31)] = Field(1, description="Requests at once.")
    weights_bytes: Positive | None = Field(
        None, description="Bytes of the checkpoint; without it an estimate by the config, or what a GGUF header lists."
    )
    reserve: Count | None = Field(
        None, description="Bytes that are set aside on each GPU, instead of the engine's rule."
    )
    speculative: Annotated[int, Field(strict=True, ge=0, le=1024)] | None = Field(
        None, description="Tokens ahead, drafted by the model's own draft layers."
    )
    wired_limit_mb: Count | None = Field(
        None, description="MiB that a Mac's iogpu.wired_limit_mb is set to; without it macOS's own share."
    )
    rooms: Flag = Field(False, description="Adds rooms: what a page computes other contexts and batches from, per GPU.")
    prefix_caching: Flag | None = Field(
        None, description="Keep prefixes for reuse; without it the engine's own default."
    )


FORMS: dict[str, type[Strict]] = {
    "estimate": EstimateRequest, "curve": CurveRequest, "cross": CrossRequest, "fit": FitRequest, "compare": CompareRequest,
}  # fmt: skip

EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "estimate": {
        "a model at three contexts": {"model": "Qwen/Qwen3-Next-80B-A3B-Thinking", "contexts": [4096, 32768, 131072]},
        "a pool of vLLM": {
            "model": "openai/gpt-oss-120b", "engine": "vllm", "dtype": "bf16", "contexts": [32768], "memory": 32212254720,
        },
        "every engine": {"model": "openai/gpt-oss-120b", "engine": "all", "dtype": "bf16", "contexts": [4096, 131072]},
        "a config of one's own": {"config": QWEN, "name": "mine", "engine": "transformers", "contexts": [8192], "batch": 4},
        "a pattern": {"model": "3gdn:1mha", "sizes": {"n_layers": 48, "emb_dim": 2048}, "contexts": [131072]},
    },
    "curve": {
        "formulas": {"model": "google/gemma-3-27b-it", "engine": "transformers"},
        "blocks of vLLM, and a pool": {"model": "Qwen/Qwen3-8B", "engine": "vllm", "context": 32768, "memory": 64424509440},
        "quantised keys and values": {
            "config": QWEN, "engine": "llamacpp", "options": {"type_k": "q8_0", "type_v": "q8_0"}, "batch": 4,
        },
    },
    "cross": {
        "two models": {
            "subjects": [{"model": "Qwen/Qwen3-Next-80B-A3B-Thinking"}, {"model": "deepseek-ai/DeepSeek-V3", "label": "V3"}]
        },
        "two engines": {
            "subjects": [
                {"model": "openai/gpt-oss-20b", "engine": "vllm", "dtype": "bf16"},
                {"model": "openai/gpt-oss-20b", "engine": "sglang", "dtype": "bf16"},
            ],
            "batch": 8,
            "max_ctx": 131072,
        },
    },
    "compare": {
        "what they keep": {"subjects": [{"model": "Qwen/Qwen3-8B"}, {"model": "openai/gpt-oss-20b", "dtype": "bf16"}]},
        "what fits": {
            "subjects": [{"model": "Qwen/Qwen3-Next-80B-A3B-Thinking"}, {"model": "Qwen/Qwen3-8B"}], "gpu": "H100 80GB", "gpus": 4,
        },
    },
    "fit": {
        "four H100": {"model": "Qwen/Qwen3-Next-80B-A3B-Thinking", "gpu": "H100 80GB", "gpus": 4, "context": 32768},
        "weights as given": {"model": "Qwen/Qwen3-8B", "gpu_memory": 25769803776, "weights_bytes": 5200000000, "rooms": True},
    },
}  # fmt: skip
