/**
 * The harness itself: a private Sendmail between the SMTP client and the sink. The milter here is a stand-in that only
 * shows that Sendmail talks to one; nothing of pmilter is under test.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describeWith } from "./available.ts";
import { queueIdOf, sendmailTool, startSendmail } from "./sendmail.ts";
import { connectSmtp, sendMail } from "./smtp-client.ts";
import { startSmtpSink } from "./smtp-sink.ts";
import { tempDir } from "./temp.ts";

setDefaultTimeout(120_000);

const MESSAGE =
  "From: <alice@example.test>\r\nSubject: dots\r\nX-Raw: \xe9\xff\r\n\r\n.\r\n..two\r\na.b\r\n\r\n.last\r\n";
const FROM = "alice@example.test";
const TO = "bob@example.org";

describe("sendmailTool", () => {
  test("is there, or says why not", () => {
    expect(sendmailTool.reason).not.toBe("");
    expect(sendmailTool.available).toBe(sendmailTool.path !== "");
  });
});

describeWith(sendmailTool, "Sendmail", () => {
  test("delivers to the sink what the client sent, before it replies, its own headers in front", async () => {
    await using sink = await startSmtpSink();
    await using sendmail = await startSendmail({ sinkPort: sink.port });
    const to = [TO, "carol@example.org"];
    const mailParams = "BODY=8BITMIME RET=HDRS";
    const { last } = await sendMail({ port: sendmail.port(), from: FROM, to, message: MESSAGE, mailParams });
    const [message] = sink.messages;
    expect(message).toMatchObject({ from: FROM, fromParams: { BODY: "8BITMIME", RET: "HDRS" } });
    expect(message!.to.map(({ address }) => address).sort()).toEqual(to);
    expect(message!.text).toEndWith(MESSAGE);
    expect(message!.text).toMatch(
      new RegExp(`^Received: from .*\\r\\n\\tby mx\\.example\\.test .* id ${queueIdOf(last)}`),
    );
    expect(await sendmail.queue()).toEqual([]);
    expect(await sendmail.traffic()).toContain(`MAIL FROM:<${FROM}>`);
  });

  test("several services with milters of their own, and what their failure means", async () => {
    await using dir = await tempDir("milter");
    await using other = await tempDir("milter");
    await using accepting = await fakeMilter(`unix:${join(dir.path, "a.sock")}`);
    await using rejecting = await fakeMilter(`unix:${join(other.path, "r.sock")}`, "r");
    await using tcp = await fakeMilter("inet:127.0.0.1");
    const dead = `unix:${dir.path}/nobody`;
    await using sendmail = await startSendmail({
      milters: accepting.address,
      services: [
        { name: "both", milters: [accepting.address, rejecting.address] },
        { name: "tcp", milters: tcp.address },
        { name: "dead", milters: dead },
        { name: "dead-T", milters: { address: dead, failure: "T", timeouts: { C: 5 } } },
        { name: "dead-R", milters: { address: dead, failure: "R" } },
      ],
    });
    const codes: Record<string, number> = {};
    for (const name of ["smtp", "both", "tcp", "dead", "dead-T", "dead-R"]) {
      const { last } = await sendMail({ port: sendmail.port(name), from: FROM, to: TO, message: MESSAGE });
      codes[name] = last.code;
    }
    expect(codes).toEqual({ smtp: 250, both: 554, tcp: 250, dead: 250, "dead-T": 451, "dead-R": 554 });
    expect(accepting.seen.filter((command) => command === "E")).toHaveLength(2);
    expect(tcp.seen).toContain("E");
    expect(() => sendmail.port("none")).toThrow("no service none; there are smtp, both, ");
  });

  test("a service with hold keeps messages in the queue to be read", async () => {
    await using sink = await startSmtpSink();
    await using sendmail = await startSendmail({ sinkPort: sink.port, services: [{ name: "held", hold: true }] });
    const to = [TO, "x@example.org"];
    const { last } = await sendMail({ port: sendmail.port("held"), from: "", to, message: MESSAGE });
    const id = queueIdOf(last);
    expect(await sendmail.queue()).toEqual([id]);
    const held = await sendmail.queued(id);
    expect(held).toMatchObject({ sender: "", quarantine: undefined });
    expect(held.recipients.toSorted()).toEqual(to);
    expect(held.headers[0]).toMatch(/^Received: from client\.example\.test /);
    expect(held.headers.slice(-3)).toEqual(["From: <alice@example.test>", "Subject: dots", "X-Raw: \xe9\xff"]);
    expect(held.body).toBe(".\n..two\na.b\n\n.last\n");
    expect(sink.messages).toEqual([]);
    await expect(sendmail.queued("nothing")).rejects.toThrow("is not in the queue");
  });

  test("portFor gives the client a name, or none, and relays both ends", async () => {
    await using sendmail = await startSendmail();
    for (const [name, hello] of [
      ["peer.example.net", /^mx\.example\.test Hello peer\.example\.net \[127\.1\.0\.1\]/],
      ["", /^mx\.example\.test Hello \[127\.1\.0\.2\]/],
    ] as const) {
      const port = await sendmail.portFor(name);
      expect(await sendmail.portFor(name)).toBe(port);
      await using client = await connectSmtp({ port });
      expect((await client.ehlo("a.test")).text).toMatch(hello);
      expect((await client.quit()).code).toBe(221);
    }
  });

  test("IPv6", async () => {
    await using sendmail = await startSendmail({ services: [{ name: "six", inet6: true }] });
    await using client = await connectSmtp({ host: "::1", port: sendmail.port("six") });
    expect((await client.ehlo("a.test")).text).toContain("[IPv6:0:0:0:0:0:0:0:1]");
    await expect(sendmail.portFor("a.test", "six")).rejects.toThrow("::1");
  });

  test("two at once; each leaves no process, no mount and no folder", async () => {
    const hosts = await readFile("/etc/hosts", "utf8");
    const [one, two] = await Promise.all([startSendmail(), startSendmail()]);
    expect(await processesNaming("sendmail.cf")).toBeGreaterThanOrEqual(2);
    await using client = await connectSmtp({ port: one.port() });
    await one[Symbol.asyncDispose]();
    await one[Symbol.asyncDispose]();
    expect((await client.command("NOOP")).code).toBe(0);
    expect((await sendMail({ port: two.port(), from: FROM, to: TO, message: MESSAGE })).accepted).toBe(true);
    await two[Symbol.asyncDispose]();
    for (const { dir } of [one, two]) {
      await expect(stat(dir)).rejects.toThrow("ENOENT");
      expect(await readFile("/proc/mounts", "utf8")).not.toContain(dir);
      expect(await processesNaming(dir)).toBe(0);
    }
    expect(await readFile("/etc/hosts", "utf8")).toBe(hosts);
  });

  test("a start that fails tells what Sendmail says and leaves no folder", async () => {
    const failure = await startSendmail({ defines: { confDELIVERY_MODE: "nonsense" } }).then(
      (sendmail) => sendmail[Symbol.asyncDispose](),
      String,
    );
    expect(failure).toMatch(/Sendmail in .* did not start:\n/);
    const folder = /Sendmail in (\S+)/.exec(String(failure))![1]!;
    await expect(stat(folder)).rejects.toThrow("ENOENT");
  });
});

/** How many processes have this text in their command lines. */
async function processesNaming(text: string): Promise<number> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const lines = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")));
  return lines.filter((line) => line.includes(text)).length;
}

/** Answers OPTNEG with version 6, no actions and no events, so what is left is BODYEOB, which gets `verdict`. */
async function fakeMilter(listen: string, verdict = "c") {
  const seen: string[] = [];
  const socket: Bun.SocketHandler<{ rest: Buffer }> = {
    open(socket) {
      socket.data = { rest: Buffer.alloc(0) };
    },
    data(socket, bytes) {
      let rest = Buffer.concat([socket.data.rest, bytes]);
      while (rest.length >= 4 && rest.length >= 4 + rest.readUInt32BE(0)) {
        const command = String.fromCharCode(rest[4]!);
        seen.push(command);
        if (command === "O") socket.write(Buffer.from("0000000d4f00000006000000000000037f", "hex"));
        else if (!"DAQ".includes(command)) socket.write(Buffer.from(`\0\0\0\x01${verdict}`));
        rest = rest.subarray(4 + rest.readUInt32BE(0));
      }
      socket.data.rest = rest;
    },
  };
  const path = /^unix:(.*)$/.exec(listen)?.[1];
  if (path !== undefined) {
    const server = Bun.listen({ unix: path, socket });
    await chmod(path, 0o666);
    return { address: listen, seen, [Symbol.asyncDispose]: async () => server.stop(true) };
  }
  const server = Bun.listen({ hostname: "127.0.0.1", port: 0, socket });
  return { address: `${listen}:${server.port}`, seen, [Symbol.asyncDispose]: async () => server.stop(true) };
}
