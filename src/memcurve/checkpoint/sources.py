"""Where weights are: a file, a folder, an index or a hub id, read by their headers alone."""

from __future__ import annotations

import os

from ..base import BadConfig, BadFile, show
from ..files import LocalFile
from . import Tensor, Weights
from .ggml import split_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..files import File

SINGLE, INDEX, INDEX_ENDING = "model.safetensors", "model.safetensors.index.json", ".safetensors.index.json"
MAX_INDEX, MAX_FILES = 2**26, 2**14
EXPECTED = "a file of weights"


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
    if isinstance(source, os.PathLike) or text.endswith((".safetensors", ".json", ".gguf")) or os.path.lexists(text):
        return path(text)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        from .hub import hub

        return hub(text)
    raise BadFile(f"{show(text)}: no such file; expected a .safetensors or .gguf file, a folder, or a hub id")


def path(name: str) -> Weights:
    """One file: an index by its ending, GGUF by its first bytes, and else safetensors."""
    if name.endswith(".json"):
        return Weights(source=name, tensors=tuple(indexed(name)))
    from ..gguf import is_gguf

    if is_gguf(name):
        from .ggml import tensors as read_gguf

        return Weights(source=name, tensors=tuple(read_gguf(name)))
    return Weights(source=name, tensors=tuple(safetensors(name)))


def safetensors(name: str) -> list[Tensor]:
    from .safetensors import tensors

    file = LocalFile(name, EXPECTED)
    try:
        return tensors(file)
    finally:
        file.close()


def folder(name: str) -> Weights:
    """A folder's model, and a note of what lies beside it."""
    try:
        names = sorted(os.listdir(name))
    except OSError as error:
        raise BadFile(f"{name}: {error.strerror or 'unreadable'}; expected a folder of weights") from None
    chosen, notes = choose(names, name)
    first = os.path.join(name, chosen[0])
    if chosen[0].endswith(".json") or chosen[0].endswith(".gguf"):
        return path(first).replace(source=name, notes=notes)
    return Weights(source=name, tensors=tuple(union(name, chosen)), notes=notes)


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
        if len(shards) != count or [(split_of(name) or ("", 0, 0))[1] for name in shards] != list(range(1, count + 1)):
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


def union(where: str, names: list[str]) -> list[Tensor]:
    """The tensors of shards that no index maps: each name once."""
    found: dict[str, Tensor] = {}
    for name in names:
        for tensor in safetensors(os.path.join(where, name)):
            if tensor.name in found:
                raise BadFile(f"{where}: {show(tensor.name)} in two shards; expected it once")
            found[tensor.name] = tensor
    return list(found.values())


def indexed(name: str) -> list[Tensor]:
    """What an index maps to its shards, in the order of the index."""
    where = os.path.dirname(name)
    file = LocalFile(name, "an index of safetensors files")
    try:
        mapped = read_index(file)
    finally:
        file.close()
    inside(where, os.path.basename(name), name)
    return mapped_tensors(mapped, lambda shard: safetensors(inside(where, shard, name)), name)


def mapped_tensors(mapped: dict[str, str], read: Any, name: str) -> list[Tensor]:
    """The tensors that an index maps, of shards that `read` gives. BadFile for one that its shard lacks."""
    shards = {shard: {tensor.name: tensor for tensor in read(shard)} for shard in dict.fromkeys(mapped.values())}
    found = []
    for tensor, shard in mapped.items():
        if tensor not in shards[shard]:
            raise BadFile(f"{name}: {show(tensor)} is not in {show(shard)}; expected it there, as weight_map says")
        found.append(shards[shard][tensor])
    return found


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
            if tensor in mapped or len(names) > MAX_FILES:
                scanner.bad(f"{show(tensor)} again, or more than {MAX_FILES} files", "fewer, and each tensor once")
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


def inside(where: str, shard: str, index: str) -> str:
    """The path of a shard, which may not lead out of the folder by links either.

    But for the hub's cache: a snapshot's files are links to blobs of the same repository
    (models--org--name/snapshots/commit/file → ../../blobs/hash), and those are where they belong.
    """
    joined = os.path.join(where, shard)
    try:
        root, real = os.path.realpath(where or "."), os.path.realpath(joined)
    except (OSError, ValueError):
        raise BadFile(f"{index}: {show(shard)} can't be followed; expected a file beside it") from None
    roots = [root]
    snapshots, repository = os.path.dirname(root), os.path.dirname(os.path.dirname(root))
    if os.path.basename(snapshots) == "snapshots" and "--" in os.path.basename(repository):
        roots.append(os.path.join(repository, "blobs"))
    if not any(real.startswith(os.path.join(one, "")) for one in roots):
        raise BadFile(f"{index}: {show(shard)} leads out of its folder; expected a file beside it")
    return joined
