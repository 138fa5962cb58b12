/**
 * The peers that are not ours: the parts of each, and whether this machine has them. It builds into a temporary
 * folder, installs nothing, and takes no network.
 */
import { join, relative } from "node:path";
import { PEERS, type PeerName } from "../args.ts";
import { ROOT } from "./machine.ts";
import { lastLine, startProgram } from "./program.ts";
import type { RunningServer } from "./servers.ts";

/** A peer that can be had. */
export interface Peer {
  readonly name: PeerName;
  readonly title: string;
  /** It only answers, and filters nothing: the limit of its language. */
  readonly isLimit: boolean;
  /** Debian's packages that it is made of. */
  readonly packages: readonly string[];
  start(signal: AbortSignal): Promise<RunningServer>;
}

export interface PeerSet {
  readonly peers: readonly Peer[];
  /** For each peer that is not measured, a line with the reason. */
  readonly missing: readonly string[];
}

interface Recipe {
  readonly title: string;
  /** The Debian packages that it needs. */
  readonly packages: string;
  /** Takes long to build on some machines, so `--quick` leaves it out. */
  readonly isSlow?: boolean;
  /** It answers QUIT, too; a mail server has closed by then. */
  readonly answersQuit?: boolean;
  readonly isLimit?: boolean;
  /** @throws Error with the reason why it cannot be had */
  make(folder: string, signal: AbortSignal): Promise<{ readonly argv: readonly string[]; readonly command: string }>;
}

const FOLDER = join(import.meta.dir, "..", "peers");

const RECIPES: Readonly<Record<PeerName, Recipe>> = {
  libmilter: {
    title: "C on libmilter",
    packages: "gcc libmilter-dev",
    make: (folder, signal) => compiled(folder, "libmilter.c", ["-lmilter", "-lpthread"], signal),
  },
  "bare-c": {
    title: "bare loop in C, answers all",
    packages: "gcc libc6-dev",
    isLimit: true,
    make: (folder, signal) => compiled(folder, "bare.c", [], signal),
  },
  pymilter: {
    title: "pymilter",
    packages: "python3-milter",
    make: (_, signal) => scripted(["/usr/bin/python3", "python3"], ["-c", "import Milter"], "pymilter.py", signal),
  },
  "pmilter-perl": {
    title: "Sendmail::PMilter",
    packages: "libsendmail-pmilter-perl",
    answersQuit: true,
    make: (_, signal) => scripted(["/usr/bin/perl", "perl"], ["-MSendmail::PMilter", "-e", "1"], "pmilter.pl", signal),
  },
  go: {
    title: "go-milter",
    packages: "golang-go golang-github-emersion-go-milter-dev",
    isSlow: true,
    make: async (folder, signal) => {
      const go = found(["go"]);
      const binary = join(folder, "filter");
      await run([go, "build", "-o", binary, join(FOLDER, "filter.go")], signal, {
        GO111MODULE: "off",
        GOPATH: "/usr/share/gocode",
        GOCACHE: join(folder, "go-cache"),
        GOFLAGS: "",
        GOTOOLCHAIN: "local",
        CGO_ENABLED: "0",
      });
      return {
        argv: [binary],
        command:
          "GO111MODULE=off GOPATH=/usr/share/gocode CGO_ENABLED=0 go build -o filter bench/peers/filter.go && ./filter SOCKET",
      };
    },
  },
};

/** @param names of peers; null for all, in `--quick` without those that take long to build */
export async function preparePeers(
  names: readonly PeerName[] | null,
  isQuick: boolean,
  folder: string,
  signal: AbortSignal,
): Promise<PeerSet> {
  const peers: Peer[] = [];
  const missing: string[] = [];
  for (const name of names ?? PEERS) {
    const { title, packages, isSlow, answersQuit, isLimit = false, make } = RECIPES[name];
    if (names === null && isQuick && isSlow === true) {
      missing.push(`${name}: left out of --quick, since it may take long to build; --peers ${name} measures it`);
      continue;
    }
    try {
      const { argv, command } = await make(folder, signal);
      const start = (signal: AbortSignal) =>
        startProgram({ name, argv, command, signal, ...(answersQuit !== undefined && { answersQuit }) });
      // Started once to try: a peer that does not start here counts as missing.
      await (await start(signal))[Symbol.asyncDispose]();
      peers.push({ name, title, isLimit, packages: packages.split(" "), start });
    } catch (error) {
      signal.throwIfAborted();
      const reason = error instanceof Error ? error.message : String(error);
      missing.push(`${name}: not measured, ${reason} (Debian: ${packages})`);
    }
  }
  return { peers, missing };
}

async function compiled(folder: string, file: string, libraries: readonly string[], signal: AbortSignal) {
  const cc = found(["cc"]);
  const name = file.replace(/\.c$/, "");
  const binary = join(folder, name);
  await run([cc, "-O2", "-o", binary, join(FOLDER, file), ...libraries], signal);
  return {
    argv: [binary],
    command: `${["cc -O2 -o", name, `bench/peers/${file}`, ...libraries].join(" ")} && ./${name} SOCKET`,
  };
}

/** @param probe arguments with which the interpreter ends well only if the library is there */
async function scripted(interpreters: readonly string[], probe: readonly string[], file: string, signal: AbortSignal) {
  const interpreter = found(interpreters);
  await run([interpreter, ...probe], signal);
  const path = join(FOLDER, file);
  return { argv: [interpreter, path], command: `${interpreter} ${relative(ROOT, path)} SOCKET` };
}

function found(names: readonly string[]): string {
  // Of itself it looks at the PATH that Bun was started with.
  const PATH = process.env["PATH"] ?? "";
  const path = names.map((name) => Bun.which(name, { PATH })).find((path) => path !== null);
  if (path === undefined) throw new Error(`${names.at(-1)} is not installed`);
  return path;
}

async function run(argv: readonly string[], signal: AbortSignal, env: Readonly<Record<string, string>> = {}) {
  const child = Bun.spawn([...argv], {
    stdio: ["ignore", "ignore", "pipe"],
    env: { ...process.env, ...env },
    signal,
  });
  const [exitCode, errors] = await Promise.all([child.exited, child.stderr.text()]);
  if (exitCode === 0) return;
  // Of a compiler the first error is the cause.
  const error = /^.*\berror:.*$/m.exec(errors)?.[0] ?? lastLine(errors);
  throw new Error(error === "" ? `${argv[0]} ended with exit code ${exitCode}` : error.replaceAll(`${FOLDER}/`, ""));
}
