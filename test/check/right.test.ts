/** What is right: `pmilter check` finds no fault with it, however it is written. */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { cp, symlink } from "node:fs/promises";
import { join } from "node:path";
import { ROOT, runPmilter, writeProject } from "../support/pmilter.ts";
import { USE_FILES } from "../shipped/use.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const RIGHT: Record<string, string> = {
  "plain JavaScript in a .ts file": `export default {
  state: undefined,
  connect(session) { session.state.seen = []; },
  envfrom(session, sender) { session.state.seen.push(sender); },
};
`.replace("  state: undefined,\n", ""),
  "options by a schema, and by another way of writing them": `import { defineFilter } from "pmilter";
import * as o from "pmilter/options";
const options = o.table({
  tag: o.pipe(o.string(), o.trim(), o.minLength(1)),
  wait: o.optional(o.duration(), "5s"),
  rules: o.optional(o.array(o.table({ limit: o.number() })), []),
});
type Options = o.InferOutput<typeof options>;
const longest = ({ wait, rules }: Options): number => wait * rules.length;
export default defineFilter({
  options,
  start(given) { console.log(given.wait.toFixed(), longest(given)); },
  connect({ options }) { console.log(options.tag.length, options.rules[0]?.limit); },
});
`,
  "a promise's reject": `import { defineFilter, reject } from "pmilter";
const wait = (ms) => new Promise((resolve, reject) => {
  if (ms < 0) reject(new Error("negative"));
  else setTimeout(resolve, ms);
});
export default defineFilter({
  async envfrom(_session, sender) {
    await wait(1);
    if (sender === "<a@b>") return reject();
  },
});
`,
  "verdicts in constants, conditions and helpers": `import { accept, defineFilter, reject as refuse, tempfail, type Verdict } from "pmilter";
const NO = refuse("550 5.7.1 No");
const later = () => tempfail("451 4.7.1 Later");
function judge(sender: string) {
  if (sender === "<a@b>") return NO;
  return sender === "<>" ? accept() : undefined;
}
const TABLE: Record<string, Verdict<"reject" | "tempfail">> = { a: NO, b: later() };
export default defineFilter({
  envfrom: (_session, sender) => judge(sender) ?? TABLE[sender],
  async envrcpt(session) {
    return session.message.recipients.length > 100 ? later() : undefined;
  },
});
`,
  "modules of Bun and Node, JSON, and a package without types": `import { defineFilter } from "pmilter";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import list from "./list.json";
import words from "./words.txt";
import { twice } from "./helper.js";
import untyped from "untyped";
export default defineFilter({
  start() {
    console.log(readFileSync(join(import.meta.dirname, "list.json"), "utf8").length, process.pid, Bun.version);
  },
  async connect({ client }) {
    const signal = AbortSignal.timeout(1000);
    const url = new URL("http://example.com/");
    console.log(list.names.length, words.length, twice(2), untyped.anything, Buffer.from("x").length, url.host, signal.aborted, client.address);
    setTimeout(() => {}, 1);
    structuredClone({});
  },
});
`,
  "implicit types, catch, classes, any": `import { defineFilter, reject } from "pmilter";
class Counter {
  count;
  names: string[];
  constructor() { this.count = 0; this.names = []; }
  add(name) { this.count += 1; this.names.push(name); }
}
const counters = {};
let last;
export default defineFilter({
  envfrom(session, sender) {
    counters[sender] ??= new Counter();
    counters[sender].add(sender);
    last = sender;
    try {
      JSON.parse(sender);
    } catch (error) {
      console.log(error.message, last);
    }
    if (counters[sender].count > 5) return reject("550 5.7.1 Too many");
  },
});
`,
  "state and options with types, and options that the configuration leaves out": `import { defineFilter, type Session, tempfail } from "pmilter";
interface State { greeted?: boolean }
interface Options { networks?: string[]; mode: "a" | "b"; since?: Date; nested?: { deep: number } }
const isKnown = (session: Session<"envfrom", State, Options>) => session.options.networks?.includes(session.client.address);
export default defineFilter<State, Options>({
  name: "typed",
  helo(session) { session.state.greeted = true; },
  envfrom(session) { if (!isKnown(session)) return tempfail(); },
});
`,
  "a reply text in pieces, headers that are folded": `import { defineFilter, reject } from "pmilter";
const CODE = 550;
export default defineFilter({
  collectBody: true,
  eom({ message, client }) {
    message.addHeader("X-Folded", "one\\n two");
    message.addHeader("X-Client", client.address);
    message.deleteRecipient("<odd@example.com>");
    const size = message.body().length;
    if (size > 5) return reject(\`\${CODE} 5.7.1 \${size} is too much\`);
    if (size > 4) return reject(\`550 5.7.1 \${size} is too much\\nsecond line\`);
    if (size > 3) return reject("550 5.7.1 a // b " + size);
  },
});
`,
};

/** Without a type of its own for anything. */
RIGHT["an ordinary handler, with all phases"] = `import { defineFilter, reject, tempfail } from "pmilter";
const cache = new Map();
const seen = {};
const list = [];
export default defineFilter({
  name: "x",
  collectBody: true,
  async start(options) {
    const res = await fetch("data:application/json,{}");
    const data = await res.json();
    console.log(data.listed, options.limit);
    list.push("a"); list.push(5);
  },
  connect(session) {
    session.state.count = 0;
    session.state.names = [];
  },
  envfrom(session, sender) {
    session.state.count++;
    session.state.names.push(sender);
    if (session.options.limit > 5 && session.options.networks.includes("x")) return reject();
    cache.set(sender, { n: 1 }); cache.get(sender).n++;
    seen[sender] = (seen[sender] || 0) + 1;
    let result;
    if (sender) result = tempfail();
    return result;
  },
  async envrcpt({ message }, rcpt) {
    const to = message.recipients[0].address;
    const m = /x(.)/.exec(rcpt);
    if (m && m[1] === "a") return reject("550 5.1.1 No");
    const user = await Bun.file("/etc/hostname").text();
    for (const line of user.split("\\n")) if (line === to) return;
    return undefined;
  },
  header(session, name, value) {
    if (name.toLowerCase() === "subject" && /viagra/i.test(value)) return reject(\`550 5.7.1 \${value}\`);
  },
  body(session, chunk) { const text = new TextDecoder().decode(chunk); if (text.includes("x")) return reject(); },
  eom({ message, state, queueId, macros }) {
    const text = Buffer.from(message.body()).toString("latin1");
    const hash = new Bun.CryptoHasher("sha256").update(text).digest("hex");
    message.addHeader("X-Hash", hash);
    message.changeHeader("Subject", "[x] " + message.headers.get("Subject"));
    const o = { a: 1 }; o["b"] = 2;
    switch (state.count) { case 1: return; default: }
    setTimeout(() => console.log(queueId), 10);
    console.log(macros.get("i")?.length, import.meta.dir, process.memoryUsage().rss, performance.now(), crypto.randomUUID());
    message.replaceBody(text.toUpperCase());
  },
  unknown(session, command) { if (command.startsWith("GET")) return reject("500 5.5.1 HTTP?"); },
  close(session) { delete session.state.names; },
});
`;

const FILES = {
  "list.json": '{ "names": ["a"] }\n',
  "words.txt": "one\n",
  "helper.js": "export const twice = (n) => n * 2;\n",
  "node_modules/untyped/package.json": '{ "name": "untyped", "version": "1.0.0", "main": "index.js" }\n',
  "node_modules/untyped/index.js": "module.exports = { anything: 1 };\n",
};

describe("handlers that are right", () => {
  let stderr = "";
  let exitCode = -1;
  beforeAll(async () => {
    await using dir = await tempDir("right");
    const names = Object.keys(RIGHT);
    const files = Object.fromEntries(names.map((name, index) => [`handler${index}.ts`, RIGHT[name]!]));
    const tables = names.map((_, index) => `[[filter]]\npath = "handler${index}.ts"\n`);
    const typed = names.findIndex((name) => name.startsWith("state and options"));
    tables[typed] += '[filter.options]\nmode = "b"\nsince = 2026-01-01T00:00:00Z\nnested = { deep = 1 }\n';
    tables[names.findIndex((name) => name.startsWith("options by a schema"))] +=
      '[filter.options]\ntag = "x"\nwait = "5m"\n';
    const configFile = await writeProject(dir.path, { config: tables.join(""), files: { ...files, ...FILES } });
    ({ exitCode, stderr } = await runPmilter(["check", "-c", configFile], { cwd: dir.path }));
  });

  test.each(Object.keys(RIGHT).map((name, index) => [name, index] as const))("%s", (_, index) => {
    expect(stderr.split("\n").filter((line) => line.includes(`handler${index}.ts`))).toEqual([]);
  });

  test("nothing is said, and the exit code is 0", () => {
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  });
});

describe("the shipped handlers", () => {
  const PHASES = { connect: "connect", helo: "helo", envfrom: "mail_from", envrcpt: "rcpt_to", header: "header" };
  /** Those that cannot be left out. */
  const OPTIONS: Readonly<Record<string, string>> = {
    "access-lists": 'options.lists = [{ match = "client", file = "pmilter.toml" }]',
    "bcc-archive": 'options.address = "archive@example.com"',
    banner: 'options.text = "x"',
    disclaimer: 'options.text = "x"',
    "dkim-sign": 'options.keys = [{ domain = "example.com", selector = "s1", file = "s1.pem" }]',
    "dns-lists": 'options.lists = [{ zone = "zen.example" }]',
    "header-policy": 'options.rules = [{ rule = "date_missing", action = "fix" }]',
    "rate-limit": 'options.rules = [{ key = "user", limit = 100, per = "1h" }]',
    "subject-tag": 'options.tag = "x"',
  };
  const FILTERS = [
    "access-lists",
    "attachments",
    "banner",
    "bcc-archive",
    "disclaimer",
    "dkim-sign",
    "dns-lists",
    "greylist",
    "header-policy",
    "mail-auth",
    "rate-limit",
    "stamp",
    "subject-tag",
  ];
  const config = [
    "[handler.session]",
    ...Object.entries({ ...PHASES, body: "body", eom: "eom" }).map(
      ([phase, name]) => `${phase}_handler = "handlers/${name}.ts"`,
    ),
    "[handler.config]",
    'postconfig_handler = "handlers/postconfig.ts"',
    'master_exit_handler = "handlers/master_exit.ts"',
    ...FILTERS.map((name) => `[[filter]]\npath = "handlers/${name}.ts"\n${OPTIONS[name] ?? ""}`),
  ].join("\n");

  test("are all in this test", () => {
    const names = readdirSync(join(ROOT, "handlers")).filter((name) => name.endsWith(".ts"));
    for (const name of names) expect(config).toContain(`"handlers/${name}"`);
  });

  // With the repository's tsconfig.json, and without any.
  test.each(["by the rules of this repository", "by the rules of the check"])("%s", async (rules) => {
    const isOwn = rules.endsWith("repository");
    await using dir = await tempDir("shipped");
    if (!isOwn) {
      await cp(join(ROOT, "handlers"), join(dir.path, "handlers"), { recursive: true });
      await symlink(join(ROOT, "node_modules"), join(dir.path, "node_modules"));
    }
    const text = isOwn ? config.replaceAll('"handlers/', `"${ROOT}/handlers/`) : config;
    const configFile = await writeProject(dir.path, { config: text, files: USE_FILES });
    expect(await runPmilter(["check", "--no-start", "-c", configFile])).toMatchObject({ exitCode: 0, stderr: "" });
  });
});
