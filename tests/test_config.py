"""Configs as read: aliases, defaults, sections, dtypes, and damage of every kind."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest

import memcurve
from memcurve import BadConfig, NotDescribed, catalog, load
from memcurve.base import MemcurveError
from memcurve.config import class_defaults
from memcurve.families import model_types
from memcurve.layers import NoState

LLAMA = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}


def test_a_missing_key_takes_the_class_default() -> None:
    # LlamaConfig(): 32 layers, 32 heads, head_dim 4096 // 32; num_key_value_heads None becomes the heads
    assert load({"model_type": "llama"}).curve(dtype="bf16").bytes(1) == 32 * 32 * 128 * 2 * 2


def test_names_of_old_classes_are_aliases() -> None:
    # GPT-2: n_layer, n_head, n_embd; either name is read
    own = load({"model_type": "gpt2", "n_layer": 3, "n_head": 4, "n_embd": 64})
    other = load({"model_type": "gpt2", "num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 64})
    assert own.layers == other.layers
    assert own.curve(dtype="fp32").bytes(10) == 3 * 10 * 64 * 2 * 4


KINDS = {"F": "full attention", "S": "sliding attention", "D": "gated delta", "K": "kimi delta", "P": "parallel", "C": "latent attention", "M": "mamba2", "X": "cross attention"}  # fmt: skip
KINDS |= {"N": "no state", "I": "sparse indexer", "L": "lightning attention"}
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4}
# Indexers that are shared, and the older word for indexed attention (configuration_glm5_next.py, __post_init__)
GLM5_NEXT = {
    "model_type": "glm5_next_text",
    **SMALL,
    "num_hidden_layers": 4,
    "layer_types": ["full_attention", "indexed_attention", "linear_attention", "full_attention"],
    "indexer_types": ["full", "shared", "full", "shared"],
}


@pytest.mark.parametrize(
    ("config", "kinds"),
    [
        # __post_init__ of each configuration_….py says what layer_types is where the config has none
        ({"model_type": "ministral", **SMALL, "num_hidden_layers": 2, "sliding_window": 9}, "SS"),
        ({"model_type": "ministral", **SMALL, "num_hidden_layers": 2, "sliding_window": None}, "FF"),
        ({"model_type": "dots1", **SMALL, "num_hidden_layers": 4, "sliding_window": 9, "max_window_layers": 2}, "FFSS"),
        ({"model_type": "dots1", **SMALL, "num_hidden_layers": 2, "sliding_window": 9, "max_window_layers": 0}, "SS"),
        (
            {"model_type": "dots1", **SMALL, "num_hidden_layers": 2, "sliding_window": None, "max_window_layers": 0},
            "FF",
        ),
        ({"model_type": "unlimited_ocr_text", **SMALL, "num_hidden_layers": 2, "sliding_window": 9}, "SS"),
        ({"model_type": "unlimited_ocr_text", **SMALL, "num_hidden_layers": 2, "sliding_window": None}, "FF"),
        ({"model_type": "olmo_hybrid", **SMALL, "num_hidden_layers": 5}, "DDDFD"),
        ({"model_type": "olmo_hybrid", **SMALL, "num_hidden_layers": 3}, "DDF"),
        ({"model_type": "granitemoehybrid", **SMALL, "num_hidden_layers": 3}, "MMM"),
        ({"model_type": "zamba2"}, "M" + ("M" * 5 + "P") * 7 + "M" * 4 + "P" + "M" * 3 + "P" + "MM"),
        ({"model_type": "mllama_text_model"}, "FFFX" + "FFFFX" * 7 + "F"),
        ({"model_type": "gemma3n_text", **SMALL, "num_hidden_layers": 7, "num_kv_shared_layers": 6}, "SNNNNNN"),
        (
            {
                "model_type": "qwen2",
                **SMALL,
                "num_hidden_layers": 2,
                "use_sliding_window": True,
                "sliding_window": 9,
                "max_window_layers": 0,
            },
            "SS",
        ),
        (
            {
                "model_type": "qwen2_moe",
                **SMALL,
                "num_hidden_layers": 2,
                "use_sliding_window": True,
                "sliding_window": 9,
                "max_window_layers": 0,
            },
            "FF",
        ),
        (GLM5_NEXT, "PCKC"),
        (
            {
                "model_type": "mistral_large4_text",
                **SMALL,
                "num_hidden_layers": 4,
                "layer_types": ["full_attention", "indexed_attention"] * 2,
                "kv_source_layers": [0, 0, 2, 3],
                "indexer_types": ["full"] * 4,
            },
            "CICP",
        ),
        ({"model_type": "bailing_hybrid", **SMALL, "num_hidden_layers": 5, "layer_group_size": 2}, "KCKCK"),
        (
            {
                "model_type": "bailing_hybrid",
                **SMALL,
                "num_hidden_layers": 4,
                "layer_group_size": 2,
                "architectures": ["BailingMoeV2_5ForCausalLM"],
            },
            "LCLC",
        ),
        (
            {
                "model_type": "qwen4_exp_text",
                **SMALL,
                "num_hidden_layers": 5,
                "full_attention_interval": 2,
                "indexer_head_dim": 8,
            },
            "DPDPD",
        ),
    ],
)
def test_layers_that_a_config_leaves_to_its_class(config: dict[str, Any], kinds: str) -> None:
    assert [layer.kind for layer in load(config).layers] == [KINDS[letter] for letter in kinds]


def test_blt_keeps_bytes_in_its_local_models() -> None:
    # Measured with Transformers 5.23.0 in float32: two encoder and three decoder layers of 4 heads of 8, 23 bytes held
    part = {"hidden_size": 32, "num_attention_heads": 4}
    config = {"model_type": "blt", "encoder_config": {**part, "num_hidden_layers": 2}, "decoder_config": {**part, "num_hidden_layers": 3}}  # fmt: skip
    for changes, held in (({}, 29_440), ({"num_hidden_layers": 10}, 29_440), ({"sliding_window": 8}, 8_960)):
        assert load({**config, **changes}).curve("transformers", "fp32").bytes(23) == held
    config["encoder_config"] = {**part, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 64}
    assert load(config).curve("transformers", "fp32").bytes(23) == 23_552
    with pytest.raises(BadConfig, match=r"^num_hidden_layers: 2; expected an integer from 3 to "):
        load({**config, "num_hidden_layers": 2})


def test_falcons_heads_are_counted_before_they_are_repeated() -> None:
    # Falcon-40B: 8 key-value heads of 64 on paper, repeated to all 128 in Transformers (modeling_falcon.py, _split_heads)
    falcon = {"model_type": "falcon", "hidden_size": 8192, "num_hidden_layers": 60, "num_attention_heads": 128, "num_kv_heads": 8, "new_decoder_architecture": True}  # fmt: skip
    assert load(falcon).curve("logical", "bf16").bytes(1) == 60 * 8 * 64 * 2 * 2
    assert load(falcon).curve("transformers", "bf16").bytes(1) == 60 * 128 * 64 * 2 * 2
    del falcon["num_kv_heads"]
    assert load(falcon).curve("logical", "bf16").bytes(1) == 60 * 128 * 64 * 2 * 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "exaone4", **SMALL, "sliding_window": 9, "sliding_window_pattern": "LLLX"}, "sliding_window_pattern: 'LLLX'; expected an integer, or a text of L and G"),
        ({"model_type": "gemma3n_text", **SMALL, "num_hidden_layers": 7, "num_kv_shared_layers": 7}, "num_kv_shared_layers: 7; expected an integer from 0 to 6"),
        ({"model_type": "reformer", "attn_layers": []}, 'attn_layers: a list; expected a list of "local" and "lsh"'),
        ({"model_type": "reformer", "attn_layers": ["local", "lhs"]}, 'attn_layers: a list; expected a list of "local" and "lsh"'),
        ({"model_type": "recurrent_gemma", "block_types": ["attention", "conv"]}, 'block_types: a list; expected a list of "recurrent" and "attention"'),
        ({"model_type": "hrm_text", "num_hidden_layers": 3, "H_cycles": 1667, "L_cycles": 1}, "num_hidden_layers: 10002; expected an integer from 1 to 10000"),
        ({"model_type": "longcat_flash", "num_layers": 5001}, "num_layers: 5001; expected an integer from 1 to 5000"),
        ({"model_type": "bart", "decoder_layers": 10_001}, "decoder_layers: 10001; expected an integer from 1 to 10000"),
        ({"model_type": "t5", "num_decoder_layers": 10_001}, "num_decoder_layers: 10001; expected an integer from 1 to 10000"),
        ({"model_type": "prophetnet", "num_decoder_layers": 10_001}, "num_decoder_layers: 10001; expected an integer from 1 to 10000"),
        ({"model_type": "cpmant", "prompt_length": 0}, "prompt_length: 0; expected an integer from 1 to "),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(config)
    assert str(caught.value).startswith(message)


def test_a_type_without_an_answer_says_why() -> None:
    for name, message in (
        ("xlm", "model type 'xlm' has no answer: Transformers keeps no cache for it: every step reads the whole context again"),
        ("qqqqqq", "model type 'qqqqqq' is not described"),
    ):  # fmt: skip
        with pytest.raises(NotDescribed) as caught:
            load({"model_type": name})
        assert str(caught.value) == message


def test_layers_without_state_say_why() -> None:
    shared = load({"model_type": "gemma3n_text", **SMALL, "num_hidden_layers": 7, "num_kv_shared_layers": 6})
    assert [layer.why for layer in shared.layers if isinstance(layer, NoState)] == ["reads another layer's keys and values"] * 6  # fmt: skip
    nemotron = load({"model_type": "nemotron_h", "layers_block_type": ["mlp", "moe", "attention"]})
    assert [layer.why for layer in nemotron.layers if isinstance(layer, NoState)] == ["mlp layer", "moe layer"]


def test_qwen4s_indexers_share_one_list_of_positions() -> None:
    # Two indexed layers of 4 heads of 16, 100 tokens: 2 × (keys and values, index keys of 8) in bf16, and once 3 int64
    # positions a token beside them (forward of Qwen4ExpTextModel, modeling_qwen4_exp.py)
    sizes = {**SMALL, "head_dim": 16, "indexer_head_dim": 8, "num_hidden_layers": 2}
    config = {"model_type": "qwen4_exp_text", **sizes, "layer_types": ["indexed_attention"] * 2}
    curve = load(config).curve("transformers", "bf16")
    assert curve.bytes(100) == 2 * 100 * (2 * 4 * 16 + 8) * 2 + 100 * 3 * 8


def test_xlnets_memory_is_as_long_as_mem_len_says() -> None:
    config = {"model_type": "xlnet", "d_model": 64, "n_layer": 2, "n_head": 4}
    # hidden states of 64, the last 10 of them, or all
    assert load({**config, "mem_len": 10}).curve("transformers", "bf16").bytes(100) == 2 * 64 * 2 * 10
    assert load({**config, "mem_len": None}).curve("transformers", "bf16").bytes(100) == 2 * 64 * 2 * 100


@pytest.mark.parametrize("section", ["text_config", "llm_config", "language_config"])
def test_a_nested_decoder_is_found(section: str) -> None:
    model = load({"model_type": "my_vision_model", section: LLAMA, "vision_config": {"hidden_size": 8}})
    assert model.model_type == "llama"
    assert model.layers == load(LLAMA).layers


def test_sizes_below_a_decoders_own_type_are_found() -> None:
    inner = {**LLAMA, "num_hidden_layers": 26}
    assert len(load({"model_type": "llama", "text_config": inner}).layers) == 26
    assert len(load({**LLAMA, "text_config": inner}).layers) == 32
    assert len(load("mlc/ministral3_3b_2512").layers) == 26


def test_the_text_sections_dtype_comes_first() -> None:
    config = {"model_type": "llava", "torch_dtype": "float32", "text_config": {**LLAMA, "dtype": "bfloat16"}}
    assert load(config).dtype == "bfloat16"
    assert load({**LLAMA, "torch_dtype": "float16", "dtype": "bfloat16"}).dtype == "bfloat16"
    assert load({**LLAMA, "torch_dtype": "float16"}).curve().dtype == "float16"


def test_both_spellings_of_a_dtype() -> None:
    for short, long in (("bf16", "bfloat16"), ("fp16", "torch.float16"), ("fp32", "float32"), ("fp8", "float8_e4m3fn")):
        assert load(LLAMA).curve(dtype=short) == load(LLAMA).curve(dtype=long)
    with pytest.raises(BadConfig, match="dtype: missing"):
        load(LLAMA).curve()
    with pytest.raises(BadConfig, match=r"dtype: 'bf61'.*nearest: bf16"):
        load(LLAMA).curve(dtype="bf61")


def test_a_sliding_window_without_layer_types_slides_every_layer() -> None:
    model = load({**LLAMA, "model_type": "mistral", "sliding_window": 100})
    capped = "a window caps every layer that grows: from {} tokens on, more take no more bytes"
    assert model.curve(dtype="bf16").notes == (capped.format(100),)
    # Transformers keeps one token less
    assert model.curve("transformers", dtype="bf16").notes == (capped.format(99),)
    assert load({**LLAMA, "model_type": "mistral", "sliding_window": None}).notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": -3}, "num_hidden_layers: -3; expected an integer from 1 to 10000"),
        ({"num_hidden_layers": True}, "num_hidden_layers: True"),
        ({"num_hidden_layers": "32"}, "num_hidden_layers: '32'"),
        ({"num_attention_heads": float("nan")}, "num_attention_heads: nan"),
        ({"num_attention_heads": 4.5}, "num_attention_heads: 4.5"),
        ({"num_attention_heads": 8192}, "hidden_size // num_attention_heads: 0"),
        ({"hidden_size": 10**40}, "hidden_size: 1000"),
        ({"hidden_size": [1]}, "hidden_size: a list"),
        (
            {"layer_types": ["full_attention"]},
            "layer_types: '1 entries'; expected one per layer, num_hidden_layers = 32",
        ),
        ({"layer_types": 5}, "layer_types: 5; expected a list"),
        ({"sliding_window": 0}, "sliding_window: 0"),
        ({"model_type": 5}, "model_type: 5; expected a string"),
        ({"model_type": None}, "model_type: missing"),
        ({"num_hidden_layers": 9999, "num_key_value_heads": 10**6}, "its sizes give"),
    ],
)
def test_bad_values_name_key_value_and_what_was_expected(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadConfig) as caught:
        load(LLAMA | change).curve(dtype="bf16")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_types_and_words_name_the_nearest() -> None:
    with pytest.raises(NotDescribed, match="'qwen3_nxt' is not described; nearest: qwen3_next"):
        load({"model_type": "qwen3_nxt"})
    with pytest.raises(
        NotDescribed, match=r"layer_types\[0\]: 'fulll_attention' is not described for llama.*nearest: full_attention"
    ):
        load({**LLAMA, "layer_types": ["fulll_attention"] * 32})
    with pytest.raises(NotDescribed, match="'llama-3' is no file, and not in the catalogue; nearest"):
        load("llama-3")


@pytest.mark.parametrize("source", [None, 5, [LLAMA], b"x", "", "a\0b"])
def test_load_takes_dicts_and_names(source: Any) -> None:
    with pytest.raises(BadConfig, match="load: "):
        load(source)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "holds a list; expected a JSON object"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"model_type": "llama", "x": ' + "[" * 40 + "]" * 40 + "}", "nested too deeply"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "not JSON"),
        ('{"model_type": "llama", "x": "' + "y" * 4_200_000 + '"}', "larger than"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    for source in (path, str(path), tmp_path):
        with pytest.raises(BadConfig, match=message):
            load(source)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadConfig, match="not UTF-8"):
        load(path)
    with pytest.raises(BadConfig, match="No such file"):
        load(tmp_path / "missing.json")


def test_names_of_models(tmp_path: Path) -> None:
    folder = tmp_path / "My-Model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert load(folder).name == load(folder / "config.json").name == "My-Model"
    (tmp_path / "other.json").write_text(json.dumps(LLAMA))
    assert load(tmp_path / "other.json").name == "other"
    assert load(LLAMA).name == "llama"


def test_every_catalogue_model_has_curves(count: Any) -> None:
    names = catalog.names()
    for name in names:
        model = load(name)
        for engine in ("logical", "transformers"):
            assert 0 < model.curve(engine, "bf16").bytes(4096) < 10**15
        assert catalog.fidelity(name) in ("byte copy", "preset", "retyped", "trimmed", "quoted", "printed")
    count(f"catalogue: {len(names)} models")
    assert load("qwen/qwen3-8b").layers == load("Qwen/Qwen3-8B").layers
    assert catalog.find("../catalog/Qwen/Qwen3-8B") is None


def test_every_type_with_a_class_answers_with_nothing_but_its_name(count: Any) -> None:
    types = [name for name in model_types() if class_defaults(name)]
    for name in types:
        assert load({"model_type": name}).curve("transformers", "bf16").bytes(10, 1, 10) > 0
    count(f"model types described: {len(model_types())}, of which {len(types)} have a class in Transformers")


DAMAGE: list[Any] = [
    None, -1, 0, 1, 2**31, 10**30, 0.5, 2.0, -0.0, math.nan, math.inf, "", "x", "8", [], [1], ["full_attention"], {}, {"a": 1},
    True, False, [None] * 3, [[1]], [-1] * 9, "auto", "sliding_attention",
]  # fmt: skip


def damaged(config: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    config = copy.deepcopy(config)
    for _ in range(chance.randint(1, 3)):
        target: Any = config
        nested = [value for value in config.values() if isinstance(value, dict)]
        if nested and chance.random() < 0.6:
            target = chance.choice(nested)
        if not target:
            continue
        key = chance.choice(list(target))
        match chance.randint(0, 4):
            case 0:
                del target[key]
            case 1 if isinstance(target[key], list) and target[key]:
                target[key][chance.randrange(len(target[key]))] = chance.choice(DAMAGE)
            case 2:
                target[key] = {key: target[key]}
            case 3:
                target[
                    chance.choice(["sliding_window", "layer_types", "per_layer_config", "head_dim", "text_config"])
                ] = chance.choice(DAMAGE)
            case _:
                target[key] = chance.choice(DAMAGE)
    return config


def test_forty_seconds_of_damage(count: Any) -> None:
    configs = [catalog.find(name) or {} for name in catalog.names()]
    configs += [{"model_type": name, **(class_defaults(name) or {}).get("defaults", {})} for name in model_types()]
    seed = int(time.time())
    chance = random.Random(seed)
    end, runs, answers, lines = time.monotonic() + 40, 0, 0, 0
    while time.monotonic() < end:
        config = damaged(chance.choice(configs), chance)
        started = time.monotonic()
        try:
            for engine in ("logical", "transformers", chance.choice(("vllm", "sglang", "llamacpp"))):
                curve = load(config).curve(engine, chance.choice([None, "bf16", "fp32"]))
                if curve.allocator is not None:
                    curve.pool(60 * 2**30)
                for context in (1, 131_072, 10**6):
                    assert 0 <= curve.bytes(context) <= 10**24, config
            answers += 1
        except MemcurveError as error:
            lines += str(error).count("\n")
        assert time.monotonic() - started < 1, (seed, config)
        runs += 1
    count(f"damaged configs: {runs} (seed {seed}), {answers} still answered, only memcurve's own errors")
    assert runs > 1000
    assert lines == 0


def test_public_names() -> None:
    assert len(memcurve.__all__) <= 17
    for name in memcurve.__all__:
        assert getattr(memcurve, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = memcurve.nothing
