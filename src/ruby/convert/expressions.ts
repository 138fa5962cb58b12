/**
 * Expressions of Ruby in TypeScript, with the statements and imports that they need. An uncertain case is {@link
 * Untranslated}.
 */
import { isNode, type SyntaxNode } from "../opal.ts";
import { MESSAGE_PHASES } from "../session-calls.ts";
import { LOG_CALLS, type Role, sessionValue, type Value } from "./names.ts";
import { callOf, FILE_READERS, isNew, poolName } from "./remembering.ts";
import { inner, isConstant } from "./tree.ts";
import { isLiteral, localName, negated, templateText, unwrapped } from "./typescript.ts";

/** A piece of Ruby that is left to a person. */
export class Untranslated extends Error {
  /** "" if it is plain. */
  readonly why: string;

  constructor(why = "") {
    super(why);
    this.why = why;
  }
}

/** The expression for a local variable of Ruby that is no variable in TypeScript. */
/** Where a script can read headers, and the methods of `Headers` that do. */
const HEADER_ROLES: ReadonlySet<string> = new Set(["header", "eoh", "body", "eom", "abort"]);
const HEADER_READERS: Readonly<Record<string, string>> = { "[]": "get", text: "text" };

export type Alias = "session" | "headers" | "results" | "state";

export class Expressions {
  readonly role: Role;
  /** Local variables that are the session or a part of it. */
  readonly aliases = new Map<string, Alias>();
  /** Local variables that are variables in TypeScript, too. */
  readonly locals = new Set<string>();
  /** Names of {@link HELPERS} that are called. */
  readonly helpers = new Set<string>();
  /** Codes of the values of the session that are read. */
  readonly used = new Set<string>();
  /** Statements that an expression needs in front of its own. */
  before: string[] = [];
  /** Places that a person must look at. */
  looks = 0;
  /** Local variables that are a mutex. */
  readonly mutexes = new Set<string>();
  /** Local variables that are a cache, with the name of its pool. */
  readonly caches = new Map<string, string>();
  /** Types of local variables; those that differ from place to place are unknown. */
  readonly types = new Map<string, Value["type"]>();
  /** What is imported besides, by module. */
  readonly modules = new Map<string, Set<string>>();
  /** Something is awaited. */
  isAsync = false;

  constructor(role: Role) {
    this.role = role;
  }

  global(name: string): string {
    if (!/^\$\w+$/.test(name)) throw new Untranslated();
    if (this.role === "postconfig" || this.role === "master_exit") throw new Untranslated("there is no session here");
    return `session.state["${name.slice(1)}"]`;
  }

  print({ code, mayEndLine, type }: Value): string {
    const shown = type === "unknown" ? `${code} ?? ""` : code;
    if (type !== "unknown" && mayEndLine !== true) return `console.log(${code});`;
    this.helpers.add("puts");
    return `puts(String(${shown}));`.replace(/String\((`[^`]*`)\)/, "$1");
  }

  /** A change of the message with the value of the Ruby expression; null if the call is no change. */
  change(node: SyntaxNode): { readonly call: string; readonly value: Value } | null {
    const [receiver, name, first, second] = node.$children() as [unknown, string, unknown, unknown];
    const object = isNode(receiver) ? this.objectOf(receiver) : null;
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

  /** A line of the log, a result or a value of the message's state; null for another statement. */
  written(node: SyntaxNode): string | null {
    const [receiver, name, first, second] = node.$children() as [unknown, string, unknown, unknown];
    const object = isNode(receiver) ? this.objectOf(receiver) : null;
    if (object === "session" && name === "log") {
      const level = second === undefined ? '"info"' : this.#text(second);
      const call = level.startsWith('"') ? LOG_CALLS[JSON.parse(level) as string] : undefined;
      if (call === undefined) throw new Untranslated("the level is perhaps none of debug, info, warn, error");
      return `${call}(${this.#text(first)})`;
    }
    if ((object !== "results" && object !== "state") || name !== "[]=") return null;
    this.#requireMessage();
    const [key, value] = [this.#text(first), this.value(second)];
    if (object === "state") return `session.message.state[${key}] = ${value.code}`;
    if (value.type === "unknown") throw new Untranslated("this is perhaps nil");
    return `session.message.results.set(${key}, ${value.code})`;
  }

  #requireMessage(): void {
    if (!MESSAGE_PHASES.has(this.role)) throw new Untranslated(`there is no message at ${this.role}`);
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
    const value = this.value(node);
    if (value.type !== "string") throw new Untranslated("this is perhaps no string");
    return value.code;
  }

  /** A condition. Only booleans: in Ruby every string is true. */
  condition(node: unknown): string {
    const value = this.value(node);
    if (value.type !== "boolean") throw new Untranslated("in Ruby everything but nil and false is true");
    return value.code;
  }

  value(node: unknown): Value {
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
        return this.value(children[0]);
      case "lvar":
        if (!this.locals.has(children[0] as string)) throw new Untranslated();
        return { code: localName(children[0] as string), type: this.types.get(children[0] as string) ?? "unknown" };
      case "gvar":
        return { code: this.global(children[0] as string), type: "unknown" };
      case "and":
      case "or": {
        const operator = node.$type() === "and" ? "&&" : "||";
        const sides = children.map((side) => {
          const code = this.condition(side);
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
        const value = this.value(part);
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
    const object = this.objectOf(receiver);
    if (object === "headers" && name === "header" && this.role === "header") {
      this.before.push("// Look here: mruby showed bytes that are not ASCII in octal");
      this.looks += 1;
      return { code: "`{${JSON.stringify(name)}=>${JSON.stringify(value)}}`", type: "string" };
    }
    const read = object === "headers" && HEADER_ROLES.has(this.role) ? HEADER_READERS[name] : undefined;
    if (read !== undefined) {
      return { code: `session.message.headers.${read}(${this.#text(args[0])})`, type: "unknown" };
    }
    if ((object === "results" || object === "state") && name === "[]" && args.length === 1) {
      this.#requireMessage();
      const key = this.#text(args[0]);
      const code = object === "state" ? `session.message.state[${key}]` : `session.message.results.get(${key})`;
      return { code, type: "unknown", mayBeNull: true };
    }
    const change = this.change(node);
    if (change !== null) {
      if (this.role === "eom") this.before.push(`${change.call};`);
      return change.value;
    }
    if (object === "session" && args.length === 0) {
      const value = sessionValue(name, this.role);
      if (value === undefined) throw new Untranslated(`there is no ${name}`);
      this.used.add(value.code);
      if (value.look !== undefined) {
        this.before.push(`// Look here: ${value.look}`);
        this.looks += 1;
      }
      return value;
    }
    if (object !== null) throw new Untranslated();
    const kept = this.#remembered(node) ?? this.#ofFile(receiver, name, args);
    return kept ?? this.#operation(receiver, name, args);
  }

  /** The pool of a cache; null for another expression. */
  poolOf(node: SyntaxNode): string | null {
    if (node.$type() === "lvar") return this.caches.get(node.$children()[0] as string) ?? null;
    return isNew(node, "Cache") ? poolName(node) : null;
  }

  isMutex(node: SyntaxNode): boolean {
    return node.$type() === "lvar" && this.mutexes.has(node.$children()[0] as string);
  }

  /** A key of a pool in the store. */
  keyIn(pool: string, key: unknown): string {
    this.isAsync = true;
    const value = this.value(key);
    if (value.type !== "string" && value.type !== "unknown") throw new Untranslated("a key is a string");
    if (isLiteral(value)) return JSON.stringify(`${pool}:${JSON.parse(value.code) as string}`);
    const shown = value.code.startsWith("`") ? value.code.slice(1, -1) : `\${${unwrapped(value.code)}}`;
    const text = value.type === "unknown" ? `\${${value.code} ?? ""}` : shown;
    return `\`${templateText(`${pool}:`)}${text}\``;
  }

  /** A change of a cache; null for another statement. */
  keeping(node: SyntaxNode): string | null {
    const call = callOf(node);
    const pool = call === null ? null : this.poolOf(call.receiver);
    if (call === null || pool === null) return null;
    const [key, value] = call.args;
    if (call.name === "[]=" || call.name === "set") {
      const at = this.keyIn(pool, key);
      const kept = this.value(value);
      if (kept.type === "unknown") throw new Untranslated("this is perhaps nil");
      return `await session.store.set(${at}, ${kept.code})`;
    }
    return call.name === "delete" ? `await session.store.delete(${this.keyIn(pool, key)})` : null;
  }

  #remembered(node: SyntaxNode): Value | null {
    const { args, name, receiver } = callOf(node)!;
    const pool = this.poolOf(receiver);
    if (pool !== null) {
      if (name === "delete")
        return { code: `(await session.store.delete(${this.keyIn(pool, args[0])}))`, type: "boolean" };
      if (!["[]", "get", "get_by_no_lock"].includes(name)) throw new Untranslated();
      return { code: `(await session.store.get(${this.keyIn(pool, args[0])}))`, type: "unknown" };
    }
    const inside = callOf(receiver);
    if (name === "to_i" && inside !== null && this.poolOf(inside.receiver) !== null) {
      this.helpers.add("integer");
      return { code: `integer(${unwrapped(this.value(receiver).code)})`, type: "number" };
    }
    if (name === "[]" && inside?.name === "split" && args[0]?.$type() === "int") {
      const [text, separator] = [this.value(inside.receiver), this.value(inside.args[0])];
      if (text.type !== "string" || separator.type !== "string" || Number(args[0].$children()[0]) < 0) return null;
      return { code: `${text.code}.split(${separator.code})[${String(args[0].$children()[0])}]`, type: "unknown" };
    }
    return null;
  }

  #ofFile(receiver: SyntaxNode, name: string, args: readonly unknown[]): Value | null {
    if (!isConstant(receiver, "File") && !isConstant(receiver, "IO")) return null;
    const known = FILE_READERS[name.replace(/s?\?$/, "")];
    if (known === undefined || (name !== "join" && args.length !== 1)) throw new Untranslated();
    this.import(known.module, known.name);
    const given = args.map((arg) => this.#text(arg)).join(", ");
    const code = name === "read" ? `readFileSync(${given}, "utf8")` : `${known.name}(${given})`;
    return { code, type: known.type, mayEndLine: true };
  }

  import(module: string, name: string): void {
    const names = this.modules.get(module) ?? new Set();
    this.modules.set(module, names.add(name));
  }

  #operation(receiver: SyntaxNode, name: string, args: readonly unknown[]): Value {
    if (name === "!") return { code: negated(this.condition(receiver)), type: "boolean" };
    const left = this.value(receiver);
    if (name === "==" || name === "!=") {
      const right = this.value(args[0]);
      // TypeScript refuses a comparison with a known outcome.
      if (isLiteral(left) && isLiteral(right))
        return { code: String((left.code === right.code) === (name === "==")), type: "boolean" };
      return { code: `${left.code} ${name}= ${right.code}`, type: "boolean" };
    }
    if (name === "nil?" && left.type === "unknown") {
      const code = left.mayBeNull === true ? `(${left.code} ?? null) === null` : `${left.code} === undefined`;
      return { code, type: "boolean" };
    }
    if (left.type === "number") {
      if (name === "to_s") return { code: `String(${left.code})`, type: "string" };
      const right = this.value(args[0]);
      if (right.type !== "number") throw new Untranslated();
      if (["<", ">", "<=", ">="].includes(name)) return { code: `${left.code} ${name} ${right.code}`, type: "boolean" };
      if (name === "+" || name === "-") return { code: `(${left.code} ${name} ${right.code})`, type: "number" };
      throw new Untranslated();
    }
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

  /** A time as text, the only use of times. */
  #time(argument: unknown): Value {
    const seconds = this.value(argument);
    if (seconds.type !== "number") throw new Untranslated();
    this.helpers.add("ctime");
    const date = /^Math\.floor\((.*)\.getTime\(\) \/ 1000\)$/.exec(seconds.code)?.[1];
    return { code: `ctime(${date ?? `new Date(${seconds.code} * 1000)`})`, type: "string" };
  }

  /** Whether an expression is the session, its headers, results or message state, by their class or by a variable. */
  objectOf(node: SyntaxNode): Alias | null {
    if (node.$type() === "lvar") return this.aliases.get(node.$children()[0] as string) ?? null;
    if (node.$type() !== "send") return null;
    const [receiver, name] = node.$children();
    if (!isNode(receiver)) return null;
    if (name === "message_state") return this.objectOf(receiver) === "session" ? "state" : null;
    if (name !== "new") return null;
    if (isConstant(receiver, "Pmilter", "Session", "Results")) return "results";
    if (isConstant(receiver, "Pmilter", "Session")) return "session";
    return isConstant(receiver, "Pmilter", "Session", "Headers") ? "headers" : null;
  }
}
