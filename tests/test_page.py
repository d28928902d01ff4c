"""The page computes what the library computes: its modules in Node, against Python."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from memcurve import MemcurveError, MemoryCurve, NotDescribed, catalog, load
from memcurve.curve import order
from memcurve.engines import NAMES
from memcurve.fitting import fit
from memcurve.model import describe
from memcurve.pages import fit_data
from memcurve.plan import requests
from memcurve.site import STATIC, model_data, pack, site_data, write_site
from memcurve.units import parse_bytes, parse_count, show_bytes, show_tokens

NODE = shutil.which("node")
PROGRAM = Path(__file__).parent / "page_agreement.mjs"
needs_node = pytest.mark.skipif(NODE is None, reason="node is not here")


def in_node(data: dict[str, Any]) -> dict[str, Any]:
    assert NODE is not None
    done = subprocess.run(
        [NODE, str(PROGRAM)], input=json.dumps(data), capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@needs_node
def test_ten_thousand_random_cases_agree(count: Any) -> None:
    random_ = random.Random(20)
    curves = []
    for name in catalog.names():
        try:
            model = describe(catalog.find(name) or {}, name)
        except MemcurveError:
            continue
        for engine in NAMES:
            ranks = {"vllm": "tensor_parallel_size", "sglang": "tp_size"}.get(engine)
            options = {ranks: 2} if ranks and random_.random() < 0.3 else {}
            try:
                curves.append(model.curve(engine, None if model.dtype else "bf16", **options))
            except MemcurveError:
                continue
    cases = [
        (random_.randrange(len(curves)), int(2 ** random_.uniform(0, 22)) - 1, int(2 ** random_.uniform(0, 12)) - 1)
        for _ in range(10_000)
    ]
    expected: list[str] = []
    for index, context, batch in cases:
        try:
            expected.append(str(curves[index].bytes(context, batch)))
        except MemcurveError as error:
            expected.append(str(error))
    found = in_node({"curves": [curve.to_dict() for curve in curves], "rooms": [], "bytes": cases, "fits": []})
    assert found["bytes"] == expected
    assert found["parts"] == expected
    refused = sum(not text.isdigit() for text in expected)
    assert 50 < refused < 2500
    count(f"page: 10,000 random cases of {len(curves)} curves agree with the library, {refused} of them refused")


@needs_node
def test_what_fits_agrees() -> None:
    random_ = random.Random(21)
    rooms: list[Any] = []
    cases: list[tuple[int, int, int]] = []
    expected: list[list[str | None]] = []
    filled: list[tuple[Any, int | None, int]] = []
    names = ["Qwen/Qwen3-Next-80B-A3B-Thinking", "google/gemma-3-27b-it", "deepseek-ai/DeepSeek-V3", "meta-llama/Llama-3.1-8B-Instruct",
             "ai21labs/Jamba-v0.1", "tiiuae/falcon-mamba-7b"]  # fmt: skip
    for name in names:
        model = load(name)
        for engine in NAMES:
            for gpu, gpus in (("H100 80GB", 1), ("M4 Max 128GB", 1), ("H200", 4), ("RTX 4090", 2), ("B200", 8)):
                for _ in range(3):
                    context, batch = int(2 ** random_.uniform(0, 18)), int(2 ** random_.uniform(0, 9))
                    try:
                        answer = fit(model, gpu=gpu, gpus=gpus, engine=engine, context=context, batch=batch)
                        data = fit_data(answer)
                    except MemcurveError:
                        continue
                    cases.append((len(rooms), context, batch))
                    rooms.append(json.loads(json.dumps(data)))
                    longest = None if answer.max_context is None else str(answer.max_context)
                    expected.append([str(answer.max_requests), answer.bound_by, longest])
                    allocator = answer.curves[0].allocator
                    state = answer.rooms[0].state(context, 1) if engine != "llamacpp" else None
                    filled.append((allocator, state, context))
                    assert requests(list(answer.rooms), context)[0] >= 0
    found = in_node({"curves": [], "rooms": rooms, "bytes": [], "fits": cases})
    assert len(cases) > 150
    assert found["fits"] == expected
    for (allocator, state, context), (used, padding) in zip(filled, found["filled"], strict=True):
        if state is not None:
            assert int(used) + int(padding) == state
        if allocator is not None and allocator.filled():
            # The sentence that --explain prints
            assert f"{int(padding):,} B (" in allocator.padding(context)


@needs_node
def test_crossings_agree(count: Any) -> None:
    random_ = random.Random(23)
    names = [one["name"] for one in site_data(("H100 80GB",))["models"]]
    curves: list[MemoryCurve] = []
    while len(curves) < 160:
        model = describe(catalog.find(name := random_.choice(names)) or {}, name)
        try:
            curves.append(model.curve(random_.choice(NAMES), "bf16"))
        except MemcurveError:
            continue
    pairs: list[tuple[int, int, int, int, int]] = []
    expected: list[list[list[Any]]] = []
    for _ in range(400):
        a, b, batch = random_.randrange(160), random_.randrange(160), random_.choice((1, 2, 7, 64))
        one, other = (curve.per_sequence(batch) if curve.limits else curve for curve in (curves[a], curves[b]))
        found = order(one, other, batch, until=2**18)
        pairs.append((a, b, batch, max(one.first_context(batch), other.first_context(batch)), 2**18))
        # From a crossing on, the one that was the dearer before is the cheaper
        signs = [(one.bytes(context, batch) < other.bytes(context, batch)) for context in found.crossings]
        expected.append([[context, sign] for context, sign in zip(found.crossings, signs, strict=True)])
    data = [curve.to_dict() for curve in curves]
    assert in_node({"curves": data, "rooms": [], "bytes": [], "fits": [], "pairs": pairs})["crossings"] == expected
    several = sum(len(found) for found in expected)
    assert several > 300
    count(f"page: {several:,} crossings of 400 pairs agree with the library")


@needs_node
def test_numbers_are_written_and_read_as_the_library_does() -> None:
    random_ = random.Random(22)
    numbers = [0, 1, 1023, 1024, 1048576, *(int(2 ** random_.uniform(0, 52)) for _ in range(300))]
    counts = ["4096", "128k", "1M", "1_000", "7K"]
    sizes = ["60GiB", "79.6GiB", "8GB", "512MiB", "1024", "1.5 TiB", "3 kb", "0.123456MiB"]
    found = in_node(
        {"curves": [], "rooms": [], "bytes": [], "fits": [], "numbers": numbers, "counts": counts, "sizes": sizes}
    )
    assert found["words"] == [[f"{number:,}", show_bytes(number), show_tokens(number)] for number in numbers]
    assert found["counts"] == [parse_count(text) for text in counts]
    assert found["sizes"] == [parse_bytes(text) for text in sizes]
    bad = ["", "x", "-1", "1.5", "1e9", "1k2", "9" * 20]
    found = in_node(
        {
            "curves": [],
            "rooms": [],
            "bytes": [],
            "fits": [],
            "counts": bad,
            "sizes": ["", "x", "-1GiB", "1..2", "GiB", "9" * 20],
        }
    )
    assert found["counts"] == [None] * len(bad)
    assert found["sizes"] == [None] * 6


@needs_node
def test_a_number_that_json_rounds_is_an_error() -> None:
    term = {"kind": "k", "layers": 1, "tensors": [["key", 2**53 + 1]], "slots": "context", "shared": False}
    curve = {"schema": 1, "name": "n", "engine": "logical", "dtype": "bfloat16", "terms": [term], "notes": []}
    with pytest.raises(subprocess.CalledProcessError) as error:
        in_node({"curves": [curve], "rooms": [], "bytes": [], "fits": []})
    assert "not read exactly" in error.value.stderr


# -- files --------------------------------------------------------------------------------------------------------------


def test_a_models_file_holds_what_fit_answers() -> None:
    devices = ("H100 80GB", "RTX 4090", "MI300X")
    data = model_data("Qwen/Qwen3-Next-80B-A3B-Thinking", devices, (1, 4))
    for engine in NAMES:
        for gpus in (1, 4) if engine != "mlx" else (1,):
            cells = data["engines"][engine]["fits"][str(gpus)]
            for place, gpu in enumerate(devices):
                split = {"tp": gpus} if engine in ("vllm", "sglang") else {"pp": gpus}
                try:
                    answer = fit(data["name"], gpu=gpu, gpus=gpus, engine=engine, context=5000, batch=3, **split)  # type: ignore[arg-type]
                except MemcurveError as error:
                    assert cells["cells"][place] == str(error)  # noqa: PT017
                    continue
                form, reserve, *amounts = cells["cells"][place]
                assert cells["weights"] == [stage.weights_bytes for stage in answer.stages]
                rooms = fit_data(answer)["rooms"]
                assert {reserve} == {room["reserve"] for room in rooms}
                shares = [one[1] for room in fit_data(answer)["rooms"] for one in room["shares"] or () if len(one) == 3]
                assert amounts == shares
                assert [room["curve"] for room in form["rooms"]] == [curve.to_dict() for curve in answer.curves]


def test_caches_that_hold_more_on_the_way_are_not_planned_by_the_page() -> None:
    """gemma-3's windows under MLX-LM: a piece of the prompt stands behind them, MemoryCurve.peak."""
    data = model_data("google/gemma-3-27b-it", ("M4 Max 128GB",), (1,))
    assert "the page does not plan caches" in data["engines"]["mlx"]["fits"]["1"]["error"]
    with pytest.raises(NotDescribed, match="the page does not plan caches that hold more on the way"):
        fit_data(fit("google/gemma-3-27b-it", gpu="M4 Max 128GB", engine="mlx"))


@pytest.mark.parametrize("name", ["Qwen/Qwen3-8B", "google/gemma-2-9b", "LiquidAI/LFM2-1.2B", "openai/gpt-oss-20b"])
def test_dtypes_that_are_called_alike_answer_alike(name: str) -> None:
    data, model = model_data(name, ("H100 80GB",), (1, 2)), load(name)
    for engine in NAMES:
        own = data["engines"][engine]
        held = without_dtype(own["curve"])
        assert own["alike"]
        for dtype, (called, planned) in own["alike"].items():
            curve = model.curve(engine, dtype)
            assert called == curve.dtype
            assert held == without_dtype(curve.to_dict())
            if not planned:
                assert "no_fit" in own
            elif "no_fit" not in own:
                told = {} if model.dtype else {"dtype": own.get("dtype")}
                gpus = 1 if engine == "mlx" else 2
                plain = fit(model, gpu="H100 80GB", gpus=gpus, engine=engine, context=5000, batch=3, **told)
                asked = fit(model, gpu="H100 80GB", gpus=gpus, engine=engine, context=5000, batch=3, dtype=dtype)
                assert plain.to_dict() == asked.to_dict()


def without_dtype(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != "dtype"}


def test_the_site_is_small_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [one["name"] for one in site_data()["models"]]
    names = sorted(every)[6::8]
    monkeypatch.setattr("memcurve.catalog.names", lambda: names)
    size = write_site(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert size == sum(path.stat().st_size for path in files)
    site = json.loads((tmp_path / "data" / "site.json").read_text())
    assert [one["name"] for one in site["models"]] == names
    assert 'data-source="files"' in (tmp_path / "index.html").read_text()
    page = sum(path.stat().st_size for path in STATIC.iterdir())
    assert page < 300_000
    # 3.5 MB for the whole catalogue
    assert page + (size - page) / len(names) * len(every) < 3_500_000


def test_values_that_recur_are_written_once() -> None:
    one = {"kind": "full attention", "slots": ["ceil", "context", 16]}
    assert pack([one, one, one]) == {"shared": [one], "data": ["$0", "$0", "$0"]}
    # What is in a shared value is shared too; a number is not, nor a text that is as short as its name would be
    other = ["ceil", "context", 16]
    assert pack([one, one, other, 123456789, 123456789, "abc", "abc"]) == {
        "shared": [other, {"kind": "full attention", "slots": "$0"}],
        "data": ["$1", "$1", "$0", 123456789, 123456789, "abc", "abc"],
    }
    assert len(site_data()["models"]) > 190


@needs_node
def test_a_packed_file_is_unpacked_as_it_was() -> None:
    texts = [
        "$0",
        "$",
        "$$1",
        "",
        "a text that is long",
        "a text that is long",
        "$ and a long text",
        "$ and a long text",
    ]
    whole: list[Any] = [
        texts,
        [True, 1, 1.5, None, "1", "true", [], {}, [[]], [{}], {"a": [True, 1]}, {"a": [1, True]}, {"b": [1, True]}] * 3,
        model_data("google/gemma-2-9b", ("H100 80GB", "MI300X"), (1, 4)),
    ]
    packed = json.loads(json.dumps([pack(one) for one in whole]))
    found = in_node({"curves": [], "rooms": [], "bytes": [], "fits": [], "packed": packed})
    # By their text: in Python True is 1
    assert json.dumps(found["packed"]) == json.dumps(whole).replace("1.0", "1")


def test_the_page_obeys_its_policy() -> None:
    for path in STATIC.glob("*.html"):
        text = path.read_text()
        assert " style=" not in text
        assert "<style" not in text
        assert "onclick" not in text
        assert "<script>" not in text
    for path in STATIC.glob("*.js"):
        text = path.read_text()
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "http://",
            "https://",
        ):
            assert word not in text.replace("http://www.w3.org/2000/svg", ""), f"{word} in {path.name}"
