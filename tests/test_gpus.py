"""Accelerators: every figure has a source, names are found in the spellings people use, and a shared name is never guessed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import call

from memcurve import gpus
from memcurve.base import BadConfig
from memcurve.engines import vllm
from memcurve.gpus import Gpu, gpu

MIB, GIB = 2**20, 2**30


def test_every_device_has_a_source_and_a_plausible_memory() -> None:
    assert len(gpus.table()) >= 100
    for one in gpus.table():
        assert len(one.source) > 10, one.name
        assert 4 * GIB < one.memory_bytes < 600 * GIB, one.name
        assert (one.memory_from == "data sheet") == (one.reported_by == "data sheet"), one.name
        assert (one.capability is not None) == (one.vendor == "NVIDIA"), one.name
        # CUDA keeps back some of what nvidia-smi shows: least on Windows, most on an A100 of 80 GB.
        if one.driver_bytes is not None:
            assert 0 < one.driver_bytes - one.memory_bytes < 0.035 * one.driver_bytes, one.name
        if one.unified_bytes is not None:
            assert 0.45 < one.memory_bytes / one.unified_bytes < 1, one.name


def test_a_size_in_a_name_is_the_memory_but_for_what_is_kept_back() -> None:
    sized = 0
    for one in gpus.table():
        for form in gpus.forms(one):
            sizes = [word for word in form.split() if word.endswith("GB") and word[:-2].isdigit()]
            # The 480 or 120 GB of a GH200's name are its CPU's memory.
            if sizes and form not in ("GH200 480GB", "GH200 120GB") and one.unified_bytes is None:
                sized += 1
                assert 0.87 < one.memory_bytes / (int(sizes[0][:-2]) * GIB) <= 1.025, form
    assert sized > 60


def test_no_two_devices_share_a_name() -> None:
    seen: dict[frozenset[str], str] = {}
    for one in gpus.table():
        for form in gpus.forms(one):
            assert seen.setdefault(gpus.words(form), one.name) == one.name, form
            assert gpu(form) is one
    assert len(set(gpus.names())) == len(gpus.names())


# The source's own line, and the bytes by its arithmetic.
@pytest.mark.parametrize(
    ("name", "memory", "driver"),
    [
        ("H100", 84_942_979_072, 85_520_809_984),  # the bytes that modal-labs/modal-client#2797 gives for 81559 MiB
        ("A100 40GB", 42_298_834_944, 40960 * MIB),
        ("RTX 5090", 32109 * MIB, 32607 * MIB),
        ("RTX 4090", 24080 * MIB, 24564 * MIB),
        ("L4", 22563 * MIB, 23034 * MIB),
        ("A10G", 23028 * MIB, None),
        ("MI300X", 206_141_652_992, None),  # 192 GiB less 16 MiB
        ("MI355X", 309_220_868_096, None),  # 288 GiB less 16 MiB
        ("TPU v5p", 95 * 10**9, None),
        ("B200", int(178.35 * GIB), 183359 * MIB),
    ],
)
def test_bytes_are_those_of_the_source(name: str, memory: int, driver: int | None) -> None:
    assert (gpu(name).memory_bytes, gpu(name).driver_bytes) == (memory, driver)
    assert gpu("MI300X").memory_bytes == 192 * GIB - 16 * MIB
    assert gpu("MI355X").memory_bytes == 288 * GIB - 16 * MIB


def test_metal_gives_two_thirds_of_a_small_mac_and_three_quarters_of_a_larger() -> None:
    macs = {one.unified_bytes // GIB: one for one in gpus.table() if one.vendor == "Apple" and one.unified_bytes}
    assert set(macs) == {8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512}
    for size, one in macs.items():
        share = 2 / 3 if size < 36 else 3 / 4
        if size <= 128:
            # To a page of 16 KiB, and the hundredth of a MB that llama.cpp prints.
            assert abs(one.memory_bytes - share * size * GIB) < 40_000, one.name
        else:
            assert share - 0.06 < one.memory_bytes / (size * GIB) < 0.92, one.name


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("H100-80G", "H100 80GB"),
        ("h100 80 GiB", "H100 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA A100-SXM4-80GB", "A100 80GB"),
        ("A100-PCIE-40GB", "A100 40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"),
        ("Tesla V100-SXM2-32GB", "V100 32GB"),
        ("NVIDIA GH200 144G HBM3e", "GH200 144GB"),
        ("4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", "RTX 4090 D"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("AMD Instinct MI300X", "MI300X"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("M4-Max-128G", "M4 Max 128GB"),
        ("Apple M3 Ultra 512 GB", "M3 Ultra 512GB"),
        ("dgx_spark", "GB10"),
    ],
)
def test_names_as_people_and_logs_write_them(asked: str, found: str) -> None:
    assert gpu(asked).name == found


@pytest.mark.parametrize(
    ("asked", "choices"),
    [
        ("A100", "A100 80GB, A100 40GB"),
        ("V100", "V100 16GB, V100 32GB"),
        ("GB300", "GB300 288GB, GB300 252GB"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX 4060 Ti 16GB"),  # also sold with 8 GB
        ("M4 Max", "M4 Max 36GB, M4 Max 48GB, M4 Max 64GB, M4 Max 128GB"),
    ],
)
def test_a_name_of_several_sizes_is_not_guessed(asked: str, choices: str) -> None:
    with pytest.raises(BadConfig, match=f"^gpu: '{asked}'; not a device alone; expected one of {choices}$"):
        gpu(asked)


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(BadConfig, match=r"gpu: 'H1000'; expected a name of memcurve gpus \(nearest: H100 80GB\)"):
        gpu("H1000")
    with pytest.raises(BadConfig, match="gpu: '4090 48GB'; expected a name"):  # rebuilt with twice the memory
        gpu("4090 48GB")
    for bad in ("", "  ", "NVIDIA", 4090, None):
        with pytest.raises(BadConfig, match=r"^gpu: "):
            gpu(bad)  # type: ignore[arg-type]


@given(st.text(max_size=400))
def test_any_text_is_a_device_or_one_line(text: str) -> None:
    try:
        found: Gpu | str = gpu(text)
    except BadConfig as error:
        found = str(error)
    assert isinstance(found, Gpu) or (found.isprintable() and len(found) < 400)


def test_vllm_knows_the_same_capabilities_and_memory_classes() -> None:
    for known, (capability, batch) in vllm.GPUS.items():
        asked = gpus.words(known)
        same = [one for one in gpus.table() if any(asked <= gpus.words(form) for form in gpus.forms(one))]
        # RTX 4090 and the like begin other cards' names; their capability is the same.
        assert same, known
        assert {one.capability for one in same} == {capability}, known
        for one in same:
            # get_batch_defaults of vLLM's engine/arg_utils.py: 160 GiB or more; 70 GiB or more and no A100; the rest.
            size = one.memory_bytes / GIB
            middle = size >= 70 and "a100" not in one.name.lower()
            assert batch == (vllm.LARGE if size >= 160 else vllm.MIDDLE if middle else vllm.SMALL), one.name


def test_the_table_is_read_when_used() -> None:
    code = "import sys, memcurve.gpus; assert 'tomllib' not in sys.modules; memcurve.gpus.names(); assert 'tomllib' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (Path(gpus.__file__).parent / "gpus.toml").is_file()


def test_the_command_prints_the_table_one_device_and_json() -> None:
    lines = call("gpus").stdout.splitlines()
    assert len(lines) == len(gpus.table()) + 2
    assert any(line.startswith("RTX 5090 ") and "33,668,726,784" in line and "CUDA" in line for line in lines)
    one = call("gpus", "m4-max-128g").stdout
    assert "103,079,215,104 bytes (96.00 GiB), by Metal" in one
    assert "75.0% of it above" in one
    data = json.loads(call("gpus", "H200", "--json").stdout)
    assert data["schema"] == 1
    assert data["gpus"][0]["driver_bytes"] == 143771 * MIB
    assert data["gpus"][0]["capability"] == [9, 0]
    assert len(json.loads(call("gpus", "--json").stdout)["gpus"]) == len(gpus.table())
    refused = call("gpus", "A100")
    assert refused.returncode == 2
    assert refused.stderr.startswith("memcurve: gpu: 'A100'; not a device alone; expected one of A100 80GB, A100 40GB")
