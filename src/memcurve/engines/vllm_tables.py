"""What a request holds of each group of vLLM's layers while it runs, the queue of free blocks, and how blocks are found again.

Rules of vLLM 0.33.0: the managers of vllm/v1/core/single_type_kv_cache_manager.py, HybridKVCacheCoordinator (kv_cache_coordinator.py),
BlockPool (block_pool.py). A free block keeps its hash until it is taken again. The default prefix_cache_retention_interval of 0 keeps,
of windows and states, what a prompt's end needs, and of full attention everything.

These functions run as they stand over objects, or compiled by Numba over arrays of records (vllm_loop); so they use whole numbers,
loops, and rows of numbers by place, and nothing else. Zero says none where a place is meant.

Groups with equal rules are one kind, and a request has one cell of each kind. Blocks whose content others may find, or their owner
after a preemption, are pieces: a block of a prompt that hashes cover is a piece of its own, which requests share; blocks that are
like no other's are found by their owner alone, and so they become a piece, of a run of them, once it has given them back. All else of
a table is known by its place. Free blocks without a hash are taken first and are only counted; those with one wait in a queue of
pieces, of which those that nobody can find have no key.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping

    Ints = MutableMapping[int, int]

# How a kind of group keeps tokens: all; a window; a chunk; one state; a state at each end of a block
TOKENS, WINDOW, CHUNK, STATE, ALIGNED = range(5)
# States that a request holds of a group at once, at most: two chunks' of two, the one before them and the one found
STATES = 8
# Nothing has happened yet
NEVER = -1


class Kind:
    """Rules of a kind of group. size: tokens of a block; window: of tokens, or of a chunk. most: blocks that admission counts of a
    request; tail: blocks that a hit needs; export: as Spec has it. groups: how many; tokens at which the blocks of a request that decodes
    change: those that leave rest or rest2 by period or period2 (0: none). reach: blocks that a lookup found. bytes: what a block fills."""

    form = size = window = most = tail = export = groups = rest = period = rest2 = period2 = reach = 0


class Cell:
    """What a request holds of each group of a kind: blocks `gone` to `held` of its table, or `count` states of which `before` is the
    one before the last. noted: blocks that are looked through for others; low to high: blocks that a lookup put into the table."""

    held = gone = before = count = noted = low = high = 0


class Piece:
    """Blocks `first` to `first + count` of what has a key. ref: requests that hold it; stamp: the step in which it got its key. up, down:
    pieces of equal bits of their keys, the latest first; nxt, prv: in the queue of free ones; rest: the next lower one of its owner. seen:
    bytes of it that were counted once, in the count `sight`."""

    key = first = count = ref = stamp = up = down = nxt = prv = rest = sight = seen = 0


class Request:
    """One request. prefill: tokens to compute before the next output (more after a preemption), total: all it has in the end. done:
    tokens computed; flying: those of its last chunk, scheduled at step `last`. first, end: the steps of its first and its last token.
    hit: tokens found cached; junction: tokens that some layers found and others not. hashes: of its prompt. order: by age, NEVER where it
    does not run; older, younger: those beside it. at: where the wheel has it, looked: the step that looked at it last; later, sooner: beside
    it there. dropped: tokens when it was preempted. admitted, known: times, the second of its first token; ended: whether it has its last."""

    number = arrival = prompt = prefill = total = done = flying = last = first = end = hit = junction = hashes = (
        order
    ) = older = younger = 0
    at = looked = later = sooner = dropped = preempted = admitted = known = ended = found = 0


class Run:
    """Numbers of the run. Given: budget: tokens of a batch; most: requests at once; chunked, ahead, caching: as Serving has them;
    groups, kinds: how many; align: tokens that a hit is a multiple of; hashed: of a hash of the engine's; aligned: whether states are kept at
    ends of blocks; block: tokens of the smallest; exports; hash_tokens: tokens of a hash of the trace's, per: blocks of one, at most; bits:
    of keys; width, hash_width: places of a row of table and of hashes; wheel: its places; single: whether one group keeps every token, row:
    its bytes of one. step_ns, prefill_tokens, interval: as Replayer has them; room_ended, room_rows: for results and rows; blocks.

    Now: free: blocks, plain: those without a hash; spare, made: places of pieces; extra: uses of pieces beyond the first. The others are the
    scheduler's."""

    budget = most = chunked = ahead = caching = groups = kinds = align = hashed = aligned = block = exports = (
        hash_tokens
    ) = per = bits = 0
    width = hash_width = wheel = single = row = step_ns = prefill_tokens = interval = room_ended = room_rows = (
        blocks
    ) = final = longest = 0
    free = plain = spare = made = extra = 0
    # Now, the end of the last batch, steps; the step that looks next; whether one has come to an empty queue
    now = busy = step = until = woken = sample = ended_before = 0
    # Requests fed, arrived, let in; the one that is first in line; free slots; those that run, prefill, decode; put back; put back with
    # their last token under way
    fed = arrived = taken = door = slots = running = prefilling = decoding = fresh = back = gone = orders = 0
    # Times that one which runs alone was put back at the same token, which, and at what token; whether that is for ever
    alone = last_alone = alone_at = forever = 0
    # Of this step
    dues = endings = marks = prefilled = stalled = decodes = kept = sight = 0
    # Sums
    ended = rows = preemptions = finished = computed = hits = tokens = area_high = area_low = moved = 0
    h_running = h_back = h_blocks = h_tokens = h_preemptions = h_finished = h_filled = 0
    peak_running = peak_waiting = peak_blocks = peak_tokens = 0
    area = full = full_area = full_steps = 0


class Tables(NamedTuple):
    """Everything of a run, by place. run: one row; kind_of: the kind of a group, block_bytes: what a block of one fills; cells, states: by
    request and kind; table, own: pieces by request and group; buckets: of keys; hashes: by request. queue: rows of QUEUE numbers of requests
    that were fed, ids: their hashes. back, gone, slots, marks, ending, due: requests; wheel: by step. ended, rows: what is written; by_blocks,
    by_running, kept_for, bound: time, or steps, by what holds; fills: bytes that so many tokens of a request fill."""

    run: MutableMapping[int, Run]
    kinds: MutableMapping[int, Kind]
    kind_of: Ints
    block_bytes: Ints
    requests: MutableMapping[int, Request]
    cells: MutableMapping[int, Cell]
    states: Ints
    table: Ints
    own: Ints
    pieces: MutableMapping[int, Piece]
    buckets: Ints
    hashes: Ints
    queue: Ints
    ids: Ints
    back: Ints
    gone: Ints
    slots: Ints
    marks: Ints
    ending: Ints
    due: Ints
    wheel: Ints
    scratch: Ints
    ended: Ints
    rows: Ints
    by_blocks: Ints
    by_running: Ints
    kept_for: Ints
    bound: Ints
    fills: Ints


def blocks_of(tokens: int, size: int) -> int:
    return (tokens + size - 1) // size


# -- free blocks and their keys ---------------------------------------------------------------------------------------------


def new_piece(k: Tables) -> int:
    run = k.run[0]
    if run.spare:
        piece = run.spare
        run.spare = k.pieces[piece].nxt
        return piece
    run.made += 1
    return run.made


def throw_away(k: Tables, piece: int) -> None:
    run = k.run[0]
    k.pieces[piece].key = 0
    k.pieces[piece].nxt = run.spare
    run.spare = piece


def unlink(k: Tables, piece: int) -> None:
    one = k.pieces[piece]
    k.pieces[one.prv].nxt = one.nxt
    k.pieces[one.nxt].prv = one.prv


def link(k: Tables, before: int, piece: int) -> None:
    """Puts a piece behind `before`."""
    one = k.pieces[piece]
    after = k.pieces[before].nxt
    k.pieces[before].nxt = piece
    one.prv = before
    one.nxt = after
    k.pieces[after].prv = piece


def append(k: Tables, piece: int) -> None:
    """To the end of the queue."""
    link(k, k.pieces[0].prv, piece)


def append_nameless(k: Tables, number: int) -> None:
    """Blocks with a hash that nobody will look for."""
    last = k.pieces[0].prv
    if last and k.pieces[last].key == 0:
        k.pieces[last].count += number
        return
    piece = new_piece(k)
    k.pieces[piece].key = 0
    k.pieces[piece].count = number
    append(k, piece)


def note(k: Tables, piece: int, key: int) -> None:
    """BlockHashToBlockMap.insert."""
    one = k.pieces[piece]
    one.key = key
    one.stamp = k.run[0].step
    bucket = key & k.run[0].bits
    head = k.buckets[bucket]
    one.up = 0
    one.down = head
    if head:
        k.pieces[head].up = piece
    k.buckets[bucket] = piece


def note_beside(k: Tables, piece: int, other: int) -> None:
    """Another part of the same, as old as it."""
    one, part = k.pieces[piece], k.pieces[other]
    part.key, part.stamp, part.ref = one.key, one.stamp, one.ref
    part.up, part.down = piece, one.down
    if one.down:
        k.pieces[one.down].up = other
    one.down = other


def forget(k: Tables, piece: int) -> None:
    """_maybe_evict_cached_block."""
    one = k.pieces[piece]
    if one.up:
        k.pieces[one.up].down = one.down
    else:
        k.buckets[one.key & k.run[0].bits] = one.down
    if one.down:
        k.pieces[one.down].up = one.up


def find(k: Tables, key: int, index: int) -> int:
    """The piece noted first that has a block (get_one_block); 0 where there is none."""
    found = 0
    piece = k.buckets[key & k.run[0].bits]
    while piece:
        one = k.pieces[piece]
        if one.key == key and one.first <= index < one.first + one.count:
            found = piece
        piece = one.down
    return found


def cached_now(k: Tables, key: int) -> bool:
    """Whether a block was noted under a key in this step (cached_blocks_this_step)."""
    piece = k.buckets[key & k.run[0].bits]
    while piece:
        one = k.pieces[piece]
        if one.key == key and one.stamp == k.run[0].step:
            return True
        piece = one.down
    return False


def take(k: Tables, number: int) -> None:
    """Blocks from the front of the queue (get_new_blocks): of a piece the last one first."""
    run = k.run[0]
    run.free -= number
    front = min(number, run.plain)
    run.plain -= front
    number -= front
    while number > 0:
        piece = k.pieces[0].nxt
        one = k.pieces[piece]
        part = min(number, one.count)
        one.count -= part
        number -= part
        if one.count == 0:
            unlink(k, piece)
            if one.key:
                forget(k, piece)
            throw_away(k, piece)


# -- names of blocks --------------------------------------------------------------------------------------------------------


def common(k: Tables, slot: int, kind: Kind) -> int:
    """Blocks of a prompt that hashes cover, which others may find."""
    one = k.requests[slot]
    return min(one.hashes * k.run[0].hash_tokens, one.prompt) // kind.size


def shared_key(k: Tables, slot: int, group: int, size: int, index: int) -> int:
    """Of a block that hashes cover: by the hash that its last token is of, and its place within."""
    run = k.run[0]
    span = ((index + 1) * size - 1) // run.hash_tokens
    inside = index - span * run.hash_tokens // size
    return (k.hashes[slot * run.hash_width + span] * run.per + inside) * run.groups + group + 1


def own_key(k: Tables, slot: int, group: int) -> int:
    """Of all blocks that are like no other's."""
    return NEVER - (k.requests[slot].number * k.run[0].groups + group)


def key_of(k: Tables, slot: int, group: int, kind: Kind, index: int) -> int:
    if index < common(k, slot, kind):
        return shared_key(k, slot, group, kind.size, index)
    return own_key(k, slot, group)


# -- what a request holds ---------------------------------------------------------------------------------------------------


def cell_of(k: Tables, slot: int, j: int) -> Cell:
    return k.cells[slot * k.run[0].kinds + j]


def skipped(kind: Kind, processed: int) -> int:
    """Tokens that no later one looks at (get_num_skipped_tokens)."""
    if kind.form == WINDOW:
        return max(0, processed - kind.window + 1)
    if kind.form == CHUNK:
        return processed // kind.window * kind.window
    return 0


def state_at(k: Tables, slot: int, j: int) -> int:
    """Where the states of a request begin."""
    return (slot * k.run[0].kinds + j) * STATES


def has_state(k: Tables, slot: int, j: int, index: int) -> bool:
    at = state_at(k, slot, j)
    for number in range(cell_of(k, slot, j).count):  # noqa: SIM110 - Numba has no generators in any()
        if k.states[at + number] == index:
            return True
    return False


def open_cell(k: Tables, slot: int, j: int, hit: int) -> None:
    """The table of a request that finds so many tokens cached."""
    kind, cell = k.kinds[j], cell_of(k, slot, j)
    cell.held = cell.noted = hit // kind.size
    cell.gone = skipped(kind, hit) // kind.size
    cell.before = NEVER
    cell.count = 0
    if kind.form == STATE:
        cell.held = 0
    elif kind.form == ALIGNED and cell.held:
        k.states[state_at(k, slot, j)] = cell.held - 1
        cell.count = 1
        cell.gone = 0


def valid_export(k: Tables, start: int, end: int, place: int, size: int, export: int) -> bool:
    """Whether a chunk can hand out the state at `place` (is_mamba_prefill_checkpoint_valid, vllm/v1/kv_cache_interface.py)."""
    hashed = k.run[0].hashed
    return (
        start % hashed == 0
        and blocks_of(end, size) - 2 > (start - 1) // size
        and start + hashed <= place
        and start < place < end
        and (place - start) % export == 0
    )


def exports(k: Tables, slot: int, j: int, start: int, end: int, stop: int) -> int:
    """1 where the chunk hands out a state on its way (_needs_internal_checkpoint)."""
    kind, align = k.kinds[j], k.run[0].align
    if not kind.export or end < stop:
        return 0
    index = blocks_of(end, kind.size) - 2
    if index < 0 or not valid_export(k, start, end, (end - 1) // align * align, kind.size, kind.export):
        return 0
    return 1 if index >= cell_of(k, slot, j).held or not has_state(k, slot, j, index) else 0


def need(k: Tables, slot: int, j: int, start: int, end: int, stop: int) -> int:
    """Blocks of one group that a request takes for tokens start to end (get_num_blocks_to_allocate); stop: where its prefill ends."""
    kind, held = k.kinds[j], cell_of(k, slot, j).held
    if kind.form == STATE:
        return 1 - held
    new = max(blocks_of(end, kind.size) - held, 0)
    if kind.form == ALIGNED and new:
        return min(new, 1 + exports(k, slot, j, start, end, stop))
    return new


def whole(k: Tables, slot: int, j: int, start: int, tokens: int, stop: int) -> int:
    """Blocks that must be free, beside cached ones, to admit a prompt of so many tokens: of what is given back on the way no more than a
    request ever holds (max_admission_blocks_per_request)."""
    kind = k.kinds[j]
    if kind.form == WINDOW or kind.form == CHUNK:
        return max(min(blocks_of(tokens, kind.size), kind.most) - cell_of(k, slot, j).held, 0)
    return need(k, slot, j, start, tokens, stop)


def grow(k: Tables, slot: int, j: int, start: int, end: int, stop: int) -> None:
    kind, cell = k.kinds[j], cell_of(k, slot, j)
    if kind.form == STATE:
        cell.held = 1
        return
    blocks = blocks_of(end, kind.size)
    if kind.form == ALIGNED:
        out = exports(k, slot, j, start, end, stop)
        if blocks > cell.held or out:
            if cell.held:
                cell.before = cell.held - 1
            at = state_at(k, slot, j)
            for index in range(max(cell.held, blocks - 1 - out), blocks):
                assert cell.count < STATES
                k.states[at + cell.count] = index
                cell.count += 1
    cell.held = max(cell.held, blocks)


# -- what it gives back -----------------------------------------------------------------------------------------------------


def give(k: Tables, slot: int, group: int, low: int, high: int, cached: int) -> None:
    """Blocks of a request's table to the queue (free_blocks), the last one first: those without a hash to its front, the others to its
    end. cached: tokens whose blocks have hashes."""
    run = k.run[0]
    if not run.caching:
        run.plain += high - low
        run.free += high - low
        return
    covered = common(k, slot, k.kinds[k.kind_of[group]])
    if high > covered:
        give_own(k, slot, group, max(low, covered), high, cached)
    row = (slot * run.groups + group) * run.width
    for index in range(min(high, covered) - 1, low - 1, -1):
        piece = k.table[row + index]
        if piece == 0:
            run.plain += 1
            run.free += 1
            continue
        k.table[row + index] = 0
        one = k.pieces[piece]
        one.ref -= 1
        if one.ref:
            run.extra -= 1
        else:
            run.free += 1
            append(k, piece)


def give_own(k: Tables, slot: int, group: int, low: int, high: int, cached: int) -> None:
    """Of the blocks that are like no other's: the pieces that were found once, and all between."""
    run, asked = k.run[0], k.requests[slot]
    place = slot * run.groups + group
    above, piece, top = 0, k.own[place], high
    while piece:
        one = k.pieces[piece]
        below = one.rest
        if one.first >= high:
            above, piece = piece, below
            continue
        if one.first + one.count <= low:
            break
        if one.first + one.count > high:
            part = new_piece(k)
            k.pieces[part].first, k.pieces[part].count = high, one.first + one.count - high
            k.pieces[part].rest = piece
            note_beside(k, piece, part)
            one.count = high - one.first
            if above:
                k.pieces[above].rest = part
            else:
                k.own[place] = part
            above = part
        give_between(k, slot, group, one.first + one.count, top, cached)
        top = one.first
        if above:
            k.pieces[above].rest = below
        else:
            k.own[place] = below
        run.free += one.count
        one.ref = one.rest = 0
        if not asked.ended:
            append(k, piece)
        else:
            append_nameless(k, one.count)
            forget(k, piece)
            throw_away(k, piece)
        piece = below
    give_between(k, slot, group, low, top, cached)


def give_between(k: Tables, slot: int, group: int, low: int, high: int, cached: int) -> None:
    """Blocks that are no piece. Those with a hash are, where sparse retention keeps them (reachable_block_mask), the ones that a hit at
    the prompt's end, or at its junction, needs."""
    if high <= low:
        return
    run, one, kind = k.run[0], k.requests[slot], k.kinds[k.kind_of[group]]
    run.free += high - low
    full = cached // run.align * run.align // kind.size
    top = high
    ends = (max(one.prompt - 1, one.junction), min(one.prompt - 1, one.junction))
    for end in ends:
        bottom, last = low, full
        if kind.form == WINDOW or kind.form == ALIGNED:
            last = end // run.align * run.align // kind.size
            bottom = max(low, last - kind.tail)
        last = min(last, full, top)
        if last <= bottom:
            continue
        run.plain += top - last
        top = bottom
        if not one.ended:
            piece = new_piece(k)
            k.pieces[piece].first, k.pieces[piece].count = bottom, last - bottom
            k.pieces[piece].ref = k.pieces[piece].rest = 0
            note(k, piece, own_key(k, slot, group))
            append(k, piece)
        else:
            append_nameless(k, last - bottom)
    run.plain += top - low


def give_all(k: Tables, slot: int, cached: int) -> None:
    """All that a request holds, group by group (KVCacheCoordinator.free)."""
    for group in range(k.run[0].groups):
        j = k.kind_of[group]
        kind, cell = k.kinds[j], cell_of(k, slot, j)
        if kind.form != ALIGNED:
            give(k, slot, group, cell.gone, cell.held, cached)
            continue
        at = state_at(k, slot, j)
        for number in range(cell.count - 1, -1, -1):
            index = k.states[at + number]
            give(k, slot, group, index, index + 1, cached)


def release(k: Tables, slot: int, j: int, processed: int, cached: int) -> None:
    """What is out of sight once so many tokens are processed (remove_skipped_blocks)."""
    kind, cell = k.kinds[j], cell_of(k, slot, j)
    if kind.form == ALIGNED:
        release_states(k, slot, j, processed, cached)
        return
    first = min(skipped(kind, processed) // kind.size, cell.held)
    if first <= cell.gone:
        return
    for group in range(k.run[0].groups):
        if k.kind_of[group] == j:
            give(k, slot, group, cell.gone, first, cached)
    cell.gone = first


def release_states(k: Tables, slot: int, j: int, processed: int, cached: int) -> None:
    """MambaManager.remove_skipped_blocks: the states before the last one, and the one before it once it is copied."""
    cell, size, at = cell_of(k, slot, j), k.kinds[j].size, state_at(k, slot, j)
    gone = 0
    first = min((processed - 1) // size, cell.held) if processed > 1 else 0
    if first > cell.gone:
        for number in range(cell.count - 1, -1, -1):
            if cell.gone <= k.states[at + number] < first:
                k.scratch[gone] = k.states[at + number]
                gone += 1
        cell.gone = first
    if 0 <= cell.before < blocks_of(processed, size) - 1 and has_state(k, slot, j, cell.before):
        listed = False
        for number in range(gone):
            listed = listed or k.scratch[number] == cell.before
        if not listed:
            k.scratch[gone] = cell.before
            gone += 1
    if not gone:
        return
    for group in range(k.run[0].groups):
        if k.kind_of[group] == j:
            for number in range(gone):
                index = k.scratch[number]
                give(k, slot, group, index, index + 1, cached)
    kept = 0
    for number in range(cell.count):
        index = k.states[at + number]
        stays = True
        for other in range(gone):
            stays = stays and k.scratch[other] != index
        if stays:
            k.states[at + kept] = index
            kept += 1
    cell.count = kept


# -- what others find -------------------------------------------------------------------------------------------------------


def publish(k: Tables, slot: int, cached: int) -> None:
    """Gives the full blocks of a prompt that others may find their keys (cache_full_blocks), so many tokens being cached."""
    run, one = k.run[0], k.requests[slot]
    if not one.hashes:
        return
    for group in range(run.groups):
        j = k.kind_of[group]
        kind, cell = k.kinds[j], cell_of(k, slot, j)
        full = min(cached // run.align * run.align // kind.size, common(k, slot, kind))
        if full <= cell.noted:
            continue
        if kind.form == TOKENS or kind.form == CHUNK:
            publish_span(k, slot, group, max(cell.noted, cell.gone), full)
            continue
        # The lower end first, as the blocks of a table are looked through.
        for end in (min(one.prompt - 1, one.junction), max(one.prompt - 1, one.junction)):
            last = end // run.align * run.align // kind.size
            publish_span(k, slot, group, max(cell.noted, cell.gone, last - kind.tail), min(last, full))
    for j in range(run.kinds):
        kind, cell = k.kinds[j], cell_of(k, slot, j)
        full = min(cached // run.align * run.align // kind.size, common(k, slot, kind))
        cell.noted = max(cell.noted, full)


def publish_span(k: Tables, slot: int, group: int, low: int, high: int) -> None:
    run, j = k.run[0], k.kind_of[group]
    kind = k.kinds[j]
    row = (slot * run.groups + group) * run.width
    for index in range(low, high):
        if k.table[row + index] or (kind.form == ALIGNED and not has_state(k, slot, j, index)):
            continue
        piece = new_piece(k)
        new = k.pieces[piece]
        new.first, new.count, new.ref = index, 1, 1
        k.table[row + index] = piece
        note(k, piece, shared_key(k, slot, group, kind.size, index))


def reach(k: Tables, slot: int, j: int, index: int) -> int:
    """The end of the blocks from `index` on that every group of a kind has in one piece; `index` where one has not got it
    (get_cached_block)."""
    end = NEVER
    for group in range(k.run[0].groups):
        if k.kind_of[group] == j:
            piece = find(k, key_of(k, slot, group, k.kinds[j], index), index)
            if piece == 0:
                return index
            last = k.pieces[piece].first + k.pieces[piece].count
            end = last if end == NEVER else min(end, last)
    return end


def longest(k: Tables, slot: int, j: int, most: int, again: bool) -> int:
    """Tokens of the longest hit of a kind, up to `most` (find_longest_cache_hit)."""
    kind, align = k.kinds[j], k.run[0].align
    size, blocks = kind.size, most // kind.size
    if kind.form == TOKENS:
        # What is found to its left is found to its end: it is looked up once.
        if not again:
            kind.reach = 0
            while kind.reach < blocks:
                end = reach(k, slot, j, kind.reach)
                if end == kind.reach:
                    break
                kind.reach = end
        return min(kind.reach, blocks) * size // align * align
    if kind.form == CHUNK:
        number = most // kind.window * kind.window // size
        while number < blocks:
            end = reach(k, slot, j, number)
            if end == number:
                break
            number = end
        return min(number, blocks) * size
    if kind.form == ALIGNED:
        while blocks and (blocks * size % align or reach(k, slot, j, blocks - 1) < blocks):
            blocks -= 1
        return blocks * size
    row = 0
    for index in range(blocks - 1, -1, -1):
        if reach(k, slot, j, index) == index:
            row = 0
        elif row or (index + 1) * size % align == 0:
            row += 1
            if row >= kind.tail:
                return (index + row) * size
    return row * size // align * align


def lookup(k: Tables, slot: int) -> int:
    """Tokens of a request that are cached, all but one at most (HybridKVCacheCoordinator.find_longest_cache_hit)."""
    run, one = k.run[0], k.requests[slot]
    hit, most = one.prefill - 1, 0
    full = 0
    for j in range(run.kinds):
        full += k.kinds[j].form == TOKENS
    again = False
    while True:
        before = hit
        # Full attention first
        for late in (False, True):
            for j in range(run.kinds):
                if (k.kinds[j].form == TOKENS) != late:
                    hit = longest(k, slot, j, hit, again)
                    most = max(most, hit)
        again = True
        if hit >= before or run.kinds == 1 or (run.kinds == 2 and full):
            break
    one.junction = most if most > hit else 0
    return hit


def found_span(k: Tables, slot: int, j: int) -> tuple[int, int]:
    """The blocks that a request holds of what it found."""
    kind, cell = k.kinds[j], cell_of(k, slot, j)
    if kind.form == ALIGNED:
        return max(cell.held - 1, 0), cell.held
    return cell.gone, max(cell.held, cell.gone)


def look(k: Tables, slot: int) -> int:
    """Puts the blocks that a request found into its tables; how many of them are free. NEVER where a state has only just been cached: it is
    there in the next step."""
    run = k.run[0]
    free = 0
    for group in range(run.groups):
        j = k.kind_of[group]
        kind, cell = k.kinds[j], cell_of(k, slot, j)
        covered = common(k, slot, kind)
        row = (slot * run.groups + group) * run.width
        # What a look in vain left behind
        for index in range(cell.low, cell.high):
            k.table[row + index] = 0
        low, high = found_span(k, slot, j)
        for index in range(low, min(high, covered)):
            piece = find(k, shared_key(k, slot, group, kind.size, index), index)
            k.table[row + index] = piece
            free += k.pieces[piece].ref == 0
        index = max(low, covered)
        while index < high:
            one = k.pieces[find(k, own_key(k, slot, group), index)]
            end = min(one.first + one.count, high)
            free += end - index
            index = end
        if kind.form == ALIGNED and high and cached_now(k, key_of(k, slot, group, kind, high - 1)):
            free = -run.blocks - run.blocks
    for j in range(run.kinds):
        cell = cell_of(k, slot, j)
        low, high = found_span(k, slot, j)
        cell.low, cell.high = low, max(low, min(high, common(k, slot, k.kinds[j])))
    return free if free >= 0 else NEVER


def hold(k: Tables, slot: int) -> None:
    """Takes what was found (add_local_computed_blocks)."""
    run = k.run[0]
    for group in range(run.groups):
        j = k.kind_of[group]
        low, high = found_span(k, slot, j)
        covered = common(k, slot, k.kinds[j])
        row = (slot * run.groups + group) * run.width
        for index in range(low, min(high, covered)):
            piece = k.table[row + index]
            one = k.pieces[piece]
            if one.ref == 0:
                unlink(k, piece)
                run.free -= 1
            else:
                run.extra += 1
            one.ref += 1
        place = slot * run.groups + group
        k.own[place] = 0
        index = max(low, covered)
        while index < high:
            piece = find(k, own_key(k, slot, group), index)
            index = hold_part(k, piece, index, high)
            k.pieces[piece].rest = k.own[place]
            k.own[place] = piece
    for j in range(run.kinds):
        cell = cell_of(k, slot, j)
        cell.low = cell.high = 0


def hold_part(k: Tables, piece: int, low: int, high: int) -> int:
    """Takes blocks low to high of a piece, as far as it goes; what is over stays in the queue, in its place. The end."""
    one = k.pieces[piece]
    end = one.first + one.count
    if end > high:
        part = new_piece(k)
        k.pieces[part].first, k.pieces[part].count, k.pieces[part].rest = high, end - high, 0
        note_beside(k, piece, part)
        link(k, one.prv, part)
        end = high
    if one.first < low:
        part = new_piece(k)
        k.pieces[part].first, k.pieces[part].count, k.pieces[part].rest = one.first, low - one.first, 0
        note_beside(k, piece, part)
        link(k, piece, part)
    one.first, one.count = low, end - low
    unlink(k, piece)
    k.run[0].free -= one.count
    one.ref = 1
    return end
