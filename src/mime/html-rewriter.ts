/** The types of an HTML rewriter: the part of Bun's `HTMLRewriter` that `rewriteHtml` gives, for editors without Bun's types. */

/** Whether content is HTML; else it is text, and is escaped. Default false. */
interface ContentKind {
  html?: boolean;
}

/**
 * An element that was found.
 * @example rewriter.on("a[href]", { element: (link: HtmlElement) => void link.setAttribute("rel", "noreferrer") });
 */
export interface HtmlElement {
  /** In lower case; it can be set. */
  tagName: string;
  /** Name and value of each; values are as they stand there: `&amp;` is not decoded. */
  readonly attributes: IterableIterator<[string, string]>;
  readonly removed: boolean;
  readonly selfClosing: boolean;
  readonly canHaveContent: boolean;
  readonly namespaceURI: string;
  getAttribute(name: string): string | null;
  hasAttribute(name: string): boolean;
  setAttribute(name: string, value: string): HtmlElement;
  removeAttribute(name: string): HtmlElement;
  before(content: string, options?: ContentKind): HtmlElement;
  after(content: string, options?: ContentKind): HtmlElement;
  prepend(content: string, options?: ContentKind): HtmlElement;
  append(content: string, options?: ContentKind): HtmlElement;
  replace(content: string, options?: ContentKind): HtmlElement;
  remove(): HtmlElement;
  removeAndKeepContent(): HtmlElement;
  setInnerContent(content: string, options?: ContentKind): HtmlElement;
  onEndTag(handler: (tag: HtmlEndTag) => void): void;
}

interface HtmlEndTag {
  name: string;
  before(content: string, options?: ContentKind): HtmlEndTag;
  after(content: string, options?: ContentKind): HtmlEndTag;
  remove(): HtmlEndTag;
}

/**
 * A piece of text: a text comes in one piece or in several.
 * @example rewriter.on("p", { text: (piece: HtmlText) => void (piece.text.includes("draft") && piece.remove()) });
 */
export interface HtmlText {
  readonly text: string;
  readonly lastInTextNode: boolean;
  readonly removed: boolean;
  before(content: string, options?: ContentKind): HtmlText;
  after(content: string, options?: ContentKind): HtmlText;
  replace(content: string, options?: ContentKind): HtmlText;
  remove(): HtmlText;
}

interface HtmlComment {
  text: string;
  readonly removed: boolean;
  before(content: string, options?: ContentKind): HtmlComment;
  after(content: string, options?: ContentKind): HtmlComment;
  replace(content: string, options?: ContentKind): HtmlComment;
  remove(): HtmlComment;
}

interface HtmlDoctype {
  readonly name: string | null;
  readonly publicId: string | null;
  readonly systemId: string | null;
  readonly removed: boolean;
  remove(): HtmlDoctype;
}

interface HtmlDocumentEnd {
  append(content: string, options?: ContentKind): HtmlDocumentEnd;
}

/**
 * Finds elements by CSS selectors and changes them as a stream; see Bun's `HTMLRewriter`.
 * @example part.rewriteHtml((rewriter: HtmlRewriter) => rewriter.on("script", { element: (tag) => void tag.remove() }));
 */
export interface HtmlRewriter {
  on(
    selector: string,
    handlers: {
      element?(element: HtmlElement): void;
      comments?(comment: HtmlComment): void;
      text?(text: HtmlText): void;
    },
  ): HtmlRewriter;
  onDocument(handlers: {
    doctype?(doctype: HtmlDoctype): void;
    comments?(comment: HtmlComment): void;
    text?(text: HtmlText): void;
    end?(end: HtmlDocumentEnd): void;
  }): HtmlRewriter;
}

/** What prepares a rewriter. A function that asks for Bun's own `HTMLRewriter` is one, too. */
export type PrepareHtml = { prepare(rewriter: HtmlRewriter): unknown }["prepare"];
