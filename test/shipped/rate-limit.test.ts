/** rate-limit: what is counted by what, what is given back, and what happens over the limit. */
import { describe, expect, spyOn, test } from "bun:test";
import rateLimit from "../../handlers/rate-limit.ts";
import { defineFilter, discard, reject, tempfail } from "../../src/index.ts";
import { StoreFailure } from "../../src/store/operations.ts";
import {
  type MessageVerdict,
  openSession,
  runFilter,
  type RunFilterOptions,
  TestClock,
  TestStore,
} from "../../src/testing/index.ts";

const EML = "Subject: hello\n\nbody\n";
const TOO_MANY = "Too many recipients, try again in 3600 s";

type Table = Readonly<Record<string, unknown>>;

/** The options with one rule. */
function one(rule: Table, options: Table = {}) {
  return { rules: [{ key: "user", limit: 2, per: "1h", ...rule }], ...options };
}

/** A site: messages of all its sessions have the same store. */
function site(options: Table, chain: readonly (typeof rateLimit | ReturnType<typeof judge>)[] = [rateLimit]) {
  const store = new TestStore();
  const send = (mail: Partial<RunFilterOptions> = {}) =>
    runFilter(chain, { from: "a@example.com", eml: EML, store, options, macros: { auth_authen: "jane" }, ...mail });
  return { store, send, verdict: async (mail?: Partial<RunFilterOptions>) => (await send(mail)).verdict };
}

/** A filter that refuses by words in the message: a recipient `no@…`, a sender `PHASE@…`. */
function judge() {
  const step = (session: {
    readonly phase: string;
    readonly message: { readonly sender: { readonly local: string } };
  }) => (session.message.sender.local === session.phase ? reject("550 5.7.1 No") : undefined);
  return defineFilter({
    name: "judge",
    envfrom: step,
    envrcpt: (session, recipient) => (recipient.includes("no@") ? tempfail("451 4.7.1 Not now") : step(session)),
    data: step,
    eom: step,
  });
}

const people = (count: number, from = 0) => Array.from({ length: count }, (_, at) => `r${from + at}@example.org`);

describe("recipients", () => {
  test("of one message: those beyond the limit are refused, each for itself", async () => {
    const { send } = site(one({ limit: 60 }));
    const { recipients, verdict } = await send({ to: people(100) });
    expect(verdict).toBe("accept");
    expect(recipients.map(({ verdict }) => verdict)).toEqual([
      ...Array<MessageVerdict>(60).fill("accept"),
      ...Array<MessageVerdict>(40).fill("tempfail"),
    ]);
    expect(recipients.at(-1)!.reply).toMatchObject({ code: 451, enhanced: "4.7.1", lines: [TOO_MANY] });
  });

  test("of several messages, and of each key by itself", async () => {
    const { verdict } = site(one({}));
    expect(await verdict({ to: people(2) })).toBe("accept");
    const { phases, recipients } = await site(one({})).send({ to: people(3) });
    expect(recipients.map(({ verdict }) => verdict)).toEqual(["accept", "accept", "tempfail"]);
    expect(phases.filter(({ phase }) => phase === "envrcpt")).toHaveLength(3);
    expect(await verdict()).toBe("tempfail");
    expect(await verdict({ macros: { auth_authen: "bob" } })).toBe("accept");
  });

  test("the window begins with its first mail, and is over after its time", async () => {
    const clock = new TestClock();
    const store = new TestStore();
    await using session = await openSession(rateLimit, { clock, store, options: one({ limit: 1 }) });
    const mail = { eml: EML, macros: { auth_authen: "jane" } };
    expect((await session.send(mail)).verdict).toBe("accept");
    expect((await session.send(mail)).recipients[0]!.reply!.lines).toEqual([TOO_MANY]);
    await clock.pass(3_599_000);
    expect((await session.send(mail)).recipients[0]!.reply!.lines).toEqual(["Too many recipients, try again in 1 s"]);
    await clock.pass(1000);
    expect((await session.send(mail)).verdict).toBe("accept");
  });
});

describe("keys", () => {
  const from = (address: string) => ({ client: { address } });
  test.each<[string, Table, Partial<RunFilterOptions>, Partial<RunFilterOptions>, "same" | "other"]>([
    ["a login name in another case", { key: "user" }, { macros: { auth_authen: "Jane" } }, {}, "same"],
    ["the same client", { key: "client" }, from("192.0.2.1"), from("192.0.2.1"), "same"],
    ["another client", { key: "client" }, from("192.0.2.1"), from("192.0.2.2"), "other"],
    ["a client by its mapped address", { key: "client" }, from("::ffff:192.0.2.1"), from("192.0.2.1"), "same"],
    ["a client of IPv6, in two spellings", { key: "client" }, from("2001:DB8:0::1"), from("2001:db8::1"), "same"],
    ["a /24", { key: "network" }, from("192.0.2.1"), from("192.0.2.200"), "same"],
    ["another /24", { key: "network" }, from("192.0.2.1"), from("192.0.3.1"), "other"],
    ["a mapped /24", { key: "network" }, from("::ffff:192.0.2.1"), from("192.0.2.200"), "same"],
    ["a /64", { key: "network" }, from("2001:db8::1"), from("2001:db8:0:0:ffff::1"), "same"],
    ["another /64", { key: "network" }, from("2001:db8::1"), from("2001:db8:0:1::1"), "other"],
    ["a sender", { key: "sender" }, { from: "A@example.com" }, { from: '"a"@EXAMPLE.com.' }, "same"],
    ["another sender", { key: "sender" }, { from: "a@example.com" }, { from: "b@example.com" }, "other"],
    [
      "a sender's domain",
      { key: "sender_domain" },
      { from: "a@bücher.example" },
      { from: "b@XN--BCHER-KVA.example" },
      "same",
    ],
    ["a domain below", { key: "sender_domain" }, { from: "a@example.com" }, { from: "b@x.example.com" }, "other"],
    ["a recipient", { key: "recipient" }, { to: ["a@example.org"] }, { to: ["<@x.test:A@example.org>"] }, "same"],
    ["a recipient's messages", { key: "recipient", count: "messages" }, { to: ["a@b.c"] }, { to: ["a@b.c"] }, "same"],
    ["another recipient", { key: "recipient" }, { to: ["a@example.org"] }, { to: ["b@example.org"] }, "other"],
  ])("%s", async (_, rule, first, second, expected) => {
    const { verdict } = site(one({ limit: 1, ...rule }));
    expect(await verdict(first)).toBe("accept");
    expect(await verdict(second)).toBe(expected === "same" ? "tempfail" : "accept");
  });

  test.each<[string, Table, Partial<RunFilterOptions>]>([
    ["nobody who has logged in", { key: "user" }, { macros: {} }],
    ["no address of the client", { key: "client" }, { client: { address: "/run/client.sock" } }],
    ["no network", { key: "network" }, { client: { address: "/run/client.sock" } }],
    ["the null sender", { key: "sender" }, { from: "" }],
    ["the domain of the null sender", { key: "sender_domain" }, { from: "" }],
  ])("what is not counted: %s", async (_, rule, mail) => {
    const { verdict } = site(one({ limit: 1, ...rule }));
    for (let count = 0; count < 3; count++) expect(await verdict(mail)).toBe("accept");
  });

  test("a name that no key of the store can be is counted all the same, and is not another's", async () => {
    const { send } = site(one({ limit: 1, key: "sender" }));
    const long = (last: string) => `${"x".repeat(900)}${last}@example.com`;
    for (const from of [long("1"), long("2"), "\udcff@example.com", "\udcfe@example.com"]) {
      expect(await send({ from })).toMatchObject({ verdict: "accept", failures: [] });
      expect(await send({ from })).toMatchObject({ verdict: "tempfail", failures: [] });
    }
  });
});

describe("what passed is counted, what did not is given back", () => {
  test.each<[string, Partial<RunFilterOptions>]>([
    ["refused at MAIL", { from: "envfrom@example.com" }],
    ["refused at RCPT", { from: "envrcpt@example.com" }],
    ["refused at DATA", { from: "data@example.com" }],
    ["refused at its end", { from: "eom@example.com" }],
    ["refused by its only recipient", { to: ["no@example.org"] }],
  ])("%s, by another filter before or behind it", async (_, mail) => {
    for (const chain of [
      [judge(), rateLimit],
      [rateLimit, judge()],
    ]) {
      for (const count of ["recipients", "messages", "bytes"]) {
        const { verdict } = site(one({ count, limit: count === "bytes" ? 50 : 2 }), chain);
        for (let times = 0; times < 5; times++) expect(await verdict(mail)).not.toBe("accept");
        expect(await verdict()).toBe("accept");
        expect(await verdict()).toBe("accept");
        expect(await verdict()).toBe("tempfail");
      }
    }
  });

  test("a recipient that another filter refuses, beside those that pass", async () => {
    const { send, verdict } = site(one({ limit: 5 }), [rateLimit, judge()]);
    await send({ to: ["no@example.org", "a@example.org", "no@example.org", "b@example.org", "no@example.org"] });
    await send({ to: ["no@example.org", "a@example.org"] });
    expect(await verdict({ to: people(2) })).toBe("accept");
    expect(await verdict()).toBe("tempfail");
  });

  test("a message that its client gives up", async () => {
    const { store, verdict } = site(one({}));
    for (const end of ["abort", "quit"] as const) {
      await using session = await openSession(rateLimit, { store, options: one({}) });
      const { client } = session;
      await client.negotiate();
      await client.connect({ address: "127.0.0.1", hostname: "localhost" });
      await client.helo("localhost");
      client.macros = { auth_authen: "jane" };
      await client.envfrom("<a@example.com>");
      await client.envrcpt("<b@example.org>");
      await client.envrcpt("<c@example.org>");
      await client[end]();
    }
    expect(await verdict({ to: people(2) })).toBe("accept");
  });

  test("one rule refuses: the others have nothing taken", async () => {
    const { send } = site({
      rules: [
        { key: "user", limit: 3, per: "1h" },
        { key: "recipient", limit: 1, per: "1h" },
      ],
    });
    const to = ["a@example.org", "a@example.org", "a@example.org", "a@example.org", "b@example.org", "c@example.org"];
    const { recipients } = await send({ to: [...to, "d@example.org"] });
    expect(recipients.map(({ verdict }) => verdict === "accept")).toEqual([
      true,
      false,
      false,
      false,
      true,
      true,
      false,
    ]);
  });

  test("a message that is discarded is counted: its client takes it for accepted", async () => {
    const sink = defineFilter({ name: "sink", eom: () => discard() });
    const { verdict } = site(one({ limit: 1 }), [rateLimit, sink]);
    expect(await verdict()).toBe("discard");
    expect(await verdict()).toBe("tempfail");
  });
});

describe("bytes", () => {
  const RULE = { count: "bytes", limit: 200 };
  /** A message of so many bytes, with CRLF. */
  const sized = (bytes: number) => `Subject: x\n\n${"x".repeat(bytes - 16)}\n`;

  test("of the message as it is: header and body", async () => {
    const { send, verdict } = site(one(RULE));
    expect(await verdict({ eml: sized(120) })).toBe("accept");
    expect(await send({ eml: sized(81) })).toMatchObject({
      verdict: "tempfail",
      reply: { code: 451, lines: ["Too many bytes, try again in 3600 s"] },
    });
    expect(await verdict({ eml: sized(80) })).toBe("accept");
    expect(await verdict({ eml: sized(16) })).toBe("tempfail");
  });

  test("a message that can never pass is refused for good", async () => {
    const { send } = site(one({ ...RULE, limit: "1KB" }));
    const expected = { verdict: "reject", reply: { code: 552, enhanced: "5.3.4" } };
    expect(await send({ eml: sized(1025) })).toMatchObject(expected);
    expect(await announcing(new TestStore(), one({ ...RULE, limit: "1KB" }), 1025, sized(16))).toBe("552 at MAIL");
    expect(await send({ eml: sized(1024) })).toMatchObject({ verdict: "accept" });
  });

  /** A message whose client announces its size. */
  async function announcing(store: TestStore, options: Table, size: number, eml: string): Promise<string> {
    await using session = await openSession(rateLimit, { store, options });
    const { client } = session;
    client.macros = { auth_authen: "jane" };
    await client.negotiate();
    await client.connect();
    await client.helo("localhost");
    const reply = await client.envfrom("<a@example.com>", [`SIZE=${size}`]);
    if (reply.kind === "replycode") return `${reply.code} at MAIL`;
    await client.envrcpt("<b@example.org>");
    await client.header("Subject", " x");
    await client.eoh();
    await client.body(Buffer.from(eml.slice(eml.indexOf("\n\n") + 2).replaceAll("\n", "\r\n")));
    const end = await client.eom();
    return end.kind === "replycode" ? `${end.code} at its end` : end.kind;
  }

  test("what the client announces is refused at MAIL, and settled at the end", async () => {
    const { store, verdict } = site(one(RULE));
    const announce = (size: number, bytes: number) => announcing(store, one(RULE), size, sized(bytes));
    expect(await announce(180, 100)).toBe("continue");
    expect(await announce(101, 16)).toBe("451 at MAIL");
    expect(await announce(1, 60)).toBe("continue");
    expect(await announce(1, 41)).toBe("451 at its end");
    expect(await verdict({ eml: sized(41) })).toBe("tempfail");
    expect(await verdict({ eml: sized(40) })).toBe("accept");
  });

  test("for each recipient, once", async () => {
    const { verdict } = site(one({ ...RULE, key: "recipient" }));
    expect(await verdict({ eml: sized(150), to: ["a@example.org", "A@example.org", "b@example.org"] })).toBe("accept");
    expect(await verdict({ eml: sized(51), to: ["b@example.org", "c@example.org"] })).toBe("tempfail");
    expect(await verdict({ eml: sized(200), to: ["c@example.org"] })).toBe("accept");
  });
});

describe("over the limit", () => {
  test.each<[string, Table, object]>([
    ["by default", {}, { code: 451, enhanced: "4.7.1", lines: [TOO_MANY] }],
    ["reject", { when_over: "reject" }, { code: 550, enhanced: "5.7.1", lines: ["Too many recipients"] }],
    ["a text", { text: "452 4.5.3 Wait {seconds} s" }, { code: 452, enhanced: "4.5.3", lines: ["Wait 3600 s"] }],
    ["a text of reject", { when_over: "reject", text: "554 No more" }, { code: 554, lines: ["No more"] }],
  ])("%s", async (_, rule, reply) => {
    const { recipients } = await site(one({ limit: 1, ...rule })).send({ to: people(2) });
    expect(recipients[1]).toMatchObject({ reply });
  });

  test("several rules: a refusal for good wins, then the longer wait", async () => {
    const rules = (...over: Table[]) => ({
      rules: over.map((rule) => Object.assign({ key: "user", limit: 1, per: "1h" }, rule)),
    });
    const reply = async (options: Table) => (await site(options).send({ to: people(2) })).recipients[1]!.reply;
    expect(await reply(rules({}, { per: "1d" }, { per: "1m" }))).toMatchObject({
      lines: [TOO_MANY.replace("3600", "86400")],
    });
    expect(await reply(rules({}, { when_over: "reject" }, { per: "1d" }))).toMatchObject({ code: 550 });
    expect(await reply(rules({ when_over: "mark" }, {}))).toMatchObject({ code: 451 });
  });

  test("mark: it passes with a header and a result; quarantine: as well, and is kept", async () => {
    for (const when_over of ["mark", "quarantine"]) {
      const { send } = site(one({ when_over }));
      const passing = await send({ to: people(2) });
      expect([passing.modifications, passing.results]).toEqual([[], {}]);
      const { message, modifications, results, verdict } = await send({ to: people(3) });
      expect(verdict).toBe("accept");
      expect(message).toContain("X-Rate-Limit: user; 2 recipients per 1h\r\n");
      expect(results).toEqual({ "rate-limit": ["user; 2 recipients per 1h"] });
      const quarantined = modifications.filter(({ kind }) => kind === "quarantine");
      expect(quarantined).toHaveLength(when_over === "mark" ? 0 : 1);
    }
  });

  test("is told once for each key and window, whatever the session", async () => {
    const { send } = site(one({ limit: 1 }));
    const told = async (mail?: Partial<RunFilterOptions>) => (await send(mail)).notes;
    expect(await told()).toEqual([]);
    expect(await told({ to: people(3) })).toMatchObject([
      {
        level: "warn",
        text: "over the limit of 1 recipients per 1h",
        fields: { user: "jane", action: "tempfail", for_seconds: 3600 },
      },
    ]);
    expect(await told()).toEqual([]);
    expect(await told({ macros: { auth_authen: "bob" }, to: people(2) })).toHaveLength(1);
  });

  test("observe mode refuses nothing, counts as it would, and tells", async () => {
    const { send } = site(one({ limit: 3 }));
    const first = await send({ mode: "observe", to: people(5) });
    expect(first.recipients.map(({ verdict }) => verdict)).toEqual(Array<MessageVerdict>(5).fill("accept"));
    expect(first.observed).toMatchObject([{ scope: "recipient" }, { scope: "recipient" }]);
    expect(first.notes).toHaveLength(1);
    const clock = new TestClock();
    await using session = await openSession(rateLimit, {
      store: new TestStore(),
      clock,
      mode: "observe",
      options: one({}),
    });
    const mail = { eml: EML, macros: { auth_authen: "jane" }, to: people(2) };
    expect((await session.send(mail)).observed).toHaveLength(0);
    expect((await session.send(mail)).observed).toHaveLength(2);
    await clock.pass(3_600_000);
    expect((await session.send(mail)).observed).toHaveLength(0);
  });

  test("a message that would be refused at its end has nothing taken in observe mode either", async () => {
    const rules = [
      { key: "user", limit: 2, per: "1h", count: "recipients" },
      { key: "user", limit: 50, per: "1h", count: "bytes" },
    ];
    const { send } = site({ rules });
    const large = `Subject: x\n\n${"x".repeat(80)}\n`;
    for (let count = 0; count < 3; count++) {
      expect(await send({ eml: large, mode: "observe" })).toMatchObject({ observed: [{ scope: "message" }] });
    }
    expect(await send({ to: people(2), eml: "A: b\n\n" })).toMatchObject({ verdict: "accept" });
  });
});

describe("which mail a rule is about", () => {
  const FROM = { from: "news@lists.example.com" };
  const CLIENT = { client: { address: "192.0.2.7" } };
  test.each<[string, Table, Partial<RunFilterOptions>, boolean]>([
    ["a user", { except: ["JANE"] }, {}, false],
    ["another user", { except: ["bob"] }, {}, true],
    ["only this user", { only: ["Jane"] }, {}, true],
    ["only another", { only: ["bob"] }, {}, false],
    ["a client's network", { key: "client", except: ["192.0.2.0/24"] }, CLIENT, false],
    ["a network by its client", { key: "network", except: ["192.0.2.7"] }, CLIENT, false],
    ["another network", { key: "network", except: ["198.51.100.0/24", "2001:db8::/32"] }, CLIENT, true],
    ["a sender", { key: "sender", except: ["News@lists.example.com"] }, FROM, false],
    ["all senders of a domain", { key: "sender", except: ["lists.example.com"] }, FROM, false],
    ["and of those below one", { key: "sender", only: [".example.com"] }, FROM, true],
    ["not of the domain above", { key: "sender", only: ["example.com"] }, FROM, false],
    ["a domain", { key: "sender_domain", except: [".example.com"] }, FROM, false],
    ["a recipient", { key: "recipient", except: ["post@example.org"] }, { to: ["Post@example.org"] }, false],
    ["another recipient", { key: "recipient", except: ["post@example.org"] }, { to: ["a@example.org"] }, true],
  ])("%s", async (_, rule, mail, isCounted) => {
    const { verdict } = site(one({ limit: 1, ...rule }));
    await verdict(mail);
    expect(await verdict(mail)).toBe(isCounted ? "tempfail" : "accept");
  });

  test("conditions on recipients: messages are counted at DATA", async () => {
    const { send } = site(one({ count: "messages", limit: 1 }));
    const when = { recipients: ["example.org"] };
    expect(await send({ when, to: ["a@example.net"] })).toMatchObject({ verdict: "accept" });
    expect(await send({ when, to: ["a@example.net"] })).toMatchObject({ verdict: "accept" });
    expect(await send({ when, to: ["a@example.org"] })).toMatchObject({ verdict: "accept" });
    const { phases, verdict } = await send({ when, to: ["a@example.org"] });
    expect([verdict, phases.find(({ verdict }) => verdict === "tempfail")?.phase]).toEqual(["tempfail", "data"]);
  });
});

test("counters outlast a change of the rules' order and limits; rules that count the same are apart", async () => {
  const store = new TestStore();
  const rule = { key: "user", limit: 2, per: "1h" };
  const other = { key: "client", limit: 100, per: "1h" };
  const send = async (rules: Table[], to: string[]) =>
    (
      await runFilter(rateLimit, { eml: EML, store, to, macros: { auth_authen: "jane" }, options: { rules } })
    ).recipients.map(({ verdict }) => verdict);
  expect(await send([rule], people(2))).toEqual(["accept", "accept"]);
  expect(await send([other, { ...rule, limit: 3 }], people(2))).toEqual(["accept", "tempfail"]);
  const soft = [
    { ...rule, per: "2h", limit: 1, when_over: "mark" },
    { ...rule, per: "120m" },
  ];
  expect(await send(soft, people(3))).toEqual(["accept", "accept", "tempfail"]);
});

test("events that no rule needs are not asked for", async () => {
  const phases = async (rule: Table) => (await site(one(rule)).send({})).phases.map(({ phase }) => phase);
  const asked = async (rule: Table) => {
    await using session = await openSession(rateLimit, { options: one(rule) });
    return await session.client.negotiate();
  };
  expect((await asked({ count: "bytes" })).protocol & NO_BODY).toBe(0);
  expect((await asked({})).protocol & NO_BODY).toBe(NO_BODY);
  expect(await phases({})).not.toContain("body");
});
const NO_BODY = 0x10;

describe("while the store fails", () => {
  const broken = (options: Table) => {
    const all = site(options);
    const failing = spyOn(all.store.memory, "run").mockImplementation((operations) =>
      operations.map(() => new StoreFailure("it is down")),
    );
    return { ...all, failing };
  };

  test("mail passes, and is not counted; a warning says so, once a minute", async () => {
    const { failing, store } = broken(one({}));
    await using session = await openSession(rateLimit, { store, options: one({ limit: 1 }) });
    const mail = { eml: EML, to: people(3), macros: { auth_authen: "jane" } };
    const { failures, notes, verdict } = await session.send(mail);
    expect({ failures, verdict }).toEqual({ failures: [], verdict: "accept" });
    expect(notes).toMatchObject([{ level: "warn", text: "store: it is down; mail is not counted" }]);
    expect((await session.send(mail)).notes).toEqual([]);
    failing.mockRestore();
    expect((await session.send(mail)).recipients.map(({ verdict }) => verdict)).toEqual([
      "accept",
      "tempfail",
      "tempfail",
    ]);
  });

  test("or is refused for now", async () => {
    const { send } = broken(one({}, { on_store_failure: "tempfail" }));
    const { failures, recipients } = await send();
    expect(failures).toEqual([]);
    expect(recipients[0]!.reply).toMatchObject({ code: 451, enhanced: "4.3.0" });
  });
});

test.each<[string, Table, string]>([
  ["no rules", {}, 'options.rules: "rules" is missing'],
  ["an empty list", { rules: [] }, "options.rules: expected at least one [[filter.options.rules]]"],
  ["a key that is none", one({ key: "ip" }), 'options.rules.0.key: expected "user", "client", "network"'],
  ["a limit of nothing", one({ limit: 0 }), "options.rules.0.limit: expected a whole number, 1 or more"],
  ["a size for recipients", one({ limit: "1KB" }), "options.rules.0.limit: expected a whole number, since recipients"],
  ["a limit that is no size", one({ count: "bytes", limit: "1 K" }), "options.rules.0.limit: expected"],
  ["no period", { rules: [{ key: "user", limit: 1 }] }, '"per" is missing'],
  ["a period that is none", one({ per: "hour" }), "options.rules.0.per: expected a duration"],
  ["an option that is mistyped", one({ when_ower: "mark" }), 'when_ower: unknown option; did you mean "when_over"?'],
  ["a text with another code", one({ text: "550 No" }), "options.rules.0.text: expected an SMTP reply"],
  ["a text for what passes", one({ when_over: "mark", text: "451 No" }), 'expected no text beside when_over = "mark"'],
  [
    "networks that are none",
    one({ key: "client", except: ["a.b"] }),
    "options.rules.0.except: expected addresses and networks",
  ],
  [
    "an address that is none",
    one({ key: "sender", only: ["a b@c"] }),
    "options.rules.0.only: expected addresses and domains",
  ],
  ["a domain that is none", one({ key: "sender_domain", only: ["a@b.c"] }), "options.rules.0.only: expected domains"],
  ["a prefix that is none", one({}, { ipv4_prefix: 33 }), "options.ipv4_prefix: expected a whole number from 8 to 32"],
])("start refuses %s", async (_, options, message) => {
  await expect(runFilter(rateLimit, { eml: EML, options })).rejects.toThrow(message);
});
