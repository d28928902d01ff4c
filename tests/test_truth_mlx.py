"""Every recorded case of MLX-LM 0.32.2 is equal (tests/README.md says how they were recorded)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from mlx_cases import cases

from memcurve.verify.mlx import found, same

CASES = list(cases())


def test_every_recorded_case_is_equal(count: Any) -> None:
    wrong = []
    for case in CASES:
        mine = found(case.config, case.workload)
        if not same(mine, case.recorded):
            wrong.append(f"{case.variant}, {case.workload}: {mine}, recorded {case.recorded}")
    types = {case.config["model_type"] for case in CASES}
    refused = sum(isinstance(case.recorded, str) for case in CASES)
    count(
        f"MLX-LM 0.32.2: {len(CASES)} recorded cases of {len(types)} model types, {refused} of them refusals, {len(wrong)} wrong"
    )
    assert wrong == []


def test_no_kind_of_recording_is_missing() -> None:
    kinds = Counter(case.workload["schedule"] for case in CASES)
    assert kinds["forward"] >= 2900
    assert kinds["generate_step"] >= 900
    assert kinds["batch_generator"] >= 400
    assert sum(case.workload["kv_bits"] is not None for case in CASES) >= 1300
    assert sum(case.workload["max_kv_size"] is not None for case in CASES) >= 700
    assert sum(isinstance(case.recorded, str) for case in CASES) >= 550
