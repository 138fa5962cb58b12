/**
 * The changes of a chain as modification packets, in the one order that both mail servers take alike (section 10.2 of
 * the protocol notes): header changes from the last to the first, so that no index moves under a later one; then what
 * is inserted and added; the body in one run.
 */
import { encodeText } from "../protocol/bytes.ts";
import { encodeAddress, type ReplyWriter } from "../protocol/encode.ts";
import type { FilterChanges } from "./changes.ts";
import type { HeaderEntry, HeaderList } from "./header-list.ts";
import type { ReceivedMessage } from "./message.ts";
import { headersUnder, isSameAddress } from "./message-view.ts";

/**
 * @param layers the changes that count, in chain order
 * @param keepsLeadingSpace HDR_LEADSPC was granted: the space after the colon is ours to write
 */
export function sendChanges(
  writer: ReplyWriter,
  received: ReceivedMessage,
  layers: readonly FilterChanges[],
  keepsLeadingSpace: boolean,
): void {
  const sender = layers.findLast((changes) => changes.sender !== null)?.sender;
  if (sender) writer.changeFrom(encodeAddress(sender.address), sender.params.join(" "));
  sendRecipients(writer, received, layers);
  sendHeaders(writer, received, layers, keepsLeadingSpace ? " " : "");
  const body = layers.findLast((changes) => changes.body !== null)?.body;
  if (body) writer.replaceBody(body);
  const quarantine = layers.findLast((changes) => changes.quarantine !== null)?.quarantine;
  if (quarantine) writer.quarantine(quarantine.reason);
}

/**
 * Deletions first: a recipient that one filter deletes and another adds again is there. What was added and then
 * deleted is neither; an address that the message never had is left to the mail server.
 */
function sendRecipients(writer: ReplyWriter, received: ReceivedMessage, layers: readonly FilterChanges[]): void {
  const deleted: string[] = [];
  let added: { address: string; params: readonly string[] }[] = [];
  for (const change of layers.flatMap((changes) => changes.recipients)) {
    if (change.kind === "add") {
      added.push(change);
      continue;
    }
    const isHere = (recipient: { address: string }) => isSameAddress(recipient.address, change.address);
    const wasAdded = added.some(isHere);
    added = added.filter((recipient) => !isHere(recipient));
    if (!wasAdded || received.recipients.some(isHere)) deleted.push(change.address);
  }
  for (const address of new Set(deleted)) {
    // Postfix compares with the address as RCPT carried it: send that very form.
    const sent = received.recipients.filter((recipient) => isSameAddress(recipient.address, address));
    if (sent.length === 0) writer.deleteRecipient(encodeAddress(address));
    for (const raw of new Set(sent.map((recipient) => recipient.raw))) writer.deleteRecipient(encodeText(raw));
  }
  for (const { address, params } of added) writer.addRecipient(encodeAddress(address), params.join(" "));
}

function sendHeaders(
  writer: ReplyWriter,
  received: ReceivedMessage,
  layers: readonly FilterChanges[],
  space: string,
): void {
  // What most filters do is to add a header: then nobody needs to know those that were received.
  if (layers.every((changes) => changes.headers.every((change) => change.kind === "add"))) {
    for (const { headers } of layers) {
      for (const change of headers) if (change.kind === "add") writer.addHeader(change.name, space + change.value);
    }
    return;
  }
  sendHeaderList(writer, headersUnder(received, layers), space);
}

function sendHeaderList(writer: ReplyWriter, list: HeaderList, space: string): void {
  const entries = list.entries;
  const counts = new Map<string, number>();
  const positions = new Map<HeaderEntry, number>();
  for (const entry of entries) {
    if (entry.id < 0) continue;
    const name = entry.name.toLowerCase();
    const position = (counts.get(name) ?? 0) + 1;
    counts.set(name, position);
    positions.set(entry, position);
  }
  for (const entry of entries.toReversed()) {
    const position = positions.get(entry);
    if (position === undefined) continue;
    if (entry.isDeleted) writer.changeHeader(position, entry.name, "");
    else if (entry.isChanged) writer.changeHeader(position, entry.name, space + list.valueOf(entry));
  }

  const live = list.live();
  const firstReceived = live.findIndex((entry) => entry.id >= 0);
  const lastReceived = live.findLastIndex((entry) => entry.id >= 0);
  // Without a received header to go by, what is before the first appended one was inserted at the top.
  const firstAppended = live.findIndex((entry) => entry.isAppended);
  const topEnd = firstReceived !== -1 ? firstReceived : firstAppended !== -1 ? firstAppended : live.length;
  // From the lowest place up, so that an index counts none of our own: above it are received headers only, and the
  // mail server's own Received, which it does not show.
  let receivedAbove = live.filter((entry) => entry.id >= 0).length;
  for (let at = lastReceived; at > firstReceived; at--) {
    const entry = live[at]!;
    if (entry.id >= 0) receivedAbove -= 1;
    else writer.insertHeader(receivedAbove + 1, entry.name, space + list.valueOf(entry));
  }
  for (const entry of live.slice(Math.max(topEnd, lastReceived + 1))) {
    writer.addHeader(entry.name, space + list.valueOf(entry));
  }
  for (const entry of live.slice(0, topEnd).reverse()) writer.insertHeader(0, entry.name, space + list.valueOf(entry));
}
