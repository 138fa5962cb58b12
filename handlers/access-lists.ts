// Allows and blocks by client, HELO, sender and recipient, from files that reload: docs/handlers/access-lists.md.
import { accept, defineFilter, type Log, type MacroLookup } from "pmilter";
import { array, expected, file, type InferOutput, nonEmpty, picklist, pipe, string, table } from "pmilter/options";
import { AccessFile } from "./lib/access-file.ts";
import { type AccessTable, ACTIONS, type Match, MATCHES, parseTable } from "./lib/access-table.ts";
import { made, option, type Refusal, refusal, refusalOf, required, unset } from "./lib/options.ts";

interface List {
  readonly match: Match;
  readonly file: AccessFile<AccessTable>;
}

/** The tables as they were when the client connected: a session is judged by a single version of them. */
type Tables = Readonly<Record<Match, readonly AccessTable[]>>;

const entries = {
  match: required(picklist(MATCHES), "the value that entries are compared with: client, helo, sender, recipient"),
  file: required(file(), "the file; a relative path is relative to the configuration"),
  action: option(picklist(ACTIONS), "reject", "the action of entries without one: allow, reject, tempfail"),
  text: unset(string(), "the filter's text", "the reply for entries without a text"),
};

const list = made(table(entries), ({ action, file, match, text }, fail) => {
  if (text === undefined) return { match, file, action, refusal: null };
  if (action === "allow") return fail("text", 'no text beside action = "allow"');
  const refusal = refusalOf(action, text);
  return typeof refusal === "string" ? fail("text", refusal) : { match, file, action, refusal };
});

export const options = table({
  lists: required(
    pipe(array(list), nonEmpty(expected("at least one [[filter.options.lists]]"))),
    "the lists, in order",
  ),
  reject_text: option(refusal("reject"), "550 5.7.1 Access denied", "the reply of `reject`"),
  tempfail_text: option(
    refusal("tempfail"),
    "451 4.7.1 Access denied for now, try again later",
    "the reply of `tempfail`",
  ),
});

function openLists({ lists, reject_text, tempfail_text }: InferOutput<typeof options>): readonly List[] {
  return lists.map(({ action, file, match, refusal }) => {
    const defaults = { action, reject: reject_text, tempfail: tempfail_text };
    if (refusal !== null) defaults[action] = refusal;
    return { match, file: new AccessFile(file, (text) => parseTable(text, match, defaults)) };
  });
}

function readTables(lists: readonly List[], log: Log): Tables {
  const tables: Record<Match, AccessTable[]> = { client: [], helo: [], sender: [], recipient: [] };
  for (const { match, file } of lists) tables[match].push(file.content(log));
  return tables;
}

/** Those that `connect` took. */
function tablesOf({ log, own, state }: { log: Log; own: readonly List[]; state: { tables?: Tables } }): Tables {
  return (state.tables ??= readTables(own, log));
}

/** The tables' entry for a name or address: allow wins over block, and an earlier list over a later one. */
function judge(tables: readonly AccessTable[], find: Find, findAllowed: Find = find): "allow" | Refusal | undefined {
  if (tables.some(({ allow }) => findAllowed(allow) !== undefined)) return "allow";
  for (const { block } of tables) {
    const refusal = find(block);
    if (refusal !== undefined && refusal !== true) return refusal;
  }
  return undefined;
}

type Find = (entries: AccessTable["allow"] | AccessTable["block"]) => true | Refusal | undefined;

/** Sendmail's macro of how the name of the client was found. */
const CLIENT_RESOLVE = "{client_resolve}";

/**
 * Whether the client's name leads back to its address. Postfix gives no other name. Sendmail has the result of the check in a
 * macro; without it the name counts as unconfirmed.
 */
function isConfirmed(macros: MacroLookup): boolean {
  const result = macros.get(CLIENT_RESOLVE);
  return result === undefined ? (macros.get("v") ?? "").startsWith("Postfix") : result === "OK";
}

/** Allowing a HELO, a sender or a recipient only spares it its own list: clients can choose these values. */
function unlessAllowed(judgement: "allow" | Refusal | undefined): Refusal | undefined {
  return judgement === "allow" ? undefined : judgement;
}

export default defineFilter({
  name: "access-lists",
  options,
  state: (): { tables?: Tables } => ({}),

  // A list that is missing or wrong keeps the server from starting; later it only keeps the list from changing. There is
  // no stop(): between two looks at a file nothing is open.
  start: openLists,

  macros: { connect: [CLIENT_RESOLVE] },

  connect(session) {
    const { client } = tablesOf(session);
    const { address, hostname } = session.client;
    // Whoever controls the reverse zone of an address can give it any name: only a confirmed one allows.
    const proven = isConfirmed(session.macros) ? hostname : "";
    const judgement = judge(
      client,
      (entries) => entries.client(address, hostname),
      (entries) => entries.client(address, proven),
    );
    return judgement === "allow" ? accept() : judgement;
  },

  helo(session, hostname) {
    const { helo } = tablesOf(session);
    return unlessAllowed(judge(helo, (entries) => entries.helo(hostname)));
  },

  envfrom(session) {
    const { sender } = tablesOf(session);
    return unlessAllowed(judge(sender, (entries) => entries.mailbox(session.message.sender)));
  },

  envrcpt(session) {
    const { recipient } = tablesOf(session);
    const address = session.message.recipients.at(-1)!;
    return unlessAllowed(judge(recipient, (entries) => entries.mailbox(address)));
  },
});
