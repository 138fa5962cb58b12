/** `[filter.when]`: patterns are read into the form in which they are compared, and mistakes are told with the right form. */
import { describe, expect, test } from "bun:test";
import { parseConfig } from "../../src/config/load.ts";
import { faultsOf } from "./failure.ts";

const LISTEN = '[server]\nlisten = ["inet:127.0.0.1:8891", "run/p.sock"]\n';
const when = (text: string) =>
  parseConfig(`${LISTEN}[[filter]]\npath = "a.ts"\n[filter.when]\n${text}\n`, "/etc/pmilter.toml", {}).filters[0]!.when;
const faults = (text: string) => faultsOf(`${LISTEN}[[filter]]\npath = "a.ts"\n[filter.when]\n${text}\n`);

describe("values", () => {
  test("without the table there are no conditions, and in an empty table none is given", () => {
    expect(parseConfig('[[filter]]\npath = "a.ts"\n', "/etc/pmilter.toml", {}).filters[0]!.when).toBeNull();
    expect(when("")).toEqual({
      listeners: null,
      share: null,
      clients: null,
      notClients: null,
      local: null,
      helos: null,
      tls: null,
      authenticated: null,
      users: null,
      senders: null,
      notSenders: null,
      recipients: null,
      notRecipients: null,
      recipientsMatch: "any",
    });
  });

  test.each<[string, object]>([
    [
      'listeners = ["inet:8891@127.0.0.1", "unix:/etc/run/p.sock"]',
      { listeners: ["inet:127.0.0.1:8891", "unix:/etc/run/p.sock"] },
    ],
    ['listeners = "./run/p.sock"', { listeners: ["unix:/etc/run/p.sock"] }],
    ['share = "10%"', { share: 10_000 }],
    ['share = "0.1%"', { share: 100 }],
    ['share = "0.001%"', { share: 1 }],
    ['share = "100%"', { share: 100_000 }],
    [
      'clients = ["192.0.2.0/24", "2001:DB8::/32", "::1", "Mail.Example.NET.", ".example.net", "müller.example"]',
      {
        clients: [
          { address: "192.0.2.0", prefix: 24, family: 4 },
          { address: "2001:db8::", prefix: 32, family: 6 },
          { address: "::1", prefix: 128, family: 6 },
          "mail.example.net",
          ".example.net",
          "xn--mller-kva.example",
        ],
      },
    ],
    ['helos = [".Example.net", "[192.0.2.1]"]', { helos: [".example.net", "[192.0.2.1]"] }],
    ["local = false\ntls = true\nauthenticated = false", { local: false, tls: true, authenticated: false }],
    ['users = ["Boss", "boss@REALM"]', { users: ["Boss", "boss@REALM"] }],
    [
      'senders = ["Example.com", ".MÜLLER.example", "<>", "<\\"Boss\\"@Example.org>", "@relay.test:a.b@c.d", "\\"a b\\"@c.d", "x@[192.0.2.1]"]',
      {
        senders: [
          "example.com",
          ".xn--mller-kva.example",
          "<>",
          "boss@example.org",
          "a.b@c.d",
          '"a b"@c.d',
          "x@[192.0.2.1]",
        ],
      },
    ],
    [
      'not_recipients = "example.com"\nrecipients_match = "split"',
      { notRecipients: ["example.com"], recipientsMatch: "split" },
    ],
  ])("%s", (text, expected) => {
    expect(when(text)).toMatchObject(expected);
  });
});

describe("mistakes", () => {
  test.each<[string, string]>([
    [
      'listeners = ["inet:127.0.0.1:8892"]',
      '6:1: filter 1: when.listeners: "inet:127.0.0.1:8892" is not in server.listen; did you mean "inet:127.0.0.1:8891"?',
    ],
    [
      'listeners = ["inet:127.0.0.1:8891", "fd:3"]',
      '6:37: filter 1: when.listeners: entry 2: "fd:3" is not in server.listen; it has "inet:127.0.0.1:8891", "unix:/etc/run/p.sock"',
    ],
    ["listeners = []", 'expected a listen address such as "inet:127.0.0.1:8891", or a list of them, got an empty list'],
    ["share = 10", 'expected a share from "0.001%" to "100%", such as "10%" or "0.5%", got 10; write "10%"'],
    ['share = "0%"', 'such as "10%" or "0.5%", got "0%"'],
    ['share = "101%"', 'got "101%"'],
    ['share = "0.0001%"', 'got "0.0001%"'],
    ['clients = ["192.0.2.1/24"]', 'bits after the prefix are set; did you mean "192.0.2.0/24"'],
    ['clients = ["192.0.2"]', '"192.0.2" is not a client: write a network such as'],
    ['clients = ["*.example.com"]', '"*.example.com" is not a client: write ".example.com" for the names below it'],
    ['helos = "a b"', '"a b" is not a name that clients give: write "mail.example.com"'],
    ['tls = "true"', 'expected true or false, got "true"; write true, without quotes'],
    ['users = [""]', 'expected a login name, or a list of them, got ""'],
    [
      'senders = ["@example.com"]',
      '"@example.com" is not an address pattern: write "example.com" for all mailboxes of the domain',
    ],
    ['senders = ["boss@"]', '"boss@" is not an address pattern: the domain is missing'],
    ['senders = ["*@example.com", 3]', "entry 2: expected a sender such as"],
    ['senders = [""]', 'or "user@example.com", or "<>" for the null sender'],
    ['recipients = ["<>"]', '"<>" is not an address pattern: only senders may be null'],
    ['recipients = ["a", "exa mple.com"]', 'entry 2: "exa mple.com" is not an address pattern: write "example.com"'],
    ['recipients = ["a"]\nrecipients_match = "all"', 'expected "any", "every" or "split", got "all"'],
    [
      'recipients_match = "every"',
      '6:1: filter 1: when.recipients_match: "every" is about recipients; expected "recipients" or "not_recipients" as well',
    ],
    ['sender = ["example.com"]', 'filter 1: when.sender: unknown key; did you mean "senders"?'],
    ['not_helos = "x"', "filter 1: when.not_helos: unknown key"],
  ])("%s", (text, expected) => {
    expect(faults(text).join("\n")).toContain(expected);
  });

  test("the table is one table, under a filter", () => {
    expect(faultsOf('[[filter]]\npath = "a.ts"\nwhen = true\n')).toEqual([
      "3:1: filter 1: when: expected a table, [filter.when], got true",
    ]);
    expect(faultsOf('[when]\nsenders = "a"\n')[0]).toContain("when: unknown table; did you mean [filter.when]?");
  });
});
