/**
 * A banner and a footer over thousands of mails: all other parts stay byte for byte, as mailsplit and Python's `email` see
 * them, the text that was there is still there as Python decodes it, each field of a part stands once, and the message has no new flaw. In pieces of 97 bytes it is the same.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { defineFilter, readMessage, UsageError } from "../../src/index.ts";
import { openSession } from "../../src/testing/index.ts";
import { formatMail, type MailContent, parseMail } from "../../src/testing/mail.ts";
import { describeWith } from "../support/available.ts";
import { type CorpusMail, corpusMails, corpusTool } from "../support/corpus.ts";
import { type Judge, type Leaf, MAILSPLIT, PYTHON } from "../support/judges.ts";
import { mailFiles, mailFilesTool } from "../support/mail-files.ts";
import { deliver } from "./delivery.ts";

setDefaultTimeout(300_000);

/** The dash is in few charsets: many parts have to be converted. */
const WORDS = { text: "Vertraulich – nicht weitergeben", html: "<p>Vertraulich – nicht weitergeben</p>" };
const PLACES = ["banner", "footer"] as const;

/** One mail of so many is also sent in small pieces. */
const PIECES_EVERY = 10;
const SMALL_PIECE = 97;

/** Mails of which a judge sees other parts in any case, by the end of the mail's name, and what it does there. */
const ODD: Readonly<Record<string, string>> = {
  test_honey: "passes over a part without header and content, which gets the words",
  "testin_crlf.hdr": "takes a comment for a piece of the type",
  "message-partial.0.eml": "reads the piece of a message, which becomes a part, as a message",
  "plain_utf16.mbox": "reads half a character of UTF-16 at the end",
  "warning-4.msg": "reads UTF-7",
};

/** A multipart of ours has a new boundary each time. */
function withoutBoundary(message: Uint8Array): string {
  return Buffer.from(message)
    .toString("latin1")
    .replaceAll(/=_[0-9a-f-]{36}/g, "=_");
}

/** What is wrong with an edited message by a judge; null if nothing is. */
function problemOf(before: readonly Leaf[], after: readonly Leaf[], place: (typeof PLACES)[number]): string | null {
  // A message without text gets a part of its own.
  const isAdded = after.length === before.length + 1;
  const kept = isAdded ? (place === "banner" ? after.slice(1) : after.slice(0, -1)) : after;
  if (kept.length !== before.length) return `${after.length} leaves, there were ${before.length}`;
  let edited = 0;
  for (const [index, leaf] of kept.entries()) {
    const was = before[index]!;
    const twice = leaf.fields.find((name, at) => name.startsWith("content-") && leaf.fields.indexOf(name) !== at);
    if (twice !== undefined && was.fields.indexOf(twice) === was.fields.lastIndexOf(twice)) return `${twice} twice`;
    if (leaf.hash !== was.hash) {
      edited += 1;
      if (!/^(?:text\/|application\/xhtml\+xml$)/.test(was.type)) return `leaf ${index}, ${was.type}, was changed`;
      const lost = was.text === undefined || was.isBroken ? null : lossOf(was.text, leaf.text!);
      if (lost !== null) return `leaf ${index} ${lost}`;
    } else if (before.length > 1 && leaf.raw !== was.raw) {
      return `leaf ${index} was written anew`;
    }
  }
  return edited > 0 || isAdded ? null : "nothing was changed";
}

/** How the text of a part is not the one that was there with the words in it; null if it is. */
function lossOf(before: string, after: string): string | null {
  const [was, is] = [comparable(before), comparable(after)];
  let same = 0;
  while (same < was.length && was[same] === is[same]) same += 1;
  if (!is.endsWith(was.slice(same))) {
    return `lost ${JSON.stringify(was.slice(same, same + 40))} of ${JSON.stringify(is.slice(same, same + 40))}`;
  }
  const times = is.split("Vertraulich").length - was.split("Vertraulich").length;
  return times === 1 ? null : `has the words ${times} times`;
}

/** The kinds of line ends, the last line end, and bytes without a character are not compared. */
function comparable(text: string): string {
  return text
    .replaceAll(/\r\n?/g, "\n")
    .replace(/\n+$/, "")
    .replaceAll(/[\x80-\x9f]/g, "\ufffd");
}

async function decorate(mails: Iterable<CorpusMail>, judges: readonly Judge[]) {
  let place: (typeof PLACES)[number] = "banner";
  let isEdited = false;
  const filter = defineFilter({
    collectBody: true,
    eom({ message }) {
      const mime = message.mime();
      isEdited = mime.flaws.length === 0;
      if (!isEdited) return;
      try {
        mime[place](WORDS);
      } catch (error) {
        if (!(error instanceof UsageError) || error.code !== "PMILTER_ERR_SEALED") throw error;
        isEdited = false;
      }
    },
  });
  await using session = await openSession(filter);
  let count = 0;
  let decorated = 0;
  const problems: string[] = [];
  for (const { name, eml } of mails) {
    const mail: MailContent = parseMail(eml);
    const before = formatMail(mail);
    const index = count++;
    for (const [at, each] of PLACES.entries()) {
      place = each;
      const delivered = await deliver(session.client, mail);
      const after = formatMail(delivered);
      if (!isEdited) {
        if (!Buffer.from(before).equals(after)) problems.push(`${name}, ${place}: changed, and not edited`);
        continue;
      }
      decorated += 1;
      const { flaws } = readMessage(after);
      if (flaws.length > 0) problems.push(`${name}, ${place}: ${flaws.join("; ")}`);
      if (index % PIECES_EVERY === 0) {
        const again = formatMail(await deliver(session.client, mail, SMALL_PIECE));
        if (withoutBoundary(after) !== withoutBoundary(again))
          problems.push(`${name}, ${place}: other bytes in small pieces`);
      }
      // Each mail is judged once, with one of the two: judges take their time.
      if (index % PLACES.length !== at || Object.keys(ODD).some((end) => name.endsWith(end))) continue;
      for (const judge of judges) {
        const problem = problemOf(await judge.leaves(before), await judge.leaves(after), place);
        if (problem !== null) problems.push(`${name}, ${place}, ${judge.name}: ${problem}`);
      }
    }
  }
  expect(session.reports.failures).toEqual([]);
  return { share: decorated / (count * PLACES.length), problems };
}

describeWith([corpusTool(), PYTHON.tool], "a banner or a footer changes no other part", () => {
  test("of 6,046 mails of the public corpus", async () => {
    await using mailsplit = MAILSPLIT.open();
    await using python = PYTHON.open();
    const { share, problems } = await decorate(corpusMails(), [mailsplit, python]);
    expect(problems).toEqual([]);
    // The others are signed, or mail programs see other parts in them.
    expect(share).toBeGreaterThan(0.9);
  });
});

describeWith([mailFilesTool(), PYTHON.tool], "a banner or a footer changes no other part", () => {
  test("of the mail files that other mail programs are tested with", async () => {
    await using mailsplit = MAILSPLIT.open();
    await using python = PYTHON.open();
    const { share, problems } = await decorate(mailFiles(), [mailsplit, python]);
    expect(problems).toEqual([]);
    expect(share).toBeGreaterThan(0.7);
  });
});
