/**
 * What the integration tests share: a site (pmilter processes, a Postfix that asks them, a sink that gets the mail), and
 * filters whose behaviours are written beside the expectations and chosen by the name of the SMTP client.
 */
import * as api from "../../src/index.ts";
import type { Filter } from "../../src/index.ts";
import { PHASE_NAMES } from "../../src/protocol/phases.ts";
import type { PmilterOptions } from "../support/pmilter.ts";
import { type Postfix, type PostfixOptions, queueIdOf, startPostfix } from "../support/postfix.ts";
import type { Reply, SendMailResult } from "../support/smtp-client.ts";
import type { SinkMessage } from "../support/smtp-sink.ts";
import { buildSite, type KeptMessage, MailSite, type Route, type SiteFilters, type SiteParts } from "./site.ts";

export interface SiteOptions {
  readonly filters: SiteFilters;
  /** More of Postfix; `milters` are the addresses of the filters by name. */
  readonly postfix?: (milters: Readonly<Record<string, string>>) => Omit<PostfixOptions, "sinkPort">;
}

/** Starts all of it. The first filter's service is the default of `send`. */
export async function startSite({ filters, postfix = () => ({}) }: SiteOptions): Promise<Site> {
  return await buildSite(
    filters,
    async (milters, sinkPort) => {
      const services = Object.entries(milters).map(([name, address]) => ({ name, milters: address }));
      const more = postfix(milters);
      return await startPostfix({ ...more, sinkPort, services: [...services, ...(more.services ?? [])] });
    },
    (server, shared) => new Site(server, shared),
  );
}

export class Site extends MailSite {
  readonly postfix: Postfix;
  #arrival: Promise<unknown> | undefined;

  constructor(postfix: Postfix, shared: SiteParts) {
    super(shared);
    this.postfix = postfix;
  }

  port(name = this.first): number {
    return this.postfix.port(name);
  }

  protected route(as: string | undefined, service: string | undefined): Route {
    return { port: this.port(service), ...(as !== undefined && { xclient: { name: clientName(as) } }) };
  }

  async delivered(reply: Reply): Promise<SinkMessage> {
    const id = queueIdOf(reply);
    for (;;) {
      const found = this.deliveriesOf(id)[0];
      if (found !== undefined) return found;
      this.#arrival ??= this.sink.next().finally(() => {
        this.#arrival = undefined;
      });
      await this.#arrival;
    }
  }

  async queueIds(): Promise<string[]> {
    return (await this.postfix.queue()).map(({ id }) => id);
  }

  async kept(queueId: string): Promise<KeptMessage> {
    return await this.postfix.heldMessage(queueId);
  }
}

/** The client's host name that chooses a behaviour. */
export function clientName(behaviour: string): string {
  return `${behaviour}.client.test`;
}

/**
 * A behaviour of a scripted filter. It travels to the server as its own source text, so it may use its argument (what
 * handlers import from "pmilter") and nothing else from around it.
 */
export type Behaviour = (pmilter: typeof api) => Filter;

/** The source of a filter that behaves as the SMTP client's name says; it has the phases that its behaviours have. */
export function scripted(behaviours: Readonly<Record<string, Behaviour>>, options: Partial<Filter> = {}): string {
  const used = new Set(Object.values(behaviours).flatMap((behaviour) => Object.keys(behaviour(api))));
  const phases = PHASE_NAMES.filter((phase) => used.has(phase));
  const table = Object.entries(behaviours).map(([name, behaviour]) => `${JSON.stringify(name)}: (${behaviour})(api)`);
  return `import * as api from "pmilter";
const behaviours = {\n${table.join(",\n")}\n};
const of = (session) => behaviours[session.client.hostname.replace(".client.test", "")];
export default api.defineFilter({
  ...${JSON.stringify(options)},
  ${phases.map((phase) => `${phase}: (session, ...rest) => of(session)?.${phase}?.(session, ...rest)`).join(",\n  ")}
});
`;
}

/** The options of a pmilter with one filter, `filter.ts`, in one worker: its log lines come in order. */
export function oneFilter(source: string, server: PmilterOptions["server"] = {}): PmilterOptions {
  return {
    config: '[[filter]]\npath = "filter.ts"\n',
    server: { workers: 1, ...server },
    files: { "filter.ts": source },
  };
}

/** Which step of the SMTP dialogue decided, and its reply: `rcpt: 550 5.1.1 No such user`. Queue ids are left out. */
export function outcome(result: SendMailResult): string {
  const { greeting, xclient, helo, mail, rcpt, data, end, last } = result;
  const steps = { greeting, xclient, helo, mail, rcpt: rcpt.at(-1), data, end };
  const step = Object.entries(steps).findLast(([, reply]) => reply === last)?.[0];
  return `${step}: ${said(last)}`;
}

/** A reply as the client sees it, without the queue id; lines are separated by " | ". */
export function said({ code, lines }: Reply): string {
  return `${code} ${lines.join(" | ").replace(/queued as \w+/, "queued")}`;
}

/** Header fields, each with its folded lines, and the body. */
export function parts(text: string): { fields: string[]; body: string } {
  const end = text.startsWith("\r\n") ? 0 : text.indexOf("\r\n\r\n") + 2;
  const fields = text.slice(0, end).split(/\r\n(?![ \t])/);
  return { fields: fields.slice(0, -1), body: text.slice(end + 2) };
}

/** The same, with Postfix's own Received header as the word RECEIVED, so that its place shows. */
export function fieldsOf({ text }: { readonly text: string }): string[] {
  return parts(text).fields.map((field) => (/^Received: from .*\r\n\tby mx\./.test(field) ? "RECEIVED" : field));
}

/** The message without the header that Postfix puts in front. */
export function withoutReceived(text: string): string {
  const { fields } = parts(text);
  if (!/^Received: .*\r\n\tby mx\./.test(fields[0] ?? "")) throw new Error(`no Received on top: ${fields.join("\n")}`);
  return text.slice(fields[0]!.length + 2);
}
