/**
 * Edits of MIME on messages of any kind: nothing but a UsageError comes out, parts that nobody edited keep their contents,
 * and the filter, the next one and the mail server see the same message.
 */
import { createHash } from "node:crypto";
import { defineFilter, type Mime, type Part, readMessage, UsageError } from "../../../src/index.ts";
import { runFilter } from "../../../src/testing/index.ts";
import { anyMessage } from "../../mime/random-messages.ts";
import type { Random } from "../../protocol/random.ts";
import { Fault, must, type Target } from "../target.ts";

const TEXTS = ["", "new text", "zwei\nZeilen – ü", "--b\n", "x".repeat(2000), "a\r\nb", ".\n", "From x\n"];
const FILE_NAMES = ["a.txt", 'a "b".txt', "ä.txt", "x".repeat(200)];

type Seen = readonly string[];

/** Each leaf as it is. */
function seen(mime: Mime): Seen {
  return mime.parts.map((part) => `${part.type} ${createHash("sha1").update(part.bytes()).digest("hex")}`);
}

function withoutEnd(text: string): string {
  return text.replaceAll(/\r\n?/g, "\n").replace(/\n$/, "");
}

/** One edit of any kind. @returns the part whose content it changes, null if none, "all" if it may be any */
function edit(mime: Mime, random: Random): Part | "all" | null {
  const part = random.pick([...mime.walk()]);
  const text = random.pick(TEXTS);
  const options = { breakSeal: random.chance(0.5) };
  const changed = part.parts.length > 0 ? "all" : part;
  switch (random.below(8)) {
    case 0:
      part.setText(text, options);
      // A message ends with a line end.
      must(withoutEnd(part.text()) === withoutEnd(text), () => `text ${JSON.stringify(part.text())}`);
      return changed;
    case 1:
      part.setContent(Buffer.from(text), { ...options, type: "application/x-new", filename: random.pick(FILE_NAMES) });
      must(Buffer.from(part.bytes()).equals(Buffer.from(text)), "other content than was set");
      return changed;
    case 2:
      part.replaceWith({ text, ...(random.chance(0.5) ? { filename: random.pick(FILE_NAMES) } : {}) }, options);
      return changed;
    case 3:
      part.remove(options);
      return "all";
    case 4:
      mime.attach({ filename: random.pick(FILE_NAMES), content: text }, options);
      return "all";
    case 5:
      mime.footer({ text: "the footer" }, options);
      return "all";
    case 6:
      mime.banner({ text: "the banner", html: "<p>the banner</p>" }, options);
      return "all";
    default:
      part.setHeader("X-New", random.pick(["a", "", "ü"]), options);
      return changed;
  }
}

/** Edits, and what must hold after each. */
function editAll(mime: Mime, random: Random): void {
  for (let left = 1 + random.below(3); left > 0; left--) {
    const before = mime.parts.map((part, n) => [part, seen(mime)[n]!] as const);
    let changed: Part | "all" | null;
    try {
      changed = edit(mime, random);
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      changed = null;
    }
    if (changed === "all") continue;
    const now = new Map(mime.parts.map((part, n) => [part, seen(mime)[n]!]));
    for (const [part, content] of before) {
      if (part === changed) continue;
      must(now.get(part) === content, () => `a part that nobody edited has changed: ${content}, ${now.get(part)}`);
    }
  }
}

export const mimeEditsTarget: Target = {
  name: "mime-edits",
  unit: "line",
  generate: anyMessage,
  async check(input, random) {
    let edited: Seen = [];
    let next: Seen = [];
    let fault: unknown = null;
    const hasFlaws = { before: false, after: false };
    const editor = defineFilter({
      name: "editor",
      collectBody: true,
      eom({ message }) {
        const mime = message.mime();
        hasFlaws.before = mime.flaws.length > 0;
        // No mail server hands on a header with a carriage return within a line.
        if (Array.from(mime.root.headers).some(({ value }) => value.includes("\r"))) return;
        try {
          editAll(mime, random);
          edited = seen(mime);
        } catch (error) {
          fault = error;
        }
      },
    });
    const reader = defineFilter({
      name: "reader",
      collectBody: true,
      eom({ message }) {
        const mime = message.mime();
        next = seen(mime);
        hasFlaws.after = mime.flaws.length > 0;
      },
    });
    const { failures, message } = await runFilter([editor, reader], {
      from: "a@example.com",
      to: ["b@example.com"],
      eml: input,
    });
    if (fault !== null) throw fault;
    must(failures.length === 0, () => failures[0]!.message);
    if (hasFlaws.before || edited.length === 0) return;
    must(!hasFlaws.after, "an edit has made a flaw");
    must(
      next.join("\n") === edited.join("\n"),
      () => `the next filter sees\n${next.join("\n")}\nafter\n${edited.join("\n")}`,
    );
    if (message === null) throw new Fault("no message");
    const sent = seen(readMessage(Buffer.from(message, "latin1")));
    must(sent.length === next.length, () => `the mail server gets\n${sent.join("\n")}\nafter\n${next.join("\n")}`);
  },
};
