/**
 * The main thread: binds, accepts, holds its own copy of each connection, places a duplicate with a worker, and stops.
 * It runs no handler and parses no mail.
 */
import { BlockList } from "node:net";
import { availableParallelism } from "node:os";
import type { Log } from "../admin/log.ts";
import type { Output } from "../admin/output.ts";
import { formatAddress, type ListenAddress, type Network } from "../config/address.ts";
import type { Config } from "../config/config.ts";
import { Ledger } from "../ledger.ts";
import type { ChainSummary, PeerName } from "../worker/messages.ts";
import { connectionsThatFit, descriptorLimit } from "./descriptors.ts";
import { Generation } from "./generation.ts";
import { dup } from "./libc.ts";
import { type AcceptedSocket, listen, type Listener } from "./listener.ts";
import { dropPrivileges, resolveGroup, resolveUser } from "./privileges.ts";
import { callHandler, EXIT_HANDLER_TIMEOUT_MS, LOAD_TIMEOUT_MS, type TaskOutput } from "./tasks.ts";

export interface ServerOptions {
  readonly workerUrl: URL;
  readonly log: Log;
  /** Where what handlers print goes. */
  readonly prints: Output;
}

/** The main thread's hold on a connection: paused, it reads nothing and keeps the peer's session alive. */
interface Held {
  readonly socket: AcceptedSocket;
  readonly peer: PeerName;
}

export class FilterServer {
  readonly #config: Config;
  readonly #options: ServerOptions;
  readonly #ledger: Ledger;
  readonly #maxConnections: number;
  /** By slot. */
  readonly #held: (Held | undefined)[] = [];
  readonly #freeSlots: number[] = [];
  readonly #allowed: BlockList | null;
  #connections = 0;
  #listeners: Listener[] = [];
  #generation: Generation | null = null;
  /** Accepted before the handlers were loaded. */
  #early: number[] = [];
  #isFull = false;
  #isStopping = false;

  private constructor(config: Config, options: ServerOptions, maxConnections: number, workers: number) {
    this.#config = config;
    this.#options = options;
    this.#maxConnections = maxConnections;
    this.#ledger = Ledger.create(workers, maxConnections);
    this.#allowed = config.server.allow === null ? null : blockList(config.server.allow);
  }

  /**
   * Binds, gives up root if so configured, loads the handlers and serves. Connections that come meanwhile wait.
   * @throws ListenError, PrivilegeError, LoadError
   */
  static async start(config: Config, options: ServerOptions): Promise<{ server: FilterServer; summary: ChainSummary }> {
    const { log } = options;
    const wanted = config.server.maxConnections;
    const maxConnections = connectionsThatFit(wanted, descriptorLimit());
    if (maxConnections < wanted) {
      log.write(
        "warn",
        `server.max_connections is lowered from ${wanted} to ${maxConnections}: the limit of open files is ${descriptorLimit()} and each takes two`,
      );
    }
    const workers = config.server.workers === "auto" ? availableParallelism() : config.server.workers;
    const server = new FilterServer(config, options, maxConnections, workers);
    try {
      await server.#listen();
      if (config.server.user !== null || config.server.group !== null) {
        dropPrivileges({ user: config.server.user, group: config.server.group });
      }
      if (config.handler.postconfig !== null) {
        await callHandler(options.workerUrl, config.handler.postconfig, LOAD_TIMEOUT_MS, server.#taskOutput);
      }
      const { generation, summary } = await Generation.start(options.workerUrl, config, workers, server.#ledger, {
        log: (level, text, fields) => log.write(level, text, fields),
        print: (text) => options.prints.push(text),
        closed: (slot) => server.#release(slot),
      });
      server.#generation = generation;
      for (const slot of server.#early.splice(0)) server.#place(slot);
      return { server, summary };
    } catch (error) {
      server.#closeListeners();
      for (const held of server.#held) held?.socket.end();
      throw error;
    }
  }

  /** Where it listens, with the ports that the kernel chose. */
  get addresses(): ListenAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  get connections(): number {
    return this.#connections;
  }

  /** Connections by worker. */
  get loads(): number[] {
    return this.#generation?.loads ?? [];
  }

  /** Accepts no more, lets open sessions end within `stop_timeout`, runs `master_exit_handler`. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.#closeListeners();
    await this.#generation?.end(this.#config.server.stopTimeoutMs);
    const { masterExit } = this.#config.handler;
    if (masterExit === null) return;
    try {
      await callHandler(this.#options.workerUrl, masterExit, EXIT_HANDLER_TIMEOUT_MS, this.#taskOutput);
    } catch (error) {
      this.#options.log.write(
        "error",
        `master_exit_handler: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }

  /** While it stops: waits no longer. */
  cut(): void {
    this.#generation?.cut();
  }

  readonly #taskOutput: TaskOutput = (message) => {
    if (message.kind === "print") this.#options.prints.push(message.text);
    else this.#options.log.write(message.level, message.text, message.fields);
  };

  async #listen(): Promise<void> {
    const { server } = this.#config;
    const user = server.socketUser === null ? null : resolveUser(server.socketUser);
    const group = server.socketGroup === null ? null : resolveGroup(server.socketGroup);
    for (const address of server.listen) {
      const listener: Listener = await listen(address, {
        mode: server.socketMode,
        uid: user?.uid ?? null,
        gid: group,
        backlog: server.listenBacklog,
        onConnection: (socket) => this.#accept(socket, address),
        onError: (error) => this.#options.log.write("error", `${formatAddress(address)}: ${error.message}`),
      });
      this.#listeners.push(listener);
    }
  }

  #closeListeners(): void {
    for (const listener of this.#listeners) listener.close({ unlink: true });
  }

  #accept(socket: AcceptedSocket, address: ListenAddress): void {
    if (this.#isStopping) {
      socket.end();
      return;
    }
    const peer = peerName(socket, address);
    if (this.#allowed !== null && address.kind !== "unix" && !isAllowed(this.#allowed, socket.remoteAddress)) {
      this.#options.log.write("warn", `${peer}: not in server.allow, connection refused`);
      socket.end();
      return;
    }
    const slot = this.#freeSlots.pop() ?? this.#held.length;
    this.#held[slot] = { socket, peer };
    this.#connections += 1;
    socket.data = { closed: () => this.#lost(slot, socket) };
    if (this.#connections >= this.#maxConnections) this.#pause();
    if (this.#generation === null) this.#early.push(slot);
    else this.#place(slot);
  }

  #place(slot: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    try {
      const descriptor = dup(held.socket.fd);
      if (this.#generation!.place(slot, descriptor, held.peer)) return;
      throw new Error("no worker can take it");
    } catch (error) {
      this.#options.log.write(
        "error",
        `${held.peer}: connection refused: ${error instanceof Error ? error.message : String(error)}`,
      );
      this.#release(slot);
    }
  }

  /** A reset reached the main thread's copy. The worker sees it too and reports; before there is one, this is all. */
  #lost(slot: number, socket: AcceptedSocket): void {
    if (this.#generation === null && this.#held[slot]?.socket === socket) this.#release(slot);
  }

  /** Ends the main thread's copy of a connection. */
  #release(slot: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    this.#held[slot] = undefined;
    this.#freeSlots.push(slot);
    this.#connections -= 1;
    held.socket.end();
    if (this.#isFull && this.#connections < this.#maxConnections) this.#resume();
  }

  #pause(): void {
    if (this.#isFull) return;
    this.#isFull = true;
    this.#options.log.write("warn", `${this.#connections} connections (server.max_connections): further ones wait`);
    for (const listener of this.#listeners) listener.pause();
  }

  #resume(): void {
    this.#isFull = false;
    if (this.#isStopping) return;
    for (const listener of this.#listeners) {
      try {
        listener.resume();
      } catch (error) {
        // Still paused: the next connection that ends tries again.
        this.#isFull = true;
        this.#options.log.write(
          "error",
          `${formatAddress(listener.address)}: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
  }
}

function peerName(socket: AcceptedSocket, address: ListenAddress): PeerName {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined || remotePort === undefined) return formatAddress(address);
  return formatAddress({
    kind: "tcp",
    host: remoteAddress,
    port: remotePort,
    family: remoteAddress.includes(":") ? 6 : 4,
  });
}

function blockList(networks: readonly Network[]): BlockList {
  const list = new BlockList();
  for (const { address, prefix, family } of networks) list.addSubnet(address, prefix, family === 4 ? "ipv4" : "ipv6");
  return list;
}

/** An inherited socket may be of both families: an IPv4 client then comes as `::ffff:192.0.2.1`. */
function isAllowed(allowed: BlockList, remote: string | undefined): boolean {
  if (remote === undefined) return true;
  const address = remote.replace(/^::ffff:(?=\d+\.)/i, "");
  return allowed.check(address, address.includes(":") ? "ipv6" : "ipv4");
}
