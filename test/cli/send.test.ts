/** `pmilter send` against the running server: its options, both outputs, and its exit codes. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { givenRoot } from "../support/available.ts";
import type { Outcome } from "../../src/testing/index.ts";
import type { SendOutcome } from "../../src/cli/send-report.ts";
import { MAIN, type Pmilter, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { freePort, tempDir } from "../support/temp.ts";

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
    expect(Object.keys(outcome)).toEqual([
      "verdict",
      "reply",
      "recipients",
      "phases",
      "modifications",
      "message",
      "failures",
    ]);
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

describe("pmilter send says why a message got the fallback", () => {
  const FAILING = `import { defineFilter } from "pmilter";
const nothing = {};
export default defineFilter({
  name: "failing",
  connect({ client }) {
    if (client.address === "192.0.2.1") nothing.a.b();
  },
  envfrom(_, sender) {
    if (sender === "<loop@example.com>") for (;;);
    if (sender === "<exit@example.com>") process.exit(1);
  },
  envrcpt(_, to) {
    if (to === "<throw@example.com>") throw new Error("no \\u001b[2J database");
  },
  async eom({ message }) {
    if (message.sender.address === "slow@example.com") await Bun.sleep(60_000);
    if (message.sender.address === "bad@example.com") return "reject";
  },
});
`;
  let failing: Pmilter;
  beforeAll(async () => {
    failing = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1, eom_timeout: 0.5, block_timeout: 1, handler_timeout: 0.5 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": FAILING },
    });
  });
  afterAll(() => failing[Symbol.asyncDispose]());
  const sendTo = (...args: string[]) => runPmilter(["send", "-c", failing.configFile, eml, ...args]);

  test.each([
    [["--client", "192.0.2.1"], { phase: "connect", cause: "error", place: "filter.ts:6" }],
    [["--from", "bad@example.com"], { phase: "eom", cause: "error", message: /returned string/ }],
    [["--from", "slow@example.com"], { phase: "eom", cause: "timeout" }],
    [["--from", "loop@example.com"], { phase: "envfrom", cause: "blocked", place: "filter.ts" }],
    [["--from", "exit@example.com"], { phase: "envfrom", cause: "died" }],
    [["--to", "throw@example.com"], { phase: "envrcpt", place: "filter.ts:13", message: /handler failed: Error: no/ }],
  ])(
    "%j",
    async (args, { message, ...expected }: { phase: string; message?: RegExp; cause?: string; place?: string }) => {
      const { exitCode, stdout, stderr } = await sendTo("--json", ...args);
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
      const { failures } = JSON.parse(stdout) as SendOutcome;
      const own = failures.filter(({ filter }) => filter !== null);
      expect(own).toHaveLength(1);
      expect(own[0]).toMatchObject({ filter: "failing", fallback: "tempfail", ...expected });
      if (message !== undefined) expect(own[0]!.message).toMatch(message);
    },
  );

  test("a server that cannot be asked: it says so, where that matters", async () => {
    const text = await Bun.file(failing.configFile).text();
    const other = join(failing.dir, "other.toml");
    await Bun.write(other, text.replace("[server]", '[server]\ncontrol = "none.ctl"'));
    const { exitCode, stdout, stderr } = await runPmilter([
      "send",
      "-c",
      other,
      eml,
      "--to",
      "throw@example.com",
      "--json",
    ]);
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ verdict: "tempfail", failures: [] });
    expect(stderr).toMatch(/^whether a handler failed is not known: .*none\.ctl.*\n$/);
    expect(await runPmilter(["send", "-c", other, eml])).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test("as text, escaped; and none of another message", async () => {
    const { stdout } = await sendTo("--to", "throw@example.com");
    expect(stdout).toContain(
      "\nfailures\n  filter failing, envrcpt, at filter.ts:13: handler failed: Error: no \\x1b[2J database; the fallback: tempfail\n",
    );
    const fine = await sendTo("--json");
    expect(JSON.parse(fine.stdout)).toMatchObject({ verdict: "accept", failures: [] });
  });
});

test("a reader that goes away is no error", async () => {
  for (const command of [
    ["send", "-c", server.configFile, eml],
    ["help"],
    ["status", "-c", server.configFile],
    ["check", "-c", server.configFile],
  ]) {
    const child = Bun.spawn(
      ["sh", "-c", '{ "$0" "$@"; echo "exit $?" >&2; } | true', process.execPath, MAIN, ...command],
      {
        stdin: "ignore",
        stdout: "ignore",
        stderr: "pipe",
        env: { ...process.env, XDG_RUNTIME_DIR: "" },
      },
    );
    expect(await child.stderr.text()).toBe("exit 0\n");
    await child.exited;
  }
});

test("pmilter send to a handler that ends its worker: the fallback, which is no failure of the conversation", async () => {
  const args = ["send", "--json", "-c", server.configFile, eml, "--from", "hang@example.com"];
  const { exitCode, stdout } = await runPmilter(args);
  expect(exitCode).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ verdict: "tempfail", reply: null });
});

const AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/** As root, where the other account can read Bun and pmilter: a home of root's is closed to it. */
function mayBecomeNobody(): boolean {
  if (Bun.which("setpriv") === null || !givenRoot("a socket and a file of root's")) return false;
  const isAble = Bun.spawnSync([...AS_NOBODY, process.execPath, MAIN, "--version"]).success;
  if (!isAble) console.warn("skipped: another account cannot run Bun here");
  return isAble;
}

describe("pmilter send that fails: exit code 1, and why on standard error", () => {
  test("the server is not running: a hint", async () => {
    await using dir = await tempDir("send");
    const configFile = await writeProject(dir.path, {});
    const { exitCode, stdout, stderr } = await runPmilter(["send", "-c", configFile, eml]);
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toMatch(
      /^pmilter: unix:\S+pmilter\.sock: cannot connect: there is no such socket; is the server running with this configuration\?\n$/,
    );
    await Bun.write(join(dir.path, "pmilter.sock"), "x");
    expect((await runPmilter(["send", "-c", configFile, eml])).stderr).toMatch(
      /^pmilter: unix:\S+pmilter\.sock: cannot connect: expected a socket there, got something else; is the server running.*\n$/,
    );
  });

  test.skipIf(!mayBecomeNobody())("a socket, and a message, without the right to it", async () => {
    await using dir = await tempDir("send");
    const listen = `unix:${join(dir.path, "pmilter.sock")}`;
    await using own = await startPmilter({ listen, server: { socket_mode: "0600", stop_timeout: 0.1 } });
    const as = (file: string) => {
      return Bun.spawn([...AS_NOBODY, process.execPath, MAIN, "send", "-c", own.configFile, file], {
        stdout: "ignore",
        stderr: "pipe",
      });
    };
    const closed = join(dir.path, "closed.eml");
    await writeFile(closed, "Subject: x\n\nx\n", { mode: 0o600 });
    expect(await as(closed).stderr.text()).toBe(
      `pmilter: the message cannot be read: ${closed}: no permission to read it as uid 65534\n`,
    );
    await chmod(closed, 0o644);
    expect(await as(closed).stderr.text()).toBe(
      `pmilter: ${listen}: cannot connect: no permission as uid 65534; server.socket_mode and socket_group say who may\n`,
    );
  });

  test("nobody listens at the port", async () => {
    await using dir = await tempDir("send");
    const configFile = await writeProject(dir.path, { listen: `inet:127.0.0.1:${await freePort()}` });
    const { exitCode, stderr } = await runPmilter(["send", "-c", configFile, eml]);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(
      /^pmilter: inet:127\.0\.0\.1:\d+: cannot connect: nobody listens there; is the server running .*\n$/,
    );
  });

  test.each([
    [
      "no message",
      () => ["/nonexistent.eml"],
      /the message cannot be read: .*nonexistent\.eml: there is no such file\n/,
    ],
    ["a folder", () => [server.dir], /the message cannot be read: .*: expected a file with a message, got a folder\n/],
    [
      "an empty file",
      () => {
        writeFileSync(join(server.dir, "empty.eml"), "");
        return [join(server.dir, "empty.eml")];
      },
      /the message cannot be read: .*empty\.eml: expected headers and a body, got nothing\n/,
    ],
    // Reading some never ends.
    [
      "a device",
      () => ["/dev/zero"],
      /the message cannot be read: \/dev\/zero: expected a file with a message, got a device\n/,
    ],
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
