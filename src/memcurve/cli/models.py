"""memcurve models: the catalogue, and the model types described."""

from __future__ import annotations

from ..base import BadConfig, MemcurveError, Refused, show
from .shared import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any


def build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("filter", nargs="?", default="", help="only names that hold this text")
    parser.add_argument("--type", help="only this model type, such as qwen3_next")
    parser.add_argument(
        "--kind",
        help="only models with this kind of layer: full (or mha, gqa, mqa), swa, mla, gdn, kda, mamba, mamba2, lightning, conv, rwkv, or its long name",
    )
    parser.add_argument(
        "--types",
        action="store_true",
        help="list the model types that are described, and the structure that reads each",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


KIND_WORDS = {
    "gqa": "full attention", "mha": "full attention", "mqa": "full attention", "full": "full attention",
    "swa": "sliding attention", "sliding": "sliding attention", "chunked": "chunked attention", "mla": "latent attention",
    "dsa": "sparse indexer", "gdn": "gated delta", "kda": "kimi delta", "lightning": "lightning attention",
    "conv": "short convolution",
}  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    import json

    from .. import catalog, families, layers
    from ..schema import models_data

    if arguments.types:
        print_types(arguments)
        return
    if arguments.type and not families.structure_of(arguments.type):
        raise families.not_described(arguments.type)
    wanted = KIND_WORDS.get((arguments.kind or "").lower(), (arguments.kind or "").lower())
    kinds = [kind for one in vars(layers).values() if isinstance(kind := getattr(one, "kind", None), str)]
    if wanted and wanted not in kinds:
        raise BadConfig(f"kind: {show(arguments.kind)}; expected one of {', '.join(KIND_WORDS)}, or {', '.join(kinds)}")
    found = models_data(arguments.filter, arguments.type, wanted)
    if arguments.json:
        print(json.dumps(found))
        return
    rows: Any = found["models"]
    for row in rows:
        label = "" if row["source"] == "byte copy" else f"  [{row['source']}]"
        print(f"{row['name']:<48} {row['type']:<18} {row['structure']}{label}")
    print(f"{len(rows)} of {len(catalog.names())} models")


def print_types(arguments: argparse.Namespace) -> None:
    """The model types of decoders: structure, engines that have them, and how they are verified."""
    import json

    from .. import families
    from ..config import class_defaults

    verified, word = families.verified(), arguments.filter.lower()
    examples = published()
    types: list[dict[str, Any]] = [
        {
            "type": name,
            "structure": families.structure_of(name),
            "engines": engines_of(name, examples.get(name, [])),
            "cases": verified.get(name, 0),
            "source": "Transformers" if class_defaults(name) else "hub-only code",
        }
        for name in families.model_types()
        if word in name.lower()
    ]
    refused = [{"type": name, "why": why} for name, why in families.REFUSED.items() if word in name.lower()]
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "types": types, "refused": refused}))
        return
    print(f"{'type':<28} {'structure':<32} {'engines':<44} verified")
    for entry in types:
        hub = "derived by hand" if entry["source"] == "hub-only code" else "not recorded"
        cases = f"{entry['cases']} recorded cases" if entry["cases"] else hub
        print(f"{entry['type']:<28} {entry['structure']:<32} {', '.join(entry['engines']):<44} {cases}")
    for one in refused:
        print(f"{one['type']:<28} refused: {one['why']}")
    print(f"{len(types)} model types of decoders; composite types are read through them")


def published() -> dict[str, list[dict[str, Any]]]:
    """Configs by the type of their decoder: the catalogue's, and of composite types their classes alone."""
    from .. import catalog
    from ..config import composites
    from ..model import decoder

    found: dict[str, list[dict[str, Any]]] = {}
    for config in [
        *({"model_type": name} for name in composites()),
        *(catalog.find(name) or {} for name in catalog.names()),
    ]:
        try:
            found.setdefault(decoder(config)[0].model_type, []).append(config)
        except MemcurveError:  # a composite of a type without an answer
            continue
    return found


# For hub-only types of plain attention, whose code assumes no sizes.
SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096}  # fmt: skip


def engines_of(name: str, examples: list[dict[str, Any]]) -> list[str]:
    """The engines that have a type: by its class alone, a composite type that holds it, or a published config."""
    from .. import views
    from ..engines import NAMES
    from ..model import load

    found = [engine for engine in NAMES if engine not in views.NAMES]
    for engine in views.NAMES:
        for config in [{"model_type": name}, *examples, {"model_type": name, **SIZES}]:
            try:
                load(config).curve(engine, "bf16")
            except Refused:
                pass
            except MemcurveError:  # not in this engine, or sizes that only a published config has
                continue
            found.append(engine)
            break
    return found
