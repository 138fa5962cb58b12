/**
 * Plays a transcript as an SMTP client of a real mail server that asks the filter. Changes show in what it delivers, and
 * verdicts in its replies; whether an event was asked for, and the words of a refusal without a text, are the server's.
 */
import type { Reply, SmtpClient } from "../support/smtp-client.ts";
import { crlf, linesOf, type Player, replyLines, type Seen } from "./play.ts";
import { type Answer, type Fate, type HabitName, isRefusal, type Step, type Verdict } from "./transcript.ts";

/** A mail server with the filter behind it. */
export interface MailServer {
  readonly habit: HabitName;
  /** A connection of an SMTP client of that name and address, greeted by the server but not yet by the client. */
  connect(name: string, address: string): Promise<{ readonly client: SmtpClient; readonly greeting: Reply }>;
  /** What became of the message that this reply accepted; `nothing` is not waited for, but for the other two it waits. */
  fate(reply: Reply, kind: Fate["kind"]): Promise<Fate>;
}

export class SmtpPlayer implements Player {
  readonly #server: MailServer;
  #client: SmtpClient | undefined;
  #greeting: Reply | undefined;
  /** The content of a message after 354; undefined outside of one. */
  #content: string | undefined;

  constructor(server: MailServer) {
    this.#server = server;
  }

  get habit(): HabitName {
    return this.#server.habit;
  }

  async play(step: Step, answer: Answer): Promise<Seen> {
    const reply = await this.#event(step, answer);
    // Until the server has said something, nothing is seen.
    if (reply === undefined) return { verdict: answer.verdict ?? "continue", reply: answer.reply };
    const seen = seenOf(reply);
    if (step.event === "unknown" && !isRefusal(answer.verdict)) {
      // The server itself knows no such command.
      return { verdict: seen.verdict === "reject" ? "continue" : seen.verdict, reply: [] };
    }
    if (isRefusal(seen.verdict)) {
      const isOwnText = answer.reply.length === 0 || (step.event === "connect" && this.habit === "sendmail");
      return { verdict: seen.verdict, reply: isOwnText ? answer.reply : withoutAddress(seen.reply) };
    }
    // An accepted or discarded message looks like any other.
    const verdict = isRefusal(answer.verdict) ? seen.verdict : (answer.verdict ?? "continue");
    if (step.event !== "eom" || step.fate === undefined) return { verdict, reply: [] };
    return { verdict, reply: [], fate: inOrderOf(step.fate, await this.#server.fate(reply, step.fate.kind)) };
  }

  async end(): Promise<void> {
    await this.#quit();
  }

  /** Gives the reply that tells of the event, or undefined if none does yet. */
  async #event({ event, args, text }: Step, { verdict }: Answer): Promise<Reply | undefined> {
    const [first = "", second = ""] = args;
    if (event === "connect") {
      await this.#quit();
      const { client, greeting } = await this.#server.connect(first, second);
      this.#client = client;
      this.#greeting = greeting;
      // Both servers go on talking to a client that was refused here, until it wants to send mail.
      return isRefusal(verdict) && greeting.code !== 421 ? await this.#firstMail(client, first) : greeting;
    }
    const client = this.#client;
    if (client === undefined) throw new Error(`${event} before connect`);
    switch (event) {
      case "helo": {
        const reply = await client.ehlo(first);
        return isRefusal(verdict) && reply.code === 250 ? await client.mail("") : reply;
      }
      case "envfrom":
        return await client.command(`MAIL FROM:${first}${second}`);
      case "envrcpt":
        return await client.command(`RCPT TO:${first}${second}`);
      case "data": {
        const reply = await client.command("DATA");
        if (reply.code === 354) this.#content = "";
        return reply;
      }
      case "header":
        return await this.#add(client, crlf([`${first}:${second}`, ...text]), verdict);
      case "eoh":
        return await this.#add(client, "\r\n", verdict);
      case "body":
        return await this.#add(client, crlf(text), verdict);
      case "eom":
        return await this.#finish(client);
      case "abort":
        return await client.rset();
      case "unknown":
        return await client.command(first);
      case "quit":
        await this.#quit();
        return undefined;
      default:
        return event satisfies never;
    }
  }

  async #firstMail(client: SmtpClient, name: string): Promise<Reply> {
    const reply = await client.ehlo(name);
    return reply.code === 250 ? await client.mail("") : reply;
  }

  /** The server has the whole message before the filter sees any of it: a refusal of a part comes at the end. */
  async #add(client: SmtpClient, text: string, verdict: Verdict | undefined): Promise<Reply | undefined> {
    if (this.#content === undefined) throw new Error("content without DATA");
    this.#content += text;
    return isRefusal(verdict) ? await this.#finish(client) : undefined;
  }

  async #finish(client: SmtpClient): Promise<Reply> {
    const content = this.#content;
    if (content === undefined) throw new Error("the end of a message without DATA");
    this.#content = undefined;
    return await client.content(Buffer.from(content));
  }

  async #quit(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    if (client === undefined) return;
    if (this.#greeting?.code !== 421 && !client.isClosed) await client.command("QUIT");
    await client.close();
  }
}

function seenOf({ code, lines }: Reply): Seen {
  const verdict: Verdict = code >= 500 ? "reject" : code >= 400 ? "tempfail" : "continue";
  if (code === 0) throw new Error(lines.join("\n"));
  return { verdict, reply: replyLines(code, lines) };
}

/** Sendmail puts the address before the text of some replies to MAIL and RCPT. */
function withoutAddress(reply: readonly string[]): string[] {
  return reply.map((line) => line.replace(/^(\d{3}[ -][\d.]+ )<\S*>\.\.\. /, "$1"));
}

/** Recipients have no order once the server has taken them. */
function inOrderOf(expected: Fate, seen: Fate): Fate {
  if (expected.kind === "nothing" || seen.kind === "nothing") return seen;
  const rank = (address: string): number => expected.to.indexOf(address) + 1 || Infinity;
  return { ...seen, to: seen.to.toSorted((a, b) => rank(a) - rank(b)) };
}

/** A message as lines. */
export function messageLines(fields: readonly string[], body: string): string[] {
  return linesOf(crlf([...fields, ""]) + body);
}
