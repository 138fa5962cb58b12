/** The targets by name. */
import type { TargetName } from "../args.ts";
import type { Target } from "../target.ts";
import { configTarget } from "./config.ts";
import { conversationTarget } from "./conversation.ts";
import { dnsTarget } from "./dns.ts";
import { framerTarget } from "./framer.ts";
import { mimeTarget } from "./mime.ts";
import { mimeEditsTarget } from "./mime-edits.ts";
import { repliesTarget } from "./replies.ts";
import { serverTarget } from "./server.ts";
import { sessionTarget } from "./session.ts";

export const MAKE: Readonly<Record<TargetName, () => Target>> = {
  framer: () => framerTarget(),
  session: () => sessionTarget,
  conversation: () => conversationTarget,
  replies: () => repliesTarget,
  mime: () => mimeTarget,
  "mime-edits": () => mimeEditsTarget,
  dns: () => dnsTarget,
  config: () => configTarget,
  server: () => serverTarget(),
};
