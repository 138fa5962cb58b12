/** A worker is lost: what it accepts by is taken from it, and never what another worker accepts by. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { close, deadSocket, dup, isListening } from "../../src/net/libc.ts";
import { ListeningSockets } from "../../src/server/listening/listening-sockets.ts";
import type { Generations } from "../../src/server/workers/generations.ts";
import { ConnectionTable } from "../../src/shared/connection-table.ts";
import type { ListeningSocket } from "../../src/shared/messages.ts";
import { parseConfig } from "../../src/config/load.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const [LOST, NEXT] = [0, 1];

test("a number that the next worker has got is not taken, however often the lost one is told of", async () => {
  await using folder = await tempDir("lost-listening");
  const { server } = parseConfig(
    `[server]\nlisten = "unix:${join(folder.path, "s")}"\n`,
    join(folder.path, "pmilter.toml"),
  );
  const table = ConnectionTable.create(2, 4, 1);
  const nothing = deadSocket();
  const generations: { listeningSockets: readonly ListeningSocket[] } = { listeningSockets: [] };
  const sockets = new ListeningSockets(table, generations as Generations, nothing, {
    log() {},
    acceptedHere() {},
    addSurplus() {},
  });
  await sockets.open(server);
  const own = generations.listeningSockets[0]!.descriptor;

  const lost = dup(own);
  table.setListening(LOST, 0, lost);
  sockets.revoke(LOST);
  expect(isListening(lost)).toBe(false);
  // Its thread has ended, and the next worker accepts by the same number.
  close(lost);
  const next = dup(own);
  expect(next).toBe(lost);
  table.setListening(NEXT, 0, next);
  sockets.revoke(LOST);
  expect(isListening(next)).toBe(true);
  sockets.revoke(NEXT);
  expect(isListening(next)).toBe(false);

  sockets.close();
  for (const each of [next, nothing]) close(each);
});

test("nor once its row is forgotten, or given to another", () => {
  const table = ConnectionTable.create(2, 4, 2);
  table.setListening(LOST, 0, 7);
  table.setListening(LOST, 1, 8);
  expect(table.listeningOf(LOST)).toEqual([7, 8]);
  table.forgetListening(LOST);
  expect(table.listeningOf(LOST)).toEqual([]);
  table.setListening(LOST, 1, 8);
  table.setEventPoll(LOST, 5);
  expect(table.eventPollOf(LOST)).toBe(5);
  table.openRow(LOST);
  expect([table.listeningOf(LOST), table.eventPollOf(LOST)]).toEqual([[], null]);
});
