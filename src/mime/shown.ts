/**
 * Which text mail programs show as the message, and not as a file beside it. Where they differ, a part that one of them shows
 * counts: a sender must not choose the one that shows text without a banner.
 */
import type { Entity } from "./structure.ts";
import type { PartNode } from "./tree.ts";

/** How text is written: RFC 2046 4.1.3, HTML, RFC 1896, RFC 1341 7.1.3. */
export type Form = "plain" | "html" | "enriched" | "richtext";

const FORMS: ReadonlyMap<string, Form> = new Map([
  ["text/plain", "plain"],
  ["text/html", "html"],
  ["application/xhtml+xml", "html"],
  // The HTML of mail programs on watches, and of those that let a message act.
  ["text/watch-html", "html"],
  ["text/x-amp-html", "html"],
  ["text/enriched", "enriched"],
  ["text/richtext", "richtext"],
]);

/** Text that programs read, in which other text would be a fault. */
const DATA = /^text\/(?:calendar|css|csv|directory|(?:x-)?vcard|rtf|rfc822(?:-headers)?|xml|[\w.-]+\+(?:xml|json))$/;

/** How a part is written; null if it is no text for people. */
export function formOf(type: string): Form | null {
  const form = FORMS.get(type);
  if (form !== undefined) return form;
  // Text of a kind that is not known is shown as plain text (RFC 2046 4.1.4).
  return type.startsWith("text/") && !DATA.test(type) ? "plain" : null;
}

/** Parts of which a mail program shows one: the forms of an alternative, or a single part. */
export type Forms = readonly PartNode[];

/**
 * The text that is shown as the message, in order.
 * @param isForm the part is one form of an alternative: it is shown, whatever file name and disposition it has
 */
export function shownIn(node: PartNode, isForm = false): readonly Forms[] {
  const { children, entity } = node;
  if (!node.isMultipart) return isShown(node, isForm) ? [[node]] : [];
  switch (entity.type) {
    case "multipart/alternative":
      return together(children.map((child) => shownIn(child, true)));
    case "multipart/related": {
      // Its other parts belong to the root (RFC 2387). Programs that do not know `start` show the first part.
      const { start } = entity.params;
      const [first] = children;
      const named = children.find((child) => start !== undefined && contentId(child.entity) === start);
      const roots = named === undefined || named === first ? [] : [shownIn(named, true)];
      return first === undefined ? [] : together([shownIn(first, isForm), ...roots]);
    }
    case "multipart/encrypted":
      return [];
    default: {
      // An unknown multipart is read as mixed (RFC 2046 5.1.7).
      const shown = children.flatMap((child) => shownIn(child));
      if (shown.length > 0 || !isForm) return shown;
      // There is nothing else to show of this form.
      return children.map((child) => shownIn(child, true)).find((forms) => forms.length > 0) ?? [];
    }
  }
}

/** What stands first in each, as the forms of one text. */
function together(branches: readonly (readonly Forms[])[]): readonly Forms[] {
  const forms = branches.flatMap(([first]) => first ?? []);
  return forms.length === 0 ? [] : [forms, ...branches.flatMap((branch) => branch.slice(1))];
}

function isShown({ entity, parent }: PartNode, isForm: boolean): boolean {
  const { encoding, names, type } = entity;
  if (isForm) return formOf(type) !== null;
  if (!FORMS.has(type) || isFile(entity)) return false;
  if (/uue/.test(encoding)) return false;
  return names.length === 0 || parent === null || parent.children[0]?.entity === entity;
}

/** An unknown disposition means attachment (RFC 2183 2.8). */
export function isFile({ disposition }: Entity): boolean {
  return disposition !== "" && disposition !== "inline";
}

function contentId({ fields }: Entity): string | undefined {
  return fields.find(({ name }) => name.toLowerCase() === "content-id")?.value.trim();
}
