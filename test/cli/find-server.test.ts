/**
 * `pmilter status` and `reload` find the server of their configuration, and no other: in the environments that services,
 * shells and containers have, behind links, beside other servers, and beside sockets of users who have no say.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { loadConfig } from "../../src/config/load.ts";
import { controlName, controlPlaces } from "../../src/config/places.ts";
import type { Status } from "../../src/server/control/status.ts";
import { givenRoot, IS_LINUX, isRoot, outsideTool } from "../support/available.ts";
import { controlOf, Lines, MAIN, ROOT, runPmilter } from "../support/pmilter.ts";
import { type TempDir, tempDir, waitFor } from "../support/temp.ts";

setDefaultTimeout(120_000);

type Env = Readonly<Record<string, string>>;

/** Nothing in it says where a socket may be. */
const BARE: Env = { XDG_RUNTIME_DIR: "", RUNTIME_DIRECTORY: "" };

interface Served extends AsyncDisposable {
  readonly file: string;
  readonly log: Lines;
  readonly pid: number;
  kill(): Promise<void>;
}

/** Writes a configuration that is like no other, and gives its path. */
function configure(folder: string, name = "pmilter.toml", keys = ""): string {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, name);
  writeFileSync(file, `[server]\nlisten = "inet:127.0.0.1:0"\nworkers = 1\nstop_timeout = 0\n${keys}`);
  return file;
}

/** Starts a server, by a command in front of it if need be. */
async function serve(file: string, env: Env = BARE, before: readonly string[] = [], cwd = "/"): Promise<Served> {
  const child = Bun.spawn([...before, process.execPath, MAIN, "-c", file], {
    cwd,
    env: { ...process.env, ...BARE, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const log = new Lines();
  void log.read(child.stderr);
  await log.next(/ready: /);
  const kill = async () => {
    child.kill("SIGKILL");
    await child.exited;
  };
  return {
    file,
    log,
    pid: child.pid,
    kill,
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null) return;
      child.kill("SIGTERM");
      await child.exited;
    },
  };
}

function run(command: string, file: string, env: Env = BARE, cwd = "/") {
  return runPmilter([command, "-c", file], { cwd, env: { ...BARE, ...env } });
}

/** The status that the command shows, and nothing on standard error. */
async function statusOf(file: string, env: Env = BARE): Promise<Status> {
  const { exitCode, stderr, stdout } = await runPmilter(["status", "--json", "-c", file], {
    cwd: "/",
    env: { ...BARE, ...env },
  });
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  return JSON.parse(stdout) as Status;
}

/** Reloads, and sees that it was this server and none of the others. */
async function expectReload(file: string, own: Served, others: readonly Served[] = [], env: Env = BARE): Promise<void> {
  const before = others.map(({ log }) => log.all.length);
  const from = own.log.all.length;
  const { exitCode, stdout, stderr } = await run("reload", file, env);
  expect({ exitCode, stdout, stderr }).toEqual({
    exitCode: 0,
    stdout: expect.stringMatching(/^reloaded: generation \d+ serves: /),
    stderr: "",
  });
  await own.log.next(/reload: generation \d+ serves/, { from });
  expect(others.map(({ log }) => log.all.length)).toEqual(before);
}

describe("two servers, each with its configuration", () => {
  test.each(["with XDG_RUNTIME_DIR", "without XDG_RUNTIME_DIR"])("%s: each command reaches its own", async (how) => {
    await using folder = await tempDir("two");
    const runtime = join(folder.path, "runtime");
    mkdirSync(runtime, { mode: 0o700 });
    const env = how.startsWith("with ") ? { XDG_RUNTIME_DIR: runtime } : BARE;
    const [a, b] = [configure(folder.path, "a.toml"), configure(folder.path, "b.toml")];
    await using first = await serve(a, env);
    {
      await using second = await serve(b, env);
      await expectReload(b, second, [first], env);
      await expectReload(a, first, [second], env);
      expect(await statusOf(a, env)).toMatchObject({ config: a, pid: first.pid });
      expect(await statusOf(b, env)).toMatchObject({ config: b, pid: second.pid });
    }
    const lines = first.log.all.length;
    for (const command of ["status", "reload"]) {
      const socket = join(env === BARE ? folder.path : runtime, controlName(a));
      expect(await run(command, b, env)).toEqual({
        exitCode: 1,
        stdout: "",
        stderr: `pmilter: no server that runs ${b} was found: ${socket}: this server runs ${a}, not ${b}\n`,
      });
    }
    expect(first.log.all.length).toBe(lines);
  });

  test("of the same file name in two folders", async () => {
    await using folder = await tempDir("names");
    const [a, b] = ["a", "b"].map((name) => configure(join(folder.path, name)));
    const env = { XDG_RUNTIME_DIR: folder.path };
    await using first = await serve(a!, env);
    await using second = await serve(b!, env);
    await expectReload(b!, second, [first], env);
    await expectReload(a!, first, [second], env);
  });

  test("that name one control socket: the second server cannot be asked, and the first is not taken for it", async () => {
    await using folder = await tempDir("shared");
    const key = 'control = "ctl"\n';
    const [a, b] = [configure(folder.path, "a.toml", key), configure(folder.path, "b.toml", key)];
    await using first = await serve(a);
    await using second = await serve(b);
    await second.log.next(/\[warn\]: server\.control: .*another server answers at .*cannot reach this server/);
    const refused = `pmilter: ${join(folder.path, "ctl")}: this server runs ${a}, not ${b}\n`;
    for (const command of ["status", "reload"]) {
      expect(await run(command, b)).toEqual({ exitCode: 1, stdout: "", stderr: refused });
    }
    await expectReload(a, first, [second]);
  });
});

describe("the server and the command have different environments", () => {
  test("the unit's configuration names a socket in the unit's runtime folder, and the unit leads no command elsewhere", async () => {
    const unit = await Bun.file(join(ROOT, "deploy/pmilter.service")).text();
    const { control } = loadConfig(join(ROOT, "deploy/pmilter.toml"), {}).server;
    const folder = /^RuntimeDirectory=(\S+)$/m.exec(unit)![1]!;
    expect(dirname(control)).toBe(`/run/${folder}`);
    expect(controlPlaces("/etc/pmilter/pmilter.toml", {}).map((place) => place.folder)).toContain(`/run/${folder}`);
    expect(unit).not.toMatch(/XDG_RUNTIME_DIR/);
  });

  test.each<[string, Env, Env]>([
    ["the server a runtime folder of its user, the command none", { XDG_RUNTIME_DIR: "own" }, {}],
    ["the server none, the command a runtime folder", {}, { XDG_RUNTIME_DIR: "own" }],
    [
      "the server one of a service, the command one of a user",
      { RUNTIME_DIRECTORY: "own" },
      { XDG_RUNTIME_DIR: "other" },
    ],
  ])("%s: the key in the configuration is what counts", async (_, ofServer, ofCommand) => {
    await using folder = await tempDir("environments");
    const inFolder = (env: Env): Env =>
      Object.fromEntries(Object.entries(env).map(([name, value]) => [name, join(folder.path, value)]));
    for (const name of ["own", "other"]) mkdirSync(join(folder.path, name), { mode: 0o700 });
    const file = configure(join(folder.path, "etc"), "pmilter.toml", `control = "${folder.path}/ctl"\n`);
    await using server = await serve(file, inFolder(ofServer));
    await expectReload(file, server, [], inFolder(ofCommand));
    expect(existsSync(join(folder.path, "own", controlName(file)))).toBe(false);
  });

  test("a server without any variable, as in a container, is found beside its configuration in any environment", async () => {
    await using folder = await tempDir("container");
    const file = configure(folder.path);
    await using server = await serve(file);
    await expectReload(file, server);
    const other = join(folder.path, "other");
    mkdirSync(other);
    await expectReload(file, server, [], { XDG_RUNTIME_DIR: other });
    await expectReload(file, server, [], { RUNTIME_DIRECTORY: `${other}:${folder.path}/none` });
  });

  test("a service with several runtime folders uses the first, and its own commands look in each", async () => {
    await using folder = await tempDir("several");
    const file = configure(join(folder.path, "etc"));
    const [one, two] = ["one", "two"].map((name) => join(folder.path, name));
    mkdirSync(one!);
    mkdirSync(two!);
    await using server = await serve(file, { RUNTIME_DIRECTORY: `${one}:${two}` });
    expect(existsSync(join(one!, controlName(file)))).toBe(true);
    await expectReload(file, server, [], { RUNTIME_DIRECTORY: `${two}:${one}` });
  });

  const canMount = IS_LINUX && givenRoot("a service of another user") && mayMount();
  if (IS_LINUX && isRoot && !canMount) console.log("skipped: this root may not mount, as tests of /run/pmilter do");
  test.skipIf(!canMount)("a unit's environment and a root shell: the folder of the service is looked at", async () => {
    await using folder = await tempDir("unit");
    const file = configure(folder.path);
    // As systemd does for RuntimeDirectory=pmilter and User=nobody, in a /run of its own.
    const unit =
      'mount -t tmpfs -o mode=755 tmpfs /run && mkdir -m 750 /run/pmilter && chown 65534:65534 /run/pmilter && exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"';
    await using server = await serve(file, { RUNTIME_DIRECTORY: "/run/pmilter" }, [
      "unshare",
      "-m",
      "sh",
      "-c",
      unit,
      "sh",
    ]);
    const shell = ["nsenter", "-m", "-t", String(server.pid)];
    for (const env of [BARE, { ...BARE, XDG_RUNTIME_DIR: folder.path }]) {
      for (const command of ["status", "reload"]) {
        const from = server.log.all.length;
        const child = Bun.spawn([...shell, process.execPath, MAIN, command, "-c", file], {
          env: { ...process.env, ...env },
          stdio: ["ignore", "pipe", "pipe"],
        });
        expect(await new Response(child.stderr).text()).toBe("");
        expect(await child.exited).toBe(0);
        if (command === "reload") await server.log.next(/reload: generation/, { from });
      }
    }
  });
});

function mayMount(): boolean {
  return Bun.spawnSync(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/run"]).exitCode === 0;
}

describe("one configuration by several paths", () => {
  test("a folder behind a link that is turned while the server runs", async () => {
    await using folder = await tempDir("turned");
    const [one, two] = ["r1", "r2"].map((name) => join(folder.path, name));
    const current = join(folder.path, "current");
    configure(one!);
    configure(two!);
    symlinkSync("r1", current);
    const file = join(current, "pmilter.toml");
    await using server = await serve(file);
    symlinkSync("r2", `${current}.new`);
    renameSync(`${current}.new`, current);
    // At once, as a script does that deploys.
    await expectReload(file, server);
    expect(await statusOf(join(two!, "pmilter.toml"))).toMatchObject({ pid: server.pid });
    rmSync(one!, { recursive: true });
    await expectReload(file, server);
    expect(existsSync(join(two!, controlName(file)))).toBe(true);
  });

  test("two servers behind one link that is turned again and again", async () => {
    await using folder = await tempDir("turned");
    const current = join(folder.path, "current");
    for (const release of ["r1", "r2", "r3"]) {
      for (const name of ["a.toml", "b.toml"]) configure(join(folder.path, release), name, `debug = ${release[1]}\n`);
    }
    symlinkSync("r1", current);
    const [a, b] = ["a.toml", "b.toml"].map((name) => join(current, name));
    await using first = await serve(a!);
    await using second = await serve(b!);
    for (const release of ["r2", "r3", "r1"]) {
      symlinkSync(release, `${current}.new`);
      renameSync(`${current}.new`, current);
      await expectReload(a!, first);
      await expectReload(b!, second);
    }
  });

  test("a file that is a link and turned, and the same by its real path", async () => {
    await using folder = await tempDir("file");
    configure(join(folder.path, "r1"));
    configure(join(folder.path, "r2"));
    const file = join(folder.path, "pmilter.toml");
    symlinkSync("r1/pmilter.toml", file);
    await using server = await serve(file, { XDG_RUNTIME_DIR: folder.path });
    await expectReload(join(folder.path, "r1/pmilter.toml"), server, [], { XDG_RUNTIME_DIR: folder.path });
    unlinkSync(file);
    symlinkSync("r2/pmilter.toml", file);
    await expectReload(file, server);
    await expectReload(join(folder.path, "r2/pmilter.toml"), server, [], { XDG_RUNTIME_DIR: folder.path });
  });

  test("relative, from its folder, and with dots", async () => {
    await using folder = await tempDir("relative");
    const file = configure(join(folder.path, "etc"));
    await using server = await serve("pmilter.toml", BARE, [], join(folder.path, "etc"));
    await expectReload(file, server);
    await expectReload(join(folder.path, "etc/../etc/./pmilter.toml"), server);
    expect((await run("reload", "pmilter.toml", BARE, join(folder.path, "etc"))).exitCode).toBe(0);
    expect((await run("reload", "./etc/pmilter.toml", BARE, folder.path)).exitCode).toBe(0);
  });

  test("whose folder was moved while the server runs", async () => {
    await using folder = await tempDir("moved");
    const file = configure(join(folder.path, "before"));
    await using server = await serve(file);
    renameSync(join(folder.path, "before"), join(folder.path, "after"));
    const moved = join(folder.path, "after", "pmilter.toml");
    expect(await statusOf(moved)).toMatchObject({ pid: server.pid, config: file });
  });

  test("a copy of it is another one, also where the inode of a removed file is used again", async () => {
    await using folder = await tempDir("copy");
    const file = configure(folder.path);
    await using server = await serve(file);
    const other = join(folder.path, "other.toml");
    cpSync(file, `${file}.new`);
    renameSync(`${file}.new`, file);
    cpSync(file, other);
    const { exitCode, stderr } = await run("reload", other);
    expect(exitCode).toBe(1);
    expect(stderr).toContain(`this server runs ${file}, not ${other}\n`);
    await expectReload(file, server);
  });
});

describe("a configuration that cannot be read does not hide its server", () => {
  const BREAKS: [string, (file: string) => void][] = [
    ["it is no TOML", (file) => writeFileSync(file, `${readFileSync(file, "utf8")}\n[[[\n`)],
    ["a key is wrong", (file) => writeFileSync(file, `${readFileSync(file, "utf8")}\nwrong = 1\n`)],
    ["it is gone", (file) => unlinkSync(file)],
    ["it is empty", (file) => writeFileSync(file, "")],
  ];
  test.each(BREAKS)("%s", async (_, change) => {
    await using folder = await tempDir("broken");
    const file = configure(folder.path);
    await using server = await serve(file);
    change(file);
    expect(await statusOf(file)).toMatchObject({ pid: server.pid });
  });

  test.each(BREAKS.slice(0, 2))("%s, and names the control socket", async (_, change) => {
    await using folder = await tempDir("broken");
    const file = configure(join(folder.path, "etc"), "pmilter.toml", 'control = "../ctl"\n');
    await using server = await serve(file);
    change(file);
    expect(await statusOf(file)).toMatchObject({ pid: server.pid });
  });

  test("without a server, what is wrong with the file is said if there is none", async () => {
    await using folder = await tempDir("none");
    const file = join(folder.path, "pmilter.toml");
    expect(await run("status", file)).toEqual({
      exitCode: 1,
      stdout: "",
      stderr: `pmilter: ${file}: the configuration cannot be read: there is no such file\n`,
    });
  });
});

describe("a socket file", () => {
  test("control-gone: one that is removed is made again", async () => {
    await using folder = await tempDir("removed");
    const file = configure(folder.path);
    await using server = await serve(file);
    unlinkSync(controlOf(file));
    await server.log.next(/\[notice\]: server\.control: .* was made again/);
    await expectReload(file, server);
  });

  test("that was replaced by another file is left alone, which is said once", async () => {
    await using folder = await tempDir("replaced");
    const file = configure(folder.path);
    await using server = await serve(file);
    const socket = controlOf(file);
    unlinkSync(socket);
    writeFileSync(`${socket}.new`, "precious");
    renameSync(`${socket}.new`, socket);
    // Between the two it may have been made again.
    await waitFor(
      () => {
        if (readFileIfFile(socket) !== "precious") {
          writeFileSync(`${socket}.new`, "precious");
          renameSync(`${socket}.new`, socket);
        }
        return /\[warn\]: server\.control: the socket was removed or replaced: .* is not replaced/.test(
          server.log.text,
        );
      },
      { what: "the warning" },
    );
    expect(readFileSync(socket, "utf8")).toBe("precious");
    unlinkSync(socket);
    await server.log.next(/was made again/);
    await expectReload(file, server);
    expect(server.log.all.filter((line) => line.includes("removed or replaced"))).toHaveLength(1);
  });

  test("that a killed server has left is no server, and the next one takes its place", async () => {
    await using folder = await tempDir("stale");
    const file = configure(folder.path);
    const killed = await serve(file);
    await killed.kill();
    const socket = controlOf(file);
    expect(existsSync(socket)).toBe(true);
    expect(await run("status", file)).toEqual({
      exitCode: 1,
      stdout: "",
      stderr: `pmilter: no server that runs ${file} was found: ${socket}: nobody listens there: a server that was killed has left the socket\n`,
    });
    await using server = await serve(file);
    await expectReload(file, server);
  });

  test("cannot be made in a folder whose path is too long: said, and the mail is served", async () => {
    await using folder = await tempDir("long");
    const file = configure(join(folder.path, "x".repeat(80)));
    await using server = await serve(file);
    expect(server.log.text).toMatch(
      /\[warn\]: server\.control: .*the path is too long for a unix socket; it needs \d+ bytes, expected at most 107; pmilter status and reload cannot reach this server/,
    );
    expect((await run("status", file)).stderr).toContain(
      "the path is too long for a unix socket: set server.control to a shorter one",
    );
  });
});

function readFileIfFile(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

const setpriv = outsideTool("setpriv", { needsRoot: true });
const AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

/** Whoever answers there says that he runs every configuration and that every reload took. */
const IMPOSTOR = `const answer = (text) => JSON.stringify(text.includes('"reload"')
  ? { ok: true, at: "now", message: "generation 2 serves: forged" } : { health: "ok", problems: [], pid: 1, config: "forged" });
let text = "";
Bun.listen({ unix: process.argv.at(-1), socket: {
  data(socket, chunk) { text += chunk.toString(); socket.write(answer(String(chunk)) + "\\n"); socket.end(); console.log("asked"); },
} });
console.log("listening");`;

async function impostor(path: string) {
  const child = Bun.spawn([...AS_NOBODY, process.execPath, "-e", IMPOSTOR, path], {
    cwd: "/",
    stdio: ["ignore", "pipe", "inherit"],
  });
  const prints = new Lines();
  void prints.read(child.stdout);
  await prints.next(/listening/);
  return {
    prints,
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await child.exited;
    },
  };
}

describe.skipIf(!setpriv.available || !IS_LINUX)("a socket of a user who has no say over the configuration", () => {
  const NOT_ASKED = "the server behind it runs as user 65534, who has no say over this configuration: it is not asked";

  test.each<[string, (folder: TempDir) => { file: string; socket: string; env: Env }]>([
    [
      "in the runtime folder of that user",
      ({ path }) => {
        const file = configure(join(path, "etc"));
        const runtime = join(path, "runtime");
        mkdirSync(runtime);
        chownSync(runtime, 65534, 65534);
        return { file, socket: join(runtime, controlName(file)), env: { XDG_RUNTIME_DIR: runtime } };
      },
    ],
    [
      "beside the configuration, in a folder where everybody may make files",
      ({ path }) => {
        const file = configure(join(path, "open"));
        chmodSync(join(path, "open"), 0o1777);
        return { file, socket: controlOf(file), env: {} };
      },
    ],
    [
      "under another name in such a folder",
      ({ path }) => {
        const file = configure(join(path, "open"));
        chmodSync(join(path, "open"), 0o1777);
        return { file, socket: join(path, "open/pmilter.ctl"), env: {} };
      },
    ],
    [
      "where the key of the configuration says",
      ({ path }) => {
        const open = join(path, "open");
        const file = configure(join(path, "etc"), "pmilter.toml", `control = "${open}/ctl"\n`);
        mkdirSync(open);
        chmodSync(open, 0o1777);
        return { file, socket: join(open, "ctl"), env: {} };
      },
    ],
  ])("%s is not asked, and the real server is found beside it", async (_, place) => {
    await using folder = await tempDir("impostor");
    const { env, file, socket } = place(folder);
    {
      await using other = await impostor(socket);
      for (const command of ["status", "reload"]) {
        const { exitCode, stderr, stdout } = await run(command, file, env);
        expect({ exitCode, stdout }).toEqual({ exitCode: 1, stdout: "" });
        expect(stderr).toContain(`${socket}: ${NOT_ASKED}\n`);
      }
      expect(other.prints.all).toEqual(["listening"]);
    }
    if (env["XDG_RUNTIME_DIR"] === undefined) return;
    await using server = await serve(file);
    await using other = await impostor(`${socket}.2.ctl`);
    await expectReload(file, server, [], env);
    expect(other.prints.all).toEqual(["listening"]);
  });

  test.each<[string, (folder: TempDir) => { file: string; env: Env }]>([
    [
      "owner of the configuration",
      ({ path }) => {
        const file = configure(join(path, "etc"));
        chownSync(file, 65534, 65534);
        const runtime = join(path, "runtime");
        mkdirSync(runtime);
        chownSync(runtime, 65534, 65534);
        return { file, env: { XDG_RUNTIME_DIR: runtime } };
      },
    ],
    [
      "owner of the folder that the key names",
      ({ path }) => {
        const runtime = join(path, "runtime");
        mkdirSync(runtime);
        chownSync(runtime, 65534, 65534);
        return { file: configure(join(path, "etc"), "pmilter.toml", `control = "${runtime}/ctl"\n`), env: {} };
      },
    ],
    [
      "owner of the service's runtime folder",
      ({ path }) => {
        const runtime = join(path, "runtime");
        mkdirSync(runtime);
        chownSync(runtime, 65534, 65534);
        return { file: configure(join(path, "etc")), env: { RUNTIME_DIRECTORY: runtime } };
      },
    ],
  ])("but one of the %s is", async (_, place) => {
    await using folder = await tempDir("own");
    const { env, file } = place(folder);
    await using server = await serve(file, env, AS_NOBODY);
    await expectReload(file, server, [], env);
  });

  test("and so is that of a server that became server.user, and has made its socket again", async () => {
    await using folder = await tempDir("user");
    const open = join(folder.path, "open");
    const file = configure(join(folder.path, "etc"), "pmilter.toml", `user = "nobody"\ncontrol = "${open}/ctl"\n`);
    mkdirSync(open);
    chmodSync(open, 0o777);
    await using server = await serve(file);
    await expectReload(file, server);
    unlinkSync(join(open, "ctl"));
    await server.log.next(/was made again/);
    await expectReload(file, server);
  });

  test("may not ask either", async () => {
    await using folder = await tempDir("denied");
    const file = configure(folder.path);
    await using server = await serve(file);
    const child = Bun.spawn([...AS_NOBODY, process.execPath, MAIN, "reload", "-c", file], {
      cwd: "/",
      env: { ...process.env, ...BARE },
      stdio: ["ignore", "pipe", "pipe"],
    });
    expect(await new Response(child.stderr).text()).toBe(
      `pmilter: no server that runs ${file} was found: ${controlOf(file)}: no permission to connect as uid 65534; ask as the user that the server was started by\n`,
    );
    expect(await child.exited).toBe(1);
    expect(server.log.text).not.toContain("reload");
  });
});
