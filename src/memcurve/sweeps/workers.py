"""Who writes the chunks of a sweep: this process, several, or a Dask cluster. The files are the same."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..base import BadConfig, MissingExtraError, show
from .files import Stopped, write_chunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# How often a chunk is begun again where the process at it ended.
TRIES = 3
# Seconds that a scheduler has to answer.
WAIT = 20


def alone(folder: str, numbers: Sequence[int]) -> Iterator[int]:
    """The number of each chunk, as it is done, in this process."""
    for number in numbers:
        write_chunk(folder, number)
        yield number


def together(folder: str, numbers: Sequence[int], processes: int) -> Iterator[int]:
    """The number of each chunk, as it is done, in several processes. They end with this one."""
    waiting: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    done: queue.SimpleQueue[int | BaseException] = queue.SimpleQueue()
    for number in numbers:
        waiting.put((number, 1))
    helpers = [Helper(folder, waiting, done) for _ in range(min(processes, len(numbers)))]
    try:
        for helper in helpers:
            helper.start()
        for _ in numbers:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        for helper in helpers:
            helper.end()


class Helper(threading.Thread):
    """A process of its own that writes one chunk after another, and the thread that tells it which."""

    def __init__(self, folder: str, waiting: queue.SimpleQueue[Any], done: queue.SimpleQueue[Any]) -> None:
        super().__init__(daemon=True)
        self.folder, self.waiting, self.done = folder, waiting, done
        self.process: subprocess.Popen[str] | None = None
        self.over = False

    def run(self) -> None:
        while not self.over:
            try:
                number, tries = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answer = self.ask(number)
            except OSError as error:
                self.done.put(error)
                return
            if self.over:
                return
            if answer is None and tries < TRIES:
                self.waiting.put((number, tries + 1))
            elif answer is None:
                self.done.put(
                    Stopped(f"a process that wrote part {number} ended {TRIES} times, by signal or for want of memory")
                )
                return
            elif not answer:
                self.done.put(number)
            else:
                self.done.put(OSError(*answer["os"]) if "os" in answer else Stopped(answer["error"]))
                return

    def ask(self, number: int) -> dict[str, Any] | None:
        """What kept the process from writing a chunk, nothing where it did; None where it ended before."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "memcurve.sweeps.helper", self.folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{number}\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line.endswith("\n"):
            self.process.wait()
            return None
        found: dict[str, Any] = json.loads(line)
        return found

    def end(self) -> None:
        self.over = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.join(1)  # it reads that the process has ended
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()


def on_dask(folder: str, numbers: Sequence[int], scheduler: str, processes: int) -> Iterator[int]:
    """The number of each chunk, as it is done, on a Dask cluster: at an address, or "local" for one of so many processes here.

    Its workers need memcurve and the folder, under the same path. A chunk whose worker ended is begun again on another.
    """
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise MissingExtraError("--dask needs Dask: pip install 'memcurve[dask]'") from None
    from distributed.scheduler import KilledWorker

    try:
        cluster = (
            LocalCluster(n_workers=processes, threads_per_worker=1, dashboard_address=None)
            if scheduler == "local"
            else None
        )
        client = Client(cluster or scheduler, timeout=WAIT)
        client.wait_for_workers(1, timeout=WAIT)
    except (OSError, ValueError) as error:  # a TimeoutError among them
        raise BadConfig(
            f"dask: {show(scheduler)}; expected a scheduler that answers and has workers, such as tcp://host:8786, or local "
            f"({str(error)[:80]})"
        ) from None
    try:
        left, numbered = iter(numbers), dict[Any, int]()

        def submit(number: int) -> Any:
            future = client.submit(write_chunk, folder, number, pure=False)
            numbered[future.key] = number
            return future

        # A few for every worker at a time: a sweep may have a hundred thousand.
        many = 4 * max(4, sum(client.nthreads().values()))
        going = as_completed([submit(number) for number in islice(left, many)])
        for future in going:
            # A result is not asked for where there is no error: it would be of a worker, which may have ended since.
            if future.status != "finished":
                try:
                    future.result()
                except KilledWorker as error:
                    raise Stopped(f"dask: workers ended again and again at one part ({str(error)[:120]})") from None
            following = next(left, None)
            if following is not None:
                going.add(submit(following))
            yield numbered.pop(future.key)
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
