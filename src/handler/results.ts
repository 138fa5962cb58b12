/** `message.results`: JSON values that the filters of a chain leave for later ones, and for the record of the message. */
import { UsageError } from "../usage-error.ts";
import type { JsonValue } from "./types.ts";

/** Characters of a name. */
const MAX_NAME = 64;
/** Bytes of a value as JSON. */
const MAX_VALUE_BYTES = 16 * 1024;
/** Values of a message. */
const MAX_VALUES = 50;
/** Values within values. */
const MAX_DEPTH = 20;

/** The filter that leaves a value. */
interface Giver {
  readonly index: number;
  readonly isObserved: boolean;
}

interface Entry {
  readonly giver: Giver;
  readonly name: string;
  readonly value: JsonValue;
}

/** The results of one message. Each filter has its own value of a name, so that the failure of one uncovers the value before. */
export class MessageResults {
  /** In the order in which they were set. */
  #entries: readonly Entry[] = [];

  /** @throws UsageError PMILTER_ERR_ARGUMENT */
  set(name: string, value: unknown, giver: Giver): void {
    checkName(name);
    const kept = jsonCopy(value, name);
    const others = this.#entries.filter((entry) => entry.name !== name || entry.giver.index !== giver.index);
    if (others.length >= MAX_VALUES)
      wrong(`a message has at most ${MAX_VALUES} results; there is no room for "${name}"`);
    this.#entries = [...others, { giver, name, value: kept }];
  }

  /** The value that was set last. What a filter in observe mode sets is seen by itself alone, as its changes are. */
  get(name: string, reader: Giver): JsonValue | undefined {
    return this.#entries.findLast(
      (entry) => entry.name === name && (!entry.giver.isObserved || entry.giver.index === reader.index),
    )?.value;
  }

  /** All values by name, without those of filters in observe mode. */
  all(): Record<string, JsonValue> {
    const counted = this.#entries.filter(({ giver }) => !giver.isObserved);
    return Object.fromEntries(counted.map(({ name, value }) => [name, value]));
  }

  /** The filter failed: what it has set does not count. */
  drop({ index }: Giver): void {
    this.#entries = this.#entries.filter(({ giver }) => giver.index !== index);
  }
}

function checkName(name: unknown): void {
  if (typeof name === "string" && name.length <= MAX_NAME && /^[\w.-]+$/.test(name)) return;
  wrong(
    `the name of a result has 1 to ${MAX_NAME} letters, digits or any of . _ -, got ${typeof name === "string" ? JSON.stringify(name.slice(0, 80)) : typeof name}`,
  );
}

/** A copy that no one can change: filters share it. */
function jsonCopy(value: unknown, name: string): JsonValue {
  const tooLarge = (): never => wrong(`the result "${name}" has more than ${MAX_VALUE_BYTES} bytes as JSON`);
  let room = MAX_VALUE_BYTES;
  // Counted while it is copied, and less than it takes: what is far too large must not be copied whole.
  const take = (characters: number): void => {
    room -= characters;
    if (room < 0) tooLarge();
  };
  const checked = checkedCopy(value, name, 0, take);
  if (Buffer.byteLength(JSON.stringify(checked)) > MAX_VALUE_BYTES) tooLarge();
  return checked;
}

/** @param take counts the characters that a part has at least, and throws if that is too much */
function checkedCopy(value: unknown, path: string, depth: number, take: (characters: number) => void): JsonValue {
  if (depth > MAX_DEPTH) wrong(`${path}: a result has at most ${MAX_DEPTH} values within one another`);
  switch (typeof value) {
    case "string":
      take(value.length);
      return value;
    case "boolean":
      return value;
    case "number":
      return Number.isFinite(value) ? value : wrong(`${path} is ${value}, which is no JSON value`);
    case "object": {
      if (value === null) return null;
      if (Array.isArray(value)) {
        const items: JsonValue[] = [];
        for (let index = 0; index < value.length; index++) {
          take(1);
          items.push(checkedCopy(value[index], `${path}[${index}]`, depth + 1, take));
        }
        return Object.freeze(items);
      }
      const prototype: unknown = Object.getPrototypeOf(value);
      if (prototype !== Object.prototype && prototype !== null) {
        wrong(
          `${path} is an object of a class, expected a JSON value: text, number, true, false, null, list or object`,
        );
      }
      // Without a prototype, so that no name is special.
      const copy = Object.create(null) as Record<string, JsonValue>;
      for (const [key, member] of Object.entries(value)) {
        // As in JSON, a member that is undefined is not there.
        if (member === undefined) continue;
        take(key.length + 1);
        copy[key] = checkedCopy(member, `${path}.${key}`, depth + 1, take);
      }
      return Object.freeze(copy);
    }
    default:
      return wrong(
        `${path} is ${typeof value}, expected a JSON value: text, number, true, false, null, list or object`,
      );
  }
}

function wrong(message: string): never {
  throw new UsageError("PMILTER_ERR_ARGUMENT", message.slice(0, 500));
}
