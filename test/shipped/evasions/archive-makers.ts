/** Archives by hand, with what is odd about them. */
import { crc32, deflateRawSync } from "node:zlib";
import { HARMLESS } from "./evasion.ts";

export interface ZipEntry {
  readonly name: string | Buffer;
  readonly content?: Uint8Array | string;
  /** In the local header, where that differs. */
  readonly localName?: string;
  readonly method?: number;
  /** In place of the compressed content. */
  readonly data?: Buffer;
  readonly flags?: number;
  readonly localFlags?: number;
  readonly localMethod?: number;
  readonly centralExtra?: Buffer;
  readonly localExtra?: Buffer;
  readonly comment?: string;
  readonly attributes?: number;
  readonly madeBy?: number;
  /** Sizes and checksum behind the content, not in the local header. */
  readonly hasDescriptor?: boolean;
  /** Only a local header. */
  readonly isUnlisted?: boolean;
  /** Only in the directory. */
  readonly hasNoLocal?: boolean;
  readonly statedSize?: number;
}

export interface ZipOptions {
  /** In front of the archive; its offsets do not count it. */
  readonly prefix?: Uint8Array | string;
  /** In front of the archive; its offsets count it. */
  readonly countedPrefix?: Uint8Array | string;
  /** Between the last entry and the directory. */
  readonly gap?: Uint8Array | string;
  /** Between the directory and the end record. */
  readonly beforeEnd?: Uint8Array | string;
  readonly suffix?: Uint8Array | string;
  readonly comment?: string;
  readonly statedCount?: number;
  readonly sizeOff?: number;
  readonly offsetOff?: number;
  readonly isZip64?: boolean;
  readonly hasNoEnd?: boolean;
  readonly hasNoDirectory?: boolean;
}

export function zip(entries: readonly ZipEntry[], options: ZipOptions = {}): Buffer {
  const { prefix = "", countedPrefix = "", gap = "", beforeEnd = "", suffix = "", comment = "" } = options;
  const locals: Buffer[] = [Buffer.from(countedPrefix)];
  const directory: Buffer[] = [];
  let offset = locals[0]!.length;
  for (const entry of entries) {
    const { content = HARMLESS, method = 8, flags = 0, hasDescriptor = false } = entry;
    const plain = Buffer.from(content);
    const data = entry.data ?? (method === 8 ? deflateRawSync(plain) : plain);
    const [central, local] = [Buffer.from(entry.name), Buffer.from(entry.localName ?? entry.name)];
    const size = entry.statedSize ?? plain.length;
    const shared = (bits: number, by: number, isEmpty: boolean): Buffer => {
      const fields = Buffer.alloc(22);
      fields[0] = 20;
      fields.writeUInt16LE(bits | (hasDescriptor ? 8 : 0), 2);
      fields.writeUInt16LE(by, 4);
      fields.writeUInt16LE(0x5c21, 8);
      if (isEmpty) return fields;
      fields.writeUInt32LE(crc32(plain), 10);
      fields.writeUInt32LE(data.length, 14);
      fields.writeUInt32LE(size, 18);
      return fields;
    };
    const lengths = (name: Buffer, extra: Buffer): Buffer => {
      const both = Buffer.alloc(4);
      both.writeUInt16LE(name.length, 0);
      both.writeUInt16LE(extra.length, 2);
      return both;
    };
    const localExtra = entry.localExtra ?? Buffer.alloc(0);
    const centralExtra = entry.centralExtra ?? Buffer.alloc(0);
    const note = Buffer.from(entry.comment ?? "");
    const tail = Buffer.alloc(14);
    tail.writeUInt16LE(note.length, 0);
    tail.writeUInt32LE(entry.attributes ?? 0, 6);
    tail.writeUInt32LE(offset, 10);
    if (entry.isUnlisted !== true) {
      directory.push(
        Buffer.from("PK\x01\x02", "latin1"),
        Buffer.of(20, entry.madeBy ?? 0),
        shared(flags, method, false),
        lengths(central, centralExtra),
        tail,
        central,
        centralExtra,
        note,
      );
    }
    if (entry.hasNoLocal === true) continue;
    const descriptor = Buffer.alloc(hasDescriptor ? 16 : 0);
    if (hasDescriptor) {
      descriptor.write("PK\x07\x08", "latin1");
      descriptor.writeUInt32LE(crc32(plain), 4);
      descriptor.writeUInt32LE(data.length, 8);
      descriptor.writeUInt32LE(size, 12);
    }
    const whole = Buffer.concat([
      Buffer.from("PK\x03\x04", "latin1"),
      shared(entry.localFlags ?? flags, entry.localMethod ?? method, hasDescriptor),
      lengths(local, localExtra),
      local,
      localExtra,
      data,
      descriptor,
    ]);
    locals.push(whole);
    offset += whole.length;
  }
  const central = options.hasNoDirectory === true ? Buffer.alloc(0) : Buffer.concat(directory);
  const start = offset + Buffer.from(gap).length;
  const count = options.statedCount ?? entries.filter(({ isUnlisted }) => isUnlisted !== true).length;
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(count, 8);
  end.writeUInt16LE(count, 10);
  end.writeUInt32LE(central.length + (options.sizeOff ?? 0), 12);
  end.writeUInt32LE(start + (options.offsetOff ?? 0), 16);
  end.writeUInt16LE(comment.length, 20);
  const ends: Buffer[] = [];
  if (options.isZip64 === true) {
    const record = Buffer.alloc(56);
    record.write("PK\x06\x06", "latin1");
    record.writeBigUInt64LE(44n, 4);
    record.writeUInt16LE(45, 12);
    record.writeUInt16LE(45, 14);
    for (const at of [24, 32]) record.writeBigUInt64LE(BigInt(count), at);
    record.writeBigUInt64LE(BigInt(central.length), 40);
    record.writeBigUInt64LE(BigInt(start), 48);
    const locator = Buffer.alloc(20);
    locator.write("PK\x06\x07", "latin1");
    locator.writeBigUInt64LE(BigInt(start + central.length + Buffer.from(beforeEnd).length), 8);
    locator.writeUInt32LE(1, 16);
    ends.push(record, locator);
    end.fill(0xff, 8, 20);
  }
  if (options.hasNoEnd !== true) ends.push(end, Buffer.from(comment, "latin1"));
  return Buffer.concat([
    Buffer.from(prefix),
    ...locals,
    Buffer.from(gap),
    central,
    Buffer.from(beforeEnd),
    ...ends,
    Buffer.from(suffix),
  ]);
}

/** Info-ZIP's field for a name in UTF-8; it counts if its checksum is that of the entry's own name. */
export function unicodePath(ownName: string, name: string): Buffer {
  const text = Buffer.from(name);
  const field = Buffer.alloc(9);
  field.writeUInt16LE(0x7075, 0);
  field.writeUInt16LE(text.length + 5, 2);
  field[4] = 1;
  field.writeUInt32LE(crc32(ownName), 5);
  return Buffer.concat([field, text]);
}

export interface TarEntry {
  readonly name: string;
  readonly content?: Uint8Array | string;
  /** One character, `"0"` for a file. */
  readonly kind?: string;
  /** In front of the name (ustar). */
  readonly prefix?: string;
  readonly link?: string;
  /** Of the header, by default that of POSIX ustar. */
  readonly magic?: string;
  readonly size?: Buffer;
  readonly sumOff?: number;
}

export function tar(entries: readonly TarEntry[], hasEnd = true): Buffer {
  const blocks = entries.flatMap((entry) => {
    const { name, content = HARMLESS, kind = "0", prefix = "", link = "", magic = "ustar\x0000" } = entry;
    const data = Buffer.from(content);
    const header = Buffer.alloc(512);
    header.write(name.slice(0, 100), "latin1");
    header.write("0000644\x000000000\x000000000\0", 100);
    header.write(`${data.length.toString(8).padStart(11, "0")}\x0000000000000\0`, 124);
    entry.size?.copy(header, 124);
    header.write("        ", 148);
    header.write(kind, 156);
    header.write(link, 157);
    header.write(magic, 257);
    header.write(prefix, 345);
    const sum = header.reduce((total, byte) => total + byte, 0) + (entry.sumOff ?? 0);
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    return [header, data, Buffer.alloc((512 - (data.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(hasEnd ? 1024 : 0)]);
}

/** A record of pax: its own length, key and value. */
export function pax(key: string, value: string, stated?: number): string {
  const rest = ` ${key}=${value}\n`;
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return `${stated ?? length}${rest}`;
}

/** gzip with these optional fields. */
export function gzip(
  content: Uint8Array | string,
  fields: { readonly name?: string; readonly comment?: string; readonly extra?: Buffer } = {},
): Buffer {
  const plain = Buffer.from(content);
  const flags =
    (fields.extra === undefined ? 0 : 4) |
    (fields.name === undefined ? 0 : 8) |
    (fields.comment === undefined ? 0 : 16);
  const tail = Buffer.alloc(8);
  tail.writeUInt32LE(crc32(plain), 0);
  tail.writeUInt32LE(plain.length, 4);
  const extra = fields.extra ?? Buffer.alloc(0);
  return Buffer.concat([
    Buffer.of(0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3),
    fields.extra === undefined ? extra : Buffer.concat([Buffer.of(extra.length & 255, extra.length >> 8), extra]),
    Buffer.from(fields.name === undefined ? "" : `${fields.name}\0`, "latin1"),
    Buffer.from(fields.comment === undefined ? "" : `${fields.comment}\0`, "latin1"),
    deflateRawSync(plain),
    tail,
  ]);
}

/** RAR 5 with one stored file. */
export function rar(name: string, content: string): Buffer {
  const vint = (value: number): Buffer => (value < 128 ? Buffer.of(value) : Buffer.of((value & 127) | 128, value >> 7));
  const block = (body: Buffer, data = Buffer.alloc(0)): Buffer => {
    const sized = Buffer.concat([vint(body.length), body]);
    const sum = Buffer.alloc(4);
    sum.writeUInt32LE(crc32(sized));
    return Buffer.concat([sum, sized, data]);
  };
  const data = Buffer.from(content);
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(data));
  const file = Buffer.concat([
    Buffer.of(2, 2),
    vint(data.length),
    Buffer.of(4),
    vint(data.length),
    Buffer.of(0x20),
    sum,
    Buffer.of(0, 1),
    vint(name.length),
    Buffer.from(name),
  ]);
  return Buffer.concat([
    Buffer.from("526172211a070100", "hex"),
    block(Buffer.of(1, 0, 0)),
    block(file, data),
    block(Buffer.of(5, 0, 0)),
  ]);
}

/** RAR 4 with one stored file. */
export function rar4(name: string, content: string): Buffer {
  const sealed = (body: Buffer): Buffer => {
    const sum = Buffer.alloc(2);
    sum.writeUInt16LE(crc32(body) & 0xffff);
    return Buffer.concat([sum, body]);
  };
  const data = Buffer.from(content);
  const file = Buffer.alloc(30);
  file[0] = 0x74;
  file.writeUInt16LE(0x8000, 1);
  file.writeUInt16LE(32 + name.length, 3);
  file.writeUInt32LE(data.length, 5);
  file.writeUInt32LE(data.length, 9);
  file[13] = 2;
  file.writeUInt32LE(crc32(data), 14);
  file.writeUInt32LE(0x5c210000, 18);
  file[22] = 20;
  file[23] = 0x30;
  file.writeUInt16LE(name.length, 24);
  file.writeUInt32LE(0x20, 26);
  return Buffer.concat([
    Buffer.from("526172211a0700", "hex"),
    sealed(Buffer.from("7300000d00000000000000", "hex")),
    sealed(Buffer.concat([file, Buffer.from(name)])),
    data,
    Buffer.from("c43d7b00400700", "hex"),
  ]);
}

/** LHA, level 0, with one stored file. */
export function lha(name: string, content: string): Buffer {
  const data = Buffer.from(content);
  let crc = 0;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 0 ? crc >> 1 : (crc >> 1) ^ 0xa001;
  }
  const body = Buffer.alloc(20 + name.length + 2);
  body.write("-lh0-", 0);
  body.writeUInt32LE(data.length, 5);
  body.writeUInt32LE(data.length, 9);
  body.writeUInt32LE(0x5c210000, 13);
  body[17] = 0x20;
  body[18] = 0;
  body[19] = name.length;
  body.write(name, 20);
  body.writeUInt16LE(crc, 20 + name.length);
  const sum = body.reduce((total, byte) => (total + byte) & 255, 0);
  return Buffer.concat([Buffer.of(body.length, sum), body, data, Buffer.of(0)]);
}

/** A cabinet with one stored file. */
export function cab(name: string, content: string): Buffer {
  const data = Buffer.from(content);
  const file = Buffer.concat([Buffer.alloc(16), Buffer.from(`${name}\0`)]);
  file.writeUInt32LE(data.length, 0);
  file.writeUInt16LE(0x5c21, 10);
  file.writeUInt16LE(0x20, 14);
  const filesAt = 36 + 8;
  const dataAt = filesAt + file.length;
  const head = Buffer.alloc(44);
  head.write("MSCF");
  head.writeUInt32LE(dataAt + 8 + data.length, 8);
  head.writeUInt32LE(filesAt, 16);
  head[24] = 3;
  head[25] = 1;
  head.writeUInt16LE(1, 26);
  head.writeUInt16LE(1, 28);
  head.writeUInt32LE(dataAt, 36);
  head.writeUInt16LE(1, 40);
  const block = Buffer.alloc(8);
  block.writeUInt16LE(data.length, 4);
  block.writeUInt16LE(data.length, 6);
  return Buffer.concat([head, file, block, data]);
}

/** ISO 9660 with one file. */
export function iso(name: string, content: string): Buffer {
  const image = Buffer.alloc(2048 * 24);
  const both32 = (at: number, value: number) => (image.writeUInt32LE(value, at), image.writeUInt32BE(value, at + 4));
  const both16 = (at: number, value: number) => (image.writeUInt16LE(value, at), image.writeUInt16BE(value, at + 2));
  const record = (at: number, sector: number, size: number, flags: number, id: string): number => {
    const length = 33 + id.length + (id.length % 2 === 0 ? 1 : 0);
    image[at] = length;
    both32(at + 2, sector);
    both32(at + 10, size);
    Buffer.of(126, 1, 1, 0, 0, 0, 0).copy(image, at + 18);
    image[at + 25] = flags;
    both16(at + 28, 1);
    image[at + 32] = id.length;
    image.write(id, at + 33, "latin1");
    return length;
  };
  const volume = 2048 * 16;
  image.write("\x01CD001\x01", volume, "latin1");
  image.fill(0x20, volume + 8, volume + 72);
  both32(volume + 80, 24);
  both16(volume + 120, 1);
  both16(volume + 124, 1);
  both16(volume + 128, 2048);
  both32(volume + 132, 10);
  image.writeUInt32LE(19, volume + 140);
  image.writeUInt32BE(20, volume + 148);
  record(volume + 156, 18, 2048, 2, "\0");
  image.fill(0x20, volume + 190, volume + 813);
  image[volume + 881] = 1;
  image.write("\xffCD001\x01", 2048 * 17, "latin1");
  let at = 2048 * 18;
  at += record(at, 18, 2048, 2, "\0");
  at += record(at, 18, 2048, 2, "\x01");
  record(at, 21, content.length, 0, name);
  Buffer.of(1, 0, 18, 0, 0, 0, 1, 0, 0, 0).copy(image, 2048 * 19);
  Buffer.of(1, 0, 0, 0, 0, 18, 0, 1, 0, 0).copy(image, 2048 * 20);
  image.write(content, 2048 * 21);
  return image;
}
