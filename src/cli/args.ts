/** The command line: arguments to a command, or to an error with the expected form. Pure. */
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

export const COMMAND_NAMES = ["serve", "check", "send", "status", "reload", "types", "convert"] as const;
export type CommandName = (typeof COMMAND_NAMES)[number];

export interface SendArguments {
  readonly file: string;
  readonly from: string | undefined;
  readonly to: readonly string[];
  readonly client: string | undefined;
  readonly hostname: string | undefined;
  readonly helo: string | undefined;
  readonly macros: Readonly<Record<string, string>>;
  readonly asSendmail: boolean;
  readonly json: boolean;
}

export interface ConvertArguments {
  readonly file: string;
  /** The phase of the script; undefined to take it from its name. */
  readonly phase: string | undefined;
}

export type CommandLine =
  | { readonly name: "help"; readonly of: CommandName | null }
  | { readonly name: "version" }
  | { readonly name: "serve"; readonly config: string }
  | { readonly name: "check"; readonly config: string; readonly starts: boolean; readonly types: boolean }
  | { readonly name: "status"; readonly config: string; readonly json: boolean; readonly health: boolean }
  | { readonly name: "reload"; readonly config: string; readonly json: boolean }
  | { readonly name: "types"; readonly folder: string }
  | { readonly name: "convert"; readonly script: ConvertArguments }
  | { readonly name: "send"; readonly config: string; readonly mail: SendArguments };

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

const CONVERT = { ...TYPES, phase: { type: "string" } } as const satisfies ParseArgsConfig["options"];

const SEND = {
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
  if (name === "types") return parseTypes(rest);
  if (name === "check") return parseCheck(rest);
  if (name === "convert") return parseConvert(rest);
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
  const { values, positionals } = parse("send", args, SEND);
  if (values.help === true) return { name: "help", of: "send" };
  if (values.version === true) return { name: "version" };
  const [file, ...more] = positionals;
  if (file === undefined)
    throw new ArgumentError("send needs the message: a file in mail format (.eml), or - for standard input", "send");
  if (more.length > 0) throw new ArgumentError(`send takes one message, got also "${more[0]}"`, "send");
  if (values.as !== undefined && values.as !== "postfix" && values.as !== "sendmail") {
    throw new ArgumentError(`--as takes postfix or sendmail, got "${values.as}"`, "send");
  }
  return {
    name: "send",
    config: values.config ?? DEFAULT_CONFIG,
    mail: {
      file,
      from: values.from,
      to: values.to ?? [],
      client: values.client,
      hostname: values.hostname,
      helo: values.helo,
      macros: Object.fromEntries((values.macro ?? []).map(parseMacro)),
      asSendmail: values.as === "sendmail",
      json: values.json === true,
    },
  };
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

/** `i=4ZB1`, `{auth_type}=plain`; braces may be left out, as a shell would want. */
function parseMacro(text: string): [string, string] {
  const match = /^(\w|\{\w+\}|\w{2,})=(.*)$/s.exec(text);
  if (match === null)
    throw new ArgumentError(`--macro takes NAME=VALUE, such as i=4ZB1 or auth_type=plain, got "${text}"`, "send");
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
