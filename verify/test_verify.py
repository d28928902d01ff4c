"""`memcurve verify` with torch and transformers: pytest verify"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import weights
from learned.symbols import CONDITIONS, Number, tracing

from memcurve import cli
from memcurve.shrink import base_keys, keys_like
from memcurve.verify import transformers as verify

# A decoder of one's own code under a hub-only type, as a repository would hold it.
CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class InternConfig(LlamaConfig):
    model_type = "internlm2"

class InternForCausalLM(LlamaForCausalLM):
    config_class = InternConfig
"""
CONFIG = {
    "model_type": "internlm2",
    "auto_map": {"AutoConfig": "own.InternConfig", "AutoModelForCausalLM": "own.InternForCausalLM"},
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "intermediate_size": 14336, "vocab_size": 92544,
}  # fmt: skip


def test_types_and_configs_are_equal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verify", "llama", "qwen3_next", "Qwen/Qwen3-Next-80B-A3B-Thinking"]) == 0
    out = capsys.readouterr().out
    assert out.count("14 cases    14 equal    14 by tensor  equal") == 3
    assert "42 of 42 cases equal" in out


def test_a_difference_is_named_and_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = verify.load
    monkeypatch.setattr(verify, "load", lambda config: real({**config, "num_key_value_heads": 1}))
    assert cli.run(["verify", "llama"]) == 1
    # 3 layers of 5 tokens, key and value: 1 head of 16 in 2 B is 160 B a tensor, the model's 4 heads are 640 B
    assert (
        "differs context 5, batch 1: memcurve 960, Transformers 3,840; only memcurve: 6 × 160 B; only Transformers: 6 × 640 B"
        in capsys.readouterr().out
    )


def test_a_shrunken_config_keeps_its_structure() -> None:
    keys = keys_like({
        "model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 12, "num_attention_heads": 32,
        "num_key_value_heads": 1, "sliding_window": 1024, "layer_types": (["sliding_attention"] * 2 + ["full_attention"]) * 4,
    })  # fmt: skip
    assert keys["layer_types"] == ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"]
    assert keys["num_key_value_heads"] == 1
    assert keys["hidden_size"] == 64
    assert base_keys("gemma3_text")["num_key_value_heads"] == 2


def test_tensors_are_counted_once() -> None:
    tensor = torch.zeros(2, 3)
    assert (
        verify.distinct_bytes([("a", [("keys", tensor), ("values", tensor)]), ("b", [("keys", torch.zeros(5))])]) == 44
    )


def test_weights_are_as_transformers_makes_them() -> None:
    weights.prepare()
    rows = [weights.compare(case) for case in weights.cases(["llama", "qwen3_next", "gemma3"], 1)]
    assert {outcome for _, outcome, _, _ in rows} <= {"equal", "no class", "refused", "not a model"}
    assert sum(outcome == "equal" for _, outcome, _, _ in rows) > 10


def test_parameters_remember_what_they_are_made_of() -> None:
    width, heads = Number(8, "hidden_size"), Number(2, "num_attention_heads")
    with tracing():
        layer = torch.nn.Linear(width, 3 * (width // heads), bias=width > 4)
    assert layer.weight.dimensions == (("*", ("//", "hidden_size", "num_attention_heads"), 3), "hidden_size")
    assert layer.weight.shape == (12, 8)
    assert ("<", 4, "hidden_size") in CONDITIONS


def test_code_of_a_folder_runs_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.py").write_text(CODE)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(ValueError, match="expected one that Transformers has"):
        cli.run(["verify", str(tmp_path)])
    assert cli.run(["verify", "--trust-remote-code", str(tmp_path)]) == 0
    assert "14 cases" not in capsys.readouterr().err
