/**
 * pmilter against libmilter: the same streams to a filter linked to it (`peer.c`) and to the running server, with the same
 * rules. Every reply is compared; what differs is in the table of `differences.ts`, or fails. And pmilter against pmilter,
 * with verdicts on content given at once and at the end of the message.
 *
 * `PMILTER_SEED` gives other streams, `PMILTER_DIFFERENTIAL_SESSIONS` more or fewer.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { Random } from "../protocol/random.ts";
import { page, tableRows } from "../docs/blocks.ts";
import { describeWith } from "../support/available.ts";
import { type TempDir, tempDir } from "../support/temp.ts";
import { words } from "../server/wire.ts";
import { bytesOf, command, parseReplies } from "./commands.ts";
import { compareEnds } from "./deferred.ts";
import { DIFFERENCES, NEGOTIATION_DIFFERENCES } from "./differences.ts";
import { exchange, pooled } from "./exchange.ts";
import { LibmilterStates } from "./libmilter.ts";
import { cc, compilePeer, libmilter, startPeer } from "./peer.ts";
import {
  FIRST_SEED,
  generatedStreams,
  negotiated,
  play,
  repliesOf,
  socketOf,
  startServer,
  Sums,
  VARIANTS,
} from "./run.ts";
import { anyOffer, EVERYTHING, type Offer, offerOf, optneg } from "./streams.ts";
import { recordedStreams } from "./transcripts.ts";

setDefaultTimeout(120_000);

const SESSIONS = Number(Bun.env["PMILTER_DIFFERENTIAL_SESSIONS"] ?? 12_000);
/** Below this some of the rarer differences are not to be expected. */
const ENOUGH_SESSIONS = 10_000;
/** Offers for each variant: each has a peer of its own, which is negotiated once. */
const OFFERS = 12;
const NEGOTIATIONS = 500;
const DEFERRED_SESSIONS = 2_000;
const TIMEOUT_MS = 600_000;

describeWith([cc, libmilter], "against libmilter", () => {
  let folder: TempDir;
  let program: string;
  let sockets = 0;
  const nextSocket = (): string => `${folder.path}/${sockets++}.sock`;
  const sums = new Sums();
  const offers = new Sums();
  beforeAll(async () => {
    folder = await tempDir("differential");
    program = await compilePeer(folder.path);
  }, TIMEOUT_MS);
  afterAll(async () => await folder?.[Symbol.asyncDispose]());

  describe.each(VARIANTS.map((variant, at) => ({ ...variant, at })))("$name", ({ at, ...variant }) => {
    test(
      "offers are answered alike",
      async () => {
        await using server = await startServer(variant);
        const path = socketOf(server);
        const wanted = (await negotiated(path, EVERYTHING))!;
        const { phases } = variant;
        await using peer = await startPeer({ program, path: nextSocket(), phases, mode: "offered", ...wanted });
        const random = new Random(FIRST_SEED * 1000 + at);
        const all = Array.from({ length: NEGOTIATIONS }, () => anyOffer(random));
        await pooled(all, 8, async (offer) => {
          const [theirs, ours] = await Promise.all([negotiated(peer.path, offer), negotiated(path, offer)]);
          offers.sessions += 1;
          const known = NEGOTIATION_DIFFERENCES.find((each) => each.is({ offer, libmilter: theirs, pmilter: ours }));
          if (known !== undefined) offers.see(known.name);
          else if (!Bun.deepEquals(theirs, ours)) {
            const answers = `libmilter ${JSON.stringify(theirs)}, pmilter ${JSON.stringify(ours)}`;
            offers.failures.push(`offer ${JSON.stringify(offer)} (PMILTER_SEED=${FIRST_SEED}): ${answers}`);
          }
        });
        offers.check();
        for (const odd of [words(6, 0x1ff), words(1, 0x1ff, 0x1fffff), words(0, 0, 0)]) {
          const stream = bytesOf([command("O", odd), command("Q")]);
          const answers = [await exchange(peer.path, stream, "now"), await exchange(path, stream, "never")];
          expect(answers.map(({ bytes }) => bytes.length)).toEqual([0, 0]);
        }
        expect(await peer.problems()).toBe("");
      },
      TIMEOUT_MS,
    );

    test(
      "generated and recorded streams are answered alike",
      async () => {
        await using server = await startServer(variant);
        const stage = { variant, server: socketOf(server), program };
        const seed = (FIRST_SEED * VARIANTS.length + at) * OFFERS;
        const random = new Random(seed);
        const offers: readonly Offer[] = [EVERYTHING, ...Array.from({ length: OFFERS - 1 }, () => offerOf(random))];
        const sessions = Math.ceil(SESSIONS / VARIANTS.length / OFFERS);
        for (const [index, offer] of offers.entries()) {
          const streams = generatedStreams(offer, (seed + index) * 1_000_003, sessions);
          await play({ ...stage, socket: nextSocket() }, offer, streams, sums);
        }
        for (const offer of [EVERYTHING, { version: 2, actions: 0x3f, protocol: 0x7f }]) {
          const streams = recordedStreams().map(({ name, commands }) => ({
            name,
            commands: [optneg(offer), ...commands],
          }));
          await play({ ...stage, socket: nextSocket() }, offer, streams, sums);
        }
        sums.check();
      },
      TIMEOUT_MS,
    );
  });

  test("each known difference was seen, and most commands could be compared", () => {
    const known = [...DIFFERENCES, ...NEGOTIATION_DIFFERENCES].map(({ name }) => ({
      name,
      count: sums.differences.get(name) ?? offers.differences.get(name) ?? 0,
    }));
    console.log(
      [
        `${offers.sessions} offers; ${sums.sessions} sessions, ${sums.compared} commands compared,` +
          ` ${sums.suspended} behind a difference; sessions with`,
        ...known.map(({ name, count }) => `  ${name}: ${count}`),
      ].join("\n"),
    );
    expect(sums.compared).toBeGreaterThan(2 * sums.suspended);
    if (sums.sessions < ENOUGH_SESSIONS) return;
    expect(known.filter(({ count }) => count === 0)).toEqual([]);
  });
});

test(
  "deferred verdicts on content end each message as those at once do",
  async () => {
    const [variant, deferring] = [VARIANTS[0]!, VARIANTS[1]!];
    await using atOnce = await startServer(variant);
    await using deferred = await startServer(deferring);
    const [left, right] = [socketOf(atOnce), socketOf(deferred)];
    const protocols = [await negotiated(left, EVERYTHING), await negotiated(right, EVERYTHING)].map(
      (answer) => answer!.protocol,
    );
    const answers = protocols.map((protocol) => (code: string) => LibmilterStates.answers(code, protocol));
    expect(["L", "N", "B"].map((code) => [answers[0]!(code), answers[1]!(code)])).toEqual(
      Array.from({ length: 3 }, () => [true, false]),
    );
    const sums = { ends: 0, decided: 0 };
    const streams = generatedStreams(EVERYTHING, FIRST_SEED * 1_000_003, DEFERRED_SESSIONS);
    await pooled(streams, 12, async ({ name, commands: all }) => {
      // The OPTNEG answers differ in what this is about.
      const commands = all.slice(all.findIndex(({ code }) => code === "O") + 1);
      const stream = [optneg(EVERYTHING), ...commands];
      const [first, second] = await Promise.all([
        repliesOf(left, stream, protocols[0]!),
        repliesOf(right, stream, protocols[1]!),
      ]);
      try {
        const replies = { atOnce: first.slice(1), deferred: second.slice(1) };
        const { ends, decided } = compareEnds(commands, replies, { atOnce: answers[0]!, deferred: answers[1]! });
        sums.ends += ends;
        sums.decided += decided;
      } catch (error) {
        throw new Error(`${name} (PMILTER_SEED=${FIRST_SEED})`, { cause: error });
      }
    });
    console.log(
      `${DEFERRED_SESSIONS} sessions, ${sums.ends} ends of messages, ${sums.decided} with a verdict on content`,
    );
    expect(sums.decided).toBeGreaterThan(DEFERRED_SESSIONS / 40);
  },
  TIMEOUT_MS,
);

test("docs/differential.md lists the known differences with their reasons", () => {
  const rows = tableRows(page("docs/differential.md").text).filter(([name]) => name?.startsWith("`"));
  const known = [...DIFFERENCES, ...NEGOTIATION_DIFFERENCES];
  expect(rows.map(([name, reason]) => [name, reason])).toEqual(
    known.map(({ name, reason }) => [`\`${name}\``, reason]),
  );
});

test("parseReplies refuses what is no reply", () => {
  expect(parseReplies(bytesOf([command("c"), command("y", "550 x\0")])).map(({ code }) => code)).toEqual(["c", "y"]);
  expect(() => parseReplies(Buffer.from([0, 0, 0, 9, 0x63]))).toThrow("not whole");
});
