/**
 * Every filter in handlers/ over thousands of real mails: none may fail. What disclaimer and banner make of them is read
 * again and compared with what came in.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { Glob } from "bun";
import attachments from "../../handlers/attachments.ts";
import banner from "../../handlers/banner.ts";
import disclaimer from "../../handlers/disclaimer.ts";
import type { AnyFilter } from "../../src/handler/types.ts";
import { type Mime, readMessage } from "../../src/index.ts";
import { encodeText } from "../../src/protocol/bytes.ts";
import { type FilterOutcome, runFilter } from "../../src/testing/index.ts";
import { describeWith } from "../support/available.ts";
import { type CorpusMail, corpusMails, corpusTool } from "../support/corpus.ts";
import { tempDir, type TempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const HANDLERS = join(import.meta.dir, "..", "..", "handlers");
const MAILS = 6046;
const TIMEOUT_MS = 600_000;
const ENVELOPE = { from: "alice@example.com", to: ["bob@example.net"] };

/** Files that options name. */
const FILES = {
  "s1.pem": generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
  "senders.txt": "spam@example.org\n.example.org REJECT\n",
  "clients.txt": "198.51.100.0/24\n",
};

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
    { options: { action: "replace", names: ["*"], types: ["*"], allow_unlisted: false }, every: 1 },
  ],
  // Its results are looked at in a test of their own.
  banner: [{ options: { text: "Außen!", strip_from_replies: true }, every: 4 }],
  "bcc-archive": [{ options: { address: "archive@example.com" }, every: 4 }],
  // Its results are looked at in a test of their own.
  disclaimer: [{ options: { text: "Confidential." }, every: 4 }],
  "dkim-sign": [
    {
      options: {
        keys: ["com", "net", "org"].map((domain) => ({ domain: `example.${domain}`, selector: "s1", file: "s1.pem" })),
        own_networks: ["127.0.0.1"],
      },
      every: 4,
    },
  ],
  "dns-lists": [
    {
      options: {
        lists: ["helo", "sender", "from", "links"].map((of) => ({ zone: "list.example", of })),
        unconfirmed_score: 1,
        action: "mark",
        header: "X-Lists",
      },
      every: 2,
    },
  ],
  greylist: [{ options: {}, every: 4 }],
  "header-policy": [{ options: { rules: RULES }, every: 2 }],
  "mail-auth": [{ options: { authserv_id: "mx.example.com" }, every: 4 }],
  "rate-limit": [{ options: { rules: [{ key: "client", limit: "1GB", per: "1d", count: "bytes" }] }, every: 4 }],
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
    for (const [name, text] of Object.entries(FILES)) writeFileSync(join(dir.path, name), text, { mode: 0o600 });
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
  const HTML = "<p>Vertraulich &#8211; nicht weitergeben</p>";

  test(
    "attachments refuses by default at most one of 1,000 mails that people wanted",
    async () => {
      using _ = spyOn(console, "log").mockImplementation(() => {});
      const wanted = [...corpusMails()].filter(({ name }) => /^(?:easy|hard)-ham/.test(name));
      const refused: string[] = [];
      for (const { name, eml } of wanted) {
        const { failures, verdict } = await runFilter(attachments, { ...ENVELOPE, eml });
        if (failures.length > 0 || verdict !== "accept") refused.push(name);
      }
      expect(wanted.length).toBeGreaterThan(4000);
      expect(refused.length, refused.join(", ")).toBeLessThanOrEqual(wanted.length / 1000);
    },
    TIMEOUT_MS,
  );

  test.each<[string, AnyFilter, isOnTop: boolean, least: number]>([
    // The others are signed, or mail programs see other parts in them.
    ["disclaimer", disclaimer as AnyFilter, false, 0.9],
    ["banner", banner as AnyFilter, true, 0.97],
  ])(
    `%s: all ${MAILS} read again`,
    async (_, filter, isOnTop, least) => {
      let changed = 0;
      const options = { text: TEXT, html: HTML };
      const count = await overCorpus(filter, { options, every: 1 }, dir.path, (mail, outcome) => {
        if (outcome.modifications.length === 0) return;
        changed += 1;
        try {
          compare(readMessage(withoutFromLine(mail.eml)), readMessage(encodeText(outcome.message)), isOnTop);
        } catch (error) {
          throw new Error(`${mail.name}: ${String(error)}`, { cause: error });
        }
      });
      expect(count).toBe(MAILS);
      expect(changed).toBeGreaterThan(MAILS * least);
    },
    TIMEOUT_MS,
  );

  /** Only bodies have changed, and those have the words once. */
  function compare(before: Mime, after: Mime, isOnTop: boolean): void {
    for (const flaw of after.flaws) expect(before.flaws).toContain(flaw);
    const old = [...before.walk()];
    const now = [...after.walk()];
    if (now.length > old.length) {
      // It had no text: the words have a part of their own.
      const rest = now.slice(1).filter((part) => part.type !== "text/plain" || part.text().trim() !== TEXT);
      expect(rest.map(({ type }) => type).slice(-old.length)).toEqual(old.map(({ type }) => type));
      return;
    }
    expect(now.map(({ type }) => type)).toEqual(old.map(({ type }) => type));
    let withWords = 0;
    for (const [index, part] of now.entries()) {
      const was = old[index]!;
      if (part.parts.length > 0 || Buffer.compare(part.bytes(), was.bytes()) === 0) continue;
      withWords += 1;
      const [oldText, text] = [spaceless(was.text()), spaceless(part.text())];
      // Bytes that are in no charset stay, and the words are in ASCII.
      const words = [HTML, TEXT, TEXT.replace("–", "?")].map(spaceless).find((each) => text.includes(each)) ?? TEXT;
      const at = isOnTop ? text.indexOf(words) : text.lastIndexOf(words);
      expect(at).not.toBe(-1);
      expect(text.slice(0, at) + text.slice(at + words.length)).toBe(oldText);
      if (part.type === "text/plain") expect(at).toBe(isOnTop ? 0 : text.length - words.length);
      if (index === 0) continue;
      const names = [...part.headers].map(({ name }) => name.toLowerCase());
      expect(names.length).toBe(new Set(names).size);
    }
    expect(withWords).toBeGreaterThan(0);
  }
});

/** A message of a mailbox file as a client sends it. */
function withoutFromLine(eml: string | Uint8Array): Uint8Array {
  const text = Buffer.from(eml).toString("latin1");
  return Buffer.from(text.replace(/^From .*\n/, "").replaceAll(/\r*\n/g, "\r\n"), "latin1");
}

/** White space at the seams differs. */
function spaceless(text: string): string {
  return text.replaceAll(/\s+/g, "");
}
