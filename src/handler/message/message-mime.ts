/**
 * The structure of a message for one filter: made at the first look, and kept until the body or a Content-* header of the
 * message changes. The reader and its libraries are loaded then, too.
 */
import type { EditHost } from "../../mime/editor.ts";
import type { MimeView } from "../../mime/mime.ts";
import { UsageError } from "../../usage-error.ts";
import type { NewBody } from "./changes.ts";
import { transferred } from "./collected-body.ts";
import type { HeaderList } from "./header-list.ts";

type Reader = typeof import("../../mime/mime.ts");
type StructureReader = typeof import("../../mime/structure.ts");

/** The message as the filter sees it. */
export interface SeenMessage {
  /** The body that a filter has put in place of the received body; null if none has. */
  readonly replaced: NewBody | null;
  /** The headers with their changes so far. */
  readonly list: HeaderList;
}

/** The filter's view of the message. */
export interface MimeOwner extends Omit<EditHost, "edited"> {
  readonly seen: SeenMessage;
  /** Throws UsageError PMILTER_ERR_OVER once the memory of the body was given back. */
  checkOpen(): void;
  /** The filter's body is this one. */
  replaceBody(body: NewBody): void;
}

export class MessageMime {
  readonly #owner: MimeOwner;
  #mime: MimeView | null = null;
  /** The body that it was made of. */
  #source: NewBody | null = null;
  #content = "";

  constructor(owner: MimeOwner) {
    this.#owner = owner;
  }

  /** The object that was made, if the message is still as it shows it. */
  get current(): MimeView | null {
    const mime = this.#mime;
    if (mime === null) return null;
    const { list, replaced } = this.#owner.seen;
    const isSame = replaced === this.#source || replaced === mime.tree;
    return isSame && this.#content === contentHeaders(list) ? mime : null;
  }

  /** A new object. */
  make(bytes: Uint8Array): MimeView {
    const { MimeView } = require("../../mime/mime.ts") as Reader;
    const { structureOf } = require("../../mime/structure.ts") as StructureReader;
    const owner = this.#owner;
    const { list, replaced } = owner.seen;
    const { length } = bytes;
    const mime: MimeView = new MimeView({
      structure: structureOf(list, bytes),
      get headers() {
        return owner.seen.list;
      },
      bytes() {
        owner.checkOpen();
        if (bytes.length === length) return bytes;
        throw transferred();
      },
      host: {
        check: (method, needs) => {
          owner.check(method, needs);
          if (this.current === mime) return;
          throw new UsageError(
            "PMILTER_ERR_OVER",
            `${method}: the body or a Content-* header was changed since by other means; call message.mime() again`,
          );
        },
        setHeader: (name, value) => {
          owner.setHeader(name, value);
          this.#content = contentHeaders(owner.seen.list);
        },
        checkHeader: (name, value) => owner.checkHeader(name, value),
        edited: () => owner.replaceBody(mime.tree),
      },
    });
    this.#source = replaced;
    this.#content = contentHeaders(list);
    return (this.#mime = mime);
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
