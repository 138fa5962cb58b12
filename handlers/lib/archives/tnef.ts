/** The files in a `winmail.dat` (TNEF, MS-OXTNEF), in which Outlook may send attachments. */
import { bufferOf, type Entry, type Tell } from "./archive.ts";
import { namesOf } from "./names.ts";

const SIGNATURE = Buffer.from("789f3e22", "hex");
const MESSAGE = 1;
const ATTACHMENT = 2;

/** Attributes of an attachment: the first one of each, its short name, its content, and its properties. */
const RENDERING = 0x00069002;
const TITLE = 0x00018010;
const DATA = 0x0006800f;
const PROPERTIES = 0x00069005;

/** Properties with a name: the long one, the short one, the one that is shown. Those of type 0x1f are UTF-16. */
const NAME_PROPERTIES = [0x3707, 0x3704, 0x3001];
/** An embedded message or object. */
const OBJECT_PROPERTY = 0x3701;
/** The kind of an object stands in front of it. */
const OBJECT_KIND_BYTES = 16;

export function isTnef(head: Uint8Array): boolean {
  return bufferOf(head).subarray(0, 4).equals(SIGNATURE);
}

export function* tnefEntries(file: Uint8Array, tell: Tell): Generator<Entry> {
  const bytes = bufferOf(file);
  let last: Attachment | null = null;
  for (let at = 6; at < bytes.length;) {
    const level = bytes[at];
    const isAttribute = (level === MESSAGE || level === ATTACHMENT) && at + 11 <= bytes.length;
    const id = isAttribute ? bytes.readUInt32LE(at + 1) : 0;
    // A checksum of two bytes follows.
    const end = isAttribute ? at + 9 + bytes.readUInt32LE(at + 5) : Infinity;
    if (end + 2 > bytes.length) {
      tell("unlisted", "winmail.dat archives are not looked into");
      break;
    }
    const data = bytes.subarray(at + 9, end);
    at = end + 2;
    if (level !== ATTACHMENT) continue;
    if (id === RENDERING && last !== null) {
      yield entryOf(last);
      last = null;
    }
    last ??= { names: new Set(), content: null };
    if (id === TITLE) last.names = last.names.union(namesOf([withoutNul(data)]));
    else if (id === DATA) last.content = data;
    else if (id === PROPERTIES) {
      for (const property of NAME_PROPERTIES) last.names = last.names.union(textsOf(data, property));
      last.content ??= objectIn(data);
    }
  }
  if (last !== null) yield entryOf(last);
}

interface Attachment {
  names: Set<string>;
  content: Buffer | null;
}

function entryOf({ content, names }: Attachment): Entry {
  return {
    names: [...names].filter((name) => name !== ""),
    isEncrypted: false,
    read: async (most) => content?.subarray(0, most) ?? null,
  };
}

/** The texts of a property. Their place is found by the tag: what else looks like it is one name more to check. */
function textsOf(properties: Buffer, property: number): Set<string> {
  const texts = namesOf(valuesOf(properties, 0x1e, property).map(withoutNul));
  for (const value of valuesOf(properties, 0x1f, property)) texts.add(value.toString("utf16le").replace(/\0+$/, ""));
  return texts;
}

function objectIn(properties: Buffer): Buffer | null {
  const [object] = valuesOf(properties, 0x0d, OBJECT_PROPERTY);
  if (object !== undefined) return object.subarray(OBJECT_KIND_BYTES);
  return valuesOf(properties, 0x102, OBJECT_PROPERTY)[0] ?? null;
}

/** The values of one property: each behind its tag, the number 1 and its length. */
function valuesOf(properties: Buffer, type: number, property: number): Buffer[] {
  const tag = Buffer.from([type & 255, type >> 8, property & 255, property >> 8, 1, 0, 0, 0]);
  const values: Buffer[] = [];
  for (let at = 0; (at = properties.indexOf(tag, at)) !== -1; at += tag.length) {
    const start = at + tag.length + 4;
    if (start > properties.length) break;
    const end = start + properties.readUInt32LE(start - 4);
    if (end <= properties.length) values.push(properties.subarray(start, end));
  }
  return values;
}

function withoutNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0);
  return end === -1 ? bytes : bytes.subarray(0, end);
}
