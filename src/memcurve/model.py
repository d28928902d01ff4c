"""A model as memcurve sees it: its layers, and the curves that engines make of them."""

from __future__ import annotations

import os

from . import families
from .base import BadConfig, BadFile, NotDescribed, Record, UnknownFile, nearest, show
from .config import MAX_DEPTH, SECTIONS, Config, class_defaults, dtype_of, parse, read_type
from .curve import MemoryCurve
from .engines import STAGES_OPTION, keep
from .engines.ranks import stage_ends
from .layers import NoState, parts
from .terms import uses
from .units import BYTES, dtype_name, show_count
from .views import READS_GGUF, view

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .gguf import Metadata
    from .layers import Layer
    from .views import View

MAX_FILE = 4 * 1024**2
# A sequence of a million tokens takes less than this in any model: ~200 × the largest known.
MAX_BYTES, MAX_BYTES_AT = 10**15, 2**20


class Model(Record):
    """A described model: name, model_type (of the decoder), layers (one per decoder layer), and the config's own dtype.

    encoder_context: positions that its encoder always gives (Whisper: 1,500, 30 s of sound); 0 where the input decides.
    config: as read, from a config.json or a GGUF file, for engines that see a model otherwise than its layers say; None
    for a pattern.
    """

    name: str
    model_type: str
    layers: tuple[Layer, ...]
    dtype: str | None = None
    encoder_context: int = 0
    notes: tuple[str, ...] = ()
    config: Config | Metadata | None = None

    def _values(self) -> tuple[object, ...]:
        # Two ways to write the same model are equal.
        return super()._values()[:-1]

    def curve(self, engine: str = "logical", dtype: str | None = None, **options: Any) -> MemoryCurve:
        """Bytes of the sequence state under an engine. dtype None: the config's own.

        BadConfig without any dtype, for an unknown engine or option.
        """
        return self._curve(engine, dtype, options, slice(None))

    def stages(
        self, engine: str = "logical", dtype: str | None = None, *, count: int, **options: Any
    ) -> tuple[MemoryCurve, ...]:
        """One curve per pipeline stage, the layers divided as the engine divides them.

        llama.cpp: per GPU, with the layers that equal GPUs get (split mode "layer"). Refused for more stages than layers.
        """
        if count == 1:
            return (self._curve(engine, dtype, options, slice(None)),)
        if (own := STAGES_OPTION.get(engine)) is not None:
            curve = self._curve(engine, dtype, {**options, own: count}, slice(None))
            assert curve.allocator is not None
            if (found := curve.allocator.split()) is not None:
                return tuple(curve.replace(terms=terms, allocator=allocator) for terms, allocator in found)
        layers = len(view(engine, self.layers, self.dtype, self.config).layers)
        ends = stage_ends(engine, layers, count)
        starts = [0, *ends[:-1]]
        return tuple(
            self._curve(engine, dtype, options, slice(start, end)) for start, end in zip(starts, ends, strict=True)
        )

    def runs_in(self, engine: str, dtype: str | None = None) -> str:
        """The full name of the dtype that an engine runs the model in: as asked, or its own choice by the config."""
        return self._runs_in(view(engine, self.layers, self.dtype, self.config), dtype)

    def _runs_in(self, seen: View, dtype: str | None) -> str:
        if dtype is None and seen.dtype is None:
            raise BadConfig(
                f'dtype: missing in the config of {self.name}; give one, such as dtype="bf16" (--dtype bf16)'
            )
        return dtype_name(seen.dtype if dtype is None else dtype)

    def _curve(self, engine: str, dtype: str | None, options: Mapping[str, Any], part: slice) -> MemoryCurve:
        seen = view(engine, self.layers, self.dtype, self.config)
        name = self._runs_in(seen, dtype)
        layers = seen.layers[part]
        kept = keep(engine, layers, name, options, seen.facts)
        curve = MemoryCurve(
            name=self.name,
            engine=engine,
            dtype=kept.dtype or name,
            terms=kept.terms,
            notes=self.notes,
            allocator=kept.allocator,
            limits=kept.limits,
            refusals=kept.refusals,
            course=kept.course,
        )
        notes = (*kept.notes, *_shared(layers), *self.notes)
        if curve.cap:
            notes = (
                f"a window caps every layer that grows: from {curve.cap:,} tokens on, more take no more bytes",
                *notes,
            )
        if any(uses(term.slots, "encoder") for term in curve.terms):
            notes = (
                *notes,
                "cross-attention keeps every position of the encoder's output: encoder_context says how many",
            )
        if options.get("cache") == "static":
            notes = (*notes, f"Transformers fails past {options['max_cache_len']:,} tokens, except in sliding layers")
        if not isinstance(self.config, Config | None):
            if engine not in READS_GGUF:
                notes = (*notes, "from a GGUF file, which tells of no window that llama.cpp does not use")
        elif engine == "transformers" and self.model_type != "pattern" and class_defaults(self.model_type) is None:
            notes = (
                *notes,
                f"Transformers has no class for {self.model_type}: this is what its caches hold for such layers",
            )
        return curve if notes == self.notes else curve.replace(notes=notes)

    @property
    def structure(self) -> str:
        """The layers in words: "48 layers: 36 gated delta + 12 full attention"."""
        count: dict[str, int] = {}
        for layer in self.layers:
            word = " with ".join(dict.fromkeys(part.kind for part in parts(layer)))
            count[word] = count.get(word, 0) + 1
        return f"{show_count(len(self.layers), 'layer')}: " + " + ".join(
            f"{number} {word}" for word, number in count.items()
        )


def load(source: Any) -> Model:
    """A model from a config: a dict, the path of a config.json or of a folder with one, a catalogue name, or a hub id.

    Or from a GGUF file: its path (of a split file the first part's), or its metadata as a dict. BadFile for a damaged one,
    BadConfig for a config that can't be read (key, value, what was expected), NotDescribed for a model type or
    structure that memcurve does not know (the nearest that it does).
    """
    if isinstance(source, dict):
        if "general.architecture" in source:
            from .gguf import Metadata

            name = str(source.get("general.name") or source["general.architecture"])[:200]
            return describe_gguf(Metadata(source), name)
        return describe(source, str(source.get("_name_or_path") or source.get("model_type") or "model")[:200])
    if not isinstance(source, (str, os.PathLike)):
        raise BadConfig(f"load: {show(source)}; expected a dict, a path, a catalogue name or a hub id")
    text = os.fspath(source)
    if not isinstance(text, str) or "\0" in text or not text:
        raise BadConfig(f"load: {show(text)}; expected a path, a catalogue name or a hub id")
    if isinstance(source, os.PathLike) or text.endswith((".json", ".gguf")) or os.path.lexists(text):
        from .gguf import is_gguf

        return load_gguf(text) if is_gguf(text) else describe(*read_path(text))
    return describe(*named_config(text))


def named_config(text: str) -> tuple[dict[str, Any], str]:
    """The config of a catalogue name or a hub id, and that name. NotDescribed for any other text."""
    from . import catalog

    found = catalog.find(text)
    if found is not None:
        return found, text
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        from .hub import fetch_config

        return fetch_config(text), text
    if ":" in text:
        raise NotDescribed(f"{show(text)} is no file, and not in the catalogue; memcurve.pattern reads patterns")
    hint = nearest(text, catalog.names())
    raise NotDescribed(
        f"{show(text)} is no file, and not in the catalogue"
        + (f"; nearest: {hint}" if hint else "; see: memcurve models")
    )


def catalogued(name: str) -> Model:
    """The model of a catalogue name alone: no path is looked at, and no hub asked. NotDescribed for any other name."""
    from . import catalog

    names = catalog.names()
    own = name if name in names else next((one for one in names if one.lower() == name.lower()), None)
    found = None if own is None else catalog.find(own)
    if own is None or found is None:
        hint = nearest(name, names)
        raise NotDescribed(
            f"{show(name)} is not in the catalogue" + (f"; nearest: {hint}" if hint else "; see: memcurve models")
        )
    return describe(found, own)


def read_path(path: str) -> tuple[dict[str, Any], str]:
    """The config at a path, of a file or in a folder, and the model's name by it. BadConfig for what can't be read."""
    folder = os.path.isdir(path)
    file = os.path.join(path, "config.json") if folder else path
    try:
        with open(file, "rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise BadConfig(
            f"{file}: {error.strerror or 'unreadable'}; expected a config.json, or a folder with one"
        ) from None
    if len(data) > MAX_FILE:
        raise BadConfig(f"{file}: larger than {MAX_FILE:,} bytes; expected a config.json")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadConfig(f"{file}: not UTF-8 text; expected a config.json") from None
    own = os.path.abspath(path if folder else os.path.dirname(os.path.abspath(path)))
    stem = os.path.basename(file).removesuffix(".json")
    return parse(text, file), os.path.basename(own) if stem == "config" and os.path.basename(own) else stem


def describe(data: Mapping[str, Any], name: str) -> Model:
    """The model of a config as read from JSON."""
    if _depth(data) > MAX_DEPTH:
        raise BadConfig(f"{name}: nested too deeply; expected at most {MAX_DEPTH} levels")
    config, levels = decoder(data)
    layers = families.describe(config)
    return _bounded(
        Model(
            name=name,
            model_type=config.model_type,
            layers=layers,
            dtype=_own_dtype(levels, config),
            encoder_context=config.count(fixed) if (fixed := families.FIXED_ENCODER.get(config.model_type)) else 0,
            notes=tuple(families.notes(config)),
            config=config,
        )
    )


def load_gguf(path: str) -> Model:
    """The model of a GGUF file. BadFile where it is damaged; a sound file of an unknown architecture is NotDescribed as well."""
    from . import gguf

    metadata = gguf.read(path)
    try:
        return describe_gguf(metadata, os.path.basename(path).removesuffix(".gguf"))
    except NotDescribed as error:
        raise UnknownFile(f"{path}: {error}") from None
    except BadConfig as error:
        raise BadFile(f"{path}: {error}") from None


def describe_gguf(metadata: Metadata, name: str) -> Model:
    """The model of a GGUF file's metadata. Its dtype is that of no cache: an engine's default, or the caller's."""
    from .views.llamacpp import logical_layers

    layers = logical_layers(metadata)
    return _bounded(Model(name=name, model_type=metadata.architecture, layers=layers, config=metadata))


def _bounded(model: Model) -> Model:
    widest = model.curve("logical", "fp32").bytes(MAX_BYTES_AT, 1, MAX_BYTES_AT)
    if widest > MAX_BYTES:
        raise BadConfig(
            f"{model.name}: its sizes give {widest:.1e} bytes at {MAX_BYTES_AT:,} tokens; expected less than {MAX_BYTES:.0e}"
        )
    return model


def decoder(data: Mapping[str, Any]) -> tuple[Config, list[Mapping[str, Any]]]:
    """The config of the part that generates text, and the levels it was found through, innermost first.

    A type that is described is read as it stands; else the section that its class names is entered, and for a type
    without a class the usual sections.
    """
    path, levels = "", [data]
    model_type = read_type(data)
    for _ in range(4):
        defaults = class_defaults(model_type)
        if families.structure_of(model_type):
            config = Config(data, model_type, defaults, path, levels[-1])
            key = next((key for key in SECTIONS if isinstance(data.get(key), dict)), None)
            if key is None or config.given("num_hidden_layers"):
                return config, levels
            # Some files name the decoder's type outside and keep its sizes inside.
            data, path = data[key], f"{path}{key}."
            model_type = read_type({"model_type": model_type, **data}, path)
            levels.insert(0, data)
            continue
        if model_type in families.REFUSED:
            raise families.not_described(model_type)
        nested = (defaults or {}).get("text")
        if nested is None:
            key = next((key for key in SECTIONS if isinstance(data.get(key), dict)), None)
            if key is None:
                raise families.not_described(model_type)
            section = data[key]
            path += f"{key}."
            model_type = read_type(section, path)
        else:
            key = nested["key"]
            section = data.get(key)
            if section is None:
                # Configs from before sections hold the decoder's keys on their own level.
                flat = any(word in data for word in ("hidden_size", "num_hidden_layers"))
                section = data if flat else nested.get("init", {})
                model_type = nested["type"]
                path += "" if flat else f"{key}."
            elif not isinstance(section, dict):
                raise BadConfig(f"{path}{key}: {show(section)}; expected an object")
            else:
                path += f"{key}."
                inner = section.get("model_type", nested["type"]) if nested.get("auto") else nested["type"]
                if not isinstance(inner, str):
                    raise BadConfig(f"{path}model_type: {show(inner)}; expected a string")
                model_type = inner
                if nested.get("keep"):
                    section = {**nested["init"], **section}
        data = section
        levels.insert(0, data)
    raise families.not_described(model_type)


def _own_dtype(levels: list[Mapping[str, Any]], config: Config) -> str | None:
    value = dtype_of(*levels)
    if value is None:
        value = config.defaults.get("dtype")
    if value is None:
        return None
    name = value.removeprefix("torch.") if isinstance(value, str) else ""
    # A config may state a dtype that no cache can have (a quantised one); it is refused when asked for, not when read.
    return name if name in BYTES else dtype_name(value)


def _shared(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    shared = sum(isinstance(layer, NoState) and "another" in layer.why for layer in layers)
    return (f"{shared} of {len(layers)} layers read another layer's keys and values and keep none",) if shared else ()


def _depth(value: Any) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        item, level = waiting.pop()
        deepest = max(deepest, level)
        if level > MAX_DEPTH:
            break
        if isinstance(item, dict):
            waiting.extend((inner, level + 1) for inner in item.values())
        elif isinstance(item, list):
            waiting.extend((inner, level + 1) for inner in item if isinstance(inner, (dict, list)))
    return deepest
