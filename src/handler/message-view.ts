/**
 * `session.message`: a message as one filter sees and changes it. A view is the received message under the changes of
 * the filters before it in the chain and its own.
 */
import { ACTION, type ActionName } from "../protocol/constants.ts";
import {
  checkAddress,
  checkBody,
  checkHeaderName,
  checkHeaderValue,
  checkIndex,
  checkParams,
  checkReason,
  type FilterChanges,
  type RecipientChange,
} from "./changes.ts";
import { UsageError } from "./errors.ts";
import { type HeaderChange, HeaderList } from "./header-list.ts";
import { Layered } from "./layered.ts";
import type { ReceivedMessage } from "./message.ts";
import { givenAddress, RecipientList } from "./recipient-list.ts";
import type { Address, Changes, Headers } from "./types.ts";

/** What a view needs to know beyond the message. */
export interface ViewContext {
  /** Granted actions, see `ACTION`. */
  actions(): number;
  /** Whether the mail server sends the headers. */
  hasHeaders(): boolean;
  readonly collectsBody: boolean;
  /** The changes that count before this filter's own, in chain order. */
  before(): readonly FilterChanges[];
  /** This filter's own changes; throws UsageError PMILTER_ERR_OVER if it may not change the message any more. */
  change(): FilterChanges;
  /** The same for reading, null without any. */
  own(): FilterChanges | null;
  /** An id for an added header, unique in the message. */
  newHeaderId(): number;
}

export class MessageView implements Changes {
  readonly #received: ReceivedMessage;
  readonly #context: ViewContext;
  readonly #headers: Layered<HeaderList, HeaderChange>;
  readonly #recipients: Layered<RecipientList, RecipientChange>;

  constructor(received: ReceivedMessage, context: ViewContext) {
    this.#received = received;
    this.#context = context;
    this.#headers = layeredHeaders(received);
    this.#recipients = layeredRecipients(received);
  }

  get sender(): Address {
    for (const changes of this.#layers().reverse()) {
      if (changes.sender !== null) return givenAddress(changes.sender.address, changes.sender.params);
    }
    return this.#received.sender;
  }

  get recipients(): readonly Address[] {
    return this.#recipients.under(this.#layers()).all;
  }

  get headers(): Headers {
    return this.#list();
  }

  get receivedAt(): Date {
    if (this.#received.receivedAt === null) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", "message.receivedAt is there from eom on");
    }
    return this.#received.receivedAt;
  }

  body(): Uint8Array {
    for (const changes of this.#layers().reverse()) if (changes.body !== null) return changes.body;
    if (!this.#context.collectsBody) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", "message.body() needs collectBody: true in the filter");
    }
    return this.#received.body();
  }

  addHeader(name: string, value: string): void {
    const change = { name: checkHeaderName(name), value: checkHeaderValue(value) };
    this.#require("ADDHDRS", "addHeader");
    this.#changeHeader({ kind: "add", id: this.#context.newHeaderId(), ...change });
  }

  insertHeader(index: number, name: string, value: string): void {
    checkIndex(index, 0);
    const change = { name: checkHeaderName(name), value: checkHeaderValue(value) };
    this.#require("ADDHDRS", "insertHeader");
    if (index > 0) this.#requireHeaders("insertHeader below the top");
    const before = index === 0 ? "top" : (this.#list().live()[index]?.id ?? "end");
    this.#changeHeader({ kind: "insert", id: this.#context.newHeaderId(), ...change, before });
  }

  changeHeader(name: string, value: string, index = 1): void {
    checkHeaderName(name);
    const checked = checkHeaderValue(value);
    checkIndex(index, 1);
    if (checked === "") {
      this.deleteHeader(name, index);
      return;
    }
    this.#requireHeaders("changeHeader");
    const entry = this.#list().named(name)[index - 1];
    if (entry === undefined) {
      this.addHeader(name, checked);
      return;
    }
    this.#require("CHGHDRS", "changeHeader");
    this.#changeHeader({ kind: "change", id: entry.id, value: checked });
  }

  deleteHeader(name: string, index?: number): void {
    checkHeaderName(name);
    this.#requireHeaders("deleteHeader");
    this.#require("CHGHDRS", "deleteHeader");
    if (index === undefined) {
      this.#changeHeader({ kind: "deleteAll", name: name.toLowerCase() });
      return;
    }
    checkIndex(index, 1);
    const entry = this.#list().named(name)[index - 1];
    if (entry !== undefined) this.#changeHeader({ kind: "delete", id: entry.id });
  }

  changeFrom(address: string, params?: readonly string[]): void {
    const checked = { address: checkAddress(address, "the sender", true), params: checkParams(params, "the sender") };
    this.#require("CHGFROM", "changeFrom");
    this.#context.change().sender = checked;
  }

  addRecipient(address: string, params?: readonly string[]): void {
    const checked = {
      address: checkAddress(address, "a recipient", false),
      params: checkParams(params, "a recipient"),
    };
    if (checked.params.length === 0) this.#require("ADDRCPT", "addRecipient");
    else this.#require("ADDRCPT_PAR", "addRecipient with ESMTP arguments");
    this.#context.change().recipients.push({ kind: "add", ...checked });
  }

  deleteRecipient(address: string): void {
    const checked = checkAddress(address, "a recipient", false);
    this.#require("DELRCPT", "deleteRecipient");
    this.#context.change().recipients.push({ kind: "delete", address: checked });
  }

  replaceBody(body: string | Uint8Array): void {
    const checked = checkBody(body);
    this.#require("CHGBODY", "replaceBody");
    this.#context.change().body = checked;
  }

  quarantine(reason: string): void {
    const checked = checkReason(reason);
    this.#require("QUARANTINE", "quarantine");
    this.#context.change().quarantine = { reason: checked, origin: new Error() };
  }

  #layers(): FilterChanges[] {
    const own = this.#context.own();
    return own === null ? [...this.#context.before()] : [...this.#context.before(), own];
  }

  #list(): HeaderList {
    return this.#headers.under(this.#layers());
  }

  #changeHeader(change: HeaderChange): void {
    this.#context.change().headers.push(change);
  }

  /** Only events that some handler reads are asked for; a change to headers that never come would be lost in silence. */
  #requireHeaders(method: string): void {
    if (this.#context.hasHeaders()) return;
    throw new UsageError(
      "PMILTER_ERR_NOT_HERE",
      `${method} needs the headers, and no filter has a handler that has them sent: add one at eoh or eom`,
    );
  }

  #require(action: ActionName, method: string): void {
    if ((this.#context.actions() & ACTION[action]) === 0) {
      throw new UsageError(
        "PMILTER_ERR_NOT_GRANTED",
        `${method} needs the action ${action}, which the mail server did not grant`,
      );
    }
  }
}

function layeredHeaders(received: ReceivedMessage): Layered<HeaderList, HeaderChange> {
  return new Layered(
    () => new HeaderList(received),
    (changes) => changes.headers,
  );
}

function layeredRecipients(received: ReceivedMessage): Layered<RecipientList, RecipientChange> {
  return new Layered(
    () => new RecipientList(received),
    (changes) => changes.recipients,
  );
}

/** The headers of a message under the changes of some filters. */
export function headersUnder(received: ReceivedMessage, layers: readonly FilterChanges[]): HeaderList {
  return layeredHeaders(received).under(layers);
}

/** The recipients of a message under the changes of some filters. */
export function recipientsUnder(received: ReceivedMessage, layers: readonly FilterChanges[]): readonly Address[] {
  return layeredRecipients(received).under(layers).all;
}
