/** Places in the text of a program that is read and not run. */

export interface TextPlace {
  /** From 1. */
  readonly line: number;
  /** From 1. */
  readonly column: number;
}

export function placeAt(text: string, offset: number): TextPlace {
  const before = text.slice(0, offset).split("\n");
  return { line: before.length, column: before.at(-1)!.length + 1 };
}

/** The place of a file's default export; its first line if it has none. */
export function placeOfDefault(text: string): TextPlace {
  return placeAt(text, Math.max(0, blank(text).search(/\bexport\s+default\b|\bexport\s*\{[^}]*\bdefault\b/)));
}

/** Where a member of that name is written in an object; null if it is not. */
export function placeOfMember(text: string, name: string): TextPlace | null {
  const at = blank(text).search(new RegExp(`(?<![\\w$.])${RegExp.escape(name)}\\s*[:(,}]`));
  return at === -1 ? null : placeAt(text, at);
}

/** Behind these a slash begins a regular expression; behind a name, a number or a bracket it divides. */
const BEFORE_REGEX = /(?:^|[=(,[!&|?:;{}+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|delete|await|yield|else|do))\s*$/;

const TOKEN = /\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)|"(?:\\[^]|[^"\\\n])*"?|'(?:\\[^]|[^'\\\n])*'?|`|\/|[{}]/g;

/**
 * The text with its comments, strings, templates and regular expressions made blank, so that a search finds only code.
 * It is as long, with the same line breaks.
 */
export function blank(text: string): string {
  const result: string[] = [];
  /** For each template whose `${…}` is being read: the number of open braces in it. */
  const templates: number[] = [];
  let at = 0;
  const code = (end: number) => {
    result.push(text.slice(at, end));
    at = end;
  };
  const hide = (end: number) => {
    result.push(text.slice(at, end).replace(/[^\n]/g, " "));
    at = end;
  };
  /** From behind a backtick, or a `}` that ends a `${…}`, on. */
  const template = () => {
    for (let next = at; ; next++) {
      if (next >= text.length || text[next] === "`") return hide(Math.min(next + 1, text.length));
      if (text[next] === "\\") next++;
      else if (text.startsWith("${", next)) {
        templates.push(0);
        return hide(next + 2);
      }
    }
  };
  while (at < text.length) {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    if (match === null) break;
    const [token] = match;
    code(match.index);
    const open = templates.at(-1);
    if (token === "{") {
      if (open !== undefined) templates[templates.length - 1] = open + 1;
      code(at + 1);
    } else if (token === "}") {
      if (open === 0) {
        templates.pop();
        hide(at + 1);
        template();
      } else {
        if (open !== undefined) templates[templates.length - 1] = open - 1;
        code(at + 1);
      }
    } else if (token === "`") {
      hide(at + 1);
      template();
    } else if (token === "/") {
      const regex = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\[\n])+\/\w*/y;
      regex.lastIndex = at;
      const isRegex = BEFORE_REGEX.test(result.slice(-8).join("").slice(-80)) && regex.test(text);
      if (isRegex) hide(regex.lastIndex);
      else code(at + 1);
    } else hide(at + token.length);
  }
  code(text.length);
  return result.join("");
}
