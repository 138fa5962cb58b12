/** A server in the main thread: puts its parts together, starts them, and stops them. It runs no handler and parses no mail. */
import { tmpdir } from "node:os";
import type { Log } from "../admin/log.ts";
import type { Output } from "../admin/output.ts";
import type { ListenAddress } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { Counters } from "../counters.ts";
import { toError } from "../errors.ts";
import { close, deadSocket } from "../net/libc.ts";
import { ConnectionTable } from "../shared/connection-table.ts";
import { SessionRecords } from "../shared/session-records.ts";
import { WorkerRows } from "../shared/worker-rows.ts";
import { unlessAborted } from "../within.ts";
import type { ControlFailure, ControlRequest } from "./control/control.ts";
import { ControlSocket } from "./control/control-socket.ts";
import { statusOf } from "./control/status.ts";
import { Coordinator } from "./coordinator.ts";
import { CpuShare } from "./cpu-share.ts";
import { Starvation } from "./listening/starvation.ts";
import {
  BUSY_CONNECTIONS,
  BUSY_SHARE,
  EXIT_HANDLER_MS,
  HURRIED_EXIT_HANDLER_MS,
  LISTENING_MS,
  NATIVE_MS,
} from "./policy.ts";
import { Reloader, type ReloadResult } from "./reload.ts";
import { accountFor, dropPrivileges, PrivilegeError } from "./rights/privileges.ts";
import { StateFolder, StateFolderError, StateFolderTakenError } from "./rights/state-folder.ts";
import { ServerState } from "./server-state.ts";
import { fittingConnections, workersOf } from "./sizes.ts";
import { Watchdog } from "./watchdog.ts";
import type { Generation } from "./workers/generation.ts";
import { Generations } from "./workers/generations.ts";
import { ServicesThread } from "./workers/services-thread.ts";
import { SpoolThread } from "./workers/spool-thread.ts";
import type { TaskOutput } from "./workers/tasks.ts";

export interface ServerOptions {
  readonly workerUrl: URL;
  /** See `FileWatcher`. */
  readonly watchUrl: URL;
  /** See `SpoolThread`. */
  readonly spoolUrl: URL;
  /** See `ServicesThread`. */
  readonly servicesUrl: URL;
  readonly log: Log;
  /** The output for lines that handlers print. */
  readonly prints: Output;
  /** The server cannot serve any more, and the process is to end: a supervisor starts it again. */
  onFatal(reason: string): void;
}

export class FilterServer {
  readonly #firstConfig: Config;
  readonly #log: Log;
  readonly #coordinator: Coordinator;
  readonly #reloader: Reloader;
  readonly #folder: StateFolder;
  readonly #control: ControlSocket;
  readonly #state: ServerState;
  readonly #watchdog: Watchdog;
  readonly #starvation: Starvation;
  readonly #spool: SpoolThread;
  readonly #services: ServicesThread;
  /** A descriptor of nothing: revoked descriptors become duplicates of it. Made now: later no descriptor may be left. */
  readonly #nothing = deadSocket();
  #stopped: Promise<void> | null = null;
  /** Aborted by a second signal while the server stops: sessions and `master_exit_handler` are not waited for any longer. */
  readonly #hurry = new AbortController();

  /** Nothing is bound or loaded yet: see {@link start}. */
  constructor(config: Config, options: ServerOptions) {
    const { log, onFatal, prints, servicesUrl, spoolUrl, watchUrl, workerUrl } = options;
    const nothing = this.#nothing;
    const counters = new Counters();
    const cpu = new CpuShare();
    const taskOutput: TaskOutput = (message) => {
      if (message.kind === "print") prints.push(message.text);
      else log.write(message.level, message.text, message.fields, message.of);
    };
    this.#firstConfig = config;
    this.#log = log;
    this.#folder = new StateFolder(config.server.state, config.file);
    const maxConnections = fittingConnections(config, log);
    const rows = Generations.rowsFor(workersOf(config));
    const workerRows = WorkerRows.create(rows);
    const records = SessionRecords.create(maxConnections);
    const table = ConnectionTable.create(rows, maxConnections, config.server.listen.length);
    const starvation = new Starvation(nothing, table, log);
    this.#starvation = starvation;
    this.#spool = new SpoolThread(spoolUrl, {
      folder: () => config.server.spool ?? this.#spoolFolder(),
      starting: () => starvation.release(),
      log: (level, text) => log.write(level, text),
    });
    this.#services = new ServicesThread(servicesUrl, {
      dns: config.dns,
      store: config.store,
      folder: () => this.#folder.need(),
      starting: () => starvation.release(),
      dropped: (count) => counters.count("valuesDropped", count),
      log: (level, text) => log.write(level, text),
    });
    const coordinator = new Coordinator(
      {
        workerUrl,
        config,
        workerRows,
        records,
        table,
        starvation,
        spool: this.#spool,
        services: this.#services,
        counters,
        log,
        nothing,
      },
      { sources: () => this.#reloader.watch(), print: (text) => prints.push(text) },
    );
    this.#coordinator = coordinator;
    const { generations } = coordinator;
    this.#reloader = new Reloader(
      { workerUrl, watchUrl, config, log, generations, starvation, taskOutput },
      {
        serves: (served) => coordinator.serves(served),
        isBusy: () => cpu.share > BUSY_SHARE && table.total >= BUSY_CONNECTIONS,
      },
    );
    const reloader = this.#reloader;
    this.#state = new ServerState({ coordinator, reloader, counters, log, prints, state: this.#folder.path });
    this.#control = new ControlSocket(
      config.server.control,
      (request) => this.#answer(request),
      (level, text, of) => log.write(level, text, {}, of),
    );
    const watched = { coordinator, reloader, control: this.#control, starvation, state: this.#state, cpu };
    this.#watchdog = new Watchdog(watched, (reason) => onFatal(reason));
  }

  /**
   * Binds, gives up root if so configured, loads the handlers and serves. Connections that arrive meanwhile wait, and get the
   * fallback if that takes long. Also throws if the server is stopped meanwhile.
   * @throws ListenError, PrivilegeError, StateFolderTakenError, LoadError; nothing is left then
   */
  async start(): Promise<void> {
    try {
      await this.#reloader.during(this.#start(this.#firstConfig));
    } catch (error) {
      await this.stop();
      throw error;
    }
    await this.generation.listening(LISTENING_MS);
  }

  async #start(config: Config): Promise<void> {
    const { group, user } = config.server;
    const { abandoned } = this.#reloader;
    // The addresses first: of two servers that start at once, the server that gets them gets the control socket as well.
    await unlessAborted(this.#coordinator.listeningSockets.open(config.server), abandoned);
    this.#openFolder({ user, group });
    await unlessAborted(this.#control.open(), abandoned);
    if (user !== null || group !== null) dropPrivileges({ user, group });
    await this.#reloader.load(config, 0);
  }

  /**
   * Claims the state folder for this server, if it exists. If not, it is made when something needs it.
   * @throws StateFolderTakenError, PrivilegeError
   */
  #openFolder(becomes: Pick<Config["server"], "user" | "group">): void {
    if (!this.#folder.isThere) return;
    try {
      this.#folder.need(accountFor(becomes));
    } catch (error) {
      if (error instanceof StateFolderTakenError || error instanceof PrivilegeError) throw error;
      this.#log.write("warn", `${toError(error).message}; what needs it does not work`);
    }
  }

  /** The state folder, which it is made for; without it the system's folder for temporary files. */
  #spoolFolder(): string {
    try {
      return this.#folder.need();
    } catch (error) {
      if (!(error instanceof StateFolderError)) throw error;
      this.#log.write("notice", `${error.message}; large bodies are spilled to ${tmpdir()}`);
      return tmpdir();
    }
  }

  /** Where it listens, with the ports that the kernel chose. */
  get addresses(): ListenAddress[] {
    return this.#state.addresses;
  }

  get connections(): number {
    return this.#state.connections;
  }

  /** The current generation. Must not be read while {@link isStarting}. */
  get generation(): Generation {
    return this.#state.generation;
  }

  /** The first generation is not loaded yet: connections wait, or get the fallback. */
  get isStarting(): boolean {
    return this.#state.isStarting;
  }

  /** See `Reloader.reload`. */
  reload(): Promise<ReloadResult> {
    return this.#reloader.reload();
  }

  #answer({ command, config }: ControlRequest): Promise<object> | object {
    if (config !== undefined && !this.#reloader.runs(config)) {
      const failure: ControlFailure = {
        error: "this server runs another configuration",
        runs: this.#reloader.config.file,
      };
      return failure;
    }
    return command === "status" ? statusOf(this.#state) : this.reload();
  }

  /**
   * Accepts no more, lets open sessions end within `stop_timeout`, runs `master_exit_handler`. A start or a reload that is
   * under way is abandoned; a server that was not ready has no sessions to wait for, and runs no handler.
   */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    this.#state.isStopping = true;
    this.#coordinator.stop();
    // In this order: a server that takes over the address finds no control socket in its way.
    this.#control.close();
    this.#coordinator.listeningSockets.close();
    await this.#reloader.stop();
    const wasReady = !this.isStarting;
    const { stopTimeoutMs } = this.#reloader.config.server;
    await this.#coordinator.generations.stop(wasReady && !this.#hurry.signal.aborted ? stopTimeoutMs : 0);
    this.#watchdog.stop();
    this.#spool.close();
    this.#services.close();
    this.#starvation.close();
    close(this.#nothing);
    if (wasReady) await this.#callExitHandler();
    this.#folder.close();
    await this.#reloader.close();
  }

  async #callExitHandler(): Promise<void> {
    const { signal } = this.#hurry;
    const limits = signal.aborted ? { timeoutMs: HURRIED_EXIT_HANDLER_MS } : { timeoutMs: EXIT_HANDLER_MS, signal };
    try {
      await this.#reloader.callExitHandler(limits);
    } catch (error) {
      this.#log.write("error", `master_exit_handler: ${toError(error).message}`);
    }
  }

  /** While the server stops: it waits no longer. */
  cut(): void {
    this.#hurry.abort(new Error("not finished at the second signal"));
    this.#coordinator.generations.cut(NATIVE_MS);
  }
}
