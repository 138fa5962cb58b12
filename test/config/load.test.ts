/** From a good file to a Config: defaults, units, paths, notices. Faults are in faults.test.ts. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { Config } from "../../src/config/config.ts";
import type { Environment } from "../../src/config/places.ts";
import { loadConfig, parseConfig } from "../../src/config/load.ts";
import { TABLES, tableHeader } from "../../src/config/reference.ts";
import { PHASE_NAMES } from "../../src/protocol/phases.ts";
import { failure } from "./failure.ts";
import { TEMP } from "../support/temp.ts";

const CONTROL = "/etc/pmilter/pmilter-24608553.ctl";

const parse = (text: string, env = {}): Config => parseConfig(text, "/etc/pmilter/pmilter.toml", env);

describe("defaults", () => {
  test("an empty file has every default", () => {
    expect(parse("")).toEqual({
      file: "/etc/pmilter/pmilter.toml",
      include: [],
      included: [],
      server: {
        listen: [{ kind: "tcp", host: "127.0.0.1", port: 8891, family: 4 }],
        socketMode: 0o660,
        socketUser: null,
        socketGroup: null,
        user: null,
        group: null,
        allow: null,
        control: CONTROL,
        state: "/etc/pmilter/.pmilter/pmilter",
        spool: null,
        timeoutMs: 7_210_000,
        logLevel: "notice",
        logFormat: "text",
        handler: true,
        listenBacklog: 128,
        debug: 0,
        workers: "auto",
        handlerTimeoutMs: 8000,
        eomTimeoutMs: 240_000,
        blockTimeoutMs: 2000,
        onError: "tempfail",
        onTimeout: "tempfail",
        deferContent: true,
        maxConnections: null,
        drainTimeoutMs: 300_000,
        stopTimeoutMs: 20_000,
        watch: true,
      },
      dns: { servers: [], timeoutMs: 2000, attempts: 2, cache: 10_000 },
      store: { url: "sqlite:store.db", timeoutMs: 500, maxBytes: 2 ** 31 },
      limits: {
        packet: 1_048_576,
        headers: 5000,
        headerBytes: 2_097_152,
        recipients: 10_000,
        macros: 65_536,
        body: 67_108_864,
        workerMemory: 1_073_741_824,
      },
      handler: { postconfig: null, masterExit: null, session: {} },
      filters: [],
      switchedOff: [],
      notices: [],
    });
  });

  test("a filter needs only its path", () => {
    expect(parse('[[filter]]\npath = "a.ts"').filters).toEqual([
      {
        file: "/etc/pmilter/pmilter.toml",
        table: 0,
        path: "/etc/pmilter/a.ts",
        use: null,
        name: null,
        onError: null,
        onTimeout: null,
        handlerTimeoutMs: null,
        mode: "enforce",
        options: {},
        when: null,
      },
    ]);
  });

  test("or the name of a shipped filter", () => {
    const [filter] = parse('[[filter]]\nuse = "disclaimer"').filters;
    expect(filter).toMatchObject({ path: null, use: "disclaimer", name: null });
    expect(parse('[[filter]]\nuse = "disclaimer"\nenabled = false')).toMatchObject({
      filters: [],
      switchedOff: ["disclaimer"],
    });
  });

  test("a filter that is switched off is none of the filters, and is named", () => {
    const { filters, switchedOff } = parse(
      "[[filter]]\npath = 'a.ts'\nenabled = false\n[[filter]]\npath = 'b.ts'\nenabled = true\n[[filter]]\npath = 'c.ts'\nname = 'third'\nenabled = false",
    );
    expect(filters).toMatchObject([{ path: "/etc/pmilter/b.ts", table: 1 }]);
    expect(switchedOff).toEqual(["a", "third"]);
  });

  test("two results share nothing that could be changed", () => {
    const text = '[[filter]]\npath = "a.ts"';
    parse(text).filters[0]!.options["x"] = 1;
    parse(text).server.listen.pop();
    expect(parse(text)).toEqual(parse(text));
    expect(parse(text).filters[0]!.options).toEqual({});
    expect(parse(text).server.listen).toHaveLength(1);
  });
});

describe("server.control", () => {
  test.each<[Environment, string]>([
    [{}, "/etc/pmilter"],
    [{ XDG_RUNTIME_DIR: "/run/user/1000" }, "/run/user/1000"],
    [{ XDG_RUNTIME_DIR: "relative" }, "/etc/pmilter"],
    [{ XDG_RUNTIME_DIR: "" }, "/etc/pmilter"],
    [{ RUNTIME_DIRECTORY: "/run/mx", XDG_RUNTIME_DIR: "/run/user/1000" }, "/run/mx"],
    [{ RUNTIME_DIRECTORY: "/run/mx:/run/other" }, "/run/mx"],
    [{ RUNTIME_DIRECTORY: ":relative:/run/other" }, "/run/other"],
    [{ RUNTIME_DIRECTORY: "", XDG_RUNTIME_DIR: "/run/user/1000" }, "/run/user/1000"],
  ])("with %j it is in %s", (env, folder) => {
    expect(parse("", env).server.control).toBe(join(folder, basename(CONTROL)));
  });

  test("has a name of its own for each path of a configuration, short and readable", () => {
    const name = (file: string): string => basename(parseConfig("", file, {}).server.control);
    const files = [
      "/a/pmilter.toml",
      "/b/pmilter.toml",
      "/a/mx.toml",
      "/a/mx",
      `/a/${"long".repeat(60)}.toml`,
      "/a/\u00fc\nx",
    ];
    const names = files.map(name);
    expect(new Set(names).size).toBe(files.length);
    expect(name("/x/../a/pmilter.toml")).toBe(names[0]!);
    for (const each of names) expect(each).toMatch(/^pmilter(?:-[\w.-]{1,20})?-[0-9a-f]{8}\.ctl$/);
    expect(names[2]).toStartWith("pmilter-mx-");
  });

  test("is beside the configuration when relative", () => {
    const env = { XDG_RUNTIME_DIR: "/run/user/1000" };
    expect(parse('[server]\ncontrol = "run/p.ctl"', env).server.control).toBe("/etc/pmilter/run/p.ctl");
    expect(parse('[server]\ncontrol = "/run/p.ctl"', env).server.control).toBe("/run/p.ctl");
  });
});

describe("server.state", () => {
  test.each<[string, Environment, string]>([
    ["", {}, "/etc/pmilter/.pmilter/pmilter"],
    ["", { STATE_DIRECTORY: "/var/lib/pmilter" }, "/var/lib/pmilter"],
    ["", { STATE_DIRECTORY: "/var/lib/a:/var/lib/b" }, "/var/lib/a"],
    ["", { STATE_DIRECTORY: "relative" }, "/etc/pmilter/.pmilter/pmilter"],
    ['[server]\nstate = "state"', { STATE_DIRECTORY: "/var/lib/pmilter" }, "/etc/pmilter/state"],
    ['[server]\nstate = "/srv/state"', {}, "/srv/state"],
  ])("%j with %j is %s", (text, env, state) => {
    expect(parse(text, env).server.state).toBe(state);
  });

  test("is named after the configuration", () => {
    const state = (file: string): string => parseConfig("", file, {}).server.state;
    expect(state("/etc/mx.toml")).toBe("/etc/.pmilter/mx");
    expect(state("/etc/mx.prod.toml")).toBe("/etc/.pmilter/mx.prod");
    expect(state("/etc/mx")).toBe("/etc/.pmilter/mx");
  });
});

describe("values", () => {
  const server = (line: string): Config["server"] => parse(`[server]\n${line}`).server;

  test("server.listen takes a string or a list", () => {
    expect(server('listen = "run/p.sock"').listen).toEqual([{ kind: "unix", path: "/etc/pmilter/run/p.sock" }]);
    expect(server('listen = ["unix:/run/p.sock", "inet6:[::1]:0", "fd:3"]').listen).toEqual([
      { kind: "unix", path: "/run/p.sock" },
      { kind: "tcp", host: "::1", port: 0, family: 6 },
      { kind: "fd", fd: 3 },
    ]);
  });

  test("server.listen may name port 0 more than once", () => {
    expect(server('listen = ["127.0.0.1:0", "127.0.0.1:0"]').listen).toHaveLength(2);
  });

  test("server.allow keeps the difference between nobody and everybody", () => {
    expect(server("allow = []").allow).toEqual([]);
    expect(server('allow = ["192.0.2.0/24"]').allow).toEqual([{ address: "192.0.2.0", prefix: 24, family: 4 }]);
  });

  test("seconds may have fractions, and reach from a millisecond to the end of timers", () => {
    expect(server("timeout = 0.5").timeoutMs).toBe(500);
    expect(server("timeout = 0.001").timeoutMs).toBe(1);
    expect(server("timeout = 2_000_000").timeoutMs).toBeLessThan(2 ** 31);
    expect(server("drain_timeout = 0").drainTimeoutMs).toBe(0);
    expect(server("stop_timeout = 0").stopTimeoutMs).toBe(0);
  });

  test.each([
    ["500ms", 500],
    ["3s", 3000],
    ["1.5s", 1500],
    ["10m", 600_000],
    ["2h", 7_200_000],
    ["7d", 604_800_000],
  ])("a duration %j", (text, ms) => {
    expect(server(`timeout = "${text}"`).timeoutMs).toBe(ms);
  });

  test.each([
    ["64KB", 65_536],
    ["1.5MB", 1_572_864],
    ["10MB", 10_485_760],
    ["1GB", 1_073_741_824],
  ])("a size %j", (text, bytes) => {
    expect(parse(`[limits]\nbody = "${text}"`).limits.body).toBe(bytes);
  });

  test("every key with a unit takes it as text", () => {
    const text = { s: "2s", bytes: "130MB" };
    const number = { s: 2, bytes: 130 * 1024 * 1024 };
    const fileWith = (values: typeof text | typeof number) =>
      TABLES.map((table) => {
        const lines = [...table.keys.values()].flatMap(({ name, unit }) =>
          unit === undefined ? [] : [`${name} = ${JSON.stringify(values[unit])}`],
        );
        if (lines.length === 0) return "";
        return [tableHeader(table), ...(table.isList ? ["path = 'a.ts'"] : []), ...lines].join("\n");
      }).join("\n");
    expect(fileWith(text).match(/"2s"/g)).toHaveLength(9);
    expect(fileWith(text).match(/"130MB"/g)).toHaveLength(6);
    expect(parse(fileWith(text))).toEqual(parse(fileWith(number)));
  });

  test("socket_mode is octal", () => {
    expect(server('socket_mode = "0600"').socketMode).toBe(0o600);
    expect(server('socket_mode = "666"').socketMode).toBe(0o666);
  });

  test("workers is a number or auto", () => {
    expect(server("workers = 1").workers).toBe(1);
    expect(server('workers = "auto"').workers).toBe("auto");
  });

  test("limits stand at their bounds", () => {
    expect(parse("[limits]\npacket = 131072\nheaders = 1").limits).toMatchObject({ packet: 131_072, headers: 1 });
  });

  test("a filter's handler_timeout may be as long as the server's", () => {
    expect(parse('[[filter]]\npath = "a.ts"\nhandler_timeout = 8').filters[0]!.handlerTimeoutMs).toBe(8000);
  });

  test("filters keep their order and their own options", () => {
    const { filters } = parse(`
      [[filter]]
      path = "b.ts"
      name = "Second thoughts"
      mode = "observe"
      on_error = "continue"
      on_timeout = "accept"
      [filter.options]
      a.b = [1, { c = "x" }]
      [[filter]]
      path = "/a.ts"
    `);
    expect(filters.map((filter) => filter.path)).toEqual(["/etc/pmilter/b.ts", "/a.ts"]);
    expect(filters[0]).toMatchObject({
      name: "Second thoughts",
      mode: "observe",
      onError: "continue",
      onTimeout: "accept",
      options: { a: { b: [1, { c: "x" }] } },
    });
    expect(filters[1]!.options).toEqual({});
  });

  test("options survive being posted to a worker", () => {
    const { options } = parse(`
      [[filter]]
      path = "a.ts"
      options = { at = 1979-05-27T07:32:00Z, day = 1979-05-27, list = [{ t = 07:32:00 }] }
    `).filters[0]!;
    expect(options).toEqual({
      at: new Date("1979-05-27T07:32:00Z"),
      day: "1979-05-27",
      list: [{ t: "07:32:00.000" }],
    });
    expect(structuredClone(options)).toEqual(options);
    expect(Object.getPrototypeOf(options)).toBe(Object.prototype);
    expect(Object.getPrototypeOf(options["at"])).toBe(Date.prototype);
  });

  test("every phase has its handler, and the handlers of the process theirs", () => {
    const lines = PHASE_NAMES.map((phase) => `${phase}_handler = "h/${phase}.ts"`).join("\n");
    const { handler } = parse(
      `[handler.session]\n${lines}\n[handler.config]\npostconfig_handler = "p.ts"\nmaster_exit_handler = "m.ts"`,
    );
    expect(handler).toEqual({
      postconfig: "/etc/pmilter/p.ts",
      masterExit: "/etc/pmilter/m.ts",
      session: Object.fromEntries(PHASE_NAMES.map((phase) => [phase, `/etc/pmilter/h/${phase}.ts`])),
    });
  });

  test("a byte order mark and CRLF are read", () => {
    expect(parse("\uFEFF[server]\r\ndebug = 3\r\n").server.debug).toBe(3);
  });
});

describe("notices", () => {
  const texts = (line: string): string[] =>
    parse(`[server]\n${line}`).notices.map(({ level, text }) => `${level}: ${text}`);

  test("handler_timeout and block_timeout from 10 s on outlast Sendmail", () => {
    expect(texts("handler_timeout = 9.999\nblock_timeout = 9.999")).toEqual([]);
    expect(texts("handler_timeout = 10")).toEqual([
      "warning: server.handler_timeout is 10 s, but Sendmail waits only 10 s for a reply",
    ]);
    expect(texts("block_timeout = 12")).toEqual([
      "warning: server.block_timeout is 12 s, but Sendmail waits only 10 s for a reply",
    ]);
  });

  test("eom_timeout from 300 s on outlasts Sendmail", () => {
    expect(texts("eom_timeout = 299")).toEqual([]);
    expect(texts("eom_timeout = 300")).toEqual([
      "warning: server.eom_timeout is 300 s, but Sendmail waits only 300 s for the end of a message",
    ]);
  });

  test("an empty allow shuts TCP", () => {
    expect(texts("allow = []")).toEqual(["warning: server.allow is empty: no mail server can connect by TCP"]);
    expect(texts('allow = []\nlisten = "/run/p.sock"')).toEqual([]);
  });
});

describe("loadConfig", () => {
  const folder = mkdtempSync(join(TEMP, "pmilter-config-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  test("reads a file, with paths relative to it", () => {
    const file = join(folder, "pmilter.toml");
    writeFileSync(file, '[server]\nlisten = "p.sock"\n[handler.session]\nhelo_handler = "h.ts"\n');
    const config = loadConfig(file, {});
    expect(config.file).toBe(file);
    expect(config.server.listen).toEqual([{ kind: "unix", path: join(folder, "p.sock") }]);
    expect(dirname(config.server.control)).toBe(folder);
    expect(config.handler.session.helo).toBe(join(folder, "h.ts"));
  });

  test("says what is wrong with a file that cannot be read", () => {
    const missing = failure(() => loadConfig(join(folder, "none.toml")));
    expect(missing.message).toBe(
      `${join(folder, "none.toml")}: the configuration cannot be read: there is no such file`,
    );
    expect(missing.file).toBe(join(folder, "none.toml"));
    expect(missing.line).toBeUndefined();
    expect(missing.cause).toBeInstanceOf(Error);
    expect(failure(() => loadConfig(folder)).message).toEndWith("cannot be read: expected a file, got a folder");
  });

  test("refuses what is not UTF-8", () => {
    const file = join(folder, "latin1.toml");
    writeFileSync(file, Buffer.from("# caf\xe9\n", "latin1"));
    expect(failure(() => loadConfig(file)).message).toBe(
      `${file}:1:6: expected UTF-8 text, got the byte 0xE9; save the file as UTF-8`,
    );
    writeFileSync(file, Buffer.from("\ufeff[server]\n", "utf16le"));
    expect(failure(() => loadConfig(file)).message).toBe(
      `${file}: expected UTF-8 text, got UTF-16; save the file as UTF-8`,
    );
  });
});
