// Checks SPF, DKIM, DMARC and ARC, and writes what it found into Authentication-Results: docs/handlers/mail-auth.md.
import { hostname } from "node:os";
import { accept, defineFilter, type Header, reject, type Session, skip, tempfail } from "pmilter";
import { MessageCheck, type Tools } from "./lib/mail-auth/check.ts";
import { isInNameOf, isResults } from "./lib/mail-auth/forged.ts";
import { loadLibrary } from "./lib/mail-auth/library.ts";
import { type Action, type Options, options } from "./lib/mail-auth/options.ts";
import { Questions } from "./lib/mail-auth/questions.ts";
import { type Found, headerValue } from "./lib/mail-auth/results.ts";
import { parsedFields, verifierOf } from "./lib/mail-auth/verifier.ts";
import { warmUp } from "./lib/mail-auth/warm-up.ts";
import type { Refusal } from "./lib/options.ts";
import { isOwn } from "./lib/origin.ts";
import { filledIn } from "./lib/words.ts";

export { options };

interface MessageState {
  check: MessageCheck | null;
  /** Results that the sender wrote in our name. */
  forged: readonly Header[];
}

type AtEnd = Session<"eom", unknown, Options, Tools, MessageState, "skip">;
type Judging = Pick<
  AtEnd,
  "auth" | "client" | "dns" | "helo" | "isLocal" | "log" | "myHostname" | "options" | "own"
> & {
  readonly message: Pick<AtEnd["message"], "sender" | "state">;
};

/** The check of a message from outside, with SPF begun; null for one's own mail. */
function checkOf(session: Judging): MessageCheck | null {
  const { client, dns, helo, log, message, options, own } = session;
  const { state, sender } = message;
  if (state.check !== null || isOwn(session, options.own_networks)) return state.check;
  const { checks, trusted_sealers } = options;
  const settings = { checks, isTrusted: (sealer: string) => trusted_sealers.has(sealer) };
  state.check = new MessageCheck(own, new Questions(dns), settings, (error) => {
    log.warn("a check could not be made", { error });
  });
  const server = idOf(session);
  state.check.envelope({ ip: client.address, helo, sender: sender.address === "" ? "" : sender.mailbox, server });
  return state.check;
}

function idOf({ myHostname, options }: Pick<Judging, "myHostname" | "options">): string {
  return options.authserv_id ?? (myHostname || hostname());
}

/** It did not log in, and is let in nevertheless: what it wrote in our name, a server of ours may have written. */
function isRelay(session: Judging): boolean {
  const { auth, options } = session;
  return auth.type === "" && auth.authen === "" && isOwn(session, options.own_networks);
}

interface Consequence {
  readonly action: Action;
  readonly kind: "dmarc" | "spf";
  readonly domain: string;
}

/** What the options say of a message with these results. */
function consequenceOf({ dmarc, spf }: Found, { policy }: Options): Consequence {
  const isFailure = dmarc?.result === "fail" && dmarc.override === "";
  const dmarcAction = { reject: policy.dmarc_reject, quarantine: policy.dmarc_quarantine }[dmarc?.policy ?? ""];
  if (isFailure && dmarcAction !== undefined && dmarcAction !== "mark") {
    return { action: dmarcAction, kind: "dmarc", domain: dmarc.domain };
  }
  const isGood = dmarc?.result === "pass" || (dmarc?.override ?? "") !== "";
  const action = spf?.result === "fail" && !isGood ? policy.spf_fail : "mark";
  return { action, kind: "spf", domain: spf?.domain ?? "" };
}

/** Leaves the results for later filters. */
function leave({ message }: AtEnd, { arc, dkim, dmarc, helo, spf }: Found): void {
  const { results } = message;
  if (spf !== null) results.set("spf", helo === null ? { ...spf } : { ...spf, helo: { ...helo } });
  if (dkim !== null) {
    const result = ["pass", "temperror"].find((wanted) => dkim.some((found) => found.result === wanted));
    results.set("dkim", {
      result: result ?? dkim[0]?.result ?? "none",
      signatures: dkim.map((found) => ({ ...found })),
    });
  }
  if (dmarc !== null) results.set("dmarc", { ...dmarc });
  if (arc !== null) results.set("arc", { ...arc });
}

function obey(session: AtEnd, found: Found): Refusal | undefined {
  const { client, log, message, options } = session;
  const { action, domain, kind } = consequenceOf(found, options);
  if (action === "mark") return undefined;
  const what = `${kind.toUpperCase()} failed for ${domain}`;
  log.warn(`${action}: ${what}`);
  const words = { domain, client: client.address };
  if (action === "quarantine") {
    message.quarantine(what);
    return undefined;
  }
  const text = options[`${kind}_${action}_text` as const];
  return action === "reject" ? reject(filledIn(text, words)) : tempfail(filledIn(text, words));
}

export default defineFilter({
  name: "mail-auth",
  options,
  messageState: (): MessageState => ({ check: null, forged: [] }),
  async start(_options: Options): Promise<Tools> {
    const library = loadLibrary();
    const tools = { library, Verifier: verifierOf(library) };
    await warmUp(tools);
    return tools;
  },

  leaveOut: ({ early_spf }, isTooEarly) => [
    ...(isTooEarly("envfrom") ? (["envfrom"] as const) : []),
    ...(early_spf ? [] : (["envrcpt"] as const)),
  ],

  envfrom(session) {
    checkOf(session);
    if (isRelay(session)) return accept();
  },

  async envrcpt(session) {
    const { message, options } = session;
    const spf = (await checkOf(session)?.spf(options.timeout)) ?? null;
    if (spf !== null && options.checks.has("spf")) message.results.set("spf", { ...spf });
  },

  eoh(session) {
    if (isRelay(session)) return accept();
    const { message } = session;
    const id = idOf(session);
    message.state.forged = Array.from(message.headers).filter(
      (header) => isResults(header) && isInNameOf(header.value, id),
    );
    checkOf(session)?.header(parsedFields(message.headers));
  },

  async body({ message }, chunk) {
    const { check } = message.state;
    if (check === null || !(await check.body(chunk))) return skip();
  },

  async eom(session) {
    const { client, message, options, signal } = session;
    for (const header of message.state.forged) message.deleteHeader(header);
    const { check } = message.state;
    if (check === null) return;
    const found = await check.found(options.timeout);
    signal.throwIfAborted();
    leave(session, found);
    message.insertHeader(0, "Authentication-Results", headerValue(idOf(session), found, client.address));
    return obey(session, found);
  },
});
