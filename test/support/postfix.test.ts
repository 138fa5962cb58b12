/**
 * The harness itself: the SMTP client and sink against each other, then a private Postfix between them. The milter here
 * is a stand-in that only shows that Postfix talks to one; nothing of pmilter is under test.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, readFile, stat } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { describeWith } from "./available.ts";
import { postfixTool, queueIdOf, startPostfix } from "./postfix.ts";
import { connectSmtp, sendMail } from "./smtp-client.ts";
import { startSmtpSink } from "./smtp-sink.ts";
import { freePort, tempDir, waitFor } from "./temp.ts";

setDefaultTimeout(120_000);

const MESSAGE = "Subject: dots\r\nX-Raw: \xe9\xff\r\n\r\n.\r\n..two\r\na.b\r\n\r\n.last\r\n";
const FROM = "alice@example.test";
const TO = "bob@example.org";

describe("tempDir", () => {
  test("is open for other users and gone after dispose", async () => {
    let path: string;
    {
      await using dir = await tempDir("harness");
      path = dir.path;
      expect((await stat(path)).mode & 0o777).toBe(0o755);
      await Bun.write(join(path, "a/b"), "deep");
    }
    await expect(stat(path)).rejects.toThrow("ENOENT");
  });
});

describe("waitFor", () => {
  test("returns the first truthy answer, and names what it waited for at the timeout", async () => {
    let calls = 0;
    expect(await waitFor(() => (++calls < 3 ? undefined : "there"), { what: "it", intervalMs: 1 })).toBe("there");
    await expect(waitFor(() => false, { what: "a miracle", timeoutMs: 5, intervalMs: 1 })).rejects.toThrow("a miracle");
  });
});

describe("smtp-client and smtp-sink", () => {
  test("carry envelope, parameters and bytes unchanged", async () => {
    await using sink = await startSmtpSink();
    const result = await sendMail({
      port: sink.port,
      from: "",
      to: ['"a> b"@example.org', "jürgen@example.org"],
      message: MESSAGE,
      mailParams: "BODY=8BITMIME SMTPUTF8 ENVID=a+2Bb",
      rcptParams: "NOTIFY=NEVER",
    });
    expect(result.accepted).toBe(true);
    const message = await sink.next();
    expect(message).toMatchObject({
      from: "",
      fromParams: { BODY: "8BITMIME", SMTPUTF8: "", ENVID: "a+2Bb" },
      to: [
        { address: '"a> b"@example.org', params: { NOTIFY: "NEVER" } },
        { address: "jürgen@example.org", params: { NOTIFY: "NEVER" } },
      ],
    });
    expect(message.text).toBe(MESSAGE);
    expect(sink.messages).toHaveLength(1);
  });

  test("the sink takes any split of the bytes, and pipelined commands behind a message", async () => {
    await using sink = await startSmtpSink();
    await using client = await connectSmtp({ port: sink.port });
    const stuffed = MESSAGE.replaceAll("\r\n.", "\r\n..");
    const envelope = `MAIL FROM:<${FROM}>\r\nRCPT TO:<${TO}>\r\nDATA\r\n`;
    const script = `EHLO a\r\n${envelope}${stuffed}.\r\n${envelope}.\r\nQUIT\r\n`;
    for (const byte of Buffer.from(script, "latin1")) {
      client.write(Uint8Array.of(byte));
      await new Promise(setImmediate);
    }
    expect((await sink.next()).text).toBe(MESSAGE);
    expect((await sink.next()).text).toBe("");
    const codes = [];
    for (let i = 0; i < 10; i++) codes.push((await client.read()).code);
    expect(codes).toEqual([250, 250, 250, 354, 250, 250, 250, 354, 250, 221]);

    await using whole = await connectSmtp({ port: sink.port });
    whole.write(script);
    expect((await sink.next()).text).toBe(MESSAGE);
    expect((await sink.next()).text).toBe("");
  });

  test("the sink's next() gives each message once and throws at its timeout", async () => {
    await using sink = await startSmtpSink();
    await expect(sink.next({ timeoutMs: 5 })).rejects.toThrow("no message after 5 ms");
    const both = [sink.next(), sink.next()];
    for (const message of ["one\r\n", "two\r\n"]) await sendMail({ port: sink.port, from: FROM, to: TO, message });
    expect((await Promise.all(both)).map(({ text }) => text)).toEqual(["one\r\n", "two\r\n"]);
  });

  test("the client adds a missing last CRLF and keeps bare LF and dots after it", async () => {
    await using sink = await startSmtpSink();
    await sendMail({ port: sink.port, from: FROM, to: TO, message: "a\n.b\nc" });
    expect((await sink.next()).text).toBe("a\n.b\nc\r\n");
  });

  test("the client returns 421 and a bare close instead of hanging", async () => {
    await using server = await scriptedServer(["220 hi\r\n", "250-a\r\n250 b\r\n", "421 4.7.0 go away\r\n"]);
    await using client = await connectSmtp({ port: server.port });
    expect(await client.ehlo("a")).toEqual({ code: 250, lines: ["a", "b"], text: "a\nb" });
    expect((await client.mail(FROM)).code).toBe(421);
    expect((await client.rcpt(TO)).code).toBe(0);
    const result = await sendMail({ port: server.port, from: FROM, to: TO, message: MESSAGE });
    expect(result).toMatchObject({ accepted: false, last: { code: 421 }, rcpt: [] });
    expect(result.data).toBeUndefined();
  });

  test("the client throws on a malformed reply and on silence", async () => {
    await using broken = await scriptedServer(["220 hi\r\n", "250-a\r\n251 b\r\n", ""]);
    await using client = await connectSmtp({ port: broken.port });
    await expect(client.helo("a")).rejects.toThrow("not an SMTP reply line");
    await using silent = await scriptedServer(["220 hi\r\n", "", ""]);
    await using patient = await connectSmtp({ port: silent.port, timeoutMs: 20 });
    await expect(patient.helo("a")).rejects.toThrow("timed out waiting for the reply to");
  });
});

describeWith(postfixTool, "Postfix", () => {
  test("delivers to the sink what the client sent, its Received header in front", async () => {
    await using sink = await startSmtpSink();
    await using postfix = await startPostfix({ sinkPort: sink.port });
    const to = [TO, "carol@example.org"];
    const mailParams = "BODY=8BITMIME RET=HDRS";
    const result = await sendMail({ port: postfix.port(), from: FROM, to, message: MESSAGE, mailParams });
    expect(result.last).toMatchObject({ code: 250 });
    const message = await sink.next();
    expect(message.from).toBe(FROM);
    expect(message.fromParams).toMatchObject({ BODY: "8BITMIME", RET: "HDRS" });
    expect(message.to.map(({ address }) => address)).toEqual(to);
    expect(withoutReceived(message.text)).toBe(MESSAGE);
    await postfix.waitForLog(new RegExp(`${queueIdOf(result.last)}: removed`));
    expect(await postfix.queue()).toEqual([]);
  });

  test("a refused recipient shows in its own reply, and the others get the message", async () => {
    await using sink = await startSmtpSink();
    await using postfix = await startPostfix({
      sinkPort: sink.port,
      mainCf: {
        smtpd_recipient_restrictions:
          "check_recipient_access inline:{no@example.org=REJECT}, permit_mynetworks, reject",
      },
    });
    const port = postfix.port();
    const mixed = await sendMail({ port, from: FROM, to: ["no@example.org", TO], message: MESSAGE });
    expect(mixed.rcpt.map(({ code }) => code)).toEqual([554, 250]);
    expect(mixed.accepted).toBe(true);
    expect((await sink.next()).to).toMatchObject([{ address: TO }]);

    const refused = await sendMail({ port, from: FROM, to: "no@example.org", message: MESSAGE });
    expect(refused).toMatchObject({ accepted: false, last: { code: 554 } });
    expect(refused.data).toBeUndefined();
  });

  test("5 MB pass unchanged", async () => {
    await using sink = await startSmtpSink();
    await using postfix = await startPostfix({ sinkPort: sink.port });
    const line = `.${"0123456789abcdef".repeat(60)}\r\n`;
    const message = `Subject: big\r\n\r\n${line.repeat(Math.ceil(5_000_000 / line.length))}`;
    const result = await sendMail({ port: postfix.port(), from: FROM, to: TO, message });
    expect(result.last).toMatchObject({ code: 250 });
    const received = withoutReceived((await sink.next()).text);
    expect(received.length).toBe(message.length);
    expect(received === message).toBe(true);
  });

  test("submit sends through the sendmail command and nonSmtpdMilters", async () => {
    await using dir = await tempDir("milter");
    await using milter = await fakeMilter(join(dir.path, "m.sock"));
    await using sink = await startSmtpSink();
    await using postfix = await startPostfix({ sinkPort: sink.port, nonSmtpdMilters: milter.address });
    const message = "Subject: local\n\n.\nhello\n";
    expect(await postfix.submit({ from: FROM, to: [TO], message })).toEqual({ exitCode: 0, stderr: "" });
    const received = await sink.next();
    expect(received).toMatchObject({ from: FROM, to: [{ address: TO }] });
    expect(received.text).toContain("Subject: local\r\n");
    expect(received.text).toEndWith("\r\n\r\n.\r\nhello\r\n");
    expect(milter.seen).toContain("E");

    await sendMail({ port: postfix.port(), from: FROM, to: TO, message: MESSAGE });
    await sink.next();
    expect(milter.seen.filter((command) => command === "E")).toHaveLength(1);
  });

  test("several services with milters of their own run at once", async () => {
    await using dir = await tempDir("milter");
    await using accepting = await fakeMilter(join(dir.path, "a.sock"));
    await using rejecting = await fakeMilter(join(dir.path, "r.sock"), "r");
    const dead = `unix:${dir.path}/nobody`;
    await using postfix = await startPostfix({
      milters: accepting.address,
      services: [
        { name: "rejecting", milters: [accepting.address, rejecting.address] },
        { name: "dead", milters: dead },
        { name: "dead-but-optional", milters: `{ ${dead}, default_action=accept }` },
        { name: "dead-and-rejected", milters: dead, options: { milter_default_action: "reject" } },
      ],
    });
    const replies: Record<string, string> = {};
    for (const name of ["smtp", "rejecting", "dead", "dead-but-optional", "dead-and-rejected"]) {
      const { last } = await sendMail({ port: postfix.port(name), from: FROM, to: TO, message: MESSAGE });
      replies[name] = last.text.replace(/ queued as .*/, "");
    }
    expect(replies).toEqual({
      smtp: "2.0.0 Ok:",
      rejecting: "5.7.1 Command rejected",
      dead: "4.7.1 Service unavailable - try again later",
      "dead-but-optional": "2.0.0 Ok:",
      "dead-and-rejected": "mx.example.test ESMTP not accepting connections",
    });
    expect(accepting.seen).toContain("O");
    expect(await postfix.log()).toContain("postfix/rejecting/smtpd");
  });

  test("a chrooted service reaches a milter below the queue folder, and no other", async () => {
    await using dir = await tempDir("milter");
    await using outside = await fakeMilter(join(dir.path, "m.sock"));
    await using postfix = await startPostfix({
      chroot: true,
      mainCf: { smtpd_milters: "unix:m.sock" },
      services: [
        { name: "outside", milters: outside.address, chroot: true },
        { name: "free", milters: outside.address },
      ],
    });
    await using inside = await fakeMilter(join(postfix.dir, "spool", "m.sock"));
    const accepted: Record<string, boolean> = {};
    for (const name of ["smtp", "outside", "free"]) {
      accepted[name] = (await sendMail({ port: postfix.port(name), from: FROM, to: TO, message: MESSAGE })).accepted;
    }
    expect(accepted).toEqual({ smtp: true, outside: false, free: true });
    expect(inside.seen).toContain("O");
  });

  test("a service with hold keeps messages in the queue to be read", async () => {
    await using postfix = await startPostfix({ services: [{ name: "held", hold: true }] });
    const { last } = await sendMail({
      port: postfix.port("held"),
      from: "",
      to: [TO, "x@example.org"],
      message: MESSAGE,
    });
    const id = queueIdOf(last);
    expect(await postfix.queue()).toMatchObject([
      { id, queue: "hold", sender: "MAILER-DAEMON", recipients: [{ address: TO }, { address: "x@example.org" }] },
    ]);
    const held = await postfix.heldMessage(id);
    expect(held).toMatchObject({ sender: "", recipients: [TO, "x@example.org"] });
    expect(withoutReceived(held.content)).toBe(MESSAGE.replaceAll("\r\n", "\n"));
    expect(await postfix.postcat(id)).toContain("named_attribute: helo_name=client.example.test");
  });

  test("xclient gives the session another address, name and HELO, IPv6 too", async () => {
    await using postfix = await startPostfix({ hold: true });
    for (const addr of ["192.0.2.7", "2001:db8::7"]) {
      await using client = await connectSmtp({ port: postfix.port() });
      await client.ehlo("first.example.test");
      expect((await client.xclient({ addr, name: "peer.example.net", helo: "a+b" })).code).toBe(220);
      await client.mail(FROM);
      await client.rcpt(TO);
      const id = queueIdOf(await client.data(MESSAGE));
      expect((await client.quit()).code).toBe(221);
      const { content } = await postfix.heldMessage(id);
      expect(content).toMatch(/^Received: from a\+b \(peer\.example\.net \[/);
      expect(content).toContain(`${addr}])`);
    }
  });

  test("undeliverable mail leaves no notice behind", async () => {
    await using dir = await tempDir("milter");
    await using milter = await fakeMilter(join(dir.path, "m.sock"));
    await using refusing = await scriptedServer(["220 hi\r\n", "250 hi\r\n", "550 5.7.1 never\r\n", "221 bye\r\n"]);
    await using postfix = await startPostfix({ sinkPort: refusing.port, nonSmtpdMilters: milter.address });
    const { last } = await sendMail({ port: postfix.port(), from: FROM, to: TO, message: MESSAGE });
    await postfix.waitForLog(new RegExp(`${queueIdOf(last)}: removed`));
    await postfix.waitForLog(/discard: header .* from=<> to=<alice@example\.test>/);
    expect(await postfix.queue()).toEqual([]);
    expect(milter.seen).toEqual([]);
  });

  test("flush tries deferred mail again", async () => {
    await using postfix = await startPostfix({ sinkPort: await freePort() });
    const { last } = await sendMail({ port: postfix.port(), from: FROM, to: TO, message: MESSAGE });
    const deferred = `${queueIdOf(last)}: to=.*status=deferred`;
    await postfix.waitForLog(new RegExp(deferred));
    await waitFor(async () => (await postfix.queue())[0]?.queue === "deferred", { what: "the deferred queue" });
    expect((await postfix.queue())[0]?.recipients[0]?.delayReason).toContain("Connection refused");
    await postfix.flush();
    await postfix.waitForLog(new RegExp(`${deferred}[^]*${deferred}`));
  });

  test("starts and stops, and leaves no process and no folder", async () => {
    const postfix = await startPostfix();
    await sendMail({ port: postfix.port(), from: FROM, to: TO, message: MESSAGE });
    const pids = await postfix.pids();
    expect(pids.length).toBeGreaterThan(3);
    await postfix[Symbol.asyncDispose]();
    await postfix[Symbol.asyncDispose]();
    expect(await postfix.pids()).toEqual([]);
    expect((await Promise.all(pids.map(isAlive))).filter(Boolean)).toEqual([]);
    await expect(stat(postfix.dir)).rejects.toThrow("ENOENT");
  });

  test("a start that fails tells what the log says and leaves no folder", async () => {
    const failure = await startPostfix({ mainCf: { inet_interfaces: "192.0.2.1" } }).catch(String);
    expect(failure).toMatch(/Postfix in .* did not start .*\n.* fatal: /);
    const folder = /Postfix in (\S+)/.exec(String(failure))![1]!;
    await expect(stat(folder)).rejects.toThrow("ENOENT");
  });
});

function withoutReceived(text: string): string {
  return text.replace(/^Received: [^\n]*\n(?:[ \t][^\n]*\n)*/, "");
}

/** False for a zombie: it has ended, and only process 1 has not noticed yet. */
async function isAlive(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  return text !== "" && !/^\d+ \(.*\) [ZX] /.test(text);
}

/** Answers OPTNEG with version 6, no actions and no events, so what is left is BODYEOB, which gets `verdict`. */
async function fakeMilter(path: string, verdict = "c") {
  const seen: string[] = [];
  const server = Bun.listen<{ rest: Buffer }>({
    unix: path,
    socket: {
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
    },
  });
  await chmod(path, 0o666);
  return {
    address: `unix:${path}`,
    seen,
    async [Symbol.asyncDispose]() {
      server.stop(true);
    },
  };
}

/** Says the next of `lines` when a client connects and for each thing it says, and hangs up after the last. */
async function scriptedServer(lines: readonly string[]) {
  const server = createServer((socket) => {
    let said = 0;
    const say = () => {
      const line = lines[said++] ?? "";
      if (said < lines.length) socket.write(line);
      else socket.end(line);
    };
    socket.on("data", say);
    socket.on("error", () => socket.destroy());
    say();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    async [Symbol.asyncDispose]() {
      server.close();
    },
  };
}
