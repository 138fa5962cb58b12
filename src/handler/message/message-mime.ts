/**
 * The structure of a message for one filter: made at the first look, and kept until the body or a Content-* header of the
 * message changes. The reader and its libraries are loaded then, too.
 */
import type { MimeView } from "../../mime/mime.ts";
import type { PartHeaders } from "../../mime/types.ts";
import type { HeaderList } from "./header-list.ts";

type Reader = typeof import("../../mime/mime.ts");
type StructureReader = typeof import("../../mime/structure.ts");

/** The body that the filter sees. */
export interface SeenBody {
  /** The body that a filter has put in place of the received body; null if none has. */
  readonly replaced: Uint8Array | null;
  readonly bytes: Uint8Array;
}

export class MessageMime {
  #mime: MimeView | null = null;
  #replaced: Uint8Array | null = null;
  #content = "";

  /**
   * @param list the headers with their changes so far
   * @param headers the same, as they are when they are read
   * @param checkOpen throws UsageError PMILTER_ERR_OVER once the memory of the body was given back
   */
  of({ replaced, bytes }: SeenBody, list: HeaderList, headers: () => PartHeaders, checkOpen: () => void): MimeView {
    const content = contentHeaders(list);
    if (this.#mime !== null && this.#replaced === replaced && this.#content === content) return this.#mime;
    const { MimeView } = require("../../mime/mime.ts") as Reader;
    const { structureOf } = require("../../mime/structure.ts") as StructureReader;
    this.#replaced = replaced;
    this.#content = content;
    return (this.#mime = new MimeView({
      structure: structureOf(list, bytes),
      get headers() {
        return headers();
      },
      bytes() {
        checkOpen();
        return bytes;
      },
    }));
  }
}

/** The headers that say what the body is. */
function contentHeaders(list: HeaderList): string {
  let all = "";
  for (const entry of list.entries) {
    if (!entry.isDeleted && /^content-/i.test(entry.name)) all += `${entry.name}:${list.valueOf(entry)}\0`;
  }
  return all;
}
