/** The links of a text or an HTML document, as its reader can open them. */
import { decodeHTML, decodeHTMLAttribute } from "entities";

/** A link, without the part that it is in. */
export interface FoundLink {
  readonly url: string;
  readonly text: string;
}

/** The links in plain text, which mail programs make of what looks like one. */
export function* linksOfText(text: string): Generator<FoundLink> {
  for (const [found] of text.matchAll(/\b(?:https?:\/\/|ftp:\/\/|mailto:|www\.)[^\s<>"]+/gi)) {
    const url = withoutPunctuation(found);
    yield { url, text: url };
  }
}

/** Punctuation at the end belongs to the sentence, and so does a bracket that is not opened within. */
function withoutPunctuation(url: string): string {
  const bracket = url.indexOf("(");
  let end = url.length;
  for (;;) {
    const last = url[end - 1] ?? "";
    if (".,;:!?'".includes(last) && last !== "") end -= 1;
    else if (last === ")" && (bracket === -1 || bracket >= end)) end -= 1;
    else return url.slice(0, end);
  }
}

/** A link with more text than that is cut there. */
const MAX_TEXT = 1000;

/** Thrown by a handler of the rewriter, which then ends. */
const FULL = Symbol("more links than are looked for");

/**
 * The links of an HTML document: `a`, `area`, and the target of a form.
 * @param most how many are looked for
 */
export function linksOfHtml(html: string, most: number): FoundLink[] {
  const found: { url: string; text: string }[] = [];
  try {
    findLinks(html, most, found);
  } catch (error) {
    if (error !== FULL) throw error;
  }
  return found.map(({ url, text }) => ({
    url,
    text: decodeHTML(text).replaceAll(/\s+/g, " ").trim().slice(0, MAX_TEXT),
  }));
}

function findLinks(html: string, most: number, found: { url: string; text: string }[]): void {
  /** The element whose text is read. */
  let open: { url: string; text: string } | null = null;
  const take = (value: string | null): { url: string; text: string } | null => {
    if (value === null) return null;
    if (found.length >= most) throw FULL;
    // White space around it is left out, and line breaks and tabs within (URL Standard 4.4).
    const link = {
      url: decodeHTMLAttribute(value)
        .trim()
        .replaceAll(/[\t\r\n]/g, ""),
      text: "",
    };
    found.push(link);
    return link;
  };
  const rewriter = new HTMLRewriter()
    .on("a[href]", {
      element(element) {
        open = take(element.getAttribute("href"));
        element.onEndTag(() => {
          open = null;
        });
      },
      text({ text }) {
        if (open !== null && open.text.length < MAX_TEXT) open.text += text;
      },
    })
    .on("area[href]", { element: (element) => void take(element.getAttribute("href")) })
    .on("form[action]", { element: (element) => void take(element.getAttribute("action")) });
  rewriter.transform(html);
}
