/** `pmilter send` against the running server: its options, both outputs, and its exit codes. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import type { Outcome } from "../../src/testing/index.ts";
import { type Pmilter, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const EML =
  "From: Header From <hf@example.com>\r\nTo: ht1@example.com, ht2@example.com\r\nSubject: Hi\r\n\r\nHello\r\n";

/** Tells what it was told in a header of the message, and refuses what asks for it. */
const FILTER = `import { defineFilter, discard, reject, tempfail } from "pmilter";
export default defineFilter({
  helo() {},
  envfrom(_, sender) {
    if (sender === "<refused@example.com>") return reject("550 5.7.1 Not welcome\\nhere");
    if (sender === "<later@example.com>") return tempfail();
    if (sender === "<gone@example.com>") return discard();
    if (sender === "<hang@example.com>") process.exit(1);
  },
  envrcpt(_, to) { if (to.startsWith("<no")) return reject("550 5.1.1 No such user"); },
  header() {},
  eom({ client, helo, message, macros }) {
    const told = [client.address, client.hostname, helo, message.sender.raw, message.recipients.map((to) => to.raw).join(",")];
    for (const name of ["i", "{auth_type}", "{cert_issuer}", "{daemon_name}", "{if_name}"]) told.push(macros.get(name) ?? "-");
    message.addHeader("X-Told", told.join(" | "));
    message.changeHeader("Subject", "Changed");
    message.addRecipient("<more@example.com>");
    message.replaceBody("Other\\n");
  },
});
`;

let server: Pmilter;
let eml: string;

beforeAll(async () => {
  server = await startPmilter({
    server: { workers: 1, stop_timeout: 0.1 },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: { "filter.ts": FILTER, "mail.eml": EML },
  });
  eml = join(server.dir, "mail.eml");
});

afterAll(() => server[Symbol.asyncDispose]());

async function sendJson(...args: string[]): Promise<Outcome> {
  const { exitCode, stdout, stderr } = await runPmilter(["send", "-c", server.configFile, eml, "--json", ...args]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  return JSON.parse(stdout) as Outcome;
}

function told(outcome: Outcome): string[] {
  const change = outcome.modifications.find((made) => made.kind === "addHeader");
  return change!.value.split(" | ");
}

describe("pmilter send --json", () => {
  test("the shape of the contract: verdict, reply, recipients, phases, modifications, message", async () => {
    const outcome = await sendJson("--from", "a@example.com", "--to", "no@example.com", "--to", "<b@example.com>");
    expect(Object.keys(outcome)).toEqual(["verdict", "reply", "recipients", "phases", "modifications", "message"]);
    expect(outcome.verdict).toBe("accept");
    expect(outcome.reply).toBeNull();
    expect(outcome.recipients).toEqual([
      {
        address: "no@example.com",
        verdict: "reject",
        reply: { code: 550, enhanced: "5.1.1", lines: ["No such user"] },
      },
      { address: "b@example.com", verdict: "accept", reply: null },
    ]);
    for (const phase of outcome.phases) {
      expect(phase).toEqual({
        phase: expect.any(String),
        verdict: expect.any(String),
        reply: phase.reply,
        ms: expect.any(Number),
      });
    }
    const phases = outcome.phases.map(({ phase, verdict }) => `${phase} ${verdict}`);
    for (const expected of [
      "helo continue",
      "envfrom continue",
      "envrcpt reject",
      "envrcpt continue",
      "eom continue",
    ]) {
      expect(phases).toContain(expected);
    }
    expect(outcome.modifications).toContainEqual({ kind: "changeHeader", name: "Subject", value: "Changed", index: 1 });
    expect(outcome.modifications).toContainEqual({ kind: "addRecipient", address: "<more@example.com>", params: [] });
    expect(outcome.modifications).toContainEqual({ kind: "replaceBody", body: "Other\r\n" });
    expect(outcome.message).toMatch(
      /^From: Header From <hf@example\.com>\r\n.*\r\nSubject: Changed\r\nX-Told: .*\r\n\r\nOther\r\n$/s,
    );
  });

  test("without options: the addresses of the headers, a client on this machine", async () => {
    const outcome = await sendJson();
    expect(told(outcome).slice(0, 5)).toEqual([
      "127.0.0.1",
      "localhost",
      "localhost",
      "<hf@example.com>",
      "<ht1@example.com>,<ht2@example.com>",
    ]);
  });

  test("--client, --hostname, --helo and --macro arrive", async () => {
    const outcome = await sendJson(
      "--client",
      "2001:db8::7",
      "--hostname",
      "mx.example.net",
      "--helo",
      "greeting",
      "--macro",
      "i=4ZB1",
      "--macro",
      "auth_type=plain",
      "--macro",
      "{cert_issuer}=C A=1",
      "--macro",
      "daemon_name=smtpd",
    );
    expect(told(outcome)).toEqual([
      "2001:db8::7",
      "mx.example.net",
      "greeting",
      "<hf@example.com>",
      "<ht1@example.com>,<ht2@example.com>",
      "4ZB1",
      "plain",
      "C A=1",
      "smtpd",
      "-",
    ]);
  });

  test("--helo is the hostname by default; --from '' is the null sender", async () => {
    const outcome = await sendJson("--hostname", "mx.example.net", "--from", "");
    expect(told(outcome).slice(1, 4)).toEqual(["mx.example.net", "mx.example.net", "<>"]);
  });

  test("--as sendmail has Sendmail's habits", async () => {
    expect(told(await sendJson("--as", "sendmail")).at(-1)).toBe("mail.example.com");
    expect(told(await sendJson("--as", "postfix")).at(-1)).toBe("-");
  });

  test.each([
    [
      "refused@example.com",
      { verdict: "reject", reply: { code: 550, enhanced: "5.7.1", lines: ["Not welcome", "here"] } },
    ],
    ["later@example.com", { verdict: "tempfail", reply: null }],
    ["gone@example.com", { verdict: "discard", reply: null }],
  ])("a message from %s: the verdict, no message, and exit code 0", async (from, expected) => {
    const outcome = await sendJson("--from", from);
    expect(outcome).toMatchObject({ ...expected, modifications: [], message: "" });
  });
});

describe("pmilter send", () => {
  test("text: phases, modifications, verdict, and the message as it would be delivered", async () => {
    const { exitCode, stdout, stderr } = await runPmilter([
      "send",
      "-c",
      server.configFile,
      eml,
      "--to",
      "b@example.com",
    ]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toMatch(/^phases\n/);
    expect(stdout).toMatch(/^ {2}envfrom +continue +\d+\.\d{3} ms$/m);
    expect(stdout).toMatch(/^ {2}header ×3 +\(no reply wanted\)/m);
    expect(stdout).toMatch(/^modifications\n(?: {2}.*\n)* {2}changeHeader no\. 1 Subject: Changed$/m);
    expect(stdout).toMatch(/^verdict: accept$/m);
    expect(stdout).toEndWith("\n\nOther\n");
  });

  test("text of a refusal", async () => {
    const { exitCode, stdout } = await runPmilter([
      "send",
      "-c",
      server.configFile,
      eml,
      "--from",
      "refused@example.com",
    ]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^verdict: reject, 550 5\.7\.1 Not welcome \/ here$/m);
    expect(stdout).not.toMatch(/^message$/m);
  });

  test("- reads standard input", async () => {
    const stdin = "Subject: from stdin\n\nx\n";
    const { exitCode, stdout } = await runPmilter(
      ["send", "-c", server.configFile, "-", "--from", "a@b", "--to", "c@d", "--json"],
      { stdin },
    );
    expect(exitCode).toBe(0);
    expect((JSON.parse(stdout) as Outcome).message).toContain("Subject: Changed\r\n");
  });

  test("a larger message by standard input", async () => {
    const stdin = `Subject: x\n\n${"0123456789abcdef\n".repeat(60_000)}`;
    const { exitCode, stdout } = await runPmilter(
      ["send", "-c", server.configFile, "-", "--from", "a@b", "--to", "c@d"],
      { stdin },
    );
    expect(exitCode).toBe(0);
    expect(stdout).toContain("verdict: accept");
  });

  test("a message without addresses, and none given, has a sender and a recipient all the same", async () => {
    const { exitCode, stdout } = await runPmilter(["send", "-c", server.configFile, "-", "--json"], {
      stdin: "Subject: x\n\nx\n",
    });
    expect(exitCode).toBe(0);
    expect((JSON.parse(stdout) as Outcome).recipients).toEqual([
      { address: expect.stringContaining("@"), verdict: "accept", reply: null },
    ]);
  });

  test("the order of options and message does not matter", async () => {
    const { exitCode } = await runPmilter(["send", "--json", "--to", "b@example.com", eml, "-c", server.configFile]);
    expect(exitCode).toBe(0);
  });
});

test("pmilter send to a handler that ends its worker: the fallback, which is no failure of the conversation", async () => {
  const args = ["send", "--json", "-c", server.configFile, eml, "--from", "hang@example.com"];
  const { exitCode, stdout } = await runPmilter(args);
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ verdict: "tempfail", reply: null });
});

describe("pmilter send that fails: exit code 1, and why on standard error", () => {
  test("the server is not running: a hint", async () => {
    await using dir = await tempDir("send");
    const configFile = await writeProject(dir.path, {});
    const { exitCode, stdout, stderr } = await runPmilter(["send", "-c", configFile, eml]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toMatch(
      /^pmilter: unix:\S+pmilter\.sock: cannot connect.*; is the server running with this configuration\?\n$/,
    );
  });

  test.each([
    ["no message", () => ["/nonexistent.eml"], /the message cannot be read: .*nonexistent\.eml/],
    [
      "a client address that is none",
      () => [eml, "--client", "nowhere"],
      /client address "nowhere" is neither IPv4 nor IPv6/,
    ],
  ])("%s", async (_, args, message) => {
    const { exitCode, stdout, stderr } = await runPmilter(["send", "-c", server.configFile, ...args()]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toStartWith("pmilter: ");
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  test("a configuration that is wrong, and one that nobody can connect to", async () => {
    await using dir = await tempDir("send");
    const wrong = await writeProject(dir.path, { server: { workrs: 1 } });
    expect(await runPmilter(["send", "-c", wrong, eml])).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("did you mean"),
    });
    const inherited = await writeProject(dir.path, { listen: "fd:3" });
    expect(await runPmilter(["send", "-c", inherited, eml])).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining("only inherited descriptors"),
    });
  });
});
