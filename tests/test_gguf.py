"""GGUF files: what is read of them, and that no file, however damaged, does worse than BadFile.

The long run: GGUF_DAMAGED=100000 python -m pytest tests/test_gguf.py -k damaged
"""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import PEAK
from hypothesis import given, settings
from hypothesis import strategies as st

import memcurve
from memcurve import BadFile, NotDescribed, gguf, load

DAMAGED = int(os.environ.get("GGUF_DAMAGED", "6000"))
QWEN = {
    "general.architecture": "qwen3",
    "general.name": "Qwen3 8B",
    "qwen3.block_count": 36,
    "qwen3.context_length": 40960,
    "qwen3.embedding_length": 4096,
    "qwen3.attention.head_count": 32,
    "qwen3.attention.head_count_kv": 8,
    "qwen3.attention.key_length": 128,
    "qwen3.attention.value_length": 128,
    "qwen3.attention.layer_norm_rms_epsilon": 1e-6,
    "qwen3.some.flags": [True, False],
    "qwen3.some.numbers": [1, 2, 70000],
    "qwen3.some.negative": -5,
}
# 36 layers, keys and values of 8 heads of 128 in two bytes each
TOKEN = 36 * 2 * 8 * 128 * 2


def encoded(metadata: dict[str, Any], order: str = "<", version: int = 3, tensors: tuple[str, ...] = ()) -> bytes:
    """A GGUF file by the layout of the format's specification (ggml/docs/gguf.md)."""

    def text(value: str | bytes) -> bytes:
        data = value.encode() if isinstance(value, str) else value
        return struct.pack(f"{order}Q", len(data)) + data

    def one(value: Any) -> tuple[int, bytes]:
        if isinstance(value, bool):
            return 7, struct.pack("?", value)
        if isinstance(value, int):
            return (4, struct.pack(f"{order}I", value)) if value >= 0 else (5, struct.pack(f"{order}i", value))
        if isinstance(value, float):
            return 6, struct.pack(f"{order}f", value)
        return 8, text(value)

    out = [b"GGUF", struct.pack(f"{order}IQQ", version, len(tensors), len(metadata))]
    for key, value in metadata.items():
        out.append(text(key))
        if isinstance(value, list):
            kinds = [one(item) for item in value]
            out.append(struct.pack(f"{order}IIQ", 9, kinds[0][0], len(value)) + b"".join(data for _, data in kinds))
        else:
            kind, data = one(value)
            out.append(struct.pack(f"{order}I", kind) + data)
    out.extend(text(name) + struct.pack(f"{order}IQQIQ", 2, 64, 64, 0, 0) for name in tensors)
    return b"".join(out)


def written(folder: Path, data: bytes, name: str = "model.gguf") -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [2, 3])
def test_versions_and_byte_orders(tmp_path: Path, order: str, version: int) -> None:
    path = written(tmp_path, encoded(QWEN, order, version))
    assert gguf.read(path).data == {**QWEN, "qwen3.attention.layer_norm_rms_epsilon": pytest.approx(1e-6)}
    model = load(path)
    assert model.name == "model"
    assert model.curve("llamacpp").bytes(1024) == 1024 * TOKEN
    assert model.curve("logical", "bf16").bytes(1000) == 1000 * TOKEN
    assert load(QWEN).layers == model.layers


def test_a_file_is_known_by_its_beginning(tmp_path: Path) -> None:
    assert load(written(tmp_path, encoded(QWEN), "blob")).curve("llamacpp").bytes(256) == 256 * TOKEN


def test_the_first_part_of_a_split_file_is_enough(tmp_path: Path) -> None:
    split = {"split.no": 0, "split.count": 2}
    first = written(tmp_path, encoded({**QWEN, **split}, tensors=("token_embd.weight",)), "m-00001-of-00002.gguf")
    assert load(first).curve("llamacpp").bytes(256) == 256 * TOKEN
    second = written(
        tmp_path, encoded({"split.no": 1, "split.count": 2}, tensors=("output.weight",)), "m-00002-of-00002.gguf"
    )
    with pytest.raises(BadFile, match="part 1 of a split file; expected the first part"):
        load(second)
    keys = gguf.read(first)
    assert keys.has_tensor("token_embd.weight")
    assert keys.has_tensor("output.weight")
    assert not keys.has_tensor("absent.weight")


def test_draft_layers_of_deepseek_v4_are_those_that_the_file_holds(tmp_path: Path) -> None:
    # models/deepseek4.cpp: without the tensor the draft layer counts as one of the others
    keys = {"block_count": 3, "context_length": 4096, "embedding_length": 64, "nextn_predict_layers": 1,
            "attention.head_count": 4, "attention.head_count_kv": 1, "attention.key_length": 32,
            "attention.value_length": 32, "attention.sliding_window": 64, "attention.indexer.key_length": 32,
            "attention.compress_ratios": [4, 128, 0]}  # fmt: skip
    metadata = {"general.architecture": "deepseek4", **{f"deepseek4.{key}": value for key, value in keys.items()}}
    without = load(written(tmp_path, encoded(metadata), "a.gguf"))
    held = load(written(tmp_path, encoded(metadata, tensors=("blk.2.nextn.eh_proj.weight",)), "b.gguf"))
    assert (len(without.layers), len(held.layers)) == (3, 2)
    assert held.curve("llamacpp", mtp_context=True).bytes(256) == 256 * 2 * 32 * 2
    with pytest.raises(memcurve.Refused, match="doesn't contain MTP layers"):
        without.curve("llamacpp", mtp_context=True)


def test_a_large_vocabulary_is_stepped_over(tmp_path: Path) -> None:
    words = [f"token{number}" for number in range(150_000)]
    data = encoded({**QWEN, "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": [0.0] * 150_000, "last": 7})
    path = written(tmp_path, data)
    start = time.perf_counter()
    keys = gguf.read(path).data
    assert time.perf_counter() - start < 1
    assert keys["last"] == 7
    assert "tokenizer.ggml.tokens" not in keys


def test_a_sparse_file_of_100_gb_answers_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, encoded(QWEN, tensors=("token_embd.weight",)))
    os.truncate(path, 100 * 10**9)
    start = time.perf_counter()
    assert load(path).curve("llamacpp").bytes(256) == 256 * TOKEN
    assert time.perf_counter() - start < 1


def huge(path: str, *parts: bytes) -> None:
    Path(path).write_bytes(b"GGUF" + b"".join(parts))
    os.truncate(path, 100 * 10**9)


KEY = struct.pack("<Q", 1) + b"k"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((struct.pack("<IQQ", 3, 0, 2**63),), "expected at most 262144 and 16384"),
        ((struct.pack("<IQQ", 3, 2**62, 1),), "expected at most 262144 and 16384"),
        ((struct.pack("<IQQ", 3, 0, 9), struct.pack("<Q", 2**40)), "expected what fits in the file"),
        ((struct.pack("<IQQ", 3, 0, 1), KEY, struct.pack("<IIQ", 9, 8, 2**33)), "expected at most 4194304"),
        ((struct.pack("<IQQ", 3, 0, 1), KEY, struct.pack("<IIQ", 9, 8, 4_000_000)), "general.architecture: None"),
        ((struct.pack("<IQQ", 3, 0, 1), KEY, struct.pack("<IIQ", 9, 8, 4_000_000), struct.pack("<Q", 2**60)),
         "metadata goes on; expected less than 256 MiB"),
        ((struct.pack("<IQQ", 3, 0, 1), KEY, struct.pack("<IIQ", 9, 10, 2**36)), "expected what fits in the file"),
        ((struct.pack("<IQQ", 3, 0, 1), KEY, struct.pack("<IQ", 8, 2**37)), "expected what fits in the file"),
        ((struct.pack("<IQQ", 3, 0, 10_000),), "a key that is empty, too long or there already"),
        ((struct.pack("<IQQ", 3, 0, 2), KEY, struct.pack("<IIQ", 9, 9, 1)), "an array of type 9"),
        ((struct.pack("<IQQ", 3, 0, 2), (KEY + struct.pack("<IB", 0, 1)) * 2), "a key that is empty, too long or there already"),
    ],
)  # fmt: skip
def test_hostile_counts_end_soon_in_little_memory(tmp_path: Path, parts: tuple[bytes, ...], said: str) -> None:
    path = str(tmp_path / "hostile.gguf")
    huge(path, *parts)
    code = (
        f"import memcurve, sys\n{PEAK}\n"
        "try: memcurve.load(sys.argv[1])\n"
        "except memcurve.BadFile as error: print(error)\n"
        "print(peak())"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert time.perf_counter() - start < 5
    message, memory = done.stdout.splitlines()
    assert message.startswith(f"{path}: ")
    assert said in message
    assert float(memory) < 256


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "byte 0: 0 bytes; expected a GGUF file"),
        (b"GGUX" + bytes(40), "byte 0: b'GGUX'; expected GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "byte 4: version 1; expected version 2 or 3"),
        (encoded(QWEN)[:-2], "the file ends; expected 4 more bytes"),
        (encoded({"a": 1, "general.architecture": "llama"}).replace(b"llama", b"llbma"), "unknown model architecture"),
        (encoded({"general.name": "x"}), "general.architecture: None; expected a name"),
        (encoded({**QWEN, "qwen3.block_count": "x"}), "qwen3.block_count: 'x'; expected an integer from 1 to 512"),
    ],
)
def test_an_error_names_file_and_what_was_expected(tmp_path: Path, data: bytes, message: str) -> None:
    path = written(tmp_path, data)
    with pytest.raises(BadFile) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_what_is_no_file_is_a_bad_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "folder.gguf").mkdir()
    for name in ("pipe.gguf", "folder.gguf", "absent.gguf"):
        with pytest.raises(BadFile, match="expected a GGUF file"):
            load(str(tmp_path / name))


def test_an_unknown_architecture_is_not_described_either(tmp_path: Path) -> None:
    with pytest.raises(NotDescribed, match="unknown model architecture: 'lama'; nearest: llama"):
        load(written(tmp_path, encoded({"general.architecture": "lama"})))


def tried(path: str) -> str:
    """Loads a file that may be damaged: what came of it. Anything but a model or BadFile fails the test."""
    try:
        load(path)
    except BadFile as error:
        said = str(error)
    else:
        return "read"
    assert said.startswith(f"{path}: ")
    return "refused"


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=1000)
def test_any_bytes_after_the_magic(data: bytes) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(b"GGUF" + data)
        file.flush()
        tried(file.name)


def test_damaged_files_are_read_or_refused(tmp_path: Path, count: Any) -> None:
    random_source = random.Random(20261124)
    tokens = [f"t{number}" for number in range(50)]
    sound = [
        encoded({**QWEN, "tokenizer.ggml.tokens": tokens}, order, version, ("a.weight",))
        for order in "<>"
        for version in (2, 3)
    ]
    outcomes = {"read": 0, "refused": 0}
    path, slowest = str(tmp_path / "damaged.gguf"), 0.0
    for _ in range(DAMAGED):
        data = bytearray(random_source.choice(sound))
        for _ in range(random_source.choice((1, 1, 2, 8))):
            kind, at = random_source.randrange(5), random_source.randrange(len(data))
            if kind == 0:
                data[at] ^= 1 << random_source.randrange(8)
            elif kind == 1:
                data[at] = random_source.randrange(256)
            elif kind == 2:
                del data[at:]
                data += bytes(4)
            elif kind == 3:
                data[at : at + 8] = struct.pack("<Q", random_source.choice((2**64 - 1, 2**63, 2**32, 2**20, 0)))
            else:
                data = data[:at] + data[at + random_source.randrange(1, 9) :] + b"\0"
        Path(path).write_bytes(data)
        start = time.perf_counter()
        outcomes[tried(path)] += 1
        slowest = max(slowest, time.perf_counter() - start)
    assert slowest < 2
    assert min(outcomes.values()) > DAMAGED // 20
    count(f"GGUF: {DAMAGED} damaged files, {outcomes['refused']} refused, {outcomes['read']} read as they are")
