/** The options of the filters that add text to messages: the text, and the messages that get it. */
import { readFileSync } from "node:fs";
import type { Decoration, Message } from "pmilter";
import { check, expected, file, pipe, rawTransform, string, transform } from "pmilter/options";
import type { NetworkTable } from "./access-networks.ts";
import type { DomainList } from "./access-names.ts";
import { domains, line, option, unset } from "./options.ts";
import { hasOrigin, type Origin, type ORIGINS } from "./origin.ts";

/** Text for people, without white space around it and at the ends of its lines, where it has a meaning in format=flowed. */
const words = () =>
  pipe(
    string(),
    transform((text) => text.split(/\r?\n/).map((line) => line.trimEnd())),
    check((lines) => lines.join("").trim() !== "", expected("some text")),
    check(
      // oxlint-disable-next-line no-control-regex
      (lines) => !lines.some((line) => /[\0-\x08\x0b-\x1f\x7f\ufffd]/.test(line)),
      expected("text in UTF-8 without control characters"),
    ),
    transform((lines) => lines.join("\n").replace(/^\n+/, "").trimEnd()),
  );

/** The text of a file. */
const wordsIn = () =>
  pipe(
    file(),
    rawTransform<string, string>(({ addIssue, dataset: { value: path }, NEVER }) => {
      try {
        return readFileSync(path, "utf8").replace(/^\ufeff/, "");
      } catch (error) {
        addIssue({
          message: `expected a file that can be read: ${error instanceof Error ? error.message : String(error)}`,
        });
        return NEVER;
      }
    }),
    words(),
  );

/** The options for the text. @param what the filter adds */
export function textOptions(what: string) {
  return {
    text: unset(pipe(line(), words()), "none", `the ${what}, one line`),
    text_file: unset(
      wordsIn(),
      "none",
      "a file with the text, in UTF-8, instead of `text`; a relative path is relative to the configuration",
    ),
    html: unset(pipe(line(), words()), "made from the text", `the ${what} for HTML, one line`),
    html_file: unset(wordsIn(), "none", "a file with the HTML, instead of `html`"),
  };
}

interface Texts {
  readonly text?: string | undefined;
  readonly text_file?: string | undefined;
  readonly html?: string | undefined;
  readonly html_file?: string | undefined;
}

/** The text that the options give. @param what the filter adds */
export function decorationOf(
  { html, html_file, text, text_file }: Texts,
  what: string,
  fail: (key: keyof Texts, expected: string) => never,
): Decoration {
  if (text !== undefined && text_file !== undefined) fail("text_file", 'none beside "text"');
  if (html !== undefined && html_file !== undefined) fail("html_file", 'none beside "html"');
  const plain = text ?? text_file ?? fail("text", `the ${what}, here or in the file that text_file names`);
  const markup = html ?? html_file;
  return markup === undefined ? { text: plain } : { text: plain, html: markup };
}

/** The options for the messages. @param what the filter adds */
export function envelopeOptions(what: string) {
  return {
    sender_domains: option(domains(), [], "only mail from these domains"),
    except_sender_domains: option(domains(), [], "no mail from these domains"),
    recipient_domains: option(domains(), [], "only mail with a recipient in these domains"),
    except_recipient_domains: option(
      domains(),
      [],
      `recipients in these domains do not count: mail that goes only to them gets no ${what}`,
    ),
  };
}

interface EnvelopeOptions {
  readonly origin: (typeof ORIGINS)[number];
  readonly own_networks: NetworkTable<true>;
  readonly sender_domains: DomainList;
  readonly except_sender_domains: DomainList;
  readonly recipient_domains: DomainList;
  readonly except_recipient_domains: DomainList;
}

interface Envelope {
  readonly message: Pick<Message<"eom">, "recipients" | "sender">;
}

/**
 * Each condition that is given must hold. All recipients get the same body: a single recipient that matches is enough.
 */
export function applies(session: Origin & Envelope, options: EnvelopeOptions): boolean {
  const { except_recipient_domains, except_sender_domains, recipient_domains, sender_domains } = options;
  const { recipients, sender } = session.message;
  return (
    hasOrigin(session, options) &&
    (sender_domains.isEmpty || sender_domains.has(sender.domain)) &&
    !except_sender_domains.has(sender.domain) &&
    recipients.some(
      (recipient) =>
        (recipient_domains.isEmpty || recipient_domains.has(recipient.domain)) &&
        !except_recipient_domains.has(recipient.domain),
    )
  );
}
