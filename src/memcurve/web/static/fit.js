// Does it fit: the rooms of an answer, one GPU of each pipeline stage, at any context and batch. As plan.py of the library.

import { Curve, Refused, compile, whole } from "./curve.js";

const FAR = 2n ** 40n;

// One GPU: weights + state + set aside + free = total.
export class Room {
  constructor(data) {
    this.curve = new Curve(data.curve, data.filled);
    this.weights = whole(data.weights);
    this.fixed = whole(data.reserve);
    this.buffers = (data.buffers || []).map(compile);
    this.total = whole(data.total);
    this.least = whole(data.room);
    this.allowances = data.allowances || [];
    this.shared = data.shared_context;
    [this.most, this.limit] = [whole(data.most[0]), data.most[1]];
    this.shares = Array.isArray(data.shares) ? data.shares.map(([name, units, each]) => [name, whole(units), compile(each)]) : data.shares;
  }

  // What the engine sets aside: with llama.cpp a buffer that follows from context and batch.
  reserve(context, batch) {
    return this.buffers.reduce((most, size) => { const one = size(context, batch, 0n); return one > most ? one : most; }, 0n) + this.fixed;
  }

  room(context, batch) {
    return this.buffers.length ? this.total - this.weights - this.reserve(context, batch) : this.least;
  }

  state(context, batch) {
    return this.curve.bytes(this.shared ? context * batch : context, batch);
  }

  parts(context, batch) { return this.curve.parts(this.shared ? context * batch : context, batch); }

  // How many requests of so many tokens there is room for, and what keeps one more out.
  requests(context) {
    if (this.room(context, 1n) <= 0n) return [0n, "weights"];
    if (typeof this.shares === "string") return [0n, this.shares];
    if (this.shares) {
      let found = [2n ** 63n - 1n, "nothing"];
      for (const [name, units, each] of this.shares) {
        const one = each(context, 1n, 0n);
        if (one && units / one < found[0]) found = [units / one, name];
      }
      return found;
    }
    const holds = (batch) => {
      try { return this.state(context, batch) <= this.room(context, batch); } catch (error) { if (error instanceof Refused) return false; throw error; }
    };
    let low = 0n, high = this.most + 1n;
    while (high - low > 1n) {
      const middle = (low + high) / 2n;
      if (holds(middle)) low = middle; else high = middle;
    }
    return [low, low === this.most ? this.limit : this.curve.grows ? "tokens" : "state slots"];
  }
}

// All stages of an answer. limit: [the setting's name, the longest context that it allows], or null.
export class Rooms {
  constructor(data) {
    this.rooms = data.rooms.map((room) => new Room(room));
    this.limit = data.limit && [data.limit[0], whole(data.limit[1])];
  }

  get curve() { return this.rooms[0].curve; }

  // Of the stage whose state is the largest.
  state(context, batch) {
    return this.rooms.map((room) => room.state(context, batch)).reduce((a, b) => (a > b ? a : b));
  }

  requests(context) {
    if (this.limit && context > this.limit[1]) return [0n, this.limit[0]];
    return this.rooms.map((room) => room.requests(context)).reduce((a, b) => (b[0] < a[0] ? b : a));
  }

  // The longest context that so many requests can each have; null without an end, 0 if none.
  longest(batch) {
    const limit = this.limit ? this.limit[1] : null;
    const holds = (context) => this.requests(context)[0] >= batch;
    if (!holds(1n)) return 0n;
    let low = 1n, high = 2n;
    while (high <= FAR && (limit === null || low < limit) && holds(high)) { low = high; high *= 2n; }
    if (high > FAR && limit === null) return null;
    while (high - low > 1n) {
      const middle = (low + high) / 2n;
      if (holds(middle)) low = middle; else high = middle;
    }
    return limit !== null && low > limit ? limit : low;
  }
}
