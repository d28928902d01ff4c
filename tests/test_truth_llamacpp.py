"""What llama.cpp 0c1e57098 allocated, replayed to the byte (tests/README.md says how the file reads)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from llamacpp_cases import cases

from memcurve import load
from memcurve.verify.llamacpp import curve, found

CASES = list(cases())


def test_every_recorded_case_is_equal(count: Any) -> None:
    wrong, refusals, reasons = [], 0, 0
    for case in CASES:
        mine = found(load(case.metadata), case.workload)
        if len(case.recorded) == len(mine) == 1:
            refusals += 1
            reasons += mine[0] in case.recorded[0] or case.recorded[0] in mine[0]
        elif mine != case.recorded:
            wrong.append(f"{case.model}, {case.workload}: {mine}, recorded {case.recorded}")
    architectures = {case.metadata["general.architecture"] for case in CASES}
    count(
        f"llama.cpp 0c1e57098: {len(CASES)} recorded cases of {len(architectures)} architectures, {len(wrong)} wrong; "
        f"{refusals} refusals, {reasons} for the reason recorded"
    )
    assert wrong == []
    # Where two things are wrong, either may be said first.
    assert reasons > 0.9 * refusals


def test_no_kind_of_recording_is_missing() -> None:
    kinds = Counter(len(case.recorded) for case in CASES)
    assert kinds[6] >= 2761
    assert kinds[1] >= 129
    for column, least in ((2, 600), (3, 500), (4, 40), (5, 80)):
        assert sum(len(case.recorded) == 6 and case.recorded[column] > 0 for case in CASES) >= least


def test_arrays_agree_with_single_contexts() -> None:
    import numpy as np

    for case in CASES[::97]:
        if len(case.recorded) == 6:
            line = curve(load(case.metadata), case.workload)
            batch = case.workload["n_seq_max"]
            contexts = np.array([max(batch, 1), 300, 0, 5000, case.workload["n_ctx"]])
            assert line.bytes(contexts, batch).tolist() == [line.bytes(int(one), batch) for one in contexts]
