"""memcurve verify: small models run in Transformers, their caches compared."""

from __future__ import annotations

import os
import sys

from ..base import BadConfig, MissingExtraError
from .shared import SCHEMA, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subjects", nargs="*", metavar="SUBJECT", help="model types, config.json files or folders, or catalogue names"
    )
    parser.add_argument("--all", action="store_true", help="every model type that generates")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="N of them, drawn by --seed")
    parser.add_argument("--seed", default="0", help="any text; the same text draws the same sample (default: 0)")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run the code that a folder holds beside its config.json (default: off)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 where a case differs or a named subject can't be run."""
    try:
        from .. import verify
    except ImportError as error:
        raise MissingExtraError(
            f"verify needs torch and transformers ({error.name or error}): pip install 'memcurve[verify]'"
        ) from None
    verify.quiet()
    every = verify.generative_types()
    subjects = list(arguments.subjects)
    if arguments.all:
        subjects += every
    if arguments.sample:
        import random

        subjects += sorted(random.Random(arguments.seed).sample(every, min(arguments.sample, len(every))))
    if not subjects:
        raise BadConfig("subjects: none; expected model types or config.json files, or --sample N, or --all")
    rows = []
    for index, subject in enumerate(subjects, 1):
        if sys.stderr.isatty():
            print(f"\r[{index}/{len(subjects)}] {clean(subject)[:60]:<60}", end="", file=sys.stderr, flush=True)
        if subject in every:
            row = verify.check_type(subject)
        elif arguments.trust_remote_code and os.path.isdir(subject):
            row = verify.check_remote(subject)
        else:
            row = verify.check_config(subject, read_config(subject))
        rows.append(row)
        if not arguments.json:
            if sys.stderr.isatty():
                print("\r", end="", file=sys.stderr)
            state = "equal" if row.cases and row.equal == row.cases else "differs" if row.cases else ""
            print(
                f"{clean(row.name):<36} {row.cases:>5} cases {row.equal:>5} equal {row.tensors:>5} by tensor  {' '.join(filter(None, (state, clean(row.difference))))}",
                flush=True,
            )
    cases, equal = sum(row.cases for row in rows), sum(row.equal for row in rows)
    if arguments.json:
        import json

        print(
            json.dumps(
                {
                    "schema": SCHEMA,
                    "transformers": verify.INSTALLED,
                    "rows": [row._asdict() for row in rows],
                }
            )
        )
    else:
        version = verify.INSTALLED
        print(
            f"{equal:,} of {cases:,} cases equal; {sum(not row.cases for row in rows)} of {len(rows)} subjects not run; Transformers {version}"
        )
        if version != verify.PINNED:
            print(f"note: memcurve describes Transformers {verify.PINNED}")
    unrun = any(not row.cases for row in rows[: len(arguments.subjects)])
    return int(equal != cases or unrun)


def read_config(subject: str) -> dict[str, Any]:
    from .. import catalog
    from ..model import read_path

    found = None if os.path.exists(subject) else catalog.find(subject)
    return read_path(subject)[0] if found is None else found
