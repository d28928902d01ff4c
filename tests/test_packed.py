"""Weights as MLX packs them. Expected: what mlx_lm 0.32.2's quantize_model made of the same Llama of two layers, and its get_total_parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_weights import safetensors

from memcurve import BadFile, weights

HIDDEN, HEADS, KV, DIM, WIDE, WORDS, LAYERS = 256, 4, 2, 64, 512, 1024, 2
# Rows and columns of the matrices of a layer; embedding and head are of WORDS rows.
MATRICES = {
    "self_attn.q_proj": (HEADS * DIM, HIDDEN), "self_attn.k_proj": (KV * DIM, HIDDEN),
    "self_attn.v_proj": (KV * DIM, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * DIM),
    "mlp.gate_proj": (WIDE, HIDDEN), "mlp.up_proj": (WIDE, HIDDEN), "mlp.down_proj": (HIDDEN, WIDE),
}  # fmt: skip
NUMBERS = 1_705_216
# (bits, group, mode): bytes of the whole model, from MLX.
MADE = {
    (4, 64, "affine"): 961_024, (8, 64, "affine"): 1_812_992, (3, 32, "affine"): 854_528, (6, 128, "affine"): 1_333_760,
    (4, 32, "mxfp4"): 907_776, (8, 32, "mxfp8"): 1_759_744, (4, 16, "nvfp4"): 961_024,
}  # fmt: skip


def packed(rows: int, columns: int, bits: int, group: int, mode: str) -> dict[str, tuple[str, list[int]]]:
    """A matrix as mx.quantize packs it: words of 32 bits, and a scale (and in affine a bias) per group of a row."""
    beside = ("BF16" if mode == "affine" else "U8", [rows, columns // group])
    found = {"weight": ("U32", [rows, columns * bits // 32]), "scales": beside}
    return {**found, "biases": beside} if mode == "affine" else found


def llama(bits: int, group: int, mode: str, other: dict[str, tuple[int, int]] | None = None) -> bytes:
    """The file of the model; `other`: bits and group of matrices that have their own."""
    found: dict[str, tuple[str, list[int]]] = {"model.norm.weight": ("BF16", [HIDDEN])}
    every = {"model.embed_tokens": (WORDS, HIDDEN), "lm_head": (WORDS, HIDDEN)}
    for layer in range(LAYERS):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"model.layers.{layer}.{norm}.weight"] = ("BF16", [HIDDEN])
        every |= {f"model.layers.{layer}.{name}": size for name, size in MATRICES.items()}
    for name, (rows, columns) in every.items():
        how = next((own for end, own in (other or {}).items() if name.endswith(end)), (bits, group))
        found |= {f"{name}.{part}": value for part, value in packed(rows, columns, *how, mode).items()}
    return safetensors(found)


def written(folder: Path, file: bytes, quantization: dict[str, Any] | None) -> Path:
    (folder / "model.safetensors").write_bytes(file)
    if quantization is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization": quantization}))
    return folder


@pytest.mark.parametrize("how", list(MADE))
def test_bytes_as_stored_and_numbers_as_the_model_has_them(how: tuple[int, int, str], tmp_path: Path) -> None:
    bits, group, mode = how
    said = {"bits": bits, "group_size": group, "mode": mode}
    found = weights(str(written(tmp_path, llama(*how), said)))
    assert (found.bytes, found.parameters, found.notes) == (MADE[how], NUMBERS, ())


def test_layers_with_bits_of_their_own(tmp_path: Path) -> None:
    own = {f"model.layers.{layer}.self_attn.v_proj": {"group_size": 32, "bits": 8} for layer in range(LAYERS)}
    file = llama(4, 64, "affine", {"v_proj": (8, 32)})
    found = weights(str(written(tmp_path, file, {"bits": 4, "group_size": 64, **own})))
    assert (found.bytes, found.parameters, found.notes) == (997_888, NUMBERS, ())


def test_without_a_config_only_what_the_shapes_say(tmp_path: Path) -> None:
    """4 bits in groups of 64 and 8 in groups of 32 have the same shapes; 6 in groups of 128 are the only ones of theirs."""
    ambiguous = weights(str(written(tmp_path, llama(4, 64, "affine"), None)))
    assert ambiguous.bytes == MADE[4, 64, "affine"]
    assert "16 packed weights count as stored words" in ambiguous.notes[0]
    plain = weights(str(written(tmp_path, llama(6, 128, "affine"), None)))
    assert (plain.parameters, plain.notes) == (NUMBERS, ())
    for how in ((4, 32, "mxfp4"), (8, 32, "mxfp8"), (4, 16, "nvfp4")):
        assert weights(str(written(tmp_path, llama(*how), None))).parameters == NUMBERS


def test_a_config_that_does_not_agree_with_the_shapes_is_not_believed(tmp_path: Path) -> None:
    found = weights(str(written(tmp_path, llama(6, 128, "affine"), {"bits": 4, "group_size": 64})))
    assert found.parameters == NUMBERS


def test_words_without_scales_are_words(tmp_path: Path) -> None:
    file = safetensors({"model.ids.weight": ("U32", [4, 8]), "model.norm.scales": ("BF16", [4, 2])})
    assert weights(str(written(tmp_path, file, None))).parameters == 4 * 8 + 4 * 2


def test_a_config_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = written(tmp_path, llama(4, 64, "affine"), None)
    (folder / "config.json").write_text("{")
    with pytest.raises(BadFile, match=r"config\.json: not JSON"):
        weights(str(folder))
