/** JSON values that handlers give. */
import { UsageError } from "./usage-error.ts";

/**
 * A value that JSON has; a member that is undefined is left out.
 * @example const score: JsonValue = { total: 3, of: ["helo", "client"] };
 */
export type JsonValue =
  string | number | boolean | null | readonly JsonValue[] | { readonly [name: string]: JsonValue | undefined };

/** Values within values. */
const MAX_DEPTH = 20;

/**
 * A copy that no one can change.
 * @param path names it, and its members by their paths, in messages; `what` is its kind
 * @throws UsageError PMILTER_ERR_ARGUMENT for what is not JSON, or is too large
 */
export function jsonCopy(value: unknown, path: string, what: string, maxBytes: number): JsonValue {
  const tooLarge = (): never => wrong(`${what} has more than ${maxBytes} bytes as JSON`);
  let room = maxBytes;
  // Counted while it is copied, and less than it takes: what is far too large must not be copied whole.
  const take = (characters: number): void => {
    room -= characters;
    if (room < 0) tooLarge();
  };
  const checked = checkedCopy(value, path, 0, take);
  if (Buffer.byteLength(JSON.stringify(checked)) > maxBytes) tooLarge();
  return checked;
}

/** @param take counts the characters that a part has at least, and throws if that is too much */
function checkedCopy(value: unknown, path: string, depth: number, take: (characters: number) => void): JsonValue {
  if (depth > MAX_DEPTH) wrong(`${path}: a value has at most ${MAX_DEPTH} values within one another`);
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
