// Adds a disclaimer to the text and HTML of messages: docs/handlers/disclaimer.md.
import { defineFilter, type Mime } from "pmilter";
import { picklist, table } from "pmilter/options";
import { applies, decorationOf, envelopeOptions, textOptions } from "./lib/decoration.ts";
import { headerName, made, option } from "./lib/options.ts";
import { originOption, OWN_NETWORKS } from "./lib/origin.ts";

export const entries = {
  ...textOptions("disclaimer"),
  origin: originOption("any"),
  own_networks: OWN_NETWORKS,
  ...envelopeOptions("disclaimer"),
  marker: option(
    headerName(),
    "X-Pmilter-Disclaimer",
    "the header that marks a message with a disclaimer; a message that already has this header gets no disclaimer",
  ),
  dkim_signed: option(
    picklist(["leave", "change"]),
    "leave",
    'a message with a DKIM-Signature stays unchanged; with `"change"` it gets the disclaimer, which breaks the signature',
  ),
};

export const options = made(table(entries), (given, fail) => {
  const { html, html_file, text, text_file, ...rest } = given;
  return { ...rest, disclaimer: decorationOf({ html, html_file, text, text_file }, "disclaimer", fail) };
});

/** A signature in a file of its own. */
const SIGNATURE_NAME = /\.(?:p7[ms]|asc|sig)$/i;

const ENCODINGS: ReadonlySet<string> = new Set(["7bit", "8bit", "binary", "quoted-printable", "base64"]);

/** Why a message stays as it is; null if it gets the disclaimer. */
function whyNot(mime: Mime): string | null {
  const { flaws, isSealed, parts } = mime;
  if (flaws.length > 0) return `it has ${flaws[0]}`;
  if (isSealed) return "it is signed or encrypted";
  for (const part of mime.walk()) {
    // Programs read reports of delivery.
    if (part.type === "multipart/report") return "it is a report";
    if (part.names.some((name) => SIGNATURE_NAME.test(name))) return "it has a signature";
    if (part.isShown && !part.isAttachment && !ENCODINGS.has(part.encoding))
      return "its Content-Transfer-Encoding is not known";
  }
  return parts.some(({ isAttachment }) => !isAttachment) ? null : "it has no text";
}

export default defineFilter({
  name: "disclaimer",
  options,
  collectBody: { over: "skip" },

  eom(session) {
    const { log, message, options } = session;
    if (!applies(session, options) || message.headers.get(options.marker) !== undefined) return;
    const mime = message.mime();
    const isSigned = options.dkim_signed === "leave" && message.headers.get("DKIM-Signature") !== undefined;
    const reason =
      mime === null ? "its body is larger than limits.body" : isSigned ? "it is signed with DKIM" : whyNot(mime);
    if (mime === null || reason !== null) {
      log.warn(`left alone: ${reason}`);
      return;
    }
    mime.footer(options.disclaimer);
    message.addHeader(options.marker, "added");
  },
});
