// Sends a copy of every message, or of those of some domains, to an archive: docs/handlers/bcc-archive.md.
import { defineFilter } from "pmilter";
import { DomainList } from "./lib/access-names.ts";
import { type Options, Prepared } from "./lib/header-options.ts";

interface Policy {
  readonly address: string;
  readonly senderDomains: DomainList;
  readonly recipientDomains: DomainList;
  readonly archivesNullSender: boolean;
  readonly params: readonly string[];
  /** "" for none. */
  readonly header: string;
  readonly headerValue: string;
}

const policies = new Prepared((options: Options): Policy => {
  const address = options.text("address").replace(/^<(.*)>$/, "$1");
  if (!/^[!-;=?-~]+@[!-;=?-~]+$/.test(address)) options.fail("address", "an address such as archive@example.com");
  const headerValue = options.text("header_value", "yes");
  if (headerValue.trim() === "") options.fail("header_value", "some text");
  return {
    address,
    senderDomains: new DomainList(options, "sender_domains"),
    recipientDomains: new DomainList(options, "recipient_domains"),
    archivesNullSender: options.flag("null_sender", false),
    // A full archive must not show senders that there is an archive.
    params: options.flag("notify_never", true) ? ["NOTIFY=NEVER"] : [],
    header: options.has("header") ? options.headerName("header") : "",
    headerValue,
  };
});

export default defineFilter({
  name: "bcc-archive",

  start(options, { folder }) {
    policies.start(options, folder);
  },

  eom({ message, options }) {
    const policy = policies.of(options);
    const { address, senderDomains, recipientDomains } = policy;
    const sender = message.sender.address;
    const recipients = message.recipients.map((recipient) => recipient.address);
    if (sender === "" && !policy.archivesNullSender) return;
    const isWanted =
      (senderDomains.isEmpty && recipientDomains.isEmpty) ||
      senderDomains.has(sender) ||
      recipients.some((recipient) => recipientDomains.has(recipient));
    if (!isWanted || recipients.some((recipient) => recipient.toLowerCase() === address.toLowerCase())) return;
    message.addRecipient(address, policy.params);
    // Never the recipients: every recipient would read of those in Bcc.
    if (policy.header !== "") message.addHeader(policy.header, policy.headerValue);
  },
});
