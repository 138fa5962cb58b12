/** Names to ids, and giving up root, which a subprocess does since there is no way back. */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { givenRoot, IS_LINUX, isRoot } from "../support/available.ts";
import { groupsOf, ownSocket, PrivilegeError, resolveGroup, resolveUser } from "../../src/server/rights/privileges.ts";
import { MAIN, startPmilter } from "../support/pmilter.ts";
import { TEMP } from "../support/temp.ts";

setDefaultTimeout(120_000);

const folder = mkdtempSync(join(TEMP, "privileges-"));
// The subprocess reads the account files after it has given up root.
chmodSync(folder, 0o755);
afterAll(() => rmSync(folder, { recursive: true }));
const files = { passwd: join(folder, "passwd"), group: join(folder, "group") };
writeFileSync(
  files.passwd,
  "# comment\nroot:x:0:0::/root:/bin/sh\npmilter:x:4711:4712::/:/bin/false\nbroken:x::0::/:/bin/sh\n77:x:78:79::/:/bin/sh\n",
);
writeFileSync(files.group, "root:x:0:\npmilter:x:4712:\npostfix:x:4713:mail,pmilter\nother:x:4714:pmilterx\n");

const CAN_DROP = givenRoot("dropPrivileges") && IS_LINUX;
const MODULE = JSON.stringify(join(import.meta.dir, "../../src/server/rights/privileges.ts"));

/** Runs a piece of code in a process of its own and gives the JSON that it prints. */
function inSubprocess(code: string, asUser?: number): unknown {
  const drop =
    asUser === undefined ? "" : `process.setgroups([]); process.setgid(${asUser}); process.setuid(${asUser});`;
  const result = Bun.spawnSync([
    process.execPath,
    "-e",
    `import { readFileSync, readdirSync } from "node:fs"; import { dropPrivileges } from ${MODULE};
     const files = ${JSON.stringify(files)}; ${drop} ${code}`,
  ]);
  if (result.exitCode !== 0) throw new Error(result.stderr.toString());
  return JSON.parse(result.stdout.toString());
}

const REPORT = `const ids = (t) => { const s = readFileSync("/proc/self/task/" + t + "/status", "utf8");
    return ["Uid", "Gid", "Groups"].map((k) => new RegExp(k + ":\\\\s*(.*)").exec(s)[1].trim().split(/\\s+/).join(" ")).join("|"); };
  let regained = true; try { process.setuid(0); } catch { regained = false; }
  console.log(JSON.stringify({ threads: [...new Set(readdirSync("/proc/self/task").map(ids))], regained }));`;

describe("names", () => {
  test("resolveUser takes names and numbers", () => {
    expect(resolveUser("pmilter", files)).toEqual({ name: "pmilter", uid: 4711, gid: 4712 });
    expect(resolveUser("4711", files)).toEqual({ name: "pmilter", uid: 4711, gid: 4712 });
    expect(resolveUser("5000", files)).toEqual({ name: null, uid: 5000, gid: null });
    expect(resolveUser("77", files)).toEqual({ name: "77", uid: 78, gid: 79 });
  });

  test("resolveGroup takes names and numbers", () => {
    expect(resolveGroup("postfix", files)).toBe(4713);
    expect(resolveGroup("5000", files)).toBe(5000);
    expect(groupsOf("pmilter", 4712, files)).toEqual([4712, 4713]);
  });

  test("resolveUser and resolveGroup say what was expected of an unknown name", () => {
    expect(() => resolveUser("nobodyhere", files)).toThrow(
      `unknown user "nobodyhere": expected a name from ${files.passwd} or a numeric user id`,
    );
    expect(() => resolveGroup("nobodyhere", files)).toThrow(PrivilegeError);
    expect(() => resolveUser("4294967295", files)).toThrow("too large");
  });

  test("resolveUser never reads an empty id as root", () => {
    expect(() => resolveUser("broken", files)).toThrow("has no numeric id");
  });
});

describe("ownSocket", () => {
  test("ownSocket sets the mode, and the owner where it may", () => {
    const path = join(folder, "file");
    writeFileSync(path, "");
    ownSocket(path, 0o640, null, null);
    const before = lstatSync(path);
    expect(before.mode & 0o777).toBe(0o640);
    if (!isRoot) return;
    ownSocket(path, 0o660, null, 4713);
    expect(lstatSync(path)).toMatchObject({ uid: before.uid, gid: 4713 });
    ownSocket(path, 0o660, 4711, null);
    expect(lstatSync(path)).toMatchObject({ uid: 4711, gid: 4713 });
  });
});

describe.if(CAN_DROP)("dropPrivileges", () => {
  test("dropPrivileges becomes the user with its supplementary groups, in every thread, for good", () => {
    expect(inSubprocess(`dropPrivileges({ user: "pmilter", group: null }, files); ${REPORT}`)).toEqual({
      threads: ["4711 4711 4711 4711|4712 4712 4712 4712|4712 4713"],
      regained: false,
    });
  });

  test("dropPrivileges uses the group that was asked for as primary group", () => {
    expect(inSubprocess(`dropPrivileges({ user: "pmilter", group: "other" }, files); ${REPORT}`)).toEqual({
      threads: ["4711 4711 4711 4711|4714 4714 4714 4714|4713 4714"],
      regained: false,
    });
  });

  test("dropPrivileges takes bare numbers, and then no other groups than the one given", () => {
    expect(inSubprocess(`dropPrivileges({ user: "5000", group: "5001" }, files); ${REPORT}`)).toEqual({
      threads: ["5000 5000 5000 5000|5001 5001 5001 5001|5001"],
      regained: false,
    });
  });

  test("dropPrivileges works with the system's own accounts", () => {
    const { uid, gid } = resolveUser("nobody");
    const report = inSubprocess(`dropPrivileges({ user: "nobody", group: null }); ${REPORT}`) as { threads: string[] };
    expect(report.threads).toHaveLength(1);
    expect(report.threads[0]).toStartWith(`${uid} ${uid} ${uid} ${uid}|${gid} ${gid} ${gid} ${gid}|`);
  });

  test("dropPrivileges wants a group beside a number that is no account", () => {
    const code = `try { dropPrivileges({ user: "5000", group: null }, files) } catch (e) { console.log(JSON.stringify([e.code, e.message])) }`;
    expect(inSubprocess(code)).toEqual(["PMILTER_ERR_PRIVILEGES", expect.stringContaining("expected server.group")]);
  });

  test("dropPrivileges without root accepts the user that it is, and refuses another", () => {
    const attempt = (user: string) =>
      inSubprocess(
        `try { dropPrivileges({ user: "${user}", group: null }, files); console.log(0) } catch (e) { console.log(JSON.stringify(e.message)) }`,
        4711,
      );
    expect(attempt("pmilter")).toBe(0);
    expect(attempt("root")).toContain("started as uid 4711; expected to be started as root or as that user");
  });

  test("dropPrivileges does nothing when neither is given", () => {
    expect(inSubprocess(`dropPrivileges({ user: null, group: null }); console.log(process.getuid())`)).toBe(0);
  });
});

/** The variables that tell a user's own folders and session, as code and programs in a worker find them. */
const SEEN = `import os from "node:os";
import { spawnSync } from "node:child_process";
const command = ["/bin/sh", "-c", 'echo "$HOME|$USER|$LOGNAME|$SHELL|$XDG_CACHE_HOME|$XDG_DATA_DIRS|$MAIL"'];
const { HOME, USER, LOGNAME, SHELL, XDG_CACHE_HOME, XDG_DATA_DIRS, MAIL } = process.env;
const seen = {
  env: { HOME, USER, LOGNAME, SHELL, XDG_CACHE_HOME, XDG_DATA_DIRS, MAIL },
  home: os.homedir(),
  programs: [Bun.spawnSync(command).stdout.toString().trim(), spawnSync(command[0], command.slice(1)).stdout.toString().trim()],
};
`;

const ROOTS = {
  HOME: "/root",
  USER: "root",
  LOGNAME: "root",
  SHELL: "/bin/bash",
  XDG_CACHE_HOME: "/root/.cache",
  XDG_RUNTIME_DIR: "",
  XDG_DATA_DIRS: "/usr/share",
  MAIL: "/var/mail/root",
};

describe.if(CAN_DROP)("dropPrivileges and the environment", () => {
  /** What a worker sees that is started after rights were given up to this user. */
  function seenAs(
    user: string | null,
    group: string | null,
    env: Readonly<Record<string, string>> = {},
    cwd = "/",
  ): unknown {
    const worker = `data:text/javascript,${encodeURIComponent(`${SEEN} postMessage({ ...seen, cwd: process.cwd(), tmp: process.env.TMPDIR });`)}`;
    const code = `import { dropPrivileges } from ${MODULE};
      dropPrivileges(${JSON.stringify({ user, group })}, ${JSON.stringify(files)});
      const worker = new Worker(${JSON.stringify(worker)}, { env: { ...process.env } });
      worker.onmessage = ({ data }) => { console.log(JSON.stringify(data)); process.exit(); };`;
    const result = Bun.spawnSync([process.execPath, "-e", code], { env: { ...process.env, ...ROOTS, ...env }, cwd });
    if (result.exitCode !== 0) throw new Error(result.stderr.toString());
    return JSON.parse(result.stdout.toString());
  }

  test("dropPrivileges: home, names and shell are the user's; root's session is not handed on", () => {
    for (const user of ["pmilter", "4711"]) {
      expect(seenAs(user, null)).toMatchObject({
        env: { HOME: "/", USER: "pmilter", LOGNAME: "pmilter", SHELL: "/bin/false", XDG_DATA_DIRS: "/usr/share" },
        home: "/",
        programs: ["/|pmilter|pmilter|/bin/false||/usr/share|", "/|pmilter|pmilter|/bin/false||/usr/share|"],
      });
    }
  });

  test("dropPrivileges: a number that no account has gets no name, and no home but the root folder", () => {
    const seen = seenAs("5000", "5001");
    expect(seen).toEqual({
      env: { HOME: "/", XDG_DATA_DIRS: "/usr/share" },
      home: "/",
      programs: ["/|||||/usr/share|", "/|||||/usr/share|"],
      cwd: "/",
      ...(process.env["TMPDIR"] === undefined ? {} : { tmp: process.env["TMPDIR"] }),
    });
  });

  test("dropPrivileges: a folder that the user may not enter is neither the working folder nor the one for temporary files", () => {
    const closed = join(folder, "closed");
    const open = join(folder, "open");
    for (const [path, mode] of [
      [closed, 0o700],
      [open, 0o1777],
    ] as const) {
      mkdirSync(path);
      chmodSync(path, mode);
    }
    const inClosed = seenAs("pmilter", null, { TMPDIR: closed }, closed) as { tmp?: string };
    expect(inClosed).toMatchObject({ cwd: "/" });
    expect(inClosed.tmp).toBeUndefined();
    expect(seenAs("pmilter", null, { TMPDIR: open }, open)).toMatchObject({ cwd: open, tmp: open });
  });

  test("dropPrivileges: with a group alone the process stays root's, with its environment", () => {
    const { env } = seenAs(null, "other") as { env: unknown };
    expect(env).toEqual({
      HOME: "/root",
      USER: "root",
      LOGNAME: "root",
      SHELL: "/bin/bash",
      XDG_CACHE_HOME: "/root/.cache",
      XDG_DATA_DIRS: "/usr/share",
      MAIL: "/var/mail/root",
    });
  });

  const isReadable =
    CAN_DROP &&
    inSubprocess(
      `import { accessSync } from "node:fs"; dropPrivileges({ user: "nobody", group: null });
       try { accessSync(${JSON.stringify(MAIN)}); console.log(true); } catch { console.log(false); }`,
    ) === true;
  if (CAN_DROP && !isReadable) console.log("skipped: the user nobody may not read this tree");
  test.if(isReadable)(
    "a server's handlers see the home of server.user, a reload the defaults of the start",
    async () => {
      const runtime = join(folder, "runtime");
      mkdirSync(runtime);
      await using server = await startPmilter({
        config: '[[filter]]\npath = "filter.ts"\n',
        server: { workers: 1, user: "nobody", watch: false },
        files: { "filter.ts": `${SEEN}export default { eom() {}, start() { console.log(JSON.stringify(seen)); } };\n` },
        env: { ...ROOTS, XDG_RUNTIME_DIR: runtime },
      });
      const home = /^nobody:.*$/m.exec(readFileSync("/etc/passwd", "utf8"))![0].split(":")[5]!;
      const expected = { env: { HOME: home, USER: "nobody", LOGNAME: "nobody" }, home };
      expect(JSON.parse(await server.prints.next(/^\{/))).toMatchObject(expected);
      server.process.kill("SIGHUP");
      await server.log.next(/generation 2 serves/);
      expect(server.log.text).not.toContain("needs a restart");
      expect(JSON.parse(await server.prints.next(/^\{/, { from: 1 }))).toMatchObject(expected);
    },
  );
});
