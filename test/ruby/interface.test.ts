/** Every name of `Pmilter` that Ruby handlers know, at every phase: with all that a mail server sends, and with nothing. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { PHASE_NAMES } from "../../src/protocol/phases.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { runScripts } from "./run-scripts.ts";

setDefaultTimeout(120_000);

const READERS = [
  "client_ipaddr client_hostname client_daemon handler_phase_name helo_hostname",
  "envelope_from envelope_to rcpt_to receive_time mail_addr rcpt_addr body_chunk myhostname message_id",
  "auth_type auth_authen auth_author cert_issuer cert_subject cipher_bits cipher tls_version",
].flatMap((line) => line.split(" "));

const PROBE = [
  ...READERS.map((name) => `puts "${name}=#{Pmilter::Session.new.${name}.inspect}"`),
  'puts "header=#{Pmilter::Session::Headers.new.header}"',
  'puts "--"',
].join("\n");

const phaseFile = (phase: string) => `${phase}_handler = "${phase}.rb"`;

/** A server with the same script at some phases; one worker, so that what it prints is in order. */
async function serve(scripts: Readonly<Record<string, string>>): Promise<Pmilter> {
  return startPmilter({
    server: { workers: 1 },
    config: `[handler.session]\n${Object.keys(scripts).map(phaseFile).join("\n")}\n`,
    files: Object.fromEntries(Object.entries(scripts).map(([phase, text]) => [`${phase}.rb`, text])),
  });
}

/** What the probes printed, by phase, in order. */
async function probed(pmilter: Pmilter): Promise<Record<string, string>[]> {
  expect(await pmilter.stop()).toBe(0);
  expect(pmilter.log.text).not.toContain("[error]");
  const probes = pmilter.prints.text.split("--\n").filter((text) => text !== "");
  return probes.map((text) =>
    Object.fromEntries(
      text
        .trimEnd()
        .split("\n")
        .map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]),
    ),
  );
}

const EVERYWHERE = Object.fromEntries(PHASE_NAMES.map((phase) => [phase, PROBE]));

test("each has what the mail server sent", async () => {
  await using pmilter = await serve(EVERYWHERE);
  const macros = Object.fromEntries(
    [
      "{daemon_name}=smtpd j=mx.example.net i=4ZB1 {mail_addr}=a@b.c {rcpt_addr}=d@e.f",
      "{auth_type}=plain {auth_authen}=alice {auth_author}=bob",
      "{cert_issuer}=CA {cert_subject}=me {cipher_bits}=256 {cipher}=AES {tls_version}=TLS1",
    ].flatMap((line) => line.split(" ").map((macro) => macro.split("=") as [string, string])),
  );
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  const before = Math.floor(Date.now() / 1000);
  const outcome = await client.send({
    client: { address: "192.0.2.1", hostname: "client.example" },
    helo: "helo.example",
    from: "a@b.c",
    to: ["d@e.f"],
    eml: "Subject: one\r\n\r\nbody \u00fc\r\n",
    macros,
  });
  expect(outcome.verdict).toBe("accept");
  await client.unknown("NONSENSE");
  await client.envfrom("<x@y.z>");
  await client.abort();
  await client.quit();
  const probes = await probed(pmilter);
  const phases = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"];
  phases.push("unknown", "envfrom", "abort", "close");
  expect(probes.map((probe) => probe["handler_phase_name"])).toEqual(phases.map((phase) => `"mruby_${phase}_handler"`));
  const of = (phase: string) => probes[phases.indexOf(phase)]!;
  const eom = of("eom");
  const time = Number(eom["receive_time"]);
  expect(time).toBeGreaterThanOrEqual(before);
  expect(time).toBeLessThanOrEqual(Math.ceil(Date.now() / 1000));
  expect(eom).toEqual({
    client_ipaddr: '"192.0.2.1"',
    client_hostname: '"client.example"',
    client_daemon: '"smtpd"',
    handler_phase_name: '"mruby_eom_handler"',
    helo_hostname: '"helo.example"',
    envelope_from: '"<a@b.c>"',
    envelope_to: '"<d@e.f>"',
    rcpt_to: '"<d@e.f>"',
    receive_time: String(time),
    mail_addr: '"a@b.c"',
    rcpt_addr: '"d@e.f"',
    body_chunk: '""',
    myhostname: '"mx.example.net"',
    message_id: '"4ZB1"',
    auth_type: '"plain"',
    auth_authen: '"alice"',
    auth_author: '"bob"',
    cert_issuer: '"CA"',
    cert_subject: '"me"',
    cipher_bits: '"256"',
    cipher: '"AES"',
    tls_version: '"TLS1"',
    header: "{}",
  });
  expect(of("header")["header"]).toBe('{"Subject"=>"one"}');
  expect(of("body")["body_chunk"]).toBe('"body \\303\\274\\r\\n"');
  expect(of("envfrom")).toMatchObject({ envelope_from: '"<a@b.c>"', envelope_to: '""', receive_time: "0" });
  expect(of("envrcpt")["envelope_to"]).toBe('"<d@e.f>"');
  expect(of("connect")).toMatchObject({ helo_hostname: '""', envelope_from: '""', client_daemon: '"smtpd"' });
  expect(of("helo")).toMatchObject({ helo_hostname: '"helo.example"', tls_version: '"TLS1"' });
  expect(of("close")).toMatchObject({ envelope_from: '""', helo_hostname: '"helo.example"' });
});

test("what was not sent is an empty string", async () => {
  await using pmilter = await serve(EVERYWHERE);
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  client.macros = {};
  await client.negotiate();
  await client.eom();
  await client.quit();
  for (const probe of await probed(pmilter)) {
    for (const name of READERS) {
      if (name === "handler_phase_name") expect(probe[name]).toMatch(/^"mruby_\w+_handler"$/);
      else if (name === "receive_time") expect(probe[name]).toMatch(/^\d+$/);
      else expect(probe[name], name).toBe('""');
    }
  }
});

test("the constants have libmilter's numbers", async () => {
  const names = ["CONTINUE", "REJECT", "DISCARD", "ACCEPT", "TEMPFAIL", "NOREPLY", "SKIP", "ALL_OPTS"];
  const [ran] = await runScripts([`p ${names.map((name) => `Pmilter::SMFIS_${name}`).join(", ")}; puts Pmilter.name`]);
  expect(ran).toEqual({ printed: "0\n1\n2\n3\n4\n7\n8\n10\npmilter\n", error: null, lines: [] });
});

test("without a session, Pmilter::Session is an error", async () => {
  const [ran] = await runScripts(["Pmilter::Session.new.helo_hostname"]);
  expect(ran).toMatchObject({ error: expect.stringContaining("RuntimeError: there is no session here"), lines: [1] });
});

const VERDICTS = [
  ["connect", "REJECT", "reject"],
  ["connect", "ACCEPT", "accept"],
  ["helo", "TEMPFAIL", "tempfail"],
  ["envfrom", "DISCARD", "discard"],
  ["envfrom", "CONTINUE", "accept"],
  ["envfrom", "NOREPLY", "accept"],
  ["envrcpt", "REJECT", "reject"],
  ["data", "ACCEPT", "accept"],
  ["header", "REJECT", "reject"],
  ["eoh", "TEMPFAIL", "tempfail"],
  ["body", "SKIP", "accept"],
  ["body", "DISCARD", "discard"],
  ["eom", "REJECT", "reject"],
  // What a phase does not have, and what is no answer, is an error of the script.
  ["eom", "SKIP", "tempfail"],
  ["connect", "DISCARD", "tempfail"],
  ["eom", "ALL_OPTS", "tempfail"],
] as const;

describe("Pmilter.status", () => {
  /** Sets what the client's name says, at the phase that it says. */
  const SET = `phase, status = Pmilter::Session.new.client_hostname.split(".")
Pmilter.status = Pmilter.const_get("SMFIS_#{status}") if Pmilter::Session.new.handler_phase_name == "mruby_#{phase}_handler"
`;
  let pmilter: Pmilter;
  beforeAll(async () => {
    pmilter = await serve(
      Object.fromEntries(new Set(VERDICTS.map(([phase]) => phase)).values().map((phase) => [phase, SET])),
    );
  });
  afterAll(async () => await pmilter?.[Symbol.asyncDispose]());

  test.each(VERDICTS)("at %s, SMFIS_%s: %s", async (phase, status, verdict) => {
    await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
    const outcome = await client.send({
      client: { address: "192.0.2.1", hostname: `${phase}.${status}` },
      eml: "Subject: a\r\n\r\nb\r\n",
      to: ["a@b.c"],
    });
    expect(outcome.verdict).toBe(verdict);
  });
});

test("the status of one event is not that of the next; the last one set counts", async () => {
  const status = (name: string) => `Pmilter.status = Pmilter::SMFIS_${name}`;
  await using pmilter = await serve({
    envrcpt: `${status("REJECT")} if Pmilter::Session.new.envelope_to == "<bad@x.y>"`,
    eom: `${status("REJECT")}\n${status("CONTINUE")}`,
  });
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  const outcome = await client.send({ eml: "Subject: a\r\n\r\nb\r\n", to: ["bad@x.y", "good@x.y"] });
  expect(outcome.recipients.map(({ verdict }) => verdict)).toEqual(["reject", "accept"]);
  expect(outcome.verdict).toBe("accept");
});

test("changes are made at eom, and nowhere else", async () => {
  const change = `s = Pmilter::Session.new
r = [s.change_envelope_from("<new@x.y>", "SIZE=1 BODY=7BIT"), s.add_envelope_to("<one@x.y>"), s.add_rcpt_to("two@x.y", "NOTIFY=NEVER")]
puts "#{s.handler_phase_name} #{r} #{s.envelope_from} #{Pmilter::Session::Headers.new['X-A'] = 'b'}"
`;
  const phases = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"];
  await using pmilter = await serve(Object.fromEntries(phases.map((phase) => [phase, change])));
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  const outcome = await client.send({ eml: "Subject: a\r\n\r\nb\r\n", from: "old@x.y", to: ["a@b.c"] });
  expect(outcome.modifications).toEqual([
    { kind: "changeFrom", address: "<new@x.y>", params: ["SIZE=1", "BODY=7BIT"] },
    { kind: "addRecipient", address: "<one@x.y>", params: [] },
    { kind: "addRecipient", address: "<two@x.y>", params: ["NOTIFY=NEVER"] },
    { kind: "addHeader", name: "X-A", value: "b" },
  ]);
  await pmilter.prints.next(/eom/);
  expect(pmilter.prints.all).toEqual(
    phases.map((phase) => {
      const sender = phase === "connect" || phase === "helo" ? "" : "<old@x.y>";
      return `mruby_${phase}_handler ${phase === "eom" ? "[0, 0, 0]" : "[-1, -1, -1]"} ${sender} b`;
    }),
  );
});

test("headers have a value, a text and addresses, from header on", async () => {
  const read = `h = Pmilter::Session::Headers.new
p h["subject"], h.text("Subject"), h["X"], h.text("X"), h.addresses("From"), h.addresses("X")
p h.addresses("From").map { |a| "#{a["local"]} at #{a["domain"]}" }
`;
  const phases = ["connect", "envfrom", "header", "eoh", "eom"];
  await using pmilter = await serve(Object.fromEntries(phases.map((phase) => [phase, read])));
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  const eml = 'Subject: =?utf-8?q?=41=C3?=\r\n =?utf-8?q?=BC?=\r\nFrom: "Doe, J" <j@X.org>, b@c.d\r\n\r\nb\r\n';
  expect(await client.send({ eml, from: "a@b.c", to: ["a@b.c"] })).toMatchObject({ verdict: "accept" });
  await client.quit();
  expect(await pmilter.stop()).toBe(0);
  expect(pmilter.log.text).not.toContain("[error]");
  const none = ["nil", "nil", "nil", "nil", "[]", "[]", "[]"];
  const subject = ['"=?utf-8?q?=41=C3?=\\n =?utf-8?q?=BC?="', '"A\\303\\274"', "nil", "nil"];
  const from = [
    '[{"name"=>"Doe, J", "address"=>"j@X.org", "local"=>"j", "domain"=>"x.org"}, {"name"=>"", "address"=>"b@c.d", "local"=>"b", "domain"=>"c.d"}]',
    "[]",
    '["j at x.org", "b at c.d"]',
  ];
  const all = [...subject, ...from];
  const expected = [none, none, [...subject, "[]", "[]", "[]"], all, all, all].flat();
  expect(pmilter.prints.text.trimEnd().split("\n")).toEqual(expected);
});

test.each([
  ["Pmilter::Session::Headers.new.text(1)", "TypeError: expected String for the name of a header"],
  ["Pmilter::Session::Headers.new['X-A'] = 1", "TypeError: expected String for the value of a header"],
  ["Pmilter::Session.new.change_envelope_from nil", "TypeError: expected String for the sender"],
  ['Pmilter::Session.new.add_envelope_to "<a\\r\\nb>"', "UsageError: "],
  ["Pmilter.status = 99", "ArgumentError: Pmilter.status takes SMFIS_CONTINUE, "],
  ["Pmilter.status = '1'", "ArgumentError: Pmilter.status takes SMFIS_CONTINUE, "],
  ["Pmilter::Session.new.nothing", "NoMethodError: undefined method `nothing' for "],
])("%s is an error with its line", async (line, message) => {
  await using pmilter = await serve({ eom: `\n\n${line}\n` });
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  const outcome = await client.send({ eml: "Subject: a\r\n\r\nb\r\n", to: ["a@b.c"] });
  expect(outcome).toMatchObject({ verdict: "tempfail", modifications: [] });
  expect(await pmilter.log.next(/handler failed/)).toContain(` at=eom.rb:3 error="${message}`);
});

test("log, results, is_local and the state of a message", async () => {
  const begin = `
s = Pmilter::Session.new
s.message_state["senders"] = (s.message_state["senders"] || 0) + 1
r = Pmilter::Session::Results.new
r["spf"] = "pass"
r["score"] = 3
r["none"] = nil
s.log "from #{s.envelope_from}", "warn"
`;
  const end = `
s = Pmilter::Session.new
r = Pmilter::Session::Results.new
puts [s.message_state["senders"], r["spf"], r["score"] + 1, r["missing"].inspect, s.is_local].join(" ")
s.log "the end"
`;
  await using pmilter = await serve({ connect: "Pmilter::Session.new.log 'early', 'debug'", envfrom: begin, eom: end });
  await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
  for (let message = 0; message < 2; message++) await client.send({ eml: "Subject: a\n\nb\n", from: "a@b.test" });
  await client.quit();
  expect(await pmilter.stop()).toBe(0);
  expect(pmilter.prints.all).toEqual(["1 pass 4 nil false", "1 pass 4 nil false"]);
  expect(pmilter.log.text).not.toContain("[error]");
  expect(pmilter.log.text).toMatch(
    /\[warn\]: a handler says: .*phase=envfrom at=envfrom\.rb:8 text="from <a@b\.test>"/,
  );
  // Below the level of the log.
  expect(pmilter.log.text).not.toContain("the end");
});
