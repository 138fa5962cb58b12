/**
 * The `ini` blocks of the pages, which are Postfix's main.cf, in a private Postfix: mail passes through pmilter and is
 * stamped. Only addresses are replaced.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "smol-toml";
import { describeWith, outsideTool } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { type Postfix, postfixTool, startPostfix } from "../support/postfix.ts";
import { sendMail } from "../support/smtp-client.ts";
import { startSmtpSink } from "../support/smtp-sink.ts";
import { type Block, blockOf, blocksOf } from "./blocks.ts";

setDefaultTimeout(120_000);

const MESSAGE = "From: <a@example.test>\r\nSubject: hello\r\n\r\nbody\r\n";
const STAMP = {
  config: blockOf("toml", "README.md").text,
  files: { "handlers/stamp.ts": blockOf("ts", "README.md").text },
};

/** The parameters of a block, each on one line. */
function parametersOf({ text }: Block): Record<string, string> {
  return Object.fromEntries(
    text
      .trimEnd()
      .split("\n")
      .map((line) => {
        const [, name, value] = /^(\w+) = (.+)$/.exec(line) ?? [];
        if (name === undefined || value === undefined) throw new Error(`not a parameter: ${line}`);
        return [name, value];
      }),
  );
}

const mail = (postfix: Postfix, from = "a@example.test") =>
  sendMail({ port: postfix.port(), from, to: "b@example.org", message: MESSAGE });

/** Mail by SMTP and by the sendmail command arrives stamped, and the refused sender gets the filter's words. */
async function expectStamps(postfix: Postfix, sink: Awaited<ReturnType<typeof startSmtpSink>>): Promise<void> {
  expect((await mail(postfix)).last).toMatchObject({ code: 250 });
  expect((await sink.next()).text).toContain("\r\nX-Filtered-By: pmilter\r\n");

  const refused = await mail(postfix, "spam@example.com");
  expect(refused.last).toMatchObject({ code: 550, text: "5.7.1 Not welcome here" });

  const submitted = await postfix.submit({ from: "a@example.test", to: "b@example.org", message: MESSAGE });
  expect(submitted.exitCode).toBe(0);
  const { text } = await sink.next();
  expect(text.match(/^X-Filtered-By: pmilter\r$/gm)).toHaveLength(1);
  expect(text).toContain("\r\nSubject: hello\r\n");
}

describeWith(postfixTool, "README.md: main.cf", () => {
  test("by TCP, and what milter_default_action does when pmilter is gone", async () => {
    const block = blockOf("ini", "README.md", 0);
    await using sink = await startSmtpSink();
    await using pmilter = await startPmilter({ ...STAMP, listen: "inet:127.0.0.1:0" });
    const address = "inet:127.0.0.1:8891";
    expect(block.text).toContain(`= ${address}\n`);
    const mainCf = parametersOf({ ...block, text: block.text.replace(address, pmilter.addresses[0]!) });
    await using postfix = await startPostfix({ mainCf, sinkPort: sink.port });
    await using lenient = await startPostfix({
      mainCf: { ...mainCf, milter_default_action: "accept" },
      sinkPort: sink.port,
    });
    await expectStamps(postfix, sink);

    expect(await pmilter.stop()).toBe(0);
    expect(mainCf["milter_default_action"]).toBe("tempfail");
    expect((await mail(postfix)).last.code).toBe(451);
    expect((await mail(lenient)).last.code).toBe(250);
    expect((await sink.next()).text).not.toContain("X-Filtered-By");
  });

  const install = outsideTool("install");
  describeWith(install, "a socket below the queue folder", () => {
    test.each([
      ["smtpd and cleanup not chrooted", false],
      ["smtpd and cleanup chrooted", true],
    ])("%s", async (_, chroot) => {
      const block = blockOf("ini", "README.md", 1);
      await using sink = await startSmtpSink();
      await using postfix = await startPostfix({ mainCf: parametersOf(block), chroot, sinkPort: sink.port });
      await using pmilter = await serveBelow(join(postfix.dir, "spool"));
      const folder = await stat(join(postfix.dir, "spool/pmilter"));
      const socket = await stat(join(postfix.dir, "spool/pmilter/pmilter.sock"));
      const gid = Number(Bun.spawnSync(["getent", "group", "postfix"]).stdout.toString().split(":")[2]);
      expect([folder.uid, folder.gid, folder.mode & 0o777]).toEqual([0, gid, 0o750]);
      expect([socket.uid, socket.gid, socket.mode & 0o777]).toEqual([0, gid, 0o660]);
      await expectStamps(postfix, sink);
      expect(await pmilter.stop()).toBe(0);
    });
  });
});

/** The folder and the configuration of the page, with another queue folder. */
async function serveBelow(spool: string): Promise<Pmilter> {
  const [command] = blocksOf("sh", "README.md").flatMap(({ text }) => /^install .*$/m.exec(text) ?? []);
  const here = (text: string): string => text.replaceAll("/var/spool/postfix", spool);
  const made = Bun.spawnSync(["sh", "-c", here(command!)]);
  expect({ exitCode: made.exitCode, stderr: made.stderr.toString() }).toEqual({ exitCode: 0, stderr: "" });
  const { server } = parse(here(blockOf("toml", "README.md", 1).text)) as { server: Record<string, string> };
  const { listen, ...keys } = server;
  expect(listen).toStartWith(spool);
  return await startPmilter({ ...STAMP, listen: listen!, server: keys });
}

describe("ini blocks", () => {
  test("there is none that is not run here", () => {
    expect(blocksOf("ini")).toEqual([blockOf("ini", "README.md", 0), blockOf("ini", "README.md", 1)]);
  });
});
