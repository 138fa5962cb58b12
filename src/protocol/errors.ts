/**
 * Violations of the protocol. Each has a stable code; the message says what was seen and expected, with the peer's bytes
 * bounded and escaped.
 */

export const PROTOCOL_ERRORS = {
  PMILTER_ERR_LENGTH_ZERO: "a packet of length 0: each has at least its command byte",
  PMILTER_ERR_PACKET_TOO_LARGE: "a packet longer than limits.packet",
  PMILTER_ERR_COMMAND: "a command byte that the protocol does not have",
  PMILTER_ERR_MISSING_NUL: "a string without its terminating NUL",
  PMILTER_ERR_TOO_SHORT: "a payload shorter than its fields",
  PMILTER_ERR_FAMILY: "an address family that the protocol does not have",
  PMILTER_ERR_VERSION: "a protocol version below 2",
  PMILTER_ERR_ORDER: "a command that may not come here",
  PMILTER_ERR_REPLY: "a reply that the protocol does not have here",
} as const;

export type ProtocolErrorCode = keyof typeof PROTOCOL_ERRORS;

/** The peer broke the protocol. Its connection can only be closed; other connections are not affected. */
export class ProtocolError extends Error {
  override readonly name = "ProtocolError";
  readonly code: ProtocolErrorCode;

  constructor(code: ProtocolErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}
