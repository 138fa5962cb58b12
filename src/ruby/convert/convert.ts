/**
 * Writes a TypeScript handler for a Ruby one: what can be translated surely, and a comment with the Ruby lines where a
 * person must look.
 */
import { LoadError } from "../../worker/load-failure.ts";
import { syntaxFailure } from "../compile.ts";
import { isNode, newCompiler, parseRuby, type SyntaxNode } from "../opal.ts";
import { placeOf } from "../unsupported.ts";
import { PARAMETERS, type Role, sessionValue, senderDeclaration, type Value } from "./names.ts";

export interface Conversion {
  readonly code: string;
  /** Places that a person must look at. */
  readonly looks: number;
}

/** A piece of Ruby that is left to a person. */
class Untranslated extends Error {
  /** "" if it is plain. */
  readonly why: string;

  constructor(why = "") {
    super(why);
    this.why = why;
  }
}

/** What a local variable stands for, if it is no variable in TypeScript. */
type Alias = "session" | "headers";

/** Verdicts by the names of their constants; null continues. */
const VERDICTS: Readonly<Record<string, string | null>> = {
  SMFIS_CONTINUE: null,
  SMFIS_NOREPLY: null,
  SMFIS_REJECT: "reject",
  SMFIS_DISCARD: "discard",
  SMFIS_ACCEPT: "accept",
  SMFIS_TEMPFAIL: "tempfail",
  SMFIS_SKIP: "skip",
};

const HELPERS: Readonly<Record<string, string>> = {
  puts: `/** Prints a line; a line end that is there is not doubled. */
function puts(text: string): void {
  console.log(text.endsWith("\\n") ? text.slice(0, -1) : text);
}`,
  ctime: `/** \`Wed Nov 02 21:02:15 2016\`, in local time. */
function ctime(date: Date): string {
  const [weekday, month, day, year] = date.toDateString().split(" ");
  return \`\${weekday} \${month} \${day} \${date.toTimeString().slice(0, 8)} \${year}\`;
}`,
};

/**
 * @param path of the script, for errors and the first comment
 * @throws LoadError it is not Ruby
 */
export async function convertRuby(path: string, source: string, role: Role): Promise<Conversion> {
  const compiler = await newCompiler(source, { file: path, eval: true });
  try {
    compiler.$compile();
  } catch (error) {
    throw new LoadError(syntaxFailure(path, error), error);
  }
  const [script] = (await parseRuby(path, source)).$children();
  return new Converter(source, role).convert(isNode(script) ? script : null);
}

class Converter {
  readonly #source: readonly string[];
  readonly #role: Role;
  readonly #aliases = new Map<string, Alias>();
  readonly #locals = new Set<string>();
  readonly #imports = new Set<string>();
  readonly #helpers = new Set<string>();
  readonly #used = new Set<string>();
  #looks = 0;
  /** The answer is kept until the end: something follows where it is given. */
  #keepsVerdict = false;
  #givesVerdict = false;
  /** Statements that an expression needs in front of its own. */
  #before: string[] = [];
  /** Ruby lines whose comments are written. */
  #commented = 0;

  constructor(source: string, role: Role) {
    this.#source = source.split("\n");
    this.#role = role;
  }

  convert(script: SyntaxNode | null): Conversion {
    const body: string[] = [];
    if (script !== null) {
      this.#keepsVerdict = !givesLast(script);
      this.#statements(script, body, "  ");
    }
    this.#comments(this.#source.length + 1, body, "  ");
    return { code: this.#module(body), looks: this.#looks };
  }

  #module(body: readonly string[]): string {
    const role = this.#role;
    const isTask = role === "postconfig" || role === "master_exit";
    const code = body.join("\n");
    const sender = code.includes("sender") && this.#used.has("sender") ? senderDeclaration(role) : null;
    const usesSession = /\bsession\b/.test(code) || sender !== null;
    const parameters = PARAMETERS[role] ?? [];
    const lastUsed = parameters.findLastIndex((parameter) => new RegExp(`\\b${parameter.split(":")[0]}\\b`).test(code));
    const given = parameters.slice(0, lastUsed + 1);
    const session = `${usesSession ? "" : "_"}session: Session<"${role}">`;
    const all = isTask || (!usesSession && given.length === 0) ? [] : [session, ...given];
    const imports = [...this.#imports].sort();
    const keeps = this.#keepsVerdict && this.#givesVerdict;
    const types = [...(keeps ? ["Result"] : []), ...(all.length > 0 ? ["Session"] : [])];
    const onlyTypes = imports.length === 0;
    imports.push(...types.map((name) => (onlyTypes ? name : `type ${name}`)));
    const lines = [
      ...(imports.length > 0
        ? [`import ${onlyTypes ? "type " : ""}{ ${imports.join(", ")} } from "pmilter";`, ""]
        : []),
      `export default function ${role.replace("master_exit", "masterExit")}(${all.join(", ")})${keeps ? `: Result<"${role}">` : ""} {`,
      ...(sender === null ? [] : [`  ${sender}`]),
      ...(keeps ? [`  let verdict: Result<"${role}">;`] : []),
      ...[...this.#locals].map((name) => `  let ${name};`),
      ...body,
      ...(keeps ? ["  return verdict;"] : []),
      "}",
      ...[...this.#helpers].flatMap((name) => ["", HELPERS[name]!]),
    ];
    return `${lines.join("\n")}\n`;
  }

  /** Statements of a block; what cannot be translated stands as a comment. */
  #statements(node: SyntaxNode, out: string[], indent: string): void {
    const list = node.$type() === "begin" ? node.$children().filter(isNode) : [node];
    for (const statement of list) {
      const { line } = placeOf(statement);
      if (out.length > 0 && this.#commented < line - 1 && (this.#source[this.#commented] ?? "").trim() === "")
        out.push("");
      this.#comments(line, out, indent);
      const outer = this.#before;
      this.#before = [];
      const translated: string[] = [];
      try {
        this.#statement(statement, translated, indent);
        out.push(...this.#before.map((text) => indent + text), ...translated);
        const remark = this.#remarkBehind(statement);
        if (remark !== null && translated.length > 0) out.push(`${out.pop()} // ${remark}`);
      } catch (error) {
        if (!(error instanceof Untranslated)) throw error;
        this.#look(out, indent, `line ${line} was not translated${error.why === "" ? "" : `: ${error.why}`}`);
        for (const text of sourceOf(statement).split("\n")) out.push(`${indent}//   ${text}`);
      }
      this.#before = outer;
      this.#commented = Math.max(this.#commented, line + sourceOf(statement).split("\n").length - 1);
    }
  }

  /** A comment at the end of a statement's last line. */
  #remarkBehind(statement: SyntaxNode): string | null {
    const lines = sourceOf(statement).split("\n");
    const whole = this.#source[placeOf(statement).line + lines.length - 2] ?? "";
    const at = whole.lastIndexOf(lines.at(-1)!) + lines.at(-1)!.length;
    return /^\s*#\s?(.*)$/.exec(whole.slice(at))?.[1] ?? null;
  }

  /** Whole lines of comments above a Ruby line. */
  #comments(line: number, out: string[], indent: string): void {
    for (let at = this.#commented + 1; at < line; at++) {
      const match = /^\s*#\s?(.*)$/.exec(this.#source[at - 1] ?? "");
      if (match !== null && !match[1]!.startsWith("!")) out.push(`${indent}// ${match[1]}`.trimEnd());
    }
    this.#commented = Math.max(this.#commented, line - 1);
  }

  #look(out: string[], indent: string, text: string): void {
    this.#looks += 1;
    out.push(`${indent}// Look here: ${text}`);
  }

  #statement(node: SyntaxNode, out: string[], indent: string): void {
    const children = node.$children();
    switch (node.$type()) {
      case "begin":
        this.#statements(node, out, indent);
        return;
      case "lvasgn":
        this.#assign(children[0] as string, children[1] as SyntaxNode, out, indent);
        return;
      case "gvasgn":
        out.push(`${indent}${this.#global(children[0] as string)} = ${this.#value(children[1]).code};`);
        return;
      case "if":
        this.#if(node, out, indent, "");
        return;
      case "case":
        this.#case(node, out, indent);
        return;
      case "return":
        if (children.length > 0) throw new Untranslated();
        out.push(`${indent}return${this.#keepsVerdict && this.#givesVerdict ? " verdict" : ""};`);
        return;
      case "send":
        this.#call(node, out, indent);
        return;
      default:
        throw new Untranslated();
    }
  }

  #assign(name: string, value: SyntaxNode, out: string[], indent: string): void {
    const alias = this.#objectOf(value);
    if (alias !== null) {
      this.#aliases.set(name, alias);
      return;
    }
    this.#aliases.delete(name);
    const { code } = this.#value(value);
    this.#locals.add(name);
    out.push(`${indent}${name} = ${code};`);
  }

  #global(name: string): string {
    if (!/^\$\w+$/.test(name)) throw new Untranslated();
    if (this.#role === "postconfig" || this.#role === "master_exit") throw new Untranslated("there is no session here");
    return `session.state["${name.slice(1)}"]`;
  }

  #if(node: SyntaxNode, out: string[], indent: string, prefix: string): void {
    const [condition, then, otherwise] = node.$children();
    if (!isNode(then)) {
      if (!isNode(otherwise)) throw new Untranslated();
      out.push(`${indent}${prefix}if (${negated(this.#condition(condition))}) {`);
      this.#statements(otherwise, out, `${indent}  `);
      out.push(`${indent}}`);
      return;
    }
    out.push(`${indent}${prefix}if (${this.#condition(condition)}) {`);
    this.#statements(then, out, `${indent}  `);
    if (!isNode(otherwise)) {
      out.push(`${indent}}`);
      return;
    }
    if (otherwise.$type() === "if") {
      const rest: string[] = [];
      const isElsif = this.#tryIf(otherwise, rest, indent);
      if (isElsif) {
        out.push(...rest);
        return;
      }
    }
    out.push(`${indent}} else {`);
    this.#statements(otherwise, out, `${indent}  `);
    out.push(`${indent}}`);
  }

  /** `else if`, unless its condition cannot be translated or needs statements of its own. */
  #tryIf(node: SyntaxNode, out: string[], indent: string): boolean {
    const before = this.#before.length;
    try {
      this.#condition(node.$children()[0]);
      if (this.#before.length > before) return false;
    } catch (error) {
      if (error instanceof Untranslated) return false;
      throw error;
    }
    this.#if(node, out, indent, "} else ");
    return true;
  }

  #case(node: SyntaxNode, out: string[], indent: string): void {
    const [subject, ...rest] = node.$children();
    const value = this.#value(subject);
    if (value.type !== "string") throw new Untranslated();
    const otherwise = rest.at(-1);
    let prefix = "";
    for (const branch of rest.slice(0, -1) as SyntaxNode[]) {
      const tests = branch.$children().slice(0, -1);
      const body = branch.$children().at(-1);
      const conditions = tests.map((test) => {
        const wanted = this.#value(test);
        if (wanted.type !== "string") throw new Untranslated();
        return `${value.code} === ${wanted.code}`;
      });
      out.push(`${indent}${prefix}if (${conditions.join(" || ")}) {`);
      if (isNode(body)) this.#statements(body, out, `${indent}  `);
      prefix = "} else ";
    }
    if (isNode(otherwise)) {
      out.push(`${indent}} else {`);
      this.#statements(otherwise, out, `${indent}  `);
    }
    out.push(`${indent}}`);
  }

  #call(node: SyntaxNode, out: string[], indent: string): void {
    const [receiver, name, ...args] = node.$children() as [unknown, string, ...unknown[]];
    if (!isNode(receiver) && name === "puts") {
      if (args.length === 0) out.push(`${indent}console.log();`);
      for (const arg of args) out.push(`${indent}${this.#print(this.#value(arg))}`);
      return;
    }
    if (isNode(receiver) && isConstant(receiver, "Pmilter") && name === "status=") {
      out.push(...this.#verdict(args[0]).map((line) => indent + line));
      return;
    }
    const change = this.#change(node);
    if (change === null) throw new Untranslated();
    if (this.#role === "eom") out.push(`${indent}${change.call};`);
    else this.#look(out, indent, `${change.call} does nothing at ${this.#role} in the original; it is for eom`);
  }

  #print({ code, mayEndLine, type }: Value): string {
    const shown = type === "unknown" ? `${code} ?? ""` : code;
    if (type !== "unknown" && mayEndLine !== true) return `console.log(${code});`;
    this.#helpers.add("puts");
    return `puts(String(${shown}));`.replace(/String\((`[^`]*`)\)/, "$1");
  }

  #verdict(status: unknown): string[] {
    const name = isNode(status) && status.$type() === "const" ? (status.$children()[1] as string) : "";
    const scope = isNode(status) ? status.$children()[0] : null;
    if (!isNode(scope) || !isConstant(scope, "Pmilter") || !(name in VERDICTS)) throw new Untranslated();
    const verdict = VERDICTS[name]!;
    if (this.#role === "abort" || this.#role === "close")
      return [`// ${name}: nobody hears an answer at ${this.#role}.`];
    if (this.#role === "postconfig" || this.#role === "master_exit") throw new Untranslated("there is no session here");
    this.#givesVerdict = true;
    if (verdict !== null) this.#imports.add(verdict);
    const value = verdict === null ? "undefined" : `${verdict}()`;
    if (this.#keepsVerdict) return [`verdict = ${value};`];
    return [verdict === null ? "return;" : `return ${value};`];
  }

  /** A change of the message, and what the Ruby expression gives; null if the call is none. */
  #change(node: SyntaxNode): { readonly call: string; readonly value: Value } | null {
    const [receiver, name, first, second] = node.$children() as [unknown, string, unknown, unknown];
    const object = isNode(receiver) ? this.#objectOf(receiver) : null;
    if (object === "headers" && name === "[]=") {
      const [header, value] = [this.#text(first), this.#text(second)];
      return { call: `session.message.addHeader(${header}, ${value})`, value: { code: value, type: "string" } };
    }
    const method = { change_envelope_from: "changeFrom", add_envelope_to: "addRecipient", add_rcpt_to: "addRecipient" }[
      name
    ];
    if (object !== "session" || method === undefined) return null;
    const params = isNode(second) ? `, ${this.#params(second)}` : "";
    return { call: `session.message.${method}(${this.#text(first)}${params})`, value: { code: "0", type: "number" } };
  }

  #params(node: SyntaxNode): string {
    if (node.$type() === "str") {
      const words = String(node.$children()[0])
        .split(" ")
        .filter((word) => word !== "");
      return JSON.stringify(words).replaceAll('","', '", "');
    }
    return `${this.#text(node)}.split(" ")`;
  }

  #text(node: unknown): string {
    const value = this.#value(node);
    if (value.type !== "string") throw new Untranslated("this is perhaps no string");
    return value.code;
  }

  /** A condition; only what is true or false: in Ruby every string is true. */
  #condition(node: unknown): string {
    const value = this.#value(node);
    if (value.type !== "boolean") throw new Untranslated("in Ruby everything but nil and false is true");
    return value.code;
  }

  #value(node: unknown): Value {
    if (!isNode(node)) throw new Untranslated();
    const children = node.$children();
    switch (node.$type()) {
      case "str": {
        const text = String(children[0]);
        return { code: JSON.stringify(text), type: "string", mayEndLine: text.endsWith("\n") };
      }
      case "int":
        return { code: String(children[0]), type: "number" };
      case "true":
      case "false":
        return { code: node.$type(), type: "boolean" };
      case "nil":
        return { code: "undefined", type: "unknown" };
      case "dstr":
        return this.#template(children);
      case "begin":
        if (children.length !== 1) throw new Untranslated();
        return this.#value(children[0]);
      case "lvar":
        if (!this.#locals.has(children[0] as string)) throw new Untranslated();
        return { code: children[0] as string, type: "unknown" };
      case "gvar":
        return { code: this.#global(children[0] as string), type: "unknown" };
      case "and":
      case "or": {
        const operator = node.$type() === "and" ? "&&" : "||";
        const sides = children.map((side) => {
          const code = this.#condition(side);
          const isMixed = isNode(side) && inner(side).$type() === (node.$type() === "and" ? "or" : "and");
          return isMixed ? `(${code})` : code;
        });
        return { code: sides.join(` ${operator} `), type: "boolean" };
      }
      case "send":
        return this.#sent(node);
      default:
        throw new Untranslated();
    }
  }

  #template(parts: readonly unknown[]): Value {
    let code = "";
    let plain = "";
    let isPlain = true;
    let mayEndLine = false;
    for (const part of parts as SyntaxNode[]) {
      if (part.$type() === "str") {
        const text = String(part.$children()[0]);
        plain += text;
        code += templateText(text);
        mayEndLine = text.endsWith("\n");
      } else {
        const value = this.#value(part);
        const shown = unwrapped(value.code);
        isPlain &&= isLiteral(value);
        if (isLiteral(value)) {
          plain += JSON.parse(shown) as string;
          code += templateText(JSON.parse(shown) as string);
        } else if (shown.startsWith("`")) code += shown.slice(1, -1);
        else code += `\${${shown}${value.type === "unknown" ? ' ?? ""' : ""}}`;
        mayEndLine = value.type === "unknown" || value.mayEndLine === true;
      }
    }
    return { code: isPlain ? JSON.stringify(plain) : `\`${code}\``, type: "string", mayEndLine };
  }

  #sent(node: SyntaxNode): Value {
    const [receiver, name, ...args] = node.$children() as [unknown, string, ...unknown[]];
    if (!isNode(receiver)) throw new Untranslated();
    if (isConstant(receiver, "Pmilter") && name === "name") return { code: '"pmilter"', type: "string" };
    if (isConstant(receiver, "Time") && name === "at") return this.#time(args[0]);
    const object = this.#objectOf(receiver);
    if (object === "headers" && name === "header" && this.#role === "header") {
      this.#before.push("// Look here: mruby showed bytes that are not ASCII in octal");
      this.#looks += 1;
      return { code: "`{${JSON.stringify(name)}=>${JSON.stringify(value)}}`", type: "string" };
    }
    const change = this.#change(node);
    if (change !== null) {
      if (this.#role === "eom") this.#before.push(`${change.call};`);
      return change.value;
    }
    if (object === "session" && args.length === 0) {
      const value = sessionValue(name, this.#role);
      if (value === undefined) throw new Untranslated(`there is no ${name}`);
      this.#used.add(value.code);
      if (value.look !== undefined) {
        this.#before.push(`// Look here: ${value.look}`);
        this.#looks += 1;
      }
      return value;
    }
    if (object !== null) throw new Untranslated();
    return this.#operation(receiver, name, args);
  }

  #operation(receiver: SyntaxNode, name: string, args: readonly unknown[]): Value {
    if (name === "!") return { code: negated(this.#condition(receiver)), type: "boolean" };
    const left = this.#value(receiver);
    if (name === "==" || name === "!=") {
      const right = this.#value(args[0]);
      // TypeScript refuses a comparison whose outcome it knows.
      if (isLiteral(left) && isLiteral(right))
        return { code: String((left.code === right.code) === (name === "==")), type: "boolean" };
      return { code: `${left.code} ${name}= ${right.code}`, type: "boolean" };
    }
    if (name === "nil?" && left.type === "unknown") return { code: `${left.code} === undefined`, type: "boolean" };
    if (left.type !== "string") throw new Untranslated();
    const [first] = args;
    switch (name) {
      case "+":
        return { code: `${left.code} + ${this.#text(first)}`, type: "string", mayEndLine: true };
      case "include?":
        return { code: `${left.code}.includes(${this.#text(first)})`, type: "boolean" };
      case "start_with?":
        return this.#anyOf(args, (arg) => `${left.code}.startsWith(${arg})`);
      case "end_with?":
        return this.#anyOf(args, (arg) => `${left.code}.endsWith(${arg})`);
      case "empty?":
        return { code: `${left.code} === ""`, type: "boolean" };
      case "downcase":
        return { ...left, code: `${left.code}.toLowerCase()` };
      case "upcase":
        return { ...left, code: `${left.code}.toUpperCase()` };
      case "to_s":
        return left;
      default:
        throw new Untranslated();
    }
  }

  #anyOf(args: readonly unknown[], test: (arg: string) => string): Value {
    const tests = args.map((arg) => test(this.#text(arg)));
    const code = tests.join(" || ");
    return { code: tests.length > 1 ? `(${code})` : code, type: "boolean" };
  }

  /** A time as text: nothing else is done with one. */
  #time(argument: unknown): Value {
    const seconds = this.#value(argument);
    if (seconds.type !== "number") throw new Untranslated();
    this.#helpers.add("ctime");
    const date = /^Math\.floor\((.*)\.getTime\(\) \/ 1000\)$/.exec(seconds.code)?.[1];
    return { code: `ctime(${date ?? `new Date(${seconds.code} * 1000)`})`, type: "string" };
  }

  /** Whether an expression is the session or its headers, by their class or by a variable. */
  #objectOf(node: SyntaxNode): Alias | null {
    if (node.$type() === "lvar") return this.#aliases.get(node.$children()[0] as string) ?? null;
    if (node.$type() !== "send") return null;
    const [receiver, name] = node.$children();
    if (name !== "new" || !isNode(receiver)) return null;
    if (isConstant(receiver, "Pmilter", "Session")) return "session";
    return isConstant(receiver, "Pmilter", "Session", "Headers") ? "headers" : null;
  }
}

function isConstant(node: SyntaxNode, ...path: string[]): boolean {
  if (node.$type() !== "const") return false;
  const [scope, name] = node.$children();
  if (name !== path.at(-1)) return false;
  const outer = path.slice(0, -1);
  return isNode(scope) && scope.$type() !== "cbase" ? isConstant(scope, ...outer) : outer.length === 0;
}

/** As the text of a template. */
function templateText(text: string): string {
  return JSON.stringify(text)
    .slice(1, -1)
    .replaceAll('\\"', '"')
    .replace(/`|\$\{/g, "\\$&");
}

/** Without parentheses around the whole. */
function unwrapped(code: string): string {
  return /^\([^()]*(?:\([^()]*\)[^()]*)*\)$/.test(code) ? code.slice(1, -1) : code;
}

const isLiteral = ({ code }: Value) => code.startsWith('"');

/** Without the parentheses around it. */
function inner(node: SyntaxNode): SyntaxNode {
  const [only, ...more] = node.$children();
  return node.$type() === "begin" && more.length === 0 && isNode(only) ? inner(only) : node;
}

function sourceOf(node: SyntaxNode): string {
  const location = node.$location() as { $expression(): { $source(): string } };
  return location.$expression().$source();
}

/** The opposite of a condition, as one would write it. */
function negated(code: string): string {
  const comparison = /^([^&|]*) ([=!])== ([^&|]*)$/.exec(code);
  if (comparison !== null) return `${comparison[1]} ${comparison[2] === "=" ? "!" : "="}== ${comparison[3]}`;
  return /^[\w.]+\([^()]*\)$/.test(code) ? `!${code}` : `!(${code})`;
}

/** Whether `Pmilter.status=` comes only where nothing follows in the script. */
function givesLast(node: SyntaxNode): boolean {
  const children = node.$children().filter(isNode);
  switch (node.$type()) {
    case "begin":
      return children.every((child, index) =>
        index === children.length - 1 ? givesLast(child) : !givesSomewhere(child),
      );
    case "if":
      return children.slice(1).every(givesLast) && !givesSomewhere(children[0]!);
    case "case":
    case "when":
      return (
        children
          .slice(0, -1)
          .every((child) => (child.$type() === "when" ? givesLast(child) : !givesSomewhere(child))) &&
        givesLast(children.at(-1)!)
      );
    case "send":
      return children.every((child) => !givesSomewhere(child));
    default:
      return !givesSomewhere(node);
  }
}

function givesSomewhere(node: SyntaxNode): boolean {
  if (node.$type() === "send" && node.$children()[1] === "status=") return true;
  return node.$children().some((child) => isNode(child) && givesSomewhere(child));
}
