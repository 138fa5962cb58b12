/**
 * Each kind of fault in a configuration, with the place and the words that an administrator sees. The tables list the
 * line that is wrong and what is said about it.
 */
import { describe, expect, test } from "bun:test";
import { FILE, failureOf, faultsOf } from "./failure.ts";

describe("ConfigError", () => {
  test("has code, file and the first place, and quotes the line", () => {
    const error = failureOf('# first\n[server]\n  workers = "many"\n');
    expect(error.code).toBe("PMILTER_ERR_CONFIG");
    expect(error.name).toBe("ConfigError");
    expect([error.file, error.line, error.column]).toEqual([FILE, 3, 3]);
    expect(error.message).toBe(
      [
        `${FILE}:3:3: server.workers: expected a whole number of at least 1 or "auto", got "many"`,
        '  3 |   workers = "many"',
        "    |   ^",
      ].join("\n"),
    );
  });

  test("reports every fault, in the order of the file", () => {
    const text = `
[limits]
packet = 1
[server]
sever = 1
debug = 7
listen = ["a.sock", "a.sock"]
mruby_handler = 1
[[filter]]
[[filter]]
path = "b.ts"
handler_timeout = 9
`;
    expect(faultsOf(text)).toEqual([
      '3:1: limits.packet: expected a size from 131072 to 2147483647 bytes, such as 1048576, "64KB", "10MB" or "1GB", got 1',
      "5:1: server.sever: unknown key; did you mean [server]?",
      "6:1: server.debug: expected a whole number from 0 to 6, got 7",
      expect.stringMatching(/^7:21: server\.listen: entry 2: "unix:\/.*a\.sock" is listed twice$/),
      "8:1: server.mruby_handler: expected true or false, got 1",
      '9:1: filter 1: path: expected the path of a filter\'s module, but the key is missing; "use" names a shipped filter instead',
      "12:1: filter 2: handler_timeout: a filter may only shorten server.handler_timeout: expected at most 8, got 9",
    ]);
    expect(
      failureOf(text)
        .message.split("\n")
        .filter((line) => line.startsWith(`${FILE}:`)),
    ).toHaveLength(7);
  });

  test("keeps tabs before the caret and shows no control characters", () => {
    expect(failureOf("[server]\n\tx = 1 # \u202e").message).toEndWith("  2 | \tx = 1 # ?\n    | \t^");
  });

  test.each(["h = \u001c", "r = \u202ex", "\u009d = 1", "a = 1 \u001b[2J", "[t\u0007]", 'a = "x\u0000"'])(
    "shows no control characters of what is no TOML (%#)",
    (text) => {
      expect(failureOf(text).message).not.toMatch(/[^\P{C}\n]/u);
    },
  );

  test("does not quote a very long line", () => {
    expect(failureOf(`[server]\ndebug = "${"y".repeat(5000)}"`).message.length).toBeLessThan(200);
  });

  test("bounds and escapes the value it quotes", () => {
    expect(failureOf(`[server]\ndebug = "\\u001b[31m${"y".repeat(5000)}"`).message).toMatch(
      /got "\\u001b\[31my{75}…"$/,
    );
  });
});

describe("TOML", () => {
  test.each([
    ["a = 1\nb = \n", '2:5: not valid TOML: expected a value behind "=", got the end of the line'],
    [
      "[server]\nlisten\n",
      '2:7: not valid TOML: expected "=" and a value behind the key "listen", got the end of the line',
    ],
    ["[server]\ndebug = 1\ndebug = 2", "3:1: server.debug: it is set already, in line 2; keep one"],
    ["[server]\nconstructor = 1", '2:1: not valid TOML: expected another name, got "constructor", which is reserved'],
    ["[server]\n__proto__ = 1", '2:1: not valid TOML: expected another name, got "__proto__", which is reserved'],
    [
      "[server]\nsocket_mode = 0660",
      '2:15: not valid TOML: expected a value, got 0660; a mode stands in quotes, as in "0660"',
    ],
    [
      "server.socket_mode = 0660",
      '1:22: not valid TOML: expected a value, got 0660; a mode stands in quotes, as in "0660"',
    ],
  ])("%j", (text, fault) => {
    expect(faultsOf(text)).toEqual([fault]);
    expect(failureOf(text).cause).toBeInstanceOf(Error);
  });
});

describe("the shape of the file", () => {
  test.each([
    ["server = 3", "1:1: server: expected a table, [server], got 3"],
    ["[[server]]", "1:1: server: expected a table, [server], got a list"],
    ["limits = 1979-05-27", "1:1: limits: expected a table, [limits], got a date or time"],
    ["handler.session = []", "1:1: handler.session: expected a table, [handler.session], got an empty list"],
    [
      '\n[filter]\npath = "a.ts"',
      "2:1: filter: expected tables, each under [[filter]], got a table; the brackets are double",
    ],
    ["filter = [1]", "1:1: filter: expected tables, each under [[filter]], got a list"],
    ['filter = "a.ts"', '1:1: filter: expected tables, each under [[filter]], got "a.ts"'],
    [
      "[[filter]]\nname = 'x'",
      '1:1: filter 1: path: expected the path of a filter\'s module, but the key is missing; "use" names a shipped filter instead',
    ],
    [
      "filter = [{ path = 'a' }, {}]",
      '1:27: filter 2: path: expected the path of a filter\'s module, but the key is missing; "use" names a shipped filter instead',
    ],
    ["[[filter]]\npath = 'a'\noptions = 3", "3:1: filter 1: options: expected a table, got 3"],
  ])("%j", (text, fault) => expect(faultsOf(text)).toEqual([fault]));
});

const VALUES: readonly [table: string, line: string, what: string][] = [
  ["server", "listen = []", 'listen address such as "inet:127.0.0.1:8891", or a list of them, got an empty list'],
  ["server", "listen = 8891", 'expected a listen address such as "inet:127.0.0.1:8891", or a list of them, got 8891'],
  ["server", "listen = [8891]", "server.listen: entry 1: expected a listen address"],
  ["server", 'listen = "inet:8891"', 'server.listen: "inet:8891" is not a listen address: a host is missing'],
  ["server", 'listen = ["/a.sock", "unix:"]', 'entry 2: "unix:" is not a listen address: a path is missing'],
  ["server", 'listen = ["::1.sock", "/x"]', 'entry 1: "::1.sock" is not a listen address'],
  ["server", 'listen = ["127.0.0.1:1", "inet:1@127.0.0.1"]', 'entry 2: "inet:127.0.0.1:1" is listed twice'],
  ["server", 'listen = ["[::1]:1", "inet6:[0::1]:1"]', 'entry 2: "inet6:[::1]:1" is listed twice'],
  ["server", 'listen = ["fd:3", "fd:3"]', 'entry 2: "fd:3" is listed twice'],
  ["server", `listen = "/${"a".repeat(107)}"`, "a socket of at most 107 bytes, got 108 bytes"],
  ["server", "socket_mode = 660", 'octal digits in quotes, such as "0660", got 660; write "0660"'],
  ["server", "socket_mode = 0o660", 'octal digits in quotes, such as "0660", got 432'],
  ["server", 'socket_mode = "rw-rw----"', 'octal digits in quotes, such as "0660", got "rw-rw----"'],
  ["server", 'socket_mode = "0680"', 'got "0680"'],
  ["server", 'socket_mode = "4660"', 'got "4660"'],
  ["server", "socket_user = 0", "expected a user name, got 0"],
  ["server", 'socket_group = ""', 'expected a group name, got ""'],
  ["server", 'user = " root"', 'expected a user name, got " root"'],
  ["server", "group = true", "expected a group name, got true"],
  ["server", 'allow = "192.0.2.0/24"', 'expected a list of addresses and networks such as ["192.0.2.0/24", "::1"]'],
  ["server", "allow = [192]", 'entry 1: expected an address or network such as "192.0.2.0/24", got 192'],
  ["server", 'allow = ["::1", "192.0.2.1/24"]', 'entry 2: "192.0.2.1/24" is not an address or network'],
  ["server", "control = 1", "expected the path of a socket file, got 1"],
  [
    "server",
    'control = "unix:/run/p.ctl"',
    'expected the path of a unix socket, without a prefix, got "unix:/run/p.ctl"',
  ],
  ["server", `control = "/${"a".repeat(107)}"`, "a socket of at most 107 bytes, got 108 bytes"],
  ["server", 'control = "/run/x"\nlisten = "unix:/run/../run/x"', "the same socket as server.control"],
  [
    "server",
    "timeout = 0",
    'expected a duration from 0.001 to 2000000 seconds, such as 3, "500ms", "10m", "2h" or "7d", got 0',
  ],
  [
    "server",
    "timeout = 2000001",
    'expected a duration from 0.001 to 2000000 seconds, such as 3, "500ms", "10m", "2h" or "7d", got 2000001',
  ],
  [
    "server",
    'log_level = "warning"',
    'expected "emerg", "alert", "crit", "error", "warn", "notice", "info" or "debug"',
  ],
  ["server", 'log_format = "xml"', 'expected "text", "plain" or "json", got "xml"'],
  ["server", 'handler = "true"', 'expected true or false, got "true"'],
  ["server", "listen_backlog = 0", "expected a whole number from 1 to 65535, got 0"],
  ["server", "debug = -1", "expected a whole number from 0 to 6, got -1"],
  ["server", "debug = 1.5", "expected a whole number from 0 to 6, got 1.5"],
  ["server", "workers = 0", 'expected a whole number of at least 1 or "auto", got 0'],
  ["server", "workers = 1.5", 'expected a whole number of at least 1 or "auto", got 1.5'],
  ["server", "workers = 1025", "expected at most 1024 workers, got 1025"],
  ["server", 'handler_timeout = "8 s"', 'got "8 s"; write "8s"'],
  ["server", 'handler_timeout = "8"', 'got "8"; write 8, without quotes'],
  ["server", 'handler_timeout = "8 minutes"', 'got "8 minutes"; write "8m"'],
  ["server", 'handler_timeout = "8M"', 'got "8M"; write "8m"'],
  ["server", 'handler_timeout = "-8s"', 'got "-8s"'],
  ["server", 'handler_timeout = "1h30m"', 'got "1h30m"'],
  ["server", 'handler_timeout = "10MB"', 'got "10MB"'],
  ["server", 'handler_timeout = "0s"', 'got "0s"'],
  ["server", 'timeout = "24d"', 'got "24d"'],
  ["server", "handler_timeout = 00:00:08", "got a date or time"],
  ["server", "handler_timeout = inf", "got inf"],
  ["server", "eom_timeout = nan", "got nan"],
  ["server", "block_timeout = -inf", "got -inf"],
  ["server", 'on_error = "defer"', 'expected "tempfail", "reject", "accept" or "continue", got "defer"'],
  ["server", 'on_timeout = "discard"', 'expected "tempfail", "reject", "accept" or "continue", got "discard"'],
  ["server", "defer_content = 1", "expected true or false, got 1"],
  ["server", "max_connections = 0", "expected a whole number from 1 to 1000000, got 0"],
  [
    "server",
    "drain_timeout = -1",
    'expected a duration from 0 to 2000000 seconds, such as 3, "500ms", "10m", "2h" or "7d", got -1',
  ],
  [
    "server",
    "stop_timeout = -0.5",
    'expected a duration from 0 to 2000000 seconds, such as 3, "500ms", "10m", "2h" or "7d", got -0.5',
  ],
  ["server", "watch = []", "expected true or false, got an empty list"],
  [
    "limits",
    "packet = 131071",
    'expected a size from 131072 to 2147483647 bytes, such as 1048576, "64KB", "10MB" or "1GB", got 131071',
  ],
  ["limits", 'packet = "1MiB"', 'got "1MiB"; write "1MB"'],
  ["limits", 'packet = "127KB"', 'got "127KB"'],
  ["limits", 'body = "10 mb"', 'got "10 mb"; write "10MB"'],
  ["limits", 'body = "10M"', 'got "10M"; write "10MB"'],
  ["limits", 'body = "1048576"', 'got "1048576"; write 1048576, without quotes'],
  ["limits", 'body = "ten"', 'got "ten"'],
  [
    "limits",
    'headers = "5000"',
    'expected a whole number from 1 to 2147483647, got "5000"; write 5000, without quotes',
  ],
  ["limits", "headers = 0", "expected a whole number from 1 to 2147483647, got 0"],
  ["limits", "header_bytes = 2147483648", "got 2147483648"],
  ["limits", "recipients = 1.5", "got 1.5"],
  ["limits", "macros = -1", "got -1"],
  ["limits", "body = true", "got true"],
  ["handler.config", "master_exit_handler = 1", "expected the path of a .ts or .rb file, got 1"],
  ["handler.session", 'eom_handler = ""', 'expected the path of a .ts or .rb file, got ""'],
];

const FILTER_VALUES: readonly [line: string, what: string][] = [
  ['path = "a.rb"', 'filter 1: path: a filter is a .ts file; Ruby files belong in [handler.session]; got "a.rb"'],
  ['path = "a.ts"\nname = ""', 'expected a name of one line, got ""'],
  ['path = "a.ts"\nname = "a\\nb"', 'expected a name of one line, got "a\\nb"'],
  ['path = "a.ts"\non_error = "no"', 'expected "tempfail", "reject", "accept" or "continue", got "no"'],
  ['path = "a.ts"\non_timeout = 1', 'expected "tempfail", "reject", "accept" or "continue", got 1'],
  [
    'path = "a.ts"\nhandler_timeout = 0',
    'expected a duration from 0.001 to 2000000 seconds, such as 3, "500ms", "10m", "2h" or "7d", got 0',
  ],
  ['path = "a.ts"\nhandler_timeout = 8.001', "expected at most 8, got 8.001"],
  ['path = "a.ts"\nmode = "off"', 'expected "enforce" or "observe", got "off"'],
];

describe("values", () => {
  for (const [table, line, what] of VALUES) {
    test(`[${table}] ${JSON.stringify(line.slice(0, 60))}`, () => {
      const error = failureOf(`# a comment\n[${table}]\n${line}`);
      expect(error.issues).toHaveLength(1);
      expect(error.message).toContain(what);
      expect(error.issues[0]?.key).toStartWith(`${table}.${line.includes("\n") ? "listen" : line.split(" ")[0]}`);
      expect(error.line).toBe(2 + line.split("\n").length);
    });
  }

  for (const [line, what] of FILTER_VALUES) {
    test(`[[filter]] ${JSON.stringify(line)}`, () => {
      const error = failureOf(`[[filter]]\n${line}`);
      expect(error.issues).toHaveLength(1);
      expect(error.message).toContain(what);
      expect(error.line).toBe(1 + line.split("\n").length);
    });
  }

  test("a filter is measured by the server's handler_timeout, unless that is wrong itself", () => {
    const filter = '[[filter]]\npath = "a.ts"\nhandler_timeout = 5';
    expect(faultsOf(`[server]\nhandler_timeout = 4\n${filter}`)).toEqual([
      "5:1: filter 1: handler_timeout: a filter may only shorten server.handler_timeout: expected at most 4, got 5",
    ]);
    expect(faultsOf(`[server]\nhandler_timeout = "4"\n${filter}`)).toHaveLength(1);
  });
});
