/**
 * Session and conversation in memory: a whole message from MAIL to the end, twelve headers, 2 KB body, macros, in the
 * pieces in which a Postfix writes it. A process of its own, see `cases.ts`.
 */
import { type Case, runCases } from "./cases.ts";
import { messagePlayer } from "./message-player.ts";

function message(name: string, handlers: "ten" | "eom"): Case {
  return { name: `message, ${name}`, unit: "message", count: 1, run: messagePlayer(handlers) };
}

await runCases([message("ten handlers", "ten"), message("eom only", "eom")]);
