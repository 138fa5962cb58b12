/** The workers of a generation: each has a place, and leaves it to another worker when it is replaced. */
import { within } from "../../within.ts";
import { MAX_LISTENING } from "../policy.ts";
import type { Member, WorkerStatus } from "./member.ts";

export class Members {
  /** The places of `server.workers` come first, the places of further workers follow. */
  readonly #byPlace: Member[] = [];
  /** Replaced, or about to be, until their threads have ended. */
  readonly #replaced = new Set<Member>();

  /** A worker takes its place. */
  add(member: Member): void {
    this.#byPlace[member.place] = member;
  }

  /** A worker leaves its place to another. */
  setAside(member: Member): void {
    this.#replaced.add(member);
  }

  /** The thread of a worker has ended. */
  forget(member: Member): void {
    this.#replaced.delete(member);
  }

  get all(): Member[] {
    return [...new Set([...this.#byPlace, ...this.#replaced])];
  }

  /** Those that take sessions, or will once they have loaded. */
  get taking(): Member[] {
    return this.#byPlace.filter((member) => member.isReady || member.state === "loading");
  }

  /** Those that have sessions, or can take some. */
  get serving(): Member[] {
    return this.all.filter(({ isServing }) => isServing);
  }

  get #ready(): Member[] {
    return this.#byPlace.filter(({ isReady }) => isReady);
  }

  /** Some worker can take sessions. */
  get isReady(): boolean {
    return this.#byPlace.some(({ isReady }) => isReady);
  }

  /** A worker has its place, whether it can take sessions or will later. */
  get isStaffed(): boolean {
    return this.#byPlace.some(({ isTaken }) => !isTaken);
  }

  get areOver(): boolean {
    return this.all.every(({ state }) => state === "over");
  }

  get statuses(): WorkerStatus[] {
    return this.all.flatMap(({ status }) => status ?? []);
  }

  /** The first free place from this place on. */
  freePlace(from: number): number {
    let place = from;
    while (this.#byPlace[place]?.isTaken === false) place++;
    return place;
  }

  /** Connections by worker: the first `workers` places always count, further places while they have a worker. */
  loads(workers: number): number[] {
    const counted = this.#byPlace.filter(({ isTaken, place }) => place < workers || !isTaken);
    return counted.map(({ connections }) => connections);
  }

  /** The worker for a session: the one with the fewest connections, silent workers last. Null if none is ready. */
  forSession(): Member | null {
    const ready = this.#ready;
    const prompt = ready.filter(({ isPrompt }) => isPrompt);
    const members = prompt.length > 0 ? prompt : ready;
    const counts = members.map((each) => each.connections);
    return members[counts.indexOf(Math.min(...counts))] ?? null;
  }

  /** Has workers accept connections for themselves. @returns false if none can now */
  listen(): boolean {
    const ready = this.#ready;
    const rows = ready.map(({ row }) => row);
    // A silent worker accepts nothing for now, so those that are not silent come first.
    const byUse = [...ready].sort((a, b) => Number(b.isPrompt) - Number(a.isPrompt));
    // Each connection wakes all workers that accept.
    const chosen = byUse.slice(0, MAX_LISTENING);
    for (const member of byUse.slice(MAX_LISTENING)) member.pause();
    for (const member of chosen) member.listen(rows);
    return chosen.length > 0;
  }

  /** Settles when the workers that were told to accept connections do, or after `timeoutMs`. */
  async listening(timeoutMs: number): Promise<void> {
    const told = this.#byPlace.filter(({ state }) => state === "accepting");
    await within(Promise.all(told.map(({ listening }) => listening.promise)), timeoutMs);
  }

  /** Has all workers accept no more. */
  pause(): void {
    for (const member of this.all) member.pause();
  }
}
