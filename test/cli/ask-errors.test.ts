/** Every way in which `pmilter status` and `pmilter reload` can fail, with what they say then: one table. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { askServer } from "../../src/server/control/control.ts";
import { givenRoot, IS_LINUX } from "../support/available.ts";
import { controlOf, MAIN, runPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const BARE = { XDG_RUNTIME_DIR: "", RUNTIME_DIRECTORY: "" };
const STATUS = `${JSON.stringify({ health: "ok", problems: [] })}\n`;

interface Place {
  readonly dir: string;
  /** The configuration. */
  readonly file: string;
  /** Where its control socket is looked for. */
  readonly socket: string;
}

/** What listens at the socket: it answers each request by its command, in pieces. */
function answering(socket: string, answers: Readonly<Record<"status" | "reload", readonly string[]>>): Disposable {
  return Bun.listen({
    unix: socket,
    socket: {
      data(peer, chunk) {
        const command = String(chunk).includes('"command":"reload"') ? "reload" : "status";
        for (const part of answers[command]) peer.write(part);
        peer.end();
      },
    },
  });
}

const same = (...answer: readonly string[]) => ({ status: answer, reload: answer });

type Prepare = (place: Place) => Disposable | undefined;

/** What is said after `pmilter: `, for both commands; the socket is named by the key if `hasKey`, else it is the default. */
const FAILURES: readonly {
  what: string;
  prepare: Prepare;
  withKey: (place: Place) => string;
  without: (place: Place) => string;
}[] = [
  {
    what: "there is no socket",
    prepare: () => undefined,
    withKey: ({ socket }) => `no server answers at ${socket} (server.control): there is no such socket`,
    without: ({ dir, file }) =>
      `no server that runs ${file} was found: there is no control socket in ${dir}, /run/pmilter`,
  },
  {
    what: "a server that was killed has left the socket",
    prepare({ socket }) {
      const code = `Bun.listen({ unix: ${JSON.stringify(socket)}, socket: { data() {} } }); process.kill(process.pid, "SIGKILL");`;
      Bun.spawnSync([process.execPath, "-e", code]);
      return undefined;
    },
    withKey: ({ socket }) =>
      `no server answers at ${socket} (server.control): nobody listens there: a server that was killed has left the socket`,
    without: ({ file, socket }) =>
      `no server that runs ${file} was found: ${socket}: nobody listens there: a server that was killed has left the socket`,
  },
  ...(
    [
      [
        "a file is in its place",
        ({ socket }) => void writeFileSync(socket, "x"),
        "it is no socket: expected that of a server",
        true,
      ],
      [
        "a folder is in its place",
        ({ socket }) => void mkdirSync(socket),
        "it is no socket: expected that of a server",
        true,
      ],
      [
        "a link that leads to itself is in its place",
        ({ socket }) => void symlinkSync(socket, socket),
        "it cannot be connected to: ELOOP",
        false,
      ],
      [
        "it ends the connection without an answer",
        ({ socket }) => answering(socket, same()),
        "the server ended the connection without an answer: it may have stopped",
        false,
      ],
      [
        "its answer is cut short",
        ({ socket }) => answering(socket, same('{"health":"ok","prob')),
        "the answer was cut short: the server may have stopped",
        false,
      ],
      [
        "another program answers",
        ({ socket }) => answering(socket, same("220 mx.example.net ESMTP\r\n")),
        'expected a line of JSON, got "220 mx.example.net ESMTP\\r\\n": this is no pmilter',
        false,
      ],
      [
        "it answers null",
        ({ socket }) => answering(socket, same("null\n")),
        'expected a line of JSON, got "null\\n": this is no pmilter',
        false,
      ],
      [
        "it answers a number",
        ({ socket }) => answering(socket, same("1\n")),
        'expected a line of JSON, got "1\\n": this is no pmilter',
        false,
      ],
      [
        "it answers JSON of another kind",
        ({ socket }) => answering(socket, same('{"status":"green"}\n')),
        'expected the answer to status, got "{\\"status\\":\\"green\\"}\\n": this is no pmilter',
        false,
      ],
      [
        "it answers a list",
        ({ socket }) => answering(socket, same("[1,2]\n")),
        'expected the answer to status, got "[1,2]\\n": this is no pmilter',
        false,
      ],
      [
        "it runs another configuration",
        ({ socket }) => answering(socket, same('{"error":"another","runs":"/etc/other.toml"}\n')),
        "this server runs /etc/other.toml, not FILE",
        false,
      ],
      [
        "it says what is wrong",
        ({ socket }) => answering(socket, same('{"error":"no room\\u001b[2J"}\n')),
        "no room?[2J",
        false,
      ],
    ] as const satisfies readonly (readonly [string, Prepare, string, boolean])[]
  ).map(([what, prepare, said, isNobody]) => ({
    what,
    prepare,
    withKey: ({ file, socket }: Place) =>
      isNobody
        ? `no server answers at ${socket} (server.control): ${said}`
        : `${socket}: ${said.replace("FILE", file)}`,
    without: ({ file, socket }: Place) =>
      `no server that runs ${file} was found: ${socket}: ${said.replace("FILE", file)}`,
  })),
];

test.each(FAILURES.map((failure) => [failure.what, failure] as const))(
  "%s",
  async (_, { prepare, withKey, without }) => {
    await using folder = await tempDir("errors");
    for (const hasKey of [true, false]) {
      const dir = join(folder.path, hasKey ? "key" : "none");
      mkdirSync(dir);
      const file = join(dir, "pmilter.toml");
      const socket = hasKey ? join(dir, "ctl") : controlOf(file);
      writeFileSync(file, hasKey ? '[server]\ncontrol = "ctl"\n' : "");
      const place = { dir, file, socket };
      using listening = prepare(place) ?? { [Symbol.dispose]() {} };
      expect(listening).toBeDefined();
      for (const command of ["status", "reload"]) {
        expect(await runPmilter([command, "-c", file], { cwd: "/", env: BARE })).toEqual({
          exitCode: 1,
          stdout: "",
          stderr: `pmilter: ${(hasKey ? withKey : without)(place)}\n`,
        });
      }
    }
  },
);

test.each<[string, readonly string[], string]>([
  ["is cut short", ['{"ok":true,"mess'], "the answer was cut short: the server may have stopped"],
  ["never comes", [], "the server ended the connection without an answer: it may have stopped"],
  [
    "is of another kind",
    ['{"ok":true}\n'],
    'expected the answer to reload, got "{\\"ok\\":true}\\n": this is no pmilter',
  ],
  [
    "says that it runs another configuration now",
    ['{"error":"another","runs":"/etc/other.toml"}\n'],
    "this server runs /etc/other.toml, not FILE",
  ],
])("the server is found, and its answer to reload %s", async (_, reload, said) => {
  await using folder = await tempDir("errors");
  const file = join(folder.path, "pmilter.toml");
  writeFileSync(file, "");
  using listening = answering(controlOf(file), { status: [STATUS], reload });
  expect(listening).toBeDefined();
  expect(await runPmilter(["reload", "-c", file], { cwd: "/", env: BARE })).toEqual({
    exitCode: 1,
    stdout: "",
    stderr: `pmilter: ${controlOf(file)}: ${said.replace("FILE", file)}\n`,
  });
});

test("several sockets, none of which is its own: each is told", async () => {
  await using folder = await tempDir("errors");
  const file = join(folder.path, "pmilter.toml");
  writeFileSync(file, "");
  const [a, b] = ["pmilter-a.ctl", "pmilter.ctl"].map((name) => join(folder.path, name));
  using first = answering(a!, same('{"error":"another","runs":"/etc/a.toml"}\n'));
  using second = answering(b!, same("220 mx.example.net\r\n"));
  expect([first, second]).toHaveLength(2);
  expect(await runPmilter(["status", "-c", file], { cwd: "/", env: BARE })).toEqual({
    exitCode: 1,
    stdout: "",
    stderr: `pmilter: no server that runs ${file} was found:
  ${a}: this server runs /etc/a.toml, not ${file}
  ${b}: expected a line of JSON, got "220 mx.example.net\\r\\n": this is no pmilter
`,
  });
});

test("the path of the socket is too long", async () => {
  await using folder = await tempDir("errors");
  const file = join(folder.path, "pmilter.toml");
  const socket = join(folder.path, "x".repeat(120));
  writeFileSync(file, `[server]\ncontrol = "${socket}"\n`);
  expect((await runPmilter(["status", "-c", file], { cwd: "/", env: BARE })).stderr).toBe(
    `pmilter: ${socket}: the path is too long for a unix socket: set server.control to a shorter one\n`,
  );
});

test("the server does not answer in time, or takes nobody in", async () => {
  await using folder = await tempDir("errors");
  const silent = join(folder.path, "silent");
  using listening = Bun.listen({ unix: silent, socket: { data() {} } });
  expect(listening).toBeDefined();
  const asked = askServer(silent, { command: "status" }, { timeoutMs: 200 });
  await expect(asked).rejects.toThrow(`${silent}: no answer within 0.2 s`);
});

test.skipIf(!IS_LINUX)("the queue of the socket stays full", async () => {
  await using folder = await tempDir("errors");
  const full = join(folder.path, "full");
  // A process that listens and accepts nobody: stopped, with the shortest queue.
  const code = `const socket = Bun.listen({ unix: ${JSON.stringify(full)}, socket: { data() {} } });
    const { listen } = await import(${JSON.stringify(join(import.meta.dir, "../../src/net/libc.ts"))});
    listen(socket.fd, 1); console.log("listening");`;
  const child = Bun.spawn([process.execPath, "-e", code], { stdio: ["ignore", "pipe", "inherit"] });
  const waiting: { terminate(): void }[] = [];
  try {
    await child.stdout.getReader().read();
    child.kill("SIGSTOP");
    for (let refused = false; !refused;) {
      const socket = await Bun.connect({ unix: full, socket: { data() {} } }).catch(() => null);
      if (socket === null) refused = true;
      else waiting.push(socket);
    }
    await expect(askServer(full, { command: "status" })).rejects.toThrow(
      `${full}: too many others ask as well: none was accepted within 2 s`,
    );
  } finally {
    for (const socket of waiting) socket.terminate();
    child.kill("SIGKILL");
    await child.exited;
  }
});

test.skipIf(!givenRoot("a command of another user"))(
  "no permission: for the socket, its folder, and the configuration",
  async () => {
    await using folder = await tempDir("errors");
    const AS_NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    const asNobody = async (file: string) => {
      const child = Bun.spawn([...AS_NOBODY, process.execPath, MAIN, "status", "-c", file], {
        cwd: "/",
        env: { ...process.env, ...BARE },
        stdio: ["ignore", "ignore", "pipe"],
      });
      return { stderr: await new Response(child.stderr).text(), exitCode: await child.exited };
    };
    const denied = "no permission to connect as uid 65534; ask as the user that the server was started by";

    const file = join(folder.path, "pmilter.toml");
    writeFileSync(file, "");
    using listening = answering(controlOf(file), same(STATUS));
    expect(listening).toBeDefined();
    chmodSync(controlOf(file), 0o600);
    expect(await asNobody(file)).toEqual({
      exitCode: 1,
      stderr: `pmilter: no server that runs ${file} was found: ${controlOf(file)}: ${denied}\n`,
    });

    const closed = join(folder.path, "closed");
    mkdirSync(closed, { mode: 0o700 });
    writeFileSync(file, `[server]\ncontrol = "${closed}/ctl"\n`);
    expect(await asNobody(file)).toEqual({ exitCode: 1, stderr: `pmilter: ${closed}/ctl: ${denied}\n` });

    const inClosed = join(closed, "pmilter.toml");
    writeFileSync(inClosed, "");
    expect(await asNobody(inClosed)).toEqual({
      exitCode: 1,
      stderr: `pmilter: no server that runs ${inClosed} was found: ${controlOf(inClosed)}: ${denied}\n`,
    });
  },
);
