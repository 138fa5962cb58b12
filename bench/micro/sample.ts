/** The mail that the microbenchmarks work on, as a Postfix would send it to the real chain. */
import { parseConfig } from "../../src/config/load.ts";
import type { Chain } from "../../src/handler/chain.ts";
import { Framer } from "../../src/protocol/framer.ts";
import { negotiate } from "../../src/protocol/negotiate.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { loadChain } from "../../src/load/loader.ts";
import { type HandlerSet, handlerConfig } from "../support/servers.ts";
import { type Traffic, trafficFor } from "../support/traffic.ts";
import { defaultOffer } from "../../src/testing/habits.ts";

const MAX_PACKET_BYTES = 1024 * 1024;

const chains = {
  ten: await load("ten"),
  eom: await load("eom"),
} as const;

function load(handlers: HandlerSet): Promise<Chain> {
  return loadChain(parseConfig(handlerConfig(handlers), "/bench/pmilter.toml"));
}

export function chainOf(handlers: keyof typeof chains): Chain {
  return chains[handlers];
}

export function mailTraffic(handlers: keyof typeof chains): Traffic {
  const answer = negotiate(defaultOffer(6), chains[handlers].wants);
  const writer = new ReplyWriter();
  writer.optneg(answer.version, answer.actions, answer.protocol, answer.lists);
  return trafficFor(writer.copy());
}

/** The payloads of all packets of that code that a Postfix writes for a session with a single message. */
export function payloadsOf(code: number): readonly Uint8Array[] {
  const { start, first } = mailTraffic("ten");
  const framer = new Framer(MAX_PACKET_BYTES);
  const payloads: Uint8Array[] = [];
  for (const { bytes } of [...start, ...first]) {
    framer.push(bytes);
    while (framer.next()) if (framer.code === code) payloads.push(framer.bytes.slice(framer.start, framer.end));
  }
  return payloads;
}
