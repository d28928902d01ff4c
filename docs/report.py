"""Replays every recorded case, and writes the verification report and the counts that `memcurve models --types` shows.

python docs/report.py            # rewrites docs/verification.md and src/memcurve/verified.json
python docs/report.py --check    # exit 1 where they are not what a replay gives
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

from mlx_cases import cases as mlx_cases  # noqa: E402 - the tests' own readers
from replay import Case, cases  # noqa: E402

from memcurve import load  # noqa: E402
from memcurve.config import class_defaults  # noqa: E402
from memcurve.families import REFUSED, model_types, structure_of  # noqa: E402
from memcurve.verify.mlx import found, same  # noqa: E402

INTRO = """# Verification report

Every case is a model of Transformers 5.23.0 (torch 2.13.0, on a CPU) that was built from a small or a full-size config and run: a prompt,
then single tokens, and the bytes of all distinct tensors that its cache holds. memcurve's engine `transformers` is asked for the same
config and workload. *Equal* means equal to the byte. The last column counts the cases of engine `mlx`: caches of MLX-LM 0.32.2 after its own
loops, and what it raises, which memcurve must refuse. `python docs/report.py` writes this page from a replay of `tests/truth/`.
"""


def exact(case: Case) -> bool:
    curve = load(case.config).curve("transformers", case.dtype, **case.options)
    return curve.bytes(case.context, case.batch, case.encoder_context) == case.total_bytes


def mlx_counts() -> dict[str, list[int]]:
    """Per model type of the config: recorded cases of MLX-LM, and those that are equal."""
    counts: dict[str, list[int]] = {}
    for case in mlx_cases():
        row = counts.setdefault(case.config["model_type"], [0, 0])
        row[0] += 1
        row[1] += same(found(case.config, case.workload), case.recorded)
    return counts


def main() -> int:
    seen: dict[str, list[int]] = {}
    variants: dict[str, set[str]] = {}
    for case in cases():
        row = seen.setdefault(case.model_type, [0, 0])
        row[0] += 1
        row[1] += exact(case)
        variants.setdefault(case.model_type, set()).add(case.variant)
    total, equal = (sum(row[index] for row in seen.values()) for index in (0, 1))
    hub_only = [name for name in model_types() if class_defaults(name) is None]
    mlx = mlx_counts()
    mlx_total, mlx_equal = (sum(row[index] for row in mlx.values()) for index in (0, 1))
    lines = [
        INTRO,
        f"**{equal:,} of {total:,} cases equal, of {len(seen)} model types.** {len(REFUSED)} types that generate in Transformers are "
        f"refused by name. {len(hub_only)} types whose code is only on the hub have no such cases: their numbers are derived by hand in "
        "`tests/test_hub_only.py`, one or more each.",
        "",
        f"**MLX-LM: {mlx_equal:,} of {mlx_total:,} cases equal, of {len(mlx)} model types.**",
        "",
        "| model type | read by | configs | cases | equal | MLX-LM |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(seen.keys() | mlx.keys()):
        columns = ["—", "—", "—", "—"]
        if name in seen:
            model = load({"model_type": name})
            columns = [str(structure_of(model.model_type)), *map(str, (len(variants[name]), *seen[name]))]
        both = mlx.get(name)
        columns.append("" if both is None else f"{both[1]} of {both[0]}")
        lines.append(f"| {name} | {' | '.join(columns)} |")
    lines += ["", "## Refused", "", "| model type | why |", "|---|---|"]
    lines += [f"| {name} | {why} |" for name, why in sorted(REFUSED.items())]
    lines += ["", "## Code on the hub only", "", ", ".join(f"`{name}`" for name in hub_only), ""]
    pages = {
        ROOT / "docs" / "verification.md": "\n".join(lines),
        ROOT / "src" / "memcurve" / "verified.json": json.dumps(
            {name: row[0] for name, row in sorted(seen.items())}, indent=0
        )
        + "\n",
    }
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        if stale:
            print(
                f"not what a replay gives: {', '.join(path.name for path in stale)}; run python docs/report.py",
                file=sys.stderr,
            )
        return bool(stale)
    for path in stale:
        path.write_text(pages[path])
    print(
        f"{equal:,} of {total:,} cases equal, of {len(seen)} model types; "
        f"MLX-LM {mlx_equal:,} of {mlx_total:,}, of {len(mlx)}; {len(stale)} files changed"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
