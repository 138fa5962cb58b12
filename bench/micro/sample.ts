/** The mail that the microbenchmarks work on, as a Postfix would send it to the real chain. */
import { parseConfig } from "../../src/config/load.ts";
import type { Chain } from "../../src/handler/chain.ts";
import { negotiate } from "../../src/protocol/negotiate.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { loadChain } from "../../src/worker/loader.ts";
import { type HandlerSet, handlerConfig } from "../support/servers.ts";
import { type Traffic, trafficFor } from "../support/traffic.ts";
import { defaultOffer } from "../../src/testing/habits.ts";

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
