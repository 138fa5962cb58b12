/** Whole messages through `client.send`: what is sent, when it stops, and the outcome. */
import { describe, expect, test } from "bun:test";
import { PROTOCOL } from "../../src/protocol/constants.ts";
import { MilterClient } from "../../src/testing/client.ts";
import type { Habit } from "../../src/testing/habits.ts";
import type { Outcome } from "../../src/testing/outcome.ts";
import type { Mail } from "../../src/testing/send.ts";
import { FakeFilter, optneg, packet, type Script, script, SILENCE } from "./fake-filter.ts";

const EML = "From: Ada <ada@c.test>\nTo: b@d.test\nSubject: hi\n\nHello\n";
const UNCHANGED = EML.replaceAll("\n", "\r\n");

async function send(
  play: Script | undefined,
  mail: Partial<Mail> = {},
  as: Habit = "postfix",
): Promise<{ outcome: Outcome; filter: FakeFilter }> {
  const filter = new FakeFilter(play);
  const client = MilterClient.over(filter, { as, timeoutMs: 1000 });
  const outcome = await client.send({ eml: EML, ...mail });
  await client.quit();
  return { outcome, filter };
}

function summary(outcome: Outcome): string {
  return outcome.phases.map(({ phase, verdict }) => `${phase} ${verdict}`).join(", ");
}

describe("send", () => {
  test("plays the whole session and gives the message as it would be delivered", async () => {
    const changes = [packet("i", 0, "X-Pmilter\0ok\0"), packet("m", 1, "Subject\0[x] hi\0"), packet("p"), packet("a")];
    const { outcome, filter } = await send(script({ E: Buffer.concat(changes) }));
    expect(filter.letters).toBe("DCDHDMDRDTDLDLDLDNDBDEAQ");
    expect(outcome).toMatchObject({
      verdict: "accept",
      reply: null,
      recipients: [{ address: "b@d.test", verdict: "accept", reply: null }],
      modifications: [
        { kind: "insertHeader", index: 0, name: "X-Pmilter", value: "ok" },
        { kind: "changeHeader", index: 1, name: "Subject", value: "[x] hi" },
      ],
      message: `X-Pmilter: ok\r\n${UNCHANGED.replace("Subject: hi", "Subject: [x] hi")}`,
    });
    expect(outcome.phases.at(-1)).toMatchObject({ phase: "eom", verdict: "accept", progress: 1 });
    expect(outcome.phases.every(({ ms }) => ms >= 0 && Math.abs(ms * 1000 - Math.round(ms * 1000)) < 1e-6)).toBe(true);
  });

  test("takes client, helo and envelope from the message and from this machine where none are given", async () => {
    const { filter } = await send(undefined);
    expect(filter.transcript).toContain("Clocalhost|4||127.0.0.1|");
    expect(filter.transcript).toContain("Hlocalhost|");
    expect(filter.transcript).toContain("M<ada@c.test>|");
    expect(filter.transcript).toContain("R<b@d.test>|");
  });

  test("a message without addresses goes from the null sender to the postmaster", async () => {
    const { filter } = await send(undefined, { eml: "Subject: x\n\n" });
    expect(filter.transcript).toContain("M<>|");
    expect(filter.transcript).toContain("R<postmaster@localhost>|");
    expect(filter.letters).not.toContain("B");
  });

  test("sends what is given, brackets added", async () => {
    const { filter } = await send(undefined, {
      client: { address: "192.0.2.7", hostname: "mx.test", port: 258 },
      helo: "me",
      from: "a@x",
      params: ["SIZE=1"],
      to: ["b@y", "<c@z>"],
      macros: { "{auth_authen}": "ada" },
    });
    expect(filter.transcript).toContain("Cmx.test|4\x01\x02192.0.2.7|");
    expect(filter.transcript).toContain("M<a@x>|SIZE=1|");
    expect(filter.transcript).toContain("R<c@z>|");
    expect(filter.transcript.find((line) => line.startsWith("DM"))).toStartWith("DM{auth_authen}|ada|");
  });

  test("events without replies share writes and have the verdict none", async () => {
    const { outcome, filter } = await send(({ code }) => {
      if (code === "O") return optneg(PROTOCOL.NR_HDR | PROTOCOL.NR_EOH | PROTOCOL.NR_BODY);
      return "LNB".includes(code) ? SILENCE : undefined;
    });
    expect(filter.writes).toContain("DLDLDLDNDBDE");
    expect(summary(outcome)).toEndWith("header none, header none, header none, eoh none, body none, eom continue");
  });

  test("events that are switched off leave no phase", async () => {
    const { outcome } = await send(script({ O: optneg(PROTOCOL.NOHELO | PROTOCOL.NOHDRS | PROTOCOL.NOBODY) }));
    expect(summary(outcome)).toBe(
      "connect continue, envfrom continue, envrcpt continue, data continue, eoh continue, eom continue",
    );
  });

  test("a large body goes in chunks until SKIP", async () => {
    const eml = `A: b\n\n${"x".repeat(200_000)}\n`;
    const all = await send(undefined, { eml });
    const sizes = all.filter.commands.filter(({ code }) => code === "B").map(({ payload }) => payload.length);
    expect(sizes).toEqual([65_535, 65_535, 65_535, 200_002 - 3 * 65_535]);
    const skipped = await send(script({ O: optneg(PROTOCOL.SKIP), B: packet("s") }), { eml });
    expect(skipped.filter.letters.match(/B/g)).toHaveLength(1);
    expect(skipped.outcome.phases.at(-1)).toMatchObject({ phase: "eom" });
  });
});

describe("verdicts", () => {
  const no = packet("y", "550 5.7.1 Not welcome here\0");
  const reply = { code: 550, enhanced: "5.7.1", lines: ["Not welcome here"] };

  test("refused at envfrom: no recipient is asked for, ABORT follows", async () => {
    const { outcome, filter } = await send(script({ M: no }));
    expect(outcome).toMatchObject({ verdict: "reject", reply, recipients: [], modifications: [], message: "" });
    expect(outcome.phases.at(-1)).toMatchObject({ phase: "envfrom", verdict: "reject", reply });
    expect(filter.letters).toBe("DCDHDMAQ");
  });

  test("one recipient of two refused: the message goes on", async () => {
    const { outcome } = await send(script({ R: [no] }), { to: ["x@y", "z@y"] });
    expect(outcome.verdict).toBe("accept");
    expect(outcome.recipients).toEqual([
      { address: "x@y", verdict: "reject", reply },
      { address: "z@y", verdict: "accept", reply: null },
    ]);
  });

  test.each<[Habit]>([["postfix"], ["sendmail"]])("all recipients refused: %s stops before DATA", async (as) => {
    const { outcome, filter } = await send(script({ R: [no, packet("t")] }), { to: ["x@y", "z@y"] }, as);
    expect(outcome).toMatchObject({ verdict: "tempfail", reply: null, message: "" });
    expect(filter.letters).toEndWith("RAQ");
  });

  test("accept at a recipient ends the filter's part; the others are accepted unseen", async () => {
    const { outcome, filter } = await send(script({ R: packet("a") }), { to: ["x@y", "z@y"] }, "sendmail");
    expect(outcome).toMatchObject({ verdict: "accept", message: UNCHANGED });
    expect(outcome.recipients.map(({ verdict }) => verdict)).toEqual(["accept", "accept"]);
    expect(filter.letters).toBe("DCDHDMDRQ");
  });

  test.each([["M"], ["R"], ["T"], ["L"], ["N"], ["B"], ["E"]])("discard at %s", async (code) => {
    const { outcome } = await send(script({ [code]: packet("d") }));
    // What was said of a recipient before stands: the SMTP client has it already.
    const recipient = "MR".includes(code) ? "discard" : "accept";
    expect(outcome).toMatchObject({ verdict: "discard", message: "", recipients: [{ verdict: recipient }] });
  });

  test("refused at the end: modifications are listed, nothing is delivered", async () => {
    const { outcome } = await send(script({ E: Buffer.concat([packet("h", "A\0b\0"), no]) }));
    expect(outcome).toMatchObject({ verdict: "reject", reply, message: "", modifications: [{ kind: "addHeader" }] });
  });

  test("a quarantined message is accepted", async () => {
    const { outcome } = await send(script({ E: Buffer.concat([packet("q", "why\0"), packet("c")]) }));
    expect(outcome).toMatchObject({ verdict: "accept", modifications: [{ kind: "quarantine", reason: "why" }] });
  });

  test("a recipient that the server refuses itself", async () => {
    const { outcome, filter } = await send(script({ O: optneg(PROTOCOL.RCPT_REJ) }), { rejectedTo: ["x@y"] });
    expect(filter.transcript.filter((line) => line.startsWith("R"))).toEqual(["R<x@y>|", "R<b@d.test>|"]);
    expect(outcome.recipients.map(({ verdict }) => verdict)).toEqual(["reject", "accept"]);
  });

  test("421 ends the session", async () => {
    const { outcome } = await send(script({ R: packet("y", "421 4.3.2 closing\0") }), { to: ["x@y", "z@y"] });
    expect(outcome).toMatchObject({ verdict: "tempfail", reply: { code: 421 } });
    expect(outcome.recipients).toHaveLength(1);
  });
});

describe("several messages on one connection", () => {
  test("connect and helo only once, unless they differ", async () => {
    const filter = new FakeFilter();
    const client = MilterClient.over(filter, { as: "sendmail" });
    await client.send({ eml: EML });
    await client.send({ eml: EML });
    await client.send({ eml: EML, helo: "other" });
    await client.send({ eml: EML, helo: "other", client: { address: "192.0.2.7" } });
    const one = "DMDRTLLLNBDE";
    expect(filter.letters).toBe(`DCDH${one}${one}DH${one}KDCDH${one}`);
  });

  test("a verdict for the connection stands for all of them", async () => {
    const filter = new FakeFilter(script({ C: packet("r") }));
    const client = MilterClient.over(filter, { as: "postfix" });
    expect(await client.send({ eml: EML })).toMatchObject({ verdict: "reject", recipients: [] });
    expect(await client.send({ eml: EML })).toMatchObject({ verdict: "reject", phases: [] });
    expect(filter.letters).toBe("DC");
  });
});
