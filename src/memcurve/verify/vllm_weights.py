"""What vLLM's own model classes hold of weights on each rank, on the meta device: bytes of every parameter.

    python -m memcurve.verify.vllm_weights WHEEL < JOBS.jsonl > RECORDED.jsonl

A job is {"id", "config", "options"} as in vllm_recorder, which says what is stubbed; the tensor rank is the first.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

# Corrections of routers: parameters here, buffers in Transformers.
BUFFERS = ("e_score_correction_bias", "feed_forward.expert_bias", "tid2eid")


def record(config: dict[str, Any], options: dict[str, Any], names: bool) -> list[dict[str, Any]]:
    """Per pipeline rank: bytes, parameters, and with names each parameter's shape and dtype."""
    from vllm.usage.usage_lib import UsageContext

    from .vllm_recorder import build, engine_args
    from .vllm_stubs import groups_of

    with tempfile.TemporaryDirectory() as folder:
        groups_of(1, 1, 0, 1)
        vllm_config = engine_args(config, options, folder).create_engine_config(UsageContext.OPENAI_API_SERVER)
        found = []
        for rank in range(vllm_config.parallel_config.pipeline_parallel_size):
            named = build(vllm_config, rank, False).named_parameters()
            tensors = {name: tensor for name, tensor in named if not name.endswith(BUFFERS)}
            row = {
                "bytes": sum(one.numel() * one.element_size() for one in tensors.values()),
                "parameters": sum(one.numel() for one in tensors.values()),
            }
            if names:
                row["tensors"] = {
                    name: [str(one.dtype).removeprefix("torch."), list(one.shape)] for name, one in tensors.items()
                }
            found.append(row)
    return found


def main() -> None:
    from .vllm_stubs import prepare

    prepare(sys.argv[1], "H100")
    for line in sys.stdin:
        job = json.loads(line)
        try:
            row: dict[str, Any] = {"ranks": record(job["config"], job["options"], bool(job.get("names")))}
        except Exception as error:  # noqa: BLE001 - whatever vLLM refuses or its class fails with is what is recorded
            row = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(json.dumps({"id": job["id"], **row}), flush=True)


if __name__ == "__main__":
    main()
