// Refuses or marks mail by DNS lists of clients, names, senders and links: docs/handlers/dns-lists.md.
import { accept, defineFilter, reject, type Session, tempfail } from "pmilter";
import { isPrivate } from "./lib/dns-lists/addresses.ts";
import { Questions } from "./lib/dns-lists/ask.ts";
import { ListHealth } from "./lib/dns-lists/health.ts";
import { hostsOf, someOf } from "./lib/dns-lists/names.ts";
import { type Options, options } from "./lib/dns-lists/options.ts";
import { type Asked, ENVELOPE, judge, type Judgement, type Source } from "./lib/dns-lists/sources.ts";
import { filledIn, oneLine } from "./lib/words.ts";
import type { Refusal } from "./lib/options.ts";
import { isOwn } from "./lib/origin.ts";

export { options };

/** What is known of a client, for all messages of its session. */
interface ClientState {
  client: readonly Asked[] | null;
  helo: { readonly name: string; readonly asked: readonly Asked[] } | null;
}

interface MessageState {
  /** About the envelope; null until it is asked. */
  asked: readonly Asked[] | null;
  /** It comes from one's own client: no list is asked. */
  isExempt: boolean;
  reply: Refusal | null;
  isTold: boolean;
}

type AtEnd = Session<"eom", ClientState, Options, ListHealth, MessageState, "skip">;
type Asking = Pick<AtEnd, "client" | "dns" | "isLocal" | "options" | "own" | "state">;
type Judging = Asking &
  Pick<AtEnd, "auth" | "helo" | "log" | "signal"> & {
    readonly message: Pick<AtEnd["message"], "results" | "sender" | "state">;
  };

function questions({ dns, options, own }: Asking): Questions {
  return new Questions(dns, own, options);
}

function askClient(session: Asking): readonly Asked[] {
  const { client, state } = session;
  const isAsked = (client.family === "inet" || client.family === "inet6") && !isPrivate(client.address);
  return (state.client ??= isAsked ? questions(session).client(client.address) : []);
}

function askHelo(session: Asking, name: string): readonly Asked[] {
  const { state } = session;
  if (state.helo?.name !== name) state.helo = { name, asked: questions(session).domains("helo", [name]) };
  return state.helo.asked;
}

/** Whether the client is one's own before it can have logged in. */
function isOwnAtOnce({ client, isLocal, options }: Asking): boolean {
  return isOwn({ auth: { type: "", authen: "", author: "" }, client, isLocal }, options.own_networks);
}

/** Asks what the envelope is enough for, once for a message. */
function begin(session: Judging): readonly Asked[] {
  const { sender, state } = session.message;
  if (state.asked === null) {
    state.isExempt = isOwn(session, session.options.own_networks);
    state.asked = state.isExempt
      ? []
      : [
          ...askClient(session),
          ...askHelo(session, session.helo),
          ...questions(session).domains("sender", [sender.domain]),
        ];
  }
  return state.asked;
}

/** Waits only as long as what is still to come could change the verdict. */
async function settle(asked: readonly Asked[], later: readonly Source[], rejectAt: number): Promise<Judgement> {
  for (;;) {
    const judgement = judge(asked, later, rejectAt);
    const waiting = asked.filter(({ outcome }) => outcome === null);
    if (judgement.verdict !== "open" || waiting.length === 0) return judgement;
    await Promise.race(waiting.map(({ done }) => done));
  }
}

/** A list that has something, as the log, the header and later filters get it. */
interface Hit {
  readonly list: string;
  readonly of: string;
  readonly what: string;
  readonly codes: readonly string[];
  readonly score: number;
  readonly allow: boolean;
  readonly zone: string;
  /** Words of a reply, with placeholders. */
  readonly text: string;
}

/** The highest score first. */
function hitsOf(asked: readonly Asked[]): Hit[] {
  const hits = asked.flatMap(({ outcome, source }) => {
    if (outcome?.status !== "listed") return [];
    const { codes, score, what } = outcome;
    const { allow, name, of, text, zone } = source;
    return [{ list: name, of, what: oneLine(what, 255), codes: codes.slice(0, 10), score, allow, zone, text }];
  });
  return hits.toSorted((one, other) => other.score - one.score);
}

/** Logs what was found, and leaves it for later filters. */
function tell(session: Judging, asked: readonly Asked[], { sum, verdict }: Judgement): void {
  const { log, message, options, own } = session;
  const hits = hitsOf(asked);
  const failed = asked.flatMap(({ outcome, source }) =>
    outcome?.status === "failed"
      ? [{ list: source.name, reason: outcome.reason.replaceAll(source.zone || source.name, source.name) }]
      : [],
  );
  message.results.set("dns-lists", {
    sum,
    verdict,
    listed: hits
      .slice(0, 20)
      .map(({ allow, codes, list, of, score, what }) => ({ list, of, what, codes, score, allow })),
    failed: [...new Set(failed.map(({ list }) => list))],
  });
  for (const { list, reason } of failed) {
    if (own.isNews(list)) log.warn(`${list} does not answer, and counts as failed`, { reason });
  }
  if (hits.length === 0 || message.state.isTold) return;
  message.state.isTold = true;
  const action = verdict === "reject" ? options.action : verdict;
  const write = verdict === "pass" ? log : log.warn;
  write(`${action}: ${hits.map(wordsOf).join(", ")}`, { sum, reject_at: options.reject_at });
}

function wordsOf({ allow, codes, list, score, what }: Hit): string {
  return `${list} ${allow ? "allows" : score} (${[what, ...codes].join(" ")})`;
}

/** The refusal, with the words of the list that adds most. */
async function refuse(session: Judging, asked: readonly Asked[], { sum, verdict }: Judgement): Promise<Refusal> {
  const { client, message, options } = session;
  if (message.state.reply !== null) return message.state.reply;
  const [{ list, text, what, zone }] = hitsOf(asked) as [Hit];
  const told = text.includes("{text}") ? await questions(session).text(zone, what) : "";
  const reason = filledIn(text, { what, list, text: told, client: client.address }).replace(/:? *$/, "");
  const words = { reason, client: client.address, sum: String(sum) };
  const isForGood = verdict === "reject" && options.action === "reject";
  const reply = isForGood
    ? reject(filledIn(options.reject_text, words))
    : tempfail(filledIn(options.tempfail_text, words));
  return (message.state.reply = reply);
}

/** The verdict, as far as it is certain; nothing while it is not. */
async function decide(
  session: Judging,
  asked: readonly Asked[],
  later: readonly Source[],
): Promise<Refusal | undefined> {
  const { signal } = session;
  const judgement = await settle(asked, later, session.options.reject_at);
  // The client has gone, and with it the answers.
  signal.throwIfAborted();
  const { verdict } = judgement;
  if (session.options.action === "mark" || (verdict !== "reject" && verdict !== "tempfail")) return undefined;
  tell(session, asked, judgement);
  return refuse(session, asked, judgement);
}

export default defineFilter({
  name: "dns-lists",
  options,
  collectBody: { over: "skip" },
  state: (): ClientState => ({ client: null, helo: null }),
  messageState: (): MessageState => ({ asked: null, isExempt: false, reply: null, isTold: false }),
  start: (_options: Options) => new ListHealth(),

  leaveOut({ action, at, early, lists }, isTooEarly) {
    const left = (["connect", "helo", "envfrom"] as const).filter(
      (phase) => isTooEarly(phase) || (!early && phase !== "envfrom"),
    );
    const isDecidedAtEnd = at === "end" || action === "mark";
    return [
      ...left,
      ...(isDecidedAtEnd && !left.includes("envfrom") ? (["envrcpt"] as const) : []),
      ...(lists.some(({ of }) => of === "links") ? [] : (["collectBody"] as const)),
    ];
  },

  connect(session) {
    if (!isOwnAtOnce(session)) askClient(session);
  },

  helo(session, hostname) {
    // Of a client that gives many names, others are asked about when it sends something.
    if (session.state.helo === null && !isOwnAtOnce(session)) askHelo(session, hostname);
  },

  envfrom(session) {
    begin(session);
    // What a message of one's own has in the header is looked at, at its end.
    if (session.message.state.isExempt && session.options.header === undefined) return accept();
  },

  async envrcpt(session) {
    const asked = begin(session);
    const { action, at, lists } = session.options;
    if (at === "end" || action === "mark" || session.message.state.isExempt) return;
    return decide(
      session,
      asked,
      lists.filter(({ of }) => !ENVELOPE.has(of)),
    );
  },

  async eom(session) {
    const { log, message, options } = session;
    const { header, lists, max_links, reject_at } = options;
    const envelope = begin(session);
    // A sender must not write our report.
    if (header !== undefined && message.headers.get(header) !== undefined) message.deleteHeader(header);
    // Refused at RCPT, in observe mode.
    if (message.state.isExempt || message.state.reply !== null) return;
    const from = message.headers.addresses("From").map(({ domain }) => domain);
    const asked = [...envelope, ...questions(session).domains("from", from.slice(0, MAX_FROM))];
    if (lists.some(({ of }) => of === "links")) {
      const hosts = hostsOf(message.mime()?.links() ?? []).filter((host) => !options.except_domains.has(host));
      if (hosts.length > max_links) log.debug("more links than are asked about", { hosts: hosts.length, max_links });
      asked.push(...questions(session).domains("links", someOf(hosts, max_links)));
    }
    const refusal = await decide(session, asked, []);
    if (refusal !== undefined) return refusal;
    const { signal } = session;
    await Promise.all(asked.map(({ done }) => done));
    signal.throwIfAborted();
    const judgement = judge(asked, [], reject_at);
    tell(session, asked, judgement);
    if (header !== undefined) message.addHeader(header, reportOf(asked, judgement));
  },
});

/** Addresses in From that are asked about; a message should have one. */
const MAX_FROM = 10;

/** The value of the header. */
function reportOf(asked: readonly Asked[], { sum }: Judgement): string {
  const hits = hitsOf(asked).slice(0, 20).map(wordsOf);
  const failed = asked
    .filter(({ outcome }) => outcome?.status === "failed")
    .map(({ source }) => `${source.name} failed`);
  return [`sum ${sum}`, ...hits, ...new Set(failed)].join(";\n ");
}
