/** Plays a transcript with `MilterClient`: every event, reply and change is seen as it is on the wire. */
import {
  applyModifications,
  type EomReply,
  type EventReply,
  formatMail,
  type Message,
  type MilterClient,
  type Modification,
} from "../../src/testing/index.ts";
import { crlf, linesOf, type Player, replyLines, type Seen } from "./play.ts";
import type { Fate, HabitName, Step } from "./transcript.ts";

interface Draft {
  sender: string;
  recipients: string[];
  headers: { name: string; value: string }[];
  body: string;
  isDiscarded: boolean;
}

export class ClientPlayer implements Player {
  readonly habit: HabitName;
  readonly #open: () => Promise<MilterClient>;
  #client: MilterClient | undefined;
  #draft: Draft = emptyDraft("");

  /** @param open gives a new connection, with nothing sent */
  constructor(habit: HabitName, open: () => Promise<MilterClient>) {
    this.habit = habit;
    this.#open = open;
  }

  async play(step: Step): Promise<Seen> {
    if (step.event === "connect") {
      await this.#client?.quit();
      this.#client = await this.#open();
      await this.#client.negotiate();
    }
    const client = this.#client;
    if (client === undefined) throw new Error(`line ${step.line}: ${step.event} before connect`);
    const reply = await this.#event(client, step);
    const seen = seenOf(reply);
    if (reply.kind === "discard") this.#draft.isDiscarded = true;
    if (step.event !== "eom" || seen.verdict === "reject" || seen.verdict === "tempfail") return seen;
    return { ...seen, fate: this.#fate(client, reply as EomReply) };
  }

  async end(): Promise<void> {
    await this.#client?.quit();
  }

  async #event(client: MilterClient, { event, args, text }: Step): Promise<EventReply> {
    const [first = "", second = ""] = args;
    const draft = this.#draft;
    switch (event) {
      case "connect":
        return client.connect({ hostname: first, address: second });
      case "helo":
        return client.helo(first);
      case "envfrom":
        this.#draft = emptyDraft(first);
        return client.envfrom(first, words(second));
      case "envrcpt": {
        const reply = await client.envrcpt(first, words(second));
        if (!["reject", "tempfail", "replycode"].includes(reply.kind)) draft.recipients.push(first);
        return reply;
      }
      case "data":
        return client.data();
      case "header": {
        const value = [second, ...text].join("\n");
        draft.headers.push({ name: first, value });
        return client.header(first, value);
      }
      case "eoh":
        return client.eoh();
      case "body":
        draft.body += crlf(text);
        return client.body(Buffer.from(crlf(text)));
      case "eom":
        return client.eom();
      case "abort":
        return client.abort();
      case "unknown":
        return client.unknown(first);
      case "quit":
        await client.quit();
        this.#client = undefined;
        return { kind: "none", sent: true };
      default:
        return event satisfies never;
    }
  }

  #fate(client: MilterClient, { received = [] }: EomReply): Fate {
    const { sender, recipients, headers, body, isDiscarded } = this.#draft;
    if (isDiscarded) return { kind: "nothing" };
    const message: Message = {
      headers,
      body: Buffer.from(body),
      envelope: {
        sender: { address: sender, params: [] },
        recipients: recipients.map((address) => ({ address, params: [] })),
      },
    };
    const { leadingSpace } = client.negotiated!;
    const result = applyModifications(message, received, { as: this.habit, leadingSpace });
    return {
      kind: result.quarantine === undefined ? "delivered" : "held",
      from: result.envelope.sender.address,
      to: result.envelope.recipients.map(({ address }) => address),
      message: linesOf(Buffer.from(formatMail(result)).toString()),
    };
  }
}

function emptyDraft(sender: string): Draft {
  return { sender, recipients: [], headers: [], body: "", isDiscarded: false };
}

function words(params: string): string[] {
  return params.split(" ").filter((word) => word !== "");
}

function seenOf(reply: EventReply): Seen {
  const changes = "modifications" in reply ? (reply as EomReply).modifications.map(describe) : [];
  switch (reply.kind) {
    case "none":
      return { verdict: reply.sent ? "no reply" : "not sent", reply: [], changes };
    case "replycode":
      return {
        verdict: reply.code >= 500 ? "reject" : "tempfail",
        reply: replyLines(
          reply.code,
          reply.lines.map((line) => `${reply.enhanced} ${line}`),
        ),
        changes,
      };
    default:
      return { verdict: reply.kind, reply: [], changes };
  }
}

/** A change in the words of transcripts. */
function describe(change: Modification): string {
  switch (change.kind) {
    case "addHeader":
      return `addHeader ${change.name}: ${change.value}`;
    case "insertHeader":
    case "changeHeader":
      return `${change.kind} ${change.index} ${change.name}: ${change.value}`;
    case "deleteHeader":
      return `deleteHeader ${change.index} ${change.name}`;
    case "changeFrom":
    case "addRecipient":
      return [change.kind, change.address, ...change.params].join(" ");
    case "deleteRecipient":
      return `deleteRecipient ${change.address}`;
    case "replaceBody":
      return "replaceBody";
    case "quarantine":
      return `quarantine ${change.reason}`;
    default:
      return change satisfies never;
  }
}
