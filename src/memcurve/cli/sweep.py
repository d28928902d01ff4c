"""memcurve sweep: every point of a grid as rows of exact bytes."""

from __future__ import annotations

import sys

from ..base import clean
from .shared import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

SPEC = """the spec, in TOML:
  subjects = ["{n}gdn:1mha", "{n}swa:1mha"]        # patterns, catalogue names, config.json files, hub ids, .gguf files
  contexts = {from = "1k", to = "1M", times = 2}   # or {from, to, step}, or [4096, "128k"]; k is 1024
  batches = {from = 1, to = 64}                    # default: 1
  engines = ["logical", "vllm"]                    # or "all"; default: logical
  dtypes = ["bf16", "fp8"]                         # default: each config's own, bf16 for patterns
  pareto = "loss"                                  # or {column, best = "most", context, batch}
  [sizes]                                          # sizes of patterns, {n} in a pattern, keys of a config
  n = [1, 3, 7]
  n_layers = [24, 48]
  [options]                                        # an engine's own
  [columns]                                        # yours: one value, or one per subject
  loss = {"{n}gdn:1mha" = 2.31, "{n}swa:1mha" = 2.33}

All combinations are taken; one that an engine or a config refuses is a row with the reason. Subjects with sizes, options
or columns of their own go into [[grids]] of their own, which take the axes above where they give none, and are put one
after another. A list of points is `points = "points.csv"`, a file with a header such as
  subject,engine,context,batch,sizes.n,options.block_size,columns.loss
or a [[points]] table for each, with the same names. `sample = 1000000` draws points at random, by `seed`. Of an option,
"none" is the engine's None; encoder_context = 1500 is for models that keep an encoder's keys.

A row has subject, sizes, engine, dtype, options, columns, context, batch, bytes (int64), and where there are none a reason.
Up to 4,194,304 rows the output is one file, beyond it a folder of files under that name. A sweep that was stopped, in
whatever way, goes on when the same command is run again; until then its parts stand in OUT.parts.
"""


def build(parser: argparse.ArgumentParser) -> None:
    parser.epilog = f"{SPEC}\n{parser.epilog}"
    parser.add_argument("spec", metavar="SPEC", help="a TOML file, see below")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        default="sweep.parquet",
        help="where to: .parquet, .csv or .arrow (default: sweep.parquet)",
    )
    parser.add_argument(
        "-j", "--processes", type=count, default=1, metavar="N", help="how many work at once (default: 1)"
    )
    parser.add_argument(
        "--dask",
        metavar="SCHEDULER",
        help="share the work out over a Dask cluster at this address, whose workers have memcurve and see OUT's folder under the "
        "same path; local: one of N processes here",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the summary as JSON: schema, output, files, columns, points, curves, invalid, reasons, least, most, pareto, front",
    )


def run(arguments: argparse.Namespace) -> int:
    from ..sweeps.run import sweep

    try:
        found = sweep(arguments.spec, arguments.output, processes=arguments.processes, dask=arguments.dask)
    except KeyboardInterrupt:
        print("memcurve: stopped; what was complete is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    if arguments.json:
        import json

        print(json.dumps(found.to_dict()))
    else:
        print("\n".join(clean(line) for line in found.lines()))
    return 0
