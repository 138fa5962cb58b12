const all = new WeakSet();

/** A handler's code runs elsewhere and has not returned: its call has taken too long, whoever awaits it. */
export class NotReturned extends Error {
  override readonly name = "TimeoutError";

  constructor(message: string) {
    super(message);
    all.add(this);
  }

  /** For what a handler threw: `instanceof` would run code of a Proxy. */
  static is(error: unknown): boolean {
    return typeof error === "object" && error !== null && all.has(error);
  }
}
