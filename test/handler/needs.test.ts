/** What is asked of the mail server for each handler (docs/protocol.md, "Negotiation"): only what somebody reads, a reply only where needed. */
import { describe, expect, test } from "bun:test";
import { namesOf, PROTOCOL } from "../../src/protocol/constants.ts";
import { type AnyFilter, chainOf, Line } from "./harness.ts";

const pass = () => undefined;
const NOTHING_BUT = (...kept: readonly string[]) =>
  ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOBODY", "NOHDRS", "NOEOH", "NOUNKNOWN", "NODATA"].filter(
    (name) => !kept.includes(name),
  );

/** By hand: the handlers, the events that are sent, and the flags beside the NO flags of all other events. */
const TABLE: readonly [filter: AnyFilter, sent: readonly string[], flags: readonly string[]][] = [
  [{ connect: pass }, ["NOCONNECT"], []],
  [{ helo: pass }, ["NOCONNECT", "NOHELO"], ["NR_CONN"]],
  [{ envfrom: pass }, ["NOCONNECT", "NOHELO", "NOMAIL"], ["NR_CONN", "NR_HELO"]],
  [{ envrcpt: pass }, ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT"], ["NR_CONN", "NR_HELO", "NR_MAIL"]],
  [{ data: pass }, ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NODATA"], ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT"]],
  [
    { header: pass },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOHDRS"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT", "NR_HDR"],
  ],
  [
    { eoh: pass },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOHDRS", "NOEOH"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT", "NR_HDR", "NR_EOH"],
  ],
  [
    { body: pass },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOHDRS", "NOBODY"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT", "NR_HDR", "NR_BODY", "SKIP"],
  ],
  [
    { eom: pass },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOHDRS"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT", "NR_HDR"],
  ],
  [
    { eom: pass, collectBody: true },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOHDRS", "NOBODY"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT", "NR_HDR", "NR_BODY"],
  ],
  [{ unknown: pass }, ["NOCONNECT", "NOUNKNOWN"], ["NR_CONN"]],
  [
    { abort: pass },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT", "NOHDRS"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "NR_RCPT", "NR_HDR"],
  ],
  [{ close: pass }, ["NOCONNECT", "NOHELO"], ["NR_CONN", "NR_HELO"]],
  [
    { envrcpt: pass, rejectedRecipients: true },
    ["NOCONNECT", "NOHELO", "NOMAIL", "NORCPT"],
    ["NR_CONN", "NR_HELO", "NR_MAIL", "RCPT_REJ"],
  ],
];

describe("Chain.wants", () => {
  test("filters that together ask for more macros than a mail server takes are refused", () => {
    const asking = (prefix: string) => ({
      helo() {},
      macros: { helo: Array.from({ length: 25 }, (_, index) => `{${prefix}${index}}`) },
    });
    expect(() => chainOf([asking("a")])).not.toThrow();
    expect(() => chainOf([asking("a"), asking("b")])).toThrow("ask for 55 macros at helo");
  });

  test.each(TABLE.map(([filter, sent, flags]) => [Object.keys(filter).join(" with "), filter, sent, flags] as const))(
    "%s alone",
    (_name, filter, sent, flags) => {
      const asked = namesOf(PROTOCOL, chainOf([filter]).wants.protocol).toSorted();
      expect(asked).toEqual([...NOTHING_BUT(...sent), ...flags, "HDR_LEADSPC"].toSorted());
    },
  );

  test("a reply is awaited for a phase that has a handler, whatever other filters need it for", () => {
    const wants = chainOf([{ eom: pass }, { envfrom: pass }]).wants.protocol;
    expect(namesOf(PROTOCOL, wants)).not.toContain("NR_MAIL");
    expect(namesOf(PROTOCOL, wants)).toContain("NR_RCPT");
  });

  test("content is answered at once with defer_content = false", () => {
    const wants = chainOf([{ header: pass, eoh: pass, body: pass }], { deferContent: false }).wants.protocol;
    expect(namesOf(PROTOCOL, wants).filter((name) => /NR_(HDR|EOH|BODY)/.test(name))).toEqual([]);
  });

  test("without a filter nothing is sent at all, and nothing asked for", () => {
    const { wants } = chainOf([]);
    expect(namesOf(PROTOCOL, wants.protocol).toSorted()).toEqual([...NOTHING_BUT(), "HDR_LEADSPC"].toSorted());
    expect(wants.macros).toEqual({});
  });

  test.each([
    ["connect", false],
    ["helo", false],
    ["unknown", false],
    ["abort", false],
    ["close", false],
    ["envfrom", true],
    ["envrcpt", true],
    ["data", true],
    ["header", true],
    ["eoh", true],
    ["body", true],
    ["eom", true],
  ] as const)("all actions are asked for where a message can be changed: %s", (phase, isAll) => {
    expect(chainOf([{ [phase]: pass }]).wants.actions & 0xff).toBe(isAll ? 0xff : 0);
  });

  test("macros asked for come after both servers' defaults, without repetition; `v` always at connect", () => {
    const { macros } = chainOf([
      { helo: pass, macros: { helo: ["{verify}", "{cipher}"], envrcpt: ["{x}"] } },
      { helo: pass, macros: { helo: ["{verify}"] } },
    ]).wants;
    expect(macros.HELO).toEqual([
      "{tls_version}",
      "{cipher}",
      "{cipher_bits}",
      "{cert_subject}",
      "{cert_issuer}",
      "{verify}",
    ]);
    expect(macros.CONNECT).toContain("v");
    expect(macros.RCPT?.at(-1)).toBe("{x}");
    expect(macros.DATA).toBeUndefined();
  });

  test("the answer on the wire is what was wanted, cut to the offer", () => {
    const line = Line.to([{ eom: pass }], { version: 4, actions: 0x3f, protocol: 0x37f });
    expect(line.conversation.session.options).toMatchObject({ version: 4, actions: 0x3f, protocol: 0x350 });
  });
});
