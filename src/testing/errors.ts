/**
 * Failures of a conversation with a filter, apart from violations of the protocol (`ProtocolError` in the protocol folder).
 * Codes are stable, messages are for people.
 */

export const CONVERSATION_ERRORS = {
  PMILTER_ERR_CONNECT: "the filter's socket could not be connected to",
  PMILTER_ERR_CLOSED: "the filter closed the connection where a reply was due, or more was to be sent",
  PMILTER_ERR_TIMEOUT: "no reply within the timeout",
} as const;
export type ConversationErrorCode = keyof typeof CONVERSATION_ERRORS;

/** The conversation broke off; the client that raised it can only be dropped. */
export class ConversationError extends Error {
  override readonly name = "ConversationError";
  readonly code: ConversationErrorCode;

  constructor(code: ConversationErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The testing kit was used wrongly: a call out of order, or an argument that cannot be sent. */
export class ClientUsageError extends Error {
  override readonly name = "ClientUsageError";
  readonly code = "PMILTER_ERR_USAGE";
}
