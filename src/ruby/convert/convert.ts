/**
 * Writes a TypeScript handler for a Ruby handler: code where the translation is certain, elsewhere a comment with the Ruby
 * lines, for a person to translate.
 */
import { LoadError } from "../../handler/load-failure.ts";
import { syntaxFailure } from "../compile.ts";
import { isNode, newCompiler, parseRuby, type SyntaxNode } from "../opal.ts";
import { placeOf } from "../unsupported.ts";
import { Expressions, Untranslated } from "./expressions.ts";
import { PARAMETERS, type Role, senderDeclaration } from "./names.ts";
import { givesLast, isConstant, sourceOf } from "./tree.ts";
import { HELPERS, localName, negated } from "./typescript.ts";

export interface Conversion {
  readonly code: string;
  /** Places that a person must look at. */
  readonly looks: number;
}

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
  readonly #expressions: Expressions;
  readonly #imports = new Set<string>();
  /** The answer is kept until the end: something follows where it is given. */
  #keepsVerdict = false;
  #givesVerdict = false;
  /** Ruby lines with a comment that is written already. */
  #commented = 0;

  constructor(source: string, role: Role) {
    this.#source = source.split("\n");
    this.#role = role;
    this.#expressions = new Expressions(role);
  }

  convert(script: SyntaxNode | null): Conversion {
    const body: string[] = [];
    if (script !== null) {
      this.#keepsVerdict = !givesLast(script);
      this.#statements(script, body, "  ");
    }
    this.#comments(this.#source.length + 1, body, "  ");
    return { code: this.#module(body), looks: this.#expressions.looks };
  }

  #module(body: readonly string[]): string {
    const role = this.#role;
    const isTask = role === "postconfig" || role === "master_exit";
    const code = body.join("\n");
    const sender = code.includes("sender") && this.#expressions.used.has("sender") ? senderDeclaration(role) : null;
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
      ...[...this.#expressions.locals].map((name) => `  let ${localName(name)};`),
      ...body,
      ...(keeps ? ["  return verdict;"] : []),
      "}",
      ...[...this.#expressions.helpers].flatMap((name) => ["", HELPERS[name]!]),
    ];
    return `${lines.join("\n")}\n`;
  }

  /** Statements of a block; a statement that cannot be translated becomes a comment. */
  #statements(node: SyntaxNode, out: string[], indent: string): void {
    const list = node.$type() === "begin" ? node.$children().filter(isNode) : [node];
    for (const statement of list) {
      const { line } = placeOf(statement);
      if (out.length > 0 && this.#commented < line - 1 && (this.#source[this.#commented] ?? "").trim() === "")
        out.push("");
      this.#comments(line, out, indent);
      const outer = this.#expressions.before;
      this.#expressions.before = [];
      const translated: string[] = [];
      try {
        this.#statement(statement, translated, indent);
        out.push(...this.#expressions.before.map((text) => indent + text), ...translated);
        const remark = this.#remarkBehind(statement);
        if (remark !== null && translated.length > 0) out.push(`${out.pop()} // ${remark}`);
      } catch (error) {
        if (!(error instanceof Untranslated)) throw error;
        this.#look(out, indent, `line ${line} was not translated${error.why === "" ? "" : `: ${error.why}`}`);
        for (const text of sourceOf(statement).split("\n")) out.push(`${indent}//   ${text}`);
      }
      this.#expressions.before = outer;
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
    this.#expressions.looks += 1;
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
        out.push(
          `${indent}${this.#expressions.global(children[0] as string)} = ${this.#expressions.value(children[1]).code};`,
        );
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
    const alias = this.#expressions.objectOf(value);
    if (alias !== null) {
      this.#expressions.aliases.set(name, alias);
      return;
    }
    this.#expressions.aliases.delete(name);
    const { code } = this.#expressions.value(value);
    this.#expressions.locals.add(name);
    out.push(`${indent}${localName(name)} = ${code};`);
  }

  #if(node: SyntaxNode, out: string[], indent: string, prefix: string): void {
    const [condition, then, otherwise] = node.$children();
    if (!isNode(then)) {
      if (!isNode(otherwise)) throw new Untranslated();
      out.push(`${indent}${prefix}if (${negated(this.#expressions.condition(condition))}) {`);
      this.#statements(otherwise, out, `${indent}  `);
      out.push(`${indent}}`);
      return;
    }
    out.push(`${indent}${prefix}if (${this.#expressions.condition(condition)}) {`);
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
    const before = this.#expressions.before.length;
    try {
      this.#expressions.condition(node.$children()[0]);
      if (this.#expressions.before.length > before) return false;
    } catch (error) {
      if (error instanceof Untranslated) return false;
      throw error;
    }
    this.#if(node, out, indent, "} else ");
    return true;
  }

  #case(node: SyntaxNode, out: string[], indent: string): void {
    const [subject, ...rest] = node.$children();
    const value = this.#expressions.value(subject);
    if (value.type !== "string") throw new Untranslated();
    const otherwise = rest.at(-1);
    let prefix = "";
    for (const branch of rest.slice(0, -1) as SyntaxNode[]) {
      const tests = branch.$children().slice(0, -1);
      const body = branch.$children().at(-1);
      const conditions = tests.map((test) => {
        const wanted = this.#expressions.value(test);
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
      for (const arg of args) out.push(`${indent}${this.#expressions.print(this.#expressions.value(arg))}`);
      return;
    }
    if (isNode(receiver) && isConstant(receiver, "Pmilter") && name === "status=") {
      out.push(...this.#verdict(args[0]).map((line) => indent + line));
      return;
    }
    const written = this.#expressions.written(node);
    if (written !== null) {
      out.push(`${indent}${written};`);
      return;
    }
    const change = this.#expressions.change(node);
    if (change === null) throw new Untranslated();
    if (this.#role === "eom") out.push(`${indent}${change.call};`);
    else this.#look(out, indent, `${change.call} does nothing at ${this.#role} in the original; it is for eom`);
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
}
