/** Names in a configuration: the original's, accepted or set twice, and unknown ones with what they may stand for. */
import { describe, expect, test } from "bun:test";
import type { Config } from "../../src/config/config.ts";
import { parseConfig } from "../../src/config/load.ts";
import { TABLES, tableHeader } from "../../src/config/reference.ts";
import { PHASE_NAMES } from "../../src/protocol/phases.ts";
import { faultsOf } from "./failure.ts";
import { ORIGINAL } from "./original.ts";

const parse = (text: string): Config => parseConfig(text, "/etc/pmilter/pmilter.toml", {});

describe("the original's pmilter.conf", () => {
  test("is accepted as it is", () => {
    const config = parseConfig(ORIGINAL, "/etc/pmilter.conf", {});
    expect(config.server).toMatchObject({
      listen: [{ kind: "unix", path: "/var/spool/postfix/pmilter/pmilter.sock" }],
      timeoutMs: 7_210_000,
      handler: true,
      workers: "auto",
    });
    expect(config.handler).toEqual({
      postconfig: "/etc/handler/postconfig.rb",
      masterExit: "/etc/handler/master_exit.rb",
      session: {
        connect: "/etc/handler/connect.rb",
        helo: "/etc/handler/helo.rb",
        envfrom: "/etc/handler/mail_from.rb",
        envrcpt: "/etc/handler/rcpt_to.rb",
        header: "/etc/handler/header.rb",
        body: "/etc/handler/body.rb",
        eom: "/etc/handler/eom.rb",
      },
    });
    expect(config.notices).toEqual([
      {
        level: "notice",
        text: "server.min_worker is ignored: it counted the original's threads; server.workers rules",
      },
    ]);
  });

  test("mruby_handler false switches handlers off", () => {
    expect(parse("[server]\nmruby_handler = false").server.handler).toBe(false);
  });

  test("every phase has its alias", () => {
    const lines = PHASE_NAMES.map((phase) => `mruby_${phase}_handler = "${phase}.ts"`).join("\n");
    expect(Object.keys(parse(`[handler.session]\n${lines}`).handler.session)).toEqual([...PHASE_NAMES]);
  });

  test("min_worker leaves workers alone", () => {
    expect(parse("[server]\nmin_worker = 32\nworkers = 2").server.workers).toBe(2);
  });
});

describe("aliases", () => {
  test.each([
    ["server", "handler = true", "mruby_handler = true"],
    ["handler.config", "postconfig_handler = 'a.ts'", "mruby_postconfig_handler = 'a.ts'"],
    ["handler.config", "master_exit_handler = 'a.ts'", "mruby_master_exit_handler = 'a.ts'"],
    ["handler.session", "helo_handler = 'a.ts'", "mruby_helo_handler = 'a.ts'"],
  ])("[%s] %s with %s", (table, ours, original) => {
    const [name] = ours.split(" ");
    const [alias] = original.split(" ");
    const text = `"${name}" is set as well; keep one`;
    expect(faultsOf(`[${table}]\n${ours}\n${original}`)).toEqual([`3:1: ${table}.${alias}: ${text}`]);
    expect(faultsOf(`[${table}]\n${original}\n${ours}`)).toEqual([`2:1: ${table}.${alias}: ${text}`]);
  });
});

/** All that a table may have, as an error lists it. */
function has(header: string): string {
  const table = TABLES.find((each) => tableHeader(each) === header)!;
  const names = [...table.keys.keys()];
  return `${header} has ${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
const ALL_TABLES =
  "the tables are [server], [limits], [dns], [store], [handler.config], [handler.session] and [[filter]]";

describe("unknown keys", () => {
  test.each([
    ["server", "max_conections = 1", 'unknown key; did you mean "max_connections"?'],
    ["server", "max_connectiosn = 1", 'unknown key; did you mean "max_connections"?'],
    ["server", "logLevel = 'info'", 'unknown key; did you mean "log_level"?'],
    ["server", "log-level = 'info'", 'unknown key; did you mean "log_level"?'],
    ["server", "LISTEN = 'x'", 'unknown key; did you mean "listen"?'],
    ["server", "lisetn = 'x'", 'unknown key; did you mean "listen"?'],
    ["server", "mruby_handlr = true", 'unknown key; did you mean "handler"?'],
    ["server", "packet = 1", 'unknown key; "packet" belongs to [limits]'],
    ["server", "header_bytse = 1", 'unknown key; "header_bytes" belongs to [limits]'],
    ["server", "mode = 'observe'", 'unknown key; "mode" belongs to [[filter]]'],
    ["server", "mruby_helo_handler = 'a.ts'", 'unknown key; "helo_handler" belongs to [handler.session]'],
    ["server", "colour = 1", `unknown key; ${has("[server]")}`],
    ["server", "toString = 1", `unknown key; ${has("[server]")}`],
    ["server", "hasOwnProperty = 1", `unknown key; ${has("[server]")}`],
    ["limits", "timeout = 1", 'unknown key; "timeout" belongs to [server]'],
    ["limits", "bodies = 1", `unknown key; ${has("[limits]")}`],
    ["handler", "connect_handler = 'a.ts'", 'unknown key; "connect_handler" belongs to [handler.session]'],
    ["handler", "sesion = {}", "unknown table; did you mean [handler.session]?"],
    ["handler.session", "connect = 'a.ts'", 'unknown key; did you mean "connect_handler"?'],
    ["handler.session", "mail_handler = 'a.ts'", 'unknown key; did you mean "envfrom_handler"?'],
    ["handler.session", "rcpt_to = 'a.ts'", 'unknown key; did you mean "envrcpt_handler"?'],
    ["handler.session", "spam_handler = 'a.ts'", `unknown key; ${has("[handler.session]")}`],
    ["handler.config", "workers_handler = 'a.ts'", `unknown key; ${has("[handler.config]")}`],
    ["handler.hooks", "", "unknown table; the tables are [handler.config] and [handler.session]"],
    ["[logging]", "", `unknown table; ${ALL_TABLES}`],
    ["handler.session", "postconfig_handler = 'a.ts'", 'unknown key; "postconfig_handler" belongs to [handler.config]'],
    ["sever", "", "unknown table; did you mean [server]?"],
    ["Limits", "", "unknown table; did you mean [limits]?"],
    ["filters", "", "unknown table; did you mean [[filter]]?"],
    ["session", "", "unknown table; did you mean [handler.session]?"],
    ["logging", "", `unknown table; ${ALL_TABLES}`],
    ["zzz", "", `unknown table; ${ALL_TABLES}`],
  ])("[%s] %s", (table, line, text) => {
    const name = table.replace(/^\[|\]$/g, "");
    const key = line === "" ? name : `${name}.${line.split(" ")[0]}`;
    expect(faultsOf(`\n[${table}]\n ${line}`)).toEqual([`${line === "" ? "2:1" : "3:2"}: ${key}: ${text}`]);
  });

  test("at the top of the file and in filters", () => {
    expect(faultsOf("listen = 'x'")).toEqual(['1:1: listen: unknown key; "listen" belongs to [server]']);
    expect(faultsOf("[[filter]]\npath = 'a'\n[filter.option]\nx = 1")).toEqual([
      '3:1: filter 1: option: unknown table; did you mean "options"?',
    ]);
    expect(faultsOf("[[filter]]\npath = 'a'\n[[filter]]\npath = 'a'\nopion.x = 1")).toEqual([
      '5:1: filter 2: opion: unknown table; did you mean "options"?',
    ]);
  });

  test("are quoted when their spelling needs it", () => {
    expect(faultsOf('[server]\n"a b" = 1')).toEqual([`2:1: server."a b": unknown key; ${has("[server]")}`]);
  });

  test("min_worker is the server's alone", () => {
    expect(faultsOf("[limits]\nmin_worker = 1")).toHaveLength(1);
  });

  test("anything goes in a filter's options", () => {
    expect(() => parseConfig("[[filter]]\npath = 'a'\noptions.lisetn = 1", "pmilter.toml")).not.toThrow();
  });
});
