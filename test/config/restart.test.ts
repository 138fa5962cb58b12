/** The keys that need a restart: each has a value in the configuration, and a change of each is found. */
import { expect, test } from "bun:test";
import { parseConfig } from "../../src/config/load.ts";
import { needRestart, RESTART_KEYS, valueOf } from "../../src/config/restart.ts";
import { ROOT } from "../../src/config/reference.ts";
import { helpText } from "../../src/cli/help.ts";

/** Another value for each, as it stands in the file. */
const OTHERS: Readonly<Record<string, string>> = {
  listen: '"inet:127.0.0.1:8892"',
  socket_mode: '"0600"',
  socket_user: '"nobody"',
  socket_group: '"nogroup"',
  user: '"nobody"',
  group: '"nogroup"',
  control: '"/run/other.sock"',
  state: '"/var/lib/other"',
  spool: '"/var/lib/spool"',
  listen_backlog: "7",
  max_connections: "7",
};

const configOf = (text: string) => parseConfig(text, "pmilter.toml", {});
const defaults = configOf("");

test("there is another value here for each", () => {
  expect(Object.keys(OTHERS).toSorted()).toEqual([...RESTART_KEYS]);
});

test.each(RESTART_KEYS)("server.%s", (key) => {
  const changed = configOf(`[server]\n${key} = ${OTHERS[key]}\n`);
  expect(valueOf(defaults, key)).not.toBeUndefined();
  expect(needRestart(defaults, changed)).toEqual([`server.${key}`]);
  expect(needRestart(changed, configOf(`[server]\n${key} = ${OTHERS[key]}\n`))).toEqual([]);
});

test("no other key of [server] needs one", () => {
  const others = [...ROOT.tables.get("server")!.keys.keys()].filter((key) => !RESTART_KEYS.includes(key));
  expect(others).toContain("timeout");
  expect(needRestart(defaults, configOf('[server]\ntimeout = 60\nworkers = 3\nlog_level = "debug"\n'))).toEqual([]);
});

test("the help of reload names them all", () => {
  expect(helpText("reload").replaceAll("\n", " ")).toContain(`need a restart: ${RESTART_KEYS.join(", ")}.`);
});

test.each(
  [...ROOT.tables]
    .filter(([, { keys }]) => [...keys.values()].some(({ restart }) => restart === true))
    .map(([name]) => name)
    .filter((name) => name !== "server"),
)("[%s] as a whole", (table) => {
  const keys = [...ROOT.tables.get(table)!.keys.values()];
  expect(keys.every(({ restart }) => restart === true)).toBe(true);
  const values: Readonly<Record<string, string>> = {
    servers: '["192.0.2.1"]',
    timeout: '"7s"',
    attempts: "7",
    cache: "7",
    url: '"redis://127.0.0.1"',
    max_size: '"7MB"',
  };
  for (const { name } of keys) {
    expect(needRestart(defaults, configOf(`[${table}]\n${name} = ${values[name]}\n`))).toEqual([`[${table}]`]);
  }
});
