/** Messages to read: by size and number of parts, the same in each run. */

export interface SampleMessage {
  readonly name: string;
  /** How often it is read in a measurement. */
  readonly times: number;
  make(): Uint8Array;
}

/** Bytes that no program knows a short form of, the same each time. */
function noise(length: number, seed: number): Buffer {
  const bytes = Buffer.allocUnsafe(length);
  let state = seed;
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

const HEADER = [
  "Received: from client.example (client.example [192.0.2.1]) by mx.example with ESMTPS id 4X1;",
  " Tue, 1 Dec 2026 10:00:00 +0000",
  "From: =?utf-8?q?Jos=C3=A9?= <jose@client.example>",
  "To: Jane <jane@example.org>",
  "Subject: =?utf-8?b?UmVjaG51bmcgMTIz?=",
  "Message-ID: <1@client.example>",
  "Date: Tue, 1 Dec 2026 10:00:00 +0000",
  "MIME-Version: 1.0",
].join("\r\n");

const LINE = "The quick brown fox jumps over the lazy dog, says caf=C3=A9 owner =E2=80=93 twice.\r\n";

function text(bytes: number): string {
  return LINE.repeat(Math.ceil(bytes / LINE.length));
}

/** A text with HTML and files of an equal size, in base64. */
function withFiles(files: number, bytes: number): Uint8Array {
  const each = Math.max(1, Math.floor(bytes / files / 1.37));
  const parts = Array.from({ length: files }, (_, index) => {
    const content = noise(each, index + 1)
      .toString("base64")
      .replaceAll(/.{76}(?=.)/g, "$&\r\n");
    return `--outer\r\nContent-Type: application/octet-stream; name="file ${index}.bin"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment;\r\n filename*0="file ";\r\n filename*1="${index}.bin"\r\n\r\n${content}\r\n`;
  });
  const alternative = `--outer\r\nContent-Type: multipart/alternative; boundary="inner"\r\n\r\n--inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n${text(1000)}\r\n--inner\r\nContent-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<html><body><p>${text(1000)}</p></body></html>\r\n--inner--\r\n`;
  return Buffer.from(
    `${HEADER}\r\nContent-Type: multipart/mixed; boundary="outer"\r\n\r\n${alternative}${parts.join("")}--outer--\r\n`,
    "latin1",
  );
}

const MiB = 2 ** 20;

export const MESSAGES: readonly SampleMessage[] = [
  {
    name: "2 KB of text",
    times: 2000,
    make: () =>
      Buffer.from(
        `${HEADER}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n${text(2000)}`,
        "latin1",
      ),
  },
  { name: "1 MB, 3 files", times: 30, make: () => withFiles(3, MiB) },
  { name: "1 MB, 500 files", times: 10, make: () => withFiles(500, MiB) },
  { name: "25 MB, 10 files", times: 3, make: () => withFiles(10, 25 * MiB) },
];
