/**
 * The exports of "pmilter" for handlers: verdicts, `defineFilter`, and the types of sessions and messages. Nothing here
 * does I/O.
 */
export { accept, discard, reject, skip, tempfail, type Verdict } from "./handler/verdict.ts";
export { defineFilter } from "./handler/filter.ts";
export { decodeWords, encodeWords, foldHeader } from "./mime/header-text.ts";
export { type HeaderAddress, parseAddresses } from "./mime/addresses.ts";
export type { HtmlElement, HtmlRewriter, HtmlText } from "./mime/html-rewriter.ts";
export type { JsonValue } from "./json.ts";
export { readMessage } from "./mime/read-message.ts";
export type {
  Answer,
  AnswerStatus,
  CaaRecord,
  FailureCode,
  MxRecord,
  RecordOf,
  RecordType,
  SoaRecord,
  SrvRecord,
  TlsaRecord,
} from "./dns/answer.ts";
export type { Dns, DnsCallOptions, DnsPromises, Listing, ListingOptions, NodeRecords } from "./dns/types.ts";
export {
  type EntriesOptions,
  type KeepOptions,
  type Store,
  StoreError,
  type TakeOptions,
  type TakeResult,
} from "./store/types.ts";
export { UsageError, type UsageErrorCode } from "./usage-error.ts";
export type {
  Address,
  Auth,
  Changes,
  ChangesByHeader,
  CollectBody,
  EndedMessageView,
  Filter,
  FilterHome,
  Handler,
  Header,
  Headers,
  Log,
  LogFields,
  MacroLookup,
  Message,
  MessageOutcome,
  OptionsSchema,
  OutcomeSession,
  OutcomeVerdict,
  OverBody,
  PhaseArguments,
  RawOptions,
  RecipientVerdict,
  Result,
  Results,
  Session,
  State,
  Tls,
} from "./handler/types.ts";
export type {
  Attachment,
  ContentOptions,
  Decoration,
  EditOptions,
  Link,
  Mime,
  Part,
  PartHeader,
  PartHeaders,
  Replacement,
} from "./mime/types.ts";
export type { Client } from "./protocol/client.ts";
export type { ReplyText } from "./protocol/reply-text.ts";
export type { Phase, VerdictOf } from "./protocol/phases.ts";
export type { VerdictKind } from "./protocol/verdicts.ts";
