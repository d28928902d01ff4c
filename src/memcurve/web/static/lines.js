// Where two curves cross, exactly, as lines.py of the library: over a range of contexts a sum of terms lies between two
// parallel lines; where they tell its sign no context is looked at, else the range is halved. Staircases are never sampled.

import { compile, growth, rows, whole } from "./curve.js";

// Steps for all that is asked at once: some tenths of a second.
export class Budget { constructor(steps = 20000) { this.steps = steps; } }
export class TooMany extends Error {}

const floor = (a, b) => (a % b !== 0n && (a < 0n) !== (b < 0n) ? a / b - 1n : a / b);
const ceil = (a, b) => -floor(-a, b);
const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const lcm = (a, b) => (a / gcd(a, b)) * b;
const min = (...values) => values.reduce((a, b) => (a < b ? a : b));
const max = (...values) => values.reduce((a, b) => (a > b ? a : b));
const uses = (slots) => slots === "context" || (Array.isArray(slots) && (uses(slots[1]) || uses(slots[2])));

function periodOf(slots, batch) {
  if (!Array.isArray(slots) || !uses(slots)) return 1n;
  const period = lcm(periodOf(slots[1], batch), periodOf(slots[2], batch));
  if (slots[0] === "rows") return lcm(period, growth(whole(slots[2])).period);
  return ["floor", "ceil", "mod"].includes(slots[0]) ? period * compile(slots[2])(0n, batch || 1n, 0n) : period;
}

// (first, last) → [slope, low, high]: scale · value is from slope·T + low to slope·T + high between them.
function lineOf(slots, scale, batch) {
  if (!uses(slots)) {
    const size = scale * compile(slots)(0n, batch, 0n);
    return () => [0n, size, size];
  }
  if (slots === "context") return () => [scale, 0n, 0n];
  const [op, left, right] = slots, a = lineOf(left, scale, batch);
  if (op === "add" || op === "mul" || op === "min") {
    const b = lineOf(right, scale, batch);
    const both = { add: (x, y) => x.map((one, i) => one + y[i]), mul: product, min: least }[op];
    return (first, last) => both(a(first, last), b(first, last), first, last, scale);
  }
  const by = compile(right)(0n, batch || 1n, 0n), up = op === "ceil" ? scale * (by - 1n) : 0n;
  if (op === "past") return (first, last) => past(a(first, last), by * scale, first, last);
  if (op === "rows") return (first, last) => held(a(first, last), by, first, last, scale);
  if (op !== "mod") return (first, last) => { const [slope, low, high] = a(first, last); return quotient([slope, low + up, high + up], by, first, last, scale); };
  return (first, last) => {
    const [slope, low, high] = a(first, last), [steep, under, above] = quotient([slope, low, high], by, first, last, scale);
    return under === above ? [slope - by * steep, low - by * under, high - by * under] : [0n, 0n, scale * (by - 1n)];
  };
}

function quotient([slope, low, high], by, first, last, scale) {
  const under = ceil(slope * first + low, scale), above = floor(slope * last + high, scale);
  if (floor(under, by) === floor(above, by)) { const size = floor(under, by) * scale; return [0n, size, size]; }
  if (low === high && slope % (scale * by) === 0n) { const each = floor(floor(low, scale), by) * scale; return [floor(slope, by), each, each]; }
  return [floor(slope, by), floor(low - scale * (by - 1n), by), ceil(high, by)];
}

function past([slope, low, high], by, first, last) {
  if (slope * first + low >= by) return [slope, low - by, high - by];
  if (slope * last + high <= by) return [0n, 0n, 0n];
  return [slope, low - by, max(high - by, -slope * first)];
}

// A buffer has no more rows beyond its tokens than a piece that is not full, and two steps.
function held([slope, low, high], piece, first, last, scale) {
  const tokens = ceil(slope * first + low, scale);
  if (tokens === floor(slope * last + high, scale)) { const size = scale * rows(growth(piece), tokens); return [0n, size, size]; }
  return [slope, low, high + scale * (piece + 512n)];
}

function product(a, b, first, last, scale) {
  for (const [one, other] of [[a, b], [b, a]]) {
    if (one[0] === 0n && one[1] === one[2]) { const times = floor(one[1], scale); return other.map((value) => value * times); }
  }
  let under = 1n, above = 1n;
  for (const [slope, low, high] of [a, b]) {
    under *= max(0n, ceil(slope * first + low, scale));
    above *= floor(slope * last + high, scale);
  }
  return [0n, under * scale, above * scale];
}

function least(a, b, first, last) {
  for (const [one, other] of [[a, b], [b, a]]) {
    if (one[0] * first + one[2] <= other[0] * first + other[1] && one[0] * last + one[2] <= other[0] * last + other[1]) return one;
  }
  const [flat, steep] = a[0] < b[0] || (a[0] === b[0] && a[1] <= b[1]) ? [a, b] : [b, a];
  return [flat[0], min(flat[1], (steep[0] - flat[0]) * first + steep[1]), flat[2]];
}

// The first context of each new sign of a sum of weight · slots from first to last, and the sign at the start; zero is none.
export function signChanges(pairs, batch, first, last, budget) {
  const period = pairs.reduce((all, [, slots]) => lcm(all, periodOf(slots, batch)), 1n);
  const parts = pairs.filter(([weight]) => weight).map(([weight, slots]) => [weight, lineOf(slots, period, batch)]);
  const over = (from, to) => {
    let slope = 0n, low = 0n, high = 0n;
    for (const [weight, line] of parts) {
      const [steep, under, above] = line(from, to);
      slope += weight * steep;
      low += weight * (weight > 0n ? under : above);
      high += weight * (weight > 0n ? above : under);
    }
    return [slope, low, high];
  };
  const found = [], waiting = [[first, last]];
  let start = 0, sign = 0;
  const see = (context, value) => {
    const now = value > 0n ? 1 : value < 0n ? -1 : 0;
    if (!now || now === sign) return;
    if (sign) found.push(context);
    start = start || now;
    sign = now;
  };
  while (waiting.length) {
    const [from, to] = waiting.pop(), [slope, under, above] = over(from, to);
    if ((budget.steps -= 1) < 0) throw new TooMany("staircases that come close too often to look at here");
    const lowest = min(slope * from, slope * to) + under, highest = max(slope * from, slope * to) + above;
    if ((lowest >= 0n && sign > 0) || (highest <= 0n && sign < 0) || (lowest === 0n && highest === 0n)) continue;
    if (lowest > 0n || highest < 0n) see(from, lowest > 0n ? lowest : highest);
    else if (under === above) {
      see(from, slope * from + under);
      const turn = (slope > 0n ? floor(-under, slope) : floor(under, -slope)) + 1n;
      if (from < turn && turn <= to) see(turn, slope);
    } else {
      const middle = (from + to) / 2n;
      waiting.push([middle + 1n, to], [from, middle]);
    }
  }
  return [found, start];
}

function put(slots, value) {
  return Array.isArray(slots) ? [slots[0], put(slots[1], value), put(slots[2], value)] : slots === "context" ? value : slots;
}

// A curve as pairs of weight and slots at a batch; shared: its context is one that all sequences share out.
export function pairsOf(data, batch, shared = false) {
  return data.terms.map((term) => {
    const size = term.tensors.reduce((total, [, one]) => total + whole(one), 0n) * whole(term.layers);
    return [size * (term.shared ? 1n : batch), shared ? put(term.slots, ["mul", "context", batch]) : term.slots];
  });
}

// Crossings of two curves, as pairs of weight and slots, up to a context: [context, whether the first is the cheaper from there on].
export function crossings(a, b, batch, first, last, budget = new Budget()) {
  const gap = new Map();
  for (const [weight, slots] of [...a, ...b.map(([size, of]) => [-size, of])]) {
    const key = JSON.stringify(slots, (_, value) => (typeof value === "bigint" ? `${value}` : value)), known = gap.get(key);
    gap.set(key, [weight + (known ? known[0] : 0n), slots]);
  }
  const [found, start] = signChanges([...gap.values()], batch, first, last, budget);
  return found.map((context, place) => [context, start > 0 === (place % 2 === 0)]);
}
