/** greylist: who is asked to come again, when it passes, and who never is. */
import { describe, expect, spyOn, test } from "bun:test";
import greylist from "../../handlers/greylist.ts";
import { senderKey } from "../../handlers/lib/greylist/sender.ts";
import { type Address, defineFilter, reject } from "../../src/index.ts";
import { StoreFailure } from "../../src/store/operations.ts";
import { type Mail, openSession, type SessionOptions, TestClock, TestStore } from "../../src/testing/index.ts";

const EML = "Subject: hello\n\nbody\n";
const CLIENT = { address: "192.0.2.7" };
const LATER = { code: 451, enhanced: "4.7.1", lines: ["Greylisted, try again in 300 s"] };

type Table = Readonly<Record<string, unknown>>;
type Chain = Parameters<typeof openSession>[0];

/** A site that lives on through several sessions, on a clock that the test moves. */
async function site(
  options: Table = {},
  { chain = greylist as Chain, ...session }: { chain?: Chain } & SessionOptions = {},
) {
  const clock = new TestClock();
  const store = new TestStore();
  const opened = await openSession(chain, { clock, store, options, ...session });
  /** The verdict on each recipient. */
  const send = async (mail: Partial<Mail> = {}) => {
    const { failures, recipients } = await opened.send({ from: "a@example.com", client: CLIENT, eml: EML, ...mail });
    expect(failures).toEqual([]);
    return recipients.map(({ verdict }) => verdict).join(" ");
  };
  const pass = async (seconds: number) => {
    const done = Promise.withResolvers<void>();
    clock.after(seconds * 1000, done.resolve);
    await Promise.all([clock.advance(seconds * 1000), done.promise]);
  };
  return { store, opened, send, pass, [Symbol.asyncDispose]: () => opened.close() };
}

const MINUTE = 60;
const DAY = 86_400;

test("the first attempt is refused for now, as are those that come too early; later it passes, and is known", async () => {
  await using mail = await site();
  const { recipients } = await mail.opened.send({ from: "a@example.com", client: CLIENT, eml: EML });
  expect(recipients).toMatchObject([{ reply: LATER }]);
  await mail.pass(4 * MINUTE);
  const early = await mail.opened.send({ from: "a@example.com", client: CLIENT, eml: EML });
  expect(early.recipients).toMatchObject([{ reply: { lines: ["Greylisted, try again in 60 s"] } }]);
  await mail.pass(MINUTE);
  expect(await mail.send()).toBe("accept");
  expect(await mail.send()).toBe("accept");
});

test("who comes again after the window is unknown again", async () => {
  await using mail = await site();
  expect(await mail.send()).toBe("tempfail");
  await mail.pass(2 * DAY);
  expect(await mail.send()).toBe("tempfail");
  await mail.pass(2 * DAY - 1);
  expect(await mail.send()).toBe("accept");
});

test("a known sender is known for `keep` from its last message on", async () => {
  await using mail = await site({ auto_pass: 0 });
  await mail.send();
  await mail.pass(5 * MINUTE);
  for (let times = 0; times < 3; times++) {
    expect(await mail.send()).toBe("accept");
    await mail.pass(35 * DAY);
  }
  expect(await mail.send()).toBe("accept");
  await mail.pass(36 * DAY);
  expect(await mail.send()).toBe("tempfail");
});

test("a message that another filter defers does not make its sender wait anew, and counts for nothing", async () => {
  const judge = defineFilter({
    name: "judge",
    eom: ({ message }) => (message.sender.local === "bad" ? reject() : undefined),
  });
  await using mail = await site({ auto_pass: 1 }, { chain: [greylist, judge] });
  await mail.send({ from: "bad@example.com" });
  await mail.pass(5 * MINUTE);
  for (let times = 0; times < 3; times++) {
    const { phases } = await mail.opened.send({ from: "bad@example.com", client: CLIENT, eml: EML });
    expect(phases.find(({ verdict }) => verdict === "reject")?.phase).toBe("eom");
  }
  expect(await mail.send()).toBe("tempfail");
});

describe("a triplet", () => {
  const from = (sender: string) => ({ from: sender });
  test.each<[string, Partial<Mail>, Partial<Mail>, "same" | "other"]>([
    ["another client of the network", {}, { client: { address: "192.0.2.200" } }, "same"],
    ["a mapped address", {}, { client: { address: "::ffff:192.0.2.8" } }, "same"],
    ["another network", {}, { client: { address: "192.0.3.7" } }, "other"],
    ["a /64", { client: { address: "2001:db8::1" } }, { client: { address: "2001:db8::ffff:1" } }, "same"],
    ["another /64", { client: { address: "2001:db8::1" } }, { client: { address: "2001:db8:0:1::1" } }, "other"],
    ["another spelling", from("a@example.com"), from('"A"@EXAMPLE.com'), "same"],
    ["another sender", from("a@example.com"), from("b@example.com"), "other"],
    ["another recipient", { to: ["a@example.org"] }, { to: ["b@example.org"] }, "other"],
    ["a recipient in another case", { to: ["a@example.org"] }, { to: ["A@example.org"] }, "same"],
    ["BATV", from("prvs=2345abcd=jane@example.com"), from("prvs=99990000=jane@example.com"), "same"],
    ["VERP", from("list-return-17-b=example.org@l.example"), from("list-return-18-b=example.org@l.example"), "same"],
  ])("%s", async (_, first, second, expected) => {
    await using mail = await site();
    await mail.send(first);
    await mail.pass(5 * MINUTE);
    expect(await mail.send(second)).toBe(expected === "same" ? "accept" : "tempfail");
  });

  const address = (mailbox: string) => {
    const at = mailbox.lastIndexOf("@");
    return { local: mailbox.slice(0, at), domain: mailbox.slice(at + 1), mailbox } as Address;
  };
  test.each([
    ["Jane@example.com", "jane@example.com"],
    ["bob77@example.com", "bob77@example.com"],
    ["jane+shop@example.com", "jane@example.com"],
    ["prvs=1234abcd56=jane@example.com", "jane@example.com"],
    ["prvs=jane=1234abcd56@example.com", "prvs=jane=#@example.com"],
    ["btv1==0011abcd==jane@example.com", "jane@example.com"],
    ["SRS0=HHH=TT=example.net=alice@fwd.example", "srs0=#=example.net=alice@fwd.example"],
    ["SRS0+Ab1+2c=example.net=alice@fwd.example", "srs0=#=example.net=alice@fwd.example"],
    ["SRS1=HHH=fwd.example==HHH=TT=example.net=alice@b.example", "srs1=#=example.net=alice@b.example"],
    ["bounces+123-ab4-r=example.org@em.example", "bounces@em.example"],
    ["list-return-1234-r=example.org@lists.example", "list-return-#-#@lists.example"],
    ["bounce-md_3001.5f-v1-9ab@mandrill.example", "bounce-md_#.#-#-#@mandrill.example"],
    ["0100017f9a8b7c6d-5e4f3a2b@ses.example", "#-#@ses.example"],
    ["010001dd8f7c6e5b4a39281706f5e4d3c2b1@ses.example", "#@ses.example"],
    ["+++@example.com", "+@example.com"],
    ["prvs=@example.com", "prvs=@example.com"],
    ["postmaster@", "postmaster"],
  ])("%s is %s", (sender, expected) => {
    expect(senderKey(address(sender), address("r@example.org"))).toBe(expected);
  });

  test("of a length that no key has", async () => {
    await using mail = await site();
    for (const last of ["a", "b"]) {
      const long = { from: `${"x".repeat(700)}${last}@example.com`, to: ["r@example.org"] };
      expect(await mail.send(long)).toBe("tempfail");
    }
  });
});

test("a message to a known and an unknown recipient passes for the first, and later for the second", async () => {
  await using mail = await site();
  await mail.send({ to: ["a@example.org"] });
  await mail.pass(5 * MINUTE);
  const to = ["a@example.org", "b@example.org"];
  expect(await mail.send({ to })).toBe("accept tempfail");
  await mail.pass(5 * MINUTE);
  expect(await mail.send({ to: ["b@example.org"] })).toBe("accept");
});

test("a network is known after so many messages, and is delayed no more", async () => {
  await using mail = await site({ auto_pass: 2 });
  for (const from of ["a@example.com", "b@example.net"]) {
    expect(await mail.send({ from })).toBe("tempfail");
    await mail.pass(5 * MINUTE);
    expect(await mail.send({ from })).toBe("accept");
  }
  const client = { address: "192.0.2.99" };
  expect(await mail.send({ from: "c@example.com", client })).toBe("accept");
  expect(await mail.send({ from: "c@example.com", client: { address: "198.51.100.1" } })).toBe("tempfail");
  // It is prolonged by its messages.
  await mail.pass(35 * DAY);
  expect(await mail.send({ from: "d@example.com", client })).toBe("accept");
  await mail.pass(35 * DAY);
  expect(await mail.send({ from: "e@example.com", client })).toBe("accept");
  await mail.pass(36 * DAY);
  expect(await mail.send({ from: "f@example.com", client })).toBe("tempfail");
});

describe("mail that is never delayed", () => {
  const spf = (value: unknown) => ({
    chain: [
      defineFilter({ name: "spf", envfrom: ({ message }) => message.results.set("spf", value as string) }),
      greylist,
    ],
  });
  test.each<[string, Table, Partial<Mail>, ({ chain?: Chain } & SessionOptions)?, ("accept" | "tempfail")?]>([
    ["of a user who has logged in", {}, { macros: { auth_authen: "jane" } }],
    ["of one who has a certificate", {}, { macros: { auth_type: "EXTERNAL" } }],
    ["a bounce", {}, { from: "" }],
    ["of no address", {}, { client: { address: "/run/x" } }],
    ["of a known sender", { known_senders: ["a@example.com"] }, {}],
    ["of a known domain", { known_senders: ["Example.com"] }, {}],
    ["of another", { known_senders: [".example.com", "b@example.com"] }, {}, {}, "tempfail"],
    ["of a client", { except_clients: ["192.0.2.0/24"] }, {}],
    ["of another client", { except_clients: ["192.0.3.0/24"] }, {}, {}, "tempfail"],
    ["to a recipient", { except_recipients: ["postmaster@example.org"] }, { to: ["Postmaster@example.org"] }],
    ["to another", { except_recipients: ["postmaster@example.org"] }, { to: ["jane@example.org"] }, {}, "tempfail"],
    ["with an SPF pass", {}, {}, spf("pass")],
    ["with an SPF pass, as an object", {}, {}, spf({ result: "pass", domain: "example.com" })],
    ["with another result of SPF", {}, {}, spf("softfail"), "tempfail"],
    ["with another, as an object", {}, {}, spf({ result: "fail" }), "tempfail"],
    ["with one that is none", {}, {}, spf(["pass"]), "tempfail"],
    ["where conditions leave it out", {}, { to: ["a@example.org"] }, { when: { not_recipients: ["example.org"] } }],
    ["in observe mode", {}, {}, { mode: "observe" }],
  ])("%s", async (_, options, message, session = {}, expected = "accept") => {
    await using mail = await site(options, session);
    expect(await mail.send({ to: ["r@example.net"], ...message })).toBe(expected);
  });
});

test("observe mode remembers as it would, and says what it would refuse", async () => {
  await using mail = await site({}, { mode: "observe" });
  const observed = async () =>
    (await mail.opened.send({ from: "a@example.com", client: CLIENT, eml: EML })).observed.map(
      ({ verdict }) => verdict,
    );
  expect(await observed()).toEqual(["tempfail"]);
  await mail.pass(5 * MINUTE);
  expect(await observed()).toEqual([]);
});

describe("while the store fails", () => {
  test.each([
    ["pass", "accept", "store: it is down; mail is not delayed"],
    ["tempfail", "tempfail", "store: it is down; mail is refused for now"],
  ])("%s, with a warning once a minute", async (on_store_failure, expected, text) => {
    await using mail = await site({ on_store_failure });
    spyOn(mail.store.memory, "run").mockImplementation((all) => all.map(() => new StoreFailure("it is down")));
    const message = { from: "a@example.com", client: CLIENT, eml: EML };
    const { notes, verdict } = await mail.opened.send(message);
    expect([verdict, notes.map(({ level, text }) => `${level}: ${text}`)]).toEqual([
      expected as typeof verdict,
      [`warn: ${text}`],
    ]);
    expect((await mail.opened.send(message)).notes).toEqual([]);
  });
});

test.each<[string, Table, string]>([
  ["a delay that is none", { delay: "5 min" }, 'options.delay: expected a duration from "1ms" to "36500d"'],
  ["a window within the delay", { delay: "1h", window: "1h" }, "options.window: expected more than delay"],
  ["a count that is none", { auto_pass: -1 }, "options.auto_pass: expected a whole number, 0 or more"],
  ["a text with another code", { text: "550 No" }, "options.text: expected an SMTP reply"],
  ["a sender that is none", { known_senders: ["a b"] }, "options.known_senders: expected mailboxes and domains"],
  ["a network that is none", { except_clients: ["a.b"] }, "options.except_clients.0: expected an address or a network"],
  ["an option that is mistyped", { delai: "5m" }, 'options.delai: unknown option; did you mean "delay"?'],
])("start refuses %s", async (_, options, message) => {
  await expect(openSession(greylist, { options })).rejects.toThrow(message);
});
