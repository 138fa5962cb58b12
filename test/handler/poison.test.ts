/**
 * Reads that are overwritten as soon as their callback is over, as the harness does with every read: whatever handlers
 * were given stays right, also for handlers that look at it later, whatever the cuts.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cmd } from "../protocol/wire.ts";
import { forSeedsAsync, mustEqual } from "../protocol/random.ts";
import { type AnyFilter, Line, settled } from "./harness.ts";

setDefaultTimeout(120_000);

const PACKETS = [
  cmd.macro("C", { j: "mx.test", v: "Postfix 3.10.2", _: "c.test [192.0.2.7]" }),
  cmd.connect("client.test"),
  cmd.macro("H", { "{tls_version}": "TLSv1.3" }),
  cmd.helo("helo.test"),
  cmd.macro("M", { "{auth_authen}": "ada" }),
  cmd.mail("<sender@c.test>", "SIZE=1234", "BODY=8BITMIME"),
  cmd.macro("R", { "{rcpt_addr}": "one@mx.test" }),
  cmd.rcpt("<one@mx.test>", "NOTIFY=NEVER"),
  cmd.rcpt("<two@mx.test>"),
  cmd.macro("T", { i: "4ZB1" }),
  cmd.data(),
  cmd.header("From", " Sender <sender@c.test>"),
  cmd.header("Subject", " a subject\n that is folded"),
  cmd.eoh(),
  cmd.body("The first chunk of the body.\r\n"),
  cmd.body("The second chunk of the body.\r\n"),
  cmd.eom("The last piece.\r\n"),
  cmd.unknown("XYZZY"),
  cmd.quit(),
];
const STREAM = Buffer.concat(PACKETS);

const WHOLE_BODY = "The first chunk of the body.\r\nThe second chunk of the body.\r\nThe last piece.\r\n";

const EXPECTED = [
  "connect client.test 192.0.2.7 40000 mx.test",
  "helo helo.test TLSv1.3",
  "envfrom <sender@c.test> SIZE=1234,BODY=8BITMIME ada",
  "envrcpt <one@mx.test> NOTIFY=NEVER one@mx.test",
  "envrcpt <two@mx.test>  one@mx.test",
  "data 4ZB1 2",
  "header From=Sender <sender@c.test>",
  "header Subject=a subject\n that is folded",
  "eoh 2",
  "body The first chunk of the body.\r\n",
  "body The second chunk of the body.\r\n",
  "body The last piece.\r\n",
  `eom ${WHOLE_BODY} From=Sender <sender@c.test>;Subject=a subject\n that is folded <sender@c.test> <one@mx.test>,<two@mx.test>`,
  "unknown XYZZY",
  "close client.test helo.test mx.test",
];

/** `later` runs a function now, or once the read is long over; with a promise if it is later. */
type Later = (look: () => unknown) => void | Promise<void>;

function noting(log: string[], later: Later): AnyFilter {
  return {
    collectBody: true,
    connect: (session) =>
      later(() =>
        log.push(
          `connect ${session.client.hostname} ${session.client.address} ${session.client.port} ${session.myHostname}`,
        ),
      ),
    helo: (session, hostname) => later(() => log.push(`helo ${hostname} ${session.tls.version}`)),
    envfrom: (session, sender, params) =>
      later(() => log.push(`envfrom ${sender} ${params.join()} ${session.auth.authen}`)),
    envrcpt: (session, recipient, params) =>
      later(() => log.push(`envrcpt ${recipient} ${params.join()} ${session.macros.get("{rcpt_addr}")}`)),
    data: (session) => later(() => log.push(`data ${session.queueId} ${session.message.recipients.length}`)),
    header: (_session, name, value) => later(() => log.push(`header ${name}=${value}`)),
    eoh: (session) => later(() => log.push(`eoh ${session.message.headers.length}`)),
    body: (_session, chunk) => later(() => log.push(`body ${Buffer.from(chunk).toString()}`)),
    eom: ({ message }) =>
      later(() => {
        const headers = [...message.headers].map(({ name, value }) => `${name}=${value}`).join(";");
        const recipients = message.recipients.map((one) => one.raw).join();
        log.push(`eom ${Buffer.from(message.body()).toString()} ${headers} ${message.sender.raw} ${recipients}`);
      }),
    unknown: (_session, command) => later(() => log.push(`unknown ${command}`)),
    close: (session) => later(() => log.push(`close ${session.client.hostname} ${session.helo} ${session.myHostname}`)),
  };
}

const atOnce: Later = (look) => void look();
/** A plain function that returns a promise: nothing tells beforehand that it will wait. */
const promised: Later = (look) =>
  Promise.resolve()
    .then(() => Promise.resolve())
    .then(() => void look());

/** The same handlers, each declared `async`. */
function asyncNoting(log: string[]): AnyFilter {
  const plain = noting(log, atOnce) as unknown as Record<string, (...args: unknown[]) => unknown>;
  const filter: Record<string, unknown> = { collectBody: true };
  for (const [phase, handler] of Object.entries(plain)) {
    if (typeof handler !== "function") continue;
    filter[phase] = async (...args: unknown[]) => {
      await Promise.resolve();
      await Promise.resolve();
      return handler(...args);
    };
  }
  return filter as AnyFilter;
}

async function run(filters: readonly AnyFilter[], pieces: readonly Uint8Array[], patient: boolean): Promise<void> {
  const line = Line.to(filters);
  for (const piece of pieces) {
    line.send(piece);
    if (patient) await settled();
  }
  for (let turn = 0; turn < 60 && !line.conversation.isOver; turn++) await settled();
  mustEqual(line.failures, [], "failures");
  mustEqual(line.conversation.isOver, true, "isOver");
}

describe("Conversation, reads that are overwritten", () => {
  const kinds: readonly [name: string, make: (log: string[]) => AnyFilter][] = [
    ["sync", (log) => noting(log, atOnce)],
    ["async", asyncNoting],
    ["promise-returning", (log) => noting(log, promised)],
  ];

  test.each(kinds)("%s handlers see what was sent, for any cuts", async (_name, make) => {
    await forSeedsAsync(60, async (random) => {
      const log: string[] = [];
      await run([make(log)], random.chance(0.3) ? PACKETS : random.cut(STREAM), random.chance(0.5));
      mustEqual(log, EXPECTED, "values");
    });
  });

  test.each(
    kinds.flatMap(([first, makeFirst]) =>
      kinds.map(([second, makeSecond]) => [first, second, makeFirst, makeSecond] as const),
    ),
  )("%s handlers before %s ones: both see what was sent", async (_first, _second, makeFirst, makeSecond) => {
    await forSeedsAsync(25, async (random) => {
      const logs: [string[], string[]] = [[], []];
      const pieces = random.chance(0.3) ? PACKETS : random.cut(STREAM);
      await run([makeFirst(logs[0]), makeSecond(logs[1])], pieces, random.chance(0.5));
      mustEqual(logs[0], EXPECTED, "values of the first filter");
      mustEqual(logs[1], EXPECTED, "values of the second filter");
    });
  });

  test("a read of the whole session at once, byte by byte, and packet by packet", async () => {
    for (const pieces of [[STREAM], [...STREAM].map((byte) => Buffer.of(byte))]) {
      const log: string[] = [];
      await run([asyncNoting(log)], pieces, false);
      expect(log).toEqual(EXPECTED);
    }
  });

  test("a collected body that a handler keeps stays as it was when the next message comes", () => {
    const bodies: Uint8Array[] = [];
    const line = Line.to([{ collectBody: true, eom: (session) => void bodies.push(session.message.body()) }]);
    line.send(cmd.mail(), cmd.body("one"), cmd.eom(), cmd.mail(), cmd.body("two"), cmd.eom(), cmd.mail(), cmd.eom());
    expect(bodies.map((body) => Buffer.from(body).toString())).toEqual(["one", "two", ""]);
  });
});
