/** The libc calls do what the listener needs, with the system's own error names. */
import { afterAll, afterEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { IS_LINUX } from "../support/available.ts";
import {
  close,
  connectUnix,
  dup,
  isListening,
  LibcError,
  listen,
  MAX_UNIX_PATH_BYTES,
  peerUser,
  send,
  setCloseOnExec,
  shutdown,
} from "../../src/net/libc.ts";
import { TEMP } from "../support/temp.ts";

setDefaultTimeout(120_000);

const BAD_FD = 1_000_000;

const folder = mkdtempSync(join(TEMP, "libc-"));
afterAll(() => rmSync(folder, { recursive: true }));
const cleanups: (() => void)[] = [];
afterEach(() => {
  while (cleanups.length > 0) cleanups.pop()?.();
});

const isCloseOnExec = (fd: number): boolean =>
  (Number.parseInt(/^flags:\s+(\d+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, "utf8"))?.[1] ?? "", 8) &
    0o2000000) !==
  0;

function unixListener(path: string): Bun.UnixSocketListener<undefined> & { fd: number } {
  const listener = Bun.listen({ unix: path, socket: { data() {} } }) as Bun.UnixSocketListener<undefined> & {
    fd: number;
  };
  cleanups.push(() => listener.stop(true));
  return listener;
}

function codeOf(call: () => unknown): string | undefined {
  try {
    call();
  } catch (error) {
    return error instanceof LibcError ? `${error.syscall} ${error.code}` : String(error);
  }
  return undefined;
}

describe("errors", () => {
  test("LibcError names the errno of the failed call, every time", () => {
    for (let i = 0; i < 1000; i++) {
      expect(codeOf(() => shutdown(BAD_FD, "both"))).toBe("shutdown EBADF");
      expect(codeOf(() => shutdown(0, "both"))).toBe("shutdown ENOTSOCK");
    }
    expect(codeOf(() => dup(BAD_FD))).toBe("fcntl EBADF");
    expect(codeOf(() => close(BAD_FD))).toBe("close EBADF");
    expect(codeOf(() => setCloseOnExec(BAD_FD))).toBe("ioctl EBADF");
    expect(codeOf(() => isListening(BAD_FD))).toBe("getsockopt EBADF");
  });
});

describe.if(IS_LINUX)("dup", () => {
  test("dup gives a close-on-exec copy, which a started program does not inherit", () => {
    const source = openSync(import.meta.path, "r");
    const copy = dup(source);
    cleanups.push(() => (close(copy), close(source)));
    expect(copy).not.toBe(source);
    expect(isCloseOnExec(copy)).toBe(true);
    const { stdout } = Bun.spawnSync(["ls", "/proc/self/fd"]);
    expect(stdout.toString().split("\n")).not.toContain(String(copy));
  });

  test("setCloseOnExec marks an inherited descriptor", () => {
    const inherited = openSync("/dev/null", "r");
    cleanups.push(() => close(inherited));
    const flags = JSON.parse(
      Bun.spawnSync({
        cmd: [
          process.execPath,
          "-e",
          `import { setCloseOnExec } from ${JSON.stringify(join(import.meta.dir, "../../src/net/libc.ts"))};
           import { readFileSync } from "node:fs";
           const flags = () => parseInt(/flags:\\s+(\\d+)/.exec(readFileSync("/proc/self/fdinfo/3", "utf8"))[1], 8) & 0o2000000;
           const before = flags(); setCloseOnExec(3); console.log(JSON.stringify([before, flags()]));`,
        ],
        stdio: ["ignore", "pipe", "inherit", inherited],
      }).stdout.toString(),
    ) as number[];
    expect(flags).toEqual([0, 0o2000000]);
  });
});

describe("sockets", () => {
  test("peerUser is the user of the process that listens, and knows a descriptor that is no socket", () => {
    const path = join(folder, "peer");
    const listener = Bun.listen({ unix: path, socket: { data() {} } });
    cleanups.push(() => listener.stop(true));
    const fd = connectUnix(path);
    cleanups.push(() => close(fd));
    expect(peerUser(fd)).toBe(process.geteuid!());
    expect(codeOf(() => peerUser(BAD_FD))).toBe("getsockopt EBADF");
    const file = openSync("/dev/null", "r");
    cleanups.push(() => close(file));
    expect(codeOf(() => peerUser(file))).toBe("getsockopt ENOTSOCK");
  });

  test("connectUnix tells nobody, a stale socket, a full queue and a listener apart", () => {
    const path = join(folder, "s");
    expect(codeOf(() => connectUnix(path))).toBe("connect ENOENT");
    const listener = unixListener(path);
    expect(isListening(listener.fd)).toBe(true);
    const first = connectUnix(path);
    cleanups.push(() => close(first));
    expect(isListening(first)).toBe(false);
    if (IS_LINUX) {
      listen(listener.fd, 0);
      // Bun accepts only when this function has returned, so the queue stays full.
      expect(codeOf(() => connectUnix(path))).toBe("connect EAGAIN");
    }
    const longPath = join(folder, "x".repeat(MAX_UNIX_PATH_BYTES));
    expect(codeOf(() => connectUnix(longPath))).toBe("connect ENAMETOOLONG");
  });

  test("send gives what the socket takes, then says that it takes nothing, or that the peer is gone", () => {
    const path = join(folder, "u");
    const listener = unixListener(path);
    const fd = connectUnix(path);
    cleanups.push(() => close(fd));
    // Nobody reads: the other side is accepted when this function waits.
    const piece = new Uint8Array(100_000);
    let sent = 0;
    let code: string | undefined;
    while (code === undefined) code = codeOf(() => void (sent += send(fd, piece)));
    expect(code).toBe("send EAGAIN");
    expect(sent).toBeGreaterThan(piece.length);
    listener.stop(true);
    expect(codeOf(() => send(fd, piece))).toBe("send EPIPE");
    expect(codeOf(() => send(BAD_FD, piece))).toBe("send EBADF");
  });

  test("shutdown of a connection that has ended is no error", () => {
    const path = join(folder, "t");
    const listener = unixListener(path);
    const fd = connectUnix(path);
    cleanups.push(() => close(fd));
    listener.stop(true);
    shutdown(fd, "both");
    shutdown(fd, "both");
  });
});
