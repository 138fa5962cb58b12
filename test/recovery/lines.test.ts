/** What the log says of a message whose worker was lost: as much as lines of messages say, as far as that is on record. */
import { expect, setDefaultTimeout, test } from "bun:test";
import {
  ABORT,
  begin,
  BODY,
  body,
  DATA,
  EOH,
  expectCodes,
  HEADER,
  mail,
  packet,
  RCPT,
  startFaulty,
  statusOf,
  unknown,
} from "./support.ts";

setDefaultTimeout(120_000);

const macros = (stage: string, values: Readonly<Record<string, string>>) =>
  packet(
    "D",
    stage +
      Object.entries(values)
        .map(([name, value]) => `${name}\0${value}\0`)
        .join(""),
  );

test("queue id, client, HELO, user, sender, time and code version; of the one at fault and of the one beside it", async () => {
  await using server = await startFaulty();
  const { version } = (await statusOf(server)).generation;
  using beside = await begin(server, { name: "beside.example.net" });
  await beside.send(macros("M", { i: "4ZB1", "{auth_authen}": "boss@example.com" }));
  expectCodes(await beside.ask(mail("<beside@example.com>"), RCPT, DATA, HEADER), "cccc");
  using session = await begin(server);
  // A message before the one that is lost leaves nothing in its lines.
  await session.send(macros("M", { i: "4ZB2", "{auth_authen}": "before" }));
  expectCodes(await session.ask(mail("<before@example.com>"), RCPT), "cc");
  await session.send(ABORT, macros("M", { i: "4ZB3" }));
  expectCodes(await session.ask(mail("<>"), RCPT, DATA, HEADER, EOH), "ccccc");
  expectCodes(await session.ask(body("loop")), "t");
  const client = 'client="mx.example.net [192.0.2.7]"';
  const lines = [
    await server.log.next(/handler did not return: /),
    await server.log.next(/tempfail: queue_id=4ZB3 /),
    await server.log.next(/tempfail: queue_id=4ZB1 /),
  ].map((line) =>
    line
      .replace(/^.*? GMT\]/, "")
      .replace(/ ms=\d+ /, " ms=MS ")
      .replace("[@", "["),
  );
  expect(lines).toEqual([
    `[error]: handler did not return: queue_id=4ZB3 ${client} helo=client.example.net from=<> ms=MS ` +
      `version=${version} filter=faulty phase=body at=faulty.ts fallback=tempfail`,
    `[notice]: tempfail: queue_id=4ZB3 ${client} helo=client.example.net from=<> ms=MS version=${version} ` +
      'fallback=true reason="its worker was lost"',
    `[notice]: tempfail: queue_id=4ZB1 ${client} helo=beside.example.net user=boss@example.com ` +
      `from=<beside@example.com> ms=MS version=${version} fallback=true reason="its worker was lost"`,
  ]);
});

test("between messages nothing is said of the one before", async () => {
  await using server = await startFaulty();
  using session = await begin(server);
  expectCodes(await session.ask(mail("<long-before@example.com>"), RCPT, BODY), "ccc");
  await session.send(ABORT, unknown("loop"));
  expectCodes(await session.codes(1), "c");
  const line = await server.log.next(/handler did not return: .* phase=unknown/);
  expect(line).toContain(" helo=client.example.net ");
  expect(line).not.toMatch(/ from=| ms=| user=/);
});

test("a sender that is longer than the record is cut, and one that is not UTF-8 is escaped", async () => {
  await using server = await startFaulty();
  using session = await begin(server);
  const sender = Buffer.concat([
    Buffer.from(`M<`),
    Buffer.of(0xff),
    Buffer.from(`${"abcd".repeat(100)}@example.com>\0`),
  ]);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(sender.length);
  expectCodes(await session.ask(Buffer.concat([head, sender])), "c");
  expectCodes(await session.ask(packet("R", "<exit@example.com>\0")), "t");
  const line = await server.log.next(/tempfail: client=/);
  expect(line).toMatch(/ from="<\\xff(abcd){40,}[abc]*" ms=/);
});
