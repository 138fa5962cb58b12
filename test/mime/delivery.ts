/** Messages through filters in memory, with the body in pieces of a chosen size; and the parts that our reader sees. */
import { type Mime, type Part } from "../../src/index.ts";
import { applyModifications } from "../../src/testing/apply.ts";
import type { MilterClient } from "../../src/testing/client.ts";
import type { MailContent } from "../../src/testing/mail.ts";
import { hashOf } from "../support/judges.ts";

/** What a mail server sends at most. */
export const LARGEST_PIECE = 65_535;

/** Sends a message and gives it back as the mail server would deliver it. The filters have to accept it. */
export async function deliver(client: MilterClient, mail: MailContent, piece = LARGEST_PIECE): Promise<MailContent> {
  if (client.negotiated === undefined) {
    await client.negotiate();
    await client.connect();
    await client.helo("localhost");
  }
  await client.envfrom("<alice@example.com>");
  await client.envrcpt("<bob@example.net>");
  await client.data();
  for (const { name, value } of mail.headers) await client.header(name, value);
  await client.eoh();
  for (let at = 0; at < mail.body.length; at += piece) await client.body(mail.body.subarray(at, at + piece));
  const end = await client.eom();
  if (end.kind !== "accept" && end.kind !== "continue") throw new Error(`the message got ${end.kind}`);
  const envelope = { sender: { address: "<>", params: [] }, recipients: [] };
  const { leadingSpace } = client.negotiated!;
  const { headers, body } = applyModifications({ ...mail, envelope }, end.received, { as: client.habit, leadingSpace });
  return { headers, body };
}

/** A leaf as our reader sees it; those of a forwarded message count like all others, as with the judges. */
export interface OurLeaf {
  readonly type: string;
  readonly hash: string;
  readonly size: number;
}

/** The leaves of a message, and the flaws of it and of the messages in it. */
export function leavesOf(mime: Mime): { leaves: OurLeaf[]; flaws: string[] } {
  const leaves: OurLeaf[] = [];
  const flaws = [...mime.flaws];
  for (const part of mime.parts) {
    const inner = innerOf(part);
    if (inner === null) leaves.push({ type: part.type, hash: hashOf(part.bytes()), size: part.size });
    else {
      leaves.push(...inner.leaves);
      flaws.push(...inner.flaws);
    }
  }
  return { leaves, flaws };
}

function innerOf(part: Part): ReturnType<typeof leavesOf> | null {
  if (part.type !== "message/rfc822" && part.type !== "message/global") return null;
  const message = part.message();
  return message === null ? null : leavesOf(message);
}
