/**
 * Writes a TypeScript handler for a Ruby handler: code where the translation is certain, elsewhere a comment with the Ruby
 * lines, for a person to translate.
 */
import { LoadError } from "../../handler/load-failure.ts";
import { syntaxFailure } from "../compile.ts";
import { isNode, newCompiler, parseRuby, type SyntaxNode } from "../opal.ts";
import { inspectString } from "../mruby.ts";
import { placeOf } from "../unsupported.ts";
import { Expressions, Untranslated } from "./expressions.ts";
import { PARAMETERS, type Role, senderDeclaration, type Value } from "./names.ts";
import { callOf, counterIn, inlined, isNew, type SmallClass, smallClass, underLock } from "./remembering.ts";
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
  /** Small classes, by name: their methods are written where they are called. */
  readonly #classes = new Map<string, SmallClass>();
  /** Variables that are never true. */
  readonly #never = new Set<string>();
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
      ...[...this.#expressions.modules]
        .sort()
        .map(([module, names]) => `import { ${[...names].sort().join(", ")} } from "${module}";`),
      ...(imports.length > 0
        ? [`import ${onlyTypes ? "type " : ""}{ ${imports.join(", ")} } from "pmilter";`, ""]
        : []),
      `export default ${this.#expressions.isAsync ? "async " : ""}function ${role.replace("master_exit", "masterExit")}(${all.join(", ")})${keeps ? `: ${this.#expressions.isAsync ? `Promise<Result<"${role}">>` : `Result<"${role}">`}` : ""} {`,
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
    for (let at = 0; at < list.length; at++) {
      const statement = list[at]!;
      const { line } = placeOf(statement);
      if (out.length > 0 && this.#commented < line - 1 && (this.#source[this.#commented] ?? "").trim() === "")
        out.push("");
      this.#comments(line, out, indent);
      const outer = this.#expressions.before;
      this.#expressions.before = [];
      const translated: string[] = [];
      try {
        const isPair = this.#counter(statement, list[at + 1], translated, indent);
        if (!isPair) this.#statement(statement, translated, indent);
        out.push(...this.#expressions.before.map((text) => indent + text), ...translated);
        if (isPair) at += 1;
        const remark = this.#remarkBehind(list[at]!);
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
      case "class": {
        const small = smallClass(node);
        if (small === null) throw new Untranslated();
        this.#classes.set((children[0] as SyntaxNode).$children()[1] as string, small);
        return;
      }
      case "block":
        this.#locked(node, null, out, indent);
        return;
      case "send":
        this.#call(node, out, indent);
        return;
      default:
        throw new Untranslated();
    }
  }

  /** Two statements that count are one operation of the store. */
  #counter(first: SyntaxNode, second: SyntaxNode | undefined, out: string[], indent: string): boolean {
    const counter = counterIn(first, second, (node) => this.#expressions.poolOf(node) !== null);
    if (counter === null) return false;
    const { by, cache, key, variable } = counter;
    this.#requireSession();
    const at = this.#expressions.keyIn(this.#expressions.poolOf(cache)!, key);
    const amount = String(by.$children()[0]);
    this.#declare(variable, "number");
    out.push(
      `${indent}${localName(variable)} = await session.store.increment(${at}${amount === "1" ? "" : `, ${amount}`});`,
    );
    return true;
  }

  /** `lock.try_lock_loop(…) do … lock.unlock end`. @param variable that is true if the time was over */
  #locked(node: SyntaxNode, variable: string | null, out: string[], indent: string): void {
    const [head, , body] = node.$children();
    const call = callOf(head);
    if (call?.name !== "try_lock_loop" || !this.#expressions.isMutex(call.receiver)) throw new Untranslated();
    const isUnlock = (one: SyntaxNode): boolean => {
      const unlock = callOf(one);
      return unlock?.name === "unlock" && this.#expressions.isMutex(unlock.receiver);
    };
    const statements = underLock(body, isUnlock);
    if (statements === null) throw new Untranslated("the lock is not released at the end of the block");
    const timeout = call.args[1];
    if (timeout !== undefined && timeout.$type() !== "int") throw new Untranslated();
    const ms = timeout === undefined ? 5000 : Math.ceil(Number(timeout.$children()[0]) / 1000);
    this.#requireSession();
    const looks = this.#expressions.looks;
    const inside: string[] = [];
    this.#block(statements, inside, `${indent}    `);
    const awaits = inside.filter((line) => line.includes("await "));
    const isAtomic = awaits.length === 1 && awaits[0]!.includes("session.store.increment(");
    if (isAtomic && this.#expressions.looks === looks) {
      out.push(`${indent}// The script's lock is not needed here: one call counts, and others count at the same time.`);
      out.push(...inside.map((line) => (line === "" ? line : line.slice(4))));
      if (variable !== null) this.#never.add(variable);
      return;
    }
    this.#expressions.isAsync = true;
    this.#expressions.helpers.add("lock");
    const had = `await lock(session, ${ms})`;
    if (variable !== null) {
      this.#declare(variable, "boolean");
      out.push(`${indent}${localName(variable)} = !(${had});`);
    }
    out.push(`${indent}if (${variable === null ? had : `!${localName(variable)}`}) {`, `${indent}  try {`);
    out.push(...inside, `${indent}  } finally {`, `${indent}    await session.store.delete("lock");`);
    out.push(`${indent}  }`, `${indent}}`);
  }

  /** Statements that are not in the order of the script's lines: without its comments. */
  #block(statements: readonly SyntaxNode[], out: string[], indent: string): void {
    for (let at = 0; at < statements.length; at++) {
      const statement = statements[at]!;
      const outer = this.#expressions.before;
      this.#expressions.before = [];
      const translated: string[] = [];
      if (this.#counter(statement, statements[at + 1], translated, indent)) at += 1;
      else this.#statement(statement, translated, indent);
      out.push(...this.#expressions.before.map((text) => indent + text), ...translated);
      this.#expressions.before = outer;
    }
  }

  /** `n = Counter.new(name).up` of a class that is small enough: its statements in place. */
  #inline(name: string, value: SyntaxNode, out: string[], indent: string): boolean {
    const call = callOf(value);
    const made = callOf(call?.receiver);
    if (call === null || made?.name !== "new" || made.receiver.$type() !== "const" || call.args.length > 0)
      return false;
    const small = this.#classes.get(made.receiver.$children()[1] as string);
    if (small === undefined) return false;
    const statements = inlined(small, call.name, made.args);
    const last = statements?.at(-1);
    if (statements === null || last === undefined) throw new Untranslated();
    const isSame = last.$type() === "lvar" && last.$children()[0] === name;
    const own = statements.filter((statement) => statement.$type() === "lvasgn");
    const clashes = own.some((statement) => {
      const local = statement.$children()[0] as string;
      return local !== name && this.#expressions.locals.has(local);
    });
    if (clashes) throw new Untranslated("a name of its own is a variable of the script, too");
    this.#block(statements.slice(0, -1), out, indent);
    if (!isSame) this.#assign(name, last, out, indent);
    return true;
  }

  #requireSession(): void {
    if (this.#role === "postconfig" || this.#role === "master_exit") throw new Untranslated("there is no session here");
  }

  /** A local variable, with what it is set to. */
  #declare(name: string, type: Value["type"]): void {
    const { locals, types } = this.#expressions;
    // A text may be nil elsewhere, and end in a line end.
    const known = type === "number" || type === "boolean" ? type : "unknown";
    types.set(name, locals.has(name) && types.get(name) !== known ? "unknown" : known);
    locals.add(name);
  }

  #assign(name: string, value: SyntaxNode, out: string[], indent: string): void {
    const alias = this.#expressions.objectOf(value);
    if (alias !== null) {
      this.#expressions.aliases.set(name, alias);
      return;
    }
    this.#expressions.aliases.delete(name);
    if (isNew(value, "Mutex")) {
      this.#expressions.mutexes.add(name);
      return;
    }
    const pool = this.#expressions.poolOf(value);
    if (pool !== null) {
      this.#expressions.caches.set(name, pool);
      return;
    }
    if (value.$type() === "block") {
      this.#locked(value, name, out, indent);
      return;
    }
    if (this.#inline(name, value, out, indent)) return;
    const { code, type } = this.#expressions.value(value);
    this.#declare(name, type);
    out.push(`${indent}${localName(name)} = ${code};`);
  }

  #if(node: SyntaxNode, out: string[], indent: string, prefix: string): void {
    const [condition, then, otherwise] = node.$children();
    if (isNode(condition) && condition.$type() === "lvar" && this.#never.has(condition.$children()[0] as string)) {
      // The time of a lock that is not needed is never over.
      if (isNode(otherwise)) this.#statements(otherwise, out, indent);
      return;
    }
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
    if (!isNode(receiver) && name === "p" && args.every((arg) => isNode(arg) && arg.$type() === "str")) {
      for (const arg of args as SyntaxNode[]) {
        out.push(`${indent}console.log(${JSON.stringify(inspectString(String(arg.$children()[0])))});`);
      }
      return;
    }
    if (isNode(receiver) && isConstant(receiver, "Pmilter") && name === "status=") {
      out.push(...this.#verdict(args[0]).map((line) => indent + line));
      return;
    }
    const kept = this.#expressions.keeping(node);
    if (kept !== null) {
      this.#requireSession();
      out.push(`${indent}${kept};`);
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
