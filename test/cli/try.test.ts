/** `pmilter try`: messages through a configuration, its output, its exit codes, and handlers that fail. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmod, mkdir, readdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { givenRoot } from "../support/available.ts";
import type { SendOutcome } from "../../src/cli/send-report.ts";
import type { TryOutcome } from "../../src/cli/try-report.ts";
import { MAIN, type PmilterOptions, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { type TempDir, tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const eml = (subject: string, from = "a@example.com"): string =>
  `From: ${from}\nTo: b@example.com\nSubject: ${subject}\n\nHello\n`;

/** Its messages say in their subject what its handlers do. */
const FILTER = `import { defineFilter, reject } from "pmilter";

export default defineFilter({
  name: "asked",
  start(_, home) {
    console.log(\`start: isCheck \${home.isCheck}\`);
    setInterval(() => {}, 1000);
    return { started: true };
  },
  async eom({ log, message, own, trial }) {
    const subject = message.headers.get("Subject");
    if (subject === "refuse") return reject("550 5.7.1 Not welcome");
    if (subject === "throw") throw new Error("boom");
    if (subject === "loop") for (;;);
    if (subject === "exit") process.exit(3);
    if (subject === "slow") await new Promise(() => {});
    if (subject === "lost") {
      reject("550 5.7.1 Never returned");
      return;
    }
    if (subject === "stray") setTimeout(() => { throw new Error("outside"); }, 1);
    console.log("print: " + subject);
    log.debug("looked at", { subject });
    await Bun.sleep(5);
    message.addHeader("X-Told", \`own \${own.started}, trial \${trial}\`);
  },
  stop() { console.log("stop"); },
});
`;

const OBSERVER = `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  envfrom(_, sender) {
    return reject("550 5.7.1 Observed");
  },
});
`;

const PROJECT: PmilterOptions = {
  server: { block_timeout: 0.5, handler_timeout: 0.5, eom_timeout: 0.5 },
  config: `[[filter]]
path = "filter.ts"
[[filter]]
path = "observer.ts"
mode = "observe"
`,
  files: {
    "filter.ts": FILTER,
    "observer.ts": OBSERVER,
    "ok.eml": eml("ok"),
    "mails/10-refuse.eml": eml("refuse"),
    "mails/2-ok.EML": eml("ok"),
    "mails/loop.eml": eml("loop"),
    "mails/lost.eml": eml("lost"),
    "mails/exit.eml": eml("exit"),
    "mails/slow.eml": eml("slow"),
    "mails/throw.eml": eml("throw"),
    "mails/sub/last.eml": eml("ok"),
    "mails/notes.txt": "no message",
    "mails/.hidden.eml": eml("throw"),
    "mails/Maildir/cur/1700000000.M1.host:2,S": eml("ok"),
    "mails/Maildir/new/1700000001.M1.host": eml("refuse"),
    "mails/Maildir/tmp/1700000002.M1.host": eml("throw"),
    "none/notes.txt": "no message",
  },
};

let dir: TempDir;
let configFile: string;

beforeAll(async () => {
  dir = await tempDir("try");
  configFile = await writeProject(dir.path, PROJECT);
});

afterAll(() => dir[Symbol.asyncDispose]());

const tried = (...args: readonly string[]) => runPmilter(["try", "-c", configFile, ...args], { cwd: dir.path });

async function project(options: PmilterOptions): Promise<TempDir & { tried: typeof tried; configFile: string }> {
  const own = await tempDir("try");
  const file = await writeProject(own.path, options);
  return {
    path: own.path,
    configFile: file,
    tried: (...args) => runPmilter(["try", "-c", file, ...args], { cwd: own.path }),
    [Symbol.asyncDispose]: () => own[Symbol.asyncDispose](),
  };
}

function words(text: string): string[] {
  return text.split(" ");
}

function objects(stdout: string): TryOutcome[] {
  return stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as TryOutcome);
}

describe("one message", () => {
  test("text: the sections of send, the verdicts with file and line, and the time of each filter", async () => {
    const { exitCode, stdout, stderr } = await tried("ok.eml");
    expect(exitCode).toBe(0);
    expect(stderr.split("\n")).toEqual(["start: isCheck false", "print: ok", "stop", ""]);
    expect(stdout).toMatch(/^phases\n {2}connect /);
    expect(stdout).toMatch(/^ {2}header ×3 +\(no reply wanted\)/m);
    expect(stdout).toContain("\nmodifications\n  addHeader X-Told: own true, trial true\n");
    expect(stdout).toContain(
      "\nverdicts\n  filter observer, envfrom, at observer.ts:4: reject, 550 5.7.1 Observed (observe: not applied)\n",
    );
    expect(stdout).toMatch(
      /\nfilters\n {2}asked +\d+\.\d{3} ms {2}eom \d+\.\d{3}\n {2}observer +\d+\.\d{3} ms {2}envfrom /,
    );
    expect(stdout).toEndWith(
      "\nverdict: accept\n\nmessage\nFrom: a@example.com\nTo: b@example.com\nSubject: ok\nX-Told: own true, trial true\n\nHello\n",
    );
  });

  test("--json: a line with the members of send, and those that only try has", async () => {
    const { exitCode, stdout } = await tried("ok.eml", "--json");
    expect(exitCode).toBe(0);
    expect(stdout.indexOf("\n")).toBe(stdout.length - 1);
    const [outcome] = objects(stdout);
    expect(Object.keys(outcome!)).toEqual([
      "file",
      "verdict",
      "reply",
      "recipients",
      "phases",
      "modifications",
      "message",
      "failures",
      "warnings",
      "verdicts",
      "notes",
      "filters",
    ]);
    expect(outcome).toMatchObject({ file: "ok.eml", verdict: "accept", failures: [], warnings: [] });
    expect(outcome!.verdicts).toEqual([
      {
        filter: "observer",
        phase: "envfrom",
        verdict: "reject",
        scope: "message",
        recipient: null,
        reply: { code: 550, enhanced: "5.7.1", lines: ["Observed"] },
        place: "observer.ts:4",
        reason: null,
        observed: true,
        changes: 0,
      },
    ]);
    const [asked, observer] = outcome!.filters;
    expect(asked).toEqual({ name: "asked", ms: asked!.phases.eom!, phases: { eom: expect.any(Number) } });
    // The handler waits for 5 ms, which a timer may cut by less than one.
    expect(asked!.ms).toBeGreaterThan(4);
    expect(observer).toMatchObject({ name: "observer", phases: { envfrom: expect.any(Number) } });
  });

  test("the options of send", async () => {
    await using told = await project({
      config: '[[filter]]\npath = "told.ts"\n',
      files: {
        "told.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  eom({ client, helo, message, macros }) {
    const told = [client.address, client.hostname, helo, message.sender.raw, message.recipients.map((to) => to.raw).join(",")];
    for (const name of ["i", "{auth_type}", "{if_name}"]) told.push(macros.get(name) ?? "-");
    message.addHeader("X-Told", told.join(" | "));
  },
});
`,
        "m.eml": eml("x"),
      },
    });
    const headerOf = async (...args: readonly string[]) =>
      /^X-Told: (.*)$/m.exec((await told.tried("m.eml", ...args)).stdout)?.[1]?.split(" | ");
    expect(
      await headerOf(
        ...words("--to c@example.com --to <d@example.com> --client 192.0.2.7 --hostname mx.example.net --as sendmail"),
        ...words("--helo greeting --macro i=4ZB1 --macro auth_type=plain --from="),
      ),
    ).toEqual([
      "192.0.2.7",
      "mx.example.net",
      "greeting",
      "<>",
      "<c@example.com>,<d@example.com>",
      "4ZB1",
      "plain",
      "mail.example.com",
    ]);
    const plain = await headerOf();
    expect(plain).toEqual([
      "127.0.0.1",
      "localhost",
      "localhost",
      "<a@example.com>",
      "<b@example.com>",
      expect.stringMatching(/^TRY[0-9A-F]{9}$/),
      "-",
      "-",
    ]);
  });

  test("a large body in place of the one that came is shown whole", async () => {
    await using one = await project({
      config: '[[filter]]\npath = "filter.ts"\n',
      files: {
        "filter.ts": `import { defineFilter } from "pmilter";
export default defineFilter({ eom({ message }) { message.replaceBody("0123456789abcdef\\n".repeat(100_000)); } });
`,
        "one.eml": eml("one"),
      },
    });
    const { exitCode, stdout } = await one.tried("--json", "one.eml");
    expect(exitCode).toBe(0);
    const { message } = objects(stdout)[0]!;
    expect(message.replaceAll("\r\n", "\n").endsWith(`\n\n${"0123456789abcdef\n".repeat(100_000)}`)).toBe(true);
  });

  test("- is standard input, and an empty one an empty message", async () => {
    const { exitCode, stdout } = await runPmilter(["try", "-c", configFile, "-", "--json"], {
      stdin: `From x@example.com Mon Nov 30\n${eml("ok")}`,
    });
    expect(exitCode).toBe(0);
    expect(objects(stdout)).toMatchObject([{ file: "-", verdict: "accept" }]);
    expect(objects(stdout)[0]!.message).toStartWith("From: a@example.com\r\n");
    expect(await runPmilter(["try", "-c", configFile, "-"], { stdin: "" })).toMatchObject({ exitCode: 0 });
  });
});

describe("several messages", () => {
  test("a folder: what counts as a message, in which order, and a line that counts them", async () => {
    const { exitCode, stdout } = await tried("mails", "ok.eml", "--brief");
    expect(stdout.split("\n")).toEqual([
      "mails/10-refuse.eml: reject, 550 5.7.1 Not welcome; filter asked, eom, at filter.ts:12; observed reject by observer",
      "mails/2-ok.EML: accept; observed reject by observer",
      "mails/Maildir/cur/1700000000.M1.host:2,S: accept; observed reject by observer",
      "mails/Maildir/new/1700000001.M1.host: reject, 550 5.7.1 Not welcome; filter asked, eom, at filter.ts:12; observed reject by observer",
      "mails/exit.eml: tempfail; observed reject by observer; 1 failure",
      "mails/loop.eml: tempfail; observed reject by observer; 1 failure",
      "mails/lost.eml: accept; observed reject by observer; 1 warning",
      "mails/slow.eml: tempfail; observed reject by observer; 1 failure",
      "mails/sub/last.eml: accept; observed reject by observer",
      "mails/throw.eml: tempfail; observed reject by observer; 1 failure",
      "ok.eml: accept; observed reject by observer",
      "11 messages: 5 accept, 2 reject, 4 tempfail; 4 failures, 1 warning",
      "",
    ]);
    expect(exitCode).toBe(0);
  });

  test("--brief: refused recipients, and what filters that only observe would do; the reason of a quarantine", async () => {
    await using own = await project({
      config: `[[filter]]\npath = "some.ts"\n[[filter]]\npath = "hold.ts"\nmode = "observe"\n`,
      files: {
        "some.ts": `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  envrcpt(_session, to) {
    if (to !== "<b@example.com>") return reject("550 5.1.1 Not here");
  },
});
`,
        "hold.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  eom({ message }) {
    message.quarantine("look at it");
  },
});
`,
        "m.eml": eml("x"),
      },
    });
    const args = ["m.eml", ...words("--to b@example.com --to c@example.com")];
    expect((await own.tried(...args, "--brief")).stdout).toBe(
      "m.eml: accept; 1 recipient refused; observed quarantine by hold\n",
    );
    expect((await own.tried(...args)).stdout).toContain(
      "  filter hold, eom, at hold.ts:4: quarantine, look at it, 1 change (observe: not applied)\n",
    );
  });

  test("text has the file before each message; --json counts on standard error", async () => {
    const { stdout } = await tried("ok.eml", "mails/10-refuse.eml");
    expect(stdout).toStartWith("file: ok.eml\n\nphases\n");
    expect(stdout).toContain("\nfile: mails/10-refuse.eml\n\nphases\n");
    expect(stdout).toEndWith(
      "\nverdict: reject, 550 5.7.1 Not welcome\n\n2 messages: 1 accept, 1 reject; 0 failures, 0 warnings\n",
    );
    const json = await tried("ok.eml", "mails/10-refuse.eml", "--json");
    expect(objects(json.stdout).map(({ file }) => file)).toEqual(["ok.eml", "mails/10-refuse.eml"]);
    expect(json.stderr).toEndWith("\n2 messages: 1 accept, 1 reject; 0 failures, 0 warnings\n");
  });

  test("--strict: a failure or a warning is exit code 1, a refusal is none", async () => {
    expect(await tried("mails/10-refuse.eml", "--strict")).toMatchObject({ exitCode: 0 });
    expect(await tried("mails/lost.eml", "--strict")).toMatchObject({ exitCode: 1 });
    expect(await tried("mails/throw.eml", "--strict")).toMatchObject({ exitCode: 1 });
    expect(await tried("mails/throw.eml")).toMatchObject({ exitCode: 0 });
  });

  test("a file that cannot be read is told, and the others are tried", async () => {
    await using own = await project({
      files: { "mails/a.eml": eml("ok"), "mails/c.eml": "", "mails/d.eml": eml("ok") },
    });
    await symlink("nowhere", join(own.path, "mails/b.eml"));
    // Opening it would never end.
    expect(Bun.spawnSync(["mkfifo", join(own.path, "mails/pipe.eml")]).success).toBe(true);
    const { exitCode, stdout, stderr } = await own.tried("mails", "--brief");
    expect(exitCode).toBe(1);
    expect(stdout).toBe(
      "mails/a.eml: accept\nmails/d.eml: accept\n2 messages: 2 accept; 0 failures, 0 warnings; 2 files not tried\n",
    );
    expect(stderr).toBe(
      "error: the message cannot be read: mails/b.eml: there is no such file\n" +
        "error: the message cannot be read: mails/c.eml: expected headers and a body, got nothing\n",
    );
  });

  test("each is a session of its own, in the same handlers", async () => {
    await using own = await project({
      config: '[[filter]]\npath = "count.ts"\n',
      files: {
        "count.ts": `import { defineFilter, reject } from "pmilter";
let messages = 0;
export default defineFilter({
  connect({ state }) { state.connects = 1; },
  eom({ state }) {
    messages += 1;
    state.messages = Number(state.messages ?? 0) + 1;
    return reject(\`550 5.7.1 \${messages} \${state.connects} \${state.messages}\`);
  },
});
`,
        "m.eml": eml("x"),
      },
    });
    const { stdout } = await own.tried("m.eml", "m.eml", "m.eml", "--json");
    expect(objects(stdout).map(({ reply }) => reply?.lines)).toEqual([["1 1 1"], ["2 1 1"], ["3 1 1"]]);
  });
});

describe("handlers that fail", () => {
  test.each([
    ["throw", "handler failed: Error: boom", "filter.ts:13", "error"],
    ["loop", "handler did not return", "filter.ts", "blocked"],
    ["exit", "handler ended its worker", "filter.ts", "died"],
    ["slow", "handler too slow: Error: not settled after 0.5 s", "filter.ts", "timeout"],
  ])("%s", async (name, message, place, cause) => {
    const { exitCode, stdout } = await tried(`mails/${name}.eml`, "mails/2-ok.EML", "--json");
    const [failed, next] = objects(stdout);
    expect(failed).toMatchObject({ verdict: "tempfail", reply: null });
    expect(failed!.failures).toEqual([{ filter: "asked", phase: "eom", cause, message, place, fallback: "tempfail" }]);
    // The times of a worker that is lost are known, and that of the call that it was lost in.
    expect(failed!.filters).toMatchObject([
      { name: "asked", phases: { eom: expect.any(Number) } },
      { name: "observer", phases: { envfrom: expect.any(Number) } },
    ]);
    expect(next).toMatchObject({ verdict: "accept", failures: [] });
    expect(exitCode).toBe(0);
  });

  test("a verdict that is not returned", async () => {
    const { stdout } = await tried("mails/lost.eml");
    expect(stdout).toContain(
      "\nwarnings\n  filter asked, eom, at filter.ts:18: reject() was not returned and has no effect\n",
    );
  });

  test("outside of any call: with the message if it is open, else on standard error, and counted", async () => {
    await using own = await project({
      ...PROJECT,
      files: { ...PROJECT.files, "mails/stray.eml": eml("stray") },
    });
    const { exitCode, stdout } = await own.tried("mails/stray.eml", "--json", "--strict");
    expect(objects(stdout)[0]!.failures).toEqual([
      {
        filter: "asked",
        phase: null,
        cause: "late",
        message: "a handler failed outside of any call: Error: outside",
        place: "filter.ts:21",
        fallback: null,
      },
    ]);
    expect(exitCode).toBe(1);
  });

  test("outcome, and a timer: a worker that is lost to no handler of a phase is a failure all the same", async () => {
    await using own = await project({
      config: '[[filter]]\npath = "lost.ts"\n',
      server: { block_timeout: 0.5 },
      files: {
        "lost.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  eom({ message }) {
    if (message.headers.get("Subject") === "timer") {
      setTimeout(() => { for (;;); });
      return new Promise<undefined>(() => {});
    }
    return undefined;
  },
  outcome({ message }) { while (message.headers.get("Subject") === "outcome"); },
});
`,
        "mails/1.eml": eml("outcome"),
        "mails/2.eml": eml("timer"),
        "mails/3.eml": eml("ok"),
      },
    });
    const { exitCode, stdout } = await own.tried("mails", "--brief", "--strict");
    expect({ exitCode, stdout }).toEqual({
      exitCode: 1,
      stdout:
        "mails/1.eml: accept; 1 failure\nmails/2.eml: tempfail; 1 failure\nmails/3.eml: accept\n" +
        "3 messages: 2 accept, 1 tempfail; 2 failures, 0 warnings\n",
    });
  });

  test("start(): file, line and reason, exit code 1", async () => {
    await using own = await project({
      config: '[[filter]]\npath = "bad.ts"\n',
      files: {
        "bad.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  start() {
    throw new Error("no such option");
  },
  eom() {},
});
`,
        "m.eml": eml("x"),
      },
    });
    expect(await own.tried("m.eml")).toEqual({
      exitCode: 1,
      stdout: "",
      stderr: `pmilter: ${join(own.path, "bad.ts")}:4:15: start() of filter bad failed: no such option\n`,
    });
  });

  test("stop(): is told, and ends nothing else", async () => {
    await using own = await project({
      config: '[[filter]]\npath = "bad.ts"\n',
      server: { block_timeout: 0.5 },
      files: {
        "bad.ts": `import { defineFilter } from "pmilter";
export default defineFilter({ eom() {}, stop() { for (;;); } });
`,
        "m.eml": eml("x"),
      },
    });
    const { exitCode, stdout, stderr } = await own.tried("m.eml", "--brief");
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: "m.eml: accept\n" });
    expect(stderr).toBe("warn: the worker was lost while it stopped the filters\n");
  });
});

/** A handler that does not return in the phase that the sender, or the HELO, names. */
const PHASES = ["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"] as const;
const OPENINGS = ["connect", "helo"] as const;
const LOOPS = `import { defineFilter, reject } from "pmilter";
const loop = (is: boolean) => { while (is); };
export default defineFilter({
  name: "loops",
  connect({ client }) { loop(client.hostname === "connect.example.net"); },
  helo(_, name) { loop(name === "helo"); },
  envfrom(_, sender) { loop(sender === "<envfrom@example.com>"); },
  envrcpt({ message }, to) {
    if (to === "<no@example.com>") return reject("550 5.1.1 No such user");
    loop(message.sender.raw === "<envrcpt@example.com>");
  },
  data({ message }) { loop(message.sender.raw === "<data@example.com>"); },
  header({ message }) { loop(message.sender.raw === "<header@example.com>"); },
  eoh({ message }) { loop(message.sender.raw === "<eoh@example.com>"); },
  body({ message }) { loop(message.sender.raw === "<body@example.com>"); },
  eom({ message }) { loop(message.sender.raw === "<eom@example.com>"); message.addHeader("X-Last", "1"); },
});
`;

describe.each(["tempfail", "accept"] as const)(
  "a loop, with on_timeout = %j, is what the server makes of it",
  (fallback) => {
    test("in each phase", async () => {
      await using server = await startPmilter({
        server: { workers: 1, stop_timeout: 0.1, block_timeout: 0.5, on_timeout: fallback },
        config: '[[filter]]\npath = "loops.ts"\n',
        files: {
          "loops.ts": LOOPS,
          ...Object.fromEntries(PHASES.map((phase) => [`${phase}.eml`, eml("x", `${phase}@example.com`)])),
        },
      });
      const run = async (command: "send" | "try", args: string) => {
        const common = `${command} -c ${server.configFile} --json --to no@example.com --to b@example.com`;
        const { exitCode, stderr, stdout } = await runPmilter([...words(common), ...words(args)], { cwd: server.dir });
        expect({ command, args, exitCode, stderr }).toMatchObject({ exitCode: 0 });
        return stdout;
      };
      const shown = ({ failures, message, phases, recipients, reply, verdict }: SendOutcome) => ({
        verdict,
        reply,
        recipients,
        message,
        phases: phases.map((each) => [each.phase, each.verdict]),
        // The server tells the loss and its consequence.
        failures: failures.filter(({ cause }) => cause !== "lost"),
      });
      const sent = async (args: string) => shown(JSON.parse(await run("send", args)) as SendOutcome);
      const tried = async (args: string) => objects(await run("try", args)).map(shown);

      const expected: ReturnType<typeof shown>[] = [];
      for (const phase of PHASES) expected.push(await sent(`${phase}.eml`));
      expect(await tried(PHASES.map((phase) => `${phase}.eml`).join(" "))).toEqual(expected);
      expect(expected.map(({ failures }) => failures[0]?.phase)).toEqual([...PHASES]);
      for (const phase of OPENINGS) {
        const args = `eom.eml --from a@example.com --helo ${phase} --hostname ${phase}.example.net`;
        const opening = await sent(args);
        expect(await tried(args)).toEqual([opening]);
        expect(opening.failures).toMatchObject([{ filter: "loops", phase, cause: "blocked" }]);
      }
    });
  },
);

describe("what is loaded, and what is left alone", () => {
  test("imports, options, phase files and Ruby handlers, as the server loads them", async () => {
    await using own = await project({
      config: `[handler.session]
envfrom_handler = "from.rb"
envrcpt_handler = "to.ts"
[[filter]]
path = "stamp.ts"
options = { word = "option" }
`,
      files: {
        "from.rb": 'p "from: " + Pmilter::Session.new.envelope_from\n',
        "to.ts": `import { reject } from "pmilter";
export default (_: unknown, to: string) => (to === "<no@example.com>" ? reject("550 5.1.1 No such user") : undefined);
`,
        "lib/part.ts": "export const part = 'imported';\n",
        "stamp.ts": `import { defineFilter } from "pmilter";
import { part } from "./lib/part";
export default defineFilter({
  eom({ message, options }) { message.addHeader("X-Stamp", \`\${part} \${options.word}\`); },
});
`,
        "m.eml": eml("x"),
      },
    });
    const { exitCode, stdout, stderr } = await own.tried(
      "m.eml",
      "--to",
      "no@example.com",
      "--to",
      "b@example.com",
      "--json",
    );
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '"from: <a@example.com>"\n' });
    const [outcome] = objects(stdout);
    expect(outcome!.recipients.map(({ verdict }) => verdict)).toEqual(["reject", "accept"]);
    expect(outcome!.modifications).toContainEqual({ kind: "addHeader", name: "X-Stamp", value: "imported option" });
    expect(outcome!.filters.map(({ name }) => name)).toEqual(["handler", "stamp"]);
    expect(outcome!.verdicts).toMatchObject([
      { filter: "handler", phase: "envrcpt", scope: "recipient", recipient: "no@example.com", place: "to.ts:2" },
    ]);
  });

  test("conditions hold as in a session of the listener, and a share always", async () => {
    await using own = await project({
      listen: ["inet:127.0.0.1:8891", "inet:127.0.0.1:8892"],
      config: `[[filter]]
path = "told.ts"
name = "first"
when = { listeners = ["inet:127.0.0.1:8891"] }
[[filter]]
path = "told.ts"
name = "second"
when = { listeners = ["inet:127.0.0.1:8892"] }
[[filter]]
path = "told.ts"
name = "rare"
when = { share = "0.1%" }
[[filter]]
path = "told.ts"
name = "known"
when = { authenticated = true }
`,
      files: {
        "told.ts": `import { defineFilter } from "pmilter";
export default defineFilter({ eom() {} });
`,
        "m.eml": eml("x"),
      },
    });
    const called = async (...args: readonly string[]) => {
      const { stdout } = await own.tried("m.eml", "--json", ...args);
      return objects(stdout)[0]!
        .filters.filter(({ phases }) => "eom" in phases)
        .map(({ name }) => name);
    };
    expect(await called()).toEqual(["first", "rare"]);
    expect(await called("--listener", "inet:127.0.0.1:8892", "--macro", "auth_authen=boss")).toEqual([
      "second",
      "rare",
      "known",
    ]);
    expect(await own.tried("m.eml", "--listener", "inet:127.0.0.1:8893")).toMatchObject({
      exitCode: 1,
      stderr:
        'pmilter: --listener takes an address of server.listen (inet:127.0.0.1:8891, inet:127.0.0.1:8892), got "inet:127.0.0.1:8893"\n',
    });
  });

  test("nothing listens, and no file is made", async () => {
    await using own = await project(PROJECT);
    const before = (await readdir(own.path)).toSorted();
    expect(await own.tried("ok.eml")).toMatchObject({ exitCode: 0 });
    expect((await readdir(own.path)).toSorted()).toEqual(before);
  });

  test("a running server with the same configuration is not asked", async () => {
    await using server = await startPmilter({ ...PROJECT, server: { ...PROJECT.server, stop_timeout: 0.1 } });
    const { exitCode } = await runPmilter(["try", "-c", server.configFile, join(server.dir, "ok.eml")]);
    expect(exitCode).toBe(0);
    expect(server.prints.text).not.toContain("print: ok");
    const status = await runPmilter(["status", "-c", server.configFile, "--json"]);
    expect(JSON.parse(status.stdout)).toMatchObject({ counters: { connections: 0 } });
  });
});

describe("what is wrong with the command", () => {
  test.each([
    ["no file", ["nofile.eml"], "pmilter: the message cannot be read: nofile.eml: there is no such file\n"],
    [
      "a folder without messages",
      ["ok.eml", "none"],
      "pmilter: the message cannot be read: none: expected a folder with files that end in .eml, or a Maildir, got none of them\n",
    ],
    [
      "a client that is none",
      ["ok.eml", "--client", "nowhere"],
      'pmilter: --client: client address "nowhere" is neither IPv4 nor IPv6, nor the path of a unix socket\n',
    ],
  ])("%s: exit code 1, before anything is loaded", async (_, args, stderr) => {
    expect(await tried(...args)).toEqual({ exitCode: 1, stdout: "", stderr });
  });

  test("a configuration that is wrong", async () => {
    await using own = await project({ server: { workrs: 1 } });
    const { exitCode, stderr } = await own.tried("m.eml");
    expect(exitCode).toBe(1);
    expect(stderr).toContain("did you mean");
  });

  test("an only file that cannot be read", async () => {
    expect(await tried("/dev/null")).toMatchObject({
      exitCode: 1,
      stdout: "",
      stderr: expect.stringContaining(
        "error: the message cannot be read: /dev/null: expected a file with a message, got a device\n",
      ),
    });
  });

  test.skipIf(!givenRoot("files that are closed to an account"))(
    "a file and a folder without the right to them",
    async () => {
      await using own = await project({
        files: { "mails/closed.eml": eml("x"), "mails/z/z.eml": eml("x"), "m.eml": eml("x") },
      });
      await chmod(join(own.path, "mails/closed.eml"), 0o600);
      await chmod(join(own.path, "mails/z"), 0o700);
      const child = Bun.spawn(
        [
          ...words("setpriv --reuid=65534 --regid=65534 --clear-groups"),
          process.execPath,
          MAIN,
          ...words(`try -c ${own.configFile} mails m.eml --brief`),
        ],
        { cwd: own.path, stdout: "pipe", stderr: "pipe" },
      );
      const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()]);
      expect(stderr).toBe(
        "error: the message cannot be read: mails/closed.eml: no permission to read it as uid 65534\n" +
          "error: the message cannot be read: mails/z: no permission to read it as uid 65534\n",
      );
      expect(stdout).toBe("m.eml: accept\n1 message: 1 accept; 0 failures, 0 warnings; 2 files not tried\n");
      expect(await child.exited).toBe(1);
    },
  );

  test("a reader that goes away ends it, without a word", async () => {
    const folder = join(dir.path, "many");
    await mkdir(folder);
    for (let index = 0; index < 200; index++) await writeFile(join(folder, `${index}.eml`), eml("ok"));
    const command = `"$0" "${MAIN}" try -c "${configFile}" "${folder}" 2>&1 1>&3 3>&- | grep -v "^print: ok$"`;
    const child = Bun.spawn(["bash", "-c", `{ ${command} >"${dir.path}/told"; } 3>&1 | head -n 1`, process.execPath], {
      cwd: dirname(dir.path),
      stdout: "pipe",
    });
    expect(await child.stdout.text()).toBe(`file: ${folder}/0.eml\n`);
    expect(await child.exited).toBe(0);
    const told = (await Bun.file(join(dir.path, "told")).text()).split("\n");
    expect(told.filter((line) => line !== "" && !/^(start: isCheck false|stop)$/.test(line))).toEqual([]);
  });
});
