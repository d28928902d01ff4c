"""memcurve compare: models in one table, what they keep and what fits."""

from __future__ import annotations

from ..base import BadConfig, clean, show
from ..units import parse_bytes
from .fit import TAKEN
from .shared import add_options, count, engine_options, flag, subject_model

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="catalogue names, config.json files, folders, hub ids, patterns"
    )
    parser.add_argument("--gpu", help="adds what fits such a GPU (see: memcurve gpus)")
    flag(parser, "gpu_memory", help="bytes of one GPU instead, such as 79.6GiB")
    parser.add_argument("--gpus", type=count, help="how many (default: 1)")
    parser.add_argument("--engine", help="whose memory (default: vllm with a GPU, else logical)")
    parser.add_argument("--dtype", help="of the model (default: the config's own)")
    add_options(parser, "for all models, such as kv_cache_dtype=fp8 (vllm)")
    parser.add_argument(
        "--format", default="text", help="text, md (Markdown), csv (exact bytes) or json (default: text)"
    )


def run(arguments: argparse.Namespace) -> None:
    from ..compare import row, table

    planned = arguments.gpu is not None or arguments.gpu_memory is not None
    options = engine_options(arguments.option)
    for key in TAKEN.intersection(options):
        raise BadConfig(
            f"option {key}={show(options[key])}: not an engine's; expected --{key} where this command has it"
        )
    if arguments.gpus is not None:
        if not planned:
            raise BadConfig(f"gpus: {arguments.gpus}; expected --gpu or --gpu_memory beside it")
        options["gpus"] = arguments.gpus
    rows = [
        row(
            subject_model(text, {}),
            engine=arguments.engine or ("vllm" if planned else "logical"),
            dtype=arguments.dtype,
            gpu=arguments.gpu,
            gpu_memory=arguments.gpu_memory and parse_bytes(arguments.gpu_memory, "gpu_memory"),
            **options,
        )
        for text in arguments.models
    ]
    text = table(rows, arguments.format)
    print(text if arguments.format in ("csv", "json") else "\n".join(clean(line) for line in text.splitlines()))
