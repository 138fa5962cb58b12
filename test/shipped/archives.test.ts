/** The readers of archives: what they list, and the faults that they tell. */
import { describe, expect, test } from "bun:test";
import { gzipSync } from "node:zlib";
import { entriesOf, isArchive, typeOf } from "../../handlers/lib/archives/kinds.ts";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { tar, zip } from "../support/archives.ts";
import { describeWith, outsideTool } from "../support/available.ts";
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
    ["a broken end", patched(END + 17, 0xff), [], ["broken: its directory is not where its end says"]],
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
