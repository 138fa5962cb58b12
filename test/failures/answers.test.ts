/** docs/failures.md, "Handlers that fail": odd values, odd answers, a filter among others, and what comes too late. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { ABORT, CONNECT, EOM, MAIL, OPTNEG, packet, RawClient, RCPT, UNKNOWN } from "../server/wire.ts";
import { expectCounters, expectLogged, expectLoggedTimes, start } from "./support.ts";

setDefaultTimeout(120_000);

const ODD = [
  "undefined",
  "null",
  "5",
  'Symbol("odd")',
  "Object.create(null)",
  `JSON.parse('{"toString":1,"valueOf":2}')`,
  'Object.defineProperty(new Error(), "message", { get() { throw new Error("getter"); } })',
  'Object.defineProperty(new Error(), "stack", { value: 5 })',
  "new Proxy({}, { get() { throw new Error(); }, getPrototypeOf() { throw new Error(); } })",
];

test("throws: odd values, thrown and rejected, each gets the fallback and a line", async () => {
  const pick = `(from) => [${ODD.map((value) => `() => (${value})`).join(", ")}][Number(from.slice(1, -1))]()`;
  await using server = await start(
    `envfrom(session, from) { if (from !== "<>") throw odd(from); }, async envrcpt(session, to) { if (to !== "<>") throw odd(to); }, async abort() { throw odd("<0>"); }`,
    { head: `const odd = ${pick};` },
  );
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT)).toBe("Oc");
  for (let at = 0; at < ODD.length; at++) {
    expect(await client.ask(packet("M", `<${at}>\0`))).toBe("t");
    expect(await client.ask(packet("M", "<>\0"), packet("R", `<${at}>\0`), packet("R", "<>\0"))).toBe("ctc");
    await client.send(ABORT);
  }
  expect(await client.ask(UNKNOWN)).toBe("c");
  await expectLogged(server, "throws");
  await expectLoggedTimes(server, "throws", 3 * ODD.length);
  await expectCounters(server, { errors: 3 * ODD.length, internalErrors: 0 });
});

test.each([
  ["a number", "return 42;", /returned number/],
  ["a verdict that the phase lacks", "return skip();", /skip\(\) is no verdict of phase envfrom/],
  ["a text that is no reply", 'return reject("250 2.0.0 fine");', /250/],
  ["a header with a line break", 'session.message.addHeader("X", "a\\r\\nBcc: x@example.com");', /X|line/],
])("throws: no answer, %s", async (_, body, reason) => {
  await using server = await start(`envfrom(session) { ${body} }`);
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Oct");
  const [line] = await expectLogged(server, "throws");
  expect(line).toMatch(reason);
  expect(line).toContain("at=filter.ts");
  await expectCounters(server, { errors: 1, fallbacks: 1, tempfailed: 1 });
});

test("throws: one filter of several, the changes of the others are kept", async () => {
  await using server = await start(
    `eom({ message }) { message.addHeader("X-Broken", "1"); throw new Error("mine"); }`,
    {
      server: { on_error: "continue" },
      config: '[[filter]]\npath = "a.ts"\n[[filter]]\npath = "filter.ts"\n[[filter]]\npath = "b.ts"\n',
      files: {
        "a.ts": 'export default { eom: ({ message }) => message.addHeader("X-A", "1") };\n',
        "b.ts": 'export default { eom: ({ message }) => message.addHeader("X-B", "1") };\n',
      },
    },
  );
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT, MAIL, RCPT)).toBe("Occc");
  await client.send(EOM);
  const replies = [await client.reply(), await client.reply(), await client.reply()];
  expect(replies.map(({ code, payload }) => code + payload.toString())).toEqual(["hX-A\0 1\0", "hX-B\0 1\0", "c"]);
  await expectLogged(server, "throws");
  await expectCounters(server, { errors: 1, accepted: 1 });
});

test("never-settles: on_timeout at the deadline; what it says later changes nothing", async () => {
  await using server = await start(
    `async envfrom(session, from) {
  if (from === "<never>") await new Promise(() => {});
  if (from === "<slow>") { await Bun.sleep(1500); console.log("settled"); return reject("550 5.7.1 late"); }
}, envrcpt() {}`,
    { server: { handler_timeout: 1, on_timeout: "tempfail" } },
  );
  using bystander = await RawClient.connect(server.addresses[0]!);
  await bystander.ask(OPTNEG, CONNECT);
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG, CONNECT);
  for (const from of ["<never>", "<slow>"]) {
    const answered = client.replies.length;
    await client.send(packet("M", `${from}\0`));
    expect(await bystander.ask(MAIL, RCPT, EOM)).toBe("ccc");
    // Nobody waited for it.
    expect(client.replies).toHaveLength(answered);
    expect(await client.codes(1)).toBe("t");
    await client.send(ABORT);
  }
  // The next message is open when the late verdict comes.
  expect(await client.ask(MAIL)).toBe("c");
  await server.prints.next(/settled/);
  expect(await client.ask(RCPT, EOM)).toBe("cc");
  const [line] = await expectLogged(server, "never-settles");
  expect(line).toMatch(
    /filter=filter phase=envfrom at=filter\.ts error="Error: not settled after 1 s" fallback=tempfail$/,
  );
  await expectCounters(server, { timeouts: 2, errors: 0, fallbacks: 2, tempfailed: 2, accepted: 3 });
});

test("never-settles: at eom progress until eom_timeout, then the fallback", async () => {
  await using server = await start(
    `async eom(session) { if (session.message.sender.address === "never@example.com") await new Promise(() => {}); }`,
    { server: { eom_timeout: 3.3, handler_timeout: 0.1, on_timeout: "reject" } },
  );
  using client = await RawClient.connect(server.addresses[0]!);
  await client.ask(OPTNEG, CONNECT, packet("M", "<never@example.com>\0"), RCPT);
  const since = performance.now();
  await client.send(EOM);
  expect(await client.codes(2)).toBe("pr");
  expect(performance.now() - since).toBeGreaterThan(3200);
  await expectLogged(server, "never-settles");
  expect(await client.ask(MAIL, RCPT, EOM)).toBe("ccc");
  await expectCounters(server, { timeouts: 1, fallbacks: 1, rejected: 1, accepted: 1 });
});
