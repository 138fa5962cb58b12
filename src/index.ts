/**
 * The exports of "pmilter" for handlers: verdicts, `defineFilter`, and the types of sessions and messages. Nothing here
 * does I/O.
 */
export { accept, discard, reject, skip, tempfail, type Verdict } from "./handler/verdict.ts";
export { defineFilter } from "./handler/filter.ts";
export { decodeWords, encodeWords, foldHeader } from "./mime/header-text.ts";
export { type HeaderAddress, parseAddresses } from "./mime/addresses.ts";
export { UsageError, type UsageErrorCode } from "./handler/errors.ts";
export type {
  Address,
  Auth,
  Changes,
  ChangesByHeader,
  CollectBody,
  Filter,
  FilterHome,
  Handler,
  Header,
  Headers,
  MacroLookup,
  Message,
  OverBody,
  PhaseArguments,
  RawOptions,
  Result,
  Session,
  State,
  Tls,
} from "./handler/types.ts";
export type { Client } from "./protocol/client.ts";
export type { Phase, VerdictOf } from "./protocol/phases.ts";
export type { VerdictKind } from "./protocol/verdicts.ts";
