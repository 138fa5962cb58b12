/** The command line, as pure text: what each form means, and what is said of a wrong one. */
import { describe, expect, test } from "bun:test";
import {
  ArgumentError,
  COMMAND_NAMES,
  type CommandName,
  parseArguments,
  type SendArguments,
} from "../../src/cli/args.ts";

const PLAIN: SendArguments = {
  file: "m.eml",
  from: undefined,
  to: [],
  client: undefined,
  hostname: undefined,
  helo: undefined,
  macros: {},
  asSendmail: false,
  json: false,
};

function wrong(args: readonly string[]): ArgumentError {
  try {
    parseArguments(args);
  } catch (error) {
    expect(error).toBeInstanceOf(ArgumentError);
    return error as ArgumentError;
  }
  throw new Error(`accepted: ${args.join(" ")}`);
}

describe("parseArguments: serve and check", () => {
  test.each([
    [[], "pmilter.toml"],
    [["-c", "x.toml"], "x.toml"],
    [["-cx.toml"], "x.toml"],
    [["--config", "x.toml"], "x.toml"],
    [["--config=x.toml"], "x.toml"],
    [["serve"], "pmilter.toml"],
    [["serve", "-c", "x.toml"], "x.toml"],
    [["-c", "serve"], "serve"],
  ])("%j serves", (args, config) => expect(parseArguments(args)).toEqual({ name: "serve", config }));

  test("check takes a configuration", () => {
    expect(parseArguments(["check", "-c", "x.toml"])).toEqual({
      name: "check",
      config: "x.toml",
      starts: true,
      types: true,
    });
    expect(parseArguments(["check"])).toEqual({ name: "check", config: "pmilter.toml", starts: true, types: true });
    expect(parseArguments(["check", "--no-start"])).toMatchObject({ starts: false, types: true });
    expect(parseArguments(["check", "--no-types"])).toMatchObject({ starts: true, types: false });
  });
});

test("parseArguments: status and reload take a configuration and --json, status --health", () => {
  const config = "pmilter.toml";
  expect(parseArguments(["status"])).toEqual({ name: "status", config, json: false, health: false });
  expect(parseArguments(["status", "--health", "--json", "-c", "x.toml"])).toEqual({
    name: "status",
    config: "x.toml",
    json: true,
    health: true,
  });
  expect(parseArguments(["reload", "--json"])).toEqual({ name: "reload", config, json: true });
  expect(wrong(["reload", "--health"]).command).toBe("reload");
});

describe("parseArguments: help and version", () => {
  test.each<[string[], CommandName | null]>([
    [["-h"], null],
    [["--help"], null],
    [["help"], null],
    [["-c", "x.toml", "--help"], null],
    ...COMMAND_NAMES.flatMap((name): [string[], CommandName][] => [
      [["help", name], name],
      [[name, "-h"], name],
      [[name, "--help"], name],
    ]),
  ])("%j is help", (args, of) => expect(parseArguments(args)).toEqual({ name: "help", of }));

  test.each([[["--version"]], [["-V"]], [["check", "-V"]], [["send", "--version"]]])("%j is the version", (args) => {
    expect(parseArguments(args)).toEqual({ name: "version" });
  });

  test("send's help needs no message", () =>
    expect(parseArguments(["send", "--help"])).toEqual({ name: "help", of: "send" }));
});

describe("parseArguments: send", () => {
  test("a message alone", () => {
    expect(parseArguments(["send", "m.eml"])).toEqual({ name: "send", config: "pmilter.toml", mail: PLAIN });
  });

  test("every option, before and after the message", () => {
    const args =
      "--from a@b send_is_no_option -c x.toml --to c@d --to=e@f --client 192.0.2.7 --hostname h --helo n --as sendmail --json";
    const macros = [
      "--macro",
      "i=4ZB1",
      "--macro",
      "auth_type=plain",
      "--macro",
      "{cert_issuer}=a=b c",
      "--macro",
      "_=",
    ];
    expect(parseArguments(["send", ...args.split(" "), ...macros])).toEqual({
      name: "send",
      config: "x.toml",
      mail: {
        file: "send_is_no_option",
        from: "a@b",
        to: ["c@d", "e@f"],
        client: "192.0.2.7",
        hostname: "h",
        helo: "n",
        macros: { i: "4ZB1", "{auth_type}": "plain", "{cert_issuer}": "a=b c", _: "" },
        asSendmail: true,
        json: true,
      },
    });
  });

  test.each(["-", "./-odd.eml"])("the message %s", (file) => {
    expect(parseArguments(["send", file])).toMatchObject({ mail: { file } });
  });

  test("after -- all is the message", () => {
    expect(parseArguments(["send", "--", "--odd.eml"])).toMatchObject({ mail: { file: "--odd.eml" } });
  });

  test("an empty sender is the null sender, not the default", () => {
    expect(parseArguments(["send", "m.eml", "--from", ""])).toMatchObject({ mail: { from: "" } });
  });

  test("--as postfix is the default", () => {
    expect(parseArguments(["send", "m.eml", "--as", "postfix"])).toMatchObject({ mail: PLAIN });
  });
});

describe("parseArguments refuses", () => {
  test.each<[string[], RegExp, CommandName | null]>([
    [["frobnicate"], /there is no command "frobnicate"; there are serve, check, send/, null],
    [["help", "frobnicate"], /there is no command "frobnicate"/, null],
    [["pmilter.toml"], /there is no command "pmilter\.toml"/, null],
    [["serve", "pmilter.toml"], /serve takes no argument "pmilter\.toml"/, "serve"],
    [["check", "a", "b"], /check takes no argument "a"/, "check"],
    [["-c"], /-c, --config/, "serve"],
    [["check", "--config"], /--config/, "check"],
    [["--frobnicate"], /--frobnicate/, "serve"],
    [["check", "-x"], /-x/, "check"],
    [["check", "--json=1"], /--json/, "check"],
    [["send"], /send needs the message/, "send"],
    [["send", "a.eml", "b.eml"], /one message, got also "b\.eml"/, "send"],
    [["send", "m.eml", "--as", "exim"], /--as takes postfix or sendmail, got "exim"/, "send"],
    [["send", "m.eml", "--macro", "novalue"], /--macro takes NAME=VALUE.*got "novalue"/, "send"],
    [["send", "m.eml", "--macro", "=x"], /--macro takes NAME=VALUE/, "send"],
    [["send", "m.eml", "--macro", "{open=x"], /--macro takes NAME=VALUE/, "send"],
    [["send", "m.eml", "--json=yes"], /--json/, "send"],
    [["send", "m.eml", "--to"], /--to/, "send"],
  ])("%j", (args, message, command) => {
    const error = wrong(args);
    expect(error.message).toMatch(message);
    expect(error.message).not.toContain("\n");
    expect(error.command).toBe(command);
  });
});

describe("parseArguments: try", () => {
  const { file: _, ...session } = PLAIN;
  test("files and folders, the options of send, and its own", () => {
    expect(parseArguments(["try", "a.eml", "mails/", "-"])).toEqual({
      name: "try",
      config: "pmilter.toml",
      mail: { ...session, files: ["a.eml", "mails/", "-"], listener: undefined, brief: false, strict: false },
    });
    const given = [
      "--from",
      "a@example.com",
      "--to=b@example.com",
      "--macro",
      "i=4ZB1",
      "--as",
      "sendmail",
      "--strict",
    ];
    expect(parseArguments(["try", "a.eml", "--json", ...given])).toMatchObject({
      mail: {
        from: "a@example.com",
        to: ["b@example.com"],
        macros: { i: "4ZB1" },
        asSendmail: true,
        json: true,
        strict: true,
      },
    });
    expect(parseArguments(["try", "a.eml", "--brief"])).toMatchObject({ mail: { brief: true, json: false } });
  });

  test.each([
    [["try"], "try needs messages: files in mail format (.eml), folders with such files, or - for standard input"],
    [["try", "-", "a.eml", "-"], "try reads standard input once, got - twice"],
    [["try", "a.eml", "--json", "--brief"], "--json and --brief are two forms of output: take one"],
    [["try", "a.eml", "--as", "exim"], '--as takes postfix or sendmail, got "exim"'],
    [["try", "a.eml", "--macro", "x"], '--macro takes NAME=VALUE, such as i=4ZB1 or auth_type=plain, got "x"'],
  ])("%j is wrong", (args, message) => {
    expect(wrong(args)).toMatchObject({ message, command: "try" });
  });
});
