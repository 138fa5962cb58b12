/**
 * Every filter in handlers/ over thousands of real mails: none may fail. What the disclaimer makes of them is read again
 * and compared with what came in.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Glob } from "bun";
import iconv from "iconv-lite";
import libmime from "libmime";
import { decode as decodeQuotedPrintable } from "libqp";
import { decode as decodeCharset } from "libmime/lib/charset.js";
import disclaimer from "../../handlers/disclaimer.ts";
import { type Part, readMime } from "../../handlers/lib/mime.ts";
import type { AnyFilter } from "../../src/handler/types.ts";
import { type FilterOutcome, parseMail, runFilter } from "../../src/testing/index.ts";
import { describeWith } from "../support/available.ts";
import { type CorpusMail, corpusMails, corpusTool } from "../support/corpus.ts";
import { tempDir, type TempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const HANDLERS = join(import.meta.dir, "..", "..", "handlers");
const MAILS = 6046;
const TIMEOUT_MS = 600_000;
const ENVELOPE = { from: "alice@example.com", to: ["bob@example.net"] };

/** Files that options name. */
const FILES = { "senders.txt": "spam@example.org\n.example.org REJECT\n", "clients.txt": "198.51.100.0/24\n" };

interface Run {
  readonly options: Readonly<Record<string, unknown>>;
  /** Each mail, or each second one, …: the run time of all together is to stay below a minute. */
  readonly every: number;
}

const RULES = [
  { rule: "authentication_results", action: "fix" },
  { rule: "duplicates", action: "observe" },
  { rule: "date_missing", action: "fix" },
  { rule: "date_future", hours: 48, action: "quarantine" },
  { rule: "limit", header: "Received", max_count: 5, action: "reject" },
  { rule: "remove", header: "X-Spam-*", action: "fix" },
  { rule: "rewrite", header: "User-Agent", pattern: "/[\\d.]+", replace: "", action: "fix" },
];

/** By file name, all filters that there are. */
const RUNS: Readonly<Record<string, readonly Run[]>> = {
  "access-lists": [
    {
      options: {
        lists: [
          { match: "client", file: "clients.txt" },
          { match: "sender", file: "senders.txt" },
        ],
      },
      every: 4,
    },
  ],
  attachments: [
    {
      options: { action: "report", names: ["*"], types: ["*"], allow_encrypted: false, allow_unlisted: false },
      every: 1,
    },
    { options: {}, every: 4 },
  ],
  "bcc-archive": [{ options: { address: "archive@example.com" }, every: 4 }],
  // Its results are looked at in a test of their own.
  disclaimer: [{ options: { text: "Confidential." }, every: 4 }],
  "header-policy": [{ options: { rules: RULES }, every: 2 }],
  stamp: [{ options: {}, every: 4 }],
  "subject-tag": [{ options: { tag: "[außen]" }, every: 2 }],
};

/** The filters in handlers/, by file name. */
async function shippedFilters(): Promise<Map<string, AnyFilter>> {
  const filters = new Map<string, AnyFilter>();
  for (const file of [...new Glob("*.ts").scanSync({ cwd: HANDLERS })].toSorted()) {
    const { default: exported } = (await import(join(HANDLERS, file))) as { default: unknown };
    if (typeof exported === "object" && exported !== null) filters.set(basename(file, ".ts"), exported as AnyFilter);
  }
  return filters;
}

/** Runs a filter over the corpus; what the filter prints is of no interest. */
async function overCorpus(
  filter: AnyFilter,
  { options, every }: Run,
  folder: string,
  look: (mail: CorpusMail, outcome: FilterOutcome) => void = () => {},
): Promise<number> {
  const failed: string[] = [];
  const { error } = console;
  console.error = () => {};
  let count = 0;
  let index = 0;
  try {
    for (const mail of corpusMails()) {
      if (index++ % every !== 0) continue;
      count += 1;
      const outcome = await runFilter(filter, { ...ENVELOPE, eml: mail.eml, options, folder });
      if (outcome.failures.length > 0) failed.push(`${mail.name}: ${outcome.failures[0]!.message}`);
      look(mail, outcome);
    }
  } finally {
    console.error = error;
  }
  expect(failed).toEqual([]);
  return count;
}

describeWith([corpusTool()], "the corpus of real mails", () => {
  let dir: TempDir;
  beforeAll(async () => {
    dir = await tempDir("corpus");
    for (const [name, text] of Object.entries(FILES)) writeFileSync(join(dir.path, name), text);
  });
  afterAll(() => dir[Symbol.asyncDispose]());

  test("every filter in handlers/ has its options here", async () => {
    expect([...(await shippedFilters()).keys()]).toEqual(Object.keys(RUNS).toSorted());
  });

  for (const [name, runs] of Object.entries(RUNS)) {
    for (const run of runs) {
      test(
        `${name}: no failure in ${Math.ceil(MAILS / run.every)} mails`,
        async () => {
          const filter = (await shippedFilters()).get(name)!;
          expect(await overCorpus(filter, run, dir.path)).toBe(Math.ceil(MAILS / run.every));
        },
        TIMEOUT_MS,
      );
    }
  }

  // The dash is in UTF-8 and windows-1252 alone: many parts must be converted.
  const TEXT = "Vertraulich – nicht weitergeben";
  test(
    `disclaimer: all ${MAILS} read again`,
    async () => {
      let changed = 0;
      const count = await overCorpus(disclaimer, { options: { text: TEXT }, every: 1 }, dir.path, (mail, outcome) => {
        const before = readMail(mail.eml);
        const after = readMail(outcome.message);
        if (outcome.modifications.length === 0) {
          expect(after.body.equals(before.body)).toBe(true);
          return;
        }
        changed += 1;
        try {
          expect(compare(before, before.root, after, after.root, true)).toBeGreaterThan(0);
        } catch (error) {
          throw new Error(`${mail.name}: ${String(error)}`, { cause: error });
        }
      });
      expect(count).toBe(MAILS);
      // The others are signed, broken, or have bytes that no charset is named for.
      expect(changed).toBeGreaterThan(MAILS * 0.9);
    },
    TIMEOUT_MS,
  );

  /** Compares two parts and all below; gives the number of those that got the disclaimer. */
  function compare(before: Read, old: Part, after: Read, now: Part, isRoot: boolean): number {
    expect([now.type, now.boundary, now.parts.length]).toEqual([old.type, old.boundary, old.parts.length]);
    if (!isRoot) expect(otherFields(now)).toEqual(otherFields(old));
    const oldBytes = before.body.subarray(old.start, old.end);
    const bytes = after.body.subarray(now.start, now.end);
    if (old.parts.length > 0) {
      // What stands before the first part and behind the last one.
      const outside = ({ body }: Read, { start, end, parts }: Part) =>
        body.toString("latin1", start, parts[0]!.head) + body.toString("latin1", parts.at(-1)!.end, end);
      expect(outside(after, now)).toBe(outside(before, old));
      return old.parts.reduce((sum, part, n) => sum + compare(before, part, after, now.parts[n]!, false), 0);
    }
    if (bytes.equals(oldBytes)) return 0;
    const [oldText, text] = [textOf(old, oldBytes), textOf(now, bytes)];
    if (old.type === "text/plain") {
      expect(text.trimEnd().endsWith(TEXT)).toBe(true);
      expect(text.startsWith(oldText)).toBe(true);
    } else {
      expect(old.type).toBe("text/html");
      const [first = "", ...rest] = text.split(/\r?\n?<p>Vertraulich &#8211; nicht weitergeben<\/p>\r?\n?/);
      expect(rest).toHaveLength(1);
      expect(oldText.replaceAll(/[\r\n]/g, "")).toBe((first + rest[0]!).replaceAll(/[\r\n]/g, ""));
    }
    return 1;
  }
});

interface Read {
  readonly root: Part;
  readonly body: Buffer;
}

function readMail(eml: string | Uint8Array): Read {
  const { headers, body } = parseMail(eml);
  return { root: readMime(headers, body).root, body: Buffer.from(body) };
}

/** The fields that the disclaimer has no business with. */
function otherFields(part: Part): string[] {
  return part.fields
    .filter(({ name }) => !/^content-(?:type|transfer-encoding)$/i.test(name))
    .map(({ name, value }) => `${name}: ${value}`);
}

/** The text of a part, decoded by the libraries alone. */
function textOf(part: Part, bytes: Buffer): string {
  let content = bytes;
  if (part.encoding === "base64") content = Buffer.from(bytes.toString("latin1"), "base64");
  if (part.encoding === "quoted-printable") content = decodeQuotedPrintable(bytes);
  const charset = part.params["charset"] ?? "us-ascii";
  if (/^us-ascii$|^$/i.test(charset)) return content.toString("utf8");
  if (!iconv.encodingExists(charset)) return decodeCharset(content, charset);
  return iconv.decode(content, iconv.encodingExists(charset) ? charset : libmime.normalizeCharset(charset));
}
