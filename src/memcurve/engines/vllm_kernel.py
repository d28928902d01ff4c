"""vLLM's scheduler over one group of full attention, step by step and block by block, as functions over flat integers.

Rules of vLLM 0.33.0: Scheduler.schedule, _preempt_request and update_from_output (v1/core/sched/scheduler.py), AsyncScheduler, the order
of EngineCore.step and step_with_batch_queue (v1/engine/core.py), KVCacheManager.allocate_slots, FullAttentionManager
(single_type_kv_cache_manager.py), BlockPool and FreeKVCacheBlockQueue. First come, first served; a request is let in where its whole
prompt fits. vllm_replay.py runs these functions as they stand over lists, or compiled by Numba over arrays; so they use loops, integers
of 64 bits and indices, and nothing else.

s: numbers of the run, by the names below. q: rows of requests that were fed and not let in yet; qh: their hashes. f: rows of
requests that were let in once; run: those that run, by age, due: of each the step that has to look at it again; back: those put back, the first to come again last. table: blocks of a request
by row. The free blocks are a ring through nxt and prv, from the one taken first; `blocks` itself closes it. key: what a block can be
found by, NONE where it can't; chains of blocks with equal bits of their key go through chain and before, from first[bits], the latest
in front, so that the last one of a key is the one that vLLM finds.

A key is a hash and a block within its tokens, or, where nothing is known of a prompt and for all outputs, a request and a block: those
are found by the request itself alone, after a preemption, and so they are noted only then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableSequence

    Ints = MutableSequence[int]

# Of s, given: tokens of a batch, requests at once, whether prefills are cut, whether a batch is made while the one before runs, whether
# blocks are found again; tokens of a block, blocks, blocks of a hash; the time of a batch: step_ns for prefill_tokens, and for a decode
BUDGET, MOST, CHUNKED, AHEAD, CACHING, BLOCK, BLOCKS, SPAN, STEP_NS, PREFILL_TOKENS = range(10)
# between rows of the series (0: one each step; less: none); the next one; places of a row of table and of hashes; bits of keys; room for
# results and rows; whether all is fed
INTERVAL, SAMPLE, WIDTH, HASHES, BITS, ROOM_ENDED, ROOM_ROWS, FINAL = range(10, 18)
# Now, the end of the last batch, steps; requests that were fed, have arrived, were let in; the row of the first that waits
NOW, BUSY, STEP, FED, ARRIVED, TAKEN, DOOR = range(18, 25)
# How many run, were put back, were put back with their last token under way; free blocks, and places in the tables' blocks without a token;
# free rows of f
RUNNING, BACK, GONE, FREE, SLACK, SPARE = range(25, 31)
# Of this batch: requests with their first or last token in it, those with the last and how many such the batch before had; tokens of
# prefills, requests that decode; why the first that waits is kept out
MARKS, LAST, LAST_BEFORE, PREFILLS, DECODES, KEPT = range(31, 37)
# What is written of results and rows; sums so far
ENDED, ROWS, PREEMPTIONS, FINISHED, COMPUTED, HITS, AREA_HIGH, AREA_LOW = range(37, 45)
# The state since the last step, and the most so far
H_RUNNING, H_BACK, H_BLOCKS, H_TOKENS, H_PREEMPTIONS, H_FINISHED = range(45, 51)
PEAK_RUNNING, PEAK_WAITING, PEAK_BLOCKS, PEAK_TOKENS = range(51, 55)
# Time by what keeps the first that waits out
NOTHING, BY_SEQS, BY_TOKENS, BY_BLOCKS = range(4)
KEPT_FOR, SIZE = 55, 59

# Columns of q, f, ended and rows
Q_NUMBER, Q_ARRIVAL, Q_PROMPT, Q_OUTPUT, Q_HASHES, Q = range(6)
NUMBER, ARRIVAL, PROMPT, TOTAL, PREFILL, DONE, HELD, HASHED = range(8)
ADMITTED, FIRST, END, PREEMPTED, FOUND, NOTED, SINCE, F = range(8, 16)
E, R = 9, 8

NONE = -1
# What serve() stops for
MORE, OVER, FULL, STUCK, PAUSED = range(5)
CARRY = 2**62


# -- free blocks and their keys ---------------------------------------------------------------------------------------------


def unlink(nxt: Ints, prv: Ints, block: int) -> None:
    before, after = prv[block], nxt[block]
    nxt[before] = after
    prv[after] = before


def link(nxt: Ints, prv: Ints, before: int, block: int) -> None:
    """Puts a block behind `before`."""
    after = nxt[before]
    nxt[before] = block
    prv[block] = before
    nxt[block] = after
    prv[after] = block


def note(s: Ints, key: Ints, first: Ints, chain: Ints, before: Ints, block: int, name: int) -> None:
    """BlockHashToBlockMap.insert."""
    key[block] = name
    bits = name & s[BITS]
    head = first[bits]
    chain[block] = head
    before[block] = NONE
    if head != NONE:
        before[head] = block
    first[bits] = block


def forget(s: Ints, key: Ints, first: Ints, chain: Ints, before: Ints, block: int) -> None:
    """_maybe_evict_cached_block."""
    up, down = before[block], chain[block]
    if up == NONE:
        first[key[block] & s[BITS]] = down
    else:
        chain[up] = down
    if down != NONE:
        before[down] = up
    key[block] = NONE


def find(s: Ints, key: Ints, first: Ints, chain: Ints, name: int) -> int:
    """The block noted first under a key (get_one_block); NONE where there is none."""
    found = NONE
    block = first[name & s[BITS]]
    while block != NONE:
        if key[block] == name:
            found = block
        block = chain[block]
    return found


def name_of(s: Ints, f: Ints, hashes: Ints, slot: int, index: int) -> int:
    """The key of a request's block."""
    at = slot * F
    span = index // s[SPAN]
    if span < f[at + HASHED] and (index + 1) * s[BLOCK] <= f[at + PROMPT]:
        return hashes[slot * s[HASHES] + span] * s[SPAN] + index % s[SPAN]
    return -2 - (f[at + NUMBER] * 2**24 + index)


def shared(s: Ints, f: Ints, slot: int) -> int:
    """How many blocks of a request's prompt others may find."""
    at = slot * F
    return min(f[at + HASHED] * s[SPAN], f[at + PROMPT] // s[BLOCK])


def take(
    s: Ints, f: Ints, table: Ints, nxt: Ints, prv: Ints, ref: Ints, key: Ints, first: Ints, chain: Ints, before: Ints,
    slot: int, number: int,
) -> None:  # fmt: skip
    """New blocks at the end of a request's table (get_new_blocks)."""
    s[FREE] -= number
    at = slot * F
    held = f[at + HELD]
    f[at + HELD] = held + number
    s[SLACK] += number * s[BLOCK]
    if not s[CACHING]:
        return
    place = slot * s[WIDTH] + held
    ring = s[BLOCKS]
    block = nxt[ring]
    for index in range(number):
        if key[block] != NONE:
            forget(s, key, first, chain, before, block)
        ref[block] = 1
        table[place + index] = block
        block = nxt[block]
    nxt[ring] = block
    prv[block] = ring


def give(s: Ints, f: Ints, table: Ints, nxt: Ints, prv: Ints, ref: Ints, slot: int, cached: int) -> None:
    """All blocks of a request, the last one first: those without a hash to the front, the others to the end (free_blocks)."""
    at = slot * F
    held = f[at + HELD]
    f[at + HELD] = 0
    s[SLACK] -= held * s[BLOCK] - f[at + DONE]
    if not s[CACHING]:
        s[FREE] += held
        return
    place = slot * s[WIDTH]
    ring = s[BLOCKS]
    full = cached // s[BLOCK]
    front = ring
    for index in range(held - 1, -1, -1):
        block = table[place + index]
        ref[block] -= 1
        if ref[block] == 0:
            s[FREE] += 1
            if index >= full:
                link(nxt, prv, front, block)
                front = block
            else:
                link(nxt, prv, prv[ring], block)


def publish(
    s: Ints, f: Ints, hashes: Ints, table: Ints, key: Ints, first: Ints, chain: Ints, before: Ints, slot: int
) -> None:  # fmt: skip
    """Notes the full blocks of a prompt that others may find (cache_full_blocks)."""
    at, place = slot * F, slot * s[WIDTH]
    full = min(f[at + DONE] // s[BLOCK], shared(s, f, slot))
    name = 0
    for index in range(f[at + NOTED], full):
        # Keys of one hash follow one another.
        fresh = index == f[at + NOTED] or (name + 1) % s[SPAN] == 0
        name = name_of(s, f, hashes, slot, index) if fresh else name + 1
        note(s, key, first, chain, before, table[place + index], name)
    f[at + NOTED] = max(f[at + NOTED], full)


def lookup(s: Ints, f: Ints, hashes: Ints, table: Ints, key: Ints, first: Ints, chain: Ints, slot: int) -> int:
    """Blocks of a request that are found, put into its table (find_longest_cache_hit): all but one token at most."""
    at, place = slot * F, slot * s[WIDTH]
    most = (f[at + PREFILL] - 1) // s[BLOCK]
    common = shared(s, f, slot)
    if not f[at + PREEMPTED]:
        most = min(most, common)
    name = 0
    for index in range(most):
        inside = 0 < index < common and (name + 1) % s[SPAN] != 0
        name = name + 1 if inside else name_of(s, f, hashes, slot, index)
        block = find(s, key, first, chain, name)
        if block == NONE:
            return index
        table[place + index] = block
    return most


# -- one step ---------------------------------------------------------------------------------------------------------------


def cached_tokens(s: Ints, f: Ints, slot: int) -> int:
    """Tokens of a request that is preempted whose blocks have a hash: the last one scheduled has none yet while it is under way."""
    at = slot * F
    done, prefill = f[at + DONE], f[at + PREFILL]
    if done < prefill or not s[AHEAD]:
        return done
    return max(done - 1, prefill)


def preempt(
    s: Ints, f: Ints, back: Ints, gone: Ints, hashes: Ints, table: Ints, nxt: Ints, prv: Ints, ref: Ints, key: Ints, first: Ints,
    chain: Ints, before: Ints, slot: int,
) -> None:  # fmt: skip
    """Back to the front of the queue (_preempt_request); what is under way is still delivered."""
    at = slot * F
    cached = cached_tokens(s, f, slot)
    if s[CACHING]:
        for index in range(cached // s[BLOCK]):
            block = table[slot * s[WIDTH] + index]
            if key[block] == NONE:
                note(s, key, first, chain, before, block, name_of(s, f, hashes, slot, index))
    give(s, f, table, nxt, prv, ref, slot, cached)
    done, prefill = f[at + DONE], f[at + PREFILL]
    s[PREEMPTIONS] += 1
    f[at + PREEMPTED] += 1
    if done == f[at + TOTAL] - 1:
        gone[s[GONE]] = slot
        s[GONE] += 1
        s[LAST_BEFORE] -= 1
        return
    if done >= prefill:
        f[at + PREFILL] = done + 1
    f[at + DONE] = f[at + NOTED] = 0
    back[s[BACK]] = slot
    s[BACK] += 1


def advance(s: Ints, f: Ints, marks: Ints, slot: int, tokens: int) -> None:
    """So many more tokens of a request are in the batch."""
    at = slot * F
    before = f[at + DONE]
    done = before + tokens
    f[at + DONE] = done
    s[SLACK] -= tokens
    decodes = before >= f[at + PREFILL]
    if decodes:
        s[DECODES] += 1
    else:
        s[PREFILLS] += tokens
    last = done == f[at + TOTAL] - 1
    if last:
        s[LAST] += 1
    if last or (not decodes and done == f[at + PREFILL]):
        marks[s[MARKS]] = slot
        s[MARKS] += 1


def next_look(s: Ints, f: Ints, slot: int) -> int:
    """The step before which a request gets one token each step and nothing else: until it needs a block, or its last token is due. 0
    where every step looks: of a prefill, and of one whose last token is under way."""
    at = slot * F
    done, last = f[at + DONE], f[at + TOTAL] - 1
    if done < f[at + PREFILL] or done == last:
        return 0
    f[at + SINCE] = s[STEP]
    return s[STEP] + min(f[at + HELD] * s[BLOCK] - done + 1, last - done)


def catch_up(s: Ints, f: Ints, slot: int, due: int) -> None:
    """The tokens of the steps that did not look, before this one."""
    if due:
        f[slot * F + DONE] += s[STEP] - 1 - f[slot * F + SINCE]


def running_ones(
    s: Ints, f: Ints, run: Ints, due: Ints, back: Ints, gone: Ints, marks: Ints, hashes: Ints, table: Ints, nxt: Ints, prv: Ints, ref: Ints,
    key: Ints, first: Ints, chain: Ints, before: Ints,
) -> int:  # fmt: skip
    """The first part of schedule(): those that run, by age; what is left of the batch, -1 where one was preempted.

    A prefill that goes on takes the rest of every batch, so none younger runs beside it: each that decodes gets its token.
    """
    budget, size = s[BUDGET], s[BLOCK]
    preempted, step = s[PREEMPTIONS], s[STEP]
    index = plain = 0
    while index < s[RUNNING] and budget > 0:
        if due[index] > step:
            plain += 1
            budget -= 1
            index += 1
            continue
        slot = run[index]
        at = slot * F
        catch_up(s, f, slot, due[index])
        due[index] = 0
        done = f[at + DONE]
        tokens = f[at + PREFILL] - done
        if tokens <= 0:
            if done == f[at + TOTAL] - 1:
                index += 1
                continue
            tokens = 1
        tokens = min(tokens, budget)
        need = (done + tokens + size - 1) // size - f[at + HELD]
        if need > 0:
            own = False
            while need > s[FREE] and not own:
                s[RUNNING] -= 1
                victim = run[s[RUNNING]]
                own = victim == slot
                catch_up(s, f, victim, due[s[RUNNING]])
                preempt(s, f, back, gone, hashes, table, nxt, prv, ref, key, first, chain, before, victim)
            if own:
                break
            take(s, f, table, nxt, prv, ref, key, first, chain, before, slot, need)
        advance(s, f, marks, slot, tokens)
        if f[at + HASHED] and f[at + NOTED] * size < f[at + PROMPT]:
            publish(s, f, hashes, table, key, first, chain, before, slot)
        due[index] = next_look(s, f, slot)
        budget -= tokens
        index += 1
    s[DECODES] += plain
    s[SLACK] -= plain
    return budget if s[PREEMPTIONS] == preempted else -1


def at_the_door(s: Ints, q: Ints, qh: Ints, f: Ints, spare: Ints, hashes: Ints) -> int:
    """The row of the first that waits, made where it is new."""
    if s[DOOR] == NONE:
        s[SPARE] -= 1
        slot = spare[s[SPARE]]
        s[DOOR] = slot
        row, at = s[TAKEN] * Q, slot * F
        f[at + NUMBER] = q[row + Q_NUMBER]
        f[at + ARRIVAL] = q[row + Q_ARRIVAL]
        f[at + PROMPT] = f[at + PREFILL] = q[row + Q_PROMPT]
        f[at + TOTAL] = q[row + Q_PROMPT] + q[row + Q_OUTPUT]
        start = q[row + Q_HASHES]
        end = q[row + Q + Q_HASHES] if s[CACHING] else start
        f[at + HASHED] = end - start
        for index in range(end - start):
            hashes[slot * s[HASHES] + index] = qh[start + index]
        f[at + DONE] = f[at + HELD] = f[at + PREEMPTED] = f[at + FOUND] = f[at + NOTED] = 0
        f[at + ADMITTED] = f[at + FIRST] = f[at + END] = NONE
    return s[DOOR]


def admit(
    s: Ints, q: Ints, qh: Ints, f: Ints, run: Ints, due: Ints, back: Ints, spare: Ints, marks: Ints, hashes: Ints, table: Ints,
    nxt: Ints, prv: Ints, ref: Ints, key: Ints, first: Ints, chain: Ints, before: Ints, budget: int,
) -> None:  # fmt: skip
    """The second part of schedule(): those that wait, while the first of them fits."""
    size = s[BLOCK]
    s[KEPT] = NOTHING
    while s[BACK] or s[TAKEN] < s[ARRIVED]:
        if s[RUNNING] >= s[MOST]:
            s[KEPT] = BY_SEQS
            return
        if budget <= 0:
            s[KEPT] = BY_TOKENS
            return
        slot = back[s[BACK] - 1] if s[BACK] else at_the_door(s, q, qh, f, spare, hashes)
        at = slot * F
        prefill = f[at + PREFILL]
        hit = evictable = 0
        if s[CACHING] and (f[at + PREEMPTED] or f[at + HASHED]):
            hit = lookup(s, f, hashes, table, key, first, chain, slot)
            for index in range(hit):
                evictable += ref[table[slot * s[WIDTH] + index]] == 0
        tokens = prefill - hit * size
        if tokens > budget and not s[CHUNKED]:
            s[KEPT] = BY_TOKENS
            return
        tokens = min(tokens, budget)
        if (prefill + size - 1) // size - hit + evictable > s[FREE]:
            s[KEPT] = BY_BLOCKS
            return
        if s[BACK]:
            s[BACK] -= 1
        else:
            s[DOOR] = NONE
            s[TAKEN] += 1
        for index in range(hit):
            block = table[slot * s[WIDTH] + index]
            if ref[block] == 0:
                unlink(nxt, prv, block)
            ref[block] += 1
        s[FREE] -= evictable
        f[at + HELD] = f[at + NOTED] = hit
        f[at + DONE] = hit * size
        if f[at + ADMITTED] == NONE:
            f[at + ADMITTED] = s[NOW]
            f[at + FOUND] = hit * size
        s[HITS] += hit * size
        take(
            s, f, table, nxt, prv, ref, key, first, chain, before, slot,
            (hit * size + tokens + size - 1) // size - hit,
        )  # fmt: skip
        advance(s, f, marks, slot, tokens)
        run[s[RUNNING]] = slot
        due[s[RUNNING]] = next_look(s, f, slot)
        s[RUNNING] += 1
        if f[at + HASHED]:
            publish(s, f, hashes, table, key, first, chain, before, slot)
        budget -= tokens


def end(s: Ints, f: Ints, spare: Ints, ended: Ints, slot: int) -> None:
    """A request that has all its tokens: its row of the results."""
    at, row = slot * F, s[ENDED] * E
    ended[row] = f[at + NUMBER]
    ended[row + 1] = f[at + ARRIVAL]
    ended[row + 2] = f[at + PROMPT]
    ended[row + 3] = f[at + TOTAL] - f[at + PROMPT]
    ended[row + 4] = f[at + ADMITTED]
    ended[row + 5] = f[at + FIRST]
    ended[row + 6] = f[at + END]
    ended[row + 7] = f[at + PREEMPTED]
    ended[row + 8] = f[at + FOUND]
    s[ENDED] += 1
    s[FINISHED] += 1
    spare[s[SPARE]] = slot
    s[SPARE] += 1


def finish(
    s: Ints, f: Ints, run: Ints, due: Ints, gone: Ints, spare: Ints, ended: Ints, table: Ints, nxt: Ints, prv: Ints, ref: Ints,
    before: int,
) -> None:  # fmt: skip
    """Requests whose last token came, of a batch that ended by `before` (update_from_output)."""
    for index in range(s[GONE]):
        end(s, f, spare, ended, gone[index])
    s[GONE] = 0
    kept = 0
    for index in range(s[RUNNING]):
        slot = run[index]
        at = slot * F
        if not due[index] and f[at + DONE] == f[at + TOTAL] - 1 and f[at + END] <= before:
            give(s, f, table, nxt, prv, ref, slot, f[at + DONE])
            end(s, f, spare, ended, slot)
        else:
            run[kept], due[kept] = slot, due[index]
            kept += 1
    s[RUNNING] = kept


# -- a run ------------------------------------------------------------------------------------------------------------------


def row(s: Ints, rows: Ints, time: int) -> None:
    at = s[ROWS] * R
    rows[at] = time
    rows[at + 1] = s[H_RUNNING]
    rows[at + 2] = s[ARRIVED] - s[TAKEN]
    rows[at + 3] = s[H_BACK]
    rows[at + 4] = s[H_BLOCKS]
    rows[at + 5] = s[H_TOKENS]
    rows[at + 6] = s[H_PREEMPTIONS]
    rows[at + 7] = s[H_FINISHED]
    s[ROWS] += 1


def hold(s: Ints) -> None:
    """The state from now on."""
    used = s[BLOCKS] - s[FREE]
    tokens = used * s[BLOCK] - s[SLACK]
    back = s[BACK] + s[GONE]
    s[H_RUNNING], s[H_BACK], s[H_BLOCKS], s[H_TOKENS] = s[RUNNING], back, used, tokens
    s[H_PREEMPTIONS], s[H_FINISHED] = s[PREEMPTIONS], s[FINISHED]
    s[PEAK_RUNNING] = max(s[PEAK_RUNNING], s[RUNNING])
    s[PEAK_WAITING] = max(s[PEAK_WAITING], s[ARRIVED] - s[TAKEN] + back)
    s[PEAK_BLOCKS] = max(s[PEAK_BLOCKS], used)
    s[PEAK_TOKENS] = max(s[PEAK_TOKENS], tokens)


def last_until(s: Ints, blocks_time: Ints, running_time: Ints, time: int) -> None:
    """The state lasts until then, which is now."""
    span = time - s[NOW]
    s[NOW] = time
    blocks_time[s[H_BLOCKS]] += span
    running_time[s[H_RUNNING]] += span
    s[KEPT_FOR + s[KEPT]] += span
    s[AREA_LOW] += s[H_TOKENS] * span
    if s[AREA_LOW] >= CARRY:
        s[AREA_LOW] -= CARRY
        s[AREA_HIGH] += 1


def arrive(s: Ints, q: Ints, time: int) -> None:
    while s[ARRIVED] < s[FED] and q[s[ARRIVED] * Q + Q_ARRIVAL] <= time:
        s[ARRIVED] += 1


def serve(
    s: Ints, q: Ints, qh: Ints, f: Ints, run: Ints, due: Ints, back: Ints, gone: Ints, spare: Ints, marks: Ints, hashes: Ints,
    table: Ints, nxt: Ints, prv: Ints, ref: Ints, key: Ints, first: Ints, chain: Ints, before: Ints, ended: Ints, rows: Ints, blocks_time: Ints,
    running_time: Ints, steps: int,
) -> int:  # fmt: skip
    """At most so many steps; why it stopped."""
    while True:
        if not s[FINAL] and (s[FED] == 0 or q[(s[FED] - 1) * Q + Q_ARRIVAL] <= s[NOW]):
            return MORE
        while s[INTERVAL] > 0 and s[SAMPLE] < s[NOW]:
            if s[ROWS] == s[ROOM_ROWS]:
                return FULL
            arrive(s, q, s[SAMPLE])
            row(s, rows, s[SAMPLE])
            s[SAMPLE] += s[INTERVAL]
        if s[ENDED] + s[MOST] > s[ROOM_ENDED] or (s[INTERVAL] == 0 and s[ROWS] == s[ROOM_ROWS]):
            return FULL
        arrive(s, q, s[NOW])
        if s[RUNNING] == 0 and s[BACK] == 0 and s[TAKEN] == s[ARRIVED]:
            s[KEPT] = NOTHING
            hold(s)
            if s[ARRIVED] == s[FED]:
                return OVER
            last_until(s, blocks_time, running_time, q[s[ARRIVED] * Q + Q_ARRIVAL])
            continue
        if steps == 0:
            return PAUSED
        steps -= 1
        s[MARKS] = s[LAST] = s[PREFILLS] = s[DECODES] = 0
        budget = running_ones(
            s, f, run, due, back, gone, marks, hashes, table, nxt, prv, ref, key, first, chain, before
        )
        if budget >= 0:
            admit(
                s, q, qh, f, run, due, back, spare, marks, hashes, table, nxt, prv, ref, key, first, chain, before, budget
            )  # fmt: skip
            if s[RUNNING] == 0:
                return STUCK
        else:
            s[KEPT] = BY_BLOCKS
        took = s[PREFILLS] * s[STEP_NS] // s[PREFILL_TOKENS] + (s[STEP_NS] if s[DECODES] else 0)
        if s[PREFILLS] or s[DECODES]:
            took = max(took, 1)
        s[COMPUTED] += s[PREFILLS] + s[DECODES]
        ended_before = s[BUSY]
        s[BUSY] = max(s[NOW], s[BUSY]) + took
        for index in range(s[MARKS]):
            at = marks[index] * F
            if f[at + FIRST] == NONE:
                f[at + FIRST] = s[BUSY]
            if f[at + DONE] == f[at + TOTAL] - 1:
                f[at + END] = s[BUSY]
        hold(s)
        if s[INTERVAL] == 0:
            row(s, rows, s[NOW])
        s[STEP] += 1
        if s[AHEAD]:
            last_until(s, blocks_time, running_time, max(s[NOW], ended_before))
            if s[LAST_BEFORE] or s[GONE]:
                finish(s, f, run, due, gone, spare, ended, table, nxt, prv, ref, ended_before)
            s[LAST_BEFORE] = s[LAST]
        else:
            last_until(s, blocks_time, running_time, s[BUSY])
            if s[LAST]:
                finish(s, f, run, due, gone, spare, ended, table, nxt, prv, ref, s[BUSY])
