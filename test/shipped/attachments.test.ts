/** attachments: what is found by name, type, size and number, in archives and forwarded mail, and what is said of it. */
import { describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import attachments from "../../handlers/attachments.ts";
import { matches, NamePatterns, plainName, printable } from "../../handlers/lib/file-names.ts";
import { KeptFiles, MAX_KEPT_FILES } from "../../handlers/lib/kept-files.ts";
import { readMessage } from "../../src/index.ts";
import { runFilter } from "../../src/testing/index.ts";
import { tar, zip } from "../support/archives.ts";
import { amountsOf, expectGrowth, NOT_AT_ALL, IN_PROPORTION } from "../support/growth.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const EXE = Buffer.concat([Buffer.from("MZ\x90\0", "latin1"), Buffer.alloc(600)]);
const ELF = Buffer.concat([Buffer.from("\x7fELF\x02\x01\x01\0", "latin1"), Buffer.alloc(600)]);
const PDF = Buffer.from("%PDF-1.7\n");
const SEVEN_ZIP = Buffer.concat([Buffer.from("377abcaf271c0004", "hex"), Buffer.alloc(100)]);
const RAR = Buffer.concat([Buffer.from("526172211a0700", "hex"), Buffer.alloc(100)]);
const TNEF = Buffer.concat([Buffer.from("789f3e22", "hex"), Buffer.alloc(100)]);

type Eml = string | Uint8Array;

async function run(eml: Eml, options: Record<string, unknown> = {}) {
  using log = spyOn(console, "log").mockImplementation(() => {});
  const outcome = await runFilter(attachments, { from: "a@example.com", to: ["b@example.com"], eml, options });
  expect(outcome.failures).toEqual([]);
  return { ...outcome, printed: log.mock.calls.map(String) };
}

/** The words of the refusal, `""` if the message passes. */
async function refusal(eml: Eml, options?: Record<string, unknown>): Promise<string> {
  const { verdict, reply } = await run(eml, options);
  expect(verdict).toBe(reply === null ? "accept" : "reject");
  return reply === null ? "" : reply.lines.join("").replace(/^Attachment /, "");
}

/** A message with some text and one part. */
function mail(header: string, content: Uint8Array | string = "x"): string {
  const body = Buffer.from(content).toString("base64").replaceAll(/.{76}/g, "$&\r\n");
  return [
    "MIME-Version: 1.0",
    "Content-Type: multipart/mixed; boundary=b",
    "",
    "--b",
    "Content-Type: text/plain",
    "",
    "see below",
    "--b",
    header,
    "Content-Transfer-Encoding: base64",
    "",
    body,
    "--b--",
    "",
  ].join("\r\n");
}

function attached(name: string, content?: Uint8Array | string): string {
  return mail(`Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="${name}"`, content);
}

describe("names", () => {
  test.each([
    ["plain", 'Content-Disposition: attachment; filename="setup.exe"'],
    ["in capitals", "Content-Disposition: attachment; filename=SETUP.EXE"],
    ["in the Content-Type", "Content-Type: application/octet-stream; name=setup.exe"],
    ["only one of the two", 'Content-Type: image/png; name="a.exe"\r\nContent-Disposition: inline; filename="a.png"'],
    ["the other one", 'Content-Type: image/png; name="a.png"\r\nContent-Disposition: inline; filename="a.exe"'],
    ["given twice", "Content-Disposition: attachment; filename=a.txt; filename=a.exe"],
    [
      "two fields",
      "Content-Disposition: attachment; filename=a.txt\r\nContent-Disposition: attachment; filename=a.exe",
    ],
    ["text with a name", "Content-Type: text/plain; name=setup.exe"],
    ["RFC 2231", "Content-Disposition: attachment; filename*=utf-8''setup%2Eexe"],
    [
      "RFC 2231 in pieces",
      `Content-Disposition: attachment; filename*0*=utf-8''set;\r\n filename*1*=up%2E; filename*2="exe"`,
    ],
    [
      "RFC 2231 without charset",
      `Content-Disposition: attachment; filename*0="set"; filename*1*=up%2E; filename*2="exe"`,
    ],
    ["RFC 2231 beside a harmless one", "Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.exe"],
    ["RFC 2047 in quotes", 'Content-Disposition: attachment; filename="=?utf-8?B?c2V0dXAuZXhl?="'],
    ["RFC 2047 in pieces", 'Content-Disposition: attachment; filename="=?utf-8?Q?setup?=\r\n =?utf-8?Q?=2Eexe?="'],
    ["RFC 2047 bare", "Content-Disposition: attachment; filename= =?iso-8859-1?Q?setup=2Eexe?="],
    ["dots and spaces at the end", 'Content-Disposition: attachment; filename="setup.exe. . "'],
    ["two endings", 'Content-Disposition: attachment; filename="invoice.pdf                      .exe"'],
    ["invisible characters", "Content-Disposition: attachment; filename*=utf-8''setup.e%E2%80%8Bxe%E2%80%8B"],
    ["full width", "Content-Disposition: attachment; filename*=utf-8''setup%EF%BC%8E%EF%BD%85xe"],
    ["another order", "Content-Disposition: attachment; filename*=utf-8''invoice%E2%80%AEfdp.exe"],
    ["a folder", 'Content-Disposition: attachment; filename="C:/x/setup.exe"'],
    ["NUL", "Content-Disposition: attachment; filename*=utf-8''setup.exe%00"],
    ["a missing quote", 'Content-Disposition: attachment; filename="setup.exe'],
    ["comments", "Content-Disposition: attachment (a); filename=setup.exe (b)"],
    ["spaces around =", "Content-Disposition: attachment; filename = setup.exe"],
  ])("%s", async (_, header) => {
    expect(await refusal(mail(header))).toMatch(/its name matches \*\.exe$/);
  });

  test("that are shown in another order", async () => {
    const eml = mail("Content-Disposition: attachment; filename*=utf-8''exe%E2%80%AEfdp.png");
    expect(await refusal(eml)).toBe('"exe?fdp.png" is not accepted: its name is shown in another order than it has');
    expect(await refusal(eml, { allow_reordered_names: true })).toBe("");
  });

  test("patterns of one's own", async () => {
    const options = { names: ["invoice-????.PDF", "*.doc?"] };
    expect(await refusal(attached("Invoice-2026.pdf"), options)).toContain("its name matches invoice-????.pdf");
    expect(await refusal(attached("a.docm"), options)).toContain("its name matches *.doc?");
    expect(await refusal(attached("a.exe"), options)).toBe("");
  });

  test("of a message that is nothing but the file", async () => {
    expect(await refusal('Content-Type: application/zip; name="a.js"\r\n\r\nx\r\n')).toContain("its name matches *.js");
  });

  test("harmless ones pass", async () => {
    for (const name of ["a.pdf", "exe", "a.exe.txt", "ä.png", "a b.docx"])
      expect(await refusal(attached(name))).toBe("");
    expect(await refusal("Subject: a\r\n\r\nhello\r\n")).toBe("");
  });
});

test.each([
  ["", "", true],
  ["", "*", true],
  ["abc", "a*c", true],
  ["abc", "a?c", true],
  ["abc", "ab", false],
  ["abcbc", "a*bc", true],
  ["a.b", "a?b?", false],
  ["a[b", "a[b", true],
  [`${"a".repeat(1000)}`, `${"*a".repeat(300)}b`, false],
])("matches(%j, %j)", (text, pattern, expected) => {
  expect(matches(text, pattern)).toBe(expected);
});

test("of several patterns the first one is found", () => {
  const patterns = new NamePatterns(["a*.js", "*.js", "*.tar.gz", "*.gz", "b*", "*.", "*.js"]);
  for (const [name, found] of [
    ["a.js", "a*.js"],
    ["c.js", "*.js"],
    ["b.js", "*.js"],
    ["c.tar.gz", "*.tar.gz"],
    ["c.gz", "*.gz"],
    ["b.txt", "b*"],
    ["c.", "*."],
    ["js", undefined],
    ["c.js.txt", undefined],
  ] as const)
    expect(patterns.find(name)).toBe(found!);
});

test("plainName and printable", () => {
  expect(plainName("dir\\A\u202e.EXE ..")).toBe("a.exe");
  expect(plainName("...")).toBe("");
  expect(printable('a"\r\n\\é😀.exe')).toBe("a??????.exe");
  expect(printable("x".repeat(100))).toHaveLength(59);
});

describe("types", () => {
  test.each([
    ["an exe", EXE, "application/x-msdownload"],
    ["an elf", ELF, "application/x-elf"],
  ])("%s with another name", async (_, content, type) => {
    expect(await refusal(attached("a.png", content))).toBe(`"a.png" is not accepted: it is of the type ${type}`);
  });

  test("patterns of one's own", async () => {
    expect(await refusal(attached("a.txt", PDF), { types: ["application/*"] })).toContain("application/pdf");
    expect(await refusal(attached("a.txt", EXE), { types: [] })).toBe("");
    expect(await refusal(attached("a.txt", zip([])), { types: ["application/zip"] })).toContain("application/zip");
  });

  test.each(["=", "\r\n-_*", " "])("base64 with %j within", async (noise) => {
    const eml = attached("a.png", EXE);
    const at = eml.indexOf("TVqQ") + 4;
    expect(await refusal(eml.slice(0, at) + noise + eml.slice(at))).toContain("application/x-msdownload");
  });

  test("in text without a name", async () => {
    expect(await refusal(mail("Content-Type: text/plain", EXE))).toContain(
      "it is of the type application/x-msdownload",
    );
    expect(await refusal(mail("Content-Type: text/html", zip([{ name: "a.exe" }])))).toContain(
      "its name matches *.exe",
    );
    expect(await refusal(mail("Content-Type: text/plain", EXE), { max_count: 0, types: [] })).toBe("");
  });

  test("of an image of a disk", async () => {
    const image = Buffer.alloc(40_000);
    image.write("CD001", 32_769);
    const why = "it is of the type application/x-iso9660-image";
    expect(await refusal(attached("a.dat", image))).toContain(why);
    expect(await refusal(attached("a.zip", zip([{ name: "a.dat", content: image }])))).toContain(why);
  });

  test("in other encodings", async () => {
    const head = "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding:";
    expect(await refusal(`${head} quoted-printable\r\n\r\n=4D=5A=\r\n=90=00${"=00".repeat(20)}\r\n`)).toContain(
      "msdownload",
    );
    const binary = Buffer.concat([Buffer.from(`${head} binary\r\n\r\n`), EXE]);
    expect(await refusal(binary)).toContain("msdownload");
  });
});

describe("size and count", () => {
  test("size is that of the decoded content", async () => {
    expect(await refusal(attached("a.bin", Buffer.alloc(1000)), { max_size: 1000 })).toBe("");
    const message = '"a.bin" is not accepted: it has 1001 bytes, more than 1000';
    expect(await refusal(attached("a.bin", Buffer.alloc(1001)), { max_size: 1000 })).toBe(message);
  });

  test("count", async () => {
    const parts = (count: number) => {
      const part = "--b\r\nContent-Type: image/png; name=a.png\r\n\r\nx\r\n";
      return `Content-Type: multipart/mixed; boundary=b\r\n\r\n${part.repeat(count)}--b--\r\n`;
    };
    expect(await refusal(parts(3), { max_count: 3 })).toBe("");
    expect(await refusal(parts(5), { max_count: 3 })).toContain("there are more than 3 attachments");
    expect(await refusal(attached("a.png"), { max_count: 0 })).toContain("there are more than 0 attachments");
  });
});

describe("archives", () => {
  const inZip = zip([{ name: "readme.txt" }, { name: "dir/setup.exe" }]);

  test.each([
    ["zip", "a.zip", inZip],
    ["zip with another name", "a.png", inZip],
    ["zip, stored", "a.zip", zip([{ name: "setup.exe", method: 0 }])],
    ["zip, an unknown method", "a.zip", zip([{ name: "setup.exe", method: 99 }])],
    ["zip, two names", "a.zip", zip([{ name: "a.txt", localName: "a.exe" }])],
    ["zip behind other bytes", "a.zip", Buffer.concat([Buffer.from("PK\x03\x04", "latin1"), Buffer.alloc(90), inZip])],
    ["zip, name that is no UTF-8", "a.zip", zip([{ name: Buffer.from("m\x81ller.exe", "latin1") }])],
    ["encrypted zip", "a.zip", zip([{ name: "setup.exe", isEncrypted: true }])],
    ["zip in zip", "a.zip", zip([{ name: "b.zip", content: inZip }])],
    ["tar", "a.tar", tar([{ name: "a" }, { name: "b/setup.exe" }])],
    ["tar, GNU long name", "a.tar", tar([{ name: "L", kind: "L", content: "long/setup.exe\0" }, { name: "long" }])],
    ["tar, pax path", "a.tar", tar([{ name: "x", kind: "x", content: "22 path=lo/setup.exe\n" }, { name: "lo" }])],
    ["gzip", "setup.exe.gz", gzipSync("x")],
    ["tar in gzip", "a.tgz", gzipSync(tar([{ name: "setup.exe" }]))],
    ["zip in tar in gzip", "a.tar.gz", gzipSync(tar([{ name: "a.zip", content: inZip }]))],
  ])("names in %s", async (_, name, content) => {
    expect(await refusal(attached(name, content))).toMatch(/its name matches \*\.exe$/);
  });

  test.each([
    ["zip", zip([{ name: "a.png", content: EXE }])],
    ["zip in zip", zip([{ name: "b.zip", content: zip([{ name: "a.png", content: EXE }]) }])],
    ["tar", tar([{ name: "a.png", content: EXE }])],
    ["gzip", gzipSync(EXE)],
  ])("types in %s", async (_, content) => {
    expect(await refusal(attached("a.zip", content))).toMatch(/it is of the type application\/x-msdownload$/);
  });

  test("the path is told", async () => {
    const nested = zip([{ name: "b.zip", content: inZip }]);
    const expected = '"a.zip > b.zip > dir/setup.exe" is not accepted: its name matches *.exe';
    expect(await refusal(attached("a.zip", nested))).toBe(expected);
  });

  test("depth", async () => {
    let nested: Buffer = zip([{ name: "a.txt" }]);
    for (let depth = 1; depth < 4; depth++) nested = zip([{ name: `${depth}.zip`, content: nested }]);
    expect(await refusal(attached("a.zip", nested), { max_depth: 4 })).toBe("");
    expect(await refusal(attached("a.zip", nested), { max_depth: 3 })).toContain("it lies deeper than 3 levels");
    expect(await refusal(attached("a.zip", zip([])), { max_depth: 0 })).toContain("it lies deeper than 0 levels");
  });

  test("encrypted", async () => {
    const content = zip([{ name: "a.txt", isEncrypted: true }]);
    expect(await refusal(attached("a.zip", content))).toBe("");
    const expected = '"a.zip > a.txt" is not accepted: it is encrypted';
    expect(await refusal(attached("a.zip", content), { allow_encrypted: false })).toBe(expected);
  });

  test.each([
    ["7z", SEVEN_ZIP],
    ["rar", RAR],
    ["winmail.dat", TNEF],
  ])("%s is not listed", async (kind, content) => {
    expect(await refusal(attached("a.dat", content))).toBe("");
    const expected = `"a.dat" is not accepted: ${kind} archives are not looked into`;
    expect(await refusal(attached("a.dat", content), { allow_unlisted: false })).toBe(expected);
    const inside = attached("a.zip", zip([{ name: "a.dat", content }]));
    expect(await refusal(inside, { allow_unlisted: false })).toContain(`${kind} archives are not looked into`);
  });

  test.each([
    ["cut off", inZip.subarray(0, 60)],
    ["an end that points nowhere", Buffer.from(inZip).fill(0xff, inZip.length - 10, inZip.length - 2)],
    ["gzip that is none", Buffer.from([0x1f, 0x8b, 1, 2, 3])],
  ])("broken: %s", async (_, content) => {
    expect(await refusal(attached("a.dat", content))).toBe("");
    if (content[0] === 0x50)
      expect(await refusal(attached("a.zip", content), { allow_unlisted: false })).toContain("broken");
  });

  test("bytes at random places of a zip and a tar: never a failure", async () => {
    for (let seed = 0; seed < 300; seed++) {
      const content = Buffer.from(seed % 2 === 0 ? inZip : tar([{ name: "a" }, { name: "b" }]));
      for (let n = 0; n < 4; n++) content[(seed * 7919 + n * 104_729) % content.length] = (seed * 31 + n * 97) & 255;
      const { verdict } = await run(attached("a.zip", content));
      expect(["accept", "reject"]).toContain(verdict);
    }
  });
});

describe("hostile input is bounded", () => {
  test("a bomb", async () => {
    const bomb = gzipSync(
      Buffer.concat([tar([{ name: "a", content: "x" }]).subarray(0, 1024), Buffer.alloc(80 * 1024 * 1024)]),
    );
    expect(await refusal(attached("a.tgz", bomb))).toContain("it unpacks to more than 52428800 bytes");
  });

  test("a large file that is no archive is unpacked as far as archives may be", async () => {
    const MiB = 2 ** 20;
    const large = (size: number) => attached("a.zip", zip([{ name: "a.csv", content: Buffer.alloc(size, "a,") }]));
    const mails = new Map(amountsOf(80 * MiB, NOT_AT_ALL).map((size) => [size, large(size)]));
    await expectGrowth(
      80 * MiB,
      async (size) => expect(await refusal(mails.get(size)!, { max_unpacked: "1MB" })).toBe(""),
      NOT_AT_ALL,
    );
  });

  test("many archives share the bytes", async () => {
    const inner = zip([{ name: "a.bin", content: Buffer.alloc(1_000_000), method: 0 }]);
    const outer = zip(Array.from({ length: 60 }, (_, n) => ({ name: `${n}.zip`, content: inner })));
    expect(await refusal(attached("a.zip", outer))).toContain("it unpacks to more than");
  });

  test("many files", async () => {
    const files = zip(Array.from({ length: 20_000 }, (_, n) => ({ name: `${n}.txt` })));
    expect(await refusal(attached("a.zip", files))).toContain("there are more than 1000 files");
    expect(await refusal(attached("a.zip", zip([{ name: "a" }, { name: "b" }])), { max_entries: 3 })).toBe("");
    expect(await refusal(attached("a.zip", zip([{ name: "a" }, { name: "b" }])), { max_entries: 2 })).toContain(
      "more than 2 files",
    );
  });

  test.each([
    ["headers of zip archives", "PK\x03\x04".padEnd(30, "\0"), ""],
    ["beginnings of headers", "PK", ""],
    ["attachments of winmail.dat", "\x02\x02\x90\x06\0\0\0\0\0\0\0", "x\x9f\x3e\x22\x01\0"],
    ["files within text", "begin 644 a\n", ""],
    ["BinHex", "(This file must be converted with BinHex 4.0)\n:!\n", ""],
    ["blocks of a tar archive", "x", tar([{ name: "a" }]).toString("latin1", 0, 1024)],
  ])("many %s", async (_, piece, start) => {
    const end = zip([{ name: "a.txt" }]);
    const make = (size: number) => {
      const head = Buffer.from("Content-Type: application/octet-stream\nContent-Transfer-Encoding: binary\n\n");
      return Buffer.concat([head, Buffer.from(start, "latin1"), Buffer.alloc(size, piece, "latin1"), end]);
    };
    const mails = new Map(amountsOf(2_000_000, IN_PROPORTION).map((size) => [size, make(size)]));
    await expectGrowth(2_000_000, async (size) => void (await run(mails.get(size)!)));
  });

  test("10,000 parts", async () => {
    const eml = `Content-Type: multipart/mixed; boundary=b\r\n\r\n${"--b\r\n\r\nx\r\n".repeat(10_000)}--b--\r\n`;
    expect(await refusal(eml)).toContain("it has more parts than are looked at");
  });

  test("nested multiparts", async () => {
    const open = (n: number) => `Content-Type: multipart/mixed; boundary=b${n}\r\n\r\n--b${n}\r\n`;
    const eml = Array.from({ length: 1000 }, (_, n) => open(n)).join("");
    expect(await refusal(eml)).toContain("it has more parts than are looked at");
  });

  test("forwarded in forwarded", async () => {
    const eml = "Content-Type: message/rfc822\r\n\r\n".repeat(1000);
    expect(await refusal(eml)).toContain("it lies deeper than 3 levels");
  });

  test("a name of 60 KB", async () => {
    await expectGrowth(30_000, async (words) => {
      expect(await refusal(attached(`${"a ".repeat(words)}.exe`))).toContain("its name matches *.exe");
    });
  });
});

describe("messages in messages", () => {
  const inner = attached("setup.exe");
  test.each([
    ["message/rfc822", mail("Content-Type: message/rfc822", inner)],
    ["message/news", mail("Content-Type: message/news", inner)],
    [
      "with the line of a mailbox",
      mail("Content-Type: message/rfc822", `From a@b.c Mon Jan 1 00:00:00 2024\n${inner}`),
    ],
    ["a file .eml", attached("a.eml", inner)],
    ["a file of another name", attached("a.dat", inner)],
    ["of Apple Mail", attached("a.emlx", `${inner.length}\n${inner}`)],
    ["a web archive", attached("a.mht", `From: <Saved>\r\n${inner}`)],
    ["in a zip", attached("a.zip", zip([{ name: "a.eml", content: inner }]))],
    ["in a zip, another name", attached("a.zip", zip([{ name: "a.dat", content: inner }]))],
  ])("%s", async (_, eml) => {
    expect(await refusal(eml)).toMatch(/ > setup\.exe" is not accepted: its name matches \*\.exe$/);
  });

  test.each([
    [
      "the line of a mailbox",
      mail("Content-Type: message/rfc822", "From a@b.c Mon Jan 1 00:00:00 2024\nSubject: x\n\nx"),
    ],
    ["the length of Apple Mail", attached("a.emlx", "15\nSubject: x\n\nx\n")],
    ["a text that begins as a message does", attached("a.txt", "Subject: x\nContent-Type: text/plain\nno field\n\nx")],
  ])("no flaw: %s", async (_, eml) => {
    expect(await refusal(eml)).toBe("");
  });

  test.each([
    ["a piece of a message", mail("Content-Type: message/partial; id=x; number=1; total=2")],
    ["elsewhere", mail("Content-Type: message/external-body; access-type=URL")],
    ["S/MIME messages", mail("Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m")],
    ["PGP messages", mail("Content-Type: application/octet-stream", "-----BEGIN PGP MESSAGE-----\n\nx\n")],
  ])("not looked into: %s", async (words, eml) => {
    expect(await refusal(eml)).toBe("");
    expect(await refusal(eml, { allow_unlisted: false })).toContain(words);
  });
});

describe("files within text", () => {
  const UU = "begin 644 setup.exe\n#0V%T\n`\nend\n";
  test.each([
    ["the text of a message", `Subject: x\n\nhello\n${UU}`],
    ["an attached text", attached("a.txt", `hello\n${UU}`)],
    ["a forwarded message", mail("Content-Type: message/rfc822", `Subject: x\n\n${UU}`)],
  ])("in %s", async (_, eml) => {
    expect(await refusal(eml)).toContain('setup.exe" is not accepted: its name matches *.exe');
  });

  test("its type", async () => {
    const base64 = EXE.toString("base64").replaceAll(/.{60}/g, "$&\n");
    const eml = `Subject: x\n\nbegin-base64 644 a.png\n${base64}\n====\n`;
    expect(await refusal(eml)).toBe('"a.png" is not accepted: it is of the type application/x-msdownload');
  });
});

describe("structure and archives in which programs differ", () => {
  const BROKEN = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhello\r\n";
  test("a flaw of the message", async () => {
    const expected = "The message is not accepted: mail programs may read it otherwise: a multipart that does not end";
    expect(await refusal(BROKEN)).toBe(expected);
    expect(await refusal(BROKEN, { allow_flaws: true })).toBe("");
  });

  test("a flaw of a forwarded message", async () => {
    const eml = mail("Content-Type: message/rfc822", BROKEN);
    expect(await refusal(eml)).toContain('"message/rfc822" is not accepted: mail programs may read it otherwise');
    expect(await refusal(eml, { allow_flaws: true })).toBe("");
  });

  test("a doubtful archive", async () => {
    const eml = attached("a.zip", Buffer.concat([Buffer.from("in front"), zip([{ name: "a.txt" }])]));
    expect(await refusal(eml)).toBe('"a.zip" is not accepted: it is a broken archive: there are bytes in front of it');
    expect(await refusal(eml, { allow_doubtful: true })).toBe("");
  });

  test("a file that cannot be unpacked", async () => {
    const eml = attached("a.zip", zip([{ name: "a.txt", method: 12 }]));
    expect(await refusal(eml)).toBe("");
    expect(await refusal(eml, { allow_unlisted: false })).toBe(
      '"a.zip > a.txt" is not accepted: it cannot be unpacked',
    );
  });
});

describe("replace", () => {
  /** A message with an attachment that is not accepted, and one that is. */
  const both = attached("setup.exe", EXE).replace(
    "--b--",
    "--b\r\nContent-Type: text/plain; name=ok.txt\r\n\r\nfine\r\n--b--",
  );

  test("a note takes the place of the attachment alone", async () => {
    const { message, verdict } = await run(both, { action: "replace" });
    expect(verdict).toBe("accept");
    const mime = readMessage(Buffer.from(message));
    expect(mime.flaws).toEqual([]);
    expect(mime.parts.map(({ filename }) => filename)).toEqual([null, "removed.txt", "ok.txt"]);
    expect(mime.parts[1]!.text()).toContain('The attachment "setup.exe" was removed from this message.');
    expect(mime.parts[1]!.text()).toContain("its name matches *.exe");
    expect([mime.parts[0]!.text(), mime.parts[2]!.text()]).toEqual(["see below", "fine"]);
    expect(message).toContain("X-Attachment-Report: ");
    expect(message).not.toContain(EXE.toString("base64").slice(0, 40));
  });

  test("of a message that is nothing but the file", async () => {
    const eml = `Content-Type: application/octet-stream; name=a.exe\r\nContent-Transfer-Encoding: base64\r\n\r\nTVo=\r\n`;
    const { message } = await run(eml, { action: "replace" });
    expect(readMessage(Buffer.from(message)).parts.map(({ filename }) => filename)).toEqual(["removed.txt"]);
  });

  test("a forwarded message goes as a whole", async () => {
    const { message } = await run(mail("Content-Type: message/rfc822", attached("a.exe")), { action: "replace" });
    expect(readMessage(Buffer.from(message)).parts.map(({ type }) => type)).toEqual(["text/plain", "text/plain"]);
  });

  test("what is wrong with the message as a whole is refused", async () => {
    const eml =
      "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: image/png; name=a.exe\r\n\r\nx\r\n";
    expect(await refusal(eml, { action: "replace" })).toContain("The message is not accepted");
  });

  test("a signed message loses its signature rather than keeping the file", async () => {
    const signed = both.replace("multipart/mixed", "multipart/signed; protocol=application/pgp-signature");
    const { message } = await run(signed, { action: "replace" });
    expect(message).toContain("removed.txt");
  });

  test("the original is kept, under a name of its own and for its owner alone", async () => {
    await using dir = await tempDir("kept");
    const options = { action: "replace", keep_folder: join(dir.path, "kept"), keep_size: EXE.length * 2 + 1 };
    const { message, notes } = await run(both, options);
    const [name] = await readdir(options.keep_folder);
    expect(name).toMatch(/^kept-\d{8}T\d{6}Z-[0-9a-f]{16}$/);
    expect(message).toContain(name!);
    expect(JSON.stringify(notes)).toContain(`kept as ${name}`);
    const path = join(options.keep_folder, name!);
    expect((await readFile(path)).equals(EXE)).toBe(true);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(options.keep_folder)).mode & 0o777).toBe(0o700);
    for (let n = 0; n < 4; n++) await run(both, options);
    expect(await readdir(options.keep_folder)).toHaveLength(2);
  });

  test("files that are too old go, others than ours stay", async () => {
    await using dir = await tempDir("kept");
    const kept = new KeptFiles(dir.path, { age: 1000, size: 100 });
    await writeFile(join(dir.path, "other"), "x");
    // The names have seconds.
    const start = Math.floor(Date.now() / 1000) * 1000;
    const [first] = await kept.keep([Buffer.from("a")], start);
    await kept.keep([Buffer.from("b")], start + 1000);
    expect(await readdir(dir.path)).toHaveLength(3);
    await kept.keep([Buffer.from("c")], start + 2000);
    expect(await readdir(dir.path)).toHaveLength(3);
    expect(await readdir(dir.path)).not.toContain(first);
  });

  test("files over keep_size are not kept, and take no others away", async () => {
    await using dir = await tempDir("kept");
    const kept = new KeptFiles(dir.path, { age: 1000, size: 100 });
    const names = await kept.keep([Buffer.alloc(60)]);
    const message = "cannot keep 2 attachments of 101 bytes: keep_size is 100 bytes";
    expect(kept.keep([Buffer.alloc(60), Buffer.alloc(41)])).rejects.toThrow(message);
    expect(await readdir(dir.path)).toEqual(names);
    const others = await kept.keep([Buffer.alloc(60), Buffer.alloc(40)]);
    expect((await readdir(dir.path)).toSorted()).toEqual(others.toSorted());
  });

  test("a larger file from before takes no others away", async () => {
    await using dir = await tempDir("kept");
    const before = new KeptFiles(dir.path, { age: 10_000, size: 1000 });
    const start = Date.now();
    const [small] = await before.keep([Buffer.alloc(30)], start);
    await before.keep([Buffer.alloc(500)], start + 1000);
    const after = new KeptFiles(dir.path, { age: 10_000, size: 100 });
    const [last] = await after.keep([Buffer.alloc(30)], start + 2000);
    expect((await readdir(dir.path)).toSorted()).toEqual([small!, last!]);
  });

  test("of too many files the oldest go", async () => {
    await using dir = await tempDir("kept");
    const kept = new KeptFiles(dir.path, { age: 1e9, size: 1e9 });
    const now = Date.now();
    const time = new Date(now - 100_000).toISOString().replaceAll(/[-:]|\.\d+/g, "");
    const nameOf = (n: number) => `kept-${time}-${n.toString(16).padStart(16, "0")}`;
    for (let n = 0; n < MAX_KEPT_FILES + 50; n++) writeFileSync(join(dir.path, nameOf(n)), "");
    await kept.keep([Buffer.alloc(1), Buffer.alloc(1)], now);
    const names = await readdir(dir.path);
    expect(names).toHaveLength(MAX_KEPT_FILES);
    // The oldest went.
    expect([nameOf(51), nameOf(52)].map((name) => names.includes(name))).toEqual([false, true]);
    await kept.keep([Buffer.alloc(1)], now + 1000);
    expect(await readdir(dir.path)).toHaveLength(MAX_KEPT_FILES);
  });

  test("if one of several cannot be written, none is left", async () => {
    await using dir = await tempDir("kept");
    const kept = new KeptFiles(dir.path, { age: 1000, size: 100 });
    expect(kept.keep([Buffer.from("a"), { length: 1 } as Uint8Array])).rejects.toThrow();
    expect(await readdir(dir.path)).toEqual([]);
  });

  test("without room on the disk the attachment is not lost: the filter fails", async () => {
    await using dir = await tempDir("kept");
    await writeFile(join(dir.path, "file"), "x");
    const outcome = await runFilter(attachments, {
      eml: both,
      options: { action: "replace", keep_folder: join(dir.path, "file") },
    });
    expect(outcome.verdict).toBe("tempfail");
    expect(outcome.failures).toHaveLength(1);
  });
});

describe("what is said", () => {
  test("in forwarded mail", async () => {
    const eml = mail("Content-Type: message/rfc822", attached("setup.exe"));
    expect(await refusal(eml)).toBe('"message/rfc822 > setup.exe" is not accepted: its name matches *.exe');
  });

  test("the reply and the log are one safe line", async () => {
    const { notes, reply } = await run(
      mail("Content-Disposition: attachment; filename*=utf-8''a%0D%0A%22%C3%A4%25.exe"),
    );
    expect(reply).toEqual({
      code: 550,
      enhanced: "5.7.1",
      lines: ['Attachment "a????%.exe" is not accepted: its name matches *.exe'],
    });
    expect(notes).toMatchObject([{ level: "warn", text: 'reject: "a????%.exe": its name matches *.exe', fields: {} }]);
  });

  test("quarantine holds and reports", async () => {
    const { verdict, modifications } = await run(attached("a.exe", EXE), { action: "quarantine" });
    expect(verdict).toBe("accept");
    expect(modifications).toEqual([
      {
        kind: "addHeader",
        name: "X-Attachment-Report",
        value: '"a.exe": its name matches *.exe;\n "a.exe": it is of the type application/x-msdownload',
      },
      { kind: "quarantine", reason: 'attachments: "a.exe": its name matches *.exe' },
    ]);
  });

  test("report only reports, at most five", async () => {
    const content = zip(Array.from({ length: 9 }, (_, n) => ({ name: `${n}.exe` })));
    const { modifications } = await run(attached("a.zip", content), { action: "report", header: "X-Found" });
    expect(modifications).toHaveLength(1);
    expect(modifications[0]).toMatchObject({ kind: "addHeader", name: "X-Found" });
    expect(JSON.stringify(modifications)).toContain("4 more");
  });

  test("a sender's own report is removed", async () => {
    const { message } = await run("X-Attachment-Report: all fine\r\nSubject: a\r\n\r\nx\r\n", { action: "report" });
    expect(message).toBe("Subject: a\r\n\r\nx\r\n");
  });

  test.each([
    ["action", "drop", 'options.action: expected "reject", "quarantine", "replace" or "report", got "drop"'],
    ["names", "*.exe", 'options.names: expected a list, got "*.exe"'],
    ["keep_folder", "x", 'options.keep_folder: expected none without action = "replace", got "x"'],
    ["max_size", -1, 'options.max_size: expected a size such as 1048576, "64KB", "10MB" or "1GB", got -1'],
    ["max_depth", 1.5, "options.max_depth: expected a whole number, 0 or more, got 1.5"],
    ["max_entries", 0, "options.max_entries: expected a whole number, 1 or more, got 0"],
    ["allow_encrypted", "no", 'options.allow_encrypted: expected true or false, got "no"'],
    ["alow_encrypted", true, "options.alow_encrypted: unknown option"],
  ])("start refuses %s", async (key, value, message) => {
    await expect(runFilter(attachments, { eml: "\n", options: { [key]: value } })).rejects.toThrow(message);
  });
});
