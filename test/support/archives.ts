/** Archives made by hand, also wrong ones. */
import { crc32, deflateRawSync } from "node:zlib";

export interface ZipFile {
  readonly name: string | Buffer;
  readonly content?: Uint8Array | string;
  readonly isEncrypted?: boolean;
  readonly localName?: string;
  readonly method?: number;
}

/** A zip archive. @param prefix what stands in front of it, its offsets untouched */
export function zip(files: readonly ZipFile[], prefix: Uint8Array = Buffer.alloc(0)): Buffer {
  const locals: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const { name, content = "x", isEncrypted = false, localName, method = 8 } of files) {
    const data = method === 8 ? deflateRawSync(content) : Buffer.from(content);
    const fields = Buffer.alloc(22);
    fields.writeUInt16LE(isEncrypted ? 1 : 0, 2);
    fields.writeUInt16LE(method, 4);
    fields.writeUInt32LE(crc32(content), 10);
    fields.writeUInt32LE(data.length, 14);
    fields.writeUInt32LE(Buffer.from(content).length, 18);
    const lengths = (bytes: Buffer) => Buffer.from([bytes.length & 255, bytes.length >> 8, 0, 0]);
    const [central, local] = [Buffer.from(name), Buffer.from(localName ?? name)];
    fields[0] = 20;
    const tail = Buffer.alloc(14);
    tail.writeUInt32LE(offset, 10);
    directory.push(Buffer.from("PK\x01\x02\x14\0", "latin1"), fields, lengths(central), tail, central);
    const entry = Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), fields, lengths(local), local, data]);
    locals.push(entry);
    offset += entry.length;
  }
  const central = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write("PK\x05\x06", "latin1");
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(central.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([prefix, ...locals, central, end]);
}

/** A tar archive (ustar). */
export function tar(files: readonly { name: string; content?: string | Uint8Array; kind?: string }[]): Buffer {
  const blocks = files.flatMap(({ name, content = "x", kind = "0" }) => {
    const data = Buffer.from(content);
    const header = Buffer.alloc(512);
    header.write(name.slice(0, 100));
    header.write("0000644\0", 100);
    header.write(`${data.length.toString(8).padStart(11, "0")}\0`, 124);
    header.write("        ", 148);
    header.write(kind, 156);
    header.write("ustar\x0000", 257);
    const sum = header.reduce((total, byte) => total + byte, 0);
    header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
    return [header, data, Buffer.alloc((512 - (data.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}
