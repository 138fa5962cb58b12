/** Archives with the file in them that a filter may read otherwise than the programs that unpack them. */
import {
  cab,
  gzip,
  iso,
  lha,
  pax,
  rar,
  rar4,
  tar,
  unicodePath,
  zip,
  type ZipEntry,
  type ZipOptions,
} from "./archive-makers.ts";
import { COMPRESSED, SAMPLES } from "./archive-samples.ts";
import { type Evasion, HARMLESS, withFile } from "./evasion.ts";

const README: ZipEntry = { name: "readme.txt" };
const FILE: ZipEntry = { name: "x.js" };

const PLAIN = zip([README, FILE]);
const CLEAN = zip([README]);
const bytes = (text: string) => Buffer.from(text, "latin1");

const ENTRIES: readonly (readonly [string, ...ZipEntry[]])[] = [
  ["plain", FILE],
  ["stored", { ...FILE, method: 0 }],
  ["an unknown method", { ...FILE, method: 77 }],
  ["a method that is not what it says", { ...FILE, method: 9, data: bytes(HARMLESS) }],
  ["two methods", { ...FILE, method: 0, localMethod: 8 }],
  ["capitals", { name: "X.JS" }],
  ["a folder", { name: "a/b/x.js" }],
  ["a Windows folder", { name: "a\\x.js" }],
  ["a folder above", { name: "../x.js" }],
  ["an absolute path", { name: "/x.js" }],
  ["a drive", { name: "C:\\x.js" }],
  ["a dot at the end", { name: "x.js." }],
  ["a space at the end", { name: "x.js " }],
  ["a stream of NTFS", { name: "x.js::$DATA" }],
  ["NUL at the end", { name: "x.js\0" }],
  ["NUL in the middle", { name: "x.js\0.txt" }],
  ["NUL in front", { name: "a.txt\0x.js" }],
  ["a line end in the name", { name: "a\nx.js" }],
  ["a long name", { name: `${"a".repeat(200)}.js` }],
  ["a name in code page 437", { name: bytes("m\x81ller.js") }],
  ["UTF-8 with its flag", { name: "müller.js", flags: 0x800 }],
  ["broken UTF-8 with its flag", { name: bytes("m\x81ller.js"), flags: 0x800 }],
  ["two names, the local one counts", { name: "a.txt", localName: "x.js" }],
  ["two names, the directory's counts", { name: "x.js", localName: "a.txt" }],
  ["a name in UTF-8 beside it", { name: "a.txt", centralExtra: unicodePath("a.txt", "x.js") }],
  ["a name in UTF-8 beside it, local", { name: "a.txt", localExtra: unicodePath("a.txt", "x.js") }],
  [
    "a name in UTF-8 beside it, in both",
    { name: "a.txt", centralExtra: unicodePath("a.txt", "x.js"), localExtra: unicodePath("a.txt", "x.js") },
  ],
  ["a name in UTF-8 beside it, of another name", { name: "x.js", centralExtra: unicodePath("b.txt", "a.txt") }],
  ["a harmless name in UTF-8 beside it", { name: "x.js", centralExtra: unicodePath("x.js", "a.txt") }],
  ["sizes behind the content", { ...FILE, hasDescriptor: true }],
  ["sizes behind stored content", { ...FILE, hasDescriptor: true, method: 0 }],
  ["a wrong size", { ...FILE, statedSize: 5 }],
  ["a size of 0", { ...FILE, statedSize: 0 }],
  ["encrypted", { ...FILE, flags: 1, data: Buffer.alloc(40, 7) }],
  ["encrypted, says the directory", { ...FILE, flags: 1, localFlags: 0 }],
  ["encrypted, says the local header", { ...FILE, flags: 0, localFlags: 1 }],
  ["encrypted in the strong way", { ...FILE, flags: 0x41 }],
  [
    "AES",
    {
      ...FILE,
      method: 99,
      flags: 1,
      data: Buffer.alloc(60, 7),
      centralExtra: Buffer.from("019907000200414503 0800".replaceAll(" ", ""), "hex"),
    },
  ],
  ["a name that is masked", { ...FILE, flags: 0x2000 }],
  ["a directory by its name", { name: "x.js/" }],
  ["a directory by its attributes", { ...FILE, attributes: 0x10 }],
  ["a symbolic link", { ...FILE, attributes: 0xa1ff0000, madeBy: 3 }],
  ["a comment", { ...FILE, comment: "readme.txt" }],
  ["twice, harmless first", { name: "a.txt" }, { name: "a.txt", localName: "x.js" }],
  ["only a local header", { ...FILE, isUnlisted: true }],
  ["only in the directory", { ...FILE, hasNoLocal: true }],
  ["of a Mac", { name: "__MACOSX/._x.js" }, FILE],
  [
    "behind 999 others",
    ...Array.from({ length: 999 }, (_, n): ZipEntry => ({ name: `${n}.txt`, method: 0, content: "" })),
    FILE,
  ],
  [
    "behind 1,500 others",
    ...Array.from({ length: 1500 }, (_, n): ZipEntry => ({ name: `${n}.txt`, method: 0, content: "" })),
    FILE,
  ],
];

const LAYOUTS: readonly (readonly [string, ZipOptions])[] = [
  ["zip64", { isZip64: true }],
  ["a comment", { comment: "see below" }],
  ["a comment with an end record", { comment: `PK\x05\x06${"\0".repeat(18)}` }],
  ["a comment with another archive", { comment: CLEAN.toString("latin1") }],
  ["one byte before the end record", { beforeEnd: "x" }],
  ["many bytes before the end record", { beforeEnd: "x".repeat(5000) }],
  ["one byte before the directory", { gap: "x" }],
  ["many bytes before the directory", { gap: "x".repeat(5000) }],
  ["text in front", { prefix: "see below\n" }],
  ["one byte in front", { prefix: "x" }],
  ["a line end in front", { prefix: "\r\n" }],
  ["text in front, counted", { countedPrefix: "see below\n" }],
  ["one byte in front, counted", { countedPrefix: "x" }],
  ["a PDF in front", { prefix: "%PDF-1.7\n%%EOF\n" }],
  ["a PDF in front, counted", { countedPrefix: "%PDF-1.7\n%%EOF\n" }],
  [
    "a picture in front",
    { prefix: Buffer.from("ffd8ffe000104a464946000101000001000100 00ffd9".replaceAll(" ", ""), "hex") },
  ],
  ["a picture in front, counted", { countedPrefix: Buffer.from("89504e470d0a1a0a0000000d49484452", "hex") }],
  ["HTML in front", { prefix: "<!doctype html><html>" }],
  ["100 KB in front", { prefix: Buffer.alloc(100_000, 120) }],
  ["100 KB in front, counted", { countedPrefix: Buffer.alloc(100_000, 120) }],
  ["another archive in front", { prefix: CLEAN }],
  ["another archive in front, counted", { countedPrefix: CLEAN }],
  ["another archive behind", { suffix: CLEAN }],
  ["a marker of volumes in front", { prefix: "PK\x07\x08" }],
  ["a marker of one volume in front", { prefix: "PK00" }],
  ["a marker of one volume in front, counted", { countedPrefix: "PK00" }],
  ["one byte behind", { suffix: "x" }],
  ["a line end behind", { suffix: "\r\n" }],
  ["1 KB behind", { suffix: Buffer.alloc(1000, 120) }],
  ["65,600 bytes behind", { suffix: Buffer.alloc(65_600, 120) }],
  ["200 KB of zeros behind", { suffix: Buffer.alloc(200_000) }],
  ["an end record behind", { suffix: Buffer.concat([bytes("PK\x05\x06"), Buffer.alloc(18)]) }],
  ["a smaller number of entries", { statedCount: 1 }],
  ["no entries, it says", { statedCount: 0 }],
  ["a greater number of entries", { statedCount: 9 }],
  ["a smaller directory", { sizeOff: -50 }],
  ["no directory, it says", { sizeOff: -94 }],
  ["a greater directory", { sizeOff: 50 }],
  ["a wrong offset", { offsetOff: 7 }],
  ["a wrong offset, less", { offsetOff: -7 }],
  ["an offset of 0", { offsetOff: -124 }],
  ["no end record", { hasNoEnd: true }],
  ["no directory", { hasNoDirectory: true, hasNoEnd: true }],
  ["an empty directory", { hasNoDirectory: true }],
];

const TARS: readonly (readonly [string, Buffer])[] = [
  ["plain", tar([{ name: "readme.txt" }, { name: "x.js" }])],
  ["a folder", tar([{ name: "a/x.js" }])],
  ["v7", tar([{ name: "x.js", magic: "" }])],
  ["GNU", tar([{ name: "x.js", magic: "ustar  \0" }])],
  ["a prefix", tar([{ name: "x.js", prefix: "a/b" }])],
  ["a prefix that has the name", tar([{ name: "js", prefix: "x." }])],
  [
    "GNU long name",
    tar([
      { name: "././@LongLink", kind: "L", content: "x.js\0", magic: "ustar  \0" },
      { name: "a.txt", magic: "ustar  \0" },
    ]),
  ],
  [
    "GNU long name, harmless, beside it",
    tar([
      { name: "././@LongLink", kind: "L", content: "a.txt\0", magic: "ustar  \0" },
      { name: "x.js", magic: "ustar  \0" },
    ]),
  ],
  [
    "two GNU long names",
    tar([{ name: "L", kind: "L", content: "a.txt\0" }, { name: "L", kind: "L", content: "x.js\0" }, { name: "b.txt" }]),
  ],
  ["pax path", tar([{ name: "p", kind: "x", content: pax("path", "x.js") }, { name: "a.txt" }])],
  [
    "pax path behind other records",
    tar([{ name: "p", kind: "x", content: pax("mtime", "1") + pax("path", "x.js") }, { name: "a.txt" }]),
  ],
  [
    "two pax paths, the last one counts",
    tar([{ name: "p", kind: "x", content: pax("path", "a.txt") + pax("path", "x.js") }, { name: "b.txt" }]),
  ],
  [
    "two pax paths, the first one counts",
    tar([{ name: "p", kind: "x", content: pax("path", "x.js") + pax("path", "a.txt") }, { name: "b.txt" }]),
  ],
  [
    "a pax path within a comment",
    tar([
      { name: "p", kind: "x", content: pax("comment", "\n13 path=a.txt\n") + pax("path", "x.js") },
      { name: "b.txt" },
    ]),
  ],
  ["a harmless pax path beside it", tar([{ name: "p", kind: "x", content: pax("path", "a.txt") }, { name: "x.js" }])],
  ["a pax path with a line end", tar([{ name: "p", kind: "x", content: pax("path", "a\nx.js") }, { name: "b.txt" }])],
  [
    "a pax path with a wrong length",
    tar([{ name: "p", kind: "x", content: pax("path", "x.js", 99) }, { name: "x.js" }]),
  ],
  [
    "a pax path behind 70 KB",
    tar([
      { name: "p", kind: "x", content: pax("comment", "x".repeat(70_000)) + pax("path", "x.js") },
      { name: "b.txt" },
    ]),
  ],
  ["a global pax path", tar([{ name: "p", kind: "g", content: pax("path", "x.js") }, { name: "a.txt" }])],
  [
    "a pax name of a sparse file",
    tar([
      {
        name: "p",
        kind: "x",
        content:
          pax("GNU.sparse.major", "1") +
          pax("GNU.sparse.minor", "0") +
          pax("GNU.sparse.name", "x.js") +
          pax("GNU.sparse.realsize", "23"),
      },
      { name: "a.txt", content: `1\n0\n23\n${"\0".repeat(505)}${HARMLESS}` },
    ]),
  ],
  [
    "a pax size",
    tar([{ name: "p", kind: "x", content: pax("size", "0") }, { name: "a.txt", content: "" }, { name: "x.js" }]),
  ],
  [
    "pax and GNU long name",
    tar([
      { name: "p", kind: "x", content: pax("path", "a.txt") },
      { name: "L", kind: "L", content: "x.js\0" },
      { name: "b.txt" },
    ]),
  ],
  ["an old header of Sun", tar([{ name: "p", kind: "X", content: pax("path", "x.js") }, { name: "a.txt" }])],
  ["a wrong checksum behind a good one", tar([{ name: "a.txt" }, { name: "x.js", sumOff: 1 }])],
  ["a wrong checksum", tar([{ name: "x.js", sumOff: 1 }])],
  [
    "a size in base 256",
    tar([
      { name: "a.txt", size: Buffer.from("80000000000000000000001 7".replaceAll(" ", ""), "hex") },
      { name: "x.js" },
    ]),
  ],
  ["a size with spaces", tar([{ name: "a.txt", size: Buffer.from("        27 \0") }, { name: "x.js" }])],
  [
    "a size that is no number",
    tar([{ name: "a.txt", content: "", size: Buffer.from("zzzzzzzzzzz\0") }, { name: "x.js" }]),
  ],
  [
    "a negative size",
    tar([{ name: "a.txt", content: "", size: Buffer.from("ffffffffffffffffffffffff", "hex") }, { name: "x.js" }]),
  ],
  ["a size beyond the end", tar([{ name: "x.js", size: Buffer.from("00000077777\0") }])],
  ["an unknown kind", tar([{ name: "x.js", kind: "Q" }])],
  ["kind NUL", tar([{ name: "x.js", kind: "\0" }])],
  ["kind 7", tar([{ name: "x.js", kind: "7" }])],
  ["a hard link", tar([{ name: "a.txt" }, { name: "x.js", kind: "1", link: "a.txt", content: "" }])],
  ["a symbolic link", tar([{ name: "a.txt" }, { name: "x.js", kind: "2", link: "a.txt", content: "" }])],
  ["a hard link with content", tar([{ name: "x.js", kind: "1", link: "a.txt" }])],
  ["a folder of that name", tar([{ name: "x.js/", kind: "5", content: "" }])],
  ["a volume's name first", tar([{ name: "volume", kind: "V", content: "" }, { name: "x.js" }])],
  ["behind an end", Buffer.concat([tar([{ name: "a.txt" }]), tar([{ name: "x.js" }])])],
  [
    "behind one empty block",
    Buffer.concat([tar([{ name: "a.txt" }], false), Buffer.alloc(512), tar([{ name: "x.js" }])]),
  ],
  ["behind an empty block", Buffer.concat([Buffer.alloc(512), tar([{ name: "x.js" }])])],
  ["no end", tar([{ name: "x.js" }], false)],
  ["cut", tar([{ name: "a.txt" }, { name: "x.js" }], false).subarray(0, 1024 + 512 + 40)],
  ["an empty name first", tar([{ name: "" }, { name: "x.js" }])],
  ["a name that begins with NUL", tar([{ name: "\0a.txt" }, { name: "x.js" }])],
];

/** An archive in archives. */
function nested(levels: number): Buffer {
  let inner = PLAIN;
  for (let level = 1; level < levels; level++) inner = zip([{ name: `${level}.zip`, content: inner }]);
  return inner;
}

/** Files with an archive in them that does not begin them. */
const POLYGLOTS: readonly (readonly [string, Buffer])[] = [
  ["behind one byte", Buffer.concat([Buffer.from("x"), PLAIN])],
  ["behind a PDF", Buffer.concat([Buffer.from("%PDF-1.7\n%%EOF\n"), PLAIN])],
  ["behind a marker of volumes", Buffer.concat([Buffer.from("PK\x07\x08", "latin1"), PLAIN])],
  ["behind zeros", Buffer.concat([Buffer.alloc(512), PLAIN])],
  ["behind 100 KB", Buffer.concat([Buffer.alloc(100_000, 120), PLAIN])],
  ["behind one byte, counted", zip([README, FILE], { countedPrefix: "x" })],
];

/** Unpacks to much, and takes little room. */
const LARGE: readonly ZipEntry[] = [1, 2].map((n) => ({ name: `${n}.txt`, content: Buffer.alloc(30_000_000) }));

/** A file without a name in front of the file. */
const NAMELESS = tar([{ name: "", content: "" }, { name: "x.js" }], false);

interface Row {
  readonly what: string;
  readonly archive: Buffer;
  readonly name?: string;
  readonly type?: string;
}

function rows(): Row[] {
  const inTar = tar([{ name: "a.zip", content: PLAIN }]);
  return [
    ...ENTRIES.map(([what, ...entries]) => ({ what: `zip, an entry: ${what}`, archive: zip([README, ...entries]) })),
    ...LAYOUTS.map(([what, options]) => ({ what: `zip: ${what}`, archive: zip([README, FILE], options) })),
    { what: "zip: cut in the end record", archive: PLAIN.subarray(0, -5) },
    { what: "zip: cut in the directory", archive: PLAIN.subarray(0, -60) },
    { what: "zip: two archives, each whole", archive: Buffer.concat([PLAIN, CLEAN]) },
    { what: "zip: two archives, the file in the last", archive: Buffer.concat([CLEAN, PLAIN]) },
    { what: "zip: another archive stored in it", archive: zip([{ name: "a.txt", method: 0, content: PLAIN }]) },
    ...["a.png", "a.docx", "a.jar", "a.txt", "a", "a.zipx"].map((name) => ({
      what: `zip called ${name}`,
      archive: PLAIN,
      name,
    })),
    { what: "zip that is called text", archive: PLAIN, name: "a.txt", type: "text/plain" },
    ...TARS.map(([what, archive]) => ({ what: `tar: ${what}`, archive, name: "a.tar" })),
    ...TARS.slice(0, 3).map(([what, archive]) => ({ what: `tar of another name: ${what}`, archive, name: "a.dat" })),
    { what: "gzip", archive: gzip(HARMLESS), name: "x.js.gz" },
    { what: "gzip, the name in capitals", archive: gzip(HARMLESS), name: "X.JS.GZ" },
    { what: "gzip, a name of its own", archive: gzip(HARMLESS, { name: "x.js" }), name: "a.gz" },
    { what: "gzip, a harmless name of its own", archive: gzip(HARMLESS, { name: "a.txt" }), name: "x.js.gz" },
    { what: "gzip, a folder in its own name", archive: gzip(HARMLESS, { name: "a/x.js" }), name: "a.gz" },
    { what: "gzip, a comment too", archive: gzip(HARMLESS, { name: "x.js", comment: "c" }), name: "a.gz" },
    {
      what: "gzip, extra bytes too",
      archive: gzip(HARMLESS, { name: "x.js", extra: Buffer.alloc(300, 1) }),
      name: "a.gz",
    },
    {
      what: "gzip, much extra",
      archive: gzip(HARMLESS, { name: "x.js", extra: Buffer.alloc(60_000, 1) }),
      name: "a.gz",
    },
    {
      what: "gzip, two members",
      archive: Buffer.concat([gzip(HARMLESS, { name: "a.txt" }), gzip(HARMLESS, { name: "x.js" })]),
      name: "a.gz",
    },
    { what: "gzip of a zip", archive: gzip(PLAIN), name: "a.zip.gz" },
    { what: "gzip of a tar", archive: gzip(tar([{ name: "x.js" }])), name: "a.tgz" },
    { what: "gzip of a tar of another name", archive: gzip(tar([{ name: "x.js" }])), name: "a.dat" },
    {
      what: "gzip of a tar in two members",
      archive: Buffer.concat([gzip(tar([{ name: "a.txt" }], false)), gzip(tar([{ name: "x.js" }]))]),
      name: "a.tar.gz",
    },
    {
      what: "gzip of a tar with bytes behind it",
      archive: Buffer.concat([gzip(tar([{ name: "x.js" }])), Buffer.from("x")]),
      name: "a.tar.gz",
    },
    { what: "gzip of a tar, cut", archive: gzip(tar([{ name: "x.js" }])).subarray(0, -6), name: "a.tar.gz" },
    { what: "gzip of a gzip", archive: gzip(gzip(HARMLESS, { name: "x.js" })), name: "a.gz.gz" },
    { what: "zip in tar", archive: inTar, name: "a.tar" },
    { what: "zip in tar in gzip", archive: gzip(inTar), name: "a.tar.gz" },
    { what: "tar in zip", archive: zip([{ name: "a.tar", content: tar([{ name: "x.js" }]) }]) },
    { what: "gzip in zip", archive: zip([{ name: "x.js.gz", content: gzip(HARMLESS) }]) },
    {
      what: "gzip in zip, a name of its own",
      archive: zip([{ name: "a.gz", content: gzip(HARMLESS, { name: "x.js" }) }]),
    },
    ...POLYGLOTS.flatMap(([what, file]) => [
      { what: `zip in zip: ${what}`, archive: zip([{ name: "a.pdf", content: file }]) },
      { what: `zip stored in zip: ${what}`, archive: zip([{ name: "a.pdf", content: file, method: 0 }]) },
      { what: `zip in tar: ${what}`, archive: tar([{ name: "a.dat", content: file }]), name: "a.tar" },
      { what: `zip in gzip: ${what}`, archive: gzip(file), name: "a.pdf.gz" },
      { what: `zip: ${what}, of another name`, archive: file, name: "a.pdf" },
    ]),
    {
      what: "zip in zip, behind 60 MB of others",
      archive: zip([...LARGE, { name: "a.pdf", content: Buffer.from(`x${PLAIN.toString("latin1")}`, "latin1") }]),
    },
    ...[
      "%PDF-1.7",
      "\x89PNG\r\n\x1a\n",
      "GIF89a",
      "PK\x03\x04",
      "\x1f\x8b\x08",
      "\x1f\x8b",
      "BZh9",
      "7z\xbc\xaf\x27\x1c",
      "MSCF",
    ].map((first) => ({
      what: `tar, its first file is called ${JSON.stringify(first)}`,
      archive: tar([{ name: first }, { name: "x.js" }]),
      name: "a.dat",
    })),
    ...[..."123456DMNSVQ"].flatMap((kind) => [
      {
        what: `tar: kind ${kind} with a header in its content`,
        archive: tar([{ name: "a.txt" }, { name: "b", kind, link: "a.txt", content: tar([{ name: "x.js" }], false) }]),
        name: "a.tar",
      },
      {
        what: `tar: kind ${kind} with a header without a name in its content`,
        archive: tar([{ name: "a.txt" }, { name: "b", kind, link: "a.txt", content: NAMELESS }]),
        name: "a.tar",
      },
      {
        what: `tar: kind ${kind} with an empty block and a header in its content`,
        archive: tar([{ name: "a.txt" }, { name: "b", kind, content: Buffer.concat([Buffer.alloc(512), NAMELESS]) }]),
        name: "a.tar",
      },
    ]),
    ...["0", "\0", "7"].map((kind) => ({
      what: `tar: a folder by its name, of kind ${JSON.stringify(kind)}, with a header in its content`,
      archive: tar([{ name: "a.txt" }, { name: "b/", kind, magic: "", content: NAMELESS }]),
      name: "a.tar",
    })),
    {
      what: "tar: a long name of 70 KB",
      archive: tar([{ name: "L", kind: "L", content: `${"./".repeat(35_000)}x.js\0` }, { name: "a.txt" }]),
      name: "a.tar",
    },
    {
      what: "tar: a first file without a name, of old Unix",
      archive: tar([
        { name: "", magic: "", content: "" },
        { name: "x.js", magic: "" },
      ]),
      name: "a.tar",
    },
    {
      what: "zip in zip, a name of 255 characters",
      archive: zip([{ name: `${"a".repeat(251)}.zip`, content: PLAIN }]),
    },
    { what: "zip behind a broken gzip", archive: Buffer.concat([Buffer.from("1f8b08", "hex"), PLAIN]) },
    { what: "zip behind a gzip", archive: Buffer.concat([gzip(HARMLESS), PLAIN]) },
    { what: "zip behind a bzip2", archive: Buffer.concat([COMPRESSED[0]![1], PLAIN]) },
    { what: "zip behind a tar", archive: Buffer.concat([tar([{ name: "a.txt" }]), PLAIN]), name: "a.tar" },
    { what: "tar behind a zip", archive: Buffer.concat([CLEAN, tar([{ name: "x.js" }])]), name: "a.tar" },
    ...[2, 3, 4, 5, 10].map((levels) => ({ what: `zip, ${levels} in each other`, archive: nested(levels) })),
    ...SAMPLES.flatMap(([what, archive]) => [
      { what, archive, name: "a.dat" },
      { what: `${what}, in a zip`, archive: zip([{ name: "a.dat", content: archive }]) },
    ]),
    ...COMPRESSED.map(([ending, archive], index) => ({
      what: `${index + 1}: x.js.${ending}`,
      archive,
      name: `x.js.${ending}`,
    })),
    { what: "rar 5", archive: rar("x.js", HARMLESS), name: "a.rar" },
    {
      what: "rar 5 behind a program",
      archive: Buffer.concat([Buffer.alloc(500, 120), rar("x.js", HARMLESS)]),
      name: "a.dat",
    },
    { what: "rar 4", archive: rar4("x.js", HARMLESS), name: "a.rar" },
    { what: "rar 4 of another name", archive: rar4("x.js", HARMLESS), name: "a.dat" },
    { what: "7z behind other bytes", archive: Buffer.concat([Buffer.alloc(500, 120), SAMPLES[0]![1]]), name: "a.dat" },
    { what: "lha", archive: lha("x.js", HARMLESS), name: "a.dat" },
    { what: "lha called a.lzh", archive: lha("x.js", HARMLESS), name: "a.lzh" },
    { what: "cab", archive: cab("x.js", HARMLESS), name: "a.dat" },
    {
      what: "cab behind other bytes",
      archive: Buffer.concat([Buffer.alloc(500, 120), cab("x.js", HARMLESS)]),
      name: "a.dat",
    },
    { what: "iso", archive: iso("X.JS;1", HARMLESS), name: "a.dat" },
    { what: "iso, in a zip", archive: zip([{ name: "a.dat", content: iso("X.JS;1", HARMLESS) }]) },
    { what: "iso, in a gzip", archive: gzip(iso("X.JS;1", HARMLESS)), name: "a.gz" },
  ];
}

export interface ArchiveEvasion extends Evasion {
  /** The archive itself, and its name in the message. */
  readonly archive: Buffer;
  readonly archiveName: string;
}

export function archives(): ArchiveEvasion[] {
  return rows().map(({ what, archive, name = "a.zip", type = "application/octet-stream" }) => ({
    kind: "archives",
    name: what,
    eml: Buffer.from(withFile(name, archive, type), "latin1"),
    archive,
    archiveName: name,
  }));
}
