/** The command line: arguments to a command, or to an error with the expected form. Pure. */
import { domainToASCII } from "node:url";
import { parseArgs, type ParseArgsConfig } from "node:util";

/** Wrong usage: exit code 2. */
export class ArgumentError extends Error {
  override readonly name = "ArgumentError";
  /** The command whose help explains. */
  readonly command: CommandName | null;

  constructor(message: string, command: CommandName | null) {
    super(message);
    this.command = command;
  }
}

export const COMMAND_NAMES = [
  "serve",
  "check",
  "send",
  "try",
  "status",
  "reload",
  "store",
  "dkim",
  "types",
  "convert",
] as const;
export type CommandName = (typeof COMMAND_NAMES)[number];

/** The session and the envelope that messages are sent with. */
export interface MailArguments {
  readonly from: string | undefined;
  readonly to: readonly string[];
  readonly client: string | undefined;
  readonly hostname: string | undefined;
  readonly helo: string | undefined;
  readonly macros: Readonly<Record<string, string>>;
  readonly asSendmail: boolean;
}

export interface SendArguments extends MailArguments {
  /** `-` for standard input. */
  readonly file: string;
  readonly json: boolean;
}

export interface TryArguments extends MailArguments {
  /** Files and folders, `-` for standard input. */
  readonly files: readonly string[];
  readonly json: boolean;
  /** The address of server.listen that sessions come in by; undefined for the first. */
  readonly listener: string | undefined;
  /** A line for each message. */
  readonly brief: boolean;
  /** A failure or a warning gives exit code 1. */
  readonly strict: boolean;
}

export interface ConvertArguments {
  readonly file: string;
  /** The phase of the script; undefined to take it from its name. */
  readonly phase: string | undefined;
}

export interface StoreArguments {
  readonly action: "get" | "set" | "delete" | "list";
  /** The name of the filter. */
  readonly filter: string;
  /** For `list` the beginning of keys. */
  readonly key: string;
  /** JSON, for `set`. */
  readonly value: string;
  readonly ttl: string | undefined;
}

export interface DkimArguments {
  readonly action: "new" | "check";
  /** In lower case and A-labels. */
  readonly domain: string;
  /** In lower case; null for one that `new` chooses, and for all that `check` finds. */
  readonly selector: string | null;
  /** For `new`: the key is Ed25519, else RSA. */
  readonly isEd25519: boolean;
}

export type CommandLine =
  | { readonly name: "help"; readonly of: CommandName | null }
  | { readonly name: "version" }
  | { readonly name: "serve"; readonly config: string }
  | { readonly name: "check"; readonly config: string; readonly starts: boolean; readonly types: boolean }
  | { readonly name: "status"; readonly config: string; readonly json: boolean; readonly health: boolean }
  | { readonly name: "reload"; readonly config: string; readonly json: boolean }
  | { readonly name: "store"; readonly config: string; readonly store: StoreArguments }
  | { readonly name: "dkim"; readonly config: string; readonly dkim: DkimArguments }
  | { readonly name: "types"; readonly folder: string }
  | { readonly name: "convert"; readonly script: ConvertArguments }
  | { readonly name: "send"; readonly config: string; readonly mail: SendArguments }
  | { readonly name: "try"; readonly config: string; readonly mail: TryArguments };

/** The configuration that is used without `-c`. */
export const DEFAULT_CONFIG = "pmilter.toml";

const COMMON = {
  config: { type: "string", short: "c" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "V" },
} as const satisfies ParseArgsConfig["options"];

const CHECK = {
  ...COMMON,
  "no-start": { type: "boolean" },
  "no-types": { type: "boolean" },
} as const satisfies ParseArgsConfig["options"];

const RELOAD = { ...COMMON, json: { type: "boolean" } } as const satisfies ParseArgsConfig["options"];
const STATUS = { ...RELOAD, health: { type: "boolean" } } as const satisfies ParseArgsConfig["options"];

const TYPES = {
  help: COMMON.help,
  version: COMMON.version,
} as const satisfies ParseArgsConfig["options"];

const STORE = { ...COMMON, ttl: { type: "string" } } as const satisfies ParseArgsConfig["options"];

const DKIM = { ...COMMON, ed25519: { type: "boolean" } } as const satisfies ParseArgsConfig["options"];

const CONVERT = { ...TYPES, phase: { type: "string" } } as const satisfies ParseArgsConfig["options"];

const MAIL = {
  ...COMMON,
  from: { type: "string" },
  to: { type: "string", multiple: true },
  client: { type: "string" },
  hostname: { type: "string" },
  helo: { type: "string" },
  macro: { type: "string", multiple: true },
  as: { type: "string" },
  json: { type: "boolean" },
} as const satisfies ParseArgsConfig["options"];

const TRY = {
  ...MAIL,
  listener: { type: "string" },
  brief: { type: "boolean" },
  strict: { type: "boolean" },
} as const satisfies ParseArgsConfig["options"];

/**
 * @param args without the interpreter and the script
 * @throws ArgumentError
 */
export function parseArguments(args: readonly string[]): CommandLine {
  const [first] = args;
  if (first === "help") {
    const [, of] = args;
    if (of !== undefined && !isCommand(of)) throw unknownCommand(of);
    return { name: "help", of: of ?? null };
  }
  if (first !== undefined && !first.startsWith("-") && !isCommand(first)) throw unknownCommand(first);
  const name: CommandName = first !== undefined && isCommand(first) ? first : "serve";
  const rest = first === name ? args.slice(1) : [...args];
  if (name === "send") return parseSend(rest);
  if (name === "try") return parseTry(rest);
  if (name === "types") return parseTypes(rest);
  if (name === "check") return parseCheck(rest);
  if (name === "convert") return parseConvert(rest);
  if (name === "store") return parseStore(rest);
  if (name === "dkim") return parseDkim(rest);
  const options = name === "status" ? STATUS : name === "reload" ? RELOAD : COMMON;
  const { values, positionals } = parse(name, rest, options);
  if (values.help === true) return { name: "help", of: first === name ? name : null };
  if (values.version === true) return { name: "version" };
  if (positionals.length > 0) throw new ArgumentError(`${name} takes no argument "${positionals[0]}"`, name);
  const config = values.config ?? DEFAULT_CONFIG;
  if (name !== "status" && name !== "reload") return { name, config };
  const { health, json } = values as { readonly health?: boolean; readonly json?: boolean };
  return name === "reload"
    ? { name, config, json: json === true }
    : { name, config, json: json === true, health: health === true };
}

function parseCheck(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("check", args, CHECK);
  if (values.help === true) return { name: "help", of: "check" };
  if (values.version === true) return { name: "version" };
  if (positionals.length > 0) throw new ArgumentError(`check takes no argument "${positionals[0]}"`, "check");
  return {
    name: "check",
    config: values.config ?? DEFAULT_CONFIG,
    starts: values["no-start"] !== true,
    types: values["no-types"] !== true,
  };
}

function parseSend(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("send", args, MAIL);
  if (values.help === true) return { name: "help", of: "send" };
  if (values.version === true) return { name: "version" };
  const [file, ...more] = positionals;
  if (file === undefined)
    throw new ArgumentError("send needs the message: a file in mail format (.eml), or - for standard input", "send");
  if (more.length > 0) throw new ArgumentError(`send takes one message, got also "${more[0]}"`, "send");
  return {
    name: "send",
    config: values.config ?? DEFAULT_CONFIG,
    mail: { ...mailOf("send", values), file, json: values.json === true },
  };
}

function parseTry(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("try", args, TRY);
  if (values.help === true) return { name: "help", of: "try" };
  if (values.version === true) return { name: "version" };
  if (positionals.length === 0) {
    const expected = "files in mail format (.eml), folders with such files, or - for standard input";
    throw new ArgumentError(`try needs messages: ${expected}`, "try");
  }
  const isTwice = positionals.filter((file) => file === "-").length > 1;
  if (isTwice) throw new ArgumentError("try reads standard input once, got - twice", "try");
  const [json, brief] = [values.json === true, values.brief === true];
  if (json && brief) throw new ArgumentError("--json and --brief are two forms of output: take one", "try");
  return {
    name: "try",
    config: values.config ?? DEFAULT_CONFIG,
    mail: {
      ...mailOf("try", values),
      files: positionals,
      listener: values.listener,
      json,
      brief,
      strict: values.strict === true,
    },
  };
}

/** The options that `send` and `try` share. */
function mailOf(
  command: "send" | "try",
  values: {
    readonly [name in "from" | "client" | "hostname" | "helo" | "as"]?: string;
  } & { readonly to?: readonly string[]; readonly macro?: readonly string[] },
): MailArguments {
  const { as, client, from, helo, hostname, macro = [], to = [] } = values;
  if (as !== undefined && as !== "postfix" && as !== "sendmail") {
    throw new ArgumentError(`--as takes postfix or sendmail, got "${as}"`, command);
  }
  const macros = Object.fromEntries(macro.map((text) => parseMacro(text, command)));
  return { from, to, client, hostname, helo, macros, asSendmail: as === "sendmail" };
}

function parseTypes(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("types", args, TYPES);
  if (values.help === true) return { name: "help", of: "types" };
  if (values.version === true) return { name: "version" };
  const [folder, ...more] = positionals;
  if (folder === undefined || folder === "") {
    throw new ArgumentError("types needs the folder of the handlers, to write the declarations there", "types");
  }
  if (more.length > 0) throw new ArgumentError(`types takes one folder, got also "${more[0]}"`, "types");
  return { name: "types", folder };
}

function parseConvert(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("convert", args, CONVERT);
  if (values.help === true) return { name: "help", of: "convert" };
  if (values.version === true) return { name: "version" };
  const [file, ...more] = positionals;
  if (file === undefined || file === "")
    throw new ArgumentError("convert needs the Ruby handler: a .rb file", "convert");
  if (more.length > 0) throw new ArgumentError(`convert takes one file, got also "${more[0]}"`, "convert");
  if (!/\.rb$/i.test(file)) throw new ArgumentError(`convert takes a .rb file, got "${file}"`, "convert");
  return { name: "convert", script: { file, phase: values.phase } };
}

/** What each action of `store` takes; the last of `list` may be left out. */
const STORE_ACTIONS = {
  get: ["FILTER", "KEY"],
  set: ["FILTER", "KEY", "VALUE"],
  delete: ["FILTER", "KEY"],
  list: ["FILTER", "PREFIX"],
} as const;

function parseStore(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("store", args, STORE);
  if (values.help === true) return { name: "help", of: "store" };
  if (values.version === true) return { name: "version" };
  const [action, ...rest] = positionals;
  if (action !== "get" && action !== "set" && action !== "delete" && action !== "list") {
    const got = action === undefined ? "nothing" : `"${action}"`;
    throw new ArgumentError(`store takes get, set, delete or list, got ${got}`, "store");
  }
  const takes = STORE_ACTIONS[action];
  const least = action === "list" ? 1 : takes.length;
  if (rest.length < least || rest.length > takes.length) {
    throw new ArgumentError(`store ${action} takes ${takes.join(" ")}, got ${rest.length} of them`, "store");
  }
  if (values.ttl !== undefined && action !== "set") throw new ArgumentError("--ttl is for store set", "store");
  const [filter = "", key = "", value = ""] = rest;
  return {
    name: "store",
    config: values.config ?? DEFAULT_CONFIG,
    store: { action, filter, key, value, ttl: values.ttl },
  };
}

function parseDkim(args: readonly string[]): CommandLine {
  const { values, positionals } = parse("dkim", args, DKIM);
  if (values.help === true) return { name: "help", of: "dkim" };
  if (values.version === true) return { name: "version" };
  const [action, domainText, selectorText, ...more] = positionals;
  if (action !== "new" && action !== "check") {
    const got = action === undefined ? "nothing" : `"${action}"`;
    throw new ArgumentError(`dkim takes new or check, got ${got}`, "dkim");
  }
  if (domainText === undefined || more.length > 0) {
    throw new ArgumentError(`dkim ${action} takes DOMAIN and SELECTOR, got ${positionals.length - 1} of them`, "dkim");
  }
  if (values.ed25519 === true && action !== "new") throw new ArgumentError("--ed25519 is for dkim new", "dkim");
  const domain = domainToASCII(domainText);
  if (!DNS_NAME.test(domain) || !domain.includes(".")) {
    throw new ArgumentError(`dkim ${action} takes a domain such as example.org, got "${domainText}"`, "dkim");
  }
  const selector = selectorText?.toLowerCase() ?? null;
  if (selector !== null && !DNS_NAME.test(selector)) {
    throw new ArgumentError(`a selector has letters, digits, - and ., got "${selectorText}"`, "dkim");
  }
  return {
    name: "dkim",
    config: values.config ?? DEFAULT_CONFIG,
    dkim: { action, domain, selector, isEd25519: values.ed25519 === true },
  };
}

/** Also a part of a file's name. */
const DNS_NAME = /^(?=.{1,180}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?)*$/;

/** `i=4ZB1`, `{auth_type}=plain`; braces may be left out, as a shell would want. */
function parseMacro(text: string, command: CommandName): [string, string] {
  const match = /^(\w|\{\w+\}|\w{2,})=(.*)$/s.exec(text);
  if (match === null)
    throw new ArgumentError(`--macro takes NAME=VALUE, such as i=4ZB1 or auth_type=plain, got "${text}"`, command);
  const name = match[1]!;
  return [name.length > 1 && !name.startsWith("{") ? `{${name}}` : name, match[2]!];
}

function parse<T extends NonNullable<ParseArgsConfig["options"]>>(
  name: CommandName,
  args: readonly string[],
  options: T,
) {
  try {
    return parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    const message = error instanceof Error ? error.message.split(". ")[0]! : String(error);
    throw new ArgumentError(message, name);
  }
}

function isCommand(text: string): text is CommandName {
  return (COMMAND_NAMES as readonly string[]).includes(text);
}

function unknownCommand(text: string): ArgumentError {
  return new ArgumentError(`there is no command "${text}"; there are ${COMMAND_NAMES.join(", ")}`, null);
}
