/** Messages that Sendmail itself does not take, once it has all of them: the filter sees none of their content. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { MESSAGE } from "../integration/site.ts";
import { oneFilter, said } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { sendmailTool } from "../support/sendmail.ts";
import { type Site, startSite, TRY_LATER } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(120_000);

const PRINTING = `
const print = ({ phase }) => console.log(phase);
const phases = ["data", "header", "eoh", "body", "eom", "abort", "close"];
export default Object.fromEntries(phases.map((phase) => [phase, print]));
`;

describeWith(sendmailTool, "Sendmail: mail that the filter does not get to see", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { printing: oneFilter(PRINTING) },
      sendmail: () => ({ defines: { confMAX_HEADERS_LENGTH: "200000" } }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const many = Array.from({ length: 3000 }, (_, n) => `X-Many-${n}: ${"z".repeat(80)}`).join("\r\n");
  test.each([
    ["a lone LF", "From: <a@example.test>\r\n\r\na\nb\r\n", /Bare linefeed \(LF\) not allowed/],
    ["headers over confMAX_HEADERS_LENGTH", `${many}\r\n\r\nbody\r\n`, /^552 5\.\d\.\d Headers too large/],
    // It does not send what is longer than libmilter would take, and treats the filter as failed: F=T.
    [
      "a header of more than 65,535 bytes in one line",
      `X-Line: ${"y".repeat(65_530)}\r\n\r\nbody\r\n`,
      new RegExp(`^${TRY_LATER}$`),
    ],
  ])("%s: the filter is told of the end of the message, and the next one passes", async (_, message, reply) => {
    const { prints } = site.pmilter();
    const from = prints.all.length;
    const { last } = await site.send({ message });
    expect(said(last)).toMatch(reply);
    await prints.next(/^close/, { from });
    expect(prints.all.slice(from)).toEqual(["data", "abort", "close"]);

    const next = prints.all.length;
    await site.deliver({ message: MESSAGE });
    await prints.next(/^close/, { from: next });
    expect(prints.all.slice(next)).toEqual(["data", "header", "header", "eoh", "body", "eom", "close"]);
  });
});
