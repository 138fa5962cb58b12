/** A handler's code runs elsewhere and has not returned: its call has taken too long, whoever awaits it. */
export class NotReturned extends Error {
  override readonly name = "TimeoutError";
}
