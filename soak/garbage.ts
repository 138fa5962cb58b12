/** Clients that do not speak the milter protocol, or violate it: the server has to close, and no other client may notice. */
import { PROTOCOL } from "../src/protocol/constants.ts";
import { CommandWriter } from "../src/protocol/commands.ts";
import type { PlayerHome } from "./player.ts";
import type { Random } from "./random.ts";
import { SoakTransport } from "./transport.ts";

/** The server closes such a connection at once; more is the machine's doing. */
const CLOSE_MS = 1000;

function optneg(version = 6): CommandWriter {
  const writer = new CommandWriter();
  writer.optneg(version, 0x1ff, PROTOCOL.HDR_LEADSPC);
  return writer;
}

function after(begin: CommandWriter, ...bytes: readonly number[]): Uint8Array {
  begin.bytes(Buffer.from(bytes));
  return begin.copy();
}

function second(): Uint8Array {
  const writer = optneg();
  writer.optneg(6, 0, 0);
  return writer.copy();
}

/** Each breaks the protocol at its end. */
const BREACHES: Readonly<Record<string, () => Uint8Array>> = {
  "length 0": () => after(optneg(), 0, 0, 0, 0),
  "length 0 at once": () => Buffer.from([0, 0, 0, 0]),
  "length 0xFFFFFFFF": () => after(optneg(), 0xff, 0xff, 0xff, 0xff, 0x4d),
  "version 1": () => optneg(1).copy(),
  "short OPTNEG": () => Buffer.from([0, 0, 0, 5, 0x4f, 0, 0, 0, 6]),
  "second OPTNEG": second,
  "unknown command": () => after(optneg(), 0, 0, 0, 1, 0x7a),
  "no NUL": () => after(optneg(), 0, 0, 0, 3, 0x4d, 0x3c, 0x3e),
  HTTP: () => Buffer.from("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
};
const NAMES = Object.keys(BREACHES);

export async function playGarbage(home: PlayerHome, number: number, random: Random): Promise<void> {
  const from = home.now();
  const name = random.chance(1, 4) ? "chance" : random.pick(NAMES);
  let transport: SoakTransport;
  try {
    transport = await SoakTransport.connect(random.chance(1, 2) ? home.targets.tcp : home.targets.unix);
  } catch (error) {
    home.account.problem("dropped", from, number, `cannot connect: ${String(error)}`);
    return;
  }
  home.account.add("garbage");
  home.account.count("connections", 1);
  const closed = Promise.withResolvers<void>();
  let isClosed = false;
  transport.onClose = () => {
    isClosed = true;
    closed.resolve();
  };
  const bytes = BREACHES[name]?.() ?? Uint8Array.from({ length: random.between(1, 400) }, () => random.below(256));
  transport.send(bytes);
  const sent = home.now();
  // Bytes by chance may be the beginning of a packet: nothing closes then.
  const patience = name === "chance" ? 200 : CLOSE_MS + home.allowanceMs + 4 * CLOSE_MS;
  const timer = setTimeout(closed.resolve, patience);
  await closed.promise;
  clearTimeout(timer);
  const limit = CLOSE_MS + home.allowanceMs + home.incidents.during(sent, home.now()) * 2 * CLOSE_MS;
  const ms = home.now() - sent;
  if (name !== "chance" && (!isClosed || ms > limit)) {
    const what = isClosed ? `was closed after ${Math.round(ms)} ms, allowed are ${limit}` : "was not closed";
    home.account.problem("late", sent, number, `a client that sent ${name} ${what}`, transport.conversation);
  }
  const isSure = name !== "chance" && home.incidents.during(sent, home.now()) === 0;
  home.account.count("protocolErrors", isSure ? 1 : 0, isSure ? 0 : 1);
  if (!isSure)
    for (const counter of ["messages", "tempfailed", "fallbacks", "connectionsRefused", "sessionsLost"] as const)
      home.account.count(counter, 0, 1);
  transport.destroy();
}
