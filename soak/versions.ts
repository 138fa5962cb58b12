/** Which version of the filter a session may run at a time. Pure. */

export class Versions {
  readonly #broken = new Set<number>();
  /** In the order in which they came to serve. */
  readonly #serving: { readonly version: number; readonly at: number }[] = [];
  #written = 0;

  /** It is about to be written, so it may come to serve at any time. */
  written(version: number, isBroken: boolean): void {
    this.#written = version;
    if (isBroken) this.#broken.add(version);
  }

  /** It was seen to serve new sessions. */
  serves(version: number, at: number): void {
    this.#serving.push({ version, at });
  }

  get reloads(): number {
    return Math.max(0, this.#serving.length - 1);
  }

  get broken(): number {
    return this.#broken.size;
  }

  /** The newest that served at that time; 0 before the first. */
  at(time: number): number {
    return this.#serving.findLast(({ at }) => at <= time)?.version ?? 0;
  }

  /**
   * The fault in the versions that a message was stamped with, null if there is none.
   * @param last the version of the session's message before, 0 if there was none
   * @param oldest the newest version that the session must have by now
   */
  problemOf(stamps: readonly number[], last: number, oldest: number): string | null {
    const [version = 0] = stamps;
    if (stamps.some((stamp) => stamp !== version)) return `stamped by versions ${stamps.join(", ")}, expected one`;
    if (this.#broken.has(version)) return `version ${version} does not load, but runs`;
    if (version > this.#written) return `version ${version} was never written`;
    if (version < last) return `version ${version} after ${last}`;
    if (version < oldest) return `version ${version}, expected ${oldest} or a later one by now`;
    return null;
  }
}
