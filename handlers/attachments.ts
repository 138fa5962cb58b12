// Refuses, quarantines, replaces or reports messages by their attachments: docs/handlers/attachments.md.
import { isAbsolute, join } from "node:path";
import { defineFilter, type Part, reject } from "pmilter";
import { boolean, duration, type InferOutput, picklist, pipe, size, table, transform } from "pmilter/options";
import { type Finding, Search } from "./lib/attachment-search.ts";
import { printable } from "./lib/file-names.ts";
import { KeptFiles } from "./lib/kept-files.ts";
import { count, headerName, lines, made, option, someText, unset } from "./lib/options.ts";
import { RISKY_NAMES, RISKY_TYPES } from "./lib/risky-files.ts";

const patterns = () =>
  pipe(
    lines(),
    transform((given) => given.map((pattern) => pattern.toLowerCase())),
  );

const entries = {
  action: option(
    picklist(["reject", "quarantine", "replace", "report"]),
    "reject",
    '`"reject"`; `"quarantine"`: the mail server quarantines the message; `"replace"`: a note takes the place of the attachment; `"report"`: the filter only adds the header',
  ),
  names: unset(patterns(), "see below", "patterns of file names that are not accepted; `*` and `?`, in any case"),
  types: unset(
    patterns(),
    "see below",
    "patterns of types that are not accepted; the type is detected by the first bytes of the content",
  ),
  allow_reordered_names: option(
    boolean(),
    false,
    "accept names with marks that change the displayed order: `invoice`, U+202E, `fdp.exe`",
  ),
  allow_encrypted: option(boolean(), true, "accept encrypted files in zip archives"),
  allow_unlisted: option(
    boolean(),
    true,
    "accept what the filter cannot look into: archives that are broken, 7z, rar, bzip2, xz, zstd, cab and others, encrypted mail, pieces of messages",
  ),
  allow_doubtful: option(
    boolean(),
    false,
    "accept archives in which programs may find different files: bytes between the files, two directories, two sizes of a file",
  ),
  allow_flaws: option(
    boolean(),
    false,
    "accept messages in which mail programs may find different parts: a multipart that does not end, a broken header",
  ),
  max_size: unset(size(), "none", "maximum bytes of an attachment, decoded"),
  max_count: unset(count(0), "none", "maximum attachments of a message"),
  max_depth: option(count(0), 3, "maximum levels of archives in archives and of forwarded messages"),
  max_entries: option(count(1), 1000, "maximum files in a message, including files in archives"),
  max_unpacked: option(
    size(),
    "50MB",
    "maximum bytes that archives in archives, and archives compressed as a whole, may unpack to, all together",
  ),
  header: option(headerName(), "X-Attachment-Report", "the header that lists the findings"),
  keep_folder: unset(
    someText(),
    "none",
    'with `action = "replace"`: the folder that keeps the replaced attachments; relative to the configuration',
  ),
  keep: option(duration(), "14d", "how long an attachment is kept"),
  keep_size: option(size(), "1GB", "maximum bytes of all kept attachments; the oldest go first"),
};

export const options = made(
  table(entries),
  ({ action, header, keep, keep_folder, keep_size, max_count = Infinity, max_size = Infinity, ...rules }, fail) => {
    if (keep_folder !== undefined && action !== "replace") fail("keep_folder", 'none without action = "replace"');
    const kept = keep_folder === undefined ? null : { folder: keep_folder, limits: { age: keep, size: keep_size } };
    const { names = RISKY_NAMES, types = RISKY_TYPES } = rules;
    return { action, header, kept, rules: { ...rules, max_count, max_size, names, types } };
  },
);

type Options = InferOutput<typeof options>;

/** So many findings are told. */
const TOLD = 5;

function told(findings: readonly Finding[]): string[] {
  const texts = findings.slice(0, TOLD).map(({ file, why }) => `"${file}": ${why}`);
  if (findings.length > TOLD) texts.push(`${findings.length - TOLD} more`);
  return texts;
}

/** The findings of each part. */
function byPart(findings: readonly Finding[]): Map<Part | null, Finding[]> {
  return Map.groupBy(findings, ({ part }) => part);
}

/** What stands in the place of an attachment. */
function noteFor(part: Part, findings: readonly Finding[], keptAs: string | null): string {
  const [first] = findings;
  const name = printable(part.filename ?? part.type);
  const where = keptAs === null ? "" : `\nYour administrator can find it as ${keptAs}.\n`;
  return `The attachment "${name}" was removed from this message.\n\n"${first!.file}": ${first!.why}\n${where}`;
}

export default defineFilter({
  name: "attachments",
  options,
  // It judges: what it cannot look into does not pass.
  collectBody: { over: "reject" },

  start({ kept }: Options, { folder }): KeptFiles | null {
    if (kept === null) return null;
    return new KeptFiles(isAbsolute(kept.folder) ? kept.folder : join(folder, kept.folder), kept.limits);
  },

  async eom({ log, message, options, own, trial }) {
    const { action, header, rules } = options;
    const search = new Search(rules);
    const mime = message.mime();
    await search.message(mime);
    // A sender must not write our report.
    if (message.headers.get(header) !== undefined) message.deleteHeader(header);
    const { findings } = search;
    const [first] = findings;
    if (first === undefined) return;

    const texts = told(findings);
    const parts = byPart(findings);
    // A note can take the place of a part, but not of what is wrong with the message as a whole.
    const isRefused = action === "reject" || (action === "replace" && parts.has(null));
    log.warn(`${isRefused ? "reject" : action}: ${texts.join("; ")}`);
    if (isRefused) {
      const { file, why } = action === "replace" ? parts.get(null)![0]! : first;
      const what = file === "" ? "The message" : `Attachment "${file}"`;
      return reject(`550 5.7.1 ${what} is not accepted: ${why}`);
    }
    if (action === "replace") {
      const replaced = [...parts].flatMap(([part, found]) => (part === null ? [] : [{ part, found }]));
      const names = own === null || trial ? [] : await own.keep(replaced.map(({ part }) => part.bytes()));
      for (const [index, { part, found }] of replaced.entries()) {
        const keptAs = names[index] ?? null;
        if (keptAs !== null) log(`kept as ${keptAs}: "${found[0]!.file}"`);
        part.replaceWith({ text: noteFor(part, found, keptAs), filename: "removed.txt" }, { breakSeal: true });
      }
    }
    message.addHeader(header, texts.join(";\n "));
    if (action === "quarantine") message.quarantine(`attachments: ${texts[0]}`);
  },
});
