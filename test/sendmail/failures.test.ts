/** Slow handlers and the patience that only Sendmail has: T=E. What is the same behind Postfix is in test/integration. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { oneFilter, outcome } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { sendmailTool } from "../support/sendmail.ts";
import { startSite, TRY_LATER } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(120_000);

const SLOW = `export default { async eom({ message }) { await Bun.sleep(7000); message.addHeader("X-Slow", "1"); } };`;

describeWith(sendmailTool, "Sendmail: handlers that are slow", () => {
  test("progress does not extend T=E, the time for the end of the message as a whole", async () => {
    await using site = await startSite({
      filters: { slow: oneFilter(SLOW) },
      sendmail: ({ slow }) => ({
        services: [{ name: "whole", milters: { address: slow!, failure: "T", timeouts: { R: 5, E: 4 } } }],
      }),
    });
    const result = await site.send({ service: "whole" });
    expect(outcome(result)).toBe(`end: ${TRY_LATER}`);
    expect(site.sink.messages.filter(({ text }) => text.includes("X-Slow: 1"))).toEqual([]);
  });
});
