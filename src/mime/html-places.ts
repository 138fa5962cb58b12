/**
 * Where text is put into HTML: behind the tag that begins its body, and in front of the tag that ends it. Tags within
 * comments, scripts and quotes are none. The tokens are those of the HTML standard, 13.2.5: where a browser reads others,
 * a sender has text above a banner, or hides it.
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
    if ((isLast || !hasContent) && /[^\t\n\f\r ]/.test(html.slice(at, tag === -1 ? html.length : tag))) {
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
  const match = matchAt(TAG, html, at);
  if (match !== null) return { name: match[1]!.toLowerCase(), end: tagEnd(html, at + match[0].length) };
  const next = html[at + 1];
  if (next === "!" || next === "?" || (next === "/" && at + 2 < html.length)) {
    // Quotes mean nothing in these.
    const name = matchAt(DECLARATION, html, at)?.[1]?.toLowerCase() ?? "";
    const end = html.indexOf(">", at + 2);
    return { name, end: end === -1 ? -1 : end + 1 };
  }
  return null;
}

// White space of HTML is these characters only, for all else begins the body or goes on with a name.
const TAG = /<(\/?[a-z][^\t\n\f\r />]*)/iy;
const DECLARATION = /<(!doctype|\?xml)/iy;
const GAP = /[\t\n\f\r /]*/y;
const SPACE = /[\t\n\f\r ]*/y;
/** An `=` in front of a name belongs to it. */
const ATTRIBUTE = /[^\t\n\f\r />][^\t\n\f\r />=]*/y;
const UNQUOTED = /[^\t\n\f\r >]*/y;

function matchAt(pattern: RegExp, html: string, at: number): RegExpExecArray | null {
  pattern.lastIndex = at;
  return pattern.exec(html);
}

function behind(pattern: RegExp, html: string, at: number): number {
  return at + (matchAt(pattern, html, at)?.[0].length ?? 0);
}

function commentEnd(html: string, from: number): number {
  if (html[from] === ">") return from + 1;
  if (html.startsWith("->", from)) return from + 2;
  const ends = /--!?>/g;
  ends.lastIndex = from;
  const match = ends.exec(html);
  return match === null ? -1 : match.index + match[0].length;
}

/** Behind the `>` of a tag; a `>` in a quoted value is none. A quote begins a value only right behind the `=` of a name. */
function tagEnd(html: string, from: number): number {
  let at = from;
  for (;;) {
    at = behind(GAP, html, at);
    if (at >= html.length) return -1;
    if (html[at] === ">") return at + 1;
    at = behind(ATTRIBUTE, html, at);
    const equals = behind(SPACE, html, at);
    if (html[equals] !== "=") continue;
    at = behind(SPACE, html, equals + 1);
    const quote = html[at];
    if (quote === '"' || quote === "'") {
      const end = html.indexOf(quote, at + 1);
      if (end === -1) return -1;
      at = end + 1;
    } else at = behind(UNQUOTED, html, at);
  }
}

/** Where the content of such an element ends. */
function rawEnd(html: string, from: number, name: string): number {
  if (name === "script") return scriptEnd(html, from);
  const ends = new RegExp(`</${name}(?=[\\t\\n\\f\\r />])`, "gi");
  ends.lastIndex = from;
  return ends.exec(html)?.index ?? -1;
}

/** In what looks like a comment, a script may hold tags of another script (13.2.5.15 to 13.2.5.31). */
function scriptEnd(html: string, from: number): number {
  const marks = /<!--|-->|<\/?script(?=[\t\n\f\r />])/gi;
  marks.lastIndex = from;
  let isComment = false;
  let isInner = false;
  for (let match = marks.exec(html); match !== null; match = marks.exec(html)) {
    const mark = match[0].toLowerCase();
    if (mark === "<!--") {
      // The dashes may be those of its end, too: `<!-->`.
      if (!isComment) marks.lastIndex -= 2;
      isComment = true;
    } else if (mark === "-->") isComment = isInner = false;
    else if (mark === "<script") isInner = isComment;
    else if (isInner) isInner = false;
    else return match.index;
  }
  return -1;
}
