"""vLLM's scheduler over requests that arrive with time, in a pool of a given size.

    replayer = Replayer(allocator, memory_bytes, Service(prefill_rate=50_000, decode_rate=40), hash_tokens=512, interval_ns=10**9)
    for chunk in trace:                                # arrivals never go back, within a chunk and from one to the next
        part = replayer.feed(arrival_ns, prompt_tokens, output_tokens, hashes=(offsets, ids))
    part = replayer.finish()

feed() and finish() give a Part: what became known since the last call, as columns (numpy int64 arrays where the compiled loop runs,
lists of integers else). part.requests has one row per request that ended, in the order they ended; part.series one row per
interval (interval_ns), or per step (interval_ns=0), or none (None). Nothing of a request is kept after that. replayer.totals() says what the
run came to so far: peaks, time by blocks in use and by requests running (exact percentiles), preemptions, steps, turned down.

part.requests columns: number (in the order fed, from 0; those turned down are counted too), arrival_ns, prompt, output, admitted_ns,
first_token_ns, end_ns, preemptions, hit_tokens (found cached at the first admission).
part.series columns: time_ns, running, waiting (never admitted yet), preempted (waiting again), blocks (in use), tokens (that the blocks
in use hold; of a shared block once), preemptions and finished (so far).
"""
