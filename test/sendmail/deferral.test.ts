/** Content verdicts given at the end of the message and at once: the clients of a real Sendmail see no difference. */
import { setDefaultTimeout } from "bun:test";
import { testDeferral } from "../integration/deferral.ts";
import { describeWith } from "../support/available.ts";
import { queueIdOf, sendmailTool } from "../support/sendmail.ts";
import { fieldsOf, startSite } from "./support.ts";

// A busy machine starts a Sendmail and several servers slowly.
setDefaultTimeout(60_000);

describeWith(sendmailTool, "Sendmail: content verdicts, deferred and at once", () => {
  testDeferral(async (filters) => {
    const site = await startSite({ filters });
    return {
      connect: (service) => site.connect(undefined, { service }),
      queueIdOf,
      // It delivers before it replies.
      emptied: async () => undefined,
      deliveriesOf: (id) => site.deliveriesOf(id),
      fieldsOf,
      pmilter: (service) => site.pmilter(service),
      [Symbol.asyncDispose]: () => site[Symbol.asyncDispose](),
    };
  });
});
