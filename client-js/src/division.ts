/** One update as several smaller ones, in an order in which each can be taken at once. */

import * as encoding from "lib0/encoding";
import * as Y from "yjs";

/** How many structs a server takes in one update. */
const MAX_STRUCTS = 300_000;

/** What there is at most around the structs of an update, those of one client, and its deletions; a hole; a deleted range. */
const UPDATE_BYTES = 12;
const CLIENT_BYTES = 24;
const SKIP_BYTES = 10;
const RANGE_BYTES = 16;

type Struct = ReturnType<typeof Y.decodeUpdate>["structs"][number];
type DeleteSet = ReturnType<typeof Y.decodeUpdate>["ds"];

/** One value, which cannot be cut, is longer than a part may be. */
export class Indivisible extends Error {
  override readonly name = "Indivisible";

  constructor(maxBytes: number) {
    super(
      `one value takes more than the ${maxBytes} bytes that the server takes at once: keep it elsewhere, and what leads to it here`,
    );
  }
}

/**
 * The update in parts of at most so many bytes; itself if it is one. Whoever can take the whole can take each part once it
 * has those before. Throws `Indivisible`.
 */
export function divide(update: Uint8Array, maxBytes: number): Uint8Array[] {
  if (update.length <= maxBytes) return [update];
  const { structs, ds } = Y.decodeUpdate(update);
  return [...divided(structs, maxBytes), ...deletions(ds, maxBytes)];
}

/** Structs of one client in a row, as they are written. */
interface Section {
  readonly clock: number;
  end: number;
  readonly structs: Uint8Array[];
}

function* divided(structs: readonly Struct[], maxBytes: number): Iterable<Uint8Array> {
  let part = new Map<number, Section>();
  let size = UPDATE_BYTES;
  let count = 0;
  for (const struct of inOrder(structs)) {
    for (const { id, length, bytes } of pieces(struct, maxBytes)) {
      const { client, clock } = id;
      const more = bytes.length + Math.max(CLIENT_BYTES, SKIP_BYTES);
      if (count > 0 && (size + more > maxBytes || count === MAX_STRUCTS)) {
        yield encode(part);
        part = new Map();
        size = UPDATE_BYTES;
        count = 0;
      }
      let section = part.get(client);
      if (section === undefined) {
        section = { clock, end: clock, structs: [] };
        part.set(client, section);
        size += CLIENT_BYTES;
      }
      // Of what an update leaves out, for its receiver has it, the format wants to be told how much it is.
      if (clock > section.end) {
        section.structs.push(written(new Y.Skip(Y.createID(client, section.end), clock - section.end)));
        size += SKIP_BYTES;
        count += 1;
      }
      section.structs.push(bytes);
      section.end = clock + length;
      size += bytes.length;
      count += 1;
    }
  }
  if (count > 0) yield encode(part);
}

/** All structs, none before one that it refers to: goes on with one client until a struct needs another's. */
function* inOrder(structs: readonly Struct[]): Iterable<Y.Item | Y.GC> {
  const queues = new Map<number, (Y.Item | Y.GC)[]>();
  for (const struct of structs) {
    if (struct instanceof Y.Skip) continue;
    const queue = queues.get(struct.id.client);
    if (queue === undefined) queues.set(struct.id.client, [struct]);
    else queue.push(struct);
  }
  for (const queue of queues.values()) queue.reverse();
  for (const first of queues.keys()) {
    /** Clients that must come first, each up to a clock. */
    const way = [{ client: first, clock: Number.POSITIVE_INFINITY }];
    for (let wanted = way.at(-1); wanted !== undefined; wanted = way.at(-1)) {
      const queue = queues.get(wanted.client) ?? [];
      const next = queue.at(-1);
      if (next === undefined || next.id.clock > wanted.clock) {
        way.pop();
        continue;
      }
      const missing = references(next).find(({ client, clock }) => {
        const begins = queues.get(client)?.at(-1)?.id.clock;
        return begins !== undefined && begins <= clock && !way.some((each) => each.client === client);
      });
      if (missing !== undefined) {
        way.push(missing);
        continue;
      }
      queue.pop();
      yield next;
    }
  }
}

function references(struct: Y.Item | Y.GC): Y.ID[] {
  if (!(struct instanceof Y.Item)) return [];
  return [struct.origin, struct.rightOrigin, struct.parent].filter((each) => each instanceof Y.ID);
}

interface Piece {
  readonly id: Y.ID;
  readonly length: number;
  readonly bytes: Uint8Array;
}

/** One struct as several, if it is too long, as Yjs cuts what somebody has the first half of. */
function* pieces(struct: Y.Item | Y.GC, maxBytes: number): Iterable<Piece> {
  const { id, length } = struct;
  const bytes = written(struct);
  if (bytes.length <= maxBytes - UPDATE_BYTES - CLIENT_BYTES) {
    yield { id, length, bytes };
    return;
  }
  if (!(struct instanceof Y.Item)) throw new Indivisible(maxBytes);
  const { origin, rightOrigin, parent, parentSub } = struct;
  const content = struct.content.copy();
  const half = length >> 1;
  const at = content instanceof Y.ContentString && isInPair(content.str, half) ? half - 1 : half;
  if (at === 0) throw new Indivisible(maxBytes);
  const rest = content.splice(at);
  const next = Y.createID(id.client, id.clock + at);
  const before = Y.createID(id.client, next.clock - 1);
  yield* pieces(new Y.Item(id, null, origin, null, rightOrigin, parent, parentSub, content), maxBytes);
  yield* pieces(new Y.Item(next, null, before, null, rightOrigin, parent, parentSub, rest), maxBytes);
}

/** Whether a place is between the two units of one character. */
function isInPair(text: string, index: number): boolean {
  return index > 0 && (text.codePointAt(index - 1) ?? 0) > 0xffff;
}

function written(struct: Struct): Uint8Array {
  const encoder = new Y.UpdateEncoderV1();
  struct.write(encoder, 0);
  return encoding.toUint8Array(encoder.restEncoder);
}

function encode(part: ReadonlyMap<number, Section>): Uint8Array {
  return encoding.encode((encoder) => {
    encoding.writeVarUint(encoder, part.size);
    for (const [client, { clock, structs }] of part) {
      encoding.writeVarUint(encoder, structs.length);
      encoding.writeVarUint(encoder, client);
      encoding.writeVarUint(encoder, clock);
      for (const struct of structs) encoding.writeUint8Array(encoder, struct);
    }
    encoding.writeVarUint(encoder, 0);
  });
}

type Ranges = { readonly clock: number; readonly len: number }[];

/** Deleted ranges, as many in each part as there is room for. */
function* deletions(ds: DeleteSet, maxBytes: number): Iterable<Uint8Array> {
  const most = Math.max(1, Math.floor((maxBytes - UPDATE_BYTES) / (CLIENT_BYTES + RANGE_BYTES)));
  let part = new Map<number, Ranges>();
  let count = 0;
  for (const [client, ranges] of ds.clients) {
    for (const range of ranges) {
      if (count === most) {
        yield encodeDeletions(part);
        part = new Map();
        count = 0;
      }
      const mine = part.get(client);
      if (mine === undefined) part.set(client, [range]);
      else mine.push(range);
      count += 1;
    }
  }
  if (count > 0) yield encodeDeletions(part);
}

function encodeDeletions(part: ReadonlyMap<number, Ranges>): Uint8Array {
  return encoding.encode((encoder) => {
    encoding.writeVarUint(encoder, 0);
    encoding.writeVarUint(encoder, part.size);
    for (const [client, ranges] of part) {
      encoding.writeVarUint(encoder, client);
      encoding.writeVarUint(encoder, ranges.length);
      for (const { clock, len } of ranges) {
        encoding.writeVarUint(encoder, clock);
        encoding.writeVarUint(encoder, len);
      }
    }
  });
}
