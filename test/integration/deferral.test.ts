/** Content verdicts given at the end of the message and at once: the clients of a real Postfix see no difference. */
import { setDefaultTimeout } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool, queueIdOf } from "../support/postfix.ts";
import { connectSmtp } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { testDeferral } from "./deferral.ts";
import { fieldsOf, startSite } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(60_000);

describeWith(postfixTool, "content verdicts, deferred and at once", () => {
  testDeferral(async (filters) => {
    const site = await startSite({ filters });
    return {
      connect: async (service) => {
        const client = await connectSmtp({ port: site.port(service) });
        await client.ehlo("a.test");
        return client;
      },
      queueIdOf,
      emptied: async () => {
        await waitFor(async () => (await site.postfix.queue()).length === 0, { what: "an empty queue" });
      },
      deliveriesOf: (id) => site.deliveriesOf(id),
      fieldsOf,
      pmilter: (service) => site.pmilter(service),
      [Symbol.asyncDispose]: () => site[Symbol.asyncDispose](),
    };
  });
});
