/**
 * Where text is put into HTML: behind the tag that begins its body, and in front of the tag that ends it. Tags within
 * comments, scripts and quotes are none (the tokens are those of the HTML standard, 13.2.5).
 */

/** Places in HTML, a character for each byte. */
export interface HtmlPlaces {
  readonly top: number;
  readonly bottom: number;
}

/** Elements whose content is text, whatever it looks like. */
const RAW = new Set(["script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"]);
/** What comes before the body: text is put behind the last of them. */
const BEFORE_BODY = new Set("!doctype ?xml html head meta link base /title /style /script /noscript /head".split(" "));
/** These belong to what comes before the body, but nothing is put in them. */
const IN_HEAD = new Set(["title", "style", "script", "noscript", ""]);

export function placesIn(html: string): HtmlPlaces {
  let top = 0;
  let hasContent = false;
  let bodyEnd = -1;
  /** Nothing that is seen follows the end of the body. */
  let isLast = false;
  let at = 0;
  let open = -1;
  while (at < html.length) {
    const tag = html.indexOf("<", at);
    if ((isLast || !hasContent) && /\S/.test(html.slice(at, tag === -1 ? html.length : tag))) {
      isLast = false;
      hasContent = true;
    }
    if (tag === -1) break;
    const token = tokenAt(html, tag);
    if (token === null) {
      at = tag + 1;
      isLast = false;
      hasContent = true;
      continue;
    }
    if (token.end === -1) {
      // It never ends: whatever is put behind it is not seen.
      open = tag;
      break;
    }
    at = token.end;
    const { name } = token;
    // Behind content the tag begins nothing: the body has begun with that (13.2.6.4.6).
    if (name === "body" && !hasContent) {
      top = token.end;
      hasContent = true;
    } else if (!hasContent && BEFORE_BODY.has(name)) top = token.end;
    else if (!IN_HEAD.has(name)) hasContent = true;
    if (name === "/body" || (name === "/html" && !isLast)) {
      bodyEnd = tag;
      isLast = true;
    } else if (name !== "" && name !== "/html" && name !== "body") {
      isLast = false;
    }
    if (RAW.has(name)) {
      const end = rawEnd(html, token.end, name);
      if (end === -1) {
        open = tag;
        break;
      }
      at = end;
    }
  }
  const bottom = open !== -1 ? open : isLast ? bodyEnd : html.length;
  return { top, bottom: Math.max(top, bottom) };
}

interface Token {
  /** In lower case, with `/` if it ends an element; `""` for a comment. */
  readonly name: string;
  /** Behind it; -1 if it does not end. */
  readonly end: number;
}

/** The tag or comment at `<`; null if it is text. */
function tokenAt(html: string, at: number): Token | null {
  if (html.startsWith("<!--", at)) return { name: "", end: commentEnd(html, at + 4) };
  const match = /^<(\/?[a-z][^\s/>]*|!doctype|\?xml)/i.exec(html.slice(at, at + 64));
  if (match !== null) {
    const name = match[1]!.toLowerCase();
    return { name, end: tagEnd(html, at + match[0].length) };
  }
  const next = html[at + 1];
  if (next === "!" || next === "?" || (next === "/" && at + 2 < html.length)) {
    const end = html.indexOf(">", at + 2);
    return { name: "", end: end === -1 ? -1 : end + 1 };
  }
  return null;
}

function commentEnd(html: string, from: number): number {
  if (html[from] === ">") return from + 1;
  if (html.startsWith("->", from)) return from + 2;
  const ends = /--!?>/g;
  ends.lastIndex = from;
  const match = ends.exec(html);
  return match === null ? -1 : match.index + match[0].length;
}

/** Behind the `>` of a tag; a `>` in a quoted value is none. */
function tagEnd(html: string, from: number): number {
  let at = from;
  while (at < html.length) {
    const character = html[at]!;
    if (character === ">") return at + 1;
    if (character === "=") {
      at += 1;
      while (/\s/.test(html[at] ?? "")) at += 1;
      const quote = html[at];
      if (quote === '"' || quote === "'") {
        const end = html.indexOf(quote, at + 1);
        if (end === -1) return -1;
        at = end + 1;
      }
      continue;
    }
    at += 1;
  }
  return -1;
}

/** Where the content of such an element ends. */
function rawEnd(html: string, from: number, name: string): number {
  const ends = new RegExp(`</${name}(?=[\\s/>])`, "gi");
  ends.lastIndex = from;
  return ends.exec(html)?.index ?? -1;
}
