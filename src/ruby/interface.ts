/** `Pmilter` in Ruby: classes and methods, with what they do left to {@link Call}. */
import { isText, type Opal, type RubyModule, type RubyObject } from "./opal.ts";
import { READERS, type SessionOperation, type VerdictName } from "./session-calls.ts";

/** The call of a script. */
export interface Call {
  /** Sets the verdict, the last one counts; the place that calls it is the verdict's. */
  decide(verdict: VerdictName): void;
  /** Does something with the session; plain values, null for nil. */
  perform(operation: SessionOperation, ...args: unknown[]): unknown;
  /** The hash that all scripts share for one message; null between messages. @param make an empty one */
  messageState(make: () => RubyObject): RubyObject | null;
}

/** `SMFIS_` constants, by libmilter's numbers. */
const STATUS = {
  CONTINUE: 0,
  REJECT: 1,
  DISCARD: 2,
  ACCEPT: 3,
  TEMPFAIL: 4,
  NOREPLY: 7,
  SKIP: 8,
  ALL_OPTS: 10,
} as const;

/** SMFIS_NOREPLY continues: whether a reply is sent was agreed on before the phase, not by it. */
const VERDICTS: ReadonlyMap<unknown, VerdictName> = new Map([
  [STATUS.CONTINUE, null],
  [STATUS.NOREPLY, null],
  [STATUS.REJECT, "reject"],
  [STATUS.DISCARD, "discard"],
  [STATUS.ACCEPT, "accept"],
  [STATUS.TEMPFAIL, "tempfail"],
  [STATUS.SKIP, "skip"],
]);

const LEVELS: ReadonlySet<string> = new Set(["debug", "info", "warn", "error"]);

/**
 * Defines `Pmilter`.
 * @param current the call that runs; null while none does: then there is no session
 */
export function definePmilter(opal: Opal, current: () => Call | null): void {
  const { nil, Object: top } = opal;
  const Pmilter = opal.klass(top, top, "Pmilter");
  const Session = opal.klass(Pmilter, top, "Session");
  const Headers = opal.klass(Session, top, "Headers");
  const raise = (kind: string, message: string): never => {
    throw (top.$$const[kind] as RubyModule).$new(message);
  };
  const call = (): Call =>
    current() ?? raise("RuntimeError", "there is no session here: Pmilter::Session is for handler.session");
  const text = (value: unknown, what: string): string =>
    isText(value) ? String(value) : raise("TypeError", `expected String for ${what}`);
  const params = (value: unknown) =>
    value === undefined || value === nil
      ? []
      : text(value, "the ESMTP arguments")
          .split(" ")
          .filter((word) => word !== "");

  for (const [name, value] of Object.entries(STATUS)) opal.const_set(Pmilter, `SMFIS_${name}`, value);
  opal.defs(Pmilter, "$name", () => "pmilter");
  opal.defs(Pmilter, "$status=", (status: unknown) => {
    const verdict = VERDICTS.get(status);
    const known = "Pmilter.status takes SMFIS_CONTINUE, _REJECT, _DISCARD, _ACCEPT, _TEMPFAIL or _SKIP";
    call().decide(verdict === undefined ? raise("ArgumentError", known) : verdict);
    return status;
  });

  for (const name of Object.keys(READERS) as (keyof typeof READERS)[]) {
    opal.defn(Session, `$${name}`, () => call().perform(name));
  }
  opal.defn(Session, "$change_envelope_from", (address: unknown, esmtp: unknown) =>
    call().perform("changeFrom", text(address, "the sender"), params(esmtp)),
  );
  for (const name of ["$add_envelope_to", "$add_rcpt_to"]) {
    opal.defn(Session, name, (address: unknown, esmtp: unknown) =>
      call().perform("addRecipient", text(address, "the recipient"), params(esmtp)),
    );
  }
  opal.defn(Session, "$log", (said: unknown, given: unknown) => {
    const now = call();
    const line = text(said, "the text of a line");
    const level = given === undefined || given === nil ? "info" : text(given, "the level");
    if (!LEVELS.has(level)) raise("ArgumentError", "expected debug, info, warn or error as the level");
    now.perform("log", level, line);
    return nil;
  });
  const newHash = () => opal.hash({});
  opal.defn(Session, "$message_state", () => call().messageState(newHash) ?? newHash());

  const Results = opal.klass(Session, top, "Results");
  const result = (name: unknown) => text(name, "the name of a result");
  opal.defn(Results, "$[]", (name: unknown) => {
    const now = call();
    return now.perform("result", result(name)) ?? nil;
  });
  opal.defn(Results, "$[]=", (name: unknown, value: unknown) => {
    const kept = value === nil ? null : isText(value) ? String(value) : value;
    call().perform("setResult", result(name), kept);
    return value;
  });

  opal.defn(Headers, "$header", () => opal.hash(call().perform("header") as object));
  const named = (name: unknown) => text(name, "the name of a header");
  opal.defn(Headers, "$[]", (name: unknown) => call().perform("headerValue", named(name)) ?? nil);
  opal.defn(Headers, "$text", (name: unknown) => call().perform("headerText", named(name)) ?? nil);
  opal.defn(Headers, "$addresses", (name: unknown) =>
    (call().perform("headerAddresses", named(name)) as object[]).map((address) => opal.hash(address)),
  );
  opal.defn(Headers, "$[]=", (name: unknown, value: unknown) => {
    call().perform("addHeader", named(name), text(value, "the value of a header"));
    return value;
  });
}
