/**
 * A private Sendmail (8.17 from Debian, Linux, run by root), unpacked into a cache and never installed, since its
 * package would remove Postfix. It runs in namespaces of its own: there its host name is mx.example.test, /etc/hosts
 * names the clients of the test, and /run holds its folder and the filters' sockets, as Sendmail trusts no socket below
 * a folder that others may write to. Not a model of a production set-up: it relays for everybody on loopback, looks
 * nothing up in DNS, and delivers while the client waits, so what was accepted has been delivered.
 *
 * The namespace's first process ends when the pipe to it closes, and the kernel then ends all others in it and drops
 * the mounts: nothing stays behind, even if the test process is killed.
 */
import { appendFile, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import { unpackSendmail } from "./sendmail-package.ts";
import { freePorts, tempDir, waitFor } from "./temp.ts";

const sendmail = unpackSendmail();
/** For `describeWith(sendmailTool, …)`. */
export const sendmailTool = sendmail.tool;

export interface SendmailMilter {
  /** As pmilter says it: `unix:/path`, `inet:127.0.0.1:PORT`. */
  readonly address: string;
  /** What its failure means: R rejects, T tempfails, 4 closes with 421. Default: Sendmail goes on without it. */
  readonly failure?: "R" | "T" | "4";
  /** In seconds: connecting, writing, reading a reply, the end of the message. Default 20, 20, 20, 60. */
  readonly timeouts?: Partial<Readonly<Record<"C" | "S" | "R" | "E", number>>>;
}

export type SendmailMilters = string | SendmailMilter | readonly (string | SendmailMilter)[];

export interface SendmailService {
  /** Selects the port; `{daemon_name}` shows it. */
  readonly name: string;
  /** Default: none. */
  readonly milters?: SendmailMilters;
  /** Keep its messages in the queue instead of delivering them: see `queued`. */
  readonly hold?: boolean;
  /** It listens on ::1 instead of 127.0.0.1. */
  readonly inet6?: boolean;
}

export interface SendmailOptions {
  /** Of the service "smtp", which is always there. */
  readonly milters?: SendmailMilters;
  readonly hold?: boolean;
  /** Further services, each with a port of its own. */
  readonly services?: readonly SendmailService[];
  /** Where all mail is delivered by SMTP (127.0.0.1); without it, all mail stays in the queue. */
  readonly sinkPort?: number;
  /** Names of m4 such as confMAX_HEADERS_LENGTH. */
  readonly defines?: Readonly<Record<string, string>>;
  /** Further lines of sendmail.mc, such as LOCAL_RULESETS and rules. */
  readonly mc?: string;
}

export interface QueuedMail {
  /** "" is the null sender. */
  readonly sender: string;
  readonly recipients: readonly string[];
  /** Fields in order, Sendmail's own among them, folds with LF, one character per byte. */
  readonly headers: readonly string[];
  /** With LF lines, one character per byte. */
  readonly body: string;
  /** Why it is in quarantine. */
  readonly quarantine: string | undefined;
}

/** The queue id in the reply to an accepted message. */
export function queueIdOf(reply: { readonly text: string }): string {
  const id = /^2\.0\.0 (\w+) Message accepted/.exec(reply.text)?.[1];
  if (id === undefined) throw new Error(`no queue id in ${JSON.stringify(reply.text)}`);
  return id;
}

/** Starts Sendmail and returns once it listens. On dispose all its processes end and its folder goes. */
export async function startSendmail(options: SendmailOptions = {}): Promise<Sendmail> {
  if (!sendmailTool.available) throw new Error(sendmailTool.reason);
  await using stack = new AsyncDisposableStack();
  const { path: dir } = stack.use(await tempDir("sendmail"));
  const services: SendmailService[] = [
    {
      name: "smtp",
      ...(options.milters !== undefined && { milters: options.milters }),
      ...(options.hold !== undefined && { hold: options.hold }),
    },
    ...(options.services ?? []),
  ];
  const ports = await freePorts(services.length);
  const portOf = new Map(services.map(({ name }, index) => [name, ports[index]!]));
  if (portOf.size !== services.length) throw new Error("two services with one name");

  const sockets = new SocketFolders();
  const mc = configuration(services, portOf, sockets, options);
  await Promise.all([
    mkdir(join(dir, "queue"), { mode: 0o700 }),
    writeFile(join(dir, "hosts"), `127.0.0.1 localhost\n::1 localhost\n192.0.2.1 ${HOST} mx\n`),
    writeFile(join(dir, "nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n"),
    writeFile(join(dir, "service.switch"), "hosts files\naliases files\n"),
    writeFile(join(dir, "aliases"), ""),
    writeFile(join(dir, "sendmail.mc"), mc),
  ]);
  await writeFile(join(dir, "sendmail.cf"), await run([sendmail.m4, join(dir, "sendmail.mc")]));

  const child = Bun.spawn({
    cmd: [
      "unshare",
      "-u",
      "-m",
      "-p",
      "--fork",
      "--kill-child",
      "sh",
      "-euc",
      SUPERVISOR,
      "sh",
      dir,
      ...sockets.folders,
    ],
    env: {
      PATH: "/usr/bin:/bin:/usr/sbin:/sbin",
      LANG: "C",
      LD_LIBRARY_PATH: sendmail.libraries,
      SENDMAIL: sendmailTool.path,
    },
    stdio: ["pipe", "pipe", "pipe"],
  });
  stack.defer(async () => {
    await child.stdin.end();
    await child.exited;
  });
  const output: string[] = [];
  let hasEnded = false;
  const readAll = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
    for await (const chunk of stream) output.push(Buffer.from(chunk).toString("latin1"));
    hasEnded = true;
  };
  void readAll(child.stdout);
  void readAll(child.stderr);
  await waitFor(
    async () => {
      if (hasEnded || output.join("").includes("sendmail ended")) {
        throw new Error(`Sendmail in ${dir} did not start:\n${output.join("")}`);
      }
      return await areListening(ports);
    },
    { what: "Sendmail to listen", intervalMs: 10 },
  );
  return new Sendmail(dir, portOf, services, stack.move());
}

const HOST = "mx.example.test";
/** Where its folder is in its own view of the file system. */
const HOME = "/run/sendmail";

/** Arguments: the folder, then those of the sockets, which become /run/milter0 and so on. */
const SUPERVISOR = `
hostname ${HOST}
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf
mkdir -p "$1/run/sendmail"
mount --bind "$1" "$1/run/sendmail"
n=0; home="$1"; shift
for folder; do
  mkdir "$home/run/milter$n"; mount --bind "$folder" "$home/run/milter$n"; n=$((n + 1))
done
mount --rbind "$home/run" /run
{ "$SENDMAIL" -C ${HOME}/sendmail.cf -bD -X ${HOME}/traffic || true; echo sendmail ended; } </dev/null &
read -r _ || true
`;

/** Folders of sockets, each with its place in Sendmail's view. */
class SocketFolders {
  readonly folders: string[] = [];

  /** An address as Sendmail writes it. */
  of(address: string): string {
    const inet = /^inet6?:(\[[^\]]+\]|[^:]+):(\d+)$/.exec(address);
    if (inet) {
      const host = inet[1]!.replace(/^\[|\]$/g, "");
      return host.includes(":") ? `inet6:${inet[2]}@${host}` : `inet:${inet[2]}@${host}`;
    }
    const path = /^(?:unix|local):(\/.*)$/.exec(address)?.[1];
    if (path === undefined) throw new Error(`no address of a filter: ${address}`);
    const folder = dirname(path);
    if (!this.folders.includes(folder)) this.folders.push(folder);
    return `unix:/run/milter${this.folders.indexOf(folder)}/${basename(path)}`;
  }
}

function configuration(
  services: readonly SendmailService[],
  portOf: ReadonlyMap<string, number>,
  sockets: SocketFolders,
  options: SendmailOptions,
): string {
  const defines: Record<string, string> = {
    confPID_FILE: `${HOME}/pid`,
    QUEUE_DIR: `${HOME}/queue`,
    STATUS_FILE: `${HOME}/statistics`,
    ALIAS_FILE: `${HOME}/aliases`,
    confSERVICE_SWITCH_FILE: `${HOME}/service.switch`,
    confHOSTS_FILE: "/etc/hosts",
    confTO_IDENT: "0",
    confQUEUE_LA: "1000",
    confREFUSE_LA: "1000",
    confDELAY_LA: "0",
    confDELIVERY_MODE: options.sinkPort === undefined ? "queueonly" : "interactive",
    // No fsync: nothing here is worth it.
    confSAFE_QUEUE: "interactive",
    confLOG_LEVEL: "0",
    confMAX_RCPTS_PER_MESSAGE: "0",
    confBAD_RCPT_THROTTLE: "0",
    confDONT_BLAME_SENDMAIL: "GroupWritableDirPathSafe",
    // No notices that a message is late, and no copies of those that it failed.
    confTO_QUEUEWARN: "",
    confCOPY_ERRORS_TO: "",
    // 8-bit text as it is.
    confEIGHT_BIT_HANDLING: "pass8",
    ...options.defines,
  };
  if (options.sinkPort !== undefined) {
    defines["SMART_HOST"] = "relay:[127.0.0.1]";
    defines["RELAY_MAILER_ARGS"] = `TCP $h ${options.sinkPort}`;
  }
  const filters: string[] = [];
  const daemons = services.map(({ name, milters, hold, inet6 }) => {
    const names = list(milters).map((milter) => {
      const { address, failure, timeouts } =
        typeof milter === "string" ? ({ address: milter } as SendmailMilter) : milter;
      const times = Object.entries({ C: 20, S: 20, R: 20, E: 60, ...timeouts }).map(
        ([key, value]) => `${key}:${value}s`,
      );
      const filter = `f${filters.length}`;
      const flags = failure === undefined ? "" : `F=${failure}, `;
      filters.push(`MAIL_FILTER(\`${filter}', \`S=${sockets.of(address)}, ${flags}T=${times.join(";")}')`);
      return filter;
    });
    const equates = [
      `Port=${portOf.get(name)}`,
      inet6 === true ? "Addr=::1, Family=inet6" : "Addr=127.0.0.1, Family=inet",
      `Name=${name}`,
      ...(names.length > 0 ? [`InputMailFilters=${names.join(";")}`] : []),
      ...(hold === true ? ["DeliveryMode=q"] : []),
    ];
    return `DAEMON_OPTIONS(\`${equates.join(", ")}')`;
  });
  return [
    "divert(-1)",
    `define(\`_CF_DIR_', \`${sendmail.cf}/')`,
    `include(\`${sendmail.cf}/m4/cf.m4')`,
    "OSTYPE(`linux')",
    ...Object.entries(defines).map(([name, value]) => `define(\`${name}', \`${value}')`),
    "undefine(`CF_LOCAL_HOSTS')",
    "FEATURE(`no_default_msa')",
    "FEATURE(`nocanonify')",
    "FEATURE(`promiscuous_relay')",
    "FEATURE(`accept_unresolvable_domains')",
    ...filters,
    ...daemons,
    "MAILER(`smtp')",
    options.mc ?? "",
    "",
  ].join("\n");
}

function list(milters: SendmailMilters | undefined): readonly (string | SendmailMilter)[] {
  if (milters === undefined) return [];
  return typeof milters === "string" || "address" in milters ? [milters] : milters;
}

export class Sendmail implements AsyncDisposable {
  /** The temporary folder: sendmail.cf, queue/, hosts, traffic (all SMTP in and out). */
  readonly dir: string;
  readonly #ports: ReadonlyMap<string, number>;
  readonly #services: readonly SendmailService[];
  readonly #owned: AsyncDisposableStack;
  readonly #relays = new Map<string, Promise<number>>();
  #clients = 0;

  /** Use {@link startSendmail}. */
  constructor(
    dir: string,
    ports: ReadonlyMap<string, number>,
    services: readonly SendmailService[],
    owned: AsyncDisposableStack,
  ) {
    this.dir = dir;
    this.#ports = ports;
    this.#services = services;
    this.#owned = owned;
  }

  /** Of a service of {@link SendmailOptions}, on 127.0.0.1, or ::1 for one with `inet6`. */
  port(service = "smtp"): number {
    const port = this.#ports.get(service);
    if (port === undefined) throw new Error(`no service ${service}; there are ${[...this.#ports.keys()].join(", ")}`);
    return port;
  }

  /**
   * A port of 127.0.0.1 whose connections reach the service from a loopback address that has this host name, or none
   * (""): what XCLIENT is for Postfix. The relay closes when either side does.
   */
  async portFor(clientName: string, service = "smtp"): Promise<number> {
    const key = `${service} ${clientName}`;
    let relay = this.#relays.get(key);
    if (relay === undefined) {
      relay = this.#startRelay(clientName, service);
      this.#relays.set(key, relay);
    }
    return await relay;
  }

  async #startRelay(clientName: string, service: string): Promise<number> {
    if (this.#services.find(({ name }) => name === service)?.inet6 === true) {
      throw new Error("there is one address ::1 only");
    }
    const client = ++this.#clients;
    const localAddress = `127.1.${client >> 8}.${client & 255}`;
    if (clientName !== "") await appendFile(join(this.dir, "hosts"), `${localAddress} ${clientName}\n`);
    const port = this.port(service);
    const sockets = new Set<Socket>();
    const server = createServer((client) => {
      const upstream = connect({ host: "127.0.0.1", port, localAddress });
      for (const [from, to] of [
        [client, upstream],
        [upstream, client],
      ] as const) {
        sockets.add(from);
        from.pipe(to);
        from.on("error", () => from.destroy());
        from.on("close", () => {
          sockets.delete(from);
          to.end();
        });
      }
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", resolve);
    });
    this.#owned.defer(() => {
      server.close();
      for (const socket of sockets) socket.destroy();
    });
    return (server.address() as AddressInfo).port;
  }

  /** The ids of all messages in the queue, in quarantine or not. */
  async queue(): Promise<string[]> {
    const names = await readdir(join(this.dir, "queue"));
    return names.flatMap((name) => (/^[qh]f/.test(name) ? [name.slice(2)] : [])).sort();
  }

  /** A message that is in the queue. */
  async queued(id: string): Promise<QueuedMail> {
    const folder = join(this.dir, "queue");
    const names = await readdir(folder);
    const control = names.find((name) => name === `qf${id}` || name === `hf${id}`);
    if (control === undefined) throw new Error(`${id} is not in the queue: ${names.join(" ")}`);
    // Bytes that mean something to Sendmail itself have \xff before them.
    const text = (await readFile(join(folder, control), "latin1")).replaceAll(/\xff([^])/g, "$1");
    const body = await readFile(join(folder, `df${id}`), "latin1").catch(() => "");
    const records = text.split(/\n(?![ \t])/);
    const all = (pattern: RegExp): string[] => records.flatMap((record) => pattern.exec(record)?.[1] ?? []);
    return {
      sender: (all(/^S(.*)$/)[0] ?? "").replace(/^<(.*)>$/, "$1"),
      recipients: all(/^R[A-Z]*:(.*)$/).map((address) => address.replace(/^<(.*)>$/, "$1")),
      // Those with ?P? are for local mailboxes.
      headers: all(/^H(?!\?P\?)(?:\?.*?\?)?([^]*)$/),
      body,
      quarantine: all(/^q(.*)$/)[0],
    };
  }

  /** All SMTP in and out so far, for the eye of who looks for a mistake. */
  async traffic(): Promise<string> {
    return await readFile(join(this.dir, "traffic"), "latin1");
  }

  /** Ends all processes, then removes the folder. Doing it twice is fine. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/** Looks at the kernel's list: a connection to find out would be a session for the filters. */
async function areListening(ports: readonly number[]): Promise<boolean> {
  const tables = await Promise.all(
    ["tcp", "tcp6"].map((name) => readFile(`/proc/net/${name}`, "utf8").catch(() => "")),
  );
  const listening = new Set(
    tables.flatMap((table) => [...table.matchAll(/:([0-9A-F]{4}) [0-9A-F]+:0000 0A /g)].map(([, port]) => port!)),
  );
  return ports.every((port) => listening.has(port.toString(16).toUpperCase().padStart(4, "0")));
}

async function run(cmd: readonly string[]): Promise<string> {
  const env = { PATH: "/usr/bin:/bin", LANG: "C", LD_LIBRARY_PATH: sendmail.libraries };
  const child = Bun.spawn({ cmd: [...cmd], env, stdin: "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (exitCode !== 0) throw new Error(`${cmd.join(" ")} exited with ${exitCode}: ${stderr}`);
  return stdout;
}
