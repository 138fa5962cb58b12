/** `pmilter check`: what it prints of a configuration that is right, and its exit codes for those that are not. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { type PmilterOptions, ROOT, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

async function check(options: PmilterOptions, ...flags: readonly string[]) {
  await using dir = await tempDir("check");
  const configFile = await writeProject(dir.path, options);
  return { ...(await runPmilter(["check", "-c", configFile, ...flags])), configFile, dir: dir.path };
}

const FILES = {
  "envfrom.ts":
    'import type { Session } from "pmilter";\nexport default (_session: Session<"envfrom">, _sender: string) => {};\n',
  "stamp.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  name: "stamp",
  macros: { helo: ["{verify}"] },
  start() { console.log("started"); },
  header() {},
  eom(session) { session.message.addHeader("X-Pmilter", "Enable"); },
  close() {},
});
`,
};

describe("a handler that may run before a condition of its filter is known", () => {
  test("is refused, with both of them and the line of the condition", async () => {
    const { dir, exitCode, stderr } = await check(
      {
        config:
          '[[filter]]\npath = "filter.ts"\n[filter.when]\nlisteners = "inet:127.0.0.1:8891"\nnot_senders = "<>"\n',
        files: { "filter.ts": "export default {\n  helo() {},\n  eom() {},\n};\n" },
        server: { listen: "inet:127.0.0.1:8891" },
      },
      "--no-types",
    );
    expect({ exitCode, stderr: stderr.replace(/(?<=pmilter\.toml:)\d+/, "LINE") }).toEqual({
      exitCode: 1,
      stderr: `pmilter: ${dir}/filter.ts:1:1: the helo handler may run before its condition not_senders (filter 1: when.not_senders, pmilter.toml:LINE) is known, which is at envfrom; remove one of them\n`,
    });
  });
});

describe("a configuration that is right", () => {
  test("filters in order with their phases, events, actions, flags and macros; exit code 0", async () => {
    const { exitCode, stdout, stderr, configFile } = await check({
      config: `[handler.session]\nenvfrom_handler = "envfrom.ts"\n[[filter]]\npath = "stamp.ts"\nname = "second"\n[[filter]]\npath = "stamp.ts"\nmode = "observe"\n`,
      files: FILES,
    });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    // Two of the filters print at their start.
    const lines = stdout.split("\n");
    expect(lines.slice(0, 3)).toEqual(["started", "started", `${configFile}: ok`]);
    const at = lines.indexOf("Filters, in order:");
    expect(lines.slice(at + 1, at + 4)).toEqual([
      "  handler: envfrom",
      "  second: header eom close",
      "  stamp (observe: logged, not applied): header eom close",
    ]);
    const needOf = (phase: string) => lines.find((line) => line.startsWith(`  ${phase.padEnd(8)} `))!.slice(11);
    expect(needOf("envfrom")).toMatch(/^sent, and a reply is awaited/);
    expect(needOf("header")).toMatch(/^sent without waiting; a verdict is given at eom/);
    expect(needOf("eom")).toMatch(/^sent, and a reply is awaited/);
    expect(needOf("body")).toMatch(/^not sent/);
    expect(needOf("unknown")).toMatch(/^not sent/);
    expect(stdout).toMatch(/^Actions asked for: .*\bADDHDRS\b.*\bCHGBODY\b/m);
    const flags = /^Protocol flags asked for: (.*)$/m.exec(stdout)![1]!.split(" ");
    for (const flag of ["NOBODY", "NOUNKNOWN", "NR_HDR"]) expect(flags).toContain(flag);
    for (const flag of ["NOMAIL", "NR_MAIL", "NOHDRS"]) expect(flags).not.toContain(flag);
    expect(stdout).toMatch(/^Macros asked for at HELO: .*\{verify\}/m);
  });

  test("the files that it includes, in order, and their filters", async () => {
    await using dir = await tempDir("check");
    const configFile = join(dir.path, "pmilter.toml");
    await Bun.write(configFile, 'include = "rules.d/*.toml"\n[[filter]]\npath = "stamp.ts"\n');
    await Bun.write(join(dir.path, "stamp.ts"), FILES["stamp.ts"]);
    const none = await runPmilter(["check", "-c", configFile]);
    expect(none.stdout).toContain(`${configFile}: ok\n\nIncluded files: none yet (rules.d/*.toml)\n`);
    await Bun.write(join(dir.path, "rules.d/b.toml"), '[[filter]]\npath = "stamp.ts"\nname = "last"\n');
    await Bun.write(join(dir.path, "rules.d/a.toml"), '[[filter]]\npath = "no.ts"\nname = "second"\n');
    const broken = await runPmilter(["check", "-c", configFile]);
    expect(broken.exitCode).toBe(1);
    expect(broken.stderr).toContain("(filter 1: path, a.toml:2)");
    await Bun.write(join(dir.path, "rules.d/a.toml"), '[[filter]]\npath = "stamp.ts"\nname = "second"\n');
    const { exitCode, stdout } = await runPmilter(["check", "-c", configFile]);
    expect(exitCode).toBe(0);
    expect(stdout).toContain("\nIncluded files, in order: rules.d/a.toml, rules.d/b.toml\n");
    expect(stdout).toMatch(/^ {2}stamp: .*\n {2}second: .*\n {2}last: /m);
  });

  test("where each filter runs, and what it saves elsewhere", async () => {
    const body = "export default { header() {}, body() {}, eom() {} };\n";
    const whole = "export default { collectBody: true, envrcpt() {}, eom() {} };\n";
    const { exitCode, stdout } = await check({
      config: `[handler.session]
envfrom_handler = "envfrom.ts"
[[filter]]
path = "body.ts"
[filter.when]
share = "0.5%"
clients = ["192.0.2.0/24", "::1", ".example.net"]
[[filter]]
path = "whole.ts"
[filter.when]
not_recipients = "example.com"
recipients_match = "every"
tls = true
[[filter]]
path = "stamp.ts"
`,
      files: { ...FILES, "body.ts": body, "whole.ts": whole },
    });
    expect(exitCode).toBe(0);
    expect(stdout).toContain(`
  handler: envfrom
  body: header body eom
    when share = "0.5%", clients = ["192.0.2.0/24", "::1", ".example.net"]
    saves in sessions without it: no event, since other filters need the same; its handlers are not called
    saves where clients does not hold: its handlers are not called; events are sent all the same
  whole: envrcpt eom
    when tls = true, not_recipients = ["example.com"], recipients_match = "every"
    saves where tls or not_recipients does not hold: its handlers are not called, and the body is not collected for it; events are sent all the same
  stamp: header eom close
`);
    const alone = await check({
      config: `[handler.session]\nenvfrom_handler = "envfrom.ts"\n[[filter]]\npath = "body.ts"\nwhen.share = "10%"\n`,
      files: { ...FILES, "body.ts": body },
    });
    expect(alone.stdout).toContain(`
    when share = "10%"
    saves in sessions without it: envrcpt header body not sent
`);
  });

  test("outcome is listed behind the phases, also alone", async () => {
    const { stdout } = await check({
      config: `[[filter]]\npath = "books.ts"\n`,
      files: {
        "books.ts": `import { defineFilter } from "pmilter";\nexport default defineFilter({ outcome() {} });\n`,
      },
    });
    expect(stdout).toContain("\nFilters, in order:\n  books: outcome\n");
  });

  test("which phases are deferred: those of content that have a handler, unless server.defer_content is false", async () => {
    const events = async (server: Record<string, unknown>) => {
      const { stdout } = await check({
        server,
        config: '[[filter]]\npath = "content.ts"\n',
        files: { "content.ts": "export default { data() {}, header() {}, body() {}, eom() {} };\n" },
      });
      const flags = /^Protocol flags asked for: (.*)$/m.exec(stdout)![1]!.split(" ");
      return {
        deferred: [...stdout.matchAll(/^ {2}(\w+) +sent without waiting; a verdict is given at eom/gm)].map(
          ([, name]) => name,
        ),
        answered: [...stdout.matchAll(/^ {2}(\w+) +sent, and a reply is awaited$/gm)].map(([, name]) => name),
        silent: ["NR_DATA", "NR_HDR", "NR_EOH", "NR_BODY"].filter((flag) => flags.includes(flag)),
      };
    };
    expect(await events({})).toEqual({
      deferred: ["header", "body"],
      answered: ["data", "eom"],
      silent: ["NR_HDR", "NR_BODY"],
    });
    expect(await events({ defer_content: false })).toEqual({
      deferred: [],
      answered: ["data", "header", "body", "eom"],
      silent: [],
    });
  });

  test("without handlers every message passes, and nothing is sent", async () => {
    const { exitCode, stdout } = await check({});
    expect(exitCode).toBe(0);
    expect(stdout).toContain("none: every message passes");
    expect(stdout).toMatch(/connect\s+not sent/);
  });

  test("server.handler = false: the handlers are not loaded", async () => {
    const { exitCode, stdout } = await check({
      server: { handler: false },
      config: '[[filter]]\npath = "missing.ts"\n',
    });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("none: every message passes");
  });

  test("enabled = false: the filter is not loaded, and is named", async () => {
    const { exitCode, stdout } = await check({
      config: '[[filter]]\npath = "missing.ts"\nenabled = false\n[[filter]]\npath = "stamp.ts"\n',
      files: FILES,
    });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("Filters, in order:\n  stamp: header eom close\n  missing: switched off\n");
  });

  test("the original's keys are accepted, with a note", async () => {
    const { exitCode, stdout } = await check({
      server: { min_worker: 32, mruby_handler: true },
      config: '[handler.session]\nmruby_envfrom_handler = "envfrom.ts"\n',
      files: FILES,
    });
    expect(exitCode).toBe(0);
    expect(stdout).toContain("  handler: envfrom");
    expect(stdout).toMatch(/min_worker/);
  });

  test("warnings are printed, and are no error", async () => {
    const { exitCode, stdout } = await check({ server: { handler_timeout: 12 } });
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^warning: server\.handler_timeout is 12 s, but Sendmail waits only 10 s/m);
  });

  test("accounts that a start would not find are warned of", async () => {
    const { exitCode, stdout } = await check({ server: { user: "nobody-of-that-name", socket_group: "none-of-that" } });
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^warning: server\.user: unknown user "nobody-of-that-name": expected a name from /m);
    expect(stdout).toMatch(/^warning: server\.socket_group: unknown group "none-of-that": expected a name from /m);
  });

  test("it binds nothing", async () => {
    await using dir = await tempDir("check");
    const configFile = await writeProject(dir.path, { listen: "unix:/nonexistent/folder/pmilter.sock" });
    expect((await runPmilter(["check", "-c", configFile])).exitCode).toBe(0);
  });

  test("the configuration is pmilter.toml of the folder without -c", async () => {
    await using dir = await tempDir("check");
    await writeProject(dir.path, {});
    expect((await runPmilter(["check"], { cwd: dir.path })).stdout).toStartWith(join(dir.path, "pmilter.toml: ok"));
  });
});

describe("a configuration that is wrong: exit code 1, and all its faults on standard error", () => {
  test("unknown keys, with what was meant, and wrong values, each with line and column", async () => {
    const { exitCode, stdout, stderr, configFile } = await check({
      server: { workrs: 2, log_level: "loud" },
      config: '[handler.session]\nenvform_handler = "envfrom.ts"\n',
      files: FILES,
    });
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toStartWith(`pmilter: ${configFile}:`);
    expect(stderr).toMatch(/pmilter\.toml:4:1: server\.workrs: unknown key; did you mean "workers"\?/);
    expect(stderr).toMatch(/pmilter\.toml:5:1: server\.log_level: expected .*"loud"/);
    expect(stderr).toMatch(/pmilter\.toml:9:1: handler\.session\.envform_handler: .*did you mean "envfrom_handler"\?/);
  });

  test("no TOML", async () => {
    const { exitCode, stderr } = await check({ config: "[handler\n" });
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/pmilter\.toml:6:\d+: not valid TOML/);
  });

  test("no file", async () => {
    const { exitCode, stderr } = await runPmilter(["check", "-c", "/nonexistent/pmilter.toml"]);
    expect(exitCode).toBe(1);
    expect(stderr).toBe(
      "pmilter: /nonexistent/pmilter.toml: the configuration cannot be read: there is no such file\n",
    );
  });

  test.each([
    [
      "a missing filter",
      '[[filter]]\npath = "stamp.ts"\n[[filter]]\npath = "none.ts"',
      "none.ts",
      "there is no such file (filter 2: path, pmilter.toml:9)",
    ],
    [
      "a missing phase file",
      '[handler.session]\nhelo_handler = "none.ts"',
      "none.ts",
      "there is no such file (handler.session.helo_handler, pmilter.toml:7)",
    ],
    [
      "a folder",
      '[[filter]]\npath = "folder"',
      "folder",
      "expected a file, got a folder (filter 1: path, pmilter.toml:7)",
    ],
  ])("%s: which key names it, and where", async (_, config, file, says) => {
    const { exitCode, stderr, dir } = await check({ config, files: { ...FILES, "folder/x.ts": "" } });
    expect(exitCode).toBe(1);
    expect(stderr).toBe(`pmilter: ${dir}/${file}: ${says}\n`);
  });

  test("a handler: file, line and column", async () => {
    const { exitCode, stdout, stderr, dir } = await check({
      config: '[[filter]]\npath = "stamp.ts"\n[[filter]]\npath = "broken.ts"\n',
      files: { ...FILES, "broken.ts": "export default {\n  eom() { return reject( }\n};\n" },
    });
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toStartWith(`pmilter: ${dir}/broken.ts:2:`);
  });

  test.each(["postconfig_handler", "master_exit_handler"])("handler.config.%s that does not load", async (key) => {
    const { exitCode, stderr, dir } = await check({
      config: `[handler.config]\n${key} = "life.ts"\n`,
      files: { "life.ts": "export default () => {\n  const = 1;\n};\n" },
    });
    expect(exitCode).toBe(1);
    expect(stderr).toStartWith(`pmilter: ${dir}/life.ts:2:`);
  });
});

describe("start() and stop()", () => {
  const files = {
    "filter.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  start(options, home) { console.log("start", options.a, home.isCheck, import.meta.path.startsWith(home.folder)); },
  stop() { console.log("stop"); },
  eom() {},
});
`,
  };
  const config = '[[filter]]\npath = "filter.ts"\noptions = { a = 1 }\n';

  test("are called, and told that it is a check", async () => {
    const { exitCode, stdout } = await check({ config, files });
    expect(exitCode).toBe(0);
    expect(stdout).toStartWith("start 1 true true\nstop\n");
  });

  test("--no-start calls neither", async () => {
    const { exitCode, stdout, configFile } = await check({ config, files }, "--no-start");
    expect(exitCode).toBe(0);
    expect(stdout).toStartWith(`${configFile}: ok`);
  });

  test("a wrong option of a shipped filter is refused in the words of a reload", async () => {
    const tag = join(ROOT, "handlers", "subject-tag.ts");
    const use = `[[filter]]\npath = ${JSON.stringify(tag)}\n[filter.options]\n`;
    const wrong = await check({ config: `${use}tga = "x"\n` });
    expect(wrong).toMatchObject({ exitCode: 1, stdout: "" });
    expect(wrong.stderr).toMatch(/: filter 1: options\.tga: unknown option; did you mean "tag"\?$/m);
    await using server = await startPmilter({ config: `${use}tag = "x"\n` });
    const text = await Bun.file(server.configFile).text();
    await Bun.write(server.configFile, text.replace("tag = ", "tga = "));
    const reload = await runPmilter(["reload", "-c", server.configFile]);
    expect(reload.exitCode).toBe(1);
    const words = wrong.stderr.replaceAll("pmilter: ", "").replaceAll(wrong.configFile, server.configFile);
    expect(reload.stderr).toEndWith(words);
  });
});

describe("types", () => {
  const WRONG =
    'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom(session) { session.nothing; } });\n';
  const config = '[[filter]]\npath = "filter.ts"\n';

  test("an error: file below the working folder, line, column; exit code 1", async () => {
    await using dir = await tempDir("check");
    const configFile = await writeProject(dir.path, { config, files: { "filter.ts": WRONG } });
    const { exitCode, stdout, stderr } = await runPmilter(["check", "-c", configFile], { cwd: dir.path });
    expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
    expect(stderr).toMatch(/^pmilter: filter\.ts:2:54: TS2339: Property 'nothing' does not exist on type /);
  });

  test("of what a handler imports as well, and each once", async () => {
    const { stderr, dir } = await check({
      config: '[[filter]]\npath = "a.ts"\n[[filter]]\npath = "b.ts"\n',
      files: {
        "a.ts": 'import "./lib.ts";\nexport default { eom() {} };\n',
        "b.ts": 'import "./lib.ts";\nexport default { eom() {} };\n',
        "lib.ts": 'export const x: number = "1";\n',
      },
    });
    expect(stderr).toBe(`pmilter: ${dir}/lib.ts:1:14: TS2322: Type 'string' is not assignable to type 'number'.\n`);
  });

  test("--no-types judges none", async () => {
    expect(await check({ config, files: { "filter.ts": WRONG } }, "--no-types")).toMatchObject({
      exitCode: 0,
      stderr: "",
    });
  });

  test("JavaScript is not judged", async () => {
    const files = { "filter.js": `${WRONG}const x = 1; x.y.z;\n`.replace("x.y.z", "x.toFixed().foo") };
    expect(await check({ config: config.replace(".ts", ".js"), files })).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test("the folder's own tsconfig.json rules, with its own global declarations", async () => {
    const files = {
      "filter.ts":
        'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom() { const unused = site; } });\n',
      "site.d.ts": "declare const site: string;\n",
    };
    expect((await check({ config, files })).stderr).toContain("Cannot find name 'site'");
    const tsconfig = (noUnusedLocals: boolean) =>
      JSON.stringify({ compilerOptions: { strict: true, module: "Preserve", noUnusedLocals } });
    expect(await check({ config, files: { ...files, "tsconfig.json": tsconfig(false) } })).toMatchObject({
      exitCode: 0,
      stderr: "",
    });
    const strict = await check({ config, files: { ...files, "tsconfig.json": tsconfig(true) } });
    expect(strict.exitCode).toBe(1);
    expect(strict.stderr).toContain("'unused' is declared but its value is never read");
  });

  test("beside the files of pmilter types", async () => {
    await using dir = await tempDir("check");
    const files = {
      "filter.ts":
        'import { defineFilter, reject } from "pmilter";\nexport default defineFilter({ eom: () => reject() });\n',
    };
    const configFile = await writeProject(dir.path, { config, files });
    expect((await runPmilter(["types", dir.path])).exitCode).toBe(0);
    expect(await runPmilter(["check", "-c", configFile])).toMatchObject({ exitCode: 0, stderr: "" });
  });

  test("a tsconfig.json that cannot be read is remarked on, and does not refuse the handlers", async () => {
    const files = {
      "filter.ts": "export default { eom() {} };\n",
      "tsconfig.json": '{ "compilerOptions": { "target": "ES1" } }',
    };
    const { exitCode, stderr } = await check({ config, files });
    expect(exitCode).toBe(0);
    expect(stderr).toMatch(/^warning: .*tsconfig\.json: TS\d+: /);
  });
});

test("what keeps it from loading and a type error elsewhere are told together, and nothing twice", async () => {
  const { exitCode, stderr, dir } = await check({
    config: '[[filter]]\npath = "a.ts"\n[[filter]]\npath = "b.ts"\n',
    files: {
      "a.ts": "export default { eom() { const x: number = 'a'; } };\n",
      "b.ts": "import './missing.ts';\nexport default { eom() {} };\n",
    },
  });
  expect(exitCode).toBe(1);
  const problems = stderr.trimEnd().split("\n");
  expect(problems).toHaveLength(2);
  expect(problems[0]).toStartWith(`pmilter: ${dir}/b.ts:1:8: Cannot find module`);
  expect(problems[1]).toStartWith(`pmilter: ${dir}/a.ts:1:32: TS2322: Type 'string'`);
});
