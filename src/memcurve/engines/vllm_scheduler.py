"""vLLM's scheduler, step by step: which requests run, what blocks they hold, and, where it is asked for, when.

Rules of vLLM 0.33.0: Scheduler.schedule, _preempt_request, _mamba_block_aligned_split and update_from_output (v1/core/sched/scheduler.py),
AsyncScheduler, the order of EngineCore.step and step_with_batch_queue (v1/engine/core.py), KVCacheManager.allocate_slots. First come,
first served; the default watermark of none; a request is admitted where its whole prompt fits (scheduler_reserve_full_isl).

A request that decodes gains one token a step, and its blocks change at token counts that are known beforehand: the steps at which they do
stand in a wheel, and only these are looked at, beside the ones with a prefill under way, with a request to admit, or with an arrival.

Written as vllm_tables is. Time: a batch takes step_ns for every prefill_tokens tokens of prompts in it, and step_ns more where any request
decodes. The scheduler itself takes none.
"""

from __future__ import annotations

from .vllm_tables import (
    NEVER,
    Request,
    Tables,
    blocks_of,
    give_all,
    grow,
    hold,
    look,
    lookup,
    need,
    open_cell,
    publish,
    release,
    take,
    valid_export,
    whole,
)

# Columns of the queue, of what is written of a request, and of the series
NUMBER, ARRIVAL, PROMPT, OUTPUT, HASHES, QUEUE = range(6)
ENDED, ROWS = 9, 9
# Why the first that waits is kept out
NOTHING, BY_SEQS, BY_TOKENS, BY_BLOCKS = range(4)
# What serve() stops for
MORE, OVER, ROOM, STUCK, PAUSED, FOREVER, LATE = range(7)
# Units of area_high; nanoseconds that a run may take, 146 years
CARRY, MOST_TIME = 2**20, 2**62
# Times that a request which runs alone is put back without a token more before it is held to be for ever
PATIENCE = 8


# -- the wheel of steps -----------------------------------------------------------------------------------------------------


def appoint(k: Tables, slot: int, step: int) -> None:
    """A look at a request at a step, or as late before it as the wheel is wide."""
    run, one = k.run[0], k.requests[slot]
    place = min(step, run.step + run.wheel - 1) % run.wheel
    head = k.wheel[place]
    one.at = place + 1
    one.sooner, one.later = 0, head
    if head:
        k.requests[head].sooner = slot
    k.wheel[place] = slot


def dismiss(k: Tables, slot: int) -> None:
    one = k.requests[slot]
    if one.at == 0:
        return
    if one.sooner:
        k.requests[one.sooner].later = one.later
    else:
        k.wheel[one.at - 1] = one.later
    if one.later:
        k.requests[one.later].sooner = one.sooner
    one.at = 0


def collect(k: Tables) -> None:
    """The requests that are looked at in this step, the oldest first."""
    run = k.run[0]
    place = run.step % run.wheel
    count, slot = 0, k.wheel[place]
    while slot:
        count += 1
        slot = k.requests[slot].later
    # The one appointed last stands in front, and is mostly the youngest.
    index, slot = count, k.wheel[place]
    while slot:
        one = k.requests[slot]
        one.at, one.looked = 0, run.step
        index -= 1
        at = index
        while at + 1 < count and k.requests[k.due[at + 1]].order < one.order:
            k.due[at] = k.due[at + 1]
            at += 1
        k.due[at] = slot
        slot = one.later
    k.wheel[place] = 0
    run.dues = count


def next_look(k: Tables) -> int:
    """The next step that somebody stands in the wheel for; the next one where nobody does."""
    run = k.run[0]
    for step in range(run.step + 1, run.step + run.wheel):
        if k.wheel[step % run.wheel]:
            return step
    return run.step + 1


# -- one request ------------------------------------------------------------------------------------------------------------


def over(k: Tables, one: Request) -> bool:
    """Whether its last token is under way, and the step schedules it no more."""
    return k.run[0].ahead > 0 and one.end == k.run[0].step


def stop_of(one: Request) -> int:
    """The token that its prefill ends at."""
    return max(one.prompt, one.prefill - 1)


def tokens_of(one: Request, step: int) -> int:
    """Tokens with a place once a step's batch is made."""
    if one.first < 0:
        return one.done
    return one.prefill + min(step - one.first, one.total - one.prefill - 1)


def cached_of(k: Tables, one: Request) -> int:
    """Tokens whose blocks have hashes: processed ones, and all of a prefill; once the last token came all are."""
    if one.ended:
        return one.total - 1
    if one.first < 0:
        return one.done
    return one.prefill + max(k.run[0].step - one.first - 1 - k.run[0].ahead, 0)


def drop(k: Tables, slot: int) -> None:
    """Out of the ones that run."""
    run, one = k.run[0], k.requests[slot]
    give_all(k, slot, cached_of(k, one))
    k.requests[one.older].younger = one.younger
    k.requests[one.younger].older = one.older
    dismiss(k, slot)
    one.order = NEVER
    run.running -= 1
    run.prefilling -= one.first < 0


def preempt(k: Tables, slot: int) -> None:
    """Back to the front of the queue; what is under way is still delivered (_preempt_request)."""
    run, one = k.run[0], k.requests[slot]
    # One that runs alone, and is put back again and again without a token more, will be for ever.
    run.alone = (
        run.alone + 1 if run.running == 1 and one.number == run.last_alone and one.prefill == run.alone_at else 0
    )
    run.last_alone = one.number if run.running == 1 else NEVER
    run.forever = int(run.alone >= PATIENCE)
    one.dropped = tokens_of(one, run.step - 1)
    run.tokens -= one.dropped
    run.preemptions += 1
    one.preempted += 1
    if one.first >= 0 and not over(k, one):
        run.decoding -= 1
    drop(k, slot)
    if one.first >= 0:
        one.prefill += run.step - one.first
    run.alone_at = one.prefill
    one.done = one.flying = 0
    one.last = one.first = one.end = NEVER
    if one.prefill < one.total:
        k.back[run.back] = slot
        run.back += 1
    else:
        k.gone[run.gone] = slot
        run.gone += 1


def allocate(k: Tables, slot: int, end: int, flying: int) -> bool:
    """Blocks for a running request's tokens up to `end`, preempting the youngest ones; False if it had to go itself (allocate_slots)."""
    run, one = k.run[0], k.requests[slot]
    processed, stop = max(0, one.done - flying), stop_of(one)
    while True:
        wanted = 0
        for j in range(run.kinds):
            release(k, slot, j, processed, cached_of(k, one))
            wanted += need(k, slot, j, one.done, end, stop) * k.kinds[j].groups
        if wanted <= run.free:
            for j in range(run.kinds):
                grow(k, slot, j, one.done, end, stop)
            take(k, wanted)
            return True
        victim = k.requests[0].older
        preempt(k, victim)
        if victim == slot:
            return False


def advance(k: Tables, slot: int, tokens: int) -> None:
    """So many more tokens of a prefill are in the batch."""
    run, one = k.run[0], k.requests[slot]
    one.done += tokens
    one.flying, one.last = tokens, run.step
    run.prefilled += tokens
    if one.done >= one.prefill:
        run.prefilling -= 1
        one.first = run.step
        one.end = run.step + one.total - one.prefill - 1 + run.ahead
        if one.end > run.step:
            run.fresh += 1
            appoint(k, slot, run.step + 1)
        else:
            k.ending[run.endings] = slot
            run.endings += 1
        if one.known < 0:
            k.marks[run.marks] = slot
            run.marks += 1
    publish(k, slot, one.done)


def decode(k: Tables, slot: int) -> bool:
    """A step of decoding at which blocks may change; the next such step is noted. False if the request was preempted itself."""
    run, one = k.run[0], k.requests[slot]
    if over(k, one):
        return True
    one.done = one.prefill + run.step - one.first - 1
    flying = one.flying
    if one.last < run.step - 1 or not run.ahead:
        # -2: it was left out of the last batch
        flying = 0 if one.last == -2 else run.ahead
    one.last = 0
    if not allocate(k, slot, one.done + 1, flying):
        return False
    after = 1
    if one.done > one.prefill:
        after = one.end - run.step
        for j in range(run.kinds):
            kind = k.kinds[j]
            if kind.period:
                after = min(after, (kind.rest - one.done - 1) % kind.period + 1)
            if kind.period2:
                after = min(after, (kind.rest2 - one.done - 1) % kind.period2 + 1)
    if one.hashes:
        publish(k, slot, one.prefill + max(run.step - one.first - run.ahead, 0))
        # The last blocks of a prompt that hits don't end at are cached with the outputs behind them.
        late = blocks_of(one.prompt, run.align) * run.align - one.prefill + one.first + run.ahead - run.step
        if late > 0:
            after = min(after, late)
    appoint(k, slot, min(run.step + after, one.end))
    return True


def stall(k: Tables, slot: int) -> None:
    """A step that has no token left for a request that decodes."""
    run, one = k.run[0], k.requests[slot]
    one.first += 1
    one.end += 1
    one.last = -2
    run.stalled += 1
    dismiss(k, slot)
    appoint(k, slot, run.step + 1)


def split(k: Tables, one: Request, tokens: int) -> int:
    """A chunk cut to where a state must be kept (_mamba_block_aligned_split)."""
    run = k.run[0]
    start, block, stop = one.done, run.block, stop_of(one)
    if not run.aligned or start >= stop:
        return tokens
    end = start + tokens
    last = (one.prefill - 1) // block * block
    place = (stop - 1) // run.align * run.align
    inside = run.exports > 0 and end >= stop and valid_export(k, start, end, place, block, run.exports)
    if inside:
        last = 0
    if end < stop:
        cut = end // block * block
        if cut > start or block <= run.budget:
            end = cut
    # Where other layers found more cached than the states did, a state is kept for the next one.
    junction = start + (one.junction - start) // block * block if start < one.junction < end else 0
    edge = 0 if inside or start % block == 0 else (start // block + 1) * block
    found = end
    for place in (edge, last, junction):
        if start < place < end:
            found = min(found, place)
    return max(found - start, 0)


# -- one step ---------------------------------------------------------------------------------------------------------------


def schedule(k: Tables) -> bool:
    """One step; whether anything but one more token of each request happened."""
    run = k.run[0]
    preempted = run.preemptions
    run.decoding += run.fresh
    run.fresh = run.endings = 0
    collect(k)
    for index in range(run.dues):
        if k.requests[k.due[index]].end == run.step:
            k.ending[run.endings] = k.due[index]
            run.endings += 1
    if run.ahead:
        run.decoding -= run.endings
    # From the first prefill on the order decides who gets what is left of the batch; before it one token each.
    budget = run.budget - run.decoding
    tail, left, slot = 0, run.prefilling, k.requests[0].older
    while left:
        one = k.requests[slot]
        if one.first < 0:
            left -= 1
            tail = slot
        elif not over(k, one):
            budget += 1
        slot = one.older
    first = k.requests[tail].order if tail else run.orders
    stays = True
    for index in range(run.dues):
        slot = k.due[index]
        if stays and 0 <= k.requests[slot].order < first:
            stays = decode(k, slot)
    if stays and tail and k.requests[tail].order >= 0:
        budget = in_order(k, tail, budget)
    if run.preemptions == preempted:
        admit(k, budget)
    else:
        run.kept = BY_BLOCKS
    return run.dues > 0 or tail > 0


def in_order(k: Tables, slot: int, budget: int) -> int:
    """The running requests from the first prefill on; the tokens that are left of the batch."""
    run = k.run[0]
    while slot:
        one = k.requests[slot]
        if one.first < 0:
            tokens = split(k, one, min(one.prefill - one.done, budget))
            if budget and tokens:
                flying = one.flying if run.ahead and one.last == run.step - 1 else 0
                if not allocate(k, slot, one.done + tokens, flying):
                    break
                advance(k, slot, tokens)
                budget -= tokens
        elif not over(k, one):
            if not budget:
                stall(k, slot)
            else:
                if one.looked == run.step and not decode(k, slot):
                    break
                budget -= 1
        slot = one.younger
    return budget


def admit(k: Tables, budget: int) -> None:
    """Takes waiting requests in, while the first of them fits."""
    run = k.run[0]
    while run.back or run.taken < run.arrived:
        if run.running >= run.most:
            run.kept = BY_SEQS
            return
        if budget <= 0:
            run.kept = BY_TOKENS
            return
        slot = k.back[run.back - 1] if run.back else at_the_door(k)
        tokens = enter(k, slot, budget)
        if not tokens:
            return
        budget -= tokens


def at_the_door(k: Tables) -> int:
    """The first that waits, made where it is new."""
    run = k.run[0]
    if run.door:
        return run.door
    run.slots -= 1
    slot = run.door = k.slots[run.slots]
    one, row = k.requests[slot], run.taken * QUEUE
    one.number, one.arrival = k.queue[row + NUMBER], k.queue[row + ARRIVAL]
    one.prompt = one.prefill = k.queue[row + PROMPT]
    one.total = one.prompt + k.queue[row + OUTPUT]
    start = k.queue[row + HASHES]
    one.hashes = k.queue[row + QUEUE + HASHES] - start if run.caching else 0
    for index in range(one.hashes):
        k.hashes[slot * run.hash_width + index] = k.ids[start + index]
    one.done = one.flying = one.hit = one.junction = one.dropped = one.preempted = one.found = one.at = one.ended = 0
    one.last = one.first = one.end = one.order = one.looked = one.admitted = one.known = NEVER
    return slot


def enter(k: Tables, slot: int, budget: int) -> int:
    """Admits a request with its first chunk, so many tokens; 0 where it can't, and `kept` says why."""
    run, one = k.run[0], k.requests[slot]
    looks = run.caching > 0 and (one.preempted > 0 or one.hashes > 0)
    one.done = one.hit = one.told = lookup(k, slot) if looks else 0
    hit, stop = one.hit, stop_of(one)
    tokens = one.prefill - hit
    run.kept = BY_TOKENS
    if tokens > budget and not run.chunked:
        return 0
    tokens = split(k, one, min(tokens, budget))
    if not tokens:
        return 0
    run.kept = BY_BLOCKS
    total, least, all_of_it = min(one.prefill, run.longest), 0, 0
    for j in range(run.kinds):
        open_cell(k, slot, j, hit)
        all_of_it += whole(k, slot, j, hit, total, stop) * k.kinds[j].groups
        least += need(k, slot, j, hit, hit + tokens, stop) * k.kinds[j].groups
    found = look(k, slot) if looks else 0
    if found < 0 or max(all_of_it, least) + found > run.free:
        return 0
    run.kept = NOTHING
    if run.back:
        run.back -= 1
    else:
        run.door = 0
        run.taken += 1
    one.order = run.orders
    run.orders += 1
    youngest = k.requests[0].older
    one.older, one.younger = youngest, 0
    k.requests[youngest].younger = k.requests[0].older = slot
    run.running += 1
    run.prefilling += 1
    if one.admitted < 0:
        one.admitted, one.found = run.now, hit
    else:
        run.moved += k.fills[one.dropped]
    run.hits += hit
    run.tokens += hit
    if looks:
        hold(k, slot)
    for j in range(run.kinds):
        grow(k, slot, j, hit, hit + tokens, stop)
    take(k, least)
    advance(k, slot, tokens)
    return tokens


def finish(k: Tables) -> bool:
    """Requests whose last token came (update_from_output); whether there were any."""
    run = k.run[0]
    for index in range(run.gone):
        end(k, k.gone[index])
    run.gone = 0
    ended = False
    for index in range(run.endings):
        slot = k.ending[index]
        one = k.requests[slot]
        if one.order >= 0 and one.end == run.step:
            run.tokens -= tokens_of(one, run.step)
            if not run.ahead and one.first < run.step:
                run.decoding -= 1
            one.ended = 1
            publish(k, slot, one.total - 1)
            drop(k, slot)
            end(k, slot)
            ended = True
    return ended


def end(k: Tables, slot: int) -> None:
    """A request that has all its tokens: its row of what is written."""
    run, one = k.run[0], k.requests[slot]
    row = run.ended * ENDED
    k.ended[row] = one.number
    k.ended[row + 1] = one.arrival
    k.ended[row + 2] = one.prompt
    k.ended[row + 3] = one.total - one.prompt
    k.ended[row + 4] = one.admitted
    k.ended[row + 5] = one.known
    k.ended[row + 6] = run.ended_before
    k.ended[row + 7] = one.preempted
    k.ended[row + 8] = one.found
    run.ended += 1
    run.finished += 1
    k.slots[run.slots] = slot
    run.slots += 1


# -- a run ------------------------------------------------------------------------------------------------------------------


def row_of(k: Tables, time: int) -> None:
    run = k.run[0]
    at = run.rows * ROWS
    k.rows[at] = time
    k.rows[at + 1] = run.h_running
    k.rows[at + 2] = run.arrived - run.taken
    k.rows[at + 3] = run.h_back
    k.rows[at + 4] = run.h_blocks
    k.rows[at + 5] = run.h_tokens
    k.rows[at + 6] = run.h_preemptions
    k.rows[at + 7] = run.h_finished
    k.rows[at + 8] = run.h_filled
    run.rows += 1


def lasting(k: Tables, after: int) -> None:
    """The state from now on, until then."""
    run = k.run[0]
    used = run.blocks - run.free
    back = run.back + run.gone
    tokens = run.tokens - run.extra * run.block if run.single else run.tokens
    if run.interval == 0 or (run.interval > 0 and blocks_of(run.now, run.interval) * run.interval < after):
        run.h_filled = filled(k, tokens)
    elif run.running == 0:
        run.h_filled = 0
    run.h_running, run.h_back, run.h_blocks, run.h_tokens = run.running, back, used, tokens
    run.h_preemptions, run.h_finished = run.preemptions, run.finished
    run.peak_running = max(run.peak_running, run.running)
    run.peak_waiting = max(run.peak_waiting, run.arrived - run.taken + back)
    run.peak_blocks = max(run.peak_blocks, used)
    run.peak_tokens = max(run.peak_tokens, tokens)


def filled(k: Tables, tokens: int) -> int:
    """Bytes that the requests which run fill, of what they share once."""
    run = k.run[0]
    if run.single:
        return tokens * run.row
    total, slot = 0, k.requests[0].younger
    while slot:
        one = k.requests[slot]
        total += k.fills[tokens_of(one, run.step)]
        slot = one.younger
    return total - shared_bytes(k) if run.extra else total


def shared_bytes(k: Tables) -> int:
    """What the uses of a shared block beyond that of the request which sees most of it would count again."""
    run = k.run[0]
    run.sight += 1
    again, slot = 0, k.requests[0].younger
    while slot:
        one = k.requests[slot]
        tokens = tokens_of(one, run.step)
        for group in range(run.groups):
            kind = k.kinds[k.kind_of[group]]
            at = k.heads[slot * run.groups + group]
            while at:
                block = k.pieces[k.links[at].piece]
                at = k.links[at].rest
                if block.ref < 2:
                    continue
                first, end = block.first * kind.size, (block.first + block.count) * kind.size
                if kind.window:
                    first = max(first, tokens - kind.window)
                seen = max(end - first, 0) * k.block_bytes[group] // kind.size
                if block.sight == run.sight:
                    again += min(seen, block.seen)
                    block.seen = max(seen, block.seen)
                else:
                    block.sight, block.seen = run.sight, seen
        slot = one.younger
    return again


def until_then(k: Tables, time: int) -> None:
    """The state lasts until then, which is now."""
    run = k.run[0]
    span = time - run.now
    run.now = time
    k.by_blocks[run.h_blocks] += span
    k.by_running[run.h_running] += span
    k.kept_for[run.kept] += span
    run.area_low += run.h_tokens * (span % CARRY)
    run.area_high += run.h_tokens * (span // CARRY) + run.area_low // CARRY
    run.area_low %= CARRY


def arrive(k: Tables, time: int) -> None:
    run = k.run[0]
    while run.arrived < run.fed and k.queue[run.arrived * QUEUE + ARRIVAL] <= time:
        if run.arrived == run.taken and not run.back:
            run.woken = 1
        run.arrived += 1


def one_step(k: Tables) -> bool:
    """A batch is made, and the one before it (without ahead: this one) comes to its end. False where nothing is ever scheduled again."""
    run = k.run[0]
    looks = run.step >= run.until or run.woken > 0
    run.prefilled = run.stalled = run.marks = 0
    changed = False
    if looks:
        run.woken = 0
        run.kept = NOTHING
        changed = schedule(k)
        if run.forever or not (run.running or changed):
            return False
        run.decodes = run.decoding - run.stalled
    else:
        run.decodes = run.running
    took = run.prefilled * run.step_ns // run.prefill_tokens + (run.step_ns if run.decodes else 0)
    if run.prefilled or run.decodes:
        took = max(took, 1)
    run.computed += run.prefilled + run.decodes
    run.tokens += run.prefilled + run.decodes
    before = run.busy
    run.busy = max(run.now, before) + took
    for index in range(run.marks):
        k.requests[k.marks[index]].known = run.busy
    after = max(run.now, before) if run.ahead else run.busy
    count = run.running
    lasting(k, after)
    if run.interval == 0:
        row_of(k, run.now)
    until_then(k, after)
    if looks:
        run.ended_before = before if run.ahead else run.busy
        ended = finish(k)
        waits = run.back > 0 or run.taken < run.arrived
        run.until = run.step + 1
        if not (run.prefilling or ((changed or ended) and waits)):
            run.until = next_look(k)
        run.full = max(run.full, int(ended))
    run.area += count
    if run.back or run.taken < run.arrived:
        k.bound[run.full * 4 + run.kept] += 1
        if run.full:
            run.full_area += count
            run.full_steps += 1
    run.step += 1
    return True


def serve(k: Tables, steps: int) -> int:
    """At most so many steps; why it stopped."""
    run = k.run[0]
    while True:
        if not run.final and (run.fed == 0 or k.queue[(run.fed - 1) * QUEUE + ARRIVAL] <= run.now):
            return MORE
        while run.interval > 0 and run.sample < run.now:
            if run.rows == run.room_rows:
                return ROOM
            arrive(k, run.sample)
            row_of(k, run.sample)
            run.sample += run.interval
        if run.ended + run.most > run.room_ended or (run.interval == 0 and run.rows == run.room_rows):
            return ROOM
        arrive(k, run.now)
        if run.running == 0 and run.back == 0 and run.taken == run.arrived:
            run.kept = NOTHING
            lasting(k, run.now)
            if run.arrived == run.fed:
                return OVER
            until_then(k, k.queue[run.arrived * QUEUE + ARRIVAL])
            continue
        if run.busy >= MOST_TIME:
            return LATE
        if steps == 0:
            return PAUSED
        steps -= 1
        if not one_step(k):
            return FOREVER if run.forever else STUCK
