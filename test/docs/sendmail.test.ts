/** The `m4` blocks of the pages, which are lines of sendmail.mc, in a real Sendmail: mail passes through pmilter. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { startPmilter } from "../support/pmilter.ts";
import { sendmailTool, startSendmail } from "../support/sendmail.ts";
import { sendMail } from "../support/smtp-client.ts";
import { startSmtpSink } from "../support/smtp-sink.ts";
import { blockOf, blocksOf } from "./blocks.ts";

setDefaultTimeout(120_000);

describeWith(sendmailTool, "docs/sendmail.md", () => {
  test("INPUT_MAIL_FILTER: mail is stamped; while pmilter is gone, it is refused for now", async () => {
    const block = blockOf("m4", "docs/sendmail.md");
    expect(blocksOf("m4")).toEqual([block]);
    await using sink = await startSmtpSink();
    await using pmilter = await startPmilter({
      listen: "inet:127.0.0.1:0",
      config: blockOf("toml", "README.md").text,
      files: { "handlers/stamp.ts": blockOf("ts", "README.md").text },
    });
    const port = pmilter.addresses[0]!.split(":").at(-1)!;
    expect(block.text).toContain("S=inet:8891@127.0.0.1,");
    await using sendmail = await startSendmail({
      mc: block.text.replace("inet:8891@", `inet:${port}@`),
      sinkPort: sink.port,
    });
    const send = () =>
      sendMail({
        port: sendmail.port(),
        from: "a@example.test",
        to: "b@example.org",
        message: "From: <a@example.test>\r\nSubject: hello\r\n\r\nbody\r\n",
      });
    expect((await send()).last).toMatchObject({ code: 250 });
    expect((await sink.next()).text).toContain("\r\nX-Filtered-By: pmilter\r\n");
    await pmilter.stop();
    expect(String((await send()).last.code)).toStartWith("4");
  });
});
