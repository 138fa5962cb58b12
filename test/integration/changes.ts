/** A message, and filters that change it in the way that the client's name says, for tests behind both mail servers. */
import type { Message } from "../../src/handler/types.ts";
import type { PmilterOptions } from "../support/pmilter.ts";
import { oneFilter } from "./support.ts";

export const FIELDS = ["From: <alice@example.test>", "Subject: s", "X-A: 1", "X-B: 1", "X-A: 2", "x-a: 3", "X-C:tight"];
export const BODY = "one\r\n\r\n.two\r\n";
export const ORIGINAL = `${FIELDS.join("\r\n")}\r\n\r\n${BODY}`;

/** It travels to the server as its own source text. */
export type Change = (message: Message<"eom">) => void;

/** In what is to be delivered: the fields that the mail server puts in front. */
export const OWN = "OWN";

/** By name: changes of headers, and the fields as delivered. */
export type HeaderChanges = Readonly<Record<string, readonly [change: Change, delivered: readonly string[]]>>;

/** The behaviour that makes the change of this name. */
export function behaviourOf(table: HeaderChanges, name: string): string {
  return `headers-${Object.keys(table).indexOf(name)}`;
}

/** A filter that makes the change that the client's name says: one of `others`, or one of the table. */
export function changing(table: HeaderChanges, others: Readonly<Record<string, Change>>): PmilterOptions {
  const changes = [
    ...Object.entries(table).map(([name, [change]]) => [behaviourOf(table, name), change] as const),
    ...Object.entries(others),
  ];
  return oneFilter(`const changes = {\n${changes.map(([name, change]) => `${JSON.stringify(name)}: ${change}`).join(",\n")}\n};
export default {
  eom: (session) => changes[session.client.hostname.split(".")[0]]?.(session.message),
};
`);
}
