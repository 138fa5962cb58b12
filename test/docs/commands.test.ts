/**
 * The `sh` blocks of the pages, run as they are in a fresh copy of the repository, in the order of the page. Changed are
 * only the port in the copy's pmilter.toml, and folders of the system.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { given, givenRoot } from "../support/available.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { blockOf, blocksOf, PAGES } from "./blocks.ts";
import { freshCopy, type Running, type Terminal } from "./terminal.ts";

setDefaultTimeout(120_000);

/** A new install, or a slow npx. */
const TIMEOUT_MS = 300_000;

/** The commands of a page that are still to be run. A test takes the next one and says what it should be. */
function commandsOf(file: string): { next(expected: RegExp): string; readonly left: readonly string[] } {
  const left = blocksOf("sh", file).flatMap(({ text }) => text.split("\n").filter((line) => line !== ""));
  return {
    left,
    next(expected) {
      const command = left.shift() ?? "no command is left";
      expect(command).toMatch(expected);
      return command;
    },
  };
}

describe("README.md", () => {
  const commands = commandsOf("README.md");
  let terminal: Terminal;
  let server: Running;
  let port: number;
  let start: string;
  let send: string;
  beforeAll(async () => {
    terminal = await freshCopy();
    port = await terminal.choosePort();
  }, TIMEOUT_MS);
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await terminal?.[Symbol.asyncDispose]();
  });

  test(
    "start: installs what is locked, and says where it listens",
    async () => {
      start = commands.next(/^npx -y bun@1\.4\.5 run start$/);
      server = await terminal.serve(start);
      await server.log.next(new RegExp(`ready: listening on inet:127\\.0\\.0\\.1:${port}; `));
    },
    TIMEOUT_MS,
  );

  test(
    "send: shows each phase, the added header and the message; the server prints what the handlers print",
    async () => {
      send = commands.next(/run pmilter send /);
      const { exitCode, stdout } = await terminal.run(send);
      expect(exitCode).toBe(0);
      for (const phase of ["connect", "helo", "envfrom", "envrcpt", "eom"]) {
        expect(stdout).toMatch(new RegExp(`^  ${phase} +continue +[\\d.]+ ms$`, "m"));
      }
      expect(stdout).toMatch(/^ {2}header ×3 /m);
      expect(stdout).toMatch(/^ {2}body /m);
      expect(stdout).toContain("\nmodifications\n  addHeader X-Pmilter: Enable\n");
      expect(stdout).toContain("\nverdict: accept\n");
      const sent = (await terminal.read("test/fixtures/hello.eml")).replaceAll("\r\n", "\n");
      expect(stdout.split("\nmessage\n")[1]).toBe(sent.replace("\n\n", "\nX-Pmilter: Enable\n\n"));

      await server.prints.next(/^add_header\(X-Pmilter:True\): Enable$/);
      expect(server.prints.all).toContain("hello pmilter handler called from pmilter");
      expect(server.prints.all).toContain("env from from args: <from@example.com>");
      expect(server.prints.all).toContain('header: {"Subject"=>"Hello"}');
      expect(server.prints.all).toContain("body chunk; Hello world!!");
    },
    TIMEOUT_MS,
  );

  test(
    "the filter at the end of pmilter.toml: check names it, and after a reload it runs",
    async () => {
      await terminal.write(
        "pmilter.toml",
        `${await terminal.read("pmilter.toml")}${blockOf("toml", "README.md").text}`,
      );
      const check = await terminal.run(commands.next(/run pmilter check /));
      expect(check).toMatchObject({ exitCode: 0 });
      expect(check.stdout).toContain("\n  stamp: envfrom eom\n");
      const reload = await terminal.run(commands.next(/run pmilter reload /));
      expect(reload).toMatchObject({ exitCode: 0 });
      expect((await terminal.run(send)).stdout).toContain("\nX-Pmilter: Enable\nX-Filtered-By: pmilter\n");
      const refused = await terminal.run(send.replace("from@example.com", "spam@example.com"));
      expect(refused.stdout).toContain("\nverdict: reject, 550 5.7.1 Not welcome here\n");
    },
    TIMEOUT_MS,
  );

  test("SIGTERM: ends with exit code 0", async () => {
    expect(await server.stop()).toBe(0);
    expect(server.log.text).toContain("]: stopped");
    expect(server.prints.all.at(-1)).toBe("pmilter: bye");
  });

  test("Ctrl-C: lets an open session end, although bun run passes the signal on a second time", async () => {
    server = await terminal.serve(start);
    await using client = await MilterClient.connect(`inet:127.0.0.1:${port}`, { as: "postfix" });
    await client.negotiate();
    await client.connect({ address: "192.0.2.7", hostname: "mx.example.net" });
    await client.envfrom("<a@example.com>");
    const ended = server.interrupt();
    await server.log.next(/SIGINT: stopping, 1 connections open/);
    const reply = await client.envrcpt("<b@example.com>").catch((error: unknown) => error);
    await client[Symbol.asyncDispose]();
    await ended;
    expect(server.log.text).not.toContain("open sessions are cut");
    expect(reply).toMatchObject({ kind: "continue" });
  });

  const hasGroup = () => Bun.spawnSync(["getent", "group", "postfix"]).success;
  const canRun =
    givenRoot("the folder for a chrooted Postfix") &&
    given(hasGroup(), "the folder for a chrooted Postfix: there is no group postfix");
  test("the folder for a chrooted Postfix", async () => {
    const command = commands.next(/^install -d .* \/var\/spool\/postfix\/pmilter$/);
    if (!canRun) return;
    const folder = join(terminal.dir, "spool", "pmilter");
    const { exitCode, stderr } = await terminal.run(command.replace("/var/spool/postfix/pmilter", folder));
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const { uid, mode } = await stat(folder);
    expect({ uid, mode: (mode & 0o7777).toString(8) }).toEqual({ uid: 0, mode: "750" });
  });

  test(
    "test: installs and runs tests; of one file here, since this is one of them",
    async () => {
      const command = commands.next(/^npx -y bun@1\.4\.5 run test$/);
      await terminal.write("test/tiny.test.ts", 'import { test } from "bun:test";\ntest("tiny", () => {});\n');
      const { exitCode, stderr } = await terminal.run(`${command} test/tiny.test.ts`);
      expect(exitCode).toBe(0);
      expect(stderr).toMatch(/^\$ bun install --frozen-lockfile && bun test .* test\/tiny\.test\.ts$/m);
      expect(stderr).toMatch(/Ran 1 test across 1 file/);
    },
    TIMEOUT_MS,
  );

  test(
    "test:quick: leaves out what needs a mail server",
    async () => {
      const command = commands.next(/^npx -y bun@1\.4\.5 run test:quick$/);
      await terminal.write(
        "test/integration/tiny.test.ts",
        'import { test } from "bun:test";\ntest("mail", () => {});\n',
      );
      const { exitCode, stderr } = await terminal.run(`${command} tiny.test.ts`);
      expect(exitCode).toBe(0);
      expect(stderr).toMatch(/Ran 1 test across 1 file/);
    },
    TIMEOUT_MS,
  );

  test(
    "check: types, lint and format, after fmt; of a clean project here, since the whole one may be in the middle of a change",
    async () => {
      const command = commands.next(/^npx -y bun@1\.4\.5 run check$/);
      await terminal.run("rm -rf src bench soak test docs handlers");
      await terminal.write("src/index.ts", "export const one = 1;\n");
      await terminal.write(
        "handlers/stamp.ts",
        'import { one } from "pmilter";\n\nexport const two: number = one+1;\n',
      );
      expect(await terminal.run(`${command.replace(/check$/, "fmt")}`)).toMatchObject({ exitCode: 0 });
      expect(await terminal.run(command)).toMatchObject({ exitCode: 0 });
      await terminal.write(
        "handlers/stamp.ts",
        'import { one } from "pmilter";\n\nexport const two: string = one + 1;\n',
      );
      expect((await terminal.run(command)).exitCode).not.toBe(0);
      await terminal.write(
        "handlers/stamp.ts",
        'import { one } from "pmilter";\n\nexport const two:number = one + 1;\n',
      );
      expect((await terminal.run(command)).exitCode).not.toBe(0);
    },
    TIMEOUT_MS,
  );

  test("has no command that is not run here", () => {
    expect(commands.left).toEqual([]);
  });
});

describe("bench/README.md", () => {
  test(
    "its commands are understood; without a measurement, that is for the benchmark's own tests",
    async () => {
      await using terminal = await freshCopy({ install: true });
      const { left } = commandsOf("bench/README.md");
      expect(left.length).toBeGreaterThan(0);
      for (const command of left) {
        expect(command).toMatch(/^bun run bench( |$)/);
        const [words = ""] = command.split("#");
        const { exitCode, stdout } = await terminal.run(`${words.trimEnd()} --help`);
        expect({ command, exitCode }).toEqual({ command, exitCode: 0 });
        expect(stdout).toStartWith("Usage: bun run bench ");
      }
    },
    TIMEOUT_MS,
  );
});

describe("docs/testing.md", () => {
  test(
    "send, to the running server",
    async () => {
      const commands = commandsOf("docs/testing.md");
      const command = commands.next(/^bun run pmilter send /);
      expect(commands.left).toEqual([]);
      await using terminal = await freshCopy();
      await terminal.choosePort();
      await using server = await terminal.serve("bun run start");
      const { exitCode, stdout } = await terminal.run(command);
      expect(exitCode).toBe(0);
      expect(stdout).toContain("\nX-Pmilter: Enable\n");
      await server.prints.next(/^client ipaddr 192\.0\.2\.7$/);
      await server.prints.next(/^helo hostname: mx\.example\.net$/);
      await server.prints.next(/^SASL login type: plain$/);

      const json = await terminal.run(`${command} --json --as sendmail`);
      expect(JSON.parse(json.stdout)).toMatchObject({ verdict: "accept", reply: null, recipients: [{}], phases: {} });
      expect(await server.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );
});

describe("docs/try.md", () => {
  test(
    "try a message, and a folder",
    async () => {
      const commands = commandsOf("docs/try.md");
      await using terminal = await freshCopy();
      expect(await terminal.run("bun install --frozen-lockfile")).toMatchObject({ exitCode: 0 });
      const one = await terminal.run(commands.next(/^bun run pmilter try /));
      expect(one).toMatchObject({ exitCode: 0 });
      expect(one.stdout).toContain("\nmodifications\n  addHeader X-Pmilter: Enable\n");
      expect(one.stdout).toMatch(/\nfilters\n {2}handler +[\d.]+ ms {2}connect [\d.]+, /);
      expect(one.stdout).toContain("\nverdict: accept\n");
      expect(one.stderr).toContain("client ipaddr 192.0.2.7\n");
      const folder = await terminal.run(commands.next(/^bun run pmilter try .* --brief --strict$/));
      expect(folder).toMatchObject({
        exitCode: 0,
        stdout: "test/fixtures/hello.eml: accept\n1 message: 1 accept; 0 failures, 0 warnings\n",
      });
      expect(commands.left).toEqual([]);
    },
    TIMEOUT_MS,
  );
});

describe("docs/deployment.md", () => {
  const systemdAnalyze = Bun.which("systemd-analyze");
  if (systemdAnalyze === null) console.warn("not run, it takes systemd-analyze: the check of the unit");
  test(
    "build, install, verify the unit, ask the server: with the system's folders below a temporary one",
    async () => {
      const commands = commandsOf("docs/deployment.md");
      await using terminal = await freshCopy();
      await terminal.choosePort();
      for (const pattern of [/^bun install --frozen-lockfile$/, /^bun run build$/]) {
        expect(await terminal.run(commands.next(pattern))).toMatchObject({ exitCode: 0 });
      }
      const install = commands.next(/^install -m 0755 dist\/pmilter \/usr\/local\/bin\/pmilter$/);
      const binary = `${terminal.dir}/pmilter`;
      const installed = await terminal.run(install.replace("/usr/local/bin/pmilter", binary));
      expect(installed).toMatchObject({ exitCode: 0, stderr: "" });

      // An account is the system's own: only whether useradd knows the options.
      const useradd = commands.next(/^useradd .* pmilter$/);
      for (const option of useradd.matchAll(/--[a-z-]+/g)) {
        expect((await terminal.run("useradd --help")).stdout).toContain(option[0]);
      }

      const verify = commands.next(/^systemd-analyze verify deploy\/pmilter\.service$/);
      const unit = await Bun.file(`${terminal.dir}/deploy/pmilter.service`).text();
      await terminal.write("deploy/pmilter.service", unit.replaceAll("/usr/local/bin/pmilter", binary));
      if (systemdAnalyze !== null) expect(await terminal.run(verify)).toMatchObject({ exitCode: 0, stderr: "" });

      await using server = await terminal.serve("./pmilter -c pmilter.toml");
      for (const [pattern, said] of [
        [/^pmilter status /, /generation +1/],
        [/^pmilter reload /, /^reloaded: generation 2 serves/],
      ] as const) {
        const { exitCode, stdout } = await terminal.run(`./${commands.next(pattern)}`);
        expect(stdout).toMatch(said);
        expect(exitCode).toBe(0);
      }
      expect(commands.left).toEqual([]);
      expect(await server.stop()).toBe(0);
    },
    TIMEOUT_MS,
  );
});

test("no other page has commands that nobody runs", () => {
  const run = new Set(["README.md", "docs/testing.md", "docs/try.md", "docs/deployment.md", "bench/README.md"]);
  const pages = PAGES.filter(({ blocks }) => blocks.some(({ language }) => language === "sh"));
  expect(pages.map(({ file }) => file).filter((file) => !run.has(file))).toEqual([]);
});
