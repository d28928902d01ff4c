"""What a request holds of each group of vLLM's layers while it runs, the queue of free blocks, and how blocks are found again.

Rules of vLLM 0.33.0: the managers of vllm/v1/core/single_type_kv_cache_manager.py, HybridKVCacheCoordinator (kv_cache_coordinator.py),
BlockPool (block_pool.py). A free block keeps its hash until it is taken again. The default prefix_cache_retention_interval of 0 keeps,
of windows and states, what a prompt's end needs, and of full attention everything.

These functions run as they stand over objects, or compiled by Numba over arrays of records (vllm_loop); so they use whole numbers,
loops, and rows of numbers by place, and nothing else. Zero says none where a place is meant.

Groups with equal rules are one kind, and a request has one cell of each kind: all of its table is known by places. Blocks whose content
others may find are pieces beside: runs of blocks of one hash of the trace, which requests share. Blocks that are like no other's are found by
their owner alone, after a preemption, and so they become a piece once it has given them back. A request has a chain of links to the
pieces that it holds of each group, the last blocks first. Free blocks without a hash are taken first and are only counted; those with
one wait in a queue of pieces, of which those that nobody can find have no key.
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
# Nothing has happened yet; no limit
NEVER, NO_END = -1, 2**62


class Kind:
    """Rules of a kind of group. size: tokens of a block; window: of tokens, or of a chunk. most: blocks that admission counts of a
    request; tail: blocks that a hit needs; export: as Spec has it. groups: how many; tokens at which the blocks of a request that decodes
    change: those that leave rest or rest2 by period or period2 (0: none). reach: blocks that a lookup found. bytes: what a block fills."""

    form = size = window = most = tail = export = groups = rest = period = rest2 = period2 = reach = 0


class Cell:
    """What a request holds of each group of a kind: blocks `gone` to `held` of its table, or `count` states of which `before` is the
    one before the last."""

    held = gone = before = count = 0


class Piece:
    """Blocks `first` to `first + count` of what has a key. ref: requests that hold it; stamp: the step in which it got its key. up, down:
    pieces of equal bits of their keys, the latest first; nxt, prv: in the queue of free ones. seen: bytes of it that were counted once, in the
    count `sight`."""

    key = first = count = ref = stamp = up = down = nxt = prv = sight = seen = 0


class Link:
    """Of a request to a piece; rest: the link to the next lower one."""

    piece = rest = 0


class Request:
    """One request. prefill: tokens to compute before the next output (more after a preemption), total: all it has in the end. done:
    tokens computed; flying: those of its last chunk, scheduled at step `last`. first, end: the steps of its first and its last token.
    hit: tokens found cached; junction: tokens that some layers found and others not. hashes: of its prompt; told: tokens that others may find by now. order: by age, NEVER where it
    does not run; older, younger: those beside it. at: where the wheel has it, looked: the step that looked at it last; later, sooner: beside
    it there. dropped: tokens when it was preempted. admitted, known: times, the second of its first token; ended: whether it has its last."""

    number = arrival = prompt = prefill = total = done = flying = last = first = end = 0
    hit = junction = hashes = told = order = older = younger = 0
    at = looked = later = sooner = dropped = preempted = admitted = known = ended = found = 0


class Run:
    """Numbers of the run. Given: budget: tokens of a batch; most: requests at once; chunked, ahead, caching: as Serving has them;
    groups, kinds: how many; align: tokens that a hit is a multiple of; hashed: of a hash of the engine's; aligned: whether states are kept at
    ends of blocks; block: tokens of the smallest; exports; hash_tokens: tokens of a hash of the trace's; bits: of keys;
    hash_width: places of a row of hashes; room_links: places of links; wheel: its places; single: whether one group keeps every token, row:
    its bytes of one. step_ns, prefill_tokens, interval: as Replayer has them; room_ended, room_rows: for results and rows; blocks.

    Now: free: blocks, plain: those without a hash; spare, made: places of pieces, spare_link, made_links: of links; extra: uses of blocks beyond the first. The others are the
    scheduler's."""

    budget = most = chunked = ahead = caching = groups = kinds = align = hashed = aligned = block = exports = 0
    hash_tokens = bits = hash_width = room_links = wheel = single = row = 0
    step_ns = prefill_tokens = interval = room_ended = room_rows = blocks = final = longest = 0
    free = plain = spare = made = extra = spare_link = made_links = 0
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
    request and kind; heads: links by request and group; buckets: of keys; hashes: by request. queue: rows of QUEUE numbers of requests
    that were fed, ids: their hashes. back, gone, slots, marks, ending, due: requests; wheel: by step. ended, rows: what is written; by_blocks,
    by_running, kept_for, bound: time, or steps, by what holds; fills: bytes that so many tokens of a request fill."""

    run: MutableMapping[int, Run]
    kinds: MutableMapping[int, Kind]
    kind_of: Ints
    block_bytes: Ints
    requests: MutableMapping[int, Request]
    cells: MutableMapping[int, Cell]
    states: Ints
    heads: Ints
    links: MutableMapping[int, Link]
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


def forget(k: Tables, piece: int) -> None:
    """_maybe_evict_cached_block."""
    one = k.pieces[piece]
    if one.up:
        k.pieces[one.up].down = one.down
    else:
        k.buckets[one.key & k.run[0].bits] = one.down
    if one.down:
        k.pieces[one.down].up = one.up


def find(k: Tables, key: int, index: int) -> tuple[int, int]:
    """The piece noted first that has a block (get_one_block), and the end of the blocks behind it that are found there too; 0 and 0 where
    there is none."""
    found, end = 0, 0
    piece = k.buckets[key & k.run[0].bits]
    while piece:
        one = k.pieces[piece]
        if one.key == key:
            if one.first <= index < one.first + one.count:
                found, end = piece, one.first + one.count
            elif found and index < one.first:
                # Of these an older one is found.
                end = min(end, one.first)
        piece = one.down
    return found, end


def cached_now(k: Tables, key: int, index: int) -> bool:
    """Whether a block was noted under its key in this step (cached_blocks_this_step)."""
    piece = k.buckets[key & k.run[0].bits]
    while piece:
        one = k.pieces[piece]
        if one.key == key and one.stamp == k.run[0].step and one.first <= index < one.first + one.count:
            return True
        piece = one.down
    return False


def last_found(k: Tables, key: int, index: int) -> int:
    """The highest block up to `index` that is found under a key; NEVER where there is none."""
    found = NEVER
    piece = k.buckets[key & k.run[0].bits]
    while piece:
        one = k.pieces[piece]
        if one.key == key and one.first <= index:
            found = max(found, min(index, one.first + one.count - 1))
        piece = one.down
    return found


def part(k: Tables, piece: int, at: int) -> int:
    """Splits a piece; what is below `at` becomes a piece of its own, as old and found as much, and in the queue right behind it."""
    one, low = k.pieces[piece], new_piece(k)
    other = k.pieces[low]
    other.first, other.count = one.first, at - one.first
    one.first, one.count = at, one.count - other.count
    other.key, other.stamp, other.ref, other.sight = one.key, one.stamp, one.ref, 0
    other.up, other.down = piece, one.down
    if one.down:
        k.pieces[one.down].up = low
    one.down = low
    if one.ref == 0:
        link(k, piece, low)
    return low


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


def key_of(k: Tables, slot: int, group: int, index: int) -> int:
    """What a block is found by: the hash that its last token is of, or, where it is like no other's, its request."""
    run, one, kind = k.run[0], k.requests[slot], k.kinds[k.kind_of[group]]
    if index < common(k, slot, kind):
        span = ((index + 1) * kind.size - 1) // run.hash_tokens
        return k.hashes[slot * run.hash_width + span] * run.groups + group + 1
    return NEVER - (one.number * run.groups + group)


def bounds(k: Tables, slot: int, kind: Kind, index: int) -> tuple[int, int]:
    """The blocks that have the same key as this one."""
    covered = common(k, slot, kind)
    if index >= covered:
        return covered, NO_END
    tokens = k.run[0].hash_tokens
    span = ((index + 1) * kind.size - 1) // tokens
    return span * tokens // kind.size, min((span + 1) * tokens // kind.size, covered)


# -- links to pieces --------------------------------------------------------------------------------------------------------


def more_links(k: Tables) -> None:
    """Makes room where a table is an array (vllm_compiled)."""


def add_link(k: Tables, piece: int, rest: int) -> int:
    run = k.run[0]
    if run.spare_link:
        made = run.spare_link
        run.spare_link = k.links[made].rest
    else:
        run.made_links += 1
        made = run.made_links
        if made == run.room_links:
            more_links(k)
    k.links[made].piece, k.links[made].rest = piece, rest
    return made


def drop_link(k: Tables, link: int) -> int:
    """The one behind it."""
    run = k.run[0]
    rest = k.links[link].rest
    k.links[link].rest = run.spare_link
    run.spare_link = link
    return rest


def part_of(k: Tables, group: int, piece: int, at: int) -> int:
    """Splits a piece; the requests that hold it have links to both parts then. The part below."""
    low = part(k, piece, at)
    one = k.requests[0].younger if k.pieces[piece].ref else 0
    while one:
        link_part(k, one, group, piece, low)
        one = k.requests[one].younger
    return low


def link_part(k: Tables, slot: int, group: int, piece: int, low: int) -> None:
    at = k.heads[slot * k.run[0].groups + group]
    while at:
        rest = k.links[at].rest
        if k.links[at].piece == piece:
            made = add_link(k, low, rest)
            k.links[at].rest = made
            return
        at = rest


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
    cell.held = hit // kind.size
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
    run, asked = k.run[0], k.requests[slot]
    if not run.caching:
        run.plain += high - low
        run.free += high - low
        return
    head = slot * run.groups + group
    above, at, top = 0, k.heads[head], high
    while at:
        piece = k.links[at].piece
        one = k.pieces[piece]
        if one.first >= high:
            above, at = at, k.links[at].rest
            continue
        if one.first + one.count <= low:
            break
        if one.first + one.count > high:
            if one.ref == 1:
                link_part(k, slot, group, piece, part(k, piece, high))
            else:
                part_of(k, group, piece, high)
            continue
        give_between(k, slot, group, one.first + one.count, top, cached)
        top = one.first
        at = drop_link(k, at)
        if above:
            k.links[above].rest = at
        else:
            k.heads[head] = at
        one.ref -= 1
        if one.ref:
            run.extra -= one.count
            continue
        run.free += one.count
        if one.key < 0 and asked.ended:
            append_nameless(k, one.count)
            forget(k, piece)
            throw_away(k, piece)
        else:
            append(k, piece)
    give_between(k, slot, group, low, top, cached)


def give_between(k: Tables, slot: int, group: int, low: int, high: int, cached: int) -> None:
    """Blocks that are no piece. Those with a hash are ones that are like no other's, and where sparse retention keeps them
    (reachable_block_mask) the ones that a hit at the prompt's end, or at its junction, needs."""
    if high <= low:
        return
    run, one, kind = k.run[0], k.requests[slot], k.kinds[k.kind_of[group]]
    run.free += high - low
    own = max(low, common(k, slot, kind))
    full = cached // run.align * run.align // kind.size
    top = high
    for end in (max(one.prompt - 1, one.junction), min(one.prompt - 1, one.junction)):
        bottom, last = own, full
        if kind.form == WINDOW or kind.form == ALIGNED:
            last = end // run.align * run.align // kind.size
            bottom = max(own, last - kind.tail)
        last = min(last, full, top)
        if last <= bottom:
            continue
        run.plain += top - last
        top = bottom
        if one.ended:
            append_nameless(k, last - bottom)
            continue
        piece = new_piece(k)
        new = k.pieces[piece]
        new.first, new.count, new.ref = bottom, last - bottom, 0
        note(k, piece, key_of(k, slot, group, bottom))
        append(k, piece)
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
    upto = min(cached, blocks_of(one.prompt, run.align) * run.align) // run.align * run.align
    if not one.hashes or upto <= one.told:
        return
    for group in range(run.groups):
        j = k.kind_of[group]
        kind, cell = k.kinds[j], cell_of(k, slot, j)
        full = min(upto // kind.size, common(k, slot, kind))
        low = max(one.told // kind.size, cell.gone)
        if full <= low:
            continue
        if kind.form == TOKENS or kind.form == CHUNK:
            publish_span(k, slot, group, low, full)
            continue
        # The lower end first, as the blocks of a table are looked through.
        for end in (min(one.prompt - 1, one.junction), max(one.prompt - 1, one.junction)):
            last = end // run.align * run.align // kind.size
            first, last = max(low, last - kind.tail), min(last, full)
            if first < last:
                low = last
                if kind.form != ALIGNED or has_state(k, slot, j, first):
                    publish_span(k, slot, group, first, last)
    one.told = upto


def publish_span(k: Tables, slot: int, group: int, low: int, high: int) -> None:
    run, kind = k.run[0], k.kinds[k.kind_of[group]]
    head = slot * run.groups + group
    while low < high:
        end = min(high, bounds(k, slot, kind, low)[1])
        piece = new_piece(k)
        new = k.pieces[piece]
        new.first, new.count, new.ref, new.sight = low, end - low, 1, 0
        note(k, piece, key_of(k, slot, group, low))
        k.heads[head] = add_link(k, piece, k.heads[head])
        low = end


def reach(k: Tables, slot: int, j: int, index: int) -> int:
    """The end of the blocks from `index` on that every group of a kind has in one piece; `index` where one has not got it
    (get_cached_block)."""
    end = NO_END
    for group in range(k.run[0].groups):
        if k.kind_of[group] == j:
            piece, last = find(k, key_of(k, slot, group, index), index)
            if piece == 0:
                return index
            end = min(end, last)
    return end


def down_to(k: Tables, slot: int, j: int, index: int) -> int:
    """The highest block up to `index` that every group of a kind may have: nothing between is found."""
    kind = k.kinds[j]
    low = bounds(k, slot, kind, index)[0]
    for group in range(k.run[0].groups):
        if k.kind_of[group] == j:
            index = last_found(k, key_of(k, slot, group, index), index)
            if index == NEVER:
                return low - 1
    return index


def first_of(k: Tables, slot: int, j: int, index: int) -> int:
    """The lowest block from which to `index` every group of a kind has all in one piece."""
    low = 0
    for group in range(k.run[0].groups):
        if k.kind_of[group] == j:
            piece, _ = find(k, key_of(k, slot, group, index), index)
            low = max(low, k.pieces[piece].first)
    return low


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
    # From the right: blocks found one beside the other down from `top`, where a hit may end
    index, top = blocks - 1, NEVER
    while index >= 0:
        place = down_to(k, slot, j, index)
        if place < index:
            index, top = place, NEVER
            continue
        low = first_of(k, slot, j, index)
        if top == NEVER:
            top = (index + 1) * size // align * align // size - 1
        if top < low:
            top = NEVER
        elif top - low + 1 >= kind.tail:
            return (top + 1) * size
        index = low - 1
    return (top + 1) * size // align * align


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
    """How many of the blocks that a request found are free. NEVER where a state has only just been cached: it is there in the next step."""
    run, free = k.run[0], 0
    for group in range(run.groups):
        j = k.kind_of[group]
        index, high = found_span(k, slot, j)
        if index < high and k.kinds[j].form == ALIGNED and cached_now(k, key_of(k, slot, group, index), index):
            return NEVER
        while index < high:
            piece, end = find(k, key_of(k, slot, group, index), index)
            if k.pieces[piece].ref == 0:
                free += min(end, high) - index
            index = end
    return free


def hold(k: Tables, slot: int) -> None:
    """Takes what was found (add_local_computed_blocks): of a piece as much as it goes, the rest stays where it is."""
    run = k.run[0]
    for group in range(run.groups):
        head = slot * run.groups + group
        index, high = found_span(k, slot, k.kind_of[group])
        while index < high:
            piece, end = find(k, key_of(k, slot, group, index), index)
            one, end = k.pieces[piece], min(end, high)
            if end < one.first + one.count:
                piece = part_of(k, group, piece, end)
            if k.pieces[piece].first < index:
                part_of(k, group, piece, index)
            one = k.pieces[piece]
            if one.ref == 0:
                unlink(k, piece)
                run.free -= one.count
            else:
                run.extra += one.count
            one.ref += 1
            k.heads[head] = add_link(k, piece, k.heads[head])
            index += one.count
