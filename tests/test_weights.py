"""Weights by their headers. Safetensors files are compared with the package's reader, where it is installed.

The long runs: WEIGHTS_DAMAGED=100000 python -m pytest tests/test_weights.py -k damaged
"""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import PEAK
from hypothesis import given, settings
from hypothesis import strategies as st

import memcurve
from memcurve import BadConfig, BadFile
from memcurve.checkpoint import Tensor
from memcurve.checkpoint.ggml import TYPES
from memcurve.checkpoint.parts import parts
from memcurve.checkpoint.safetensors import BITS

DAMAGED = int(os.environ.get("WEIGHTS_DAMAGED", "4000"))


def raw(header: str | bytes, data: bytes | int = b"") -> bytes:
    """A safetensors file: the header's length in eight bytes, the header, the data."""
    text = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(text)) + text + (bytes(data) if isinstance(data, int) else data)


def safetensors(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = BITS[dtype] * product(shape) // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return raw(json.dumps(header), at)


def product(shape: list[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def written(folder: Path, data: bytes, name: str = "model.safetensors") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def indexed(folder: Path, shards: dict[str, list[str]], extra: dict[str, str] | None = None) -> Path:
    """A folder with shards of tensors of 4 bytes each and an index that maps them. extra: more of the index."""
    mapped = dict(extra or {})
    for shard, names in shards.items():
        written(folder, safetensors({name: ("F32", [1]) for name in names}), shard)
        mapped.update(dict.fromkeys(names, shard))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": mapped}))
    return folder


# Files


def test_a_file(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        safetensors(
            {
                "model.embed_tokens.weight": ("BF16", [10, 4]),
                "model.layers.0.mlp.up_proj.weight": ("F8_E4M3", [8, 4]),
                "model.layers.0.mlp.up_proj.weight_scale_inv": ("F32", []),
                "unheard_of": ("F4", [3, 2]),
            },
            {"format": "pt"},
        ),
    )
    found = memcurve.weights(path)
    # 10 × 4 × 2 B + 8 × 4 × 1 B + 4 B + 6 elements of half a byte
    assert found.bytes == 80 + 32 + 4 + 3
    assert found.parameters == 40 + 32 + 1 + 6
    assert found.by_dtype == {"BF16": 80, "F8_E4M3": 32, "F32": 4, "F4": 3}
    assert found.by_part == {"embedding": 80, "mlp": 36, "other": 3}
    assert found.tensors[3] == Tensor(name="unheard_of", dtype="F4", shape=(3, 2), bytes=3)
    assert memcurve.weights(Path(path)) == found


# dtypes and bytes of eight elements: the package's own error for an unknown dtype lists them, 0.8.0
EIGHT = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def test_dtypes(tmp_path: Path) -> None:
    assert {
        dtype: memcurve.weights(written(tmp_path, safetensors({"a": (dtype, [8])}))).bytes for dtype in BITS
    } == EIGHT


def filled(header: str | bytes) -> bytes:
    return (header.encode() if isinstance(header, str) else header).replace(b"@", ONE.encode())


ONE = '"dtype":"U8","shape":[4],"data_offsets":[0,4]'
# @ stands for what is said of one tensor of four bytes
GOOD = {
    "nothing": ("{}", 0),
    "spaces around": ('  {"a" : {@} } \n\t\r', 4),
    "keys in another order": ('{"a":{"data_offsets": [0, 4] ,"dtype":"U8","shape":[ 4 ]}}', 4),
    "other keys": ('{"a":{@,"x":{"y":[1.5,null,-0]}}}', 4),
    "escapes": ('{"\\ud83d\\ude00\\u0000":{"\\u0064type":"\\u0055\\u0038","shape":[4],"data_offsets":[0,4]}}', 4),
    "no metadata": ('{"__metadata__":null,"a":{@}}', 4),
    "metadata": ('{"__metadata__":{"a":"}\\"\\u00e9","a":"é"},"a":{@}}', 4),
    "an empty name": ('{"":{@}}', 4),
    "empty tensors between": (
        '{"b":{"dtype":"U8","shape":[0,9],"data_offsets":[4,4]},"a":{@},"c":{"dtype":"I64","shape":[0],"data_offsets":[0,0]}}',
        4,
    ),
    "nothing of 64 bits": ('{"a":{"dtype":"U8","shape":[18446744073709551615,0],"data_offsets":[0,0]}}', 0),
}
BAD: dict[str, tuple[str | bytes, int, str]] = {
    "no object": ("[]", 0, "expected an object"),
    "open": ("{", 0, "expected a key"),
    "a comma more": ('{"a":{@},}', 4, "expected a key"),
    "text after": ('{"a":{@}}x', 4, "expected the end"),
    "a zero byte after": ('{"a":{@}}\0', 4, "expected the end"),
    "a byte order mark": ('\ufeff{"a":{@}}', 4, "expected an object"),
    "a name twice": ('{"a":{@},"a":{@}}', 4, "'a' again"),
    "a key twice": ('{"a":{"dtype":"U8",@}}', 4, "dtype 2 times; expected it once"),
    "a key missing": ('{"a":{"dtype":"U8","shape":[4]}}', 4, "data_offsets 0 times"),
    "metadata twice": ('{"__metadata__":{},"__metadata__":{}}', 0, "__metadata__ again"),
    "a number as metadata": ('{"__metadata__":{"a":1}}', 0, "expected a string"),
    "a tensor as a list": ('{"a":["U8",[4],[0,4]]}', 4, "expected an object"),
    "null": ('{"a":null}', 0, "expected an object"),
    "an unknown dtype": ('{"a":{"dtype":"U4","shape":[8],"data_offsets":[0,4]}}', 4, "dtype 'U4'; expected one of F4"),
    "an object as shape": ('{"a":{"dtype":"U8","shape":{},"data_offsets":[0,1]}}', 1, "integers"),
    "a float": ('{"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}', 4, "integers"),
    "minus nothing": ('{"a":{"dtype":"U8","shape":[4],"data_offsets":[-0,4]}}', 4, "integers"),
    "a negative": ('{"a":{"dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]}}', 4, "integers"),
    "a truth value": ('{"a":{"dtype":"U8","shape":[4,true],"data_offsets":[0,4]}}', 4, "integers"),
    "NaN": ('{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', 4, "expected JSON"),
    "infinity": ('{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,4]}}', 4, "expected JSON"),
    "a huge integer": ('{"a":{"dtype":"U8","shape":[%s],"data_offsets":[0,4]}}' % ("9" * 5000), 4, "expected JSON"),
    "more than 64 bits": ('{"a":{"dtype":"U8","shape":[0,18446744073709551616],"data_offsets":[0,0]}}', 0, "64 bits"),
    "a product of more": ('{"a":{"dtype":"U8","shape":[9223372036854775808,4,0],"data_offsets":[0,0]}}', 0, "64 bits"),
    "bits of more": ('{"a":{"dtype":"U8","shape":[2305843009213693952],"data_offsets":[0,4]}}', 4, "64 bits"),
    "half a byte": ('{"a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}}', 4, "whole bytes"),
    "another span": ('{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}}', 4, "expected a span of 3 bytes"),
    "backwards": ('{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}', 4, "expected a span of 4 bytes"),
    "a hole": ('{"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}', 4, "no hole"),
    "an overlap": ('{"a":{@},"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}}', 5, "no overlap"),
    "data missing": ('{"a":{@}}', 3, "where the data end"),
    "data left": ('{"a":{@}}', 5, "where the data end"),
    "half of a pair": ('{"\\ud800":{@}}', 4, "expected a key"),
    "half of a pair inside": ('{"a":{@,"x":"\\udc00"}}', 4, "half of a surrogate pair"),
    "a control character": ('{"a\n":{@}}', 4, "expected a key"),
    "no UTF-8": (b'{"\xff":{@}}', 4, "expected UTF-8"),
    "UTF-8 cut off": (b'{"a":{@}}\xc3', 4, "expected UTF-8"),
    "deep": ('{"a":{@,"x":' + "[" * 200 + "]" * 200 + "}}", 4, "deep nesting"),
    "deeper": ('{"a":{@,"x":' + "[" * 8000, 4, "deep nesting"),
    "many sizes": ('{"a":{"dtype":"U8","shape":[%s4],"data_offsets":[0,4]}}' % ("1," * 64), 4, "65 sizes"),
}  # fmt: skip


def test_other_keys_are_few(tmp_path: Path) -> None:
    entries = [f'"{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":"{"x" * 8000}"}}' for i in range(600)]
    assert len(memcurve.weights(written(tmp_path, raw("{" + ",".join(entries[:500]) + "}"))).tensors) == 500
    with pytest.raises(BadFile, match="more than 4194304 bytes of other keys"):
        memcurve.weights(written(tmp_path, raw("{" + ",".join(entries) + "}")))


@pytest.mark.parametrize("case", GOOD)
def test_what_the_format_allows(tmp_path: Path, case: str) -> None:
    header, size = GOOD[case]
    assert memcurve.weights(written(tmp_path, raw(filled(header), size))).bytes == size


@pytest.mark.parametrize("case", BAD)
def test_what_it_does_not(tmp_path: Path, case: str) -> None:
    header, size, message = BAD[case]
    with pytest.raises(BadFile) as error:
        memcurve.weights(written(tmp_path, raw(filled(header), size)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "data",
    [b"", b"1234567", struct.pack("<Q", 2**64 - 1), struct.pack("<Q", 10) + b"{}", struct.pack("<Q", 0), b"GGUF" * 8],
)
def test_what_is_no_file_of_weights(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadFile):
        memcurve.weights(written(tmp_path, data))


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "a" / "model.safetensors.index.json").mkdir(parents=True)
    (tmp_path / "b").mkdir()
    os.mkfifo(tmp_path / "b" / "model.safetensors")
    for name in ("pipe.safetensors", "folder.safetensors", "a", "b", "absent.gguf", "absent"):
        with pytest.raises(BadFile):
            memcurve.weights(tmp_path / name)
    with pytest.raises(BadFile, match="no regular file"):
        memcurve.weights("/dev/zero")
    for source in (7, None, "", "a\0b"):
        with pytest.raises(BadConfig):
            memcurve.weights(source)


MEASURE = f"""{PEAK}
import sys, time
import memcurve

start = time.process_time()
try:
    found = "%d tensors" % len(memcurve.weights(sys.argv[1]).tensors)
except memcurve.BadFile as error:
    found = "BadFile"
print(time.process_time() - start, peak(), found)
"""


def measured(path: str) -> tuple[float, float, str]:
    """Seconds of processor time, MiB at most, and what was found."""
    done = subprocess.run([sys.executable, "-c", MEASURE, path], capture_output=True, text=True, check=True)
    seconds, size, found = done.stdout.split(maxsplit=2)
    return float(seconds), float(size), found.strip()


N = 2**25 - 100
HOSTILE = {
    "braces": lambda: b"{" * N,
    "brackets": lambda: b'{"a":' + b"[" * N,
    "spaces": lambda: b" " * N,
    "a long name": lambda: b'{"' + b"a" * (N - 10) + b'":1}',
    "escapes": lambda: b'{"__metadata__":{"a":"' + b"\\n" * (N // 2 - 20) + b'",1}}',
    "pairs": lambda: b'{"__metadata__":{' + b'"a":"b",' * (N // 8 - 10),
    "a long shape": lambda: b'{"a":{"dtype":"U8","shape":[' + b"1," * (N // 2 - 50) + b'1],"data_offsets":[0,1]}}',
    "digits": lambda: b'{"a":{"dtype":"U8","shape":[' + b"9" * (N - 60) + b'],"data_offsets":[0,0]}}',
    "wide characters": lambda: '{"😀'.encode() + b"a" * (N - 20) + b'":1}',
    "tensors": lambda: (
        b"{" + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(560_000))
    ),
    "other keys": lambda: (
        b"{" + b",".join(b'"%d":{%s,"x":[%s1]}' % (i, ONE.encode(), b"1," * 3900) for i in range(4000))
    ),
    "100 MB": lambda: b"{" * 99_999_999,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_cost_little(tmp_path: Path, case: str) -> None:
    seconds, size, found = measured(written(tmp_path, raw(HOSTILE[case]())))
    assert found == "BadFile"
    assert seconds < 2
    assert size < 256


def test_a_header_of_20_mb(tmp_path: Path) -> None:
    names = [
        f"model.layers.{i // 800}.mlp.experts.{i % 800 // 3}.{'gate up down'.split()[i % 3]}_proj.weight"
        for i in range(160_000)
    ]
    data = safetensors({name: ("BF16", [7168, 2048]) for name in names[:2]})
    header = {
        name: {"dtype": "BF16", "shape": [7168, 2048], "data_offsets": [i * 29360128, (i + 1) * 29360128]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header)
    data = raw(text)
    assert len(data) > 20 * 10**6
    start = time.process_time()
    json.loads(text)
    plain = time.process_time() - start
    path = written(tmp_path, data)
    os.truncate(path, len(data) + 160_000 * 29360128)
    seconds, size, found = measured(path)
    assert found == "160000 tensors"
    # Machines differ in speed: 2 s, or so many times as Python's own JSON takes here.
    assert seconds < max(2, 8 * plain)
    assert size < 256


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_a_sparse_file_of_100_gb_answers_at_once(tmp_path: Path, kind: str) -> None:
    size = 100 * 10**9
    if kind == "safetensors":
        data = raw(json.dumps({"a": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}))
    else:
        data = gguf([("a", 24, [size])], data=0)
    path = written(tmp_path, data, f"model.{kind}")
    os.truncate(path, len(data) + size)
    start = time.perf_counter()
    assert memcurve.weights(path).bytes == size
    assert time.perf_counter() - start < 1


def draw(rng: random.Random) -> bytes:
    """A good file of up to four tensors, written as writers do, or oddly."""
    entries, at = [], 0
    for number in range(rng.randint(0, 4)):
        dtype = rng.choice(list(BITS))
        shape = [8, *(rng.choice([0, 1, 2, 3]) for _ in range(rng.randint(0, 3)))]
        size = BITS[dtype] * product(shape) // 8
        fields = [f'"dtype":"{dtype}"', f'"shape":{json.dumps(shape)}', f'"data_offsets":[{at},{at + size}]']
        at += size
        if rng.random() < 0.3:
            rng.shuffle(fields)
        if rng.random() < 0.2:
            fields.insert(rng.randint(0, 3), rng.choice(['"x":1', '"x":{"y":[1.5,null,"z"]}', '"é":"\\u0041"']))
        name, comma = rng.choice(["a", "é", "x.y", "\\ud83d\\ude00"]), rng.choice([",", " , "])
        entries.append(f'"{name}{number}":{{{comma.join(fields)}}}')
    if rng.random() < 0.4:
        entries.append('"__metadata__":' + rng.choice(['{"format":"pt"}', "{}", "null", '{"a":"\\n","b":"}"}']))
    rng.shuffle(entries)
    return raw("{" + ",".join(entries) + "}" + " " * rng.randint(0, 7), at)


SIGNS = b'{}[]",:0123456789.-eE\\u \n\t\x00\xff\xc3dtypeshapFBU_nul'


def damage(rng: random.Random, data: bytes) -> bytes:
    found = bytearray(data)
    if rng.random() < 0.2:
        return bytes(found[: rng.randrange(len(found) + 1)])
    for _ in range(rng.choice([1, 1, 2])):
        length = int.from_bytes(found[:8], "little")
        at = rng.randrange(min(len(found), 8 + max(length, 1)))
        how = rng.random()
        if how < 0.4 or not 8 <= at < 8 + length:
            found[at] = rng.choice(SIGNS)
        elif how < 0.6:
            found[at] ^= 1 << rng.randrange(8)
        else:  # a byte more or less of the header, and its length kept right
            found[at : at + (how < 0.8)] = bytes([rng.choice(SIGNS)]) * (how >= 0.8)
            found[:8] = struct.pack("<Q", length + (1 if how >= 0.8 else -1))
    return bytes(found)


def test_damaged_files_are_read_as_the_package_reads_them(tmp_path: Path, count: Any) -> None:
    reader = pytest.importorskip("safetensors")
    rng = random.Random(20)
    accepted = 0
    for _ in range(DAMAGED):
        data = damage(rng, draw(rng))
        try:
            theirs = sorted(
                (name, one["dtype"], one["shape"], len(one["data"])) for name, one in reader.deserialize(data)
            )
        except reader.SafetensorError:
            theirs = None
        try:
            found = memcurve.weights(written(tmp_path, data)).tensors
            ours = sorted((one.name, one.dtype, list(one.shape), one.bytes) for one in found)
        except BadFile as error:
            if " again" in str(error):  # the package takes the last of a name that stands twice
                continue
            ours = None
        assert ours == theirs, data
        accepted += ours is not None
    count(f"safetensors: {DAMAGED} damaged files, {accepted} read as the package reads them")


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(21)
    for _ in range(DAMAGED // 2):
        data = damage(rng, draw(rng))
        try:
            found = memcurve.weights(written(tmp_path, data))
        except BadFile:
            continue
        assert found.bytes + 8 + int.from_bytes(data[:8], "little") == len(data)


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: bytes) -> None:
    path = written(tmp_path_factory.getbasetemp(), raw(header), "any.safetensors")
    with suppress(BadFile):
        assert memcurve.weights(path).bytes == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["__metadata__", "a", "b"]), JSON))
@settings(max_examples=200, deadline=None)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: dict[str, Any]) -> None:
    path = written(tmp_path_factory.getbasetemp(), raw(json.dumps(header)), "json.safetensors")
    with suppress(BadFile):
        assert memcurve.weights(path).bytes == 0


# Folders and indexes


def test_what_the_index_maps_counts_and_nothing_else(tmp_path: Path) -> None:
    folder = indexed(tmp_path, {"model-00001-of-00002.safetensors": ["a", "b"], "sub/two.safetensors": ["c"]})
    written(folder, safetensors({"c": ("F32", [1]), "left": ("F32", [100])}), "sub/two.safetensors")
    written(folder, safetensors({"stray": ("F32", [100])}), "stray.safetensors")
    found = memcurve.weights(folder)
    assert [tensor.name for tensor in found.tensors] == ["a", "b", "c"]
    assert found.bytes == 12
    assert memcurve.weights(folder / "model.safetensors.index.json").tensors == found.tensors


def test_a_name_in_several_shards_is_read_where_the_index_says(tmp_path: Path) -> None:
    indexed(tmp_path, {"one.safetensors": ["a"], "two.safetensors": ["b"]})
    written(tmp_path, safetensors({"a": ("F32", [1]), "b": ("F32", [100])}), "one.safetensors")
    written(tmp_path, safetensors({"a": ("F32", [100]), "b": ("F32", [1])}), "two.safetensors")
    assert memcurve.weights(tmp_path).bytes == 8


def test_an_index_that_names_what_is_not_there(tmp_path: Path) -> None:
    indexed(tmp_path, {"one.safetensors": ["a"]}, {"b": "one.safetensors"})
    with pytest.raises(BadFile, match=r"'b' is not in 'one.safetensors'"):
        memcurve.weights(tmp_path)
    indexed(tmp_path, {"one.safetensors": ["a"]}, {"b": "two.safetensors"})
    with pytest.raises(BadFile, match=r"two.safetensors: No such file"):
        memcurve.weights(tmp_path)


@pytest.mark.parametrize(
    "shard",
    [
        "../out.safetensors",
        "/etc/passwd",
        "a/../../out.safetensors",
        "..",
        ".",
        "",
        "a//b",
        "..\\out",
        "C:out",
        "a\0b",
        7,
        None,
        ["a"],
    ],
)
def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path, shard: Any) -> None:
    written(tmp_path, safetensors({"b": ("F32", [1])}), "out.safetensors")
    indexed(tmp_path / "model", {"one.safetensors": ["a"]}, {"b": shard})
    with pytest.raises(BadFile, match=r"expected (the name of a file in the index's folder|a string)"):
        memcurve.weights(tmp_path / "model")


def test_a_link_that_leads_out(tmp_path: Path) -> None:
    folder = indexed(tmp_path / "model", {"one.safetensors": ["a"], "two.safetensors": ["b"]})
    (folder / "two.safetensors").rename(tmp_path / "two.safetensors")
    (folder / "two.safetensors").symlink_to("../two.safetensors")
    with pytest.raises(BadFile, match="leads out of its folder"):
        memcurve.weights(folder)
    (folder / "two.safetensors").unlink()
    (folder / "two.safetensors").symlink_to("two.safetensors")
    with pytest.raises(BadFile):
        memcurve.weights(folder)
    (folder / "two.safetensors").unlink()
    (tmp_path / "two.safetensors").rename(folder / "three.safetensors")
    (folder / "two.safetensors").symlink_to("three.safetensors")
    assert memcurve.weights(folder).bytes == 8


def test_the_links_of_the_hubs_cache(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    folder = indexed(repository / "snapshots" / "0123", {"one.safetensors": ["a"]})
    (repository / "blobs").mkdir()
    for name in ("one.safetensors", "model.safetensors.index.json"):
        (folder / name).rename(repository / "blobs" / f"hash-{name}")
        (folder / name).symlink_to(f"../../blobs/hash-{name}")
    assert memcurve.weights(folder).bytes == 4
    assert memcurve.weights(folder / "model.safetensors.index.json").bytes == 4
    (tmp_path / "linked").symlink_to(folder)
    assert memcurve.weights(tmp_path / "linked").bytes == 4
    (repository / "blobs" / "hash-one.safetensors").rename(repository / "elsewhere")
    (folder / "one.safetensors").unlink()
    (folder / "one.safetensors").symlink_to("../../elsewhere")
    with pytest.raises(BadFile, match="leads out of its folder"):
        memcurve.weights(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "expected an object"),
        ("{}", "no weight_map"),
        ('{"weight_map":[]}', "expected an object"),
        ('{"weight_map":{"a":"m.safetensors"},"weight_map":{}}', "weight_map again"),
        ('{"weight_map":{"a":"m.safetensors","a":"m.safetensors"}}', "'a' again"),
        ('{"metadata":%s}' % ("[" * 5000), "deep nesting"),
        ('{"metadata":"%s"}' % ("a" * 10000), "8192 bytes at most"),
        ('{"weight_map":{"a":"m.safetensors"}} x', "expected the end"),
    ],
)
def test_a_damaged_index(tmp_path: Path, text: str, message: str) -> None:
    written(tmp_path, safetensors({"a": ("F32", [1])}), "m.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(BadFile, match=message):
        memcurve.weights(tmp_path)


def test_which_files_of_a_folder(tmp_path: Path) -> None:
    one, two = safetensors({"a": ("F32", [1])}), safetensors({"b": ("F32", [2])})
    with pytest.raises(BadFile, match="no weights in it"):
        memcurve.weights(tmp_path)
    written(tmp_path, two, "model-00002-of-00002.safetensors")
    with pytest.raises(BadFile, match="1 shards of 2"):
        memcurve.weights(tmp_path)
    written(tmp_path, one, "model-00001-of-00002.safetensors")
    assert memcurve.weights(tmp_path).bytes == 12
    written(tmp_path, one, "model-00002-of-00002.safetensors")
    with pytest.raises(BadFile, match="'a' in two shards"):
        memcurve.weights(tmp_path)
    written(tmp_path, two, "model.safetensors")
    assert memcurve.weights(tmp_path).bytes == 8
    written(tmp_path, one, "m.gguf")
    assert "1 GGUF file(s) beside it" in memcurve.weights(tmp_path).notes[0]


def test_a_folder_of_several_models_is_not_guessed(tmp_path: Path) -> None:
    for name in ("adapter.safetensors", "other.safetensors"):
        written(tmp_path, safetensors({"a": ("F32", [1])}), name)
    with pytest.raises(BadConfig, match=r"2 files without an index: 'adapter.safetensors, other.safetensors'"):
        memcurve.weights(tmp_path)


# GGUF


def gguf(
    tensors: list[tuple[str, int, list[int]]],
    order: str = "<",
    version: int = 3,
    data: int | None = None,
    alignment: int = 32,
    keys: dict[str, int] | None = None,
) -> bytes:
    """A GGUF file by the layout of the format's specification (ggml/docs/gguf.md). data: how many bytes of it, if not all."""

    def text(word: str) -> bytes:
        return struct.pack(f"{order}Q", len(word)) + word.encode()

    keys = dict(keys or {})
    if alignment != 32:
        keys["general.alignment"] = alignment
    out = b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(keys) + 1)
    out += text("general.architecture") + struct.pack(f"{order}I", 8) + text("llama")
    for key, value in keys.items():
        out += text(key) + struct.pack(f"{order}II", 4, value)
    at = 0
    for name, kind, dims in tensors:
        out += text(name) + struct.pack(f"{order}I{len(dims)}QIQ", len(dims), *dims, kind, at)
        _, block, size = TYPES.get(kind, ("", 1, 1))
        at += -(-(product(dims) // block * size) // alignment) * alignment
    out += bytes(-len(out) % alignment)
    return out + bytes(at if data is None else data)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("version", [2, 3])
def test_a_gguf_file(tmp_path: Path, order: str, version: int) -> None:
    tensors = [
        ("token_embd.weight", 12, [256, 10]),
        ("blk.0.ffn_down_exps.weight", 39, [64, 2, 3]),
        ("output_norm.weight", 0, [5]),
    ]
    found = memcurve.weights(written(tmp_path, gguf(tensors, order, version), "m.gguf"))
    # Q4_K: 144 B per 256; MXFP4: 17 B per 32; 5 floats of 4 B
    assert found.by_dtype == {"Q4_K": 1440, "MXFP4": 204, "F32": 20}
    assert found.by_part == {"embedding": 1440, "experts": 204, "norm": 20}
    assert found.parameters == 2560 + 384 + 5
    assert found.tensors[1].shape == (3, 2, 64)


# Elements and bytes of a block, from the struct definitions of ggml-common.h at 0c1e57098: d and m are halves, s scales
BLOCKS = {
    "Q4_0": (32, 2 + 32 // 2), "Q4_1": (32, 2 * 2 + 32 // 2), "Q5_0": (32, 2 + 4 + 32 // 2), "Q5_1": (32, 2 * 2 + 4 + 32 // 2),
    "Q8_0": (32, 2 + 32), "Q8_1": (32, 2 * 2 + 32), "Q2_K": (256, 2 * 2 + 256 // 16 + 256 // 4),
    "Q3_K": (256, 2 + 256 // 4 + 256 // 8 + 12), "Q4_K": (256, 2 * 2 + 12 + 256 // 2), "Q5_K": (256, 2 * 2 + 12 + 256 // 2 + 256 // 8),
    "Q6_K": (256, 2 + 256 // 16 + 3 * 256 // 4), "Q8_K": (256, 4 + 256 + 256 // 16 * 2), "IQ2_XXS": (256, 2 + 256 // 8 * 2),
    "IQ2_XS": (256, 2 + 256 // 8 * 2 + 256 // 32), "IQ2_S": (256, 2 + 256 // 4 + 256 // 16), "IQ3_XXS": (256, 2 + 3 * (256 // 8)),
    "IQ3_S": (256, 2 + 13 * (256 // 32) + 256 // 64), "IQ1_S": (256, 2 + 256 // 8 + 256 // 16),
    "IQ1_M": (256, 256 // 8 + 256 // 16 + 256 // 32), "IQ4_NL": (32, 2 + 32 // 2), "IQ4_XS": (256, 2 + 2 + 256 // 64 + 256 // 2),
    "TQ1_0": (256, 2 + 256 // 64 + (256 - 4 * 256 // 64) // 5), "TQ2_0": (256, 2 + 256 // 4), "MXFP4": (32, 1 + 32 // 2),
    "NVFP4": (64, 64 // 16 + 64 // 2), "Q1_0": (128, 2 + 128 // 8), "Q2_0": (64, 2 + 64 // 4),
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8), "I8": (1, 1), "I16": (1, 2), "I32": (1, 4), "I64": (1, 8),
}  # fmt: skip


def test_blocks_of_ggml() -> None:
    assert {name: (block, size) for name, block, size in TYPES.values()} == BLOCKS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gguf([("a", 4, [32])]), "type 4; expected a type of ggml"),
        (gguf([("a", 43, [32])]), "type 43; expected a type of ggml"),
        (gguf([("a", 12, [255])]), "rows of 255 in Q4_K; expected a multiple of 256"),
        (gguf([("a", 0, [2**62, 4])], data=0), "a product within 63 bits"),
        (gguf([("a", 0, [2**63, 0])], data=0), "a product within 63 bits"),
        (gguf([("a", 0, [2**61])], data=0), "what 63 bits hold"),
        (gguf([("a", 0, [1] * 5)]), "5 dimensions; expected at most 4"),
        (gguf([("a", 0, [8]), ("a", 0, [8])]), "'a' again"),
        (gguf([("a" * 64, 0, [8])]), "expected at most 63 bytes"),
        (gguf([("a", 0, [8])], data=31), "where the data end"),
        (
            gguf([("a", 0, [8])], alignment=64).replace(b"alignment\4", b"alignment\5"),
            "general.alignment of type 5; expected type 4",
        ),
        (gguf([("a", 0, [8])], alignment=48), "expected a power of two"),
        (gguf([("a", 0, [8])], alignment=33), "expected a power of two"),
        (
            gguf([("a", 0, [9]), ("b", 0, [8])]).replace(struct.pack("<IQ", 0, 64), struct.pack("<IQ", 0, 32)),
            "offset 32; expected 64",
        ),
        (
            gguf([("a", 0, [8]), ("b", 0, [8])]).replace(struct.pack("<IQ", 0, 32), struct.pack("<IQ", 0, 64)),
            "offset 64; expected 32",
        ),
    ],
)
def test_damaged_gguf_files(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(BadFile, match=message):
        memcurve.weights(written(tmp_path, data, "m.gguf"))


def test_the_last_tensor_needs_no_padding(tmp_path: Path) -> None:
    assert memcurve.weights(written(tmp_path, gguf([("a", 0, [9])], data=36), "m.gguf")).bytes == 36
    assert memcurve.weights(written(tmp_path, gguf([("a", 0, [0]), ("b", 0, [])], alignment=1), "m.gguf")).bytes == 4


def split(folder: Path, **changed: int) -> str:
    for number, names in enumerate((["a", "b"], ["c"])):
        keys = {"split.no": number, "split.count": 2, "split.tensors.count": 3}
        if number == 1:
            keys.update({key.replace("_", "."): value for key, value in changed.items()})
        written(folder, gguf([(name, 0, [8]) for name in names], keys=keys), f"m-{number + 1:05d}-of-00002.gguf")
    return str(folder / "m-00001-of-00002.gguf")


def test_split_gguf_files(tmp_path: Path) -> None:
    first = split(tmp_path)
    assert memcurve.weights(first).bytes == 3 * 32
    written(tmp_path, gguf([("v.patch_embd.weight", 0, [8])]), "mmproj-m.gguf")
    assert memcurve.weights(tmp_path).bytes == 3 * 32
    assert "mmproj-m.gguf not counted" in memcurve.weights(tmp_path).notes[0]
    second = first.replace("00001-of", "00002-of")
    with pytest.raises(BadFile, match="part 2 of 2; expected the first"):
        memcurve.weights(second)
    for changed in ({"split_no": 0}, {"split_count": 3}):
        split(tmp_path, **changed)
        with pytest.raises(BadFile, match=r"expected 1 of 2"):
            memcurve.weights(first)
    split(tmp_path)
    written(tmp_path, gguf([("c", 0, [8]), ("d", 0, [8])], keys={"split.no": 1}), "m-00002-of-00002.gguf")
    with pytest.raises(BadFile, match=r"split.tensors.count 3; expected 4"):
        memcurve.weights(first)
    written(tmp_path, gguf([("a", 0, [8])], keys={"split.no": 1}), "m-00002-of-00002.gguf")
    with pytest.raises(BadFile, match="'a' is in a part before"):
        memcurve.weights(first)
    os.unlink(second)
    with pytest.raises(BadFile, match=r"00002-of-00002.gguf: No such file"):
        memcurve.weights(tmp_path)


def test_damaged_gguf_files_are_read_or_refused(tmp_path: Path) -> None:
    rng = random.Random(5)
    good = gguf([("a.weight", 12, [256, 2]), ("b.weight", 0, [7]), ("c.weight", 39, [32, 3])], alignment=64)
    for _ in range(DAMAGED // 2):
        data = bytearray(good)
        for _ in range(rng.choice([1, 2, 4])):
            data[rng.randrange(300)] = rng.choice([0, 1, 2, 31, 32, 64, 127, 128, 255, rng.randrange(256)])
        with suppress(BadFile):
            assert memcurve.weights(written(tmp_path, bytes(data), "m.gguf")).bytes <= len(data)


# Parts of models, by names as they are stored: of each model's weight map on the hub, or of its class
L = "model.layers.3"
NAMES = {
    "embedding": "model.embed_tokens.weight tok_embeddings.weight transformer.wte.weight wpe.weight backbone.embeddings.weight "
    "gpt_neox.embed_in.weight transformer.word_embeddings.weight transformer.embedding.word_embeddings.weight token_embd.weight "
    "model.language_model.embed_tokens.weight language_model.model.embed_tokens.weight shared.weight embed.weight "
    "model.language_model.embed_tokens_per_layer.weight per_layer_token_embd.weight decoder.embed_tokens.weight "
    "model.decoder.embed_positions.weight model.embed_tokens.qweight",
    "attention": f"{L}.self_attn.q_proj.weight {L}.self_attn.qkv_proj.bias {L}.self_attn.kv_a_proj_with_mqa.weight_scale_inv "
    f"{L}.self_attn.q_norm.weight {L}.self_attn.indexer.wk.weight {L}.self_attn.sinks transformer.h.11.attn.c_attn.weight "
    "h.0.attn.bias layers.0.attention.wq.weight transformer.h.0.self_attention.query_key_value.weight blk.3.attn_q.weight "
    "blk.3.attn_kv_a_mqa.weight blk.3.attn_q_a_norm.weight blk.3.attn_sinks.weight blk.3.indexer.attn_q_b.weight "
    "backbone.layers.5.mixer.q_proj.weight language_model.model.layers.3.cross_attn.k_proj.weight "
    "decoder.block.2.layer.1.EncDecAttention.q.weight transformer.blocks.3.norm_attn_norm.attn.Wqkv.weight layers.0.attn.wq_a.weight "
    "model.layers.0.temporal_block.q_proj.weight dec.blk.0.attn_q.weight model.layers.5.shared_transformer.self_attn.q_proj.weight",
    "state": f"{L}.linear_attn.in_proj_qkvz.weight {L}.linear_attn.norm.weight {L}.mamba.A_log {L}.mamba.dt_layernorm.weight "
    "backbone.layers.3.mixer.in_proj.weight backbone.layers.3.mixer.D backbone.layers.3.mixer.conv1d.bias blk.3.ssm_in.weight "
    "blk.3.ssm_a blk.3.shortconv.conv.weight blk.3.time_mix_decay.weight model.layers.0.conv.in_proj.weight "
    "model.layers.0.temporal_block.rg_lru.recurrent_param model.layers.5.mamba_decoder.mamba.D",
    "mlp": f"{L}.mlp.gate_proj.weight {L}.mlp.gate_up_proj.weight transformer.h.0.mlp.c_fc.weight layers.0.feed_forward.w1.weight "
    "blk.3.ffn_gate.weight blk.3.ffn_down.bias model.decoder.layers.0.fc1.weight backbone.layers.1.mixer.up_proj.weight "
    "encoder.block.0.layer.1.DenseReluDense.wi_0.weight blk.3.channel_mix_key.weight model.layers.0.mlp_block.up_proj.weight",
    "experts": f"{L}.mlp.experts.7.up_proj.weight {L}.mlp.experts.gate_up_proj_blocks {L}.block_sparse_moe.experts.0.w1.weight "
    f"{L}.feed_forward.experts.0.gate_proj.weight blk.3.ffn_gate_exps.weight blk.3.ffn_down.2.weight layers.0.ffn.experts.0.w2.scale "
    f"transformer.blocks.0.ffn.experts.mlp.w1 backbone.layers.3.mixer.experts.5.up_proj.weight {L}.block_sparse_moe.input_linear.weight "
    f"{L}.mlp.switch_mlp.up_proj.scales layers.0.experts.1.w1.weight",
    "shared": f"{L}.mlp.shared_experts.up_proj.weight {L}.mlp.shared_expert.up_proj.weight {L}.mlp.shared_expert_gate.weight "
    f"{L}.feed_forward.shared_expert.up_proj.weight {L}.shared_mlp.input_linear.weight blk.3.ffn_up_shexp.weight "
    f"blk.3.ffn_gate_inp_shexp.weight {L}.block_sparse_moe.shared_experts.up_proj.weight backbone.layers.3.mixer.shared_experts.up_proj.weight",
    "router": f"{L}.mlp.gate.weight {L}.mlp.gate.e_score_correction_bias {L}.mlp.router.weight {L}.block_sparse_moe.gate.weight "
    f"{L}.feed_forward.router.weight blk.3.ffn_gate_inp.weight blk.3.exp_probs_b.bias backbone.layers.3.mixer.gate.weight "
    f"{L}.feed_forward.expert_bias {L}.block_sparse_moe.router.layer.weight layers.0.ffn.gate.tid2eid",
    "norm": f"model.norm.weight {L}.input_layernorm.weight {L}.post_attention_layernorm.weight {L}.pre_ff_layernorm.weight "
    "transformer.ln_f.weight h.0.ln_1.bias output_norm.weight blk.3.attn_norm.weight blk.3.ffn_norm.weight blk.3.post_ffw_norm.weight "
    "backbone.norm_f.weight backbone.layers.3.norm.weight layers.0.attention_norm.weight model.layers.0.operator_norm.weight "
    "model.embedding_norm.weight decoder.final_layer_norm.weight transformer.encoder.final_layernorm.weight",
    "head": "lm_head.weight output.weight transformer.output_layer.weight embed_out.weight language_model.lm_head.weight head.weight lm_head.bias",
    "vision": "visual.blocks.0.attn.qkv.weight model.visual.patch_embed.proj.weight vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight "
    "model.vision_tower.blocks.0.weight multi_modal_projector.linear_1.weight model.multi_modal_projector.linear_1.weight v.blk.0.attn_q.weight "
    "mm.0.weight vision_model.encoder.layers.0.mlp.fc1.weight mlp1.0.weight model.embed_vision.embedding.weight patch_merger.merging_layer.weight",
    "audio": "model.audio_tower.conformer.0.attention.attn.q_proj.weight model.embed_audio.embedding.weight thinker.audio_tower.conv1.weight "
    "a.blk.0.attn_q.weight mm.a.mlp.1.weight",
    "draft": "mtp.fc.weight mtp.layers.0.self_attn.q_proj.weight mtp.layers.0.mlp.experts.3.up_proj.weight mtp.0.attn.wq_a.weight "
    "model.mtp_layers.0.self_attn.q_proj.weight",
    "other": f"rope_freqs.weight something.weight {L}.altup.modality_router.weight {L}.laurel.linear_left.weight {L}.self_attn2.weight "
    f"{L}.mlp_gate_thing.weight attention.weight hc_head_fn blk.3.layer_output_scale.weight {L}.linear.weight my.embed_tokens.weight "
    "model.embed_tokens_extra.weight model.normal.weight",
}  # fmt: skip


@pytest.mark.parametrize("part", NAMES)
def test_parts_by_name(part: str) -> None:
    names = NAMES[part].split()
    found = parts([*names, f"{L}.mlp.experts.0.up_proj.weight"])[:-1]
    wrong = {name: got for name, got in zip(names, found, strict=True) if got != part}
    assert not wrong


def test_a_layer_says_what_it_is() -> None:
    # DeepSeek-V3 and GLM-4.5 store their draft layer after the others, with eh_proj; GGUF files with nextn
    whole = "model.layers.61.eh_proj.weight model.layers.61.self_attn.o_proj.weight model.layers.61.mlp.experts.0.up_proj.weight"
    assert parts([*whole.split(), "model.layers.6.self_attn.o_proj.weight"]) == ["draft", "draft", "draft", "attention"]
    whole = "blk.46.attn_q.weight blk.46.nextn.eh_proj.weight blk.4.attn_q.weight"
    assert parts(whole.split()) == ["draft", "draft", "attention"]
    # Kimi-Linear's KDA layers call their mixer self_attn; in GGUF files GDN's projections are attn_qkv and attn_gate
    kda = "model.layers.0.self_attn.A_log model.layers.0.self_attn.q_proj.weight model.layers.0.mlp.up_proj.weight"
    assert parts([*kda.split(), "model.layers.3.self_attn.q_proj.weight"]) == ["state", "state", "mlp", "attention"]
    gdn = "blk.0.attn_qkv.weight blk.0.attn_gate.weight blk.0.ssm_ba.weight blk.0.attn_norm.weight blk.3.attn_q.weight"
    assert parts(gdn.split()) == ["state", "state", "state", "norm", "attention"]
    # Falcon-H1 has both side by side
    assert parts(["blk.0.attn_q.weight", "blk.0.ssm_in.weight", "blk.0.ssm_dt.bias"]) == ["attention", "state", "state"]


def test_a_shared_mlp_without_experts_is_an_mlp() -> None:
    # granite-4.0-h-1b
    assert parts(["model.layers.0.shared_mlp.input_linear.weight"]) == ["mlp"]


@given(
    st.lists(
        st.text(max_size=40) | st.from_regex(r"(model\.|blk\.)?(layers\.)?[0-9]{1,3}\.[a-z_.]{1,20}", fullmatch=True)
    )
)
def test_any_name_has_a_part(names: list[str]) -> None:
    assert len(parts(names)) == len(names)


# The command


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "memcurve", "weights", *words], capture_output=True, text=True, check=False
    )


def test_the_command(tmp_path: Path) -> None:
    path = written(tmp_path, safetensors({"lm_head.weight": ("BF16", [512, 3]), "model.norm.weight": ("F32", [256])}))
    assert json.loads(command(path, "--json").stdout) == {
        "schema": 1, "source": path, "bytes": 512 * 3 * 2 + 256 * 4, "parameters": 512 * 3 + 256, "tensors": 2,
        "by_dtype": {"BF16": 3072, "F32": 1024}, "by_part": {"norm": 1024, "head": 3072}, "notes": [],
    }  # fmt: skip
    lines = command(path).stdout.splitlines()
    assert lines[:2] == [f"{path} · 2 tensors · 1,792 numbers", "4,096 bytes (4.00 KiB)"]
    assert [line.split() for line in lines[2:]] == [
        ["by", "dtype"], ["BF16", "3,072", "3.00", "KiB", "75.0%"], ["F32", "1,024", "1.00", "KiB", "25.0%"],
        ["by", "part"], ["norm", "1,024", "1.00", "KiB", "25.0%"], ["head", "3,072", "3.00", "KiB", "75.0%"],
    ]  # fmt: skip


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path) -> None:
    done = command(written(tmp_path, raw('{"a\\u001b":{}}')))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert "dtype 0 times; expected it once" in done.stderr
