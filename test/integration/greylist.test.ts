/** greylist behind both mail servers: the first attempt is refused for now, and the second passes. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { sendMail } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, TO } from "./site.ts";
import { startSite } from "./support.ts";

setDefaultTimeout(120_000);

function greylisting(options: string) {
  return {
    config: `[[filter]]
use = "greylist"
[filter.options]
${options}

# A busy machine answers late, and mail that is not looked up passes.
[store]
timeout = "7s"
`,
    server: { workers: 4 },
  };
}

const LATER = /^4\.7\.1 .*Greylisted, try again in (\d+) s$/;

describeBehindEach("greylist", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      short: greylisting('delay = "2s"\nauto_pass = 2'),
      long: greylisting('delay = "1h"'),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** Sends a message until it passes. @returns the replies before */
  async function insist(mail: Parameters<MailSite["send"]>[0]): Promise<string[]> {
    const replies: string[] = [];
    for (;;) {
      const { last } = await site.send(mail);
      if (last.code === 250) return replies;
      expect(last.code).toBe(451);
      expect(last.lines.join(" ")).toMatch(/Greylisted, try again in [12] s$/);
      replies.push(last.lines.join(" "));
      // What the reply says: the delay on the store's clock is over then.
      await Bun.sleep(Number(/in (\d+) s$/.exec(replies.at(-1)!)![1]) * 1000);
    }
  }

  test("asks an unknown sender to come again, and lets it pass then", async () => {
    const replies = await insist({ service: "short" });
    expect(replies).toHaveLength(1);
    const { last } = await site.send({ service: "short" });
    expect(last.code).toBe(250);
    await site.delivered(last);
    // It is the second message that was accepted, which is counted behind its reply: a new sender soon passes at once.
    let others = 0;
    const passesAtOnce = async () =>
      (await site.send({ service: "short", from: `new${others++}@example.net` })).last.code === 250;
    await waitFor(passesAtOnce, { what: "a new sender of the network to pass" });
  });

  test("an early attempt is refused, each recipient for itself", async () => {
    for (let attempt = 0; attempt < 2; attempt++) {
      const { last } = await site.send({ service: "long", to: [TO, "carol@example.org"] });
      expect(last.code).toBe(451);
      const [, seconds] = LATER.exec(last.lines.join(" ").replace(/<[^>]*>\S* (?:Recipient address rejected: )?/, ""))!;
      expect(Number(seconds)).toBeLessThanOrEqual(3600);
    }
  });

  test("bounces pass", async () => {
    expect((await site.send({ service: "long", from: "" })).last.code).toBe(250);
  });
});

describeWith(postfixTool, "greylist, as Postfix alone tells clients", () => {
  test("users who have logged in pass, as do those of other networks for themselves", async () => {
    await using site = await startSite({ filters: { grey: greylisting('delay = "1h"') } });
    const mail = { port: site.port(), from: FROM, to: TO, message: "Subject: hello\r\n\r\nbody\r\n" };
    const send = async (addr: string, login?: string) =>
      (await sendMail({ ...mail, xclient: { addr, ...(login !== undefined && { login }) } })).last.code;
    expect(await send("198.51.100.7", "jane")).toBe(250);
    expect(await send("198.51.100.7")).toBe(451);
    expect(await send("2001:db8::1")).toBe(451);
  });
});
