"""Fifteen published models: bf16, one sequence of 131,072 tokens, the paper's count, each number derived by hand."""

from __future__ import annotations

from typing import Any

T = 131_072
# The two whose own files are not in the catalogue, with the sizes published.
MINIMAX_TEXT_01 = {
    "model_type": "minimax_text_01", "architectures": ["MiniMaxText01ForCausalLM"], "hidden_size": 6144,
    "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 128,
    "attn_type_list": ([0] * 7 + [1]) * 10,
}  # fmt: skip
RWKV7_2_9B = {"model_type": "rwkv7", "hidden_size": 2560, "num_hidden_layers": 32, "head_dim": 64}

FIFTEEN: list[tuple[str, Any, int]] = [
    # 32 layers × 8 heads × 128 × (key + value) × 2 B = 131,072 B a token
    ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", 32 * 8 * 128 * 2 * 2 * T),
    # the same per token, but every layer keeps 4,096 tokens at most
    ("Mistral-7B-v0.1", "mistralai/Mistral-7B-v0.1", 32 * 8 * 128 * 2 * 2 * 4096),
    # 62 layers, every sixth full: 10 full, 52 sliding over 1,024; 16 heads × 128 × 2 × 2 B = 8,192 B
    # as first published, without layer_types, and as a preset
    ("Gemma-3-27B", "google/gemma-3-27b-it", 8192 * (10 * T + 52 * 1024)),
    ("Gemma-3-27B", "maxtext/gemma3_27b", 8192 * (10 * T + 52 * 1024)),
    # 12 full and 12 sliding layers over 128 tokens; 8 heads × 64 × 2 × 2 B = 2,048 B
    ("gpt-oss-20b", "openai/gpt-oss-20b", 2048 * 12 * (T + 128)),
    # 35 layers, the last 15 share: of the first 20 every fifth is full; 2 heads × 256 × 2 × 2 B = 2,048 B
    ("Gemma-3n-E4B", "google/gemma-3n-E4B-it", 2048 * (4 * T + 16 * 512)),
    # every fourth of 48 layers is full, 36 attend within chunks of 8,192; 8 × 128 × 2 × 2 B = 4,096 B
    ("Llama-4-Scout", "meta-llama/Llama-4-Scout-17B-16E-Instruct", 4096 * (12 * T + 36 * 8192)),
    # 61 layers × (512 latent + 64 rotary) × 2 B
    ("DeepSeek-V3", "deepseek-ai/DeepSeek-V3", 61 * (512 + 64) * 2 * T),
    # the same and 128 index keys a token
    ("DeepSeek-V3.2", "deepseek-ai/DeepSeek-V3.2", 61 * (512 + 64 + 128) * 2 * T),
    # 12 full layers × 2 heads × 256 × 2 × 2 B; 36 Gated DeltaNet layers: 3 columns of
    # 2·16·128 + 32·128 = 8,192 channels in bf16, and 32 matrices of 128 × 128 in fp32
    (
        "Qwen3-Next-80B-A3B",
        "Qwen/Qwen3-Next-80B-A3B-Thinking",
        12 * 2048 * T + 36 * (3 * 8192 * 2 + 32 * 128 * 128 * 4),
    ),
    # 7 latent layers; 20 Kimi Delta layers: 3 columns of 3·32·128 channels, 32 matrices of 128 × 128 in fp32
    (
        "Kimi-Linear-48B",
        "moonshotai/Kimi-Linear-48B-A3B-Instruct",
        7 * 576 * 2 * T + 20 * (3 * 3 * 4096 * 2 + 32 * 128 * 128 * 4),
    ),
    # 4 attention layers × 8 × 128 × 2 × 2 B; 28 Mamba layers of
    # 8,192 channels: 3 columns in bf16, 16 states in fp32
    ("Jamba-1.5-mini", "ai21labs/AI21-Jamba-1.5-Mini", 4 * 4096 * T + 28 * 8192 * (3 * 2 + 16 * 4)),
    # 44 layers with both: 2 × 128 × 2 × 2 B a token; 3,072 + 2·256 channels × 3 columns, 24 × 128 × 256 in fp32
    ("Falcon-H1-7B", "tiiuae/Falcon-H1-7B-Base", 44 * (1024 * T + 3584 * 3 * 2 + 24 * 128 * 256 * 4)),
    # every eighth of 80 layers is softmax attention, 8 × 128 × 2 × 2 B; 70 keep 64 matrices of 128 × 128 in fp32
    ("MiniMax-Text-01", MINIMAX_TEXT_01, 10 * 4096 * T + 70 * 64 * 128 * 128 * 4),
    # 64 layers: 80 heads × 64 × 128 states in fp32; 5,120 + 2·128 channels × 3 columns in bf16
    ("Mamba-2 2.7B", "state-spaces/mamba2-2.7b", 64 * (80 * 64 * 128 * 4 + 5376 * 3 * 2)),
    # 32 layers: 40 matrices of 64 × 64 in fp32, two shifted tokens of 2,560 in bf16
    ("RWKV-7 2.9B", RWKV7_2_9B, 32 * (40 * 64 * 64 * 4 + 2 * 2560 * 2)),
]
PUBLISHED_TOTALS = {
    "Llama-3.1-8B": 17_179_869_184, "Mistral-7B-v0.1": 536_870_912, "Gemma-3-27B": 11_173_625_856,
    "gpt-oss-20b": 3_224_371_200, "Gemma-3n-E4B": 1_090_519_040, "Llama-4-Scout": 7_650_410_496,
    "DeepSeek-V3": 9_210_691_584, "DeepSeek-V3.2": 11_257_511_936, "Qwen3-Next-80B-A3B": 3_298_492_416,
    "Kimi-Linear-48B": 1_100_382_208, "Jamba-1.5-mini": 2_163_539_968, "Falcon-H1-7B": 6_044_938_240,
    "MiniMax-Text-01": 5_662_310_400, "Mamba-2 2.7B": 169_836_544, "RWKV-7 2.9B": 21_299_200,
}  # fmt: skip
