"""Weights on the hub, by range requests for the headers: a model of a terabyte costs a few MB.

huggingface_hub makes the requests (its token, endpoint, cache and offline switch apply), as its
parse_safetensors_file_metadata does; the headers are then read as those of local files, with the same checks, which
that function does not make.
"""

from __future__ import annotations

from ..base import BadConfig, BadFile, show
from ..hub import asked
from . import Tensor, Weights
from .ggml import split_of
from .sources import checkpoint, choose, folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..files import File

# A first request that holds most headers whole, as huggingface_hub's does.
AHEAD, THREADS = 2**17, 8


class RemoteFile:
    """A file of a hub repository at one commit, of a known size, read by ranges. The last of them is kept."""

    def __init__(self, repo_id: str, name: str, commit: str, size: int) -> None:
        from huggingface_hub import hf_hub_url

        self.path, self.size = f"{repo_id}/{name}", size
        self.url = hf_hub_url(repo_id, name, revision=commit)
        self.start, self.window = 0, b""

    def read(self, offset: int, count: int) -> bytes:
        count = max(min(count, self.size - offset), 0)
        if not self.start <= offset <= offset + count <= self.start + len(self.window):
            self.window = self.fetch(offset, min(max(count, AHEAD), self.size - offset))
            self.start = offset
        return self.window[offset - self.start :][:count]

    def fetch(self, offset: int, count: int) -> bytes:
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

        headers = {**build_hf_headers(), "Range": f"bytes={offset}-{offset + count - 1}", "Accept-Encoding": "identity"}
        response = get_session().get(self.url, headers=headers, timeout=30)
        hf_raise_for_status(response)
        found = bytes(response.content)
        if response.status_code != 206:  # a server without ranges gives the whole file
            found = found[offset : offset + count]
        if len(found) != count:
            raise BadFile(f"{self.path}: {len(found)} bytes at {offset}; expected {count}")
        return found

    def close(self) -> None:
        """Nothing stays open."""


class Repository:
    """A hub repository at one commit, as a place that files are read from by their names. files: their sizes."""

    def __init__(self, repo_id: str, commit: str, files: dict[str, int]) -> None:
        self.path, self.commit, self.files = repo_id, commit, files
        self.opened: dict[str, File] = {}

    def has(self, name: str) -> bool:
        return name in self.files

    def open(self, name: str) -> File:
        """A file of the repository; opened again, it still has what was read of it last."""
        if name not in self.files:
            raise BadFile(f"{self.path}: no {show(name)} in it; expected a file of the repository")
        if name not in self.opened:
            self.opened[name] = RemoteFile(self.path, name, self.commit, self.files[name])
        return self.opened[name]

    shard = open

    def each(self, read: Callable[[str], list[Tensor]], names: Iterable[str]) -> Iterable[list[Tensor]]:
        """Several at a time: most of what a shard takes is waiting."""
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(THREADS) as pool:
            yield from pool.map(read, names)


def hub(source: str) -> Weights:
    """The weights of a hub repository: org/name, or one file of it, org/name:file.gguf, or org/name:Q4_K_M."""
    repo_id, _, wanted = source.partition(":")

    def ask() -> Weights:
        from huggingface_hub import HfApi

        info = HfApi().model_info(repo_id, files_metadata=True, timeout=30)
        files = {one.rfilename: one.size or 0 for one in info.siblings or []}
        chosen, notes = choose_remote(files, repo_id, wanted)
        place = Repository(repo_id, info.sha or "main", files)
        return checkpoint(source, place, chosen, notes)

    def cached() -> Weights:
        from huggingface_hub import snapshot_download

        where = snapshot_download(repo_id, local_files_only=True)
        return folder(where).replace(source=source)

    found: Weights = asked(repo_id, "checkpoint", ask, cached)
    return found


def is_model(name: str) -> bool:
    """A GGUF file of a model, or the first part of one."""
    return (
        name.endswith(".gguf")
        and (split_of(name) or ("", 1, 1))[1] == 1
        and not name.rpartition("/")[2].startswith("mmproj")
    )


def model_stem(name: str) -> str:
    return (split_of(name) or (name,))[0].lower().removesuffix(".gguf").rstrip("-")


def choose_remote(files: dict[str, int], repo_id: str, wanted: str) -> tuple[list[str], tuple[str, ...]]:
    """What of a repository is read: its model at the top, or the one file that is asked for by its name or its type."""
    if not wanted:
        try:
            return choose([name for name in files if "/" not in name], repo_id)
        except BadConfig as error:
            raise BadConfig(f"{str(error).removesuffix(', by its path')}, as {repo_id}:FILE") from None
    if wanted in files:
        return [wanted], ()
    ends = [name for name in files if is_model(name) and f"-{wanted.lower()}" == model_stem(name)[-len(wanted) - 1 :]]
    if len(ends) != 1:
        some = ", ".join(ends or [name for name in files if name.endswith((".gguf", ".safetensors"))][:6])
        raise BadConfig(f"{repo_id}: {show(wanted)} is {len(ends) or 'none'} of its files; expected one of {some}")
    return ends, ()
