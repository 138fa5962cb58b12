/** Asks lists about a client, a name or the links of a message, all at once. */
import { isIP } from "node:net";
import type { Dns } from "pmilter";
import type { DomainList } from "../access-names.ts";
import { isPrivate } from "./addresses.ts";
import { NO_ADDRESSES } from "./codes.ts";
import type { ListHealth } from "./health.ts";
import { namesFor } from "./names.ts";
import { Asked, CLEAR, type DnsList, type Outcome, type Source, type Subject } from "./sources.ts";

/** The name of a client that leads back to its address, and what follows from there being one or none. */
export interface NameRules {
  /** Null if it is asked for by none. */
  readonly unconfirmed: Source | null;
  readonly allowed: Source | null;
  isAllowed(name: string): boolean;
}

export class Questions {
  readonly #dns: Dns;
  readonly #health: ListHealth;
  readonly #lists: readonly DnsList[];
  readonly #rules: NameRules;
  readonly #excepted: DomainList;
  readonly #timeoutMs: number;

  constructor(
    dns: Dns,
    health: ListHealth,
    options: {
      readonly except_domains: DomainList;
      readonly lists: readonly DnsList[];
      readonly rules: NameRules;
      readonly timeout: number;
    },
  ) {
    this.#dns = dns;
    this.#health = health;
    this.#lists = options.lists;
    this.#rules = options.rules;
    this.#excepted = options.except_domains;
    this.#timeoutMs = options.timeout;
  }

  /** Of a client's address, and of its confirmed name. */
  client(address: string): Asked[] {
    const { allowed, isAllowed, unconfirmed } = this.#rules;
    const asked = this.#of("client").map((list) => new Asked(list, this.#listed(list, [address])));
    const named = this.#of("name");
    if (named.length === 0 && unconfirmed === null && allowed === null) return asked;
    const name = this.#confirmedName(address);
    const after = (source: Source, outcomeOf: (name: string | null) => Outcome | Promise<Outcome>): void => {
      const outcome = async (): Promise<Outcome> => {
        const answer = await name;
        return typeof answer === "object" && answer !== null ? answer : outcomeOf(answer);
      };
      asked.push(new Asked(source, outcome()));
    };
    for (const list of named) after(list, (found) => (found === null ? CLEAR : this.#listed(list, namesFor(found))));
    if (unconfirmed !== null) {
      const { highest: score } = unconfirmed;
      after(unconfirmed, (found) => (found === null ? { status: "listed", what: address, codes: [], score } : CLEAR));
    }
    if (allowed !== null) {
      after(allowed, (found) =>
        found !== null && isAllowed(found) ? { status: "listed", what: found, codes: [], score: 0 } : CLEAR,
      );
    }
    return asked;
  }

  /** Of a domain, or of several that count as one. */
  domains(of: Exclude<Subject, "client" | "name">, domains: readonly string[]): Asked[] {
    const isAsked = (domain: string): boolean => !this.#excepted.has(domain);
    const hosts = domains.filter(isAsked);
    const names = [...new Set(hosts.flatMap(namesFor))].filter(isAsked);
    const addresses = of === "links" ? hosts.filter((host) => isIP(host) !== 0 && !isPrivate(host)) : [];
    return this.#of(of).map(
      (list) => new Asked(list, this.#listed(list, list.addresses ? [...addresses, ...names] : names)),
    );
  }

  #of(subject: Subject): DnsList[] {
    return this.#lists.filter(({ of }) => of === subject);
  }

  /** Null: it has none. */
  async #confirmedName(address: string): Promise<string | null | Outcome> {
    const { reason = "", records, status } = await this.#dns.confirmedName(address, this.#options);
    if (status === "failed") return { status: "failed", reason };
    return records[0] ?? null;
  }

  #listed(list: DnsList, names: readonly string[]): Promise<Outcome> {
    if (names.length === 0) return Promise.resolve(CLEAR);
    return this.#health.ask(list.zone, this.#timeoutMs, async () => {
      const options = { ...this.#options, text: false };
      const answers = await Promise.all(names.map((name) => this.#dns.listed(name, list.zone, options)));
      const codes = [...new Set(answers.flatMap((answer) => answer.codes))].filter((code) => code !== NO_ADDRESSES);
      const score = codes.length === 0 ? null : list.score(codes);
      if (score !== null) {
        const at = answers.findIndex((answer) => answer.codes.length > 0 && list.score(answer.codes) !== null);
        return { status: "listed", what: names[Math.max(0, at)]!, codes, score };
      }
      const failed = answers.find(({ status }) => status === "failed");
      return failed === undefined ? CLEAR : { status: "failed", reason: failed.reason ?? "" };
    });
  }

  get #options(): { readonly timeout: number } {
    return { timeout: this.#timeoutMs / 1000 };
  }

  /** A list's own words about what it has listed; `""` if it has none, or they do not come in time. */
  async text(zone: string, what: string): Promise<string> {
    const timeout = Math.min(this.#timeoutMs, TEXT_MS) / 1000;
    return (await this.#dns.listed(what, zone, { timeout })).text;
  }
}

/** How long a refusal may wait for the words of a list, milliseconds. */
const TEXT_MS = 1000;
