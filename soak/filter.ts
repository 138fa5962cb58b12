/**
 * The filter that the soak runs. The client's commands say how it has to decide and to fail; it writes the values that it
 * saw to a header, so that a wrong or mixed-up reply shows. `server.ts` writes the filter with other versions.
 *
 * The sender is `<VERDICT.PHASE.MANNER.ID@soak.example>`, a recipient `<VERDICT.ID.INDEX@soak.example>`; a fault is a MAIL
 * argument `FAULT=KIND.PHASE`, or at connect, helo and close a client or HELO name `KIND.PHASE.fault.example`, or the
 * UNKNOWN command `FAULT KIND`.
 */
import { accept, defineFilter, discard, reject, type Result, tempfail } from "pmilter";

const VERSION = 0;

const MEBIBYTE = 2 ** 20;
/** Longer than the handler's deadline in the soak's configuration. */
const TARDY_MS = 2500;
const BLOCK_MS = 5000;

type Answer = Result<"envrcpt"> & Result<"eom">;
type Answers = Answer | Promise<Answer>;

interface State extends Record<string, unknown> {
  versions?: number[];
  hasFailed?: boolean;
  chunks?: number;
  bytes?: number;
}

async function eat(): Promise<void> {
  const eaten: Uint8Array[] = [];
  while (eaten.length < 30) {
    eaten.push(new Uint8Array(10 * MEBIBYTE).fill(1));
    await Bun.sleep(5);
  }
  await Bun.sleep(1000);
  eaten.length = 0;
}

/** A value that throws whatever is done with it. */
function unreadable(): Answer {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy as Answer;
}

function fail(kind: string, decide: () => Answers): Answers {
  switch (kind) {
    case "throws":
      throw new Error("soak: throws");
    case "rejects":
      return Promise.reject(new Error("soak: rejects"));
    case "odd":
      return unreadable();
    case "oddLater":
      return Bun.sleep(1).then(unreadable);
    case "floats":
      void Promise.reject(new Error("soak: floats"));
      return decide();
    case "timer":
      setTimeout(() => {
        throw new Error("soak: timer");
      }, 5);
      return decide();
    case "never":
      return new Promise<Answer>(() => {});
    case "tardy":
      return Bun.sleep(TARDY_MS).then(() => {
        throw new Error("soak: tardy");
      });
    case "loops":
      for (;;);
    case "loopsLater":
      return Bun.sleep(1).then(() => {
        for (;;);
      });
    case "blocks":
      Bun.sleepSync(BLOCK_MS);
      return decide();
    case "exits":
      process.exit(3);
    case "eats":
      return eat().then(decide);
    default:
      throw new Error(`soak: there is no fault ${kind}`);
  }
}

interface Asked {
  readonly phase: string;
  readonly state: State;
  readonly message: { readonly sender: { readonly address: string; readonly params: readonly string[] } };
}

/** Fails once a message where it is told to, else decides by the rule of the sender. */
function answer(session: Asked, decide: () => Answer = () => byRule(session)): Answers {
  const { phase, state } = session;
  const { address, params } = session.message.sender;
  const manner = address.split(".", 3)[2];
  const decided = (): Answers => (manner === "later" ? Bun.sleep(1).then(decide) : decide());
  const fault = params.find((param) => param.startsWith("FAULT="));
  const [kind, at] = fault?.slice("FAULT=".length).split(".") ?? [];
  if (kind === undefined || at !== phase || state.hasFailed === true) return decided();
  state.hasFailed = true;
  return fail(kind, decided);
}

function byRule({ message, phase }: Asked): Answer {
  const [verdict, at, , id = ""] = message.sender.address.split("@", 1)[0]!.split(".");
  return at === phase ? give(verdict, id) : undefined;
}

function give(verdict: string | undefined, id: string): Answer {
  switch (verdict) {
    case "accept":
      return accept();
    case "discard":
      return discard();
    case "reject":
      return reject(`550 5.7.1 ${id}`);
    case "tempfail":
      return tempfail(`451 4.7.1 ${id}`);
    default:
      return undefined;
  }
}

/** `KIND.PHASE.fault.example` fails at PHASE, `VERDICT.ID.rule.example` is the verdict on the connection. */
function byName(name: string, phase: string): Answers {
  const [first = "", second = "", what] = name.split(".");
  if (what === "fault" && second === phase) return fail(first, () => undefined);
  return what === "rule" ? give(first, second) : undefined;
}

export default defineFilter<State>({
  name: "soak",
  collectBody: true,
  connect: (session) => byName(session.client.hostname, "connect") as Result<"connect">,
  helo: (_, hostname) => byName(hostname, "helo") as Result<"helo">,
  envfrom(session) {
    session.state.versions = [VERSION];
    session.state.hasFailed = false;
    session.state.chunks = 0;
    session.state.bytes = 0;
    return answer(session);
  },
  envrcpt(session, recipient) {
    const [verdict, id = ""] = recipient.slice(1).split(".");
    return answer(session, () => byRule(session) ?? give(verdict, id));
  },
  data: (session) => answer(session),
  header: (session, name) => (name === "Subject" ? answer(session) : undefined),
  eoh: (session) => answer(session),
  body(session, chunk) {
    if (session.state.chunks === 0) session.state.versions?.push(VERSION);
    session.state.chunks = (session.state.chunks ?? 0) + 1;
    session.state.bytes = (session.state.bytes ?? 0) + chunk.length;
    return answer(session);
  },
  eom(session) {
    const { message, state } = session;
    const body = message.body();
    message.addHeader(
      "X-Soak",
      [
        `versions=${[...(state.versions ?? []), VERSION].join(",")}`,
        `sender=${message.sender.address}`,
        `to=${message.recipients.map(({ address }) => address).join(",")}`,
        `helo=${session.helo}`,
        `client=${session.client.hostname}`,
        `subject=${message.headers.get("Subject")}`,
        `headers=${message.headers.length}`,
        `chunks=${state.chunks}`,
        `bytes=${state.bytes}`,
        `body=${body.length}`,
        `digest=${Bun.hash(body).toString(16)}`,
      ].join(";"),
    );
    message.changeHeader("Subject", `changed ${message.headers.get("Subject")}`);
    message.deleteHeader("X-Drop");
    return answer(session);
  },
  abort(session) {
    return answer(session, () => undefined) as Result<"abort">;
  },
  unknown(_, command) {
    const [word, kind = ""] = command.split(" ");
    if (word === "FAULT") return fail(kind, () => undefined) as Result<"unknown">;
    return reject(`500 5.5.1 ${command}`);
  },
  // A HELO name that is a rule was for helo alone.
  close: (session) =>
    session.helo.includes(".rule.") ? undefined : (byName(session.helo, "close") as Result<"close">),
});
