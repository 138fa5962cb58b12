/**
 * The listening sockets. The workers of the current generation accept connections by them if they can, else this thread
 * does. While there is no room neither does. Accepted connections are given to the host.
 */
import type { LogFields } from "../../admin/log.ts";
import type { LogLevel } from "../../admin/log-level.ts";
import { RecurringState, timesInWords } from "../../admin/recurring-state.ts";
import { formatAddress, type ListenAddress } from "../../config/address.ts";
import type { Config } from "../../config/config.ts";
import { replaceDescriptor } from "../../net/libc.ts";
import { type PeerName, peerName } from "../../net/peer.ts";
import type { ConnectionTable } from "../../shared/connection-table.ts";
import type { Generations } from "../workers/generations.ts";
import { toError } from "../../errors.ts";
import { type SharedListener, openListener } from "./listener.ts";
import { resolveGroup, resolveUser } from "../rights/privileges.ts";

const NOT_ACCEPTED = "a connection could not be accepted";

export interface ListeningSocketsHost {
  /** @param of the kind, for lines that may come in great numbers */
  log(level: LogLevel, text: string, fields?: LogFields, of?: string): void;
  /** This thread has accepted a connection at a listening socket, of which nothing was read. @param listener its index */
  acceptedHere(descriptor: number, peer: PeerName, listener: number): void;
  /** Slots may be free: connections that were accepted while there was none come first. */
  addSurplus(): void;
}

export class ListeningSockets {
  readonly #table: ConnectionTable;
  readonly #generations: Generations;
  /** A descriptor of nothing: revoked descriptors become duplicates of it. */
  readonly #nothing: number;
  readonly #host: ListeningSocketsHost;
  #listeners: SharedListener[] = [];
  #isFull = false;
  /** The next look has to settle anew which thread accepts. */
  #isUnsettled = false;
  /** Why a listening socket could not be used when it was last tried; null if all could. */
  #failure: string | null = null;
  #isClosed = false;
  readonly #fullness = new RecurringState({
    began: () => this.#host.log("warn", `${this.#table.total} connections (${this.#limit}): further ones wait`),
    ended: (times, seconds) =>
      this.#host.log(
        "notice",
        `connections are accepted at once again: they had to wait ${timesInWords(times)}, ${seconds} s altogether`,
      ),
    now: () => performance.now(),
  });
  readonly #failing = new RecurringState({
    began: () => this.#host.log("error", `connections cannot be accepted: ${this.#failure}`),
    ended: (times) =>
      this.#host.log("notice", `connections can be accepted again: that had failed ${timesInWords(times)}`),
    now: () => performance.now(),
  });
  /** Listeners that clients do not find; as they were when it was last looked. */
  #unreachable: readonly SharedListener[] = [];

  constructor(table: ConnectionTable, generations: Generations, nothing: number, host: ListeningSocketsHost) {
    this.#table = table;
    this.#generations = generations;
    this.#nothing = nothing;
    this.#host = host;
  }

  /**
   * Binds; this thread accepts until workers can.
   * @throws ListenError, PrivilegeError
   */
  async open({
    listen: addresses,
    listenBacklog,
    socketGroup,
    socketMode,
    socketUser,
  }: Config["server"]): Promise<void> {
    const user = socketUser === null ? null : resolveUser(socketUser);
    const group = socketGroup === null ? null : resolveGroup(socketGroup);
    for (const [index, address] of addresses.entries()) {
      const name = formatAddress(address);
      const listener = await openListener(address, {
        mode: socketMode,
        uid: user?.uid ?? null,
        gid: group,
        backlog: listenBacklog,
        onConnection: (accepted) => this.#host.acceptedHere(accepted.fd, peerName(accepted, name), index),
        onError: ({ message }) => this.#host.log("error", `${name}: ${NOT_ACCEPTED}: ${message}`, {}, NOT_ACCEPTED),
      });
      if (this.#isClosed) {
        listener.close({ unlink: true });
        return;
      }
      this.#listeners.push(listener);
    }
    this.#generations.listeningSockets = this.#listeners.map(({ listeningSocket }, index) =>
      Object.assign(listeningSocket, { index, configured: formatAddress(addresses[index]!) }),
    );
  }

  /** No connection is accepted any more. */
  close(): void {
    this.#isClosed = true;
    this.settle();
    for (const listener of this.#listeners) listener.close({ unlink: true });
  }

  /** Where it listens, with the ports that the kernel chose. */
  get addresses(): ListenAddress[] {
    return this.#listeners.map((listener) => listener.address);
  }

  /** The address whose socket was closed by other code in this process; null if there is none. */
  get lost(): ListenAddress | null {
    return this.#listeners.find((listener) => !listener.isAlive())?.address ?? null;
  }

  /** Why new connections are not accepted now, null if they are. */
  get closedBecause(): string | null {
    if (this.#table.isStarved) return "no file descriptors are left";
    if (this.#failure !== null) return this.#failure;
    return this.#isFull ? `${this.#limit} is reached` : null;
  }

  /** The limit on the number of connections, in words. */
  get #limit(): string {
    const { layout, room } = this.#table;
    return room < layout.slots
      ? "the limit of file descriptors, some of which large bodies take, or threads that do not end"
      : "server.max_connections";
  }

  /** Takes the listening sockets from a lost worker, whose thread may still run for a moment. */
  revoke(row: number): void {
    const eventPoll = this.#table.eventPollOf(row);
    for (const descriptor of this.#table.listeningOf(row)) {
      // The worker may have closed it, and the number may belong to another file by now.
      if (!this.#listeners.some((listener) => listener.isOwn(descriptor))) continue;
      replaceDescriptor(this.#nothing, descriptor, eventPoll);
    }
    // Its thread gives the numbers back when it ends, and the next worker gets them.
    this.#table.forgetListening(row);
  }

  /** Addresses whose socket file was removed or replaced. */
  get unreachable(): ListenAddress[] {
    return this.#unreachable.map((listener) => listener.address);
  }

  /** To be called several times a second. */
  look(): void {
    if (this.#isUnsettled) this.settleRoom();
    this.#fullness.look();
    this.#failing.look();
    const before = this.#unreachable;
    this.#unreachable = this.#listeners.filter((listener) => !listener.isReachable());
    for (const listener of this.#unreachable) {
      if (before.includes(listener)) continue;
      const where = formatAddress(listener.address);
      const what = "the socket file was removed or replaced, and no mail server can connect until pmilter is restarted";
      this.#host.log("error", `${where}: ${what}`, {}, what);
    }
  }

  /** A connection of this thread has ended. */
  ended(): void {
    if (this.#isFull) this.settleRoom();
  }

  /** Whether there is a slot for another connection, and with that whether any is accepted. */
  settleRoom(): void {
    if (!this.#table.isFull) this.#host.addSurplus();
    const { isFull } = this.#table;
    this.#isFull = isFull;
    this.#fullness.set(isFull);
    this.#table.isAwaited = isFull;
    // A slot that became free before workers saw that it is awaited is found by the next look.
    this.#isUnsettled = isFull;
    this.settle();
  }

  /** Has the workers accept connections if they can, else this thread; while there is no room neither. */
  settle(): void {
    const { all, current } = this.#generations;
    const isOpen = !this.#isClosed && !this.#isFull && !this.#table.isStarved;
    try {
      const workersAccept = isOpen && current?.listen() === true;
      for (const generation of all) if (!workersAccept || generation !== current) generation.pause();
      for (const listener of this.#listeners) {
        if (isOpen && !workersAccept) listener.resume();
        else listener.pause();
      }
      this.#failure = null;
      this.#failing.set(false);
    } catch (error) {
      this.#failure = toError(error).message;
      this.#failing.set(true);
      this.#isUnsettled = true;
    }
  }
}
