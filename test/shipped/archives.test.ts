/** The readers of archives: what they list, and the faults that they tell. */
import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { supportedMimeTypes } from "file-type";
import { filesInText } from "../../handlers/lib/archives/in-text.ts";
import { entriesOf, isArchive, typeOf, UNLISTED } from "../../handlers/lib/archives/kinds.ts";
import { RISKY_TYPES } from "../../handlers/lib/risky-files.ts";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tar, zip } from "../support/archives.ts";
import { describeWith, outsideTool } from "../support/available.ts";
import { expectGrowth } from "../support/growth.ts";
import { tempDir } from "../support/temp.ts";

interface Listing {
  readonly names: readonly string[];
  readonly faults: readonly string[];
}

/** What is found in an archive. A file that cannot be unpacked has a question mark. */
async function list(bytes: Uint8Array, name = "a"): Promise<Listing> {
  const type = await typeOf(bytes.subarray(0, 8192));
  const names: string[] = [];
  const faults = new Set<string>();
  if (!isArchive(type, bytes)) return { names, faults: ["no archive"] };
  for await (const entry of entriesOf(type, bytes, [name], (fault, why) => faults.add(`${fault}: ${why}`))) {
    const mark = entry.isEncrypted ? "*" : (await entry.read(10)) === null ? "?" : "";
    names.push(entry.names.join("|") + mark);
  }
  return { names, faults: [...faults] };
}

const GOOD = zip([
  { name: "a.txt", content: "one" },
  { name: "b.txt", content: "two", method: 0 },
]);
const HIDDEN = zip([{ name: "hidden.exe" }]);

/** The archive with some bytes between. */
function insert(bytes: Buffer, at: number, what: Uint8Array | string): Buffer {
  return Buffer.concat([bytes.subarray(0, at), Buffer.from(what), bytes.subarray(at)]);
}

/** Where the directory and the end record begin. */
const DIRECTORY = GOOD.indexOf("PK\x01\x02", 0, "latin1");
const END = GOOD.indexOf("PK\x05\x06", 0, "latin1");

function patched(at: number, value: number): Buffer {
  const bytes = Buffer.from(GOOD);
  bytes[at]! ^= value;
  return bytes;
}

describe("zip", () => {
  test.each([
    ["as it should be", GOOD, ["a.txt", "b.txt"], []],
    ["empty", zip([]), [], []],
    ["line end behind it", Buffer.concat([GOOD, Buffer.from("\r\n")]), ["a.txt", "b.txt"], []],
    ["another method", zip([{ name: "a.txt", method: 12 }]), ["a.txt?"], []],
    ["a stored archive within", zip([{ name: "b.zip", content: HIDDEN, method: 0 }]), ["b.zip"], []],
    ["NUL in a name", zip([{ name: "a.exe\0.txt" }]), ["a.exe\0.txt|a.exe"], []],
    ["encrypted", zip([{ name: "a.txt", isEncrypted: true }]), ["a.txt*"], []],
    ["no directory", GOOD.subarray(0, DIRECTORY), ["a.txt", "b.txt"], ["broken: it has no directory"]],
    ["a broken end", patched(END + 12, 1), ["a.txt", "b.txt"], ["doubtful: its end says another directory"]],
    ["another broken end", patched(END + 15, 0xff), ["a.txt", "b.txt"], ["doubtful: its end says another directory"]],
    [
      "an end with a wrong offset",
      patched(END + 17, 0xff),
      ["a.txt", "b.txt"],
      ["doubtful: its directory is not where its end says"],
    ],
    [
      "an end with a wrong offset and a wrong size",
      Buffer.from(GOOD).fill(0xff, END + 12, END + 20),
      [],
      ["broken: its directory is not where its end says"],
    ],
  ])("%s", async (_, bytes, names, faults) => {
    expect(await list(bytes)).toEqual({ names, faults });
  });

  test.each([
    ["one byte in front of its end", insert(GOOD, END, "x")],
    ["bytes in front of it", Buffer.concat([Buffer.from("MZ"), GOOD])],
    ["bytes between its files", insertBeforeDirectory("junk")],
    ["bytes behind its end", Buffer.concat([GOOD, Buffer.from("junk")])],
    ["another count in its end", patched(END + 10, 3)],
    ["two names", zip([{ name: "a.txt", localName: "b.txt" }])],
    ["two methods", patched(8, 9)],
    ["two checksums", patched(14, 1)],
    ["two flags", patched(6, 1)],
    ["a directory that goes elsewhere", patched(DIRECTORY + 42, 1)],
    ["a comment that is cut off", patched(END + 20, 5)],
  ])("doubtful: %s", async (_, bytes) => {
    const { names, faults } = await list(bytes);
    expect(names.join("|")).toContain("b.txt");
    expect(faults[0]).toStartWith("doubtful: ");
  });

  test.each([
    ["in front", Buffer.concat([HIDDEN, GOOD])],
    ["behind", withComment(HIDDEN)],
    ["between", insertBeforeDirectory(HIDDEN.subarray(0, HIDDEN.indexOf("PK\x01\x02")))],
    ["behind the end", Buffer.concat([GOOD, HIDDEN.subarray(0, HIDDEN.indexOf("PK\x05\x06"))])],
  ])("doubtful, and the file that only some find is listed: %s", async (_, bytes) => {
    const { names, faults } = await list(bytes);
    expect(names.join(" ")).toContain("hidden.exe");
    expect(faults.join()).toContain("doubtful");
  });
});

/** With offsets that fit. */
function insertBeforeDirectory(what: Uint8Array | string): Buffer {
  const bytes = insert(GOOD, DIRECTORY, what);
  const end = END + Buffer.from(what).length;
  bytes.writeUInt32LE(end - (END - DIRECTORY), end + 16);
  return bytes;
}

function withComment(comment: Buffer): Buffer {
  const bytes = Buffer.concat([GOOD, comment]);
  bytes.writeUInt16LE(comment.length, END + 20);
  return bytes;
}

/** A pax record. */
function pax(...records: readonly string[]): string {
  return records.map((record) => `${record.length + 4} ${record}\n`).join("");
}

describe("tar", () => {
  const files = [{ name: "a.txt" }, { name: "b.txt" }];
  test.each([
    ["as it should be", tar(files), ["a.txt", "b.txt"], []],
    [
      "GNU long name",
      tar([{ name: "L", kind: "L", content: "long.txt\0" }, ...files]),
      ["long.txt|a.txt", "b.txt"],
      [],
    ],
    [
      "pax: the last path counts",
      tar([{ name: "x", kind: "x", content: pax("path=one.txt", "path=two.txt") }, ...files]),
      ["one.txt|two.txt|a.txt", "b.txt"],
      [],
    ],
    [
      "pax: a path within another record",
      tar([{ name: "x", kind: "x", content: pax("comment=\n9 path=x\n", "path=two.txt") }, ...files]),
      ["two.txt|a.txt", "b.txt"],
      [],
    ],
    [
      "pax, for all files",
      tar([{ name: "g", kind: "g", content: pax("path=all.txt") }, ...files]),
      ["all.txt|a.txt", "all.txt|b.txt"],
      [],
    ],
    [
      "pax with wrong lengths",
      tar([{ name: "x", kind: "x", content: "99 path=one.txt\n" }, ...files]),
      ["one.txt|a.txt", "b.txt"],
      ["doubtful: its pax records are broken"],
    ],
    [
      "pax with another size",
      tar([{ name: "x", kind: "x", content: pax("size=512") }, ...files]),
      ["a.txt", "b.txt"],
      ["doubtful: its files have two sizes"],
    ],
    [
      "another archive behind it",
      Buffer.concat([tar(files), tar([{ name: "c.txt" }])]),
      ["a.txt", "b.txt", "c.txt"],
      ["doubtful: there are bytes behind its end"],
    ],
    [
      "a broken header between",
      Buffer.concat([tar(files).subarray(0, 1024), Buffer.alloc(512, "x"), tar(files).subarray(1024)]),
      ["a.txt", "b.txt"],
      ["doubtful: a header of it is broken"],
    ],
    ["cut off", tar(files).subarray(0, 1536), ["a.txt", "b.txt"], ["broken: it is cut off"]],
    ["without the mark of POSIX", oldTar(), ["a.txt"], []],
  ])("%s", async (_, bytes, names, faults) => {
    expect(await list(bytes)).toEqual({ names, faults });
  });
});

/** As Unix version 7 made them. */
function oldTar(): Buffer {
  const bytes = tar([{ name: "a.txt" }]);
  bytes.fill(0, 257, 265);
  bytes.fill(" ", 148, 156);
  const sum = bytes.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return bytes;
}

describe("gzip", () => {
  test("the name of the archive, and the name in it", async () => {
    const plain = gzipSync("x");
    expect(await list(plain, "setup.exe.gz")).toEqual({ names: ["setup.exe"], faults: [] });
    const named = Buffer.concat([
      plain.subarray(0, 3),
      Buffer.from([8]),
      plain.subarray(4, 10),
      Buffer.from("setup.exe\0"),
      plain.subarray(10),
    ]);
    expect(await list(named, "a.gz")).toEqual({ names: ["a|setup.exe"], faults: [] });
  });
});

test("the time for many long names of a file in a tar archive grows with their number", async () => {
  await expectGrowth(9000, async (times) => {
    const long = Array.from({ length: times }, (_, n) => ({ name: "L", kind: "L", content: `${n}\0` }));
    expect((await list(tar([...long, { name: "x.js" }]))).names).toHaveLength(1);
  });
});

describe("more names than a call can have arguments", () => {
  test("in pax records", async () => {
    const records = "9 path=a\n".repeat(7000);
    const headers = Array.from({ length: 120 }, () => ({ name: "p", kind: "x", content: records }));
    expect(await list(tar([...headers, { name: "x.js" }]))).toEqual({ names: ["a|x.js"], faults: [] });
  });

  test("in the properties of winmail.dat", async () => {
    const property = Buffer.from("1e0001300100000001000000", "hex");
    const names = attribute(2, 0x00069005, Buffer.alloc(12 * 1_000_000, property));
    const file = Buffer.concat([Buffer.from("789f3e220100", "hex"), names, attribute(2, 0x00018010, "x.js\0")]);
    expect((await list(file)).names).toEqual([expect.stringMatching(/(?:^|\|)x\.js\?$/)]);
  });
});

describe("what looks like another file", () => {
  test.each(["%PDF-1.7", "\x89PNG\r\n\x1a\n", "GIF89a", "PK\x03\x04", "\x1f\x8b\x08", "\0"])(
    "tar: %j",
    async (name) => {
      const archive = Buffer.from(tar([{ name: "@" }, { name: "x.js" }]));
      archive.write(name, "latin1");
      expect((await list(summed(archive))).names).toContain("x.js");
    },
  );

  test.each(["1", "2", "3", "4", "5", "6", "V"])("tar: kind %j with content", async (kind) => {
    const inner = tar([{ name: "\0", kind: "0" }, { name: "x.js" }]);
    const archive = tar([{ name: "a.txt" }, { name: "b", kind, content: inner }]);
    expect(await list(archive)).toMatchObject({
      names: expect.arrayContaining(["a.txt", "x.js"]),
      faults: expect.arrayContaining(["doubtful: it has content where programs expect none"]),
    });
    expect(
      (await list(tar([{ name: "a.txt" }, { name: "b", kind, content: "content" }, { name: "c" }]))).faults,
    ).toEqual([]);
  });

  test.each(["b/", "b"])("tar: a folder %j with content", async (name) => {
    const archive = tar([{ name, kind: "5", content: tar([{ name: "x.js" }]) }]);
    expect((await list(archive)).names).toContain("x.js");
  });

  test("a zip archive behind a broken gzip archive", async () => {
    const archive = Buffer.concat([Buffer.from("1f8b08", "hex"), zip([{ name: "x.js" }])]);
    expect((await list(archive, "a.zip")).names).toContain("x.js");
  });

  test("a zip archive that is stored in a gzip archive is in it once", async () => {
    const archive = gzipSync(zip([{ name: "x.js" }]), { level: 0 });
    expect(await list(archive, "a.zip.gz")).toEqual({ names: ["a.zip"], faults: [] });
  });
});

/** The archive with the right checksum of its first header. */
function summed(archive: Buffer): Buffer {
  archive.write("        ", 148);
  const sum = archive.subarray(0, 512).reduce((total, byte) => total + byte, 0);
  archive.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return archive;
}

/** A file in the three encodings, by Python's modules. */
const FILE = Buffer.from("TVqQAGhlbGxvIGhlbGxvIGhlbGxvkJCQYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE=", "base64");
const UUENCODED = `begin 644 setup.exe
M35J0 &AE;&QO(&AE;&QO(&AE;&QOD)"086%A86%A86%A86%A86%A86%A86%A
%86%A86$
\`
end
`;
const BASE64 = `begin-base64 644 setup.exe\n${FILE.toString("base64")}\n====\n`;
const BINHEX = `(This file must be converted with BinHex 4.0)

:#A0PG(9\`,Q9iC3!rN!J!N!8b!*!%9F90@T!!!'KPE'a[)'KPE'a[)'KPE'a[N!#
3!*!!BC!D2Qm!!!:
`;

function yEncoded(bytes: Uint8Array): Buffer {
  const data = [...bytes].flatMap((byte) => {
    const code = (byte + 42) & 255;
    return [0, 10, 13, 61].includes(code) ? [61, (code + 64) & 255] : [code];
  });
  const head = `=ybegin line=128 size=${bytes.length} name=setup.exe\r\n`;
  return Buffer.concat([Buffer.from(head), Buffer.from(data), Buffer.from("\r\n=yend size=1\r\n")]);
}

/** The files in a text, with their content. */
async function inText(text: string | Uint8Array) {
  const files = Array.from(filesInText(Buffer.from(text)));
  return await Promise.all(
    files.map(async ({ names, read }) => ({ names, content: Buffer.from((await read(1000)) ?? []) })),
  );
}

describe("in text", () => {
  test.each([
    ["uuencode", UUENCODED],
    ["uuencode with CRLF", UUENCODED.replaceAll("\n", "\r\n")],
    ["uuencode in base64", BASE64],
    ["yEnc", yEncoded(FILE)],
    ["BinHex", BINHEX],
    ["BinHex with CR", BINHEX.replaceAll("\n", "\r")],
  ])("%s", async (_, text) => {
    const file = { names: ["setup.exe"], content: FILE };
    expect(await inText(text)).toEqual([file]);
    const twice = Buffer.concat([Buffer.from("hello\n"), Buffer.from(text), Buffer.from("bye\n"), Buffer.from(text)]);
    expect(await inText(twice)).toEqual([file, file]);
  });

  test.each([
    "begin 644 of the day",
    "Let us begin 644 x",
    "begin now\n",
    "=ybegin",
    "(This file must be converted with BinHex 4.0)",
  ])("no file, or an empty one: %j", async (text) => {
    for (const { content } of await inText(text)) expect(content).toHaveLength(0);
  });

  test.each([
    ["begin 644x.js", ["644x.js"]],
    ["begin 64 x.js", ["64 x.js", "x.js"]],
    ["begin +644 x.js", ["+644 x.js", "x.js"]],
    ["begin 0100644 x.js", ["0100644 x.js", "x.js"]],
    ["begin 6 4 4 x.js", ["6 4 4 x.js", "4 4 x.js"]],
    ["begin 644\fx.js", ["644\fx.js", "x.js"]],
    ["begin\v644 x.js", ["x.js"]],
    ["begin x.js", ["x.js"]],
  ])("uuencode begun by %j, if data follows", async (begin, names) => {
    const text = UUENCODED.replace("begin 644 setup.exe", begin);
    expect(await inText(text)).toEqual([{ names, content: FILE }]);
    expect(await inText(text.replaceAll("\n", "\r"))).toEqual([{ names, content: FILE }]);
    expect(await inText(`${begin}\nand so on\nHELLO\n`)).toEqual(begin.includes("\v644 x") ? expect.any(Array) : []);
  });

  test("uuencode with text between its lines", async () => {
    const text = UUENCODED.replaceAll("\n", "\nthis is no data\n");
    expect(await inText(text)).toEqual([{ names: ["setup.exe"], content: FILE }]);
  });

  test("the time for many beginnings grows with their number", async () => {
    for (const text of [
      "begin 644 x\n",
      "\rbegin",
      "\rbegin x",
      "begin 1\n",
      "=ybegin name=x\n",
      "(This file must be converted with BinHex\n",
    ]) {
      await expectGrowth(20_000, async (times) => {
        let count = 0;
        for (const _ of filesInText(Buffer.from(text.repeat(times)))) count += 1;
        expect(count).toBeLessThanOrEqual(times);
      });
    }
  });
});

test("50 MB that BinHex repeats are unpacked within bounded memory", () => {
  const { stdout, stderr } = Bun.spawnSync([process.execPath, join(import.meta.dir, "large-binhex.ts")], {
    env: { ...process.env, BUN_BE_BUN: "1" },
  });
  const { size, mebibytes } = JSON.parse(stdout.toString() || stderr.toString());
  expect(size).toBe(50_000_000);
  // Numbers in place of bytes took 900 MB.
  expect(mebibytes).toBeLessThan(600);
});

/** An attribute of winmail.dat. */
function attribute(level: number, id: number, data: Buffer | string): Buffer {
  const bytes = Buffer.from(data);
  const head = Buffer.alloc(9);
  head[0] = level;
  head.writeUInt32LE(id, 1);
  head.writeUInt32LE(bytes.length, 5);
  return Buffer.concat([head, bytes, Buffer.alloc(2)]);
}

describe("winmail.dat", () => {
  const start = Buffer.from("789f3e220100", "hex");
  const longName = Buffer.from("long setup.exe\0", "utf16le");
  const property = Buffer.concat([
    Buffer.from("1f00073701000000", "hex"),
    Buffer.from([longName.length, 0, 0, 0]),
    longName,
  ]);
  const file = [
    attribute(2, 0x00069002, Buffer.alloc(14)),
    attribute(2, 0x00018010, "SETUP~1.EXE\0"),
    attribute(2, 0x0006800f, "content"),
    attribute(2, 0x00069005, property),
  ];

  test("its files, by all names", async () => {
    const bytes = Buffer.concat([start, attribute(1, 0x00089006, "x"), ...file, ...file.slice(0, 2)]);
    expect(await list(bytes)).toEqual({ names: ["SETUP~1.EXE|long setup.exe", "SETUP~1.EXE?"], faults: [] });
  });

  test("one that is cut off", async () => {
    const bytes = Buffer.concat([start, ...file]).subarray(0, -5);
    expect(await list(bytes)).toEqual({
      names: ["SETUP~1.EXE"],
      faults: ["unlisted: winmail.dat archives are not looked into"],
    });
  });
});

describe("types", () => {
  test("each default is a type that file-type gives", () => {
    expect(RISKY_TYPES.filter((type) => !supportedMimeTypes.has(type))).toEqual([]);
  });

  test("each archive that is only recognised is recognised", async () => {
    const own = [
      "MSWIM\0\0\0 xar! ALZ\x01 EGGA SIT! StuffIt\t(c) 070701 q\xc7 \xc7q WARC/1.0 LRZI \x02!L\x18 \x1f\x1e \x1f\xa0 P*M\x18 _*M\x18",
      "]\0\0\x80\0\xff\xff\xff\xff\xff\xff\xff\xff\0 \x12\0\x30\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0 ]\0\x10\0\0\x05\0\0\0\0\0\0\0\0",
    ]
      .flatMap((line) => line.split(" ").map((start) => start.replace("\t", " ")))
      .concat("ZOO ", "\x89LZO\0\r\n\x1a\n", "0\x07\x06\x09*\x86H\x86\xf7\x0d\x01\x07\x03");
    const types = new Set(await Promise.all(own.map((start) => typeOf(Buffer.from(start.padEnd(600, "x"), "latin1")))));
    expect(types.size).toBe(16);
    expect([...UNLISTED.keys()].filter((type) => !supportedMimeTypes.has(type) && !types.has(type))).toEqual([]);
    expect([...types].filter((type) => !UNLISTED.has(type))).toEqual([]);
  });
});

test.each([
  ["a dictionary that is too small", "]\0\x08\0\0\x05\0\0\0\0\0\0\0\0"],
  ["a dictionary of another size", "]\0\x50\0\0\x05\0\0\0\0\0\0\0\0"],
  ["other properties", "\xe1\0\x10\0\0\x05\0\0\0\0\0\0\0\0"],
  ["much content", "]\0\x10\0\0\x05\0\0\0\0\x01\0\0\0"],
  ["another first byte", "]\0\x10\0\0\x05\0\0\0\0\0\0\0x"],
])("no LZMA: %s", async (_, start) => {
  expect(await typeOf(Buffer.from(start.padEnd(600, "x"), "latin1"))).toBe("");
});

const TOOLS = ["7z", "bsdtar", "python3", "tar"].map((name) => outsideTool(name));
const PYTHON_ZIP64 = `import zipfile
with zipfile.ZipFile("a", "w", compression=8) as z:
    for name in ["d/a.txt", "d/long.txt"]:
        with z.open(name, "w", force_zip64=True) as f: f.write(b"hello" * 100)
`;

describeWith(TOOLS, "archives that other programs made are listed without a fault", () => {
  test.each([
    ["7z a -tzip -bso0 a d", ""],
    ["7z a -tzip -bso0 -psecret -mem=AES256 a d", "*"],
    ["7z a -tzip -bso0 -mm=BZip2 a d", "?"],
    ["bsdtar -cf a --format=zip d", ""],
    ["bsdtar -c --format=zip d | cat > a", ""],
    [`python3 -c '${PYTHON_ZIP64}'`, ""],
    ["bsdtar -cf a --format=pax d", ""],
    ["bsdtar -cf a --format=ustar d", ""],
    ["tar -cf a d", ""],
    ["tar -cf a --format=v7 d", ""],
  ])("%s", async (command, mark) => {
    await using dir = await tempDir("archives");
    await mkdir(join(dir.path, "d"));
    await writeFile(join(dir.path, "d", "a.txt"), "hello\n".repeat(100));
    await writeFile(join(dir.path, "d", "long.txt"), "1234567890".repeat(10_000));
    const child = Bun.spawn(["sh", "-c", command.replace("-tzip -bso0", "-tzip -bso0 -bsp0")], {
      cwd: dir.path,
      stderr: "pipe",
    });
    expect([await new Response(child.stderr).text(), await child.exited]).toEqual(["", 0]);
    const file = command.includes("7z") ? "a.zip" : "a";
    const { names, faults } = await list(await readFile(join(dir.path, file)));
    expect(names.filter((name) => !name.endsWith("/")).toSorted()).toEqual([`d/a.txt${mark}`, `d/long.txt${mark}`]);
    expect(faults).toEqual([]);
  });
});
