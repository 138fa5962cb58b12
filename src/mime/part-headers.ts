/** The header of a part, as handlers read it. */
import { decodeText } from "../protocol/bytes.ts";
import { textOf } from "./header-text.ts";
import type { Field } from "./structure.ts";
import type { PartHeader, PartHeaders } from "./types.ts";

class PartField implements PartHeader {
  readonly name: string;
  readonly value: string;

  constructor({ name, value }: Field) {
    this.name = name;
    // Text that is not valid UTF-8 is decoded as in the headers of the message.
    this.value = decodeText(Buffer.from(value, "latin1")).replaceAll("\r\n", "\n");
  }

  get text(): string {
    return textOf(this.value);
  }
}

export class FieldList implements PartHeaders {
  readonly #fields: readonly PartField[];

  constructor(fields: readonly Field[]) {
    this.#fields = fields.map((field) => new PartField(field));
  }

  get length(): number {
    return this.#fields.length;
  }

  get(name: string): string | undefined {
    return this.#named(name)[0]?.value;
  }

  getAll(name: string): string[] {
    return this.#named(name).map(({ value }) => value);
  }

  text(name: string): string | undefined {
    return this.#named(name)[0]?.text;
  }

  [Symbol.iterator](): Iterator<PartHeader> {
    return this.#fields.values();
  }

  #named(name: string): PartField[] {
    const wanted = name.toLowerCase();
    return this.#fields.filter((field) => field.name.toLowerCase() === wanted);
  }
}
