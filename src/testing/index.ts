/**
 * `pmilter/testing`: a mail server to test filters with. The public entry point; names that are not exported here may
 * change.
 */
export type { ClientInfo, ConnectionFacts } from "./address.ts";
export { applyModifications, type ApplyOptions, type Envelope, type EnvelopeAddress, type Message } from "./apply.ts";
export { MilterClient } from "./client.ts";
export type { ClientOptions, EomReply, EventReply, NoReply, Refusal } from "./client-types.ts";
export { ClientUsageError, CONVERSATION_ERRORS, ConversationError, type ConversationErrorCode } from "./errors.ts";
export type { EventPhase, Habit, MacroStage, Offer } from "./habits.ts";
export type { Macros } from "./macros.ts";
export { addressesOf, formatMail, type HeaderField, type MailContent, parseMail } from "./mail.ts";
export type { Negotiated } from "./negotiation.ts";
export {
  describeModifications,
  type MessageVerdict,
  type Modification,
  type Outcome,
  type PhaseOutcome,
  type PhaseVerdict,
  type RecipientOutcome,
} from "./outcome.ts";
export type { Mail } from "./send.ts";
export {
  type FilterOutcome,
  type FilterReports,
  openSession,
  runFilter,
  type RunFilterOptions,
  type SessionOptions,
  type TestSession,
} from "./run-filter.ts";
export { type TestDns, type TestDnsAnswer, TestStore } from "./services.ts";
export { TestClock } from "./test-clock.ts";
export { connectTransport, type FilterAddress, type Transport } from "./transport.ts";
export { ProtocolError } from "../protocol/errors.ts";
export type { FinalReply, ModificationReply, SmtpReply } from "../protocol/replies.ts";
