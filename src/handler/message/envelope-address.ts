/** Addresses of the envelope as handlers read them: received addresses, and addresses that handlers gave. */
import { mailboxKey, type MailboxParts, partsOf, withoutBrackets } from "../../mime/mailbox.ts";
import type { Address } from "../types.ts";

/** The parts of the mailbox are parsed when one of them is read. */
export abstract class EnvelopeAddress implements Address {
  abstract readonly raw: string;
  abstract readonly params: readonly string[];
  #parts: MailboxParts | null = null;

  get address(): string {
    return withoutBrackets(this.raw);
  }

  get local(): string {
    return this.#read().local;
  }

  get domain(): string {
    return this.#read().domain;
  }

  get mailbox(): string {
    const { local, domain } = this.#read();
    return local === "" && domain === "" ? "" : mailboxKey(this.raw);
  }

  #read(): MailboxParts {
    return (this.#parts ??= partsOf(this.raw));
  }
}

/** An address that a handler gave. */
export class GivenAddress extends EnvelopeAddress {
  readonly raw: string;
  readonly params: readonly string[];

  /** @param raw in brackets */
  constructor(raw: string, params: readonly string[]) {
    super();
    this.raw = raw;
    this.params = params;
  }
}
