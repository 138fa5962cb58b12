/**
 * The control socket and the files beside it: who may open it may command the server, and nobody else may put himself
 * in its place. Requests that are none are answered, and cost nobody anything.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, lstatSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IS_LINUX } from "../support/available.ts";
import { askServer } from "../../src/server/control/control.ts";
import { type Pmilter, runPmilter, startPmilter } from "../support/pmilter.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import {
  CONNECT,
  descriptorsAtRest,
  descriptorsOf,
  descriptorsSettle,
  OPTNEG,
  RawClient,
  UNKNOWN,
} from "../server/wire.ts";

setDefaultTimeout(120_000);

const FILES = { "filter.ts": "export default { unknown() {}, connect() {} };" };
const SETTING = {
  server: { workers: 1, stop_timeout: 0.1 },
  config: '[[filter]]\npath = "filter.ts"\n',
  files: FILES,
} as const;

describe("requests that are none", () => {
  let server: Pmilter;
  let control: string;

  beforeAll(async () => {
    server = await startPmilter(SETTING);
    control = server.control;
  });

  afterAll(() => server[Symbol.asyncDispose]());

  /** What the server answers to these writes, one after the other; settles when it ends the connection. */
  async function ask(...writes: readonly (string | Uint8Array)[]): Promise<string> {
    const ended = Promise.withResolvers<void>();
    let answer = "";
    const socket = await Bun.connect({
      unix: control,
      socket: {
        data: (_, chunk) => void (answer += Buffer.from(chunk).toString()),
        close: () => ended.resolve(),
        error: () => ended.resolve(),
      },
    });
    for (const bytes of writes) {
      socket.write(bytes);
      await new Promise(setImmediate);
    }
    await ended.promise;
    return answer;
  }

  test.each<[string, readonly (string | Uint8Array)[]]>([
    ["an empty line", ["\n"]],
    ["no JSON", ["status\n"]],
    ["null", ["null\n"]],
    ["a number", ["1e999\n"]],
    ["an empty object", ["{}\n"]],
    ["a command that is an object", ['{"command":{"toString":1}}\n']],
    ["a command that is a list", ['{"command":["status"]}\n']],
    ["a command from a prototype", ['{"__proto__":{"command":"status"}}\n']],
    ["an unknown command with escapes", ['{"command":"\\u001b[2J\\nforged"}\n']],
    ["bytes that are no text", [Uint8Array.of(0xff, 0xfe, 0x00, 0x0a)]],
    ["deep nesting", [`${"[".repeat(4000)}\n`]],
    ["16,384 bytes without an end", ["x".repeat(16_384)]],
    ["a megabyte without an end", ["x".repeat(1_000_000)]],
    ["HTTP", ["POST /reload HTTP/1.1\r\nHost: localhost\r\n\r\n"]],
  ])("%s is answered with an error on one line", async (_, writes) => {
    const answer = await ask(...writes);
    expect(answer).toMatch(/^\{"error":"[^\n]*"\}\n$/);
    // oxlint-disable-next-line no-control-regex
    expect(answer).not.toMatch(/[\u0000-\u0009\u000b-\u001f]/);
  });

  test("a request in pieces is one, and of two only the first is done", async () => {
    expect(await ask('{"comm', 'and":"sta', 'tus"}', "\n")).toStartWith('{"version"');
    const from = server.log.all.length;
    expect(await ask('{"command":"status"}\n{"command":"reload"}\n{"command":"reload"}\n')).toStartWith('{"version"');
    expect(((await askServer(control, { command: "status" })) as { reload: unknown }).reload).toBeNull();
    expect(server.log.all.slice(from)).toEqual([]);
  });

  test.skipIf(!IS_LINUX)(
    "clients that say nothing do not use up what the mail needs, and keep nobody out",
    async () => {
      const before = await descriptorsAtRest(server);
      const silent: { terminate(): void }[] = [];
      const connect = () => Bun.connect({ unix: control, socket: { data() {} } });
      while (silent.length < 150) {
        // The queue of those that are not accepted yet is short.
        const socket = await connect().catch(() => null);
        if (socket === null) await Bun.sleep(1);
        else silent.push(socket);
      }
      try {
        // Refused while that queue is full: asked again, as a person would.
        const status = await waitFor(() => askServer(control, { command: "status" }).catch(() => null), {
          what: "an answer beside silent clients",
        });
        expect(status).toMatchObject({ connections: 0 });
        await waitFor(() => descriptorsOf(server) - before < 100, {
          what: "silent clients to be let go",
        });
      } finally {
        for (const socket of silent) socket.terminate();
      }
      await descriptorsSettle(server, before, 3000);
    },
  );

  test("the mail was served all along", async () => {
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, UNKNOWN)).toBe("Occ");
    expect(server.log.text).not.toMatch(/\[(?:error|crit)\]/);
  });
});

describe("somebody else's file at server.control", () => {
  test.each<[string, (path: string, target: string) => void]>([
    ["a symbolic link to a file", (path, target) => symlinkSync(target, path)],
    ["a symbolic link to nothing", (path, target) => symlinkSync(`${target}.none`, path)],
    ["a file", (path) => writeFileSync(path, "precious")],
  ])("%s is neither followed nor replaced, and the mail is served", async (_, put) => {
    await using folder = await tempDir("shared");
    const path = join(folder.path, "ctl");
    const target = join(folder.path, "target");
    writeFileSync(target, "precious");
    put(path, target);
    const before = lstatSync(path);
    {
      await using server = await startPmilter({ ...SETTING, server: { ...SETTING.server, control: path } });
      expect(server.log.text).toMatch(/\[warn\]: server\.control: .* not a socket, and is not replaced/);
      using client = await RawClient.connect(server.addresses[0]!);
      expect(await client.ask(OPTNEG, CONNECT, UNKNOWN)).toBe("Occ");
    }
    expect(lstatSync(path).ino).toBe(before.ino);
    expect(readFileSync(before.isSymbolicLink() ? target : path, "utf8")).toBe("precious");
    if (before.isSymbolicLink()) expect(existsSync(`${readlinkSync(path)}.none`)).toBe(false);
  });

  test("it is 0600 whatever socket_mode and the umask say, and so are its successors", async () => {
    await using server = await startPmilter({ ...SETTING, server: { ...SETTING.server, socket_mode: "0666" } });
    const control = server.control;
    const mode = () => (lstatSync(control).mode & 0o7777).toString(8);
    expect(mode()).toBe("600");
    await askServer(control, { command: "reload" });
    expect(mode()).toBe("600");
  });
});

test("status and reload show what a false server says without its escapes", async () => {
  await using folder = await tempDir("false");
  const config = join(folder.path, "pmilter.toml");
  const control = join(folder.path, "c");
  writeFileSync(join(folder.path, "filter.ts"), FILES["filter.ts"]);
  writeFileSync(config, `[server]\ncontrol = "${control}"\n[[filter]]\npath = "filter.ts"\n`);
  using listener = Bun.listen({
    unix: control,
    socket: {
      data(socket) {
        socket.write(`${JSON.stringify({ error: "\u001b[2J\u001b]0;forged\u0007\u009b31m" })}\n`);
        socket.end();
      },
    },
  });
  expect(listener).toBeDefined();
  for (const command of ["status", "reload"]) {
    const { exitCode, stdout, stderr } = await runPmilter([command, "-c", config]);
    expect(exitCode).toBe(1);
    // oxlint-disable-next-line no-control-regex
    expect(stdout + stderr).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  }
});

test("clients that say nothing do not cut off one that waits for its answer", async () => {
  const hanging =
    "export default { unknown() {}, async start() { console.log('loading'); await new Promise(() => {}); } };";
  await using server = await startPmilter({ ...SETTING, server: { ...SETTING.server, watch: false } });
  const control = server.control;
  writeFileSync(join(server.dir, "filter.ts"), hanging);
  const waiting = askServer(control, { command: "reload" });
  await server.prints.next(/loading/);
  const silent: { terminate(): void }[] = [];
  try {
    while (silent.length < 40) {
      const socket = await Bun.connect({ unix: control, socket: { data() {} } }).catch(() => null);
      if (socket === null) await Bun.sleep(1);
      else silent.push(socket);
    }
    // Behind them all in the queue of the socket.
    await askServer(control, { command: "status" });
    server.process.kill("SIGTERM");
    expect(await waiting).toMatchObject({ ok: false, message: expect.stringContaining("the server stops") });
  } finally {
    for (const socket of silent) socket.terminate();
  }
});
