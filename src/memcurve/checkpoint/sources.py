"""Where weights are: a file, a folder, an index or a hub id, read by their headers alone."""

from __future__ import annotations

import os
from itertools import chain

from ..base import BadConfig, BadFile, show
from ..files import LocalFile
from ..gguf import MAGIC
from . import Tensor, Weights
from .ggml import split_of
from .packed import unpacked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol

    from ..files import File

    class Place(Protocol):
        """Where files are read from by their names. path: what errors call it."""

        path: str

        def open(self, name: str) -> File: ...

        def has(self, name: str) -> bool: ...

        def shard(self, name: str) -> File: ...

        def each(self, read: Callable[[str], list[Tensor]], names: Iterable[str]) -> Iterable[list[Tensor]]: ...


SINGLE, INDEX, INDEX_ENDING = "model.safetensors", "model.safetensors.index.json", ".safetensors.index.json"
# Kimi-K2-Thinking has 208,000 tensors, and an index of 22 MB.
MAX_INDEX, MAX_FILES, MAX_TENSORS = 2**25, 2**12, 3 * 2**17


def weights(source: Any) -> Weights:
    """The weights of a checkpoint, read by its headers: a .safetensors or .gguf file, an index, a folder, or a hub id.

    A folder is read as Transformers reads it: model.safetensors, else what its index maps, else a full set of shards
    (…-00001-of-00003.safetensors), a single file, or a GGUF model. BadFile for damaged files, and for an index that leads
    out of its folder; BadConfig where a folder holds several models, which the message names.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise BadConfig(f"weights: {show(source)}; expected a path or a hub id")
    text = os.fspath(source)
    if not isinstance(text, str) or "\0" in text or not text:
        raise BadConfig(f"weights: {show(text)}; expected a path or a hub id")
    if os.path.isdir(text):
        return folder(text)
    repo_id, colon, _ = text.partition(":")
    named = repo_id.count("/") == 1 and not text.startswith((".", "/", "~"))
    is_path = isinstance(source, os.PathLike) or os.path.lexists(text)
    if is_path or (text.endswith((".safetensors", ".json", ".gguf")) and not (named and colon)):
        return path(text)
    if named:
        from .hub import hub

        return hub(text)
    raise BadFile(f"{show(text)}: no such file; expected a .safetensors or .gguf file, a folder, or a hub id")


class Folder:
    """A local folder, as a place that files are read from by their names."""

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self, name: str) -> File:
        return LocalFile(os.path.join(self.path, name), "a file of weights")

    def has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.path, name))

    def shard(self, name: str) -> File:
        """A file that an index names."""
        return LocalFile(inside(self.path, name), "a shard of the index beside it")

    def each(self, read: Callable[[str], list[Tensor]], names: Iterable[str]) -> Iterable[list[Tensor]]:
        return map(read, names)


def path(name: str) -> Weights:
    """One file by its path."""
    where, own = os.path.split(name)
    return checkpoint(name, Folder(where), [own])


def folder(name: str) -> Weights:
    """A folder's model, and a note of what lies beside it."""
    try:
        names = sorted(os.listdir(name))
    except OSError as error:
        raise BadFile(f"{name}: {error.strerror or 'unreadable'}; expected a folder of weights") from None
    chosen, notes = choose(names, name)
    return checkpoint(name, Folder(name), chosen, notes)


def checkpoint(source: str, place: Place, names: list[str], notes: tuple[str, ...] = ()) -> Weights:
    """The weights in these files of a place."""
    found, more = unpacked(read(place, names), place)
    return Weights(source=source, tensors=found, notes=(*notes, *more))


def read(place: Place, names: list[str]) -> list[Tensor]:
    """The tensors of an index (by its ending), a GGUF file (by its beginning), a safetensors file, or shards of one."""
    if names[0].endswith(".json"):
        return indexed(place, names[0])
    file = place.open(names[0])
    try:
        is_gguf = names[0].endswith(".gguf") or file.read(0, 4) == MAGIC
    finally:
        file.close()
    if is_gguf:
        from .ggml import tensors

        return tensors(place, names[0])
    found: dict[str, Tensor] = {}
    for tensor in chain.from_iterable(place.each(lambda name: safetensors(place.open(name)), names)):
        if len(found) == MAX_TENSORS:
            raise BadFile(f"{place.path}: more than {MAX_TENSORS} tensors; expected fewer")
        if tensor.name in found:
            raise BadFile(f"{place.path}: {show(tensor.name)} in two shards; expected it once")
        found[tensor.name] = tensor
    return list(found.values())


def safetensors(file: File) -> list[Tensor]:
    from .safetensors import tensors

    try:
        return tensors(file)
    finally:
        file.close()


def choose(names: list[str], where: str) -> tuple[list[str], tuple[str, ...]]:
    """The files of a model among the names of a folder, or of a repository, and notes of what is left out.

    One name for a file, an index or the first part of a split GGUF file; several for shards without an index.
    """
    plain = [name for name in names if name.endswith(".safetensors")]
    ggufs = [name for name in names if name.endswith(".gguf")]
    models = [name for name in ggufs if not name.startswith("mmproj") and (split_of(name) or ("", 1, 1))[1] == 1]
    indexes = [name for name in names if name.endswith(INDEX_ENDING)]
    left = (f"{len(ggufs)} GGUF file(s) beside it, not counted",) if ggufs else ()
    if SINGLE in plain:
        if INDEX in indexes:
            left = (f"{SINGLE} is read, as Transformers does; {INDEX} lies beside it", *left)
        return [SINGLE], left
    if INDEX in indexes or len(indexes) == 1:
        return [INDEX if INDEX in indexes else indexes[0]], left
    sets = {(found[0], found[2]) for name in plain if (found := split_of(name))}
    if len(sets) == 1:
        stem, count = sets.pop()
        shards = [name for name in plain if (found := split_of(name)) and found[0] == stem]
        if [(split_of(name) or ("", 0, 0))[1] for name in shards] != list(range(1, count + 1)):
            raise BadFile(f"{where}: {len(shards)} shards of {count}; expected all of them, or {INDEX}")
        return shards, left
    if len(plain) == 1:
        return plain, left
    if plain or len(models) > 1:
        some = ", ".join((plain or models)[:4])
        raise BadConfig(
            f"{where}: {len(plain or models)} files without an index: {show(some)}; expected one of them, by its path"
        )
    if not models:
        raise BadFile(f"{where}: no weights in it; expected {SINGLE}, {INDEX} with its shards, or a .gguf file")
    projectors = tuple(name for name in ggufs if name.startswith("mmproj"))
    return models, (f"{', '.join(projectors[:3])} not counted: its own file by its path",) if projectors else ()


def indexed(place: Place, name: str) -> list[Tensor]:
    """What an index maps to its shards, in its order. BadFile for a tensor that its shard lacks."""
    file = place.shard(name)
    try:
        mapped = read_index(file)
    finally:
        file.close()
    shards = list(dict.fromkeys(mapped.values()))
    wanted: dict[str, set[str]] = {shard: set() for shard in shards}
    for tensor, shard in mapped.items():
        wanted[shard].add(tensor)

    seen = 0

    def mapped_of(shard: str) -> list[Tensor]:
        nonlocal seen
        held = safetensors(place.shard(shard))
        seen += len(held)
        if seen > MAX_TENSORS:
            raise BadFile(f"{file.path}: more than {MAX_TENSORS} tensors in its files; expected fewer")
        return [tensor for tensor in held if tensor.name in wanted[shard]]

    held = {tensor.name: tensor for tensor in chain.from_iterable(place.each(mapped_of, shards))}
    for tensor, shard in mapped.items():
        if tensor not in held:
            raise BadFile(f"{file.path}: {show(tensor)} is not in {show(shard)}; expected it there, as weight_map says")
    return [held[tensor] for tensor in mapped]


def read_index(file: File) -> dict[str, str]:
    """weight_map of an index: the file of each tensor, a name below the index's folder."""
    from .scan import Scanner

    if file.size > MAX_INDEX:
        raise BadFile(f"{file.path}: {file.size} bytes; expected an index of at most {MAX_INDEX >> 20} MiB")
    scanner = Scanner(file.path, file.read(0, file.size))
    mapped: dict[str, str] | None = None
    names: dict[str, str] = {}
    for key in scanner.members():
        if key != "weight_map":
            scanner.value()
            continue
        if mapped is not None:
            scanner.bad("weight_map again", "it once")
        mapped = {}
        for tensor in scanner.members():
            shard = scanner.string()
            if tensor in mapped or len(mapped) == MAX_TENSORS or len(names) > MAX_FILES:
                scanner.bad(
                    f"{show(tensor)} again, or too many", f"each once, at most {MAX_TENSORS} in {MAX_FILES} files"
                )
            if shard not in names and not is_below(shard):
                scanner.bad(f"{show(shard)} for {show(tensor)}", "the name of a file in the index's folder")
            mapped[tensor] = names.setdefault(shard, shard)
    scanner.end()
    if mapped is None:
        scanner.bad("no weight_map", 'weight_map: {"tensor": "file"}')
    return mapped


def is_below(name: str) -> bool:
    """Whether a name can only lead into the folder that it is joined to, on any system."""
    return (
        bool(name)
        and not any(sign in name for sign in "\\:\0")
        and all(word not in ("", ".", "..") for word in name.split("/"))
    )


def inside(where: str, name: str) -> str:
    """The path of a file that an index names: it may not lead out of the folder by links either.

    But for the hub's cache: a snapshot's files are links to blobs of the same repository
    (models--org--name/snapshots/commit/file → ../../blobs/hash), and those are where they belong.
    """
    joined = os.path.join(where, name)
    root, real = os.path.realpath(where or "."), os.path.realpath(joined)
    roots = [root]
    snapshots, repository = os.path.dirname(root), os.path.dirname(os.path.dirname(root))
    if os.path.basename(snapshots) == "snapshots" and os.path.basename(repository).startswith("models--"):
        roots.append(os.path.join(repository, "blobs"))
    if not any(real.startswith(os.path.join(one, "")) for one in roots):
        raise BadFile(f"{joined}: leads out of its folder; expected a file in {where or '.'}")
    return joined
