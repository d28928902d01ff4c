// Reads {curves, rooms, cases} as JSON and prints what the page computes for each case. Run by test_page.py in Node.
import { readFileSync } from "node:fs";
import { Curve, Refused } from "../src/memcurve/web/static/curve.js";
import { group, parseBytes, parseCount, showBytes, showTokens } from "../src/memcurve/web/static/format.js";
import { crossings, pairsOf } from "../src/memcurve/web/static/lines.js";
import { Rooms } from "../src/memcurve/web/static/fit.js";
import { unpack } from "../src/memcurve/web/static/source.js";

const data = JSON.parse(readFileSync(0, "utf8"));
const curves = data.curves.map((curve) => new Curve(curve)), rooms = data.rooms.map((room) => new Rooms(room));
const answer = (act) => { try { return act(); } catch (error) { if (error instanceof Refused) return error.message; throw error; } };
const text = (value) => (value === null ? null : typeof value === "bigint" ? String(value) : value);
console.log(JSON.stringify({
  bytes: data.bytes.map(([curve, context, batch]) => answer(() => String(curves[curve].bytes(BigInt(context), BigInt(batch))))),
  parts: data.bytes.map(([curve, context, batch]) => answer(() => { const { kv, state, padding } = curves[curve].parts(BigInt(context), BigInt(batch)); return String(kv + state + padding); })),
  crossings: (data.pairs || []).map(([a, b, batch, first, last]) => {
    const [left, right] = [data.curves[a], data.curves[b]].map((curve) => pairsOf(curve, BigInt(batch), Boolean(curve.limits)));
    return crossings(left, right, BigInt(batch), BigInt(first), BigInt(last)).map(([context, cheaper]) => [Number(context), cheaper]);
  }),
  words: (data.numbers || []).map((number) => [group(number), showBytes(number), showTokens(number)]),
  counts: (data.counts || []).map(parseCount),
  sizes: (data.sizes || []).map(parseBytes),
  packed: (data.packed || []).map(unpack),
  fits: data.fits.map(([room, context, batch]) => {
    const [most, why] = rooms[room].requests(BigInt(context));
    return [String(most), why, text(rooms[room].longest(BigInt(batch)))];
  }),
  filled: data.fits.map(([room, context]) => { const { kv, state, padding } = rooms[room].rooms[0].parts(BigInt(context), 1n); return [String(kv + state), String(padding)]; }),
}));
