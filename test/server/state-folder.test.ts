/** The state folder: made when it is needed, given away, locked; by real processes, since a lock is theirs. */
import { afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { StateFolder, StateFolderError } from "../../src/server/rights/state-folder.ts";
import { askStatus } from "../reload/support.ts";
import { givenRoot, IS_LINUX, isRoot } from "../support/available.ts";
import { Lines, MAIN, runPmilter, startPmilter } from "../support/pmilter.ts";
import { type TempDir, tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const MODULE = join(import.meta.dir, "../../src/server/rights/state-folder.ts");
const NOBODY = 65534;
const CAN_GIVE = givenRoot("the folder of another user") && IS_LINUX;

const opened: StateFolder[] = [];
afterEach(() => {
  for (const folder of opened.splice(0)) folder.close();
});

function stateFolder(path: string): StateFolder {
  const folder = new StateFolder(path, "/etc/pmilter/a.toml");
  opened.push(folder);
  return folder;
}

interface Holder extends AsyncDisposable {
  readonly pid: number;
  /** What it said when it wanted the folder: "has it", or why not. */
  readonly said: string;
  kill(): Promise<void>;
}

/** A process that wants the folder, and keeps it. @param uid whom it runs as */
async function hold(
  path: string,
  { uid, configFile = "/etc/pmilter/b.toml", code = "" }: { uid?: number; configFile?: string; code?: string } = {},
): Promise<Holder> {
  const become = uid === undefined ? "" : `process.setgroups([]); process.setgid(${uid}); process.setuid(${uid});`;
  const script = `import { StateFolder } from ${JSON.stringify(MODULE)};
    ${become}
    try { new StateFolder(${JSON.stringify(path)}, ${JSON.stringify(configFile)}).need(); ${code}; console.log("has it"); }
    catch (error) { console.log(error.message); }
    setInterval(() => {}, 1000);`;
  const child = Bun.spawn([process.execPath, "-e", script], { cwd: "/", stdio: ["ignore", "pipe", "inherit"] });
  const prints = new Lines();
  void prints.read(child.stdout);
  const said = await prints.next(/./);
  const kill = async () => {
    child.kill("SIGKILL");
    await child.exited;
  };
  return { pid: child.pid, said, kill, [Symbol.asyncDispose]: kill };
}

const modeOf = (path: string) => (statSync(path).mode & 0o7777).toString(8);

describe("made when it is needed", () => {
  test("and not before: 0700, whatever the umask; those above it can be passed", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, ".pmilter", "mx");
    const folder = stateFolder(path);
    expect(folder.isThere).toBe(false);
    expect(readdirSync(dir.path)).toEqual([]);
    for (const umask of [0o000, 0o077]) {
      const before = process.umask(umask);
      try {
        expect(stateFolder(`${path}-${umask}`).need()).toBe(`${path}-${umask}`);
      } finally {
        process.umask(before);
      }
      expect(modeOf(`${path}-${umask}`)).toBe("700");
    }
    expect(modeOf(join(dir.path, ".pmilter"))).toBe("755");
    expect(modeOf(join(`${path}-0`, "lock"))).toBe("600");
    // Once more is the same.
    expect(folder.need()).toBe(path);
    expect(folder.need()).toBe(path);
    expect(folder.isThere).toBe(true);
  });

  test("with another mode it is closed, and what is in it stays", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    mkdirSync(path);
    writeFileSync(join(path, "store.db"), "x");
    for (const mode of [0o755, 0o500, 0o777]) {
      chmodSync(path, mode);
      const folder = stateFolder(path);
      folder.need();
      folder.close();
      expect(modeOf(path)).toBe("700");
    }
    expect(readdirSync(path).toSorted()).toEqual(["lock", "store.db"]);
  });

  test("by several processes at once: one has it, the others say who", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "a/b/c/s");
    const holders = await Promise.all([1, 2, 3, 4].map(() => hold(path)));
    try {
      expect(holders.filter(({ said }) => said === "has it")).toHaveLength(1);
      const pid = holders.find(({ said }) => said === "has it")!.pid;
      for (const { said } of holders.filter((holder) => holder.said !== "has it")) {
        // The first may be about to write who it is.
        expect(said).toMatch(
          new RegExp(
            `: another server(?:, process ${pid} with /etc/pmilter/b\\.toml)?, uses it; each server needs its own$`,
          ),
        );
      }
    } finally {
      await Promise.all(holders.map((holder) => holder.kill()));
    }
  });
});

describe("locked", () => {
  test("another process has it: it is named, until it is killed", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    const first = await hold(path);
    expect(first.said).toBe("has it");
    const folder = stateFolder(path);
    const taken = `server.state: ${path}: another server, process ${first.pid} with /etc/pmilter/b.toml, uses it; each server needs its own`;
    expect(() => folder.need()).toThrow(taken);
    // It has not been given away by asking.
    expect(() => folder.need()).toThrow(taken);
    await first.kill();
    expect(folder.need()).toBe(path);
    expect(readFileSync(join(path, "lock"), "utf8")).toBe(`${process.pid} /etc/pmilter/a.toml\n`);
    folder.close();
    await using second = await hold(path);
    expect(second.said).toBe("has it");
  });

  test("by another path too: a link, and a folder that was moved", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    await using first = await hold(path);
    symlinkSync("s", join(dir.path, "link"));
    expect(() => stateFolder(join(dir.path, "link")).need()).toThrow(`process ${first.pid} `);
    renameSync(path, join(dir.path, "moved"));
    expect(() => stateFolder(join(dir.path, "moved")).need()).toThrow(`process ${first.pid} `);
  });

  test("a program that the holder has started does not hold it on", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    const first = await hold(path, {
      code: `const child = Bun.spawn(["sleep", "60"], { stdio: ["ignore", "ignore", "ignore"] });
        await Bun.write(${JSON.stringify(join(dir.path, "pid"))}, String(child.pid))`,
    });
    expect(first.said).toBe("has it");
    const program = Number(readFileSync(join(dir.path, "pid"), "utf8"));
    try {
      await first.kill();
      expect(process.kill(program, 0)).toBe(true);
      expect(stateFolder(path).need()).toBe(path);
    } finally {
      process.kill(program, "SIGKILL");
    }
  });

  test("what a lock says that nobody holds does not matter", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    mkdirSync(path);
    for (const text of ["", "1 /etc/pmilter/old.toml\n", "x".repeat(10_000)]) {
      writeFileSync(join(path, "lock"), text);
      const folder = stateFolder(path);
      folder.need();
      expect(readFileSync(join(path, "lock"), "utf8")).toBe(`${process.pid} /etc/pmilter/a.toml\n`);
      folder.close();
    }
  });
});

describe("cannot be used", () => {
  test.each<[string, (dir: TempDir) => string, string]>([
    [
      "a file in its place",
      ({ path }) => (writeFileSync(join(path, "s"), "x"), join(path, "s")),
      "it is no folder, or something above it is none",
    ],
    [
      "a file above it",
      ({ path }) => (writeFileSync(join(path, "s"), "x"), join(path, "s/t/u")),
      "it is no folder, or something above it is none",
    ],
    [
      "a link that leads nowhere",
      ({ path }) => (symlinkSync("nowhere", join(path, "s")), join(path, "s")),
      "a link leads nowhere",
    ],
    [
      "a link that leads to itself",
      ({ path }) => (symlinkSync("s", join(path, "s")), join(path, "s")),
      "a link leads to itself, or the lock in it is a link",
    ],
    [
      "a lock that is a link",
      ({ path }) => {
        mkdirSync(join(path, "s"));
        writeFileSync(join(path, "precious"), "precious");
        symlinkSync("../precious", join(path, "s/lock"));
        return join(path, "s");
      },
      "a link leads to itself, or the lock in it is a link",
    ],
    [
      "a lock that is another file as well",
      ({ path }) => {
        mkdirSync(join(path, "s"));
        writeFileSync(join(path, "precious"), "precious");
        linkSync(join(path, "precious"), join(path, "s/lock"));
        return join(path, "s");
      },
      "lock in it is not a file of its own",
    ],
  ])("%s", async (_, prepare, expected) => {
    await using dir = await tempDir("state");
    const path = prepare(dir);
    expect(() => stateFolder(path).need()).toThrow(new StateFolderError(path, expected));
    const precious = join(dir.path, "precious");
    if (existsSync(precious)) expect(readFileSync(precious, "utf8")).toBe("precious");
  });

  test.skipIf(!CAN_GIVE)("as a user who may not make it, may not write it, or does not own it", async () => {
    await using dir = await tempDir("state");
    await using unmade = await hold(join(dir.path, "s"), { uid: NOBODY });
    expect(unmade.said).toBe(`server.state: ${dir.path}/s: no permission to make or write it as uid ${NOBODY}`);
    for (const mode of [0o700, 0o755, 0o777]) {
      const path = join(dir.path, `roots-${mode}`);
      mkdirSync(path);
      chmodSync(path, mode);
      await using other = await hold(path, { uid: NOBODY });
      expect(other.said).toBe(
        mode === 0o700
          ? `server.state: ${path}: no permission to make or write it as uid ${NOBODY}`
          : `server.state: ${path}: it belongs to user 0, expected user ${NOBODY}`,
      );
      expect(modeOf(path)).toBe(mode.toString(8));
    }
    const own = join(dir.path, "own");
    mkdirSync(own);
    chownSync(own, NOBODY, NOBODY);
    chmodSync(own, 0o500);
    await using allowed = await hold(own, { uid: NOBODY });
    expect(allowed.said).toBe("has it");
    // Root does not use what somebody else may change at any time.
    expect(() => stateFolder(own).need()).toThrow(`it belongs to user ${NOBODY}, expected user 0`);
  });

  test.skipIf(!CAN_GIVE || !mayMount())("on a read-only file system", async () => {
    await using dir = await tempDir("state");
    mkdirSync(join(dir.path, "s"));
    const script = `import { StateFolder } from ${JSON.stringify(MODULE)};
      for (const path of ["s", "new/t"]) try { new StateFolder(${JSON.stringify(dir.path)} + "/" + path, "a").need(); } catch (error) { console.log(error.message); }`;
    const mounted = Bun.spawnSync([
      "unshare",
      "-m",
      "sh",
      "-c",
      'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -e "$3"',
      "sh",
      dir.path,
      process.execPath,
      script,
    ]);
    expect(mounted.stdout.toString().trim().split("\n")).toEqual(
      ["s", "new/t"].map((path) => `server.state: ${dir.path}/${path}: it is on a read-only file system`),
    );
  });
});

function mayMount(): boolean {
  const may = isRoot && Bun.spawnSync(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).exitCode === 0;
  if (isRoot && !may) console.log("skipped: this root may not mount, as the test of a read-only file system does");
  return may;
}

describe.skipIf(!CAN_GIVE)("given away by root", () => {
  const owner = { uid: NOBODY, gid: NOBODY };

  test("folder and lock are the user's, what is above stays root's, and the user has it later", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, ".pmilter/mx");
    stateFolder(path).need(owner);
    expect(statSync(path)).toMatchObject(owner);
    expect(statSync(join(path, "lock"))).toMatchObject(owner);
    expect(statSync(join(dir.path, ".pmilter")).uid).toBe(0);
    expect(modeOf(path)).toBe("700");
    opened.pop()!.close();
    await using later = await hold(path, { uid: NOBODY });
    expect(later.said).toBe("has it");
    // And root again, for that user.
    await later.kill();
    expect(stateFolder(path).need(owner)).toBe(path);
  });

  test("one that root made before, also behind a link of root's", async () => {
    await using dir = await tempDir("state");
    mkdirSync(join(dir.path, "real"));
    symlinkSync("real", join(dir.path, "link"));
    stateFolder(join(dir.path, "link")).need(owner);
    expect(statSync(join(dir.path, "real"))).toMatchObject(owner);
  });

  test.each<[string, (dir: string) => string]>([
    [
      "a folder of the user, who made a link there to root's",
      (dir) => {
        mkdirSync(join(dir, "users"));
        symlinkSync("../precious", join(dir, "users/s"));
        chownSync(join(dir, "users"), NOBODY, NOBODY);
        return join(dir, "users/s");
      },
    ],
    [
      "a folder that everybody may change",
      (dir) => {
        mkdirSync(join(dir, "open"));
        mkdirSync(join(dir, "open/s"));
        chmodSync(join(dir, "open"), 0o777);
        return join(dir, "open/s");
      },
    ],
    [
      "a link that is not root's",
      (dir) => {
        mkdirSync(join(dir, "sticky"));
        chmodSync(join(dir, "sticky"), 0o1777);
        Bun.spawnSync([
          "setpriv",
          "--reuid",
          "65534",
          "--regid",
          "65534",
          "--clear-groups",
          "ln",
          "-s",
          "../precious",
          join(dir, "sticky/s"),
        ]);
        return join(dir, "sticky/s");
      },
    ],
  ])("is nothing of root's that others may have put there: %s", async (_, prepare) => {
    await using dir = await tempDir("state");
    mkdirSync(join(dir.path, "precious"), { mode: 0o755 });
    const path = prepare(dir.path);
    expect(lstatSync(path)).toBeDefined();
    expect(() => stateFolder(path).need(owner)).toThrow(
      `it cannot be given to user ${NOBODY}: others than root may change a folder above it, or a link that leads to it`,
    );
    expect(statSync(path)).toMatchObject({ uid: 0, gid: 0 });
    expect(statSync(join(dir.path, "precious"))).toMatchObject({ uid: 0 });
    expect(readdirSync(path)).toEqual([]);
  });

  test("nor another file of root's that the user has moved into its folder as the lock", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    mkdirSync(path, { mode: 0o700 });
    chownSync(path, NOBODY, NOBODY);
    writeFileSync(join(path, "lock"), "root:secret:\n", { mode: 0o600 });
    expect(() => stateFolder(path).need(owner)).toThrow("lock in it is not a file of its own");
    expect(statSync(join(path, "lock"))).toMatchObject({ uid: 0 });
    expect(readFileSync(join(path, "lock"), "utf8")).toBe("root:secret:\n");
  });

  test("not a folder of a third user", async () => {
    await using dir = await tempDir("state");
    const path = join(dir.path, "s");
    mkdirSync(path);
    chownSync(path, 4711, 4711);
    expect(() => stateFolder(path).need(owner)).toThrow(`it belongs to user 4711, expected user ${NOBODY}`);
    expect(statSync(path).uid).toBe(4711);
  });
});

describe("a server", () => {
  test("makes none while nothing needs it, and tells where it would be", async () => {
    await using server = await startPmilter({ server: { workers: 1, stop_timeout: 0.1 } });
    expect((await askStatus(server)).state).toBe(join(server.dir, ".pmilter/pmilter"));
    expect(existsSync(join(server.dir, ".pmilter"))).toBe(false);
    const { stdout } = await runPmilter(["status", "--json", "-c", server.configFile]);
    expect(JSON.parse(stdout)).toMatchObject({ state: join(server.dir, ".pmilter/pmilter") });
  });

  test("state-taken: the second one on a folder does not start, and names the first", async () => {
    await using dir = await tempDir("state");
    const state = join(dir.path, "s");
    mkdirSync(state);
    const keys = { workers: 1, stop_timeout: 0.1, state };
    await using first = await startPmilter({ server: keys });
    const config = join(dir.path, "b.toml");
    writeFileSync(config, `[server]\nlisten = "inet:127.0.0.1:0"\nstate = "s"\n`);
    const second = Bun.spawn([process.execPath, MAIN, "-c", config], { stdio: ["ignore", "ignore", "pipe"] });
    expect(await new Response(second.stderr).text()).toEndWith(
      `\npmilter: server.state: ${state}: another server, process ${first.process.pid} with ${first.configFile}, uses it; each server needs its own\n`,
    );
    expect(await second.exited).toBe(1);
    first.process.kill("SIGKILL");
    await first.process.exited;
    await using third = await startPmilter({ server: keys });
    expect(third.log.text).not.toContain("server.state");
  });

  test("state-unusable: starts with a warning", async () => {
    await using dir = await tempDir("state");
    const state = join(dir.path, "s");
    writeFileSync(state, "x");
    await using server = await startPmilter({ server: { workers: 1, stop_timeout: 0.1, state } });
    expect(server.log.text).toContain(
      `[warn]: server.state: ${state}: it is no folder, or something above it is none; what needs it does not work\n`,
    );
    expect(readFileSync(state, "utf8")).toBe("x");
  });

  test.skipIf(!CAN_GIVE)("started as root gives the folder to server.user before it gives up root", async () => {
    await using dir = await tempDir("state");
    const state = join(dir.path, "s");
    mkdirSync(state);
    await using server = await startPmilter({ server: { workers: 1, stop_timeout: 0.1, state, user: "nobody" } });
    expect(statSync(state)).toMatchObject({ uid: NOBODY });
    expect(statSync(join(state, "lock"))).toMatchObject({ uid: NOBODY });
    expect(modeOf(state)).toBe("700");
    expect(server.log.text).not.toContain("server.state");
    await using other = await hold(state, { uid: NOBODY });
    expect(other.said).toContain(`process ${server.process.pid} with ${server.configFile}`);
  });

  test("takes its folder from STATE_DIRECTORY", async () => {
    await using dir = await tempDir("state");
    await using server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      env: { STATE_DIRECTORY: dir.path },
    });
    expect((await askStatus(server)).state).toBe(dir.path);
    expect(readFileSync(join(dir.path, "lock"), "utf8")).toBe(`${server.process.pid} ${server.configFile}\n`);
  });
});
