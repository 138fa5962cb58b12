/**
 * Takes a known text out of a message that quotes it. Mail programs do not keep a quoted text as it was: they put marks in front
 * of its lines, break the lines elsewhere, and write HTML anew. So only the characters that are neither white space nor such
 * marks are compared, and a text counts where it has lines, or blocks of HTML, for itself.
 */
import { decodeHTML } from "entities";

/** White space, marks of quotes and of emphasis, and characters that are not seen. */
const PASSED_OVER = /[\s>|*_\u00ad\u200b-\u200d\u2060\ufeff]/;
const ALL_PASSED_OVER = new RegExp(PASSED_OVER, "g");

/** The target that a mail program puts behind a link when it makes text of HTML. */
const TARGETS = /<(?:https?:\/\/|mailto:)[^<>\s]*>/gi;

/** Plain text with white space in the place of such targets. */
function withoutTargets(text: string): string {
  return text.replace(TARGETS, (target) => " ".repeat(target.length));
}

/** What is compared of a text. */
function compared(text: string): string {
  return text.replace(ALL_PASSED_OVER, "");
}

/**
 * The longest word of a text, which mail programs keep in one piece: to look for it is quick. `""` if it has none in ASCII.
 */
function longestWord(text: string): string {
  return (text.match(/[A-Za-z0-9]+/g) ?? []).reduce(
    (longest, word) => (word.length > longest.length ? word : longest),
    "",
  );
}

interface Range {
  readonly start: number;
  readonly end: number;
}

/** Longer HTML is not looked through: it would keep other sessions waiting. */
const MAX_HTML = 2 * 1024 * 1024;

/** In all of a message, or only where no other text stands above. */
export type Where = "everywhere" | "top";

export class QuotedText {
  readonly #needles: readonly string[];
  /** A text that has none of these has none of the forms. */
  readonly #words: readonly string[];
  /** The sources of pictures that belong to the text. */
  readonly #media: ReadonlySet<string>;

  /** @param text and @param html the forms in which the text is added to messages */
  constructor(text: string, html: string) {
    const read = readHtml(html, new Set());
    const forms = [withoutTargets(text), textOf(read)].filter((form) => compared(form) !== "");
    this.#needles = [...new Set(forms.map(compared))];
    this.#words = forms.map(longestWord);
    this.#media = new Set(read.media);
  }

  /** @returns the text without the lines of it; null if it has none */
  withoutLines(text: string, where: Where): string | null {
    if (!this.#mayBeIn(text)) return null;
    const ranges = this.#find(withoutTargets(text), where);
    if (ranges.length === 0) return null;
    let rest = "";
    let at = 0;
    for (const { start, end } of ranges) {
      rest += text.slice(at, start);
      // The empty line behind it was added with it.
      const empty = /[ \t>|]*(?:\n|$)/y;
      empty.lastIndex = end;
      at = end + (empty.exec(text)?.[0].length ?? 0);
    }
    return rest + text.slice(at);
  }

  /** @returns what takes the text out of that HTML; null if it is not there */
  htmlRemoval(html: string, where: Where): ((rewriter: HTMLRewriter) => void) | null {
    if (html.length > MAX_HTML || !this.#mayBeIn(html)) return null;
    const read = readHtml(html, this.#media);
    const ranges = this.#find(textOf(read), where);
    return ranges.length === 0 ? null : removalOf(read, ranges);
  }

  #mayBeIn(text: string): boolean {
    return this.#words.some((word) => text.includes(word));
  }

  /** The lines of the text, in order. */
  #find(text: string, where: Where): Range[] {
    const haystack = compared(text);
    if (!this.#needles.some((needle) => haystack.includes(needle))) return [];
    const positions = positionsOf(text, haystack.length);
    const found: Range[] = [];
    for (const needle of this.#needles) {
      for (let at = haystack.indexOf(needle); at !== -1;) {
        if (where === "top" && at > 0) break;
        const range = linesAround(text, positions[at]!, positions[at + needle.length - 1]! + 1);
        if (range !== null) found.push(range);
        at = haystack.indexOf(needle, at + (range === null ? 1 : needle.length));
      }
    }
    found.sort((one, other) => one.start - other.start);
    // The two forms may be found in the same place.
    let last = 0;
    return found.filter(({ start, end }) => {
      if (start < last) return false;
      last = end;
      return true;
    });
  }
}

/** Where the characters stand that are compared. */
function positionsOf(text: string, length: number): Uint32Array {
  const positions = new Uint32Array(length);
  let count = 0;
  for (let index = 0; index < text.length; index++) {
    if (!PASSED_OVER.test(text[index]!)) positions[count++] = index;
  }
  return positions;
}

/** The lines that a range fills, with the line end of the last; null if other text stands on them. */
function linesAround(text: string, from: number, to: number): Range | null {
  let start = from;
  while (start > 0 && text[start - 1] !== "\n") {
    if (!PASSED_OVER.test(text[start - 1]!)) return null;
    start -= 1;
  }
  let end = to;
  while (end < text.length && text[end] !== "\n") {
    if (!PASSED_OVER.test(text[end]!)) return null;
    end += 1;
  }
  return { start, end: Math.min(end + 1, text.length) };
}

// ---- HTML ----

/** Text as the rewriter gives it, in pieces. */
interface Piece {
  /** As it is read. */
  readonly text: string;
  /** Blocks that begin or end in front of it, each a line break. */
  readonly breaks: number;
}

interface Element {
  /** Pieces in front of its content, and in front of what follows it; -1 if it does not end by a tag of its own. */
  readonly first: number;
  last: number;
  /** Whether it can be taken out as a whole. */
  canGo: boolean;
}

interface ReadHtml {
  readonly pieces: readonly Piece[];
  /** In the order of their tags. */
  readonly elements: readonly Element[];
  /** Sources of pictures and other media. */
  readonly media: readonly string[];
}

/** Elements that stand within a line. */
const INLINE: ReadonlySet<string> = new Set(
  "a abbr acronym b bdi bdo big cite code data del dfn em font i img ins kbd label mark o:p q s samp small span strike strong sub sup time tt u var wbr".split(
    " ",
  ),
);
/** Elements whose text is not shown. */
const HIDDEN: ReadonlySet<string> = new Set(["script", "style", "template", "textarea", "title"]);
/** Elements that are seen without text. */
const MEDIA: ReadonlySet<string> = new Set(
  "img video audio object embed iframe input button select svg canvas hr".split(" "),
);
const KEPT: ReadonlySet<string> = new Set(["html", "head", "body"]);

/** @param ownMedia the sources of media that count as text that is taken out */
function readHtml(html: string, ownMedia: ReadonlySet<string>): ReadHtml {
  const pieces: Piece[] = [];
  const elements: Element[] = [];
  const media: string[] = [];
  let breaks = 0;
  let hidden = 0;
  /** Media so far that are not one's own. */
  let others = 0;
  new HTMLRewriter()
    .on("*", {
      element(tag) {
        const { tagName } = tag;
        const element: Element = { first: pieces.length, last: -1, canGo: !KEPT.has(tagName) };
        elements.push(element);
        if (!INLINE.has(tagName)) breaks += 1;
        if (MEDIA.has(tagName)) {
          const source = tag.getAttribute("src") ?? "";
          media.push(source);
          if (source === "" || !ownMedia.has(source)) others += 1;
        }
        if (!tag.canHaveContent || tag.selfClosing) return;
        const othersBefore = others;
        if (HIDDEN.has(tagName)) hidden += 1;
        tag.onEndTag(({ name }) => {
          if (HIDDEN.has(tagName)) hidden -= 1;
          if (!INLINE.has(tagName)) breaks += 1;
          if (others !== othersBefore) element.canGo = false;
          // An element without an end tag ends with the element around it.
          if (name === tagName) element.last = pieces.length;
        });
      },
    })
    .onDocument({
      text({ text }) {
        pieces.push({ text: hidden > 0 ? "" : decodeHTML(text), breaks });
        if (text !== "") breaks = 0;
      },
    })
    .transform(html);
  return { pieces, elements, media };
}

function textOf({ pieces }: ReadHtml): string {
  return pieces.map(({ breaks, text }) => (text === "" ? "" : (breaks > 0 ? "\n" : "") + text)).join("");
}

/** Takes ranges of {@link textOf} out of the HTML that was read: the text, and elements that hold nothing else. */
function removalOf({ elements, pieces }: ReadHtml, ranges: readonly Range[]): (rewriter: HTMLRewriter) => void {
  /** What is left of each piece. */
  const rests = restsOf(pieces, ranges);
  /** Up to each piece, how many lose their text, and how many keep some. */
  const gone = new Uint32Array(pieces.length + 1);
  const kept = new Uint32Array(pieces.length + 1);
  for (const [index, { text }] of pieces.entries()) {
    const isText = compared(text) !== "";
    const isGone = isText && compared(rests[index]!) === "";
    gone[index + 1] = gone[index]! + (isGone ? 1 : 0);
    kept[index + 1] = kept[index]! + (isText && !isGone ? 1 : 0);
  }
  const isEmptied = ({ canGo, first, last }: Element) =>
    canGo && last !== -1 && gone[last]! > gone[first]! && kept[last] === kept[first];
  return (rewriter) => {
    let element = 0;
    let piece = 0;
    /** Up to this piece all is taken out with an element. */
    let goneTo = 0;
    rewriter
      .on("*", {
        element(tag) {
          const read = elements[element++]!;
          if (piece < goneTo || !isEmptied(read)) return;
          goneTo = read.last;
          tag.remove();
        },
      })
      .onDocument({
        text(chunk) {
          const index = piece++;
          if (rests[index] !== pieces[index]!.text) chunk.replace(rests[index]!);
        },
      });
  };
}

function restsOf(pieces: readonly Piece[], ranges: readonly Range[]): string[] {
  const rests: string[] = [];
  let next = 0;
  let at = 0;
  for (const { breaks, text } of pieces) {
    if (text !== "" && breaks > 0) at += 1;
    const end = at + text.length;
    let rest = "";
    let from = at;
    while (next < ranges.length && ranges[next]!.start < end) {
      const range = ranges[next]!;
      rest += text.slice(from - at, Math.max(range.start, from) - at);
      from = Math.min(Math.max(range.end, from), end);
      // It goes on in the next piece.
      if (range.end > end) break;
      next += 1;
    }
    rests.push(rest + text.slice(from - at));
    at = end;
  }
  return rests;
}
