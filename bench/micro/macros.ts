/** Macros: taking the packets of a session, and looking values up. A process of its own, see `cases.ts`. */
import { COMMAND } from "../../src/protocol/constants.ts";
import { SessionMacros } from "../../src/protocol/macros.ts";
import { type Case, runCases } from "./cases.ts";
import { payloadsOf } from "./sample.ts";

const LIMIT = 64 * 1024;
/** Lookups in a call: a single lookup takes a few nanoseconds. */
const LOOKUPS = 64;

const packets = payloadsOf(COMMAND.MACRO);
const macros = new SessionMacros();
const takeAll = () => {
  for (const bytes of packets) {
    macros.put(bytes, 0, bytes.length, LIMIT);
    macros.commit();
  }
};
takeAll();

function lookup(name: string, macro: string): Case {
  const length = macros.get(macro)?.length;
  return {
    name: `macros, ${name}: ${macro}`,
    unit: "lookup",
    count: LOOKUPS,
    run() {
      for (let at = 0; at < LOOKUPS; at++) {
        if (macros.get(macro)?.length !== length) throw new Error(`${macro} has changed`);
      }
    },
  };
}

await runCases([
  { name: "macros, taken", unit: "packet", count: packets.length, run: takeAll },
  lookup("of the recipient", "{rcpt_addr}"),
  lookup("of the connection", "{daemon_name}"),
  lookup("never sent", "{verify}"),
]);
