/** Filters that compile: in both forms, and each phase with all that it has. Nothing here runs but a test. */
import {
  accept,
  defineFilter,
  discard,
  type Filter,
  type Handler,
  type Header,
  type HeaderAddress,
  reject,
  type Session,
  skip,
  tempfail,
} from "../../src/index.ts";

// A phase file (docs/handlers.md, "Two forms").
export function envfrom(session: Session<"envfrom">, sender: string) {
  void session;
  if (sender === "<spam-from@example.com>") return reject("550 5.7.1 Not welcome here");
}

// A filter made with `defineFilter`.
export const stamp = defineFilter({
  name: "stamp",
  eom(session) {
    session.message.addHeader("X-Pmilter", "Enable");
  },
});

/** Every verdict of every phase, sync and async. */
export const verdicts = {
  connect: [() => accept(), () => reject(), () => tempfail(), () => undefined, () => {}],
  helo: [() => accept(), () => reject(), () => tempfail()],
  envfrom: [() => accept(), () => reject(), () => tempfail(), () => discard()],
  envrcpt: [() => accept(), () => reject(), () => tempfail(), () => discard()],
  data: [() => accept(), () => reject(), () => tempfail(), () => discard()],
  header: [() => accept(), () => reject(), () => tempfail(), () => discard()],
  eoh: [() => accept(), () => reject(), () => tempfail(), () => discard()],
  body: [() => skip(), () => accept(), () => reject(), () => tempfail(), () => discard()],
  eom: [() => accept(), () => reject(), () => tempfail(), () => discard(), async () => discard()],
  unknown: [() => reject(), () => tempfail()],
  abort: [() => undefined, async () => {}],
  close: [() => undefined, async () => {}],
} satisfies { [P in keyof typeof PHASE_NAMES]: readonly Handler<P>[] };

const PHASE_NAMES = {
  connect: 0,
  helo: 0,
  envfrom: 0,
  envrcpt: 0,
  data: 0,
  header: 0,
  eoh: 0,
  body: 0,
  eom: 0,
  unknown: 0,
  abort: 0,
  close: 0,
} as const;

interface Score {
  points: number;
}
interface Options {
  readonly limit: number;
}

/** A filter with types of its own for state and options, and every member of `Filter`. */
export const whole = defineFilter<Score, Options>({
  name: "whole",
  collectBody: true,
  rejectedRecipients: true,
  macros: { helo: ["{verify}"], eom: ["{msg_id}"] },
  start() {},
  async stop() {},
  connect(session) {
    session.state.points = session.client.port;
    return session.client.family === "unknown" || session.client.address === "" ? accept() : undefined;
  },
  helo(session, hostname) {
    const { version, cipher, cipherBits, certSubject, certIssuer } = session.tls;
    const strings: string[] = [version, cipher, cipherBits, certSubject, certIssuer, hostname, session.helo];
    return strings.length > session.options.limit ? reject("550 5.7.1 No") : undefined;
  },
  envfrom(session, sender, params) {
    const { type, authen, author } = session.auth;
    const strings: string[] = [type, authen, author, sender, ...params, session.message.sender.raw];
    session.state.points += strings.length;
  },
  envrcpt(session, recipient) {
    const { raw, address, params } = session.message.recipients.at(-1)!;
    return raw === recipient && address !== "" && params.length === 0 ? undefined : tempfail();
  },
  header(session, name, value) {
    session.message.headers.get(name)?.includes(value);
  },
  body(_session, chunk) {
    return chunk.length > 0 ? skip() : undefined;
  },
  async eom({ message, macros, queueId, daemonName, myHostname, phase }) {
    const at: "eom" = phase;
    const strings: (string | undefined)[] = [macros.get("{msg_id}"), queueId, daemonName, myHostname, at];
    for (const { name, value } of message.headers) strings.push(name, value);
    message.addHeader("A", "1");
    message.insertHeader(0, "A", "1");
    message.changeHeader("A", "1");
    message.changeHeader("A", "1", 2);
    message.deleteHeader("A");
    message.deleteHeader("A", 1);
    const { headers, sender } = message;
    const header: Header | undefined = headers.first("A") ?? headers.all("A")[0] ?? headers.at(-1);
    if (header !== undefined) {
      const bytes: Uint8Array = header.bytes;
      message.changeHeader(header, header.text);
      message.insertBefore(header, "A", String(bytes.length));
      message.insertAfter(header, "A", headers.text("A") ?? "");
      message.deleteHeader(header);
    }
    const addresses: HeaderAddress[] = headers.addresses("From");
    for (const { name, address, local, domain } of addresses) strings.push(name, address, local, domain);
    strings.push(sender.local, sender.domain, sender.mailbox, message.recipients[0]?.mailbox);
    const blocks: Uint8Array[] = [message.rawHeaders(), message.rawHeaders({ withReceived: true })];
    strings.push(String(blocks.length));
    message.changeFrom("a@b", ["RET=HDRS"]);
    message.addRecipient("a@b");
    message.deleteRecipient("a@b");
    message.replaceBody(message.body());
    message.replaceBody("text\n");
    message.quarantine(`${message.receivedAt.getTime()} ${message.headers.getAll("A").length} ${strings.length}`);
    return discard();
  },
  unknown: (_session, command) => (command === "" ? reject() : undefined),
  abort(session) {
    void session.message.headers.length;
  },
  close(session) {
    void session.helo;
  },
});

// A filter with types of its own is a filter like any other.
export const typed: Filter<Score, Options> = whole;

/** A helper for plain sessions takes the session of every phase. */
export function helper(session: Session): string {
  return `${session.client.address} ${session.macros.get("j") ?? ""} ${session.phase} ${session.queueId}`;
}
export const helped = defineFilter({
  connect: (session) => void helper(session),
  header: (session) => void helper(session),
  eom: (session) => void helper(session),
  close: (session) => void helper(session),
});
