/** `message.results`: JSON values that the filters of a chain leave for later ones, and for the record of the message. */
import { UsageError } from "../usage-error.ts";
import { jsonCopy, type JsonValue } from "../json.ts";

/** Characters of a name. */
const MAX_NAME = 64;
/** Bytes of a value as JSON. */
const MAX_VALUE_BYTES = 16 * 1024;
/** Values of a message. */
const MAX_VALUES = 50;

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
    const kept = jsonCopy(value, name, `the result "${name}"`, MAX_VALUE_BYTES);
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

function wrong(message: string): never {
  throw new UsageError("PMILTER_ERR_ARGUMENT", message.slice(0, 500));
}
