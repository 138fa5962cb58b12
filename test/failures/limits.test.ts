/** The limits of the configuration in the running server, each at one below, at, and one above: rows of docs/failures.md. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { BODY, DATA, EOH, EOM, OFFERS, OPTNEG, packet, RawClient } from "../server/wire.ts";
import { connect, expectCodes, helo, mail, rcpt, statusOf } from "../recovery/support.ts";
import { startPmilter } from "../support/pmilter.ts";

setDefaultTimeout(120_000);

const SOURCE = `import { defineFilter } from "pmilter";
export default defineFilter({ collectBody: true, envfrom() {}, envrcpt() {}, data() {}, header() {}, eoh() {}, eom() {} });
`;

const HEADER_LIMIT = 300;
const LIMITS = `[limits]
headers = 4
header_bytes = ${HEADER_LIMIT}
recipients = 4
macros = 100
body = 1000
packet = 131072
`;

const header = (value: string) => packet("L", `A\0${value}\0`);
const times = (count: number, command: Uint8Array) => Array.from({ length: count }, () => command);

/** By row and limit: what a message has of it that is just allowed, and the commands for so much and a difference. */
const CASES: readonly [row: string, key: string, make: (difference: number) => Uint8Array[]][] = [
  ["limit-headers", "headers", (difference) => [rcpt(), DATA, ...times(4 + difference, header(" 1"))]],
  // The name, the value and two NULs count.
  [
    "limit-header-bytes",
    "header_bytes",
    (difference) => [rcpt(), DATA, header("x".repeat(HEADER_LIMIT - 3 + difference))],
  ],
  ["limit-recipients", "recipients", (difference) => times(4 + difference, rcpt())],
  ["limit-body", "body", (difference) => [rcpt(), DATA, EOH, packet("B", "x".repeat(1000 + difference))]],
  ["limit-macros", "macros", (difference) => [packet("D", `Ri\0${"x".repeat(97 + difference)}\0`), rcpt()]],
];

test.each(CASES)("%s: limits.%s at, below and above it", async (_, key, make) => {
  await using server = await startPmilter({
    server: { workers: 1, on_error: key === "body" ? "accept" : "reject" },
    config: `${LIMITS}[[filter]]\npath = "filter.ts"\n`,
    files: { "filter.ts": SOURCE },
  });
  for (const offer of OFFERS) {
    using session = await RawClient.connect(server.addresses[0]!);
    for (const command of [offer, connect(), helo()]) await session.ask(command);
    for (const difference of [-1, 0, 1]) {
      const from = server.log.all.length;
      expectCodes(await session.ask(mail()), "c");
      let codes = "";
      for (const command of make(difference)) {
        if (command[4] === "D".charCodeAt(0)) await session.send(command);
        else codes += await session.ask(command);
      }
      if (difference === 1) {
        // Given with the command that passed it, or with the next one whose reply is about the message.
        if (!/[ry]$/.test(codes)) codes += await session.ask(EOM);
        expect(codes, key).toMatch(key === "body" ? /^c*y$/ : /^c*r$/);
        await server.log.next(new RegExp(`limit passed: .*error=.*limits\\.${key}.*fallback=reject`), { from });
      } else {
        expect(codes, key).toMatch(/^c*$/);
        expectCodes(await session.ask(EOM), "c");
      }
    }
    // The next one is not concerned.
    const codes = await session.ask(mail(), rcpt(), DATA, header(" 1"), EOH, BODY, EOM);
    expectCodes(codes, "c".repeat(codes.length));
  }
  expect((await statusOf(server)).counters).toMatchObject({ limits: 2, rejected: 2, fallbacks: 2, accepted: 6 });
});

test("limit-collect-body: collectBody.max at and above it, for each rule; the other filter has the body", async () => {
  const filter = (over: string) => `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  name: "${over}",
  collectBody: { max: "1KB", over: "${over}" },
  eom({ message }) { if (message.body() !== null && message.body().length > 1024) return reject("550 5.7.1 Too much"); },
});
`;
  for (const [over, code, line, counters] of [
    ["reject", "y", /limit passed: .*filter=reject .*collectBody\.max.*fallback=reject/, { limits: 1, fallbacks: 1 }],
    [
      "fallback",
      "t",
      /limit passed: .*filter=fallback .*collectBody\.max.*fallback=tempfail/,
      { limits: 1, fallbacks: 1 },
    ],
    ["skip", "r", /filter goes on without the body: .*filter=skip .*collectBody\.max/, { limits: 0, fallbacks: 0 }],
  ] as const) {
    await using server = await startPmilter({
      server: { workers: 1, log_level: "info" },
      config: `[[filter]]\npath = "over.ts"\n[[filter]]\npath = "other.ts"\n`,
      files: {
        "over.ts": filter(over),
        "other.ts": `import { defineFilter, reject } from "pmilter";
export default defineFilter({ collectBody: true, eom({ message }) {
  if (message.body().length === 1025) return reject("550 5.7.1 Seen by the other");
} });
`,
      },
    });
    using session = await RawClient.connect(server.addresses[0]!);
    for (const command of [OPTNEG, connect(), helo()]) await session.ask(command);
    for (const size of [1024, 1025]) {
      await session.ask(mail(), rcpt(), DATA, EOH);
      const codes = await session.ask(packet("B", "x".repeat(size)), EOM);
      expect(codes.at(-1), over).toBe(size === 1024 ? "c" : code === "r" ? "y" : code);
    }
    await server.log.next(line);
    expect((await statusOf(server)).counters).toMatchObject(counters);
  }
});

test("limit-packet: limits.packet at and above it: over it the connection is closed, with one line", async () => {
  await using server = await startPmilter({
    server: { workers: 1 },
    config: `${LIMITS}[[filter]]\npath = "filter.ts"\n`,
    files: { "filter.ts": SOURCE.replace("collectBody: true, ", "") },
  });
  for (const [size, isOver] of [
    [131_071, false],
    [131_072, false],
    [131_073, true],
  ] as const) {
    using session = await RawClient.connect(server.addresses[0]!);
    for (const command of [OPTNEG, connect(), helo(), mail(), rcpt(), DATA]) await session.ask(command);
    await session.send(packet("B", "x".repeat(size - 1)));
    if (isOver) {
      await session.ended();
      await server.log.next(/packet of 131073 bytes, expected at most 131072 \(limits\.packet\)/);
    } else expectCodes(await session.codes(1), "c");
  }
  expect((await statusOf(server)).counters).toMatchObject({ protocolErrors: 1 });
});
