// Sends a copy of every message, or of those of some domains, to an archive: docs/handlers/bcc-archive.md.
import { type Address, defineFilter, type HeaderAddress, parseAddresses } from "pmilter";
import { boolean, check, expected, pipe, table, transform } from "pmilter/options";
import { domains, headerName, line, option, required, someText, unset } from "./lib/options.ts";
import { isOwn, OWN_NETWORKS } from "./lib/origin.ts";

const address = pipe(
  line(),
  transform((text) => text.replace(/^<(.*)>$/, "$1")),
  check((text) => /^[!-;=?-~]+@[!-;=?-~]+$/.test(text), expected("an address such as archive@example.com")),
  transform((text) => parseAddresses(text)[0]!),
);

export const options = table({
  address: required(address, "the archive's address"),
  sender_domains: option(
    domains(),
    [],
    "archive outgoing mail: mail of your own clients with a sender in these domains",
  ),
  recipient_domains: option(domains(), [], "archive mail with a recipient in these domains"),
  own_networks: OWN_NETWORKS,
  check_sender: option(
    boolean(),
    true,
    "`sender_domains` counts only for mail of your own clients; with `false` for all mail, although anyone can forge a sender",
  ),
  null_sender: option(
    boolean(),
    false,
    "also archive mail from the null sender: bounces, including bounces of the archive itself",
  ),
  // A full archive must not show senders that there is an archive.
  notify_never: option(
    boolean(),
    true,
    "adds the recipient with `NOTIFY=NEVER`: if the archive refuses a message, the sender gets no bounce, and so does not learn of the archive",
  ),
  header: unset(headerName(), "none", "the header to add to an archived message"),
  header_value: option(someText(), "yes", "the value of that header"),
});

/** Local parts in any case: an archive's mail server knows no other. */
function isSame(recipient: Address, { domain, local }: HeaderAddress): boolean {
  return recipient.domain === domain && recipient.local.toLowerCase() === local.toLowerCase();
}

export default defineFilter({
  name: "bcc-archive",
  options,

  eom(session) {
    const { message, options } = session;
    const { address, header, header_value, notify_never, null_sender, recipient_domains, sender_domains } = options;
    const { recipients, sender } = message;
    if (sender.address === "" && !null_sender) return;
    const isWanted =
      (sender_domains.isEmpty && recipient_domains.isEmpty) ||
      (sender_domains.has(sender.domain) && (!options.check_sender || isOwn(session, options.own_networks))) ||
      recipients.some(({ domain }) => recipient_domains.has(domain));
    if (!isWanted || recipients.some((recipient) => isSame(recipient, address))) return;
    message.addRecipient(address.address, notify_never ? ["NOTIFY=NEVER"] : []);
    // Never the recipients: every recipient would read of those in Bcc.
    if (header !== undefined) message.addHeader(header, header_value);
  },
});
