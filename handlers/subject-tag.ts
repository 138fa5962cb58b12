// Puts a tag in front of the Subject, such as "[external]": docs/handlers/subject-tag.md.
import { defineFilter, encodeWords, type Session } from "pmilter";
import { check, expected, type InferOutput, picklist, pipe, table, trim } from "pmilter/options";
import { domains, headerName, line, option, required, unset } from "./lib/options.ts";
import { hasOrigin, originOption, OWN_NETWORKS } from "./lib/origin.ts";

const tag = pipe(
  line(),
  check((text) => text.trim() !== "" && text.trim().length <= 60, expected("1 to 60 characters")),
  trim(),
);

export const options = table({
  tag: required(tag, "the tag, 1 to 60 characters"),
  origin: originOption("any"),
  own_networks: OWN_NETWORKS,
  sender_domains: option(domains(), [], "only mail from these domains"),
  except_sender_domains: option(domains(), [], "no mail from these domains"),
  recipient_domains: option(domains(), [], "only mail with a recipient in these domains"),
  header: unset(headerName(), "none", "only mail with this header"),
  header_contains: option(line(), "", "only mail in which a value of that header contains this text, in any case"),
  missing_subject: option(
    picklist(["add", "leave"]),
    "add",
    'a message without Subject gets the tag as its Subject; with `"leave"` it stays unchanged',
  ),
});

/** Each condition that is given must hold. */
function applies(session: Session<"eom">, options: Options): boolean {
  const { message } = session;
  const { except_sender_domains, header, header_contains, recipient_domains, sender_domains } = options;
  const { domain } = message.sender;
  const wanted = header_contains.toLowerCase();
  return (
    hasOrigin(session, options) &&
    (sender_domains.isEmpty || sender_domains.has(domain)) &&
    !except_sender_domains.has(domain) &&
    (recipient_domains.isEmpty || message.recipients.some((recipient) => recipient_domains.has(recipient.domain))) &&
    (header === undefined || message.headers.all(header).some(({ text }) => text.toLowerCase().includes(wanted)))
  );
}

type Options = InferOutput<typeof options>;

/** `Re:`, `AW:`, `Fwd:`, `Re[2]:`, `回复：`. */
const REPLY_PREFIX = /^\s*\p{L}{1,6}(?:\[\d+\]|\(\d+\)|\^\d+)?\s*[:：]\s*/u;
/** So much of a Subject is looked at: the tag stands near its beginning. */
const LOOKED_AT = 2000;

/** Whether the tag stands in front of a Subject's text already, or behind `Re:` and the like. */
export function hasTag(text: string, tag: string): boolean {
  let rest = text.slice(0, LOOKED_AT);
  const wanted = tag.toLowerCase();
  for (;;) {
    if (rest.toLowerCase().startsWith(wanted)) return true;
    const prefix = REPLY_PREFIX.exec(rest)?.[0];
    if (prefix === undefined) return false;
    rest = rest.slice(prefix.length);
  }
}

const NAME_LENGTH = "Subject: ".length;

/** The Subject with the tag; the text before stays byte for byte, its encoded words included. */
export function withTag(subject: string, tag: string): string {
  const rest = keepFolds(subject).replace(/^[ \t\n]+/, "");
  const encoded = encodeWords(tag);
  // Readers drop the space between two encoded words (RFC 2047 6.2): one more word brings it.
  const isSpaceLost = encoded.endsWith("?=") && rest.startsWith("=?");
  return join(isSpaceLost ? `${encoded} =?UTF-8?Q?_?=` : encoded, rest);
}

/** A received value that is written again, folded as it was: no line of it can become a header of its own. */
function keepFolds(value: string): string {
  return value
    .replaceAll("\0", "")
    .replace(/\r\n?/g, "\n")
    .replace(/\n(?![ \t])/g, "\n ");
}

/** A space, as a fold where the line would become long. */
function join(tag: string, rest: string): string {
  if (rest === "") return tag;
  const length = NAME_LENGTH + tag.length + rest.split("\n", 1)[0]!.length;
  return length < 78 ? `${tag} ${rest}` : `${tag}\n ${rest}`;
}

export default defineFilter({
  name: "subject-tag",
  options,

  eom(session) {
    const { message, options } = session;
    if (!applies(session, options)) return;
    const subject = message.headers.first("Subject");
    if (subject === undefined) {
      if (options.missing_subject === "add") message.addHeader("Subject", withTag("", options.tag));
    } else if (!hasTag(subject.text, options.tag)) {
      message.changeHeader(subject, withTag(subject.value, options.tag));
    }
  },
});
