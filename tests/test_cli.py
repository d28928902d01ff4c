"""The command line as a user meets it: output, JSON, errors of one line, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from test_gguf import encoded

import memcurve
from memcurve import cli, load

QWEN = "Qwen/Qwen3-Next-80B-A3B-Thinking"


def call(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "memcurve", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def test_estimate_explains_itself() -> None:
    done = call("estimate", QWEN, "--context", "131072", "--engine", "transformers", "--explain")
    assert done.returncode == 0
    # 12 layers × T × 2·256·2 × 2 B, and K = 4 columns of 8,192 channels in bf16 beside 32 × 128 × 128 in fp32.
    assert "48 layers: 36 gated delta + 12 full attention" in done.stdout
    assert "3,299,082,240 bytes (3.07 GiB) at 131,072 tokens" in done.stdout
    assert "full attention (key, value): 12 layers × 131,072 slots × 2,048 B = 3,221,225,472 B" in done.stdout
    assert "gated delta (conv_state): 36 layers × 1 slot × 65,536 B = 2,359,296 B" in done.stdout
    assert "12 × T × 2,048 B" in done.stdout


def test_several_contexts_make_a_table() -> None:
    done = call("estimate", QWEN, "--context", "4k,32k,1M")
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["4k", "32k", "1M"]
    assert [int(line.split()[1].replace(",", "")) for line in lines[3:]] == [
        load(QWEN).curve().bytes(n) for n in (4096, 32768, 2**20)
    ]


def test_json_schema() -> None:
    done = call("estimate", QWEN, "--context", "4k,32k", "--batch", "3", "--json", "-O", "state_dtype=bf16")
    data = json.loads(done.stdout)
    assert data["schema"] == 1
    assert [entry["context"] for entry in data["estimates"]] == [4096, 32768]
    for entry in data["estimates"]:
        assert all(isinstance(entry[key], int) for key in ("bytes", "growing_bytes", "constant_bytes"))
        assert sum(row["bytes"] for row in entry["breakdown"]) == entry["bytes"]
        for row in entry["breakdown"]:
            assert row["bytes"] == row["layers"] * row["slots"] * row["bytes_per_slot"] * row["sequences"]
    assert data["estimates"][0]["bytes"] == load(QWEN).curve(state_dtype="bf16").bytes(4096, 3)
    one = json.loads(call("estimate", QWEN, "--context", "4k", "--json").stdout)
    assert one["bytes"] == one["estimates"][0]["bytes"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["estimate", "nowhere.json"], 2, "nowhere.json: No such file or directory"),
        (["estimate", "qwen3-next"], 3, "'qwen3-next' is no file, and not in the catalogue"),
        (["estimate", QWEN, "--context", "4x"], 2, "context: '4x'; expected a whole number"),
        (["estimate", QWEN, "--context", "1,024"], 2, "context: '1,024'; expected 1024 for one count, or 1, 024 with"),
        (["estimate", "Qwen3-Nxt"], 3, f"nearest: {QWEN}"),
        (["estimate", QWEN, "--dtype", "int4"], 2, "(nearest: int8)"),
        (["estimate", QWEN, "--encoder_context", "5"], 2, "keeps nothing of an encoder"),
        (["models", "--kind", "ssm"], 2, "kind: 'ssm'; expected one of"),
        (["models", "--type", "lama"], 3, "model type 'lama' is not described; nearest: llama"),
        (["plot", "-o", ".png"], 2, "output '.png': expected a name that ends in one of"),
        (["plot", "mha", "--batch", "0", "--log", "y", "-o", "/dev/null.png"], 2, "log: y; every value is 0"),
        (["plot", QWEN, "--n_layers", "7"], 2, "n_layers: sizes are for patterns"),
        (["plot", "--window", "7"], 2, "window: the seed's figure has none"),
        (["estimate", QWEN, "--context", ""], 2, "context: ''; expected a whole number"),
        (["estimate", QWEN, "--engine", "transformer"], 2, "nearest: transformers"),
        (["estimate", QWEN, "-O", "cache=static"], 2, "cache: 'static'; not an option of engine logical"),
        (
            ["estimate", "openai/gpt-oss-20b"],
            2,
            'dtype: missing in the config of openai/gpt-oss-20b; give one, such as dtype="bf16"',
        ),
        (["estimate", "3gdnx:1mha"], 2, "'gdnx'; expected a kind"),
        (["estimate"], 2, "required: model (see: memcurve estimate --help)"),
        (["compare", QWEN, "--gpus", "2"], 2, "gpus: 2; expected --gpu or --gpu_memory beside it"),
        (["estimat"], 2, "command 'estimat'; expected one of plot, cross, estimate, fit, compare"),
        (["plot", "-o", "/no/such/place.svg"], 2, "/no/such/place.svg: No such file or directory"),
        (["plot", "3gdn:1mha", "-o", "a.xyz"], 2, "'a.xyz'"),
    ],
)
def test_errors_are_one_line(words: list[str], code: int, message: str) -> None:
    done = call(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_not_described_is_code_3(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "lama", "hidden_size": 8}')
    done = call("estimate", str(tmp_path))
    assert done.returncode == 3
    assert re.search(r"'lama' is not described; nearest: .*llama", done.stderr)


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    config = {"model_type": "llama\x1b[31m", "hidden_size": 8}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "\x1b" not in call("estimate", str(tmp_path)).stderr


def test_models_lists_and_filters() -> None:
    data = json.loads(call("models", "--kind", "gdn", "--json").stdout)
    names = {entry["name"] for entry in data["models"]}
    assert QWEN in names
    assert "deepseek-ai/DeepSeek-V3" not in names
    assert all("gated delta" in entry["structure"] for entry in data["models"])
    typed = call("models", "--type", "deepseek_v32").stdout
    assert "deepseek-ai/DeepSeek-V3.2" in typed
    assert "61 latent attention with sparse indexer" in typed
    types = json.loads(call("models", "--types", "--json").stdout)["types"]
    assert {"llama", "qwen3_next", "t5"} <= {entry["type"] for entry in types}


def test_filters_of_models() -> None:
    # Mamba-2 is no Mamba, and a word that is no kind or type is an error
    rows = json.loads(call("models", "--kind", "mamba", "--json").stdout)["models"]
    assert rows
    assert all(re.search(r"\bmamba\b", row["structure"]) for row in rows)
    types = json.loads(call("models", "xlstm", "--types", "--json").stdout)["types"]
    assert [entry["type"] for entry in types] == ["xlstm"]


def test_what_a_user_must_know_is_noted(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    # "num_hidden_layer" is no key: 32 layers are LlamaConfig's
    config.write_text('{"model_type": "llama", "num_hidden_layer": 4, "hidden_size": 64, "num_attention_heads": 4}')
    done = call("estimate", str(config), "--dtype", "bf16", "--context", "4")
    assert "note: not in the config, so as the class of llama has it: num_hidden_layers 32\n" in done.stdout
    config.write_text('{"model_type": "bert"}')
    assert "note: is_decoder is false" in call("estimate", str(config), "--dtype", "bf16").stdout
    config.write_text('{"model_type": "bert", "is_decoder": true}')
    assert "is_decoder" not in call("estimate", str(config), "--dtype", "bf16").stdout
    config.write_text('{"model_type": "t5", "num_layers": 3}')
    assert "encoder_context says how many" in call("estimate", str(config), "--dtype", "bf16").stdout
    out = tmp_path / "t5.csv"
    call("plot", str(config), "--dtype", "bf16", "--encoder_context", "9", "--max_ctx", "128", "-o", str(out))
    # 3 layers of 8 heads of 64: keys and values of 128 tokens and 9 positions
    assert out.read_text().splitlines()[1] == f"128,{3 * 2 * 8 * 64 * 2 * (128 + 9)}"


def test_whispers_encoder_always_gives_1500_positions(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    # WhisperConfig(): 4 layers of 384, keys and values of the 448 tokens and the 1,500 positions
    words = ("estimate", str(tmp_path), "--context", "448", "--dtype", "fp16", "--json")
    assert json.loads(call(*words).stdout)["bytes"] == 4 * 2 * 384 * 2 * (448 + 1500)
    assert json.loads(call(*words, "--encoder_context", "0").stdout)["bytes"] == 4 * 2 * 384 * 2 * 448


def test_labels_are_words(tmp_path: Path) -> None:
    out = tmp_path / "a.csv"
    call("plot", "gdn@label=007", "mha@label=true", "--max_ctx", "128", "-o", str(out))
    assert out.read_text().splitlines()[0] == "context,007,true"


def test_plot_formats_and_options(tmp_path: Path) -> None:
    subjects = [QWEN, "3gdn:1mha", "openai/gpt-oss-20b@engine=transformers,dtype=bf16,label=oss"]
    for ending, start in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF"), ("html", b"<!doctype html>")):
        done = call("plot", *subjects, "-o", f"a.{ending}", "--max_ctx", "8k", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"a.{ending}").read_bytes().startswith(start)
    call("plot", *subjects, "-o", "a.json", "--max_ctx", "8k", cwd=tmp_path)
    data = json.loads((tmp_path / "a.json").read_text())
    assert [entry["name"] for entry in data["subjects"]] == [
        f"{QWEN} · logical",
        "3gdn:1mha · logical",
        "oss · transformers",
    ]
    # W = 128: Transformers keeps 127 tokens, and the corner is among the contexts.
    assert data["subjects"][2]["breakpoints"] == [127]
    assert {127, 8192} <= set(data["contexts"]) | {127}
    assert all(len(entry["bytes"]) == len(data["contexts"]) for entry in data["subjects"])
    page = (tmp_path / "a.html").read_text()
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in page
    assert len(page) < 100_000
    assert "{{" not in page


def test_help_of_every_command_has_an_example() -> None:
    assert all(name in call().stdout for name in cli.COMMANDS)
    for name in cli.COMMANDS:
        text = call(name, "--help").stdout
        assert f"  memcurve {name}" in text
        assert "1024" in text or name in (
            "check-log",
            "compare",
            "completion",
            "gpus",
            "mcp",
            "models",
            "serve",
            "site",
            "verify",
            "weights",
        )


def test_every_command_in_the_readmes_table_runs() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    commands = re.findall(r"\| `memcurve (.*?)` \|", readme)
    assert len(commands) >= 8
    for command in commands:
        done = call(*command.split())
        assert done.returncode == (3 if "Nxt" in command else 0), (command, done.stderr)


def test_the_readmes_python_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    keys = {"block_count": 2, "context_length": 8192, "embedding_length": 64, "attention.head_count": 2, "attention.head_count_kv": 2}  # fmt: skip
    metadata = {"general.architecture": "llama"} | {f"llama.{key}": value for key, value in keys.items()}
    (tmp_path / "model.gguf").write_bytes(encoded(metadata))
    header = b'{"lm_head.weight":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(block[1], names)  # our own README
    curve = names["curve"]
    assert isinstance(curve, memcurve.MemoryCurve)
    for value, call_text in re.findall(r"(curve\.bytes\(.*?\)) +# (\d+)", block[1]):
        assert eval(value, {"curve": curve}) == int(call_text)


@pytest.mark.parametrize(
    "words",
    [
        ("estimate", "Qwen/Qwen3-8B", "--context", "1", "--explain", "--engine", "vllm"),
        ("estimate", "Qwen/Qwen3-8B", "--context", "1", "--at-most", "1KiB"),
        ("estimate", "Qwen/Qwen3-8B", "--context", "1", "--memory", "60GiB", "--engine", "vllm"),
        ("estimate", "Qwen/Qwen3-8B", "--context", "1", "--engine", "all"),
        ("estimate", "Qwen/Qwen3-8B", "--context", "1", "--memory", "1GiB", "--fits"),
        ("fit", "Qwen/Qwen3-8B", "--gpu", "L4", "--context", "1"),
        ("fit", "Qwen/Qwen3-32B", "--gpu", "L4", "--context", "1", "--exit-code"),
        ("cross", "1mha", "1gdn", "--max_ctx", "1"),
    ],
)
def test_one_token_of_many_commands_is_one(words: tuple[str, ...]) -> None:
    found = call(*words)
    said = found.stdout + found.stderr
    assert re.search(r"\b1 token\b", said), said
    assert not re.search(r"(?<![\d,.])(?<!- )1 (tokens|requests|blocks|layers)\b", said), said


def test_the_owner_does_not_hide_the_nearest() -> None:
    from memcurve import catalog
    from memcurve.base import nearest

    for typed in ("Qwen3-Nxt", "Qwen/Qwen3-Nxt", "qwen/qwen3-nex"):
        assert nearest(typed, catalog.names()).startswith(QWEN)
    assert nearest("meta-llama/Llama-3.1-70B", catalog.names()).startswith("meta-llama/Meta-Llama-3.1-70B")


def test_at_most_is_a_bound_to_the_byte() -> None:
    # Qwen3-8B: 36 layers × 8 heads × 128 × 2 of keys and values × 2 B are 147,456 B a token.
    words = ("estimate", "Qwen/Qwen3-8B", "--context", "4k,8k", "--batch", "2", "--at-most")
    size = 2 * 8192 * 147456
    fits, over = call(*words, str(size)), call(*words, str(size - 1))
    assert (fits.returncode, fits.stderr) == (0, "")
    assert (over.returncode, over.stdout) == (4, fits.stdout)
    assert over.stderr == (
        f"memcurve: Qwen/Qwen3-8B: {size:,} B (2.25 GiB) at 8,192 tokens, batch 2; expected at most {size - 1:,} B (2.25 GiB): "
        "the longest context that fits is 8,191 tokens\n"
    )
    states = call("estimate", "RWKV/rwkv-6-world-1b6", "--dtype", "bf16", "--at-most", "1KiB", "--json")
    assert (states.returncode, json.loads(states.stdout)["schema"]) == (4, 1)
    assert states.stderr.endswith(": no context fits\n")
    for beside in (("--engine", "all"), ("--fits", "--memory", "1GiB")):
        assert call(*words, "1GiB", *beside).returncode == 2


def test_exit_code_says_whether_it_fits() -> None:
    words = ("fit", "Qwen/Qwen3-8B", "--gpu", "L4", "--context", "32k", "--batch", "16")
    without, within = call(*words), call(*words, "--exit-code")
    assert (without.returncode, without.stderr) == (0, "")
    assert (within.returncode, within.stdout) == (4, without.stdout)
    assert "16 requests of 32,768 tokens do not fit one GPU of L4; largest context at batch 16: " in within.stderr
    assert within.stderr.count("\n") == 1
    assert call("fit", "Qwen/Qwen3-8B", "--gpu", "L4", "--context", "8k", "--exit-code").returncode == 0


def test_engines_side_by_side() -> None:
    # Qwen3-Next: the paper's count; W and K as Transformers has them; 465 blocks of 14,155,776 B in vLLM
    done = call("estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", "--engine", "all", "--context", "262144", "--json")
    rows = {row["engine"]: row["bytes"] for row in json.loads(done.stdout)["engines"]}
    assert list(rows) == ["logical", "transformers", "vllm", "sglang", "llamacpp", "mlx"]
    assert rows["vllm"] == [465 * 14_155_776]
    text = call("estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", "--engine", "all").stdout
    assert "logical" in text
    assert "gated delta +" in text
    # What an engine lacks is said, and the others answer
    text = call("estimate", "RWKV/rwkv-6-world-1b6", "--engine", "all", "--dtype", "bf16").stdout
    assert "model type 'rwkv6' in vLLM" in text
    assert call("estimate", "openai/gpt-oss-20b", "--engine", "all", "-O", "pages=3").stderr == "memcurve: pages: 3; not an option of any engine\n"  # fmt: skip


def test_a_pool_of_memory() -> None:
    done = call("estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", "--engine", "vllm", "--memory", "60GiB", "--json")
    pool = json.loads(done.stdout)["pool"]
    # 60 · 2³⁰ // 14,155,776 blocks
    assert (pool["num_blocks"], pool["bytes_per_block"]) == (4551, 14_155_776)
    assert "  num blocks: 4,551" in call("estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", "--engine", "vllm", "--memory", "60GiB").stdout  # fmt: skip
    for words, message in (
        (["--memory", "60GiB"], "pool: this curve of engine logical reserves no pool"),
        (["--memory", "lots", "--engine", "vllm"], "memory: 'lots'; expected bytes such as 60GiB"),
        (["--memory", "60GiB", "--engine", "all"], "memory: a pool is of one engine"),
        (["--memory", "100MiB", "--engine", "vllm"], "To serve at least one request"),
    ):
        assert message in call("estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", *words).stderr


def test_types_name_the_engines_that_have_them() -> None:
    types = {row["type"]: row["engines"] for row in json.loads(call("models", "--types", "--json").stdout)["types"]}
    assert all(engines[:2] == ["logical", "transformers"] for engines in types.values())
    assert types["qwen3_next"] == ["logical", "transformers", "vllm", "sglang", "llamacpp", "mlx"]
    assert types["rwkv6"] == ["logical", "transformers", "llamacpp"]
    assert types["reformer"] == ["logical", "transformers"]


def test_side_by_side_is_of_the_same_tokens() -> None:
    # Four sequences of 32,768 tokens: llama.cpp's n_ctx is what they share out
    done = call(
        "estimate", "Qwen/Qwen3-Next-80B-A3B-Thinking", "--engine", "all", "--context", "32k", "--batch", "4", "--json"
    )
    rows = {row["engine"]: row["bytes"][0] for row in json.loads(done.stdout)["engines"]}
    model = load("Qwen/Qwen3-Next-80B-A3B-Thinking")
    assert rows["llamacpp"] == model.curve("llamacpp").bytes(4 * 32768, 4) > rows["logical"] == model.curve("logical").bytes(32768, 4)  # fmt: skip
    # Without the paper's count nothing differs from it
    text = call("estimate", "openai/gpt-oss-20b", "--engine", "all").stdout
    assert "the same here" not in text
    assert "−" not in text


def test_options_as_words() -> None:
    words = ["estimate", "google/gemma-4-26B-A4B", "--context", "4k", "--engine", "sglang", "--memory", "60GiB"]
    assert "at once: " in call(*words, "-O", "swa_full_tokens_ratio=0.5").stdout
    assert call(*words, "-O", "dtype=bf16").stderr == "memcurve: option dtype='bf16': expected --dtype bf16\n"
    assert (
        call("estimate", "openai/gpt-oss-120b", "--dtype", "bf16", "--engine", "llamacpp", "--batch", "300").stdout
        == ""
    )


def test_side_by_side_says_whose_an_option_is() -> None:
    text = call(
        "estimate", "openai/gpt-oss-120b", "--dtype", "bf16", "--engine", "all", "-O", "tensor_parallel_size=2"
    ).stdout
    assert "tensor_parallel_size: an option of vllm only\n" in text


def test_cross_says_from_where_on() -> None:
    # 12 × T × 2,048 B + 75,497,472 + 1,769,472 B against 61 × T × 1,152 B: 45,696 B a token apart, level at 1,690.9
    assert pytest.approx(1690.9, abs=0.01) == (75_497_472 + 1_769_472) / (61 * 1152 - 12 * 2048)
    text = call("cross", QWEN, "deepseek-ai/DeepSeek-V3").stdout
    assert f"below 1,691 tokens deepseek-ai/DeepSeek-V3 is cheaper\n  from 1,691 tokens on {QWEN} is cheaper" in text
    assert "118,824,960 B (113.32 MiB) against 118,829,952 B" in text
    data = json.loads(call("cross", QWEN, "deepseek-ai/DeepSeek-V3", "--json").stdout)
    assert data["schema"] == 1
    assert data["crossings"] == [
        {
            "context": 1691,
            "cheaper": QWEN,
            "dearer": "deepseek-ai/DeepSeek-V3",
            "bytes": 12 * 1691 * 2048 + 75_497_472 + 1_769_472,
            "dearer_bytes": 61 * 1691 * 1152,
        }
    ]
    assert data["pairs"][0]["cheaper_first"] == "deepseek-ai/DeepSeek-V3"


def test_one_token_is_one() -> None:
    # 129 layers × 8,192 B a token against 16 × 128 × 128 × 4 B of one state, 128 times as much as a layer's token
    from memcurve.cli.cross import sentences
    from memcurve.crossed import compare
    from memcurve.export import make_subjects

    many = memcurve.pattern("1mha", n_layers=129).curve(dtype="bf16")
    state = memcurve.pattern("1gdn", n_layers=1, conv_kernel=0).curve(dtype="bf16")
    a, b = make_subjects([many, state])
    lines = list(sentences(a, b, *compare(a, b, 1), 1))
    assert lines[0] == "below 1 token 1mha is cheaper"
    assert lines[1].startswith("from 1 token on 1gdn is cheaper: 1,048,576 B")


def test_cross_of_curves_that_do_not_cross() -> None:
    assert "take the same at every context" in call("cross", "mha@label=a", "mha@label=b").stdout
    text = call("cross", "gqa", "mha").stdout
    assert "  gqa is cheaper at every context\n" in text
    text = call("cross", "Qwen/Qwen3-8B@engine=sglang", "Qwen/Qwen3-8B@engine=sglang,page_size=64,label=paged").stdout
    assert "  Qwen/Qwen3-8B never takes more; at some contexts both take the same\n" in text
    assert "1; expected two or more" in call("cross", "mha").stderr


def test_cross_of_all_engines_is_of_the_same_tokens() -> None:
    done = call("cross", "openai/gpt-oss-20b", "--dtype", "bf16", "--engine", "all", "--batch", "4", "--json")
    assert done.stderr == "llamacpp: n_ctx is 4 times the context\n"
    data = json.loads(done.stdout)
    assert len(data["pairs"]) == 15
    model = load("openai/gpt-oss-20b")
    curves = {name: model.curve(name, "bf16") for name in ("transformers", "vllm", "sglang", "llamacpp", "mlx")}

    def size(name: str, t: int) -> int:
        return int(curves[name].bytes(4 * t if name == "llamacpp" else t, 4))

    assert data["crossings"]
    pairs = set()
    for one in data["crossings"]:
        t = one["context"]
        cheaper, dearer = one["cheaper"].rpartition(" ")[2], one["dearer"].rpartition(" ")[2]
        pairs.add(frozenset((cheaper, dearer)))
        assert (size(cheaper, t), size(dearer, t)) == (one["bytes"], one["dearer_bytes"])
        assert one["bytes"] < one["dearer_bytes"]
        assert size(cheaper, t - 1) >= size(dearer, t - 1)
    assert {frozenset(("llamacpp", "vllm")), frozenset(("mlx", "vllm"))} <= pairs


def test_cross_keeps_many_crossings_short() -> None:
    words = ["cross", "google/gemma-3-27b-it@label=b", "--dtype", "bf16", "--engine", "llamacpp"]
    text = call(*words, "google/gemma-3-27b-it@engine=vllm,label=a", "--max_ctx", "2k").stdout
    assert len(text.splitlines()) < 20
