"""A process that writes chunks: their numbers come in, a line each, and a line of JSON goes out for each: {}, or why not."""

from __future__ import annotations

import json
import os
import queue
import sys
import threading

from ..base import MemcurveError
from .files import write_chunk


def main() -> None:
    folder = sys.argv[1]
    numbers: queue.SimpleQueue[int] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            numbers.put(int(line))
        os._exit(0)  # who asked has ended

    threading.Thread(target=listen, daemon=True).start()
    while True:
        number = numbers.get()
        answer: dict[str, object] = {}
        try:
            write_chunk(folder, number)
        except OSError as error:
            answer = {"os": [error.errno, error.strerror or str(error)]}
        except MemcurveError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
