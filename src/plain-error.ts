/** The errors that are nobody's mistake but the user's, or the machine's. */

/** Said to the user as it is, without a stack: a configuration, a handler, an address, a file is wrong. */
export class PlainError extends Error {
  /** What is wrong, one by one; the message has them all. */
  get problems(): readonly string[] {
    return [this.message];
  }
}
