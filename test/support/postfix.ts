/**
 * A private Postfix (3.4 or newer, Linux, run by root) in a temporary folder: its own configuration, queue, log and
 * ports, so several can run at once beside the system's own, which is never touched. Not a model of a production
 * set-up: it listens on loopback, relays for everybody, looks nothing up in DNS and drops the notices it would send.
 *
 * The master daemon is run directly, as a child, and not with `postfix start`: its end is then an event and not a
 * guess by process id, and a start takes a fraction of a second.
 *
 * A milter on a Unix socket must be reachable by Postfix's user: folders with mode 755 on the way (as `tempDir` makes
 * them) and mode 666 on the socket, since connecting needs write permission.
 */
import { mkdir, readdir, readFile, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { outsideTool } from "./available.ts";
import { freePorts, tempDir, waitFor, type WaitOptions } from "./temp.ts";

/** For `describeWith(postfixTool, …)`. */
export const postfixTool = outsideTool("postfix", {
  paths: ["/usr/sbin/postfix", "/usr/local/sbin/postfix"],
  needsRoot: true,
});

/** As in smtpd_milters, `{ inet:host:port, default_action=accept }` included; a Unix path is absolute. */
export type Milters = string | readonly string[];

export interface PostfixService {
  /** Selects the port, and shows in the log as `postfix/NAME/smtpd`. */
  readonly name: string;
  /** Default: smtpd_milters of main.cf, which is none unless `mainCf` has it. */
  readonly milters?: Milters;
  /** Keep its messages in the queue, in state hold, instead of delivering them: see `heldMessage`. */
  readonly hold?: boolean;
  /** Parameters of main.cf that differ in this service's smtpd; header_checks and the like are cleanup's, which is shared. */
  readonly options?: Readonly<Record<string, string>>;
  /** Its smtpd runs chrooted to the queue folder, as Debian's does; a milter's path is then one below that folder. */
  readonly chroot?: boolean;
}

export interface PostfixOptions {
  /** Of the service "smtp", which is always there. */
  readonly milters?: Milters;
  /** Of the service "smtp". */
  readonly hold?: boolean;
  /** Of the service "smtp", and of cleanup, which Debian has chrooted too. */
  readonly chroot?: boolean;
  /** Further smtpd services, each with a port of its own. */
  readonly services?: readonly PostfixService[];
  /** For mail that comes by `submit`. */
  readonly nonSmtpdMilters?: Milters;
  /** Where all mail is delivered by SMTP (127.0.0.1); without it, mail is discarded. */
  readonly sinkPort?: number;
  /** What a failing milter means, default tempfail. */
  readonly milterDefaultAction?: "accept" | "reject" | "tempfail" | "quarantine";
  /** The connect, command and content timeout for milters, seconds, default 20. */
  readonly milterTimeoutSeconds?: number;
  /** Its own folder, and so its queue, is made below this one; default the system's temporary folder. */
  readonly below?: string;
  /** Overrides anything in main.cf. */
  readonly mainCf?: Readonly<Record<string, string>>;
}

export interface SubmitOptions {
  readonly from: string;
  readonly to: string | readonly string[];
  /** With LF or CRLF lines; a string is UTF-8. */
  readonly message: string | Uint8Array;
}

export interface SubmitResult {
  /** Of sysexits.h: 0 means queued. */
  readonly exitCode: number;
  readonly stderr: string;
}

export interface QueuedMessage {
  readonly id: string;
  /** incoming, active, deferred, hold, maildrop. */
  readonly queue: string;
  readonly sizeBytes: number;
  /** "MAILER-DAEMON" is how Postfix prints the null sender. */
  readonly sender: string;
  readonly recipients: readonly { readonly address: string; readonly delayReason: string | undefined }[];
}

export interface HeldMessage {
  /** "" is the null sender. */
  readonly sender: string;
  readonly recipients: readonly string[];
  /** Headers (Postfix's own Received among them) and body, with LF lines, one character per byte. */
  readonly content: string;
}

/** The queue id in smtpd's reply to an accepted message. */
export function queueIdOf(reply: { readonly text: string }): string {
  const id = /queued as ([0-9A-Za-z]+)/.exec(reply.text)?.[1];
  if (id === undefined) throw new Error(`no queue id in ${JSON.stringify(reply.text)}`);
  return id;
}

/** Starts Postfix and returns once it listens. On dispose all its processes end and its folder goes. */
export async function startPostfix(options: PostfixOptions = {}): Promise<Postfix> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(options);
    } catch (error) {
      if (!(error instanceof PortTakenError) || attempt === 3) throw error;
    }
  }
}

/** Somebody else took a port between our looking and the daemon's bind: see freePort. */
class PortTakenError extends Error {
  override readonly name = "PortTakenError";
}

async function startOnce(options: PostfixOptions): Promise<Postfix> {
  await using stack = new AsyncDisposableStack();
  const { path: dir } = stack.use(await tempDir("postfix", options.below));
  const site = await siteDefaults();
  const services: PostfixService[] = [
    {
      name: "smtp",
      ...(options.milters !== undefined && { milters: options.milters }),
      ...(options.hold !== undefined && { hold: options.hold }),
      ...(options.chroot !== undefined && { chroot: options.chroot }),
    },
    ...(options.services ?? []),
  ];
  const ports = await freePorts(services.length);
  const portOf = new Map(services.map(({ name }, index) => [name, ports[index]!]));
  if (portOf.size !== services.length) throw new Error("two services with one name");

  const etc = join(dir, "etc");
  await mkdir(etc);
  await Promise.all([
    writeFile(join(etc, "main.cf"), mainCf(dir, options)),
    writeFile(join(etc, "master.cf"), masterCf(services, portOf, options.chroot ?? false)),
    makeQueue(dir, site),
  ]);
  // Each program of Postfix reads main.cf again and again until it is two seconds old, in case it is being written.
  const minuteAgo = new Date(Date.now() - 60_000);
  await utimes(join(etc, "main.cf"), minuteAgo, minuteAgo);

  const master = Bun.spawn({
    // -e: should this process be killed before it can dispose of Postfix, Postfix ends by itself after an hour.
    cmd: [join(site.daemonDirectory, "master"), "-c", etc, "-e", "3600"],
    cwd: dir,
    env: { PATH: "/usr/bin:/bin:/usr/sbin:/sbin", LANG: "C" },
    stdio: ["ignore", "ignore", "ignore"],
  });
  stack.defer(() => stopMaster(master));
  const postfix = new Postfix({ dir, site, master, portOf });
  await waitFor(
    async () => {
      const log = await postfix.log();
      if (/master\[\d+\]: daemon started/.test(log)) return true;
      if (master.exitCode === null && master.signalCode === null && !log.includes("fatal:")) return false;
      // Until postlogd runs, master tells syslog only; another program says what is wrong with main.cf to its stderr.
      const { stderr } = await run([join(site.commandDirectory, "postqueue"), "-c", etc, "-p"]);
      const why = `Postfix in ${dir} did not start (exit code ${master.exitCode}):\n${log}${stderr}`;
      throw ports.some(isTaken) ? new PortTakenError(why) : new Error(why);
    },
    { what: "Postfix to start", intervalMs: 5 },
  );
  postfix.own(stack.move());
  return postfix;
}

function isTaken(port: number): boolean {
  try {
    Bun.listen({ hostname: "127.0.0.1", port, socket: { data() {} } }).stop(true);
    return false;
  } catch {
    return true;
  }
}

interface Parts {
  readonly dir: string;
  readonly site: SiteDefaults;
  readonly master: Bun.Subprocess;
  readonly portOf: ReadonlyMap<string, number>;
}

export class Postfix implements AsyncDisposable {
  /** The temporary folder: etc/, spool/, data/, maillog. */
  readonly dir: string;
  readonly #parts: Parts;
  #owned: AsyncDisposableStack | undefined;

  /** Use {@link startPostfix}. */
  constructor(parts: Parts) {
    this.dir = parts.dir;
    this.#parts = parts;
  }

  own(stack: AsyncDisposableStack): void {
    this.#owned = stack;
  }

  /** On 127.0.0.1, of a service of {@link PostfixOptions}. */
  port(name = "smtp"): number {
    const port = this.#parts.portOf.get(name);
    if (port === undefined)
      throw new Error(`no service ${name}; there are ${[...this.#parts.portOf.keys()].join(", ")}`);
    return port;
  }

  /** The living processes of this instance, master's first. */
  async pids(): Promise<number[]> {
    return await processGroup(this.#parts.master.pid);
  }

  /**
   * Hands a message to the sendmail command, whose mail goes through `nonSmtpdMilters`. sendmail runs postdrop, which is
   * set-gid and takes another configuration folder only from root, or if the system's own main.cf lists it in
   * alternate_config_directories; here it is root. Our maildrop folder must belong to Postfix's user (pickup reads and
   * removes there without privileges), its group, and that of public, is as in a system queue.
   */
  async submit({ from, to, message }: SubmitOptions): Promise<SubmitResult> {
    const { site } = this.#parts;
    const recipients = typeof to === "string" ? [to] : to;
    const { exitCode, stderr } = await run(
      [site.sendmailPath, "-C", join(this.dir, "etc"), "-i", "-f", from, "--", ...recipients],
      typeof message === "string" ? Buffer.from(message) : message,
    );
    return { exitCode, stderr };
  }

  /** All messages in the queue, in any state. */
  async queue(): Promise<QueuedMessage[]> {
    const out = await this.#command("postqueue", "-j");
    const lines = out.split("\n").filter((line) => line !== "");
    return lines.map((line) => toQueuedMessage(JSON.parse(line)));
  }

  /** What `postcat -q` prints of a queued message: envelope records, headers and body. One character per byte. */
  async postcat(id: string): Promise<string> {
    return await this.#command("postcat", "-q", id);
  }

  /** A message that was held (by a service with `hold`, or by a milter's quarantine), as it is after the milters. */
  async heldMessage(id: string): Promise<HeldMessage> {
    const [envelope, content] = await Promise.all([
      this.#command("postcat", "-e", "-q", id),
      this.#command("postcat", "-h", "-b", "-q", id),
    ]);
    if (!envelope.includes("ENVELOPE RECORDS hold/")) throw new Error(`${id} is not on hold:\n${envelope}`);
    const sender = /^sender: (.*)$/m.exec(envelope)?.[1];
    if (sender === undefined) throw new Error(`${id} has no sender:\n${envelope}`);
    const recipients = [...envelope.matchAll(/^recipient: (.*)$/gm)].map((match) => match[1]!);
    return { sender, recipients, content };
  }

  /** Tries everything in the deferred queue again. */
  async flush(): Promise<void> {
    await this.#command("postqueue", "-f");
  }

  /** The maillog so far; "" before the first line. */
  async log(): Promise<string> {
    try {
      return await readFile(join(this.dir, "maillog"), "utf8");
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return "";
      throw error;
    }
  }

  /** The first match of `pattern` in the maillog, from its beginning. */
  async waitForLog(pattern: RegExp, options: Partial<WaitOptions> = {}): Promise<RegExpMatchArray> {
    try {
      return await waitFor(async () => (await this.log()).match(pattern), {
        what: `${pattern} in the maillog`,
        ...options,
      });
    } catch (error) {
      throw new Error(`${String(error)}; the maillog is\n${await this.log()}`, { cause: error });
    }
  }

  /** Ends all processes, then removes the folder. Doing it twice is fine. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned?.disposeAsync();
  }

  async #command(program: "postqueue" | "postcat", ...args: string[]): Promise<string> {
    const path = join(this.#parts.site.commandDirectory, program);
    const { exitCode, stdout, stderr } = await run([path, "-c", join(this.dir, "etc"), ...args]);
    if (exitCode !== 0) throw new Error(`${program} ${args.join(" ")} exited with ${exitCode}: ${stderr}`);
    return stdout;
  }
}

/** The parameters of main.cf. mynetworks is everybody since XCLIENT may give a session any address. */
function mainCf(dir: string, options: PostfixOptions): string {
  const timeout = `${options.milterTimeoutSeconds ?? 20}s`;
  const transport = options.sinkPort === undefined ? "discard:" : `smtp:[127.0.0.1]:${options.sinkPort}`;
  const parameters: Record<string, string> = {
    compatibility_level: "3.6",
    queue_directory: join(dir, "spool"),
    data_directory: join(dir, "data"),
    maillog_file: join(dir, "maillog"),
    maillog_file_prefixes: dir,

    myhostname: "mx.example.test",
    mydestination: "",
    inet_interfaces: "127.0.0.1",
    // Not "ipv4", which would make smtpd refuse XCLIENT with an IPv6 address.
    inet_protocols: "all",
    mynetworks: "0.0.0.0/0, [::]/0",
    alias_maps: "",
    alias_database: "",
    local_recipient_maps: "",
    // Headers of mail by SMTP stay as they are, as for mail from another host: no Date, no Message-Id is added.
    local_header_rewrite_clients: "",

    smtpd_peername_lookup: "no",
    smtpd_relay_restrictions: "permit_mynetworks, reject",
    smtpd_recipient_restrictions: "permit_mynetworks, reject",
    smtpd_authorized_xclient_hosts: "127.0.0.1",
    smtpd_client_connection_count_limit: "0",
    smtpd_error_sleep_time: "0",
    smtpd_soft_error_limit: "1000",
    smtpd_hard_error_limit: "1000",
    in_flow_delay: "0",
    // The default is 10 MB.
    message_size_limit: "51200000",

    smtpd_milters: "",
    non_smtpd_milters: miltersText(options.nonSmtpdMilters),
    milter_protocol: "6",
    milter_default_action: options.milterDefaultAction ?? "tempfail",
    milter_connect_timeout: timeout,
    milter_command_timeout: timeout,
    milter_content_timeout: timeout,

    default_transport: transport,
    local_transport: transport,
    relay_transport: transport,
    smtp_dns_support_level: "disabled",
    smtp_tls_security_level: "none",
    smtp_connection_cache_on_demand: "no",
    // The sink gets lines of any length as they are; the default folds them at 998.
    smtp_line_length_limit: "0",

    notify_classes: "",
    ...options.mainCf,
  };
  return lines(Object.entries(parameters).map(([name, value]) => `${name} = ${value}`));
}

/** master.cf: nothing is chrooted unless asked for, so a milter's path is the one of the file system. */
function masterCf(
  services: readonly PostfixService[],
  portOf: ReadonlyMap<string, number>,
  isCleanupChrooted: boolean,
): string {
  const yesNo = (isChrooted: boolean): string => (isChrooted ? "y" : "n");
  const smtpd = services.map(({ name, milters, hold, options, chroot = false }) => {
    const parameters: Record<string, string> = {
      syslog_name: `postfix/${name}`,
      ...(milters !== undefined && { smtpd_milters: miltersText(milters) }),
      ...(hold === true && { cleanup_service_name: "cleanup-hold" }),
      ...options,
    };
    return `127.0.0.1:${portOf.get(name)} inet n - ${yesNo(chroot)} - - smtpd${overrides(parameters)}`;
  });
  // Non-delivery notices would go out by the same transport, be refused there too, and come again. A cleanup of their
  // own drops them; header_checks see mail of Postfix's own making only with internal_mail_filter_classes.
  const notices = overrides({ cleanup_service_name: "cleanup-drop", internal_mail_filter_classes: "bounce, notify" });
  return lines([
    ...smtpd,
    "pickup unix n - n 60 1 pickup",
    `cleanup unix n - ${yesNo(isCleanupChrooted)} - 0 cleanup`,
    `cleanup-hold unix n - n - 0 cleanup${overrides({ header_checks: "static:HOLD" })}`,
    `cleanup-drop unix n - n - 0 cleanup${overrides({ header_checks: "static:DISCARD", non_smtpd_milters: "" })}`,
    "qmgr unix n - n 300 1 qmgr",
    "rewrite unix - - n - - trivial-rewrite",
    `bounce unix - - n - 0 bounce${notices}`,
    `defer unix - - n - 0 bounce${notices}`,
    `trace unix - - n - 0 bounce${notices}`,
    "verify unix - - n - 1 verify",
    "flush unix n - n 1000? 0 flush",
    "proxymap unix - - n - - proxymap",
    "smtp unix - - n - - smtp",
    "showq unix n - n - - showq",
    "error unix - - n - - error",
    "retry unix - - n - - error",
    "discard unix - - n - - discard",
    "anvil unix - - n - 1 anvil",
    "tlsmgr unix - - n 1000? 1 tlsmgr",
    "postlog unix-dgram n - n - 1 postlogd",
  ]);
}

function miltersText(milters: Milters = []): string {
  return typeof milters === "string" ? milters : milters.join(", ");
}

/** The form with braces, since a milter with settings of its own has spaces and braces. */
function overrides(parameters: Record<string, string>): string {
  return Object.entries(parameters)
    .map(([name, value]) => ` -o { ${name} = ${value} }`)
    .join("");
}

function lines(all: readonly string[]): string {
  const broken = all.find((line) => /[\r\n]/.test(line));
  if (broken !== undefined) throw new Error(`a parameter has one line: ${JSON.stringify(broken)}`);
  return `${all.join("\n")}\n`;
}

/** Where this machine's Postfix has its programs, and its users. */
interface SiteDefaults {
  readonly daemonDirectory: string;
  readonly commandDirectory: string;
  readonly sendmailPath: string;
  readonly mailOwner: string;
  readonly setgidGroup: string;
}

let known: Promise<SiteDefaults> | undefined;

/** The defaults that were compiled in: facts of the machine, read once. */
async function siteDefaults(): Promise<SiteDefaults> {
  known ??= (async () => {
    const names = ["daemon_directory", "command_directory", "sendmail_path", "mail_owner", "setgid_group"];
    const postconf = outsideTool("postconf", { paths: ["/usr/sbin/postconf", "/usr/local/sbin/postconf"] });
    if (!postconf.available) throw new Error(postconf.reason);
    const { exitCode, stdout, stderr } = await run([postconf.path, "-d", "-h", ...names]);
    const values = stdout.trimEnd().split("\n");
    if (exitCode !== 0 || values.length !== names.length) throw new Error(`postconf -d: ${stderr}${stdout}`);
    const [daemonDirectory = "", commandDirectory = "", sendmailPath = "", mailOwner = "", setgidGroup = ""] = values;
    return { daemonDirectory, commandDirectory, sendmailPath, mailOwner, setgidGroup };
  })();
  return await known;
}

/** The folders that `postfix check` would make, with the owners and modes of Postfix's own list, postfix-files. */
async function makeQueue(dir: string, { mailOwner, setgidGroup }: SiteDefaults): Promise<void> {
  const spool = join(dir, "spool");
  const queues = ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "saved", "trace"];
  const owned = [join(dir, "data"), ...[...queues, "private"].map((name) => join(spool, name))];
  const install = ["install", "-d", "-o", mailOwner];
  await mkdir(join(spool, "pid"), { recursive: true });
  const results = await Promise.all([
    run([...install, "-m", "700", ...owned]),
    run([...install, "-g", setgidGroup, "-m", "730", join(spool, "maildrop")]),
    run([...install, "-g", setgidGroup, "-m", "710", join(spool, "public")]),
  ]);
  const failed = results.find((result) => result.exitCode !== 0);
  if (failed !== undefined) throw new Error(`cannot make the queue: ${failed.stderr}`);
}

/**
 * SIGTERM to the master, which passes it on to its process group; then waits for master (an event) and for the others
 * (no children of ours, so no event). A daemon that meets a fatal error meanwhile would sleep a second before it ends;
 * nothing here is worth waiting for, so what is left after a quarter of a second is killed, each by its own id.
 */
async function stopMaster(master: Bun.Subprocess): Promise<void> {
  master.kill("SIGTERM");
  const forced = setTimeout(() => master.kill("SIGKILL"), 5_000);
  await master.exited;
  clearTimeout(forced);
  const patienceEnds = performance.now() + 250;
  await waitFor(
    async () => {
      const left = await processGroup(master.pid);
      if (performance.now() > patienceEnds) for (const pid of left) killIfThere(pid);
      return left.length === 0;
    },
    { what: `the daemons of Postfix ${master.pid} to end`, intervalMs: 5 },
  );
}

/**
 * The processes whose group `leader` leads, itself first. Zombies do not count: where process 1 is no real init, as in
 * some containers, orphans that ended stay zombies for ever.
 */
async function processGroup(leader: number): Promise<number[]> {
  const all = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    all.map(async (pid) => {
      const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
      // "PID (NAME) STATE PARENT GROUP …", where the name may contain anything.
      const [state, , group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      return Number(group) === leader && state !== "Z" && state !== "X" ? [Number(pid)] : [];
    }),
  );
  return found.flat().toSorted((a, b) => Number(b === leader) - Number(a === leader) || a - b);
}

function killIfThere(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ESRCH")) throw error;
  }
}

interface RunResult {
  readonly exitCode: number;
  /** One character per byte. */
  readonly stdout: string;
  readonly stderr: string;
}

async function run(cmd: string[], stdin?: Uint8Array): Promise<RunResult> {
  const child = Bun.spawn({ cmd, stdin: stdin ?? "ignore", stdout: "pipe", stderr: "pipe" });
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.bytes(), child.stderr.text(), child.exited]);
  return { exitCode, stdout: Buffer.from(stdout).toString("latin1"), stderr };
}

/** A line of `postqueue -j`, see postqueue(1). */
function toQueuedMessage(line: unknown): QueuedMessage {
  const message = record(line);
  const recipients = message["recipients"];
  if (!Array.isArray(recipients)) throw new Error(`postqueue -j without recipients: ${JSON.stringify(line)}`);
  return {
    id: String(message["queue_id"]),
    queue: String(message["queue_name"]),
    sizeBytes: Number(message["message_size"]),
    sender: String(message["sender"]),
    recipients: recipients.map((each) => {
      const { address, delay_reason: reason } = record(each);
      return { address: String(address), delayReason: reason === undefined ? undefined : String(reason) };
    }),
  };
}

function record(value: unknown): Record<string, unknown> {
  if (typeof value !== "object" || value === null) throw new Error(`not an object: ${JSON.stringify(value)}`);
  return value as Record<string, unknown>;
}
