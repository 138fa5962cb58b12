// Puts a banner on top of messages, such as a warning on mail from outside: docs/handlers/banner.md.
import { defineFilter, type EditOptions, type Mime, UsageError } from "pmilter";
import { boolean, picklist, table } from "pmilter/options";
import { applies, decorationOf, envelopeOptions, textOptions } from "./lib/decoration.ts";
import { made, option } from "./lib/options.ts";
import { originOption, OWN_NETWORKS } from "./lib/origin.ts";
import { QuotedText, type Where } from "./lib/quoted-text.ts";

export const entries = {
  ...textOptions("banner"),
  origin: originOption("outside"),
  own_networks: OWN_NETWORKS,
  ...envelopeOptions("banner"),
  sealed: option(
    picklist(["leave", "change"]),
    "leave",
    'signed mail stays unchanged; with `"change"` it gets the banner, which breaks the signature; encrypted mail always stays unchanged',
  ),
  strip_from_replies: option(
    boolean(),
    false,
    "take the banner out of all messages that quote it, whether they get a banner or not",
  ),
};

export const options = made(table(entries), (given, fail) => {
  const { html, html_file, text, text_file, ...rest } = given;
  const decoration = decorationOf({ html, html_file, text, text_file }, "banner", fail);
  const banner = { text: decoration.text, html: decoration.html ?? boxed(decoration.text) };
  return { ...rest, banner, quoted: new QuotedText(banner.text, banner.html) };
});

/** A box that is seen on a light and on a dark ground: it has colours of its own for both its text and its ground. */
function boxed(text: string): string {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `<div style="${BOX}">${escaped.replaceAll("\n", "<br>\n")}</div>`;
}

/**
 * What a sender's style sheet says of the box has no effect: a style that is important in the element itself comes first
 * (CSS Cascading 5, 6.1). `all` is for each property that is not named; what mail programs without `all` might take from a
 * style sheet is named.
 */
const BOX = [
  "all:initial",
  "display:block",
  "visibility:visible",
  "opacity:1",
  "position:static",
  "transform:none",
  "width:auto",
  "max-width:none",
  "height:auto",
  "max-height:none",
  "text-indent:0",
  "background-color:#fff4ce",
  "color:#1f1f1f",
  "font-size:14px",
  "line-height:1.4",
  "font-family:sans-serif",
  "border:1px solid #b58105",
  "padding:8px 12px",
  "margin:0 0 16px 0",
  // A style for its first line has no effect in a grid.
  "display:grid",
  // `all` does not include the order of letters.
  "unicode-bidi:plaintext",
]
  .map((declaration) => `${declaration} !important`)
  .join(";");

/** Takes the banner out of the text that is shown as the message. */
function takeOut(mime: Mime, quoted: QuotedText, where: Where, edit: EditOptions): void {
  for (const part of mime.parts) {
    if (!part.isShown) continue;
    if (part.isSealed && edit.breakSeal !== true) continue;
    const text = part.text();
    // Text that cannot be read whole cannot be written again.
    if (text.includes("\ufffd")) continue;
    if (/html/.test(part.type)) {
      const removal = quoted.htmlRemoval(text, where);
      if (removal !== null) part.rewriteHtml(removal, edit);
    } else {
      const rest = quoted.withoutLines(text, where);
      if (rest !== null) part.setText(rest, edit);
    }
  }
}

/** Encrypted mail would not be recognised any more, nor would an invitation, or a piece that is to be put together with others. */
const WHOLE: Readonly<Record<string, string>> = {
  "multipart/encrypted": "it is encrypted",
  "application/pkcs7-mime": "it is signed or encrypted",
  "application/x-pkcs7-mime": "it is signed or encrypted",
  "text/calendar": "it is a calendar entry",
  "message/partial": "it is a piece of a message",
};

export default defineFilter({
  name: "banner",
  options,
  collectBody: { over: "skip" },

  eom(session) {
    const { log, message, options } = session;
    const isWanted = applies(session, options);
    if (!isWanted && !options.strip_from_replies) return;
    const mime = message.mime();
    const edit = { breakSeal: options.sealed === "change" };
    const reason = mime === null ? "its body is larger than limits.body" : (WHOLE[mime.root.type] ?? null);
    if (mime === null || reason !== null) {
      if (isWanted) log.warn(`left alone: ${reason}`);
      return;
    }
    // A banner that is there already, whoever put it there, must not spare the message one that is seen.
    takeOut(mime, options.quoted, options.strip_from_replies ? "everywhere" : "top", edit);
    if (!isWanted) return;
    try {
      mime.banner(options.banner, edit);
    } catch (error) {
      if (!(error instanceof UsageError) || error.code !== "PMILTER_ERR_SEALED") throw error;
      log.warn("left alone: its text is signed or encrypted");
    }
  },
});
