/**
 * The reader of MIME over thousands of mails: it sees the parts that mailsplit and Python's `email` see, each with the same
 * content; and a message that is only read is not changed.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { defineFilter, type Mime } from "../../src/index.ts";
import { openSession } from "../../src/testing/index.ts";
import { formatMail, parseMail } from "../../src/testing/mail.ts";
import { describeWith } from "../support/available.ts";
import { type CorpusMail, corpusMails, corpusTool } from "../support/corpus.ts";
import { type Judge, type Leaf, MAILSPLIT, PYTHON } from "../support/judges.ts";
import { FEWEST_MAIL_FILES, mailFiles, mailFilesTool } from "../support/mail-files.ts";
import { deliver, leavesOf, type OurLeaf } from "./delivery.ts";

setDefaultTimeout(300_000);

/** Mails in which a judge sees other parts, by the end of the mail's name, and what this judge does there. */
const DIFFERENCES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  mailsplit: {
    test_honey: "passes over a part without header and content",
    test_missingboundary: "reads a header behind the empty line that a forwarded message begins with",
  },
  "Python email": {
    test_honey: "passes over a part without header and content",
    "testin_crlf.hdr": "takes a comment for a piece of the type",
    test_test8: "reads the header of a forwarded message before it decodes it",
    "spam-rejection15.msg": "takes what stands behind a quoted boundary for a piece of it",
  },
};

/** Reads everything that there is. */
function readAll(mime: Mime): void {
  void [mime.text, mime.html, mime.links(), mime.isSealed, mime.attachments];
  for (const part of mime.walk()) {
    void [part.names, part.charset, part.disposition, part.contentId, part.isAttachment, [...part.headers]];
    if (part.parts.length === 0) part.text();
  }
}

/** How our leaves differ from a judge's; null if they do not. */
function differenceOf(ours: readonly OurLeaf[], judged: readonly Leaf[]): string | null {
  const types = (leaves: readonly { readonly type: string }[]) => leaves.map(({ type }) => type).join(" ");
  if (types(ours) !== types(judged)) return `[${types(ours)}], not [${types(judged)}]`;
  const index = ours.findIndex((leaf, at) => !isSame(leaf, judged[at]!));
  return index === -1 ? null : `leaf ${index} has ${ours[index]!.size} bytes, not ${judged[index]!.size}`;
}

/** An empty line that is all of a content belongs to the delimiter (RFC 2046 5.1.1); mailsplit keeps it. */
function isSame(leaf: OurLeaf, judged: Leaf): boolean {
  return judged.isBroken || leaf.hash === judged.hash || (leaf.size === 0 && judged.size === 2);
}

interface Result {
  readonly count: number;
  /** A mail with flaws is one that programs may read differently. */
  readonly flawed: number;
  readonly changed: readonly string[];
  readonly differences: readonly string[];
}

async function readEach(mails: Iterable<CorpusMail>, judges: readonly Judge[]): Promise<Result> {
  let read: ReturnType<typeof leavesOf> | null = null;
  const filter = defineFilter({
    collectBody: true,
    eom({ message }) {
      const mime = message.mime();
      readAll(mime);
      read = leavesOf(mime);
    },
  });
  await using session = await openSession(filter);
  let count = 0;
  let flawed = 0;
  const changed: string[] = [];
  const differences: string[] = [];
  for (const { name, eml } of mails) {
    count += 1;
    const mail = parseMail(eml);
    const bytes = formatMail(mail);
    read = null;
    const delivered = await deliver(session.client, mail);
    if (!Buffer.from(bytes).equals(formatMail(delivered))) changed.push(name);
    const { leaves, flaws } = read!;
    if (flaws.length > 0) {
      flawed += 1;
      continue;
    }
    for (const judge of judges) {
      const difference = differenceOf(leaves, await judge.leaves(bytes));
      const isKnown = Object.keys(DIFFERENCES[judge.name] ?? {}).some((end) => name.endsWith(end));
      if ((difference !== null) !== isKnown) differences.push(`${name}, ${judge.name}: ${difference ?? "as ours"}`);
    }
  }
  expect(session.reports.failures).toEqual([]);
  return { count, flawed, changed, differences };
}

describeWith([corpusTool(), mailFilesTool(), PYTHON.tool], "parts, as others see them", () => {
  test("6,046 mails of the public corpus", async () => {
    await using mailsplit = MAILSPLIT.open();
    await using python = PYTHON.open();
    const { count, flawed, changed, differences } = await readEach(corpusMails(), [mailsplit, python]);
    expect(differences).toEqual([]);
    expect(changed).toEqual([]);
    expect(count).toBe(6046);
    // One of the 4,150 wanted mails; the others are spam.
    expect(flawed / count).toBeLessThan(0.02);
  });

  test("the mail files that other mail programs are tested with", async () => {
    await using mailsplit = MAILSPLIT.open();
    await using python = PYTHON.open();
    const { count, flawed, changed, differences } = await readEach(mailFiles(), [mailsplit, python]);
    expect(differences).toEqual([]);
    expect(changed).toEqual([]);
    expect(count).toBeGreaterThanOrEqual(FEWEST_MAIL_FILES);
    // Many are made to test how broken mail is read.
    expect(flawed / count).toBeLessThan(0.1);
  });
});
