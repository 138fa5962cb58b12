/**
 * What compiles in a filter, and what does not, line by line: through the declarations that `pmilter types` writes, in a
 * folder without `node_modules`. Each line is a filter of its own, with every type inferred from one object literal.
 */
import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { runPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

/** The head of a member, and its body. */
type Line = readonly [head: string, body: string];

const ALLOWED: readonly Line[] = [
  // What start() returns, whatever it awaits.
  ["connect(session)", "const n: number = session.own.query(session.client.address); void n;"],
  ["helo(session)", "session.own.query(session.helo);"],
  ["envfrom({ own }, sender)", "own.query(sender);"],
  ["async eom({ own })", "await Promise.resolve(own.query(''));"],
  ["unknown({ own }, command)", "own.query(command);"],
  ["close({ own })", "own.query('');"],
  ["abort({ own })", "own.query('');"],
  ["stop(own)", "own.query('');"],
  ["async stop(own)", "await own.close();"],
  ["outcome({ own })", "own.query('');"],
  // Options by their schema.
  ["connect({ options })", "const limit: number = options.limit; void limit;"],
  ["eom({ options })", "const names: readonly string[] = options.names; void names;"],
  ["outcome({ options })", "options.limit.toFixed();"],
  // State of the session and of the message.
  ["connect(session)", "session.state.count += 1;"],
  ["close({ state })", "state.count -= 1;"],
  ["unknown({ state })", "state.count = 0;"],
  ["envfrom({ message }, sender)", "message.state.seen.add(sender);"],
  ["envrcpt({ message }, recipient)", "return message.state.seen.has(recipient) ? reject() : undefined;"],
  ["abort({ message })", "message.state.seen.clear();"],
  ["outcome({ message, state })", "state.count += message.state.seen.size;"],
  // The call.
  ["connect({ signal })", "signal.throwIfAborted();"],
  ["async envfrom({ client, signal })", "await fetch(`https://x.test/${client.address}`, { signal });"],
  ["close({ signal })", "const aborted: boolean = signal.aborted; void aborted;"],
  ["outcome({ signal })", "signal.addEventListener('abort', () => {});"],
  ["connect({ isLocal })", "return isLocal ? accept() : undefined;"],
  ["eom({ trial })", "if (!trial) return discard(); return undefined;"],
  // The log.
  ["connect(session)", "session.log('text');"],
  ["helo({ log })", "log('text', { a: 1, b: 'x', c: undefined, d: { e: [1] } });"],
  ["eom({ log })", "log.warn('text', { error: new Error('x') });"],
  ["abort({ log })", "log.error('text');"],
  ["close({ log })", "log.debug('text', {});"],
  ["outcome({ log }, { verdict })", "log(verdict);"],
  // Results.
  ["envfrom({ message })", "message.results.set('spf', 'pass');"],
  ["eoh({ message })", "message.results.set('x', { list: [1, null, true], gone: undefined });"],
  ["eom({ message })", "const value = message.results.get('spf'); if (typeof value === 'string') value.trim();"],
  ["abort({ message })", "message.results.get('x');"],
  ["outcome({ message })", "message.results.get('x');"],
  // The outcome.
  [
    "outcome(_session, { verdict })",
    "const held: boolean = verdict === 'quarantine' || verdict === 'aborted'; void held;",
  ],
  ["outcome(_session, { reply })", "if (reply !== null) reply.lines.join(`${reply.code} ${reply.enhanced}`);"],
  ["outcome(_session, { filter })", "const name: string | null = filter; void name;"],
  [
    "outcome(_session, { recipients })",
    "recipients.filter(({ verdict }) => verdict === 'reject').map(({ address }) => address.trim());",
  ],
  ["outcome(_session, { changes })", "changes.toFixed();"],
  ["outcome({ message })", "message.headers.get('Subject')?.trim();"],
  ["outcome({ message })", "message.sender.mailbox.trim(); message.recipients[0]?.domain.trim();"],
  ["outcome({ phase })", "const name: 'outcome' = phase; void name;"],
  ["outcome({ auth, helo, tls, macros })", "[auth.authen, helo, tls.version, macros.get('i')].join();"],
  ["async outcome()", "await Promise.resolve();"],
  // The body, which may be too large.
  ["eom({ message })", "const body: Uint8Array | null = message.body(); void body;"],
  ["eom({ message })", "message.body()?.byteLength;"],
  ["eom({ message })", "return message.body() === null ? accept() : undefined;"],
  ["eom({ message })", "const mime = message.mime(); mime?.attachments.map((part) => part.names.length);"],
  // Headers and changes.
  [
    "eom({ message })",
    "const first = message.headers.first('Subject'); if (first !== undefined) message.changeHeader(first, `x ${first.text}`);",
  ],
  ["eom({ message })", "for (const header of message.headers) if (header.name === 'X') message.deleteHeader(header);"],
  ["eoh({ message })", "message.insertBefore(message.headers.at(0)!, 'X-A', '1');"],
  [
    "eom({ message })",
    "for (const { name, address, local, domain } of message.headers.addresses('From')) [name, address, local, domain].join();",
  ],
  ["header({ message })", "message.headers.at(-1)?.bytes.length;"],
  ["eom({ message })", "message.rawHeaders({ withReceived: true }).length;"],
  ["envrcpt({ message })", "message.addRecipient('a@b.test'); message.deleteRecipient(message.sender.mailbox);"],
  ["eom({ message })", "message.quarantine('x'); message.replaceBody('y');"],
  ["eom({ message })", "const at: number = message.receivedAt.getTime(); void at;"],
  // Verdicts.
  ["connect()", "return tempfail('421 4.7.0 Later');"],
  ["body(_session, chunk)", "return chunk.length > 0 ? skip() : undefined;"],
  ["async data()", "return discard();"],
  ["envrcpt(_session, recipient, params)", "return recipient === params[0] ? reject() : accept();"],
];

const REFUSED: readonly (readonly [...Line, expected: RegExp])[] = [
  ["connect(session)", "session.own.missing();", /Property 'missing' does not exist on type 'Db'/],
  ["eom({ own })", "const text: string = own.query('x'); void text;", /'number' is not assignable to type 'string'/],
  ["eom({ own })", "own.query(1);", /'number' is not assignable to parameter of type 'string'/],
  ["eom(session)", "session.own = new Db(1);", /read-only property/],
  ["stop(own)", "own.missing();", /'missing' does not exist on type 'Db'/],
  ["outcome({ own })", "own.missing();", /'missing' does not exist on type 'Db'/],
  ["connect({ options })", "options.limt;", /Property 'limt' does not exist/],
  ["connect({ options })", "options.limit.trim();", /'trim' does not exist on type 'number'/],
  ["eom({ options })", "options.limit = 2;", /read-only property/],
  ["outcome({ options })", "options.other;", /'other' does not exist/],
  ["connect(session)", "session.state.cuont += 1;", /'cuont' does not exist/],
  ["connect(session)", "session.state.count = 'x';", /'string' is not assignable to type 'number'/],
  ["close(session)", "session.state.seen;", /'seen' does not exist/],
  ["envfrom({ message })", "message.state.count;", /'count' does not exist/],
  ["envfrom({ message })", "message.state.seen.add(1);", /'number' is not assignable to parameter of type 'string'/],
  ["abort({ message })", "message.state.other;", /'other' does not exist/],
  ["outcome({ message })", "message.state.other;", /'other' does not exist/],
  // What a phase lacks.
  ["connect(session)", "session.message;", /'message' does not exist/],
  ["helo(session)", "session.message;", /'message' does not exist/],
  ["close(session)", "session.message;", /'message' does not exist/],
  ["unknown(session)", "session.message;", /'message' does not exist/],
  ["connect(session)", "session.helo;", /'helo' does not exist/],
  ["connect(session)", "session.tls;", /'tls' does not exist/],
  ["helo(session)", "session.auth;", /'auth' does not exist/],
  ["envfrom({ message })", "message.headers;", /'headers' does not exist/],
  ["data({ message })", "message.headers;", /'headers' does not exist/],
  ["header({ message })", "message.rawHeaders();", /'rawHeaders' does not exist/],
  ["eoh({ message })", "message.body();", /'body' does not exist/],
  ["body({ message })", "message.receivedAt;", /'receivedAt' does not exist/],
  ["envrcpt({ message })", "message.insertBefore('x', 'A', 'b');", /'insertBefore' does not exist/],
  ["abort({ message })", "message.addHeader('A', 'b');", /'addHeader' does not exist/],
  // outcome only reads.
  ["outcome({ message })", "message.addHeader('A', 'b');", /'addHeader' does not exist/],
  ["outcome({ message })", "message.quarantine('x');", /'quarantine' does not exist/],
  ["outcome({ message })", "message.results.set('a', 1);", /'set' does not exist/],
  ["outcome({ message })", "message.body();", /'body' does not exist/],
  ["eoh({ message })", "message.mime();", /'mime' does not exist/],
  ["eom({ message })", "message.mime().text;", /Object is possibly 'null'/],
  ["outcome()", "return reject();", /'Verdict<"reject">' is not assignable/],
  ["async outcome()", "return accept();", /'Promise<Verdict<"accept">>' is not assignable/],
  ["outcome(_session, outcome)", "outcome.verdict = 'accept';", /read-only property/],
  ["outcome(_session, { verdict })", "return verdict === 'accepted' ? undefined : undefined;", /no overlap/],
  ["outcome(_session, { reply })", "reply.code;", /'reply' is possibly 'null'/],
  ["outcome(_session, { filter })", "filter.trim();", /'filter' is possibly 'null'/],
  [
    "outcome(_session, { recipients })",
    "recipients.push({ address: '', verdict: 'accept' });",
    /'push' does not exist/,
  ],
  ["outcome(_session, { recipients })", "recipients[0]?.reply;", /'reply' does not exist/],
  // The body may be null.
  ["eom({ message })", "message.body().length;", /Object is possibly 'null'/],
  ["eom({ message })", "const body: Uint8Array = message.body(); void body;", /is not assignable to type 'Uint8Array/],
  // The call and the log.
  ["connect(session)", "session.signal = new AbortController().signal;", /read-only property/],
  ["connect({ signal })", "signal.abort();", /'abort' does not exist on type 'AbortSignal'/],
  ["connect({ isLocal })", "isLocal();", /not callable/],
  ["eom(session)", "session.trial = true;", /read-only property/],
  ["connect(session)", "session.log(1);", /'number' is not assignable to parameter of type 'string'/],
  ["connect({ log })", "log.info('x');", /'info' does not exist/],
  ["connect({ log })", "log('x', 'y');", /'string' is not assignable/],
  ["connect({ log })", "log();", /Expected 1-2 arguments/],
  // Results are JSON.
  ["eom({ message })", "message.results.set('x', () => 1);", /is not assignable to parameter of type 'JsonValue'/],
  [
    "eom({ message })",
    "message.results.set('x', undefined);",
    /'undefined' is not assignable to parameter of type 'JsonValue'/,
  ],
  ["eom({ message })", "message.results.set('x', 1n);", /is not assignable to parameter of type 'JsonValue'/],
  ["eom({ message })", "message.results.set('x', { at: new Map() });", /Type 'Map<any, any>' is not assignable/],
  ["eom({ message })", "message.results.get('x').trim();", /possibly|does not exist on type/],
  ["eom({ message })", "message.results = message.results;", /read-only property/],
  // Verdicts of another phase.
  ["connect()", "return discard();", /'Verdict<"discard">' is not assignable/],
  ["envfrom()", "return skip();", /'Verdict<"skip">' is not assignable/],
  ["unknown()", "return accept();", /'Verdict<"accept">' is not assignable/],
  ["close()", "return reject();", /'Verdict<"reject">' is not assignable/],
  ["eom()", "return 'reject';", /'"reject"' is not assignable|'string' is not assignable/],
  ["eom({ message })", "message.changeHeader(1, 'x');", /No overload matches|not assignable to parameter/],
  ["eofm()", "return undefined;", /'eofm' does not exist/],
];

const HEAD = `import { accept, defineFilter, discard, reject, skip, tempfail } from "pmilter";
class Db {
  limit: number;
  constructor(limit: number) { this.limit = limit; }
  query(text: string): number { return text.length + this.limit; }
  async close(): Promise<void> {}
}
interface Options { readonly limit: number; readonly names: readonly string[] }
declare const schema: {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    validate(value: unknown): { value: Options } | { issues: readonly { message: string }[] };
    readonly types?: { readonly input: { limit?: string }; readonly output: Options };
  };
};
export const verdicts = [accept, discard, reject, skip, tempfail];
`;

function fileOf(lines: readonly (readonly [string, string, ...unknown[]])[]): string {
  const filters = lines.map(([head, body], index) => {
    const before = `options: schema, collectBody: { max: "10MB", over: "skip" }, state: () => ({ count: 0 }), messageState: () => ({ seen: new Set<string>() }), async start({ limit }) { return new Db(limit); },`;
    // A filter has a handler, whatever the line is.
    return `export const filter${index} = defineFilter({ ${before} ${head} { ${body} } });`;
  });
  return `${HEAD}${filters.join("\n")}\n`;
}

/** The errors of each line, by file. */
const errors = { "allowed.ts": new Map<number, string>(), "refused.ts": new Map<number, string>() };

beforeAll(async () => {
  await using dir = await tempDir("type-lines");
  expect(await runPmilter(["types", dir.path])).toMatchObject({ exitCode: 0, stderr: "" });
  await Bun.write(join(dir.path, "allowed.ts"), fileOf(ALLOWED));
  await Bun.write(join(dir.path, "refused.ts"), fileOf(REFUSED));
  const check = Bun.spawn([process.execPath, "check", "--no-script", "--no-pretty", "--all"], {
    cwd: dir.path,
    stdout: "pipe",
    stderr: "pipe",
  });
  const output = (await check.stdout.text()) + (await check.stderr.text());
  const first = HEAD.split("\n").length;
  let at: { file: keyof typeof errors; index: number } | null = null;
  for (const line of output.split("\n")) {
    const found = /^(allowed|refused)\.ts\((\d+),\d+\): error (TS\d+: .*)$/.exec(line);
    if (found !== null) at = { file: `${found[1]}.ts` as keyof typeof errors, index: Number(found[2]) - first };
    else if (!/^\s+\S/.test(line)) at = null;
    if (at === null) continue;
    const before = errors[at.file].get(at.index) ?? "";
    errors[at.file].set(at.index, `${before}${found?.[3] ?? line}\n`);
  }
  expect(output).toMatch(/Found \d+ errors in \d+ files?, checked/);
});

test("at least sixty lines each", () => {
  expect(ALLOWED.length).toBeGreaterThanOrEqual(60);
  expect(REFUSED.length).toBeGreaterThanOrEqual(60);
});

test.each(ALLOWED.map(([head, body], index) => [`${head} { ${body} }`, index] as const))("compiles: %s", (_, index) => {
  expect(errors["allowed.ts"].get(index)).toBeUndefined();
});

test("nothing else in the file of allowed lines is wrong", () => {
  expect([...errors["allowed.ts"]]).toEqual([]);
});

test.each(REFUSED.map(([head, body, expected], index) => [`${head} { ${body} }`, index, expected] as const))(
  "does not compile: %s",
  (_, index, expected) => {
    expect(errors["refused.ts"].get(index) ?? "it compiles").toMatch(expected);
  },
);
