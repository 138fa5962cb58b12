/** The thread of the spool, which ends by an error when it gets a block that begins with an exclamation mark. */
// Imported for what it does.
// oxlint-disable-next-line import/no-unassigned-import
import "../../src/spool/entry.ts";
import type { SpoolAssignment, ToSpool } from "../../src/shared/spool-messages.ts";

declare const self: { onmessage: (event: { readonly data: SpoolAssignment }) => void };

const take = self.onmessage;
self.onmessage = (event) => {
  event.data.port.addEventListener("message", (message) => {
    const { data } = message as MessageEvent<ToSpool>;
    if (data.kind === "write" && Buffer.from(data.memory, 0, 1).toString() === "!") throw new Error("a fault");
  });
  take(event);
};
