/** A message whose parts can be edited, without a conversation around it. */
import type { EditHost } from "../../src/mime/editor.ts";
import { MimeView } from "../../src/mime/mime.ts";
import { FieldList } from "../../src/mime/part-headers.ts";
import { structureOfMessage } from "../../src/mime/structure.ts";

export interface Editable {
  readonly mime: MimeView;
  /** The message as it is now, LF at its line ends. */
  text(): string;
  bytes(): Buffer;
}

/** @param message LF at its line ends, a character for each byte */
export function editable(message: string): Editable {
  const bytes = Buffer.from(message.replaceAll("\n", "\r\n"), "latin1");
  const structure = structureOfMessage(bytes);
  let fields = structure.root.fields;
  let isEdited = false;
  const host: EditHost = {
    check: () => undefined,
    checkHeader: (_name, value) => value,
    setHeader(name, value) {
      const isName = (field: { readonly name: string }) => field.name.toLowerCase() === name.toLowerCase();
      const at = fields.findIndex(isName);
      const rest = fields.filter((field) => !isName(field));
      const added = { name, value, start: 0, end: 0 };
      fields = value === "" ? rest : rest.toSpliced(at === -1 ? rest.length : at, 0, added);
    },
    edited() {
      isEdited = true;
    },
  };
  const mime = new MimeView({
    structure,
    get headers() {
      return new FieldList(fields);
    },
    bytes: () => bytes,
    host,
  });
  const now = () => {
    const head = fields.map(({ name, value }) => `${name}: ${value.replaceAll(/\r?\n/g, "\r\n")}\r\n`).join("");
    const body = isEdited ? mime.tree.bytes : bytes.subarray(structure.root.start);
    return Buffer.concat([Buffer.from(`${head}\r\n`, "latin1"), body]);
  };
  return { mime, bytes: now, text: () => now().toString("latin1").replaceAll("\r\n", "\n") };
}
