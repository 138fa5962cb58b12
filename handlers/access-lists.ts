// Allows and blocks by client, HELO, sender and recipient, from files that reload: docs/handlers/access-lists.md.
import { resolve } from "node:path";
import { accept, defineFilter } from "pmilter";
import { AccessFile } from "./lib/access-file.ts";
import { type AccessTable, ACTIONS, type Match, MATCHES, parseTable } from "./lib/access-table.ts";
import { type Options, Prepared, type Refusal } from "./lib/header-options.ts";

interface List {
  readonly match: Match;
  readonly file: AccessFile<AccessTable>;
}

/** The tables as they were when the client connected: a session is judged by a single version of them. */
type Tables = Readonly<Record<Match, readonly AccessTable[]>>;

const lists = new Prepared((options: Options, folder): readonly List[] => {
  const rejectText = options.refusal("reject_text", "reject", "550 5.7.1 Access denied");
  const tempfailText = options.refusal("tempfail_text", "tempfail", "451 4.7.1 Access denied for now, try again later");
  return options.tables("lists").map((list: Options) => {
    const match = list.choice("match", MATCHES);
    const path = resolve(folder, list.text("file"));
    const action = list.choice("action", ACTIONS, "reject");
    const defaults = { action, reject: rejectText, tempfail: tempfailText };
    if (list.has("text")) {
      if (action === "allow") list.fail("text", 'no text beside action = "allow"');
      defaults[action] = list.refusal("text", action, "");
    }
    list.end();
    return { match, file: new AccessFile(path, (text) => parseTable(text, match, defaults)) };
  });
});

function readTables(lists: readonly List[]): Tables {
  const tables: Record<Match, AccessTable[]> = { client: [], helo: [], sender: [], recipient: [] };
  for (const { match, file } of lists) tables[match].push(file.content());
  return tables;
}

/** Those that `connect` took. */
function tablesOf({ state, options }: { state: { tables?: Tables }; options: object }): Tables {
  return (state.tables ??= readTables(lists.of(options)));
}

/** The tables' entry for a name or address: allow wins over block, and an earlier list over a later one. */
function judge(
  tables: readonly AccessTable[],
  find: (entries: AccessTable["allow"] | AccessTable["block"]) => true | Refusal | undefined,
): "allow" | Refusal | undefined {
  if (tables.some(({ allow }) => find(allow) !== undefined)) return "allow";
  for (const { block } of tables) {
    const refusal = find(block);
    if (refusal !== undefined && refusal !== true) return refusal;
  }
  return undefined;
}

/** Allowing a HELO, a sender or a recipient only spares it its own list: clients can choose these values. */
function unlessAllowed(judgement: "allow" | Refusal | undefined): Refusal | undefined {
  return judgement === "allow" ? undefined : judgement;
}

export default defineFilter<{ tables?: Tables }>({
  name: "access-lists",

  // A list that is missing or wrong keeps the server from starting; later it only keeps the list from changing. There is
  // no stop(): between two looks at a file nothing is open.
  start(options, { folder }) {
    readTables(lists.start(options, folder));
  },

  connect(session) {
    const { client } = tablesOf(session);
    const { address, hostname } = session.client;
    const judgement = judge(client, (entries) => entries.client(address, hostname));
    return judgement === "allow" ? accept() : judgement;
  },

  helo(session, hostname) {
    const { helo } = tablesOf(session);
    return unlessAllowed(judge(helo, (entries) => entries.helo(hostname)));
  },

  envfrom(session) {
    const { sender } = tablesOf(session);
    const { address } = session.message.sender;
    return unlessAllowed(judge(sender, (entries) => entries.mailbox(address)));
  },

  envrcpt(session) {
    const { recipient } = tablesOf(session);
    const address = session.message.recipients.at(-1)?.address ?? "";
    return unlessAllowed(judge(recipient, (entries) => entries.mailbox(address)));
  },
});
