/** Typical mistakes of a filter's author, each with the place and the words that it is told in. */
import type { Phase } from "../../src/protocol/phases.ts";

export interface Mistake {
  readonly name: string;
  /** The handler's text. The line that is wrong has the comment `// here`. */
  readonly code: string;
  /** Default: a filter, `[[filter]]`. */
  readonly phase?: Phase;
  /** Lines of `[filter.options]`. One that is wrong ends in `# here`. */
  readonly options?: string;
  /** Further files, by name. */
  readonly files?: Readonly<Record<string, string>>;
  readonly says: RegExp;
  /** Only running it shows it. */
  readonly atRun?: true;
}

const filter = (imports: string, body: string): string =>
  `import { defineFilter${imports === "" ? "" : `, ${imports}`} } from "pmilter";\n\nexport default defineFilter({\n${body}\n});\n`;

/** A filter with a schema of `pmilter/options`. */
const withOptions = (entries: string, handler: string): string =>
  `import { defineFilter } from "pmilter";\nimport { array, duration, number, optional, string, table } from "pmilter/options";\nvoid [array, duration, number, optional, string];\nexport default defineFilter({\n  options: table(${entries}),\n  ${handler},\n});\n`;

export const MISTAKES: readonly Mistake[] = [
  // The order of a filter's members.
  {
    name: "start() behind a handler that uses its result",
    code: filter(
      "",
      "  eom(session) {\n    session.own.count += 1; // here\n  },\n  start(_options) {\n    return { count: 0 };\n  },",
    ),
    says: /session\.own has no type here: write start\(\) before the handlers that use it/,
  },
  // Verdicts.
  {
    name: "a verdict that the phase lacks",
    code: filter("skip", "  envfrom() { // here\n    return skip();\n  },"),
    says: /skip\(\) is no verdict of phase envfrom; it has /,
  },
  {
    name: "a verdict that the phase lacks, in a phase file",
    phase: "connect",
    code: 'import { discard } from "pmilter";\n\nexport default () => discard(); // here\n',
    says: /discard\(\) is no verdict of phase connect; it has /,
  },
  {
    name: "a verdict from a phase that only observes",
    code: filter("reject", "  abort() {\n    return reject();\n  },\n"),
    says: /reject\(\) is no verdict of phase abort; it has none/,
  },
  {
    name: "a forgotten return",
    code: filter(
      "reject",
      '  envfrom(_session, sender) {\n    if (sender === "<spam@example.com>") reject("550 5.7.1 No"); // here\n  },',
    ),
    says: /the verdict of reject\(\) is not returned/,
  },
  {
    name: "a forgotten return, of a verdict by another name",
    code: 'import { defineFilter, reject as refuse, type Session, tempfail as later } from "pmilter";\nexport default defineFilter({\n  envfrom(session: Session<"envfrom">) {\n    if (session.helo === "") later();\n    else if (session.helo === "x") {\n      refuse(); // here\n    }\n  },\n});\n',
    says: /the verdict of refuse\(\) is not returned: expected "return refuse\(…\)"\n/,
  },
  {
    name: "a forgotten return in an inner function",
    code: filter(
      "reject",
      '  envrcpt({ message }) {\n    message.recipients.forEach(({ address }) => {\n      if (address === "a@b") reject("550 5.1.1 No"); // here\n    });\n  },',
    ),
    says: /the verdict of reject\(\) is not returned/,
  },
  {
    name: "text for a verdict",
    code: filter("", '  envfrom() {\n    return "reject";\n  },'),
    says: /Type 'string' is not assignable/,
  },
  {
    name: "a verdict's function for a verdict",
    code: filter("reject", "  envfrom() {\n    return reject;\n  },"),
    says: /Type '.*=> Verdict/,
  },
  {
    name: "a verdict made by hand",
    code: filter("", '  envfrom() {\n    return { kind: "reject" };\n  },'),
    says: /kind/,
  },
  // Reply texts.
  {
    name: "a reply text without a code",
    code: filter("reject", '  envfrom() {\n    return reject("Go away"); // here\n  },'),
    says: /must start with a three-digit code/,
  },
  {
    name: "a reply code of the other class",
    code: filter("tempfail", '  envfrom() {\n    return tempfail("550 5.7.1 Later"); // here\n  },'),
    says: /tempfail takes a code that starts with 4/,
  },
  {
    name: "a number for a reply text",
    code: filter("reject", "  envfrom() {\n    return reject(550); // here\n  },"),
    says: /Argument of type 'number'/,
  },
  // await.
  {
    name: "a forgotten await before a condition",
    code: filter(
      "reject",
      '  async envfrom(session) {\n    if (isListed(session.client.address)) return reject("550 5.7.1 Listed"); // here\n  },',
    ).replace(
      "\n\nexport",
      "\nasync function isListed(address: string) {\n  return address === '192.0.2.1';\n}\nexport",
    ),
    says: /This condition will always return true since this 'Promise<boolean>'/,
  },
  {
    name: "a forgotten await before a member",
    code: filter(
      "",
      '  async eom({ message }) {\n    const answer = fetch("http://127.0.0.1:9/");\n    if (answer.ok) message.addHeader("X-Ok", "yes"); // here\n  },',
    ),
    says: /Property 'ok' does not exist on type 'Promise<Response>'/,
  },
  // The session.
  {
    name: "a member that the session does not have",
    code: filter("", "  envfrom(session) {\n    console.log(session.ip); // here\n  },"),
    says: /Property 'ip' does not exist/,
  },
  {
    name: "the message, before there is one",
    code: filter("", '  connect(session) {\n    session.message.addHeader("X-A", "1"); // here\n  },'),
    says: /Property 'message' does not exist.*'; session\.message is there from envfrom on\n/,
  },
  {
    name: "headers, before there are any",
    code: filter("", '  envfrom({ message }) {\n    console.log(message.headers.get("Subject")); // here\n  },'),
    says: /Property 'headers' does not exist.*'; message\.headers is there from header on\n/,
  },
  {
    name: "the whole message, before its end",
    code: filter(
      "",
      "  collectBody: true,\n  eoh({ message }) {\n    console.log(message.raw().length); // here\n  },",
    ),
    says: /Property 'raw' does not exist.*'; message\.raw is there from eom on\n/,
  },
  {
    name: "the sender, an object, compared with text",
    code: filter(
      "reject",
      '  eom({ message }) {\n    if (message.sender === "spam@example.com") return reject("550 5.7.1 No"); // here\n  },',
    ),
    says: /no overlap/,
  },
  {
    name: "a header that may be missing",
    code: filter(
      "",
      '  eom({ message }) {\n    if (message.headers.get("Subject").includes("x")) console.log("x"); // here\n  },',
    ),
    says: /possibly 'undefined'/,
  },
  {
    name: "headers taken for an object",
    code: filter(
      "",
      '  eom({ message }) {\n    if (message.headers["Subject"] === "x") console.log("x"); // here\n  },',
    ),
    says: /Did you mean to call '.*get'/,
  },
  {
    name: "a verdict that is thrown",
    code: filter("reject", '  envfrom() {\n    throw reject("550 5.7.1 No"); // here\n  },'),
    says: /a verdict is returned, not thrown/,
  },
  {
    name: "the message in place of the session",
    code: filter("", '  eom(message) {\n    message.addHeader("X-A", "1"); // here\n  },'),
    says: /Property 'addHeader' does not exist/,
  },
  {
    name: "the sender in place of the session",
    code: filter("reject", '  envfrom(sender) {\n    if (sender === "<a@b>") return reject(); // here\n  },'),
    says: /no overlap/,
  },
  {
    name: "a verdict in place of a handler",
    code: filter("reject", "  envfrom: reject(), // here"),
    says: /envfrom/,
  },
  {
    name: "a name that pmilter does not export",
    code: 'import { defineFilter, rejct } from "pmilter"; // here\nexport default defineFilter({ eom() { return rejct(); } });\n',
    says: /rejct/,
  },
  {
    name: "pmilter misspelt",
    code: 'import { defineFilter } from "pmiltr"; // here\nexport default defineFilter({ eom() {} });\n',
    says: /pmiltr/,
  },
  {
    name: "body() without collectBody",
    code: filter("", "  eom({ message }) {\n    console.log(message.body().length); // here\n  },"),
    says: /needs collectBody: true/,
  },
  {
    name: "raw() without collectBody",
    code: filter("", "  eom({ message }) {\n    console.log(message.raw().length); // here\n  },"),
    says: /message\.raw\(\) needs collectBody: true/,
  },
  {
    name: "a chunk of the body taken for text",
    code: filter(
      "reject",
      '  body(_session, chunk) {\n    if (chunk.includes("viagra")) return reject("550 5.7.1 No"); // here\n  },',
    ),
    says: /Argument of type 'string' is not assignable to parameter of type 'number'/,
  },
  // Changes.
  {
    name: "a line break in a header's value",
    code: filter("", '  eom({ message }) {\n    message.addHeader("X-A", "one\\ntwo"); // here\n  },'),
    says: /line break in a header value/,
  },
  {
    name: "a header's name with its colon",
    code: filter("", '  eom(session) {\n    session.message.addHeader("X-A:", "1"); // here\n  },'),
    says: /header name/,
  },
  {
    name: "a change that nobody has",
    code: filter("", '  eom({ message }) {\n    message.setHeader("X-A", "1"); // here\n  },'),
    says: /Property 'setHeader' does not exist/,
  },
  {
    name: "a list of recipients in one text",
    code: filter("", '  eom({ message }) {\n    message.addRecipient("a@example.com, b@example.com"); // here\n  },'),
    says: /one address/,
  },
  {
    name: "the arguments of insertHeader in the order of addHeader",
    code: filter("", '  eom({ message }) {\n    message.insertHeader("X-A", "1", 0); // here\n  },'),
    says: /Argument of type 'string' is not assignable to parameter of type 'number'/,
  },
  {
    name: "a header to insert beside, by its name",
    code: filter("", '  eom({ message }) {\n    message.insertBefore("Subject", "X-A", "1"); // here\n  },'),
    says: /Argument of type 'string' is not assignable to parameter of type 'Header'/,
  },
  {
    name: "a header that may not be there",
    code: filter("", '  eom({ message }) {\n    message.deleteHeader(message.headers.first("X-A")); // here\n  },'),
    says: /undefined/,
  },
  {
    name: "the raw headers before they are whole",
    code: filter("", "  header({ message }) {\n    message.rawHeaders(); // here\n  },"),
    says: /Property 'rawHeaders' does not exist/,
  },
  // The filter.
  {
    name: "a phase's name misspelt",
    code: filter("", "  envForm() {}, // here\n  eom() {},"),
    says: /envForm/,
  },
  {
    name: "an option of a filter misspelt",
    code: filter("", "  collectbody: true, // here\n  eom() {},"),
    says: /collectbody/,
  },
  {
    name: "no default export",
    code: 'import { defineFilter } from "pmilter"; // here\n\nexport const filter = defineFilter({ eom() {} });\n',
    says: /no default export/,
  },
  {
    name: "defineFilter, not called",
    code: 'import { defineFilter } from "pmilter";\n\nexport default defineFilter; // here\n',
    says: /the default export is a function/,
  },
  {
    name: "a filter's handler in place of a filter",
    code: "export default function eom() {} // here\n",
    says: /the default export is a function/,
  },
  {
    name: "a filter in place of a phase file",
    phase: "eom",
    code: 'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom() {} }); // here\n',
    says: /expected a function as the default export/,
  },
  {
    name: "two default exports",
    code: 'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom() {} });\nexport default 1; // here\n',
    says: /default/,
  },
  {
    name: "a name that is not imported",
    code: 'import { defineFilter } from "pmilter";\nexport default defineFilter({\n  envfrom() {\n    return reject(); // here\n  },\n});\n',
    says: /Cannot find name 'reject'/,
  },
  {
    name: "an import of what is not there",
    code: 'import { defineFilter } from "pmilter";\nimport { list } from "./list.ts"; // here\nexport default defineFilter({ eom() { console.log(list); } });\n',
    says: /Cannot find module/,
  },
  {
    name: "an import of a name that a file does not export",
    code: 'import { defineFilter } from "pmilter";\nimport { lst } from "./list.ts"; // here\nexport default defineFilter({ eom() { console.log(lst); } });\n',
    files: { "list.ts": "export const list = [1];\n" },
    says: /lst/,
  },
  {
    name: "a syntax error",
    code: filter("reject", "  eom() {\n    return reject(; // here\n  },"),
    says: /[Uu]nexpected/,
  },
  {
    name: "a module that throws",
    code: 'import { defineFilter } from "pmilter";\nimport { readFileSync } from "node:fs";\nconst list = readFileSync("/nonexistent/list", "utf8"); // here\nexport default defineFilter({ eom() { console.log(list); } });\n',
    says: /ENOENT/,
  },
  // Its start and its options.
  {
    name: "an import that never ends",
    code: 'import { defineFilter } from "pmilter";\nawait new Promise(() => {});\nexport default defineFilter({ eom() {} });\n',
    says: /timed out after 10 s/,
  },
  {
    name: "a start() that fails",
    code: filter("", '  async start() {\n    throw new Error("no database"); // here\n  },\n  eom() {},'),
    says: /start\(\) of filter handler failed: no database/,
  },
  {
    name: "a start() that never ends",
    code: filter("", "  start() { // here\n    return new Promise<void>(() => {});\n  },\n  eom() {},"),
    says: /start\(\) of filter handler failed: timed out after 10 s/,
  },
  {
    name: "a start() that blocks",
    code: filter("", "  start() { // here\n    for (;;) {}\n  },\n  eom() {},"),
    says: /start\(\) of filter handler failed: timed out after 10 s/,
  },
  {
    name: "an option that its schema refuses",
    options: 'tag = "x"\nwait = "5 sec" # here',
    code: withOptions(
      '{ tag: string(), wait: optional(duration(), "3s") }',
      "connect({ options }) { console.log(options.wait * 2); }",
    ),
    says: /filter 1: options\.wait: expected a duration .*, got "5 sec"; write "5s"\n/,
  },
  {
    name: "an option that its schema does not know",
    options: 'tag = "x"\nwiat = 5 # here',
    code: withOptions('{ tag: string(), wait: optional(duration(), "3s") }', "connect() {}"),
    says: /filter 1: options\.wiat: unknown option; did you mean "wait"\?\n/,
  },
  {
    name: "an option in a list of tables that its schema refuses",
    options: '[[filter.options.rules]]\nlimit = 1\n[[filter.options.rules]]\nlimit = "2" # here',
    code: withOptions("{ rules: array(table({ limit: number() })) }", "connect() {}"),
    says: /filter 1: options\.rules: entry 2: limit: expected a number, got "2"\n/,
  },
  {
    name: "an option that the schema of a filter does not give",
    code: withOptions(
      '{ tag: optional(string(), "x") }',
      "connect({ options }) {\n    console.log(options.tog); // here\n  }",
    ),
    says: /Property 'tog' does not exist/,
  },
  {
    name: "options that are no schema",
    code: filter("", "  options: { tag: 5 }, // here\n  eom() {},"),
    says: /"options" of the filter must be a schema, such as table\(\{ … \}\) of pmilter\/options/,
  },
  {
    name: "a schema that throws",
    code: filter(
      "",
      `  options: { "~standard": { version: 1, vendor: "x", validate(value: any) {\n    return { value: value.list.length }; // here\n  } } },\n  eom() {},`,
    ),
    says: /the schema of the options of filter handler failed: /,
  },
  {
    name: "a schema that never ends",
    options: "a = 1",
    code: filter(
      "",
      '  options: { "~standard": { version: 1, vendor: "x", validate: () => new Promise<never>(() => {}) } },\n  eom() {},',
    ),
    says: /the schema of the options of filter handler failed: timed out after 10 s/,
  },
  {
    name: "a schema that blocks",
    options: "a = 1",
    code: filter(
      "",
      '  options: { "~standard": { version: 1, vendor: "x", validate() { for (;;) {} } } },\n  eom() {},',
    ),
    says: /the schema of the options of filter handler failed: timed out after 10 s/,
  },
  {
    name: "an option of another type",
    options: 'networks = "192.0.2.0/24" # here',
    code: 'import { defineFilter } from "pmilter";\ninterface Options {\n  networks: string[];\n}\nexport default defineFilter<object, Options>({\n  connect({ options }) {\n    console.log(options.networks.length);\n  },\n});\n',
    says: /filter 1: options\.networks: .*Type 'string' is not assignable to type 'string\[\]'/,
  },
  {
    name: "an option misspelt",
    options: 'tga = "x" # here',
    code: 'import { defineFilter } from "pmilter";\nexport default defineFilter<object, { tag: string }>({\n  connect({ options }) {\n    console.log(options.tag);\n  },\n});\n',
    says: /filter 1: options\.tga: /,
  },
  {
    name: "an option that the filter takes and does not have",
    code: 'import { defineFilter } from "pmilter";\nexport default defineFilter<object, { tag: string }>({\n  connect({ options }) {\n    console.log(options.tog); // here\n  },\n});\n',
    says: /Property 'tog' does not exist/,
  },
  // What only running it shows.
  {
    name: "an option that is missing",
    code: 'import { defineFilter } from "pmilter";\nexport default defineFilter<object, { networks: string[] }>({\n  connect({ options }) {\n    console.log(options.networks.length); // here\n  },\n});\n',
    says: /undefined/,
    atRun: true,
  },
  {
    name: "a reply text made at run time, without a code",
    code: filter(
      "reject",
      "  connect({ client }) {\n    return reject(`${client.address} is not welcome`); // here\n  },",
    ),
    says: /must start with a three-digit code/,
    atRun: true,
  },
  {
    name: "a value of nobody's type",
    code: filter(
      "",
      '  connect() {\n    const list = JSON.parse("{}");\n    console.log(list.entries.length); // here\n  },',
    ),
    says: /undefined/,
    atRun: true,
  },
];
