"""fit on Macs: what Metal gives a process, weights as MLX packed them, caches at their most, and what a forward holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_packed import MADE, llama, written
from test_weights import safetensors

from memcurve import BadConfig, NotDescribed, fit, load
from memcurve.engines.allowances import Sizes
from memcurve.engines.budget import budget

CONFIG = {
    "model_type": "llama", "hidden_size": 256, "num_hidden_layers": 2, "intermediate_size": 512, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "rms_norm_eps": 1e-5, "vocab_size": 1024, "max_position_embeddings": 8192,
}  # fmt: skip
GiB = 2**30
# mx.get_peak_memory of mlx 0.32.4 on a CPU beyond weights and caches, less the scores of attention, which a Mac never has whole:
# (hidden, intermediate, vocabulary, tokens at once, heads): bytes, of Llamas in bf16 with one key-value head of 64 and a prompt of 1,025.
PEAKS = {
    (512, 2048, 1000, 512, 1): 14_821_542, (512, 4096, 1000, 512, 1): 18_884_774, (1024, 2048, 1000, 512, 1): 23_603_366,
    (512, 2048, 1000, 1024, 1): 30_433_444, (512, 1024, 40_000, 512, 1): 12_593_318, (512, 2048, 1000, 512, 8): 23_900_250,
}  # fmt: skip


def checkpoint(folder: Path) -> str:
    written(folder, llama(4, 64, "affine"), None)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization": {"bits": 4, "group_size": 64}}))
    return str(folder)


def test_a_checkpoint_of_mlx_on_a_mac(tmp_path: Path) -> None:
    """Metal gives 96 GiB of 128 (gpus.toml); keys and values of 2 layers, 2 heads of 64, in the dtype of the scales."""
    found = fit(checkpoint(tmp_path), engine="mlx", gpu="M4 Max 128GB", context=4096)
    gpu = found.per_gpu
    assert gpu.total_bytes == 96 * GiB
    assert gpu.weights_bytes == MADE[4, 64, "affine"]
    assert gpu.state_bytes == 2 * 4096 * 2 * (64 + 64) * 2
    assert (found.fits, found.gpus) == (True, 1)


def test_a_limit_of_ones_own(tmp_path: Path) -> None:
    where = checkpoint(tmp_path)
    assert fit(where, engine="mlx", gpu="M4 Max 64GB", wired_limit_mb=57_344).per_gpu.total_bytes == 56 * GiB
    assert fit(where, engine="mlx", gpu="M4 Max 64GB", wired_limit_mb=0).per_gpu.total_bytes == 48 * GiB
    with pytest.raises(BadConfig, match="wired_limit_mb: 70,000; expected at most the 65,536 MiB of M4 Max 64GB"):
        fit(where, engine="mlx", gpu="M4 Max 64GB", wired_limit_mb=70_000)
    with pytest.raises(BadConfig, match="expected a Mac"):
        fit(where, engine="mlx", gpu="H100-80G", wired_limit_mb=57_344)


def test_one_machine_alone(tmp_path: Path) -> None:
    with pytest.raises(NotDescribed, match="how MLX-LM divides layers over machines is not described"):
        fit(checkpoint(tmp_path), engine="mlx", gpu="M4 Max 64GB", pp=2)


def test_what_mlx_drops_and_what_it_would_turn_into_something_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    norm: tuple[str, list[int]] = ("BF16", [256])
    file = {
        "model.norm.weight": norm,
        "vision_tower.norm.weight": norm,
        "model.embed_tokens.weight": ("BF16", [1024, 256]),
    }
    (tmp_path / "model.safetensors").write_bytes(safetensors(file))
    found = fit(str(tmp_path), engine="mlx", gpu="M1 16GB")
    assert found.per_gpu.weights_bytes == 2 * (256 + 1024 * 256)
    assert any("512 B of vision, audio, draft not loaded" in note for note in found.notes)
    (tmp_path / "model.safetensors").write_bytes(safetensors({**file, "model.layers.0.mlp.w": ("F8_E4M3", [4, 4])}))
    with pytest.raises(NotDescribed, match="stored as F8_E4M3"):
        fit(str(tmp_path), engine="mlx", gpu="M1 16GB")


def test_the_moment_of_quantising_counts(tmp_path: Path) -> None:
    """5,000 tokens in caches that are quantised at once: the curve's own peak is what must fit."""
    where = checkpoint(tmp_path)
    curve = load(where).curve("mlx", "bf16", kv_bits=4, quantized_kv_start=5000)
    found = fit(where, engine="mlx", gpu="M1 16GB", context=6200, kv_bits=4, quantized_kv_start=5000)
    way = [one.bytes for one in found.per_gpu.allowances if one.name == "caches on the way"]
    assert way == [curve.peak(6200) - curve.bytes(6200)]
    assert way[0] > 0


@pytest.mark.parametrize("sizes", list(PEAKS))
def test_what_a_forward_holds_covers_what_was_measured(sizes: tuple[int, int, int, int, int]) -> None:
    hidden, wide, words, tokens, heads = sizes
    scores = heads * tokens * 1024 * 2
    own = Sizes(hidden=hidden, vocabulary=words, layers=2, heads=heads, intermediate=wide)
    (activations,) = budget("mlx", 8 * GiB, sizes=own, options={"tokens": tokens})
    assert 1 <= activations.bytes / (PEAKS[sizes] - scores) < 1.3
