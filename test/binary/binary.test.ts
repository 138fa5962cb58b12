/** The compiled binary: every command, from another folder, on a machine that has no Bun; handlers are read from disk. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { rename, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { close, dup } from "../../src/net/libc.ts";
import { SHIPPED_NAMES } from "../../src/shipped.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { VERSION } from "../../src/version.ts";
import { ORIGINAL } from "../config/original.ts";
import { HANDLERS } from "../ruby/original.ts";
import { startNameServer } from "../services/dns/server.ts";
import { CONNECT, HELO, MAIL, OPTNEG, packet, QUIT, RawClient, RCPT } from "../server/wire.ts";
import { median } from "../reload/support.ts";
import { zip } from "../support/archives.ts";
import { type PmilterOptions, writeProject } from "../support/pmilter.ts";
import { EXECUTABLE, USE_ALL, USE_FILES } from "../shipped/use.ts";
import { DKIMPY } from "../support/judges/signatures.ts";
import { PATIENCE_MS, type TempDir, tempDir, waitFor } from "../support/temp.ts";
import { bareEnv, build, run as runBinary, type Served, serve as serveBinary } from "./support.ts";

setDefaultTimeout(120_000);

let folder: TempDir;
let binary: string;
/** Where the commands are run: another folder than the binary's and the handlers'. */
let elsewhere: string;
let env: Record<string, string>;

beforeAll(async () => {
  folder = await tempDir("build");
  binary = join(folder.path, "pmilter");
  elsewhere = join(folder.path, "elsewhere");
  await Bun.write(
    join(elsewhere, "mail.eml"),
    "From: a@example.com\r\nTo: b@example.com\r\nSubject: x\r\n\r\nHello\r\n",
  );
  await Bun.write(join(folder.path, "empty", ".keep"), "");
  env = bareEnv(join(folder.path, "empty"));
  await build(binary);
});

afterAll(() => folder[Symbol.asyncDispose]());

const run = (...args: readonly string[]) => runBinary(binary, args, { cwd: elsewhere, env });

const serve = (options: PmilterOptions, where: { cwd?: string; env?: Record<string, string> } = {}) =>
  serveBinary(binary, options, { cwd: where.cwd ?? elsewhere, env: { ...env, ...where.env } });

async function ready(server: Served): Promise<string> {
  const line = await server.log.next(/\bready: listening on /);
  return /listening on (.*?); /.exec(line)![1]!;
}

/** Handlers, and beside them all that they may import. */
const PROJECT: PmilterOptions = {
  server: { workers: 1, stop_timeout: 0.1 },
  config: `[handler.session]
envfrom_handler = "handlers/envfrom.ts"
[[filter]]
path = "handlers/stamp.ts"
[filter.options]
word = "option"
`,
  files: {
    "handlers/envfrom.ts": `import { reject, type Session } from "pmilter";

export default function envfrom(session: Session<"envfrom">, sender: string) {
  if (sender === "<spam@example.com>") return reject("550 5.7.1 Not welcome here");
}
`,
    "handlers/stamp.ts": `import { defineFilter } from "pmilter";
import { part } from "./lib/part";
import data from "../data.json";
import table from "./table.toml";
import note from "./note.txt" with { type: "text" };
import main from "with-exports";
import { extra } from "with-exports/extra";
import old from "commonjs";
export default defineFilter({
  name: "stamp",
  eom({ message, options }) {
    const words = [part, data.word, table.word, note.trim(), main, extra, old.name, options.word];
    console.log("stamped");
    message.addHeader("X-Stamp", words.join(" "));
  },
});
`,
    "handlers/lib/part.ts": 'export enum Kind { Part = "module" }\nexport const part: string = Kind.Part;\n',
    "handlers/table.toml": 'word = "toml"\n',
    "handlers/note.txt": "text\n",
    "data.json": '{ "word": "json" }\n',
    "node_modules/with-exports/package.json": JSON.stringify({
      name: "with-exports",
      type: "module",
      exports: { ".": { default: "./dist/main.js" }, "./extra": "./dist/extra.js" },
    }),
    "node_modules/with-exports/dist/main.js": 'export { default } from "./inner.js";\n',
    "node_modules/with-exports/dist/inner.js": 'export default "exports";\n',
    "node_modules/with-exports/dist/extra.js": 'export const extra = "extra";\n',
    "node_modules/commonjs/package.json": '{ "name": "commonjs", "main": "lib/main.js" }',
    "node_modules/commonjs/lib/main.js": 'module.exports = { name: require("./name.js") };\n',
    "node_modules/commonjs/lib/name.js": 'module.exports = "cjs";\n',
  },
};

const STAMP = "module json toml text exports extra cjs option";

const stampOf = async (server: Served, ...options: readonly string[]) => {
  const { exitCode, stdout, stderr } = await run("send", "-c", server.configFile, "mail.eml", "--json", ...options);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  const outcome = JSON.parse(stdout) as { verdict: string; modifications: { value: string }[] };
  return `${outcome.verdict} ${outcome.modifications.map(({ value }) => value).join(" ")}`.trimEnd();
};

describe("without Bun", () => {
  test("there is none to be found", () => {
    expect(Bun.which("bun", { PATH: env["PATH"]! })).toBeNull();
    expect(Bun.which("node", { PATH: env["PATH"]! })).toBeNull();
  });

  test("--version and --help, also of each command; exit code 0", async () => {
    expect(await run("--version")).toEqual({
      exitCode: 0,
      stdout: `pmilter ${VERSION} (Bun ${Bun.version})\n`,
      stderr: "",
    });
    for (const args of [["--help"], ["-h"], ["help"]]) {
      const { exitCode, stdout, stderr } = await run(...args);
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout).toContain("Usage: pmilter");
    }
    for (const command of ["serve", "check", "send", "status", "reload", "convert"]) {
      expect((await run(command, "--help")).stdout).toContain(
        `Usage: pmilter ${command === "serve" ? "[serve]" : command}`,
      );
    }
  });

  test("with an empty environment", async () => {
    const { exitCode, stdout } = await runBinary(binary, ["--help"], { cwd: elsewhere, env: {} });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("Usage: pmilter");
  });
});

describe("shipped filters, by name", () => {
  test("every one is loaded, starts and works; check takes it", async () => {
    await using server = await serve({ server: { workers: 1 }, config: USE_ALL, files: USE_FILES });
    await ready(server);
    expect(await server.log.next(/ready: /)).toEndWith(`filters: ${SHIPPED_NAMES.join(", ")}`);
    const { exitCode, stdout, stderr } = await run("send", "-c", server.configFile, "mail.eml");
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    for (const text of [
      "Subject: [external] x",
      "X-Pmilter-Disclaimer: added",
      "Date: ",
      "A banner.",
      "A disclaimer.",
    ]) {
      expect(stdout).toContain(text);
    }
    expect(await run("check", "-c", server.configFile)).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test("what a shipped filter reads archives with is in it", async () => {
    const content = zip([{ name: "setup.exe" }]).toString("base64");
    const head = "Content-Type: application/zip; name=a.zip\nContent-Transfer-Encoding: base64\n\n";
    await Bun.write(join(elsewhere, "archive.eml"), `${head}${content}\n`);
    await using server = await serve({ server: { workers: 1 }, config: '[[filter]]\nuse = "attachments"\n' });
    await ready(server);
    const { stdout } = await run("send", "-c", server.configFile, "archive.eml");
    expect(stdout).toContain('Attachment "a.zip > setup.exe" is not accepted: its name matches *.exe');
  });

  test("a verdict and an error are logged with file and line of the source in the repository", async () => {
    await Bun.write(join(elsewhere, "executable.eml"), EXECUTABLE);
    await using server = await serve({ server: { workers: 1 }, config: USE_ALL, files: USE_FILES });
    await ready(server);
    await run("send", "-c", server.configFile, "executable.eml");
    await expectLine(await server.log.next(/\[notice\]: reject: /), "handlers/attachments.ts", "return reject(");
    await Bun.write(join(server.dir, "senders.txt"), "spam@example.com drop\n");
    const { stderr } = await run("check", "-c", server.configFile);
    expect(stderr).toContain('senders.txt:1: "drop" is no action');
    await expectLine(stderr, "handlers/lib/access-file.ts", "throw new Error(this.#describe(error)");
  });

  test("dns-lists asks a name server, and is logged with its line", async () => {
    await using lists = await startNameServer((name, type) => {
      if (name !== "7.2.0.192.zen.example") return { rcode: 3 };
      return { answers: [{ name, type, ttl: 60, data: type === "TXT" ? ["why"] : "127.0.0.2" }] };
    });
    const config = `[dns]
servers = ["${lists.address}:${lists.port}"]
[[filter]]
use = "dns-lists"
options.lists = [{ zone = "zen.example" }]
`;
    await using server = await serve({ server: { workers: 1 }, config });
    await ready(server);
    const send = (client: string) => run("send", "-c", server.configFile, "mail.eml", "--client", client);
    expect((await send("192.0.2.8")).stdout).toContain("verdict: accept");
    expect((await send("192.0.2.7")).stdout).toContain("192.0.2.7 is listed by zen.example: why");
    await expectLine(await server.log.next(/\[notice\]: reject recipient: /), "handlers/dns-lists.ts", "reject(");
  });

  test("mail-auth has its library in it", async () => {
    await using names = await startNameServer((name, type) => {
      if (name !== "example.com" || type !== "TXT") return { rcode: 3 };
      return { answers: [{ name, type, ttl: 60, data: ["v=spf1 ip4:192.0.2.7 -all"] }] };
    });
    const config = `[dns]
servers = ["${names.address}:${names.port}"]
[[filter]]
use = "mail-auth"
options.policy = { spf_fail = "reject" }
`;
    await using server = await serve({ server: { workers: 1 }, config });
    await ready(server);
    const send = (client: string) =>
      run("send", "-c", server.configFile, "mail.eml", "--from", "a@example.com", "--client", client);
    expect((await send("192.0.2.7")).stdout).toContain("spf=pass smtp.mailfrom=example.com");
    expect((await send("192.0.2.8")).stdout).toContain("SPF: example.com does not permit 192.0.2.8");
    await expectLine(await server.log.next(/\[notice\]: reject: /), "handlers/mail-auth.ts", "reject(");
  });

  test("dkim new makes a key, dkim-sign signs with it, and dkim check finds its record", async () => {
    const keys = join(folder.path, "signing");
    const made = await run("dkim", "new", "example.com", "s1", "-c", join(keys, "pmilter.toml"));
    expect(made).toMatchObject({ exitCode: 0, stderr: "" });
    const [, strings] = /^s1\._domainkey\.example\.com\. IN TXT (.*)$/m.exec(made.stdout)!;
    const data = [...strings!.matchAll(/"([^"]*)"/g)].map(([, text]) => text!);
    await using names = await startNameServer((name, type) => {
      if (name !== "s1._domainkey.example.com" || type !== "TXT") return { rcode: 3 };
      return { answers: [{ name, type, ttl: 60, data }] };
    });
    const config = `[dns]
servers = ["${names.address}:${names.port}"]
[[filter]]
use = "dkim-sign"
options.keys = [{ domain = "example.com", selector = "s1", file = "${keys}/keys/example.com.s1.pem" }]
`;
    await using server = await serve({ server: { workers: 1 }, config });
    await ready(server);
    const { stdout } = await run("send", "-c", server.configFile, "mail.eml", "--json", "--macro", "auth_authen=a");
    const { message } = JSON.parse(stdout) as { message: string };
    expect(message).toStartWith("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.com; s=s1;");
    expect(await run("dkim", "check", "example.com", "-c", server.configFile)).toEqual({
      exitCode: 0,
      stderr: "",
      stdout: "s1._domainkey.example.com: ok, the record has the key\n",
    });
    if (!DKIMPY.tool.available) return;
    const records = { "s1._domainkey.example.com": data.join("") };
    const [judged] = await DKIMPY.judge(records, [Buffer.from(message)]);
    expect(judged!.dkim).toMatchObject([{ d: "example.com", result: "pass" }]);
  });

  test("a body of 5 MB is read from the spool, and judged", async () => {
    const spool = join(folder.path, "spool");
    const looks = `import { readFileSync } from "node:fs";
import { defineFilter } from "pmilter";
export default defineFilter({
  collectBody: true,
  eom({ message }) {
    const isSpooled = readFileSync("/proc/self/maps", "utf8").includes(${JSON.stringify(spool)});
    console.log("large body", message.body().length, message.raw().length - message.rawHeaders().length, isSpooled);
  },
});
`;
    await Bun.write(join(spool, ".keep"), "");
    const size = 5 * 1024 * 1024;
    await Bun.write(
      join(elsewhere, "large.eml"),
      `${EXECUTABLE}${"x".repeat(78)}\n`.padEnd(size, `${"y".repeat(78)}\n`),
    );
    await using server = await serve({
      server: { workers: 1, spool },
      config: '[[filter]]\npath = "looks.ts"\n[[filter]]\nuse = "attachments"\n',
      files: { "looks.ts": looks },
    });
    await ready(server);
    const { stdout } = await run("send", "-c", server.configFile, "large.eml");
    expect(stdout).toContain("setup.exe");
    const [, body, rest, isSpooled] = /large body (\d+) (\d+) (\w+)/.exec(await server.prints.next(/large body/))!;
    expect(Number(body)).toBeGreaterThan(size - 1000);
    expect(Number(rest)).toBe(Number(body) + 2);
    expect(isSpooled).toBe("true");
    await expectLine(await server.log.next(/\[notice\]: reject: /), "handlers/attachments.ts", "return reject(");
    expect((await run("send", "-c", server.configFile, "mail.eml")).stdout).toContain("verdict: accept");
  });

  test("its options are judged by its schema, and a filter of one's own can have one", async () => {
    const own = `import { defineFilter } from "pmilter";
import { duration, table } from "pmilter/options";
export default defineFilter({
  options: table({ wait: duration() }),
  eom({ message, options }) { message.addHeader("X-Wait", options.wait.toFixed()); },
});
`;
    const config =
      '[[filter]]\npath = "own.ts"\noptions.wait = "2m"\n\n[[filter]]\nuse = "subject-tag"\noptions.tag = "[x]"\n';
    await using server = await serve({ server: { workers: 1 }, config, files: { "own.ts": own } });
    await ready(server);
    expect(await run("check", "-c", server.configFile)).toMatchObject({ exitCode: 0, stderr: "" });
    expect((await run("send", "-c", server.configFile, "mail.eml")).stdout).toContain("X-Wait: 120000");
    const text = await Bun.file(server.configFile).text();
    await Bun.write(server.configFile, text.replace('"2m"', '"2 min"').replace("options.tag", "options.tga"));
    const { exitCode, stderr } = await run("reload", "-c", server.configFile);
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/pmilter\.toml:\d+:1: filter 1: options\.wait: expected a duration .*; write "2m"/);
    expect(stderr).toMatch(/pmilter\.toml:\d+:1: filter 2: options\.tga: unknown option; did you mean "tag"\?/);
  });
});

/** The place in a log line or message is that line of a file in the repository. */
async function expectLine(text: string, file: string, code: string): Promise<void> {
  const [, line] = new RegExp(`\\bpmilter/${RegExp.escape(file)}:(\\d+)`).exec(text) ?? [];
  expect(line, text).toBeDefined();
  const source = (await Bun.file(join(import.meta.dir, "..", "..", file)).text()).split("\n");
  expect(source[Number(line) - 1]).toContain(code);
}

describe("handlers on disk, from another folder", () => {
  test("check: modules, data, packages with exports and CommonJS ones are found", async () => {
    await using server = await serve(PROJECT);
    const { exitCode, stdout, stderr } = await run("check", "-c", server.configFile);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toStartWith(`${server.configFile}: ok\n`);
    expect(stdout).toContain("  handler: envfrom\n  stamp: eom\n");
  });

  test("check judges types, with those of pmilter, Bun and Node that it brings along", async () => {
    await using dir = await tempDir("binary");
    await Bun.write(join(dir.path, "pmilter.toml"), '[[filter]]\npath = "filter.ts"\n');
    const right = `import { readFileSync } from "node:fs";
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  start(_options, home) { console.log(home.isCheck, Bun.version.length, readFileSync(import.meta.path).length > 0); },
  envfrom(session) { return session.helo === "" ? reject() : undefined; },
});
`;
    await Bun.write(join(dir.path, "filter.ts"), right);
    const check = () => runBinary(binary, ["check"], { cwd: dir.path, env });
    const fine = await check();
    expect(fine).toMatchObject({ exitCode: 0, stderr: "" });
    expect(fine.stdout).toStartWith("true 5 true\n");
    await Bun.write(join(dir.path, "filter.ts"), right.replace("session.helo", "session.hello"));
    expect(await check()).toMatchObject({
      exitCode: 1,
      stdout: "true 5 true\n",
      stderr: expect.stringMatching(
        /^pmilter: filter\.ts:5:37: TS2551: Property 'hello' does not exist on type .*'helo'\?\n$/,
      ),
    });
  });

  test("serve and send: what is imported works, prints go to standard output", async () => {
    await using server = await serve(PROJECT);
    await ready(server);
    expect(await stampOf(server)).toBe(`accept ${STAMP}`);
    expect(await server.prints.next(/stamped/)).toBe("stamped");
    const { exitCode, stdout } = await run("send", "-c", server.configFile, "mail.eml", "--from", "spam@example.com");
    expect(exitCode).toBe(0);
    expect(stdout).toContain("550 5.7.1 Not welcome here");
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
  });

  test("a reject's log line says in which file and line it was written", async () => {
    await using server = await serve(PROJECT);
    await ready(server);
    await stampOf(server, "--from", "spam@example.com");
    expect(await server.log.next(/\[notice\]: reject: /)).toMatch(/ at=handlers\/envfrom\.ts:4 /);
    expect(server.log.text).not.toContain("the log names the file of a verdict, but not its line");
  });

  test("what starts itself anew has the same process id, and its handlers' programs inherit nothing of it", async () => {
    await using server = await serve({
      ...PROJECT,
      config: '[[filter]]\npath = "env.ts"\n',
      files: {
        "env.ts":
          'console.log("pid", process.pid, JSON.stringify(Object.keys(process.env).filter((name) => name.startsWith("BUN_"))));\nexport default { eom() {} };\n',
      },
    });
    expect(await server.prints.next(/pid/)).toBe(`pid ${server.process.pid} []`);
  });

  test("reload: a saved handler, module and JSON file; status and reload tell", async () => {
    await using server = await serve(PROJECT);
    await ready(server);
    expect(await stampOf(server)).toBe(`accept ${STAMP}`);
    const saves: [string, string, string][] = [
      ["data.json", '{ "word": "saved" }', "module saved toml text exports extra cjs option"],
      ["handlers/lib/part.ts", 'export const part = "saved";\n', "saved saved toml text exports extra cjs option"],
      [
        "handlers/stamp.ts",
        PROJECT.files!["handlers/stamp.ts"]!.replace("[part,", '["handler", part,'),
        "handler saved saved toml text exports extra cjs option",
      ],
    ];
    for (const [index, [name, text, stamp]] of saves.entries()) {
      await writeFile(join(server.dir, name), text);
      await server.log.next(new RegExp(`reload: generation ${index + 2} serves: handler, stamp`));
      expect(await stampOf(server)).toBe(`accept ${stamp}`);
    }
    const broken = server.log.all.length;
    await writeFile(join(server.dir, "handlers/lib/part.ts"), "export const part = ;\n");
    expect(await server.log.next(/keeps serving/, { from: broken })).toMatch(/handlers\/lib\/part\.ts:1:\d+: /);
    const failed = await run("reload", "-c", server.configFile);
    expect(failed.exitCode).toBe(1);
    const degraded = await run("status", "--health", "-c", server.configFile);
    expect(degraded).toMatchObject({
      exitCode: 1,
      stdout: expect.stringMatching(/^on disk +would not start: \S+part\.ts:1:\d+: /m),
    });
    expect(failed.stderr).toMatch(/^not reloaded: generation 4 keeps serving: .*part\.ts:1:\d+: /);
    await writeFile(join(server.dir, "handlers/lib/part.ts"), 'export const part = "mended";\n');
    const took = await run("reload", "-c", server.configFile);
    expect({ exitCode: took.exitCode, stderr: took.stderr }).toEqual({ exitCode: 0, stderr: "" });
    const { exitCode, stdout } = await run("status", "-c", server.configFile, "--json");
    expect(exitCode).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      version: VERSION,
      bun: Bun.version,
      pid: server.process.pid,
      health: "ok",
      disk: { state: "same" },
      reload: { ok: true },
    });
    expect(await stampOf(server)).toStartWith("accept handler mended");

    await using other = await serve({ ...PROJECT, files: {}, config: "" });
    await ready(other);
    const reloaded = await run("reload", "-c", other.configFile);
    expect(reloaded.stdout).toBe("reloaded: generation 2 serves: no filters; nothing has changed since generation 1\n");
    await other.log.next(/reload: generation 2 serves/);
  });

  test("reload: a type error is told once the handler serves", async () => {
    const text =
      'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom(session) { session.queueId; } });\n';
    await using server = await serve({
      config: '[[filter]]\npath = "filter.ts"\n',
      server: { workers: 1, stop_timeout: 0.1, watch: false },
      files: { "filter.ts": text },
    });
    await ready(server);
    await writeFile(join(server.dir, "filter.ts"), text.replace("queueId", "queueID"));
    expect((await run("reload", "-c", server.configFile)).exitCode).toBe(0);
    expect(await server.log.next(/warn\].*filter\.ts/)).toMatch(
      /reload: filter\.ts:2:54: TS2551: Property 'queueID' does not/,
    );
  });

  test("a handler that does not return: the fallback from outside, and the session goes on", async () => {
    await using server = await serve({
      server: { workers: 1, block_timeout: 0.5, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: {
        "filter.ts":
          'export default { envfrom(session, sender) { if (sender === "<loop@example.com>") for (;;) {} } };\n',
      },
    });
    using client = await RawClient.connect(await ready(server));
    expect(await client.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
    expect(await client.ask(packet("M", "<loop@example.com>\0"))).toBe("t");
    expect(await client.ask(packet("M", "<a@example.com>\0"))).toBe("c");
    await server.log.next(/handler did not return: .* filter=filter phase=envfrom at=filter\.ts fallback=tempfail/);
  });

  test("try: a folder, with handlers that refuse, throw and do not return, a shipped filter and a Ruby handler", async () => {
    await using dir = await tempDir("binary-try");
    const eml = (subject: string) => `From: a@example.com\nTo: b@example.com\nSubject: ${subject}\n\nHello\n`;
    const configFile = await writeProject(dir.path, {
      server: { block_timeout: 0.5 },
      config: `[handler.session]
envfrom_handler = "from.rb"
[[filter]]
path = "rules.ts"
[[filter]]
use = "subject-tag"
options = { tag = "[tried]" }
`,
      files: {
        "from.rb": 'p "from: " + Pmilter::Session.new.envelope_from\n',
        "rules.ts": `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  eom({ message, trial }) {
    const subject = message.headers.get("Subject");
    if (subject === "loop") for (;;);
    if (subject === "throw") throw new Error("boom");
    if (subject === "refuse") return reject("550 5.7.1 Not welcome");
    message.addHeader("X-Trial", String(trial));
  },
});
`,
        ...Object.fromEntries(["loop", "ok", "refuse", "throw"].map((name) => [`mails/${name}.eml`, eml(name)])),
      },
    });
    const mails = join(dir.path, "mails");
    const brief = await run("try", "-c", configFile, mails, "--brief", "--strict");
    expect(brief.stdout.replaceAll(`${mails}/`, "")).toBe(
      "loop.eml: tempfail; 1 failure\n" +
        "ok.eml: accept\n" +
        "refuse.eml: reject, 550 5.7.1 Not welcome; filter rules, eom, at rules.ts:7\n" +
        "throw.eml: tempfail; 1 failure\n" +
        "4 messages: 1 accept, 1 reject, 2 tempfail; 2 failures, 0 warnings\n",
    );
    expect(brief.exitCode).toBe(1);
    expect(brief.stderr).toContain('"from: <a@example.com>"\n');
    const { exitCode, stdout } = await run("try", "-c", configFile, join(mails, "ok.eml"));
    expect(exitCode).toBe(0);
    expect(stdout).toContain("\nX-Trial: true\n");
    expect(stdout).toContain("\nSubject: [tried] ok\n");
    expect(stdout).toMatch(/\nfilters\n {2}handler .*\n {2}rules .*\n {2}subject-tag /);
  });

  test("a worker that ends comes back with the code that was loaded", async () => {
    const filter = (word: string) => `import data from "./data.json";
import { part } from "./part.ts";
export default {
  envfrom(session, sender) { if (sender === "<exit@example.com>") process.exit(1); },
  eom: ({ message }) => message.addHeader("X-Stamp", ["${word}", data.word, part].join(" ")),
};
`;
    await using server = await serve({
      server: { workers: 1, watch: false, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: {
        "filter.ts": filter("first"),
        "data.json": '{ "word": "json" }',
        "part.ts": 'export const part = "part";\n',
      },
    });
    const address = await ready(server);
    for (const name of ["filter.ts", "data.json", "part.ts"]) await writeFile(join(server.dir, name), "broken {");
    using client = await RawClient.connect(address);
    await client.ask(OPTNEG, CONNECT, HELO);
    await client.send(Buffer.from("\0\0\0\x14M<exit@example.com>\0"));
    await server.log.next(/a worker with 1 connection ended/);
    expect(await stampOf(server)).toBe("accept first json part");
  });

  test("a link that is turned: its code answers, also from a worker that comes later", async () => {
    const files = (version: string) => ({
      [`${version}/filter.ts`]: `import { part } from "./lib";
export default {
  envfrom(session, sender) { if (sender === "<exit@example.com>") process.exit(1); },
  eom: ({ message }) => message.addHeader("X-Stamp", part),
};
`,
      [`${version}/lib/index.ts`]: 'export * from "./part";\n',
      [`${version}/lib/part.ts`]: `export const part: string = "${version}";\n`,
    });
    await using server = await serve({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "cur/filter.ts"\n',
      files: { ...files("r1"), ...files("r2") },
      links: { cur: "r1" },
    });
    const address = await ready(server);
    for (const [index, release] of ["r1", "r2", "r1"].entries()) {
      if (index > 0) {
        await symlink(release, join(server.dir, "new"));
        await rename(join(server.dir, "new"), join(server.dir, "cur"));
        await server.log.next(new RegExp(`reload: generation ${index + 1} serves: filter`));
      }
      expect(await stampOf(server)).toBe(`accept ${release}`);
      const from = server.log.all.length;
      using client = await RawClient.connect(address);
      await client.ask(OPTNEG, CONNECT, HELO);
      await client.send(packet("M", "<exit@example.com>\0"));
      await server.log.next(/a worker with 1 connection ended/, { from });
      expect(await stampOf(server)).toBe(`accept ${release}`);
    }
  }, 60_000);

  test("postconfig_handler and master_exit_handler run", async () => {
    await using server = await serve({
      ...PROJECT,
      config: '[handler.config]\npostconfig_handler = "life.ts"\nmaster_exit_handler = "life.ts"\n',
      files: {
        "life.ts": 'import data from "./data.json";\nexport default () => console.log(data.word);\n',
        "data.json": '{ "word": "life" }',
      },
    });
    await ready(server);
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
    await waitFor(() => server.prints.isEnded, { what: "the end of its output" });
    expect(server.prints.all).toEqual(["life", "life"]);
  });
});

describe("the folder it starts in", () => {
  /** Whatever of Bun's own files a folder may hold. */
  async function plant(dir: string): Promise<void> {
    for (const name of [".env", ".env.local", ".env.production", ".env.development", ".env.test"]) {
      await writeFile(join(dir, name), "PMILTER_LEAK=leaked\n");
    }
    await writeFile(
      join(dir, "bunfig.toml"),
      'preload = ["./preload.ts"]\n[define]\n"process.env.DEFINED" = "\'defined\'"\n',
    );
    await writeFile(join(dir, "preload.ts"), 'console.log("preloaded");\nprocess.env.PMILTER_PRELOAD = "preloaded";\n');
  }

  const TELLING = {
    server: { workers: 2, stop_timeout: 0.1 },
    config: '[[filter]]\npath = "tell.ts"\n',
    files: {
      "tell.ts":
        'const { PMILTER_LEAK, PMILTER_PRELOAD, DEFINED, PMILTER_GIVEN } = process.env;\nexport default { eom() { console.log("env", PMILTER_LEAK, PMILTER_PRELOAD, DEFINED, PMILTER_GIVEN); } };\n',
    },
  } satisfies PmilterOptions;

  test.each(["elsewhere", "the configuration's"])("its .env and bunfig.toml are not read (%s)", async (where) => {
    await using start = await tempDir("planted");
    await plant(start.path);
    const given = { ...env, PMILTER_GIVEN: "given" };
    let cwd = start.path;
    if (where !== "elsewhere") {
      // The server finds them where its configuration lies, too.
      await Bun.write(join(start.path, "tell.ts"), TELLING.files["tell.ts"]);
      await Bun.write(
        join(start.path, "pmilter.toml"),
        `[server]\nlisten = "unix:own.sock"\nworkers = 1\n${TELLING.config}`,
      );
      const check = await runBinary(binary, ["check"], { cwd, env: given });
      expect(check).toMatchObject({ exitCode: 0, stderr: "" });
      expect(check.stdout).not.toContain("preloaded");
    }
    await using server = await serve(TELLING, { cwd, env: given });
    if (where !== "elsewhere") {
      await plant(server.dir);
      cwd = server.dir;
    }
    await ready(server);
    const sent = await runBinary(binary, ["send", "-c", server.configFile, "-"], { cwd, env: given });
    expect(sent.exitCode).toBe(0);
    expect(sent.stdout).not.toContain("preloaded");
    expect(await server.prints.next(/env/)).toBe("env undefined undefined undefined given");
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
    expect(server.prints.all).toHaveLength(1);
  });

  test("--help and --version do not read them either", async () => {
    await using start = await tempDir("planted");
    await plant(start.path);
    for (const option of ["--help", "--version"]) {
      const { exitCode, stdout } = await runBinary(binary, [option], { cwd: start.path, env });
      expect(exitCode).toBe(0);
      expect(stdout).toMatch(/^pmilter/);
    }
  });

  test("a tsconfig.json and a package.json of that folder change nothing", async () => {
    await using start = await tempDir("planted");
    await writeFile(join(start.path, "tsconfig.json"), "{ broken");
    await writeFile(join(start.path, "package.json"), "{ broken");
    await using server = await serve(PROJECT, { cwd: start.path });
    await ready(server);
    expect(await stampOf(server)).toBe(`accept ${STAMP}`);
  });
});

describe("exit codes", () => {
  const wrong = { ...PROJECT, files: { ...PROJECT.files, "handlers/envfrom.ts": "export default (\n" } };

  test("0: fine; 1: the configuration or a handler is wrong; 2: wrong usage", async () => {
    await using fine = await serve(PROJECT);
    await using broken = await serve(wrong);
    expect(await broken.process.exited).toBe(1);
    expect(broken.log.text).toMatch(/handlers\/envfrom\.ts:\d+:\d+: /);
    await ready(fine);
    const codes = async (...args: readonly string[]) => (await run(...args)).exitCode;
    expect(await codes("check", "-c", fine.configFile)).toBe(0);
    const check = await run("check", "-c", broken.configFile);
    expect(check.exitCode).toBe(1);
    expect(check.stderr).toMatch(/^pmilter: \S+handlers\/envfrom\.ts:\d+:\d+: /);
    expect(await codes("check", "-c", join(elsewhere, "none.toml"))).toBe(1);
    expect(await codes("status", "-c", broken.configFile)).toBe(1);
    expect(await codes("send", "-c", broken.configFile, "mail.eml")).toBe(1);
    for (const args of [["frobnicate"], ["--frobnicate"], ["send"], ["check", "extra"]]) {
      const { exitCode, stdout, stderr } = await run(...args);
      expect({ exitCode, stdout }).toEqual({ exitCode: 2, stdout: "" });
      expect(stderr).toMatch(/^pmilter: \S/);
    }
  });
});

describe("sockets", () => {
  test("an inherited descriptor, past the start anew", async () => {
    const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const inherited = dup((listener as unknown as { readonly fd: number }).fd);
    const { port } = listener;
    listener.stop();
    try {
      await using server = await serve({ ...PROJECT, listen: "fd:3", inherit: [inherited] });
      expect(await ready(server)).toBe("fd:3");
      await using client = await MilterClient.connect(`inet:127.0.0.1:${port}`, { as: "postfix" });
      const outcome = await client.send({ from: "a@example.com", to: ["b@example.com"], eml: "A: b\r\n\r\nx\r\n" });
      expect(outcome.modifications).toEqual([{ kind: "addHeader", name: "X-Stamp", value: STAMP }]);
      await client.quit();
      server.process.kill("SIGTERM");
      expect(await server.process.exited).toBe(0);
    } finally {
      close(inherited);
    }
  });

  test("TCP and unix; many connections at once", async () => {
    await using server = await serve({
      ...PROJECT,
      server: { workers: 2 },
      listen: ["unix:pmilter.sock", "inet:127.0.0.1:0"],
    });
    const addresses = (await ready(server)).split(", ");
    await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        using client = await RawClient.connect(addresses[index % 2]!);
        expect(await client.ask(OPTNEG, CONNECT, HELO, MAIL, RCPT)).toBe("Occcc");
        await client.send(QUIT);
        await client.ended();
      }),
    );
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
  });
});

describe("the original's Ruby handlers", () => {
  const RUBY: PmilterOptions = {
    server: { workers: 2, stop_timeout: 0.1 },
    config: ORIGINAL.slice(ORIGINAL.indexOf("[handler]")),
    files: HANDLERS,
  };

  test("check, serve and send; a refusal and an error are logged with their line; a saved script is in force", async () => {
    await using server = await serve(RUBY);
    const address = await ready(server);
    expect((await run("check", "-c", server.configFile)).exitCode).toBe(0);
    const sent = await run("send", "-c", server.configFile, "mail.eml", "--from", "from@example.com");
    expect(sent.stdout).toMatch(/^ {2}addHeader X-Pmilter: Enable$/m);
    await server.prints.next(/^reveive_time: \w{3} \w{3} \d\d \d\d:\d\d:\d\d \d{4}$/);
    await run("send", "-c", server.configFile, "mail.eml", "--from", "spam-from@example.com");
    expect(await server.log.next(/reject: /)).toMatch(/ at=handler\/mail_from\.rb:8$/);
    await writeFile(join(server.dir, "handler/eom.rb"), "\n\nnil.oops\n");
    await server.log.next(/reload: generation 2 serves/);
    await using client = await MilterClient.connect(address, { as: "postfix" });
    expect((await client.send({ eml: "A: b\n\nc\n" })).verdict).toBe("tempfail");
    expect(await server.log.next(/handler failed: /)).toMatch(/ at=handler\/eom\.rb:3 error="NoMethodError: /);
    await client.quit();
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
    await server.prints.next(/^master exit at exit phase$/);
  });

  test("scripts that remember have their thread, the store and files", async () => {
    const count = 'c = Cache.new :namespace => "n"\nMutex.new.synchronize { c["n"] = (c["n"].to_i + 1).to_s }\n';
    await using server = await serve({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[handler.session]\nhelo_handler = "helo.rb"\n[store]\ntimeout = "9s"\n',
      files: { "helo.rb": `${count}puts "n #{c["n"]} #{File.basename("/a/b")}"\n` },
    });
    const address = await ready(server);
    for (const n of [1, 2]) {
      await using client = await MilterClient.connect(address, { as: "postfix" });
      expect((await client.send({ eml: "A: b\n\nc\n" })).verdict).toBe("accept");
      await client.quit();
      await server.prints.next(new RegExp(`^n ${n} b$`));
    }
    server.process.kill("SIGTERM");
    expect(await server.process.exited).toBe(0);
  });

  test("convert", async () => {
    await using server = await serve(RUBY);
    const file = join(server.dir, "handler/mail_from.rb");
    expect(await run("convert", file)).toEqual({
      exitCode: 0,
      stdout: `${file.replace(".rb", ".ts")}: written for envfrom\n`,
      stderr: "",
    });
  });
});

test("from its start to the first answer", async () => {
  const times: number[] = [];
  for (let round = 0; round < 3; round++) {
    await using server = await serve(PROJECT);
    const address = `unix:${join(server.dir, "pmilter.sock")}`;
    for (;;) {
      try {
        using client = await RawClient.connect(address);
        expect(await client.ask(OPTNEG)).toBe("O");
        break;
      } catch (error) {
        if (performance.now() - server.startedAt > PATIENCE_MS) throw error;
        await Bun.sleep(1);
      }
    }
    times.push(performance.now() - server.startedAt);
  }
  console.log(
    `the binary's start to its first answer: median ${median(times).toFixed(0)} ms, worst ${Math.max(...times).toFixed(0)} ms of ${times.length}`,
  );
});
