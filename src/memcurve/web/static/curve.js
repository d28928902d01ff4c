// The library's terms, evaluated in whole numbers of any size. What divides counts a batch of 0 as one.

const OPERATIONS = {
  add: (a, b) => (t, n, e) => a(t, n, e) + b(t, n, e),
  mul: (a, b) => (t, n, e) => a(t, n, e) * b(t, n, e),
  min: (a, b) => (t, n, e) => { const x = a(t, n, e), y = b(t, n, e); return x < y ? x : y; },
  floor: (a, b) => (t, n, e) => a(t, n, e) / b(t, n || 1n, e),
  ceil: (a, b) => (t, n, e) => { const by = b(t, n || 1n, e); return (a(t, n, e) + by - 1n) / by; },
  mod: (a, b) => (t, n, e) => a(t, n, e) % b(t, n || 1n, e),
  past: (a, b) => (t, n, e) => { const x = a(t, n, e), y = b(t, n, e); return x > y ? x - y : 0n; },
  rows: (a, b) => { const of = growth(b(0n, 1n, 0n)); return (t, n, e) => rows(of, a(t, n, e)); },
};

const STEP = 256n, steps = (tokens) => ((tokens + STEP - 1n) / STEP) * STEP;
const growths = new Map();

// Where a buffer that is filled in pieces of one size grows, until that comes round, as buffers.py of the library.
export function growth(piece) {
  const key = String(piece), known = growths.get(key);
  if (known) return known;
  const found = { piece, offsets: [], before: [], base: [] }, seen = new Map();
  let offset = 0n, held = 0n;
  for (let state = "0 0"; !seen.has(state); state = `${offset % STEP} ${held - offset}`) {
    seen.set(state, offset);
    const base = offset % STEP ? offset : held;
    found.offsets.push(offset); found.before.push(held); found.base.push(base);
    held = base + steps(piece);
    offset += ((held - offset) / piece) * piece;
  }
  found.start = seen.get(`${offset % STEP} ${held - offset}`);
  found.period = offset - found.start;
  growths.set(key, found);
  return found;
}

// Rows once so many tokens came: all but one in pieces, then one.
export function rows(of, tokens) {
  let filled = tokens ? tokens - 1n : 0n;
  const skipped = filled > of.start ? ((filled - of.start) / of.period) * of.period : 0n;
  filled -= skipped;
  let place = 0, end = of.offsets.length;
  while (end - place > 1) { const middle = (place + end) >> 1; if (of.offsets[middle] <= filled) place = middle; else end = middle; }
  const left = filled - of.offsets[place], last = left < of.piece ? left : of.piece;
  let held = of.before[place];
  if (of.offsets[place] + last > held) held = of.base[place] + steps(last);
  held += skipped;
  return tokens > held ? held + STEP : held;
}

export class Refused extends Error {}

// A number of JSON as a BigInt. One that JSON.parse has rounded is an error, not a guess.
export function whole(value) {
  if (typeof value === "number" && !Number.isSafeInteger(value)) throw new RangeError(`${value}: not read exactly; expected a whole number below 2^53, or text`);
  return BigInt(value);
}

// An expression of slots (an integer, "context", "batch", "encoder", or [operation, a, b]) as a function of BigInts.
export function compile(slots) {
  if (slots === "context") return (t) => t;
  if (slots === "batch") return (t, n) => n;
  if (slots === "encoder") return (t, n, e) => e;
  if (Array.isArray(slots)) return OPERATIONS[slots[0]](compile(slots[1]), compile(slots[2]));
  const fixed = whole(slots);
  return () => fixed;
}

function grows(slots) {
  return slots === "context" || (Array.isArray(slots) && (grows(slots[1]) || grows(slots[2])));
}

// A sum of weight · slots, with equal expressions together: a function of context, batch and encoder.
export function sum(pairs) {
  const weights = new Map();
  for (const [weight, slots] of pairs) {
    const key = JSON.stringify(slots, (_, value) => (typeof value === "bigint" ? `${value}` : value));
    const known = weights.get(key);
    if (known) known[0] += weight;
    else weights.set(key, [weight, compile(slots)]);
  }
  const parts = [...weights.values()];
  return (t, n, e) => {
    let total = 0n;
    for (const [weight, of] of parts) total += weight * of(t, n, e);
    return total;
  };
}

// What MemoryCurve.to_dict writes. filled: what tokens and states really fill of what is reserved, null where all of it; [kind, bytes, slots].
export class Curve {
  constructor(data, filled = null) {
    this.data = data;
    this.terms = data.terms.map((term) => ({
      kind: term.kind,
      layers: whole(term.layers),
      tensors: term.tensors,
      size: term.tensors.reduce((total, [, size]) => total + whole(size), 0n),
      padding: term.tensors.reduce((total, [name, size]) => total + (name === "padding" || name === "unused" ? whole(size) : 0n), 0n),
      slots: compile(term.slots),
      grows: grows(term.slots),
      shared: term.shared,
    }));
    this.limits = data.limits || null;
    const end = (last) => (last === null ? null : whole(last));
    this.refusals = (data.refusals || []).map((one) => [one.why, [whole(one.context), end(one.last_context)], [whole(one.batch), end(one.last_batch)]]);
    const weight = (shared) => data.terms.flatMap((term, i) => (term.shared === shared ? [[this.terms[i].layers * this.terms[i].size, term.slots]] : []));
    const of = (wanted) => sum(filled.flatMap(([kind, size, slots]) => (kind === wanted ? [[whole(size), slots]] : [])));
    this.filled = filled && { kv: of("kv"), state: of("state") };
    this.each = sum(weight(false));
    this.once = sum(weight(true));
  }

  get grows() {
    return this.terms.some((term) => term.grows);
  }

  // The context and the batch that the engine goes by; Refused where it would.
  admit(context, batch) {
    const within = (number, [first, last]) => number >= first && (last === null || number <= last);
    for (const [why, contexts, batches] of this.refusals) if (within(context, contexts) && within(batch, batches)) throw new Refused(why);
    const limits = this.limits;
    if (!limits) return [context, batch];
    if (batch > whole(limits.most_batch)) throw new Refused(limits.too_many);
    if (context === 0n) {
      if (typeof limits.zero_context === "string") throw new Refused(limits.zero_context);
      context = whole(limits.zero_context);
    }
    const step = whole(limits.step_tokens);
    const most = limits.step_in_context && context && context < step ? context : step;
    if ((batch || 1n) > most) throw new Refused(limits.too_short);
    return [context, batch || 1n];
  }

  // Bytes of `batch` sequences of `context` tokens, all BigInt.
  bytes(context, batch = 1n, encoder = 0n) {
    const [t, n] = this.admit(context, batch);
    return this.each(t, n, encoder) * n + this.once(t, n, encoder);
  }

  // Bytes by what they are for: keys and values, states, and padding, where a tensor is named so or more is reserved than is filled.
  parts(context, batch = 1n, encoder = 0n) {
    const [t, n] = this.admit(context, batch);
    if (this.filled) {
      const kv = this.filled.kv(t, 1n, encoder) * n, state = this.filled.state(t, 1n, encoder) * n;
      return { kv, state, padding: this.bytes(context, batch, encoder) - kv - state };
    }
    const found = { kv: 0n, state: 0n, padding: 0n };
    for (const term of this.terms) {
      const times = term.layers * term.slots(t, n, encoder) * (term.shared ? 1n : n);
      found[term.grows ? "kv" : "state"] += times * (term.size - term.padding);
      found.padding += times * term.padding;
    }
    return found;
  }
}
