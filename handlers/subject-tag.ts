// Puts a tag in front of the Subject, such as "[external]": docs/handlers/subject-tag.md.
import { defineFilter, type Message } from "pmilter";
import { DomainList } from "./lib/access-names.ts";
import { type Options, Prepared } from "./lib/header-options.ts";
import { decodeWords, encodeWords, keepFolds } from "./lib/header-text.ts";

interface Policy {
  readonly tag: string;
  readonly senderDomains: DomainList;
  readonly exceptSenderDomains: DomainList;
  readonly recipientDomains: DomainList;
  /** "" for any. */
  readonly header: string;
  readonly headerContains: string;
  readonly addsMissing: boolean;
}

const policies = new Prepared((options: Options): Policy => {
  const tag = options.text("tag").trim();
  if (tag === "" || tag.length > 60) options.fail("tag", "1 to 60 characters");
  return {
    tag,
    senderDomains: new DomainList(options, "sender_domains"),
    exceptSenderDomains: new DomainList(options, "except_sender_domains"),
    recipientDomains: new DomainList(options, "recipient_domains"),
    header: options.has("header") ? options.headerName("header") : "",
    headerContains: options.text("header_contains", "").toLowerCase(),
    addsMissing: options.choice("missing_subject", ["add", "leave"], "add") === "add",
  };
});

/** Each condition that is given must hold. */
function applies(policy: Policy, message: Message<"eom">): boolean {
  const { senderDomains, exceptSenderDomains, recipientDomains, header, headerContains } = policy;
  const sender = message.sender.address;
  return (
    (senderDomains.isEmpty || senderDomains.has(sender)) &&
    !exceptSenderDomains.has(sender) &&
    (recipientDomains.isEmpty || message.recipients.some(({ address }) => recipientDomains.has(address))) &&
    (header === "" ||
      message.headers.getAll(header).some((value) => decodeWords(value).toLowerCase().includes(headerContains)))
  );
}

/** `Re:`, `AW:`, `Fwd:`, `Re[2]:`, `回复：`. */
const REPLY_PREFIX = /^\s*\p{L}{1,6}(?:\[\d+\]|\(\d+\)|\^\d+)?\s*[:：]\s*/u;
/** So much of a Subject is looked at: the tag stands near its beginning. */
const LOOKED_AT = 2000;

/** Whether the tag stands in front already, or behind `Re:` and the like. */
export function hasTag(subject: string, tag: string): boolean {
  let rest = decodeWords(subject.slice(0, LOOKED_AT)).trimStart();
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
  if (!/[^ -~]/.test(tag) && !tag.includes("=?")) return join(tag, rest);
  // Between two encoded words readers drop the space (RFC 2047 6.2), so the tag brings its own.
  return join(encodeWords(rest.startsWith("=?") ? `${tag} ` : tag), rest);
}

/** A space, as a fold where the line would become long. */
function join(tag: string, rest: string): string {
  if (rest === "") return tag;
  const length = NAME_LENGTH + tag.length + rest.split("\n", 1)[0]!.length;
  return length < 78 ? `${tag} ${rest}` : `${tag}\n ${rest}`;
}

export default defineFilter({
  name: "subject-tag",

  start(options, { folder }) {
    policies.start(options, folder);
  },

  eom({ message, options }) {
    const policy = policies.of(options);
    if (!applies(policy, message)) return;
    const subject = message.headers.get("Subject");
    if (subject === undefined) {
      if (policy.addsMissing) message.addHeader("Subject", withTag("", policy.tag));
    } else if (!hasTag(subject, policy.tag)) {
      message.changeHeader("Subject", withTag(subject, policy.tag));
    }
  },
});
